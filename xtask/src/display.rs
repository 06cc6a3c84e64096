//! Checks whether there is a display that a window could open on. This is checked before a window is opened, so that a
//! machine without a display gets a sentence and the headless demo instead of a failure.

use std::env;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Where a display server listens.
#[derive(Debug, PartialEq, Eq)]
enum Server {
    Wayland(PathBuf),
    /// X11 on this machine, by number.
    Local(u16),
    /// X11 on another machine, as with `ssh -X`.
    Remote {
        host: String,
        number: u16,
    },
}

/// `Ok` if a display server answers. Otherwise half a sentence that says what is wrong.
pub fn reachable() -> Result<(), String> {
    if env::consts::OS != "linux" {
        return Ok(());
    }
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let (wayland, x11) = (variable("WAYLAND_DISPLAY"), variable("DISPLAY"));
    if wayland.is_none() && x11.is_none() {
        return Err("there is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)".to_owned());
    }
    let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let servers =
        [wayland.as_deref().and_then(|name| wayland_server(name, runtime)), x11.as_deref().and_then(x11_server)];
    if servers.iter().flatten().any(answers) {
        return Ok(());
    }
    let named: Vec<String> = [("WAYLAND_DISPLAY", wayland), ("DISPLAY", x11)]
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
        .collect();
    Err(format!("no display answers at {}", named.join(" or ")))
}

/// `WAYLAND_DISPLAY` is the name of a socket in the runtime folder, or an absolute path.
fn wayland_server(name: &str, runtime: Option<PathBuf>) -> Option<Server> {
    let path = PathBuf::from(name);
    if path.is_absolute() { Some(Server::Wayland(path)) } else { Some(Server::Wayland(runtime?.join(path))) }
}

/// `DISPLAY` is `[protocol/][host]:number[.screen]`. An empty host or `unix` is this machine.
fn x11_server(display: &str) -> Option<Server> {
    let (host, number) = display.rsplit_once(':')?;
    let number = number.split('.').next()?.parse().ok()?;
    let host = host.rsplit('/').next().unwrap_or(host);
    Some(match host {
        "" | "unix" => Server::Local(number),
        host => Server::Remote { host: host.to_owned(), number },
    })
}

fn answers(server: &Server) -> bool {
    match server {
        Server::Wayland(path) => UnixStream::connect(path).is_ok(),
        Server::Local(number) => {
            UnixStream::connect(format!("/tmp/.X11-unix/X{number}")).is_ok() || abstract_socket_answers(*number)
        }
        Server::Remote { host, number } => 6000_u16
            .checked_add(*number)
            .and_then(|port| (host.as_str(), port).to_socket_addrs().ok())
            .into_iter()
            .flatten()
            .any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()),
    }
}

/// Linux's other socket of a local X server, which is not a file.
#[cfg(target_os = "linux")]
fn abstract_socket_answers(number: u16) -> bool {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    SocketAddr::from_abstract_name(format!("/tmp/.X11-unix/X{number}"))
        .is_ok_and(|address| UnixStream::connect_addr(&address).is_ok())
}

#[cfg(not(target_os = "linux"))]
fn abstract_socket_answers(_number: u16) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;
    use std::time::Instant;

    use super::*;

    #[test]
    fn displays_are_read_as_x_reads_them() {
        let remote = |host: &str, number| Some(Server::Remote { host: host.to_owned(), number });
        for (display, expected) in [
            (":0", Some(Server::Local(0))),
            (":99.1", Some(Server::Local(99))),
            ("unix:3", Some(Server::Local(3))),
            ("localhost:10.0", remote("localhost", 10)),
            ("tcp/far.example:1", remote("far.example", 1)),
            ("0", None),
            (":x", None),
        ] {
            assert_eq!(x11_server(display), expected, "{display}");
        }
        let runtime = || Some(PathBuf::from("/run/user/7"));
        assert_eq!(wayland_server("wayland-0", runtime()), Some(Server::Wayland("/run/user/7/wayland-0".into())));
        assert_eq!(wayland_server("/tmp/w", runtime()), Some(Server::Wayland("/tmp/w".into())));
        assert_eq!(wayland_server("wayland-0", None), None);
    }

    #[test]
    fn a_server_answers_while_it_lives() {
        let socket = env::temp_dir().join(format!("flipside-xtask-wayland-{}", std::process::id()));
        let server = Server::Wayland(socket.clone());
        assert!(!answers(&server));
        let listener = UnixListener::bind(&socket).unwrap();
        assert!(answers(&server));
        // The socket's file outlives a server that was killed. It must not count as a server.
        //  Another test may be starting a process right now. That process holds a copy of the listener until it becomes
        //  its program.
        drop(listener);
        let patience = Instant::now() + Duration::from_secs(10);
        while answers(&server) {
            assert!(Instant::now() < patience, "a server that is gone still answers");
            thread::sleep(Duration::from_millis(10));
        }
        assert!(socket.exists());
        std::fs::remove_file(&socket).unwrap();
    }
}
