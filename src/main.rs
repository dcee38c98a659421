//! A watchdog for a MyVNC server: asks it over HTTP whether it answers, and when it does
//! not, stops its processes, starts it again, sees it answer, and writes down what was wrong.

mod account;
mod cli;
mod config;
mod defaults;
mod diagnosis;
mod health;
mod journal;
mod lock;
mod process;
mod recovery;
mod run;
mod servers;
mod settings;
mod signals;
mod state;
mod trust;

use std::io::Write;
use std::process::ExitCode;

use futures_util::future::join_all;

use crate::journal::complain;
use crate::servers::Order;

/// Usage errors: nothing was touched.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let settings = match servers::order(&arguments) {
        Ok(Order::Watch(settings)) => settings,
        Ok(Order::Say(text)) => {
            // A terminal that is gone needs no answer.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(reasons) => {
            for reason in reasons {
                complain(&format!("{reason} (see --help)"));
            }
            return ExitCode::from(USAGE);
        }
    };
    // Deadlines are looked at between any two steps: a peer that floods us is one long series of steps.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(1)
        .build()
    {
        Ok(runtime) => runtime,
        Err(reason) => {
            complain(&format!(
                "cannot set up event handling: {}; nothing was done",
                journal::plain(&reason)
            ));
            return ExitCode::FAILURE;
        }
    };
    let successes = runtime.block_on(join_all(settings.iter().map(run::run)));
    // A resolver that hangs is left behind: waiting for it would outlast every deadline.
    runtime.shutdown_background();
    if successes.into_iter().all(|success| success) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
