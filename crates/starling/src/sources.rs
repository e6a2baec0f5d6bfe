//! Where the settings of this process come from.

use std::path::PathBuf;

use starling_node::{Config, Sources};

use crate::{cli::Global, failure::Failure};

/// `--config` or `STARLING_CONFIG`, the environment, and `--set`.
pub(crate) fn of(global: &Global) -> Sources {
    let named = std::env::var_os("STARLING_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
    Sources { file: global.config.clone().or(named), env: environment(), sets: global.set.clone() }
}

/// All variables; those that are not text cannot be settings.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The settings, or all that is wrong with them.
pub(crate) fn load(sources: &Sources) -> Result<Config, Failure> {
    Config::load(sources).map_err(Failure::from)
}

/// The options that reach the same server, for commands that are shown to people.
pub(crate) fn options(sources: &Sources) -> String {
    let file = sources.file.iter().map(|file| format!(" --config {}", quoted(&file.display().to_string())));
    let place = sources.sets.iter().filter(|set| set.starts_with("data_dir="));
    let place = place.map(|set| format!(" --set {}", quoted(set)));
    file.chain(place).collect()
}

/// The program as it was called, so that a line can be copied.
pub(crate) fn program() -> String {
    quoted(&std::env::args().next().unwrap_or_else(|| "starling".to_owned()))
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-=:@+,".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_to_copy_name_the_same_server() {
        let sources = Sources {
            file: Some("my server.toml".into()),
            env: Vec::new(),
            sets: vec!["domains=x".to_owned(), "data_dir=/tmp/d".to_owned()],
        };
        assert_eq!(options(&sources), " --config 'my server.toml' --set data_dir=/tmp/d");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
