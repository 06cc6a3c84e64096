//! The published filters of TL;DR (Stiennon et al. 2020, appendix A), and the split of its comparisons in two halves:
//! one for the reward model, one for a judge kept apart from it.

use super::data::{Summaries, Tldr, TldrRules};
use super::tokenizer::{Tokenizer, TokenizerError};
use flipside_core::Stream;
use rand::RngExt;
use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The subreddits that are kept: those of the published data set, whose posts anyone can understand.
pub const SUBREDDITS: [&str; 29] = [
    "relationships",
    "AskReddit",
    "relationship_advice",
    "tifu",
    "dating_advice",
    "personalfinance",
    "Advice",
    "legaladvice",
    "offmychest",
    "loseit",
    "jobs",
    "self",
    "BreakUps",
    "askwomenadvice",
    "dogs",
    "running",
    "pettyrevenge",
    "needadvice",
    "travel",
    "Parenting",
    "weddingplanning",
    "Pets",
    "Dogtraining",
    "cats",
    "AskDocs",
    "college",
    "GetMotivated",
    "books",
    "Cooking",
];

/// Why a post is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftOut {
    /// Its text was in the data before.
    Duplicate,
    /// Its subreddit is not one of [`SUBREDDITS`].
    Subreddit,
    /// Its title begins with a variant of “edit” or “update”.
    Title,
    /// Its text is longer than a query may be.
    Long,
    /// Its summary begins with a variant of “edit”, “update” or “P.S.”.
    SummaryStart,
    /// Its summary has fewer or more tokens than is allowed.
    SummaryLength,
}

/// The filter. It remembers the posts that it has kept, to find duplicates.
pub struct Filter<'a> {
    tokenizer: &'a Tokenizer,
    rules: TldrRules,
    seen: HashSet<u64>,
}

