//! How judgements are asked for and how a reward is learnt from them. The defaults are those of Christiano et al.
//! (2017), "Deep reinforcement learning from human preferences", where a comment does not say otherwise.

use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Which clips are cut, which pairs are asked, and how fast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelSettings {
    /// Length of a clip in simulated seconds; see [`LabelSettings::clip_steps`].
    pub clip_seconds: f64,
    /// Length of a training episode in simulated seconds; see [`LabelSettings::episode_steps`].
    pub episode_seconds: f64,
    /// Worlds of the batch that clips are cut from. A clip in flight costs one copy of the poses an env step.
    pub recorded_worlds: usize,
    /// Clips that pairs are chosen among: the most recent ones, so that labels stay on what the policy does now.
    pub pool: usize,
    /// Candidate pairs drawn for each pair that is asked.
    pub candidates: usize,
    /// Share of the candidates that is put aside because their two clips look most alike, 0..=1.
    pub alike_share: f64,
    /// Share of the questions that repeat an answered pair with its sides changed, 0..=1, for the judge's consistency.
    pub repeat_share: f64,
    /// Share of the questions that set a recent clip beside one that was judged before, 0..=1. Clips of one time are alike, and comparisons among them
    /// alone leave open how what is done now compares with what was done then.
    pub past_share: f64,
    /// What the pairs that are not asked at random are chosen by.
    pub choice: PairChoice,
    /// Share of the pairs that is asked at random, 0..=1. Disagreement alone sometimes hurts, for it favours odd clips.
    pub random_share: f64,
    /// Share of the planned labels that is asked about the untrained policy, 0..=1.
    pub untrained_share: f64,
    /// T₀ of the label rate ∝ 1/(T + T₀), as a share of the planned env steps. Smaller asks earlier. (The paper's T₀
    /// was 2e6 steps in runs of some 2e7, which is 0.1; with 100 labels, 1 measured better on most tasks with one seed: what the policy does late is what it must
    /// be judged by.)
    pub anneal: f64,
    /// By which share of the planned env steps the whole plan of labels is wanted: a label at the very end teaches
    /// nobody.
    pub spent_by: f64,
    /// How far training may run ahead of the answers, as a share of the plan of labels: where more than that are wanted that nobody has given yet,
    /// it waits. A policy that learns for long from the first few answers exploits them. 1 never waits.
    pub lead: f64,
    /// Whether policies are put aside on the way: the last of several that begin again is then the best of those before it, going on, and the run
    /// ends with the best of all. Best is what the learnt reward, as it then stands, says most good of.
    pub keeps_best: bool,
}

impl Default for LabelSettings {
    fn default() -> Self {
        LabelSettings {
            clip_seconds: 1.5,
            episode_seconds: 0.0,
            recorded_worlds: 16,
            pool: 100,
            candidates: 10,
            alike_share: 0.0,
            repeat_share: 0.04,
            past_share: 0.0,
            choice: PairChoice::default(),
            random_share: 0.3,
            untrained_share: 0.25,
            anneal: 1.0,
            spent_by: 0.9,
            lead: 1.0,
            keeps_best: false,
        }
    }
}

impl LabelSettings {
    /// Fewest env steps that a clip may have: below this a person sees a jerk, not a movement.
    pub const FEWEST_STEPS: usize = 25;
    /// Most env steps that a clip may have: a bound on memory and on the reward model's work.
    pub const MOST_STEPS: usize = 200;

    /// Fewest env steps of a training episode, where the task's own horizon allows.
    pub const FEWEST_EPISODE_STEPS: usize = 250;

    /// Env steps of a training episode: [`LabelSettings::episode_seconds`], but no fewer than two clips and
    /// [`LabelSettings::FEWEST_EPISODE_STEPS`].
    pub fn episode_steps(&self, dt: f64) -> usize {
        let asked = (self.episode_seconds / dt).round() as usize;
        asked.max(2 * self.clip_steps(dt)).max(Self::FEWEST_EPISODE_STEPS)
    }

