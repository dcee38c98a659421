//! Work that can block without end (a resolver, a process in state D, a disk that does not answer),
//! done in a thread or process that can be abandoned. Messages from such a process are lines of JSON.
//!
//! Contract for the work of `ask`, `stream` and `in_process`, which run in a fork of a process that may
//! have other threads: it reads and writes files and computes. It does not wait for another thread, log,
//! use tokio, or start a program, as a question to the name services does.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ffi;
use super::pidfd::Pidfd;
use crate::text::errno_text;

/// Time for a process to exit once it has closed its pipe.
const EXIT_TIMEOUT: Duration = Duration::from_millis(100);

/// Works in a thread of its own, for no longer than the limit; `None` when it is not done by then.
/// If no thread can be created, the work is done here, however long it takes.
pub(crate) async fn in_thread<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Clone + Send + 'static,
) -> Option<T> {
    let (answer, wait) = oneshot::channel();
    let there = work.clone();
    let thread = std::thread::Builder::new().spawn(move || answer.send(there()));
    match thread {
        Ok(_) => tokio::time::timeout(limit, wait).await.ok()?.ok(),
        Err(_) => Some(work()),
    }
}

/// How a process of ours ended that sent messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// Its work is complete.
    Done,
    /// It sent no message for longer than the stall limit, and was abandoned.
    Stalled,
    /// It was still at work when its time was up, and was abandoned.
    TimedOut,
    /// It ended before its work was complete (a panic, the OOM killer).
    Died,
}

/// Does the work in a child process and returns its answer; `None` if there was none within the
/// limit, or if the child died. `T` must not hold paths as `PathBuf`, which serde refuses where they are
/// not UTF-8 (no answer then): `OsString` holds them all.
///
/// # Errors
/// No child can be created (EAGAIN, ENOMEM, EMFILE, …): nothing was done.
pub(crate) async fn ask<T: Serialize + DeserializeOwned>(
    limit: Duration,
    work: impl FnOnce() -> T,
) -> io::Result<Option<T>> {
    let mut answer = None;
    stream(
        limit,
        limit,
        |send| send(&work()),
        |message| answer = Some(message),
    )
    .await?;
    Ok(answer)
}

/// Reads or writes a disk in a child process, as `ask` does.
///
/// # Errors
/// As a text: the work's own error, no answer within the limit, or that no child can be created.
pub(crate) async fn on_disk<T: Serialize + DeserializeOwned>(
    limit: Duration,
    work: impl FnOnce() -> io::Result<T>,
) -> Result<T, String> {
    let work = || work().map_err(|reason| errno_text(&reason));
    match ask(limit, work).await {
        Ok(Some(done)) => done,
        Ok(None) => Err("its disk does not respond".to_owned()),
        Err(reason) => Err(errno_text(&reason)),
    }
}

/// Does the work in a child process, which sends messages as it goes; `on` gets each as it comes.
/// The child is abandoned after `stall` without a message, or after `limit` in all. What is no
/// whole message is dropped.
///
/// # Errors
/// No child can be had, as for `ask`: nothing was done.
pub(crate) async fn stream<M: Serialize + DeserializeOwned>(
    stall: Duration,
    limit: Duration,
    work: impl FnOnce(&mut dyn FnMut(&M)),
    mut on: impl FnMut(M),
) -> io::Result<Ended> {
    let child = BoundedChild::start(|mut pipe| {
        work(&mut |message| {
            // One write for a whole line, so that a child that is killed cuts at most the last one.
            if let Ok(mut line) = serde_json::to_vec(message) {
                line.push(b'\n');
                let _ = pipe.write_all(&line);
            }
        });
        // An empty line, which is no JSON, says that this is all.
        let _ = pipe.write_all(b"\n");
    })?;
    let until = Instant::now() + limit;
    let mut patience = Instant::now() + stall;
    let (mut unread, mut is_complete) = (Vec::new(), false);
    loop {
        match tokio::time::timeout_at(until.min(patience), child.read()).await {
            Err(_) if Instant::now() >= until => return Ok(Ended::TimedOut),
            Err(_) => return Ok(Ended::Stalled),
            Ok(Err(_)) => return Ok(Ended::Died),
            Ok(Ok(bytes)) if bytes.is_empty() => {
                child.exited().await;
                return Ok(if is_complete {
                    Ended::Done
                } else {
                    Ended::Died
                });
            }
            Ok(Ok(bytes)) => {
                let searched = unread.len();
                unread.extend(bytes);
                let mut start = 0;
                while let Some(length) = unread[searched.max(start)..]
                    .iter()
                    .position(|byte| *byte == b'\n')
                {
                    let end = searched.max(start) + length;
                    let line = &unread[start..end];
                    is_complete = line.is_empty();
                    if let Ok(message) = serde_json::from_slice(line) {
                        on(message);
                    }
                    start = end + 1;
                }
                if start > 0 {
                    unread.drain(..start);
                    patience = Instant::now() + stall;
                }
            }
        }
    }
}

