//! Delayed delivery (XEP-0203): the stamp that says when a stanza was taken.

use starling_xmpp::{Element, Jid, Stanza, Timestamp, ns};

/// A `<delay/>`; `from` is who held the stanza back, where that is to be told.
pub fn element(from: Option<&str>, stamp: Timestamp) -> Element {
    Element::new(ns::DELAY, "delay").opt_attr("from", from).attr("stamp", stamp.to_string())
}

/// The stanza with a stamp of this domain of ours. Stamps of the domain that it had before go: XEP-0203 §2 wants one and only
/// one, and those of others (a room's history) say something else.
pub fn stamped(stanza: &Stanza, domain: &str, stamp: Timestamp) -> Stanza {
    let mut stanza = stanza.clone();
    if stanza.payload.has_ns(ns::DELAY) {
        stanza.payload = stanza.payload.without(|child| {
            child.ns() == ns::DELAY
                && child.name() == "delay"
                && child
                    .attribute("from")
                    .is_some_and(|from| Jid::parse(&from).is_ok_and(|from| from.as_str() == domain))
        });
    }
    stanza.payload = stanza.payload.with(&element(Some(domain), stamp));
    stanza
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{element as xml, stanza};

    #[test]
    fn has_one_stamp_of_ours_and_keeps_those_of_others() {
        let late = stanza(
            "<message><body>hi</body><delay xmlns='urn:xmpp:delay' from='LOCALHOST' stamp='2020-01-01T00:00:00Z'/>\
             <delay xmlns='urn:xmpp:delay' from='room@rooms.example' stamp='2020-01-01T00:00:00Z'/></message>",
        );
        let stamped = stamped(&late, "localhost", Timestamp::from_secs(1_700_000_000));
        let delays: Vec<_> =
            stamped.payload.children().filter(|child| child.ns() == ns::DELAY).map(|c| c.element()).collect();
        assert_eq!(
            delays,
            [
                xml("<delay xmlns='urn:xmpp:delay' from='room@rooms.example' stamp='2020-01-01T00:00:00Z'/>"),
                xml("<delay xmlns='urn:xmpp:delay' from='localhost' stamp='2023-11-14T22:13:20Z'/>"),
            ]
        );
        assert!(stamped.payload.has(ns::CLIENT, "body"));
    }
}
