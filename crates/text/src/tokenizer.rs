//! Tokenizers: `tokenizer.json` as Hugging Face's tokenizers read and write it, the special tokens and chat templates
//! of the files beside it, and training of a byte-level BPE.
//!
//! This module takes and returns text; the caller reads and writes the files. The tokenization itself is the crate
//! `tokenizers`, the code behind Python's package of that name. What is added here is what often goes wrong around it:
//! which files say which tokens begin, end and pad (as transformers reads them together), where in a text each token
//! ends, and incomplete characters while a text streams.

// The path is given because the fuzz targets take this file by its path.
#[path = "tokenizer/class.rs"]
mod class;

use flipside_core::one_line;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, ModelWrapper, PostProcessorWrapper};

/// The EOS token of tokenizers that are trained here.
pub const END: &str = "<|end|>";

/// The padding token of tokenizers that are trained here.
pub const PAD: &str = "<|pad|>";

/// Usual names of the EOS token, in order of preference, for folders that name none.
const ENDS: &[&str] = &[END, "<|endoftext|>", "</s>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "<eos>", "[SEP]"];

/// Usual names of a token that can serve for padding, in order of preference.
const PADS: &[&str] = &[PAD, "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>", "[UNK]"];

/// The special tokens that have a role, in the order in which transformers adds those that the vocabulary lacks.
const ROLES: &[&str] = &["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Why a tokenizer could not be read, trained or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// `tokenizer.json` is not a tokenizer.
    #[error("tokenizer.json cannot be read ({0}); take the one that came with the model")]
    NotATokenizer(String),
    /// `vocab.json`, `merges.txt` or a file beside them is not what its name says.
    #[error("{name} cannot be read ({why}); take the one that came with the model")]
    NotAVocabulary {
        /// The file.
        name: String,
        /// What was found.
        why: String,
    },
    /// A file beside `tokenizer.json` is damaged.
    #[error("{file} cannot be read ({reason}); take the one that came with the model")]
    Damaged {
        /// Its name.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer uses BPE dropout.
    #[error(
        "tokenizer.json drops merges at random (dropout {0}), so tokens are not unique; set \"dropout\" to null in it"
    )]
    Dropout(f64),
    /// A token that the model's embedding has no row for.
    #[error(
        "the token {token:?} has the id {id}, and the model's embedding has only {rows} rows; leave it out of the text, or \
         take tokenizer and model from the same folder"
    )]
    NoRow {
        /// Its name.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
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

/// A tokenizer with its special tokens and its chat template.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// `tokenizer.json` as it was read, so that saving it changes nothing; `None` if it was trained or changed here.
    source: Option<String>,
    /// `tokenizer_config.json`'s entries, with what the other files say instead.
    config: Map<String, Value>,
    /// `generation_config.json`'s entries.
    generation: Map<String, Value>,
    /// The chat template, and the file that it comes from.
    template: Option<(String, &'static str)>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    /// Rows of the model's embedding. Tokens with a larger id cannot be used.
    rows: Option<usize>,
}

impl Tokenizer {
    /// Reads the text of `tokenizer.json`, and that of `tokenizer_config.json` if there is one.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::from_texts`].
    pub fn from_json(tokenizer: &str, config: Option<&str>) -> Result<Tokenizer, TokenizerError> {
        let config = config.map(|text| ("tokenizer_config.json".to_owned(), text.to_owned()));
        Tokenizer::read(tokenizer, &config.into_iter().collect())
    }

    /// Reads the files of a model folder, by name; `None` without `tokenizer.json`. They are read together as
    /// transformers does:
    ///
    /// - `special_tokens_map.json` and `added_tokens.json` count unless `tokenizer_config.json` has
    ///   `added_tokens_decoder`, which came after them. Roles that it leaves open are filled from the former anyway.
    /// - Special tokens that the vocabulary lacks get the next ids. Entries whose names end in `_token` are such
    ///   tokens, too, and those of `additional_special_tokens` only without `extra_special_tokens`.
    /// - The class `LlamaTokenizer` has its own rules of spaces: see `tokenizer/class.rs`.
    /// - `chat_template.jinja` comes before `tokenizer_config.json`. If neither has a template, that of
    ///   `chat_template.json` is taken.
    /// - If no file names the EOS token, it is the first of `generation_config.json` or `config.json`, else one with a
    ///   usual name.
    ///
    /// The settings of truncation and padding in `tokenizer.json` are ignored: batches are padded where they are made.
    ///
    /// # Errors
    ///
    /// A damaged file, by its name; BPE dropout.
    pub fn from_texts(texts: &BTreeMap<String, String>) -> Result<Option<Tokenizer>, TokenizerError> {
        texts.get("tokenizer.json").map(|tokenizer| Tokenizer::read(tokenizer, texts)).transpose()
    }

    fn read(tokenizer: &str, texts: &BTreeMap<String, String>) -> Result<Tokenizer, TokenizerError> {
        let mut inner = backend(tokenizer)?;
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && let Some(dropout) = bpe.dropout.filter(|&share| share > 0.0)
        {
            return Err(TokenizerError::Dropout(f64::from(dropout)));
        }
        inner.with_truncation(None).map_err(|error| TokenizerError::NotATokenizer(one_line(&error.to_string())))?;
        inner.with_padding(None);
        let mut config = object(texts, "tokenizer_config.json")?;
        let (map, added) = (object(texts, "special_tokens_map.json")?, object(texts, "added_tokens.json")?);
        let legacy = !config.contains_key("added_tokens_decoder");
        for (role, token) in map {
            if legacy || config.get(&role).is_none_or(Value::is_null) {
                config.insert(role, token);
            }
        }
        let mut source = Some(tokenizer.to_owned());
        if legacy && add_missing(&mut inner, listed_tokens(&added, &config))? {
            // The file that lists them is not written again.
            source = None;
        }
        add_missing(&mut inner, decoder_tokens(&config))?;
        let missing = special_tokens(&inner, &config);
        add_missing(&mut inner, missing)?;
        let generation = object(texts, "generation_config.json")?;
        check_ends(&generation)?;
        let model = texts.get("config.json").and_then(|text| serde_json::from_str::<Value>(text).ok());
        let model_type = model.as_ref().and_then(|model| model.get("model_type")?.as_str()).unwrap_or_default();
        class::apply(&mut inner, tokenizer, &config, model_type)?;
        inner.set_encode_special_tokens(config.get("split_special_tokens") == Some(&Value::Bool(true)));
        let template = template(texts, &config)?;
        if let Some((text, file)) = &template
            && *file != CONFIG
        {
            config.insert("chat_template".to_owned(), json!(text));
        }
        let fallback = ends_of(generation.get("eos_token_id"))
            .into_iter()
            .chain(ends_of(model.as_ref().and_then(|model| model.get("eos_token_id"))))
            .find(|&id| inner.id_to_token(id).is_some());
        Ok(Tokenizer { generation, template, ..Tokenizer::with_config(inner, source, config, fallback) })
    }

    /// `ends` is the EOS token if the configuration names none.
    fn with_config(
        inner: tokenizers::Tokenizer,
        source: Option<String>,
        config: Map<String, Value>,
        end: Option<u32>,
    ) -> Tokenizer {
        let named = |role: &str| special(&config, role).and_then(|token| inner.token_to_id(token));
        let first = |names: &[&str], except: Option<u32>| {
            names.iter().filter_map(|name| inner.token_to_id(name)).find(|&id| Some(id) != except)
        };
        let bos = named("bos_token");
        let eos = named("eos_token").or(end).or_else(|| first(ENDS, None));
        let pad = named("pad_token").filter(|&id| Some(id) != eos).or_else(|| first(PADS, eos));
        Tokenizer { inner, source, config, generation: Map::new(), template: None, bos, eos, pad, rows: None }
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
        Ok(Tokenizer::with_config(inner, None, config, None))
    }

    /// Sets the number of rows of the model's embedding. A token that has no row is then refused when a text has it,
    /// and never serves as padding. The vocabulary itself may be larger or smaller than the embedding.
    pub fn set_rows(&mut self, rows: usize) {
        self.rows = Some(rows);
        self.pad = self.pad.filter(|&pad| (pad as usize) < rows);
    }

    /// The token ids of a text. With `special`, the tokenizer adds its special tokens around the text (such as Llama's
    /// `<s>`).
    ///
    /// # Errors
    ///
    /// A text with a part that has no token, if the tokenizer has no unknown token either; a token without a row in the
    /// model's embedding.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self
            .inner
            .encode_fast(text, special)
            .map_err(|error| TokenizerError::Failed(one_line(&error.to_string())))?;
        self.with_rows(encoding.get_ids().to_vec())
    }

    /// The tokens of a text that may be continued, each with the byte of the text where it ends. The ends never fall.
    /// With `special`, the tokenizer adds the special tokens that belong before a text. Those that belong after it are
    /// left out.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_with_ends(&self, text: &str, special: bool) -> Result<(Vec<u32>, Vec<usize>), TokenizerError> {
        let encoding =
            self.inner.encode(text, special).map_err(|error| TokenizerError::Failed(one_line(&error.to_string())))?;
        let added = encoding.get_special_tokens_mask();
        let count = added.len() - added.iter().rev().take_while(|&&added| special && added == 1).count();
        let mut last = 0;
        let ends = encoding.get_offsets()[..count].iter().map(|&(_, end)| {
            last = end.max(last);
            last
        });
        let ends = ends.collect();
        Ok((self.with_rows(encoding.get_ids()[..count].to_vec())?, ends))
    }

    /// The same tokens, if each has a row in the model's embedding.
    ///
    /// # Errors
    ///
    /// A token without one.
    pub fn with_rows(&self, tokens: Vec<u32>) -> Result<Vec<u32>, TokenizerError> {
        match (self.rows, tokens.iter().find(|&&id| self.rows.is_some_and(|rows| id as usize >= rows))) {
            (Some(rows), Some(&id)) => {
                Err(TokenizerError::NoRow { token: self.name(id).unwrap_or_default(), id, rows })
            }
            _ => Ok(tokens),
        }
    }

    /// The text of these token ids. `skip_special` leaves out special tokens; unknown ids are always left out.
    ///
    /// # Errors
    ///
    /// A decoder that does not fit the tokens.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.inner.decode(tokens, skip_special).map_err(|error| TokenizerError::Failed(one_line(&error.to_string())))
    }

    /// Whether another tokenizer gives the same tokens and writes conversations in the same way.
    pub fn encodes_like(&self, other: &Tokenizer) -> bool {
        // The files may differ in their layout.
        let parsed = |tokenizer: &Tokenizer| tokenizer.inner.to_string(false).ok();
        let same_files = self.source.is_some() && self.source == other.source && self.config == other.config;
        let same_tokens = same_files || parsed(self) == parsed(other);
        let marks = |tokenizer: &Tokenizer| (tokenizer.bos, tokenizer.eos);
        same_tokens && self.chat_template() == other.chat_template() && marks(self) == marks(other)
    }

    /// What a completion adds to the text of its prompt. Some decoders leave out the space before a text's first token,
    /// so the two are decoded together.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::decode`].
    pub fn continuation(
        &self,
        prompt: &[u32],
        completion: &[u32],
        skip_special: bool,
    ) -> Result<String, TokenizerError> {
        let before = self.decode(prompt, skip_special)?;
        let whole = self.decode(&[prompt, completion].concat(), skip_special)?;
        match whole.strip_prefix(&before) {
            Some(rest) => Ok(rest.to_owned()),
            // The prompt ends within a character.
            None => self.decode(completion, skip_special),
        }
    }

    /// The token's own name, such as `Ġthe` for " the"; `None` for an unknown id.
    pub fn name(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// Whether this is the name of a special token, which decoding may leave out.
    fn is_special(&self, name: &str) -> bool {
        self.inner.get_added_vocabulary().is_special_token(name)
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

    /// The tokens that end a completion: [`Tokenizer::eos`] and those of `generation_config.json`.
    pub fn ends(&self) -> Vec<u32> {
        let mut ends: Vec<u32> = self.eos.into_iter().collect();
        for end in ends_of(self.generation.get("eos_token_id")) {
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        ends
    }

    /// `generation_config.json`'s entries: ends, padding and defaults of sampling.
    pub fn generation(&self) -> &Map<String, Value> {
        &self.generation
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
        self.template.as_ref().map(|(text, _)| text.as_str())
    }

    /// The file that [`Tokenizer::chat_template`] comes from.
    pub fn template_file(&self) -> &'static str {
        self.template.as_ref().map_or(CONFIG, |(_, file)| file)
    }

    /// The special tokens that have a role, such as `bos_token`, by role.
    pub fn roles(&self) -> BTreeMap<String, String> {
        let usual = ROLES.iter().filter_map(|&role| Some((role, special(&self.config, role)?)));
        let own = own_roles(&self.config).filter_map(|(role, entry)| Some((role, content(entry)?)));
        let mut roles: BTreeMap<String, String> =
            usual.chain(own).map(|(role, token)| (role.to_owned(), token.to_owned())).collect();
        for (role, id) in [("bos_token", self.bos), ("eos_token", self.eos), ("pad_token", self.pad)] {
            if let (None, Some(name)) = (roles.get(role), id.and_then(|id| self.name(id))) {
                roles.insert(role.to_owned(), name);
            }
        }
        roles
    }

    /// A decoder for tokens that come one by one. It returns whole characters only.
    pub fn stream(&self) -> TextStream<'_> {
        self.stream_after(&[])
    }

    /// The same for tokens that continue a prompt: the pieces together are [`Tokenizer::continuation`].
    pub fn stream_after(&self, prompt: &[u32]) -> TextStream<'_> {
        TextStream { tokenizer: self, tokens: prompt.to_vec(), prefix_offset: 0, read_offset: prompt.len() }
    }
}

