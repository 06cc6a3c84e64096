//! Evaluates a finished recipe on held-out posts and comparisons. Summaries that were written are kept, so an
//! evaluation that was interrupted continues with the next model.

use super::super::corpus::{Reader, evenly_spread, pairs};
use super::super::folders;
use super::super::reward_functions::no_reward_model;
use super::{HELD_OUT_POSTS, Places, Recipe, read_recipe, tldr_lines};
use crate::lab::LabError;
use crate::settings::{TextPrecision, TextStage};
use crate::store::{ModelFolder, Session, make_folder, read_text, write_text};
use flipside_core::{Seed, fnv1a};
use flipside_text::data::{Reading, Summaries, Tldr, TokenizedExample};
use flipside_text::generate::{Sampling, generate_each};
use flipside_text::grammar::posts;
use flipside_text::model::Transformer;
use flipside_text::reward_functions::{FittedReward, best_of_n_kl_bound, best_of_n_shares};
use flipside_text::{Bundle, ControlledRate, Example, LengthControl, Outcome, Rouge, log_probs};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Texts that are generated or scored at a time.
const ROWS: usize = 32;

/// What to evaluate, and how much of it.
#[derive(Clone, Debug)]
pub struct EvaluationPlan {
    /// The recipe's folder.
    pub session: PathBuf,
    /// Held-out posts that are summarised; fewer if there are fewer.
    pub posts: usize,
    /// Temperature of the summaries that are compared with the references; 0 takes the likeliest token.
    pub temperature: f64,
    /// Numbers of samples for best of n. As many as the largest are written for each post.
    pub best_of: Vec<usize>,
    /// Seed of the samples.
    pub seed: u64,
}

/// The figures of a recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TldrEvaluation {
    /// Held-out posts that were summarised.
    pub posts: usize,
    /// Temperature of [`TldrEvaluation::summaries`].
    pub temperature: f64,
    /// Temperature of [`TldrEvaluation::kl`]: that of PPO.
    pub sampling_temperature: f64,
    /// How often the reward model and the judge prefer what people preferred.
    pub comparisons: Vec<ComparisonRow>,
    /// How good each policy's summaries are. The first row is the references.
    pub summaries: Vec<SummaryRow>,
    /// By how much the judge's log-odds of a win rise when a summary becomes e times as long.
    pub judge_length_slope: Option<f64>,
    /// The same of the gold score.
    pub gold_length_slope: Option<f64>,
    /// Best of n and PPO by their KL to the supervised model.
    pub kl: Vec<KlRow>,
    /// The file with all this.
    pub file: PathBuf,
}

/// Accuracies on the held-out comparisons of one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparisonRow {
    /// `valid1`, `valid2`, or `cnndm` for articles.
    pub split: String,
    /// Number of comparisons.
    pub pairs: usize,
    /// Share of them whose chosen summary has the higher reward; equal rewards count half.
    pub reward_accuracy: f64,
    /// The same of the judge, if there is one.
    pub judge_accuracy: Option<f64>,
    /// The same of the gold score, if it is known: what a perfect reward model would reach.
    pub gold_accuracy: Option<f64>,
}

/// One policy's summaries of the held-out posts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// `reference`, `supervised` or `ppo`.
    pub policy: String,
    /// Mean number of tokens, without the end.
    pub tokens: f64,
    /// Share that ended by themselves.
    pub ended: f64,
    /// ROUGE against the references, without stemming.
    pub rouge: Rouge,
    /// Mean reward of the reward model. That of the references is near 0.
    pub reward: f64,
    /// By the judge, if there is one.
    pub judge: Option<Versus>,
    /// By the gold score, if it is known.
    pub gold: Option<Versus>,
}

/// Summaries compared with the references by someone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versus {
    /// Mean score.
    pub score: f64,
    /// Share of the posts whose summary has the higher score than the reference; equal scores count half.
    pub win_rate: f64,
    /// Standard error of the win rate.
    pub std_error: f64,
    /// The win rate at the length of the references; `None` for the references themselves.
    pub length_controlled: Option<ControlledRate>,
}

