//! A graphics device for computation. It is never assumed to exist: it is searched for, opened, and asked for its
//! limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wgpu::naga::Module;

/// Errors of a graphics device. Each message says what to do; the backend `lanes` needs no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// There is neither a GPU nor a software driver.
    #[error(
        "no graphics adapter was found for the backend shader ({0}): install a Vulkan driver (Mesa's software one needs no GPU: \
         `sudo apt-get install mesa-vulkan-drivers` on Debian and Ubuntu), or use --backend lanes"
    )]
    NoAdapter(String),
    /// The adapter did not give a device.
    #[error("the adapter {adapter} gave no device ({why}): update its driver, or use --backend lanes")]
    NoDevice {
        /// The adapter's name.
        adapter: String,
        /// Its message.
        why: String,
    },
    /// The batch does not fit the adapter's limits.
    #[error(
        "the adapter {adapter} allows {has} bytes of {what}, and this batch takes {needs}: ask for fewer worlds, or use --backend lanes"
    )]
    Limit {
        /// The adapter's name.
        adapter: String,
        /// Which buffer.
        what: &'static str,
        /// Bytes that the batch needs.
        needs: u64,
        /// Bytes that the adapter allows.
        has: u64,
    },
    /// A kernel needs more workgroup memory, or more threads, than the adapter has.
    #[error(
        "the adapter {adapter} lets {threads} threads of a workgroup share {has} bytes at most, and this robot's take {needs}: use \
         --threads-per-world 1"
    )]
    Shared {
        /// The adapter's name.
        adapter: String,
        /// Threads of the workgroup.
        threads: usize,
        /// Bytes that they share.
        needs: u64,
        /// Bytes that the adapter allows; 0 if it does not allow that many threads.
        has: u64,
    },
    /// The device is out of memory.
    #[error(
        "the adapter {adapter} has no memory left: ask for fewer worlds, close other programs, or use --backend lanes"
    )]
    OutOfMemory {
        /// The adapter's name.
        adapter: String,
    },
    /// The device was lost while it worked.
    #[error(
        "the adapter {adapter} was lost ({why}): use --backend lanes, or start again when the driver has recovered"
    )]
    Lost {
        /// The adapter's name.
        adapter: String,
        /// The driver's message.
        why: String,
    },
    /// The driver refused something that it should support.
    #[error(
        "the driver of the adapter {adapter} refused the physics shaders ({why}): update it, or use --backend lanes"
    )]
    Refused {
        /// The adapter's name.
        adapter: String,
        /// Its message.
        why: String,
    },
}

/// A device that has not answered by then counts as lost. This is longer than any dispatch takes, including the first
/// one, in which a software driver compiles the shader.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Whether shaders check array indices. Tests run our shaders with checks, to show that they need none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// Every index is clamped to its array.
    On,
    /// No checks.
    Off,
}

/// The purpose of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Constants that all threads read at the same index.
    Uniform,
    /// Read and written by shaders; uploaded and copied by the host.
    Storage,
    /// Read by the host.
    Readback,
}

/// An open device. A clone is the same device.
#[derive(Clone, Debug)]
pub struct Device {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// The adapter's name, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub adapter: String,
    /// Whether this is a software driver, which computes on the CPU.
    pub software: bool,
    /// The name of the driver's pipeline cache, if it supports one, and the cache, if it is in use.
    cache: Option<(String, Option<wgpu::PipelineCache>)>,
    /// The first error outside of an error scope.
    fault: Arc<Mutex<Option<DeviceError>>>,
}

/// A buffer in device memory. A clone is the same buffer.
#[derive(Clone, Debug)]
pub struct Buffer(wgpu::Buffer);

/// A shader's entry point, ready to run.
#[derive(Clone, Debug)]
pub struct Kernel {
    name: String,
    pipeline: wgpu::ComputePipeline,
}

/// The buffers of one bind group of a kernel.
#[derive(Clone, Debug)]
pub struct Bindings(wgpu::BindGroup);

/// Caches the small argument buffers of one kernel and their bind groups, by their bytes. The same few arguments recur
/// in every rollout.
#[derive(Default)]
pub struct UniformCache(HashMap<Vec<u8>, Bindings>);

impl UniformCache {
    /// Bind group 1 of the kernel: a small buffer with these bytes.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] and [`DeviceError::Refused`].
    pub fn bind(&mut self, device: &Device, kernel: &Kernel, words: &[u8]) -> Result<Bindings, DeviceError> {
        if let Some(bindings) = self.0.get(words) {
            return Ok(bindings.clone());
        }
        let buffer = device.buffer("batch", words.len() as u64, Use::Storage)?;
        device.upload(&buffer, 0, words);
        let bindings = device.bind(kernel, 1, &[(0, &buffer)])?;
        self.0.insert(words.to_vec(), bindings.clone());
        Ok(bindings)
    }
}

