//! A film as MP4: H.264 by OpenH264, in the container that phones, browsers and slides accept.

use super::Picture;
use muxide::api::{MuxerBuilder, MuxerError, VideoCodec};
use openh264::OpenH264API;
use openh264::encoder::{Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, RateControlMode, VuiConfig};
use openh264::formats::{RgbaSliceU8, YUVBuffer};
use std::io::{self, Write};

/// Frames from one key frame to the next. A player can jump to a key frame.
const KEY_EVERY: u32 = 50;

/// Writes `frames` pictures of `size` to `out`, `rate` of them a second. An odd last row or column is left out, because
/// the format stores one colour for two by two pixels. The outer error is about drawing, the inner one about writing.
pub(super) fn write<E>(
    out: impl Write,
    size: [u32; 2],
    rate: f32,
    frames: usize,
    mut picture: impl FnMut(usize) -> Result<Picture, E>,
) -> Result<Result<(), io::Error>, E> {
    let [width, height] = size.map(|side| side & !1);
    let config = EncoderConfig::new()
        // The pictures are flat and take few bits, so the rate needs no control.
        .rate_control_mode(RateControlMode::Off)
        .max_frame_rate(FrameRate::from_hz(rate))
        .skip_frames(false)
        .intra_frame_period(IntraFramePeriod::from_num_frames(KEY_EVERY))
        .vui(VuiConfig::bt601());
    let begun = Encoder::with_api_config(OpenH264API::from_source(), config).map_err(io::Error::other);
    let muxer = MuxerBuilder::new(out).video(VideoCodec::H264, width, height, f64::from(rate)).build().map_err(plain);
    let (mut encoder, mut muxer) = match (begun, muxer) {
        (Ok(encoder), Ok(muxer)) => (encoder, muxer),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
    };
    let mut colours = YUVBuffer::new(width as usize, height as usize);
    for i in 0..frames {
        let rgba = cropped(picture(i)?, [width, height]);
        colours.read_rgba8(RgbaSliceU8::new(&rgba, (width as usize, height as usize)));
        let written = encoder.encode(&colours).map_err(io::Error::other).and_then(|coded| {
            let key = matches!(coded.frame_type(), FrameType::IDR | FrameType::I);
            muxer.write_video(i as f64 / f64::from(rate), &coded.to_vec(), key).map_err(plain)
        });
        if let Err(error) = written {
            return Ok(Err(error));
        }
    }
    Ok(muxer.finish().map_err(plain))
}

/// The rows and columns of a picture that lie within `size`.
fn cropped(picture: Picture, [width, height]: [u32; 2]) -> Vec<u8> {
    if [picture.width, picture.height] == [width, height] {
        return picture.rgba;
    }
    let rows = picture.rgba.chunks_exact(4 * picture.width as usize).take(height as usize);
    rows.flat_map(|row| &row[..4 * width as usize]).copied().collect()
}

/// The system's own error, if there is one.
fn plain(error: MuxerError) -> io::Error {
    match error {
        MuxerError::Io(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
