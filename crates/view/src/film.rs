//! Films and pictures as files: GIF, MP4 and PNG. No other module of this crate writes files.

use super::quantise::Palette;
use super::text::Words;
use super::{Camera, Look, Offscreen, OffscreenError, Picture, Track, interpolate, mp4};
use flipside_core::{Clip, Scene};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Why there is no film or picture.
#[derive(Debug, thiserror::Error)]
pub enum FilmError {
    /// Nothing can be drawn here.
    #[error(transparent)]
    Offscreen(#[from] OffscreenError),
    /// The file could not be written.
    #[error("{path} could not be written: {source}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing to show.
    #[error("the clip of {task} has no frames, so there is nothing to film")]
    NoFrames {
        /// Its task.
        task: String,
    },
    /// A GIF's side is at most 65535 pixels.
    #[error("a film of {width} × {height} pixels is larger than a GIF can be")]
    TooLarge {
        /// Pixels across, all panels together.
        width: u32,
        /// Pixels down.
        height: u32,
    },
}

/// How a film looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Style {
    /// Pixels of one panel.
    pub panel: [u32; 2],
    /// Hundredths of a second per frame, a GIF's unit: 4 is 25 frames a second. Browsers ignore values below 2.
    pub delay: u16,
    /// Simulated seconds that pass in one second of film.
    pub speed: f32,
    /// Hundredths of a second that the last frame stays before the film repeats.
    pub pause: u16,
    /// Colours and light.
    pub look: Look,
    /// The camera; `None` shows the whole robot at every moment. The camera moves along with the robot and keeps the
    /// height of its target.
    pub camera: Option<Camera>,
}

impl Default for Style {
    fn default() -> Style {
        Style { panel: [480, 360], delay: 4, speed: 1.0, pause: 60, look: Look::LIGHT, camera: None }
    }
}

/// One clip of a film, with its caption.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// Shown at the top left; may be empty.
    pub caption: &'a str,
    /// What moves.
    pub clip: &'a Clip,
}

/// A film of one clip, in real time; see [`write()`].
pub fn film(path: &Path, scene: &Scene, clip: &Clip) -> Result<(), FilmError> {
    write(path, scene, &[Panel { caption: "", clip }], &Style::default())
}

/// A film of two clips on one clock, with their captions, in real time: `("untrained", …)`, `("after 40 s", …)`.
pub fn side_by_side(path: &Path, scene: &Scene, panels: [(&str, &Clip); 2]) -> Result<(), FilmError> {
    let panels = panels.map(|(caption, clip)| Panel { caption, clip });
    write(path, scene, &panels, &Style { panel: [400, 340], ..Style::default() })
}

/// A film of `panels` of one scene, side by side on one clock: an MP4 if the file's name ends in `.mp4`, otherwise a
/// looping GIF. It lasts as long as the longest clip. A shorter clip stays at its last frame.
pub fn write(path: &Path, scene: &Scene, panels: &[Panel], style: &Style) -> Result<(), FilmError> {
    let mut strip = Strip::new(scene, panels, style)?;
    let is_mp4 = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("mp4"));
    whole(path, |out| if is_mp4 { strip.encode_mp4(out) } else { strip.encode_gif(out) })
}

/// A picture as a PNG file.
pub fn png(path: &Path, picture: &Picture) -> Result<(), FilmError> {
    whole(path, |out| {
        let mut encoder = png::Encoder::new(out, picture.width, picture.height);
        encoder.set_color(png::ColorType::Rgba);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_source_srgb(png::SrgbRenderingIntent::Perceptual);
        let written = encoder.write_header().and_then(|mut writer| {
            writer.write_image_data(&picture.rgba)?;
            writer.finish()
        });
        Ok(written.map_err(io::Error::other))
    })
}

/// Creates a file that `fill` writes. The outer error of `fill` is about drawing, the inner one about writing. The file
/// has another name until it is complete, so a full disk leaves the earlier file as it was and no partial film.
fn whole(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<io::Result<()>, FilmError>,
) -> Result<(), FilmError> {
    let beside = path.with_added_extension("part");
    let at = |source| FilmError::Write { path: path.to_path_buf(), source };
    let made = File::create(&beside).map_err(at).and_then(|file| {
        let mut out = BufWriter::new(file);
        fill(&mut out)?.and_then(|()| out.flush()).and_then(|()| std::fs::rename(&beside, path)).map_err(at)
    });
    if made.is_err() {
        // If the file could not be created, there is nothing to remove.
        std::fs::remove_file(&beside).ok();
    }
    made
}

