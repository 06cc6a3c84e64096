//! Drives the desk as a person with a screen reader would: through the accessibility tree, against a scripted lab.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod scripted;

use egui::accesskit::Role;
use egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};
use flipside::app::DeskOptions;
use flipside::app::{Desk, DeskCommand, Menu};
use flipside::lab::{
    Command, DisputedView, Event, Inside, InsideField, InsideView, Link, LookModels, LookPlan, LookWhat, Phase,
    Snapshot, TeacherKind, TextStage, look,
};
use flipside::settings::{PreferenceLoss, RunSettings, TextRun};
use flipside_core::{Choice, JudgementId};
use scripted::{Lab, TextSnapshot, judgement};
use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A desk of 1280 × 800 points in front of `lab`, with the lab opened.
fn sit_down(lab: &Lab) -> Harness<'static, ()> {
    let harness = sit_down_to(lab, "Pause clips");
    assert_eq!(lab.heard(), [], "a lab that trains is not told to start");
    harness
}

/// The same in text mode.
fn sit_down_to_text(lab: &Lab) -> Harness<'static, ()> {
    sit_down_to(lab, LEFT)
}

/// The name of the left completion.
const LEFT: &str = "Left completion: click to choose it";

/// The same, waiting until a widget of this name exists.
fn sit_down_to(lab: &Lab, label: &str) -> Harness<'static, ()> {
    sit_down_with(lab.options(), label)
}

/// The same with any lab.
fn sit_down_with(options: DeskOptions, label: &str) -> Harness<'static, ()> {
    let slot = Rc::new(RefCell::new(None::<Desk>));
    let made = slot.clone();
    let mut harness = Harness::builder()
        // A form takes some frames to find its size.
        .with_max_steps(16)
        .with_size([1280.0, 800.0])
        .with_context_setup(move |ctx| *made.borrow_mut() = Some(Desk::new(ctx, options, None)))
        .build_ui(move |ui| {
            let mut desk = slot.borrow_mut();
            let desk = desk.as_mut().unwrap();
            desk.logic(ui.ctx());
            desk.ui(ui);
        });
    wait_for(&mut harness, label);
    harness
}

/// Steps until a widget of this name exists.
fn wait_for(harness: &mut Harness<'_>, label: &str) {
    let patience = Instant::now() + Duration::from_secs(20);
    while harness.query_all_by_label(label).next().is_none() {
        assert!(Instant::now() < patience, "nothing called {label:?} appeared");
        std::thread::sleep(Duration::from_millis(2));
        harness.step();
    }
    harness.run();
}

fn click_button(harness: &mut Harness<'_>, label: &str) {
    harness.get_by_role_and_label(Role::Button, label).click();
    harness.run();
}

/// Starts the run of the form, and waits until its lab is open. Until then something spins, so that the desk does not
/// settle.
fn start_run(harness: &mut Harness<'_>, lab: &Lab) {
    let opened = lab.script().opened.len();
    harness.get_by_role_and_label(Role::Button, "Start run").click();
    let patience = Instant::now() + Duration::from_secs(20);
    while lab.script().opened.len() == opened {
        assert!(Instant::now() < patience, "nothing was started");
        harness.step();
        std::thread::sleep(Duration::from_millis(2));
    }
    // What was on show before is gone with this step.
    harness.step();
    wait_for(harness, LEFT);
}

fn press(harness: &mut Harness<'_>, key: Key) {
    harness.key_press(key);
    harness.run();
}

#[test]
fn every_way_to_answer_sends_the_same_judgement_and_brings_the_next_pair() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    let ways: [(Key, &str, Choice); 4] = [
        (Key::ArrowLeft, "Left better", Choice::Left),
        (Key::ArrowRight, "Right better", Choice::Right),
        (Key::ArrowUp, "Tie", Choice::Tie),
        (Key::ArrowDown, "Skip", Choice::Skip),
    ];
    let mut pair = 1;
    let mut expect = |lab: &Lab, choice: Choice| {
        let heard: Vec<_> = lab.heard().iter().map(judgement).collect();
        assert_eq!(heard, [Some((pair, choice))]);
        pair += 1;
    };
    for (key, label, choice) in ways {
        press(&mut harness, key);
        expect(&lab, choice);
        click_button(&mut harness, label);
        expect(&lab, choice);
        harness.get_by_role_and_label(Role::Button, label).click_accesskit();
        harness.run();
        expect(&lab, choice);
        harness.get_by_label("Answer").click();
        harness.run();
        harness.get_by_role_and_label(Role::MenuItem, label).click();
        harness.run();
        expect(&lab, choice);
    }
    let views = ["Left clip: click to choose it", "Right clip: click to choose it"];
    for (view, choice) in views.into_iter().zip([Choice::Left, Choice::Right]) {
        click_button(&mut harness, view);
        expect(&lab, choice);
    }
    // With Shift, the answer is “much better”.
    let much = [Choice::MuchLeft, Choice::MuchRight];
    for ((view, key), choice) in views.into_iter().zip([Key::ArrowLeft, Key::ArrowRight]).zip(much) {
        harness.key_press_modifiers(egui::Modifiers::SHIFT, key);
        harness.run();
        expect(&lab, choice);
        let button = if choice == Choice::MuchLeft { "Left better" } else { "Right better" };
        for label in [view, button] {
            harness.get_by_role_and_label(Role::Button, label).click_modifiers(egui::Modifiers::SHIFT);
            harness.run();
            expect(&lab, choice);
        }
    }
}

