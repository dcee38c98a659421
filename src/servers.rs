//! Which servers this run watches: flags and configuration file in, one `Settings` for each out,
//! each told from every other.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use regex_lite::Regex;

use crate::cli::{self, Cli};
use crate::config::Config;
use crate::defaults;
use crate::lock::RunLock;
use crate::redact;
use crate::server::config_dir::config_dir;
use crate::server::{restart_command, search};
use crate::settings::Settings;
use crate::sys::account;
use crate::text::{errno_text, one_line};
use crate::usage::{Place, UsageError};

/// The number of users whose servers `--check-config` names: anybody can start look-alikes.
const MOST_USERS: usize = 20;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Watch these.
    Watch {
        /// The servers without a mistake.
        servers: Vec<Settings>,
        /// What is wrong with others, in the order of the file.
        wrong: Vec<UsageError>,
    },
    /// Print this text, and no more.
    PrintText(String),
    /// Print the settings, and what is doubtful about them.
    PrintSettings {
        /// The settings as they would stand in a configuration file.
        text: String,
        /// One line for each doubt.
        doubts: Vec<String>,
        /// What is wrong with the servers that are not shown, in the order of the file.
        wrong: Vec<UsageError>,
    },
}

/// Reads the command line and the file that it names. An error leaves nothing to watch.
pub(crate) fn read_request(arguments: &[OsString]) -> Result<Request, Vec<UsageError>> {
    // Freeing it, piece by piece, would gain nothing before the process ends.
    let command = Box::leak(Box::new(Cli::command()));
    let arguments = &cli::unabbreviated(command, arguments);
    let mut given = match command.try_get_matches_from_mut(arguments) {
        Ok(given) => given,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            return Ok(Request::PrintText(error.render().to_string()));
        }
        Err(error) => return Err(vec![error.into()]),
    };
    let is_given = |id| given.value_source(id).is_some();
    let is_by_file = is_given("config")
        || given.get_flag("check_config")
            && !["url", "logfile", "restart_cmd"].into_iter().any(is_given);
    if !is_by_file && is_given("server") {
        let reason = "needs --config FILE, which has the servers' names";
        return Err(vec![UsageError::of("server", reason)]);
    }
    if !is_by_file && !given.get_flag("check_config") {
        let flags = Cli::from_arg_matches_mut(&mut given).map_err(|error| vec![error.into()])?;
        let settings = Settings::from_flags(flags).map_err(|error| vec![error])?;
        return Ok(Request::Watch {
            servers: vec![settings],
            wrong: Vec::new(),
        });
    }
    let flags = parsed(&given).map_err(|error| vec![error])?;
    if !is_by_file {
        let settings = Settings::from_flags(flags).map_err(|error| vec![error])?;
        return Ok(Request::PrintSettings {
            text: show(&given, &settings, |_| None),
            doubts: doubts(&[&settings]),
            wrong: Vec::new(),
        });
    }
    let path = flags.config.as_deref();
    let path = path.unwrap_or(Path::new(defaults::CONFIG_FILE));
    let config = Config::read(path)?;
    let chosen = choose(&config, &flags.server).map_err(|error| vec![error])?;
    let command = Cli::command();
    let by_hand: Vec<&str> = cli::keys(&command)
        .filter(|arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine))
        .filter_map(clap::Arg::get_long)
        .collect();
    let (mut servers, mut wrong) = (Vec::new(), Vec::new());
    for name in chosen {
        if !config.wrong(name).is_empty() {
            wrong.extend_from_slice(config.wrong(name));
            continue;
        }
        match server(&config, name, arguments, &by_hand) {
            Ok(Some(server)) => servers.push(server),
            Ok(None) => {
                let text = format!(
                    "no server in {}: nothing to watch; add a table [server.NAME], see monitor_myvnc.toml(5)\n",
                    path.display()
                );
                let quiet = flags.quiet || config.flags(None, &[]).contains(&"--quiet");
                return Ok(Request::PrintText(if quiet { String::new() } else { text }));
            }
            Err(error) => wrong.push(error),
        }
    }
    if !wrong.is_empty() {
        // A server that cannot be watched can have processes all the same.
        for server in servers.iter_mut().map(|server| &mut server.settings) {
            let is_named = server.process_pattern.is_some() || server.user.is_some();
            server.by_port_alone |= !is_named;
        }
    }
    tell_apart(&mut servers, &config, &mut wrong);
    config.sort(&mut wrong);
    if servers.is_empty() {
        return Err(wrong);
    }
    Ok(if flags.check_config {
        let shown: Vec<_> = servers
            .iter()
            .map(|server| {
                let name = server.settings.name.as_deref();
                show(&server.matches, &server.settings, |key| {
                    if by_hand.contains(&key) {
                        return Some("command line".to_owned());
                    }
                    config.origin(name, key, &by_hand)
                })
            })
            .collect();
        let settings: Vec<_> = servers.iter().map(|server| &server.settings).collect();
        Request::PrintSettings {
            text: shown.join("\n"),
            doubts: doubts(&settings),
            wrong,
        }
    } else {
        Request::Watch {
            servers: servers.into_iter().map(|server| server.settings).collect(),
            wrong,
        }
    })
}

