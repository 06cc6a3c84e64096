//! Reward functions: what gives a completion its score. A reward model, an ensemble of reward models, a rule or a
//! program of one's own; several are added up with weights. A completion may have no score.
//!
//! This module computes; the caller reads models and runs programs.

mod best_of;
mod ensemble;
mod rules;

use super::heads::ScalarHead;
use super::language_model::LanguageModel;
use super::progress::{Progress, ProgressFn, check_cancelled};
use super::rows::{Example, Rows, up_to_last_token};
use flipside_learn::{LearnError, numbers};
use std::str::FromStr;

pub use best_of::{accepted, best_of, best_of_n, best_of_n_kl_bound, best_of_n_shares};
pub use ensemble::{Combination, Normaliser};
pub use rules::{Answer, Rule};

/// A reward function with its weight, as it is typed: `[WEIGHT*]KIND:ARGUMENT`.
///
/// | typed | score |
/// |---|---|
/// | `model:DIR` | of the reward model in this folder |
/// | `mean:DIR,DIR,…` | mean of several reward models, each normalised |
/// | `minimum:DIR,DIR,…` | the lowest of them |
/// | `mean-LAMBDA*variance:DIR,DIR,…` | mean minus λ times their variance |
/// | `regex:PATTERN` | 1 if the pattern is found in the completion, else 0 |
/// | `number`, `number:MARK` | 1 if the completion's number is that of the answer in the data, else 0 |
/// | `length:LOW..HIGH` | 1 if the completion has from LOW to HIGH tokens, else 0 |
/// | `program:COMMAND` | what the program answers |
#[derive(Clone, Debug)]
pub struct RewardFunction {
    /// What the score is multiplied by.
    pub weight: f64,
    /// What scores.
    pub kind: RewardKind,
}

/// The kinds of reward functions.
#[derive(Clone, Debug)]
pub enum RewardKind {
    /// One reward model, by its folder.
    Model(String),
    /// Several reward models, by their folders.
    Ensemble(Combination, Vec<String>),
    /// A rule.
    Rule(Rule),
    /// A command that reads completions as JSON lines and answers each with a line: a number, or null for no score.
    Program(String),
}

impl FromStr for RewardFunction {
    type Err = String;

    fn from_str(text: &str) -> Result<RewardFunction, String> {
        let (weight, rest) = match text.split_once('*') {
            Some((weight, rest)) if weight.trim().parse::<f64>().is_ok_and(f64::is_finite) => {
                (weight.trim().parse().unwrap_or(1.0), rest.trim_start())
            }
            _ => (1.0, text),
        };
        let (kind, argument) = rest.split_once(':').map_or((rest, None), |(kind, argument)| (kind, Some(argument)));
        let needed = |what: &str| {
            let argument = argument.filter(|argument| !argument.is_empty());
            argument.ok_or_else(|| format!("the reward function `{text}` lacks {what}: write {kind}:{what}"))
        };
        let folders = || -> Result<Vec<String>, String> {
            let folders: Vec<String> = needed("DIR,DIR")?.split(',').map(|folder| folder.trim().to_owned()).collect();
            match folders.iter().any(String::is_empty) || folders.len() < 2 {
                true => Err(format!("the reward function `{text}` needs two folders or more, with commas between")),
                false => Ok(folders),
            }
        };
        let lambda = kind.strip_prefix("mean-").and_then(|rest| rest.strip_suffix("*variance"));
        let kind = match (kind, lambda) {
            ("model", _) => RewardKind::Model(needed("DIR")?.to_owned()),
            ("mean", _) => RewardKind::Ensemble(Combination::Mean, folders()?),
            ("minimum", _) => RewardKind::Ensemble(Combination::Minimum, folders()?),
            (_, Some(lambda)) => {
                let lambda = lambda.parse().ok().filter(|lambda: &f64| lambda.is_finite() && *lambda >= 0.0);
                let lambda = lambda.ok_or_else(|| format!("`{text}` needs a number of at least 0 before *variance"))?;
                RewardKind::Ensemble(Combination::MeanLessVariance(lambda), folders()?)
            }
            ("regex", _) => RewardKind::Rule(Rule::pattern(needed("PATTERN")?)?),
            ("number", _) => RewardKind::Rule(Rule::Number { mark: argument.unwrap_or_default().to_owned() }),
            ("length", _) => RewardKind::Rule(Rule::length(needed("LOW..HIGH")?)?),
            ("program", _) => RewardKind::Program(needed("COMMAND")?.to_owned()),
            _ => {
                return Err(format!(
                    "`{text}` is no reward function; expected model:DIR, mean:DIR,DIR, minimum:DIR,DIR, \
                     mean-LAMBDA*variance:DIR,DIR, regex:PATTERN, number, length:LOW..HIGH or program:COMMAND"
                ));
            }
        };
        Ok(RewardFunction { weight, kind })
    }
}

