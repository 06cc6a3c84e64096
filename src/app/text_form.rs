//! The form for a new run in text mode: every setting of its session, with a file dialog for the paths.

use super::forms::{Dialog, NewRun, PathField};
use super::method::{Method, loss_title, losses};
use super::panel::{mistake_slider, teacher_picker};
use super::style::Palette;
use crate::lab::TeacherKind;
use crate::settings::{LoraSettings, Mode, TextPrecision, TextPreferenceSettings, TextPreset, TextRun, TextStage};
use egui::{Align, Button, ComboBox, DragValue, Layout, Response, RichText, TextEdit, Ui, vec2};

/// Width of a row's name, points.
const NAME: f32 = 108.0;

/// Height of an open list, points: enough for all methods.
const LIST: f32 = 320.0;

/// Settings that have a field of their own in every method, besides paths.
const FIELDS: [&str; 5] = ["text.from", "text.precision", "text.lora", "text.lora.rank", "text.lora.targets"];

/// The setting of the reward functions.
const FUNCTIONS: &str = "text.reward_functions";

/// Whether the form says at a field what is wrong with this setting of a run.
pub(super) fn shows(run: Option<&TextRun>, setting: &str) -> bool {
    let Some(run) = run else { return false };
    let method = Method::of(run);
    let has_model = run.model.is_some();
    let is_shown = |path: PathField| match path {
        PathField::Adapter => has_model,
        PathField::Documents => !has_model,
        PathField::Demonstrations => !has_model || run.from <= TextStage::Supervised,
        _ => method.has(path),
    };
    FIELDS.contains(&setting)
        || setting == FUNCTIONS && method.has(PathField::RewardModel)
        || numbers(run).iter().any(|number| number.setting == setting)
        || setting == "text.preference.loss" && matches!(method, Method::Preference | Method::OnlineDpo)
        || PathField::ALL.iter().any(|&path| path.setting() == setting && is_shown(path))
}

/// The settings of a text-mode run. What is wrong with one stands below it.
pub(super) fn show_text_fields(ui: &mut Ui, form: &mut NewRun) {
    form.take_picked();
    heading(ui, "Method");
    show_method(ui, form);

    heading(ui, "Model");
    show_path(ui, form, PathField::Model);
    let has_model = text_run(form).is_some_and(|run| run.model.is_some());
    if has_model {
        show_path(ui, form, PathField::Adapter);
        field(ui, form, "Begins with", "text.from", |ui, run| {
            ui.radio_value(&mut run.from, TextStage::Supervised, "Demonstrations")
                .on_hover_text("The supervised model is trained first");
            ui.radio_value(&mut run.from, TextStage::Reward, "Judgements")
                .on_hover_text("The model writes well enough already: you are asked at once");
        });
    }
    field(ui, form, "Precision", "text.precision", |ui, run| {
        ui.radio_value(&mut run.precision, TextPrecision::F32, "f32");
        ui.radio_value(&mut run.precision, TextPrecision::Bf16, "bf16")
            .on_hover_text("Half the memory; faster on a processor or GPU that multiplies bf16");
    });
    show_lora(ui, form);

    heading(ui, "Data");
    if !has_model {
        show_path(ui, form, PathField::Documents);
    }
    if !has_model || text_run(form).is_some_and(|run| run.from <= TextStage::Supervised) {
        show_path(ui, form, PathField::Demonstrations);
    }
    let method = text_run(form).map(Method::of);
    for path in [PathField::Prompts, PathField::Comparisons, PathField::RewardModel] {
        if method.is_some_and(|method| method.has(path)) {
            show_path(ui, form, path);
        }
    }
    if method.is_some_and(|method| method.has(PathField::RewardModel)) {
        show_functions(ui, form);
    }

    heading(ui, "Answers");
    let measure = text_run(form).is_some_and(|run| run.prompts.is_none() && run.demonstrations.is_none());
    let measure = measure.then_some("the gold score");
    let settings = &mut form.settings;
    name(ui, "Teacher", |ui| teacher_picker(ui, "new teacher", &mut settings.teacher, measure));
    if let TeacherKind::Mistaken { rate } = &mut settings.teacher {
        name(ui, "Mistakes", |ui| mistake_slider(ui, rate));
    }
    let labels = &mut settings.labels;
    name(ui, "Answers", |ui| {
        ui.add(DragValue::new(labels).range(10..=5000).speed(5)).accessible_name("Answers planned");
    });
    heading(ui, "Training");
    for number in text_run(form).map(numbers).unwrap_or_default() {
        show_number(ui, form, &number);
    }
    if let Mode::Text(run) = &mut form.settings.mode {
        // What the built-in models do not stand for is trained first.
        if run.model.is_none() {
            run.from = run.first_stage();
        }
        form.settings.env_steps = run.steps();
    }
}

