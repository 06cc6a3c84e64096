//! The desk that a person sits at: two clips or two completions, a question, and beside them what the answers are making of the robot or
//! the language model.
//!
//! [`run`] opens the window first and the lab behind it; [`Desk`] is the whole of what the window shows, over any
//! [`Link`], so that a test drives it through the accessibility tree without a window. The desk reaches the work
//! through the lab's commands, events and snapshots alone. It keeps no record of its own: what it shows is the latest snapshot, and an
//! answer counts when the lab says that it is on disk.
//!
//! `commands` is the table from which keys, menus, buttons and help derive; `viewport` is the one file that touches wgpu.

mod chrome;
mod clock;
mod commands;
mod completions;
mod curves;
mod desk;
mod eye;
mod hold;
mod mode;
mod overlays;
mod panel;
mod probe;
mod prompts;
mod question;
mod sampling;
mod style;
mod text_panel;
mod tokens;
mod transport;
mod viewport;
mod widgets;

pub use clock::{Clock, SPEEDS};
pub use commands::{DeskCommand, Menu, Spec};
pub use desk::Desk;
pub use mode::{Mode, TextTab};
pub use probe::{ProbePlan, ProbeReport};
pub use viewport::Adapter;

use crate::lab::Link;
use crate::settings::RunSettings;
use std::sync::{Arc, Mutex, PoisonError};

/// Wakes the window up: a lab calls it when it has something new to show.
pub type Repaint = Arc<dyn Fn() + Send + Sync>;

/// Makes a lab for a run. Called on a thread of its own, because it may take seconds.
pub type LabFactory = Arc<dyn Fn(RunSettings, Repaint) -> anyhow::Result<Box<dyn Link>> + Send + Sync>;

/// A robot that the picker offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskChoice {
    /// What [`RunSettings::task`] takes, e.g. `hopper`.
    pub name: String,
    /// What a person reads, e.g. `Hopper`.
    pub title: String,
    /// Env steps of a run of it.
    pub env_steps: u64,
}

/// All that a desk needs.
pub struct DeskOptions {
    /// The run to begin or go on with.
    pub settings: RunSettings,
    /// Makes its lab, and those of later runs.
    pub make_lab: LabFactory,
    /// The robots there are.
    pub tasks: Vec<TaskChoice>,
    /// Answers and measures by itself, then closes, if set.
    pub probe: Option<ProbePlan>,
}

/// Why no window could be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// There is no display to open it on.
    #[error("there is no display to open a window on (neither WAYLAND_DISPLAY nor DISPLAY is set)")]
    NoDisplay,
    /// The display is there, but the window system or the graphics driver refused.
    #[error("the window could not be opened: {0}")]
    Window(String),
}

/// The window's size when it first opens, points.
const SIZE: [f32; 2] = [1280.0, 800.0];

/// Opens the desk and stays until it is closed, with all that was learnt on disk. The report is there if a probe was asked for.
pub fn run(options: DeskOptions) -> Result<Option<ProbeReport>, DeskError> {
    if !has_display() {
        return Err(DeskError::NoDisplay);
    }
    let report = Arc::new(Mutex::new(None));
    let findings = report.clone();
    let native = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("Flipside")
            .with_app_id("flipside")
            .with_inner_size(SIZE)
            .with_min_inner_size([900.0, 600.0]),
        wgpu_options: viewport::configuration(),
        // Every picture comes with its own noise-free shading; egui's flat colours need none.
        dithering: false,
        ..eframe::NativeOptions::default()
    };
    let opened = eframe::run_native(
        "flipside",
        native,
        Box::new(move |creation| {
            let desk = Desk::new(&creation.egui_ctx, options, creation.wgpu_render_state.as_ref());
            Ok(Box::new(Window { desk, report: findings }))
        }),
    );
    opened.map_err(|error| DeskError::Window(error.to_string()))?;
    let report = report.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(report)
}

/// Whether a window can be opened at all. Windows and macOS always have a display; elsewhere one must be named.
pub fn has_display() -> bool {
    let named = |variable: &str| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
    cfg!(any(windows, target_os = "macos")) || named("WAYLAND_DISPLAY") || named("WAYLAND_SOCKET") || named("DISPLAY")
}

/// The desk in eframe's hands.
struct Window {
    desk: Desk,
    report: Arc<Mutex<Option<ProbeReport>>>,
}

impl eframe::App for Window {
    fn raw_input_hook(&mut self, _: &egui::Context, input: &mut egui::RawInput) {
        self.desk.press_keys(input);
    }

    fn logic(&mut self, ctx: &egui::Context, _: &mut eframe::Frame) {
        self.desk.logic(ctx);
    }

    fn ui(&mut self, ui: &mut egui::Ui, _: &mut eframe::Frame) {
        self.desk.ui(ui);
        if let Some(report) = self.desk.take_report() {
            *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        }
    }

    /// The ground of the whole desk: no panel paints its own, because a pixel that is only cleared costs nothing.
    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        visuals.extreme_bg_color.to_normalized_gamma_f32()
    }
}
