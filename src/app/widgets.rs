//! Widgets that egui lacks: keys to press, icons, meters. Each handles input and sets its accessible name before it
//! paints.

use super::commands::DeskCommand;
use super::style::{Palette, RADIUS, semibold};
use egui::scroll_area::ScrollAreaOutput;
use egui::{
    Align2, Color32, CornerRadius, CursorIcon, FontFamily, FontId, Pos2, Rect, Response, Role, Sense, Shape, Stroke,
    StrokeKind, Ui, Vec2, WidgetInfo, pos2, vec2,
};

/// An icon on a small button. It is painted rather than written, so that it does not depend on a font.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Icon {
    /// A triangle.
    Play,
    /// Two bars.
    Pause,
    /// A bar and a triangle, pointing back.
    StepBack,
    /// A triangle and a bar, pointing forward.
    StepForward,
    /// A ring with an arrowhead.
    Loop,
}

impl Icon {
    fn paint(self, painter: &egui::Painter, rect: Rect, color: Color32) {
        let at = |x: f32, y: f32| rect.center() + vec2(x, y) * rect.width() * 0.5;
        let triangle = |points: [Pos2; 3]| Shape::convex_polygon(points.to_vec(), color, Stroke::NONE);
        let bar = |x: f32| {
            let bar = Rect::from_center_size(at(x, 0.0), vec2(0.14, 0.76) * rect.width());
            painter.rect_filled(bar, 1.0, color);
        };
        match self {
            Icon::Play => drop(painter.add(triangle([at(-0.5, -0.75), at(0.75, 0.0), at(-0.5, 0.75)]))),
            Icon::Pause => [-0.34, 0.34].into_iter().for_each(bar),
            Icon::StepBack => {
                bar(-0.5);
                painter.add(triangle([at(0.6, -0.65), at(-0.25, 0.0), at(0.6, 0.65)]));
            }
            Icon::StepForward => {
                bar(0.5);
                painter.add(triangle([at(-0.6, -0.65), at(0.25, 0.0), at(-0.6, 0.65)]));
            }
            Icon::Loop => {
                let ring: Vec<Pos2> = (0..=20)
                    .map(|i| {
                        let angle = 0.6 + i as f32 / 20.0 * 5.1;
                        at(0.7 * angle.cos(), 0.7 * angle.sin())
                    })
                    .collect();
                let tip = ring[20];
                painter.add(Shape::line(ring, Stroke::new(1.6, color)));
                let away = vec2(0.22, 0.22) * rect.width();
                painter.add(triangle([
                    tip + vec2(-away.x, -away.y),
                    tip + vec2(away.x, -away.y * 0.2),
                    tip + vec2(-away.x * 0.3, away.y),
                ]));
            }
        }
    }
}

/// A square icon button for a command. `on` marks a switch that is on.
pub(super) fn icon_button(ui: &mut Ui, command: DeskCommand, icon: Icon, name: &str, on: bool, enabled: bool) -> bool {
    let sense = if enabled { Sense::click() } else { Sense::hover() };
    let (rect, response) = ui.allocate_exact_size(Vec2::splat(30.0), sense);
    response.widget_info(|| WidgetInfo::selected(Role::Button, enabled, on, name));
    let palette = Palette::of(ui.ctx());
    let color = match (enabled, on) {
        (false, _) => palette.muted.gamma_multiply(0.5),
        (true, true) => palette.text,
        (true, false) => palette.muted,
    };
    if response.hovered() || response.has_focus() {
        ui.painter().rect_filled(rect, RADIUS, palette.control);
    }
    focus_ring(ui, &response, rect);
    icon.paint(ui.painter(), Rect::from_center_size(rect.center(), Vec2::splat(15.0)), color);
    tip(response, command).clicked() && enabled
}

/// One of several options in a strip. `name` is the text for screen readers.
pub(super) fn segment(ui: &mut Ui, salt: (&str, usize), rect: Rect, text: &str, name: &str, chosen: bool) -> Response {
    let palette = Palette::of(ui.ctx());
    let response = ui.interact(rect, ui.scope_id().with(salt), Sense::click());
    response.widget_info(|| WidgetInfo::selected(Role::RadioButton, true, chosen, name));
    let ink = if chosen || response.hovered() { palette.text } else { palette.muted };
    if chosen {
        ui.painter().rect_filled(rect.shrink(2.0), CornerRadius::same(RADIUS - 1), palette.control_hot);
    }
    focus_ring(ui, &response, rect);
    let font = FontId::new(11.5, if chosen { semibold() } else { FontFamily::Proportional });
    ui.painter().text(rect.center(), Align2::CENTER_CENTER, text, font, ink);
    response
}

/// Names a scroll area's bars, if it has some.
pub(super) fn name_scroll_bar<R>(ui: &Ui, scrolled: &ScrollAreaOutput<R>, name: &str) {
    for axis in 0..2_usize {
        if scrolled.content_size[axis] > scrolled.inner_rect.size()[axis] {
            // egui gives the bar of an axis this id, but no name.
            ui.ctx().accesskit_node_builder(scrolled.id.with(axis), |node| node.set_label(name));
        }
    }
}

