//! NumPy's archives, as a physics program hands them in.

#![no_main]

// The program's own lines, without the program around them.
#[path = "../../src/store/npz/read.rs"]
#[allow(dead_code, unreachable_pub)]
mod read;

use flipside_fuzz::checked;
use libfuzzer_sys::fuzz_target;
use read::Axis::{self, Exactly, Free};
use std::io::Cursor;
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let wanted: [&[(&str, &[Axis])]; 3] = [
        &[("qpos", &[Free("N"), Exactly("nq", 3)]), ("qvel", &[Free("N"), Exactly("nv", 3)])],
        &[("ctrl", &[Free("N"), Free("T"), Exactly("nu", 3)])],
        &[("empty", &[Free("K"), Free("J")])],
    ];
    for wanted in wanted {
        for array in checked(read::read_from(Cursor::new(data), Path::new("in.npz"), wanted)).into_iter().flatten() {
            assert_eq!(array.shape.iter().product::<usize>(), array.values.len());
        }
    }
});
