//! The stages of a step as separate kernels, so that each can be timed. The stages pass data through the workspaces, so
//! running them in order computes the same as the kernel of the whole step. Together they take longer, by the cost of
//! starting each dispatch. A team's workspace does not outlive the dispatch, so there are no such kernels for teams.

use super::layout;
use super::worlds::DeviceWorlds;
use flipside_gpu::{Bindings, Checks, Commands, DeviceError, Kernel, UniformCache, bound};
use std::ops::Range;

/// Names of the stages, in order; the first one copies states into the workspaces and back.
const STAGES: [&str; 7] = ["state", "kinematics", "inertia", "forces", "contacts", "solve", "integrate"];

/// The kernels of one robot.
pub struct Stages(Vec<(Kernel, Bindings, UniformCache)>);

impl Stages {
    /// Compiles them.
    ///
    /// # Errors
    /// Those of the device.
    pub fn new(worlds: &DeviceWorlds, checks: Checks) -> Result<Stages, DeviceError> {
        let device = &worlds.device;
        let kernel = |name: &str| {
            let shader = worlds.specialised.stage(name);
            let bindings = bound(&shader, 0);
            let buffers: Vec<_> = worlds.bindings().into_iter().filter(|(at, _)| bindings.contains(at)).collect();
            let kernel = device.kernel(name, shader, "main", checks)?;
            let bindings = device.bind(&kernel, 0, &buffers)?;
            Ok((kernel, bindings, UniformCache::default()))
        };
        Ok(Stages(STAGES.iter().map(|name| kernel(name)).collect::<Result<_, _>>()?))
    }

    /// Records an env step of some worlds, as [`DeviceWorlds::step`] does.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`] and [`DeviceError::Refused`].
    pub fn step(
        &mut self,
        worlds: &DeviceWorlds,
        commands: &mut Commands,
        range: Range<usize>,
        frame_skip: usize,
    ) -> Result<(), DeviceError> {
        let rounds = worlds.rounds(frame_skip);
        self.dispatch(0, worlds, commands, worlds.batch(range.clone(), [0, 0, rounds], false))?;
        for round in 0..rounds {
            for stage in 1..STAGES.len() {
                let batch = worlds.batch(range.clone(), [round, round + 1, rounds], false);
                self.dispatch(stage, worlds, commands, batch)?;
            }
        }
        self.dispatch(0, worlds, commands, worlds.batch(range, [rounds, rounds, rounds], false))
    }

    fn dispatch(
        &mut self,
        stage: usize,
        worlds: &DeviceWorlds,
        commands: &mut Commands,
        batch: layout::Batch,
    ) -> Result<(), DeviceError> {
        let (kernel, bindings, told) = &mut self.0[stage];
        let told = told.bind(&worlds.device, kernel, bytemuck::bytes_of(&batch))?;
        let groups = worlds.groups((batch.end - batch.first) as usize);
        commands.run(kernel, &[bindings, &told], groups);
        Ok(())
    }
}
