//! The reward model on the graphics device: it scores a rollout that is in device memory, and the host reads the
//! scores.

use super::RewardModel;
use super::reward_model::INPUT_BOUND;
use bytemuck::{Pod, Zeroable};
use flipside_gpu::{
    Bindings, Buffer, Checks, Definitions, Device, DeviceError, Kernel, MOST_TURNS, RolloutLayout, Source,
    SubmissionSizer, UniformCache, Use, compose,
};
use flipside_learn::{DeviceLayers, Layer, NETWORK, columns, numbers};
use std::time::Instant;

/// The shader code shared by all kinds of models, and the entry points for networks and for a Gaussian process.
const SCORE: Source = ("shaders/preference/score.wgsl", include_str!("../../../shaders/preference/score.wgsl"));
const ENSEMBLE: Source =
    ("shaders/preference/ensemble.wgsl", include_str!("../../../shaders/preference/ensemble.wgsl"));
const PROCESS: Source = ("shaders/preference/process.wgsl", include_str!("../../../shaders/preference/process.wgsl"));

/// Threads of a workgroup; each scores one env step.
const LANES: usize = 32;
/// Upper limit of the scratch memory of one dispatch, bytes: enough to keep a large GPU busy.
const MAX_SCRATCH: u64 = 128 << 20;
/// Env steps of the first dispatch, when the device's speed is not known yet.
const FIRST_DISPATCH: usize = 4096;

/// A reward model on a graphics device, bound to the rollout that it scores.
pub struct DeviceScorer {
    device: Device,
    layout: RolloutLayout,
    /// The range that the actuators clip to, `[A]`.
    range: Vec<[f32; 2]>,
    kernel: Kernel,
    bindings: Bindings,
    table: Buffer,
    weights: Buffer,
    scores: Buffer,
    readback: Buffer,
    uniforms: UniformCache,
    sizer: SubmissionSizer,
    /// The bytes of the device's copy of the model: table and weights.
    packed: [Vec<u8>; 2],
}

/// The scores of a rollout, `[T, N]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// Rewards as from [`RewardModel::rewards`].
    pub rewards: Vec<f32>,
    /// Standard deviations between the members.
    pub deviations: Vec<f32>,
}

impl Scores {
    /// Like [`RewardModel::ensemble_std`].
    pub fn ensemble_std(&self) -> f64 {
        self.deviations.iter().map(|x| f64::from(*x)).sum::<f64>() / self.deviations.len().max(1) as f64
    }
}

/// One input of the model; the layout of the shader's `Input`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Input {
    place: u32,
    mean: f32,
    scale: f32,
    low: f32,
    high: f32,
}

/// The arguments of one dispatch; the layout of the shader's `Batch`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Batch {
    first: u32,
    end: u32,
    samples: u32,
    obs: u32,
    actions: u32,
    zero: u32,
    broken: u32,
}

