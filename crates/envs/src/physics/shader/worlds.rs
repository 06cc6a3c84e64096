//! A batch of worlds on a graphics device, and the kernel that steps it.

use super::compose::{STEP, Specialised, levels, most_rounds};
use super::layout;
use super::sharing::{BuildOptions, ThreadsPerWorld, WORKGROUP};
use super::{NAME, PhysicsError};
use crate::physics::backend::Quantity;
use crate::physics::dynamics::derived::Layout;
use crate::physics::dynamics::drift::{Drift, drifting};
use crate::physics::dynamics::plan::Plan;
use crate::physics::model::{Integrator, Model};
use flipside_gpu::{
    Bindings, Buffer, Checks, Commands, Definitions, Device, DeviceError, Kernel, SubmissionSizer, UniformCache, Use,
    reflected, shared,
};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of the workspaces of one dispatch, at most: enough to keep a large GPU busy.
const WORKSPACES: u64 = 256 << 20;
/// Worlds of the first dispatch, whose speed is not known.
const FIRST_DISPATCH: usize = 512;

/// A batch of worlds on a graphics device, and the kernel that steps it.
pub struct DeviceWorlds {
    /// The device.
    pub device: Device,
    /// The model of which every world is a copy.
    pub model: Arc<Model>,
    /// The number of worlds.
    pub worlds: usize,
    /// Coordinates that a step measures from zero.
    pub drift: Vec<Drift>,
    /// Where the requested quantities lie in a row of `derived`.
    pub layout: Layout,
    /// The definitions that the robot fills into shaders.
    pub specialised: Specialised,
    /// Their numbers.
    pub buffers: Buffers,
    kernel: Kernel,
    bindings: Bindings,
    workspaces: Buffer,
    /// Threads that step one world.
    threads: ThreadsPerWorld,
    /// Bytes of a world's workspace, in device or workgroup memory, and bytes that one dispatch of a team passes to the
    /// next.
    workspace: u64,
    carried: u64,
    plan: Plan<f32>,
    /// Worlds that one dispatch has workspaces for.
    pub(super) most: usize,
    /// Rounds of an env step in one dispatch, and rounds in a timestep.
    most_rounds: usize,
    stages: usize,
    uniforms: UniformCache,
}

/// The buffers on the device, one row per world.
pub struct Buffers {
    /// The model.
    pub plan: Buffer,
    /// `[worlds, nq + nv + nv]`: qpos, qvel, and the accelerations from which the solver starts. For a drifting
    /// coordinate qpos holds how far the last step moved it.
    pub state: Buffer,
    /// `[worlds, nu]`.
    pub ctrl: Buffer,
    /// `[worlds, layout.len]`.
    pub derived: Buffer,
    /// `[worlds]`: 1 if a world became non-finite and keeps its last good state.
    pub frozen: Buffer,
}

