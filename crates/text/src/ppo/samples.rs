//! From scores to what a gradient step learns from: rewards of tokens, then advantages and returns.

use super::super::advantage::{is_equal, of_group, returns_to_go};
use super::super::rollout::RolloutMeans;
use super::*;
use flipside_learn::{Trajectories, gae, kl_estimate, whiten};

/// An episode with its advantages and returns, as training needs it.
pub(super) struct Sample<'a> {
    pub episode: &'a Episode,
    /// One for each token.
    pub advantages: Vec<f32>,
    /// What the critic learns, one for each token; empty without a critic.
    pub returns: Vec<f32>,
    /// Whether the episode has a score. Without one its advantages are 0, and the critic learns nothing from it.
    pub has_score: bool,
    /// Whether it is in the loss. One that was cut may be left out.
    pub is_in_loss: bool,
}

impl<M: LanguageModel> TextPpo<M> {
    /// Whether a completion was cut before it ended.
    fn is_cut(&self, episode: &Episode) -> bool {
        !self.stop.is_empty() && !episode.stopped
    }

    /// What is subtracted from the score of an episode: for a missing end, and for a completion that is too long.
    fn price(&self, episode: &Episode) -> f32 {
        let TextPpoSettings { missing_eos_penalty, overlong_share, overlong_penalty, max_new_tokens, .. } =
            self.settings;
        let missing = if self.is_cut(episode) { missing_eos_penalty } else { 0.0 };
        // 0 up to M − c tokens, then linear to the penalty at M (Yu et al. 2025, equation 13).
        let margin = overlong_share * max_new_tokens as f64;
        let over = episode.completion.len() as f64 - (max_new_tokens as f64 - margin);
        let overlong = if margin > 0.0 && over > 0.0 { overlong_penalty * (over / margin).min(1.0) } else { 0.0 };
        (missing + overlong) as f32
    }

    /// The scores of episodes with what is subtracted from them.
    pub(super) fn priced(&self, episodes: &[Episode], scores: &[Option<f32>]) -> Vec<Option<f64>> {
        let priced = |(e, score): (&Episode, &Option<f32>)| score.map(|score| f64::from(score - self.price(e)));
        episodes.iter().zip(scores).map(priced).collect()
    }

    /// Whether the episodes of a group are worth the same, so that nothing is learned from them. Where scores are
    /// scaled before something is subtracted from them, both must be equal.
    pub(super) fn are_equal(&self, episodes: &[Episode], scores: &[Option<f32>]) -> bool {
        let bare = |&score: &Option<f32>| score.map(f64::from);
        let alike = || is_equal(&scores.iter().map(bare).collect::<Vec<_>>());
        is_equal(&self.priced(episodes, scores)) && (!self.settings.scale_scores || alike())
    }

    /// −β times the estimated KL of each token, if the penalty is in the reward. The last token also gets the score and
    /// what is subtracted from it.
    pub(super) fn token_rewards(&mut self, episodes: &[Episode], scores: &[Option<f32>]) -> Vec<Vec<f32>> {
        let scores = match self.settings.scale_scores {
            true => {
                let known: Vec<f32> = scores.iter().flatten().copied().collect();
                self.state.scores.absorb(&known, |_| true, known.len());
                let mut scaled = self.state.scores.scale(&known).into_iter();
                scores.iter().map(|score| score.and_then(|_| scaled.next())).collect()
            }
            false => scores.to_vec(),
        };
        let in_reward = self.settings.kl.place == KlPlace::Reward;
        let (beta, estimator) = (if in_reward { self.beta() } else { 0.0 }, self.settings.kl.estimator);
        let mut rewards: Vec<Vec<f32>> = Vec::with_capacity(episodes.len());
        for (episode, score) in episodes.iter().zip(scores) {
            let price = |log_ratio: f32| match in_reward {
                true => (-beta * kl_estimate(estimator, f64::from(log_ratio))) as f32,
                false => 0.0,
            };
            let mut of_tokens: Vec<f32> = episode.log_ratios().map(price).collect();
            if let (Some(last), Some(score)) = (of_tokens.last_mut(), score) {
                *last += score - self.price(episode);
            }
            rewards.push(of_tokens);
        }
        if self.settings.whiten_rewards && !self.settings.advantage.is_of_completions() {
            let mut whitened = whiten(&rewards.concat(), false).into_iter();
            rewards.iter_mut().flatten().zip(&mut whitened).for_each(|(reward, white)| *reward = white);
        }
        rewards
    }

