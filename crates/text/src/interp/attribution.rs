//! Direct attribution: what each part of a model adds to a logit difference, a reward or a value.
//!
//! The residual stream is a sum of what embeddings, heads and MLPs write into it, and the last norm divides the sum by
//! one number per position, s. With s as it is, the number that is read is linear in the parts: a part k contributes
//! (k · u) / s. The norm's weight w belongs into the direction u = w ⊙ readout; a layer norm's subtraction of the mean
//! does, too (u minus its own mean). The norm's bias gives a constant. Nothing in the model is folded.

use super::trace::on_cpu;
use super::{InterpError, Start, Subject};
use crate::model::Site;
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// A linear reading of the last norm's output.
#[derive(Debug)]
pub struct Direction {
    /// What reads the last norm's output, `[d]`.
    readout: Tensor,
    /// What reads the residual stream before it is divided by s, `[d]`.
    u: Tensor,
    /// What the reading adds: its own bias.
    bias: f64,
    /// What does not depend on the residual stream: its own bias and what it reads of the norm's bias.
    constant: f64,
}

impl Direction {
    /// The logit of one token minus that of another.
    ///
    /// # Errors
    ///
    /// A token beyond the vocabulary, or a model whose parts do not add up to its logits.
    pub fn logit_difference(subject: &Subject, better: u32, worse: u32) -> Result<Direction, InterpError> {
        let rows = subject.unembedding_of(&[better, worse])?;
        Direction::linear(subject, &(rows.get(0) - rows.get(1)), 0.0)
    }

    /// The logit of one token minus the mean of all logits.
    ///
    /// # Errors
    ///
    /// As [`Direction::logit_difference`].
    pub fn logit(subject: &Subject, token: u32) -> Result<Direction, InterpError> {
        let mean = subject.model().unembedding().mean_dim(0, false, Kind::Float);
        Direction::linear(subject, &(subject.unembedding_of(&[token])?.get(0) - mean), 0.0)
    }

    /// Any linear head on the last norm's output, such as a reward's or a value's: weights `[d]` and bias.
    ///
    /// # Errors
    ///
    /// Weights of another size, or a model whose parts do not add up.
    pub fn linear(subject: &Subject, weight: &Tensor, bias: f64) -> Result<Direction, InterpError> {
        let config = subject.config();
        if subject.model().norms_its_writes() || config.logit_cap.is_some() {
            return Err(InterpError::NotAdditive(config.family.label()));
        }
        if weight.size() != [config.width as i64] {
            return Err(InterpError::Models(format!(
                "the head reads {:?} numbers and hidden states have {}",
                weight.size(),
                config.width
            )));
        }
        Ok(tch::no_grad(|| {
            let readout = weight.detach().to_kind(Kind::Float).to_device(subject.device());
            let (factor, norm_bias) = subject.model().last_norm_parameters();
            let mut u = &factor * &readout;
            let mut constant = bias;
            if let Some(norm_bias) = norm_bias {
                u = &u - u.mean(Kind::Float);
                constant += norm_bias.dot(&readout).double_value(&[]);
            }
            Direction { readout, u, bias, constant }
        }))
    }
}

/// Contributions of the parts to a reading, at every position of one prompt. L blocks, H heads, T positions.
#[derive(Debug)]
pub struct Attribution {
    /// Of the token embeddings, `[T]`.
    pub embed: Tensor,
    /// Of learnt position embeddings, `[T]`.
    pub pos_embed: Option<Tensor>,
    /// Of each head, without adapters of the output projection, `[L, H, T]`.
    pub heads: Tensor,
    /// Of the output projections' biases, `[L, T]`.
    pub attn_bias: Tensor,
    /// Of the output projections' adapters, `[L, T]`.
    pub attn_adapter: Tensor,
    /// Of each MLP, without adapters of its output layer, `[L, T]`.
    pub mlp: Tensor,
    /// Of the adapters of the MLPs' output layers, `[L, T]`.
    pub mlp_adapter: Tensor,
    /// What does not depend on the residual stream.
    pub constant: f64,
    /// The number itself, `[T]`: the sum of all contributions and the constant.
    pub total: Tensor,
    /// What the last norm divides by, `[T]`.
    pub scale: Tensor,
}

impl Attribution {
    /// The sum of all contributions and the constant, `[T]`.
    pub fn sum(&self) -> Tensor {
        let mut sum = &self.embed + self.constant;
        if let Some(pos_embed) = &self.pos_embed {
            sum += pos_embed;
        }
        let over = |x: &Tensor, axes: &[i64]| x.sum_dim_intlist(axes, false, Kind::Float);
        sum + over(&self.heads, &[0, 1])
            + over(&self.attn_bias, &[0])
            + over(&self.attn_adapter, &[0])
            + over(&self.mlp, &[0])
            + over(&self.mlp_adapter, &[0])
    }

