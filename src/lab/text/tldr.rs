//! The summarisation recipe of Stiennon et al. 2020 on files in the published layout: prepares the data, says with
//! which settings the stages run, and evaluates the result. The stages themselves are those of every session in text
//! mode.
//!
//! A recipe is a folder:
//!
//! ```text
//! recipe.json     what was asked for, and how many lines the data have; before the data are prepared, only a note that
//!                 the folder is a recipe's
//! data/           filtered posts, prompts, and comparisons for the reward model, for the judge and held out
//! policy/         a session: supervised model, reward model, PPO
//! judge/          a session: a reward model of the other comparisons, which no training sees
//! evaluation/     summaries that were written, and the figures
//! ```
//!
//! It works from wherever the program is called, and after the folder was moved.

mod evaluate;
mod examples;
mod memory;

use super::folders;
use super::{built_in, corpus::read_examples};
use crate::lab::LabError;
use crate::lab::opening::is_session;
use crate::settings::{Asked, Mode, RewardNormalisation, RunSettings, TeacherKind, TextPrecision, TextRun, TextStage};
use crate::store::{ModelFolder, Session, data_files_in, is_empty_folder, make_folder, read_text, write_text};
use flipside_core::Seed;
use flipside_text::data::{BadLines, Dataset, Example, Reading, Tldr, TldrRules};
use flipside_text::tldr::{Filter, LeftOut, split_by_post};
use flipside_text::tokenizer::Tokenizer;
use flipside_text::tokenizer_of;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use evaluate::{ComparisonRow, EvaluationPlan, KlRow, SummaryRow, TldrEvaluation, Versus, evaluate_tldr};
pub use examples::{TldrExamplesPlan, TldrExamplesReport, write_tldr_examples};
pub use memory::{GptSize, MemoryPlan, MemoryReport, measure_memory};

/// Episodes of PPO for each post: a million for the 116,722 posts of the published training set. The built-in model
/// answers each post once.
const EPISODES_PER_POST: f64 = 1_000_000.0 / 116_722.0;

/// Policies that PPO saves on the way, to be evaluated.
const POLICY_CHECKPOINTS: u64 = 3;

/// Texts that a given model learns from at a time; a batch is split into parts of so many.
const ROWS: usize = 8;

/// Passes over the posts of the supervised model, if it starts from the built-in base model, which has never seen a
/// summary: after 700 steps it does not yet copy what a post says, and after 2,000 it does. A given model makes one
/// pass, as published.
const SUPERVISED_PASSES_OF_THE_BUILT_IN: u64 = 6;

/// The same of the reward models over their comparisons.
const REWARD_PASSES_OF_THE_BUILT_IN: u64 = 2;

/// What a recipe is made from. What is not given is as it was when the recipe was begun, or the default.
#[derive(Clone, Debug, Default)]
pub struct TldrPlan {
    /// The recipe's folder.
    pub session: PathBuf,
    /// The folder with the data.
    pub data: Option<PathBuf>,
    /// The base model; `None` for the built-in one.
    pub model: Option<PathBuf>,
    /// Share of the posts with comparisons that are left to the judge, 0 to 1; 0 trains no judge. Default: ½.
    pub judge_share: Option<f64>,
    /// Seed of all random streams. Default: 0.
    pub seed: Option<u64>,
    /// How the data are read.
    pub reading: Reading,
}

/// A prepared recipe, as it is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// See [`TldrPlan::data`]. The path is absolute.
    pub data: PathBuf,
    /// See [`TldrPlan::model`]. The path is absolute.
    pub model: Option<PathBuf>,
    /// See [`TldrPlan::judge_share`].
    pub judge_share: f64,
    /// See [`TldrPlan::seed`].
    pub seed: u64,
    /// Whether bad lines of the data were left out.
    #[serde(default)]
    pub skip_bad_lines: bool,
    /// Whether fields that are not used were passed over.
    #[serde(default)]
    pub ignore_fields: bool,
    /// What the data hold.
    pub counts: TldrCounts,
}