#[test]
fn a_double_click_or_a_held_key_answers_once() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    let view = harness.get_by_label("Left clip: click to choose it");
    view.click();
    view.click();
    // All four events of the two clicks fall within a few milliseconds of egui time.
    harness.input_mut().time = Some(100.0);
    for _ in 0..8 {
        harness.input_mut().time = harness.input().time.map(|t| t + 0.01);
        harness.step();
    }
    assert_eq!(lab.heard().iter().filter_map(judgement).collect::<Vec<_>>(), [(1, Choice::Left)]);

    for _ in 0..5 {
        harness.key_down(Key::ArrowRight);
    }
    harness.key_up(Key::ArrowRight);
    harness.run();
    assert_eq!(lab.heard().iter().filter_map(judgement).collect::<Vec<_>>(), [(2, Choice::Right)]);
}

#[test]
fn nothing_is_answered_while_there_is_nothing_to_answer() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    // While the lab has not replied, the same pair must not be answered twice.
    lab.script().answers = false;
    press(&mut harness, Key::ArrowLeft);
    press(&mut harness, Key::ArrowRight);
    click_or_ignore(&mut harness, "Tie");
    assert_eq!(lab.heard().iter().map(judgement).collect::<Vec<_>>(), [Some((1, Choice::Left))]);

    // No pair is ready.
    lab.script().snapshot.pair = None;
    harness.run();
    for key in [Key::ArrowLeft, Key::ArrowRight, Key::ArrowUp, Key::ArrowDown] {
        press(&mut harness, key);
    }
    assert_eq!(lab.heard(), []);

    // The next pair can be answered again.
    lab.script().snapshot.pair = Some(scripted::pair(7));
    harness.run();
    press(&mut harness, Key::ArrowUp);
    assert_eq!(lab.heard().iter().map(judgement).collect::<Vec<_>>(), [Some((7, Choice::Tie))]);
}

/// Clicks a button, whether or not it is enabled.
fn click_or_ignore(harness: &mut Harness<'_>, label: &str) {
    harness.get_by_role_and_label(Role::Button, label).click();
    harness.run();
}

#[test]
fn undo_asks_the_same_pair_again() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    press(&mut harness, Key::ArrowLeft);
    press(&mut harness, Key::Z);
    press(&mut harness, Key::ArrowRight);
    let heard = lab.heard();
    assert_eq!(judgement(&heard[0]), Some((1, Choice::Left)));
    assert_eq!(heard[1], Command::Undo);
    assert_eq!(judgement(&heard[2]), Some((1, Choice::Right)));

    // Undo also works if no other pair was shown in between.
    let mut script = lab.script();
    script.answers = false;
    let id = script.snapshot.pair.as_ref().unwrap().id;
    drop(script);
    harness.run();
    press(&mut harness, Key::ArrowLeft);
    lab.script().events.push(Event::Retracted { pair: id });
    harness.run();
    press(&mut harness, Key::ArrowLeft);
    assert_eq!(lab.heard().iter().filter(|c| judgement(c) == Some((id.0, Choice::Left))).count(), 2);
}

#[test]
fn training_pauses_and_goes_on_and_a_fault_is_told() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    click_button(&mut harness, "Pause training");
    assert_eq!(lab.heard(), [Command::Pause]);
    harness.get_by_label("Training is paused; your answers still count.");
    // Answers still count meanwhile.
    press(&mut harness, Key::ArrowLeft);
    assert_eq!(lab.heard().len(), 1);
    click_button(&mut harness, "Go on training");
    press(&mut harness, Key::T);
    assert_eq!(lab.heard(), [Command::Start, Command::Pause]);

    let sentence = "The policy's loss is not a number; lower the learning rate and go on from the last checkpoint.";
    lab.script().snapshot.phase = Phase::Faulted;
    lab.script().snapshot.fault = Some(sentence.to_owned());
    harness.run();
    harness.get_by_label(sentence);
}

#[test]
fn the_clock_obeys_its_keys_and_buttons() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    let chosen = |harness: &Harness<'_>, label: &str| {
        let node = harness.get_by_role_and_label(Role::RadioButton, label);
        node.accesskit_node().toggled() == Some(egui::accesskit::Toggled::True)
    };
    assert!(chosen(&harness, "Play at 1/3 speed"));
    press(&mut harness, Key::Num6);
    assert!(chosen(&harness, "Play at 2× speed"));
    harness.get_by_role_and_label(Role::RadioButton, "Play at 1/8 speed").click();
    harness.run();
    assert!(chosen(&harness, "Play at 1/8 speed"));
    press(&mut harness, Key::Space);
    harness.get_by_label("Play clips");
    press(&mut harness, Key::Period);
    press(&mut harness, Key::Space);
    harness.get_by_label("Pause clips");
    assert_eq!(lab.heard(), [], "the clock is the desk's own affair");
}

