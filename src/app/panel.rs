//! The right side of the desk: what is being trained, how far it is, and how well it does.

use super::commands::DeskCommand;
use super::curves::Drawn;
use super::desk::Desk;
use super::options::TaskChoice;
use super::question::View;
use super::style::{CARD_RADIUS, Palette, semibold};
use super::viewport::Slot;
use super::widgets::{count, duration, main_button, meter, number, tip};
use crate::lab::{Command, ControlView, Curve, ModeView, Phase, Snapshot, TeacherKind, TextStage};
use crate::settings::{ControlRun, RewardSource, RunSettings};
use egui::{
    Align, Align2, ComboBox, CornerRadius, FontId, Layout, Rect, Response, RichText, Role, Sense, Slider, Stroke,
    StrokeKind, Ui, Vec2b, WidgetInfo, vec2,
};
use egui_plot::{Line, Plot, PlotPoints};
use flipside_core::Choice;

const POLICY_HEIGHT: f32 = 128.0;
const CURVE_HEIGHT: f32 = 70.0;
/// A mistaken teacher's first error rate: one wrong answer in ten, as in the field's benchmarks.
const MISTAKE_RATE: f64 = 0.1;

/// Tabs of learning curves: each tab's title and its curves.
pub(super) type CurveTabs = [(&'static str, &'static [&'static str]); 3];

/// How well the robot does, how well the reward model follows the answers, and how the policy moves.
const CURVE_TABS: CurveTabs = [
    ("Returns", &["true_return", "learned_return"]),
    ("Reward model", &["agreement", "reward_loss"]),
    ("Policy", &["entropy", "kl", "value_loss"]),
];

impl Desk {
    /// The panel's content while a robot is taught.
    pub(super) fn show_control_panel(&mut self, ui: &mut Ui, snapshot: &Snapshot, view: &ControlView) {
        if view.from_preferences {
            self.show_policy(ui, snapshot);
            ui.add_space(4.0);
        }
        self.show_choice_of_robot(ui);
        self.show_choice_of_reward(ui, view);
        if view.from_preferences {
            self.show_choice_of_teacher(ui, snapshot);
        }
        ui.add_space(6.0);
        self.show_training(ui, snapshot);
        if view.from_preferences {
            ui.add_space(8.0);
            self.show_labels(ui, snapshot);
            self.show_disputed(ui, snapshot);
        }
        ui.add_space(8.0);
        self.show_curves(ui, &CURVE_TABS);
    }

    fn show_policy(&mut self, ui: &mut Ui, snapshot: &Snapshot) {
        let clip = self.policy.clip.clone();
        let age = match &clip {
            Some(clip) => format!("step {}", count(clip.recorded_at as f64)),
            None if snapshot.phase == Phase::Starting => "getting ready…".to_owned(),
            None => "about to run…".to_owned(),
        };
        two_ends(ui, "Current policy", &age)
            .on_hover_text("What the robot does now, without the noise that it explores with");
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), POLICY_HEIGHT), Sense::hover());
        // The small view may run at half the pace of the large ones, because nobody judges by it.
        let time = (self.policy.clock.time() * 15.0).round() / 15.0;
        let view = View { slot: Slot::Policy, rect, name: "Current policy, running", clickable: false };
        let (_, moved) = self.show_view(ui, &view, clip.as_ref(), time as f32, self.policy.eye);
        self.policy.eye = moved;
        let line = Stroke::new(1.0, Palette::of(ui.ctx()).line);
        ui.painter().rect_stroke(rect, CornerRadius::same(CARD_RADIUS), line, StrokeKind::Inside);
    }

    /// The robot of the run.
    pub(super) fn show_choice_of_robot(&mut self, ui: &mut Ui) {
        let present = self.present_settings();
        let mut chosen = None;
        row(ui, "Robot", |ui| {
            let response;
            (chosen, response) = robot_picker(ui, "robot", &self.tasks, present.task());
            response
                .accessible_name("Robot")
                .on_hover_text("Choosing another robot saves this run and begins a new one");
        });
        if let Some(TaskChoice { name: task, env_steps, .. }) = chosen {
            self.begin(RunSettings { env_steps, ..present.map_control(|run| ControlRun { task, ..run }) });
        }
    }

    fn show_choice_of_reward(&mut self, ui: &mut Ui, view: &ControlView) {
        let names = [(true, "The judgements"), (false, "The task's own reward")];
        let mut chosen = view.from_preferences;
        row(ui, "Learns from", |ui| {
            let width = ui.available_width();
            let text = if chosen { names[0].1 } else { names[1].1 };
            let response = ComboBox::from_id_salt("reward")
                .width(width)
                .selected_text(text)
                .show_ui(ui, |ui| {
                    for (value, name) in names {
                        ui.selectable_value(&mut chosen, value, name);
                    }
                })
                .response;
            response
                .accessible_name("Learns from")
                .on_hover_text("Choosing another reward saves this run and begins a new one");
        });
        if chosen != view.from_preferences {
            let reward = if chosen { RewardSource::Preferences } else { RewardSource::True };
            self.begin(self.present_settings().map_control(|run| ControlRun { reward, ..run }));
        }
    }

    pub(super) fn show_choice_of_teacher(&mut self, ui: &mut Ui, snapshot: &Snapshot) {
        let mut teacher = snapshot.teacher;
        // In text mode, a gold score is known only if the built-in grammar made the data.
        let measure = match &snapshot.mode {
            ModeView::Control(_) => Some("the task's true return"),
            ModeView::Text(view) => view.has_gold.then_some("the gold score"),
        };
        row(ui, "Teacher", |ui| teacher_picker(ui, "teacher", &mut teacher, measure));
        if let TeacherKind::Mistaken { rate } = &mut teacher {
            row(ui, "Mistakes", |ui| mistake_slider(ui, rate));
        }
        if teacher != snapshot.teacher {
            self.send(Command::SetTeacher(teacher));
        }
    }

    /// The button that starts and pauses training.
    pub(super) fn show_training_button(&mut self, ui: &mut Ui, snapshot: &Snapshot) {
        if self.can(DeskCommand::ToggleTraining) {
            let (label, filled) = match (self.is_training(), snapshot.env_steps) {
                (true, _) => ("Pause training", false),
                (false, 0) => ("Start training", true),
                (false, _) => ("Go on training", true),
            };
            if tip(main_button(ui, label, filled), DeskCommand::ToggleTraining).clicked() {
                self.queue.push(DeskCommand::ToggleTraining);
            }
            ui.add_space(4.0);
        }
    }

    fn show_training(&mut self, ui: &mut Ui, snapshot: &Snapshot) {
        let palette = Palette::of(ui.ctx());
        self.show_training_button(ui, snapshot);
        let (done, planned) = (snapshot.env_steps as f64, snapshot.env_steps_planned as f64);
        let steps = format!("{} of {} steps", count(done), count(planned));
        let pace = match (snapshot.phase, snapshot.seconds_left) {
            (Phase::Starting, _) => "starting…".to_owned(),
            (Phase::Waiting, _) => "waiting for you".to_owned(),
            (Phase::Paused, _) => "paused".to_owned(),
            (Phase::Faulted, _) => "stopped by a fault".to_owned(),
            (Phase::Finished, _) => "done".to_owned(),
            (Phase::Training, Some(left)) => format!("{}/s · {} left", count(snapshot.env_steps_per_s), duration(left)),
            (Phase::Training, None) => format!("{}/s", count(snapshot.env_steps_per_s)),
        };
        two_ends(ui, &steps, &pace);
        meter(ui, "Training", &format!("{steps}, {pace}"), (done / planned.max(1.0)) as f32, None, palette.accent)
            .on_hover_text(
                "Steps that the robot has taken in all its simulated worlds, and how many a second, learning included",
            );
    }

    pub(super) fn show_labels(&mut self, ui: &mut Ui, snapshot: &Snapshot) {
        let palette = Palette::of(ui.ctx());
        let labels = match snapshot.labels_planned {
            Some(planned) => format!("{} of {planned} answers", snapshot.labels),
            None => format!("{} answers", snapshot.labels),
        };
        let rate = match snapshot.labels_per_minute {
            rate if rate >= 0.05 => format!("{rate:.1} a minute"),
            _ => String::new(),
        };
        two_ends(ui, &labels, &rate);
        let planned = snapshot.labels_planned.unwrap_or(0).max(1) as f32;
        let (fraction, mark) = (snapshot.labels as f32 / planned, snapshot.labels_wanted as f32 / planned);
        let behind = snapshot.labels_wanted.saturating_sub(snapshot.labels);
        let pace = match behind {
            0 => "on pace".to_owned(),
            n => format!("{n} behind the pace"),
        };
        meter(ui, "Answers", &format!("{labels}, {pace}"), fraction, Some(mark), palette.left).on_hover_text(format!(
            "The notch is the pace that learns best: {} answers by now ({pace})",
            snapshot.labels_wanted
        ));
        let agreement = match snapshot.agreement {
            Some(share) => format!("{:.0} %", 100.0 * share),
            None => "not known yet".to_owned(),
        };
        let random = match self.curves.get("random_answers").and_then(|drawn| drawn.latest) {
            Some(share) => format!(". It takes {:.0} % of all answers for random ones", 100.0 * share),
            None => String::new(),
        };
        // Learning from preferences directly has no reward model.
        if snapshot.text().is_none_or(|view| view.stage <= TextStage::Ppo) {
            two_ends(ui, "Held-out agreement", &agreement).on_hover_text(format!(
                "Share of answers held back from its training that the reward model gets right; a coin gets 50 %{random}"
            ));
        }
        if let Some((share, count)) = snapshot.consistency {
            let of = format!("{:.0} % of {count}", 100.0 * share);
            two_ends(ui, "Same answer when asked again", &of).on_hover_text(
                "A few pairs come again with left and right swapped; a coin gets 50 %, and answers that contradict each other limit what the reward model can learn",
            );
        }
        if let Some(alarm) = &snapshot.alarm {
            ui.label(RichText::new(alarm).color(palette.warning));
        }
    }

    /// The answers that the reward model contradicts. Each can be shown again, and confirmed or taken back.
    pub(super) fn show_disputed(&mut self, ui: &mut Ui, snapshot: &Snapshot) {
        // One at a time, because more would push the learning curves out of the window: the one on show, or the worst.
        let on_show = snapshot.disputed.iter().find(|disputed| self.replayed == Some(disputed.judgement));
        let Some(disputed) = on_show.or(snapshot.disputed.first()) else { return };
        let palette = Palette::of(ui.ctx());
        let title = match snapshot.disputed.len() {
            1 => "Disputed answer".to_owned(),
            all => format!("Disputed answer, one of {all}"),
        };
        ui.label(RichText::new(title).color(palette.muted)).on_hover_text(
            "Members of the reward model that were not trained on this answer predict another one: it may be a slip, a change of mind, \
             or something that the model has not understood yet",
        );
        let (said, chance) = match disputed.choice {
            Choice::Left => ("left", disputed.left),
            Choice::MuchLeft => ("left by far", disputed.left),
            Choice::Right => ("right", 1.0 - disputed.left),
            Choice::MuchRight => ("right by far", 1.0 - disputed.left),
            Choice::Tie | Choice::Skip => ("a tie", 1.0 - (2.0 * disputed.left - 1.0).abs()),
        };
        let id = disputed.judgement;
        let what = format!("answer {}", id.0);
        ui.horizontal(|ui| {
            ui.label(RichText::new(format!("You said {said}; it gives that {:.0} %", 100.0 * chance)).small());
        });
        ui.horizontal(|ui| {
            let on_show = self.replayed == Some(id);
            let label = if on_show { "Back to the question" } else { "Look again" };
            if ui.small_button(label).accessible_name(format!("{label}: {what}")).clicked() {
                self.replayed = (!on_show).then_some(id);
                ui.ctx().request_repaint();
            }
            if ui.small_button("Keep").accessible_name(format!("Keep {what}")).clicked() {
                self.send(Command::Confirm(id));
            }
            if ui.small_button("Take back").accessible_name(format!("Take back {what}")).clicked() {
                self.send(Command::Retract(id));
            }
        });
    }

    pub(super) fn show_curves(&mut self, ui: &mut Ui, tabs: &CurveTabs) {
        let palette = Palette::of(ui.ctx());
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 4.0;
            for (tab, (name, _)) in tabs.iter().enumerate() {
                let chosen = self.curve_tab == tab;
                let text = RichText::new(*name).small().color(if chosen { palette.text } else { palette.muted });
                let response = ui.add(egui::Button::selectable(chosen, text));
                response.widget_info(|| WidgetInfo::selected(Role::Tab, true, chosen, *name));
                if response.clicked() {
                    self.curve_tab = tab;
                }
            }
        });
        let (_, names) = tabs[self.curve_tab.min(tabs.len() - 1)];
        for &name in names {
            let Some(&(_, label, what)) = Curve::NAMES.iter().find(|(n, ..)| *n == name) else { continue };
            let drawn = self.curves.get(name);
            let latest = drawn.and_then(|drawn| drawn.latest).map_or_else(|| "–".to_owned(), number);
            ui.add_space(2.0);
            two_ends(ui, label, &latest).on_hover_text(what);
            let color = match name {
                "true_return" | "entropy" | "gold" | "ended" => palette.accent,
                "learned_return" | "agreement" | "kl" | "reward" | "length" => palette.left,
                _ => palette.right,
            };
            show_curve(ui, name, &format!("{label}: {latest}"), drawn, color);
        }
    }
}

