//! The configuration file and its drop-ins: TOML in, flags out. The keys are the long options' names, and
//! what an option takes or refuses is the command line's own answer.

use std::fmt;
use std::fs::Metadata;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use clap::{Arg, Command, CommandFactory, Parser};
use nix::unistd::Uid;
use toml::de::{DeTable, DeValue};

use crate::cli::{Cli, is_number, is_switch, keys};
use crate::defaults;
use crate::sys::files;
use crate::text::errno_text;
use crate::usage::{Place, Position, UsageError};

/// The table that holds a table for each server.
const SERVERS: &str = "server";

/// What a configuration file and its drop-ins say.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// The files, in the order in which they are read.
    paths: Vec<Rc<Path>>,
    shared: Vec<ConfigKey>,
    servers: Vec<ServerTable>,
    /// What is wrong outside of the servers' tables.
    wrong: Vec<UsageError>,
}

/// A place in one of the files.
#[derive(Clone, Debug)]
struct Origin {
    path: Rc<Path>,
    at: Position,
}

/// A `[server.NAME]` table.
#[derive(Debug)]
struct ServerTable {
    name: String,
    origin: Origin,
    own: Vec<ConfigKey>,
    wrong: Vec<UsageError>,
}

/// A key that is set.
#[derive(Debug)]
struct ConfigKey {
    key: String,
    /// The flag that says the same; none for `false`.
    flag: Option<String>,
    origin: Origin,
}

impl Config {
    /// Reads a file and its drop-ins. What is wrong with one server is that server's; anything else is an
    /// error.
    pub(crate) fn read(path: &Path) -> Result<Self, Vec<UsageError>> {
        Self::of(&texts(path)?)
    }

    /// What these files say, in their order.
    fn of(files: &[(PathBuf, String)]) -> Result<Self, Vec<UsageError>> {
        let command = Cli::command();
        let mut config = Self::default();
        for (path, text) in files {
            let path: Rc<Path> = path.as_path().into();
            config.paths.push(Rc::clone(&path));
            let reader = Reader {
                path,
                text,
                command: &command,
            };
            match reader.file() {
                Ok(file) => config.add(file, &command),
                Err(error) => config.wrong.push(error),
            }
        }
        if config.wrong.is_empty() {
            return Ok(config);
        }
        let mut wrong = std::mem::take(&mut config.wrong);
        for server in &mut config.servers {
            wrong.append(&mut server.wrong);
        }
        config.sort(&mut wrong);
        Err(wrong)
    }

    /// Adds what a later file says. Its keys at the top displace those before.
    fn add(&mut self, later: Self, command: &Command) {
        self.wrong.extend(later.wrong);
        for entry in later.shared {
            self.shared.retain(|before| {
                let is_excluded = before.origin.path != entry.origin.path
                    && entry.flag.is_some()
                    && conflict(command, &before.key, &entry.key);
                before.key != entry.key && !is_excluded
            });
            self.shared.push(entry);
        }
        for mut server in later.servers {
            let mut servers = self.servers.iter_mut();
            let Some(before) = servers.find(|before| before.name == server.name) else {
                self.servers.push(server);
                continue;
            };
            let what = format!(
                "server {}: already declared in {}: a server is declared once",
                server.name, before.origin
            );
            before
                .wrong
                .push(UsageError::new(what, server.origin.place()));
            before.wrong.append(&mut server.wrong);
        }
    }

    /// Sorts mistakes by file, then by line.
    pub(crate) fn sort(&self, wrong: &mut [UsageError]) {
        wrong.sort_by_key(|error| {
            let file = match &error.place {
                Place::File { path, .. } => self.paths.iter().position(|one| **one == **path),
                Place::Flags => None,
            };
            (file, error.position())
        });
    }

    /// What is wrong with the table of a server, whatever its values mean together.
    pub(crate) fn wrong(&self, name: Option<&str>) -> &[UsageError] {
        let server = self.server(name);
        server.map_or(&[], |server| &server.wrong)
    }

    fn server(&self, name: Option<&str>) -> Option<&ServerTable> {
        let mut servers = self.servers.iter();
        servers.find(|server| Some(server.name.as_str()) == name)
    }

