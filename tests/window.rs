//! Tests the real window on a display of its own: a key pressed there must reach the database. Set-up installs Xvfb and
//! xdotool.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use flipside::store::Session;
use flipside_core::Choice;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that is killed when the test ends, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A process that has already ended needs no kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_key_pressed_in_the_window_reaches_the_database() {
    let mut server = Command::new("Xvfb");
    server.args(["-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp"]);
    let mut server = server
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("Xvfb starts: cargo xtask setup installs it");
    let mut number = String::new();
    let out = server.stdout.take().expect("stdout is piped");
    let _server = Running(server);
    BufReader::new(out).read_line(&mut number).expect("Xvfb names its display");
    let display = format!(":{}", number.trim());

    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session");
    let mut desk = Command::new(env!("CARGO_BIN_EXE_flipside"));
    desk.arg("--session").arg(&session).env("DISPLAY", &display).env_remove("WAYLAND_DISPLAY");
    let _desk = Running(desk.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the desk starts"));

    // A key pressed before the first pair is shown is ignored, as it must be. So it is pressed until an answer is
    // stored.
    let started = Instant::now();
    loop {
        let pressed = Command::new("xdotool")
            .args(["search", "--name", "Flipside", "windowfocus", "key", "Left"])
            .env("DISPLAY", &display)
            .output()
            .expect("xdotool runs: cargo xtask setup installs it");
        let standing = Session::open_to_read(&session).and_then(|session| session.standing()).unwrap_or_default();
        if let Some(judgement) = standing.first() {
            assert_eq!((judgement.choice, judgement.teacher.as_str()), (Choice::Left, "person"));
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no answer reached the database; xdotool said {pressed:?}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}
