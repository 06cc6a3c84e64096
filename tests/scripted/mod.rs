//! A lab for the desk's tests: it follows a script instead of training, and remembers what it was told.

use flipside::app::{DeskOptions, TaskChoice};
use flipside::basics::{Choice, Clip, Frames, Geom, Item, ItemId, PairId, PairReason, Pose, Scene, Shape};
use flipside::lab::{Command, Curve, Event, Link, PairView, Phase, Snapshot, TeacherKind};
use flipside::settings::RunSettings;
use flipside::settings::envs::{self, TaskEntry};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// What the lab and its test share.
pub struct Script {
    /// Everything that was sent, in order, apart from requests to see the policy.
    pub commands: Vec<Command>,
    /// What the desk sees.
    pub snapshot: Snapshot,
    /// What the desk has not heard yet.
    pub events: Vec<Event>,
    /// Whether a judgement brings the next pair at once.
    pub answers: bool,
    judged: Vec<PairView>,
    next_pair: u64,
}

/// A handle on a scripted lab; its clones are the same lab.
#[derive(Clone)]
pub struct Lab(Arc<Mutex<Script>>);

impl Lab {
    /// A lab that trains a hopper and has pair 1 ready.
    pub fn new() -> Lab {
        let scene = Arc::new(hopper());
        let snapshot = Snapshot {
            task: "hopper".to_owned(),
            from_preferences: true,
            scene,
            phase: Phase::Training,
            fault: None,
            teacher: TeacherKind::Person,
            pair: Some(pair(1)),
            taught: None,
            pairs_ready: 3,
            labels: 0,
            labels_planned: Some(200),
            labels_wanted: 12,
            labels_per_minute: 0.0,
            agreement: None,
            env_steps: 131_072,
            env_steps_planned: 2_000_000,
            env_steps_per_s: 8_400.0,
            seconds_left: Some(222.0),
            curves: Arc::new(Vec::new()),
            policy_clip: None,
            text: None,
            folder: PathBuf::from("/sessions/hopper-1"),
            at: Instant::now(),
        };
        let script = Script {
            commands: Vec::new(),
            snapshot,
            events: Vec::new(),
            answers: true,
            judged: Vec::new(),
            next_pair: 2,
        };
        Lab(Arc::new(Mutex::new(script)))
    }

    /// The script, to read or to change.
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    /// What was sent since the last call.
    pub fn heard(&self) -> Vec<Command> {
        std::mem::take(&mut self.script().commands)
    }

    /// Options for a desk whose every run is this lab.
    pub fn options(&self) -> DeskOptions {
        let lab = self.clone();
        DeskOptions {
            settings: RunSettings::default(),
            make_lab: Arc::new(move |settings, _| {
                lab.script().snapshot.task = settings.task;
                Ok(Box::new(lab.clone()))
            }),
            tasks: envs::Folders::default()
                .list()
                .into_iter()
                .map(|TaskEntry { name, title, .. }| TaskChoice { name, title })
                .collect(),
            probe: None,
        }
    }
}

impl Link for Lab {
    fn send(&self, command: Command) -> bool {
        let mut script = self.script();
        let script = &mut *script;
        match &command {
            Command::ShowPolicy => {
                script.snapshot.policy_clip = Some(Arc::new(clip(99, script.snapshot.env_steps, 1.0)));
                return true;
            }
            Command::Judge { pair: id, .. } if script.answers => {
                let answered =
                    script.snapshot.pair.take().filter(|shown| shown.id == *id).expect("the pair on show was answered");
                script.judged.push(answered);
                script.snapshot.pair = Some(pair(script.next_pair));
                script.next_pair += 1;
                script.snapshot.labels += 1;
                script.events.push(Event::Judged { pair: *id, labels: script.snapshot.labels });
            }
            Command::Undo => match script.judged.pop() {
                Some(pair) => {
                    script.events.push(Event::Retracted { pair: pair.id });
                    script.snapshot.labels -= 1;
                    script.snapshot.pair = Some(pair);
                }
                None => script.events.push(Event::Refused("There is no answer to take back.".to_owned())),
            },
            Command::Start => script.snapshot.phase = Phase::Training,
            Command::Pause => script.snapshot.phase = Phase::Paused,
            Command::SetTeacher(teacher) => script.snapshot.teacher = *teacher,
            Command::Save => script.events.push(Event::Saved { env_steps: script.snapshot.env_steps }),
            Command::Quit => script.events.push(Event::Closed),
            Command::Judge { .. } | Command::Ask(_) | Command::SetPrompts(_) => {}
        }
        script.commands.push(command);
        true
    }

    fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.script().events)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.script().snapshot.clone())
    }
}

/// Pair `n`, of clips that hop in different ways.
pub fn pair(n: u64) -> PairView {
    let vigour = |side: u64| 0.6 + 0.13 * ((2 * n + side) % 7) as f32;
    let items = [0, 1].map(|side| Item::Clip(Arc::new(clip(2 * n + side, 1000 * n, vigour(side)))));
    PairView {
        id: PairId(n),
        items,
        reason: if n.is_multiple_of(3) { PairReason::Random } else { PairReason::Disagreement },
    }
}

