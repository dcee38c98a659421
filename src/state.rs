//! What outlives a run: the files of one URL in the state directory. The state file contains the record of the
//! known server and the ledger of what happened to it; it is written when they change. If the directory's disk
//! is full, read-only or dead, a run has no state, but still checks and restarts the server.

pub(crate) mod file;
pub(crate) mod history;
pub(crate) mod last;
pub(crate) mod ledger;
pub(crate) mod pause;
pub(crate) mod ping;
pub(crate) mod time;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use self::ledger::Ledger;
use self::time::Time;
use crate::proc::cgroup;
use crate::proc::net::takes;
use crate::proc::process::Proc;
use crate::proc::sock_diag::Listener;
use crate::server::process::Process;
use crate::sys::{bounded, cached};
use crate::text::errno_text;

/// Length limit of a host in a file's name, in characters.
const LONGEST_HOST: usize = 200;
/// Read limit of a state file, in bytes.
const LONGEST: usize = 256 << 10;
/// Mode of a state file.
const MODE: u32 = 0o640;
/// The version of the format.
const FORMAT: u32 = 1;
/// Time limit of reading a state file that is not in the page cache.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Time limit of writing a state file.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// The record of the known server, from the last healthy check.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct KnownServer {
    /// The process that holds the listening socket; none if that cannot be read.
    pub(crate) pid: Option<i32>,
    /// Its start time, in clock ticks since boot.
    pub(crate) start: Option<u64>,
    /// Its effective user ID.
    pub(crate) uid: Option<u32>,
    /// Its effective group ID.
    pub(crate) gid: Option<u32>,
    /// Hash of its arguments.
    pub(crate) argv: Option<u64>,
    /// The address at which it listens.
    pub(crate) listens: Option<SocketAddr>,
    /// User ID of its listening socket. It differs from `uid` if the server dropped privileges.
    pub(crate) socket_uid: Option<u32>,
    /// The cookie of that socket.
    pub(crate) cookie: Option<u64>,
    /// The inode of that socket.
    pub(crate) inode: Option<u64>,
    /// The restart command's configuration directory when this was recorded.
    pub(crate) config_dir: Option<String>,
    /// Its processes.
    pub(crate) pids: Vec<i32>,
    /// Its control group.
    pub(crate) group: Option<String>,
    /// Number of processes of that group that the OOM killer had ended.
    pub(crate) oom: Option<u64>,
    /// Its own log.
    pub(crate) log: Option<String>,
}

impl KnownServer {
    /// The server that holds this socket.
    pub(crate) fn of(socket: &Listener, process: Option<&Process>) -> Self {
        let group = process.and_then(|process| cgroup::of(process.pid));
        Self {
            pid: process.map(|process| process.pid),
            start: process.map(|process| process.start_time),
            uid: process.map(|process| process.uid),
            gid: process.map(|process| process.gid),
            argv: process.map(|process| process.argv),
            listens: Some(socket.address),
            socket_uid: Some(socket.uid),
            cookie: socket.cookie,
            inode: Some(socket.inode),
            oom: group.as_deref().and_then(cgroup::oom_kills),
            group,
            ..Self::default()
        }
    }
}

/// Contents of the state file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct State {
    format: u32,
    /// The server's name: that of its table in the configuration file, else its log's without the extension.
    pub(crate) server: String,
    /// The URL, without a password.
    pub(crate) url: String,
    /// The log of the runs.
    pub(crate) log: Option<String>,
    /// What happened to the server.
    #[serde(flatten)]
    pub(crate) ledger: Ledger,
    /// The boot that PIDs, start times and cookies belong to (random(4), boot_id).
    boot: Option<String>,
    /// The known server.
    pub(crate) known: Option<KnownServer>,
    /// Processes that the last restart command started and that never responded, as (PID, start time).
    pub(crate) started: Vec<(i32, u64)>,
    /// When the last pause that was logged had been asked for.
    pub(crate) paused: Option<Time>,
    /// Unix time of the last warning about the restart command.
    pub(crate) warned: Option<u64>,
    /// The last `resume` that was carried out (`pause::Requested`).
    pub(crate) resumed: Option<Time>,
    /// When the server's certificate expires.
    pub(crate) certificate_expires: Option<Time>,
    /// Certificates whose expiry was announced: when each expires, and the days left at the last announcement.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) certificates_announced: BTreeMap<Time, u32>,
    /// Keys of a newer version, which are kept.
    #[serde(flatten)]
    other: serde_json::Map<String, serde_json::Value>,
}

