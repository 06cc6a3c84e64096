//! Every command that a person can give the desk, as data. Keys, menus, buttons, the help window and the command
//! palette all derive from one table, so that none of them can contradict another.

use super::clock::SPEEDS;
use super::mode::{ModeTab, TextTab};
use egui::{Key, KeyboardShortcut, Modifiers};
use flipside_core::Choice;

/// One command from a person to the desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeskCommand {
    /// The left one is better.
    PickLeft,
    /// The right one is better.
    PickRight,
    /// The left one is much better.
    PickMuchLeft,
    /// The right one is much better.
    PickMuchRight,
    /// Both are equally good.
    Tie,
    /// Cannot tell.
    Skip,
    /// Take the last answer back.
    Undo,
    /// Play or pause the clips.
    TogglePlay,
    /// One frame back.
    StepBack,
    /// One frame forward.
    StepForward,
    /// Repeat the clips, or stop at their end.
    ToggleLoop,
    /// One of the speeds, an index into [`SPEEDS`].
    Speed(u8),
    /// Move the camera back to where it began.
    ResetCamera,
    /// Show a tab of text mode.
    ShowTab(TextTab),
    /// Colour tokens by their log-ratios, or not.
    ToggleColours,
    /// Look inside the models.
    Look,
    /// Stop looking.
    StopLooking,
    /// The next view of what is inside.
    NextView,
    /// Base, tuned or their difference.
    NextModel,
    /// Switch between teaching a robot and teaching a language model.
    Switch(ModeTab),
    /// Start or pause training.
    ToggleTraining,
    /// Set up another run.
    NewRun,
    /// Write a checkpoint.
    Save,
    /// Close the desk.
    Quit,
    /// Follow the system's light or dark.
    ThemeSystem,
    /// Always light.
    ThemeLight,
    /// Always dark.
    ThemeDark,
    /// Search the commands.
    Palette,
    /// Show every command and its key.
    Help,
}

/// The menus, in the order of the menu bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Menu {
    /// The run and its files.
    Session,
    /// The pair on show.
    Answer,
    /// The clips' clock.
    Clip,
    /// What text mode shows.
    Completion,
    /// What things look like.
    View,
    /// How to use the desk.
    Help,
}

impl Menu {
    /// All of them.
    pub const ALL: [Menu; 6] = [Menu::Session, Menu::Answer, Menu::Clip, Menu::Completion, Menu::View, Menu::Help];

    /// The menu's title.
    pub fn title(self) -> &'static str {
        match self {
            Menu::Session => "Session",
            Menu::Answer => "Answer",
            Menu::Clip => "Clip",
            Menu::Completion => "Completion",
            Menu::View => "View",
            Menu::Help => "Help",
        }
    }
}

/// A command's row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Sentence case, with `…` if more is asked before anything happens.
    pub label: &'static str,
    /// What it does, in a sentence.
    pub tooltip: &'static str,
    /// The menu that contains it.
    pub menu: Menu,
    /// Its key, if it has one.
    pub key: Option<KeyboardShortcut>,
}

impl DeskCommand {
    /// The whole table, in the order of the menus.
    pub const ALL: [DeskCommand; 40] = [
        DeskCommand::ToggleTraining,
        DeskCommand::NewRun,
        DeskCommand::Switch(ModeTab::Control),
        DeskCommand::Switch(ModeTab::Text),
        DeskCommand::Save,
        DeskCommand::Quit,
        DeskCommand::PickLeft,
        DeskCommand::PickRight,
        DeskCommand::PickMuchLeft,
        DeskCommand::PickMuchRight,
        DeskCommand::Tie,
        DeskCommand::Skip,
        DeskCommand::Undo,
        DeskCommand::TogglePlay,
        DeskCommand::StepBack,
        DeskCommand::StepForward,
        DeskCommand::ToggleLoop,
        DeskCommand::Speed(0),
        DeskCommand::Speed(1),
        DeskCommand::Speed(2),
        DeskCommand::Speed(3),
        DeskCommand::Speed(4),
        DeskCommand::Speed(5),
        DeskCommand::Speed(6),
        DeskCommand::ShowTab(TextTab::Compare),
        DeskCommand::ShowTab(TextTab::Samples),
        DeskCommand::ShowTab(TextTab::Ask),
        DeskCommand::ShowTab(TextTab::Prompts),
        DeskCommand::ShowTab(TextTab::Inside),
        DeskCommand::ToggleColours,
        DeskCommand::Look,
        DeskCommand::StopLooking,
        DeskCommand::NextView,
        DeskCommand::NextModel,
        DeskCommand::ResetCamera,
        DeskCommand::ThemeSystem,
        DeskCommand::ThemeLight,
        DeskCommand::ThemeDark,
        DeskCommand::Palette,
        DeskCommand::Help,
    ];