/// How many lines there are for each purpose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TldrCounts {
    /// Posts with summaries for the supervised model.
    pub posts: usize,
    /// Posts that PPO answers.
    pub prompts: usize,
    /// Held-out posts with summaries.
    pub held_out_posts: usize,
    /// Comparisons for the reward model.
    pub reward_comparisons: usize,
    /// Comparisons for the judge.
    pub judge_comparisons: usize,
    /// Held-out comparisons by their split; `cnndm` for articles.
    pub held_out_comparisons: BTreeMap<String, usize>,
    /// Posts, or their summaries, that the filters leave out, by the reason.
    pub left_out: BTreeMap<LeftOut, usize>,
}

/// The files and folders of a recipe.
#[derive(Clone, Debug)]
struct Places(PathBuf);

impl Places {
    /// Those of the recipe in this folder. They are absolute, because sessions and adapters note them.
    fn of(folder: &Path) -> Result<Places, LabError> {
        absolute(folder).map(Places)
    }

    fn recipe(&self) -> PathBuf {
        self.0.join("recipe.json")
    }

    fn data(&self, name: &str) -> PathBuf {
        self.0.join("data").join(format!("{name}.jsonl"))
    }

    fn held_out(&self, split: &str) -> PathBuf {
        self.data(&format!("held-out-comparisons-{split}"))
    }

    fn policy(&self) -> PathBuf {
        self.0.join("policy")
    }

    fn judge(&self) -> PathBuf {
        self.0.join("judge")
    }

    fn evaluation(&self, name: &str) -> PathBuf {
        self.0.join("evaluation").join(name)
    }
}

/// Names of the files in a recipe's folder `data`.
const POSTS: &str = "posts";
const PROMPTS: &str = "prompts";
const HELD_OUT_POSTS: &str = "held-out-posts";
const FOR_REWARD: &str = "comparisons-reward";
const FOR_JUDGE: &str = "comparisons-judge";

/// The key of `recipe.json` that is true until the data are prepared.
const PREPARING: &str = "preparing";

fn absolute(path: &Path) -> Result<PathBuf, LabError> {
    std::path::absolute(path).map_err(|error| {
        LabError::Text(format!("\"{}\" is no path that can be used here ({error}); name a folder.", path.display()))
    })
}

/// Prepares a recipe's data, or reads what was prepared before.
///
/// # Errors
///
/// Data that cannot be read, or that lack posts or comparisons; a folder that holds another recipe or something else.
pub fn prepare_tldr(plan: &TldrPlan) -> Result<Recipe, LabError> {
    let places = Places::of(&plan.session)?;
    if let Some(recipe) = read_recipe(&places)? {
        check_same_plan(plan, &recipe)?;
        recipe.follow(&places)?;
        return Ok(recipe);
    }
    let folder = plan.session.display();
    if is_session(&plan.session) {
        return Err(LabError::Text(format!("{folder} is a session of another kind; name another folder.")));
    }
    // A recipe that was killed has its note, so no file of anyone else is written over.
    if !places.recipe().exists() && !is_empty_folder(&places.0)? {
        return Err(LabError::Text(format!("{folder} holds other files and no recipe; name another folder.")));
    }
    let data = plan.data.as_deref().ok_or_else(|| {
        LabError::Text(format!("There is no recipe in {folder} yet; name the folder of the data with --data."))
    })?;
    let model = plan.model.as_deref().map(absolute).transpose()?;
    let judge_share = plan.judge_share.unwrap_or(0.5);
    let seed = plan.seed.unwrap_or(0);
    let tokenizer = tokenizer_for(plan.model.as_deref())?;
    make_folder(&places.0)?;
    write_text(&places.recipe(), &format!("{}\n", json!({ PREPARING: true })))?;
    make_folder(&places.0.join("data"))?;
    let mut counts = TldrCounts::default();
    prepare_posts(&places, data, plan.reading, &tokenizer, &mut counts)?;
    prepare_comparisons(&places, data, plan.reading, judge_share, Seed(seed), &mut counts)?;
    let Reading { on_bad, ignore_fields } = plan.reading;
    let skip_bad_lines = on_bad == BadLines::Skip;
    let recipe = Recipe { data: absolute(data)?, model, judge_share, seed, skip_bad_lines, ignore_fields, counts };
    // Last, so that a recipe whose file has counts has all data.
    write_text(&places.recipe(), &format!("{}\n", serde_json::to_string_pretty(&recipe).unwrap_or_default()))?;
    Ok(recipe)
}

