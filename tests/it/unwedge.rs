//! A server that is healed without a restart: what blocks it is ended, and nothing else.
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::rig;
use crate::rig::machine::{MYVNC, Machine, NOBODY, PORT, Ran, is_alive, on_own_machine};

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// A run that may unwedge the server.
fn unwedging(machine: &Machine) -> Command {
    let mut monitor = machine.monitor();
    monitor.arg("--unwedge");
    monitor
}

/// A server that is known, its PID, and a client of the other server, which no run may touch.
fn known(machine: &Machine, settings: &str) -> (rig::Process, i32, TcpStream) {
    machine.ours.configure(settings);
    let server = machine.ours.start();
    machine.run_healthy();
    let pid = machine.ours.server();
    (server, pid, machine.other.idle_client())
}

/// A client that has sent this.
fn client(sent: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
    client.write_all(sent).unwrap();
    client
}

/// What comes next from the server, or what became of the connection.
fn fate(mut client: &TcpStream) -> String {
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut answer = String::new();
    match client.read_to_string(&mut answer) {
        Ok(_) => answer.lines().next().unwrap_or("closed").to_owned(),
        Err(reason) => reason.kind().to_string(),
    }
}

/// Whether a connection is as it was: nothing came, and it is not closed.
fn is_untouched(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let peeked = client.peek(&mut [0]);
    client.set_nonblocking(false).unwrap();
    peeked.is_err_and(|reason| reason.kind() == std::io::ErrorKind::WouldBlock)
}

#[track_caller]
fn assert_healed(machine: &Machine, ran: &Ran, pid: i32, bystander: &TcpStream) {
    assert_eq!(ran.code(), Some(0), "{ran:?}");
    let text = format!("Server is now responsive, not restarted (PID {pid})\n");
    assert!(ran.log.contains(&text), "{ran:?}");
    assert!(ran.log.contains("] [INFO] Service was away "), "{ran:?}");
    assert!(!ran.log.contains("SIGTERM to PID"), "{ran:?}");
    assert!(!ran.log.contains("RESTARTING"), "{ran:?}");
    assert_eq!(machine.ours.server(), pid);
    assert!(is_untouched(bystander), "{ran:?}");
}

fn unwedged(ran: &Ran) -> Vec<&str> {
    let lines = ran.log.lines();
    let texts = lines.filter_map(|line| Some(line.split_once("] [INFO] Unwedged: ")?.1));
    texts.collect()
}

#[track_caller]
fn assert_restarted(machine: &Machine, ran: &Ran, pid: i32, why: &str) {
    assert_eq!(ran.code(), Some(0), "{ran:?}");
    let warnings = ran.warnings_with("The server cannot be healed without a restart: ");
    assert_eq!(warnings.len(), 1, "{ran:?}");
    assert!(warnings[0].contains(why), "{why}: {ran:?}");
    assert!(warnings[0].ends_with("; it is restarted"), "{ran:?}");
    assert_ne!(machine.ours.server(), pid);
    assert!(machine.ours.answers());
}

#[test]
fn hazard_51_what_a_browser_leaves_idle_is_ended_and_the_server_lives() {
    on_own_machine(MYVNC, |machine| {
        let (_server, pid, bystander) = known(machine, "");
        for sent in [b"".as_slice(), b"GET / HT", b"\x16\x03\x01\x02\x00\x01"] {
            let idle = client(sent);
            let waiting = client(REQUEST);
            let peer = idle.local_addr().unwrap();
            let ran = machine.run(&mut unwedging(machine));
            assert_healed(machine, &ran, pid, &bystander);
            let acts = unwedged(&ran);
            let start = format!("destroyed the connection of idle client {peer}, silent for ");
            assert!(acts.len() == 1 && acts[0].starts_with(&start), "{ran:?}");
            assert_eq!(fate(&idle), "connection reset");
            assert_eq!(fate(&waiting), "HTTP/1.0 200 OK");
        }
    });
}

#[test]
fn queued_clients_are_dealt_with_one_after_the_other() {
    on_own_machine(MYVNC, |machine| {
        let (_server, pid, bystander) = known(machine, "");
        let idle: Vec<TcpStream> = (0..5).map(|_| client(b"")).collect();
        let ran = machine.run(&mut unwedging(machine));
        assert_healed(machine, &ran, pid, &bystander);
        assert_eq!(unwedged(&ran).len(), 5, "{ran:?}");
        assert!(idle.iter().all(|one| fate(one) == "connection reset"));
    });
}

