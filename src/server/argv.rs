//! Is this argv, in this working directory, a MyVNC server? When in doubt, it is not one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Read limit of a process's arguments, in bytes.
pub(crate) const LONGEST_CMDLINE: u64 = 16 << 10;

/// The scripts that a server is started by.
const SCRIPTS: [&[u8]; 3] = [b"main.py", b"run_server.py", MANAGER];
/// The one that starts and stops it.
const MANAGER: &[u8] = b"manage.py";
/// The package that a server can be started as, with `-m`.
const PACKAGE: &[u8] = b"myvnc";
/// Modules of that package that are no server: a user's client, on a terminal or a desktop.
const CLIENTS: [&[u8]; 3] = [b"myvnc.cli", b"myvnc.gui", b"myvnc.main"];
/// Verbs of the terminal client, which `-m myvnc` starts too.
const CLIENT_VERBS: [&[u8]; 3] = [b"list", b"create", b"kill"];
/// Beginnings of the names of interpreters.
const INTERPRETERS: [&[u8]; 3] = [b"python", b"pypy", b"platform-python"];
/// Options of the dynamic loader that take a value (`ld.so(8)`).
const LOADER_OPTIONS: [&[u8]; 6] = [
    b"--library-path",
    b"--preload",
    b"--audit",
    b"--argv0",
    b"--inhibit-rpath",
    b"--glibc-hwcaps-mask",
];
/// Verbs with which `manage.py` ends soon and is no server.
const PASSING_VERBS: [&[u8]; 2] = [b"stop", b"status"];

/// Whether a process with these arguments, as the kernel keeps them, is a MyVNC server:
/// an interpreter whose script is one of `SCRIPTS`, where the script's absolute path or the
/// working directory has "myvnc" (any case) in a component; or `-m myvnc[.…]`. The working
/// directory is asked for only where it can matter; an unknown one is `None`.
pub(crate) fn is_server<'a>(
    mut argv: impl Iterator<Item = &'a [u8]>,
    cwd: impl FnOnce() -> Option<PathBuf>,
) -> bool {
    if !runs_interpreter(&mut argv) {
        return false;
    }
    match program(&mut argv) {
        Some(Program::Module(module)) => {
            is_server_module(module) && !argv.any(|argument| CLIENT_VERBS.contains(&argument))
        }
        Some(Program::Script(script)) => {
            let name = basename(script);
            SCRIPTS.contains(&name)
                && !(name == MANAGER && argv.any(|argument| PASSING_VERBS.contains(&argument)))
                && is_in_myvnc(script, cwd().as_deref())
        }
        None => false,
    }
}

/// Whether a process with these arguments is an interpreter that runs `manage.py`.
pub(crate) fn is_manager<'a>(mut argv: impl Iterator<Item = &'a [u8]>) -> bool {
    runs_interpreter(&mut argv)
        && matches!(program(&mut argv), Some(Program::Script(script)) if basename(script) == MANAGER)
}

/// Whether a path by itself names a MyVNC script: one of `SCRIPTS`, with "myvnc" (any case) in a
/// component.
pub(super) fn is_myvnc_script(path: &[u8]) -> bool {
    SCRIPTS.contains(&basename(path)) && names_myvnc(Path::new(OsStr::from_bytes(path)))
}

/// Whether a command line hands on a process pattern, as a monitor's own does, and that of the shell
/// that runs one: what the pattern matches in it is the pattern.
pub(crate) fn names_a_pattern(command: &str) -> bool {
    command.contains("--process-pattern")
}

/// The script that an interpreter with these arguments runs, as an absolute path where the working
/// directory it was started in is still its own.
pub(crate) fn script<'a>(
    mut argv: impl Iterator<Item = &'a [u8]>,
    cwd: Option<&Path>,
) -> Option<PathBuf> {
    if !runs_interpreter(&mut argv) {
        return None;
    }
    let Some(Program::Script(script)) = program(&mut argv) else {
        return None;
    };
    let script = Path::new(OsStr::from_bytes(script));
    let absolute = match cwd {
        Some(cwd) => cwd.join(script),
        None => script.to_owned(),
    };
    absolute.is_absolute().then(|| without_dots(&absolute))
}