/// Pixels between two panels.
const GAP: u32 = 4;
/// Pictures that the palette is made from.
const PALETTE_PICTURES: usize = 16;
/// Height of a caption's letters, pixels to the em.
const CAPTION: u32 = 20;

/// A film in the making.
struct Strip<'a> {
    offscreen: Offscreen,
    panels: &'a [Panel<'a>],
    captions: Vec<Words>,
    tracks: Vec<Track>,
    /// Whether the robots move far enough for the distance to be shown.
    travels: bool,
    style: &'a Style,
    camera: Camera,
    frames: usize,
}

impl<'a> Strip<'a> {
    fn new(scene: &Scene, panels: &'a [Panel<'a>], style: &'a Style) -> Result<Strip<'a>, FilmError> {
        if let Some(empty) = panels.iter().find(|panel| panel.clip.frames.steps == 0) {
            return Err(FilmError::NoFrames { task: empty.clip.task.clone() });
        }
        let camera = style.camera.or_else(|| Camera::showing(scene, panels.iter().map(|panel| panel.clip)));
        let camera = camera.ok_or_else(|| FilmError::NoFrames { task: "nothing".into() })?;
        let tracks = panels.iter().map(|panel| Track::of(scene, panel.clip)).collect::<Vec<_>>();
        let longest = panels.iter().map(|panel| panel.clip.duration()).fold(0.0, f32::max);
        // The last frame ends at or after the end of the longest clip.
        let frames = (longest / seconds_a_frame(style)).ceil().max(1.0) as usize;
        let captions = panels.iter().map(|panel| Words::new(panel.caption, CAPTION)).collect();
        let travels = tracks.iter().any(|track| track.advance(longest).abs() > 1.0);
        Ok(Strip { offscreen: Offscreen::new(scene)?, panels, captions, tracks, travels, style, camera, frames })
    }

    /// Pixels across and down, all panels together.
    fn size(&self) -> [u32; 2] {
        let [width, height] = self.style.panel;
        let panels = self.panels.len() as u32;
        [panels * width + (panels - 1) * GAP, height]
    }

    /// The film as MP4 to `out`. The outer error is about drawing, the inner one about writing.
    fn encode_mp4(&mut self, out: &mut impl Write) -> Result<Result<(), io::Error>, FilmError> {
        let rate = 100.0 / f32::from(self.style.delay.max(1));
        // The format has no loop, so the last picture is repeated for the pause.
        let stays = usize::from(self.style.pause / self.style.delay.max(1));
        let last = self.frames - 1;
        mp4::write(out, self.size(), rate, self.frames + stays, |i| self.picture(i.min(last)))
    }

    /// The film as GIF to `out`. The outer error is about drawing, the inner one about writing.
    fn encode_gif(&mut self, out: &mut impl Write) -> Result<Result<(), io::Error>, FilmError> {
        let [width, height] = self.size();
        let (Ok(gif_width), Ok(gif_height)) = (u16::try_from(width), u16::try_from(height)) else {
            return Err(FilmError::TooLarge { width, height });
        };
        let step = self.frames.div_ceil(PALETTE_PICTURES);
        let samples = (0..self.frames).step_by(step).map(|i| self.picture(i)).collect::<Result<Vec<_>, _>>()?;
        let mut palette = Palette::of(&samples);
        drop(samples);
        let mut encoder = match begin(out, gif_width, gif_height, &palette) {
            Ok(encoder) => encoder,
            Err(error) => return Ok(Err(io::Error::other(error))),
        };
        let mut before: Option<Vec<u8>> = None;
        for i in 0..self.frames {
            let (written, shown) = palette.indices(&self.picture(i)?, before.as_deref());
            let frame = gif::Frame {
                width: gif_width,
                height: gif_height,
                delay: if i + 1 == self.frames { self.style.pause.max(self.style.delay) } else { self.style.delay },
                dispose: gif::DisposalMethod::Keep,
                transparent: before.is_some().then(|| palette.unchanged()),
                buffer: Cow::Owned(written),
                ..gif::Frame::default()
            };
            if let Err(error) = encoder.write_frame(&frame) {
                return Ok(Err(io::Error::other(error)));
            }
            before = Some(shown);
        }
        Ok(Ok(()))
    }