/// A server, and the flags that make it.
struct Server {
    settings: Settings,
    matches: ArgMatches,
}

fn parsed(matches: &ArgMatches) -> Result<Cli, UsageError> {
    Cli::from_arg_matches(matches).map_err(UsageError::from)
}

/// The names of the servers to watch; one without a name where the file has none.
fn choose<'a>(config: &'a Config, wanted: &[String]) -> Result<Vec<Option<&'a str>>, UsageError> {
    let names: Vec<&str> = config.names().collect();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        let known = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        let reason =
            format!("{unknown}: no such server in the configuration file, which has {known}");
        return Err(UsageError::of("server", reason));
    }
    if names.is_empty() {
        return Ok(vec![None]);
    }
    let is_wanted = |name: &&str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    Ok(names.into_iter().filter(is_wanted).map(Some).collect())
}

/// One server's settings; none where neither the file nor a flag names any server.
fn server(
    config: &Config,
    name: Option<&str>,
    arguments: &[OsString],
    by_hand: &[&str],
) -> Result<Option<Server>, UsageError> {
    let from_file = config.flags(name, by_hand);
    let is_said = |key: &str| {
        by_hand.contains(&key)
            || from_file
                .iter()
                .any(|flag| flag.starts_with(&format!("--{key}=")))
    };
    if name.is_none() && !is_said("url") {
        return Ok(None);
    }
    let mut line: Vec<OsString> = arguments.iter().take(1).cloned().collect();
    if let Some(name) = name.filter(|_| !is_said("logfile")) {
        line.push(format!("--logfile={}/{name}.log", defaults::LOG_DIR).into());
    }
    line.extend(from_file.iter().map(OsString::from));
    line.extend(arguments.iter().skip(1).cloned());
    let wrong = |error: UsageError| {
        let key = error.option.as_deref();
        if key.is_some_and(|key| by_hand.contains(&key)) {
            return error;
        }
        let place = config.place(name, key, by_hand);
        error.at(place)
    };
    if name.is_none() && !is_said("logfile") {
        let reason = format!(
            "is missing: give it, or put the settings in a table [server.NAME], whose log is {}/NAME.log",
            defaults::LOG_DIR
        );
        return Err(wrong(UsageError::of("logfile", reason)));
    }
    let matches = Cli::command()
        .try_get_matches_from(line)
        .map_err(|error| wrong(error.into()))?;
    let mut settings = parsed(&matches)
        .and_then(Settings::from_flags)
        .map_err(wrong)?;
    settings.name = name.map(str::to_owned);
    Ok(Some(Server { settings, matches }))
}

