//! The robots and tasks are compiled in; without this line a new file in the folder would go unnoticed.

fn main() {
    println!("cargo:rerun-if-changed=../../envs");
}
