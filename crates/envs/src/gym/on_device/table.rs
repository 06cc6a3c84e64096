//! A task as the table that shaders/gym/reward.wgsl reads: same names, same order, same padding as in WGSL. A test
//! compares the two.

use crate::gym::parts::{Bound as Kept, Term as Paid};
use crate::gym::signal::{Element as Signal, Pick};
use crate::gym::task::Task;
use crate::physics::{DeviceWorlds, Quantity};
use crate::tasks::{Map, Noise, RewardKind};
use bytemuck::{Pod, Zeroable};
use flipside_gpu::{Definitions, RolloutLayout};
use std::ops::Range;

/// No index.
const NONE: u32 = u32::MAX;

/// The header before the table's rows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Head {
    dt: f32,
    horizon: u32,
    terminates: u32,
    health: u32,
    qpos_noise: u32,
    qvel_noise: u32,
    qpos_size: f32,
    qvel_size: f32,
    drifts: u32,
    quaternions: u32,
    places: u32,
    count: u32,
    frames: u32,
    width: u32,
    padding_a: u32,
    padding_b: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Element {
    offset: [f32; 3],
    kind: u32,
    index: u32,
    axis: u32,
    other: u32,
    map: u32,
    low: f32,
    high: f32,
    relative_: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Bound {
    first: u32,
    count: u32,
    above: f32,
    below: f32,
    at_least: f32,
    at_most: f32,
    padding_a: u32,
    padding_b: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Term {
    kind: u32,
    first: u32,
    count: u32,
    other: u32,
    factor: u32,
    factors: u32,
    bound: u32,
    bounds: u32,
    weight: f32,
    goal: f32,
    low: f32,
    high: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Drift {
    coordinate: u32,
    axis: u32,
    root: u32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Place {
    first: u32,
    count: u32,
    nearer: f32,
    farther: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Placed {
    qpos: u32,
    qvel: u32,
    low: f32,
    high: f32,
    center: f32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Start {
    qpos: f32,
    quaternion: u32,
}

/// The parameters of one dispatch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Batch {
    first: u32,
    end: u32,
    worlds: u32,
    what: u32,
    seed: [u32; 2],
    stagger: u32,
    trailed: u32,
    obs: u32,
    rewards: u32,
    teacher_rewards: u32,
    flags: u32,
    finals: u32,
    now: u32,
    trail: u32,
    ends: u32,
    zero: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
}

impl Batch {
    pub fn new(layout: &RolloutLayout, worlds: Range<usize>, what: u32, seed: u64, stagger: bool) -> Batch {
        let places = layout.places();
        Batch {
            first: word(worlds.start),
            end: word(worlds.end),
            worlds: word(layout.worlds),
            what,
            seed: [seed as u32, (seed >> 32) as u32],
            stagger: u32::from(stagger),
            trailed: word(layout.trailed),
            obs: word(places.obs),
            rewards: word(places.rewards),
            teacher_rewards: word(places.teacher_rewards),
            flags: word(places.flags),
            finals: word(places.finals),
            now: word(places.now),
            trail: word(places.trail),
            ends: word(layout.ends),
            zero: 0,
            padding_a: 0,
            padding_b: 0,
            padding_c: 0,
        }
    }
}

/// A task in the layout of the shader.
pub struct Table {
    pub definitions: Definitions,
    pub bytes: Vec<u8>,
    /// How many numbers of bookkeeping a world has.
    pub books: usize,
}

/// The rows while they are being collected.
struct Rows<'a> {
    worlds: &'a DeviceWorlds,
    elements: Vec<Element>,
    bounds: Vec<Bound>,
    terms: Vec<Term>,
}

impl Table {
    pub fn new(task: &Task, worlds: &DeviceWorlds) -> Table {
        let (model, parts) = (task.model(), &task.parts);
        let mut rows = Rows { worlds, elements: vec![], bounds: vec![], terms: vec![] };
        // The observation comes first, and the bounds of a healthy robot come before other bounds.
        rows.signal(&parts.observation, false);
        parts.health.iter().for_each(|bound| rows.bound(bound));
        let health = rows.bounds.len();
        parts.terms.iter().chain(&parts.teacher_reward).for_each(|term| rows.term(term));

        let (mut places, mut placed) = (vec![], vec![]);
        for place in &parts.places {
            places.push(Place {
                first: word(placed.len()),
                count: word(place.qpos.len()),
                nearer: finite(place.nearer_than),
                farther: place.farther_than as f32,
            });
            placed.extend((0..place.qpos.len()).map(|k| Placed {
                qpos: word(place.qpos[k]),
                qvel: word(place.qvel[k]),
                low: place.low[k] as f32,
                high: place.high[k] as f32,
                center: place.center[k] as f32,
                padding_a: 0,
                padding_b: 0,
                padding_c: 0,
            }));
        }
        let noise = |noise: Option<Noise>| match noise {
            None => (0, 0.0),
            Some(Noise::Uniform(size)) => (1, size as f32),
            Some(Noise::Normal(sigma)) => (2, sigma as f32),
        };
        let ((qpos_noise, qpos_size), (qvel_noise, qvel_size)) = (noise(parts.qpos_noise), noise(parts.qvel_noise));
        let head = Head {
            dt: task.dt() as f32,
            horizon: task.horizon(),
            terminates: u32::from(task.terminates()),
            health: word(health),
            qpos_noise,
            qvel_noise,
            qpos_size,
            qvel_size,
            drifts: word(worlds.drift.len()),
            quaternions: word(parts.quaternions.len()),
            places: word(places.len()),
            count: word(rows.elements.len()),
            frames: worlds.layout.of(Quantity::Frames).map_or(0, word),
            width: word(worlds.layout.len),
            padding_a: 0,
            padding_b: 0,
        };
        let total = model.total_mass();
        let shares: Vec<[f32; 4]> = model
            .bodies
            .iter()
            .map(|body| {
                let [x, y, z] = body.ipos.to_array().map(|x| x as f32);
                [x, y, z, (body.mass / total) as f32]
            })
            .collect();
        // The world body's row belongs to no tree.
        let root =
            |(index, body): (usize, &crate::physics::Body)| [if index == 0 { NONE } else { word(body.root) }, 0, 0, 0];
        let roots: Vec<[u32; 4]> = model.bodies.iter().enumerate().map(root).collect();
        let mut drift = [Drift::zeroed(); 3];
        for (row, found) in drift.iter_mut().zip(&worlds.drift) {
            let (coordinate, axis, root) = (word(found.coordinate), word(found.axis), word(found.root));
            *row = Drift { coordinate, axis, root, padding: 0 };
        }
        let start: Vec<Start> = (0..model.nq())
            .map(|i| Start { qpos: model.qpos0()[i] as f32, quaternion: u32::from(parts.quaternions.contains(&i)) })
            .collect();

        let mut definitions = worlds.definitions().clone();
        let (terms, teacher_rewards) = (parts.terms.len(), parts.teacher_reward.len());
        definitions.size("OBS", task.obs_dim());
        definitions.size("TERMS", terms);
        definitions.size("TEACHER_REWARDS", teacher_rewards);
        for (name, rows) in [
            ("ALL_TERMS", rows.terms.len()),
            ("ELEMENTS", rows.elements.len()),
            ("BOUNDS", rows.bounds.len()),
            ("PLACES", places.len()),
            ("PLACED", placed.len()),
        ] {
            definitions.size(name, rows.max(1));
        }
        let books = 4 + terms + teacher_rewards + model.nq() + rows.elements.len();
        let mut bytes = bytemuck::bytes_of(&head).to_vec();
        table(&mut bytes, &shares);
        table(&mut bytes, &roots);
        table(&mut bytes, &rows.elements);
        table(&mut bytes, &rows.bounds);
        table(&mut bytes, &rows.terms);
        table(&mut bytes, &drift);
        table(&mut bytes, &places);
        table(&mut bytes, &placed);
        table(&mut bytes, &start);
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        Table { definitions, bytes, books }
    }
}

impl Rows<'_> {
    /// Adds a signal and returns where it lies. A number of a `relative` signal is read from the origin that the step
    /// uses, but only if it is neither mapped nor clipped.
    fn signal(&mut self, signal: &[Signal], relative: bool) -> (u32, u32) {
        let first = self.elements.len();
        for element in signal {
            let open = element.map.is_none() && element.low == f64::NEG_INFINITY && element.high == f64::INFINITY;
            let mut row = Element {
                map: match element.map {
                    None => 0,
                    Some(Map::Sin) => 1,
                    Some(Map::Cos) => 2,
                },
                low: finite(element.low),
                high: finite(element.high),
                relative_: u32::from(relative && open),
                other: NONE,
                ..Element::zeroed()
            };
            let derived = |quantity, i: usize| self.worlds.layout.of(quantity).map_or(0, |at| word(at + i));
            (row.kind, row.index) = match &element.pick {
                Pick::Qpos(i) => (0, word(*i)),
                Pick::Qvel(i) => (1, word(*i)),
                Pick::Action(i) => (2, word(*i)),
                Pick::Cinert(i) => (3, derived(Quantity::Cinert, *i)),
                Pick::Cvel(i) => (3, derived(Quantity::Cvel, *i)),
                Pick::Force(i) => (4, derived(Quantity::CfrcExt, *i)),
                Pick::Actuator(i) => (3, derived(Quantity::QfrcActuator, *i)),
                Pick::Constraint(i) => (3, derived(Quantity::QfrcConstraint, *i)),
                Pick::Body(pick) => {
                    row.offset = pick.offset.map(|x| x as f32);
                    row.axis = word(pick.axis);
                    row.other = pick.relative_to.map_or(NONE, word);
                    (5, word(pick.body))
                }
                Pick::CenterOfMass(pick) => {
                    row.axis = word(pick.axis);
                    (6, 0)
                }
            };
            self.elements.push(row);
        }
        (word(first), word(signal.len()))
    }

    fn bound(&mut self, bound: &Kept) {
        let (first, count) = self.signal(&bound.signal, false);
        self.bounds.push(Bound {
            first,
            count,
            above: finite(bound.above),
            below: finite(bound.below),
            at_least: finite(bound.at_least),
            at_most: finite(bound.at_most),
            padding_a: 0,
            padding_b: 0,
        });
    }

    fn term(&mut self, term: &Paid) {
        let (first, count) = self.signal(&term.signal, term.kind == RewardKind::Velocity);
        let (other, _) = self.signal(&term.with, false);
        let (factor, factors) = self.signal(&term.factors, false);
        let bound = word(self.bounds.len());
        term.when.iter().for_each(|bound| self.bound(bound));
        self.terms.push(Term {
            kind: match term.kind {
                RewardKind::Alive => 0,
                RewardKind::Velocity => 1,
                RewardKind::Value => 2,
                RewardKind::SumSquares => 3,
                RewardKind::Norm => 4,
                RewardKind::Dot => 5,
            },
            first,
            count,
            other,
            factor,
            factors,
            bound,
            bounds: word(term.when.len()),
            weight: term.weight as f32,
            goal: term.target as f32,
            low: finite(term.low),
            high: finite(term.high),
        });
    }
}

/// Appends rows. An empty table gets one row of zeros, because an array of the shader has at least one entry.
fn table<T: Pod>(out: &mut Vec<u8>, rows: &[T]) {
    match rows {
        [] => out.extend_from_slice(bytemuck::bytes_of(&T::zeroed())),
        rows => out.extend_from_slice(bytemuck::cast_slice(rows)),
    }
}

/// The number in single precision. An infinite bound becomes the largest finite number, because the shader compares
/// finite numbers only.
fn finite(x: f64) -> f32 {
    (x as f32).clamp(f32::MIN, f32::MAX)
}

/// Converts an index to a word. It fits because the buffer that holds the task's rows fits.
fn word(index: usize) -> u32 {
    index as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_gpu::{Checks, Device, RANDOM, compose, reflected};
    use std::mem::offset_of;

    #[test]
    fn a_task_lies_as_the_shader_reads_it() {
        let task = Task::load("pusher").unwrap();
        let device = Device::open().unwrap();
        let worlds = DeviceWorlds::new(&device, task.model().clone(), 1, task.needs(), Checks::On).unwrap();
        let table = Table::new(&task, &worlds);
        let modules = [crate::physics::SHADER_MODULES, &[RANDOM]].concat();
        let module = compose(&modules, super::super::REWARD, &table.definitions);
        macro_rules! check {
            ($type:ident { $($field:ident),* $(,)? }) => {
                let ours = vec![$((stringify!($field).to_string(), offset_of!($type, $field))),*];
                assert_eq!(reflected(&module, stringify!($type)), Some((ours, size_of::<$type>())), stringify!($type));
            };
        }
        check!(Element { offset, kind, index, axis, other, map, low, high, relative_, padding });
        check!(Bound { first, count, above, below, at_least, at_most, padding_a, padding_b });
        check!(Term { kind, first, count, other, factor, factors, bound, bounds, weight, goal, low, high });
        check!(Drift { coordinate, axis, root, padding });
        check!(Place { first, count, nearer, farther });
        check!(Placed { qpos, qvel, low, high, center, padding_a, padding_b, padding_c });
        check!(Start { qpos, quaternion });
        check!(Batch {
            first,
            end,
            worlds,
            what,
            seed,
            stagger,
            trailed,
            obs,
            rewards,
            teacher_rewards,
            flags,
            finals,
            now,
            trail,
            ends,
            zero,
            padding_a,
            padding_b,
            padding_c,
        });
        // The rows follow the header in the shader's order, without gaps.
        let (members, size) = reflected(&module, "Task").unwrap();
        assert_eq!(size, table.bytes.len());
        assert_eq!(members.iter().find(|(name, _)| name == "parts").unwrap().1, size_of::<Head>());
        assert_eq!(members.iter().find(|(name, _)| name == "dt").unwrap().1, offset_of!(Head, dt));
        assert_eq!(members.iter().find(|(name, _)| name == "width").unwrap().1, offset_of!(Head, width));
    }
}
