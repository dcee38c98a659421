//! Sections that run in private namespaces, where the monitor may search the whole machine, and whose end
//! ends every process in them. The bench runs itself again in there, and takes over the lines of its table.

use std::env;
use std::process::Stdio;

use crate::binary::{self, BASELINE};
use crate::child::{QUICK, bare, installed};
use crate::rig;
use crate::table::{Row, Table};

/// Names the section that is run inside.
pub(crate) const INSIDE: &str = "MONITOR_BENCH_INSIDE";

/// Runs a section inside; `what` names it in the table if it cannot be.
pub(crate) fn run(table: &mut Table, section: &str, what: &str) {
    let Some(unshare) = installed("unshare") else {
        return table.push(Row::skipped(what, "unshare is not installed"));
    };
    let enter = || {
        let mut inside = bare(&unshare);
        if !rig::is_root() {
            inside.args(["--user", "--map-root-user"]);
        }
        inside.args(["--net", "--pid", "--fork", "--mount-proc", "--kill-child"]);
        // The shell stays as PID 1, which reaps what its children leave behind.
        let shell = "ip link set lo up && \"$@\"; exit $?";
        inside.args(["sh", "-c", shell, "sh"]);
        inside.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        inside
    };
    if !enter().arg("true").status().unwrap().success() {
        return table.push(Row::skipped(what, "no private namespaces can be made here"));
    }
    let mut inside = enter();
    inside.arg(env::current_exe().unwrap());
    inside.env(INSIDE, section);
    inside.env(binary::VARIABLE, binary::monitor());
    for name in [BASELINE, QUICK] {
        if let Some(value) = env::var_os(name) {
            inside.env(name, value);
        }
    }
    inside.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = inside.output().unwrap();
    table.take_over(&String::from_utf8(output.stdout).unwrap());
    if !output.status.success() {
        table.push(Row::failed(what));
    }
}
