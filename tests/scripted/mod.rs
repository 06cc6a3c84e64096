//! A lab for the desk's tests. It follows a script instead of training, and records the commands that it receives.

use flipside::app::{DeskOptions, TaskChoice};
use flipside::lab::{
    Command, ControlView, Curve, Event, InsideQuestion, Link, ModeView, PairView, Phase, Snapshot, TeacherKind,
    TextSample, TextStage, TextView,
};
use flipside::settings::{Mode, RunSettings, TextRun};
use flipside_core::{Choice, Clip, Completion, Frames, Geom, Item, ItemId, PairId, PairReason, Pose, Scene, Shape};
use flipside_envs::tasks::{self, TaskEntry};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

/// What the lab and its test share.
pub struct Script {
    /// Every command that was sent, in order, except requests to show a robot's policy.
    pub commands: Vec<Command>,
    /// The snapshot that the desk sees.
    pub snapshot: Snapshot,
    /// Events that the desk has not received yet.
    pub events: Vec<Event>,
    /// Whether a judgement brings the next pair at once.
    pub answers: bool,
    /// What the desk's runs were started with, in order.
    pub opened: Vec<RunSettings>,
    judged: Vec<PairView>,
    next_pair: u64,
}

/// A handle on a scripted lab. Its clones refer to the same lab.
#[derive(Clone)]
pub struct Lab(Arc<Mutex<Script>>);

impl Lab {
    /// A lab that trains a hopper and has pair 1 ready.
    pub fn new() -> Lab {
        let view = ControlView {
            task: "hopper".to_owned(),
            from_preferences: true,
            scene: Arc::new(hopper()),
            policy_clip: None,
        };
        let snapshot = Snapshot {
            mode: ModeView::Control(view),
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
            consistency: None,
            alarm: None,
            disputed: Arc::default(),
            env_steps: 131_072,
            env_steps_planned: 2_000_000,
            env_steps_per_s: 8_400.0,
            seconds_left: Some(222.0),
            curves: Arc::new(Vec::new()),
            folder: PathBuf::from("/sessions/hopper-1"),
            at: Instant::now(),
        };
        let script = Script {
            commands: Vec::new(),
            snapshot,
            events: Vec::new(),
            answers: true,
            opened: Vec::new(),
            judged: Vec::new(),
            next_pair: 2,
        };
        Lab(Arc::new(Mutex::new(script)))
    }

    /// A lab that trains a language model by PPO and has pair 1 ready.
    pub fn of_text() -> Lab {
        let lab = Lab::new();
        lab.script().snapshot.teach_text();
        lab
    }

    /// The script, to read or to change.
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    /// What was sent since the last call.
    pub fn heard(&self) -> Vec<Command> {
        std::mem::take(&mut self.script().commands)
    }