/// The judgement of `pair` in a list of commands, without the time it took.
pub fn judgement(command: &Command) -> Option<(u64, Choice)> {
    match command {
        Command::Judge { pair, choice, .. } => Some((pair.0, *choice)),
        _ => None,
    }
}

const LINKS: [(&str, f32, f32); 4] =
    [("torso", 0.4, 0.05), ("thigh", 0.45, 0.05), ("leg", 0.5, 0.04), ("foot", 0.39, 0.06)];

/// The shape of Gymnasium's hopper, each body's origin at its lower joint.
pub fn hopper() -> Scene {
    let ground = Geom { name: "floor".to_owned(), body: 0, shape: Shape::Plane, pose: Pose::IDENTITY, rgba: [0.8; 4] };
    let colors = [[0.85, 0.55, 0.35, 1.0], [0.80, 0.50, 0.32, 1.0], [0.75, 0.45, 0.30, 1.0], [0.35, 0.50, 0.80, 1.0]];
    let links = LINKS.iter().zip(colors).enumerate().map(|(i, ((name, length, radius), rgba))| {
        let half_length = length / 2.0;
        let (position, rotation) = match *name {
            // The foot lies along x.
            "foot" => ([0.06, 0.0, 0.0], [std::f32::consts::FRAC_1_SQRT_2, 0.0, std::f32::consts::FRAC_1_SQRT_2, 0.0]),
            _ => ([0.0, 0.0, half_length], [1.0, 0.0, 0.0, 0.0]),
        };
        let shape = Shape::Capsule { radius: *radius, half_length };
        Geom { name: (*name).to_owned(), body: i + 1, shape, pose: Pose { position, rotation }, rgba }
    });
    let geoms = std::iter::once(ground).chain(links).collect();
    let bodies = std::iter::once("world").chain(LINKS.iter().map(|l| l.0)).map(str::to_owned).collect();
    Scene { bodies, geoms, meshes: vec![], focus: 1, lies_flat: false }
}

/// A second and a half of hopping, `vigour` high and far.
pub fn clip(id: u64, recorded_at: u64, vigour: f32) -> Clip {
    let (steps, dt) = (188, 0.008_f32);
    let mut poses = Vec::new();
    for t in 0..steps {
        let time = t as f32 * dt;
        let phase = 9.0 * time;
        let hop = 0.28 * vigour * phase.sin().max(0.0);
        let bend = 0.5 * (1.0 + (phase + 0.6).cos()) * 0.6 + 0.1;
        let lean = 0.12 * (phase * 0.5).sin() + 0.05 * vigour;
        let x = 0.9 * vigour * time;
        let turn = |angle: f32| [(angle / 2.0).cos(), 0.0, (angle / 2.0).sin(), 0.0];
        let up = |angle: f32, length: f32| [length * angle.sin(), 0.0, length * angle.cos()];
        let add = |a: [f32; 3], b: [f32; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
        let (foot_angle, leg_angle, thigh_angle) = (0.1 * phase.cos(), 0.5 * bend, -bend + 0.2);
        let ankle = [x, 0.0, 0.07 + hop];
        let knee = add(ankle, up(leg_angle, 0.5));
        let hip = add(knee, up(thigh_angle, 0.45));
        poses.push(Pose::IDENTITY);
        poses.push(Pose { position: hip, rotation: turn(lean) });
        poses.push(Pose { position: knee, rotation: turn(thigh_angle) });
        poses.push(Pose { position: ankle, rotation: turn(leg_angle) });
        poses.push(Pose { position: ankle, rotation: turn(foot_angle) });
    }
    let frames = Frames {
        steps,
        bodies: 5,
        obs_dim: 1,
        act_dim: 1,
        poses,
        obs: vec![0.0; steps],
        actions: vec![0.0; steps],
        task_reward: vec![vigour; steps],
    };
    Clip { id: ItemId(id), task: "hopper".to_owned(), dt, recorded_at, frames }
}

/// Curves as a run of some minutes leaves them.
pub fn curves(points: usize) -> Vec<Curve> {
    let curve = |name, f: &dyn Fn(f64) -> f64| Curve {
        name,
        points: (0..points)
            .map(|i| {
                let noise =
                    (f64::from(i as u32 * 2_654_435) * 0.618).sin() * 0.5 + (f64::from(i as u32) * 12.9898).sin() * 0.5;
                let x = i as f64 / points as f64;
                [x * 130_000.0, f(x) * (1.0 + 0.12 * noise)]
            })
            .collect(),
    };
    vec![
        curve("true_return", &|x| 40.0 + 900.0 * x * x),
        curve("learned_return", &|x| 3.0 * (1.0 - (-4.0 * x).exp())),
        curve("agreement", &|x| 0.5 + 0.35 * (1.0 - (-3.0 * x).exp())),
        curve("reward_loss", &|x| 0.69 - 0.3 * x),
        curve("entropy", &|x| 4.2 - 2.0 * x),
        curve("kl", &|_| 0.012),
        curve("value_loss", &|x| 0.4 - 0.3 * x),
        curve("labels", &|x| (60.0 * x).floor()),
    ]
}
