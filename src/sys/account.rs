//! Accounts of users: those of `/etc/passwd`, and else those that the name services know, which are asked with a time
//! limit.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::unistd::{Gid, Uid, geteuid};

use super::name_services::{self, NameServiceError};

/// The local accounts (`passwd(5)`).
const LOCAL: &str = "/etc/passwd";
/// The name service that reads it (`nsswitch.conf(5)`).
const FILES: &str = "files";
/// The same, but lines of the file that begin with `+` include users of another service.
const COMPAT: &str = "compat";
/// Other name services that need no other machine: they read files, or ask systemd.
const OF_THIS_MACHINE: [&str; 4] = ["db", "altfiles", "extrausers", "systemd"];
/// Time limit of one question to the name services.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a question about a name that is only shown.
const NAME_TIMEOUT: Duration = Duration::from_secs(1);
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
            None if know_all_users() => Ok(Self {
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
        let said = name_services::entry("initgroups", name, TIMEOUT)?;
        let mut groups = vec![self.gid];
        let said = said.as_deref().and_then(|said| said.strip_prefix(name));
        let said = said.ok_or(NameServiceError::Unknown)?;
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
    let is_it = |account: &Account| account.name.as_deref() == Some(name);
    // getent(1) takes digits for a user ID.
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(local(is_it));
    }
    find(is_it, || asked(name, TIMEOUT))
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
    find(is_it, || Ok(asked(&uid.to_string(), limit)?.filter(is_it)))
}

/// The user ID of that name or, where there is none of that name, of that number, with or without an account.
///
/// # Errors
/// Why the name services gave no answer.
pub(crate) fn uid_of(name: &str) -> Result<Option<Uid>, NameServiceError> {
    let account = by_name(name)?;
    Ok(account.map(|account| account.uid).or_else(|| uid(name)))
}

/// Whether all name services for users are on this machine: then a user whom they do not know has no account. False if
/// nsswitch.conf(5) cannot be read, because it may name LDAP.
pub(crate) fn know_all_users() -> bool {
    let services = name_services::services("passwd");
    services.is_ok_and(|services| {
        services.is_none_or(|services| are_local(&services, std::fs::read(LOCAL).ok().as_deref()))
    })
}

fn are_local(services: &[String], accounts: Option<&[u8]>) -> bool {
    let is_include = |line: &[u8]| line.trim_ascii_start().starts_with(b"+");
    let includes = accounts.is_none_or(|accounts| lines(accounts).any(is_include));
    services.iter().all(|service| match service.as_str() {
        FILES => true,
        COMPAT => !includes,
        other => OF_THIS_MACHINE.contains(&other),
    })
}

/// The login name of that user ID, or the ID in digits where nobody knows it, for a message.
pub(crate) fn name_of(uid: u32) -> String {
    static FOUND: Mutex<BTreeMap<u32, String>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let ask = || {
        let account = by_uid_within(NAME_TIMEOUT, Uid::from_raw(uid));
        let account = account.ok().flatten();
        account.map_or_else(|| uid.to_string(), |account| account.shown())
    };
    found.entry(uid).or_insert_with(ask).clone()
}

/// The name of that group, or its ID in digits where nobody knows it.
pub(crate) fn name_of_group(gid: u32) -> String {
    let said = name_services::entry("group", &gid.to_string(), NAME_TIMEOUT);
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

/// The account that the name services give. They are not asked if `/etc/passwd` is the first of them, nor for root, whose
/// account is local on every machine. If they give none, the account of `/etc/passwd` counts.
fn find(
    is_it: impl Fn(&Account) -> bool,
    ask: impl FnOnce() -> Result<Option<Account>, NameServiceError>,
) -> Result<Option<Account>, NameServiceError> {
    let Some(local) = local(is_it) else {
        return ask();
    };
    if local.uid.is_root() || are_local_first() {
        return Ok(Some(local));
    }
    Ok(ask().ok().flatten().or(Some(local)))
}

fn are_local_first() -> bool {
    let services = name_services::services("passwd").ok().flatten();
    let first = services.and_then(|services| services.into_iter().next());
    first.is_none_or(|first| [FILES, COMPAT].contains(&first.as_str()))
}

fn local(is_it: impl Fn(&Account) -> bool) -> Option<Account> {
    first(&std::fs::read(LOCAL).ok()?, is_it)
}

/// The first of these lines that is such an account.
fn first(accounts: &[u8], is_it: impl Fn(&Account) -> bool) -> Option<Account> {
    lines(accounts).filter_map(Account::parse).find(is_it)
}

fn lines(accounts: &[u8]) -> impl Iterator<Item = &[u8]> {
    accounts.split(|byte| *byte == b'\n')
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
    use nix::errno::Errno;

    use super::*;
    use crate::refused::where_refused;

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
    }

    #[test]
    fn a_user_id_needs_no_account() {
        assert_eq!(uid_of("root"), Ok(Some(Uid::from_raw(0))));
        assert_eq!(uid_of("3999999"), Ok(Some(Uid::from_raw(3_999_999))));
        for none in ["no-such-user-here", "", "4294967295", "-1", " 0"] {
            assert_eq!(uid_of(none), Ok(None), "{none}");
        }
    }

    #[test]
    fn a_service_of_another_machine_may_know_more_users() {
        let plain: Option<&[u8]> = Some(b"root:x:0:0::/root:/bin/sh\n");
        let including: Option<&[u8]> = Some(b"root:x:0:0::/root:/bin/sh\n +::::::\n");
        for (services, accounts, expected) in [
            ("files systemd", including, true),
            ("", plain, true),
            ("sss files systemd", plain, false),
            ("files ldap", plain, false),
            ("compat systemd", plain, true),
            ("compat systemd", including, false),
            ("compat", None, false),
        ] {
            let listed: Vec<String> = services.split_whitespace().map(str::to_owned).collect();
            assert_eq!(are_local(&listed, accounts), expected, "{services}");
        }
    }

    #[test]
    fn services_that_cannot_be_read_may_know_more_users() {
        // SYS_open is what musl's open(3) calls, and is not there on aarch64.
        #[cfg(target_arch = "x86_64")]
        let open = [nix::libc::SYS_open, nix::libc::SYS_openat];
        #[cfg(not(target_arch = "x86_64"))]
        let open = [nix::libc::SYS_openat];
        let refused = |errno: Errno| where_refused(&open, errno as i32, know_all_users);
        assert!(!refused(Errno::EMFILE) && !refused(Errno::EIO));
        // Without the file, glibc asks for local users alone.
        assert!(refused(Errno::ENOENT));
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
