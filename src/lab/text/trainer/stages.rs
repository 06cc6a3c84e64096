//! Pipeline stages begin from the model of the one before, and end by writing their own.

use super::super::asking::Asking;
use super::super::corpus::{Prompt, Reader, reading_of};
use super::super::reward_functions::{Candidate, RewardFunctions, check_encoder, no_reward_model};
use super::super::teaching::{Teaching, sampling};
use super::super::{folders, tools};
use super::{Learning, NORMALISED_AT, Stage, TextTrainer};
use crate::lab::{LabError, TeacherKind};
use crate::settings::{RewardNormalisation, TextRun, TextStage};
use crate::store::ModelFolder;
use flipside_core::{Arrays, Seed};
use flipside_text::generate::{Completion, generate_each};
use flipside_text::tokenizer::Tokenizer;
use flipside_text::{Bundle, Reference, ScoreEncoder, Supervised, TextPpo, TextReward, tokenizer_of};
use rand::Rng;
use std::path::{Path, PathBuf};

/// Completions at which the members of an ensemble of reward models are normalised.
const NORMALISED: usize = 64;

impl TextTrainer {
    /// The folder of the model that a pipeline stage starts from; `None` starts from random weights.
    pub(super) fn origin(&self, stage: TextStage) -> Option<PathBuf> {
        let learns_words = stage <= TextStage::Supervised;
        match (&self.run.model, stage) {
            (Some(model), _) if stage <= self.run.from || (!learns_words && self.run.from > TextStage::Supervised) => {
                Some(model.clone())
            }
            (_, TextStage::Base) => None,
            (_, TextStage::Supervised) => Some(folders::of_stage(&self.folder, TextStage::Base)),
            _ => Some(folders::of_stage(&self.folder, TextStage::Supervised)),
        }
    }

    /// The model that a pipeline stage starts from, as it was read; `None` if it starts from random weights.
    pub(super) fn started_from(&self, stage: TextStage) -> Result<Option<Bundle>, LabError> {
        let Some(folder) = self.origin(stage) else { return Ok(None) };
        let adapter = self.run.adapter.as_deref().filter(|_| self.run.model.as_ref() == Some(&folder));
        folders::read_merged(&folder, adapter, self.run.precision).map(Some)
    }

    /// The model that a pipeline stage starts from.
    pub(super) fn bundle_for(&self, stage: TextStage) -> Result<Bundle, LabError> {
        let mut bundle = match self.started_from(stage)? {
            Some(bundle) => bundle,
            None => Bundle::random(&self.run.shape, self.tokenizer()?, self.run.precision, self.seed),
        };
        let adapted = stage > TextStage::Base || self.run.model.is_some();
        if adapted {
            let seed = Seed(self.seed.0.wrapping_add(stage as u64));
            bundle.prepare(self.run.lora.as_ref(), self.run.frozen_layers, seed)?;
        }
        bundle.model.set_checkpointing(self.run.gradient_checkpointing);
        Ok(bundle)
    }

    /// The tokenizer of the built-in model. It is trained once and then stored in the session.
    fn tokenizer(&self) -> Result<Tokenizer, LabError> {
        let folder = folders::models(&self.folder).join("tokenizer");
        let texts = match ModelFolder::read_texts(&folder) {
            Ok(texts) => texts,
            Err(_) => {
                let plan = tools::TokenizerPlan {
                    data: self.run.documents.clone(),
                    reading: reading_of(&self.run),
                    vocabulary: self.run.shape.vocabulary,
                    seed: self.seed.0,
                    output: folder.clone(),
                };
                tools::train_tokenizer(&plan)?;
                ModelFolder::read_texts(&folder)?
            }
        };
        Ok(tokenizer_of(&texts)?)
    }

