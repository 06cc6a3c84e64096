//! Compiles a task file into its parts. It looks up every name in the model, resolves every choice of numbers to
//! indices, and reports a mistake with its line and with what the model has instead.

use super::flips::FlipRule;
use super::parts::{Bound, Flips, Parts, Place, Term};
use super::signal::{BodyPick, CenterPick, Element, Pick};
use crate::physics::{Body, Joint, JointKind, Model, Quantity};
use crate::tasks::{FlipSpec, HealthSpec, PlaceSpec, RewardKind, RewardSpec, SignalSpec, Source, SpecError, TaskSpec};
use flipside_core::Seed;
use flipside_core::settings::RewardModelSettings;
use std::ops::Range;
use std::sync::Arc;
use toml::Spanned;

const OPEN: [f64; 2] = [f64::NEG_INFINITY, f64::INFINITY];

/// Resolves a task against its model.
pub(super) fn parts(spec: &TaskSpec, model: &Model) -> Result<Parts, SpecError> {
    let compiler = Compiler { spec, model };
    let gather = |signals: &[SignalSpec]| -> Result<Vec<Element>, SpecError> {
        Ok(signals.iter().map(|s| compiler.signal(s)).collect::<Result<Vec<_>, _>>()?.concat())
    };
    let observation = gather(&spec.observation)?;
    let terms = spec.reward.iter().map(|term| compiler.term(term)).collect::<Result<Vec<_>, _>>()?;
    let teacher_reward = spec.teacher.iter().map(|term| compiler.term(term)).collect::<Result<Vec<_>, _>>()?;
    let health = spec.healthy.iter().map(|bound| compiler.bound(bound)).collect::<Result<Vec<_>, _>>()?;
    let places = spec.reset.place.iter().map(|place| compiler.place(place)).collect::<Result<Vec<_>, _>>()?;

    let flips = spec.flips.as_ref().map(|flips| compiler.flips(flips)).transpose()?;

    let of_terms = terms.iter().chain(&teacher_reward).flat_map(Term::reads);
    let of_health = health.iter().flat_map(|bound| &bound.signal);
    let read = observation.iter().chain(of_terms).chain(of_health);
    let read: Vec<Quantity> = read.filter_map(|element| element.pick.needs()).collect();
    let needs = Quantity::ALL.into_iter().filter(|quantity| read.contains(quantity)).collect();
    if let Some(model) = &spec.reward_model {
        compiler.check_unseen(model, observation.len())?;
    }
    let free = |joint: &&Joint| joint.kind == JointKind::Free;
    Ok(Parts {
        observation,
        terms,
        teacher_reward,
        health,
        flips,
        qpos_noise: spec.reset.qpos.as_ref().map(|n| *n.get_ref()),
        qvel_noise: spec.reset.qvel.as_ref().map(|n| *n.get_ref()),
        places,
        quaternions: model.joints.iter().filter(free).map(|joint| joint.qposadr + 3).collect(),
        needs,
    })
}

/// A joint's entries in qpos.
fn positions(joint: &Joint) -> Range<usize> {
    joint.qposadr..joint.qposadr + joint.sizes().0
}

/// A joint's entries in qvel.
fn velocities(joint: &Joint) -> Range<usize> {
    joint.dofadr..joint.dofadr + joint.sizes().1
}

struct Compiler<'a> {
    spec: &'a TaskSpec,
    model: &'a Model,
}

