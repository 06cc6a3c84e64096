//! What is taught: a robot or a language model. Switching saves the present run and continues the latest one of the
//! other kind, so that a person can alternate between both without losing either.

use super::desk::Desk;
use super::prompts::Draft;
use super::style::Palette;
use super::widgets::segment;
use crate::lab::{Command, Phase, Snapshot, TextStage};
use crate::settings::{RunSettings, TaskSpec, TextRun};
use egui::{Ui, vec2};

/// How often new samples are requested while they are on show and the policy learns, seconds.
const SAMPLES_EVERY: f64 = 10.0;

/// What is taught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A robot, by clips.
    #[default]
    Control,
    /// A language model, by completions.
    Text,
}

impl Mode {
    /// Both.
    pub const ALL: [Mode; 2] = [Mode::Control, Mode::Text];

    /// The switch's label.
    pub fn title(self) -> &'static str {
        ["Control", "Text"][self as usize]
    }

    /// The run to start if there is none of this kind to continue.
    fn first_run(self) -> RunSettings {
        match self {
            Mode::Control => RunSettings { env_steps: TaskSpec::UNHURRIED, ..RunSettings::default() },
            Mode::Text => RunSettings::of_text(TextRun::default()),
        }
    }
}

/// What the middle of the desk shows in text mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TextTab {
    /// The pair and its question.
    #[default]
    Compare,
    /// The same prompts, answered before teaching and now.
    Samples,
    /// A free prompt of the person's own, answered before teaching and now.
    Ask,
    /// The prompts that are asked about.
    Prompts,
}

impl TextTab {
    /// All of them, from the left.
    pub const ALL: [TextTab; 4] = [TextTab::Compare, TextTab::Samples, TextTab::Ask, TextTab::Prompts];

    /// The tab's label.
    pub fn title(self) -> &'static str {
        ["Compare", "Then and now", "Free prompt", "Prompts"][self as usize]
    }
}

/// The desk's state of text mode between frames.
pub(super) struct TextDesk {
    pub tab: TextTab,
    /// Whether tokens are coloured by their log-ratios.
    pub colours: bool,
    /// What is typed into the free prompt's field.
    pub question: String,
    /// The prompt that was sent and whose answer has not begun.
    pub sent: Option<String>,
    pub draft: Draft,
    /// egui time and training steps at the last request for samples.
    samples_asked: Option<(f64, u64)>,
}

impl Default for TextDesk {
    fn default() -> Self {
        TextDesk {
            tab: TextTab::default(),
            colours: true,
            question: String::new(),
            sent: None,
            draft: Draft::default(),
            samples_asked: None,
        }
    }
}

impl TextDesk {
    /// Discards the state of the previous run, but keeps the person's choice of colours.
    pub fn forget_run(&mut self) {
        *self = TextDesk { colours: self.colours, ..TextDesk::default() };
    }

    /// Shows a tab.
    pub fn turn_to(&mut self, tab: TextTab) {
        if self.tab != tab {
            self.tab = tab;
            self.samples_asked = None;
        }
    }
}

impl Desk {
    /// What is taught now, or will be once the lab is open.
    pub(super) fn mode(&self) -> Mode {
        let text = match &self.snapshot {
            Some(snapshot) => snapshot.text.is_some(),
            None => self.hold.coming().text.is_some(),
        };
        if text { Mode::Text } else { Mode::Control }
    }

    /// Whether the pair is visible. Keys must not answer a pair that is behind another tab.
    pub(super) fn sees_pair(&self) -> bool {
        self.mode() == Mode::Control || self.text.tab == TextTab::Compare
    }

    /// Saves the present run and continues the latest one of `mode`, or starts one.
    pub(super) fn switch_to(&mut self, mode: Mode) {
        if self.mode() == mode {
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

    /// The switch in the menu bar.
    pub(super) fn show_mode_switch(&mut self, ui: &mut Ui) {
        let palette = Palette::of(ui.ctx());
        let size = vec2(62.0, 24.0);
        let (strip, _) = ui.allocate_exact_size(vec2(size.x * 2.0, size.y), egui::Sense::hover());
        ui.painter().rect_filled(strip, super::style::RADIUS, palette.card);
        let present = self.mode();
        for (index, mode) in Mode::ALL.into_iter().enumerate() {
            let rect = egui::Rect::from_min_size(strip.min + vec2(index as f32 * size.x, 0.0), size);
            let command = super::DeskCommand::Switch(mode);
            let response = segment(ui, ("mode", index), rect, mode.title(), mode.title(), mode == present);
            if super::widgets::tip(response, command).clicked() {
                self.queue.push(command);
            }
        }
    }

    /// Requests new samples when they are due: when their tab is opened, and at intervals while the policy changes.
    pub(super) fn look_at_samples(&mut self, snapshot: &Snapshot) {
        let Some(view) = &snapshot.text else { return };
        if self.text.tab != TextTab::Samples || !can_answer(snapshot) {
            return;
        }
        let steps = snapshot.env_steps;
        let due = match self.text.samples_asked {
            None => true,
            Some((at, then)) => steps > then && self.now - at >= SAMPLES_EVERY,
        };
        if due && view.stage >= TextStage::Reward && self.send(Command::ShowPolicy) {
            self.text.samples_asked = Some((self.now, steps));
        }
    }
}

/// Whether there are a supervised model and a policy to generate with.
pub(super) fn can_answer(snapshot: &Snapshot) -> bool {
    snapshot.text.as_ref().is_some_and(|view| view.stage >= TextStage::Reward) && snapshot.phase != Phase::Starting
}
