//! Messages: the sender's side and the recipient's side (RFC 6121 §5, §8.5).

use crate::act::{Arriving, Leaving, Spans, What};
use crate::decide::{Said, is_not_there, received_hooks, refuse, sent_hooks, ticket};
use crate::home::Home;
use crate::im::recipients::{Recipients, recipients};
use crate::link::{As, Unanswered};
use crate::msg::Ticket;
use crate::recognise::{Before, Fingerprint, GRACE, origin_id};
use crate::turn::Turn;
use starling_hooks::{Fate, Flow};
use starling_node::telemetry::Step;
use starling_node::telemetry::metrics::Limit;
use starling_store::{Direction, LogRow, Position};
use starling_wire::{Token, Trace, credit};
use starling_xmpp::{BareJid, ErrorType, Jid, Kind, Stanza, StanzaCondition, StanzaError, ns};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// Up to this sequence a client may say what it had under way in a session that it has lost.
const BEGINNING: u64 = 2 * credit::MOST as u64;

/// One of the account's sessions sends a message.
pub(crate) fn sent(turn: &mut Turn, home: &mut Home, at: usize, said: Said) {
    let Said { sequence, mut stanza, trace, again, .. } = said;
    let token = home.links[at].token;
    home.links[at].echoes(turn.monotonic, window(turn));
    let mut spans = Spans::begin(&turn.shared.tracer, trace, Step::HomeSent);
    if again {
        spans.home.set("starling.again", true);
    }
    let own = home.account.jid.clone();
    let to = match &stanza.to {
        Some(to) => to.clone(),
        // RFC 6121 §8.1.1: no address means one's own bare JID.
        None => {
            let to: Jid = own.clone().into();
            stanza.to = Some(to.clone());
            to
        }
    };
    if has_clashing_bodies(&stanza) {
        let error = StanzaError::new(StanzaCondition::BadRequest);
        return refuse_traced(turn, home, (token, sequence), &stanza, &error, spans);
    }
    let mut fate = Fate::default();
    match sent_hooks(turn, home, at, &mut stanza, &mut fate) {
        Flow::Next => {}
        Flow::Drop => return turn.act(home, What::Settle(token, sequence)),
        Flow::Refuse(error) => {
            return refuse_traced(turn, home, (token, sequence), &stanza, &error, spans);
        }
    }
    let condition = if turn.shared.server.is_local(&to) {
        to.local().is_none().then_some(StanzaCondition::ServiceUnavailable)
    } else {
        // Federation is not there yet (RFC 6120 §10.4).
        Some(StanzaCondition::RemoteServerNotFound)
    };
    if let Some(condition) = condition {
        let error = StanzaError::new(condition);
        return refuse_traced(turn, home, (token, sequence), &stanza, &error, spans);
    }
    let with = to.to_bare();
    if !knows(home, &with) {
        let (most, window) = turn.shared.config.strangers;
        if !home.strangers.allow(&with, most, window, turn.monotonic, &turn.shared.hasher) {
            turn.shared.metrics.limits.at(Limit::Recipients).inc();
            let error = StanzaError::new(StanzaCondition::PolicyViolation)
                .with_type(ErrorType::Wait)
                .with_text("too many new addresses in a short time");
            return refuse_traced(turn, home, (token, sequence), &stanza, &error, spans);
        }
    }
    if stanza.payload.has(ns::SID, "origin-id") && overtakes(turn, home, (at, sequence), &with, &stanza) {
        refuse_to_overtake(turn, home, (token, sequence), &stanza);
        return refuse_traced(turn, home, (token, sequence), &stanza, &not_confirmed(), spans);
    }
    if !home.parted.is_empty()
        && let Some(id) = origin_id(&stanza)
    {
        // Under another name, perhaps.
        home.is_back(|link| link.waits_with(&id, &with));
    }
    let mut ticket = ticket(home, token, sequence);
    ticket.before = said_before(turn, home, at, sequence, &stanza);
    let may_be_again = home.links[at].may_be_again(sequence);
    ticket.repeated = again || may_be_again;
    if !home.links[at].may_resend && stanza.payload.has(ns::SID, "origin-id") {
        home.links[at].may_resend = true;
        home.links[at].note();
    }
    let known = is_known(turn, home, at, &with, &stanza, &mut ticket);
    // If it was to have a row here and has none, it went nowhere.
    ticket.repeated = again || may_be_again && known;
    if may_be_again && !known && !fate.archived {
        // Only its recipient's home can tell.
        ticket.again.get_or_insert_with(|| home.lost_until(&turn.shared));
    }
    let (since, origin) = (turn.came, ticket.origin);
    let unanswered = Unanswered { since, origin, stanza: stanza.clone(), sent: None };
    if with == own {
        home.links[at].awaits(sequence, unanswered);
        arrive(turn, home, stanza, Some(ticket), Some((fate, known)), spans.home.context());
        return;
    }
    let position = if fate.archived && !known {
        match append(turn, home, &stanza, &ticket, Direction::Out, with, &fate) {
            Some(position) => {
                spans.writes(&turn.shared.tracer);
                Some(position)
            }
            None => {
                return refuse_traced(turn, home, (token, sequence), &stanza, &not_confirmed(), spans);
            }
        }
    } else {
        None
    };
    // Only now: what was refused has its answer on its way, and is to get no other.
    home.links[at].awaits(sequence, unanswered);
    home.forgets(&stanza, &turn.shared);
    // Copies of what is not kept may have gone out already, and nobody knows.
    let copied = known || (position.is_none() && (again || is_copied(turn, home, &ticket, &stanza, &fate)));
    let copies = if copied { Vec::new() } else { fate.copies };
    turn.act(home, What::Leave(Box::new(Leaving { stanza, ticket, copies, position, spans })));
}

