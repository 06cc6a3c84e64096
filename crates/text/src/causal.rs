//! The transformer as the [`LanguageModel`] that is trained.

use super::generate::{Sampling, generate};
use super::hidden::Hidden;
use super::language_model::{Draw, Drawn, LanguageModel};
use super::model::Transformer;
use tch::{Device, Tensor};

impl LanguageModel for Transformer {
    fn hidden(&self, ids: &Tensor, mask: &Tensor, from: i64, adapters: bool) -> Tensor {
        self.hidden_from(ids, mask, from, None, adapters)
    }

    fn hidden_to_learn(&self, ids: &Tensor, mask: &Tensor, from: i64, dropout: Option<u64>) -> Hidden<'_> {
        Transformer::hidden_to_learn(self, ids, mask, from, dropout)
    }

    fn logits(&self, hidden: &Tensor) -> Tensor {
        Transformer::logits(self, hidden)
    }

    fn width(&self) -> usize {
        self.config().width
    }

    fn trainable(&self) -> Vec<(String, Tensor)> {
        Transformer::trainable(self)
    }

    fn device(&self) -> Device {
        Transformer::device(self)
    }

    fn complete(&self, prompts: &[&[u32]], draw: &Draw, on_token: &mut dyn FnMut() -> bool) -> Vec<Drawn> {
        let sampling = Sampling {
            temperature: draw.temperature,
            max_new_tokens: draw.max_new_tokens,
            stop: draw.stop.clone(),
            seed: draw.seed,
            ..Sampling::default()
        };
        generate(self, prompts, &sampling, true, &mut |_, _| on_token())
            .into_iter()
            .map(|completion| Drawn { tokens: completion.tokens, stopped: completion.stopped })
            .collect()
    }
}
