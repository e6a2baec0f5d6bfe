//! Many clients that write as fast as the server lets them, and do not care what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::future::try_join_all;
use starling_tests::client::Received;
use starling_tests::{Client, Server};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

/// How many accounts are made at the same time.
const AT_ONCE: usize = 8;

/// The swarm, while it is kept.
pub(crate) struct Swarm {
    tasks: JoinSet<Result<()>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    refused: AtomicU64,
}

impl Swarm {
    /// Makes that many accounts and lets a client of each write to the next one, who is not there.
    pub(crate) async fn start(server: &Server, size: usize) -> Result<Self> {
        let name = |number: usize| format!("bee{}", number % size);
        let (mut tasks, counts) = (JoinSet::new(), Arc::<Counts>::default());
        let names: Vec<String> = (0..size).map(name).collect();
        for some in names.chunks(AT_ONCE) {
            try_join_all(some.iter().map(|name| server.add_user(name))).await?;
        }
        for number in 0..size {
            let client = server.login(&name(number)).connect(server.target()).await?;
            tasks.spawn(work(client, name(number + 1), counts.clone()));
        }
        Ok(Self { tasks, counts })
    }

    /// How many messages were written and how many of them were refused; an error if a client could not go on.
    pub(crate) fn counts(&mut self) -> Result<(u64, u64)> {
        while let Some(ended) = self.tasks.try_join_next() {
            ended?.context("a client of the swarm could not go on")?;
        }
        Ok((self.counts.sent.load(Relaxed), self.counts.refused.load(Relaxed)))
    }
}

async fn work(mut client: Client, to: String, counts: Arc<Counts>) -> Result<()> {
    // When it is ended, what it has written and the server has not read is thrown away: it would load the store long after.
    client.stream().tcp()?.set_zero_linger()?;
    let mut writing = client.stream().split()?;
    let written = async {
        let body = "x".repeat(1000);
        for number in 0_u64.. {
            let message = format!(
                "<message to='{to}@localhost' type='chat' id='{number}'><body>{body}</body></message>"
            );
            // When the server does not read, this is where the client waits.
            writing.write_all(message.as_bytes()).await?;
            counts.sent.fetch_add(1, Relaxed);
        }
        anyhow::Ok(())
    };
    let answers = async {
        loop {
            let Some(received) = client.receive(Duration::from_secs(1)).await? else { continue };
            let Received::Element(node) = received else { bail!("{received:?}") };
            match node.condition().as_deref() {
                Some("wait resource-constraint") if node.name == "message" => {
                    counts.refused.fetch_add(1, Relaxed);
                }
                _ => bail!("{node}"),
            }
        }
    };
    tokio::select! {
        done = written => done,
        done = answers => done,
    }
}
