//! Builds the `tokenizer.json` of tokenizers that come without one: GPT-2's `vocab.json` with `merges.txt`, and the
//! tables of a GGUF file. What is built here is what transformers builds from the same files.

use super::tokenizer::TokenizerError;
use flipside_core::one_line;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// How a byte-level BPE cuts a text into words before it merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// GPT-2's expression.
    Gpt2,
    /// Single digits, then GPT-2's expression.
    Digits,
    /// Llama 3's expression: up to three digits together. A word that is a token is not merged.
    Llama3,
    /// Qwen 2's expression: single digits, and Unicode's composed form.
    Qwen2,
    /// Qwen 3.5's expression: as Qwen 2's, with combining marks as letters.
    Qwen35,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A token that is never split.
#[derive(Clone, Debug, PartialEq)]
pub struct Added {
    pub id: u64,
    pub content: String,
    /// Whether decoding may leave it out.
    pub special: bool,
}

/// A `tokenizer.json` of a byte-level BPE. With `begin`, this token is put before each text.
pub fn byte_level(
    vocabulary: &BTreeMap<String, u64>,
    merges: &[[String; 2]],
    words: Words,
    prefix_space: bool,
    added: &[Added],
    begin: Option<&Added>,
) -> Value {
    let bytes = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true, "use_regex": regex });
    let split = |expression: &str| {
        json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false },
            bytes(false),
        ] })
    };
    let pre_tokenizer = match words {
        Words::Gpt2 => bytes(true),
        Words::Digits => json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Digits", "individual_digits": true }, bytes(true),
        ] }),
        Words::Llama3 => split(LLAMA3),
        Words::Qwen2 => split(QWEN2),
        Words::Qwen35 => split(QWEN35),
    };
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": words == Words::Llama3, "vocab": vocabulary,
        "merges": merges,
    });
    let composes = matches!(words, Words::Qwen2 | Words::Qwen35);
    let normalizer = if composes { json!({ "type": "NFC" }) } else { Value::Null };
    whole(model, normalizer, pre_tokenizer, bytes(true), added, begin)
}

/// A `tokenizer.json` of a SentencePiece BPE, whose merges follow from the scores of its tokens. `prefix_space` puts a
/// space before a text.
pub fn sentence_piece(
    tokens: &[String],
    scores: &[f64],
    prefix_space: bool,
    unknown: &str,
    added: &[Added],
    begin: Option<&Added>,
) -> Value {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (&token[..], id)).collect();
    let mut merges: Vec<(f64, [usize; 2], [&str; 2])> = vec![];
    for (token, &score) in tokens.iter().zip(scores) {
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut own: Vec<_> = cuts
            .filter_map(|(left, right)| Some((score, [*ids.get(left)?, *ids.get(right)?], [left, right])))
            .collect();
        own.sort_by_key(|(_, ids, _)| *ids);
        merges.extend(own);
    }
    // The best scores first, and among equals the longest parts, as transformers orders them.
    let lengths = |[left, right]: [&str; 2]| [left.chars().count(), right.chars().count()];
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| lengths(b.2).cmp(&lengths(a.2))));
    let merges: Vec<[&str; 2]> = merges.into_iter().map(|(_, _, parts)| parts).collect();
    let vocabulary: BTreeMap<&str, usize> = ids.into_iter().collect();
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": vocabulary, "merges": merges,
    });
    let replace = |from: &str, to: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": to });
    let mut normalizers = vec![replace(" ", "▁")];
    let mut decoders = vec![replace("▁", " "), json!({ "type": "ByteFallback" }), json!({ "type": "Fuse" })];
    if prefix_space {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let normalizer = json!({ "type": "Sequence", "normalizers": normalizers });
    whole(model, normalizer, Value::Null, json!({ "type": "Sequence", "decoders": decoders }), added, begin)
}

fn whole(
    model: Value,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    added: &[Added],
    begin: Option<&Added>,
) -> Value {
    let added: Vec<Value> = added
        .iter()
        .map(|token| {
            json!({
                "id": token.id, "content": token.content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": token.special,
            })
        })
        .collect();
    let post_processor = begin.map(|token| {
        let of = |id: &str, kind: u8| json!({ "Sequence": { "id": id, "type_id": kind } });
        let first = json!({ "SpecialToken": { "id": token.content, "type_id": 0 } });
        let mut tokens = Map::new();
        let entry = json!({ "id": token.content, "ids": [token.id], "tokens": [token.content] });
        tokens.insert(token.content.clone(), entry);
        json!({
            "type": "TemplateProcessing", "single": [first, of("A", 0)], "pair": [first, of("A", 0), of("B", 1)],
            "special_tokens": tokens,
        })
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder, "model": model,
    })
}

