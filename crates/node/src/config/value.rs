//! Types of values: how each is read, written, bounded and named.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use crate::{limits::Rate, listen::Listen};

/// A value as a layer gives it: text from the environment or `--set`, or a value of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    Text(&'a str),
    Toml(&'a toml::Value),
}

impl<'a> Input<'a> {
    /// The text, when it is one.
    pub(crate) fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(unquoted(text)),
            Self::Toml(value) => value.as_str(),
        }
    }

    /// The items of a list; a single text is a list of its comma-separated parts.
    fn list(self) -> Result<Vec<String>, String> {
        let items = match self {
            Self::Text(text) if text.trim_start().starts_with('[') => {
                let table: toml::Table =
                    format!("list = {text}").parse().map_err(|_| "the list is not TOML")?;
                table.get("list").and_then(|list| list.as_array().cloned()).ok_or("it is not a list")?
            }
            Self::Text(text) => return Ok(text.split(',').map(|item| unquoted(item).to_owned()).collect()),
            Self::Toml(toml::Value::String(text)) => return Ok(vec![text.clone()]),
            Self::Toml(toml::Value::Array(items)) => items.clone(),
            Self::Toml(other) => return Err(found("a list", other)),
        };
        items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(|| found("text", item))).collect()
    }

    fn wrong(self, wanted: &str) -> String {
        match self {
            Self::Text(_) | Self::Toml(toml::Value::String(_)) => format!("it is not {wanted}"),
            Self::Toml(value) => found(wanted, value),
        }
    }
}

fn found(wanted: &str, value: &toml::Value) -> String {
    format!("it is not {wanted} but {}", kind(value.type_str()))
}

/// A type of TOML with its article.
pub(super) fn kind(name: &str) -> String {
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// A type that a key can have.
pub(crate) trait Value: Sized {
    /// What to give, in words.
    const TAKES: &'static str;

    /// Reads it. `default` tells the unit of a bare number where that matters. The error says why not.
    fn parse(input: &Input<'_>, default: &Self) -> Result<Self, String>;

    /// Writes it as TOML.
    fn show(&self) -> String;
}

/// Bounds of a value.
pub(crate) trait Bound<T> {
    /// Says why not when the value is out of bounds.
    fn check(&self, value: &T) -> Result<(), String>;

    /// The bounds in words.
    fn text(&self) -> String;
}

/// A text of an argument or a variable; whoever writes it in quotes, as in the file, means what is in them.
fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inner = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).filter(|inner| !inner.contains(['"', '\'', '\\'])).unwrap_or(text)
}

/// No bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Any;

impl<T> Bound<T> for Any {
    fn check(&self, _: &T) -> Result<(), String> {
        Ok(())
    }

    fn text(&self) -> String {
        String::new()
    }
}

impl<T: Value + PartialOrd> Bound<T> for RangeInclusive<T> {
    fn check(&self, value: &T) -> Result<(), String> {
        if value < self.start() {
            Err(format!("it is below {}, the least that works", self.start().show()))
        } else if value > self.end() {
            Err(format!("it is above {}, the most that is sane", self.end().show()))
        } else {
            Ok(())
        }
    }

    fn text(&self) -> String {
        format!("{} to {}", self.start().show(), self.end().show())
    }
}

impl<T: Value + PartialOrd> Bound<Option<T>> for RangeInclusive<T> {
    fn check(&self, value: &Option<T>) -> Result<(), String> {
        value.as_ref().map_or(Ok(()), |value| self.check(value))
    }

    fn text(&self) -> String {
        Bound::<T>::text(self)
    }
}

impl<T> Bound<T> for fn(&T) -> Result<(), String> {
    fn check(&self, value: &T) -> Result<(), String> {
        self(value)
    }

    fn text(&self) -> String {
        String::new()
    }
}

