use std::cell::Cell;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;

use super::*;
use crate::fuzz::{fuzz, linear};

/// What it is, its argv with `|` in the place of NUL, its working directory, the answer.
type Row = (&'static str, &'static [u8], Option<&'static [u8]>, bool);

const STATIC: Option<&[u8]> = Some(b"/opt/myvnc/myvnc/web/static");
const MYVNC: Option<&[u8]> = Some(b"/opt/myvnc");
const HOME: Option<&[u8]> = Some(b"/home/ada");
const ROOT: Option<&[u8]> = Some(b"/");

#[rustfmt::skip]
const SERVERS: &[Row] = &[
    ("the field's form", b"/opt/myvnc/.venv/bin/python3|/opt/myvnc/main.py|--host|vm", STATIC, true),
    ("version by link", b"/tools/myvnc/latest/.venv/bin/python3|/tools/myvnc/1.1/main.py|--host|a.b.c", ROOT, true),
    ("bare python", b"python|/opt/myvnc/main.py", ROOT, true),
    ("python2", b"/usr/bin/python2.7|/opt/myvnc/main.py", ROOT, true),
    ("python3.11", b"/usr/bin/python3.11|/opt/myvnc/main.py", ROOT, true),
    ("debug build", b"/usr/bin/python3.11-dbg|/opt/myvnc/main.py", ROOT, true),
    ("pypy3", b"/usr/bin/pypy3|/opt/myvnc/main.py", ROOT, true),
    ("pypy3.10 with its option", b"pypy3.10|--jit|off|/opt/myvnc/main.py", ROOT, true),
    ("interpreter beside it", b"./.venv/bin/python3|main.py", MYVNC, true),
    ("-u", b"python3|-u|/opt/myvnc/main.py", ROOT, true),
    ("-OO", b"python3|-OO|/opt/myvnc/main.py", ROOT, true),
    ("-W with value", b"python3|-W|ignore|/opt/myvnc/main.py", ROOT, true),
    ("-W joined", b"python3|-Wignore|/opt/myvnc/main.py", ROOT, true),
    ("-W at a cluster's end", b"python3|-uW|ignore|/opt/myvnc/main.py", ROOT, true),
    ("-W, value like a script", b"python3|-W|main.py|/opt/myvnc/main.py", ROOT, true),
    ("-X with value", b"python3|-X|dev|/opt/myvnc/main.py", ROOT, true),
    ("-X joined", b"python3|-Xfrozen_modules=off|/opt/myvnc/main.py", ROOT, true),
    ("several options", b"python3|-I|-s|-EB|-X|utf8|-b|/opt/myvnc/main.py", ROOT, true),
    ("--", b"python3|--|/opt/myvnc/main.py", ROOT, true),
    ("option and --", b"python3|-u|--|main.py", MYVNC, true),
    ("--check-hash-based-pycs", b"python3|--check-hash-based-pycs|never|/opt/myvnc/main.py", ROOT, true),
    ("relative script", b"python3|main.py", MYVNC, true),
    ("./script", b"python3|./main.py", MYVNC, true),
    ("script below the cwd", b"python3|myvnc/main.py", HOME, true),
    ("script beside the cwd", b"python3|../main.py", Some(b"/opt/myvnc/config"), true),
    ("relative script, moved cwd", b"python3|main.py|--host|vm", STATIC, true),
    ("dots that stay inside", b"python3|/opt/myvnc/web/../main.py", ROOT, true),
    ("dots that come in", b"python3|/opt/other/../myvnc/main.py", ROOT, true),
    ("upper case", b"python3|/opt/MyVNC/main.py", ROOT, true),
    ("mixed case in the cwd", b"python3|main.py", Some(b"/srv/MYvnc-1.1"), true),
    ("part of a component", b"python3|/srv/myvnc-staging/main.py", ROOT, true),
    ("script elsewhere, cwd of the server", b"python3|/opt/vnc/main.py", STATIC, true),
    ("cwd deleted by an upgrade", b"python3|main.py", Some(b"/opt/myvnc/myvnc/web/static (deleted)"), true),
    ("deleted itself", b"python3|main.py", Some(b"/opt/myvnc (deleted)"), true),
    ("cwd unreadable, script absolute", b"python3|/opt/myvnc/main.py", None, true),
    ("not UTF-8 in the script", b"python3|/opt/\xff\xfe/myvnc/main.py", ROOT, true),
    ("not UTF-8 beside myvnc", b"python3|/opt/myvnc-\xe9\xe8/main.py", ROOT, true),
    ("not UTF-8 in the cwd", b"python3|main.py", Some(b"/opt/\xc3/MyVNC\xff"), true),
    ("spaces", b"python3|/opt/my tools/myvnc/main.py|--host|a b", ROOT, true),
    ("run_server.py", b"python3|/opt/myvnc/run_server.py|--port=9144", ROOT, true),
    ("./run_server.py, by its shebang", b"/usr/bin/python3|./run_server.py", MYVNC, true),
    ("./manage.py, by its shebang", b"/usr/bin/python3|./manage.py|start", MYVNC, true),
    ("manage.py, by env", b"python3|/opt/myvnc/manage.py|--config_dir=/etc/myvnc|start", ROOT, true),
    ("manage.py, by env -S", b"python3|-u|/opt/myvnc/manage.py|restart", ROOT, true),
    ("manage.py in the foreground", b"python3|/opt/myvnc/manage.py|--config_dir=/etc/myvnc", HOME, true),
    ("a directory named stop", b"python3|/opt/myvnc/manage.py|--config_dir=/stop", ROOT, true),
    ("main.py: stop is no verb of it", b"python3|/opt/myvnc/main.py|--host|stop", ROOT, true),
    ("package", b"python3|-m|myvnc", HOME, true),
    ("package, joined", b"python3|-mmyvnc", HOME, true),
    ("package, cluster", b"python3|-Im|myvnc", HOME, true),
    ("package, cluster, joined", b"python3|-Immyvnc", HOME, true),
    ("package, after -W", b"python3|-W|ignore|-m|myvnc|--port|9143", HOME, true),
    ("package, cwd unreadable", b"python3|-m|myvnc", None, true),
    ("its web server", b"python3|-m|myvnc.web.server", HOME, true),
    ("its web server, cluster", b"/opt/v/bin/python3|-um|myvnc.web.server|--port|9143", ROOT, true),
];

#[rustfmt::skip]
const BYSTANDERS: &[Row] = &[
    ("vim", b"vim|/opt/myvnc/main.py", STATIC, false),
    ("nano", b"nano|main.py", MYVNC, false),
    ("emacs", b"/usr/bin/emacs|-nw|/opt/myvnc/manage.py", MYVNC, false),
    ("code", b"/usr/share/code/code|--unity-launch|/opt/myvnc/main.py", MYVNC, false),
    ("tail", b"tail|-f|/opt/myvnc/main.py", MYVNC, false),
    ("tail of a log", b"tail|-F|/var/log/myvnc/myvnc_12.log", ROOT, false),
    ("less", b"less|/opt/myvnc/main.py", MYVNC, false),
    ("grep", b"grep|-rn|python3 /opt/myvnc/main.py|.", MYVNC, false),
    ("pgrep", b"pgrep|-f|python.*myvnc.*main.py", ROOT, false),
    ("cat", b"cat|/opt/myvnc/main.py", MYVNC, false),
    ("cp", b"cp|/usr/bin/python3|/opt/myvnc/main.py", MYVNC, false),
    ("sh -c", b"sh|-c|python3 /opt/myvnc/main.py", MYVNC, false),
    ("sh -c, split", b"/bin/sh|-c|python3|/opt/myvnc/main.py", MYVNC, false),
    ("bash -c", b"/bin/bash|-c|exec python3 /opt/myvnc/main.py", MYVNC, false),
    ("login shell", b"-bash", MYVNC, false),
    ("ssh", b"ssh|vm2|python3|/opt/myvnc/main.py", HOME, false),
    ("sudo", b"sudo|-u|vnc|python3|/opt/myvnc/main.py", MYVNC, false),
    ("nohup", b"nohup|python3|/opt/myvnc/main.py", MYVNC, false),
    ("timeout", b"timeout|60|python3|/opt/myvnc/main.py", MYVNC, false),
    ("env", b"/usr/bin/env|python3|/opt/myvnc/manage.py|start", MYVNC, false),
    ("setsid", b"setsid|python3|/opt/myvnc/main.py", MYVNC, false),
    ("strace", b"strace|-f|python3|/opt/myvnc/main.py", MYVNC, false),
    ("gdb", b"gdb|--args|python3|/opt/myvnc/main.py", MYVNC, false),
    ("screen", b"SCREEN|-dmS|vnc|python3|/opt/myvnc/main.py", MYVNC, false),
    ("tmux", b"tmux: server|new|python3 /opt/myvnc/main.py", MYVNC, false),
    ("watch", b"watch|python3 /opt/myvnc/manage.py status", MYVNC, false),
    ("systemd-run", b"systemd-run|--scope|python3|/opt/myvnc/main.py", MYVNC, false),
    ("docker", b"docker|exec|web|python3|/opt/myvnc/main.py", MYVNC, false),
    ("uv", b"uv|run|python|/opt/myvnc/main.py", MYVNC, false),
    ("perl", b"perl|/opt/myvnc/main.py", MYVNC, false),
    ("its scheduler child", b"bjobs|-u|all|-J|myvnc_main.py", STATIC, false),
    ("a desktop it started", b"/usr/bin/Xvnc|:3|-desktop|myvnc", STATIC, false),
    ("Django", b"python|manage.py|runserver", Some(b"/srv/shop"), false),
    ("Django, absolute", b"/srv/shop/.venv/bin/python3|/srv/shop/manage.py|runserver|0:8000", HOME, false),
    ("another main.py", b"python3|main.py", Some(b"/srv/shop"), false),
    ("another main.py, absolute", b"python3|/srv/shop/main.py", HOME, false),
    ("myvnc only in an argument", b"python3|/srv/shop/main.py|--dir|/opt/myvnc/main.py", HOME, false),
    ("myvnc only in the interpreter", b"/opt/myvnc/.venv/bin/python3|/srv/shop/main.py", HOME, false),
    ("myvnc split over components", b"python3|/opt/my/vnc/main.py", ROOT, false),
    ("dots that leave", b"python3|/opt/myvnc/../other/main.py", HOME, false),
    ("dots that leave, from the cwd", b"python3|../../shop/main.py", Some(b"/srv/shop/lib"), false),
    ("relative script, cwd unreadable", b"python3|myvnc/main.py", None, false),
    ("-c", b"python3|-c|import runpy; runpy.run_path('/opt/myvnc/main.py')", MYVNC, false),
    ("-c and a script", b"python3|-c|pass|/opt/myvnc/main.py", MYVNC, false),
    ("-c joined", b"python3|-cpass|/opt/myvnc/main.py", MYVNC, false),
    ("-Ic", b"python3|-Ic|pass|/opt/myvnc/main.py", MYVNC, false),
    ("-c, then -m", b"python3|-c|pass|-m|myvnc", MYVNC, false),
    ("stdin", b"python3|-|/opt/myvnc/main.py", MYVNC, false),
    ("prompt", b"python3", MYVNC, false),
    ("prompt, -i", b"python3|-i", MYVNC, false),
    ("-V", b"python3|-V|/opt/myvnc/main.py", MYVNC, false),
    ("-h", b"python3|-h|/opt/myvnc/main.py", MYVNC, false),
    ("-?", b"python3|-?|/opt/myvnc/main.py", MYVNC, false),
    ("--help", b"python3|--help|/opt/myvnc/main.py", MYVNC, false),
    ("--version", b"python3|--version|/opt/myvnc/main.py", MYVNC, false),
    ("long option not known", b"python3|--turbo|/opt/myvnc/main.py", MYVNC, false),
    ("long option, joined", b"python3|--check-hash-based-pycs=never|/opt/myvnc/main.py", MYVNC, false),
    ("option not known", b"python3|-uz|/opt/myvnc/main.py", MYVNC, false),
    ("Jython's option", b"python3|-J|/opt/myvnc/main.py", MYVNC, false),
    ("dash in a cluster", b"python3|-u-|/opt/myvnc/main.py", MYVNC, false),
    ("value missing", b"python3|-W", MYVNC, false),
    ("value eats the script", b"python3|-X|/opt/myvnc/main.py", MYVNC, false),
    ("-m missing", b"python3|-m", MYVNC, false),
    ("-- and nothing", b"python3|--", MYVNC, false),
    ("-- and an option", b"python3|--|-m|myvnc", MYVNC, false),
    ("empty script", b"python3||/opt/myvnc/main.py", MYVNC, false),
    ("a file server", b"python3|-m|http.server", MYVNC, false),
    ("pdb", b"python3|-m|pdb|/opt/myvnc/main.py", MYVNC, false),
    ("debugpy", b"python3|-m|debugpy|--listen|5678|/opt/myvnc/main.py", MYVNC, false),
    ("venv", b"python3|-m|venv|/opt/myvnc/.venv", MYVNC, false),
    ("pip", b"/opt/myvnc/.venv/bin/python3|-m|pip|install|myvnc", MYVNC, false),
    ("pip by its script", b"/opt/myvnc/.venv/bin/python3|/opt/myvnc/.venv/bin/pip|install|.", MYVNC, false),
    ("pytest", b"python3|-m|pytest|main.py", MYVNC, false),
    ("pytest by its script", b"/usr/bin/python3|/usr/bin/pytest|/opt/myvnc/main.py", MYVNC, false),
    ("a launcher", b"python3|/home/ada/.vscode/debugpy/launcher|4711|--|/opt/myvnc/main.py", MYVNC, false),
    ("-m myvncx", b"python3|-m|myvncx", MYVNC, false),
    ("-m notmyvnc", b"python3|-m|notmyvnc", MYVNC, false),
    ("-m MyVNC, no such module", b"python3|-m|MyVNC", MYVNC, false),
    ("-m other.myvnc", b"python3|-m|other.myvnc", MYVNC, false),
    ("client", b"python3|-m|myvnc.cli|list", MYVNC, false),
    ("client's module", b"python3|-m|myvnc.cli.cli|create|--name|x", MYVNC, false),
    ("client by the package", b"python3|-m|myvnc|list", MYVNC, false),
    ("client by the package, with options", b"python3|-mmyvnc|--debug|create|--name|x", HOME, false),
    ("desktop client", b"python3|-m|myvnc.gui", MYVNC, false),
    ("desktop client, its other name", b"python3|-m|myvnc.main", MYVNC, false),
    ("main.pyc", b"python3|/opt/myvnc/main.pyc", MYVNC, false),
    ("xmain.py", b"python3|/opt/myvnc/xmain.py", MYVNC, false),
    ("main.py.bak", b"python3|/opt/myvnc/main.py.bak", MYVNC, false),
    ("Main.py", b"python3|/opt/myvnc/Main.py", MYVNC, false),
    ("__main__.py", b"python3|/opt/myvnc/myvnc/__main__.py", MYVNC, false),
    ("a directory as the script", b"python3|/opt/myvnc/main.py/", MYVNC, false),
    ("its linter", b"python3|/opt/myvnc/utils/config_linter.py|main.py", MYVNC, false),
    ("manage.py stop", b"python3|/opt/myvnc/manage.py|stop", MYVNC, false),
    ("manage.py status", b"/usr/bin/python3|./manage.py|--config_dir=/etc/myvnc|status", MYVNC, false),
    ("no arguments but an empty one", b"", MYVNC, false),
    ("empty argv[0]", b"|/opt/myvnc/main.py", MYVNC, false),
    ("argv[0] is a directory", b"/usr/bin/python3/|/opt/myvnc/main.py", MYVNC, false),
    ("all in argv[0]", b"python3 /opt/myvnc/main.py", MYVNC, false),
    ("Python monitor", b"/usr/bin/python3|/mnt/git/myvnc/utils/monitor_myvnc.py|--url|https://vm|--logfile|/var/log/m.log|--restart-cmd|/opt/myvnc/manage.py --config_dir=/c", Some(b"/root"), false),
    ("Python monitor in MyVNC's directory", b"python3|monitor_myvnc.py|--restart-cmd|/opt/myvnc/manage.py", Some(b"/mnt/git/myvnc/utils"), false),
    ("cron's shell", b"/bin/sh|-c|monitor_myvnc --url http://vm --restart-cmd \"python3 /opt/myvnc/manage.py start\"", Some(b"/root"), false),
    ("this monitor", b"/usr/bin/monitor_myvnc|--url|http://vm:9143|--restart-cmd|python3 /opt/myvnc/manage.py start", MYVNC, false),
    ("the restart command's shell", b"/bin/bash|-c|python3 /opt/myvnc/main.py &", MYVNC, false),
];

#[rustfmt::skip]
const INTERPRETERS_OF_OTHER_NAMES: &[Row] = &[
    ("Red Hat's own python", b"/usr/libexec/platform-python3.6|/opt/myvnc/main.py", ROOT, true),
    ("a wrapped python", b"/nix/store/x/bin/.python3-wrapped|/opt/myvnc/main.py", ROOT, true),
    ("the loader", b"/lib64/ld-linux-x86-64.so.2|/usr/bin/python3|/opt/myvnc/main.py", ROOT, true),
    ("the loader with options", b"ld.so|--inhibit-cache|--library-path|/opt/lib|/usr/bin/python3|-u|/opt/myvnc/main.py", ROOT, true),
];

fn path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

fn answer<A: AsRef<[u8]>>(argv: &[A], cwd: Option<&[u8]>) -> bool {
    is_server(argv.iter().map(AsRef::as_ref), || cwd.map(path))
}

/// The rows whose answer is not the expected one.
fn wrong(rows: &[Row]) -> Vec<&'static str> {
    let wrong = rows.iter().filter(|(_, argv, cwd, expected)| {
        let argv: Vec<&[u8]> = split(argv).collect();
        answer(&argv, *cwd) != *expected
    });
    wrong.map(|(what, ..)| *what).collect()
}

