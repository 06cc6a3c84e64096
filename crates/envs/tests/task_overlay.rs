//! Settings laid over a task: what was set is read back, and nothing else changes.

use flipside_core::settings::{LabelSettings, MonitorSettings, PpoSettings};
use flipside_envs::tasks::{TaskSpec, load};
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::test_runner::RngSeed;

/// Values for a few settings of every kind.
#[derive(Clone, Debug)]
struct Values {
    frame_skip: usize,
    horizon: u32,
    env_steps: u64,
    terminate: bool,
    gamma: f64,
    learning_rate: f64,
    hidden: Vec<usize>,
    random_share: f64,
    title: String,
}

prop_compose! {
    fn values()(
        frame_skip in 1..20_usize,
        horizon in 1..u32::MAX,
        env_steps in 0..i64::MAX as u64,
        terminate in any::<bool>(),
        gamma in 0.0..=1.0,
        learning_rate in 1e-12..1.0,
        hidden in prop::collection::vec(1..500_usize, 0..4),
        random_share in 0.0..=1.0,
        title in "[a-zA-Zäß0-9 \\\\\"#=.\\[\\]-]{0,20}",
    ) -> Values {
        Values { frame_skip, horizon, env_steps, terminate, gamma, learning_rate, hidden, random_share, title }
    }
}

/// A name and how it is written and found again.
type Setting = (&'static str, fn(&Values) -> String, fn(&TaskSpec) -> String);

/// Settings at the top, in tables that the file has, and in tables that it has not.
const SETTINGS: &[Setting] = &[
    ("frame_skip", |v| v.frame_skip.to_string(), |s| s.frame_skip.get_ref().to_string()),
    ("horizon", |v| v.horizon.to_string(), |s| s.horizon.get_ref().to_string()),
    ("env_steps", |v| v.env_steps.to_string(), |s| s.env_steps().to_string()),
    ("terminate_when_unhealthy", |v| v.terminate.to_string(), |s| s.terminate_when_unhealthy.to_string()),
    ("ppo.gamma", |v| format!("{:?}", v.gamma), |s| format!("{:?}", s.ppo().gamma)),
    ("ppo.learning_rate", |v| format!("{:?}", v.learning_rate), |s| format!("{:?}", s.ppo().learning_rate)),
    ("ppo.hidden", |v| format!("{:?}", v.hidden), |s| format!("{:?}", s.ppo().hidden)),
    ("labels.random_share", |v| format!("{:?}", v.random_share), |s| format!("{:?}", s.labels.random_share)),
    ("title", |v| format!("{:?}", v.title), |s| format!("{:?}", s.title)),
];

/// `ppo.gamma = 0.5; horizon = 20`
fn assignments(settings: &[Setting], values: &Values) -> String {
    let lines: Vec<String> = settings.iter().map(|(name, write, _)| format!("{name} = {}", write(values))).collect();
    lines.join("; ")
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 150, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_was_set_is_read_back_and_nothing_else_changes(
        task in prop::sample::select(vec!["hopper", "hopper_backflip", "reacher"]),
        values in values(),
        chosen in subsequence(SETTINGS, 0..=SETTINGS.len()).prop_shuffle(),
        cut in any::<prop::sample::Index>(),
    ) {
        let spec = load(task).unwrap().spec;
        let changed = spec.with(&assignments(&chosen, &values)).unwrap();
        for (name, write, read) in SETTINGS {
            let was_set = chosen.iter().any(|(chosen, ..)| chosen == name);
            let expected = if was_set { write(&values) } else { read(&spec) };
            prop_assert_eq!(read(&changed), expected, "{}", name);
        }
        // The rest is as it was.
        let rest = |spec: &TaskSpec| {
            let ppo = PpoSettings { gamma: 0.0, learning_rate: 1.0, hidden: vec![], ..spec.ppo() };
            let labels = LabelSettings { random_share: 0.0, ..spec.labels.clone() };
            let monitor: MonitorSettings = spec.monitor.clone();
            (ppo, labels, monitor, spec.reward_model(), spec.explore.clone(), spec.name.clone(), spec.description.clone())
        };
        prop_assert_eq!(rest(&changed), rest(&spec));
        // One by one is all at once.
        let (first, second) = chosen.split_at(cut.index(chosen.len() + 1));
        let twice = spec.with(&assignments(first, &values)).unwrap().with(&assignments(second, &values)).unwrap();
        for (name, _, read) in SETTINGS {
            prop_assert_eq!(read(&twice), read(&changed), "{}", name);
        }
        prop_assert_eq!(rest(&twice), rest(&spec));
    }

    #[test]
    fn an_unknown_name_is_refused_in_one_line(name in "[a-z]{12,20}", table in "(ppo\\.|labels\\.|reset\\.)?") {
        let spec = load("hopper").unwrap().spec;
        // The message quotes the assignments, whose lines may have ends of their own.
        let error = spec.with(&format!("\n{table}{name} = 1\n")).unwrap_err().to_string();
        prop_assert!(error.contains(&name) && !error.contains('\n'), "{}", error);
    }
}
