//! How consistent a teacher is: the same pair, asked again with its sides swapped, should get the same answer.

use flipside_core::{Choice, ItemId};
use std::collections::HashMap;

/// The share of repeated answers that agree with the previous answer to the same pair, and the number of repeated
/// answers; `None` if no pair was answered twice. It does not matter which side each item was on. A skip (“cannot
/// tell”) does not count.
///
/// `answers` are the items shown left and right, and the answer, oldest first.
pub fn consistency(answers: impl IntoIterator<Item = ([ItemId; 2], Choice)>) -> Option<(f64, usize)> {
    let mut last: HashMap<[ItemId; 2], f32> = HashMap::new();
    let (mut same, mut count) = (0_usize, 0_usize);
    for ([left, right], choice) in answers {
        let Some(target) = choice.target() else { continue };
        let (pair, first) = if left <= right { ([left, right], target) } else { ([right, left], 1.0 - target) };
        if let Some(before) = last.insert(pair, first) {
            count += 1;
            same += usize::from(before == first);
        }
    }
    (count > 0).then(|| (same as f64 / count as f64, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_answer_is_the_same_item_and_not_the_same_side() {
        let ask = |left: u64, right: u64, choice| ([ItemId(left), ItemId(right)], choice);
        assert_eq!(consistency([ask(1, 2, Choice::Left), ask(3, 4, Choice::Left)]), None);
        let steady = [ask(1, 2, Choice::Left), ask(2, 1, Choice::Right), ask(1, 2, Choice::Left)];
        assert_eq!(consistency(steady), Some((1.0, 2)));
        // A teacher who always answers “left” is never consistent when the sides are swapped.
        let lazy = [ask(1, 2, Choice::Left), ask(2, 1, Choice::Left), ask(2, 1, Choice::Left)];
        assert_eq!(consistency(lazy), Some((0.5, 2)));
        let skips = [ask(1, 2, Choice::Tie), ask(2, 1, Choice::Skip), ask(2, 1, Choice::Tie)];
        assert_eq!(consistency(skips), Some((1.0, 1)));
    }
}
