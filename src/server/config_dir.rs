//! The configuration that a MyVNC server is started with: which directory the restart command and a
//! process name, and what `server_config.json` in it says.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::proc::process::Proc;
use crate::sys::files::Directory;

/// How `manage.py` and `main.py` are told their configuration.
const OPTION: &str = "--config_dir";
const VARIABLE: &str = "MYVNC_CONFIG_DIR";
/// The file in it that says where the server listens.
const SERVER_CONFIG: &str = "server_config.json";
/// Read limit of that file, in bytes.
const LARGEST_CONFIG: u64 = 1 << 20;
/// Read limit of a process's environment, in bytes.
const LARGEST_ENVIRONMENT: u64 = 256 << 10;

/// The configuration directory that a command line names, for `manage.py` or for the server itself.
pub(crate) fn config_dir(command: &str) -> Option<PathBuf> {
    let words = shlex::split(command)?;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = match word.split_once('=') {
            Some((OPTION | VARIABLE, value)) => value,
            None if word == OPTION => words.next()?,
            _ => continue,
        };
        // What the shell would expand, or what depends on the working directory, is not known here.
        let path = Path::new(value);
        let is_plain = path.is_absolute() && !value.contains(|c| "$`*?~;&|<>(){}[]#!".contains(c));
        return is_plain.then(|| path.components().collect());
    }
    None
}

/// With which configuration a process was started, compared with that of the restart command.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Configured {
    /// One of the two is not known.
    Unknown,
    /// The same.
    Same,
    /// Another one.
    Different,
    /// The process names none, and the restart command names one.
    NotNamed,
}

/// Whether a process was started with this configuration. What cannot be read decides nothing. The
/// disk of either directory can block: call it in a process that can be abandoned.
pub(super) fn compare(pid: i32, cmdline: &[u8], ours: &Path) -> Configured {
    let environment = Proc::here().environ(pid, LARGEST_ENVIRONMENT);
    let its = in_arguments(cmdline).or_else(|| in_environment(environment.as_deref().ok()?));
    match its {
        None if environment.is_err() => Configured::Unknown,
        None => Configured::NotNamed,
        // It depends on the working directory in which its program was started.
        Some(its) if !its.is_absolute() => Configured::Unknown,
        Some(its) if its == ours => Configured::Same,
        Some(its) => match (real(&its), real(ours)) {
            (Ok(its), Ok(ours)) if its == ours => Configured::Same,
            (Ok(_), Ok(_)) => Configured::Different,
            _ => Configured::Unknown,
        },
    }
}

/// A path without its links, or as it is where it is not there.
fn real(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(reason) if reason.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        real => real,
    }
}

/// `--config_dir DIR` or `--config_dir=DIR`.
fn in_arguments(cmdline: &[u8]) -> Option<PathBuf> {
    let mut argv = cmdline.split(|byte| *byte == 0);
    while let Some(argument) = argv.next() {
        let value = match argument.strip_prefix(OPTION.as_bytes()) {
            Some(b"") => argv.next()?,
            Some(value) => match value.strip_prefix(b"=") {
                Some(value) => value,
                None => continue,
            },
            None => continue,
        };
        return Some(Path::new(OsStr::from_bytes(value)).components().collect());
    }
    None
}

/// `manage.py` names it to its server in the environment.
fn in_environment(environment: &[u8]) -> Option<PathBuf> {
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|one| {
        let value = one.strip_prefix(VARIABLE.as_bytes())?;
        value.strip_prefix(b"=")
    })?;
    Some(Path::new(OsStr::from_bytes(value)).components().collect())
}

/// What `server_config.json` says of the server's address and log.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct ServerConfig {
    /// A name or address of the server.
    #[serde(default)]
    pub(crate) host: Option<String>,
    /// The port that it listens on.
    #[serde(default)]
    pub(crate) port: Option<u16>,
    /// The directory of its own log.
    #[serde(default)]
    pub(crate) logdir: Option<String>,
}

/// Where it is in the configuration directory.
pub(crate) fn path(directory: &Path) -> PathBuf {
    directory.join(SERVER_CONFIG)
}

