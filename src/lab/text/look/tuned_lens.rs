//! The tuned lens: training one on texts, and reading one that was written.

use super::steer::reviews;
use super::{Found, Look, OnLook, Picture, unused};
use crate::lab::LabError;
use crate::lab::text::verbs::reader;
use crate::store::read_arrays;
use flipside_core::{Arrays, Seed};
use flipside_text::data::Reading;
use flipside_text::interp::{InterpError, Subject, TunedLens, TunedLensSettings};
use rand::seq::SliceRandom;
use serde_json::json;
use std::path::{Path, PathBuf};

/// How a tuned lens is trained.
#[derive(Clone, Debug)]
pub struct TunedLensPlan {
    /// A data file; without one, reviews of the built-in grammar.
    pub data: Option<PathBuf>,
    /// Number of reviews of the grammar.
    pub count: usize,
    /// Whether the streams between attention and MLP get translators, too.
    pub mid: bool,
    /// Steps and learning rate.
    pub settings: TunedLensSettings,
    /// Tokens of a step.
    pub tokens_per_step: usize,
    /// Tokens of a row; by default as many as the model has positions, at most 512.
    pub length: Option<usize>,
    /// Share of the rows that is held out.
    pub held_out: f64,
    /// The seed of all draws.
    pub seed: u64,
}

/// The most tokens of a row, unless more are asked for.
const LONGEST: usize = 512;

/// Trains a tuned lens for each model, and compares it with the logit lens on texts that were held out.
pub(super) fn train(look: &Look, plan: &TunedLensPlan, on_progress: OnLook) -> Result<Found, LabError> {
    unused(!look.plan.prompts.is_empty() || !look.plan.others.is_empty(), "--prompt and --other")?;
    unused(look.plan.tokens.is_some() || look.plan.completion.is_some(), "--tokens or --completion")?;
    unused(look.plan.position.is_some(), "--position")?;
    look.check_logits()?;
    let context = look.base.config().context;
    let length = plan.length.unwrap_or(context.min(LONGEST));
    if length == 0 || length > context || plan.settings.steps == 0 || !(0.0..1.0).contains(&plan.held_out) {
        return Err(LabError::Text(format!(
            "A tuned lens needs at least one step, rows of 1 to {context} tokens, and a share from 0 to 1 to hold out."
        )));
    }
    let rows = rows(look, plan, length)?;
    let held_out = ((rows.len() as f64 * plan.held_out).round() as usize).max(1);
    let Some((training, testing)) = rows.len().checked_sub(held_out).filter(|&n| n > 0).map(|n| rows.split_at(n))
    else {
        return Err(LabError::Text(format!(
            "The texts have {} rows of {length} tokens, which are too few to learn from some and to hold out others; give \
             more texts, or shorten the rows.",
            rows.len()
        )));
    };
    let together = (plan.tokens_per_step / length).max(1);
    let mut found = Found::default();
    let config = look.base.config();
    // The names of tuned-lens' own configuration.
    found.about.insert("lens_type".to_owned(), json!("linear_tuned_lens"));
    found.about.insert("d_model".to_owned(), json!(config.width));
    found.about.insert("num_hidden_layers".to_owned(), json!(config.layers));
    found.about.insert("bias".to_owned(), json!(true));
    found
        .figures
        .insert("tokens".to_owned(), json!({ "training": training.len() * length, "held_out": held_out * length }));
    let (steps, total) = (plan.settings.steps, plan.settings.steps * look.subjects().count());
    for (model, (prefix, subject)) in look.subjects().enumerate() {
        let mut lens = TunedLens::new(&subject, plan.mid);
        let mut stream = Seed(plan.seed).stream("text.look.tuned_lens");
        let mut order: Vec<usize> = Vec::new();
        let mut batch = |_| {
            let mut chosen: Vec<&[u32]> = Vec::with_capacity(together);
            while chosen.len() < together {
                if order.is_empty() {
                    order = (0..training.len()).collect();
                    order.shuffle(&mut stream);
                }
                chosen.extend(order.pop().map(|row| &training[row][..]));
            }
            subject.rows(&chosen)
        };
        let mut stopped = on_progress(model * steps, total);
        let mut losses = Vec::new();
        if !stopped {
            lens.train(&subject, &plan.settings, &mut batch, &mut |step, loss| {
                losses.push(loss);
                stopped = on_progress(model * steps + step + 1, total);
                stopped
            })?;
        }
        if stopped {
            return Err(LabError::Cancelled);
        }
        if losses.iter().any(|loss| !loss.is_finite()) {
            return Err(LabError::Text(
                "The tuned lens grew without bounds; lower its learning rate with --learning-rate.".to_owned(),
            ));
        }
        let testing: Vec<&[u32]> = testing.iter().map(|row| &row[..]).collect();
        let errors = lens.errors(&subject, &subject.rows(&testing)?)?;
        let sites: Vec<String> = lens.sites().iter().map(ToString::to_string).collect();
        found.lines.push(format!("{prefix}KL of the model's prediction to that of a lens, on held-out texts:"));
        for (site, error) in sites.iter().zip(&errors) {
            found.lines.push(format!(
                "{prefix}{site:<24}  logit lens {:.4} nats   tuned lens {:.4} nats",
                error.logit_lens, error.tuned_lens
            ));
        }
        let of_logit: Vec<f64> = errors.iter().map(|error| error.logit_lens).collect();
        let of_tuned: Vec<f64> = errors.iter().map(|error| error.tuned_lens).collect();
        let name = if prefix.is_empty() { "base" } else { "tuned" };
        for (lens, values) in [("logit lens", &of_logit), ("tuned lens", &of_tuned)] {
            let points = values.iter().enumerate().map(|(i, &kl)| [i as f64, kl]).collect();
            found.picture.curves.push((format!("{name}, {lens}"), points));
        }
        for (key, value) in [
            ("sites", json!(sites)),
            ("logit_lens_kl", json!(of_logit)),
            ("tuned_lens_kl", json!(of_tuned)),
            ("losses", json!(losses)),
        ] {
            found.figures.insert(format!("{prefix}{key}"), value);
        }
        lens.to_arrays(prefix, &mut found.arrays);
    }
    found.picture = Picture {
        axes: ["streams read, from the embeddings up".to_owned(), "KL, nats".to_owned()],
        title: "How far lenses are from the model's prediction".to_owned(),
        ..found.picture
    };
    Ok(found)
}

