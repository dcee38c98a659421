//! Opens files of the state directory that are changed in place, and says whose they may be.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Mode of the state directory, and of directories in it.
pub(crate) const DIRECTORY_MODE: u32 = 0o700;
/// So often a file is opened again that others make and remove meanwhile.
const MOST_TRIES: u32 = 10;

/// Opens a file that is there. It may be no link, and a FIFO in its place holds nobody.
///
/// # Errors
/// It cannot be opened, is not a regular file, or belongs to somebody other than root and us; also one that is to be
/// written to and has another name: whoever owns the directory can have made that one of root's files.
pub(super) fn open(path: &Path, access: OFlags) -> io::Result<(File, Stat)> {
    let file = File::from(rustix::fs::open(path, flags(access), Mode::empty())?);
    let stat = check(&file)?;
    let links = stat.st_nlink;
    if links > 1 && access.intersects(OFlags::WRONLY | OFlags::RDWR) {
        let reason = format!("the file has {links} names (hard links)");
        return Err(io::Error::other(reason));
    }
    Ok((file, stat))
}

/// Opens a file, and makes it and its directory if they are missing. What root makes in somebody
/// else's directory belongs to that user.
///
/// # Errors
/// As for `open`; also when it cannot be made.
pub(super) fn open_or_make(path: &Path, access: OFlags, mode: u32) -> io::Result<(File, Stat)> {
    for _ in 0..MOST_TRIES {
        match open(path, access) {
            Err(reason) if reason.kind() == io::ErrorKind::NotFound => (),
            opened => return opened,
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        make_directory(directory)?;
        let new = flags(access) | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::from_raw_mode(mode);
        match rustix::fs::open(path, new, mode) {
            Ok(file) => {
                let file = File::from(file);
                // A umask must not make it unreadable for the runs of the directory's owner.
                rustix::fs::fchmod(&file, mode)?;
                if let Some(owner) = directory.metadata().ok().map(|metadata| metadata.uid()) {
                    if geteuid().is_root() && owner != 0 {
                        let owner = rustix::process::Uid::from_raw(owner);
                        let _ = rustix::fs::fchown(&file, Some(owner), None);
                    }
                }
                let stat = rustix::fs::fstat(&file)?;
                return Ok((file, stat));
            }
            Err(Errno::EXIST) => (),
            Err(reason) => return Err(reason.into()),
        }
    }
    Err(io::Error::other("the file keeps being replaced"))
}

/// Makes a directory, and those above it, if it is missing.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut directories = DirBuilder::new();
    directories
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
}

/// How a file of the state directory is opened, whatever it is opened for.
pub(crate) fn flags(access: OFlags) -> OFlags {
    access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

/// Whether an open file is what it should be.
///
/// # Errors
/// It is not a regular file, or belongs to somebody other than root and us.
pub(crate) fn check(file: &impl AsFd) -> io::Result<Stat> {
    let stat = rustix::fs::fstat(file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("not a regular file"));
    }
    if !is_ours(&stat) {
        return Err(io::Error::other(format!(
            "it belongs to UID {}",
            stat.st_uid
        )));
    }
    Ok(stat)
}

/// Whether it belongs to root or to us.
pub(crate) fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}
