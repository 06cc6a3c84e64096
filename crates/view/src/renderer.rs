//! Draws a scene in given poses, with a camera and a look, into a texture.

use super::bounds::{extent, in_world};
use super::camera::{Camera, NEAR};
use super::layout::{BOXES, BoxCaster, CAPSULES, CapsuleCaster, Casters, Globals, Solid};
use super::look::{Look, linear};
use bytemuck::Zeroable;
use flipside_core::{Geom, Pose, Scene, Shape};
use glam::{Quat, Vec2, Vec3};
use std::ops::Range;
use wgpu::util::DeviceExt;

/// The complete shader.
pub(super) const SHADER: &str = include_str!("../../../shaders/scene/scene.wgsl");

const DEPTH_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Depth32Float;
/// How far the floor reaches from the eye, metres. There it has long faded into the horizon.
const FLOOR_REACH: f32 = 400.0;
/// Each solid of a scene is drawn nearer than the one before it by this share of its distance (0.1 mm at 4 m), so that
/// coincident surfaces do not speckle.
const DEPTH_STEP: f32 = 2.5e-5;
/// Depth textures cached between pictures, one for each size on show.
const KEPT_SIZES: usize = 4;

/// What one picture shows of a scene.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// From where.
    pub camera: &'a Camera,
    /// The pose of each body, `[bodies]`. A geom whose body has no pose is left out.
    pub poses: &'a [Pose],
    /// Colours and light.
    pub look: &'a Look,
}

/// Draws one scene in any poses. Solids are opaque, whatever their alpha. The renderer keeps no state of a picture, so
/// it can record many pictures into one encoder.
pub struct Renderer {
    format: wgpu::TextureFormat,
    pipelines: Pipelines,
    layout: wgpu::BindGroupLayout,
    /// All geoms except planes.
    solids: Vec<Geom>,
    /// The corners of the triangles of all meshes, one mesh after another.
    corners: Vec<[f32; 3]>,
    /// Each mesh's range in `corners`.
    meshes: Vec<Range<u32>>,
    /// `corners` on the device, from the first picture that needs them.
    corner_buffer: Option<wgpu::Buffer>,
    floor_z: f32,
    /// Depth textures by size, most recently used last.
    depths: Vec<([u32; 2], wgpu::TextureView)>,
}

struct Pipelines {
    floor: wgpu::RenderPipeline,
    patch: wgpu::RenderPipeline,
    sky: wgpu::RenderPipeline,
    /// Indexed by [`Kind`].
    solids: [wgpu::RenderPipeline; 3],
    mesh: wgpu::RenderPipeline,
}

/// The shader's ways to draw a solid.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Capsule,
    Cylinder,
    Box,
    /// The triangles of the mesh with this index.
    Mesh(usize),
}

/// The vertex data of a pipeline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drawn {
    /// None: the shader knows its corners.
    Alone,
    /// Solids, each drawn through a box around it.
    InABox,
    /// Solids, by their triangles.
    AsTriangles,
}

impl Renderer {
    /// A renderer of `scene` for targets of `format`. The stored bytes are always sRGB: for an sRGB format the hardware
    /// encodes, for any other the shader does.
    pub fn new(device: &wgpu::Device, format: wgpu::TextureFormat, scene: &Scene) -> Renderer {
        let layout = bind_group_layout(device);
        let mut renderer = Renderer {
            format,
            pipelines: Pipelines::new(device, &layout, format),
            layout,
            solids: Vec::new(),
            corners: Vec::new(),
            meshes: Vec::new(),
            corner_buffer: None,
            floor_z: 0.0,
            depths: Vec::new(),
        };
        renderer.set_scene(scene);
        renderer
    }

    /// Switches to another scene.
    pub fn set_scene(&mut self, scene: &Scene) {
        self.floor_z = floor_height(scene);
        self.solids = scene.geoms.iter().filter(|geom| geom.shape != Shape::Plane).cloned().collect();
        self.corner_buffer = None;
        self.corners.clear();
        self.meshes.clear();
        for mesh in &scene.meshes {
            let first = self.corners.len() as u32;
            let corners = mesh.faces.iter().flatten().filter_map(|at| mesh.vertices.get(*at as usize));
            self.corners.extend(corners);
            self.meshes.push(first..self.corners.len() as u32);
        }
    }

