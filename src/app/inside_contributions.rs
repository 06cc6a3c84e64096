//! The view *Contributions*: what each part of the models adds to the logit difference, as two lines over the parts and
//! as a map of blocks by heads.

use super::cells::{
    Cells, Look, Scale, Table, figure, fitting, scale_legend, show_detail, show_note, show_table, split, width_of_names,
};
use super::desk::Desk;
use super::inside_lens::percent;
use super::inside_state::Side;
use super::lines::{Lines, Series, show_lines, signed};
use super::style::{Palette, semibold};
use super::widgets::name_scroll_bar;
use crate::lab::{InsideContributions, InsideQuestion};
use egui::{FontId, Rect, RichText, ScrollArea, Ui, UiBuilder, vec2};
use std::sync::Arc;

/// How many of the tokens that a head looks at are listed.
const LISTED: usize = 4;

/// What a column of the map is called.
fn column_name(map: &InsideContributions, column: usize) -> String {
    let name = &map.map.columns[column];
    if column < map.heads { format!("head {name}") } else { name.clone() }
}

/// The tokens that a head looks at most from the last one.
fn looks_at(x: &InsideContributions, block: usize, head: usize, words: &[String]) -> Vec<(String, f32)> {
    let from = (block * x.heads + head) * words.len();
    let weights = x.attention.get(from..from + words.len()).unwrap_or_default();
    let mut all: Vec<(String, f32)> = words.iter().cloned().zip(weights.iter().copied()).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(LISTED);
    all
}

impl Desk {
    pub(super) fn show_contributions(
        &mut self,
        ui: &mut Ui,
        question: &InsideQuestion,
        both: &[Option<Arc<InsideContributions>>; 2],
    ) {
        let whole = ui.available_rect_before_wrap();
        let [Some(base), Some(tuned)] = both.each_ref().map(Option::as_deref) else {
            return show_note(ui, whole, "Looking at what each part adds…");
        };
        let (side, palette) = (self.text.inside.side, Palette::of(ui.ctx()));
        let size = [base.map.rows.len(), base.map.columns.len()];
        let value = |row: usize, column: usize| side.of([base.map.at(row, column), tuned.map.at(row, column)]);
        let most = largest(size, &value);
        self.text.inside.walk(size, most);
        let chosen = self.text.inside.chosen(size, most);
        let (body, detail) = split(whole, self.text.inside.open);

        let top = Rect::from_min_size(body.min, vec2(body.width(), (body.height() * 0.46).max(190.0)));
        let places: Vec<String> = base.parts.iter().map(|(name, _)| name.clone()).collect();
        let [of_base, of_tuned] = [base, tuned].map(|x| x.parts.iter().map(|(_, value)| *value).collect::<Vec<f32>>());
        let series = [
            Series { name: "base", colour: palette.right, values: &of_base },
            Series { name: "tuned", colour: palette.left, values: &of_tuned },
        ];
        let lines = Lines { name: "parts", places: &places, series: &series, levels: &[], chosen: None };
        let part = show_lines(ui, top, &lines);
        let mut clicked = part.and_then(|place| cell_of_part(base, &places[place], &value));

        let rest = Rect::from_min_max(top.left_bottom() + vec2(0.0, 8.0), body.max);
        ui.scope_builder(UiBuilder::new().max_rect(rest), |ui| {
            // Base and tuned have one scale, so that both can be compared.
            let scale = match side {
                Side::Difference => {
                    let all = base.map.values.iter().zip(&tuned.map.values).map(|(base, tuned)| tuned - base);
                    Scale::diverging(&all.collect::<Vec<f32>>())
                }
                _ => Scale::diverging(base.map.values.iter().chain(&tuned.map.values)),
            };
            scale_legend(ui, scale, false, "logits");
            let space = [ui.available_width() - width_of_names(ui, &base.map.rows), ui.available_height() - 84.0];
            let table = Table {
                name: "the map of heads",
                rows: &base.map.rows,
                columns: &base.map.columns,
                cell: vec2(fitting(space[0], size[1], [16.0, 84.0]), fitting(space[1], size[0], [9.0, 40.0])),
                chosen: Some(chosen),
                follow: self.text.inside.follow,
            };
            let figures = |row: usize, column: usize| {
                let [b, t] = [base.map.at(row, column), tuned.map.at(row, column)];
                format!("base {}, tuned {}, difference {}", signed(b), signed(t), signed(t - b))
            };
            let name = |row: usize, column: usize| format!("Block {row}, {}", column_name(base, column));
            let cells = Cells {
                look: &|row, column| Look {
                    fill: scale.colour(&palette, value(row, column), false),
                    word: String::new(),
                },
                spoken: &|row, column| format!("{}: {}", name(row, column), figures(row, column)),
                tip: &|ui, row, column| {
                    ui.label(name(row, column));
                    ui.label(RichText::new(figures(row, column)).small());
                },
            };
            let area = ScrollArea::vertical().id_salt("the map of heads");
            let scrolled = area.show(ui, |ui| show_table(ui, &table, &cells));
            name_scroll_bar(ui, &scrolled, "Scroll the blocks");
            clicked = clicked.or(scrolled.inner);
        });
        if let Some(cell) = clicked {
            self.text.inside.choose(cell);
        }
        let (Some(detail), [block, column]) = (detail, chosen) else { return };
        let mut attention = false;
        let closed = show_detail(ui, detail, &format!("Block {block}, {}", column_name(base, column)), |ui| {
            let [b, t] = [base.map.at(block, column), tuned.map.at(block, column)];
            figure(ui, "Base adds, logits", &signed(b));
            figure(ui, "Tuned adds, logits", &signed(t));
            figure(ui, "Difference", &signed(t - b));
            if column >= base.heads {
                return;
            }
            for (x, name) in [(base, "base"), (tuned, "tuned")] {
                ui.add_space(6.0);
                let words = format!("From the last token it looks at, {name}");
                ui.label(RichText::new(words).font(FontId::new(12.5, semibold())));
                for (word, weight) in looks_at(x, block, column, &question.words) {
                    figure(ui, &format!("“{word}”"), &percent(weight));
                }
            }
            ui.add_space(8.0);
            attention = ui.button("All of its attention").on_hover_text("Turn to this head's pattern").clicked();
        });
        self.text.inside.open &= !closed;
        if attention {
            self.text.inside.show_head(block, column);
        }
    }
}

/// The place of the largest absolute value of a table.
pub(super) fn largest([rows, columns]: [usize; 2], value: &dyn Fn(usize, usize) -> f32) -> [usize; 2] {
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| [row, column]));
    let finite = cells.filter(|[row, column]| value(*row, *column).is_finite());
    finite.max_by(|a, b| value(a[0], a[1]).abs().total_cmp(&value(b[0], b[1]).abs())).unwrap_or_default()
}

/// The cell of the map that stands for a part: the MLP of a block, or the head of its attention that adds most.
fn cell_of_part(x: &InsideContributions, part: &str, value: &dyn Fn(usize, usize) -> f32) -> Option<[usize; 2]> {
    let (block, what) = part.split_once(' ')?;
    let block: usize = block.parse().ok()?;
    match what {
        "attention" => {
            let [_, head] = largest([1, x.heads], &|_, head| value(block, head));
            Some([block, head])
        }
        _ => x.map.columns.iter().position(|column| column.eq_ignore_ascii_case(what)).map(|column| [block, column]),
    }
}
