//! Finds libtorch, or makes a copy of it for this user, and tells cargo where it is.
//!
//! The order is: what `LIBTORCH` or `LIBTORCH_USE_PYTORCH` names; the cache of an earlier run; the official CPU
//! archive. Where that host cannot be reached or has nothing for this architecture, pip fetches the wheels of PyTorch.
//!
//! A cached folder appears under its own name only when it is complete. It is made beside that name, listed in a
//! manifest (see [`crate::manifest`]) and renamed. Two runs at once wait for each other at a lock file. The system
//! releases the lock when its holder dies.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::manifest::{Flaw, Manifest};
use crate::pins::{self, Keep, Wheel};

/// Runs as `python3 -c FETCH verb …`. Python provides TLS, checksums and zip archives, so xtask needs no dependency.
const FETCH: &str = include_str!("fetch.py");

/// The exit status of [`FETCH`] when a host cannot be reached.
const UNREACHABLE: i32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// Computes on the CPU; runs anywhere.
    Cpu,
    /// Has all CUDA libraries, for an NVIDIA GPU.
    Cuda,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Flavour::Cpu => "cpu",
            Flavour::Cuda => "cuda",
        }
    }

    /// What torch-sys gets as `LIBTORCH`: the folder that contains `lib` and `include`.
    fn root(self, folder: &Path) -> PathBuf {
        match self {
            Flavour::Cpu => folder.to_owned(),
            // `torch` lies beside `nvidia`, as in site-packages, so that the wheels' own run paths stay valid.
            Flavour::Cuda => folder.join("torch"),
        }
    }
}

/// A libtorch of the right version on this machine.
#[derive(Debug)]
pub enum Libtorch {
    /// `LIBTORCH`, absolute and without symbolic links. torch-sys rebuilds (two minutes) whenever this string changes.
    Folder(PathBuf),
    /// `LIBTORCH_USE_PYTORCH`: torch-sys asks Python.
    Python,
}

impl Libtorch {
    /// Sets what torch-sys's build script reads, and removes what would mislead it.
    pub fn apply(&self, command: &mut Command) {
        match self {
            Libtorch::Folder(folder) => {
                command.env("LIBTORCH", folder).env_remove("LIBTORCH_USE_PYTORCH");
            }
            Libtorch::Python => {
                command.env("LIBTORCH_USE_PYTORCH", "1").env_remove("LIBTORCH");
            }
        }
    }

    /// The same setting as a line for a shell.
    pub fn shell_line(&self) -> String {
        match self {
            Libtorch::Folder(folder) => {
                format!("export LIBTORCH='{}'", folder.to_string_lossy().replace('\'', r"'\''"))
            }
            Libtorch::Python => "export LIBTORCH_USE_PYTORCH=1".to_owned(),
        }
    }
}

/// Finds or makes the libtorch to build with.
pub fn resolve(flavour: Flavour) -> Result<Libtorch, Error> {
    if let Some(folder) = set("LIBTORCH") {
        return given_folder(Path::new(&folder));
    }
    if set("LIBTORCH_USE_PYTORCH").is_some() {
        return given_python();
    }
    let base = cache_base()?;
    fs::create_dir_all(&base).map_err(Error::file("make the folder", &base))?;
    // Symbolic links are resolved, so that the variable is the same string however the cache was reached.
    let base = base.canonicalize().map_err(Error::file("open the folder", &base))?;
    let folder = base.join(format!("libtorch-{}-{}", pins::VERSION, flavour.name()));
    if Manifest::check(&title(flavour), &folder).is_err() {
        let _lock = lock(&base)?;
        // Another run may have done the work while this one waited for the lock.
        match Manifest::check(&title(flavour), &folder) {
            Ok(()) => {}
            Err(flaw) => make(flavour, &base, &folder, &flaw)?,
        }
    }
    Ok(Libtorch::Folder(flavour.root(&folder)))
}

