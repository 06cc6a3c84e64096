//! Checks pictures against the camera's projection, and not against the shader.

use super::bounds::in_world;
use super::samples::{geom, plane, pose};
use super::*;
use flipside_core::{Geom, Pose, Scene, Shape, TriangleMesh};
use glam::{Quat, Vec3};

const SIZE: [u32; 2] = [240, 180];

/// No light on black solids, and one flat colour around them: a silhouette.
const SILHOUETTE: Look = Look {
    zenith: [0.8; 3],
    horizon: [0.8; 3],
    tile_a: [0.8; 3],
    tile_b: [0.8; 3],
    line: [0.8; 3],
    fade: 1e6,
    sun: [0.0; 3],
    sky_light: [1.0; 3],
    rim: 0.0,
    shine: 0.0,
    ..Look::LIGHT
};

fn scene(geoms: Vec<Geom>) -> Scene {
    let bodies = geoms.iter().map(|g| g.body).max().unwrap_or(0) + 1;
    Scene {
        bodies: (0..bodies).map(|b| format!("body {b}")).collect(),
        geoms,
        meshes: vec![],
        focus: 1,
        lies_flat: false,
    }
}

fn blackened(scene: &Scene) -> Scene {
    let geoms = scene.geoms.iter().map(|g| Geom { rgba: [0.0, 0.0, 0.0, 1.0], ..g.clone() }).collect();
    Scene { geoms, ..scene.clone() }
}

/// Signed distance from a shape to a point in the shape's own frame, by the textbook formulas.
fn distance(shape: &Shape, p: Vec3) -> f32 {
    let outside = |q: Vec3| q.max(Vec3::ZERO).length() + q.max_element().min(0.0);
    match *shape {
        Shape::Plane => p.z,
        Shape::Sphere { radius } => p.length() - radius,
        Shape::Capsule { radius, half_length } => {
            (p - Vec3::Z * p.z.clamp(-half_length, half_length)).length() - radius
        }
        Shape::Cylinder { radius, half_length } => {
            outside(Vec3::new(p.truncate().length() - radius, p.z.abs() - half_length, f32::NEG_INFINITY))
        }
        Shape::Box { half_extents } => outside(p.abs() - Vec3::from(half_extents)),
        Shape::Mesh { .. } => panic!("a mesh is compared with the box that it is"),
    }
}

/// The smallest distance between a ray and any solid of the scene, metres, found by ray marching: 0 if the ray hits
/// one.
fn miss(scene: &Scene, poses: &[Pose], origin: Vec3, ray: Vec3) -> f32 {
    let solids = scene.geoms.iter().filter(|g| g.shape != Shape::Plane);
    solids
        .map(|geom| {
            let (rotation, centre) = in_world(geom, &poses[geom.body]);
            let to_local = |v: Vec3| rotation.inverse() * v;
            let (mut at, mut nearest) = (0.0, f32::INFINITY);
            for _ in 0..400 {
                let d = distance(&geom.shape, to_local(origin + ray * at - centre));
                nearest = nearest.min(d);
                if d < 1e-4 || at > 50.0 {
                    break;
                }
                at += d;
            }
            if nearest < 2e-4 { 0.0 } else { nearest }
        })
        .fold(f32::INFINITY, f32::min)
}

/// The pixels: column, row and middle.
fn pixels() -> impl Iterator<Item = (u32, u32, [f32; 2])> {
    (0..SIZE[1]).flat_map(|y| (0..SIZE[0]).map(move |x| (x, y, [x as f32 + 0.5, y as f32 + 0.5])))
}

