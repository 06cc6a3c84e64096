//! The view *Attention*: small pictures of all heads, the chosen one large, and where a token looks.

use super::cells::{Scale, fitting, scale_legend, show_note, show_tip};
use super::desk::Desk;
use super::inside_lens::percent;
use super::inside_state::{Side, Thumbnails};
use super::lines::signed;
use super::style::{GAP, Palette, semibold};
use super::widgets::{mix, name_scroll_bar};
use crate::lab::{InsideAttention, InsideQuestion};
use egui::{
    Align2, Color32, ColorImage, CornerRadius, CursorIcon, FontFamily, FontId, Rect, RichText, Role, ScrollArea, Sense,
    Stroke, StrokeKind, TextureOptions, Theme, Ui, UiBuilder, WidgetInfo, pos2, vec2,
};
use std::sync::Arc;

/// The most pixels that a side of a small picture has.
const PIXELS: usize = 32;

/// The patterns of both models on one side of the switch.
struct Both<'a> {
    base: &'a InsideAttention,
    tuned: &'a InsideAttention,
    side: Side,
    hide_first: bool,
}

impl Both<'_> {
    /// How much the token `query` attends to the token `key`; what is hidden is 0.
    fn weight(&self, [block, head]: [usize; 2], query: usize, key: usize) -> f32 {
        if self.hide_first && key == 0 {
            return 0.0;
        }
        let place = query * self.tuned.shape[2] + key;
        self.side.of([self.base.pattern(block, head)[place], self.tuned.pattern(block, head)[place]])
    }

    /// The scale of a head. The first token can only look at itself, and would drown the rest.
    fn scale(&self, head: [usize; 2]) -> Scale {
        let tokens = self.tuned.shape[2];
        let places = (1..tokens).flat_map(|query| (0..=query).map(move |key| (query, key)));
        let all: Vec<f32> = places.map(|(query, key)| self.weight(head, query, key)).collect();
        match self.side {
            Side::Difference => Scale::diverging(&all),
            _ => Scale::sequential(&all),
        }
    }

    /// The head whose pattern changed most.
    fn most_changed(&self) -> [usize; 2] {
        let [blocks, heads, _] = self.tuned.shape;
        let all = (0..blocks).flat_map(|block| (0..heads).map(move |head| [block, head]));
        let change = |[block, head]: &[usize; 2]| -> f32 {
            let both = self.base.pattern(*block, *head).iter().zip(self.tuned.pattern(*block, *head));
            both.map(|(base, tuned)| (tuned - base).abs()).sum()
        };
        all.map(|head| (change(&head), head)).max_by(|a, b| a.0.total_cmp(&b.0)).map_or([0, 0], |(_, head)| head)
    }

    /// A head's pattern as a picture, at most this many pixels wide: of several cells in one pixel, the strongest
    /// shows.
    fn picture(&self, head: [usize; 2], most: usize, palette: &Palette) -> ColorImage {
        let (tokens, scale) = (self.tuned.shape[2], self.scale(head));
        let side = tokens.min(most).max(1);
        let mut strongest = vec![0.0_f32; side * side];
        for query in 0..tokens {
            for key in 0..=query {
                let value = self.weight(head, query, key);
                let pixel = &mut strongest[query * side / tokens * side + key * side / tokens];
                if value.abs() > pixel.abs() {
                    *pixel = value;
                }
            }
        }
        let colour = |value: &f32| scale.colour(palette, *value, false).unwrap_or(palette.card);
        ColorImage::new([side, side], strongest.iter().map(colour).collect())
    }

    /// All heads in one picture, blocks from the bottom up.
    fn atlas(&self, palette: &Palette) -> ColorImage {
        let [blocks, heads, tokens] = self.tuned.shape;
        let side = tokens.clamp(1, PIXELS);
        let mut all = ColorImage::filled([heads * side, blocks * side], palette.card);
        for block in 0..blocks {
            for head in 0..heads {
                let one = self.picture([block, head], PIXELS, palette);
                for (row, line) in one.pixels.chunks(side).enumerate() {
                    let from = ((blocks - 1 - block) * side + row) * heads * side + head * side;
                    all.pixels[from..from + side].copy_from_slice(line);
                }
            }
        }
        all
    }
}

