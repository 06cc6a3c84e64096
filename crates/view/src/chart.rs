//! Learning curves and scatter plots as charts that are fit for a paper.

use super::Picture;
use super::film::{self, FilmError};
use super::text::{self, averaged};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// One curve or one kind of points: its name, and its points as `[x, y]`, those of a curve with non-decreasing x.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// Shown in the legend if there are several curves.
    pub name: &'a str,
    /// What was measured, unsmoothed. Points that are not finite are left out.
    pub points: &'a [[f64; 2]],
}

impl<'a> Series<'a> {
    /// Its name and its finite points.
    fn finite(&self) -> (&'a str, Vec<[f64; 2]>) {
        (self.name, self.points.iter().copied().filter(|p| p.iter().all(|v| v.is_finite())).collect())
    }
}

/// Why there is no chart.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// Nothing was measured.
    #[error("there are no points yet, so there is no curve to draw")]
    NoPoints,
    /// It could not be drawn.
    #[error("the chart could not be drawn: {0}")]
    Draw(String),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] FilmError),
}

/// Pixels of the picture.
const SIZE: (u32, u32) = (1200, 750);
/// The chart is drawn this many times larger and averaged down, for even lines and well-placed letters.
const FINE: u32 = 3;
/// Standard deviation of the smoothing, as a share of the width of the chart.
const BLUR: f64 = 0.02;
/// The most points that are drawn of a curve. More would lie within a pixel of each other.
const DRAWN: usize = 800;

static INK: RGBColor = RGBColor(34, 40, 49);
static QUIET: RGBColor = RGBColor(108, 117, 128);
const GRID: RGBColor = RGBColor(232, 235, 239);
/// After Okabe and Ito (2008), so that colour-blind people can tell them apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(148, 110, 20),
];

/// A chart of `series` as a PNG file. Each curve is drawn faintly as measured, and strongly as smoothed.
pub fn curve_png(path: &Path, title: &str, x_label: &str, y_label: &str, series: &[Series]) -> Result<(), ChartError> {
    Ok(film::png(path, &curve(title, x_label, y_label, series)?)?)
}

/// The same chart as a picture.
pub fn curve(title: &str, x_label: &str, y_label: &str, series: &[Series]) -> Result<Picture, ChartError> {
    let curves = series.iter().map(Series::finite).filter(|(_, p)| !p.is_empty()).collect::<Vec<_>>();
    if curves.is_empty() {
        return Err(ChartError::NoPoints);
    }
    drawn(|area| draw(area, [title, x_label, y_label], &curves))
}

/// A scatter plot as a PNG file: the points of each of `series` with a mark of its own, and a line through those of
/// `line`, if it has any.
pub fn scatter_png(
    path: &Path,
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[Series],
    line: Series,
) -> Result<(), ChartError> {
    Ok(film::png(path, &scatter(title, x_label, y_label, series, line)?)?)
}

/// The same plot as a picture.
pub fn scatter(
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[Series],
    line: Series,
) -> Result<Picture, ChartError> {
    let groups = series.iter().map(Series::finite).filter(|(_, p)| !p.is_empty()).collect::<Vec<_>>();
    let line = line.finite();
    if groups.is_empty() && line.1.is_empty() {
        return Err(ChartError::NoPoints);
    }
    drawn(|area| draw_points(area, [title, x_label, y_label], &groups, &line))
}

