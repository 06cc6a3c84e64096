//! Settings of queries, the reward model, exploration and the monitor. Where a comment does not say otherwise, the
//! defaults are those of Christiano et al. (2017), "Deep reinforcement learning from human preferences".

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How clips are cut, which pairs are asked about, and how fast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LabelSettings {
    /// Length of a clip in simulated seconds. A clip always has 25 to 200 env steps.
    pub clip_seconds: f64,
    /// Length of a training episode in simulated seconds. An episode has at least the length of two clips and at least
    /// 250 env steps, where the task's horizon allows it.
    pub episode_seconds: f64,
    /// Worlds of the batch that clips are cut from, 1 or more. Each clip that is being recorded costs one copy of the
    /// poses per env step.
    pub recorded_worlds: usize,
    /// Number of clips in the pool that pairs are chosen from, 32 or more. They are the most recent ones, so that
    /// labels are about what the policy does now.
    pub pool: usize,
    /// Candidate pairs drawn for each pair that is asked about, 1 or more.
    pub candidates: usize,
    /// Share of the candidate pairs that is discarded because their two clips are the most similar, 0 to 1.
    #[serde(alias = "alike_share")]
    #[schemars(extend("aliases" = ["alike_share"]))]
    pub drop_similar_share: f64,
    /// Share of the queries that repeat an answered pair with left and right swapped, 0 to 1. They measure the
    /// teacher's consistency.
    pub repeat_share: f64,
    /// Share of the queries that compare a recent clip with one that was judged earlier, 0 to 1. Clips from the same
    /// time are similar. Comparing only those leaves open how the present behaviour compares with the earlier one.
    #[serde(alias = "past_share")]
    #[schemars(extend("aliases" = ["past_share"]))]
    pub past_clip_share: f64,
    /// How pairs are chosen, except those that are chosen at random (`labels.random_share`).
    pub choice: PairChoice,
    /// Share of the pairs that is chosen at random, 0 to 1. Choosing by disagreement alone sometimes hurts, because it
    /// favours odd clips.
    pub random_share: f64,
    /// Share of the planned labels (`num_labels`) that is asked for on the untrained policy, 0 to 1.
    #[serde(alias = "untrained_share")]
    #[schemars(extend("aliases" = ["untrained_share"]))]
    pub initial_share: f64,
    /// T₀ of the label rate ∝ 1/(T + T₀), as a share of the planned env steps. A smaller value asks earlier. (The
    /// paper's T₀ was 2e6 steps in runs of about 2e7, which is 0.1. With 100 labels, 1 measured better on most tasks
    /// with one seed, since labels have to cover what the policy does late.)
    pub anneal: f64,
    /// Share of the planned env steps by which all planned labels are asked for. The policy could no longer learn from
    /// a label at the very end.
    #[serde(alias = "spent_by")]
    #[schemars(extend("aliases" = ["spent_by"]))]
    pub schedule_end: f64,
    /// How far training may run ahead of the answers, as a share of the planned labels (`num_labels`), 0 to 1. Training
    /// waits while more labels than this are due but not yet given. A policy that learns for long from only the first
    /// few answers exploits them. 1 never waits.
    #[serde(alias = "lead")]
    #[schemars(extend("aliases" = ["lead"]))]
    pub max_lead: f64,
    /// Whether policy checkpoints are saved on the way and the run ends with the best of them. The best is the one with
    /// the highest mean reward under the reward model as it is at that moment. With `explore.policy_resets`, the last
    /// policy does not start from scratch but continues from the best of those before it.
    #[serde(alias = "keeps_best")]
    #[schemars(extend("aliases" = ["keeps_best"]))]
    pub select_best_policy: bool,
}

impl Default for LabelSettings {
    fn default() -> Self {
        LabelSettings {
            clip_seconds: 1.5,
            episode_seconds: 0.0,
            recorded_worlds: 16,
            pool: 100,
            candidates: 10,
            drop_similar_share: 0.0,
            repeat_share: 0.04,
            past_clip_share: 0.0,
            choice: PairChoice::default(),
            random_share: 0.3,
            initial_share: 0.25,
            anneal: 1.0,
            schedule_end: 0.9,
            max_lead: 1.0,
            select_best_policy: false,
        }
    }
}

impl LabelSettings {
    /// Fewest env steps of a clip. In a shorter clip a person sees a jerk, not a movement.
    pub const FEWEST_STEPS: usize = 25;
    /// Most env steps of a clip. This bounds memory and the reward model's work.
    pub const MOST_STEPS: usize = 200;

    /// Fewest clips in the pool. Queries begin when it holds this many, which show the full range of what the policy
    /// does.
    pub const FEWEST_CLIPS: usize = 32;

