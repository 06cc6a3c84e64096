//! The KL of a policy to its reference, from whole distributions.

use super::ilql::{IlqlHeads, scores_by_values};
use super::language_model::LanguageModel;
use super::rows::{Example, Rows};
use flipside_learn::numbers;
use tch::{Kind, Tensor};

/// KL(policy ‖ reference) along each completion, nats: the sum over its tokens of the KL between the two distributions
/// of the token. Its mean over completions that the policy has written at temperature 1 estimates the KL of whole
/// completions without bias, by the chain rule, and varies less than the mean of log π − log π_ref. With `values`, the
/// policy writes by log π + β (Q − V), with these heads of ILQL and this β. `batch` completions are computed at a time.
pub fn completion_kls<M: LanguageModel>(
    policy: &M,
    values: Option<(&IlqlHeads, f64)>,
    reference: &M,
    completions: &[Example],
    batch: usize,
) -> Vec<f64> {
    let mut all = Vec::with_capacity(completions.len());
    for part in completions.chunks(batch.max(1)) {
        let rows: Vec<(&[u32], &[u32])> = part.iter().map(Example::parts).collect();
        if rows.iter().all(|(_, completion)| completion.is_empty()) {
            all.extend(rows.iter().map(|_| 0.0));
            continue;
        }
        let rows = Rows::new(&rows, policy.device());
        let of_rows = tch::no_grad(|| {
            let before = rows.before_tokens(&rows.hidden(policy, true));
            let ours = match values {
                Some((heads, beta)) => scores_by_values(policy, heads, beta, &before).log_softmax(-1, Kind::Float),
                None => rows.log_softmax(policy, &before, 1.0),
            };
            let theirs = rows.log_softmax(reference, &rows.before_tokens(&rows.hidden(reference, true)), 1.0);
            let of_tokens: Tensor = (ours.exp() * (&ours - theirs)).sum_dim_intlist(-1, false, Kind::Float);
            (of_tokens * &rows.real).sum_dim_intlist(-1, false, Kind::Float)
        });
        all.extend(numbers(&of_rows).into_iter().map(f64::from));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::tiny::Tiny;
    use super::*;
    use flipside_core::Seed;
    use tch::Device;

    /// All completions of three tokens, by six tokens.
    fn enumerated() -> Vec<Example> {
        let completion = |i: u32| vec![i % 6, i / 6 % 6, i / 36];
        (0..216).map(|i| Example { prompt: vec![3, 1], completion: completion(i) }).collect()
    }

    /// log-probabilities of whole completions, by the scores of each token.
    fn log_probs(model: &Tiny, values: Option<(&IlqlHeads, f64)>) -> Vec<f64> {
        let of_one = |example: &Example| -> f64 {
            let rows = Rows::new(&[(&example.prompt[..], &example.completion[..])], Device::Cpu);
            let before = rows.before_tokens(&rows.hidden(model, true));
            let mut scores = model.logits(&before);
            if let Some((heads, beta)) = values {
                scores += (heads.slow_q(&before) - heads.v(&before).unsqueeze(-1)) * beta;
            }
            rows.chosen(&scores.log_softmax(-1, Kind::Double)).sum(Kind::Double).double_value(&[])
        };
        enumerated().iter().map(of_one).collect()
    }

    #[test]
    fn its_mean_is_the_kl_of_whole_completions() {
        let (policy, reference) = (Tiny::new(6, 16, 1), Tiny::new(6, 16, 2));
        let heads = IlqlHeads::random(16, 6, Device::Cpu, &mut Seed(4).stream("heads"));
        let theirs = log_probs(&reference, None);
        for values in [None, Some((&heads, 3.0))] {
            let ours = log_probs(&policy, values);
            let expected: f64 = ours.iter().zip(&theirs).map(|(p, r)| p.exp() * (p - r)).sum();
            let found = completion_kls(&policy, values, &reference, &enumerated(), 50);
            let mean: f64 = ours.iter().zip(&found).map(|(p, kl)| p.exp() * kl).sum();
            assert!(expected > 0.05 && (mean - expected).abs() < 1e-4, "{mean} {expected}");
        }
        let to_itself = completion_kls(&policy, None, &policy, &enumerated(), 216);
        assert!(to_itself.iter().all(|kl| kl.abs() < 1e-6));
        let nothing = Example { prompt: vec![1], completion: vec![] };
        assert_eq!(completion_kls(&policy, None, &reference, &[nothing], 4), [0.0]);
    }
}
