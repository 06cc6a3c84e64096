//! Steering and probes.

use super::{Found, Look, OnLook, Picture, unused};
use crate::lab::LabError;
use crate::lab::text::corpus::{Prompt, read_examples};
use crate::lab::text::reward_functions::{Candidate, RewardFunctions};
use crate::lab::text::verbs::{check_finite, reader};
use flipside_core::Seed;
use flipside_text::data::{self, Reading, TextOrMessages};
use flipside_text::generate::Sampling;
use flipside_text::interp::{
    InterpError, ProbeSettings, Steering, Subject, difference_of_means, generate_steered, last_streams, lens_sites,
    probes,
};
use flipside_text::{Example, grammar, log_probs};
use serde_json::{Value, json};
use std::path::PathBuf;
use tch::Tensor;

/// Rows that are generated in parallel.
const ROWS: usize = 32;

/// How to steer.
#[derive(Clone, Debug)]
pub struct SteerPlan {
    /// The block after which the vector is added; by default the middle one.
    pub block: Option<usize>,
    /// What the vector is multiplied by, one value after the other.
    pub strengths: Vec<f64>,
    /// Whether the tuned version writes, rather than the base model.
    pub tuned: bool,
    /// Prompts to answer; by default those that the vector comes from.
    pub write: Vec<String>,
    /// Completions of each prompt.
    pub each: usize,
    /// The maximum number of tokens in a completion.
    pub max_new_tokens: usize,
    /// The logits are divided by this; 0 takes the most likely token.
    pub temperature: f64,
    /// Reward functions as they are typed.
    pub reward_functions: Vec<String>,
    /// The seed of all draws.
    pub seed: u64,
}

/// What a probe learns.
#[derive(Clone, Debug)]
pub struct ProbeLabels {
    /// JSON lines with a prompt, a completion and a label; without them, reviews of the built-in grammar, labelled by
    /// whether their gold score is above the median.
    pub data: Option<PathBuf>,
    /// Number of reviews of the grammar.
    pub count: usize,
    /// How probes are fitted.
    pub settings: ProbeSettings,
}

