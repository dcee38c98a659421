//! The restart command: what it says, whose it is, and its start.

mod permissions;
mod spawn;
mod words;

use std::fmt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};

pub(crate) use self::permissions::{can_others_change, owners, writable_by_others};
pub(super) use self::spawn::shell;
pub(crate) use self::spawn::{PrepareError, Prepared, Running, missing_environment, started_by_us};
pub(crate) use self::words::{changes_user, has_verb, myvnc_script};
use crate::sys::bounded;
use crate::text::errno_text;

/// Why a command cannot run.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Unusable {
    /// PATH has no program of this name.
    NotInPath(String),
    /// Its program is a directory.
    IsDirectory(PathBuf),
    /// Its program or script cannot be reached, or its program cannot be executed.
    Inaccessible {
        /// The program or the script.
        path: PathBuf,
        /// errno text.
        reason: String,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInPath(name) => write!(f, "{name}: not found in PATH"),
            Self::IsDirectory(path) => write!(f, "{}: is a directory", path.display()),
            Self::Inaccessible { path, reason } => write!(f, "{}: {reason}", path.display()),
        }
    }
}

/// What is wrong with a restart command, as a sentence.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Mistake {
    /// It ends in `&`.
    InBackground,
    /// No verb follows `manage.py`.
    NoVerb,
    /// It cannot run.
    Unusable(Unusable),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("The restart command cannot work: ")?;
        match self {
            Self::InBackground => f.write_str(
                "it ends in &, which hides its exit status: leave out the &",
            ),
            Self::NoVerb => f.write_str(
                "no verb follows manage.py, which then exits without starting anything: add restart or start",
            ),
            Self::Unusable(unusable) => write!(f, "{unusable}"),
        }
    }
}

/// Why this command cannot run, as far as can be told without running it: its first word is
/// a path at which nothing can be executed. `None` if it can run, or if that cannot be told.
pub(crate) async fn unusable(command: &str) -> Option<Unusable> {
    let program = words::first_path(command)?;
    let looked = bounded::ask(permissions::LOOK_TIMEOUT, || unusable_program(&program)).await;
    looked.ok().flatten().flatten()
}

/// What is wrong with this command, as far as can be told without running it. `None` if nothing is, or
/// if that cannot be told.
pub(crate) async fn mistake(command: &str) -> Option<Mistake> {
    match words::mistake(command) {
        Some(mistake) => Some(mistake),
        None => unusable_or_absent(command).await.map(Mistake::Unusable),
    }
}

/// Why the program of this command cannot be run, looked for in PATH too.
pub(crate) async fn unusable_or_absent(command: &str) -> Option<Unusable> {
    match unusable(command).await {
        Some(unusable) => Some(unusable),
        None => absent(command).await,
    }
}

/// A program that is not in PATH, or a MyVNC script that is not there.
async fn absent(command: &str) -> Option<Unusable> {
    let name = words::first_name(command);
    let script = myvnc_script(command).filter(|path| path.is_absolute());
    if name.is_none() && script.is_none() {
        return None;
    }
    let look = || {
        let lacks = |name: &String| !is_in_path(name);
        if let Some(name) = name.as_ref().filter(|name| lacks(name)) {
            return Some(Unusable::NotInPath(name.clone()));
        }
        let script = script.as_ref()?;
        let reason = std::fs::metadata(script).err()?;
        (reason.kind() == std::io::ErrorKind::NotFound).then(|| Unusable::Inaccessible {
            path: script.clone(),
            reason: errno_text(&reason),
        })
    };
    bounded::ask(permissions::LOOK_TIMEOUT, look)
        .await
        .ok()
        .flatten()
        .flatten()
}

fn is_in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_else(|| spawn::PATH.into());
    std::env::split_paths(&path).any(|directory| unusable_program(&directory.join(name)).is_none())
}

fn unusable_program(program: &Path) -> Option<Unusable> {
    let reason = match std::fs::metadata(program) {
        Err(reason) => reason,
        Ok(metadata) if metadata.is_dir() => return Some(Unusable::IsDirectory(program.into())),
        Ok(_) => access(program, AccessFlags::X_OK).err()?.into(),
    };
    Some(Unusable::Inaccessible {
        path: program.into(),
        reason: errno_text(&reason),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_command_that_cannot_work_is_found_before_it_is_run() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("myvnc");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("manage.py"), "").unwrap();
        let root = root.display().to_string();
        let no_verb = "no verb follows manage.py, which then exits without starting anything: add restart or start";
        for (command, expected) in [
            ("sh @/manage.py restart", None),
            (
                "source @/profile && sh @/manage.py --config_dir=/etc start",
                None,
            ),
            ("sh @/manage.py --config_dir=/etc", Some(no_verb)),
            ("sh -c '@/manage.py status'", Some(no_verb)),
            (
                "sh @/manage.py restart &",
                Some("it ends in &, which hides its exit status: leave out the &"),
            ),
            (
                "no-such-program-here start",
                Some("no-such-program-here: not found in PATH"),
            ),
            (
                "sh @/2/manage.py start",
                Some("@/2/manage.py: No such file or directory"),
            ),
            ("@/manage.py start", Some("@/manage.py: Permission denied")),
            ("no-such-program-here || true", None),
            ("true", None),
        ] {
            let expected = expected.map(|said| {
                format!(
                    "The restart command cannot work: {}",
                    said.replace('@', &root)
                )
            });
            let mistake = mistake(&command.replace('@', &root)).await;
            assert_eq!(
                mistake.map(|mistake| mistake.to_string()),
                expected,
                "{command}"
            );
        }
    }

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
            let unusable = unusable(&command.replace('@', &root.to_string())).await;
            assert_eq!(
                unusable.map(|unusable| unusable.to_string()),
                expected,
                "{command}"
            );
        }
    }
}
