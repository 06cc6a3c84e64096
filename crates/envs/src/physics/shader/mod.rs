//! The shader backend: the same equations as compute shaders (shaders/physics), in single precision. One thread or one
//! workgroup steps a world, on any GPU that wgpu supports: Vulkan, Metal or DirectX 12.
//!
//! A world's numbers depend only on its own state and controls, and the same adapter gives the same bits. As in the
//! lanes, states are stored in double precision between env steps, and coordinates that nothing depends on are measured
//! from zero within one.

mod compose;
mod layout;
mod sharing;
mod stages;
#[cfg(test)]
mod tests;
mod worlds;

use super::backend::{Backend, Contact, PhysicsError, Quantity};
use super::derived::DerivedState;
use super::dynamics::derived::Layout;
use super::host::{HostState, WorldsMut, rows_mut};
use super::model::Model;
use flipside_gpu::{Buffer, Device, DeviceError, SubmissionSizer, Use};
use std::sync::Arc;
use std::time::Instant;

pub use compose::MODULES;
pub use sharing::{BuildOptions, ThreadsPerWorld, WORKGROUP};
pub use stages::Stages;
use worlds::Buffers;
pub use worlds::DeviceWorlds;

/// The name that `--backend` takes.
pub const NAME: &str = "shader";

/// A batch of worlds on a graphics device, whose states the host sees after every step.
pub struct Shader {
    on_device: DeviceWorlds,
    sizer: SubmissionSizer,
    /// States, derived numbers and flags, to be read.
    readback: Buffer,
    host: HostState,
    derived: DerivedState,
    /// Whether the device's copy of a world is out of date.
    moved: Vec<bool>,
    /// Staging memory for data to and from the device.
    words: Vec<f32>,
}

impl Shader {
    /// A batch of worlds at the reference configuration on the best available adapter.
    ///
    /// # Errors
    /// [`PhysicsError::Unsupported`] for a robot that the equations do not cover; [`PhysicsError::Device`].
    pub fn new(model: Arc<Model>, worlds: usize, options: impl Into<BuildOptions>) -> Result<Shader, PhysicsError> {
        let derived = DerivedState::new(&model, worlds, true, NAME)?;
        let on_device = DeviceWorlds::new(&Device::open()?, model.clone(), worlds, &[], options)?;
        Ok(Shader {
            sizer: on_device.sizer(),
            readback: results(&on_device)?,
            host: HostState::new(model, worlds),
            derived,
            moved: vec![true; worlds],
            words: vec![],
            on_device,
        })
    }

    /// Updates the device's copy of the worlds that were set, and forgets their solvers' starting points.
    fn upload_states(&mut self) {
        let DeviceWorlds { device, worlds, buffers, .. } = &self.on_device;
        let width = self.on_device.width();
        let mut first = 0;
        while let Some(start) = (first..*worlds).find(|world| self.moved[*world]) {
            let end = (start..*worlds).find(|world| !self.moved[*world]).unwrap_or(*worlds);
            self.words.clear();
            for world in start..end {
                let (qpos, qvel) = self.host.state(world);
                self.words.extend(qpos.iter().chain(qvel).map(|x| *x as f32));
                self.words.extend(std::iter::repeat_n(0.0, qvel.len()));
            }
            device.upload(&buffers.state, (4 * start * width) as u64, bytemuck::cast_slice(&self.words));
            let zeros = vec![0_u32; end - start];
            device.upload(&buffers.frozen, (4 * start) as u64, bytemuck::cast_slice(&zeros));
            first = end;
        }
        self.moved.fill(false);
    }