impl Desk {
    pub(super) fn show_attention(
        &mut self,
        ui: &mut Ui,
        question: &InsideQuestion,
        both: &[Option<Arc<InsideAttention>>; 2],
    ) {
        let whole = ui.available_rect_before_wrap();
        let [Some(base), Some(tuned)] = both else {
            return show_note(ui, whole, "Looking at where the heads look…");
        };
        let state = &mut self.text.inside;
        let both = Both { base, tuned, side: state.side, hide_first: state.hide_first };
        let palette = Palette::of(ui.ctx());
        let key = (state.side, ui.ctx().theme() == Theme::Dark, state.hide_first);
        let known = state.thumbnails.take().filter(|made| Arc::ptr_eq(&made.patterns, tuned));
        state.thumbnails = match known {
            Some(made) if made.key == key => Some(made),
            known => {
                let most = known.map_or_else(|| both.most_changed(), |made| made.most);
                let atlas = both.atlas(&palette);
                let picture = ui.ctx().load_texture("attention of all heads", atlas, TextureOptions::NEAREST);
                Some(Thumbnails { patterns: tuned.clone(), key, picture, most, large: None })
            }
        };
        let [blocks, heads, _] = tuned.shape;
        let most = state.thumbnails.as_ref().map_or([0, 0], |made| made.most);
        state.walk([blocks, heads], most);
        let chosen = state.chosen([blocks, heads], most);
        let left = (whole.width() * 0.42).clamp(180.0, 430.0);
        let thumbnails = Rect::from_min_size(whole.min, vec2(left, whole.height()));
        let large = Rect::from_min_max(pos2(thumbnails.right() + GAP, whole.top()), whole.max);
        ui.scope_builder(UiBuilder::new().max_rect(thumbnails), |ui| self.show_heads(ui, &both, chosen));
        ui.scope_builder(UiBuilder::new().max_rect(large), |ui| self.show_head_large(ui, question, &both, chosen));
    }

    /// The small pictures; a click chooses a head.
    fn show_heads(&mut self, ui: &mut Ui, both: &Both, chosen: [usize; 2]) {
        let palette = Palette::of(ui.ctx());
        let [blocks, heads, _] = both.tuned.shape;
        ui.checkbox(&mut self.text.inside.hide_first, RichText::new("Hide the first token").small())
            .on_hover_text("Many heads rest on it, and it drowns what else they look at");
        let small = FontId::new(11.0, FontFamily::Proportional);
        let Some(made) = &self.text.inside.thumbnails else { return };
        let (texture, follow) = (made.picture.id(), self.text.inside.follow);
        let mut clicked = None;
        let scrolled = ScrollArea::both().id_salt("heads").auto_shrink(false).show(ui, |ui| {
            let space = [ui.available_width() - 24.0, ui.available_height() - 20.0];
            let cell = fitting(space[0], heads, [20.0, 64.0]).min(fitting(space[1], blocks, [20.0, 64.0]));
            let size = vec2(20.0 + cell * heads as f32, 18.0 + cell * blocks as f32);
            let (rect, _) = ui.allocate_exact_size(size, Sense::hover());
            for block in 0..blocks {
                let y = rect.top() + (blocks - 1 - block) as f32 * cell;
                let at = pos2(rect.left() + 14.0, y + cell * 0.5);
                ui.painter().text(at, Align2::RIGHT_CENTER, block.to_string(), small.clone(), palette.muted);
                for head in 0..heads {
                    let place = Rect::from_min_size(pos2(rect.left() + 20.0 + head as f32 * cell, y), vec2(cell, cell));
                    if !ui.is_rect_visible(place) {
                        continue;
                    }
                    let (row, column) = ((blocks - 1 - block) as f32, head as f32);
                    let uv = Rect::from_min_size(
                        pos2(column / heads as f32, row / blocks as f32),
                        vec2(1.0 / heads as f32, 1.0 / blocks as f32),
                    );
                    ui.painter().image(texture, place.shrink(1.5), uv, Color32::WHITE);
                    let is_chosen = chosen == [block, head];
                    let response = ui.interact(place, ui.scope_id().with(("head", block, head)), Sense::CLICK);
                    response.widget_info(|| {
                        WidgetInfo::selected(
                            Role::Cell,
                            true,
                            is_chosen,
                            format!("Attention of block {block} head {head}"),
                        )
                    });
                    let ink = match (is_chosen, response.contains_pointer()) {
                        (true, _) => Stroke::new(2.0, palette.text),
                        (false, true) => Stroke::new(1.0, palette.muted),
                        (false, false) => Stroke::new(1.0, palette.line),
                    };
                    ui.painter().rect_stroke(place.shrink(0.5), 2.0, ink, StrokeKind::Inside);
                    if response.contains_pointer() {
                        ui.ctx().set_cursor_icon(CursorIcon::PointingHand);
                        show_tip(ui, |ui| {
                            ui.label(format!("Block {block}, head {head}"));
                            ui.label(RichText::new(kind(both.tuned, block, head)).small());
                        });
                    }
                    if response.clicked() {
                        clicked = Some([block, head]);
                    }
                    if is_chosen && follow {
                        ui.scroll_to_rect(place, None);
                    }
                }
            }
            for head in 0..heads {
                let at = pos2(rect.left() + 20.0 + (head as f32 + 0.5) * cell, rect.bottom() - 2.0);
                ui.painter().text(at, Align2::CENTER_BOTTOM, head.to_string(), small.clone(), palette.muted);
            }
        });
        name_scroll_bar(ui, &scrolled, "Scroll the heads");
        if let Some(cell) = clicked {
            self.text.inside.choose(cell);
        }
    }

