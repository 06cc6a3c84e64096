//! The language model before teaching and now: the same few prompts side by side, and a free prompt to both.

use super::completions::show_scrolled;
use super::desk::Desk;
use super::mode::can_answer;
use super::style::{CARD_RADIUS, GAP, Palette, semibold};
use super::tokens::{Writing, Written, length, note, show_written};
use super::widgets::number;
use crate::lab::{Snapshot, TextSample, TextView};
use egui::{
    Align2, Button, CornerRadius, FontFamily, FontId, Key, KeyboardShortcut, Modifiers, Rect, RichText, Role, Sense,
    Stroke, StrokeKind, TextEdit, Ui, UiBuilder, WidgetInfo, pos2, vec2,
};
use flipside_core::Completion;

/// Font size of the table, points.
const SMALL: f32 = 13.0;
/// Most rows of a prompt in the table. The rest shows under the pointer.
const PROMPT_ROWS: usize = 8;
/// Inner margin of the table and the cards, points.
const INSET: f32 = 14.0;

impl Desk {
    /// The table of samples.
    pub(super) fn show_samples(&mut self, ui: &mut Ui, snapshot: &Snapshot, view: &TextView) {
        let palette = Palette::of(ui.ctx());
        if view.samples.is_empty() {
            if !can_answer(snapshot) {
                return self.show_not_yet(ui, snapshot, view);
            }
            let rect = ui.available_rect_before_wrap();
            ui.painter().rect_filled(rect, CornerRadius::same(CARD_RADIUS), palette.card);
            return note(ui, rect, "Both models are writing…");
        }
        let whole = ui.available_rect_before_wrap();
        ui.painter().rect_filled(whole, CornerRadius::same(CARD_RADIUS), palette.card);
        let inner = whole.width() - 2.0 * INSET - 8.0;
        let prompt = (inner * 0.26).min(260.0);
        let answer = (inner - prompt - 2.0 * GAP) * 0.5;
        let columns = [(0.0, prompt), (prompt + GAP, answer), (prompt + answer + 2.0 * GAP, answer)];
        let heads = ["Prompt", "Before teaching", "Now"];
        for ((x, _), words) in columns.into_iter().zip(heads) {
            let at = whole.min + vec2(INSET + x, 10.0);
            ui.painter().text(at, Align2::LEFT_TOP, words, FontId::new(12.5, semibold()), palette.muted);
        }
        let top = whole.top() + 34.0;
        ui.painter().hline(whole.x_range().shrink(INSET), top, Stroke::new(1.0, palette.line));
        let inside = Rect::from_min_max(pos2(whole.left() + INSET, top + 1.0), whole.max - vec2(INSET, 8.0));
        let writing = Writing { size: SMALL, ground: palette.card, colours: self.text.colours };
        show_scrolled(ui, inside, ("samples", 0), "samples", |ui, width| {
            for sample in view.samples.iter() {
                show_row(ui, sample, writing, columns, width);
            }
        });
    }

