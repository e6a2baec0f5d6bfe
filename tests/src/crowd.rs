//! Clients at work on a server to which things happen: they write to each other, lose their connections, resume and
//! send again, and note all they see, for the [judge](crate::history).

mod actor;
mod audit;
mod places;
mod question;
mod run;
mod stanza;
mod summary;
mod verdict;

use std::sync::Arc;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

pub use actor::Actor;
pub use places::{Told, astray};
pub use run::{Awaited, Life, Moment, Phase, Run, Wait};
pub use summary::Summary;
pub use verdict::Verdict;

use crate::history::{Archive, History, Log, Violation};
use crate::server::PASSWORD;
use crate::{Login, Server, Target, Transport};

/// The accounts that the clients are of.
pub const ACCOUNTS: [&str; 4] = ["ann", "bob", "cat", "dan"];
/// Their clients. The second devices write and get copies.
pub const DEVICES: [&str; 6] = ["ann/phone", "ann/desk", "bob/phone", "bob/desk", "cat/phone", "dan/phone"];

/// What clients do beside writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// Connections break, sessions are resumed or forgotten, messages given up.
    Rough,
    /// Connections last as long as the server does.
    Smooth,
}

/// Clients at work.
pub struct Crowd {
    /// What they share.
    pub run: Arc<Run>,
    actors: JoinSet<Log>,
}

impl Crowd {
    /// Makes the accounts and lets clients work, as soon as [`Run::allow`] allows them to write.
    pub async fn gather(server: &Server, target: Target, seed: u64, manners: Manners) -> Result<Self> {
        for user in ACCOUNTS {
            server.add_user(user).await?;
        }
        let run = Run::new(server, target, format!("{seed:x}"))?;
        Self::join(run, &DEVICES, seed, manners)
    }

    /// Lets clients of accounts that there are work. A device is `account/resource`; each account has one `phone`.
    pub fn join(run: Arc<Run>, devices: &[&str], seed: u64, manners: Manners) -> Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed);
        let domain = &run.target.domain;
        // Half of the messages go to full JIDs: a session that is gone must not make a difference.
        let accounts = devices.iter().filter_map(|device| device.strip_suffix("/phone"));
        let addresses = accounts.flat_map(|a| [format!("{a}@{domain}"), format!("{a}@{domain}/phone")]);
        let addresses = Arc::new(addresses.collect::<Vec<_>>());

        let mut actors = JoinSet::new();
        for (number, device) in devices.iter().enumerate() {
            let (user, resource) = device.split_once('/').context("a device without a resource")?;
            let tls_first = manners == Manners::Smooth || rng.random_bool(0.5);
            let transport = if tls_first { Transport::DirectTls } else { Transport::StartTls };
            let login = Login::new(user, PASSWORD).resource(resource).managed().transport(transport);
            let jid = format!("{user}@{domain}/{resource}");
            let mut actor = Actor::new(run.clone(), login, &jid, addresses.clone(), rng.random());
            // Of a cluster's clients some stay where they are as long as they may, and keep the session they have.
            if manners == Manners::Smooth || run.is_on_cluster() && number % 4 == 3 {
                actor = actor.without_mishaps();
            }
            actors.spawn(Box::pin(actor.live()));
        }
        Ok(Self { run, actors })
    }

    /// Lets all clients end, and gives their logs.
    pub async fn disband(mut self) -> Result<Vec<Log>> {
        self.run.enter(Phase::Over);
        let mut logs = Vec::new();
        while let Some(log) = self.actors.join_next().await {
            logs.push(log?);
        }
        logs.sort_by(|a, b| a.client.cmp(&b.client));
        Ok(logs)
    }
}

/// Reads the archives of all accounts.
pub async fn archives(server: &Server) -> Result<Vec<Archive>> {
    archives_of(server.target(), &ACCOUNTS).await
}

/// Reads the archives of these accounts.
pub async fn archives_of(target: &Target, accounts: &[&str]) -> Result<Vec<Archive>> {
    let mut archives = Vec::new();
    for user in accounts {
        let login = Login::new(user, PASSWORD).resource("auditor");
        let archive = audit::read(target, &login).await;
        archives.push(archive.with_context(|| format!("reading the archive of {user}"))?);
    }
    Ok(archives)
}

/// Writes all that is known of a run into a folder that stays, and gives its name.
pub fn keep(prefix: &str, history: &History, violations: &[Violation], server: &Server) -> Result<String> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir()?.keep();
    history.write(&folder)?;
    std::fs::write(folder.join("server-output.log"), server.log())?;
    let list: String = violations.iter().map(|v| format!("{v}\n")).collect();
    std::fs::write(folder.join("violations"), list)?;
    Ok(folder.display().to_string())
}
