//! Whose the files of a restart command are, and who else can change them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use super::words;
use crate::sys::account::{self, Account};
use crate::sys::bounded;

/// Time limit of reading the files of a command, which can be on a disk that does not respond.
pub(super) const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Write permission of the group, of all others, and the sticky bit (`inode(7)`).
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// The user IDs of who owns the MyVNC script of a restart command, and the configuration directory;
/// none of what cannot be seen in time.
pub(crate) async fn owners(command: &str, config_dir: Option<&Path>) -> Vec<u32> {
    let script = words::myvnc_script(command);
    let paths: Vec<&Path> = script.as_deref().into_iter().chain(config_dir).collect();
    if paths.is_empty() {
        return Vec::new();
    }
    let look = || {
        let owned = paths.iter().filter_map(|path| std::fs::metadata(path).ok());
        let owners: BTreeSet<u32> = owned.map(|metadata| metadata.uid()).collect();
        owners
    };
    let seen = bounded::ask(LOOK_TIMEOUT, look).await;
    let seen = seen.ok().flatten().unwrap_or_default();
    seen.into_iter().collect()
}

/// Who else can change a file.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum Writer {
    Owner(u32),
    Group(u32),
    Everyone,
}

/// Which program of the restart command, or directory above it, can be changed by others than root
/// and the user that it runs as (`account`; none for root), and what to do. `None` also where that
/// cannot be seen in time, and if the monitor's user is not root.
pub(crate) async fn writable_by_others(
    command: &str,
    account: Option<&Account>,
    user: Uid,
) -> Option<String> {
    let programs = words::programs(command);
    if !user.is_root() || programs.is_empty() {
        return None;
    }
    let trusted = Trusted::with(account);
    let look = || {
        let mut seen = programs.iter().filter_map(|path| trusted.weakness(path));
        seen.next()
            .map(|(path, writer)| (OsString::from(path), writer))
    };
    let seen = bounded::ask(LOOK_TIMEOUT, look).await;
    let (path, writer) = seen.ok().flatten().flatten()?;
    let path = Path::new(&path).display();
    let runner = account.map_or_else(|| "root".to_owned(), Account::shown);
    let (who, remedy) = match writer {
        Writer::Owner(uid) => {
            let owner = account::name_of(uid);
            let remedy = format!("chown root {path}, or set run-as = \"{owner}\"");
            (format!("its owner {owner}"), remedy)
        }
        Writer::Group(gid) => (
            format!("its group {}", account::name_of_group(gid)),
            close(&path, account),
        ),
        Writer::Everyone => ("everyone".to_owned(), close(&path, account)),
    };
    Some(format!(
        "{path} is part of the restart command, which runs as {runner}, and {who} can change it: {remedy}"
    ))
}

/// Whether others than root can change a file or the way to it. The disk can block.
pub(crate) fn can_others_change(path: &Path) -> bool {
    Trusted::with(None).weakness(path).is_some()
}

/// How to close a file to others than its owner, or what to do instead.
fn close(path: &impl std::fmt::Display, account: Option<&Account>) -> String {
    let other = match account {
        None => ", or set run-as to an ordinary user",
        Some(_) => "",
    };
    format!("chmod go-w {path}{other}")
}

