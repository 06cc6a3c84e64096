//! Opens the best graphics adapter, a software one if need be, and doubles a thousand numbers on it:
//! `cargo run --release -p flipside-gpu --example double`

use flipside_gpu::{Checks, Definitions, Device, DeviceError, Source, Use, compose};

const DOUBLE: Source = ("shaders/compute/double.wgsl", include_str!("../../../shaders/compute/double.wgsl"));

fn main() -> Result<(), DeviceError> {
    let device = match Device::open() {
        Err(error @ DeviceError::NoAdapter(_)) => {
            println!("nothing to compute on: {error}");
            return Ok(());
        }
        opened => opened?,
    };
    println!("{} ({})", device.adapter, if device.software { "software" } else { "hardware" });

    let numbers: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let bytes = 4 * numbers.len() as u64;
    let shader = compose(&[], DOUBLE, &Definitions::default());
    let kernel = device.kernel("double", shader, "double", Checks::On)?;

    let storage = device.buffer("numbers", bytes, Use::Storage)?;
    let readback = device.buffer("readback", bytes, Use::Readback)?;
    device.upload(&storage, 0, bytemuck::cast_slice(&numbers));
    let bindings = device.bind(&kernel, 0, &[(0, &storage)])?;
    let mut commands = device.commands();
    commands.run(&kernel, &[&bindings], numbers.len().div_ceil(64));
    commands.copy(&storage, &readback, 0, bytes);
    device.submit(commands);
    device.read(&readback, bytes, |bytes| {
        let doubled: &[f32] = bytemuck::cast_slice(bytes);
        assert!(numbers.iter().zip(doubled).all(|(x, twice)| 2.0 * x == *twice));
        println!("{} numbers doubled; the last one is {}", doubled.len(), doubled[doubled.len() - 1]);
    })
}
