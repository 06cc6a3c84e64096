//! Tables of numbers as colours: the scale, its legend, and a table whose cells are chosen by the pointer, the keyboard
//! and screen readers.

use super::style::{CARD_RADIUS, Palette, semibold};
use super::widgets::{mix, name_scroll_bar, number};
use egui::epaint::TextShape;
use egui::{
    Align, Align2, Color32, CornerRadius, CursorIcon, FontFamily, FontId, Id, Label, Layout, Painter, PopupAnchor,
    Pos2, Rect, RichText, Role, ScrollArea, Sense, Stroke, StrokeKind, Tooltip, Ui, UiBuilder, Vec2, WidgetInfo, pos2,
    vec2,
};

/// How numbers become colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// From the ground at 0 to blue at this number.
    Sequential(f32),
    /// Blue above 0, orange below, strongest at this number on either side.
    Diverging(f32),
}

/// Share of the strongest colour under words, so that they can be read, and without words.
const UNDER_WORDS: f32 = 0.44;
const ALONE: f32 = 0.92;

impl Scale {
    /// From 0 to the largest of these numbers.
    pub fn sequential<'a>(values: impl IntoIterator<Item = &'a f32>) -> Scale {
        Scale::Sequential(most(values))
    }

    /// The same on both sides of 0.
    pub fn diverging<'a>(values: impl IntoIterator<Item = &'a f32>) -> Scale {
        Scale::Diverging(most(values))
    }

    /// The colour of a number; `None` for one that is not there yet.
    pub fn colour(self, palette: &Palette, value: f32, with_words: bool) -> Option<Color32> {
        let strongest = if with_words { UNDER_WORDS } else { ALONE };
        let share = |most: f32| strongest * (value.abs() / most).clamp(0.0, 1.0);
        let (side, share) = match self {
            Scale::Sequential(most) => (palette.left, if value > 0.0 { share(most) } else { 0.0 }),
            Scale::Diverging(most) if value < 0.0 => (palette.right, share(most)),
            Scale::Diverging(most) => (palette.left, share(most)),
        };
        value.is_finite().then(|| mix(palette.card, side, share))
    }

    fn ends(self) -> [f32; 2] {
        match self {
            Scale::Sequential(most) => [0.0, most],
            Scale::Diverging(most) => [-most, most],
        }
    }
}

/// The largest absolute value of those that are numbers, and 1 if there is none but 0.
fn most<'a>(values: impl IntoIterator<Item = &'a f32>) -> f32 {
    let most = values.into_iter().filter(|v| v.is_finite()).fold(0.0, |most: f32, v| most.max(v.abs()));
    if most > 0.0 { most } else { 1.0 }
}

/// The legend of a scale: a strip with a number at each end, and what they are.
pub(super) fn scale_legend(ui: &mut Ui, scale: Scale, with_words: bool, unit: &str) {
    const STEPS: usize = 24;
    let palette = Palette::of(ui.ctx());
    let font = FontId::new(11.5, FontFamily::Proportional);
    let [low, high] = scale.ends();
    let words = [number(f64::from(low)), format!("{} {unit}", number(f64::from(high)))];
    let spoken = format!("Colours from {} to {}", words[0], words[1]);
    let [low_words, high_words] = words.map(|words| ui.painter().layout_no_wrap(words, font.clone(), palette.muted));
    let (step, gap) = (vec2(3.0, 10.0), 6.0);
    let strip = step.x * STEPS as f32;
    let size = vec2(low_words.size().x + strip + high_words.size().x + 2.0 * gap, 18.0);
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, spoken.clone()));
    let top = rect.center().y - low_words.size().y * 0.5;
    let left = rect.left() + low_words.size().x + gap;
    ui.painter().galley(pos2(rect.left(), top), low_words, palette.muted);
    ui.painter().galley(pos2(left + strip + gap, top), high_words, palette.muted);
    for index in 0..STEPS {
        let value = low + (high - low) * index as f32 / (STEPS - 1) as f32;
        let at = pos2(left + index as f32 * step.x, rect.center().y - step.y * 0.5);
        let fill = scale.colour(&palette, value, with_words).unwrap_or(palette.card);
        ui.painter().rect_filled(Rect::from_min_size(at, step), CornerRadius::ZERO, fill);
    }
    let outline = Rect::from_min_size(pos2(left, rect.center().y - step.y * 0.5), vec2(strip, step.y));
    ui.painter().rect_stroke(outline, 0.0, Stroke::new(1.0, palette.line), StrokeKind::Outside);
}

