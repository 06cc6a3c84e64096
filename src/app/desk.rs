//! The desk's state, and what each command does to it. How it looks is in the views, which build on this file.

use super::clock::Clock;
use super::commands::DeskCommand;
use super::curves::CurveCache;
use super::eye::Eye;
use super::forms::{NewRun, PaletteState};
use super::hold::Hold;
use super::mode::{ModeTab, TextDesk, TextTab, can_answer, can_look};
use super::options::{DeskOptions, TaskChoice};
use super::probe::{Probe, ProbeReport};
use super::style;
use super::viewport::Stage;
use super::widgets::count;
use crate::lab::{
    Command, ControlView, Event, Inside, InsideSeen, ModeView, PairView, Phase, Snapshot, TeacherKind, TextView,
};
use crate::settings::{Asked, ControlRun, Mode, RewardSource, RunSettings, TextRun};
use eframe::egui_wgpu::RenderState;
use egui::{RawInput, ThemePreference, ViewportCommand};
use flipside_core::{Choice, Clip, JudgementId, PairId, Scene};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time between frames while something moves: on a GPU as short as the eye needs, and where the CPU draws, long
/// enough to leave training its half.
const PACE: Duration = Duration::from_millis(16);
const PACE_SOFTWARE: Duration = Duration::from_millis(33);
/// How often a new clip of the policy is requested while it learns, seconds.
const POLICY_EVERY: f64 = 6.0;
/// How often new samples are requested while they are on show and the policy learns, seconds.
const SAMPLES_EVERY: f64 = 10.0;
/// How long an answer glows, seconds.
pub(super) const FLASH: f64 = 0.45;
/// How long a sentence stays in the status line, seconds.
const STATUS_FOR: f64 = 8.0;

/// How important a sentence in the status line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Good to know.
    Info,
    /// Something was not done.
    Warning,
    /// Something broke.
    Error,
}

/// The sentence in the status line.
pub(super) struct Status {
    pub text: String,
    pub tone: Tone,
    /// egui time at which it disappears.
    until: f64,
}

/// A pair on show.
pub(super) struct Shown {
    pub pair: PairView,
    /// The answer to show, of a simulated teacher or of a disputed judgement; `None` if the person is asked.
    pub taught: Option<Choice>,
    /// When it was put on show.
    pub since: Instant,
}

/// The glow that confirms an answer.
pub(super) struct Flash {
    pub choice: Choice,
    /// egui time of the answer.
    pub at: f64,
}

/// The small view of the policy at work.
#[derive(Default)]
pub(super) struct PolicyView {
    pub clip: Option<Arc<Clip>>,
    pub clock: Clock,
    pub eye: Option<Eye>,
    /// egui time at which the lab was last asked for a new clip.
    asked: Option<f64>,
}

/// Everything the window shows, and the lab behind it.
pub struct Desk {
    pub(super) hold: Hold,
    pub(super) tasks: Vec<TaskChoice>,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) shown: Option<Shown>,
    /// The disputed answer that is shown again, in place of the question.
    pub(super) replayed: Option<JudgementId>,
    /// The pair that was answered and not yet replaced.
    pub(super) awaiting: Option<PairId>,
    pub(super) flash: Option<Flash>,
    pub(super) clock: Clock,
    /// The camera of both clips.
    pub(super) eye: Option<Eye>,
    /// The scene that the eyes were made for.
    framed: Option<Arc<Scene>>,
    pub(super) policy: PolicyView,
    pub(super) curves: CurveCache,
    /// Which curves are on show, an index into the mode's tabs.
    pub(super) curve_tab: usize,
    pub(super) text: TextDesk,
    /// The latest run of the other mode. Switching back continues it.
    pub(super) elsewhere: Option<RunSettings>,
    pub(super) stage: Stage,
    pub(super) status: Option<Status>,
    pub(super) help_open: bool,
    pub(super) palette: Option<PaletteState>,
    pub(super) new_run: Option<NewRun>,
    /// Commands that widgets have given in this frame.
    pub(super) queue: Vec<DeskCommand>,
    probe: Option<Probe>,
    report: Option<ProbeReport>,
    /// egui time of the latest frame.
    pub(super) now: f64,
    /// When the latest frame began.
    last_frame: Option<Instant>,
    /// Whether a lab was opened and not yet told to start.
    fresh: bool,
    closing: bool,
    title: String,
}

