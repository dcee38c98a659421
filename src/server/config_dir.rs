//! With which configuration a MyVNC server was started: its arguments and its environment tell.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::process::Process;
use super::select::{CONFIG_VARIABLE, Configured, config_dir};
use crate::sys::files;

/// Following the links of one path takes no longer.
const LINKS_TIMEOUT: Duration = Duration::from_millis(200);

/// Whether a process was started with this configuration. A disk that does not answer decides nothing.
pub(super) fn as_against(process: &Process, ours: &Path) -> Configured {
    match config_dir_of(process) {
        None if environment(process.pid).is_none() => Configured::Unknown,
        None => Configured::Otherwise,
        // It depends on where its program stood when it was started.
        Some(its) if !its.is_absolute() => Configured::Unknown,
        Some(its) if its == ours => Configured::Alike,
        Some(its) => match (real(its), real(ours.to_owned())) {
            (Some(its), Some(ours)) if its == ours => Configured::Alike,
            (Some(_), Some(_)) => Configured::Apart,
            _ => Configured::Unknown,
        },
    }
}

/// The configuration that a server was started with, where we may see that: `manage.py` tells it
/// its server in the environment.
fn config_dir_of(process: &Process) -> Option<PathBuf> {
    config_dir(&process.command).or_else(|| {
        let environment = environment(process.pid)?;
        let mut variables = environment.split(|byte| *byte == 0);
        let value = variables.find_map(|one| {
            let value = one.strip_prefix(CONFIG_VARIABLE.as_bytes())?;
            value.strip_prefix(b"=")
        })?;
        Some(OsStr::from_bytes(value).into())
    })
}

fn environment(pid: i32) -> Option<Vec<u8>> {
    files::read(Path::new(&format!("/proc/{pid}/environ"))).ok()
}

/// A path without its links, or as it is where it is not there; none where its disk does not answer
/// in time.
fn real(path: PathBuf) -> Option<PathBuf> {
    let (answer, wait) = mpsc::channel();
    std::thread::Builder::new()
        .spawn(move || answer.send(std::fs::canonicalize(&path).unwrap_or(path)))
        .ok()?;
    wait.recv_timeout(LINKS_TIMEOUT).ok()
}
