//! What a turn does after its writes are durable, in the order in which it was decided.

use crate::link::As;
use crate::msg::{Ask, Ticket};
use starling_node::telemetry::Step;
use starling_node::{Span, Trace, Tracer};
use starling_store::{Origin, Position, StoreError};
use starling_wire::{ConnId, Down, Token};
use starling_xmpp::{BareJid, Stanza, StanzaError, StreamError};
use tokio::sync::oneshot;

/// One thing to do for one home.
pub(crate) struct Act {
    pub(crate) home: BareJid,
    pub(crate) what: What,
}

/// What there is to do.
pub(crate) enum What {
    /// Tell a connection something that is not a stanza.
    Tell(ConnId, Down),
    /// To one session; not logged.
    Deliver(Token, Stanza),
    /// To wherever its `to` says; not logged.
    Route(Stanza),
    /// The answer to an IQ request; becomes an error when the writes have failed.
    Answer(Box<Ask>, Result<Stanza, Box<StanzaError>>),
    /// A session's stanza is settled.
    Settle(Token, u64),
    /// A message of one of the account's sessions leaves: copies, then on to the recipient's home.
    Leave(Box<Leaving>),
    /// A message for the account has arrived and is committed.
    Arrive(Box<Arriving>),
    /// A session may be given what waits.
    Feed(Token, Position),
    /// Read the tail of the log to recognise resent messages; all earlier rows are committed.
    ReadTail,
    /// Count what waits for the account's devices.
    CountWaiting,
    /// End a session's stream.
    Close(Token, StreamError),
    /// The account is gone; end all its sessions.
    Deleted(Option<oneshot::Sender<Result<bool, StoreError>>>),
    /// Answer an administrator.
    Report(oneshot::Sender<Result<bool, StoreError>>),
}

/// A message on its way out.
pub(crate) struct Leaving {
    pub(crate) stanza: Stanza,
    pub(crate) ticket: Ticket,
    pub(crate) copies: Vec<Token>,
    /// Its row in the sender's log, when it has one.
    pub(crate) position: Option<Position>,
    pub(crate) spans: Spans,
}

/// The steps of a traced message that are going on until its turn is durable.
pub(crate) struct Spans {
    /// The home's; what follows is its child.
    pub(crate) home: Span,
    /// The log's, when it is written.
    pub(crate) write: Option<Span>,
}

impl Spans {
    /// Begins the home's step.
    pub(crate) fn begin(tracer: &Tracer, trace: Option<Trace>, step: Step) -> Self {
        Self { home: tracer.span(trace, step), write: None }
    }

    /// Begins the write.
    pub(crate) fn writes(&mut self, tracer: &Tracer) {
        self.write = Some(tracer.span(self.home.context(), Step::StoreWrite));
    }

    /// The write has ended, well or not; returns what the next step is a child of.
    pub(crate) fn written(mut self, ok: bool) -> Option<Trace> {
        let mut next = self.home.context();
        if let Some(mut write) = self.write.take() {
            if !ok {
                write.fail("resource-constraint");
            }
            next = write.context().or(next);
        }
        next
    }
}

/// A message that has arrived.
pub(crate) struct Arriving {
    pub(crate) stanza: Stanza,
    /// Who waits for a receipt.
    pub(crate) ticket: Option<Ticket>,
    /// Sessions concerned, and how.
    pub(crate) to: Vec<(Token, As)>,
    /// Its row.
    pub(crate) position: Option<Position>,
    /// The row waits for an acknowledgement.
    pub(crate) offline: bool,
    pub(crate) spans: Spans,
}

/// An origin's session as a token.
pub(crate) fn origin(token: Token, sequence: u64) -> Origin {
    Origin { session: token.0, sequence }
}
