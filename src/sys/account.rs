//! Accounts of users: those of `/etc/passwd`, and else those that the name services know, which are asked with a time
//! limit.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, geteuid};

use super::name_services::{self, NameServiceError};

/// The local accounts (`passwd(5)`).
const LOCAL: &str = "/etc/passwd";
/// Time limit of one question to the name services.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a question about a name that is only shown.
const NAME_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before a question that could not be asked for lack of a process or memory is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// The shell of an account that names none (`passwd(5)`), or one that admits nobody.
const SHELL: &str = "/bin/sh";
/// Shells that admit nobody (`nologin(8)`): no program should be given one as `SHELL`.
const NO_SHELLS: [&str; 2] = ["nologin", "false"];

/// All that a process needs to run as somebody, but the supplementary groups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Account {
    /// Login name; none for a user ID without an account.
    pub(crate) name: Option<String>,
    /// User ID.
    pub(crate) uid: Uid,
    /// Primary group.
    pub(crate) gid: Gid,
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
    /// Why the name services gave no answer.
    pub(crate) fn named(name: &str) -> Result<Option<Self>, NameServiceError> {
        match (by_name(name)?, uid(name)) {
            (None, Some(uid)) => by_uid(uid),
            (account, _) => Ok(account),
        }
    }

    /// The account of that user ID. One without an account has the group `gid` alone.
    ///
    /// # Errors
    /// Why the name services gave no answer; also where they know no account, and LDAP or the like may have one.
    pub(crate) fn of(uid: Uid, gid: Gid) -> Result<Self, NameServiceError> {
        match by_uid(uid)? {
            Some(account) => Ok(account),
            None if name_services::know_all_users() => Ok(Self {
                name: None,
                uid,
                gid,
                home: "/".into(),
                shell: SHELL.into(),
            }),
            None => Err(NameServiceError::Unknown),
        }
    }

    /// Supplementary groups, with the primary one, as `initgroups(3)` sets them; none without an account. Only the
    /// name services know them: LDAP can add some to those of a local account.
    ///
    /// # Errors
    /// Why the name services gave no answer.
    pub(crate) fn groups(&self) -> Result<Vec<Gid>, NameServiceError> {
        let Some(name) = &self.name else {
            return Ok(Vec::new());
        };
        let began = Instant::now();
        let said = loop {
            match name_services::entry("initgroups", name, TIMEOUT) {
                Err(reason) if reason.is_for_lack() && began.elapsed() < TIMEOUT => {
                    std::thread::sleep(PAUSE);
                }
                answer => break answer?.unwrap_or_default(),
            }
        };
        let mut groups = vec![self.gid];
        let said = said.strip_prefix(name.as_str()).unwrap_or_default();
        for gid in said.split_whitespace() {
            let gid = gid.parse().map(Gid::from_raw);
            groups.extend(gid.ok().filter(|gid| !groups.contains(gid)));
        }
        Ok(groups)
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

    /// What a line of accounts says (`passwd(5)`), read as glibc reads it: one that begins with `#` is a comment, and one
    /// that begins with `+` or `-` speaks of accounts of NIS.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.trim_ascii_start().split(|byte| *byte == b':');
        let mut text = || Some(String::from_utf8_lossy(fields.next()?).into_owned());
        let name = text().filter(|name| !name.is_empty() && !name.starts_with(['#', '+', '-']))?;
        let _password = text()?;
        let uid = text()?.parse().ok()?;
        let gid = text()?.parse().ok()?;
        let _comment = text()?;
        let mut path = || Some(PathBuf::from(OsString::from_vec(fields.next()?.to_vec())));
        Some(Self {
            name: Some(name),
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            home: path()?,
            shell: usable_shell(path()?),
        })
    }
}

/// The account of that name, `None` where there is none. It can have another spelling of the name, or a longer one: the
/// name services know which user is meant. A name of digits must be one of a local account.
///
/// # Errors
/// Why the name services gave no answer.
pub(crate) fn by_name(name: &str) -> Result<Option<Account>, NameServiceError> {
    let local = local(|account| account.name.as_deref() == Some(name));
    // getent(1) takes digits for a user ID.
    if local.is_some() || name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(local);
    }
    asked(name, TIMEOUT)
}

/// The account of that user ID, `None` where there is none.
///
/// # Errors
/// Why the name services gave no answer.
pub(crate) fn by_uid(uid: Uid) -> Result<Option<Account>, NameServiceError> {
    by_uid_within(TIMEOUT, uid)
}

