//! Chooses how much work to submit at once, so that no submission takes long, from the durations of previous ones.

use std::time::{Duration, Instant};

/// The number of items (e.g. worlds or samples) to submit at once.
#[derive(Clone, Debug)]
pub struct SubmissionSizer {
    now: usize,
    least: usize,
    most: usize,
}

impl SubmissionSizer {
    /// How long one submission may take: a tenth of the time after which an operating system resets a device.
    pub const SUBMISSION: Duration = Duration::from_millis(200);

    /// Starts with `first` items, since no duration is known yet, and stays between `least` and `most`.
    pub fn new(first: usize, [least, most]: [usize; 2]) -> SubmissionSizer {
        SubmissionSizer { now: first.min(most), least: least.min(most), most }
    }

    /// Maximum number of items of the next submission.
    pub fn at_once(&self) -> usize {
        self.now
    }

    /// Records that a submission of so many items began at `started` and has just ended.
    pub fn took(&mut self, items: usize, started: Instant) {
        let time = started.elapsed();
        // Doubling and halving give few distinct sizes. Doubling waits until a third of the limit, so that the doubled
        // size is not halved again at once.
        if items == self.now && 3 * time < SubmissionSizer::SUBMISSION {
            self.now = (2 * self.now).min(self.most);
        } else if time > SubmissionSizer::SUBMISSION {
            self.now = (self.now / 2).max(self.least);
        }
    }
}
