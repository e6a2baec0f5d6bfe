//! The last step: a resource (RFC 6120 §7), or a session to go on with (XEP-0198 §5).

use super::sasl::Authenticated;
use super::wire::Wire;
use super::{End, PATIENCE, features, header};
use crate::io::Io;
use crate::mailbox::Next;
use crate::session::{resume_id, token_of};
use crate::tenancy::Tenancy;
use compact_str::CompactString;
use starling_node::ids;
use starling_node::telemetry::Step;
use starling_node::telemetry::metrics::ResumeResult;
use starling_wire::{Down, Token, Up};
use starling_xmpp::stream::{Event, Incoming};
use starling_xmpp::{
    Element, FullJid, IqType, Kind, Stanza, StanzaCondition, StanzaError, StreamCondition, ns,
};
use std::time::Duration;
use tokio::time::timeout;

/// What a session begins with.
pub(super) struct Bound {
    pub(super) tenancy: Tenancy,
    pub(super) jid: FullJid,
    pub(super) token: Token,
    pub(super) resumed: Option<(u64, u64)>,
}

/// Opens the stream of an account and sees it to its session.
pub(super) async fn bind(wire: &mut Wire, who: Authenticated) -> Result<Bound, End> {
    header::open(wire, Some(who.account.as_jid())).await?;
    features::after_auth(wire);
    let mut tenancy = Tenancy::new(&wire.shared.table, who.account, wire.shared.router.clone());
    for _ in 0..ATTEMPTS {
        let bound = match wire.event().await? {
            Event::Stanza(incoming) => resource(wire, &mut tenancy, incoming).await?,
            Event::Nonza(element) => match (element.ns(), element.name()) {
                (ns::SM, "resume") => resume(wire, &mut tenancy, &element).await?,
                (ns::SM, _) => {
                    say_sm_failed(wire, "unexpected-request");
                    None
                }
                (ns::CSI, "active" | "inactive") => None,
                (ns::TLS, "starttls") => {
                    wire.say_raw(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
                    return Err(End::Closed);
                }
                (ns::SASL, _) => return Err(StreamCondition::PolicyViolation.into()),
                _ => return Err(StreamCondition::UnsupportedStanzaType.into()),
            },
            _ => return Err(StreamCondition::BadFormat.into()),
        };
        if let Some((jid, token, resumed)) = bound {
            wire.flush().await?;
            return Ok(Bound { tenancy, jid, token, resumed });
        }
    }
    Err(StreamCondition::PolicyViolation.into())
}

type Place = (FullJid, Token, Option<(u64, u64)>);

/// Any stanza: only a request for a resource has an answer before there is one.
async fn resource(wire: &mut Wire, tenancy: &mut Tenancy, incoming: Incoming) -> Result<Option<Place>, End> {
    let stanza = incoming.stanza;
    let request = stanza.payload.get(ns::BIND, "bind").map(|child| child.element());
    let (Kind::Iq(kind), Some(request)) = (&stanza.kind, request) else {
        return Err(StreamCondition::NotAuthorized.into());
    };
    if let Some(fault) = incoming.fault {
        say_error(wire, &stanza, &fault);
        return Ok(None);
    }
    if *kind != IqType::Set {
        say_error(wire, &stanza, &StanzaCondition::BadRequest.into());
        return Ok(None);
    }
    let mut span = wire.span(Step::Bind);
    let resource = request.find(ns::BIND, "resource").map(Element::content).filter(|name| !name.is_empty());
    let token = Token(ids::token());
    tenancy.send(Up::Bind { token, resource: resource.map(CompactString::from) });
    match answer(wire, tenancy).await? {
        Down::Bound { jid } => {
            let jid_element = Element::new(ns::BIND, "jid").text(jid.as_str());
            stanza.result().child(Element::new(ns::BIND, "bind").child(jid_element)).write(wire.queue());
            Ok(Some((jid, token, None)))
        }
        Down::Refused(error) => {
            span.fail(error.condition.as_str());
            say_error(wire, &stanza, &error);
            Ok(None)
        }
        other => Err(unexpected(other)),
    }
}

async fn resume(wire: &mut Wire, tenancy: &mut Tenancy, request: &Element) -> Result<Option<Place>, End> {
    // What reaches the home is counted there.
    let metrics = wire.shared.telemetry.metrics.clone();
    let mut span = wire.span(Step::Resume);
    let h = request.attribute("h").and_then(|h| h.trim().parse::<u32>().ok());
    let (Some(previd), Some(handled)) = (request.attribute("previd"), h) else {
        metrics.resumptions.at(ResumeResult::Failed).inc();
        say_sm_failed(wire, "bad-request");
        return Ok(None);
    };
    let Some(token) = token_of(previd) else {
        metrics.resumptions.at(ResumeResult::NotFound).inc();
        say_sm_failed(wire, "item-not-found");
        return Ok(None);
    };
    tenancy.send(Up::Resume { token, handled });
    match answer(wire, tenancy).await? {
        Down::Resumed { jid, sequence, base } => {
            let h = sequence.saturating_sub(base) as u32;
            let resumed =
                Element::new(ns::SM, "resumed").attr("previd", resume_id(token)).attr("h", h.to_string());
            wire.say(&resumed);
            Ok(Some((jid, token, Some((sequence, base)))))
        }
        Down::NotResumed => {
            span.fail("item-not-found");
            say_sm_failed(wire, "item-not-found");
            Ok(None)
        }
        other => Err(unexpected(other)),
    }
}

/// What the home says to the one question that is open.
async fn answer(wire: &Wire, tenancy: &Tenancy) -> Result<Down, End> {
    let mailbox = tenancy.mailbox();
    let mut answer = std::pin::pin!(std::future::poll_fn(|cx| mailbox.poll_next(cx)));
    let mut waited = Duration::ZERO;
    loop {
        match timeout(LOOK, &mut answer).await {
            Ok(Next::Down(down)) => return Ok(down),
            Ok(Next::Stopping) => return Err(StreamCondition::SystemShutdown.into()),
            Ok(Next::Cut) => return Err(End::Silent),
            // It may have a session elsewhere by now, which this question, answered late, would end.
            Err(_) if wire.io.as_ref().is_none_or(Io::is_hung_up) => return Err(End::Silent),
            // The home may answer yet: the stream ends, so that what it then binds is not left over.
            Err(_) if waited >= PATIENCE => return Err(StreamCondition::RemoteConnectionFailed.into()),
            Err(_) => waited += LOOK,
        }
    }
}

/// Anything but an answer ends the stream: a `Close`, mostly.
fn unexpected(down: Down) -> End {
    match down {
        Down::Close(Some(error)) => End::Fault(error),
        Down::Close(None) => End::Closed,
        Down::Released => StreamCondition::Conflict.into(),
        _ => {
            tracing::warn!(event = "answer_unasked", "a home answers what was not asked");
            StreamCondition::InternalServerError.into()
        }
    }
}

fn say_error(wire: &mut Wire, stanza: &Stanza, error: &StanzaError) {
    if let Some(reply) = stanza.error(error) {
        reply.write(wire.queue());
    }
}

/// `<failed/>` (XEP-0198 §6).
pub(super) fn say_sm_failed(wire: &mut Wire, condition: &str) {
    let failed = Element::new(ns::SM, "failed");
    wire.say(&failed.child(Element::new(ns::STANZAS, condition)));
}

/// How often it is looked whether the client still waits.
const LOOK: Duration = Duration::from_millis(250);

/// Elements that a client may try before it has a session (RFC 6120 §7.7.3 asks for a bound).
const ATTEMPTS: u32 = 8;
