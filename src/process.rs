//! The server's processes: which they are, how they are stopped and started.

mod exit;
pub(crate) mod find;
pub(crate) mod identity;
mod kernel;
pub(crate) mod start;
pub(crate) mod stop;