impl DeviceScorer {
    /// A scorer of rollouts with this layout in the buffer `rollout`, for models of the shape of `model`. `range` is
    /// what the actuators clip to, `[A]`. None if the model needs more than [`MOST_TURNS`] loop iterations, which a
    /// software driver would not finish.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn new(
        device: &Device,
        layout: RolloutLayout,
        model: &RewardModel,
        range: &[[f64; 2]],
        rollout: &Buffer,
        checks: Checks,
    ) -> Result<Option<DeviceScorer>, DeviceError> {
        let sizes = Sizes::of(model);
        if sizes.turns() > MOST_TURNS {
            return Ok(None);
        }
        let kernel = device.kernel("score", sizes.shader(layout), "main", checks)?;
        let range: Vec<[f32; 2]> = range.iter().map(|range| range.map(|x| x as f32)).collect();
        let packed = packed(model, &range);
        let samples = layout.steps * layout.worlds;
        let row = 16 * sizes.row() as u64;
        let most = LANES * device.most_at_once(LANES as u64 * row, MAX_SCRATCH);
        let [table, weights] = &packed;
        let table = device.buffer("reward model", table.len() as u64, Use::Storage)?;
        let weights = device.buffer("reward weights", weights.len() as u64, Use::Storage)?;
        let scores = device.buffer("scores", 8 * samples as u64, Use::Storage)?;
        let scratch = device.buffer("reward activations", row * samples.min(most) as u64, Use::Storage)?;
        let all = [(0, &table), (1, &weights), (2, rollout), (3, &scores), (5, &scratch)];
        Ok(Some(DeviceScorer {
            bindings: device.bind(&kernel, 0, &all)?,
            readback: device.buffer("scores", 8 * samples as u64, Use::Readback)?,
            device: device.clone(),
            layout,
            range,
            kernel,
            table,
            weights,
            scores,
            uniforms: UniformCache::default(),
            sizer: SubmissionSizer::new(FIRST_DISPATCH, [LANES, most]),
            packed: [vec![], vec![]],
        }))
    }

    /// Scores the rollout as it is in device memory. `model` must have the shape of the one given to
    /// [`DeviceScorer::new`]. Work is submitted in parts of a fraction of a second.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn score(&mut self, model: &RewardModel) -> Result<Scores, DeviceError> {
        let packed = packed(model, &self.range);
        if self.packed != packed {
            let [table, weights] = &packed;
            self.device.upload(&self.table, 0, table);
            self.device.upload(&self.weights, 0, weights);
            self.packed = packed;
        }
        let samples = self.layout.steps * self.layout.worlds;
        let mut first = 0;
        while first < samples {
            let end = (first + self.sizer.at_once()).min(samples);
            let started = Instant::now();
            self.dispatch(first, end)?;
            self.device.wait()?;
            self.sizer.took(end - first, started);
            first = end;
        }
        let mut scores = Scores::default();
        self.device.read(&self.readback, 8 * samples as u64, |bytes| {
            let (rewards, deviations) = bytes.split_at(4 * samples);
            scores.rewards = bytemuck::pod_collect_to_vec(rewards);
            scores.deviations = bytemuck::pod_collect_to_vec(deviations);
        })?;
        Ok(scores)
    }

    /// Scores the env steps `first..end`. After the last ones, copies all scores into the readback buffer.
    fn dispatch(&mut self, first: usize, end: usize) -> Result<(), DeviceError> {
        let (places, samples) = (self.layout.places(), self.layout.steps * self.layout.worlds);
        let [first_word, end_word, all, obs, actions] =
            [first, end, samples, places.obs, places.actions].map(|n| n as u32);
        let batch =
            Batch { first: first_word, end: end_word, samples: all, obs, actions, zero: 0, broken: f32::NAN.to_bits() };
        let batch = self.uniforms.bind(&self.device, &self.kernel, bytemuck::bytes_of(&batch))?;
        let mut commands = self.device.commands();
        commands.run(&self.kernel, &[&self.bindings, &batch], (end - first).div_ceil(LANES));
        if end == samples {
            commands.copy(&self.scores, &self.readback, 0, 8 * samples as u64);
        }
        self.device.submit(commands);
        Ok(())
    }
}

/// The shape of a model.
struct Sizes {
    inputs: usize,
    /// Products of every two inputs, or the squares alone.
    products: usize,
    /// Waves of a Gaussian process; 0 for networks.
    waves: usize,
    /// Inputs and outputs of each layer: the layers of all networks, member after member, or the two of a Gaussian
    /// process.
    layers: Vec<[usize; 2]>,
    members: usize,
}

impl Sizes {
    fn of(model: &RewardModel) -> Sizes {
        let layers: Vec<[usize; 2]> = layers(model).iter().map(|layer| [layer.inputs, layer.outputs]).collect();
        let inputs = model.input.mean.len();
        let (waves, sees) = match (&model.process, layers.as_slice()) {
            (Some(_), &[[_, waves], [features, _]]) => (waves, features - waves),
            (_, all) => (0, all.first().map_or(inputs, |[inputs, _]| *inputs)),
        };
        Sizes { inputs, products: sees - inputs, waves, layers, members: model.members() }
    }

    /// Waves, inputs and products.
    fn features(&self) -> usize {
        self.waves + self.inputs + self.products
    }