impl Value for bool {
    const TAKES: &'static str = "true or false";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        match (input, input.text()) {
            (Input::Toml(toml::Value::Boolean(flag)), _) => Ok(*flag),
            (Input::Text(_), Some("true" | "1" | "yes" | "on")) => Ok(true),
            (Input::Text(_), Some("false" | "0" | "no" | "off")) => Ok(false),
            (Input::Toml(toml::Value::String(_)), _) => {
                Err("it is text: true and false stand without quotes".to_owned())
            }
            _ => Err(input.wrong("true or false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! whole_numbers {
    ($($type:ty)*) => { $(
        impl Value for $type {
            const TAKES: &'static str = "a whole number";

            fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
                let number = match input {
                    Input::Toml(toml::Value::Integer(number)) => i128::from(*number),
                    _ => input.text().and_then(whole).ok_or_else(|| input.wrong("a whole number"))?,
                };
                if number < 0 {
                    return Err("it is below 0".to_owned());
                }
                Self::try_from(number).map_err(|_| format!("it is above {}", Self::MAX))
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )* };
}
whole_numbers!(u8 u16 u32 u64 usize);

/// `4096`, `4_096`, `256KiB`, `4 MiB`.
fn whole(text: &str) -> Option<i128> {
    let (digits, factor) = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits.trim_end(), *factor)))
        .unwrap_or((text, 1));
    if digits.starts_with('_') || digits.ends_with('_') {
        return None;
    }
    digits.replace('_', "").parse::<i128>().ok()?.checked_mul(factor)
}

impl Value for f64 {
    const TAKES: &'static str = "a number";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        let number = match input {
            Input::Toml(toml::Value::Float(number)) => Some(*number),
            Input::Toml(toml::Value::Integer(number)) => Some(*number as Self),
            Input::Toml(_) => None,
            Input::Text(text) => text.trim().parse().ok(),
        };
        number.filter(|number| number.is_finite()).ok_or_else(|| input.wrong("a number"))
    }

    fn show(&self) -> String {
        let text = self.to_string();
        if text.contains('.') { text } else { format!("{text}.0") }
    }
}

impl Value for String {
    const TAKES: &'static str = "text";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        input.text().map(str::to_owned).ok_or_else(|| input.wrong("text"))
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Value for PathBuf {
    const TAKES: &'static str = "a path";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        match input.text() {
            Some("") => Err("it is empty".to_owned()),
            Some(text) => Ok(text.into()),
            None => Err(input.wrong("a path")),
        }
    }

    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Value for Duration {
    const TAKES: &'static str = "a duration such as \"5s\"";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        match input {
            Input::Toml(toml::Value::Integer(seconds)) => {
                u64::try_from(*seconds).map(Self::from_secs).map_err(|_| "it is below 0".to_owned())
            }
            _ => input.text().and_then(duration).ok_or_else(|| input.wrong("a duration")),
        }
    }

    fn show(&self) -> String {
        let millis = self.as_millis();
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let fitting = units.iter().find(|(size, _)| millis > 0 && millis.is_multiple_of(*size));
        match fitting {
            Some((size, unit)) => format!("\"{}{unit}\"", millis / size),
            None if millis == 0 => "\"0s\"".to_owned(),
            None => format!("\"{millis}ms\""),
        }
    }
}

