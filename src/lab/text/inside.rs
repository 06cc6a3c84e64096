//! Looking inside the models of a session, part by part, so that training and a person's other wishes come in between.
//!
//! `flipside text look` computes the same with the same functions. It draws no random number and changes no weight.

use super::look::{contributions, default_tokens, normed_at, word};
use super::verbs::reader_of;
use crate::lab::LabError;
use crate::lab::vocabulary::{
    InsideAttention, InsideContributions, InsideField, InsideFound, InsideGrid, InsideLens, InsideMoved, InsidePatch,
    InsideQuestion, InsideSwap, InsideView, LensCell, LensToken, MovedWeight, MovedWord,
};
use flipside_learn::numbers;
use flipside_text::interp::{
    Attribution, Direction, Grid, Lens, Metric, MovedToken, PatchRuns, Run, StreamRuns, Subject, SwapRuns, attribution,
    head_scores, lens, lens_of, lens_sites, moved_between, patterns, weight_change, weight_names,
};
use flipside_text::model::{HookPoint, Site, Transformer};
use flipside_text::tokenizer::Tokenizer;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// How many of the likeliest tokens a cell of the lens has.
const LIKELIEST: usize = 5;

/// How many tokens are listed that rose, and that fell.
const MOVED: usize = 12;

/// What is patched, the residual stream first.
const GRIDS: [Grid; 4] = [
    Grid::Positions(Site::ResidPre),
    Grid::Positions(Site::AttnOut),
    Grid::Positions(Site::MlpOut),
    Grid::Heads(Site::Z),
];

/// Why something was refused, and which field it concerns.
pub(super) type Refusal = (InsideField, LabError);

/// The models that are compared.
pub(super) struct Models {
    /// What training started from, read without adapters.
    pub base: Transformer,
    /// What it has come to, with its adapters.
    pub tuned: Transformer,
    /// What both are read and written with.
    pub tokenizer: Tokenizer,
}

impl Models {
    /// Base and tuned.
    fn subjects(&self) -> Result<[Subject<'_>; 2], LabError> {
        let subjects = [Subject::new(&self.base, false)?, Subject::new(&self.tuned, true)?];
        subjects[0].check_alike(&subjects[1])?;
        Ok(subjects)
    }
}

/// What is compared after which tokens.
pub(super) struct Question {
    /// The tokens that the models read, `[1, T]` (i64), and as they are.
    ids: Tensor,
    tokens: Vec<u32>,
    /// The tokens whose logits are compared.
    compared: [u32; 2],
    /// The last norm's output after the last token in each model, `[d]`.
    normed: [Tensor; 2],
    /// Steps of training that the tuned model had.
    pub steps: u64,
    /// What a person sees of it.
    pub view: Arc<InsideQuestion>,
}

impl Question {
    /// Reads a prompt and two answers.
    pub fn read(models: &Models, prompt: &str, answers: &[String; 2], steps: u64) -> Result<Question, Refusal> {
        let of_models = |error| (InsideField::Models, error);
        let subjects = models.subjects().map_err(of_models)?;
        let (tokens, compared) = parted(models, prompt, answers)?;
        let ids = subjects[0].tokens(&tokens).map_err(|error| (InsideField::Prompt, error.into()))?;
        Question::of(models, tokens, ids, compared, steps).map_err(of_models)
    }

    /// The same tokens, compared in the models as they are after `steps` steps.
    pub fn renewed(&self, models: &Models, steps: u64) -> Result<Question, LabError> {
        Question::of(models, self.tokens.clone(), self.ids.shallow_clone(), Some(self.compared), steps)
    }