    /// Outputs of the widest layer.
    fn widest(&self) -> usize {
        self.layers.iter().map(|[_, outputs]| *outputs).max().unwrap_or(1)
    }

    /// Scratch memory of one env step, in vectors of four.
    fn row(&self) -> usize {
        let after = if self.waves > 0 { columns(self.members) } else { 2 * columns(self.widest()) };
        columns(self.features()) + after
    }

    /// Loop iterations of one thread.
    fn turns(&self) -> usize {
        let layers: usize =
            self.layers.iter().map(|[inputs, outputs]| columns(*outputs) * (inputs / 4 + inputs % 4 + 1) + 1).sum();
        self.features() + self.inputs + layers + self.members
    }

    fn shader(&self, layout: RolloutLayout) -> flipside_gpu::Module {
        let mut definitions = Definitions::default();
        definitions.size("LANES", LANES);
        definitions.size("OBS", layout.obs_dim);
        definitions.size("ACTS", layout.act_dim);
        definitions.size("INPUTS", self.inputs);
        definitions.size("MEMBERS", self.members);
        definitions.size("LAYERS", self.layers.len() / self.members);
        definitions.size("ALL_LAYERS", self.layers.len());
        definitions.size("WIDEST", columns(self.widest()));
        definitions.size("WAVES", columns(self.waves));
        definitions.size("FEATURES", columns(self.features()));
        definitions.feature("HAS_PRODUCTS", self.products > self.inputs);
        definitions.feature("HAS_SQUARES", self.products == self.inputs);
        definitions.feature("RECTIFIES", self.waves == 0);
        definitions.feature("UNDULATES", self.waves > 0);
        let entry = if self.waves > 0 { PROCESS } else { ENSEMBLE };
        compose(&[NETWORK, SCORE], entry, &definitions)
    }
}