/// The file whose entries are a tokenizer's configuration.
const CONFIG: &str = "tokenizer_config.json";

/// What is checked of a `tokenizer.json` before the crate reads it.
#[derive(serde::Deserialize)]
struct Part {
    #[serde(default)]
    post_processor: Value,
}

/// The crate's tokenizer of a `tokenizer.json`. For some damaged files the crate panics instead of failing.
fn backend(text: &str) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let wrong = |reason: &str| TokenizerError::NotATokenizer(one_line(reason));
    let mut part: Part = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
    if let Some(token) = undefined_token(&part.post_processor) {
        return Err(wrong(&format!("its post_processor names the token {token:?} without its ids")));
    }
    let mut inner = match catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_str(text))) {
        Ok(read) => read.map_err(|error| wrong(&error.to_string()))?,
        Err(_) => return Err(wrong("a part of it is missing or of another kind")),
    };
    if untrimmed(&mut part.post_processor) {
        inner.with_post_processor(Some(class::part::<PostProcessorWrapper>(part.post_processor)?));
    }
    Ok(inner)
}

/// Lets a post-processor leave white space in the places of tokens. Without it, a token such as `:` with two line
/// breaks seems to end before them, and the border of a prompt is put behind it. Returns whether anything was changed.
fn untrimmed(processor: &mut Value) -> bool {
    let mut changed = false;
    if let Some(trim) = processor.get_mut("trim_offsets").filter(|trim| **trim == true) {
        *trim = Value::Bool(false);
        changed = true;
    }
    let parts = processor.get_mut("processors").and_then(Value::as_array_mut);
    parts.into_iter().flatten().fold(changed, |changed, part| untrimmed(part) || changed)
}

