//! The shader backend: the same equations as compute shaders (shaders/physics), in single precision, a thread or a workgroup a world, on any GPU
//! that wgpu reaches: Vulkan, Metal or DirectX 12.
//!
//! A world's numbers depend on its own state and controls alone, and the same adapter gives the same bits. As in the lanes, states are kept
//! in double precision between env steps, and coordinates that nothing depends on are counted from zero within one.

mod compose;
mod layout;
mod sharing;
mod stages;
#[cfg(test)]
mod tests;
mod worlds;

use super::backend::{Backend, Contact, PhysicsError, Quantity};
use super::dynamics::derived::{Layout, frames};
use super::dynamics::reference::Reference;
use super::model::Model;
use flipside_gpu::{Buffer, Device, DeviceError, SubmissionSizer, Use};
use std::sync::Arc;
use std::time::Instant;

pub use compose::{MODULES, WORKGROUP};
pub use sharing::{BuildOptions, ThreadsPerWorld};
pub use stages::Stages;
use worlds::Buffers;
pub use worlds::DeviceWorlds;

/// What `--backend` calls it.
pub const NAME: &str = "shader";

/// A batch of worlds on a graphics device, whose states the host sees after every step.
pub struct Shader {
    on_device: DeviceWorlds,
    sizer: SubmissionSizer,
    /// States, derived numbers and flags, to be read.
    readback: Buffer,
    reference: Reference,
    qpos: Vec<f64>,
    qvel: Vec<f64>,
    /// `[worlds, layout.len]`, as the device or the reference computed it.
    derived: Vec<f32>,
    /// `[worlds, drift]`: where drifting coordinates stood when the last step began.
    origin: Vec<f64>,
    frozen: Vec<bool>,
    /// Whether the last thing that happened to a world was a step.
    stepped: Vec<bool>,
    /// Whether the device's copy of a world is out of date.
    moved: Vec<bool>,
    diverged: u64,
    /// Room for what goes to and comes from the device.
    words: Vec<f32>,
}

impl Shader {
    /// A batch of worlds at the reference configuration on the best adapter there is.
    ///
    /// # Errors
    /// [`PhysicsError::Unsupported`] for a robot that the equations do not cover; [`PhysicsError::Device`].
    pub fn new(model: Arc<Model>, worlds: usize, options: impl Into<BuildOptions>) -> Result<Shader, PhysicsError> {
        let reference = Reference::new(&model, NAME)?;
        let on_device = DeviceWorlds::new(&Device::open()?, model.clone(), worlds, &[], options)?;
        Ok(Shader {
            sizer: on_device.sizer(),
            readback: results(&on_device)?,
            qpos: model.qpos0().repeat(worlds),
            qvel: vec![0.0; worlds * model.nv()],
            derived: vec![],
            origin: vec![0.0; worlds * on_device.drift.len()],
            frozen: vec![false; worlds],
            stepped: vec![false; worlds],
            moved: vec![true; worlds],
            diverged: 0,
            words: vec![],
            on_device,
            reference,
        })
    }

    /// Brings the device's copy of the worlds that were set up to date, and forgets where their solvers stood.
    fn upload_states(&mut self) {
        let DeviceWorlds { device, model, worlds, buffers, .. } = &self.on_device;
        let (nq, nv, width) = (model.nq(), model.nv(), self.on_device.width());
        let mut first = 0;
        while let Some(start) = (first..*worlds).find(|world| self.moved[*world]) {
            let end = (start..*worlds).find(|world| !self.moved[*world]).unwrap_or(*worlds);
            self.words.clear();
            for world in start..end {
                self.words.extend(self.qpos[world * nq..][..nq].iter().map(|x| *x as f32));
                self.words.extend(self.qvel[world * nv..][..nv].iter().map(|x| *x as f32));
                self.words.extend(std::iter::repeat_n(0.0, nv));
            }
            device.upload(&buffers.state, (4 * start * width) as u64, bytemuck::cast_slice(&self.words));
            let zeros = vec![0_u32; end - start];
            device.upload(&buffers.frozen, (4 * start) as u64, bytemuck::cast_slice(&zeros));
            first = end;
        }
        self.moved.fill(false);
    }

    /// Runs the step on the device, so many worlds at a time that no submission takes long, and leaves the results in the buffer to be read.
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

