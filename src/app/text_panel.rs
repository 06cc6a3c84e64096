//! The right side of the desk in text mode: which model, how far it is, and how well it does.

use super::completions::{stage_figures, stage_words};
use super::desk::Desk;
use super::panel::{CurveTabs, two_ends};
use super::style::{CARD_RADIUS, Palette, semibold};
use super::widgets::{meter, number};
use crate::lab::{Curve, Snapshot, TextStage, TextView};
use egui::{CornerRadius, FontFamily, FontId, Label, Rect, RichText, Role, Sense, Ui, WidgetInfo, vec2};

/// How well the model does, how the policy moves, and how well the other models fit.
const OF_REWARD: CurveTabs = [
    ("Learning", &["reward", "gold", "reference_kl"]),
    ("Policy", &["entropy", "beta", "length", "ended", "grad_norm", "equal_groups"]),
    ("Models", &["agreement", "reward_loss", "value_loss", "base_loss", "supervised_loss"]),
];

/// The same while the policy learns from a fixed set of judgements. Both log-probabilities fall together.
const OF_PREFERENCES: CurveTabs = [
    ("Learning", &["preference_loss", "preference_margin", "preference_accuracy"]),
    ("Policy", &["chosen_log_prob", "rejected_log_prob", "log_ratio", "grad_norm"]),
    ("Models", &["agreement", "gold", "base_loss", "supervised_loss"]),
];

/// The same while it learns by ILQL.
const OF_ILQL: CurveTabs = [
    ("Learning", &["ilql_loss", "q_loss", "v_loss"]),
    ("Policy", &["q", "v", "nll", "grad_norm"]),
    ("Models", &["gold", "base_loss", "supervised_loss"]),
];

/// The same while it learns from a teacher's judgements of what it writes.
const OF_ONLINE_DPO: CurveTabs = [
    ("Learning", &["gold", "reference_kl", "equal_groups"]),
    (
        "Policy",
        &["preference_loss", "preference_margin", "preference_accuracy", "chosen_log_prob", "rejected_log_prob"],
    ),
    ("Models", &["length", "ended", "grad_norm", "base_loss", "supervised_loss"]),
];

/// The same where reward functions judge.
const OF_SCORED_ONLINE_DPO: CurveTabs =
    [("Learning", &["reward", "reference_kl", "equal_groups", "gold"]), OF_ONLINE_DPO[1], OF_ONLINE_DPO[2]];

/// A curve's name, and its short label.
type Figures = [(&'static str, &'static str); 6];

/// The figures of the latest update.
const FIGURES_OF_REWARD: Figures = [
    ("reward", "Reward"),
    ("reference_kl", "KL"),
    ("entropy", "Entropy"),
    ("beta", "β"),
    ("length", "Length"),
    ("ended", "Ended"),
];

/// Those of a step on a fixed set of judgements.
const FIGURES_OF_PREFERENCES: Figures = [
    ("preference_loss", "Loss"),
    ("preference_margin", "Margin"),
    ("preference_accuracy", "Accuracy"),
    ("chosen_log_prob", "Better"),
    ("rejected_log_prob", "Worse"),
    ("log_ratio", "Log-ratio"),
];

/// Those of a step of ILQL.
const FIGURES_OF_ILQL: Figures =
    [("ilql_loss", "Loss"), ("q_loss", "Q loss"), ("v_loss", "V loss"), ("q", "Q"), ("v", "V"), ("nll", "Token loss")];

/// Those of a step of online DPO.
const FIGURES_OF_ONLINE_DPO: Figures = [
    ("gold", "Gold"),
    ("reference_kl", "KL"),
    ("equal_groups", "Ties"),
    ("preference_loss", "Loss"),
    ("preference_margin", "Margin"),
    ("preference_accuracy", "Accuracy"),
];

/// Those of a step of online DPO where reward functions judge.
const FIGURES_OF_SCORED_ONLINE_DPO: Figures = [
    ("reward", "Reward"),
    FIGURES_OF_ONLINE_DPO[1],
    FIGURES_OF_ONLINE_DPO[2],
    FIGURES_OF_ONLINE_DPO[3],
    FIGURES_OF_ONLINE_DPO[4],
    FIGURES_OF_ONLINE_DPO[5],
];

/// The curves and the figures of a pipeline stage.
fn of_stage(snapshot: &Snapshot, stage: TextStage) -> (&'static CurveTabs, &'static Figures) {
    let is_scored = || snapshot.curves.iter().any(|curve| curve.name == "reward" && !curve.points.is_empty());
    match stage {
        TextStage::Preference => (&OF_PREFERENCES, &FIGURES_OF_PREFERENCES),
        TextStage::Ilql => (&OF_ILQL, &FIGURES_OF_ILQL),
        TextStage::OnlineDpo if is_scored() => (&OF_SCORED_ONLINE_DPO, &FIGURES_OF_SCORED_ONLINE_DPO),
        TextStage::OnlineDpo => (&OF_ONLINE_DPO, &FIGURES_OF_ONLINE_DPO),
        TextStage::Base | TextStage::Supervised | TextStage::Reward | TextStage::Ppo => {
            (&OF_REWARD, &FIGURES_OF_REWARD)
        }
    }
}

