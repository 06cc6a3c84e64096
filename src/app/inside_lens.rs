//! The view *Lens*: tokens by layers, and in each cell the likeliest next token if the model stopped there.

use super::cells::{
    Cells, Look, Scale, Table, figure, fitting, scale_legend, show_detail, show_table, split, width_of_names,
};
use super::desk::Desk;
use super::inside_state::Side;
use super::style::{Palette, semibold};
use super::widgets::{name_scroll_bar, number};
use crate::lab::{InsideLens, InsideQuestion, LensCell, LensToken};
use egui::{FontId, RichText, ScrollArea, Ui, UiBuilder, vec2};

/// A probability in per cent.
pub(super) fn percent(probability: f32) -> String {
    let percent = 100.0 * probability;
    match percent.abs() {
        size if size >= 9.95 => format!("{percent:.0} %"),
        size if size >= 0.095 || size == 0.0 => format!("{percent:.1} %"),
        size if size >= 0.01 => format!("{percent:.2} %"),
        _ => "< 0.01 %".to_owned(),
    }
}

/// What a row is called.
fn layer(name: &str) -> String {
    if name.parse::<usize>().is_ok() { format!("layer {name}") } else { name.to_owned() }
}

/// A token and its probability; for the difference from base to tuned.
fn figures(token: &LensToken, side: Side) -> String {
    match side {
        Side::Difference => format!("{} → {}", percent(token.other), percent(token.probability)),
        _ => percent(token.probability),
    }
}

impl Desk {
    pub(super) fn show_lens(&mut self, ui: &mut Ui, question: &InsideQuestion, lens: &InsideLens) {
        let (side, palette) = (self.text.inside.side, Palette::of(ui.ctx()));
        let size = [lens.rows.len(), question.words.len()];
        let last = [size[0].saturating_sub(1), size[1].saturating_sub(1)];
        self.text.inside.walk(size, last);
        let chosen = self.text.inside.chosen(size, last);
        // The difference shows what the tuned model says, and how its probability changed.
        let model = usize::from(side != Side::Base);
        let cell = |row: usize, column: usize| lens.cells.as_ref()?[model].get(row)?.get(column);
        let likeliest = |row: usize, column: usize| cell(row, column)?.top.first();
        let value = |token: &LensToken| match side {
            Side::Difference => token.probability - token.other,
            _ => token.probability,
        };
        let scale = match side {
            Side::Difference => {
                let cells = (0..size[0]).flat_map(|row| (0..size[1]).map(move |column| (row, column)));
                let all: Vec<f32> = cells.filter_map(|(row, column)| likeliest(row, column)).map(value).collect();
                Scale::diverging(&all)
            }
            _ => Scale::Sequential(1.0),
        };
        let (body, detail) = split(ui.available_rect_before_wrap(), self.text.inside.open);
        let columns: Vec<String> = question.words.iter().map(|word| word.trim().to_owned()).collect();
        let mut clicked = None;
        ui.scope_builder(UiBuilder::new().max_rect(body), |ui| {
            let unit = if side == Side::Difference { "change of probability" } else { "probability" };
            scale_legend(ui, scale, true, unit);
            let space = [ui.available_width() - width_of_names(ui, &lens.rows) - 10.0, ui.available_height() - 40.0];
            let table = Table {
                name: "the lens",
                rows: &lens.rows,
                columns: &columns,
                cell: vec2(fitting(space[0], size[1], [58.0, 150.0]), fitting(space[1], size[0], [19.0, 56.0])),
                chosen: Some(chosen),
                follow: self.text.inside.follow,
            };
            let cells = Cells {
                look: &|row, column| match likeliest(row, column) {
                    Some(token) => {
                        Look { fill: scale.colour(&palette, value(token), true), word: token.word.trim().to_owned() }
                    }
                    None => Look::default(),
                },
                spoken: &|row, column| {
                    let place =
                        format!("{}, token {} “{}”", layer(&lens.rows[row]), column + 1, question.words[column]);
                    match likeliest(row, column) {
                        Some(token) => format!("{place}: “{}” {}", token.word, figures(token, side)),
                        None => format!("{place}: not computed yet"),
                    }
                },
                tip: &|ui, row, column| match cell(row, column) {
                    Some(cell) => {
                        ui.set_max_width(220.0);
                        show_likeliest(ui, cell, side);
                    }
                    None => drop(ui.label("Not computed yet")),
                },
            };
            let scrolled = ScrollArea::vertical().id_salt("the lens").show(ui, |ui| show_table(ui, &table, &cells));
            name_scroll_bar(ui, &scrolled, "Scroll the layers");
            clicked = scrolled.inner;
        });
        if let Some(cell) = clicked {
            self.text.inside.choose(cell);
        }
        let (Some(detail), [row, column]) = (detail, chosen) else { return };
        let title = format!("{}, “{}”", layer(&lens.rows[row]), question.words[column]);
        let closed = show_detail(ui, detail, &title, |ui| match &lens.cells {
            Some(both) => show_cell(ui, question, both.each_ref().map(|cells| &cells[row][column])),
            None => drop(ui.label("Not computed yet")),
        });
        self.text.inside.open &= !closed;
    }
}

/// The likeliest tokens of a cell.
fn show_likeliest(ui: &mut Ui, cell: &LensCell, side: Side) {
    for token in &cell.top {
        figure(ui, &format!("“{}”", token.word), &figures(token, side));
    }
}

/// Both models' cells: the likeliest tokens, and where the compared tokens stand.
fn show_cell(ui: &mut Ui, question: &InsideQuestion, both: [&LensCell; 2]) {
    let heading = |ui: &mut Ui, words: &str| drop(ui.label(RichText::new(words).font(FontId::new(12.5, semibold()))));
    for (cell, name) in both.into_iter().zip(["Base", "Tuned"]) {
        heading(ui, &format!("{name}, likeliest"));
        show_likeliest(ui, cell, Side::Tuned);
        ui.add_space(6.0);
    }
    for (place, word) in question.compared.iter().enumerate() {
        heading(ui, &format!("“{word}”, base → tuned"));
        let ranks = both.map(|cell| cell.rank[place]);
        let log_probs = both.map(|cell| number(f64::from(cell.log_probs[place])));
        figure(ui, "Rank", &format!("{} → {}", ranks[0], ranks[1]));
        figure(ui, "Log-probability, nats", &format!("{} → {}", log_probs[0], log_probs[1]));
        ui.add_space(6.0);
    }
    let two = |of: &dyn Fn(&LensCell) -> f32| both.map(|cell| number(f64::from(of(cell)))).join(" → ");
    figure(ui, "Entropy, nats", &two(&|cell| cell.entropy));
    figure(ui, "KL to the end, nats", &two(&|cell| cell.kl));
}
