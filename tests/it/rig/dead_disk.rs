//! A disk that does not answer: whoever asks it anything waits, in state D, and dies of no signal.
//! It is a file system in user space (`fuse(4)`) whose server takes each request and answers none.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

const INIT: u32 = 26;

pub struct DeadDisk(PathBuf);

impl DeadDisk {
    /// Mounts it there, where that can be done.
    pub fn mount(directory: &Path) -> Option<Self> {
        std::fs::create_dir_all(directory).unwrap();
        Self::mount_over(directory, "40000")
    }

    /// Puts one file of it in the place of that file, where that can be done.
    pub fn mount_file(file: &Path) -> Option<Self> {
        Self::mount_over(file, "100444")
    }

    /// `mode` is that of its root: type and permissions, octal.
    fn mount_over(place: &Path, mode: &str) -> Option<Self> {
        let mut requests = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .ok()?;
        let options = format!(
            "fd={},rootmode={mode},user_id=0,group_id=0",
            requests.as_raw_fd()
        );
        let kind = Some("fuse");
        mount(
            Some("dead"),
            place,
            kind,
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .ok()?;
        std::thread::spawn(move || {
            let mut request = vec![0; 1 << 18];
            while let Ok(length) = requests.read(&mut request) {
                // `struct fuse_in_header`: length, operation, and a number that the answer repeats.
                let operation = u32::from_ne_bytes(request[4..8].try_into().unwrap());
                if length >= 16 && operation == INIT {
                    requests.write_all(&beginning(&request[8..16])).unwrap();
                }
            }
        });
        Some(Self(place.to_owned()))
    }
}

/// The answer to the first request: `struct fuse_out_header` and `struct fuse_init_out`, version 7.31.
fn beginning(unique: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    answer.extend(80_u32.to_ne_bytes());
    answer.extend(0_u32.to_ne_bytes());
    answer.extend(unique);
    answer.extend(7_u32.to_ne_bytes());
    answer.extend(31_u32.to_ne_bytes());
    answer.extend([0; 8]);
    answer.extend(8_u16.to_ne_bytes());
    answer.extend(8_u16.to_ne_bytes());
    answer.extend(4096_u32.to_ne_bytes());
    answer.resize(80, 0);
    answer
}

impl Drop for DeadDisk {
    /// Whoever still waits has an error then.
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
    }
}
