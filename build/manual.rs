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
    let help = help.split(" [default:").next().unwrap_or_default();
    let default = match (name, arg.get_default_values().first()) {
        ("url" | "restart-cmd", _) => "Required.".to_owned(),
        ("logfile", _) => format!("Default: {}/NAME.log.", defaults::LOG_DIR),
        ("state-dir", _) => format!(
            "Default: {} for root, ~/{} for others.",
            defaults::STATE_DIR,
            defaults::USER_STATE_DIR
        ),
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

monitor_myvnc - watches a MyVNC server and restarts it when it stops answering

# SYNOPSIS

`monitor_myvnc` `--url` URL `--logfile` FILE `--restart-cmd` COMMAND [OPTIONS]

`monitor_myvnc` `--config` FILE [`--server` NAME]... [OPTIONS]

# DESCRIPTION

`monitor_myvnc` asks a MyVNC server over HTTP whether it answers. When it does not, it finds the
server's processes in /proc, stops them, starts the server again, sees it answer, and writes down
what was wrong. It is made to be run every minute, by cron or by a timer. A run goes like this:

- 1. Lock
The file .STEM.lock beside the log (STEM is the log's name without its extension) is locked with
flock(2), as the Python monitor and flock(1) do. Where another run holds it, this one says so in the
log and ends with status 0. A lock that flock(1) holds for this very run (`flock` LOCK `monitor_myvnc`
...) counts as its own. If the lock cannot be used, the run goes on without it, and ends with status 1.

- 2. Check
One GET, with one deadline (`--timeout`) for name resolution, connect, TLS and headers. A status
from 200 to 399 is healthy. Redirects on the same host are followed, ten at most; one to another
host is itself the answer. The body is not read and no proxy is used. With `--retries`, the server
counts as down only when every further check fails too.

- 3. Reserve
A second lock (an fcntl(2) record lock in the state directory, named after the server's host and port)
keeps runs that have other logs from restarting the same server at the same time; this host is one,
whatever name it has in the URL. If the state directory cannot be used (read-only, full, or on a disk
that does not answer within a second), a WARNING says so, and the restart goes on without that lock.

- 4. Survey
The restart command, the server's processes and the permission to signal each of them are looked at
before anything is touched. What would keep the restart from working ends the run with status 1,
with the server as it was; so does a URL whose name has no address while a server runs here, for
that server was not asked.

- 5. Diagnose
The server's processes are looked at through /proc for half a second at most, and the log says in one
sentence why the server does not answer, and who or what is behind it; see CAUSES. With `--dump-cmd`,
that command is run, and the server is asked once more.

- 6. Stop
SIGTERM, and SIGCONT so that a stopped process can act on it; after `--stop-timeout` ({STOP_TIMEOUT}
seconds) SIGKILL, and 5 seconds more. When a process is there even then, no second server is started.

- 7. Start
The command runs by /bin/bash (else /bin/sh) in a session of its own, with its output appended to
STEM.restart.log beside the log, and with USER, LOGNAME, HOME, SHELL and PATH where they are missing.

- 8. See it answer
The run ends as soon as the server answers, at most `--start-timeout` ({START_TIMEOUT} seconds) after
the start. A command that still runs then is left alone.

Told to stop (SIGTERM, SIGINT, SIGHUP) before the first signal to the server, a run stops at once;
after it, it starts the server first. A run cannot be suspended (SIGTSTP), for it would keep its lock.
With `--dry-run` and `--collect-diagnostics` a run takes no lock and touches nothing.
";

const PROGRAM_TAIL: &str = r#"
# HOW THE SERVER IS FOUND

A process is the server when it is an interpreter (python*, pypy*) whose script argument is named
main.py, run_server.py or manage.py, with "myvnc" (any case) in a component of the script's absolute
path or of its working directory; or an interpreter with `-m myvnc`, or with a module of that
package other than its command line and its desktop client. An editor, a tail -f, a grep, a shell with
the path in a string, and another project's manage.py are none of that, and neither is manage.py stop
or manage.py status.

`--process-pattern` replaces this rule: a process is the server when the regular expression matches
its arguments, joined by spaces. `--user` narrows either.

Never signalled are the monitor, its ancestors, PID 1, zombies, kernel threads, processes of another
PID namespace, and other monitors and their shells (whose arguments hold a `--process-pattern`).

Where several servers run on this host, these rules say which one the URL asks for. Every doubt spares:

- Somebody of them listens where the URL asks
These processes and their matching parents and descendants are the server; the others are another
instance. The address counts as well as the port. Where several servers do so, each on an address of
its own, it is the one that was started with the restart command's `--config_dir`, or none.

- Nothing listens there
What listens elsewhere is another instance. So is what was started with another `--config_dir` (or
MYVNC_CONFIG_DIR) than that of the restart command, what lives in another network namespace, what may not be seen, and a
manage.py.

- Something else listens there, such as a proxy
When there is one server that can be behind it, it is that; when there are several, none is. One with
another `--config_dir` than the restart command's, or with none where that names one, cannot.

- The URL is another host's
Nothing here is signalled.

With `--process-pattern` every match is the server, unless some of them listen where the URL asks. The
log says which processes were left alone, and why.

# CAUSES

Before anything is stopped, the lines that begin with "Cause:" name what was found, the most specific
first, with what proves it; the lines behind them are the evidence, a line for each process, for the
port and for the machine. What may not be seen (the system calls of another user's processes are shown
to root and to their owner alone) is said and not guessed. Named are:

- the server is not running; it last answered N ago
Nothing matches, and nothing listens. The time is that of the last healthy check.

- the kernel's OOM killer ended the server
Also, where that is less sure, "the server is not running; the kernel's OOM killer ended PID N, which
may have been it", or "ended a process of its control group". Give the server more memory, or look for
what uses it up.

- blocked reading from idle client ADDRESS
- blocked in a TLS handshake with idle client ADDRESS
- blocked in a TLS handshake or read with idle client ADDRESS
The server serves one client at a time, and this one has connected and sends nothing. Where the client
is a process of this machine, its PID and command are named. Find out who it is; a proxy before the
server keeps such clients away from it.

- blocked writing to client ADDRESS, which does not read
The same, at the other end of the answer.

- waiting for PID N (state S, for T): COMMAND
- waiting for the first to end of its children
A child that does not end, such as bjobs when the scheduler does not answer; where it waits for
another itself, that is named behind it, and the host or file that the last of them waits for.

- waiting for a reply from ADDRESS
- waiting for a connection to ADDRESS
Another host does not answer: a scheduler, a directory server, a name server.

- blocked opening FILE
A dead file server, a FIFO without a writer, a lock that another process holds; "reading", "locking",
"examining", "listing" and the like as well. A network file system is named with its server.

- PID N is stuck in the kernel (state D)
It cannot be stopped before the kernel lets it go: look at the file server or the disk.

- PID N is stopped
By SIGSTOP, or by a tracer, which is named.

- PID N spins: thread T used P % of a CPU
It runs in circles.

- PID N waits for clients as a healthy server does
Nothing about it is wrong to see. A firewall, or a server that was slow, may be the cause.

- deadlock: the main thread of PID N waits for a lock
- the main thread of PID N waits for a lock
No thread runs. Without "deadlock:", some of them sleep for a time.

- PID N is out of file descriptors
- PID N has too few file descriptors left for a request
- PID N is out of threads
Raise the limit, or look for the leak.

- PID N is at the memory limit of its control group
- PID N is swapped out
Raise the limit, or look for what uses up the memory.

- the accept queue of ADDRESS is full
- N clients wait in the accept queue of ADDRESS
- PID N has N connections in CLOSE_WAIT
How many are waiting for the server, or were left unclosed by it.

- ADDRESS is held by another process
- ADDRESS is not the server's
- the server listens on ADDRESS, which is not where the URL asks
- the server runs, but nothing listens on port N
- the URL asks for port N, and a MyVNC server listens on ADDRESS
The port is somebody else's, or the URL does not name where the server listens.

- the URL's host is another machine
- the URL's host cannot be resolved
Nothing here can be its server, or the server was not asked.

- a proxy answers with status N in the server's place
The proxy is named where it runs here, and whether the server itself is up.

- the server answers, but with status N
- the server's certificate is not accepted
- what answers is no MyVNC server
The reason stands behind it; that of a status is in the server's own log.

- the disk of DIRECTORY is full
- the disk of DIRECTORY has no free inode
- the machine is out of memory
- the machine is out of threads
- the machine is overloaded
- the machine waits for its disks
A restart will not cure it.

- not visible
- not known
- no further process can be started
What could not be seen, and why.

Behind the evidence stand the last minutes of the server's own log (`--log-history-minutes`): of the
newest *.log file that the server holds open, else of the log that it had when it was last started, of
the newest that `--server-log` matches, or of the newest in the places of FILES. A log that others
cannot read is shown only if it belongs to the server's user, and if only that user and root can change
the directories on its path. Passwords, tokens, cookies and session IDs in command lines, URLs and
these lines are shown as ***.

With `--dump-cmd`, a command is run before the server is stopped, such as `py-spy dump --pid {pid}`, and
its output stands behind "Dump:".

After a restart, the last line sums up: "Service was away N s: CAUSE", N counted from the last healthy
check.

# CONFIGURATION

`--config` FILE reads the settings of one or more servers from a TOML file, whose keys are the long
options' names; see monitor_myvnc.toml(5). Flags override it. The servers are watched at the same
time, each with its own lock and log, and the exit status is the worst of them. `--check-config`
prints what was understood.

The package's cron job, /etc/cron.d/monitor_myvnc, runs `monitor_myvnc --quiet --config
{CONFIG_FILE}` every minute. For a check every {TIMER_SECONDS} seconds:

    systemctl enable --now monitor_myvnc.timer

The cron job steps aside while that timer runs.

# FILES

- {CONFIG_FILE}
The configuration that the package's cron job and timer read.

- {LOG_DIR}/NAME.log
The log of a server of that configuration. A new log has mode 0640.

- .STEM.lock, STEM.restart.log
Beside each log: the run lock, which holds the PID of the run (mode 0600), and the restart command's
output (mode 0640).

- {STATE_DIR}, ~/{USER_STATE_DIR}
The restart lock, the time of the last healthy check and the processes of the last start, for root
and for others.

- {SERVER_LOGS}
Where the server's own log is looked for.

- /etc/cron.d/monitor_myvnc, /etc/logrotate.d/monitor_myvnc
The job, and the rotation of {LOG_DIR}/*.log and {MANUAL_LOG_STEM}*.log. Another file in
/etc/logrotate.d that names one of these, such as that of the Python monitor's manual, must go.

Log, locks and restart output must be regular files with one name (no hard link). A symbolic link is
followed only in a directory that nobody but root and the monitor's user can change. In a directory that
others can write to (/tmp, or one of mode 0775), a file must belong to root, to the monitor's user or to
the directory's owner. What root makes in a directory of another user belongs to that user.

# EXIT STATUS

- 0
The server is healthy, it was restarted, another run is at work, or a look (`--dry-run`,
`--collect-diagnostics`) was taken.

- 1
The restart failed, the run was told to stop, or something unexpected happened; the log says what. Also
when the log or the run lock could not be used, whatever the server does.

- 2
Usage or configuration error. Nothing was touched.

# ENVIRONMENT

- SSL_CERT_FILE, SSL_CERT_DIR
Certificates to trust in place of the system's.

- TZ
The time zone of the log.

- HOME, XDG_STATE_HOME
Where the state of a user other than root is.

- USER, LOGNAME, HOME, SHELL, PATH
Given to the restart command, filled in from the user database where they are missing.

Proxy variables are not used.

# EXAMPLES

A server with a self-signed certificate:

    monitor_myvnc --url https://myvnc.example.com \
      --ca-cert /etc/myvnc/ssl/server.crt \
      --logfile /var/log/myvnc-monitor.log \
      --restart-cmd "/opt/myvnc/manage.py restart"

From a crontab, on one line, for cron joins none:

    * * * * * monitor_myvnc --quiet --config /etc/monitor_myvnc.toml

A server that systemd runs, in {CONFIG_FILE}:

    [server.main]
    url = "http://localhost:9143"
    restart-cmd = "systemctl restart myvnc"

What the configuration means, and one check of one server, to be read on the terminal:

    monitor_myvnc --config /etc/monitor_myvnc.toml --check-config
    monitor_myvnc --config /etc/monitor_myvnc.toml --server main

What a server is doing at this moment, and what a run would do about it, without touching it:

    monitor_myvnc --config /etc/monitor_myvnc.toml --collect-diagnostics
    monitor_myvnc --config /etc/monitor_myvnc.toml --dry-run

A log for each day:

    monitor_myvnc --url http://localhost:9143 \
      --logfile "/var/log/myvnc-monitor-$(date +%Y%m%d).log" \
      --restart-cmd "systemctl restart myvnc"

# DIAGNOSTICS

Each line of the log has its time, its severity and a message. What was wrong with the server stands
behind "✗ Server is unresponsive:".

- ✓ Server is healthy (status: N)
Nothing to do.

- Connection error: HOST:PORT: Connection refused
Nothing listens there: the server is not running, or the URL has another port than the server.

- Connection error: cannot resolve HOST: REASON
The name is wrong, or name resolution is. A server that runs here is left alone; where none does, it
is started.

- Server request timed out after N seconds (STAGE)
The server hangs, or the machine is slow; STAGE is how far the check came. Where the server is just
slow, give a longer `--timeout`, or `--retries`.

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
Use one of the certificate's names, which the message gives, in the URL.

- SSL certificate error: REASON
- SSL error: REASON
The certificate is no good, or the TLS handshake failed, for the reason given.

- Server returned error status: N
- Request error: REASON
The server answers, but with an error. When a restart does not cure it, look into its own log.

- Check N of M failed: REASON; next in S seconds
One of the checks of `--retries`.

- Cannot look for the server's processes in /proc: REASON
/proc is not mounted, or not to be read by this user: correct that, or run as root. Nothing was
touched.

- Stopping server processes: [PID, ...]
Each is sent SIGTERM; "All processes terminated successfully" ends it.

- Cannot send SIGTERM to PID N: REASON
Something (a security module, for example) forbids what was permitted a moment before. Where the
process does not end, the lines below say so.

- Processes still running after Ns: [PID, ...]
They ignore SIGTERM: SIGKILL follows. When that is usual, give the server a longer `--stop-timeout`.

- PID N is still there Ns after SIGKILL, in state S
The process hangs in the kernel, on a dead file server for example. It ends when that answers again,
or with a reboot; each further run looks again.

- Left alone: PID N (COMMAND): REASON
The process looks like a MyVNC server, but is not this one. When it is, give `--process-pattern`.

- No server process found
The server was not running. When it is, it is none by the rule of HOW THE SERVER IS FOUND: give
`--process-pattern`.

- Cannot run COMMAND: REASON
- COMMAND did not end within N s, and was ended
The command of `--dump-cmd` did not work, or took too long. The restart goes on.

- The URL's host has no address, so the server was not asked: PID N
A server runs here, and may be well. Correct `--url` or the name service, or name the server with `--process-pattern`: then it is restarted
all the same. Nothing was touched.

- PID N was left alone as another instance, and has ended since
The restart command has ended another instance: `manage.py restart` takes any server of its user for
its own. Give each instance a user or a restart command of its own.

- Cannot signal PID N (COMMAND) of user OWNER: REASON
Run the monitor as root or as that user, or narrow the search with `--user`. Nothing was touched.

- The restart command cannot be run: REASON
The command's file is missing or not executable: correct `--restart-cmd`. Nothing was touched.

- Cannot run the restart command: REASON
- Cannot wait for the restart command: REASON
The machine is short of memory or of processes. The server was stopped; the next run tries again.

- Cannot write FILE: REASON; the restart command's output is discarded
The disk is full, or STEM.restart.log cannot be written. The server is started all the same.

- The restart command exited with status N after S seconds
- The restart command was killed by signal N after S seconds
It failed. When the server does not answer either, "Still no answer:" says how, and the last 50 lines
of the command's output stand below, each behind "Restart command:", or else "The restart command
wrote nothing" or "Cannot read its output:".

- The restart command exited with status 0, but there is no server
The command lacks its verb (manage.py start), or the server ended again at once: what the command said
stands below, and more in the server's own log.

- Server started but did not become responsive within N seconds
Look for a port conflict and into the server's own log, or give a longer `--start-timeout`.

- The server did not become responsive within N seconds
The same, and the command still runs; the next run stops the server if it hangs.

- The restart command failed, but the server answers
Such as `manage.py start` where somebody else was quicker.

- Server is now responsive after N seconds
The restart worked.

- Server restart failed
- Server restart failed: nothing was touched
The run ended with status 1; the lines above say why.

- Another run holds the lock (PID: N, for S seconds)
Normal while a restart goes on. After ten minutes it is a WARNING: look at that process. The lock goes
with it; leave the file.

- Another run is restarting this server
- Another run has just restarted this server: checking again
Two monitors watch the same server, with different logs. Remove one.

- Cannot use the run lock FILE: REASON; going on without it
The file is not what a lock should be (see FILES), or its directory cannot be used. Remove it, or give
another `--logfile`. The run goes on, and ends with status 1.

- cannot write the log FILE: REASON; going on without it
On stderr, even with `--quiet`: the disk is full, or the log or its directory cannot be used (see
FILES). The run goes on, and ends with status 1.

- This run has logged N KiB
Lines below ERROR are left out from there on. Lines of a dump and of the server's log do not count. Of the restart command's output at most 16 KiB
are logged; the rest is in STEM.restart.log.

- Cannot use the state directory DIR: REASON
Make it writable, or give another `--state-dir`. The server is restarted all the same, without the
restart lock, and nothing is remembered of it.

- cannot set up the check: REASON
- cannot catch signals: REASON
- cannot set up event handling: REASON
The machine is short of memory or descriptors. Nothing was done; the next run tries again.

- Received SIGTERM: stopping at once, nothing was done
- Received SIGTERM: stopping once the server is started
Somebody ended the monitor. After the first signal to the server it starts the server before it ends
("The server was started; stopping as told").

- Would stop: [PID, ...]
- Would run: COMMAND
What `--dry-run` did not do.

- REASON (see --help)
On stderr, with status 2: a flag or the configuration file is wrong, see monitor_myvnc.toml(5).

# SEE ALSO

monitor_myvnc.toml(5), crontab(5), flock(1), logrotate(8), proc(5), systemd.timer(5)
"#;

const FILE_HEAD: &str = r"
# NAME

monitor_myvnc.toml - configuration of monitor_myvnc

# DESCRIPTION

A file in TOML, which monitor_myvnc(1) reads with `--config`; that of the packages is {CONFIG_FILE}.
Its keys are the long options' names without the dashes. What stands before the first table holds
for every server; each table `[server.NAME]` is a server of this host, and its keys override those.
Flags on the command line override both. A NAME is made of
letters, digits and the signs `_-.` but does not begin with a dot. Seconds are whole or decimal, more
than 0 and at most {LONGEST_SECONDS}.

As root, the file is read only when it is root's and nobody else can write it, for it holds commands
that root runs. A file without a server is no error: there is nothing to watch then.

# KEYS
";

const FILE_TAIL: &str = r#"

# SEVERAL SERVERS

The servers are watched at the same time: one that hangs delays no other. Each has its own log, and
beside it its own lock. The exit status is the worst of all.

Two servers of one host must be told apart, so that the restart of one does not stop the other: by
`process-pattern` or by `user`, where both have one and they differ, else by the port of the URL, on
which each must listen. Told apart by port alone, a process that does not listen on the server's port
is left alone, for it may be the other. Servers that nothing tells apart are an error.

# DIAGNOSTICS

Errors stand on stderr, as FILE:LINE:COLUMN: what is wrong, and the nearest valid key where one is
not known. All unknown keys and values of a wrong kind are told at once, then the first value of each
server that cannot be used; the exit status is 2, and nothing was touched.

- unknown key KEY: the nearest valid key is OTHER
A spelling mistake, or a setting of a newer version.

- others can write it, and it holds commands that root runs
- it is not root's, and it holds commands that root runs
Give the file to root, with mode 644, 640 or 600.

- servers A and B cannot be told apart
Give each a `process-pattern` or a `user` of its own, or a URL with the port it listens on.

- servers A and B have one lock
Their logs have the same name but for the extension: give each a `logfile` of its own.

# EXAMPLES

    timeout = 5

    [server.main]
    url = "https://myvnc.example.com"
    restart-cmd = "/opt/myvnc/manage.py --config_dir=/etc/myvnc start"

    [server.test]
    url = "http://localhost:9143"
    restart-cmd = "systemctl restart myvnc-test"
    user = "myvnctest"
    logfile = "{MANUAL_LOG_STEM}-test.log"

# FILES

{CONFIG_FILE}, {LOG_DIR}/NAME.log

# SEE ALSO

monitor_myvnc(1)
"#;
