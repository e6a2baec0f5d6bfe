//! The settings in force, as TOML with comments.

use super::{Config, section::Section};

pub(super) fn toml(config: &Config) -> String {
    let mut values = Vec::new();
    config.values("", &mut values);
    let mut text = String::new();
    let mut section = "";
    for (path, value) in &values {
        let (parent, name) = split(path);
        if parent != section {
            text.push_str(&format!("\n[{parent}]\n"));
            section = parent;
        }
        let line = format!("{name} = {value}");
        let comment = config.origin(path);
        text.push_str(&format!("{line:<WIDTH$} # {comment}\n"));
    }
    text
}

/// Parent and name; a domain in quotes stays whole.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

const WIDTH: usize = 48;
