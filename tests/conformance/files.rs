//! Task files: how they are found, and how a wrong one is refused.

use flipside_core::Seed;
use flipside_core::settings::PairChoice;
use flipside_envs::gym::{Env, EnvError, State, Task, TaskError};
use flipside_envs::physics::{self, Model};
use flipside_envs::tasks::{self, RewardSpec, TaskSpec};
use rand::RngExt;
use std::sync::Arc;

/// A task is found by its file's name and by its Gymnasium id, in any case. The error for an unknown name lists the
/// tasks.
#[test]
fn tasks_are_found_by_either_name() {
    let none = tasks::Folders::default();
    for name in ["hopper", "Hopper-v5", "HOPPER", "hopper-V5"] {
        assert_eq!(none.load(name).unwrap().spec.name, "hopper");
    }
    let message = none.load("hoper").unwrap_err().to_string();
    for part in ["`hoper`", "hopper (Hopper-v5)", "ant (Ant-v5)", "half_cheetah (HalfCheetah-v5)"] {
        assert!(message.contains(part), "{message}");
    }
}

/// A person's folder adds tasks and overrides built-in ones. A copied task needs no copy of its robot.
#[test]
fn folders_add_and_override() {
    let folder = tempfile::tempdir().unwrap();
    let folders = tasks::Folders(vec![folder.path().to_owned(), folder.path().join("absent")]);
    let hopper = include_str!("../../envs/hopper.toml");
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();

    put("lively.toml", &hopper.replace("horizon = 1000", "horizon = 50").replace("gymnasium = \"Hopper-v5\"", ""));
    put("walker2d.toml", &include_str!("../../envs/walker2d.toml").replace("title = \"Walker\"", "title = \"Mine\""));
    put("broken.toml", "title = 3\n");
    let files = folders.load("lively").unwrap();
    let model = Model::from_mjcf(&files.mjcf, &files.mjcf_file).unwrap();
    assert_eq!(Task::new(files.spec, Arc::new(model)).unwrap().horizon(), 50);
    let listed = folders.list();
    let entry = |name: &str| listed.iter().find(|e| e.name == name).unwrap();
    assert_eq!(entry("walker2d").title, "Mine");
    assert_eq!(entry("walker2d").folder.as_deref(), Some(folder.path()));
    assert_eq!(entry("ant").folder, None);
    assert_eq!(entry("broken").fault.as_ref().unwrap().line, 1);

    // A copy that kept the Gymnasium id does not replace the original. Two copies with the same new id are ambiguous.
    put("lively.toml", hopper);
    assert_eq!(folders.load("Hopper-v5").unwrap().spec.name, "hopper");
    for name in ["one.toml", "two.toml"] {
        put(name, &hopper.replace("Hopper-v5", "Mine-v0"));
    }
    assert!(matches!(folders.load("Mine-v0"), Err(tasks::EnvsError::Ambiguous { .. })));
    // A robot in the folder replaces the one of the built-in task. A missing robot is reported with its line.
    put("hopper.xml", "<mujoco/>");
    assert_eq!(folders.load("hopper").unwrap().mjcf, "<mujoco/>");
    put("lively.toml", &hopper.replace("\"hopper.xml\"", "\"hoper.xml\""));
    let message = folders.load("lively").unwrap_err().to_string();
    let line = 1 + hopper.lines().position(|l| l.starts_with("model")).unwrap();
    assert!(message.contains(&format!("lively.toml:{line}: expected the robot's MJCF file")), "{message}");
}