impl Desk {
    /// A desk whose lab is opened in the background. `state` is eframe's device. Without one, the 3D views stay empty.
    pub fn new(ctx: &egui::Context, options: DeskOptions, state: Option<&RenderState>) -> Desk {
        style::apply(ctx);
        let repaint = {
            let ctx = ctx.clone();
            Arc::new(move || ctx.request_repaint())
        };
        Desk {
            hold: Hold::open(options.make_lab, repaint, options.settings),
            tasks: options.tasks,
            snapshot: None,
            shown: None,
            replayed: None,
            awaiting: None,
            flash: None,
            clock: Clock::default(),
            eye: None,
            framed: None,
            policy: PolicyView { clock: Clock::at_speed(4), ..PolicyView::default() },
            curves: CurveCache::default(),
            curve_tab: 0,
            text: TextDesk::default(),
            elsewhere: None,
            stage: Stage::new(state),
            status: None,
            help_open: false,
            palette: None,
            new_run: None,
            queue: Vec::new(),
            probe: options.probe.map(Probe::new),
            report: None,
            now: 0.0,
            last_frame: None,
            fresh: false,
            closing: false,
            title: String::new(),
        }
    }

    /// Lets a probe press its keys in the frame that begins with this input.
    pub(super) fn press_keys(&mut self, input: &mut RawInput) {
        let Some(key) = self.probe.as_mut().and_then(|probe| probe.frame(Instant::now())).and_then(|c| c.spec().key)
        else {
            return;
        };
        for pressed in [true, false] {
            input.events.push(egui::Event::Key {
                key: key.logical_key,
                physical_key: None,
                pressed,
                repeat: false,
                modifiers: key.modifiers,
            });
        }
    }

    /// The probe's findings, once, when it is done.
    pub(super) fn take_report(&mut self) -> Option<ProbeReport> {
        self.report.take()
    }

