//! Work that may be held for ever, by a resolver, a process in state D or a disk that does not
//! answer: done where it can be left behind.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::pipe2;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::ffi;
use super::pidfd::Pidfd;

/// Between what a process has said and its end.
const LAST_BREATH: Duration = Duration::from_millis(100);

/// Works in a thread of its own, for no longer than the limit; `None` when it is not done by then.
/// Where no thread can be had, it is done here, however long it takes.
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

/// Works in a process of its own, for no longer than the limit, and returns what it has written by
/// then. A thread that a disk holds would keep us from ending; a process does not. Fails where no
/// process can be had.
pub(crate) async fn in_process(
    limit: Duration,
    work: impl FnOnce(&mut dyn Write),
) -> io::Result<Vec<u8>> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let child = ffi::fork(writer, |writer| work(&mut File::from(writer)))?;
    let exit = Pidfd::of(child.as_raw());
    let mut written = Vec::new();
    let reading = async {
        let output = pipe::Receiver::from_owned_fd(reader)?;
        let mut bytes = vec![0; 4096];
        loop {
            output.readable().await?;
            match output.try_read(&mut bytes) {
                Ok(0) => {
                    // It ends now, unless a thread of it is held.
                    let _ = tokio::time::timeout(LAST_BREATH, exit.near()).await;
                    return Ok(());
                }
                Ok(count) => written.extend(&bytes[..count]),
                Err(reason) if reason.kind() == io::ErrorKind::WouldBlock => (),
                Err(reason) => return Err(reason),
            }
        }
    };
    let ended: Result<io::Result<()>, _> = tokio::time::timeout(limit, reading).await;
    // One that cannot end now is init's once we have ended.
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
    match ended {
        Ok(Err(reason)) => Err(reason),
        Ok(Ok(())) | Err(_) => Ok(written),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test(flavor = "current_thread")]
    async fn what_takes_too_long_is_left_behind() {
        let began = Instant::now();
        assert_eq!(in_thread(LONG, || 7).await, Some(7));
        let held = in_thread(SHORT, || std::thread::sleep(LONG)).await;
        assert_eq!(held, None);
        let said = in_process(LONG, |out| out.write_all(b"said").unwrap()).await;
        assert_eq!(said.unwrap(), b"said");
        let begun = in_process(SHORT, |out| {
            out.write_all(b"begun").unwrap();
            std::thread::sleep(LONG);
        });
        assert_eq!(begun.await.unwrap(), b"begun");
        assert!(began.elapsed() < LONG);
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