impl State {
    /// Reads a state file, without a time limit; none where there is none.
    ///
    /// # Errors
    /// It cannot be read, makes no sense, is not a regular file, or belongs to somebody other than root
    /// and us.
    pub(crate) fn read(path: &Path) -> io::Result<Option<Self>> {
        let Some(text) = contents(path)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&text) {
            Ok(state) => Ok(Some(state)),
            Err(reason) => Err(io::Error::other(format!("it makes no sense ({reason})"))),
        }
    }

    /// Whether its PIDs and start times are those of this boot.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        self.boot.is_some() && self.boot == boot()
    }
}

/// The state file of one URL.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    /// Its contents. What holds for one boot only is there until `forget_other_boots` is called.
    pub(crate) state: State,
    /// Its contents when it was last read or written.
    saved: Option<State>,
    /// What is wrong with its contents.
    damage: Option<&'static str>,
    /// Whether they are to be kept beside it when it is written.
    sets_aside: bool,
    /// Why it cannot be used.
    unusable: Option<String>,
    /// Whether that reason was reported.
    is_said: bool,
}

/// The file of the state directory, with that extension, for the server at that host or address and
/// port: `127.0.0.1_9143.lock`, `0--1_9143.lock` for `[::1]`. The name has no character that is special to a shell.
pub(crate) fn path(state_dir: &Path, host: &str, port: u16, extension: &str) -> PathBuf {
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let zero = if host.starts_with(':') { "0" } else { "" };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let shown = host.chars().map(|c| match c {
        ':' => '-',
        c if is_plain(c) => c,
        _ => '_',
    });
    let host: String = zero.chars().chain(shown).take(LONGEST_HOST).collect();
    state_dir.join(format!("{host}_{port}{extension}"))
}

enum Quick {
    Read(Vec<u8>),
    Missing,
    /// Reading would wait for a disk.
    Slow,
    Unusable(io::Error),
}

impl StateFile {
    /// Reads the file, with three system calls if it is in the page cache.
    pub(crate) async fn open(path: PathBuf) -> Self {
        let mut file = Self {
            path,
            state: State::default(),
            saved: None,
            damage: None,
            sets_aside: false,
            unusable: None,
            is_said: false,
        };
        file.read().await;
        file
    }

    /// Reads the file again if another run has written it since; what this run has changed is lost then. Returns
    /// whether it was read.
    pub(crate) async fn refresh(&mut self) -> bool {
        if self.is_unusable() {
            return false;
        }
        let now = Self::open(self.path.clone()).await;
        let is_news = now.saved.is_some() && now.saved != self.saved;
        if is_news {
            *self = now;
        }
        is_news
    }

    async fn read(&mut self) {
        match quick(&self.path) {
            Quick::Read(text) => self.take(&text),
            Quick::Missing => (),
            Quick::Unusable(reason) => self.unusable = Some(errno_text(&reason)),
            Quick::Slow => {
                let path = self.path.clone();
                match bounded::on_disk(READ_TIMEOUT, || contents(&path)).await {
                    Ok(Some(text)) => self.take(&text),
                    Ok(None) => (),
                    Err(reason) => self.unusable = Some(reason),
                }
            }
        }
    }

    fn take(&mut self, text: &[u8]) {
        let Ok(state) = serde_json::from_slice::<State>(text) else {
            self.set_aside("it is not what a run writes");
            return;
        };
        self.saved = Some(state.clone());
        self.state = state;
    }