#[test]
fn every_row_gets_its_answer() {
    assert_eq!(wrong(SERVERS), [""; 0]);
    assert_eq!(wrong(BYSTANDERS), [""; 0]);
    assert!(SERVERS.iter().all(|row| row.3) && !BYSTANDERS.iter().any(|row| row.3));
    assert!(!answer::<&[u8]>(&[], MYVNC), "no argv");
}

#[test]
fn hazard_30_an_interpreter_of_another_name_is_one() {
    assert_eq!(wrong(INTERPRETERS_OF_OTHER_NAMES), [""; 0]);
}

fn split(argv: &[u8]) -> impl Iterator<Item = &[u8]> {
    argv.split(|byte| *byte == b'|')
}

#[test]
fn a_manager_is_an_interpreter_that_runs_manage_py() {
    for (argv, expected) in [
        ("python3|/opt/myvnc/manage.py|start", true),
        ("python3|-u|manage.py", true),
        ("python3|/srv/shop/manage.py|runserver", true),
        ("python3|/opt/myvnc/main.py", false),
        ("python3|/opt/myvnc/main.py|manage.py", false),
        ("python3|-m|manage.py", false),
        ("python3", false),
        ("vim|/opt/myvnc/manage.py", false),
        ("sudo|python3|manage.py", false),
    ] {
        assert_eq!(is_manager(split(argv.as_bytes())), expected, "{argv}");
    }
}