impl Compiler<'_> {
    fn signal(&self, signal: &SignalSpec) -> Result<Vec<Element>, SpecError> {
        let mut picks = self.picks(signal)?;
        let all = picks.len();
        if let Some(skip) = &signal.skip {
            let n = *skip.get_ref();
            if n >= all {
                return Err(
                    self.error(skip, format!("expected to skip fewer than the {all} numbers there are, not {n}"))
                );
            }
            picks.drain(..n);
        }
        if let Some(take) = &signal.take {
            let (n, left) = (*take.get_ref(), picks.len());
            if n == 0 || n > left {
                return Err(self.error(take, format!("expected to take 1 to {left} numbers, not {n}")));
            }
            picks.truncate(n);
        }
        if picks.is_empty() {
            return Err(self.error(&signal.source, format!("{} has no such numbers", self.robot())));
        }
        let [low, high] = signal.clip.as_ref().map_or(OPEN, |clip| *clip.get_ref());
        Ok(picks.into_iter().map(|pick| Element { pick, map: signal.map, low, high }).collect())
    }

    fn picks(&self, signal: &SignalSpec) -> Result<Vec<Pick>, SpecError> {
        let (nq, nv, nu, nbody) = (self.model.nq(), self.model.nv(), self.model.nu(), self.model.nbody());
        let of_joints = |entries: fn(&Joint) -> Range<usize>, pick: fn(usize) -> Pick, all: usize| {
            let Some(names) = &signal.joints else { return Ok((0..all).map(pick).collect()) };
            let joints = names.iter().map(|name| self.joint(name)).collect::<Result<Vec<_>, _>>()?;
            Ok(joints.into_iter().flat_map(entries).map(pick).collect())
        };
        match signal.source.get_ref() {
            Source::Qpos => of_joints(positions, Pick::Qpos, nq),
            Source::Qvel => of_joints(velocities, Pick::Qvel, nv),
            Source::State => Ok((0..nq).map(Pick::Qpos).chain((0..nv).map(Pick::Qvel)).collect()),
            Source::Action => Ok((0..nu).map(Pick::Action).collect()),
            // The world body's entries come first and never change, so they are left out.
            Source::Cinert => Ok((10..10 * nbody).map(Pick::Cinert).collect()),
            Source::Cvel => Ok((6..6 * nbody).map(Pick::Cvel).collect()),
            Source::CfrcExt => Ok((6..6 * nbody).map(Pick::Force).collect()),
            Source::QfrcActuator => of_joints(velocities, Pick::Actuator, nv),
            Source::QfrcConstraint => of_joints(velocities, Pick::Constraint, nv),
            Source::Body => {
                // `TaskSpec::parse` has already refused a body source without a body.
                let Some(name) = &signal.body else { return Ok(Vec::new()) };
                let body = self.body(name)?;
                let relative_to = signal.relative_to.as_ref().map(|name| self.body(name)).transpose()?;
                let offset = signal.offset.as_ref().map_or([0.0; 3], |o| *o.get_ref());
                Ok((0..3).map(|axis| Pick::Body(BodyPick { body, offset, relative_to, axis })).collect())
            }
            Source::CenterOfMass => {
                let total = self.model.total_mass();
                let part = |body: &Body| (body.mass / total, body.ipos.to_array());
                let parts: Arc<[_]> = self.model.bodies.iter().map(part).collect();
                Ok((0..3).map(|axis| Pick::CenterOfMass(CenterPick { parts: parts.clone(), axis })).collect())
            }
        }
    }

    fn term(&self, term: &RewardSpec) -> Result<Term, SpecError> {
        let kind = *term.kind.get_ref();
        let signal = term.of.as_ref().map_or(Ok(Vec::new()), |of| self.signal(of))?;
        if matches!(kind, RewardKind::Velocity | RewardKind::Value) && signal.len() != 1 {
            let message = format!(
                "expected a signal of one number for this kind of term, not {}: choose one with `joints`, `skip` and `take`",
                signal.len()
            );
            return Err(self.error(&term.kind, message));
        }
        let with = term.with.as_ref().map_or(Ok(Vec::new()), |with| self.signal(with))?;
        if kind == RewardKind::Dot && with.len() != signal.len() {
            let message = format!("expected as many numbers `with` as `of`: {} and {}", with.len(), signal.len());
            return Err(self.error(&term.kind, message));
        }
        let mut factors = Vec::new();
        for times in &term.times {
            let numbers = self.signal(times)?;
            if numbers.len() != 1 {
                let message = format!("expected a signal of one number in `times`, not {}", numbers.len());
                return Err(self.error(&times.source, message));
            }
            factors.extend(numbers);
        }
        let when = term.when.iter().map(|bound| self.bound(bound)).collect::<Result<Vec<_>, _>>()?;
        let [low, high] = term.clip.as_ref().map_or(OPEN, |clip| *clip.get_ref());
        let target = term.target.as_ref().map_or(0.0, |t| *t.get_ref());
        let (name, weight) = (term.name.get_ref().clone(), *term.weight.get_ref());
        Ok(Term { name, kind, signal, with, factors, when, weight, target, low, high })
    }

    fn flips(&self, spec: &FlipSpec) -> Result<Flips, SpecError> {
        let place = |name: &Spanned<String>, wanted: JointKind, what: &str| {
            let joint = self.joint(name)?;
            match joint.kind == wanted {
                true => Ok(joint.qposadr),
                false => Err(self.error(name, format!("expected a {what}: `{}` is none", name.get_ref()))),
            }
        };
        let rule = FlipRule {
            upright_within: *spec.upright_within.get_ref(),
            upright_above: *spec.upright_above.get_ref(),
            for_seconds: *spec.for_seconds.get_ref(),
        };
        Ok(Flips {
            pitch: place(&spec.pitch, JointKind::Hinge, "hinge")?,
            height: place(&spec.height, JointKind::Slide, "slide")?,
            rule,
        })
    }

    fn bound(&self, bound: &HealthSpec) -> Result<Bound, SpecError> {
        let or = |value: &Option<Spanned<f64>>, default: f64| value.as_ref().map_or(default, |v| *v.get_ref());
        Ok(Bound {
            signal: self.signal(&bound.of)?,
            above: or(&bound.above, OPEN[0]),
            below: or(&bound.below, OPEN[1]),
            at_least: or(&bound.at_least, OPEN[0]),
            at_most: or(&bound.at_most, OPEN[1]),
        })
    }

    fn place(&self, place: &PlaceSpec) -> Result<Place, SpecError> {
        let (mut qpos, mut qvel) = (Vec::new(), Vec::new());
        for name in place.joints.get_ref() {
            let joint = self.joint(name)?;
            if joint.kind == JointKind::Free {
                return Err(
                    self.error(name, format!("expected a joint with one number: `{}` has more", name.get_ref()))
                );
            }
            qpos.push(joint.qposadr);
            qvel.push(joint.dofadr);
        }
        let compiled = Place {
            center: place.center.as_ref().map_or(vec![0.0; qpos.len()], |c| c.get_ref().clone()),
            low: place.low.get_ref().clone(),
            high: place.high.get_ref().clone(),
            nearer_than: place.nearer_than.as_ref().map_or(f64::INFINITY, |d| *d.get_ref()),
            farther_than: place.farther_than.as_ref().map_or(-1.0, |d| *d.get_ref()),
            qpos,
            qvel,
        };
        // If a hundred placements in a row succeed, a later failure is practically impossible.
        let mut stream = Seed(0).stream("place");
        let mut qpos = vec![0.0; self.model.nq()];
        if !(0..100).all(|_| compiled.draw(&mut stream, &mut qpos)) {
            return Err(
                self.error(&place.joints, "expected a box that mostly keeps `nearer_than` and `farther_than`".into())
            );
        }
        Ok(compiled)
    }

    /// The inputs hidden from the reward model must exist and must not be all of the `observed` numbers.
    fn check_unseen(&self, model: &Spanned<RewardModelSettings>, observed: usize) -> Result<(), SpecError> {
        let unseen = &model.get_ref().ignored_inputs;
        if let Some(place) = unseen.iter().find(|&&place| place >= observed) {
            let message =
                format!("expected places below {observed} in `unseen`, for so many numbers are observed, not {place}");
            return Err(self.error(model, message));
        }
        match (0..observed).all(|place| unseen.contains(&place)) {
            true => Err(self.error(model, "expected `unseen` to leave something to see".into())),
            false => Ok(()),
        }
    }

    fn joint(&self, name: &Spanned<String>) -> Result<&Joint, SpecError> {
        let joints = &self.model.joints;
        joints
            .iter()
            .find(|joint| joint.name == *name.get_ref())
            .ok_or_else(|| self.unknown("joint", name, &mut joints.iter().map(|joint| joint.name.as_str())))
    }

    fn body(&self, name: &Spanned<String>) -> Result<usize, SpecError> {
        let bodies = &self.model.bodies;
        bodies
            .iter()
            .position(|body| body.name == *name.get_ref())
            .ok_or_else(|| self.unknown("body", name, &mut bodies.iter().map(|body| body.name.as_str())))
    }

    fn unknown(&self, what: &str, name: &Spanned<String>, there: &mut dyn Iterator<Item = &str>) -> SpecError {
        let there = there.filter(|name| !name.is_empty()).collect::<Vec<_>>().join(", ");
        let message = format!("{} has no {what} `{}`; expected one of: {there}", self.robot(), name.get_ref());
        self.error(name, message)
    }

    fn robot(&self) -> &str {
        self.spec.model.get_ref()
    }

    fn error<T>(&self, place: &Spanned<T>, message: String) -> SpecError {
        self.spec.origin.error(place.span(), message)
    }
}
