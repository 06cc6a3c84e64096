//! Tests of every data format, of the errors of bad lines, and of TL;DR's rules.

use super::*;
use serde_json::json;

fn text(words: &str) -> TextOrMessages {
    TextOrMessages::Text(words.to_owned())
}

fn messages(list: &[(&str, &str)]) -> TextOrMessages {
    let message = |(role, content): &(&str, &str)| Message { role: (*role).to_owned(), content: (*content).to_owned() };
    TextOrMessages::Messages(list.iter().map(message).collect())
}

fn one(line: &str) -> Example {
    read_lines(line, BadLines::Stop).unwrap().examples.remove(0)
}

fn tokenizer() -> Tokenizer {
    Tokenizer::train(["a kettle and a lid, a kettle and a lid"], 280).unwrap()
}

#[test]
fn every_form_is_read() {
    let user = ("user", "Hello");
    let (good, bad) = (("assistant", "Yes."), ("assistant", "No."));
    let (u, g, b) = (
        json!({"role": "user", "content": "Hello"}),
        json!({"role": "assistant", "content": "Yes."}),
        json!({"role": "assistant", "content": "No."}),
    );
    let preference = |prompt, chosen, rejected| Example::Preference { prompt, chosen, rejected, margin: 0.0 };
    for (line, expected) in [
        (json!({"text": "A text."}), Example::Whole(text("A text."))),
        (json!({"messages": [u, g]}), Example::Whole(messages(&[user, good]))),
        (json!({"prompt": "Hello"}), Example::Prompt(text("Hello"))),
        (json!({"prompt": [u]}), Example::Prompt(messages(&[user]))),
        (
            json!({"prompt": "Hello", "completion": " Yes."}),
            Example::Completion { prompt: text("Hello"), completion: text(" Yes.") },
        ),
        (
            json!({"prompt": [u], "completion": [g], "label": null}),
            Example::Completion { prompt: messages(&[user]), completion: messages(&[good]) },
        ),
        (
            json!({"prompt": "Hello", "chosen": " Yes.", "rejected": " No.", "id": 7}),
            preference(text("Hello"), text(" Yes."), text(" No.")),
        ),
        (
            json!({"prompt": [u], "chosen": [g], "rejected": [b]}),
            preference(messages(&[user]), messages(&[good]), messages(&[bad])),
        ),
        (
            json!({"chosen": "Hello there. Yes.", "rejected": "Hello there. No."}),
            preference(text("Hello there."), text(" Yes."), text(" No.")),
        ),
        (json!({"chosen": "Tee größer", "rejected": "Tee grün"}), preference(text("Tee gr"), text("ößer"), text("ün"))),
        (
            json!({"chosen": [u, g], "rejected": [u, b]}),
            preference(messages(&[user]), messages(&[good]), messages(&[bad])),
        ),
        (
            json!({"prompt": "Hello", "completion": " No.", "label": false}),
            Example::Labelled { prompt: text("Hello"), completion: text(" No."), good: false },
        ),
        (
            json!({"prompt": [u], "completion": [g], "label": true}),
            Example::Labelled { prompt: messages(&[user]), completion: messages(&[good]), good: true },
        ),
    ] {
        assert_eq!(one(&line.to_string()), expected, "{line}");
    }
}

