//! The form for a new run in text mode: every setting of its session, with a file dialog for the paths.

use super::forms::{Dialog, NewRun, PathField};
use super::panel::{mistake_slider, teacher_picker};
use super::style::Palette;
use crate::lab::TeacherKind;
use crate::settings::{LoraSettings, Mode, TextPrecision, TextRun, TextStage};
use egui::{Align, Button, DragValue, Layout, RichText, TextEdit, Ui, vec2};

/// Width of a row's name, points.
const NAME: f32 = 108.0;

/// Settings that have a field of their own, besides paths.
const FIELDS: [&str; 9] = [
    "text.from",
    "text.precision",
    "text.lora",
    "text.lora.rank",
    "text.lora.targets",
    "text.updates",
    "text.ppo.max_new_tokens",
    "text.ppo.temperature",
    "text.ppo.kl.target",
];

/// Whether the form says at a field what is wrong with this setting.
pub(super) fn shows(setting: &str) -> bool {
    FIELDS.contains(&setting) || PathField::ALL.iter().any(|path| path.setting() == setting)
}

/// The settings of a text-mode run. What is wrong with one stands below it.
pub(super) fn show_text_fields(ui: &mut Ui, form: &mut NewRun) {
    form.take_picked();
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
    show_path(ui, form, PathField::Prompts);
    show_path(ui, form, PathField::Comparisons);
    show_path(ui, form, PathField::RewardModel);

    heading(ui, "Answers and training");
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
    field(ui, form, "Updates", "text.updates", |ui, run| {
        ui.add(DragValue::new(&mut run.updates).range(1..=10_000).speed(1)).accessible_name("Updates of PPO planned");
    });
    field(ui, form, "Completion", "text.ppo.max_new_tokens", |ui, run| {
        let length = DragValue::new(&mut run.ppo.max_new_tokens).range(1..=4096).speed(1).suffix(" tokens");
        ui.add(length).accessible_name("Longest completion, tokens").on_hover_text("A longer completion is cut");
    });
    field(ui, form, "Temperature", "text.ppo.temperature", |ui, run| {
        let temperature = DragValue::new(&mut run.ppo.temperature).range(0.0..=5.0).speed(0.01).max_decimals(2);
        ui.add(temperature).accessible_name("Temperature").on_hover_text("Above 0; 1 samples as the model was trained");
    });
    field(ui, form, "KL target", "text.ppo.kl.target", |ui, run| {
        let target = DragValue::new(&mut run.ppo.kl.target).range(0.0..=100.0).speed(0.1).suffix(" nats");
        ui.add(target)
            .accessible_name("KL target, nats")
            .on_hover_text("How far a completion of the policy may move away from the supervised model");
    });
    if let Mode::Text(run) = &mut form.settings.mode {
        // What the built-in models do not stand for is trained first.
        if run.model.is_none() {
            run.from = run.first_stage();
        }
        form.settings.env_steps = run.steps();
    }
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

/// A path: typed, or picked in a dialog.
fn show_path(ui: &mut Ui, form: &mut NewRun, path: PathField) {
    let (label, hint, what, _) = path.words();
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
