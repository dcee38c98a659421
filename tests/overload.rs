//! A machine that is overloaded, for real: in a program of its own, for no other test runs beside it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use std::process::{Child, Command};

use rig::{Site, run, wait_until};

/// Percent of the last 10 seconds in which something waited for a CPU, where the kernel keeps it.
fn pressure() -> Option<f32> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let (_, average) = text.split_once("some avg10=")?;
    average.split_whitespace().next()?.parse().ok()
}

/// What never waits for anything but a CPU; ended when dropped.
struct Burners(Vec<Child>);

impl Drop for Burners {
    fn drop(&mut self) {
        for burner in &mut self.0 {
            let _ = burner.kill();
            let _ = burner.wait();
        }
    }
}

#[test]
fn cause_17_the_machine_is_overloaded() {
    if pressure().is_none() {
        return rig::skip("the kernel keeps no pressure (CONFIG_PSI)");
    }
    let site = Site::new("hang = sleep");
    let _server = site.start();
    let cpus = std::thread::available_parallelism().unwrap().get();
    let burner = |_| {
        Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap()
    };
    let _burners = Burners((0..4 * cpus).map(burner).collect());
    wait_until("the average has risen", || pressure().unwrap() >= 93.0);
    let looked = run(site
        .monitor()
        .args(["--collect-diagnostics", "--timeout", "0.5"]));
    assert_eq!(looked.code(), Some(0));
    let log = site.log();
    let start = "[WARNING] Cause: the machine is overloaded: load ";
    let end = " % (10 s average)\n";
    assert!(log.contains(start) && log.contains(end), "{log}");
}
