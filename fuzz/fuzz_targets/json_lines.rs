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

use data::{BadLines, Example, read_lines};
use flipside_fuzz::one_sentence;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let strict = read_lines(text, BadLines::Stop);
    match read_lines(text, BadLines::Skip) {
        Ok(dataset) => {
            dataset.bad.iter().for_each(one_sentence);
            let lines = text.lines().count();
            assert!(dataset.examples.len() + dataset.bad.len() <= lines);
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