/// The sum of weighted scores. What has no score is left out of the sum; a completion without any has none. A sum that
/// is not finite counts as none.
pub fn weighted_sum(terms: &[(f64, Vec<Option<f32>>)]) -> Vec<Option<f32>> {
    let count = terms.first().map_or(0, |(_, scores)| scores.len());
    let sum = |i: usize| {
        let known = terms.iter().filter_map(|(weight, scores)| Some(weight * f64::from(scores[i]?)));
        known.reduce(|sum, score| sum + score).map(|sum| sum as f32).filter(|sum| sum.is_finite())
    };
    (0..count).map(sum).collect()
}

/// A reward model that is only read. It holds no optimiser.
pub struct FittedReward<M> {
    model: M,
    head: ScalarHead,
    bias: f64,
}

impl<M: LanguageModel> FittedReward<M> {
    /// The model with its head; the reward is the head's number plus `bias`.
    pub fn new(model: M, head: ScalarHead, bias: f64) -> FittedReward<M> {
        FittedReward { model, head, bias }
    }

    /// The rewards of completions, computed in batches of `batch` rows. `on_progress` is called before every batch and
    /// may cancel.
    pub fn rewards(&self, examples: &[Example], batch: usize, on_progress: ProgressFn) -> Result<Vec<f32>, LearnError> {
        let parts = examples.chunks(batch.max(1));
        let (of, mut rewards) = (parts.len(), Vec::with_capacity(examples.len()));
        for (done, part) in parts.enumerate() {
            check_cancelled(on_progress, Progress::Scoring { done, of })?;
            let rows: Vec<_> = part.iter().map(|e| up_to_last_token(e.parts(), self.model.score_pad())).collect();
            let rows = Rows::new(&rows, self.model.device());
            let raw = tch::no_grad(|| numbers(&self.head.forward(&rows.at_last(&rows.hidden(&self.model, true)))));
            rewards.extend(raw.into_iter().map(|x| (f64::from(x) + self.bias) as f32));
        }
        Ok(rewards)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tiny::Tiny;
    use super::super::{Progress, TextReward};
    use super::*;
    use flipside_core::Seed;
    use flipside_core::settings::TextRewardSettings;

    #[test]
    fn reward_functions_are_typed_in_a_word() {
        let of = |text: &str| text.parse::<RewardFunction>().unwrap_or_else(|why| panic!("{text}: {why}"));
        let weight = |text: &str| of(text).weight;
        assert_eq!((weight("model:a/b"), weight("0.5*length:3..9"), weight("-2 * regex:a*b")), (1.0, 0.5, -2.0));
        assert!(matches!(of("regex:a*b").kind, RewardKind::Rule(Rule::Pattern(_))));
        assert!(matches!(of("program:python3 score.py --x=1:2").kind, RewardKind::Program(c) if c.ends_with("1:2")));
        let RewardKind::Ensemble(combination, folders) = of("2*mean-0.1*variance:a,b,c").kind else { panic!() };
        assert_eq!((combination, folders.len()), (Combination::MeanLessVariance(0.1), 3));
        for (text, words) in [
            ("model", "lacks DIR"),
            ("mean:a", "two folders"),
            ("mean-x*variance:a,b", "before *variance"),
            ("regex:(", "regex"),
            ("length:9..3", "LOW..HIGH"),
            ("judge:me", "is no reward function"),
        ] {
            let said = text.parse::<RewardFunction>().unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_has_no_score_is_left_out_of_the_sum() {
        let terms = [(2.0, vec![Some(1.0), None, None, Some(3e38)]), (-1.0, vec![Some(0.5), Some(4.0), None, None])];
        assert_eq!(weighted_sum(&terms), [Some(1.5), Some(-4.0), None, None]);
        assert!(weighted_sum(&[]).is_empty());
    }

    #[test]
    fn a_fitted_reward_is_that_of_its_trainer() {
        let head = || ScalarHead::random(16, tch::Device::Cpu, &mut Seed(2).stream("head"));
        let settings = TextRewardSettings::default();
        let mut reward = TextReward::with_head(Tiny::new(8, 16, 1), head(), &settings, Seed(1)).unwrap();
        reward.set_gain_and_bias([1.0, 0.25]);
        let fitted = FittedReward::new(Tiny::new(8, 16, 1), head(), 0.25);
        let example = |n: u32| Example { prompt: vec![1, 2], completion: (0..n).map(|i| i % 8).collect() };
        let examples: Vec<Example> = (0..7).map(example).collect();
        let mut go_on = |_: Progress| false;
        let (a, b) = (reward.rewards(&examples, &mut go_on), fitted.rewards(&examples, 3, &mut go_on));
        assert!(a.unwrap().iter().zip(b.unwrap()).all(|(a, b)| (a - b).abs() < 1e-5));
        assert!(matches!(fitted.rewards(&examples, 3, &mut |_| true), Err(LearnError::Cancelled)));
    }
}
