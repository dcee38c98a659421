//! The server's processes: which they are, how they are stopped and started.

pub(crate) mod aside;
mod configured;
pub(crate) mod dump;
mod exit;
pub(crate) mod find;
pub(crate) mod found;
pub(crate) mod identity;
pub(crate) mod instance;
mod kernel;
pub(crate) mod start;
pub(crate) mod stop;
