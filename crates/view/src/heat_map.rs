//! Tables of numbers as colours: layers over positions, layers over heads.

use super::Picture;
use super::chart::{ChartError, short};
use super::film;
use super::text::{self, averaged};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// One table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatMap {
    /// What it shows.
    pub title: String,
    /// The columns' names, from left to right.
    pub columns: Vec<String>,
    /// The rows' names, from the bottom up, as the layers of a network lie.
    pub rows: Vec<String>,
    /// `[rows, columns]`, row by row. What is not finite stays blank.
    pub values: Vec<f64>,
    /// A word in each cell, in the values' order; empty for none.
    pub words: Vec<String>,
}

/// How numbers become colours, the same in all tables of a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Colours {
    /// From white at the first number to blue at the second.
    Sequential(f64, f64),
    /// White at 0, blue below and red above, to this number on either side.
    Diverging(f64),
}

impl Colours {
    /// From 0 to the largest of these numbers.
    pub fn sequential<'a>(values: impl IntoIterator<Item = &'a f64>) -> Colours {
        let high = values.into_iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
        Colours::Sequential(0.0, if high > 0.0 { high } else { 1.0 })
    }

    /// From minus the largest absolute number to plus the same.
    pub fn diverging<'a>(values: impl IntoIterator<Item = &'a f64>) -> Colours {
        let most = values.into_iter().copied().filter(|v| v.is_finite()).fold(0.0, |most: f64, v| most.max(v.abs()));
        Colours::Diverging(if most > 0.0 { most } else { 1.0 })
    }

    /// The numbers at the ends of the scale.
    fn ends(self) -> [f64; 2] {
        match self {
            Colours::Sequential(low, high) => [low, high],
            Colours::Diverging(most) => [-most, most],
        }
    }

    /// The colour of a number; numbers beyond the ends have the end's.
    fn of(self, value: f64) -> RGBColor {
        let mixed = |share: f64, end: RGBColor| {
            let mix = |from: u8, to: u8| (f64::from(from) + share * (f64::from(to) - f64::from(from))).round() as u8;
            RGBColor(mix(255, end.0), mix(255, end.1), mix(255, end.2))
        };
        match self {
            Colours::Sequential(low, high) => mixed(((value - low) / (high - low)).clamp(0.0, 1.0), BLUE),
            Colours::Diverging(most) if value < 0.0 => mixed((-value / most).clamp(0.0, 1.0), BLUE),
            Colours::Diverging(most) => mixed((value / most).clamp(0.0, 1.0), RED),
        }
    }
}

/// The picture is drawn this many times larger and averaged down, for even lines and well-placed letters.
const FINE: u32 = 2;
/// The most pixels that a side of the picture may have.
const LARGEST: u32 = 6000;
static INK: RGBColor = RGBColor(34, 40, 49);
static QUIET: RGBColor = RGBColor(108, 117, 128);
/// After Okabe and Ito (2008), so that colour-blind people can tell them apart.
const BLUE: RGBColor = RGBColor(0, 90, 160);
const RED: RGBColor = RGBColor(200, 80, 0);
const BLANK: RGBColor = RGBColor(232, 235, 239);

/// Pixels of the parts of a picture.
const LETTER: u32 = 15;
const MARGIN: u32 = 24;
const HEAD: u32 = 84;
const BAR: u32 = 110;

/// A picture of tables, at most `per_row` beside each other, with one colour bar, as a PNG file. `about` is a line
/// under the title: what was looked at.
///
/// # Errors
///
/// There are no numbers, or the file cannot be written.
pub fn heat_maps_png(
    path: &Path,
    [title, about, unit]: [&str; 3],
    maps: &[HeatMap],
    per_row: usize,
    colours: Colours,
) -> Result<(), ChartError> {
    Ok(film::png(path, &heat_maps([title, about, unit], maps, per_row, colours)?)?)
}

/// The same as a picture.
///
/// # Errors
///
/// There are no numbers.
pub fn heat_maps(
    [title, about, unit]: [&str; 3],
    maps: &[HeatMap],
    per_row: usize,
    colours: Colours,
) -> Result<Picture, ChartError> {
    let maps: Vec<&HeatMap> = maps.iter().filter(|map| !map.values.is_empty()).collect();
    if maps.is_empty() {
        return Err(ChartError::NoPoints);
    }
    let layout = Layout::of(&maps, per_row.max(1), [title, about]);
    let size = (layout.width * FINE, layout.height * FINE);
    let mut fine = vec![255; 3 * size.0 as usize * size.1 as usize];
    {
        let area = BitMapBackend::with_buffer(&mut fine, size).into_drawing_area();
        draw(&area, [title, about, unit], &maps, &layout, colours).map_err(|e| ChartError::Draw(e.to_string()))?;
    }
    let rgba = averaged(&fine, size, FINE).chunks_exact(3).flat_map(|c| [c[0], c[1], c[2], 255]).collect();
    Ok(Picture { width: layout.width, height: layout.height, rgba })
}

