//! Posts of the built-in grammar, and summaries of them with a gold score that is known exactly: what TL;DR's data set
//! is for people, in small.
//!
//! A post rates every part of a thing in one mood, in any order, and ends with a verdict. A summary says again what the
//! post says:
//!
//! > The spout leaks all over the table. The handle could be better. I would not buy it again.
//!
//! A longer summary can say more, which makes a judge by this score like length, as people do.

use super::{ANY, OPENERS, PARTS, VERDICTS, conjugated, level, level_in, meaning, pick, sentence, subject};
use flipside_core::Stream;
use rand::RngExt;

/// The subreddits that the grammar posts to. They are among those that TL;DR's filter keeps.
pub const SUBREDDITS: &[&str] = &["self", "travel", "Cooking", "AskReddit", "needadvice"];

/// Titles; `{thing}` stands for a thing with its adjective.
const TITLES: &[&str] = &["My {thing}", "About the {thing}", "The {thing}", "Should I keep the {thing}"];

/// The value of a sentence that the post does not support, and of one that was said before.
const UNSUPPORTED: f64 = -1.0;

/// A post to be summarised.
#[derive(Clone, Debug, PartialEq)]
pub struct Post {
    /// The subreddit, without `r/`.
    pub subreddit: &'static str,
    /// Its title.
    pub title: String,
    /// Its text, two sentences a line.
    pub text: String,
}

/// What a sentence claims: the rating of a part, or of the whole (`None`).
struct Claim<'a> {
    part: Option<&'static str>,
    level: i32,
    /// The words, without what stands before and after them.
    words: &'a str,
}

/// Draws a post.
pub fn post(stream: &mut Stream) -> Post {
    let (adjective, thing) = subject(stream);
    let mut parts = thing.parts.to_vec();
    for i in 0..parts.len() {
        let other = stream.random_range(i..parts.len());
        parts.swap(i, other);
    }
    let mood = level(stream);
    let ratings: Vec<i32> = parts.iter().map(|_| level_in(mood, stream)).collect();
    let mut sentences: Vec<String> =
        parts.iter().zip(&ratings).map(|(part, &rating)| sentence(part, rating, "", stream)).collect();
    let mean = f64::from(ratings.iter().sum::<i32>()) / ratings.len() as f64;
    sentences.push(pick(&VERDICTS[(mean.round() + 2.0) as usize], stream).to_owned());
    let lines: Vec<String> = sentences.chunks(2).map(|line| line.join(" ")).collect();
    Post {
        subreddit: pick(SUBREDDITS, stream),
        title: pick(TITLES, stream).replace("{thing}", &format!("{adjective} {}", thing.name)),
        text: lines.join("\n"),
    }
}

/// Draws a summary of a post of this grammar: two to four of its claims, the strongest first, and the verdict. Each is
/// true with probability `care`. Half of the others give a random rating, and half rate a part of any thing. Of any
/// other text, the summary is empty.
pub fn summary(post: &str, care: f64, stream: &mut Stream) -> String {
    let Some(mut claims) = claims(post) else { return String::new() };
    claims.sort_by_key(|claim| (claim.part.is_none(), -claim.level.abs()));
    let count = stream.random_range(2..=4);
    let (verdicts, parts): (Vec<Claim>, Vec<Claim>) = claims.into_iter().partition(|claim| claim.part.is_none());
    let mut told = Vec::new();
    for claim in parts.iter().take(count).chain(&verdicts) {
        let is_true = stream.random_bool(care.clamp(0.0, 1.0));
        told.push(match (is_true, claim.part) {
            (true, None) => claim.words.to_owned(),
            (true, Some(part)) => format!("The {part} {}.", claim.words),
            (false, None) => pick(&VERDICTS[(level(stream) + 2) as usize], stream).to_owned(),
            (false, Some(part)) => {
                let other = PARTS[stream.random_range(0..PARTS.len())].0;
                let (part, rating) = (if stream.random_bool(0.5) { part } else { other }, level(stream));
                format!("The {part} {}.", conjugated(pick(&ANY[(rating + 2) as usize], stream), part))
            }
        });
    }
    told.join(" ")
}