/// A token that a template of this post-processor names and does not define. The crate looks it up with every text and
/// panics.
fn undefined_token(processor: &Value) -> Option<&str> {
    let parts = |list: &'static str| processor[list].as_array().into_iter().flatten();
    let named = ["single", "pair"].into_iter().flat_map(parts).filter_map(|part| part["SpecialToken"]["id"].as_str());
    let mut undefined = named.filter(|token| processor["special_tokens"].get(token).is_none());
    undefined.next().or_else(|| parts("processors").find_map(undefined_token))
}

/// The entries of this file, which is a JSON object; none if there is no such file.
fn object(texts: &BTreeMap<String, String>, file: &'static str) -> Result<Map<String, Value>, TokenizerError> {
    let damaged = |reason: String| TokenizerError::Damaged { file, reason };
    match texts.get(file).map(|text| serde_json::from_str(text)) {
        None => Ok(Map::new()),
        Some(Ok(Value::Object(map))) => Ok(map),
        Some(Ok(_)) => Err(damaged("it is not a JSON object".to_owned())),
        Some(Err(error)) => Err(damaged(one_line(&error.to_string()))),
    }
}

/// The chat template that counts, and its file.
fn template(
    texts: &BTreeMap<String, String>,
    config: &Map<String, Value>,
) -> Result<Option<(String, &'static str)>, TokenizerError> {
    if let Some(text) = texts.get("chat_template.jinja") {
        return Ok(Some((text.clone(), "chat_template.jinja")));
    }
    let own = object(texts, "chat_template.json")?;
    for (entries, file) in [(config, CONFIG), (&own, "chat_template.json")] {
        let damaged = |reason: &str| TokenizerError::Damaged { file, reason: reason.to_owned() };
        match entries.get("chat_template") {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => return Ok(Some((text.clone(), file))),
            Some(Value::Array(named)) => {
                let default = named.iter().find(|entry| entry["name"] == "default").map(|entry| &entry["template"]);
                let text = default
                    .and_then(Value::as_str)
                    .ok_or_else(|| damaged("it has several chat templates, and none of them is named \"default\""))?;
                return Ok(Some((text.to_owned(), file)));
            }
            Some(Value::Object(named)) => {
                let text = named.get("default").and_then(Value::as_str);
                let text = text.ok_or_else(|| damaged("none of its chat templates is named \"default\""))?;
                return Ok(Some((text.to_owned(), file)));
            }
            Some(_) => return Err(damaged("\"chat_template\" is not a text")),
        }
    }
    Ok(None)
}

