use super::*;
use std::path::PathBuf;

fn asked(text: &str) -> Asked {
    Asked::assignments(text).unwrap_or_else(|why| panic!("{why}"))
}

/// The settings of a session that is reopened with these, or the reason why they are refused.
fn again(stored: &RunSettings, asks: &str) -> Result<RunSettings, String> {
    let opener = RunSettings { asked: asked(asks), ..stored.clone() };
    go_on(stored, &opener, None).map_err(|error| error.to_string())
}

fn stored(run: RunSettings, set: &str) -> RunSettings {
    let folder = Some(PathBuf::from("/sessions/one"));
    RunSettings { folder, asked: Asked::default(), ..run.with(&asked(set)).unwrap() }
}

#[test]
fn a_robots_session_says_what_differs_and_takes_a_longer_plan() {
    let session = stored(RunSettings::of_control(ControlRun::of("hopper")), "ppo.horizon = 128; teacher = oracle");
    assert_eq!(again(&session, ""), Ok(session.clone()));
    // The session has all of these, under any of the task's names: some were set, some are from the file, some are
    // defaults.
    let same =
        "task = Hopper-v5; ppo.horizon = 128; ppo.gamma = 0.99; labels.lead = 1; env_steps = 2e6; horizon = 1000";
    assert_eq!(again(&session, same), Ok(session.clone()));

    let longer = again(&session, "num_labels = 300; env_steps = 3e6; teacher = hasty; answer_seconds = 2").unwrap();
    assert_eq!((longer.labels, longer.env_steps, longer.answer_seconds), (300, 3_000_000, 2.0));
    assert_eq!((longer.teacher, &longer.mode), (TeacherKind::named("hasty").unwrap(), &session.mode));

    let refusal = again(&session, "ppo.num_steps = 64; seed = 3; num_labels = 100; task = walker2d").unwrap_err();
    assert_eq!(
        refusal,
        "The session in /sessions/one has other settings: `ppo.num_steps` is 128 there, and 64 is asked for; `seed` is 0 there, and 3 is \
         asked for; `num_labels` is 200 there, and 100 is asked for; `task` is \"hopper\" there, and \"walker2d\" is asked for. Leave them out to go on with \
         what it has, or name another folder for a new one."
    );
    assert!(again(&session, "text.until = ppo").unwrap_err().contains("teaches a robot"));
}

#[test]
fn stages_of_text_that_have_not_begun_take_what_they_are_told() {
    let run = RunSettings::of_text(TextRun::default());
    let session = stored(run, "text.until = supervised; text.supervised.batch = 4");
    let on = "text.until = ppo; text.ppo.batch = 8; text.updates = 20; text.lora.rank = 4; text.prompts = p.jsonl";
    let further = again(&session, on).unwrap();
    let text = further.text().unwrap();
    assert_eq!((text.until, text.updates, text.ppo.batch_size, text.ppo.minibatch_size), (TextStage::Ppo, 20, 8, 8));
    assert_eq!((text.lora.as_ref().unwrap().rank, text.supervised.batch_size), (4, 4));
    assert_eq!(further.env_steps, text.steps());
    assert_eq!(again(&session, "text.supervised_steps = 900").unwrap().text().unwrap().supervised_steps, 900);

    for (asks, name) in [
        ("text.until = ppo; text.supervised.batch_size = 8", "text.supervised.batch_size"),
        ("text.until = base", "text.until"),
        ("text.model = elsewhere", "text.model"),
        ("text.lora.rank = 4", "text.lora.rank"),
        ("text.supervised_steps = 700", "text.supervised_steps"),
        ("text.precision = bf16", "text.precision"),
    ] {
        let refusal = again(&session, asks).unwrap_err();
        assert!(refusal.contains(&format!("`{name}` is ")), "{asks}: {refusal}");
    }
    assert!(again(&session, "task = hopper").unwrap_err().contains("teaches a language model"));
}

#[test]
fn who_answers_is_the_sessions_unless_somebody_says() {
    let session = stored(RunSettings::default(), "teacher = hasty");
    let teacher = |asks: &str, usual: TeacherKind| {
        let opener = RunSettings { teacher: usual, asked: asked(asks), ..session.clone() };
        go_on(&session, &opener, None).unwrap().teacher
    };
    assert_eq!(teacher("", TeacherKind::Oracle), session.teacher, "without a window it goes on");
    assert_eq!(teacher("", TeacherKind::Person), TeacherKind::Person, "at the desk a person answers");
    assert_eq!(teacher("teacher = hasty", TeacherKind::Person), session.teacher);
    let by_hand = RunSettings { teacher: TeacherKind::Person, ..session.clone() };
    let opener = RunSettings { teacher: TeacherKind::Oracle, ..by_hand.clone() };
    assert_eq!(go_on(&by_hand, &opener, None).unwrap().teacher, TeacherKind::Oracle, "nobody sits at a terminal");
}
