//! The view *Moved*: the tokens that rose and fell, how far the weights of each block moved, and where the predictions
//! part.

use super::cells::{
    Cells, Look, Scale, Table, figure, fitting, scale_legend, show_detail, show_table, split, width_of_names,
};
use super::desk::Desk;
use super::inside_lens::percent;
use super::style::{GAP, Palette, semibold};
use super::widgets::{name_scroll_bar, number};
use crate::lab::{InsideMoved, InsideQuestion, MovedWeight};
use egui::{
    Align2, CornerRadius, CursorIcon, FontFamily, FontId, Rect, RichText, Role, ScrollArea, Sense, Stroke, StrokeKind,
    Ui, UiBuilder, WidgetInfo, pos2, vec2,
};

/// Height of a row of a list, points.
const ROW: f32 = 19.0;

/// The sections of the view, as rows of what can be chosen: tokens that rose, tokens that fell, places of weights, and
/// from there on the rows of the map of predictions.
const WEIGHTS: usize = 2;
const STREAMS: usize = 3;

/// ‖ΔW‖/‖W‖ of everything in one place of the model, by its name, and the parameters there.
fn by_place(weights: &[MovedWeight]) -> Vec<(String, f64, Vec<&MovedWeight>)> {
    let blocks = weights.iter().filter_map(|weight| weight.block).max().map_or(0, |last| last + 1);
    let places = std::iter::once(None).chain((0..blocks).map(Some));
    let of = |place: Option<usize>| {
        let all: Vec<&MovedWeight> = weights.iter().filter(|weight| weight.block == place).collect();
        let sum = |of: &dyn Fn(&MovedWeight) -> f64| all.iter().map(|weight| of(weight).powi(2)).sum::<f64>();
        let (change, length) = (sum(&|weight| weight.change), sum(&|weight| weight.length));
        let share = if length > 0.0 { (change / length).sqrt() } else { 0.0 };
        let name = place.map_or_else(|| "embeddings, head".to_owned(), |block| format!("block {block}"));
        (name, share, all)
    };
    places.map(of).filter(|(_, _, all)| !all.is_empty()).collect()
}