/// A policy by its KL to the supervised model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KlRow {
    /// `best-of-4`, or `ppo-50` for PPO after 50 updates.
    pub policy: String,
    /// KL(policy ‖ supervised model) of a whole summary, nats: measured for PPO, the upper bound ln n − (n − 1)/n for
    /// best of n.
    pub kl: f64,
    /// Standard error of the measured KL; `None` for a bound.
    pub kl_std_error: Option<f64>,
    /// Mean reward of the reward model, which both follow.
    pub reward: f64,
    /// Mean score and win rate against the reference by the judge.
    pub judge: Option<[f64; 2]>,
    /// The same by the gold score.
    pub gold: Option<[f64; 2]>,
}

/// A summary that a policy wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sample {
    /// The post's place.
    post: usize,
    text: String,
    tokens: Vec<u32>,
    ended: bool,
    /// Sum of the log-probabilities of the tokens under the policy, nats.
    log_prob: f64,
}

impl Sample {
    /// Tokens without the end, at least 1.
    fn length(&self) -> f64 {
        self.tokens.len().saturating_sub(usize::from(self.ended)).max(1) as f64
    }
}

/// A held-out post with its reference.
struct Asked {
    post: Tldr,
    reference: Example,
    text: String,
}

impl Asked {
    /// Tokens of the reference without its end, at least 1.
    fn length(&self) -> f64 {
        self.reference.completion.len().saturating_sub(1).max(1) as f64
    }
}

/// Evaluates a finished recipe and writes the figures to `evaluation/evaluation.json`. `on_progress` gets a word for
/// what is being done.
///
/// # Errors
///
/// A folder without a finished recipe, models that cannot be read, files that cannot be written.
pub fn evaluate_tldr(plan: &EvaluationPlan, on_progress: &mut dyn FnMut(&str)) -> Result<TldrEvaluation, LabError> {
    let places = Places::of(&plan.session)?;
    let folder = plan.session.display();
    let recipe = read_recipe(&places)?.ok_or_else(|| {
        LabError::Text(format!("There is no recipe in {folder}; run it first with `flipside text tldr run`."))
    })?;
    // Summaries take hours to write, so whatever they need is looked for first.
    check_finished(&places, &recipe)?;
    let settings = Session::open_to_read(&places.policy())?.settings().clone();
    let run = settings.text().cloned().unwrap_or_default();
    let models = Models { places: &places, precision: run.precision };
    if plan.best_of.contains(&0) || plan.posts == 0 {
        return Err(LabError::Text("--posts and every number of --best-of must be at least 1.".to_owned()));
    }
    let supervised = models.supervised()?;
    let context = supervised.model.config().context;
    let max_new_tokens = run.ppo.max_new_tokens;
    let asked = held_out_posts(&places, &supervised, context.saturating_sub(max_new_tokens), plan.posts)?;
    let most = plan.best_of.iter().copied().max().unwrap_or(1);
    let sampling =
        |temperature: f64| Sampling { temperature, max_new_tokens, stop: supervised.stop(), ..Sampling::default() };
    let (compared, explored) = (sampling(plan.temperature), sampling(run.ppo.temperature));

    // Each model writes its summaries.
    make_folder(&places.evaluation(""))?;
    let writer = Writer::new(&models, &asked, plan.seed)?;
    let [by_supervised, by_policy] = [TextStage::Supervised, TextStage::Ppo].map(|stage| models.of_stage(stage));
    on_progress("supervised model");
    let of_supervised = writer.samples("supervised", &by_supervised, Some(&supervised), 1, &compared)?;
    let candidates = writer.samples("supervised-samples", &by_supervised, Some(&supervised), most, &explored)?;
    on_progress("policy");
    let of_policy = writer.samples("ppo", &by_policy, None, 1, &compared)?;
    let mut explorers = Vec::new();
    // Which policies were saved depends on the number of updates, which may have been raised after some of them were.
    let saved = |update: &u64| folders::of_policy_checkpoint(&places.policy(), *update).exists();
    for update in (1..run.updates).filter(saved) {
        on_progress(&format!("policy after {update} updates"));
        let folder = folders::of_policy_checkpoint(&places.policy(), update);
        let name = format!("ppo-{update:05}-samples");
        explorers.push((update, writer.samples(&name, &folder, None, 1, &explored)?));
    }
    explorers.push((run.updates, writer.samples("ppo-samples", &by_policy, None, 1, &explored)?));

    // What the supervised model thinks of the samples of PPO.
    on_progress("KL");
    let kls: Vec<Vec<f64>> = explorers
        .iter()
        .map(|(_, samples)| {
            let likely = likelihood(&supervised, &asked, samples, explored.temperature);
            samples.iter().zip(likely).map(|(sample, reference)| sample.log_prob - reference).collect()
        })
        .collect();
    drop(supervised);
    let mut sets = vec![of_supervised, candidates, of_policy];
    let saved: Vec<u64> = explorers.iter().map(|(update, _)| *update).collect();
    sets.extend(explorers.into_iter().map(|(_, samples)| samples));

    // What the reward model and the judge think of everything.
    let written = Written { asked, sets, explorers: saved };
    on_progress("reward model");
    let splits: Vec<&String> = recipe.counts.held_out_comparisons.keys().collect();
    let reward = Scorer::load(&models, &models.reward_folder())?.judge(&written, &places, &splits)?;
    let judge = match recipe.has_judge() {
        true => {
            on_progress("judge");
            Some(Scorer::load(&models, &models.judge_folder())?.judge(&written, &places, &splits)?)
        }
        false => None,
    };
    let gold = written.gold();
    let comparison = |(place, split): (usize, &&String)| {
        let (pairs, reward_accuracy) = reward.1[place];
        Ok(ComparisonRow {
            split: (*split).clone(),
            pairs,
            reward_accuracy,
            judge_accuracy: judge.as_ref().map(|(_, accuracies)| accuracies[place].1),
            gold_accuracy: gold_accuracy(&places.held_out(split))?,
        })
    };
    let by = Observers { reward: &reward.0, judge: judge.as_ref().map(|(scores, _)| scores), gold: gold.as_ref() };
    let (judge_control, gold_control) = (written.length_control(by.judge), written.length_control(by.gold));
    let file = places.evaluation("evaluation.json");
    let found = TldrEvaluation {
        posts: written.asked.len(),
        temperature: plan.temperature,
        sampling_temperature: run.ppo.temperature,
        comparisons: splits.iter().enumerate().map(comparison).collect::<Result<_, LabError>>()?,
        summaries: written.summary_rows(&by, [judge_control.as_ref(), gold_control.as_ref()]),
        judge_length_slope: judge_control.map(|fit| fit.slope),
        gold_length_slope: gold_control.map(|fit| fit.slope),
        kl: written.kl_rows(&by, &plan.best_of, &kls),
        file: file.clone(),
    };
    write_text(&file, &format!("{}\n", serde_json::to_string_pretty(&found).unwrap_or_default()))?;
    Ok(found)
}