impl DeviceWorlds {
    /// Allocates a batch of worlds, with the quantities that will be read of them, on the best available adapter. All
    /// numbers are zero.
    ///
    /// # Errors
    /// [`PhysicsError::Unsupported`] for a robot that the equations do not cover; [`PhysicsError::Device`].
    pub fn new(
        device: &Device,
        model: Arc<Model>,
        worlds: usize,
        needs: &[Quantity],
        options: impl Into<BuildOptions>,
    ) -> Result<DeviceWorlds, PhysicsError> {
        let plan = Plan::<f32>::new(&model, NAME)?;
        let drift = drifting(&model, &Plan::<f64>::new(&model, NAME)?);
        let BuildOptions { checks, threads_per_world } = options.into();
        let suited = threads_per_world.unwrap_or_else(|| ThreadsPerWorld::suited(plan.nv, device.software));
        let mut made = BuiltKernels::new(device, &model, &plan, suited, checks);
        // If a team was not requested explicitly, a driver that refuses it is no reason to stop.
        if let (Err(PhysicsError::Device(why)), None, ThreadsPerWorld::Team) = (&made, threads_per_world, suited) {
            log::info!("a thread a world: {why}");
            made = BuiltKernels::new(device, &model, &plan, ThreadsPerWorld::One, checks);
        }
        let BuiltKernels { specialised, kernel, threads, workspace, carried } = made?;
        // What a workgroup needs of the device's memory.
        let group = if threads == ThreadsPerWorld::Team { carried } else { WORKGROUP as u64 * workspace };
        let most = threads.worlds() * device.most_at_once(group, WORKSPACES);
        let room = group * worlds.min(most).div_ceil(threads.worlds()) as u64;
        let layout = Layout::new(&plan, needs);
        let bytes = layout::bytes(&plan, drift.iter().map(|drift| drift.coordinate));
        let row = |numbers: usize| 4 * (worlds * numbers) as u64;
        let buffers = Buffers {
            plan: device.buffer("model", bytes.len() as u64, Use::Storage)?,
            state: device.buffer("states", row(plan.nq + 2 * plan.nv), Use::Storage)?,
            ctrl: device.buffer("controls", row(plan.nu), Use::Storage)?,
            derived: device.buffer("derived quantities", row(layout.len), Use::Storage)?,
            frozen: device.buffer("flags", row(1), Use::Storage)?,
        };
        device.upload(&buffers.plan, 0, &bytes);
        let workspaces = device.buffer("workspaces", room, Use::Storage)?;
        Ok(DeviceWorlds {
            bindings: device.bind(&kernel, 0, &bindings(&buffers, &workspaces))?,
            device: device.clone(),
            stages: if plan.integrator == Integrator::Rk4 { 4 } else { 1 },
            most_rounds: most_rounds(&plan, threads, device.software),
            threads,
            workspace,
            carried,
            plan,
            uniforms: UniformCache::default(),
            workspaces,
            model,
            worlds,
            drift,
            layout,
            specialised,
            buffers,
            kernel,
            most,
        })
    }

    /// The definitions that the robot fills into shaders: sizes and features.
    pub fn definitions(&self) -> &Definitions {
        self.specialised.definitions()
    }

    /// Threads that step one world.
    pub fn threads_per_world(&self) -> ThreadsPerWorld {
        self.threads
    }

    /// Bytes of a world's workspace, which lies in device memory or, for a team, in workgroup memory.
    pub fn workspace(&self) -> u64 {
        self.workspace
    }

    /// Numbers of a world's state.
    pub fn width(&self) -> usize {
        self.model.nq() + 2 * self.model.nv()
    }

    /// How many worlds may be stepped in a first submission, when the device's speed is unknown.
    pub fn sizer(&self) -> SubmissionSizer {
        SubmissionSizer::new(FIRST_DISPATCH, [WORKGROUP, self.most])
    }

    /// Requests other quantities.
    pub fn need(&mut self, layout: Layout) -> Result<(), DeviceError> {
        let bytes = 4 * (self.worlds * layout.len) as u64;
        self.buffers.derived = self.device.buffer("derived quantities", bytes, Use::Storage)?;
        self.bindings = self.device.bind(&self.kernel, 0, &self.bindings())?;
        self.layout = layout;
        Ok(())
    }

    /// Records an env step of some worlds, at most [`SubmissionSizer::at_once`]: their controls are held for
    /// `frame_skip` timesteps.
    pub fn step(
        &mut self,
        commands: &mut Commands,
        worlds: Range<usize>,
        frame_skip: usize,
    ) -> Result<(), DeviceError> {
        let rounds = self.rounds(frame_skip);
        for first_round in (0..rounds).step_by(self.most_rounds) {
            let end_round = (first_round + self.most_rounds).min(rounds);
            self.dispatch(commands, worlds.clone(), [first_round, end_round, rounds], false)?;
        }
        Ok(())
    }

    /// The number of forward evaluations in an env step.
    pub fn rounds(&self, frame_skip: usize) -> usize {
        frame_skip * self.stages
    }

