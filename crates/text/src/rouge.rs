//! ROUGE (Lin 2004): how many words and word sequences a summary shares with a reference. The rules are those of
//! Google's `rouge_score` without its stemmer, which papers on TL;DR report.

use std::collections::HashMap;

/// F1 of a summary, each 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Rouge {
    /// ROUGE-1: of single words.
    pub rouge1: f64,
    /// ROUGE-2: of pairs of words that follow each other.
    pub rouge2: f64,
    /// ROUGE-L: of the longest common subsequence of words, over the whole text.
    pub rouge_l: f64,
}

impl Rouge {
    /// The scores of a summary against one reference. Words are runs of the letters a to z and digits in lower case;
    /// everything else separates them. No word is stemmed.
    pub fn of(reference: &str, summary: &str) -> Rouge {
        let (reference, summary) = (words(reference), words(summary));
        let lengths = |n: usize| [&reference, &summary].map(|words| (words.len() + 1).saturating_sub(n));
        Rouge {
            rouge1: f1(shared(&reference, &summary, 1), lengths(1)),
            rouge2: f1(shared(&reference, &summary, 2), lengths(2)),
            rouge_l: f1(longest_common_subsequence(&reference, &summary), lengths(1)),
        }
    }

    /// The mean of several summaries; 0 of none.
    pub fn mean(all: impl IntoIterator<Item = Rouge>) -> Rouge {
        let (mut sum, mut count) = (Rouge::default(), 0.0);
        for one in all {
            sum.rouge1 += one.rouge1;
            sum.rouge2 += one.rouge2;
            sum.rouge_l += one.rouge_l;
            count += 1.0;
        }
        let count = f64::max(count, 1.0);
        Rouge { rouge1: sum.rouge1 / count, rouge2: sum.rouge2 / count, rouge_l: sum.rouge_l / count }
    }
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words = lower.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// Sequences of `n` words that both have, each as often as the one that has it less often.
fn shared(reference: &[String], summary: &[String], n: usize) -> usize {
    let mut left: HashMap<&[String], usize> = HashMap::new();
    reference.windows(n).for_each(|words| *left.entry(words).or_default() += 1);
    let is_shared = |words: &&[String]| match left.get_mut(*words) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    };
    summary.windows(n).filter(is_shared).count()
}

fn longest_common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for word in a {
        let mut diagonal = 0;
        for (j, other) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if word == other { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// The harmonic mean of precision and recall.
fn f1(shared: usize, [reference, summary]: [usize; 2]) -> f64 {
    // 2 P R / (P + R) with P = shared / summary and R = shared / reference.
    match reference + summary {
        0 => 0.0,
        both => 2.0 * shared as f64 / both as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scores_are_those_of_rouge_score() {
        // rouge_score 0.1.2, RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False), F1.
        for (reference, summary, expected) in [
            (
                "The quick brown fox jumps over the lazy dog.",
                "The quick fox jumped over a lazy dog!",
                [0.7058823529411765, 0.26666666666666666, 0.7058823529411765],
            ),
            (
                "My girlfriend of 3 years won't talk to me. What do I do?",
                "girlfriend won't talk to me, what should I do? what should I do?",
                [0.7142857142857143, 0.46153846153846156, 0.7142857142857143],
            ),
            ("the the the cat sat on the mat", "the cat the cat", [0.5, 0.2, 0.5]),
            (
                "Café owner says: naïve 20-year-old can't pay £300",
                "cafe owner says a naive 20 year old can not pay 300",
                [0.6666666666666666, 0.45454545454545453, 0.6666666666666666],
            ),
            ("summaries running quickly", "summary ran quick", [0.0, 0.0, 0.0]),
            ("one", "one", [1.0, 0.0, 1.0]),
            ("a b c d e f g", "g f e d c b a", [1.0, 0.0, 0.14285714285714285]),
            ("", "something", [0.0, 0.0, 0.0]),
            ("...", "!!!", [0.0, 0.0, 0.0]),
        ] {
            let found = Rouge::of(reference, summary);
            for (found, expected) in [found.rouge1, found.rouge2, found.rouge_l].into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{reference:?} {summary:?}: {found} {expected}");
            }
        }
        let mean = Rouge::mean([Rouge::of("a b", "a b"), Rouge::of("a b", "c")]);
        assert_eq!(mean, Rouge { rouge1: 0.5, rouge2: 0.5, rouge_l: 0.5 });
        assert_eq!(Rouge::mean([]), Rouge::default());
    }
}
