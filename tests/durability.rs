//! What a session survives: `kill -9` at any moment, a full disk, a disk that cannot be written, a second process, a
//! newer version, damage. Each test causes the fault for real and then checks what is left.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(unix)]

use flipside::settings::RunSettings;
use flipside::store::{CheckpointHeader, Metric, Session, StoreError, npz};
use flipside_core::{
    Array, Arrays, Choice, Clip, Frames, ItemId, JudgementId, LogEntry, Pair, PairId, PairReason, Pose, Seed,
};
use rand::Rng;
use rusqlite::{Connection, config::DbConfig};
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "FLIPSIDE_TEST_ROLE";
const FOLDER: &str = "FLIPSIDE_TEST_FOLDER";

/// Prefix of the helper process's messages. The test harness prints lines of its own.
const MARK: &str = "::";

// --- Things to store ---

/// A hopper-sized clip, different for every id.
fn clip(id: u64) -> Clip {
    let (steps, bodies, obs_dim, act_dim) = (125, 5, 11, 3);
    let mut stream = Seed(id).stream("clip");
    let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| stream.next_u32() as f32 / 1e9 - 2.0).collect() };
    let poses = (0..steps * bodies)
        .map(|_| Pose { position: numbers(3).try_into().unwrap(), rotation: numbers(4).try_into().unwrap() })
        .collect();
    let (obs, actions, task_reward) = (numbers(steps * obs_dim), numbers(steps * act_dim), numbers(steps));
    let frames = Frames { steps, bodies, obs_dim, act_dim, poses, obs, actions, task_reward };
    Clip { id: ItemId(id), task: "hopper".to_owned(), dt: 0.008, recorded_at: id, frames }
}

fn pair(id: u64) -> Pair {
    Pair { id: PairId(id), items: [ItemId(2 * id), ItemId(2 * id + 1)], reason: PairReason::Random, asked_at: id }
}

fn put_pair(session: &mut Session, id: u64) -> Result<(), StoreError> {
    session.put_pair(&pair(id), [&clip(2 * id), &clip(2 * id + 1)])
}

/// Arrays of `numbers` f32 that tell which checkpoint they belong to.
fn arrays(env_steps: u64, numbers: usize) -> Arrays {
    Arrays::from([
        ("w".to_owned(), Array::f32(&[numbers], (0..numbers).map(|i| (i as u64 ^ env_steps) as f32).collect())),
        ("stream".to_owned(), Array::u64(vec![!env_steps; 4])),
    ])
}

fn choice(n: u64) -> Choice {
    [Choice::Left, Choice::Right, Choice::Tie, Choice::Skip][n as usize % 4]
}

/// A closed session of `pairs` pairs. The first half of them are judged, one of those judgements is taken back, and
/// there are two checkpoints.
fn finished_session(folder: &Path, pairs: u64) {
    let mut session = Session::create(folder, &RunSettings { seed: u64::MAX, ..RunSettings::default() }).unwrap();
    for id in 0..pairs {
        put_pair(&mut session, id).unwrap();
        if id < pairs / 2 {
            session.record_judgement(PairId(id), choice(id), "person", id as i64, 900).unwrap();
        }
    }
    session.retract(JudgementId(1), 77).unwrap();
    for env_steps in [1, 2] {
        session.save_checkpoint(&CheckpointHeader::new("run", env_steps), &arrays(env_steps, 100)).unwrap();
    }
}

/// The bytes of every file below `folder`.
fn bytes_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.append(&mut bytes_of(&path)),
            false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    files
}

fn database(folder: &Path) -> PathBuf {
    folder.join("session.db")
}

fn assert_sqlite_finds_it_whole(folder: &Path) {
    let db = Connection::open(database(folder)).unwrap();
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    assert!(!db.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap());
}

// --- The other process ---

