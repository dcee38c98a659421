//! Runs of the built monitor: one program, so that what the tests share is compiled once.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod addresses;
mod best_effort_log;
mod bystanders;
mod causes;
mod configuration;
mod containers;
mod diagnosis;
mod documents;
mod fleet;
mod generated;
mod healing;
mod held;
mod hostile_peers;
mod hostile_user;
mod instances;
mod interruptions;
mod journald;
mod locks;
mod metrics;
mod name_services;
mod notify;
mod operating;
#[cfg(target_arch = "x86_64")]
mod outbox;
mod ping;
mod proxy;
mod report;
mod rig;
mod run_as;
mod unwedge;
mod usage;
mod verbs;