    /// One head: the prompt's tokens, coloured by how much the token under the pointer looks at them, and the pattern.
    fn show_head_large(&mut self, ui: &mut Ui, question: &InsideQuestion, both: &Both, chosen: [usize; 2]) {
        let palette = Palette::of(ui.ctx());
        let [block, head] = chosen;
        let scale = both.scale(chosen);
        ui.horizontal(|ui| {
            ui.label(RichText::new(format!("Block {block}, head {head}")).font(FontId::new(14.0, semibold())));
            scale_legend(ui, scale, false, "weight");
        });
        ui.label(RichText::new(kind(both.tuned, block, head)).small().color(palette.muted));
        ui.add_space(4.0);
        let tokens = question.words.len();
        let fixed = self.text.inside.token.filter(|token| *token < tokens).unwrap_or(tokens.saturating_sub(1));
        self.show_tokens(ui, question, both, chosen, fixed);
        ui.add_space(8.0);

        let area = ui.available_rect_before_wrap();
        let side = area.width().min(area.height() - 4.0).max(40.0);
        let rect = Rect::from_min_size(area.min, vec2(side, side));
        let Some(made) = &mut self.text.inside.thumbnails else { return };
        if made.large.as_ref().is_none_or(|(of, _)| *of != chosen) {
            // Larger than any display shows of it.
            let picture = both.picture(chosen, 1024, &palette);
            made.large =
                Some((chosen, ui.ctx().load_texture("attention of one head", picture, TextureOptions::NEAREST)));
        }
        let Some((_, texture)) = &made.large else { return };
        let whole = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
        ui.painter().image(texture.id(), rect, whole, Color32::WHITE);
        ui.painter().rect_stroke(rect, 0.0, Stroke::new(1.0, palette.line), StrokeKind::Outside);
        let response = ui.interact(rect, ui.scope_id().with("pattern"), Sense::CLICK);
        let spoken = format!("Pattern of block {block} head {head}: rows look at columns, the first token is on top");
        response.widget_info(|| WidgetInfo::labeled(Role::Image, true, spoken.clone()));
        let step = side / tokens.max(1) as f32;
        let row = |query: usize| Rect::from_min_size(rect.min + vec2(0.0, query as f32 * step), vec2(side, step));
        ui.painter().rect_stroke(row(fixed), 0.0, Stroke::new(1.0, palette.muted), StrokeKind::Inside);
        let Some(at) = ui.ctx().pointer_hover_pos().filter(|_| response.contains_pointer()) else { return };
        let place = |along: f32| ((along / step) as usize).min(tokens.saturating_sub(1));
        let (query, key) = (place(at.y - rect.top()), place(at.x - rect.left()));
        show_tip(ui, |ui| {
            ui.label(format!("“{}” looks at “{}”", question.words[query], question.words[key]));
            ui.label(RichText::new(weight_text(both.side, both.weight(chosen, query, key))).small());
        });
        if response.clicked() {
            self.text.inside.token = Some(query);
        }
    }

