//! The time of a look at a hung server, among how many processes and sockets, and what it says of each
//! hang that the stand-in can bring about: as root, as the server's own user, as another.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};

use crate::binary;
use crate::child::{bare, median, rounds, run};
use crate::namespace;
use crate::rig::{self, Site};
use crate::table::{Row, Table};

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
const WHAT: &str = "look at a server that an idle client blocks";

pub(crate) fn times(table: &mut Table) {
    if !rig::is_root() {
        return table.push(Row::skipped(WHAT, "only root can have so many sockets"));
    }
    namespace::run(table, "look", WHAT);
}

fn report(table: &mut Table, beside: &str, took: f64) {
    table.push(
        Row::new(format!("{WHAT}, beside {beside}"))
            .monitor(format!("{took:.0} ms"))
            .limit(format!("≤ {MOST:.0} ms"), took <= MOST),
    );
}

/// In the namespaces: for each crowd, the median time of a run less its check.
pub(crate) fn inside(table: &mut Table) {
    let site = Site::new("");
    let _server = site.start();
    let _client = site.idle_client();
    let mut crowd: Vec<Child> = Vec::new();
    for count in CROWDS {
        while crowd.len() < count {
            crowd.push(bare("/bin/sleep").arg("3600").spawn().unwrap());
        }
        report(table, &format!("{count} processes"), look(&site));
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
        report(table, &format!("{count} sockets"), look(&site));
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
    let runs = rounds(RUNS);
    let mut monitor = bare(binary::monitor());
    monitor
        .args(site.monitor().get_args())
        .args(["--collect-diagnostics", "--timeout", &check]);
    let times = (0..runs).map(|_| (run(&mut monitor).wall.as_secs_f64() - CHECK) * 1000.0);
    let median = median(times.collect());
    assert_eq!(named(), before + runs, "{}", site.log());
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
            site.look_with(binary::monitor(), server, monitor);
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