/// The gold score of a summary of this post; `None` if the post is not one of this grammar.
///
/// A sentence about a part that the post rates counts 1 − d/2, with d the distance of the two ratings, 0 to 4. So does
/// the verdict. Every other sentence counts −1: one that the grammar does not know, one about a part that the post does
/// not mention, one that repeats a part. The score is the sum, divided by the number of the post's sentences: 1 says
/// all that the post says and nothing else; 0 is that of an empty summary.
pub fn score(post: &str, summary: &str) -> Option<f64> {
    let claims = claims(post)?;
    let mut spoken = vec![false; claims.len()];
    let mut sum = 0.0;
    for sentence in sentences(summary) {
        let known = meaning(sentence).and_then(|(part, rating)| {
            let place = claims.iter().position(|claim| claim.part == part)?;
            Some((place, rating)).filter(|_| !std::mem::replace(&mut spoken[place], true))
        });
        sum += match known {
            Some((place, rating)) => {
                let distance = f64::from((claims[place].level - rating).abs());
                1.0 - distance / 2.0
            }
            None => UNSUPPORTED,
        };
    }
    Some(sum / claims.len() as f64)
}

/// The gold score of a completion of a prompt in TL;DR's layout; `None` if its post is not one of this grammar.
pub fn score_of_prompt(prompt: &str, completion: &str) -> Option<f64> {
    score(post_of_prompt(prompt)?, completion)
}

/// Whether this is the prompt of a post of this grammar, in TL;DR's layout.
pub fn is_prompt(prompt: &str) -> bool {
    post_of_prompt(prompt).and_then(claims).is_some()
}

fn post_of_prompt(prompt: &str) -> Option<&str> {
    let rest = prompt.trim().strip_prefix("SUBREDDIT: r/")?;
    rest.split_once("\n\nPOST: ")?.1.strip_suffix("\n\nTL;DR:")
}

/// The sentences of a text, each with its full stop.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('.').map(str::trim).filter(|sentence| !sentence.is_empty())
}

/// What a post claims; `None` if it has a sentence that this grammar does not write, or none at all.
fn claims(post: &str) -> Option<Vec<Claim<'_>>> {
    let claim = |sentence| {
        let (part, level) = meaning(sentence)?;
        let words = match part {
            None => sentence,
            Some(part) => {
                let body = OPENERS.iter().find_map(|opener| sentence.strip_prefix(opener)).unwrap_or(sentence);
                body.split_once(&format!("he {part} "))?.1.trim_end_matches('.')
            }
        };
        Some(Claim { part, level, words })
    };
    let claims: Vec<Claim> = sentences(post).map(claim).collect::<Option<_>>()?;
    (!claims.is_empty()).then_some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;

    #[test]
    fn scores_by_hand() {
        let post = "The lid closes. So far the spout leaks all over the table.\nI would not buy it again.";
        let score = |summary: &str| score(post, summary).unwrap();
        assert!((score("The spout leaks all over the table.") - 1.0 / 3.0).abs() < 1e-12);
        assert!(
            (score(" The lid closes. The spout is beyond repair. Do not buy it.") - (1.0 + 1.0 + 0.5) / 3.0).abs()
                < 1e-12
        );
        // Four steps off, repeated, not mentioned, unknown.
        assert!((score("The spout pours without a drop spilt.") + 1.0 / 3.0).abs() < 1e-12);
        assert!((score("The lid closes. The lid closes.") - 0.0).abs() < 1e-12);
        assert!((score("The zip runs well.") + 1.0 / 3.0).abs() < 1e-12);
        assert!((score("What a lid") + 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(score(""), 0.0);
        assert_eq!(super::score("The lid closes. Whatever.", ""), None);
        assert_eq!(super::score("", ""), None);
    }

    #[test]
    fn careful_summaries_are_better_and_nothing_beats_saying_all() {
        let mut stream = Seed(5).stream("posts");
        let mut sums = [0.0; 3];
        for _ in 0..300 {
            let post = post(&mut stream);
            assert_eq!(score(&post.text, &post.text), Some(1.0), "{post:?}");
            let prompt =
                format!("SUBREDDIT: r/{}\n\nTITLE: {}\n\nPOST: {}\n\nTL;DR:", post.subreddit, post.title, post.text);
            assert!(is_prompt(&prompt) && !is_prompt(&post.text));
            for (sum, care) in sums.iter_mut().zip([1.0, 0.5, 0.0]) {
                let summary = summary(&post.text, care, &mut stream);
                let found = score(&post.text, &summary).unwrap();
                assert_eq!(score_of_prompt(&prompt, &format!(" {summary}")), Some(found));
                assert!(found <= 1.0 && (care < 1.0 || found > 0.3), "{post:?} {summary}");
                *sum += found / 300.0;
            }
        }
        assert!(sums[0] > sums[1] + 0.2 && sums[1] > sums[2] + 0.2, "{sums:?}");
    }
}
