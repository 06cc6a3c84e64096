//! Activation patching (Vig et al. 2020; Meng et al. 2022): a run in which one activation comes from another run. The
//! other run may be of another prompt, or of another version of the model.
//!
//! A score is (M_patched − M_target) / (M_source − M_target) of a metric M: 0 if the activation carries nothing of the
//! difference between the runs, 1 if it carries all of it.

use super::trace::on_cpu;
use super::{Change, Edit, InterpError, Metric, Start, Subject, Trace};
use crate::config::QkNorm;
use crate::model::{Cache, HookPoint, Site};
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// Tokens that a batch of patched runs has at most, so that its activations stay small.
const BATCH_TOKENS: i64 = 4096;

/// One run: a model and its tokens, `[1, T]`.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The model.
    pub subject: Subject<'a>,
    /// The tokens.
    pub tokens: &'a Tensor,
}

/// What is patched, one cell after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grid {
    /// A residual stream or what is written into it, `[blocks, positions]`: [`Site::ResidPre`], [`Site::ResidMid`],
    /// [`Site::ResidPost`], [`Site::AttnOut`] or [`Site::MlpOut`].
    Positions(Site),
    /// An activation with heads at all positions, `[blocks, heads]`: [`Site::Z`], [`Site::Pattern`], [`Site::Q`],
    /// [`Site::K`], [`Site::V`] and the others.
    Heads(Site),
    /// What each head mixed ([`Site::Z`]), `[blocks, heads, positions]`.
    HeadPositions,
}

/// The scores of patching.
#[derive(Debug)]
pub struct Patching {
    /// The metric of the run that is changed.
    pub target: f64,
    /// The metric of the run that activations come from.
    pub source: f64,
    /// The scores of the cells, as the grid has them.
    pub scores: Tensor,
    /// The score of taking the other model's last norm and unembedding and nothing else; 0 within one model.
    pub unembed: f64,
}

impl Grid {
    /// The activation that is patched.
    pub fn site(self) -> Site {
        match self {
            Grid::Positions(site) | Grid::Heads(site) => site,
            Grid::HeadPositions => Site::Z,
        }
    }

    /// Its name in files: `resid_pre`, `attn_out`, `z`, `z_by_position`, ….
    pub fn name(self) -> String {
        let site = self.site().name().trim_start_matches("attn.").trim_start_matches("hook_");
        if self == Grid::HeadPositions { format!("{site}_by_position") } else { site.to_owned() }
    }

    /// The grid of this name.
    pub fn of_name(name: &str) -> Option<Grid> {
        Grid::ALL.into_iter().find(|grid| grid.name() == name)
    }

    /// All grids.
    pub const ALL: [Grid; 11] = [
        Grid::Positions(Site::ResidPre),
        Grid::Positions(Site::ResidMid),
        Grid::Positions(Site::ResidPost),
        Grid::Positions(Site::AttnOut),
        Grid::Positions(Site::MlpOut),
        Grid::Heads(Site::Z),
        Grid::Heads(Site::Pattern),
        Grid::Heads(Site::Q),
        Grid::Heads(Site::K),
        Grid::Heads(Site::V),
        Grid::HeadPositions,
    ];

    /// The axis of the activation whose places are the cells of a block.
    fn axis(self) -> i64 {
        match self {
            Grid::Positions(site) => site.position_axis(),
            Grid::Heads(site) => site.head_axis().unwrap_or(2),
            Grid::HeadPositions => 1,
        }
    }
}

/// [`patch`] in parts: both runs, with what patching needs of them. The scores of a block are computed whenever there
/// is time.
#[derive(Debug)]
pub struct PatchRuns {
    metric: Metric,
    /// The target's tokens, `[1, T]`.
    tokens: Tensor,
    of_target: Trace,
    of_source: Trace,
    /// Whether the target's trace has what changes of the last columns alone need.
    tail: bool,
    /// The metric of target and source.
    pub ends: [f64; 2],
    /// As [`Patching::unembed`].
    pub unembed: f64,
}

/// A single number as f64.
pub(super) fn number(x: &Tensor) -> f64 {
    x.double_value(&[0])
}

