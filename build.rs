//! Lets what links to libtorch find it by itself: the program, and the tests of the crates that name this script in
//! their manifests. libtorch's CUDA half is opened when the program runs (`crates/learn/src/devices.rs`).

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // torch-sys (`links = "tch"`) found libtorch and says where.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    // The dynamic loader needs the same folder at run time: no LD_LIBRARY_PATH is asked of anyone.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
}
