//! The servers that a verb is about: those of the configuration file, and those of which runs have
//! left a state.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};
use url::Url;

use super::cli::{Place, Which};
use crate::config;
use crate::defaults;
use crate::settings::{default_state_dir, shown};
use crate::state::{self, State};
use crate::text::{errno_text, one_line};
use crate::usage::{self, UsageError};

/// Ending of a state file's name.
const STATE: &str = ".json";

/// One server.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its name in the configuration file, else its log's without the extension.
    pub(crate) name: String,
    /// The URL, without a password.
    pub(crate) url: Option<String>,
    /// What the runs have written down.
    pub(crate) state: Option<State>,
    /// Why that cannot be read.
    pub(crate) damage: Option<String>,
    directory: PathBuf,
    /// What the names of its files begin with, `HOST_PORT`.
    stem: String,
}

/// The servers, and what kept others from being found.
#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) all: Vec<Target>,
    /// The state directory of servers that have no other.
    directory: PathBuf,
    /// One line for each.
    pub(crate) warnings: Vec<String>,
}

impl Target {
    fn new(name: Option<String>, url: Option<String>, directory: &Path, stem: String) -> Self {
        let mut target = Self {
            name: String::new(),
            url,
            state: None,
            damage: None,
            directory: directory.to_owned(),
            stem,
        };
        match State::read(&target.file(STATE)) {
            Ok(state) => target.state = state,
            Err(reason) => target.damage = Some(errno_text(&reason)),
        }
        let state = target.state.as_ref();
        if let Some(url) = state.map(|state| &state.url).filter(|url| !url.is_empty()) {
            target.url = Some(url.clone());
        }
        target.name = name
            .or_else(|| state.and_then(own_name))
            .map_or_else(|| target.stem.clone(), |name| one_line(&name));
        target
    }

    /// Its file of that kind.
    pub(crate) fn file(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("{}{extension}", self.stem))
    }

    /// Its name, or where a shell could take that for more than a word, what the names of its files begin with.
    pub(crate) fn word(&self) -> &str {
        let is_special = |c: char| c.is_ascii() && c != ' ' && !is_of_file(c);
        if self.name.starts_with('-') || self.name.contains(is_special) {
            return &self.stem;
        }
        &self.name
    }

    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.stem == name
    }
}

/// Whether a character is one of a state file's name (`state::path`).
fn is_of_file(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Whether a run gives such a name to its files, and a shell takes it for a word.
fn is_stem(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['.', '-']) && name.chars().all(is_of_file)
}

/// The name that a run has written down, or what it would be.
fn own_name(state: &State) -> Option<String> {
    if !state.server.is_empty() {
        return Some(state.server.clone());
    }
    let stem = Path::new(state.log.as_ref()?).file_stem()?;
    Some(stem.to_string_lossy().into_owned())
}

impl Targets {
    /// Finds the servers that the command line names, or all.
    ///
    /// # Errors
    /// The configuration file that is named cannot be used, there is no state directory, or there is
    /// no server of that name.
    pub(crate) fn of(which: &Which) -> Result<Self, UsageError> {
        let mut found = Self::find(&which.place)?;
        let mut names = which.servers.iter();
        let unknown = names.find(|name| !found.all.iter().any(|one| one.is_called(name)));
        if let Some(unknown) = unknown {
            let known: Vec<&str> = found.all.iter().map(|one| one.name.as_str()).collect();
            let known = if known.is_empty() {
                let place = which.place.config.as_ref().unwrap_or(&found.directory);
                format!("there is none in {}", place.display())
            } else {
                format!("there is {}", known.join(", "))
            };
            let reason = format!("{unknown}: no such server; {known}");
            return Err(UsageError::new(reason, usage::Place::Flags));
        }
        if !which.servers.is_empty() {
            found
                .all
                .retain(|one| which.servers.iter().any(|name| one.is_called(name)));
        }
        Ok(found)
    }

    /// The state directories of the servers, or where servers without a configuration have theirs.
    pub(crate) fn directories(&self) -> Vec<&Path> {
        let mut directories: Vec<&Path> = Vec::new();
        for one in &self.all {
            if !directories.contains(&one.directory.as_path()) {
                directories.push(&one.directory);
            }
        }
        if directories.is_empty() {
            directories.push(&self.directory);
        }
        directories
    }

