//! A program of one's own as a reward function. It gets each completion as a line of JSON and answers each with a line:
//! a number, or null for no score. It is started once and kept running.

use crate::lab::LabError;
use flipside_text::reward_functions::Answer;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::Builder;
use std::time::Duration;

/// How often a wait for the program looks whether it was cancelled.
const TICK: Duration = Duration::from_millis(50);

/// Lines that the program may be ahead of us.
const AHEAD: usize = 1024;

/// The program.
pub(super) struct Program {
    command: String,
    running: Option<Running>,
}

struct Running {
    child: Child,
    input: ChildStdin,
    output: Receiver<std::io::Result<String>>,
}

impl Program {
    /// The program behind this command, which the system's shell reads. It is started when it is needed.
    pub fn new(command: &str) -> Program {
        Program { command: command.to_owned(), running: None }
    }

    /// The score of each completion. If this is cancelled or fails, the program is stopped, and the next call starts it
    /// anew.
    pub fn scores(
        &mut self,
        answers: &[Answer],
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<Option<f32>>, LabError> {
        let done = self.ask(answers, cancelled);
        if done.is_err() {
            self.running = None;
        }
        done
    }

    fn ask(&mut self, answers: &[Answer], cancelled: &mut dyn FnMut() -> bool) -> Result<Vec<Option<f32>>, LabError> {
        let command = &self.command;
        let running = match &mut self.running {
            Some(running) => running,
            none => none.insert(Running::start(command)?),
        };
        let (input, output) = (&mut running.input, &running.output);
        if output.try_recv().is_ok() {
            return Err(LabError::Text(format!(
                "The reward program `{command}` answered more lines than it was given; let it answer each line once."
            )));
        }
        std::thread::scope(|scope| {
            // The program may answer before it has read everything, so writing and reading go on side by side.
            let writer = Builder::new().name("reward program".to_owned()).spawn_scoped(scope, move || {
                answers.iter().try_for_each(|answer| writeln!(input, "{}", line(answer))).and_then(|()| input.flush())
            });
            let writer = writer.map_err(LabError::Thread)?;
            let scores = read(command, output, answers.len(), cancelled);
            if scores.is_err() {
                // The writer may wait for a program that reads no more.
                stop(&running.child);
            }
            let written = writer.join();
            let scores = scores?;
            match written {
                Ok(Ok(())) => Ok(scores),
                _ => Err(LabError::Text(format!(
                    "The reward program `{command}` does not read what it is given; let it read all lines of its standard \
                     input."
                ))),
            }
        })
    }
}

impl Running {
    fn start(command: &str) -> Result<Running, LabError> {
        let mut shell = Command::new("sh");
        // A group of its own, so that what the shell starts can be stopped with it.
        shell.arg("-c").arg(command).process_group(0);
        let child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| {
            LabError::Text(format!("The reward program `{command}` cannot be started ({error}); correct its command."))
        })?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(LabError::Text(format!("The reward program `{command}` has no input or output.")));
        };
        let (sender, receiver) = sync_channel(AHEAD);
        let read = move || {
            for line in BufReader::new(output).lines() {
                if sender.send(line).is_err() {
                    return;
                }
            }
        };
        Builder::new().name("reward program's answers".to_owned()).spawn(read).map_err(LabError::Thread)?;
        Ok(Running { child, input, output: receiver })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        stop(&self.child);
        let _ = self.child.wait();
    }
}

/// Stops the shell and what it has started.
fn stop(child: &Child) {
    // SAFETY: `kill` takes two numbers and touches no memory of ours. The child has not been waited for, so its group's
    // number belongs to no other.
    unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
}

fn line(answer: &Answer) -> Value {
    json!({ "prompt": answer.prompt, "completion": answer.completion, "reference": answer.reference })
}

fn read(
    command: &str,
    output: &Receiver<std::io::Result<String>>,
    count: usize,
    cancelled: &mut dyn FnMut() -> bool,
) -> Result<Vec<Option<f32>>, LabError> {
    let mut scores = Vec::with_capacity(count);
    while scores.len() < count {
        match output.recv_timeout(TICK) {
            Ok(Ok(text)) => {
                scores.push(score(&text).ok_or_else(|| {
                    LabError::Text(format!(
                        "The reward program `{command}` answered `{text}`; let it answer each line with a number, or with \
                         null for no score."
                    ))
                })?);
            }
            Err(RecvTimeoutError::Timeout) if cancelled() => return Err(LabError::Cancelled),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => {
                return Err(LabError::Text(format!(
                    "The reward program `{command}` ended after {} of {count} answers; let it answer every line, and keep \
                     running.",
                    scores.len()
                )));
            }
        }
    }
    Ok(scores)
}

/// The score on a line: `Some(None)` for null, `None` for anything that is no score.
fn score(text: &str) -> Option<Option<f32>> {
    match serde_json::from_str(text.trim()).ok()? {
        Value::Null => Some(None),
        Value::Number(number) => Some(Some(number.as_f64().map(|x| x as f32).filter(|x| x.is_finite())?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn answers(count: usize) -> Vec<Answer> {
        (0..count).map(|i| Answer { completion: format!("\"{i}\"\n"), ..Answer::default() }).collect()
    }

    #[test]
    fn a_program_scores_line_by_line_and_stays() {
        // It answers the number of lines that it has read since it was started; the third line has no score.
        let mut program = Program::new(
            "n=0; while read -r line; do n=$((n + 1)); if [ $n = 3 ]; then echo null; else echo $n; fi; done",
        );
        let mut go_on = || false;
        assert_eq!(program.scores(&answers(3), &mut go_on).unwrap(), [Some(1.0), Some(2.0), None]);
        assert_eq!(program.scores(&answers(2), &mut go_on).unwrap(), [Some(4.0), Some(5.0)]);
        // More than pipes and the queue hold.
        let many = program.scores(&answers(6_000), &mut go_on).unwrap();
        assert_eq!((many.len(), many[5_999]), (6_000, Some(6_005.0)));
    }

    #[test]
    fn what_a_program_does_wrong_is_one_sentence() {
        let refused = |command: &str| Program::new(command).scores(&answers(3), &mut || false).unwrap_err().to_string();
        assert!(refused("while read -r line; do echo good; done").contains("answered `good`"));
        assert!(refused("head -n 1 > /dev/null; echo 1").contains("ended after 1 of 3 answers"));
        assert!(refused("flipside-has-no-such-program").contains("ended after 0 of 3 answers"));
        let began = Instant::now();
        let mut asked = 0;
        let mut cancelled = || {
            asked += 1;
            asked > 2
        };
        let stuck = Program::new("sleep 60").scores(&answers(3), &mut cancelled);
        assert!(matches!(stuck, Err(LabError::Cancelled)) && began.elapsed() < Duration::from_secs(20));
    }
}
