//! The attributes of a stanza's root, read leniently: what is wrong becomes a fault that can be answered.

use compact_str::CompactString;

use super::{IqType, Kind, MessageType, PresenceType, Stanza};
use crate::{Jid, StanzaCondition, StanzaError};

/// The longest `xml:lang` that is taken, in bytes. RFC 5646 section 4.4.1 asks for room for 35.
const LANG_BYTES: usize = 64;

/// What the root tag says, collected attribute by attribute.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) stanza: Stanza,
    /// The first thing wrong with it.
    pub(crate) fault: Option<StanzaError>,
    /// Whether there is a `from` that is no address: not answerable, the stream has to judge it.
    pub(crate) bad_from: bool,
    typed: bool,
}

impl Head {
    /// The head of the element `name`, or `None` if no stanza is called so.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let kind = match name {
            "message" => Kind::Message(MessageType::Normal),
            "presence" => Kind::Presence(PresenceType::Available),
            "iq" => Kind::Iq(IqType::Get),
            _ => return None,
        };
        Some(Self { stanza: Stanza::new(kind), fault: None, bad_from: false, typed: false })
    }

    /// Takes an attribute without a prefix; `false` if it is none of those that every stanza can have.
    pub(crate) fn attribute(&mut self, name: &str, value: &str) -> bool {
        match name {
            "to" => match Jid::parse(value) {
                Ok(to) => self.stanza.to = Some(to),
                Err(_) => self.fail(StanzaCondition::JidMalformed),
            },
            "from" => match Jid::parse(value) {
                Ok(from) => self.stanza.from = Some(from),
                Err(_) => self.bad_from = true,
            },
            "id" => self.stanza.id = Some(CompactString::new(value)),
            "type" => self.kind(value),
            _ => return false,
        }
        true
    }

    /// Takes `xml:lang`.
    pub(crate) fn lang(&mut self, value: &str) {
        if value.len() > LANG_BYTES {
            self.fail(StanzaCondition::BadRequest);
        } else {
            self.stanza.lang = Some(CompactString::new(value));
        }
    }

    /// Says what is wrong unless something was before.
    pub(crate) fn fail(&mut self, condition: StanzaCondition) {
        self.fault.get_or_insert_with(|| StanzaError::new(condition));
    }

    /// To be called when all attributes have been taken.
    pub(crate) fn complete(&mut self) {
        let incomplete = self.stanza.is_iq() && (!self.typed || self.stanza.id.is_none());
        if incomplete {
            self.fail(StanzaCondition::BadRequest);
        }
    }

    /// To be called when the children are there (RFC 6120 section 8.2.3).
    pub(crate) fn check_children(&mut self, count: usize) {
        if self.stanza.is_request() && count != 1 {
            self.fail(StanzaCondition::BadRequest);
        }
    }

    fn kind(&mut self, value: &str) {
        self.typed = true;
        let kind = match self.stanza.kind {
            Kind::Message(_) => Some(Kind::Message(MessageType::from_name(value))),
            Kind::Presence(_) => PresenceType::from_name(value).map(Kind::Presence),
            Kind::Iq(_) => IqType::from_name(value).map(Kind::Iq),
        };
        match kind {
            Some(kind) => self.stanza.kind = kind,
            None => self.fail(StanzaCondition::BadRequest),
        }
    }
}