/// The method, and the loss if it has a choice of them.
fn show_method(ui: &mut Ui, form: &mut NewRun) {
    let Some(method) = text_run(form).map(Method::of) else { return };
    let mut chosen = method;
    name(ui, "Method", |ui| {
        let list = ComboBox::from_id_salt("method").width(ui.available_width()).selected_text(method.title());
        let list = list.height(LIST).show_ui(ui, |ui| {
            for one in Method::all() {
                ui.selectable_value(&mut chosen, one, one.title()).on_hover_text(one.what());
            }
        });
        in_sight(list.response).accessible_name("Method").on_hover_text(method.what());
    });
    below(ui, chosen.what(), Palette::of(ui.ctx()).muted);
    if chosen != method {
        choose(form, chosen);
    }
    if !matches!(chosen, Method::Preference | Method::OnlineDpo) {
        return;
    }
    field(ui, form, "Loss", "text.preference.loss", |ui, run| {
        let settings = &mut run.preference;
        let list = ComboBox::from_id_salt("loss").width(ui.available_width()).selected_text(loss_title(settings.loss));
        let list = list.height(LIST).show_ui(ui, |ui| {
            for loss in losses(chosen) {
                if ui.selectable_value(&mut settings.loss, loss, loss_title(loss)).changed() {
                    // Each loss has a β of its own.
                    settings.beta = None;
                }
            }
        });
        in_sight(list.response).accessible_name("Loss").on_hover_text("What a pair teaches");
    });
}

/// Chooses the method that a run learns by. What has no meaning in it is left out.
fn choose(form: &mut NewRun, method: Method) {
    method.choose(&mut form.settings);
    form.problems.clear();
    if !method.has(PathField::RewardModel) {
        form.functions.clear();
    }
    for field in PathField::ALL.into_iter().filter(|field| !method.has(*field)) {
        form.typed[field as usize].clear();
    }
}

/// A number on the form.
struct Number {
    label: &'static str,
    setting: &'static str,
    /// For screen readers.
    spoken: &'static str,
    what: &'static str,
    range: [f64; 2],
    suffix: &'static str,
    scale: Scale,
    of: fn(&mut TextRun) -> Value<'_>,
}

/// How a number is written and dragged.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Whole,
    /// With two decimals.
    Decimal,
    /// By its powers of ten.
    Small,
}

