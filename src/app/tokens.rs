//! A completion as coloured text. The background of each token shows how much likelier teaching made it.

use super::style::Palette;
use super::widgets::mix;
use egui::text::{LayoutJob, TextFormat};
use egui::{
    Align, Align2, Color32, CornerRadius, FontFamily, FontId, Galley, Id, PopupAnchor, Rect, Response, RichText, Role,
    Sense, Tooltip, Ui, Vec2, WidgetInfo, pos2, vec2,
};
use flipside_core::Completion;
use std::sync::Arc;

/// |log π − log π_ref| at which a colour is strongest, nats: e² = 7.4 times as likely, or as unlikely.
const SATURATION: f32 = 2.0;
/// Share of the side's colour in the strongest background. With more of it, the text could not be read.
const STRONGEST: f32 = 0.44;

/// The background of a token with this log-ratio, over a background of `base`: the left's colour if the token became
/// likelier, the right's if it became less likely.
pub(super) fn shade(palette: &Palette, base: Color32, log_ratio: f32) -> Color32 {
    let color = if log_ratio >= 0.0 { palette.left } else { palette.right };
    mix(base, color, STRONGEST * (log_ratio.abs() / SATURATION).min(1.0))
}

/// A stretch of text made of one or several tokens.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    text: String,
    /// log π − log π_ref, summed over its tokens, nats.
    log_ratio: f32,
    tokens: usize,
}

/// The text's spans. A token that adds nothing by itself, being part of a character, joins the one that completes it.
/// What is left over at the end is the token that ended the text.
fn spans(completion: &Completion) -> (Vec<Span>, Option<Span>) {
    let mut spans = Vec::new();
    let mut open: Option<Span> = None;
    for (index, piece) in completion.pieces.iter().enumerate() {
        let log_ratio = completion.log_ratios.get(index).copied().unwrap_or(0.0);
        let span = open.get_or_insert(Span { text: String::new(), log_ratio: 0.0, tokens: 0 });
        span.text.push_str(piece);
        span.log_ratio += log_ratio;
        span.tokens += 1;
        if !piece.is_empty() {
            spans.extend(open.take());
        }
    }
    (spans, open)
}

/// How a completion is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing {
    /// Font size, points.
    pub size: f32,
    /// The background that it is drawn on.
    pub ground: Color32,
    /// Whether log-ratios colour it.
    pub colours: bool,
}

/// A completion as laid-out text, and the log-ratio of each place in it.
pub(super) struct Written {
    pub galley: Arc<Galley>,
    /// Each span with its end, in characters of the whole text.
    ends: Vec<(usize, Span)>,
}

impl Written {
    /// Lays out `completion` in lines of `width`.
    pub fn new(ui: &Ui, completion: &Completion, writing: Writing, width: f32) -> Written {
        let palette = Palette::of(ui.ctx());
        let mut job = LayoutJob::default();
        job.wrap.max_width = width;
        let format = |color: Color32, size: f32, log_ratio: f32| TextFormat {
            line_height: Some((writing.size * 1.5).round()),
            background: match writing.colours && log_ratio != 0.0 {
                true => shade(&palette, writing.ground, log_ratio),
                false => Color32::TRANSPARENT,
            },
            expand_bg: 0.0,
            ..TextFormat::simple(FontId::new(size, FontFamily::Proportional), color)
        };
        let (spans, end) = spans(completion);
        let mut ends = Vec::new();
        let mut count = 0;
        for span in spans {
            job.append(&span.text, 0.0, format(palette.text, writing.size, span.log_ratio));
            count += span.text.chars().count();
            ends.push((count, span));
        }
        if completion.stopped {
            // The token that ended the text was chosen like any other, and teaching often changes it most.
            let end = end.unwrap_or(Span { text: String::new(), log_ratio: 0.0, tokens: 1 });
            let mark = " end ";
            let ink = if writing.colours { palette.text } else { palette.muted };
            let small = TextFormat { valign: Align::Center, ..format(ink, writing.size * 0.75, end.log_ratio) };
            job.append(mark, 6.0, small);
            count += mark.len();
            ends.push((count, Span { text: "the end".to_owned(), ..end }));
        }
        Written { galley: ui.painter().layout_job(job), ends }
    }

    /// The span at this place of the galley.
    fn at(&self, place: Vec2) -> Option<&Span> {
        let mut before = 0;
        for row in &self.galley.rows {
            let inside = place - row.pos.to_vec2();
            if (0.0..row.row.size.y).contains(&inside.y) {
                let glyphs = &row.row.glyphs;
                let hit = glyphs.iter().position(|g| (g.pos.x..g.pos.x + g.advance_width).contains(&inside.x))?;
                return self.ends.iter().find(|(end, _)| before + hit < *end).map(|(_, span)| span);
            }
            before += row.row.glyphs.len() + usize::from(row.ends_with_newline);
        }
        None
    }
}