/// A list of robots with the present one, `task`, selected. Returns another one if it was picked, and the list's
/// response.
pub(super) fn robot_picker(ui: &mut Ui, id: &str, tasks: &[TaskChoice], task: &str) -> (Option<TaskChoice>, Response) {
    /// Points: enough for all shipped robots and some of the person's own. A longer list scrolls.
    const HEIGHT: f32 = 400.0;
    let present = tasks.iter().find(|choice| choice.name == task);
    let title = present.map_or(task, |choice| choice.title.as_str());
    let combo = ComboBox::from_id_salt(id).width(ui.available_width()).height(HEIGHT).selected_text(title);
    let mut picked = None;
    let list = combo.show_ui(ui, |ui| {
        for choice in tasks {
            if ui.selectable_label(choice.name == task, &choice.title).clicked() && choice.name != task {
                picked = Some(choice.clone());
            }
        }
    });
    (picked, list.response)
}

/// Who answers, as a combo box that fills its row. Simulated teachers judge by `measure`. Without one they are not
/// offered.
pub(super) fn teacher_picker(ui: &mut Ui, id: &str, teacher: &mut TeacherKind, measure: Option<&str>) {
    let mistaken = match *teacher {
        TeacherKind::Mistaken { rate } => TeacherKind::Mistaken { rate },
        _ => TeacherKind::Mistaken { rate: MISTAKE_RATE },
    };
    let by = measure.unwrap_or_default();
    let kinds = [
        (TeacherKind::Person, "Me", "I answer the pairs".to_owned()),
        (TeacherKind::Oracle, "Simulated, perfect", format!("Answers by {by} and never errs")),
        (mistaken, "Simulated, with mistakes", format!("Answers by {by}, with some answers flipped")),
    ];
    let name = kinds.iter().find(|(kind, ..)| kind == teacher).map_or("Simulated, with noise", |(_, name, _)| name);
    let offered = if measure.is_some() { kinds.len() } else { 1 };
    let width = ui.available_width();
    let response = ComboBox::from_id_salt(id)
        .width(width)
        .selected_text(name)
        .show_ui(ui, |ui| {
            for (kind, name, what) in kinds.into_iter().take(offered) {
                ui.selectable_value(teacher, kind, name).on_hover_text(what);
            }
        })
        .response;
    response.accessible_name("Teacher").on_hover_text("Who answers from now on");
}

