//! The middle of the desk: two clips and the question about them, or what is shown while there is none.

use super::commands::DeskCommand;
use super::desk::{Desk, FLASH};
use super::eye::Eye;
use super::style::{CARD_RADIUS, GAP, Palette};
use super::viewport::{Shot, Slot};
use super::widgets::{answer_button, chip, count, main_button, round_corners};
use crate::lab::{Phase, Snapshot};
use egui::emath::GuiRounding as _;
use egui::{
    Align, Align2, CornerRadius, CursorIcon, FontFamily, FontId, Layout, PointerButton, Rect, Response, RichText, Role,
    Sense, Stroke, StrokeKind, TextStyle, Ui, UiBuilder, WidgetInfo, pos2, vec2,
};
use flipside_core::{Choice, Clip, PairReason};
use std::sync::Arc;

pub(super) const HEADER: f32 = 40.0;
const TRANSPORT: f32 = 40.0;
pub(super) const ANSWERS: f32 = 56.0;

/// A place for a 3D picture.
pub(super) struct View<'a> {
    pub slot: Slot,
    pub rect: Rect,
    /// Its accessible name.
    pub name: &'a str,
    /// Whether it can be clicked.
    pub clickable: bool,
}

impl Desk {
    /// A robot's pair and the question about it.
    pub(super) fn show_pair(&mut self, ui: &mut Ui, snapshot: &Snapshot) {
        let asks = snapshot.teacher == crate::lab::TeacherKind::Person;
        let [header, views, transport, answers] = rows(ui.available_rect_before_wrap(), asks);
        let headline = self.headline(asks, "Getting the first clips ready…", "Which one is better?");
        self.show_header(ui, header, headline);

        let width = (views.width() - GAP) * 0.5;
        let halves = [
            Rect::from_min_size(views.min, vec2(width, views.height())),
            Rect::from_min_size(pos2(views.right() - width, views.top()), vec2(width, views.height())),
        ];
        let open = self.open_pair().is_some();
        let clips = self.shown.as_ref().and_then(|shown| shown.pair.clips()).map(|clips| clips.map(Arc::clone));
        let time = self.clock.time() as f32;
        for (side, rect) in halves.into_iter().enumerate() {
            let view = View {
                slot: [Slot::Left, Slot::Right][side],
                rect,
                name: ["Left clip: click to choose it", "Right clip: click to choose it"][side],
                clickable: open,
            };
            let clip = clips.as_ref().map(|clips| clips[side].clone());
            let eye = self.eye;
            let (response, moved) = self.show_view(ui, &view, clip.as_ref(), time, eye);
            self.eye = moved;
            let hint = "Click to choose · drag to look around";
            self.dress(ui, &view, side, clip.as_ref().map(|clip| clip.recorded_at), &response, hint);
            if clip.is_none() {
                let ink = Palette::of(ui.ctx()).muted;
                let font = FontId::new(13.0, FontFamily::Proportional);
                ui.painter().text(rect.center(), Align2::CENTER_CENTER, "A clip is on its way…", font, ink);
            }
            // The second click of a double click must not answer the pair that the first click brought.
            if open && response.clicked() && !response.double_clicked() {
                self.queue.push([DeskCommand::PickLeft, DeskCommand::PickRight][side].clicked(ui));
            }
        }
        self.show_transport(ui, transport);
        if asks {
            self.show_answers(ui, answers);
        }
    }

    /// The policy at work, where the task's own reward needs no answers.
    pub(super) fn show_only_policy(&mut self, ui: &mut Ui, snapshot: &Snapshot) {
        let [header, mut views, transport, _] = rows(ui.available_rect_before_wrap(), false);
        self.show_header(ui, header, "The policy at work");
        views.max.y = transport.max.y;
        let clip = self.policy.clip.clone();
        let view = View { slot: Slot::Left, rect: views, name: "Current policy, running", clickable: false };
        let (time, eye) = (self.policy.clock.time() as f32, self.policy.eye);
        let (response, moved) = self.show_view(ui, &view, clip.as_ref(), time, eye);
        self.policy.eye = moved;
        self.frame_view(ui, &view, &response, None);
        let palette = Palette::of(ui.ctx());
        let note = match snapshot.phase {
            Phase::Starting => "Making the first steps…",
            _ => "Trained on the task's own reward: nothing to answer",
        };
        chip(
            ui.painter(),
            views.left_bottom() + vec2(10.0, -10.0),
            Align2::LEFT_BOTTOM,
            note,
            palette.surface,
            palette.muted,
        );
    }

