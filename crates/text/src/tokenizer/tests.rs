//! Tests against Python's `tokenizers` on golden strings, and properties that hold for any text.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::sync::LazyLock;

/// Written by `tests/golden/text/make.py`.
fn golden() -> Value {
    serde_json::from_str(include_str!("../../../../tests/golden/text/tokenizers.json")).unwrap()
}

fn corpus() -> Vec<String> {
    serde_json::from_value(golden()["corpus"].clone()).unwrap()
}

fn trained(vocabulary: usize) -> Tokenizer {
    let corpus = corpus();
    Tokenizer::train(corpus.iter().map(String::as_str), vocabulary).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Any text: letters, spaces, marks, rare planes, what a tokenizer treats in its own way.
fn any_text() -> impl Strategy<Value = String> {
    let special = ["'s", "'ll", "  ", "\n\n", "\t", "<|end|>", "<|en", "\u{fffd}", "e\u{301}"];
    let piece = prop_oneof![
        prop::sample::select(special.map(str::to_owned).to_vec()),
        prop::char::range('\0', '\u{7f}').prop_map(String::from),
        prop::char::range('a', 'z').prop_map(String::from),
        Just(" ".to_owned()),
        prop::char::range('\0', char::MAX).prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

#[test]
fn tokens_and_texts_are_those_of_pythons_tokenizers() {
    let golden = golden();
    for (name, golden) in golden["tokenizers"].as_object().unwrap() {
        let tokenizer = Tokenizer::from_json(golden["json"].as_str().unwrap(), None).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() >= 15);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["plain"]), "{name}: {text:?}");
            let tokens = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokens, ids(&case["special"]), "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&tokens, true).unwrap(), case["decoded"], "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&tokens, false).unwrap(), case["decoded_with_special"], "{name}: {text:?}");
        }
    }
}

#[test]
fn training_merges_as_pythons_tokenizers_do() {
    let golden = golden();
    let theirs: Value = serde_json::from_str(golden["tokenizers"]["gpt2"]["json"].as_str().unwrap()).unwrap();
    let ours: Value = serde_json::from_str(&trained(480).to_json().unwrap()).unwrap();
    assert_eq!(ours["model"], theirs["model"]);
    assert_eq!(ours["added_tokens"], theirs["added_tokens"]);
    assert_eq!(trained(480).to_json().unwrap(), trained(480).to_json().unwrap());
}

/// A tokenizer that was trained here, and the same one from its files.
static TRAINED: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| {
    let tokenizer = trained(400);
    let read = Tokenizer::from_json(&tokenizer.to_json().unwrap(), Some(&tokenizer.config_json())).unwrap();
    [tokenizer, read]
});

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 3000,
        rng_seed: RngSeed::Fixed(5),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_comes_back_to_the_byte(text in any_text()) {
        let [tokenizer, again] = &*TRAINED;
        let tokens = tokenizer.encode(&text, false).unwrap();
        prop_assert_eq!(&tokenizer.decode(&tokens, false).unwrap(), &text);
        prop_assert_eq!(&again.encode(&text, false).unwrap(), &tokens);
        // The same text, piece by piece; whoever listens never sees half a character.
        let mut listener = again.stream();
        let mut heard = String::new();
        for &token in &tokens {
            heard.push_str(&listener.push(token).unwrap());
            prop_assert!(text.contains('\u{fffd}') || !heard.contains('\u{fffd}'), "{:?}", heard);
        }
        heard.push_str(&listener.finish().unwrap());
        prop_assert_eq!(heard, again.decode(&tokens, true).unwrap());
    }
}

