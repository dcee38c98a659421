//! The server's processes: which they are, how they are stopped and started.

pub(crate) mod argv;
pub(crate) mod config_dir;
mod monitors;
pub(crate) mod process;
pub(crate) mod restart_command;
pub(crate) mod search;
pub(crate) mod select;
pub(crate) mod shell_command;
pub(crate) mod stop;
pub(crate) mod unwedge;
