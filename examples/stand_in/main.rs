//! A stand-in `MyVNC`, run under the argv of the real one: `…/bin/python3 …/myvnc/main.py --host NAME`,
//! where `python3` is a link to this program and the script holds settings, one `key = value` a line.
//!
//! `main.py` is the server: single-threaded, one request at a time, so that an idle client blocks it.
//! `manage.py VERB` starts it as the real one does: `start` and `restart` leave it detached and exit,
//! `foreground` becomes it, `fail` prints lines and exits with status 3, no verb does nothing.
//!
//! `hang = MODE` in `main.py` makes the first request hang it: see `hang`; `hang-for = PATH` makes only a request for
//! that path do so; `child = PROGRAM` is what it starts in place of `/bin/sleep`. `tls = yes` lets it read from
//! a client as a server does that waits for a TLS handshake, which never ends. `status = STATUS` and
//! `location = URL` are those of its answers; `body = BYTES` makes them long, and lets no more than a few kilobytes
//! be on their way to a client that does not read. `user = UID`: once it listens, it changes to
//! that user.
//!
//! With `STAND_IN_DECOY` in the environment it only waits, whatever its argv says; with `STAND_IN_STRANGER` it is
//! somebody else's process: see `stranger`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]
// The real one leaves its server to init, and so must this.
#![allow(clippy::zombie_processes)]

mod hang;
mod stranger;
mod threads;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{setgid, setgroups, setuid};
use socket2::{Domain, SockRef, Socket, Type};

/// Send buffer of a long answer, in bytes: about what the kernel allows for a client across a network at first.
const SEND_BUFFER: usize = 16 << 10;
/// No stand-in outlives a test run by more than this.
const LIFETIME: Duration = Duration::from_secs(300);

struct Script {
    path: PathBuf,
    settings: HashMap<String, String>,
}

impl Script {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let settings = text
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Self {
            path: path.to_owned(),
            settings,
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }

    fn millis(&self, key: &str) -> Option<Duration> {
        self.text(key)
            .map(|value| Duration::from_millis(value.parse().unwrap()))
    }

    /// The folder that holds `bin`, `myvnc` and the notes of all stand-ins of a test.
    fn site(&self) -> &Path {
        self.path.parent().unwrap().parent().unwrap()
    }

    /// Notes our PID, so that the test can end us.
    fn sign(&self, event: &str) {
        let mut notes = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.site().join("notes"))
            .unwrap();
        notes
            .write_all(format!("{event} {}\n", std::process::id()).as_bytes())
            .unwrap();
    }
}

fn main() {
    if std::env::var_os("STAND_IN_DECOY").is_some() {
        println!("waiting");
        std::thread::sleep(LIFETIME);
        return;
    }
    if let Ok(settings) = std::env::var(stranger::SETTINGS) {
        return stranger::live(&settings);
    }
    let mut arguments = std::env::args_os();
    let python = arguments.next().unwrap();
    let script = Script::read(Path::new(&arguments.next().unwrap()));
    let rest: Vec<OsString> = arguments.collect();
    if script.path.ends_with("manage.py") {
        manage(
            &python,
            &script,
            rest.last()
                .and_then(|verb| verb.to_str())
                .unwrap_or_default(),
        );
    } else {
        serve(&python, &script, &rest);
    }
}

fn server_command(python: &OsString, script: &Script) -> Command {
    let mut server = Command::new(python);
    server
        .arg(script.path.with_file_name("main.py"))
        .args(["--host", "127.0.0.1"]);
    server
}

fn manage(python: &OsString, script: &Script, verb: &str) {
    script.sign("manage");
    if let Some(path) = script.text("environment") {
        let environment: Vec<String> = std::env::vars()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        std::fs::write(path, environment.concat()).unwrap();
    }
    match verb {
        "start" | "restart" => {
            let mut server = server_command(python, script);
            server
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0);
            server.spawn().unwrap();
            println!("Server started");
            if let Some(delay) = script.millis("delay") {
                std::thread::sleep(delay);
            }
        }
        "foreground" => panic!("{}", server_command(python, script).exec()),
        "fail" => {
            for number in 1..=60 {
                println!("line {number}");
            }
            std::io::stdout()
                .write_all(b"caf\xe9 \x1b[31mred\r\n")
                .unwrap();
            exit(3);
        }
        _ => println!("usage: manage.py {{start,stop,restart,status}}"),
    }
}

