//! Readers of /proc and /sys (`proc(5)`, `sysfs(5)`) and of the kernel's socket tables.

pub(crate) mod cgroup;
pub(crate) mod fd_owners;
pub(crate) mod machine;
pub(crate) mod net;
pub(crate) mod parse;
pub(crate) mod process;
pub(crate) mod sock_diag;
pub(crate) mod syscall;
