//! The tabs of the desk, and what text mode keeps between frames.

use super::draft::Draft;
use super::inside_state::InsideState;
use crate::lab::{ModeView, Phase, Snapshot, TextStage};
use crate::settings::{Mode, RunSettings, TaskSpec, TextRun};

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
        ["Robots", "Text"][self as usize]
    }

    /// The run to start if there is none of this kind to continue.
    pub(super) fn first_run(self) -> RunSettings {
        match self {
            ModeTab::Control => RunSettings { env_steps: TaskSpec::UNHURRIED, ..RunSettings::default() },
            ModeTab::Text => RunSettings::of_text(TextRun::built_in()),
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
    /// What the models compute inside.
    Inside,
}

impl TextTab {
    /// All of them, from the left.
    pub const ALL: [TextTab; 5] = [TextTab::Compare, TextTab::Samples, TextTab::Ask, TextTab::Prompts, TextTab::Inside];

    /// The tab's label.
    pub fn title(self) -> &'static str {
        ["Compare", "Then and now", "Free prompt", "Prompts", "Inside"][self as usize]
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
    pub samples_asked: Option<(f64, u64)>,
    pub inside: InsideState,
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
            inside: InsideState::default(),
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

/// Whether there are a supervised model and a policy to generate with.
pub(super) fn can_answer(snapshot: &Snapshot) -> bool {
    snapshot.text().is_some_and(|view| view.stage >= TextStage::Reward) && snapshot.phase != Phase::Starting
}

/// Whether there are two models to look into: the one that training started from, and the one that it has come to.
pub(super) fn can_look(snapshot: &Snapshot) -> bool {
    snapshot.text().is_some_and(|view| view.stage >= TextStage::Supervised) && snapshot.phase != Phase::Starting
}