    /// Advantages and returns. A completion is an episode that terminates with its last token.
    pub(super) fn samples<'a>(
        &self,
        episodes: &'a [Episode],
        rewards: &[Vec<f32>],
        scores: &[Option<f32>],
    ) -> Vec<Sample<'a>> {
        let advantage = self.settings.advantage;
        let found: Vec<[Vec<f32>; 2]> = match advantage {
            TextAdvantage::Gae => episodes.iter().zip(rewards).map(|(e, rewards)| self.estimated(e, rewards)).collect(),
            TextAdvantage::Batch => {
                rewards.iter().map(|rewards| [returns_to_go(rewards, self.settings.gamma), Vec::new()]).collect()
            }
            _ => self.of_completions(rewards, scores),
        };
        let mut samples: Vec<Sample> = (episodes.iter().zip(found).zip(scores))
            .map(|((episode, [advantages, returns]), score)| Sample {
                episode,
                advantages,
                returns,
                has_score: score.is_some(),
                is_in_loss: !(self.settings.drop_cut && self.is_cut(episode)),
            })
            .collect();
        if matches!(advantage, TextAdvantage::Gae | TextAdvantage::Batch | TextAdvantage::BatchBaseline) {
            let scored = || samples.iter().filter(|sample| sample.has_score);
            let all: Vec<f32> = scored().flat_map(|l| l.advantages.iter().copied()).collect();
            let mut white = whiten(&all, true).into_iter();
            let scored = samples.iter_mut().filter(|sample| sample.has_score);
            scored.flat_map(|l| &mut l.advantages).zip(&mut white).for_each(|(a, white)| *a = white);
        }
        samples.iter_mut().filter(|sample| !sample.has_score).for_each(|sample| sample.advantages.fill(0.0));
        samples
    }

    /// Advantages and returns of an episode by GAE.
    fn estimated(&self, episode: &Episode, rewards: &[f32]) -> [Vec<f32>; 2] {
        let (gamma, lambda) = (self.settings.gamma as f32, self.settings.gae_lambda as f32);
        let n = rewards.len();
        let ends: Vec<bool> = (1..=n).map(|t| t == n).collect();
        let found = gae(
            Trajectories {
                rewards,
                values: &episode.values,
                terminated: &ends,
                truncated: &vec![false; n],
                final_values: &vec![0.0; n],
                last_values: &[0.0],
            },
            gamma,
            lambda,
        );
        [found.advantages, found.returns]
    }

    /// The advantages of whole completions beside the others of their group. The reward of a completion is the sum of
    /// its tokens' rewards, so that a KL penalty in the reward is inside the baseline.
    fn of_completions(&self, rewards: &[Vec<f32>], scores: &[Option<f32>]) -> Vec<[Vec<f32>; 2]> {
        let sum = |rewards: &Vec<f32>| rewards.iter().map(|&reward| f64::from(reward)).sum::<f64>();
        let mut sums: Vec<Option<f64>> = rewards.iter().zip(scores).map(|(r, score)| score.map(|_| sum(r))).collect();
        if self.settings.whiten_rewards {
            let known: Vec<f32> = sums.iter().flatten().map(|&sum| sum as f32).collect();
            let white = whiten(&known, false);
            sums.iter_mut().flatten().zip(white).for_each(|(sum, white)| *sum = f64::from(white));
        }
        let groups = sums.chunks(self.settings.group_size);
        let advantages = groups.flat_map(|group| of_group(self.settings.advantage, group));
        advantages.zip(rewards).map(|(a, rewards)| [vec![a as f32; rewards.len()], Vec::new()]).collect()
    }

    /// The statistics of episodes that are known before learning.
    pub(super) fn summary(&self, episodes: &[Episode], scores: &[Option<f32>]) -> TextPpoStats {
        let size = self.settings.group_size;
        let equal = |i: &usize| self.are_equal(&episodes[*i..*i + size], &scores[*i..*i + size]);
        let equal_groups = match size {
            1 => 0,
            size => (0..episodes.len() / size).map(|group| group * size).filter(equal).count(),
        };
        let RolloutMeans { reward, kl, entropy, length, stopped } = RolloutMeans::of(episodes, scores);
        TextPpoStats {
            reward,
            kl,
            entropy,
            length,
            stopped,
            equal_groups: (equal_groups * size) as f64 / episodes.len() as f64,
            rounds: 1,
            ..TextPpoStats::default()
        }
    }
}