/// The recipe of a folder; `None` if there is none yet, or its data are not prepared.
fn read_recipe(places: &Places) -> Result<Option<Recipe>, LabError> {
    let file = places.recipe();
    if !file.exists() {
        return Ok(None);
    }
    let read = |text: &str| {
        let value: Value = serde_json::from_str(text)?;
        if value[PREPARING] == true { Ok(None) } else { serde_json::from_value(value).map(Some) }
    };
    read(&read_text(&file)?).map_err(|error| {
        LabError::Text(format!("{} cannot be read ({error}); begin anew in another folder.", file.display()))
    })
}

fn check_same_plan(plan: &TldrPlan, recipe: &Recipe) -> Result<(), LabError> {
    let differs = |asked: &Option<PathBuf>, had: Option<&PathBuf>| -> Result<bool, LabError> {
        let asked = asked.as_deref().map(absolute).transpose()?;
        Ok(asked.is_some() && asked.as_ref() != had)
    };
    let shown = |path: &Path| format!(" {}", path.display());
    let left_out = || " left out".to_owned();
    let Reading { on_bad, ignore_fields } = plan.reading;
    let differing = [
        ("--data", differs(&plan.data, Some(&recipe.data))?, shown(&recipe.data)),
        ("--model", differs(&plan.model, recipe.model.as_ref())?, recipe.model.as_deref().map_or_else(left_out, shown)),
        (
            "--judge-share",
            plan.judge_share.is_some_and(|share| share != recipe.judge_share),
            format!(" {}", recipe.judge_share),
        ),
        ("--seed", plan.seed.is_some_and(|seed| seed != recipe.seed), format!(" {}", recipe.seed)),
        // The data have been read; another way of reading them would come too late.
        ("--skip-bad-lines", on_bad == BadLines::Skip && !recipe.skip_bad_lines, left_out()),
        ("--ignore-fields", ignore_fields && !recipe.ignore_fields, left_out()),
    ];
    match differing.into_iter().find(|(_, differs, _)| *differs) {
        Some((option, _, had)) => Err(LabError::Text(format!(
            "The recipe in {} was begun with {option}{had}; leave {option} out to go on with it, or name another folder.",
            plan.session.display(),
        ))),
        None => Ok(()),
    }
}

/// The tokenizer that the filters count with.
fn tokenizer_for(model: Option<&Path>) -> Result<Tokenizer, LabError> {
    match model {
        None => Ok(built_in::bundle_of(TextStage::Base, TextPrecision::F32)?.tokenizer),
        // The texts of a folder are enough, and weights take long to read. Whatever else there is, is read whole.
        Some(folder) => match ModelFolder::read_texts(folder).ok().and_then(|texts| tokenizer_of(&texts).ok()) {
            Some(tokenizer) => Ok(tokenizer),
            None => Ok(folders::read(folder, TextPrecision::F32)?.tokenizer),
        },
    }
}

/// The lines of a file as posts or comparisons.
fn tldr_lines(path: &Path, reading: Reading) -> Result<Vec<Tldr>, LabError> {
    let Dataset { examples, bad } = read_examples(path, reading).map_err(|error| in_file(path, &error))?;
    for bad in &bad {
        log::warn!("{}: left out: {bad}", path.display());
    }
    let tldr = |example| match example {
        Example::Tldr(post) => Ok(post),
        _ => Err(LabError::Text(format!(
            "{} is not in the layout of TL;DR; it needs lines with subreddit, title, post and summary, or with info, \
             summaries and choice.",
            path.display()
        ))),
    };
    examples.into_iter().map(tldr).collect()
}

