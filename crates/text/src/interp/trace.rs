//! The traced pass: a forward pass in f32, with norms and attention written out, that reads and changes activations.

use super::InterpError;
use crate::config::ModelConfig;
use crate::model::{Cache, HookPoint, Hooks, Site, Transformer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// A model as it is looked into: with its adapters or without.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    model: &'a Transformer,
    adapters: bool,
}

/// Where a traced pass starts.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// Token ids, `[B, T]` (i64).
    Tokens(&'a Tensor),
    /// The residual stream before this block, `[B, T, d]` (f32).
    Residual(usize, &'a Tensor),
}

/// A change of an activation during a pass.
#[derive(Debug)]
pub struct Edit<'a> {
    /// Which activation.
    pub at: HookPoint,
    /// Which row of the batch; none for all.
    pub row: Option<usize>,
    /// Which head (of keys and values: key head); none for all.
    pub head: Option<usize>,
    /// Which positions (of scores and patterns: of the queries); none for all.
    pub positions: Option<Vec<usize>>,
    /// How.
    pub change: Change<'a>,
}

/// How an edit changes what it selects.
#[derive(Debug)]
pub enum Change<'a> {
    /// Replaces it. The value has the selection's shape, or one that is repeated to it.
    Value(Tensor),
    /// Multiplies it.
    Scale(f64),
    /// Adds this, of the selection's shape or one that is repeated to it.
    Add(Tensor),
    /// Replaces it by the same part of another trace, which has as many rows or one.
    From(&'a Trace),
}

/// What a traced pass found.
#[derive(Debug)]
pub struct Trace {
    activations: BTreeMap<HookPoint, Tensor>,
    /// The residual stream after the last block, `[B, T, d]`.
    pub end: Tensor,
    /// The last norm's output, `[B, T, d]`, which [`Subject::unembed`] reads.
    pub normed: Tensor,
}

impl Trace {
    /// The activation at this site of a block, as it was after all edits.
    ///
    /// # Errors
    ///
    /// It was not asked for.
    pub fn get(&self, site: Site, block: usize) -> Result<&Tensor, InterpError> {
        let point = site.of(block);
        self.activations.get(&point).ok_or_else(|| InterpError::NotTraced(point.to_string()))
    }

    /// All activations that were asked for.
    pub fn activations(&self) -> &BTreeMap<HookPoint, Tensor> {
        &self.activations
    }
}