fn serve(python: &OsString, script: &Script, rest: &[OsString]) {
    let mut termination = SigSet::empty();
    termination.add(Signal::SIGTERM);
    match script.text("on-term") {
        None => (),
        Some("ignore") => termination.thread_block().unwrap(),
        Some(_) => {
            termination.thread_block().unwrap();
            let delay = script.millis("on-term").unwrap();
            std::thread::spawn(move || {
                termination.wait().unwrap();
                std::thread::sleep(delay);
                exit(0);
            });
        }
    }
    // SIGALRM ends it: a thread that waited for that would be one that is no server's.
    nix::unistd::alarm::set(u32::try_from(LIFETIME.as_secs()).unwrap());
    if std::env::var_os("STAND_IN_WORKER").is_some() {
        script.sign("worker");
        loop {
            std::thread::park();
        }
    }
    script.sign("server");
    let statics = script.path.with_file_name("web").join("static");
    std::fs::create_dir_all(&statics).unwrap();
    std::env::set_current_dir(&statics).unwrap();
    for _ in 0..script
        .text("workers")
        .map_or(0, |count| count.parse().unwrap())
    {
        let mut worker = Command::new(python);
        worker
            .arg(&script.path)
            .args(rest)
            .env("STAND_IN_WORKER", "1")
            .spawn()
            .unwrap();
    }
    if let Some(every) = script.millis("chatter") {
        std::thread::spawn(move || {
            for number in 0_u64.. {
                println!("chatter {number}");
                std::thread::sleep(every);
            }
        });
    }
    if let Some(delay) = script.millis("bind-after") {
        std::thread::sleep(delay);
    }
    let Some(address) = script.text("listen") else {
        loop {
            std::thread::park();
        }
    };
    let _only = take_port(script);
    let listener = listen(address.parse().unwrap());
    if let Some(user) = script.text("user") {
        let user: u32 = user.parse().unwrap();
        setgroups(&[]).unwrap();
        setgid(user.into()).unwrap();
        setuid(user.into()).unwrap();
    }
    script.sign("listening");
    if let Some(path) = script.text("log") {
        let log = File::options().append(true).create(true).open(path);
        let _ = log.unwrap().into_raw_fd();
    }
    if script.text("first-thread") == Some("ends") {
        let script = Script::read(&script.path);
        std::thread::spawn(move || accept(&listener, &script));
        nix::unistd::alarm::cancel();
        threads::end_this_one();
    }
    accept(&listener, script);
}

fn accept(listener: &TcpListener, script: &Script) {
    let status = script.text("status").unwrap_or("200 OK");
    for client in listener.incoming() {
        let client = client.unwrap();
        match script.text("tls") {
            Some(_) => drop(nix::unistd::read(&client, &mut [0; 5])),
            None if script.text("hang") == Some("event-loop") => hang::event_loop(listener, client),
            None => answer(client, status, script),
        }
    }
}

/// A second server of a site ends here, as the real one does when its port is in use: the
/// kernel, which lets both listen (see `listen`), does not keep them apart.
fn take_port(script: &Script) -> Flock<File> {
    let file = File::create(script.site().join("port")).unwrap();
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .unwrap_or_else(|(_, reason)| panic!("port in use: {reason}"))
}

/// Listens beside the socket by which the test keeps the port reserved (`SO_REUSEPORT`), with the real one's backlog.
fn listen(address: SocketAddr) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket
        .bind(&address.into())
        .unwrap_or_else(|error| panic!("{address}: {error}"));
    socket.listen(5).unwrap();
    socket.into()
}

/// Reads one request and answers it; nobody else is served meanwhile.
fn answer(mut client: TcpStream, status: &str, script: &Script) {
    let mut lines = BufReader::new(client.try_clone().unwrap());
    let mut line = String::new();
    let (mut path, mut posted) = (String::new(), 0);
    while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
        if path.is_empty() {
            line.split(' ')
                .nth(1)
                .unwrap_or_default()
                .clone_into(&mut path);
        }
        if let Some(length) = line.strip_prefix("Content-Length: ") {
            posted = length.trim_end().parse().unwrap();
        }
        if line == "\r\n" {
            let _ = lines.read_exact(&mut vec![0; posted]);
            let is_meant = script.text("hang-for").is_none_or(|only| path == only);
            if let Some(mode) = script.text("hang").filter(|_| is_meant) {
                hang::hang(mode, &mut client, script);
            }
            let location = script.text("location");
            let location = location.map_or(String::new(), |to| format!("Location: {to}\r\n"));
            let mut answer =
                format!("HTTP/1.0 {status}\r\nServer: stand-in\r\n{location}\r\nMyVNC\n");
            if let Some(bytes) = script.text("body") {
                SockRef::from(&client)
                    .set_send_buffer_size(SEND_BUFFER)
                    .unwrap();
                answer += &"x".repeat(bytes.parse().unwrap());
            }
            let _ = client.write_all(answer.as_bytes());
            return;
        }
        line.clear();
    }
}
