//! One line on a terminal that says what is awaited and for how long, for people who watch a long wait.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::Term;
use rustix::termios::{LocalModes, tcgetattr};

use super::terminal;
use crate::proc::process::Proc;

/// Between two looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Waits that are shorter show nothing.
const SILENCE: Duration = Duration::from_secs(2);
/// Back to the beginning of the line, and erases it (console_codes(4)).
const CLEAR: &str = "\r\x1b[2K";
/// Whether the line stands on the terminal.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);
/// Kernel functions in which a process waits for a line of a terminal (proc_pid_wchan(5)).
const READS_TERMINAL: [&str; 2] = ["n_tty_read", "wait_woken"];

/// The line. It disappears when this is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Shows what is awaited, and the seconds that are left, or without a limit those that have passed.
    /// Shows nothing where standard error is no terminal.
    pub(crate) fn awaiting(what: &str, limit: Option<Duration>) -> Self {
        Self::start(what, limit, || true)
    }

    /// The same for the end of a child that has the terminal too. Shows nothing while the child asks for
    /// something there: its question must stay.
    pub(crate) fn beside_a_child(what: &str, pid: i32) -> Self {
        Self::start(what, None, move || !owns_terminal(pid))
    }

    fn start(
        what: &str,
        limit: Option<Duration>,
        may_show: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if is_dumb || !stderr().is_terminal() {
            return Self { thread: None };
        }
        let what = crate::text::one_line(what);
        let (stop, stopped) = channel();
        let began = Instant::now();
        let thread = std::thread::Builder::new().spawn(move || {
            let mut wait = SILENCE;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = TICK;
                hide();
                if may_show() {
                    let line = line(&what, began.elapsed(), limit);
                    terminal::say(&stderr(), &line);
                    IS_SHOWN.store(true, Ordering::Relaxed);
                }
            }
            hide();
        });
        Self {
            thread: thread.ok().map(|thread| (stop, thread)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

/// Removes the line for now: a line of the log comes in its place.
pub(crate) fn hide() {
    if IS_SHOWN.swap(false, Ordering::Relaxed) {
        terminal::say(&stderr(), CLEAR);
    }
}

/// What is awaited, no longer than a line of the terminal: a longer one could not be cleared.
fn line(what: &str, passed: Duration, limit: Option<Duration>) -> String {
    let time = match limit {
        Some(limit) => format!("{} s left", limit.saturating_sub(passed).as_secs()),
        None => format!("{} s", passed.as_secs()),
    };
    let (_, columns) = Term::stderr().size();
    let text = format!("waiting for {what}: {time}");
    text.chars()
        .take(usize::from(columns).saturating_sub(1))
        .collect()
}

/// Whether a process or a descendant of it has the terminal for itself: it reads single keys or a
/// password, or waits for a line.
fn owns_terminal(pid: i32) -> bool {
    let is_usual = tcgetattr(stderr()).is_ok_and(|terminal| {
        terminal
            .local_modes
            .contains(LocalModes::ICANON | LocalModes::ECHO)
    });
    !is_usual || reads_terminal(pid)
}

fn reads_terminal(pid: i32) -> bool {
    let proc = Proc::here();
    let wchan = std::fs::read_to_string(proc.path(pid, "wchan")).unwrap_or_default();
    READS_TERMINAL.contains(&wchan.trim()) || proc.children(pid).into_iter().any(reads_terminal)
}
