//! Tokenizers: `tokenizer.json` as Hugging Face's tokenizers read and write it, the special tokens of
//! `tokenizer_config.json`, and training of a byte-level BPE.
//!
//! This module takes and returns text; the caller reads and writes the files. The tokenization itself is the crate
//! `tokenizers`, the code behind Python's package of that name. What is added here is what often goes wrong around it:
//! which token ends a text (EOS), which one pads (never EOS), and incomplete characters while a text streams.

use flipside_core::one_line;
use serde_json::{Map, Value, json};
use std::str::FromStr;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, ModelWrapper};

/// The EOS token of tokenizers that are trained here.
pub const END: &str = "<|end|>";

/// The padding token of tokenizers that are trained here.
pub const PAD: &str = "<|pad|>";

/// Usual names of the EOS token, in order of preference, for tokenizers whose `tokenizer_config.json` names none.
const ENDS: &[&str] = &[END, "<|endoftext|>", "</s>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<eos>", "[SEP]"];

/// Usual names of a token that can serve for padding, in order of preference.
const PADS: &[&str] = &[PAD, "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>", "[UNK]"];

/// Why a tokenizer could not be read, trained or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// `tokenizer.json` is not a tokenizer.
    #[error("tokenizer.json cannot be read ({0}); take the one that came with the model")]
    NotATokenizer(String),
    /// `tokenizer_config.json` is not JSON.
    #[error("tokenizer_config.json cannot be read ({0}); take the one that came with the model")]
    NotAConfig(String),
    /// The tokenizer uses BPE dropout.
    #[error(
        "tokenizer.json drops merges at random (dropout {0}), so tokens are not unique; set \"dropout\" to null in it"
    )]
    Dropout(f64),
    /// A special token that the vocabulary lacks.
    #[error(
        "tokenizer_config.json names {role} {token:?}, which is not in tokenizer.json; take both from the same model"
    )]
    UnknownSpecial {
        /// `eos_token` and the like.
        role: &'static str,
        /// Its text.
        token: String,
    },
    /// The vocabulary is too small for all bytes.
    #[error(
        "a byte-level vocabulary needs at least {least} tokens (256 bytes, 2 special ones), not {asked}; ask for more"
    )]
    TooSmall {
        /// The size that was asked for.
        asked: usize,
        /// The smallest possible size.
        least: usize,
    },
    /// There is no text to train on.
    #[error("there is no text to train a tokenizer on; give a data file with some")]
    NoText,
    /// The crate `tokenizers` failed.
    #[error("the text could not be turned into tokens or back ({0}); check that tokenizer.json is complete")]
    Failed(String),
}

/// A tokenizer with its special tokens.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// `tokenizer.json` as it was read, so that saving it changes nothing; `None` if it was trained or changed here.
    source: Option<String>,
    /// `tokenizer_config.json`'s entries.
    config: Map<String, Value>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
}

impl Tokenizer {
    /// Reads the text of `tokenizer.json`, and that of `tokenizer_config.json` if there is one. The file's settings of
    /// truncation and padding are ignored: batches are padded where they are made.
    ///
    /// # Errors
    ///
    /// A text that is not a tokenizer, BPE dropout, a special token that the vocabulary lacks.
    pub fn from_json(tokenizer: &str, config: Option<&str>) -> Result<Tokenizer, TokenizerError> {
        let mut inner = tokenizers::Tokenizer::from_str(tokenizer)
            .map_err(|error| TokenizerError::NotATokenizer(one_line(&error.to_string())))?;
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && let Some(dropout) = bpe.dropout.filter(|&share| share > 0.0)
        {
            return Err(TokenizerError::Dropout(f64::from(dropout)));
        }
        inner.with_truncation(None).map_err(|error| TokenizerError::NotATokenizer(one_line(&error.to_string())))?;
        inner.with_padding(None);
        let config: Map<String, Value> = match config {
            Some(text) => {
                serde_json::from_str(text).map_err(|error| TokenizerError::NotAConfig(one_line(&error.to_string())))?
            }
            None => Map::new(),
        };
        Tokenizer::with_config(inner, Some(tokenizer.to_owned()), config)
    }

