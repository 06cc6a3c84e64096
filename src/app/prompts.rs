//! The tab of text mode where a person edits the prompts that are asked about.

use super::desk::{Desk, Tone};
use super::draft::{read, written};
use super::style::{Palette, semibold};
use super::widgets::name_scroll_bar;
use crate::lab::{Command, TextView};
use egui::{Align, Button, FontId, Layout, RichText, ScrollArea, TextEdit, Ui, vec2};

/// A number of prompts in words.
fn prompts(n: usize) -> String {
    if n == 1 { "1 prompt".to_owned() } else { format!("{n} prompts") }
}

impl Desk {
    /// The editor of the prompts.
    pub(super) fn show_prompts(&mut self, ui: &mut Ui, view: &TextView) {
        let palette = Palette::of(ui.ctx());
        let draft = &mut self.text.draft;
        let count = read(&draft.text).len();
        ui.horizontal(|ui| {
            ui.label(RichText::new("Prompts that are asked about").font(FontId::new(17.0, semibold())));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                ui.label(RichText::new(prompts(count)).font(FontId::new(13.0, semibold())).color(palette.muted));
            });
        });
        let hint = "One prompt a line. A line break within a prompt is written \\n, a backslash \\\\.";
        ui.label(RichText::new(hint).small().color(palette.muted));
        ui.add_space(4.0);

        let height = (ui.available_height() - 48.0).max(80.0);
        let mut changed = false;
        ui.allocate_ui(vec2(ui.available_width(), height), |ui| {
            let scrolled = ScrollArea::vertical().id_salt("prompts").auto_shrink(false).show(ui, |ui| {
                let field = TextEdit::multiline(&mut draft.text)
                    .desired_width(f32::INFINITY)
                    .min_size(vec2(0.0, height - 4.0))
                    .background_color(palette.card)
                    .hint_text("One prompt a line");
                changed = ui.add(field).accessible_name("Prompts, one a line").changed();
            });
            name_scroll_bar(ui, &scrolled, "Scroll the prompts");
        });
        if changed {
            draft.edited = true;
            draft.refusal = None;
        }
        let (edited, refusal) = (draft.edited, draft.refusal);
        ui.add_space(4.0);
        let (mut take, mut cancel) = (false, false);
        ui.horizontal(|ui| {
            let text = RichText::new("Use these prompts");
            let button = match edited {
                true => Button::new(text.color(palette.on_accent)).fill(palette.accent),
                false => Button::new(text),
            };
            take = ui.add_enabled(edited, button).on_hover_text("From the next completions on").clicked();
            let back = ui.add_enabled(edited, Button::new("Cancel"));
            cancel = back.on_hover_text("Back to the prompts that are asked about now").clicked();
            if let Some(refusal) = refusal {
                ui.label(RichText::new(refusal).color(palette.warning));
            }
        });
        if take {
            self.use_prompts();
        } else if cancel {
            self.text.draft.revert(&view.prompts);
        }
    }

    fn use_prompts(&mut self) {
        let chosen = read(&self.text.draft.text);
        if chosen.is_empty() {
            self.text.draft.refusal = Some("There is no prompt: write at least one line.");
            return;
        }
        let n = chosen.len();
        let text = written(&chosen);
        if self.send(Command::SetPrompts(chosen)) {
            // What was sent stays on show until the lab's prompts change.
            self.text.draft.text = text;
            self.text.draft.edited = false;
            self.say(Tone::Info, format!("The next completions will answer {}.", prompts(n)));
        }
    }
}