/// Whether a message without a row is said again, and others have their copies of it.
fn is_copied(turn: &Turn, home: &mut Home, ticket: &Ticket, stanza: &Stanza, fate: &Fate) -> bool {
    let message = fingerprint(home, stanza).filter(|_| !fate.copies.is_empty());
    message.is_some_and(|message| home.copied.has_or_adds(&message, &turn.shared.hasher))
        && ticket.again.is_some()
}

/// Whether a message would come before one that the session sent earlier to the same account, and of whose refusal its client may
/// not have heard. Should that client give the session up, it sends all of them again, in order, and this one would be recognised
/// and stay where it is (promise 4).
fn overtakes(
    turn: &Turn,
    home: &mut Home,
    (at, sequence): (usize, u64),
    with: &BareJid,
    stanza: &Stanza,
) -> bool {
    if !home.links[at].may_overtake(with, sequence, turn.monotonic) {
        return false;
    }
    let token = home.links[at].token;
    let earlier = home.earlier(stanza, turn.monotonic, &turn.shared);
    if earlier.is_some_and(|earlier| earlier.origin.session == token.0) {
        let earlier = earlier.map_or(0, |earlier| earlier.origin.sequence);
        return !home.links[at].has_heard(with, earlier);
    }
    true
}

/// Should it come again it is to keep the origin under which a home before this one may have taken it.
fn refuse_to_overtake(turn: &Turn, home: &mut Home, (token, sequence): (Token, u64), stanza: &Stanza) {
    if !refuse_once_more(turn, home, stanza)
        && let Some(message) = fingerprint(home, stanza)
    {
        home.refuses(&message, crate::act::origin(token, sequence), false, &turn.shared);
    }
}

/// What is known of a message that was refused before counts from now on: its client may send it again for as long as that. False:
/// nothing is.
pub(crate) fn refuse_once_more(turn: &Turn, home: &mut Home, stanza: &Stanza) -> bool {
    let Some(earlier) = home.earlier(stanza, turn.monotonic, &turn.shared) else { return false };
    if let Some(message) = fingerprint(home, stanza) {
        home.refuses(&message, earlier.origin, earlier.kept, &turn.shared);
    }
    true
}

/// Answers a message with an error, which belongs to its trace.
fn refuse_traced(
    turn: &mut Turn,
    home: &mut Home,
    (token, sequence): (Token, u64),
    stanza: &Stanza,
    error: &StanzaError,
    mut spans: Spans,
) {
    spans.home.fail(error.condition.as_str());
    turn.deciding(&spans.home);
    refuse(turn, home, token, sequence, stanza, error);
    turn.decided(spans.home);
}

