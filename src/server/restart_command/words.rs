//! What the text of a restart command says, without running it. Pure; quoting and word splitting are
//! shlex's.

use std::path::PathBuf;

use super::Mistake;
use crate::server::argv;

/// Commands that run others as another user, or have them run elsewhere.
const CHANGERS: [&str; 7] = [
    "su",
    "sudo",
    "doas",
    "runuser",
    "setpriv",
    "systemctl",
    "systemd-run",
];
/// What `manage.py` is asked for to start a server.
const VERBS: [&str; 2] = ["start", "restart"];
/// Names that the shell takes for itself (bash(1), SHELL BUILTIN COMMANDS and RESERVED WORDS), as far as
/// they can begin a restart command.
const SHELLS_OWN: [&str; 30] = [
    ".", "alias", "builtin", "case", "cd", "command", "declare", "echo", "eval", "exec", "exit",
    "export", "false", "for", "function", "if", "let", "printf", "pushd", "set", "shopt", "source",
    "test", "time", "trap", "true", "ulimit", "umask", "until", "while",
];
/// Levels of commands inside of words, such as `sh -c "sh -c '…'"`, that are looked into.
const DEPTH: u32 = 4;
/// What ends a word outside of quotes.
const OPERATORS: &str = ";&|()<>`";

/// The first word that names a MyVNC script, by the rule for the arguments of a process: `main.py`,
/// `run_server.py` or `manage.py` with "myvnc" in a component of its path.
pub(crate) fn myvnc_script(command: &str) -> Option<PathBuf> {
    let words = words(command, DEPTH);
    let mut values = words.iter().map(|word| value(word));
    values
        .find(|path| argv::is_myvnc_script(path.as_bytes()))
        .map(PathBuf::from)
}

/// Whether a word of the command is one that changes the user, so that who runs it is its own matter.
pub(crate) fn changes_user(command: &str) -> bool {
    words(command, DEPTH).iter().any(|word| is_changer(word))
}

/// The paths of the programs that run as the restart command's user: all words that are literal paths, up to the
/// MyVNC script or a command that changes the user; only the first such word if there is neither.
pub(super) fn programs(command: &str) -> Vec<PathBuf> {
    let words = words(command, DEPTH);
    let is_last = |word: &String| is_changer(word) || argv::is_myvnc_script(word.as_bytes());
    let end = words.iter().position(is_last);
    let paths = words[..end.map_or(words.len(), |last| last + 1)]
        .iter()
        .filter(|word| word.contains('/') && !word.starts_with('-') && is_plain(word))
        .map(PathBuf::from);
    paths.take(end.map_or(1, |_| usize::MAX)).collect()
}

/// What is wrong with a command as it is written: it starts nothing, or the monitor cannot see whether
/// it worked.
pub(super) fn mistake(command: &str) -> Option<Mistake> {
    let end = command.trim_end();
    if end.ends_with('&') && !end.ends_with("&&") {
        return Some(Mistake::InBackground);
    }
    let words = words(command, DEPTH);
    let is_manage =
        |word: &String| argv::is_myvnc_script(word.as_bytes()) && word.ends_with("manage.py");
    let script = words.iter().position(is_manage)?;
    let starts = words[script..].iter().any(|word| is_verb(word));
    (!starts).then_some(Mistake::NoVerb)
}

/// The first word of a shell command as [`first_path`] reads it, where it is a name to be looked for in
/// PATH, and nothing of the shell itself.
pub(super) fn first_name(command: &str) -> Option<String> {
    let word = first_word(command)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    (word.chars().all(is_name) && !SHELLS_OWN.contains(&word.as_str())).then_some(word)
}

/// The first word of a shell command, after assignments, if it is a literal path and nothing else in the command can
/// start the server.
pub(super) fn first_path(command: &str) -> Option<PathBuf> {
    let word = first_word(command)?;
    (word.contains('/') && is_plain(&word)).then(|| word.into())
}

fn first_word(command: &str) -> Option<String> {
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
    words.into_iter().find(|word| !is_assignment(word))
}

/// Whether the shell makes nothing else of a word.
fn is_plain(word: &str) -> bool {
    !word.contains([
        '$', '~', '*', '?', '[', '{', ')', '<', '>', '&', ';', '#', '!', '=',
    ])
}

/// Whether a word of the command, or of one that it holds, starts a server.
pub(crate) fn has_verb(command: &str) -> bool {
    words(command, DEPTH).iter().any(|word| is_verb(word))
}

/// Whether this word asks `manage.py` to start a server.
fn is_verb(word: &str) -> bool {
    VERBS.contains(&word)
}