/// `margin` as in TRL: how much better, in log-odds; null and none are 0.
#[test]
fn a_margin_is_read_and_stays_with_its_pair() {
    let tokenizer = tokenizer();
    let encoder = Encoder { tokenizer: &tokenizer, tldr: TldrRules::default() };
    let line = |margin: &str| format!(r#"{{"prompt": "a", "chosen": " lid", "rejected": " kettle"{margin}}}"#);
    for (margin, expected) in [("", 0.0), (r#", "margin": null"#, 0.0), (r#", "margin": 1"#, 1.0), (r#", "margin": -0.5"#, -0.5)] {
        match encoder.encode(&one(&line(margin))).unwrap() {
            Some(TokenizedExample::Preference { margin, .. }) => assert_eq!(margin, expected),
            other => panic!("{other:?}"),
        }
    }
    for (margin, wrong) in [(r#", "margin": "big""#, "\"big\""), (r#", "margin": 1e300"#, "1e300")] {
        let error = read_lines(&line(margin), BadLines::Stop).unwrap_err().to_string();
        assert!(error.contains(&format!("\"margin\" is {wrong} where a number is expected")), "{error}");
    }
}

#[test]
fn a_bad_line_is_named_by_its_number_and_the_rest_goes_on_if_asked() {
    let lines = [
        r#"{"text": "one"}"#,
        "",
        "{\"text\": ",
        "[1]",
        r#"{"words": "x", "more": 1}"#,
        r#"{"prompt": 3}"#,
        r#"{"prompt": "a", "chosen": "b"}"#,
        r#"{"prompt": "a", "completion": [{"role": "user", "content": "b"}]}"#,
        r#"{"prompt": [{"role": "user"}]}"#,
        r#"{"prompt": []}"#,
        r#"{"prompt": "a", "completion": "b", "label": 1}"#,
        r#"{"messages": "a"}"#,
        r#"{"info": {"post": "a", "title": "b", "subreddit": "c"}, "summaries": [{"text": "d"}], "choice": 0}"#,
        r#"{"info": {"post": "a", "title": "b", "subreddit": "c"}, "summaries": [{"text": "d"}, {"text": "e"}], "choice": 2}"#,
        r#"{"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}"#,
        r#"{"text": "two"}"#,
    ];
    let file = format!("\u{feff}{}\r\n", lines.join("\r\n"));
    let error = read_lines(&file, BadLines::Stop).unwrap_err().to_string();
    assert!(error.starts_with("line 3: it is not JSON") && error.contains("--skip-bad-lines"), "{error}");
    let read = read_lines(&file, BadLines::Skip).unwrap();
    assert_eq!(read.examples, [Example::Whole(text("one")), Example::Whole(text("two"))]);
    let numbers: Vec<usize> = read.bad.iter().map(|bad| bad.line).collect();
    assert_eq!(numbers, (3..=15).collect::<Vec<_>>());
    for (bad, words) in read.bad.iter().zip([
        "it is not JSON",
        "it is not a JSON object",
        "(it has: more, words)",
        "\"prompt\" is a number",
        "\"rejected\" is missing",
        "\"prompt\" and \"completion\" are not both",
        "no text under \"content\"",
        "an empty list",
        "\"label\" is 1",
        "\"messages\" is a text",
        "not a list of two",
        "neither 0 nor 1",
        "two ends of one conversation",
    ]) {
        assert!(bad.reason.contains(words), "{bad}");
    }
    assert!(matches!(read_lines("\n \n", BadLines::Skip), Err(DataError::Empty)));
}

#[test]
fn tldr_is_read_in_its_published_layout() {
    let line = json!({
        "info": {"id": "t3_1", "post": "First.\nSecond.", "title": "A kettle", "subreddit": "tea", "site": null},
        "summaries": [{"text": "Too long. ", "policy": "sup1", "note": ""}, {"text": " Kettle good", "policy": "ref"}],
        "choice": 1, "worker": "w", "batch": "batch3", "split": "valid1", "extra": {"confidence": 8},
    });
    let Example::Tldr(post) = one(&line.to_string()) else { panic!("{line}") };
    assert_eq!(post.split.as_deref(), Some("valid1"));
    let tokenizer = tokenizer();
    let query = post.query(&tokenizer, 512).unwrap();
    assert_eq!(query, "SUBREDDIT: r/tea\n\nTITLE: A kettle\n\nPOST: First.\nSecond.\n\nTL;DR:");
    let encoder = Encoder { tokenizer: &tokenizer, tldr: TldrRules::default() };
    let Some(TokenizedExample::Preference { prompt, chosen, rejected, .. }) = encoder.encode(&Example::Tldr(post)).unwrap()
    else {
        panic!("{line}")
    };
    assert_eq!(tokenizer.decode(&prompt, false).unwrap(), query);
    assert_eq!(tokenizer.decode(&chosen, false).unwrap(), " Kettle good<|end|>");
    assert_eq!(tokenizer.decode(&rejected, false).unwrap(), " Too long.<|end|>");
}

#[test]
fn a_long_post_is_cut_at_its_last_newline_until_it_fits() {
    let tokenizer = tokenizer();
    let post = |text: &str| Tldr {
        subreddit: "tea".to_owned(),
        title: "A kettle".to_owned(),
        post: text.to_owned(),
        summaries: Summaries::Own(String::new()),
        split: None,
    };
    let length = |text: &str| {
        let query = format!("SUBREDDIT: r/tea\n\nTITLE: A kettle\n\nPOST: {text}\n\nTL;DR:");
        tokenizer.encode(&query, false).unwrap().len()
    };
    let cut = |text: &str, most: usize| {
        let query = post(text).query(&tokenizer, most).unwrap();
        query.split("POST: ").nth(1).unwrap().strip_suffix("\n\nTL;DR:").unwrap().to_owned()
    };
    let three = "First line.\nSecond line.\nThird line.";
    assert_eq!(cut(three, length(three)), three);
    assert_eq!(cut(three, length(three) - 1), "First line.\nSecond line.");
    assert_eq!(cut(three, length("First line.")), "First line.");
    // Without a newline, it is cut character by character.
    assert_eq!(cut("größer", length("grö")), "grö");
    assert_eq!(cut(three, length("")), "");
    assert!(matches!(post(three).query(&tokenizer, 3), Err(DataError::TooLong(3))));
}

#[test]
fn tldrs_filter_keeps_24_to_48_tokens_and_cuts_at_53() {
    let tokenizer = tokenizer();
    let encoder = Encoder { tokenizer: &tokenizer, tldr: TldrRules::default() };
    let mut lengths = Vec::new();
    // Here each digit is one token, and so is the space before the first.
    for count in 1..60 {
        let summary = "7".repeat(count);
        let line = json!({"subreddit": "tea", "title": "t", "post": "p", "summary": summary}).to_string();
        let length = tokenizer.encode(&Tldr::completion(&summary), false).unwrap().len();
        assert_eq!(length, count + 1);
        if let Some(TokenizedExample::Completion { completion, .. }) = encoder.encode(&one(&line)).unwrap() {
            assert_eq!(completion.len(), length + 1);
            lengths.push(length);
        }
    }
    assert_eq!(lengths, (24..=48).collect::<Vec<_>>());
    let long = json!({"info": {"subreddit": "tea", "title": "t", "post": "p"}, "summaries": [{"text": "7".repeat(80)}, {"text": "7"}], "choice": 0});
    let Some(TokenizedExample::Preference { chosen, rejected, .. }) = encoder.encode(&one(&long.to_string())).unwrap()
    else {
        panic!("{long}")
    };
    assert_eq!((chosen.len(), rejected.len()), (53, 3));
    assert!(!chosen.contains(&0) && rejected.ends_with(&[0]));
}

#[test]
fn prompts_have_the_same_tokens_whatever_follows_and_texts_end_once() {
    let tokenizer = tokenizer();
    let encoder = Encoder { tokenizer: &tokenizer, tldr: TldrRules::default() };
    let encode = |line: &str| encoder.encode(&one(line)).unwrap().unwrap();
    let alone = encode(r#"{"prompt": "a kettle"}"#);
    let answered = encode(r#"{"prompt": "a kettle", "completion": " and a lid"}"#);
    let compared = encode(r#"{"prompt": "a kettle", "chosen": "s", "rejected": "<|end|>"}"#);
    assert_eq!((alone.prompt(), alone.prompt()), (answered.prompt(), compared.prompt()));
    let TokenizedExample::Preference { chosen, rejected, .. } = compared else { panic!() };
    assert_eq!((chosen.last(), rejected.as_slice()), (Some(&0), &[0][..]));
    let TokenizedExample::Whole(whole) = encode(r#"{"text": "a kettle"}"#) else { panic!() };
    assert_eq!((&whole[..whole.len() - 1], whole.last()), (alone.prompt(), Some(&0)));
    // A conversation becomes its template's text, and its answer is what follows the prompt in that text.
    let talk = encode(
        r#"{"prompt": [{"role": "user", "content": "a kettle"}], "completion": [{"role": "assistant", "content": "a lid"}]}"#,
    );
    let TokenizedExample::Completion { prompt, completion } = talk else { panic!() };
    assert_eq!(tokenizer.decode(&prompt, false).unwrap(), "user: a kettle\nassistant:");
    assert_eq!(tokenizer.decode(&completion, false).unwrap(), " a lid<|end|>");
}