/// Whether a message of the account is one that it sent before and whose row is there. It keeps the origin that it had.
fn is_known(
    turn: &Turn,
    home: &mut Home,
    at: usize,
    with: &BareJid,
    stanza: &Stanza,
    ticket: &mut Ticket,
) -> bool {
    if ticket.repeated && home.recent.as_ref().is_some_and(|recent| recent.has(ticket.origin)) {
        return true;
    }
    let earlier = home.earlier(stanza, turn.monotonic, &turn.shared);
    let recent = home.recent.as_ref();
    if let Some(earlier) = earlier {
        let latest = home.refused.latest().unwrap_or(earlier.at);
        (ticket.again, ticket.origin) = (Some(latest), earlier.origin);
        if earlier.kept || recent.is_some_and(|recent| recent.has(earlier.origin)) {
            return true;
        }
        // It may have been refused here as what another home had refused and written.
    }
    let Some(message) = resent(turn, home, at, with, stanza, ticket) else { return false };
    ticket.again = ticket.again.max(Some(home.lost_until(&turn.shared)));
    let found = recent.and_then(|recent| recent.find(&message, ticket.token.0, ticket.before));
    let Some(origin) = found else { return false };
    ticket.origin = origin;
    if let Some(far) = home.links[at].far.as_mut().filter(|_| message.is_exact()) {
        far.matched = origin.sequence;
    }
    true
}

/// Several bodies are translations of one (RFC 6121 §5.2.3): two in one language are a mistake, and hundreds an attack.
fn has_clashing_bodies(stanza: &Stanza) -> bool {
    let bodies =
        || stanza.payload.children().filter(|child| child.ns() == ns::CLIENT && child.name() == "body");
    if bodies().nth(1).is_none() {
        return false;
    }
    let mut languages = HashSet::new();
    !bodies().all(|body| languages.insert(body.element().lang().map(str::to_owned)))
}

/// Whether an address is the account's own or a contact's.
fn knows(home: &Home, other: &BareJid) -> bool {
    let roster = &home.account.roster.items;
    *other == home.account.jid || roster.get(other).is_some_and(|item| item.visible)
}

/// A message arrives for the account.
pub(crate) fn received(
    turn: &mut Turn,
    home: &mut Home,
    stanza: Stanza,
    ticket: Option<Ticket>,
    trace: Option<Trace>,
) {
    if ticket.as_ref().is_some_and(|ticket| is_decided(turn, home, ticket, &stanza)) {
        // It goes out by its row, if it has one; only the receipt was lost.
        let mut spans = Spans::begin(&turn.shared.tracer, trace, Step::HomeReceived);
        spans.home.set("starling.again", true);
        return settle(turn, home, stanza, ticket, None, spans);
    }
    if let Some(ticket) = &ticket
        && turn.shared.behind.has(&home.account.jid, ticket, turn.monotonic)
    {
        turn.shared.behind.add(&home.account.jid, ticket, turn.monotonic);
        if stanza.payload.has(ns::SID, "origin-id") {
            let spans = Spans::begin(&turn.shared.tracer, trace, Step::HomeReceived);
            let (ticket, error) = (Some(ticket.clone()), Some(Box::new(not_confirmed())));
            return settle(turn, home, stanza, ticket, error, spans);
        }
    }
    arrive(turn, home, stanza, ticket, None, trace);
}

/// Whether a message has its row, or was decided before and has none.
fn is_decided(turn: &Turn, home: &mut Home, ticket: &Ticket, stanza: &Stanza) -> bool {
    if let Some(recent) = &home.recent {
        let may = ticket.again.is_some() || ticket.repeated;
        let message = || ticket.message(&home.account.jid, stanza);
        let find = || recent.find(&message(), ticket.token.0, ticket.before).is_some();
        if recent.has(ticket.origin) || may && find() {
            return true;
        }
    }
    crate::pairs::is_unkept(&turn.shared, home, ticket, stanza)
}

