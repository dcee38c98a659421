//! The texts of the manual pages.

use std::error::Error;

use clap::{Arg, Command};
use clap_mangen::Man;

use crate::cli::{is_switch, keys};
use crate::defaults;
use crate::page::{page, tidy};
use crate::sample;

/// Each page, with its path in the tree.
pub(crate) fn pages(
    command: &Command,
    date: &str,
) -> Result<Vec<(&'static str, String)>, Box<dyn Error>> {
    let text = filled(PROGRAM_HEAD) + OPTIONS_STAND_HERE + &filled(PROGRAM_TAIL);
    let program = page("MONITOR_MYVNC", "1", date, &text)
        .replace(&heading(OPTIONS_STAND_HERE), &options(command)?);
    let text = filled(FILE_HEAD) + &explained(command) + &filled(FILE_TAIL);
    let file = page("MONITOR_MYVNC.TOML", "5", date, &text);
    Ok(vec![
        ("man/monitor_myvnc.1", tidy(&program)),
        ("man/monitor_myvnc.toml.5", tidy(&file)),
    ])
}

const OPTIONS_STAND_HERE: &str = "\n\n# OPTIONS\n\n";

fn heading(markup: &str) -> String {
    format!(".SH {}\n", markup.trim().trim_start_matches("# "))
}

/// The section OPTIONS, without what makes it a page of its own.
fn options(command: &Command) -> Result<String, Box<dyn Error>> {
    let mut rendered = Vec::new();
    Man::new(command.clone()).render_options_section(&mut rendered)?;
    let rendered = String::from_utf8(rendered)?;
    let (_, section) = rendered
        .split_once(".SH OPTIONS\n")
        .ok_or("clap_mangen renders no OPTIONS")?;
    // As in SYNOPSIS, a placeholder has no brackets.
    let section = section.replace(r"\fI<", r"\fI").replace(r">\fR", r"\fR");
    Ok(format!(".SH OPTIONS\n{section}"))
}

/// Each key of the configuration file.
fn explained(command: &Command) -> String {
    keys(command).map(key).collect()
}

fn key(arg: &Arg) -> String {
    let name = arg.get_long().unwrap_or_default();
    let kind = sample::unit(arg);
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    // A default that depends on other settings stands in the help.
    let (help, stated) = help.split_once(" [default: ").unwrap_or((&help, ""));
    let default = match (name, arg.get_default_values().first()) {
        ("url" | "restart-cmd", _) => "Required.".to_owned(),
        ("logfile", _) => format!("Default: {}/NAME.log.", defaults::LOG_DIR),
        _ if !stated.is_empty() => format!("Default: {}.", stated.trim_end_matches(']')),
        (_, Some(_)) => format!("Default: {}.", sample::value(arg)),
        _ if is_switch(arg) => "Default: false.".to_owned(),
        _ => "Default: none.".to_owned(),
    };
    format!("\n\n- `{name}` ({kind})\n{help}. {default}")
}

/// A text with the program's own paths and defaults in it.
fn filled(text: &str) -> String {
    [
        ("CONFIG_FILE", defaults::CONFIG_FILE),
        ("LOG_DIR", defaults::LOG_DIR),
        ("USER_STATE_DIR", defaults::USER_STATE_DIR),
        ("STATE_DIR", defaults::STATE_DIR),
        ("MANUAL_LOG_STEM", defaults::MANUAL_LOG_STEM),
        ("STOP_TIMEOUT", defaults::STOP_TIMEOUT),
        ("START_TIMEOUT", defaults::START_TIMEOUT),
    ]
    .iter()
    .fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("{{{name}}}"), value)
    })
    .replace("{SERVER_LOGS}", &defaults::SERVER_LOGS.join("\n- "))
    .replace("{TIMER_SECONDS}", &defaults::TIMER_SECONDS.to_string())
    .replace("{LONGEST_SECONDS}", &defaults::LONGEST_SECONDS.to_string())
}

const PROGRAM_HEAD: &str = r"
# NAME

monitor_myvnc - watch a MyVNC server and restart it when it hangs

# SYNOPSIS

`monitor_myvnc` `--url` URL `--logfile` FILE `--restart-cmd` COMMAND [OPTIONS]

`monitor_myvnc` `--config` FILE [`--server` NAME]... [OPTIONS]

# DESCRIPTION

`monitor_myvnc` checks over HTTP whether a MyVNC server responds. If the server does not respond, it logs
the cause, stops the server's processes, runs the restart command and waits until the server responds. Run
it every minute, from cron or from a systemd timer. A run has these steps:

- 1. Lock
The run takes the run lock with flock(2): .STEM.lock beside the log, where STEM is the log's name without
its extension. The Python monitor and flock(1) use the same lock. If another run holds it, this run logs
that and exits with status 0. A lock that an ancestor of this run holds (`flock` LOCK `monitor_myvnc` ...)
counts as its own. If the lock cannot be used, the run logs an ERROR, goes on without it, and exits with
status 1.

