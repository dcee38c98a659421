//! A watchdog for a MyVNC server: asks it over HTTP whether it answers, and when it does
//! not, stops its processes, starts it again, sees it answer, and writes down what was wrong.

mod account;
mod cli;
mod defaults;
mod health;
mod journal;
mod lock;
mod process;
mod recovery;
mod run;
mod settings;
mod signals;
mod trust;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::journal::complain;

/// Usage errors: nothing was touched.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        Err(error) => return usage(&cli::one_line(&error)),
    };
    let settings = match settings::Settings::from_flags(cli) {
        Ok(settings) => settings,
        Err(reason) => return usage(&reason),
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
    let success = runtime.block_on(run::run(&settings));
    // A resolver that hangs is left behind: waiting for it would outlast every deadline.
    runtime.shutdown_background();
    if success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn usage(reason: &str) -> ExitCode {
    complain(&format!("{reason} (see --help)"));
    ExitCode::from(USAGE)
}
