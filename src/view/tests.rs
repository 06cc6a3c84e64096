//! Pictures checked against what the camera's projection, and not the shader, says they must show.

use super::samples;
use super::*;
use crate::basics::{Pose, Scene};
use std::time::Instant;

/// Writes pictures to look at into the folder named by `FLIPSIDE_PICTURES`.
#[test]
#[ignore = "for the eye, not for a verdict"]
fn pictures_to_look_at() {
    let Some(folder) = std::env::var_os("FLIPSIDE_PICTURES").map(std::path::PathBuf::from) else { return };
    let mut scenes = vec![("zoo".to_string(), samples::zoo())];
    for task in ["hopper", "half_cheetah", "walker2d", "ant", "inverted_pendulum"] {
        scenes.push((task.to_string(), samples::robot(task)));
    }
    for (name, (scene, poses)) in scenes {
        let mut offscreen = Offscreen::new(&scene).unwrap();
        let camera = Camera::framing(&scene, &poses);
        for (theme, look) in [("light", Look::LIGHT), ("dark", Look::DARK)] {
            let picture = offscreen.render([500, 400], &camera, &poses, &look).unwrap();
            film::png(&folder.join(format!("{name}-{theme}.png")), &picture).unwrap();
        }
    }
    let (scene, _) = samples::hopper();
    let (before, after) = (samples::hop(0.3, 150), samples::hop(1.5, 150));
    film::side_by_side(&folder.join("film.gif"), &scene, [("untrained", &before), ("after 40 s", &after)]).unwrap();

    let mut noise = crate::basics::Seed(3).stream("noise");
    let mut curve = |top: f64| {
        (0..600)
            .map(|i| {
                let x = f64::from(i) * 2000.0;
                let spread: f64 = rand::RngExt::random_range(&mut noise, -1.0..1.0);
                [x, top * (1.0 - (-x / 4e5).exp()) * (1.0 + 0.25 * spread) + 40.0 * spread]
            })
            .collect::<Vec<_>>()
    };
    let (first, second) = (curve(1800.0), curve(1100.0));
    let series =
        [chart::Series { name: "preferences", points: &first }, chart::Series { name: "true reward", points: &second }];
    chart::curve_png(&folder.join("curve.png"), "hopper from 160 judgements", "env steps", "return", &series).unwrap();
    chart::curve_png(&folder.join("curve-1.png"), "hopper from 160 judgements", "env steps", "return", &series[..1])
        .unwrap();
}

/// Prints milliseconds a picture on this machine's adapter at the size that the desk shows, drawing alone: the quickest of many,
/// which other work on the machine disturbs least, and the middle one.
#[test]
#[ignore = "a measurement, not a verdict"]
fn milliseconds_a_picture() {
    let empty = (Scene { geoms: vec![samples::plane()], ..samples::hopper().0 }, samples::hopper().1);
    for (name, (scene, poses)) in [("floor", empty), ("hopper", samples::hopper()), ("zoo", samples::zoo())] {
        let (adapter, [least, middle]) = measure(&scene, &poses, 300);
        println!("{name}, 500 × 400: {least:.2} ms, median {middle:.2} ms on {adapter}");
    }
}

fn measure(scene: &Scene, poses: &[Pose], pictures: usize) -> (String, [f64; 2]) {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default())).unwrap();
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let format = wgpu::TextureFormat::Rgba8Unorm;
    let target = device.create_texture(&wgpu::TextureDescriptor {
        label: None,
        size: wgpu::Extent3d { width: 500, height: 400, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
        view_formats: &[],
    });
    let view = target.create_view(&wgpu::TextureViewDescriptor::default());
    let mut renderer = Renderer::new(&device, format, scene);
    let mut camera = Camera::framing(scene, poses);
    let mut draw = || {
        camera.orbit(0.5, 0.0);
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        renderer.render(&device, &mut encoder, &view, [500, 400], &camera, poses, &Look::LIGHT);
        queue.submit([encoder.finish()]);
        device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    };
    (0..5).for_each(|_| draw());
    let mut times = (0..pictures)
        .map(|_| {
            let start = Instant::now();
            draw();
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect::<Vec<_>>();
    times.sort_by(f64::total_cmp);
    (adapter.get_info().name, [times[0], times[times.len() / 2]])
}