/// Decides who gets it and what is kept. `own` is the sender's decision when the message is to oneself.
fn arrive(
    turn: &mut Turn,
    home: &mut Home,
    mut stanza: Stanza,
    ticket: Option<Ticket>,
    own: Option<(Fate, bool)>,
    trace: Option<Trace>,
) {
    let Kind::Message(kind) = stanza.kind else { return };
    let Some(to) = stanza.to.clone() else { return };
    let mut spans = Spans::begin(&turn.shared.tracer, trace, Step::HomeReceived);
    if ticket.as_ref().is_some_and(|ticket| ticket.repeated) && own.is_none() {
        spans.home.set("starling.again", true);
    }
    let known = own.as_ref().is_some_and(|(_, known)| *known);
    if known {
        home.forgets(&stanza, &turn.shared);
        return settle(turn, home, stanza, ticket, None, spans);
    }
    let said = own.is_some().then(|| stanza.clone());
    let table = recipients(&home.account, &to, kind);
    let mut fate = Fate::default();
    if let Recipients::To(sessions) = &table {
        fate.recipients.clone_from(sessions);
    }
    let mut flow = received_hooks(turn, home, &mut stanza, &mut fate);
    if flow == Flow::Next
        && let Recipients::Nobody { bounce, keep } = table
    {
        flow = undelivered(turn, home, &stanza, &mut fate, bounce, keep);
    }
    match flow {
        Flow::Next => {}
        Flow::Drop => return settle(turn, home, stanza, ticket, None, spans),
        Flow::Refuse(error) => {
            return settle(turn, home, stanza, ticket, Some(error), spans);
        }
    }
    let (direction, with) = match (&own, &stanza.from) {
        (Some((sent, _)), _) => {
            fate.archived |= sent.archived;
            (Direction::Own, home.account.jid.clone())
        }
        (None, Some(from)) => (Direction::In, from.to_bare()),
        (None, None) => (Direction::In, home.account.jid.clone()),
    };
    if !fate.is_kept() && ticket.as_ref().is_some_and(|ticket| ticket.repeated) {
        // It may have been delivered, and nobody knows: what is not kept is sent once at most.
        return settle(turn, home, stanza, ticket, None, spans);
    }
    if own.is_none() && fate.is_kept() && ticket.as_ref().is_some_and(|ticket| comes_late(home, ticket)) {
        return settle(turn, home, stanza, ticket, Some(Box::new(not_confirmed())), spans);
    }
    let mut position = None;
    if fate.is_kept() {
        let fresh = Ticket {
            origin: turn.anonymous(),
            sender: with.clone(),
            token: Token(0),
            sequence: 0,
            again: None,
            repeated: false,
            pair: None,
            heard: 0,
            before: Before::default(),
        };
        position = append(turn, home, &stanza, ticket.as_ref().unwrap_or(&fresh), direction, with, &fate);
        if position.is_none() {
            home.count.doubt();
            if let Some(ticket) = ticket.as_ref().filter(|_| own.is_none()) {
                turn.shared.behind.add(&home.account.jid, ticket, turn.monotonic);
            }
            return settle(turn, home, stanza, ticket, Some(Box::new(not_confirmed())), spans);
        }
        if let Some(said) = said {
            home.forgets(&said, &turn.shared);
        }
        spans.writes(&turn.shared.tracer);
    }
    let mut concerned: Vec<_> = fate.recipients.iter().map(|token| (*token, As::Itself)).collect();
    let mut copy = |tokens: &[Token], how: As| {
        for token in tokens {
            if !concerned.iter().any(|(known, _)| known == token) {
                concerned.push((*token, how));
            }
        }
    };
    copy(&fate.copies, As::CopyReceived);
    if let Some((sent, _)) = &own {
        copy(&sent.copies, As::CopySent);
    }
    let arriving =
        Arriving { stanza, ticket, to: concerned, position, offline: fate.offline, refused: None, spans };
    turn.act(home, What::Arrive(Box::new(arriving)));
}

/// Whether it was refused, here or by a home before this one, and what followed it was not.
fn comes_late(home: &Home, ticket: &Ticket) -> bool {
    if !ticket.repeated {
        return false;
    }
    let same = ticket.origin == ticket.said();
    home.heard.is_late(ticket.token, ticket.sequence)
        || same && home.recent.as_ref().is_some_and(|recent| recent.has_later(ticket.origin))
}

/// Nobody is there to take it: kept, bounced or dropped (RFC 6121 §8.5.2.2).
fn undelivered(
    turn: &mut Turn,
    home: &mut Home,
    stanza: &Stanza,
    fate: &mut Fate,
    bounce: bool,
    keep: bool,
) -> Flow {
    let unavailable = Flow::Refuse(Box::new(is_not_there(turn, home, stanza)));
    // Whatever was decided for delivery no longer holds: keeping it is the hooks' decision.
    fate.offline = false;
    if keep {
        let shared = Arc::clone(&turn.shared);
        if home.count.is_full(&shared.config) {
            count(turn, home);
            shared.metrics.limits.at(Limit::Offline).inc();
            return unavailable;
        }
        let flow = turn.decide(home, None, |cx| {
            shared
                .hooks
                .on_undelivered()
                .map(|hook| hook.undelivered(cx, stanza, fate))
                .find(|flow| *flow != Flow::Next)
        });
        if let Some(flow) = flow {
            return flow;
        }
        if fate.offline || fate.archived {
            if fate.offline {
                home.count.add(stanza.encoded_len());
                count(turn, home);
            }
            return Flow::Next;
        }
        // Nothing in it is worth keeping (a chat state): nobody will miss it.
        return if is_worth_an_error(stanza) { unavailable } else { Flow::Drop };
    }
    if fate.copies.is_empty() && !bounce {
        return Flow::Drop;
    }
    if bounce { unavailable } else { Flow::Next }
}

