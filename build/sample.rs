//! The sample configuration: every key, commented out, with its default.

use clap::builder::PossibleValue;
use clap::{Arg, Command};

use crate::cli::{is_number, is_seconds, is_switch, keys};
use crate::defaults;

/// Keys that belong in the table of a server, each with an example.
const OF_A_SERVER: [(&str, &str); 9] = [
    ("url", "https://myvnc.example.com"),
    (
        "restart-cmd",
        "/opt/myvnc/manage.py --config_dir=/etc/myvnc start",
    ),
    ("logfile", ""),
    ("listen", "127.0.0.1:9143"),
    ("user", "myvnc"),
    ("run-as", "myvnc"),
    ("process-pattern", r"/opt/myvnc/main\.py"),
    ("server-log", "/var/log/myvnc/*.log"),
    ("dump-cmd", "py-spy dump --pid {pid}"),
];

/// Keys that the packages set: what is right for a server that people use, and would surprise whoever
/// replaces the Python monitor.
const SET: [(&str, &str); 6] = [
    ("restart-policy", "\"useful\""),
    ("max-restarts", "30"),
    ("start-grace", "30"),
    ("unwedge", "true"),
    ("journal", "true"),
    ("cert-warn-days", "21"),
];

/// Keys of every server that have no default, each with an example.
const EXAMPLES: [(&str, &str); 4] = [
    ("ca-cert", "/etc/myvnc/ssl/server.crt"),
    (
        "notify-cmd",
        "MAILTO=root /usr/libexec/monitor_myvnc/notify-mail",
    ),
    ("ping-url", "https://hc-ping.com/UUID"),
    ("metrics-dir", "/var/lib/prometheus/node-exporter"),
];

/// The file as the packages install it.
pub(crate) fn configuration(command: &Command) -> String {
    let mut text = "\
        # Configuration of monitor_myvnc. Manual page: monitor_myvnc.toml(5)\n\
        # Each key is shown with its default; a value below the line \"# Example:\" is no\n\
        # default. To set a key, remove the # before it and change the value.\n\
        # A key without a # is set: the program alone has another default.\n\
        # A server needs at least the lines [server.main], url and restart-cmd below.\n\
        # To check this file, run\n\
        #   monitor_myvnc --config {CONFIG_FILE} --check-config\n\
        # The file contains commands that root executes: only root may write it.\n\n\
        # Keys before the first table apply to every server.\n"
        .replace("{CONFIG_FILE}", defaults::CONFIG_FILE);
    let is_of_a_server = |arg: &&Arg| example(arg).is_some();
    for arg in keys(command).filter(|arg| !is_of_a_server(arg)) {
        text += &entry(arg);
    }
    text += "\n# Each table is a server of this host. Its keys override those above.\n\n#[server.main]\n";
    for (key, _) in OF_A_SERVER {
        text.extend(
            keys(command)
                .find(|arg| arg.get_long() == Some(key))
                .map(entry),
        );
    }
    text
}

/// The default of a key in TOML; an example if it has none.
pub(crate) fn value(arg: &Arg) -> String {
    let default = arg.get_default_values().first();
    let plain = match (default, arg.get_long(), example(arg)) {
        (Some(default), ..) => default.to_string_lossy().into_owned(),
        (_, Some("logfile"), _) => format!("{}/main.log", defaults::LOG_DIR),
        (_, Some("state-dir"), _) => defaults::STATE_DIR.to_owned(),
        (_, long, None) => {
            let example = EXAMPLES.iter().find(|(key, _)| long == Some(key));
            example.map_or_else(String::new, |(_, example)| (*example).to_owned())
        }
        (.., Some(example)) => example.to_owned(),
    };
    if is_switch(arg) {
        "false".to_owned()
    } else if is_number(arg) {
        plain
    } else {
        format!("'{plain}'")
    }
}

/// Whether the value that [`value`] returns is the default.
fn has_default(arg: &Arg) -> bool {
    let has_path = matches!(arg.get_long(), Some("logfile" | "state-dir"));
    has_path || is_switch(arg) || !arg.get_default_values().is_empty()
}

fn example(arg: &Arg) -> Option<&'static str> {
    let own = OF_A_SERVER
        .iter()
        .find(|(key, _)| arg.get_long() == Some(key));
    own.map(|(_, example)| *example)
}

/// The values that a key can have.
pub(crate) fn unit(arg: &Arg) -> String {
    let levels = arg.get_possible_values();
    let levels: Vec<&str> = levels.iter().map(PossibleValue::get_name).collect();
    match levels[..] {
        _ if is_switch(arg) => "true or false".to_owned(),
        [ref others @ .., last] if !others.is_empty() => {
            format!("{} or {last}", others.join(", "))
        }
        _ if is_seconds(arg) => "seconds".to_owned(),
        _ if is_number(arg) => "number".to_owned(),
        _ => "text".to_owned(),
    }
}

fn entry(arg: &Arg) -> String {
    let key = arg.get_long().unwrap_or_default();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = match unit(arg).as_str() {
        "true or false" | "number" | "text" => help,
        unit => format!("{help} ({unit})"),
    };
    let mut text = String::from("\n#");
    let mut width = 1;
    for word in help.split_whitespace() {
        if width + 1 + word.chars().count() > 80 {
            text += "\n#";
            width = 1;
        }
        text.extend([" ", word]);
        width += 1 + word.chars().count();
    }
    let set = SET.iter().find(|(set, _)| *set == key);
    if set.is_none() && !has_default(arg) {
        text += "\n# Example:";
    }
    match set {
        Some((_, value)) => text.extend(["\n", key, " = ", *value, "\n"]),
        None => text.extend(["\n#", key, " = ", &value(arg), "\n"]),
    }
    text
}
