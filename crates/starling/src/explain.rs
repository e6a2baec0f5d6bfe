//! `starling config`.

use starling_node::{Config, Sources, config::Key};

use crate::{failure::Failure, print, sources};

/// Prints all values in force.
pub(crate) fn show(sources: &Sources) -> Result<(), Failure> {
    let config = sources::load(sources)?;
    print::line(config.show().trim_end());
    Ok(())
}

/// Says what keys mean: one, those that begin with it, or all.
pub(crate) fn explain(wanted: Option<&str>) -> Result<(), Failure> {
    let keys = Config::keys();
    let wanted = wanted.unwrap_or_default().trim_end_matches('.');
    let found: Vec<&Key> = keys.iter().filter(|key| begins(&key.path, wanted)).collect();
    if found.is_empty() {
        let known = "`starling config explain` without a key lists all of them";
        return Err(Failure::new(format!("there is no key `{wanted}`")).advise(known).usage());
    }
    let texts: Vec<String> = found.into_iter().map(text).collect();
    print::line(&texts.join("\n\n"));
    Ok(())
}

fn begins(path: &str, wanted: &str) -> bool {
    wanted.is_empty()
        || path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn text(key: &Key) -> String {
    let bounds = if key.bounds.is_empty() { String::new() } else { format!(" ({})", key.bounds) };
    let reload = if Key::reloadable(&key.path) { "SIGHUP or restart" } else { "restart" };
    let env = key.variable().unwrap_or_else(|| "none: the name of a domain does not fit".to_owned());
    format!(
        "{}\n  {}\n  takes:       {}{bounds}\n  default:     {}\n  environment: {env}\n  applied by:  {reload}",
        key.path, key.text, key.takes, key.default
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_key_and_those_below_it() {
        assert!(begins("limits.sm.max_unacked", "limits.sm"));
        assert!(begins("limits.sm.max_unacked", "limits.sm.max_unacked"));
        assert!(!begins("limits.smooth", "limits.sm"));
        assert_eq!(explain(Some("no.such.key")).unwrap_err().code, 2);
        assert!(explain(Some("limits.sm.")).is_ok());
    }

    #[test]
    fn says_all_there_is_to_say() {
        let keys = Config::keys();
        let key = keys.iter().find(|key| key.path == "limits.sm.resume_timeout").unwrap();
        let text = text(key);
        for part in ["\"5m\"", "\"0s\" to \"1d\"", "STARLING__LIMITS__SM__RESUME_TIMEOUT", "restart"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