#[test]
fn the_help_window_and_the_menus_list_every_command() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    press(&mut harness, Key::F1);
    for command in DeskCommand::ALL {
        let label = command.spec().label;
        assert!(harness.query_by_role_and_label(Role::Label, label).is_some(), "help does not list {label:?}");
        let key = command.key_text();
        assert!(key.is_empty() || harness.query_all_by_label(&key).next().is_some(), "help does not show {key:?}");
    }
    press(&mut harness, Key::Escape);
    assert!(harness.query_by_role_and_label(Role::Label, "Left better").is_none());
    for menu in Menu::ALL {
        harness.get_by_role_and_label(Role::Button, menu.title()).click();
        harness.run();
        for command in DeskCommand::ALL.into_iter().filter(|c| c.spec().menu == menu) {
            let mut entries = harness.query_all_by_label(command.spec().label);
            let found = entries.any(|n| matches!(n.accesskit_node().role(), Role::MenuItem | Role::MenuItemCheckBox));
            assert!(found, "{} is not in {}", command.spec().label, menu.title());
        }
        press(&mut harness, Key::Escape);
    }
}

#[test]
fn the_palette_takes_the_keyboard_and_gives_the_command() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::K);
    harness.run();
    let field = harness.get_by_label("Find a command");
    field.type_text("z");
    harness.run();
    press(&mut harness, Key::ArrowDown);
    assert_eq!(lab.heard(), [], "keys typed into the palette must not answer");
    press(&mut harness, Key::Backspace);
    harness.get_by_label("Find a command").type_text("right b");
    harness.run();
    press(&mut harness, Key::Enter);
    assert_eq!(lab.heard().iter().map(judgement).collect::<Vec<_>>(), [Some((1, Choice::Right))]);
    assert!(harness.query_by_label("Find a command").is_none());
}

#[test]
fn teacher_and_robot_are_chosen_in_the_panel() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    harness.get_by_role_and_label(Role::ComboBox, "Teacher").click();
    harness.run();
    harness.get_by_label("Simulated, perfect").click();
    harness.run();
    assert_eq!(lab.heard(), [Command::SetTeacher(TeacherKind::Oracle)]);
    // A simulated teacher's preference is shown, and the person's keys answer nothing.
    let mut script = lab.script();
    script.snapshot.pair = None;
    script.snapshot.taught = Some((scripted::pair(5), Choice::Right));
    drop(script);
    harness.run();
    harness.get_by_label("The simulated teacher prefers the right");
    press(&mut harness, Key::ArrowLeft);
    assert_eq!(lab.heard(), []);

    harness.get_by_role_and_label(Role::ComboBox, "Robot").click();
    harness.run();
    harness.get_by_label("Half cheetah").click();
    // A thread opens the next lab, behind a spinner that never settles.
    harness.run_ok();
    wait_for(&mut harness, "Pause clips");
    assert_eq!(lab.heard(), [Command::Quit], "the present run is saved and closed before another begins");
    assert_eq!(lab.script().snapshot.task(), "half_cheetah");
}

/// The panel and the form for a new run both show the whole list of robots, each on its own line.
#[test]
fn every_robot_shows_in_the_picker() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    let titles: Vec<String> = lab.options().tasks.into_iter().map(|task| task.title).collect();
    assert!(titles.len() >= 11, "{titles:?}");
    for (picker, opens) in [("Robot", None), ("Robot of the new run", Some(Key::N))] {
        if let Some(key) = opens {
            harness.key_press(Key::Escape);
            harness.run();
            harness.key_press_modifiers(Modifiers::COMMAND, key);
            harness.run();
        }
        harness.get_by_role_and_label(Role::ComboBox, picker).click();
        harness.run();
        let combo = harness.get_by_role_and_label(Role::ComboBox, picker).rect();
        let screen = egui::Rect::from_min_size(egui::Pos2::ZERO, egui::vec2(1280.0, 800.0));
        let mut below = f32::NEG_INFINITY;
        for title in &titles {
            let line = harness.get_by_role_and_label(Role::Button, title).rect();
            assert!(screen.contains_rect(line) && line.top() >= below, "{picker}: {title} at {line:?}");
            assert!(line.width() <= combo.width(), "{picker}: {title} is wider than the list");
            below = line.bottom();
        }
        // A line that is scrolled out of view cannot be clicked.
        harness.get_by_role_and_label(Role::Button, &titles[titles.len() - 1]).click();
        harness.run_ok();
        wait_for(&mut harness, "Pause clips");
        let combo = harness.get_by_role_and_label(Role::ComboBox, picker);
        assert_eq!(combo.accesskit_node().value().as_deref(), titles.last().map(String::as_str), "{picker}");
    }
}

/// A disputed answer is shown in place of the question and can then be confirmed or taken back. An alarm says what to
/// do.
#[test]
fn a_disputed_answer_is_looked_at_again_and_taken_back() {
    let lab = Lab::new();
    let mut script = lab.script();
    let disputed =
        |n: u64, choice| DisputedView { judgement: JudgementId(n), pair: scripted::pair(n), choice, left: 0.2 };
    script.snapshot.disputed = std::sync::Arc::new(vec![disputed(7, Choice::Left), disputed(8, Choice::Tie)]);
    script.snapshot.alarm = Some("Answer more pairs.".to_owned());
    drop(script);
    let mut harness = sit_down(&lab);
    harness.run();
    harness.get_by_label("Answer more pairs.");
    harness.get_by_label("Disputed answer, one of 2");
    harness.get_by_label("You said left; it gives that 20 %");
    names_everything(&harness, "disputed");
    harness.get_by_label("Look again: answer 7").click();
    harness.run();
    harness.get_by_label("You preferred the left");
    // An answer that is only shown again is not given a second time.
    press(&mut harness, Key::ArrowLeft);
    assert_eq!(lab.heard(), []);
    harness.get_by_label("Take back answer 7").click();
    harness.run();
    assert_eq!(lab.heard(), [Command::Retract(JudgementId(7))]);
    assert!(harness.query_by_label("You preferred the left").is_none(), "the question is back");
    lab.script().snapshot.disputed = std::sync::Arc::new(vec![disputed(8, Choice::Tie)]);
    harness.run();
    harness.get_by_label("Keep answer 8").click();
    harness.run();
    assert_eq!(lab.heard(), [Command::Confirm(JudgementId(8))]);
}

