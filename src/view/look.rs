//! Colours and light: everything about a picture that is taste.

/// A palette and its light. Colours are sRGB as a designer writes them, 0..=1; light is linear.
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
    /// Distance at which the floor is half horizon, metres.
    pub fade: f32,
    /// Towards the sun; any length.
    pub sun_direction: [f32; 3],
    /// Tangent of the sun's angular radius: 0.0047 is the real sun, more is softer.
    pub sun_spread: f32,
    /// Light of the sun, linear; with the light of the sky it should come to about 1 on the floor.
    pub sun: [f32; 3],
    /// Light from above, linear.
    pub sky_light: [f32; 3],
    /// Light from below, linear.
    pub floor_light: [f32; 3],
    /// Strength of the bright edge against the background.
    pub rim: f32,
    /// Strength of the highlight.
    pub shine: f32,
}

impl Look {
    /// A bright studio, for light themes.
    pub const LIGHT: Look = Look {
        zenith: [0.56, 0.70, 0.86],
        horizon: [0.93, 0.95, 0.97],
        tile_a: [0.86, 0.875, 0.89],
        tile_b: [0.80, 0.82, 0.845],
        line: [0.70, 0.73, 0.77],
        line_width: 0.02,
        fade: 16.0,
        sun_direction: [-0.45, -0.55, 1.0],
        sun_spread: 0.09,
        sun: [0.66, 0.63, 0.58],
        sky_light: [0.42, 0.45, 0.49],
        floor_light: [0.22, 0.21, 0.20],
        rim: 0.22,
        shine: 0.35,
    };

    /// A dusk, for dark themes.
    pub const DARK: Look = Look {
        zenith: [0.055, 0.07, 0.11],
        horizon: [0.17, 0.20, 0.26],
        tile_a: [0.235, 0.255, 0.295],
        tile_b: [0.20, 0.218, 0.255],
        line: [0.32, 0.35, 0.41],
        line_width: 0.02,
        fade: 14.0,
        sun_direction: [-0.45, -0.55, 1.0],
        sun_spread: 0.09,
        sun: [0.80, 0.76, 0.70],
        sky_light: [0.22, 0.26, 0.34],
        floor_light: [0.08, 0.08, 0.09],
        rim: 0.5,
        shine: 0.35,
    };
}

impl Look {
    /// A colour for words over the sky, sRGB bytes: dark on a light sky and light on a dark one.
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
