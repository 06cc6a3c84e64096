//! The places in a forward pass where activations can be read and changed, by TransformerLens' names, and what a pass
//! does there. A pass without hooks is compiled as if there were none.

use std::fmt;
use tch::Tensor;

/// A kind of activation. B is the batch, T the positions, d the size of a hidden state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// Token embeddings, `[B, T, d]`.
    Embed,
    /// Learnt position embeddings, `[B, T, d]`.
    PosEmbed,
    /// The residual stream before a block, `[B, T, d]`.
    ResidPre,
    /// What the first norm divides by, `[B, T, 1]`.
    Ln1Scale,
    /// The first norm before its weight and bias, `[B, T, d]`.
    Ln1Normalized,
    /// Queries before norm and rotation, `[B, T, heads, d_head]`.
    Q,
    /// Keys before norm and rotation, `[B, T, key heads, d_head]`.
    K,
    /// Values, `[B, T, key heads, d_head]`.
    V,
    /// Queries after rotation, `[B, T, heads, d_head]`.
    RotQ,
    /// Keys after rotation, `[B, T, key heads, d_head]`.
    RotK,
    /// Attention scores, −∞ where nothing is attended to, `[B, heads, T, T]`.
    AttnScores,
    /// Attention weights, `[B, heads, T, T]`.
    Pattern,
    /// Values mixed by the weights, `[B, T, heads, d_head]`.
    Z,
    /// What attention adds to the residual stream, `[B, T, d]`.
    AttnOut,
    /// The residual stream between attention and MLP, `[B, T, d]`.
    ResidMid,
    /// What the second norm divides by, `[B, T, 1]`.
    Ln2Scale,
    /// The second norm before its weight and bias, `[B, T, d]`.
    Ln2Normalized,
    /// The MLP before its nonlinearity, `[B, T, inner]`; of a gated MLP the gate.
    MlpPre,
    /// The other factor of a gated MLP, `[B, T, inner]`.
    MlpPreLinear,
    /// The MLP's hidden layer, `[B, T, inner]`.
    MlpPost,
    /// What the MLP adds to the residual stream, `[B, T, d]`.
    MlpOut,
    /// The residual stream after a block, `[B, T, d]`.
    ResidPost,
    /// What the last norm divides by, `[B, T, 1]`.
    LnFinalScale,
    /// The last norm before its weight and bias, `[B, T, d]`.
    LnFinalNormalized,
}

/// A site of a block; for what lies outside of the blocks, `block` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookPoint {
    /// The block, counted from 0.
    pub block: usize,
    /// The kind of activation.
    pub site: Site,
}

impl Site {
    /// Every site, in the order of a pass.
    pub const ALL: [Site; 24] = [
        Site::Embed,
        Site::PosEmbed,
        Site::ResidPre,
        Site::Ln1Scale,
        Site::Ln1Normalized,
        Site::Q,
        Site::K,
        Site::V,
        Site::RotQ,
        Site::RotK,
        Site::AttnScores,
        Site::Pattern,
        Site::Z,
        Site::AttnOut,
        Site::ResidMid,
        Site::Ln2Scale,
        Site::Ln2Normalized,
        Site::MlpPre,
        Site::MlpPreLinear,
        Site::MlpPost,
        Site::MlpOut,
        Site::ResidPost,
        Site::LnFinalScale,
        Site::LnFinalNormalized,
    ];

