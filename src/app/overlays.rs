//! What opens over the desk: the help window, the command palette, and the form for a new run.

use super::commands::{DeskCommand, Menu};
use super::desk::Desk;
use super::forms::NewRun;
use super::mode::ModeTab;
use super::panel::{mistake_slider, robot_picker, row, teacher_picker};
use super::style::{Palette, semibold};
use super::text_form::{self, show_text_fields, shows};
use super::widgets::name_scroll_bar;
use crate::lab::{TeacherKind, check_text_run};
use crate::settings::{Mode, RewardSource};
use egui::{
    Align2, Button, DragValue, FontId, Grid, Id, Key, Modal, Modifiers, RichText, ScrollArea, TextEdit, Ui, Window,
    vec2,
};

impl Desk {
    /// Everything that is open over the desk.
    pub(super) fn show_overlays(&mut self, ctx: &egui::Context) {
        self.show_help(ctx);
        self.show_palette(ctx);
        self.show_new_run(ctx);
    }

    fn show_help(&mut self, ctx: &egui::Context) {
        if !self.help_open {
            return;
        }
        let palette = Palette::of(ctx);
        let mut open = true;
        Window::new("Keys and commands")
            .open(&mut open)
            .collapsible(false)
            .resizable(false)
            .default_width(800.0)
            .anchor(Align2::CENTER_CENTER, vec2(0.0, 0.0))
            .show(ctx, |ui| {
                let how = match self.mode_tab() {
                    ModeTab::Control => {
                        "Two clips of the robot play side by side. Choose the better one: a reward model learns from your answers, \
                         and the robot learns from it. Drag a clip to look around it, scroll to come nearer."
                    }
                    ModeTab::Text => {
                        "Two completions of one prompt stand side by side. Choose the better one: a reward model learns from your \
                         answers, and the language model learns from it. Point at a token to see how far teaching moved it."
                    }
                };
                ui.label(RichText::new(how).color(palette.muted));
                ui.add_space(6.0);
                ui.columns_const(|[left, middle, right]: &mut [egui::Ui; 3]| {
                    for menu in Menu::ALL {
                        let ui = match menu {
                            Menu::Session | Menu::Answer => &mut *left,
                            Menu::Clip => &mut *middle,
                            Menu::Completion | Menu::View | Menu::Help => &mut *right,
                        };
                        ui.label(RichText::new(menu.title()).font(FontId::new(13.0, semibold())));
                        Grid::new(menu.title()).num_columns(2).min_col_width(64.0).spacing([10.0, 4.0]).show(ui, |ui| {
                            for command in DeskCommand::ALL.into_iter().filter(|command| command.spec().menu == menu) {
                                ui.label(RichText::new(command.key_text()).font(FontId::new(12.0, semibold())));
                                ui.label(command.spec().label).on_hover_text(command.spec().tooltip);
                                ui.end_row();
                            }
                        });
                        ui.add_space(10.0);
                    }
                });
            });
        let escaped = !ctx.any_popup_open() && ctx.input_mut(|input| input.consume_key(Modifiers::NONE, Key::Escape));
        self.help_open = open && !escaped;
    }

    fn show_palette(&mut self, ctx: &egui::Context) {
        let Some(mut state) = self.palette.take() else { return };
        let palette = Palette::of(ctx);
        let (down, up, enter) = ctx.input_mut(|input| {
            let mut take = |key| input.consume_key(Modifiers::NONE, key);
            (take(Key::ArrowDown), take(Key::ArrowUp), take(Key::Enter))
        });
        let mut given = None;
        let area = Modal::default_area(Id::unique("palette")).anchor(Align2::CENTER_TOP, vec2(0.0, 90.0));
        let modal = Modal::new(Id::unique("palette")).area(area).show(ctx, |ui| {
            ui.set_width(420.0);
            let field = TextEdit::singleline(&mut state.text).hint_text("Find a command…").desired_width(f32::INFINITY);
            let response = ui.add(field).accessible_name("Find a command");
            if response.changed() {
                state.chosen = 0;
            }
            response.request_focus();
            let matches: Vec<DeskCommand> = DeskCommand::ALL
                .into_iter()
                .filter(|command| *command != DeskCommand::Palette && self.can(*command))
                .filter(|command| is_subsequence(&state.text, command.spec().label))
                .collect();
            let last = matches.len().saturating_sub(1);
            state.chosen = match (down, up) {
                (true, false) => (state.chosen + 1).min(last),
                (false, true) => state.chosen.saturating_sub(1),
                _ => state.chosen.min(last),
            };
            ui.add_space(4.0);
            for (index, command) in matches.iter().take(12).enumerate() {
                let button = Button::new(command.spec().label)
                    .shortcut_text(command.key_text())
                    .selected(index == state.chosen)
                    .frame_when_inactive(index == state.chosen)
                    .min_size(vec2(ui.available_width(), 26.0));
                if ui.add(button).on_hover_text(command.spec().tooltip).clicked() || (enter && index == state.chosen) {
                    given = Some(*command);
                }
            }
            if matches.is_empty() {
                ui.label(RichText::new("No command is called that").color(palette.muted));
            }
        });
        if let Some(command) = given {
            self.queue.push(command);
        } else if !modal.should_close() {
            self.palette = Some(state);
        }
    }