fn names_everything(harness: &Harness<'_>, state: &str) {
    for node in harness.root().children_recursive() {
        let node = node.accesskit_node();
        let acts = node.data().supports_action(egui::accesskit::Action::Click);
        let named = node.label().is_some_and(|label| !label.trim().is_empty());
        assert!(!acts || named, "{state}: a {:?} at {:?} has no name", node.role(), node.raw_bounds());
    }
}

#[test]
fn whatever_can_be_clicked_or_focused_has_a_name() {
    let lab = Lab::new();
    let mut script = lab.script();
    script.snapshot.curves = std::sync::Arc::new(scripted::curves(400));
    script.snapshot.teacher = TeacherKind::Mistaken { rate: 0.1 };
    drop(script);
    let mut harness = sit_down(&lab);
    let check = |harness: &mut Harness<'_>, state: &str| {
        harness.run();
        names_everything(harness, state);
    };
    check(&mut harness, "at rest");
    for tab in ["Reward model", "Policy"] {
        harness.get_by_role_and_label(Role::Tab, tab).click();
        check(&mut harness, tab);
    }
    for menu in Menu::ALL {
        harness.get_by_role_and_label(Role::Button, menu.title()).click();
        check(&mut harness, menu.title());
        harness.key_press(Key::Escape);
    }
    harness.key_press_modifiers(Modifiers::COMMAND, Key::N);
    check(&mut harness, "new run");
    harness.get_by_role_and_label(Role::Button, "Cancel").click();
    harness.run();
    harness.key_press(Key::F1);
    check(&mut harness, "help");
}

#[test]
fn every_way_to_answer_judges_completions_too() {
    let lab = Lab::of_text();
    let mut harness = sit_down_to_text(&lab);
    let judged = |lab: &Lab| lab.heard().iter().map(judgement).collect::<Vec<_>>();
    harness.get_by_label("Which completion is better?");
    assert!(harness.query_by_label("Pause clips").is_none(), "a text has no clock");
    for (pair, (key, choice)) in [
        (Key::ArrowLeft, Choice::Left),
        (Key::ArrowRight, Choice::Right),
        (Key::ArrowUp, Choice::Tie),
        (Key::ArrowDown, Choice::Skip),
    ]
    .into_iter()
    .enumerate()
    {
        press(&mut harness, key);
        assert_eq!(judged(&lab), [Some((pair as u64 + 1, choice))]);
    }
    click_button(&mut harness, "Left better");
    assert_eq!(judged(&lab), [Some((5, Choice::Left))]);
    click_button(&mut harness, LEFT);
    assert_eq!(judged(&lab), [Some((6, Choice::Left))]);
    click_button(&mut harness, "Right completion: click to choose it");
    assert_eq!(judged(&lab), [Some((7, Choice::Right))]);
    press(&mut harness, Key::Z);
    assert_eq!(lab.heard(), [Command::Undo]);
    // A robot's keys do nothing here, and a pair behind another tab is not answered.
    press(&mut harness, Key::Space);
    press(&mut harness, Key::R);
    press(&mut harness, Key::F3);
    lab.heard();
    press(&mut harness, Key::ArrowLeft);
    press(&mut harness, Key::Z);
    assert_eq!(lab.heard(), []);
    press(&mut harness, Key::F2);
    press(&mut harness, Key::ArrowLeft);
    assert_eq!(judged(&lab), [Some((7, Choice::Left))]);
}

#[test]
fn the_switch_saves_a_run_and_goes_on_with_the_latest_of_the_other_mode() {
    let lab = Lab::new();
    let mut harness = sit_down(&lab);
    harness.get_by_role_and_label(Role::RadioButton, "Text").click();
    harness.run_ok();
    wait_for(&mut harness, LEFT);
    assert_eq!(lab.heard(), [Command::Quit], "the present run is saved and closed before another begins");
    let opened = lab.script().opened.clone();
    assert_eq!(opened[1], RunSettings::of_text(opened[1].text().cloned().expect("a run in text mode")));
    assert_eq!((opened[1].teacher, &opened[1].folder), (TeacherKind::Person, &None));

    // Both runs can be continued.
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Num1);
    harness.run_ok();
    wait_for(&mut harness, "Pause clips");
    let back = lab.script().opened[2].clone();
    assert_eq!((back.text().is_none(), back.folder), (true, Some(PathBuf::from("/sessions/hopper-1"))));
    harness.key_press_modifiers(Modifiers::COMMAND, Key::Num2);
    harness.run_ok();
    wait_for(&mut harness, LEFT);
    let again = lab.script().opened[3].clone();
    assert_eq!((again.text().is_some(), again.folder), (true, Some(PathBuf::from("/sessions/text-1"))));
}

