//! Limits that a process is at or near the end of: memory and threads of its control group
//! (Documentation/admin-guide/cgroup-v2.rst, v1 too) and of its user (`getrlimit(2)`).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::parse::number_after;
use super::process::Proc;

/// How much of something that is limited is in use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Limit {
    pub(crate) kind: LimitKind,
    pub(crate) used: u64,
    pub(crate) most: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LimitKind {
    /// Bytes of memory of its control group.
    GroupMemory,
    /// Threads of its control group.
    GroupThreads,
    /// Threads of its user (`RLIMIT_NPROC`).
    UserThreads,
}

/// Percent of its limit at which memory is near its end.
const NEAR: u64 = 98;

/// Where one kind of limit is kept.
struct Kept {
    kind: LimitKind,
    /// The controller's name in version 1, and its directory there.
    controller: &'static str,
    /// The files of use and limit in versions 2 and 1.
    files: [(&'static str, &'static str); 2],
}

const KEPT: [Kept; 2] = [
    Kept {
        kind: LimitKind::GroupMemory,
        controller: "memory",
        files: [
            ("memory.current", "memory.max"),
            ("memory.usage_in_bytes", "memory.limit_in_bytes"),
        ],
    },
    Kept {
        kind: LimitKind::GroupThreads,
        controller: "pids",
        files: [("pids.current", "pids.max"), ("pids.current", "pids.max")],
    },
];

/// The limits that a process is near, by its `status` and `limits` (`proc(5)`).
pub(crate) fn near(proc: Proc, pid: i32, status: &str, rlimits: &str) -> Vec<Limit> {
    let groups = std::fs::read_to_string(proc.path(pid, "cgroup")).unwrap_or_default();
    let mut near: Vec<Limit> = KEPT
        .iter()
        .filter_map(|kept| of_group(kept, &groups, Path::new("/sys/fs/cgroup")))
        .collect();
    let user: Option<u32> = number_after(status, "Uid:");
    // Root is not held to it.
    if let (Some(user @ 1..), Some(most)) = (user, number_after(rlimits, "Max processes")) {
        let used = threads_of_user(Path::new("/proc"), user);
        if used >= most {
            near.push(Limit {
                kind: LimitKind::UserThreads,
                used,
                most,
            });
        }
    }
    near
}

/// The limit of a process's group, or of one above it: each holds for all below.
fn of_group(kept: &Kept, groups: &str, root: &Path) -> Option<Limit> {
    let (directory, (used, most)) = directory(kept, groups, root)?;
    let groups = directory
        .ancestors()
        .take_while(|group| group.starts_with(root));
    groups
        .filter_map(|group| {
            let used: u64 = number_in(&group.join(used))?;
            Some(Limit {
                kind: kept.kind,
                used: used.saturating_sub(cached(kept, group)),
                most: number_in(&group.join(most))?,
            })
        })
        .find(|limit| match kept.kind {
            LimitKind::GroupMemory => limit.used >= limit.most / 100 * NEAR,
            _ => limit.used >= limit.most,
        })
}

/// What of a group's memory the kernel can have back at any time: files that nobody uses.
fn cached(kept: &Kept, group: &Path) -> u64 {
    if kept.kind != LimitKind::GroupMemory {
        return 0;
    }
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let mut lines = stat.lines();
    let line = lines.find_map(|line| line.strip_prefix("inactive_file "));
    line.and_then(|bytes| bytes.parse().ok())
        .unwrap_or_default()
}

/// A line of /proc/PID/cgroup is `0::/path` in version 2, `NUMBER:CONTROLLERS:/path` in version 1.
fn directory(
    kept: &Kept,
    groups: &str,
    root: &Path,
) -> Option<(PathBuf, (&'static str, &'static str))> {
    let [two, one] = kept.files;
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            let directory = root.join(path);
            directory.join(two.0).exists().then_some((directory, two))
        } else {
            let named = controllers.split(',').any(|name| name == kept.controller);
            named.then(|| (root.join(kept.controller).join(path), one))
        }
    })
}