    fn of(
        models: &Models,
        tokens: Vec<u32>,
        ids: Tensor,
        compared: Option<[u32; 2]>,
        steps: u64,
    ) -> Result<Question, LabError> {
        let subjects = models.subjects()?;
        let last = tokens.len() - 1;
        let [base, tuned] = subjects.map(|subject| normed_at(subject, &ids, last));
        let normed = [base?, tuned?];
        let compared =
            compared.unwrap_or_else(|| default_tokens((subjects[0], &normed[0]), Some((subjects[1], &normed[1]))));
        let difference = |model: usize| -> Result<f64, LabError> {
            let logits = tch::no_grad(|| subjects[model].logits_of(&normed[model], &compared))?;
            Ok(logits.double_value(&[0]) - logits.double_value(&[1]))
        };
        let differences = [difference(0)?, difference(1)?];
        if differences.iter().any(|difference| !difference.is_finite()) {
            return Err(LabError::Text(
                "The models compute numbers that are not finite, so there is nothing to see; go on from an earlier \
                 checkpoint with a lower learning rate."
                    .to_owned(),
            ));
        }
        let text = |token: u32| word(&models.tokenizer, token);
        let words = tokens.iter().map(|&token| text(token)).collect();
        let view = Arc::new(InsideQuestion { words, compared: compared.map(text), differences });
        Ok(Question { ids, tokens, compared, normed, steps, view })
    }

    fn metric(&self) -> Metric {
        let [better, worse] = self.compared;
        Metric::LogitDifference { better, worse, position: self.tokens.len() - 1 }
    }
}

/// The tokens of a prompt, with what both answers begin with, and the first tokens in which the answers differ. Without
/// answers there are none of these.
fn parted(models: &Models, prompt: &str, answers: &[String; 2]) -> Result<(Vec<u32>, Option<[u32; 2]>), Refusal> {
    let reader = reader_of(&models.tokenizer, models.base.config().context);
    let encode = |text: &str, field| {
        let read = reader.prompt_of(text).map(|prompt| prompt.tokens);
        read.map_err(|error| (field, error))
    };
    let refuse = |side: usize, why: &str| Err((InsideField::Answer(side), LabError::Text(why.to_owned())));
    let of_prompt = encode(prompt, InsideField::Prompt)?;
    match answers.each_ref().map(String::is_empty) {
        [true, true] => return Ok((of_prompt, None)),
        [first, second] if first || second => {
            let why = "Give both answers, or none: then the tokens are compared that training raised and lowered most.";
            return refuse(if first { 0 } else { 1 }, why);
        }
        _ => {}
    }
    let side = |side: usize| encode(&format!("{prompt}{}", answers[side]), InsideField::Answer(side));
    let wholes = [side(0)?, side(1)?];
    // A tokenizer that adds an end of its own is compared without it.
    let shared = wholes[0].iter().zip(&wholes[1]).take_while(|(a, b)| a == b).count();
    for (side, whole) in wholes.iter().enumerate() {
        if !whole.starts_with(&of_prompt) {
            let why =
                "This answer runs into the last word of the prompt; begin it with a space, or write that word here.";
            return refuse(side, why);
        }
    }
    match [0, 1].map(|side| wholes[side].get(shared).copied()) {
        [Some(better), Some(worse)] => Ok((wholes[0][..shared].to_vec(), Some([better, worse]))),
        [None, None] => refuse(1, "Both answers are the same; write two different ones."),
        [first, _] => {
            let why =
                "The other answer begins with this one, so there is no token to compare; write on, or shorten both.";
            refuse(usize::from(first.is_some()), why)
        }
    }
}

/// A view under way.
pub(super) struct Looking {
    /// The view.
    pub view: InsideView,
    models: Models,
    /// Whether training does not change these models.
    kept: bool,
    work: Work,
    /// Parts done, and parts in all.
    pub progress: [usize; 2],
    /// What was found so far.
    pub found: InsideFound,
    /// Steps of training that the tuned model had.
    pub steps: u64,
}

/// What the parts of a view need.
enum Work {
    Lens { sites: Vec<HookPoint>, lenses: Vec<Lens> },
    Contributions,
    Attention,
    Patch { runs: Box<PatchRuns> },
    Swap { runs: Box<SwapRuns> },
    Moved { streams: Box<StreamRuns>, weights: Vec<String> },
}