/// The bytes of `Scorer` in shaders/preference/score.wgsl, and the bytes of the layers' weights and biases.
fn packed(model: &RewardModel, range: &[[f32; 2]]) -> [Vec<u8>; 2] {
    let layers = DeviceLayers::new(&layers(model));
    let mut bytes = bytemuck::cast_slice(&layers.rows).to_vec();
    let actions = if model.settings.sees_actions { range } else { &[] };
    let anything = [f32::MIN, f32::MAX];
    let seen = model.seen.iter().map(|&place| (place, anything));
    let places = seen.chain(actions.iter().enumerate().map(|(k, range)| (model.obs_dim + k, *range)));
    for ((place, [low, high]), (mean, scale)) in places.zip(model.input.mean.iter().zip(&model.input.scale)) {
        let input = Input { place: place as u32, mean: *mean, scale: *scale, low, high };
        bytes.extend_from_slice(bytemuck::bytes_of(&input));
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    for [mean, deviation] in &model.output {
        bytes.extend_from_slice(bytemuck::bytes_of(&[*mean as f32, (1.0 / deviation) as f32]));
    }
    // A process has the factors of its products in its weights.
    let products = if model.process.is_some() { 1.0 } else { model.ensemble.products as f32 };
    bytes.extend_from_slice(bytemuck::bytes_of(&[products, INPUT_BOUND]));
    [bytes, bytemuck::cast_slice(&layers.numbers).to_vec()]
}

/// The layers of the networks, member after member, or of the Gaussian process.
fn layers(model: &RewardModel) -> Vec<Layer> {
    if let Some(process) = &model.process {
        return process.layers().to_vec();
    }
    let layers = model.ensemble.layers();
    let members = 0..model.members() as i64;
    let of = |member: i64| {
        layers.iter().map(move |(weight, bias)| {
            let weight = weight.get(member).tr();
            let size = weight.size();
            Layer {
                inputs: size[1] as usize,
                outputs: size[0] as usize,
                weight: numbers(&weight),
                bias: numbers(&bias.get(member)),
            }
        })
    };
    members.flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Comparison;
    use flipside_core::settings::{RewardModelKind, RewardModelSettings};
    use flipside_core::{Choice, Frames, Seed};
    use flipside_gpu::reflected;
    use rand_distr::{Distribution, StandardNormal};
    use std::mem::offset_of;

    fn networks() -> RewardModelSettings {
        RewardModelSettings { kind: RewardModelKind::Networks, ..RewardModelSettings::default() }
    }

    #[test]
    fn a_model_lies_as_the_shader_reads_it() {
        // Layers of 16 bytes, five inputs of 20 bytes, padded to a multiple of 8, and the members' outputs of 8 bytes.
        let check = |kind: RewardModelKind, at: [usize; 5], bytes: [usize; 2]| {
            let settings = RewardModelSettings {
                kind,
                ignored_inputs: vec![1, 3],
                products: 0.5,
                ..RewardModelSettings::default()
            };
            let model = RewardModel::new(5, 2, settings, Seed(1));
            let sizes = Sizes::of(&model);
            assert_eq!((sizes.inputs, sizes.products), (5, 15));
            let module = sizes.shader(layout(1, 5));
            macro_rules! check {
                ($type:ident { $($field:ident),* $(,)? }) => {
                    let ours = vec![$((stringify!($field).to_string(), offset_of!($type, $field))),*];
                    let ours = Some((ours, size_of::<$type>()));
                    assert_eq!(reflected(&module, stringify!($type)), ours, stringify!($type));
                };
            }
            check!(Input { place, mean, scale, low, high });
            check!(Batch { first, end, samples, obs, actions, zero, broken });
            let names = ["layers", "inputs", "outputs", "products", "bound"].map(str::to_owned);
            let members = names.into_iter().zip(at).collect();
            assert_eq!(reflected(&module, "Scorer"), Some((members, bytes[0])));
            assert_eq!(packed(&model, &[[-1.0, 1.0]; 2]).map(|part| part.len()), bytes);
        };
        check(RewardModelKind::Networks, [0, 144, 248, 272, 276], [280, 3 * 16 * (21 * 16 + 65 * 16 + 65)]);
        check(RewardModelKind::GaussianProcess, [0, 32, 136, 200, 204], [208, 16 * (6 * 96 + (384 + 20 + 1) * 2)]);
    }

    /// A model that a software driver cannot compute in one dispatch stays on the host.
    #[test]
    fn what_is_too_large_is_seen() {
        let of = |inputs: usize, settings: RewardModelSettings| {
            Sizes::of(&RewardModel::new(inputs, 8, settings, Seed(1))).turns() > MOST_TURNS
        };
        let products = RewardModelSettings { products: 0.3, ..networks() };
        let process = RewardModelSettings::default();
        assert_eq!([of(348, networks()), of(20, products.clone()), of(105, products)], [false, false, true]);
        assert_eq!([of(32, process.clone()), of(348, process.clone()), of(3000, process)], [false, false, true]);
    }

    const STEPS: usize = 30;
    const WORLDS: usize = 40;

    fn layout(steps: usize, obs_dim: usize) -> RolloutLayout {
        RolloutLayout { steps, worlds: WORLDS, obs_dim, act_dim: 2, state_dim: 0, trailed: 0, ends: 0 }
    }

    /// A reward model that was fitted to judgements of a rollout gives it the same rewards and the same ensemble
    /// standard deviation on the device as on the host, also after another fit and with a NaN in the rollout.
    fn scores_alike(name: &str, obs_dim: usize, settings: RewardModelSettings) {
        let (layout, n) = (layout(STEPS, obs_dim), STEPS * WORLDS);
        let (places, a) = (layout.places(), layout.act_dim);
        let mut stream = Seed(3).stream("rollout");
        let mut normal = || -> f32 { StandardNormal.sample(&mut stream) };
        // Each world's observations scatter around their own mean.
        let about: Vec<f32> = (0..WORLDS * obs_dim).map(|_| 1.0 + 2.0 * normal()).collect();
        let mut obs: Vec<f32> = (0..n * obs_dim).map(|i| about[i % about.len()] + normal()).collect();
        let actions: Vec<f32> = (0..n * a).map(|_| normal()).collect();
        let played: Vec<f32> = actions.iter().map(|x| x.clamp(-1.0, 1.0)).collect();
        let clip = |world: usize| {
            let mut frames = Frames { steps: STEPS, obs_dim, act_dim: a, ..Frames::default() };
            for row in (0..STEPS).map(|step| step * WORLDS + world) {
                frames.obs.extend_from_slice(&obs[row * obs_dim..][..obs_dim]);
                frames.actions.extend_from_slice(&played[row * a..][..a]);
                frames.task_reward.push(obs[row * obs_dim] * obs[row * obs_dim + 1]);
            }
            frames
        };
        let clips: Vec<Frames> = (0..WORLDS).map(clip).collect();
        let comparisons: Vec<Comparison> = (0..)
            .zip(clips.chunks_exact(2))
            .filter_map(|(id, pair)| {
                let [left, right] = [0, 1].map(|k| pair[k].task_reward.iter().sum::<f32>());
                Comparison::new(id, &pair[0], &pair[1], if left > right { Choice::Left } else { Choice::Right })
            })
            .collect();
        let device = Device::open().unwrap();
        let rollout = device.buffer("rollout", 4 * places.len as u64, Use::Storage).unwrap();
        device.upload(&rollout, 4 * places.obs as u64, bytemuck::cast_slice(&obs));
        device.upload(&rollout, 4 * places.actions as u64, bytemuck::cast_slice(&actions));
        let mut model = RewardModel::new(obs_dim, a, settings, Seed(4));
        let range = [[-1.0, 1.0]; 2];
        let mut scorer = DeviceScorer::new(&device, layout, &model, &range, &rollout, Checks::On).unwrap().unwrap();
        for round in 0..3 {
            if round < 2 {
                model.fit(&comparisons, &[], &mut || false).unwrap();
                model.renormalise(&obs, &played).unwrap();
            } else {
                // A NaN in the middle of the rollout, in a number that this reward sees.
                obs[7 * obs_dim] = f32::NAN;
                let at = 4 * (places.obs + 7 * obs_dim) as u64;
                device.upload(&rollout, at, bytemuck::bytes_of(&f32::NAN));
            }
            let found = scorer.score(&model).unwrap();
            let wanted = model.rewards(&obs, &played, n);
            let broken = |rewards: &[f32]| (0..n).filter(|i| rewards[*i].is_nan()).collect::<Vec<_>>();
            let none: &[usize] = if round < 2 { &[] } else { &[7] };
            assert_eq!([&found.rewards, &found.deviations, &wanted].map(|x| broken(x)), [none; 3], "{name}");
            let pairs = found.rewards.iter().zip(&wanted).filter(|(_, wanted)| !wanted.is_nan());
            let worst = pairs.map(|(found, wanted)| (found - wanted).abs() / (1.0 + wanted.abs())).fold(0.0, f32::max);
            let (ours, spread) = (found.ensemble_std(), model.ensemble_std(&obs, &played));
            println!("{name}: worst {worst:.0e}, spread {ours} and {spread}");
            assert!(worst < 1e-4, "{name}: {worst}");
            let most = wanted.iter().copied().fold(0.0, f32::max);
            assert!(most > 0.5, "{name}: a reward that says nothing");
            match round {
                2 => assert!(ours.is_nan() && spread.is_nan(), "{name}"),
                _ => assert!(spread > 0.01 && (ours - spread).abs() < 1e-4 * (1.0 + spread), "{name}"),
            }
        }
    }

    #[test]
    fn networks_score_as_on_the_host() {
        scores_alike("networks", 11, networks());
        let unseen = vec![3, 4, 5, 9, 10];
        scores_alike(
            "products",
            11,
            RewardModelSettings { products: 0.3, ignored_inputs: unseen, sees_actions: false, ..networks() },
        );
    }

    #[test]
    fn a_process_scores_as_on_the_host() {
        scores_alike(
            "process",
            11,
            RewardModelSettings { ignored_inputs: vec![3, 4], ..RewardModelSettings::default() },
        );
        scores_alike("squares alone", 45, RewardModelSettings::default());
    }
}