/// The sets of samples by their places.
const SUPERVISED: usize = 0;
/// Several samples of each post, for best of n.
const CANDIDATES: usize = 1;
const POLICY: usize = 2;
/// The first of the sets at the temperature of PPO, one for each saved policy.
const EXPLORERS: usize = 3;

/// All summaries of an evaluation.
struct Written {
    asked: Vec<Asked>,
    sets: Vec<Vec<Sample>>,
    /// After how many updates the policies of the last sets were saved.
    explorers: Vec<u64>,
}

/// Scores of all summaries.
struct Scores {
    references: Vec<f32>,
    sets: Vec<Vec<f32>>,
}

/// Who scores summaries.
struct Observers<'a> {
    reward: &'a Scores,
    judge: Option<&'a Scores>,
    gold: Option<&'a Scores>,
}

impl Written {
    /// 1, ½ or 0 for each sample of a set: whether it beats the reference.
    fn wins(&self, by: &Scores, set: usize) -> Vec<f64> {
        let samples = self.sets[set].iter().zip(&by.sets[set]);
        samples.map(|(sample, &score)| win(score, by.references[sample.post])).collect()
    }

    /// The gold scores; `None` unless all posts are of the built-in grammar.
    fn gold(&self) -> Option<Scores> {
        let score = |asked: &Asked, text: &str| posts::score(&asked.post.post, text).map(|score| score as f32);
        let of = |samples: &Vec<Sample>| samples.iter().map(|s| score(&self.asked[s.post], &s.text)).collect();
        Some(Scores {
            references: self.asked.iter().map(|asked| score(asked, &asked.text)).collect::<Option<_>>()?,
            sets: self.sets.iter().map(of).collect::<Option<_>>()?,
        })
    }