/// The backflip's reward is the published formula, −ω (1 + .3 z + .1 Σ aᵢ q̇ᵢ − .05 ẋ). The teacher reward pays for
/// turning over at the speed of a flip, more the higher head and torso are, and for turning slowly through upright.
/// Whirling costs. A term with conditions is paid only where all of them hold.
#[test]
fn products_and_conditions_make_the_backflips_reward() {
    let loaded = Task::load("hopper_backflip").unwrap();
    let text = concat!(include_str!("../../envs/hopper_backflip.toml"), include_str!("../data/choosy_teacher.toml"));
    let spec = TaskSpec::parse(text, "choosy", "choosy.toml").unwrap();
    let task = Task::new(spec, loaded.model().clone()).unwrap();
    let mut stood = 0;
    let mut stream = Seed(9).stream("states");
    for _ in 0..200 {
        let mut draw = |n: usize, most: f64| -> Vec<f64> { (0..n).map(|_| stream.random_range(-most..most)).collect() };
        let (qpos, qvel, action) = (draw(6, 3.0), draw(6, 20.0), draw(3, 1.0));
        let (height, pitch, rate) = (qpos[1], qpos[2], qvel[2]);
        // The frames of the world and of the torso, which is turned about y.
        let mut frames = vec![0.0; 14];
        frames[7..].copy_from_slice(&[0.0, 0.0, height, (pitch / 2.0).cos(), 0.0, (pitch / 2.0).sin(), 0.0]);
        let state = State { qpos: &qpos, qvel: &qvel, action: &action, frames: &frames, ..State::default() };
        let work: f64 = action.iter().zip(&qvel[3..]).map(|(a, v)| a * v).sum();
        let expected = -rate * (1.0 + 0.3 * height + 0.1 * work - 0.05 * qvel[0]);
        let mut before = vec![0.0; task.memory()];
        task.remember(&state, &mut before);
        let got = task.reward(&before, &state, true, &mut vec![0.0; task.term_names().len()]);
        assert!((got - expected).abs() < 1e-9, "{got}, not {expected}");
        // Height is in two of the factors.
        let high = (height + 0.2 * pitch.cos()).clamp(0.0, 1.0) * height.clamp(0.0, 1.2);
        let turn = rate.clamp(-15.0, 15.0);
        let over = high * (-turn - turn * turn / 14.0);
        let slow = rate.clamp(-10.0, 10.0);
        let through = 4.0 * high * pitch.cos().max(0.0) * (-slow - slow * slow / 6.0);
        let stands = height > 0.8 && pitch.cos() > 0.88;
        stood += usize::from(stands);
        let stance = if stands { -4.0 * rate } else { 0.0 };
        let whirl = -0.25 * (rate + 9.0).clamp(-11.0, 0.0).powi(2);
        let teacher_reward = task.teacher_reward(&before, &state, true).unwrap();
        assert!(
            (teacher_reward - over - through - whirl - stance).abs() < 1e-9,
            "{teacher_reward}: {over} {through} {whirl} {stance}"
        );
    }
    assert!(stood > 5, "{stood} of the states are upright and high");
    assert_eq!(Task::load("hopper").unwrap().teacher_reward(&[0.0; 3], &State::default(), true), None);
}

