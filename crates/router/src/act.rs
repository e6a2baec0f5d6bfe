//! What a turn does after its writes are durable, in the order in which it was decided.

use crate::decide;
use crate::delivery::{self, Out};
use crate::follow::{self, Follow};
use crate::home::Home;
use crate::link::{As, Unanswered};
use crate::msg::{Ask, Forward, Refusal, Ticket};
use crate::pairs;
use crate::recognise::Fingerprint;
use crate::requests;
use crate::route::{self, is_subscription, route};
use crate::session;
use crate::turn::Turn;
use starling_hooks::BlockList;
use starling_node::telemetry::Step;
use starling_node::{Span, Trace, Tracer};
use starling_store::{Origin, Position, StoreError};
use starling_wire::{ConnId, Down, ToEdge, Token};
use starling_xmpp::{BareJid, IqType, Kind, Stanza, StanzaError, StreamCondition, StreamError, ns};
use tokio::sync::oneshot;

/// One thing to do for one home.
pub(crate) struct Act {
    pub(crate) home: BareJid,
    /// Of the home that decided it.
    pub(crate) life: u64,
    pub(crate) what: What,
}

/// What there is to do.
pub(crate) enum What {
    /// Tell a connection something that is not a stanza.
    Tell(ConnId, Down),
    /// To one session; not logged.
    Deliver(Token, Stanza, Option<Trace>),
    /// The same with an error for one of its own stanzas, of this sequence.
    Refuse(Token, u64, Stanza, Option<Trace>),
    /// To wherever its `to` says; not logged.
    Route(Stanza, Option<Trace>),
    /// What follows from a change of a list.
    Follow(Box<Follow>),
    /// A list was changed as this stanza asks, which one of the account's sessions said under a sequence, or somebody else:
    /// whoever it was is told if that is not confirmed.
    Asked(Option<(Token, u64)>, Box<Stanza>),
    /// The answer to an IQ request; becomes an error when the writes have failed.
    Answer(Box<Ask>, Result<Stanza, Box<StanzaError>>),
    /// A session's stanza is settled.
    Settle(Token, u64),
    /// A message of one of the account's sessions leaves: copies, then on to the recipient's home.
    Leave(Box<Leaving>),
    /// A message for the account has arrived and is committed.
    Arrive(Box<Arriving>),
    /// A session may be given what waits, unless it has ceased to be available since: more often than so many times.
    Feed(Token, Position, u32),
    /// Read the tail of the log to recognise resent messages; all earlier rows are committed.
    ReadTail,
    /// Read the rows that sessions which were just built may not have been sent; all earlier ones are committed.
    ReadUnsent,
    /// Count what waits for the account's devices.
    CountWaiting,
    /// Something that is not a row is written.
    Wrote(Wrote),
    /// A session may begin, when that is recorded.
    Bound(Token),
    /// A session waits, but not for long, for what was said over the connection before.
    Drain(Token),
    /// A session may go on there, when that is recorded.
    Moved(Token, ConnId),
    /// End a session's stream.
    Close(Token, StreamError),
    /// The account is gone; end all its sessions.
    Deleted(Option<oneshot::Sender<Result<bool, StoreError>>>),
    /// Answer an administrator.
    Report(oneshot::Sender<Result<bool, StoreError>>),
}

/// What was written, as far as it matters when it is not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// How far devices have acknowledged; for each session of another process, up to where that is all that it has, and
    /// connections of sessions that are over, which may be forgotten then.
    Cursor(Vec<(Token, Position)>, Vec<ConnId>),
    /// A contact's state.
    Contact(BareJid),
    /// The list of whom it blocks, as it was before.
    Blocked(Box<BlockList>),
    /// Another document that the home believes.
    Document,
    /// The account's row: keys, or its removal.
    Account,
}

impl What {
    /// The write that this waits for, when that is traced.
    pub(crate) fn trace(&self) -> Option<Trace> {
        let spans = match self {
            Self::Leave(leaving) => &leaving.spans,
            Self::Arrive(arriving) => &arriving.spans,
            _ => return None,
        };
        spans.write.as_ref().and_then(Span::context)
    }

    /// For how many it counts: a home that has too many on their way takes nothing more.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Follow(follow) => follow.steps.len().max(1),
            _ => 1,
        }
    }

    /// Whether a row was written with it.
    pub(crate) fn is_row(&self) -> bool {
        match self {
            Self::Leave(leaving) => leaving.position.is_some(),
            Self::Arrive(arriving) => arriving.position.is_some(),
            _ => false,
        }
    }

    /// Whether anything was written with it.
    pub(crate) fn is_written(&self) -> bool {
        matches!(self, Self::Wrote(_)) || self.is_row()
    }

    /// Whether its home has to be in doubt when what was written with it is not confirmed; `clean`: certainly nothing
    /// was written. Then only what the home believes is wrong.
    pub(crate) fn is_doubtful(&self, clean: bool) -> bool {
        match self {
            Self::Wrote(Wrote::Contact(_) | Wrote::Blocked(_) | Wrote::Document) => true,
            Self::Wrote(Wrote::Cursor(..) | Wrote::Account) => !clean,
            what => what.is_row() && !clean,
        }
    }
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
    /// It is taken no further, and its sender is told so.
    pub(crate) refused: Option<Box<StanzaError>>,
    pub(crate) spans: Spans,
}

