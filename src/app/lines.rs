//! Lines over named places, such as the parts of a model. A place is chosen by the pointer and read by screen readers.

use super::cells::{show_tip, show_upright};
use super::style::Palette;
use super::widgets::number;
use egui::{
    Align2, Color32, CursorIcon, FontFamily, FontId, Pos2, Rect, Role, Sense, Shape, Stroke, StrokeKind, Ui,
    WidgetInfo, pos2, vec2,
};

/// One line.
pub(super) struct Series<'a> {
    pub name: &'a str,
    pub colour: Color32,
    /// One number for each place, as far as they are there.
    pub values: &'a [f32],
}

/// Lines to draw.
pub(super) struct Lines<'a> {
    /// What they are called.
    pub name: &'a str,
    /// The places' names.
    pub places: &'a [String],
    pub series: &'a [Series<'a>],
    /// Numbers to compare with, as dashed lines. Without them, 0 is one.
    pub levels: &'a [(&'a str, f32)],
    pub chosen: Option<usize>,
}

/// Points below the lines, for the places' names.
const FOOT: f32 = 78.0;
/// Points on the left, for the numbers.
const LEFT: f32 = 46.0;
/// Points above the lines, for the legend.
const HEAD: f32 = 22.0;

/// What a place says: its name and the number of each line.
fn spoken(lines: &Lines, place: usize) -> String {
    let values = lines.series.iter().filter_map(|series| {
        let value = series.values.get(place).filter(|value| value.is_finite())?;
        Some(format!("{} {}", series.name, signed(*value)))
    });
    format!("{}: {}", lines.places[place], values.collect::<Vec<_>>().join(", "))
}

/// A number with its sign.
pub(super) fn signed(value: f32) -> String {
    let text = number(f64::from(value));
    if value > 0.0 { format!("+{text}") } else { text.replacen('-', "−", 1) }
}

/// Draws lines in a rectangle and returns the place that was clicked.
pub(super) fn show_lines(ui: &mut Ui, whole: Rect, lines: &Lines) -> Option<usize> {
    let palette = Palette::of(ui.ctx());
    let rect = Rect::from_min_max(whole.min + vec2(LEFT, HEAD), whole.max - vec2(8.0, FOOT));
    let all = lines.series.iter().flat_map(|series| series.values.iter().copied());
    let zero: &[f32] = if lines.levels.is_empty() { &[0.0] } else { &[] };
    let fixed = lines.levels.iter().map(|(_, level)| *level).chain(zero.iter().copied());
    let all = all.chain(fixed).filter(|value| value.is_finite());
    let ends = (f32::INFINITY, f32::NEG_INFINITY);
    let (low, high) = all.fold(ends, |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = if high > low { (low, high) } else { (-1.0, 1.0) };
    let margin = 0.06 * (high - low);
    let y = |value: f32| rect.bottom() - (value - low + margin) / (high - low + 2.0 * margin) * rect.height();
    let step = rect.width() / lines.places.len().max(1) as f32;
    let x = |place: usize| rect.left() + (place as f32 + 0.5) * step;
    let small = FontId::new(11.0, FontFamily::Proportional);
    let painter = ui.painter().clone();

    for value in [low, high].into_iter().chain(zero.iter().copied()) {
        painter.hline(rect.x_range(), y(value), Stroke::new(1.0, palette.line));
        painter.text(
            pos2(rect.left() - 6.0, y(value)),
            Align2::RIGHT_CENTER,
            signed(value),
            small.clone(),
            palette.muted,
        );
    }
    for (name, level) in lines.levels {
        let ends = [pos2(rect.left(), y(*level)), pos2(rect.right(), y(*level))];
        painter.extend(Shape::dashed_line(&ends, Stroke::new(1.0, palette.muted), 5.0, 4.0));
        painter.text(ends[1] + vec2(0.0, -2.0), Align2::RIGHT_BOTTOM, name, small.clone(), palette.muted);
    }
    let mut clicked = None;
    for place in 0..lines.places.len() {
        let strip = Rect::from_x_y_ranges(x(place) - step * 0.5..=x(place) + step * 0.5, rect.top()..=whole.bottom());
        let chosen = lines.chosen == Some(place);
        let response = ui.interact(strip, ui.scope_id().with((lines.name, place)), Sense::CLICK);
        response.widget_info(|| WidgetInfo::selected(Role::Cell, true, chosen, spoken(lines, place)));
        if response.contains_pointer() || chosen {
            let ink = if chosen { palette.text } else { palette.muted };
            let column = Rect::from_x_y_ranges(strip.x_range(), rect.y_range());
            painter.rect_stroke(column, 2.0, Stroke::new(1.0, ink), StrokeKind::Inside);
        }
        if response.contains_pointer() {
            ui.ctx().set_cursor_icon(CursorIcon::PointingHand);
            show_tip(ui, |ui| drop(ui.label(spoken(lines, place))));
        }
        if response.clicked() {
            clicked = Some(place);
        }
    }
    let every = (13.0 / step).ceil().max(1.0) as usize;
    for (place, name) in lines.places.iter().enumerate().step_by(every) {
        show_upright(&painter, pos2(x(place), rect.bottom() + 6.0), name, palette.muted);
    }
    let mut at = whole.min + vec2(LEFT, 2.0);
    for series in lines.series {
        let points: Vec<Pos2> = series
            .values
            .iter()
            .enumerate()
            .filter(|(_, value)| value.is_finite())
            .map(|(place, value)| pos2(x(place), y(*value)))
            .collect();
        for point in &points {
            painter.circle_filled(*point, 2.5, series.colour);
        }
        painter.add(Shape::line(points, Stroke::new(1.6, series.colour)));
        painter.hline(at.x..=at.x + 14.0, at.y + 8.0, Stroke::new(2.0, series.colour));
        let label = painter.text(at + vec2(19.0, 0.0), Align2::LEFT_TOP, series.name, small.clone(), palette.text);
        at.x = label.right() + 16.0;
    }
    clicked
}