impl<'a> Edit<'a> {
    /// A change of a whole activation.
    pub fn whole(at: HookPoint, change: Change<'a>) -> Edit<'a> {
        Edit { at, row: None, head: None, positions: None, change }
    }

    /// The edited copy of an activation.
    fn apply(&self, x: &Tensor) -> Result<Tensor, InterpError> {
        let site = self.at.site;
        let misfit = |reason: String| InterpError::Edit { at: self.at.to_string(), reason };
        let within = |what: &str, number: usize, axis: i64| match (number as i64) < x.size()[axis as usize] {
            true => Ok(number as i64),
            false => Err(misfit(format!("there is no {what} {number}, only {}", x.size()[axis as usize]))),
        };
        let positions = self.positions.as_ref().map(|positions| -> Result<Tensor, InterpError> {
            let all: Result<Vec<i64>, _> =
                positions.iter().map(|&position| within("position", position, site.position_axis())).collect();
            Ok(Tensor::from_slice(&all?).to_device(x.device()))
        });
        let positions = positions.transpose()?;
        let select = |x: &Tensor, row: Option<usize>| -> Result<Tensor, InterpError> {
            let mut part = x.shallow_clone();
            if let Some(row) = row {
                part = part.narrow(0, within("row", row, 0)?, 1);
            }
            if let Some(head) = self.head {
                let Some(axis) = site.head_axis() else { return Err(misfit("it has no heads".to_owned())) };
                part = part.narrow(axis, within("head", head, axis)?, 1);
            }
            Ok(part)
        };
        let chosen = |part: &Tensor| match &positions {
            Some(positions) => part.index_select(site.position_axis(), positions),
            None => part.shallow_clone(),
        };
        let edited = x.copy();
        let mut target = select(&edited, self.row)?;
        let old = chosen(&target);
        let repeated = |value: &Tensor| match spreads(&value.size(), &old.size()) {
            true => Ok(value.to_kind(x.kind()).to_device(x.device()).expand(old.size(), false)),
            false => Err(misfit(format!("the selection is {:?} and the value {:?}", old.size(), value.size()))),
        };
        let new = match &self.change {
            Change::Value(value) => repeated(value)?,
            Change::Scale(factor) => &old * *factor,
            Change::Add(value) => &old + repeated(value)?,
            Change::From(trace) => {
                let other = trace.get(site, self.at.block)?;
                let apart = other.size()[1..] != x.size()[1..];
                if apart || (other.size()[0] != 1 && other.size()[0] != x.size()[0]) {
                    return Err(misfit(format!("it is {:?} here and {:?} there", x.size(), other.size())));
                }
                repeated(&chosen(&select(other, self.row.filter(|_| other.size()[0] != 1))?))?
            }
        };
        match &positions {
            Some(positions) => drop(target.index_copy_(site.position_axis(), positions, &new)),
            None => target.copy_(&new),
        }
        Ok(edited)
    }
}

/// Whether a tensor of the first shape can be repeated to the second.
fn spreads(from: &[i64], to: &[i64]) -> bool {
    from.len() <= to.len() && from.iter().rev().zip(to.iter().rev()).all(|(from, to)| from == to || *from == 1)
}

/// The hooks of a traced pass.
struct Tracer<'a> {
    wanted: &'a BTreeSet<HookPoint>,
    edits: &'a [Edit<'a>],
    /// Which edits were made.
    made: Vec<bool>,
    found: BTreeMap<HookPoint, Tensor>,
    /// The first thing that went wrong.
    error: Option<InterpError>,
    /// Whether gradients of the activations are wanted.
    gradients: bool,
}

impl<'a> Tracer<'a> {
    fn new(wanted: &'a BTreeSet<HookPoint>, edits: &'a [Edit<'a>], gradients: bool) -> Tracer<'a> {
        let made = vec![false; edits.len()];
        Tracer { wanted, edits, made, found: BTreeMap::new(), error: None, gradients }
    }
}

impl Hooks for Tracer<'_> {
    const TRACES: bool = true;

    fn at(&mut self, site: Site, block: usize, x: Tensor) -> Tensor {
        let point = site.of(block);
        // Edited or not, an activation lies in memory in the same way, so that the kernels after it compute the same.
        let mut x = x.contiguous();
        if self.gradients && matches!(site, Site::Embed) {
            x = x.detach().set_requires_grad(true);
        }
        for (edit, made) in self.edits.iter().zip(&mut self.made).filter(|(edit, _)| edit.at == point) {
            *made = true;
            match edit.apply(&x) {
                Ok(edited) => x = edited,
                Err(error) => drop(self.error.get_or_insert(error)),
            }
        }
        if self.wanted.contains(&point) {
            self.found.insert(point, x.shallow_clone());
        }
        x
    }
}

impl<'a> Subject<'a> {
    /// This model with its adapters, or without.
    ///
    /// # Errors
    ///
    /// A family whose blocks have attention and MLP side by side.
    pub fn new(model: &'a Transformer, adapters: bool) -> Result<Subject<'a>, InterpError> {
        let model = model.with_or_without(adapters);
        match model.config().parallel {
            true => Err(InterpError::Parallel(model.config().family.label())),
            false => Ok(Subject { model, adapters }),
        }
    }

    /// The model's configuration.
    pub fn config(&self) -> &'a ModelConfig {
        self.model.config()
    }

    /// The model.
    pub fn model(&self) -> &'a Transformer {
        self.model
    }

    /// Whether its adapters are on.
    pub fn adapters(&self) -> bool {
        self.adapters
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.config().layers
    }

    /// The device of its tensors.
    pub fn device(&self) -> Device {
        self.model.device()
    }

