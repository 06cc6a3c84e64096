//! The models of a plan: what is compared with what, read from folders or from a session.

use super::super::{built_in, folders};
use super::{LookModels, LookWhat};
use crate::lab::LabError;
use crate::settings::TextStage;
use crate::store::Session;
use flipside_text::interp::Subject;
use flipside_text::{Bundle, ScalarHead};
use std::path::Path;

/// What is wanted of a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The model that its training started from, and the one that it came to.
    Both,
    /// Its reward model alone.
    Reward,
    /// Its policy and the critic of that.
    Critic,
}

impl Wanted {
    pub fn of(what: &LookWhat) -> Wanted {
        match what {
            LookWhat::Reward => Wanted::Reward,
            LookWhat::Value => Wanted::Critic,
            _ => Wanted::Both,
        }
    }
}

/// The models of a plan.
pub(super) struct Opened {
    pub base: Bundle,
    /// The tuned version, if it is a model of its own.
    pub tuned: Option<Bundle>,
    /// Whether the tuned version is the base model with its adapter.
    pub adapted: bool,
    /// The critic of the base model, if one was wanted.
    pub critic: Option<ScalarHead>,
    /// What both are called.
    pub names: [String; 2],
}

impl Opened {
    /// Reads them.
    pub fn read(models: &LookModels, wanted: Wanted) -> Result<Opened, LabError> {
        let refuse = |why: &str| Err(LabError::Text(why.to_owned()));
        let name = |path: &Path| path.display().to_string();
        let precision = models.precision;
        if models.adapter.is_some() && models.against.is_some() {
            return refuse(
                "A tuned version is either the model with --adapter or the one in --against; leave one out.",
            );
        }
        if let Some(session) = &models.session {
            if models.model.is_some() || models.adapter.is_some() || models.against.is_some() {
                return refuse("A session has its own models; leave out --model, --adapter and --against.");
            }
            return Opened::of_session(session, wanted);
        }
        if wanted == Wanted::Critic {
            return Err(no_session_of_critic());
        }
        let Some(folder) = &models.model else {
            if models.adapter.is_some() {
                return refuse("An adapter needs its model; name that with --model.");
            }
            let base = built_in::bundle_of(TextStage::Supervised, precision)?;
            let mut names = ["the built-in supervised model".to_owned(), String::new()];
            let tuned = models.against.as_ref().map(|path| folders::read(path, precision)).transpose()?;
            names[1] = models.against.as_deref().map_or(String::new(), name);
            return Ok(Opened { base, tuned, adapted: false, critic: None, names });
        };
        let base = folders::read_with(folder, models.adapter.as_deref(), precision)?;
        let tuned = models.against.as_ref().map(|path| folders::read(path, precision)).transpose()?;
        let other = models.against.as_deref().or(models.adapter.as_deref()).map_or(String::new(), name);
        Ok(Opened { base, tuned, adapted: models.adapter.is_some(), critic: None, names: [name(folder), other] })
    }

    /// The models of a session.
    fn of_session(session: &Path, wanted: Wanted) -> Result<Opened, LabError> {
        let settings = Session::open_to_read(session)?.settings().clone();
        let run = settings.text().cloned().ok_or_else(|| {
            LabError::Text(format!("{} teaches a robot, which has no language model to look into.", session.display()))
        })?;
        let stage = match wanted {
            Wanted::Reward => TextStage::Reward,
            Wanted::Critic => TextStage::Ppo,
            Wanted::Both => folders::last_stage(session, run.until).ok_or_else(|| {
                let name = session.display();
                LabError::Text(format!(
                    "The session in {name} has no trained model yet; let it train until it has one."
                ))
            })?,
        };
        let trained = folders::of_stage(session, stage);
        if !trained.is_dir() {
            let own = run.reward_model.is_none() && run.reward_functions.is_empty();
            return Err(LabError::Text(format!(
                "The session in {} has no {} of its own; {}.",
                session.display(),
                if wanted == Wanted::Critic { "policy of PPO" } else { "reward model" },
                match own || wanted == Wanted::Critic {
                    true => "let it train until it has one",
                    false => "name the one that it was given with --model",
                }
            )));
        }
        let before = if stage == TextStage::Supervised { TextStage::Base } else { TextStage::Supervised };
        let own = folders::of_stage(session, before);
        let start = if own.is_dir() { Some(own) } else { run.model.clone() };
        let tuned = folders::read(&trained, run.precision)?;
        let name = |path: &Path| path.display().to_string();
        let critic = match wanted {
            Wanted::Critic => Some(folders::critic(session, &tuned.model)?.ok_or_else(|| {
                LabError::Text(format!(
                    "The session in {} has no critic: only text.ppo.advantage = gae trains one, and versions before this \
                     one did not keep it.",
                    session.display()
                ))
            })?),
            _ => None,
        };
        Ok(match start {
            Some(start) if wanted == Wanted::Both => {
                // Training began with the adapter that the run was given, merged into the model.
                let given = run.adapter.as_deref().filter(|_| run.model.as_ref() == Some(&start));
                let base = folders::read_merged(&start, given, run.precision)?;
                let names = [name(&start), name(&trained)];
                Opened { base, tuned: Some(tuned), adapted: false, critic, names }
            }
            // A head is looked into alone: the model before it has none.
            _ => {
                let names = [name(&trained), String::new()];
                Opened { base: tuned, tuned: None, adapted: false, critic, names }
            }
        })
    }

    /// Base and tuned version.
    pub fn subjects(&self) -> Result<[Option<Subject<'_>>; 2], LabError> {
        let base = Subject::new(&self.base.model, !self.adapted)?;
        let tuned = match &self.tuned {
            Some(tuned) => {
                if !self.base.tokenizer.encodes_like(&tuned.tokenizer) {
                    return Err(LabError::Text(
                        "The two models have different tokenizers, so their tokens cannot be compared; take two \
                         versions of one model."
                            .to_owned(),
                    ));
                }
                Some(Subject::new(&tuned.model, true)?)
            }
            None if self.adapted => Some(Subject::new(&self.base.model, true)?),
            None => None,
        };
        if let Some(tuned) = &tuned {
            base.check_alike(tuned)?;
        }
        Ok([Some(base), tuned])
    }
}

pub(super) fn no_session_of_critic() -> LabError {
    LabError::Text("A critic belongs to a session of PPO; name that with --session.".to_owned())
}