/// Takes out the servers that could be taken for each other, or that would write the same log.
fn tell_apart(servers: &mut Vec<Server>, config: &Config, wrong: &mut Vec<UsageError>) {
    let place = |server: &str| Place::File {
        path: config.file_of(server).unwrap_or(Path::new("")).to_owned(),
        at: None,
        server: None,
    };
    let mut is_wrong = vec![false; servers.len()];
    for second in 1..servers.len() {
        let (before, from) = servers.split_at_mut(second);
        let Some(other) = from.first_mut().map(|server| &mut server.settings) else {
            continue;
        };
        for (first, one) in before
            .iter_mut()
            .map(|server| &mut server.settings)
            .enumerate()
        {
            let both = format!("servers {} and {}", name(one), name(other));
            let place = place(name(other));
            let mut refuse = |reason: String| {
                wrong.push(UsageError::new(reason, place.clone()));
                is_wrong[first] = true;
                is_wrong[second] = true;
            };
            if RunLock::path(&one.logfile) == RunLock::path(&other.logfile) {
                refuse(format!(
                    "{both} have one lock, {}: give each a logfile of its own",
                    RunLock::path(&one.logfile).display()
                ));
            }
            if are_named_apart(one, other) {
                let state = one.state_file(".json");
                if state == other.state_file(".json") {
                    refuse(format!(
                        "{both} have one state file, {}, because their URLs have the same host and port: give each a \
                         state-dir of its own",
                        state.display()
                    ));
                }
                continue;
            }
            if one.url.port_or_known_default() == other.url.port_or_known_default() {
                refuse(format!(
                    "{both} cannot be told apart, because their URLs have the same port: give each a listen, a process-pattern or a user of its own"
                ));
            }
            one.by_port_alone = true;
            other.by_port_alone = true;
        }
    }
    let mut is_wrong = is_wrong.into_iter();
    servers.retain(|_| is_wrong.next() != Some(true));
}

/// Settings that are valid but will probably not work. `manage.py` looks servers up by user, so that it takes one of two
/// servers of one user for the other.
fn doubts(servers: &[&Settings]) -> Vec<String> {
    let managed: Vec<&&Settings> = servers.iter().filter(|one| is_managed(one)).collect();
    let mut doubts = Vec::new();
    for (number, one) in managed.iter().enumerate() {
        for other in &managed[number + 1..] {
            if runs_as(one) == runs_as(other) {
                doubts.push(format!(
                    "servers {} and {} are started by manage.py and can have the same user: manage.py looks servers up by user, \
                     so starting or stopping one of them can end the other; give each a user of its own with run-as",
                    name(one),
                    name(other)
                ));
            }
        }
    }
    for one in servers {
        let of = match &one.name {
            Some(name) => format!("server {name}: "),
            None => String::new(),
        };
        let own = own_doubts(one).into_iter();
        doubts.extend(own.map(|doubt| format!("{of}{doubt}")));
    }
    if !managed.is_empty() {
        let running = search::running().into_iter();
        let mut several = running.filter(|(_, pids)| pids.len() > 1);
        for (uid, pids) in several.by_ref().take(MOST_USERS) {
            let user = account::name_of(uid);
            doubts.push(format!(
                "user {user} runs {} MyVNC servers on this host (PIDs {pids:?}): manage.py looks servers up by user, so \
                 starting or stopping one of them can end the other; give each a user of its own",
                pids.len()
            ));
        }
        let more = several.count();
        if more > 0 {
            doubts.push(format!(
                "{more} more users run several MyVNC servers on this host"
            ));
        }
    }
    doubts
}

