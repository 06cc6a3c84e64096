//! What is typed and chosen in the windows over the desk, between frames.

use crate::settings::RunSettings;
use std::sync::OnceLock;

/// What is typed in the palette, and which match is selected.
#[derive(Clone, Debug, Default)]
pub(super) struct PaletteState {
    pub text: String,
    pub chosen: usize,
}

/// The form for a new run.
#[derive(Clone, Debug)]
pub(super) struct NewRun {
    pub settings: RunSettings,
    /// The folder of the language model to start from, as typed; empty for the built-in one.
    pub model: String,
    /// The graphics adapter that can step the physics, if there is one.
    pub graphics: Option<String>,
    /// Why the settings were rejected.
    pub refusal: Option<String>,
}

impl NewRun {
    /// Starts from the settings of the present run.
    pub fn like(settings: RunSettings) -> NewRun {
        let model = settings.text().and_then(|text| text.model.as_ref());
        let model = model.map(|folder| folder.display().to_string()).unwrap_or_default();
        // Asked only once, because drivers take time to answer, and the form should open at once the next time.
        static GRAPHICS: OnceLock<Option<String>> = OnceLock::new();
        let graphics = GRAPHICS.get_or_init(|| {
            let adapter = flipside_view::adapters().into_iter().find(|adapter| adapter.computes)?;
            Some(if adapter.kind == "software" { format!("{}, a software driver", adapter.name) } else { adapter.name })
        });
        let graphics = graphics.clone();
        NewRun { settings, model, graphics, refusal: None }
    }
}