    /// Starts a pipeline stage from the model of the one before. When a stage is resumed, `taught` says whether its
    /// reward model is being trained.
    pub(super) fn enter(&mut self, stage: TextStage, taught: Option<bool>) -> Result<(), LabError> {
        self.window = [0.0; 2];
        let bundle = self.bundle_for(stage)?;
        self.model = bundle.describe();
        if let Some(lora) = &self.run.lora
            && stage > TextStage::Base
        {
            self.model += &format!(", LoRA r = {}", lora.rank);
        }
        self.stage = match stage {
            TextStage::Base | TextStage::Supervised => {
                let reader = self.reader(&bundle);
                let (examples, settings, steps) = match stage {
                    TextStage::Base => (self.corpus.documents(&reader)?, &self.run.base, self.run.base_steps),
                    _ => (self.corpus.demonstrations(&reader)?, &self.run.supervised, self.run.supervised_steps),
                };
                // The held-out loss shows whether the model has learned the language or only these texts.
                let held = (examples.len() / 20).min(200);
                let (held, examples) = examples.split_at(held);
                let seed = Seed(self.seed.0.wrapping_add(stage as u64));
                let mut trainer = Supervised::new(bundle.model, settings, seed)?;
                trainer.plan(steps);
                let (held, examples) = (held.to_vec(), examples.to_vec());
                Stage::Learning(Box::new(Learning { stage, tokenizer: bundle.tokenizer, trainer, examples, held }))
            }
            TextStage::Reward | TextStage::Ppo => {
                // PPO uses a reward model that the session has finished as it is. But if the teacher is a person, it is
                // trained further.
                let person = self.teacher == TeacherKind::Person;
                let finished = stage == TextStage::Ppo && self.run.from < TextStage::Ppo;
                let given = match (&self.run.reward_model, taught) {
                    _ if !self.run.reward_functions.is_empty() => None,
                    (Some(folder), _) => Some(folder.clone()),
                    (None, Some(true)) => None,
                    (None, Some(false)) => Some(folders::of_stage(&self.folder, TextStage::Reward)),
                    (None, None) => (finished && !person).then(|| folders::of_stage(&self.folder, TextStage::Reward)),
                };
                Stage::Teaching(Box::new(self.teaching(bundle, stage, given.as_deref())?))
            }
            TextStage::Preference | TextStage::Ilql => Stage::Offline(Box::new(self.offline(bundle, stage)?)),
            TextStage::OnlineDpo => Stage::Online(Box::new(self.online(bundle)?)),
        };
        Ok(())
    }

