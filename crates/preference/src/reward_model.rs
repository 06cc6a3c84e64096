//! The reward model: a function of (observation, action) that is fitted to judgements. It is an ensemble of small
//! networks, after Christiano et al. (2017), or draws of a Gaussian process (`gaussian_process.rs`).
//!
//! A clip's return under a member is the sum of the member's output over its env steps. The likelihood of a judgement
//! is Bradley–Terry on two such returns (`preference_loss`), and `fit.rs` maximises it. The policy's reward is the mean
//! of the members. Each is first normalised to mean 0 and standard deviation 1 over the policy's recent env steps,
//! since only differences of reward mean anything.

use super::ensemble::Ensemble;
use super::gaussian_process::GaussianProcess;
use super::rank::disagreement;
use super::similarity::moments;
use super::{Comparison, PreferenceError};
use flipside_core::settings::{RewardModelKind, RewardModelSettings};
use flipside_core::{Array, Arrays, Frames, Seed, Stream};
use flipside_learn::{Adam, LearnError, Reader, RunningNorm, numbers, preference_probability};
use rand::RngExt;
use std::collections::HashMap;
use tch::{Kind, Tensor};

/// Rows that [`RewardModel::rewards`] computes at a time. Their hidden units fit into the cache.
const CHUNK: usize = 1024;

/// Normalised inputs are clipped to ± this. States further out were hardly ever judged, so the reward must not grow
/// there.
pub(super) const INPUT_BOUND: f32 = 5.0;

/// Draws of a Gaussian process: four, and their mirror images.
const DRAWS: usize = 8;

/// Lower bound of an input's standard deviation, in the input's unit (m, rad, m/s …). Without it, noise in an almost
/// constant input would be amplified.
const LEAST_SPREAD: f64 = 1e-2;

/// A reward model: fitted to comparisons, it gives rewards and says how uncertain it is about pairs. The same seed and
/// the same calls give the same numbers.
#[derive(Debug)]
pub struct RewardModel {
    pub(super) settings: RewardModelSettings,
    pub(super) obs_dim: usize,
    act_dim: usize,
    /// Indices of the observation's numbers that are inputs.
    pub(super) seen: Vec<usize>,
    pub(super) ensemble: Ensemble,
    pub(super) adam: Adam,
    /// Replaces the networks if the settings say so; the networks are then unused.
    pub(super) process: Option<GaussianProcess>,
    /// Seeds the bags: which member trains on which comparison.
    bags: Seed,
    /// Draws minibatches and the env steps sampled from clips.
    pub(super) stream: Stream,
    pub(super) input: InputNorm,
    /// Each member's output over recent policy data: `[mean, standard deviation]`.
    pub(super) output: Vec<[f64; 2]>,
    /// Each member's weight decay, as adapted so far.
    pub(super) l2: Vec<f64>,
    /// What an output of 1 adds to a clip's return at each env step. The first fit sets it from the clips' mean length,
    /// so that learning is equally fast for every task's time step.
    pub(super) unit: f64,
    /// Completed fits.
    pub(super) fits: u64,
}

impl RewardModel {
    /// An untrained model for observations of `obs_dim` and actions of `act_dim` numbers.
    pub fn new(obs_dim: usize, act_dim: usize, settings: RewardModelSettings, seed: Seed) -> RewardModel {
        let members = match settings.kind {
            RewardModelKind::Networks => settings.members.max(1),
            RewardModelKind::GaussianProcess => DRAWS,
        };
        let seen: Vec<usize> = (0..obs_dim).filter(|i| !settings.ignored_inputs.contains(i)).collect();
        let inputs = seen.len() + if settings.sees_actions { act_dim } else { 0 };
        let ensemble = Ensemble::new(
            members,
            inputs,
            settings.products,
            settings.hidden.max(1),
            &mut seed.stream("reward/weights"),
        );
        let process = (settings.kind == RewardModelKind::GaussianProcess)
            .then(|| GaussianProcess::new(members, inputs, &mut seed.stream("reward/features")));
        RewardModel {
            adam: Adam::new(&[ensemble.parameters()], 1e-8),
            process,
            ensemble,
            bags: Seed(seed.stream("reward/bags").random()),
            stream: seed.stream("reward/fit"),
            input: InputNorm { mean: vec![0.0; inputs], scale: vec![1.0; inputs] },
            output: vec![[0.0, 1.0]; members],
            l2: vec![settings.l2; members],
            unit: 1.0,
            fits: 0,
            obs_dim,
            act_dim,
            seen,
            settings,
        }
    }