/// A client that connects again as soon as it is reset, and sends nothing.
fn reconnecting(stop: &Arc<AtomicBool>, count: &Arc<AtomicUsize>) -> std::thread::JoinHandle<()> {
    let (stop, count) = (Arc::clone(stop), Arc::clone(count));
    let first = client(b"");
    std::thread::spawn(move || {
        let mut connection = first;
        while !stop.load(Ordering::Relaxed) {
            let limit = Some(Duration::from_millis(50));
            connection.set_read_timeout(limit).unwrap();
            match connection.read(&mut [0]) {
                Err(reason) if reason.kind() == std::io::ErrorKind::WouldBlock => (),
                _ => {
                    count.fetch_add(1, Ordering::Relaxed);
                    match TcpStream::connect(("127.0.0.1", PORT)) {
                        Ok(next) => connection = next,
                        Err(_) => return,
                    }
                }
            }
        }
    })
}

#[test]
fn hazard_50_a_client_that_comes_back_at_once_is_dealt_with_until_the_time_is_over() {
    on_own_machine(MYVNC, |machine| {
        let (_server, pid, bystander) = known(machine, "");
        let (stop, count) = (Arc::default(), Arc::default());
        let thread = reconnecting(&stop, &count);
        let ran = machine.run(unwedging(machine).args(["--unwedge-for", "4"]));
        assert_healed(machine, &ran, pid, &bystander);
        let acts = unwedged(&ran).len();
        assert!((3..=8).contains(&acts), "{ran:?}");
        let warnings = ran.warnings_with("Clients keep blocking the server: ");
        assert_eq!(warnings.len(), 1, "{ran:?}");
        assert!(count.load(Ordering::Relaxed) >= acts);
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    });
}

/// Clients that fill the accept queue, which has room for 6; who finds it full tries again at once. They end with
/// the server.
fn crowd(pid: i32) -> Vec<std::thread::JoinHandle<()>> {
    let connect = || {
        let address = SocketAddr::from(([127, 0, 0, 1], PORT));
        TcpStream::connect_timeout(&address, Duration::from_millis(10))
    };
    let clients = (0..20).map(|_| {
        std::thread::spawn(move || {
            while is_alive(pid) {
                if let Ok(client) = connect() {
                    // What serves now is not restarted again.
                    if is_alive(pid) {
                        fate(&client);
                    }
                    return;
                }
            }
        })
    });
    let clients = clients.collect();
    rig::wait_until("the accept queue is full", || connect().is_err());
    clients
}

#[test]
fn where_more_wait_than_can_be_ended_in_time_the_server_is_restarted() {
    on_own_machine(MYVNC, |machine| {
        let (_server, pid, bystander) = known(machine, "");
        let idle = crowd(pid);
        let ran = machine.run(unwedging(machine).args(["--unwedge-for", "1"]));
        assert_restarted(
            machine,
            &ran,
            pid,
            "it does not answer, although what blocked it was ended",
        );
        assert!((2..=8).contains(&unwedged(&ran).len()), "{ran:?}");
        assert!(is_untouched(&bystander));
        for thread in idle {
            thread.join().unwrap();
        }
    });
}

