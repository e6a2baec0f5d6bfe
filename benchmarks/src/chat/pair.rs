//! One sender and one receiver.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{ChatArguments, Managed, Round};
use crate::framer;
use crate::session::{Session, Wish};
use crate::target::Target;

/// What a sender has to send.
pub(super) struct Pair {
    to: String,
    managed: bool,
    /// Of each message.
    end: &'static [u8],
    outbox: RefCell<Vec<u8>>,
    sent: Cell<u32>,
    wake: Notify,
    over: Cell<bool>,
    ended: Notify,
}

/// Both sessions of a pair, before they talk.
pub(super) struct Sessions {
    sender: Session,
    receiver: Session,
    pair: Pair,
}

/// Logs both in, each by a door of its own. When it returns, the receiver is online.
pub(super) async fn open(
    [outward, inward]: [&Target; 2],
    number: usize,
    arguments: &ChatArguments,
) -> Result<Sessions> {
    let sender_managed = arguments.managed != Managed::None;
    let receiver_managed = arguments.managed == Managed::Both;
    let wish = |managed| Wish { managed, presence: true };
    let (sender, receiver) = (outward.user(2 * number), inward.user(2 * number + 1));
    let sender = Session::open(outward, &sender, "chat", wish(sender_managed)).await?;
    let receiver = Session::open(inward, &receiver, "chat", wish(receiver_managed)).await?;
    let to = match arguments.full {
        true => receiver.jid.clone(),
        false => receiver.jid.split('/').next().unwrap_or_default().to_owned(),
    };
    let pair = Pair {
        to,
        managed: sender_managed,
        end: if arguments.unstored { UNSTORED } else { STORED },
        outbox: RefCell::default(),
        sent: Cell::new(0),
        wake: Notify::new(),
        over: Cell::new(false),
        ended: Notify::new(),
    };
    Ok(Sessions { sender, receiver, pair })
}

impl Sessions {
    /// Lets both run; a task gives how many messages the server has not acknowledged.
    pub(super) fn start(self, round: &Rc<Round>, tasks: &mut JoinSet<Result<u64>>) -> Rc<Pair> {
        let pair = Rc::new(self.pair);
        tasks.spawn_local(send(self.sender, pair.clone(), round.clone()));
        tasks.spawn_local(receive(self.receiver, pair.clone(), round.clone()));
        pair
    }
}

impl Pair {
    /// Sends a message stamped with when it was due.
    pub(super) fn send(&self, round: &Round, due: Duration) {
        let mut outbox = self.outbox.borrow_mut();
        append(&mut outbox, &[b"<message to='", self.to.as_bytes(), b"' type='chat' xml:lang='en' id='"]);
        append(&mut outbox, &[round.tag.as_bytes(), b"-", &stamp(due), b"'><body>", BODY, self.end]);
        self.sent.set(self.sent.get() + 1);
        if self.managed && self.sent.get().is_multiple_of(ASK_EVERY) {
            append(&mut outbox, &[ASK]);
        }
        round.sent.set(round.sent.get() + 1);
        self.wake.notify_one();
    }

    /// Lets both sessions leave.
    pub(super) fn end(&self) {
        self.over.set(true);
        self.wake.notify_one();
        self.ended.notify_one();
    }
}

async fn send(mut session: Session, pair: Rc<Pair>, round: Rc<Round>) -> Result<u64> {
    let mut out = Vec::new();
    while !pair.over.get() {
        tokio::select! {
            read = session.read() => read?,
            () = pair.wake.notified() => {}
        }
        while let Some(stanza) = session.next(&mut out)? {
            if is_error(stanza) {
                round.errors.set(round.errors.get() + 1);
            }
        }
        out.append(&mut pair.outbox.borrow_mut());
        if !out.is_empty() {
            session.write(&out).await?;
            out.clear();
        }
    }
    let unacknowledged = match pair.managed {
        true => last_acknowledgement(&mut session, pair.sent.get()).await?,
        false => 0,
    };
    session.close().await;
    Ok(unacknowledged)
}

/// Asks until the server has taken everything, but not for ever.
async fn last_acknowledgement(session: &mut Session, sent: u32) -> Result<u64> {
    let wanted = sent + Session::SENT_AT_FIRST;
    let deadline = Instant::now() + Duration::from_secs(5);
    while session.acknowledged() < wanted && Instant::now() < deadline {
        session.write(ASK).await?;
        session.read().await?;
        let mut out = Vec::new();
        while session.next(&mut out)?.is_some() {}
    }
    Ok(u64::from(wanted.saturating_sub(session.acknowledged())))
}

async fn receive(mut session: Session, pair: Rc<Pair>, round: Rc<Round>) -> Result<u64> {
    let mut out = Vec::new();
    let mut last = Duration::ZERO;
    while !pair.over.get() {
        tokio::select! {
            read = session.read() => read?,
            () = until_over(&pair) => {}
        }
        let now = round.now();
        while let Some(stanza) = session.next(&mut out)? {
            let Some(due) = due(stanza, &round.tag) else { continue };
            if due <= last {
                round.misplaced.set(round.misplaced.get() + 1);
                continue;
            }
            last = due;
            round.received.set(round.received.get() + 1);
            let (from, to) = round.measured.get();
            if due >= from && due < to {
                round.latency.borrow_mut().record(now.saturating_sub(due));
            }
            if round.refill.get() {
                pair.send(&round, round.now());
            }
        }
        if !out.is_empty() {
            session.write(&out).await?;
            out.clear();
        }
    }
    session.close().await;
    Ok(0)
}

async fn until_over(pair: &Pair) {
    while !pair.over.get() {
        pair.ended.notified().await;
    }
}

fn is_error(stanza: &[u8]) -> bool {
    framer::attribute(stanza, "type") == Some(b"error")
}

/// When a message was due, if it is one of this run.
fn due(stanza: &[u8], tag: &str) -> Option<Duration> {
    let id = framer::attribute(stanza, "id")?;
    let nanos = id.strip_prefix(tag.as_bytes())?.strip_prefix(b"-")?;
    let nanos = std::str::from_utf8(nanos).ok()?.parse().ok()?;
    (framer::name(stanza) == b"message" && !is_error(stanza)).then(|| Duration::from_nanos(nanos))
}

/// Nanoseconds as 19 digits, so that all messages are equally long.
fn stamp(due: Duration) -> [u8; 19] {
    let mut rest = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
    let mut digits = [b'0'; 19];
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

fn append(outbox: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| outbox.extend_from_slice(part));
}

/// Sixty bytes, as long as a line in a chat may be.
const BODY: &[u8; 60] = b"Shall we meet at the station at six, or is that too early???";
const STORED: &[u8] = b"</body></message>";
const UNSTORED: &[u8] = b"</body><no-store xmlns='urn:xmpp:hints'/></message>";
const ASK: &[u8] = b"<r xmlns='urn:xmpp:sm:3'/>";
const ASK_EVERY: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back() {
        let due_at = Duration::from_nanos(1_234_567_890_123);
        let stamp = String::from_utf8(stamp(due_at).to_vec()).unwrap();
        assert_eq!(stamp, "0000001234567890123");
        let id = format!("0123456789abcdef-{stamp}");
        let message =
            |kind: &str| format!("<message from='a@b' type=\"{kind}\" id=\"{id}\"><body/></message>");
        assert_eq!(due(message("chat").as_bytes(), "0123456789abcdef"), Some(due_at));
        assert_eq!(due(message("chat").as_bytes(), "0123456789abcdee"), None);
        assert_eq!(due(message("error").as_bytes(), "0123456789abcdef"), None);
    }
}