/// Refuses a `generation_config.json` whose `eos_token_id` is something else than an id or a list of ids.
fn check_ends(generation: &Map<String, Value>) -> Result<(), TokenizerError> {
    let ends = generation.get("eos_token_id").unwrap_or(&Value::Null);
    let ids = ends.as_array().map_or(std::slice::from_ref(ends), Vec::as_slice);
    match ids.iter().all(|id| id.is_i64() || id.is_u64() || ends.is_null()) {
        true => Ok(()),
        false => {
            let reason = one_line(&format!("\"eos_token_id\" is {ends} where ids of tokens are expected"));
            Err(TokenizerError::Damaged { file: "generation_config.json", reason })
        }
    }
}

/// The ids of `eos_token_id`: one, or a list.
fn ends_of(ids: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match ids {
        Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(one) => id(one).into_iter().collect(),
        None => Vec::new(),
    }
}

/// Adds the tokens that the vocabulary lacks, or has with other properties. Returns whether there were any.
fn add_missing(inner: &mut tokenizers::Tokenizer, tokens: Vec<AddedToken>) -> Result<bool, TokenizerError> {
    let there = inner.get_added_tokens_decoder();
    if tokens.iter().all(|token| there.values().any(|known| known == token)) {
        return Ok(false);
    }
    inner.add_tokens(tokens).map_err(|error| TokenizerError::Failed(one_line(&error.to_string())))?;
    Ok(true)
}

