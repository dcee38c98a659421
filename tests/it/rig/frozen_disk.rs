//! A disk that stops answering writes: whoever writes to it waits in state D until it is thawed. Reading and opening
//! what is there still works. It is an ext4 in a file on a loop device, frozen by `fsfreeze(8)`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};

/// It is thawed after that time, so that no test waits without end.
const LONGEST: Duration = Duration::from_secs(20);
/// Size of the file, in bytes.
const SIZE: u64 = 16 << 20;

pub struct FrozenDisk {
    directory: PathBuf,
    frozen: Option<Sender<()>>,
}

impl FrozenDisk {
    /// Mounts it there, not frozen yet, where that can be done. The mount namespace must be the test's own.
    pub fn mount(directory: &Path) -> Option<Self> {
        std::fs::create_dir_all(directory).unwrap();
        let image = directory.with_extension("ext4");
        File::create(&image).unwrap().set_len(SIZE).unwrap();
        let is_done = succeeds(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))
            && succeeds(
                Command::new("mount")
                    .args(["-t", "ext4", "-o", "loop"])
                    .args([&image, directory]),
            );
        is_done.then(|| Self {
            directory: directory.to_owned(),
            frozen: None,
        })
    }

    pub fn freeze(&mut self) {
        assert!(fsfreeze("-f", &self.directory), "it cannot be frozen");
        let (sender, thawed) = channel::<()>();
        let directory = self.directory.clone();
        std::thread::spawn(move || {
            let _ = thawed.recv_timeout(LONGEST);
            fsfreeze("-u", &directory)
        });
        self.frozen = Some(sender);
    }

    pub fn thaw(&mut self) {
        if self.frozen.take().is_some() {
            fsfreeze("-u", &self.directory);
        }
    }
}

impl Drop for FrozenDisk {
    fn drop(&mut self) {
        self.thaw();
        let _ = umount2(&self.directory, MntFlags::MNT_DETACH);
    }
}

fn fsfreeze(what: &str, directory: &Path) -> bool {
    succeeds(Command::new("fsfreeze").arg(what).arg(directory))
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