impl<'a> Filter<'a> {
    /// A filter that counts tokens of this tokenizer, with the published limits.
    pub fn new(tokenizer: &'a Tokenizer) -> Filter<'a> {
        Filter { tokenizer, rules: TldrRules::default(), seen: HashSet::new() }
    }

    /// Why a post is left out, whatever its summary; `None` if it is kept: PPO answers it. Posts about sex or suicide
    /// and summaries with profanity are not looked for, because the lists of words are not published; the published
    /// files lack them already.
    ///
    /// # Errors
    ///
    /// A tokenizer that fails.
    pub fn post(&mut self, post: &Tldr) -> Result<Option<LeftOut>, TokenizerError> {
        let mut hash = DefaultHasher::new();
        post.post.trim().hash(&mut hash);
        let hash = hash.finish();
        if self.seen.contains(&hash) {
            return Ok(Some(LeftOut::Duplicate));
        }
        if let Some([subreddit, title]) = &post.heading {
            if !SUBREDDITS.contains(&subreddit.as_str()) {
                return Ok(Some(LeftOut::Subreddit));
            }
            if begins_with(title, &["edit", "update"]) {
                return Ok(Some(LeftOut::Title));
            }
        }
        if self.tokenizer.encode(&post.post, false)?.len() > self.rules.query {
            return Ok(Some(LeftOut::Long));
        }
        self.seen.insert(hash);
        Ok(None)
    }

    /// Why the author's summary of a post is left out; `None` if it is kept: the supervised model learns it.
    ///
    /// # Errors
    ///
    /// A tokenizer that fails.
    pub fn summary(&self, post: &Tldr) -> Result<Option<LeftOut>, TokenizerError> {
        let Summaries::Own(summary) = &post.summaries else { return Ok(None) };
        if begins_with(summary, &["edit", "update", "ps", "p.s"]) {
            return Ok(Some(LeftOut::SummaryStart));
        }
        let length = self.tokenizer.encode(&Tldr::completion(summary), false)?.len();
        Ok((!self.rules.summary.contains(&length)).then_some(LeftOut::SummaryLength))
    }
}

/// Whether a text begins with one of these words, in any case and after any marks, as in `[UPDATE]`.
fn begins_with(text: &str, words: &[&str]) -> bool {
    let text = text.trim_start_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase();
    words.iter().any(|word| {
        let rest = text.strip_prefix(word);
        // “Edited” and “updates” count, “editor” and “psychology” do not.
        rest.is_some_and(|rest| {
            let rest = rest.strip_prefix("ed").or(rest.strip_prefix('d')).or(rest.strip_prefix('s')).unwrap_or(rest);
            !rest.starts_with(|letter: char| letter.is_alphanumeric())
        })
    })
}

/// Splits comparisons so that all comparisons of a post are on one side: true for those of the second side, which gets
/// this share of the posts. `stream` decides which.
pub fn split_by_post(comparisons: &[Tldr], share: f64, stream: &mut Stream) -> Vec<bool> {
    let key = |post: &Tldr| post.id.clone().unwrap_or_else(|| post.post.clone());
    let mut posts: Vec<String> = comparisons.iter().map(key).collect::<BTreeSet<_>>().into_iter().collect();
    for i in 0..posts.len() {
        let other = stream.random_range(i..posts.len());
        posts.swap(i, other);
    }
    let count = (share.clamp(0.0, 1.0) * posts.len() as f64).round() as usize;
    let second: HashSet<&str> = posts.iter().take(count).map(String::as_str).collect();
    comparisons.iter().map(|post| second.contains(key(post).as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::posts;
    use flipside_core::Seed;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(["a b c d"], 258).unwrap()
    }

    fn post(subreddit: &str, title: &str, text: &str, summary: &str) -> Tldr {
        Tldr {
            id: None,
            heading: Some([subreddit, title].map(str::to_owned)),
            post: text.to_owned(),
            summaries: Summaries::Own(summary.to_owned()),
            split: None,
        }
    }

    #[test]
    fn posts_and_summaries_are_left_out_for_the_published_reasons() {
        let tokenizer = tokenizer();
        let mut filter = Filter::new(&tokenizer);
        // Here every byte is a token.
        let long = "x".repeat(513);
        for (subreddit, title, text, expected) in [
            ("tifu", "by editing", "one", None),
            ("tifu", "by editing", "one ", Some(LeftOut::Duplicate)),
            ("books", "[UPDATE] my car", "two", Some(LeftOut::Title)),
            ("books", "Edited: my car", "two", Some(LeftOut::Title)),
            ("books", "Editors I like", "two", None),
            ("physics", "my car", "three", Some(LeftOut::Subreddit)),
            ("cats", "my car", long.as_str(), Some(LeftOut::Long)),
            ("cats", "my car", &long[1..], None),
        ] {
            assert_eq!(filter.post(&post(subreddit, title, text, "")).unwrap(), expected, "{title} {text}");
        }
        // The space before it is a token, too.
        for (summary, expected) in [
            ("y".repeat(22), Some(LeftOut::SummaryLength)),
            ("y".repeat(23), None),
            ("y".repeat(47), None),
            ("y".repeat(48), Some(LeftOut::SummaryLength)),
            (format!("P.S. {}", "y".repeat(30)), Some(LeftOut::SummaryStart)),
            (format!("edit: {}", "y".repeat(30)), Some(LeftOut::SummaryStart)),
            (format!("psychology {}", "y".repeat(20)), None),
        ] {
            assert_eq!(filter.summary(&post("tifu", "t", "p", &summary)).unwrap(), expected, "{summary}");
        }
        assert!(posts::SUBREDDITS.iter().all(|name| SUBREDDITS.contains(name)));
    }

    #[test]
    fn no_post_is_on_both_sides() {
        let comparison = |i: usize| Tldr { id: Some(format!("t3_{}", i % 50)), ..post("tifu", "t", "p", "s") };
        let all: Vec<Tldr> = (0..200).map(comparison).collect();
        let sides = split_by_post(&all, 0.4, &mut Seed(1).stream("halves"));
        assert_eq!(sides.iter().filter(|second| **second).count(), 80);
        assert!((0..200).all(|i| sides[i] == sides[i % 50]));
        assert_ne!(sides, split_by_post(&all, 0.4, &mut Seed(2).stream("halves")));
        assert!(!split_by_post(&all, 0.0, &mut Seed(1).stream("halves")).contains(&true));
    }
}
