//! `starling cluster`: an authority of one's own, and certificates under it.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use starling_node::Sources;
use starling_wire::tls::{Authority, Identity, Pair, Role};

use crate::{
    check::now_seconds,
    cli::{CertificateRole, ClusterCommand},
    failure::Failure,
    print, sources,
};

/// Does one command.
pub(crate) fn run(sources: &Sources, command: &ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Ca { out, name, days } => authority(&named(sources, name.as_ref())?, out, *days),
        ClusterCommand::Certificate { ca, role, node, out, name, days, replace } => {
            let role = match role {
                CertificateRole::Router => Role::Router,
                CertificateRole::Edge => Role::Edge,
            };
            let cluster = named(sources, name.as_ref())?;
            let identity = Identity::new(&cluster, role, node).ok_or_else(|| {
                Failure::new(format!("{node:?} in {cluster:?} cannot be the name of a process"))
                    .because("names consist of letters, digits, -, _ and .; the node * is any")
                    .usage()
            })?;
            certificate(&identity, ca, out, *days, *replace)
        }
    }
}

/// The cluster that is meant.
fn named(sources: &Sources, name: Option<&String>) -> Result<String, Failure> {
    match name {
        Some(name) => Ok(name.clone()),
        None => Ok(sources::load(sources)?.cluster.name),
    }
}

fn authority(cluster: &str, out: &Path, days: u32) -> Result<(), Failure> {
    if Identity::new(cluster, Role::Router, "*").is_none() {
        return Err(Failure::new(format!("{cluster:?} cannot be the name of a cluster"))
            .because("it stands in certificates: letters, digits, -, _ and .")
            .usage());
    }
    let (cert, key) = (out.join(CA), out.join(CA_KEY));
    for path in [&cert, &key] {
        if path.exists() {
            return Err(there(path).advise(
                "keep it: what it has signed is of use only with it; for another cluster take another directory",
            ));
        }
    }
    let made = Authority::create(cluster, now(), span(days));
    let made = made.map_err(|error| Failure::new("the authority was not made").because(error))?;
    directory(out)?;
    create(&key, &made.pair().key, PRIVATE)?;
    create(&cert, &made.pair().cert, PUBLIC)?;
    print::line(&format!(
        "made {} and {}\nkeep the key off the servers: whoever has it can make himself a router of {cluster}\n\
         next: {program} cluster certificate --ca {dir} --name {cluster} --role router --node router-0 --out router-0",
        cert.display(),
        key.display(),
        program = sources::program(),
        dir = out.display(),
    ));
    Ok(())
}

fn certificate(identity: &Identity, ca: &Path, out: &Path, days: u32, replace: bool) -> Result<(), Failure> {
    let pair = Pair { cert: read(&ca.join(CA))?, key: read(&ca.join(CA_KEY))? };
    let authority = Authority::load(pair)
        .map_err(|error| Failure::new("the authority cannot be used").at(ca.display()).because(error))?;
    let (own_ca, cert, key) = (out.join(CA), out.join(CERT), out.join(KEY));
    if let Some(path) = [&cert, &key].into_iter().find(|path| path.exists()).filter(|_| !replace) {
        return Err(
            there(path).advise("take another directory, or give --replace for a new one in its place")
        );
    }
    let other = fs::read_to_string(&own_ca).is_ok_and(|text| text != authority.pair().cert);
    if other && !replace {
        return Err(there(&own_ca)
            .because("it is another authority")
            .advise("take another directory, or give --replace"));
    }
    let issued = authority.issue(identity, &[], now(), span(days));
    let issued = issued.map_err(|error| Failure::new("the certificate was not made").because(error))?;
    directory(out)?;
    // One who reads in between finds a pair that does not fit, keeps the old one and looks again.
    write(&key, &issued.key, PRIVATE)?;
    write(&cert, &issued.cert, PUBLIC)?;
    write(&own_ca, &authority.pair().cert, PUBLIC)?;
    print::line(&format!(
        "made a certificate for {identity}\n\n[cluster]\nname = {:?}\n{}\n[cluster.tls]\nca = {:?}\ncert = {:?}\nkey = {:?}",
        identity.cluster,
        if identity.name == "*" {
            "# node = \"a name of its own\"\n".to_owned()
        } else {
            format!("node = {:?}\n", identity.name)
        },
        absolute(&own_ca),
        absolute(&cert),
        absolute(&key),
    ));
    Ok(())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn there(path: &Path) -> Failure {
    Failure::new(format!("{} is there already", path.display())).because("nothing is overwritten")
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        Failure::new("the authority cannot be read")
            .at(path.display())
            .because(error)
            .advise("give the directory that `starling cluster ca --out` wrote, as --ca")
    })
}

fn directory(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &io::Error) -> Failure {
    Failure::new("the files cannot be written").at(path.display()).because(error)
}

/// A file that was not there.
fn create(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| unwritten(path, &error))
}

/// In place of one that may be there, all of it or nothing.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let new = path.with_extension("new");
    // One that was left behind by a run that was broken off.
    let _ = fs::remove_file(&new);
    create(&new, text, mode)?;
    fs::rename(&new, path).map_err(|error| unwritten(path, &error))
}

fn now() -> u64 {
    u64::try_from(now_seconds()).unwrap_or_default()
}

fn span(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use starling_node::SystemClock;
    use starling_wire::tls::{Files, Tls};

    use super::*;

    fn edge(node: &str) -> Identity {
        Identity::new("one", Role::Edge, node).unwrap()
    }

    #[test]
    fn what_is_made_can_be_used_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, out) = (dir.path().join("ca"), dir.path().join("edges"));
        authority("one", &ca, 10).unwrap();
        certificate(&edge("*"), &ca, &out, 10, false).unwrap();
        let files = Files { ca: out.join(CA), cert: out.join(CERT), key: out.join(KEY) };
        let tls = Tls::load(files.clone(), "one", Role::Edge, SystemClock::shared()).unwrap();
        assert!(tls.identity().allows("anything"));
        for path in [ca.join(CA_KEY), files.key.clone()] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
        }
        // A new one in its place is taken by whoever runs.
        let before = fs::read_to_string(&files.cert).unwrap();
        certificate(&edge("*"), &ca, &out, 10, true).unwrap();
        assert_ne!(fs::read_to_string(&files.cert).unwrap(), before);
        tls.reload().unwrap();
    }

    #[test]
    fn nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, out) = (dir.path().join("ca"), dir.path().join("out"));
        authority("one", &ca, 10).unwrap();
        let key = fs::read_to_string(ca.join(CA_KEY)).unwrap();
        assert!(authority("one", &ca, 10).unwrap_err().to_string().contains("is there already"));
        assert_eq!(fs::read_to_string(ca.join(CA_KEY)).unwrap(), key);
        certificate(&edge("a"), &ca, &out, 10, false).unwrap();
        let again = certificate(&edge("a"), &ca, &out, 10, false).unwrap_err().to_string();
        assert!(again.contains("cert.pem") && again.contains("--replace"), "{again}");
        let nowhere = certificate(&edge("a"), &out, &dir.path().join("b"), 10, false).unwrap_err();
        assert!(nowhere.to_string().contains("ca.key"), "{nowhere}");
        assert!(authority("a/b", &dir.path().join("c"), 10).is_err());
    }
}