#[test]
fn the_script_is_absolute_and_without_dots() {
    for (argv, cwd, expected) in [
        (
            "python3|-u|/opt/myvnc/main.py|x",
            None,
            Some("/opt/myvnc/main.py"),
        ),
        (
            "python3|/opt/./myvnc/web/../main.py",
            HOME,
            Some("/opt/myvnc/main.py"),
        ),
        ("python3|main.py", HOME, Some("/home/ada/main.py")),
        ("python3|../main.py", HOME, Some("/home/main.py")),
        ("python3|main.py", None, None),
        ("python3|-m|myvnc", HOME, None),
        ("python3", HOME, None),
        ("vim|/opt/myvnc/main.py", HOME, None),
    ] {
        let cwd = cwd.map(path);
        let found = script(split(argv.as_bytes()), cwd.as_deref());
        assert_eq!(found.as_deref(), expected.map(Path::new), "{argv}");
    }
}

#[test]
fn a_command_that_hands_on_a_pattern_is_known_by_its_flag() {
    for (command, expected) in [
        ("monitor_myvnc --process-pattern main --url http://vm", true),
        ("sh -c monitor_myvnc --process-pattern=main", true),
        ("python3 /opt/myvnc/main.py --process pattern", false),
        ("", false),
    ] {
        assert_eq!(names_a_pattern(command), expected, "{command}");
    }
}

