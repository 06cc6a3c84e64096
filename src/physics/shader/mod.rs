//! The shader backend: the same equations as compute shaders (shaders/physics), in single precision, a thread a world, on any GPU that wgpu
//! reaches: Vulkan, Metal or DirectX 12.
//!
//! A world's numbers depend on its own state and controls alone, and the same adapter gives the same bits. As in the lanes, states are kept
//! in double precision between env steps, and coordinates that nothing depends on are counted from zero within one.

mod compose;
mod device;
mod layout;
#[cfg(test)]
mod tests;

use super::backend::{Backend, Contact, PhysicsError, Quantity};
use super::dynamics::derived::{Layout, frames};
use super::dynamics::drift::{Drift, drifting};
use super::dynamics::plan::Plan;
use super::dynamics::reference::Reference;
use super::model::{self, Model};
use crate::basics::Pose;
use compose::{STEP, Specialised, WORKGROUP};
use device::Device;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use device::DeviceError;

/// What `--backend` calls it.
pub const NAME: &str = "shader";

/// How long one dispatch may take: a tenth of what a system waits before it resets a device.
const DISPATCH: Duration = Duration::from_millis(200);
/// Worlds of the first dispatch, whose speed is not known.
const FIRST_DISPATCH: usize = 512;

/// Whether shaders check their indices. Ours are held to stay inside by tests that run them checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checks {
    /// Every index is brought inside its array.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests check what the program trusts"))]
    On,
    /// None.
    Off,
}

/// A batch of worlds on a graphics device.
pub struct Shader {
    model: Arc<Model>,
    worlds: usize,
    device: Device,
    pipeline: wgpu::ComputePipeline,
    buffers: Buffers,
    bindings: wgpu::BindGroup,
    layout: Layout,
    drift: Vec<Drift>,
    reference: Reference,
    /// Worlds of a dispatch.
    chunk: usize,
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

/// What lies on the device, a row a world.
struct Buffers {
    plan: wgpu::Buffer,
    batch: wgpu::Buffer,
    /// `[worlds, nq + nv + nv]`: qpos, qvel, and accelerations where the solver starts.
    state: wgpu::Buffer,
    ctrl: wgpu::Buffer,
    derived: wgpu::Buffer,
    frozen: wgpu::Buffer,
    /// State, derived and frozen, to be read.
    readback: wgpu::Buffer,
}

impl Shader {
    /// A batch of worlds at the reference configuration on the best adapter there is.
    ///
    /// # Errors
    /// [`PhysicsError::Unsupported`] for a robot that the equations do not cover; [`PhysicsError::Device`].
    pub fn new(model: Arc<Model>, worlds: usize) -> Result<Shader, PhysicsError> {
        Shader::with(model, worlds, Checks::Off)
    }

