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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_the_line_is_escaped() {
        assert_eq!(one_line("a \"b\"\\c\r\n\tä✓\u{85}\u{2028}"), "a \"b\"\\c\\r\\n\\tä✓\\u{85}\\u{2028}");
    }
}
