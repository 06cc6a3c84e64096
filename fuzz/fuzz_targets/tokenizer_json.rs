//! `tokenizer.json`, and after a zero byte `tokenizer_config.json`.

#![no_main]

// The crate's own lines, without libtorch around them.
#[path = "../../crates/text/src/tokenizer.rs"]
#[allow(dead_code)]
mod tokenizer;

use flipside_fuzz::{checked, text_and_file};
use libfuzzer_sys::fuzz_target;
use tokenizer::Tokenizer;

fuzz_target!(|data: &[u8]| {
    let Some((tokenizer, config)) = text_and_file(data) else { return };
    let config = std::str::from_utf8(config).ok().filter(|config| !config.is_empty());
    let Some(mut tokenizer) = checked(Tokenizer::from_json(tokenizer, config)) else { return };
    for text in ["", "Review of the blue kettle: it pours.", "\u{fffd}é\u{301} 🫖\n\t<|end|>"] {
        for special in [false, true] {
            let Some(tokens) = checked(tokenizer.encode(text, special)) else { continue };
            checked(tokenizer.decode(&tokens, special));
            let mut stream = tokenizer.stream();
            for token in tokens {
                checked(stream.push(token));
            }
            checked(stream.finish());
        }
    }
    checked(tokenizer.decode(&[0, 1, u32::MAX], false));
    tokenizer.chat_template();
    tokenizer.ends();
    tokenizer.roles();
    tokenizer.config_json();
    checked(tokenizer.add_pad());
    checked(tokenizer.to_json());
});