/// The `tokenizer.json` of a folder that has `vocab.json` and `merges.txt` instead; `None` if it has neither.
///
/// # Errors
///
/// One of the two without the other, or a file that is not what its name says.
pub fn from_vocabulary_and_merges(texts: &BTreeMap<String, String>) -> Result<Option<String>, TokenizerError> {
    let unread =
        |name: &str, why: String| TokenizerError::NotAVocabulary { name: name.to_owned(), why: one_line(&why) };
    let (vocabulary, merges) = match (texts.get("vocab.json"), texts.get("merges.txt")) {
        (Some(vocabulary), Some(merges)) => (vocabulary, merges),
        (None, None) => return Ok(None),
        (Some(_), None) => return Err(unread("merges.txt", "it is missing beside vocab.json".to_owned())),
        (None, Some(_)) => return Err(unread("vocab.json", "it is missing beside merges.txt".to_owned())),
    };
    let mut vocabulary: BTreeMap<String, u64> =
        serde_json::from_str(vocabulary).map_err(|error| unread("vocab.json", error.to_string()))?;
    let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty());
    let merges = lines.map(|line| {
        let (left, right) = line.trim_end().split_once(' ').ok_or_else(|| line.to_owned())?;
        Ok([left.to_owned(), right.to_owned()])
    });
    let merges: Vec<[String; 2]> =
        merges.collect::<Result<_, String>>().map_err(|line| unread("merges.txt", format!("{line:?} is no pair")))?;
    let json_of = |name: &str| -> Result<Value, TokenizerError> {
        match texts.get(name) {
            Some(text) => serde_json::from_str(text).map_err(|error| unread(name, error.to_string())),
            None => Ok(json!({})),
        }
    };
    let (config, map) = (json_of("tokenizer_config.json")?, json_of("special_tokens_map.json")?);
    let content = |token: &Value| token.as_str().or_else(|| token["content"].as_str()).map(str::to_owned);
    // Tokens beyond the vocabulary have their places in added_tokens.json or in the configuration; others come last.
    let mut placed: Vec<(u64, String, bool)> = vec![];
    let extra: BTreeMap<String, u64> = serde_json::from_value(json_of("added_tokens.json")?)
        .map_err(|error| unread("added_tokens.json", error.to_string()))?;
    placed.extend(extra.into_iter().map(|(token, id)| (id, token, false)));
    for (id, token) in config["added_tokens_decoder"].as_object().into_iter().flatten() {
        if let (Ok(id), Some(text)) = (id.parse(), content(token)) {
            placed.push((id, text, token["special"] == true));
        }
    }
    placed.sort();
    let roles = ["unk_token", "bos_token", "eos_token", "pad_token", "sep_token", "cls_token", "mask_token"];
    let mut specials: Vec<String> =
        [&config, &map].into_iter().flat_map(|table| roles.map(|role| content(&table[role]))).flatten().collect();
    for table in [&config, &map] {
        specials.extend(table["additional_special_tokens"].as_array().into_iter().flatten().filter_map(content));
    }
    if vocabulary.contains_key("<|endoftext|>") {
        specials.push("<|endoftext|>".to_owned());
    }
    let mut added: Vec<Added> = vec![];
    let mut next = vocabulary.values().chain(placed.iter().map(|(id, ..)| id)).max().map_or(0, |last| last + 1);
    for (id, content, special) in placed {
        let special = special || specials.contains(&content);
        if added.iter().all(|token| token.content != content) {
            added.push(Added { id, content, special });
        } else if let Some(known) = added.iter_mut().find(|token| token.content == content) {
            known.special |= special;
        }
    }
    for content in specials {
        if added.iter().all(|token| token.content != content) {
            let id = vocabulary.get(&content).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            added.push(Added { id, content, special: true });
        }
    }
    added.sort_by_key(|token| token.id);
    // What is added lies behind the vocabulary; the vocabulary itself keeps its own.
    vocabulary.retain(|content, id| !added.iter().any(|token| token.content == *content && token.id != *id));
    let words = if config["tokenizer_class"].as_str().is_some_and(|class| class.starts_with("Qwen2")) {
        Words::Qwen2
    } else {
        Words::Gpt2
    };
    let bos = content(&config["bos_token"]).or_else(|| content(&map["bos_token"]));
    let bos = bos.filter(|_| config["add_bos_token"] == true);
    let begin = bos.and_then(|bos| added.iter().find(|token| token.content == bos));
    let prefix_space = config["add_prefix_space"] == true;
    Ok(Some(byte_level(&vocabulary, &merges, words, prefix_space, &added, begin).to_string()))
}
