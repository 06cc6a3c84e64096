//! Meshes and height fields, compiled as MuJoCo compiles them. A mesh is stored in the frame of its own principal axes
//! of inertia, a height field's elevations in 0..=1.

use super::principal_axes::principal_axes;
use flipside_core::TriangleMesh;
use glam::{DMat3, DQuat, DVec3};
use std::collections::{HashMap, HashSet};

/// A closed or open surface of triangles, and the solid that it represents.
///
/// As in MuJoCo, its convex hull collides.
#[derive(Clone, Debug, PartialEq)]
pub struct Mesh {
    /// Its name in the file, or the name of its own file without the ending.
    pub name: String,
    /// Metres, about the centre of mass, along the principal axes of inertia.
    pub vertices: Vec<DVec3>,
    /// Three indices into `vertices` each; counterclockwise when seen from outside.
    pub faces: Vec<[u32; 3]>,
    /// The vertices of the convex hull, indices into `vertices`.
    pub hull: Vec<u32>,
    /// The centre of mass in the frame of the file, metres (MuJoCo's `mesh_pos`).
    pub pos: DVec3,
    /// The principal axes in the frame of the file (MuJoCo's `mesh_quat`).
    pub quat: DQuat,
    /// Cubic metres.
    pub volume: f64,
    /// Principal moments of inertia about the centre of mass at density 1, m⁵, the largest first.
    pub moments: DVec3,
}

/// `<mesh inertia>`: which solid a surface represents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshInertia {
    /// Every triangle adds the pyramid between itself and the surface's centre, whichever way it faces. This is
    /// MuJoCo's default. It is exact if the whole surface is visible from its centre, and too large otherwise.
    Legacy,
    /// The solid inside a closed surface.
    Exact,
    /// The convex hull.
    Convex,
}

impl Mesh {
    /// Compiles a surface; one without faces is the convex hull of its vertices.
    ///
    /// # Errors
    /// A problem with the surface: fewer than four vertices, a face with an invalid vertex, or all vertices in a plane.
    /// With [`MeshInertia::Exact`] also a surface that is not closed or that is turned inside out.
    pub fn new(
        name: String,
        mut vertices: Vec<DVec3>,
        mut faces: Vec<[u32; 3]>,
        inertia: MeshInertia,
    ) -> Result<Mesh, String> {
        if vertices.len() < 4 {
            return Err(format!("it has {} vertices; expected 4 or more", vertices.len()));
        }
        if let Some(face) = faces.iter().find(|face| face.iter().any(|&index| index as usize >= vertices.len())) {
            return Err(format!(
                "a face names the vertices {face:?}, and there are {}, counted from 0",
                vertices.len()
            ));
        }
        let hull_faces = hull(&vertices)?;
        if faces.is_empty() {
            faces.clone_from(&hull_faces);
        }
        let solid = match inertia {
            MeshInertia::Legacy => Solid::of(&vertices, &faces, f64::abs),
            MeshInertia::Convex => Solid::of(&vertices, &hull_faces, f64::abs),
            MeshInertia::Exact => {
                closed(&vertices, &faces)?;
                let solid = Solid::of(&vertices, &faces, |volume| volume);
                if solid.volume <= 0.0 {
                    return Err(
                        "its faces look inwards; expected each to run against the clock, seen from outside".into()
                    );
                }
                solid
            }
        };
        let (quat, moments) = principal_axes(solid.moments);
        for vertex in &mut vertices {
            *vertex = quat.inverse() * (*vertex - solid.centre);
        }
        let mut hull: Vec<u32> = hull_faces.into_iter().flatten().collect();
        hull.sort_unstable();
        hull.dedup();
        Ok(Mesh { name, vertices, faces, hull, pos: solid.centre, quat, volume: solid.volume, moments })
    }

    /// Principal moments of inertia at a mass, kg m².
    pub fn moments_at(&self, mass: f64) -> DVec3 {
        self.moments * (mass / self.volume)
    }

    /// Half sizes of the box about the origin that contains it, metres.
    pub fn half_extents(&self) -> DVec3 {
        self.vertices.iter().fold(DVec3::ZERO, |most, vertex| most.max(vertex.abs()))
    }

    /// Half sizes of the box with its volume and with proportional moments of inertia, metres.
    pub fn equivalent_box(&self) -> DVec3 {
        // For a box ∫x² = V·a²/3. For any body it is half of the sum of the other two moments minus the one about x.
        let across = DVec3::splat(self.moments.element_sum() / 2.0) - self.moments;
        let half = (across.max(DVec3::ZERO) * 3.0 / self.volume).map(f64::sqrt);
        let volume = 8.0 * half.element_product();
        if volume > 0.0 { half * (self.volume / volume).cbrt() } else { half }
    }