/// A simulated teacher's error rate.
pub(super) fn mistake_slider(ui: &mut Ui, rate: &mut f64) {
    ui.spacing_mut().slider_width = (ui.available_width() - 62.0).max(40.0);
    let slider = Slider::new(rate, 0.0..=0.5)
        .step_by(0.01)
        .custom_formatter(|rate, _| format!("{:.0} %", 100.0 * rate))
        .custom_parser(|text| text.trim_end_matches(['%', ' ']).parse::<f64>().ok().map(|percent| percent / 100.0));
    ui.name_inputs("Share of mistakes", |ui| ui.add(slider).accessible_name("Share of mistakes"));
}

/// A labelled field: its name on the left, the field in the rest of the row.
pub(super) fn row(ui: &mut Ui, name: &str, field: impl FnOnce(&mut Ui)) {
    let palette = Palette::of(ui.ctx());
    ui.horizontal(|ui| {
        ui.allocate_ui_with_layout(vec2(80.0, 26.0), Layout::left_to_right(Align::Center), |ui| {
            ui.set_min_width(80.0);
            ui.label(RichText::new(name).color(palette.muted));
        });
        field(ui);
    });
}

/// A line of text with figures at its right end.
pub(super) fn two_ends(ui: &mut Ui, left: &str, right: &str) -> egui::Response {
    let palette = Palette::of(ui.ctx());
    ui.horizontal(|ui| {
        ui.spacing_mut().interact_size.y = 16.0;
        ui.label(RichText::new(left).small().color(palette.text));
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.label(RichText::new(right).font(FontId::new(11.5, semibold())).color(palette.muted));
        });
    })
    .response
}