/// The value of a number, where it is kept.
enum Value<'a> {
    Count(&'a mut u64),
    Size(&'a mut usize),
    Real(&'a mut f64),
    /// β of a loss, which has a default of its own.
    Beta(&'a mut TextPreferenceSettings),
}

impl Value<'_> {
    fn get(&self) -> f64 {
        match self {
            Value::Count(count) => **count as f64,
            Value::Size(size) => **size as f64,
            Value::Real(real) => **real,
            Value::Beta(settings) => settings.beta(),
        }
    }

    fn set(self, value: f64) {
        match self {
            Value::Count(count) => *count = value as u64,
            Value::Size(size) => *size = value as usize,
            Value::Real(real) => *real = value,
            Value::Beta(settings) => settings.beta = Some(value),
        }
    }
}

/// The numbers that matter in a run's method, in the order of the form.
fn numbers(run: &TextRun) -> Vec<Number> {
    let steps = |setting, of| Number {
        label: "Steps",
        setting,
        spoken: "Gradient steps planned",
        what: "How long it learns",
        range: [1.0, 100_000.0],
        suffix: "",
        scale: Scale::Whole,
        of,
    };
    let batch = |setting, what, of| Number {
        label: "Batch",
        setting,
        spoken: "Batch",
        what,
        range: [1.0, 4096.0],
        suffix: "",
        scale: Scale::Whole,
        of,
    };
    let rate = |setting, of| Number {
        label: "Learning rate",
        setting,
        spoken: "Learning rate",
        what: "Adam's step size at the start",
        range: [0.0, 1.0],
        suffix: "",
        scale: Scale::Small,
        of,
    };
    let number = |label, setting, spoken, what, range, scale, of| Number {
        label,
        setting,
        spoken,
        what,
        range,
        suffix: "",
        scale,
        of,
    };
    let beta = number(
        "β",
        "text.preference.beta",
        "Beta of the loss",
        "Above 0; the larger, the nearer the policy stays to the supervised model",
        [0.0, 100.0],
        Scale::Decimal,
        |run| Value::Beta(&mut run.preference),
    );
    let method = Method::of(run);
    let mut all = match method {
        Method::Policy(preset) => {
            let mut all = vec![
                Number {
                    label: "Updates",
                    spoken: "Updates planned",
                    ..steps("text.updates", |run| Value::Count(&mut run.updates))
                },
                batch("text.ppo.batch_size", "Completions of an update; a multiple of a group", |run| {
                    Value::Size(&mut run.ppo.batch_size)
                }),
            ];
            if !matches!(preset, Some(TextPreset::Ppo | TextPreset::ReinforcePlusPlus)) {
                all.push(number(
                    "Group",
                    "text.ppo.group_size",
                    "Completions of each prompt",
                    "Completions of each prompt, which are compared with one another",
                    [1.0, 1024.0],
                    Scale::Whole,
                    |run| Value::Size(&mut run.ppo.group_size),
                ));
            }
            if preset != Some(TextPreset::Ppo) {
                all.push(number(
                    "Clip low",
                    "text.ppo.clip_coef",
                    "Clip range below 1",
                    "How far the probability ratio may fall below 1",
                    [0.0, 10.0],
                    Scale::Small,
                    |run| Value::Real(&mut run.ppo.clip_coef),
                ));
                all.push(number(
                    "Clip high",
                    "text.ppo.clip_high",
                    "Clip range above 1",
                    "How far the probability ratio may rise above 1; 0 means as far as it may fall",
                    [0.0, 10.0],
                    Scale::Small,
                    |run| Value::Real(&mut run.ppo.clip_high),
                ));
            }
            all.push(match run.ppo.kl.adaptive {
                true => Number {
                    suffix: " nats",
                    ..number(
                        "KL target",
                        "text.ppo.kl.target",
                        "KL target, nats",
                        "How far a completion of the policy may move away from the supervised model",
                        [0.0, 100.0],
                        Scale::Decimal,
                        |run| Value::Real(&mut run.ppo.kl.target),
                    )
                },
                false => number(
                    "β",
                    "text.ppo.kl.beta",
                    "Price of a nat of KL",
                    "Price of a nat of KL to the supervised model; 0 turns the penalty off",
                    [0.0, 100.0],
                    Scale::Decimal,
                    |run| Value::Real(&mut run.ppo.kl.beta),
                ),
            });
            all.push(rate("text.ppo.optimiser.learning_rate", |run| Value::Real(&mut run.ppo.optimiser.learning_rate)));
            all
        }
        Method::Preference | Method::OnlineDpo => {
            let mut all = vec![
                match method {
                    Method::OnlineDpo => steps("text.online_dpo_steps", |run| Value::Count(&mut run.online_dpo_steps)),
                    _ => steps("text.preference_steps", |run| Value::Count(&mut run.preference_steps)),
                },
                batch("text.preference.batch_size", "Pairs of a gradient step", |run| {
                    Value::Size(&mut run.preference.batch_size)
                }),
                beta,
                rate("text.preference.optimiser.learning_rate", |run| {
                    Value::Real(&mut run.preference.optimiser.learning_rate)
                }),
            ];
            match method {
                Method::OnlineDpo if run.has_given_reward() => all.push(number(
                    "Group",
                    "text.online_dpo.group_size",
                    "Completions of each prompt",
                    "Completions of each prompt, of which the best and the worst become a pair",
                    [1.0, 1024.0],
                    Scale::Whole,
                    |run| Value::Size(&mut run.online_dpo.group_size),
                )),
                Method::OnlineDpo => all.push(number(
                    "Round",
                    "text.online_dpo.round_size",
                    "Answers of a round",
                    "Answers after which the policy learns and writes anew",
                    [1.0, 1024.0],
                    Scale::Whole,
                    |run| Value::Size(&mut run.online_dpo.round_size),
                )),
                _ => {}
            }
            all
        }
        Method::Ilql => vec![
            steps("text.ilql_steps", |run| Value::Count(&mut run.ilql_steps)),
            batch("text.ilql.batch_size", "Completions of a gradient step", |run| {
                Value::Size(&mut run.ilql.batch_size)
            }),
            number(
                "τ",
                "text.ilql.tau",
                "Expectile of V",
                "Between 0 and 1: the nearer to 1, the nearer V is to the best token",
                [0.0, 1.0],
                Scale::Decimal,
                |run| Value::Real(&mut run.ilql.tau),
            ),
            number(
                "β",
                "text.ilql.beta",
                "Beta of writing",
                "Completions are written by log π + β (Q − V)",
                [0.0, 1000.0],
                Scale::Decimal,
                |run| Value::Real(&mut run.ilql.beta),
            ),
            rate("text.ilql.optimiser.learning_rate", |run| Value::Real(&mut run.ilql.optimiser.learning_rate)),
        ],
    };
    let online = method == Method::OnlineDpo;
    all.push(Number {
        suffix: " tokens",
        ..number(
            "Completion",
            if online { "text.online_dpo.max_new_tokens" } else { "text.ppo.max_new_tokens" },
            "Longest completion, tokens",
            "A longer completion is cut",
            [1.0, 4096.0],
            Scale::Whole,
            if online {
                |run| Value::Size(&mut run.online_dpo.max_new_tokens)
            } else {
                |run| Value::Size(&mut run.ppo.max_new_tokens)
            },
        )
    });
    all.push(number(
        "Temperature",
        if online { "text.online_dpo.temperature" } else { "text.ppo.temperature" },
        "Temperature",
        "Above 0; 1 samples as the model was trained",
        [0.0, 5.0],
        Scale::Decimal,
        if online {
            |run| Value::Real(&mut run.online_dpo.temperature)
        } else {
            |run| Value::Real(&mut run.ppo.temperature)
        },
    ));
    all
}

fn show_number(ui: &mut Ui, form: &mut NewRun, number: &Number) {
    let Number { label, setting, spoken, what, range: [low, high], suffix, scale, of } = *number;
    field(ui, form, label, setting, |ui, run| {
        let mut value = of(run).get();
        let drag = DragValue::new(&mut value).range(low..=high).suffix(suffix);
        let drag = match scale {
            Scale::Whole => drag.speed(1).max_decimals(0),
            Scale::Decimal => drag.speed(0.01).max_decimals(3),
            Scale::Small => drag.speed(1e-6).custom_formatter(|x, _| in_short(x)),
        };
        if in_sight(ui.add(drag)).accessible_name(spoken).on_hover_text(what).changed() {
            of(run).set(value);
        }
    });
}

/// Scrolls to a field that the keyboard has come to.
fn in_sight(response: Response) -> Response {
    if response.gained_focus() {
        response.scroll_to_me(None);
    }
    response
}

/// A number as it is typed, with a power of ten if it is small: 0.2, 3e-4.
fn in_short(x: f64) -> String {
    if x == 0.0 || x.abs() >= 1e-3 { format!("{x}") } else { format!("{x:e}") }
}

fn text_run(form: &NewRun) -> Option<&TextRun> {
    form.settings.text()
}

/// LoRA on or off, and its three numbers.
fn show_lora(ui: &mut Ui, form: &mut NewRun) {
    let mut on = text_run(form).is_some_and(|run| run.lora.is_some());
    let was = on;
    field(ui, form, "LoRA", "text.lora", |ui, run| {
        ui.checkbox(&mut on, "Train a small adapter instead of all weights");
        if on != was {
            run.lora = on.then(LoraSettings::default);
        }
    });
    if !on {
        return;
    }
    field(ui, form, "", "text.lora.rank", |ui, run| {
        let Some(lora) = &mut run.lora else { return };
        ui.label("rank");
        ui.add(DragValue::new(&mut lora.rank).range(1..=1024).speed(1)).accessible_name("Rank of the adapter");
        ui.label("alpha");
        ui.add(DragValue::new(&mut lora.alpha).range(0.1..=4096.0).speed(1)).accessible_name("Alpha of the adapter");
    });
    let mut targets = std::mem::take(&mut form.targets);
    field(ui, form, "", "text.lora.targets", |ui, run| {
        let Some(lora) = &mut run.lora else { return };
        let hint = "All linear maps, or q_proj, v_proj, …";
        let edit = TextEdit::singleline(&mut targets).hint_text(hint).desired_width(f32::INFINITY);
        if ui.add(edit).accessible_name("Linear maps with an adapter").changed() {
            let names = targets.split([',', '+', ' ']).map(str::trim).filter(|name| !name.is_empty());
            lora.targets = names.map(str::to_owned).collect();
        }
    });
    form.targets = targets;
}

/// Reward functions, one a line, as the command line takes them.
fn show_functions(ui: &mut Ui, form: &mut NewRun) {
    let hint = match text_run(form).is_some_and(|run| run.until == TextStage::OnlineDpo) {
        true => "None: the teacher judges",
        false => "None: the reward model scores",
    };
    let mut typed = std::mem::take(&mut form.functions);
    field(ui, form, "Rewards", FUNCTIONS, |ui, run| {
        let edit = TextEdit::multiline(&mut typed).hint_text(hint).desired_rows(1).desired_width(f32::INFINITY);
        let what = "What scores completions, as --reward-function takes it, one a line; the scores are added up. Such as \
                    regex:PATTERN, number, length:LOW..HIGH, program:COMMAND, model:DIR or 0.5*mean:DIR,DIR";
        if ui.add(edit).accessible_name("Reward functions, one a line").on_hover_text(what).changed() {
            let functions = typed.lines().map(str::trim).filter(|function| !function.is_empty());
            run.reward_functions = functions.map(str::to_owned).collect();
        }
    });
    form.functions = typed;
}

/// A path: typed, or picked in a dialog.
fn show_path(ui: &mut Ui, form: &mut NewRun, path: PathField) {
    let (label, mut hint, what, _) = path.words();
    if path == PathField::RewardModel && text_run(form).is_some_and(|run| run.until == TextStage::OnlineDpo) {
        hint = "None: the teacher judges";
    }
    let waits = form.dialog.as_ref().is_some_and(|dialog| dialog.field == path);
    let mut typed = std::mem::take(&mut form.typed[path as usize]);
    let (mut changed, mut browse) = (false, None);
    name(ui, label, |ui| {
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let button = Button::new(if waits { "Open…" } else { "Browse…" });
            let response = ui.add_enabled(form.dialog.is_none(), button);
            if response.accessible_name(format!("Browse: {label}")).clicked() {
                browse = Some(Dialog::open(path, &typed, ui.ctx()));
            }
            let edit = TextEdit::singleline(&mut typed).hint_text(hint).desired_width(ui.available_width());
            changed = ui.add(edit).accessible_name(what).on_hover_text(what).changed();
        });
    });
    form.typed[path as usize] = typed;
    if changed {
        form.set_path(path);
    }
    form.dialog = form.dialog.take().or(browse);
    complaint(ui, form, path.setting());
    if let Some((_, sentence)) = form.unpicked.as_ref().filter(|(field, _)| *field == path) {
        below(ui, sentence, Palette::of(ui.ctx()).muted);
    }
}