/// A table to draw.
pub(super) struct Table<'a> {
    /// What it is called, different for each table on show.
    pub name: &'a str,
    /// The rows' names, from the bottom up.
    pub rows: &'a [String],
    /// The columns' names.
    pub columns: &'a [String],
    /// Points.
    pub cell: Vec2,
    /// The row and column that is chosen.
    pub chosen: Option<[usize; 2]>,
    /// Whether the chosen cell has just been moved by a key, so that it has to come into view.
    pub follow: bool,
}

/// How a cell looks.
#[derive(Default)]
pub(super) struct Look {
    /// `None` for what is not there yet.
    pub fill: Option<Color32>,
    /// Empty for none.
    pub word: String,
}

/// What cells show and say, by row and column.
pub(super) struct Cells<'a> {
    pub look: &'a dyn Fn(usize, usize) -> Look,
    /// For screen readers.
    pub spoken: &'a dyn Fn(usize, usize) -> String,
    /// Under the pointer.
    pub tip: &'a dyn Fn(&mut Ui, usize, usize),
}

/// The size of a cell so that this many fit, within bounds.
pub(super) fn fitting(space: f32, count: usize, [least, most]: [f32; 2]) -> f32 {
    (space / count.max(1) as f32).floor().clamp(least, most)
}

/// Points that the names of rows take.
pub(super) fn width_of_names(ui: &Ui, names: &[String]) -> f32 {
    let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let longest = names.iter().find(|name| name.chars().count() == widest);
    longest.map_or(0.0, |name| ui.painter().layout_no_wrap(short(name), small(), Color32::WHITE).size().x) + 8.0
}

fn small() -> FontId {
    FontId::new(11.0, FontFamily::Proportional)
}

/// A name of at most 14 letters on one line.
pub(super) fn short(name: &str) -> String {
    let line: String = name.chars().map(|letter| if letter.is_control() { '·' } else { letter }).collect();
    match line.chars().count() > 14 {
        true => line.chars().take(13).chain(['…']).collect(),
        false => line,
    }
}