    /// Evaluates a world's present state in double precision and keeps what was asked for.
    fn sense(&mut self, world: usize) {
        let DeviceWorlds { model, layout, drift, .. } = &self.on_device;
        if layout.len == 0 {
            return;
        }
        let (nq, nv) = (model.nq(), model.nv());
        let (qpos, qvel) = (&self.qpos[world * nq..][..nq], &self.qvel[world * nv..][..nv]);
        let numbers = self.reference.sense(layout, drift, qpos, qvel);
        for (k, found) in drift.iter().enumerate() {
            self.origin[world * drift.len() + k] = qpos[found.coordinate];
        }
        let row = &mut self.derived[world * layout.len..][..layout.len];
        row.iter_mut().zip(&numbers).for_each(|(to, x)| *to = *x as f32);
    }
}

/// Room for states, derived numbers and flags.
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

    fn model(&self) -> &Model {
        &self.on_device.model
    }

    fn worlds(&self) -> usize {
        self.on_device.worlds
    }

    fn set_state(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) {
        let (nq, nv) = (self.model().nq(), self.model().nv());
        self.qpos[world * nq..][..nq].copy_from_slice(qpos);
        self.qvel[world * nv..][..nv].copy_from_slice(qvel);
        self.frozen[world] = false;
        self.stepped[world] = false;
        self.moved[world] = true;
        self.sense(world);
    }

    fn qpos(&self) -> &[f64] {
        &self.qpos
    }

    fn qvel(&self) -> &[f64] {
        &self.qvel
    }

    fn step(&mut self, ctrl: &[f64], frame_skip: usize) -> Result<(), PhysicsError> {
        let DeviceWorlds { device, buffers, model, worlds, layout, .. } = &self.on_device;
        let (worlds, nq, nv, width, kept) = (*worlds, model.nq(), model.nv(), self.on_device.width(), layout.len);
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
        let Shader { on_device, readback, words, .. } = &mut *self;
        on_device.device.read(readback, 4 * total as u64, |bytes| {
            bytemuck::cast_slice_mut(words).copy_from_slice(bytes);
        })?;
        let drift = &self.on_device.drift;
        let (states, rest) = self.words.split_at(worlds * width);
        let (derived, flags) = rest.split_at(worlds * kept);
        self.derived.copy_from_slice(derived);
        for world in 0..worlds {
            if self.frozen[world] {
                continue;
            }
            let broke = flags[world].to_bits() != 0;
            self.frozen[world] = broke;
            self.stepped[world] = !broke;
            self.diverged += u64::from(broke);
            if broke {
                continue;
            }
            let row = &states[world * width..][..width];
            let qpos = &mut self.qpos[world * nq..][..nq];
            for (drift, origin) in drift.iter().zip(&mut self.origin[world * drift.len()..]) {
                *origin = qpos[drift.coordinate];
            }
            qpos.iter_mut().zip(row).for_each(|(to, x)| *to = f64::from(*x));
            for (drift, origin) in drift.iter().zip(&self.origin[world * drift.len()..]) {
                qpos[drift.coordinate] += origin;
            }
            self.qvel[world * nv..][..nv].iter_mut().zip(&row[nq..]).for_each(|(to, x)| *to = f64::from(*x));
        }
        Ok(())
    }

    fn contacts(&self, world: usize, out: &mut Vec<Contact>) {
        self.reference.contacts(self, world, self.stepped[world], out);
    }

    fn need(&mut self, quantities: &[Quantity]) -> Result<(), PhysicsError> {
        self.on_device.need(Layout::new(&self.reference.plan, quantities))?;
        self.readback = results(&self.on_device)?;
        self.derived = vec![0.0; self.worlds() * self.on_device.layout.len];
        (0..self.worlds()).for_each(|world| self.sense(world));
        Ok(())
    }

    fn derived(&self, world: usize, quantity: Quantity, out: &mut [f64]) {
        let DeviceWorlds { layout, drift, model, .. } = &self.on_device;
        let row = &self.derived[world * layout.len..][..layout.len];
        match (layout.of(quantity), quantity) {
            (None, Quantity::Frames) => {
                let nq = model.nq();
                self.reference.frames(model, &self.qpos[world * nq..][..nq], out);
            }
            (Some(at), Quantity::Frames) => {
                let origin = &self.origin[world * drift.len()..][..drift.len()];
                frames(&self.reference.plan, drift, origin, |i| f64::from(row[at + i]), out);
            }
            (None, _) => out.fill(0.0),
            (Some(at), _) => out.iter_mut().zip(&row[at..]).for_each(|(to, x)| *to = f64::from(*x)),
        }
    }

    fn frozen(&self, world: usize) -> bool {
        self.frozen[world]
    }

    fn diverged(&self) -> u64 {
        self.diverged
    }
}