- 2. Check
One GET request, with one deadline (`--timeout`) for name resolution, connect, TLS and headers. A status
from 200 to 399 is healthy. If the name has several addresses, they share the deadline. Redirects to the
same host are followed, ten at most, with the cookies that they set; a redirect to another host counts as
the answer: healthy, that host is not asked. The body is not read, and proxy variables are not used. With `--retries`, the server counts as
down only if every further check fails too.

- 3. Recognise
If the check succeeds, the run compares the socket that answered with the record of the server; see HOW
THE SERVER IS RECOGNISED.

- 4. Reserve
If the check fails, the run takes the restart lock, an fcntl(2) record lock on ADDRESS_PORT.lock in the
state directory. Runs with other logs do not restart the same server at the same time, whatever name of
this host their URLs have. If the state directory cannot be used (read-only, full, or on a disk that does
not respond within a second), the run logs one WARNING and goes on without the restart lock and the
record.

- 5. Search
The run looks for the server's processes. If the server's own address is not the URL's, it asks the server
there too; see BEHIND A PROXY.

- 6. Diagnose
The run reads the state of the server's processes from /proc, for half a second at most, and logs why the
server does not respond; see CAUSES.

- 7. Prepare
Before anything is stopped, the run checks the restart command, looks up its user, opens what the start
needs, and checks the permission to signal each process. If a restart cannot work, the run exits with
status 1 and the server stays as it was. With `--dump-cmd`, that command runs now, and the server is asked
once more.

- 8. Stop
SIGTERM, and SIGCONT so that a stopped process can act on it; after `--stop-timeout` ({STOP_TIMEOUT}
seconds) SIGKILL, and 5 seconds more. If a process that holds the server's port is left even then, nothing
is started. A process that is left and does not hold the port costs a WARNING.

- 9. Start
/bin/bash (else /bin/sh) runs the restart command, in a session of its own, as the user that THE USER OF
THE RESTART COMMAND describes. Its output is appended to STEM.restart.log beside the log. If the command
cannot be run for lack of a resource, the run tries again every second until `--start-timeout`.

- 10. Wait
The run ends as soon as the server responds, at most `--start-timeout` ({START_TIMEOUT} seconds) after the
start. A restart command that still runs then is left alone.

On SIGTERM, SIGINT or SIGHUP a run exits at once, unless it has already signalled the server: then it
first completes the restart. A signal that was ignored when the run began (nohup(1)) stays ignored.
SIGTSTP has no effect, because a stopped run would keep its lock. With `--dry-run` and
`--collect-diagnostics`, a run takes no lock, and stops and starts nothing.
";

const PROGRAM_TAIL: &str = r#"
# HOW THE SERVER IS RECOGNISED

Any user can choose the arguments, the name and the directory of a process. So `monitor_myvnc` does not
stop a process because of its arguments alone: the process that holds the listening socket at the server's
address is the server.

The server's address is `--listen`; else `host` and `port` of server_config.json in the restart command's
`--config_dir`, where a host that is not this machine's means any address; else the recorded address; else
the URL's. These rules say which processes are the server; the first that applies decides:

- Known
The process of the record is the server while it holds the listening socket, or while nobody listens at
the server's address. The record is HOST_PORT.json in the state directory. When a check succeeds and there
is no valid record, the run looks up which process holds the listening socket, and records its PID, start
time, user, arguments (as a hash), socket and address. Later healthy runs ask the kernel for that socket
only, and read no other process.

- By its listening socket
Without a valid record, the server is the processes that hold the listening socket at the server's
address, if their arguments match the rule below, with their parents and descendants of the same user that
match it too. If unrelated processes listen there, each on another address of the name, the server is the
one of the recorded user, else of a proven user, else the one whose script is beside the restart
command's, else the one with the restart command's configuration directory. Each of these tests counts
only if exactly one process passes it. Otherwise nothing is stopped or started, and the log asks for
`--listen`.

- Nobody listens
Only these processes are stopped: the recorded one; one that the previous restart command started and that
never responded; and one of a proven user that was started with the restart command's `--config_dir`,
listens on no port and is not manage.py. With `--user`, matches of that user that listen on no port are
stopped as well; with `--process-pattern`, every match is. All other matches are left alone, each with a
WARNING ("Left alone:", see DIAGNOSTICS), because nothing shows that they are this server. Then the server
is started.

A user is proven if it is root, the monitor's own user, that of `--user` or `--run-as`, the owner of the
restart command's MyVNC script or of its configuration directory, or the user of a process that this run's
restart command started. Without a record, the first user that answers is accepted. If that user is not
proven, one WARNING names the user and the line `user = "NAME"`.