/// Draws a table and returns the cell that was clicked. Row names stay in view while a wide table scrolls.
pub(super) fn show_table(ui: &mut Ui, table: &Table, cells: &Cells) -> Option<[usize; 2]> {
    let palette = Palette::of(ui.ctx());
    let [wide, high] = [table.cell.x, table.cell.y];
    let height = high * table.rows.len() as f32;
    let names = width_of_names(ui, table.rows);
    // Names of columns stand upright where they would run into each other.
    let widest = width_of_names(ui, table.columns);
    let upright = widest > wide;
    let foot = if upright { widest.min(86.0) } else { 20.0 };
    let mut clicked = None;
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = 0.0;
        let (left, _) = ui.allocate_exact_size(vec2(names, height + foot), Sense::hover());
        let every = |size: f32| (13.0 / size).ceil().max(1.0) as usize;
        for (row, name) in table.rows.iter().enumerate().step_by(every(high)) {
            let y = left.top() + (table.rows.len() - 1 - row) as f32 * high + high * 0.5;
            let at = pos2(left.right() - 6.0, y);
            ui.painter().text(at, Align2::RIGHT_CENTER, short(name), small(), palette.muted);
        }
        let scrolled = ScrollArea::horizontal().id_salt((table.name, "cells")).show(ui, |ui| {
            let size = vec2(wide * table.columns.len() as f32, height + foot);
            let (rect, _) = ui.allocate_exact_size(size, Sense::hover());
            let cell_at = |row: usize, column: usize| {
                let y = rect.top() + (table.rows.len() - 1 - row) as f32 * high;
                Rect::from_min_size(pos2(rect.left() + column as f32 * wide, y), table.cell)
            };
            let gap = if wide > 5.0 && high > 5.0 { 0.5 } else { 0.0 };
            for row in 0..table.rows.len() {
                for column in 0..table.columns.len() {
                    let place = cell_at(row, column);
                    if !ui.is_rect_visible(place) {
                        continue;
                    }
                    let look = (cells.look)(row, column);
                    let fill = look.fill.unwrap_or(palette.ground);
                    ui.painter().rect_filled(place.shrink(gap), CornerRadius::ZERO, fill);
                    if !look.word.is_empty() {
                        show_word(ui, place, &look.word, &palette);
                    }
                    let chosen = table.chosen == Some([row, column]);
                    // Not reached by Tab one by one: the arrow keys move the choice.
                    let response = ui.interact(place, ui.scope_id().with((table.name, row, column)), Sense::CLICK);
                    response
                        .widget_info(|| WidgetInfo::selected(Role::Cell, true, chosen, (cells.spoken)(row, column)));
                    if response.contains_pointer() {
                        ui.ctx().set_cursor_icon(CursorIcon::PointingHand);
                        ui.painter().rect_stroke(place, 1.0, Stroke::new(1.0, palette.muted), StrokeKind::Inside);
                        show_tip(ui, |ui| (cells.tip)(ui, row, column));
                    }
                    if response.clicked() {
                        clicked = Some([row, column]);
                    }
                }
            }
            for (column, name) in table.columns.iter().enumerate().step_by(if upright { every(wide) } else { 1 }) {
                let place = cell_at(0, column);
                let ink =
                    if table.chosen.is_some_and(|[_, chosen]| chosen == column) { palette.text } else { palette.muted };
                if upright {
                    show_upright(ui.painter(), pos2(place.center().x, place.bottom() + 4.0), name, ink);
                } else {
                    let at = pos2(place.center().x, place.bottom() + 3.0);
                    ui.painter().text(at, Align2::CENTER_TOP, short(name), small(), ink);
                }
            }
            if let Some([row, column]) = table.chosen.filter(|[r, c]| *r < table.rows.len() && *c < table.columns.len())
            {
                let place = cell_at(row, column);
                ui.painter().rect_stroke(place, 1.0, Stroke::new(2.0, palette.text), StrokeKind::Inside);
                if table.follow {
                    ui.scroll_to_rect(place, None::<Align>);
                }
            }
        });
        name_scroll_bar(ui, &scrolled, &format!("Scroll {}", table.name));
    });
    clicked
}

/// A name that is read from below and ends at a point.
pub(super) fn show_upright(painter: &Painter, end: Pos2, name: &str, ink: Color32) {
    let galley = painter.layout_no_wrap(short(name), small(), ink);
    // The text turns around the middle of its right side.
    let start = end - Align2::RIGHT_CENTER.pos_in_rect(&galley.rect).to_vec2();
    let text = TextShape::new(start, galley, ink);
    painter.add(text.with_angle_and_anchor(-std::f32::consts::FRAC_PI_2, Align2::RIGHT_CENTER));
}

/// A word in a cell, cut where it is too long.
fn show_word(ui: &Ui, place: Rect, word: &str, palette: &Palette) {
    let mut job = egui::text::LayoutJob::simple_singleline(
        word.replace(|letter: char| letter.is_control(), "·"),
        small(),
        palette.text,
    );
    job.wrap = egui::text::TextWrapping::truncate_at_width(place.width() - 4.0);
    let galley = ui.painter().layout_job(job);
    let at = place.center() - galley.size() * 0.5;
    ui.painter().galley(at, galley, palette.text);
}

/// A tooltip at the pointer, without delay.
pub(super) fn show_tip(ui: &Ui, content: impl FnOnce(&mut Ui)) {
    let id = Id::unique("what is under the pointer");
    Tooltip::always_open(ui.ctx().clone(), ui.layer_id(), id, PopupAnchor::Pointer).gap(14.0).show(content);
}