fn is_changer(word: &str) -> bool {
    let name = value(word).rsplit('/').next().unwrap_or_default();
    !word.starts_with('-') && CHANGERS.contains(&name)
}

/// `VALUE` of `NAME=VALUE` and `--name=VALUE`; any other word as it is.
fn value(word: &str) -> &str {
    match word.split_once('=') {
        Some((name, value)) if !name.contains('/') => value,
        _ => word,
    }
}

/// The words of a command, each followed by those of the command that it holds, if it can be one.
fn words(command: &str, depth: u32) -> Vec<String> {
    let plain = without_operators(command);
    let words = shlex::split(&plain).unwrap_or_else(|| {
        // The shell may refuse it too. What it names is named all the same.
        let pieces = plain.split(|c: char| c.is_whitespace() || "'\"\\".contains(c));
        let pieces = pieces.filter(|piece| !piece.is_empty());
        pieces.map(str::to_owned).collect()
    });
    let mut all = Vec::new();
    for word in words {
        let can_be_a_command = word.contains(|c: char| c.is_whitespace() || OPERATORS.contains(c));
        let inner = if can_be_a_command && depth > 0 {
            self::words(&word, depth - 1)
        } else {
            Vec::new()
        };
        all.push(word);
        all.extend(inner);
    }
    all
}

