//! One line on a terminal that says what is awaited and for how long, for people who watch a long wait.

use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rustix::termios::{LocalModes, tcgetattr};

use crate::proc::process::Proc;

/// Between two looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Waits that are shorter show nothing.
const SILENCE: Duration = Duration::from_secs(2);
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
    #[allow(dead_code, reason = "the run's waits are to show it")]
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
            let mut bar: Option<ProgressBar> = None;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = TICK;
                if may_show() {
                    bar.get_or_insert_with(|| line(&what, began, limit)).tick();
                } else {
                    bar = None;
                }
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
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

fn line(what: &str, began: Instant, limit: Option<Duration>) -> ProgressBar {
    let time = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
        let passed = began.elapsed();
        let _ = match limit {
            Some(limit) => write!(out, "{} s left", limit.saturating_sub(passed).as_secs()),
            None => write!(out, "{} s", passed.as_secs()),
        };
    };
    let style = ProgressStyle::with_template("waiting for {msg}: {time}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
    let target = ProgressDrawTarget::stderr();
    ProgressBar::with_draw_target(None, target)
        .with_style(style.with_key("time", time))
        .with_message(what.to_owned())
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
