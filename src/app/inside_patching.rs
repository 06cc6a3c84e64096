//! The view *Patching*: how much of the difference between the models one activation carries, as four maps that fill as
//! the scores come.

use super::cells::{
    Cells, Look, Scale, Table, figure, fitting, scale_legend, show_detail, show_table, split, width_of_names,
};
use super::desk::Desk;
use super::inside_lens::percent;
use super::style::{Palette, semibold};
use super::widgets::{name_scroll_bar, number};
use crate::lab::{InsidePatch, InsideQuestion, InsideView};
use egui::{Button, FontId, Label, Rect, RichText, ScrollArea, Ui, UiBuilder, pos2, vec2};

/// What the maps show.
const TITLES: [(&str, &str); 4] = [
    ("Residual stream", "residual stream before"),
    ("Attention", "attention of"),
    ("MLP", "MLP of"),
    ("Heads", "heads of"),
];

/// The map with the heads.
const HEADS: usize = 3;

/// The smallest end of the scale, so that a map of next to nothing looks like it.
const LEAST: f32 = 0.2;

/// How many heads of a block are listed.
const LISTED: usize = 6;

/// The map that a column of all maps side by side lies in, and its column there.
fn place(patch: &InsidePatch, mut column: usize) -> (usize, usize) {
    for (map, grid) in patch.grids.iter().enumerate() {
        if column < grid.columns.len() {
            return (map, column);
        }
        column -= grid.columns.len();
    }
    (HEADS, patch.grids[HEADS].columns.len().saturating_sub(1))
}

/// What a column of a map is called.
fn column_name(question: &InsideQuestion, map: usize, column: usize) -> String {
    match map {
        HEADS => format!("head {column}"),
        _ => format!("token {} “{}”", column + 1, question.words.get(column).map_or("", String::as_str)),
    }
}

impl Desk {
    pub(super) fn show_patching(&mut self, ui: &mut Ui, question: &InsideQuestion, patch: &InsidePatch) {
        let palette = Palette::of(ui.ctx());
        let columns: Vec<usize> = patch.grids.iter().map(|grid| grid.columns.len()).collect();
        let size = [patch.grids[0].rows.len(), columns.iter().sum()];
        // The stream at the last token, before the first block.
        let otherwise = [0, columns[0].saturating_sub(1)];
        self.text.inside.walk(size, otherwise);
        let [row, column] = self.text.inside.chosen(size, otherwise);
        let chosen = place(patch, column);
        let (body, detail) = split(ui.available_rect_before_wrap(), self.text.inside.open);
        let scale = Scale::diverging(patch.grids.iter().flat_map(|grid| &grid.values).chain(&[LEAST]));
        let mut clicked = None;
        ui.scope_builder(UiBuilder::new().max_rect(body), |ui| {
            scale_legend(ui, scale, false, "of the difference");
            let [from, to] = match self.text.inside.view() {
                InsideView::PatchTuned => ["base", "tuned"],
                _ => ["tuned", "base"],
            };
            let words = format!(
                "One activation of {from} in {to}; 1 makes {to} answer as {from}. Its last norm and unembedding alone: {}",
                percent(patch.unembed as f32)
            );
            ui.add(Label::new(RichText::new(words).small().color(palette.muted)).wrap());
            let area = ui.available_rect_before_wrap();
            let names = width_of_names(ui, &patch.grids[0].rows);
            // Three maps of tokens share what the names of rows and the gaps leave; the heads get as wide cells.
            let gap = 14.0;
            let cells: usize = size[1];
            let wide = fitting(area.width() - 4.0 * (names + gap), cells, [5.0, 40.0]);
            let high = fitting(area.height() - 140.0, size[0], [7.0, 44.0]);
            let needed = |map: usize| names + wide * columns[map] as f32 + gap;
            let shrink = ((area.width() - needed(HEADS)) / (needed(0) * 3.0)).min(1.0);
            let mut left = area.left();
            for (map, grid) in patch.grids.iter().enumerate() {
                let width = if map == HEADS { needed(map) } else { needed(map) * shrink };
                let rect = Rect::from_min_max(pos2(left, area.top()), pos2(left + width - gap, area.bottom()));
                left += width;
                let offset: usize = columns[..map].iter().sum();
                let table = Table {
                    name: TITLES[map].0,
                    rows: &grid.rows,
                    columns: &grid.columns,
                    cell: vec2(wide, high),
                    chosen: (chosen.0 == map).then_some([row, chosen.1]),
                    follow: self.text.inside.follow,
                };
                let figures = |row: usize, column: usize| match grid.at(row, column) {
                    score if score.is_finite() => percent(score),
                    _ => "not computed yet".to_owned(),
                };
                let name = |row: usize, column: usize| {
                    format!("{} block {row}, {}", TITLES[map].1, column_name(question, map, column))
                };
                let cells = Cells {
                    look: &|row, column| Look {
                        fill: scale.colour(&palette, grid.at(row, column), false),
                        word: String::new(),
                    },
                    spoken: &|row, column| format!("{}: {}", name(row, column), figures(row, column)),
                    tip: &|ui, row, column| {
                        ui.label(name(row, column));
                        ui.label(RichText::new(figures(row, column)).small());
                    },
                };
                ui.scope_builder(UiBuilder::new().max_rect(rect), |ui| {
                    ui.label(RichText::new(TITLES[map].0).font(FontId::new(12.5, semibold())));
                    let area = ScrollArea::vertical().id_salt((TITLES[map].0, "scroll"));
                    let scrolled = area.show(ui, |ui| show_table(ui, &table, &cells));
                    name_scroll_bar(ui, &scrolled, "Scroll the blocks");
                    if let Some([row, column]) = scrolled.inner {
                        clicked = Some([row, offset + column]);
                    }
                });
            }
        });
        if let Some(cell) = clicked {
            self.text.inside.choose(cell);
        }
        let Some(detail) = detail else { return };
        let mut head = None;
        let (map, column) = chosen;
        let title = format!("{} block {row}", TITLES[map].1);
        let closed = show_detail(ui, detail, &title, |ui| {
            ui.label(column_name(question, map, column));
            let score = patch.grids[map].at(row, column);
            let [target, source] = patch.ends;
            if score.is_finite() {
                figure(ui, "Of the difference", &percent(score));
                let patched = target + f64::from(score) * (source - target);
                figure(ui, "Logits, patched", &number(patched));
            }
            figure(ui, "Unpatched", &number(target));
            figure(ui, "Where it comes from", &number(source));
            ui.add_space(6.0);
            let heads = &patch.grids[HEADS];
            if map == HEADS {
                head =
                    ui.button("Its attention").on_hover_text("Turn to this head's pattern").clicked().then_some(column);
                return;
            }
            ui.label(RichText::new("Heads of this block, at all tokens").font(FontId::new(12.5, semibold())));
            let mut order: Vec<usize> =
                (0..heads.columns.len()).filter(|head| heads.at(row, *head).is_finite()).collect();
            order.sort_by(|a, b| heads.at(row, *b).abs().total_cmp(&heads.at(row, *a).abs()));
            if order.is_empty() {
                ui.label(RichText::new("Not computed yet").small().color(palette.muted));
            }
            for one in order.into_iter().take(LISTED) {
                let words = format!("Head {one}: {}", percent(heads.at(row, one)));
                let button = ui.add(Button::new(RichText::new(words).small()));
                if button.on_hover_text("Turn to this head's attention").clicked() {
                    head = Some(one);
                }
            }
        });
        self.text.inside.open &= !closed;
        if let Some(head) = head {
            self.text.inside.show_head(row, head);
        }
    }
}
