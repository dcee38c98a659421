//! System calls behind safe functions.

pub(crate) mod account;
pub(crate) mod bounded;
pub(crate) mod cached;
pub(crate) mod descriptors;
pub(crate) mod ffi;
pub(crate) mod files;
pub(crate) mod hosts;
pub(crate) mod name_services;
pub(crate) mod pidfd;
pub(crate) mod progress;
pub(crate) mod signals;
pub(crate) mod terminal;