    /// The names of its servers, in the order of the files.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|server| server.name.as_str())
    }

    /// The flags for one server (for what is not in any, without a name): its own before the
    /// shared ones, and none that a flag `given` by hand displaces.
    pub(crate) fn flags(&self, name: Option<&str>, given: &[&str]) -> Vec<&str> {
        self.effective(name, given)
            .iter()
            .filter_map(|entry| entry.flag.as_deref())
            .collect()
    }

    /// Where the option is set for this server, else where the server is declared.
    pub(crate) fn place(&self, name: Option<&str>, key: Option<&str>, given: &[&str]) -> Place {
        let entries = self.effective(name, given);
        let entry = entries.iter().find(|entry| Some(entry.key.as_str()) == key);
        let server = || self.server(name).map(|server| &server.origin);
        let origin = entry.map(|entry| &entry.origin).or_else(server);
        let path = origin.map(|origin| &origin.path);
        Place::File {
            path: path
                .or(self.paths.first())
                .map(|path| path.to_path_buf())
                .unwrap_or_default(),
            at: origin.map(|origin| origin.at),
            server: name.map(str::to_owned),
        }
    }

    /// The file that declares this server.
    pub(crate) fn file_of(&self, name: &str) -> Option<&Path> {
        self.server(Some(name)).map(|server| &*server.origin.path)
    }

    /// FILE:LINE of what says this option for that server.
    pub(crate) fn origin(&self, name: Option<&str>, key: &str, given: &[&str]) -> Option<String> {
        let entries = self.effective(name, given);
        let entry = entries.into_iter().find(|entry| entry.key == key)?;
        let Origin { path, at } = &entry.origin;
        Some(format!("{}:{}", path.display(), at.line))
    }

    fn effective(&self, name: Option<&str>, given: &[&str]) -> Vec<&ConfigKey> {
        let command = Cli::command();
        let own: &[ConfigKey] = self.server(name).map_or(&[], |server| &server.own);
        let by_hand = |entry: &&ConfigKey| {
            !given
                .iter()
                .any(|key| entry.key == *key || conflict(&command, &entry.key, key))
        };
        let by_server = |entry: &&ConfigKey| {
            !own.iter().any(|own| {
                own.key == entry.key
                    || own.flag.is_some() && conflict(&command, &entry.key, &own.key)
            })
        };
        own.iter()
            .chain(self.shared.iter().filter(by_server))
            .filter(by_hand)
            .collect()
    }
}

impl Origin {
    fn place(&self) -> Place {
        Place::File {
            path: self.path.to_path_buf(),
            at: Some(self.at),
            server: None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.at;
        write!(f, "{}:{line}:{column}", self.path.display())
    }
}

/// The texts of a configuration file and of its drop-ins, `FILE.d/*.toml` sorted by name.
///
/// # Errors
/// One of them cannot be read, or others than root can have written it.
pub(crate) fn texts(path: &Path) -> Result<Vec<(PathBuf, String)>, Vec<UsageError>> {
    let mut texts = vec![(
        path.to_owned(),
        read_safely(path).map_err(|error| vec![error])?,
    )];
    let mut wrong = Vec::new();
    for path in drop_ins(path).map_err(|error| vec![error])? {
        match read_safely(&path) {
            Ok(text) => texts.push((path, text)),
            Err(error) => wrong.push(error),
        }
    }
    if wrong.is_empty() {
        Ok(texts)
    } else {
        Err(wrong)
    }
}

/// The paths of a file's drop-ins; hidden files are none.
fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, UsageError> {
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    let directory = Path::new(&directory);
    let (metadata, mut names) = match files::list(directory) {
        Err(reason) if reason.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(|reason| unusable(directory, &errno_text(&reason)))?,
    };
    refuse_what_others_change(directory, &metadata)?;
    names.retain(|name| {
        let name = name.as_bytes();
        name.ends_with(b".toml") && !name.starts_with(b".")
    });
    names.sort();
    Ok(names.iter().map(|name| directory.join(name)).collect())
}

/// The file's text.
fn read_safely(path: &Path) -> Result<String, UsageError> {
    let cannot = |reason: std::io::Error| unusable(path, &errno_text(&reason));
    let (mut file, metadata) = files::open(path).map_err(cannot)?;
    refuse_what_others_change(path, &metadata)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(cannot)?;
    Ok(text)
}

fn unusable(path: &Path, reason: &str) -> UsageError {
    UsageError::of("config", format!("{}: {reason}", path.display()))
}

/// The files hold commands that are run as root, so as root they are read only when nobody else can have
/// written them.
fn refuse_what_others_change(path: &Path, metadata: &Metadata) -> Result<(), UsageError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let reason = if metadata.mode() & 0o022 != 0 {
        "others can write it, and it holds commands that root runs: chmod go-w it"
    } else if !Uid::from_raw(metadata.uid()).is_root() {
        "it is not root's, and it holds commands that root runs: chown it to root"
    } else {
        return Ok(());
    };
    Err(unusable(path, reason))
}