    /// Fewest env steps of a training episode, where the task's own horizon allows it.
    pub const FEWEST_EPISODE_STEPS: usize = 250;

    /// Checks that the settings can work.
    ///
    /// # Errors
    /// A sentence that names the setting, what is expected, and what it is.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("pool", self.pool, Self::FEWEST_CLIPS),
            ("candidates", self.candidates, 1),
            ("recorded_worlds", self.recorded_worlds, 1),
        ];
        if let Some((name, is, fewest)) = counts.into_iter().find(|(_, is, fewest)| is < fewest) {
            return Err(format!("expected `labels.{name}` of {fewest} or more, not {is}"));
        }
        let shares = [
            ("drop_similar_share", self.drop_similar_share),
            ("repeat_share", self.repeat_share),
            ("past_clip_share", self.past_clip_share),
            ("random_share", self.random_share),
            ("initial_share", self.initial_share),
            ("schedule_end", self.schedule_end),
            ("max_lead", self.max_lead),
        ];
        if let Some((name, is)) = shares.into_iter().find(|(_, is)| !(0.0..=1.0).contains(is)) {
            return Err(format!("expected `labels.{name}` from 0 to 1, not {is}"));
        }
        let lengths = [("clip_seconds", self.clip_seconds), ("episode_seconds", self.episode_seconds)];
        if let Some((name, is)) = lengths.into_iter().find(|(_, is)| !(is.is_finite() && *is >= 0.0)) {
            return Err(format!("expected `labels.{name}` of 0 or more seconds, not {is}"));
        }
        match self.anneal.is_finite() && self.anneal >= 0.0 {
            true => Ok(()),
            false => Err(format!("expected `labels.anneal` of 0 or more, not {}", self.anneal)),
        }
    }

    /// Env steps of a training episode if one env step takes `dt` simulated seconds:
    /// [`LabelSettings::episode_seconds`], but at least two clips and at least [`LabelSettings::FEWEST_EPISODE_STEPS`].
    pub fn episode_steps(&self, dt: f64) -> usize {
        let asked = (self.episode_seconds / dt).round() as usize;
        asked.max(2 * self.clip_steps(dt)).max(Self::FEWEST_EPISODE_STEPS)
    }

    /// Env steps of a clip if one env step takes `dt` simulated seconds: [`LabelSettings::clip_seconds`] in env steps,
    /// clamped to [`LabelSettings::FEWEST_STEPS`] and [`LabelSettings::MOST_STEPS`].
    pub fn clip_steps(&self, dt: f64) -> usize {
        // A float too large for usize saturates and NaN becomes 0, so the clamp below covers invalid numbers, too.
        ((self.clip_seconds / dt).round() as usize).clamp(Self::FEWEST_STEPS, Self::MOST_STEPS)
    }
}

/// The kinds of reward model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RewardModelKind {
    /// A Gaussian process that learns from the answers how relevant each input is (Chu and Ghahramani 2005). Its
    /// results are in docs/benchmarks/preferences.md.
    #[default]
    GaussianProcess,
    /// An ensemble of small neural networks (Christiano et al. 2017).
    Networks,
}

/// The criteria by which pairs are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PairChoice {
    /// The variance between members of the probability that left is preferred (Christiano et al. 2017).
    #[default]
    Disagreement,
    /// Predictive entropy: the entropy of the members' mean probability of an answer. It chooses pairs whose answer is
    /// uncertain, whether or not the members agree on that.
    Entropy,
    /// Clips that are far from those already asked about: greedy k-centre on the mean of the reward model's inputs over
    /// each clip.
    Coverage,
    /// The k-centre choice of `coverage`, among the third of the candidates that the members disagree on most.
    DisagreementCoverage,
}