/// An origin's session as a token.
pub(crate) fn origin(token: Token, sequence: u64) -> Origin {
    Origin { session: token.0, sequence }
}

/// Carries one act out. Only what was written together with it, or followed from that, fails with it.
pub(crate) fn carry_out(
    turn: &mut Turn,
    out: &mut Out<'_>,
    home: &mut Home,
    what: What,
    result: &Result<(), StoreError>,
) {
    let ok = match &what {
        What::Leave(_) | What::Arrive(_) => !what.is_row() || result.is_ok(),
        What::Route(..) | What::Report(_) => !home.failed,
        _ => !home.is_wrong(),
    };
    match what {
        What::Tell(conn, down) => out.downs.push(ToEdge { conn, down }),
        What::Deliver(token, stanza, trace) => {
            // What is not confirmed is not told: clients would take a version of it that may never be.
            if ok || !is_push(&stanza) {
                let answers = matches!(stanza.kind, Kind::Iq(IqType::Result | IqType::Error));
                delivery::plain(out, home, token, stanza, trace);
                if answers {
                    requests::note(home, token);
                }
            }
        }
        What::Refuse(token, sequence, answer, trace) => {
            delivery::refusal(out, home, (token, sequence), answer, trace);
        }
        What::Route(stanza, trace) => {
            // What was decided together with it may not be: requests, answers and what sessions show go on. Who may be blocked is
            // shown nothing: not what was decided when an unblock was believed either.
            let is_hidden = || home.doubt.is_some() && follow::is_hidden(home, &stanza);
            if (ok || !is_subscription(&stanza)) && !is_hidden() {
                requests::leaves(out.shared, home, &stanza);
                route(out.shared, &home.account.jid, stanza, 1, trace);
            }
        }
        What::Follow(follow) => follow::carry_out(out, home, *follow),
        What::Asked(said, stanza) => {
            if home.failed {
                follow::unconfirmed(out, home, said, &stanza);
            }
        }
        What::Answer(ask, answer) => answer_iq(
            out,
            home,
            &ask,
            if ok { answer } else { Err(Box::new(decide::message::not_confirmed())) },
        ),
        What::Settle(token, sequence) => home.settle(token, sequence),
        What::Leave(leaving) => leave(out, home, *leaving, ok),
        What::Arrive(arriving) => arrive(out, home, *arriving, ok),
        What::Feed(token, through, times) => {
            if home.find(token).is_some_and(|at| home.links[at].feed.ceased_times == times) {
                session::feed(out, home, token, through);
            }
        }
        What::Close(token, error) => session::end(turn, home, token, Some(error)),
        What::Report(answer) => {
            drop(answer.send(if ok { Ok(true) } else { result.clone().map(|()| true) }));
        }
        What::Wrote(wrote) if !ok => not_written(home, wrote),
        What::Wrote(Wrote::Cursor(saved, holders)) => session::saved(out, home, &saved, holders),
        What::ReadTail
        | What::ReadUnsent
        | What::CountWaiting
        | What::Wrote(_)
        | What::Deleted(_)
        | What::Bound(_)
        | What::Drain(_)
        | What::Moved(..) => {}
    }
}

/// What is undone or tried again when a write was not confirmed.
fn not_written(home: &mut Home, wrote: Wrote) {
    match wrote {
        Wrote::Cursor(..) => home.deliveries.is_to_be_written(),
        Wrote::Contact(contact) => {
            if let Some(doubt) = &mut home.doubt {
                doubt.contacts.insert(contact);
            }
        }
        Wrote::Blocked(before) => {
            // Whom it blocked it may still block: they are shown nothing until that is known (promise 9).
            before.iter().for_each(|jid| {
                home.account.blocked.insert(jid.clone());
            });
            if let Some(doubt) = &mut home.doubt {
                doubt.blocked.get_or_insert(before);
            }
        }
        // What becomes of it is seen when the account is loaded.
        Wrote::Document | Wrote::Account => {}
    }
}

/// Whether it tells a client of a change of the account's own lists.
pub(crate) fn is_push(stanza: &Stanza) -> bool {
    matches!(stanza.kind, Kind::Iq(IqType::Set))
        && (stanza.payload.has_ns(ns::ROSTER) || stanza.payload.has_ns(ns::BLOCKING))
}

