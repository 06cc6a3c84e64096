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
    assert!(refused(&text, Some("[")).contains("tokenizer_config.json cannot be read"));
    assert!(refused(&text, Some(r#"{"eos_token": "</s>"}"#)).contains("eos_token \"</s>\""));
    let dropout = text.replace("\"dropout\": null", "\"dropout\": 0.1");
    assert!(refused(&dropout, None).contains("dropout 0.1"));
    assert!(matches!(Tokenizer::train(["a"], 257), Err(TokenizerError::TooSmall { asked: 257, least: 258 })));
    assert!(matches!(Tokenizer::train([], 300), Err(TokenizerError::NoText)));
    assert!(matches!(Tokenizer::train([""], 300), Err(TokenizerError::NoText)));
}
