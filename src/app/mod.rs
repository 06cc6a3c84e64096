//! The desk, where a person judges. It shows two clips or two completions, a question, and beside them the progress of
//! the robot or the language model.
//!
//! [`run`] opens the window first and the lab in the background. [`Desk`] is everything that the window shows, over any
//! [`Link`](crate::lab::Link), so that a test can drive it through the accessibility tree without a window. The desk
//! reaches the work only through the lab's commands, events and snapshots. It keeps no record of its own: it shows the
//! latest snapshot, and an answer counts when the lab says that it is on disk.
//!
//! The files build on each other in this order, and never the other way; a test checks it:
//!
//! 1. What knows nothing of a [`Desk`]: `commands`, the table from which keys, menus, buttons and help derive;
//!    `viewport`, the only file that uses wgpu; the connection to a lab (`hold`); what is chosen and typed (`mode`,
//!    `draft`, `forms`, `method`, `inside_state`); `widgets`, `cells`, `style` and others.
//! 2. `desk`: the state, and what each command does to it.
//! 3. The views. Each draws a part of the desk: `question`, `completions`, `panel`, `chrome`, `overlays` and others.
//! 4. `layout`: which view goes where, for each mode.

mod cells;
mod chrome;
mod clock;
mod commands;
mod completions;
mod curves;
mod desk;
mod draft;
mod eye;
mod forms;
mod hold;
mod inside;
mod inside_attention;
mod inside_contributions;
mod inside_lens;
mod inside_moved;
mod inside_patching;
mod inside_state;
mod inside_swap;
mod layout;
mod lines;
mod method;
mod mode;
mod options;
mod overlays;
mod panel;
mod probe;
mod prompts;
mod question;
mod sampling;
mod style;
mod text_form;
mod text_panel;
mod text_tabs;
mod tokens;
mod transport;
mod viewport;
mod widgets;

pub use clock::{Clock, SPEEDS};
pub use commands::{DeskCommand, Menu, Spec};
pub use desk::Desk;
pub use mode::{ModeTab, TextTab};
pub use options::{DeskOptions, LabFactory, Repaint, TaskChoice};
pub use probe::{ProbePlan, ProbeReport};
pub use viewport::Adapter;

use std::sync::{Arc, Mutex, PoisonError};

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

/// Opens the desk and returns when it is closed, with everything that was learnt on disk. Returns the probe's report if
/// one was requested.
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
        // The pictures have their own noise-free shading, and egui's flat colours need no dithering.
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

/// The desk as an eframe app.
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

    /// The background of the whole desk. No panel paints its own, because a pixel that is only cleared costs nothing.
    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        visuals.extreme_bg_color.to_normalized_gamma_f32()
    }
}