    fn show_control_fields(&self, ui: &mut Ui, form: &mut NewRun) {
        let NewRun { settings, graphics, .. } = form;
        let Mode::Control(run) = &mut settings.mode else { return };
        row(ui, "Robot", |ui| {
            let (picked, response) = robot_picker(ui, "new robot", &self.tasks, &run.task);
            if let Some(choice) = picked {
                (run.task, settings.env_steps) = (choice.name, choice.env_steps);
            }
            response.accessible_name("Robot of the new run");
        });
        row(ui, "Learns from", |ui| {
            ui.radio_value(&mut run.reward, RewardSource::Preferences, "Judgements");
            ui.radio_value(&mut run.reward, RewardSource::True, "The task's reward");
        });
        if run.reward == RewardSource::Preferences {
            row(ui, "Teacher", |ui| {
                teacher_picker(ui, "new teacher", &mut settings.teacher, Some("the task's true return"))
            });
            if let TeacherKind::Mistaken { rate } = &mut settings.teacher {
                row(ui, "Mistakes", |ui| mistake_slider(ui, rate));
            }
            row(ui, "Answers", |ui| {
                ui.add(DragValue::new(&mut settings.labels).range(10..=5000).speed(5))
                    .accessible_name("Answers planned");
            });
        }
        if let Some(adapter) = graphics {
            row(ui, "Physics", |ui| {
                ui.radio_value(&mut run.backend, "lanes".to_owned(), "Processor");
                ui.radio_value(&mut run.backend, "shader".to_owned(), "Graphics").on_hover_text(&*adapter);
            });
        }
        row(ui, "Steps", |ui| {
            let mut thousands = settings.env_steps / 1000;
            let field = DragValue::new(&mut thousands).range(50..=100_000).speed(50).suffix(" thousand");
            if ui.add(field).accessible_name("Steps planned, in thousands").changed() {
                settings.env_steps = thousands * 1000;
            }
        });
    }

    fn show_new_run(&mut self, ctx: &egui::Context) {
        let Some(mut form) = self.new_run.take() else { return };
        let palette = Palette::of(ctx);
        let mut verdict = None;
        let modal = Modal::new(Id::unique("new run")).show(ctx, |ui| {
            let is_text = form.settings.text().is_some();
            ui.set_width(if is_text { 520.0 } else { 340.0 });
            ui.label(RichText::new("New run").font(FontId::new(17.0, semibold())));
            ui.label(
                RichText::new("The present run is saved first; its session folder stays.").small().color(palette.muted),
            );
            ui.add_space(6.0);
            // The buttons stay in sight whatever the window's height.
            let height = (ctx.content_rect().height() - 190.0).max(120.0);
            let scrolled = ScrollArea::vertical().id_salt("new run").max_height(height).show(ui, |ui| {
                match form.settings.mode {
                    Mode::Control(_) => self.show_control_fields(ui, &mut form),
                    Mode::Text(_) => show_text_fields(ui, &mut form),
                }
                let settings = &mut form.settings;
                let seed = |ui: &mut Ui| drop(ui.add(DragValue::new(&mut settings.seed)).accessible_name("Seed"));
                if is_text { text_form::name(ui, "Seed", seed) } else { row(ui, "Seed", seed) }
            });
            name_scroll_bar(ui, &scrolled, "Scroll the form");
            for (_, problem) in form.problems.iter().filter(|(name, _)| !shows(form.settings.text(), name)) {
                ui.label(RichText::new(problem).small().color(palette.warning));
            }
            if form.problems.iter().any(|(name, _)| shows(form.settings.text(), name)) {
                let words = "Nothing was started: see what is marked above.";
                ui.label(RichText::new(words).small().color(palette.warning));
            }
            ui.add_space(8.0);
            ui.horizontal(|ui| {
                let start = Button::new(RichText::new("Start run").color(palette.on_accent)).fill(palette.accent);
                if ui.add(start).clicked() {
                    verdict = Some(true);
                }
                if ui.button("Cancel").clicked() {
                    verdict = Some(false);
                }
            });
        });
        // What is in it decides its size only after it was drawn.
        if form.stood != modal.response.rect {
            form.stood = modal.response.rect;
            ctx.request_repaint();
        }
        match verdict {
            Some(true) => {
                let problems = form.settings.text().map(check_text_run).unwrap_or_default();
                match problems.is_empty() {
                    true => self.begin(form.settings),
                    false => self.new_run = Some(NewRun { problems, ..form }),
                }
            }
            Some(false) => {}
            None if modal.should_close() => {}
            None => self.new_run = Some(form),
        }
    }
}

/// Whether the typed letters occur in `label` in this order, ignoring case and white space.
fn is_subsequence(typed: &str, label: &str) -> bool {
    let mut rest = label.chars().flat_map(char::to_lowercase);
    typed.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).all(|c| rest.any(|r| r == c))
}

#[cfg(test)]
mod tests {
    use super::is_subsequence;

    #[test]
    fn the_palette_finds_by_letters_in_order() {
        for (typed, found) in [("", true), ("lb", true), ("LEFT b", true), ("bl", false), ("left better!", false)] {
            assert_eq!(is_subsequence(typed, "Left better"), found, "{typed}");
        }
    }
}
