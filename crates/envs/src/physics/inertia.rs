//! Mass and inertia of geoms and bodies, by the formulas that MuJoCo's compiler uses.

use super::mesh::Mesh;
use super::model::GeomShape;
use super::principal_axes::principal_axes;
use glam::{DMat3, DQuat, DVec3};
use std::f64::consts::PI;

/// Cubic metres; ground geoms have none. A mesh is looked up in `meshes`.
pub fn volume(shape: GeomShape, meshes: &[Mesh]) -> f64 {
    match shape {
        GeomShape::Plane | GeomShape::HeightField { .. } => 0.0,
        GeomShape::Mesh { mesh } => meshes[mesh].volume,
        GeomShape::Sphere { radius } => 4.0 / 3.0 * PI * radius.powi(3),
        GeomShape::Capsule { radius, half_length } => PI * radius * radius * (2.0 * half_length + 4.0 / 3.0 * radius),
        GeomShape::Cylinder { radius, half_length } => PI * radius * radius * 2.0 * half_length,
        GeomShape::Box { half_extents } => 8.0 * half_extents.x * half_extents.y * half_extents.z,
    }
}

/// Principal moments of inertia about the centre, in the geom's own axes, kg m².
pub fn moments(shape: GeomShape, mass: f64, meshes: &[Mesh]) -> DVec3 {
    match shape {
        GeomShape::Plane | GeomShape::HeightField { .. } => DVec3::ZERO,
        GeomShape::Mesh { mesh } => meshes[mesh].moments_at(mass),
        GeomShape::Sphere { radius } => DVec3::splat(0.4 * mass * radius * radius),
        GeomShape::Cylinder { radius, half_length } => cylinder(mass, radius, 2.0 * half_length),
        GeomShape::Capsule { radius, half_length } => {
            // A cylinder and two half-balls share the mass by volume. The half-balls' own centres of mass lie 3r/8
            // beyond the cylinder's ends; the last summand holds the resulting parallel-axis terms.
            let height = 2.0 * half_length;
            let balls = mass * 4.0 * radius / (4.0 * radius + 3.0 * height);
            let ball = 0.4 * balls * radius * radius;
            let apart = balls * height * (3.0 * radius + 2.0 * height) / 8.0;
            cylinder(mass - balls, radius, height) + DVec3::new(ball + apart, ball + apart, ball)
        }
        GeomShape::Box { half_extents } => {
            let square = half_extents * half_extents;
            mass / 3.0 * DVec3::new(square.y + square.z, square.x + square.z, square.x + square.y)
        }
    }
}

fn cylinder(mass: f64, radius: f64, height: f64) -> DVec3 {
    let across = mass * (3.0 * radius * radius + height * height) / 12.0;
    DVec3::new(across, across, mass * radius * radius / 2.0)
}

/// Mass, centre and principal axes of something rigid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inertia {
    /// Kilograms.
    pub mass: f64,
    /// Centre of mass, metres.
    pub pos: DVec3,
    /// Orientation of the principal axes.
    pub quat: DQuat,
    /// Principal moments about the centre of mass, kg m².
    pub moments: DVec3,
}

impl Inertia {
    /// Zero mass.
    pub const NONE: Inertia = Inertia { mass: 0.0, pos: DVec3::ZERO, quat: DQuat::IDENTITY, moments: DVec3::ZERO };

    /// The moments of inertia about the centre of mass in the axes in which `pos` and `quat` are given, kg m².
    pub fn matrix(&self) -> DMat3 {
        let axes = DMat3::from_quat(self.quat);
        axes * DMat3::from_diagonal(self.moments) * axes.transpose()
    }

    /// The same body seen from a frame in which its own frame has this pose.
    #[cfg(any(test, feature = "rapier"))]
    pub fn moved(&self, pos: DVec3, quat: DQuat) -> Inertia {
        Inertia { pos: pos + quat * self.pos, quat: quat * self.quat, ..*self }
    }

    /// All parts as one, by the parallel-axis theorem. One part alone keeps its axes as they are.
    pub fn sum(parts: &[Inertia]) -> Inertia {
        let massive: Vec<&Inertia> = parts.iter().filter(|part| part.mass > 0.0).collect();
        match massive[..] {
            [] => Inertia::NONE,
            [only] => *only,
            _ => {
                let mass: f64 = massive.iter().map(|part| part.mass).sum();
                let pos = massive.iter().map(|part| part.pos * part.mass).sum::<DVec3>() / mass;
                let mut total = DMat3::ZERO;
                for part in &massive {
                    let d = part.pos - pos;
                    let outer = DMat3::from_cols(d * d.x, d * d.y, d * d.z);
                    total += part.matrix() + (DMat3::IDENTITY * d.length_squared() - outer) * part.mass;
                }
                let (quat, moments) = principal_axes(total);
                Inertia { mass, pos, quat, moments }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A capsule as a sum of thin discs: ∫ of each disc's own moment and its distance from the centre.
    #[test]
    fn a_capsules_moments_match_numerical_integration() {
        let (radius, half_length, mass) = (0.3, 0.5, 2.0);
        let shape = GeomShape::Capsule { radius, half_length };
        let density = mass / volume(shape, &[]);
        let (mut across, mut along, mut total) = (0.0, 0.0, 0.0);
        let steps = 400_000;
        let end = half_length + radius;
        let dz = 2.0 * end / steps as f64;
        for i in 0..steps {
            let z = -end + (i as f64 + 0.5) * dz;
            let beyond = (z.abs() - half_length).max(0.0);
            let r2 = radius * radius - beyond * beyond;
            let dm = density * PI * r2 * dz;
            total += dm;
            along += dm * r2 / 2.0;
            across += dm * (r2 / 4.0 + z * z);
        }
        let moments = moments(shape, mass, &[]);
        assert!((total - mass).abs() < 1e-8, "{total}");
        assert!((moments.z - along).abs() < 1e-8, "{moments} {along}");
        assert!((moments.x - across).abs() < 1e-8 && moments.x == moments.y, "{moments} {across}");
    }

    #[test]
    fn a_box_cut_in_unequal_halves_is_the_box_again() {
        let whole = GeomShape::Box { half_extents: DVec3::new(1.0, 2.0, 0.5) };
        let part = |lo: f64, hi: f64| {
            let shape = GeomShape::Box { half_extents: DVec3::new((hi - lo) / 2.0, 2.0, 0.5) };
            let mass = volume(shape, &[]);
            let pos = DVec3::X * ((lo + hi) / 2.0);
            Inertia { mass, pos, quat: DQuat::IDENTITY, moments: moments(shape, mass, &[]) }
        };
        let turn = DQuat::from_euler(glam::EulerRot::XYZ, 0.3, -1.1, 0.7);
        let shift = DVec3::new(0.4, -2.0, 3.0);
        let sum = Inertia::sum(&[part(-1.0, 0.2).moved(shift, turn), part(0.2, 1.0).moved(shift, turn)]);
        let mass = volume(whole, &[]);
        let expected = Inertia { mass, pos: shift, quat: turn, moments: moments(whole, mass, &[]) };
        assert!((sum.mass - expected.mass).abs() < 1e-12);
        assert!((sum.pos - expected.pos).length() < 1e-12);
        assert!(sum.matrix().abs_diff_eq(expected.matrix(), 1e-11), "{:?}\n{:?}", sum.matrix(), expected.matrix());
        assert!(sum.moments.x >= sum.moments.y && sum.moments.y >= sum.moments.z);
    }
}
