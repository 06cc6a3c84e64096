//! Tokenizer classes that transformers builds anew from the vocabulary and the merges of `tokenizer.json`, with
//! settings of `tokenizer_config.json`.

use super::TokenizerError;
use flipside_core::one_line;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokenizers::models::ModelWrapper;
use tokenizers::{DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// The `model_type`s for which transformers reads `tokenizer.json` as it stands, whatever the class.
const AS_IT_STANDS: &[&str] = &["mistral", "olmo2", "phi3", "qwen2"];

/// Makes a tokenizer of the class `LlamaTokenizer` what transformers 5 makes of it: a space goes before a text's first
/// word only, with `legacy` after each special token, too, and without `add_prefix_space` nowhere. The normalizer of
/// such a `tokenizer.json` puts one after each special token and a second one before a text that begins with one.
pub(super) fn apply(
    inner: &mut Tokenizer,
    text: &str,
    config: &Map<String, Value>,
    model_type: &str,
) -> Result<(), TokenizerError> {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    let is_llama = class.strip_suffix("Fast").unwrap_or(class) == "LlamaTokenizer";
    let ModelWrapper::BPE(bpe) = inner.get_model() else { return Ok(()) };
    if !is_llama || AS_IT_STANDS.contains(&model_type) || text.contains("\"ByteLevel\"") {
        return Ok(());
    }
    let mut bpe = bpe.clone();
    (bpe.unk_token, bpe.fuse_unk, bpe.byte_fallback) = (None, true, true);
    let flag = |key: &str, usual: bool| config.get(key).and_then(Value::as_bool).unwrap_or(usual);
    let spaced = flag("add_prefix_space", true);
    let scheme = match flag("legacy", false) {
        _ if !spaced => "never",
        true => "always",
        false => "first",
    };
    let metaspace = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false });
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if spaced {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    inner.with_model(ModelWrapper::BPE(bpe));
    inner.with_normalizer(None::<NormalizerWrapper>).map_err(|error| failed(&error))?;
    inner.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(metaspace)?));
    inner.with_decoder(Some(part::<DecoderWrapper>(json!({ "type": "Sequence", "decoders": decoders }))?));
    Ok(())
}

/// A part of a tokenizer from its JSON.
pub(super) fn part<T: DeserializeOwned>(json: Value) -> Result<T, TokenizerError> {
    serde_json::from_value(json).map_err(|error| failed(&error))
}

fn failed(error: &dyn std::fmt::Display) -> TokenizerError {
    TokenizerError::NotATokenizer(one_line(&error.to_string()))
}