/// Work to be submitted together. Its commands take effect in the order in which they were recorded.
pub struct Commands {
    encoder: wgpu::CommandEncoder,
    timer: Option<Timer>,
}

/// Timestamps at the beginning and end of the first `most` kernel runs.
struct Timer {
    queries: wgpu::QuerySet,
    most: u32,
    /// Names of the timed kernels, one per run.
    names: Vec<String>,
}

impl Commands {
    /// Runs a kernel with `groups` workgroups. `bindings` are its bind groups from 0 on.
    pub fn run(&mut self, kernel: &Kernel, bindings: &[&Bindings], groups: usize) {
        let timestamp_writes =
            self.timer.as_mut().filter(|timer| (timer.names.len() as u32) < timer.most).map(|timer| {
                let at = 2 * timer.names.len() as u32;
                timer.names.push(kernel.name.clone());
                wgpu::ComputePassTimestampWrites {
                    query_set: &timer.queries,
                    beginning_of_pass_write_index: Some(at),
                    end_of_pass_write_index: Some(at + 1),
                }
            });
        let mut pass = self.encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        pass.set_pipeline(&kernel.pipeline);
        for (index, bindings) in (0..).zip(bindings) {
            pass.set_bind_group(index, &bindings.0, &[]);
        }
        // Callers split a batch before it exceeds the number of workgroups of a dispatch.
        pass.dispatch_workgroups(groups as u32, 1, 1);
    }

    /// Copies the first `bytes` bytes of one buffer to `at` in another.
    pub fn copy(&mut self, from: &Buffer, to: &Buffer, at: u64, bytes: u64) {
        if bytes > 0 {
            self.encoder.copy_buffer_to_buffer(&from.0, 0, &to.0, at, bytes);
        }
    }
}