    /// The prompt as tokens. Each shows how much the token under the pointer, or the chosen one, looks at it.
    fn show_tokens(&mut self, ui: &mut Ui, question: &InsideQuestion, both: &Both, head: [usize; 2], fixed: usize) {
        let palette = Palette::of(ui.ctx());
        let scale = both.scale(head);
        let font = FontId::new(13.0, FontFamily::Proportional);
        let hovered_id = ui.scope_id().with("the token under the pointer");
        let hovered: Option<usize> = ui.ctx().data(|data| data.get_temp(hovered_id)).flatten();
        let query = hovered.unwrap_or(fixed);
        let mut now_hovered = None;
        let mut clicked = None;
        let scrolled = ScrollArea::vertical().id_salt("tokens").max_height(150.0).show(ui, |ui| {
            ui.horizontal_wrapped(|ui| {
                ui.spacing_mut().item_spacing = vec2(2.0, 3.0);
                for (key, word) in question.words.iter().enumerate() {
                    let shown = word.replace(|letter: char| letter.is_control(), "⏎");
                    let galley = ui.painter().layout_no_wrap(shown, font.clone(), palette.text);
                    let (place, response) = ui.allocate_exact_size(galley.size() + vec2(6.0, 4.0), Sense::CLICK);
                    let weight = if key <= query { both.weight(head, query, key) } else { 0.0 };
                    let fill = scale.colour(&palette, weight, true).unwrap_or(palette.card);
                    ui.painter().rect_filled(place, CornerRadius::same(3), fill);
                    if key == query {
                        let ring = Stroke::new(1.5, mix(palette.card, palette.text, 0.8));
                        ui.painter().rect_stroke(place, 3.0, ring, StrokeKind::Inside);
                    }
                    ui.painter().galley(place.min + vec2(3.0, 2.0), galley, palette.text);
                    response.widget_info(|| {
                        let looks = weight_text(both.side, weight);
                        let words = format!("Token {} “{word}”: looked at with {looks}", key + 1);
                        WidgetInfo::selected(Role::Button, true, key == fixed, words)
                    });
                    if response.contains_pointer() {
                        now_hovered = Some(key);
                    }
                    if response.clicked() {
                        clicked = Some(key);
                    }
                }
            });
        });
        name_scroll_bar(ui, &scrolled, "Scroll the tokens");
        if now_hovered != hovered {
            ui.ctx().data_mut(|data| data.insert_temp(hovered_id, now_hovered));
            ui.ctx().request_repaint();
        }
        if let Some(token) = clicked {
            self.text.inside.token = Some(token);
        }
    }
}

/// A weight, or how it changed.
fn weight_text(side: Side, weight: f32) -> String {
    if side == Side::Difference { signed(weight) } else { percent(weight) }
}

/// What kind of head it is: where its weights go in the mean, the largest first.
fn kind(x: &InsideAttention, block: usize, head: usize) -> String {
    let means = x.kinds[block * x.shape[1] + head];
    let mut all: Vec<(f32, &str)> = means.into_iter().zip(InsideAttention::KINDS).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let words =
        all.into_iter().filter(|(mean, _)| *mean >= 0.05).map(|(mean, name)| format!("{name} {}", percent(mean)));
    let words: Vec<String> = words.collect();
    if words.is_empty() { "No one kind of token".to_owned() } else { format!("In the mean: {}", words.join(", ")) }
}
