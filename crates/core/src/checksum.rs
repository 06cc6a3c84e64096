//! One hash for all that must be recognised again: seeds by name, and bytes on disk by their checksum.

/// Where an FNV-1a hash starts.
const START: u64 = 0xcbf2_9ce4_8422_2325;

/// The 64-bit FNV-1a hash (Fowler, Noll and Vo) of `bytes`. Every step is a bijection of the state, so any single changed byte
/// changes the hash; it guards against damage, not against malice.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    fnv1a_on(START, bytes)
}

/// The hash of what gave `hash` followed by `bytes`: long data is hashed piece by piece.
pub fn fnv1a_on(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_vectors() {
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8_u64)]
        {
            assert_eq!(fnv1a(text.as_bytes()), hash);
        }
        assert_eq!(fnv1a_on(fnv1a(b"foo"), b"bar"), fnv1a(b"foobar"));
    }
}