#[test]
fn a_red_ball_is_where_the_camera_projects_it() {
    let ball = scene(vec![plane(), geom("ball", 1, Shape::Sphere { radius: 0.1 }, [1.0, 0.0, 0.0, 1.0])]);
    let mut offscreen = Offscreen::new(&ball).unwrap();
    let poses = [Pose::IDENTITY, pose(Vec3::Z * 0.5, Quat::IDENTITY)];
    let mut camera = Camera { distance: 4.0, ..Camera::framing(&ball, &poses) };
    for (at, turn) in [([0.3, -0.2, 0.5], 0.0), ([-0.4, 0.1, 0.9], 90.0), ([0.0, 0.5, 0.2], -200.0)] {
        camera.orbit(turn, 0.1 * turn);
        let picture =
            offscreen.render(SIZE, &camera, &[Pose::IDENTITY, pose(at.into(), Quat::IDENTITY)], &Look::LIGHT).unwrap();
        let red = pixels().filter(|&(x, y, _)| {
            let [r, g, b] = picture.rgb(x, y).map(i32::from);
            r > 60 && r > 3 * g && r > 3 * b
        });
        let (mut sum, mut count) = ([0.0; 2], 0.0);
        for (_, _, middle) in red {
            sum = [sum[0] + middle[0], sum[1] + middle[1]];
            count += 1.0;
        }
        let [x, y] = camera.project(at, SIZE).unwrap();
        assert!(count > 100.0, "only {count} red pixels");
        assert!((sum[0] / count - x).hypot(sum[1] / count - y) < 1.0, "{:?} for {x}, {y}", sum.map(|s| s / count));
    }
}

#[test]
fn every_shape_covers_the_pixels_whose_rays_meet_it() {
    let (zoo, poses) = samples::zoo();
    // Without a plane, the floor is so far below that it is hardly shaded.
    let geoms = zoo.geoms.iter().filter(|g| g.shape != Shape::Plane).cloned().collect();
    let black = blackened(&Scene { geoms, ..zoo.clone() });
    let mut offscreen = Offscreen::new(&black).unwrap();
    let mut camera = Camera::framing(&zoo, &poses);
    camera.zoom(1.2);
    for turn in [0.0, 150.0, 300.0] {
        camera.orbit(turn, 0.2 * turn);
        let picture = offscreen.render(SIZE, &camera, &poses, &SILHOUETTE).unwrap();
        let eye = Vec3::from(camera.eye());
        let (mut hits, mut partly, mut lost) = (0, 0, 0);
        for (x, y, middle) in pixels() {
            let missed_by = miss(&black, &poses, eye, camera.ray(middle, SIZE).into());
            let dark = picture.rgb(x, y)[0];
            hits += u32::from(missed_by == 0.0);
            partly += u32::from((20..180).contains(&dark));
            // 0.02 m is more than a pixel here. Nearer than that, the pixel may be partly covered.
            if missed_by > 0.02 {
                assert!(dark > 150, "({x}, {y}) is {dark} though its ray misses by {missed_by} m");
            }
            lost += u32::from(missed_by == 0.0 && dark > 120);
        }
        // Solids are sorted by their middles. Where their surfaces lie in the other order, the outline of one can hide
        // the other.
        assert!(lost * 500 < hits, "{lost} pixels of {hits} are light though their rays hit");
        assert!(hits > 2000 && partly > 100 && partly < hits / 4, "{hits} hits, {partly} pixels partly covered");
    }
}

#[test]
fn an_upright_capsule_is_as_wide_as_its_projection() {
    let radius = 0.05;
    let capsule = Shape::Capsule { radius, half_length: 0.5 };
    let black = scene(vec![plane(), geom("post", 1, capsule, [0.0, 0.0, 0.0, 1.0])]);
    let poses = [Pose::IDENTITY, pose(Vec3::new(0.0, 0.0, 2.0), Quat::IDENTITY)];
    let mut offscreen = Offscreen::new(&black).unwrap();
    for distance in [2.0_f32, 3.3, 5.1] {
        let camera = Camera { pitch: 0.0, distance, target: [0.0, 0.0, 2.0], ..Camera::framing(&black, &poses) };
        let picture = offscreen.render(SIZE, &camera, &poses, &SILHOUETTE).unwrap();
        // The share of each pixel in the middle row that is black.
        let around = f32::from(picture.rgb(0, SIZE[1] / 2)[0]);
        let wide: f32 = (0..SIZE[0]).map(|x| 1.0 - f32::from(picture.rgb(x, SIZE[1] / 2)[0]) / around).sum();
        // The tangent from a point to a circle: its sine is radius / distance.
        let tangent = radius / (distance * distance - radius * radius).sqrt();
        let exact = 2.0 * tangent / (2.0 * (0.5 * camera.field_of_view).tan()) * SIZE[1] as f32;
        assert!((wide - exact).abs() < 0.1, "{wide} pixels for {exact} at {distance} m");
    }
}

