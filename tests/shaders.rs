//! Validates every WGSL file, so that a mistake in a shader is found here and not by a user's driver.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use naga::valid::{Capabilities, ValidationFlags, Validator};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose files are parts of shaders.
const PARTS: [&str; 5] = ["shaders/physics", "shaders/compute", "shaders/gym", "shaders/learn", "shaders/preference"];

#[test]
fn every_shader_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Parts of shaders are composed and validated by the tests of their modules.
    let files: Vec<PathBuf> = wgsl_files(&root.join("shaders"))
        .into_iter()
        .filter(|file| !PARTS.iter().any(|parts| file.starts_with(root.join(parts))))
        .collect();
    assert!(files.iter().any(|f| f.ends_with("scene/scene.wgsl")), "the scene's shader is not among {files:?}");
    let faults: Vec<String> = files
        .iter()
        .filter_map(|path| {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            fault(&name, &fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn faults_are_found_with_file_and_line() {
    let check = |text: &str, words: &[&str]| {
        let fault = fault("shaders/a.wgsl", text).expect("it is wrong");
        for word in words {
            assert!(fault.contains(word), "{fault}");
        }
    };
    check("fn f() -> f32 {\n  return 1u;\n}", &["shaders/a.wgsl:1"]);
    check("fn f() {\n  let x = ;\n}", &["shaders/a.wgsl:2"]);
    // Code that parses can still be wrong, such as a position that is not a vec4f.
    check(
        "@vertex fn f() -> @builtin(position) vec3f { return vec3f(); }",
        &["shaders/a.wgsl: ", "Entry point f at Vertex is invalid"],
    );
    assert_eq!(fault("a.wgsl", "@fragment fn f() -> @location(0) vec4f { return vec4f(1.0); }"), None);
}

/// What is wrong with a shader, with file and place. The shader must not need a device's optional features.
fn fault(name: &str, text: &str) -> Option<String> {
    let words = match naga::front::wgsl::parse_str(text) {
        Err(error) => error.emit_to_string_with_path(text, name),
        Ok(module) => Validator::new(ValidationFlags::all(), Capabilities::default())
            .validate(&module)
            .err()?
            .emit_to_string_with_path(text, name),
    };
    // Some faults have no place in the text, and naga then omits the file's name.
    Some(format!("{name}: {words}"))
}

fn wgsl_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.append(&mut wgsl_files(&path)),
            false if path.extension().is_some_and(|e| e == "wgsl") => files.push(path),
            false => {}
        }
    }
    files.sort();
    files
}
