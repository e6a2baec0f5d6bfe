//! From an edge to a home.

use super::{
    HEAD, Malformed, Result, bare, full, own, position, read_optional, read_stanza, read_stanza_error,
    read_token, read_trace, stanza_bytes, stanza_error, token, trace,
};
use crate::frame::UpBatch;
use crate::proto::up_envelope::Up as Said;
use crate::record::{Counting, MOST_SPOKEN, Queued, Record};
use crate::{ConnId, EdgeId, Epoch, Leave, ToHome, Up, proto};
use compact_str::CompactString;
use prost::Message;
use starling_store::Position;
use starling_xmpp::{StanzaCondition, StanzaError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// A record is continued in another envelope from here on, in bytes.
const PART: usize = 256 << 10;
/// The largest record that is put together, in bytes and in stanzas: some times what the limits allow a session.
const MAX_RECORD: usize = 64 << 20;
const MAX_QUEUE: usize = 100_000;

/// Appends the envelopes for one message, each with its size: one, except for a session with much in its queue.
pub(super) fn envelopes(message: ToHome, out: &mut VecDeque<(proto::UpEnvelope, usize)>) {
    let ToHome { account, conn, up } = message;
    let (account, never) = (account.as_str().to_owned(), matches!(up, Up::Gone(Leave::Never)));
    if let Up::Attach(record) = up {
        return records(&account, conn.number, *record, out);
    }
    let said = match up {
        Up::Bind { token: name, resource } => {
            Said::Bind(proto::Bind { token: token(name), resource: resource.map(|resource| resource.into()) })
        }
        Up::Resume { token: name, handled } => Said::Resume(proto::Resume { token: token(name), handled }),
        Up::Stanza { sequence, stanza, fault, trace: span, again } => {
            let (stanza, cut) = stanza_bytes(&stanza);
            let fault =
                fault.or_else(|| cut.then(|| Box::new(StanzaError::new(StanzaCondition::PolicyViolation))));
            let fault = fault.map(|fault| stanza_error(&fault)).unwrap_or_default();
            Said::Stanza(proto::ClientStanza { sequence, stanza, fault, trace: span.map(trace), again })
        }
        Up::EnableSm { resume, max } => Said::Enable(proto::EnableManagement { resume, max }),
        Up::Acknowledged { handled } => Said::Acknowledged(handled),
        Up::Written { count } => Said::Written(count),
        Up::ClientState { active } => Said::Active(active),
        Up::Idle => Said::Idle(proto::Empty {}),
        Up::Gone(Leave::Closed) => Said::Gone(proto::Leave::Closed.into()),
        // Of the second, homes of before know only that it is gone.
        Up::Gone(Leave::Lost | Leave::Never) => Said::Gone(proto::Leave::Lost.into()),
        Up::Attach(_) => return,
    };
    push(proto::UpEnvelope { account, conn: conn.number, up: Some(said), never }, out);
}

fn push(envelope: proto::UpEnvelope, out: &mut VecDeque<(proto::UpEnvelope, usize)>) {
    let size = envelope.encoded_len() + HEAD;
    out.push_back((envelope, size));
}

fn records(account: &str, conn: u64, record: Record, out: &mut VecDeque<(proto::UpEnvelope, usize)>) {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let spoken = record.spoken.into_iter();
    let spoken = spoken.map(|(to, through)| proto::Spoken { to: to.as_str().to_owned(), through });
    let mut part = proto::Record {
        token: token(record.token),
        jid: record.jid.as_jid().as_str().to_owned(),
        epoch: record.epoch.0,
        detached: record.detached.map(millis),
        handled: record.handled,
        received: record.received,
        first: record.first,
        management: record
            .management
            .map(|Counting { base, acknowledged }| proto::Counting { base, acknowledged }),
        queue: Vec::new(),
        acknowledged: record.acknowledged.iter().map(|position| position.0).collect(),
        highest: position(record.highest),
        notes: record.notes,
        answered: record.answered,
        asked: record.asked,
        spoken: spoken.collect(),
        more: false,
    };
    let addresses: usize = part.spoken.iter().map(Message::encoded_len).sum();
    let mut size = part.notes.len() + 8 * part.acknowledged.len() + addresses;
    for queued in record.queue {
        let Queued { number, position: row, waits, counts, ref stanza } = *queued;
        let (stanza, _) = stanza_bytes(stanza);
        if size + stanza.len() > PART && size > 0 {
            part.more = true;
            push(part_of(account, conn, std::mem::take(&mut part)), out);
            size = 0;
        }
        size += stanza.len() + 32;
        part.queue.push(proto::Queued { number, position: position(row), waits, counts, stanza });
    }
    push(part_of(account, conn, part), out);
}

fn part_of(account: &str, conn: u64, part: proto::Record) -> proto::UpEnvelope {
    let up = Some(Said::Attach(Box::new(part)));
    proto::UpEnvelope { account: account.to_owned(), conn, up, never: false }
}

/// Reads what one edge says. Holds the beginning of a record whose end has not come yet.
#[derive(Debug)]
pub(crate) struct Reader {
    edge: EdgeId,
    open: Option<(u64, Box<Record>, usize)>,
}

impl Reader {
    /// Of the edge that is at the other end.
    pub(crate) fn new(edge: EdgeId) -> Self {
        Self { edge, open: None }
    }

    /// The batches of a frame.
    pub(crate) fn read(&mut self, frame: proto::EdgeFrame) -> Result<Vec<UpBatch>> {
        if frame.hello.is_some() {
            return Err(Malformed("second hello"));
        }
        frame.batches.into_iter().map(|batch| self.batch(batch)).collect()
    }

    fn batch(&mut self, batch: proto::UpBatch) -> Result<UpBatch> {
        let home = super::read_place(batch.shard, batch.epoch)?;
        let mut ups = Vec::with_capacity(batch.ups.len());
        for envelope in batch.ups {
            if let Some(message) = self.message(envelope)? {
                ups.push(message);
            }
        }
        if batch.attach_end && self.open.is_some() {
            return Err(Malformed("record"));
        }
        Ok(UpBatch { home, attach_begin: batch.attach_begin, ups, attach_end: batch.attach_end })
    }

    fn message(&mut self, envelope: proto::UpEnvelope) -> Result<Option<ToHome>> {
        let account = bare(&envelope.account)?;
        let conn = ConnId { edge: self.edge, number: envelope.conn };
        let up = match envelope.up.ok_or(Malformed("message of an edge"))? {
            Said::Attach(record) => match self.record(conn.number, *record)? {
                // Whoever may speak for one account is not to be heard for another.
                Some(record) if record.jid.as_jid().to_bare() != account => return Err(Malformed("record")),
                Some(record) => Up::Attach(record),
                None => return Ok(None),
            },
            _ if self.open.is_some() => return Err(Malformed("record")),
            Said::Bind(bind) => {
                Up::Bind { token: read_token(&bind.token)?, resource: bind.resource.map(CompactString::from) }
            }
            Said::Resume(resume) => Up::Resume { token: read_token(&resume.token)?, handled: resume.handled },
            Said::Stanza(said) => Up::Stanza {
                sequence: said.sequence,
                stanza: read_stanza(said.stanza)?,
                fault: read_optional(said.fault, read_stanza_error)?,
                trace: read_trace(said.trace)?,
                again: said.again,
            },
            Said::Enable(enable) => Up::EnableSm { resume: enable.resume, max: enable.max },
            Said::Acknowledged(handled) => Up::Acknowledged { handled },
            Said::Written(count) => Up::Written { count },
            Said::Active(active) => Up::ClientState { active },
            Said::Idle(_) => Up::Idle,
            Said::Gone(leave) => match proto::Leave::try_from(leave) {
                Ok(proto::Leave::Closed) => Up::Gone(Leave::Closed),
                Ok(proto::Leave::Lost) if envelope.never => Up::Gone(Leave::Never),
                Ok(proto::Leave::Lost) => Up::Gone(Leave::Lost),
                _ => return Err(Malformed("leave")),
            },
        };
        Ok(Some(ToHome { account, conn, up }))
    }

    /// Adds a part; the whole record with its last one.
    fn record(&mut self, conn: u64, part: proto::Record) -> Result<Option<Box<Record>>> {
        let more = part.more;
        let size: usize = part.queue.iter().map(|queued| queued.stanza.len()).sum();
        let (mut record, sum) = match self.open.take() {
            Some((open, mut record, sum)) if open == conn => {
                let queue = part.queue.into_iter().map(read_queued).collect::<Result<Vec<_>>>()?;
                record.queue.extend(queue);
                (record, sum + size)
            }
            Some(_) => return Err(Malformed("record")),
            None => (Box::new(read_record(part)?), size),
        };
        if sum > MAX_RECORD || record.queue.len() > MAX_QUEUE {
            return Err(Malformed("size of a record"));
        }
        if more {
            self.open = Some((conn, record, sum));
            return Ok(None);
        }
        let rises = record.queue.is_sorted_by(|one, next| one.number < next.number);
        let within = record.queue.last().is_none_or(|last| last.number <= record.received);
        if !rises || !within || !record.acknowledged.is_sorted() || !record.answered.is_sorted() {
            return Err(Malformed("record"));
        }
        record.queue.shrink_to_fit();
        Ok(Some(record))
    }
}

fn read_record(part: proto::Record) -> Result<Record> {
    Ok(Record {
        token: read_token(&part.token)?,
        jid: full(&part.jid)?,
        epoch: Epoch(part.epoch),
        detached: part.detached.map(Duration::from_millis),
        handled: part.handled,
        answered: part.answered,
        asked: part.asked,
        spoken: part
            .spoken
            .into_iter()
            .take(MOST_SPOKEN)
            .map(|proto::Spoken { to, through }| Ok((bare(&to)?, through)))
            .collect::<Result<_>>()?,
        received: part.received,
        first: part.first,
        management: part
            .management
            .map(|proto::Counting { base, acknowledged }| Counting { base, acknowledged }),
        queue: part.queue.into_iter().map(read_queued).collect::<Result<_>>()?,
        acknowledged: part.acknowledged.into_iter().map(Position).collect(),
        highest: part.highest.map(Position),
        notes: own(&part.notes),
    })
}

fn read_queued(queued: proto::Queued) -> Result<Arc<Queued>> {
    Ok(Arc::new(Queued {
        number: queued.number,
        position: queued.position.map(Position),
        waits: queued.waits,
        counts: queued.counts,
        stanza: read_stanza(queued.stanza)?,
    }))
}