impl Desk {
    pub(super) fn show_moved(&mut self, ui: &mut Ui, question: &InsideQuestion, moved: &InsideMoved) {
        let places = by_place(&moved.weights);
        let columns = moved.tokens.iter().map(Vec::len).chain([places.len(), question.words.len()]).max().unwrap_or(1);
        let size = [STREAMS + moved.streams.rows.len(), columns];
        self.text.inside.walk(size, [0, 0]);
        let chosen = self.text.inside.chosen(size, [0, 0]);
        let (body, detail) = split(ui.available_rect_before_wrap(), self.text.inside.open);
        let left = Rect::from_min_size(body.min, vec2((body.width() * 0.44).max(220.0), body.height()));
        let right = Rect::from_min_max(pos2(left.right() + GAP, body.top()), body.max);
        let mut clicked = None;
        ui.scope_builder(UiBuilder::new().max_rect(left), |ui| {
            let words = format!("Next token, KL of tuned against base: {} nats", number(moved.kl));
            ui.label(RichText::new(words).small());
            let scrolled = ScrollArea::vertical().id_salt("moved tokens").auto_shrink(false).show(ui, |ui| {
                ui.spacing_mut().item_spacing.y = 1.0;
                for (list, name) in ["Rose most", "Fell most"].into_iter().enumerate() {
                    ui.label(RichText::new(name).font(FontId::new(12.5, semibold())));
                    for (row, token) in moved.tokens[list].iter().enumerate() {
                        let [base, tuned] = token.probabilities.map(|p| percent(p as f32));
                        let parts =
                            [format!("“{}”", token.word), format!("{base} → {tuned}"), number(token.contribution)];
                        if show_row(ui, &parts, chosen == [list, row]) {
                            clicked = Some([list, row]);
                        }
                    }
                    ui.add_space(8.0);
                }
            });
            name_scroll_bar(ui, &scrolled, "Scroll the tokens that moved");
        });
        ui.scope_builder(UiBuilder::new().max_rect(right), |ui| {
            ui.label(RichText::new("Weights: how far they moved, of their length").font(FontId::new(12.5, semibold())));
            let most = places.iter().map(|(_, share, _)| *share).fold(0.0, f64::max);
            let tall = ui.available_height() * 0.48;
            let scrolled = ScrollArea::vertical().id_salt("moved weights").max_height(tall).show(ui, |ui| {
                ui.spacing_mut().item_spacing.y = 1.0;
                for (row, (name, share, _)) in places.iter().enumerate().rev() {
                    if show_bar(ui, name, *share, most, chosen == [WEIGHTS, row]) {
                        clicked = Some([WEIGHTS, row]);
                    }
                }
            });
            name_scroll_bar(ui, &scrolled, "Scroll the weights that moved");
            ui.add_space(8.0);
            if let Some(cell) = show_streams(ui, question, moved, chosen, self.text.inside.follow) {
                clicked = Some(cell);
            }
        });
        if let Some(cell) = clicked {
            self.text.inside.choose(cell);
        }
        let Some(detail) = detail else { return };
        let mut compare = None;
        let [section, place] = chosen;
        let closed = match section {
            0 | 1 => {
                let Some(token) = moved.tokens[section].get(place) else { return };
                show_detail(ui, detail, &format!("“{}”", token.word), |ui| {
                    let [base, tuned] = token.probabilities;
                    figure(ui, "Base", &percent(base as f32));
                    figure(ui, "Tuned", &percent(tuned as f32));
                    figure(ui, "Log-ratio, nats", &number((tuned / base).ln()));
                    figure(ui, "Of the KL, nats", &number(token.contribution));
                    ui.add_space(6.0);
                    for (side, words) in ["Take as first answer", "Take as second answer"].into_iter().enumerate() {
                        if ui.button(words).clicked() {
                            compare = Some((side, token.word.clone()));
                        }
                    }
                })
            }
            WEIGHTS => {
                let Some((name, share, all)) = places.get(place) else { return };
                show_detail(ui, detail, name, |ui| {
                    figure(ui, "All of it", &format!("{share:.2e}"));
                    ui.add_space(4.0);
                    for weight in all {
                        let share = if weight.change == 0.0 { 0.0 } else { weight.change / weight.length };
                        let short = weight.name.trim_start_matches("transformer.").trim_start_matches("model.");
                        figure(ui, short, &if share == 0.0 { "0".to_owned() } else { format!("{share:.2e}") });
                    }
                })
            }
            _ => {
                let row = section - STREAMS;
                let column = place.min(question.words.len().saturating_sub(1));
                show_detail(ui, detail, &stream_name(moved, row), |ui| {
                    ui.label(format!("token {} “{}”", column + 1, question.words[column]));
                    let kl = moved.streams.at(row, column);
                    figure(
                        ui,
                        "KL(tuned ‖ base), nats",
                        &if kl.is_finite() { number(f64::from(kl)) } else { "–".to_owned() },
                    );
                })
            }
        };
        self.text.inside.open &= !closed;
        if let Some((side, word)) = compare {
            self.text.inside.answers[side] = word;
        }
    }
}

fn stream_name(moved: &InsideMoved, row: usize) -> String {
    match &moved.streams.rows[row] {
        name if name.parse::<usize>().is_ok() => format!("after block {name}"),
        name => name.clone(),
    }
}

