//! A graphics device that computes: found, opened and asked what it can do, never assumed to be there.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What can go wrong with a graphics device. The sentence says what to do; the backend lanes needs none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is neither a GPU nor a software driver.
    #[error(
        "no graphics adapter was found for the backend shader ({0}): install a Vulkan driver (Mesa's software one needs no GPU: \
         `sudo apt-get install mesa-vulkan-drivers` on Debian and Ubuntu), or use --backend lanes"
    )]
    NoAdapter(String),
    /// The adapter gave no device.
    #[error("the adapter {adapter} gave no device ({why}): update its driver, or use --backend lanes")]
    NoDevice {
        /// Its name.
        adapter: String,
        /// What it said.
        why: String,
    },
    /// The batch does not fit the adapter's limits.
    #[error(
        "the adapter {adapter} allows {has} bytes of {what}, and this batch takes {needs}: ask for fewer worlds, or use --backend lanes"
    )]
    Limit {
        /// Its name.
        adapter: String,
        /// What of.
        what: &'static str,
        /// How much the batch takes.
        needs: u64,
        /// How much the adapter allows.
        has: u64,
    },
    /// The device has no memory left.
    #[error(
        "the adapter {adapter} has no memory left: ask for fewer worlds, close other programs, or use --backend lanes"
    )]
    OutOfMemory {
        /// Its name.
        adapter: String,
    },
    /// The device went away while it worked.
    #[error(
        "the adapter {adapter} was lost ({why}): use --backend lanes, or start again when the driver has recovered"
    )]
    Lost {
        /// Its name.
        adapter: String,
        /// What the driver said.
        why: String,
    },
    /// The driver refused something that it ought to do.
    #[error(
        "the driver of the adapter {adapter} refused the physics shaders ({why}): update it, or use --backend lanes"
    )]
    Refused {
        /// Its name.
        adapter: String,
        /// What it said.
        why: String,
    },
}

/// Longer than any dispatch takes, the first included, in which a software driver compiles the shader. A device that has not answered by
/// then is taken for lost.
const PATIENCE: Duration = Duration::from_secs(300);

/// An open device.
pub struct Device {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// The adapter's name, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub adapter: String,
    /// Whether a processor computes in a GPU's place.
    pub software: bool,
    /// The first thing that went wrong outside of an error scope.
    fault: Arc<Mutex<Option<DeviceError>>>,
}

impl Device {
    /// Opens the best adapter there is, a software one if need be, with all that it allows.
    pub fn open() -> Result<Device, DeviceError> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..wgpu::RequestAdapterOptions::default()
        }))
        .map_err(|error| DeviceError::NoAdapter(error.to_string()))?;
        let wgpu::AdapterInfo { name, device_type, .. } = adapter.get_info();
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("physics"),
            required_limits: adapter.limits(),
            required_features: adapter.features() & (wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::PIPELINE_CACHE),
            ..wgpu::DeviceDescriptor::default()
        }))
        .map_err(|error| DeviceError::NoDevice { adapter: name.clone(), why: error.to_string() })?;
        let fault = Arc::new(Mutex::new(None));
        let first = |fault: &Arc<Mutex<Option<DeviceError>>>, error: DeviceError| {
            fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        };
        let (slot, adapter) = (fault.clone(), name.clone());
        device.on_uncaptured_error(Arc::new(move |error| first(&slot, sort(&adapter, error))));
        let (slot, adapter) = (fault.clone(), name.clone());
        device
            .set_device_lost_callback(move |_, why| first(&slot, DeviceError::Lost { adapter: adapter.clone(), why }));
        Ok(Device { device, queue, adapter: name, software: device_type == wgpu::DeviceType::Cpu, fault })
    }

    /// What went wrong since the device was opened, if anything.
    pub fn check(&self) -> Result<(), DeviceError> {
        match &*self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Makes something and says what the device has against it.
    pub fn make<T>(&self, something: impl FnOnce(&wgpu::Device) -> T) -> Result<T, DeviceError> {
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let made = something(&self.device);
        let errors: Vec<_> = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop())).collect();
        match errors.into_iter().flatten().next() {
            Some(error) => Err(sort(&self.adapter, error)),
            None => self.check().map(|()| made),
        }
    }

    /// A buffer of at least `bytes` bytes of something.
    ///
    /// # Errors
    /// [`DeviceError::Limit`] and [`DeviceError::OutOfMemory`].
    pub fn buffer(
        &self,
        what: &'static str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, DeviceError> {
        let limits = self.device.limits();
        let has = limits.max_buffer_size.min(limits.max_storage_buffer_binding_size);
        let size = bytes.max(16).next_multiple_of(4);
        if size > has {
            return Err(DeviceError::Limit { adapter: self.adapter.clone(), what, needs: size, has });
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
        self.make(|device| device.create_buffer(&descriptor))
    }

    /// Waits for all that was submitted.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.device
            .poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(PATIENCE) })
            .map_err(|error| DeviceError::Lost { adapter: self.adapter.clone(), why: error.to_string() })?;
        self.check()
    }

    /// The first `bytes` bytes of a buffer that can be mapped, once all that was submitted is done.
    pub fn read(&self, buffer: &wgpu::Buffer, bytes: u64, take: impl FnOnce(&[u8])) -> Result<(), DeviceError> {
        let lost =
            |error: &dyn std::fmt::Display| DeviceError::Lost { adapter: self.adapter.clone(), why: error.to_string() };
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        buffer.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
            // The receiver lives until the end of this function, or nobody cares for the answer any more.
            let _ = sender.send(result);
        });
        self.wait()?;
        receiver.recv().map_err(|error| lost(&error))?.map_err(|error| lost(&error))?;
        take(&buffer.get_mapped_range(..bytes).map_err(|error| lost(&error))?);
        buffer.unmap();
        Ok(())
    }
}

fn sort(adapter: &str, error: wgpu::Error) -> DeviceError {
    let adapter = adapter.to_owned();
    match error {
        wgpu::Error::OutOfMemory { .. } => DeviceError::OutOfMemory { adapter },
        other => DeviceError::Refused { adapter, why: other.to_string() },
    }
}
