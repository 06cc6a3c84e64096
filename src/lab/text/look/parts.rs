//! What a model computes on the way: activations, lens, attribution, attention, rewards.

use super::{Found, Look, OnLook, Picture, counted, no_session_of_critic, numbers, one, tuned_lens, unused};
use crate::lab::LabError;
use flipside_text::interp::{self, Attribution, Direction, Start, Subject, head_scores, lens_sites, patterns};
use flipside_text::model::Site;
use flipside_view::heat_map::{Colours, HeatMap};
use serde_json::{Value, json};
use std::path::Path;
use tch::{Kind, Tensor};

/// Token ids as they are in files, `[1, T]` (i64).
fn ids(tokens: &[u32]) -> Tensor {
    Tensor::from_slice(&tokens.iter().map(|&token| i64::from(token)).collect::<Vec<_>>()).unsqueeze(0)
}

/// Activations by name.
pub(super) fn cache(look: &Look, names: &[String]) -> Result<Found, LabError> {
    unused(look.plan.position.is_some(), "--position")?;
    unused(look.plan.picture.is_some(), "--picture")?;
    unused(!look.plan.others.is_empty(), "--other")?;
    unused(look.plan.tokens.is_some() || look.plan.completion.is_some(), "--tokens or --completion")?;
    let prompt = look.prompt()?;
    let tokens = look.encode(prompt)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut found = Found::default();
    found.about.insert("prompt".to_owned(), json!(prompt));
    found.about.insert("tokens".to_owned(), json!(look.words(&tokens)));
    found.add_activation("tokens".to_owned(), &ids(&tokens));
    let mut shapes = serde_json::Map::new();
    for (prefix, subject) in look.subjects() {
        let trace = subject.trace(Start::Tokens(&subject.tokens(&tokens)?), &subject.sites(&names)?, &[])?;
        for (point, x) in trace.activations() {
            let name = format!("{prefix}{point}");
            found.lines.push(format!("{name}  {:?}", x.size()));
            shapes.insert(name.clone(), json!(x.size()));
            found.add_activation(name, x);
        }
        if look.has_logits() {
            let logits = tch::no_grad(|| subject.unembed(&trace.normed));
            shapes.insert(format!("{prefix}logits"), json!(logits.size()));
            found.add_activation(format!("{prefix}logits"), &logits);
        }
    }
    found.figures.insert("shapes".to_owned(), Value::Object(shapes));
    Ok(found)
}

