//! The commands on a CQL server: migrations, and that one server at a time has a keyspace. Skipped, with the reason, where
//! there is none; `make test` starts one.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod place;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use starling_tests::{
    cassandra,
    report::{Outcome, Report, case, wanted},
};

use place::Place;

/// For one case; some wait for the end of a lease, twice.
const LIMIT: Duration = Duration::from_secs(120);
/// The lease and what clocks may differ by.
const LEASE: Duration = Duration::from_secs(11);

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), (|place| Box::pin($name(place))) as Case)),*]
    };
}

type Case = fn(Place) -> futures::future::BoxFuture<'static, Result<()>>;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let cases = cases![
        a_server_wants_its_tables_and_migrate_makes_them,
        several_may_migrate_at_once,
        whoever_holds_the_lock_is_named_and_waited_for,
        tables_that_are_too_new_are_refused,
        a_store_belongs_to_one_datacentre,
        a_second_server_is_refused_and_a_stop_lets_go,
        a_killed_server_is_itself_again_at_once_and_others_wait,
        a_server_that_slept_through_its_lease_ends,
        check_looks_at_the_servers,
        a_router_leaves_when_it_is_asked_to,
    ];
    let mut report = Report::default();
    let shared = cassandra::shared();
    for (name, run) in cases {
        if !wanted(name) {
            continue;
        }
        let (outcome, took) = match &shared {
            Ok(address) => case(LIMIT, run(Place::new(*address))).await,
            Err(why) => (Outcome::Skipped(why.clone()), Duration::ZERO),
        };
        report.note(name, outcome, took);
    }
    Ok(report.finish())
}

async fn a_server_wants_its_tables_and_migrate_makes_them(place: Place) -> Result<()> {
    let none = place.run(&["migrate", "status"]).ends(1)?;
    none.says(&["there is no keyspace", "starling migrate apply", "not yet"])?;
    place.run(&["serve"]).ends(1)?.says(&["starling migrate apply", &place.keyspace])?;
    let plan = place.run(&["migrate", "plan"]).ends(0)?;
    plan.says(&["CREATE KEYSPACE IF NOT EXISTS", "CREATE TABLE IF NOT EXISTS", "NetworkTopologyStrategy"])?;
    place.run(&["migrate", "status"]).ends(1)?.says(&["there is no keyspace"])?;
    place
        .cql(&format!(
            "CREATE KEYSPACE {} WITH replication = {{'class': 'NetworkTopologyStrategy', 'datacenter1': 1}}",
            place.keyspace
        ))
        .await?;
    place.run(&["serve"]).ends(1)?.says(&["too old", "starling migrate apply"])?;
    place.run(&["migrate", "apply"]).ends(0)?.says(&["applied version 1"])?;
    place.run(&["migrate", "apply"]).ends(0)?.says(&["nothing to do"])?;
    place.run(&["migrate", "plan"]).ends(0)?.says(&["nothing to do"])?;
    let status = place.run(&["migrate", "status", "-o", "json"]).ends(0)?.json()?;
    ensure!(status["fits"] == true && status["replication"]["datacenter1"] == 1, "{status:#}");
    ensure!(status["applied"][0]["version"] == 1 && status["pending"].as_array().unwrap().is_empty());
    let other = place.run(&["migrate", "plan", "--set", "store.replication=datacenter1=3"]).ends(0)?;
    other.says(&["ALTER KEYSPACE", "left as it is"])?;
    place.serve("one").started().await?.stop().await
}

async fn several_may_migrate_at_once(place: Place) -> Result<()> {
    let running: Vec<_> = (0..3).map(|_| place.begin(&["migrate", "apply"])).collect();
    let mut said = String::new();
    for one in running {
        said.push_str(&one.finished().ends(0)?.said);
    }
    ensure!(said.matches("applied version 1").count() == 1, "{said}");
    ensure!(said.matches("nothing to do").count() == 2, "{said}");
    ensure!(!said.contains("error"), "{said}");
    Ok(())
}

