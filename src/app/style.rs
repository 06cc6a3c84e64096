//! How the desk looks: two palettes, one type scale, one set of distances. No other file of the desk names a colour.

use egui::{
    Color32, CornerRadius, FontData, FontDefinitions, FontFamily, FontId, Margin, Stroke, TextStyle, Theme, vec2,
};
use std::sync::Arc;

/// Corner radius of cards and 3D views, points.
pub(super) const CARD_RADIUS: u8 = 10;
/// Corner radius of buttons and fields, points.
pub(super) const RADIUS: u8 = 6;
/// The gap between neighbouring cards, points.
pub(super) const GAP: f32 = 12.0;

/// The font family of the semi-bold weight, for headings and primary buttons.
pub(super) fn semibold() -> FontFamily {
    FontFamily::Name("semibold".into())
}

/// Every colour the desk uses, for one theme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Palette {
    /// Behind everything.
    pub ground: Color32,
    /// Panels and bars.
    pub surface: Color32,
    /// Cards and fields on a panel.
    pub card: Color32,
    /// A control at rest.
    pub control: Color32,
    /// A control under the pointer.
    pub control_hot: Color32,
    /// Hairlines.
    pub line: Color32,
    /// Text.
    pub text: Color32,
    /// Secondary text.
    pub muted: Color32,
    /// The left clip: blue, which every kind of colour vision can tell from `right`.
    pub left: Color32,
    /// The right clip: orange.
    pub right: Color32,
    /// Progress, and the button that starts it.
    pub accent: Color32,
    /// Text on `accent`, `left` or `right`.
    pub on_accent: Color32,
    /// Something needs the person's attention.
    pub warning: Color32,
    /// Something went wrong.
    pub error: Color32,
}

impl Palette {
    /// For dark surroundings.
    pub const DARK: Palette = Palette {
        ground: Color32::from_rgb(0x12, 0x14, 0x18),
        surface: Color32::from_rgb(0x19, 0x1c, 0x21),
        card: Color32::from_rgb(0x21, 0x25, 0x2b),
        control: Color32::from_rgb(0x2b, 0x30, 0x38),
        control_hot: Color32::from_rgb(0x36, 0x3c, 0x46),
        line: Color32::from_rgb(0x30, 0x35, 0x3d),
        text: Color32::from_rgb(0xe6, 0xe9, 0xee),
        muted: Color32::from_rgb(0x99, 0xa2, 0xae),
        left: Color32::from_rgb(0x5a, 0xa2, 0xff),
        right: Color32::from_rgb(0xff, 0xa0, 0x4d),
        accent: Color32::from_rgb(0x4f, 0xc3, 0xa1),
        on_accent: Color32::from_rgb(0x0c, 0x12, 0x16),
        warning: Color32::from_rgb(0xf0, 0xc0, 0x5a),
        error: Color32::from_rgb(0xff, 0x7b, 0x72),
    };

    /// For bright surroundings.
    pub const LIGHT: Palette = Palette {
        ground: Color32::from_rgb(0xf4, 0xf6, 0xf8),
        surface: Color32::from_rgb(0xf8, 0xf9, 0xfb),
        card: Color32::from_rgb(0xff, 0xff, 0xff),
        control: Color32::from_rgb(0xe8, 0xeb, 0xef),
        control_hot: Color32::from_rgb(0xdb, 0xe0, 0xe6),
        line: Color32::from_rgb(0xd9, 0xdd, 0xe3),
        text: Color32::from_rgb(0x1b, 0x20, 0x27),
        muted: Color32::from_rgb(0x5a, 0x64, 0x71),
        left: Color32::from_rgb(0x1b, 0x62, 0xd6),
        right: Color32::from_rgb(0xb4, 0x50, 0x04),
        accent: Color32::from_rgb(0x0f, 0x7f, 0x63),
        on_accent: Color32::from_rgb(0xff, 0xff, 0xff),
        warning: Color32::from_rgb(0x8f, 0x62, 0x00),
        error: Color32::from_rgb(0xc0, 0x2b, 0x22),
    };

    /// The palette of the current theme.
    pub fn of(ctx: &egui::Context) -> Palette {
        match ctx.theme() {
            Theme::Dark => Palette::DARK,
            Theme::Light => Palette::LIGHT,
        }
    }

    /// The colour of a side: 0 left, 1 right.
    pub fn side(&self, side: usize) -> Color32 {
        if side == 0 { self.left } else { self.right }
    }
}

/// Sets the desk's fonts, sizes, distances and both themes.
pub(super) fn apply(ctx: &egui::Context) {
    ctx.set_fonts(fonts());
    for (theme, palette) in [(Theme::Dark, Palette::DARK), (Theme::Light, Palette::LIGHT)] {
        ctx.style_mut_of(theme, |style| set(style, palette));
    }
}

