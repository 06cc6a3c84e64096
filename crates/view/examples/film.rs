//! Draws a hopper where it begins, and films half a second of it as it falls:
//! `cargo run --release -p flipside-view --example film -- FOLDER`

use flipside_core::{Clip, Frames, ItemId, Pose};
use flipside_view::{Camera, Look, Offscreen, OffscreenError, film};
use std::path::PathBuf;

const STEPS: usize = 60;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let mut env = flipside_envs::make("Hopper-v5")?;
    env.reset(Some(0));
    let model = env.task().model().clone();
    let scene = model.scene();

    let mut offscreen = match Offscreen::new(&scene) {
        Err(error @ OffscreenError::NoAdapter(_)) => {
            println!("nothing to draw on: {error}");
            return Ok(());
        }
        opened => opened?,
    };
    println!("drawn by {}", offscreen.adapter());
    let mut poses = vec![Pose::IDENTITY; model.nbody()];
    env.poses(&mut poses);
    let camera = Camera::framing(&scene, &poses);
    let picture = offscreen.render([480, 360], &camera, &poses, &Look::LIGHT)?;
    let still = folder.join("hopper.png");
    film::png(&still, &picture)?;
    println!("{}", still.display());

    // A clip is poses, not pixels: camera, speed and colours are chosen when it is drawn.
    let mut frames = Frames { bodies: poses.len(), ..Frames::default() };
    for _ in 0..STEPS {
        env.poses(&mut poses);
        frames.poses.extend(&poses);
        frames.steps += 1;
        let step = env.step(&[0.3, -0.2, 0.1])?;
        if step.terminated || step.truncated {
            break;
        }
    }
    let clip = Clip { id: ItemId(0), task: "hopper".to_owned(), dt: env.task().dt() as f32, recorded_at: 0, frames };
    let moving = folder.join("hopper.gif");
    film::film(&moving, &scene, &clip)?;
    println!("{}", moving.display());
    Ok(())
}
