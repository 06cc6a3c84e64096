//! Reward functions at work: reads their models, runs their programs and scores completions.

use super::corpus::Prompt;
use super::folders;
use super::program::Program;
use super::teaching::Words;
use crate::lab::LabError;
use crate::settings::TextPrecision;
use flipside_learn::LearnError;
use flipside_text::data::TextOrMessages;
use flipside_text::model::Transformer;
use flipside_text::reward_functions::{
    Answer, Combination, FittedReward, Normaliser, RewardFunction, RewardKind, Rule, weighted_sum,
};
use flipside_text::tokenizer::Tokenizer;
use flipside_text::{Bundle, Episode, Example, ScoreEncoder};
use std::path::Path;

/// Completions that a reward model scores at a time.
const ROWS: usize = 32;

/// A completion to be scored.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// What the prompt says.
    pub words: TextOrMessages,
    /// The policy's tokens of the prompt.
    pub prompt: Vec<u32>,
    /// What it wrote, with its end if it has one.
    pub completion: Vec<u32>,
    /// The answer that the data gives.
    pub reference: Option<String>,
}

/// What is scored of an update's completions. `words` says what the prompts say, by their tokens, and `references` are
/// the answers that the data gives, by the prompts' places.
pub(super) fn candidates(
    episodes: &[Episode],
    words: &Words,
    references: &[Option<String>],
    tokenizer: &Tokenizer,
) -> Vec<Candidate> {
    let typed = |prompt: &[u32]| TextOrMessages::Text(tokenizer.decode(prompt, true).unwrap_or_default());
    let candidate = |e: &Episode| Candidate {
        words: words.get(&e.prompt).cloned().unwrap_or_else(|| typed(&e.prompt)),
        prompt: e.prompt.clone(),
        completion: e.completion.clone(),
        reference: references.get(e.prompt_index).cloned().flatten(),
    };
    episodes.iter().map(candidate).collect()
}

/// The functions of a run, whose weighted scores are added up.
pub(super) struct RewardFunctions {
    functions: Vec<(f64, Function)>,
    /// The policy's tokenizer.
    tokenizer: Tokenizer,
}

enum Function {
    Models(Vec<Member>, Combination),
    Rule(Rule),
    Program(Program),
}

/// A reward model, alone or in an ensemble.
struct Member {
    reward: FittedReward<Transformer>,
    encoder: ScoreEncoder,
    /// Of a member of an ensemble, once there are samples.
    normaliser: Option<Normaliser>,
}

/// Parses reward functions as they are typed.
///
/// # Errors
///
/// One that is not understood.
pub(super) fn parse(typed: &[String]) -> Result<Vec<RewardFunction>, LabError> {
    let parse = |text: &String| text.parse::<RewardFunction>();
    typed.iter().map(parse).collect::<Result<_, String>>().map_err(LabError::Text)
}

/// The folders that reward functions name.
pub(super) fn folders_of(functions: &[RewardFunction]) -> impl Iterator<Item = &str> {
    functions.iter().flat_map(|function| match &function.kind {
        RewardKind::Model(folder) => vec![folder.as_str()],
        RewardKind::Ensemble(_, folders) => folders.iter().map(String::as_str).collect(),
        RewardKind::Rule(_) | RewardKind::Program(_) => vec![],
    })
}

impl RewardFunctions {
    /// The functions `typed`, for completions of up to `longest` tokens that a policy with the tokenizer of `start`
    /// writes for these prompts.
    ///
    /// # Errors
    ///
    /// A function that is not understood, or a reward model that cannot be read or does not fit.
    pub fn load(
        typed: &[String],
        start: &Bundle,
        precision: TextPrecision,
        prompts: &[Prompt],
        longest: usize,
    ) -> Result<RewardFunctions, LabError> {
        let member = |folder: &String| -> Result<Member, LabError> {
            let folder = Path::new(folder);
            let bundle = folders::read(folder, precision)?;
            let head = bundle.head().ok_or_else(|| no_reward_model(folder))?;
            let bias = bundle.score.as_ref().map_or(0.0, |(_, bias)| *bias);
            let context = bundle.model.config().context;
            let encoder = ScoreEncoder::new(&start.tokenizer, &bundle.tokenizer, start.stop(), context);
            check_encoder(&encoder, prompts, folder, context, longest)?;
            Ok(Member { reward: FittedReward::new(bundle.model, head, bias), encoder, normaliser: None })
        };
        let function = |RewardFunction { weight, kind }| -> Result<(f64, Function), LabError> {
            let function = match kind {
                RewardKind::Model(folder) => Function::Models(vec![member(&folder)?], Combination::Mean),
                RewardKind::Ensemble(combination, folders) => {
                    Function::Models(folders.iter().map(member).collect::<Result<_, _>>()?, combination)
                }
                RewardKind::Rule(rule) => Function::Rule(rule),
                RewardKind::Program(command) => Function::Program(Program::new(&command)),
            };
            Ok((weight, function))
        };
        let functions = parse(typed)?.into_iter().map(function).collect::<Result<Vec<_>, LabError>>()?;
        Ok(RewardFunctions { functions, tokenizer: start.tokenizer.clone() })
    }