impl Looking {
    /// Begins a view: runs the models, and reads nothing of it yet.
    pub fn begin(view: InsideView, models: Models, question: &Question, steps: u64) -> Result<Looking, LabError> {
        let [base, tuned] = models.subjects()?;
        let ids = &question.ids;
        let columns = columns(&question.view.words);
        let blocks: Vec<String> = (0..base.blocks()).map(|block| block.to_string()).collect();
        let (work, parts, found) = match view {
            InsideView::Lens => {
                let sites = lens_sites(base.blocks(), false);
                let found = InsideLens { rows: stream_names(&sites), cells: None };
                (Work::Lens { sites, lenses: Vec::new() }, 3, InsideFound::Lens(found))
            }
            InsideView::Contributions => (Work::Contributions, 2, InsideFound::Contributions([None, None])),
            InsideView::Attention => (Work::Attention, 2, InsideFound::Attention([None, None])),
            InsideView::PatchBase | InsideView::PatchTuned => {
                let [target, source] = if view == InsideView::PatchBase { [base, tuned] } else { [tuned, base] };
                let run = |subject| Run { subject, tokens: ids };
                let runs = Box::new(PatchRuns::new(run(target), run(source), question.metric(), &GRIDS)?);
                let heads: Vec<String> = (0..base.config().heads).map(|head| head.to_string()).collect();
                let grid = |grid| match grid {
                    Grid::Positions(_) => InsideGrid::empty(blocks.clone(), columns.clone()),
                    Grid::Heads(_) | Grid::HeadPositions => InsideGrid::empty(blocks.clone(), heads.clone()),
                };
                let found = InsidePatch { ends: runs.ends, unembed: runs.unembed, grids: GRIDS.map(grid) };
                (Work::Patch { runs }, GRIDS.len() * blocks.len(), InsideFound::Patch(found))
            }
            InsideView::Swap => {
                let runs = Box::new(SwapRuns::new(base, tuned, ids, question.metric())?);
                let ends = runs.ends(base, tuned)?;
                let found = InsideSwap {
                    blocks: blocks.len(),
                    base: ends.base,
                    tuned: ends.tuned,
                    embedding: ends.embedding,
                    unembedding: ends.unembedding,
                    ..InsideSwap::default()
                };
                (Work::Swap { runs }, blocks.len(), InsideFound::Swap(found))
            }
            InsideView::Moved => {
                let moved = moved_between(base, tuned, [&question.normed[0], &question.normed[1]], MOVED);
                let streams = Box::new(StreamRuns::new(base, tuned, ids, false)?);
                let weights = weight_names(base, tuned)?;
                let listed = |all: &[MovedToken]| all.iter().map(|one| moved_word(&models.tokenizer, one)).collect();
                let found = InsideMoved {
                    kl: moved.kl,
                    tokens: [listed(&moved.risen), listed(&moved.fallen)],
                    weights: Vec::new(),
                    streams: InsideGrid::empty(stream_names(&streams.sites), columns),
                };
                let parts = streams.sites.len() + weights.len();
                (Work::Moved { streams, weights }, parts, InsideFound::Moved(found))
            }
        };
        Ok(Looking { view, models, kept: false, work, progress: [0, parts], found, steps })
    }

    /// Whether all parts are done.
    pub fn is_complete(&self) -> bool {
        self.progress[0] == self.progress[1]
    }

    /// Copies what training would change while the rest of the view waits.
    pub fn keep(&mut self) {
        if !std::mem::replace(&mut self.kept, true) {
            self.models.tuned = self.models.tuned.deep_clone();
        }
    }

