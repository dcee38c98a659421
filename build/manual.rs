//! The texts of the manual pages.

use clap::{Arg, Command};

use crate::cli::{is_switch, keys};
use crate::defaults;
use crate::page::page;
use crate::sample;

/// The texts of the pages, in the markup of `page.rs`. A word in braces stands for a generated part or
/// a value of `defaults.rs`.
const PROGRAM: &str = include_str!("manual/monitor_myvnc.1.in");
const FILE: &str = include_str!("manual/monitor_myvnc.toml.5.in");

/// Each page, with its path in the tree.
pub(crate) fn pages(command: &Command, date: &str) -> Vec<(&'static str, String)> {
    let program = filled(PROGRAM)
        .replace("{OPTIONS}", &options(command))
        .replace("{CAUSES}", &causes());
    let file = filled(FILE).replace("{KEYS}", &blocks(keys(command).map(key)));
    vec![
        (
            "man/monitor_myvnc.1",
            page("MONITOR_MYVNC", "1", date, &program),
        ),
        (
            "man/monitor_myvnc.toml.5",
            page("MONITOR_MYVNC.TOML", "5", date, &file),
        ),
    ]
}

/// The terms of the section CAUSES, each with its explanation.
fn causes() -> String {
    include_str!("manual/causes.in").trim_end().to_owned()
}

/// Each option below its heading.
fn options(command: &Command) -> String {
    let mut heading = None;
    blocks(command.get_arguments().map(|arg| {
        let begins = arg.get_help_heading().filter(|own| heading != Some(*own));
        heading = begins.or(heading);
        begins.map_or_else(String::new, |begins| format!("## {begins}\n\n")) + &option(arg)
    }))
}

fn option(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("`-{short}`, "));
    let name = arg.get_long().unwrap_or_default();
    let value = arg.get_value_names().and_then(<[_]>::first);
    let value = value.filter(|_| arg.get_action().takes_values());
    let value = value.map(|value| format!(" <{value}>"));
    let term = format!(
        "{}`--{name}`{}",
        short.unwrap_or_default(),
        value.unwrap_or_default()
    );
    let (help, default) = explained(arg);
    let levels = if name == "log-level" {
        format!(": {}", sample::unit(arg))
    } else {
        String::new()
    };
    let default = default.map_or_else(String::new, |default| format!(" Default: {default}."));
    format!("- {term}\n{help}{levels}.{default}")
}

/// A key of the configuration file.
fn key(arg: &Arg) -> String {
    let name = arg.get_long().unwrap_or_default();
    let kind = sample::unit(arg);
    let (help, default) = explained(arg);
    let default = match (name, default) {
        ("url" | "restart-cmd", _) => "Required.".to_owned(),
        ("logfile", _) => format!("Default: {}/NAME.log.", defaults::LOG_DIR),
        (_, Some(_)) if !arg.get_default_values().is_empty() => {
            format!("Default: {}.", sample::value(arg))
        }
        (_, Some(default)) => format!("Default: {default}."),
        _ if is_switch(arg) => "Default: false.".to_owned(),
        _ => "Default: none.".to_owned(),
    };
    format!("- `{name}` ({kind})\n{help}. {default}")
}

/// An option's help, and its default. A default that depends on other settings is part of the help.
fn explained(arg: &Arg) -> (String, Option<String>) {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if let Some((help, default)) = help.split_once(" [default: ") {
        let default = default.trim_end_matches(']').to_owned();
        return (help.to_owned(), Some(default));
    }
    let default = arg.get_default_values().first();
    let default = default.filter(|_| arg.get_action().takes_values());
    let default = default.map(|default| default.to_string_lossy().into_owned());
    (help, default)
}

fn blocks(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join("\n\n")
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
