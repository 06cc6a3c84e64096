//! Puts error messages on one line, whatever they quote.

/// The text on one line: line ends and other control characters become escapes such as `\n`.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Unicode has two line ends that are not control characters.
            '\u{2028}' | '\u{2029}' => line.extend(character.escape_default()),
            character if character.is_control() => line.extend(character.escape_default()),
            character => line.push(character),
        }
    }
    line
}

/// The first line of a message of libtorch or of a panic that quotes one. The lines after it are a trace.
pub fn first_line(text: &str) -> &str {
    let ends = ["\n", "\\n", "Exception raised from"];
    let end = ends.iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
    text[..end].trim_end_matches([' ', '(', '"'])
}

/// What a panic said, on one line.
pub fn panic_reason(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    first_line(text.unwrap_or("no reason given"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_left_out() {
        let of_libtorch =
            "called `Result::unwrap()` on an `Err` value: Torch(\"index out of range in self\\nException raised from …";
        assert!(first_line(of_libtorch).ends_with("index out of range in self"));
        assert_eq!(first_line("sizes differ\nframe #0: c10::Error"), "sizes differ");
        assert_eq!(panic_reason(&"plain"), "plain");
        assert_eq!(panic_reason(&"two\nlines".to_owned()), "two");
        assert_eq!(panic_reason(&3), "no reason given");
    }

    #[test]
    fn what_would_break_the_line_is_escaped() {
        assert_eq!(one_line("a \"b\"\\c\r\n\tä✓\u{85}\u{2028}"), "a \"b\"\\c\\r\\n\\tä✓\\u{85}\\u{2028}");
    }
}