/// Steers by a difference of means while writing.
pub(super) fn steer(look: &Look, how: &SteerPlan, on_progress: OnLook) -> Result<Found, LabError> {
    unused(look.plan.tokens.is_some() || look.plan.completion.is_some(), "--tokens or --completion")?;
    look.check_logits()?;
    if how.each == 0 || how.max_new_tokens == 0 || how.strengths.is_empty() {
        return Err(LabError::Text("Steering needs at least one strength, one completion and one token.".to_owned()));
    }
    if !(how.temperature.is_finite() && how.temperature >= 0.0) || how.strengths.iter().any(|s| !s.is_finite()) {
        return Err(LabError::Text(
            "The temperature has to be 0 or more, and strengths have to be numbers.".to_owned(),
        ));
    }
    let at = look.plan.position;
    // The vector is that of the token where it is added: of the last one, unless another was named.
    let encoded = |text: &String| -> Result<Vec<u32>, LabError> {
        let mut tokens = look.encode(text)?;
        tokens.truncate(look.position(&tokens)? + 1);
        Ok(tokens)
    };
    let encode = |texts: &[String]| texts.iter().map(encoded).collect::<Result<Vec<_>, _>>();
    let (prompts, others) = (encode(&look.plan.prompts)?, encode(&look.plan.others)?);
    let block = how.block.unwrap_or(look.base.blocks() / 2);
    if block >= look.base.blocks() {
        return Err(InterpError::Data(format!(
            "The model has {} blocks, so there is no block {block}; they count from 0.",
            look.base.blocks()
        ))
        .into());
    }
    if at.is_some() && block + 1 == look.base.blocks() {
        return Err(LabError::Text(
            "Nothing reads what the last block writes at a token of the prompt; take a block before it, or leave \
             --position out."
                .to_owned(),
        ));
    }
    let writer: Subject = if how.tuned { look.tuned()? } else { look.base };
    // From the other prompts to the prompts within the writer, or from the base model to the tuned one.
    let vector = match (&others[..], look.tuned) {
        ([], None) => {
            return Err(LabError::Text(
                "A steering vector is a difference: give prompts of one kind with --prompt and of the other with --other, \
                 or a tuned version with --adapter, --against or --session."
                    .to_owned(),
            ));
        }
        ([], Some(tuned)) => difference_of_means((&tuned, &prompts), (&look.base, &prompts), block)?,
        _ => difference_of_means((&writer, &prompts), (&writer, &others), block)?,
    };
    let bundle = match (&look.opened.tuned, how.tuned) {
        (Some(tuned), true) => tuned,
        _ => &look.opened.base,
    };
    let reader = reader(bundle, Reading::default(), how.max_new_tokens);
    let texts = if how.write.is_empty() { &look.plan.prompts } else { &how.write };
    let asked: Vec<Prompt> = texts.iter().map(|text| reader.prompt_of(text)).collect::<Result<_, _>>()?;
    asked.iter().try_for_each(|prompt| reader.check_length(prompt))?;
    let rows: Vec<usize> = (0..asked.len()).flat_map(|i| std::iter::repeat_n(i, how.each)).collect();
    let functions = &how.reward_functions;
    let mut rewards = match functions.is_empty() {
        true => None,
        false => {
            let precision = look.plan.models.precision;
            Some(RewardFunctions::load(functions, bundle, precision, &asked, how.max_new_tokens)?)
        }
    };
    let known = grammar::prompts();
    let mut found = Found::default();
    let mut table = Vec::new();
    let measure =
        if how.temperature == 0.0 { ["log_ratio", "log-ratio of the likeliest tokens"] } else { ["kl", "KL"] };
    let total = how.strengths.len() * rows.len();
    for (s, &strength) in how.strengths.iter().enumerate() {
        let mut steering = Steering::new(&writer, block, &vector, strength)?;
        if let Some(position) = at {
            steering = steering.at(position);
        }
        let mut written: Vec<(usize, Vec<u32>, Vec<f32>)> = Vec::new();
        for (part, places) in rows.chunks(ROWS).enumerate() {
            let sampling = Sampling {
                temperature: how.temperature,
                max_new_tokens: how.max_new_tokens,
                stop: bundle.stop(),
                seed: how.seed.wrapping_add(part as u64),
                ..Sampling::default()
            };
            let tokens: Vec<&[u32]> = places.iter().map(|&i| &asked[i].tokens[..]).collect();
            let done = s * rows.len() + part * ROWS;
            let mut stopped = false;
            let completions = generate_steered(&writer, &tokens, &steering, &sampling, &mut |_, _| {
                stopped = stopped || on_progress(done, total);
                !stopped
            })?;
            if stopped {
                return Err(LabError::Cancelled);
            }
            written.extend(places.iter().zip(completions).map(|(&i, c)| (i, c.tokens, c.log_probs)));
        }
        // The mean log-ratio of what the steered model wrote. Of samples, it estimates KL(steered ‖ plain) of whole
        // completions; of the likeliest tokens alone it is no KL. Both models are at the sampling temperature.
        let temperature = if how.temperature == 0.0 { 1.0 } else { how.temperature };
        let examples: Vec<Example> = written
            .iter()
            .map(|(i, tokens, _)| Example { prompt: asked[*i].tokens.clone(), completion: tokens.clone() })
            .collect();
        let plain = log_probs(writer.model(), &examples, writer.adapters(), temperature, ROWS, &mut |_| false);
        let numbers = written.iter().flat_map(|(_, _, own)| own.iter().copied()).chain(plain.iter().flatten().copied());
        check_finite(numbers, std::path::Path::new(&look.opened.names[usize::from(how.tuned)]))?;
        let ratio = |own: &[f32], plain: &[f32]| own.iter().zip(plain).map(|(a, b)| f64::from(a - b)).sum::<f64>();
        let count = written.len() as f64;
        let log_ratio = written.iter().zip(&plain).map(|((_, _, own), plain)| ratio(own, plain)).sum::<f64>() / count;
        let texts: Vec<String> = written
            .iter()
            .map(|(i, tokens, _)| Ok(bundle.tokenizer.continuation(&asked[*i].tokens, tokens, true)?))
            .collect::<Result<_, LabError>>()?;
        let prompt_texts: Vec<String> =
            asked.iter().map(|p| Ok(bundle.tokenizer.decode(&p.tokens, true)?)).collect::<Result<_, LabError>>()?;
        let is_grammars = prompt_texts.iter().all(|prompt| known.iter().any(|k| k.trim() == prompt.trim()));
        let gold = is_grammars.then(|| {
            let scores =
                written.iter().zip(&texts).map(|((i, _, _), text)| grammar::score(prompt_texts[*i].trim(), text));
            scores.sum::<f64>() / count
        });
        let reward = match &mut rewards {
            None => None,
            Some(functions) => {
                let candidate = |(i, tokens, _): &(usize, Vec<u32>, Vec<f32>)| Candidate {
                    words: TextOrMessages::Text(prompt_texts[*i].clone()),
                    prompt: asked[*i].tokens.clone(),
                    completion: tokens.clone(),
                    reference: None,
                };
                let candidates: Vec<Candidate> = written.iter().map(candidate).collect();
                let scores: Vec<f64> =
                    functions.scores(&candidates, &mut || false)?.into_iter().flatten().map(f64::from).collect();
                (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
            }
        };
        let mut line = format!("strength {strength:+.2}   {} {log_ratio:.3} nats", measure[1]);
        if let Some(gold) = gold {
            line.push_str(&format!("   gold score {gold:.3}"));
        }
        if let Some(reward) = reward {
            line.push_str(&format!("   reward {reward:+.3}"));
        }
        line.push_str(&format!("   {:?}", texts[0]));
        found.lines.push(line);
        let completions: Vec<Value> = written
            .iter()
            .zip(&texts)
            .map(|((i, tokens, _), text)| json!({ "prompt": prompt_texts[*i], "text": text, "tokens": tokens }))
            .collect();
        table.push(
            json!({ "strength": strength, (measure[0]): log_ratio, "gold": gold, "reward": reward, "completions": completions }),
        );
    }
    found.about.insert("block".to_owned(), json!(block));
    if let Some(position) = at {
        found.about.insert("position".to_owned(), json!(position));
    }
    found.about.insert("prompt".to_owned(), json!(look.plan.prompts.join(" | ")));
    found.about.insert("other".to_owned(), json!(look.plan.others.join(" | ")));
    found.figures.insert("length".to_owned(), json!(vector.norm().double_value(&[])));
    found.add_activation("steering.vector".to_owned(), &vector);
    let mut order: Vec<usize> = (0..table.len()).collect();
    order.sort_by(|&a, &b| how.strengths[a].total_cmp(&how.strengths[b]));
    let curve = |name: &str, label: &str| {
        let points: Option<Vec<[f64; 2]>> =
            order.iter().map(|&i| Some([how.strengths[i], table[i][name].as_f64()?])).collect();
        points.map(|points| (label.to_owned(), points))
    };
    let label = format!("{}, nats", measure[1]);
    let curves = [(measure[0], label.as_str()), ("gold", "gold score"), ("reward", "reward")];
    found.picture = Picture {
        curves: curves.into_iter().filter_map(|(name, label)| curve(name, label)).collect(),
        axes: ["strength".to_owned(), String::new()],
        title: format!("Steering after block {block}"),
        ..Picture::default()
    };
    found.figures.insert("strengths".to_owned(), json!(table));
    Ok(found)
}

/// Linear probes of every residual stream.
pub(super) fn probe(look: &Look, what: &ProbeLabels, on_progress: OnLook) -> Result<Found, LabError> {
    unused(!look.plan.prompts.is_empty() || !look.plan.others.is_empty(), "--prompt and --other")?;
    unused(look.plan.tokens.is_some() || look.plan.completion.is_some(), "--tokens or --completion")?;
    unused(look.plan.position.is_some(), "--position")?;
    let (texts, labels, about) = match &what.data {
        Some(path) => labelled(path)?,
        None => reviews(what.count, what.settings.seed),
    };
    let context = look.base.config().context;
    let mut prompts = Vec::with_capacity(texts.len());
    for text in &texts {
        let mut tokens = look.encode(text)?;
        // The last token is read, so a text that is too long lacks its beginning.
        tokens.drain(..tokens.len().saturating_sub(context));
        prompts.push(tokens);
    }
    let sites = lens_sites(look.base.blocks(), false);
    let rows: Vec<String> = sites.iter().map(ToString::to_string).collect();
    let mut found = Found::default();
    found.about.insert("labels".to_owned(), json!(about));
    found.figures.insert("examples".to_owned(), json!(labels.len()));
    found.figures.insert("positive".to_owned(), json!(labels.iter().filter(|&&label| label).count()));
    let each = prompts.len() + sites.len();
    let total = each * look.subjects().count();
    for (model, (prefix, subject)) in look.subjects().enumerate() {
        let start = model * each;
        let streams = last_streams(&subject, &prompts, &sites, &mut |done| on_progress(start + done, total))?;
        let all =
            probes(&streams, &labels, &what.settings, &mut |done| on_progress(start + prompts.len() + done, total))?;
        let row = |of: &dyn Fn(&flipside_text::interp::Probe) -> f64| {
            Tensor::from_slice(&all.iter().map(of).collect::<Vec<f64>>())
        };
        found.add(&format!("{prefix}probe.accuracy"), &row(&|p| p.accuracy), json!([rows]));
        found.add(&format!("{prefix}probe.shuffled"), &row(&|p| p.shuffled), json!([rows]));
        let weights: Vec<Tensor> = all.iter().map(|p| Tensor::from_slice(&p.weight)).collect();
        found.add_activation(format!("{prefix}probe.weight"), &Tensor::stack(&weights, 0));
        found.add_activation(format!("{prefix}probe.bias"), &row(&|p| p.bias));
        for (row, p) in rows.iter().zip(&all) {
            found.lines.push(format!(
                "{prefix}{row:<24} accuracy {:.3}, with shuffled labels {:.3}, difference {:+.3}",
                p.accuracy,
                p.shuffled,
                p.accuracy - p.shuffled
            ));
        }
        let points = |of: &dyn Fn(&flipside_text::interp::Probe) -> f64| {
            all.iter().enumerate().map(|(i, p)| [i as f64, of(p)]).collect::<Vec<_>>()
        };
        let name = if prefix.is_empty() { "base" } else { "tuned" };
        found.picture.curves.push((name.to_owned(), points(&|p| p.accuracy)));
        found.picture.curves.push((format!("{name}, labels shuffled"), points(&|p| p.shuffled)));
    }
    found.picture.axes = ["blocks read".to_owned(), "held-out accuracy".to_owned()];
    found.picture.title = "Linear probes of the residual stream".to_owned();
    Ok(found)
}

/// Texts with labels, and what the labels are.
pub(super) type Labelled = (Vec<String>, Vec<bool>, String);

/// The labelled texts of a data file: completions that are good or bad, or the two sides of judged pairs.
fn labelled(path: &std::path::Path) -> Result<Labelled, LabError> {
    let (mut texts, mut labels) = (Vec::new(), Vec::new());
    let mut add = |prompt: &TextOrMessages, completion: &TextOrMessages, label| {
        texts.push(format!("{prompt}{completion}"));
        labels.push(label);
    };
    for line in read_examples(path, Reading::default())?.examples {
        match line {
            data::Example::Labelled { prompt, completion, good } => add(&prompt, &completion, good),
            // A tie says nothing, nor does a pair that was skipped, of which only the prompt is left.
            data::Example::Preference { target, .. } if target <= 0.5 => {}
            data::Example::Prompt(_) => {}
            data::Example::Preference { prompt, chosen, rejected, .. } => {
                add(&prompt, &chosen, true);
                add(&prompt, &rejected, false);
            }
            _ => return Err(unlabelled(path)),
        }
    }
    if texts.is_empty() {
        return Err(unlabelled(path));
    }
    Ok((texts, labels, format!("{}: good or bad", path.display())))
}

fn unlabelled(path: &std::path::Path) -> LabError {
    LabError::Text(format!(
        "{} has lines without labels; a probe needs {{\"prompt\", \"completion\", \"label\"}}, or pairs \
         {{\"prompt\", \"chosen\", \"rejected\"}}.",
        path.display()
    ))
}

/// Reviews of the grammar, labelled by whether their gold score is above the median.
pub(super) fn reviews(count: usize, seed: u64) -> Labelled {
    let mut stream = Seed(seed).stream("text.look.reviews");
    let reviews: Vec<_> = (0..count).map(|_| grammar::review(&mut stream)).collect();
    let mut scores: Vec<f64> = reviews.iter().map(|review| review.score).collect();
    scores.sort_by(f64::total_cmp);
    let median = scores.get(scores.len() / 2).copied().unwrap_or(0.0);
    let labels = reviews.iter().map(|review| review.score > median).collect();
    let texts = reviews.into_iter().map(|review| review.prompt + &review.completion).collect();
    (texts, labels, format!("reviews of the grammar with a gold score above {median}"))
}
