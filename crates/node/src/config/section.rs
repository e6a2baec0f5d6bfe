//! The form in which keys are declared, and what is derived from it.

use std::collections::BTreeMap;

use super::{
    error::ConfigError,
    layers::{Entry, Layers, Origin},
    value::{Bound, Value},
};

/// One key of the configuration, for the reader, the listing and the documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Full name: `limits.xml.max_depth`. A segment in angle brackets stands for any name.
    pub path: String,
    /// What it is, in one or two sentences.
    pub text: String,
    /// The default as TOML.
    pub default: String,
    /// What kind of value it takes.
    pub takes: &'static str,
    /// Its bounds in words; empty when there are none.
    pub bounds: String,
}

impl Key {
    /// The environment variable that sets it, where there can be one.
    pub fn variable(&self) -> Option<String> {
        let fits = !self.path.contains('<');
        fits.then(|| format!("STARLING__{}", self.path.to_uppercase().replace('.', "__")))
    }

    /// True when a reload (SIGHUP) applies a new value without a restart.
    pub fn reloadable(path: &str) -> bool {
        RELOADABLE.iter().any(|prefix| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

/// What SIGHUP applies to a running server.
const RELOADABLE: [&str; 9] = [
    "domains",
    "tls",
    "auth.mechanisms",
    "telemetry.log.level",
    "limits.xml",
    "limits.stream",
    "limits.conn",
    "limits.auth",
    "limits.rate",
];

/// A group of keys.
pub(crate) trait Section: Default {
    /// Adds the keys below `prefix`.
    fn describe(prefix: &str, into: &mut Vec<Key>);

    /// Takes the values that the layers give for the keys below `prefix`.
    fn read(&mut self, prefix: &str, from: &mut Reader);

    /// Adds the values below `prefix` as TOML.
    fn values(&self, prefix: &str, into: &mut Vec<(String, String)>);
}

/// The merged layers, from which sections take their values.
#[derive(Debug)]
pub(crate) struct Reader {
    entries: BTreeMap<Vec<String>, Entry>,
    origins: BTreeMap<String, Origin>,
    errors: Vec<ConfigError>,
}

impl Reader {
    pub(crate) fn new(layers: Layers) -> Self {
        Self { entries: layers.entries, origins: BTreeMap::new(), errors: layers.errors }
    }

    pub(crate) fn finish(self) -> (BTreeMap<String, Origin>, Vec<ConfigError>) {
        (self.origins, self.errors)
    }

    /// Takes one value, if a layer gives it and it is right.
    pub(crate) fn take<T: Value>(&mut self, path: &str, slot: &mut T, bound: &dyn Bound<T>) {
        let segments = path.split('.').map(str::to_owned).collect();
        self.take_at(&segments, path, slot, bound);
    }

    /// As [`Reader::take`], for a path with segments that may hold dots.
    pub(crate) fn take_at<T: Value>(
        &mut self,
        segments: &Vec<String>,
        path: &str,
        slot: &mut T,
        bound: &dyn Bound<T>,
    ) {
        let Some(entry) = self.entries.remove(segments) else { return };
        let parsed = T::parse(&entry.input(), slot).and_then(|value| {
            bound.check(&value)?;
            Ok(value)
        });
        match parsed {
            Ok(value) => {
                *slot = value;
                self.origins.insert(path.to_owned(), entry.origin);
            }
            Err(why) => self.errors.push(ConfigError {
                what: format!("`{path}` cannot be {}", entry.shown()),
                origin: entry.origin,
                why,
                advice: advice(path, slot, bound),
            }),
        }
    }

    /// Second segments of all entries below `prefix`, each once.
    pub(crate) fn names_below(&self, prefix: &[&str]) -> Vec<String> {
        let below = self.entries.keys().filter(|path| path.iter().take(prefix.len()).eq(prefix.iter()));
        let mut names: Vec<String> = below.filter_map(|path| path.get(prefix.len()).cloned()).collect();
        names.dedup();
        names
    }
}

fn advice<T: Value>(path: &str, default: &T, bound: &dyn Bound<T>) -> String {
    let bounds = bound.text();
    let comma = if bounds.is_empty() { "" } else { ", " };
    format!("give {}{comma}{bounds}; the default is {path} = {}", T::TAKES, default.show())
}

/// `prefix.name`, or `name` at the top.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Declares a group of keys: `name: type = default;` or `name: type = default, in bounds;`, with its text as
/// documentation; then the groups inside it; then fields that are not settings.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $Name:ident {
            $( $(#[doc = $text:literal])+ $field:ident : $ty:ty = $default:expr $(, in $bound:expr)? ; )*
        }
        $( with { $( $(#[doc = $subtext:literal])+ $sub:ident : $Sub:ty ; )* } )?
        $( plus { $( $(#[doc = $plustext:literal])+ $plus:ident : $Plus:ty ; )* } )?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Name {
            $( $(#[doc = $text])+ pub $field: $ty, )*
            $( $( $(#[doc = $subtext])+ pub $sub: $Sub, )* )?
            $( $( $(#[doc = $plustext])+ $plus: $Plus, )* )?
        }

        impl Default for $Name {
            fn default() -> Self {
                Self {
                    $( $field: $default, )*
                    $( $( $sub: <$Sub>::default(), )* )?
                    $( $( $plus: <$Plus>::default(), )* )?
                }
            }
        }

        #[allow(unused_variables)]
        impl crate::config::section::Section for $Name {
            fn describe(prefix: &str, into: &mut Vec<crate::config::section::Key>) {
                let defaults = Self::default();
                $( into.push(crate::config::section::Key {
                    path: crate::config::section::join(prefix, stringify!($field)),
                    text: [$( $text.trim() ),+].join(" "),
                    default: crate::config::value::Value::show(&defaults.$field),
                    takes: <$ty as crate::config::value::Value>::TAKES,
                    bounds: crate::config::value::Bound::<$ty>::text(&section!(@bound $($bound)?)),
                }); )*
                $( $( <$Sub as crate::config::section::Section>::describe(
                    &crate::config::section::join(prefix, stringify!($sub)), into); )* )?
            }

            fn read(&mut self, prefix: &str, from: &mut crate::config::section::Reader) {
                $( from.take(
                    &crate::config::section::join(prefix, stringify!($field)),
                    &mut self.$field,
                    &section!(@bound $($bound)?),
                ); )*
                $( $( crate::config::section::Section::read(
                    &mut self.$sub, &crate::config::section::join(prefix, stringify!($sub)), from); )* )?
            }

            fn values(&self, prefix: &str, into: &mut Vec<(String, String)>) {
                $( into.push((
                    crate::config::section::join(prefix, stringify!($field)),
                    crate::config::value::Value::show(&self.$field),
                )); )*
                $( $( crate::config::section::Section::values(
                    &self.$sub, &crate::config::section::join(prefix, stringify!($sub)), into); )* )?
            }
        }
    };
    (@bound) => { crate::config::value::Any };
    (@bound $bound:expr) => { $bound };
}
pub(crate) use section;
