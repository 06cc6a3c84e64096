//! Best of n, and rejection sampling: several completions of each prompt are scored, and the best ones are written to a
//! file or learnt from, in rounds.

use super::built_in;
use super::corpus::{Corpus, Prompt};
use super::folders;
use super::reward_functions::{Candidate, RewardFunctions};
use super::verbs::{TextModel, check_finite, reader};
use crate::lab::LabError;
use crate::settings::{TextPrecision, TextRun, TextStage};
use crate::store::{make_folder, read_text, write_text};
use flipside_core::Seed;
use flipside_text::data::{Reading, TextOrMessages};
use flipside_text::generate::{Sampling, generate_each};
use flipside_text::reward_functions::{accepted, best_of, best_of_n_kl_bound};
use flipside_text::{Bundle, Example, Supervised};
use rand::Rng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Completions that are written together, at least those of one prompt.
const ROWS: usize = 128;

/// What to write several completions of, and how they are scored.
#[derive(Clone, Debug)]
pub struct BestOfPlan {
    /// The model; `None` for the built-in supervised one.
    pub model: Option<TextModel>,
    /// Number type of the reward models, and of the built-in model.
    pub precision: TextPrecision,
    /// Prompts, as they were typed.
    pub prompts: Vec<String>,
    /// A file with more prompts. Without any prompt, those of the built-in grammar.
    pub data: Option<PathBuf>,
    /// How the file is read.
    pub reading: Reading,
    /// Completions of each prompt.
    pub n: usize,
    /// Reward functions as they are typed; their weighted scores are added up.
    pub reward_functions: Vec<String>,
    /// The maximum number of tokens in a completion.
    pub max_new_tokens: usize,
    /// The logits are divided by this.
    pub temperature: f64,
    /// The seed of all draws.
    pub seed: u64,
    /// The file of JSON lines, or the folder for rounds of rejection sampling.
    pub output: PathBuf,
}

/// The result of best of n.
#[derive(Clone, Debug, Serialize)]
pub struct BestOfReport {
    /// The file: a line for each prompt with its best completion and that one's score.
    pub file: PathBuf,
    /// Prompts that have a best completion.
    pub prompts: usize,
    /// Prompts that are left out, because none of their completions has a score.
    pub without_score: usize,
    /// Completions of each prompt.
    pub n: usize,
    /// ln n − (n − 1)/n: an upper bound of KL(best of n ‖ model), nats.
    pub kl_bound: f64,
    /// Mean score of all completions that have one.
    pub mean_score: f64,
    /// Mean score of the best completions.
    pub best_score: f64,
}

/// Rounds of rejection sampling: each writes completions with the model of the round before and fine-tunes it on those
/// that are accepted.
#[derive(Clone, Debug)]
pub struct RejectionPlan {
    /// How completions are written and scored.
    pub sampling: BestOfPlan,
    /// Number of rounds.
    pub rounds: usize,
    /// The quantile of a prompt's scores that a completion must reach, in the first and the last round.
    pub quantiles: [f64; 2],
    /// How the model is fine-tuned: `supervised`, `supervised_steps` for each round, adapters and frozen layers.
    pub run: TextRun,
}

/// One round of rejection sampling, as it is saved.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RejectionRound {
    /// Counted from 1.
    pub round: usize,
    /// The quantile that a completion had to reach.
    pub quantile: f64,
    /// Completions that were written.
    pub completions: usize,
    /// Completions that were accepted.
    pub accepted: usize,
    /// Mean score of all completions that have one: of the model before this round.
    pub mean_score: f64,
    /// Mean score of the accepted ones.
    pub accepted_score: f64,
    /// Mean loss of the last tenth of the gradient steps, nats a token.
    pub loss: f64,
}

/// A prompt's completions with their tokens, texts and scores.
pub(super) struct Group {
    pub prompt: Prompt,
    completions: Vec<Vec<u32>>,
    pub texts: Vec<String>,
    pub scores: Vec<Option<f32>>,
}

