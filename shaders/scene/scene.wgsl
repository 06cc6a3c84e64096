// A robot on a floor under a sky. It is cheap per pixel, because it must also run on a software driver with two CPU
// cores.
//
// Three things are drawn: the floor, the sky behind it, and the solids. The floor is a plane cut into 3 × 3 cells; only
// the middle one, the patch, computes shadows. Only meshes consist of triangles, and every pixel is sampled once. Any
// other solid is drawn as the box around it: each pixel of the box intersects its ray with the exact shape, and the
// outline is blended by how much of the pixel it covers. There are no shadow maps: each receiver computes in closed
// form how much of the sun and of the sky each caster hides, which also gives soft edges.
//
// Lengths in metres, z up, colours linear. Depth is reversed: 1 at the near plane, 0 at infinity.
// The structs mirror crates/view/src/layout.rs: same names, same order.

const CAPSULES: u32 = 40u;
const BOXES: u32 = 16u;

// Everything that a picture needs besides the solids.
struct Globals {
    world_to_clip: mat4x4f,
    // The ray through the pixel at (x, y) in -1..1 is forward + x right + y up.
    forward: vec3f,
    // Number of capsule casters.
    capsules: u32,
    right: vec3f,
    // Number of box casters.
    boxes: u32,
    up: vec3f,
    // Height of the floor.
    floor_z: f32,
    eye: vec3f,
    // Distance at which the floor's pattern is half faded into the horizon.
    fade: f32,
    // Unit vector towards the sun.
    sun_direction: vec3f,
    // Tangent of the sun's angular radius: how soft shadows are.
    sun_spread: f32,
    sun: vec3f,
    // 1: the target takes linear colours. 0: this shader must encode them as sRGB.
    target_is_srgb: f32,
    // Ambient light on a surface that faces up, and (`floor_light`) on one that faces down.
    sky_light: vec3f,
    rim: f32,
    floor_light: vec3f,
    shine: f32,
    zenith: vec3f,
    // Distance of the near plane.
    near: f32,
    horizon: vec3f,
    // Width of a pixel at one metre from the eye, metres.
    pixel: f32,
    tile_a: vec3f,
    pad_0: f32,
    tile_b: vec3f,
    pad_1: f32,
    line: vec3f,
    line_width: f32,
    // Where the floor is cut: its outer edges and, between them, those of the patch.
    cuts_x: vec4f,
    cuts_y: vec4f,
}

// A capsule as a caster of shadow. A ball is a capsule of length 0.
struct CapsuleCaster {
    a: vec3f,
    radius: f32,
    // From the centre of one end to that of the other.
    axis: vec3f,
    // 1 / axis², or 0 for a ball.
    per_axis2: f32,
}

// A box as a caster of shadow: its axes as unit vectors, and half its size along each.
struct BoxCaster {
    axis_x: vec3f,
    half_x: f32,
    axis_y: vec3f,
    half_y: f32,
    axis_z: vec3f,
    half_z: f32,
    centre: vec3f,
    pad_0: f32,
}

struct Casters {
    capsules: array<CapsuleCaster, CAPSULES>,
    boxes: array<BoxCaster, BOXES>,
}

@group(0) @binding(0) var<uniform> globals: Globals;
@group(0) @binding(1) var<uniform> casters: Casters;

// ---- Light ----------------------------------------------------------------------------------------------------------

// The share of the sun that a point sees past a solid. The sun's ray passes the solid's surface at a distance of `gap`
// metres (negative: it hits) after `travel` metres. The sun is a disc, and the solid's edge counts as a straight line
// across it.
fn sun_past(gap: f32, travel: f32) -> f32 {
    let s = clamp(0.5 + 0.5 * gap / (max(travel, 1e-3) * globals.sun_spread), 0.0, 1.0);
    return s * s * (3.0 - 2.0 * s);
}