/// The token of an entry: its text, or an object with the text as `content`.
fn added_token(entry: &Value, special: bool) -> Option<AddedToken> {
    if let Some(text) = entry.as_str() {
        return Some(AddedToken::from(text, special));
    }
    let flag = |key: &str, default: bool| entry.get(key).and_then(Value::as_bool).unwrap_or(default);
    let special = special || flag("special", false);
    let token = AddedToken::from(entry.get("content")?.as_str()?, special).single_word(flag("single_word", false));
    Some(token.lstrip(flag("lstrip", false)).rstrip(flag("rstrip", false)).normalized(flag("normalized", !special)))
}

/// The tokens of `added_tokens_decoder`, by id.
fn decoder_tokens(config: &Map<String, Value>) -> Vec<AddedToken> {
    let entries = config.get("added_tokens_decoder").and_then(Value::as_object);
    let mut tokens: Vec<(u32, AddedToken)> = entries
        .into_iter()
        .flatten()
        .filter_map(|(id, entry)| Some((id.parse().ok()?, added_token(entry, false)?)))
        .collect();
    tokens.sort_by_key(|(id, _)| *id);
    tokens.into_iter().map(|(_, token)| token).collect()
}

/// The tokens of `added_tokens.json`, by id. Those that the configuration names are special.
fn listed_tokens(added: &Map<String, Value>, config: &Map<String, Value>) -> Vec<AddedToken> {
    let named: Vec<AddedToken> = named_tokens(config).collect();
    let mut tokens: Vec<(u64, &String)> = added.iter().filter_map(|(text, id)| Some((id.as_u64()?, text))).collect();
    tokens.sort_unstable();
    let special = |text: &str| named.iter().any(|token| token.content == text);
    tokens.into_iter().map(|(_, text)| AddedToken::from(text.as_str(), special(text))).collect()
}