/// Who may change what is run.
#[derive(Debug)]
struct Trusted {
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Trusted {
    /// Root, and the user who runs it, with the group that is theirs.
    fn with(account: Option<&Account>) -> Self {
        let users = account.map(|account| account.uid.as_raw());
        let groups = account.map(|account| account.gid.as_raw());
        Self {
            users: std::iter::once(0).chain(users).collect(),
            groups: std::iter::once(0).chain(groups).collect(),
        }
    }

    /// The first of a file and the directories above it, as it is named and as its links lead, that
    /// others can change. What cannot be seen is passed over.
    fn weakness(&self, path: &Path) -> Option<(PathBuf, Writer)> {
        let named = std::path::absolute(path).ok()?;
        let real = std::fs::canonicalize(&named).ok();
        let mut all = named
            .ancestors()
            .chain(real.iter().flat_map(|real| real.ancestors()));
        all.find_map(|one| {
            let link = std::fs::symlink_metadata(one).ok()?;
            let target = std::fs::metadata(one).ok()?;
            // A link has no permissions of its own; in a sticky directory, its owner can change it.
            let writer = self.owner(&link).or_else(|| self.writer(&target))?;
            Some((one.to_owned(), writer))
        })
    }

    fn owner(&self, file: &Metadata) -> Option<Writer> {
        let is_trusted = self.users.contains(&file.uid());
        (!is_trusted).then(|| Writer::Owner(file.uid()))
    }

    fn writer(&self, file: &Metadata) -> Option<Writer> {
        let (mode, group) = (file.mode(), file.gid());
        // What is in a sticky directory can be replaced by its owner alone, who is looked at too.
        let is_sticky = file.is_dir() && mode & STICKY != 0;
        self.owner(file).or(match mode {
            _ if is_sticky => None,
            // What is written to /dev/null is not read again.
            _ if file.file_type().is_char_device() => None,
            _ if mode & OTHERS_WRITE != 0 => Some(Writer::Everyone),
            _ if mode & GROUP_WRITES != 0 && !self.groups.contains(&group) => {
                Some(Writer::Group(group))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use nix::unistd::geteuid;

    use super::*;
    use crate::skip::skip;

    const ROOT: Uid = Uid::from_raw(0);

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_others_can_change_is_named() {
        if !geteuid().is_root() {
            return skip("only root can make files for others");
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        for (name, mode) in [("a/b/x", 0o755), ("a/y", 0o755)] {
            std::fs::write(at(name), "").unwrap();
            set_mode(&at(name), mode);
        }
        let vnc = Account {
            name: Some("vnc".into()),
            uid: Uid::from_raw(3_999_999),
            gid: 3_999_998.into(),
            home: "/".into(),
            shell: "/bin/sh".into(),
        };
        let weak =
            |path: &str, account: Option<&Account>| Trusted::with(account).weakness(&at(path));
        assert_eq!(weak("a/b/x", None), None);
        assert_eq!(weak("absent", None), None);
        assert_eq!(weak("/dev/null", None), None);
        assert!(!can_others_change(&at("a/b/x")));

        set_mode(&at("a/b/x"), 0o757);
        assert_eq!(weak("a/b/x", None), Some((at("a/b/x"), Writer::Everyone)));
        assert!(can_others_change(&at("a/b/x")));
        let command = format!("{} start", at("a/b/x").display());
        let said = writable_by_others(&command, None, ROOT).await;
        let expected = "is part of the restart command, which runs as root, and everyone can change it: \
            chmod go-w";
        let path = at("a/b/x");
        assert_eq!(
            said.unwrap(),
            format!(
                "{} {expected} {}, or set run-as to an ordinary user",
                path.display(),
                path.display()
            )
        );
        set_mode(&at("a/b/x"), 0o755);

        set_mode(&at("a"), 0o777);
        assert_eq!(weak("a/b/x", Some(&vnc)), Some((at("a"), Writer::Everyone)));
        set_mode(&at("a"), 0o1777);
        assert_eq!(
            weak("a/b/x", None),
            None,
            "a sticky directory protects what is in it"
        );
        symlink("b/x", at("a/link")).unwrap();
        assert_eq!(weak("a/link", None), None);
        std::os::unix::fs::lchown(at("a/link"), Some(3_999_999), None).unwrap();
        let owner = Writer::Owner(3_999_999);
        assert_eq!(weak("a/link", None), Some((at("a/link"), owner)));
        assert_eq!(weak("a/link", Some(&vnc)), None);
        set_mode(&at("a"), 0o755);

        chown(at("a/b"), Some(3_999_999), Some(3_999_998)).unwrap();
        set_mode(&at("a/b"), 0o775);
        assert_eq!(weak("a/b/x", None), Some((at("a/b"), owner)));
        let said = writable_by_others(&command, None, ROOT).await.unwrap();
        let remedy = format!(
            "chown root {}, or set run-as = \"3999999\"",
            at("a/b").display()
        );
        assert!(
            said.ends_with(&format!("its owner 3999999 can change it: {remedy}")),
            "{said}"
        );
        assert_eq!(weak("a/b/x", Some(&vnc)), None);
        chown(at("a/b"), Some(0), Some(3_999_997)).unwrap();
        let group = Writer::Group(3_999_997);
        assert_eq!(weak("a/b/x", Some(&vnc)), Some((at("a/b"), group)));
        let said = writable_by_others(&command, Some(&vnc), ROOT)
            .await
            .unwrap();
        let directory = at("a/b").display().to_string();
        let expected = format!(
            "{directory} is part of the restart command, which runs as vnc, and its group 3999997 can change \
            it: chmod go-w {directory}"
        );
        assert_eq!(said, expected);
        set_mode(&at("a/b"), 0o755);
        assert_eq!(weak("a/b/x", Some(&vnc)), None, "its group cannot write");
        set_mode(&at("a/b"), 0o775);
        symlink(at("a/b/x"), at("link")).unwrap();
        assert_eq!(
            weak("link", None),
            Some((at("a/b"), group)),
            "links are followed"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn whose_script_and_configuration_are() {
        if !geteuid().is_root() {
            return skip("only root can make files for others");
        }
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("myvnc/config")).unwrap();
        std::fs::write(at("myvnc/manage.py"), "").unwrap();
        chown(at("myvnc/manage.py"), Some(1234), None).unwrap();
        chown(at("myvnc/config"), Some(1235), None).unwrap();
        let command = format!("{} start", at("myvnc/manage.py").display());
        let config = at("myvnc/config");
        assert_eq!(owners(&command, Some(&config)).await, [1234, 1235]);
        assert_eq!(owners(&command, Some(Path::new("/no/such"))).await, [1234]);
        assert_eq!(owners("systemctl restart x", None).await, Vec::<u32>::new());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_ordinary_users_own_files_are_not_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        std::fs::write(&path, "").unwrap();
        set_mode(&path, 0o777);
        let command = format!("{} start", path.display());
        let user = Uid::from_raw(3_999_999);
        assert_eq!(writable_by_others(&command, None, user).await, None);
    }
}