    /// Networks in the ensemble, or draws of the Gaussian process.
    pub fn members(&self) -> usize {
        self.output.len()
    }

    /// The label-noise rate: the share of answers assumed to be random. From the settings, or learnt by a Gaussian
    /// process.
    pub fn error_rate(&self) -> f64 {
        let believed = self.settings.error_rate;
        self.process.as_ref().map_or(believed, |process| process.error_rate(believed))
    }

    /// Whether a fit was completed. Before that, the rewards are those of random networks.
    pub fn is_fitted(&self) -> bool {
        self.fits > 0
    }

    /// The reward of each of `n` env steps, `[n]`: the mean of the members, each normalised by the last
    /// [`RewardModel::renormalise`]. `obs` is `[n, O]`, `actions` `[n, A]` as the robot received them. A row with a NaN
    /// gives a NaN.
    pub fn rewards(&self, obs: &[f32], actions: &[f32], n: usize) -> Vec<f32> {
        assert_eq!((obs.len(), actions.len()), (n * self.obs_dim, n * self.act_dim), "sizes of obs and actions");
        self.votes(obs, actions).into_iter().map(|[mean, _]| mean as f32).collect()
    }

    /// Normalises each member to mean 0 and standard deviation 1 over these env steps of the recent policy, `[n, O]`
    /// and `[n, A]`. Call it after a fit, before using the new reward. The statistics stay fixed until the next call,
    /// so that the whole rollout is scored by the same reward.
    pub fn renormalise(&mut self, obs: &[f32], actions: &[f32]) -> Result<(), PreferenceError> {
        let n = obs.len() / self.obs_dim.max(1);
        size("the actions beside the observations", n * self.act_dim, actions.len())?;
        if n == 0 {
            return Ok(());
        }
        if self.fits == 0 {
            // No clips were judged yet, so these steps give the best estimate of the inputs' range.
            let input = InputNorm::of(&self.join(obs, actions));
            finite(&input.mean, "the observations' mean")?;
            self.input = input;
        }
        let mut statistics: Vec<RunningNorm> = self.output.iter().map(|_| RunningNorm::new(1)).collect();
        self.each_chunk(obs, actions, |member, _, outputs| statistics[member].absorb(outputs));
        let mut output: Vec<[f64; 2]> = statistics.iter().map(|s| [s.mean()[0], s.var()[0].sqrt().max(1e-8)]).collect();
        if self.process.is_some() {
            // The draws scatter around one function, so they share one scale: the standard deviation of their mean.
            let deviation = self.mean_deviation(obs, actions);
            output.iter_mut().for_each(|of| of[1] = deviation);
        }
        if output.iter().flatten().all(|x| x.is_finite()) {
            self.output = output;
            Ok(())
        } else {
            Err(LearnError::NotFinite { what: "the reward's mean over the policy's recent steps".to_owned() }.into())
        }
    }

    /// The members' mean probability that a teacher prefers `left`. It includes the label-noise rate, so it never
    /// reaches 0 or 1 unless that rate is 0.
    pub fn predict(&self, left: &Frames, right: &Frames) -> f64 {
        let members = self.probabilities(&[(left, right)], usize::MAX);
        members.iter().map(|p| f64::from(p[0])).sum::<f64>() / members.len() as f64
    }

    /// How much the members disagree about each pair: the variance between them of the probability that `left` is
    /// preferred.
    pub fn disagreement(&self, pairs: &[(&Frames, &Frames)]) -> Vec<f32> {
        disagreement(&self.probabilities(pairs, self.settings.rows))
    }

    /// The ensemble standard deviation at these env steps, `[n, O]` and `[n, A]`: the standard deviation between the
    /// members' rewards, normalised as in [`RewardModel::rewards`], averaged over the steps. 0 if there are none.
    pub fn ensemble_std(&self, obs: &[f32], actions: &[f32]) -> f64 {
        let votes = self.votes(obs, actions);
        votes.iter().map(|[_, deviation]| deviation).sum::<f64>() / votes.len().max(1) as f64
    }