/// The special tokens that the configuration names.
fn named_tokens(config: &Map<String, Value>) -> impl Iterator<Item = AddedToken> {
    let roles = ROLES.iter().filter_map(|role| config.get(*role)).chain(own_roles(config).map(|(_, entry)| entry));
    let extra = config.get("extra_special_tokens");
    let is_empty = match extra {
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(table)) => table.is_empty(),
        _ => true,
    };
    let listed = if is_empty { config.get("additional_special_tokens") } else { extra };
    let listed = listed.and_then(Value::as_array).into_iter().flatten();
    roles.chain(listed).filter_map(|entry| added_token(entry, true))
}

/// The roles that only this model's tokens have, such as `image_token`.
fn own_roles(config: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    let entries = config.iter().filter(|(role, _)| role.ends_with("_token") && !ROLES.contains(&role.as_str()));
    let table = config.get("extra_special_tokens").and_then(Value::as_object);
    let all = entries.chain(table.into_iter().flatten()).map(|(role, entry)| (role.as_str(), entry));
    all.filter(|(_, entry)| content(entry).is_some())
}

/// The special tokens that the configuration names and the vocabulary does not have as such.
fn special_tokens(inner: &tokenizers::Tokenizer, config: &Map<String, Value>) -> Vec<AddedToken> {
    let there = inner.get_added_tokens_decoder();
    let missing = |token: AddedToken| match there.values().find(|known| known.content == token.content) {
        None => Some(token),
        Some(known) if known.special => None,
        Some(known) => Some(AddedToken { special: true, ..known.clone() }),
    };
    named_tokens(config).filter_map(missing).collect()
}

/// Whether this is the name of a token for a byte, such as `<0x0A>`.
fn is_byte(name: &str) -> bool {
    name.len() == 6 && name.starts_with("<0x") && name.ends_with('>')
}

/// The token that `tokenizer_config.json` gives this role: a text, or an object with the text as `content`.
fn special<'a>(config: &'a Map<String, Value>, role: &str) -> Option<&'a str> {
    content(config.get(role)?)
}

/// The text of a token's entry: a text, or an object with the text as `content`.
fn content(entry: &Value) -> Option<&str> {
    entry.as_str().or_else(|| entry.get("content")?.as_str())
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
        // What bytes in a row stand for is known when another token follows them that adds to the text.
        let adds = |name: &String| !is_byte(name) && !self.tokenizer.is_special(name);
        if self.tokenizer.name(token).filter(adds).is_none() {
            return Ok(String::new());
        }
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