    /// Records one picture of the present scene into `encoder`. The picture covers all of `target`, which must have
    /// the renderer's format and a size of `size` pixels.
    pub fn render(
        &mut self,
        device: &wgpu::Device,
        encoder: &mut wgpu::CommandEncoder,
        target: &wgpu::TextureView,
        size: [u32; 2],
        View { camera, poses, look }: View<'_>,
    ) {
        let staged = self.stage(camera, poses, look);
        let globals = self.globals(size, camera, look, &staged);
        // Every picture gets new small buffers, because an earlier picture of the same submission may still read its
        // own.
        let buffer = |label, contents: &[u8], usage| {
            device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: Some(label), contents, usage })
        };
        let globals = buffer("globals", bytemuck::bytes_of(&globals), wgpu::BufferUsages::UNIFORM);
        let casters = buffer("casters", bytemuck::bytes_of(&*staged.casters), wgpu::BufferUsages::UNIFORM);
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("scene"),
            layout: &self.layout,
            entries: &[
                wgpu::BindGroupEntry { binding: 0, resource: globals.as_entire_binding() },
                wgpu::BindGroupEntry { binding: 1, resource: casters.as_entire_binding() },
            ],
        });
        let solids = (!staged.solids.is_empty())
            .then(|| buffer("solids", bytemuck::cast_slice(&staged.solids), wgpu::BufferUsages::VERTEX));

        if self.corner_buffer.is_none() && !self.corners.is_empty() {
            let corners = bytemuck::cast_slice(&self.corners);
            self.corner_buffer = Some(buffer("corners", corners, wgpu::BufferUsages::VERTEX));
        }
        let corners = self.corner_buffer.clone();

        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("scene"),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: target,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations { load: wgpu::LoadOp::Clear(wgpu::Color::BLACK), store: wgpu::StoreOp::Store },
            })],
            depth_stencil_attachment: Some(wgpu::RenderPassDepthStencilAttachment {
                view: self.depth(device, size),
                depth_ops: Some(wgpu::Operations { load: wgpu::LoadOp::Clear(0.0), store: wgpu::StoreOp::Discard }),
                stencil_ops: None,
            }),
            timestamp_writes: None,
            occlusion_query_set: None,
            multiview_mask: None,
        });
        pass.set_bind_group(0, &bind_group, &[]);
        pass.set_pipeline(&self.pipelines.patch);
        pass.draw(0..6, 0..1);
        pass.set_pipeline(&self.pipelines.floor);
        pass.draw(0..48, 0..1);
        pass.set_pipeline(&self.pipelines.sky);
        pass.draw(0..3, 0..1);
        if let Some(solids) = &solids {
            pass.set_vertex_buffer(0, solids.slice(..));
            for (kind, range) in staged.runs {
                let boxes = match kind {
                    Kind::Capsule => 0,
                    Kind::Cylinder => 1,
                    Kind::Box => 2,
                    Kind::Mesh(mesh) => {
                        if let (Some(corners), Some(stretch)) = (&corners, self.meshes.get(mesh)) {
                            pass.set_pipeline(&self.pipelines.mesh);
                            pass.set_vertex_buffer(1, corners.slice(..));
                            pass.draw(stretch.clone(), range);
                        }
                        continue;
                    }
                };
                pass.set_pipeline(&self.pipelines.solids[boxes]);
                pass.draw(0..14, range);
            }
        }
    }

    /// Solids, farthest first, and shadow casters, in world coordinates.
    fn stage(&self, camera: &Camera, poses: &[Pose], look: &Look) -> Staged {
        let eye = Vec3::from(camera.eye());
        let mut placed = self
            .solids
            .iter()
            .enumerate()
            .filter_map(|(rank, geom)| Some((rank, geom, in_world(geom, poses.get(geom.body)?))))
            .collect::<Vec<_>>();
        // An outline is blended over what is already drawn, so what lies behind it must be drawn first.
        placed.sort_by(|(_, _, (_, a)), (_, _, (_, b))| b.distance_squared(eye).total_cmp(&a.distance_squared(eye)));

        let mut casters = Box::new(Casters::zeroed());
        let (mut capsules, mut boxes) = (0, 0);
        let mut patch: Option<[Vec2; 2]> = None;
        let mut owners = Vec::with_capacity(placed.len());
        for &(_, geom, (rotation, centre)) in &placed {
            owners.push(match caster(&geom.shape, rotation, centre) {
                Caster::Capsule(capsule) if capsules < CAPSULES => {
                    casters.capsules[capsules] = capsule;
                    capsules += 1;
                    Owner::Capsule(capsules - 1)
                }
                Caster::Box(cuboid) if boxes < BOXES => {
                    casters.boxes[boxes] = cuboid;
                    boxes += 1;
                    Owner::Box(boxes - 1)
                }
                _ => Owner::None,
            });
            let ground = matches!(geom.shape, Shape::Mesh { shadow: None, .. });
            if let Some(extent) = extent(&geom.shape, rotation).filter(|_| !ground) {
                let [low, high] = shaded_floor(centre, extent, self.floor_z, sun_direction(look), look.sun_spread);
                patch = Some(patch.map_or([low, high], |[l, h]| [l.min(low), h.max(high)]));
            }
        }

        let mut solids = Vec::with_capacity(placed.len());
        let mut runs: Vec<(Kind, Range<u32>)> = Vec::new();
        for ((rank, geom, (rotation, centre)), owner) in placed.into_iter().zip(owners) {
            let (kind, radius, half_extents) = match geom.shape {
                Shape::Plane => continue,
                Shape::Sphere { radius } => (Kind::Capsule, radius, Vec3::splat(radius)),
                Shape::Capsule { radius, half_length } => {
                    (Kind::Capsule, radius, Vec3::new(radius, radius, half_length + radius))
                }
                Shape::Cylinder { radius, half_length } => {
                    (Kind::Cylinder, radius, Vec3::new(radius, radius, half_length))
                }
                Shape::Box { half_extents } => (Kind::Box, 0.0, Vec3::from(half_extents)),
                Shape::Mesh { mesh, half_extents, .. } => (Kind::Mesh(mesh), 0.0, Vec3::from(half_extents)),
            };
            let index = solids.len() as u32;
            match runs.last_mut() {
                Some((last, range)) if *last == kind => range.end = index + 1,
                _ => runs.push((kind, index..index + 1)),
            }
            let [red, green, blue, _] = geom.rgba;
            // The shader numbers the casters: capsules first, then boxes.
            let own = match owner {
                Owner::Capsule(at) => at,
                Owner::Box(at) => capsules + at,
                Owner::None => CAPSULES + BOXES,
            };
            solids.push(Solid {
                position_radius: centre.extend(radius).to_array(),
                rotation: rotation.to_array(),
                half_extents: half_extents.to_array(),
                own: own as u32,
                colour: [linear(red), linear(green), linear(blue)],
                depth_scale: 1.0 + DEPTH_STEP * rank as f32,
            });
        }
        Staged { solids, runs, casters, capsules: capsules as u32, boxes: boxes as u32, patch }
    }

    fn globals(&self, size: [u32; 2], camera: &Camera, look: &Look, staged: &Staged) -> Globals {
        let [right, up, forward] = camera.ray_basis(size);
        let eye = Vec3::from(camera.eye());
        let colour = |srgb: [f32; 3]| srgb.map(linear);
        let (low, high) = (eye.truncate() - FLOOR_REACH, eye.truncate() + FLOOR_REACH);
        let [patch_low, patch_high] = staged.patch.unwrap_or([eye.truncate(); 2]).map(|p| p.clamp(low, high));
        Globals {
            world_to_clip: camera.world_to_clip(size).to_cols_array_2d(),
            forward: forward.to_array(),
            capsules: staged.capsules,
            right: right.to_array(),
            boxes: staged.boxes,
            up: up.to_array(),
            floor_z: self.floor_z,
            eye: eye.to_array(),
            fade: look.fade,
            sun_direction: sun_direction(look).to_array(),
            sun_spread: look.sun_spread,
            sun: look.sun,
            target_is_srgb: f32::from(u8::from(self.format.is_srgb())),
            sky_light: look.sky_light,
            rim: look.rim,
            floor_light: look.floor_light,
            shine: look.shine,
            zenith: colour(look.zenith),
            near: NEAR,
            horizon: colour(look.horizon),
            pixel: 2.0 * up.length() / size[1].max(1) as f32,
            tile_a: colour(look.tile_a),
            pad_0: 0.0,
            tile_b: colour(look.tile_b),
            pad_1: 0.0,
            line: colour(look.line),
            line_width: look.line_width,
            cuts_x: [low.x, patch_low.x, patch_high.x, high.x],
            cuts_y: [low.y, patch_low.y, patch_high.y, high.y],
        }
    }

    fn depth(&mut self, device: &wgpu::Device, size: [u32; 2]) -> &wgpu::TextureView {
        let kept = match self.depths.iter().position(|(of, _)| *of == size) {
            Some(at) => self.depths.remove(at),
            None => {
                if self.depths.len() == KEPT_SIZES {
                    self.depths.remove(0);
                }
                (size, depth_texture(device, size))
            }
        };
        self.depths.push(kept);
        &self.depths[self.depths.len() - 1].1
    }
}