/// The logit lens, or the tuned lens of a file.
pub(super) fn lens(
    look: &Look,
    mid: bool,
    top: usize,
    file: Option<&Path>,
    on_progress: OnLook,
) -> Result<Found, LabError> {
    unused(!look.plan.others.is_empty(), "--other")?;
    let question = look.question(look.prompt()?)?;
    let (better, worse, position) = question.difference()?;
    let tokens = &question.tokens;
    let sites = lens_sites(look.base.blocks(), mid);
    let rows: Vec<String> = sites.iter().map(ToString::to_string).collect();
    let columns = look.columns(tokens);
    let mut found = Found { about: question.about.clone(), ..Found::default() };
    found.add_activation("tokens".to_owned(), &ids(tokens));
    let total = sites.len() * look.subjects().count();
    if let Some(file) = file {
        found.about.insert("tuned_lens".to_owned(), json!(file));
    }
    for (model, (prefix, subject)) in look.subjects().enumerate() {
        let (ids, chosen) = (subject.tokens(tokens)?, [better, worse]);
        let mut on_site = |done| on_progress(model * sites.len() + done, total);
        let seen = match file {
            Some(file) => {
                tuned_lens::read(file, &subject, prefix)?.lens(&subject, &ids, &sites, &chosen, top, &mut on_site)
            }
            None => interp::lens(&subject, &ids, &sites, &chosen, top, &mut on_site),
        }?;
        let name = |what: &str| format!("{prefix}lens.{what}");
        let labels = json!([rows, columns]);
        found.add(&name("top_tokens"), &seen.top[0], labels.clone());
        found.add(&name("top_log_probs"), &seen.top[1], labels.clone());
        found.add(&name("entropy"), &seen.entropy, labels.clone());
        found.add(&name("kl"), &seen.kl, labels.clone());
        found.add(&name("rank"), &seen.rank, labels.clone());
        found.add(&name("log_probs"), &seen.log_probs, labels);
        let likeliest = seen.top[0].select(-1, 0);
        let word =
            |site: usize, column: usize| look.word(likeliest.int64_value(&[site as i64, column as i64]).max(0) as u32);
        let cells = (0..sites.len()).flat_map(|site| (0..tokens.len()).map(move |column| (site, column)));
        found.picture.maps.push(HeatMap {
            title: if prefix.is_empty() { "base" } else { "tuned" }.to_owned(),
            columns: columns.clone(),
            rows: rows.iter().map(|row| row.replace("blocks.", "").replace("hook_", "")).collect(),
            values: numbers(&seen.top[1].select(-1, 0).exp()),
            words: cells.map(|(site, column)| word(site, column)).collect(),
        });
        for (site, row) in rows.iter().enumerate() {
            let place = [site as i64, position as i64];
            let at = |x: &Tensor, column: i64| x.double_value(&[place[0], place[1], column]);
            found.lines.push(format!(
                "{prefix}{row:<24}  {:<14} {:>6.1} %   KL to the end {:.3}   {:?} − {:?} {:+.3}",
                format!("{:?}", word(site, position)),
                100.0 * at(&seen.top[1], 0).exp(),
                seen.kl.double_value(&place),
                look.word(better),
                look.word(worse),
                at(&seen.log_probs, 0) - at(&seen.log_probs, 1),
            ));
        }
    }
    found.picture = Picture {
        per_row: 1,
        colours: Some(Colours::Sequential(0.0, 1.0)),
        unit: "probability".to_owned(),
        title: format!(
            "{} lens: the likeliest next token, layer by layer",
            if file.is_some() { "Tuned" } else { "Logit" }
        ),
        ..found.picture
    };
    Ok(found)
}

/// Adds an attribution's arrays.
fn add_attribution(found: &mut Found, prefix: &str, x: &Attribution, columns: &[String]) {
    let (blocks, heads) = (counted(x.heads.size()[0] as usize), counted(x.heads.size()[1] as usize));
    let name = |what: &str| format!("{prefix}attribution.{what}");
    found.add(&name("embed"), &x.embed, json!([columns]));
    if let Some(pos_embed) = &x.pos_embed {
        found.add(&name("pos_embed"), pos_embed, json!([columns]));
    }
    found.add(&name("heads"), &x.heads, json!([blocks, heads, columns]));
    for (what, values) in [
        ("attn_bias", &x.attn_bias),
        ("attn_adapter", &x.attn_adapter),
        ("mlp", &x.mlp),
        ("mlp_adapter", &x.mlp_adapter),
    ] {
        found.add(&name(what), values, json!([blocks, columns]));
    }
    found.add(&name("total"), &x.total, json!([columns]));
    found.add(&name("scale"), &x.scale, json!([columns]));
    found.figures.insert(name("constant"), json!(x.constant));
}

/// A table of the blocks' contributions at one position: a column for each head, the rest of attention, and the MLP.
pub(in crate::lab::text) fn contributions(x: &Attribution, position: usize, title: &str) -> HeatMap {
    let at = |x: &Tensor| x.select(-1, position as i64);
    let [bias, adapter, mlp, mlp_adapter] =
        [&x.attn_bias, &x.attn_adapter, &x.mlp, &x.mlp_adapter].map(|x| at(x).unsqueeze(-1));
    let table = Tensor::cat(&[at(&x.heads), bias, adapter, mlp, mlp_adapter], -1);
    let heads = x.heads.size()[1];
    let columns = (0..heads).map(|head| format!("head {head}"));
    let rest = ["attn bias", "attn adapter", "mlp", "mlp adapter"].map(str::to_owned);
    HeatMap {
        title: title.to_owned(),
        columns: columns.chain(rest).collect(),
        rows: counted(x.heads.size()[0] as usize),
        values: numbers(&table),
        words: vec![],
    }
}

