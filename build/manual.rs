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
    let text = filled(PROGRAM)
        .replace("{OPTIONS}\n\n", "")
        .replace("{CAUSES}", &causes());
    let program =
        page("MONITOR_MYVNC", "1", date, &text).replace(".SH OPTIONS\n", &options(command)?);
    let text = filled(FILE).replace("{KEYS}", &explained(command));
    let file = page("MONITOR_MYVNC.TOML", "5", date, &text);
    Ok(vec![
        ("man/monitor_myvnc.1", tidy(&program)),
        ("man/monitor_myvnc.toml.5", tidy(&file)),
    ])
}

/// The texts of the pages, in the markup of `page.rs`: `{NAME}` is a value of `defaults.rs`, or a
/// generated part.
const PROGRAM: &str = include_str!("manual/monitor_myvnc.1.in");
const FILE: &str = include_str!("manual/monitor_myvnc.toml.5.in");

/// The terms of the section CAUSES, each with its explanation.
fn causes() -> String {
    include_str!("manual/causes.in").trim_end().to_owned()
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
