//! The prompts that are asked about, as text that a person edits: one prompt per line.

use super::desk::{Desk, Tone};
use super::style::{Palette, semibold};
use super::widgets::name_scroll_bar;
use crate::lab::{Command, TextView};
use egui::{Align, Button, FontId, Layout, RichText, ScrollArea, TextEdit, Ui, vec2};
use std::sync::Arc;

/// The prompts as they are being edited.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub text: String,
    /// The prompts that the draft started from.
    source: Option<Arc<Vec<String>>>,
    edited: bool,
    /// Why the text was rejected.
    refusal: Option<&'static str>,
}

impl Draft {
    /// Shows the lab's prompts, unless the person has begun to edit them.
    pub fn follow(&mut self, prompts: &Arc<Vec<String>>) {
        let known = self.source.as_ref().is_some_and(|source| Arc::ptr_eq(source, prompts));
        if !self.edited && !known {
            self.revert(prompts);
        }
    }

    /// Goes back to the lab's prompts.
    fn revert(&mut self, prompts: &Arc<Vec<String>>) {
        *self = Draft { text: written(prompts), source: Some(prompts.clone()), edited: false, refusal: None };
    }
}

/// Prompts as lines. A line break within a prompt is written `\n`, and a backslash is doubled.
fn written(prompts: &[String]) -> String {
    let lines = prompts.iter().map(|prompt| prompt.replace('\\', "\\\\").replace('\n', "\\n"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The prompts in these lines. Empty lines are skipped.
fn read(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let unescaped = lines.map(|line| {
        let mut prompt = String::new();
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            if letter != '\\' {
                prompt.push(letter);
                continue;
            }
            match letters.next() {
                Some('n') => prompt.push('\n'),
                Some('\\') | None => prompt.push('\\'),
                Some(other) => prompt.extend(['\\', other]),
            }
        }
        prompt
    });
    unescaped.filter(|prompt| !prompt.trim().is_empty()).collect()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_come_back_from_their_lines() {
        let all = ["One", "Two\nlines", r"C:\new", "a \\ b", "ends with \\"].map(str::to_owned);
        assert_eq!(read(&written(&all)), all);
        assert_eq!(read(" \n\n  A \n\\n\n"), ["A"]);
        assert_eq!(read(r"50 \% of it"), [r"50 \% of it"]);
    }

    #[test]
    fn a_draft_follows_the_lab_until_it_is_edited() {
        let (first, second) = (Arc::new(vec!["A".to_owned()]), Arc::new(vec!["B".to_owned()]));
        let mut draft = Draft::default();
        draft.follow(&first);
        assert_eq!(draft.text, "A");
        draft.text = "C".to_owned();
        draft.follow(&first);
        assert_eq!(draft.text, "C", "what was sent must not flicker");
        draft.follow(&second);
        assert_eq!(draft.text, "B");
        draft.edited = true;
        draft.follow(&first);
        assert_eq!(draft.text, "B");
    }
}