/// Paints a completion, gives its text to screen readers, and shows the figure of the token under the pointer.
pub(super) fn show_written(ui: &mut Ui, written: &Written, spoken: &str) -> Response {
    let palette = Palette::of(ui.ctx());
    let (rect, response) = ui.allocate_exact_size(written.galley.size(), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, spoken));
    ui.painter().galley(rect.min, written.galley.clone(), palette.text);
    let pointer = ui.ctx().pointer_hover_pos().filter(|at| response.contains_pointer() && ui.clip_rect().contains(*at));
    if let Some(span) = pointer.and_then(|at| written.at(at - rect.min)) {
        let text = figure(span);
        let id = Id::unique("the token's figure");
        Tooltip::always_open(ui.ctx().clone(), ui.layer_id(), id, PopupAnchor::Pointer).gap(14.0).show(|ui| {
            ui.label(RichText::new(text));
        });
    }
    response
}

/// The text about the token under the pointer.
fn figure(span: &Span) -> String {
    let what = span.text.trim();
    let what = if what.is_empty() { "white space" } else { what };
    let tokens = if span.tokens > 1 { format!(" ({} tokens)", span.tokens) } else { String::new() };
    format!("{what}{tokens}: log-ratio {:+.2} nats", span.log_ratio)
}

/// The legend of a completion's colours: a strip with a label at each end.
pub(super) fn legend(ui: &mut Ui) {
    const STEPS: usize = 9;
    let palette = Palette::of(ui.ctx());
    let font = FontId::new(11.5, FontFamily::Proportional);
    let words = ["less likely", "likelier"].map(|word| {
        let galley = ui.painter().layout_no_wrap(word.to_owned(), font.clone(), palette.muted);
        (galley.size().x, galley)
    });
    let step = vec2(9.0, 12.0);
    let strip = step.x * STEPS as f32;
    let (rect, response) = ui.allocate_exact_size(vec2(words[0].0 + strip + words[1].0 + 14.0, 24.0), Sense::hover());
    response
        .widget_info(|| WidgetInfo::labeled(Role::Image, true, "Legend: from less likely, orange, to likelier, blue"));
    let [(width, less), (_, more)] = words;
    let top = rect.center().y - less.size().y * 0.5;
    ui.painter().galley(pos2(rect.left(), top), less, palette.muted);
    let left = rect.left() + width + 7.0;
    for index in 0..STEPS {
        let log_ratio = SATURATION * (2.0 * index as f32 / (STEPS - 1) as f32 - 1.0);
        let min = pos2(left + index as f32 * step.x, rect.center().y - step.y * 0.5);
        let color = shade(&palette, palette.card, log_ratio);
        ui.painter().rect_filled(Rect::from_min_size(min, step), CornerRadius::ZERO, color);
    }
    ui.painter().galley(pos2(left + strip + 7.0, top), more, palette.muted);
    response.on_hover_text(
        "log π − log π_ref of each token: how much likelier teaching made it. The colours are strongest from 2 nats, 7.4 times, on",
    );
}

/// A completion's length, and how it ended.
pub(super) fn length(completion: &Completion) -> String {
    let n = completion.tokens.len();
    let tokens = if n == 1 { "1 token".to_owned() } else { format!("{n} tokens") };
    if completion.stopped { format!("{tokens}, ended") } else { format!("{tokens}, cut") }
}

/// Text in the middle of a rectangle.
pub(super) fn note(ui: &Ui, rect: Rect, words: &str) {
    let ink = Palette::of(ui.ctx()).muted;
    ui.painter().text(rect.center(), Align2::CENTER_CENTER, words, FontId::new(13.0, FontFamily::Proportional), ink);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_make_one_character_are_one_span_and_the_end_is_its_own() {
        let completion = Completion {
            tokens: vec![1, 2, 3, 4, 0],
            pieces: ["so", "", "é", " good", ""].map(str::to_owned).to_vec(),
            log_ratios: vec![0.1, 0.25, 0.5, -1.0, 0.75],
            stopped: true,
            ..Completion::default()
        };
        let (spans, end) = spans(&completion);
        let seen: Vec<_> = spans.iter().map(|s| (s.text.as_str(), s.log_ratio, s.tokens)).collect();
        assert_eq!(seen, [("so", 0.1, 1), ("é", 0.75, 2), (" good", -1.0, 1)]);
        let end = end.unwrap();
        assert_eq!((end.text.as_str(), end.log_ratio), ("", 0.75));
        assert_eq!(figure(&spans[1]), "é (2 tokens): log-ratio +0.75 nats");
        assert_eq!(length(&completion), "5 tokens, ended");
    }

    #[test]
    fn words_can_be_read_on_every_colour() {
        for palette in [Palette::DARK, Palette::LIGHT] {
            for log_ratio in [-3.0, -1.0, 1.0, 3.0] {
                let ratio = super::super::style::contrast(palette.text, shade(&palette, palette.card, log_ratio));
                assert!(ratio >= 4.5, "at {log_ratio} nats the contrast is {ratio:.2}; WCAG AA asks for 4.5");
            }
        }
    }

    #[test]
    fn colours_are_strongest_from_two_nats_on_and_point_to_the_right_side() {
        for palette in [Palette::DARK, Palette::LIGHT] {
            let at = |x: f32| shade(&palette, palette.card, x);
            assert_eq!(at(0.0), palette.card);
            assert_eq!(at(2.0), at(9.0));
            assert_eq!(at(-2.0), mix(palette.card, palette.right, STRONGEST));
            assert_eq!(at(1.0), mix(palette.card, palette.left, STRONGEST / 2.0));
        }
    }
}