    /// The mean of [`RewardModel::ensemble_std`] over the judged clips.
    pub fn judged_spread(&self, comparisons: &[Comparison]) -> f64 {
        let clips = comparisons.iter().flat_map(|c| [c.left, c.right]);
        let spreads: Vec<f64> = clips.map(|clip| self.ensemble_std(&clip.obs, &clip.actions)).collect();
        spreads.iter().sum::<f64>() / spreads.len().max(1) as f64
    }

    /// Mean and standard deviation over the members' normalised rewards, of each env step.
    fn votes(&self, obs: &[f32], actions: &[f32]) -> Vec<[f64; 2]> {
        let mut sums = vec![[0.0_f64; 2]; obs.len() / self.obs_dim.max(1)];
        self.each_chunk(obs, actions, |member, start, outputs| {
            let [mean, deviation] = self.output[member];
            let scale = 1.0 / deviation;
            for (sum, &output) in sums[start..].iter_mut().zip(outputs) {
                let reward = (f64::from(output) - mean) * scale;
                sum[0] += reward;
                sum[1] += reward * reward;
            }
        });
        let members = self.members() as f64;
        for [sum, squares] in &mut sums {
            *sum /= members;
            // Not `max`, which would turn a NaN into 0.
            let variance = *squares / members - *sum * *sum;
            *squares = if variance < 0.0 { 0.0 } else { variance.sqrt() };
        }
        sums
    }

    /// Features of a clip: the mean, then the standard deviation, of each input of the networks. Inputs are normalised
    /// over the clips judged so far.
    pub(super) fn features(&self, clip: &Frames) -> Vec<f32> {
        let mut rows = self.join(&clip.obs, &clip.actions).numbers;
        self.input.apply(&mut rows);
        moments(&rows, self.input.mean.len())
    }

    /// How often the comparison with this id is in a member's bag: Poisson(1) distributed, the limit of the bootstrap
    /// (Oza and Russell 2001). It depends on seed, member and id only, so a comparison stays inside or outside a bag in
    /// all fits. 1/e of the comparisons are held out, as in Christiano et al. (2017).
    pub(super) fn bag_count(&self, member: usize, id: u64) -> usize {
        let draw: f64 = self.bags.stream(&format!("bag/{member}/{id}")).random();
        let (mut term, mut total, mut count) = ((-1.0_f64).exp(), (-1.0_f64).exp(), 0);
        while draw >= total && count < 8 {
            count += 1;
            term /= count as f64;
            total += term;
        }
        count
    }

    /// Each member's probability that the left clip of each pair is preferred, `[members][pairs]`, from up to `rows`
    /// env steps of each clip.
    pub(super) fn probabilities(&self, pairs: &[(&Frames, &Frames)], rows: usize) -> Vec<Vec<f32>> {
        if pairs.is_empty() {
            return vec![Vec::new(); self.members()];
        }
        let table = ClipTable::new(pairs.iter().flat_map(|&(left, right)| [left, right]), self);
        let returns = table.returns(self, rows);
        let side = |pick: fn(&(&Frames, &Frames)) -> *const Frames| {
            let places: Vec<i64> = pairs.iter().map(|pair| table.places[&pick(pair)] as i64).collect();
            returns.index_select(1, &Tensor::from_slice(&places))
        };
        let difference = side(|pair| pair.0) - side(|pair| pair.1);
        let flat = numbers(&preference_probability(&difference, self.error_rate()));
        (0..self.members()).map(|m| flat[m * pairs.len()..(m + 1) * pairs.len()].to_vec()).collect()
    }

    /// Everything that a resumed run needs to continue bit for bit.
    pub fn to_arrays(&self) -> Arrays {
        let mut arrays = Arrays::new();
        self.ensemble.to_arrays(&mut arrays);
        self.adam.to_arrays("adam", &mut arrays);
        if let Some(process) = &self.process {
            process.to_arrays(&mut arrays);
        }
        let inputs = self.input.mean.len();
        arrays.insert("input.mean".into(), Array::f32(&[inputs], self.input.mean.clone()));
        arrays.insert("input.scale".into(), Array::f32(&[inputs], self.input.scale.clone()));
        arrays.insert("output".into(), Array::f64(&[self.members(), 2], self.output.concat()));
        arrays.insert("l2".into(), Array::f64(&[self.members()], self.l2.clone()));
        arrays.insert("unit".into(), Array::f64(&[1], vec![self.unit]));
        arrays.insert("bags".into(), Array::u64(vec![self.bags.0]));
        arrays.insert("stream".into(), Array::u64(self.stream.state().to_vec()));
        arrays.insert("fits".into(), Array::u64(vec![self.fits]));
        arrays
    }