#[test]
fn the_working_directory_is_asked_for_only_where_it_matters() {
    for (argv, matters) in [
        (&["vim", "/opt/myvnc/main.py"][..], false),
        (&["python3", "/opt/myvnc/xmain.py"], false),
        (&["python3", "-m", "myvnc"], false),
        (&["python3", "/opt/myvnc/main.py"], true),
    ] {
        let asked = Cell::new(false);
        is_server(argv.iter().map(|argument| argument.as_bytes()), || {
            asked.set(true);
            None
        });
        assert_eq!(asked.get(), matters, "{argv:?}");
    }
}

type Argv = Vec<Vec<u8>>;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..12)
}

/// A word that the rule may stumble over, or any bytes.
fn word() -> impl Strategy<Value = Vec<u8>> {
    let tricky = proptest::sample::select(vec![
        "python3",
        "/usr/bin/pypy3",
        "-",
        "--",
        "-m",
        "-c",
        "-u",
        "-W",
        "-X",
        "-Im",
        "--jit",
        "--help",
        "--check-hash-based-pycs",
        "myvnc",
        "myvnc.web.server",
        "main.py",
        "manage.py",
        "/opt/myvnc/main.py",
        "/opt/myvnc/manage.py",
        "../main.py",
        "stop",
        "list",
        "",
    ]);
    prop_oneof![4 => tricky.prop_map(|word| word.as_bytes().to_vec()), 1 => bytes()]
}

