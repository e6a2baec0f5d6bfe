//! The client's stream header and our answer (RFC 6120 §4.7).

use super::End;
use super::wire::Wire;
use starling_xmpp::stream::{Event, StreamHeader};
use starling_xmpp::{Jid, StreamCondition, ns};

/// Reads the header of a stream and answers it. `account`: who has authenticated, after SASL.
pub(super) async fn open(wire: &mut Wire, account: Option<&Jid>) -> Result<(), End> {
    wire.answered = false;
    let Event::Header(header) = wire.event().await? else { return Err(StreamCondition::BadFormat.into()) };
    if let Some(lang) = header.lang.as_deref().filter(|lang| is_language(lang)) {
        wire.lang = Some(lang.into());
    }
    let from = header.from.as_deref().and_then(|from| Jid::parse(from).ok());
    let verdict = judge(wire, &header, from.as_ref(), account);
    wire.say_header(from.as_ref().map(Jid::as_str));
    verdict
}

fn judge(
    wire: &mut Wire,
    header: &StreamHeader,
    from: Option<&Jid>,
    account: Option<&Jid>,
) -> Result<(), End> {
    let to = header.check(ns::CLIENT)?;
    if let Some(before) = &wire.domain {
        // A restart is the same stream to the same domain (RFC 6120 §4.7.2).
        if *before != to {
            return Err(StreamCondition::NotAuthorized.into());
        }
    } else if wire.settings.serves(&to) {
        wire.domain = Some(to);
    } else {
        return Err(StreamCondition::HostUnknown.into());
    }
    match (account, from) {
        (Some(account), Some(from)) if !account.same_bare(from) => Err(StreamCondition::InvalidFrom.into()),
        (Some(_), None) if header.from.is_some() => Err(StreamCondition::InvalidFrom.into()),
        _ => Ok(()),
    }
}

/// A language tag as BCP 47 has it, near enough, and short.
fn is_language(tag: &str) -> bool {
    !tag.is_empty() && tag.len() <= 35 && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::is_language;

    #[test]
    fn a_language_is_short_and_plain() {
        assert!(is_language("de-AT") && is_language("en"));
        assert!(!is_language("") && !is_language("en' from='x") && !is_language(&"x".repeat(36)));
    }
}
