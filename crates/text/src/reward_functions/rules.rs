//! Rules: scores that follow from the text of a completion.

use fancy_regex::Regex;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

/// A completion as rules and programs see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The prompt as text.
    pub prompt: String,
    /// The completion as text.
    pub completion: String,
    /// Its tokens, the end included.
    pub tokens: usize,
    /// The answer that the data gives to this prompt, if it gives one.
    pub reference: Option<String>,
}

/// A rule.
#[derive(Clone, Debug)]
pub enum Rule {
    /// 1 if the regular expression is found in the completion, else 0.
    Pattern(Box<Regex>),
    /// 1 if the completion's number equals that of the reference, else 0; no score if the reference has no number. The
    /// number is the first one behind a `mark`, the last such one, or the last number of the text if the mark is empty.
    /// Of a completion, only the last 300 characters are read (verl's rule for GSM8K, which compares texts instead).
    Number {
        /// What stands before the number, such as `####`.
        mark: String,
    },
    /// 1 if the completion has so many tokens, else 0.
    Length(RangeInclusive<usize>),
}

impl Rule {
    /// [`Rule::Pattern`] of this regular expression.
    ///
    /// # Errors
    ///
    /// A regular expression that is none.
    pub fn pattern(pattern: &str) -> Result<Rule, String> {
        let regex = Regex::new(pattern).map_err(|error| format!("the regex `{pattern}` cannot be read: {error}"))?;
        Ok(Rule::Pattern(Box::new(regex)))
    }

    /// [`Rule::Length`] of `LOW..HIGH`, both included; either may be left out.
    ///
    /// # Errors
    ///
    /// Something else, or an empty range.
    pub fn length(range: &str) -> Result<Rule, String> {
        let bound = |text: &str, other: usize| if text.is_empty() { Some(other) } else { text.parse().ok() };
        let ends = range.split_once("..").and_then(|(low, high)| Some((bound(low, 0)?, bound(high, usize::MAX)?)));
        match ends {
            Some((low, high)) if low <= high => Ok(Rule::Length(low..=high)),
            _ => Err(format!("the length `{range}` is not LOW..HIGH, such as 10..60, 10.. or ..60")),
        }
    }

    /// The score of a completion; `None` for no score.
    pub fn score(&self, answer: &Answer) -> Option<f32> {
        let holds = match self {
            // A pattern that takes too long to match gives no score.
            Rule::Pattern(regex) => regex.is_match(&answer.completion).ok()?,
            Rule::Number { mark } => {
                let reference = answer.reference.as_ref()?;
                let gold = number(reference, mark).or_else(|| number(reference, ""))?;
                number(end_of(&answer.completion), mark).is_some_and(|found| found == gold)
            }
            Rule::Length(range) => range.contains(&answer.tokens),
        };
        Some(f32::from(u8::from(holds)))
    }
}

/// A decimal number, sign · digits · 10^exponent, in lowest terms, so that equal numbers are equal: 18, 18. and 18.0.
#[derive(Debug, PartialEq, Eq)]
struct Number {
    negative: bool,
    digits: String,
    exponent: i64,
}

/// Characters at the end of a completion in which its number is looked for.
const READ: usize = 300;

/// The last [`READ`] characters, without the rest of a number that begins before them.
fn end_of(text: &str) -> &str {
    let Some((cut, _)) = text.char_indices().rev().nth(READ - 1) else { return text };
    let is_of_number = |letter: char| letter.is_ascii_digit() || matches!(letter, '.' | ',');
    match text[..cut].ends_with(is_of_number) {
        true => text[cut..].trim_start_matches(is_of_number),
        false => &text[cut..],
    }
}

/// The number that a text gives as its answer.
fn number(text: &str, mark: &str) -> Option<Number> {
    // Commas count where they part thousands. A minus behind a digit or a letter is a hyphen.
    static NUMBERS: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?:(?<![\w.])-)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,4})?").ok()
    });
    let numbers = NUMBERS.as_ref()?;
    let found = match mark {
        "" => numbers.find_iter(text).flatten().last(),
        // What stands behind a mark, up to the next one; the last first.
        mark => text
            .split(mark)
            .skip(1)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .find_map(|behind| numbers.find(behind).ok().flatten()),
    };
    read(found?.as_str())
}

