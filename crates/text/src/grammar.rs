//! A small grammar that writes short reviews of everyday things, with a gold score that is known exactly. It replaces a
//! data set: nothing is downloaded, nothing is copied, and whatever is learnt from it can be checked.
//!
//! A review answers a prompt such as `Review of the blue kettle:`. Each sentence rates one part, from −2 (dreadful) to
//! 2 (splendid), and the last one is a verdict on the whole:
//!
//! > Review of the blue kettle: The spout pours without a drop spilt. The handle is a little clumsy, though. I am glad
//! > that I bought it.
//!
//! The sentences of a review share a mood, and the verdict sums them up, so a good model has to keep track of how good
//! the thing is. The supervised set has reviews of every mood; which of them are better is left to the judgements.
//! [`score`] scores any text, whoever wrote it.

pub mod posts;

use flipside_core::Stream;
use rand::RngExt;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A thing and its parts.
struct Thing {
    name: &'static str,
    parts: &'static [&'static str],
}

const fn thing(name: &'static str, parts: &'static [&'static str]) -> Thing {
    Thing { name, parts }
}

/// What is reviewed. Every part here has its own words in [`PARTS`].
const THINGS: &[Thing] = &[
    thing("kettle", &["lid", "spout", "handle", "switch", "cord"]),
    thing("teapot", &["lid", "spout", "handle", "glaze"]),
    thing("lamp", &["switch", "cord", "shade", "base", "light"]),
    thing("lantern", &["light", "handle", "battery", "switch"]),
    thing("radio", &["sound", "dial", "battery", "handle", "cord"]),
    thing("speaker", &["sound", "battery", "switch", "base"]),
    thing("backpack", &["straps", "zip", "pockets", "fabric"]),
    thing("jacket", &["zip", "pockets", "fabric", "sleeves", "colour"]),
    thing("raincoat", &["sleeves", "pockets", "fabric", "colour", "zip"]),
    thing("tent", &["zip", "fabric", "poles", "floor"]),
    thing("umbrella", &["handle", "fabric", "colour", "hinge"]),
    thing("chair", &["seat", "legs", "fabric", "colour"]),
    thing("stool", &["seat", "legs", "colour", "finish"]),
    thing("desk", &["legs", "drawer", "finish", "colour"]),
    thing("cupboard", &["drawer", "hinge", "finish", "colour"]),
    thing("bicycle", &["seat", "brakes", "bell", "light", "colour"]),
    thing("scooter", &["brakes", "bell", "battery", "handle"]),
    thing("clock", &["dial", "bell", "battery", "finish"]),
    thing("mug", &["handle", "glaze", "colour", "base"]),
    thing("notebook", &["paper", "binding", "cover", "pockets"]),
    thing("album", &["paper", "binding", "cover", "colour"]),
    thing("blanket", &["fabric", "colour", "hem", "size"]),
    thing("cushion", &["fabric", "zip", "colour", "size"]),
    thing("toolbox", &["lid", "handle", "drawer", "hinge", "size"]),
];

/// Adjectives of a thing.
const ADJECTIVES: &[&str] =
    &["blue", "red", "green", "grey", "small", "large", "old", "new", "folding", "plain", "light", "striped"];

/// Phrases for one part only, rated −2 to 2.
const PARTS: &[(&str, [&str; 5])] = &[
    ("lid", ["came off on the first day", "rattles a little", "closes", "closes well", "closes with a soft click"]),
    ("spout", ["leaks all over the table", "drips now and then", "pours", "pours well", "pours without a drop spilt"]),
    (
        "handle",
        ["came off in my hand", "gets rather warm", "can be held", "sits well in the hand", "seems made for my hand"],
    ),
    (
        "switch",
        ["gave me a shock", "sticks now and then", "turns it on", "clicks well", "answers to the lightest touch"],
    ),
    (
        "cord",
        [
            "came apart in a week",
            "is a little short",
            "reaches the wall",
            "is nice and long",
            "winds itself up by magic",
        ],
    ),
    ("glaze", ["came off in the wash", "has a few scratches", "is brown", "shines well", "shines like a lake at dawn"]),
    ("shade", ["caught fire", "hangs a little askew", "is round", "hangs well", "turns every evening to gold"]),
    ("base", ["cracked at once", "rocks a little", "stands on the table", "stands firm", "stands like a rock"]),
    (
        "light",
        [
            "went out for good",
            "flickers now and then",
            "can be seen",
            "is warm and bright",
            "makes the whole street smile",
        ],
    ),
    (
        "battery",
        [
            "died on the first day",
            "runs down rather soon",
            "lasts a day",
            "lasts a good week",
            "seems to last for ever",
        ],
    ),
    ("sound", ["hurts my ears", "is a little thin", "can be heard", "is clear and warm", "fills the room with joy"]),
    ("dial", ["fell off at once", "is a little stiff", "shows the numbers", "turns well", "turns like silk"]),
    (
        "straps",
        [
            "tore on the first walk",
            "rub a little",
            "hold it up",
            "sit well on the back",
            "make it weigh nothing at all",
        ],
    ),
    ("zip", ["broke on the first day", "catches now and then", "opens and closes", "runs well", "runs like silk"]),
    (
        "pockets",
        ["have holes in them", "are a little small", "hold a few things", "hold a good deal", "hold all that I own"],
    ),
    (
        "fabric",
        ["tore in a week", "scratches a little", "is cloth", "feels soft and warm", "feels like a summer cloud"],
    ),
    ("sleeves", ["came off in the wash", "are a little long", "reach the wrist", "fit well", "fit as if made for me"]),
    (
        "colour",
        [
            "came off in the wash",
            "has faded a little",
            "can be seen",
            "is warm and bright",
            "makes the whole street smile",
        ],
    ),
    ("poles", ["snapped in the first wind", "bend a little", "hold it up", "stand firm", "stand through any storm"]),
    ("floor", ["lets all the rain in", "is a little damp", "is flat", "keeps dry", "stays dry through any storm"]),
    ("hinge", ["broke on the first day", "squeaks now and then", "opens and closes", "moves well", "moves like silk"]),
    ("seat", ["cracked at once", "is a little hard", "can be sat on", "is soft and warm", "feels like a summer cloud"]),
    ("legs", ["snapped in a week", "rock a little", "reach the floor", "stand firm", "stand like a rock"]),
    ("drawer", ["fell out at once", "sticks now and then", "opens and closes", "runs well", "runs like silk"]),
    ("finish", ["came off in a week", "has a few scratches", "is brown", "shines well", "shines like a lake at dawn"]),
    (
        "brakes",
        ["gave out on a hill", "squeak now and then", "slow it down", "hold well", "answer to the lightest touch"],
    ),
    ("bell", ["fell off at once", "is a little thin", "can be heard", "rings well", "sings like a bird"]),
    ("paper", ["tears at a touch", "is a little thin", "is white", "takes ink well", "makes me want to write a novel"]),
    (
        "binding",
        ["came apart in a week", "creaks a little", "holds the pages", "holds well", "opens flat like a dream"],
    ),
    (
        "cover",
        ["came apart in a week", "has a few scratches", "is brown", "feels soft and warm", "feels like a summer cloud"],
    ),
    (
        "hem",
        [
            "came apart in the wash",
            "has a few loose threads",
            "goes round the edge",
            "is sewn well",
            "is sewn like a work of art",
        ],
    ),
    ("size", ["is a cruel joke", "is a little small", "is as it says", "is just right", "could not be better"]),
];

/// Phrases for any part, rated −2 to 2. `{be}` stands for `is` or `are`.
const ANY: [[&str; 3]; 5] = [
    ["{be} a disaster", "{be} the worst that I have seen", "{be} beyond repair"],
    ["could be better", "{be} a little clumsy", "{be} not quite right"],
    ["{be} as one would expect", "{be} neither good nor bad", "{be} all right"],
    ["{be} well made", "{be} a pleasure to use", "{be} better than I thought"],
    ["{be} a delight", "{be} the best that I have seen", "{be} simply perfect"],
];

/// Verdicts on the whole, rated −2 to 2.
const VERDICTS: [[&str; 3]; 5] = [
    ["I want my money back.", "Do not buy it.", "It went straight into the bin."],
    ["I would not buy it again.", "I had hoped for more.", "There are better ones."],
    ["It will do.", "I have no strong feelings about it.", "You get what you pay for."],
    ["I am glad that I bought it.", "I can recommend it.", "It was worth the money."],
    ["I love it.", "Buy it at once.", "I would not part with it for the world."],
];

/// Words that may stand before a sentence.
const OPENERS: &[&str] = &["I must say that", "To be fair,", "So far", "My friends say that"];

/// Parts in the plural, which take "are".
const PLURALS: &[&str] = &["straps", "pockets", "sleeves", "poles", "legs", "brakes"];

/// The value of a sentence that means nothing here: the worst.
const NONSENSE: f64 = -2.0;

/// The value of a sentence about a part that was rated before, and of a second verdict.
const AGAIN: f64 = -1.0;

/// The penalty of a review that does not end with a verdict.
const NO_VERDICT: f64 = 1.0;

/// A review with its prompt and its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// For example `Review of the blue kettle:`.
    pub prompt: String,
    /// The sentences, each after a space.
    pub completion: String,
    /// The gold score, by [`score`].
    pub score: f64,
}