    /// Env steps of a clip where one env step takes `dt` simulated seconds: [`LabelSettings::clip_seconds`] in steps,
    /// kept between [`LabelSettings::FEWEST_STEPS`] and [`LabelSettings::MOST_STEPS`].
    pub fn clip_steps(&self, dt: f64) -> usize {
        // A float too large for usize saturates and NaN becomes 0, so the clamp below covers nonsense too.
        ((self.clip_seconds / dt).round() as usize).clamp(Self::FEWEST_STEPS, Self::MOST_STEPS)
    }
}

/// What a reward model is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RewardModelKind {
    /// A Gaussian process that learns from the answers how much each input matters (Chu and Ghahramani 2005); README.md has what it measured.
    #[default]
    GaussianProcess,
    /// An ensemble of small networks (Christiano et al. 2017).
    Networks,
}

/// What pairs are chosen by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairChoice {
    /// The variance between the members of the probability that left is preferred (Christiano et al. 2017).
    #[default]
    Disagreement,
    /// The entropy of the members' mean probability: pairs whose answer is open, whether or not the members agree on that.
    Entropy,
    /// Clips that lie far from those asked about (greedy k-centre on the means of what the reward model sees).
    Coverage,
    /// The k-centre choice among the third of the candidates that the members disagree on most.
    DisagreementCoverage,
}

/// What an untrained policy does before there is a reward: it is paid for unusual states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExploreSettings {
    /// Env steps before the first question, over all worlds …
    pub env_steps: u64,
    /// … but no more than this share of those planned, 0..=1. 0 turns exploring off: the default, as long
    /// as nobody has measured on which tasks it helps.
    pub share: f64,
    /// What being unusual by one standard deviation adds to the learned reward, whose own is 1, once there is one. A policy that was told of little
    /// but bad movements otherwise holds still for good. It falls linearly …
    pub bonus: f64,
    /// … to nothing at this share of the planned env steps.
    pub bonus_until: f64,
    /// How often the policy begins again from nothing (but see [`LabelSettings::keeps_best`]); what was learnt of the judge's teacher reward stays. A
    /// policy that has settled into a poor habit before its reward was any good seldom leaves it (Nikishin et al. 2022, "The primacy bias"),
    /// while one that starts on a good reward is on its way in seconds. And what each of them does on its way is something else to ask about.
    pub fresh_starts: u32,
    /// The share of the planned env steps at which the last policy begins; the others share the time before it equally.
    pub fresh_until: f64,
    /// States that are remembered to tell unusual ones by: a sample of recent rollouts.
    pub memory: usize,
    /// Which nearest neighbour's distance is paid for, k; PEBBLE's is the fifth.
    pub neighbour: usize,
}

impl Default for ExploreSettings {
    fn default() -> Self {
        ExploreSettings {
            env_steps: 200_000,
            share: 0.0,
            bonus: 0.0,
            bonus_until: 0.4,
            fresh_starts: 0,
            fresh_until: 0.5,
            memory: 1024,
            neighbour: 5,
        }
    }
}

impl ExploreSettings {
    /// Env steps of exploring in a run of so many.
    pub fn steps_of(&self, planned: u64) -> u64 {
        self.env_steps.min((self.share.clamp(0.0, 1.0) * planned as f64) as u64)
    }

    /// The env steps between which the policy learns that is at work after `env_steps` of `planned`.
    pub fn policy_at(&self, env_steps: u64, planned: u64) -> Range<u64> {
        let until = self.fresh_until.clamp(0.0, 1.0) * planned as f64;
        // The n-th policy begins here; policy 0 at the start.
        let begins = |n: u32| (until * f64::from(n) / f64::from(self.fresh_starts.max(1))) as u64;
        let nth = (0..=self.fresh_starts).rev().find(|&n| begins(n) <= env_steps).unwrap_or(0);
        begins(nth)..if nth < self.fresh_starts { begins(nth + 1) } else { planned }
    }
}

/// When the learnt reward is no longer trusted, and more labels are asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MonitorSettings {
    /// The latest judgements that are looked at for whether the model foresaw them.
    pub window: usize,
    /// Alarm where fewer than this share of them was foreseen. Questions are chosen to be hard, so this lies near a coin's toss.
    pub foreseen: f64,
    /// Alarm where the model agrees with fewer than this share of the held-out judgements.
    pub held_out: f64,
    /// Alarm where the members differ this many times as much about what the policy does as about what was judged.
    pub spread: f64,
}