fn by_uid_within(limit: Duration, uid: Uid) -> Result<Option<Account>, NameServiceError> {
    let is_it = |account: &Account| account.uid == uid;
    if let Some(account) = local(is_it) {
        return Ok(Some(account));
    }
    Ok(asked(&uid.to_string(), limit)?.filter(is_it))
}

/// The login name of that user ID, or the ID in digits where nobody knows it, for a message. Once the name services
/// have not answered in time, they are not asked for names any more.
pub(crate) fn name_of(uid: u32) -> String {
    static NAMES: Mutex<Names> = Mutex::new(Names {
        found: BTreeMap::new(),
        is_silent: false,
    });
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).of(uid)
}

/// The names of users that were asked for.
#[derive(Debug)]
struct Names {
    found: BTreeMap<u32, String>,
    is_silent: bool,
}

impl Names {
    fn of(&mut self, uid: u32) -> String {
        if let Some(name) = self.found.get(&uid) {
            return name.clone();
        }
        let limit = if self.is_silent {
            Duration::ZERO
        } else {
            NAME_TIMEOUT
        };
        let account = by_uid_within(limit, Uid::from_raw(uid));
        self.is_silent |= matches!(account, Err(NameServiceError::TimedOut(_)));
        let account = account.ok().flatten();
        let name = account.map_or_else(|| uid.to_string(), |account| account.shown());
        self.found.insert(uid, name.clone());
        name
    }
}

/// The name of that group, or its ID in digits where nobody knows it.
pub(crate) fn name_of_group(gid: u32) -> String {
    let said = name_services::entry("group", &gid.to_string(), TIMEOUT);
    let said = said.ok().flatten().unwrap_or_default();
    match said.split_once(':') {
        Some((name, _)) if !name.is_empty() => name.to_owned(),
        _ => gid.to_string(),
    }
}

/// What the name services say of a user.
fn asked(key: &str, limit: Duration) -> Result<Option<Account>, NameServiceError> {
    let said = name_services::entry("passwd", key, limit)?;
    Ok(said.and_then(|said| Account::parse(said.as_bytes())))
}

fn local(is_it: impl Fn(&Account) -> bool) -> Option<Account> {
    first(&std::fs::read(LOCAL).ok()?, is_it)
}

/// The first of these lines that is such an account.
fn first(lines: &[u8], is_it: impl Fn(&Account) -> bool) -> Option<Account> {
    let mut accounts = lines
        .split(|byte| *byte == b'\n')
        .filter_map(Account::parse);
    accounts.find(is_it)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_name_and_by_number() {
        let root = Account::named("root").unwrap().unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        assert_eq!(root.groups().unwrap().first(), Some(&root.gid));
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
    fn the_first_line_that_is_such_an_account_counts() {
        let lines = b"nss_x: cannot connect\n:x:7:7::/:/bin/sh\n+::::::\nshort:x:7:7\n+:*:7:7:::\n-no:x:7:7::/:\n\
                      # old:x:7:7::/:\n#bob:x:1004:100::/:/bin/sh\n  bswan:x:1004:100:\xff:/home/\xfe:/bin/zsh\nother:x:1004:101::/:\n";
        let found = |uid| first(lines, |account| account.uid.as_raw() == uid);
        let bswan = Account {
            name: Some("bswan".into()),
            uid: Uid::from_raw(1004),
            gid: Gid::from_raw(100),
            home: OsString::from_vec(b"/home/\xfe".to_vec()).into(),
            shell: "/bin/zsh".into(),
        };
        assert_eq!(found(1004), Some(bswan));
        assert_eq!(found(7), None);
    }

    #[test]
    fn a_group_without_a_name_is_a_number() {
        assert_eq!(name_of_group(0), "root");
        assert_eq!(name_of_group(3_999_999), "3999999");
    }

    #[test]
    fn a_user_without_a_name_is_a_number() {
        assert_eq!(name_of(0), "root");
        assert_eq!(name_of(3_999_999), "3999999");
        let mut names = Names {
            found: BTreeMap::from([(0, "asked for before".to_owned())]),
            is_silent: true,
        };
        assert_eq!(names.of(0), "asked for before");
        assert_eq!(names.of(3_999_999), "3999999");
    }

    #[test]
    fn a_user_without_an_account_has_the_group_that_is_given_and_no_other() {
        let nobody = Account::of(Uid::from_raw(3_999_999), Gid::from_raw(7)).unwrap();
        assert_eq!(nobody.gid, Gid::from_raw(7));
        assert_eq!(nobody.name, None);
        assert_eq!(nobody.groups(), Ok(vec![]));
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