impl Desk {
    /// The panel's content in text mode.
    pub(super) fn show_text_panel(&mut self, ui: &mut Ui, snapshot: &Snapshot, view: &TextView) {
        let palette = Palette::of(ui.ctx());
        two_ends(ui, "Language model", "");
        if !view.model.is_empty() {
            ui.add(Label::new(RichText::new(&view.model).small().color(palette.muted)).wrap());
        }
        ui.add_space(4.0);
        self.show_choice_of_teacher(ui, snapshot);
        ui.add_space(6.0);
        self.show_training_button(ui, snapshot);
        let (name, what) = stage_words(view.stage);
        let (steps, pace) = stage_figures(snapshot, view);
        two_ends(ui, name, &steps).on_hover_text(what);
        let fraction = view.done as f32 / view.of.max(1) as f32;
        meter(ui, "Stage", &format!("{name}, {steps}, {pace}"), fraction, None, palette.accent).on_hover_text(what);
        let doing = if view.doing.is_empty() { String::new() } else { format!("{}…", view.doing) };
        two_ends(ui, &doing, &pace)
            .on_hover_text("What is being done, how many steps a second, and the time left in all");
        ui.add_space(8.0);
        self.show_labels(ui, snapshot);
        self.show_disputed(ui, snapshot);
        ui.add_space(8.0);
        show_figures(ui, snapshot, view);
        ui.add_space(8.0);
        self.show_curves(ui, of_stage(snapshot, view.stage).0);
    }
}

/// Six figures of the latest update, in two rows.
fn show_figures(ui: &mut Ui, snapshot: &Snapshot, view: &TextView) {
    let palette = Palette::of(ui.ctx());
    let size = vec2(ui.available_width(), 88.0);
    let (whole, _) = ui.allocate_exact_size(size, Sense::hover());
    ui.painter().rect_filled(whole, CornerRadius::same(CARD_RADIUS), palette.card);
    let cell = vec2(size.x / 3.0, size.y / 2.0);
    for (index, (name, short)) in of_stage(snapshot, view.stage).1.iter().copied().enumerate() {
        let Some(&(_, label, what)) = Curve::NAMES.iter().find(|(n, ..)| *n == name) else { continue };
        let curve = snapshot.curves.iter().find(|curve| curve.name == name);
        let latest = curve.and_then(|curve| curve.points.last()).map(|point| point[1]);
        let value = match (latest, name) {
            (None, _) => "–".to_owned(),
            (Some(share), "ended" | "preference_accuracy" | "equal_groups") => format!("{:.0} %", 100.0 * share),
            (Some(x), "length") => format!("{x:.0}"),
            (Some(x), _) => number(x),
        };
        let target = view.kl_target.filter(|_| name == "reference_kl").map(|target| format!(" / {}", number(target)));
        let min = whole.min + vec2((index % 3) as f32 * cell.x, (index / 3) as f32 * cell.y);
        let rect = Rect::from_min_size(min, cell);
        let response = ui.interact(rect, ui.scope_id().with(("figure", index)), Sense::hover());
        let spoken = match view.kl_target.filter(|_| name == "reference_kl") {
            Some(target) => format!("{label}: {value}, target {}", number(target)),
            None => format!("{label}: {value}"),
        };
        response.widget_info(|| WidgetInfo::labeled(Role::Label, true, spoken.clone()));
        response.on_hover_text(match &target {
            Some(_) => format!("{what}. Behind the stroke is the target that β steers it to"),
            None => what.to_owned(),
        });
        let painter = ui.painter();
        let small = FontId::new(11.0, FontFamily::Proportional);
        let caption = painter.layout_no_wrap(short.to_owned(), small.clone(), palette.muted);
        let at = rect.min + vec2(10.0, 7.0);
        painter.galley(at, caption, palette.muted);
        let figure = painter.layout_no_wrap(value, FontId::new(14.0, semibold()), palette.text);
        let below = at + vec2(0.0, 14.0);
        let (width, height) = (figure.size().x, figure.size().y);
        painter.galley(below, figure, palette.text);
        if let Some(target) = target {
            let target = painter.layout_no_wrap(target, small, palette.muted);
            let rise = height - target.size().y - 1.0;
            painter.galley(below + vec2(width, rise), target, palette.muted);
        }
    }
}
