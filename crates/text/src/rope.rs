//! Rotary position embeddings: how fast each channel pair rotates, with the usual scalings for long contexts.

use std::f64::consts::TAU;

/// How rotary angles depend on the position.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths: channel pair i rotates by θ^(−2i/w) radians per position.
    pub theta: f64,
    /// w: how many channels of a head rotate, the first ones.
    pub width: usize,
    /// The scaling for long contexts.
    pub scaling: RopeScaling,
}

/// How the angles are changed for long contexts, by transformers' `rope_type`.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// `default`: not at all.
    None,
    /// `linear`: all channels rotate `factor` times slower.
    Linear {
        /// How many times slower.
        factor: f64,
    },
    /// `dynamic`: θ grows with texts that are longer than the context.
    Dynamic {
        /// How strongly.
        factor: f64,
        /// The context length, tokens.
        context: f64,
    },
    /// `llama3`.
    Llama3(Llama3Rope),
    /// `yarn`.
    Yarn(YarnRope),
    /// `longrope`.
    Long(LongRope),
}

/// Llama 3.1's rotary scaling: low-frequency channels rotate `factor` times slower, high-frequency ones as before, and
/// those between are interpolated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3Rope {
    /// How many times slower low-frequency channels rotate.
    pub factor: f64,
    /// Wavelengths above `original_context` divided by this are low-frequency.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_context` divided by this are high-frequency.
    pub high_freq_factor: f64,
    /// The context length before scaling, tokens.
    pub original_context: f64,
}

/// YaRN (Peng et al. 2023): channels that rotate rarely within the original context rotate `factor` times slower, those
/// that rotate often as before, and those between are interpolated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct YarnRope {
    /// How many times slower the slow channels rotate.
    pub factor: f64,
    /// The context length before scaling, tokens.
    pub original_context: f64,
    /// Channels with more rotations than this rotate as before.
    pub beta_fast: f64,
    /// Channels with fewer rotations than this are slow.
    pub beta_slow: f64,
    /// Whether the borders between them are rounded to whole channels.
    pub truncate: bool,
    /// Multiplies cosines and sines.
    pub attention_factor: f64,
}

/// LongRoPE (Ding et al. 2024): each channel has its own factor, one for short texts and one for long texts.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRope {
    /// How many times slower each channel pair rotates in texts within `original_context`.
    pub short: Vec<f64>,
    /// The same in longer texts.
    pub long: Vec<f64>,
    /// The context length before scaling, tokens.
    pub original_context: f64,
    /// Multiplies cosines and sines.
    pub attention_factor: f64,
}

impl Rope {
    /// Whether the angles depend on the length of the text.
    pub fn needs_length(&self) -> bool {
        matches!(self.scaling, RopeScaling::Dynamic { .. } | RopeScaling::Long(_))
    }

    /// Radians per position of each channel pair in a text of this many tokens.
    pub fn frequencies(&self, length: usize) -> Vec<f32> {
        let width = self.width as f64;
        let theta = match self.scaling {
            RopeScaling::Dynamic { factor, context } => {
                let stretched = factor * (length as f64).max(context) / context - (factor - 1.0);
                self.theta * stretched.powf(width / (width - 2.0))
            }
            _ => self.theta,
        };
        let pairs = 0..self.width / 2;
        pairs.map(|i| self.scaled(i, theta.powf(-2.0 * i as f64 / width), length) as f32).collect()
    }

    /// The frequency of channel pair i, whose unscaled one is `plain`.
    fn scaled(&self, i: usize, plain: f64, length: usize) -> f64 {
        // The share of the unscaled frequency; the rest rotates `factor` times slower.
        let mixed = |share: f64, factor: f64| (1.0 - share) * plain / factor + share * plain;
        match &self.scaling {
            RopeScaling::None | RopeScaling::Dynamic { .. } => plain,
            RopeScaling::Linear { factor } => plain / factor,
            RopeScaling::Llama3(l) => {
                let rotations = l.original_context * plain / TAU;
                let share = (rotations - l.low_freq_factor) / (l.high_freq_factor - l.low_freq_factor);
                mixed(share.clamp(0.0, 1.0), l.factor)
            }
            RopeScaling::Yarn(y) => {
                let [low, high] = y.borders(self.theta, self.width as f64);
                let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                mixed(1.0 - ramp, y.factor)
            }
            RopeScaling::Long(l) => {
                let factors = if length as f64 > l.original_context { &l.long } else { &l.short };
                plain / factors.get(i).copied().unwrap_or(1.0)
            }
        }
    }

    /// What multiplies cosines and sines.
    pub fn attention_factor(&self) -> f64 {
        match &self.scaling {
            RopeScaling::Yarn(yarn) => yarn.attention_factor,
            RopeScaling::Long(long) => long.attention_factor,
            _ => 1.0,
        }
    }
}

impl YarnRope {
    /// The default of `attention_factor`: 0.1 m ln(factor) + 1, with m = `mscale` over the same with `mscale_all_dim`
    /// where both are given.
    pub fn usual_attention_factor(factor: f64, mscale: Option<[f64; 2]>) -> f64 {
        let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        match mscale {
            Some([mscale, all]) if mscale != 0.0 && all != 0.0 => scale(mscale) / scale(all),
            _ => scale(1.0),
        }
    }

    /// The channel pairs at which the ramp from fast to slow begins and ends.
    fn borders(&self, theta: f64, width: f64) -> [f64; 2] {
        let at = |rotations: f64| width * (self.original_context / (rotations * TAU)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (at(self.beta_fast), at(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(width - 1.0));
        [low, if low == high { high + 0.001 } else { high }]
    }
}

impl LongRope {
    /// The default of `attention_factor` for this stretch of the context.
    pub fn usual_attention_factor(factor: f64, original_context: f64) -> f64 {
        if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original_context.ln()).sqrt() }
    }
}
