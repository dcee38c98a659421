//! What the build decides: how the program is linked, and the text of all that is generated from its
//! flags and defaults: manual pages, completions, jobs and the sample configuration.

#[allow(dead_code, reason = "the program uses the rest")]
#[path = "src/cli.rs"]
mod cli;
#[path = "build/completions.rs"]
mod completions;
#[path = "src/defaults.rs"]
#[allow(dead_code, reason = "the program uses the rest")]
mod defaults;
#[path = "build/jobs.rs"]
mod jobs;
#[path = "build/manual.rs"]
mod manual;
#[path = "build/page.rs"]
mod page;
#[path = "build/sample.rs"]
mod sample;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/cli.rs");
    println!("cargo::rerun-if-changed=src/defaults.rs");
    println!("cargo::rerun-if-changed=debian/changelog");
    if is_native() {
        link_the_unwinder_statically();
        pack_relocations();
        set_rare_code_apart();
    }
    let date = page::date(&fs::read_to_string("debian/changelog")?)
        .ok_or("debian/changelog: its first entry has no date")?;
    let command = cli::Cli::command();
    let mut files = manual::pages(&command, &date)?;
    files.extend(completions::scripts(&command)?);
    files.extend(jobs::files());
    files.push((
        "packaging/monitor_myvnc.toml",
        sample::configuration(&command),
    ));
    let copy = PathBuf::from(std::env::var("OUT_DIR")?).join("generated");
    for (path, text) in files {
        println!("cargo::rerun-if-changed={path}");
        write_what_differs(&copy.join(path), &text)?;
        // The tree may be read-only, as a distribution's builders have it: a test compares the two.
        let _ = write_what_differs(Path::new(path), &text);
    }
    Ok(())
}

fn write_what_differs(path: &Path, text: &str) -> std::io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// Whether this machine's own linker links for this machine's own C library.
fn is_native() -> bool {
    variable("TARGET") == variable("HOST")
        && variable("RUSTC_LINKER").is_empty()
        && !variable("CARGO_ENCODED_RUSTFLAGS").contains("fuse-ld")
        && variable("CARGO_CFG_TARGET_ENV") == "gnu"
}

/// What a program of this machine prints; empty where it cannot be run.
fn output(program: &str, argument: &str) -> String {
    let ran = Command::new(program).arg(argument).output();
    ran.map(|ran| String::from_utf8_lossy(&ran.stdout).trim().to_owned())
        .unwrap_or_default()
}

/// Links libgcc's unwinder into the program, where the C compiler of this machine has it as an
/// archive: one shared library less to load is a fifteenth of a healthy run.
fn link_the_unwinder_statically() {
    // A compiler that has none prints the bare name.
    let archive = output("cc", "-print-file-name=libgcc_eh.a");
    let directory = Path::new(&archive).parent();
    if let Some(directory) = directory.filter(|directory| directory.is_absolute()) {
        println!("cargo::rustc-link-search=native={}", directory.display());
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}

/// Packs relative relocations (DT_RELR), which glibc knows since 2.36: a tenth less to read and to
/// keep in memory.
fn pack_relocations() {
    let version = output("getconf", "GNU_LIBC_VERSION");
    let numbers = version
        .strip_prefix("glibc ")
        .and_then(|version| version.split_once('.'));
    let numbers =
        numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    if numbers.is_some_and(|numbers: (u32, u32)| numbers >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Sets code that a healthy run does not need apart from the code that every run needs: an eighth
/// less memory.
fn set_rare_code_apart() {
    let script = Path::new(&variable("CARGO_MANIFEST_DIR")).join("build/apart.ld");
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
}