    /// What must happen even while nothing is painted: reading the lab's events, and closing.
    pub fn logic(&mut self, ctx: &egui::Context) {
        if self.hold.poll() {
            self.forget_run();
            self.fresh = true;
        }
        self.hold.attend();
        if let Some(link) = self.hold.link() {
            let events = link.events();
            let snapshot = link.snapshot();
            for event in events {
                self.hear(event);
            }
            self.read_snapshot(snapshot);
        }
        if ctx.input(|input| input.viewport().close_requested()) && !self.hold.is_ended() {
            // The window stays open until the lab has saved.
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            self.close();
        }
        if self.closing && self.hold.is_ended() {
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
        let title = match self.snapshot.as_ref().map(|snapshot| &snapshot.mode) {
            Some(ModeView::Text(_)) => "Flipside – Language model".to_owned(),
            Some(ModeView::Control(view)) => format!("Flipside – {}", self.task_title(&view.task)),
            None => "Flipside".to_owned(),
        };
        if title != self.title {
            ctx.send_viewport_cmd(ViewportCommand::Title(title.clone()));
            self.title = title;
        }
    }

    /// What a frame does before it is drawn: it takes the keys, and lets the clips run on.
    pub(super) fn begin_frame(&mut self, ctx: &egui::Context) {
        let before = std::mem::replace(&mut self.now, ctx.input(|input| input.time));
        let passed = (self.now - before).clamp(0.0, 0.25);

        let typing =
            ctx.any_popup_open() || ctx.text_edit_focused() || self.palette.is_some() || self.new_run.is_some();
        if self.sees_inside() && !self.help_open && self.palette.is_none() && self.new_run.is_none() {
            let looking = self.is_looking() && !ctx.any_popup_open();
            if self.text.inside.take_keys(ctx, typing, looking) {
                match looking {
                    true => self.perform(ctx, DeskCommand::StopLooking),
                    false => self.text.inside.open = false,
                }
            }
        }
        for command in DeskCommand::take_keys(ctx, typing) {
            self.perform(ctx, command);
        }
        self.clock.advance(passed);
        self.policy.clock.advance(passed);
    }

    /// What a frame that began at `began` does once it is drawn: the commands of its widgets, and the time of the next
    /// frame.
    pub(super) fn finish_frame(&mut self, ctx: &egui::Context, began: Instant) {
        for command in std::mem::take(&mut self.queue) {
            self.perform(ctx, command);
        }
        self.stage.submit();
        let size = ctx.content_rect().size() * ctx.pixels_per_point();
        let on_show = self.shown.as_ref().filter(|shown| shown.taught.is_none()).map(|shown| shown.pair.id);
        let steps = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.env_steps);
        let mut at_once = self.closing;
        if let Some(probe) = &mut self.probe {
            probe.painted(on_show, [size.x as u32, size.y as u32], steps);
            at_once |= probe.is_waiting();
            if let Some(wait) = probe.next_key() {
                ctx.request_repaint_after(wait);
            }
            if probe.is_done() && self.report.is_none() && !self.closing {
                self.report = Some(probe.report(&self.stage.adapter().name));
                self.close();
            }
        }
        let flashing = self.flash.as_ref().is_some_and(|flash| self.now - flash.at < FLASH);
        let pace = if self.stage.adapter().software { PACE_SOFTWARE } else { PACE };
        // Only clips move. Text stands still.
        let pictures = self.mode_tab() == ModeTab::Control;
        let moving =
            pictures && ((self.shown.is_some() && self.clock.is_moving()) || self.policy.clip.is_some()) || flashing;
        if let Some(last) = self.last_frame.replace(began)
            && moving
            && pictures
        {
            self.stage.note_frame(began.duration_since(last).as_secs_f64(), pace.as_secs_f64());
        }
        if at_once {
            ctx.request_repaint();
        } else if moving {
            ctx.request_repaint_after(pace.saturating_sub(began.elapsed()).max(Duration::from_millis(1)));
        } else {
            // Something may change without an event, such as a remaining time that counts down.
            ctx.request_repaint_after(Duration::from_millis(500));
        }
    }

