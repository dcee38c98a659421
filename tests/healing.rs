//! Whole runs on the stand-in, compared as transcripts.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use std::process::{Command, Stdio};

use rig::{Site, in_private_namespace, run};

#[test]
fn a_healthy_server_gives_the_four_lines_of_the_manual() {
    let site = Site::new("");
    let mut server = site.start();
    let monitored = run(&mut site.monitor());
    assert_eq!(monitored.code(), Some(0));
    assert_eq!(
        site.transcript(),
        "[INFO] Starting health check for http://127.0.0.1:PORT\n\
         [DEBUG] Checking server health: http://127.0.0.1:PORT\n\
         [DEBUG] Server responded with status 200\n\
         [INFO] ✓ Server is healthy (status: 200)\n"
    );
    assert_eq!(monitored.stdout, site.log());
    assert_eq!(monitored.stderr, "");
    server.kill().unwrap();
    server.wait().unwrap();
}
