//! Each cause of a hang, injected for real, and the sentence that names it.
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::rig;
use crate::rig::{Mounted, Site, run};
use nix::mount::MsFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::{ServerConnection, StreamOwned};

/// The first cause of a server that the monitor's own check makes hang so.
fn cause_of(site: &Site) -> String {
    site.collect();
    let first = site.causes().into_iter().next();
    first.unwrap_or_else(|| panic!("no cause: {}", site.log()))
}

#[test]
fn cause_1_not_running_and_since_when() {
    let site = Site::new("");
    // The kernel's log may tell of the OOM killer, whom another test has called.
    let cause = cause_of(&site);
    assert!(cause.starts_with("the server is not running"), "{cause}");
    let server = site.start();
    assert_eq!(run(&mut site.monitor()).code(), Some(0));
    drop(server);
    rig::wait_until("it is gone", || !site.answers());
    site.collect();
    let last = site.causes().pop().unwrap();
    let known = last.starts_with("the server is not running; it last answered ")
        && last.ends_with(" s ago");
    let by_chance = last.contains("the kernel's OOM killer ended ");
    assert!(known || by_chance, "{last}");
}

/// Runs in a memory control group of version 1 that has so many bytes.
fn in_memory_group(pid: i32, bytes: u64) -> Option<rig::Group> {
    let group = rig::Group::new("memory", pid)?;
    group
        .write("memory.limit_in_bytes", &bytes.to_string())
        .ok()?;
    Some(group)
}

#[test]
fn cause_1_ended_by_the_oom_killer() {
    let site = Site::new("hang = memory");
    let server = site.start();
    let pid = site.servers()[0];
    let readable = fs::File::open("/dev/kmsg").is_ok();
    let Some(_group) = in_memory_group(pid, 32 << 20).filter(|_| readable) else {
        return rig::skip(
            "no memory control group of version 1, or no kernel log that can be read",
        );
    };
    assert_eq!(
        run(site
            .monitor()
            .args(["--collect-diagnostics", "--timeout", "5"]))
        .code(),
        Some(0)
    );
    rig::wait_until("it was ended", || site.servers().is_empty());
    drop(server);
    site.collect();
    let last = site.causes().pop().unwrap();
    // The kernel's log has the PIDs of the initial PID namespace.
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    let victim = if namespace.as_os_str() == "pid:[4026531836]" {
        format!("PID {pid} (python3)")
    } else {
        "a process (python3)".to_owned()
    };
    let start = format!("the server is not running; the kernel's OOM killer ended {victim} ");
    assert!(
        last.starts_with(&start) && last.ends_with(" ago, which may have been it"),
        "{last}"
    );
}

#[test]
fn cause_10_at_the_memory_limit_of_its_control_group() {
    let (site, _server) = Site::hung("hang = sleep");
    let pid = site.servers()[0];
    let Some(group) = in_memory_group(pid, 64 << 20) else {
        return rig::skip("no memory control group of version 1");
    };
    // What it used before does not count: it is given some to use.
    let filled = Command::new("sh")
        .args([
            "-c",
            "echo $$ > \"$0\"; head -c 20000000 /dev/zero > \"$1\"",
        ])
        .arg(group.path("cgroup.procs"))
        .arg("/dev/shm/monitor-test-ballast")
        .status();
    assert!(filled.unwrap().success());
    let used: u64 = group.read("memory.usage_in_bytes").trim().parse().unwrap();
    // The next page that it needs would be its end.
    group.write("memory.oom_control", "1").unwrap();
    group
        .write("memory.limit_in_bytes", &used.to_string())
        .unwrap();
    site.collect();
    fs::remove_file("/dev/shm/monitor-test-ballast").unwrap();
    let start = format!("PID {pid} is at the memory limit of its control group: ");
    assert!(
        site.causes().iter().any(|cause| cause.starts_with(&start)),
        "{}",
        site.log()
    );
}

