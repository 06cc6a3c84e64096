//! The only part of the desk that uses wgpu. The scene's renderer draws each 3D view into a texture, and the desk's own
//! small shader puts that texture in its place among egui's shapes.
//!
//! A picture is drawn only when something in it has changed, at its size in screen pixels. Without a device (a test, a
//! driver that failed) there are no pictures. The views then stay plain rectangles that can still be named, hovered and
//! clicked.

use eframe::egui_wgpu::{Callback, CallbackResources, CallbackTrait, RenderState, SurfaceConfig, WgpuConfiguration};
use eframe::wgpu;
use egui::{PaintCallbackInfo, Rect, Shape};
use flipside_core::{Clip, Scene};
use flipside_view::{Camera, Look, Renderer, Track, View, interpolate};
use std::sync::Arc;

const PICTURE_SHADER: &str = include_str!("../../shaders/desk/picture.wgsl");
/// Bytes are stored as sRGB. This format does not encode, so the scene's shader does.
const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8Unorm;

/// How frames are presented: in step with the screen, and none waiting behind another.
pub(super) fn configuration() -> WgpuConfiguration {
    WgpuConfiguration {
        surface: SurfaceConfig { present_mode: wgpu::PresentMode::AutoVsync, desired_maximum_frame_latency: Some(1) },
        ..WgpuConfiguration::default()
    }
}

/// The 3D views of the desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// The left clip.
    Left,
    /// The right clip.
    Right,
    /// The current policy.
    Policy,
}

/// What a view shows.
#[derive(Clone, PartialEq)]
pub(super) struct Shot {
    /// The clip whose poses it shows.
    pub clip: Arc<Clip>,
    /// Time in the clip, seconds.
    pub time: f32,
    /// The camera, except its target, which follows the robot.
    pub camera: Camera,
    /// Whether it has the dark look.
    pub dark: bool,
}

/// The device that draws. The desk shows its name and sets its pace by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapter {
    /// The driver's name for it; empty without a device.
    pub name: String,
    /// Whether the CPU does the drawing.
    pub software: bool,
}

/// The textures of all views, and what draws them.
pub(super) struct Stage {
    gpu: Option<Gpu>,
    adapter: Adapter,
    sharpness: Sharpness,
}

struct Gpu {
    state: RenderState,
    scene: Option<(Arc<Scene>, Renderer)>,
    shower: Shower,
    canvases: [Option<Canvas>; 3],
    /// Pictures of this frame, not yet submitted.
    encoder: Option<wgpu::CommandEncoder>,
}

/// A view's texture, and what is on it.
struct Canvas {
    size: [u32; 2],
    view: wgpu::TextureView,
    bind_group: wgpu::BindGroup,
    shot: Option<Shot>,
    /// The robot's track in the clip that was last on it.
    track: Option<(Arc<Clip>, Track)>,
}

/// The pipeline that puts a picture in its place.
struct Shower {
    pipeline: wgpu::RenderPipeline,
    layout: wgpu::BindGroupLayout,
    sampler: wgpu::Sampler,
}

/// One picture among egui's shapes.
struct Picture {
    pipeline: wgpu::RenderPipeline,
    bind_group: wgpu::BindGroup,
}

impl CallbackTrait for Picture {
    fn paint(&self, _: PaintCallbackInfo, pass: &mut wgpu::RenderPass<'static>, _: &CallbackResources) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.draw(0..4, 0..1);
    }
}

impl Stage {
    /// On eframe's device, if there is one.
    pub fn new(state: Option<&RenderState>) -> Stage {
        let adapter = state.map_or_else(Adapter::default, |state| {
            let info = state.adapter.get_info();
            Adapter { software: info.device_type == wgpu::DeviceType::Cpu, name: info.name }
        });
        let gpu = state.map(|state| Gpu {
            state: state.clone(),
            scene: None,
            shower: Shower::new(state),
            canvases: [None, None, None],
            encoder: None,
        });
        Stage { gpu, adapter, sharpness: Sharpness::FULL }
    }

    /// The device that draws.
    pub fn adapter(&self) -> &Adapter {
        &self.adapter
    }