    /// Does the next part.
    pub fn go_on(&mut self, question: &Question, cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        let Looking { view, models, work, progress: [done, parts], found, .. } = self;
        if done == parts {
            return Ok(());
        }
        let place = *done;
        let subjects = models.subjects()?;
        let [base, tuned] = subjects;
        match (work, found) {
            // One model after the other, and then what each says of the other's likeliest tokens.
            (Work::Lens { sites, lenses }, InsideFound::Lens(found)) => match &lenses[..] {
                [base, tuned] => {
                    let of = |model: usize, other: &Lens| {
                        lens_of(&subjects[model], &question.ids, [base, tuned][model], &other.top[0])
                    };
                    let others = [of(1, base)?, of(0, tuned)?];
                    let cells = |model: usize, lens: &Lens| lens_cells(&models.tokenizer, lens, &others[model]);
                    found.cells = Some(Arc::new([cells(0, base), cells(1, tuned)]));
                }
                some => {
                    let subject = &subjects[some.len()];
                    let compared = &question.compared;
                    let seen = lens(subject, &question.ids, sites, compared, LIKELIEST, &mut |_| cancelled())?;
                    lenses.push(seen);
                }
            },
            (Work::Contributions, InsideFound::Contributions(found)) => {
                let [better, worse] = question.compared;
                let direction = Direction::logit_difference(&subjects[place], better, worse)?;
                let x = attribution(&subjects[place], &question.ids, &direction)?;
                let seen = patterns(&subjects[place], &question.ids)?;
                found[place] = Some(Arc::new(contributions_of(
                    &x,
                    &seen,
                    question.tokens.len() - 1,
                    models.tuned.adapter().is_some(),
                )));
            }
            (Work::Attention, InsideFound::Attention(found)) => {
                let x = patterns(&subjects[place], &question.ids)?;
                found[place] = Some(Arc::new(attention_of(&x, &question.tokens)));
            }
            (Work::Patch { runs }, InsideFound::Patch(patch)) => {
                let target = if *view == InsideView::PatchBase { base } else { tuned };
                let (grid, block) = (place / base.blocks(), place % base.blocks());
                let scores = runs.block(&target, GRIDS[grid], block, cancelled)?;
                patch.grids[grid].fill(block, &numbers(&scores));
            }
            (Work::Swap { runs }, InsideFound::Swap(swap)) => {
                let [one, up_to] = runs.block(base, tuned, place)?;
                swap.one.push(one);
                swap.up_to.push(up_to);
            }
            (Work::Moved { streams, weights }, InsideFound::Moved(moved)) => {
                match place.checked_sub(streams.sites.len()) {
                    None => {
                        let [kl, ..] = streams.row(base, tuned, place)?;
                        moved.streams.fill(place, &numbers(&kl));
                    }
                    Some(parameter) => {
                        let x = weight_change(base, tuned, &weights[parameter])?;
                        let block = x.name.split('.').find_map(|part| part.parse().ok());
                        moved.weights.push(MovedWeight { name: x.name, block, change: x.change, length: x.length });
                    }
                }
            }
            // The work and what it finds are made together.
            _ => {}
        }
        *done += 1;
        Ok(())
    }
}

/// The words of the prompt as names of columns.
fn columns(words: &[String]) -> Vec<String> {
    words.iter().map(|word| word.trim().to_owned()).collect()
}

/// The names of residual streams: the embeddings, and each block.
fn stream_names(sites: &[HookPoint]) -> Vec<String> {
    let name = |point: &HookPoint| match point.site {
        Site::ResidPre => "embeddings".to_owned(),
        _ => point.block.to_string(),
    };
    sites.iter().map(name).collect()
}

/// The integers of a tensor.
fn integers(x: &Tensor) -> Vec<u32> {
    let mut all = vec![0_i64; x.numel()];
    x.contiguous().copy_data(&mut all, x.numel());
    all.into_iter().map(|n| n.max(0) as u32).collect()
}