/// Writes n completions for each prompt and keeps the best one. `on_progress` gets the number of prompts done and their
/// total.
///
/// # Errors
///
/// A model, data or reward function that cannot be used, or a file that cannot be written.
pub fn best_of_text(plan: &BestOfPlan, on_progress: &mut dyn FnMut(usize, usize)) -> Result<BestOfReport, LabError> {
    let groups = all_of(plan, on_progress)?;
    let mut lines = String::new();
    let mut best_scores = Vec::new();
    for group in &groups {
        let Some(best) = best_of(&group.scores) else { continue };
        best_scores.extend(group.scores[best]);
        lines.push_str(&line(group, best));
    }
    if best_scores.is_empty() {
        return Err(LabError::Text(
            "No completion has a score; check the reward functions, and whether the data gives the answers that they \
             compare with."
                .to_owned(),
        ));
    }
    write_text(&plan.output, &lines)?;
    Ok(BestOfReport {
        file: plan.output.clone(),
        prompts: best_scores.len(),
        without_score: groups.len() - best_scores.len(),
        n: plan.n,
        kl_bound: best_of_n_kl_bound(plan.n),
        mean_score: mean(groups.iter().flat_map(|group| group.scores.iter().flatten().copied())),
        best_score: mean(best_scores.iter().copied()),
    })
}

/// All n completions of each prompt, with their scores.
///
/// # Errors
///
/// A model, data or reward function that cannot be used.
pub(super) fn all_of(plan: &BestOfPlan, on_progress: &mut dyn FnMut(usize, usize)) -> Result<Vec<Group>, LabError> {
    let bundle = start(plan)?;
    scored_groups(&bundle, plan, &prompts(&bundle, plan)?, plan.seed, on_progress)
}

/// Rejection sampling in rounds (trlX's RFT; Touvron et al. 2023, section 3.2.3). Round k leaves
/// `round-k/winners.jsonl`, `round-k/model` and `round-k/round.json` in the output folder. Rounds that are there are
/// not repeated, so an interrupted run goes on with the round that it was in. `on_round` gets each finished round.
///
/// # Errors
///
/// As [`best_of_text`]; a folder with rounds of another plan; a round in which nothing is accepted.
pub fn rejection_sampling(
    plan: &RejectionPlan,
    on_progress: &mut dyn FnMut(usize, usize),
    on_round: &mut dyn FnMut(&RejectionRound),
) -> Result<Vec<RejectionRound>, LabError> {
    plan.run.supervised.check().map_err(LabError::Text)?;
    make_folder(&plan.sampling.output)?;
    check_same_plan(plan)?;
    let mut rounds: Vec<RejectionRound> = Vec::new();
    for round in 1..=plan.rounds {
        let folder = plan.sampling.output.join(format!("round-{round}"));
        make_folder(&folder)?;
        let known = read_text(&folder.join("round.json")).ok().and_then(|text| serde_json::from_str(&text).ok());
        let done = match known {
            Some(known) => known,
            None => one_round(plan, round, &folder, on_progress)?,
        };
        on_round(&done);
        rounds.push(done);
    }
    Ok(rounds)
}

/// Refuses a folder whose rounds were made by another plan.
fn check_same_plan(plan: &RejectionPlan) -> Result<(), LabError> {
    let BestOfPlan { model, data, prompts, n, reward_functions, max_new_tokens, temperature, seed, output, .. } =
        &plan.sampling;
    let TextRun { supervised, supervised_steps, lora, frozen_layers, .. } = &plan.run;
    let now = json!({
        "model": model.as_ref().map(|model| &model.folder), "data": data, "prompts": prompts, "n": n,
        "reward_functions": reward_functions, "max_new_tokens": max_new_tokens, "temperature": temperature,
        "seed": seed, "quantiles": plan.quantiles, "rounds": plan.rounds, "supervised": supervised,
        "supervised_steps": supervised_steps, "lora": lora, "frozen_layers": frozen_layers,
    });
    let file = output.join("plan.json");
    let before = read_text(&file).ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok());
    let differs = |key: &&String| before.as_ref().is_some_and(|before| before.get(*key) != now.get(*key));
    match now.as_object().into_iter().flat_map(|all| all.keys()).find(differs) {
        Some(key) => Err(LabError::Text(format!(
            "{} holds rounds with another `{key}`; take another folder, or the same settings.",
            output.display()
        ))),
        None => Ok(write_text(&file, &format!("{now:#}\n"))?),
    }
}