    pub(super) fn reader<'a>(&self, bundle: &'a Bundle) -> Reader<'a> {
        let context = bundle.model.config().context;
        Reader {
            tokenizer: &bundle.tokenizer,
            context,
            prompt: context.saturating_sub(self.run.sampling().1),
            reading: reading_of(&self.run),
        }
    }

    /// The reader of a stage that has completions written.
    pub(super) fn checked_reader<'a>(&self, bundle: &'a Bundle) -> Result<Reader<'a>, LabError> {
        let reader = self.reader(bundle);
        match reader.prompt {
            0 => Err(LabError::Text(format!(
                "The model has {} positions and a completion may have {}, which leaves none for a prompt; lower \
                 max_new_tokens.",
                reader.context,
                self.run.sampling().1
            ))),
            _ => Ok(reader),
        }
    }

    fn teaching(&self, start: Bundle, stage: TextStage, given: Option<&Path>) -> Result<Teaching, LabError> {
        let reader = self.checked_reader(&start)?;
        let (prompts, filed) = (self.corpus.prompts(&reader)?, self.corpus.comparisons(&reader)?);
        let simulated = self.settings.teacher != TeacherKind::Person;
        let functions = self.reward_functions(&start, &prompts)?;
        let is_given = given.is_some() || functions.is_some();
        let answers = match self.run.reward.normalise {
            RewardNormalisation::References if !is_given => self.corpus.references(&reader, NORMALISED_AT)?,
            _ => Vec::new(),
        };
        if simulated && !is_given && filed.is_empty() && !self.corpus.has_gold() {
            return Err(LabError::Text(
                "Nobody knows the true score of completions of these prompts, so no simulated teacher can answer: give judged pairs \
                 or a reward model, or answer yourself at the desk."
                    .to_owned(),
            ));
        }
        let (mut reward, encoder) = match given {
            None if functions.is_some() => {
                // No reward model is trained. What stands in its place shares the frozen weights.
                let mut model = start.model.clone();
                model.freeze(usize::MAX);
                let reward = TextReward::new(model, &self.run.reward, self.seed)?;
                (reward, ScoreEncoder::new(&start.tokenizer, &start.tokenizer, start.stop(), reader.context))
            }
            None => {
                let reward = TextReward::new(start.model.deep_clone(), &self.run.reward, self.seed)?;
                (reward, ScoreEncoder::new(&start.tokenizer, &start.tokenizer, start.stop(), reader.context))
            }
            Some(folder) => {
                let bundle = folders::read(folder, self.run.precision)?;
                let head = bundle.head().ok_or_else(|| no_reward_model(folder))?;
                let bias = bundle.score.as_ref().map_or(0.0, |(_, bias)| *bias);
                let context = bundle.model.config().context;
                let encoder = ScoreEncoder::new(&start.tokenizer, &bundle.tokenizer, start.stop(), context);
                check_encoder(&encoder, &prompts, folder, context, self.run.ppo.max_new_tokens)?;
                let mut reward = TextReward::with_head(bundle.model, head, &self.run.reward, self.seed)?;
                reward.set_gain_and_bias([1.0, bias]);
                (reward, encoder)
            }
        };
        // A person's answers have no known end, so the learning rate does not decay.
        let one_fit = simulated || !filed.is_empty();
        reward.plan(if one_fit { self.run.reward_steps } else { 0 });
        let policy = start.model.deep_clone();
        let reference = if self.run.lora.is_some() { Reference::Base } else { Reference::Model(start.model.clone()) };
        let mut ppo = TextPpo::new(policy, reference, &start.stop(), &self.run.ppo, self.seed)?;
        ppo.plan(self.run.updates);
        Ok(Teaching {
            stage,
            reward,
            ppo,
            trusted: is_given,
            given: is_given,
            functions,
            references: prompts.iter().map(|prompt| prompt.reference.clone()).collect(),
            answers,
            fitted: (0, 0),
            fit_left: 0,
            unscaled: false,
            fit: 0,
            filed,
            margin: self.run.reward.margin,
            asking: Asking::new(&self.run, &start, Seed(self.seed.stream("text.ensemble").next_u64())),
            words: prompts.iter().map(|prompt| (prompt.tokens.clone(), prompt.words.clone())).collect(),
            prompts: prompts.into_iter().map(|prompt| prompt.tokens).collect(),
            encoder,
            draws: self.seed.stream("text.draws"),
            recent_predictions: Vec::new(),
            start,
        })
    }

    /// The run's reward functions, if it has some. Ensembles are normalised at completions of the model that training
    /// starts from. In online DPO, a reward model that is given is one of them.
    pub(super) fn reward_functions(
        &self,
        start: &Bundle,
        prompts: &[Prompt],
    ) -> Result<Option<RewardFunctions>, LabError> {
        let TextRun { reward_functions: typed, reward_model, precision, until, .. } = &self.run;
        let model = reward_model.as_ref().filter(|_| *until == TextStage::OnlineDpo);
        let typed: Vec<String> =
            typed.iter().cloned().chain(model.map(|folder| format!("model:{}", folder.display()))).collect();
        if typed.is_empty() {
            return Ok(None);
        }
        let mut functions = RewardFunctions::load(&typed, start, *precision, prompts, self.run.sampling().1)?;
        if functions.has_ensemble() {
            let count = NORMALISED.min(prompts.len());
            let chosen: Vec<&Prompt> = (0..count).map(|i| &prompts[i * prompts.len() / count]).collect();
            let rows: Vec<&[u32]> = chosen.iter().map(|prompt| &prompt.tokens[..]).collect();
            let sampling = sampling(start, &self.run, self.seed.stream("text.reward_functions").next_u64());
            let each = NORMALISED.div_ceil(count);
            let written = generate_each(&start.model, &rows, each, &sampling, true, &mut |_, _| true);
            let candidate = |(i, completion): (usize, Completion)| Candidate {
                words: chosen[i / each].words.clone(),
                prompt: chosen[i / each].tokens.clone(),
                completion: completion.tokens,
                reference: None,
            };
            let samples: Vec<Candidate> = written.into_iter().enumerate().map(candidate).collect();
            functions.normalise(&samples, &mut || false)?;
        }
        Ok(Some(functions))
    }

    /// Writes the model of the current pipeline stage and enters the next one.
    pub(super) fn leave(&mut self) -> Result<(), LabError> {
        let next = match &self.stage {
            Stage::Learning(learning) => {
                let copy = Bundle {
                    model: learning.trainer.model().clone(),
                    tokenizer: learning.tokenizer.clone(),
                    score: None,
                };
                self.save_model(&copy, learning.stage)?;
                learning.stage.next_towards(self.run.until)
            }
            Stage::Offline(offline) => {
                self.save_model_with(&offline.bundle(), offline.stage, offline.heads())?;
                None
            }
            Stage::Online(online) => {
                self.save_model(&online.bundle(), TextStage::OnlineDpo)?;
                None
            }
            Stage::Teaching(teaching) => {
                if !teaching.given {
                    self.save_model(&teaching.reward_bundle(), TextStage::Reward)?;
                }
                if self.run.until == TextStage::Ppo && teaching.ppo.updates() > 0 {
                    // This makes the folder of models, if there is none yet.
                    self.save_model(&teaching.policy_bundle(), TextStage::Ppo)?;
                    if let Some(critic) = teaching.ppo.critic() {
                        folders::write_critic(&self.folder, critic)?;
                    }
                }
                self.stage = Stage::Done(self.run.until);
                return Ok(());
            }
            Stage::Done(_) => return Ok(()),
        };
        match next {
            Some(next) => {
                // The model that is finished and saved is not kept beside the next one.
                self.stage = Stage::Done(self.stage.began());
                self.enter(next, None)
            }
            None => {
                self.stage = Stage::Done(self.run.until);
                Ok(())
            }
        }
    }

    /// Writes the policy as it is, if this update is one of those that [`TextRun::policy_checkpoints`] names.
    pub(super) fn save_policy_checkpoint(&self) -> Result<(), LabError> {
        let Stage::Teaching(teaching) = &self.stage else { return Ok(()) };
        let (update, updates) = (teaching.ppo.updates(), self.run.updates);
        if !folders::policy_checkpoints(self.run.policy_checkpoints, updates).contains(&update) {
            return Ok(());
        }
        let (bundle, folder) = (teaching.policy_bundle(), folders::of_policy_checkpoint(&self.folder, update));
        let base = self.origin(self.stage.began()).map(|path| path.display().to_string());
        match bundle.to_adapter_parts(base.as_deref()) {
            Some(adapter) => folders::replace(&folder, adapter),
            None => folders::replace(&folder, bundle.to_parts()?),
        }
    }

    /// Writes a pipeline stage's model into the session. If it has an adapter, both are written: the adapter to share,
    /// and the merged model for the next stage to start from.
    pub(super) fn save_model(&self, bundle: &Bundle, stage: TextStage) -> Result<(), LabError> {
        self.save_model_with(bundle, stage, Arrays::new())
    }

    /// The same with further arrays beside the model's.
    pub(super) fn save_model_with(&self, bundle: &Bundle, stage: TextStage, more: Arrays) -> Result<(), LabError> {
        let stage_began = self.stage.began();
        let base = self.origin(stage_began).map(|path| path.display().to_string());
        if let Some(parts) = bundle.to_adapter_parts(base.as_deref()) {
            folders::replace(&folders::adapter_of(&self.folder, stage), parts)?;
            let merged = Bundle {
                model: bundle.model.merged(),
                tokenizer: bundle.tokenizer.clone(),
                score: bundle.score.clone(),
            };
            let (texts, mut arrays) = merged.to_parts()?;
            arrays.extend(more);
            return folders::replace(&folders::of_stage(&self.folder, stage), (texts, arrays));
        }
        let (texts, mut arrays) = bundle.to_parts()?;
        arrays.extend(more);
        folders::replace(&folders::of_stage(&self.folder, stage), (texts, arrays))
    }
}