/// A duration as it is written: `500ms`, `5s`, `15m`, `1h`, `2d`; bare digits are seconds. `None` if it is none.
pub fn duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let millis = match text[digits..].trim() {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

impl Value for Rate {
    const TAKES: &'static str = "a rate such as \"20/s\"";

    fn parse(input: &Input<'_>, default: &Self) -> Result<Self, String> {
        if let Input::Toml(toml::Value::Integer(number)) = input {
            let count = u64::try_from(*number).map_err(|_| "it is below 0".to_owned())?;
            return Ok(Self { count, per: default.per });
        }
        let text = input.text().ok_or_else(|| input.wrong("a rate"))?;
        let (count, per) = match text.split_once('/') {
            None => (text, default.per),
            Some((count, unit)) => {
                let seconds = match unit.trim() {
                    "s" => 1,
                    "m" | "min" => 60,
                    "h" => 3_600,
                    "d" => 86_400,
                    _ => return Err("its unit is not one of s, min, h, d".to_owned()),
                };
                (count, Duration::from_secs(seconds))
            }
        };
        let count = whole(count.trim()).and_then(|count| u64::try_from(count).ok());
        count.map(|count| Self { count, per }).ok_or_else(|| input.wrong("a rate"))
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Value for Vec<String> {
    const TAKES: &'static str = "a list of texts";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        input.list()
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(|item| quoted(item)).collect::<Self>().join(", "))
    }
}

impl Value for Listen {
    const TAKES: &'static str = "\"ip:port\", a list of them, or \"off\"";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        let items = input.list()?;
        if items == ["off"] {
            return Ok(Self::default());
        }
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for item in &items {
            let address = item.parse().map_err(|_| not_an_address(item))?;
            if addresses.contains(&address) && address.port() != 0 {
                return Err(format!("{item} is there twice"));
            }
            addresses.push(address);
        }
        if addresses.is_empty() { Err("the list is empty".to_owned()) } else { Ok(Self(addresses)) }
    }

    fn show(&self) -> String {
        match self.0.as_slice() {
            [] => "\"off\"".to_owned(),
            [one] => quoted(&one.to_string()),
            several => several.iter().map(SocketAddr::to_string).collect::<Vec<_>>().show(),
        }
    }
}

fn not_an_address(text: &str) -> String {
    if text.parse::<u16>().is_ok() {
        return format!(
            "{text:?} is a port without an address: write \"0.0.0.0:{text}\" or \"127.0.0.1:{text}\""
        );
    }
    if text.parse::<std::net::IpAddr>().is_ok() {
        return format!("{text:?} has no port: write the port after a colon, an IPv6 address in brackets");
    }
    format!("{text:?} is not an IP address with a port (names are not resolved)")
}

/// A number that the server works out itself when it is not given.
impl Value for Option<usize> {
    const TAKES: &'static str = "a whole number or \"auto\"";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        match input.text() {
            Some("auto") => Ok(None),
            _ => usize::parse(input, &0).map(Some),
        }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "\"auto\"".to_owned(), |number| number.to_string())
    }
}

/// A bound that may be absent.
impl Value for Option<u64> {
    const TAKES: &'static str = "a whole number or \"unlimited\"";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        match input.text() {
            Some("unlimited") => Ok(None),
            _ => u64::parse(input, &0).map(Some),
        }
    }

    fn show(&self) -> String {
        self.map_or_else(|| "\"unlimited\"".to_owned(), |number| number.to_string())
    }
}

/// A text that may be absent.
impl Value for Option<String> {
    const TAKES: &'static str = "text";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        String::parse(input, &String::new()).map(|text| Some(text).filter(|text| !text.is_empty()))
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "\"\"".to_owned(), Value::show)
    }
}

/// A path that may be absent.
impl Value for Option<PathBuf> {
    const TAKES: &'static str = "a path";

    fn parse(input: &Input<'_>, _: &Self) -> Result<Self, String> {
        match input.text() {
            Some("") => Ok(None),
            _ => PathBuf::parse(input, &PathBuf::new()).map(Some),
        }
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "\"\"".to_owned(), Value::show)
    }
}

/// Quotes for TOML.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// An enum whose variants have a word each.
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        pub enum $Name:ident { $( $(#[doc = $text:literal])+ $(#[$default:ident])? $Variant:ident = $word:literal, )+ }
        takes $takes:literal
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub enum $Name { $( $(#[doc = $text])+ $(#[$default])? $Variant, )+ }

        impl $Name {
            /// The word for it in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$Variant => $word, )+ }
            }
        }

        impl crate::config::value::Value for $Name {
            const TAKES: &'static str = $takes;

            fn parse(input: &crate::config::value::Input<'_>, _: &Self) -> Result<Self, String> {
                match input.text() {
                    $( Some($word) => Ok(Self::$Variant), )+
                    _ => Err("it is not one of the words that are known here".to_owned()),
                }
            }

            fn show(&self) -> String {
                crate::config::value::quoted(self.as_str())
            }
        }
    };
}
pub(crate) use choice;