    /// The shape that shows `shot` of `scene` in `rect`. `None` without a device.
    pub fn picture(
        &mut self,
        slot: Slot,
        rect: Rect,
        pixels_per_point: f32,
        scene: &Arc<Scene>,
        shot: Shot,
    ) -> Option<Shape> {
        let gpu = self.gpu.as_mut()?;
        let most = gpu.state.device.limits().max_texture_dimension_2d;
        let pixels = pixels_per_point * self.sharpness.scale();
        let size = [rect.width(), rect.height()].map(|s| ((s * pixels).round() as u32).clamp(1, most));
        gpu.set_scene(scene);
        gpu.set_canvas(slot, size);
        let canvas = gpu.canvases[slot as usize].as_mut()?;
        let picture = Picture { pipeline: gpu.shower.pipeline.clone(), bind_group: canvas.bind_group.clone() };
        if canvas.shot.as_ref() != Some(&shot) {
            canvas.shot = Some(shot);
            gpu.draw(slot);
        }
        Some(Shape::Callback(Callback::new_paint_callback(rect, picture)))
    }

    /// Notes that a frame of moving pictures took `seconds`, where `pace` is the time it may take. Where the CPU draws,
    /// the resolution of the pictures follows.
    pub fn note_frame(&mut self, seconds: f64, pace: f64) {
        if self.adapter.software {
            self.sharpness.note(seconds, pace);
        }
    }

    /// Submits this frame's pictures to the device, before the frame that shows them.
    pub fn submit(&mut self) {
        if let Some(gpu) = &mut self.gpu
            && let Some(encoder) = gpu.encoder.take()
        {
            gpu.state.queue.submit([encoder.finish()]);
        }
    }
}

impl Gpu {
    fn set_scene(&mut self, scene: &Arc<Scene>) {
        match &mut self.scene {
            Some((known, _)) if Arc::ptr_eq(known, scene) => return,
            Some((known, renderer)) => {
                renderer.set_scene(scene);
                *known = scene.clone();
            }
            None => {
                let renderer = Renderer::new(&self.state.device, FORMAT, scene);
                self.scene = Some((scene.clone(), renderer));
            }
        }
        for canvas in self.canvases.iter_mut().flatten() {
            canvas.shot = None;
            canvas.track = None;
        }
    }

    fn set_canvas(&mut self, slot: Slot, size: [u32; 2]) {
        let place = &mut self.canvases[slot as usize];
        if place.as_ref().is_some_and(|canvas| canvas.size == size) {
            return;
        }
        let texture = self.state.device.create_texture(&wgpu::TextureDescriptor {
            label: Some("3D view"),
            size: wgpu::Extent3d { width: size[0], height: size[1], depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: FORMAT,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::TEXTURE_BINDING,
            view_formats: &[],
        });
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        let bind_group = self.shower.bind_group(&self.state.device, &view);
        *place = Some(Canvas { size, view, bind_group, shot: None, track: None });
    }

    fn draw(&mut self, slot: Slot) {
        let (Some((scene, renderer)), Some(canvas)) = (&mut self.scene, &mut self.canvases[slot as usize]) else {
            return;
        };
        let Some(shot) = &canvas.shot else { return };
        let frames = &shot.clip.frames;
        let poses = interpolate(frames, shot.clip.dt, shot.time);
        canvas.track.take_if(|(clip, _)| !Arc::ptr_eq(clip, &shot.clip));
        let (_, track) = canvas.track.get_or_insert_with(|| (shot.clip.clone(), Track::of(scene, &shot.clip)));
        let camera = track.aim(shot.camera, shot.time);
        let look = if shot.dark { &Look::DARK } else { &Look::LIGHT };
        let device = &self.state.device;
        let fresh = || device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let encoder = self.encoder.get_or_insert_with(fresh);
        renderer.render(device, encoder, &canvas.view, canvas.size, View { camera: &camera, poses: &poses, look });
    }
}

impl Shower {
    fn new(state: &RenderState) -> Shower {
        let device = &state.device;
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("picture.wgsl"),
            source: wgpu::ShaderSource::Wgsl(PICTURE_SHADER.into()),
        });
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::FRAGMENT,
            ty,
            count: None,
        };
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("picture"),
            entries: &[
                entry(
                    0,
                    wgpu::BindingType::Texture {
                        sample_type: wgpu::TextureSampleType::Float { filterable: true },
                        view_dimension: wgpu::TextureViewDimension::D2,
                        multisampled: false,
                    },
                ),
                entry(1, wgpu::BindingType::Sampler(wgpu::SamplerBindingType::Filtering)),
            ],
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("picture"),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let fragment = if state.target_format.is_srgb() { "picture_fragment_srgb_target" } else { "picture_fragment" };
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("picture"),
            layout: Some(&pipeline_layout),
            vertex: wgpu::VertexState {
                module: &module,
                entry_point: Some("picture_vertex"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                buffers: &[],
            },
            primitive: wgpu::PrimitiveState {
                topology: wgpu::PrimitiveTopology::TriangleStrip,
                ..wgpu::PrimitiveState::default()
            },
            depth_stencil: None,
            multisample: wgpu::MultisampleState::default(),
            fragment: Some(wgpu::FragmentState {
                module: &module,
                entry_point: Some(fragment),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                targets: &[Some(state.target_format.into())],
            }),
            multiview_mask: None,
            cache: None,
        });
        let sampler = device.create_sampler(&wgpu::SamplerDescriptor {
            label: Some("picture"),
            mag_filter: wgpu::FilterMode::Linear,
            min_filter: wgpu::FilterMode::Linear,
            ..wgpu::SamplerDescriptor::default()
        });
        Shower { pipeline, layout, sampler }
    }

    fn bind_group(&self, device: &wgpu::Device, view: &wgpu::TextureView) -> wgpu::BindGroup {
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("picture"),
            layout: &self.layout,
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::TextureView(view) },
                wgpu::BindGroupEntry { binding: 1, resource: wgpu::BindingResource::Sampler(&self.sampler) },
            ],
        })
    }
}