    fn with_config(
        inner: tokenizers::Tokenizer,
        source: Option<String>,
        config: Map<String, Value>,
    ) -> Result<Tokenizer, TokenizerError> {
        let named = |role: &'static str| match special(&config, role) {
            None => Ok(None),
            Some(token) => match inner.token_to_id(token) {
                Some(id) => Ok(Some(id)),
                None => Err(TokenizerError::UnknownSpecial { role, token: token.to_owned() }),
            },
        };
        let first = |names: &[&str], except: Option<u32>| {
            names.iter().filter_map(|name| inner.token_to_id(name)).find(|&id| Some(id) != except)
        };
        let bos = named("bos_token")?;
        let eos = named("eos_token")?.or_else(|| first(ENDS, None));
        let pad = named("pad_token")?.filter(|&id| Some(id) != eos).or_else(|| first(PADS, eos));
        Ok(Tokenizer { inner, source, config, bos, eos, pad })
    }

    /// Trains a byte-level BPE with the special tokens [`END`] and [`PAD`] as ids 0 and 1. Text is split as in GPT-2,
    /// and every byte is in the alphabet, so that any text can be encoded. The same texts give the same tokenizer.
    ///
    /// # Errors
    ///
    /// A vocabulary of fewer than 258 tokens, or no text.
    pub fn train<'a>(
        texts: impl IntoIterator<Item = &'a str, IntoIter: Send>,
        vocabulary: usize,
    ) -> Result<Tokenizer, TokenizerError> {
        let alphabet = ByteLevel::alphabet();
        let least = alphabet.len() + 2;
        if vocabulary < least {
            return Err(TokenizerError::TooSmall { asked: vocabulary, least });
        }
        let failed = |error: tokenizers::Error| TokenizerError::Failed(one_line(&error.to_string()));
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        inner.with_decoder(Some(ByteLevel::default()));
        let trainer = BpeTrainerBuilder::new()
            .vocab_size(vocabulary)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(vec![AddedToken::from(END, true), AddedToken::from(PAD, true)])
            .initial_alphabet(alphabet.into_iter().collect())
            .build();
        let mut any = false;
        let texts = texts.into_iter().inspect(|text| any |= !text.is_empty());
        inner.train(&mut TrainerWrapper::from(trainer), texts).map_err(failed)?;
        if !any {
            return Err(TokenizerError::NoText);
        }
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": PAD,
            "padding_side": "left",
            "clean_up_tokenization_spaces": false,
        });
        let Value::Object(config) = config else { unreachable!("an object is written above") };
        Tokenizer::with_config(inner, None, config)
    }

    /// The token ids of a text. With `special`, the tokenizer adds its special tokens around the text (such as Llama's
    /// `<s>`).
    ///
    /// # Errors
    ///
    /// A text with a part that has no token, if the tokenizer has no unknown token either.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, special)
            .map_err(|error| TokenizerError::Failed(one_line(&error.to_string())))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of these token ids. `skip_special` leaves out special tokens; unknown ids are always left out.
    ///
    /// # Errors
    ///
    /// A decoder that does not fit the tokens.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.inner.decode(tokens, skip_special).map_err(|error| TokenizerError::Failed(one_line(&error.to_string())))
    }

    /// The token's own name, such as `Ġthe` for " the"; `None` for an unknown id.
    pub fn name(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// The id of the token with this name.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.inner.token_to_id(name)
    }

    /// Number of tokens, special ones included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The BOS token, if there is one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The EOS token, if there is one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The padding token. It is never [`Tokenizer::eos`], even if the files say so. `None` if the vocabulary has no
    /// token for it, until [`Tokenizer::add_pad`] adds one.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// The padding token, which is added to the vocabulary if there was none. Its id may be one past the model's last
    /// embedding row; then the embedding needs one more row.
    ///
    /// # Errors
    ///
    /// A vocabulary that accepts no further token.
    pub fn add_pad(&mut self) -> Result<u32, TokenizerError> {
        if let Some(pad) = self.pad {
            return Ok(pad);
        }
        let failed = |error: tokenizers::Error| TokenizerError::Failed(one_line(&error.to_string()));
        self.inner.add_special_tokens([AddedToken::from(PAD, true)]).map_err(failed)?;
        let pad = self.inner.token_to_id(PAD).ok_or_else(|| TokenizerError::Failed(format!("{PAD} was not added")))?;
        self.source = None;
        self.pad = Some(pad);
        Ok(pad)
    }

    /// `tokenizer.json`: byte for byte what was read, unless a token was added since.
    ///
    /// # Errors
    ///
    /// A tokenizer that cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        match &self.source {
            Some(text) => Ok(text.clone()),
            None => self.inner.to_string(true).map_err(|error| TokenizerError::Failed(one_line(&error.to_string()))),
        }
    }

    /// `tokenizer_config.json`: what was read, with the BOS, EOS and padding tokens that are used here.
    pub fn config_json(&self) -> String {
        let mut config = self.config.clone();
        config.entry("tokenizer_class").or_insert_with(|| json!("PreTrainedTokenizerFast"));
        for (role, token) in [("bos_token", self.bos), ("eos_token", self.eos), ("pad_token", self.pad)] {
            if let Some(name) = token.and_then(|id| self.name(id))
                && special(&config, role) != Some(name.as_str())
            {
                config.insert(role.to_owned(), json!(name));
            }
        }
        // Writing a map of JSON values cannot fail.
        format!("{:#}\n", Value::Object(config))
    }

    /// The model's chat template in Jinja, if it has one.
    pub fn chat_template(&self) -> Option<&str> {
        match self.config.get("chat_template")? {
            Value::String(template) => Some(template),
            Value::Array(named) => {
                let default = named.iter().find(|entry| entry["name"] == "default")?;
                default["template"].as_str()
            }
            _ => None,
        }
    }

    /// A decoder for tokens that come one by one. It returns whole characters only.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, tokens: Vec::new(), prefix_offset: 0, read_offset: 0 }
    }
}