// x: the share of the sun that the point `surface` sees past all casters; y: the share of the sky that it sees, facing
// `normal`. `own` is the index of the caster that the point lies on (capsules first, then boxes), or one beyond the
// last.
fn visibility(surface: vec3f, normal: vec3f, own: u32) -> vec2f {
    let sun = globals.sun_direction;
    // A centimetre off the surface, so that solids which meet flush at a joint cast no speckles on each other.
    let point = surface + 0.01 * normal;
    var seen = vec2f(1.0, 1.0);
    for (var i = 0u; i < globals.capsules; i += 1u) {
        let c = casters.capsules[i];
        let offset = point - c.a;
        // The point of the segment nearest to the sun's ray, then the point of the ray nearest to it (Ericson 2005,
        // 5.1.9).
        let along = dot(sun, c.axis);
        let start = dot(offset, c.axis);
        let toward = dot(offset, sun);
        let u = clamp((start - toward * along) / max(dot(c.axis, c.axis) - along * along, 1e-6), 0.0, 1.0);
        let travel = max(u * along - toward, 0.0);
        let gap = length(offset + sun * travel - c.axis * u) - c.radius;
        // Occlusion of a hemisphere by a ball: cosine to it times r²/d² (Quílez), with the capsule's nearest point as
        // its centre.
        let nearest = c.axis * clamp(start * c.per_axis2, 0.0, 1.0) - offset;
        let inverse = inverseSqrt(max(dot(nearest, nearest), 1e-6));
        let ratio = min(c.radius * inverse, 1.0);
        let hidden = max(dot(normal, nearest) * inverse, 0.0) * ratio * ratio;
        let other = f32(i != own);
        seen *= vec2f(mix(1.0, sun_past(gap, travel), other), 1.0 - other * hidden);
    }
    for (var i = 0u; i < globals.boxes; i += 1u) {
        let b = casters.boxes[i];
        let offset = point - b.centre;
        let half = vec3f(b.half_x, b.half_y, b.half_z);
        let local = vec3f(dot(b.axis_x, offset), dot(b.axis_y, offset), dot(b.axis_z, offset));
        let ray = vec3f(dot(b.axis_x, sun), dot(b.axis_y, sun), dot(b.axis_z, sun));
        let normal_in = vec3f(dot(b.axis_x, normal), dot(b.axis_y, normal), dot(b.axis_z, normal));
        // Slabs: the ray is nearest to the box about midway between its last entry and its first exit.
        let per_ray = 1.0 / (ray + select(vec3f(-1e-5), vec3f(1e-5), ray >= vec3f(0.0)));
        let middle = -local * per_ray;
        let reach = abs(per_ray) * half;
        let enter = max(max(middle.x - reach.x, middle.y - reach.y), middle.z - reach.z);
        let leave = min(min(middle.x + reach.x, middle.y + reach.y), middle.z + reach.z);
        let travel = max(0.5 * (enter + leave), 0.0);
        let gap = box_distance(local + ray * travel, half);
        let nearest = clamp(local, -half, half) - local;
        let distance2 = max(dot(nearest, nearest), 1e-6);
        // As for a ball, with a disc of the box's mean half size in place of its near face.
        let size2 = dot(half, half) / 3.0;
        let hidden = max(dot(normal_in, nearest) * inverseSqrt(distance2), 0.0) * size2 / (size2 + distance2);
        let other = f32(i + globals.capsules != own);
        seen *= vec2f(mix(1.0, sun_past(gap, travel), other), 1.0 - other * hidden);
    }
    return seen;
}

// Signed distance from a box about the origin.
fn box_distance(point: vec3f, half: vec3f) -> f32 {
    let q = abs(point) - half;
    return length(max(q, vec3f(0.0))) + min(max(max(q.x, q.y), q.z), 0.0);
}

// The colour to write to the target. The fit of the sRGB curve by three roots is Ian Taylor's; its error is below
// 0.0015.
fn shown(linear: vec3f) -> vec4f {
    let c = clamp(linear, vec3f(0.0), vec3f(1.0));
    if globals.target_is_srgb > 0.5 {
        return vec4f(c, 1.0);
    }
    let root = sqrt(c);
    let root_2 = sqrt(root);
    let root_3 = sqrt(root_2);
    let fit = max(0.585122381 * root + 0.783140355 * root_2 - 0.368262736 * root_3, 12.92 * c * vec3f(c < vec3f(0.0031308)));
    return vec4f(fit, 1.0);
}

// ---- Solids ---------------------------------------------------------------------------------------------------------

struct Solid {
    // Position of the middle; radius of a capsule or cylinder.
    @location(0) position_radius: vec4f,
    // (x, y, z, w).
    @location(1) rotation: vec4f,
    // Half extents of the box around it, in its own frame.
    @location(2) half_extents: vec3f,
    // Index of the solid's own caster, so that it casts no shadow on itself.
    @location(3) own: u32,
    @location(4) colour: vec3f,
    // Factor of its depth, slightly different for each solid, so that solids with a common surface do not speckle.
    @location(5) depth_scale: f32,
}

