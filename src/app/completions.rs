//! The tab of text mode where a person compares: the prompt, two completions and the question about them, or the
//! progress of the models that will write them.

use super::commands::DeskCommand;
use super::desk::Desk;
use super::mode::ModeTab;
use super::question::{ANSWERS, HEADER, View};
use super::style::{CARD_RADIUS, GAP, Palette, semibold};
use super::tokens::{Writing, Written, length, note, show_written};
use super::viewport::Slot;
use super::widgets::{chip, count, duration, meter, name_scroll_bar};
use crate::lab::{Phase, Snapshot, TeacherKind, TextStage, TextView};
use egui::{
    Align, Align2, CornerRadius, CursorIcon, FontFamily, FontId, Layout, Rect, RichText, Role, ScrollArea, Sense,
    Stroke, StrokeKind, TextStyle, Ui, UiBuilder, WidgetInfo, pos2, vec2,
};
use flipside_core::Completion;
use std::sync::Arc;

/// Inner margin of a card of text, points.
const INSET: f32 = 16.0;
/// Font size of the texts that are compared, points.
const READING: f32 = 15.0;

impl Desk {
    /// The pair and its question, or what is trained until there is one.
    pub(super) fn show_comparison(&mut self, ui: &mut Ui, snapshot: &Snapshot, view: &TextView) {
        let pair = self.shown.as_ref().and_then(|shown| shown.pair.completions());
        let Some(completions) = pair.map(|pair| pair.map(Arc::clone)) else {
            let headline = match view.stage {
                _ if snapshot.phase == Phase::Finished => "All stages are done: there is nothing to answer",
                TextStage::Base => "The base model learns the language…",
                TextStage::Supervised => "The supervised model learns to answer…",
                _ => self.headline(
                    snapshot.teacher == TeacherKind::Person,
                    "Writing the first completions…",
                    "Which completion is better?",
                ),
            };
            return self.show_progress(ui, snapshot, view, headline);
        };
        let asks = snapshot.teacher == TeacherKind::Person;
        let whole = ui.available_rect_before_wrap();
        let header = Rect::from_min_size(whole.min, vec2(whole.width(), HEADER));
        let answers = Rect::from_min_max(
            pos2(whole.left(), whole.bottom() - if asks { ANSWERS } else { 0.0 }),
            whole.right_bottom(),
        );
        self.show_header(ui, header, self.headline(asks, "", "Which completion is better?"));

        // Both completions answer the same prompt.
        let most = (answers.top() - header.bottom()) * 0.34;
        let bottom = show_prompt(ui, header.left_bottom(), whole.width(), most, &completions[0].prompt);
        let cards = Rect::from_min_max(pos2(whole.left(), bottom + GAP), pos2(whole.right(), answers.top() - 4.0));
        let width = (cards.width() - GAP) * 0.5;
        for (side, completion) in completions.iter().enumerate() {
            let x = if side == 0 { cards.left() } else { cards.right() - width };
            let rect = Rect::from_min_size(pos2(x, cards.top()), vec2(width, cards.height()));
            self.show_completion(ui, rect, side, completion);
        }
        if asks {
            self.show_answers(ui, answers);
        }
    }

    /// One of the two completions, as a card that is chosen by a click.
    fn show_completion(&mut self, ui: &mut Ui, rect: Rect, side: usize, completion: &Completion) {
        let palette = Palette::of(ui.ctx());
        let open = self.open_pair().is_some();
        let view = View {
            slot: [Slot::Left, Slot::Right][side],
            rect,
            name: ["Left completion: click to choose it", "Right completion: click to choose it"][side],
            clickable: open,
        };
        let id = ui.scope_id().with(("completion", side));
        let response = ui.interact(rect, id, if open { Sense::click() } else { Sense::hover() });
        let role = if open { Role::Button } else { Role::GenericContainer };
        response.widget_info(|| WidgetInfo::labeled(role, ui.is_enabled(), view.name));
        if open && response.hovered() {
            ui.ctx().set_cursor_icon(CursorIcon::PointingHand);
        }
        ui.painter().rect_filled(rect, CornerRadius::same(CARD_RADIUS), palette.card);
        let inside = Rect::from_min_max(rect.min + vec2(INSET, 44.0), rect.max - vec2(INSET, 40.0));
        let writing = Writing { size: READING, ground: palette.card, colours: self.text.colours };
        let spoken = ["Left completion", "Right completion"][side];
        show_scrolled(ui, inside, (spoken, completion.id.0), spoken, |ui, width| {
            let written = Written::new(ui, completion, writing, width);
            show_written(ui, &written, &completion.text());
        });
        let font = FontId::new(11.5, FontFamily::Proportional);
        let foot = rect.left_bottom() + vec2(INSET, -12.0);
        ui.painter().text(foot, Align2::LEFT_BOTTOM, length(completion), font, palette.muted);
        self.dress(ui, &view, side, Some(completion.recorded_at), &response, "Click to choose");
        // The second click of a double click must not answer the pair that the first click brought.
        if open && response.clicked() && !response.double_clicked() {
            self.queue.push([DeskCommand::PickLeft, DeskCommand::PickRight][side].clicked(ui));
        }
    }