impl Device {
    /// Opens the best adapter, a software one if there is no other, with its highest limits.
    pub fn open() -> Result<Device, DeviceError> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..wgpu::RequestAdapterOptions::default()
        }))
        .map_err(|error| DeviceError::NoAdapter(error.to_string()))?;
        let info = adapter.get_info();
        let keeps = adapter.features().contains(wgpu::Features::PIPELINE_CACHE);
        let cache = wgpu::util::pipeline_cache_key(&info).filter(|_| keeps).map(|name| (name, None));
        let wgpu::AdapterInfo { name, device_type, .. } = info;
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
        Ok(Device { device, queue, adapter: name, software: device_type == wgpu::DeviceType::Cpu, cache, fault })
    }

    /// The name under which compiled shaders of this device can be saved between runs; None if its driver supports no
    /// cache.
    pub fn cache_name(&self) -> Option<&str> {
        self.cache.as_ref().map(|(name, _)| name.as_str())
    }

    /// Uses a pipeline cache from now on. `cached` is what [`Device::cached`] gave under the same name, if anything.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn use_cache(&mut self, cached: Option<&[u8]>) -> Result<(), DeviceError> {
        let Some((name, _)) = &self.cache else { return Ok(()) };
        let descriptor = wgpu::PipelineCacheDescriptor { label: None, data: cached, fallback: true };
        // SAFETY: the same driver gave these bytes, as their name and the checksum of their file show. wgpu checks
        // their header.
        let cache = self.make(|device| unsafe { device.create_pipeline_cache(&descriptor) })?;
        self.cache = Some((name.clone(), Some(cache)));
        Ok(())
    }

    /// The contents of the pipeline cache: shaders given to [`Device::use_cache`], and those compiled since.
    pub fn cached(&self) -> Option<Vec<u8>> {
        self.cache.as_ref().and_then(|(_, cache)| cache.as_ref()?.get_data())
    }

    /// The first error since the device was opened, if any.
    pub fn check(&self) -> Result<(), DeviceError> {
        match &*self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }

    /// Creates something on the device and reports the device's error, if any.
    fn make<T>(&self, something: impl FnOnce(&wgpu::Device) -> T) -> Result<T, DeviceError> {
        let filters = [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.device.push_error_scope(filter));
        let made = something(&self.device);
        let errors: Vec<_> = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop())).collect();
        match errors.into_iter().flatten().next() {
            Some(error) => Err(sort(&self.adapter, error)),
            None => self.check().map(|()| made),
        }
    }

    /// A buffer of at least `bytes` bytes, all zero. `what` names it in error messages.
    ///
    /// # Errors
    /// [`DeviceError::Limit`] and [`DeviceError::OutOfMemory`].
    pub fn buffer(&self, what: &'static str, bytes: u64, purpose: Use) -> Result<Buffer, DeviceError> {
        use wgpu::BufferUsages as Usage;
        let limits = self.device.limits();
        let binding = match purpose {
            Use::Uniform => limits.max_uniform_buffer_binding_size,
            Use::Storage => limits.max_storage_buffer_binding_size,
            Use::Readback => u64::MAX,
        };
        let (has, size) = (limits.max_buffer_size.min(binding), bytes.max(16).next_multiple_of(4));
        if size > has {
            return Err(DeviceError::Limit { adapter: self.adapter.clone(), what, needs: size, has });
        }
        let usage = match purpose {
            Use::Uniform => Usage::UNIFORM | Usage::COPY_DST,
            Use::Storage => Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST,
            Use::Readback => Usage::MAP_READ | Usage::COPY_DST,
        };
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false };
        self.make(|device| Buffer(device.create_buffer(&descriptor)))
    }

    /// Writes `bytes` to a buffer at offset `at`, before anything that is submitted later.
    pub fn upload(&self, buffer: &Buffer, at: u64, bytes: &[u8]) {
        self.queue.write_buffer(&buffer.0, at, bytes);
    }

    /// Compiles an entry point of one of our shaders.
    ///
    /// # Errors
    /// [`DeviceError::Refused`].
    pub fn kernel(&self, name: &str, shader: Module, entry: &str, checks: Checks) -> Result<Kernel, DeviceError> {
        let checks = match checks {
            Checks::On => wgpu::ShaderRuntimeChecks { bounds_checks: true, ..wgpu::ShaderRuntimeChecks::unchecked() },
            Checks::Off => wgpu::ShaderRuntimeChecks::unchecked(),
        };
        self.make(|device| {
            let source = wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(shader));
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(name), source };
            // SAFETY: the shader is ours, its loops end, and tests with index checks give the same numbers.
            let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(name),
                layout: None,
                module: &module,
                entry_point: Some(entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Some workgroup memory is read without being written and must be zero, such as the world's centre
                    // of mass and the empty half of the mass matrix. A NaN there would spoil every contact with the
                    // floor.
                    zero_initialize_workgroup_memory: true,
                    ..wgpu::PipelineCompilationOptions::default()
                },
                cache: self.cache.as_ref().and_then(|(_, cache)| cache.as_ref()),
            });
            Kernel { name: name.to_owned(), pipeline }
        })
    }

    /// A bind group of a kernel: buffers by their binding numbers.
    ///
    /// # Errors
    /// [`DeviceError::Refused`] if the kernel has other bindings.
    pub fn bind(&self, kernel: &Kernel, group: u32, buffers: &[(u32, &Buffer)]) -> Result<Bindings, DeviceError> {
        let entries: Vec<_> = buffers
            .iter()
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding: *binding, resource: buffer.0.as_entire_binding() })
            .collect();
        self.make(|device| {
            Bindings(device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &kernel.pipeline.get_bind_group_layout(group),
                entries: &entries,
            }))
        })
    }

    /// An empty list of commands.
    pub fn commands(&self) -> Commands {
        let encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        Commands { encoder, timer: None }
    }

    /// Runs the commands that `list` records and returns the total time of each kernel, in the order of first runs.
    /// None if the adapter has no timestamps. Only the first `most` runs are timed.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn time(
        &self,
        most: u32,
        list: impl FnOnce(&mut Commands) -> Result<(), DeviceError>,
    ) -> Result<Option<Vec<(String, Duration)>>, DeviceError> {
        if !self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Ok(None);
        }
        let (count, bytes) = (2 * most, 16 * u64::from(most));
        let descriptor = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count };
        let queries = self.make(|device| device.create_query_set(&descriptor))?;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let descriptor = wgpu::BufferDescriptor { label: Some("times"), size: bytes, usage, mapped_at_creation: false };
        let resolved = self.make(|device| Buffer(device.create_buffer(&descriptor)))?;
        let readback = self.buffer("times", bytes, Use::Readback)?;
        let mut commands = self.commands();
        commands.timer = Some(Timer { queries, most, names: vec![] });
        list(&mut commands)?;
        let Some(timer) = commands.timer.take() else { return Ok(None) };
        let timed = 2 * timer.names.len() as u32;
        commands.encoder.resolve_query_set(&timer.queries, 0..timed, &resolved.0, 0);
        commands.copy(&resolved, &readback, 0, 8 * u64::from(timed));
        self.submit(commands);
        let mut ticks = vec![0_u64; timed as usize];
        self.read(&readback, 8 * u64::from(timed), |bytes| {
            bytemuck::cast_slice_mut(&mut ticks).copy_from_slice(bytes);
        })?;
        let tick = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        let mut sums: Vec<(String, Duration)> = vec![];
        for (name, pair) in timer.names.into_iter().zip(ticks.chunks_exact(2)) {
            let time = Duration::from_secs_f64(pair[1].saturating_sub(pair[0]) as f64 * tick);
            match sums.iter_mut().find(|(found, _)| *found == name) {
                Some((_, sum)) => *sum += time,
                None => sums.push((name, time)),
            }
        }
        Ok(Some(sums))
    }

    /// Submits the commands; the device starts to run them.
    pub fn submit(&self, commands: Commands) {
        self.queue.submit([commands.encoder.finish()]);
    }

    /// The number of workgroups that one dispatch may have if each needs `bytes` of a buffer of at most `most` bytes;
    /// at least one.
    pub fn most_at_once(&self, bytes: u64, most: u64) -> usize {
        let limits = self.device.limits();
        let available = most.min(limits.max_buffer_size).min(limits.max_storage_buffer_binding_size);
        let groups = (available / bytes.max(1)).clamp(1, u64::from(limits.max_compute_workgroups_per_dimension));
        groups as usize
    }

    /// Checks that `threads` threads of a workgroup may share `needs` bytes.
    ///
    /// # Errors
    /// [`DeviceError::Shared`].
    pub fn shares(&self, needs: u64, threads: usize) -> Result<(), DeviceError> {
        let limits = self.device.limits();
        let most = limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x) as usize;
        let has = if threads <= most { u64::from(limits.max_compute_workgroup_storage_size) } else { 0 };
        if threads <= most && needs <= has {
            return Ok(());
        }
        Err(DeviceError::Shared { adapter: self.adapter.clone(), threads, needs, has })
    }

    /// Waits until all submitted work is done.
    pub fn wait(&self) -> Result<(), DeviceError> {
        self.device
            .poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(TIMEOUT) })
            .map_err(|error| DeviceError::Lost { adapter: self.adapter.clone(), why: error.to_string() })?;
        self.check()
    }

    /// Waits until all submitted work is done, then passes the first `bytes` bytes of a readback buffer to `take`.
    pub fn read(&self, buffer: &Buffer, bytes: u64, take: impl FnOnce(&[u8])) -> Result<(), DeviceError> {
        let lost =
            |error: &dyn std::fmt::Display| DeviceError::Lost { adapter: self.adapter.clone(), why: error.to_string() };
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        buffer.0.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
            // Sending fails only if this function has already returned with an error.
            let _ = sender.send(result);
        });
        self.wait()?;
        receiver.recv().map_err(|error| lost(&error))?.map_err(|error| lost(&error))?;
        take(&buffer.0.get_mapped_range(..bytes).map_err(|error| lost(&error))?);
        buffer.0.unmap();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A buffer beyond the adapter's limits is refused before it is created. An error of the driver is returned, and
    /// the device still works afterwards. A lost device is an error, too.
    #[test]
    fn what_goes_wrong_is_an_error() {
        let device = Device::open().unwrap();
        let most = device.device.limits().max_buffer_size;
        let refused = device.buffer("states", most.saturating_add(4), Use::Storage);
        assert!(matches!(refused, Err(DeviceError::Limit { has, .. }) if has <= most), "{refused:?}");
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::STORAGE;
        let descriptor = wgpu::BufferDescriptor { label: None, size: 64, usage, mapped_at_creation: false };
        let refused = device.make(|device| device.create_buffer(&descriptor));
        let shared = device.device.limits().max_compute_workgroup_storage_size.into();
        assert_eq!(device.shares(shared, 32), Ok(()));
        assert!(matches!(device.shares(shared + 1, 32), Err(DeviceError::Shared { has, .. }) if has == shared));
        assert!(matches!(refused, Err(DeviceError::Refused { .. })), "{refused:?}");
        device.buffer("states", 64, Use::Storage).unwrap();
        assert_eq!(device.wait(), Ok(()));
        device.device.destroy();
        assert!(matches!(device.wait(), Err(DeviceError::Lost { .. })));
    }
}