fn option<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    keys(command).find(|arg| arg.get_long() == Some(key))
}

fn conflict(command: &Command, one: &str, other: &str) -> bool {
    let (Some(one), Some(other)) = (option(command, one), option(command, other)) else {
        return false;
    };
    command.get_arg_conflicts_with(one).contains(&other)
        || command.get_arg_conflicts_with(other).contains(&one)
}

/// Reads one file and gathers what is wrong with it.
struct Reader<'a> {
    path: Rc<Path>,
    text: &'a str,
    command: &'a Command,
}

impl Reader<'_> {
    fn file(&self) -> Result<Config, UsageError> {
        let mut config = Config::default();
        let document = match DeTable::parse(self.text) {
            Ok(document) => document.into_inner(),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let what = error.message().replace('\n', ": ");
                let what = self.better(at).unwrap_or(what);
                return Err(self.error(at, format!("not TOML: {what}")));
            }
        };
        for (key, value) in document {
            let at = key.span().start;
            match value.get_ref() {
                DeValue::Table(servers) if key.get_ref() == SERVERS => {
                    self.servers(servers, &mut config);
                }
                DeValue::Table(table) => {
                    let key = key.get_ref();
                    let inner = table.iter().find(|(_, value)| value.get_ref().is_table());
                    let (shown, meant) = match inner {
                        Some((name, _)) => (format!("{key}.{}", name.get_ref()), name.get_ref()),
                        None => (key.to_string(), key),
                    };
                    let what =
                        format!("unknown table [{shown}]: did you mean [{SERVERS}.{meant}]?");
                    config.wrong.push(self.error(at, what));
                }
                DeValue::Array(array) if array.iter().any(|value| value.get_ref().is_table()) => {
                    let key = key.get_ref();
                    let what = format!("unknown table [[{key}]]: did you mean [{SERVERS}.NAME]?");
                    config.wrong.push(self.error(at, what));
                }
                value => match self.entry(key.get_ref(), value, at) {
                    Ok(entry) => config.shared.push(entry),
                    Err(error) => config.wrong.push(error),
                },
            }
        }
        config.servers.sort_by_key(|server| server.origin.at);
        Ok(config)
    }

    /// What an administrator may have meant in a line that is not TOML.
    fn better(&self, at: usize) -> Option<String> {
        let before = self.text.get(..at)?;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = self.text.get(start..)?.lines().next()?;
        let (key, value) = line.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        option(self.command, key)?;
        match value.strip_prefix('"') {
            Some(text) => {
                let text = text.strip_suffix('"')?;
                (text.contains('\\') && !text.contains('\'')).then(|| {
                    format!(
                        "a backslash in double quotes begins an escape; use single quotes: {key} = '{text}'"
                    )
                })
            }
            None => (value.starts_with(|c: char| c.is_alphabetic() || "/~.*".contains(c))
                && !value.contains(['\'', '"']))
            .then(|| format!("a text needs quotes: {key} = '{value}'")),
        }
    }

    fn servers(&self, tables: &DeTable, config: &mut Config) {
        for (name, value) in tables {
            let at = name.span().start;
            let Some(table) = value.get_ref().as_table() else {
                let what = format!(
                    "server.{}: a server is a table, [server.NAME]",
                    name.get_ref()
                );
                config.wrong.push(self.error(at, what));
                continue;
            };
            let mut server = ServerTable {
                name: name.get_ref().to_string(),
                origin: self.origin(at),
                own: Vec::new(),
                wrong: Vec::new(),
            };
            if !is_name(name.get_ref()) {
                let what = format!(
                    "server \"{}\": a name is letters, digits, `_`, `-` and `.`, not first `.`",
                    name.get_ref()
                );
                server.wrong.push(self.error(at, what));
            }
            for (key, value) in table {
                if let Some(inner) = value.get_ref().as_table() {
                    let name = dotted(&format!("{}.{}", name.get_ref(), key.get_ref()), inner);
                    let what = format!(
                        "[{SERVERS}.{name}]: a name with dots needs quotes: [{SERVERS}.\"{name}\"]"
                    );
                    server.wrong.push(self.error(at, what));
                    continue;
                }
                match self.entry(key.get_ref(), value.get_ref(), key.span().start) {
                    Ok(entry) => server.own.push(entry),
                    Err(error) => server.wrong.push(error),
                }
            }
            config.servers.push(server);
        }
    }

    fn entry(&self, key: &str, value: &DeValue, at: usize) -> Result<ConfigKey, UsageError> {
        let Some(arg) = option(self.command, key) else {
            let nearest = self.nearest(key);
            let what = format!("unknown key {key}: the nearest valid key is {nearest}");
            return Err(self.error(at, what));
        };
        let value = match (value, is_switch(arg)) {
            (DeValue::Boolean(on), true) => Ok(on.then(|| format!("--{key}"))),
            (_, true) => Err("true or false"),
            (DeValue::String(text), false) => Ok(Some(format!("--{key}={text}"))),
            (DeValue::Integer(number), false) if is_number(arg) => {
                i64::from_str_radix(number.as_str(), number.radix())
                    .map(|number| Some(format!("--{key}={number}")))
                    .map_err(|_| "a smaller number")
            }
            (DeValue::Float(number), false) if is_number(arg) => {
                Ok(Some(format!("--{key}={}", number.as_str())))
            }
            (_, false) if is_number(arg) => Err("a number"),
            (_, false) => Err("a text in quotes"),
        };
        let flag = value.map_err(|expected| self.error(at, format!("{key}: give {expected}")))?;
        if let Some(flag) = &flag {
            let alone = ["monitor_myvnc", "--config=-", flag];
            if let Err(error) = Cli::try_parse_from(alone) {
                return Err(UsageError::from(error).at(self.place(at)));
            }
            // Nobody sees the working directory of a job, and no shell reads the file.
            let path = flag.strip_prefix("--logfile=");
            if let Some(path) = path.filter(|path| !path.starts_with('/')) {
                let example = format!("{}/NAME.log", defaults::LOG_DIR);
                let what = format!("logfile {path}: give an absolute path, such as {example}");
                return Err(self.error(at, what));
            }
        }
        Ok(ConfigKey {
            key: key.to_owned(),
            flag,
            origin: self.origin(at),
        })
    }

    fn nearest(&self, key: &str) -> String {
        let key = key.replace('_', "-").to_ascii_lowercase();
        let likeness = |long: &str| strsim::jaro_winkler(long, &key);
        keys(self.command)
            .filter_map(Arg::get_long)
            .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
            .unwrap_or_default()
            .to_owned()
    }

    fn error(&self, at: usize, what: String) -> UsageError {
        UsageError::new(what, self.place(at))
    }

    fn place(&self, at: usize) -> Place {
        self.origin(at).place()
    }

    fn origin(&self, at: usize) -> Origin {
        Origin {
            path: Rc::clone(&self.path),
            at: self.position(at),
        }
    }

    /// Line and column, from 1, columns in characters.
    fn position(&self, at: usize) -> Position {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Position {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
        }
    }
}

