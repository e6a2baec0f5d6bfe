//! The four layers, flattened to one value per key with where it came from.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use toml::de::{DeTable, DeValue};

use super::{
    error::ConfigError,
    section::Key,
    suggest::{self, nearest},
    value::{self, Input},
};

/// What to read. The default is nothing: all values are defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file. It must be readable.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `STARLING__` are passed over.
    pub env: Vec<(String, String)>,
    /// Arguments of `--set`, each `a.b.c=value`.
    pub sets: Vec<String>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A file, with the line.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// From 1; 0 for the file as a whole.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// An argument of `--set`.
    Set(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "file {}", path.display()),
            Self::File { path, line } => write!(f, "file {}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Set(argument) => write!(f, "--set {argument}"),
        }
    }
}

/// One value as it was read.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    raw: Raw,
    pub(crate) origin: Origin,
}

#[derive(Debug, Clone)]
enum Raw {
    Text(String),
    Toml(toml::Value),
}

impl Entry {
    pub(crate) fn input(&self) -> Input<'_> {
        match &self.raw {
            Raw::Text(text) => Input::Text(text),
            Raw::Toml(value) => Input::Toml(value),
        }
    }

    /// The value for an error message, not too long.
    pub(crate) fn shown(&self) -> String {
        let text = match &self.raw {
            Raw::Text(text) => format!("{text:?}"),
            Raw::Toml(value) => value.to_string(),
        };
        match text.char_indices().nth(80) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }
}

/// The merged layers.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    pub(crate) entries: BTreeMap<Vec<String>, Entry>,
    pub(crate) errors: Vec<ConfigError>,
}

impl Layers {
    pub(crate) fn read(sources: &Sources, keys: &[Key]) -> Self {
        let mut layers = Self::default();
        if let Some(path) = &sources.file {
            layers.file(path, keys);
        }
        let mut env: Vec<_> = sources.env.iter().collect();
        env.sort();
        for (name, value) in env {
            layers.env(name, value, keys);
        }
        for argument in &sources.sets {
            layers.set(argument, keys);
        }
        layers
    }