#[test]
fn cause_2_blocked_reading_from_an_idle_client() {
    let (site, _server) = Site::hung("");
    let client = site.idle_client();
    let peer = client.local_addr().unwrap();
    let pid = site.servers()[0];
    let cause = cause_of(&site);
    let ours = client_here();
    let start = format!("blocked reading from idle client {peer}{ours}, connected for ");
    assert!(cause.starts_with(&start), "{cause}");
    assert!(
        cause.ends_with(&format!(" s and sent nothing (PID {pid})")),
        "{cause}"
    );
}

#[test]
fn cause_2_an_idle_client_that_began_its_request() {
    let (site, _server) = Site::hung("");
    let mut client = site.idle_client();
    client.write_all(b"GET / HT").unwrap();
    let cause = cause_of(&site);
    assert!(cause.contains(" after 8 bytes (PID "), "{cause}");
}

#[test]
fn cause_4_blocked_writing_to_a_client_that_does_not_read() {
    let (site, _server) = Site::hung("hang = write");
    let mut client = site.idle_client();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let peer = client.local_addr().unwrap();
    let cause = cause_of(&site);
    let ours = client_here();
    let start = format!("blocked writing to client {peer}{ours}, which does not read: ");
    assert!(cause.starts_with(&start), "{cause}");
    assert!(!cause.contains(" 0 bytes"), "{cause}");
}

#[test]
fn cause_2_by_poll_select_and_epoll_as_well_and_by_another_thread() {
    for mode in ["poll", "epoll", "thread"] {
        let (site, _server) = Site::hung(&format!("hang = {mode}"));
        let mut client = site.idle_client();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let cause = cause_of(&site);
        let peer = client.local_addr().unwrap();
        let start = format!("blocked reading from idle client {peer}");
        assert!(cause.starts_with(&start), "{mode}: {cause}");
        let by_thread = cause.ends_with("while its main thread waits for a lock)");
        assert_eq!(by_thread, mode == "thread", "{mode}: {cause}");
    }
}

#[test]
fn cause_2_an_idle_client_beside_new_ones_is_no_cause() {
    let (site, _server) = Site::hung("hang = event-loop");
    let _clients = [site.idle_client(), site.idle_client()];
    site.collect();
    let causes = site.causes();
    // Where the machine is overloaded, that is the cause.
    let is_healthy = |cause: &String| {
        cause.ends_with("waits for clients as a healthy server does: it may be slow, or the check may not reach it")
    };
    assert!(causes.first().is_none_or(is_healthy), "{}", site.log());
    assert!(!site.log().contains("idle client"), "{}", site.log());
}

#[test]
fn cause_3_in_a_tls_handshake_with_a_silent_client() {
    let (site, _server) = Site::hung("tls = yes");
    let client = site.idle_client();
    let url = format!("https://127.0.0.1:{}", site.port);
    let looked = run(site.monitor().args([
        "--collect-diagnostics",
        "--no-verify-ssl",
        "--timeout",
        "0.5",
        "--url",
        &url,
    ]));
    assert_eq!(looked.code(), Some(0));
    let cause = site.causes().remove(0);
    let start = format!(
        "blocked in a TLS handshake with idle client {}",
        client.local_addr().unwrap()
    );
    assert!(
        cause.starts_with(&start) && cause.contains(" and sent nothing (PID "),
        "{cause}"
    );
}

#[test]
fn cause_4_by_poll_as_well() {
    let (site, _server) = Site::hung("hang = poll-write");
    let mut client = site.idle_client();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let cause = cause_of(&site);
    assert!(cause.starts_with("blocked writing to client "), "{cause}");
    assert!(cause.contains("which does not read: "), "{cause}");
}

#[test]
fn cause_5_waiting_for_a_child() {
    for mode in ["child", "captured"] {
        let (site, _server) = Site::hung(&format!("hang = {mode}"));
        let cause = cause_of(&site);
        let pid = site.servers()[0];
        assert!(cause.starts_with("waiting for PID "), "{mode}: {cause}");
        let end = format!("): bjobs 299 (PID {pid})");
        assert!(cause.ends_with(&end), "{mode}: {cause}");
        assert!(cause.contains("(state S, for "), "{mode}: {cause}");
        rig::end_children(pid);
    }
}