#[test]
fn a_free_prompt_is_typed_without_answering_and_asks_both_models() {
    let lab = Lab::of_text();
    let mut harness = sit_down_to_text(&lab);
    harness.get_by_role_and_label(Role::Tab, "Free prompt").click();
    harness.run();
    lab.heard();
    click_or_ignore(&mut harness, "Ask both");
    assert_eq!(lab.heard(), [], "there is nothing to ask yet");
    harness.get_by_label("Free prompt, both models").click();
    harness.run();
    harness.get_by_label("Free prompt, both models").type_text("czt The hotel");
    press(&mut harness, Key::ArrowLeft);
    press(&mut harness, Key::ArrowUp);
    assert_eq!(lab.heard(), [], "keys typed into the prompt must not answer or pause");
    press(&mut harness, Key::Enter);
    assert_eq!(lab.heard(), [Command::Ask("czt The hotel".to_owned())]);
    harness.run();
    // The answers stream: the text so far is shown.
    harness.get_by_label(" The film is a wonder");
    click_button(&mut harness, "Ask both");
    assert_eq!(lab.heard(), [Command::Ask("czt The hotel".to_owned())]);
}

#[test]
fn prompts_are_edited_and_an_empty_set_is_refused() {
    let lab = Lab::of_text();
    let mut harness = sit_down_to_text(&lab);
    press(&mut harness, Key::F5);
    let label = "Prompts, one a line";
    let value = |harness: &Harness<'_>| {
        let node = harness.get_by_label(label);
        node.accesskit_node().value().unwrap_or_default()
    };
    assert!(value(&harness).starts_with("Review: The food at\nReview: We went"), "{}", value(&harness));
    harness.get_by_label("3 prompts");
    lab.heard();

    harness.get_by_label(label).focus();
    harness.run();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.run();
    press(&mut harness, Key::Backspace);
    click_button(&mut harness, "Use these prompts");
    assert_eq!(lab.heard(), []);
    harness.get_by_label("There is no prompt: write at least one line.");

    click_button(&mut harness, "Cancel");
    assert!(value(&harness).contains("My phone"));
    harness.get_by_label(label).focus();
    harness.run();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.run();
    harness.get_by_label(label).type_text("One\n\nTwo");
    harness.run();
    harness.get_by_label("2 prompts");
    click_button(&mut harness, "Use these prompts");
    assert_eq!(lab.heard(), [Command::SetPrompts(vec!["One".to_owned(), "Two".to_owned()])]);
    assert_eq!(value(&harness), "One\nTwo");
}

#[test]
fn tokens_show_their_log_ratio_and_their_colours_can_be_turned_off() {
    let lab = Lab::of_text();
    let mut harness = sit_down_to_text(&lab);
    let legend = "Legend: from less likely, orange, to likelier, blue";
    harness.get_by_label(legend);
    let text = harness.get_by_label_contains("We had the soup").rect();
    harness.hover_at(text.left_top() + egui::vec2(12.0, 10.0));
    harness.run();
    harness.get_by_label("We: log-ratio +0.97 nats");
    press(&mut harness, Key::C);
    assert!(harness.query_by_label(legend).is_none());
    harness.get_by_role_and_label(Role::CheckBox, "Colour tokens").click();
    harness.run();
    harness.get_by_label(legend);
}

#[test]
fn samples_are_asked_for_when_they_are_looked_at_and_again_as_training_goes_on() {
    let lab = Lab::of_text();
    let mut harness = sit_down_to_text(&lab);
    assert_eq!(lab.heard(), [], "nobody looks at samples");
    harness.get_by_role_and_label(Role::Tab, "Then and now").click();
    harness.run();
    assert_eq!(lab.heard(), [Command::ShowPolicy]);
    // A row must not overlap the next one.
    let first = harness.get_by_label("Review: The food at").rect();
    let answer = harness.get_by_label(" the corner was warm, and we were served at once.").rect();
    let second = harness.get_by_label("Review: We went to see").rect();
    assert!(first.contains_rect(answer) && first.bottom() <= second.top(), "{first:?}, {answer:?}, {second:?}");

    harness.input_mut().time = Some(100.0);
    harness.step();
    harness.step();
    assert_eq!(lab.heard(), [], "nothing was learnt since");
    lab.script().snapshot.env_steps += 1;
    harness.input_mut().time = Some(200.0);
    harness.step();
    harness.step();
    assert_eq!(lab.heard(), [Command::ShowPolicy]);
}

#[test]
fn the_stages_before_the_first_pair_show_how_far_they_are() {
    let lab = Lab::of_text();
    let mut script = lab.script();
    script.snapshot.pair = None;
    script.snapshot.seconds_left = Some(42.0);
    script.snapshot.change_text(|view| {
        (view.stage, view.done, view.of) = (TextStage::Supervised, 120, 200);
        view.doing = "Training the supervised model".to_owned();
    });
    drop(script);
    let mut harness = sit_down_to(&lab, "The supervised model learns to answer…");
    assert!(harness.query_all_by_label("120 of 200 steps").count() >= 2, "in the middle and in the panel");
    assert!(harness.query_all_by_label("0.41/s · 42 s left").next().is_some());
    harness.get_by_role_and_label(Role::Tab, "Then and now").click();
    harness.run();
    assert_eq!(lab.heard(), [], "there is no policy to show yet");
    // Without a gold score, only the person can answer.
    lab.script().snapshot.change_text(|view| view.has_gold = false);
    harness.run();
    harness.get_by_role_and_label(Role::ComboBox, "Teacher").click();
    harness.run();
    assert!(harness.query_by_label("Simulated, perfect").is_none());
}

