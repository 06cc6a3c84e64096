//! One frame of the desk: which view goes where, for each mode.

use super::desk::Desk;
use super::mode::ModeTab;
use super::style::GAP;
use super::widgets::name_scroll_bar;
use crate::lab::ModeView;
use egui::{CentralPanel, Frame, Margin, Panel, ScrollArea, Ui};
use std::time::Instant;

/// Width of the panel on the right, points.
const PANEL: f32 = 320.0;

impl Desk {
    /// One frame. The `Ui` has neither margin nor background.
    pub fn ui(&mut self, ui: &mut Ui) {
        let began = Instant::now();
        let ctx = ui.ctx().clone();
        self.begin_frame(&ctx);
        self.show_menu_bar(ui);
        self.show_status_line(ui);
        self.show_panel(ui);
        self.show_middle(ui);
        self.show_overlays(&ctx);
        self.finish_frame(&ctx, began);
    }

    /// The panel.
    fn show_panel(&mut self, ui: &mut Ui) {
        let frame = Frame::new().inner_margin(Margin::symmetric(14, 12));
        Panel::right("training").exact_size(PANEL).resizable(false).frame(frame).show(ui, |ui| {
            let scrolled = ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
                ui.set_width(PANEL - 29.0);
                let Some(snapshot) = self.snapshot.clone() else {
                    return match self.mode_tab() {
                        ModeTab::Control => self.show_choice_of_robot(ui),
                        ModeTab::Text => {}
                    };
                };
                match &snapshot.mode {
                    ModeView::Control(view) => self.show_control_panel(ui, &snapshot, view),
                    ModeView::Text(view) => self.show_text_panel(ui, &snapshot, view),
                }
            });
            name_scroll_bar(ui, &scrolled, "Scroll the training panel");
        });
    }

    /// The middle of the desk.
    fn show_middle(&mut self, ui: &mut Ui) {
        let frame = Frame::new().inner_margin(GAP);
        CentralPanel::default().frame(frame).show(ui, |ui| {
            if let Some(failure) = self.hold.failure().map(str::to_owned) {
                return self.show_failure(ui, &failure);
            }
            let Some(snapshot) = self.snapshot.clone() else {
                let words = match (self.hold.is_closing(), self.mode_tab()) {
                    (true, _) => "Saving the session…",
                    (false, ModeTab::Control) => "Getting the robot ready…",
                    (false, ModeTab::Text) => "Getting the language model ready…",
                };
                return self.show_waiting(ui, words);
            };
            match &snapshot.mode {
                ModeView::Control(view) if view.from_preferences => self.show_pair(ui, &snapshot),
                ModeView::Control(_) => self.show_only_policy(ui, &snapshot),
                ModeView::Text(view) => self.show_text(ui, &snapshot, view),
            }
        });
    }
}