/// Text in the middle of a rectangle, in lines that fit.
pub(super) fn show_note(ui: &mut Ui, rect: Rect, words: &str) {
    let palette = Palette::of(ui.ctx());
    let font = FontId::new(13.0, FontFamily::Proportional);
    let galley = ui.painter().layout(words.to_owned(), font, palette.muted, rect.width() - 40.0);
    let place = Rect::from_center_size(rect.center(), galley.size());
    let response = ui.interact(place, ui.scope_id().with(words), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, words));
    ui.painter().galley(place.min, galley, palette.muted);
}

/// Width of the card that says what a cell is made of, points.
const DETAIL: f32 = 236.0;

/// What is left for a view, and the place of the card that says what the chosen cell is made of, if it is open.
pub(super) fn split(whole: Rect, open: bool) -> (Rect, Option<Rect>) {
    if !open {
        return (whole, None);
    }
    let edge = whole.right() - DETAIL;
    let body = Rect::from_min_max(whole.min, pos2(edge - 12.0, whole.bottom()));
    (body, Some(Rect::from_min_max(pos2(edge, whole.top()), whole.max)))
}

/// The card that says what the chosen cell is made of. Returns whether it was closed.
pub(super) fn show_detail(ui: &mut Ui, rect: Rect, title: &str, content: impl FnOnce(&mut Ui)) -> bool {
    let palette = Palette::of(ui.ctx());
    let radius = CornerRadius::same(CARD_RADIUS);
    ui.painter().rect(rect, radius, palette.surface, Stroke::new(1.0, palette.line), StrokeKind::Inside);
    let mut closed = false;
    ui.scope_builder(UiBuilder::new().max_rect(rect.shrink(10.0)), |ui| {
        ui.horizontal(|ui| {
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let button = ui.small_button("×").accessible_name("Close the details");
                closed = button.on_hover_text("Close (Escape)").clicked();
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    let words = RichText::new(title).font(FontId::new(13.0, semibold()));
                    ui.add(Label::new(words).truncate()).on_hover_text(title);
                });
            });
        });
        let scrolled = ScrollArea::vertical().id_salt("details").auto_shrink(false).show(ui, |ui| {
            ui.set_width(rect.width() - 30.0);
            ui.spacing_mut().item_spacing.y = 4.0;
            content(ui);
        });
        name_scroll_bar(ui, &scrolled, "Scroll the details");
    });
    closed
}

/// A row of a list of figures.
pub(super) fn figure(ui: &mut Ui, name: &str, value: &str) {
    let palette = Palette::of(ui.ctx());
    let size = vec2(ui.available_width(), 16.0);
    ui.allocate_ui_with_layout(size, Layout::right_to_left(Align::Center), |ui| {
        ui.label(RichText::new(value).small().color(palette.text));
        ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
            let name = RichText::new(name).small().color(palette.muted);
            ui.add(Label::new(name).truncate());
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_can_be_read_on_every_colour_and_both_signs_can_be_told_apart() {
        for palette in [Palette::DARK, Palette::LIGHT] {
            let scale = Scale::diverging(&[-2.0, 1.0, f32::NAN]);
            assert_eq!(scale, Scale::Diverging(2.0));
            let at = |value: f32, words| scale.colour(&palette, value, words);
            assert_eq!((at(f32::NAN, true), at(0.0, false)), (None, Some(palette.card)));
            assert_eq!(at(9.0, false), at(2.0, false), "numbers beyond the end have the end's colour");
            for value in [-2.0, -0.7, 0.7, 2.0] {
                let ratio = super::super::style::contrast(palette.text, at(value, true).unwrap_or(palette.card));
                assert!(ratio >= 4.5, "{value}: a contrast of {ratio:.2}; WCAG AA asks for 4.5");
            }
            assert_ne!(at(-2.0, false), at(2.0, false));
        }
    }
}
