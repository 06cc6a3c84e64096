//! Tests against Python's `tokenizers` on golden strings, and properties that hold for any text.

use super::*;
use flipside_core::Seed;
use rand::RngExt;

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

/// A random text: letters, spaces, combining marks, rare Unicode planes, and strings that a tokenizer treats specially.
fn any_text(stream: &mut flipside_core::Stream) -> String {
    let piece = |stream: &mut flipside_core::Stream| match stream.random_range(0..7) {
        0 => ["'s", "'ll", "  ", "\n\n", "\t", "<|end|>", "<|en", "\u{fffd}", "e\u{301}"][stream.random_range(0..9)]
            .to_owned(),
        1 => char::from(stream.random_range(0..128_u8)).to_string(),
        2 | 3 => char::from(stream.random_range(b'a'..=b'z')).to_string(),
        4 => " ".to_owned(),
        _ => char::from_u32(stream.random_range(0..0x11_0000)).map_or(String::new(), String::from),
    };
    let length = stream.random_range(0..40);
    (0..length).map(|_| piece(stream)).collect()
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

#[test]
fn any_text_decodes_to_the_same_bytes() {
    let tokenizer = trained(400);
    let again = Tokenizer::from_json(&tokenizer.to_json().unwrap(), Some(&tokenizer.config_json())).unwrap();
    let mut stream = Seed(5).stream("texts");
    for _ in 0..3_000 {
        let text = any_text(&mut stream);
        let tokens = tokenizer.encode(&text, false).unwrap();
        assert_eq!(tokenizer.decode(&tokens, false).unwrap(), text);
        assert_eq!(again.encode(&text, false).unwrap(), tokens);
        // The same text, decoded token by token: half a character never appears.
        let mut decoder = again.stream();
        let mut streamed = String::new();
        for &token in &tokens {
            streamed.push_str(&decoder.push(token).unwrap());
            assert!(text.contains('\u{fffd}') || !streamed.contains('\u{fffd}'), "{text:?}: {streamed:?}");
        }
        streamed.push_str(&decoder.finish().unwrap());
        assert_eq!(streamed, again.decode(&tokens, true).unwrap(), "{text:?}");
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
