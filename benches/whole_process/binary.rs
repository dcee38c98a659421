//! The monitor that is measured: the program of the packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::SystemTime;
use std::{env, fs};

use crate::rig::MONITOR;

/// Names the program of an earlier commit.
pub(crate) const BASELINE: &str = "MONITOR_BENCH_BASELINE";

/// Names the program to measure. The bench sets it for itself in a namespace.
pub(crate) const VARIABLE: &str = "MONITOR_BENCH_BINARY";
const TREE: &str = env!("CARGO_MANIFEST_DIR");
/// What packaging/build makes, in the tree.
const PACKAGED: &str = "target/x86_64-unknown-linux-musl/release/monitor_myvnc";
/// What the program is built from, in the tree.
const SOURCES: [&str; 6] = [
    "src",
    "build",
    "build.rs",
    "Cargo.toml",
    "Cargo.lock",
    "packaging/build",
];
/// Where `.ci/run` installs the packaging tools, unless this variable names another place.
const CACHE: (&str, &str) = ("MONITOR_MYVNC_CACHE", "/var/cache/monitor_myvnc-tests");

struct Measured {
    path: PathBuf,
    description: String,
}

static MEASURED: LazyLock<Measured> = LazyLock::new(|| {
    if let Some(path) = env::var_os(VARIABLE) {
        let path = fs::canonicalize(&path).unwrap_or_else(|reason| panic!("{path:?}: {reason}"));
        let description = format!("{}, which {VARIABLE} names", path.display());
        return Measured { path, description };
    }
    let path = Path::new(TREE).join(PACKAGED);
    match find_packaged(&path) {
        Ok(description) => Measured { path, description },
        Err(reason) => Measured {
            path: MONITOR.into(),
            description: format!("the NATIVE release program, not that of the packages: {reason}"),
        },
    }
});

/// The path of the monitor that is measured.
pub(crate) fn monitor() -> &'static Path {
    &MEASURED.path
}

/// Which monitor is measured, and why that one.
pub(crate) fn describe() -> &'static str {
    &MEASURED.description
}

fn find_packaged(path: &Path) -> Result<String, String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("that is built for x86_64 here".into());
    }
    let newest_source = SOURCES
        .iter()
        .map(|source| newest(&Path::new(TREE).join(source)))
        .max();
    let built = fs::metadata(path).and_then(|metadata| metadata.modified());
    if built.is_ok_and(|built| Some(built) > newest_source) {
        return Ok(format!("{PACKAGED}, newer than the sources"));
    }
    eprintln!("building the packages' program: packaging/build --program");
    let cache = env::var_os(CACHE.0).unwrap_or_else(|| CACHE.1.into());
    let tools = Path::new(&cache).join("tools");
    let mut folders = vec![tools.join("bin"), tools.join("python/bin")];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let built = Command::new(Path::new(TREE).join("packaging/build"))
        .arg("--program")
        .env("PATH", env::join_paths(folders).unwrap())
        .stdout(std::io::stderr())
        .status();
    match built {
        Ok(status) if status.success() => Ok(format!("{PACKAGED}, built just now")),
        Ok(status) => Err(format!("packaging/build --program: {status}")),
        Err(reason) => Err(format!("packaging/build: {reason}")),
    }
}

/// When the newest file there was modified.
fn newest(path: &Path) -> SystemTime {
    let metadata = fs::metadata(path).unwrap();
    if !metadata.is_dir() {
        return metadata.modified().unwrap();
    }
    let entries = fs::read_dir(path).unwrap();
    entries
        .map(|entry| newest(&entry.unwrap().path()))
        .max()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}