#[test]
fn cause_5_a_wrapper_is_named_with_what_it_waits_for() {
    let (site, _server) = Site::hung("hang = wrapped");
    let cause = cause_of(&site);
    let pid = site.servers()[0];
    assert!(
        cause.contains("): /bin/sh -c /bin/sleep 299; :, which waits for PID "),
        "{cause}"
    );
    assert!(
        cause.ends_with(&format!("): /bin/sleep 299 (PID {pid})")),
        "{cause}"
    );
    rig::end_children(pid);
}

#[test]
fn cause_5_where_any_of_several_children_is_waited_for_none_is_blamed() {
    let (site, _server) = Site::hung("hang = children");
    let cause = cause_of(&site);
    let pid = site.servers()[0];
    assert!(
        cause.starts_with("waiting for any of its 2 children to exit: PID "),
        "{cause}"
    );
    assert!(
        cause.contains("helper 299; PID ") && cause.ends_with(&format!("bjobs 299 (PID {pid})")),
        "{cause}"
    );
    rig::end_children(pid);
}

#[test]
fn hazard_54_cause_5_a_child_that_does_not_get_to_its_program() {
    let (site, _server) = Site::hung("hang = forked");
    let cause = cause_of(&site);
    let pid = site.servers()[0];
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert!(state.contains(") D "), "{state}");
    assert!(cause.starts_with("waiting for PID "), "{cause}");
    assert!(
        cause.ends_with(&format!(" (PID {pid}, in state D)")),
        "{cause}"
    );
    rig::end_children(pid);
}

#[test]
fn hazard_52_cause_6_a_peer_of_this_machine_is_named_with_its_state() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = silent.local_addr().unwrap();
    let (site, _server) = Site::hung(&format!("hang = remote\npeer = {peer}"));
    let cause = cause_of(&site);
    let own = std::process::id();
    let start = format!("waiting for a reply from {peer} (PID {own} (state ");
    assert!(cause.starts_with(&start), "{cause}");
}

#[test]
fn cause_6_a_name_server_is_another_host_too() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = silent.local_addr().unwrap();
    let (site, _server) = Site::hung(&format!("hang = datagram\npeer = {peer}"));
    let cause = cause_of(&site);
    assert!(
        cause.starts_with(&format!("waiting for a reply from {peer} (PID ")),
        "{cause}"
    );
}

#[test]
fn cause_6_a_host_that_lets_nobody_connect() {
    // Its accept queue is full, and the kernel drops who comes then.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    full.listen(0).unwrap();
    let peer = full.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(peer).unwrap();
    let (site, _server) = Site::hung(&format!("hang = connect\npeer = {peer}"));
    let cause = cause_of(&site);
    let own = std::process::id();
    let start = format!("waiting for a connection to {peer} (PID {own} (state ");
    assert!(cause.starts_with(&start), "{cause}");
    assert!(cause.contains("), which does not answer (PID "), "{cause}");
}

/// What a sentence says of a client that is this test.
fn client_here() -> String {
    let ours = std::process::id();
    let command = fs::read_to_string("/proc/self/cmdline").unwrap();
    let command = command.trim_end_matches('\0').replace('\0', " ");
    format!(" (PID {ours}: {command})")
}

#[test]
fn cause_7_blocked_in_a_file() {
    let site = Site::new("");
    let fifo = site.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    site.configure(&format!("hang = open\nfile = {}", fifo.display()));
    let _server = site.start();
    let cause = cause_of(&site);
    assert!(
        cause.starts_with(&format!("blocked opening {} (PID ", fifo.display())),
        "{cause}"
    );
}

