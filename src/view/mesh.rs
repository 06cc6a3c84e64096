//! Unit meshes. An instance stretches one by its radius and half extents (see `SolidVertex` in scene.wgsl), so that one capsule mesh
//! serves every capsule and ball, whatever their proportions, without distorting the round ends.

use super::layout::SolidVertex;
use std::f32::consts::{PI, TAU};

/// Sides of a round solid. 32 keeps a silhouette's corners below half a pixel at the sizes that the desk shows.
const SIDES: u16 = 32;
/// Rings of a capsule from pole to pole, the two at the equator included.
const RINGS: u16 = 18;

/// Corners and triangles (counter-clockwise seen from outside).
pub(super) struct Mesh {
    pub vertices: Vec<SolidVertex>,
    pub indices: Vec<u16>,
}

/// Two half-balls, each carried along by its end of the axis; where they meet, the band between the two equators is the straight
/// part. With no half length it is a ball.
pub(super) fn capsule() -> Mesh {
    let mut mesh = Mesh { vertices: Vec::new(), indices: Vec::new() };
    for ring in 0..RINGS {
        let upper = ring >= RINGS / 2;
        // The equator is there twice, once for each half.
        let latitude = f32::from(ring - u16::from(upper)) / f32::from(RINGS - 2) * PI - 0.5 * PI;
        for side in 0..=SIDES {
            let (sin, cos) = (f32::from(side) / f32::from(SIDES) * TAU).sin_cos();
            let normal = [latitude.cos() * cos, latitude.cos() * sin, latitude.sin()];
            let corner = [0.0, 0.0, if upper { 1.0 } else { -1.0 }];
            mesh.vertices.push(SolidVertex { round: normal, corner, normal });
        }
    }
    mesh.stitch(0, RINGS, SIDES + 1);
    mesh
}

/// A tube and two discs.
pub(super) fn cylinder() -> Mesh {
    let mut mesh = Mesh { vertices: Vec::new(), indices: Vec::new() };
    let ring = |mesh: &mut Mesh, end: f32, width: f32, normal_z: f32| {
        for side in 0..=SIDES {
            let (sin, cos) = (f32::from(side) / f32::from(SIDES) * TAU).sin_cos();
            let normal = if normal_z == 0.0 { [cos, sin, 0.0] } else { [0.0, 0.0, normal_z] };
            mesh.vertices.push(SolidVertex { round: [cos * width, sin * width, 0.0], corner: [0.0, 0.0, end], normal });
        }
    };
    for (end_a, width_a, end_b, width_b, normal_z) in
        [(-1.0, 0.0, -1.0, 1.0, -1.0), (-1.0, 1.0, 1.0, 1.0, 0.0), (1.0, 1.0, 1.0, 0.0, 1.0)]
    {
        let first = mesh.vertices.len() as u16;
        ring(&mut mesh, end_a, width_a, normal_z);
        ring(&mut mesh, end_b, width_b, normal_z);
        mesh.stitch(first, 2, SIDES + 1);
    }
    mesh
}

/// Six faces.
pub(super) fn cuboid() -> Mesh {
    let mut mesh = Mesh { vertices: Vec::new(), indices: Vec::new() };
    for axis in 0..3 {
        for sign in [-1.0_f32, 1.0] {
            let first = mesh.vertices.len() as u16;
            for (u, v) in [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)] {
                let mut corner = [0.0; 3];
                let mut normal = [0.0; 3];
                corner[axis] = sign;
                normal[axis] = sign;
                // Seen from outside, u × v must be the normal.
                corner[(axis + 1) % 3] = u * sign;
                corner[(axis + 2) % 3] = v;
                mesh.vertices.push(SolidVertex { round: [0.0; 3], corner, normal });
            }
            mesh.indices.extend([0, 1, 2, 2, 3, 0].map(|i: u16| first + i));
        }
    }
    mesh
}

impl Mesh {
    /// Joins `rows` consecutive rows of `columns` vertices each, from vertex `first` on, into quads.
    fn stitch(&mut self, first: u16, rows: u16, columns: u16) {
        for row in 0..rows - 1 {
            for column in 0..columns - 1 {
                let a = first + row * columns + column;
                let b = a + columns;
                self.indices.extend([a, a + 1, b, b, a + 1, b + 1]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glam::Vec3;

    /// The volume that a mesh encloses, stretched by `radius` and `half`: Σ a·(b × c)/6, positive only where triangles face out.
    fn volume(mesh: &Mesh, radius: f32, half: Vec3) -> f32 {
        let at = |i: u16| {
            let v = mesh.vertices[usize::from(i)];
            Vec3::from(v.round) * radius + Vec3::from(v.corner) * half
        };
        mesh.indices.chunks(3).map(|t| at(t[0]).dot(at(t[1]).cross(at(t[2]))) / 6.0).sum()
    }

    #[test]
    fn enclose_the_volumes_of_their_formulas() {
        let (r, h) = (0.3_f32, 0.7_f32);
        for (mesh, half, exact) in [
            (capsule(), Vec3::ZERO, 4.0 / 3.0 * PI * r.powi(3)),
            (capsule(), Vec3::Z * h, 4.0 / 3.0 * PI * r.powi(3) + TAU * r * r * h),
            (cylinder(), Vec3::Z * h, TAU * r * r * h),
            (cuboid(), Vec3::new(0.1, 0.2, h), 8.0 * 0.1 * 0.2 * h),
        ] {
            let found = volume(&mesh, r, half);
            assert!(found <= exact * 1.0001 && found > exact * 0.98, "{found} for {exact}");
        }
    }

    #[test]
    fn normals_point_out_of_their_triangles() {
        for mesh in [capsule(), cylinder(), cuboid()] {
            for t in mesh.indices.chunks(3) {
                let v = [t[0], t[1], t[2]].map(|i| mesh.vertices[usize::from(i)]);
                let p = v.map(|v| Vec3::from(v.round) + Vec3::from(v.corner));
                let face = (p[1] - p[0]).cross(p[2] - p[0]);
                for vertex in v {
                    let normal = Vec3::from(vertex.normal);
                    assert!((normal.length() - 1.0).abs() < 1e-5);
                    assert!(face.dot(normal) >= -1e-6);
                }
            }
        }
    }
}