    /// The win rates of the supervised model and of the policy at equal length.
    fn length_control(&self, by: Option<&Scores>) -> Option<LengthControl> {
        let by = by?;
        let outcomes = |set: usize| -> Vec<Outcome> {
            let ratio = |sample: &Sample| (sample.length() / self.asked[sample.post].length()).ln();
            let wins = self.wins(by, set).into_iter().zip(&self.sets[set]);
            wins.map(|(win, sample)| Outcome { win, log_ratio: ratio(sample) }).collect()
        };
        LengthControl::fit(&[outcomes(SUPERVISED), outcomes(POLICY)])
    }

    fn summary_rows(&self, by: &Observers, controls: [Option<&LengthControl>; 2]) -> Vec<SummaryRow> {
        let of_references = |by: Option<&Scores>| {
            let score = mean(by?.references.iter().copied());
            Some(Versus { score, win_rate: 0.5, std_error: 0.0, length_controlled: None })
        };
        let mut rows = vec![SummaryRow {
            policy: "reference".to_owned(),
            tokens: self.asked.iter().map(Asked::length).sum::<f64>() / self.asked.len() as f64,
            ended: 1.0,
            rouge: Rouge { rouge1: 1.0, rouge2: 1.0, rouge_l: 1.0 },
            reward: mean(by.reward.references.iter().copied()),
            judge: of_references(by.judge),
            gold: of_references(by.gold),
        }];
        for (place, (policy, set)) in [("supervised", SUPERVISED), ("ppo", POLICY)].into_iter().enumerate() {
            let (samples, count) = (&self.sets[set], self.sets[set].len() as f64);
            let versus = |by: Option<&Scores>, control: Option<&LengthControl>| {
                let by = by?;
                let (win_rate, std_error) = mean_and_error(&self.wins(by, set));
                Some(Versus {
                    score: mean(by.sets[set].iter().copied()),
                    win_rate,
                    std_error,
                    length_controlled: control.map(|control| control.policies[place]),
                })
            };
            rows.push(SummaryRow {
                policy: policy.to_owned(),
                tokens: samples.iter().map(Sample::length).sum::<f64>() / count,
                ended: samples.iter().filter(|sample| sample.ended).count() as f64 / count,
                rouge: Rouge::mean(samples.iter().map(|s| Rouge::of(&self.asked[s.post].text, &s.text))),
                reward: mean(by.reward.sets[set].iter().copied()),
                judge: versus(by.judge, controls[0]),
                gold: versus(by.gold, controls[1]),
            });
        }
        rows
    }