    /// Whether there is an ensemble, whose members have to be normalised before they score.
    pub fn has_ensemble(&self) -> bool {
        let is_ensemble = |function: &Function| matches!(function, Function::Models(members, _) if members.len() > 1);
        self.functions.iter().any(|(_, function)| is_ensemble(function))
    }

    /// Normalises each member of an ensemble at these samples of the reference.
    pub fn normalise(&mut self, samples: &[Candidate], cancelled: &mut dyn FnMut() -> bool) -> Result<(), LabError> {
        for (_, function) in &mut self.functions {
            let Function::Models(members, _) = function else { continue };
            if members.len() > 1 {
                for member in members {
                    member.normaliser = None;
                    member.normaliser = Some(Normaliser::new(&member.rewards(samples, cancelled)?));
                }
            }
        }
        Ok(())
    }

    /// The score of each completion; `None` for no score.
    ///
    /// # Errors
    ///
    /// A cancel, a program that fails, a reward that is not finite.
    pub fn scores(
        &mut self,
        candidates: &[Candidate],
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Option<f32>>, LabError> {
        let answers: Vec<Answer> = candidates.iter().map(|c| self.answer(c)).collect::<Result<_, _>>()?;
        let mut terms = Vec::with_capacity(self.functions.len());
        for (weight, function) in &mut self.functions {
            let scores: Vec<Option<f32>> = match function {
                Function::Rule(rule) => answers.iter().map(|answer| rule.score(answer)).collect(),
                Function::Program(program) => program.scores(&answers, cancelled)?,
                Function::Models(members, combination) => {
                    let each: Vec<Vec<f32>> =
                        members.iter().map(|member| member.rewards(candidates, cancelled)).collect::<Result<_, _>>()?;
                    combination.combine(&each).into_iter().map(Some).collect()
                }
            };
            if scores.iter().flatten().any(|score| !score.is_finite()) {
                return Err(LearnError::NotFinite { what: "a reward".to_owned() }.into());
            }
            terms.push((*weight, scores));
        }
        Ok(weighted_sum(&terms))
    }

    fn answer(&self, candidate: &Candidate) -> Result<Answer, LabError> {
        let Candidate { prompt, completion, reference, .. } = candidate;
        Ok(Answer {
            prompt: self.tokenizer.decode(prompt, true)?,
            completion: self.tokenizer.continuation(prompt, completion, true)?,
            tokens: completion.len(),
            reference: reference.clone(),
        })
    }
}

impl Member {
    fn rewards(&self, candidates: &[Candidate], cancelled: &mut dyn FnMut() -> bool) -> Result<Vec<f32>, LabError> {
        let example = |c: &Candidate| self.encoder.example(&c.words, &c.prompt, &c.completion);
        let examples: Vec<Example> = candidates.iter().map(example).collect::<Result<_, _>>()?;
        let rewards = self.reward.rewards(&examples, ROWS, &mut |_| cancelled())?;
        Ok(match self.normaliser {
            Some(normaliser) => normaliser.apply(&rewards),
            None => rewards,
        })
    }
}

/// The error for a folder whose model has no score head.
pub(super) fn no_reward_model(folder: &Path) -> LabError {
    let folder = folder.display();
    LabError::Text(format!(
        "{folder} is no …ForSequenceClassification; teach a reward model with `flipside text reward`."
    ))
}

/// Refuses a reward model that cannot read the prompts or a whole completion of `longest` tokens.
pub(super) fn check_encoder(
    encoder: &ScoreEncoder,
    prompts: &[Prompt],
    folder: &Path,
    context: usize,
    longest: usize,
) -> Result<(), LabError> {
    let folder = folder.display();
    if context <= longest {
        return Err(LabError::Text(format!(
            "The reward model in {folder} has {context} positions, and a completion may have {longest} tokens; lower \
             max_new_tokens, or take a reward model with a longer context."
        )));
    }
    let mut cut = 0;
    for Prompt { words, tokens, .. } in prompts {
        let length = match encoder.encodes_anew() {
            false => tokens.len(),
            true => {
                let tokens = encoder.prompt(words);
                let tokens = tokens.map_err(|error| {
                    LabError::Text(format!("The reward model in {folder} cannot read a prompt: {error}."))
                });
                tokens?.len()
            }
        };
        cut += usize::from(length + longest > context);
    }
    if encoder.encodes_anew() {
        log::warn!(
            "the reward model in {folder} has another tokenizer or chat template than the policy; completions are encoded anew \
             for it"
        );
    }
    if cut > 0 {
        log::warn!(
            "the reward model in {folder} has {context} positions: for {cut} of {} prompts it may not see their beginnings",
            prompts.len()
        );
    }
    Ok(())
}
