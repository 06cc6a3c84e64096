//! Measures how good the model is that a session came to, by the grammar's gold score.

use super::corpus::{Corpus, Prompt, Reader};
use super::folders;
use crate::lab::questions::text_noise;
use crate::lab::{LabError, TeacherKind};
use crate::settings::{TextRewardSettings, TextRun, TextStage};
use crate::store::Session;
use flipside_core::{Seed, Stream};
use flipside_text::generate::{Sampling, generate};
use flipside_text::{Bundle, Example, IlqlHeads, TextReward, generate_by_values};
use rand::{Rng, RngExt};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Rows that are generated in parallel.
const ROWS: usize = 64;

/// Results on prompts of the grammar.
#[derive(Clone, Debug, Serialize)]
pub struct TextMeasure {
    /// The pipeline stage whose model is evaluated: the one that the session came to.
    pub stage: TextStage,
    /// The folder of the model that it started from.
    pub start: PathBuf,
    /// Prompts that each model answered.
    pub prompts: usize,
    /// Mean gold score of the completions by the model that it started from.
    pub start_gold: f64,
    /// Mean gold score of the completions by the model that it came to.
    pub gold: f64,
    /// Share of prompts where the model that it came to has the higher gold score; equal scores count half.
    pub win_rate: f64,
    /// Probability that an answer of the session's teacher agrees with the session's reward model: the mean over new
    /// pairs of the model that training started from. `None` without a reward model.
    pub reward_accuracy: Option<f64>,
    /// The same probability for the gold score itself. No reward model can do better.
    pub reward_ceiling: Option<f64>,
}

/// Lets the model that a session came to, and the one that it started from, answer prompts of the grammar, at the
/// session's temperature and length. A model of ILQL writes with its heads, at the session's β. If the session's
/// teacher is a person, the reward model is compared with a simulated teacher that never errs.
///
/// # Errors
///
/// A session in another mode, one without a trained model or one to compare it with, or one whose prompts are not the
/// grammar's.
pub fn measure_text(folder: &Path, prompts: usize, seed: u64) -> Result<TextMeasure, LabError> {
    let settings = Session::open_to_read(folder)?.settings().clone();
    let run = settings
        .text()
        .cloned()
        .ok_or_else(|| LabError::Text(format!("{} teaches a robot; `flipside eval` measures it.", folder.display())))?;
    let lacks = |what: &str| {
        LabError::Text(format!("The session in {} has no {what}; let it train until it has one.", folder.display()))
    };
    let stage = folders::last_stage(folder, run.until).ok_or_else(|| lacks("trained model yet"))?;
    let corpus = Corpus::new(&run, Seed(settings.seed));
    if run.demonstrations.is_some() || run.prompts.is_some() || !corpus.has_gold() {
        return Err(LabError::Text(
            "The gold score of these prompts is not known; there is nothing to measure by.".into(),
        ));
    }
    let started = folders::started_from(folder, &run, stage);
    let (start, adapter) = started.ok_or_else(|| lacks("model that it started from, to compare with"))?;
    let own = folders::of_stage(folder, stage);
    let policy = folders::read(&own, run.precision)?;
    let heads = (stage == TextStage::Ilql).then(|| folders::ilql_heads(&own, &policy)).transpose()?;
    let before = folders::read_with(&start, adapter.as_deref(), run.precision)?;
    // Completions are written as the session writes those that are judged.
    let mut sampled = run.clone();
    (sampled.ppo.temperature, sampled.ppo.max_new_tokens) = run.sampling();
    let mut stream = Seed(seed).stream("text.measure");
    let asked = grammar_prompts(&corpus, prompts, &mut stream);
    let mut write = |writer: Writer| completions(&writer, &corpus, &asked, &sampled, &mut stream);
    let ours = write(Writer { bundle: &policy, values: heads.as_ref().map(|heads| (heads, run.ilql.beta)) })?;
    let (theirs, others) = (write(Writer::of(&before))?, write(Writer::of(&before))?);
    let teacher = if settings.teacher == TeacherKind::Person { TeacherKind::Oracle } else { settings.teacher };
    let reward = folders::of_stage(folder, TextStage::Reward);
    let agreed = match reward.is_dir() {
        true => Some(agreement(folders::read(&reward, run.precision)?, &theirs, &others, teacher)?),
        false => None,
    };
    Ok(TextMeasure {
        stage,
        start,
        prompts: asked.len(),
        start_gold: mean_gold(&theirs),
        gold: mean_gold(&ours),
        win_rate: win_rate(&ours, &theirs),
        reward_accuracy: agreed.map(|(accuracy, _)| accuracy),
        reward_ceiling: agreed.map(|(_, ceiling)| ceiling),
    })
}

/// A completion and its gold score.
pub(super) type Written = (Example, f64);

/// The mean gold score.
pub(super) fn mean_gold(written: &[Written]) -> f64 {
    mean(written.iter().map(|(_, gold)| *gold))
}