/// Does the work in a child process and returns what it has written by the limit.
///
/// # Errors
/// No child can be had, as for `ask`: nothing was done.
pub(crate) async fn in_process(
    limit: Duration,
    work: impl FnOnce(&mut dyn Write),
) -> io::Result<Vec<u8>> {
    let child = BoundedChild::start(|mut pipe| work(&mut pipe))?;
    let until = Instant::now() + limit;
    let mut written = Vec::new();
    while let Ok(Ok(bytes)) = tokio::time::timeout_at(until, child.read()).await {
        if bytes.is_empty() {
            child.exited().await;
            break;
        }
        written.extend(bytes);
    }
    Ok(written)
}

/// A child process at work, and the pipe that it writes to. Dropped, it is killed: one that cannot
/// end now (state D) is init's once we have ended, and has no descriptor of ours.
#[derive(Debug)]
struct BoundedChild {
    pid: Pid,
    pidfd: Pidfd,
    pipe: pipe::Receiver,
}

impl BoundedChild {
    fn start(work: impl FnOnce(File)) -> io::Result<Self> {
        let (reader, writer): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
        // All that can fail comes before the fork: nothing is done twice.
        let pipe = pipe::Receiver::from_owned_fd(reader)?;
        #[allow(
            unsafe_code,
            reason = "the contract is stated and kept by this module's callers"
        )]
        // SAFETY: this module's contract is that of `fork`.
        let pid = unsafe { ffi::fork(writer, |writer| work(File::from(writer))) }?;
        let pidfd = Pidfd::of(pid.as_raw());
        Ok(Self { pid, pidfd, pipe })
    }

    /// Waits for bytes; none when the pipe is closed.
    async fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 64 << 10];
        loop {
            self.pipe.readable().await?;
            match self.pipe.try_read(&mut bytes) {
                Ok(count) => {
                    bytes.truncate(count);
                    return Ok(bytes);
                }
                Err(reason) if reason.kind() == io::ErrorKind::WouldBlock => (),
                Err(reason) => return Err(reason),
            }
        }
    }

    /// Waits for the process to exit, unless one of its threads is stuck.
    async fn exited(&self) {
        let _ = tokio::time::timeout(EXIT_TIMEOUT, self.pidfd.near()).await;
    }
}

