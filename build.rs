//! What the build decides: how the program is linked.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    link_the_unwinder_statically();
}

/// Links libgcc's unwinder into the program, where the C compiler of this machine has it as an
/// archive: one shared library less to load is a fifteenth of a healthy run.
fn link_the_unwinder_statically() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("TARGET") != variable("HOST") || variable("CARGO_CFG_TARGET_ENV") != "gnu" {
        return;
    }
    let Ok(found) = Command::new("cc")
        .arg("-print-file-name=libgcc_eh.a")
        .output()
    else {
        return;
    };
    // A compiler that has none prints the bare name.
    let archive = String::from_utf8_lossy(&found.stdout);
    let directory = Path::new(archive.trim()).parent();
    if let Some(directory) = directory.filter(|directory| directory.is_absolute()) {
        println!("cargo::rustc-link-search=native={}", directory.display());
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
