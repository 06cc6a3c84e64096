//! The reward model on the graphics device: it scores a rollout that lies there, and the host receives the scores.

use super::RewardModel;
use super::ensemble::numbers;
use super::reward_model::INPUT_BOUND;
use crate::compute::{
    Bindings, Buffer, Checks, Definitions, Device, DeviceError, Kernel, MOST_TURNS, Pace, RolloutLayout, Source, Told,
    Use, compose,
};
use crate::learn::{DeviceLayers, Layer, NETWORK, columns};
use bytemuck::{Pod, Zeroable};
use std::time::Instant;

const SCORE: Source = ("shaders/preference/score.wgsl", include_str!("../../shaders/preference/score.wgsl"));

/// Threads of a workgroup, an env step each.
const LANES: usize = 32;
/// Bytes of the room of one dispatch, at most: enough to keep a large GPU busy.
const ROOM: u64 = 128 << 20;
/// Env steps of the first dispatch, whose speed is not known.
const FIRST_DISPATCH: usize = 4096;

/// A reward model on a graphics device, bound to the rollout that it scores.
pub struct DeviceScorer {
    device: Device,
    layout: RolloutLayout,
    /// What the actuators clip to, `[A]`.
    range: Vec<[f32; 2]>,
    kernel: Kernel,
    bindings: Bindings,
    table: Buffer,
    weights: Buffer,
    scores: Buffer,
    readback: Buffer,
    told: Told,
    pace: Pace,
    /// What the device's copy of the model holds.
    packed: [Vec<u8>; 2],
}

/// What a reward model says of a rollout, `[T, N]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// As [`RewardModel::rewards`] gives them.
    pub rewards: Vec<f32>,
    /// Standard deviations between the members.
    pub deviations: Vec<f32>,
}

impl Scores {
    /// As [`RewardModel::spread`] gives it.
    pub fn spread(&self) -> f64 {
        self.deviations.iter().map(|x| f64::from(*x)).sum::<f64>() / self.deviations.len().max(1) as f64
    }
}

/// One number that the networks see.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Input {
    place: u32,
    mean: f32,
    scale: f32,
    low: f32,
    high: f32,
}

/// One dispatch.
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
    /// A scorer of rollouts of this layout in the buffer `rollout`, for models of the shape of `model`; `range` is what the actuators clip to,
    /// `[A]`. None for a Gaussian process, and for networks so large that a software driver would not get to their end.
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
        if model.process.is_some() || sizes.turns() > MOST_TURNS {
            return Ok(None);
        }
        let kernel = device.kernel("score", sizes.shader(layout), "main", checks)?;
        let range: Vec<[f32; 2]> = range.iter().map(|range| range.map(|x| x as f32)).collect();
        let packed = packed(model, &range);
        let samples = layout.steps * layout.worlds;
        let row = 16 * (columns(sizes.features) + 2 * columns(sizes.widest)) as u64;
        let most = LANES * device.most_at_once(LANES as u64 * row, ROOM);
        let [table, weights] = &packed;
        let table = device.buffer("reward model", table.len() as u64, Use::Storage)?;
        let weights = device.buffer("reward weights", weights.len() as u64, Use::Storage)?;
        let scores = device.buffer("scores", 8 * samples as u64, Use::Storage)?;
        let room = device.buffer("reward activations", row * samples.min(most) as u64, Use::Storage)?;
        let all = [(0, &table), (1, &weights), (2, rollout), (3, &scores), (5, &room)];
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
            told: Told::default(),
            pace: Pace::new(FIRST_DISPATCH, [LANES, most]),
            packed: [vec![], vec![]],
        }))
    }

    /// What this model, which has the shape of the first, says of the rollout as it lies there. Submits a fraction of a second at a time.
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
            let end = (first + self.pace.at_once()).min(samples);
            let started = Instant::now();
            self.dispatch(first, end)?;
            self.device.wait()?;
            self.pace.took(end - first, started);
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

    /// Scores some env steps; with the last ones, what all of them are is left to be read.
    fn dispatch(&mut self, first: usize, end: usize) -> Result<(), DeviceError> {
        let (places, samples) = (self.layout.places(), self.layout.steps * self.layout.worlds);
        let [first_word, end_word, all, obs, actions] =
            [first, end, samples, places.obs, places.actions].map(|n| n as u32);
        let batch =
            Batch { first: first_word, end: end_word, samples: all, obs, actions, zero: 0, broken: f32::NAN.to_bits() };
        let told = self.told.tell(&self.device, &self.kernel, bytemuck::bytes_of(&batch))?;
        let mut commands = self.device.commands();
        commands.run(&self.kernel, &[&self.bindings, &told], (end - first).div_ceil(LANES));
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
    /// Inputs and products.
    features: usize,
    /// Numbers of the widest layer but the first one's inputs.
    widest: usize,
    /// Inputs and outputs of each layer of a member.
    layers: Vec<[usize; 2]>,
    members: usize,
}

