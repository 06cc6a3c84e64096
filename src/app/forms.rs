//! What is typed and chosen in the windows over the desk, between frames.

use crate::settings::{Mode, RunSettings, TextRun, TextStage};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// What is typed in the palette, and which match is selected.
#[derive(Clone, Debug, Default)]
pub(super) struct PaletteState {
    pub text: String,
    pub chosen: usize,
}

/// A path that a run in text mode has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathField {
    Model,
    Adapter,
    Documents,
    Demonstrations,
    Prompts,
    Comparisons,
    RewardModel,
}

impl PathField {
    pub const ALL: [PathField; 7] = [
        PathField::Model,
        PathField::Adapter,
        PathField::Documents,
        PathField::Demonstrations,
        PathField::Prompts,
        PathField::Comparisons,
        PathField::RewardModel,
    ];

    /// Its name on the form, what stands in the empty field, what it is for screen readers, and whether it is a folder.
    pub fn words(self) -> (&'static str, &'static str, &'static str, bool) {
        match self {
            PathField::Model => ("Model", "The built-in one", "Folder of the model to begin with", true),
            PathField::Adapter => ("Adapter", "None", "Folder of an adapter to put on the model", true),
            PathField::Documents => {
                ("Documents", "The built-in grammar's", "File of documents: JSON lines with text", false)
            }
            PathField::Demonstrations => (
                "Demonstrations",
                "The built-in grammar's",
                "File of demonstrations: JSON lines with prompt and completion",
                false,
            ),
            PathField::Prompts => {
                ("Prompts", "Those of the demonstrations", "File of prompts: JSON lines with prompt", false)
            }
            PathField::Comparisons => (
                "Judged pairs",
                "None: only your answers count",
                "File of judged pairs: JSON lines with prompt, chosen and rejected",
                false,
            ),
            PathField::RewardModel => {
                ("Reward model", "Learned from the answers", "Folder of a finished reward model to use instead", true)
            }
        }
    }

    /// The setting's name.
    pub fn setting(self) -> &'static str {
        match self {
            PathField::Model => "text.model",
            PathField::Adapter => "text.adapter",
            PathField::Documents => "text.documents",
            PathField::Demonstrations => "text.demonstrations",
            PathField::Prompts => "text.prompts",
            PathField::Comparisons => "text.comparisons",
            PathField::RewardModel => "text.reward_model",
        }
    }

    fn of(self, run: &mut TextRun) -> &mut Option<PathBuf> {
        match self {
            PathField::Model => &mut run.model,
            PathField::Adapter => &mut run.adapter,
            PathField::Documents => &mut run.documents,
            PathField::Demonstrations => &mut run.demonstrations,
            PathField::Prompts => &mut run.prompts,
            PathField::Comparisons => &mut run.comparisons,
            PathField::RewardModel => &mut run.reward_model,
        }
    }
}

/// A file dialog that is open. It belongs to the system and runs on a thread of its own.
#[derive(Clone, Debug)]
pub(super) struct Dialog {
    pub field: PathField,
    /// What was picked, once the dialog is closed.
    picked: Arc<OnceLock<Option<PathBuf>>>,
}

/// A dialog that nobody filled in and one that the system could not show look alike from here.
const UNPICKED: &str =
    "Nothing was chosen. If no dialog appeared, install xdg-desktop-portal or zenity, or type the path here.";

impl Dialog {
    /// Opens a dialog at the path that is typed, if there is one.
    pub fn open(field: PathField, typed: &str, ctx: &egui::Context) -> Dialog {
        let (label, _, _, folder) = field.words();
        let dialog = Dialog { field, picked: Arc::default() };
        let mut ask = rfd::FileDialog::new().set_title(label);
        let typed = PathBuf::from(typed.trim());
        if let Some(start) = typed.ancestors().find(|path| path.is_dir()) {
            ask = ask.set_directory(start);
        }
        let (picked, ctx) = (dialog.picked.clone(), ctx.clone());
        let wait = move || {
            // Whatever becomes of the dialog, the form must not wait for it for ever.
            let answer = catch_unwind(AssertUnwindSafe(|| if folder { ask.pick_folder() } else { ask.pick_file() }));
            let _ = picked.set(answer.ok().flatten());
            ctx.request_repaint();
        };
        if std::thread::Builder::new().name("file dialog".to_owned()).spawn(wait).is_err() {
            let _ = dialog.picked.set(None);
        }
        dialog
    }
}