/// Share of the prompts where `ours` has the higher gold score; equal scores count half.
pub(super) fn win_rate(ours: &[Written], theirs: &[Written]) -> f64 {
    mean(ours.iter().zip(theirs).map(|(ours, theirs)| match ours.1 - theirs.1 {
        gap if gap > 0.0 => 1.0,
        0.0 => 0.5,
        _ => 0.0,
    }))
}

/// What writes completions.
pub(super) struct Writer<'a> {
    /// The model.
    pub bundle: &'a Bundle,
    /// ILQL's heads and β, if it writes by log π + β (Q − V).
    pub values: Option<(&'a IlqlHeads, f64)>,
}

impl<'a> Writer<'a> {
    /// A model that writes by its own distribution.
    pub fn of(bundle: &'a Bundle) -> Writer<'a> {
        Writer { bundle, values: None }
    }
}

/// Prompts of the grammar, as many as asked for.
pub(super) fn grammar_prompts(corpus: &Corpus, count: usize, stream: &mut Stream) -> Vec<String> {
    let listed = corpus.prompt_list();
    (0..count.max(1)).map(|_| listed[stream.random_range(0..listed.len())].clone()).collect()
}

/// One completion for each of these prompts, sampled as in PPO.
pub(super) fn completions(
    writer: &Writer,
    corpus: &Corpus,
    prompts: &[String],
    run: &TextRun,
    stream: &mut Stream,
) -> Result<Vec<Written>, LabError> {
    let bundle = writer.bundle;
    let context = bundle.model.config().context;
    let prompt = context.saturating_sub(run.ppo.max_new_tokens);
    let reader = Reader { tokenizer: &bundle.tokenizer, context, prompt, reading: Default::default() };
    let mut all = Vec::new();
    for part in prompts.chunks(ROWS) {
        let asked: Vec<Prompt> = part.iter().map(|p| reader.prompt_of(p)).collect::<Result<_, _>>()?;
        asked.iter().try_for_each(|prompt| reader.check_length(prompt))?;
        let tokens: Vec<Vec<u32>> = asked.into_iter().map(|prompt| prompt.tokens).collect();
        for ((prompt, tokens), completion) in part.iter().zip(&tokens).zip(draw(writer, &tokens, &run.ppo, stream)) {
            let text = bundle.tokenizer.continuation(tokens, &completion, true)?;
            let gold = corpus.gold(prompt, &text).unwrap_or(0.0);
            all.push((Example { prompt: tokens.clone(), completion }, gold));
        }
    }
    Ok(all)
}

/// Probability that an answer of the teacher agrees with the reward model, the mean over pairs of different
/// completions, and the same for the gold score itself, which no reward model can surpass.
pub(super) fn agreement(
    reward: Bundle,
    left: &[Written],
    right: &[Written],
    teacher: TeacherKind,
) -> Result<(f64, f64), LabError> {
    let head = reward.head().ok_or_else(|| LabError::Text("The session has no reward model yet.".to_owned()))?;
    let judge = TextReward::with_head(reward.model, head, &TextRewardSettings::default(), Seed(0))?;
    let score = |all: &[Written]| {
        let examples: Vec<Example> = all.iter().map(|(example, _)| example.clone()).collect();
        judge.rewards(&examples, &mut |_| false)
    };
    let scores = (score(left)?, score(right)?);
    let noise = text_noise(teacher).unwrap_or_default();
    let pairs = || left.iter().zip(right).zip(scores.0.iter().zip(&scores.1)).filter(|((a, b), _)| a.0 != b.0);
    let agrees = pairs().map(|((a, b), (left, right))| {
        let says_left = noise.probability_left(a.1, b.1);
        if left > right { says_left } else { 1.0 - says_left }
    });
    Ok((mean(agrees), mean(pairs().map(|((a, b), _)| noise.ceiling(a.1, b.1)))))
}

fn draw(
    writer: &Writer,
    prompts: &[Vec<u32>],
    ppo: &crate::settings::TextPpoSettings,
    stream: &mut Stream,
) -> Vec<Vec<u32>> {
    let sampling = Sampling {
        temperature: ppo.temperature,
        max_new_tokens: ppo.max_new_tokens,
        stop: writer.bundle.stop(),
        seed: stream.next_u64(),
        ..Sampling::default()
    };
    let (model, rows): (_, Vec<&[u32]>) = (&writer.bundle.model, prompts.iter().map(Vec::as_slice).collect());
    let written = match writer.values {
        Some((heads, beta)) => generate_by_values((model, heads), &rows, beta, &sampling, &mut |_, _| true),
        None => generate(model, &rows, &sampling, true, &mut |_, _| true),
    };
    written.into_iter().map(|completion| completion.tokens).collect()
}

fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = numbers.fold((0_usize, 0.0), |(count, sum), x| (count + 1, sum + x));
    sum / count.max(1) as f64
}
