//! The plain data that shaders/scene/scene.wgsl reads: same names, same order, padded as WGSL pads. A test compares the
//! two through naga's reflection.

use bytemuck::{Pod, Zeroable};

/// The most capsules and balls that cast a shadow in one picture. Further ones are drawn but cast none.
pub(super) const CAPSULES: usize = 40;
/// The most boxes and cylinders that cast a shadow in one picture. Further ones are drawn but cast none.
pub(super) const BOXES: usize = 16;

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Globals {
    pub world_to_clip: [[f32; 4]; 4],
    pub forward: [f32; 3],
    pub capsules: u32,
    pub right: [f32; 3],
    pub boxes: u32,
    pub up: [f32; 3],
    pub floor_z: f32,
    pub eye: [f32; 3],
    pub fade: f32,
    pub sun_direction: [f32; 3],
    pub sun_spread: f32,
    pub sun: [f32; 3],
    pub target_is_srgb: f32,
    pub sky_light: [f32; 3],
    pub rim: f32,
    pub floor_light: [f32; 3],
    pub shine: f32,
    pub zenith: [f32; 3],
    pub near: f32,
    pub horizon: [f32; 3],
    pub pixel: f32,
    pub tile_a: [f32; 3],
    pub pad_0: f32,
    pub tile_b: [f32; 3],
    pub pad_1: f32,
    pub line: [f32; 3],
    pub line_width: f32,
    pub cuts_x: [f32; 4],
    pub cuts_y: [f32; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct CapsuleCaster {
    pub a: [f32; 3],
    pub radius: f32,
    pub axis: [f32; 3],
    pub per_axis2: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct BoxCaster {
    pub axis_x: [f32; 3],
    pub half_x: f32,
    pub axis_y: [f32; 3],
    pub half_y: f32,
    pub axis_z: [f32; 3],
    pub half_z: f32,
    pub centre: [f32; 3],
    pub pad_0: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Casters {
    pub capsules: [CapsuleCaster; CAPSULES],
    pub boxes: [BoxCaster; BOXES],
}

/// One solid, in the world.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Solid {
    pub position_radius: [f32; 4],
    pub rotation: [f32; 4],
    pub half_extents: [f32; 3],
    pub own: u32,
    pub colour: [f32; 3],
    pub depth_scale: f32,
}

impl Solid {
    /// Location 6: a corner of a mesh's triangle, per vertex.
    pub const CORNER: [wgpu::VertexAttribute; 1] = wgpu::vertex_attr_array![6 => Float32x3];

    /// Locations 0 to 5: the solid, per instance.
    pub const ATTRIBUTES: [wgpu::VertexAttribute; 6] = wgpu::vertex_attr_array![0 => Float32x4, 1 => Float32x4, 2 => Float32x3, 3 => Uint32, 4 => Float32x3, 5 => Float32];
}

#[cfg(test)]
mod tests {
    use super::*;
    use naga::{ScalarKind, TypeInner, VectorSize};
    use std::mem::{offset_of, size_of};

    fn module() -> naga::Module {
        naga::front::wgsl::parse_str(super::super::renderer::SHADER).unwrap()
    }

    /// The members' names and offsets, and the size, of a struct of the shader.
    fn reflected(name: &str) -> (Vec<(String, usize)>, usize) {
        let module = module();
        let (_, ty) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name)).unwrap();
        let TypeInner::Struct { members, span } = &ty.inner else { panic!("{name} is no struct") };
        (members.iter().map(|m| (m.name.clone().unwrap(), m.offset as usize)).collect(), *span as usize)
    }

    macro_rules! check {
        ($type:ident { $($field:ident),* $(,)? }) => {
            let ours = vec![$((stringify!($field).to_string(), offset_of!($type, $field))),*];
            assert_eq!(reflected(stringify!($type)), (ours, size_of::<$type>()), stringify!($type));
        };
    }

    #[test]
    fn uniforms_lie_as_the_shader_reads_them() {
        check!(Globals {
            world_to_clip,
            forward,
            capsules,
            right,
            boxes,
            up,
            floor_z,
            eye,
            fade,
            sun_direction,
            sun_spread,
            sun,
            target_is_srgb,
            sky_light,
            rim,
            floor_light,
            shine,
            zenith,
            near,
            horizon,
            pixel,
            tile_a,
            pad_0,
            tile_b,
            pad_1,
            line,
            line_width,
            cuts_x,
            cuts_y,
        });
        check!(CapsuleCaster { a, radius, axis, per_axis2 });
        check!(BoxCaster { axis_x, half_x, axis_y, half_y, axis_z, half_z, centre, pad_0 });
        check!(Casters { capsules, boxes });
    }

    #[test]
    fn vertices_lie_as_the_shader_reads_them() {
        let format = |inner: &TypeInner| match inner {
            TypeInner::Vector { size: VectorSize::Tri, scalar } if scalar.kind == ScalarKind::Float => {
                wgpu::VertexFormat::Float32x3
            }
            TypeInner::Vector { size: VectorSize::Quad, scalar } if scalar.kind == ScalarKind::Float => {
                wgpu::VertexFormat::Float32x4
            }
            TypeInner::Scalar(scalar) if scalar.kind == ScalarKind::Uint => wgpu::VertexFormat::Uint32,
            TypeInner::Scalar(scalar) if scalar.kind == ScalarKind::Float => wgpu::VertexFormat::Float32,
            other => panic!("unexpected {other:?}"),
        };
        let attributes = |name: &str| {
            let module = module();
            let (_, ty) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name)).unwrap();
            let TypeInner::Struct { members, .. } = &ty.inner else { panic!("{name} is no struct") };
            members
                .iter()
                .map(|m| {
                    let Some(naga::Binding::Location { location, .. }) = m.binding else { panic!("no location") };
                    (m.name.clone().unwrap(), location, format(&module.types[m.ty].inner))
                })
                .collect::<Vec<_>>()
        };
        let ours = |names: &[(&str, usize)], attributes: &[wgpu::VertexAttribute]| {
            assert_eq!(names.len(), attributes.len());
            names
                .iter()
                .zip(attributes)
                .map(|(&(name, offset), a)| {
                    assert_eq!(offset as u64, a.offset, "{name}");
                    (name.to_string(), a.shader_location, a.format)
                })
                .collect::<Vec<_>>()
        };
        let instance = [
            ("position_radius", offset_of!(Solid, position_radius)),
            ("rotation", offset_of!(Solid, rotation)),
            ("half_extents", offset_of!(Solid, half_extents)),
            ("own", offset_of!(Solid, own)),
            ("colour", offset_of!(Solid, colour)),
            ("depth_scale", offset_of!(Solid, depth_scale)),
        ];
        assert_eq!(attributes("Solid"), ours(&instance, &Solid::ATTRIBUTES));
    }
}
