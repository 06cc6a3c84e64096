//! The filter `wordwrap`, by the rules of Python's `textwrap`.

use super::methods::{is_space, lines};
use fancy_regex::Regex;
use std::sync::LazyLock;

/// Where a text may be broken: `TextWrapper.wordsep_re`.
static WORDS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let (space, no_space) = (r"[\t\n\x0b\x0c\r ]", r"[^\t\n\x0b\x0c\r ]");
    let (word, letter) = (r#"[\w!"'&.,?]"#, r"[^\d\W]");
    let pattern = format!(
        r"{space}+|(?<={word})-{{2,}}(?=\w)|{no_space}+?(?:-(?:(?<={letter}{{2}}-)|(?<={letter}-{letter}-))(?={letter}-?{letter})|(?={space}|\z)|(?<={word})(?=-{{2,}}\w))"
    );
    Regex::new(&pattern).ok()
});

/// How a text is wrapped.
pub(super) struct Wrap {
    /// The longest line, characters; at least 1.
    pub width: usize,
    /// Whether words that are longer are cut.
    pub break_long_words: bool,
    /// Whether a line may end at a hyphen.
    pub break_on_hyphens: bool,
}

impl Wrap {
    /// The text's lines, each wrapped by itself.
    pub fn lines(&self, text: &str) -> Vec<String> {
        let wrapped = |line: &str| match self.line(line) {
            // An empty line stays one.
            lines if lines.is_empty() => vec![String::new()],
            lines => lines,
        };
        lines(text, false).into_iter().flat_map(wrapped).collect()
    }

    fn line(&self, text: &str) -> Vec<String> {
        let mut chunks: Vec<Vec<char>> =
            self.chunks(text).into_iter().rev().map(|chunk| chunk.chars().collect()).collect();
        let is_blank = |chunk: &[char]| chunk.iter().all(|&c| is_space(c));
        let mut lines = Vec::new();
        while let Some(first) = chunks.last() {
            if !lines.is_empty() && is_blank(first) {
                chunks.pop();
            }
            let mut line: Vec<Vec<char>> = Vec::new();
            let mut length = 0;
            while let Some(chunk) = chunks.pop_if(|chunk| length + chunk.len() <= self.width) {
                length += chunk.len();
                line.push(chunk);
            }
            if let Some(long) = chunks.pop_if(|chunk| chunk.len() > self.width) {
                match self.break_long_words {
                    true => {
                        let (here, later) = long.split_at(self.end(&long, self.width - length));
                        line.push(here.to_vec());
                        chunks.push(later.to_vec());
                    }
                    false if line.is_empty() => line.push(long),
                    false => chunks.push(long),
                }
            }
            line.pop_if(|chunk| is_blank(chunk));
            if !line.is_empty() {
                lines.push(line.concat().into_iter().collect());
            }
        }
        lines
    }

    /// How much of a long word fits into what is left of a line.
    fn end(&self, chunk: &[char], left: usize) -> usize {
        let hyphen = chunk[..left]
            .iter()
            .rposition(|&c| c == '-')
            .filter(|&hyphen| self.break_on_hyphens && chunk[..hyphen].iter().any(|&c| c != '-'));
        hyphen.map_or(left, |hyphen| hyphen + 1)
    }

    /// The parts that stay whole where they fit.
    fn chunks<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut chunks = Vec::new();
        if let Some(words) = WORDS.as_ref().filter(|_| self.break_on_hyphens) {
            let mut done = 0;
            // What no word matches, matches as it is.
            for found in words.find_iter(text).map_while(Result::ok) {
                chunks.extend([&text[done..found.start()], found.as_str()]);
                done = found.end();
            }
            chunks.push(&text[done..]);
        } else {
            let mut rest = text;
            let is_break = |c: char| matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ');
            while let Some(first) = rest.chars().next() {
                let blank = is_break(first);
                let (chunk, later) = rest.split_at(rest.find(|c| is_break(c) != blank).unwrap_or(rest.len()));
                chunks.push(chunk);
                rest = later;
            }
        }
        chunks.retain(|chunk| !chunk.is_empty());
        chunks
    }
}