#[test]
fn cause_7_blocked_by_a_file_system_that_does_not_answer() {
    rig::in_private_namespace(|| {
        let site = Site::new("");
        let directory = site.path("dead");
        let Some(dead) = rig::dead_disk::DeadDisk::mount(&directory) else {
            return rig::skip("no file system in user space can be mounted here");
        };
        let file = directory.join("users.json");
        site.configure(&format!("hang = open\nfile = {}", file.display()));
        let _server = site.start();
        let pid = site.servers()[0];
        let expected = format!(
            "blocked opening {} (fuse dead on {}) (PID {pid})",
            file.display(),
            directory.display()
        );
        let cause = cause_of(&site);
        // The server cannot end before.
        drop(dead);
        assert_eq!(cause, expected, "{}", site.log());
    });
}

#[test]
fn cause_7_stuck_in_the_kernel() {
    let (site, server) = Site::hung("");
    let pid = site.servers()[0];
    let Some(frozen) = rig::Frozen::new(pid) else {
        return rig::skip("no cgroup v1 freezer to hold a process in state D");
    };
    let cause = cause_of(&site);
    let start = format!("PID {pid} is stuck in the kernel (state D), kernel wait channel: ");
    assert!(cause.starts_with(&start), "{cause}");
    // Only root may see in which functions.
    let record = format!("PID {pid}: state D, ");
    let line = site.log();
    let line = line.lines().find(|line| line.contains(&record)).unwrap();
    assert!(line.contains(" < "), "{line}");
    assert!(server.is_alive());
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    drop(frozen);
}

#[test]
fn cause_2_of_a_server_whose_first_thread_has_ended() {
    let (site, _server) = Site::hung("first-thread = ends");
    let pid = site.pids("server")[0];
    let _client = site.idle_client();
    let cause = cause_of(&site);
    assert!(
        cause.starts_with("blocked reading from idle client "),
        "{cause}"
    );
    assert!(cause.ends_with(&format!(" (PID {pid})")), "{cause}");
    let record = format!("PID {pid}: state Z, ");
    assert!(site.log().contains(&record), "{}", site.log());
}

#[test]
fn cause_8_traced_and_by_whom() {
    let (site, _server) = Site::hung("");
    let pid = site.servers()[0];
    let traced = Pid::from_raw(pid);
    if let Err(reason) = nix::sys::ptrace::attach(traced) {
        return rig::skip(&format!("no process may be traced here: {reason}"));
    }
    nix::sys::wait::waitpid(traced, None).unwrap();
    let cause = cause_of(&site);
    nix::sys::ptrace::detach(traced, None).unwrap();
    let ours = std::process::id();
    let start = format!("PID {pid} is stopped by its tracer, PID {ours} (state ");
    assert!(cause.starts_with(&start), "{cause}");
}

#[test]
fn cause_8_stopped() {
    let (site, _server) = Site::hung("");
    let pid = site.servers()[0];
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    rig::wait_until("it is stopped", || {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .unwrap()
            .contains(") T ")
    });
    let _clients: Vec<TcpStream> = (0..3).map(|_| site.idle_client()).collect();
    let cause = cause_of(&site);
    assert_eq!(
        cause,
        format!("PID {pid} is stopped (SIGSTOP or job control)")
    );
    let expected = format!(
        "3 clients wait in the accept queue of 127.0.0.1:{}",
        site.port
    );
    assert!(
        site.causes().contains(&expected),
        "cause 11: {}",
        site.log()
    );
}

#[test]
fn cause_11_a_full_accept_queue_and_clients_that_have_left() {
    let (site, _server) = Site::hung("hang = sleep");
    let mut first = site.idle_client();
    first.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    rig::wait_until("the first is accepted", || waiting(&site) == 0);
    let stay: Vec<TcpStream> = (0..4).map(|_| site.idle_client()).collect();
    drop([site.idle_client(), site.idle_client()]);
    rig::wait_until("all of them wait", || waiting(&site) == 6);
    site.collect();
    let expected = format!(
        "the accept queue of 127.0.0.1:{} is full: 6 connections wait in it, {} of them with a client, and its backlog is 5",
        site.port,
        stay.len()
    );
    assert!(site.causes().contains(&expected), "{}", site.log());
}