A process's arguments match if it is an interpreter (python*, pypy*, platform-python*, .python3-wrapped,
also started by ld.so) whose script is named main.py, run_server.py or manage.py, with "myvnc" (any case)
in a component of the script's absolute path or of its working directory; or an interpreter with `-m
myvnc`, or with a module of that package other than its command line and its desktop client. An editor, a
tail -f, a shell with the path in a string, another project's manage.py, manage.py stop and manage.py
status do not match.

`--process-pattern` REGEX replaces that rule: a process matches if the regular expression matches its
arguments, joined by spaces. If another process holds the server's port, matches of the recorded user or
of a proven user are the server. `--user` NAME restricts either rule to the processes of that user.

Never signalled are the monitor, its ancestors, PID 1, zombies, kernel threads and processes of another
PID namespace. With a process pattern, neither are other monitors, their descendants, and their ancestors
within their session. Before the first signal, the run compares the arguments, the user and the start time
of each process once more. If the URL leads to another machine and no `--listen` is given, nothing is
signalled without `--process-pattern`.

In a container, root often lacks CAP_SYS_PTRACE (Docker's default) and cannot see which sockets the
processes of other users hold. Unreadable does not mean "none". The recorded process is still the server.
Without a record, the server is the matching process of the user who owns the listening socket, if there
is only one (with its children); if there are several, nothing is stopped. If nobody listens, a process
whose sockets cannot be read is left alone. Give the container that capability (`docker run --cap-add
SYS_PTRACE`), or run the monitor as the server's user.

# BEHIND A PROXY

If the URL leads to a proxy, such as nginx or haproxy, give the address at which the server itself
listens: `--listen` ADDRESS:PORT, or a restart command with `--config_dir` DIR, where
DIR/server_config.json has the port. Without either, the monitor takes the proxy for the server, and does
not find the server behind it.

If a check fails, the run asks the server itself at that address before it stops anything, over plain HTTP
and over TLS. If the server answers, the fault is the proxy's: an ERROR names the proxy with its PID and
user, nothing is stopped or started, and the exit status is 1. If the server does not answer there either,
it is restarted, and the run waits until it answers at its own address.

# NOT ASKED

A check can fail on the monitor's own side: the name does not resolve, there is no route, no free port,
descriptor or memory, or a filter forbids the connection. Such a check says nothing about the server. So
nothing is stopped, an ERROR says that the server was not asked, and the exit status is 1. The restart
command runs only if nobody listens at the server's address and no process of the server is found; while
the name does not resolve, only if no process matches at all. A server that can be asked at its own
address (see BEHIND A PROXY) is asked there.

# WHEN THE PORT IS TAKEN OVER

Another user can start a process that listens on the server's port while the server is down. If the user
of the listening socket is neither the recorded one nor proven, its answer does not count as healthy, and
a start has not succeeded. The server cannot be started on that port either. The run stops nothing, exits
with status 1, and logs what it found:

    [ERROR] The server's port is taken: PID 4711 (nc -l 9143) of user eve
    holds 0.0.0.0:9143, and the server is user myvnc's; end it; if it is
    the server, set user = "eve", and if it is a proxy, set listen to the
    server's own ADDRESS:PORT

Such a line has one of three reasons:

- The process is a stranger
End it. The next run starts the server.

- The process is a proxy
Set `listen`; see BEHIND A PROXY.

- The process is the server, which runs as another user now
Accept that user: set `user = "NAME"` in the server's table, or give `--user` NAME.

To move a server to another user:

- 1. Stop the monitor
Comment out the cron job, or run `systemctl stop monitor_myvnc.timer`.

- 2. Move the server
Stop it, give its files to the new user, and start it as that user.

- 3. Accept the user
Set `user` to the new user. If `run-as` is set, or if the restart command names the old user, change that
too.

- 4. Start the monitor
The next healthy run records the new user. From then on `user` can stay or go.

A process that hangs on the server's port and whose arguments match is stopped like a server that hangs,
whoever its user is. Then the server is started.

# THE USER OF THE RESTART COMMAND

`--run-as` USER runs the restart command as that user, with its groups and with USER, LOGNAME, HOME and
SHELL as systemd's `User=` sets them. Only root can run it as another user.

Without `--run-as`, root runs a restart command that names a MyVNC script (main.py, run_server.py or
manage.py, with "myvnc" in its path) as the owner of the server, so that the server of an ordinary user
does not come back as root. That owner is the recorded user; without a record, it is the user of the
process that was found, if that user is proven or the process's script or configuration is the restart
command's. The command runs as root if no owner is known (the server is dead and was never seen to
answer), if it names no MyVNC script, or if it contains su, sudo, doas, runuser, setpriv, systemctl or
systemd-run. Set `run-as` to be sure.

If the server comes back as another user than before, and neither `user` nor `run-as` names that user, a
CRITICAL line names both users and the line to configure, and the exit status is 1; see "The server was user OLD's" in DIAGNOSTICS.

Whoever can change the restart command's program can make the monitor run anything. So once a day, root's
monitor logs a WARNING if a program of the restart command, or a directory above it, can be changed by a
user other than root and the one that the command runs as.

# CAUSES

Before anything is stopped, the lines that begin with "Cause:" name what was found, the most specific
first, with the proof. The lines after them are the evidence, a line for each process, for the port and
for the machine. The system calls of another user's processes are visible to root and to their owner only;
the log says so instead of guessing. The causes are:

- the server is not running; it last answered N ago
No process of the server was found, and nobody listens. The time is that of the last healthy check.

- the kernel's OOM killer ended the server
Also, if that is less certain, "the server is not running; the kernel's OOM killer ended PID N ..., which
may have been it", or "ended a process of its control group". Give the server more memory, or find out
what uses it up.

- blocked reading from idle client ADDRESS
- blocked in a TLS handshake with idle client ADDRESS
- blocked in a TLS handshake or read with idle client ADDRESS
The server serves one client at a time, and this client has connected and sends nothing. If the client is
a process of this machine, its PID and command are named. Find out who it is. A proxy before the server
keeps such clients away from it.

- blocked writing to client ADDRESS, which does not read
The same, while the server sends its answer.

- waiting for PID N (state S, for T): COMMAND
- waiting for the first to end of its children
A child does not exit, such as bjobs when the scheduler does not respond. If the child waits for another
process, a host or a file, that is named after it. "of another user, descriptors not visible" means that
more is visible to root only.

- waiting for a reply from ADDRESS
- waiting for a connection to ADDRESS
Another service does not respond: a scheduler, a directory server, a name server. If it runs on this
machine, its process and state are named.

- blocked opening FILE
A dead file server, a FIFO without a writer, or a lock that another process holds; "reading", "locking",
"examining", "listing" and the like as well. A network file system is named with its server.

- PID N is stuck in the kernel (state D)
The process cannot be stopped until the kernel lets it go: look at the file server or the disk.

- PID N is stopped
By SIGSTOP, or by a tracer, which is named.

- PID N spins: thread T used P % of a CPU
The thread uses a CPU without making progress.

- PID N waits for clients as a healthy server does
Nothing wrong is visible. A firewall, or a server that was slow, may be the cause.

- deadlock: the main thread of PID N waits for a lock
- the main thread of PID N waits for a lock
No thread runs. Without "deadlock:", some threads sleep for a time.

- PID N is out of file descriptors
- PID N has too few file descriptors left for a request
- PID N is out of threads
Raise the limit, or look for the leak.

- PID N is at the memory limit of its control group
- PID N is swapped out
Raise the limit, or find out what uses up the memory.

- the accept queue of ADDRESS is full
- N clients wait in the accept queue of ADDRESS
- PID N has N connections in CLOSE_WAIT
So many clients wait for the server, or so many connections are leaked by it.

- ADDRESS is held by another process
- ADDRESS is not the server's
- the server listens on ADDRESS, which is not where the URL asks
- the server runs, but nothing listens on port N
- the URL asks for port N, and a MyVNC server listens on ADDRESS
Another process has the port, or the URL does not name the server's address.

- the URL's host is another machine
- the URL's host cannot be resolved
- the check failed on the monitor's own side
The server is not on this machine, or it was not asked; see NOT ASKED.

- a proxy answers with status N in the server's place
The proxy is named if it runs here, and whether the server itself is up.

- the server speaks TLS here, not plain HTTP: the right URL is URL
- the server speaks plain HTTP here, not TLS: the right URL is URL
The URL's scheme is wrong. Correct `--url`: until then, every run restarts the server.

- the server answers, but with status N
- the server's certificate is not accepted
- what answers is no MyVNC server
The reason follows. That of a status is in the server's own log.

- the disk of DIRECTORY is full
- the disk of DIRECTORY has no free inode
- the machine is out of memory
- the machine is out of threads
- the machine is overloaded
- the machine waits for its disks
A restart does not cure this.

- not visible
- not known
- no further process can be started
The rest of the line says what could not be seen, and why.

After the evidence, the log has the last minutes of the server's own log (`--log-history-minutes`). It is
the newest *.log file that the server holds open, else the log that it had when it was last started, else
the newest file that `--server-log` matches, else the newest myvnc_*.log in the `logdir` of
server_config.json, or, if that has none, in the places of FILES. A log that not everybody can read is
shown only if it belongs to the server's user, and if only that user and root can change the directories
on its path. Passwords, tokens, cookies and session IDs in command lines, URLs and these lines are shown
as ***.

With `--dump-cmd`, a command such as `py-spy dump --pid {pid}` runs before the server is stopped, and its
output follows, each line after "Dump:".

After a restart, the last line sums up: "Service was away N s: CAUSE", where N counts from the last
healthy check.

# CONFIGURATION

`--config` FILE reads the settings of one or more servers from a TOML file, whose keys are the long
options' names; see monitor_myvnc.toml(5). Flags override the file. The servers are watched at the same
time, each with its own lock and log, and the exit status is the worst of them. `--check-config` prints
the resolved settings, and a warning for each doubt.

The package's cron job, /etc/cron.d/monitor_myvnc, runs `monitor_myvnc --quiet --config {CONFIG_FILE}`
every minute. For a check every {TIMER_SECONDS} seconds:

    systemctl enable --now monitor_myvnc.timer

The cron job does nothing while that timer runs.

# EXIT STATUS

- 0
The server is healthy, it was restarted, another run holds the lock, or the run only looked (`--dry-run`,
`--collect-diagnostics`).

- 1
The server is not healthy, or it was not asked; another user's process answers in its place; the run was
ended by a signal; or something unexpected happened. The log says what. Also if the log or the run lock
could not be used, whatever the server does.

- 2
Usage or configuration error. Nothing was touched.

# ENVIRONMENT

- SSL_CERT_FILE, SSL_CERT_DIR
Certificates to trust in place of the system's.

- TZ
The time zone of the log.

- HOME, XDG_STATE_HOME
The state directory of a user other than root.

- USER, LOGNAME, HOME, SHELL, PATH
Given to the restart command. Those that are missing come from the user database; if the command runs as
another user, USER, LOGNAME, HOME and SHELL are that user's.

# FILES

- {CONFIG_FILE}
The configuration that the package's cron job and timer read.

- {LOG_DIR}/NAME.log
The log of a server of that configuration. A new log has mode 0640.

- .STEM.lock
The run lock, beside each log (mode 0600). It holds the PID of the run.

- STEM.restart.log
The restart command's output, beside each log (mode 0640).

- {STATE_DIR}, ~/{USER_STATE_DIR}
The state directory, for root and for others.

- HOST_PORT.json
In the state directory: the record of the known server, for the host and port of the URL (mode 0640). It
is written when it changes; its modification time is that of the last healthy check. To make the monitor
forget the server and its user, remove the file.

- ADDRESS_PORT.lock
In the state directory: the restart lock, for the server's own address and port (mode 0600).

- {SERVER_LOGS}
Where the server's own log is looked for.

- /etc/cron.d/monitor_myvnc, /etc/logrotate.d/monitor_myvnc
The job, and the rotation of {LOG_DIR}/*.log and {MANUAL_LOG_STEM}*.log. Another file in /etc/logrotate.d
that names one of these, such as that of the Python monitor's manual, must go.

Log, locks and restart output must be regular files with one hard link. A symbolic link is
followed only in a directory that nobody but root and the monitor's user can change. In a directory that
others can write to (/tmp, or one of mode 0775), a file must belong to root, to the monitor's user or to
the directory's owner. What root makes in a directory of another user belongs to that user.

# NOTES

A log line has at most 2,000 characters. A run logs at most 64 KiB below ERROR, not counting the dump and
the server's own log, and at most 16 KiB of the restart command's output; the rest of it is in
STEM.restart.log. At most 20 processes that are left alone are named, then the log has their number. At
most 200 lines of the server's own log and 64 KiB of the dump are shown.

A search reads at most 16 KiB of a process's arguments, skips processes that do not respond, ends after 5
seconds and acts on what it has seen.

`manage.py` looks servers up by user. If one user runs two MyVNC servers on a host, manage.py can stop one
of them instead of the other, and so can a restart command with it; `--check-config` warns. Give each
server a user of its own.

# EXAMPLES

A server with a self-signed certificate:

    monitor_myvnc --url https://myvnc.example.com \
      --ca-cert /etc/myvnc/ssl/server.crt \
      --logfile /var/log/myvnc-monitor.log \
      --restart-cmd "/opt/myvnc/manage.py restart"

A crontab entry, on one line, because cron joins no lines:

    * * * * * monitor_myvnc --quiet --config /etc/monitor_myvnc.toml

A server that systemd runs, in {CONFIG_FILE}:

    [server.main]
    url = "http://localhost:9143"
    restart-cmd = "systemctl restart myvnc"

A server behind a proxy, started as user myvnc by root's monitor:

    monitor_myvnc --url https://myvnc.example.com \
      --listen 127.0.0.1:9143 --run-as myvnc \
      --logfile /var/log/myvnc-monitor.log \
      --restart-cmd "/opt/myvnc/manage.py start"

What the configuration means, and one check of one server:

    monitor_myvnc --config /etc/monitor_myvnc.toml --check-config
    monitor_myvnc --config /etc/monitor_myvnc.toml --server main

What a server is doing now, and what a run would do about it, without touching the server:

    monitor_myvnc --config /etc/monitor_myvnc.toml --collect-diagnostics
    monitor_myvnc --config /etc/monitor_myvnc.toml --dry-run

A log for each day:

    monitor_myvnc --url http://localhost:9143 \
      --logfile "/var/log/myvnc-monitor-$(date +%Y%m%d).log" \
      --restart-cmd "systemctl restart myvnc"

# DIAGNOSTICS

Each line of the log has a time, a severity and a message. The messages are, in the order of a run:

- Another run holds the lock (PID: N, for S seconds)
Normal while a restart goes on. After ten minutes it is a WARNING: look at that process. The kernel gives
the lock back when the process ends; leave the file.

- Cannot use the run lock FILE: REASON; going on without it
The file is not what a lock should be (see FILES), or its directory cannot be used. Remove it, or give
another `--logfile`. The run goes on, and exits with status 1.

- cannot write the log FILE: REASON; going on without it
On stderr, even with `--quiet`: the disk is full, or the log or its directory cannot be used (see FILES).
The run goes on, and exits with status 1.

- This run has logged N KiB
Lines below ERROR are left out from there on; see NOTES.

- Cannot use the state directory DIR: REASON
Make it writable, or give another `--state-dir`. The server is restarted all the same, without the restart
lock and without a record. A takeover of the port is not recognised then.

- ✓ Server is healthy (status: N)
Nothing to do.

- There is no record of this server yet: PID N (COMMAND) of user NAME
This user answers at the server's address, and nothing proves that it runs the server. If it does, set
`user` to its name. If it does not, end that process and remove HOST_PORT.json, because that user is
recorded now. If it is a proxy, set `listen` as well.

- The server's port is taken: PID N (COMMAND) of user NAME
See WHEN THE PORT IS TAKEN OVER. "a process that cannot be seen" stands for the PID if this run may not
read the process: run the monitor as root, and in a container with CAP_SYS_PTRACE.

- The server answers at ADDRESS (status: N), but URL leads to
The name has a second address, at which another process listens. The server is healthy. Put ADDRESS into
the URL, or set `listen`.

- FILE is part of the restart command, which runs as USER
Another user can change FILE, and so decide what runs as USER. Do what the line says: `chown` or `chmod`
FILE, or set `run-as`. The line comes once a day.

- ✗ Server is unresponsive: REASON
The check failed. REASON is one of those from here to "Request error:".

- Connection error: HOST:PORT: Connection refused
Nobody listens there: the server is not running, or the URL has another port than the server.

- Connection error: HOST:PORT: REASON
The connection failed. If REASON is one of this machine's own (Permission denied, Network is unreachable,
Cannot assign requested address, Too many open files), the server was not asked.

- Connection error: cannot resolve HOST: REASON
The name is wrong, or name resolution fails. The server was not asked.

- Server request timed out after N seconds (STAGE)
The server hangs, or the machine is slow; STAGE is how far the check came. If the server is only slow,
give a longer `--timeout`, or `--retries`.

- Connection error: connection reset by the server (STAGE)
- Connection error: connection closed without an answer (STAGE)
The server, or a proxy before it, ended the connection.

- Connection error: the answer is not HTTP: REASON
Something else listens on that port, or the URL's scheme is wrong.

- SSL certificate error: unknown issuer
- SSL certificate error: self-signed
Give the CA, or the server's own self-signed certificate, with `--ca-cert`.

- SSL certificate error: expired on DATE
- SSL certificate error: not valid before DATE
Renew the certificate, or set the clock.

- SSL certificate error: name mismatch with HOST
Use one of the certificate's names, which the message lists, in the URL.

- SSL certificate error: REASON
- SSL error: REASON
The certificate cannot be accepted, or the TLS handshake failed, for the reason given.

- Server returned error status: N
- Request error: REASON
The server answers, but with an error. If a restart does not cure it, look into the server's own log.

- Check N of M failed: REASON; next in S seconds
One of the checks of `--retries`.

- Another run is restarting this server
- Another run has restarted this server, or tried to: checking again
Two monitors watch the same server, with different logs. Remove one.

- Cannot look for the server's processes in /proc: REASON
/proc is not mounted, or this user may not read it: correct that, or run as root. Nothing was touched.

- The server itself answers at ADDRESS (status: N)
The proxy that the line names, with its PID and user if it runs here, does not answer or answers with an
error. Look at that proxy. If the line says that the URL cannot be asked, correct the URL or the name
service instead. Nothing was touched.

- The server itself does not answer at ADDRESS either: REASON
Behind the proxy, the server is down too. It is restarted.

- The URL's host has no address
Correct `--url` or the name service. A server that the line names may be well. Nothing was touched.

- The check failed on the monitor's own side
Look at this machine's routes, packet filter, free ports and limits. Nothing was touched.

- More than one process can be the server at ADDRESS
None of the rules of HOW THE SERVER IS RECOGNISED decides. Set
`listen`, `user` or `process-pattern`. Nothing was touched.

- Who listens at ADDRESS cannot be read
The kernel refuses both netlink sockets and /proc/net/tcp: a seccomp filter, for example. Allow one of
them, or set `process-pattern`. Nothing was touched.

- The restart command cannot be run: REASON
The command's file is missing or not executable: correct `--restart-cmd`. Nothing was touched.

- Left alone: PID N (COMMAND): REASON
The arguments of the process match, but nothing proves that it is this server. REASON is one of the
following. If the process is this server, set `process-pattern` or `user`.

- another process holds the listening socket on port N
The process belongs to another server. No action is necessary.

- it listens, but not on port N: this is another instance
The same. If the server has another port now, correct the URL, `listen` or server_config.json.

- it was started with another --config_dir
The process belongs to another server. No action is necessary.

- nobody listens on port N, and nothing shows that this process
The process listens nowhere, and is neither recorded nor of a proven user with the restart command's
`--config_dir`.

- who listens on port N cannot be read
- nobody listens on port N, and the sockets of this process
- nobody listens on port N, and the network namespace of this process
The run may not read them. See the text on containers in HOW THE SERVER IS RECOGNISED.

- it does not listen on port N, the only thing that distinguishes
The configuration has another server without a `process-pattern` or `user` of its own, and the process may
be that one.

- manage.py starts and stops a server
A manage.py that hangs without a server. End it if it is in the way.

- it lives in another network namespace
It cannot be the server that the URL leads to, such as a server in a container.

- another process holds port N, and the user of this one
The process matches `process-pattern`, but its user is neither recorded nor proven. Set `user`.

- several servers listen on port N
See "More than one process can be the server" above.

- the URL leads to another machine
See HOW THE SERVER IS RECOGNISED.

- it runs another program, or as another user, since it was found
The PID, or the process, became something else in the meantime.

- Left alone: N further processes
More than 20 processes were left alone, for reasons like those.

- What holds the server's port can no longer be proved to be the server
The process changed between search and signal. Nothing was touched; the next run looks again.

- The server's owner is unknown; its command runs as root, and user NAME
No run has seen this server yet, and root's monitor runs its restart command as root, although the user
that the line names owns the script, the configuration or the log directory. Set `run-as` if the server is that user's.

- PID N (COMMAND) of user NAME holds the server's port and is stopped
The server on the port runs as another user than the recorded one. If it was moved to that user, set `user`
and `run-as`.

- The restart command runs as user NAME
It is the owner of the known server, or what `run-as` says.

- Cannot look up user N, who owns the server
The account database does not know the server's user, or does not respond. Set `run-as`. Nothing was
touched.

- The restart command could not be started: REASON
The run has too few file descriptors (allow 16 or more), or /dev/null cannot be opened. Nothing was
touched.

- Cannot write FILE: REASON; the restart command's output is discarded
The disk is full, or STEM.restart.log cannot be written. The server is started all the same.

- Cannot signal PID N (COMMAND) of user OWNER: REASON
Run the monitor as root or as that user, or restrict the search with `--user`. Nothing was touched.

- Cannot run COMMAND: REASON
- COMMAND did not end within N s, and was ended
The command of `--dump-cmd` did not work, or took too long. The restart goes on.

- No server process found
The server was not running, or its processes were left alone, as the lines above say.

- Stopping server processes: [PID, ...]
Each is sent SIGTERM; "All processes terminated successfully" follows when they have ended.

- Cannot send SIGTERM to PID N: REASON
Something (a security module, for example) forbids what was permitted a moment before. If the process does
not end, the lines below say so.

- Processes still running after Ns: [PID, ...]
They ignore SIGTERM: SIGKILL follows. If that is usual, give the server a longer `--stop-timeout`.

- PID N is still there Ns after SIGKILL, in state S
The process hangs in the kernel, on a dead file server for example. It ends when that responds again, or
with a reboot. If it holds the server's port, nothing is started, and each further run tries again;
otherwise the server is started.

- Cannot run the restart command: REASON
- Cannot wait for the restart command: REASON
The machine is short of memory or of processes. With "next attempt in", the run tries again until
`--start-timeout`; else the next run does.

- The restart command exited with status N after S seconds
- The restart command was killed by signal N after S seconds
The command failed. If the server does not answer either, "Still no answer:" says how, and the last 50
lines of the command's output follow, each after "Restart command:", or else "The restart command wrote
nothing" or "Cannot read its output:".

- The restart command exited with status 0, but there is no server
The command lacks its verb (manage.py start), or the server ended again at once. The command's output
follows; the server's own log says more.

- Server started but did not become responsive within N seconds
Look for a port conflict and into the server's own log, or give a longer `--start-timeout`.

- The server did not become responsive within N seconds
The same, and the command still runs; the next run stops the server if it hangs.

- The restart command failed, but the server answers
For example, `manage.py start` found that another run had started the server.

- Server is now responsive after N seconds
The restart worked.

- The server itself answers, but URL does not yet: REASON
The restart worked. If the proxy does not answer later either, look at the proxy.

- The server was user OLD's and came back as user NEW's
The restart command started the server as another user. Set `run-as` to OLD, stop the server, give files
that it has made since then back to OLD, and start it as OLD. The line is CRITICAL and comes once: NEW is
recorded now. If NEW is right, nothing is to be done.

- PID N was left alone as another instance, and has ended since
The restart command has ended another server: `manage.py restart` stops any server of its user. Give each
server a user of its own.

- Server restart failed
- Server was not restarted: nothing was touched
The exit status is 1; the lines above say why.

- Received SIGTERM: stopping at once, nothing was done
- Received SIGTERM: stopping once the server is started
Somebody ended the monitor. After the first signal to the server, it starts the server before it exits
("The server was started; stopping as told").

- Would stop: [PID, ...]
- Would run: COMMAND
What `--dry-run` did not do; "nothing" where a restart would stop and start nothing, and the lines above say
why.

- too few file descriptors: allow 16 or more
- cannot set up event handling: REASON
On stderr: the limit of file descriptors is too low, or the machine is short of memory. Nothing was done.

- REASON (see --help)
On stderr, with status 2: a flag or the configuration file is wrong, see monitor_myvnc.toml(5).

# SEE ALSO

monitor_myvnc.toml(5), crontab(5), flock(1), logrotate(8), proc(5), systemd.timer(5), capabilities(7)
"#;

const FILE_HEAD: &str = r"
# NAME

monitor_myvnc.toml - configuration of monitor_myvnc

# DESCRIPTION

monitor_myvnc(1) reads this TOML file with `--config`; the packages use {CONFIG_FILE}. Its keys are the
long options' names without the dashes. Keys before the first table apply to every server. Each table
`[server.NAME]` is a server of this host, and its keys override those. Flags on the command line override
both. A NAME is made of letters, digits and the signs `_-.` but does not begin with a dot. Seconds are
whole or decimal, more than 0 and at most {LONGEST_SECONDS}.

The file holds commands that root runs. So root reads it only if it belongs to root and nobody else can
write it. A file that sets nothing is no error: there is nothing to watch then.

# KEYS
";

const FILE_TAIL: &str = r#"

# SEVERAL SERVERS

The servers are watched at the same time, so that one that hangs does not delay another. Each has its own
log, and beside it its own lock. The exit status is the worst of all.

The server's listening socket says which processes belong to which server; see HOW THE SERVER IS
RECOGNISED in monitor_myvnc(1). Two servers must differ in the port of the URL, or both must have a
`process-pattern` or both a `user`, and these must differ; otherwise the file is refused. If only the
ports differ, a process that listens on no port may belong to either server; it is left alone, unless the
record, the previous restart or its `--config_dir` shows that it is this one.

`manage.py` looks servers up by user. If it starts two servers as one user, it can stop one of them
instead of the other. `--check-config` warns of that.

# EXAMPLES

Two servers:

    timeout = 5

    [server.main]
    url = "https://myvnc.example.com"
    restart-cmd = "/opt/myvnc/manage.py --config_dir=/etc/myvnc start"

    [server.test]
    url = "http://localhost:9143"
    restart-cmd = "systemctl restart myvnc-test"
    user = "myvnctest"
    logfile = "{MANUAL_LOG_STEM}-test.log"

A server behind a proxy. The URL leads to the proxy, the server itself listens on port 9143, and root's
monitor starts it as user myvnc:

    [server.main]
    url = "https://myvnc.example.com"
    listen = "127.0.0.1:9143"
    run-as = "myvnc"
    restart-cmd = "/opt/myvnc/manage.py start"

A server that was moved to user vnc2:

    [server.main]
    url = "http://localhost:9143"
    user = "vnc2"
    restart-cmd = "/opt/myvnc/manage.py --config_dir=/etc/myvnc start"

# FILES

{CONFIG_FILE}, {LOG_DIR}/NAME.log

# DIAGNOSTICS

Errors are written to stderr as FILE:LINE:COLUMN, what is wrong, and the nearest valid key for one that is
not known. All unknown keys are listed at once, then the first value of each server that cannot be used; the exit status is 2, and nothing was touched. Lines of `--check-config` that
begin with "warning:" change no exit status.

- unknown key KEY: the nearest valid key is OTHER
A spelling mistake, or a setting of a newer version.

- others can write it, and it holds commands that root runs
- it is not root's, and it holds commands that root runs
Give the file to root, with mode 644, 640 or 600.

- servers A and B cannot be told apart
Give each a `process-pattern` or a `user` of its own, or URLs with different ports.

- servers A and B have one lock
Their logs have the same name but for the extension: give each a `logfile` of its own.

- give ADDRESS:PORT, such as 127.0.0.1:9143
The value of `listen` is an address, not a name, and a port other than 0. 0.0.0.0 means any address.

- only root can run the restart command as another user
Run the monitor as root, or as that user without `run-as`.

- servers A and B are started by manage.py, and nothing says
- user N runs M MyVNC servers on this host
A warning of `--check-config`: see SEVERAL SERVERS.

# SEE ALSO

monitor_myvnc(1)
"#;