    /// The command's row of the table.
    pub fn spec(self) -> Spec {
        use DeskCommand as C;
        let plain = |key| Some(KeyboardShortcut::new(Modifiers::NONE, key));
        let shift = |key| Some(KeyboardShortcut::new(Modifiers::SHIFT, key));
        let ctrl = |key| Some(KeyboardShortcut::new(Modifiers::COMMAND, key));
        let row = |menu, label, tooltip, key| Spec { label, tooltip, menu, key };
        match self {
            C::PickLeft => row(
                Menu::Answer,
                "Left better",
                "The left one is better; with Shift, much better",
                plain(Key::ArrowLeft),
            ),
            C::PickRight => row(
                Menu::Answer,
                "Right better",
                "The right one is better; with Shift, much better",
                plain(Key::ArrowRight),
            ),
            C::PickMuchLeft => {
                row(Menu::Answer, "Left much better", "The left one is better by far", shift(Key::ArrowLeft))
            }
            C::PickMuchRight => {
                row(Menu::Answer, "Right much better", "The right one is better by far", shift(Key::ArrowRight))
            }
            C::Tie => row(Menu::Answer, "Tie", "Both are equally good", plain(Key::ArrowUp)),
            C::Skip => row(Menu::Answer, "Skip", "Cannot tell: this pair teaches nothing", plain(Key::ArrowDown)),
            C::Undo => row(Menu::Answer, "Undo", "Take the last answer back and ask it again", plain(Key::Z)),
            C::TogglePlay => row(Menu::Clip, "Play or pause", "Play or pause both clips", plain(Key::Space)),
            C::StepBack => row(Menu::Clip, "Step back", "Pause, and go one frame back", plain(Key::Comma)),
            C::StepForward => row(Menu::Clip, "Step forward", "Pause, and go one frame on", plain(Key::Period)),
            C::ToggleLoop => row(Menu::Clip, "Loop", "Begin again when the clips end", plain(Key::L)),
            C::Speed(rung) => {
                const ROWS: [(&str, Key); SPEEDS.len()] = [
                    ("Play at 1/8 speed", Key::Num1),
                    ("Play at 1/4 speed", Key::Num2),
                    ("Play at 1/3 speed", Key::Num3),
                    ("Play at 1/2 speed", Key::Num4),
                    ("Play at real speed", Key::Num5),
                    ("Play at 2× speed", Key::Num6),
                    ("Play at 4× speed", Key::Num7),
                ];
                let (label, key) = ROWS[usize::from(rung).min(ROWS.len() - 1)];
                row(Menu::Clip, label, "How fast the clips run, against the robot's own time", plain(key))
            }
            C::ResetCamera => row(Menu::View, "Reset camera", "Look from where the camera began", plain(Key::R)),
            C::ShowTab(tab) => {
                const ROWS: [(&str, &str, Key); TextTab::ALL.len()] = [
                    ("Compare two completions", "The pair that is asked about", Key::F2),
                    ("Then and now", "The same prompts, answered before teaching and now", Key::F3),
                    ("Free prompt", "Answer a prompt of your own with the model before teaching and now", Key::F4),
                    ("Edit the prompts", "See and change the prompts that are asked about", Key::F5),
                    ("Look inside the models", "See what teaching changed in the model, layer by layer", Key::F6),
                ];
                let (label, tooltip, key) = ROWS[tab as usize];
                row(Menu::Completion, label, tooltip, plain(key))
            }
            C::ToggleColours => row(
                Menu::Completion,
                "Colour tokens",
                "Show by colour how much likelier teaching made each token",
                plain(Key::C),
            ),
            C::Look => row(
                Menu::Completion,
                "Look inside",
                "Compare what both models compute for the prompt on the page Inside",
                None,
            ),
            C::StopLooking => {
                row(Menu::Completion, "Stop looking", "Keep what was found so far; Escape does it, too", None)
            }
            C::NextView => {
                row(Menu::Completion, "Next view inside", "Turn to the next view of the models", plain(Key::V))
            }
            C::NextModel => row(
                Menu::Completion,
                "Base, tuned or difference",
                "Show the other model inside, or the difference; in patching, the other direction",
                plain(Key::M),
            ),
            C::Switch(ModeTab::Control) => row(
                Menu::Session,
                "Teach a robot",
                "Save this run and go on with the latest of a robot, or begin one",
                ctrl(Key::Num1),
            ),
            C::Switch(ModeTab::Text) => row(
                Menu::Session,
                "Teach a language model",
                "Save this run and go on with the latest of a language model, or begin one",
                ctrl(Key::Num2),
            ),
            C::ToggleTraining => row(
                Menu::Session,
                "Start or pause training",
                "Training rests while paused; answers still count",
                plain(Key::T),
            ),
            C::NewRun => row(Menu::Session, "New run…", "Save this run and set up another", ctrl(Key::N)),
            C::Save => row(Menu::Session, "Save checkpoint", "Write all that was learnt to disk now", ctrl(Key::S)),
            C::Quit => row(Menu::Session, "Quit", "Save and close the desk", ctrl(Key::Q)),
            C::ThemeSystem => row(Menu::View, "Follow the system's theme", "Light or dark as the system says", None),
            C::ThemeLight => row(Menu::View, "Light theme", "Always light", None),
            C::ThemeDark => row(Menu::View, "Dark theme", "Always dark", None),
            C::Palette => row(Menu::Help, "Find a command…", "Type a few letters of what to do", ctrl(Key::K)),
            C::Help => row(Menu::Help, "Keys and commands", "Every command and its key", plain(Key::F1)),
        }
    }

