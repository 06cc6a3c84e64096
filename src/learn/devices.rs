//! What libtorch can compute on.
//!
//! Nothing of ours names a symbol of libtorch's CUDA half, which registers its kernels when it is loaded. So it is not linked but opened where it
//! lies beside the CPU half, and one program serves machines with and without a GPU.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// libtorch's CUDA half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaLibrary {
    /// It is installed and was opened.
    Opened(PathBuf),
    /// It is not installed.
    Absent,
    /// It is installed and cannot be opened, for this reason.
    Broken(String),
}

/// Opens libtorch's CUDA half, if that has not been tried yet, and says what came of it.
pub fn cuda_library() -> &'static CudaLibrary {
    static FOUND: OnceLock<CudaLibrary> = OnceLock::new();
    FOUND.get_or_init(|| loaded_folder().map_or(CudaLibrary::Absent, |folder| open(&folder.join("libtorch_cuda.so"))))
}

/// How many CUDA devices libtorch sees; 0 without its CUDA half.
pub fn cuda_devices() -> usize {
    match cuda_library() {
        CudaLibrary::Opened(_) => usize::try_from(tch::Cuda::device_count()).unwrap_or(0),
        CudaLibrary::Absent | CudaLibrary::Broken(_) => 0,
    }
}

/// The folder that the running program has its libtorch from. A CUDA half from elsewhere would be another build's.
fn loaded_folder() -> Option<PathBuf> {
    // Linux's list of what a process has mapped: addresses and rights, then the file.
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let file =
        maps.lines().find_map(|line| Some(&line[line.find('/')?..]).filter(|f| f.ends_with("/libtorch_cpu.so")))?;
    Path::new(file).parent().map(Path::to_owned)
}

#[cfg(unix)]
fn open(file: &Path) -> CudaLibrary {
    use std::ffi::{CStr, CString};
    use std::os::unix::ffi::OsStrExt;
    let Some(name) = CString::new(file.as_os_str().as_bytes()).ok().filter(|_| file.exists()) else {
        return CudaLibrary::Absent;
    };
    // SAFETY: the name ends in NUL; the library is libtorch's own, made to be loaded beside the half that runs already, and is never closed.
    // dlerror's words are copied before anything else can be opened on this thread.
    let problem = unsafe {
        let opened = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
        if !opened.is_null() {
            return CudaLibrary::Opened(file.to_owned());
        }
        let words = libc::dlerror();
        if words.is_null() { String::new() } else { CStr::from_ptr(words).to_string_lossy().into_owned() }
    };
    CudaLibrary::Broken(problem)
}

#[cfg(not(unix))]
fn open(_file: &Path) -> CudaLibrary {
    CudaLibrary::Absent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_opened_or_missed_or_said_to_be_broken() {
        let folder = loaded_folder().unwrap();
        assert!(folder.join("libtorch_cpu.so").exists());
        let other = tempfile::tempdir().unwrap();
        assert_eq!(open(&other.path().join("libtorch_cuda.so")), CudaLibrary::Absent);
        let file = other.path().join("libtorch_cuda.so");
        std::fs::write(&file, b"not a library").unwrap();
        assert!(matches!(open(&file), CudaLibrary::Broken(why) if why.contains("libtorch_cuda.so")));
        // One that is loaded already stands for the one that most machines lack.
        let loaded = folder.join("libtorch_cpu.so");
        assert_eq!(open(&loaded), CudaLibrary::Opened(loaded.clone()));
    }
}
