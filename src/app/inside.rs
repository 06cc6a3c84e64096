//! The tab of text mode that looks inside the models: a prompt and two answers, the views, and the one that is open.

use super::cells::show_note;
use super::commands::DeskCommand;
use super::desk::Desk;
use super::inside_state::{Side, VIEWS};
use super::mode::can_look;
use super::style::{CARD_RADIUS, Palette, semibold};
use super::widgets::{count, meter, name_scroll_bar, number, segment, tip};
use crate::lab::{Inside, InsideField, InsideFound, InsideQuestion, InsideSeen, InsideView, Phase, Snapshot, TextView};
use egui::{
    Align, Button, CornerRadius, FontId, Key, KeyboardShortcut, Layout, Modifiers, Rect, RichText, Role, Sense,
    TextEdit, Ui, UiBuilder, WidgetInfo, pos2, vec2,
};

/// Width of a field for an answer, points.
const ANSWER: f32 = 132.0;
/// Width of one part of the switch, points.
const SIDE: f32 = 82.0;

impl Desk {
    /// The page.
    pub(super) fn show_inside(&mut self, ui: &mut Ui, snapshot: &Snapshot, view: &TextView) {
        if !can_look(snapshot) {
            return self.show_progress(
                ui,
                snapshot,
                view,
                "There is nothing to look into before the supervised model is being trained",
            );
        }
        let inside = view.inside.as_deref();
        self.show_inside_fields(ui, inside);
        self.show_inside_views(ui);
        self.show_inside_question(ui, snapshot, inside);
        let card = ui.available_rect_before_wrap();
        ui.painter().rect_filled(card, CornerRadius::same(CARD_RADIUS), Palette::of(ui.ctx()).card);
        let body = card.shrink2(vec2(14.0, 10.0));
        ui.scope_builder(UiBuilder::new().max_rect(body), |ui| {
            let seen = inside.and_then(|inside| Some((inside.question.clone()?, self.seen_inside(inside)?)));
            match seen {
                Some((question, seen)) => self.show_inside_view(ui, &question, &seen),
                None => {
                    show_note(ui, body, self.inside_note(snapshot, inside));
                    // Where there is no cell to open, Enter looks.
                    if self.text.inside.take_enter() && !self.is_looking() {
                        self.queue.push(DeskCommand::Look);
                    }
                }
            }
        });
    }

    fn show_inside_view(&mut self, ui: &mut Ui, question: &InsideQuestion, seen: &InsideSeen) {
        match &seen.found {
            InsideFound::Lens(lens) => self.show_lens(ui, question, lens),
            InsideFound::Contributions(both) => self.show_contributions(ui, question, both),
            InsideFound::Attention(both) => self.show_attention(ui, question, both),
            InsideFound::Patch(patch) => self.show_patching(ui, question, patch),
            InsideFound::Swap(swap) => self.show_swap(ui, swap),
            InsideFound::Moved(moved) => self.show_moved(ui, question, moved),
        }
    }

