//! Prints what an env step costs beside its physics: clipping, reward, observation and bookkeeping of one world, in nanoseconds, for every
//! bundled task: `cargo bench --bench env_overhead`.

use flipside_core::Pose;
use flipside_envs::gym::{Autoreset, Task, VectorEnv};
use flipside_envs::physics::{Backend, Contact, Model, PhysicsError, Quantity};
use flipside_envs::tasks::Folders;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

const WORLDS: usize = 512;
const STEPS: usize = 200;
const RUNS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    for entry in Folders::default().list() {
        let task = Task::load(&entry.name)?;
        let model = task.model().clone();
        let still = Still { qpos: model.qpos0().repeat(WORLDS), qvel: vec![0.0; WORLDS * model.nv()], model };
        let mut env = VectorEnv::new(Arc::new(task), Box::new(still), Autoreset::SameStep)?;
        env.reset(0);
        let actions = vec![0.1; WORLDS * env.task().act_dim()];
        let mut quickest = f64::MAX;
        for _ in 0..RUNS {
            let start = Instant::now();
            for _ in 0..STEPS {
                env.step(&actions)?;
            }
            quickest = quickest.min(start.elapsed().as_secs_f64());
        }
        println!("{}: {:.0} ns", entry.name, 1e9 * quickest / (STEPS * WORLDS) as f64);
    }
    Ok(())
}

/// Physics that takes no time: every world stays as it is.
struct Still {
    model: Arc<Model>,
    qpos: Vec<f64>,
    qvel: Vec<f64>,
}

impl Backend for Still {
    fn name(&self) -> &'static str {
        "still"
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn worlds(&self) -> usize {
        self.qpos.len() / self.model.nq()
    }

    fn set_state(&mut self, _: usize, _: &[f64], _: &[f64]) {}

    fn qpos(&self) -> &[f64] {
        &self.qpos
    }

    fn qvel(&self) -> &[f64] {
        &self.qvel
    }

    fn step(&mut self, _: &[f64], _: usize) -> Result<(), PhysicsError> {
        Ok(())
    }

    fn body_poses(&self, _: usize, out: &mut [Pose]) {
        out.fill(Pose::IDENTITY);
    }

    fn contacts(&self, _: usize, out: &mut Vec<Contact>) {
        out.clear();
    }

    fn need(&mut self, _: &[Quantity]) -> Result<(), PhysicsError> {
        Ok(())
    }

    fn derived(&self, _: usize, _: Quantity, out: &mut [f64]) {
        out.fill(0.125);
    }

    fn frozen(&self, _: usize) -> bool {
        false
    }

    fn diverged(&self) -> u64 {
        0
    }
}