/// The value of an environment variable. An empty one counts as unset.
fn set(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

fn title(flavour: Flavour) -> String {
    format!("{} {} {}", pins::VERSION, flavour.name(), env::consts::ARCH)
}

fn cache_base() -> Result<PathBuf, Error> {
    if let Some(cache) = set("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        return Ok(cache.join("flipside"));
    }
    let home = set("HOME").ok_or_else(|| Error::Usage("neither HOME nor XDG_CACHE_HOME is set".to_owned()))?;
    Ok(Path::new(&home).join(".cache").join("flipside"))
}

/// Takes the lock that guards the cache. Dropping the file releases it.
fn lock(base: &Path) -> Result<File, Error> {
    let path = base.join("libtorch.lock");
    let file = File::options().create(true).append(true).open(&path).map_err(Error::file("open", &path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => eprintln!("xtask: another run is fetching libtorch; waiting for it"),
        Err(TryLockError::Error(why)) => return Err(Error::file("lock", &path)(why)),
    }
    file.lock().map_err(Error::file("lock", &path))?;
    Ok(file)
}

// ---- What the environment names ----

fn given_folder(folder: &Path) -> Result<Libtorch, Error> {
    let bad = |why: String| Error::Libtorch { variable: "LIBTORCH", why };
    let folder = folder.canonicalize().map_err(|why| bad(format!("{} cannot be opened ({why})", folder.display())))?;
    // LIBTORCH_LIB and LIBTORCH_INCLUDE may name other places. Then torch-sys does the checking.
    if set("LIBTORCH_LIB").is_none() && set("LIBTORCH_INCLUDE").is_none() {
        if !folder.join("lib/libtorch_cpu.so").is_file() && !folder.join("lib/libtorch_cpu.dylib").is_file() {
            return Err(bad(format!("{} holds no lib/libtorch_cpu.so", folder.display())));
        }
        match header_version(&folder.join("include")) {
            None => return Err(bad(format!("{} holds no headers of libtorch", folder.display()))),
            Some(found) if !accepted(&found) => return Err(bad(format!("{} is libtorch {found}", folder.display()))),
            Some(_) => {}
        }
    }
    eprintln!("xtask: libtorch from LIBTORCH={}", folder.display());
    Ok(Libtorch::Folder(folder))
}

fn given_python() -> Result<Libtorch, Error> {
    // torch-sys calls `python` in a virtual environment and `python3` elsewhere. So does this.
    let python = if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
    let bad = |why: String| Error::Libtorch { variable: "LIBTORCH_USE_PYTORCH", why };
    match fetch(python, &["torch-version"])? {
        Outcome::Done(version) if accepted(&version) => {
            eprintln!("xtask: libtorch from the PyTorch {version} of `{python}`");
            Ok(Libtorch::Python)
        }
        Outcome::Done(version) => Err(bad(format!("`{python}` has PyTorch {version}"))),
        Outcome::Unreachable(why) | Outcome::Failed(why) => Err(bad(format!("`{python}` says: {why}"))),
    }
}

/// Whether `tch` binds this version. A suffix such as `+cpu` or `+cu130` does not matter.
/// `LIBTORCH_BYPASS_VERSION_CHECK`, which torch-sys also reads, accepts any version.
fn accepted(version: &str) -> bool {
    version.split('+').next() == Some(pins::VERSION) || env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some()
}

/// The version of the headers in `include`.
fn header_version(include: &Path) -> Option<String> {
    // Up to version 2.9 the header stood at the second path.
    ["torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"]
        .iter()
        .filter_map(|file| fs::read_to_string(include.join(file)).ok())
        .find_map(|text| version_in_header(&text))
}

fn version_in_header(text: &str) -> Option<String> {
    let number = |name: &str| {
        let (_, after) = text.split_once(&format!("#define TORCH_VERSION_{name} "))?;
        after.split_whitespace().next()?.parse::<u32>().ok()
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}

// ---- Making the cache ----

/// Makes `folder` from scratch. The caller holds the lock.
fn make(flavour: Flavour, base: &Path, folder: &Path, flaw: &Flaw) -> Result<(), Error> {
    let arch = env::consts::ARCH;
    if env::consts::OS != "linux" || pins::WHEELS[0].sha256(arch).is_none() {
        return Err(Error::Platform(format!("{arch} on {}", env::consts::OS)));
    }
    let unfinished = base.join(format!("libtorch-{}-{}.part", pins::VERSION, flavour.name()));
    clear(&unfinished)?;
    let downloads = base.join("downloads");
    fs::create_dir_all(&downloads).map_err(Error::file("make the folder", &downloads))?;
    let state = if folder.exists() { format!("cannot be used ({flaw})") } else { "is not there yet".to_owned() };
    eprintln!("xtask: {} {state}; fetching libtorch {}", folder.display(), title(flavour));
    match flavour {
        Flavour::Cuda => from_wheels(flavour, &downloads, &unfinished)?,
        Flavour::Cpu => {
            if let Err(why) = from_archive(&downloads, &unfinished) {
                eprintln!("xtask: not from the official archive ({why}); from PyTorch's wheels, then, with pip");
                from_wheels(flavour, &downloads, &unfinished)?;
            }
        }
    }
    let found = header_version(&flavour.root(&unfinished).join("include")).unwrap_or_default();
    if found != pins::VERSION {
        return Err(Error::Fetch { what: "libtorch".to_owned(), why: format!("its headers are of version `{found}`") });
    }
    Manifest::of(&title(flavour), &unfinished)
        .and_then(|manifest| manifest.write(&unfinished))
        .map_err(Error::file("list", &unfinished))?;
    clear(folder)?;
    fs::rename(&unfinished, folder).map_err(Error::file("finish", folder))?;
    clear(&downloads)?;
    eprintln!("xtask: libtorch is ready in {}", folder.display());
    Ok(())
}

/// Takes the official archive. An error is a reason to take the wheels instead.
fn from_archive(downloads: &Path, into: &Path) -> Result<(), String> {
    if env::consts::ARCH != "x86_64" {
        return Err(format!("there is none for {}", env::consts::ARCH));
    }
    let archive = downloads.join("libtorch.zip");
    let text = |error: Error| error.to_string();
    match fetch("python3", &["download", pins::ARCHIVE, &archive.to_string_lossy()]).map_err(text)? {
        Outcome::Done(_) => {}
        Outcome::Unreachable(why) => return Err(format!("its host cannot be reached: {why}")),
        Outcome::Failed(why) => return Err(why),
    }
    take_archive(&archive, into)
}

/// Unpacks the official archive, if it is the expected build.
fn take_archive(archive: &Path, into: &Path) -> Result<(), String> {
    unpack(archive, into, "any", &pins::ARCHIVE_KEEPS).map_err(|error| error.to_string())?;
    let build = fs::read_to_string(into.join("build-version")).unwrap_or_default();
    if build.trim() != pins::ARCHIVE_BUILD {
        return Err(format!("its build is `{}`, not `{}`", build.trim(), pins::ARCHIVE_BUILD));
    }
    Ok(())
}

/// Takes the wheels. pip downloads and checks them. They are checked again here, because they may be from an earlier
/// run, and unpacked.
fn from_wheels(flavour: Flavour, downloads: &Path, into: &Path) -> Result<(), Error> {
    clear(into)?;
    let chosen: Vec<(&Wheel, Keep)> = pins::WHEELS
        .iter()
        .filter_map(|wheel| match flavour {
            Flavour::Cpu => Some((wheel, wheel.cpu?)),
            Flavour::Cuda => Some((wheel, wheel.cuda())),
        })
        .collect();
    let arch = env::consts::ARCH;
    let requirements = downloads.join("requirements.txt");
    fs::write(&requirements, requirements_text(&chosen, arch)).map_err(Error::file("write", &requirements))?;
    pip_download(&requirements, downloads, arch)?;
    for (wheel, keep) in &chosen {
        let file = wheel_file(downloads, wheel)?;
        unpack(&file, into, wheel.sha256(arch).unwrap_or_default(), keep)?;
    }
    if flavour == Flavour::Cpu {
        // The wheel's libtorch.so contains no code and lists every CUDA library as needed. A linker script takes its
        // place. It leads `-ltorch` to the library with the code. Nothing looks for libtorch.so at run time.
        let script = into.join("lib/libtorch.so");
        fs::write(&script, "INPUT(libtorch_cpu.so)\n").map_err(Error::file("write", &script))?;
    }
    Ok(())
}

/// pip's requirements file, one pinned wheel a line. Because it contains hashes, pip accepts nothing else.
fn requirements_text(wheels: &[(&Wheel, Keep)], arch: &str) -> String {
    wheels
        .iter()
        .filter_map(|(wheel, _)| {
            Some(format!("{}=={} --hash=sha256:{}\n", wheel.name, wheel.version, wheel.sha256(arch)?))
        })
        .collect()
}

fn pip_download(requirements: &Path, downloads: &Path, arch: &str) -> Result<(), Error> {
    let mut pip = Command::new("python3");
    // One Python version's wheel serves every Python, because only its libraries are used. pip matches each platform
    // tag exactly.
    pip.args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--no-cache-dir", "--only-binary=:all:"])
        .args(["--implementation", "cp", "--python-version", "3.11"])
        .arg(format!("--platform=manylinux2014_{arch}"))
        .args((5..=28).map(|minor| format!("--platform=manylinux_2_{minor}_{arch}")))
        .args(["--platform", &format!("manylinux1_{arch}"), "--platform", &format!("manylinux2010_{arch}")])
        .arg("--requirement")
        .arg(requirements)
        .arg("--dest")
        .arg(downloads)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        // Resume a broken download instead of starting over, where pip can (25.1 and newer).
        .env("PIP_RESUME_RETRIES", "8")
        // stdout is reserved for the output of `setup`.
        .stdout(std::io::stderr());
    let status = pip.status().map_err(|why| Error::Program { program: "python3".to_owned(), why })?;
    if status.success() {
        return Ok(());
    }
    let without_pip = Command::new("python3")
        .args(["-m", "pip", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| !status.success());
    let why = if without_pip { "this Python has no pip; `sudo apt-get install -y python3-pip`" } else { "pip failed" };
    Err(Error::Fetch { what: "PyTorch's wheels".to_owned(), why: why.to_owned() })
}

/// The file that pip wrote for `wheel`. A `-` in the name is `_` there, and tags follow the version.
fn wheel_file(downloads: &Path, wheel: &Wheel) -> Result<PathBuf, Error> {
    let start = format!("{}-{}-", wheel.name.replace('-', "_"), wheel.version);
    fs::read_dir(downloads)
        .map_err(Error::file("read the folder", downloads))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
        .ok_or_else(|| Error::Fetch { what: wheel.name.to_owned(), why: "pip left no file of that name".to_owned() })
}

fn unpack(archive: &Path, into: &Path, sha256: &str, keep: &Keep) -> Result<(), Error> {
    let (archive_text, into_text) = (archive.to_string_lossy(), into.to_string_lossy());
    let mut words: Vec<String> = ["unpack", &archive_text, &into_text, sha256, keep.strip].map(str::to_owned).to_vec();
    words.extend(keep.keep.iter().map(|pattern| format!("+{pattern}")));
    words.extend(keep.drop.iter().map(|pattern| format!("-{pattern}")));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match fetch("python3", &words)? {
        Outcome::Done(_) => Ok(()),
        Outcome::Unreachable(why) | Outcome::Failed(why) => {
            let what = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Err(Error::Fetch { what, why })
        }
    }
}

/// Removes a folder and everything in it, if it exists.
fn clear(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", folder)(why)),
        _ => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// With what was printed on stdout.
    Done(String),
    Unreachable(String),
    Failed(String),
}

/// Runs [`FETCH`]. Its progress is shown, and its stdout is returned.
fn fetch(python: &str, words: &[&str]) -> Result<Outcome, Error> {
    outcome(python, Command::new(python).args(["-c", FETCH]).args(words))
}

fn outcome(python: &str, command: &mut Command) -> Result<Outcome, Error> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|why| Error::Program { program: python.to_owned(), why })?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(match output.status.code() {
        Some(0) => Outcome::Done(said),
        Some(UNREACHABLE) => Outcome::Unreachable(said),
        _ if said.is_empty() => Outcome::Failed(format!("`{python}` ended with {}", output.status)),
        _ => Outcome::Failed(said),
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A temporary folder for one test, removed when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let path = env::temp_dir().join(format!("flipside-xtask-fetch-{test}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn python(code: &str, words: &[&str]) -> Outcome {
        let mut command = Command::new("python3");
        outcome("python3", command.args(["-c", code]).args(words).env("no_proxy", "127.0.0.1")).unwrap()
    }

    /// Serves `body` on this machine. Each connection sends as many bytes as `cuts` says, then breaks off.
    fn serve(body: &'static [u8], cuts: Vec<usize>) -> (String, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/libtorch.zip", listener.local_addr().unwrap());
        let server = thread::Builder::new().name("archive server".to_owned()).spawn(move || {
            let mut ranges = Vec::new();
            for cut in cuts {
                let (mut stream, _) = listener.accept().unwrap();
                let mut range = String::new();
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let line = line.unwrap();
                    if line.is_empty() {
                        break;
                    }
                    if let Some(wanted) = line.strip_prefix("Range: bytes=") {
                        range = wanted.to_owned();
                    }
                }
                let from: usize = range.trim_end_matches('-').parse().unwrap_or(0);
                let status = if range.is_empty() { "200 OK" } else { "206 Partial Content" };
                let left = &body[from..];
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", left.len())
                    .unwrap();
                stream.write_all(&left[..cut.min(left.len())]).unwrap();
                ranges.push(range);
            }
            ranges
        });
        (url, server.unwrap())
    }

    #[test]
    fn a_download_that_breaks_off_is_gone_on_with_and_whole_at_the_end() {
        static BODY: [u8; 5000] = {
            let mut body = [0; 5000];
            let mut at = 0;
            while at < body.len() {
                body[at] = (at * at % 251) as u8;
                at += 1;
            }
            body
        };
        let folder = Folder::new("resume");
        let file = folder.0.join("libtorch.zip");
        let (url, server) = serve(&BODY, vec![1200, 1300, 5000]);
        assert_eq!(python(FETCH, &["download", &url, &file.to_string_lossy()]), Outcome::Done(String::new()));
        assert_eq!(server.join().unwrap(), ["", "1200-", "2500-"]);
        assert_eq!(fs::read(&file).unwrap(), BODY);
        assert!(!file.with_extension("zip.part").exists());
    }

    #[test]
    fn a_host_that_cannot_be_reached_is_told_from_one_that_refuses() {
        let folder = Folder::new("refused");
        let file = folder.0.join("libtorch.zip");
        // A port that was free a moment ago, so nothing listens on it.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/libtorch.zip");
        let outcome = python(FETCH, &["download", &url, &file.to_string_lossy()]);
        assert!(matches!(outcome, Outcome::Unreachable(_)), "{outcome:?}");
        assert!(!file.exists());
    }

    #[test]
    fn only_a_whole_archive_is_unpacked() {
        let folder = Folder::new("unpack");
        let (archive, into) = (folder.0.join("torch.whl"), folder.0.join("into"));
        let make = "import sys, zipfile, hashlib
with zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED) as out:
    out.writestr('torch/lib/libtorch_cpu.so', bytes(i * i % 251 for i in range(9000)))
    out.writestr('torch/lib/libtorch_cuda.so', b'not wanted')
    out.writestr('torch/include/torch/torch.h', b'#pragma once')
    out.writestr('torch/__init__.py', b'')
print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())";
        let keep = pins::WHEELS[0].cpu.unwrap();
        let made = || match python(make, &[&archive.to_string_lossy()]) {
            Outcome::Done(sha256) => sha256,
            other => panic!("{other:?}"),
        };

        let sha256 = made();
        unpack(&archive, &into, &sha256, &keep).unwrap();
        assert_eq!(fs::metadata(into.join("lib/libtorch_cpu.so")).unwrap().len(), 9000);
        assert!(into.join("include/torch/torch.h").exists());
        assert!(!into.join("lib/libtorch_cuda.so").exists() && !into.join("__init__.py").exists());

        // An archive that is cut short is refused and deleted, whether or not there is a checksum to compare with.
        for checksum in [sha256.as_str(), "any"] {
            made();
            let half = fs::metadata(&archive).unwrap().len() / 2;
            File::options().write(true).open(&archive).unwrap().set_len(half).unwrap();
            let error = unpack(&archive, &into, checksum, &keep).unwrap_err().to_string();
            assert!(error.contains("thrown away"), "{error}");
            assert!(!archive.exists());
        }
        // One bit in the middle of a member is changed, and there is no checksum. The member's CRC-32 shows it.
        made();
        let mut bytes = fs::read(&archive).unwrap();
        bytes[300] ^= 1;
        fs::write(&archive, &bytes).unwrap();
        let error = unpack(&archive, &into, "any", &keep).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    #[test]
    fn the_official_archive_is_taken_for_its_own_version_alone() {
        let folder = Folder::new("archive");
        let archive = folder.0.join("libtorch.zip");
        let make = "import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as out:
    out.writestr('libtorch/build-version', sys.argv[2] + '\\n')
    for name in sys.argv[3:]:
        out.writestr('libtorch/' + name, name)";
        let names = [
            "lib/libtorch.so",
            "lib/libgomp-24e2ab19.so.1",
            "lib/libdnnl.a",
            "lib/libtorch_python.so",
            "include/torch/x.h",
        ];
        let check = |version: &str| {
            let into = folder.0.join(version);
            let words = [archive.to_str().unwrap(), version].into_iter().chain(names).collect::<Vec<_>>();
            assert_eq!(python(make, &words), Outcome::Done(String::new()));
            (take_archive(&archive, &into), into)
        };
        let (taken, into) = check("2.11.0+cpu");
        assert_eq!(taken, Ok(()));
        let kept: Vec<bool> = names.iter().map(|name| into.join(name).exists()).collect();
        assert_eq!(kept, [true, true, false, false, true]);
        let (taken, _) = check("2.12.0+cpu");
        assert_eq!(taken, Err("its build is `2.12.0+cpu`, not `2.11.0+cpu`".to_owned()));
    }

    #[test]
    fn versions_are_read_and_judged() {
        let header = "#pragma once\n#define TORCH_VERSION_MAJOR 2\n\n/// Minor\n#define TORCH_VERSION_MINOR 11\n\
                      #define TORCH_VERSION_PATCH 0\n#define TORCH_VERSION_ABI_TAG 0\n";
        assert_eq!(version_in_header(header).as_deref(), Some("2.11.0"));
        assert_eq!(version_in_header("#define TORCH_VERSION_MAJOR 2\n"), None);
        assert!(accepted("2.11.0") && accepted("2.11.0+cu130") && accepted("2.11.0+cpu"));
        if env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_none() {
            assert!(!accepted("2.11.1") && !accepted("2.1") && !accepted(""));
        }
    }

    #[test]
    fn every_wheel_is_pinned_for_both_architectures() {
        for wheel in pins::WHEELS {
            for arch in ["x86_64", "aarch64"] {
                let sha256 = wheel.sha256(arch).unwrap();
                assert!(sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit()), "{}", wheel.name);
            }
            assert_ne!(wheel.x86_64, wheel.aarch64, "{}", wheel.name);
        }
        let chosen = [(&pins::WHEELS[1], pins::WHEELS[1].cuda())];
        assert_eq!(
            requirements_text(&chosen, "x86_64"),
            "nvidia-cuda-runtime==13.0.96 \
             --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548\n"
        );
    }

    #[test]
    fn a_shell_takes_the_line_for_it() {
        let line = Libtorch::Folder(PathBuf::from("/home/o'neil/.cache/flipside/libtorch")).shell_line();
        let output = Command::new("sh").args(["-c", &format!("{line}; printf %s \"$LIBTORCH\"")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "/home/o'neil/.cache/flipside/libtorch");
    }
}