/// The error for a wrong file names the file, the line and what was expected. Each case changes one line of
/// hopper.toml.
#[test]
fn wrong_task_files_are_told_where_and_what() {
    let good = include_str!("../../envs/hopper.toml");
    let files = tasks::Folders::default().load("hopper").unwrap();
    let model = Arc::new(Model::from_mjcf(&files.mjcf, &files.mjcf_file).unwrap());
    let check = |find: &str, put: &str, expected: &str| {
        let at = good.find(find).unwrap_or_else(|| panic!("hopper.toml has no `{find}`"));
        let text = format!("{}{put}{}", &good[..at], &good[at + find.len()..]);
        // The mistake is on the last line of the replacement.
        let line = 1 + good[..at].matches('\n').count() + put.trim_end().matches('\n').count();
        let told = TaskSpec::parse(&text, "mine", "mine.toml")
            .map_err(TaskError::from)
            .and_then(|spec| Task::new(spec, model.clone()))
            .expect_err(put)
            .to_string();
        let start = format!("mine.toml:{line}: ");
        assert!(
            told.starts_with(&start) && told.contains(expected),
            "`{put}` should be told `{start}…{expected}…`, not `{told}`"
        );
    };
    // TOML syntax.
    check("frame_skip = 4", "frame_skip = ", "value");
    check("[reset]", "[reset", "]");
    // Keys and types.
    check("frame_skip = 4", "frameskip = 4", "unknown field `frameskip`, expected one of `title`");
    check("frame_skip = 4", "frame_skip = \"four\"", "expected usize");
    check("frame_skip = 4", "frame_skip = 0", "1 or more");
    check("horizon = 1000", "horizon = 0", "1 step or more");
    check("horizon = 1000", "horizon = -5", "expected u32");
    check("skip = 1", "skip = 6", "fewer than the 6 numbers");
    check("skip = 1", "skip = 1\ntake = 6", "1 to 5");
    check("source = \"qpos\"", "source = \"position\"", "unknown variant `position`, expected one of `qpos`, `qvel`");
    check(
        "source = \"qpos\"",
        "source = \"cinert\"\njoints = [\"thigh\"]",
        "`qfrc_actuator` and `qfrc_constraint` only",
    );
    check("source = \"qpos\"", "source = \"body\"", "expected `body = \"NAME\"`");
    check("source = \"qvel\"", "source = \"qvel\"\nbody = \"torso\"", "`body` goes with the source `body` only");
    check("clip = [-10, 10]", "clip = [10, -10]", "low ≤ high");
    check("clip = [-10, 10]", "clip = [-10]", "expected");
    check("qpos = { uniform = 5e-3 }", "qpos = { gaussian = 5e-3 }", "expected `uniform` or `normal`");
    check("qpos = { uniform = 5e-3 }", "qpos = { uniform = -1 }", "zero or more");
    check("kind = \"velocity\"", "kind = \"speed\"", "unknown variant `speed`, expected one of `alive`, `velocity`");
    check("kind = \"alive\"", "kind = \"norm\"", "expected `of = ");
    check("kind = \"sum_squares\"", "kind = \"value\"", "a signal of one number for this kind of term, not 3");
    check("name = \"reward_ctrl\"", "name = \"reward_forward\"", "already a reward term");
    check("weight = 1.0", "weight = nan", "a finite number");
    check("kind = \"sum_squares\"", "kind = \"dot\"", "expected `with = ");
    check("kind = \"sum_squares\"", "kind = \"sum_squares\"\nwith = { source = \"action\" }", "kind `dot` only");
    check("weight = -1e-3", "weight = -1e-3\ntimes = [{ source = \"action\" }]", "one number in `times`, not 3");
    check("weight = -1e-3", "weight = -1e-3\nwhen = [{ of = { source = \"action\" } }]", "expected a bound");
    check("above = 0.7", "abov = 0.7", "unknown field `abov`");
    check("gae_lambda = 0.95", "num_evns = 2", "unknown field `num_evns`, expected one of `num_envs`");
    // Names that the robot does not have.
    check(
        "joints = [\"root_x\"]",
        "joints = [\"root_q\"]",
        "hopper.xml has no joint `root_q`; expected one of: root_x, root_z, root_pitch",
    );
    check(
        "source = \"qpos\"",
        "source = \"body\"\nbody = \"tail\"",
        "hopper.xml has no body `tail`; expected one of: world, torso",
    );
    check(
        "[reset]",
        "[reset]\nplace = [{ joints = [\"root_z\"], low = [1], high = [2], farther_than = 3 }]",
        "a box that mostly",
    );
    check("[reset]", "[reset]\nplace = [{ joints = [\"root_z\"], low = [1, 2], high = [2] }]", "expected 1 numbers");

    // A missing key has no line of its own. The error names it.
    let told = TaskSpec::parse(&good.replace("title = \"Hopper\"\n", ""), "mine", "mine.toml").unwrap_err().to_string();
    assert!(told.starts_with("mine.toml:") && told.contains("missing field `title`"), "{told}");
    let line = 1 + good.lines().position(|l| l == "[[healthy]]").unwrap();
    let told = TaskSpec::parse(&good.replacen("above = 0.7\n", "", 1), "mine", "mine.toml").unwrap_err();
    assert!(told.line == line + 1 && told.message.contains("expected a bound"), "{told}");
    // `unseen` with an observation index that does not exist, or with all of them.
    let line = 2 + good.lines().count();
    for (unseen, expected) in [("[11]", "places below 11"), ("[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]", "something to see")]
    {
        let text = format!("{good}\n[reward_model]\nunseen = {unseen}\n");
        let spec = TaskSpec::parse(&text, "mine", "mine.toml").unwrap();
        let told = Task::new(spec, model.clone()).unwrap_err().to_string();
        assert!(told.contains(&format!("mine.toml:{line}")) && told.contains(expected), "{told}");
    }
    // A number that is out of range is reported at the head of its table.
    let text = good.replace("gae_lambda = 0.95", "gamma = 2.0");
    let line = 1 + good.lines().position(|line| line == "[ppo]").unwrap();
    let told = TaskSpec::parse(&text, "mine", "mine.toml").unwrap_err().to_string();
    assert_eq!(told, format!("mine.toml:{line}: ppo.gamma must be a number from 0 to 1, not 2"));
}