    /// Best of n, then PPO. `kls` are the KLs of the samples of each saved policy, nats.
    fn kl_rows(&self, by: &Observers, best_of: &[usize], kls: &[Vec<f64>]) -> Vec<KlRow> {
        let mut rows = Vec::new();
        let posts = self.asked.len();
        let each = self.sets[CANDIDATES].len() / posts;
        for &n in best_of {
            // Best of n follows the reward model; everyone else only looks on.
            let rewards = by.reward.sets[CANDIDATES].chunks(each);
            let shares: Vec<f64> = rewards.flat_map(|group| best_of_n_shares(group, n)).collect();
            let weighted = |numbers: &[f64]| -> f64 {
                numbers.iter().zip(&shares).map(|(number, share)| number * share).sum::<f64>() / posts as f64
            };
            let score = |by: &Scores| weighted(&by.sets[CANDIDATES].iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            let both = |by: &Scores| [score(by), weighted(&self.wins(by, CANDIDATES))];
            rows.push(KlRow {
                policy: format!("best-of-{n}"),
                kl: best_of_n_kl_bound(n),
                kl_std_error: None,
                reward: score(by.reward),
                judge: by.judge.map(both),
                gold: by.gold.map(both),
            });
        }
        for (place, (update, nats)) in self.explorers.iter().zip(kls).enumerate() {
            let score = |by: &Scores| mean(by.sets[EXPLORERS + place].iter().copied());
            let both = |by: &Scores| [score(by), mean_and_error(&self.wins(by, EXPLORERS + place)).0];
            let (kl, error) = mean_and_error(nats);
            rows.push(KlRow {
                policy: format!("ppo-{update}"),
                kl,
                kl_std_error: Some(error),
                reward: score(by.reward),
                judge: by.judge.map(both),
                gold: by.gold.map(both),
            });
        }
        rows
    }
}

/// Refuses a recipe that lacks one of the models that an evaluation needs.
fn check_finished(places: &Places, recipe: &Recipe) -> Result<(), LabError> {
    let of_policy = [TextStage::Supervised, TextStage::Reward, TextStage::Ppo];
    let judge = recipe.has_judge().then(|| folders::of_stage(&places.judge(), TextStage::Reward));
    let mut needed = of_policy.iter().map(|&stage| folders::of_stage(&places.policy(), stage)).chain(judge);
    match needed.find(|folder| !folder.exists()) {
        Some(missing) => Err(LabError::Text(format!(
            "There is no {} yet; go on with `flipside text tldr run --session {}`.",
            missing.display(),
            places.0.display()
        ))),
        None => Ok(()),
    }
}

/// Where the models of a recipe are.
struct Models<'a> {
    places: &'a Places,
    precision: TextPrecision,
}

impl Models<'_> {
    /// Reads a model. A policy that was saved on the way may be an adapter: its base is the supervised model of this
    /// recipe, wherever the recipe lay when it was saved.
    fn read(&self, folder: &Path) -> Result<Bundle, LabError> {
        let texts = ModelFolder::read_texts(folder)?;
        match texts.contains_key("adapter_config.json") && !texts.contains_key("config.json") {
            true => folders::read_with(&self.of_stage(TextStage::Supervised), Some(folder), self.precision),
            false => folders::read(folder, self.precision),
        }
    }

    /// The folder of a model of the policy's session.
    fn of_stage(&self, stage: TextStage) -> PathBuf {
        folders::of_stage(&self.places.policy(), stage)
    }

    fn supervised(&self) -> Result<Bundle, LabError> {
        self.read(&self.of_stage(TextStage::Supervised))
    }

    fn reward_folder(&self) -> PathBuf {
        self.of_stage(TextStage::Reward)
    }

    fn judge_folder(&self) -> PathBuf {
        folders::of_stage(&self.places.judge(), TextStage::Reward)
    }
}

/// A reward model that scores. It has the tokenizer of the policy, because both began as one model.
struct Scorer {
    reward: FittedReward<Transformer>,
    tokenizer: flipside_text::tokenizer::Tokenizer,
    context: usize,
}

impl Scorer {
    fn load(models: &Models, folder: &Path) -> Result<Scorer, LabError> {
        let bundle = models.read(folder)?;
        let head = bundle.head().ok_or_else(|| no_reward_model(folder))?;
        let bias = bundle.score.as_ref().map_or(0.0, |(_, bias)| *bias);
        let context = bundle.model.config().context;
        Ok(Scorer { reward: FittedReward::new(bundle.model, head, bias), tokenizer: bundle.tokenizer, context })
    }

    /// The scores of everything, and of each split the number of comparisons and the accuracy.
    fn judge(
        &self,
        written: &Written,
        places: &Places,
        splits: &[&String],
    ) -> Result<(Scores, Vec<(usize, f64)>), LabError> {
        let of = |samples: &Vec<Sample>| self.scores(samples.iter().map(|s| example(&written.asked, s)).collect());
        let scores = Scores {
            references: self.scores(written.asked.iter().map(|asked| asked.reference.clone()).collect())?,
            sets: written.sets.iter().map(of).collect::<Result<_, _>>()?,
        };
        let accuracies = splits.iter().map(|split| self.accuracy(&places.held_out(split))).collect::<Result<_, _>>()?;
        Ok((scores, accuracies))
    }

    fn scores(&self, examples: Vec<Example>) -> Result<Vec<f32>, LabError> {
        Ok(self.reward.rewards(&examples, ROWS, &mut |_| false)?)
    }