/// The picture that `draw` makes.
fn drawn(draw: impl FnOnce(&Area) -> Result<(), Box<dyn std::error::Error>>) -> Result<Picture, ChartError> {
    let size = (FINE * SIZE.0, FINE * SIZE.1);
    let mut fine = vec![255; 3 * size.0 as usize * size.1 as usize];
    {
        let area = BitMapBackend::with_buffer(&mut fine, size).into_drawing_area();
        draw(&area).map_err(|e| ChartError::Draw(e.to_string()))?;
    }
    let rgb = averaged(&fine, size, FINE);
    let rgba = rgb.chunks_exact(3).flat_map(|c| [c[0], c[1], c[2], 255]).collect();
    Ok(Picture { width: SIZE.0, height: SIZE.1, rgba })
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

type Chart<'a> = ChartContext<'a, BitMapBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn px(n: u32) -> u32 {
    n * FINE
}

fn font(size: u32, style: FontStyle, colour: &'static RGBColor) -> TextStyle<'static> {
    TextStyle::from(text::font(px(size), style)).color(colour)
}

/// The left edge of titles and legends.
const LEFT: u32 = 28;

/// Draws the title and the name of the y axis under it. Returns where a legend beside that name begins.
fn draw_title(area: &Area, title: &str, y_label: &str) -> Result<(i32, i32), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let left = px(LEFT) as i32;
    area.draw(&Text::new(title.to_string(), (left, px(20) as i32), font(30, FontStyle::Bold, &INK)))?;
    // The legend stands under the title, where no curve can run into it.
    let y = px(70) as i32;
    let y_name = font(21, FontStyle::Normal, &QUIET);
    area.draw(&Text::new(y_label.to_string(), (left, y), y_name.clone()))?;
    Ok((left + y_name.font.box_size(y_label).map_or(0, |(w, _)| w as i32) + px(36) as i32, y))
}

/// Draws the axes around all of these points, with a margin on the right for `room` pixels of legend.
fn draw_axes<'a>(
    area: &Area<'a>,
    x_label: &str,
    x_margin: f64,
    room: u32,
    points: impl Iterator<Item = [f64; 2]> + Clone,
) -> Result<(Chart<'a>, [f64; 2]), Box<dyn std::error::Error>> {
    let [x_low, x_high] = widened(range(points.clone().map(|p| p[0])), x_margin);
    let [y_low, y_high] = widened(range(points.map(|p| p[1])), 0.06);
    let body = area.margin(px(104), px(16), px(20), px(44 + room));
    let mut chart = ChartBuilder::on(&body)
        .x_label_area_size(px(64))
        .y_label_area_size(px(72))
        .build_cartesian_2d(x_low..x_high, y_low..y_high)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID.stroke_width(px(1)))
        .axis_style(QUIET.stroke_width(px(1)))
        .set_all_tick_mark_size(px(5))
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|v| short(*v))
        .y_label_formatter(&|v| short(*v))
        .y_label_offset(px(4))
        .label_style(font(20, FontStyle::Normal, &QUIET))
        .draw()?;
    let (width, height) = area.dim_in_pixel();
    let x_name = font(21, FontStyle::Normal, &QUIET).pos(Pos::new(HPos::Right, VPos::Bottom));
    let corner = ((width - px(44 + room)) as i32, (height - px(14)) as i32);
    area.draw(&Text::new(x_label.to_string(), corner, x_name))?;
    Ok((chart, [x_low, x_high]))
}

fn pairs(points: &[[f64; 2]]) -> Vec<(f64, f64)> {
    points.iter().map(|p| (p[0], p[1])).collect()
}

fn draw(
    area: &Area,
    [title, x_label, y_label]: [&str; 3],
    curves: &[(&str, Vec<[f64; 2]>)],
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut legend_x, legend_y) = draw_title(area, title, y_label)?;
    if curves.len() > 1 {
        for (i, (name, _)) in curves.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let middle = legend_y + px(12) as i32;
            let end = legend_x + px(28) as i32;
            area.draw(&PathElement::new([(legend_x, middle), (end, middle)], colour.stroke_width(px(4))))?;
            let words = font(21, FontStyle::Normal, &INK);
            let wide = words.font.box_size(name).map_or(0, |(w, _)| w as i32);
            area.draw(&Text::new(name.to_string(), (end + px(10) as i32, legend_y), words))?;
            legend_x = end + wide + px(36) as i32;
        }
    }
    let all = curves.iter().flat_map(|(_, points)| points.iter().copied());
    let (mut chart, [x_low, x_high]) = draw_axes(area, x_label, 0.0, 0, all)?;
    for (i, (_, points)) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        chart.draw_series(LineSeries::new(pairs(&thinned(points, DRAWN)), colour.mix(0.28).stroke_width(px(1))))?;
    }
    for (i, (_, points)) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        // Smooth before thinning. The other way round, chance would decide which points the smoothed curve follows.
        let strong = thinned(&smoothed(points, BLUR * (x_high - x_low)), DRAWN);
        chart.draw_series(LineSeries::new(pairs(&strong), colour.stroke_width(px(3))))?;
        if let Some(&[x, y]) = strong.last() {
            chart.draw_series([Circle::new((x, y), px(5), colour.filled())])?;
        }
    }
    area.present()?;
    Ok(())
}