    /// A rough count of the work in one env step of one world: floating-point operations, with a handful of contacts
    /// and three Newton steps, and bytes of device memory. A single thread moves every number of the workspace three
    /// times per evaluation. A team only moves states. Its operations are those of its busiest member at each time,
    /// counted for all members, because they idle together.
    pub fn work(&self, frame_skip: usize) -> [f64; 2] {
        let (nv, bodies) = (self.model.nv() as f64, self.model.nbody() as f64);
        let (contacts, directions) = (self.plan.slots.min(8) as f64, 3.0);
        let rounds = self.rounds(frame_skip);
        let evaluations = rounds as f64;
        if self.threads == ThreadsPerWorld::One {
            let newton = nv.powi(3) / 3.0 + 4.0 * nv.powi(2) + contacts * (60.0 + 12.0 * directions * nv);
            let operations = evaluations * (700.0 * bodies + 200.0 * nv + 3.0 * newton);
            return [operations, 3.0 * evaluations * self.workspace as f64];
        }
        let team = self.threads.count() as f64;
        let newton = nv.powi(2) + 10.0 * nv + contacts * (80.0 + 2.0 * directions * nv) + 16.0 * team;
        let levels = levels(&self.plan).into_iter().max().unwrap_or(0) as f64;
        let tests = (self.plan.pairs.len() as f64 / team).ceil();
        let member = 150.0 * levels + 30.0 * bodies + 24.0 * nv + 100.0 * tests + 3.0 * newton;
        let handed = 2 * self.carried * rounds.div_ceil(self.most_rounds).saturating_sub(1) as u64;
        let numbers = 2 * self.width() + self.model.nu() + self.layout.len + 1;
        [evaluations * team * member, (4 * numbers) as f64 + handed as f64]
    }

    /// Records one evaluation, without control, of those of some worlds whose flag is 2. Their derived quantities are
    /// then those of the initial state of an episode.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] and [`DeviceError::Refused`].
    pub fn derive_initial(&mut self, commands: &mut Commands, worlds: Range<usize>) -> Result<(), DeviceError> {
        self.dispatch(commands, worlds, [0, 1, 1], true)
    }

    fn dispatch(
        &mut self,
        commands: &mut Commands,
        worlds: Range<usize>,
        rounds: [usize; 3],
        look: bool,
    ) -> Result<(), DeviceError> {
        let batch = self.batch(worlds.clone(), rounds, look);
        let told = self.uniforms.bind(&self.device, &self.kernel, bytemuck::bytes_of(&batch))?;
        commands.run(&self.kernel, &[&self.bindings, &told], self.groups(worlds.len()));
        Ok(())
    }

    /// The parameters of a dispatch: the worlds, the first round, the end of the rounds, and how many rounds an env
    /// step has.
    pub fn batch(
        &self,
        worlds: Range<usize>,
        [first_round, end_round, rounds]: [usize; 3],
        look: bool,
    ) -> layout::Batch {
        layout::Batch {
            first: worlds.start as u32,
            end: worlds.end as u32,
            first_round: first_round as u32,
            end_round: end_round as u32,
            rounds: rounds as u32,
            look: u32::from(look),
            zero: 0,
            kept: layout::Layout::of(&self.layout),
        }
    }

    /// How many workgroups a dispatch of this many worlds has.
    pub fn groups(&self, worlds: usize) -> usize {
        worlds.div_ceil(self.threads.worlds())
    }

    /// The buffers of bind group 0, in order of their bindings.
    pub fn bindings(&self) -> [(u32, &Buffer); 6] {
        bindings(&self.buffers, &self.workspaces)
    }
}

/// A robot's kernel, for worlds with this many threads.
struct BuiltKernels {
    specialised: Specialised,
    kernel: Kernel,
    threads: ThreadsPerWorld,
    workspace: u64,
    carried: u64,
}

impl BuiltKernels {
    fn new(
        device: &Device,
        model: &Model,
        plan: &Plan<f32>,
        threads: ThreadsPerWorld,
        checks: Checks,
    ) -> Result<BuiltKernels, PhysicsError> {
        let specialised = Specialised::new(model, plan, threads)?;
        let shader = specialised.shader(STEP);
        device.shares(shared(&shader), WORKGROUP)?;
        let bytes = |name: &str| reflected(&shader, name).map_or(0, |(_, size)| size as u64);
        let (workspace, carried) = (bytes("Workspace") / threads.worlds() as u64, bytes("Carried"));
        let kernel = device.kernel("physics step", shader, "main", checks)?;
        Ok(BuiltKernels { specialised, kernel, threads, workspace, carried })
    }
}

fn bindings<'a>(buffers: &'a Buffers, workspaces: &'a Buffer) -> [(u32, &'a Buffer); 6] {
    let Buffers { plan, state, ctrl, derived, frozen } = buffers;
    [(0, plan), (1, state), (2, ctrl), (3, derived), (4, frozen), (5, workspaces)]
}