/// The token that `tokenizer_config.json` gives this role: a text, or an object with the text as `content`.
fn special<'a>(config: &'a Map<String, Value>, role: &str) -> Option<&'a str> {
    let token = config.get(role)?;
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// Decodes tokens one by one. A character whose bytes are spread over several tokens comes with the last of them.
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Index of the first token that is still decoded. The text of all tokens before it was returned.
    prefix_offset: usize,
    /// Index of the first token whose text was not returned yet. The tokens from `prefix_offset` to here are decoded
    /// again, because some decoders treat a text's first token differently.
    read_offset: usize,
}

impl TextStream<'_> {
    /// What this token adds to the text; empty while a character is incomplete. Special tokens add nothing.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, token: u32) -> Result<String, TokenizerError> {
        self.tokens.push(token);
        let whole = self.tokenizer.decode(&self.tokens[self.prefix_offset..], true)?;
        let before = self.tokenizer.decode(&self.tokens[self.prefix_offset..self.read_offset], true)?;
        // U+FFFD stands for bytes that do not form a character yet.
        if whole.ends_with('\u{fffd}') || whole.len() <= before.len() || !whole.starts_with(&before) {
            return Ok(String::new());
        }
        self.prefix_offset = self.read_offset;
        self.read_offset = self.tokens.len();
        Ok(whole[before.len()..].to_owned())
    }

    /// The rest of the text, after the last token. Bytes of an incomplete character show as `�`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::decode`].
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        let whole = self.tokenizer.decode(&self.tokens[self.prefix_offset..], true)?;
        let before = self.tokenizer.decode(&self.tokens[self.prefix_offset..self.read_offset], true)?;
        self.prefix_offset = self.tokens.len();
        self.read_offset = self.tokens.len();
        Ok(whole.strip_prefix(&before).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests;
