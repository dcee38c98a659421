//! Files that root makes in somebody else's directory: they are that one's, whose own runs need them,
//! and no link laid there leads root elsewhere.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

/// Whose a directory is, where we are root and somebody else owns it.
pub(crate) fn beside_root(directory: &Metadata) -> Option<u32> {
    let owner = directory.uid();
    (owner != 0 && nix::unistd::geteuid().is_root()).then_some(owner)
}

/// Gives an open file to that owner, if root has made it: a second link would be to a file of
/// root's elsewhere.
pub(crate) fn give(file: &File, owner: u32) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.uid() == 0 && metadata.nlink() == 1 {
        std::os::unix::fs::fchown(file, Some(owner), None)?;
    }
    Ok(())
}
