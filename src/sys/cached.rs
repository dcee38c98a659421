//! Opens, reads and writes files without waiting for a disk or another machine: if it is dead, the wait has no end.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

/// File systems without a disk (statfs(2)): tmpfs, ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Opens what the kernel has in its memory (`RESOLVE_CACHED` of openat2(2)).
///
/// # Errors
/// As openat2(2): EAGAIN where a disk would have to be asked; ENOSYS, EINVAL or EPERM where the kernel or a container
/// knows no such call.
pub(crate) fn open(directory: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(directory, path, flags, Mode::empty(), ResolveFlags::CACHED)
}

/// Reads from the beginning of a file what the page cache has (`RWF_NOWAIT` of preadv2(2)); the number of bytes. Where
/// nothing knows the flag, it reads files of file systems without a disk.
///
/// # Errors
/// As preadv2(2): EAGAIN where a disk would have to be asked; EOPNOTSUPP, EINVAL, ENOSYS or EPERM where the file
/// system, the kernel or a container knows no such flag or call.
pub(crate) fn read(file: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut buffers = [IoSliceMut::new(buffer)];
    match rustix::io::preadv2(&file, &mut buffers, 0, ReadWriteFlags::NOWAIT) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) if in_memory(&file) => {
            rustix::io::pread(&file, buffer, 0)
        }
        read => read,
    }
}

/// The device of a file (st_dev of stat(2)).
pub(crate) fn device(file: impl AsFd) -> Option<u64> {
    rustix::fs::fstat(file).ok().map(|stat| stat.st_dev)
}

/// Whether writing to a file of the page cache, which is on `device`, waits for no other disk than that of `log`. A write waits for a
/// file system that is frozen (FIFREEZE of ioctl_fs(2)), or whose disk is dead, whatever the page cache holds.
pub(crate) fn writes_at_once(file: impl AsFd, device: u64, log: Option<u64>) -> bool {
    log == Some(device) || in_memory(file)
}

fn in_memory(file: impl AsFd) -> bool {
    #[allow(
        clippy::useless_conversion,
        reason = "its width depends on the architecture"
    )]
    rustix::fs::fstatfs(file)
        .is_ok_and(|disk| i64::try_from(disk.f_type).is_ok_and(|kind| IN_MEMORY.contains(&kind)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use nix::libc;

    use super::*;
    use crate::refused::where_refused;

    /// What is read where no kernel knows preadv2(2).
    fn read_without_the_call(file: &File) -> Result<usize, Errno> {
        where_refused(&[libc::SYS_preadv2], libc::ENOSYS, || {
            read(file, &mut [0; 8])
        })
    }

    #[test]
    fn without_the_call_only_files_in_memory_are_read() {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut memory = File::from(rustix::fs::memfd_create("state", flags).unwrap());
        memory.write_all(b"text").unwrap();
        assert_eq!(read_without_the_call(&memory), Ok(4));
        let other = File::open("/proc/self/stat").unwrap();
        assert_eq!(read_without_the_call(&other), Err(Errno::NOSYS));
    }

    #[test]
    fn only_the_disk_of_the_log_is_waited_for() {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let memory = rustix::fs::memfd_create("state", flags).unwrap();
        let file = File::open("/proc/self/stat").unwrap();
        let device = device(&file).unwrap();
        let other = Some(device + 1);
        assert!(writes_at_once(&file, device, Some(device)));
        assert!(writes_at_once(&memory, device, other) && writes_at_once(&memory, device, None));
        assert!(!writes_at_once(&file, device, other) && !writes_at_once(&file, device, None));
    }
}