/// How many connections wait in the accept queue of a site's server.
fn waiting(site: &Site) -> u32 {
    let rows = procfs::net::tcp().unwrap().into_iter();
    let mut listening = rows.filter(|row| {
        row.state == procfs::net::TcpState::Listen && row.local_address.port() == site.port
    });
    listening.next().unwrap().rx_queue
}

#[test]
fn cause_9_spinning() {
    let (site, _server) = Site::hung("hang = spin");
    let pid = site.servers()[0];
    let spins = format!("PID {pid} spins: thread {pid} (");
    // While it is looked at, other processes may have all CPUs.
    rig::wait_until("it is seen to spin", || {
        site.collect();
        site.causes().iter().any(|cause| cause.starts_with(&spins))
    });
}

#[test]
fn cause_10_out_of_descriptors() {
    let site = Site::new("hang = descriptors");
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]);
    limited
        .arg(site.path("bin/python3"))
        .arg(site.path("myvnc/main.py"));
    let mut server = limited
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    rig::wait_until("it listens", || !site.pids("listening").is_empty());
    let cause = cause_of(&site);
    let pid = site.servers()[0];
    // One more where the suite left the shell a descriptor above its limit.
    let start = format!("PID {pid} is out of file descriptors: 6");
    assert!(
        cause.starts_with(&start) && cause.ends_with(" of 64"),
        "{cause}"
    );
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn cause_10_out_of_threads() {
    let site = Site::new("hang = sleep");
    let program = site.reachable_copy(&rig::stand_in());
    let mut limited = Command::new("prlimit");
    limited
        .arg("--nproc=1")
        .arg(&program)
        .arg(site.path("myvnc/main.py"));
    if rig::is_root() {
        // Root is held to no such limit.
        site.give_to(61_234);
        limited.uid(61_234).gid(61_234);
    }
    let mut server = limited
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    rig::wait_until("it listens", || !site.pids("listening").is_empty());
    let pattern = format!("{} .*/myvnc/main[.]py", program.display());
    let looked = run(site.monitor().args([
        "--collect-diagnostics",
        "--timeout",
        "0.5",
        "--process-pattern",
        &pattern,
    ]));
    assert_eq!(looked.code(), Some(0));
    let pid = site.servers()[0];
    let start = format!("PID {pid} is out of threads: its user has ");
    let cause = site.causes().remove(0);
    assert!(
        cause.starts_with(&start) && cause.ends_with(" of 1"),
        "{cause}"
    );
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn cause_10_too_few_descriptors_for_a_request() {
    let (site, _server) = Site::hung("hang = sleep");
    let pid = site.servers()[0];
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let limited = Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={}", open + 3)])
        .status();
    if !limited.is_ok_and(|status| status.success()) {
        return rig::skip("there is no prlimit");
    }
    site.collect();
    let expected = format!(
        "PID {pid} has too few file descriptors left for a request: {} of {} are open",
        open + 2,
        open + 3
    );
    assert!(site.causes().contains(&expected), "{}", site.log());
}

#[test]
fn cause_12_deadlock() {
    let (site, _server) = Site::hung("hang = deadlock");
    let cause = cause_of(&site);
    assert!(
        cause.starts_with("deadlock: the main thread of PID "),
        "{cause}"
    );
}

#[test]
fn cause_13_the_port_is_held_by_another_process() {
    let site = Site::new("");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let looked =
        run(site
            .monitor()
            .args(["--collect-diagnostics", "--timeout", "0.3", "--url", &url]));
    assert_eq!(looked.code(), Some(0));
    let ours = std::process::id();
    let causes = site.causes();
    assert!(
        causes[0].starts_with("the server is not running"),
        "{causes:?}"
    );
    let start = format!(
        "{} is held by another process, PID {ours} (",
        listener.local_addr().unwrap()
    );
    assert!(causes[1].starts_with(&start), "{causes:?}");
}

#[test]
fn cause_14_listening_where_the_url_does_not_ask() {
    let site = Site::new("");
    site.configure(&format!("listen = 127.0.0.2:{}", site.port));
    let _server = site.start();
    let cause = cause_of(&site);
    let expected = format!(
        "the server listens on 127.0.0.2:{}, not at the URL's address",
        site.port
    );
    assert_eq!(cause, expected);
}

#[test]
fn cause_14_the_url_is_another_hosts() {
    let (site, _server) = Site::hung("");
    let elsewhere = [
        "--collect-diagnostics",
        "--timeout",
        "0.2",
        "--url",
        "http://192.0.2.1:1",
    ];
    assert_eq!(run(site.monitor().args(elsewhere)).code(), Some(0));
    // Without a route to that host, the monitor's own failure is the first cause.
    let causes = site.causes();
    let cause = causes
        .iter()
        .find(|cause| !cause.starts_with("the check failed on the monitor's own side: "));
    assert!(
        cause.is_some_and(|cause| cause.starts_with("the URL's host is another machine")),
        "{}",
        site.log()
    );
}

#[test]
fn cause_14_another_instance_on_another_port() {
    let site = Site::new("");
    let another = Site::new("");
    rig::in_private_namespace(|| {
        let _server = another.start();
        let mut monitor = site.bare_monitor();
        monitor.args(["--restart-cmd", "true", "--collect-diagnostics"]);
        assert_eq!(run(&mut monitor).code(), Some(0), "{}", site.log());
        let cause = site.causes().remove(0);
        let start = format!(
            "the URL has port {}, and a MyVNC server listens on 127.0.0.1:{}, PID ",
            site.port, another.port
        );
        assert!(cause.starts_with(&start), "{cause}");
    });
}

#[test]
fn cause_14_the_urls_name_has_no_address() {
    let (site, _server) = Site::hung("");
    let url = format!("http://no-such-host.invalid:{}", site.port);
    let looked = run(site
        .monitor()
        .args(["--collect-diagnostics", "--url", &url]));
    assert_eq!(looked.code(), Some(0));
    let cause = site.causes().remove(0);
    let pid = site.servers()[0];
    assert!(
        cause.starts_with("the URL's host cannot be resolved: "),
        "{cause}"
    );
    let end = format!(
        "; the server (PID {pid}, which listens on 127.0.0.1:{}) was not asked",
        site.port
    );
    assert!(cause.ends_with(&end), "{cause}");
}

#[test]
fn cause_15_an_error_status() {
    for (status, shown) in [
        ("503 Service Unavailable", 503),
        ("500 Internal Server Error", 500),
    ] {
        let (site, _server) = Site::hung(&format!("status = {status}"));
        let expected = format!("the server answers, but with status {shown}");
        assert_eq!(cause_of(&site), expected);
    }
}

#[test]
fn cause_15_redirects_that_do_not_end() {
    let (site, _server) = Site::hung("status = 302 Found\nlocation = /");
    let expected = "the server's redirects do not end: more than ten on its own host";
    assert_eq!(cause_of(&site), expected);
}

/// Answers each connection so, in a thread of the test.
fn answering(answer: impl Fn(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            answer(client);
        }
    });
    port
}