    /// The contributions at one position by their names, from the embeddings up: `embed`, `pos_embed`, `L0H0`, …,
    /// `0_attn_bias`, `0_attn_adapter`, `0_mlp`, `0_mlp_adapter`, …, `constant`.
    pub fn named(&self, position: usize) -> Vec<(String, f64)> {
        let at = |x: &Tensor, place: &[i64]| {
            let place: Vec<i64> = place.iter().copied().chain([position as i64]).collect();
            x.double_value(&place)
        };
        let mut all = vec![("embed".to_owned(), at(&self.embed, &[]))];
        all.extend(self.pos_embed.as_ref().map(|x| ("pos_embed".to_owned(), at(x, &[]))));
        let (blocks, heads) = (self.heads.size()[0], self.heads.size()[1]);
        for block in 0..blocks {
            all.extend((0..heads).map(|head| (format!("L{block}H{head}"), at(&self.heads, &[block, head]))));
            for (name, x) in [
                ("attn_bias", &self.attn_bias),
                ("attn_adapter", &self.attn_adapter),
                ("mlp", &self.mlp),
                ("mlp_adapter", &self.mlp_adapter),
            ] {
                all.push((format!("{block}_{name}"), at(x, &[block])));
            }
        }
        all.push(("constant".to_owned(), self.constant));
        all
    }
}

/// Attributes a reading to the parts of the model, for one prompt `[1, T]`.
///
/// # Errors
///
/// Tokens that cannot be read.
pub fn attribution(subject: &Subject, tokens: &Tensor, direction: &Direction) -> Result<Attribution, InterpError> {
    let has_positions = subject.has(Site::PosEmbed.of(0));
    let mut wanted: BTreeSet<_> = [Site::Embed.of(0), Site::LnFinalScale.of(0)].into();
    wanted.extend(has_positions.then(|| Site::PosEmbed.of(0)));
    for site in [Site::Z, Site::MlpPost, Site::MlpOut] {
        wanted.extend(subject.in_every_block(site));
    }
    let trace = subject.trace(Start::Tokens(tokens), &wanted, &[])?;
    tch::no_grad(|| {
        let scale = trace.get(Site::LnFinalScale, 0)?.select(0, 0).squeeze_dim(-1);
        let u = &direction.u;
        // [1, T, d] → [T].
        let of = |x: &Tensor| x.select(0, 0).matmul(u) / &scale;
        let heads = subject.config().heads as i64;
        let none = scale.zeros_like();
        let mut rows: [Vec<Tensor>; 5] = Default::default();
        for block in 0..subject.blocks() {
            let [output, down] = subject.model().writers(block);
            // [T, H, d_head].
            let z = trace.get(Site::Z, block)?.select(0, 0);
            let post = trace.get(Site::MlpPost, block)?.select(0, 0);
            // W_Oᵀ u, once for all positions: [H, d_head].
            let read = output.outputs_by_inputs().tr().matmul(u).reshape([heads, -1]);
            let of_heads = (&z * read).sum_dim_intlist(-1, false, Kind::Float) / scale.unsqueeze(-1);
            let bias = output
                .bias
                .as_ref()
                .map_or_else(|| none.shallow_clone(), |bias| bias.to_kind(Kind::Float).dot(u) / &scale);
            // What the adapter of a layer that writes adds, s B A x, is linear in its input.
            let adapter = |linear: &crate::model::Linear, x: &Tensor| {
                let lora = linear.lora.as_ref().filter(|_| subject.adapters());
                lora.map_or_else(
                    || none.shallow_clone(),
                    |lora| x.matmul(&lora.a.tr()).matmul(&lora.b.tr().matmul(u)) * lora.scale / &scale,
                )
            };
            let of_mlp_adapter = adapter(down, &post);
            let of_mlp = of(trace.get(Site::MlpOut, block)?) - &of_mlp_adapter;
            let found = [of_heads.tr(), bias, adapter(output, &z.flatten(1, 2)), of_mlp, of_mlp_adapter];
            rows.iter_mut().zip(found).for_each(|(rows, found)| rows.push(found));
        }
        let [heads, attn_bias, attn_adapter, mlp, mlp_adapter] = rows.map(|rows| on_cpu(&Tensor::stack(&rows, 0)));
        let pos_embed = has_positions.then(|| trace.get(Site::PosEmbed, 0)).transpose()?.map(|x| on_cpu(&of(x)));
        Ok(Attribution {
            embed: on_cpu(&of(trace.get(Site::Embed, 0)?)),
            pos_embed,
            heads,
            attn_bias,
            attn_adapter,
            mlp,
            mlp_adapter,
            constant: direction.constant,
            total: on_cpu(&(trace.normed.select(0, 0).matmul(&direction.readout) + direction.bias)),
            scale: on_cpu(&scale),
        })
    })
}
