//! What a process of a cluster needs: settings, certificates, routers that can be found.

use std::net::SocketAddr;

use starling_node::{Config, SystemClock, config};
use starling_wire::net::{Addresses, Seeds};
use starling_wire::tls::Role;

use super::{Finding, machine, wrong};
use crate::{cli::CheckRole, failure::Failure};

const PART: &str = "cluster";

/// Looks at all of it. Nothing for a server alone.
pub(super) fn look(config: &Config, role: CheckRole) -> Result<Vec<Finding>, Failure> {
    let (role, tls) = match role {
        CheckRole::Serve => return Ok(Vec::new()),
        CheckRole::Edge => (config::Role::Edge, Role::Edge),
        CheckRole::Router => (config::Role::Router, Role::Router),
    };
    let mut findings = match config.check_role(role) {
        Ok(()) => Vec::new(),
        Err(errors) => wrong(&errors),
    };
    // What is not named has been told.
    if starling_cluster::certificate_files(config).is_ok() {
        findings.push(certificate(config, tls));
        findings.extend(config.cluster.tls.key.as_deref().and_then(super::certificates::privacy));
    }
    if !config.cluster.routers.is_empty() {
        findings.extend(routers(config, tls)?);
    }
    Ok(findings)
}

fn certificate(config: &Config, role: Role) -> Finding {
    match starling_cluster::certificate(config, role, &SystemClock::shared()) {
        Err(obstacle) => {
            let what = [Some(obstacle.what), obstacle.place, obstacle.why];
            let text: Vec<String> = what.into_iter().flatten().collect();
            Finding::bad(PART, text.join(": "), obstacle.advice.unwrap_or_default())
        }
        Ok((tls, name)) => {
            let end = i64::try_from(tls.not_after()).unwrap_or(i64::MAX);
            let days = (end - machine::now_seconds()) / 86_400;
            let text =
                format!("{name}: the certificate is for {} and lasts {days} more days", tls.identity());
            if days < SOON {
                let advice = "make a new one with `starling cluster certificate --replace`; running processes take it by themselves";
                Finding::doubtful(PART, text, advice)
            } else {
                Finding::good(PART, text)
            }
        }
    }
}

fn routers(config: &Config, role: Role) -> Result<Vec<Finding>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("no threads to run on").because(error))?;
    let named = config.cluster.routers.join(", ");
    let find = |names: Vec<String>| runtime.block_on(Seeds(names).find());
    let found = find(config.cluster.routers.clone());
    let own = own_address(config);
    let own_found = (role == Role::Router).then(|| find(vec![own.clone()]));
    // A name server that does not answer is not waited for.
    runtime.shutdown_background();
    let addresses = found.as_ref().map(Vec::as_slice).unwrap_or_default();
    let mut findings = vec![match &found {
        Ok(addresses) if !addresses.is_empty() => {
            Finding::good(PART, format!("cluster.routers {named}: {} addresses", addresses.len()))
        }
        Ok(_) => Finding::bad(PART, format!("cluster.routers {named}: no address"), ADVICE),
        Err(error) => Finding::bad(PART, format!("cluster.routers {named}: {error}"), ADVICE),
    }];
    findings.extend(match own_found {
        Some(Ok(own_found)) if own_found.iter().any(|own| addresses.contains(own)) => None,
        Some(Ok(own_found)) if !own_found.is_empty() => Some(Finding::doubtful(
            PART,
            format!("this router is reached at {own}, which is not among cluster.routers"),
            "right for one that joins later; those that found the cluster have to find one another by that list",
        )),
        Some(_) => Some(Finding::bad(
            PART,
            format!("this router tells others to reach it at {own}, which cannot be looked up"),
            "set cluster.advertise to a name and port that the others reach",
        )),
        None => None,
    });
    Ok(findings)
}

/// Where others are told to reach a router.
fn own_address(config: &Config) -> String {
    let port = config.listen.cluster.0.first().map_or(0, SocketAddr::port);
    config.cluster.advertise.clone().unwrap_or_else(|| format!("{}:{port}", config.cluster.node_name()))
}

const ADVICE: &str = "name hosts that can be looked up here, or IP addresses";
/// Days before the end at which one should worry.
const SOON: i64 = 14;

#[cfg(test)]
mod tests {
    use starling_wire::tls::{Authority, Identity};
    use std::time::Duration;

    use super::*;
    use crate::check::Verdict;

    fn verdicts(config: &Config, role: CheckRole) -> Vec<Verdict> {
        look(config, role).unwrap().iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_cluster_is_looked_at_by_role() {
        let dir = tempfile::tempdir().unwrap();
        let now = u64::try_from(machine::now_seconds()).unwrap();
        let ca = Authority::create("starling", now, Duration::from_secs(86_400)).unwrap();
        let identity = Identity::new("starling", Role::Edge, "a").unwrap();
        let pair = ca.issue(&identity, &[], now, Duration::from_secs(86_400)).unwrap();
        let mut config = Config::default();
        for (name, text) in [("ca", &ca.pair().cert), ("cert", &pair.cert), ("key", &pair.key)] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let file = |name: &str| Some(dir.path().join(name));
        (config.cluster.tls.ca, config.cluster.tls.cert, config.cluster.tls.key) =
            (file("ca"), file("cert"), file("key"));
        config.cluster.node = Some("a".to_owned());
        config.cluster.routers = vec!["127.0.0.1:5270".to_owned()];
        // It ends in a day, everybody can read the key.
        assert_eq!(verdicts(&config, CheckRole::Edge), [Verdict::Doubtful, Verdict::Doubtful, Verdict::Good]);
        assert_eq!(verdicts(&config, CheckRole::Serve), []);
        // An edge's certificate at a router, and a store of its own.
        assert!(verdicts(&config, CheckRole::Router).starts_with(&[Verdict::Bad, Verdict::Bad]));
        config.cluster.node = Some("b".to_owned());
        assert_eq!(verdicts(&config, CheckRole::Edge)[0], Verdict::Bad);
        config.cluster.routers = vec!["no.such.host.invalid:1".to_owned()];
        assert_eq!(verdicts(&config, CheckRole::Edge)[2], Verdict::Bad);
        assert_eq!(verdicts(&Config::default(), CheckRole::Edge).len(), 4);
    }
}
