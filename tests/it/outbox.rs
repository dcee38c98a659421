//! The monitor is killed at every system call that concerns the outbox: no event is lost, at most one is repeated, and
//! the order stays.
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::notify::{monitor, noted, noting, state_file};
use crate::rig::{Site, run, wait_until};

/// Calls that change something.
const WRITES: [i64; 10] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_write,
    libc::SYS_renameat2,
    libc::SYS_renameat,
    libc::SYS_unlinkat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
];

/// Whom the kill meets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Victims {
    /// The monitor; its child goes on.
    Monitor,
    /// The child at work too.
    Both,
}

/// Runs the monitor, and kills it before the call of that number, from 0; whether there was such a call.
fn killed_at(command: &mut Command, number: usize, victims: Victims) -> bool {
    // SAFETY: between fork and exec only a system call is made.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| Ok(ptrace::traceme()?));
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let main = Pid::from_raw(i32::try_from(child.spawn().unwrap().id()).unwrap());
    // Children of other threads are other tests'.
    let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    assert!(matches!(
        waitpid(main, Some(flags)),
        Ok(WaitStatus::Stopped(..))
    ));
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::setoptions(main, options).unwrap();
    ptrace::syscall(main, None).unwrap();
    // Of each process: whether it is within a call, and whether it has opened the outbox.
    let mut traced: HashMap<Pid, (bool, bool)> = HashMap::new();
    let (mut count, mut is_killed, mut is_over) = (0, false, false);
    loop {
        let status = match waitpid(None, Some(flags)) {
            Ok(status) => status,
            Err(Errno::EINTR) => continue,
            Err(_) => return is_killed,
        };
        let pid = status.pid().unwrap();
        let mut signal = None;
        match status {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                traced.remove(&pid);
                // This thread can have other children: a server.
                is_over |= pid == main;
                if is_over && traced.is_empty() {
                    return is_killed;
                }
                continue;
            }
            WaitStatus::PtraceSyscall(_) => {
                let (is_inside, works) = traced.entry(pid).or_default();
                *is_inside = !*is_inside;
                if *is_inside {
                    let Ok(registers) = ptrace::getregs(pid) else {
                        continue;
                    };
                    let call = i64::try_from(registers.orig_rax).unwrap_or(-1);
                    let path = match call {
                        libc::SYS_openat => text(pid, registers.rsi),
                        libc::SYS_open | libc::SYS_mkdir | libc::SYS_rmdir => {
                            text(pid, registers.rdi)
                        }
                        _ => String::new(),
                    };
                    *works |= path.ends_with(".outbox") && pid != main;
                    if *works && WRITES.contains(&call) && !is_killed {
                        if count == number {
                            is_killed = true;
                            let _ = kill(main, Signal::SIGKILL);
                            if victims == Victims::Both {
                                let _ = kill(pid, Signal::SIGKILL);
                            }
                        }
                        count += 1;
                    }
                }
            }
            // The commands are no part of the monitor.
            WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_EXEC) if pid != main => {
                let _ = ptrace::detach(pid, None);
                traced.remove(&pid);
                continue;
            }
            WaitStatus::Stopped(_, Signal::SIGSTOP) => (),
            WaitStatus::Stopped(_, Signal::SIGTRAP) => (),
            WaitStatus::Stopped(_, other) => signal = Some(other),
            _ => (),
        }
        let _ = ptrace::syscall(pid, signal);
    }
}

/// The text at that address of a process.
fn text(pid: Pid, address: u64) -> String {
    let mut bytes = [0; 300];
    let memory = File::open(format!("/proc/{pid}/mem"));
    let read = memory.and_then(|memory| memory.read_at(&mut bytes, address));
    let text = bytes[..read.unwrap_or(0)].split(|byte| *byte == 0);
    text.into_iter()
        .next()
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .unwrap_or_default()
}

/// The events without the ones that repeat the one before.
fn without_repeats(events: &[(String, String)]) -> (Vec<&str>, usize) {
    let mut names: Vec<&str> = events.iter().map(|(event, _)| event.as_str()).collect();
    let all = names.len();
    names.dedup();
    let repeats = all - names.len();
    (names, repeats)
}