async fn whoever_holds_the_lock_is_named_and_waited_for(place: Place) -> Result<()> {
    place.run(&["migrate", "apply"]).ends(0)?;
    place
        .cql(&format!(
            "INSERT INTO {}.schema_lock (name, holder, ticket) VALUES ('apply', 'db-host (process 7)', 0x01) IF NOT EXISTS USING TTL 4",
            place.keyspace
        ))
        .await?;
    place.run(&["migrate", "status"]).ends(0)?.says(&["applying", "db-host (process 7)"])?;
    place.run(&["migrate", "apply"]).ends(0)?.says(&["waiting: db-host (process 7)", "nothing to do"])
}

async fn tables_that_are_too_new_are_refused(place: Place) -> Result<()> {
    place.run(&["migrate", "apply"]).ends(0)?;
    let newer = |version: u32, kind: &str| {
        format!(
            "INSERT INTO {}.schema_versions (family, version, name, kind, applied_at, checksum, applied_by) \
             VALUES ('starling', {version}, 'of a later day', '{kind}', 0, '', 'nobody')",
            place.keyspace
        )
    };
    // What only adds does not disturb an older server.
    place.cql(&newer(98, "expand")).await?;
    place.serve("one").started().await?.stop().await?;
    place.run(&["migrate", "status"]).ends(0)?.says(&["98", "of a later day"])?;
    place.cql(&newer(99, "contract")).await?;
    for command in [&["serve"][..], &["migrate", "status"], &["migrate", "apply"]] {
        place.run(command).ends(1)?.says(&["newer", "99 (of a later day)"])?;
    }
    Ok(())
}

async fn a_store_belongs_to_one_datacentre(place: Place) -> Result<()> {
    place.run(&["migrate", "apply"]).ends(0)?;
    let status = place.run(&["migrate", "status", "-o", "json"]).ends(0)?.json()?;
    ensure!(status["datacenter"] == "datacenter1", "{status:#}");
    place.belongs_to("elsewhere").await?;
    let refused = place.run(&["serve"]).ends(1)?;
    refused.says(&["belongs to datacenter elsewhere", "store.local_datacenter", "starling migrate move"])?;
    place.run(&["check"]).ends(2)?.says(&["belongs to datacenter elsewhere"])?;
    place.run(&["migrate", "move"]).ends(2)?.says(&["nodetool repair", "--yes"])?;
    place.run(&["serve"]).ends(1)?.says(&["belongs to datacenter elsewhere"])?;
    place.run(&["migrate", "move", "--yes"]).ends(0)?.says(&["belonged to elsewhere"])?;
    place.serve("one").started().await?.stop().await?;
    let missing = place.run(&["migrate", "status", "--set", "store.local_datacenter=nowhere"]).ends(1)?;
    missing.says(&["nowhere", "datacenter1"])
}

async fn a_second_server_is_refused_and_a_stop_lets_go(place: Place) -> Result<()> {
    place.run(&["migrate", "apply"]).ends(0)?;
    let first = place.serve("one").started().await?;
    let pid = format!("(process {})", first.pid());
    let again = place.serve("one").ended().await?;
    again.ends(1)?.says(&["in use by process", "data_dir"])?;
    place.serve("two").ended().await?.ends(1)?.says(&["another server uses this store", &pid, "is alive"])?;
    first.stop().await?;
    let began = std::time::Instant::now();
    let second = place.serve("two").started().await?;
    ensure!(began.elapsed() < LEASE / 2, "the lease was given back, and yet it took {:?}", began.elapsed());
    second.stop().await
}