/// A scene in given poses, in the form that the shader takes.
struct Staged {
    /// Farthest first.
    solids: Vec<Solid>,
    /// Ranges of `solids` of one kind, in order.
    runs: Vec<(Kind, Range<u32>)>,
    casters: Box<Casters>,
    capsules: u32,
    boxes: u32,
    /// The rectangle of floor that shadows can fall on: low and high corner.
    patch: Option<[Vec2; 2]>,
}

/// The caster that stands for a solid.
enum Owner {
    Capsule(usize),
    Box(usize),
    None,
}

enum Caster {
    Capsule(CapsuleCaster),
    Box(BoxCaster),
    None,
}

/// The shape that stands for a solid when shadows are computed. A long cylinder becomes the capsule inside it, a flat
/// one the box with the same base area, and a mesh the box that its geom names.
fn caster(shape: &Shape, rotation: Quat, centre: Vec3) -> Caster {
    let capsule = |radius: f32, half_length: f32| {
        let half_axis = rotation * Vec3::Z * half_length;
        let length2 = 4.0 * half_length * half_length;
        Caster::Capsule(CapsuleCaster {
            a: (centre - half_axis).to_array(),
            radius,
            axis: (2.0 * half_axis).to_array(),
            per_axis2: if length2 > 1e-8 { 1.0 / length2 } else { 0.0 },
        })
    };
    let cuboid = |[half_x, half_y, half_z]: [f32; 3]| {
        Caster::Box(BoxCaster {
            axis_x: (rotation * Vec3::X).to_array(),
            half_x,
            axis_y: (rotation * Vec3::Y).to_array(),
            half_y,
            axis_z: (rotation * Vec3::Z).to_array(),
            half_z,
            centre: centre.to_array(),
            pad_0: 0.0,
        })
    };
    match *shape {
        Shape::Plane => Caster::None,
        Shape::Sphere { radius } => capsule(radius, 0.0),
        Shape::Capsule { radius, half_length } => capsule(radius, half_length),
        Shape::Cylinder { radius, half_length } if half_length > radius => capsule(radius, half_length - 0.5 * radius),
        Shape::Cylinder { radius, half_length } => {
            let half = radius * 0.5 * std::f32::consts::PI.sqrt();
            cuboid([half, half, half_length])
        }
        Shape::Box { half_extents } => cuboid(half_extents),
        Shape::Mesh { shadow, .. } => shadow.map_or(Caster::None, cuboid),
    }
}