/// The error with the name of its file, which those of lines lack.
fn in_file(path: &Path, error: &LabError) -> LabError {
    let (path, sentence) = (path.display().to_string(), error.to_string());
    LabError::Text(if sentence.contains(&path) { sentence } else { format!("{path}: {sentence}") })
}

fn lines_of<'a>(posts: impl IntoIterator<Item = &'a Tldr>) -> String {
    posts.into_iter().map(|post| format!("{}\n", post.to_json())).collect()
}

/// A file of posts, in the folder that the published one lies in, or directly in the data's folder.
fn posts_file(data: &Path, split: &str) -> Result<PathBuf, LabError> {
    let name = format!("{split}.jsonl");
    let known = [data.join("tldr_3_filtered").join(&name), data.join(&name)];
    known.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        LabError::Text(format!(
            "There is no {}; download the posts there, or write some with `flipside text tldr examples`.",
            known[0].display()
        ))
    })
}

fn prepare_posts(
    places: &Places,
    data: &Path,
    reading: Reading,
    tokenizer: &Tokenizer,
    counts: &mut TldrCounts,
) -> Result<(), LabError> {
    let mut filter = Filter::new(tokenizer);
    let mut left_out = |reason: LeftOut| *counts.left_out.entry(reason).or_default() += 1;
    // The held-out posts come first, so that a duplicate of theirs is left out of training.
    let mut sorted = |path: &Path| -> Result<[Vec<Tldr>; 2], LabError> {
        let (mut answered, mut all) = (Vec::new(), Vec::new());
        for post in tldr_lines(path, reading)? {
            if let Some(reason) = filter.post(&post)? {
                left_out(reason);
                continue;
            }
            match filter.summary(&post)? {
                Some(reason) => left_out(reason),
                None => answered.push(post.clone()),
            }
            all.push(post);
        }
        Ok([answered, all])
    };
    let [held_out, _] = sorted(&posts_file(data, "valid")?)?;
    let [posts, mut prompts] = sorted(&posts_file(data, "train")?)?;
    // Posts for PPO need no summary, so there may be more of them. Most are those of the other file again.
    let queries = data.join("tldr_3_filtered_queries").join("train.jsonl");
    if queries.is_file() {
        let mut filter = Filter::new(tokenizer);
        for post in &held_out {
            filter.post(post)?;
        }
        prompts.clear();
        for post in tldr_lines(&queries, reading)? {
            if filter.post(&post)?.is_none() {
                prompts.push(post);
            }
        }
    }
    for (what, found) in [("train", &posts), ("valid", &held_out)] {
        if found.is_empty() {
            let reasons = serde_json::to_string(&counts.left_out).unwrap_or_default();
            return Err(LabError::Text(format!(
                "The filters leave no post of {} (left out: {reasons}); give posts whose summaries have 24 to 48 tokens.",
                posts_file(data, what)?.display()
            )));
        }
    }
    (counts.posts, counts.prompts, counts.held_out_posts) = (posts.len(), prompts.len(), held_out.len());
    write_text(&places.data(POSTS), &lines_of(&posts))?;
    write_text(&places.data(PROMPTS), &lines_of(&prompts))?;
    Ok(write_text(&places.data(HELD_OUT_POSTS), &lines_of(&held_out))?)
}