/// The name that a chain of tables was meant to be: `a.b.c` for `[server.a.b.c]`.
fn dotted(name: &str, table: &DeTable) -> String {
    let mut inner = table.iter();
    match (inner.next(), inner.next()) {
        (Some((key, value)), None) => match value.get_ref().as_table() {
            Some(table) => dotted(&format!("{name}.{}", key.get_ref()), table),
            None => name.to_owned(),
        },
        _ => name.to_owned(),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, linear};

    #[test]
    fn fuzz_configuration() {
        let seeds: [&[u8]; 5] = [
            b"timeout = 5\nquiet = true\n[server.a]\nurl = \"http://h:1\"\nrestart-cmd = 'x'\n",
            b"[server.\"b c\"]\nretries = 0x10\nstop-timeout = 1.5e3\nuser = 'root'\n",
            b"# comment\nlogfile = \"\"\"\nx\"\"\"\nunknown_key = [1, {a = 2}]\n",
            b"process-pattern = '^(a|b)*$'\nlog-level = \"\\u00e9\"\nserver = 1\n",
            b"timeout = 5\nca-cert = '/c'\n[server.a]\nretries = 1\n\0no-verify-ssl = true\n[server.a]\nx = 1\n",
        ];
        let target = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            let files = text.split('\0').enumerate();
            let files: Vec<_> = files
                .map(|(number, text)| (format!("/c.toml.d/{number}.toml").into(), text.to_owned()))
                .collect();
            match Config::of(&files) {
                Ok(config) => {
                    for name in config.names() {
                        config.flags(Some(name), &[]);
                        config.place(Some(name), Some("url"), &[]);
                        config.origin(Some(name), "url", &[]);
                    }
                }
                Err(reasons) => assert!(!reasons.is_empty()),
            }
        };
        fuzz(&seeds, target);
        for piece in ["#", "\n", "x", "[", "a = 1\n", "[server.a", "'"] {
            linear(|size| piece.repeat(size / piece.len()).into_bytes(), target);
        }
    }
}
