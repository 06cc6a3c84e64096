//! The view *Swap*: the base model with parts of the tuned one, one by one and up to a block.

use super::cells::{figure, show_detail, split};
use super::desk::Desk;
use super::inside_lens::percent;
use super::lines::{Lines, Series, show_lines, signed};
use super::style::Palette;
use crate::lab::InsideSwap;
use egui::{Rect, RichText, Ui, vec2};

impl Desk {
    pub(super) fn show_swap(&mut self, ui: &mut Ui, swap: &InsideSwap) {
        let palette = Palette::of(ui.ctx());
        let blocks = swap.blocks;
        let mut places = vec!["embeddings".to_owned()];
        places.extend((0..blocks).map(|block| format!("block {block}")));
        places.push("last norm".to_owned());
        let filled = |values: &[f64], first: f64, last: f64| -> Vec<f32> {
            let missing = std::iter::repeat_n(f64::NAN, blocks - values.len().min(blocks));
            let all = std::iter::once(first).chain(values.iter().copied()).chain(missing).chain([last]);
            all.map(|value| value as f32).collect()
        };
        let one = filled(&swap.one, swap.embedding, swap.unembedding);
        // The last step swaps everything, which is the tuned model.
        let up_to = filled(&swap.up_to, swap.embedding, swap.tuned);
        let size = [1, places.len()];
        self.text.inside.walk(size, [0, 0]);
        let [_, chosen] = self.text.inside.chosen(size, [0, 0]);
        let (body, detail) = split(ui.available_rect_before_wrap(), self.text.inside.open);
        let words =
            "The logit difference of the base model with parts of the tuned one. Where a line jumps, the change sits.";
        ui.painter().text(body.min, egui::Align2::LEFT_TOP, words, egui::FontId::proportional(11.5), palette.muted);
        let chart = Rect::from_min_max(body.min + vec2(0.0, 24.0), body.max);
        let series = [
            Series { name: "this part alone", colour: palette.right, values: &one },
            Series { name: "all up to this part", colour: palette.left, values: &up_to },
        ];
        let levels = [("base", swap.base as f32), ("tuned", swap.tuned as f32)];
        let lines = Lines { name: "swapped", places: &places, series: &series, levels: &levels, chosen: Some(chosen) };
        if let Some(place) = show_lines(ui, chart, &lines) {
            self.text.inside.choose([0, place]);
        }
        let Some(detail) = detail else { return };
        let share = |value: f32| {
            let way = swap.tuned - swap.base;
            let share = (f64::from(value) - swap.base) / way;
            if way.abs() < 1e-3 { "–".to_owned() } else { percent(share as f32) }
        };
        let closed = show_detail(ui, detail, &places[chosen], |ui| {
            for (name, value) in [("Alone", one[chosen]), ("All up to it", up_to[chosen])] {
                if !value.is_finite() {
                    ui.label(RichText::new(format!("{name}: not computed yet")).small());
                    continue;
                }
                figure(ui, &format!("{name}, logits"), &signed(value));
                figure(ui, "Of the way to tuned", &share(value));
            }
            if chosen > 0 && up_to[chosen].is_finite() && up_to[chosen - 1].is_finite() {
                figure(ui, "More than up to the part before", &signed(up_to[chosen] - up_to[chosen - 1]));
            }
            ui.add_space(6.0);
            figure(ui, "Base", &signed(swap.base as f32));
            figure(ui, "Tuned", &signed(swap.tuned as f32));
        });
        self.text.inside.open &= !closed;
    }
}