/// Kills a run at each call, until there are no more; then the runs that `after` makes hand over what waits.
fn at_every_call(
    before: impl Fn(&Site),
    run_of: impl Fn(&Site) -> Command,
    after: impl Fn(&Site, &str),
) {
    for victims in [Victims::Monitor, Victims::Both] {
        for number in 0.. {
            assert!(number < 200, "no end");
            let site = Site::new("");
            before(&site);
            let is_killed = killed_at(&mut run_of(&site), number, victims);
            // A child that was left behind finishes its work.
            wait_until("nothing is being written", || {
                let files = fs::read_dir(state_file(&site, "outbox"));
                let mut names = files.into_iter().flatten().flatten();
                victims == Victims::Both
                    || !names.any(|one| one.path().extension().is_some_and(|it| it == "tmp"))
            });
            after(&site, &format!("{victims:?} at call {number}"));
            if !is_killed {
                assert!(number >= 5, "too few calls were seen: {number}");
                break;
            }
        }
    }
}

#[test]
fn an_outage_is_told_when_the_monitor_is_killed_at_any_write() {
    at_every_call(
        |_| (),
        |site| monitor(site, "fail", &noting(site)),
        |site, what| {
            for _ in 0..2 {
                assert_eq!(
                    run(&mut monitor(site, "fail", &noting(site))).code(),
                    Some(1)
                );
            }
            assert_eq!(
                run(&mut monitor(site, "start", &noting(site))).code(),
                Some(0)
            );
            let events = noted(site);
            let (names, repeats) = without_repeats(&events);
            assert_eq!(
                names,
                ["failed", "recovered"],
                "{what}: {events:?}\n{}",
                site.log()
            );
            assert!(repeats <= 1, "{what}: {events:?}");
        },
    );
}

#[test]
fn a_restart_is_told_when_the_monitor_is_killed_at_any_write() {
    at_every_call(
        |_| (),
        |site| monitor(site, "start", &noting(site)),
        |site, what| {
            for _ in 0..2 {
                assert_eq!(
                    run(&mut monitor(site, "start", &noting(site))).code(),
                    Some(0)
                );
            }
            let events = noted(site);
            let (names, repeats) = without_repeats(&events);
            let told = [
                &["restarted"][..],
                &["recovered"],
                &["restarted", "recovered"],
            ];
            assert!(
                told.contains(&names.as_slice()),
                "{what}: {events:?}\n{}",
                site.log()
            );
            assert!(names.len() + repeats <= 2, "{what}: {events:?}");
            let key = &events[0].1;
            assert!(
                events.iter().all(|(_, other)| other == key),
                "{what}: {events:?}"
            );
        },
    );
}

#[test]
fn what_waits_is_told_in_order_when_the_monitor_is_killed_at_any_write() {
    at_every_call(
        |site| {
            for (verb, code) in [("fail", 1), ("start", 0)] {
                assert_eq!(run(&mut monitor(site, verb, "exit 1")).code(), Some(code));
            }
        },
        |site| monitor(site, "start", &noting(site)),
        |site, what| {
            for _ in 0..2 {
                assert_eq!(
                    run(&mut monitor(site, "start", &noting(site))).code(),
                    Some(0)
                );
            }
            let events = noted(site);
            let (names, repeats) = without_repeats(&events);
            assert_eq!(names, ["failed", "recovered"], "{what}: {events:?}");
            assert!(repeats <= 1, "{what}: {events:?}");
            assert!(!state_file(site, "outbox").exists(), "{what}");
        },
    );
}

#[test]
fn a_server_that_was_unwedged_is_told_of_also_when_the_monitor_is_killed_before_the_first_write() {
    for is_killed in [false, true] {
        let (site, server) = Site::hung("hang = child\nhang-for = /jobs");
        let mut unwedging = monitor(&site, "start", &noting(&site));
        unwedging.arg("--unwedge");
        assert_eq!(run(&mut unwedging).code(), Some(0), "it is known now");
        let mut client = site.idle_client();
        client.write_all(b"GET /jobs HTTP/1.0\r\n\r\n").unwrap();
        wait_until("it has a child", || {
            let children = format!("/proc/{0}/task/{0}/children", server.pid);
            !fs::read_to_string(children).unwrap().trim().is_empty()
        });
        if is_killed {
            let mut traced = monitor(&site, "start", &noting(&site));
            assert!(killed_at(traced.arg("--unwedge"), 0, Victims::Both));
            assert!(noted(&site).is_empty());
        }
        assert_eq!(run(&mut unwedging).code(), Some(0));
        let events = noted(&site);
        let expected = if is_killed { "recovered" } else { "unwedged" };
        assert_eq!(events.len(), 1, "{events:?}\n{}", site.log());
        assert_eq!(events[0].0, expected, "{}", site.log());
    }
}