#[test]
fn cause_15_a_proxy_in_front_while_the_server_is_up_or_down() {
    let port = answering(|mut client| {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
    });
    let url = format!("http://127.0.0.1:{port}");
    let (site, server) = Site::hung("");
    let look = || {
        let looked = run(site
            .monitor()
            .args(["--collect-diagnostics", "--url", &url]));
        assert_eq!(looked.code(), Some(0));
        site.causes().pop().unwrap()
    };
    let (ours, pid) = (std::process::id(), site.servers()[0]);
    let up = look();
    assert!(
        up.starts_with(&format!("a proxy, PID {ours} (state ")),
        "{up}"
    );
    let end = format!(
        ", answers with status 502 in the server's place; the server itself is up: PID {pid}, which listens on 127.0.0.1:{}",
        site.port
    );
    assert!(up.ends_with(&end), "{up}");
    drop(server);
    let down = look();
    assert!(
        down.contains(" answers with status 502 in the server's place; the server is not running"),
        "{down}"
    );
}

#[test]
fn cause_15_a_certificate_that_has_expired() {
    let (config, certificate) =
        rig::certified(|one| one.not_after = rcgen::date_time_ymd(2020, 6, 15));
    let port = answering(move |client| {
        let session = ServerConnection::new(config.clone()).unwrap();
        let _ = StreamOwned::new(session, client).read(&mut [0; 1024]);
    });
    let site = Site::new("");
    let authority = site.path("own.pem");
    fs::write(&authority, certificate).unwrap();
    let url = format!("https://127.0.0.1:{port}");
    let looked = run(site
        .monitor()
        .args(["--collect-diagnostics", "--url", &url, "--ca-cert"])
        .arg(&authority));
    assert_eq!(looked.code(), Some(0));
    let cause = site.causes().remove(0);
    assert!(
        cause.starts_with("the server's certificate is not accepted: expired on 2020-06-1"),
        "{cause}"
    );
}

