//! Writes what is generated from the program's flags and defaults (manual pages, completions, jobs and
//! the sample configuration) and from CHANGELOG.md (debian/changelog, rpm/changelog).

#[path = "build/catalog.rs"]
mod catalog;
#[path = "build/changelog.rs"]
mod changelog;
#[allow(dead_code, reason = "the program uses the rest")]
#[path = "src/cli.rs"]
mod cli;
#[path = "build/commands.rs"]
mod commands;
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
#[allow(dead_code, reason = "the program uses the rest")]
#[path = "src/notice.rs"]
mod notice;
#[path = "build/page.rs"]
mod page;
#[path = "build/sample.rs"]
mod sample;
#[path = "build/servers.rs"]
mod servers;
#[allow(dead_code, reason = "the program uses the rest")]
#[path = "src/verbs"]
mod verbs {
    pub(crate) mod cli;
}

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/cli.rs");
    println!("cargo::rerun-if-changed=src/verbs/cli.rs");
    println!("cargo::rerun-if-changed=src/notice.rs");
    println!("cargo::rerun-if-changed=src/defaults.rs");
    println!("cargo::rerun-if-changed=src/diagnosis/phrase.rs");
    println!("cargo::rerun-if-changed=src/diagnosis/cause/catalog.rs");
    println!("cargo::rerun-if-changed=CHANGELOG.md");
    println!("cargo::rerun-if-changed=Cargo.toml");
    let [debian_changelog, rpm_changelog] = changelogs()?;
    let date =
        page::date(&debian_changelog).ok_or("CHANGELOG.md: its newest version has no date")?;
    let command = cli::Cli::command();
    let verbs = verbs::cli::Cli::command();
    let mut files = manual::pages(&command, &verbs, &date)?;
    files.extend(completions::scripts(&command, &verbs)?);
    files.extend(jobs::files());
    files.push((
        "packaging/monitor_myvnc.toml",
        sample::configuration(&command),
    ));
    files.push(("systemd/monitor_myvnc.catalog", catalog::text()));
    files.push(("debian/changelog", debian_changelog));
    files.push(("rpm/changelog", rpm_changelog));
    let copy = PathBuf::from(std::env::var("OUT_DIR")?).join("generated");
    for (path, text) in files {
        println!("cargo::rerun-if-changed={path}");
        write_what_differs(&copy.join(path), &text)?;
        // A distribution may build in a read-only tree. A test compares the two copies.
        let _ = write_what_differs(Path::new(path), &text);
    }
    Ok(())
}

/// The released versions as debian/changelog and as rpm/changelog.
fn changelogs() -> Result<[String; 2], Box<dyn Error>> {
    let authors = std::env::var("CARGO_PKG_AUTHORS")?;
    let maintainer = authors.split(':').next().unwrap_or_default();
    if maintainer.is_empty() {
        return Err("Cargo.toml: no authors".into());
    }
    let changelog = fs::read_to_string("CHANGELOG.md")?;
    let releases = changelog::releases(&changelog)
        .ok_or("CHANGELOG.md: a version without a date or a change")?;
    Ok([
        changelog::debian(&releases, "monitor-myvnc", maintainer),
        changelog::rpm(&releases, maintainer),
    ])
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
