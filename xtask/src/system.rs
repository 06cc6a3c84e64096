//! System libraries and programs that cargo cannot fetch: which are missing, and the command that installs them.
//!
//! What counts is whether the dynamic loader would find a library, not whether a package is installed: a driver may
//! come from elsewhere. So the loader's own cache (`ldconfig -p`) is read, and then its usual folders.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// What the program is needed for. Each purpose needs more than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To compile and link it.
    Build,
    /// To run it without a window. Films are rendered then too.
    Headless,
    /// To open the desk.
    Desk,
    /// To run every test, including that of the real window.
    Test,
}

#[derive(Debug, Clone, Copy)]
enum Probe {
    /// A shared library that is opened by this name at run time.
    Library(&'static str),
    /// A program on `PATH`.
    Program(&'static str),
    /// What cargo's C++ build scripts call: `$CXX`, else `c++`.
    CppCompiler,
    /// A Vulkan driver whose library exists, possibly a software driver.
    VulkanDriver,
    /// A subcommand of cargo that comes as a component of the toolchain.
    Component(&'static str),
}

/// One thing that is needed, and the packages that provide it.
struct Need {
    what: &'static str,
    probe: Probe,
    from: Purpose,
    /// The packages on Debian and Ubuntu, Fedora, Arch.
    packages: [&'static str; 3],
}

const fn need(what: &'static str, probe: Probe, from: Purpose, packages: [&'static str; 3]) -> Need {
    Need { what, probe, from, packages }
}

use Probe::{Component, CppCompiler, Library, Program, VulkanDriver};
use Purpose::{Build, Desk, Headless, Test};

/// The libraries are those that wgpu, winit and its keyboard code open by name at start-up.
const NEEDS: &[Need] = &[
    need("a C++ compiler", CppCompiler, Build, ["g++", "gcc-c++", "gcc"]),
    need(
        "the Vulkan loader",
        Library("libvulkan.so.1"),
        Headless,
        ["libvulkan1", "vulkan-loader", "vulkan-icd-loader"],
    ),
    need("a Vulkan driver", VulkanDriver, Headless, ["mesa-vulkan-drivers", "mesa-vulkan-drivers", "vulkan-swrast"]),
    need("Xlib", Library("libX11.so.6"), Desk, ["libx11-6", "libX11", "libx11"]),
    need("Xlib's XCB bridge", Library("libX11-xcb.so.1"), Desk, ["libx11-xcb1", "libX11-xcb", "libx11"]),
    need("XCB", Library("libxcb.so.1"), Desk, ["libxcb1", "libxcb", "libxcb"]),
    need("X11 cursors", Library("libXcursor.so.1"), Desk, ["libxcursor1", "libXcursor", "libxcursor"]),
    need("X11 input", Library("libXi.so.6"), Desk, ["libxi6", "libXi", "libxi"]),
    need("Wayland", Library("libwayland-client.so.0"), Desk, ["libwayland-client0", "libwayland-client", "wayland"]),
    need("the keyboard library", Library("libxkbcommon.so.0"), Desk, ["libxkbcommon0", "libxkbcommon", "libxkbcommon"]),
    need(
        "the keyboard library for X11",
        Library("libxkbcommon-x11.so.0"),
        Desk,
        ["libxkbcommon-x11-0", "libxkbcommon-x11", "libxkbcommon-x11"],
    ),
    need("a virtual X server", Program("Xvfb"), Test, ["xvfb", "xorg-x11-server-Xvfb", "xorg-server-xvfb"]),
    need("a tool that clicks", Program("xdotool"), Test, ["xdotool", "xdotool", "xdotool"]),
    need("rustfmt", Component("fmt"), Test, ["", "", ""]),
    need("clippy", Component("clippy"), Test, ["", "", ""]),
];

/// Makes sure that everything for `purpose` is there. If something is missing, root (or anyone who gave `--yes`) has it
/// installed; everyone else is told the command.
pub fn ensure(purpose: Purpose, yes: bool) -> Result<(), Error> {
    let missing = lacking(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    let root = is_root();
    let command = install_command(&missing, Manager::here(), apt_lists_empty(), root);
    if !(root || yes) {
        let missing = missing.iter().map(|need| need.what.to_owned()).collect();
        return Err(Error::Packages { missing, command });
    }
    eprintln!("xtask: installing what this machine lacks: {command}");
    let failed = |why: String| Error::Install { command: command.clone(), why };
    let run = |command: &str| {
        Command::new("sh")
            .args(["-c", command])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(std::io::stderr())
            .status()
            .map_err(|why| Error::Program { program: "sh".to_owned(), why })
    };
    let mut status = run(&command)?;
    if !status.success() && Manager::here() == Manager::Apt {
        // Outdated package lists name files that no longer exist.
        let retry = install_command(&missing, Manager::Apt, true, root);
        eprintln!("xtask: again, with fresh package lists: {retry}");
        status = run(&retry)?;
    }
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    match lacking(purpose).as_slice() {
        [] => Ok(()),
        still => Err(failed(format!("still missing: {}", names(still)))),
    }
}

fn names(needs: &[&Need]) -> String {
    needs.iter().map(|need| need.what).collect::<Vec<_>>().join(", ")
}

fn lacking(purpose: Purpose) -> Vec<&'static Need> {
    let loader = Loader::ask();
    NEEDS
        .iter()
        .filter(|need| need.from <= purpose)
        .filter(|need| match need.probe {
            // On other systems than Linux, windows and GPUs are reached in other ways.
            Library(_) | VulkanDriver | Program(_) if env::consts::OS != "linux" => false,
            Library(name) => !loader.finds(name),
            Program(name) => !on_path(name),
            CppCompiler => env::var_os("CXX").is_none_or(|cxx| cxx.is_empty()) && !on_path("c++"),
            VulkanDriver => !vulkan_manifests().iter().any(|manifest| driver_is_there(manifest, &loader)),
            Component(name) => !cargo_has(name),
        })
        .collect()
}

// ---- Finding what is missing ----

/// What the dynamic loader knows.
struct Loader {
    cached: BTreeSet<String>,
    folders: Vec<PathBuf>,
}

impl Loader {
    fn ask() -> Loader {
        // /sbin is not on every user's PATH.
        let listing = ["ldconfig", "/sbin/ldconfig", "/usr/sbin/ldconfig"]
            .iter()
            .find_map(|program| Command::new(program).arg("-p").output().ok())
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        let multiarch = format!("{}-linux-gnu", env::consts::ARCH);
        let mut folders: Vec<PathBuf> =
            env::var_os("LD_LIBRARY_PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
        for usual in ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"] {
            folders.push(usual.into());
            folders.push(Path::new(usual).join(&multiarch));
        }
        Loader { cached: parse_ldconfig(&listing, env::consts::ARCH), folders }
    }

    fn finds(&self, library: &str) -> bool {
        self.cached.contains(library) || self.folders.iter().any(|folder| folder.join(library).is_file())
    }
}

/// The names in the output of `ldconfig -p` that a program of this architecture can open. A line is `libvulkan.so.1
/// (libc6,x86-64) => /lib/x86_64-linux-gnu/libvulkan.so.1`. 32-bit libraries lack the second word in parentheses.
fn parse_ldconfig(listing: &str, arch: &str) -> BTreeSet<String> {
    let tag = match arch {
        "x86_64" => "x86-64",
        "aarch64" => "AArch64",
        _ => "",
    };
    listing
        .lines()
        .filter_map(|line| {
            let (name, after) = line.trim().split_once(" (")?;
            let (kind, path) = after.split_once(") => ")?;
            (kind.contains(tag) && !path.is_empty()).then(|| name.to_owned())
        })
        .collect()
}

fn on_path(program: &str) -> bool {
    let Some(path) = env::var_os("PATH") else { return false };
    env::split_paths(&path).any(|folder| {
        fs::metadata(folder.join(program)).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

fn cargo_has(subcommand: &str) -> bool {
    Command::new(crate::steps::cargo())
        .args([subcommand, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Every driver manifest that the Vulkan loader would read, in the places that its documentation lists.
fn vulkan_manifests() -> Vec<PathBuf> {
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        if let Some(files) = env::var_os(variable).filter(|files| !files.is_empty()) {
            return env::split_paths(&files)
                .flat_map(|path| if path.is_dir() { json_files(&path) } else { vec![path] })
                .collect();
        }
    }
    let list = |variable: &str, usual: &str| -> Vec<PathBuf> {
        let folders = env::var_os(variable).filter(|folders| !folders.is_empty());
        env::split_paths(folders.as_deref().unwrap_or(OsStr::new(usual))).collect()
    };
    let mut bases = list("XDG_CONFIG_DIRS", "/etc/xdg");
    bases.extend(["/etc".into(), "/usr/local/share".into(), "/usr/share".into()]);
    bases.extend(list("XDG_DATA_DIRS", "/usr/local/share:/usr/share"));
    if let Some(home) = env::var_os("HOME") {
        bases.push(Path::new(&home).join(".local/share"));
    }
    bases.iter().flat_map(|base| json_files(&base.join("vulkan/icd.d"))).collect()
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.extension() == Some(OsStr::new("json"))).collect()
}

/// Whether the library that a driver manifest names can be opened. Manifests outlive their drivers.
fn driver_is_there(manifest: &Path, loader: &Loader) -> bool {
    let Some(library) = fs::read_to_string(manifest).ok().as_deref().and_then(library_path) else { return false };
    if !library.contains('/') {
        return loader.finds(&library);
    }
    // A path with a folder in it is relative to the manifest (`join` leaves an absolute one as it is).
    manifest.parent().is_some_and(|folder| folder.join(library).is_file())
}

/// `ICD.library_path` of a driver manifest. A whole JSON reader for one string would be too much.
fn library_path(json: &str) -> Option<String> {
    let (_, after) = json.split_once("\"library_path\"")?;
    let (_, after) = after.split_once(':')?;
    let (_, after) = after.split_once('"')?;
    let (value, _) = after.split_once('"')?;
    Some(value.replace("\\/", "/"))
}

// ---- Installing ----

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Pacman,
}

impl Manager {
    /// Debian's where no manager is found: its package names are the best hint then.
    fn here() -> Manager {
        let known = [("apt-get", Manager::Apt), ("dnf", Manager::Dnf), ("pacman", Manager::Pacman)];
        known.iter().find(|(program, _)| on_path(program)).map_or(Manager::Apt, |(_, manager)| *manager)
    }
}

/// The shell command that installs everything in `missing`.
fn install_command(missing: &[&Need], manager: Manager, refresh: bool, root: bool) -> String {
    let (column, install) = match manager {
        Manager::Apt => (0, "apt-get install -y"),
        Manager::Dnf => (1, "dnf install -y"),
        Manager::Pacman => (2, "pacman -S --needed --noconfirm"),
    };
    let sudo = if root { "" } else { "sudo " };
    let mut commands = Vec::new();
    let packages: BTreeSet<&str> =
        missing.iter().map(|need| need.packages[column]).filter(|package| !package.is_empty()).collect();
    if !packages.is_empty() {
        if refresh && manager == Manager::Apt {
            commands.push(format!("{sudo}apt-get update"));
        }
        commands.push(format!("{sudo}{install} {}", packages.into_iter().collect::<Vec<_>>().join(" ")));
    }
    let components: Vec<&str> = missing
        .iter()
        .filter_map(|need| match need.probe {
            Component("fmt") => Some("rustfmt"),
            Component(name) => Some(name),
            _ => None,
        })
        .collect();
    if !components.is_empty() {
        commands.push(format!("rustup component add {}", components.join(" ")));
    }
    commands.join(" && ")
}

/// Whether there are no package lists. A fresh container image has none.
fn apt_lists_empty() -> bool {
    let lists = fs::read_dir("/var/lib/apt/lists").into_iter().flatten().filter_map(Result::ok);
    !lists.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().contains("_Packages"))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_listing_is_read_for_this_architecture_alone() {
        // As printed by Debian 12 with the i386 Vulkan loader and the amd64 libX11.
        let listing = "1234 libs found in cache `/etc/ld.so.cache'\n\
                       \tlibvulkan.so.1 (libc6) => /lib/i386-linux-gnu/libvulkan.so.1\n\
                       \tlibX11.so.6 (libc6,x86-64) => /lib/x86_64-linux-gnu/libX11.so.6\n\
                       \tlibm.so.6 (libc6,x86-64, OS ABI: Linux 3.2.0) => /lib/x86_64-linux-gnu/libm.so.6\n\
                       \tlibxcb.so.1 (libc6,AArch64) => /lib/aarch64-linux-gnu/libxcb.so.1\n\
                       Cache generated by: ldconfig (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36\n";
        let names = |arch| parse_ldconfig(listing, arch).into_iter().collect::<Vec<_>>();
        assert_eq!(names("x86_64"), ["libX11.so.6", "libm.so.6"]);
        assert_eq!(names("aarch64"), ["libxcb.so.1"]);
        assert!(parse_ldconfig("", "x86_64").is_empty());
    }

    #[test]
    fn a_driver_counts_only_with_its_library() {
        let mesa = r#"{ "ICD": { "api_version": "1.3.230", "library_path": "/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so" },
                        "file_format_version": "1.0.0" }"#;
        assert_eq!(library_path(mesa).as_deref(), Some("/usr/lib/x86_64-linux-gnu/libvulkan_lvp.so"));
        assert_eq!(
            library_path(r#"{"ICD":{"library_path":"libGLX_nvidia.so.0"}}"#).as_deref(),
            Some("libGLX_nvidia.so.0")
        );
        assert_eq!(library_path("{}"), None);

        let folder = env::temp_dir().join(format!("flipside-xtask-icd-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let loader = Loader { cached: ["libGLX_nvidia.so.0".to_owned()].into(), folders: Vec::new() };
        let check = |library: &str, expected: bool| {
            let manifest = folder.join("icd.json");
            fs::write(&manifest, format!(r#"{{"ICD": {{"library_path": "{library}"}}}}"#)).unwrap();
            assert_eq!(driver_is_there(&manifest, &loader), expected, "{library}");
        };
        check("libGLX_nvidia.so.0", true);
        check("libvulkan_gone.so", false);
        check("/usr/lib/libvulkan_gone.so", false);
        check("./icd.json", true);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn one_command_brings_all_that_is_missing() {
        let missing = |whats: &[&str]| -> Vec<&'static Need> {
            let found: Vec<_> = NEEDS.iter().filter(|need| whats.contains(&need.what)).collect();
            assert_eq!(found.len(), whats.len());
            found
        };
        let vulkan = missing(&["the Vulkan loader", "a Vulkan driver"]);
        assert_eq!(
            install_command(&vulkan, Manager::Apt, false, false),
            "sudo apt-get install -y libvulkan1 mesa-vulkan-drivers"
        );
        assert_eq!(
            install_command(&vulkan, Manager::Apt, true, true),
            "apt-get update && apt-get install -y libvulkan1 mesa-vulkan-drivers"
        );
        // On Arch, one package provides both.
        let xlib = missing(&["Xlib", "Xlib's XCB bridge"]);
        assert_eq!(install_command(&xlib, Manager::Pacman, true, false), "sudo pacman -S --needed --noconfirm libx11");
        let tools = missing(&["a virtual X server", "rustfmt", "clippy"]);
        assert_eq!(
            install_command(&tools, Manager::Dnf, false, false),
            "sudo dnf install -y xorg-x11-server-Xvfb && rustup component add rustfmt clippy"
        );
    }

    #[test]
    fn a_purpose_needs_all_that_the_one_before_needs() {
        let count = |purpose: Purpose| NEEDS.iter().filter(|need| need.from <= purpose).count();
        assert_eq!(count(Build), 1);
        assert_eq!(count(Test), NEEDS.len());
        assert!(count(Build) < count(Headless) && count(Headless) < count(Desk) && count(Desk) < count(Test));
    }
}
