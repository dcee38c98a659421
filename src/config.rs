//! The configuration file: TOML in, flags out. Its keys are the long options' names, and what an
//! option takes or refuses is the command line's own answer.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory, Parser};
use nix::unistd::Uid;
use toml::de::{DeTable, DeValue};

use crate::cli::{self, Cli, is_number, is_switch, keys};
use crate::sys::files;
use crate::text::errno_text;

/// The table that holds a table for each server.
const SERVERS: &str = "server";

/// What a configuration file says.
#[derive(Debug)]
pub(crate) struct Config {
    path: PathBuf,
    shared: Vec<Entry>,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    name: String,
    at: Position,
    own: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    key: String,
    /// The flag that says the same; none for `false`.
    flag: Option<String>,
    at: Position,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    line: usize,
    column: usize,
}

impl Config {
    /// Reads a file, or says all that is wrong with it, each with its place.
    pub(crate) fn read(path: &Path) -> Result<Self, Vec<String>> {
        let text = read_safely(path).map_err(|reason| vec![reason])?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Vec<String>> {
        let mut reader = Reader {
            path,
            text,
            command: Cli::command(),
            wrong: Vec::new(),
        };
        let config = reader.file();
        if reader.wrong.is_empty() {
            Ok(config)
        } else {
            Err(reader.wrong)
        }
    }

    /// The names of its servers, as they stand in it.
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

    /// `FILE:LINE:COLUMN` of what says this option for that server, else of the server.
    pub(crate) fn place(&self, name: Option<&str>, key: &str, given: &[&str]) -> String {
        let entries = self.effective(name, given);
        let entry = entries.iter().find(|entry| entry.key == key);
        let server = self
            .servers
            .iter()
            .find(|server| Some(server.name.as_str()) == name);
        match entry
            .map(|entry| entry.at)
            .or(server.map(|server| server.at))
        {
            Some(at) => place(&self.path, at),
            None => self.path.display().to_string(),
        }
    }

    fn effective(&self, name: Option<&str>, given: &[&str]) -> Vec<&Entry> {
        let command = Cli::command();
        let own: &[Entry] = self
            .servers
            .iter()
            .find(|server| Some(server.name.as_str()) == name)
            .map_or(&[], |server| &server.own);
        let by_hand = |entry: &&Entry| {
            !given
                .iter()
                .any(|key| entry.key == *key || conflict(&command, &entry.key, key))
        };
        let by_server = |entry: &&Entry| {
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

/// The file's text. It holds commands that are run as root, so as root it is read only when
/// nobody else can have written it.
fn read_safely(path: &Path) -> Result<String, String> {
    let cannot = |reason: &str| format!("--config {}: {reason}", path.display());
    let (mut file, metadata) = files::open(path).map_err(|reason| cannot(&errno_text(&reason)))?;
    if nix::unistd::geteuid().is_root() {
        if metadata.mode() & 0o022 != 0 {
            return Err(cannot(
                "others can write it, and it holds commands that root runs: chmod go-w it",
            ));
        }
        if !Uid::from_raw(metadata.uid()).is_root() {
            return Err(cannot(
                "it is not root's, and it holds commands that root runs: chown it to root",
            ));
        }
    }
    let mut text = String::new();
    file.read_to_string(&mut text)
        .map_err(|reason| cannot(&errno_text(&reason)))?;
    Ok(text)
}

fn place(path: &Path, at: Position) -> String {
    format!("{}:{}:{}", path.display(), at.line, at.column)
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
    path: &'a Path,
    text: &'a str,
    command: Command,
    wrong: Vec<String>,
}

impl Reader<'_> {
    fn file(&mut self) -> Config {
        let mut config = Config {
            path: self.path.to_owned(),
            shared: Vec::new(),
            servers: Vec::new(),
        };
        let document = match DeTable::parse(self.text) {
            Ok(document) => document.into_inner(),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let what = error.message().replace('\n', ": ");
                self.refuse(at, &format!("not TOML: {what}"));
                return config;
            }
        };
        for (key, value) in document {
            let at = key.span().start;
            match value.get_ref() {
                DeValue::Table(servers) if key.get_ref() == SERVERS => {
                    config.servers = self.servers(servers);
                }
                value => config.shared.extend(self.entry(key.get_ref(), value, at)),
            }
        }
        config
            .servers
            .sort_by_key(|server| (server.at.line, server.at.column));
        config
    }

    fn servers(&mut self, tables: &DeTable) -> Vec<Server> {
        let mut servers = Vec::new();
        for (name, value) in tables {
            let at = name.span().start;
            let Some(table) = value.get_ref().as_table() else {
                self.refuse(
                    at,
                    &format!(
                        "server.{}: a server is a table, [server.NAME]",
                        name.get_ref()
                    ),
                );
                continue;
            };
            if !is_name(name.get_ref()) {
                self.refuse(
                    at,
                    &format!(
                        "server \"{}\": a name is letters, digits, `_`, `-` and `.`, not first `.`",
                        name.get_ref()
                    ),
                );
            }
            let mut own = Vec::new();
            for (key, value) in table {
                own.extend(self.entry(key.get_ref(), value.get_ref(), key.span().start));
            }
            servers.push(Server {
                name: name.get_ref().to_string(),
                at: self.position(at),
                own,
            });
        }
        servers
    }

    fn entry(&mut self, key: &str, value: &DeValue, at: usize) -> Option<Entry> {
        let Some(arg) = option(&self.command, key) else {
            let nearest = self.nearest(key);
            self.refuse(
                at,
                &format!("unknown key {key}: the nearest valid key is {nearest}"),
            );
            return None;
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
        let flag = match value {
            Ok(flag) => flag,
            Err(expected) => {
                self.refuse(at, &format!("{key}: give {expected}"));
                return None;
            }
        };
        if let Some(flag) = &flag {
            let alone = ["monitor_myvnc", "--config=-", flag];
            if let Err(error) = Cli::try_parse_from(alone) {
                self.refuse(at, &cli::one_line(&error));
                return None;
            }
        }
        Some(Entry {
            key: key.to_owned(),
            flag,
            at: self.position(at),
        })
    }

    fn nearest(&self, key: &str) -> String {
        let likeness = |long: &str| strsim::jaro_winkler(long, &key.replace('_', "-"));
        keys(&self.command)
            .filter_map(Arg::get_long)
            .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
            .unwrap_or_default()
            .to_owned()
    }

    fn refuse(&mut self, at: usize, what: &str) {
        let place = place(self.path, self.position(at));
        self.wrong.push(format!("{place}: {what}"));
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
        let seeds: [&[u8]; 4] = [
            b"timeout = 5\nquiet = true\n[server.a]\nurl = \"http://h:1\"\nrestart-cmd = 'x'\n",
            b"[server.\"b c\"]\nretries = 0x10\nstop-timeout = 1.5e3\nuser = 'root'\n",
            b"# comment\nlogfile = \"\"\"\nx\"\"\"\nunknown_key = [1, {a = 2}]\n",
            b"process-pattern = '^(a|b)*$'\nlog-level = \"\\u00e9\"\nserver = 1\n",
        ];
        let target = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            match Config::parse(Path::new("/c.toml"), &text) {
                Ok(config) => {
                    for name in config.names() {
                        config.flags(Some(name), &[]);
                        config.place(Some(name), "url", &[]);
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