/// A model's cells, streams by tokens. `others` are the log-probabilities that the other model gives to its likeliest
/// tokens, `[S, T, K]`.
fn lens_cells(tokenizer: &Tokenizer, lens: &Lens, others: &Tensor) -> Vec<Vec<LensCell>> {
    let [likeliest_tokens, log_probs] = &lens.top;
    let (positions, keep) = (likeliest_tokens.size()[1] as usize, likeliest_tokens.size()[2] as usize);
    let (tokens, likeliest, others) =
        (integers(likeliest_tokens), numbers(&log_probs.exp()), numbers(&others.exp().clamp_max(1.0)));
    let (entropy, kl) = (numbers(&lens.entropy), numbers(&lens.kl));
    let (rank, of_compared) = (integers(&lens.rank), numbers(&lens.log_probs));
    let token = |i: usize| LensToken { word: word(tokenizer, tokens[i]), probability: likeliest[i], other: others[i] };
    let cell = |at: usize| LensCell {
        top: (at * keep..(at + 1) * keep).map(token).collect(),
        entropy: entropy[at],
        kl: kl[at],
        rank: [rank[2 * at], rank[2 * at + 1]],
        log_probs: [of_compared[2 * at], of_compared[2 * at + 1]],
    };
    let all: Vec<LensCell> = (0..entropy.len()).map(cell).collect();
    all.chunks(positions.max(1)).map(<[LensCell]>::to_vec).collect()
}

/// What the parts of a model add at one position, and where its heads look from there; `patterns` is `[L, H, T, T]`.
/// Adapters have columns if the tuned model is `adapted`.
fn contributions_of(x: &Attribution, patterns: &Tensor, position: usize, adapted: bool) -> InsideContributions {
    let at = |x: &Tensor| x.select(-1, position as i64);
    let one = |x: &Tensor| at(x).double_value(&[]) as f32;
    let mut parts = vec![("embeddings".to_owned(), one(&x.embed))];
    parts.extend(x.pos_embed.as_ref().map(|x| ("positions".to_owned(), one(x))));
    let attention = at(&x.heads).sum_dim_intlist(-1, false, Kind::Float) + at(&x.attn_bias) + at(&x.attn_adapter);
    let mlp = at(&x.mlp) + at(&x.mlp_adapter);
    for (block, (attention, mlp)) in numbers(&attention).into_iter().zip(numbers(&mlp)).enumerate() {
        parts.push((format!("{block} attention"), attention));
        parts.push((format!("{block} MLP"), mlp));
    }
    parts.push(("bias of the last norm".to_owned(), x.constant as f32));
    let map = contributions(x, position, "");
    let (width, heads) = (map.columns.len(), x.heads.size()[1] as usize);
    let values: Vec<f32> = map.values.into_iter().map(|value| value as f32).collect();
    let kept: Vec<usize> = (0..width).filter(|column| adapted || !map.columns[*column].ends_with("adapter")).collect();
    let columns = kept.iter().map(|column| map.columns[*column].trim_start_matches("head ").to_owned()).collect();
    let values = values.chunks(width).flat_map(|row| kept.iter().map(|column| row[*column])).collect();
    let attention = numbers(&patterns.select(2, position as i64));
    InsideContributions { parts, map: InsideGrid { rows: map.rows, columns, values }, heads, attention }
}

/// A model's attention patterns, `[L, H, T, T]`.
fn attention_of(x: &Tensor, tokens: &[u32]) -> InsideAttention {
    let scores = head_scores(x, tokens);
    let kinds = [&scores.first, &scores.previous, &scores.induction, &scores.duplicate].map(numbers);
    let size = x.size();
    InsideAttention {
        shape: [0, 1, 2].map(|axis| size[axis] as usize),
        patterns: numbers(x),
        kinds: (0..kinds[0].len()).map(|head| [0, 1, 2, 3].map(|kind: usize| kinds[kind][head])).collect(),
    }
}

fn moved_word(tokenizer: &Tokenizer, moved: &MovedToken) -> MovedWord {
    MovedWord {
        word: word(tokenizer, moved.token),
        probabilities: [moved.base, moved.tuned],
        contribution: moved.contribution,
    }
}