/// Pixels on the right of a scatter plot for its legend.
const LEGEND: u32 = 230;

/// A corner of a mark's outline, in units of its size.
type Corner = (f64, f64);

/// The outlines of marks: a disc, a triangle, a square.
fn outline(shape: usize) -> Vec<Corner> {
    match shape % 3 {
        0 => (0..24).map(|i| (f64::from(i) * std::f64::consts::TAU / 24.0).sin_cos()).collect(),
        1 => vec![(0.0, -1.3), (1.15, 0.8), (-1.15, 0.8)],
        _ => vec![(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    }
}

/// The mark of the `i`-th kind of points in pixels around a point: colours first, then shapes.
fn mark(i: usize, (x, y): (i32, i32)) -> Polygon<(i32, i32)> {
    let size = f64::from(px(7));
    let corner = |(dx, dy): Corner| (x + (size * dx).round() as i32, y + (size * dy).round() as i32);
    let corners: Vec<(i32, i32)> = outline(i / COLOURS.len()).into_iter().map(corner).collect();
    Polygon::new(corners, COLOURS[i % COLOURS.len()].mix(0.85).filled())
}

fn draw_points(
    area: &Area,
    [title, x_label, y_label]: [&str; 3],
    groups: &[(&str, Vec<[f64; 2]>)],
    (line_name, line): &(&str, Vec<[f64; 2]>),
) -> Result<(), Box<dyn std::error::Error>> {
    draw_title(area, title, y_label)?;
    let all = groups.iter().flat_map(|(_, points)| points.iter().copied()).chain(line.iter().copied());
    let (mut chart, _) = draw_axes(area, x_label, 0.03, LEGEND, all)?;
    chart.draw_series(LineSeries::new(pairs(line), INK.mix(0.6).stroke_width(px(2))))?;
    for (i, (_, points)) in groups.iter().enumerate() {
        for point in pairs(points) {
            area.draw(&mark(i, chart.backend_coord(&point)))?;
        }
    }
    let (left, words) = ((area.dim_in_pixel().0 - px(LEGEND + 16)) as i32, font(20, FontStyle::Normal, &INK));
    let row = |i: usize| px(120 + 32 * i as u32) as i32;
    for (i, (name, _)) in groups.iter().enumerate() {
        area.draw(&mark(i, (left, row(i))))?;
        area.draw(&Text::new(name.to_string(), (left + px(20) as i32, row(i) - px(5) as i32), words.clone()))?;
    }
    if !line.is_empty() {
        let y = row(groups.len());
        area.draw(&PathElement::new([(left - px(9) as i32, y), (left + px(9) as i32, y)], INK.stroke_width(px(2))))?;
        area.draw(&Text::new(line_name.to_string(), (left + px(20) as i32, y - px(5) as i32), words))?;
    }
    area.present()?;
    Ok(())
}

/// Smooths by local linear regression (Cleveland 1979). Each y becomes the value at x of the straight line that fits
/// all points best, under Gaussian weights around x with standard deviation `deviation`, in units of x. Unlike a moving
/// average, the result does not bend at the ends of a rising curve.
pub fn smoothed(points: &[[f64; 2]], deviation: f64) -> Vec<[f64; 2]> {
    points
        .iter()
        .map(|&[x, y]| {
            let start = points.partition_point(|p| p[0] < x - 3.0 * deviation);
            let end = points.partition_point(|p| p[0] <= x + 3.0 * deviation);
            // Moments of the offsets u from x, in units of `deviation`, and of the values relative to y.
            let (mut s0, mut s1, mut s2, mut t0, mut t1) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for p in &points[start..end] {
                let (u, v) = ((p[0] - x) / deviation, p[1] - y);
                let weight = (-0.5 * u * u).exp();
                s0 += weight;
                s1 += weight * u;
                s2 += weight * u * u;
                t0 += weight * v;
                t1 += weight * u * v;
            }
            let spread = s0 * s2 - s1 * s1;
            let fitted = if spread > 1e-9 * s0 * s0 { (s2 * t0 - s1 * t1) / spread } else { t0 / s0.max(1e-300) };
            [x, y + fitted]
        })
        .collect()
}

/// Thins the points to at most about `most`. It keeps the first, the last, and the lowest and highest of each stretch,
/// so that no peak is lost.
pub fn thinned(points: &[[f64; 2]], most: usize) -> Vec<[f64; 2]> {
    if points.len() <= most.max(4) {
        return points.to_vec();
    }
    let stretch = (points.len() - 2).div_ceil((most.max(4) - 2) / 2);
    let mut kept = vec![points[0]];
    for chunk in points[1..points.len() - 1].chunks(stretch) {
        let extreme =
            |sign: f64| (0..chunk.len()).max_by(|&a, &b| (sign * chunk[a][1]).total_cmp(&(sign * chunk[b][1])));
        let mut ends = [extreme(-1.0), extreme(1.0)].into_iter().flatten().collect::<Vec<_>>();
        ends.sort_unstable();
        ends.dedup();
        kept.extend(ends.into_iter().map(|i| chunk[i]));
    }
    kept.push(points[points.len() - 1]);
    kept
}

fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)])
}