/// The form for a new run.
#[derive(Clone, Debug)]
pub(super) struct NewRun {
    pub settings: RunSettings,
    /// The paths of a run in text mode as typed, in the order of [`PathField::ALL`]; empty for none.
    pub typed: [String; PathField::ALL.len()],
    /// The linear maps that LoRA adapts, as typed.
    pub targets: String,
    /// The reward functions as typed, one a line.
    pub functions: String,
    pub dialog: Option<Dialog>,
    /// A dialog that brought nothing, and what to do.
    pub unpicked: Option<(PathField, &'static str)>,
    /// The graphics adapter that can step the physics, if there is one.
    pub graphics: Option<String>,
    /// Settings that were rejected, by name, and why.
    pub problems: Vec<(String, String)>,
    /// Where the window stood at the last frame. Until it stands still, another frame is drawn.
    pub stood: egui::Rect,
}

impl NewRun {
    /// Starts from the settings of the present run.
    pub fn like(settings: RunSettings) -> NewRun {
        let mut run = settings.text().cloned().unwrap_or_default();
        let typed = PathField::ALL.map(|field| field.of(&mut run).as_ref().map(|path| path.display().to_string()));
        let targets = run.lora.map(|lora| lora.targets.join(", ")).unwrap_or_default();
        let functions = run.reward_functions.join("\n");
        // Asked only once, because drivers take time to answer, and the form should open at once the next time.
        static GRAPHICS: OnceLock<Option<String>> = OnceLock::new();
        let graphics = GRAPHICS.get_or_init(|| {
            let adapter = flipside_view::adapters().into_iter().find(|adapter| adapter.computes)?;
            Some(if adapter.kind == "software" { format!("{}, a software driver", adapter.name) } else { adapter.name })
        });
        NewRun {
            settings,
            typed: typed.map(Option::unwrap_or_default),
            targets,
            functions,
            dialog: None,
            unpicked: None,
            graphics: graphics.clone(),
            problems: Vec::new(),
            stood: egui::Rect::NOTHING,
        }
    }

    /// Takes a path over from what is typed.
    pub fn set_path(&mut self, field: PathField) {
        let typed = self.typed[field as usize].trim();
        let path = (!typed.is_empty()).then(|| PathBuf::from(typed));
        self.problems.retain(|(name, _)| name != field.setting());
        self.unpicked.take_if(|(unpicked, _)| *unpicked == field);
        let Mode::Text(run) = &mut self.settings.mode else { return };
        *field.of(run) = path;
        match (&run.model, run.from) {
            // Without a model, a run starts from the built-in one, and an adapter has nothing to sit on.
            (None, _) => {
                run.adapter = None;
                run.from = run.first_stage();
            }
            (Some(_), TextStage::Base) => run.from = TextStage::Supervised,
            _ => {}
        }
        if run.model.is_none() {
            self.typed[PathField::Adapter as usize].clear();
        }
    }

    /// Takes what was picked in the dialog, if it has closed.
    pub fn take_picked(&mut self) {
        let closed = |dialog: &mut Dialog| dialog.picked.get().is_some();
        let Some(Dialog { field, picked }) = self.dialog.take_if(closed) else { return };
        match picked.get().cloned().flatten() {
            Some(path) => {
                self.typed[field as usize] = path.display().to_string();
                self.set_path(field);
            }
            None => self.unpicked = Some((field, UNPICKED)),
        }
    }
}