    fn find(place: &Place) -> Result<Self, UsageError> {
        let directory = match &place.state_dir {
            Some(directory) => directory.clone(),
            None => default_state_dir()?,
        };
        let mut found = Self {
            all: Vec::new(),
            directory,
            warnings: Vec::new(),
        };
        if let Some(path) = &place.config {
            found.add_configured(path, place)?;
            return Ok(found);
        }
        let packaged = Path::new(defaults::CONFIG_FILE);
        if place.state_dir.is_none() && packaged.exists() {
            if let Err(error) = found.add_configured(packaged, place) {
                found.warnings.push(error.to_string());
            }
        }
        found.add_recorded();
        Ok(found)
    }

    /// Adds the servers of a configuration file and its drop-ins. What else is wrong with it is a run's matter.
    fn add_configured(&mut self, path: &Path, place: &Place) -> Result<(), UsageError> {
        let texts = config::texts(path).map_err(|errors| first(errors, path))?;
        let mut documents = Vec::new();
        for (path, text) in &texts {
            let document = DeTable::parse(text).map_err(|error| {
                let what = error.message().replace('\n', ": ");
                let reason = format!("{}: not TOML: {what}", path.display());
                UsageError::of("config", reason)
            })?;
            documents.push(document.into_inner());
        }
        // A later file's keys at the top displace those before.
        let shared = |key: &str| {
            let mut later_first = documents.iter().rev();
            later_first.find_map(|document| document.get(key).map(|value| text(value.get_ref())))?
        };
        let mut named: Vec<(Option<String>, &DeTable)> = Vec::new();
        for document in &documents {
            let servers = document
                .get("server")
                .and_then(|value| value.get_ref().as_table());
            let mut servers: Vec<_> = servers.into_iter().flatten().collect();
            servers.sort_by_key(|(name, _)| name.span().start);
            for (name, value) in servers {
                let name = name.get_ref().as_ref();
                let is_new = !named
                    .iter()
                    .any(|(before, _)| before.as_deref() == Some(name));
                if let Some(own) = value.get_ref().as_table().filter(|_| is_new) {
                    named.push((Some(name.to_owned()), own));
                }
            }
        }
        let nothing = DeTable::new();
        if named.is_empty() {
            named.push((None, &nothing));
        }
        for (name, own) in named {
            let value = |key: &str| match own.get(key) {
                Some(value) => text(value.get_ref()),
                None => shared(key),
            };
            let Some(given) = value("url") else {
                continue;
            };
            let Ok(url) = Url::parse(given) else {
                continue;
            };
            let stem = value("logfile").and_then(|path| Path::new(path).file_stem());
            let name = name.or_else(|| Some(stem?.to_string_lossy().into_owned()));
            let directory = match (&place.state_dir, value("state-dir")) {
                (Some(directory), _) => directory.clone(),
                (None, Some(directory)) => match std::path::absolute(directory) {
                    Ok(directory) => directory,
                    Err(_) => continue,
                },
                (None, None) => self.directory.clone(),
            };
            let host = url.host_str().unwrap_or_default();
            let port = url.port_or_known_default().unwrap_or_default();
            let stem = state::path(Path::new(""), host, port, "");
            let stem = stem.to_string_lossy().into_owned();
            let url = Some(shown(given, &url));
            self.all.push(Target::new(name, url, &directory, stem));
        }
        Ok(())
    }

    /// Adds those of the state directory that are not there yet. Other files than a run's are no servers.
    fn add_recorded(&mut self) {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => return,
            Err(reason) => {
                let (path, reason) = (self.directory.display(), errno_text(&reason));
                self.warnings.push(format!("{path}: {reason}"));
                return;
            }
        };
        let names = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let stem = name.strip_suffix(STATE)?;
            is_stem(stem).then(|| stem.to_owned())
        });
        let is_new = |stem: &String| {
            let mut targets = self.all.iter();
            !targets.any(|one| one.directory == self.directory && one.stem == *stem)
        };
        let mut new: Vec<Target> = names
            .filter(is_new)
            .map(|stem| Target::new(None, None, &self.directory, stem))
            .collect();
        new.sort_by(|one, other| (&one.name, &one.stem).cmp(&(&other.name, &other.stem)));
        self.all.append(&mut new);
    }
}

/// The first of several mistakes.
fn first(errors: Vec<UsageError>, path: &Path) -> UsageError {
    let unknown = || UsageError::of("config", format!("{}: cannot be read", path.display()));
    errors.into_iter().next().unwrap_or_else(unknown)
}

fn text<'a>(value: &'a DeValue) -> Option<&'a str> {
    match value {
        DeValue::String(text) => Some(text),
        _ => None,
    }
}