/// Exploration. Before there is a learned reward, the untrained policy is paid for unusual states. Later there can be a
/// novelty bonus beside the learned reward, and the policy can be reset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExploreSettings {
    /// Env steps of exploration before the first query, over all worlds. `explore.share` limits them.
    pub env_steps: u64,
    /// Largest share of the planned env steps that exploration takes, 0 to 1. 0 turns exploration off. It is off
    /// because nobody has measured yet on which tasks it helps.
    pub share: f64,
    /// Weight of the novelty bonus once there is a learned reward: the amount that is added for a state that is one
    /// standard deviation more unusual than average. The learned reward has a standard deviation of 1. Without a bonus,
    /// a policy whose judgements were of little but bad movements stays still for good. The weight falls linearly to 0
    /// at `explore.bonus_until`.
    pub bonus: f64,
    /// Share of the planned env steps at which `explore.bonus` has fallen to 0.
    pub bonus_until: f64,
    /// How often the policy is reset and starts from scratch; the reward model is kept. (With
    /// `labels.select_best_policy`, the last policy continues from the best one instead.) A policy that has settled
    /// into a poor habit before its reward was good seldom leaves it (Nikishin et al. 2022, "The primacy bias"). A
    /// policy that starts with a good reward makes progress within seconds. Each policy also behaves differently on its
    /// way, which gives other pairs to ask about.
    #[serde(alias = "fresh_starts")]
    #[schemars(extend("aliases" = ["fresh_starts"]))]
    pub policy_resets: u32,
    /// Share of the planned env steps at which the last policy starts. The policies before it share the time until then
    /// equally.
    #[serde(alias = "fresh_until")]
    #[schemars(extend("aliases" = ["fresh_until"]))]
    pub last_reset: f64,
    /// Number of stored states that new states are compared with to find unusual ones. They are a sample of recent
    /// rollouts.
    pub memory: usize,
    /// k of the state-entropy bonus: a state is paid for the distance to its k-th nearest stored neighbour. PEBBLE uses
    /// the fifth.
    pub neighbour: usize,
}

impl Default for ExploreSettings {
    fn default() -> Self {
        ExploreSettings {
            env_steps: 200_000,
            share: 0.0,
            bonus: 0.0,
            bonus_until: 0.4,
            policy_resets: 0,
            last_reset: 0.5,
            memory: 1024,
            neighbour: 5,
        }
    }
}

impl ExploreSettings {
    /// Env steps of exploration in a run of `planned` env steps.
    pub fn steps_of(&self, planned: u64) -> u64 {
        self.env_steps.min((self.share.clamp(0.0, 1.0) * planned as f64) as u64)
    }

    /// The range of env steps over which the policy learns that is active after `env_steps` of `planned`.
    pub fn policy_at(&self, env_steps: u64, planned: u64) -> Range<u64> {
        let until = self.last_reset.clamp(0.0, 1.0) * planned as f64;
        // The env step at which the n-th policy starts; policy 0 starts at 0.
        let begins = |n: u32| (until * f64::from(n) / f64::from(self.policy_resets.max(1))) as u64;
        let nth = (0..=self.policy_resets).rev().find(|&n| begins(n) <= env_steps).unwrap_or(0);
        begins(nth)..if nth < self.policy_resets { begins(nth + 1) } else { planned }
    }
}

/// When the learned reward is no longer trusted. An alarm asks for more labels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorSettings {
    /// Number of latest judgements that `monitor.min_recent_agreement` is computed from; fewer than 10 count as 10.
    pub window: usize,
    /// Alarm if the reward model correctly predicted less than this share of the latest `monitor.window` judgements,
    /// before it learned from them; 0 to 1. Queries are chosen to be hard, so the default is close to a coin toss.
    #[serde(alias = "foreseen")]
    #[schemars(extend("aliases" = ["foreseen"]))]
    pub min_recent_agreement: f64,
    /// Alarm if the reward model agrees with less than this share of the held-out judgements, 0 to 1.
    #[serde(alias = "held_out")]
    #[schemars(extend("aliases" = ["held_out"]))]
    pub min_held_out_agreement: f64,
    /// Alarm if the ensemble standard deviation on what the policy does now is more than this many times that on the
    /// judged clips.
    #[serde(alias = "spread")]
    #[schemars(extend("aliases" = ["spread"]))]
    pub max_std_ratio: f64,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        MonitorSettings { window: 20, min_recent_agreement: 0.45, min_held_out_agreement: 0.6, max_std_ratio: 1.6 }
    }
}