// Everything except the clip position is in the solid's own frame, with the long axis along z.
struct SolidVarying {
    @builtin(position) clip: vec4f,
    @location(0) point: vec3f,
    @location(1) @interpolate(flat) eye: vec3f,
    @location(2) @interpolate(flat) half_extents: vec3f,
    @location(3) @interpolate(flat) position_radius: vec4f,
    @location(4) @interpolate(flat) rotation: vec4f,
    @location(5) @interpolate(flat) colour: vec3f,
    @location(6) @interpolate(flat) depth_scale: f32,
    @location(7) @interpolate(flat) own: u32,
}

struct Shaded {
    @location(0) colour: vec4f,
    @builtin(frag_depth) depth: f32,
}

// The intersection of a ray with a shape, in the shape's frame.
struct Hit {
    // Along the ray, metres.
    travel: f32,
    normal: vec3f,
    // How far the ray passes inside the outline (negative: outside), metres.
    inside: f32,
}

fn rotate(q: vec4f, v: vec3f) -> vec3f {
    return v + 2.0 * cross(q.xyz, cross(q.xyz, v) + q.w * v);
}

// The box around a solid, two pixels wider on every side, as a triangle strip of 14 corners. The bits of three
// constants give the signs of the corners' coordinates.
@vertex
fn solid_vertex(@builtin(vertex_index) index: u32, solid: Solid) -> SolidVarying {
    let bits = vec3u(0x287au, 0x02afu, 0x31e3u) >> vec3u(index);
    let corner = vec3f(bits & vec3u(1u)) * 2.0 - 1.0;
    let to_middle = solid.position_radius.xyz - globals.eye;
    let margin = 2.0 * globals.pixel * (length(to_middle) + length(solid.half_extents));
    var out: SolidVarying;
    out.point = corner * (solid.half_extents + margin);
    out.clip = globals.world_to_clip * vec4f(solid.position_radius.xyz + rotate(solid.rotation, out.point), 1.0);
    out.eye = rotate(vec4f(-solid.rotation.xyz, solid.rotation.w), -to_middle);
    out.half_extents = solid.half_extents;
    out.position_radius = solid.position_radius;
    out.rotation = solid.rotation;
    out.colour = solid.colour;
    out.depth_scale = solid.depth_scale;
    out.own = solid.own;
    return out;
}

// A capsule whose ends' centres are at z = ±half.
fn meet_capsule(eye: vec3f, ray: vec3f, radius: f32, half: f32) -> Hit {
    // The point of the axis nearest to the ray, for the outline.
    let across2 = max(1.0 - ray.z * ray.z, 1e-6);
    let closest = clamp((eye.z - ray.z * dot(eye, ray)) / across2, -half, half);
    let to_closest = vec3f(eye.xy, eye.z - closest);
    let passing = to_closest - ray * dot(to_closest, ray);
    // The tube, or, if the ray hits it beyond an end, the ball of that end. A ray that just misses counts as a hit
    // where it is nearest.
    let b = dot(eye.xy, ray.xy);
    let c = dot(eye.xy, eye.xy) - radius * radius;
    let tube = (-b - sqrt(max(b * b - across2 * c, 0.0))) / across2;
    let z = clamp(eye.z + tube * ray.z, -half, half);
    let from_end = vec3f(eye.xy, eye.z - z);
    let end_b = dot(from_end, ray);
    let ball = -end_b - sqrt(max(end_b * end_b - dot(from_end, from_end) + radius * radius, 0.0));
    let travel = select(ball, tube, abs(eye.z + tube * ray.z) < half);
    let at = eye + ray * travel;
    return Hit(travel, normalize(at - vec3f(0.0, 0.0, clamp(at.z, -half, half))), radius - length(passing));
}

// A cylinder whose flat ends are at z = ±half.
fn meet_cylinder(eye: vec3f, ray: vec3f, radius: f32, half: f32) -> Hit {
    let across2 = max(1.0 - ray.z * ray.z, 1e-6);
    let b = dot(eye.xy, ray.xy);
    let c = dot(eye.xy, eye.xy) - radius * radius;
    let root = sqrt(max(b * b - across2 * c, 0.0)) / across2;
    let tube = -b / across2;
    let per_z = 1.0 / (ray.z + select(-1e-6, 1e-6, ray.z >= 0.0));
    let slab = -eye.z * per_z;
    let reach = abs(per_z) * half;
    let enter = max(tube - root, slab - reach);
    let leave = min(tube + root, slab + reach);
    let at = eye + ray * enter;
    let normal = select(vec3f(0.0, 0.0, -sign(ray.z)), vec3f(normalize(at.xy), 0.0), tube - root > slab - reach);
    let middle = eye + ray * (0.5 * (enter + leave));
    let past = vec2f(length(middle.xy) - radius, abs(middle.z) - half);
    return Hit(enter, normal, -(length(max(past, vec2f(0.0))) + min(max(past.x, past.y), 0.0)));
}

