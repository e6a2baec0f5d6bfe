//! Which key somebody may have meant.

use super::section::Key;

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Key,
    Section,
    Unknown,
}

/// Looks a path up among the keys.
pub(super) fn place(path: &[String], keys: &[Key]) -> Place {
    let mut place = Place::Unknown;
    for key in keys {
        match fits(path, &key.path) {
            Some(true) => return Place::Key,
            Some(false) => place = Place::Section,
            None => {}
        }
    }
    place
}

/// `Some(true)` when `path` is the key, `Some(false)` when it is a beginning of it.
fn fits(path: &[String], key: &str) -> Option<bool> {
    let mut segments = key.split('.');
    for segment in path {
        let wanted = segments.next()?;
        if !wanted.starts_with('<') && wanted != segment {
            return None;
        }
    }
    Some(segments.next().is_none())
}

/// A path in the form of the file: segments that need quotes have them.
pub(super) fn shown(path: &[String]) -> String {
    let bare = |segment: &str| {
        !segment.is_empty()
            && segment.chars().all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter))
    };
    let quoted: Vec<String> = path
        .iter()
        .map(|segment| if bare(segment) { segment.clone() } else { format!("{segment:?}") })
        .collect();
    quoted.join(".")
}

/// True for `tls.domains.example.org`: a domain without quotes.
pub(super) fn cut_domain(path: &[String]) -> bool {
    let near = |name: &String| ["cert", "key"].iter().any(|known| distance(name, known) < 2);
    matches!(path, [tls, domains, _, rest, ..] if tls == "tls" && domains == "domains" && !near(rest))
}

/// The first keys of a section, for a hint.
pub(super) fn below(path: &[String], keys: &[Key]) -> String {
    let below = keys.iter().filter(|key| fits(path, &key.path) == Some(false));
    let names: Vec<&str> = below.map(|key| key.path.as_str()).take(3).collect();
    names.join(", ")
}

/// What a key of a later version belongs to.
pub(super) fn later(path: &str) -> Option<&'static str> {
    LATER
        .iter()
        .find(|(key, _)| path == *key || path.starts_with(&format!("{key}.")))
        .map(|(_, feature)| *feature)
}

/// The key that `path` most likely means: a slip of the keys, or a beginning that was forgotten.
pub(super) fn nearest(path: &[String], keys: &[Key]) -> Option<String> {
    let wanted = path.join(".").to_lowercase();
    let last = path.last()?.to_lowercase();
    let scored = keys.iter().map(|key| {
        let known = named(&key.path, path);
        let name = known.rsplit('.').next().unwrap_or_default();
        let whole = distance(&wanted, &known) * 2;
        // `sm.max_unacked` for `limits.sm.max_unacked`: the end is right.
        let ending = known.ends_with(&format!(".{wanted}")).then_some(1);
        // `store.password` for `store.password_file`: the beginning is.
        let beginning = known.strip_prefix(&wanted).is_some_and(|rest| rest.starts_with('_')).then_some(2);
        let ending = ending.or(beginning);
        let only_name = (name == last).then(|| 3 + distance(&wanted, &known) / 4);
        (ending.or(only_name).map_or(whole, |score| score.min(whole)), known)
    });
    // A misspelt section is as near as its own name is.
    let sections = sections(keys).into_iter().map(|section| (distance(&wanted, &section) * 2 + 1, section));
    let best_key = scored.min();
    let best_section = sections.min();
    let (score, best) = best_key.into_iter().chain(best_section).min()?;
    (score <= (wanted.chars().count() * 2 / 3).max(3)).then_some(best)
}

/// The key with the name that `path` has in place of a segment in angle brackets.
fn named(key: &str, path: &[String]) -> String {
    let segments = key.split('.').enumerate();
    let named = segments.map(|(at, segment)| match path.get(at) {
        Some(name) if segment.starts_with('<') => name.as_str(),
        _ => segment,
    });
    named.collect::<Vec<_>>().join(".")
}

fn sections(keys: &[Key]) -> Vec<String> {
    let parents =
        keys.iter().flat_map(|key| key.path.match_indices('.').map(|(at, _)| key.path[..at].to_owned()));
    let mut sections: Vec<String> = parents.filter(|section| !section.contains('<')).collect();
    sections.sort();
    sections.dedup();
    sections
}

/// Edits between two words: insert, delete, replace, or swap of neighbours (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(LONGEST).collect();
    let right: Vec<char> = right.chars().take(LONGEST).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut here = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let replaced = above[column] + usize::from(a != b);
            let mut best = replaced.min(above[column + 1] + 1).min(here[column] + 1);
            if row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b {
                best = best.min(before[column - 1] + 1);
            }
            here.push(best);
        }
        before = std::mem::replace(&mut above, here);
    }
    above[right.len()]
}

/// Longer words are compared by their beginning.
const LONGEST: usize = 80;

/// Names that are fixed already but do nothing yet.
const LATER: [(&str, &str); 5] = [
    ("listen.s2s", "federation"),
    ("listen.component", "external components"),
    ("listen.http", "HTTP (WebSocket, BOSH)"),
    ("listen.https", "HTTPS (WebSocket, BOSH)"),
    ("ephemeral.kind", "a shared ephemeral store"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn near(path: &str) -> Option<String> {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        nearest(&path, &Config::keys())
    }

    #[test]
    fn counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn finds_what_was_meant() {
        for (wrote, meant) in [
            ("limits.sm.max_unaked", "limits.sm.max_unacked"),
            ("sm.max_unacked", "limits.sm.max_unacked"),
            ("domain", "domains"),
            ("listen.c2s-tls", "listen.c2s_tls"),
            ("listen.cs2", "listen.c2s"),
            ("limts", "limits"),
            ("registration.enable", "registration.enabled"),
            ("data-dir", "data_dir"),
            ("max_resources", "limits.session.max_resources"),
            ("Domains", "domains"),
            ("tls.domains.example.crt", "tls.domains.example.cert"),
        ] {
            assert_eq!(near(wrote).as_deref(), Some(meant), "{wrote}");
        }
    }

    #[test]
    fn is_silent_when_nothing_is_near() {
        assert_eq!(near("entirely.different.thing"), None);
        assert_eq!(near("zzzzzzzz"), None);
    }
}
