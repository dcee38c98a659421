//! Files that root makes in somebody else's directory: they are that one's, whose own runs need them,
//! and no link laid there leads root elsewhere.

use std::fs::{Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

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
