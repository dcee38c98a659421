//! Who has a socket, or the other end of a pipe: the descriptors of all processes, read once.

use std::collections::HashMap;
use std::time::Instant;

use procfs::ProcError;
use procfs::process::FDInfo;

use super::process::{Descriptor, MOST_DESCRIPTORS, Proc};

/// What descriptors can refer to, as far as it is looked for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum PipeOrSocket {
    Socket(u64),
    /// An end of a pipe: that which is read from, or that which is written to.
    Pipe(u64, End),
}

/// An end of a pipe.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum End {
    Read,
    Write,
}

/// The holders of sockets and pipes.
#[derive(Debug)]
pub(crate) struct FdOwners<'a> {
    proc: Proc<'a>,
    end: Instant,
    everybody: Option<HashMap<PipeOrSocket, Vec<i32>>>,
}

impl<'a> FdOwners<'a> {
    /// Looks through other processes until then and no longer.
    pub(crate) fn until(proc: Proc<'a>, end: Instant) -> Self {
        Self {
            proc,
            end,
            everybody: None,
        }
    }

    /// Who has this socket, asked of these first.
    pub(crate) fn of_socket(&mut self, inode: u64, first: &[i32]) -> Option<i32> {
        self.all(PipeOrSocket::Socket(inode), first)
            .first()
            .copied()
    }

    /// Who has that end of this pipe, asked of these first.
    pub(crate) fn of_pipe(&mut self, inode: u64, end: End, first: &[i32]) -> Vec<i32> {
        self.all(PipeOrSocket::Pipe(inode, end), first)
    }

    fn all(&mut self, wanted: PipeOrSocket, first: &[i32]) -> Vec<i32> {
        let near = first.iter().copied();
        let near: Vec<i32> = near.filter(|pid| has(self.proc, *pid, wanted)).collect();
        if !near.is_empty() {
            return near;
        }
        let (proc, end) = (self.proc, self.end);
        let everybody = self.everybody.get_or_insert_with(|| everybody(proc, end));
        everybody.get(&wanted).cloned().unwrap_or_default()
    }
}

/// Until `end`, the lowest descriptors of each process first: one that has very many does not hide the others.
fn everybody(proc: Proc, end: Instant) -> HashMap<PipeOrSocket, Vec<i32>> {
    let mut holders: HashMap<PipeOrSocket, Vec<i32>> = HashMap::new();
    let mut pids = proc.pids().unwrap_or_default();
    for most in [MOST_DESCRIPTORS, usize::MAX] {
        let mut crowded = Vec::new();
        for pid in pids {
            if Instant::now() >= end {
                return holders;
            }
            let mut count = 0;
            let visit = |one: &Descriptor| {
                for held in what_it_refers_to(one) {
                    let by = holders.entry(held).or_default();
                    if !by.contains(&pid) {
                        by.push(pid);
                    }
                }
                count += 1;
                count < most && Instant::now() < end
            };
            if proc.each_descriptor(pid, visit).is_ok() && count == most {
                crowded.push(pid);
            }
        }
        pids = crowded;
    }
    holders
}

fn has(proc: Proc, pid: i32, wanted: PipeOrSocket) -> bool {
    let mut has_it = false;
    let visit = |one: &Descriptor| {
        has_it = what_it_refers_to(one).contains(&wanted);
        !has_it
    };
    proc.each_descriptor(pid, visit).is_ok() && has_it
}

fn what_it_refers_to(one: &Descriptor) -> Vec<PipeOrSocket> {
    if let Some(inode) = one.socket() {
        return vec![PipeOrSocket::Socket(inode)];
    }
    let Some(inode) = one.pipe() else {
        return Vec::new();
    };
    let (is_read, is_written) = one.access();
    let ends = [(is_read, End::Read), (is_written, End::Write)];
    let held = ends.into_iter().filter(|(is_held, _)| *is_held);
    held.map(|(_, end)| PipeOrSocket::Pipe(inode, end))
        .collect()
}

/// What a process's descriptors are; none where we may not see them. One that is closed
/// meanwhile is no reason to see none.
pub(crate) fn descriptors(proc: Proc, pid: i32) -> Option<Vec<FDInfo>> {
    let open = descriptors_of(proc, pid);
    // A first thread that has ended has none.
    if open.as_ref().is_none_or(Vec::is_empty) {
        if let Some(thread) = proc.living_thread(pid) {
            return descriptors_of(proc, thread);
        }
    }
    open
}

fn descriptors_of(proc: Proc, pid: i32) -> Option<Vec<FDInfo>> {
    let mut open = Vec::new();
    for one in procfs::process::Process::new_with_root(proc.0.join(pid.to_string()))
        .ok()?
        .fd()
        .ok()?
    {
        match one {
            Ok(one) => open.push(one),
            Err(ProcError::PermissionDenied(_)) => return None,
            Err(_) => (),
        }
    }
    Some(open)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;

    fn inode(descriptor: &impl AsRawFd) -> u64 {
        let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let link = std::fs::read_link(link).unwrap();
        let digits = link
            .to_str()
            .unwrap()
            .trim_matches(|c: char| !c.is_ascii_digit());
        digits.parse().unwrap()
    }

    #[test]
    fn each_end_of_a_pipe_has_its_holders() {
        let ours = nix::unistd::getpid().as_raw();
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pipe = inode(child.stdin.as_ref().unwrap());
        let mut holders = FdOwners::until(Proc::here(), Instant::now() + Duration::from_secs(60));
        assert_eq!(holders.of_pipe(pipe, End::Read, &[]), [pid]);
        assert_eq!(holders.of_pipe(pipe, End::Write, &[]), [ours]);
        assert_eq!(holders.of_pipe(pipe, End::Write, &[pid, ours]), [ours]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(holders.of_socket(inode(&listener), &[ours]), Some(ours));
        let mut late = FdOwners::until(Proc::here(), Instant::now());
        assert_eq!(late.of_socket(inode(&listener), &[]), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
