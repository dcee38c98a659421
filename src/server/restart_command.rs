//! The restart command: its shell, environment, session and output file.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{AccessFlags, access, geteuid};

use crate::journal::plain;
use crate::sys::pidfd::Pidfd;
use crate::sys::{account, bounded, ffi, files};

/// As many of its last lines of output tell why a command failed.
pub(crate) const LAST_LINES: usize = 50;
/// As many bytes of them are read at most.
const LAST_BYTES: u64 = 64 * 1024;
/// Who may read their output.
const OUTPUT_MODE: u32 = 0o640;
/// Where commands are looked for when PATH is not set.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The shells that run the command, the best first: the manual promises `source`.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// Looking at the program of a command takes no longer: it may be on a disk that does not answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Why this command cannot run, as far as can be told without running it: its first word is
/// a path at which nothing can be executed. `None` also in every doubt.
pub(crate) async fn unusable(command: &str) -> Option<String> {
    let program = first_path(command)?;
    let looked = bounded::ask(LOOK_TIMEOUT, || unusable_program(&program)).await;
    let reason = looked.ok().flatten().flatten()?;
    Some(format!("{}: {reason}", program.display()))
}

fn unusable_program(program: &Path) -> Option<String> {
    Some(match std::fs::metadata(program) {
        Err(reason) => plain(&reason),
        Ok(metadata) if metadata.is_dir() => "is a directory".into(),
        Ok(_) => plain(&access(program, AccessFlags::X_OK).err()?.into()),
    })
}

/// The first word of a shell command, after assignments, where it is plainly a path, and
/// where nothing of the command can start the server if that path cannot run.
fn first_path(command: &str) -> Option<PathBuf> {
    // `&&` runs nothing after a failure, and `2>&1` runs nothing at all; what runs other
    // commands beside the first one, or after it whatever became of it, is a doubt.
    let others = command.replace("&&", " ").replace(">&", ">");
    let others = others.trim_end_matches([';', '&', ' ', '\t', '\n']);
    if others
        .trim_start()
        .contains([';', '&', '|', '\n', '`', '('])
    {
        return None;
    }
    let is_assignment = |word: &String| {
        word.split_once('=').is_some_and(|(name, value)| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                && !value.contains('{')
        })
    };
    // Quoting and word splitting are shlex's; a word that the shell would expand is not plain.
    let words = shlex::split(command)?;
    let word = words.iter().find(|word| !is_assignment(word))?;
    let is_plain = !word.contains([
        '$', '~', '*', '?', '[', '{', ')', '<', '>', '&', ';', '#', '!', '=',
    ]);
    (word.contains('/') && is_plain).then(|| word.into())
}

/// A restart command that was started.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    exit: Pidfd,
    /// Where its output goes, and where in it that begins.
    output: Option<(File, u64)>,
}

/// Starts the command detached: a session of its own, nothing on stdin, its output appended
/// to a file that a server may go on writing to for days, and none of our descriptors.
/// The second value says why the output is lost, where it is.
pub(crate) fn start(command: &str, output: &Path) -> io::Result<(Running, Option<io::Error>)> {
    let (file, lost) = match open_output(output) {
        Ok(file) => (Some(file), None),
        Err(reason) => (None, Some(reason)),
    };
    let position = match &file {
        Some(file) => Some((file.try_clone()?, file.metadata()?.len())),
        None => None,
    };
    let mut shell = Command::new(shell());
    shell
        .arg("-c")
        .arg(command)
        .envs(missing_environment())
        .stdin(Stdio::null());
    match file {
        Some(file) => shell.stdout(file.try_clone()?).stderr(file),
        None => shell.stdout(Stdio::null()).stderr(Stdio::null()),
    };
    ffi::detach(&mut shell);
    let child = shell.spawn()?;
    let exit = Pidfd::of(i32::try_from(child.id()).unwrap_or_default());
    Ok((
        Running {
            child,
            exit,
            output: position,
        },
        lost,
    ))
}

impl Running {
    /// The PID of the shell, or of what it became by `exec`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the command to end.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            self.exit.near().await;
        }
    }

    /// The last lines that the command wrote.
    pub(crate) fn last_lines(&self) -> io::Result<Vec<String>> {
        let Some((file, from)) = &self.output else {
            return Ok(Vec::new());
        };
        // By the file that we opened: the path may lead elsewhere by now.
        let end = file.metadata()?.len();
        let start = (*from).max(end.saturating_sub(LAST_BYTES));
        let length = usize::try_from(end.saturating_sub(start)).unwrap_or_default();
        let mut bytes = vec![0; length];
        let read = file.read_at(&mut bytes, start)?;
        bytes.truncate(read);
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(LAST_LINES)..]
            .iter()
            .map(|line| (*line).to_owned())
            .collect())
    }
}

fn open_output(path: &Path) -> io::Result<File> {
    let file = files::open_append(path, OUTPUT_MODE)?;
    // A server must not fail because its output goes to a disk that is full already.
    let disk = fstatvfs(&file)?;
    let free = if geteuid().is_root() {
        disk.blocks_free()
    } else {
        disk.blocks_available()
    };
    if disk.blocks() > 0 && free == 0 {
        return Err(Errno::ENOSPC.into());
    }
    Ok(file)
}

/// The shell that runs what the administrator has given.
pub(super) fn shell() -> &'static str {
    let [bash, sh] = SHELLS;
    if access(bash, AccessFlags::X_OK).is_ok() {
        bash
    } else {
        sh
    }
}

