//! From a scene, poses, a camera and a look to pixels in a texture.

use super::bounds::{extent, in_world};
use super::camera::Camera;
use super::layout::{BOXES, BoxCaster, CAPSULES, CapsuleCaster, Casters, Globals, SolidInstance, SolidVertex};
use super::look::{Look, linear};
use super::mesh;
use crate::basics::{Geom, Pose, Scene, Shape};
use bytemuck::Zeroable;
use glam::{Quat, Vec2, Vec3};
use std::ops::Range;
use wgpu::util::DeviceExt;

/// The shader, whole.
pub(super) const SHADER: &str = include_str!("../../shaders/scene/scene.wgsl");

const DEPTH_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Depth32Float;
/// How far the floor reaches from the eye, metres; the look's fade has long turned it into horizon there.
const FLOOR_REACH: f32 = 400.0;
/// Textures kept between pictures: one set for each size that is on show.
const KEPT_SIZES: usize = 4;

/// Draws one scene in any poses. It keeps nothing of a picture, so one renderer may draw many pictures into one encoder.
pub struct Renderer {
    format: wgpu::TextureFormat,
    samples: u32,
    pipelines: Pipelines,
    layout: wgpu::BindGroupLayout,
    meshes: [GpuMesh; 3],
    solids: Vec<Solid>,
    floor_z: f32,
    /// Most recently used last.
    attachments: Vec<Attachments>,
}

struct Pipelines {
    solid: wgpu::RenderPipeline,
    floor: wgpu::RenderPipeline,
    patch: wgpu::RenderPipeline,
    sky: wgpu::RenderPipeline,
}

struct GpuMesh {
    vertices: wgpu::Buffer,
    indices: wgpu::Buffer,
    count: u32,
}

/// A geom that is drawn with a mesh, in the order of the meshes.
struct Solid {
    geom: Geom,
    mesh: MeshKind,
}

/// Index into `Renderer::meshes`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MeshKind {
    Capsule,
    Cylinder,
    Box,
}

/// What a picture of one size is drawn on besides its target.
struct Attachments {
    size: [u32; 2],
    depth: wgpu::TextureView,
    /// Where samples are taken before they are averaged into the target, if there are several.
    samples: Option<wgpu::TextureView>,
}

impl Renderer {
    /// Samples a pixel that [`Renderer::new`] takes.
    pub const SAMPLES: u32 = 4;

    /// A renderer of `scene` for targets of `format`. For an sRGB format the hardware encodes; for any other the shader does, so
    /// that the stored bytes are sRGB either way.
    pub fn new(device: &wgpu::Device, format: wgpu::TextureFormat, scene: &Scene) -> Renderer {
        Renderer::with_samples(device, format, Renderer::SAMPLES, scene)
    }

    /// The same with 1 or 4 samples a pixel.
    pub fn with_samples(device: &wgpu::Device, format: wgpu::TextureFormat, samples: u32, scene: &Scene) -> Renderer {
        let layout = bind_group_layout(device);
        let mut renderer = Renderer {
            format,
            samples,
            pipelines: Pipelines::new(device, &layout, format, samples),
            layout,
            meshes: [mesh::capsule(), mesh::cylinder(), mesh::cuboid()].map(|mesh| GpuMesh::new(device, &mesh)),
            solids: Vec::new(),
            floor_z: 0.0,
            attachments: Vec::new(),
        };
        renderer.set_scene(scene);
        renderer
    }

    /// Draws another scene from now on.
    pub fn set_scene(&mut self, scene: &Scene) {
        self.floor_z = floor_height(scene);
        self.solids = scene
            .geoms
            .iter()
            .filter_map(|geom| {
                let mesh = match geom.shape {
                    Shape::Plane => return None,
                    Shape::Sphere { .. } | Shape::Capsule { .. } => MeshKind::Capsule,
                    Shape::Cylinder { .. } => MeshKind::Cylinder,
                    Shape::Box { .. } => MeshKind::Box,
                };
                Some(Solid { geom: geom.clone(), mesh })
            })
            .collect();
        self.solids.sort_by_key(|solid| solid.mesh);
    }