fn answer_iq(out: &mut Out<'_>, home: &mut Home, ask: &Ask, answer: Result<Stanza, Box<StanzaError>>) {
    match ask.token {
        Some(token) => {
            let stanza = match answer {
                Ok(mut stanza) => {
                    // RFC 6120 §8.1.2.1: the account's own answers carry its bare JID.
                    stanza.from = ask.request.to.clone().or_else(|| Some(home.account.jid.clone().into()));
                    stanza.to = home.account.session(token).map(|session| session.jid.clone().into());
                    Some(stanza)
                }
                Err(error) => decide::error_to(home, token, &ask.request, &error),
            };
            if let Some(stanza) = stanza {
                delivery::answer(out, home, (token, ask.sequence), stanza, ask.trace);
            }
        }
        None => {
            let stanza = match answer {
                Ok(stanza) => Some(stanza),
                Err(error) => ask.request.error(&error),
            };
            if let Some(stanza) = stanza {
                route(out.shared, &home.account.jid, stanza, 1, ask.trace);
            }
        }
    }
}

/// A message leaves: copies to the sender's other devices, then on to the recipient's home.
fn leave(out: &mut Out<'_>, home: &mut Home, leaving: Leaving, ok: bool) {
    let Leaving { stanza, ticket, copies, position, spans } = leaving;
    let trace = spans.written(ok);
    if !ok {
        if home.doubt.is_some() {
            // Should it be there, they have it from the log. Its client says it again, and then it is known.
            copy(out, home, copies, &stanza, position, trace);
        }
        let waits = is_awaited(out, home, &ticket);
        refused_own(out, home, &stanza, ticket.origin);
        if let Some(answer) =
            decide::error_to(home, ticket.token, &stanza, &decide::message::not_confirmed()).filter(|_| waits)
        {
            delivery::refusal(out, home, (ticket.token, ticket.sequence), answer, trace);
        }
        settle_ticket(home, &ticket);
        if let Some(to) = &stanza.to {
            // What follows it may have no row, and would come before it.
            refuse_behind(out, home, ticket.token, &to.to_bare(), ticket.sequence);
        }
        return;
    }
    if let Some(position) = position {
        home.deliveries.passed(position);
    }
    copy(out, home, copies, &stanza, position, trace);
    position.into_iter().for_each(|row| home.tells(row));
    if !is_awaited(out, home, &ticket) {
        // Its sender was told that it goes no further, and may send it again.
        return;
    }
    let Some(to) = &stanza.to else { return };
    let mut ticket = ticket;
    if !pairs::leaves(out.shared, home, &mut ticket, &to.to_bare(), trace) {
        return;
    }
    let forward =
        Forward { account: to.to_bare(), stanza, ticket: Some(ticket), hops: 1, trace, passed: false };
    out.shared.forward(forward);
}

/// Copies of what was sent, for the sender's other devices.
fn copy(
    out: &mut Out<'_>,
    home: &mut Home,
    copies: Vec<Token>,
    stanza: &Stanza,
    position: Option<Position>,
    trace: Option<Trace>,
) {
    if !copies.is_empty() {
        let to: Vec<_> = copies.into_iter().map(|token| (token, As::CopySent)).collect();
        delivery::committed(out, home, &to, stanza, position, false, trace);
    }
}

/// A message has arrived and is committed: deliveries, then the receipt. Or it is refused: then that comes with the answer.
fn arrive(out: &mut Out<'_>, home: &mut Home, arriving: Arriving, ok: bool) {
    let Arriving { stanza, ticket, to, position, offline, mut refused, spans } = arriving;
    let trace = spans.written(ok);
    if !ok {
        // What was for nobody in particular was counted when that was decided.
        let counted = offline && !to.iter().any(|(_, how)| *how == As::Itself);
        if position.is_some() && home.doubt.is_some() {
            // Should it be there, they have it from the log. Its sender says it again, and then it is known.
            delivery::committed(out, home, &to, &stanza, position, offline, trace);
            if offline {
                home.count.doubt();
            }
        } else if position.is_some() && counted {
            home.count.remove(stanza.encoded_len());
        }
        refused = Some(Box::new(decide::message::not_confirmed()));
    } else if refused.is_none() {
        if let Some(position) = position.filter(|_| !offline) {
            home.deliveries.passed(position);
        }
        delivery::committed(out, home, &to, &stanza, position, offline, trace);
        position.into_iter().for_each(|row| home.tells(row));
    }
    match ticket {
        Some(ticket) if ticket.sender == home.account.jid => {
            let waits = is_awaited(out, home, &ticket);
            if !ok {
                refused_own(out, home, &stanza, ticket.origin);
            }
            let answer = refused
                .filter(|_| waits)
                .and_then(|error| decide::error_to(home, ticket.token, &stanza, &error));
            if let Some(answer) = answer {
                delivery::refusal(out, home, (ticket.token, ticket.sequence), answer, trace);
            }
            settle_ticket(home, &ticket);
        }
        ticket => {
            if let Some(ticket) = &ticket {
                pairs::done(out.shared, home, ticket, refused.as_deref());
                if refused.is_none() && position.is_none() {
                    pairs::keeps_nothing(out.shared, home, ticket, &stanza);
                }
            }
            match (refused, &ticket) {
                (Some(error), ticket) => {
                    route::refuse(out.shared, &home.account.jid, ticket.as_ref(), &stanza, &error, 1);
                }
                (None, Some(ticket)) => route::receipt(out.shared, &home.account.jid, ticket, None),
                (None, None) => {}
            }
        }
    }
}

