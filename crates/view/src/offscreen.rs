//! Pictures without a window: drawn on a device of its own and read back to memory.

use super::{Camera, Look, Renderer, View};
use flipside_core::{Pose, Scene};

/// Why no picture could be drawn without a window.
#[derive(Debug, thiserror::Error)]
pub enum OffscreenError {
    /// There is neither a GPU nor a software driver.
    #[error(
        "no Vulkan driver was found, so no picture can be drawn; Mesa's software one needs no GPU: \
         `sudo apt-get install mesa-vulkan-drivers` on Debian and Ubuntu ({0})"
    )]
    NoAdapter(wgpu::RequestAdapterError),
    /// The driver refused a device.
    #[error("the graphics driver {driver} gave no device: {source}; updating it may help")]
    NoDevice {
        /// The adapter's name.
        driver: String,
        /// The driver's error.
        source: wgpu::RequestDeviceError,
    },
    /// A size of zero, or larger than the device can draw.
    #[error("a picture of {width} × {height} pixels cannot be drawn: each side must be between 1 and {most}")]
    Size {
        /// Asked for.
        width: u32,
        /// Asked for.
        height: u32,
        /// The device's limit.
        most: u32,
    },
    /// The device was lost while the picture was drawn.
    #[error("the graphics device was lost while drawing: {0}")]
    Lost(String),
}

/// Pixels in rows from the top, four bytes each: red, green, blue (sRGB) and an alpha of 255.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// `[height, width, 4]`.
    pub rgba: Vec<u8>,
}

impl Picture {
    /// Red, green and blue of the pixel in column `x` of row `y`. Panics outside the picture.
    pub fn rgb(&self, x: u32, y: u32) -> [u8; 3] {
        assert!(x < self.width && y < self.height);
        let at = 4 * (y as usize * self.width as usize + x as usize);
        [self.rgba[at], self.rgba[at + 1], self.rgba[at + 2]]
    }
}

/// A device that draws one scene without a window.
pub struct Offscreen {
    device: wgpu::Device,
    queue: wgpu::Queue,
    adapter: String,
    renderer: Renderer,
    canvas: Option<Canvas>,
}

/// The texture and the readback buffer for one size of picture.
struct Canvas {
    size: [u32; 2],
    texture: wgpu::Texture,
    view: wgpu::TextureView,
    readback: wgpu::Buffer,
    /// Bytes from one row to the next in `readback`.
    stride: u32,
}

const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8Unorm;

impl Offscreen {
    /// A device on the best adapter available, or on a software one if there is no other.
    pub fn new(scene: &Scene) -> Result<Offscreen, OffscreenError> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
        let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..wgpu::RequestAdapterOptions::default()
        }))
        .map_err(OffscreenError::NoAdapter)?;
        let info = adapter.get_info();
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("offscreen"),
            required_limits: wgpu::Limits::downlevel_defaults().using_resolution(adapter.limits()),
            ..wgpu::DeviceDescriptor::default()
        }))
        .map_err(|source| OffscreenError::NoDevice { driver: info.name.clone(), source })?;
        let renderer = Renderer::new(&device, FORMAT, scene);
        Ok(Offscreen { device, queue, adapter: info.name, renderer, canvas: None })
    }

    /// The adapter's name, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// Draws another scene from now on.
    pub fn set_scene(&mut self, scene: &Scene) {
        self.renderer.set_scene(scene);
    }

    /// Draws `poses` (`[bodies]`) as one picture of `size` pixels.
    pub fn render(
        &mut self,
        size: [u32; 2],
        camera: &Camera,
        poses: &[Pose],
        look: &Look,
    ) -> Result<Picture, OffscreenError> {
        let most = self.device.limits().max_texture_dimension_2d;
        let [width, height] = size;
        if width == 0 || height == 0 || width > most || height > most {
            return Err(OffscreenError::Size { width, height, most });
        }
        let canvas = match self.canvas.take() {
            Some(canvas) if canvas.size == size => canvas,
            _ => Canvas::new(&self.device, size),
        };
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.renderer.render(&self.device, &mut encoder, &canvas.view, size, View { camera, poses, look });
        canvas.copy_out(&mut encoder);
        self.queue.submit([encoder.finish()]);
        let picture = canvas.read(&self.device);
        self.canvas = Some(canvas);
        picture
    }
}

impl Canvas {
    fn new(device: &wgpu::Device, size: [u32; 2]) -> Canvas {
        let [width, height] = size;
        let texture = device.create_texture(&wgpu::TextureDescriptor {
            label: Some("offscreen"),
            size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: FORMAT,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        let stride = (4 * width).next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT);
        let readback = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: u64::from(stride) * u64::from(height),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        Canvas { size, texture, view, readback, stride }
    }

    fn copy_out(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.copy_texture_to_buffer(
            self.texture.as_image_copy(),
            wgpu::TexelCopyBufferInfo {
                buffer: &self.readback,
                layout: wgpu::TexelCopyBufferLayout {
                    offset: 0,
                    bytes_per_row: Some(self.stride),
                    rows_per_image: None,
                },
            },
            self.texture.size(),
        );
    }

    fn read(&self, device: &wgpu::Device) -> Result<Picture, OffscreenError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.readback.map_async(wgpu::MapMode::Read, .., move |result| {
            // The receiver lives until the end of this function. If it is gone, nobody needs the answer.
            let _ = sender.send(result);
        });
        let lost = |error: &dyn std::fmt::Display| OffscreenError::Lost(error.to_string());
        device.poll(wgpu::PollType::wait_indefinitely()).map_err(|e| lost(&e))?;
        receiver.recv().map_err(|e| lost(&e))?.map_err(|e| lost(&e))?;
        let [width, height] = self.size;
        let rgba = {
            let mapped = self.readback.get_mapped_range(..).map_err(|e| lost(&e))?;
            mapped.chunks(self.stride as usize).flat_map(|row| &row[..4 * width as usize]).copied().collect()
        };
        self.readback.unmap();
        Ok(Picture { width, height, rgba })
    }
}
