//! What a pair consists of: clips of a robot, or completions of a language model.

use super::{Clip, Completion, ItemId};
use std::sync::Arc;

/// One of the two things in a pair.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A robot moving.
    Clip(Arc<Clip>),
    /// A text.
    Completion(Arc<Completion>),
}

impl Item {
    /// Its id, unique within the session.
    pub fn id(&self) -> ItemId {
        match self {
            Item::Clip(clip) => clip.id,
            Item::Completion(completion) => completion.id,
        }
    }

    /// Steps of training done when it was made.
    pub fn recorded_at(&self) -> u64 {
        match self {
            Item::Clip(clip) => clip.recorded_at,
            Item::Completion(completion) => completion.recorded_at,
        }
    }

    /// The clip, if it is one.
    pub fn clip(&self) -> Option<&Arc<Clip>> {
        match self {
            Item::Clip(clip) => Some(clip),
            Item::Completion(_) => None,
        }
    }

    /// The completion, if it is one.
    pub fn completion(&self) -> Option<&Arc<Completion>> {
        match self {
            Item::Completion(completion) => Some(completion),
            Item::Clip(_) => None,
        }
    }
}

/// Both items of a pair, if they are clips.
pub fn both_clips(items: &[Item; 2]) -> Option<[&Arc<Clip>; 2]> {
    Some([items[0].clip()?, items[1].clip()?])
}

/// Both items of a pair, if they are completions.
pub fn both_completions(items: &[Item; 2]) -> Option<[&Arc<Completion>; 2]> {
    Some([items[0].completion()?, items[1].completion()?])
}