fn meet_box(eye: vec3f, ray: vec3f, half: vec3f) -> Hit {
    let per_ray = 1.0 / (ray + select(vec3f(-1e-6), vec3f(1e-6), ray >= vec3f(0.0)));
    let middles = -eye * per_ray;
    let reach = abs(per_ray) * half;
    let enters = middles - reach;
    let leaves = middles + reach;
    let enter = max(max(enters.x, enters.y), enters.z);
    let leave = min(min(leaves.x, leaves.y), leaves.z);
    let normal = select(vec3f(0.0), -sign(ray), enters >= vec3f(enter));
    let middle = eye + ray * (0.5 * (enter + leave));
    return Hit(enter, normal, -box_distance(middle, half));
}

fn shade(in: SolidVarying, ray: vec3f, hit: Hit) -> Shaded {
    // Antialiasing: the share of the pixel inside the outline.
    let coverage = clamp(0.5 + hit.inside / (hit.travel * globals.pixel), 0.0, 1.0);
    if coverage <= 0.0 || hit.travel < globals.near {
        discard;
    }
    let world_ray = rotate(in.rotation, ray);
    let point = globals.eye + world_ray * hit.travel;
    let normal = rotate(in.rotation, hit.normal);
    let seen = visibility(point, normal, in.own);

    let facing = dot(normal, globals.sun_direction);
    let direct = max(facing, 0.0) * seen.x;
    // Near the floor, less light comes from below.
    let height = max(point.z - globals.floor_z, 0.0);
    let below = globals.floor_light * (0.35 + 0.65 * height / (height + 0.15));
    let ambient = mix(below, globals.sky_light, 0.5 + 0.5 * normal.z) * (0.25 + 0.75 * seen.y);

    let half_way = normalize(globals.sun_direction - world_ray);
    let gloss = pow(max(dot(normal, half_way), 0.0), 48.0) * globals.shine * direct;
    let edge = 1.0 - max(-dot(normal, world_ray), 0.0);
    let rim = edge * edge * edge * globals.rim * (0.5 + 0.5 * normal.z);

    let light = in.colour * (ambient + globals.sun * direct) + globals.sun * gloss + globals.horizon * rim;
    let depth = globals.near / (hit.travel * dot(world_ray, globals.forward));
    return Shaded(vec4f(shown(light).rgb, coverage), depth * in.depth_scale);
}

@fragment
fn capsule_fragment(in: SolidVarying) -> Shaded {
    let ray = normalize(in.point - in.eye);
    let radius = in.position_radius.w;
    return shade(in, ray, meet_capsule(in.eye, ray, radius, in.half_extents.z - radius));
}

@fragment
fn cylinder_fragment(in: SolidVarying) -> Shaded {
    let ray = normalize(in.point - in.eye);
    return shade(in, ray, meet_cylinder(in.eye, ray, in.position_radius.w, in.half_extents.z));
}

@fragment
fn box_fragment(in: SolidVarying) -> Shaded {
    let ray = normalize(in.point - in.eye);
    return shade(in, ray, meet_box(in.eye, ray, in.half_extents));
}

// A corner of a mesh's triangle, in the mesh's frame.
@vertex
fn mesh_vertex(solid: Solid, @location(6) corner: vec3f) -> SolidVarying {
    var out: SolidVarying;
    out.point = corner;
    out.clip = globals.world_to_clip * vec4f(solid.position_radius.xyz + rotate(solid.rotation, corner), 1.0);
    out.eye = rotate(vec4f(-solid.rotation.xyz, solid.rotation.w), globals.eye - solid.position_radius.xyz);
    out.half_extents = solid.half_extents;
    out.position_radius = solid.position_radius;
    out.rotation = solid.rotation;
    out.colour = solid.colour;
    out.depth_scale = solid.depth_scale;
    out.own = solid.own;
    return out;
}

@fragment
fn mesh_fragment(in: SolidVarying) -> Shaded {
    // The point is linear across a triangle, so its derivatives between pixels span the face. The normal points to the
    // eye.
    let across = cross(dpdx(in.point), dpdy(in.point));
    let to_point = in.point - in.eye;
    let travel = length(to_point);
    let normal = across * (-sign(dot(across, to_point)) * inverseSqrt(max(dot(across, across), 1e-30)));
    return shade(in, to_point / travel, Hit(travel, normal, travel));
}