    /// Records one picture of `poses` (`[bodies]`, of the scene given; a geom whose body has no pose is left out) into `encoder`.
    /// It covers all of `target`, which must be of the renderer's format and `size` pixels large.
    #[allow(clippy::too_many_arguments)]
    pub fn render(
        &mut self,
        device: &wgpu::Device,
        encoder: &mut wgpu::CommandEncoder,
        target: &wgpu::TextureView,
        size: [u32; 2],
        camera: &Camera,
        poses: &[Pose],
        look: &Look,
    ) {
        let staged = self.stage(poses, look);
        let globals = self.globals(size, camera, look, &staged);
        // Fresh small buffers for every picture: nothing is overwritten that an earlier picture of the same submission still reads.
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
        let instances = (!staged.instances.is_empty())
            .then(|| buffer("solids", bytemuck::cast_slice(&staged.instances), wgpu::BufferUsages::VERTEX));

        let attachments = self.attachments(device, size);
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("scene"),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: attachments.samples.as_ref().unwrap_or(target),
                depth_slice: None,
                resolve_target: attachments.samples.is_some().then_some(target),
                ops: wgpu::Operations {
                    load: wgpu::LoadOp::Clear(wgpu::Color::BLACK),
                    store: if attachments.samples.is_some() { wgpu::StoreOp::Discard } else { wgpu::StoreOp::Store },
                },
            })],
            depth_stencil_attachment: Some(wgpu::RenderPassDepthStencilAttachment {
                view: &attachments.depth,
                depth_ops: Some(wgpu::Operations { load: wgpu::LoadOp::Clear(0.0), store: wgpu::StoreOp::Discard }),
                stencil_ops: None,
            }),
            timestamp_writes: None,
            occlusion_query_set: None,
            multiview_mask: None,
        });
        // Front to back, so that what is hidden is not shaded.
        pass.set_bind_group(0, &bind_group, &[]);
        if let Some(instances) = &instances {
            pass.set_pipeline(&self.pipelines.solid);
            pass.set_vertex_buffer(1, instances.slice(..));
            for (mesh, range) in self.meshes.iter().zip(staged.ranges) {
                if !range.is_empty() {
                    pass.set_vertex_buffer(0, mesh.vertices.slice(..));
                    pass.set_index_buffer(mesh.indices.slice(..), wgpu::IndexFormat::Uint16);
                    pass.draw_indexed(0..mesh.count, 0, range);
                }
            }
        }
        pass.set_pipeline(&self.pipelines.patch);
        pass.draw(0..6, 0..1);
        pass.set_pipeline(&self.pipelines.floor);
        pass.draw(0..48, 0..1);
        pass.set_pipeline(&self.pipelines.sky);
        pass.draw(0..3, 0..1);
    }

    /// Solids and casters in the world.
    fn stage(&self, poses: &[Pose], look: &Look) -> Staged {
        let mut staged = Staged {
            instances: Vec::with_capacity(self.solids.len()),
            ranges: [0..0, 0..0, 0..0],
            casters: Box::new(Casters::zeroed()),
            capsules: 0,
            boxes: 0,
            patch: None,
        };
        let sun = sun_direction(look);
        let mut box_owners = Vec::new();
        for solid in &self.solids {
            let geom = &solid.geom;
            let Some(body) = poses.get(geom.body) else { continue };
            let (rotation, centre) = in_world(geom, body);
            let (radius, half_extents) = match geom.shape {
                Shape::Plane => continue,
                Shape::Sphere { radius } => (radius, Vec3::ZERO),
                Shape::Capsule { radius, half_length } | Shape::Cylinder { radius, half_length } => {
                    (radius, Vec3::Z * half_length)
                }
                Shape::Box { half_extents } => (0.0, Vec3::from(half_extents)),
            };
            let own = match caster(&geom.shape, rotation, centre) {
                Caster::Capsule(capsule) if staged.capsules < CAPSULES => {
                    staged.casters.capsules[staged.capsules] = capsule;
                    staged.capsules += 1;
                    staged.capsules - 1
                }
                Caster::Box(cuboid) if staged.boxes < BOXES => {
                    staged.casters.boxes[staged.boxes] = cuboid;
                    staged.boxes += 1;
                    // Boxes are counted after the capsules, whose number is not known yet.
                    box_owners.push((staged.instances.len(), staged.boxes - 1));
                    usize::MAX
                }
                _ => CAPSULES + BOXES,
            };
            let [red, green, blue, alpha] = geom.rgba;
            let index = staged.instances.len() as u32;
            let range = &mut staged.ranges[solid.mesh as usize];
            *range = if range.start == range.end { index..index + 1 } else { range.start..index + 1 };
            staged.instances.push(SolidInstance {
                position_radius: centre.extend(radius).to_array(),
                rotation: rotation.to_array(),
                half_extents: half_extents.to_array(),
                own: own as u32,
                colour: [linear(red), linear(green), linear(blue), alpha],
            });
            if let Some(extent) = extent(&geom.shape, rotation) {
                let shade = shaded_floor(centre, extent, self.floor_z, sun, look.sun_spread);
                staged.patch =
                    Some(staged.patch.map_or(shade, |[low, high]: [Vec2; 2]| [low.min(shade[0]), high.max(shade[1])]));
            }
        }
        for (instance, cuboid) in box_owners {
            staged.instances[instance].own = (staged.capsules + cuboid) as u32;
        }
        staged
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
            capsules: staged.capsules as u32,
            right: right.to_array(),
            boxes: staged.boxes as u32,
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
            pad_0: 0.0,
            horizon: colour(look.horizon),
            pad_1: 0.0,
            tile_a: colour(look.tile_a),
            pad_2: 0.0,
            tile_b: colour(look.tile_b),
            pad_3: 0.0,
            line: colour(look.line),
            line_width: look.line_width,
            cuts_x: [low.x, patch_low.x, patch_high.x, high.x],
            cuts_y: [low.y, patch_low.y, patch_high.y, high.y],
        }
    }

    fn attachments(&mut self, device: &wgpu::Device, size: [u32; 2]) -> &Attachments {
        let kept = match self.attachments.iter().position(|a| a.size == size) {
            Some(at) => self.attachments.remove(at),
            None => {
                if self.attachments.len() == KEPT_SIZES {
                    self.attachments.remove(0);
                }
                Attachments::new(device, size, self.format, self.samples)
            }
        };
        self.attachments.push(kept);
        &self.attachments[self.attachments.len() - 1]
    }
}