/// The difference of two tables.
fn minus(a: &HeatMap, b: &HeatMap, title: &str) -> HeatMap {
    let values = a.values.iter().zip(&b.values).map(|(a, b)| a - b).collect();
    HeatMap { title: title.to_owned(), values, ..a.clone() }
}

/// The parts of several attributions at one position each, as figures and as lines.
fn list_parts(found: &mut Found, parts: &[(&str, Vec<(String, f64)>)]) {
    let first = &parts[0].1;
    let rows: Vec<Value> = (0..first.len())
        .map(|i| {
            let mut row = serde_json::Map::from_iter([("part".to_owned(), json!(first[i].0))]);
            row.extend(parts.iter().map(|(name, values)| ((*name).to_owned(), json!(values[i].1))));
            if let [(_, a), (_, b)] = parts {
                row.insert("difference".to_owned(), json!(b[i].1 - a[i].1));
            }
            Value::Object(row)
        })
        .collect();
    found.figures.insert("parts".to_owned(), json!(rows));
    // The largest ones, by how far the two differ if there are two.
    let weight = |i: usize| match parts {
        [(_, a), (_, b)] => (b[i].1 - a[i].1).abs(),
        _ => first[i].1.abs(),
    };
    let mut order: Vec<usize> = (0..first.len()).collect();
    order.sort_by(|&a, &b| weight(b).total_cmp(&weight(a)));
    for &i in order.iter().take(12) {
        let values: Vec<String> = parts.iter().map(|(name, values)| format!("{name} {:+.4}", values[i].1)).collect();
        found.lines.push(format!("{:<16} {}", first[i].0, values.join("   ")));
    }
    for (name, values) in parts {
        let sum: f64 = values.iter().map(|(_, value)| value).sum();
        found.lines.push(format!("sum of {name}: {sum:+.4}"));
        found.figures.insert(format!("sum_{name}"), json!(sum));
    }
}

/// What each part adds to a logit difference.
pub(super) fn attribution(look: &Look) -> Result<Found, LabError> {
    unused(!look.plan.others.is_empty(), "--other")?;
    let question = look.question(look.prompt()?)?;
    let (better, worse, position) = question.difference()?;
    let columns = look.columns(&question.tokens);
    let mut found = Found { about: question.about.clone(), ..Found::default() };
    found.add_activation("tokens".to_owned(), &ids(&question.tokens));
    let mut parts = Vec::new();
    for (prefix, subject) in look.subjects() {
        let direction = Direction::logit_difference(&subject, better, worse)?;
        let x = interp::attribution(&subject, &subject.tokens(&question.tokens)?, &direction)?;
        add_attribution(&mut found, prefix, &x, &columns);
        let name = if prefix.is_empty() { "base" } else { "tuned" };
        parts.push((name, x.named(position)));
        found.picture.maps.push(contributions(&x, position, name));
        found.figures.insert(format!("{prefix}logit_difference"), json!(x.total.double_value(&[position as i64])));
    }
    if let [base, tuned] = &found.picture.maps[..] {
        let difference = minus(tuned, base, "tuned − base");
        found.picture.maps.push(difference);
    }
    list_parts(&mut found, &parts);
    found.picture.per_row = 3;
    found.picture.unit = "logits".to_owned();
    found.picture.title = format!("What each part adds to {:?} − {:?}", look.word(better), look.word(worse));
    Ok(found)
}

