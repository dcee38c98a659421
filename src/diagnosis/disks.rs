//! Disks that take no more (`statvfs(3)`). One that does not respond blocks the reader.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::snapshot::Full;
use crate::proc::process::Proc;

/// Of the working directories and those of the files, the ones whose disk has no room for others than root.
pub(super) fn full(proc: Proc, pids: impl Iterator<Item = i32>, files: &[PathBuf]) -> Vec<Full> {
    let working = pids.filter_map(|pid| std::fs::read_link(proc.path(pid, "cwd")).ok());
    let around = files
        .iter()
        .filter_map(|file| Some(file.parent()?.to_owned()));
    let mut directories: Vec<PathBuf> = working.chain(around).filter(|one| is_disk(one)).collect();
    directories.sort();
    directories.dedup();
    directories.into_iter().filter_map(state).collect()
}

fn is_disk(directory: &Path) -> bool {
    let special = ["/dev", "/proc", "/sys"];
    directory.is_absolute() && !special.iter().any(|one| directory.starts_with(one))
}

/// Whether the disk of this directory has no room for others than root.
pub(crate) fn is_full(directory: &Path) -> bool {
    state(directory.to_owned()).is_some()
}

fn state(directory: PathBuf) -> Option<Full> {
    let room = statvfs(&directory).ok()?;
    // An image that nobody writes to is always full.
    if room.flags().contains(FsFlags::ST_RDONLY) {
        return None;
    }
    let blocks = room.blocks() > 0 && room.blocks_available() == 0;
    let inodes = room.files() > 0 && room.files_available() == 0;
    (blocks || inodes).then_some(Full {
        directory,
        inodes: !blocks,
    })
}
