//! What a person sees of the policy: its completions with their log-ratios, answers before and after preference
//! learning, and the progress of the training loop.

use super::{Stage, TextTrainer};
use crate::lab::LabError;
use crate::lab::vocabulary::{TextSample, TextView};
use flipside_core::{Completion, ItemId};
use flipside_text::Example;
use flipside_text::generate::generate;
use flipside_text::tokenizer::Tokenizer;

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
            kl_target: self.run.ppo.kl.adaptive.then_some(self.run.ppo.kl.target),
        }
    }

    /// A completion of the policy with its log-ratios, ready to be shown.
    pub(super) fn shown(
        &mut self,
        prompt: &[u32],
        place: Option<usize>,
        tokens: Vec<u32>,
        stopped: bool,
    ) -> Result<Completion, LabError> {
        let id = ItemId(self.next_item);
        let steps = self.steps;
        let Stage::Teaching(teaching) = &self.stage else { return Ok(Completion::default()) };
        let tokenizer = &teaching.start.tokenizer;
        let text = match place {
            Some(place) => self.corpus.prompt_text(tokenizer, prompt, place)?,
            None => tokenizer.decode(prompt, true)?,
        };
        let example = [Example { prompt: prompt.to_vec(), completion: tokens }];
        let log_ratios = teaching.log_ratios(&example, self.run.ppo.temperature).pop().unwrap_or_default();
        let [Example { completion: tokens, .. }] = example;
        let pieces = pieces(tokenizer, &tokens)?;
        let gold = self.corpus.gold(&text, &pieces.concat());
        self.next_item += 1;
        Ok(Completion {
            id,
            prompt: text,
            prompt_tokens: prompt.to_vec(),
            tokens,
            pieces,
            log_ratios,
            stopped,
            recorded_at: steps,
            gold,
        })
    }

    /// Answers prompts with the supervised model and then with the policy. `on_token` receives the growing texts.
    pub(super) fn then_and_now(
        &mut self,
        prompts: &[(Vec<u32>, Option<usize>)],
        seed: u64,
        on_token: &mut dyn FnMut(&[TextSample]),
        cancelled: &mut dyn FnMut() -> bool,
    ) -> Result<Vec<TextSample>, LabError> {
        let Stage::Teaching(teaching) = &self.stage else { return Ok(Vec::new()) };
        let sampling = teaching.sampling(&self.run, seed);
        let rows: Vec<&[u32]> = prompts.iter().map(|(tokens, _)| &tokens[..]).collect();
        let tokenizer = teaching.start.tokenizer.clone();
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
            let model = if tuned { teaching.ppo.policy() } else { &teaching.start.model };
            let mut streams: Vec<_> = rows.iter().map(|_| tokenizer.stream()).collect();
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
            sample.before.pieces = pieces(&tokenizer, &before.tokens)?;
            sample.before.stopped = before.stopped;
            sample.before.gold = self.corpus.gold(&sample.prompt, &sample.before.text());
            sample.now = self.shown(prompt, *place, now.tokens, now.stopped)?;
            sample.complete = true;
        }
        Ok(samples)
    }
}

/// The text that each token adds. Bytes that never became a character are added to the last token's text.
fn pieces(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<Vec<String>, LabError> {
    let mut stream = tokenizer.stream();
    let mut pieces = tokens.iter().map(|&token| stream.push(token)).collect::<Result<Vec<String>, _>>()?;
    let rest = stream.finish()?;
    if let Some(last) = pieces.last_mut() {
        last.push_str(&rest);
    }
    Ok(pieces)
}