/// Attention patterns.
pub(super) fn attention(look: &Look, block: Option<usize>) -> Result<Found, LabError> {
    unused(!look.plan.others.is_empty(), "--other")?;
    unused(look.plan.tokens.is_some() || look.plan.completion.is_some(), "--tokens or --completion")?;
    unused(look.plan.position.is_some(), "--position")?;
    let blocks = look.base.blocks();
    if let Some(block) = block.filter(|&block| block >= blocks) {
        return Err(LabError::Text(format!("The model has {blocks} blocks, from 0; there is no block {block}.")));
    }
    let prompt = look.prompt()?;
    let tokens = look.encode(prompt)?;
    let (columns, heads) = (look.columns(&tokens), look.base.config().heads);
    let mut found = Found::default();
    found.about.insert("prompt".to_owned(), json!(prompt));
    found.about.insert("tokens".to_owned(), json!(look.words(&tokens)));
    found.add_activation("tokens".to_owned(), &ids(&tokens));
    let mut all = Vec::new();
    for (prefix, subject) in look.subjects() {
        let seen = patterns(&subject, &subject.tokens(&tokens)?)?;
        for block in 0..blocks {
            let name = format!("{prefix}{}", Site::Pattern.of(block));
            found.add_activation(name, &seen.get(block as i64).unsqueeze(0));
        }
        let scores = head_scores(&seen, &tokens);
        for (name, x) in [
            ("first", &scores.first),
            ("previous", &scores.previous),
            ("induction", &scores.induction),
            ("duplicate", &scores.duplicate),
        ] {
            found.add(&format!("{prefix}attention.{name}"), x, json!([counted(blocks), counted(heads)]));
            let place = x.reshape([-1]).argmax(0, false).int64_value(&[]);
            found.lines.push(format!(
                "{prefix}most to the {name} token: block {} head {}, {:.3}",
                place / heads as i64,
                place % heads as i64,
                x.max().double_value(&[])
            ));
        }
        all.push(seen);
    }
    let change = |block: usize| match &all[..] {
        [base, tuned] => (tuned.get(block as i64) - base.get(block as i64)).abs().sum(Kind::Double).double_value(&[]),
        _ => block as f64,
    };
    let shown = block.or_else(|| (0..blocks).max_by(|&a, &b| change(a).total_cmp(&change(b)))).unwrap_or(0);
    let x = match &all[..] {
        [base, tuned] => tuned.get(shown as i64) - base.get(shown as i64),
        _ => all[0].get(shown as i64),
    };
    let maps = (0..heads).map(|head| HeatMap {
        title: format!("block {shown} head {head}"),
        columns: columns.clone(),
        // The first query on top, as attention is usually drawn.
        rows: columns.iter().rev().cloned().collect(),
        values: numbers(&x.get(head as i64).flip([0])),
        words: vec![],
    });
    let is_change = all.len() == 2;
    found.figures.insert("shown_block".to_owned(), json!(shown));
    found.picture = Picture {
        maps: maps.collect(),
        per_row: 4,
        colours: (!is_change).then_some(Colours::Sequential(0.0, 1.0)),
        unit: "weight".to_owned(),
        title: if is_change { "Attention, tuned − base" } else { "Attention: rows look at columns" }.to_owned(),
        ..Picture::default()
    };
    Ok(found)
}

/// What each part adds to a reward; of two texts, to their margin.
pub(super) fn reward(look: &Look) -> Result<Found, LabError> {
    unused(look.plan.position.is_some(), "--position")?;
    let bundles = [Some(&look.opened.base), look.opened.tuned.as_ref().or(Some(&look.opened.base))];
    let mut found = head_of("reward");
    for ((prefix, subject), bundle) in look.subjects().zip(bundles.into_iter().flatten()) {
        let Some((weight, bias)) = &bundle.score else {
            return Err(LabError::Text(
                "This model gives no reward; name a reward model, which ends in a score, with --model.".to_owned(),
            ));
        };
        let direction = Direction::linear(&subject, &Tensor::from_slice(weight), *bias)?;
        let of_text = |text: &str| {
            let tokens = look.encode_whole(text)?;
            // transformers reads a reward at the last token that is not padding.
            let pad = bundle.model.score_pad();
            let last = tokens.iter().rposition(|&token| Some(token) != pad).unwrap_or(0);
            Ok((tokens, last))
        };
        explain_head(look, &mut found, (prefix, &subject, &direction), "reward", &of_text)?;
    }
    Ok(found)
}

