//! Names of users. The status must not wait for an account database that does not answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use nix::unistd::Uid;

use crate::sys::account::{self, AccountError};

/// The local accounts (passwd(5)).
const LOCAL: &str = "/etc/passwd";
/// Time limit of one question to the name services.
const TIMEOUT: Duration = Duration::from_millis(300);

/// The names that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Users {
    names: BTreeMap<u32, String>,
    /// Whether the name services did not answer: they are not asked again.
    is_silent: bool,
}

impl Users {
    /// The login name, or the user ID in digits.
    pub(crate) fn name(&mut self, uid: u32) -> String {
        if let Some(name) = self.names.get(&uid) {
            return name.clone();
        }
        let name = local(Path::new(LOCAL), uid).or_else(|| self.asked(uid));
        let name = name.unwrap_or_else(|| uid.to_string());
        self.names.insert(uid, name.clone());
        name
    }

    fn asked(&mut self, uid: u32) -> Option<String> {
        if self.is_silent {
            return None;
        }
        let user = account::by_uid_within(TIMEOUT, Uid::from_raw(uid));
        self.is_silent = matches!(user, Err(AccountError::TimedOut));
        user.ok().flatten().map(|user| user.name)
    }
}

/// The name in a file of accounts.
fn local(path: &Path, uid: u32) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let number = fields.nth(1)?;
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Who gives the command: behind sudo(8) the user who called it.
pub(crate) fn caller() -> String {
    let uid = nix::unistd::getuid();
    let behind_sudo = std::env::var("SUDO_USER").ok();
    match behind_sudo.filter(|name| uid.is_root() && !name.is_empty()) {
        Some(name) => name,
        None => Users::default().name(uid.as_raw()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn local_accounts_are_found_without_the_name_services() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "root:x:0:0::/root:/bin/sh\n:x:7:7::/:\n+::::::\nbswan:x:1004:1004:\u{fffd}:/home/b:/bin/sh\n",
        )
        .unwrap();
        let name = |uid| local(file.path(), uid);
        assert_eq!(name(1004).as_deref(), Some("bswan"));
        assert_eq!(name(0).as_deref(), Some("root"));
        assert_eq!(name(7), None);
        assert_eq!(local(Path::new("/nonexistent"), 0), None);
    }

    #[test]
    fn a_user_without_a_name_is_a_number() {
        assert_eq!(Users::default().name(3_999_999), "3999999");
    }
}