    /// All panels at frame `index` of the film.
    fn picture(&mut self, index: usize) -> Result<Picture, FilmError> {
        let seconds = index as f32 * seconds_a_frame(self.style);
        let [width, height] = self.size();
        let [gap_red, gap_green, gap_blue] = self.style.look.horizon.map(to_byte);
        let mut strip = Picture {
            width,
            height,
            rgba: [gap_red, gap_green, gap_blue, 255].repeat(width as usize * height as usize),
        };
        let ink = self.style.look.ink();
        for (at, panel) in self.panels.iter().enumerate() {
            let Clip { frames, dt, .. } = panel.clip;
            let camera = self.tracks[at].aim(self.camera, seconds);
            let poses = interpolate(frames, *dt, seconds);
            let mut picture = self.offscreen.render(self.style.panel, &camera, &poses, &self.style.look)?;
            let margin = CAPTION * 3 / 5;
            self.captions[at].lay_over(&mut picture, margin, CAPTION / 4, ink);
            if self.travels {
                let way = format!("{:.1} m", self.tracks[at].advance(seconds)).replace('-', "−");
                let words = Words::new(&way, CAPTION);
                let left = picture.width.saturating_sub(words.width() + margin);
                words.lay_over(&mut picture, left, CAPTION / 4, ink);
            }
            let left = at * (picture.width + GAP) as usize;
            let row_bytes = 4 * picture.width as usize;
            for (y, row) in picture.rgba.chunks_exact(row_bytes).enumerate() {
                let start = 4 * (y * width as usize + left);
                strip.rgba[start..start + row_bytes].copy_from_slice(row);
            }
        }
        Ok(strip)
    }
}

fn begin<W: Write>(out: W, width: u16, height: u16, palette: &Palette) -> Result<gif::Encoder<W>, gif::EncodingError> {
    let mut encoder = gif::Encoder::new(out, width, height, &palette.bytes())?;
    encoder.set_repeat(gif::Repeat::Infinite)?;
    Ok(encoder)
}

/// Simulated seconds from one frame of the film to the next.
fn seconds_a_frame(style: &Style) -> f32 {
    (f32::from(style.delay.max(1)) / 100.0 * style.speed).max(1e-3)
}

