//! What changes a model's answer: patching, swapped blocks, weights and predictions that moved, ablated heads.

use super::{AblateWith, Found, Look, OnLook, Picture, counted, nested, numbers, unused};
use crate::lab::LabError;
use flipside_text::interp::{
    self, Grid, Patching, Replacement, Run, Subject, attribution_patch, moved_tokens, stream_changes, swaps,
    weight_changes,
};
use flipside_view::heat_map::{Colours, HeatMap};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

/// Activation patching between two prompts, or between two models.
pub(super) fn patch(
    look: &Look,
    names: &[String],
    guess: bool,
    reverse: bool,
    on_progress: OnLook,
) -> Result<Found, LabError> {
    let grids = names.iter().map(|name| {
        Grid::of_name(name).ok_or_else(|| {
            let known: Vec<String> = Grid::ALL.into_iter().map(Grid::name).collect();
            LabError::Text(format!("There is no grid {name:?}; expected some of {}.", known.join(", ")))
        })
    });
    let grids: Vec<Grid> = grids.collect::<Result<_, _>>()?;
    let question = look.question(look.prompt()?)?;
    let own = look.base.tokens(&question.tokens)?;
    let mut found = Found { about: question.about.clone(), ..Found::default() };
    let other_tokens;
    let mut runs = match (&look.plan.others[..], look.tuned) {
        ([], Some(tuned)) => [Run { subject: look.base, tokens: &own }, Run { subject: tuned, tokens: &own }],
        ([], None) => {
            return Err(LabError::Text(
                "Patching takes activations from another run: give another prompt with --other, or a tuned version with \
                 --adapter, --against or --session."
                    .to_owned(),
            ));
        }
        (_, Some(_)) => {
            return Err(LabError::Text(
                "Patching is between two prompts or between two models; leave out --other, or the tuned version."
                    .to_owned(),
            ));
        }
        (_, None) => {
            let other = look.other()?;
            let text = format!("{other}{}", look.plan.completion.as_deref().unwrap_or_default());
            other_tokens = look.base.tokens(&look.encode(&text)?)?;
            found.about.insert("other".to_owned(), json!(other));
            [Run { subject: look.base, tokens: &own }, Run { subject: look.base, tokens: &other_tokens }]
        }
    };
    if reverse {
        runs.reverse();
    }
    let [target, source] = runs;
    let (blocks, columns) = (look.base.blocks(), look.columns(&question.tokens));
    let total = blocks * grids.len();
    let prefix = if guess { "guess" } else { "patch" };
    for (i, &grid) in grids.iter().enumerate() {
        let Patching { target, source, scores, unembed } = match guess {
            true => {
                if on_progress(i * blocks, total) {
                    return Err(LabError::Cancelled);
                }
                attribution_patch(target, source, question.metric, grid)?
            }
            false => {
                interp::patch(target, source, question.metric, grid, &mut |done| on_progress(i * blocks + done, total))?
            }
        };
        let places = match grid {
            Grid::Positions(_) => columns.clone(),
            Grid::Heads(_) | Grid::HeadPositions => counted(scores.size()[1] as usize),
        };
        let name = format!("{prefix}.{}", grid.name());
        let mut labels = vec![json!(counted(blocks)), json!(places)];
        if grid == Grid::HeadPositions {
            labels.push(json!(columns));
        }
        found.add(&name, &scores, Value::from(labels));
        for (name, value) in [("target", target), ("source", source), ("unembed", unembed)] {
            found.figures.insert(name.to_owned(), json!(value));
        }
        let shown = if grid == Grid::HeadPositions { scores.amax([-1], false) } else { scores.shallow_clone() };
        let place = shown.reshape([-1]).argmax(0, false).int64_value(&[]);
        let width = shown.size()[1];
        found.lines.push(format!(
            "{name}: most in block {} at {}, {:.3}",
            place / width,
            places[(place % width) as usize],
            shown.max().double_value(&[])
        ));
        found.picture.maps.push(HeatMap {
            title: grid.name(),
            columns: places,
            rows: counted(blocks),
            values: numbers(&shown),
            words: vec![],
        });
    }
    let ends = ["target", "source"].map(|name| found.figures[name].as_f64().unwrap_or_default());
    found.lines.insert(0, format!("{}: {:+.4} → {:+.4}", question.metric.name(), ends[0], ends[1]));
    found.picture.per_row = 3;
    found.picture.unit = "share".to_owned();
    found.picture.title = match guess {
        true => "Attribution patching: the gradient's guess of the share of the difference",
        false => "Activation patching: the share of the difference that one activation carries",
    }
    .to_owned();
    Ok(found)
}

