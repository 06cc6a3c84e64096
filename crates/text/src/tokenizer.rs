//! Words to numbers and back: `tokenizer.json` as Hugging Face's tokenizers read and write it, its special tokens as
//! `tokenizer_config.json` names them, and training a byte-level BPE of one's own.
//!
//! Text goes in and comes out; whoever calls reads and writes the files. The merging itself is the crate `tokenizers`, the very code
//! behind Python's package of that name. What is ours is what goes wrong around it: which token ends a text, which one pads (never the
//! one that ends), and pieces of characters while a text streams.

use flipside_core::one_line;
use serde_json::{Map, Value, json};
use std::str::FromStr;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, ModelWrapper};

/// The token that ends a text in tokenizers that are trained here.
pub const END: &str = "<|end|>";

/// The token that fills a batch up in tokenizers that are trained here.
pub const PAD: &str = "<|pad|>";

/// Names that tokenizers without a `tokenizer_config.json` give the token that ends a text, the most telling first.
const ENDS: &[&str] = &[END, "<|endoftext|>", "</s>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<eos>", "[SEP]"];

/// Names under which a token that only pads is known, the most telling first.
const PADS: &[&str] = &[PAD, "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>", "[UNK]"];

/// Why a tokenizer could not be read, trained or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// `tokenizer.json` is not one.
    #[error("tokenizer.json cannot be read ({0}); take the one that came with the model")]
    NotATokenizer(String),
    /// `tokenizer_config.json` is not JSON.
    #[error("tokenizer_config.json cannot be read ({0}); take the one that came with the model")]
    NotAConfig(String),
    /// It merges at random.
    #[error(
        "tokenizer.json drops merges at random (dropout {0}), so that a text has no one encoding; set \"dropout\" to null in it"
    )]
    Dropout(f64),
    /// A special token that the vocabulary lacks.
    #[error(
        "tokenizer_config.json names {role} {token:?}, which tokenizer.json does not know; take both from the same model"
    )]
    UnknownSpecial {
        /// `eos_token` and the like.
        role: &'static str,
        /// Its text.
        token: String,
    },
    /// Fewer words than bytes.
    #[error(
        "a byte-level vocabulary needs at least {least} tokens (256 bytes and the special ones) and {asked} were asked for; ask for more"
    )]
    TooSmall {
        /// What was asked for.
        asked: usize,
        /// What it takes.
        least: usize,
    },
    /// Nothing to learn from.
    #[error("there is no text to train a tokenizer on; give a data file with some")]
    NoText,
    /// The crate refused.
    #[error("the text could not be turned into tokens or back ({0}); check that tokenizer.json is whole")]
    Failed(String),
}

/// A tokenizer with its special tokens.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// `tokenizer.json` as it was read, so that saving changes nothing; `None` after a change of ours.
    source: Option<String>,
    /// `tokenizer_config.json`'s entries.
    config: Map<String, Value>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`'s text, and `tokenizer_config.json`'s where there is one. Truncation and padding that the file asks for
    /// are not done: a batch is padded where it is made.
    ///
    /// # Errors
    ///
    /// A text that is no tokenizer, one that merges at random, a special token that the vocabulary lacks.
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
        let first = |names: &[&str], but: Option<u32>| {
            names.iter().filter_map(|name| inner.token_to_id(name)).find(|&id| Some(id) != but)
        };
        let bos = named("bos_token")?;
        let eos = named("eos_token")?.or_else(|| first(ENDS, None));
        let pad = named("pad_token")?.filter(|&id| Some(id) != eos).or_else(|| first(PADS, eos));
        Ok(Tokenizer { inner, source, config, bos, eos, pad })
    }

    /// Trains a byte-level BPE (GPT-2's way of splitting, every byte in the alphabet, so that any text has tokens) with the special
    /// tokens [`END`] and [`PAD`] as 0 and 1. The same texts give the same tokenizer.
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

    /// The tokens of a text; with `special`, also those that the tokenizer puts around one (Llama's `<s>`).
    ///
    /// # Errors
    ///
    /// A tokenizer that has no token for a part of the text and none that stands for the unknown.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, special)
            .map_err(|error| TokenizerError::Failed(one_line(&error.to_string())))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of these tokens, special ones left out if so asked. Tokens that are unknown are left out.
    ///
    /// # Errors
    ///
    /// A decoder that does not fit the tokens.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.inner.decode(tokens, skip_special).map_err(|error| TokenizerError::Failed(one_line(&error.to_string())))
    }

    /// The token's own name, such as `Ġthe` for " the"; `None` for a number that stands for nothing.
    pub fn name(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// The number of this token's name.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.inner.token_to_id(name)
    }

    /// How many tokens there are, special ones included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token that begins a text, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that fills batches up. It is never [`Tokenizer::eos`], even where the files say so; `None` where the vocabulary has
    /// none to spare, until [`Tokenizer::add_pad`].
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// The token that pads, added to the vocabulary where there was none. Its number may lie one beyond the model's rows: then the
    /// embedding needs a row more.
    ///
    /// # Errors
    ///
    /// A vocabulary that takes no token more.
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

    /// `tokenizer.json`: what was read, to the byte, unless a token was added since.
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

    /// `tokenizer_config.json`: what was read, with the tokens that end and pad as they are used here.
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
        // A map of JSON values always has a text.
        format!("{:#}\n", Value::Object(config))
    }

    /// The model's own template for conversations, in Jinja, if it has one.
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

    /// Text as it streams: whole characters only.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, tokens: Vec::new(), context: 0, said: 0 }
    }
}

/// The token that `tokenizer_config.json` gives this role: a text, or an object with the text as `content`.
fn special<'a>(config: &'a Map<String, Value>, role: &str) -> Option<&'a str> {
    let token = config.get(role)?;
    token.as_str().or_else(|| token.get("content")?.as_str())
}

/// Turns tokens into text one by one. A character whose bytes are spread over several tokens comes with the last of them.
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Tokens before this one were said and are no longer looked at.
    context: usize,
    /// Tokens before this one were said; from `context` on they are decoded again, because some decoders treat a text's first token
    /// in another way.
    said: usize,
}

impl TextStream<'_> {
    /// What this token adds to the text; empty while a character is not whole. Special tokens add nothing.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, token: u32) -> Result<String, TokenizerError> {
        self.tokens.push(token);
        let whole = self.tokenizer.decode(&self.tokens[self.context..], true)?;
        let before = self.tokenizer.decode(&self.tokens[self.context..self.said], true)?;
        // U+FFFD stands for bytes that are no character yet.
        if whole.ends_with('\u{fffd}') || whole.len() <= before.len() || !whole.starts_with(&before) {
            return Ok(String::new());
        }
        self.context = self.said;
        self.said = self.tokens.len();
        Ok(whole[before.len()..].to_owned())
    }

    /// What is left when no token follows: bytes that never became a character show as `�`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::decode`].
    pub fn finish(&mut self) -> Result<String, TokenizerError> {
        let whole = self.tokenizer.decode(&self.tokens[self.context..], true)?;
        let before = self.tokenizer.decode(&self.tokens[self.context..self.said], true)?;
        self.context = self.tokens.len();
        self.said = self.tokens.len();
        Ok(whole.strip_prefix(&before).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests;