    /// TransformerLens' name, without the block's prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Site::Embed => "hook_embed",
            Site::PosEmbed => "hook_pos_embed",
            Site::ResidPre => "hook_resid_pre",
            Site::Ln1Scale => "ln1.hook_scale",
            Site::Ln1Normalized => "ln1.hook_normalized",
            Site::Q => "attn.hook_q",
            Site::K => "attn.hook_k",
            Site::V => "attn.hook_v",
            Site::RotQ => "attn.hook_rot_q",
            Site::RotK => "attn.hook_rot_k",
            Site::AttnScores => "attn.hook_attn_scores",
            Site::Pattern => "attn.hook_pattern",
            Site::Z => "attn.hook_z",
            Site::AttnOut => "hook_attn_out",
            Site::ResidMid => "hook_resid_mid",
            Site::Ln2Scale => "ln2.hook_scale",
            Site::Ln2Normalized => "ln2.hook_normalized",
            Site::MlpPre => "mlp.hook_pre",
            Site::MlpPreLinear => "mlp.hook_pre_linear",
            Site::MlpPost => "mlp.hook_post",
            Site::MlpOut => "hook_mlp_out",
            Site::ResidPost => "hook_resid_post",
            Site::LnFinalScale => "ln_final.hook_scale",
            Site::LnFinalNormalized => "ln_final.hook_normalized",
        }
    }

    /// Whether every block has this site.
    pub const fn is_in_block(self) -> bool {
        !matches!(self, Site::Embed | Site::PosEmbed | Site::LnFinalScale | Site::LnFinalNormalized)
    }

    /// The axis of the positions; of scores and patterns, that of the queries.
    pub const fn position_axis(self) -> i64 {
        if matches!(self, Site::AttnScores | Site::Pattern) { 2 } else { 1 }
    }

    /// The axis of the heads, if there is one.
    pub const fn head_axis(self) -> Option<i64> {
        match self {
            Site::Q | Site::K | Site::V | Site::RotQ | Site::RotK | Site::Z => Some(2),
            Site::AttnScores | Site::Pattern => Some(1),
            _ => None,
        }
    }

    /// This site of a block; the block of what lies outside of them is 0.
    pub const fn of(self, block: usize) -> HookPoint {
        HookPoint { block, site: self }
    }
}

impl HookPoint {
    /// The site of TransformerLens' name, such as `blocks.3.attn.hook_z` or `hook_embed`; `None` if no model has it.
    pub fn of_name(name: &str) -> Option<HookPoint> {
        let (block, bare) = match name.strip_prefix("blocks.") {
            Some(rest) => {
                let (block, bare) = rest.split_once('.')?;
                (Some(block.parse().ok()?), bare)
            }
            None => (None, name),
        };
        let site = Site::ALL.into_iter().find(|site| site.name() == bare)?;
        (site.is_in_block() == block.is_some()).then(|| site.of(block.unwrap_or(0)))
    }
}

/// TransformerLens' full name.
impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.site.is_in_block() {
            true => write!(f, "blocks.{}.{}", self.block, self.site.name()),
            false => f.write_str(self.site.name()),
        }
    }
}

/// What a forward pass does on its way.
pub trait Hooks {
    /// Whether norms and attention are written out step by step in f32, so that every site is passed. If not, only
    /// the sites in the residual stream are, and the pass takes the fastest kernels.
    const TRACES: bool;

    /// Reads an activation, and returns what the pass goes on with.
    fn at(&mut self, site: Site, block: usize, x: Tensor) -> Tensor;

    /// What [`Hooks::at`] adds to each channel of the residual stream after this block, `[d]`, for the kernels that
    /// compute one column.
    fn added(&self, _block: usize) -> Option<&Tensor> {
        None
    }
}

/// No hooks.
pub struct NoHooks;

impl Hooks for NoHooks {
    const TRACES: bool = false;

    #[inline(always)]
    fn at(&mut self, _site: Site, _block: usize, x: Tensor) -> Tensor {
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_site_is_found_by_its_name() {
        for site in Site::ALL {
            let point = site.of(if site.is_in_block() { 11 } else { 0 });
            assert_eq!(HookPoint::of_name(&point.to_string()), Some(point));
        }
        for wrong in ["blocks.1.hook_embed", "attn.hook_z", "blocks.x.attn.hook_z", "blocks.1", "blocks.1.hook_zz", ""]
        {
            assert_eq!(HookPoint::of_name(wrong), None, "{wrong}");
        }
    }
}