/// All texts one after the other, each with its end, cut into rows of one length.
fn rows(look: &Look, plan: &TunedLensPlan, length: usize) -> Result<Vec<Vec<u32>>, LabError> {
    let mut tokens = Vec::new();
    match &plan.data {
        Some(path) => {
            let reader = reader(&look.opened.base, Reading::default(), 1);
            for example in reader.file(path)?.into_iter().flat_map(|line| reader.examples(line)) {
                tokens.extend(example.prompt);
                tokens.extend(example.completion);
            }
        }
        None => {
            for text in reviews(plan.count, plan.seed).0 {
                tokens.extend(look.encode_whole(&text)?);
            }
        }
    }
    Ok(tokens.chunks_exact(length).map(<[u32]>::to_vec).collect())
}

/// The lens in this file that belongs to a model: the tuned version has one of its own there, or takes the base
/// model's.
pub(super) fn read(path: &Path, subject: &Subject, prefix: &str) -> Result<TunedLens, LabError> {
    let (_, arrays): (_, Arrays) = read_arrays(path)?;
    let has_own = arrays.keys().any(|name| name.starts_with("tuned."));
    let prefix = if has_own { prefix } else { "" };
    TunedLens::from_arrays(subject, prefix, &arrays).map_err(|error| match error {
        InterpError::Data(reason) => LabError::Text(format!("{}: {reason}", path.display())),
        other => other.into(),
    })
}
