//! The account database, asked with a bound: behind it can stand an LDAP server that hangs.

use std::sync::mpsc;
use std::time::Duration;

use nix::unistd::{Uid, User};

use crate::journal::plain;

/// How long the name services may take.
const BOUND: Duration = Duration::from_secs(5);

/// The account of that name, `None` where there is none.
pub(crate) fn by_name(name: &str) -> Result<Option<User>, String> {
    let name = name.to_owned();
    ask(move || User::from_name(&name))
}

/// The account of that user ID, `None` where there is none.
pub(crate) fn by_uid(uid: Uid) -> Result<Option<User>, String> {
    ask(move || User::from_uid(uid))
}

fn ask(
    question: impl FnOnce() -> nix::Result<Option<User>> + Clone + Send + 'static,
) -> Result<Option<User>, String> {
    let (answer, wait) = mpsc::channel();
    let there = question.clone();
    let thread = std::thread::Builder::new().spawn(move || answer.send(there()));
    let found = match thread {
        Ok(_) => wait.recv_timeout(BOUND).map_err(|_| {
            format!(
                "the account database did not answer within {} seconds",
                BOUND.as_secs()
            )
        })?,
        // No thread can be had: asked here, however long it takes.
        Err(_) => question(),
    };
    found.map_err(|reason| plain(&reason.into()))
}