    /// What a renderer draws.
    pub fn triangles(&self) -> TriangleMesh {
        let vertices = self.vertices.iter().map(|vertex| vertex.as_vec3().to_array()).collect();
        TriangleMesh { vertices, faces: self.faces.clone() }
    }
}

/// Volume, centre and inertia of the pyramids between triangles and a centre.
struct Solid {
    volume: f64,
    centre: DVec3,
    /// About `centre`, at density 1.
    moments: DMat3,
}

impl Solid {
    /// `count` turns a pyramid's signed volume into the volume that is counted. As in MuJoCo the apex is the surface's
    /// centre of area while the centre of mass is being computed, and that centre of mass afterwards. This only matters
    /// if a pyramid's sign is dropped.
    fn of(vertices: &[DVec3], faces: &[[u32; 3]], count: fn(f64) -> f64) -> Solid {
        let corners = || faces.iter().map(|face| face.map(|index| vertices[index as usize]));
        let (mut area, mut middle) = (0.0, DVec3::ZERO);
        for [a, b, c] in corners() {
            let size = (b - a).cross(c - a).length() / 2.0;
            area += size;
            middle += size * (a + b + c) / 3.0;
        }
        let apex = middle / area;
        let pyramid = |apex: DVec3, [a, b, c]: [DVec3; 3]| count((a - apex).dot((b - apex).cross(c - apex)) / 6.0);
        let (mut volume, mut moment) = (0.0, DVec3::ZERO);
        for corners in corners() {
            let share = pyramid(apex, corners);
            volume += share;
            moment += share * (corners.iter().sum::<DVec3>() + apex) / 4.0;
        }
        let centre = moment / volume;
        let (mut volume, mut spread) = (0.0, DMat3::ZERO);
        for corners in corners() {
            // ∫xxᵀ over a tetrahedron with one corner at the origin: V/20 (Σxxᵀ + (Σx)(Σx)ᵀ).
            let share = pyramid(centre, corners);
            let from = corners.map(|corner| corner - centre);
            let sum: DVec3 = from.iter().sum();
            let squares = from.iter().fold(outer(sum), |squares, corner| squares + outer(*corner));
            spread += squares * (share / 20.0);
            volume += share;
        }
        let trace = spread.x_axis.x + spread.y_axis.y + spread.z_axis.z;
        Solid { volume, centre, moments: DMat3::from_diagonal(DVec3::splat(trace)) - spread }
    }
}

fn outer(v: DVec3) -> DMat3 {
    DMat3::from_cols(v * v.x, v * v.y, v * v.z)
}

/// The convex hull's triangles, as indices into the vertices.
#[cfg(not(feature = "rapier"))]
fn hull(_: &[DVec3]) -> Result<Vec<[u32; 3]>, String> {
    Err("meshes collide as their convex hulls, which this build leaves out: build flipside-envs with the feature `rapier`".to_owned())
}

/// The convex hull's triangles, as indices into the vertices.
#[cfg(feature = "rapier")]
fn hull(vertices: &[DVec3]) -> Result<Vec<[u32; 3]>, String> {
    use glam::Vec3;
    use rapier3d::parry::transformation::try_convex_hull;
    /// A hull is no solid if its volume is below this share of the cube of its largest size.
    const FLAT: f64 = 1e-9;
    let flat =
        || "all of it lies in a plane, which has no convex hull; expected a solid, or a geom of type box".to_owned();
    let low = vertices.iter().fold(DVec3::INFINITY, |low, vertex| low.min(*vertex));
    let high = vertices.iter().fold(DVec3::NEG_INFINITY, |high, vertex| high.max(*vertex));
    // Relative to the middle, where single precision is finest.
    let points: Vec<Vec3> = vertices.iter().map(|vertex| (*vertex - (low + high) / 2.0).as_vec3()).collect();
    let key = |point: Vec3| point.to_array().map(|x| (x + 0.0).to_bits());
    let mut index = HashMap::new();
    for (at, point) in points.iter().enumerate() {
        index.entry(key(*point)).or_insert(at as u32);
    }
    let (corners, faces) = try_convex_hull(&points).map_err(|_| flat())?;
    // The hull's corners are points of the input, bit for bit.
    let known: Option<Vec<u32>> = corners.iter().map(|corner| index.get(&key(*corner)).copied()).collect();
    let known = known.ok_or_else(flat)?;
    let faces: Vec<[u32; 3]> = faces.into_iter().map(|face| face.map(|corner| known[corner as usize])).collect();
    let volume: f64 = faces
        .iter()
        .map(|face| face.map(|at| points[at as usize].as_dvec3()))
        .map(|[a, b, c]| a.dot(b.cross(c)) / 6.0)
        .sum();
    if volume.abs() <= FLAT * (high - low).max_element().powi(3) {
        return Err(flat());
    }
    Ok(faces)
}

