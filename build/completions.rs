//! Completions for the shells.

use std::error::Error;

use clap::builder::Str;
use clap::{Arg, Command, ValueHint};
use clap_complete::{Shell, generate};

use crate::servers;

/// Each script, with its path in the tree.
pub(crate) fn scripts(
    command: &Command,
    verbs: &Command,
) -> Result<Vec<(&'static str, String)>, Box<dyn Error>> {
    let subcommands = verbs.get_subcommands().cloned();
    let subcommands = subcommands.map(|verb| verb.mut_args(hinted));
    let command = command
        .clone()
        .mut_args(hinted)
        .disable_help_subcommand(true)
        .subcommands(subcommands);
    let bash = with_equals_signs(&script(&command, Shell::Bash)?)?;
    Ok(vec![
        (
            "completions/monitor_myvnc.bash",
            servers::bash(&with_users(&bash)?, verbs)?,
        ),
        (
            "completions/_monitor_myvnc",
            servers::zsh(&script(&command, Shell::Zsh)?)?,
        ),
        (
            "completions/monitor_myvnc.fish",
            servers::fish(&script(&command, Shell::Fish)?, verbs),
        ),
    ])
}

/// An option with a hint on the kind of its value, which only the shells need.
fn hinted(arg: Arg) -> Arg {
    let kind = arg.get_value_names().and_then(<[_]>::first);
    let hint = match (arg.get_long(), kind.map(Str::as_str)) {
        (Some("user" | "run-as"), _) => ValueHint::Username,
        (_, Some("URL")) => ValueHint::Url,
        (_, Some("FILE" | "GLOB")) => ValueHint::FilePath,
        (_, Some("DIR")) => ValueHint::DirPath,
        (_, Some("COMMAND")) => ValueHint::CommandString,
        (_, Some("NAME" | "SERVER" | "TEXT" | "TIME" | "SECONDS" | "NUMBER" | "REGEX")) => {
            ValueHint::Other
        }
        _ => return arg,
    };
    arg.value_hint(hint)
}

fn script(command: &Command, shell: Shell) -> Result<String, Box<dyn Error>> {
    let mut text = Vec::new();
    generate(
        shell,
        &mut command.clone(),
        env!("CARGO_PKG_NAME"),
        &mut text,
    );
    Ok(String::from_utf8(text)?)
}

/// Bash splits words at an equals sign. Makes the script complete `--user=` as it completes `--user `.
fn with_equals_signs(script: &str) -> Result<String, Box<dyn Error>> {
    let previous = "    prev=\"$3\"\n";
    let (before, after) = script
        .split_once(previous)
        .ok_or("the completion for bash does not look at the previous word")?;
    Ok(format!(
        "{before}{previous}    \
         [[ ${{cur}} == = ]] && cur=\"\"\n    \
         [[ ${{prev}} == = ]] && prev=\"${{COMP_WORDS[COMP_CWORD-2]}}\"\n{after}"
    ))
}

/// clap_complete does not complete users for bash. Makes the script call `compgen -u`.
fn with_users(script: &str) -> Result<String, Box<dyn Error>> {
    let mut script = script.to_owned();
    for option in ["--user)\n", "--run-as)\n"] {
        let (before, after) = script
            .split_once(option)
            .ok_or("the completion for bash lacks an option that names a user")?;
        let (action, rest) = after
            .split_once(";;")
            .ok_or("the completion of a user does not end")?;
        let indent = action.len() - action.trim_start().len();
        let indent = &action[..indent];
        script = format!(
            "{before}{option}{indent}COMPREPLY=($(compgen -u -- \"${{cur}}\"))\n{indent}return 0\n{indent};;{rest}"
        );
    }
    Ok(script)
}