#[test]
fn cause_15_what_answers_is_no_myvnc_server() {
    let port = answering(|mut client| {
        let _ = client.read(&mut [0; 1024]);
        let _ = client.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n");
    });
    let site = Site::new("");
    let url = format!("http://127.0.0.1:{port}");
    let looked = run(site
        .monitor()
        .args(["--collect-diagnostics", "--url", &url]));
    assert_eq!(looked.code(), Some(0));
    let cause = site.causes().remove(0);
    let start = "what answers is no MyVNC server: it does not begin with HTTP/1.0 or HTTP/1.1";
    assert!(cause.starts_with(start), "{cause}");
}

#[test]
fn cause_16_the_disk_of_its_log_is_full() {
    rig::in_private_namespace(|| {
        let site = Site::new("");
        let disk = site.path("disk");
        let _mounted = Mounted::tmpfs(&disk, MsFlags::empty(), "size=64k");
        site.configure(&format!("log = {}", disk.join("myvnc_7.log").display()));
        let server = site.start();
        let _ = fs::write(disk.join("ballast"), vec![b'x'; 1 << 20]);
        let _client = site.idle_client();
        site.collect();
        let expected = format!("the disk of {} is full", disk.display());
        assert!(site.causes().contains(&expected), "{}", site.log());
        drop(server);
    });
}

#[test]
fn cause_17_pressure_and_load_are_in_the_record() {
    let (site, _server) = Site::hung("");
    site.collect();
    let log = site.log();
    let machine = log
        .lines()
        .find_map(|line| line.split_once("Machine: load "))
        .unwrap()
        .1;
    let cpus = format!(
        " on {} CPUs, ",
        nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)
            .unwrap()
            .unwrap()
    );
    for part in [&cpus, " MiB memory available"] {
        assert!(machine.contains(part), "{machine}");
    }
    let keeps_pressure = fs::read_to_string("/proc/pressure/memory").is_ok();
    assert_eq!(
        machine.contains("; pressure (10 s average): cpu "),
        keeps_pressure,
        "{machine}"
    );
}

/// The causes that a look as that user names of a server of that user, hung so.
fn as_users(settings: &str, server: u32, monitor: u32) -> (Site, Vec<String>) {
    let site = Site::new(settings);
    site.look_as(server, monitor);
    let causes = site.causes();
    (site, causes)
}

/// Whether the server could not spin: it got no CPU time, since other processes had it.
fn is_starved(settings: &str, site: &Site) -> bool {
    let log = site.log();
    let pressure = log.split("(10 s average): cpu ").nth(1);
    let pressure = pressure.and_then(|text| text.split(' ').next()?.parse::<f32>().ok());
    settings == "hang = spin" && pressure.is_some_and(|percent| percent >= 50.0)
}