    /// What is wrong with its contents. They are moved to the file's name with `.bad` when it is written.
    /// Returns it once.
    pub(crate) fn damage(&mut self) -> Option<&'static str> {
        self.damage.take()
    }

    /// Begins anew, for this reason; only what says which process is the server is kept.
    pub(crate) fn set_aside(&mut self, why: &'static str) {
        self.damage = Some(why);
        self.sets_aside = true;
        self.saved = None;
        self.state.ledger = Ledger::default();
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The record of the known server. After another boot, call `forget_other_boots` first.
    pub(crate) fn known(&self) -> Option<&KnownServer> {
        self.state.known.as_ref()
    }

    /// Forgets what holds for another boot only: process IDs and sockets, but not users and addresses.
    /// Returns whether there was any. Three system calls, and none without a record.
    pub(crate) fn forget_other_boots(&mut self) -> bool {
        let ledger = &self.state.ledger;
        let has_restarts = !ledger.restarts.is_empty() || ledger.hold.is_some();
        if self.state.known.is_none() && self.state.started.is_empty() && !has_restarts {
            return false;
        }
        if boot() == self.state.boot {
            return false;
        }
        self.state.started.clear();
        if let Some(known) = &mut self.state.known {
            known.pid = None;
            known.start = None;
            known.argv = None;
            known.cookie = None;
            known.inode = None;
            known.pids.clear();
            known.group = None;
            known.oom = None;
        }
        true
    }

    /// Forgets a server that is not at the address that was set since: what was recorded then is
    /// whatever stood before it.
    pub(crate) fn forget_another_address(&mut self, listen: SocketAddr) {
        let is_there = |listens: SocketAddr| {
            listens.port() == listen.port()
                && (listen.ip().is_unspecified() || takes(listens.ip(), &[listen.ip()]))
        };
        let recorded = self.state.known.as_ref().and_then(|known| known.listens);
        if recorded.is_some_and(|listens| !is_there(listens)) {
            self.state.known = None;
        }
    }

    /// Why the file cannot be used (errno text). Returns it once.
    pub(crate) fn complaint(&mut self) -> Option<String> {
        let reason = self.unusable.clone().filter(|_| !self.is_said);
        self.is_said |= reason.is_some();
        reason
    }

    /// Whether the state directory cannot be used.
    pub(crate) fn is_unusable(&self) -> bool {
        self.unusable.is_some()
    }

    /// Records that the state directory cannot be used, for this reason.
    pub(crate) fn give_up(&mut self, reason: String) {
        self.unusable = Some(reason);
    }

    /// Writes the state if it has changed.
    pub(crate) async fn save_changes(&mut self) {
        if self.saved.as_ref() != Some(&self.state) {
            self.save().await;
        }
    }

    async fn save(&mut self) {
        let is_newer = self
            .saved
            .as_ref()
            .is_some_and(|saved| saved.format > FORMAT);
        if self.unusable.is_some() || is_newer {
            return;
        }
        self.state.format = FORMAT;
        self.state.boot = boot();
        let (path, state) = (&self.path, &self.state);
        let sets_aside = std::mem::take(&mut self.sets_aside);
        let written = bounded::on_disk(WRITE_TIMEOUT, || {
            if sets_aside {
                // Where it cannot be kept it is overwritten.
                let _ = std::fs::rename(path, path.with_extension("json.bad"));
            }
            write(path, state)
        });
        self.unusable = written.await.err();
        self.saved = Some(self.state.clone());
    }
}

/// Opens and reads the file without waiting for a disk.
fn quick(path: &Path) -> Quick {
    let flags = file::flags(OFlags::RDONLY);
    let file = match cached::open(CWD, path, flags) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Quick::Missing,
        Err(Errno::AGAIN | Errno::NOSYS | Errno::INVAL | Errno::PERM) => return Quick::Slow,
        Err(reason) => return Quick::Unusable(reason.into()),
    };
    let stat = match file::check(&file) {
        Ok(stat) => stat,
        Err(reason) => return Quick::Unusable(reason),
    };
    let length = usize::try_from(stat.st_size).unwrap_or(LONGEST);
    let mut text = vec![0; length.min(LONGEST)];
    // Of a file of several pages, the first ones can be cached alone.
    match cached::read(&file, &mut text) {
        Ok(read) if read == text.len() => Quick::Read(text),
        _ => Quick::Slow,
    }
}

