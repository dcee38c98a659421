//! Files that somebody has named: a FIFO, a device or a file without end in their place must not
//! hold a run.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;

/// No file that we read whole is larger, in bytes.
const LARGEST: u64 = 16 << 20;

/// Opens a regular file for reading.
pub(crate) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > LARGEST {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    Ok((file, metadata))
}

/// Reads one.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let (file, metadata) = open(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whose a directory is, where we are root and somebody else owns it.
pub(crate) fn beside_root(directory: &Metadata) -> Option<u32> {
    let owner = directory.uid();
    (owner != 0 && nix::unistd::geteuid().is_root()).then_some(owner)
}

/// Makes a file that is not there, for that owner. What is there already is left as it is, whatever
/// it is: it may be a file of root's that was moved here. What cannot be made is no error yet.
pub(crate) fn make(path: &Path, mode: u32, owner: u32) {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    if let Ok(file) = made {
        let _ = std::os::unix::fs::fchown(file, Some(owner), None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_regular_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(at("file"), "text").unwrap();
        File::create(at("huge"))
            .unwrap()
            .set_len(LARGEST + 1)
            .unwrap();
        assert_eq!(read(&at("file")).unwrap(), b"text");
        for other in [
            at("fifo"),
            at("huge"),
            at("absent"),
            at(""),
            "/dev/zero".into(),
        ] {
            assert!(read(&other).is_err(), "{}", other.display());
        }
    }
}