    fn with(model: Arc<Model>, worlds: usize, checks: Checks) -> Result<Shader, PhysicsError> {
        let plan = Plan::<f32>::new(&model, NAME)?;
        let reference = Reference::new(&model, NAME)?;
        let device = Device::open()?;
        let shader = Specialised::new(&model, &plan, !device.software)?.shader(STEP);
        let checks = match checks {
            Checks::On => wgpu::ShaderRuntimeChecks { bounds_checks: true, ..wgpu::ShaderRuntimeChecks::unchecked() },
            Checks::Off => wgpu::ShaderRuntimeChecks::unchecked(),
        };
        let pipeline = device.make(|device| {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some("physics"),
                source: wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(shader)),
            };
            // SAFETY: the shader is ours, its loops end, and the tests that run it checked give the same numbers.
            let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some("physics step"),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            })
        })?;
        let drift = drifting(&model, &reference.plan);
        let layout = Layout::new(&plan, &[]);
        let bytes = layout::bytes(&plan, drift.iter().map(|drift| drift.coordinate));
        let buffers = Buffers::new(&device, &model, worlds, &layout, &bytes)?;
        Ok(Shader {
            bindings: bind(&device, &pipeline, &buffers)?,
            buffers,
            chunk: FIRST_DISPATCH,
            qpos: model.qpos0().repeat(worlds),
            qvel: vec![0.0; worlds * model.nv()],
            derived: vec![],
            origin: vec![0.0; worlds * drift.len()],
            frozen: vec![false; worlds],
            stepped: vec![false; worlds],
            moved: vec![true; worlds],
            diverged: 0,
            words: vec![],
            model,
            worlds,
            device,
            pipeline,
            layout,
            drift,
            reference,
        })
    }

    /// Numbers of a world's state on the device.
    fn width(&self) -> usize {
        self.model.nq() + 2 * self.model.nv()
    }

    /// Brings the device's copy of the worlds that were set up to date, and forgets where their solvers stood.
    fn upload_states(&mut self) {
        let (nq, nv, width) = (self.model.nq(), self.model.nv(), self.width());
        let mut first = 0;
        while let Some(start) = (first..self.worlds).find(|world| self.moved[*world]) {
            let end = (start..self.worlds).find(|world| !self.moved[*world]).unwrap_or(self.worlds);
            self.words.clear();
            for world in start..end {
                self.words.extend(self.qpos[world * nq..][..nq].iter().map(|x| *x as f32));
                self.words.extend(self.qvel[world * nv..][..nv].iter().map(|x| *x as f32));
                self.words.extend(std::iter::repeat_n(0.0, nv));
            }
            let queue = &self.device.queue;
            queue.write_buffer(&self.buffers.state, (4 * start * width) as u64, bytemuck::cast_slice(&self.words));
            let zeros = vec![0_u32; end - start];
            queue.write_buffer(&self.buffers.frozen, (4 * start) as u64, bytemuck::cast_slice(&zeros));
            first = end;
        }
        self.moved.fill(false);
    }

    /// Runs the step on the device, so many worlds at a time that no dispatch takes long, and leaves the results in the buffer to be read.
    fn dispatch(&mut self, frame_skip: usize) -> Result<(), DeviceError> {
        let mut first = 0;
        while first < self.worlds {
            let end = (first + self.chunk).min(self.worlds);
            let batch = layout::Batch {
                first: first as u32,
                end: end as u32,
                frame_skip: frame_skip as u32,
                kept: layout::Layout::of(&self.layout),
            };
            self.device.queue.write_buffer(&self.buffers.batch, 0, bytemuck::bytes_of(&batch));
            let mut encoder = self.device.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                pass.set_pipeline(&self.pipeline);
                pass.set_bind_group(0, &self.bindings, &[]);
                pass.dispatch_workgroups(((end - first) as u32).div_ceil(WORKGROUP), 1, 1);
            }
            if end == self.worlds {
                self.buffers.copy_out(&mut encoder, self.worlds, self.width(), self.layout.len);
            }
            let started = Instant::now();
            self.device.queue.submit([encoder.finish()]);
            self.device.wait()?;
            // Half-way towards the best size, so that one slow moment does not halve the next dispatches.
            let fitting = (end - first) as f64 * DISPATCH.as_secs_f64() / started.elapsed().as_secs_f64().max(1e-6);
            self.chunk = ((self.chunk as f64 + fitting.min(4.0 * self.chunk as f64)) / 2.0) as usize;
            // A dispatch has 65,535 workgroups at most.
            self.chunk = self.chunk.clamp(WORKGROUP as usize, 65_535 * WORKGROUP as usize);
            first = end;
        }
        Ok(())
    }
}

impl Buffers {
    fn new(
        device: &Device,
        model: &Model,
        worlds: usize,
        layout: &Layout,
        plan_bytes: &[u8],
    ) -> Result<Buffers, DeviceError> {
        use wgpu::BufferUsages as Usage;
        let (width, nu) = (model.nq() + 2 * model.nv(), model.nu());
        let row = |numbers: usize| 4 * (worlds * numbers) as u64;
        let kept = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let given = Usage::STORAGE | Usage::COPY_DST;
        let buffers = Buffers {
            plan: device.buffer("model", plan_bytes.len() as u64, Usage::UNIFORM | Usage::COPY_DST)?,
            batch: device.buffer("batch", size_of::<layout::Batch>() as u64, given)?,
            state: device.buffer("states", row(width), kept)?,
            ctrl: device.buffer("controls", row(nu), given)?,
            derived: device.buffer("derived quantities", row(layout.len), kept)?,
            frozen: device.buffer("flags", row(1), kept)?,
            readback: device.buffer("results", row(width + layout.len + 1), Usage::MAP_READ | Usage::COPY_DST)?,
        };
        device.queue.write_buffer(&buffers.plan, 0, plan_bytes);
        Ok(buffers)
    }

    /// States, derived numbers and flags, one after another, into the buffer that can be read.
    fn copy_out(&self, encoder: &mut wgpu::CommandEncoder, worlds: usize, width: usize, derived: usize) {
        let mut at = 0;
        for (buffer, numbers) in [(&self.state, width), (&self.derived, derived), (&self.frozen, 1)] {
            let bytes = 4 * (worlds * numbers) as u64;
            encoder.copy_buffer_to_buffer(buffer, 0, &self.readback, at, bytes);
            at += bytes;
        }
    }
}