    /// What is said where there is nothing to see.
    fn inside_note(&self, snapshot: &Snapshot, inside: Option<&Inside>) -> &'static str {
        let refused = inside.is_some_and(|inside| self.text.inside.is_of(inside) && inside.refusal.is_some());
        match self.is_looking() {
            true if snapshot.phase == Phase::Training => "Looking… It begins between two steps of training",
            true => "Looking…",
            false if refused => "There is nothing to see",
            false => "Write a prompt and look: base is what training started from, tuned is what it has come to",
        }
    }

    /// The prompt, both answers and the button. A refusal is written under its field.
    fn show_inside_fields(&mut self, ui: &mut Ui, inside: Option<&Inside>) {
        let palette = Palette::of(ui.ctx());
        let (mut look, mut entered) = (false, false);
        let is_of = |inside: &&Inside| {
            let on_show = inside.request.view == self.text.inside.view() || inside.question.is_none();
            self.text.inside.is_of(inside) && on_show
        };
        let inside = inside.filter(is_of);
        let refusal = inside.and_then(|inside| inside.refusal.as_ref());
        let is_busy = self.is_looking();
        let under = |ui: &mut Ui, at: &[InsideField], width: f32| {
            if let Some((_, sentence)) = refusal.filter(|(field, _)| at.contains(field)) {
                ui.set_max_width(width);
                ui.label(RichText::new(sentence).small().color(palette.error));
            }
        };
        ui.horizontal_top(|ui| {
            let space = (ui.available_width() - 2.0 * (ANSWER + 8.0) - 98.0).max(160.0);
            ui.vertical(|ui| {
                ui.set_width(space);
                let field = TextEdit::multiline(&mut self.text.inside.prompt)
                    .desired_rows(1)
                    .desired_width(space - 8.0)
                    .background_color(palette.card)
                    .return_key(KeyboardShortcut::new(Modifiers::SHIFT, Key::Enter))
                    .hint_text("A prompt. Enter looks; Shift+Enter begins a new line.");
                // A long prompt must not push the views out of the window.
                let scrolled = egui::ScrollArea::vertical()
                    .id_salt("prompt to look into")
                    .max_height(92.0)
                    .auto_shrink([true, true])
                    .show(ui, |ui| ui.add(field).accessible_name("Prompt to look into"));
                name_scroll_bar(ui, &scrolled, "Scroll the prompt to look into");
                entered |= scrolled.inner.has_focus();
                under(ui, &[InsideField::Prompt, InsideField::Models], space);
            });
            for (side, name) in ["First answer", "Second answer"].into_iter().enumerate() {
                ui.vertical(|ui| {
                    ui.set_width(ANSWER);
                    let field = TextEdit::singleline(&mut self.text.inside.answers[side])
                        .desired_width(ANSWER - 8.0)
                        .background_color(palette.card)
                        .hint_text(if side == 0 { "rose most" } else { "fell most" });
                    let response = ui.add(field).accessible_name(name);
                    entered |= response.has_focus() || response.lost_focus();
                    response.on_hover_text(
                        "Two answers, with their space before them: the first tokens in which they differ are compared. \
                         If both are empty, it is the tokens that training raised and lowered most",
                    );
                    under(ui, &[InsideField::Answer(side)], ANSWER);
                });
            }
            let command = if is_busy { DeskCommand::StopLooking } else { DeskCommand::Look };
            let text = RichText::new(if is_busy { "Stop" } else { "Look" });
            let button = match is_busy {
                false => Button::new(text.color(palette.on_accent)).fill(palette.accent),
                true => Button::new(text),
            };
            let response = ui.add_enabled(self.can(command), button.min_size(vec2(82.0, 26.0)));
            if tip(response, command).clicked() {
                self.queue.push(command);
            }
            let enter = ui.input(|input| input.key_pressed(Key::Enter) && input.modifiers.is_none());
            look |= entered && enter;
        });
        if look {
            self.queue.push(DeskCommand::Look);
        }
    }

    /// The row of views, and the switch between base, tuned and difference where there is one.
    fn show_inside_views(&mut self, ui: &mut Ui) {
        let palette = Palette::of(ui.ctx());
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 4.0;
            for (view, title, what) in VIEWS {
                let chosen = self.text.inside.shows(view);
                let ink = if chosen { palette.text } else { palette.muted };
                let response = ui.add(Button::selectable(chosen, RichText::new(title).color(ink)));
                response.widget_info(|| WidgetInfo::selected(Role::Tab, true, chosen, title));
                if response.on_hover_text(what).clicked() {
                    self.text.inside.turn_to(view);
                }
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| match self.text.inside.view() {
                InsideView::Lens | InsideView::Contributions | InsideView::Attention => {
                    let parts = Side::ALL.map(|side| (side.title(), side.title()));
                    if let Some(place) = switch(ui, parts, self.text.inside.side as usize) {
                        self.text.inside.side = Side::ALL[place];
                    }
                }
                InsideView::PatchBase | InsideView::PatchTuned => {
                    let parts =
                        [("Into base", "Tuned activations into base"), ("Into tuned", "Base activations into tuned")];
                    if let Some(place) = switch(ui, parts, usize::from(self.text.inside.into_tuned)) {
                        self.text.inside.into_tuned = place == 1;
                    }
                }
                InsideView::Swap | InsideView::Moved => {}
            });
        });
    }

    /// What is compared, of which models, and how far the view is.
    fn show_inside_question(&mut self, ui: &mut Ui, snapshot: &Snapshot, inside: Option<&Inside>) {
        let palette = Palette::of(ui.ctx());
        let Some((inside, question)) = inside.and_then(|inside| Some((inside, inside.question.as_ref()?))) else {
            return;
        };
        let seen = self.seen_inside(inside);
        ui.horizontal(|ui| {
            ui.spacing_mut().interact_size.y = 18.0;
            let [first, second] = &question.compared;
            let [base, tuned] = question.differences;
            let words = format!("“{first}” − “{second}”");
            ui.label(RichText::new(words).font(FontId::new(13.0, semibold())))
                .on_hover_text("The logit of the first token less that of the second, after the prompt");
            let after = question.words.last().map_or("", String::as_str);
            let figures = format!("after “{after}”: base {}, tuned {}", number(base), number(tuned));
            ui.label(RichText::new(figures).small().color(palette.muted));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| match (&inside.progress, &seen) {
                (Some([done, of]), _) if inside.request.view == self.text.inside.view() => {
                    let size = vec2(150.0, 18.0);
                    let value = format!("{done} of {of} parts");
                    ui.allocate_ui(size, |ui| {
                        ui.set_width(size.x);
                        let share = *done as f32 / (*of).max(1) as f32;
                        meter(ui, "Looking", &value, share, None, palette.accent).on_hover_text(&value);
                    });
                    ui.label(RichText::new(value.clone()).small().color(palette.muted));
                }
                (_, Some(seen)) => {
                    let new = snapshot.env_steps > seen.steps;
                    let words = match (seen.complete, new) {
                        (false, _) => "stopped before the end".to_owned(),
                        (true, true) => format!("as of step {}; look again for now", count(seen.steps as f64)),
                        (true, false) => format!("as of step {}", count(seen.steps as f64)),
                    };
                    ui.label(RichText::new(words).small().color(palette.muted));
                }
                _ => {}
            });
        });
    }
}

/// A strip of options. `parts` are what is shown and what is read out. Returns the one that was clicked.
fn switch<const N: usize>(ui: &mut Ui, parts: [(&str, &str); N], chosen: usize) -> Option<usize> {
    let palette = Palette::of(ui.ctx());
    let (strip, _) = ui.allocate_exact_size(vec2(SIDE * N as f32, 26.0), Sense::hover());
    ui.painter().rect_filled(strip, CornerRadius::same(6), palette.control);
    let mut clicked = None;
    for (place, (text, name)) in parts.into_iter().enumerate() {
        let left = strip.left() + place as f32 * SIDE;
        let rect = Rect::from_min_size(pos2(left, strip.top()), vec2(SIDE, strip.height()));
        if segment(ui, ("inside", place), rect, text, name, place == chosen).clicked() {
            clicked = Some(place);
        }
    }
    clicked
}
