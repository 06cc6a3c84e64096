//! Quantised numbers, in the blocks of llama.cpp. The layouts are those of its `ggml-common.h`.

/// The number types of tensors that are read, by llama.cpp's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F16,
    Bf16,
    /// Blocks of 32 numbers (q − 8)·d, with d in f16.
    Q4_0,
    /// Blocks of 32 numbers q·d + m.
    Q4_1,
    /// Blocks of 32 numbers (q − 16)·d.
    Q5_0,
    /// Blocks of 32 numbers q·d + m.
    Q5_1,
    /// Blocks of 32 numbers q·d.
    Q8_0,
    /// Blocks of 256 numbers. Every 16 have a scale and a lowest number of their own, in four bits each.
    Q2K,
    /// Blocks of 256 numbers. Every 16 have a scale of their own, in six bits.
    Q3K,
    /// Blocks of 256 numbers. Every 32 have a scale and a lowest number of their own, in six bits each.
    Q4K,
    /// As [`Kind::Q4K`], with a fifth bit.
    Q5K,
    /// Blocks of 256 numbers. Every 16 have a scale of their own, in eight bits.
    Q6K,
}

/// Numbers in a block, at most.
pub(super) const LONGEST: usize = 256;

impl Kind {
    pub const ALL: [(u32, Kind); 13] = [
        (0, Kind::F32),
        (1, Kind::F16),
        (2, Kind::Q4_0),
        (3, Kind::Q4_1),
        (6, Kind::Q5_0),
        (7, Kind::Q5_1),
        (8, Kind::Q8_0),
        (10, Kind::Q2K),
        (11, Kind::Q3K),
        (12, Kind::Q4K),
        (13, Kind::Q5K),
        (14, Kind::Q6K),
        (30, Kind::Bf16),
    ];

    /// The type of this number in the format.
    pub fn of(number: u32) -> Option<Kind> {
        Kind::ALL.iter().find(|(known, _)| *known == number).map(|(_, kind)| *kind)
    }

    /// Numbers and bytes of a block.
    pub fn block(self) -> [usize; 2] {
        match self {
            Kind::F32 => [1, 4],
            Kind::F16 | Kind::Bf16 => [1, 2],
            Kind::Q4_0 => [32, 18],
            Kind::Q4_1 => [32, 20],
            Kind::Q5_0 => [32, 22],
            Kind::Q5_1 => [32, 24],
            Kind::Q8_0 => [32, 34],
            Kind::Q2K => [256, 84],
            Kind::Q3K => [256, 110],
            Kind::Q4K => [256, 144],
            Kind::Q5K => [256, 176],
            Kind::Q6K => [256, 210],
        }
    }
}