fn prepare_comparisons(
    places: &Places,
    data: &Path,
    reading: Reading,
    judge_share: f64,
    seed: Seed,
    counts: &mut TldrCounts,
) -> Result<(), LabError> {
    let folder = data.join("comparisons");
    let files = if folder.exists() { data_files_in(&folder)? } else { Vec::new() };
    let (mut train, mut held_out) = (Vec::new(), BTreeMap::<String, Vec<Tldr>>::new());
    for file in &files {
        for comparison in tldr_lines(file, reading)? {
            match split_of(&comparison) {
                "train" => train.push(comparison),
                split => held_out.entry(split.to_owned()).or_default().push(comparison),
            }
        }
    }
    let for_judge = split_by_post(&train, judge_share, &mut seed.stream("text.tldr.judge"));
    let side =
        |judge: bool| train.iter().zip(&for_judge).filter(move |(_, side)| **side == judge).map(|(line, _)| line);
    (counts.reward_comparisons, counts.judge_comparisons) = (side(false).count(), side(true).count());
    if counts.reward_comparisons == 0 {
        return Err(LabError::Text(format!(
            "There are no comparisons of the split `train` in {}; download them there (batch3.json and so on), or leave \
             more of them to the reward model with --judge-share.",
            folder.display()
        )));
    }
    write_text(&places.data(FOR_REWARD), &lines_of(side(false)))?;
    write_text(&places.data(FOR_JUDGE), &lines_of(side(true)))?;
    for (split, comparisons) in &held_out {
        write_text(&places.held_out(split), &lines_of(comparisons))?;
        counts.held_out_comparisons.insert(split.clone(), comparisons.len());
    }
    Ok(())
}

/// Which split a comparison belongs to: `train` if its line does not say. Articles are not trained on; they are all
/// held out.
fn split_of(comparison: &Tldr) -> &str {
    match &comparison.heading {
        None => "cnndm",
        Some(_) => comparison.split.as_deref().unwrap_or("train"),
    }
}

impl Recipe {
    /// Whether there is a judge.
    pub fn has_judge(&self) -> bool {
        self.counts.judge_comparisons > 0
    }

    /// The settings of the session that trains the policy, with those that were asked for.
    ///
    /// # Errors
    ///
    /// Settings that contradict the recipe or each other.
    pub fn policy_settings(&self, folder: &Path, asked: &Asked) -> Result<RunSettings, LabError> {
        let places = Places::of(folder)?;
        let run = self.policy_run(&places);
        self.settings(run, places.policy(), self.counts.reward_comparisons, self.seed, asked)
    }

    fn policy_run(&self, places: &Places) -> TextRun {
        TextRun {
            model: self.model.clone(),
            from: TextStage::Supervised,
            until: TextStage::Ppo,
            comparisons: Some(places.data(FOR_REWARD)),
            policy_checkpoints: POLICY_CHECKPOINTS,
            ..self.run(places)
        }
    }

    /// The settings of the session that trains the judge: a reward model that begins as the policy's does.
    ///
    /// # Errors
    ///
    /// As [`Recipe::policy_settings`].
    pub fn judge_settings(&self, folder: &Path, asked: &Asked) -> Result<RunSettings, LabError> {
        let places = Places::of(folder)?;
        let run = self.judge_run(&places);
        self.settings(run, places.judge(), self.counts.judge_comparisons, self.seed.wrapping_add(1), asked)
    }

    fn judge_run(&self, places: &Places) -> TextRun {
        TextRun {
            model: Some(folders::of_stage(&places.policy(), TextStage::Supervised)),
            from: TextStage::Reward,
            until: TextStage::Reward,
            comparisons: Some(places.data(FOR_JUDGE)),
            ..self.run(places)
        }
    }

    /// Has the sessions that there are name the recipe's files where they are now, in case its folder was moved.
    fn follow(&self, places: &Places) -> Result<(), LabError> {
        for (folder, now) in [(places.policy(), self.policy_run(places)), (places.judge(), self.judge_run(places))] {
            if !is_session(&folder) {
                continue;
            }
            let stored = Session::open_to_read(&folder)?.settings().clone();
            let mut moved = stored.clone();
            if let Mode::Text(run) = &mut moved.mode {
                run.model = now.model;
                (run.demonstrations, run.prompts, run.comparisons) = (now.demonstrations, now.prompts, now.comparisons);
            }
            if moved != stored {
                Session::open(&folder)?.put_settings(&moved)?;
            }
        }
        Ok(())
    }