    /// The question, or a simulated teacher's answer.
    pub(super) fn headline<'a>(&self, asks: bool, early: &'a str, question: &'a str) -> &'a str {
        if let (Some(_), Some(shown)) = (self.replayed, &self.shown) {
            return match shown.taught {
                Some(Choice::Left) => "You preferred the left",
                Some(Choice::Right) => "You preferred the right",
                Some(Choice::MuchLeft) => "You preferred the left by far",
                Some(Choice::MuchRight) => "You preferred the right by far",
                _ => "You called it a tie",
            };
        }
        match (&self.shown, asks) {
            (None, true) => early,
            (None, false) => "The simulated teacher is about to answer…",
            (Some(shown), false) => match shown.taught {
                Some(Choice::Left) => "The simulated teacher prefers the left",
                Some(Choice::Right) => "The simulated teacher prefers the right",
                Some(Choice::MuchLeft) => "The simulated teacher prefers the left by far",
                Some(Choice::MuchRight) => "The simulated teacher prefers the right by far",
                Some(Choice::Tie) => "The simulated teacher calls it a tie",
                Some(Choice::Skip) | None => "The simulated teacher answers",
            },
            (Some(_), true) => question,
        }
    }

    pub(super) fn show_header(&self, ui: &mut Ui, rect: Rect, headline: &str) {
        let palette = Palette::of(ui.ctx());
        ui.scope_builder(UiBuilder::new().max_rect(rect).layout(Layout::left_to_right(Align::Center)), |ui| {
            ui.label(RichText::new(headline).text_style(TextStyle::Heading).size(19.0));
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let Some(shown) = &self.shown else { return };
                let (reason, why) = match shown.pair.reason {
                    PairReason::Disagreement => (
                        "Asked because the reward models disagree",
                        "The members of the reward model disagree about which of these two is better, so your answer teaches them most",
                    ),
                    PairReason::Past => (
                        "Asked to compare now with then",
                        "One of these was judged before, the other is new: the answer puts old and new behaviour on one scale of reward",
                    ),
                    // Repeated pairs show no reason of their own. A person who knew of the repeat would answer from
                    // memory.
                    PairReason::Random | PairReason::Repeat => (
                        "Asked at random",
                        "Some pairs are drawn at random, so that no kind of behaviour goes unjudged; a few come again with left and right \
                         swapped, to measure how consistent the answers are",
                    ),
                };
                ui.label(RichText::new(reason).small().color(palette.muted)).on_hover_text(why);
            });
        });
    }

    /// One 3D view: handles input, turns the eye, and paints the picture or a plain ground in its place. Returns the
    /// eye's new state.
    pub(super) fn show_view(
        &mut self,
        ui: &mut Ui,
        view: &View<'_>,
        clip: Option<&Arc<Clip>>,
        time: f32,
        mut eye: Option<Eye>,
    ) -> (Response, Option<Eye>) {
        let &View { slot, rect, name, clickable } = view;
        let sense = if clickable { Sense::click_and_drag() } else { Sense::drag() };
        let response = ui.interact(rect, ui.scope_id().with(("3D view", slot as usize)), sense);
        let role = if clickable { Role::Button } else { Role::Image };
        response.widget_info(|| WidgetInfo::labeled(role, ui.is_enabled(), name));
        if let Some(camera) = eye.as_mut().map(|eye| &mut eye.camera) {
            if response.dragged_by(PointerButton::Primary) || response.dragged_by(PointerButton::Secondary) {
                let delta = response.drag_delta();
                camera.orbit(delta.x, delta.y);
                ui.ctx().set_cursor_icon(CursorIcon::Grabbing);
            } else if response.hovered() {
                ui.ctx().set_cursor_icon(if clickable { CursorIcon::PointingHand } else { CursorIcon::Grab });
                let (scroll, pinch) = ui.input(|input| (input.smooth_scroll_delta().y, input.zoom_delta()));
                camera.zoom(pinch * (scroll * 0.004).exp());
            }
        }
        let palette = Palette::of(ui.ctx());
        let radius = CornerRadius::same(CARD_RADIUS);
        // Whole pixels, so that the picture's pixels coincide with the screen's.
        let rect = rect.round_to_pixels(ui.pixels_per_point());
        let view = self.snapshot.as_ref().and_then(|snapshot| snapshot.control());
        let picture = clip.zip(eye).zip(view).and_then(|((clip, eye), view)| {
            let shot = Shot { clip: clip.clone(), time, camera: eye.camera, dark: ui.visuals().dark_mode };
            self.stage.picture(slot, rect, ui.pixels_per_point(), &view.scene, shot)
        });
        match picture {
            Some(shape) => {
                ui.painter().add(shape);
                round_corners(ui.painter(), rect, f32::from(CARD_RADIUS), palette.ground);
            }
            None => drop(ui.painter().rect_filled(rect, radius, palette.card)),
        }
        (response, eye)
    }

    /// The frame, the texts and the glow of one of the two compared items, which was made after `recorded_at` steps of
    /// training.
    pub(super) fn dress(
        &self,
        ui: &Ui,
        view: &View<'_>,
        side: usize,
        recorded_at: Option<u64>,
        response: &Response,
        hint: &str,
    ) {
        let palette = Palette::of(ui.ctx());
        self.frame_view(ui, view, response, Some(side));
        let Some(recorded_at) = recorded_at else { return };
        let inset = vec2(10.0, 10.0);
        let veil = palette.surface.gamma_multiply(0.85);
        chip(
            ui.painter(),
            view.rect.left_top() + inset,
            Align2::LEFT_TOP,
            ["Left", "Right"][side],
            palette.side(side),
            palette.on_accent,
        );
        let age = format!("from step {}", count(recorded_at as f64));
        chip(ui.painter(), view.rect.right_top() + vec2(-10.0, 10.0), Align2::RIGHT_TOP, &age, veil, palette.muted);

        let first = self.snapshot.as_ref().is_some_and(|snapshot| snapshot.labels == 0);
        if first && view.clickable && response.hovered() {
            let at = view.rect.center_bottom() - vec2(0.0, 10.0);
            chip(ui.painter(), at, Align2::CENTER_BOTTOM, hint, veil, palette.text);
        }
        if self.awaiting.is_some() && self.shown.as_ref().is_some_and(|shown| self.awaiting == Some(shown.pair.id)) {
            let at = view.rect.center_bottom() - vec2(0.0, 10.0);
            let late = self.flash.as_ref().is_none_or(|flash| self.now - flash.at > FLASH);
            if late {
                chip(ui.painter(), at, Align2::CENTER_BOTTOM, "Preparing the next pair…", veil, palette.text);
            }
        }
    }

    fn frame_view(&self, ui: &Ui, view: &View<'_>, response: &Response, side: Option<usize>) {
        let palette = Palette::of(ui.ctx());
        let radius = CornerRadius::same(CARD_RADIUS);
        let painter = ui.painter();
        painter.rect_stroke(view.rect, radius, Stroke::new(1.0, palette.line), StrokeKind::Inside);
        let Some(side) = side else { return };
        let color = palette.side(side);
        let taught = self.shown.as_ref().and_then(|shown| shown.taught);
        let chosen = |choice: Choice| match choice.target() {
            Some(target) => target == 0.5 || (target > 0.5) == (side == 0),
            None => false,
        };
        if taught.is_some_and(chosen) {
            painter.rect_stroke(view.rect, radius, Stroke::new(3.0, color), StrokeKind::Inside);
        }
        if view.clickable && (response.hovered() || response.has_focus()) {
            painter.rect_stroke(view.rect, radius, Stroke::new(2.0, color), StrokeKind::Inside);
        }
        if let Some(flash) = &self.flash {
            let age = (self.now - flash.at) / FLASH;
            if (0.0..1.0).contains(&age) && chosen(flash.choice) {
                let strength = 1.0 - age as f32;
                painter.rect_filled(view.rect, radius, color.gamma_multiply(0.16 * strength));
                painter.rect_stroke(
                    view.rect,
                    radius,
                    Stroke::new(5.0, color.gamma_multiply(strength)),
                    StrokeKind::Inside,
                );
            }
        }
    }

    pub(super) fn show_answers(&mut self, ui: &mut Ui, rect: Rect) {
        let palette = Palette::of(ui.ctx());
        let side = (rect.width() * 0.27).max(120.0);
        let small = (rect.width() - 2.0 * side - 4.0 * 8.0) / 3.0;
        let buttons = [
            (DeskCommand::PickLeft, side, Some(palette.left)),
            (DeskCommand::Tie, small, None),
            (DeskCommand::Skip, small, None),
            (DeskCommand::Undo, small, None),
            (DeskCommand::PickRight, side, Some(palette.right)),
        ];
        let mut x = rect.left();
        for (command, width, color) in buttons {
            let place = Rect::from_min_size(pos2(x, rect.top() + 4.0), vec2(width, rect.height() - 4.0));
            if answer_button(ui, place, command, color, self.can(command)) {
                self.queue.push(command.clicked(ui));
            }
            x += width + 8.0;
        }
    }

    /// What is shown until there is a lab.
    pub(super) fn show_waiting(&self, ui: &mut Ui, words: &str) {
        let palette = Palette::of(ui.ctx());
        let rect = ui.available_rect_before_wrap();
        ui.painter().rect_filled(rect, CornerRadius::same(CARD_RADIUS), palette.card);
        ui.scope_builder(UiBuilder::new().max_rect(rect), |ui| {
            ui.vertical_centered(|ui| {
                ui.add_space(rect.height() * 0.42);
                ui.add(egui::Spinner::new().size(28.0).color(palette.accent));
                ui.add_space(8.0);
                ui.label(RichText::new(words).font(FontId::new(16.0, FontFamily::Proportional)).color(palette.muted));
            });
        });
    }

    /// What is shown if no lab could be opened.
    pub(super) fn show_failure(&mut self, ui: &mut Ui, sentence: &str) {
        let palette = Palette::of(ui.ctx());
        let rect = ui.available_rect_before_wrap();
        ui.painter().rect_filled(rect, CornerRadius::same(CARD_RADIUS), palette.card);
        let middle = rect.shrink2(vec2(rect.width() * 0.2, rect.height() * 0.3));
        ui.scope_builder(UiBuilder::new().max_rect(middle), |ui| {
            ui.label(
                RichText::new("The session could not be opened").text_style(TextStyle::Heading).color(palette.error),
            );
            ui.add_space(6.0);
            ui.add(egui::Label::new(sentence).wrap().selectable(true));
            ui.add_space(12.0);
            ui.set_max_width(180.0);
            if main_button(ui, "Try again", true).clicked() {
                self.hold.replace(self.hold.settings().clone());
            }
        });
    }
}

/// Header, views, transport and answers, from the top.
fn rows(rect: Rect, answers: bool) -> [Rect; 4] {
    let slice = |top: f32, bottom: f32| Rect::from_min_max(pos2(rect.left(), top), pos2(rect.right(), bottom.max(top)));
    let below = if answers { ANSWERS } else { 0.0 };
    let header = rect.top() + HEADER - 6.0;
    let transport = rect.bottom() - below - TRANSPORT;
    [
        slice(rect.top() - 6.0, header),
        slice(header, transport - 4.0),
        slice(transport, transport + TRANSPORT),
        slice(rect.bottom() - below, rect.bottom()),
    ]
}