fn words() -> impl Strategy<Value = Argv> {
    proptest::collection::vec(word(), 0..6)
}

/// Options of the interpreter that change nothing of what it runs.
fn flags() -> impl Strategy<Value = Argv> {
    let cluster = "-[bBdEiIOPqRsSuvx]{1,4}".prop_map(|flag| vec![flag]);
    let valued = ("-[uOB]{0,2}[WX]", "[ -~]{1,8}");
    let valued = prop_oneof![
        valued.prop_map(|(flag, value)| vec![flag, value.clone()]),
        valued.prop_map(|(flag, value)| vec![format!("{flag}{value}")]),
        Just(vec!["--check-hash-based-pycs".into(), "always".into()]),
    ];
    proptest::collection::vec(prop_oneof![cluster, valued], 0..5)
        .prop_map(|flags| flags.concat().into_iter().map(String::into_bytes).collect())
}

fn cwd() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        Just(None),
        Just(MYVNC.map(<[u8]>::to_vec)),
        Just(HOME.map(<[u8]>::to_vec)),
        bytes().prop_map(Some),
    ]
}

/// What an interpreter is told to run, and its arguments.
fn program() -> impl Strategy<Value = Argv> {
    prop_oneof![
        words(),
        (word(), words()).prop_map(|(script, rest)| [vec![script], rest].concat()),
        (word(), words()).prop_map(|(module, rest)| [vec![b"-m".to_vec(), module], rest].concat()),
    ]
}

