//! In-band registration before authentication (XEP-0077 §3.1): the client is nobody yet, so no home is asked until
//! there is an account to make.

use super::wire::Wire;
use super::{End, PATIENCE};
use crate::source::Source;
use starling_node::ids;
use starling_node::telemetry::metrics::Limit;
use starling_wire::{LinkError, Registration};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::stream::Incoming;
use starling_xmpp::{BareJid, Element, ErrorType, IqType, Jid, Kind, StanzaCondition, StanzaError, ns};
use tokio::time::timeout;

/// What this stream has registered so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    requests: u32,
}

/// Whether a stanza is about registration.
pub(super) fn concerns(incoming: &Incoming) -> bool {
    matches!(incoming.stanza.kind, Kind::Iq(IqType::Get | IqType::Set))
        && (incoming.stanza.payload.has(ns::REGISTER, "query"))
}

/// Answers it.
pub(super) async fn answer(
    wire: &mut Wire,
    incoming: Incoming,
    source: Source,
    progress: &mut Progress,
) -> Result<(), End> {
    progress.requests += 1;
    let most = if wire.settings.registration { REQUESTS } else { USELESS };
    if progress.requests > most {
        return Err(starling_xmpp::StreamCondition::PolicyViolation.into());
    }
    let stanza = incoming.stanza;
    let result = match (incoming.fault, &stanza.kind) {
        (Some(fault), _) => Err(fault),
        _ if !wire.settings.registration => Err(StanzaCondition::ServiceUnavailable.into()),
        _ if !is_for(stanza.to.as_ref(), wire.domain.as_deref()) => {
            Err(StanzaCondition::ServiceUnavailable.into())
        }
        (_, Kind::Iq(IqType::Get)) => Ok(Some(form())),
        _ => {
            let query = stanza.payload.get(ns::REGISTER, "query").map(|child| child.element());
            match query {
                Some(query) => register(wire, &query, source).await.map(|()| None),
                None => Err(StanzaCondition::BadRequest.into()),
            }
        }
    };
    let domain = wire.domain.as_deref().and_then(|domain| Jid::parse(domain).ok());
    let reply = match result {
        Ok(Some(query)) => Some(stanza.result().child(query)),
        Ok(None) => Some(stanza.result()),
        // Without the echo of the request, which holds a password.
        Err(error) => Some(stanza.result()).map(|mut reply| {
            reply.kind = Kind::Iq(IqType::Error);
            reply.child(error.to_element())
        }),
    };
    if let Some(mut reply) = reply {
        reply.from = domain;
        reply.write(wire.queue());
    }
    wire.flush().await
}

async fn register(wire: &mut Wire, query: &Element, source: Source) -> Result<(), StanzaError> {
    if query.find(ns::REGISTER, "remove").is_some() {
        // Nobody is logged in who could be removed.
        return Err(StanzaCondition::UnexpectedRequest.into());
    }
    let missing =
        || StanzaError::new(StanzaCondition::NotAcceptable).with_text("username and password are needed");
    let username = field(query, "username").ok_or_else(missing)?;
    let password = field(query, "password").ok_or_else(missing)?;
    let domain = wire.domain.clone().unwrap_or_default();
    let account: BareJid = match Jid::new(Some(&username), &domain, None) {
        Ok(jid) => jid.to_bare(),
        Err(_) => {
            return Err(StanzaError::new(StanzaCondition::NotAcceptable).with_text("not a possible username"));
        }
    };
    let shared = wire.shared.clone();
    let limits = &wire.settings.limits;
    if !shared.registrations.allow(source, limits.registration.per_ip_per_hour) {
        shared.telemetry.metrics.limits.at(Limit::Registration).inc();
        return Err(busy("too many registrations, try again later"));
    }
    let (salt, iterations) = (ids::bytes(), wire.settings.iterations);
    let credentials = shared.pool.run(move || Credentials::derive(&password, salt, iterations)).await;
    let credentials = match credentials {
        Ok(Ok(credentials)) => credentials,
        Ok(Err(_)) => {
            return Err(StanzaError::new(StanzaCondition::NotAcceptable).with_text("not a possible password"));
        }
        Err(_) => {
            shared.telemetry.metrics.limits.at(Limit::AuthQueue).inc();
            return Err(busy("the server is busy"));
        }
    };
    match timeout(PATIENCE, shared.router.register(&account, credentials))
        .await
        .unwrap_or(Err(LinkError::Busy))
    {
        Ok(Registration::Created) => Ok(()),
        Ok(Registration::Conflict) => Err(StanzaCondition::Conflict.into()),
        Err(LinkError::NoHome | LinkError::Busy) => Err(busy("the server is busy")),
    }
}

fn busy(text: &'static str) -> StanzaError {
    StanzaError::new(StanzaCondition::ResourceConstraint).with_type(ErrorType::Wait).with_text(text)
}

/// To nobody in particular, or to the domain of the stream.
fn is_for(to: Option<&Jid>, domain: Option<&str>) -> bool {
    to.is_none_or(|to| to.is_domain_only() && Some(to.domain()) == domain)
}

/// A field of the query itself, or of a form in it (XEP-0077 §4); empty counts as absent.
fn field(query: &Element, name: &str) -> Option<String> {
    let plain = query.find(ns::REGISTER, name).map(Element::content);
    let in_form = || {
        let form = query.find(ns::DATA, "x")?;
        let field = form
            .children()
            .find(|field| field.is(ns::DATA, "field") && field.attribute("var") == Some(name))?;
        field.find(ns::DATA, "value").map(Element::content)
    };
    plain.or_else(in_form).filter(|value| !value.is_empty())
}

fn form() -> Element {
    let plain = |name| Element::new(ns::REGISTER, name);
    plain("query")
        .child(plain("instructions").text("Choose a username and password for use with this server."))
        .child(plain("username"))
        .child(plain("password"))
}

/// Requests of one stream. Accounts are bounded by `limits.registration`; those who may make many (a test suite that prepares
/// its users) make them on one stream.
const REQUESTS: u32 = 200;
/// Requests of one stream where registration is off.
const USELESS: u32 = 10;
