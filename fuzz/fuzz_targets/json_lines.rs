//! Training data: JSON lines in any of the forms that are read.

#![no_main]

// The crate's own lines, without libtorch around them.
#[path = "../../crates/text/src/chat.rs"]
#[allow(dead_code)]
mod chat;
#[path = "../../crates/text/src/data.rs"]
#[allow(dead_code)]
mod data;
#[path = "../../crates/text/src/tokenizer.rs"]
#[allow(dead_code)]
mod tokenizer;

use data::{BadLines, Example, Reading, read_lines};
use flipside_fuzz::one_sentence;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let reading = |on_bad| Reading { on_bad, ignore_fields: data.len().is_multiple_of(2) };
    let strict = read_lines(text, reading(BadLines::Stop));
    match read_lines(text, reading(BadLines::Skip)) {
        Ok(dataset) => {
            dataset.bad.iter().for_each(one_sentence);
            // The entries of an array have a comma between them.
            let records = text.lines().count().max(text.matches(',').count() + 1);
            assert!(dataset.examples.len() + dataset.bad.len() <= records);
            assert_eq!(strict.is_ok(), dataset.bad.is_empty());
            for example in &dataset.examples {
                if let Example::Preference { prompt, chosen, rejected, .. } = example {
                    let said = [prompt, chosen, rejected].map(ToString::to_string);
                    assert!(said.iter().map(String::len).sum::<usize>() <= 8 * text.len() + 8);
                }
            }
        }
        Err(error) => one_sentence(error),
    }
    if let Err(error) = strict {
        one_sentence(error);
    }
});