fn to_byte(srgb: f32) -> u8 {
    (srgb.clamp(0.0, 1.0) * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    /// The frames of a GIF: the delay in hundredths of a second, and the whole picture that is then shown, as RGBA.
    fn decoded(path: &Path) -> (u32, u32, Vec<(u16, Vec<u8>)>) {
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(File::open(path).unwrap()).unwrap();
        let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
        let mut shown = vec![0; 4 * (width * height) as usize];
        let mut frames = Vec::new();
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            assert_eq!((frame.width, frame.height), (width as u16, height as u16));
            for (below, pixel) in shown.chunks_exact_mut(4).zip(frame.buffer.chunks_exact(4)) {
                if pixel[3] > 0 {
                    below.copy_from_slice(pixel);
                }
            }
            frames.push((frame.delay, shown.clone()));
        }
        (width, height, frames)
    }

    #[test]
    fn a_film_runs_in_real_time_and_shows_what_was_drawn() {
        let (scene, _) = samples::hopper();
        let (still, moving) = (samples::hop(0.0, 20), samples::hop(1.5, 50));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.gif");
        let style = Style { panel: [160, 120], ..Style::default() };
        let panels = [Panel { caption: "still", clip: &still }, Panel { caption: "moving", clip: &moving }];
        write(&path, &scene, &panels, &style).unwrap();
        let (width, height, frames) = decoded(&path);
        assert_eq!((width, height), (2 * 160 + GAP, 120));
        // One second at 25 frames a second. The last frame stays for the pause.
        assert_eq!(frames.len(), 25);
        assert!(frames[..24].iter().all(|(delay, _)| *delay == 4));
        assert_eq!(frames[24].0, 60);
        let mut strip = Strip::new(&scene, &panels, &style).unwrap();
        for i in [0, 7, 24] {
            let drawn = strip.picture(i).unwrap();
            let off = drawn.rgba.iter().zip(&frames[i].1).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            assert!(off < 2 * drawn.rgba.len() as u64, "frame {i} is off by {off} in {} bytes", drawn.rgba.len());
        }
    }

    /// The decoder is OpenH264's own, and the boxes are found by their names, because a test has no independent player.
    #[test]
    fn an_mp4_holds_the_film() {
        let (scene, _) = samples::hopper();
        let clip = samples::hop(1.5, 50);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("film.MP4");
        // The height is odd, so the last row is left out.
        let style = Style { panel: [160, 121], pause: 8, ..Style::default() };
        let panels = [Panel { caption: "moving", clip: &clip }];
        write(&path, &scene, &panels, &style).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[4..8], b"ftyp");
        let at = |mark: &[u8]| bytes.windows(mark.len()).position(|window| window == mark).unwrap();
        let word = |from: usize| u32::from_be_bytes(bytes[from..from + 4].try_into().unwrap());
        // The sample sizes follow the table's name, its version, one size for all (0) and the number of samples.
        let sizes = at(b"stsz") + 4;
        assert_eq!((word(sizes + 4), word(sizes + 8)), (0, 25 + 2));
        let mut data = at(b"mdat") + 4;
        // The parameter sets have their own box: the first set's length, the set, then the number and length of the
        // second.
        let set = at(b"avcC") + 4 + 6;
        let length = |from: usize| usize::from(u16::from_be_bytes([bytes[from], bytes[from + 1]]));
        let (first, other) = (set + 2, set + 2 + length(set) + 1);
        let mut decoder = openh264::decoder::Decoder::new().unwrap();
        let start = [0, 0, 0, 1];
        let parameters =
            [&start[..], &bytes[first..first + length(set)], &start, &bytes[other + 2..other + 2 + length(other)]];
        let _ = decoder.decode(&parameters.concat());
        let mut strip = Strip::new(&scene, &panels, &style).unwrap();
        let mut seen = 0;
        for i in 0..27 {
            let end = data + word(sizes + 12 + 4 * i) as usize;
            let mut coded = Vec::new();
            while data < end {
                let length = word(data) as usize;
                coded.extend(start);
                coded.extend_from_slice(&bytes[data + 4..data + 4 + length]);
                data += 4 + length;
            }
            use openh264::formats::YUVSource;
            let Some(picture) = decoder.decode(&coded).unwrap() else { continue };
            assert_eq!(picture.dimensions(), (160, 120));
            let mut rgba = vec![0; 4 * 160 * 120];
            picture.write_rgba8(&mut rgba);
            let drawn = strip.picture(i.min(24)).unwrap();
            let off = drawn.rgba.iter().zip(&rgba).map(|(a, b)| u64::from(a.abs_diff(*b))).sum::<u64>();
            assert!(off < 4 * rgba.len() as u64, "frame {i} is off by {off} in {} bytes", rgba.len());
            seen += 1;
        }
        assert!(seen >= 25, "{seen} of 27 pictures");
    }

    #[test]
    fn a_picture_comes_back_from_its_file() {
        let (scene, poses) = samples::hopper();
        let camera = Camera::framing(&scene, &poses);
        let picture = Offscreen::new(&scene).unwrap().render([64, 48], &camera, &poses, &Look::DARK).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.png");
        png(&path, &picture).unwrap();
        let mut reader = png::Decoder::new(io::BufReader::new(File::open(&path).unwrap())).read_info().unwrap();
        let mut rgba = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut rgba).unwrap();
        assert_eq!(rgba, picture.rgba);
    }

    #[test]
    fn refuses_what_cannot_be_filmed_in_a_sentence() {
        let (scene, _) = samples::hopper();
        let folder = tempfile::tempdir().unwrap();
        let empty = film(&folder.path().join("a.gif"), &scene, &samples::hop(1.0, 0)).unwrap_err();
        assert!(empty.to_string().contains("hopper has no frames"), "{empty}");
        let nowhere = film(&folder.path().join("no/such/a.gif"), &scene, &samples::hop(1.0, 2)).unwrap_err();
        assert!(nowhere.to_string().contains("a.gif could not be written"), "{nowhere}");
        // The earlier file is as it was, and there is no other file beside it.
        let path = folder.path().join("wide.gif");
        std::fs::write(&path, "before").unwrap();
        let wide = Style { panel: [70_000, 10], ..Style::default() };
        let clip = samples::hop(1.0, 2);
        let refused = write(&path, &scene, &[Panel { caption: "", clip: &clip }], &wide).unwrap_err();
        assert!(refused.to_string().contains("larger than a GIF"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
