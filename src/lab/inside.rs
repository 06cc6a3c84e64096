//! What the desk's page *Inside* asks for, and what the lab answers: plain numbers, with their shapes and names.
//!
//! Two models are compared: `base`, which training started from, and `tuned`, which it has come to. Whatever is there
//! once for each model is an array of two, in this order.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A view of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InsideView {
    /// The logit lens: what the models would predict after each block.
    #[default]
    Lens,
    /// What each part adds to the logit difference.
    Contributions,
    /// Attention patterns.
    Attention,
    /// Activations of the tuned model, put into the base model.
    PatchBase,
    /// Activations of the base model, put into the tuned model.
    PatchTuned,
    /// Blocks swapped.
    Swap,
    /// Tokens, weights and predictions that moved.
    Moved,
}

/// What is to be looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InsideRequest {
    /// The prompt.
    pub prompt: String,
    /// Two answers. The first tokens in which they differ are compared. If both are empty, the tokens are compared that
    /// training raised and lowered most.
    pub answers: [String; 2],
    /// The view.
    pub view: InsideView,
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsideField {
    /// The prompt.
    Prompt,
    /// One of the answers.
    Answer(usize),
    /// Neither: the models cannot be looked into in this way.
    Models,
}

/// Everything that was found of one prompt and two answers.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    /// The latest request.
    pub request: InsideRequest,
    /// What is compared, once it is known.
    pub question: Option<Arc<InsideQuestion>>,
    /// Parts done and parts in all, while the view of the request is being computed.
    pub progress: Option<[usize; 2]>,
    /// Why the request was refused.
    pub refusal: Option<(InsideField, String)>,
    /// The views that were asked for.
    pub seen: BTreeMap<InsideView, Arc<InsideSeen>>,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct InsideQuestion {
    /// The tokens that the models read, as text. The comparison is about the token after the last one.
    pub words: Vec<String>,
    /// The two tokens whose logits are compared, as text.
    pub compared: [String; 2],
    /// The logit of the first less that of the second, in each model.
    pub differences: [f64; 2],
}

/// A view, as far as it was computed.
#[derive(Clone, Debug)]
pub struct InsideSeen {
    /// Steps of training that the tuned model had.
    pub steps: u64,
    /// Whether all of it is there.
    pub complete: bool,
    /// What was found.
    pub found: InsideFound,
}

/// What was found.
#[derive(Clone, Debug)]
pub enum InsideFound {
    /// Of [`InsideView::Lens`].
    Lens(InsideLens),
    /// Of [`InsideView::Contributions`]; `None` before it is there.
    Contributions([Option<Arc<InsideContributions>>; 2]),
    /// Of [`InsideView::Attention`]; `None` before it is there.
    Attention([Option<Arc<InsideAttention>>; 2]),
    /// Of [`InsideView::PatchBase`] and [`InsideView::PatchTuned`].
    Patch(InsidePatch),
    /// Of [`InsideView::Swap`].
    Swap(InsideSwap),
    /// Of [`InsideView::Moved`].
    Moved(InsideMoved),
}

/// A table of numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InsideGrid {
    /// The rows' names, from the bottom up, as the layers of a network lie.
    pub rows: Vec<String>,
    /// The columns' names, from left to right.
    pub columns: Vec<String>,
    /// `[rows, columns]`, row by row. NaN is not computed yet.
    pub values: Vec<f32>,
}

impl InsideGrid {
    /// A table of which nothing is computed.
    pub fn empty(rows: Vec<String>, columns: Vec<String>) -> InsideGrid {
        let values = vec![f32::NAN; rows.len() * columns.len()];
        InsideGrid { rows, columns, values }
    }

    /// The number at a row and a column.
    pub fn at(&self, row: usize, column: usize) -> f32 {
        self.values[row * self.columns.len() + column]
    }

    /// Fills a row. What does not fit stays out.
    pub fn fill(&mut self, row: usize, values: &[f32]) {
        let from = row * self.columns.len();
        self.values[from..].iter_mut().take(self.columns.len()).zip(values).for_each(|(cell, value)| *cell = *value);
    }
}

/// The logit lens.
#[derive(Clone, Debug, Default)]
pub struct InsideLens {
    /// The residual streams' names, from the embeddings up.
    pub rows: Vec<String>,
    /// Of each model its cells, streams by tokens of the prompt; `None` before they are there.
    pub cells: Option<Arc<[Vec<Vec<LensCell>>; 2]>>,
}

