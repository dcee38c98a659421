//! Names of users. The status must not wait for an account database that does not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::unistd::Uid;

use crate::sys::account;
use crate::sys::name_services::NameServiceError;

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
        let name = self.found(uid).unwrap_or_else(|| uid.to_string());
        self.names.insert(uid, name.clone());
        name
    }

    fn found(&mut self, uid: u32) -> Option<String> {
        let limit = if self.is_silent {
            Duration::ZERO
        } else {
            TIMEOUT
        };
        let account = account::by_uid_within(limit, Uid::from_raw(uid));
        self.is_silent |= matches!(account, Err(NameServiceError::TimedOut(_)));
        account.ok().flatten()?.name
    }
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
    fn a_user_without_a_name_is_a_number() {
        assert_eq!(Users::default().name(3_999_999), "3999999");
    }
}