    /// The stages of the run: which are done, how far the present one is, and what is being done.
    pub(super) fn show_progress(&self, ui: &mut Ui, snapshot: &Snapshot, view: &TextView, headline: &str) {
        let palette = Palette::of(ui.ctx());
        let rect = ui.available_rect_before_wrap();
        ui.painter().rect_filled(rect, CornerRadius::same(CARD_RADIUS), palette.card);
        let width = (rect.width() - 48.0).min(520.0);
        let middle = Rect::from_center_size(rect.center(), vec2(width, (rect.height() - 24.0).min(350.0)));
        ui.scope_builder(UiBuilder::new().max_rect(middle), |ui| {
            // No spinner: a stage takes minutes, and constant repainting would slow its training.
            ui.label(RichText::new(headline).text_style(TextStyle::Heading).size(19.0));
            let doing = match snapshot.phase {
                Phase::Paused => "Training is paused.".to_owned(),
                Phase::Faulted => String::new(),
                _ if view.doing.is_empty() => String::new(),
                _ => format!("{}…", view.doing),
            };
            ui.label(RichText::new(doing).color(palette.muted));
            ui.add_space(14.0);
            let planned = self.hold.settings().text();
            let last = planned.map_or(TextStage::Ppo, |run| run.until);
            let path = if view.stage > TextStage::Ppo { view.stage } else { last }.path();
            for &stage in path {
                // A stage that the run does not train needs no line. A session that was opened by its folder does not
                // say which these are.
                if stage == view.stage || planned.is_none_or(|run| run.steps_of(stage) > 0) {
                    show_stage(ui, snapshot, view, stage);
                }
            }
        });
    }
}

/// A stage's name, and what happens in it.
pub(super) fn stage_words(stage: TextStage) -> (&'static str, &'static str) {
    match stage {
        TextStage::Base => ("Base model", "Learns the language from documents"),
        TextStage::Supervised => ("Supervised model", "Learns to answer prompts from demonstrations"),
        TextStage::Reward => ("Reward model", "Learns from your answers which completion is better"),
        TextStage::Ppo => ("Policy", "Follows the reward model by PPO, held near the supervised model"),
        TextStage::Preference => ("Policy", "Learns from your answers directly, held near the supervised model"),
        TextStage::Ilql => ("Policy", "Learns by ILQL which tokens lead to the better completions"),
        TextStage::OnlineDpo => ("Policy", "Writes, is judged and learns from that, held near the supervised model"),
    }
}

/// How far the present stage is, and how fast it goes.
pub(super) fn stage_figures(snapshot: &Snapshot, view: &TextView) -> (String, String) {
    let unit = if view.stage == TextStage::Ppo { "updates" } else { "steps" };
    let steps = format!("{} of {} {unit}", count(view.done as f64), count(view.of as f64));
    let words = match (snapshot.phase, snapshot.seconds_left) {
        (Phase::Starting, None) => "starting…".to_owned(),
        (Phase::Waiting, _) => "waiting for you".to_owned(),
        (Phase::Paused, _) => "paused".to_owned(),
        (Phase::Faulted, _) => "stopped by a fault".to_owned(),
        (Phase::Finished, _) => "done".to_owned(),
        (Phase::Starting | Phase::Training, Some(left)) if snapshot.env_steps_per_s > 0.0 => {
            format!("{}/s · {} left", pace(snapshot.env_steps_per_s), duration(left))
        }
        (Phase::Starting | Phase::Training, Some(left)) => format!("{} left", duration(left)),
        (Phase::Training, None) if snapshot.env_steps_per_s > 0.0 => {
            format!("{}/s", pace(snapshot.env_steps_per_s))
        }
        (Phase::Training, None) => String::new(),
    };
    (steps, words)
}

