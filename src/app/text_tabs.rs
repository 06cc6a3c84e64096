//! The middle of the desk in text mode: its tabs, and the one that is open.

use super::commands::DeskCommand;
use super::desk::Desk;
use super::mode::TextTab;
use super::style::Palette;
use super::tokens::legend;
use super::widgets::tip;
use crate::lab::{Snapshot, TextView};
use egui::{Align, Button, Layout, Rect, RichText, Role, Ui, UiBuilder, WidgetInfo, pos2, vec2};

/// Height of the row of tabs, points.
const TABS: f32 = 38.0;

impl Desk {
    /// The middle of the desk in text mode.
    pub(super) fn show_text(&mut self, ui: &mut Ui, snapshot: &Snapshot, view: &TextView) {
        let whole = ui.available_rect_before_wrap();
        let tabs = Rect::from_min_size(whole.min - vec2(0.0, 6.0), vec2(whole.width(), TABS));
        let rest = Rect::from_min_max(pos2(whole.left(), tabs.bottom()), whole.max);
        self.show_text_tabs(ui, tabs);
        ui.scope_builder(UiBuilder::new().max_rect(rest), |ui| match self.text.tab {
            TextTab::Compare => self.show_comparison(ui, snapshot, view),
            TextTab::Samples => self.show_samples(ui, snapshot, view),
            TextTab::Ask => self.show_free_prompt(ui, snapshot, view),
            TextTab::Prompts => self.show_prompts(ui, view),
            TextTab::Inside => self.show_inside(ui, snapshot, view),
        });
    }

    fn show_text_tabs(&mut self, ui: &mut Ui, rect: Rect) {
        let palette = Palette::of(ui.ctx());
        ui.scope_builder(UiBuilder::new().max_rect(rect).layout(Layout::left_to_right(Align::Center)), |ui| {
            ui.spacing_mut().item_spacing.x = 4.0;
            for tab in TextTab::ALL {
                let (command, chosen) = (DeskCommand::ShowTab(tab), self.text.tab == tab);
                let ink = if chosen { palette.text } else { palette.muted };
                let response = ui.add(Button::selectable(chosen, RichText::new(tab.title()).color(ink)));
                response.widget_info(|| WidgetInfo::selected(Role::Tab, true, chosen, tab.title()));
                if tip(response, command).clicked() {
                    self.queue.push(command);
                }
            }
            if matches!(self.text.tab, TextTab::Prompts | TextTab::Inside) {
                return;
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let mut on = self.text.colours;
                let label = RichText::new(DeskCommand::ToggleColours.spec().label).small().color(palette.muted);
                if tip(ui.checkbox(&mut on, label), DeskCommand::ToggleColours).clicked() {
                    self.queue.push(DeskCommand::ToggleColours);
                }
                ui.add_space(8.0);
                // In a small window the tabs have priority.
                if self.text.colours && ui.available_width() > 190.0 {
                    legend(ui);
                }
            });
        });
    }
}