/// Writes the numbers of a block of quantised ones. `bytes` and `numbers` have the lengths of [`Kind::block`]. The
/// order of the operations is llama.cpp's, so that the bits are, too.
pub(super) fn widen(kind: Kind, bytes: &[u8], numbers: &mut [f32]) {
    let half = |at: usize| f16(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    match kind {
        Kind::F32 | Kind::F16 | Kind::Bf16 => {}
        Kind::Q8_0 => {
            let scale = half(0);
            for (number, &byte) in numbers.iter_mut().zip(&bytes[2..]) {
                *number = scale * f32::from(byte as i8);
            }
        }
        Kind::Q4_0 => {
            let scale = half(0);
            nibbles(&bytes[2..], |i, q| numbers[i] = scale * (f32::from(q) - 8.0));
        }
        Kind::Q4_1 => {
            let (scale, lowest) = (half(0), half(2));
            nibbles(&bytes[4..], |i, q| numbers[i] = scale * f32::from(q) + lowest);
        }
        Kind::Q5_0 => {
            let (scale, fifth) = (half(0), fifth_bits(&bytes[2..6]));
            nibbles(&bytes[6..], |i, q| numbers[i] = scale * (f32::from(q | fifth(i)) - 16.0));
        }
        Kind::Q5_1 => {
            let (scale, lowest, fifth) = (half(0), half(2), fifth_bits(&bytes[4..8]));
            nibbles(&bytes[8..], |i, q| numbers[i] = scale * f32::from(q | fifth(i)) + lowest);
        }
        Kind::Q2K => {
            let (scales, pairs, scale, lowest) = (&bytes[..16], &bytes[16..80], half(80), half(82));
            for (i, number) in numbers.iter_mut().enumerate() {
                let own = scales[i / 16];
                let q = f32::from(two_bits(pairs, i));
                *number = scale * f32::from(own & 15) * q - lowest * f32::from(own >> 4);
            }
        }
        Kind::Q3K => {
            let (third, pairs, scales, scale) = (&bytes[..32], &bytes[32..96], &bytes[96..108], half(108));
            for (i, number) in numbers.iter_mut().enumerate() {
                let group = i / 16;
                let low = scales[group % 8] >> (group / 8 * 4) & 15;
                let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
                let own = f32::from(low | high << 4) - 32.0;
                let has_third = third[i % 32] >> (i / 32) & 1 == 1;
                let q = f32::from(two_bits(pairs, i)) - if has_third { 0.0 } else { 4.0 };
                *number = scale * own * q;
            }
        }
        Kind::Q4K | Kind::Q5K => {
            let (scale, lowest, scales) = (half(0), half(2), &bytes[4..16]);
            let (fifth, nibbles) = match kind {
                Kind::Q5K => (Some(&bytes[16..48]), &bytes[48..]),
                _ => (None, &bytes[16..]),
            };
            for (i, number) in numbers.iter_mut().enumerate() {
                let (group, within) = (i / 32, i % 32);
                let (own, base) = six_bits(scales, group);
                let low = nibbles[group / 2 * 32 + within] >> (group % 2 * 4) & 15;
                let q = low | fifth.map_or(0, |bits| (bits[within] >> group & 1) << 4);
                *number = scale * f32::from(own) * f32::from(q) - lowest * f32::from(base);
            }
        }
        Kind::Q6K => {
            let (low, high, scales, scale) = (&bytes[..128], &bytes[128..192], &bytes[192..208], half(208));
            for (i, number) in numbers.iter_mut().enumerate() {
                // A half of the block has four rows of 32 numbers.
                let (part, row, within) = (i / 128, i % 128 / 32, i % 32);
                let low = low[part * 64 + row % 2 * 32 + within] >> (row / 2 * 4) & 15;
                let high = high[part * 32 + within] >> (row * 2) & 3;
                let own = f32::from(scales[i / 16] as i8);
                *number = scale * own * (f32::from(low | high << 4) - 32.0);
            }
        }
    }
}

/// The four-bit numbers of a block of 32: the first half in the lower bits, the second in the upper ones.
fn nibbles(bytes: &[u8], mut each: impl FnMut(usize, u8)) {
    for (i, &byte) in bytes.iter().enumerate() {
        each(i, byte & 15);
        each(i + 16, byte >> 4);
    }
}

/// The fifth bit of each of 32 numbers, in its place.
fn fifth_bits(bytes: &[u8]) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    move |i| ((bits >> i & 1) as u8) << 4
}

/// Number `i` of 256 of two bits. 32 bytes hold four rows of 32 numbers.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

/// Scale and lowest number of one of eight groups, in six bits each.
fn six_bits(bytes: &[u8], group: usize) -> (u8, u8) {
    match group {
        0..4 => (bytes[group] & 63, bytes[group + 4] & 63),
        _ => (bytes[group + 4] & 15 | bytes[group - 4] >> 6 << 4, bytes[group + 4] >> 4 | bytes[group] >> 6 << 4),
    }
}

/// The number of an IEEE half.
fn f16(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, (bits >> 10) & 31, f32::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction / 1024.0) * 2_f32.powi(i32::from(exponent) - 15),
    };
    if sign == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/golden/text/make_gguf.py` asks llama.cpp's own package `gguf`.
    #[test]
    fn every_quantised_block_has_the_numbers_of_llama_cpp() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/golden/text/gguf/blocks.json")).unwrap();
        for (number, kind) in Kind::ALL {
            let [count, size] = kind.block();
            if count == 1 {
                continue;
            }
            let of_kind = &golden[number.to_string()];
            let bytes: Vec<u8> = serde_json::from_value(of_kind["bytes"].clone()).unwrap();
            let expected: Vec<f32> = serde_json::from_value(of_kind["numbers"].clone()).unwrap();
            assert_eq!((bytes.len() % size, expected.len()), (0, bytes.len() / size * count));
            let mut found = vec![0.0; expected.len()];
            for (bytes, numbers) in bytes.chunks_exact(size).zip(found.chunks_exact_mut(count)) {
                widen(kind, bytes, numbers);
            }
            assert_eq!(found, expected, "{kind:?}");
        }
    }
}
