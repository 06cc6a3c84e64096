//! The devices that libtorch can compute on.
//!
//! Our code references no symbol of libtorch's CUDA library, which registers its kernels when it is loaded. It is
//! therefore not linked but opened from the folder of the CPU library. One program thus serves machines with and
//! without a GPU.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The state of libtorch's CUDA library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CudaLibrary {
    /// It is installed and was opened.
    Opened(PathBuf),
    /// It is not installed.
    Absent,
    /// It is installed but could not be opened, for this reason.
    Broken(String),
}

/// Opens libtorch's CUDA library on the first call and returns the result.
pub fn cuda_library() -> &'static CudaLibrary {
    static FOUND: OnceLock<CudaLibrary> = OnceLock::new();
    FOUND.get_or_init(|| loaded_folder().map_or(CudaLibrary::Absent, |folder| open(&folder.join("libtorch_cuda.so"))))
}

/// How many CUDA devices libtorch sees; 0 without its CUDA library.
pub fn cuda_devices() -> usize {
    match cuda_library() {
        CudaLibrary::Opened(_) => usize::try_from(tch::Cuda::device_count()).unwrap_or(0),
        CudaLibrary::Absent | CudaLibrary::Broken(_) => 0,
    }
}

/// The folder from which the running program loaded libtorch. A CUDA library from elsewhere would belong to another
/// build.
#[cfg(target_os = "linux")]
fn loaded_folder() -> Option<PathBuf> {
    use std::ffi::{CStr, OsStr, c_int, c_void};
    use std::os::unix::ffi::OsStrExt;

    /// The loader calls this for every library in turn until it returns a value other than 0.
    unsafe extern "C" fn visit(library: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
        // SAFETY: the loader gives a valid entry, whose name is null or ends in NUL, and passes on the pointer to
        // `found` below.
        unsafe {
            let name = (*library).dlpi_name;
            if name.is_null() || !CStr::from_ptr(name).to_bytes().ends_with(b"/libtorch_cpu.so") {
                return 0;
            }
            *found.cast::<Option<PathBuf>>() = Some(PathBuf::from(OsStr::from_bytes(CStr::from_ptr(name).to_bytes())));
        }
        1
    }
    let mut found: Option<PathBuf> = None;
    // SAFETY: `visit` is only called before this returns, and only with this pointer.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    found?.parent().map(Path::to_owned)
}

#[cfg(target_os = "linux")]
fn open(file: &Path) -> CudaLibrary {
    use std::ffi::{CStr, CString};
    use std::os::unix::ffi::OsStrExt;
    let Ok(name) = CString::new(file.as_os_str().as_bytes()) else { return CudaLibrary::Absent };
    // SAFETY: the name ends in NUL. The library is libtorch's own, made to be loaded beside the CPU library that is
    // already running, and is never closed. dlerror's message is copied before anything else can be opened on this
    // thread.
    let problem = unsafe {
        if !libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            return CudaLibrary::Opened(file.to_owned());
        }
        let words = libc::dlerror();
        if words.is_null() { String::new() } else { CStr::from_ptr(words).to_string_lossy().into_owned() }
    };
    // The loader names the first file that it misses: this one, or one that this one needs.
    let missing = problem.strip_prefix(&*file.to_string_lossy()).is_some_and(|why| why.contains("No such file"));
    if missing { CudaLibrary::Absent } else { CudaLibrary::Broken(problem) }
}

#[cfg(not(target_os = "linux"))]
fn loaded_folder() -> Option<PathBuf> {
    None
}

#[cfg(not(target_os = "linux"))]
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
        // A library that is already loaded stands in for the one that most machines lack.
        let loaded = folder.join("libtorch_cpu.so");
        assert_eq!(open(&loaded), CudaLibrary::Opened(loaded.clone()));
    }
}