    /// Token ids as a batch of one row, `[1, T]` (i64).
    ///
    /// # Errors
    ///
    /// No tokens, more than the model has positions for, or one beyond its vocabulary.
    pub fn tokens(&self, ids: &[u32]) -> Result<Tensor, InterpError> {
        self.rows(&[ids])
    }

    /// Rows of token ids of one length, `[B, T]` (i64).
    ///
    /// # Errors
    ///
    /// As [`Subject::tokens`]; rows of different lengths.
    pub fn rows(&self, rows: &[&[u32]]) -> Result<Tensor, InterpError> {
        let refuse = |reason: String| Err(InterpError::Tokens(reason));
        let length = rows.first().map_or(0, |row| row.len());
        let (context, vocabulary) = (self.config().context, self.config().vocabulary);
        if length == 0 {
            return refuse("There are no tokens to look at; give a prompt.".to_owned());
        }
        if let Some(other) = rows.iter().find(|row| row.len() != length) {
            return refuse(format!(
                "The prompts have {length} and {} tokens; give prompts of one length in tokens.",
                other.len()
            ));
        }
        if length > context {
            return refuse(format!(
                "The prompt has {length} tokens and the model {context} positions; shorten the prompt."
            ));
        }
        if let Some(token) = rows.iter().copied().flatten().find(|&&token| token as usize >= vocabulary) {
            return refuse(format!(
                "The token {token} is beyond the model's vocabulary of {vocabulary}; take the model's own tokenizer."
            ));
        }
        let ids: Vec<i64> = rows.iter().copied().flatten().map(|&token| i64::from(token)).collect();
        Ok(Tensor::from_slice(&ids).reshape([rows.len() as i64, length as i64]).to_device(self.device()))
    }

    /// Whether the model has this site.
    pub fn has(&self, point: HookPoint) -> bool {
        let config = self.config();
        let there = match point.site {
            Site::PosEmbed => config.rope.is_none(),
            Site::RotQ | Site::RotK => {
                config.blocks.get(point.block).is_some_and(|&block| config.rope_of(block).is_some())
            }
            Site::Ln1Scale | Site::Ln1Normalized | Site::Ln2Scale | Site::Ln2Normalized => self.model.norms_its_reads(),
            Site::MlpPreLinear => self.model.is_gated(),
            _ => true,
        };
        there && point.block < config.layers
    }

    /// The sites of these names. `*` stands for any characters, so that `blocks.*.attn.hook_z` is that of every block.
    ///
    /// # Errors
    ///
    /// A name that no site of this model has.
    pub fn sites(&self, names: &[&str]) -> Result<BTreeSet<HookPoint>, InterpError> {
        let blocks = |site: Site| if site.is_in_block() { self.blocks() } else { 1 };
        let all = Site::ALL.into_iter().flat_map(|site| (0..blocks(site)).map(move |block| site.of(block)));
        let all: Vec<(HookPoint, String)> =
            all.filter(|&point| self.has(point)).map(|point| (point, point.to_string())).collect();
        let mut found = BTreeSet::new();
        for name in names {
            let matching = all.iter().filter(|(_, full)| matches_pattern(name, full)).map(|(point, _)| *point);
            let matching: Vec<HookPoint> = matching.collect();
            found.extend(&matching);
            if matching.is_empty() {
                let last = self.blocks() - 1;
                let hint = format!(
                    "names are TransformerLens', such as `hook_embed` or `blocks.{last}.attn.hook_z`, with `*` for any \
                     part, and blocks go from 0 to {last}"
                );
                return Err(InterpError::UnknownName { name: (*name).to_owned(), hint });
            }
        }
        Ok(found)
    }

    /// This site of every block.
    pub fn in_every_block(&self, site: Site) -> impl Iterator<Item = HookPoint> + use<> {
        (0..self.blocks()).map(move |block| site.of(block))
    }