/// The rectangle of floor that a solid darkens, by its shadow or by hiding the sky. The shadow lies between those of
/// its lowest and highest points. The shader drops the hidden share of the sky below 4 %, which is farther than 3.1
/// radii.
fn shaded_floor(centre: Vec3, extent: Vec3, floor_z: f32, sun: Vec3, sun_spread: f32) -> [Vec2; 2] {
    let near_sky = Vec2::splat(3.1 * extent.min_element());
    let (mut low, mut high) = ((centre - extent).truncate() - near_sky, (centre + extent).truncate() + near_sky);
    for z in [centre.z - extent.z, centre.z + extent.z] {
        let travel = (z - floor_z).max(0.0) / sun.z;
        let shift = -sun.truncate() * travel;
        let soft = extent.truncate() + sun_spread * travel / sun.z + 0.02;
        low = low.min(centre.truncate() + shift - soft);
        high = high.max(centre.truncate() + shift + soft);
    }
    [low, high]
}

/// The direction to the sun. It is kept above the horizon, so that shadows have an end.
fn sun_direction(look: &Look) -> Vec3 {
    let direction = Vec3::from(look.sun_direction).normalize_or(Vec3::Z);
    Vec3::new(direction.x, direction.y, direction.z.max(0.2)).normalize()
}

/// The height of the scene's first plane. A scene without one (a cart on a rail) gets a floor out of reach: below its
/// fixed geoms by the longest reach of a moving one.
fn floor_height(scene: &Scene) -> f32 {
    if let Some(plane) = scene.geoms.iter().find(|g| g.shape == Shape::Plane) {
        return plane.pose.position[2];
    }
    let lowest_fixed = scene.geoms.iter().filter(|g| g.body == 0).filter_map(|g| {
        let (rotation, centre) = in_world(g, &Pose::IDENTITY);
        Some(centre.z - extent(&g.shape, rotation)?.z)
    });
    let reach = scene.geoms.iter().filter(|g| g.body > 0).filter_map(|g| {
        Some(Vec3::from(g.pose.position).length() + extent(&g.shape, super::bounds::placed(&g.pose).0)?.length())
    });
    lowest_fixed.fold(0.0, f32::min) - reach.fold(0.0, f32::max) - 0.1
}