/// What an interpreter was told to run.
#[derive(Debug)]
enum Program<'a> {
    Script(&'a [u8]),
    Module(&'a [u8]),
}

/// Reads the beginning of the arguments up to the interpreter, which the dynamic loader can have been
/// told to run (`ld.so(8)`).
fn runs_interpreter<'a>(argv: &mut impl Iterator<Item = &'a [u8]>) -> bool {
    let Some(first) = argv.next() else {
        return false;
    };
    if !is_loader(first) {
        return is_interpreter(first);
    }
    while let Some(argument) = argv.next() {
        if LOADER_OPTIONS.contains(&argument) {
            argv.next();
        } else if !argument.starts_with(b"--") {
            return is_interpreter(argument);
        }
    }
    false
}

/// `python3.11`, `pypy3`, `platform-python` (Red Hat), `.python3-wrapped` (Nix).
fn is_interpreter(argument: &[u8]) -> bool {
    let name = basename(argument);
    let name = name.strip_prefix(b".").unwrap_or(name);
    INTERPRETERS.iter().any(|one| name.starts_with(one))
}

fn is_loader(argument: &[u8]) -> bool {
    let name = basename(argument);
    name.starts_with(b"ld-") || name.starts_with(b"ld.so") || name.starts_with(b"ld64.so")
}

fn basename(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

/// Reads the interpreter's own options (python(1), pypy(1)) up to its program. An option
/// that is not known, or that runs no file (`-c`, `-`, `-V`, `-h`), is no program.
fn program<'a>(arguments: &mut impl Iterator<Item = &'a [u8]>) -> Option<Program<'a>> {
    while let Some(argument) = arguments.next() {
        match argument {
            b"" | b"-" => return None,
            b"--" => return arguments.next().map(Program::Script),
            b"--check-hash-based-pycs" | b"--jit" => {
                arguments.next()?;
            }
            [b'-', b'-', ..] => return None,
            [b'-', cluster @ ..] => match option(cluster)? {
                Cluster::Flags => (),
                Cluster::WantsValue => {
                    arguments.next()?;
                }
                Cluster::Module(b"") => return arguments.next().map(Program::Module),
                Cluster::Module(module) => return Some(Program::Module(module)),
            },
            script => return Some(Program::Script(script)),
        }
    }
    None
}

/// What a cluster of short options comes to.
enum Cluster<'a> {
    Flags,
    WantsValue,
    Module(&'a [u8]),
}

fn option(cluster: &[u8]) -> Option<Cluster<'_>> {
    for (index, letter) in cluster.iter().enumerate() {
        let rest = &cluster[index + 1..];
        match letter {
            b'm' => return Some(Cluster::Module(rest)),
            b'W' | b'X' | b'Q' => {
                return Some(if rest.is_empty() {
                    Cluster::WantsValue
                } else {
                    Cluster::Flags
                });
            }
            b'b' | b'B' | b'd' | b'E' | b'i' | b'I' | b'O' | b'P' | b'q' | b'R' | b's' | b'S'
            | b't' | b'u' | b'v' | b'x' | b'3' => (),
            _ => return None,
        }
    }
    Some(Cluster::Flags)
}

fn is_server_module(module: &[u8]) -> bool {
    let is = |package: &[u8]| {
        module
            .strip_prefix(package)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
    };
    is(PACKAGE) && !CLIENTS.into_iter().any(is)
}

fn is_in_myvnc(script: &[u8], cwd: Option<&Path>) -> bool {
    let script = Path::new(OsStr::from_bytes(script));
    let absolute = match cwd {
        Some(cwd) => Some(cwd.join(script)),
        None => script.is_absolute().then(|| script.to_owned()),
    };
    absolute.as_deref().is_some_and(names_myvnc) || cwd.is_some_and(names_myvnc)
}

fn names_myvnc(path: &Path) -> bool {
    without_dots(path)
        .components()
        .any(|component| match component {
            Component::Normal(name) => name
                .to_ascii_lowercase()
                .as_bytes()
                .windows(PACKAGE.len())
                .any(|part| part == PACKAGE),
            _ => false,
        })
}

/// `/a/../b` as `/b`: a component that is left again names nothing.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => (),
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// The arguments in what the kernel keeps, each ended by NUL (`proc_pid_cmdline(5)`).
pub(super) fn arguments(cmdline: &[u8]) -> impl Iterator<Item = &[u8]> {
    let argv = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    argv.split(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
