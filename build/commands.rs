//! The verbs in the manual.

use clap::{Arg, Command};

/// The section's text, in the markup of `page.rs`. A word in braces stands for a verb's options.
const TEXT: &str = include_str!("manual/commands.in");
/// An example of one night.
pub(crate) const NIGHT: &str = include_str!("manual/night.in");
/// Options that every verb has.
const PLACE: [&str; 2] = ["config", "state-dir"];

/// The section COMMANDS.
///
/// # Errors
///
/// If a verb is missing in it.
pub(crate) fn section(verbs: &Command) -> Result<String, String> {
    let is_place = |arg: &&Arg| arg.get_long().is_some_and(|long| PLACE.contains(&long));
    let first = verbs.get_subcommands().next().ok_or("there are no verbs")?;
    let place = first.get_arguments().filter(is_place);
    let mut text = TEXT.replace("{PLACE_OPTIONS}", &options(place));
    for verb in verbs.get_subcommands() {
        let name = verb.get_name();
        if !text.contains(&format!("\n## monitor_myvnc {name} ")) {
            return Err(format!("build/manual/commands.in does not describe {name}"));
        }
        let own = verb.get_arguments().filter(|arg| !is_place(arg));
        let options = options(own.filter(|arg| !arg.is_hide_set()));
        let place = format!("{{{}_OPTIONS}}", name.to_uppercase());
        if !options.is_empty() && !text.contains(&place) {
            return Err(format!("build/manual/commands.in has no {place}"));
        }
        text = text.replace(&place, &options);
    }
    Ok(text.trim_end().to_owned())
}

/// A block for each option.
fn options<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let blocks = args.filter_map(|arg| {
        let long = arg.get_long()?;
        let value = arg
            .get_value_names()
            .filter(|_| arg.get_action().takes_values());
        let value = value.and_then(|names| names.first());
        let value = value.map_or_else(String::new, |name| format!(" <{name}>"));
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let help = match help.split_once(" [default: ") {
            Some((help, default)) => {
                format!("{help}. Default: {}.", default.trim_end_matches(']'))
            }
            None => format!("{help}."),
        };
        let default = arg.get_default_values().first();
        let default = default.filter(|_| !value.is_empty());
        let default = default.map_or_else(String::new, |default| {
            format!(" Default: {}.", default.to_string_lossy())
        });
        let values = arg.get_possible_values();
        let values: Vec<&str> = values
            .iter()
            .map(clap::builder::PossibleValue::get_name)
            .collect();
        let values = if values.is_empty() || value.is_empty() {
            String::new()
        } else {
            format!(" {}: {}.", value.trim_start(), values.join(", "))
        };
        Some(format!("- `--{long}`{value}\n{help}{values}{default}"))
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}
