//! Weights of any program, and our own checkpoints, which carry a checksum.

#![no_main]

// The program's own lines, without the program around them.
#[path = "../../src/store/arrays_file.rs"]
#[allow(dead_code)]
mod arrays_file;

use flipside_fuzz::checked;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((metadata, arrays)) = checked(arrays_file::decode_plain(data)) {
        for array in arrays.values() {
            assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
        }
        // What was read is written and read again as it was; NaN's bits are compared by the bytes.
        let written = arrays_file::encode_plain(metadata.clone(), &arrays).expect("what was read");
        let (again, same) = arrays_file::decode_plain(&written).expect("what was written");
        assert_eq!(metadata, again);
        assert_eq!(arrays.keys().collect::<Vec<_>>(), same.keys().collect::<Vec<_>>());
        let sealed = arrays_file::encode("{}", &arrays).expect("what was read");
        let (header, same) = arrays_file::decode(&sealed).expect("what was sealed");
        assert_eq!((header.as_str(), arrays_file::encode("{}", &same).expect("sealed")), ("{}", sealed));
    }
    checked(arrays_file::decode(data));
});
