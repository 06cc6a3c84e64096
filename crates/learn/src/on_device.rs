//! A policy that acts on the graphics device. Normaliser, network, sampling and log-density run where the worlds are.

use super::device_network::{DeviceLayers, NETWORK, columns};
use super::gaussian::Spread;
use super::policy::Policy;
use bytemuck::{Pod, Zeroable};
use flipside_core::Seed;
use flipside_gpu::{
    ActsOnDevice, Bindings, Buffer, Checks, Commands, Definitions, Device, DeviceError, Kernel, RANDOM, RolloutLayout,
    Source, UniformCache, Use, compose,
};
use rand::RngExt;
use std::ops::Range;

const ACT: Source = ("shaders/learn/act.wgsl", include_str!("../../../shaders/learn/act.wgsl"));

/// Threads of a workgroup, one world each.
const LANES: usize = 32;

/// Where actions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acting {
    /// Samples of the policy.
    Sampling,
    /// Its means.
    Mean,
    /// The rollout already contains them.
    Given,
}

/// A policy on a graphics device, bound to the rollout that it writes into.
pub struct DeviceActor {
    device: Device,
    layout: RolloutLayout,
    acting: Acting,
    seed: u64,
    kernel: Kernel,
    bindings: Bindings,
    policy: Buffer,
    numbers: Buffer,
    range: Vec<[f32; 2]>,
    uniforms: UniformCache,
}

/// The parameters of one dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Batch {
    first: u32,
    end: u32,
    worlds: u32,
    seed_low: u32,
    seed_high: u32,
    obs: u32,
    actions: u32,
    log_probs: u32,
    now: u32,
    rewind: u32,
    zero: u32,
    given: u32,
}

impl DeviceActor {
    /// A policy with the shape of `policy` for a rollout of this layout. `range` is the actuators' clipping range,
    /// `[A]`, and `controls` is the buffer that the actuators read. Its samples depend only on seed, world and step.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn new(
        device: &Device,
        layout: RolloutLayout,
        policy: &Policy,
        range: &[[f64; 2]],
        [rollout, controls]: [&Buffer; 2],
        seed: Seed,
        checks: Checks,
    ) -> Result<DeviceActor, DeviceError> {
        let layers = policy.layers();
        let widest = layers.iter().flat_map(|layer| [layer.inputs, layer.outputs]).max().map_or(1, columns);
        let shader = compose(&[RANDOM, NETWORK], ACT, &definitions(layout, layers.len(), widest));
        let kernel = device.kernel("act", shader, "main", checks)?;
        let range: Vec<[f32; 2]> = range.iter().map(|range| range.map(|x| x as f32)).collect();
        let [head, numbers] = packed(policy, &range, Acting::Sampling);
        let table = device.buffer("policy", head.len() as u64, Use::Storage)?;
        let weights = device.buffer("weights", numbers.len() as u64, Use::Storage)?;
        let clock = device.buffer("clock", 8 * layout.worlds as u64, Use::Storage)?;
        let room = device.buffer("activations", (2 * 16 * widest * layout.worlds) as u64, Use::Storage)?;
        let all = [(0, &table), (1, &weights), (2, rollout), (3, controls), (4, &clock), (5, &room)];
        let mut actor = DeviceActor {
            bindings: device.bind(&kernel, 0, &all)?,
            device: device.clone(),
            layout,
            acting: Acting::Sampling,
            seed: seed.stream("policy on a device").random(),
            kernel,
            policy: table,
            numbers: weights,
            range,
            uniforms: UniformCache::default(),
        };
        actor.follow(policy, Acting::Sampling);
        Ok(actor)
    }

    /// From now on acts as this policy does, which must have the shape of the first.
    pub fn follow(&mut self, policy: &Policy, acting: Acting) {
        self.acting = acting;
        let [head, numbers] = packed(policy, &self.range, acting);
        self.device.upload(&self.policy, 0, &head);
        self.device.upload(&self.numbers, 0, &numbers);
    }

    fn dispatch(&mut self, commands: &mut Commands, worlds: Range<usize>, rewind: bool) -> Result<(), DeviceError> {
        let places = self.layout.places();
        let batch = Batch {
            first: worlds.start as u32,
            end: worlds.end as u32,
            worlds: self.layout.worlds as u32,
            seed_low: self.seed as u32,
            seed_high: (self.seed >> 32) as u32,
            obs: places.obs as u32,
            actions: places.actions as u32,
            log_probs: places.log_probs as u32,
            now: places.now as u32,
            rewind: u32::from(rewind),
            zero: 0,
            given: u32::from(self.acting == Acting::Given),
        };
        let told = self.uniforms.bind(&self.device, &self.kernel, bytemuck::bytes_of(&batch))?;
        commands.run(&self.kernel, &[&self.bindings, &told], worlds.len().div_ceil(LANES));
        Ok(())
    }
}