/// A scene in its poses, as the shader takes it.
struct Staged {
    instances: Vec<SolidInstance>,
    /// The instances of each mesh.
    ranges: [Range<u32>; 3],
    casters: Box<Casters>,
    capsules: usize,
    boxes: usize,
    /// The rectangle of floor that shadows may fall on: low and high corner.
    patch: Option<[Vec2; 2]>,
}

enum Caster {
    Capsule(CapsuleCaster),
    Box(BoxCaster),
    None,
}

/// What stands for a solid when shadows are computed: a long cylinder is taken for the capsule inside it, a flat one for the box of
/// the same base area.
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
    }
}

/// The rectangle of floor that a solid darkens, by its shadow (the sun may come from below it at any height between its lowest and
/// highest point) or by hiding the sky, whose share the shader drops where it is below 4 %: farther than 3.1 radii.
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

/// The sun must stand above the horizon for its shadows to have an end.
fn sun_direction(look: &Look) -> Vec3 {
    let direction = Vec3::from(look.sun_direction).normalize_or(Vec3::Z);
    Vec3::new(direction.x, direction.y, direction.z.max(0.2)).normalize()
}

/// The height of the scene's first plane. A scene without one (a cart on a rail) gets a floor that nothing can reach: below its
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

impl GpuMesh {
    fn new(device: &wgpu::Device, mesh: &mesh::Mesh) -> GpuMesh {
        let buffer = |contents: &[u8], usage| {
            device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: Some("mesh"), contents, usage })
        };
        GpuMesh {
            vertices: buffer(bytemuck::cast_slice(&mesh.vertices), wgpu::BufferUsages::VERTEX),
            indices: buffer(bytemuck::cast_slice(&mesh.indices), wgpu::BufferUsages::INDEX),
            count: mesh.indices.len() as u32,
        }
    }
}

