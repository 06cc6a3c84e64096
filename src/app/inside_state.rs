//! What the page *Inside* keeps between frames: what is typed and chosen there.

use crate::lab::{Inside, InsideAttention, InsideRequest, InsideView};
use egui::{Context, Key, Modifiers, TextureHandle};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the switch of the page shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Side {
    /// What training started from.
    Base,
    /// What it has come to.
    #[default]
    Tuned,
    /// Tuned less base.
    Difference,
}

impl Side {
    /// All of them, from the left.
    pub const ALL: [Side; 3] = [Side::Base, Side::Tuned, Side::Difference];

    /// The switch's label.
    pub fn title(self) -> &'static str {
        ["Base", "Tuned", "Difference"][self as usize]
    }

    /// What a number is for this side, from that of base and tuned.
    pub fn of(self, [base, tuned]: [f32; 2]) -> f32 {
        match self {
            Side::Base => base,
            Side::Tuned => tuned,
            Side::Difference => tuned - base,
        }
    }
}

/// The views of the page, from the left, with what they are. Patching in either direction is one view.
pub(super) const VIEWS: [(InsideView, &str, &str); 6] = [
    (InsideView::Lens, "Lens", "What the model would say if it stopped after a block"),
    (InsideView::Contributions, "Contributions", "What each part adds to the difference of the two tokens' logits"),
    (InsideView::Attention, "Attention", "Which tokens each head looks at"),
    (InsideView::PatchBase, "Patching", "How much of the difference between the models one activation carries"),
    (InsideView::Swap, "Swap", "What one block of the tuned model does to the base model"),
    (InsideView::Moved, "Moved", "Which tokens, weights and predictions training changed most"),
];

/// The small pictures of attention, and what they were made of.
pub(super) struct Thumbnails {
    /// The tuned model's patterns, which come with the base model's.
    pub patterns: Arc<InsideAttention>,
    /// The side of the switch, whether the theme is dark, and whether the first token is hidden.
    pub key: (Side, bool, bool),
    /// All heads, blocks from the bottom up.
    pub picture: TextureHandle,
    /// The head that changed most: block and head.
    pub most: [usize; 2],
    /// A head and its large picture.
    pub large: Option<([usize; 2], TextureHandle)>,
}

/// The page's state.
#[derive(Default)]
pub(super) struct InsideState {
    pub prompt: String,
    pub answers: [String; 2],
    /// The view; for patching always [`InsideView::PatchBase`].
    view: InsideView,
    /// Whether patching goes into the tuned model.
    pub into_tuned: bool,
    pub side: Side,
    /// What was sent and has not begun.
    pub sent: Option<InsideRequest>,
    /// Whether attention to the first token is left out.
    pub hide_first: bool,
    /// The chosen cell of each view: row and column.
    chosen: BTreeMap<InsideView, [usize; 2]>,
    /// Whether what the chosen cell is made of is shown.
    pub open: bool,
    /// The token whose attention is shown; the last one if `None`.
    pub token: Option<usize>,
    pub thumbnails: Option<Thumbnails>,
    /// Keys of this frame that move the chosen cell or open it.
    keys: Vec<Key>,
    /// Whether a key has just moved the chosen cell.
    pub follow: bool,
    /// Whether the prompt was filled in once.
    pub filled: bool,
}

impl InsideState {
    /// The view that is on show.
    pub fn view(&self) -> InsideView {
        match self.view {
            InsideView::PatchBase if self.into_tuned => InsideView::PatchTuned,
            view => view,
        }
    }

    /// Whether this entry of [`VIEWS`] is on show.
    pub fn shows(&self, view: InsideView) -> bool {
        self.view == view
    }

    /// Turns to another view.
    pub fn turn_to(&mut self, view: InsideView) {
        if self.view != view {
            self.view = view;
            self.open = false;
        }
    }

    /// Turns to the view after this one, the first after the last.
    pub fn turn_on(&mut self) {
        let place = VIEWS.iter().position(|(view, ..)| *view == self.view).unwrap_or(0);
        self.turn_to(VIEWS[(place + 1) % VIEWS.len()].0);
    }

    /// The next side of the switch; for patching, the other direction.
    pub fn switch_on(&mut self) {
        match self.view {
            InsideView::PatchBase => self.into_tuned = !self.into_tuned,
            _ => self.side = Side::ALL[(self.side as usize + 1) % Side::ALL.len()],
        }
    }