    /// Whether these arrays are of a model of the same kind: networks or a Gaussian process.
    pub fn is_kind_of(&self, arrays: &Arrays) -> bool {
        self.process.is_some() == GaussianProcess::is_in(arrays)
    }

    /// Loads what [`RewardModel::to_arrays`] gave for a model of the same sizes. Refuses arrays that are missing or
    /// have other shapes; the model is then unchanged.
    pub fn load_arrays(&mut self, arrays: &Arrays) -> Result<(), PreferenceError> {
        let members = self.members();
        let inputs = self.input.mean.len();
        let reader = Reader(arrays);
        let ensemble = self.ensemble.restored(reader)?;
        let adam = self.adam.restored("adam", reader)?;
        let process = self.process.as_ref().map(|process| process.restored(reader)).transpose()?;
        let input = InputNorm {
            mean: reader.f32("input.mean", &[inputs])?.to_vec(),
            scale: reader.f32("input.scale", &[inputs])?.to_vec(),
        };
        let output = reader.f64("output", &[members, 2])?.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        let l2 = reader.f64("l2", &[members])?.to_vec();
        let unit = reader.f64("unit", &[1])?[0];
        let [bags] = reader.words("bags")?;
        let [fits] = reader.words("fits")?;
        let stream = reader.stream("stream")?;
        let (settings, obs_dim, act_dim) = (self.settings.clone(), self.obs_dim, self.act_dim);
        let (bags, seen) = (Seed(bags), self.seen.clone());
        *self = RewardModel {
            settings,
            obs_dim,
            act_dim,
            seen,
            ensemble,
            adam,
            process,
            bags,
            stream,
            input,
            output,
            l2,
            unit,
            fits,
        };
        Ok(())
    }

    /// A copy that can be trained while this one stays unchanged.
    pub(super) fn copy(&self) -> Result<RewardModel, PreferenceError> {
        let mut copy = RewardModel::new(self.obs_dim, self.act_dim, self.settings.clone(), Seed(0));
        copy.load_arrays(&self.to_arrays())?;
        Ok(copy)
    }

    /// Whether every clip has this model's sizes and finite numbers.
    pub(super) fn check(&self, comparisons: &[Comparison]) -> Result<(), PreferenceError> {
        for (i, comparison) in comparisons.iter().enumerate() {
            for frames in [comparison.left, comparison.right] {
                size(&format!("observation size of comparison {i}"), self.obs_dim, frames.obs_dim)?;
                size(&format!("action size of comparison {i}"), self.act_dim, frames.act_dim)?;
                size(&format!("observations of comparison {i}"), frames.steps * self.obs_dim, frames.obs.len())?;
                size(&format!("actions of comparison {i}"), frames.steps * self.act_dim, frames.actions.len())?;
                finite(&frames.obs, &format!("an observation of comparison {i}"))?;
                finite(&frames.actions, &format!("an action of comparison {i}"))?;
            }
            finite(&[comparison.target], &format!("the target of comparison {i}"))?;
        }
        Ok(())
    }

    /// The standard deviation, over these env steps, of the members' mean.
    fn mean_deviation(&self, obs: &[f32], actions: &[f32]) -> f64 {
        let mut sums = vec![0.0_f32; obs.len() / self.obs_dim.max(1)];
        self.each_chunk(obs, actions, |_, start, outputs| {
            sums[start..].iter_mut().zip(outputs).for_each(|(sum, output)| *sum += output);
        });
        let mut statistics = RunningNorm::new(1);
        statistics.absorb(&sums);
        (statistics.var()[0].sqrt() / self.members() as f64).max(1e-8)
    }

    /// Each member's output at each normalised row: `[N, inputs]` → `[members, N]`.
    fn forward(&self, rows: &Tensor) -> Tensor {
        match &self.process {
            Some(process) => process.forward(rows),
            None => self.ensemble.forward(rows),
        }
    }