async fn a_killed_server_is_itself_again_at_once_and_others_wait(place: Place) -> Result<()> {
    place.run(&["migrate", "apply"]).ends(0)?;
    place.serve("one").started().await?.kill();
    let began = std::time::Instant::now();
    let again = place.serve("one").started().await?;
    ensure!(began.elapsed() < LEASE / 2, "its own lease, and yet it took {:?}", began.elapsed());
    again.kill();
    let began = std::time::Instant::now();
    let mut other = place.serve("two");
    // While it waits it lives, and is not ready.
    other.listens_for_probes().await?;
    ensure!(other.probe("/livez").await? == 200);
    ensure!(other.probe("/readyz").await? == 503);
    ensure!(other.probe("/startupz").await? == 503);
    let other = other.started().await?;
    ensure!(began.elapsed() + Duration::from_secs(3) > LEASE, "it waited for {:?} only", began.elapsed());
    ensure!(other.probe("/readyz").await? == 200);
    other.log_has("waiting_for_lease")?;
    other.stop().await
}

async fn a_server_that_slept_through_its_lease_ends(place: Place) -> Result<()> {
    place.run(&["migrate", "apply"]).ends(0)?;
    let first = place.serve("one").started().await?;
    first.signal(Signal::SIGSTOP);
    let second = place.serve("two").started().await?;
    first.signal(Signal::SIGCONT);
    first.ended().await?.ends(1)?.says(&["another server has taken over the store", &place.keyspace])?;
    ensure!(second.probe("/readyz").await? == 200);
    second.stop().await
}

async fn check_looks_at_the_servers(place: Place) -> Result<()> {
    let before = place.run(&["check"]).ends(2)?;
    before.says(&["FAIL  store", "there is no keyspace", "starling migrate apply"])?;
    place.run(&["migrate", "apply"]).ends(0)?;
    let after = place.run(&["check", "-o", "json"]).ends(1)?.json()?;
    let of_the_store = after.as_array().unwrap().iter().filter(|finding| finding["part"] == "store");
    let findings: Vec<_> = of_the_store.collect();
    let about = |word: &str| findings.iter().any(|finding| finding["text"].as_str().unwrap().contains(word));
    for word in [
        "Cassandra 5.0",
        "clocks",
        "commit log",
        "1 copy",
        "LOCAL_SERIAL",
        "schema",
        "quorum read",
        "conditional write",
    ] {
        ensure!(about(word), "nothing is said about {word}: {after:#}");
    }
    for finding in findings {
        ensure!(finding["verdict"] == "good" || finding["remedy"].is_string(), "{finding:#}");
    }
    Ok(())
}

/// A cluster of one router, which is said to be all of it.
async fn a_router_leaves_when_it_is_asked_to(place: Place) -> Result<()> {
    place.run(&["migrate", "apply"]).ends(0)?;
    let (authority, own) = (place.path("ca"), place.path("own"));
    place.run(&["cluster", "ca", "--out", &authority]).ends(0)?;
    let of = ["--ca", &authority, "--role", "router", "--node", "one", "--out", &own];
    place.run(&[&["cluster", "certificate"], &of[..]].concat()).ends(0)?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let settings = [
        "cluster.node=one".to_owned(),
        "cluster.initial_routers=1".to_owned(),
        format!("cluster.routers=[\"127.0.0.1:{port}\"]"),
        format!("cluster.advertise=127.0.0.1:{port}"),
        format!("listen.cluster=127.0.0.1:{port}"),
        format!("cluster.tls.ca={own}/ca.pem"),
        format!("cluster.tls.cert={own}/cert.pem"),
        format!("cluster.tls.key={own}/key.pem"),
    ];
    let mut router = place.role("router", "one", &settings);
    router.listens_for_probes().await?;
    while router.probe("/readyz").await? != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let data = format!("data_dir={}", place.path("one"));
    place.run(&["ctl", "raft", "status", "--set", &data]).ends(0)?.says(&["one"])?;
    place.run(&["ctl", "drain", "--watch", "--set", &data]).ends(0)?;
    router.ended().await?.ends(0).map(drop)
}
