//! What is taught: a robot or a language model. Switching saves the present run and continues the latest one of the
//! other kind, so that a person can alternate between both without losing either.

use super::desk::Desk;
use super::prompts::Draft;
use super::style::Palette;
use super::widgets::segment;
use crate::lab::{Command, ModeView, Phase, Snapshot, TextStage, TextView};
use crate::settings::{Mode, RunSettings, TaskSpec, TextRun};
use egui::{Ui, vec2};

/// How often new samples are requested while they are on show and the policy learns, seconds.
const SAMPLES_EVERY: f64 = 10.0;

/// A tab of the switch in the menu bar: which mode the desk shows. Unlike [`Mode`] and [`ModeView`] it holds nothing of
/// a run, because a person can choose a mode that has no run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModeTab {
    /// A robot, by clips.
    Control,
    /// A language model, by completions.
    Text,
}

impl From<&Mode> for ModeTab {
    fn from(mode: &Mode) -> ModeTab {
        match mode {
            Mode::Control(_) => ModeTab::Control,
            Mode::Text(_) => ModeTab::Text,
        }
    }
}

impl From<&ModeView> for ModeTab {
    fn from(mode: &ModeView) -> ModeTab {
        match mode {
            ModeView::Control(_) => ModeTab::Control,
            ModeView::Text(_) => ModeTab::Text,
        }
    }
}

impl ModeTab {
    /// Both.
    pub const ALL: [ModeTab; 2] = [ModeTab::Control, ModeTab::Text];

    /// The tab's label.
    pub fn title(self) -> &'static str {
        ["Control", "Text"][self as usize]
    }

    /// The run to start if there is none of this kind to continue.
    fn first_run(self) -> RunSettings {
        match self {
            ModeTab::Control => RunSettings { env_steps: TaskSpec::UNHURRIED, ..RunSettings::default() },
            ModeTab::Text => RunSettings::of_text(TextRun::default()),
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

    /// Saves the present run and continues the latest one of `mode`, or starts one.
    pub(super) fn switch_to(&mut self, mode: ModeTab) {
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

    /// The switch in the menu bar.
    pub(super) fn show_mode_switch(&mut self, ui: &mut Ui) {
        let palette = Palette::of(ui.ctx());
        let size = vec2(62.0, 24.0);
        let (strip, _) = ui.allocate_exact_size(vec2(size.x * 2.0, size.y), egui::Sense::hover());
        ui.painter().rect_filled(strip, super::style::RADIUS, palette.card);
        let present = self.mode_tab();
        for (index, mode) in ModeTab::ALL.into_iter().enumerate() {
            let rect = egui::Rect::from_min_size(strip.min + vec2(index as f32 * size.x, 0.0), size);
            let command = super::DeskCommand::Switch(mode);
            let response = segment(ui, ("mode", index), rect, mode.title(), mode.title(), mode == present);
            if super::widgets::tip(response, command).clicked() {
                self.queue.push(command);
            }
        }
    }

    /// Requests new samples when they are due: when their tab is opened, and at intervals while the policy changes.
    pub(super) fn look_at_samples(&mut self, snapshot: &Snapshot, view: &TextView) {
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
    snapshot.text().is_some_and(|view| view.stage >= TextStage::Reward) && snapshot.phase != Phase::Starting
}