impl Sizes {
    fn of(model: &RewardModel) -> Sizes {
        let pair = |size: Vec<i64>| [size[1] as usize, size[2] as usize];
        let layers: Vec<[usize; 2]> = model.ensemble.layers().iter().map(|(weight, _)| pair(weight.size())).collect();
        Sizes {
            inputs: model.input.mean.len(),
            features: layers.first().map_or(1, |[inputs, _]| *inputs),
            widest: layers.iter().map(|[_, outputs]| *outputs).max().unwrap_or(1),
            layers,
            members: model.members(),
        }
    }

    /// Turns of its loops that a thread takes.
    fn turns(&self) -> usize {
        let member: usize = self.layers.iter().map(|[inputs, outputs]| columns(*outputs) * (inputs + 1) + 1).sum();
        self.inputs + self.features + self.members * (member + 1)
    }

    fn shader(&self, layout: RolloutLayout) -> crate::compute::Module {
        let mut definitions = Definitions::default();
        definitions.size("LANES", LANES);
        definitions.size("OBS", layout.obs_dim);
        definitions.size("ACTS", layout.act_dim);
        definitions.size("INPUTS", self.inputs);
        definitions.size("MEMBERS", self.members);
        definitions.size("LAYERS", self.layers.len());
        definitions.size("ALL_LAYERS", self.members * self.layers.len());
        definitions.size("WIDEST", columns(self.widest));
        definitions.size("FEATURES", columns(self.features));
        definitions.feature("HAS_PRODUCTS", self.features > self.inputs);
        definitions.feature("RECTIFIES", true);
        compose(&[NETWORK], SCORE, &definitions)
    }
}

/// The table that shaders/preference/score.wgsl calls `Scorer`, and its layers' numbers.
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
    bytes.extend_from_slice(bytemuck::bytes_of(&[model.ensemble.products as f32, INPUT_BOUND]));
    [bytes, bytemuck::cast_slice(&layers.numbers).to_vec()]
}

/// Member after member.
fn layers(model: &RewardModel) -> Vec<Layer> {
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
    use crate::basics::Seed;
    use crate::compute::reflected;
    use crate::settings::{RewardModelKind, RewardModelSettings};
    use std::mem::offset_of;

    #[test]
    fn a_model_lies_as_the_shader_reads_it() {
        let settings = RewardModelSettings {
            kind: RewardModelKind::Networks,
            unseen: vec![1, 3],
            products: 0.5,
            ..RewardModelSettings::default()
        };
        let model = RewardModel::new(5, 2, settings, Seed(1));
        let layout = RolloutLayout { steps: 1, worlds: 1, obs_dim: 5, act_dim: 2, state_dim: 0, trailed: 0, ends: 0 };
        let sizes = Sizes::of(&model);
        assert_eq!((sizes.inputs, sizes.features, sizes.widest, sizes.members), (5, 20, 64, 3));
        let module = sizes.shader(layout);
        macro_rules! check {
            ($type:ident { $($field:ident),* $(,)? }) => {
                let ours = vec![$((stringify!($field).to_string(), offset_of!($type, $field))),*];
                assert_eq!(reflected(&module, stringify!($type)), Some((ours, size_of::<$type>())), stringify!($type));
            };
        }
        check!(Input { place, mean, scale, low, high });
        check!(Batch { first, end, samples, obs, actions, zero, broken });
        // Nine layers of 16 bytes, five inputs of 20, filled up to a multiple of 8, and three members' outputs.
        let at = [("layers", 0), ("inputs", 144), ("outputs", 248), ("products", 272), ("bound", 276)];
        let members = at.map(|(name, at)| (name.to_owned(), at)).to_vec();
        assert_eq!(reflected(&module, "Scorer"), Some((members, 280)));
        let [table, weights] = packed(&model, &[[-1.0, 1.0]; 2]);
        assert_eq!(table.len(), 280);
        assert_eq!(weights.len(), 3 * 16 * (21 * 16 + 65 * 16 + 65));
    }

    /// A model of more products than a software driver computes in one go is left to the host.
    #[test]
    fn what_is_too_large_is_seen() {
        let of = |inputs: usize, products: f64| {
            let settings =
                RewardModelSettings { kind: RewardModelKind::Networks, products, ..RewardModelSettings::default() };
            Sizes::of(&RewardModel::new(inputs, 8, settings, Seed(1))).turns() > MOST_TURNS
        };
        assert_eq!([of(348, 0.0), of(20, 0.3), of(105, 0.3)], [false, false, true]);
    }
}