/// Reads the file, without a time limit; none if there is none.
fn contents(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let (file, _) = match file::open(path, OFlags::RDONLY) {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = Vec::new();
    file.take(LONGEST as u64).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// Replaces the file atomically.
fn write(path: &Path, state: &State) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    file::make_directory(directory)?;
    // Another run over the server can write at the same time.
    let temporary = path.with_extension(format!("json.{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(&temporary)?;
    let mut text = serde_json::to_vec(state)?;
    text.push(b'\n');
    let written = file
        .write_all(&text)
        .and_then(|()| file.sync_data())
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// ID of this boot; none if /proc hides it (`subset=pid`).
fn boot() -> Option<String> {
    let path = Proc::here().0.join("sys/kernel/random/boot_id");
    let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = [0; 64];
    let read = rustix::io::read(&file, &mut text).ok()?;
    let text = std::str::from_utf8(text.get(..read)?).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {

    use nix::libc;

    use super::*;
    use crate::refused::where_refused;

    fn known() -> KnownServer {
        KnownServer {
            pid: Some(7),
            start: Some(42),
            uid: Some(1000),
            listens: Some(SocketAddr::from(([127, 0, 0, 1], 9143))),
            socket_uid: Some(1000),
            cookie: Some(u64::MAX),
            ..KnownServer::default()
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_record_outlives_a_run() {
        let directory = tempfile::tempdir().unwrap();
        let at = path(&directory.path().join("state"), "[::1]", 9143, ".json");
        assert!(at.ends_with("state/0--1_9143.json"));
        let mut file = StateFile::open(at.clone()).await;
        assert_eq!(file.known(), None);
        file.state.known = Some(known());
        file.save_changes().await;
        assert_eq!(file.complaint(), None);
        let mut file = StateFile::open(at.clone()).await;
        file.forget_other_boots();
        assert_eq!(file.known(), Some(&known()));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn of_another_boot_only_users_and_addresses_count() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("x.json");
        let state = State {
            boot: Some("another".to_owned()),
            known: Some(known()),
            started: vec![(7, 1)],
            ..State::default()
        };
        std::fs::write(&at, serde_json::to_vec(&state).unwrap()).unwrap();
        let mut file = StateFile::open(at).await;
        file.forget_other_boots();
        let known = file.known().unwrap();
        assert_eq!(
            (known.pid, known.cookie, known.uid),
            (None, None, Some(1000))
        );
        assert!(file.state.started.is_empty());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn keys_of_a_newer_version_are_kept_and_a_newer_format_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("x.json");
        std::fs::write(&at, r#"{"format":1,"mood":{"until":"x"}}"#).unwrap();
        let mut file = StateFile::open(at.clone()).await;
        file.state.known = Some(known());
        file.save_changes().await;
        assert!(
            std::fs::read_to_string(&at)
                .unwrap()
                .contains("\"mood\":{\"until\":\"x\"}")
        );
        let newer = r#"{"format":2,"url":"u"}"#;
        std::fs::write(&at, newer).unwrap();
        let mut file = StateFile::open(at.clone()).await;
        assert_eq!(file.state.url, "u");
        file.state.known = Some(known());
        file.save_changes().await;
        assert_eq!(std::fs::read_to_string(&at).unwrap(), newer);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_makes_no_sense_is_no_state() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("x.json");
        for garbage in ["", "{", "[]", "\0\0\0", r#"{"known":7}"#] {
            std::fs::write(&at, garbage).unwrap();
            let mut file = StateFile::open(at.clone()).await;
            assert_eq!(file.known(), None, "{garbage}");
            file.state.known = Some(known());
            file.save_changes().await;
            assert_eq!(StateFile::open(at.clone()).await.known(), Some(&known()));
        }
    }

    /// Why the file at that path cannot be used.
    fn complaint(path: &Path) -> Option<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let file = StateFile::open(path.to_owned());
        runtime.unwrap().block_on(file).unusable
    }

    /// The same where the kernel has nothing in its memory.
    fn complaint_of_slow(path: &Path) -> Option<String> {
        where_refused(&[libc::SYS_openat2], libc::EAGAIN, || complaint(path))
    }

    #[test]
    fn a_file_that_is_not_a_runs_is_unusable_whether_or_not_the_kernel_has_it_in_its_memory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("own.json"), "{}").unwrap();
        nix::unistd::mkfifo(&at("fifo.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(at("directory.json")).unwrap();
        std::os::unix::fs::symlink(at("own.json"), at("link.json")).unwrap();
        let mut files = vec![
            ("own.json", None),
            ("absent.json", None),
            ("own.json/below.json", Some("Not a directory")),
            ("fifo.json", Some("not a regular file")),
            ("directory.json", Some("not a regular file")),
            ("link.json", Some("Too many levels of symbolic links")),
        ];
        if nix::unistd::geteuid().is_root() {
            std::fs::write(at("theirs.json"), "{}").unwrap();
            std::os::unix::fs::chown(at("theirs.json"), Some(4711), None).unwrap();
            files.push(("theirs.json", Some("it belongs to UID 4711")));
        }
        for (name, expected) in files {
            let expected = expected.map(str::to_owned);
            assert_eq!(complaint(&at(name)), expected, "{name}");
            assert_eq!(complaint_of_slow(&at(name)), expected, "{name}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_file_of_which_the_kernel_has_only_the_beginning_in_its_memory_is_read_whole() {
        // Not in /tmp, which often has no disk.
        let program = std::env::current_exe().unwrap();
        let directory = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
        let path = directory.path().join("x.json");
        let mut file = StateFile::open(path.clone()).await;
        file.state.server = "s".repeat(20_000);
        file.save().await;
        let written = std::fs::File::open(&path).unwrap();
        written.sync_all().unwrap();
        let all_but_the_first = std::num::NonZeroU64::new(1 << 20);
        let forget = rustix::fs::Advice::DontNeed;
        rustix::fs::fadvise(&written, 4096, all_but_the_first, forget).unwrap();
        let read = StateFile::open(path).await;
        assert!(read.state.server == file.state.server);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_directory_that_cannot_be_used_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        let at = directory.path().join("file/state/x.json");
        let mut file = StateFile::open(at).await;
        file.state.known = Some(known());
        file.save_changes().await;
        assert_eq!(file.complaint().as_deref(), Some("Not a directory"));
        assert_eq!(file.complaint(), None, "it is said once");
    }
}