/// USER, LOGNAME, HOME, SHELL and PATH, where they are missing: cron sets no USER, and
/// `manage.py` recognises a running server by it.
fn missing_environment() -> Vec<(&'static str, OsString)> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let named = set("USER").or_else(|| set("LOGNAME"));
    let is_complete = named.is_some() && set("HOME").is_some() && set("SHELL").is_some();
    let account = if is_complete {
        None
    } else {
        account::by_uid(geteuid()).ok().flatten()
    };
    let user = named.or_else(|| account.as_ref().map(|account| account.name.clone().into()));
    let wanted = [
        ("USER", user.clone()),
        ("LOGNAME", user),
        (
            "HOME",
            account.as_ref().map(|account| account.dir.clone().into()),
        ),
        (
            "SHELL",
            account.as_ref().map(|account| account.shell.clone().into()),
        ),
        ("PATH", Some(PATH.into())),
    ];
    let missing = wanted.into_iter().filter(|(name, _)| set(name).is_none());
    missing
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_command_has_a_first_path_only_beyond_doubt() {
        for (command, expected) in [
            ("/a/b", Some("/a/b")),
            ("/a/b --config_dir=/c restart", Some("/a/b")),
            ("  /a/b\n", Some("/a/b")),
            ("./relative start", Some("./relative")),
            ("bin/relative", Some("bin/relative")),
            ("USER=vnc LANG=C /a/b start", Some("/a/b")),
            ("PATH=$HOME/bin:$PATH _x=1 /a/b", Some("/a/b")),
            ("A='x y' /a/b", Some("/a/b")),
            ("A= /a/b", Some("/a/b")),
            ("\"/a/my prog\" start", Some("/a/my prog")),
            ("'/a/my prog' start", Some("/a/my prog")),
            ("/a/my\\ prog start", Some("/a/my prog")),
            ("/a/b --name \"$NAME\" *.json", Some("/a/b")),
            ("/a/b > /var/log/b.log 2>&1", Some("/a/b")),
            ("/a/b start &", Some("/a/b")),
            ("/a/b start;", Some("/a/b")),
            ("/a/b && echo done", Some("/a/b")),
            ("/ä/ö", Some("/ä/ö")),
            ("/a/b # start it", Some("/a/b")),
            // Found by PATH, or a word of the shell's own.
            ("", None),
            ("manage.py start", None),
            ("systemctl restart myvnc", None),
            ("source /etc/profile && /a/b", None),
            (". /etc/profile && /a/b", None),
            ("cd /x && ./y", None),
            ("exec /a/b", None),
            ("sudo -u vnc /a/b", None),
            ("env A=b /a/b", None),
            ("time /a/b", None),
            ("! /a/b", None),
            ("{ /a/b; }", None),
            ("( /a/b )", None),
            ("(/a/b)", None),
            ("if /a/b; then /c/d; fi", None),
            ("[ -x /a/b ] && /a/b", None),
            ("A=/a/b", None),
            ("# /a/b", None),
            // The shell makes something else of it.
            ("~/x", None),
            ("~vnc/x start", None),
            ("$HOME/x", None),
            ("\"$HOME/x\" start", None),
            ("${DIR}/x", None),
            ("$(which x)/y", None),
            ("`which x`/y", None),
            ("/opt/*/manage.py", None),
            ("/opt/myvnc-?/manage.py", None),
            ("/opt/myvnc-[12]/manage.py", None),
            ("/opt/{a,b}/manage.py", None),
            ("/a/b>/c/d", None),
            ("</dev/null /a/b", None),
            (">/tmp/log /a/b", None),
            ("2>/tmp/log /a/b", None),
            ("PATH+=:/opt/bin manage.py start", None),
            ("A=$(cat /etc/hostname ) /a/b", None),
            ("A=`cat /etc/hostname ` /a/b", None),
            ("A=( /x /y ) && /a/b", None),
            ("A=${B:-a /x } /a/b", None),
            ("A[0]=/x /a/b", None),
            // Something else of it may start the server.
            ("/a/b;ls", None),
            ("/a/b; /c/d", None),
            ("/a/b || /c/d", None),
            ("/a/b && /c/d || /e/f", None),
            ("/a/b & /c/d", None),
            ("/a/b | /c/d", None),
            ("/a/b\n/c/d", None),
            ("/a/b 'x' ; /c/d", None),
            ("/a/b \"$(/c/d)\"", None),
            ("/a/b `/c/d`", None),
            ("/a/b >(/c/d)", None),
            // Not even the shell can read it.
            ("\"/a/b start", None),
            ("/a/b 'start", None),
            ("/a/b it's", None),
            ("/a/b \\", None),
        ] {
            assert_eq!(
                first_path(command),
                expected.map(PathBuf::from),
                "{command}"
            );
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_cannot_be_executed_is_unusable() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (name, mode) in [("runs", 0o755), ("my prog", 0o700), ("plain", 0o644)] {
            std::fs::write(at(name), "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        symlink("runs", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        let root = directory.path().display();
        for (command, expected) in [
            ("@/runs start", None),
            ("'@/my prog' start", None),
            ("A=b @/link", None),
            (
                "@/absent start",
                Some(("absent", "No such file or directory")),
            ),
            (
                "@/dangling",
                Some(("dangling", "No such file or directory")),
            ),
            ("@/plain start", Some(("plain", "Permission denied"))),
            (
                "A=b '@/plain' >> @/log 2>&1",
                Some(("plain", "Permission denied")),
            ),
            ("@/runs/x", Some(("runs/x", "Not a directory"))),
            ("@/", Some(("", "is a directory"))),
            ("source @/absent && @/runs", None),
            ("@/absent; @/runs", None),
            ("@/absent || @/runs", None),
            ("@/abs* start", None),
            ("absent", None),
        ] {
            let expected = expected.map(|(name, why)| format!("{root}/{name}: {why}"));
            assert_eq!(
                unusable(&command.replace('@', &root.to_string())).await,
                expected,
                "{command}"
            );
        }
    }
}
