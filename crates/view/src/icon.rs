//! The program's icon, drawn by its own renderer: one hop, half by day and half by night. `assets/icon.png` is what
//! this draws. Set `FLIPSIDE_BLESS=1` to write it again.

use super::samples::{geom, plane, pose};
use super::{Camera, Look, Offscreen, Picture, film};
use flipside_core::{Pose, Scene, Shape};
use glam::{Quat, Vec2, Vec3};
use std::path::Path;

/// Pixels of a side.
const SIDE: u32 = 256;
/// Drawn this many times larger and averaged down.
const FINE: u32 = 4;

/// A stout one-legged robot at the top of its hop.
fn hop() -> (Scene, Vec<Pose>) {
    let joints = [(0.06, 1.30), (-0.12, 0.86), (0.22, 0.56), (-0.04, 0.27), (0.26, 0.20)];
    let joints = joints.map(|(x, z)| Vec3::new(x, 0.0, z));
    let (orange, blue) = ([0.95, 0.45, 0.12, 1.0], [0.13, 0.36, 0.78, 1.0]);
    let (mut geoms, mut poses) = (vec![plane()], vec![Pose::IDENTITY]);
    for (ends, (radius, rgba)) in joints.windows(2).zip([(0.15, blue), (0.115, orange), (0.1, orange), (0.1, blue)]) {
        let along = ends[1] - ends[0];
        let half_length = 0.5 * along.length();
        geoms.push(geom("", poses.len(), Shape::Capsule { radius, half_length }, rgba));
        poses.push(pose(0.5 * (ends[0] + ends[1]), Quat::from_rotation_arc(Vec3::Z, along.normalize())));
    }
    (Scene { bodies: vec![String::new(); poses.len()], geoms, meshes: vec![], focus: 1, lies_flat: false }, poses)
}

/// The icon, its corners transparent.
fn draw() -> Picture {
    let (scene, poses) = hop();
    let side = SIDE * FINE;
    let camera = Camera {
        yaw: -80_f32.to_radians(),
        pitch: 12_f32.to_radians(),
        distance: 3.55,
        field_of_view: 30_f32.to_radians(),
        target: [0.06, 0.0, 0.66],
    };
    let mut offscreen = Offscreen::new(&scene).unwrap();
    let shiny = |look: Look| Look { shine: 0.6, line_width: 0.03, ..look };
    let [night, day] =
        [Look::DARK, Look::LIGHT].map(|look| offscreen.render([side, side], &camera, &poses, &shiny(look)).unwrap());
    let mut rgba = Vec::with_capacity(4 * (SIDE * SIDE) as usize);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (mut sum, mut inside) = ([0.0_f32; 3], 0.0_f32);
            for i in 0..FINE * FINE {
                let (fine_x, fine_y) = (FINE * x + i % FINE, FINE * y + i / FINE);
                // −1..1, y up.
                let at = Vec2::new(fine_x as f32 + 0.5, side as f32 - fine_y as f32 - 0.5) / side as f32 * 2.0 - 1.0;
                // A square with corners rounded by 0.44 of half its side.
                let past = (at.abs() - 0.56).max(Vec2::ZERO).length();
                if past > 0.44 {
                    continue;
                }
                // Night lies to the left of a line that leans as the robot does.
                let half = if at.x < 0.22 * at.y { &night } else { &day };
                inside += 1.0;
                for (sum, byte) in sum.iter_mut().zip(half.rgb(fine_x, fine_y)) {
                    *sum += f32::from(byte);
                }
            }
            rgba.extend(sum.map(|s| (s / inside.max(1.0)).round() as u8));
            rgba.push((255.0 * inside / (FINE * FINE) as f32).round() as u8);
        }
    }
    Picture { width: SIDE, height: SIDE, rgba }
}

#[test]
fn the_shipped_icon_is_what_this_draws() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/icon.png");
    let drawn = draw();
    if std::env::var_os("FLIPSIDE_BLESS").is_some() {
        film::png(&path, &drawn).unwrap();
    }
    let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut shipped = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut shipped).unwrap();
    assert_eq!(shipped.len(), drawn.rgba.len());
    // Drivers round differently.
    let off: u64 = shipped.iter().zip(&drawn.rgba).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!(off < shipped.len() as u64, "off by {off} in {} bytes", shipped.len());
}