    /// Calls `each(member, first row, outputs)` for every member and chunk of rows.
    fn each_chunk(&self, obs: &[f32], actions: &[f32], mut each: impl FnMut(usize, usize, &[f32])) {
        let n = obs.len() / self.obs_dim.max(1);
        for start in (0..n).step_by(CHUNK) {
            let count = CHUNK.min(n - start);
            let (o, a) = (self.obs_dim, self.act_dim);
            let mut rows = self.join(&obs[start * o..][..count * o], &actions[start * a..][..count * a]).numbers;
            self.input.apply(&mut rows);
            let rows = Tensor::from_slice(&rows).view([count as i64, -1]);
            let outputs = tch::no_grad(|| numbers(&self.forward(&rows)));
            outputs.chunks_exact(count).enumerate().for_each(|(member, outputs)| each(member, start, outputs));
        }
    }

    /// `[n, O]` and `[n, A]` side by side, without the numbers that are not inputs.
    fn join(&self, obs: &[f32], actions: &[f32]) -> Rows {
        let width = self.input.mean.len();
        let mut numbers = Vec::with_capacity(obs.len() / self.obs_dim.max(1) * width);
        for (i, obs) in obs.chunks_exact(self.obs_dim).enumerate() {
            numbers.extend(self.seen.iter().map(|&place| obs[place]));
            if self.settings.sees_actions {
                numbers.extend_from_slice(&actions[i * self.act_dim..][..self.act_dim]);
            }
        }
        Rows { width, numbers }
    }
}

/// Raw network inputs, `[n, width]`.
pub(super) struct Rows {
    width: usize,
    numbers: Vec<f32>,
}

/// Maps every input to (x − mean) · scale, clipped to ±[`INPUT_BOUND`].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InputNorm {
    pub mean: Vec<f32>,
    pub scale: Vec<f32>,
}

impl InputNorm {
    /// The statistics of these rows.
    pub fn of(rows: &Rows) -> InputNorm {
        let mut statistics = RunningNorm::new(rows.width);
        statistics.absorb(&rows.numbers);
        let scale = |var: &f64| (1.0 / var.sqrt().max(LEAST_SPREAD)) as f32;
        InputNorm {
            mean: statistics.mean().iter().map(|&m| m as f32).collect(),
            scale: statistics.var().iter().map(scale).collect(),
        }
    }

    fn apply(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.mean.len()) {
            for ((x, mean), scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                // `clamp` keeps a NaN.
                *x = ((*x - mean) * scale).clamp(-INPUT_BOUND, INPUT_BOUND);
            }
        }
    }
}

/// Distinct clips, laid out once so that some of their env steps can be sampled many times.
pub(super) struct ClipTable {
    /// Each clip's index, by its address.
    pub places: HashMap<*const Frames, usize>,
    /// Each clip's first row and number of rows.
    spans: Vec<[usize; 2]>,
    /// `[Σ T, inputs]`, normalised.
    rows: Tensor,
}

