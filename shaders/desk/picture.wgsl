// Draws a finished picture in its place in the window.
//
// egui could draw the texture itself, but its fragment shader also contains sampling with four taps. A GPU skips that
// branch, but a software driver computes it for every pixel. Pictures cover most of the window, so they have this
// shader.

@group(0) @binding(0) var picture: texture_2d<f32>;
@group(0) @binding(1) var picture_sampler: sampler;

struct Corner {
    @builtin(position) position: vec4<f32>,
    @location(0) at: vec2<f32>,
};

@vertex
fn picture_vertex(@builtin(vertex_index) index: u32) -> Corner {
    let unit = vec2<f32>(f32(index & 1u), f32(index >> 1u));
    return Corner(vec4<f32>(2.0 * unit.x - 1.0, 1.0 - 2.0 * unit.y, 0.0, 1.0), unit);
}

// For a target that stores colours unchanged: the picture is already sRGB.
@fragment
fn picture_fragment(corner: Corner) -> @location(0) vec4<f32> {
    return textureSampleLevel(picture, picture_sampler, corner.at, 0.0);
}

// For a target that encodes sRGB itself: the picture's bytes are decoded first (IEC 61966-2-1).
@fragment
fn picture_fragment_srgb_target(corner: Corner) -> @location(0) vec4<f32> {
    let color = textureSampleLevel(picture, picture_sampler, corner.at, 0.0).rgb;
    let linear = select(pow((color + 0.055) / 1.055, vec3<f32>(2.4)), color / 12.92, color < vec3<f32>(0.04045));
    return vec4<f32>(linear, 1.0);
}