/// The map of how far the predictions of both models are apart.
fn show_streams(
    ui: &mut Ui,
    question: &InsideQuestion,
    moved: &InsideMoved,
    chosen: [usize; 2],
    follow: bool,
) -> Option<[usize; 2]> {
    let (palette, grid) = (Palette::of(ui.ctx()), &moved.streams);
    let scale = Scale::sequential(&grid.values);
    ui.horizontal(|ui| {
        ui.label(RichText::new("Predictions, KL by layer").font(FontId::new(12.5, semibold())));
        scale_legend(ui, scale, false, "nats");
    });
    let space = [ui.available_width() - width_of_names(ui, &grid.rows) - 6.0, ui.available_height() - 90.0];
    let table = Table {
        name: "predictions that moved",
        rows: &grid.rows,
        columns: &grid.columns,
        cell: vec2(fitting(space[0], grid.columns.len(), [6.0, 40.0]), fitting(space[1], grid.rows.len(), [7.0, 22.0])),
        chosen: chosen[0].checked_sub(STREAMS).map(|row| [row, chosen[1]]),
        follow,
    };
    let words = |row: usize, column: usize| {
        let kl = grid.at(row, column);
        let figure =
            if kl.is_finite() { format!("KL {} nats", number(f64::from(kl))) } else { "not computed yet".to_owned() };
        format!("{}, token {} “{}”: {figure}", stream_name(moved, row), column + 1, question.words[column])
    };
    let cells = Cells {
        look: &|row, column| Look { fill: scale.colour(&palette, grid.at(row, column), false), word: String::new() },
        spoken: &words,
        tip: &|ui, row, column| drop(ui.label(words(row, column))),
    };
    let scrolled = ScrollArea::vertical().id_salt("predictions").show(ui, |ui| show_table(ui, &table, &cells));
    name_scroll_bar(ui, &scrolled, "Scroll the layers");
    scrolled.inner.map(|[row, column]| [STREAMS + row, column])
}

/// A row of a list: a name, and two figures. Returns whether it was clicked.
fn show_row(ui: &mut Ui, parts: &[String; 3], chosen: bool) -> bool {
    let palette = Palette::of(ui.ctx());
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width() - 8.0, ROW), Sense::CLICK);
    response.widget_info(|| WidgetInfo::selected(Role::Cell, true, chosen, format!("{} {}", parts[0], parts[1])));
    mark(ui, rect, response.contains_pointer(), chosen);
    let small = FontId::new(12.0, FontFamily::Proportional);
    let painter = ui.painter().with_clip_rect(rect);
    painter.text(rect.left_center() + vec2(6.0, 0.0), Align2::LEFT_CENTER, &parts[0], small.clone(), palette.text);
    let middle = pos2(rect.right() - 66.0, rect.center().y);
    ui.painter().text(middle, Align2::RIGHT_CENTER, &parts[1], small.clone(), palette.text);
    ui.painter().text(rect.right_center() - vec2(6.0, 0.0), Align2::RIGHT_CENTER, &parts[2], small, palette.muted);
    response.clicked()
}

/// A bar of how far the weights of a place moved. Returns whether it was clicked.
fn show_bar(ui: &mut Ui, name: &str, share: f64, most: f64, chosen: bool) -> bool {
    let palette = Palette::of(ui.ctx());
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width() - 8.0, ROW), Sense::CLICK);
    let figure = if share == 0.0 { "0".to_owned() } else { format!("{share:.1e}") };
    response
        .widget_info(|| WidgetInfo::selected(Role::Cell, true, chosen, format!("{name}: weights moved by {figure}")));
    mark(ui, rect, response.contains_pointer(), chosen);
    let small = FontId::new(12.0, FontFamily::Proportional);
    ui.painter().text(rect.left_center() + vec2(6.0, 0.0), Align2::LEFT_CENTER, name, small.clone(), palette.text);
    let track = Rect::from_min_max(rect.min + vec2(126.0, 5.0), rect.max - vec2(60.0, 5.0));
    let part = if most > 0.0 { (share / most) as f32 } else { 0.0 };
    let bar = Rect::from_min_size(track.min, vec2(track.width() * part, track.height()));
    ui.painter().rect_filled(track, CornerRadius::same(2), palette.control);
    ui.painter().rect_filled(bar, CornerRadius::same(2), palette.left);
    ui.painter().text(rect.right_center() - vec2(6.0, 0.0), Align2::RIGHT_CENTER, figure, small, palette.muted);
    response.clicked()
}

/// The ground of a row under the pointer, and the frame of the chosen one.
fn mark(ui: &Ui, rect: Rect, hovered: bool, chosen: bool) {
    let palette = Palette::of(ui.ctx());
    if hovered {
        ui.ctx().set_cursor_icon(CursorIcon::PointingHand);
        ui.painter().rect_filled(rect, 3.0, palette.control);
    }
    if chosen {
        ui.painter().rect_stroke(rect, 3.0, Stroke::new(1.5, palette.text), StrokeKind::Inside);
    }
}
