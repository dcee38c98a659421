//! Writes what is generated from the program's flags and defaults: manual pages, completions, jobs and
//! the sample configuration.

#[allow(dead_code, reason = "the program uses the rest")]
#[path = "src/cli.rs"]
mod cli;
#[path = "build/completions.rs"]
mod completions;
#[path = "src/defaults.rs"]
#[allow(dead_code, reason = "the program uses the rest")]
mod defaults;
#[allow(dead_code, reason = "the program uses the rest")]
#[path = "src/diagnosis"]
mod diagnosis {
    pub(crate) mod phrase;
    pub(crate) mod cause {
        pub(crate) mod catalog;
    }
}
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

use clap::CommandFactory;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/cli.rs");
    println!("cargo::rerun-if-changed=src/defaults.rs");
    println!("cargo::rerun-if-changed=src/diagnosis/phrase.rs");
    println!("cargo::rerun-if-changed=src/diagnosis/cause/catalog.rs");
    println!("cargo::rerun-if-changed=debian/changelog");
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