    /// Options for a desk that opens this lab for every run.
    pub fn options(&self) -> DeskOptions {
        let lab = self.clone();
        let text = self.script().snapshot.text().is_some();
        DeskOptions {
            settings: if text { RunSettings::of_text(TextRun::default()) } else { RunSettings::default() },
            make_lab: Arc::new(move |settings, _| {
                let mut script = lab.script();
                match (&settings.mode, &script.snapshot.mode) {
                    (Mode::Text(_), ModeView::Control(_)) => script.snapshot.teach_text(),
                    (Mode::Control(_), ModeView::Text(_)) => {
                        script.snapshot = Lab::new().script().snapshot.clone();
                    }
                    _ => {}
                }
                if let ModeView::Control(view) = &mut script.snapshot.mode {
                    settings.task().clone_into(&mut view.task);
                }
                script.opened.push(settings);
                drop(script);
                Ok(Box::new(lab.clone()))
            }),
            tasks: tasks::Folders::default()
                .list()
                .into_iter()
                .map(|TaskEntry { name, title, desk_steps, .. }| TaskChoice { name, title, env_steps: desk_steps })
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
                if let ModeView::Control(view) = &mut script.snapshot.mode {
                    view.policy_clip = Some(Arc::new(clip(99, script.snapshot.env_steps, 1.0)));
                    return true;
                }
            }
            Command::Judge { pair: id, .. } if script.answers => {
                let answered =
                    script.snapshot.pair.take().filter(|shown| shown.id == *id).expect("the pair on show was answered");
                script.judged.push(answered);
                let text = script.snapshot.text().is_some();
                script.snapshot.pair = Some(if text { text_pair(script.next_pair) } else { pair(script.next_pair) });
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
            Command::Retract(judgement) | Command::Confirm(judgement) => {
                Arc::make_mut(&mut script.snapshot.disputed).retain(|disputed| disputed.judgement != *judgement);
            }
            Command::Start => script.snapshot.phase = Phase::Training,
            Command::Pause => script.snapshot.phase = Phase::Paused,
            Command::SetTeacher(teacher) => script.snapshot.teacher = *teacher,
            Command::Save => script.events.push(Event::Saved { env_steps: script.snapshot.env_steps }),
            Command::Quit => script.events.push(Event::Closed),
            Command::Ask(prompt) => {
                let before = completion(900, prompt, " The film is long and I liked nothing of it.", 0.0);
                let now = completion(901, prompt, " The film is a wonder", 0.8);
                let now = Completion { stopped: false, ..now };
                let asked = TextSample { prompt: prompt.clone(), before, now, complete: false };
                script.snapshot.change_text(|view| view.asked = Some(Arc::new(asked)));
            }
            Command::SetPrompts(prompts) => {
                let prompts = Arc::new(prompts.clone());
                script.snapshot.change_text(|view| view.prompts = prompts);
            }
            Command::Look(_) | Command::StopLooking | Command::Judge { .. } => {}
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

/// How tests change a snapshot for text mode.
pub trait TextSnapshot {
    /// Turns it into a snapshot of text mode, in the middle of PPO.
    fn teach_text(&mut self);
    /// Changes the part that only text mode has.
    fn change_text(&mut self, change: impl FnOnce(&mut TextView));
}

impl TextSnapshot for Snapshot {
    fn teach_text(&mut self) {
        let prompts: Vec<String> =
            ["The food at", "We went to see", "My phone"].map(|start| format!("Review: {start}")).to_vec();
        let endings = [
            (" the corner was cold and the waiter was rude.", " the corner was warm, and we were served at once."),
            (" the film. It was long.", " the film, and it was the best evening of the year: funny, quick and kind."),
            (" broke after a week and nobody answered.", " is still like new after a year."),
        ];
        let samples = prompts.iter().zip(endings).enumerate().map(|(i, (prompt, (before, now)))| {
            let id = 500 + 2 * i as u64;
            let before = Completion { gold: Some(-1.0 + 0.5 * i as f64), ..completion(id, prompt, before, 0.0) };
            let now = Completion { gold: Some(2.0 + 0.25 * i as f64), ..completion(id + 1, prompt, now, 1.0) };
            TextSample { prompt: prompt.clone(), before, now, complete: true }
        });
        let view = TextView {
            model: "GPT-2, 0.9 M parameters, f32".to_owned(),
            stage: TextStage::Ppo,
            done: 31,
            of: 80,
            doing: "Writing completions".to_owned(),
            has_gold: true,
            samples: Arc::new(samples.collect()),
            prompts: Arc::new(prompts),
            asked: None,
            inside: None,
            kl_target: Some(6.0),
        };
        self.mode = ModeView::Text(Arc::new(view));
        self.pair = Some(text_pair(1));
        (self.env_steps, self.env_steps_planned, self.env_steps_per_s) = (981, 1030, 0.41);
        self.folder = PathBuf::from("/sessions/text-1");
    }

    fn change_text(&mut self, change: impl FnOnce(&mut TextView)) {
        let ModeView::Text(view) = &mut self.mode else { panic!("a robot is taught") };
        change(Arc::make_mut(view));
    }
}

/// What is compared after a prompt of three tokens.
pub fn inside_question() -> InsideQuestion {
    InsideQuestion {
        words: ["Review:", " The", " food"].map(str::to_owned).to_vec(),
        compared: [" good", " bad"].map(str::to_owned),
        differences: [0.25, 1.5],
    }
}

/// Two completions of one prompt.
pub fn text_pair(n: u64) -> PairView {
    let prompt = "Write a short review of a restaurant that you went to with a friend. Say what you ate, how you were \
                  served and whether you would go again.\n\nReview:";
    let texts = [
        " We had the soup and the fish. The soup was good, the fish was better, and the waiter was kind to us all \
         evening. We will surely come again.",
        " The table was small and the room was loud. I had the pie, it was cold, and nobody said a word about it. Never \
         again!",
    ];
    let items = [0, 1].map(|side| {
        let text = texts[side];
        Item::Completion(Arc::new(completion(2 * n + side as u64, prompt, text, if side == 0 { 1.0 } else { -0.8 })))
    });
    PairView { id: PairId(n), items, reason: PairReason::Disagreement }
}

/// A completion with one token a word. Its log-ratios oscillate around half of `drift` by up to 1.6 times `drift`.
pub fn completion(id: u64, prompt: &str, text: &str, drift: f32) -> Completion {
    let mut pieces: Vec<String> = text.trim_start().split(' ').map(|word| format!(" {word}")).collect();
    pieces.push(String::new());
    let log_ratios = (0..pieces.len()).map(|i| drift * (0.5 + 1.6 * (1.7 * i as f32 + 0.3).sin())).collect();
    Completion {
        id: ItemId(id),
        prompt: prompt.to_owned(),
        prompt_tokens: vec![1; 8],
        tokens: vec![2; pieces.len()],
        pieces,
        log_ratios,
        stopped: true,
        recorded_at: 900 + id,
        gold: None,
    }
}

/// The pair and choice of a `Judge` command, without the time it took.
pub fn judgement(command: &Command) -> Option<(u64, Choice)> {
    match command {
        Command::Judge { pair, choice, .. } => Some((pair.0, *choice)),
        _ => None,
    }
}

const LINKS: [(&str, f32, f32); 4] =
    [("torso", 0.4, 0.05), ("thigh", 0.45, 0.05), ("leg", 0.5, 0.04), ("foot", 0.39, 0.06)];

/// The shape of Gymnasium's hopper. Each body's origin is at its lower joint.
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

/// One and a half seconds of hopping. `vigour` scales height and distance.
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

/// Curves as they look after some minutes of a run.
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
        curve("base_loss", &|x| 1.2 + 5.0 * (-9.0 * x).exp()),
        curve("supervised_loss", &|x| 1.1 - 0.2 * x),
        curve("reward", &|x| 1.6 * x),
        curve("gold", &|x| -0.5 + 2.0 * x),
        curve("reference_kl", &|x| 5.0 * x.sqrt()),
        curve("beta", &|x| 0.05 + 0.02 * x),
        curve("length", &|x| 40.0 - 6.0 * x),
        curve("ended", &|x| (0.7 + 0.2 * x).min(1.0)),
    ]
}