    fn file(&mut self, path: &PathBuf, keys: &[Key]) {
        let whole = Origin::File { path: path.clone(), line: 0 };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.errors.push(ConfigError {
                    what: "the configuration file cannot be read".to_owned(),
                    origin: whole,
                    why: error.to_string(),
                    advice: "name a readable file with --config, or leave --config away to use the defaults"
                        .to_owned(),
                });
            }
        };
        let (table, errors) = DeTable::parse_recoverable(&text);
        // What follows the first mistake is mostly its echo.
        for error in errors.iter().take(1) {
            let line = error.span().map_or(0, |span| line_of(&text, span.start));
            self.errors.push(ConfigError {
                what: "the configuration file is not TOML".to_owned(),
                origin: Origin::File { path: path.clone(), line },
                why: error.message().to_owned(),
                advice: "mend that line; text needs quotes, lists square brackets, and a key may appear once"
                    .to_owned(),
            });
        }
        if errors.is_empty() {
            let file = File { path, text: &text };
            self.table(&file, &mut Vec::new(), table.get_ref(), keys);
        }
    }

    fn table(&mut self, file: &File<'_>, prefix: &mut Vec<String>, table: &DeTable<'_>, keys: &[Key]) {
        for (name, value) in table {
            prefix.push(name.get_ref().to_string());
            let line = line_of(file.text, name.span().start);
            let origin = Origin::File { path: file.path.clone(), line };
            match (suggest::place(prefix, keys), value.get_ref()) {
                (suggest::Place::Section, DeValue::Table(inner)) => self.table(file, prefix, inner, keys),
                (suggest::Place::Section, other) => self.errors.push(ConfigError {
                    what: format!("`{}` is a section, not a value", suggest::shown(prefix)),
                    origin,
                    why: format!(
                        "it holds keys of its own, but the file gives it {}",
                        value::kind(other.type_str())
                    ),
                    advice: format!("write [{}] and the keys below it", suggest::shown(prefix)),
                }),
                (suggest::Place::Key, value) => match owned(value) {
                    Ok(value) => {
                        self.entries.insert(prefix.clone(), Entry { raw: Raw::Toml(value), origin });
                    }
                    Err(why) => self.errors.push(ConfigError {
                        what: format!("`{}` cannot be read", suggest::shown(prefix)),
                        origin,
                        why,
                        advice: "write a smaller number".to_owned(),
                    }),
                },
                (suggest::Place::Unknown, value) => self.unknown(prefix, value.as_str(), origin, keys),
            }
            prefix.pop();
        }
    }

    fn env(&mut self, name: &str, value: &str, keys: &[Key]) {
        let Some(rest) = name.strip_prefix(PREFIX) else { return };
        if value.is_empty() {
            return;
        }
        let path = rest.split("__").map(str::to_lowercase).collect();
        self.text(path, value, Origin::Env(name.to_owned()), keys);
    }

    fn set(&mut self, argument: &str, keys: &[Key]) {
        let origin = Origin::Set(argument.to_owned());
        match split_set(argument) {
            Some((path, value)) => {
                // The value may be long or private; the key says enough.
                let origin = Origin::Set(suggest::shown(&path));
                self.text(path, value, origin, keys);
            }
            None => self.errors.push(ConfigError {
                what: "--set needs a key and a value".to_owned(),
                origin,
                why: "it has the form a.b.c=value".to_owned(),
                advice: "for example: --set listen.c2s=127.0.0.1:5222".to_owned(),
            }),
        }
    }

    fn text(&mut self, path: Vec<String>, value: &str, origin: Origin, keys: &[Key]) {
        match suggest::place(&path, keys) {
            suggest::Place::Key => {
                self.entries.insert(path, Entry { raw: Raw::Text(value.to_owned()), origin });
            }
            suggest::Place::Section => self.errors.push(ConfigError {
                what: format!("`{}` is a section, not a value", suggest::shown(&path)),
                origin,
                why: "it holds keys of its own".to_owned(),
                advice: format!("set one of its keys: {}", suggest::below(&path, keys)),
            }),
            suggest::Place::Unknown => self.unknown(&path, Some(value), origin, keys),
        }
    }

    fn unknown(&mut self, path: &[String], value: Option<&str>, origin: Origin, keys: &[Key]) {
        let shown = suggest::shown(path);
        let (why, advice) = match suggest::later(&shown) {
            // They are off, so saying so is right.
            Some(_) if value == Some("off") => return,
            Some(feature) => (
                format!("{feature} is not part of this version"),
                "leave the key away, or set it to \"off\"".to_owned(),
            ),
            None if suggest::cut_domain(path) => (
                "each dot begins a new level, so the domain was cut in pieces".to_owned(),
                "put the domain in quotes, as in tls.domains.\"example.org\".cert".to_owned(),
            ),
            None => (
                "there is no such key, so it would have no effect".to_owned(),
                match nearest(path, keys) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "`starling config show` lists all keys".to_owned(),
                },
            ),
        };
        self.errors.push(ConfigError { what: format!("unknown key `{shown}`"), origin, why, advice });
    }
}

struct File<'a> {
    path: &'a PathBuf,
    text: &'a str,
}

fn line_of(text: &str, byte: usize) -> usize {
    text.as_bytes().iter().take(byte).filter(|byte| **byte == b'\n').count() + 1
}

/// A value without its position.
fn owned(value: &DeValue<'_>) -> Result<toml::Value, String> {
    Ok(match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(toml::Value::Integer)
            .map_err(|_| "the number is too large".to_owned())?,
        DeValue::Float(number) => number
            .as_str()
            .parse()
            .map(toml::Value::Float)
            .map_err(|_| "the number has no form that can be read".to_owned())?,
        DeValue::Boolean(flag) => toml::Value::Boolean(*flag),
        DeValue::Datetime(time) => toml::Value::Datetime(*time),
        DeValue::Array(items) => {
            toml::Value::Array(items.iter().map(|item| owned(item.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => {
            let pairs =
                table.iter().map(|(name, value)| Ok((name.get_ref().to_string(), owned(value.get_ref())?)));
            toml::Value::Table(pairs.collect::<Result<_, String>>()?)
        }
    })
}

/// Splits `a."b.c".d=value` into its path and its value.
fn split_set(argument: &str) -> Option<(Vec<String>, &str)> {
    let (mut path, mut segment, mut quoted) = (Vec::new(), String::new(), false);
    for (at, letter) in argument.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '.' if !quoted => path.push(std::mem::take(&mut segment).trim().to_owned()),
            '=' if !quoted => {
                path.push(segment.trim().to_owned());
                let complete = path.iter().all(|segment| !segment.is_empty());
                return complete.then(|| (path, argument[at + 1..].trim()));
            }
            letter => segment.push(letter),
        }
    }
    None
}

const PREFIX: &str = "STARLING__";