/// Not a test. The tests start this binary as another process, with a role in the environment.
#[test]
#[ignore = "the other process of the tests in this file"]
fn helper_process() {
    let (Ok(role), Some(folder)) = (env::var(ROLE), env::var_os(FOLDER)) else { return };
    let folder = Path::new(&folder);
    match role.as_str() {
        "judge" => judge_for_ever(folder),
        "create" => create_for_ever(folder),
        "open" => match Session::open(folder) {
            Ok(_) => say("opened"),
            Err(error) => say(format!("refused {error}")),
        },
        "read" => {
            let session = Session::open_to_read(folder).unwrap();
            say(format!("log {}", session.log().unwrap().len()));
        }
        "hold" => {
            let _session = Session::open(folder).unwrap();
            say("holding");
            std::thread::sleep(Duration::from_secs(600));
        }
        "fill a small disk" => fill_a_small_disk(folder),
        "write until refused" => write_until_refused(&mut Session::open(folder).unwrap()),
        other => panic!("unknown role {other}"),
    }
}

/// Prints one line that the parent reads at once.
fn say(words: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{MARK}{words}").and_then(|()| out.flush()).unwrap();
}

/// Writes all that a run writes, as fast as possible. Prints each judgement once it has been acknowledged.
fn judge_for_ever(folder: &Path) -> ! {
    let mut session = Session::open(folder).unwrap();
    let first = session.next_pair_id().unwrap().0;
    for id in first.. {
        put_pair(&mut session, id).unwrap();
        let judgement = session.record_judgement(PairId(id), choice(id), "person", id as i64 * 3, 1500).unwrap();
        say(serde_json::to_string(&LogEntry::Judged(judgement.clone())).unwrap());
        if id % 3 == 0 {
            session.retract(judgement.id, id as i64).unwrap();
            let entry = LogEntry::Retracted { judgement: judgement.id, at_ms: id as i64 };
            say(serde_json::to_string(&entry).unwrap());
        }
        if id % 2 == 0 {
            session.save_checkpoint(&CheckpointHeader::new("run", id), &arrays(id, 50_000)).unwrap();
            say(format!("saved {id}"));
        }
        let metric = Metric { env_steps: id, name: "kl".to_owned(), value: 0.5, at_ms: 0 };
        session.put_metrics(&[metric]).unwrap();
    }
    unreachable!()
}

fn create_for_ever(root: &Path) -> ! {
    for n in 0.. {
        Session::create(&root.join(n.to_string()), &RunSettings::default()).unwrap();
        say(n);
    }
    unreachable!()
}

/// Writes pairs, judgements, checkpoints and an export until the disk refuses each, and prints the errors.
fn write_until_refused(session: &mut Session) {
    let error = (session.next_pair_id().unwrap().0..).find_map(|id| put_pair(session, id).err()).unwrap();
    say(format!("pair {error}"));
    let last = PairId(session.next_pair_id().unwrap().0 - 1);
    // A judgement is small, so some may still fit.
    let error = (0..).find_map(|n| session.record_judgement(last, choice(n), "person", n as i64, 0).err()).unwrap();
    say(format!("judgement {error}"));
    let save =
        |session: &mut Session, n| session.save_checkpoint(&CheckpointHeader::new("run", n), &arrays(n, 500_000));
    let error = (100..).find_map(|n| save(session, n).err()).unwrap();
    say(format!("checkpoint {error}"));
    let export = session.folder().join("export.npz");
    let noise: Vec<f64> = (0..500_000).map(|n| f64::from(n).sin()).collect();
    let error = npz::write(&export, &[("noise", &[noise.len()], npz::Values::F64(&noise))]).unwrap_err();
    assert!(!export.exists());
    say(format!("export {error}"));
}

/// Fills a disk of a few megabytes that vanishes with this process, frees some of it, and goes on.
fn fill_a_small_disk(disk: &Path) {
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![0_u8; 1 << 20]).unwrap();
    let folder = disk.join("session");
    finished_session(&folder, 4);
    let mut session = Session::open(&folder).unwrap();
    write_until_refused(&mut session);
    let log = session.log().unwrap();
    assert!(log.len() >= 3);
    let checkpoint = session.load_checkpoint().unwrap().unwrap();
    assert_eq!((checkpoint.header.env_steps, checkpoint.warning), (2, None));

    fs::remove_file(&ballast).unwrap();
    session.record_judgement(PairId(2), Choice::Tie, "person", 1, 1).unwrap();
    put_pair(&mut session, 1_000).unwrap();
    session.save_checkpoint(&CheckpointHeader::new("run", 3), &arrays(3, 100)).unwrap();
    drop(session);
    assert_sqlite_finds_it_whole(&folder);
    let mut session = Session::open(&folder).unwrap();
    assert_eq!(session.log().unwrap()[..log.len()], log);
    assert_eq!(session.log().unwrap().len(), log.len() + 1);
    assert_eq!(session.load_checkpoint().unwrap().unwrap().arrays, arrays(3, 100));
    assert_eq!(session.clip(ItemId(2_001)).unwrap(), clip(2_001));
    say("whole");
}