#[test]
fn what_is_nearer_hides_what_is_farther_whatever_the_order() {
    let ball = |name, body, rgba| geom(name, body, Shape::Sphere { radius: 0.2 }, rgba);
    let (red, green) = (ball("near", 1, [1.0, 0.0, 0.0, 1.0]), ball("far", 2, [0.0, 1.0, 0.0, 1.0]));
    // Seen along +y, the red one in front; the third body is below the floor.
    let below = ball("below", 3, [0.0, 0.0, 1.0, 1.0]);
    let poses =
        [[0.0; 3], [0.0, -0.3, 0.5], [0.1, 0.3, 0.5], [-0.4, 0.3, -0.3]].map(|p| pose(Vec3::from(p), Quat::IDENTITY));
    let camera = Camera {
        yaw: -std::f32::consts::FRAC_PI_2,
        pitch: 0.3,
        distance: 3.0,
        target: [0.0, 0.0, 0.4],
        ..Camera::framing(&scene(vec![red.clone()]), &poses)
    };
    let draw = |geoms: Vec<Geom>| {
        let all = scene(geoms);
        Offscreen::new(&all).unwrap().render(SIZE, &camera, &poses, &Look::LIGHT).unwrap()
    };
    let picture = draw(vec![plane(), red.clone(), green.clone(), below.clone()]);
    assert_eq!(picture, draw(vec![below, green, red, plane()]));
    let colour = |point: [f32; 3]| {
        let [x, y] = camera.project(point, SIZE).unwrap();
        picture.rgb(x as u32, y as u32)
    };
    let [r, g, b] = colour([0.0, -0.3, 0.5]);
    assert!(r > 2 * g && r > 2 * b, "a ball must hide the floor and what is behind it: {r} {g} {b}");
    let [r, g, b] = colour([0.2, 0.3, 0.5]);
    assert!(g > 2 * r && g > 2 * b, "what stands out behind must show: {r} {g} {b}");
    let [r, g, b] = colour([-0.4, 0.3, -0.3]);
    assert!(r.abs_diff(b) < 40 && g.abs_diff(b) < 40, "the floor must hide what is below it: {r} {g} {b}");
}

#[test]
fn shadows_fall_where_the_sun_is_hidden() {
    let (zoo, poses) = samples::zoo();
    // Cylinders cast the shadow of a capsule or a box, so they are left out here.
    let geoms = zoo.geoms.iter().filter(|g| !matches!(g.shape, Shape::Cylinder { .. })).cloned().collect();
    let zoo = Scene { geoms, ..zoo };
    let look = Look { sun: [1.0; 3], sky_light: [0.0; 3], sun_spread: 0.002, ..SILHOUETTE };
    let sun = Vec3::from(look.sun_direction).normalize();
    let mut camera = Camera::framing(&zoo, &poses);
    camera.orbit(0.0, 60.0);
    let picture = Offscreen::new(&zoo).unwrap().render(SIZE, &camera, &poses, &look).unwrap();
    let eye = Vec3::from(camera.eye());
    let (mut shadowed, mut lit, mut wrong) = (0, 0, 0);
    for (x, y, middle) in pixels() {
        let ray = Vec3::from(camera.ray(middle, SIZE));
        if ray.z > -0.05 || miss(&zoo, &poses, eye, ray) < 0.02 {
            continue;
        }
        let floor = eye - ray * (eye.z / ray.z);
        // From 0.01 m above the floor, the shader's offset from the surface no longer matters. Edges within a pixel are
        // not checked.
        let missed_by = miss(&zoo, &poses, floor + 0.01 * Vec3::Z, sun);
        let dark = picture.rgb(x, y)[0] < 60;
        if missed_by == 0.0 {
            shadowed += 1;
            wrong += u32::from(!dark);
        } else if missed_by > 0.03 {
            lit += 1;
            assert!(!dark, "({x}, {y}) is dark though the sun is free by {missed_by} m");
        }
    }
    assert!(shadowed > 800 && lit > 5000, "{shadowed} shadowed, {lit} lit");
    assert!(wrong * 10 < shadowed, "{wrong} of {shadowed} shadowed pixels are lit");
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (zoo, poses) = samples::zoo();
    let camera = Camera::framing(&zoo, &poses);
    let draw = || Offscreen::new(&zoo).unwrap().render(SIZE, &camera, &poses, &Look::DARK).unwrap();
    assert_eq!(draw(), draw());
}

