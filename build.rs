//! Lets the binary find libtorch by itself. Its CUDA half is opened when the program runs (`src/learn/devices.rs`).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The robots and tasks are compiled in; without this line a new file in the folder would go unnoticed.
    println!("cargo:rerun-if-changed=envs");
    // torch-sys (`links = "tch"`) found libtorch and says where.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    // The dynamic loader needs the same folder at run time: no LD_LIBRARY_PATH is asked of anyone.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
}