/// The reward model and how it is fitted. A Gaussian process uses `kind`, `sees_actions`, `ignored_inputs`,
/// `error_rate`, `learn_error_rate`, `rows`, `margin` and `centre_rewards`. The other settings are for networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RewardModelSettings {
    /// The kind of reward model.
    pub kind: RewardModelKind,
    /// Networks in the ensemble. Their mean is the reward; their disagreement chooses pairs.
    pub members: usize,
    /// Units in each of the two hidden layers of a network.
    pub hidden: usize,
    /// Whether the reward may depend on the action. If it may not, a torque that no viewer can see cannot be rewarded.
    pub sees_actions: bool,
    /// Indices of observation entries, counted from 0, that the reward does not depend on. List those that judgements
    /// are not about: the reward model then cannot take them for the reason of a judgement, and fewer judgements are
    /// enough.
    #[serde(alias = "unseen")]
    #[schemars(extend("aliases" = ["unseen"]))]
    pub ignored_inputs: Vec<usize>,
    /// Factor on the products of every two (normalised) inputs, which the networks get as additional inputs. “Turning
    /// and being high” is then one number to weigh, not a shape that hidden units have to build. On made-up clips, 80
    /// judgements taught more with 0.1 than without products, and less with 1, which leaves the products to be weighed
    /// like the inputs themselves. 0 turns products off.
    pub products: f64,
    /// Probability that an answer is uniformly random, in the likelihood, 0 to 1. It limits the pull of any single
    /// label.
    pub error_rate: f64,
    /// Whether a Gaussian process learns the label-noise rate from the answers, by their marginal likelihood.
    /// `reward_model.error_rate` is then the prior belief.
    #[serde(alias = "learns_errors")]
    #[schemars(extend("aliases" = ["learns_errors"]))]
    pub learn_error_rate: bool,
    /// Adam's step size for the networks.
    pub learning_rate: f64,
    /// Comparisons in one gradient step of one member.
    pub batch: usize,
    /// Env steps of a clip that one gradient step uses. A clip is divided into this many equal stretches, and each
    /// gradient step draws one env step from each. Neighbouring env steps of a robot are nearly alike, so this costs
    /// little precision and saves most of the time.
    pub rows: usize,
    /// Maximum number of rounds in one fit. After each round the held-out loss is computed. Each member ends the fit
    /// with its best state.
    pub rounds: usize,
    /// Gradient steps in one round. The number is fixed, so that the time of a fit hardly depends on the number of
    /// labels.
    pub round_steps: usize,
    /// A fit stops after this many rounds without a better held-out loss of any member.
    pub patience: usize,
    /// Smallest share of a clip that one gradient step uses, 0 to 1. Each gradient step draws a window length from this
    /// share to the whole clip, and a window position for each clip. The window stands for the whole clip. 1 turns
    /// cropping off.
    pub crop: f64,
    /// Threshold for pseudo-labels: the reward model also learns from a pair that nobody judged if the members' mean
    /// probability of one answer is above this, 0.5 to 1. 1 turns pseudo-labels off.
    #[serde(alias = "guess_above")]
    #[schemars(extend("aliases" = ["guess_above"]))]
    pub pseudo_label_threshold: f64,
    /// Weight of a pseudo-label in the loss. A judgement has weight 1.
    #[serde(alias = "guess_weight")]
    #[schemars(extend("aliases" = ["guess_weight"]))]
    pub pseudo_label_weight: f64,
    /// Margin in nats of log-odds: how much further ahead the better clip must be if the teacher calls it “much
    /// better”. 0 treats that like “better”.
    pub margin: f64,
    /// Whether the mean of each rollout's rewards is subtracted from them. With episodes of one length, policies are
    /// ranked alike with and without it. But with hardly any discounting (γ near 1), a reward that is positive on
    /// average gives values that dwarf the effect of an action (Naik et al. 2024, "Reward centering").
    #[serde(alias = "centred")]
    #[schemars(extend("aliases" = ["centred"]))]
    pub centre_rewards: bool,
    /// Initial weight decay. The loss contains `l2 · Σ w²` over the weights; biases are not decayed.
    pub l2: f64,
    /// Weight decay is raised while held-out loss / training loss is above this.
    pub overfit_ratio: f64,
    /// Weight decay is lowered while held-out loss / training loss is below this.
    pub underfit_ratio: f64,
}

impl Default for RewardModelSettings {
    fn default() -> Self {
        RewardModelSettings {
            kind: RewardModelKind::default(),
            members: 3,
            hidden: 64,
            sees_actions: true,
            ignored_inputs: Vec::new(),
            products: 0.0,
            error_rate: 0.1,
            learn_error_rate: true,
            learning_rate: 2e-3,
            batch: 16,
            rows: 40,
            rounds: 16,
            round_steps: 10,
            patience: 6,
            crop: 1.0,
            pseudo_label_threshold: 1.0,
            pseudo_label_weight: 0.5,
            margin: 1.0,
            centre_rewards: false,
            l2: 1e-3,
            overfit_ratio: 1.5,
            underfit_ratio: 1.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_last_the_asked_time_within_bounds() {
        let settings = LabelSettings::default();
        let cases = [(0.008, 188), (0.05, 30), (0.04, 38), (0.1, 25), (0.001, 200), (0.0, 200), (f64::NAN, 25)];
        for (dt, steps) in cases {
            assert_eq!(settings.clip_steps(dt), steps, "dt {dt}");
        }
    }

    #[test]
    fn a_misspelt_key_is_refused_and_a_missing_one_defaults() {
        assert!(toml::from_str::<RewardModelSettings>("membrs = 3").is_err());
        let settings: RewardModelSettings = toml::from_str("members = 5").unwrap();
        assert_eq!(settings, RewardModelSettings { members: 5, ..Default::default() });
    }
}
