//! The texts of the manual pages.

use std::error::Error;

use clap::{Arg, Command, ValueEnum};
use clap_mangen::Man;

use crate::cli::{is_switch, keys};
use crate::commands;
use crate::defaults;
use crate::diagnosis::cause::catalog::Kind;
use crate::notice::Notice;
use crate::page::{page, tidy};
use crate::sample;

/// The texts of the pages, in the markup of `page.rs`. A word in braces stands for a generated part or
/// a value of `defaults.rs`.
const PROGRAM: &str = include_str!("manual/monitor_myvnc.1.in");
const FILE: &str = include_str!("manual/monitor_myvnc.toml.5.in");

/// Each page, with its path in the tree.
///
/// # Errors
///
/// If `clap_mangen` cannot render the options.
pub(crate) fn pages(
    command: &Command,
    verbs: &Command,
    date: &str,
) -> Result<Vec<(&'static str, String)>, Box<dyn Error>> {
    let program = PROGRAM
        .replace("{COMMANDS}", &commands::section(verbs)?)
        .replace("{NIGHT}", commands::NIGHT.trim_end())
        .replace("{EVENTS}", &events());
    let program = filled(&program).replace("{CAUSES}", &causes());
    let file = filled(FILE).replace("{KEYS}", &blocks(keys(command).map(key)));
    let program = page("MONITOR_MYVNC", "1", date, &program);
    let program = program.replace(".PP\n{OPTIONS}\n", &tidy(&options(command)?));
    Ok(vec![
        ("man/monitor_myvnc.1", program),
        (
            "man/monitor_myvnc.toml.5",
            page("MONITOR_MYVNC.TOML", "5", date, &file),
        ),
    ])
}

/// Each kind of cause: how its sentences begin, what that means, and what to do.
fn causes() -> String {
    blocks(Kind::ALL.iter().map(|kind| {
        let entry = kind.entry();
        // The page does not name itself.
        let advice = entry.advice.replace(" of monitor_myvnc(1)", "");
        let terms = entry.terms.join("\n- ");
        let slug = kind.slug();
        format!("- {terms}\n[{slug}] {} {advice}", entry.meaning)
    }))
}

/// Each event: its name, when it occurs, and its MESSAGE_ID.
fn events() -> String {
    blocks(Notice::value_variants().iter().map(|notice| {
        let value = notice.to_possible_value();
        let when = value.and_then(|value| value.get_help().map(ToString::to_string));
        format!(
            "- {}\n{}. MESSAGE_ID {}",
            notice.slug(),
            when.unwrap_or_default(),
            notice.message_id()
        )
    }))
}

/// The options as `clap_mangen` renders them, each group below a subsection's heading.
fn options(command: &Command) -> Result<String, Box<dyn Error>> {
    let mut rendered = Vec::new();
    let sentences = command.clone().mut_args(|arg| {
        let (help, default) = explained(&arg);
        let is_in_header = !arg.get_default_values().is_empty();
        let default = default.filter(|_| !is_in_header);
        let default = default.map_or_else(String::new, |default| format!(" Default: {default}."));
        if is_one_of(&arg) {
            let levels = sample::unit(&arg);
            return arg
                .hide_possible_values(true)
                .help(format!("{help}: {levels}."));
        }
        arg.help(format!("{help}.{default}"))
    });
    Man::new(sentences).render_options_section(&mut rendered)?;
    let rendered = String::from_utf8(rendered)?;
    // What the page's own beginning has already.
    let (_, section) = rendered
        .split_once(".SH ")
        .ok_or("clap_mangen renders no options")?;
    let mut section = format!(".SH {section}");
    for arg in command.get_arguments() {
        let heading = arg.get_help_heading().unwrap_or("Other");
        let from = format!(".SH {}\n", quoted(&heading.to_uppercase()));
        section = section.replace(&from, &format!(".SS {}\n", quoted(heading)));
    }
    // As in SYNOPSIS, a placeholder has no brackets.
    Ok(section.replace(r"\fI<", r"\fI").replace(r">\fR", r"\fR"))
}

/// Whether an option's values are words of a list.
fn is_one_of(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.get_possible_values().is_empty()
}

/// A request's argument (`groff(7)`).
fn quoted(heading: &str) -> String {
    if heading.contains(' ') {
        format!("\"{heading}\"")
    } else {
        heading.to_owned()
    }
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
        ("UNWEDGE_FOR", defaults::UNWEDGE_FOR),
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