    /// The published settings, or, for the built-in model, those that suit its size.
    fn run(&self, places: &Places) -> TextRun {
        let mut run = TextRun::default();
        (run.demonstrations, run.prompts) = (Some(places.data(POSTS)), Some(places.data(PROMPTS)));
        run.reward.normalise = RewardNormalisation::References;
        run.ppo.max_new_tokens = TldrRules::default().completion;
        (run.ppo.temperature, run.ppo.kl.beta, run.ppo.kl.adaptive) = (0.7, 0.05, false);
        if self.model.is_none() {
            // The rewards of summaries differ little, so a step is mostly noise: with steps of 2e-4 the policy drifts
            // 10 nats away and its summaries become worse, and with β 0.05, too, it drifts 30 nats away.
            (run.ppo.kl.beta, run.ppo.optimiser.learning_rate) = (0.2, 5e-5);
        } else {
            // Stiennon et al. 2020, appendix B, for their smallest model.
            (run.supervised.batch_size, run.supervised.optimiser.learning_rate) = (128, 6.35e-5);
            (run.reward.batch_size, run.reward.optimiser.learning_rate) = (64, 1.5e-5);
            (run.ppo.batch_size, run.ppo.minibatch_size) = (512, 0);
            run.ppo.optimiser.learning_rate = 1.5e-5;
            run.ppo.rollout_batch_size = 4 * ROWS;
        }
        run
    }

    /// The settings of a session: those that were asked for, over the recipe's. The numbers of steps and of parts that
    /// a batch is split into follow from the batches and the data, unless they were asked for.
    fn settings(
        &self,
        run: TextRun,
        folder: PathBuf,
        comparisons: usize,
        seed: u64,
        asked: &Asked,
    ) -> Result<RunSettings, LabError> {
        let fixed = ["text.model", "text.from", "text.until", "text.documents", "text.demonstrations", "text.prompts"];
        let more = ["text.comparisons", "text.reward_model", "text.reward_functions", "seed", "num_labels", "teacher"];
        if let Some(name) = fixed.iter().chain(&more).find(|name| asked.get(name).is_some()) {
            return Err(LabError::Text(format!("The recipe decides `{name}` itself; leave it out.")));
        }
        let usual = RunSettings {
            teacher: TeacherKind::Oracle,
            labels: 0,
            seed,
            folder: Some(folder),
            ..RunSettings::of_text(run)
        };
        let mut settings = usual.with(asked).map_err(LabError::Settings)?;
        let is_free = |name: &str| asked.get(name).is_none();
        if let Mode::Text(run) = &mut settings.mode {
            let steps = |examples: usize, batch: usize| (examples.div_ceil(batch.max(1)) as u64).max(1);
            let ([supervised, reward], episodes) = match self.model {
                Some(_) => ([1, 1], EPISODES_PER_POST),
                None => ([SUPERVISED_PASSES_OF_THE_BUILT_IN, REWARD_PASSES_OF_THE_BUILT_IN], 1.0),
            };
            if is_free("text.supervised_steps") {
                run.supervised_steps = supervised * steps(self.counts.posts, run.supervised.batch_size);
            }
            if is_free("text.reward_steps") {
                run.reward_steps = reward * steps(comparisons, run.reward.batch_size);
            }
            if is_free("text.updates") {
                let episodes = (episodes * self.counts.prompts as f64) as usize;
                run.updates = steps(episodes, run.ppo.batch_size);
            }
            if self.model.is_some() {
                let minibatch = match run.ppo.minibatch_size {
                    0 => run.ppo.batch_size,
                    size => size,
                };
                for (name, parts, batch) in [
                    ("supervised", &mut run.supervised.gradient_accumulation_steps, run.supervised.batch_size),
                    // A comparison is two texts.
                    ("reward", &mut run.reward.gradient_accumulation_steps, 2 * run.reward.batch_size),
                    ("ppo", &mut run.ppo.gradient_accumulation_steps, minibatch),
                ] {
                    if is_free(&format!("text.{name}.gradient_accumulation_steps")) {
                        *parts = batch.div_ceil(ROWS).max(1);
                    }
                }
            }
            run.check().map_err(LabError::Settings)?;
            settings.env_steps = run.steps();
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests;