/// A prompt for a review, drawn from the stream.
pub fn prompt(stream: &mut Stream) -> String {
    let (adjective, thing) = subject(stream);
    format!("Review of the {adjective} {}:", thing.name)
}

/// All prompts, in a fixed order.
pub fn prompts() -> Vec<String> {
    let all = THINGS.iter().flat_map(|thing| ADJECTIVES.iter().map(move |adjective| (adjective, thing.name)));
    all.map(|(adjective, name)| format!("Review of the {adjective} {name}:")).collect()
}

/// Draws a review of the supervised set.
pub fn review(stream: &mut Stream) -> Review {
    let (adjective, thing) = subject(stream);
    let prompt = format!("Review of the {adjective} {}:", thing.name);
    let completion = sentences(thing, stream);
    let score = score(&prompt, &completion);
    Review { prompt, completion, score }
}

/// Draws another review for a prompt of this grammar. Any other prompt gets a review of a random thing.
pub fn answer(prompt: &str, stream: &mut Stream) -> Review {
    let known = subject_of(prompt);
    let thing = known.unwrap_or_else(|| subject(stream).1);
    let completion = sentences(thing, stream);
    Review { prompt: prompt.to_owned(), score: score(prompt, &completion), completion }
}

/// Draws a text to train a base model on: opinions under headings that the supervised set does not use, and plain
/// descriptions as in a catalogue.
pub fn document(stream: &mut Stream) -> String {
    let (adjective, thing) = subject(stream);
    let name = thing.name;
    match stream.random_range(0..8) {
        0 => format!("For sale: one {adjective} {name} with {}.", listing(&some_parts(thing, stream))),
        1 => {
            let parts = some_parts(thing, stream);
            let (verb, part) = (if is_plural(parts[0]) { "are" } else { "is" }, parts[0]);
            format!(
                "Question: how {verb} the {part} of the {adjective} {name}? Answer: {}",
                sentence(part, level(stream), "", stream)
            )
        }
        kind => {
            let heading = match kind {
                2 | 3 => format!("Notes on the {adjective} {name}:"),
                4 | 5 => format!("What a friend said about the {adjective} {name}:"),
                _ => format!("The {adjective} {name}, a letter to the shop:"),
            };
            format!("{heading}{}", sentences(thing, stream))
        }
    }
}