/// Whether every edge is shared by one face from each side. Vertices at the same place count as one.
fn closed(vertices: &[DVec3], faces: &[[u32; 3]]) -> Result<(), String> {
    let mut places: HashMap<[u64; 3], usize> = HashMap::new();
    let ids: Vec<usize> = vertices
        .iter()
        .map(|vertex| {
            let next = places.len();
            *places.entry(vertex.to_array().map(|x| (x + 0.0).to_bits())).or_insert(next)
        })
        .collect();
    let mut edges = HashSet::new();
    let sides = faces.iter().map(|face| face.map(|index| ids[index as usize]));
    for [a, b, c] in sides.filter(|[a, b, c]| a != b && b != c && c != a) {
        if ![(a, b), (b, c), (c, a)].into_iter().all(|edge| edges.insert(edge)) {
            return Err(
                "two of its faces disagree about which side is outside; expected all to run against the clock, \
                        seen from outside"
                    .into(),
            );
        }
    }
    match edges.iter().any(|(from, to)| !edges.contains(&(*to, *from))) {
        true => {
            Err("its surface is not closed, so it has no inside; expected inertia=\"convex\" or a closed surface"
                .into())
        }
        false => Ok(()),
    }
}

/// Static ground whose height is given on a grid.
#[derive(Clone, Debug, PartialEq)]
pub struct HeightField {
    /// Its name in the file, or the name of its own file without the ending.
    pub name: String,
    /// Grid points along y.
    pub rows: usize,
    /// Grid points along x.
    pub columns: usize,
    /// Metres: half the size along x and y, the height of elevation 1, and the depth of the base below elevation 0.
    pub size: [f64; 4],
    /// Elevations in 0..=1, `[rows, columns]`; the first row has the smallest y (MuJoCo's `hfield_data`).
    pub data: Vec<f64>,
}

impl HeightField {
    /// Takes a grid whose first row has the greatest y, as in files, and scales its elevations to 0..=1.
    pub fn new(name: String, [rows, columns]: [usize; 2], size: [f64; 4], elevation: &[f64]) -> HeightField {
        let low = elevation.iter().copied().fold(f64::INFINITY, f64::min);
        let span = elevation.iter().copied().fold(f64::NEG_INFINITY, f64::max) - low;
        let scaled = |height: &f64| if span > 0.0 { (height - low) / span } else { 0.0 };
        let data = elevation.chunks(columns).rev().flatten().map(scaled).collect();
        HeightField { name, rows, columns, size, data }
    }

    /// A grid point in the geom's frame, metres.
    pub fn point(&self, row: usize, column: usize) -> DVec3 {
        let along = |at: usize, count: usize| 2.0 * at as f64 / (count - 1) as f64 - 1.0;
        let [half_x, half_y, top, _] = self.size;
        let height = self.data[row * self.columns + column] * top;
        DVec3::new(along(column, self.columns) * half_x, along(row, self.rows) * half_y, height)
    }

    /// The triangles for a renderer: the ground and the walls of the base. As in MuJoCo each cell is cut from its
    /// corner of smallest x and y to its corner of greatest x and y.
    pub fn triangles(&self) -> TriangleMesh {
        let at = |row: usize, column: usize| (row * self.columns + column) as u32;
        let (top, right) = (self.rows - 1, self.columns - 1);
        let points = (0..self.rows).flat_map(|row| (0..self.columns).map(move |column| (row, column)));
        let mut vertices: Vec<[f32; 3]> = points.map(|(r, c)| self.point(r, c).as_vec3().to_array()).collect();
        let cells = (0..top).flat_map(|row| (0..right).map(move |column| (row, column)));
        let mut faces: Vec<[u32; 3]> = cells
            .flat_map(|(r, c)| [[at(r, c), at(r + 1, c + 1), at(r + 1, c)], [at(r, c), at(r, c + 1), at(r + 1, c + 1)]])
            .collect();
        // Around the edge once, counterclockwise.
        let around = (0..right)
            .map(|c| (0, c))
            .chain((0..top).map(|r| (r, right)))
            .chain((1..=right).rev().map(|c| (top, c)))
            .chain((1..=top).rev().map(|r| (r, 0)))
            .collect::<Vec<_>>();
        let base = vertices.len() as u32;
        for &(r, c) in &around {
            let [x, y, _] = vertices[at(r, c) as usize];
            vertices.push([x, y, -self.size[3] as f32]);
        }
        for (k, &(r, c)) in around.iter().enumerate() {
            let next = (k + 1) % around.len();
            let [here, there] = [at(r, c), at(around[next].0, around[next].1)];
            let [below, below_next] = [base + k as u32, base + next as u32];
            faces.extend([[below, below_next, there], [below, there, here]]);
        }
        TriangleMesh { vertices, faces }
    }