/// One small chart: faint as measured, strong as smoothed.
fn show_curve(ui: &mut Ui, name: &str, spoken: &str, drawn: Option<&Drawn>, color: egui::Color32) {
    let palette = Palette::of(ui.ctx());
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), CURVE_HEIGHT), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, spoken));
    ui.painter().hline(rect.x_range(), rect.bottom(), Stroke::new(1.0, palette.line));
    let Some(drawn) = drawn.filter(|drawn| drawn.smooth.len() > 1) else {
        let words = "No points yet";
        ui.painter().text(rect.center(), Align2::CENTER_CENTER, words, FontId::proportional(11.5), palette.muted);
        return;
    };
    let inside = Rect::from_min_max(rect.min, rect.max - vec2(0.0, 2.0));
    let mut child = ui.new_child(egui::UiBuilder::new().max_rect(inside));
    let (width, height) = (inside.width(), inside.height());
    Plot::new(name)
        .width(width)
        .height(height)
        .sense(Sense::hover())
        .show_background(false)
        .show_axes(Vec2b::FALSE)
        .show_grid(Vec2b::FALSE)
        .show_crosshair(false)
        .allow_zoom(false)
        .allow_drag(false)
        .allow_scroll(false)
        .allow_boxed_zoom(false)
        .allow_double_click_reset(false)
        .set_margin_fraction(vec2(0.01, 0.12))
        .label_formatter(|hover| match hover {
            egui_plot::HoverPosition::NearDataPoint { position, .. } => {
                Some(format!("{} at step {}", number(position.y), count(position.x)))
            }
            egui_plot::HoverPosition::Elsewhere { .. } => None,
        })
        .show(&mut child, |plot| {
            let faint = color.gamma_multiply(0.3);
            plot.line(
                Line::new("measured", PlotPoints::Borrowed(&drawn.raw)).color(faint).width(1.0).allow_hover(false),
            );
            plot.line(Line::new("smoothed", PlotPoints::Borrowed(&drawn.smooth)).color(color).width(1.8));
        });
}