impl Default for MonitorSettings {
    fn default() -> Self {
        MonitorSettings { window: 20, foreseen: 0.45, held_out: 0.6, spread: 1.6 }
    }
}

/// The reward model and how it is fitted. Of a Gaussian process say `kind`, `sees_actions`, `unseen`, `error_rate`, `learns_errors`, `rows`, `margin` and
/// `centred`; the others are about networks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardModelSettings {
    /// What it is made of.
    pub kind: RewardModelKind,
    /// Networks in the ensemble. Their mean is the reward; their disagreement chooses pairs.
    pub members: usize,
    /// Units of each of the two hidden layers.
    pub hidden: usize,
    /// Whether the reward may depend on the action. Where it may not, a torque that no viewer can see cannot be
    /// rewarded.
    pub sees_actions: bool,
    /// Numbers of the observation, counted from 0, that the reward does not depend on. What a judgement is not about can then not be taken for its
    /// reason, and fewer of them are enough.
    pub unseen: Vec<usize>,
    /// The networks are given the products of every two (normalised) inputs, too, times this: turning *and* being high is then one number to
    /// weigh, and not a shape to be built from bends. 80 judgements of made-up clips go further with a tenth, and less far with 1, which leaves
    /// them to be weighed like the inputs themselves. 0 turns them off.
    pub products: f64,
    /// Probability that a judge answers uniformly at random, in the likelihood: keeps single labels from pulling
    /// without bound.
    pub error_rate: f64,
    /// Whether a Gaussian process learns from the answers how many of them are random, by their marginal likelihood; `error_rate` is then what is
    /// believed beforehand.
    pub learns_errors: bool,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Comparisons in one gradient step of one member.
    pub batch: usize,
    /// Env steps of a clip that one gradient step looks at: one drawn from each of this many equal stretches, anew each
    /// time. Neighbouring steps of a robot are nearly alike, so this costs little precision and saves most of the time.
    pub rows: usize,
    /// Rounds of one fit, at most. After each round the held-out loss is looked at; the best state of each member is
    /// kept.
    pub rounds: usize,
    /// Gradient steps of a round. Fixed, so that a fit's time hardly depends on how many labels there are.
    pub round_steps: usize,
    /// Rounds without a better held-out loss of any member after which a fit ends.
    pub patience: usize,
    /// Least share of a clip that one gradient step looks at, 0..=1: a window as wide as that or wider is drawn for every step, its place for
    /// every clip, and stands for the whole. 1 turns it off.
    pub crop: f64,
    /// Pairs that nobody judged are learnt from where the members' mean probability of one answer is above this, 0.5..=1. 1 turns it off.
    pub guess_above: f64,
    /// What such a guess weighs, an answer weighing 1.
    pub guess_weight: f64,
    /// By how many nats of log-odds the better clip must be further ahead where a judge calls it much better. 0 takes that for “better”.
    pub margin: f64,
    /// Whether each rollout's mean is taken off the rewards that pay it. Episodes of one length rank policies alike with and without it; but where
    /// hardly anything is discounted (γ near 1), a reward that is good on average makes values that dwarf what an action changes (Naik et al.
    /// 2024, "Reward centering").
    pub centred: bool,
    /// Weight decay to start from: the loss carries `l2 · Σ w²` over the weights (biases are free).
    pub l2: f64,
    /// Weight decay is raised while held-out loss / training loss lies above this …
    pub overfit_ratio: f64,
    /// … and lowered while it lies below this.
    pub underfit_ratio: f64,
}

impl Default for RewardModelSettings {
    fn default() -> Self {
        RewardModelSettings {
            kind: RewardModelKind::default(),
            members: 3,
            hidden: 64,
            sees_actions: true,
            unseen: Vec::new(),
            products: 0.0,
            error_rate: 0.1,
            learns_errors: true,
            learning_rate: 2e-3,
            batch: 16,
            rows: 40,
            rounds: 16,
            round_steps: 10,
            patience: 6,
            crop: 1.0,
            guess_above: 1.0,
            guess_weight: 0.5,
            margin: 1.0,
            centred: false,
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