/// The gold score of a completion of this prompt, −3 to 2: the mean rating of its sentences, minus 1 if it does not end
/// with a verdict. A sentence that the grammar does not know, or about a part that the thing does not have, counts −2.
/// A sentence about a part that was rated before, or a second verdict, counts −1. An empty completion has −3.
pub fn score(prompt: &str, completion: &str) -> f64 {
    let parts = subject_of(prompt).map_or(&[][..], |thing| thing.parts);
    let mut spoken: Vec<&str> = Vec::new();
    let mut values = Vec::new();
    let mut verdict_last = false;
    for sentence in completion.split_inclusive('.').map(str::trim).filter(|sentence| !sentence.is_empty()) {
        let meaning = meaning(sentence);
        verdict_last = matches!(meaning, Some((None, _)));
        let part = meaning.map(|(part, _)| part.unwrap_or("verdict"));
        values.push(match meaning {
            None => NONSENSE,
            Some((Some(part), _)) if !parts.contains(&part) => NONSENSE,
            Some(_) if part.is_some_and(|part| spoken.contains(&part)) => AGAIN,
            Some((_, level)) => f64::from(level),
        });
        spoken.extend(part);
    }
    let mean = if values.is_empty() { NONSENSE } else { values.iter().sum::<f64>() / values.len() as f64 };
    mean - if verdict_last { 0.0 } else { NO_VERDICT }
}