/// What a model would predict at a token, if it stopped after a block.
#[derive(Clone, Debug, PartialEq)]
pub struct LensCell {
    /// The likeliest tokens.
    pub top: Vec<LensToken>,
    /// Nats.
    pub entropy: f32,
    /// KL(what the model predicts at its end ‖ this), nats.
    pub kl: f32,
    /// The ranks of the compared tokens, 1 for the likeliest.
    pub rank: [u32; 2],
    /// The log-probabilities of the compared tokens, nats.
    pub log_probs: [f32; 2],
}

/// A token that is likely in one model.
#[derive(Clone, Debug, PartialEq)]
pub struct LensToken {
    /// As text.
    pub word: String,
    /// Its probability.
    pub probability: f32,
    /// Its probability in the other model, at the same place.
    pub other: f32,
}

/// What the parts of one model add to the logit difference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InsideContributions {
    /// Names and contributions of the embeddings, of attention and MLP of each block, and of the last norm's bias,
    /// which add up to the logit difference.
    pub parts: Vec<(String, f32)>,
    /// Blocks by heads; the last columns are what else the blocks add.
    pub map: InsideGrid,
    /// How many of the columns are heads.
    pub heads: usize,
    /// `[blocks, heads, tokens]`: how much each head attends to each token from the last one.
    pub attention: Vec<f32>,
}

/// The attention of one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InsideAttention {
    /// Numbers of blocks, heads and tokens.
    pub shape: [usize; 3],
    /// `[blocks, heads, tokens, tokens]`: how much the token of a row attends to that of a column.
    pub patterns: Vec<f32>,
    /// Of each head, `[blocks, heads]`, the mean weight to the first token, to the one before, to the one after the
    /// last occurrence of the same token, and to that occurrence.
    pub kinds: Vec<[f32; 4]>,
}

impl InsideAttention {
    /// The names of [`InsideAttention::kinds`].
    pub const KINDS: [&'static str; 4] = ["first token", "previous token", "induction", "duplicate token"];

    /// The pattern of a head, `[tokens, tokens]`.
    pub fn pattern(&self, block: usize, head: usize) -> &[f32] {
        let [_, heads, tokens] = self.shape;
        let size = tokens * tokens;
        &self.patterns[(block * heads + head) * size..][..size]
    }
}

/// Activation patching between the models.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InsidePatch {
    /// The logit difference of the model that is changed, and of the one that activations come from.
    pub ends: [f64; 2],
    /// The score of the other model's last norm and unembedding alone.
    pub unembed: f64,
    /// The scores, from 0 (nothing) to 1 (all of the difference): the stream before each block, what attention writes,
    /// what the MLP writes, `[blocks, tokens]` each, and what each head mixes, `[blocks, heads]`.
    pub grids: [InsideGrid; 4],
}

/// Blocks of the tuned model in the base model: logit differences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InsideSwap {
    /// Number of blocks.
    pub blocks: usize,
    /// The base model.
    pub base: f64,
    /// The tuned model.
    pub tuned: f64,
    /// With the tuned model's embeddings.
    pub embedding: f64,
    /// With its last norm and unembedding.
    pub unembedding: f64,
    /// With one block of it, as far as they are there.
    pub one: Vec<f64>,
    /// With its embeddings and all blocks up to one.
    pub up_to: Vec<f64>,
}

/// What moved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InsideMoved {
    /// KL(tuned ‖ base) of the token after the prompt, nats.
    pub kl: f64,
    /// The tokens that rose most, and those that fell most.
    pub tokens: [Vec<MovedWord>; 2],
    /// The parameters, as far as they are there.
    pub weights: Vec<MovedWeight>,
    /// KL(lens of tuned ‖ lens of base), residual streams by tokens, nats.
    pub streams: InsideGrid,
}

/// A token whose probability changed.
#[derive(Clone, Debug, PartialEq)]
pub struct MovedWord {
    /// As text.
    pub word: String,
    /// Its probability in base and tuned.
    pub probabilities: [f64; 2],
    /// p_tuned · (log p_tuned − log p_base), nats.
    pub contribution: f64,
}

/// How far a parameter moved.
#[derive(Clone, Debug, PartialEq)]
pub struct MovedWeight {
    /// Its name.
    pub name: String,
    /// Which block it belongs to, if it belongs to one.
    pub block: Option<usize>,
    /// ‖tuned − base‖.
    pub change: f64,
    /// ‖base‖.
    pub length: f64,
}
