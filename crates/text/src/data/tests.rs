//! Tests of every data format, of the errors of bad lines, and of TL;DR's rules.

use super::super::score_encoder::ScoreEncoder;
use super::*;
use serde_json::json;

fn text(words: &str) -> TextOrMessages {
    TextOrMessages::Text(words.to_owned())
}

fn messages(list: &[(&str, &str)]) -> TextOrMessages {
    TextOrMessages::Messages(list.iter().map(|(role, content)| Message::new(*role, *content)).collect())
}

fn one(line: &str) -> Example {
    read_lines(line, Reading::default()).unwrap().examples.remove(0)
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
    let preference =
        |prompt, chosen, rejected| Example::Preference { prompt, chosen, rejected, target: 1.0, margin: 0.0 };
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
        (
            json!({"chosen": "Tee größer", "rejected": "Tee grün"}),
            preference(text("Tee"), text(" größer"), text(" grün")),
        ),
        (
            json!({"chosen": [u, g], "rejected": [u, b]}),
            preference(messages(&[user]), messages(&[good]), messages(&[bad])),
        ),
        (
            json!({"prompt": "Hello", "completion": " No.", "label": false}),
            Example::Labelled { prompt: text("Hello"), completion: text(" No."), good: false },
        ),
        // A conversation beside an answer alone, and ShareGPT's names mixed with others.
        (
            json!({"prompt": [u], "chosen": [u, g], "rejected": [b]}),
            preference(messages(&[user]), messages(&[good]), messages(&[bad])),
        ),
        (
            json!({"conversations": [{"from": "Human", "content": "Hello"}, {"role": "assistant", "value": "Yes."}]}),
            Example::Whole(messages(&[user, good])),
        ),
        (
            json!({"prompt": [u], "completion": [g], "label": true}),
            Example::Labelled { prompt: messages(&[user]), completion: messages(&[good]), good: true },
        ),
    ] {
        assert_eq!(one(&line.to_string()), expected, "{line}");
    }
}

