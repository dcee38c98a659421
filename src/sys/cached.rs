//! Opens and reads files without waiting for a disk or another machine: if it is dead, the wait has no end.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

/// Local file systems, where reading an open file and its times does not wait for another machine
/// (statfs(2)): tmpfs, ramfs, overlayfs, ext4, XFS, Btrfs, ZFS.
const LOCAL: [i64; 7] = [
    0x0102_1994,
    0x8584_58f6,
    0x794c_7630,
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0x2fc1_2fc1,
];

/// Opens what the kernel has in its memory (`RESOLVE_CACHED` of openat2(2)).
///
/// # Errors
/// As openat2(2): EAGAIN where a disk would have to be asked; ENOSYS, EINVAL or EPERM where the kernel or a container
/// knows no such call.
pub(crate) fn open(directory: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(directory, path, flags, Mode::empty(), ResolveFlags::CACHED)
}

/// Reads from the beginning of a file what the page cache has (`RWF_NOWAIT` of preadv2(2)); the number of bytes.
///
/// # Errors
/// As preadv2(2): EAGAIN where a disk would have to be asked; EOPNOTSUPP, EINVAL, ENOSYS or EPERM where the file
/// system, the kernel or a container knows no such flag or call.
pub(crate) fn read(file: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut buffers = [IoSliceMut::new(buffer)];
    rustix::io::preadv2(file, &mut buffers, 0, ReadWriteFlags::NOWAIT)
}

/// The same, for what every run reads: where nothing knows the flag, a file of a local file system is read without it,
/// because a child process for each would cost more than the check. That can wait for a disk of this machine.
///
/// # Errors
/// As `read`.
pub(crate) fn read_or_local(file: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    match read(&file, buffer) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) if is_local(&file) => {
            rustix::io::pread(&file, buffer, 0)
        }
        read => read,
    }
}

fn is_local(file: impl AsFd) -> bool {
    #[allow(
        clippy::useless_conversion,
        reason = "its width depends on the architecture"
    )]
    rustix::fs::fstatfs(file)
        .is_ok_and(|disk| i64::try_from(disk.f_type).is_ok_and(|kind| LOCAL.contains(&kind)))
}