/// Blocks swapped.
pub(super) fn swap(look: &Look, on_progress: OnLook) -> Result<Found, LabError> {
    unused(!look.plan.others.is_empty(), "--other")?;
    let tuned = look.tuned()?;
    let question = look.question(look.prompt()?)?;
    let blocks = look.base.blocks();
    let tokens = look.base.tokens(&question.tokens)?;
    let x = swaps(look.base, tuned, &tokens, question.metric, &mut |done| on_progress(done, blocks))?;
    let mut found = Found { about: question.about.clone(), ..Found::default() };
    let labels = json!([counted(blocks)]);
    let row = |values: &[f64]| Tensor::from_slice(values);
    found.add("swap.one", &row(&x.one), labels.clone());
    found.add("swap.up_to", &row(&x.up_to), labels);
    for (name, value) in [
        ("base", x.base),
        ("tuned", x.tuned),
        ("embedding", x.embedding),
        ("unembedding", x.unembedding),
        ("all", x.all),
    ] {
        found.figures.insert(name.to_owned(), json!(value));
    }
    let name = question.metric.name();
    found.figures.insert("metric".to_owned(), json!(name));
    found.lines.push(format!("{name}: base {:+.4}, tuned {:+.4}", x.base, x.tuned));
    found.lines.push(format!("embeddings {:+.4}   last norm and unembedding {:+.4}", x.embedding, x.unembedding));
    for block in 0..blocks {
        found.lines.push(format!("block {block:>3} alone {:+.4}   up to it {:+.4}", x.one[block], x.up_to[block]));
    }
    let points = |values: &[f64]| values.iter().enumerate().map(|(i, &value)| [i as f64, value]).collect::<Vec<_>>();
    let flat = |value: f64| vec![[0.0, value], [blocks as f64, value]];
    // The last point has the last norm and the unembedding, too.
    let up_to: Vec<f64> = x.up_to.iter().copied().chain([x.all]).collect();
    found.picture = Picture {
        curves: vec![
            ("this block from the tuned model".to_owned(), points(&x.one)),
            ("all up to this block".to_owned(), points(&up_to)),
            ("base".to_owned(), flat(x.base)),
            ("tuned".to_owned(), flat(x.tuned)),
        ],
        axes: ["block; at the end everything".to_owned(), name.to_owned()],
        title: format!("Blocks swapped: {}", look.prompt()?),
        ..Picture::default()
    };
    Ok(found)
}

/// What training changed.
pub(super) fn diff(look: &Look, mid: bool, on_progress: OnLook) -> Result<Found, LabError> {
    unused(look.plan.tokens.is_some() || look.plan.completion.is_some(), "--tokens or --completion")?;
    unused(!look.plan.others.is_empty(), "--other")?;
    let tuned = look.tuned()?;
    let mut found = Found::default();
    let weights = weight_changes(look.base, tuned)?;
    let listed: Vec<Value> =
        weights.iter().map(|w| json!({ "name": w.name, "change": w.change, "relative": w.relative })).collect();
    found.figures.insert("weights".to_owned(), json!(listed));
    let mut order: Vec<_> = weights.iter().collect();
    order.sort_by(|a, b| b.relative.total_cmp(&a.relative));
    let changed = weights.iter().filter(|w| w.change != 0.0).count();
    found.lines.push(format!("{changed} of {} parameters changed", weights.len()));
    found.lines.extend(order.iter().take(8).map(|w| format!("{:<48} {:.3e} of its length", w.name, w.relative)));
    let relative: Vec<f64> = weights.iter().map(|w| w.relative).collect();
    let names: Vec<&String> = weights.iter().map(|w| &w.name).collect();
    found.add("diff.weights", &Tensor::from_slice(&relative), json!([names]));
    if look.plan.prompts.is_empty() {
        unused(look.plan.picture.is_some(), "--picture without --prompt")?;
        unused(look.plan.position.is_some(), "--position without --prompt")?;
        unused(mid, "--mid without --prompt")?;
        return Ok(found);
    }
    look.check_logits()?;
    let prompts: Vec<Vec<u32>> =
        look.plan.prompts.iter().map(|prompt| look.encode(prompt)).collect::<Result<_, _>>()?;
    let last = &prompts[0];
    let rows: Vec<String> = interp::lens_sites(look.base.blocks(), mid).iter().map(ToString::to_string).collect();
    let total = rows.len() * prompts.len();
    let mut means: [Vec<Tensor>; 3] = Default::default();
    for (i, tokens) in prompts.iter().enumerate() {
        let ids = look.base.tokens(tokens)?;
        let x = stream_changes(look.base, tuned, &ids, mid, &mut |done| on_progress(i * rows.len() + done, total))?;
        if i == 0 {
            let columns = look.columns(tokens);
            let labels = json!([rows, columns]);
            found.add("diff.kl", &x.kl, labels.clone());
            found.add("diff.relative", &x.relative, labels.clone());
            found.add("diff.cosine", &x.cosine, labels);
            found.picture.maps.push(HeatMap {
                title: String::new(),
                columns,
                rows: rows.iter().map(|row| row.replace("blocks.", "").replace("hook_", "")).collect(),
                values: numbers(&x.kl),
                words: vec![],
            });
        }
        means.iter_mut().zip([&x.kl, &x.relative, &x.cosine]).for_each(|(all, x)| all.push(x.shallow_clone()));
    }
    if prompts.len() > 1 {
        // Every position of every prompt counts the same.
        for (name, all) in ["kl", "relative", "cosine"].into_iter().zip(&means) {
            let mean = Tensor::cat(all, 1).mean_dim(1, false, Kind::Float);
            found.add(&format!("diff.mean_{name}"), &mean, json!([rows]));
        }
    }
    let position = look.plan.position.unwrap_or(last.len() - 1);
    let moved = moved_tokens(look.base, tuned, &look.base.tokens(last)?, position, 10)?;
    let list = |all: &[interp::MovedToken]| -> Vec<Value> {
        all.iter()
            .map(|m| {
                json!({ "token": m.token, "text": look.word(m.token), "base": m.base, "tuned": m.tuned,
                    "contribution": m.contribution })
            })
            .collect()
    };
    found.about.insert("prompt".to_owned(), json!(look.plan.prompts[0]));
    found.about.insert("tokens".to_owned(), json!(look.words(last)));
    found.about.insert("position".to_owned(), json!(position));
    found.figures.insert("kl".to_owned(), json!(moved.kl));
    found.figures.insert("risen".to_owned(), json!(list(&moved.risen)));
    found.figures.insert("fallen".to_owned(), json!(list(&moved.fallen)));
    found.lines.push(format!("KL(tuned ‖ base) of the next token {:.4} nats", moved.kl));
    for m in moved.risen.iter().take(5).chain(moved.fallen.iter().take(5)) {
        found.lines.push(format!("{:<16} {:.4} → {:.4}", format!("{:?}", look.word(m.token)), m.base, m.tuned));
    }
    found.picture.per_row = 1;
    found.picture.colours = Some(Colours::sequential(found.picture.maps.iter().flat_map(|map| &map.values)));
    found.picture.unit = "nats".to_owned();
    found.picture.title = "KL(lens of tuned ‖ lens of base)".to_owned();
    Ok(found)
}