    /// Discards the state of the previous run.
    fn forget_run(&mut self) {
        self.snapshot = None;
        self.shown = None;
        self.awaiting = None;
        self.flash = None;
        self.policy.clip = None;
        self.policy.asked = None;
        self.clock.restart(0.0);
        self.text.forget_run();
        self.status = None;
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Judged { .. } => {}
            Event::Retracted { pair } => {
                // The same pair is asked again, so it must be possible to answer it again.
                self.awaiting.take_if(|awaited| *awaited == pair);
                self.say(Tone::Info, "The last answer was taken back.");
            }
            Event::Refused(sentence) => {
                self.awaiting = None;
                self.text.sent = None;
                self.text.inside.sent = None;
                self.say(Tone::Warning, sentence);
            }
            Event::Warned(sentence) => self.say(Tone::Warning, sentence),
            Event::Saved { env_steps } => {
                self.say(Tone::Info, format!("Saved after {} steps.", count(env_steps as f64)));
            }
            Event::Faulted(sentence) => self.say(Tone::Error, sentence),
            Event::Finished => self.say(Tone::Info, "All planned steps are done."),
            Event::Closed => self.say(Tone::Error, "The lab has closed; start a new run from the Session menu."),
        }
    }

    /// Shows a sentence in the status line.
    pub(super) fn say(&mut self, tone: Tone, text: impl Into<String>) {
        self.status = Some(Status { text: text.into(), tone, until: self.now + STATUS_FOR });
    }

    /// The sentence that the status line shows now. That of a fault stays as long as the fault.
    pub(super) fn standing_status(&self) -> Option<(Tone, &str)> {
        if let Some(snapshot) = self.snapshot.as_ref().filter(|s| s.phase == Phase::Faulted) {
            return Some((Tone::Error, snapshot.fault.as_deref().unwrap_or("The run paused itself.")));
        }
        self.status.as_ref().filter(|status| self.now < status.until).map(|status| (status.tone, status.text.as_str()))
    }

    fn read_snapshot(&mut self, snapshot: Arc<Snapshot>) {
        if std::mem::take(&mut self.fresh) && matches!(snapshot.phase, Phase::Starting | Phase::Paused) {
            self.send(Command::Start);
        }
        if let Some(view) = snapshot.control()
            && self.framed.as_ref().is_none_or(|scene| !Arc::ptr_eq(scene, &view.scene))
        {
            self.framed = Some(view.scene.clone());
            self.eye = None;
            self.policy.eye = None;
        }
        self.curves.update(&snapshot.curves);

        let disputed = snapshot.disputed.iter().find(|disputed| Some(disputed.judgement) == self.replayed);
        let replayed = disputed.map(|disputed| (disputed.pair.clone(), Some(disputed.choice)));
        if replayed.is_none() {
            self.replayed = None;
        }
        let asked = snapshot.pair.clone().map(|pair| (pair, None));
        let taught = || snapshot.taught.clone().map(|(pair, choice)| (pair, Some(choice)));
        if let Some((pair, taught)) = replayed.or(asked).or_else(taught) {
            let known = self.shown.as_ref().is_some_and(|shown| shown.pair.id == pair.id && shown.taught == taught);
            if !known {
                if let Some((view, clips)) = snapshot.control().zip(pair.clips()) {
                    let duration = clips.iter().map(|clip| last_moment(clip)).fold(0.0, f64::max);
                    self.clock.restart(duration);
                    self.clock.playing = true;
                    self.eye = framed(self.eye, &view.scene, &clips.map(Arc::clone));
                }
                self.awaiting.take_if(|awaited| *awaited != pair.id);
                self.shown = Some(Shown { pair, taught, since: Instant::now() });
            }
        } else if snapshot.teacher != TeacherKind::Person || !snapshot.from_preferences() {
            self.shown = None;
        }
        match &snapshot.mode {
            ModeView::Control(view) => self.follow_policy(&snapshot, view),
            ModeView::Text(view) => {
                self.text.draft.follow(&view.prompts);
                let begun = |prompt: &String| view.asked.as_ref().is_some_and(|asked| asked.prompt == *prompt);
                self.text.sent.take_if(|prompt| begun(prompt));
                self.request_samples(&snapshot);
                self.follow_inside(view);
            }
        }
        self.snapshot = Some(snapshot);
    }

    /// Shows the newest clip of the policy, and requests another at intervals while the policy changes.
    fn follow_policy(&mut self, snapshot: &Snapshot, view: &ControlView) {
        if let Some(clip) = &view.policy_clip {
            let new = self.policy.clip.as_ref().is_none_or(|known| !Arc::ptr_eq(known, clip));
            if new {
                self.policy.clock.restart(last_moment(clip));
                self.policy.eye = framed(self.policy.eye, &view.scene, std::slice::from_ref(clip));
                self.policy.clip = Some(clip.clone());
            }
        }
        let stale = self.policy.clip.as_ref().is_none_or(|clip| clip.recorded_at < snapshot.env_steps);
        let due = self.policy.asked.is_none_or(|asked| self.now - asked >= POLICY_EVERY);
        if stale && due && snapshot.phase != Phase::Starting {
            self.policy.asked = Some(self.now);
            self.send(Command::ShowPolicy);
        }
    }

    /// Requests new samples when they are due: when their tab is opened, and at intervals while the policy changes.
    fn request_samples(&mut self, snapshot: &Snapshot) {
        if self.text.tab != TextTab::Samples || !can_answer(snapshot) {
            return;
        }
        let steps = snapshot.env_steps;
        let due = match self.text.samples_asked {
            None => true,
            Some((at, then)) => steps > then && self.now - at >= SAMPLES_EVERY,
        };
        if due && self.send(Command::ShowPolicy) {
            self.text.samples_asked = Some((self.now, steps));
        }
    }

    /// Takes over what the lab has found inside the models. A view that is turned to is looked at without being asked
    /// for, if the others of its prompt were.
    fn follow_inside(&mut self, view: &TextView) {
        if self.text.tab != TextTab::Inside {
            return;
        }
        if !std::mem::replace(&mut self.text.inside.filled, true)
            && let Some(prompt) = view.prompts.first()
        {
            self.text.inside.prompt.clone_from(prompt);
        }
        let Some(inside) = &view.inside else { return };
        self.text.inside.sent.take_if(|sent| *sent == inside.request);
        let request = self.text.inside.request();
        let goes_on =
            self.text.inside.is_of(inside) && inside.question.is_some() && request.view != inside.request.view;
        let lacks = inside.seen.get(&request.view).is_none_or(|seen| !seen.complete);
        if goes_on && lacks && self.text.inside.sent.is_none() && self.send(Command::Look(request.clone())) {
            self.text.inside.sent = Some(request);
        }
    }

    /// Sends a command to the lab. The status line says so if it was not accepted, except for [`Command::ShowPolicy`].
    pub(super) fn send(&mut self, command: Command) -> bool {
        let Some(link) = self.hold.link() else { return false };
        let quiet = command == Command::ShowPolicy;
        let taken = link.send(command);
        if !taken && !quiet {
            self.say(Tone::Warning, "The lab is busy and did not take that; try again in a moment.");
        }
        taken
    }

    /// What is taught now, or will be once the lab is open.
    pub(super) fn mode_tab(&self) -> ModeTab {
        match &self.snapshot {
            Some(snapshot) => ModeTab::from(&snapshot.mode),
            None => ModeTab::from(&self.hold.coming().mode),
        }
    }

    /// Whether the pair is visible. Keys must not answer a pair that is behind another tab.
    pub(super) fn sees_pair(&self) -> bool {
        self.mode_tab() == ModeTab::Control || self.text.tab == TextTab::Compare
    }

    /// Whether the page *Inside* is on show.
    pub(super) fn sees_inside(&self) -> bool {
        self.mode_tab() == ModeTab::Text && self.text.tab == TextTab::Inside
    }

    /// Whether the lab looks inside the models, or was asked to.
    pub(super) fn is_looking(&self) -> bool {
        let inside = self.snapshot.as_ref().and_then(|snapshot| snapshot.text()?.inside.as_ref());
        self.text.inside.sent.is_some() || inside.is_some_and(|inside| inside.progress.is_some())
    }

    /// What was found for the view that is on show.
    pub(super) fn seen_inside(&self, inside: &Inside) -> Option<Arc<InsideSeen>> {
        inside.seen.get(&self.text.inside.view()).cloned()
    }

    /// Looks inside the models, for what is typed.
    fn look_inside(&mut self) {
        let request = self.text.inside.request();
        if self.send(Command::Look(request.clone())) {
            self.text.inside.sent = Some(request);
        }
    }

    fn stop_looking(&mut self) {
        if self.send(Command::StopLooking) {
            self.text.inside.sent = None;
        }
    }

    /// The pair that waits for the person's answer, if there is one.
    pub(super) fn open_pair(&self) -> Option<&Shown> {
        let asked = self.snapshot.as_ref()?.pair.as_ref()?.id;
        self.shown
            .as_ref()
            .filter(|shown| shown.taught.is_none() && shown.pair.id == asked && self.awaiting != Some(asked))
    }

    /// Whether a command would have an effect now.
    pub(super) fn can(&self, command: DeskCommand) -> bool {
        let snapshot = self.snapshot.as_deref();
        let open = self.hold.link().is_some();
        let text = self.mode_tab() == ModeTab::Text;
        match command {
            _ if command.choice().is_some() => self.open_pair().is_some() && self.sees_pair(),
            DeskCommand::Undo => {
                open && self.sees_pair() && snapshot.is_some_and(|s| s.labels > 0 && s.teacher == TeacherKind::Person)
            }
            DeskCommand::TogglePlay | DeskCommand::StepBack | DeskCommand::StepForward => {
                !text && self.clock.duration() > 0.0
            }
            DeskCommand::ToggleLoop | DeskCommand::Speed(_) => !text,
            DeskCommand::ShowTab(_) | DeskCommand::ToggleColours => text,
            DeskCommand::Look => {
                let ready = open && snapshot.is_some_and(can_look);
                self.sees_inside() && ready && !self.text.inside.prompt.trim().is_empty()
            }
            DeskCommand::StopLooking => open && text && self.is_looking(),
            DeskCommand::NextView | DeskCommand::NextModel => self.sees_inside(),
            DeskCommand::ToggleTraining => {
                open && snapshot.is_some_and(|s| !matches!(s.phase, Phase::Starting | Phase::Finished))
            }
            DeskCommand::Save => open && snapshot.is_some(),
            DeskCommand::ResetCamera => !text && (self.eye.is_some() || self.policy.eye.is_some()),
            DeskCommand::NewRun | DeskCommand::Switch(_) => !self.hold.is_closing() && !self.hold.is_ended(),
            _ => true,
        }
    }

    /// Whether training is running, so that the next [`DeskCommand::ToggleTraining`] pauses it.
    pub(super) fn is_training(&self) -> bool {
        self.snapshot.as_ref().is_some_and(|s| matches!(s.phase, Phase::Training | Phase::Waiting))
    }

    /// Executes a command. Keys, menus, buttons, clicks on clips and the palette all end here.
    pub fn perform(&mut self, ctx: &egui::Context, command: DeskCommand) {
        if !self.can(command) {
            return;
        }
        match command {
            DeskCommand::PickLeft
            | DeskCommand::PickRight
            | DeskCommand::PickMuchLeft
            | DeskCommand::PickMuchRight
            | DeskCommand::Tie
            | DeskCommand::Skip => self.answer(command),
            DeskCommand::Undo => drop(self.send(Command::Undo)),
            DeskCommand::TogglePlay => self.clock.toggle(),
            DeskCommand::StepBack => self.step(-1.0),
            DeskCommand::StepForward => self.step(1.0),
            DeskCommand::ToggleLoop => self.clock.looping = !self.clock.looping,
            DeskCommand::Speed(rung) => self.clock.speed = usize::from(rung),
            DeskCommand::ResetCamera => self.reset_cameras(),
            DeskCommand::ToggleTraining => {
                let command = if self.is_training() { Command::Pause } else { Command::Start };
                self.send(command);
            }
            DeskCommand::ShowTab(tab) => self.text.turn_to(tab),
            DeskCommand::ToggleColours => self.text.colours = !self.text.colours,
            DeskCommand::Look => self.look_inside(),
            DeskCommand::StopLooking => self.stop_looking(),
            DeskCommand::NextView => self.text.inside.turn_on(),
            DeskCommand::NextModel => self.text.inside.switch_on(),
            DeskCommand::Switch(mode) => self.switch_to(mode),
            DeskCommand::NewRun => self.new_run = Some(NewRun::like(self.present_settings())),
            DeskCommand::Save => drop(self.send(Command::Save)),
            DeskCommand::Quit => self.close(),
            DeskCommand::ThemeSystem => ctx.set_theme(ThemePreference::System),
            DeskCommand::ThemeLight => ctx.set_theme(ThemePreference::Light),
            DeskCommand::ThemeDark => ctx.set_theme(ThemePreference::Dark),
            DeskCommand::Palette => {
                self.palette = if self.palette.is_some() { None } else { Some(PaletteState::default()) }
            }
            DeskCommand::Help => self.help_open = !self.help_open,
        }
    }

    fn answer(&mut self, command: DeskCommand) {
        let (Some(shown), Some(choice)) = (self.open_pair(), command.choice()) else { return };
        let pair = shown.pair.id;
        let thinking_ms = u32::try_from(shown.since.elapsed().as_millis()).unwrap_or(u32::MAX);
        if self.send(Command::Judge { pair, choice, thinking_ms }) {
            self.awaiting = Some(pair);
            self.flash = Some(Flash { choice, at: self.now });
        }
    }

    /// Sends a free prompt to the model before teaching and to the present one.
    pub(super) fn ask(&mut self) {
        let prompt = self.text.question.trim().to_owned();
        let ready = self.snapshot.as_ref().is_some_and(|snapshot| can_answer(snapshot));
        if ready && !prompt.is_empty() && self.send(Command::Ask(prompt.clone())) {
            self.text.sent = Some(prompt);
        }
    }

    fn step(&mut self, frames: f64) {
        let Some([clip, _]) = self.shown.as_ref().and_then(|shown| shown.pair.clips()) else { return };
        let dt = f64::from(clip.dt);
        self.clock.playing = false;
        self.clock.seek((self.clock.time() / dt).round() * dt + frames * dt);
    }

    fn reset_cameras(&mut self) {
        let Some(scene) = &self.framed else { return };
        let clips = self.shown.as_ref().and_then(|shown| shown.pair.clips());
        self.eye = clips.and_then(|clips| framed(None, scene, &clips.map(Arc::clone)));
        self.policy.eye = self.policy.clip.as_ref().and_then(|clip| framed(None, scene, std::slice::from_ref(clip)));
    }

    fn close(&mut self) {
        self.closing = true;
        self.hold.end();
    }

    /// The settings of the run on show, as the lab has them.
    pub(super) fn present_settings(&self) -> RunSettings {
        let mut settings = RunSettings { folder: None, asked: Asked::default(), ..self.hold.settings().clone() };
        if let Some(snapshot) = &self.snapshot {
            settings.teacher = snapshot.teacher;
            settings.env_steps = snapshot.env_steps_planned;
            settings.labels = snapshot.labels_planned.unwrap_or(settings.labels);
            // A session that was opened by its folder brings its own; these only say which kind it is.
            settings.mode = match (settings.mode, &snapshot.mode) {
                (Mode::Text(run), ModeView::Text(_)) => Mode::Text(run),
                (Mode::Control(_), ModeView::Text(_)) => Mode::Text(TextRun::built_in()),
                (mode, ModeView::Control(view)) => {
                    let run = if let Mode::Control(run) = mode { run } else { ControlRun::default() };
                    let reward = if view.from_preferences { RewardSource::Preferences } else { RewardSource::True };
                    Mode::Control(ControlRun { task: view.task.clone(), reward, ..run })
                }
            };
        }
        settings
    }

    /// Saves the present run and starts another.
    pub(super) fn begin(&mut self, settings: RunSettings) {
        self.forget_run();
        self.hold.replace(settings);
    }

    /// Saves the present run and continues the latest one of `mode`, or starts one. So a person can alternate between
    /// both modes without losing either.
    fn switch_to(&mut self, mode: ModeTab) {
        if self.mode_tab() == mode {
            return;
        }
        let present = match &self.snapshot {
            Some(snapshot) => RunSettings { folder: Some(snapshot.folder.clone()), ..self.present_settings() },
            None => self.hold.coming().clone(),
        };
        let next = self.elsewhere.replace(present).unwrap_or_else(|| mode.first_run());
        self.curve_tab = 0;
        self.begin(next);
    }

    /// A robot's name as a person reads it.
    pub(super) fn task_title(&self, name: &str) -> String {
        let known = self.tasks.iter().find(|task| task.name == name || task.title == name);
        known.map_or_else(|| name.to_owned(), |task| task.title.clone())
    }
}

/// The time of a clip's last frame, seconds.
fn last_moment(clip: &Clip) -> f64 {
    clip.frames.steps.saturating_sub(1) as f64 * f64::from(clip.dt)
}

/// The eye for these clips: the present one, widened if needed, or a new one.
fn framed(eye: Option<Eye>, scene: &Scene, clips: &[Arc<Clip>]) -> Option<Eye> {
    match eye {
        Some(mut eye) => {
            eye.widen(scene, clips);
            Some(eye)
        }
        None => Eye::on(scene, clips),
    }
}