    /// A field for a free prompt, and the answers of both models to the latest one.
    pub(super) fn show_free_prompt(&mut self, ui: &mut Ui, snapshot: &Snapshot, view: &TextView) {
        if !can_answer(snapshot) {
            return self.show_not_yet(ui, snapshot, view);
        }
        let palette = Palette::of(ui.ctx());
        let mut ask = false;
        ui.horizontal_top(|ui| {
            let field = TextEdit::multiline(&mut self.text.question)
                .desired_rows(3)
                .desired_width((ui.available_width() - 112.0).max(120.0))
                .background_color(palette.card)
                .return_key(KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter))
                .hint_text("A prompt for both models. Enter asks; Shift+Enter begins a new line.");
            // A long prompt must not push its answers out of the window.
            let response = egui::ScrollArea::vertical()
                .id_salt("free prompt")
                .max_height(110.0)
                .max_width((ui.available_width() - 104.0).max(120.0))
                .auto_shrink([true, true])
                .show(ui, |ui| ui.add(field).accessible_name("Free prompt, both models"));
            super::widgets::name_scroll_bar(ui, &response, "Scroll the free prompt");
            let enter = ui.input(|input| input.key_pressed(Key::Enter) && input.modifiers.is_none());
            ask = response.inner.has_focus() && enter;
            let ready = !self.text.question.trim().is_empty();
            let text = RichText::new("Ask both");
            let button = match ready {
                true => Button::new(text.color(palette.on_accent)).fill(palette.accent),
                false => Button::new(text),
            };
            let response = ui.add_enabled(ready, button.min_size(vec2(92.0, 30.0)));
            ask |= response.on_hover_text("The model before teaching and the model now answer this prompt").clicked();
        });
        if ask {
            self.ask();
        }
        ui.add_space(4.0);
        let writing = Writing { size: 15.0, ground: palette.card, colours: self.text.colours };
        let waits = self.text.sent.clone();
        let asked = view.asked.as_ref().filter(|_| waits.is_none());
        let prompt = waits.as_deref().or(asked.map(|asked| asked.prompt.as_str()));
        if let Some(prompt) = prompt {
            let line = prompt.replace('\n', " ");
            ui.add(egui::Label::new(RichText::new(line).color(palette.muted)).truncate()).on_hover_text(prompt);
        }
        let rest = ui.available_rect_before_wrap();
        let width = (rest.width() - GAP) * 0.5;
        for (side, (words, what)) in [("Before teaching", "before"), ("Now", "now")].into_iter().enumerate() {
            let left = if side == 0 { rest.left() } else { rest.right() - width };
            let rect = Rect::from_min_size(pos2(left, rest.top()), vec2(width, rest.height()));
            let radius = CornerRadius::same(CARD_RADIUS);
            ui.painter().rect(rect, radius, palette.card, Stroke::new(1.0, palette.line), StrokeKind::Inside);
            self.chip_of(ui, rect.min + vec2(10.0, 10.0), words, side == 1);
            let inside = Rect::from_min_max(rect.min + vec2(INSET, 44.0), rect.max - vec2(INSET, 36.0));
            let Some(asked) = asked else {
                match &waits {
                    Some(_) => note(ui, rect, "Waiting for the first words…"),
                    None => note(ui, rect, "Nothing was asked yet"),
                }
                continue;
            };
            let completion = if side == 0 { &asked.before } else { &asked.now };
            let name = ["Answer before teaching", "Answer now"][side];
            let coloured = Writing { colours: writing.colours && side == 1, ..writing };
            show_scrolled(ui, inside, (what, 0), name, |ui, width| {
                let written = Written::new(ui, completion, coloured, width);
                show_written(ui, &written, &completion.text());
            });
            let streams = !asked.complete && !completion.stopped;
            let foot = if streams { "writing…".to_owned() } else { figures(completion) };
            let at = rect.left_bottom() + vec2(INSET, -12.0);
            let font = FontId::new(11.5, FontFamily::Proportional);
            ui.painter().text(at, Align2::LEFT_BOTTOM, foot, font, palette.muted);
        }
    }
}

/// Length, ending and, if it is known, gold score.
fn figures(completion: &Completion) -> String {
    match completion.gold {
        Some(gold) => format!("{} · gold {}", length(completion), number(gold)),
        None => length(completion),
    }
}

/// One prompt with both answers. `columns` are left edges and widths.
fn show_row(ui: &mut Ui, sample: &TextSample, writing: Writing, columns: [(f32, f32); 3], width: f32) {
    let palette = Palette::of(ui.ctx());
    let mut prompt = egui::text::LayoutJob::simple(
        sample.prompt.clone(),
        FontId::new(SMALL, FontFamily::Proportional),
        palette.muted,
        columns[0].1,
    );
    prompt.wrap.max_rows = PROMPT_ROWS;
    let prompt = ui.painter().layout_job(prompt);
    let plain = Writing { colours: false, ..writing };
    let answers = [(&sample.before, plain), (&sample.now, writing)]
        .map(|(completion, writing)| (Written::new(ui, completion, writing, columns[1].1), completion));
    let tallest = answers.iter().map(|(written, _)| written.galley.size().y).fold(prompt.size().y - 20.0, f32::max);
    let (row, response) = ui.allocate_exact_size(vec2(width, tallest + 44.0), Sense::hover());
    if !ui.is_rect_visible(row) {
        return;
    }
    let top = row.top() + 10.0;
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &sample.prompt));
    if prompt.elided {
        response.on_hover_text(&sample.prompt);
    }
    ui.painter().galley(pos2(row.left(), top), prompt, palette.muted);
    for (index, (written, completion)) in answers.iter().enumerate() {
        let (x, width) = columns[index + 1];
        let at = pos2(row.left() + x, top);
        let cell = Rect::from_min_size(at, vec2(width, written.galley.size().y));
        // A child `Ui` allocates no space of its own. The row already has it.
        show_written(&mut ui.new_child(UiBuilder::new().max_rect(cell)), written, &completion.text());
        let foot = at + vec2(0.0, written.galley.size().y + 4.0);
        let words = if sample.complete || completion.stopped { figures(completion) } else { "writing…".to_owned() };
        let font = FontId::new(11.0, FontFamily::Proportional);
        ui.painter().text(foot, Align2::LEFT_TOP, words, font, palette.muted);
    }
    ui.painter().hline(row.x_range(), row.bottom(), Stroke::new(1.0, palette.line));
}