// ---- Floor ----------------------------------------------------------------------------------------------------------

struct FloorVarying {
    @builtin(position) clip: vec4f,
    @location(0) point: vec2f,
}

// The corner `index` (0..6, two triangles) of the cell `cell` (0..9, row by row) of the floor.
fn floor_corner(cell: u32, index: u32) -> FloorVarying {
    // The bits of a corner's number are (y, x). The triangles are 0 1 2 and 3 2 1.
    let corner = select(index, 6u - index, index > 2u);
    let at = vec2u(cell % 3u + (corner & 1u), cell / 3u + (corner >> 1u));
    var out: FloorVarying;
    out.point = vec2f(globals.cuts_x[at.x], globals.cuts_y[at.y]);
    out.clip = globals.world_to_clip * vec4f(out.point, globals.floor_z, 1.0);
    return out;
}

// The eight cells around the patch.
@vertex
fn floor_vertex(@builtin(vertex_index) index: u32) -> FloorVarying {
    let cell = index / 6u;
    return floor_corner(select(cell, cell + 1u, cell > 3u), index % 6u);
}

// The patch.
@vertex
fn patch_vertex(@builtin(vertex_index) index: u32) -> FloorVarying {
    return floor_corner(4u, index);
}

// The mean of a square wave of ±1 and period 2 over the pixel's footprint, which is `width` wide around `x`. The wave's
// integral is a triangle wave, so the mean is a difference of two of its values.
fn square_mean(x: vec2f, width: vec2f) -> vec2f {
    let a = abs(fract(0.5 * (x - 0.5 * width)) - 0.5);
    let b = abs(fract(0.5 * (x + 0.5 * width)) - 0.5);
    return 2.0 * (a - b) / width;
}

// The floor's unlit colour: a checkerboard of one-metre tiles with thin lines between them, both filtered over the
// pixel.
fn floor_albedo(point: vec2f) -> vec3f {
    let width = max(abs(dpdx(point)) + abs(dpdy(point)), vec2f(1e-4));
    let wave = square_mean(point, width);
    let checker = 0.5 - 0.5 * wave.x * wave.y;

    let from_line = abs(fract(point + 0.5) - 0.5);
    let half_line = 0.5 * globals.line_width;
    let covered = clamp((half_line - from_line) / width + 0.5, vec2f(0.0), vec2f(1.0)) * min(vec2f(1.0), globals.line_width / width);
    let line = max(covered.x, covered.y);
    return mix(mix(globals.tile_a, globals.tile_b, checker), globals.line, line);
}

// The colour of the lit floor, which fades into the horizon with distance.
fn floor_seen(albedo: vec3f, point: vec2f, seen: vec2f) -> vec4f {
    let light = globals.sky_light * seen.y + globals.sun * (globals.sun_direction.z * seen.x);
    let away = distance(globals.eye, vec3f(point, globals.floor_z)) / globals.fade;
    let clear = 1.0 / (1.0 + away * away);
    return shown(mix(globals.horizon, albedo * light, clear));
}

@fragment
fn floor_fragment(in: FloorVarying) -> @location(0) vec4f {
    return floor_seen(floor_albedo(in.point), in.point, vec2f(1.0));
}

@fragment
fn patch_fragment(in: FloorVarying) -> @location(0) vec4f {
    let seen = visibility(vec3f(in.point, globals.floor_z), vec3f(0.0, 0.0, 1.0), CAPSULES + BOXES);
    return floor_seen(floor_albedo(in.point), in.point, seen);
}

// ---- Sky ------------------------------------------------------------------------------------------------------------

struct SkyVarying {
    @builtin(position) clip: vec4f,
    @location(0) ray: vec3f,
}

// One triangle that covers the whole picture, at infinity.
@vertex
fn sky_vertex(@builtin(vertex_index) index: u32) -> SkyVarying {
    let at = vec2f(f32(index & 1u) * 4.0 - 1.0, f32(index >> 1u) * 4.0 - 1.0);
    var out: SkyVarying;
    out.clip = vec4f(at, 0.0, 1.0);
    out.ray = globals.forward + at.x * globals.right + at.y * globals.up;
    return out;
}

@fragment
fn sky_fragment(in: SkyVarying) -> @location(0) vec4f {
    let height = max(in.ray.z * inverseSqrt(dot(in.ray, in.ray)), 0.0);
    let t = 1.0 - 1.0 / (1.0 + 4.0 * height);
    return shown(mix(globals.horizon, globals.zenith, t));
}