/// The resolution of pictures relative to the screen. On a GPU it is 1. Where the CPU draws, it is as high as the
/// desk's pace allows, because a slow picture is worse to judge by than a soft one.
#[derive(Clone, Debug, PartialEq)]
struct Sharpness {
    rung: usize,
    /// Frames since the rung was last checked, and the seconds they took.
    frames: u32,
    seconds: f64,
    /// Checks that must pass before a sharper rung is tried again. It doubles whenever one proved too slow.
    backoff: u32,
    calm: u32,
}

impl Sharpness {
    /// Picture pixels per screen pixel, along each side.
    const SCALES: [f32; 4] = [1.0, 0.85, 0.7, 0.55];
    /// Frames between two checks.
    const CHECK_EVERY: u32 = 15;

    const FULL: Sharpness = Sharpness { rung: 0, frames: 0, seconds: 0.0, backoff: 4, calm: 0 };

    fn scale(&self) -> f32 {
        Self::SCALES[self.rung]
    }

    /// Notes that a frame took `seconds`, where `pace` is the time it may take.
    fn note(&mut self, seconds: f64, pace: f64) {
        self.frames += 1;
        self.seconds += seconds;
        if self.frames < Self::CHECK_EVERY {
            return;
        }
        let mean = self.seconds / f64::from(self.frames);
        (self.frames, self.seconds) = (0, 0.0);
        if mean > 1.12 * pace {
            if self.rung + 1 < Self::SCALES.len() {
                self.rung += 1;
                // The sharper rung was too slow, so wait longer before the next try.
                self.backoff = (self.backoff * 2).min(64);
            }
            self.calm = 0;
        } else if mean < 1.04 * pace && self.rung > 0 {
            self.calm += 1;
            if self.calm >= self.backoff {
                self.rung -= 1;
                self.calm = 0;
            }
        } else {
            self.calm = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a machine that needs `cost` seconds for a full picture and 12 ms for the rest, and paints at `pace`
    /// for a while.
    fn settle(cost: f64, pace: f64) -> (f32, usize) {
        let mut sharpness = Sharpness::FULL;
        let mut changes = 0;
        for _ in 0..6_000 {
            let area = f64::from(sharpness.scale().powi(2));
            let before = sharpness.rung;
            sharpness.note((0.012 + cost * area).max(pace), pace);
            changes += usize::from(sharpness.rung != before);
        }
        (sharpness.scale(), changes)
    }

    #[test]
    fn pictures_get_as_sharp_as_the_pace_allows_and_stay_calm() {
        let pace = 0.033;
        assert_eq!(settle(0.010, pace), (1.0, 0));
        let (scale, changes) = settle(0.050, pace);
        // 12 ms + 50 ms × 0.49 exceeds 33 ms by a tenth. With × 0.3025 it does not.
        assert!(scale <= 0.7 && changes < 30, "{scale}, {changes} changes");
        assert_eq!(settle(1.0, pace).0, 0.55);
    }
}