/// Hangs, and how their sentences begin.
const HANGS: [(&str, &str); 7] = [
    ("", "blocked reading from idle client "),
    ("hang = write", "blocked writing to client "),
    ("hang = child", "waiting for PID "),
    ("hang = captured", "waiting for PID "),
    ("hang = epoll", "blocked reading from idle client "),
    ("hang = spin", "PID "),
    ("hang = deadlock", "deadlock: the main thread of PID "),
];

#[test]
fn as_the_servers_own_user_it_says_the_same() {
    if !rig::is_root() {
        return rig::skip("only root can be another user: the other tests run as the server's own");
    }
    for (settings, start) in HANGS {
        let (site, causes) = as_users(settings, 61_235, 61_235);
        if is_starved(settings, &site) {
            continue;
        }
        assert!(
            causes[0].starts_with(start)
                && (settings != "hang = spin" || causes[0].contains(" spins: thread "))
                && !causes[0].contains("not visible"),
            "{settings}: {}",
            site.log()
        );
    }
}

#[test]
fn as_another_user_it_says_what_it_could_not_see_and_does_not_guess() {
    if !rig::is_root() {
        return rig::skip("only root can be another user");
    }
    for (settings, _) in HANGS {
        let (site, causes) = as_users(settings, 61_235, 61_236);
        // What spins is no secret.
        let start = if settings == "hang = spin" {
            "PID "
        } else {
            "not visible: "
        };
        let is_spinning = settings != "hang = spin" || causes[0].contains(" spins: thread ");
        let is_start = causes[0].starts_with(start) && is_spinning || is_starved(settings, &site);
        assert!(is_start, "{settings}: {}", site.log());
        let guesses = [
            "idle client",
            "not running",
            "held by another",
            "deadlock",
            "waiting for",
        ];
        for cause in &causes {
            assert!(
                !guesses.iter().any(|guess| cause.contains(guess)),
                "{cause}"
            );
        }
    }
}

#[test]
fn hazard_49_the_servers_own_user_sees_a_child_of_another_user() {
    if !rig::is_root() {
        return rig::skip("only root can make a setuid program of another user");
    }
    for mode in ["child", "captured"] {
        let site = Site::new("");
        let runner = site.path("setuid_runner");
        fs::copy("/bin/sleep", &runner).unwrap();
        let user = nix::unistd::Uid::from_raw(61_236);
        nix::unistd::chown(&runner, Some(user), None).unwrap();
        fs::set_permissions(&runner, fs::Permissions::from_mode(0o4755)).unwrap();
        site.configure(&format!("hang = {mode}\nchild = {}", runner.display()));
        site.look_as(61_235, 61_235);
        let causes = site.causes();
        let cause = causes[0].as_str();
        let named = cause.strip_prefix("waiting for PID ").unwrap_or_default();
        let (_, state) = named.split_once(" (state S, for ").unwrap_or_default();
        let hidden = " s, of another user, descriptors not visible): bjobs 299 (PID ";
        assert!(state.contains(hidden), "{mode}: {}", site.log());
    }
}

#[test]
fn as_another_user_a_server_that_is_not_recognised_is_not_called_dead() {
    if !rig::is_root() {
        return rig::skip("only root can be another user");
    }
    for hangs in [true, false] {
        let (site, _server) = Site::hung("");
        let _client = hangs.then(|| site.idle_client());
        let program = site.reachable_copy(std::path::Path::new(rig::MONITOR));
        let mut monitor = site.bare_monitor_at(&program);
        monitor.args([
            "--restart-cmd",
            "true",
            "--process-pattern",
            "no process is called so",
        ]);
        monitor
            .args(["--collect-diagnostics", "--timeout", "0.5"])
            .uid(65534)
            .gid(65534);
        assert_eq!(run(&mut monitor).code(), Some(0), "{}", site.log());
        let expected = format!(
            "not visible: who listens on 127.0.0.1:{} is shown only to its owner and to root",
            site.port
        );
        let expected = hangs.then_some(expected);
        assert_eq!(site.causes().first(), expected.as_ref(), "{}", site.log());
    }
}
