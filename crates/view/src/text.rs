//! Text in pictures, in the fonts that are shipped in assets/fonts.

use super::Picture;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::sync::Once;

/// The name under which plotters knows the shipped typeface.
const TYPEFACE: &str = "flipside";

/// The shipped typeface, Lato (SIL Open Font License), `size` pixels to the em.
pub(super) fn font(size: u32, style: FontStyle) -> FontDesc<'static> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let regular = include_bytes!("../../../assets/fonts/Lato-Regular.ttf");
        let bold = include_bytes!("../../../assets/fonts/Lato-Bold.ttf");
        // Both files are shipped with the program, and a test reads them. If one could not be read, pictures would only
        // lack text.
        let _ = register_font(TYPEFACE, FontStyle::Normal, regular);
        let _ = register_font(TYPEFACE, FontStyle::Bold, bold);
    });
    // Not `FontDesc::style`, which changes the style's name but not the glyphs.
    FontDesc::new(TYPEFACE.into(), f64::from(size), style)
}

/// A line of text as coverage, to be drawn over a picture.
pub(super) struct Words {
    width: u32,
    height: u32,
    /// `[height, width]`, 0..=255.
    coverage: Vec<u8>,
}

impl Words {
    /// `text` in bold, `size` pixels to the em. It is drawn four times as large and averaged down, because plotters
    /// places each glyph on a whole pixel.
    pub fn new(text: &str, size: u32) -> Words {
        const FINE: u32 = 4;
        let font = font(FINE * size, FontStyle::Bold);
        let (wide, _) = font.box_size(text).unwrap_or((0, 0));
        let (width, height) = (wide.div_ceil(FINE) + 2, 2 * size);
        let fine = (FINE * width, FINE * height);
        let mut buffer = vec![0; 3 * (fine.0 * fine.1) as usize];
        {
            let area = BitMapBackend::with_buffer(&mut buffer, fine).into_drawing_area();
            let style = TextStyle::from(font).color(&WHITE);
            // A glyph that cannot be drawn leaves a gap. A caption is not worth failing a film for.
            let _ = area.draw(&Text::new(text.to_string(), (FINE as i32, (FINE * size / 3) as i32), style));
        }
        let coverage = averaged(&buffer, fine, FINE).chunks(3).map(|rgb| rgb[0]).collect();
        Words { width, height, coverage }
    }

    /// Pixels across.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Draws the text over `picture` in `colour`, with its top left corner at `(left, top)`. What does not fit is cut
    /// off.
    pub fn lay_over(&self, picture: &mut Picture, left: u32, top: u32, colour: [u8; 3]) {
        for y in 0..self.height.min(picture.height.saturating_sub(top)) {
            for x in 0..self.width.min(picture.width.saturating_sub(left)) {
                let cover = u32::from(self.coverage[(y * self.width + x) as usize]);
                let at = 4 * ((top + y) as usize * picture.width as usize + (left + x) as usize);
                for (below, ink) in picture.rgba[at..at + 3].iter_mut().zip(colour) {
                    *below = ((u32::from(*below) * (255 - cover) + u32::from(ink) * cover + 127) / 255) as u8;
                }
            }
        }
    }
}

/// An RGB picture of `size` pixels, each side a multiple of `fine`, averaged over squares of `fine` pixels.
pub(super) fn averaged(rgb: &[u8], size: (u32, u32), fine: u32) -> Vec<u8> {
    let (width, fine) = (size.0 as usize, fine as usize);
    let (columns, rows) = (width / fine, size.1 as usize / fine);
    let count = (fine * fine) as u32;
    let mut out = Vec::with_capacity(3 * columns * rows);
    for row in 0..rows {
        for column in 0..columns {
            for channel in 0..3 {
                let sum: u32 = (0..fine * fine)
                    .map(|i| {
                        let (x, y) = (column * fine + i % fine, row * fine + i / fine);
                        u32::from(rgb[3 * (y * width + x) + channel])
                    })
                    .sum();
                out.push(((sum + count / 2) / count) as u8);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_fonts_have_every_sign_that_pictures_use() {
        for word in ["untrained", "after 40 s", "1.2M", "−3", "0123456789%.k×–"] {
            let words = Words::new(word, 20);
            let inked = words.coverage.iter().filter(|&&c| c > 128).count();
            assert!(inked > 8 * word.chars().count() && words.width > 4, "{word}: {inked} pixels");
            // Nothing may be cut off above or below.
            let rows = words.coverage.chunks(words.width as usize);
            let edges = [rows.clone().next().unwrap(), rows.clone().last().unwrap()];
            assert!(edges.iter().all(|row| row.iter().all(|&c| c == 0)), "{word}");
        }
    }
}