/// Heads ablated.
pub(super) fn ablate(look: &Look, with: AblateWith, on_progress: OnLook) -> Result<Found, LabError> {
    let question = look.question(look.prompt()?)?;
    let mut found = Found { about: question.about.clone(), ..Found::default() };
    let others = |subject: &Subject| -> Result<Vec<Tensor>, LabError> {
        look.plan.others.iter().map(|text| Ok(subject.tokens(&look.encode(text)?)?)).collect()
    };
    unused(with == AblateWith::Zero && !look.plan.others.is_empty(), "--other with --with zero")?;
    let (blocks, heads) = (look.base.blocks(), look.base.config().heads);
    let total = blocks * look.subjects().count();
    for (model, (prefix, subject)) in look.subjects().enumerate() {
        let tokens = subject.tokens(&question.tokens)?;
        let others = others(&subject)?;
        let replacement = match with {
            AblateWith::Zero => Replacement::Zero,
            AblateWith::Mean => Replacement::Mean(&others),
            AblateWith::Other => {
                look.other()?;
                Replacement::Other(&others[0])
            }
        };
        let run = Run { subject, tokens: &tokens };
        let x =
            interp::ablate(run, question.metric, replacement, &mut |done| on_progress(model * blocks + done, total))?;
        found.add(&format!("{prefix}ablate.heads"), &x.changes, json!([counted(blocks), counted(heads)]));
        found.add(&format!("{prefix}ablate.blocks"), &x.blocks, json!([counted(blocks)]));
        found.figures.insert(format!("{prefix}whole"), json!(x.whole));
        found.lines.push(format!("{prefix}{}: {:+.4}", question.metric.name(), x.whole));
        let flat = numbers(&x.changes);
        let mut order: Vec<usize> = (0..flat.len()).collect();
        order.sort_by(|&a, &b| flat[b].abs().total_cmp(&flat[a].abs()));
        for &i in order.iter().take(8) {
            found.lines.push(format!("{prefix}without block {} head {}: {:+.4}", i / heads, i % heads, flat[i]));
        }
        found.picture.maps.push(HeatMap {
            title: if prefix.is_empty() { "base" } else { "tuned" }.to_owned(),
            columns: counted(heads),
            rows: counted(blocks),
            values: flat,
            words: vec![],
        });
    }
    found.figures.insert("metric".to_owned(), json!(question.metric.name()));
    found.figures.insert("others".to_owned(), nested(&Tensor::from_slice(&[look.plan.others.len() as i64])));
    found.picture.per_row = 2;
    found.picture.unit = "change".to_owned();
    found.picture.title = format!("What a head is worth to the {}", question.metric.name());
    Ok(found)
}
