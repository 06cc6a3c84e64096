//! What libtorch can compute on.

/// How many CUDA devices libtorch sees; 0 with the CPU build.
pub fn cuda_devices() -> usize {
    usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
}