#[test]
fn whatever_can_be_clicked_in_text_mode_has_a_name() {
    let lab = Lab::of_text();
    lab.script().snapshot.curves = std::sync::Arc::new(scripted::curves(400));
    let mut harness = sit_down_to_text(&lab);
    for key in [Key::F2, Key::F3, Key::F4, Key::F5, Key::F6] {
        press(&mut harness, key);
        names_everything(&harness, &format!("{key:?}"));
    }
    for tab in ["Policy", "Models"] {
        harness.get_by_role_and_label(Role::Tab, tab).click();
        harness.run();
        names_everything(&harness, tab);
    }
    harness.key_press_modifiers(Modifiers::COMMAND, Key::N);
    harness.run();
    names_everything(&harness, "new run");
}

/// Every method shows its own settings, each with a name, and the run that starts has them.
#[test]
fn a_new_text_run_learns_by_the_method_that_is_chosen() {
    let lab = Lab::of_text();
    let mut harness = sit_down_to_text(&lab);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::N);
    harness.run();
    let choose = |harness: &mut Harness<'_>, list: &str, one: &str| {
        harness.get_by_role_and_label(Role::ComboBox, list).click();
        harness.run();
        harness.get_by_role_and_label(Role::Button, one).click();
        harness.run();
    };
    let shown = |harness: &Harness<'_>, label: &str| harness.query_all_by_label(label).next().is_some();
    assert!(shown(&harness, "KL target, nats") && !shown(&harness, "Completions of each prompt"));
    for (method, has, has_not) in [
        ("DAPO", "Clip range above 1", "KL target, nats"),
        ("DPO and relatives", "Beta of the loss", "Answers of a round"),
        ("ILQL", "Expectile of V", "Beta of the loss"),
        ("Online DPO", "Answers of a round", "Expectile of V"),
    ] {
        choose(&mut harness, "Method", method);
        assert!(shown(&harness, has) && !shown(&harness, has_not), "{method}");
        assert_eq!(shown(&harness, "Loss"), matches!(method, "DPO and relatives" | "Online DPO"), "{method}");
        names_everything(&harness, method);
    }
    // Judged pairs have no meaning where the policy writes what is judged.
    let judged = "File of judged pairs: JSON lines with prompt, chosen and rejected";
    assert!(!shown(&harness, judged));
    choose(&mut harness, "Loss", "SimPO");
    start_run(&mut harness, &lab);
    let opened = lab.script().opened.last().cloned().unwrap();
    let run = opened.text().unwrap();
    assert_eq!(
        (run.until, run.from, run.preference.loss),
        (TextStage::OnlineDpo, TextStage::OnlineDpo, PreferenceLoss::Simpo)
    );
    assert_eq!((run.preference.beta(), opened.env_steps), (2.0, run.online_dpo_steps));
    run.check().unwrap();
}

/// Opens the form for a new text run and chooses a method, as a person would who waits for what appears.
fn new_text_run(lab: &Lab, method: &str) -> Harness<'static, ()> {
    let mut harness = sit_down_to_text(lab);
    harness.key_press_modifiers(Modifiers::COMMAND, Key::N);
    wait_for(&mut harness, "Start run");
    harness.get_by_role_and_label(Role::ComboBox, "Method").click();
    harness.run();
    harness.get_by_role_and_label(Role::Button, method).click();
    harness.run();
    harness
}

/// Types over what a field of this name has.
fn type_over(harness: &mut Harness<'_>, role: Role, label: &str, text: &str) {
    harness.get_by_role_and_label(role, label).focus();
    harness.run();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.run();
    harness.event(egui::Event::Text(text.to_owned()));
    harness.run();
}

/// What cannot be is said at its field, in the words of the command line, and nothing starts.
#[test]
fn a_new_text_run_that_cannot_be_says_so_at_the_setting() {
    let lab = Lab::of_text();
    let mut harness = new_text_run(&lab, "RLOO");
    // Batches of 64 are no groups of 7.
    type_over(&mut harness, Role::SpinButton, "Completions of each prompt", "7");
    press(&mut harness, Key::Enter);
    click_button(&mut harness, "Start run");
    assert_eq!(lab.script().opened.len(), 1, "nothing was started");
    let wrong = "text.ppo.batch_size must be a multiple of text.ppo.group_size, 7, not 64";
    let at = |harness: &Harness<'_>, role: Role, label: &str| harness.get_by_role_and_label(role, label).rect();
    let said = harness.get_by_label_contains(wrong).rect();
    let (batch, group) =
        (at(&harness, Role::SpinButton, "Batch"), at(&harness, Role::SpinButton, "Completions of each prompt"));
    assert!(batch.bottom() <= said.top() && said.bottom() <= group.top(), "{batch} {said} {group}");
    harness.get_by_label("Nothing was started: see what is marked above.");
    // It goes as soon as the number is another one.
    type_over(&mut harness, Role::SpinButton, "Batch", "70");
    press(&mut harness, Key::Enter);
    assert!(harness.query_by_label_contains(wrong).is_none());
    start_run(&mut harness, &lab);
    let opened = lab.script().opened.last().cloned().unwrap();
    let ppo = &opened.text().unwrap().ppo;
    assert_eq!((ppo.batch_size, ppo.group_size), (70, 7));
}

