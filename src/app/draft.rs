//! The prompts that are asked about, as text that a person edits: one prompt per line.

use std::sync::Arc;

/// The prompts as they are being edited.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub text: String,
    /// The prompts that the draft started from.
    source: Option<Arc<Vec<String>>>,
    /// Whether the person has changed the text since.
    pub edited: bool,
    /// Why the text was rejected.
    pub refusal: Option<&'static str>,
}

impl Draft {
    /// Shows the lab's prompts, unless the person has begun to edit them.
    pub fn follow(&mut self, prompts: &Arc<Vec<String>>) {
        let known = self.source.as_ref().is_some_and(|source| Arc::ptr_eq(source, prompts));
        if !self.edited && !known {
            self.revert(prompts);
        }
    }

    /// Goes back to the lab's prompts.
    pub fn revert(&mut self, prompts: &Arc<Vec<String>>) {
        *self = Draft { text: written(prompts), source: Some(prompts.clone()), edited: false, refusal: None };
    }
}

/// Prompts as lines. A line break within a prompt is written `\n`, and a backslash is doubled.
pub(super) fn written(prompts: &[String]) -> String {
    let lines = prompts.iter().map(|prompt| prompt.replace('\\', "\\\\").replace('\n', "\\n"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The prompts in these lines. Empty lines are skipped.
pub(super) fn read(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let unescaped = lines.map(|line| {
        let mut prompt = String::new();
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            if letter != '\\' {
                prompt.push(letter);
                continue;
            }
            match letters.next() {
                Some('n') => prompt.push('\n'),
                Some('\\') | None => prompt.push('\\'),
                Some(other) => prompt.extend(['\\', other]),
            }
        }
        prompt
    });
    unescaped.filter(|prompt| !prompt.trim().is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_come_back_from_their_lines() {
        let all = ["One", "Two\nlines", r"C:\new", "a \\ b", "ends with \\"].map(str::to_owned);
        assert_eq!(read(&written(&all)), all);
        assert_eq!(read(" \n\n  A \n\\n\n"), ["A"]);
        assert_eq!(read(r"50 \% of it"), [r"50 \% of it"]);
    }

    #[test]
    fn a_draft_follows_the_lab_until_it_is_edited() {
        let (first, second) = (Arc::new(vec!["A".to_owned()]), Arc::new(vec!["B".to_owned()]));
        let mut draft = Draft::default();
        draft.follow(&first);
        assert_eq!(draft.text, "A");
        draft.text = "C".to_owned();
        draft.follow(&first);
        assert_eq!(draft.text, "C", "what was sent must not flicker");
        draft.follow(&second);
        assert_eq!(draft.text, "B");
        draft.edited = true;
        draft.follow(&first);
        assert_eq!(draft.text, "B");
    }
}
