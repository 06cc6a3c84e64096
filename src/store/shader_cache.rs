//! Shaders compiled by graphics drivers, cached between runs: one file per driver in the cache folder.

use super::{StoreError, disk};
use flipside_core::fnv1a;
use std::fs;
use std::path::Path;

/// Bytes of the checksum at the start of a file. It is checked because a driver trusts the bytes it is given.
const CHECKSUM: usize = 8;

/// The shaders cached under this name; `None` if there are none or the file is damaged.
pub fn read_shader_cache(folder: &Path, name: &str) -> Option<Vec<u8>> {
    let bytes = fs::read(folder.join(name)).ok()?;
    let (checksum, shaders) = bytes.split_at_checked(CHECKSUM)?;
    (checksum == fnv1a(shaders).to_le_bytes()).then(|| shaders.to_vec())
}

/// Caches the shaders under this name. Creates the folder if there is none.
///
/// # Errors
/// [`StoreError::Io`] if the system refuses.
pub fn write_shader_cache(folder: &Path, name: &str, shaders: &[u8]) -> Result<(), StoreError> {
    fs::create_dir_all(folder).map_err(|error| StoreError::io(folder, error))?;
    disk::write_whole(&folder.join(name), &[&fnv1a(shaders).to_le_bytes(), shaders].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("shaders");
        assert_eq!(read_shader_cache(&cache, "driver"), None);
        write_shader_cache(&cache, "driver", b"machine code").unwrap();
        assert_eq!(read_shader_cache(&cache, "driver").as_deref(), Some(&b"machine code"[..]));
        let path = cache.join("driver");
        let mut bytes = fs::read(&path).unwrap();
        bytes[12] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read_shader_cache(&cache, "driver"), None);
        fs::write(&path, b"short").unwrap();
        assert_eq!(read_shader_cache(&cache, "driver"), None);
    }
}