impl Drop for BoundedChild {
    fn drop(&mut self) {
        let ended = || waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
        // ECHILD: our parent left SIGCHLD ignored, and the PID may be another process's by now.
        if matches!(ended(), Ok(WaitStatus::StillAlive) | Err(Errno::EINTR)) {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = ended();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);
    /// Enough for a process to begin its work, also on a busy machine.
    const BEGUN: Duration = Duration::from_secs(1);

    #[tokio::test(flavor = "current_thread")]
    async fn what_takes_too_long_is_left_behind() {
        let began = Instant::now();
        assert_eq!(in_thread(LONG, || 7).await, Some(7));
        let held = in_thread(SHORT, || std::thread::sleep(LONG)).await;
        assert_eq!(held, None);
        let said = in_process(LONG, |out| out.write_all(b"said").unwrap()).await;
        assert_eq!(said.unwrap(), b"said");
        let begun = in_process(BEGUN, |out| {
            out.write_all(b"begun").unwrap();
            std::thread::sleep(LONG);
        });
        assert_eq!(begun.await.unwrap(), b"begun");
        assert!(began.elapsed() < LONG);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_answer_comes_whole_or_not_at_all() {
        assert_eq!(ask(LONG, || Some(7)).await.unwrap(), Some(Some(7)));
        assert_eq!(ask(LONG, || None::<u32>).await.unwrap(), Some(None));
        let lines = vec!["a\nb".to_owned(), String::new(), "x".repeat(300_000)];
        assert_eq!(ask(LONG, || lines.clone()).await.unwrap(), Some(lines));
        let slow = || std::thread::sleep(LONG);
        assert_eq!(ask(SHORT, slow).await.unwrap(), None);
        let died = || -> u32 { nix::sys::signal::raise(Signal::SIGKILL).map_or(1, |()| 2) };
        assert_eq!(ask(LONG, died).await.unwrap(), None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn work_on_a_disk_says_why_it_was_not_done() {
        assert_eq!(on_disk(LONG, || Ok(7)).await, Ok(7));
        let full = || Err::<(), _>(io::Error::from(Errno::ENOSPC));
        let reason = "No space left on device".to_owned();
        assert_eq!(on_disk(LONG, full).await, Err(reason));
        let slow = || {
            std::thread::sleep(LONG);
            Ok(())
        };
        let reason = "its disk does not respond".to_owned();
        assert_eq!(on_disk(SHORT, slow).await, Err(reason));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn messages_count_as_they_come_and_the_end_has_a_name() {
        type Send<'a> = &'a mut dyn FnMut(&u32);
        let told = async |stall, limit, work: fn(Send<'_>)| {
            let mut told = Vec::new();
            let ended = stream(stall, limit, work, |message| told.push(message)).await;
            (ended.unwrap(), told)
        };
        let count = |send: Send<'_>| (1..=3).for_each(send_by_reference(send));
        assert_eq!(told(LONG, LONG, count).await, (Ended::Done, vec![1, 2, 3]));
        assert_eq!(told(LONG, LONG, |_| ()).await, (Ended::Done, vec![]));
        let stalls = |send: Send<'_>| {
            send(&1);
            std::thread::sleep(LONG);
        };
        assert_eq!(told(BEGUN, LONG, stalls).await, (Ended::Stalled, vec![1]));
        let (ended, many) = told(LONG, SHORT, |send| {
            (0..u32::MAX).for_each(send_by_reference(send));
        })
        .await;
        assert_eq!(ended, Ended::TimedOut);
        assert!(
            many.iter()
                .copied()
                .eq(0..u32::try_from(many.len()).unwrap())
        );
        let dies = |send: Send<'_>| {
            send(&1);
            let _ = nix::sys::signal::raise(Signal::SIGKILL);
        };
        assert_eq!(told(LONG, LONG, dies).await, (Ended::Died, vec![1]));
    }

    fn send_by_reference(send: &mut dyn FnMut(&u32)) -> impl FnMut(u32) {
        move |number| send(&number)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_no_whole_message_is_dropped() {
        let work = |send: &mut dyn FnMut(&String)| {
            send(&"whole".to_owned());
            // The child's pipe is its only other descriptor.
            let directory = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            let links = directory.filter_map(|one| {
                let is_pipe = std::fs::read_link(one.path())
                    .ok()?
                    .to_str()?
                    .starts_with("pipe:");
                is_pipe.then(|| one.path())
            });
            for pipe in links.collect::<Vec<_>>() {
                let mut pipe = File::options().write(true).open(pipe).unwrap();
                pipe.write_all(b"[1]\n\"cut").unwrap();
            }
            let _ = nix::sys::signal::raise(Signal::SIGKILL);
        };
        let mut told = Vec::new();
        let ended = stream(LONG, LONG, work, |message: String| told.push(message)).await;
        assert_eq!(ended.unwrap(), Ended::Died);
        assert_eq!(told, ["whole"]);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn more_than_a_pipe_holds_comes_through() {
        let said = in_process(LONG, |out| out.write_all(&vec![b'x'; 300_000]).unwrap()).await;
        assert_eq!(said.unwrap().len(), 300_000);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_process_that_is_left_behind_holds_none_of_our_files() {
        let file = tempfile::tempfile().unwrap();
        let locked = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).unwrap();
        let listed = in_process(LONG, |out| {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            let links = open.filter_map(|one| std::fs::read_link(one.path()).ok());
            for link in links {
                writeln!(out, "{}", link.display()).unwrap();
            }
        });
        let listed = String::from_utf8(listed.await.unwrap()).unwrap();
        drop(locked);
        let expected = |link: &&str| {
            !(*link == "/dev/null" || link.starts_with("pipe:") || link.starts_with("/proc/"))
        };
        assert_eq!(listed.lines().find(expected), None, "{listed}");
    }
}
