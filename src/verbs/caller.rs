//! Who gives a command.

use crate::sys::account::name_of;

/// The login name of the user; behind sudo(8) of the one who called it.
pub(crate) fn caller() -> String {
    let uid = nix::unistd::getuid();
    let behind_sudo = std::env::var("SUDO_USER").ok();
    match behind_sudo.filter(|name| uid.is_root() && !name.is_empty()) {
        Some(name) => name,
        None => name_of(uid.as_raw()),
    }
}
