//! Which graphics adapters this machine has.

use serde::Serialize;

/// An adapter that could draw.
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
}

/// Every adapter that wgpu finds, in its order.
pub fn adapters() -> Vec<AdapterLine> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let line = |adapter: wgpu::Adapter| {
        let info = adapter.get_info();
        AdapterLine {
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