    /// A forward pass without gradients. It returns the activations `wanted`, as they are after the edits. Edits of
    /// one activation are made in their order.
    ///
    /// # Errors
    ///
    /// An activation that the pass does not come by, or an edit that does not fit or is never reached.
    pub fn trace(&self, start: Start, wanted: &BTreeSet<HookPoint>, edits: &[Edit]) -> Result<Trace, InterpError> {
        tch::no_grad(|| self.pass(start, None, 0, Tracer::new(wanted, edits, false)))
    }

    /// [`Subject::trace`] that keeps no activations. With a cache, its columns come before the start's, which is then a
    /// residual stream of the columns after them. The last block computes the columns from `from` on alone.
    pub(super) fn rerun(
        &self,
        start: Start,
        cache: Option<&mut Cache>,
        from: i64,
        edits: &[Edit],
    ) -> Result<Trace, InterpError> {
        tch::no_grad(|| self.pass(start, cache, from, Tracer::new(&BTreeSet::new(), edits, false)))
    }

    /// A forward pass from token ids `[B, T]`, and the gradient of a number that `metric` computes from it with respect
    /// to every activation in `wanted`. Where the number does not depend on an activation, its gradient is 0.
    ///
    /// # Errors
    ///
    /// As [`Subject::trace`].
    pub fn gradients(
        &self,
        tokens: &Tensor,
        wanted: &BTreeSet<HookPoint>,
        metric: &dyn Fn(&Trace) -> Tensor,
    ) -> Result<(Trace, BTreeMap<HookPoint, Tensor>), InterpError> {
        let trace = self.pass(Start::Tokens(tokens), None, 0, Tracer::new(wanted, &[], true))?;
        let activations: Vec<&Tensor> = trace.activations.values().collect();
        let found = Tensor::run_backward(&[metric(&trace)], &activations, false, false);
        let gradients = trace.activations.iter().zip(found).map(|((point, x), gradient)| {
            (*point, if gradient.defined() { gradient } else { x.zeros_like() }.detach())
        });
        let gradients = gradients.collect();
        Ok((trace, gradients))
    }

    fn pass(
        &self,
        start: Start,
        cache: Option<&mut Cache>,
        from: i64,
        mut tracer: Tracer,
    ) -> Result<Trace, InterpError> {
        let (first, x) = match start {
            Start::Tokens(ids) => (0, self.model.traced_embedding(ids, &mut tracer)),
            Start::Residual(block, x) => (block, x.shallow_clone()),
        };
        let end = self.model.traced_blocks(first..self.blocks(), x, from, cache, self.adapters, &mut tracer);
        let normed = self.model.traced_norm(&end, &mut tracer);
        if let Some(error) = tracer.error {
            return Err(error);
        }
        if let Some((edit, _)) = tracer.edits.iter().zip(&tracer.made).find(|(_, made)| !**made) {
            let reason = "this pass does not come by it".to_owned();
            return Err(InterpError::Edit { at: edit.at.to_string(), reason });
        }
        if let Some(point) = tracer.wanted.iter().find(|point| !tracer.found.contains_key(point)) {
            return Err(InterpError::NotTraced(point.to_string()));
        }
        Ok(Trace { activations: tracer.found, end, normed })
    }

    /// Token ids `[B, T]` → the residual stream before the first block, `[B, T, d]`.
    pub fn embed(&self, ids: &Tensor) -> Tensor {
        let nothing = BTreeSet::new();
        tch::no_grad(|| self.model.traced_embedding(ids, &mut Tracer::new(&nothing, &[], false)))
    }

    /// These blocks of a traced pass without edits, `[B, T, d]` → `[B, T, d]`.
    pub fn run_blocks(&self, blocks: Range<usize>, x: &Tensor) -> Tensor {
        let nothing = BTreeSet::new();
        let mut tracer = Tracer::new(&nothing, &[], false);
        tch::no_grad(|| self.model.traced_blocks(blocks, x.shallow_clone(), 0, None, self.adapters, &mut tracer))
    }

    /// The last norm of a residual stream, `[.., d]` → `[.., d]`.
    pub fn norm(&self, x: &Tensor) -> Tensor {
        self.model.traced_norm(x, &mut Tracer::new(&BTreeSet::new(), &[], false))
    }

