//! Colours and light: the part of a picture that is a matter of taste.

/// A palette and its light. Colours are sRGB, 0..=1; light is linear.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// The sky overhead.
    pub zenith: [f32; 3],
    /// The sky at the horizon, and what the floor fades into.
    pub horizon: [f32; 3],
    /// Every other tile of the floor.
    pub tile_a: [f32; 3],
    /// The tiles between.
    pub tile_b: [f32; 3],
    /// The thin lines between tiles.
    pub line: [f32; 3],
    /// Width of those lines, metres.
    pub line_width: f32,
    /// Distance at which the floor has faded halfway into the horizon, metres.
    pub fade: f32,
    /// Direction to the sun, of any length.
    pub sun_direction: [f32; 3],
    /// Tangent of the sun's angular radius: 0.0047 is the real sun, more is softer.
    pub sun_spread: f32,
    /// Sunlight, linear. Together with the light of the sky, it should come to about 1 on the floor.
    pub sun: [f32; 3],
    /// Light from above, linear.
    pub sky_light: [f32; 3],
    /// Light from below, linear.
    pub floor_light: [f32; 3],
    /// Strength of the bright edge that sets solids off from the background.
    pub rim: f32,
    /// Strength of the highlight.
    pub shine: f32,
}

impl Look {
    /// A bright studio, for light themes.
    pub const LIGHT: Look = Look {
        zenith: [0.36, 0.57, 0.83],
        horizon: [0.93, 0.955, 0.975],
        tile_a: [0.93, 0.935, 0.94],
        tile_b: [0.845, 0.86, 0.88],
        line: [0.72, 0.75, 0.79],
        line_width: 0.015,
        fade: 15.0,
        sun_direction: [-0.45, -0.55, 1.0],
        sun_spread: 0.08,
        sun: [0.86, 0.82, 0.75],
        sky_light: [0.33, 0.36, 0.41],
        floor_light: [0.26, 0.25, 0.24],
        rim: 0.25,
        shine: 0.35,
    };

    /// A dusk, for dark themes.
    pub const DARK: Look = Look {
        zenith: [0.045, 0.06, 0.10],
        horizon: [0.20, 0.245, 0.32],
        tile_a: [0.235, 0.26, 0.31],
        tile_b: [0.19, 0.212, 0.255],
        line: [0.33, 0.37, 0.44],
        line_width: 0.015,
        fade: 13.0,
        sun_direction: [-0.45, -0.55, 1.0],
        sun_spread: 0.08,
        sun: [0.92, 0.88, 0.82],
        sky_light: [0.34, 0.40, 0.52],
        floor_light: [0.16, 0.17, 0.20],
        rim: 0.9,
        shine: 0.4,
    };
}

impl Look {
    /// A colour for text over the sky, sRGB bytes: dark on a light sky and light on a dark one.
    pub(super) fn ink(&self) -> [u8; 3] {
        if self.zenith.iter().sum::<f32>() > 1.5 { [38, 44, 54] } else { [226, 231, 240] }
    }
}

impl Default for Look {
    fn default() -> Look {
        Look::LIGHT
    }
}

/// From a stored sRGB value to linear light (IEC 61966-2-1).
pub(super) fn linear(srgb: f32) -> f32 {
    if srgb <= 0.04045 { srgb / 12.92 } else { ((srgb + 0.055) / 1.055).powf(2.4) }
}