/// Starts this binary as the other process. `through` precedes it on the command line: a shell that prepares something.
fn helper(through: &[&str], role: &str, folder: &Path) -> Child {
    let exe = env::current_exe().unwrap();
    let mut line = through.iter().map(std::ffi::OsStr::new).chain([exe.as_os_str()]);
    Command::new(line.next().unwrap())
        .args(line)
        .args(["--exact", "helper_process", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The other process's messages, line by line. A line that was cut off in the middle is left out.
fn words(out: ChildStdout) -> impl Iterator<Item = String> {
    let mut out = BufReader::new(out);
    std::iter::from_fn(move || {
        loop {
            let mut line = String::new();
            if out.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(words) = line.strip_prefix(MARK).and_then(|l| l.strip_suffix('\n')) {
                return Some(words.to_owned());
            }
        }
    })
}

/// Runs the other process to its end and returns its messages.
fn run_helper(through: &[&str], role: &str, folder: &Path) -> Vec<String> {
    let mut child = helper(through, role, folder);
    let said = words(child.stdout.take().unwrap()).collect();
    assert!(child.wait().unwrap().success(), "{said:?}");
    said
}

/// A shell in its own namespaces, in which it may mount. Its mounts are gone when it ends. `None` if the system forbids
/// that.
fn mounting_shell() -> Option<[&'static str; 6]> {
    let unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"];
    Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("mount -t tmpfs none /tmp")
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
        .then_some(unshare)
}

// --- The tests ---

#[test]
fn kill_9_at_any_moment_loses_no_acknowledged_judgement() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("session");
    drop(Session::create(&folder, &RunSettings::default()).unwrap());
    let mut moments = Seed(9).stream("kill");
    let mut expected: Vec<LogEntry> = Vec::new();
    let mut acknowledged = 0;
    for round in 0..8 {
        let mut child = helper(&[], "judge", &folder);
        let mut words = words(child.stdout.take().unwrap());
        let mut said = vec![words.next().expect("it judges at least once")];
        let reader = std::thread::Builder::new().name("listener".to_owned());
        let reader = reader.spawn(move || words.collect::<Vec<_>>()).unwrap();
        std::thread::sleep(Duration::from_micros(moments.next_u64() % 120_000));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        said.extend(reader.join().unwrap());

        let mut saved = None;
        for line in &said {
            match line.strip_prefix("saved ") {
                Some(env_steps) => saved = Some(env_steps.parse::<u64>().unwrap()),
                None => expected.push(serde_json::from_str(line).unwrap()),
            }
        }
        acknowledged += said.len();

        let mut session = Session::open(&folder).unwrap();
        let log = session.log().unwrap();
        assert_eq!(log[..expected.len()], expected, "round {round}");
        // At most one entry was committed without being printed before the kill.
        assert!(log.len() <= expected.len() + 1, "round {round}");
        expected = log;
        for pair in session.pairs().unwrap().iter().rev().take(3) {
            for item in pair.items {
                assert_eq!(session.clip(item).unwrap(), clip(item.0));
            }
        }
        if let Some(saved) = saved {
            let checkpoint = session.load_checkpoint().unwrap().unwrap();
            assert!(checkpoint.header.env_steps >= saved);
            assert_eq!(checkpoint.arrays, arrays(checkpoint.header.env_steps, 50_000));
            assert_eq!(checkpoint.warning, None);
        }
        drop(session);
        assert_sqlite_finds_it_whole(&folder);
    }
    assert!(acknowledged > 40, "only {acknowledged}: the rounds were too short to tell anything");
}

#[test]
fn kill_9_while_a_session_is_made_leaves_none_or_a_whole_one() {
    let root = tempfile::tempdir().unwrap();
    let mut moments = Seed(10).stream("kill");
    for round in 0..4 {
        let folder = root.path().join(format!("round {round}"));
        fs::create_dir(&folder).unwrap();
        let mut child = helper(&[], "create", &folder);
        let mut words = words(child.stdout.take().unwrap());
        words.next().expect("it makes at least one");
        std::thread::sleep(Duration::from_micros(moments.next_u64() % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let session = entry.unwrap().path();
            match Session::open(&session) {
                Ok(_) => {}
                Err(StoreError::NotASession(_)) => drop(Session::create(&session, &RunSettings::default()).unwrap()),
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn one_process_writes_while_others_read_and_a_dead_ones_lock_is_no_lock() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("session");
    finished_session(&folder, 4);
    let mut session = Session::open(&folder).unwrap();
    let said = run_helper(&[], "open", &folder);
    let expected = format!(
        "refused {} is open in another Flipside (process {}); close it there, or wait until it has finished",
        folder.display(),
        std::process::id()
    );
    assert_eq!(said, [expected]);
    session.record_judgement(PairId(3), Choice::Left, "person", 0, 0).unwrap();
    assert_eq!(run_helper(&[], "read", &folder), ["log 4"]);
    let mut reader = Session::open_to_read(&folder).unwrap();
    assert!(matches!(
        reader.record_judgement(PairId(3), Choice::Left, "person", 0, 0),
        Err(StoreError::ReadOnly { .. })
    ));
    assert!(matches!(
        reader.save_checkpoint(&CheckpointHeader::new("run", 9), &arrays(9, 1)),
        Err(StoreError::ReadOnly { .. })
    ));
    assert_eq!(reader.load_checkpoint().unwrap().unwrap().header.env_steps, 2);
    drop((session, reader));

    let mut child = helper(&[], "hold", &folder);
    assert_eq!(words(child.stdout.take().unwrap()).next().unwrap(), "holding");
    assert!(matches!(Session::open(&folder), Err(StoreError::InUse { process: Some(id), .. }) if id == child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
    Session::open(&folder).unwrap();
}

#[test]
fn a_full_disk_is_said_and_nothing_is_lost() {
    let full = |said: &[String]| {
        for (line, what) in said.iter().zip(["pair", "judgement", "checkpoint", "export"]) {
            assert!(line.starts_with(&format!("{what} the disk is full, so /")), "{line}");
            assert!(line.contains("free some space there and try again"), "{line}");
        }
    };

    // No file may grow beyond 1 MiB (2048 blocks of 512 bytes, in dash and in bash's POSIX mode). The signal that comes
    // with this limit must be ignored, so that write() returns an error as it does on a full disk.
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("session");
    finished_session(&folder, 4);
    let before = Session::open_to_read(&folder).unwrap().log().unwrap();
    let limit = ["sh", "-c", "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\""];
    let said = run_helper(&limit, "write until refused", &folder);
    assert_eq!(said.len(), 4, "{said:?}");
    full(&said);
    assert_sqlite_finds_it_whole(&folder);
    let mut session = Session::open(&folder).unwrap();
    let after = session.log().unwrap();
    assert_eq!(after[..before.len()], before);
    for item in session.clip_ids().unwrap() {
        session.clip(item).unwrap();
    }
    let checkpoint = session.load_checkpoint().unwrap().unwrap();
    assert_eq!((checkpoint.header.env_steps, checkpoint.warning), (2, None));
    session.record_judgement(PairId(3), Choice::Tie, "person", 1, 1).unwrap();
    assert_eq!(session.log().unwrap().len(), after.len() + 1);

    // A disk that is really full, if the system lets us mount a small one.
    let script = "mount -t tmpfs -o size=4m none \"$FLIPSIDE_TEST_FOLDER\" && exec \"$0\" \"$@\"";
    match mounting_shell() {
        Some(unshare) => {
            let disk = root.path().join("disk");
            fs::create_dir(&disk).unwrap();
            let said = run_helper(&[&unshare[..], &[script]].concat(), "fill a small disk", &disk);
            full(&said);
            assert_eq!(said.last().unwrap(), "whole");
        }
        None => eprintln!("no small disk can be mounted here: the limit on files stood in for it"),
    }
}

#[test]
fn a_folder_that_cannot_be_written_can_still_be_read() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("session");
    finished_session(&folder, 4);
    let read_only = "mount --bind \"$FLIPSIDE_TEST_FOLDER\" \"$FLIPSIDE_TEST_FOLDER\" && \
                     mount -o remount,bind,ro \"$FLIPSIDE_TEST_FOLDER\" && exec \"$0\" \"$@\"";
    let through: Vec<&str> = match mounting_shell() {
        Some(unshare) => [&unshare[..], &[read_only]].concat(),
        // File permissions do not hold for root, but root may mount.
        None => vec!["sh", "-c", "chmod -R a-w \"$FLIPSIDE_TEST_FOLDER\" && exec \"$0\" \"$@\""],
    };
    let before = bytes_of(&folder);
    let said = run_helper(&through, "open", &folder);
    assert!(said[0].contains("cannot be written") && said[0].contains("make it writable, or copy"), "{said:?}");
    assert_eq!(run_helper(&through, "read", &folder), ["log 3"]);
    assert_eq!(bytes_of(&folder), before);
    Command::new("chmod").args(["-R", "u+w"]).arg(&folder).status().unwrap();
}

#[test]
fn a_newer_session_is_refused_and_left_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("session");
    finished_session(&folder, 4);
    let check = |folder: &Path| {
        let before = bytes_of(folder);
        for open in [Session::open, Session::open_to_read] {
            let error = open(folder).unwrap_err();
            assert!(matches!(error, StoreError::Newer { found: 7, known: 2, .. }), "{error}");
            assert!(
                error
                    .to_string()
                    .contains("was written by a newer Flipside (format 7; this one knows up to 2); update")
            );
        }
        let after = bytes_of(folder);
        for (path, bytes) in before {
            // Whoever reads the write-ahead log rebuilds its index. The index holds no data.
            if !path.to_string_lossy().ends_with("-shm") {
                assert_eq!(after[&path], bytes, "{}", path.display());
            }
        }
    };
    // The newer version is in the database's header.
    Connection::open(database(&folder)).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let files = bytes_of(&folder).len();
    check(&folder);
    assert_eq!(bytes_of(&folder).len(), files, "nothing may be added either");

    // The newer version is only in the write-ahead log, as a newer program that was killed leaves it.
    let folder = root.path().join("killed");
    finished_session(&folder, 4);
    let db = Connection::open(database(&folder)).unwrap();
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    db.pragma_update(None, "user_version", 7).unwrap();
    drop(db);
    assert_eq!(fs::read(database(&folder)).unwrap()[60..64], [0, 0, 0, 1]);
    check(&folder);
}

#[test]
fn what_is_no_session_is_told_from_a_damaged_one() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    finished_session(&whole, 30);
    let bytes = fs::read(database(&whole)).unwrap();
    let check = |name: &str, database_bytes: Option<&[u8]>, expected: &str| {
        let folder = root.path().join(name);
        fs::create_dir(&folder).unwrap();
        if let Some(bytes) = database_bytes {
            fs::write(database(&folder), bytes).unwrap();
        }
        for open in [Session::open, Session::open_to_read] {
            let error = open(&folder).unwrap_err().to_string();
            assert!(error.contains(expected), "{name}: {error}");
            let there = fs::read(database(&folder)).ok();
            assert_eq!(there.as_deref(), database_bytes, "{name}: the database was changed");
        }
    };
    let none = "holds no session; give the folder of one, or start a new one";
    let damaged = "is damaged (";
    let garbage: Vec<u8> = b"garbage ".iter().copied().cycle().take(bytes.len()).collect();
    check("empty folder", None, none);
    check("of another program", Some(&[&bytes[..68], b"Else", &bytes[72..]].concat()), none);
    check("an empty file", Some(b""), damaged);
    check("garbage", Some(&garbage), damaged);
    check("garbage behind the header", Some(&[&bytes[..100], &garbage[100..]].concat()), damaged);
    check("half", Some(&bytes[..bytes.len() / 2]), damaged);
    check("a page short", Some(&bytes[..bytes.len() - 4096]), damaged);
    check("a headless half", Some(&bytes[bytes.len() / 2..]), damaged);
    let missing = root.path().join("missing");
    assert!(matches!(Session::open(&missing), Err(StoreError::NotASession(_))));
    assert!(!missing.exists());

    // A new session does not overwrite anything either.
    let error = Session::create(&whole, &RunSettings::default()).unwrap_err();
    assert!(matches!(error, StoreError::AlreadyASession(_)), "{error}");
    let home = root.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("thesis.tex"), "…").unwrap();
    let error = Session::create(&home, &RunSettings::default()).unwrap_err();
    assert!(matches!(error, StoreError::NotEmpty(_)), "{error}");
    assert_eq!(bytes_of(&home).len(), 1);
}

/// Flips bits all over a database. Whatever is then read without an error must be what was written. Damage may cost
/// data, but must never give wrong data.
#[test]
fn damage_is_never_read_as_data() {
    let root = tempfile::tempdir().unwrap();
    let whole = root.path().join("whole");
    finished_session(&whole, 6);
    let bytes = fs::read(database(&whole)).unwrap();
    let expected = Session::open_to_read(&whole).unwrap();
    let (log, pairs) = (expected.log().unwrap(), expected.pairs().unwrap());
    drop(expected);
    let folder = root.path().join("flipped");
    let mut places = Seed(11).stream("damage");
    let (mut refused, mut clips_lost) = (0, 0);
    const ROUNDS: usize = 250;
    for round in 0..ROUNDS {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        let mut bytes = bytes.clone();
        // Every other flip is among the small tables of the first pages, of which clips take little.
        let span = if round % 2 == 0 { bytes.len() } else { 15 * 4096 };
        bytes[places.next_u64() as usize % span] ^= 1 << (places.next_u64() % 8);
        fs::write(database(&folder), &bytes).unwrap();
        let session = match Session::open(&folder) {
            Ok(session) => session,
            Err(_) => {
                refused += 1;
                continue;
            }
        };
        // Only the folder's name differs between the settings.
        let settings = RunSettings { seed: u64::MAX, folder: Some(folder.clone()), ..RunSettings::default() };
        assert_eq!(session.settings(), &settings, "round {round}");
        match (session.log(), session.pairs()) {
            (Ok(l), Ok(p)) => assert_eq!((l, p), (log.clone(), pairs.clone()), "round {round}"),
            _ => refused += 1,
        }
        for id in (0..12).map(ItemId) {
            match session.clip(id) {
                Ok(there) => assert_eq!(there, clip(id.0), "round {round}"),
                Err(_) => clips_lost += 1,
            }
        }
    }
    assert!(refused > 5 && clips_lost > 50, "{refused} refusals and {clips_lost} lost clips: the damage missed");
}

/// The wait between a click and the next pair. The bound allows for slow disks. `--nocapture` prints the figures.
#[test]
fn a_judgement_takes_milliseconds() {
    // On the disk of the build, because /tmp may be in memory.
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut session = Session::create(&root.path().join("session"), &RunSettings::default()).unwrap();
    const JUDGEMENTS: u64 = 200;
    let mut times: Vec<Duration> = (0..JUDGEMENTS)
        .map(|id| {
            put_pair(&mut session, id).unwrap();
            let start = Instant::now();
            session.record_judgement(PairId(id), choice(id), "person", 0, 0).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    let ms = |t: Duration| t.as_secs_f64() * 1e3;
    // Also the mean, because some clocks tick only every few milliseconds.
    let mean = ms(times.iter().sum()) / JUDGEMENTS as f64;
    let [p50, p95, worst] = [100, 190, 199].map(|i| ms(times[i]));
    eprintln!("judge: mean {mean:.2} ms, p50 {p50:.2} ms, p95 {p95:.2} ms, worst {worst:.2} ms of {JUDGEMENTS}");
    assert!(p95 < 80.0, "p95 {p95:.1} ms: a click must answer within 100 ms");
}