impl PatchRuns {
    /// Runs both, for patching these grids.
    ///
    /// # Errors
    ///
    /// As [`patch`].
    pub fn new(target: Run, source: Run, metric: Metric, grids: &[Grid]) -> Result<PatchRuns, InterpError> {
        grids.iter().try_for_each(|&grid| check_grid(&target.subject, grid))?;
        target.subject.check_alike(&source.subject)?;
        let [t, s] = [target, source].map(|run| run.tokens.size()[1]);
        if t != s {
            return Err(InterpError::Tokens(format!(
                "The two prompts have {t} and {s} tokens; patching needs prompts of one length, so that positions \
                 correspond."
            )));
        }
        let by_column = grids.iter().any(|grid| !matches!(grid, Grid::Heads(_)));
        let before = if by_column { sites_before(&target.subject) } else { vec![] };
        let sites: Vec<Site> = std::iter::once(Site::ResidPre).chain(grids.iter().map(|grid| grid.site())).collect();
        let trace = |run: Run, more: &[HookPoint]| {
            let wanted = sites.iter().flat_map(|&site| run.subject.in_every_block(site)).chain(more.iter().copied());
            run.subject.trace(Start::Tokens(run.tokens), &wanted.collect(), &[])
        };
        let (of_target, of_source) = (trace(target, &before)?, trace(source, &[])?);
        let read = |reader: &Subject, trace: &Trace, run: Run| {
            tch::no_grad(|| metric.read(reader, &reader.norm(&trace.end), run.tokens).map(|m| number(&m)))
        };
        let ends = [read(&target.subject, &of_target, target)?, read(&source.subject, &of_source, source)?];
        check_apart(ends, metric)?;
        let unembed = share(read(&source.subject, &of_target, target)?, ends);
        let tokens = target.tokens.shallow_clone();
        Ok(PatchRuns { metric, tokens, of_target, of_source, tail: !before.is_empty(), ends, unembed })
    }

