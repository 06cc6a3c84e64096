//! Looking inside the models of the present stage: what is compared, and the view that is under way.

use super::super::folders;
use super::super::inside::{Looking, Models, Question, Refusal};
use super::{Stage, TextTrainer};
use crate::lab::LabError;
use crate::lab::vocabulary::{Inside, InsideField, InsideRequest, InsideSeen};
use crate::settings::TextStage;
use flipside_core::panic_reason;
use flipside_text::Bundle;
use flipside_text::model::Transformer;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What a person looks at inside the models.
#[derive(Default)]
pub(super) struct Looks {
    /// What was found; `None` before anybody looked.
    pub shown: Option<Arc<Inside>>,
    /// What is compared in all views that are shown.
    question: Option<Question>,
    looking: Option<Box<Looking>>,
    /// What was read from the session's folder for a stage, because training does not have it in memory: the model that
    /// the stage started from, and the finished one.
    read: Option<(TextStage, Bundle, Option<Transformer>)>,
}

impl Looks {
    pub fn is_looking(&self) -> bool {
        self.looking.is_some()
    }

    /// Copies what training would change while the rest waits.
    pub fn keep(&mut self) {
        if let Some(looking) = &mut self.looking {
            looking.keep();
        }
    }

    /// Ends the view that is under way. What it found stays.
    pub fn stop(&mut self) {
        self.looking = None;
        if let Some(shown) = &mut self.shown {
            Arc::make_mut(shown).progress = None;
        }
    }

    /// Does the next part of the view that is under way.
    pub fn go_on(&mut self, cancelled: &mut dyn FnMut() -> bool) {
        let (Some(looking), Some(question)) = (&mut self.looking, &self.question) else { return };
        match guarded(|| looking.go_on(question, cancelled).map_err(of_models)) {
            Ok(()) => self.publish(),
            Err((_, error)) if error.is_cancelled() => self.stop(),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Shows what the view under way has found, and ends it if that is all.
    fn publish(&mut self) {
        let (Some(looking), Some(shown)) = (&self.looking, &mut self.shown) else { return };
        let (shown, complete) = (Arc::make_mut(shown), looking.is_complete());
        let seen = InsideSeen { steps: looking.steps, complete, found: looking.found.clone() };
        shown.seen.insert(looking.view, Arc::new(seen));
        shown.progress = (!complete).then_some(looking.progress);
        if complete {
            self.looking = None;
        }
    }

    fn refuse(&mut self, (field, error): Refusal) {
        self.stop();
        if let Some(shown) = &mut self.shown {
            Arc::make_mut(shown).refusal = Some((field, error.to_string()));
        }
    }
}

/// A refusal that concerns no field.
fn of_models(error: LabError) -> Refusal {
    (InsideField::Models, error)
}

/// Does something with the models; a failure of the tensor library, such as running out of memory, is an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    // Nothing that training has is changed in there.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let why = panic_reason(&*panic);
        Err(of_models(LabError::Text(format!(
            "This could not be computed ({why}); a shorter prompt needs less memory."
        ))))
    })
}

impl TextTrainer {
    /// Begins a view in place of the one under way. It is added to the views of the same prompt and answers, unless it
    /// is there already; otherwise everything is looked at anew.
    pub(super) fn begin_inside(&mut self, request: InsideRequest) {
        self.looks.stop();
        let has_question = self.looks.question.is_some();
        let known = self.looks.shown.take().filter(|shown| {
            let same = shown.request.prompt == request.prompt && shown.request.answers == request.answers;
            let there = shown.seen.get(&request.view).is_some_and(|seen| seen.complete);
            has_question && same && !there
        });
        let shown = match known {
            Some(shown) => Inside { request, refusal: None, ..(*shown).clone() },
            None => {
                self.looks.question = None;
                Inside { request, ..Inside::default() }
            }
        };
        self.looks.shown = Some(Arc::new(shown));
        match self.start_looking() {
            Ok(looking) => {
                self.looks.looking = Some(Box::new(looking));
                self.looks.publish();
            }
            Err(refusal) => self.looks.refuse(refusal),
        }
    }

    fn start_looking(&mut self) -> Result<Looking, Refusal> {
        let models = self.compared_models().map_err(of_models)?;
        let Some(shown) = &mut self.looks.shown else { return Err(of_models(LabError::Cancelled)) };
        let shown = Arc::make_mut(shown);
        let InsideRequest { prompt, answers, view } = &shown.request;
        let question = match self.looks.question.take() {
            Some(question) if question.steps == self.steps => question,
            Some(question) => guarded(|| question.renewed(&models, self.steps).map_err(of_models))?,
            None => guarded(|| Question::read(&models, prompt, answers, self.steps))?,
        };
        shown.question = Some(question.view.clone());
        let question = self.looks.question.insert(question);
        guarded(|| Looking::begin(*view, models, question, self.steps).map_err(of_models))
    }

    /// The model that the present stage started from, and the one that it has come to.
    fn compared_models(&mut self) -> Result<Models, LabError> {
        let of = |start: &Bundle, tuned: &Transformer| Models {
            base: start.model.clone(),
            tuned: tuned.clone(),
            tokenizer: start.tokenizer.clone(),
        };
        let (stage, tuned) = match &self.stage {
            Stage::Teaching(teaching) => return Ok(of(&teaching.start, teaching.ppo.policy())),
            Stage::Online(online) => return Ok(of(&online.start, online.learner.policy())),
            Stage::Offline(offline) if !offline.shares_weights => return Ok(of(&offline.start, offline.model())),
            Stage::Offline(offline) => (offline.stage, Some(offline.model().clone())),
            Stage::Learning(learning) => (learning.stage, Some(learning.trainer.model().clone())),
            Stage::Done(until) => match folders::last_stage(&self.folder, *until) {
                Some(stage) => (stage, None),
                None => {
                    return Err(LabError::Text(
                        "This run has trained a reward model alone, which predicts no tokens; look into it with \
                         `flipside text look reward`."
                            .to_owned(),
                    ));
                }
            },
        };
        if self.looks.read.as_ref().is_none_or(|(read, _, model)| *read != stage || model.is_some() != tuned.is_none())
        {
            let Some(start) = self.started_from(stage)? else {
                return Err(LabError::Text(
                    "The base model learns from nothing, so there is no earlier model to compare it with; look inside once \
                     the supervised model is being trained."
                        .to_owned(),
                ));
            };
            let finished = match tuned {
                Some(_) => None,
                None => Some(folders::read(&folders::of_stage(&self.folder, stage), self.run.precision)?.model),
            };
            self.looks.read = Some((stage, start, finished));
        }
        match (&self.looks.read, tuned) {
            (Some((_, start, _)), Some(tuned)) => Ok(of(start, &tuned)),
            (Some((_, start, Some(tuned))), None) => Ok(of(start, tuned)),
            _ => Err(LabError::Cancelled),
        }
    }
}