/// Settings laid over a file change what they name and keep the rest. A wrong one is refused like a wrong file, and the
/// error repeats what was asked for.
#[test]
fn settings_may_be_laid_over_a_file() {
    let file = Task::load("hopper_backflip").unwrap();
    let spec =
        file.spec().with("labels.random_share = 0; labels.choice = 'entropy'\nppo.gamma = 0.9; horizon = 77").unwrap();
    assert_eq!((spec.labels.random_share, spec.labels.choice), (0.0, PairChoice::Entropy));
    assert_eq!((spec.ppo().gamma, *spec.horizon.get_ref()), (0.9, 77));
    let before = file.spec();
    assert_eq!(spec.labels.clip_seconds, before.labels.clip_seconds);
    assert_eq!((spec.ppo().gae_lambda, spec.reward_model()), (before.ppo().gae_lambda, before.reward_model()));
    assert_eq!(before.with("").unwrap().labels, before.labels);
    // No term or signal is lost, and none changes its place.
    let named = |terms: &[RewardSpec]| terms.iter().map(|term| term.name.get_ref().clone()).collect::<Vec<_>>();
    assert_eq!((named(&spec.reward), named(&spec.teacher)), (named(&before.reward), named(&before.teacher)));
    assert_eq!(spec.observation.len(), before.observation.len());
    for (asked, expected) in [
        ("labels.random_shore = 0", "unknown field `random_shore`"),
        ("ppo.gamma = 2.0", "from 0 to 1, not 2"),
        ("labels.choice = entropy", "must be quoted"),
        ("labels = 3", "expected struct"),
    ] {
        let told = before.with(asked).expect_err(asked).to_string();
        assert!(told.contains(asked) && told.contains(expected), "{told}");
    }
}

/// A quantity that the backend does not compute is refused when the batch is made. The error says what to do.
#[test]
fn a_source_that_the_backend_lacks_is_refused() {
    let text = include_str!("../../envs/hopper.toml").replacen("source = \"qpos\"", "source = \"cvel\"", 1);
    let hopper = Task::load("hopper").unwrap();
    let task = Task::new(TaskSpec::parse(&text, "mine", "mine.toml").unwrap(), hopper.model().clone()).unwrap();
    let backend = physics::backend("rapier", physics::Precision::F32, task.model().clone(), 1, Some(1)).unwrap();
    let error = Env::new(Arc::new(task), backend).err().unwrap();
    assert!(matches!(error, EnvError::Physics(_)), "{error:?}");
    assert_eq!(error.to_string(), "the rapier backend does not compute cvel: use the backend lanes, which does");
}

/// A target that is placed at random keeps the required distances and is at rest.
#[test]
fn placed_joints_keep_their_distance() {
    let text = format!(
        "{}\n{}",
        include_str!("../../envs/hopper.toml"),
        "[[reset.place]]\njoints = [\"root_x\", \"root_z\"]\nlow = [-0.2, -0.2]\nhigh = [0.2, 0.2]\nnearer_than = 0.2\nfarther_than = 0.1\n"
    );
    let hopper = Task::load("hopper").unwrap();
    let task = Task::new(TaskSpec::parse(&text, "mine", "mine.toml").unwrap(), hopper.model().clone()).unwrap();
    let mut stream = Seed(4).stream("reset");
    let (mut qpos, mut qvel) = ([0.0; 6], [0.0; 6]);
    let mut quadrants = [0; 4];
    for _ in 0..400 {
        task.draw(&mut stream, &mut qpos, &mut qvel);
        let distance = qpos[0].hypot(qpos[1]);
        assert!(0.1 < distance && distance < 0.2 && qvel[..2] == [0.0; 2] && qvel[2..].iter().all(|&v| v != 0.0));
        quadrants[usize::from(qpos[0] > 0.0) + 2 * usize::from(qpos[1] > 0.0)] += 1;
    }
    assert!(quadrants.iter().all(|&n| n > 60), "{quadrants:?}");
}