    /// How the command's key is written; empty if it has none.
    pub fn key_text(self) -> String {
        let Some(shortcut) = self.spec().key else { return String::new() };
        let key = match shortcut.logical_key {
            Key::ArrowLeft => "←",
            Key::ArrowRight => "→",
            Key::ArrowUp => "↑",
            Key::ArrowDown => "↓",
            key => key.symbol_or_name(),
        };
        match (shortcut.modifiers, cfg!(target_os = "macos")) {
            (Modifiers::COMMAND, true) => format!("⌘{key}"),
            (Modifiers::COMMAND, false) => format!("Ctrl+{key}"),
            (Modifiers::SHIFT, true) => format!("⇧{key}"),
            (Modifiers::SHIFT, false) => format!("Shift+{key}"),
            _ => key.to_owned(),
        }
    }

    /// The command that a click gives: with Shift held, the one for much better.
    pub(super) fn clicked(self, ui: &egui::Ui) -> DeskCommand {
        match (self, ui.input(|input| input.modifiers.shift)) {
            (DeskCommand::PickLeft, true) => DeskCommand::PickMuchLeft,
            (DeskCommand::PickRight, true) => DeskCommand::PickMuchRight,
            _ => self,
        }
    }

    /// The answer that the command gives to the pair on show, if it gives one.
    pub fn choice(self) -> Option<Choice> {
        match self {
            DeskCommand::PickLeft => Some(Choice::Left),
            DeskCommand::PickRight => Some(Choice::Right),
            DeskCommand::PickMuchLeft => Some(Choice::MuchLeft),
            DeskCommand::PickMuchRight => Some(Choice::MuchRight),
            DeskCommand::Tie => Some(Choice::Tie),
            DeskCommand::Skip => Some(Choice::Skip),
            _ => None,
        }
    }

    /// The command of a key that was freshly pressed or repeats. A key held down steps through a clip, but never
    /// answers twice.
    fn of_key(key: Key, modifiers: Modifiers, repeat: bool) -> Option<DeskCommand> {
        let command = DeskCommand::ALL.into_iter().find(|command| {
            command.spec().key.is_some_and(|k| k.logical_key == key && modifiers.matches_exact(k.modifiers))
        })?;
        let steps = matches!(command, DeskCommand::StepBack | DeskCommand::StepForward);
        (steps || !repeat).then_some(command)
    }

    /// Takes the keys of commands out of the frame's input and returns their commands. While `typing` (a text field or
    /// a menu has the keyboard), only keys that never occur in text count.
    pub(super) fn take_keys(ctx: &egui::Context, typing: bool) -> Vec<DeskCommand> {
        let mut taken = Vec::new();
        ctx.input_mut(|input| {
            input.events.retain(|event| {
                let egui::Event::Key { key, modifiers, pressed: true, repeat, .. } = event else { return true };
                let bound = DeskCommand::of_key(*key, *modifiers, false).is_some();
                if !bound || (typing && !modifiers.command && !is_function_key(*key)) {
                    return true;
                }
                taken.extend(DeskCommand::of_key(*key, *modifiers, *repeat));
                false
            });
        });
        if !taken.is_empty() {
            // An arrow key that answered must not also move the keyboard's focus.
            ctx.memory_mut(|memory| memory.move_focus(egui::FocusDirection::None));
        }
        taken
    }
}

/// Whether the key never occurs in text.
fn is_function_key(key: Key) -> bool {
    (Key::F1..=Key::F35).contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_key_means_two_things_and_every_row_reads_well() {
        let mut keys = HashSet::new();
        let mut labels = HashSet::new();
        for command in DeskCommand::ALL {
            let spec = command.spec();
            assert!(labels.insert(spec.label), "two commands are called {:?}", spec.label);
            if spec.key.is_some() {
                assert!(keys.insert(command.key_text()), "{} is taken twice", command.key_text());
            }
            let mut letters = spec.label.chars();
            assert!(letters.next().is_some_and(char::is_uppercase), "{:?} is not in sentence case", spec.label);
            assert!(!spec.tooltip.ends_with('.') && !spec.tooltip.is_empty(), "{:?}", spec.tooltip);
        }
        let speeds = DeskCommand::ALL.iter().filter(|c| matches!(c, DeskCommand::Speed(_))).count();
        assert_eq!(speeds, SPEEDS.len());
    }

    #[test]
    fn a_held_key_answers_once() {
        assert_eq!(DeskCommand::of_key(Key::ArrowLeft, Modifiers::NONE, false), Some(DeskCommand::PickLeft));
        assert_eq!(DeskCommand::of_key(Key::ArrowLeft, Modifiers::NONE, true), None);
        assert_eq!(DeskCommand::of_key(Key::ArrowLeft, Modifiers::ALT, false), None);
        assert_eq!(DeskCommand::of_key(Key::Period, Modifiers::NONE, true), Some(DeskCommand::StepForward));
    }
}