#[test]
fn after_connections_were_destroyed_no_line_says_that_nothing_was_touched() {
    on_own_machine(MYVNC, |machine| {
        let (server, pid, bystander) = known(machine, "");
        let idle = crowd(pid);
        let command = ["--restart-cmd", "/nonexistent/manage.py start"];
        let ran = machine.run(
            unwedging(machine)
                .args(["--unwedge-for", "1"])
                .args(command),
        );
        assert_eq!(ran.code(), Some(1), "{ran:?}");
        assert!(!unwedged(&ran).is_empty(), "{ran:?}");
        let end = "[CRITICAL] Server was not restarted: only what blocked it was ended\n";
        assert!(ran.log.ends_with(end), "{ran:?}");
        assert!(!ran.log.contains("nothing was touched"), "{ran:?}");
        assert!(is_alive(pid), "{ran:?}");
        assert!(is_untouched(&bystander));
        drop(server);
        for thread in idle {
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_client_that_does_not_read_is_ended() {
    on_own_machine(MYVNC, |machine| {
        let (_server, pid, bystander) = known(machine, "hang = write\nhang-for = /big");
        let slow = client(b"GET /big HTTP/1.0\r\n\r\n");
        let waiting = client(REQUEST);
        let peer = slow.local_addr().unwrap();
        let ran = machine.run(&mut unwedging(machine));
        assert_healed(machine, &ran, pid, &bystander);
        let acts = unwedged(&ran);
        let start = format!("destroyed the connection of client {peer}, which has not read for ");
        assert!(acts.len() == 1 && acts[0].starts_with(&start), "{ran:?}");
        assert_eq!(fate(&waiting), "HTTP/1.0 200 OK");
    });
}

#[test]
fn a_stuck_child_is_ended_and_its_request_is_answered() {
    on_own_machine(MYVNC, |machine| {
        for (mode, name) in [
            ("child", "bjobs"),
            ("captured", "bjobs"),
            ("wrapped", "sleep"),
        ] {
            let settings = format!("hang = {mode}\nhang-for = /jobs");
            let (server, pid, bystander) = known(machine, &settings);
            let asking = client(b"GET /jobs HTTP/1.0\r\n\r\n");
            let waiting = client(REQUEST);
            let ran = machine.run(&mut unwedging(machine));
            assert_healed(machine, &ran, pid, &bystander);
            let acts = unwedged(&ran);
            let start = format!("ended the stuck child {name} (PID ");
            assert!(acts.len() == 1 && acts[0].starts_with(&start), "{ran:?}");
            assert_eq!(fate(&asking), "HTTP/1.0 200 OK");
            assert_eq!(fate(&waiting), "HTTP/1.0 200 OK");
            drop(server);
            machine.ours.kill();
        }
    });
}

#[test]
fn without_the_capability_the_same_run_restarts() {
    on_own_machine(MYVNC, |machine| {
        let (_server, pid, bystander) = known(machine, "");
        let _idle = client(b"");
        machine.wrapper = [
            "setpriv",
            "--bounding-set",
            "-net_admin",
            "--inh-caps",
            "-net_admin",
        ]
        .map(Into::into)
        .to_vec();
        let ran = machine.run(&mut unwedging(machine));
        assert_restarted(
            machine,
            &ran,
            pid,
            "Operation not permitted (CAP_NET_ADMIN is needed)",
        );
        assert!(unwedged(&ran).is_empty() && is_untouched(&bystander));
    });
}

#[test]
fn without_the_option_a_server_is_restarted_and_a_dry_run_says_what_would_be_ended() {
    on_own_machine(MYVNC, |machine| {
        let (_server, pid, bystander) = known(machine, "");
        let idle = client(b"");
        let ran = machine.run(unwedging(machine).arg("--dry-run"));
        let peer = idle.local_addr().unwrap();
        let text = format!("Would first destroy the connection of idle client {peer}, silent for ");
        assert!(ran.log.contains(&text), "{ran:?}");
        assert!(is_untouched(&idle) && machine.ours.server() == pid);
        let ran = machine.run(&mut machine.monitor());
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        assert!(unwedged(&ran).is_empty() && machine.ours.server() != pid);
        assert!(is_untouched(&bystander));
    });
}

#[test]
fn a_service_that_does_not_answer_the_server_is_not_ended() {
    on_own_machine(MYVNC, |machine| {
        // An outgoing connection, and one to a look-alike on the same port of another address.
        let directory = TcpListener::bind(("127.0.0.2", PORT)).unwrap();
        let peer = directory.local_addr().unwrap();
        let settings = format!("hang = remote\npeer = {peer}\nhang-for = /login");
        let (_server, pid, bystander) = known(machine, &settings);
        let look_alike = machine.look_alike(NOBODY, &format!("listen = 127.0.0.3:{PORT}"));
        let strange = TcpStream::connect(("127.0.0.3", PORT)).unwrap();
        let _asking = client(b"GET /login HTTP/1.0\r\n\r\n");
        let (outgoing, _) = directory.accept().unwrap();
        let mut monitor = unwedging(machine);
        monitor.args(["--listen", &format!("127.0.0.1:{PORT}")]);
        let ran = machine.run(&mut monitor);
        assert_eq!(ran.code(), Some(0), "{ran:?}");
        assert!(unwedged(&ran).is_empty(), "{ran:?}");
        assert_ne!(machine.ours.server(), pid);
        ran.assert_unharmed(&look_alike);
        assert!(is_untouched(&strange) && is_untouched(&bystander));
        // The restarted server has closed its end; it was not reset before.
        drop(outgoing);
    });
}

#[test]
fn a_client_that_was_active_a_moment_ago_is_not_ended() {
    on_own_machine(MYVNC, |machine| {
        let (_server, pid, bystander) = known(machine, "");
        let mut slow = client(b"");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            // It sends its request byte by byte.
            let began = Instant::now();
            while !stopped.load(Ordering::Relaxed) && began.elapsed() < Duration::from_secs(30) {
                if slow.write_all(b"x").is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let ran = machine.run(unwedging(machine).args(["--unwedge-for", "1"]));
        stop.store(true, Ordering::Relaxed);
        assert_restarted(machine, &ran, pid, "the connection was used ");
        assert!(
            unwedged(&ran).is_empty() && is_untouched(&bystander),
            "{ran:?}"
        );
        thread.join().unwrap();
    });
}
