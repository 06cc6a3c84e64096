//! The judgement log against a plain model of it, for random sequences of answers and retractions.

use flipside_core::{Choice, Judgement, JudgementId, LogEntry, PairId, standing};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// What a person does.
#[derive(Clone, Debug)]
enum Act {
    /// Answers a pair.
    Judge(u64, Choice),
    /// Takes back an answer: a place among all given so far, also one that was taken back before.
    Retract(prop::sample::Index),
    /// Takes back an answer that was never given.
    RetractUnknown(u64),
}

fn act() -> impl Strategy<Value = Act> {
    use Choice::*;
    let choice = prop::sample::select(vec![Left, Right, MuchLeft, MuchRight, Tie, Skip]);
    prop_oneof![
        3 => (0..20_u64, choice).prop_map(|(pair, choice)| Act::Judge(pair, choice)),
        2 => any::<prop::sample::Index>().prop_map(Act::Retract),
        1 => (1000..2000_u64).prop_map(Act::RetractUnknown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// What stands is what was answered and not taken back, in the order of the answers, at every length of the log.
    #[test]
    fn what_stands_is_what_was_not_taken_back(acts in vec(act(), 0..60)) {
        let mut log: Vec<LogEntry> = Vec::new();
        let mut answers: Vec<(Judgement, bool)> = Vec::new();
        for (at_ms, act) in (0..).zip(acts) {
            match act {
                Act::Judge(pair, choice) => {
                    let id = JudgementId(answers.len() as u64);
                    let teacher = "person".to_owned();
                    let judgement = Judgement { id, pair: PairId(pair), choice, teacher, at_ms, thinking_ms: 900 };
                    log.push(LogEntry::Judged(judgement.clone()));
                    answers.push((judgement, true));
                }
                Act::Retract(which) if !answers.is_empty() => {
                    let (judgement, stands) = which.get_mut(&mut answers);
                    *stands = false;
                    log.push(LogEntry::Retracted { judgement: judgement.id, at_ms });
                }
                Act::Retract(_) => {}
                Act::RetractUnknown(id) => log.push(LogEntry::Retracted { judgement: JudgementId(id), at_ms }),
            }
            let expected: Vec<&Judgement> = answers.iter().filter(|(_, stands)| *stands).map(|(j, _)| j).collect();
            prop_assert_eq!(standing(&log), expected);
        }
    }
}