impl Attachments {
    fn new(device: &wgpu::Device, size: [u32; 2], format: wgpu::TextureFormat, samples: u32) -> Attachments {
        let texture = |label, format| {
            let texture = device.create_texture(&wgpu::TextureDescriptor {
                label: Some(label),
                size: wgpu::Extent3d { width: size[0], height: size[1], depth_or_array_layers: 1 },
                mip_level_count: 1,
                sample_count: samples,
                dimension: wgpu::TextureDimension::D2,
                format,
                usage: wgpu::TextureUsages::RENDER_ATTACHMENT,
                view_formats: &[],
            });
            texture.create_view(&wgpu::TextureViewDescriptor::default())
        };
        Attachments {
            size,
            depth: texture("scene depth", DEPTH_FORMAT),
            samples: (samples > 1).then(|| texture("scene samples", format)),
        }
    }
}

impl Pipelines {
    fn new(
        device: &wgpu::Device,
        layout: &wgpu::BindGroupLayout,
        format: wgpu::TextureFormat,
        samples: u32,
    ) -> Pipelines {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("scene.wgsl"),
            source: wgpu::ShaderSource::Wgsl(SHADER.into()),
        });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("scene"),
            bind_group_layouts: &[Some(layout)],
            immediate_size: 0,
        });
        let pipeline = |name: &str, buffers: &[Option<wgpu::VertexBufferLayout>], cull_mode| {
            device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
                label: Some(name),
                layout: Some(&layout),
                vertex: wgpu::VertexState {
                    module: &module,
                    entry_point: Some(&format!("{name}_vertex")),
                    compilation_options: wgpu::PipelineCompilationOptions::default(),
                    buffers,
                },
                primitive: wgpu::PrimitiveState { cull_mode, ..wgpu::PrimitiveState::default() },
                depth_stencil: Some(wgpu::DepthStencilState {
                    format: DEPTH_FORMAT,
                    depth_write_enabled: Some(true),
                    depth_compare: Some(wgpu::CompareFunction::GreaterEqual),
                    stencil: wgpu::StencilState::default(),
                    bias: wgpu::DepthBiasState::default(),
                }),
                multisample: wgpu::MultisampleState { count: samples, ..wgpu::MultisampleState::default() },
                fragment: Some(wgpu::FragmentState {
                    module: &module,
                    entry_point: Some(&format!("{name}_fragment")),
                    compilation_options: wgpu::PipelineCompilationOptions::default(),
                    targets: &[Some(format.into())],
                }),
                multiview_mask: None,
                cache: None,
            })
        };
        let vertices = wgpu::VertexBufferLayout {
            array_stride: size_of::<SolidVertex>() as u64,
            step_mode: wgpu::VertexStepMode::Vertex,
            attributes: &SolidVertex::ATTRIBUTES,
        };
        let instances = wgpu::VertexBufferLayout {
            array_stride: size_of::<SolidInstance>() as u64,
            step_mode: wgpu::VertexStepMode::Instance,
            attributes: &SolidInstance::ATTRIBUTES,
        };
        Pipelines {
            solid: pipeline("solid", &[Some(vertices), Some(instances)], Some(wgpu::Face::Back)),
            floor: pipeline("floor", &[], None),
            patch: pipeline("patch", &[], None),
            sky: pipeline("sky", &[], None),
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
