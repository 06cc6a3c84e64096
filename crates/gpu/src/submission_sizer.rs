//! How much may be submitted together, so that no submission takes long: learnt from how long the last ones took.

use std::time::{Duration, Instant};

/// So many items (worlds, say, or samples) are submitted at once.
#[derive(Clone, Debug)]
pub struct SubmissionSizer {
    now: usize,
    least: usize,
    most: usize,
}

impl SubmissionSizer {
    /// How long what is submitted together may take: a tenth of what a system waits before it resets a device.
    pub const SUBMISSION: Duration = Duration::from_millis(200);

    /// Begins with `first` items, of which nothing is known yet, and stays between `least` and `most`.
    pub fn new(first: usize, [least, most]: [usize; 2]) -> SubmissionSizer {
        SubmissionSizer { now: first.min(most), least: least.min(most), most }
    }

    /// Items of the next submission, at most.
    pub fn at_once(&self) -> usize {
        self.now
    }

    /// Takes note that a submission of so many items began then and ends now.
    pub fn took(&mut self, items: usize, started: Instant) {
        let time = started.elapsed();
        // Doubled and halved, so that there are few sizes, and late enough that one slow moment changes nothing twice.
        if items == self.now && 3 * time < SubmissionSizer::SUBMISSION {
            self.now = (2 * self.now).min(self.most);
        } else if time > SubmissionSizer::SUBMISSION {
            self.now = (self.now / 2).max(self.least);
        }
    }
}
