//! Which graphics adapters this machine has.

use serde::Serialize;

/// Storage buffers that a shader of the physics or the tasks can need.
const STORAGE_BUFFERS: u32 = 8;

/// One graphics adapter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdapterLine {
    /// The adapter's own name, e.g. `llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub name: String,
    /// Discrete, integrated, virtual or software.
    pub kind: &'static str,
    /// Vulkan, Metal, DX12 or GL.
    pub api: String,
    /// The driver and its version.
    pub driver: String,
    /// Whether it supports the compute shaders of `--backend shader`.
    pub computes: bool,
    /// The largest buffer that a shader can access, bytes.
    pub largest_buffer: u64,
    /// Whether it supports timestamp queries, which time the parts of a computation.
    pub times: bool,
    /// Whether the program can cache compiled shaders between runs.
    pub keeps_shaders: bool,
}

/// Every adapter that wgpu finds, in wgpu's order.
pub fn adapters() -> Vec<AdapterLine> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let line = |adapter: wgpu::Adapter| {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let capabilities = adapter.get_downlevel_capabilities();
        AdapterLine {
            computes: capabilities.flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS)
                && limits.max_storage_buffers_per_shader_stage >= STORAGE_BUFFERS,
            largest_buffer: limits.max_buffer_size.min(limits.max_storage_buffer_binding_size),
            times: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            keeps_shaders: features.contains(wgpu::Features::PIPELINE_CACHE),
            name: info.name,
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete",
                wgpu::DeviceType::IntegratedGpu => "integrated",
                wgpu::DeviceType::VirtualGpu => "virtual",
                wgpu::DeviceType::Cpu => "software",
                wgpu::DeviceType::Other => "other",
            },
            api: format!("{:?}", info.backend),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        }
    };
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all())).into_iter().map(line).collect()
}