/// A row for a setting of the run, and what is wrong with it.
fn field(ui: &mut Ui, form: &mut NewRun, label: &str, setting: &str, show: impl FnOnce(&mut Ui, &mut TextRun)) {
    let before = form.settings.mode.clone();
    if let Mode::Text(run) = &mut form.settings.mode {
        name(ui, label, |ui| show(ui, run));
    }
    if form.settings.mode != before {
        form.problems.retain(|(name, _)| !name.starts_with(setting));
    }
    complaint(ui, form, setting);
}

/// A row's name and its field.
pub(super) fn name(ui: &mut Ui, name: &str, field: impl FnOnce(&mut Ui)) {
    let palette = Palette::of(ui.ctx());
    ui.horizontal(|ui| {
        ui.allocate_ui_with_layout(vec2(NAME, 24.0), Layout::left_to_right(Align::Center), |ui| {
            ui.set_min_width(NAME);
            ui.label(RichText::new(name).color(palette.muted));
        });
        field(ui);
    });
}

fn heading(ui: &mut Ui, words: &str) {
    ui.add_space(8.0);
    ui.label(RichText::new(words).strong().small());
}

fn complaint(ui: &mut Ui, form: &NewRun, setting: &str) {
    let warning = Palette::of(ui.ctx()).warning;
    for (_, sentence) in form.problems.iter().filter(|(name, _)| name == setting) {
        below(ui, sentence, warning);
    }
}

/// A sentence below a field.
fn below(ui: &mut Ui, sentence: &str, ink: egui::Color32) {
    ui.horizontal(|ui| {
        ui.add_space(NAME + 8.0);
        ui.add(egui::Label::new(RichText::new(sentence).small().color(ink)).wrap());
    });
}
