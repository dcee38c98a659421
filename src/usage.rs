//! Usage errors: what is wrong with a flag or with the configuration file, and where.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Exit status of usage errors: the servers that they are about were not touched.
pub(crate) const EXIT_STATUS: u8 = 2;

/// One mistake of a command line or of a configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct UsageError {
    /// The long name of the option, without `--`; none if the mistake is not about one option.
    pub(crate) option: Option<String>,
    /// What is wrong with it.
    pub(crate) reason: Reason,
    /// Where the mistake is.
    pub(crate) place: Place,
}

/// What is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    /// The text that follows the option's name.
    Text(String),
    /// The option excludes this one (its long name, without `--`).
    Excludes(Box<str>),
}

/// Where a mistake is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// On the command line.
    Flags,
    /// In a configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// Where in it; none if the mistake is that something is missing.
        at: Option<Position>,
        /// The server that the mistake is about.
        server: Option<String>,
    },
}

/// Line and column, from 1, columns in characters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl UsageError {
    /// A mistake about this option, which is a flag unless [`Self::at`] moves it.
    pub(crate) fn of(option: &str, reason: impl Into<String>) -> Self {
        Self {
            option: Some(option.to_owned()),
            reason: Reason::Text(reason.into()),
            place: Place::Flags,
        }
    }

    /// A mistake that is not about one option.
    pub(crate) fn new(reason: impl Into<String>, place: Place) -> Self {
        Self {
            option: None,
            reason: Reason::Text(reason.into()),
            place,
        }
    }

    /// The same mistake in another place.
    pub(crate) fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// Its position in the configuration file: errors are reported in this order.
    pub(crate) fn position(&self) -> Option<Position> {
        match self.place {
            Place::File { at, .. } => at,
            Place::Flags => None,
        }
    }

    /// Where the right form is described.
    pub(crate) fn reference(&self) -> &'static str {
        match self.place {
            Place::Flags => "see --help",
            Place::File { .. } => "see monitor_myvnc.toml(5)",
        }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dashes = match &self.place {
            Place::Flags => "--",
            Place::File { path, at, server } => {
                write!(f, "{}", path.display())?;
                if let Some(Position { line, column }) = at {
                    write!(f, ":{line}:{column}")?;
                }
                f.write_str(": ")?;
                if let Some(server) = server {
                    write!(f, "server {server}: ")?;
                }
                ""
            }
        };
        if let Some(option) = &self.option {
            write!(f, "{dashes}{option} ")?;
        }
        match &self.reason {
            Reason::Text(text) => f.write_str(text),
            Reason::Excludes(other) => write!(f, "cannot be used with {dashes}{other}"),
        }
    }
}

impl Error for UsageError {}

impl From<clap::Error> for UsageError {
    fn from(error: clap::Error) -> Self {
        of_clap(&error)
    }
}

impl From<&clap::Error> for UsageError {
    fn from(error: &clap::Error) -> Self {
        of_clap(error)
    }
}

/// What clap says, about the option that it is about.
fn of_clap(error: &clap::Error) -> UsageError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        Some(ContextValue::Strings(texts)) => texts.first().map(String::as_str),
        _ => None,
    };
    let long = |shown: &str| {
        let name = shown.split([' ', '=']).next().unwrap_or_default();
        name.strip_prefix("--").map(str::to_owned)
    };
    let option = text(ContextKind::InvalidArg).and_then(long);
    let value = text(ContextKind::InvalidValue).filter(|value| !value.is_empty());
    let valid = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(all)) => all.join(", "),
        _ => String::new(),
    };
    let reason = match error.kind() {
        ErrorKind::ValueValidation => error
            .source()
            .map(|source| Reason::Text(format!("{}: {source}", value.unwrap_or("\"\"")))),
        ErrorKind::InvalidValue if valid.is_empty() => Some(Reason::Text("needs a value".into())),
        ErrorKind::InvalidValue => Some(Reason::Text(format!(
            "{}: give one of {valid}",
            value.unwrap_or("\"\"")
        ))),
        ErrorKind::ArgumentConflict => text(ContextKind::PriorArg)
            .and_then(long)
            .map(|other| Reason::Excludes(other.into())),
        _ => None,
    };
    match (option, reason) {
        (Some(option), Some(reason)) => UsageError {
            option: Some(option),
            reason,
            place: Place::Flags,
        },
        _ => UsageError::new(one_line(error), Place::Flags),
    }
}

/// A usage error as one line, without the usage that clap adds to it.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let said = text
        .split("\n\n")
        .map(str::trim)
        .filter(|part| !part.starts_with("Usage:") && !part.starts_with("For more information"));
    let words: Vec<&str> = said.flat_map(str::split_whitespace).collect();
    words.join(" ").trim_start_matches("error: ").to_owned()
}