/// The buffers by their places in the shader.
fn bind(device: &Device, pipeline: &wgpu::ComputePipeline, buffers: &Buffers) -> Result<wgpu::BindGroup, DeviceError> {
    let all = [&buffers.plan, &buffers.batch, &buffers.state, &buffers.ctrl, &buffers.derived, &buffers.frozen];
    let entries: Vec<_> = (0..)
        .zip(all)
        .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
        .collect();
    device.make(|device| {
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("physics"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    })
}

impl Backend for Shader {
    fn name(&self) -> &'static str {
        NAME
    }

    fn adapter(&self) -> Option<&str> {
        Some(&self.device.adapter)
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn worlds(&self) -> usize {
        self.worlds
    }

    fn set_state(&mut self, world: usize, qpos: &[f64], qvel: &[f64]) {
        let (nq, nv) = (self.model.nq(), self.model.nv());
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
        if self.worlds == 0 {
            return Ok(());
        }
        self.device.check()?;
        self.upload_states();
        let (nq, nv, width, kept) = (self.model.nq(), self.model.nv(), self.width(), self.layout.len);
        self.words.clear();
        self.words.extend(ctrl.iter().map(|u| *u as f32));
        self.device.queue.write_buffer(&self.buffers.ctrl, 0, bytemuck::cast_slice(&self.words));
        self.dispatch(frame_skip)?;
        let total = self.worlds * (width + kept + 1);
        self.words.resize(total, 0.0);
        let Shader { device, buffers, words, .. } = &mut *self;
        device.read(&buffers.readback, 4 * total as u64, |bytes| {
            bytemuck::cast_slice_mut(words).copy_from_slice(bytes);
        })?;
        let (states, rest) = self.words.split_at(self.worlds * width);
        let (derived, flags) = rest.split_at(self.worlds * kept);
        self.derived.copy_from_slice(derived);
        for world in 0..self.worlds {
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
            for (drift, origin) in self.drift.iter().zip(&mut self.origin[world * self.drift.len()..]) {
                *origin = qpos[drift.coordinate];
            }
            qpos.iter_mut().zip(row).for_each(|(to, x)| *to = f64::from(*x));
            for (drift, origin) in self.drift.iter().zip(&self.origin[world * self.drift.len()..]) {
                qpos[drift.coordinate] += origin;
            }
            self.qvel[world * nv..][..nv].iter_mut().zip(&row[nq..]).for_each(|(to, x)| *to = f64::from(*x));
        }
        Ok(())
    }

    fn body_poses(&self, world: usize, out: &mut [Pose]) {
        let nq = self.model.nq();
        let all = self.model.kinematics(&self.qpos[world * nq..(world + 1) * nq]);
        for (slot, (pos, quat)) in out.iter_mut().zip(all) {
            *slot = model::pose(pos, quat);
        }
    }

    fn contacts(&self, world: usize, out: &mut Vec<Contact>) {
        out.clear();
        if self.stepped[world] {
            let (nq, nv) = (self.model.nq(), self.model.nv());
            self.reference.contacts(&self.qpos[world * nq..][..nq], &self.qvel[world * nv..][..nv], out);
        }
    }

    fn need(&mut self, quantities: &[Quantity]) -> Result<(), PhysicsError> {
        let layout = Layout::new(&self.reference.plan, quantities);
        // The device's copies of the states are lost with their buffers, but for where the solvers start.
        let plan = Plan::<f32>::new(&self.model, NAME)?;
        let bytes = layout::bytes(&plan, self.drift.iter().map(|drift| drift.coordinate));
        self.buffers = Buffers::new(&self.device, &self.model, self.worlds, &layout, &bytes)?;
        self.bindings = bind(&self.device, &self.pipeline, &self.buffers)?;
        self.layout = layout;
        self.derived = vec![0.0; self.worlds * self.layout.len];
        self.moved.fill(true);
        (0..self.worlds).for_each(|world| self.sense(world));
        Ok(())
    }

    fn derived(&self, world: usize, quantity: Quantity, out: &mut [f64]) {
        let row = &self.derived[world * self.layout.len..][..self.layout.len];
        match (self.layout.of(quantity), quantity) {
            (None, Quantity::Frames) => {
                let nq = self.model.nq();
                self.reference.frames(&self.model, &self.qpos[world * nq..][..nq], out);
            }
            (Some(at), Quantity::Frames) => {
                let origin = &self.origin[world * self.drift.len()..][..self.drift.len()];
                frames(&self.reference.plan, &self.drift, origin, |i| f64::from(row[at + i]), out);
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

impl Shader {
    /// Evaluates a world's present state in double precision and keeps what was asked for.
    fn sense(&mut self, world: usize) {
        if self.layout.len == 0 {
            return;
        }
        let (nq, nv) = (self.model.nq(), self.model.nv());
        let (qpos, qvel) = (&self.qpos[world * nq..][..nq], &self.qvel[world * nv..][..nv]);
        let numbers = self.reference.sense(&self.layout, &self.drift, qpos, qvel);
        for (k, drift) in self.drift.iter().enumerate() {
            self.origin[world * self.drift.len() + k] = qpos[drift.coordinate];
        }
        let row = &mut self.derived[world * self.layout.len..][..self.layout.len];
        row.iter_mut().zip(&numbers).for_each(|(to, x)| *to = *x as f32);
    }
}