fn fonts() -> FontDefinitions {
    let mut fonts = FontDefinitions::default();
    let cuts: [(&str, &'static [u8]); 2] = [
        ("Inter", include_bytes!("../../assets/fonts/Inter-Regular.ttf")),
        ("Inter SemiBold", include_bytes!("../../assets/fonts/Inter-SemiBold.ttf")),
    ];
    for (name, bytes) in cuts {
        fonts.font_data.insert(name.to_owned(), Arc::new(FontData::from_static(bytes)));
    }
    // Glyphs that Inter lacks (Greek in a session's name, say) come from egui's own fonts.
    let fallback = fonts.families.get(&FontFamily::Proportional).cloned().unwrap_or_default();
    let family = |first: &str| std::iter::once(first.to_owned()).chain(fallback.iter().cloned()).collect::<Vec<_>>();
    fonts.families.insert(FontFamily::Proportional, family("Inter"));
    fonts.families.insert(semibold(), family("Inter SemiBold"));
    fonts
}

fn set(style: &mut egui::Style, palette: Palette) {
    style.text_styles = [
        (TextStyle::Heading, FontId::new(17.0, semibold())),
        (TextStyle::Body, FontId::new(13.0, FontFamily::Proportional)),
        (TextStyle::Button, FontId::new(13.0, FontFamily::Proportional)),
        (TextStyle::Small, FontId::new(11.5, FontFamily::Proportional)),
        (TextStyle::Monospace, FontId::new(12.0, FontFamily::Monospace)),
    ]
    .into();

    let spacing = &mut style.spacing;
    spacing.item_spacing = vec2(8.0, 6.0);
    spacing.button_padding = vec2(10.0, 4.0);
    spacing.interact_size = vec2(36.0, 26.0);
    spacing.menu_margin = Margin::same(6);
    spacing.window_margin = Margin::same(16);
    spacing.combo_height = 320.0;
    spacing.slider_rail_height = 4.0;
    spacing.tooltip_width = 320.0;
    style.interaction.tooltip_delay = 0.4;
    style.interaction.selectable_labels = false;
    style.animation_time = 0.12;

    let visuals = &mut style.visuals;
    visuals.panel_fill = palette.surface;
    visuals.window_fill = palette.surface;
    visuals.window_stroke = Stroke::new(1.0, palette.line);
    visuals.window_corner_radius = CornerRadius::same(CARD_RADIUS);
    visuals.menu_corner_radius = CornerRadius::same(CARD_RADIUS);
    visuals.extreme_bg_color = palette.ground;
    visuals.faint_bg_color = palette.card;
    visuals.code_bg_color = palette.card;
    visuals.hyperlink_color = palette.left;
    visuals.warn_fg_color = palette.warning;
    visuals.error_fg_color = palette.error;
    visuals.weak_text_color = Some(palette.muted);
    visuals.selection.bg_fill = palette.left.gamma_multiply(0.35);
    visuals.selection.stroke = Stroke::new(1.0, palette.text);
    visuals.slider_trailing_fill = true;
    visuals.handle_shape = egui::style::HandleShape::Circle;
    visuals.striped = false;

    let widgets = &mut visuals.widgets;
    let radius = CornerRadius::same(RADIUS);
    for (widget, fill, outline) in [
        (&mut widgets.noninteractive, palette.surface, palette.line),
        (&mut widgets.inactive, palette.control, palette.line),
        (&mut widgets.hovered, palette.control_hot, palette.muted),
        (&mut widgets.active, palette.control_hot, palette.text),
        (&mut widgets.open, palette.control_hot, palette.line),
    ] {
        widget.bg_fill = fill;
        widget.weak_bg_fill = fill;
        widget.bg_stroke = Stroke::new(1.0, outline);
        widget.fg_stroke = Stroke::new(1.0, palette.text);
        widget.corner_radius = radius;
        widget.expansion = 0.0;
    }
    widgets.inactive.bg_stroke = Stroke::NONE;
    widgets.hovered.bg_stroke = Stroke::NONE;
    widgets.open.bg_stroke = Stroke::NONE;
}

/// WCAG 2.1's contrast ratio of two opaque sRGB colours (§1.4.3 and the definition of relative luminance).
#[cfg(test)]
pub(super) fn contrast(a: Color32, b: Color32) -> f64 {
    let luminance = |c: Color32| {
        let channel = |v: u8| {
            let v = f64::from(v) / 255.0;
            if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(c.r()) + 0.7152 * channel(c.g()) + 0.0722 * channel(c.b())
    };
    let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
    a.max(b) / a.min(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_can_be_read_in_both_themes() {
        for palette in [Palette::DARK, Palette::LIGHT] {
            for ground in [palette.ground, palette.surface, palette.card] {
                for ink in [palette.text, palette.muted, palette.left, palette.right, palette.warning, palette.error] {
                    let ratio = contrast(ink, ground);
                    assert!(ratio >= 4.5, "{ink:?} on {ground:?} has a contrast of {ratio:.2}; WCAG AA asks for 4.5");
                }
            }
            for fill in [palette.left, palette.right, palette.accent] {
                assert!(contrast(palette.on_accent, fill) >= 4.5, "words on {fill:?}");
            }
        }
    }
}