/// What is valid in one server's settings, and will not work.
fn own_doubts(settings: &Settings) -> Vec<String> {
    let mut doubts = Vec::new();
    let command = redact::redacted(&settings.restart_cmd);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    if let Ok(runtime) = runtime {
        let mistake = runtime.block_on(restart_command::mistake(&settings.restart_cmd));
        doubts.extend(mistake.map(|mistake| format!("{mistake} (restart-cmd = {command})")));
        if let Some(dump) = &settings.dump_cmd {
            let unusable = runtime.block_on(restart_command::unusable_or_absent(dump));
            doubts.extend(unusable.map(|reason| format!("dump-cmd cannot run: {reason}")));
        }
    }
    if let (Some(user), Some(run_as)) = (settings.user, &settings.run_as) {
        if user != run_as.uid {
            doubts.push(format!(
                "user (UID {user}) and run-as (UID {run_as}) differ: the restarted server runs as UID {run_as}, but only \
                 processes of UID {user} count as the server",
                run_as = run_as.uid
            ));
        }
    }
    let directory = &settings.state_dir;
    // A directory that is missing is made, if the nearest one above it can be written.
    let nearest = directory.ancestors().find(|path| path.exists());
    if let Some(nearest) = nearest {
        let can_write = AccessFlags::W_OK | AccessFlags::X_OK;
        if !nearest.is_dir() || access(nearest, can_write).is_err() {
            doubts.push(format!(
                "the state directory {} cannot be written: give another state-dir",
                directory.display()
            ));
        }
    }
    if let Some(directory) = &settings.metrics_dir {
        let file_inside = AccessFlags::W_OK | AccessFlags::X_OK;
        let looked = if directory.is_file() {
            Err(Errno::ENOTDIR)
        } else {
            access(directory, file_inside)
        };
        if let Err(reason) = looked {
            doubts.push(format!(
                "the metrics directory {} cannot be written: {}; create it and let the monitor write to it, or give another \
                 metrics-dir",
                directory.display(),
                errno_text(&reason.into())
            ));
        }
    }
    if let Some(pattern) = &settings.server_log {
        if glob::glob(pattern).is_ok_and(|mut paths| paths.next().is_none()) {
            doubts.push(format!("server-log {pattern} matches no file"));
        }
    }
    doubts
}

/// Whether `manage.py` starts it.
fn is_managed(settings: &Settings) -> bool {
    let script = restart_command::myvnc_script(&settings.restart_cmd);
    script.is_some_and(|script| script.ends_with("manage.py"))
}

/// Who the restart command runs as, where that is said.
fn runs_as(settings: &Settings) -> Option<u32> {
    let run_as = settings.run_as.as_ref();
    let run_as = run_as.map(|account| account.uid.as_raw());
    run_as.or(settings.user.map(nix::unistd::Uid::as_raw))
}

fn name(settings: &Settings) -> &str {
    settings.name.as_deref().unwrap_or_default()
}

/// Whether the administrator has said which process is whose.
fn are_named_apart(one: &Settings, other: &Settings) -> bool {
    fn pattern(settings: &Settings) -> Option<&str> {
        settings.process_pattern.as_ref().map(Regex::as_str)
    }
    let directory = |settings: &Settings| config_dir(&settings.restart_cmd);
    differ(one.listen, other.listen)
        || differ(directory(one), directory(other))
        || differ(pattern(one), pattern(other))
        || differ(one.user, other.user)
}

/// Whether both are set, and not to the same value.
fn differ<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// The settings as they would stand in a configuration file, each with its origin; no secret is shown.
fn show(
    matches: &ArgMatches,
    settings: &Settings,
    origin: impl Fn(&str) -> Option<String>,
) -> String {
    let command = Cli::command();
    let mut text = match &settings.name {
        Some(name) => format!("[server.{}]\n", quoted_name(name)),
        None => String::new(),
    };
    for arg in cli::keys(&command) {
        let (Some(key), id) = (arg.get_long(), arg.get_id().as_str()) else {
            continue;
        };
        let raw = matches
            .try_get_raw(id)
            .ok()
            .flatten()
            .and_then(|mut values| values.next_back())
            .map(|value| value.to_string_lossy().into_owned());
        let value = match key {
            "url" => Some(quoted(&settings.shown_url)),
            "logfile" => Some(quoted(&settings.logfile.to_string_lossy())),
            "state-dir" => Some(quoted(&settings.state_dir.to_string_lossy())),
            "ping-url" => settings.shown_ping_url().as_deref().map(quoted),
            "notify-cmd" => raw.map(|raw| quoted(&redact::without_addresses(&raw))),
            _ if cli::is_switch(arg) => Some(matches.get_flag(id).to_string()),
            _ if cli::is_number(arg) => raw,
            _ => raw.map(|raw| quoted(&redact::redacted(&raw))),
        };
        if let Some(value) = value {
            text.extend([key, " = ", &value]);
            if let Some(origin) = origin(key) {
                text.extend(["  # ", &one_line(&origin)]);
            }
            text.push('\n');
        }
    }
    text
}

fn quoted_name(name: &str) -> String {
    if name.contains('.') {
        quoted(name)
    } else {
        name.to_owned()
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.extend(format!("\\u{:04X}", u32::from(c)).chars()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
