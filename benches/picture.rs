//! Prints what a picture of a robot costs at the size that the desk shows, in milliseconds: the quickest of many, which other work disturbs
//! least, and the median: `cargo bench --bench picture`. It draws into a texture of a device of its own.

use flipside_core::Pose;
use flipside_envs::gym::Task;
use flipside_view::{Camera, Look, Offscreen};
use std::error::Error;
use std::time::Instant;

const SIZE: [u32; 2] = [500, 400];
const PICTURES: usize = 300;

fn main() -> Result<(), Box<dyn Error>> {
    for name in ["hopper", "ant", "humanoid"] {
        let task = Task::load(name)?;
        let model = task.model();
        let scene = model.scene();
        let mut poses = vec![Pose::IDENTITY; model.nbody()];
        model.poses(model.qpos0(), &mut poses);
        let mut camera = Camera::framing(&scene, &poses);
        let mut offscreen = Offscreen::new(&scene)?;
        let mut times = Vec::new();
        for _ in 0..PICTURES {
            camera.orbit(0.5, 0.0);
            let start = Instant::now();
            offscreen.render(SIZE, &camera, &poses, &Look::LIGHT)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!("{name}, {} × {}: {:.2} ms, median {:.2} ms", SIZE[0], SIZE[1], times[0], times[PICTURES / 2]);
    }
    Ok(())
}