/// Reward functions are typed as on the command line, and what is wrong with one stands at the field.
#[test]
fn a_new_text_run_takes_reward_functions() {
    let lab = Lab::of_text();
    let mut harness = new_text_run(&lab, "RLOO");
    let field = "Reward functions, one a line";
    type_over(&mut harness, Role::MultilineTextInput, field, "length:..80\nregex:(");
    click_button(&mut harness, "Start run");
    assert_eq!(lab.script().opened.len(), 1, "nothing was started");
    let (said, at) = (
        harness.get_by_label_contains("the regex `(`").rect(),
        harness.get_by_role_and_label(Role::MultilineTextInput, field).rect(),
    );
    assert!(at.bottom() <= said.top() && said.top() < at.bottom() + 12.0, "{at} {said}");
    type_over(&mut harness, Role::MultilineTextInput, field, "length:..80\n\n 2*regex:good ");
    start_run(&mut harness, &lab);
    let opened = lab.script().opened.last().cloned().unwrap();
    assert_eq!(opened.text().unwrap().reward_functions, ["length:..80", "2*regex:good"]);
}

/// The panel shows what belongs to the method.
#[test]
fn the_panel_has_the_curves_of_the_method() {
    let lab = Lab::of_text();
    lab.script().snapshot.curves = std::sync::Arc::new(scripted::curves(40));
    let mut harness = sit_down_to_text(&lab);
    for (stage, curve, other) in [
        (TextStage::Ppo, "KL to reference", "Preference margin"),
        (TextStage::Preference, "Preference margin", "KL to reference"),
        (TextStage::Ilql, "Q loss", "Preference margin"),
        (TextStage::OnlineDpo, "Equal groups", "Q loss"),
    ] {
        lab.script().snapshot.change_text(|view| view.stage = stage);
        harness.run();
        assert!(harness.query_all_by_label_contains(curve).next().is_some(), "{stage:?}: {curve}");
        assert!(harness.query_all_by_label_contains(other).next().is_none(), "{stage:?}: {other}");
    }
}

/// A real lab that its test can watch, too.
struct Watched(Arc<flipside::lab::Lab>);

impl Link for Watched {
    fn send(&self, command: Command) -> bool {
        self.0.send(command)
    }

    fn events(&self) -> Vec<Event> {
        self.0.events()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot()
    }
}

fn type_into(harness: &mut Harness<'_>, label: &str, text: &str) {
    harness.get_by_label(label).focus();
    harness.run();
    harness.key_press_modifiers(Modifiers::COMMAND, Key::A);
    harness.run();
    press(harness, Key::Backspace);
    harness.get_by_label(label).type_text(text);
    harness.run();
}