    /// Number of comparisons in a file, and the share whose chosen side has the higher reward.
    fn accuracy(&self, file: &Path) -> Result<(usize, f64), LabError> {
        let rules = flipside_text::data::TldrRules::default();
        let prompt = self.context.saturating_sub(rules.completion);
        let reader = Reader { tokenizer: &self.tokenizer, context: self.context, prompt, reading: Reading::default() };
        let pairs = pairs(file, &reader)?;
        let side = |right: bool| {
            let of = |pair: &flipside_text::TextComparison| Example {
                prompt: pair.prompt.clone(),
                completion: if right { pair.right.clone() } else { pair.left.clone() },
            };
            self.scores(pairs.iter().map(of).collect())
        };
        let (chosen, rejected) = (side(false)?, side(true)?);
        let right: Vec<f64> = chosen.iter().zip(&rejected).map(|(&chosen, &rejected)| win(chosen, rejected)).collect();
        Ok((pairs.len(), mean_and_error(&right).0))
    }
}

/// The held-out posts whose references pass the filter in this model's tokens, evenly spread, `most` at most.
fn held_out_posts(places: &Places, bundle: &Bundle, prompt: usize, most: usize) -> Result<Vec<Asked>, LabError> {
    let context = bundle.model.config().context;
    let reader = Reader { tokenizer: &bundle.tokenizer, context, prompt, reading: Reading::default() };
    let file = places.data(HELD_OUT_POSTS);
    let posts = tldr_lines(&file, Reading::default())?;
    let encoder = reader.encoder();
    let mut asked = Vec::new();
    for place in evenly_spread(posts.len(), most) {
        let post = posts[place].clone();
        let Summaries::Own(text) = post.summaries.clone() else { continue };
        let line = flipside_text::data::Example::Tldr(post.clone());
        if let Some(TokenizedExample::Completion { prompt, completion }) = encoder.encode(&line)? {
            asked.push(Asked { post, reference: Example { prompt, completion }, text });
        }
    }
    match asked.is_empty() {
        true => Err(LabError::Text(format!(
            "{} has no post with a summary of 24 to 48 tokens, as it had when it was prepared; begin the recipe anew in \
             another folder.",
            file.display()
        ))),
        false => Ok(asked),
    }
}

/// Has models write summaries of the held-out posts, and keeps them in files.
struct Writer<'a> {
    models: &'a Models<'a>,
    asked: &'a [Asked],
    seed: u64,
    /// What every file of summaries depends on: the posts, and the model that the policies began as.
    posts: String,
    supervised: String,
}

impl Writer<'_> {
    fn new<'a>(models: &'a Models, asked: &'a [Asked], seed: u64) -> Result<Writer<'a>, LabError> {
        let posts: Vec<Value> = asked.iter().map(|asked| asked.post.to_json()).collect();
        let posts = format!("{:016x}", fnv1a(json!(posts).to_string().as_bytes()));
        let supervised = ModelFolder::digest(&models.of_stage(TextStage::Supervised))?;
        Ok(Writer { models, asked, seed, posts, supervised })
    }

    /// `each` summaries of each post by the model in a folder, those of a post beside each other, from the file `name`
    /// or written anew. Only then the model is read, if it was not before.
    fn samples(
        &self,
        name: &str,
        folder: &Path,
        model: Option<&Bundle>,
        each: usize,
        how: &Sampling,
    ) -> Result<Vec<Sample>, LabError> {
        let file = self.models.places.evaluation(&format!("{name}.jsonl"));
        let header = json!({
            "posts": self.posts, "supervised": self.supervised, "model": ModelFolder::digest(folder)?, "each": each,
            "temperature": how.temperature, "max_new_tokens": how.max_new_tokens, "seed": self.seed,
        });
        if let Some(known) = known_samples(&file, &header) {
            return Ok(known);
        }
        let seed = Seed(self.seed).stream(&format!("text.tldr.{name}")).next_u64();
        let samples = match model {
            Some(model) => write_samples(model, self.asked, each, how, seed)?,
            None => write_samples(&self.models.read(folder)?, self.asked, each, how, seed)?,
        };
        let lines: String = samples.iter().map(|sample| format!("{}\n", json!(sample))).collect();
        write_text(&file, &format!("{header}\n{lines}"))?;
        // The last bit of a number that is read may differ from the one that was written, and an evaluation that uses
        // the file has to give the same figures.
        known_samples(&file, &header).ok_or_else(|| {
            LabError::Text(format!("{} is not as it was written; check the disk, and evaluate again.", file.display()))
        })
    }
}