#[test]
fn files_are_written_as_they_were_read() {
    let golden = golden();
    for (name, golden) in golden["tokenizers"].as_object().unwrap() {
        let text = golden["json"].as_str().unwrap();
        let mut tokenizer = Tokenizer::from_json(text, None).unwrap();
        assert_eq!(tokenizer.to_json().unwrap(), text);
        let (before, had) = (tokenizer.vocabulary(), tokenizer.pad().is_some());
        let pad = tokenizer.add_pad().unwrap();
        assert_eq!(tokenizer.vocabulary(), before + usize::from(!had), "{name}");
        let again = Tokenizer::from_json(&tokenizer.to_json().unwrap(), Some(&tokenizer.config_json())).unwrap();
        assert_eq!(again.pad(), Some(pad), "{name}");
    }
}

#[test]
fn the_token_that_pads_is_never_the_one_that_ends() {
    let own = trained(300);
    assert_eq!((own.eos(), own.pad(), own.bos()), (Some(0), Some(1), None));
    let text = own.to_json().unwrap();
    // Files with pad = EOS are common, for example with GPT-2.
    let same = r#"{"eos_token": {"content": "<|end|>"}, "pad_token": "<|end|>", "model_max_length": 64}"#;
    let tokenizer = Tokenizer::from_json(&text, Some(same)).unwrap();
    assert_eq!((tokenizer.eos(), tokenizer.pad()), (Some(0), Some(1)));
    let written: Value = serde_json::from_str(&tokenizer.config_json()).unwrap();
    assert_eq!((&written["pad_token"], &written["model_max_length"]), (&json!(PAD), &json!(64)));
    assert_eq!(written["eos_token"], json!({ "content": END }));
    // Without a spare token there is no padding token, until one is added.
    let bare = text.replace(PAD, "<|other|>");
    let mut tokenizer = Tokenizer::from_json(&bare, Some(same)).unwrap();
    assert_eq!(tokenizer.pad(), None);
    assert_eq!(tokenizer.add_pad().unwrap() as usize, tokenizer.vocabulary() - 1);
    assert_ne!(tokenizer.pad(), tokenizer.eos());
}

#[test]
fn what_cannot_serve_is_refused_in_one_sentence() {
    let text = trained(300).to_json().unwrap();
    let refused =
        |tokenizer: &str, config: Option<&str>| Tokenizer::from_json(tokenizer, config).unwrap_err().to_string();
    assert!(refused("{}", None).contains("tokenizer.json cannot be read"));
    assert!(refused("{\"version\": \"1.0\"", None).contains("tokenizer.json cannot be read"));
    assert!(refused(&text, Some("[")).contains("tokenizer_config.json cannot be read"));
    assert!(refused(&text, Some("[]")).contains("tokenizer_config.json cannot be read (it is not a JSON object)"));
    // Found by fuzzing: the crate would panic at the first text.
    let mut template: Value = serde_json::from_str(&text).unwrap();
    template["post_processor"] = json!({"type": "Sequence", "processors": [{
        "type": "TemplateProcessing", "pair": [],
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<z>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }]});
    assert!(refused(&template.to_string(), None).contains("names the token \"<s>\" without its ids"));
    let dropout = text.replace("\"dropout\": null", "\"dropout\": 0.1");
    assert!(refused(&dropout, None).contains("dropout 0.1"));
    assert!(matches!(Tokenizer::train(["a"], 257), Err(TokenizerError::TooSmall { asked: 257, least: 258 })));
    assert!(matches!(Tokenizer::train([], 300), Err(TokenizerError::NoText)));
    assert!(matches!(Tokenizer::train([""], 300), Err(TokenizerError::NoText)));
}

/// The files of a folder with the tokenizer of `trained(300)`, whose ids 0 and 1 are `<|end|>` and `<|pad|>`.
fn folder(files: &[(&str, Value)]) -> Result<Tokenizer, TokenizerError> {
    let mut texts: BTreeMap<String, String> = files
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.as_str().map_or(value.to_string(), str::to_owned)))
        .collect();
    texts.insert("tokenizer.json".to_owned(), trained(300).to_json().unwrap());
    Tokenizer::from_texts(&texts).map(Option::unwrap)
}

