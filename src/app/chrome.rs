//! The menu bar above the desk and the status line below it.

use super::commands::{DeskCommand, Menu};
use super::desk::{Desk, Tone};
use super::mode::ModeTab;
use super::style::{Palette, RADIUS, semibold};
use super::widgets::{segment, tip};
use crate::lab::Phase;
use egui::{
    Align, Button, FontId, Label, Layout, Margin, Panel, RichText, Role, ThemePreference, Ui, WidgetInfo, vec2,
};

impl Desk {
    /// The menus, from the command table.
    pub(super) fn show_menu_bar(&mut self, ui: &mut Ui) {
        let palette = Palette::of(ui.ctx());
        let frame = egui::Frame::new().inner_margin(Margin::symmetric(12, 4));
        Panel::top("menu").frame(frame).show(ui, |ui| {
            egui::MenuBar::new().ui(ui, |ui| {
                ui.label(RichText::new("Flipside").font(FontId::new(14.0, semibold())).color(palette.text));
                ui.add_space(6.0);
                self.show_mode_switch(ui);
                ui.add_space(6.0);
                for menu in Menu::ALL {
                    ui.menu_button(menu.title(), |ui| self.show_menu(ui, menu));
                }
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    let find = DeskCommand::Palette;
                    let text = format!("{}   {}", find.spec().label, find.key_text());
                    let response = ui.add(Button::new(RichText::new(text).small().color(palette.muted)).frame(false));
                    if tip(response, find).clicked() {
                        self.queue.push(find);
                    }
                });
            });
        });
    }

    /// The switch in the menu bar.
    fn show_mode_switch(&mut self, ui: &mut Ui) {
        let palette = Palette::of(ui.ctx());
        let size = vec2(62.0, 24.0);
        let (strip, _) = ui.allocate_exact_size(vec2(size.x * 2.0, size.y), egui::Sense::hover());
        ui.painter().rect_filled(strip, RADIUS, palette.card);
        let present = self.mode_tab();
        for (index, mode) in ModeTab::ALL.into_iter().enumerate() {
            let rect = egui::Rect::from_min_size(strip.min + vec2(index as f32 * size.x, 0.0), size);
            let command = DeskCommand::Switch(mode);
            let response = segment(ui, ("mode", index), rect, mode.title(), mode.title(), mode == present);
            if tip(response, command).clicked() {
                self.queue.push(command);
            }
        }
    }

    fn show_menu(&mut self, ui: &mut Ui, menu: Menu) {
        ui.set_min_width(230.0);
        for command in DeskCommand::ALL.into_iter().filter(|command| command.spec().menu == menu) {
            let spec = command.spec();
            let mut button = Button::new(spec.label).shortcut_text(command.key_text());
            let checked = self.is_checked(ui, command);
            if let Some(checked) = checked {
                button = button.selected(checked);
            }
            let response = ui.add_enabled(self.can(command), button);
            // The shortcut is not part of the entry's name.
            response.widget_info(|| match checked {
                Some(checked) => WidgetInfo::selected(Role::MenuItemCheckBox, ui.is_enabled(), checked, spec.label),
                None => WidgetInfo::labeled(Role::MenuItem, ui.is_enabled(), spec.label),
            });
            if response.on_hover_text(spec.tooltip).clicked() {
                self.queue.push(command);
                ui.close();
            }
        }
    }

    /// Whether a command's state is on; `None` if the command has no state.
    fn is_checked(&self, ui: &Ui, command: DeskCommand) -> Option<bool> {
        let theme = ui.ctx().options(|options| options.theme_preference);
        match command {
            DeskCommand::ToggleLoop => Some(self.clock.looping),
            DeskCommand::Speed(rung) => Some(self.clock.speed == usize::from(rung)),
            DeskCommand::ShowTab(tab) => Some(self.mode_tab() == ModeTab::Text && self.text.tab == tab),
            DeskCommand::ToggleColours => Some(self.text.colours),
            DeskCommand::Switch(mode) => Some(self.mode_tab() == mode),
            DeskCommand::ThemeSystem => Some(theme == ThemePreference::System),
            DeskCommand::ThemeLight => Some(theme == ThemePreference::Light),
            DeskCommand::ThemeDark => Some(theme == ThemePreference::Dark),
            _ => None,
        }
    }

    /// The latest message in one sentence, and where the session is stored.
    pub(super) fn show_status_line(&mut self, ui: &mut Ui) {
        let palette = Palette::of(ui.ctx());
        let frame = egui::Frame::new().inner_margin(Margin::symmetric(14, 5));
        Panel::bottom("status").frame(frame).show(ui, |ui| {
            ui.set_min_height(18.0);
            ui.horizontal(|ui| {
                let (tone, text) = match self.standing_status() {
                    Some((tone, text)) => (tone, text.to_owned()),
                    None => (Tone::Info, self.resting_status()),
                };
                let color = match tone {
                    Tone::Info => palette.muted,
                    Tone::Warning => palette.warning,
                    Tone::Error => palette.error,
                };
                let width = (ui.available_width() - 260.0).max(100.0);
                ui.allocate_ui_with_layout(vec2(width, 18.0), Layout::left_to_right(Align::Center), |ui| {
                    ui.set_min_width(width);
                    let label = Label::new(RichText::new(&text).small().color(color)).truncate();
                    let response = ui.add(label);
                    if tone != Tone::Info {
                        response.on_hover_text(text);
                    }
                });
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    let Some(snapshot) = &self.snapshot else { return };
                    let name = snapshot.folder.file_name().unwrap_or(snapshot.folder.as_os_str()).to_string_lossy();
                    let label =
                        Label::new(RichText::new(format!("Session {name}")).small().color(palette.muted)).truncate();
                    ui.add(label).on_hover_text(snapshot.folder.display().to_string());
                });
            });
        });
    }

    fn resting_status(&self) -> String {
        let Some(snapshot) = &self.snapshot else { return String::new() };
        if let Some(view) = snapshot.text() {
            return match snapshot.phase {
                Phase::Starting if view.doing.is_empty() => "Getting the language model ready…".to_owned(),
                Phase::Starting => format!("{}…", view.doing),
                Phase::Training => String::new(),
                Phase::Waiting => {
                    "Training rests until you answer: the policy may not outrun your judgement.".to_owned()
                }
                Phase::Paused => "Training is paused; your answers still count.".to_owned(),
                Phase::Faulted => String::new(),
                Phase::Finished => "All stages are done; the models lie in the session's folder.".to_owned(),
            };
        }
        match snapshot.phase {
            Phase::Starting => "Making the first clips…".to_owned(),
            Phase::Training => String::new(),
            Phase::Waiting => "Training rests until you answer: the policy may not outrun your judgement.".to_owned(),
            Phase::Paused => "Training is paused; your answers still count.".to_owned(),
            Phase::Faulted => String::new(),
            Phase::Finished => "All planned steps are done; answering and replay still work.".to_owned(),
        }
    }
}