/// Has counted what waits, if that is not known. Until it is, as many again as may wait may be kept, and no more.
fn count(turn: &mut Turn, home: &mut Home) {
    if home.count.asks(turn.monotonic, &turn.shared.config) {
        turn.act(home, What::CountWaiting);
    }
}

/// A message with a body that could not be kept is answered; a bare notification is not.
fn is_worth_an_error(stanza: &Stanza) -> bool {
    stanza.payload.has(ns::CLIENT, "body")
}

/// Puts a row into the account's log; `None` when no position may be given.
fn append(
    turn: &mut Turn,
    home: &mut Home,
    stanza: &Stanza,
    ticket: &Ticket,
    direction: Direction,
    with: BareJid,
    fate: &Fate,
) -> Option<Position> {
    let position = turn.position(home)?;
    if home.minds() {
        let own = &home.account.jid;
        let (sender, recipient) = match direction {
            Direction::In => (&with, own),
            Direction::Out => (own, &with),
            Direction::Own => (own, own),
        };
        let message = Fingerprint::of_any(ticket.origin.session, sender, recipient, stanza);
        home.keeps(ticket.origin, &message, &turn.shared);
    }
    let row = LogRow {
        owner: home.account.jid.clone(),
        position,
        origin: ticket.origin,
        origin_id: origin_id(stanza),
        direction,
        with,
        archived: fate.archived,
        offline: fate.offline,
        expires: fate.expires,
        stanza: stanza.encode(),
    };
    turn.append(home, row);
    Some(position)
}

/// What the message is known by, when it may come a second time and something it could repeat is known.
fn resent(
    turn: &Turn,
    home: &Home,
    at: usize,
    with: &BareJid,
    stanza: &Stanza,
    ticket: &Ticket,
) -> Option<Fingerprint> {
    let own = &home.account.jid;
    match ticket.before.is_unheard() {
        true => Some(Fingerprint::of_any(ticket.token.0, own, with, stanza)),
        false => may_repeat(turn, home, at, stanza).then(|| Fingerprint::of(own, with, stanza)).flatten(),
    }
}

/// Whether a message of this session may be one that was sent before in a lost session, or that was refused.
pub(crate) fn may_repeat(turn: &Turn, home: &Home, at: usize, stanza: &Stanza) -> bool {
    let lost = home.links[at].echoes.is_some().then(|| home.lost_until(&turn.shared));
    lost.is_some_and(|lost| turn.monotonic < lost + window(turn)) && stanza.payload.has(ns::SID, "origin-id")
}

/// What the session may have said before it says this. A client that has lost its session begins the next one with all that it had
/// under way, as it stands: what was refused and said again stands in it twice, and is one message.
pub(crate) fn said_before(turn: &Turn, home: &Home, at: usize, sequence: u64, stanza: &Stanza) -> Before {
    let mut before = home.links[at].said_before(sequence);
    if before.through == 0 && sequence <= BEGINNING && may_repeat(turn, home, at, stanza) {
        before.through = sequence;
    }
    before
}

/// For how long a client may come back with what it had said.
fn window(turn: &Turn) -> Duration {
    turn.shared.config.resume_timeout + GRACE
}

/// Nothing more happens to it here than its receipt, with the error if it is refused.
fn settle(
    turn: &mut Turn,
    home: &mut Home,
    stanza: Stanza,
    ticket: Option<Ticket>,
    refused: Option<Box<StanzaError>>,
    mut spans: Spans,
) {
    if let Some(error) = &refused {
        spans.home.fail(error.condition.as_str());
    }
    let (to, position) = (Vec::new(), None);
    let arriving = Arriving { stanza, ticket, to, position, offline: false, refused, spans };
    turn.act(home, What::Arrive(Box::new(arriving)));
}

/// What a message of the account is recognised by.
pub(crate) fn fingerprint(home: &Home, stanza: &Stanza) -> Option<Fingerprint> {
    let with = stanza.to.as_ref()?.to_bare();
    Fingerprint::of(&home.account.jid, &with, stanza)
}

/// What cannot be kept is not acknowledged (promise 1).
pub(crate) fn not_confirmed() -> StanzaError {
    starling_hooks::store_error(&starling_store::StoreError::Overloaded)
}