/// Where everything lies, in pixels of the picture.
struct Layout {
    width: u32,
    height: u32,
    per_row: usize,
    cell: [u32; 2],
    /// The widest name of a row, and the widest name of a column, which is written upright.
    names: [u32; 2],
    /// What one table takes.
    map: [u32; 2],
}

fn font(size: u32, style: FontStyle, colour: &'static RGBColor) -> TextStyle<'static> {
    TextStyle::from(text::font(size * FINE, style)).color(colour)
}

/// Pixels of the picture that a word is wide.
fn width_of(word: &str, size: u32) -> u32 {
    text::font(size * FINE, FontStyle::Normal).box_size(word).map_or(0, |(wide, _)| wide.div_ceil(FINE))
}

impl Layout {
    fn of(maps: &[&HeatMap], per_row: usize, heads: [&str; 2]) -> Layout {
        let widest = |words: &mut dyn Iterator<Item = &String>| words.map(|w| width_of(w, LETTER)).max().unwrap_or(0);
        let names = [
            widest(&mut maps.iter().flat_map(|map| &map.rows)).min(160),
            widest(&mut maps.iter().flat_map(|map| &map.columns)).min(160),
        ];
        let words = widest(&mut maps.iter().flat_map(|map| &map.words)).min(120);
        let [columns, rows] = [
            maps.iter().map(|map| map.columns.len()).max().unwrap_or(1).max(1) as u32,
            maps.iter().map(|map| map.rows.len()).max().unwrap_or(1).max(1) as u32,
        ];
        let across = maps.len().min(per_row) as u32;
        let down = maps.len().div_ceil(per_row) as u32;
        // Cells shrink before the picture becomes larger than anybody can look at.
        let room = |fixed: u32, count: u32| LARGEST.saturating_sub(fixed) / count.max(1);
        let wide = (words + 10).max(24).min(room(across * (names[0] + 2 * MARGIN) + BAR, across * columns)).max(2);
        let high = 24.min(room(HEAD + down * (names[1] + 3 * MARGIN), down * rows)).max(2);
        let map = [names[0] + 8 + columns * wide + MARGIN, 2 * LETTER + rows * high + names[1] + 8 + MARGIN];
        let head = heads.iter().zip([24, LETTER]).map(|(word, size)| width_of(word, size) + 2 * MARGIN).max();
        Layout {
            width: (MARGIN + across * map[0] + BAR).max(head.unwrap_or(0)).max(320),
            height: HEAD + (down * map[1]).max(200),
            per_row,
            cell: [wide, high],
            names,
            map,
        }
    }
}

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

fn draw(
    area: &Area,
    [title, about, unit]: [&str; 3],
    maps: &[&HeatMap],
    layout: &Layout,
    colours: Colours,
) -> Result<(), Box<dyn std::error::Error>> {
    let px = |n: u32| (n * FINE) as i32;
    area.fill(&WHITE)?;
    area.draw(&Text::new(title.to_owned(), (px(MARGIN), px(16)), font(24, FontStyle::Bold, &INK)))?;
    area.draw(&Text::new(about.to_owned(), (px(MARGIN), px(48)), font(LETTER, FontStyle::Normal, &QUIET)))?;
    let [wide, high] = layout.cell;
    let right = font(LETTER, FontStyle::Normal, &QUIET).pos(Pos::new(HPos::Right, VPos::Center));
    // Upright words end at the table.
    let upright = right.clone().transform(FontTransform::Rotate270);
    for (i, map) in maps.iter().enumerate() {
        let left = MARGIN + (i % layout.per_row) as u32 * layout.map[0] + layout.names[0] + 8;
        let top = HEAD + (i / layout.per_row) as u32 * layout.map[1] + 2 * LETTER;
        let rows = map.rows.len() as u32;
        area.draw(&Text::new(
            map.title.clone(),
            (px(left), px(top - 2 * LETTER + 2)),
            font(LETTER + 1, FontStyle::Bold, &INK),
        ))?;
        // Names are left out where they would run into each other.
        let every = |size: u32| LETTER.div_ceil(size).max(1) as usize;
        for (row, name) in map.rows.iter().enumerate().step_by(every(high)) {
            let y = top + (rows - 1 - row as u32) * high + high / 2;
            area.draw(&Text::new(shortened(name), (px(left) - px(6), px(y)), right.clone()))?;
        }
        for (column, name) in map.columns.iter().enumerate().step_by(every(wide)) {
            let (x, y) = (left + column as u32 * wide + wide / 2, top + rows * high + 6);
            area.draw(&Text::new(shortened(name), (px(x), px(y)), upright.clone()))?;
        }
        for (row, values) in map.values.chunks(map.columns.len().max(1)).enumerate() {
            for (column, &value) in values.iter().enumerate() {
                let colour = if value.is_finite() { colours.of(value) } else { BLANK };
                let (x, y) = (left + column as u32 * wide, top + (rows.saturating_sub(1 + row as u32)) * high);
                let gap = i32::from(wide > 4 && high > 4) * FINE as i32;
                let corners = [(px(x), px(y)), (px(x + wide) - gap, px(y + high) - gap)];
                area.draw(&Rectangle::new(corners, colour.filled()))?;
                let Some(word) = map.words.get(row * map.columns.len() + column).filter(|word| !word.is_empty()) else {
                    continue;
                };
                let dark = u32::from(colour.0) + u32::from(colour.1) + u32::from(colour.2) < 400;
                let ink = font(LETTER - 2, FontStyle::Normal, if dark { &WHITE } else { &INK });
                let middle = ink.pos(Pos::new(HPos::Center, VPos::Center));
                area.draw(&Text::new(shortened(word), (px(x + wide / 2), px(y + high / 2)), middle))?;
            }
        }
    }
    // The colour bar, with its ends and its middle.
    let (left, top, tall) = (layout.width - BAR + 12, HEAD + 2 * LETTER, 160);
    let [low, high] = colours.ends();
    for step in 0..tall {
        let share = f64::from(step) / f64::from(tall - 1);
        let colour = colours.of(high - share * (high - low));
        area.draw(&Rectangle::new([(px(left), px(top + step)), (px(left + 16), px(top + step + 1))], colour.filled()))?;
    }
    let beside = font(LETTER, FontStyle::Normal, &QUIET).pos(Pos::new(HPos::Left, VPos::Center));
    for (value, at) in [(high, 0), ((low + high) / 2.0, tall / 2), (low, tall)] {
        area.draw(&Text::new(short(value), (px(left + 24), px(top + at)), beside.clone()))?;
    }
    let corner = font(LETTER, FontStyle::Normal, &QUIET).pos(Pos::new(HPos::Right, VPos::Bottom));
    area.draw(&Text::new(unit.to_owned(), (px(layout.width - 8), px(top - 8)), corner))?;
    area.present()?;
    Ok(())
}

/// A name of at most 16 letters, without line breaks.
fn shortened(name: &str) -> String {
    let one_line: String = name.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
    match one_line.chars().count() > 16 {
        true => one_line.chars().take(15).chain(['…']).collect(),
        false => one_line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every cell has the colour of its number, with row 0 at the bottom, and the bar shows both ends.
    #[test]
    fn cells_have_the_colours_of_their_numbers() {
        let map = HeatMap {
            title: "scores".into(),
            columns: vec!["a".into(), "b".into()],
            rows: vec!["0".into(), "1".into()],
            values: vec![-1.0, f64::NAN, 0.5, 1.0],
            words: vec![],
        };
        let colours = Colours::diverging(&map.values);
        assert_eq!(colours, Colours::Diverging(1.0));
        let picture = heat_maps(["A title", "about", "score"], std::slice::from_ref(&map), 3, colours).unwrap();
        let count = |wanted: RGBColor, x: std::ops::Range<u32>, y: std::ops::Range<u32>| {
            let is = |x, y| picture.rgb(x, y) == [wanted.0, wanted.1, wanted.2];
            y.flat_map(|y| x.clone().map(move |x| (x, y))).filter(|&(x, y)| is(x, y)).count()
        };
        let (tables, all) = (0..picture.width - BAR, 0..picture.height);
        // Blue is the cell of −1 in the lower row, red that of 1 in the upper row; each is 24 × 24 less its gap.
        for wanted in [BLUE, RED, BLANK] {
            let cell = count(wanted, tables.clone(), all.clone());
            assert!((23 * 23..=24 * 24).contains(&cell), "{cell} pixels of {wanted:?}");
        }
        let first = |wanted: RGBColor| all.clone().find(|&y| count(wanted, tables.clone(), y..y + 1) > 10).unwrap();
        assert!(first(RED) + 20 < first(BLUE) && first(BLUE) == first(BLANK));
        for wanted in [BLUE, RED] {
            assert!(count(wanted, picture.width - BAR..picture.width, all.clone()) > 8);
        }
        let many = vec![HeatMap { values: vec![0.0; 4], ..map }; 7];
        let wide = heat_maps(["", "", ""], &many, 4, Colours::sequential(&[0.0])).unwrap();
        assert!(wide.width > wide.height && wide.width < LARGEST);
        assert!(matches!(heat_maps(["", "", ""], &[], 3, Colours::Diverging(1.0)), Err(ChartError::NoPoints)));
    }

    #[test]
    fn the_largest_tables_stay_within_bounds() {
        let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        let map = HeatMap { columns: names(1024), rows: names(97), values: vec![0.5; 1024 * 97], ..HeatMap::default() };
        let picture = heat_maps(["", "", ""], &[map], 1, Colours::Sequential(0.0, 1.0)).unwrap();
        assert!(picture.width <= LARGEST + 400 && picture.height <= LARGEST, "{} {}", picture.width, picture.height);
    }
}