fn depth_texture(device: &wgpu::Device, [width, height]: [u32; 2]) -> wgpu::TextureView {
    let texture = device.create_texture(&wgpu::TextureDescriptor {
        label: Some("scene depth"),
        size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: DEPTH_FORMAT,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
        view_formats: &[],
    });
    texture.create_view(&wgpu::TextureViewDescriptor::default())
}

impl Pipelines {
    fn new(device: &wgpu::Device, layout: &wgpu::BindGroupLayout, format: wgpu::TextureFormat) -> Pipelines {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("scene.wgsl"),
            source: wgpu::ShaderSource::Wgsl(SHADER.into()),
        });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("scene"),
            bind_group_layouts: &[Some(layout)],
            immediate_size: 0,
        });
        let pipeline = |vertex: &str, fragment: &str, drawn: Drawn| {
            let buffers = [
                Some(wgpu::VertexBufferLayout {
                    array_stride: size_of::<Solid>() as u64,
                    step_mode: wgpu::VertexStepMode::Instance,
                    attributes: &Solid::ATTRIBUTES,
                }),
                Some(wgpu::VertexBufferLayout {
                    array_stride: size_of::<[f32; 3]>() as u64,
                    step_mode: wgpu::VertexStepMode::Vertex,
                    attributes: &Solid::CORNER,
                }),
            ];
            let buffers = match drawn {
                Drawn::Alone => &buffers[..0],
                Drawn::InABox => &buffers[..1],
                Drawn::AsTriangles => &buffers[..],
            };
            device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
                label: Some(fragment),
                layout: Some(&layout),
                vertex: wgpu::VertexState {
                    module: &module,
                    entry_point: Some(vertex),
                    compilation_options: wgpu::PipelineCompilationOptions::default(),
                    buffers,
                },
                primitive: if drawn == Drawn::InABox {
                    // The far sides of the box cover each pixel once, also when the eye is inside the box.
                    wgpu::PrimitiveState {
                        topology: wgpu::PrimitiveTopology::TriangleStrip,
                        cull_mode: Some(wgpu::Face::Front),
                        ..wgpu::PrimitiveState::default()
                    }
                } else {
                    wgpu::PrimitiveState::default()
                },
                depth_stencil: Some(wgpu::DepthStencilState {
                    format: DEPTH_FORMAT,
                    depth_write_enabled: Some(true),
                    depth_compare: Some(wgpu::CompareFunction::GreaterEqual),
                    stencil: wgpu::StencilState::default(),
                    bias: wgpu::DepthBiasState::default(),
                }),
                multisample: wgpu::MultisampleState::default(),
                fragment: Some(wgpu::FragmentState {
                    module: &module,
                    entry_point: Some(fragment),
                    compilation_options: wgpu::PipelineCompilationOptions::default(),
                    targets: &[Some(wgpu::ColorTargetState {
                        format,
                        blend: (drawn != Drawn::Alone).then_some(wgpu::BlendState {
                            color: wgpu::BlendState::ALPHA_BLENDING.color,
                            // The picture stays opaque.
                            alpha: wgpu::BlendComponent {
                                src_factor: wgpu::BlendFactor::Zero,
                                dst_factor: wgpu::BlendFactor::One,
                                operation: wgpu::BlendOperation::Add,
                            },
                        }),
                        write_mask: wgpu::ColorWrites::ALL,
                    })],
                }),
                multiview_mask: None,
                cache: None,
            })
        };
        Pipelines {
            floor: pipeline("floor_vertex", "floor_fragment", Drawn::Alone),
            patch: pipeline("patch_vertex", "patch_fragment", Drawn::Alone),
            sky: pipeline("sky_vertex", "sky_fragment", Drawn::Alone),
            mesh: pipeline("mesh_vertex", "mesh_fragment", Drawn::AsTriangles),
            solids: ["capsule_fragment", "cylinder_fragment", "box_fragment"]
                .map(|fragment| pipeline("solid_vertex", fragment, Drawn::InABox)),
        }
    }
}

fn bind_group_layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let uniform = |binding, size: usize| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::VERTEX_FRAGMENT,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Uniform,
            has_dynamic_offset: false,
            min_binding_size: std::num::NonZeroU64::new(size as u64),
        },
        count: None,
    };
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("scene"),
        entries: &[uniform(0, size_of::<Globals>()), uniform(1, size_of::<Casters>())],
    })
}