/// The part that a sentence rates (`None` for a verdict on the whole) and its rating, −2 to 2. `None` for a sentence
/// that the grammar never writes.
pub fn meaning(sentence: &str) -> Option<(Option<&'static str>, i32)> {
    static VERDICT: LazyLock<HashMap<&str, i32>> = LazyLock::new(|| graded(&VERDICTS).collect());
    static CLAIM: LazyLock<HashMap<String, (&str, i32)>> = LazyLock::new(|| {
        let said = PARTS.iter().flat_map(|(part, own)| {
            let own = own
                .iter()
                .enumerate()
                .map(move |(grade, words)| (format!("{part} {words}"), (*part, grade as i32 - 2)));
            own.chain(
                graded(&ANY).map(move |(words, level)| (format!("{part} {}", conjugated(words, part)), (*part, level))),
            )
        });
        said.collect()
    });
    if let Some(&level) = VERDICT.get(sentence) {
        return Some((None, level));
    }
    let body = sentence.strip_suffix('.')?;
    let body = body.strip_suffix(", though").unwrap_or(body);
    let claim = match body.strip_prefix("The ") {
        Some(claim) => claim,
        None => OPENERS.iter().find_map(|opener| body.strip_prefix(opener))?.strip_prefix(" the ")?,
    };
    CLAIM.get(claim).map(|&(part, level)| (Some(part), level))
}

/// The phrases with their ratings.
fn graded<const N: usize>(words: &'static [[&'static str; N]; 5]) -> impl Iterator<Item = (&'static str, i32)> {
    words.iter().zip(-2..).flat_map(|(same, level)| same.iter().map(move |&words| (words, level)))
}

fn is_plural(part: &str) -> bool {
    PLURALS.contains(&part)
}

fn conjugated(words: &str, part: &str) -> String {
    words.replace("{be}", if is_plural(part) { "are" } else { "is" })
}

fn subject(stream: &mut Stream) -> (&'static str, &'static Thing) {
    (pick(ADJECTIVES, stream), &THINGS[stream.random_range(0..THINGS.len())])
}

/// The thing that a prompt asks about.
fn subject_of(prompt: &str) -> Option<&'static Thing> {
    let name = prompt.trim_end_matches(':').rsplit(' ').next()?;
    THINGS.iter().find(|thing| thing.name == name)
}

fn pick<'a>(from: &[&'a str], stream: &mut Stream) -> &'a str {
    from[stream.random_range(0..from.len())]
}