/// A session's own export comes back as it was judged, and a pair may say how sure its label is. The likelier answer is
/// the chosen one, whatever its place; a skip leaves its prompt.
#[test]
fn ties_skips_and_soft_labels_are_read() {
    let exported = |choice: &str, more: &str| {
        one(&format!(
            r#"{{"judgement": 1, "pair": 2, "prompt": "a", {more}"left": "b c", "right": "d e", "choice": "{choice}"}}"#
        ))
    };
    let pair = |chosen, rejected, target, margin| Example::Preference {
        prompt: text("a"),
        chosen: text(chosen),
        rejected: text(rejected),
        target,
        margin,
    };
    let both = r#""chosen": "d e", "rejected": "b c", "margin": 1.0, "target": 0.0, "#;
    assert_eq!(exported("much-right", both), pair("d e", "b c", 1.0, 1.0));
    assert_eq!(exported("left", r#""target": 1.0, "#), pair("b c", "d e", 1.0, 0.0));
    assert_eq!(exported("tie", r#""target": 0.5, "#), pair("b c", "d e", 0.5, 0.0));
    assert_eq!(exported("skip", r#""target": null, "#), Example::Prompt(text("a")));
    let soft = |target: &str| format!(r#"{{"prompt": "a", "chosen": "b c", "rejected": "d e", "target": {target}}}"#);
    assert_eq!(one(&soft("0.75")), pair("b c", "d e", 0.75, 0.0));
    assert_eq!(one(&soft("0.25")), pair("d e", "b c", 0.75, 0.0));
    for wrong in ["1.5", "-0.1"] {
        let error = read_lines(&soft(wrong), Reading::default()).unwrap_err().to_string();
        assert!(error.contains("give a number from 0 to 1"), "{error}");
    }
    let unknown = r#"{"prompt": "a", "left": "b", "right": "c", "choice": "best"}"#;
    let error = read_lines(unknown, Reading::default()).unwrap_err().to_string();
    assert!(error.contains("\"choice\" is none of left"), "{error}");
}

/// `margin` as in TRL: how much better, in log-odds; null and none are 0.
#[test]
fn a_margin_is_read_and_stays_with_its_pair() {
    let tokenizer = tokenizer();
    let encoder = Encoder::new(&tokenizer);
    let line = |margin: &str| format!(r#"{{"prompt": "a", "chosen": " lid", "rejected": " kettle"{margin}}}"#);
    for (margin, expected) in
        [("", 0.0), (r#", "margin": null"#, 0.0), (r#", "margin": 1"#, 1.0), (r#", "margin": -0.5"#, -0.5)]
    {
        match encoder.encode(&one(&line(margin))).unwrap() {
            Some(TokenizedExample::Preference { margin, .. }) => assert_eq!(margin, expected),
            other => panic!("{other:?}"),
        }
    }
    // Pairs in other forms may have one, too.
    let pair = one(r#"{"question": "a", "response_j": "b", "response_k": "c", "margin": 2}"#);
    assert!(matches!(pair, Example::Preference { margin: 2.0, .. }), "{pair:?}");
    for (margin, wrong) in [(r#", "margin": "big""#, "\"big\""), (r#", "margin": 1e300"#, "1e")] {
        let error = read_lines(&line(margin), Reading::default()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("\"margin\" is {wrong}")) && error.contains("where a number is expected"),
            "{error}"
        );
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
        r#"{"prompt": "a", "completion": "b", "label": 2}"#,
        r#"{"messages": "a"}"#,
        r#"{"info": {"post": "a", "title": "b", "subreddit": "c"}, "summaries": [{"text": "d"}], "choice": 0}"#,
        r#"{"info": {"post": "a", "title": "b", "subreddit": "c"}, "summaries": [{"text": "d"}, {"text": "e"}], "choice": 2}"#,
        r#"{"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}"#,
        r#"{"text": "two"}"#,
    ];
    let file = format!("\u{feff}{}\r\n", lines.join("\r\n"));
    let skipping = Reading { on_bad: BadLines::Skip, ..Reading::default() };
    let error = read_lines(&file, Reading::default()).unwrap_err().to_string();
    assert!(error.starts_with("line 3: it is not JSON") && error.contains("--skip-bad-lines"), "{error}");
    let read = read_lines(&file, skipping).unwrap();
    assert_eq!(read.examples, [Example::Whole(text("one")), Example::Whole(text("two"))]);
    let numbers: Vec<usize> = read.bad.iter().map(|bad| bad.line).collect();
    assert_eq!(numbers, (3..=15).collect::<Vec<_>>());
    for (bad, words) in read.bad.iter().zip([
        "it is not JSON",
        "it is not a JSON object",
        "(it has: words, more)",
        "\"prompt\" is a number",
        "\"rejected\" is missing",
        "\"prompt\" and \"completion\" are not both",
        "no text under \"content\"",
        "an empty list",
        "\"label\" is 2",
        "\"messages\" is a text",
        "not a list of two",
        "neither 0 nor 1",
        "two ends of one conversation",
    ]) {
        assert!(bad.reason.contains(words), "{bad}");
    }
    assert!(matches!(read_lines("\n \n", skipping), Err(DataError::Empty)));
}

#[test]
fn tldr_is_read_in_its_published_layout() {
    let line = json!({
        "info": {"id": "t3_1", "post": "First.\nSecond.", "title": "A kettle", "subreddit": "tea", "site": null},
        "summaries": [{"text": "Too long. ", "policy": "sup1", "note": ""}, {"text": " Kettle good", "policy": "ref"}],
        "choice": 1, "worker": "w", "batch": "batch3", "split": "valid1", "extra": {"confidence": 8},
    });
    let Example::Tldr(post) = one(&line.to_string()) else { panic!("{line}") };
    assert_eq!((post.split.as_deref(), post.id.as_deref()), (Some("valid1"), Some("t3_1")));
    assert_eq!(one(&post.to_json().to_string()), Example::Tldr(post.clone()));
    let tokenizer = tokenizer();
    let query = post.query(&tokenizer, 512).unwrap();
    assert_eq!(query, "SUBREDDIT: r/tea\n\nTITLE: A kettle\n\nPOST: First.\nSecond.\n\nTL;DR:");
    let encoder = Encoder::new(&tokenizer);
    let Some(TokenizedExample::Preference { prompt, chosen, rejected, .. }) =
        encoder.encode(&Example::Tldr(post)).unwrap()
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
        id: None,
        heading: Some(["tea".to_owned(), "A kettle".to_owned()]),
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
    let encoder = Encoder::new(&tokenizer);
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
fn texts_end_once_and_a_conversation_without_a_template_is_a_text() {
    let tokenizer = tokenizer();
    let encoder = Encoder::new(&tokenizer);
    let encode = |line: &str| encoder.encode(&one(line)).unwrap().unwrap();
    let alone = encode(r#"{"prompt": "a kettle"}"#);
    let compared = encode(r#"{"prompt": "a kettle", "chosen": " and a lid", "rejected": "<|end|>"}"#);
    assert_eq!(alone.prompt(), compared.prompt());
    let TokenizedExample::Preference { chosen, rejected, .. } = compared else { panic!() };
    assert_eq!((chosen.last(), rejected.as_slice()), (Some(&0), &[0][..]));
    let TokenizedExample::Whole(whole) = encode(r#"{"text": "a kettle"}"#) else { panic!() };
    assert_eq!((&whole[..whole.len() - 1], whole.last()), (alone.prompt(), Some(&0)));
    let talk = encode(
        r#"{"prompt": [{"role": "user", "content": "a kettle"}], "completion": [{"role": "assistant", "content": "a lid"}]}"#,
    );
    let TokenizedExample::Completion { prompt, completion } = talk else { panic!() };
    assert_eq!(tokenizer.decode(&prompt, false).unwrap(), "user: a kettle\nassistant:");
    assert_eq!(tokenizer.decode(&completion, false).unwrap(), " a lid<|end|>");
}

#[test]
fn every_form_that_people_bring_is_read() {
    let [u, g, b] = [("user", "How far?"), ("assistant", "Two."), ("assistant", "Far.")];
    let s = ("system", "Be brief.");
    let object = |(role, content): (&str, &str)| json!({"role": role, "content": content});
    let turn = |from: &str, value: &str| json!({"from": from, "value": value});
    let (ju, jg, jb) = (object(u), object(g), object(b));
    let preference = Example::Preference {
        prompt: messages(&[u]),
        chosen: messages(&[g]),
        rejected: messages(&[b]),
        target: 1.0,
        margin: 0.0,
    };
    let with_system = Example::Preference {
        prompt: messages(&[s, u]),
        chosen: messages(&[g]),
        rejected: messages(&[b]),
        target: 1.0,
        margin: 0.0,
    };
    let completion =
        |prompt: &[(&str, &str)]| Example::Completion { prompt: messages(prompt), completion: messages(&[g]) };
    for (line, expected) in [
        // The prompt as a text beside whole conversations, also with all that ultrafeedback_binarized has.
        (json!({"prompt": "How far?", "chosen": [ju, jg], "rejected": [ju, jb]}), preference.clone()),
        (
            json!({
                "prompt": "How far?", "prompt_id": "ab12", "chosen": [ju, jg], "rejected": [ju, jb], "messages": [ju, jg],
                "score_chosen": 8.0, "score_rejected": 3.0,
            }),
            preference.clone(),
        ),
        (json!({"prompt": [ju], "chosen": [ju, jg], "rejected": [ju, jb]}), preference.clone()),
        (json!({"prompt": "How far?", "chosen": [jg], "rejected": [jb]}), preference.clone()),
        (json!({"prompt": [ju], "chosen": "Two.", "rejected": "Far."}), preference.clone()),
        (json!({"question": "How far?", "chosen": "Two.", "rejected": "Far."}), preference.clone()),
        (
            json!({"system": "Be brief.", "question": "How far?", "chosen": "Two.", "rejected": "Far."}),
            with_system.clone(),
        ),
        (json!({"system": "Be brief.", "prompt": "How far?", "chosen": [ju, jg], "rejected": [ju, jb]}), with_system),
        (
            json!({"conversations": [turn("human", "How far?")], "chosen": turn("gpt", "Two."), "rejected": turn("gpt", "Far.")}),
            preference.clone(),
        ),
        (
            json!({"qid": 5, "question": "How far?", "response_j": "Two.", "response_k": "Far.", "date": "2010/12/29"}),
            preference.clone(),
        ),
        (
            json!({"history": "How far?", "human_ref_A": "Far.", "human_ref_B": "Two.", "labels": 0, "score_A": 3}),
            preference.clone(),
        ),
        (
            json!({"prompt": "Hi", "response": " Yes."}),
            Example::Completion { prompt: text("Hi"), completion: text(" Yes.") },
        ),
        (json!({"instruction": "How far?", "input": "", "output": "Two."}), completion(&[u])),
        (
            json!({
                "instruction": "How", "input": "far?", "output": "Two.",
                "text": "Below is an instruction.\n### Instruction:\nHow\nfar?\n### Response:\nTwo.",
            }),
            completion(&[("user", "How\nfar?")]),
        ),
        (json!({"system_prompt": "Be brief.", "question": "How far?", "response": "Two."}), completion(&[s, u])),
        (
            json!({"instruction": "How far?", "context": "", "response": "Two.", "category": "open qa"}),
            completion(&[u]),
        ),
        (json!({"question": "How far?"}), Example::Prompt(messages(&[u]))),
        (
            json!({"conversations": [turn("human", "How far?"), turn("gpt", "Two.")], "system": "Be brief."}),
            Example::Whole(messages(&[s, u, g])),
        ),
        (json!({"prompt": "How far?", "messages": [ju, jg]}), Example::Whole(messages(&[u, g]))),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "far?"}]}, jg]}),
            Example::Whole(messages(&[u, g])),
        ),
        (
            json!({"prompt": "Hi", "completion": " Yes.", "label": 1}),
            Example::Labelled { prompt: text("Hi"), completion: text(" Yes."), good: true },
        ),
        (
            json!({"prompt": "Hi", "completion": " No.", "label": 0}),
            Example::Labelled { prompt: text("Hi"), completion: text(" No."), good: false },
        ),
        (
            json!({"chosen": "\n\nHuman: q\n\nAssistant: I keep boots", "rejected": "\n\nHuman: q\n\nAssistant: I keep books"}),
            Example::Preference {
                prompt: text("\n\nHuman: q\n\nAssistant: I keep"),
                chosen: text(" boots"),
                rejected: text(" books"),
                target: 1.0,
                margin: 0.0,
            },
        ),
        (
            json!({"chosen": "お茶がおいしい", "rejected": "お茶がまずい"}),
            Example::Preference {
                prompt: text("お茶が"),
                chosen: text("おいしい"),
                rejected: text("まずい"),
                target: 1.0,
                margin: 0.0,
            },
        ),
    ] {
        assert_eq!(one(&line.to_string()), expected, "{line}");
    }
    // An array is read as lines are, also over several lines.
    let entries = json!([{"prompt": "a"}, {"question": "How far?"}]);
    for array in [entries.to_string(), format!("\u{feff}\n{entries:#}\n")] {
        let read = read_lines(&array, Reading::default()).unwrap();
        assert_eq!(read.examples, [Example::Prompt(text("a")), Example::Prompt(messages(&[u]))]);
    }
    let error = read_lines("[{\"prompt\": \"a\"}, 3]", Reading::default()).unwrap_err().to_string();
    assert!(error.starts_with("entry 2: it is not a JSON object"), "{error}");
    assert!(matches!(read_lines("[{\"prompt\"", Reading::default()), Err(DataError::Array(_))));
}

#[test]
fn text_that_would_not_be_used_is_named() {
    let ignoring = Reading { ignore_fields: true, ..Reading::default() };
    for (line, words) in [
        (
            json!({"prompt": "Hi", "chosen": "a", "rejected": "b", "context": "Two streets away."}),
            "\"context\" carries text",
        ),
        (
            json!({"prompt": "Hi", "completion": "a", "persona": "a cook", "docs": ["One page."]}),
            "\"persona\" and \"docs\" carry",
        ),
        (json!({"text": "A text.", "answer": "Two."}), "\"answer\" carries"),
        (
            json!({
                "prompt": "And why?",
                "chosen": [{"role": "user", "content": "How far?"}, {"role": "assistant", "content": "a"}],
                "rejected": [{"role": "user", "content": "How far?"}, {"role": "assistant", "content": "b"}],
            }),
            "\"prompt\" carries",
        ),
    ] {
        let error = read_lines(&line.to_string(), Reading::default()).unwrap_err().to_string();
        assert!(error.contains(words) && error.contains("--ignore-fields"), "{error}");
        assert_eq!(read_lines(&line.to_string(), ignoring).unwrap().examples.len(), 1);
    }
    // Notes are no text.
    one(
        r#"{"prompt": "Hi", "completion": "a", "id": "x y", "data_source": "the web", "score": 3, "tags": ["a b"], "hash": "ab"}"#,
    );
}

#[test]
fn articles_of_cnn_dm_are_read() {
    let line = json!({
        "info": {"id": "3", "article": "First.\nSecond.", "title": "A kettle", "site": "cnn"}, "split": "valid",
        "summaries": [{"text": " A kettle. "}, {"text": "Tea."}], "choice": 0, "batch": "cnndm0",
    });
    let tokenizer = tokenizer();
    let Some(TokenizedExample::Preference { prompt, chosen, rejected, .. }) =
        Encoder::new(&tokenizer).encode(&one(&line.to_string())).unwrap()
    else {
        panic!("{line}")
    };
    let decoded = [prompt, chosen, rejected].map(|tokens| tokenizer.decode(&tokens, false).unwrap());
    assert_eq!(decoded, ["Article:\n\nFirst.\nSecond.\n\nTL;DR:", " A kettle.<|end|>", " Tea.<|end|>"]);
}

/// Written by `tests/golden/text/chat.py` and `make.py`.
fn golden() -> [serde_json::Value; 2] {
    [
        serde_json::from_str(include_str!("../../../../tests/golden/text/chat.json")).unwrap(),
        serde_json::from_str(include_str!("../../../../tests/golden/text/tokenizers.json")).unwrap(),
    ]
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn conversations_have_the_tokens_that_transformers_gives_them_and_nothing_behind() {
    let [golden, tokenizers] = golden();
    for (name, case) in golden["chats"].as_object().unwrap() {
        let base = tokenizers["tokenizers"][case["tokenizer"].as_str().unwrap()]["json"].as_str().unwrap();
        let mut config = case["config"].clone();
        config["chat_template"] = case["template"].clone();
        let tokenizer = Tokenizer::from_json(base, Some(&config.to_string())).unwrap();
        assert_eq!(tokenizer.vocabulary() as u64, case["vocabulary"], "{name}");
        let encoder = Encoder::new(&tokenizer);
        let stop = [tokenizer.ends(), ids(&case["ends"])].concat();
        let scores = ScoreEncoder::new(&tokenizer, &tokenizer, stop.clone(), 1000);
        for talk in case["talks"].as_array().unwrap() {
            let mut said: Vec<Message> = serde_json::from_value(talk["messages"].clone()).unwrap();
            let whole = TextOrMessages::Messages(said.clone());
            let answer = TextOrMessages::Messages(vec![said.pop().unwrap()]);
            let words = TextOrMessages::Messages(said);
            let expected = ids(&talk["ids"]);
            assert_eq!(
                encoder.encode(&Example::Whole(whole)).unwrap(),
                Some(TokenizedExample::Whole(expected.clone())),
                "{name}: {}",
                talk["text"]
            );
            let (prompt, [completion]) = encoder.answers(&words, [&answer]).unwrap();
            assert_eq!([&prompt[..], &completion].concat(), expected, "{name}");
            assert_eq!(prompt.len() as u64, talk["prompt"], "{name}");
            let asked = encoder.prompt(&words).unwrap();
            assert_eq!(asked, ids(&talk["before_ids"]), "{name}");
            // What the policy writes ends with the first token that stops it. The reward model scores what it learned.
            let end = completion.iter().position(|token| stop.contains(token));
            let written = &completion[..end.map_or(completion.len(), |end| end + 1)];
            let scored = scores.example(&words, &asked, written).unwrap();
            assert_eq!((&scored.prompt, &scored.completion), (&prompt, &completion), "{name}: {}", talk["text"]);
            // An answer that was cut has no end, and is otherwise the same.
            if let Some(end) = end {
                let cut = scores.example(&words, &asked, &completion[..end]).unwrap();
                assert_eq!((&cut.prompt, &cut.completion[..]), (&prompt, &completion[..end]), "{name}");
            }
            // For a reward model with another tokenizer, the answer is what a file would give it.
            let other = self::tokenizer();
            let anew = ScoreEncoder::new(&tokenizer, &other, stop.clone(), 1000).example(&words, &asked, written);
            let (prompt, [mut completion]) = Encoder::new(&other).answers(&words, [&answer]).unwrap();
            if end.is_none() {
                // An answer that does not end is one that was cut.
                completion.pop();
            }
            assert_eq!(anew.unwrap(), crate::Example { prompt, completion }, "{name}: {}", talk["text"]);
        }
    }
}

#[test]
fn prompt_and_completion_have_the_tokens_of_the_whole_text() {
    let [golden, tokenizers] = golden();
    for (name, cases) in golden["texts"].as_object().unwrap() {
        let json = tokenizers["tokenizers"][name]["json"].as_str().unwrap();
        let tokenizer = Tokenizer::from_json(json, None).unwrap();
        for case in cases.as_array().unwrap() {
            let words = |key: &str| text(case[key].as_str().unwrap());
            let (prompt, [completion]) =
                Encoder::new(&tokenizer).answers(&words("prompt"), [&words("completion")]).unwrap();
            let end = tokenizer.eos().unwrap();
            assert_eq!([&prompt[..], &completion].concat(), [ids(&case["ids"]), vec![end]].concat(), "{name}: {case}");
            assert_eq!(prompt.len() as u64, case["cut"], "{name}: {case}");
            // What is shown is what both are decoded to together.
            let shown =
                tokenizer.decode(&prompt, true).unwrap() + &tokenizer.continuation(&prompt, &completion, true).unwrap();
            assert_eq!(shown, case["decoded"], "{name}: {case}");
            let mut stream = tokenizer.stream_after(&prompt);
            let mut heard = tokenizer.decode(&prompt, true).unwrap();
            completion.iter().for_each(|&token| heard.push_str(&stream.push(token).unwrap()));
            heard.push_str(&stream.finish().unwrap());
            assert_eq!(heard, case["decoded"], "{name}: {case}");
        }
    }
}

#[test]
fn pairs_that_part_inside_a_token_share_what_is_before_it() {
    let [_, tokenizers] = golden();
    let json = tokenizers["tokenizers"]["gpt2"]["json"].as_str().unwrap();
    let tokenizer = Tokenizer::from_json(json, None).unwrap();
    let (prompt, [left, right]) =
        Encoder::new(&tokenizer).answers(&text("see the ket"), [&text("tle"), &text("ch")]).unwrap();
    assert_eq!(tokenizer.decode(&prompt, false).unwrap(), "see the");
    assert_eq!(tokenizer.decode(&left, false).unwrap(), " kettle<|end|>");
    assert_eq!(tokenizer.decode(&right, false).unwrap(), " ketch<|end|>");
}

#[test]
fn a_reward_model_with_a_short_context_sees_the_end() {
    let tokenizer = tokenizer();
    let example = ScoreEncoder::new(&tokenizer, &tokenizer, vec![0], 5).example(&text("x"), &[5, 6, 7, 8], &[9, 10, 0]);
    assert_eq!(example.unwrap(), crate::Example { prompt: vec![7, 8], completion: vec![9, 10, 0] });
}