fn one_round(
    plan: &RejectionPlan,
    round: usize,
    folder: &Path,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<RejectionRound, LabError> {
    let RejectionPlan { sampling, quantiles: [first, last], run, .. } = plan;
    let seed = Seed(sampling.seed).stream(&format!("text.rejection/{round}")).next_u64();
    let mut bundle = match round {
        1 => start(sampling)?,
        round => {
            let before = sampling.output.join(format!("round-{}", round - 1)).join("model");
            let precision = sampling.model.as_ref().map_or(sampling.precision, |model| model.precision);
            folders::read(&before, precision)?
        }
    };
    let groups = scored_groups(&bundle, sampling, &prompts(&bundle, sampling)?, seed, on_progress)?;
    let share = (round - 1) as f64 / (plan.rounds - 1).max(1) as f64;
    let quantile = first + (last - first) * share;
    let (mut lines, mut examples, mut scores) = (String::new(), Vec::new(), Vec::new());
    for group in &groups {
        for i in accepted(&group.completions, &group.scores, quantile) {
            lines.push_str(&line(group, i));
            scores.extend(group.scores[i]);
            let (prompt, completion) = (group.prompt.tokens.clone(), group.completions[i].clone());
            examples.push(Example { prompt, completion });
        }
    }
    if examples.is_empty() {
        return Err(LabError::Text(format!(
            "Round {round} accepts nothing, because the completions of each prompt have the same score or none; write \
             more of them with --n, or take other reward functions."
        )));
    }
    write_text(&folder.join("winners.jsonl"), &lines)?;
    bundle.prepare(run.lora.as_ref(), run.frozen_layers, Seed(seed))?;
    bundle.model.set_checkpointing(run.gradient_checkpointing);
    let mut trainer = Supervised::new(bundle.model.deep_clone(), &run.supervised, Seed(seed))?;
    trainer.plan(run.supervised_steps);
    let mut losses = Vec::new();
    for _ in 0..run.supervised_steps {
        losses.push(trainer.step(&examples, &mut |_| false)?.loss);
    }
    let trained = Bundle { model: trainer.into_model().merged(), tokenizer: bundle.tokenizer, score: None };
    folders::replace(&folder.join("model"), trained.to_parts()?)?;
    let late = &losses[losses.len() - losses.len().div_ceil(10)..];
    let done = RejectionRound {
        round,
        quantile,
        completions: groups.iter().map(|group| group.completions.len()).sum(),
        accepted: examples.len(),
        mean_score: mean(groups.iter().flat_map(|group| group.scores.iter().flatten().copied())),
        accepted_score: mean(scores.into_iter()),
        loss: late.iter().sum::<f64>() / late.len().max(1) as f64,
    };
    // Last, so that a round that has this file is whole.
    write_text(&folder.join("round.json"), &format!("{}\n", json!(done)))?;
    Ok(done)
}

/// The model that completions are written with at first.
fn start(plan: &BestOfPlan) -> Result<Bundle, LabError> {
    match &plan.model {
        Some(model) => model.read(),
        None => built_in::bundle_of(TextStage::Supervised, plan.precision),
    }
}

fn prompts(bundle: &Bundle, plan: &BestOfPlan) -> Result<Vec<Prompt>, LabError> {
    let reader = reader(bundle, plan.reading, plan.max_new_tokens);
    let mut prompts: Vec<Prompt> = plan.prompts.iter().map(|p| reader.prompt_of(p)).collect::<Result<_, _>>()?;
    match &plan.data {
        Some(path) => prompts.extend(reader.prompts(path)?),
        None if prompts.is_empty() && plan.model.is_none() => {
            prompts = Corpus::new(&TextRun::default(), Seed(plan.seed)).prompts(&reader)?;
        }
        None => {}
    }
    if prompts.is_empty() {
        return Err(LabError::Text("There is nothing to answer; give a prompt or a file with some.".to_owned()));
    }
    prompts.iter().try_for_each(|prompt| reader.check_length(prompt))?;
    Ok(prompts)
}

/// Writes and scores the completions of all prompts. Members of an ensemble are normalised at these completions.
fn scored_groups(
    bundle: &Bundle,
    plan: &BestOfPlan,
    prompts: &[Prompt],
    seed: u64,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Group>, LabError> {
    let mut functions =
        RewardFunctions::load(&plan.reward_functions, bundle, plan.precision, prompts, plan.max_new_tokens)?;
    let mut groups = Vec::with_capacity(prompts.len());
    for (part, prompts_of_part) in prompts.chunks((ROWS / plan.n).max(1)).enumerate() {
        on_progress(groups.len(), prompts.len());
        let sampling = Sampling {
            temperature: plan.temperature,
            max_new_tokens: plan.max_new_tokens,
            stop: bundle.stop(),
            seed: Seed(seed).stream(&format!("text.best_of/{part}")).next_u64(),
            ..Sampling::default()
        };
        let rows: Vec<&[u32]> = prompts_of_part.iter().map(|prompt| &prompt.tokens[..]).collect();
        let written = generate_each(&bundle.model, &rows, plan.n, &sampling, true, &mut |_, _| true);
        let folder = plan.model.as_ref().map_or(Path::new("the program"), |model| &model.folder);
        check_finite(written.iter().flat_map(|completion| completion.log_probs.iter().copied()), folder)?;
        for (prompt, written) in prompts_of_part.iter().zip(written.chunks(plan.n)) {
            let completions: Vec<Vec<u32>> = written.iter().map(|completion| completion.tokens.clone()).collect();
            let text = |tokens: &Vec<u32>| bundle.tokenizer.continuation(&prompt.tokens, tokens, true);
            let texts = completions.iter().map(text).collect::<Result<Vec<String>, _>>()?;
            groups.push(Group { prompt: prompt.clone(), completions, texts, scores: Vec::new() });
        }
    }
    on_progress(prompts.len(), prompts.len());
    let candidates = |group: &Group| -> Vec<Candidate> {
        let candidate = |completion: &Vec<u32>| Candidate {
            words: group.prompt.words.clone(),
            prompt: group.prompt.tokens.clone(),
            completion: completion.clone(),
            reference: group.prompt.reference.clone(),
        };
        group.completions.iter().map(candidate).collect()
    };
    let all: Vec<Candidate> = groups.iter().flat_map(candidates).collect();
    if functions.has_ensemble() {
        functions.normalise(&all, &mut || false)?;
    }
    let scores = functions.scores(&all, &mut || false)?;
    groups.iter_mut().zip(scores.chunks(plan.n)).for_each(|(group, scores)| group.scores = scores.to_vec());
    Ok(groups)
}

/// The line of a file to train on: the prompt as it was given, and a completion.
fn line(group: &Group, i: usize) -> String {
    let completion = &group.texts[i];
    let (prompt, completion) = match &group.prompt.words {
        TextOrMessages::Text(prompt) => (json!(prompt), json!(completion)),
        TextOrMessages::Messages(messages) => {
            (json!(messages), json!([{ "role": "assistant", "content": completion }]))
        }
    };
    format!("{}\n", json!({ "prompt": prompt, "completion": completion, "score": group.scores[i] }))
}

fn mean(numbers: impl Iterator<Item = f32>) -> f64 {
    let (count, sum) = numbers.fold((0_usize, 0.0), |(count, sum), x| (count + 1, sum + f64::from(x)));
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SupervisedSettings;
    use flipside_text::data::{BadLines, Example as Line};

    /// The built-in model and the grammar's prompts; short completions that name the colour red win.
    fn plan(root: &Path, output: &str) -> BestOfPlan {
        BestOfPlan {
            model: None,
            precision: TextPrecision::F32,
            prompts: vec!["Review of the red kettle:".to_owned(), "Review of the blue chair:".to_owned()],
            data: None,
            reading: Reading { on_bad: BadLines::Stop, ..Reading::default() },
            n: 6,
            reward_functions: vec!["regex:\\bgood\\b".to_owned(), "0.01*length:..12".to_owned()],
            max_new_tokens: 16,
            temperature: 1.0,
            seed: 3,
            output: root.join(output),
        }
    }

    #[test]
    fn winners_are_data_to_train_on() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), "winners.jsonl");
        let report = best_of_text(&plan, &mut |_, _| {}).unwrap();
        assert_eq!((report.prompts, report.n, report.without_score), (2, 6, 0));
        assert!(report.best_score >= report.mean_score && (report.kl_bound - (6_f64.ln() - 5.0 / 6.0)).abs() < 1e-12);
        let written = read_text(&plan.output).unwrap();
        let read = super::super::corpus::read_examples(&plan.output, Reading::default()).unwrap();
        assert!(read.examples.iter().all(|line| matches!(line, Line::Completion { .. })), "{written}");
        best_of_text(&plan, &mut |_, _| {}).unwrap();
        assert_eq!(read_text(&plan.output).unwrap(), written, "the same seed gives the same file");
        // `number` has no score where the data gives no answer.
        let unknown = BestOfPlan { reward_functions: vec!["number".to_owned()], ..plan };
        let error = best_of_text(&unknown, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.starts_with("No completion has a score"), "{error}");
    }

    #[test]
    fn an_interrupted_rejection_sampling_goes_on_where_it_was() {
        let root = tempfile::tempdir().unwrap();
        let run = TextRun {
            supervised: SupervisedSettings { batch_size: 2, ..TextRun::default().supervised },
            supervised_steps: 3,
            ..TextRun::default()
        };
        // Letters that some completions have and others do not.
        let letters: Vec<String> = ["k", "v", "w", "b", "g", "y"].map(|letter| format!("regex:{letter}")).to_vec();
        let of = |output: &str| RejectionPlan {
            sampling: BestOfPlan { reward_functions: letters.clone(), n: 12, ..plan(root.path(), output) },
            rounds: 2,
            quantiles: [0.5, 0.9],
            run: run.clone(),
        };
        let rounds = |output: &str| rejection_sampling(&of(output), &mut |_, _| {}, &mut |_| {}).unwrap();
        let whole = rounds("whole");
        assert_eq!(whole.iter().map(|round| round.quantile).collect::<Vec<_>>(), [0.5, 0.9]);
        assert!(whole.iter().all(|round| round.accepted > 0 && round.accepted_score > round.mean_score), "{whole:?}");
        rounds("cut");
        // As if it was killed while the second round was written.
        let second = root.path().join("cut/round-2");
        std::fs::remove_file(second.join("round.json")).unwrap();
        std::fs::remove_dir_all(second.join("model")).unwrap();
        rounds("cut");
        for file in
            ["round-1/winners.jsonl", "round-2/winners.jsonl", "round-2/round.json", "round-2/model/model.safetensors"]
        {
            let read = |folder: &str| std::fs::read(root.path().join(folder).join(file)).unwrap();
            assert!(read("whole") == read("cut"), "{file}");
        }
        let other = RejectionPlan { quantiles: [0.6, 0.9], ..of("cut") };
        let error = rejection_sampling(&other, &mut |_, _| {}, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("another `quantiles`"), "{error}");
    }
}