/// A message of one of the account's sessions is refused, and its row may be there.
pub(crate) fn refused_own(out: &Out<'_>, home: &mut Home, stanza: &Stanza, origin: Origin) {
    let Some(to) = &stanza.to else { return };
    if let Some(message) = Fingerprint::of(&home.account.jid, &to.to_bare(), stanza) {
        home.refuses(&message, origin, false, out.shared);
    }
}

/// The home of a message's recipient has refused it.
pub(crate) fn refused_there(
    out: &mut Out<'_>,
    home: &mut Home,
    token: Token,
    sequence: u64,
    refusal: Refusal,
) {
    let Refusal { answer, unsure } = refusal;
    let message = home.sender(token).and_then(|link| link.message(sequence));
    let to = message.and_then(|message| Some(message.stanza.to.as_ref()?.to_bare()));
    let is_unsure = unsure.is_some();
    // Nobody has it but its sender, whose row is the same when it comes again.
    let put_off = message.filter(|_| answer.as_ref().is_some_and(delivery::is_put_off));
    let unsure = unsure.or_else(|| Some((None, put_off?.origin)));
    if let Some((message, origin)) = unsure {
        let own = || home.find(token).and_then(|at| home.links[at].message(sequence));
        let message = message.or_else(|| decide::message::fingerprint(home, &own()?.stanza));
        if let Some(message) = message {
            home.refuses(&message, origin, true, out.shared);
        }
    }
    // Where it has been given up, that was said.
    let waits = home.find(token).is_some_and(|at| !home.links[at].has_settled(sequence));
    if let Some(answer) = answer.filter(|_| waits) {
        delivery::refusal(out, home, (token, sequence), answer, None);
    }
    if let Some(to) = to.filter(|_| is_unsure) {
        refuse_behind(out, home, token, &to, sequence);
    }
}

/// The sender of a message is told that it is not confirmed, whatever becomes of it.
pub(crate) fn give_up(
    out: &mut Out<'_>,
    home: &mut Home,
    (token, sequence): (Token, u64),
    message: &Unanswered,
) {
    refused_own(out, home, &message.stanza, message.origin);
    let error = decide::message::not_confirmed();
    if home.find(token).is_some()
        && let Some(answer) = decide::error_to(home, token, &message.stanza, &error)
    {
        delivery::refusal(out, home, (token, sequence), answer, None);
    }
}

/// A session's message to an account is not confirmed: nor is what it has sent there since and its client may send again. Its
/// recipient's home takes none of it ([`crate::behind`]); the next one there would.
pub(crate) fn refuse_behind(out: &mut Out<'_>, home: &mut Home, token: Token, to: &BareJid, sequence: u64) {
    let Some(link) = home.sender(token) else { return };
    for (sequence, message) in link.take_behind(to, sequence) {
        give_up(out, home, (token, sequence), &message);
    }
    home.touched = true;
}

/// Whether the sender of a message has yet to be answered, over or not. A session that was let go had nothing left that waits:
/// what of it has not left was refused, and comes in order if its client says it again (promise 4).
fn is_awaited(out: &Out<'_>, home: &mut Home, ticket: &Ticket) -> bool {
    match home.sender(ticket.token) {
        Some(link) => !link.has_settled(ticket.sequence),
        // In one process nobody is kept for that; the recipient's home knows what was refused.
        None => out.shared.tier.is_none(),
    }
}

fn settle_ticket(home: &mut Home, ticket: &Ticket) {
    home.settle(ticket.token, ticket.sequence);
}

/// The account is gone: its sessions are told.
pub(crate) fn deleted(out: &mut Out<'_>, home: &mut Home) {
    for link in home.links.drain(..) {
        if let Some(conn) = link.conn {
            let error = StreamError::new(StreamCondition::NotAuthorized).with_text("account removed");
            out.downs.push(ToEdge { conn, down: Down::Close(Some(Box::new(error))) });
        }
        session::release(out.downs, &link);
    }
    session::release_all(out.downs, home);
    home.account.sessions.clear();
}
