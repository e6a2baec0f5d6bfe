//! The store: the servers of one that is not embedded, and the files that open it.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use starling_node::{Config, SystemClock, config::StoreKind};
use starling_store_scylla::check;

use super::{Finding, Verdict};
use crate::failure::Failure;

const PART: &str = "store";

/// Asks the servers, and looks at the files. Nothing where the store is a directory.
pub(super) fn look(config: &Config) -> Result<Vec<Finding>, Failure> {
    if config.store.kind == StoreKind::Embedded {
        return Ok(Vec::new());
    }
    let mut findings: Vec<Finding> = secrets(config).into_iter().filter_map(readable_by_others).collect();
    let options = match starling_setup::cql_options(config) {
        Ok(options) => options,
        Err(obstacle) => {
            let what: Vec<String> =
                [Some(obstacle.what), obstacle.place, obstacle.why].into_iter().flatten().collect();
            let remedy = obstacle.advice.unwrap_or_default();
            findings.push(Finding::bad(PART, what.join(": "), remedy));
            return Ok(findings);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("no threads to run on").because(error))?;
    let found = runtime.block_on(check::run(&options, &SystemClock::new()));
    // Connections that are still being tried are nobody's any more.
    runtime.shutdown_background();
    findings.extend(found.into_iter().map(|found| Finding {
        verdict: match found.verdict {
            check::Verdict::Good => Verdict::Good,
            check::Verdict::Doubtful => Verdict::Doubtful,
            check::Verdict::Bad => Verdict::Bad,
        },
        part: PART,
        text: found.text,
        remedy: found.remedy,
    }));
    Ok(findings)
}

fn secrets(config: &Config) -> Vec<&Path> {
    let files = [&config.store.password_file, &config.store.tls.key];
    files.into_iter().filter_map(|file| file.as_deref()).collect()
}

fn readable_by_others(path: &Path) -> Option<Finding> {
    let found = fs::metadata(path).ok()?;
    (found.is_file() && found.permissions().mode() & 0o077 != 0).then(|| {
        Finding::doubtful(
            PART,
            format!("{} can be read by other users of this machine", path.display()),
            format!("chmod go-rwx {}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_all_can_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "secret").unwrap();
        for (mode, told) in [(0o600, false), (0o640, true), (0o604, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(readable_by_others(&path).is_some(), told, "{mode:o}");
        }
        assert_eq!(readable_by_others(&dir.path().join("none")), None);
    }

    #[test]
    fn an_embedded_store_has_no_servers() {
        assert_eq!(look(&Config::default()).unwrap_or_default(), []);
    }
}