/// Reads it; what cannot be read or understood is unknown. The disk can block, as for `compare`.
pub(crate) fn read(directory: &Path) -> ServerConfig {
    let mut text = Vec::new();
    let read = Directory::open(directory)
        .and_then(|directory| directory.read(OsStr::new(SERVER_CONFIG)))
        .and_then(|file| file.take(LARGEST_CONFIG).read_to_end(&mut text));
    match read {
        Ok(_) => parse(&text),
        Err(_) => ServerConfig::default(),
    }
}

/// A key of another type than expected costs that key alone.
fn parse(text: &[u8]) -> ServerConfig {
    let Ok(serde_json::Value::Object(keys)) = serde_json::from_slice(text) else {
        return ServerConfig::default();
    };
    let text = |key: &str| {
        let value = keys.get(key)?.as_str()?;
        (!value.is_empty()).then(|| value.to_owned())
    };
    let port = keys.get("port");
    let port = port.and_then(|port| match port {
        serde_json::Value::String(text) => text.parse().ok(),
        other => u16::try_from(other.as_u64()?).ok(),
    });
    ServerConfig {
        host: text("host"),
        port: port.filter(|port| *port != 0),
        logdir: text("logdir"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hazard_42_what_its_owner_links_to_is_not_opened() {
        use std::os::unix::fs::{chown, symlink};
        if !nix::unistd::geteuid().is_root() {
            return crate::skip::skip("only root can give a directory to another user");
        }
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own.json");
        std::fs::write(&own, r#"{"port": 9143}"#).unwrap();
        symlink(&own, directory.path().join(SERVER_CONFIG)).unwrap();
        assert_eq!(read(directory.path()).port, Some(9143));
        chown(directory.path(), Some(61_234), None).unwrap();
        assert_eq!(read(directory.path()), ServerConfig::default());
    }

    #[test]
    fn the_configuration_of_a_command_is_read_where_it_is_plain() {
        for (command, expected) in [
            (
                "/o/manage.py --config_dir=/etc/myvnc restart",
                Some("/etc/myvnc"),
            ),
            (
                "/o/manage.py --config_dir /etc/myvnc/ restart",
                Some("/etc/myvnc"),
            ),
            (
                "MYVNC_CONFIG_DIR=/etc/myvnc /o/manage.py start",
                Some("/etc/myvnc"),
            ),
            (
                "/o/manage.py --config_dir='/etc/my vnc' start",
                Some("/etc/my vnc"),
            ),
            ("/o/manage.py --config_dir=$HOME/c start", None),
            ("/o/manage.py --config_dir=c start", None),
            ("/o/manage.py start", None),
            ("/o/manage.py --config_dir", None),
        ] {
            assert_eq!(
                config_dir(command),
                expected.map(PathBuf::from),
                "{command}"
            );
        }
    }

    #[test]
    fn the_configuration_of_a_process_is_in_its_arguments_or_its_environment() {
        let path = |text: &str| Some(PathBuf::from(text));
        for (cmdline, expected) in [
            (&b"python3\0main.py\0--config_dir\0/c/\0"[..], path("/c")),
            (b"python3\0main.py\0--config_dir=/c\0", path("/c")),
            (b"python3\0main.py\0--config_dirs=/c\0", None),
            (b"python3\0main.py\0", None),
        ] {
            assert_eq!(in_arguments(cmdline), expected);
        }
        assert_eq!(in_environment(b"A=1\0MYVNC_CONFIG_DIR=/c\0"), path("/c"));
        assert_eq!(in_environment(b"A=1\0MYVNC_CONFIG_DIRS=/c\0"), None);
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn two_configurations_are_the_same_whatever_link_leads_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("ours")).unwrap();
        std::fs::create_dir(at("other")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("ours", at("link")).unwrap();
        let mut bare = std::process::Command::new("sleep");
        bare.arg("600").env_clear();
        let mut named = std::process::Command::new("sleep");
        named.arg("600").env(VARIABLE, at("other"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut bare = bare.env("PATH", path).spawn().unwrap();
        let mut named = named.spawn().unwrap();
        let pid = |child: &std::process::Child| i32::try_from(child.id()).unwrap();
        // A program that has just been started has no environment for a moment.
        for child in [pid(&bare), pid(&named)] {
            while Proc::here()
                .environ(child, LARGEST_ENVIRONMENT)
                .unwrap()
                .is_empty()
            {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        let no_process = i32::MAX;
        let compared = |pid, name: Option<&str>| {
            let argument = name.map(|name| at(name).display().to_string());
            let cmdline =
                argument.map_or("sleep".to_owned(), |its| format!("sleep\0{OPTION}\0{its}"));
            compare(pid, cmdline.as_bytes(), &at("ours"))
        };
        let found = [
            compared(pid(&bare), Some("ours")),
            compared(pid(&bare), Some("link")),
            compared(pid(&bare), Some("other")),
            compared(pid(&bare), Some("absent")),
            // It cannot be resolved.
            compared(pid(&bare), Some("file/below")),
            compared(pid(&bare), None),
            compared(pid(&named), None),
            compared(pid(&named), Some("ours")),
            compared(no_process, None),
            compared(no_process, Some("ours")),
            // It depends on a working directory.
            compare(
                pid(&bare),
                b"sleep\0--config_dir=config",
                Path::new("config"),
            ),
            // Neither is there.
            compare(pid(&bare), b"sleep\0--config_dir=/no/a", Path::new("/no/b")),
            compare(pid(&bare), b"sleep\0--config_dir=/no/a", Path::new("/no/a")),
            // One name is one directory, even where it cannot be resolved.
            compare(
                pid(&bare),
                b"sleep\0--config_dir=/dev/null/a",
                Path::new("/dev/null/a"),
            ),
        ];
        for child in [&mut bare, &mut named] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let (same, different) = (Configured::Same, Configured::Different);
        let unknown = Configured::Unknown;
        let expected = [
            same,
            same,
            different,
            different,
            unknown,
            Configured::NotNamed,
            different,
            same,
            unknown,
            same,
            unknown,
            different,
            same,
            same,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_server_config_is_read_from_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), ServerConfig::default());
        let file = directory.path().join(SERVER_CONFIG);
        std::fs::write(&file, br#"{"port": 9123}"#).unwrap();
        assert_eq!(read(directory.path()).port, Some(9123));
        // A longer text is cut, and then no JSON.
        let length = usize::try_from(LARGEST_CONFIG).unwrap();
        let text = format!("{{\"port\": 9123}}{}", " ".repeat(length - 14));
        std::fs::write(&file, &text).unwrap();
        assert_eq!(read(directory.path()).port, Some(9123));
        let text = format!("{}{{\"port\": 9123}}", " ".repeat(length));
        std::fs::write(&file, text).unwrap();
        assert_eq!(read(directory.path()), ServerConfig::default());
    }

    #[test]
    fn a_server_config_is_read_as_far_as_it_makes_sense() {
        let full = parse(br#"{"host": "vm", "port": 9123, "logdir": "/l", "debug": true}"#);
        assert_eq!(full.host.as_deref(), Some("vm"));
        assert_eq!(
            (full.port, full.logdir.as_deref()),
            (Some(9123), Some("/l"))
        );
        assert_eq!(parse(br#"{"port": "9123"}"#).port, Some(9123));
        for odd in [
            &br#"{"port": 70000}"#[..],
            br#"{"port": 0}"#,
            br#"{"port": -1}"#,
            br#"{"port": [], "host": 7, "logdir": ""}"#,
            b"[]",
            b"{",
            b"",
            b"\xff",
        ] {
            assert_eq!(parse(odd), ServerConfig::default());
        }
    }

    #[test]
    fn fuzz_server_configuration() {
        let seeds: [&[u8]; 3] = [
            br#"{"host": "vm", "port": 9123, "logdir": "/l", "debug": true}"#,
            br#"{"port": "80", "host": ["\u00e9\ud800"], "x": {"y": [1e400, null]}}"#,
            b"[[[[",
        ];
        let target = |bytes: &[u8]| {
            parse(bytes);
        };
        crate::fuzz::fuzz(&seeds, target);
        for piece in ["[", "{\"a\":", "\"\\\\", " ", "9"] {
            crate::fuzz::linear(|size| piece.repeat(size / piece.len()).into_bytes(), target);
        }
    }
}
