//! Messages to accounts that are away, and their delivery when those come.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use memchr::memmem;
use tokio::time::timeout;

use crate::framer;
use crate::session::{Session, Wish};
use crate::target::Target;
use crate::usage::{Spent, Stopwatch};

/// How many messages to how many accounts.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct OfflineArguments {
    /// Accounts that write
    #[arg(long, default_value_t = 10)]
    pub(crate) senders: usize,
    /// Accounts that are away
    #[arg(long, default_value_t = 100)]
    pub(crate) receivers: usize,
    /// Messages for each of them
    #[arg(long, default_value_t = 50)]
    pub(crate) messages: usize,
    /// Messages of one sender that the server has not acknowledged yet
    #[arg(long, default_value_t = 50)]
    pub(crate) window: u32,
    /// Receivers that come at a time
    #[arg(long, default_value_t = 8)]
    pub(crate) concurrency: usize,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct OfflineReport {
    pub(crate) messages: usize,
    /// Until the server had acknowledged all.
    pub(crate) storing: Duration,
    pub(crate) stored: Spent,
    /// Until all had arrived, logins included.
    pub(crate) delivering: Duration,
    pub(crate) delivered: Spent,
}

impl OfflineReport {
    pub(crate) fn stored_per_second(&self) -> f64 {
        self.messages as f64 / self.storing.as_secs_f64()
    }

    pub(crate) fn delivered_per_second(&self) -> f64 {
        self.messages as f64 / self.delivering.as_secs_f64()
    }
}

/// Stores, then delivers. Senders are the first accounts, receivers those after them.
pub(crate) async fn run(target: Rc<Target>, arguments: &OfflineArguments) -> Result<OfflineReport> {
    let &OfflineArguments { senders, receivers, messages, window, concurrency } = arguments;
    ensure!(senders > 0 && window > 0, "somebody has to write something");
    let tag = format!("away{:016x}", std::time::UNIX_EPOCH.elapsed()?.as_nanos() as u64);
    let wish = Wish { managed: true, presence: true };
    // Keys are derived before anything is measured.
    for number in senders..senders + receivers {
        drain(&target, number, "", 0).await?;
    }
    let sessions = try_join_all(
        (0..senders).map(async |number| Session::open(&target, &target.user(number), "writer", wish).await),
    )
    .await?;

    let watch = Stopwatch::start(&target.watched)?;
    let start = Instant::now();
    let (target_, tag_) = (&target, &tag);
    try_join_all(sessions.into_iter().enumerate().map(|(number, session)| async move {
        let to = (senders..senders + receivers).skip(number).step_by(senders);
        let all = (0..messages).flat_map(|_| to.clone()).map(|to| target_.user(to));
        store(session, all, &target_.domain, tag_, window, BODY).await
    }))
    .await?;
    let (storing, stored) = (start.elapsed(), watch.spent()?);

    let watch = Stopwatch::start(&target.watched)?;
    let start = Instant::now();
    stream::iter(senders..senders + receivers)
        .map(|number| drain(&target, number, &tag, messages))
        .buffer_unordered(concurrency)
        .try_collect::<Vec<()>>()
        .await?;
    let (delivering, delivered) = (start.elapsed(), watch.spent()?);
    Ok(OfflineReport { messages: messages * receivers, storing, stored, delivering, delivered })
}

/// Sends to each of these, and returns when the server has acknowledged all.
pub(crate) async fn store(
    mut session: Session,
    receivers: impl Iterator<Item = String>,
    domain: &str,
    tag: &str,
    window: u32,
    body: &str,
) -> Result<()> {
    let mut receivers = receivers.peekable();
    let mut sent = Session::SENT_AT_FIRST;
    let mut out = Vec::new();
    while receivers.peek().is_some() || session.acknowledged() < sent {
        let room = window.saturating_sub(sent.saturating_sub(session.acknowledged()));
        let mut ask = false;
        // Not one by one: a client asks for an acknowledgement of several.
        if room >= window / 2 {
            for to in receivers.by_ref().take(room as usize) {
                sent += 1;
                ask = true;
                let message = format!(
                    "<message to='{to}@{domain}' type='chat' xml:lang='en' id='{tag}-{sent:015}'>\
                     <body>{body}</body></message>"
                );
                out.extend_from_slice(message.as_bytes());
            }
        }
        if ask {
            out.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
        }
        session.write(&out).await?;
        out.clear();
        let Ok(read) = timeout(PATIENCE, session.read()).await else {
            bail!("the server acknowledges {} of {sent} stanzas", session.acknowledged());
        };
        read?;
        while let Some(stanza) = session.next(&mut out)? {
            if framer::attribute(stanza, "type") == Some(b"error") {
                bail!("a message was refused: {}", String::from_utf8_lossy(stanza));
            }
        }
    }
    session.close().await;
    Ok(())
}

/// Logs in and takes this many messages, acknowledging them.
async fn drain(target: &Target, number: usize, tag: &str, messages: usize) -> Result<()> {
    let wish = Wish { managed: true, presence: true };
    let mut left = messages;
    let mut session = Session::open_with(target, &target.user(number), "back", wish, |stanza| {
        left -= usize::from(is_ours(stanza, tag));
    })
    .await?;
    let mut answers = Vec::new();
    while left > 0 {
        timeout(PATIENCE, session.read())
            .await
            .map_err(|_| anyhow!("{left} of {messages} stored messages do not come"))??;
        while let Some(stanza) = session.next(&mut answers)? {
            left -= usize::from(is_ours(stanza, tag));
        }
        session.write(&answers).await?;
        answers.clear();
    }
    session.acknowledge().await?;
    session.close().await;
    Ok(())
}

/// Whether this is a message of this run; the id is searched for, since a stanza has it more than once.
pub(crate) fn is_ours(stanza: &[u8], tag: &str) -> bool {
    !tag.is_empty() && framer::name(stanza) == b"message" && memmem::find(stanza, tag.as_bytes()).is_some()
}

const BODY: &str = "Call me when you are back, I have the tickets for both of us";
const PATIENCE: Duration = Duration::from_secs(60);