/// A command with spaces for the operators outside of its quotes, and without comments.
fn without_operators(command: &str) -> String {
    let mut plain = String::with_capacity(command.len());
    let (mut quote, mut before) = (None, ' ');
    let mut characters = command.chars();
    while let Some(c) = characters.next() {
        let seen = match (quote, c) {
            (None | Some('"'), '\\') => {
                plain.push(c);
                characters.next().unwrap_or(c)
            }
            (None, '#') if before.is_whitespace() => {
                characters.by_ref().find(|c| *c == '\n');
                '\n'
            }
            (None, c) if OPERATORS.contains(c) => ' ',
            (None, '\'' | '"') => {
                quote = Some(c);
                c
            }
            (Some(open), c) if open == c => {
                quote = None;
                c
            }
            (_, c) => c,
        };
        plain.push(seen);
        before = seen;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_myvnc_script_of_a_command() {
        for (command, expected) in [
            ("/opt/myvnc/manage.py start", Some("/opt/myvnc/manage.py")),
            (
                "/opt/MyVNC-2/.venv/bin/python3 /opt/MyVNC-2/main.py --host x",
                Some("/opt/MyVNC-2/main.py"),
            ),
            (
                "cd /opt && myvnc/run_server.py",
                Some("myvnc/run_server.py"),
            ),
            (
                "cd /;/opt/myvnc/manage.py restart",
                Some("/opt/myvnc/manage.py"),
            ),
            (
                "A=b exec '/opt/my myvnc/manage.py'",
                Some("/opt/my myvnc/manage.py"),
            ),
            (
                "sh -c '/opt/myvnc/manage.py start'",
                Some("/opt/myvnc/manage.py"),
            ),
            (
                "bash -lc \"sh -c '/opt/myvnc/manage.py start&'\"",
                Some("/opt/myvnc/manage.py"),
            ),
            (
                "S=/opt/myvnc/manage.py; $S start",
                Some("/opt/myvnc/manage.py"),
            ),
            (
                "sudo -u vnc /opt/myvnc/manage.py start",
                Some("/opt/myvnc/manage.py"),
            ),
            ("$HOME/myvnc/manage.py start", Some("$HOME/myvnc/manage.py")),
            ("(/opt/myvnc/manage.py start)", Some("/opt/myvnc/manage.py")),
            (
                "/opt/myvnc/manage.py 'unbalanced",
                Some("/opt/myvnc/manage.py"),
            ),
            (
                "/opt/a=b/myvnc/manage.py start",
                Some("/opt/a=b/myvnc/manage.py"),
            ),
            // Not a script of MyVNC's, or not named.
            ("cd /opt/myvnc && ./manage.py start", None),
            ("/opt/django/manage.py start", None),
            ("/opt/myvnc/manage.py.bak start", None),
            ("/opt/myvnc/../django/manage.py start", None),
            ("/opt/myvnc/bin/start", None),
            ("/opt/myvnc/manage.pyc", None),
            ("start # /opt/myvnc/manage.py", None),
            ("systemctl restart myvnc", None),
            ("echo manage.py", None),
            ("", None),
        ] {
            assert_eq!(
                myvnc_script(command),
                expected.map(PathBuf::from),
                "{command}"
            );
        }
    }

    #[test]
    fn manage_py_needs_a_verb_after_it() {
        for (command, expected) in [
            ("/opt/myvnc/manage.py start", None),
            ("start /opt/myvnc/manage.py", Some(Mistake::NoVerb)),
            ("/opt/django/manage.py migrate", None),
            ("/opt/myvnc/main.py --host x", None),
            ("/opt/myvnc/manage.py start & ", Some(Mistake::InBackground)),
            ("/opt/myvnc/manage.py start &&", None),
        ] {
            assert_eq!(mistake(command), expected, "{command}");
        }
    }

    #[test]
    fn four_levels_of_commands_in_commands_are_read() {
        let mut command = "sudo x".to_owned();
        for level in 0..8 {
            assert_eq!(changes_user(&command), level <= DEPTH, "{command}");
            let quoted = shlex::try_quote(&command).unwrap_or_default();
            command = format!("sh -c {quoted}");
        }
    }

    #[test]
    fn a_verb_is_a_word_of_its_own() {
        for command in [
            "/opt/myvnc/manage.py start",
            "su myvnc -c '/opt/myvnc/manage.py restart'",
            "systemctl restart myvnc",
        ] {
            assert!(has_verb(command), "{command}");
        }
        for command in [
            "/opt/myvnc/manage.py",
            "/opt/start/manage.py",
            "manage.py status",
        ] {
            assert!(!has_verb(command), "{command}");
        }
    }

    #[test]
    fn a_command_that_changes_the_user_itself() {
        for command in [
            "su - vnc -c '/opt/myvnc/manage.py start'",
            "sudo -u vnc /opt/myvnc/manage.py start",
            "/usr/bin/sudo -u vnc x",
            "doas x",
            "runuser -u vnc -- x",
            "setpriv --reuid 1 x",
            "systemctl restart myvnc",
            "systemd-run x",
            "cd /opt && sudo x",
            "cd /opt;sudo x",
            "true&&sudo x",
            "(sudo x)",
            "{ sudo x; }",
            "x | sudo y",
            "x\nsudo y",
            "sh -c 'sudo x'",
            "sh -c 'cd /;exec /bin/su vnc'",
            "bash -c \"sh -c 'doas x'\"",
            "x $(sudo y)",
            "x \"$(sudo y)\"",
            "x `sudo y`",
            "S=sudo; $S x",
            "\\sudo x",
            "env 'sudo' x",
            "x it's sudo y",
            "x # it's commented\nsudo y",
            "x#no-comment sudo y",
        ] {
            assert!(changes_user(command), "{command}");
        }
        for command in [
            "/opt/myvnc/manage.py start",
            "/opt/sudo/manage.py start",
            "manage.py --config_dir=/etc/su start",
            "manage.py # not with sudo",
            "x # it's not with sudo",
            "sudoku",
            "x.sudo",
            "echo 'x' systemctl-restart",
            "",
        ] {
            assert!(!changes_user(command), "{command}");
        }
    }

    #[test]
    fn the_programs_of_a_command_are_those_that_its_user_runs() {
        for (command, expected) in [
            (
                "/opt/myvnc/manage.py start /a",
                &["/opt/myvnc/manage.py"][..],
            ),
            (
                "/v/bin/python3 -u /opt/myvnc/main.py /x",
                &["/v/bin/python3", "/opt/myvnc/main.py"],
            ),
            ("/a/b --c /d/e", &["/a/b"]),
            (
                "/usr/bin/sudo -u vnc /opt/myvnc/manage.py",
                &["/usr/bin/sudo"],
            ),
            ("sudo -u vnc /opt/myvnc/manage.py", &[]),
            ("systemctl restart myvnc", &[]),
            ("$HOME/x /a/b", &["/a/b"]),
            ("A=/x --config=/y manage.py", &[]),
            // An operator in quotes is none, and a comment has no quotes.
            ("'/a|b' x", &["/a|b"]),
            ("'x' /a/b|/c/d", &["/a/b"]),
            ("x # it's a comment\n/a/b|/c/d", &["/a/b"]),
        ] {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(programs(command), expected, "{command}");
        }
    }

    #[test]
    fn a_command_of_any_size_is_read_in_linear_time() {
        let command = "sh -c '/a;b' `\"$(x\\ ".repeat(20_000);
        let began = std::time::Instant::now();
        assert!(!changes_user(&command));
        assert!(began.elapsed().as_secs() < 10);
    }

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
            ("1A=x /a/b", None),
            ("=x /a/b", None),
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
}