/// Formats steps per second. A language model makes few.
fn pace(per_second: f64) -> String {
    if per_second < 10.0 { format!("{per_second:.2}") } else { count(per_second) }
}

fn show_stage(ui: &mut Ui, snapshot: &Snapshot, view: &TextView, stage: TextStage) {
    let palette = Palette::of(ui.ctx());
    let (name, what) = stage_words(stage);
    let (ink, state) = match stage.cmp(&view.stage) {
        std::cmp::Ordering::Less => (palette.muted, "done".to_owned()),
        std::cmp::Ordering::Equal => (palette.text, stage_figures(snapshot, view).0),
        std::cmp::Ordering::Greater => (palette.muted, "to come".to_owned()),
    };
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).font(FontId::new(14.0, semibold())).color(ink));
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.label(RichText::new(state).small().color(palette.muted));
        });
    });
    ui.label(RichText::new(what).small().color(palette.muted));
    if stage == view.stage {
        let (steps, pace) = stage_figures(snapshot, view);
        meter(ui, name, &format!("{steps}, {pace}"), view.done as f32 / view.of.max(1) as f32, None, palette.accent);
        ui.label(RichText::new(pace).small().color(palette.muted));
    }
    ui.add_space(10.0);
}

/// The prompt on a card of its own, as high as needed and at most `most`. Returns the card's lower edge.
fn show_prompt(ui: &mut Ui, at: egui::Pos2, width: f32, most: f32, prompt: &str) -> f32 {
    let palette = Palette::of(ui.ctx());
    let font = FontId::new(14.0, FontFamily::Proportional);
    let galley = ui.painter().layout(prompt.to_owned(), font, palette.text, width - 2.0 * INSET - 8.0);
    let height = (galley.size().y + 42.0).min(most.max(64.0));
    let rect = Rect::from_min_size(at, vec2(width, height));
    let radius = CornerRadius::same(CARD_RADIUS);
    ui.painter().rect(rect, radius, palette.surface, Stroke::new(1.0, palette.line), StrokeKind::Inside);
    let small = FontId::new(11.5, semibold());
    ui.painter().text(rect.min + vec2(INSET, 9.0), Align2::LEFT_TOP, "Prompt", small, palette.muted);
    let inside = Rect::from_min_max(rect.min + vec2(INSET, 28.0), rect.max - vec2(INSET, 10.0));
    show_scrolled(ui, inside, ("prompt", 0), "prompt", |ui, _| {
        let (place, response) = ui.allocate_exact_size(galley.size(), Sense::hover());
        response.widget_info(|| WidgetInfo::labeled(Role::Label, true, prompt));
        ui.painter().galley(place.min, galley.clone(), palette.text);
    });
    rect.bottom()
}

/// Content that scrolls within `rect` if it is too long. It is given the width that it has.
pub(super) fn show_scrolled(
    ui: &mut Ui,
    rect: Rect,
    salt: (&str, u64),
    name: &str,
    content: impl FnOnce(&mut Ui, f32),
) {
    ui.scope_builder(UiBuilder::new().max_rect(rect), |ui| {
        let scrolled = ScrollArea::vertical().id_salt(salt).auto_shrink(false).show(ui, |ui| {
            // The width leaves space for the bar even if there is none, so that lines do not wrap anew when it appears.
            content(ui, rect.width() - 8.0);
        });
        name_scroll_bar(ui, &scrolled, &format!("Scroll the {}", name.to_lowercase()));
    });
}

impl Desk {
    /// What a tab shows while the models that it needs do not exist yet.
    pub(super) fn show_not_yet(&self, ui: &mut Ui, snapshot: &Snapshot, view: &TextView) {
        debug_assert_eq!(self.mode_tab(), ModeTab::Text, "only text mode has tabs");
        if view.stage < TextStage::Reward {
            self.show_progress(ui, snapshot, view, "There is nothing to compare before the supervised model is done");
        } else {
            let rect = ui.available_rect_before_wrap();
            ui.painter().rect_filled(rect, CornerRadius::same(CARD_RADIUS), Palette::of(ui.ctx()).card);
            note(ui, rect, "The models are getting ready…");
        }
    }

    /// A small heading, in the accent colour if `now`.
    pub(super) fn chip_of(&self, ui: &Ui, at: egui::Pos2, words: &str, now: bool) {
        let palette = Palette::of(ui.ctx());
        let (fill, ink) = if now { (palette.accent, palette.on_accent) } else { (palette.control, palette.text) };
        chip(ui.painter(), at, Align2::LEFT_TOP, words, fill, ink);
    }
}
