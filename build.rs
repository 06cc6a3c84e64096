//! Lets the binary find libtorch by itself, and keep libtorch's CUDA half where there is one.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The robots and tasks are compiled in; without this line a new file in the folder would go unnoticed.
    println!("cargo:rerun-if-changed=envs");
    // torch-sys (`links = "tch"`) found libtorch and says where.
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    // The dynamic loader needs the same folder at run time: no LD_LIBRARY_PATH is asked of anyone.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    // Nothing of ours names a symbol of libtorch_cuda, which registers its kernels when it is loaded. rustc links with
    // --as-needed and would leave it out, and then no GPU would ever be seen.
    let cuda = Path::new(&lib).join("libtorch_cuda.so");
    if cuda.exists() {
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed,{},--as-needed", cuda.display());
    }
}
