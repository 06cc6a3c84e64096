//! GGUF files of any program.

#![no_main]

// The program's own lines, without the program around them.
#[path = "../../src/store/gguf.rs"]
mod gguf;

use flipside_fuzz::checked;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    for half in [false, true] {
        if let Some((_, arrays)) = checked(gguf::decode(data, half)) {
            for array in arrays.values() {
                assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
            }
        }
    }
});