impl ActsOnDevice for DeviceActor {
    fn rewind(&mut self, commands: &mut Commands, worlds: Range<usize>) -> Result<(), DeviceError> {
        self.dispatch(commands, worlds, true)
    }

    fn act(&mut self, commands: &mut Commands, worlds: Range<usize>) -> Result<(), DeviceError> {
        self.dispatch(commands, worlds, false)
    }
}

fn definitions(layout: RolloutLayout, layers: usize, widest: usize) -> Definitions {
    let mut definitions = Definitions::default();
    definitions.size("LANES", LANES);
    definitions.size("OBS", layout.obs_dim);
    definitions.size("ACTS", layout.act_dim);
    definitions.size("LAYERS", layers);
    definitions.size("WIDEST", widest);
    definitions
}

/// The table that shaders/learn/act.wgsl calls `Policy`, and its layers' parameters.
fn packed(policy: &Policy, range: &[[f32; 2]], acting: Acting) -> [Vec<u8>; 2] {
    let spread = Spread::new(policy.log_std());
    let layers = DeviceLayers::new(&policy.layers());
    let mut bytes = bytemuck::cast_slice(&layers.rows).to_vec();
    for ((std, inverse), [low, high]) in spread.std().iter().zip(spread.inverse()).zip(range) {
        bytes.extend_from_slice(bytemuck::bytes_of(&[*std, *inverse, *low, *high]));
    }
    for column in policy.standard() {
        bytes.extend_from_slice(bytemuck::bytes_of(column));
    }
    bytes.extend_from_slice(bytemuck::bytes_of(&spread.constant()));
    bytes.extend_from_slice(bytemuck::bytes_of(&u32::from(acting == Acting::Mean)));
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    [bytes, bytemuck::cast_slice(&layers.numbers).to_vec()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_gpu::reflected;
    use std::mem::offset_of;

    #[test]
    fn a_policy_lies_as_the_shader_reads_it() {
        let (obs_dim, act_dim) = (5, 3);
        let layout = RolloutLayout { steps: 1, worlds: 1, obs_dim, act_dim, state_dim: 0, trailed: 0, ends: 0 };
        let module = compose(&[RANDOM, NETWORK], ACT, &definitions(layout, 2, 16));
        macro_rules! check {
            ($type:ident { $($field:ident),* $(,)? }) => {
                let ours = vec![$((stringify!($field).to_string(), offset_of!($type, $field))),*];
                assert_eq!(reflected(&module, stringify!($type)), Some((ours, size_of::<$type>())), stringify!($type));
            };
        }
        check!(Batch { first, end, worlds, seed_low, seed_high, obs, actions, log_probs, now, rewind, zero, given });
        let at = [("layers", 0), ("spread", 32), ("standard", 80), ("constant", 120), ("is_mean", 124)];
        let members = at.map(|(name, at)| (name.to_owned(), at)).to_vec();
        assert_eq!(reflected(&module, "Policy"), Some((members, 128)));
    }
}