/// What each part adds to a critic's value; of two texts, to their difference.
pub(super) fn value(look: &Look) -> Result<Found, LabError> {
    let critic = look.opened.critic.as_ref().ok_or_else(no_session_of_critic)?;
    let mut found = head_of("value");
    let subject = look.base;
    let direction = Direction::linear(&subject, &Tensor::from_slice(&critic.weight()), critic.bias())?;
    let of_text = |text: &str| {
        let tokens = look.encode(text)?;
        let position = look.position(&tokens)?;
        Ok((tokens, position))
    };
    explain_head(look, &mut found, ("", &subject, &direction), "value", &of_text)?;
    // The value after every token of the first text.
    let values = found.figures["prompt.attribution.total"].as_array().cloned().unwrap_or_default();
    let columns = look.columns(&look.encode(look.prompt()?)?);
    for (column, value) in columns.iter().zip(&values) {
        found.lines.push(format!("value after {column:<16} {:+.4}", value.as_f64().unwrap_or(f64::NAN)));
    }
    Ok(found)
}

/// Nothing found yet of a head that gives numbers of this name.
fn head_of(name: &str) -> Found {
    Found {
        picture: Picture {
            per_row: 3,
            unit: name.to_owned(),
            title: format!("What each part adds to the {name}"),
            ..Picture::default()
        },
        ..Found::default()
    }
}

/// The tokens of a text, and the position that a head on the model reads.
type TokensAndPosition = (Vec<u32>, usize);

/// What the parts of a model add to the number that a head on it reads from each text: at the position that `of_text`
/// gives with the text's tokens.
fn explain_head(
    look: &Look,
    found: &mut Found,
    (prefix, subject, direction): (&str, &Subject, &Direction),
    name: &str,
    of_text: &dyn Fn(&str) -> Result<TokensAndPosition, LabError>,
) -> Result<(), LabError> {
    unused(look.plan.tokens.is_some() || look.plan.completion.is_some(), "--tokens or --completion")?;
    let texts = match &look.plan.others[..] {
        [] => vec![look.prompt()?],
        others => vec![look.prompt()?, one(others, "--other")?],
    };
    let (mut parts, mut maps) = (Vec::new(), Vec::new());
    for (text, side) in texts.iter().zip(["prompt", "other"]) {
        let (tokens, position) = of_text(text)?;
        let x = interp::attribution(subject, &subject.tokens(&tokens)?, direction)?;
        let columns = look.columns(&tokens);
        let prefix = format!("{prefix}{side}.");
        add_attribution(found, &prefix, &x, &columns);
        found.add_activation(format!("{prefix}tokens"), &ids(&tokens));
        found.about.insert(side.to_owned(), json!(text));
        found.about.insert(format!("{side}_tokens"), json!(look.words(&tokens)));
        found.about.insert(format!("{side}_position"), json!(position));
        let number = x.total.double_value(&[position as i64]);
        found.figures.insert(format!("{prefix}{name}"), json!(number));
        found.lines.push(format!("{prefix}{name} {number:+.4}"));
        maps.push(contributions(&x, position, side));
        parts.push((side, x.named(position)));
    }
    if let [(_, of_prompt), (_, of_other)] = &parts[..] {
        // Higher is better for the first text, so that the sum is the margin by which it is ahead.
        let margin: Vec<(String, f64)> =
            of_prompt.iter().zip(of_other).map(|((name, a), (_, b))| (name.clone(), a - b)).collect();
        let sum: f64 = margin.iter().map(|(_, value)| value).sum();
        found.lines.push(format!("{prefix}margin {sum:+.4}"));
        found.figures.insert(format!("{prefix}margin"), json!(sum));
        let listed: Vec<Value> = margin.iter().map(|(name, value)| json!({ "part": name, "margin": value })).collect();
        found.figures.insert(format!("{prefix}margin_parts"), json!(listed));
        maps.push(minus(&maps[0], &maps[1], "margin"));
        let mut order = margin;
        order.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        found.lines.extend(order.iter().take(10).map(|(name, value)| format!("{prefix}{name:<16} {value:+.4}")));
    } else {
        list_parts(found, &parts);
    }
    found.picture.maps.extend(maps);
    Ok(())
}
