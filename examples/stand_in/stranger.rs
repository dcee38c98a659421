//! A process that is no server, whatever its arguments say. `STAND_IN_STRANGER` holds its settings, one
//! `key = value` a line:
//!
//! - `descriptors = N`: opens that many files;
//! - `grab = ADDRESS:PORT`: says that it waits, and takes the port as soon as it is free;
//! - `listen = ADDRESS:PORT`: listens there before it says that it waits; with `only-v6 = yes`, takes no connections
//!   to IPv4 addresses;
//! - `bind = ADDRESS:PORT`: holds the port without listening; with `while = ONE TWO THREE`, from when file ONE is there
//!   until file THREE is, and makes file TWO meanwhile;
//! - `connect = ADDRESS:PORT`: has a connection from there; `ended = ADDRESS:PORT`: had one, and closed it first;
//! - `closed = ADDRESS:PORT`: has closed one whose peer does not take its last data;
//! - `bound = N`: has that many sockets bound to one address and another port;
//! - `sockets = N`: listens on that many ports of an address of its own;
//! - `namespace = UID`: is in a PID namespace of its own, as that user; only root can make one;
//! - `answer = STATUS`: answers each request so; without it, no client is ever accepted;
//! - `alert = N`: answers each request with that alert of TLS;
//! - `forks = N`: that many children with the same arguments;
//! - `unkillable = yes`: starts a child with its own arguments but the first, which does the rest, traces it, and
//!   never lets it exit;
//! - `exec-after = FILE`: becomes `/bin/sleep` once that file exists, and goes on listening if it does;
//! - `swap = PATH PATH`: exchanges the two for as long as it lives.
//!
//! Once it is ready it prints `waiting PID`, where PID is the process that counts.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use socket2::{Domain, SockRef, Socket, Type};

use super::{LIFETIME, threads};

pub(crate) const SETTINGS: &str = "STAND_IN_STRANGER";
/// Time between two attempts, where there is no event to wait for.
const PAUSE: Duration = Duration::from_micros(200);

pub(crate) fn live(settings: &str) {
    let lines: Vec<(&str, &str)> = settings
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .collect();
    let text = |key: &str| {
        let mut found = lines.iter().filter(|(name, _)| *name == key);
        found.next().map(|(_, value)| *value)
    };
    if text("unkillable").is_some() {
        return never_let_go(settings);
    }
    if let Some(user) = text("namespace") {
        return move_to_a_namespace(settings, user.parse().unwrap());
    }
    let number = |key: &str| text(key).map_or(0, |value| value.parse::<u32>().unwrap());
    let _opened: Vec<File> = (0..number("descriptors"))
        .map(|_| File::open("/dev/null").unwrap())
        .collect();
    if let Some(address) = text("grab") {
        say_ready(std::process::id());
        let listener = loop {
            match listen(address.parse().unwrap()) {
                Ok(listener) => break listener,
                Err(_) => std::thread::sleep(PAUSE),
            }
        };
        return serve(&listener, text("answer"));
    }
    if let (Some(files), Some(address)) = (text("while"), text("bind")) {
        return bind_while(files, address.parse().unwrap());
    }
    let _bound = text("bind").map(|address| {
        let address: SocketAddr = address.parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&address.into()).unwrap();
        socket
    });
    let _connected = text("connect").map(|address| connect_from(address.parse().unwrap()));
    if let Some(address) = text("ended") {
        let (near, mut far) = connect_from(address.parse().unwrap());
        drop(near);
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
    }
    let _closed = text("closed").map(|address| {
        let (near, far) = connect_from(address.parse().unwrap());
        near.set_nonblocking(true).unwrap();
        while (&near).write(&[b'x'; 1 << 12]).is_ok() {}
        far
    });
    let _bound_elsewhere: Vec<Socket> = (0..number("bound"))
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.set_reuse_port(true).unwrap();
            let address: SocketAddr = ([127, 0, 0, 9], 9144).into();
            socket.bind(&address.into()).unwrap();
            socket
        })
        .collect();
    let _sockets: Vec<TcpListener> = (0..number("sockets"))
        .map(|count| {
            // Another process must not want the same addresses.
            let [_, _, high, low] = std::process::id().to_be_bytes();
            let port = u16::try_from(10_000 + count).unwrap();
            listen(([127, 100 + high, low, 1], port).into()).unwrap()
        })
        .collect();
    if let Some(address) = text("listen") {
        let address: SocketAddr = address.parse().unwrap();
        let listener = if text("only-v6").is_some() {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            socket.set_only_v6(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.listen(16).unwrap();
            socket.into()
        } else {
            listen(address).unwrap()
        };
        say_ready(std::process::id());
        if let Some(alert) = text("alert") {
            return refuse_tls(&listener, alert.parse().unwrap());
        }
        if let Some(file) = text("exec-after") {
            SockRef::from(&listener).set_cloexec(false).unwrap();
            become_sleep_after(file);
        }
        return serve(&listener, text("answer"));
    }
    for _ in 0..number("forks") {
        threads::fork_and_go_on(LIFETIME);
    }
    say_ready(std::process::id());
    if let Some(file) = text("exec-after") {
        become_sleep_after(file);
    }
    if let Some((one, other)) = text("swap").and_then(|paths| paths.split_once(' ')) {
        loop {
            let flags = RenameFlags::EXCHANGE;
            // Not the C library's: that of the packages (2.17) does not have it.
            renameat_with(CWD, one, CWD, other, flags).unwrap();
            std::thread::sleep(PAUSE);
        }
    }
    std::thread::sleep(LIFETIME);
}

