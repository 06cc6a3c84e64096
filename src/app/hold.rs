//! The desk's connection to a lab. A lab is opened in the background, so that the window appears at once. It is let go
//! only when everything that it learnt is on disk.

use super::options::{LabFactory, Repaint};
use crate::lab::{Command, Event, Link};
use crate::settings::RunSettings;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a lab may take to save and close. After that, the desk goes on without its confirmation.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// What follows once the lab has closed.
enum After {
    /// Another run is opened.
    Open(Box<RunSettings>),
    /// Nothing: the window closes.
    End,
}

enum State {
    /// A thread is opening the lab.
    Opening(mpsc::Receiver<anyhow::Result<Box<dyn Link>>>),
    /// It runs.
    Open(Box<dyn Link>),
    /// It could not be opened. The sentence says why.
    Failed(String),
    /// It is closing: since when, whether its queue has accepted the command, and what follows.
    Closing { link: Box<dyn Link>, since: Instant, told: bool, after: After },
    /// It has closed.
    Ended,
}

/// The one lab of a desk, in any state.
pub(super) struct Hold {
    make_lab: LabFactory,
    repaint: Repaint,
    settings: RunSettings,
    state: State,
}

impl Hold {
    /// Starts to open a lab with `settings`.
    pub fn open(make_lab: LabFactory, repaint: Repaint, settings: RunSettings) -> Hold {
        let mut hold = Hold { make_lab, repaint, settings: settings.clone(), state: State::Ended };
        hold.begin(settings);
        hold
    }

    fn begin(&mut self, settings: RunSettings) {
        let (sender, receiver) = mpsc::sync_channel(1);
        let (make_lab, repaint) = (self.make_lab.clone(), self.repaint.clone());
        self.settings = settings.clone();
        let opened = thread::Builder::new().name("open-lab".to_owned()).spawn(move || {
            let lab = make_lab(settings, repaint.clone());
            // A desk that has closed in the meantime no longer listens. The lab then ends with its link.
            let _ = sender.send(lab);
            repaint();
        });
        self.state = match opened {
            Ok(_) => State::Opening(receiver),
            Err(error) => State::Failed(format!("No thread could be started for the lab: {error}.")),
        };
    }

    /// Updates the state. True if a lab has just been opened.
    pub fn poll(&mut self) -> bool {
        let State::Opening(receiver) = &self.state else { return false };
        self.state = match receiver.try_recv() {
            Ok(Ok(link)) => State::Open(link),
            Ok(Err(error)) => State::Failed(format!("{error:#}")),
            Err(mpsc::TryRecvError::Empty) => return false,
            Err(mpsc::TryRecvError::Disconnected) => {
                State::Failed("The lab ended while it was being opened.".to_owned())
            }
        };
        matches!(self.state, State::Open(_))
    }

    /// The settings that the present lab was opened with.
    pub fn settings(&self) -> &RunSettings {
        &self.settings
    }

    /// The settings of the lab that is opened once the present one has closed; otherwise those of the present one.
    pub fn coming(&self) -> &RunSettings {
        match &self.state {
            State::Closing { after: After::Open(settings), .. } => settings,
            _ => &self.settings,
        }
    }

    /// The link to the lab, while it runs.
    pub fn link(&self) -> Option<&dyn Link> {
        match &self.state {
            State::Open(link) => Some(link.as_ref()),
            _ => None,
        }
    }

    /// Why there is no lab, if opening it failed.
    pub fn failure(&self) -> Option<&str> {
        match &self.state {
            State::Failed(sentence) => Some(sentence),
            _ => None,
        }
    }

    /// Whether the lab is saving before it closes.
    pub fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    /// Whether the window may close.
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Lets the present run save and close, then opens another.
    pub fn replace(&mut self, settings: RunSettings) {
        self.let_go(After::Open(Box::new(settings)));
    }

    /// Lets the present run save and close. [`Hold::is_ended`] says when it has.
    pub fn end(&mut self) {
        self.let_go(After::End);
    }

    fn let_go(&mut self, after: After) {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Open(link) => {
                let told = link.send(Command::Quit);
                State::Closing { link, since: Instant::now(), told, after }
            }
            State::Closing { link, since, told, .. } => State::Closing { link, since, told, after },
            State::Opening(_) | State::Failed(_) | State::Ended => match after {
                // A lab that is still being opened ends with its link, which the thread that opened it drops because
                // nobody receives it.
                After::Open(settings) => return self.begin(*settings),
                After::End => State::Ended,
            },
        };
    }

    /// While closing: reads the lab's events, and goes on once it has closed or [`CLOSE_TIMEOUT`] has passed.
    pub fn attend(&mut self) {
        let State::Closing { link, since, told, .. } = &mut self.state else { return };
        if !*told {
            *told = link.send(Command::Quit);
        }
        let closed = link.events().contains(&Event::Closed);
        if !closed && since.elapsed() < CLOSE_TIMEOUT {
            return;
        }
        if !closed {
            log::warn!("the lab did not close within {} s", CLOSE_TIMEOUT.as_secs());
        }
        let State::Closing { link, after, .. } = std::mem::replace(&mut self.state, State::Ended) else { return };
        // Dropping the lab releases its session's lock. The next run may be a session that this desk has had open.
        drop(link);
        if let After::Open(settings) = after {
            self.begin(*settings);
        }
    }
}