    /// The scores of a block's cells, as the grid has them, without its first axis. `target` is the model of the run
    /// that is changed. `on_batch` is called before every batch of runs; if it returns true, the work is cancelled.
    ///
    /// # Errors
    ///
    /// A grid that the runs were not made for, or cancellation.
    pub fn block(
        &self,
        target: &Subject,
        grid: Grid,
        block: usize,
        on_batch: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, InterpError> {
        let (site, length) = (grid.site(), self.tokens.size()[1]);
        let (x, other) = (self.of_target.get(site, block)?, self.of_source.get(site, block)?);
        let run = Run { subject: *target, tokens: &self.tokens };
        let mut scores = Vec::new();
        let mut add = |value: Tensor, first: i64| {
            if on_batch() {
                return Err(InterpError::Cancelled);
            }
            let metric = patched(&run, self.metric, &self.of_target, site.of(block), value, first)?;
            scores.push((metric.to_kind(Kind::Double) - self.ends[0]) / (self.ends[1] - self.ends[0]));
            Ok(())
        };
        tch::no_grad(|| match grid {
            Grid::HeadPositions => (0..x.size()[2]).try_for_each(|head| {
                // Only this head's part differs from the target's.
                let mixed = x.copy();
                mixed.select(2, head).copy_(&other.select(2, head));
                copies(x, &mixed, 1, length, self.tail, &mut add)
            }),
            Grid::Heads(_) => copies(x, other, grid.axis(), length, false, &mut add),
            Grid::Positions(_) => copies(x, other, grid.axis(), length, self.tail, &mut add),
        })?;
        let scores = Tensor::cat(&scores, 0);
        Ok(if grid == Grid::HeadPositions { scores.reshape([-1, length]) } else { scores })
    }

    /// What was found, from the scores of all blocks.
    fn found(&self, blocks: &[Tensor]) -> Patching {
        let scores = on_cpu(&Tensor::stack(blocks, 0));
        Patching { target: self.ends[0], source: self.ends[1], scores, unembed: self.unembed }
    }
}

/// The share of the way from one end to the other.
fn share(metric: f64, [target, source]: [f64; 2]) -> f64 {
    (metric - target) / (source - target)
}

/// Refuses two runs whose metrics are too close to be told apart by shares.
fn check_apart([target, source]: [f64; 2], metric: Metric) -> Result<(), InterpError> {
    match (target - source).abs() < 1e-3 {
        false => Ok(()),
        true => Err(InterpError::Undefined(format!(
            "The {} is {target:.6} in one run and {source:.6} in the other; shares of so small a difference mean \
             nothing, so take tokens or prompts in which the runs differ.",
            metric.name()
        ))),
    }
}

/// The metric of runs whose activation at `point` is `value`, `[rows, ..]`, and which are otherwise the run of `trace`:
/// `[rows]`. They start from the residual stream before that block, which the trace must have.
///
/// A value of the last columns alone, `[rows, T - first, ..]`, leaves those before as they are. What attention reads of
/// them comes from the trace, if that has [`sites_before`].
pub(super) fn patched(
    run: &Run,
    metric: Metric,
    trace: &Trace,
    point: HookPoint,
    value: Tensor,
    first: i64,
) -> Result<Tensor, InterpError> {
    let rows = value.size()[0];
    let columns = run.tokens.size()[1] - first;
    let whole = |x: &Tensor| x.narrow(1, first, columns).expand([rows, -1, -1], false).contiguous();
    let (block, x, edits) = match point.site {
        Site::ResidPre => (point.block, value, vec![]),
        Site::ResidPost => (point.block + 1, value, vec![]),
        _ => {
            let before = whole(trace.get(Site::ResidPre, point.block)?);
            (point.block, before, vec![Edit::whole(point, Change::Value(value))])
        }
    };
    let start = Start::Residual(block, &x);
    let blocks = run.subject.blocks();
    // Of the last block, the metric reads few columns. Where that block is edited, the edit is of all.
    let is_whole = block == blocks || (!edits.is_empty() && block + 1 == blocks);
    let from = if is_whole { 0 } else { (metric.first_position() as i64 - first).clamp(0, columns - 1) };
    tch::no_grad(|| {
        let mut cache = None;
        if first > 0 {
            let before = |x: &Tensor| x.narrow(1, 0, first).transpose(1, 2);
            let of_block = |i: usize| -> Result<Option<[Tensor; 2]>, InterpError> {
                if i < block {
                    return Ok(None);
                }
                let keys = if run.subject.has(Site::RotK.of(i)) { Site::RotK } else { Site::K };
                Ok(Some([before(trace.get(keys, i)?), before(trace.get(Site::V, i)?)]))
            };
            let prefix = (0..blocks).map(of_block).collect::<Result<Vec<_>, _>>()?;
            cache = Some(Cache::filled_with(&prefix, rows, columns));
        }
        let found = run.subject.rerun(start, cache.as_mut(), from, &edits)?;
        let unread = trace.normed.narrow(1, 0, first + from).expand([rows, -1, -1], false);
        metric.read(&run.subject, &Tensor::cat(&[unread, found.normed], 1), run.tokens)
    })
}

/// The sites that a run's trace needs for changes of its last columns alone; none if it has to be run whole.
fn sites_before(subject: &Subject) -> Vec<HookPoint> {
    let rotary = |block: usize| subject.has(Site::RotK.of(block));
    let keys = |block: usize| if rotary(block) { Site::RotK.of(block) } else { Site::K.of(block) };
    let blocks = 0..subject.blocks();
    // Keys before their norm are not what attention reads.
    match subject.config().qk_norm == QkNorm::None || blocks.clone().all(rotary) {
        true => blocks.flat_map(|block| [keys(block), Site::V.of(block)]).collect(),
        false => vec![],
    }
}

/// Batches of copies of an activation `[1, ..]`, in each of which one place along `axis` is another activation's.
/// `on_batch` gets the copies and the first column that they have: with `tail`, where the axis is that of the columns,
/// those before the changed ones are left out.
pub(super) fn copies(
    x: &Tensor,
    other: &Tensor,
    axis: i64,
    of_row: i64,
    tail: bool,
    on_batch: &mut dyn FnMut(Tensor, i64) -> Result<(), InterpError>,
) -> Result<(), InterpError> {
    let places = x.size()[axis as usize];
    let mut most = (BATCH_TOKENS / of_row.max(1)).max(1);
    if tail {
        // Larger batches have more columns that do not change, smaller ones read the weights more often.
        most = most.min((places / 8).max(8));
    }
    let mut first = 0;
    while first < places {
        let rows = most.min(places - first);
        let start = if tail { first } else { 0 };
        let x = x.narrow(axis, start, places - start);
        let size: Vec<i64> = std::iter::once(rows).chain(x.size()[1..].iter().copied()).collect();
        let value = x.expand(&size, false).copy();
        // Its diagonal along rows and places: row r has place `first + r` of the other.
        let part = other.select(0, 0).movedim_int(axis - 1, -1).narrow(-1, first, rows);
        value.narrow(axis, first - start, rows).diagonal(0, 0, axis).copy_(&part);
        on_batch(value, start)?;
        first += rows;
    }
    Ok(())
}

/// Patches one cell after the other. `on_block` is called before every block with the number of blocks done; if it
/// returns true, the work is cancelled.
///
/// # Errors
///
/// Models or prompts that do not correspond; runs that do not differ; a site without heads for [`Grid::Heads`];
/// cancellation.
pub fn patch(
    target: Run,
    source: Run,
    metric: Metric,
    grid: Grid,
    on_block: &mut dyn FnMut(usize) -> bool,
) -> Result<Patching, InterpError> {
    let runs = PatchRuns::new(target, source, metric, &[grid])?;
    let mut blocks = Vec::new();
    for block in 0..target.subject.blocks() {
        if on_block(block) {
            return Err(InterpError::Cancelled);
        }
        blocks.push(runs.block(&target.subject, grid, block, &mut || false)?);
    }
    Ok(runs.found(&blocks))
}

/// Attribution patching (Nanda 2023): the gradient's guess at [`patch`], (source − target) · ∂M/∂activation, from one
/// backward pass.
///
/// # Errors
///
/// As [`patch`].
pub fn attribution_patch(target: Run, source: Run, metric: Metric, grid: Grid) -> Result<Patching, InterpError> {
    let site = grid.site();
    let runs = PatchRuns::new(target, source, metric, &[grid])?;
    let wanted: BTreeSet<HookPoint> = target.subject.in_every_block(site).collect();
    let zero = Tensor::zeros([1], (Kind::Float, target.subject.device())).set_requires_grad(true);
    let read =
        |trace: &Trace| metric.read(&target.subject, &trace.normed, target.tokens).unwrap_or(zero.shallow_clone());
    let (_, gradients) = target.subject.gradients(target.tokens, &wanted, &read)?;
    let mut blocks = Vec::new();
    for (point, gradient) in &gradients {
        let change = runs.of_source.get(site, point.block)? - runs.of_target.get(site, point.block)?;
        // Where nothing is attended to, scores are −∞ in both runs, and their difference is none.
        let product = (change * gradient).nan_to_num(0.0, 0.0, 0.0).select(0, 0);
        let kept: &[i64] = match grid {
            Grid::HeadPositions => &[1, 0],
            _ => &[grid.axis() - 1],
        };
        let others: Vec<i64> = (0..product.dim() as i64).filter(|axis| !kept.contains(axis)).collect();
        let sums = product.sum_dim_intlist(&others[..], false, Kind::Double);
        let sums = if grid == Grid::HeadPositions { sums.tr() } else { sums };
        blocks.push(sums / (runs.ends[1] - runs.ends[0]));
    }
    Ok(runs.found(&blocks))
}

/// Refuses a grid that the model does not have.
fn check_grid(subject: &Subject, grid: Grid) -> Result<(), InterpError> {
    let site = grid.site();
    let fits = match grid {
        Grid::Positions(site) => {
            matches!(site, Site::ResidPre | Site::ResidMid | Site::ResidPost | Site::AttnOut | Site::MlpOut)
        }
        Grid::Heads(site) => site.head_axis().is_some() && site != Site::AttnScores,
        Grid::HeadPositions => true,
    };
    match fits && subject.has(site.of(0)) {
        true => Ok(()),
        false => {
            let names: Vec<String> = Grid::ALL.into_iter().map(Grid::name).collect();
            let hint = format!("patching knows {}", names.join(", "));
            Err(InterpError::UnknownName { name: grid.name(), hint })
        }
    }
}