/// Adds a command's tooltip and key to the widget that gives it.
pub(super) fn tip(response: Response, command: DeskCommand) -> Response {
    let (spec, key) = (command.spec(), command.key_text());
    if key.is_empty() {
        response.on_hover_text(spec.tooltip)
    } else {
        response.on_hover_text(format!("{} ({key})", spec.tooltip))
    }
}

/// A large answer button, with its key, its label and its colour.
pub(super) fn answer_button(
    ui: &mut Ui,
    rect: Rect,
    command: DeskCommand,
    color: Option<Color32>,
    enabled: bool,
) -> bool {
    let spec = command.spec();
    let id = ui.scope_id().with(("answer", spec.label));
    let response = ui.interact(rect, id, if enabled { Sense::click() } else { Sense::hover() });
    response.widget_info(|| WidgetInfo::labeled(Role::Button, enabled, spec.label));
    let palette = Palette::of(ui.ctx());
    let hot = enabled && (response.hovered() || response.is_pointer_button_down_on());
    let ink = if enabled { palette.text } else { palette.muted.gamma_multiply(0.6) };
    // An outline at rest, and a fill only under the pointer.
    let fill = match color {
        Some(color) if hot => mix(palette.ground, color, 0.3),
        None if hot => palette.control,
        _ => Color32::TRANSPARENT,
    };
    let outline = match color {
        Some(color) if enabled => color.gamma_multiply(if hot { 1.0 } else { 0.75 }),
        _ if enabled => palette.control_hot,
        _ => palette.line,
    };
    ui.painter().rect(rect, RADIUS + 2, fill, Stroke::new(1.25, outline), StrokeKind::Inside);
    focus_ring(ui, &response, rect);

    let font = FontId::new(14.0, semibold());
    let label = ui.painter().layout_no_wrap(spec.label.to_owned(), font, ink);
    let cap_side = 22.0;
    let total = cap_side + 9.0 + label.size().x;
    // The right answer shows its key on the right, as the arrow keys lie.
    let mirrored = command == DeskCommand::PickRight;
    let left = rect.center().x - total * 0.5;
    let (cap_x, label_x) = if mirrored { (left + total - cap_side, left) } else { (left, left + cap_side + 9.0) };
    key_cap(
        ui,
        Rect::from_min_size(pos2(cap_x, rect.center().y - 11.0), Vec2::splat(cap_side)),
        &command.key_text(),
        ink,
    );
    let label_y = rect.center().y - label.size().y * 0.5;
    ui.painter().galley(pos2(label_x, label_y), label, ink);
    let response = tip(response, command);
    response.clicked() && enabled
}

/// A key as it looks on a keyboard.
pub(super) fn key_cap(ui: &Ui, rect: Rect, text: &str, ink: Color32) {
    let palette = Palette::of(ui.ctx());
    ui.painter().rect(rect, 5.0, palette.card, Stroke::new(1.0, palette.control_hot), StrokeKind::Inside);
    ui.painter().text(rect.center(), Align2::CENTER_CENTER, text, FontId::new(12.5, semibold()), ink);
}

/// A wide button for the main action of its card: in the accent colour, or only an outline if not `filled`.
pub(super) fn main_button(ui: &mut Ui, label: &str, filled: bool) -> Response {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 32.0), Sense::click());
    response.widget_info(|| WidgetInfo::labeled(Role::Button, true, label));
    let palette = Palette::of(ui.ctx());
    let (fill, line, ink) = match (filled, response.hovered()) {
        (true, false) => (palette.accent, palette.accent, palette.on_accent),
        (true, true) => (mix(palette.accent, palette.text, 0.15), palette.accent, palette.on_accent),
        (false, false) => (Color32::TRANSPARENT, palette.control_hot, palette.text),
        (false, true) => (palette.control, palette.control_hot, palette.text),
    };
    ui.painter().rect(rect, RADIUS, fill, Stroke::new(1.0, line), StrokeKind::Inside);
    focus_ring(ui, &response, rect);
    ui.painter().text(rect.center(), Align2::CENTER_CENTER, label, FontId::new(13.0, semibold()), ink);
    response
}

/// A thin progress bar. `mark` puts a notch at the expected progress. `fraction` and `mark` are in 0..=1. `value` is
/// the text for screen readers.
pub(super) fn meter(
    ui: &mut Ui,
    name: &str,
    value: &str,
    fraction: f32,
    mark: Option<f32>,
    color: Color32,
) -> Response {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 8.0), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::ProgressIndicator, true, format!("{name}: {value}")));
    let palette = Palette::of(ui.ctx());
    let track = Rect::from_center_size(rect.center(), vec2(rect.width(), 5.0));
    let radius = CornerRadius::same(3);
    ui.painter().rect_filled(track, radius, palette.control);
    let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
    if fraction > 0.0 {
        let filled = Rect::from_min_size(track.min, vec2((track.width() * fraction).max(5.0), track.height()));
        ui.painter().rect_filled(filled, radius, color);
    }
    if let Some(mark) = mark.filter(|m| m.is_finite()) {
        let x = track.left() + track.width() * mark.clamp(0.0, 1.0);
        let notch = Rect::from_center_size(pos2(x, rect.center().y), vec2(2.0, 10.0));
        ui.painter().rect_filled(notch, 1.0, palette.text);
    }
    response
}

