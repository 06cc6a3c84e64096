//! What the ledger asks of the worker, as one small shared value instead of a queue. The worker checks `quit` between
//! minibatches and reads the other requests once a round.

use super::inside::InsideRequest;
use super::questions::Answers;
use flipside_core::{Choice, Item, JudgementId, PairId};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A standing judgement with the items that it is about.
#[derive(Clone, Debug)]
pub(super) struct Label {
    pub judgement: JudgementId,
    pub pair: PairId,
    pub items: [Item; 2],
    pub choice: Choice,
}

/// What to do about looking inside the models.
#[derive(Clone, Debug)]
pub(super) enum LookOrder {
    /// Begin this, in place of what is being looked at.
    Begin(InsideRequest),
    /// Stop.
    Stop,
}

/// The current requests.
#[derive(Clone, Default)]
pub(super) struct WorkerRequests {
    /// Whether to train (true) or rest (false).
    pub run: bool,
    /// Save and end.
    pub quit: bool,
    /// Write a checkpoint at the next opportunity.
    pub save: bool,
    /// Show what the policy does at the next opportunity.
    pub show_policy: bool,
    /// Text mode: a free prompt to answer at the next opportunity.
    pub ask: Option<String>,
    /// Text mode: the latest order to look inside the models, or to stop that.
    pub look: Option<LookOrder>,
    /// Text mode: the prompts to ask about from the next opportunity on.
    pub prompts: Option<Vec<String>>,
    /// Who answers, and what was answered.
    pub answers: Answers,
    /// How many offers of pairs the ledger has processed. A teacher that answers at once has answered them by then.
    pub offers_done: u64,
    /// Judgements that the person has confirmed, whatever the reward model says of them.
    pub confirmed: Arc<Vec<JudgementId>>,
    /// Writing to the session failed. Training stops, because its results could not be saved.
    pub disk_fault: Option<String>,
}

/// [`WorkerRequests`] behind a lock, with a condition variable that signals changes.
pub(super) struct SharedRequests {
    requests: Mutex<WorkerRequests>,
    changed: Condvar,
}

impl SharedRequests {
    pub fn new(requests: WorkerRequests) -> SharedRequests {
        SharedRequests { requests: Mutex::new(requests), changed: Condvar::new() }
    }

    pub fn change(&self, change: impl FnOnce(&mut WorkerRequests)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    pub fn latest(&self) -> WorkerRequests {
        self.lock().clone()
    }

    pub fn quitting(&self) -> bool {
        self.lock().quit
    }

    /// Whether this holds of the current requests.
    pub fn holds(&self, of: impl Fn(&WorkerRequests) -> bool) -> bool {
        of(&self.lock())
    }

    /// Waits until `ready` holds, then returns the requests.
    pub fn wait_until(&self, ready: impl Fn(&WorkerRequests) -> bool) -> WorkerRequests {
        let guard = self.changed.wait_while(self.lock(), |w| !ready(w)).unwrap_or_else(PoisonError::into_inner);
        guard.clone()
    }

    /// Takes a one-time request: returns its value and clears it.
    pub fn take<T: Default>(&self, field: impl FnOnce(&mut WorkerRequests) -> &mut T) -> T {
        std::mem::take(field(&mut self.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, WorkerRequests> {
        // Every change is a plain assignment, so a poisoned lock still holds a whole value.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