#[test]
fn colours_come_out_as_they_were_written() {
    let empty = scene(vec![plane()]);
    let mut offscreen = Offscreen::new(&empty).unwrap();
    let camera = Camera::framing(&empty, &[Pose::IDENTITY]);
    for level in (0..=255_u8).step_by(15) {
        let colour = [f32::from(level) / 255.0, 0.5, 1.0 - f32::from(level) / 255.0];
        let look = Look { zenith: colour, horizon: colour, ..SILHOUETTE };
        let picture = offscreen.render([16, 16], &camera, &[Pose::IDENTITY], &look).unwrap();
        let off =
            picture.rgb(8, 0).iter().zip(colour).map(|(&a, b)| (f32::from(a) - 255.0 * b).abs()).fold(0.0, f32::max);
        assert!(off <= 1.0, "{:?} for {colour:?}", picture.rgb(8, 0));
    }
}

#[test]
fn impossible_sizes_are_refused() {
    let (hopper, poses) = samples::hopper();
    let camera = Camera::framing(&hopper, &poses);
    let error = Offscreen::new(&hopper).unwrap().render([0, 10], &camera, &poses, &Look::LIGHT).unwrap_err();
    assert!(error.to_string().contains("0 × 10"), "{error}");
}

/// The surface of a box, its faces cut into triangles.
fn box_mesh([x, y, z]: [f32; 3]) -> TriangleMesh {
    let sign = |bit: u32, size: f32| if bit == 0 { -size } else { size };
    let quads = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]];
    TriangleMesh {
        vertices: (0..8).map(|k| [sign(k & 1, x), sign(k & 2, y), sign(k & 4, z)]).collect(),
        faces: quads.iter().flat_map(|[a, b, c, d]| [[*a, *b, *c], [*a, *c, *d]]).collect(),
    }
}

#[test]
fn a_box_made_of_triangles_looks_like_a_box() {
    let half_extents = [0.3, 0.2, 0.15];
    let colour = [0.85, 0.3, 0.3, 1.0];
    let ball = geom("ball", 2, Shape::Sphere { radius: 0.12 }, colour);
    let of_box = scene(vec![plane(), geom("box", 1, Shape::Box { half_extents }, colour), ball.clone()]);
    // Another mesh comes first, so that a wrong range of corners would show.
    let mesh = Shape::Mesh { mesh: 1, half_extents, shadow: Some(half_extents) };
    let of_mesh = Scene {
        meshes: vec![box_mesh([1.0; 3]), box_mesh(half_extents)],
        ..scene(vec![plane(), geom("box", 1, mesh, colour), ball])
    };
    let poses = [
        Pose::IDENTITY,
        pose(Vec3::new(0.1, 0.0, 0.4), Quat::from_euler(glam::EulerRot::XYZ, 0.5, 0.8, 0.3)),
        pose(Vec3::new(0.3, 0.1, 0.9), Quat::IDENTITY),
    ];
    let mut camera = Camera::framing(&of_box, &poses);
    camera.zoom(1.3);
    let mut offscreen = Offscreen::new(&of_box).unwrap();
    for turn in [0.0, 130.0, 250.0] {
        camera.orbit(turn, 10.0);
        offscreen.set_scene(&of_box);
        let expected = offscreen.render(SIZE, &camera, &poses, &Look::LIGHT).unwrap();
        offscreen.set_scene(&of_mesh);
        let picture = offscreen.render(SIZE, &camera, &poses, &Look::LIGHT).unwrap();
        let empty = Scene { geoms: vec![plane()], ..of_box.clone() };
        offscreen.set_scene(&empty);
        let floor = offscreen.render(SIZE, &camera, &poses, &Look::LIGHT).unwrap();
        let differ = |a: &Picture, b: &Picture, by: i32| {
            pixels()
                .filter(|&(x, y, _)| (0..3).any(|c| (i32::from(a.rgb(x, y)[c]) - i32::from(b.rgb(x, y)[c])).abs() > by))
                .count()
        };
        let (covered, off) = (differ(&floor, &expected, 20), differ(&picture, &expected, 4));
        // The outline is not blended.
        assert!(covered > 2000 && off * 12 < covered, "{off} pixels of {covered} differ");
    }
}
