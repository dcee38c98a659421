//! The restart command: what it says, whose it is, and its start.

mod permissions;
mod spawn;
mod words;

use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

pub(crate) use self::permissions::{owners, writable_by_others};
pub(super) use self::spawn::shell;
pub(crate) use self::spawn::{Prepared, Running, started_by_us};
pub(crate) use self::words::{changes_user, has_verb, myvnc_script};
use crate::sys::bounded;
use crate::text::errno_text;

/// Time limit of a look at the files of a command: they can be on a disk that does not answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why this command cannot run, as far as can be told without running it: its first word is
/// a path at which nothing can be executed. `None` also in every doubt.
pub(crate) async fn unusable(command: &str) -> Option<String> {
    let program = words::first_path(command)?;
    let looked = bounded::ask(LOOK_TIMEOUT, || unusable_program(&program)).await;
    let reason = looked.ok().flatten().flatten()?;
    Some(format!("{}: {reason}", program.display()))
}

fn unusable_program(program: &Path) -> Option<String> {
    Some(match std::fs::metadata(program) {
        Err(reason) => errno_text(&reason),
        Ok(metadata) if metadata.is_dir() => "is a directory".into(),
        Ok(_) => errno_text(&access(program, AccessFlags::X_OK).err()?.into()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn what_cannot_be_executed_is_unusable() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, mode) in [("runs", 0o755), ("my prog", 0o700), ("plain", 0o644)] {
            std::fs::write(at(name), "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        symlink("runs", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        let root = directory.path().display();
        for (command, expected) in [
            ("@/runs start", None),
            ("'@/my prog' start", None),
            ("A=b @/link", None),
            (
                "@/absent start",
                Some(("absent", "No such file or directory")),
            ),
            (
                "@/dangling",
                Some(("dangling", "No such file or directory")),
            ),
            ("@/plain start", Some(("plain", "Permission denied"))),
            (
                "A=b '@/plain' >> @/log 2>&1",
                Some(("plain", "Permission denied")),
            ),
            ("@/runs/x", Some(("runs/x", "Not a directory"))),
            ("@/", Some(("", "is a directory"))),
            ("source @/absent && @/runs", None),
            ("@/absent; @/runs", None),
            ("@/absent || @/runs", None),
            ("@/abs* start", None),
            ("absent", None),
        ] {
            let expected = expected.map(|(name, why)| format!("{root}/{name}: {why}"));
            assert_eq!(
                unusable(&command.replace('@', &root.to_string())).await,
                expected,
                "{command}"
            );
        }
    }
}