    /// Turns to the attention of a head.
    pub fn show_head(&mut self, block: usize, head: usize) {
        self.turn_to(InsideView::Attention);
        self.chosen.insert(InsideView::Attention, [block, head]);
        self.follow = true;
    }

    /// What is typed, for the view on show.
    pub fn request(&self) -> InsideRequest {
        InsideRequest { prompt: self.prompt.clone(), answers: self.answers.clone(), view: self.view() }
    }

    /// Whether this is what is typed.
    pub fn is_of(&self, inside: &Inside) -> bool {
        inside.request.prompt == self.prompt && inside.request.answers == self.answers
    }

    /// The chosen cell of the view on show, within a table of this size.
    pub fn chosen(&self, [rows, columns]: [usize; 2], otherwise: [usize; 2]) -> [usize; 2] {
        let [row, column] = self.chosen.get(&self.view()).copied().unwrap_or(otherwise);
        [row.min(rows.saturating_sub(1)), column.min(columns.saturating_sub(1))]
    }

    /// Chooses a cell and opens it.
    pub fn choose(&mut self, cell: [usize; 2]) {
        self.chosen.insert(self.view(), cell);
        self.open = true;
    }

    /// Takes the keys that belong to the page out of the frame's input: arrows, Enter, and Escape if it closes
    /// something. While `typing` only Escape counts, and only if `looking`. Returns whether Escape was pressed.
    pub fn take_keys(&mut self, ctx: &Context, typing: bool, looking: bool) -> bool {
        self.keys.clear();
        let focused = ctx.memory(|memory| memory.focused().is_some());
        let mut escaped = false;
        let mut arrows = false;
        ctx.input_mut(|input| {
            input.events.retain(|event| {
                let egui::Event::Key { key, modifiers: Modifiers::NONE, pressed: true, .. } = event else {
                    return true;
                };
                match key {
                    Key::Escape if looking || (self.open && !typing) => escaped = true,
                    Key::ArrowLeft | Key::ArrowRight | Key::ArrowUp | Key::ArrowDown if !typing => {
                        arrows = true;
                        self.keys.push(*key);
                    }
                    Key::Enter if !typing && !focused => self.keys.push(*key),
                    _ => return true,
                }
                false
            });
        });
        if arrows {
            // An arrow key that moved the choice must not also move the keyboard's focus.
            ctx.memory_mut(|memory| memory.move_focus(egui::FocusDirection::None));
        }
        escaped
    }

    /// Takes this frame's keys. Returns whether Enter is among them.
    pub fn take_enter(&mut self) -> bool {
        std::mem::take(&mut self.keys).contains(&Key::Enter)
    }

    /// Moves the chosen cell of a table of this size as the keys say, and opens it. Row 0 is at the bottom.
    pub fn walk(&mut self, size: [usize; 2], otherwise: [usize; 2]) {
        self.follow = false;
        for key in std::mem::take(&mut self.keys) {
            let [row, column] = self.chosen(size, otherwise);
            let moved = match key {
                Key::ArrowUp => [(row + 1).min(size[0].saturating_sub(1)), column],
                Key::ArrowDown => [row.saturating_sub(1), column],
                Key::ArrowLeft => [row, column.saturating_sub(1)],
                Key::ArrowRight => [row, (column + 1).min(size[1].saturating_sub(1))],
                _ => {
                    self.open = true;
                    [row, column]
                }
            };
            self.chosen.insert(self.view(), moved);
            self.follow = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_stay_within_the_table_and_every_view_has_its_own_cell() {
        let mut state = InsideState::default();
        let size = [2, 3];
        let press = |state: &mut InsideState, keys: &[Key]| {
            state.keys = keys.to_vec();
            state.walk(size, [1, 2]);
            state.chosen(size, [1, 2])
        };
        assert_eq!(press(&mut state, &[]), [1, 2]);
        assert_eq!(press(&mut state, &[Key::ArrowUp, Key::ArrowRight]), [1, 2]);
        assert_eq!(press(&mut state, &[Key::ArrowDown, Key::ArrowLeft]), [0, 1]);
        assert!(!state.open);
        press(&mut state, &[Key::Enter]);
        assert!(state.open);
        state.show_head(5, 7);
        assert_eq!((state.view(), state.open, state.chosen([6, 8], [0, 0])), (InsideView::Attention, false, [5, 7]));
        state.turn_to(InsideView::PatchBase);
        state.switch_on();
        assert_eq!(state.view(), InsideView::PatchTuned);
        state.turn_to(InsideView::Lens);
        assert_eq!(state.chosen(size, [1, 2]), [0, 1]);
    }
}
