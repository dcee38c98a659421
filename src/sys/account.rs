//! The account database, asked with a time limit: it can be an LDAP server that does not answer.

use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};

use crate::text::errno_text;

/// Time limit of one question to the name services.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The shell of an account that names none (`passwd(5)`), or one that admits nobody.
const SHELL: &str = "/bin/sh";
/// Shells that admit nobody (`nologin(8)`): no program should be given one as `SHELL`.
const NO_SHELLS: [&str; 2] = ["nologin", "false"];

/// Why the account database gave no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AccountError {
    /// It did not answer in time.
    TimedOut,
    /// It answered with this error.
    Failed(Errno),
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => write!(
                f,
                "the account database did not answer within {} seconds",
                TIMEOUT.as_secs()
            ),
            Self::Failed(errno) => f.write_str(&errno_text(&(*errno).into())),
        }
    }
}

/// All that a process needs to run as somebody.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Account {
    /// Login name; none for a user ID without an account.
    pub(crate) name: Option<String>,
    /// User ID.
    pub(crate) uid: Uid,
    /// Primary group.
    pub(crate) gid: Gid,
    /// Supplementary groups, with the primary one, as `initgroups(3)` sets them; empty without an account.
    pub(crate) groups: Vec<Gid>,
    /// Home directory; `/` without an account.
    pub(crate) home: PathBuf,
    /// Login shell; `/bin/sh` where the account has none that admits its user.
    pub(crate) shell: PathBuf,
}

impl Account {
    /// The account of that name or, where there is none of that name, of that user ID in digits;
    /// `None` where there is neither.
    ///
    /// # Errors
    /// Why the account database gave no answer.
    pub(crate) fn named(name: &str) -> Result<Option<Self>, AccountError> {
        let name = name.to_owned();
        ask(move || {
            let user = match User::from_name(&name)? {
                Some(user) => Some(user),
                None => match uid(&name) {
                    Some(uid) => User::from_uid(uid)?,
                    None => None,
                },
            };
            user.map(Self::with_groups).transpose()
        })
    }

    /// The account of that user ID. One without an account has the group `gid` alone.
    ///
    /// # Errors
    /// Why the account database gave no answer.
    pub(crate) fn of(uid: Uid, gid: Gid) -> Result<Self, AccountError> {
        let account = ask(move || User::from_uid(uid)?.map(Self::with_groups).transpose())?;
        Ok(account.unwrap_or_else(|| Self {
            name: None,
            uid,
            gid,
            groups: Vec::new(),
            home: "/".into(),
            shell: SHELL.into(),
        }))
    }

    /// Whether it is ours: nothing has to be changed to run as this user.
    pub(crate) fn is_own(&self) -> bool {
        self.uid == geteuid()
    }

    /// Its name, or its user ID in digits where it has none: what `ps(1)` shows, and what
    /// `manage.py` compares with `USER`.
    pub(crate) fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.uid.to_string())
    }

    fn with_groups(user: User) -> nix::Result<Self> {
        let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
        Ok(Self {
            groups: getgrouplist(&name, user.gid)?,
            name: Some(user.name),
            uid: user.uid,
            gid: user.gid,
            home: user.dir,
            shell: usable_shell(user.shell),
        })
    }
}

/// The account of that name, `None` where there is none.
pub(crate) fn by_name(name: &str) -> Result<Option<User>, AccountError> {
    let name = name.to_owned();
    ask(move || User::from_name(&name))
}

/// The account of that user ID, `None` where there is none.
pub(crate) fn by_uid(uid: Uid) -> Result<Option<User>, AccountError> {
    ask(move || User::from_uid(uid))
}

/// The login name of that user ID, or the ID in digits where the account database gives none.
pub(crate) fn name_of(uid: u32) -> String {
    let user = by_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

/// As `by_uid`, with another time limit.
pub(crate) fn by_uid_within(limit: Duration, uid: Uid) -> Result<Option<User>, AccountError> {
    ask_within(limit, move || User::from_uid(uid))
}

/// A user ID in digits. The largest number stands for "none" (`setresuid(2)`).
fn uid(text: &str) -> Option<Uid> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse::<u32>().ok()).flatten();
    number.filter(|uid| *uid != u32::MAX).map(Uid::from_raw)
}

fn usable_shell(shell: PathBuf) -> PathBuf {
    let name = shell.file_name().unwrap_or_default();
    if shell.is_absolute() && !NO_SHELLS.iter().any(|none| name == *none) {
        shell
    } else {
        Path::new(SHELL).to_owned()
    }
}

/// Asks the name services, for no longer than the time limit.
///
/// # Errors
/// Why they gave no answer.
pub(crate) fn ask<T: Send + 'static>(
    question: impl FnOnce() -> nix::Result<T> + Clone + Send + 'static,
) -> Result<T, AccountError> {
    ask_within(TIMEOUT, question)
}

fn ask_within<T: Send + 'static>(
    limit: Duration,
    question: impl FnOnce() -> nix::Result<T> + Clone + Send + 'static,
) -> Result<T, AccountError> {
    let (answer, wait) = mpsc::channel();
    let there = question.clone();
    let thread = std::thread::Builder::new().spawn(move || answer.send(there()));
    let found = match thread {
        Ok(_) => wait
            .recv_timeout(limit)
            .map_err(|_| AccountError::TimedOut)?,
        // No thread can be had: asked here, without a limit.
        Err(_) => question(),
    };
    found.map_err(AccountError::Failed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_and_by_number() {
        let root = Account::named("root").unwrap().unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        assert_eq!(root.groups.first(), Some(&root.gid));
        assert_eq!(Account::named("0").unwrap(), Some(root.clone()));
        assert_eq!(
            Account::of(Uid::from_raw(0), Gid::from_raw(7)).unwrap(),
            root
        );
        for none in [
            "no-such-user-here",
            "",
            "4294967295",
            "-1",
            "+0",
            " 0",
            "0x0",
        ] {
            assert_eq!(Account::named(none).unwrap(), None, "{none}");
        }
    }

    #[test]
    fn a_user_without_a_name_is_a_number() {
        assert_eq!(name_of(0), "root");
        assert_eq!(name_of(3_999_999), "3999999");
    }

    #[test]
    fn a_user_without_an_account_has_the_group_that_is_given_and_no_other() {
        let nobody = Account::of(Uid::from_raw(3_999_999), Gid::from_raw(7)).unwrap();
        assert_eq!(nobody.gid, Gid::from_raw(7));
        assert_eq!(
            (nobody.name.as_deref(), &nobody.groups),
            (None, &Vec::new())
        );
        assert_eq!(nobody.home, Path::new("/"));
        assert_eq!(nobody.shown(), "3999999");
    }

    #[test]
    fn a_shell_that_admits_nobody_is_none() {
        for (shell, usable) in [
            ("/bin/zsh", "/bin/zsh"),
            ("/usr/sbin/nologin", SHELL),
            ("/sbin/nologin", SHELL),
            ("/bin/false", SHELL),
            ("", SHELL),
        ] {
            assert_eq!(usable_shell(shell.into()), Path::new(usable), "{shell}");
        }
    }
}