/// A small rounded label on a picture or a bar.
pub(super) fn chip(painter: &egui::Painter, at: Pos2, anchor: Align2, text: &str, fill: Color32, ink: Color32) -> Rect {
    let galley = painter.layout_no_wrap(text.to_owned(), FontId::new(11.5, FontFamily::Proportional), ink);
    let rect = anchor.anchor_size(at, galley.size() + vec2(14.0, 7.0));
    painter.rect_filled(rect, rect.height() * 0.5, fill);
    painter.galley(rect.center() - galley.size() * 0.5, galley, ink);
    rect
}

/// Covers the corners of a picture with the background, so that they look round. The line around the picture softens
/// the edge.
pub(super) fn round_corners(painter: &egui::Painter, rect: Rect, radius: f32, ground: Color32) {
    const STEPS: u32 = 8;
    let mut mesh = egui::Mesh::default();
    for (corner, inwards) in [
        (rect.left_top(), vec2(1.0, 1.0)),
        (rect.right_top(), vec2(-1.0, 1.0)),
        (rect.right_bottom(), vec2(-1.0, -1.0)),
        (rect.left_bottom(), vec2(1.0, -1.0)),
    ] {
        let first = mesh.vertices.len() as u32;
        mesh.colored_vertex(corner, ground);
        for step in 0..=STEPS {
            let angle = step as f32 / STEPS as f32 * std::f32::consts::FRAC_PI_2;
            let from_corner = vec2(1.0 - angle.cos(), 1.0 - angle.sin()) * radius;
            mesh.colored_vertex(corner + from_corner * inwards, ground);
            if step > 0 {
                mesh.add_triangle(first, first + step, first + step + 1);
            }
        }
    }
    painter.add(mesh);
}

/// The ring around the widget that has the keyboard's focus.
pub(super) fn focus_ring(ui: &Ui, response: &Response, rect: Rect) {
    if response.has_focus() {
        let palette = Palette::of(ui.ctx());
        ui.painter().rect_stroke(rect.expand(2.0), RADIUS + 2, Stroke::new(2.0, palette.left), StrokeKind::Inside);
    }
    if response.hovered() && response.sense.senses_click() {
        ui.ctx().set_cursor_icon(CursorIcon::PointingHand);
    }
}

/// Mixes `share` of `b` into `a`, by the stored values.
pub(super) fn mix(a: Color32, b: Color32, share: f32) -> Color32 {
    a.lerp_to_gamma(b, share)
}

/// A count in short: 950, 12.3k, 4.56M, 20M.
pub(super) fn count(n: f64) -> String {
    let (scaled, unit) = match n.abs() {
        m if m >= 1e9 => (n / 1e9, "G"),
        m if m >= 1e6 => (n / 1e6, "M"),
        m if m >= 1e4 => (n / 1e3, "k"),
        _ => return format!("{n:.0}"),
    };
    let digits = format!("{scaled:.*}", if unit == "k" { 1 } else { 2 });
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

/// A number of unknown size with about three significant digits.
pub(super) fn number(x: f64) -> String {
    match x.abs() {
        m if m >= 1e4 => count(x),
        m if m >= 100.0 => format!("{x:.0}"),
        m if m >= 1.0 => format!("{x:.2}"),
        0.0 => "0".to_owned(),
        m if m >= 1e-3 => format!("{x:.3}"),
        _ => format!("{x:.1e}"),
    }
}

/// A duration in short: 90 s, 5 min, 2 h 05 min.
pub(super) fn duration(seconds: f64) -> String {
    match seconds.max(0.0).ceil() as u64 {
        s @ 0..=90 => format!("{s} s"),
        s @ 91..=5400 => format!("{} min", s.div_ceil(60)),
        s => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_one_says_them() {
        let cases = [
            (0.0, "0"),
            (950.0, "950"),
            (9999.0, "9999"),
            (12_345.0, "12.3k"),
            (1_234_567.0, "1.23M"),
            (2e7, "20M"),
            (3.2e9, "3.2G"),
        ];
        for (n, expected) in cases {
            assert_eq!(count(n), expected);
        }
        for (x, expected) in
            [(0.0123, "0.012"), (-2.71, "-2.71"), (251.7, "252"), (4e-5, "4.0e-5"), (123_456.0, "123.5k")]
        {
            assert_eq!(number(x), expected);
        }
        for (s, expected) in [(0.2, "1 s"), (90.0, "90 s"), (91.0, "2 min"), (3600.0, "60 min"), (7260.0, "2 h 01 min")]
        {
            assert_eq!(duration(s), expected);
        }
    }
}
