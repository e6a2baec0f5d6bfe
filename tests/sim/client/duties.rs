//! What else a client asks for, and remembers to have been promised: contacts and the block list.

use super::{Client, Session};
use crate::line::Line;
use crate::run::MAYFLY;
use crate::speech;
use starling_tests::history::What;
use starling_xmpp::{Element, IqType, Kind, Stanza, ns};
use std::collections::BTreeMap;

/// The id of the request for copies.
pub(super) const COPIES: &str = "copies";

/// Whom some block now and then.
pub(crate) const PEST: &str = "eve@localhost";

/// What a client has asked for and not been answered yet, by the id of the request.
pub(super) struct Duties {
    contact: String,
    asked: BTreeMap<String, usize>,
    /// What it has asked in this session, and whether it has the answer.
    open: BTreeMap<String, bool>,
    number: u32,
    /// It was told that it gets copies, and that it is available.
    copies: bool,
    available: bool,
}

impl Duties {
    pub(super) fn new(name: &str) -> Self {
        // Each device has a contact of its own, so that it knows what the last word on it was.
        let contact = format!("friend-of-{}", name.replace(['/', '@'], "."));
        Self {
            contact: format!("{contact}@localhost"),
            asked: BTreeMap::new(),
            open: BTreeMap::new(),
            number: 0,
            copies: false,
            available: false,
        }
    }
}

impl Client {
    /// Now and then it changes its roster or the block list.
    pub(super) fn do_duties(&mut self, line: &Line, session: &mut Session) {
        if self.account.local() == Some(MAYFLY) {
            return; // it may forget what it promises
        }
        if self.stage.world.now() > self.stage.plan.duties_until {
            return;
        }
        let often = self.stage.plan.duties;
        if self.dice.permille(often) {
            self.duties.number += 1;
            let name = format!("name {}", self.duties.number);
            let contact = self.duties.contact.clone();
            let item = Element::new(ns::ROSTER, "item").attr("jid", &contact).attr("name", &name);
            let query = Element::new(ns::ROSTER, "query").child(item);
            let place = self.stage.promises().contact(&self.account, &contact, name);
            self.demand(line, session, query, place);
        }
        if self.receives() && self.account.as_str() != PEST && self.dice.permille(often) {
            let on = self.dice.permille(500);
            let verb = if on { "block" } else { "unblock" };
            let item = Element::new(ns::BLOCKING, "item").attr("jid", PEST);
            let now = self.stage.world.now();
            let place = self.stage.promises().block(&self.account, on, now);
            self.demand(line, session, Element::new(ns::BLOCKING, verb).child(item), place);
        }
    }

    fn demand(&mut self, line: &Line, session: &mut Session, payload: Element, place: usize) {
        let id = format!("d{}-{place}", self.stage.number());
        self.stage.tell(&self.name, format!("asks {id}: {payload}"));
        self.duties.asked.insert(id.clone(), place);
        self.duties.open.insert(id.clone(), false);
        self.send(line, session, speech::request(IqType::Set, &id, payload));
    }

    /// All has come to rest: what it has asked in this session has its answers.
    pub(super) fn has_answers(&self) {
        for (id, answered) in &self.duties.open {
            if !answered {
                self.note(What::Fault(format!("no answer to {id}")));
            }
        }
    }

    /// A new session begins.
    pub(super) fn begin_duties(&mut self) {
        (self.duties.copies, self.duties.available) = (false, false);
        self.duties.open.clear();
    }

    /// Its own presence has come back to it.
    pub(super) fn is_available(&mut self) {
        if !std::mem::replace(&mut self.duties.available, true) {
            self.gets_copies();
        }
    }

    fn gets_copies(&self) {
        if self.duties.copies && self.duties.available {
            self.note(What::Copying);
        }
    }

    /// An answer to one of them.
    pub(super) fn answered(&mut self, stanza: &Stanza) {
        if !matches!(stanza.kind, Kind::Iq(IqType::Result | IqType::Error)) {
            return;
        }
        if let Some(answered) = stanza.id.as_deref().and_then(|id| self.duties.open.get_mut(id))
            && std::mem::replace(answered, true)
        {
            self.note(What::Fault(format!("a second answer to {:?}", stanza.id)));
        }
        if stanza.id.as_deref() == Some(COPIES) && stanza.kind == Kind::Iq(IqType::Result) {
            self.duties.copies = true;
            self.gets_copies();
        }
        let Some(place) = stanza.id.as_deref().and_then(|id| self.duties.asked.remove(id)) else { return };
        let done = stanza.kind == Kind::Iq(IqType::Result);
        self.stage.tell(&self.name, format!("answer to {:?}: {done}", stanza.id));
        if done {
            let now = self.stage.world.now();
            self.stage.promises().confirm(place, now);
        }
    }
}