fn bind_while(files: &str, address: SocketAddr) {
    let files: Vec<&Path> = files.split(' ').map(Path::new).collect();
    say_ready(std::process::id());
    wait_for(files[0]);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    File::create(files[1]).unwrap();
    wait_for(files[2]);
    drop(socket);
    std::thread::sleep(LIFETIME);
}

fn wait_for(file: &Path) {
    while !file.exists() {
        std::thread::sleep(PAUSE);
    }
}

fn become_sleep_after(file: &str) -> ! {
    wait_for(Path::new(file));
    panic!("{}", Command::new("/bin/sleep").arg("299").exec());
}

fn say_ready(pid: u32) {
    let mut output = std::io::stdout();
    let _ = writeln!(output, "waiting {pid}");
    let _ = output.flush();
}

/// Listens as somebody who wants the port at any price: old connections do not keep it.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(16)?;
    Ok(socket.into())
}

fn serve(listener: &TcpListener, status: Option<&str>) {
    let Some(status) = status else {
        return std::thread::sleep(LIFETIME);
    };
    for client in listener.incoming().flatten() {
        let _ = answer(client, status);
    }
}

/// Answers with a fatal alert (RFC 8446, section 6).
fn refuse_tls(listener: &TcpListener, alert: u8) {
    for mut client in listener.incoming().flatten() {
        let _ = client.read(&mut [0; 4096]);
        let _ = client.write_all(&[21, 3, 3, 0, 2, 2, alert]);
    }
}

fn answer(mut client: TcpStream, status: &str) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(client.try_clone()?).lines();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    client.write_all(format!("HTTP/1.0 {status}\r\nServer: stranger\r\n\r\nhello\n").as_bytes())
}

/// A connection from this address to a listener of its own, both ends of it.
fn connect_from(address: SocketAddr) -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    near.bind(&address.into()).unwrap();
    near.connect(&listener.local_addr().unwrap().into())
        .unwrap();
    (near, listener.accept().unwrap().0)
}

/// Starts a child with its own arguments in a PID namespace of its own (pid_namespaces(7)), which does the rest.
fn move_to_a_namespace(settings: &str, user: u32) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).unwrap();
    let mut arguments = std::env::args_os();
    let mut child = Command::new("/proc/self/exe");
    child.arg0(arguments.next().unwrap()).args(arguments);
    child.uid(user).gid(user);
    child.env(SETTINGS, settings.replace("namespace", "inside"));
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    say_ready(child.id());
    std::thread::sleep(LIFETIME);
}

/// Traces a child. At its end it stops to tell us (`PTRACE_O_TRACEEXIT`, ptrace(2)), and
/// without a word from us no signal ends it, SIGKILL neither.
fn never_let_go(settings: &str) {
    let mut arguments = std::env::args_os().skip(1);
    let mut child = Command::new("/proc/self/exe");
    child
        .arg0(arguments.next().unwrap())
        .args(arguments)
        .env(SETTINGS, settings.replace("unkillable", "killable"));
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACEEXIT).unwrap();
    say_ready(child.id());
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceEvent(_, _, event) if event == libc::PTRACE_EVENT_EXIT => {
                return std::thread::sleep(LIFETIME);
            }
            WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(_, Signal::SIGTERM) => {
                ptrace::cont(pid, None).unwrap();
            }
            WaitStatus::Stopped(_, signal) => ptrace::cont(pid, signal).unwrap(),
            _ => return,
        }
    }
}
