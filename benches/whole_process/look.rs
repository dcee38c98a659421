//! The time of a look at a hung server, among how many processes and sockets, and what it says of each
//! hang that the stand-in can bring about: as root, as the server's own user, as another.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use crate::child::{bare, installed, median};
use crate::rig::{self, Site};
use crate::table::{Row, Table};

/// The argument that the bench gives itself in the namespaces.
pub(crate) const INSIDE: &str = "look-inside-the-namespaces";

/// The argument that it gives itself to hold sockets.
pub(crate) const HOLD: &str = "hold-sockets";
/// So many in one process.
const EACH: usize = 2_000;

const CROWDS: [usize; 3] = [10, 1_000, 5_000];
const SOCKETS: [usize; 2] = [2_000, 50_000];
/// Whose the hung server is, and another user.
const SERVER: u32 = 61_240;
const ANOTHER: u32 = 61_241;
const RUNS: usize = 5;
/// The check of each run takes this time, in seconds.
const CHECK: f64 = 0.5;
/// The most that a look may take, in milliseconds.
const MOST: f64 = 500.0;

pub(crate) fn times(table: &mut Table) {
    let what = "look at a server that an idle client blocks";
    let Some(unshare) = installed("unshare").filter(|_| rig::is_root()) else {
        return table.push(Row::skipped(what, "only root can have so many sockets"));
    };
    let mut inside = bare(unshare);
    inside
        .args(["--net", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args(["sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .arg(INSIDE);
    let output = inside.stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success());
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let (beside, took) = line.rsplit_once(' ').unwrap();
        let took: f64 = took.parse().unwrap();
        table.push(
            Row::new(format!("{what}, beside {beside}"))
                .monitor(format!("{took:.0} ms"))
                .limit(format!("≤ {MOST:.0} ms"), took <= MOST),
        );
    }
}

/// In the namespaces: prints for each crowd the median time of a run less its check, in milliseconds.
pub(crate) fn inside() {
    let site = Site::new("");
    let _server = site.start();
    let _client = site.idle_client();
    let mut crowd: Vec<Child> = Vec::new();
    for count in CROWDS {
        while crowd.len() < count {
            crowd.push(bare("/bin/sleep").arg("3600").spawn().unwrap());
        }
        println!("{count} processes {}", look(&site));
    }
    for child in &mut crowd {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut holders: Vec<Child> = Vec::new();
    for count in SOCKETS {
        while holders.len() * EACH < count {
            holders.push(holder());
        }
        println!("{count} sockets {}", look(&site));
    }
    for holder in &mut holders {
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
}

/// A process that holds sockets, from when this returns on.
fn holder() -> Child {
    let mut holder = bare(std::env::current_exe().unwrap());
    let mut holder = holder.arg(HOLD).stdout(Stdio::piped()).spawn().unwrap();
    let ready = holder.stdout.take().unwrap().read(&mut [0]).unwrap();
    assert_eq!(ready, 1);
    holder
}

/// In such a process: opens them, says so, and stays.
pub(crate) fn hold() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let open = (0..EACH / 2).map(|_| {
        let client = TcpStream::connect(address).unwrap();
        (client, listener.accept().unwrap())
    });
    let open: Vec<_> = open.collect();
    println!();
    loop {
        std::thread::park();
        assert_eq!(open.len(), EACH / 2);
    }
}

fn look(site: &Site) -> f64 {
    let check = CHECK.to_string();
    let named = || {
        let causes = site.causes().into_iter();
        causes
            .filter(|cause| cause.starts_with("blocked reading from idle client "))
            .count()
    };
    let before = named();
    let times = (0..RUNS).map(|_| {
        let looked = rig::run(
            site.monitor()
                .args(["--collect-diagnostics", "--timeout", &check]),
        );
        (looked.took.as_secs_f64() - CHECK) * 1000.0
    });
    let median = median(times.collect());
    assert_eq!(named(), before + RUNS, "{}", site.log());
    median
}

/// Prints what is said of each hang.
pub(crate) fn sentences(_: &mut Table) {
    if !rig::is_root() {
        return eprintln!("skipped: only root can be another user");
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = silent.local_addr().unwrap();
    println!("| the stand-in, hung so | as root | as its user | as another user |");
    println!("|---|---|---|---|");
    for (how, settings) in [
        ("an idle client", String::new()),
        ("an idle client, by poll", "hang = poll".into()),
        ("an idle client, by epoll", "hang = epoll".into()),
        ("an idle client, in another thread", "hang = thread".into()),
        ("a client that does not read", "hang = write".into()),
        ("a child", "hang = child".into()),
        ("a child, its output captured", "hang = captured".into()),
        ("a child behind a shell", "hang = wrapped".into()),
        ("any of two children", "hang = children".into()),
        ("another host", format!("hang = remote\npeer = {peer}")),
        ("a name server", format!("hang = datagram\npeer = {peer}")),
        ("a lock of its own", "hang = deadlock".into()),
        ("no end of a loop", "hang = spin".into()),
        ("no more descriptors", "hang = descriptors".into()),
    ] {
        let say = |server, monitor| {
            let site = Site::new(&settings);
            site.look_as(server, monitor);
            site.causes().into_iter().next().unwrap_or_default()
        };
        println!(
            "| {how} | {} | {} | {} |",
            say(SERVER, 0),
            say(SERVER, SERVER),
            say(SERVER, ANOTHER)
        );
    }
}
