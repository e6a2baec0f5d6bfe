//! Where sessions are: what all routers say at the end, against which edge haproxy has led each client to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use starling_tests::crowd::{Run, Told, astray as judge};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::drill::{ACCOUNTS, IDLER, OWNER};
use crate::site::{ROUTERS, SOCKET, Site};
use crate::states::SHARDS;

/// All routers have heard of what has become of sessions within this, on a machine that has other work to do.
const CONVERGED: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(500);

/// Waits until routers say that these clients' sessions are where they are, and that there are no others; adds what is
/// not so to the end.
pub(crate) async fn check(site: &Site, run: &Run, when: &str, astray: &mut Vec<String>) -> Result<()> {
    let end = Instant::now() + CONVERGED;
    loop {
        let live = live(site, run).await.context("who is connected to which edge")?;
        let told = (0..ROUTERS).map(|router| told(site, router));
        let told =
            futures::future::try_join_all(told).await.context("where routers say that sessions are")?;
        let wrong = judge(&live, &told, SHARDS);
        if wrong.is_empty() || Instant::now() > end {
            println!("  {} sessions {when}, and {} things wrong about them", live.len(), wrong.len());
            astray.extend(wrong.into_iter().map(|wrong| format!("{when}: {wrong}")));
            return Ok(());
        }
        sleep(AGAIN).await;
    }
}

/// The edge that each client is connected to.
async fn live(site: &Site, run: &Run) -> Result<BTreeMap<String, String>> {
    let (led, clients) = (led(site).await?, run.connections());
    let edge = |end: &SocketAddr| led.get(end).cloned().unwrap_or_else(|| "no edge".to_owned());
    Ok(clients.into_iter().map(|(client, end)| (client, edge(&end))).collect())
}

/// To which edge haproxy leads connections, by their other ends.
async fn led(site: &Site) -> Result<BTreeMap<SocketAddr, String>> {
    let ask = async {
        let mut socket = UnixStream::connect(site.file(SOCKET)).await?;
        socket.write_all(b"show sess\n").await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(CONVERGED, ask).await.context("haproxy does not answer")??;
    let connection = |line: &str| {
        let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
        Some((field("src=")?.parse().ok()?, field("srv=")?.to_owned()))
    };
    Ok(answer.lines().filter_map(connection).collect())
}

async fn told(site: &Site, router: usize) -> Result<Told> {
    let name = format!("router-{router}");
    let mut told = Told::new(&name);
    for user in ACCOUNTS.into_iter().chain([OWNER, IDLER]) {
        let account = format!("{user}@{}", site.target.domain);
        told.find(&site.run(&name, &["ctl", "session", "find", &account], "").await?)?;
    }
    told.status(&site.run(&name, &["ctl", "raft", "status"], "").await?)?;
    Ok(told)
}
