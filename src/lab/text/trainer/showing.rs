//! What a person sees of the policy: its completions with their log-ratios, answers before and after preference
//! learning, and the progress of the training loop.

use super::super::teaching::sampling;
use super::{Stage, TextTrainer};
use crate::lab::LabError;
use crate::lab::vocabulary::{TextSample, TextView};
use crate::settings::TextStage;
use flipside_core::{Completion, ItemId};
use flipside_text::Example;
use flipside_text::generate::generate;
use flipside_text::tokenizer::Tokenizer;

/// A completion as the policy wrote it.
pub(super) struct Written {
    pub prompt: Vec<u32>,
    /// The prompt's place in the corpus, if it has one.
    pub place: Option<usize>,
    pub tokens: Vec<u32>,
    pub stopped: bool,
}

impl TextTrainer {
    /// The part of the snapshot that only text mode has.
    pub fn view(&self) -> TextView {
        let (stage, done, of) = self.progress();
        TextView {
            model: self.model.clone(),
            stage,
            done,
            of,
            doing: self.doing.to_owned(),
            has_gold: self.corpus.has_gold(),
            prompts: self.corpus.prompt_list(),
            samples: self.samples.clone(),
            asked: self.asked.clone(),
            inside: self.looks.shown.clone(),
            kl_target: (self.run.until == TextStage::Ppo && self.run.ppo.kl.adaptive).then_some(self.run.ppo.kl.target),
        }
    }

    /// Completions of the policy with their log-ratios, ready to be shown.
    pub(super) fn shown(&mut self, written: Vec<Written>) -> Result<Vec<Completion>, LabError> {
        let example = |w: &Written| Example { prompt: w.prompt.clone(), completion: w.tokens.clone() };
        let examples: Vec<Example> = written.iter().map(example).collect();
        let (tokenizer, log_ratios) = match &self.stage {
            Stage::Teaching(teaching) => {
                (&teaching.start.tokenizer, teaching.log_ratios(&examples, self.run.ppo.temperature))
            }
            // What is asked about is written by the reference itself.
            Stage::Offline(offline) => {
                (&offline.start.tokenizer, examples.iter().map(|e| vec![0.0; e.completion.len()]).collect())
            }
            Stage::Online(online) => (&online.start.tokenizer, online.log_ratios(&examples)),
            Stage::Learning(_) | Stage::Done(_) => return Ok(Vec::new()),
        };
        let mut completions = Vec::with_capacity(written.len());
        for (Written { prompt, place, tokens, stopped }, log_ratios) in written.into_iter().zip(log_ratios) {
            let text = match place {
                Some(place) => self.corpus.prompt_text(tokenizer, &prompt, place)?,
                None => tokenizer.decode(&prompt, true)?,
            };
            let pieces = pieces(tokenizer, &prompt, &tokens)?;
            completions.push(Completion {
                id: ItemId(self.next_item + completions.len() as u64),
                gold: self.corpus.gold(&text, &pieces.concat()),
                prompt: text,
                prompt_tokens: prompt,
                tokens,
                pieces,
                log_ratios,
                stopped,
                recorded_at: self.steps,
            });
        }
        self.next_item += completions.len() as u64;
        Ok(completions)
    }

    /// Answers prompts with the supervised model and then with the policy. `on_token` receives the growing texts.
    pub(super) fn then_and_now(
        &mut self,
        prompts: &[(Vec<u32>, Option<usize>)],
        seed: u64,
        on_token: &mut dyn FnMut(&[TextSample]),
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<TextSample>, LabError> {
        let Some((start, policy, _)) = self.stage.models() else { return Ok(Vec::new()) };
        let sampling = sampling(start, &self.run, seed);
        let rows: Vec<&[u32]> = prompts.iter().map(|(tokens, _)| &tokens[..]).collect();
        let tokenizer = start.tokenizer.clone();
        let mut samples: Vec<TextSample> = Vec::new();
        for (prompt, place) in prompts {
            let prompt = match place {
                Some(place) => self.corpus.prompt_text(&tokenizer, prompt, *place)?,
                None => tokenizer.decode(prompt, true)?,
            };
            samples.push(TextSample { prompt, ..TextSample::default() });
        }
        let mut written = Vec::new();
        for tuned in [false, true] {
            let model = if tuned { policy } else { &start.model };
            let mut streams: Vec<_> = rows.iter().map(|prompt| tokenizer.stream_after(prompt)).collect();
            let mut stop = false;
            let done = generate(model, &rows, &sampling, tuned, &mut |row, token| {
                let piece = streams[row].push(token).unwrap_or_default();
                let side = if tuned { &mut samples[row].now } else { &mut samples[row].before };
                side.tokens.push(token);
                side.pieces.push(piece);
                side.log_ratios.push(0.0);
                on_token(&samples);
                stop = cancelled();
                !stop
            });
            if stop {
                return Err(LabError::Cancelled);
            }
            written.push(done);
        }
        let now = written.pop().unwrap_or_default();
        let before = written.pop().unwrap_or_default();
        for (((sample, (prompt, place)), before), now) in samples.iter_mut().zip(prompts).zip(before).zip(now) {
            sample.before.pieces = pieces(&tokenizer, prompt, &before.tokens)?;
            sample.before.stopped = before.stopped;
            sample.before.gold = self.corpus.gold(&sample.prompt, &sample.before.text());
            let now = Written { prompt: prompt.clone(), place: *place, tokens: now.tokens, stopped: now.stopped };
            sample.now = self.shown(vec![now])?.pop().unwrap_or_default();
            sample.complete = true;
        }
        Ok(samples)
    }
}

/// The text that each token of a completion adds to its prompt. Bytes that never became a character are added to the
/// last token's text.
fn pieces(tokenizer: &Tokenizer, prompt: &[u32], tokens: &[u32]) -> Result<Vec<String>, LabError> {
    let mut stream = tokenizer.stream_after(prompt);
    let mut pieces = tokens.iter().map(|&token| stream.push(token)).collect::<Result<Vec<String>, _>>()?;
    let rest = stream.finish()?;
    if let Some(last) = pieces.last_mut() {
        last.push_str(&rest);
    }
    Ok(pieces)
}
