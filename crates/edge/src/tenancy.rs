//! A connection as its account's home knows it.

use crate::mailbox::Mailbox;
use crate::table::{EdgeTable, Registered};
use starling_wire::{Leave, RouterLink, ToHome, Up};
use starling_xmpp::BareJid;
use std::sync::Arc;

/// From the first word to the home until `Gone`, which is said exactly once, whatever happens to the connection.
pub(crate) struct Tenancy {
    place: Registered,
    account: BareJid,
    router: Arc<dyn RouterLink>,
    /// The home has heard of this connection and not yet that it is gone.
    known: bool,
}

impl Tenancy {
    pub(crate) fn new(table: &Arc<EdgeTable>, account: BareJid, router: Arc<dyn RouterLink>) -> Self {
        Self { place: table.register(&account), account, router, known: false }
    }

    pub(crate) fn account(&self) -> &BareJid {
        &self.account
    }

    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.place.mailbox
    }

    /// Addresses a word to the home.
    pub(crate) fn say(&mut self, up: Up) -> ToHome {
        self.known = true;
        ToHome { account: self.account.clone(), conn: self.place.mailbox.conn, up }
    }

    /// Says it at once.
    pub(crate) fn send(&mut self, up: Up) {
        let word = self.say(up);
        self.router.send(&mut vec![word]);
    }

    /// The last word, unless it has been said.
    pub(crate) fn leave(&mut self, leave: Leave) -> Option<ToHome> {
        let word = self.known.then(|| self.say(Up::Gone(leave)));
        self.known = false;
        word
    }

    /// The home knows that it is over: there is no last word.
    pub(crate) fn released(&mut self) {
        self.known = false;
    }

    /// Whether its socket may be read.
    pub(crate) fn is_read(&self) -> bool {
        self.place.table.is_read(self.place.mailbox.shard)
    }

    pub(crate) fn router(&self) -> &Arc<dyn RouterLink> {
        &self.router
    }
}

impl Drop for Tenancy {
    fn drop(&mut self) {
        if let Some(word) = self.leave(Leave::Lost) {
            self.router.send(&mut vec![word]);
        }
    }
}