impl ClipTable {
    /// A table of the distinct ones among these clips, as inputs of `model`.
    pub fn new<'a>(clips: impl IntoIterator<Item = &'a Frames>, model: &RewardModel) -> ClipTable {
        let (raw, places, spans) = ClipTable::gather(clips, model);
        ClipTable::normalised(raw, places, spans, &model.input)
    }

    /// The same, normalised with the input statistics of these clips, which it returns.
    pub fn with_own_statistics<'a>(
        clips: impl IntoIterator<Item = &'a Frames>,
        model: &RewardModel,
    ) -> (ClipTable, InputNorm) {
        let (raw, places, spans) = ClipTable::gather(clips, model);
        let input = InputNorm::of(&raw);
        (ClipTable::normalised(raw, places, spans, &input), input)
    }

    fn gather<'a>(
        clips: impl IntoIterator<Item = &'a Frames>,
        model: &RewardModel,
    ) -> (Rows, HashMap<*const Frames, usize>, Vec<[usize; 2]>) {
        let mut raw = Rows { width: model.input.mean.len(), numbers: Vec::new() };
        let (mut places, mut spans, mut at) = (HashMap::new(), Vec::new(), 0);
        for clip in clips {
            places.entry(std::ptr::from_ref(clip)).or_insert_with(|| {
                raw.numbers.extend(model.join(&clip.obs, &clip.actions).numbers);
                spans.push([at, clip.steps]);
                at += clip.steps;
                spans.len() - 1
            });
        }
        (raw, places, spans)
    }

    fn normalised(
        mut raw: Rows,
        places: HashMap<*const Frames, usize>,
        spans: Vec<[usize; 2]>,
        input: &InputNorm,
    ) -> ClipTable {
        input.apply(&mut raw.numbers);
        let rows = Tensor::from_slice(&raw.numbers).view([-1, raw.width as i64]);
        ClipTable { places, spans, rows }
    }

    /// Env steps of the longest clip.
    pub fn longest(&self) -> usize {
        self.spans.iter().map(|&[_, steps]| steps).max().unwrap_or(0)
    }

    /// Mean env steps of a clip.
    pub fn mean_length(&self) -> f64 {
        self.spans.iter().map(|&[_, steps]| steps as f64).sum::<f64>() / self.spans.len().max(1) as f64
    }

    /// Samples `count` env steps of each of these clips, one from each of `count` equal stretches: the middle one.
    /// With `jitter` they are drawn at random from a window of the clip, whose length is the given share of the clip's.
    ///
    /// Returns the rows, `[clips · count, inputs]`, and the factor that turns a clip's sum over them into an estimate
    /// of its sum over the whole clip, `[clips]`.
    pub fn sample_features(
        &self,
        clips: &[usize],
        count: usize,
        mut jitter: Option<(&mut Stream, f64)>,
    ) -> (Tensor, Tensor) {
        let (mut index, mut weights) = (Vec::with_capacity(clips.len() * count), Vec::with_capacity(clips.len()));
        for &clip in clips {
            let [start, steps] = self.spans[clip];
            weights.push((steps as f64 / count as f64) as f32);
            let (first, window) = match &mut jitter {
                Some((stream, window)) => (stream.random::<f64>() * (1.0 - *window) * steps as f64, *window),
                None => (0.0, 1.0),
            };
            let stretch = window * steps as f64 / count as f64;
            for k in 0..count {
                let phase = jitter.as_mut().map_or(0.5, |(stream, _)| stream.random::<f64>());
                let step = (first + (k as f64 + phase) * stretch) as usize;
                index.push((start + step.min(steps.saturating_sub(1))) as i64);
            }
        }
        (self.rows.index_select(0, &Tensor::from_slice(&index)), Tensor::from_slice(&weights))
    }

    /// Every clip's return under every member, `[members, clips]`, from up to `rows` env steps of each.
    pub fn returns(&self, model: &RewardModel, rows: usize) -> Tensor {
        let count = rows.min(self.longest()).max(1);
        let clips: Vec<usize> = (0..self.spans.len()).collect();
        let per_chunk = (CHUNK / count).max(1);
        let parts: Vec<Tensor> = tch::no_grad(|| {
            let part = |clips: &[usize]| {
                let (rows, weights) = self.sample_features(clips, count, None);
                model.returns_of(&rows, &weights, count)
            };
            clips.chunks(per_chunk).map(part).collect()
        });
        Tensor::cat(&parts, 1)
    }
}

impl RewardModel {
    /// Returns of clips from sampled rows: `rows` `[clips · count, inputs]` (or `[members, clips · count, inputs]`),
    /// `weights` `[clips]` (or `[members, clips]`) → `[members, clips]`.
    pub(super) fn returns_of(&self, rows: &Tensor, weights: &Tensor, count: usize) -> Tensor {
        let outputs = self.forward(rows).view([self.members() as i64, -1, count as i64]);
        outputs.sum_dim_intlist([2_i64].as_slice(), false, Kind::Float) * weights * self.unit
    }
}

fn size(what: &str, expected: usize, got: usize) -> Result<(), PreferenceError> {
    match expected == got {
        true => Ok(()),
        false => Err(LearnError::Size { what: what.to_owned(), expected, got }.into()),
    }
}

fn finite(numbers: &[f32], what: &str) -> Result<(), PreferenceError> {
    match numbers.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(LearnError::NotFinite { what: what.to_owned() }.into()),
    }
}