/// Samples that were written with this header; `None` if they have to be written.
fn known_samples(file: &Path, header: &Value) -> Option<Vec<Sample>> {
    let text = read_text(file).ok()?;
    let mut lines = text.lines();
    let had: Value = serde_json::from_str(lines.next()?).ok()?;
    if had != *header {
        return None;
    }
    lines.map(|line| serde_json::from_str(line).ok()).collect()
}

fn write_samples(
    bundle: &Bundle,
    asked: &[Asked],
    each: usize,
    how: &Sampling,
    seed: u64,
) -> Result<Vec<Sample>, LabError> {
    let mut samples: Vec<Sample> = Vec::new();
    for (part, posts) in asked.chunks((ROWS / each).max(1)).enumerate() {
        let rows: Vec<&[u32]> = posts.iter().map(|asked| &asked.reference.prompt[..]).collect();
        let how = Sampling { seed: Seed(seed).stream(&format!("part {part}")).next_u64(), ..how.clone() };
        let written = generate_each(&bundle.model, &rows, each, &how, true, &mut |_, _| true);
        let first = samples.len() / each;
        for (i, completion) in written.into_iter().enumerate() {
            let post = first + i / each;
            let prompt = &asked[post].reference.prompt;
            let text = bundle.tokenizer.continuation(prompt, &completion.tokens, true)?;
            let (tokens, ended) = (completion.tokens, completion.stopped);
            samples.push(Sample { post, text: text.trim().to_owned(), tokens, ended, log_prob: 0.0 });
        }
    }
    let likely = likelihood(bundle, asked, &samples, how.temperature);
    samples.iter_mut().zip(likely).for_each(|(sample, log_prob)| sample.log_prob = log_prob);
    Ok(samples)
}

fn example(asked: &[Asked], sample: &Sample) -> Example {
    Example { prompt: asked[sample.post].reference.prompt.clone(), completion: sample.tokens.clone() }
}

/// The log-probability of each sample under this model, nats; 0 at temperature 0, which has none.
fn likelihood(bundle: &Bundle, asked: &[Asked], samples: &[Sample], temperature: f64) -> Vec<f64> {
    if temperature <= 0.0 {
        return vec![0.0; samples.len()];
    }
    let examples: Vec<Example> = samples.iter().map(|sample| example(asked, sample)).collect();
    let found = log_probs(&bundle.model, &examples, true, temperature, ROWS, &mut |_| false);
    found.into_iter().map(|row| row.into_iter().map(f64::from).sum()).collect()
}

/// How often the gold score prefers what was chosen; `None` if it is not known.
fn gold_accuracy(file: &Path) -> Result<Option<f64>, LabError> {
    let mut right = Vec::new();
    for line in tldr_lines(file, Reading::default())? {
        let Summaries::Judged(two, choice) = &line.summaries else { continue };
        let [Some(chosen), Some(rejected)] = [*choice, 1 - choice].map(|i| posts::score(&line.post, &two[i])) else {
            return Ok(None);
        };
        right.push(win(chosen as f32, rejected as f32));
    }
    Ok((!right.is_empty()).then(|| mean_and_error(&right).0))
}

/// 1 if the first score is the higher one, ½ if they are equal, else 0.
fn win(ours: f32, theirs: f32) -> f64 {
    match ours.partial_cmp(&theirs) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Equal) => 0.5,
        _ => 0.0,
    }
}

fn mean(numbers: impl Iterator<Item = f32>) -> f64 {
    let (count, sum) = numbers.fold((0_usize, 0.0), |(count, sum), x| (count + 1, sum + f64::from(x)));
    sum / count.max(1) as f64
}

/// The mean and its standard error.
fn mean_and_error(numbers: &[f64]) -> (f64, f64) {
    let n = numbers.len().max(1) as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let squares: f64 = numbers.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0).max(1.0) / n).sqrt())
}
