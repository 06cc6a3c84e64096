//! The bar that controls the time of both clips: play, step, scrub, speed, loop.

use super::clock::SPEEDS;
use super::commands::DeskCommand;
use super::desk::Desk;
use super::style::{Palette, RADIUS};
use super::widgets::{Icon, icon_button, segment, tip};
use egui::{Align, Layout, Rect, RichText, Sense, Slider, Ui, UiBuilder, pos2, vec2};

impl Desk {
    /// The transport bar in its row.
    pub(super) fn show_transport(&mut self, ui: &mut Ui, rect: Rect) {
        let palette = Palette::of(ui.ctx());
        let enabled = self.can(DeskCommand::TogglePlay);
        ui.scope_builder(UiBuilder::new().max_rect(rect).layout(Layout::left_to_right(Align::Center)), |ui| {
            ui.spacing_mut().item_spacing.x = 2.0;
            let (icon, name) =
                if self.clock.playing { (Icon::Pause, "Pause clips") } else { (Icon::Play, "Play clips") };
            let buttons = [
                (DeskCommand::TogglePlay, icon, name, true, enabled),
                (DeskCommand::StepBack, Icon::StepBack, "Step back", false, enabled),
                (DeskCommand::StepForward, Icon::StepForward, "Step forward", false, enabled),
                (DeskCommand::ToggleLoop, Icon::Loop, "Loop", self.clock.looping, true),
            ];
            for (command, icon, name, on, enabled) in buttons {
                if icon_button(ui, command, icon, name, on, enabled) {
                    self.queue.push(command);
                }
            }
            ui.add_space(8.0);
            let figures = format!("{:.2} / {:.2} s", self.clock.time(), self.clock.duration());
            ui.allocate_ui_with_layout(vec2(84.0, 24.0), Layout::left_to_right(Align::Center), |ui| {
                ui.set_min_width(84.0);
                ui.label(RichText::new(figures).small().color(palette.muted));
            });
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                self.show_speeds(ui);
                ui.add_space(10.0);
                self.show_scrub(ui, enabled);
            });
        });
    }

    fn show_scrub(&mut self, ui: &mut Ui, enabled: bool) {
        let mut time = self.clock.time();
        let end = self.clock.duration().max(1e-3);
        ui.spacing_mut().slider_width = (ui.available_width() - 4.0).max(40.0);
        let slider = Slider::new(&mut time, 0.0..=end).show_value(false).smart_aim(false);
        let response = ui.add_enabled(enabled, slider).accessible_name("Clip position");
        if response.changed() {
            self.clock.playing = false;
            self.clock.seek(time);
        }
        // The arrow keys belong to the answers, even after scrubbing with the pointer.
        if response.has_focus() && ui.input(|input| input.pointer.any_released()) {
            response.surrender_focus();
        }
    }

    /// The speeds as one strip, right to left, as its row is laid out.
    fn show_speeds(&mut self, ui: &mut Ui) {
        let palette = Palette::of(ui.ctx());
        let step = vec2(31.0, 24.0);
        let (strip, _) = ui.allocate_exact_size(vec2(step.x * SPEEDS.len() as f32, step.y), Sense::hover());
        ui.painter().rect_filled(strip, RADIUS, palette.card);
        for (rung, (_, text)) in SPEEDS.iter().enumerate() {
            let command = DeskCommand::Speed(rung as u8);
            let rect = Rect::from_min_size(pos2(strip.left() + rung as f32 * step.x, strip.top()), step);
            let (chosen, name) = (self.clock.speed == rung, command.spec().label);
            let response = segment(ui, ("speed", rung), rect, &format!("{text}×"), name, chosen);
            if tip(response, command).clicked() {
                self.queue.push(command);
            }
        }
    }
}