fn number_in<T: FromStr>(path: &Path) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// How many threads all processes of a user have.
fn threads_of_user(proc: &Path, user: u32) -> u64 {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let processes = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
            && entry
                .metadata()
                .is_ok_and(|metadata| metadata.uid() == user)
    });
    // A link for each thread, and two of the directory's own.
    let threads = processes.filter_map(|entry| std::fs::metadata(entry.path().join("task")).ok());
    threads.map(|task| task.nlink().saturating_sub(2)).sum()
}

/// The control group of a process (version 2, `cgroups(7)`).
pub(crate) fn of(pid: i32) -> Option<String> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(group.to_owned())
}

/// How many processes of a control group the OOM killer has ended (`memory.events`).
pub(crate) fn oom_kills(group: &str) -> Option<u64> {
    let events = std::fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.events")).ok()?;
    let count = events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?;
    count.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, linear};

    #[test]
    fn the_limit_of_a_group_or_of_one_above_it_counts() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let [memory, pids] = &KEPT;
        let two = "0::/site/myvnc.service\n";
        write("site/myvnc.service/memory.current", "990\n");
        write("site/myvnc.service/memory.max", "1000\n");
        let limit = |kind, used, most| Some(Limit { kind, used, most });
        let found = of_group(memory, two, root);
        assert_eq!(found, limit(LimitKind::GroupMemory, 990, 1000));
        write(
            "site/myvnc.service/memory.stat",
            "anon 1\ninactive_file 500\n",
        );
        assert_eq!(of_group(memory, two, root), None);
        write("site/myvnc.service/memory.max", "max\n");
        assert_eq!(of_group(memory, two, root), None);
        write("site/memory.current", "5000\n");
        write("site/memory.max", "5000\n");
        let found = of_group(memory, two, root);
        assert_eq!(found, limit(LimitKind::GroupMemory, 5000, 5000));
        write("site/myvnc.service/pids.current", "9\n");
        write("site/myvnc.service/pids.max", "10\n");
        assert_eq!(of_group(pids, two, root), None);
        write("site/myvnc.service/pids.current", "10\n");
        let found = of_group(pids, two, root);
        assert_eq!(found, limit(LimitKind::GroupThreads, 10, 10));
        let one = "5:cpu,cpuacct:/x\n4:memory:/old\n0::/\n";
        write("memory/old/memory.usage_in_bytes", "99\n");
        write("memory/old/memory.limit_in_bytes", "100\n");
        let found = of_group(memory, one, root);
        assert_eq!(found, limit(LimitKind::GroupMemory, 99, 100));
        assert_eq!(of_group(memory, "", root), None);
    }

    #[test]
    fn the_threads_of_a_user_are_counted() {
        let proc = tempfile::tempdir().unwrap();
        for thread in [
            "7/task/7",
            "7/task/8",
            "7/task/9",
            "12/task/12",
            "self/task/7",
        ] {
            std::fs::create_dir_all(proc.path().join(thread)).unwrap();
        }
        let user = std::fs::metadata(proc.path()).unwrap().uid();
        assert_eq!(threads_of_user(proc.path(), user), 4);
        assert_eq!(threads_of_user(proc.path(), user + 1), 0);
    }

    #[test]
    fn fuzz_proc_parsers_cgroup() {
        let root = tempfile::tempdir().unwrap();
        let seeds: [&[u8]; 2] = [
            b"0::/system.slice/my vnc.service\n",
            b"9:cpu,cpuacct:/x\n4:memory:/old\n0::/\n",
        ];
        let target = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            for kept in &KEPT {
                directory(kept, &text, root.path());
            }
        };
        fuzz(&seeds, target);
        linear(|size| b"1:memory,x:/\n".repeat(size / 13), target);
    }
}