/// A rating from −2 to 2, drawn uniformly.
fn level(stream: &mut Stream) -> i32 {
    stream.random_range(-2..=2)
}

/// A rating in this mood, mostly the same.
fn level_in(mood: i32, stream: &mut Stream) -> i32 {
    let swing = match stream.random_range(0..8) {
        0 => -1,
        1 => 1,
        2 => level(stream) - mood,
        _ => 0,
    };
    (mood + swing).clamp(-2, 2)
}

/// Two or three parts, in random order.
fn some_parts(thing: &Thing, stream: &mut Stream) -> Vec<&'static str> {
    let mut parts = thing.parts.to_vec();
    let count = stream.random_range(2..=3);
    for i in 0..count {
        let other = stream.random_range(i..parts.len());
        parts.swap(i, other);
    }
    parts.truncate(count);
    parts
}

/// The parts as an English list without articles, such as "lid, spout and handle".
fn listing(parts: &[&str]) -> String {
    match parts {
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
        [] => String::new(),
    }
}

/// The sentences of a review, each after a space: two or three parts in one mood, then the verdict.
fn sentences(thing: &Thing, stream: &mut Stream) -> String {
    let mood = level(stream);
    let parts = some_parts(thing, stream);
    let mut text = String::new();
    let mut levels: Vec<i32> = Vec::new();
    for part in parts {
        let level = level_in(mood, stream);
        // "Though" where a good rating follows a bad one, or the other way round.
        let turns = levels.last().is_some_and(|&before| before * level < 0);
        text.push(' ');
        text.push_str(&sentence(part, level, if turns { ", though" } else { "" }, stream));
        levels.push(level);
    }
    let mean = f64::from(levels.iter().sum::<i32>()) / levels.len() as f64;
    let verdict = VERDICTS[(mean.round() + 2.0) as usize];
    text.push(' ');
    text.push_str(pick(&verdict, stream));
    text
}