fn python(parts: &[&[Vec<u8>]]) -> Argv {
    [&[b"/usr/bin/python3".to_vec()][..], &parts.concat()].concat()
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(argv in proptest::collection::vec(bytes(), 0..8), cwd in cwd()) {
        answer(&argv, cwd.as_deref());
    }

    #[test]
    fn no_words_make_it_panic(argv in words(), cwd in cwd()) {
        answer(&python(&[&argv]), cwd.as_deref());
    }

    #[test]
    fn what_is_no_interpreter_is_no_server(
        name in bytes().prop_filter("no interpreter", |name| !is_interpreter(name)),
        rest in words(),
        cwd in cwd(),
    ) {
        prop_assert!(!answer(&[vec![name], rest].concat(), cwd.as_deref()));
    }

    #[test]
    fn harmless_flags_change_nothing(flags in flags(), program in program(), cwd in cwd()) {
        let plain = answer(&python(&[&program]), cwd.as_deref());
        prop_assert_eq!(answer(&python(&[&flags, &program]), cwd.as_deref()), plain);
    }

    #[test]
    fn nothing_after_c_is_a_server(
        flags in flags(),
        c in "-[bBdEiIOPqRsSuvx]{0,3}c[ -~]{0,4}",
        rest in words(),
    ) {
        prop_assert!(!answer(&python(&[&flags, &[c.into_bytes()], &rest]), MYVNC));
    }

    #[test]
    fn a_script_of_another_name_is_no_server(
        flags in flags(),
        name in prop_oneof![bytes(), "[a-z_]{0,4}main[.]py[a-z~.]{0,2}".prop_map(String::into_bytes)]
            .prop_filter("another name", |name| !SCRIPTS.contains(&basename(name))),
        rest in words(),
    ) {
        let script = [b"/opt/myvnc/", &name[..]].concat();
        prop_assert!(!answer(&python(&[&flags, &[script], &rest]), MYVNC));
    }

    #[test]
    fn arguments_of_a_script_change_nothing_but_the_verbs_of_manage_py(
        script in proptest::sample::select(vec!["main.py", "run_server.py", "manage.py"]),
        directory in proptest::sample::select(vec!["", "/opt/myvnc/", "/srv/shop/", "../"]),
        arguments in words(),
        cwd in cwd(),
    ) {
        let program = [format!("{directory}{script}").into_bytes()];
        let alone = answer(&python(&[&program]), cwd.as_deref());
        let is_passing = script == "manage.py"
            && arguments.iter().any(|argument| PASSING_VERBS.contains(&&argument[..]));
        let expected = alone && !is_passing;
        prop_assert_eq!(answer(&python(&[&program, &arguments]), cwd.as_deref()), expected);
    }
}