/// A range extended at each end by a share of its width, and never empty.
fn widened([low, high]: [f64; 2], share: f64) -> [f64; 2] {
    let span = if high > low { high - low } else { low.abs().max(1.0) };
    let high = if high > low { high } else { low + span };
    [low - share * span, high + share * span]
}

/// A tick's number in short: 0, 250, 1.5k, 2M.
pub fn short(value: f64) -> String {
    let (scale, unit) = match value.abs() {
        a if a >= 999_500_000.0 => (1e9, "G"),
        a if a >= 999_500.0 => (1e6, "M"),
        a if a >= 999.5 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let scaled = value / scale;
    let text = if scaled.abs() >= 100.0 { format!("{scaled:.0}") } else { format!("{scaled:.2}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let text = if text == "-0" { "0" } else { text };
    format!("{}{unit}", text.replace('-', "−"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_brief() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.25, "0.25"),
            (-3.0, "−3"),
            (100.0, "100"),
            (999.0, "999"),
            (1000.0, "1k"),
            (1500.0, "1.5k"),
            (-12_500.0, "−12.5k"),
            (250_000.0, "250k"),
            (1_000_000.0, "1M"),
            (2_500_000_000.0, "2.5G"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn smoothing_leaves_a_line_alone_and_takes_noise_out() {
        let line = (0..200).map(|i| [f64::from(i), 3.0 * f64::from(i) - 7.0]).collect::<Vec<_>>();
        for (a, b) in smoothed(&line, 5.0).iter().zip(&line) {
            assert!((a[1] - b[1]).abs() < 1e-9, "{a:?} {b:?}");
        }
        let zigzag = (0..200).map(|i| [f64::from(i), f64::from(i % 2)]).collect::<Vec<_>>();
        for p in &smoothed(&zigzag, 5.0)[20..180] {
            assert!((p[1] - 0.5).abs() < 1e-3, "{p:?}");
        }
        assert!(smoothed(&[], 1.0).is_empty());
        assert_eq!(smoothed(&[[1.0, 2.0]], 1.0), [[1.0, 2.0]]);
    }

    #[test]
    fn thinning_keeps_ends_peaks_and_order() {
        let mut points = (0..10_000).map(|i| [f64::from(i), (f64::from(i) * 0.01).sin()]).collect::<Vec<_>>();
        points[4321][1] = 9.0;
        points[6543][1] = -9.0;
        let thin = thinned(&points, 500);
        assert!(thin.len() <= 500, "{}", thin.len());
        for i in [0, 4321, 6543, 9999] {
            assert!(thin.contains(&points[i]), "{i}");
        }
        assert!(thin.is_sorted_by(|a, b| a[0] < b[0]));
    }

    #[test]
    fn a_curve_is_where_its_axes_say() {
        // A step from the bottom to the top at half the width. The strong colour fills the lower left and the upper
        // right.
        let points = (0..=100).map(|i| [f64::from(i), if i < 50 { 0.0 } else { 1000.0 }]).collect::<Vec<_>>();
        let picture = curve("A step", "x", "y", &[Series { name: "step", points: &points }]).unwrap();
        let strong = |x0: u32, x1: u32, y0: u32, y1: u32| {
            let ours = COLOURS[0];
            let is = |x, y| {
                let [r, g, b] = picture.rgb(x, y);
                r.abs_diff(ours.0) < 12 && g.abs_diff(ours.1) < 12 && b.abs_diff(ours.2) < 12
            };
            (y0..y1).flat_map(|y| (x0..x1).map(move |x| (x, y))).filter(|&(x, y)| is(x, y)).count()
        };
        let (half_x, half_y) = (SIZE.0 / 2, SIZE.1 / 2);
        assert!(strong(0, half_x, half_y, SIZE.1) > 1000);
        assert!(strong(half_x, SIZE.0, 0, half_y) > 1000);
        assert!(strong(half_x + 60, SIZE.0, half_y + 60, SIZE.1) == 0);
        let nothing = Series { name: "none", points: &[[f64::NAN, 1.0]] };
        assert!(matches!(curve("Nothing", "x", "y", &[nothing]).unwrap_err(), ChartError::NoPoints));
        assert!(matches!(scatter("Nothing", "x", "y", &[nothing], nothing).unwrap_err(), ChartError::NoPoints));
    }

    #[test]
    fn each_kind_of_points_has_its_mark_where_the_points_are() {
        let names: Vec<String> = (0..12).map(|i| format!("kind {i}")).collect();
        let points: Vec<[[f64; 2]; 1]> = (0..12).map(|i| [[f64::from(i), f64::from(i)]]).collect();
        let series: Vec<Series> =
            names.iter().zip(&points).map(|(name, points)| Series { name, points: &points[..] }).collect();
        let line = Series { name: "line", points: &[[0.0, 11.0], [11.0, 0.0]] };
        let picture = scatter("Points", "x", "y", &series, line).unwrap();
        let near = |colour: RGBColor, x: u32, y: u32| {
            let [r, g, b] = picture.rgb(x, y);
            let mixed = |c: u8| (0.85 * f64::from(c) + 0.15 * 255.0) as u8;
            r.abs_diff(mixed(colour.0)) < 12 && g.abs_diff(mixed(colour.1)) < 12 && b.abs_diff(mixed(colour.2)) < 12
        };
        // The middle of the marks of a colour in the plot: halfway between the two points that have it.
        let plot = SIZE.0 - LEGEND - 44;
        let mut last = (0.0, f64::from(SIZE.1));
        for colour in COLOURS {
            let all = (80..SIZE.1 - 80).flat_map(|y| (100..plot).map(move |x| (x, y)));
            let found: Vec<(u32, u32)> = all.filter(|&(x, y)| near(colour, x, y)).collect();
            let count = found.len() as f64;
            let middle = found.iter().fold((0.0, 0.0), |sum, &(x, y)| (sum.0 + f64::from(x), sum.1 + f64::from(y)));
            let middle = (middle.0 / count, middle.1 / count);
            assert!(count > 100.0 && middle.0 > last.0 + 20.0 && middle.1 < last.1 - 20.0, "{middle:?} {last:?}");
            last = middle;
        }
    }
}