/// The built-in model after two updates of PPO, looked into in the finished session. Every view is opened and read, and
/// what the lens says at the last layer is what `flipside text look` says.
#[test]
fn a_finished_session_is_looked_into() {
    let root = tempfile::tempdir().unwrap();
    let session = root.path().join("session");
    let mut run = TextRun {
        from: TextStage::Ppo,
        until: TextStage::Ppo,
        updates: 2,
        reward_functions: vec!["regex:The".to_owned()],
        ..TextRun::default()
    };
    (run.ppo.max_new_tokens, run.ppo.batch_size, run.ppo.minibatch_size) = (8, 8, 8);
    run.ppo.optimiser.learning_rate = 3e-3;
    let settings =
        RunSettings { teacher: TeacherKind::Oracle, folder: Some(session.clone()), ..RunSettings::of_text(run) };
    let lab = Arc::new(flipside::lab::Lab::open(settings.clone(), Arc::new(|| {})).unwrap());
    let began = Instant::now();
    while lab.snapshot().phase != Phase::Finished {
        assert!(began.elapsed() < Duration::from_secs(120), "{:?}", lab.snapshot());
        std::thread::sleep(Duration::from_millis(5));
    }
    let watched = lab.clone();
    let make_lab = Arc::new(move |_, _| Ok(Box::new(Watched(watched.clone())) as Box<dyn Link>));
    let options = DeskOptions { settings, make_lab, tasks: vec![], probe: None };
    let mut harness = sit_down_with(options, "Inside");
    press(&mut harness, Key::F6);
    names_everything(&harness, "before the first look");
    let prompt = "Review of the red kettle: It is";
    type_into(&mut harness, "Prompt to look into", prompt);
    press(&mut harness, Key::Enter);
    wait_for(&mut harness, "Colours from 0 to 1.00 probability");
    let found = |lab: &flipside::lab::Lab| -> Arc<Inside> { lab.snapshot().text().unwrap().inside.clone().unwrap() };
    let complete = |harness: &mut Harness<'_>, view: InsideView| {
        let patience = Instant::now() + Duration::from_secs(60);
        while !found(&lab).seen.get(&view).is_some_and(|seen| seen.complete) {
            assert!(Instant::now() < patience, "{view:?} does not end: {:?}", found(&lab).refusal);
            std::thread::sleep(Duration::from_millis(2));
            harness.step();
        }
        harness.run();
    };
    complete(&mut harness, InsideView::Lens);

    let models = LookModels { session: Some(session), ..LookModels::default() };
    let plan = LookPlan {
        models,
        what: LookWhat::Lens { mid: false, top: 1, tuned_lens: None },
        prompts: vec![prompt.to_owned()],
        others: vec![],
        tokens: None,
        completion: None,
        position: None,
        output: None,
        picture: None,
    };
    let said = look(&plan, &mut |_, _| false).unwrap();
    let last = |prefix: &str| {
        let rows = said.json[format!("{prefix}lens.top_log_probs")].as_array().unwrap();
        let probability = rows.last().unwrap().as_array().unwrap().last().unwrap()[0].as_f64().unwrap().exp();
        let start = if prefix.is_empty() { "blocks." } else { "tuned.blocks." };
        let line = said.lines.iter().rfind(|line| line.starts_with(start)).unwrap();
        (line.split('"').nth(1).unwrap().to_owned(), probability)
    };
    let blocks = said.json["lens.kl"].as_array().unwrap().len() - 1;
    let tokens = said.json["tokens"].as_array().unwrap().len();
    let cell = format!("layer {}, token {tokens} “ is”: ", blocks - 1);
    let reads = |harness: &Harness<'_>, prefix: &str| {
        let (word, probability) = last(prefix);
        let digits = usize::from(100.0 * probability < 9.95);
        let percent = format!("{cell}“{word}” {:.digits$} %", 100.0 * probability);
        assert!(harness.query_by_label(&percent).is_some(), "no cell says {percent:?}");
    };
    reads(&harness, "tuned.");
    harness.get_by_role_and_label(Role::RadioButton, "Base").click();
    harness.run();
    reads(&harness, "");
    press(&mut harness, Key::M);
    press(&mut harness, Key::M);
    harness.get_by_label_contains("change of probability");
    names_everything(&harness, "the lens");
    // The keyboard moves the chosen cell, opens and closes it.
    press(&mut harness, Key::ArrowDown);
    press(&mut harness, Key::Enter);
    harness.get_by_label_contains(&format!("layer {}, “ is”", blocks - 2));
    press(&mut harness, Key::Escape);
    assert!(harness.query_by_label("Close the details").is_none());

    for (view, tab, says) in [
        (InsideView::Contributions, "Contributions", "Block 0, head 0: base"),
        (InsideView::Attention, "Attention", "Attention of block 0 head 1"),
        (InsideView::PatchBase, "Patching", "residual stream before block 1, token 3"),
        (InsideView::Swap, "Swap", "block 1: this part alone"),
        (InsideView::Moved, "Moved", "block 1: weights moved by"),
    ] {
        harness.get_by_role_and_label(Role::Tab, tab).click();
        harness.run();
        complete(&mut harness, view);
        let cell = harness.get_by_label_contains(says);
        assert_eq!(cell.accesskit_node().role(), Role::Cell, "{tab}");
        cell.click();
        harness.run();
        harness.get_by_label(if view == InsideView::Attention { "Hide the first token" } else { "Close the details" });
        names_everything(&harness, tab);
    }
    // A refusal stands under its field, and keys that are typed move nothing.
    type_into(&mut harness, "First answer", " good");
    press(&mut harness, Key::Enter);
    let says = "Give both answers, or none";
    let patience = Instant::now() + Duration::from_secs(20);
    while harness.query_by_label_contains(says).is_none() {
        assert!(Instant::now() < patience, "{:?}", found(&lab).refusal);
        harness.step();
    }
    harness.run();
    let (field, why) = (harness.get_by_label("Second answer").rect(), harness.get_by_label_contains(says).rect());
    assert!(
        why.top() >= field.bottom() && why.left() < field.right() && why.right() > field.left(),
        "{field:?} {why:?}"
    );
}

/// While the lab looks, its progress shows and it can be stopped. A view that is turned to is looked at by itself.
#[test]
fn a_look_shows_its_progress_and_is_stopped() {
    let lab = Lab::of_text();
    let mut harness = sit_down_to_text(&lab);
    press(&mut harness, Key::F6);
    lab.heard();
    click_button(&mut harness, "Look");
    let heard = lab.heard();
    let [Command::Look(request)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((request.prompt.as_str(), request.view), ("Review: The food at", InsideView::Lens));
    let question = scripted::inside_question();
    let inside = Inside {
        request: request.clone(),
        question: Some(Arc::new(question)),
        progress: Some([3, 13]),
        ..Inside::default()
    };
    lab.script().snapshot.change_text(|view| view.inside = Some(Arc::new(inside.clone())));
    harness.run();
    harness.get_by_label("“ good” − “ bad”");
    harness.get_by_label("Looking: 3 of 13 parts");
    names_everything(&harness, "while it looks");
    // Training's arrows answer nothing here.
    press(&mut harness, Key::ArrowLeft);
    assert_eq!(lab.heard(), []);
    press(&mut harness, Key::Escape);
    click_button(&mut harness, "Stop");
    assert_eq!(lab.heard(), [Command::StopLooking, Command::StopLooking]);

    let stopped = Inside { progress: None, ..inside.clone() };
    lab.script().snapshot.change_text(|view| view.inside = Some(Arc::new(stopped)));
    harness.run();
    press(&mut harness, Key::V);
    let heard = lab.heard();
    let [Command::Look(request)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(request.view, InsideView::Contributions);
    let refused = Inside {
        request: request.clone(),
        refusal: Some((InsideField::Models, "The models differ.".to_owned())),
        progress: None,
        ..inside
    };
    lab.script().snapshot.change_text(|view| view.inside = Some(Arc::new(refused)));
    harness.run();
    harness.get_by_label("The models differ.");
}
