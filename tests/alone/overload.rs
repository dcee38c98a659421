//! A machine that is overloaded, for real: in a program of its own, for no other test runs beside it.
use std::process::Command;

use crate::rig::{self, Process, Site, run, wait_until};

/// Percent of the last 10 seconds in which something waited for a CPU, where the kernel keeps it.
fn pressure() -> Option<f32> {
    let text = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    let (_, average) = text.split_once("some avg10=")?;
    average.split_whitespace().next()?.parse().ok()
}

#[test]
fn cause_17_the_machine_is_overloaded() {
    if pressure().is_none() {
        return rig::skip("the kernel keeps no pressure (CONFIG_PSI)");
    }
    let _alone = crate::alone();
    let site = Site::new("hang = sleep");
    let _server = site.start();
    let cpus = std::thread::available_parallelism().unwrap().get();
    let burner = |_| {
        Command::new("sh")
            // Ends with the tests, also where these are killed.
            .args(["-c", "while kill -0 $PPID 2>/dev/null; do :; done"])
            .spawn()
            .unwrap()
            .into()
    };
    let _burners: Vec<Process> = (0..4 * cpus).map(burner).collect();
    wait_until("the average has risen", || pressure().unwrap() >= 93.0);
    let looked = run(site
        .monitor()
        .args(["--collect-diagnostics", "--timeout", "0.5"]));
    assert_eq!(looked.code(), Some(0));
    let log = site.log();
    let start = "[WARNING] Cause: the machine is overloaded: load ";
    let end = " % (10 s average)\n";
    assert!(log.contains(start) && log.contains(end), "{log}");
    // A healthy server is slow here: it gets twice the time before it is restarted.
    run(site
        .monitor()
        .args(["--restart-policy", "useful", "--timeout", "0.5"]));
    let log = &site.log()[log.len()..];
    let (asked, restarted) = (
        log.find("The machine is busy: checking once more, for up to 1 seconds"),
        log.find("RESTARTING SERVER"),
    );
    assert!(asked.is_some() && asked < restarted, "{log}");
}