fn read(text: &str) -> Option<Number> {
    let plain = text.replace(',', "");
    let (negative, plain) = plain.strip_prefix('-').map_or((false, plain.as_str()), |rest| (true, rest));
    let (mantissa, power) = plain.split_once(['e', 'E']).unwrap_or((plain, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{part}");
    let digits = all.trim_start_matches('0').trim_end_matches('0').to_owned();
    if digits.is_empty() {
        return Some(Number { negative: false, digits, exponent: 0 });
    }
    let zeros = (all.len() - all.trim_end_matches('0').len()) as i64;
    Some(Number { negative, digits, exponent: power.parse::<i64>().ok()? - part.len() as i64 + zeros })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(completion: &str, reference: Option<&str>) -> Answer {
        let reference = reference.map(str::to_owned);
        Answer { completion: completion.to_owned(), tokens: completion.len(), reference, ..Answer::default() }
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        let marked = Rule::Number { mark: "####".to_owned() };
        let last = Rule::Number { mark: String::new() };
        let gold = Some("She sells 16 - 3 - 4 = 9 eggs for 2 dollars each.\n#### 18");
        for right in
            ["#### 18", "#### 18.", "#### 18.0", "####18.00 dollars", "#### $18", "#### 17\n#### 18", "#### 18\n####"]
        {
            assert_eq!(marked.score(&answer(right, gold)), Some(1.0), "{right}");
        }
        assert_eq!(marked.score(&answer("#### 1.8e1", gold)), Some(1.0));
        for wrong in ["18", "#### 180", "#### -18", "#### 1.8", "####", "", "#### 18\n#### 17", "#### eighteen"] {
            assert_eq!(marked.score(&answer(wrong, gold)), Some(0.0), "{wrong}");
        }
        for right in ["so it is 18", "18.", "3 and 4, then 18.0!", "10-18 … 18"] {
            assert_eq!(last.score(&answer(right, gold)), Some(1.0), "{right}");
        }
        let of = |completion: &str, gold: &str| last.score(&answer(completion, Some(gold)));
        assert_eq!(of("1,234,567", "1234567"), Some(1.0));
        assert_eq!(of("-0.50", "-.5"), Some(1.0));
        assert_eq!(of("0", "-0.0"), Some(1.0));
        assert_eq!(of("9007199254740993", "9007199254740992"), Some(0.0), "beyond what an f64 tells apart");
        assert_eq!(of("1, 2, 3", "3"), Some(1.0));
        assert_eq!(of("pages 4-5", "5"), Some(1.0));
        assert_eq!(marked.score(&answer("#### 1,234,567.", Some("#### 1234567"))), Some(1.0));
        // A reference that cannot be read gives no score, and none does neither.
        assert_eq!((of("18", "unknown"), last.score(&answer("18", None))), (None, None));
    }

    #[test]
    fn only_the_last_300_characters_are_read() {
        let marked = Rule::Number { mark: "####".to_owned() };
        let last = Rule::Number { mark: String::new() };
        // The characters after the answer; ä has two bytes.
        for (behind, score) in [(0, 1.0), (293, 1.0), (294, 0.0), (5000, 0.0)] {
            let text = format!("{}#### 18{}", "17 ä ".repeat(100), "ä".repeat(behind));
            assert_eq!(marked.score(&answer(&text, Some("#### 18"))), Some(score), "{behind}");
        }
        // The end of a longer number is no number: 118 is not read as 18.
        let cut = |text: &str, behind: usize| last.score(&answer(&format!("{text}{}", "ä".repeat(behind)), Some("18")));
        assert_eq!((cut("118", 298), cut("a18", 298), cut("18", 298)), (Some(0.0), Some(1.0), Some(1.0)));
        // The answer of the data is read from anywhere.
        assert_eq!(marked.score(&answer("#### 18", Some(&format!("#### 18{}", "ä".repeat(400))))), Some(1.0));
    }

    #[test]
    fn patterns_and_lengths() {
        let rule = Rule::pattern(r"^\s*(yes|no)\b").unwrap();
        assert_eq!(
            ["yes, sir", " no", "nobody"].map(|text| rule.score(&answer(text, None))),
            [1.0, 1.0, 0.0].map(Some)
        );
        for (range, scores) in
            [("2..4", [0.0, 1.0, 1.0, 0.0]), ("3..", [0.0, 0.0, 1.0, 1.0]), ("..1", [1.0, 0.0, 0.0, 0.0])]
        {
            let rule = Rule::length(range).unwrap();
            assert_eq!(["a", "ab", "abcd", "abcde"].map(|text| rule.score(&answer(text, None))), scores.map(Some));
        }
        assert!(Rule::pattern("(").is_err() && Rule::length("4").is_err() && Rule::length("a..b").is_err());
    }
}
