//! The verb that measures. Figures go to stdout with what they were measured on.

use super::arguments::{Bench, BenchTask};
use super::run::report;
use crate::lab::bench::{Plan, Speed, physics, ppo};
use serde_json::json;
use std::time::Duration;

pub fn bench(what: &Bench) -> anyhow::Result<()> {
    match what {
        Bench::Physics(task) => speed("physics", &physics(&plan(task))?, task.json),
        Bench::Ppo(task) => speed("ppo", &ppo(&plan(task))?, task.json),
    }
    Ok(())
}

fn plan(arguments: &BenchTask) -> Plan {
    Plan {
        task: arguments.task.clone(),
        backend: arguments.backend.clone(),
        threads: arguments.threads,
        worlds: arguments.worlds,
        duration: Duration::from_secs_f64(arguments.seconds.max(0.1)),
    }
}

fn speed(what: &str, speed: &Speed, as_json: bool) {
    report(as_json, json!(speed), || {
        println!(
            "{what} {} on {}: {:.0} env steps/s (median of 5; {:.0} to {:.0}), {} worlds, {} threads, {}",
            speed.task,
            speed.backend,
            speed.env_steps_per_s,
            speed.range[0],
            speed.range[1],
            speed.worlds,
            speed.threads,
            speed.device
        );
    });
}