#[test]
fn fuzz_argv() {
    let seeds: [&[u8]; 5] = [
        b"/opt/myvnc/.venv/bin/python3\0/opt/myvnc/main.py\0--host\0vm\0",
        b"ld.so\0--inhibit-cache\0--library-path\0/opt/lib\0/usr/bin/python3\0-u\0/opt/myvnc/main.py\0",
        b"python3\0-W\0ignore\0-Xdev\0-m\0myvnc.web\0--host\0vm\0",
        b"pypy3.10\0--jit\0off\0--check-hash-based-pycs\0always\0--\0manage.py\0start\0",
        b"python3\0../../myvnc/./web/../main.py\0",
    ];
    let target = |bytes: &[u8]| {
        let argv = || bytes.split(|byte| *byte == 0);
        for cwd in [None, STATIC, ROOT] {
            is_server(argv(), || {
                cwd.map(|cwd| OsString::from_vec(cwd.to_vec()).into())
            });
        }
        is_manager(argv());
        script(argv(), None);
    };
    fuzz(&seeds, target);
    let pieces: [&[u8]; 6] = [
        b"python3\0",
        b"python3\0-u\0",
        b"/../myvnc",
        b"ld.so\0--list\0",
        b"-WX",
        b"\0",
    ];
    for piece in pieces {
        for start in [b"".as_slice(), b"python3\0"] {
            linear(
                |size| [start, &piece.repeat(size / piece.len())].concat(),
                target,
            );
        }
    }
}