    /// Runs the step on the device and leaves the results in the buffer to be read. It submits so few worlds at a time
    /// that no submission takes long.
    fn dispatch(&mut self, frame_skip: usize) -> Result<(), DeviceError> {
        let Shader { on_device, sizer, readback, .. } = self;
        let (mut first, all) = (0, on_device.worlds);
        while first < all {
            let end = (first + sizer.at_once()).min(all);
            let mut commands = on_device.device.commands();
            on_device.step(&mut commands, first..end, frame_skip)?;
            if end == all {
                let Buffers { state, derived, frozen, .. } = &on_device.buffers;
                let mut at = 0;
                for (buffer, numbers) in [(state, on_device.width()), (derived, on_device.layout.len), (frozen, 1)] {
                    let bytes = 4 * (all * numbers) as u64;
                    commands.copy(buffer, readback, at, bytes);
                    at += bytes;
                }
            }
            let started = Instant::now();
            on_device.device.submit(commands);
            on_device.device.wait()?;
            sizer.took(end - first, started);
            first = end;
        }
        Ok(())
    }
}

/// Buffers for states, derived numbers and flags.
fn results(on_device: &DeviceWorlds) -> Result<Buffer, DeviceError> {
    let numbers = on_device.worlds * (on_device.width() + on_device.layout.len + 1);
    on_device.device.buffer("results", 4 * numbers as u64, Use::Readback)
}

impl Backend for Shader {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapter(&self) -> Option<&str> {
        Some(&self.on_device.device.adapter)
    }

    fn host(&self) -> &HostState {
        &self.host
    }

    fn set_state(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) {
        self.host.set(world, qpos, qvel);
        self.moved[world] = true;
        self.derived.evaluate(&self.host, world);
    }

    fn step(&mut self, ctrl: &[f64], frame_skip: usize) -> Result<(), PhysicsError> {
        let DeviceWorlds { device, buffers, model, worlds, layout, .. } = &self.on_device;
        let (worlds, nq, width, kept) = (*worlds, model.nq(), self.on_device.width(), layout.len);
        if worlds == 0 {
            return Ok(());
        }
        device.check()?;
        self.words.clear();
        self.words.extend(ctrl.iter().map(|u| *u as f32));
        device.upload(&buffers.ctrl, 0, bytemuck::cast_slice(&self.words));
        self.upload_states();
        self.dispatch(frame_skip)?;
        let total = worlds * (width + kept + 1);
        self.words.resize(total, 0.0);
        let Shader { on_device, host, derived, readback, words, .. } = self;
        on_device.device.read(readback, 4 * total as u64, |bytes| {
            bytemuck::cast_slice_mut(words).copy_from_slice(bytes);
        })?;
        let (states, rest) = words.split_at(worlds * width);
        let (numbers, flags) = rest.split_at(worlds * kept);
        let wide = |to: &mut [f64], from: &[f32]| to.iter_mut().zip(from).for_each(|(to, x)| *to = f64::from(*x));
        wide(&mut derived.numbers, numbers);
        let drift = &derived.drift;
        let rows = host.chunks_mut(1).zip(rows_mut(&mut derived.origin, drift.len()));
        for (world, (WorldsMut { qpos, qvel, outcomes }, origin)) in rows.enumerate() {
            let outcome = &mut outcomes[0];
            if outcome.frozen() {
                continue;
            }
            outcome.step(flags[world].to_bits() == 0);
            if outcome.frozen() {
                continue;
            }
            let state = &states[world * width..][..width];
            for (drift, origin) in drift.iter().zip(&mut *origin) {
                *origin = qpos[drift.coordinate];
            }
            wide(qpos, state);
            wide(qvel, &state[nq..]);
            for (drift, origin) in drift.iter().zip(&*origin) {
                qpos[drift.coordinate] += origin;
            }
        }
        Ok(())
    }

    fn contacts(&self, world: usize, out: &mut Vec<Contact>) {
        self.derived.contacts(&self.host, world, out);
    }

    fn need(&mut self, quantities: &[Quantity]) -> Result<(), PhysicsError> {
        self.on_device.need(Layout::new(&self.derived.plan, quantities))?;
        self.readback = results(&self.on_device)?;
        self.derived.need(&self.host, quantities);
        Ok(())
    }

    fn derived(&self, world: usize, quantity: Quantity, out: &mut [f64]) {
        self.derived.write(&self.host, world, quantity, out);
    }
}