    /// Half sizes of the box about the geom's origin that contains it, metres.
    pub fn half_extents(&self) -> DVec3 {
        let [x, y, top, base] = self.size;
        DVec3::new(x, y, top.max(base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A box from −half to half: eight corners, twelve faces.
    fn cuboid(half: DVec3) -> (Vec<DVec3>, Vec<[u32; 3]>) {
        let sign = |bit: u32| if bit == 0 { -1.0 } else { 1.0 };
        let corner = |k: u32| half * DVec3::new(sign(k & 1), sign(k & 2), sign(k & 4));
        let quads = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]];
        let faces = quads.iter().flat_map(|[a, b, c, d]| [[*a, *b, *c], [*a, *c, *d]]).collect();
        ((0..8).map(corner).collect(), faces)
    }

    #[test]
    fn a_boxs_mesh_weighs_what_the_box_does_wherever_it_lies() {
        let half = DVec3::new(0.3, 0.5, 1.1);
        let (vertices, faces) = cuboid(half);
        let turn = DQuat::from_euler(glam::EulerRot::XYZ, 0.4, -0.9, 2.0);
        let shift = DVec3::new(4.0, -3.0, 0.5);
        let placed: Vec<DVec3> = vertices.iter().map(|vertex| shift + turn * *vertex).collect();
        let square = half * half;
        let volume = 8.0 * half.element_product();
        let moments = volume / 3.0 * DVec3::new(square.y + square.z, square.x + square.z, square.x + square.y);
        for inertia in [MeshInertia::Legacy, MeshInertia::Exact, MeshInertia::Convex] {
            let mesh = Mesh::new("box".into(), placed.clone(), faces.clone(), inertia).unwrap();
            assert!((mesh.volume - volume).abs() < 1e-12 && (mesh.pos - shift).length() < 1e-12, "{mesh:?}");
            assert!((mesh.moments - moments).length() < 1e-12, "{}\n{moments}", mesh.moments);
            assert!((mesh.equivalent_box() - half).length() < 1e-9 && (mesh.half_extents() - half).length() < 1e-9);
            for (own, given) in mesh.vertices.iter().zip(&placed) {
                assert!((mesh.pos + mesh.quat * *own - *given).length() < 1e-12);
            }
            assert_eq!(mesh.hull.len(), 8);
        }
    }

    #[test]
    fn a_surface_that_is_no_solid_is_refused() {
        let (vertices, faces) = cuboid(DVec3::ONE);
        let exact = |faces: Vec<[u32; 3]>| Mesh::new("m".into(), vertices.clone(), faces, MeshInertia::Exact);
        assert!(exact(faces.clone()).is_ok());
        assert!(exact(faces[1..].to_vec()).unwrap_err().contains("not closed"));
        let turned = |[a, b, c]: [u32; 3]| [a, c, b];
        let inside_out: Vec<_> = faces.iter().map(|face| turned(*face)).collect();
        assert!(exact(inside_out).unwrap_err().contains("look inwards"));
        let one_turned = [vec![turned(faces[0])], faces[1..].to_vec()].concat();
        assert!(exact(one_turned).unwrap_err().contains("disagree"));
        assert!(exact(vec![[0, 1, 8]]).unwrap_err().contains("there are 8"));
        let flat: Vec<DVec3> = vertices.iter().map(|vertex| vertex.with_z(0.25)).collect();
        let error = Mesh::new("m".into(), flat, faces.clone(), MeshInertia::Legacy).unwrap_err();
        assert!(error.contains("in a plane"), "{error}");
        let few = Mesh::new("m".into(), vertices[..3].to_vec(), vec![], MeshInertia::Legacy).unwrap_err();
        assert!(few.contains("3 vertices"), "{few}");
    }

    #[test]
    fn a_height_field_is_read_from_its_far_edge_and_walled_to_its_base() {
        let field = HeightField::new("h".into(), [2, 3], [3.0, 2.0, 8.0, 0.5], &[1.0, 2.0, 3.0, 4.0, 5.0, 9.0]);
        assert_eq!(field.point(0, 0), DVec3::new(-3.0, -2.0, 3.0));
        assert_eq!(field.point(1, 2), DVec3::new(3.0, 2.0, 2.0));
        let triangles = field.triangles();
        assert_eq!((triangles.vertices.len(), triangles.faces.len()), (12, 16));
        // With a floor it would be closed: its open edges are exactly those of the base, each once.
        let mut edges = HashSet::new();
        for [a, b, c] in triangles.faces {
            assert!([(a, b), (b, c), (c, a)].into_iter().all(|edge| edges.insert(edge)));
        }
        let open: Vec<_> = edges.iter().filter(|(a, b)| !edges.contains(&(*b, *a))).collect();
        assert!(open.len() == 6 && open.iter().all(|(a, b)| *a >= 6 && *b >= 6), "{open:?}");
    }
}
