//! The machine: the data directory, addresses, file descriptors.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use nix::sys::resource::{Resource, getrlimit};
use starling_admin::api::StatusBody;
use starling_node::{Clock, Config, SystemClock};

use super::Finding;
use crate::cli::CheckRole;

/// Seconds since the Unix epoch.
pub(crate) fn now_seconds() -> i64 {
    i64::try_from(SystemClock::new().now_micros() / 1_000_000).unwrap_or(i64::MAX)
}

/// Whether data can be written.
pub(super) fn data_dir(config: &Config, running: Option<&StatusBody>) -> Vec<Finding> {
    let dir = &config.data_dir;
    let finding = match writable(dir) {
        Ok(Found::There) if readable_by_others(dir) => Finding::doubtful(
            "data_dir",
            format!("{} can be read by other users of this machine", dir.display()),
            format!("chmod go-rwx {}", dir.display()),
        ),
        Ok(Found::There) => Finding::good("data_dir", format!("{} can be written", dir.display())),
        Ok(Found::CanBeMade) => {
            Finding::good("data_dir", format!("{} will be made at the first start", dir.display()))
        }
        Err(error) => Finding::bad(
            "data_dir",
            format!("{} cannot be written: {error}", dir.display()),
            "make it a directory of the user that the server runs as, or set data_dir to another",
        ),
    };
    let server = running.map(|status| {
        Finding::good(
            "data_dir",
            format!("a server uses it now: process {}, version {}", status.pid, status.version),
        )
    });
    std::iter::once(finding).chain(server).collect()
}

fn readable_by_others(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
}

enum Found {
    There,
    CanBeMade,
}

/// Tries to write a file, and leaves nothing behind.
fn writable(dir: &Path) -> io::Result<Found> {
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        Ok(_) => {
            try_file(dir)?;
            Ok(Found::There)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The nearest directory above it that is there decides.
            let above = dir
                .ancestors()
                .skip(1)
                .map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
            let there = above.into_iter().find(|path| path.exists()).unwrap_or_else(|| Path::new("/"));
            try_file(there)?;
            Ok(Found::CanBeMade)
        }
        Err(error) => Err(error),
    }
}

fn try_file(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".starling-check-{}", std::process::id()));
    fs::File::options().write(true).create_new(true).open(&path)?;
    fs::remove_file(path)
}

/// Whether the addresses are free, or held by the server that runs.
pub(super) fn addresses(config: &Config, role: CheckRole, running: Option<&StatusBody>) -> Vec<Finding> {
    let listen = &config.listen;
    let mut findings = Vec::new();
    let own = match role {
        CheckRole::Router => vec![("cluster", &listen.cluster)],
        CheckRole::Serve | CheckRole::Edge => vec![("c2s", &listen.c2s), ("c2s_tls", &listen.c2s_tls)],
    };
    for (name, addresses) in own.into_iter().chain([("admin", &listen.admin)]) {
        if addresses.is_off() {
            findings.push(Finding::good("listen", format!("{name} is off")));
            continue;
        }
        findings.push(match addresses.open() {
            Ok(_) => Finding::good("listen", format!("{name} {addresses} can be used")),
            Err(error) => {
                let ours = running.is_some_and(|status| {
                    let busy = error.address.to_string();
                    status.listeners.iter().any(|listener| listener.name == name && listener.address == busy)
                });
                if ours {
                    Finding::good("listen", format!("{name} {addresses} is used by the running server"))
                } else {
                    Finding::bad(
                        "listen",
                        format!("{name} {}: {}", error.address, error.source),
                        error.advice(),
                    )
                }
            }
        });
    }
    findings
}

/// Whether there can be as many connections as people expect.
pub(super) fn descriptors() -> Finding {
    // The server raises its own number to the most it may have.
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, most)) if most >= FEW => Finding::good("machine", format!("{most} file descriptors")),
        Ok((_, most)) => Finding::doubtful(
            "machine",
            format!("only {most} file descriptors, and each connection takes one"),
            "raise the hard limit, e.g. by LimitNOFILE in systemd",
        ),
        Err(error) => Finding::doubtful(
            "machine",
            format!("the number of file descriptors is unknown: {error}"),
            "look at `ulimit -n`",
        ),
    }
}

/// With fewer, a small site meets the limit.
const FEW: u64 = 4_096;

#[cfg(test)]
mod tests {
    use starling_admin::api::ListenerRow;
    use starling_node::listen::Listen;

    use super::*;
    use crate::check::Verdict;

    fn config(dir: &Path) -> Config {
        let mut config = Config::default();
        config.data_dir = dir.to_owned();
        config.listen.c2s = Listen(vec!["127.0.0.1:0".parse().unwrap()]);
        config.listen.c2s_tls = Listen::default();
        config.listen.admin = Listen::default();
        config
    }

    #[test]
    fn a_directory_that_is_none_is_bad_and_a_missing_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let verdict = |path: &Path| data_dir(&config(path), None)[0].verdict;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(verdict(dir.path()), Verdict::Doubtful);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(verdict(dir.path()), Verdict::Good);
        assert_eq!(verdict(&dir.path().join("a/b/c")), Verdict::Good);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(verdict(&file), Verdict::Bad);
        assert_eq!(verdict(&file.join("below")), Verdict::Bad);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_busy_address_is_bad_unless_it_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        let held = config.listen.c2s.open().unwrap();
        let busy = held[0].local_addr().unwrap();
        config.listen.c2s = Listen(vec![busy]);
        assert_eq!(addresses(&config, CheckRole::Serve, None)[0].verdict, Verdict::Bad);
        let listener = ListenerRow { name: "c2s".to_owned(), address: busy.to_string() };
        let status = StatusBody { listeners: vec![listener], ..StatusBody::default() };
        assert_eq!(addresses(&config, CheckRole::Serve, Some(&status))[0].verdict, Verdict::Good);
        drop(held);
        assert_eq!(addresses(&config, CheckRole::Serve, None)[0].verdict, Verdict::Good);
    }
}