/// What transformers 5 reads of the same folders.
#[test]
fn the_files_of_a_folder_are_read_together() {
    let config = |value: Value| ("tokenizer_config.json", value);
    let map = ("special_tokens_map.json", json!({"eos_token": {"content": "<stop>"}, "pad_token": "<|pad|>"}));
    // It counts alone, and before a configuration without `added_tokens_decoder`.
    for files in [vec![map.clone()], vec![map.clone(), config(json!({"eos_token": "<|end|>"}))]] {
        let tokenizer = folder(&files).unwrap();
        assert_eq!((tokenizer.eos(), tokenizer.id("<stop>"), tokenizer.pad()), (Some(300), Some(300), Some(1)));
        // It is a token of its own from then on, and the files that are written say so.
        assert_eq!(tokenizer.encode("<stop>", false).unwrap(), [300]);
        let again = Tokenizer::from_json(&tokenizer.to_json().unwrap(), Some(&tokenizer.config_json())).unwrap();
        assert_eq!((again.eos(), again.vocabulary()), (Some(300), 301));
    }
    let newer = json!({"eos_token": "<|end|>", "added_tokens_decoder": {"0": {"content": "<|end|>", "special": true}}});
    assert_eq!(folder(&[map.clone(), config(newer)]).unwrap().eos(), Some(0));
    // Tokens that the vocabulary lacks come after it, in the order of their roles.
    let lacking =
        config(json!({"pad_token": "[PAD]", "bos_token": "<s>", "additional_special_tokens": ["<a>", "<b>"]}));
    let tokenizer = folder(&[lacking]).unwrap();
    assert_eq!(["<s>", "[PAD]", "<a>", "<b>"].map(|name| tokenizer.id(name).unwrap()), [300, 301, 302, 303]);
    assert_eq!((tokenizer.bos(), tokenizer.pad(), tokenizer.eos()), (Some(300), Some(301), Some(0)));
    // Added tokens that only their own file lists.
    let tokenizer = folder(&[("added_tokens.json", json!({"<x>": 301, "<y>": 300}))]).unwrap();
    assert_eq!((tokenizer.id("<y>"), tokenizer.id("<x>")), (Some(300), Some(301)));
    assert!(tokenizer.to_json().unwrap().contains("<x>"));
    // Ends: all that are named, and one for texts if no tokenizer's file names one.
    let generation = ("generation_config.json", json!({"eos_token_id": [5, 7], "temperature": 0.6}));
    let tokenizer = folder(&[generation.clone(), config(json!({"eos_token": "<|end|>"}))]).unwrap();
    assert_eq!((tokenizer.eos(), tokenizer.ends()), (Some(0), vec![0, 5, 7]));
    assert_eq!(folder(&[generation]).unwrap().eos(), Some(5));
    assert_eq!(folder(&[("config.json", json!({"eos_token_id": 9}))]).unwrap().eos(), Some(9));
    // Templates.
    let [jinja, own, listed] = [
        ("chat_template.jinja", json!("jinja")),
        ("chat_template.json", json!({"chat_template": "json"})),
        config(json!({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})),
    ];
    let template = |files: &[(&str, Value)]| folder(files).unwrap().chat_template().map(str::to_owned);
    assert_eq!(template(&[jinja.clone(), own.clone(), listed.clone()]).as_deref(), Some("jinja"));
    assert_eq!(template(&[own.clone(), listed.clone()]).as_deref(), Some("d"));
    assert_eq!(template(&[own]).as_deref(), Some("json"));
    assert_eq!(template(&[listed]).as_deref(), Some("d"));
    assert_eq!(template(&[]), None);
    let written = folder(&[jinja]).unwrap().config_json();
    assert!(written.contains("\"chat_template\": \"jinja\""), "{written}");
    // Whatever is damaged is named.
    for file in [
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "generation_config.json",
        "chat_template.json",
    ] {
        for damage in ["{\"eos_token\": \"a\",}", "[1]"] {
            let error = folder(&[(file, json!(damage))]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{file} cannot be read (")), "{error}");
        }
    }
    for ends in [json!("5"), json!([5, "6"]), json!([[5]]), json!(5.5)] {
        let error = folder(&[("generation_config.json", json!({ "eos_token_id": ends }))]).unwrap_err().to_string();
        assert!(error.contains("generation_config.json") && error.contains("eos_token_id"), "{error}");
    }
    assert!(folder(&[("generation_config.json", json!({"eos_token_id": -1}))]).is_ok());
    let unnamed = config(json!({"chat_template": [{"name": "rag", "template": "r"}]}));
    assert!(folder(&[unnamed]).unwrap_err().to_string().contains("\"default\""));
}

/// The tokens are those of transformers 5.24.
#[test]
fn the_class_llama_tokenizer_puts_spaces_by_its_own_rules() {
    let golden = golden();
    let json = golden["tokenizers"]["llama2"]["json"].as_str().unwrap();
    let first = "<s> ▁ b <s> ▁ <0x78> </s> \n y";
    let as_it_stands = "<s> ▁ b <s> ▁▁ <0x78> </s> ▁ \n y";
    for (config, family, expected, spaced) in [
        (json!({"tokenizer_class": "LlamaTokenizer"}), "llama", first, "<s> ▁ t w o"),
        (json!({"tokenizer_class": "LlamaTokenizerFast", "legacy": false}), "gpt2", first, "<s> ▁ t w o"),
        (
            json!({"tokenizer_class": "LlamaTokenizer", "legacy": true}),
            "llama",
            "<s> ▁ b <s> ▁ <0x78> </s> ▁ \n y",
            "<s> ▁ t w o",
        ),
        (
            json!({"tokenizer_class": "LlamaTokenizer", "add_prefix_space": false}),
            "llama",
            "<s> b <s> ▁ <0x78> </s> \n y",
            "<s> ▁ t w o",
        ),
        (json!({"tokenizer_class": "LlamaTokenizer"}), "mistral", as_it_stands, "<s> ▁▁ t w o"),
        (json!({"tokenizer_class": "PreTrainedTokenizerFast"}), "llama", as_it_stands, "<s> ▁▁ t w o"),
    ] {
        let model = json!({ "model_type": family });
        let texts = [("tokenizer.json", json.to_owned()), ("tokenizer_config.json", config.to_string())];
        let texts = texts.into_iter().chain([("config.json", model.to_string())]);
        let texts = texts.map(|(name, text)| (name.to_owned(), text)).collect();
        let mut tokenizer = Tokenizer::from_texts(&texts).unwrap().unwrap();
        for _ in 0..2 {
            for (text, expected) in [("b<s> x</s>\ny", expected), (" two", spaced)] {
                let names = tokenizer.encode(text, true).unwrap().into_iter().map(|id| tokenizer.name(id).unwrap());
                assert_eq!(names.collect::<Vec<_>>().join(" "), expected, "{config} {family}");
            }
            // The same when it is written and read again.
            tokenizer.add_pad().unwrap();
            let written =
                [("tokenizer.json", tokenizer.to_json()), ("tokenizer_config.json", Ok(tokenizer.config_json()))];
            let written = written.into_iter().chain([("config.json", Ok(model.to_string()))]);
            let written = written.map(|(name, text)| (name.to_owned(), text.unwrap())).collect();
            tokenizer = Tokenizer::from_texts(&written).unwrap().unwrap();
        }
    }
}

/// As transformers 5.24 reads them.
#[test]
fn special_tokens_under_names_of_their_own_are_tokens() {
    let config = |value: Value| folder(&[("tokenizer_config.json", value)]).unwrap();
    let named = config(json!({"image_token": "<img>", "extra_special_tokens": {"think_token": "<think>"}}));
    assert_eq!(named.encode("<img><think>", false).unwrap(), [300, 301]);
    assert_eq!(named.roles()["think_token"], "<think>");
    let both = config(json!({"additional_special_tokens": ["<a>"], "extra_special_tokens": ["<b>"]}));
    assert_eq!((both.id("<a>"), both.id("<b>")), (None, Some(300)));
    let split = config(json!({"eos_token": "<|end|>", "split_special_tokens": true}));
    assert!(split.encode("<|end|>", false).unwrap().len() > 1);
    // A token that has a role is special, though tokenizer.json says otherwise.
    let mut json: Value = serde_json::from_str(&trained(300).to_json().unwrap()).unwrap();
    json["added_tokens"][0]["special"] = false.into();
    let end = Tokenizer::from_json(&json.to_string(), Some(r#"{"eos_token": "<|end|>"}"#)).unwrap();
    assert_eq!(end.decode(&[0], true).unwrap(), "");
}

/// A token that ends in white space ends there, whatever the post-processor trims.
#[test]
fn the_ends_of_tokens_are_not_trimmed() {
    let golden = golden();
    let mut json: Value = serde_json::from_str(golden["tokenizers"]["llama3"]["json"].as_str().unwrap()).unwrap();
    let trimmed = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    for processor in [trimmed.clone(), json!({"type": "Sequence", "processors": [trimmed]})] {
        json["post_processor"] = processor;
        let tokenizer = Tokenizer::from_json(&json.to_string(), None).unwrap();
        let (tokens, ends) = tokenizer.encode_with_ends("x):\n", false).unwrap();
        assert_eq!(tokenizer.name(tokens[1]).as_deref(), Some("):Ċ"));
        assert_eq!(ends, [1, 4]);
    }
}

#[test]
fn a_token_without_a_row_is_refused_by_name_where_a_text_has_it() {
    let mut tokenizer = folder(&[("tokenizer_config.json", json!({"pad_token": "[PAD]"}))]).unwrap();
    tokenizer.set_rows(300);
    assert_eq!((tokenizer.vocabulary(), tokenizer.pad()), (301, None));
    assert!(tokenizer.encode("the kettle", true).is_ok());
    for found in
        [tokenizer.encode("a [PAD]", false), tokenizer.encode_with_ends("a [PAD]", false).map(|(tokens, _)| tokens)]
    {
        let error = found.unwrap_err().to_string();
        assert!(
            error.starts_with("the token \"[PAD]\" has the id 300, and the model's embedding has only 300 rows"),
            "{error}"
        );
    }
}

/// A panic of the crate `tokenizers`, found by damaging files at random.
#[test]
fn a_decoder_without_its_fields_is_an_error() {
    let mut json: Value = serde_json::from_str(&trained(300).to_json().unwrap()).unwrap();
    for decoder in
        [json!({"type": "Sequence", "decoders": [{"type": "Strip"}]}), json!({"decoders": []}), json!({"type": 3})]
    {
        json["decoder"] = decoder;
        let error = Tokenizer::from_json(&json.to_string(), None).unwrap_err().to_string();
        assert!(error.starts_with("tokenizer.json cannot be read") && !error.contains('\n'), "{error}");
    }
}

/// A model that has learned little writes bytes that form no character.
#[test]
fn any_tokens_are_heard_as_they_are_decoded() {
    let golden = golden();
    let mut draws = flipside_core::Seed(3).stream("tokens");
    for (name, golden) in golden["tokenizers"].as_object().unwrap() {
        let tokenizer = Tokenizer::from_json(golden["json"].as_str().unwrap(), None).unwrap();
        let prompt = tokenizer.encode("The kettle:", true).unwrap();
        for _ in 0..300 {
            let tokens: Vec<u32> =
                (0..12).map(|_| rand::RngExt::random_range(&mut draws, 0..tokenizer.vocabulary() as u32)).collect();
            let mut stream = tokenizer.stream_after(&prompt);
            let mut heard: String = tokens.iter().map(|&token| stream.push(token).unwrap()).collect();
            heard += &stream.finish().unwrap();
            assert_eq!(heard, tokenizer.continuation(&prompt, &tokens, true).unwrap(), "{name}: {tokens:?}");
        }
    }
}