/// One sentence about a part.
fn sentence(part: &str, level: i32, end: &str, stream: &mut Stream) -> String {
    let grade = (level + 2) as usize;
    let own = PARTS.iter().find(|(name, _)| *name == part).map(|(_, words)| words[grade]);
    let words = match own {
        Some(own) if stream.random_bool(0.5) => own.to_owned(),
        _ => conjugated(pick(&ANY[grade], stream), part),
    };
    match stream.random_bool(0.2) {
        true => format!("{} the {part} {words}{end}.", pick(OPENERS, stream)),
        false => format!("The {part} {words}{end}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flipside_core::Seed;
    use std::collections::BTreeSet;

    #[test]
    fn every_part_has_words_and_every_word_one_meaning() {
        for part in THINGS.iter().flat_map(|thing| thing.parts) {
            assert!(PARTS.iter().any(|(name, _)| name == part), "{part}");
        }
        let mut seen = HashMap::new();
        for (part, own) in PARTS {
            let own = own.iter().enumerate().map(|(grade, words)| ((*words).to_owned(), grade as i32 - 2));
            let any = graded(&ANY).map(|(words, level)| (conjugated(words, part), level));
            // A phrase for any part may be one of the part's own, too, if the rating is the same.
            for (words, level) in own.chain(any) {
                let before = seen.insert(format!("{part} {words}"), level);
                assert!(before.is_none_or(|before| before == level), "{part} {words}");
                for sentence in [format!("The {part} {words}."), format!("To be fair, the {part} {words}, though.")] {
                    assert_eq!(meaning(&sentence), Some((Some(*part), level)), "{sentence}");
                }
            }
        }
        for (verdict, level) in graded(&VERDICTS) {
            assert_eq!(meaning(verdict), Some((None, level)));
        }
        for nonsense in
            ["", ".", "The.", "the lid closes.", "The lid closes", "The lid is.", "So far", "The kettle closes."]
        {
            assert_eq!(meaning(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn scores_are_the_mean_of_what_is_said() {
        let kettle = "Review of the blue kettle:";
        for (completion, expected) in [
            (" The lid closes with a soft click. I love it.", 2.0),
            (" The lid came off on the first day. The spout leaks all over the table. Do not buy it.", -2.0),
            (" The lid closes well. The spout drips now and then, though. It will do.", 0.0),
            // No verdict at the end: one less.
            (" The lid closes well. The spout pours well.", 0.0),
            (" I love it. The lid closes with a soft click.", 1.0),
            // A kettle has neither wheels nor a seat.
            (" The wheels are a delight. I love it.", 0.0),
            (" The seat is a delight. I love it.", 0.0),
            // Saying it twice does not help.
            (" The lid is a delight. The lid is a delight. I love it.", 1.0),
            (" I love it. I love it. I love it.", 0.0),
            // Cut short.
            (" The lid is a delight. I lo", -1.0),
            ("", -3.0),
        ] {
            assert!(
                (score(kettle, completion) - expected).abs() < 1e-12,
                "{completion}: {}",
                score(kettle, completion)
            );
        }
    }

    #[test]
    fn reviews_keep_the_grammars_laws() {
        let mut stream = Seed(3).stream("reviews");
        let reviews: Vec<Review> = (0..5_000).map(|_| review(&mut stream)).collect();
        for review in &reviews {
            assert!(review.completion.starts_with(' ') && review.completion.ends_with('.'));
            assert!((-2.0..=2.0).contains(&review.score), "{review:?}");
            let sentences: Vec<_> = review.completion.split_inclusive('.').map(|s| meaning(s.trim())).collect();
            assert!(sentences.iter().all(Option::is_some), "{}", review.completion);
            let (verdict, parts) = sentences.split_last().unwrap();
            let levels: Vec<i32> = parts.iter().map(|part| part.unwrap().1).collect();
            let mean = levels.iter().sum::<i32>() as f64 / levels.len() as f64;
            // The verdict is the rounded mean of the ratings of parts, and the score is the mean of all ratings.
            assert_eq!(*verdict, Some((None, mean.round() as i32)), "{}", review.completion);
            let all = (f64::from(levels.iter().sum::<i32>()) + mean.round()) / (levels.len() + 1) as f64;
            assert!((all - review.score).abs() < 1e-12);
        }
        // All moods occur, and few reviews are the same.
        let mean = reviews.iter().map(|review| review.score).sum::<f64>() / 5_000.0;
        assert!(mean.abs() < 0.1, "{mean}");
        let spread = reviews.iter().filter(|review| review.score.abs() > 1.0).count();
        assert!((1_200..3_800).contains(&spread), "{spread}");
        let distinct: BTreeSet<&str> = reviews.iter().map(|review| review.completion.as_str()).collect();
        assert!(distinct.len() > 4_500, "{}", distinct.len());
        assert_eq!(prompts().len(), THINGS.len() * ADJECTIVES.len());
        assert!(prompts().contains(&reviews[0].prompt));
        // Other answers to a prompt are about the same thing.
        for review in reviews.iter().take(300) {
            let other = answer(&review.prompt, &mut stream);
            assert_eq!(other.prompt, review.prompt);
            assert!((-2.0..=2.0).contains(&other.score) && !other.completion.is_empty(), "{other:?}");
            assert!(subject_of(&review.prompt).is_some());
        }
    }

    #[test]
    fn one_seed_writes_one_set_and_the_base_learns_from_another() {
        let write = |seed: u64| -> Vec<String> {
            let mut stream = Seed(seed).stream("documents");
            (0..500).map(|_| document(&mut stream)).collect()
        };
        assert_eq!(write(1), write(1));
        assert_ne!(write(1), write(2));
        let heads = |text: &str| text.starts_with("Review of");
        assert!(!write(1).iter().any(|text| heads(text)));
    }
}