    /// The logits of the last norm's output, `[.., d]` → `[.., vocabulary]`.
    pub fn unembed(&self, normed: &Tensor) -> Tensor {
        self.model.logits(normed)
    }

    /// The logits of the tokens of this range, from the last norm's output: `[.., d]` → `[.., tokens]`.
    pub(super) fn logits_within(&self, normed: &Tensor, tokens: Range<i64>) -> Tensor {
        let rows = self.model.unembedding().narrow(0, tokens.start, tokens.end - tokens.start);
        self.model.logits_by(normed, &rows)
    }

    /// The logits of these tokens alone, from the last norm's output: `[.., d]` → `[.., tokens]`.
    ///
    /// # Errors
    ///
    /// A token beyond the vocabulary.
    pub fn logits_of(&self, normed: &Tensor, tokens: &[u32]) -> Result<Tensor, InterpError> {
        Ok(self.model.logits_by(normed, &self.unembedding_of(tokens)?))
    }

    /// The logits of some tokens at each place, from the last norm's output there: `[T, d]` and `[T, K]` (i64) →
    /// `[T, K]`.
    pub(super) fn logits_at(&self, normed: &Tensor, tokens: &Tensor) -> Tensor {
        let rows = self.model.unembedding().detach().index_select(0, &tokens.flatten(0, 1)).to_kind(Kind::Float);
        let rows = rows.reshape([tokens.size()[0], tokens.size()[1], -1]);
        let logits = (rows * normed.unsqueeze(1)).sum_dim_intlist(-1, false, Kind::Float);
        match self.config().logit_cap {
            Some(cap) => (logits / cap).tanh() * cap,
            None => logits,
        }
    }

    /// The rows of these tokens in the unembedding, `[tokens, d]`, f32.
    pub(super) fn unembedding_of(&self, tokens: &[u32]) -> Result<Tensor, InterpError> {
        let vocabulary = self.config().vocabulary;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(InterpError::Tokens(format!(
                "The token {token} is beyond the model's vocabulary of {vocabulary}."
            )));
        }
        let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let rows = Tensor::from_slice(&tokens).to_device(self.device());
        Ok(self.model.unembedding().detach().index_select(0, &rows).to_kind(Kind::Float))
    }

    /// The logits of a residual stream, `[.., d]` → `[.., vocabulary]`.
    pub fn logits(&self, x: &Tensor) -> Tensor {
        self.unembed(&self.norm(x))
    }

    /// Whether another subject has the same parts, so that activations can go from one to the other.
    ///
    /// # Errors
    ///
    /// They differ; the error says in what.
    pub fn check_alike(&self, other: &Subject) -> Result<(), InterpError> {
        let (a, b) = (self.config(), other.config());
        let refuse = |what: &str, a: &dyn std::fmt::Display, b: &dyn std::fmt::Display| {
            Err(InterpError::Models(format!(
                "{what} is {a} in one and {b} in the other; take two versions of one model"
            )))
        };
        if a.family != b.family {
            return refuse("the family", &a.family.label(), &b.family.label());
        }
        for (what, a, b) in [
            ("the number of blocks", a.layers, b.layers),
            ("the size of a hidden state", a.width, b.width),
            ("the number of heads", a.heads, b.heads),
            ("the number of key heads", a.kv_heads, b.kv_heads),
            ("the size of a head", a.head_width, b.head_width),
            ("the size of the MLP", a.inner, b.inner),
            ("the vocabulary", a.vocabulary, b.vocabulary),
        ] {
            if a != b {
                return refuse(what, &a, &b);
            }
        }
        Ok(())
    }
}

/// Whether `text` has the form of `pattern`, in which `*` stands for any characters.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

/// The numbers of a tensor as f32 on the CPU.
pub(super) fn on_cpu(x: &Tensor) -> Tensor {
    x.detach().to_kind(Kind::Float).to_device(Device::Cpu)
}
