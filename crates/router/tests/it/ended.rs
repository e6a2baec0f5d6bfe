//! Sessions that are over: what their clients have acknowledged does not come again, whoever is lost (promise 3).

use crate::bench::{body, chat};
use crate::site::{Client, Site};
use starling_wire::{Down, Leave, Up};
use starling_xmpp::{Element, PresenceType, Stanza};
use std::time::Duration;

/// What bob's next session is given.
fn comes_back(site: &mut Site) -> Vec<String> {
    let mut next = site.connect(0, "bob", "next");
    site.run();
    site.send(&mut next, Stanza::presence(PresenceType::Available));
    site.advance(Duration::from_secs(6));
    site.messages(&next)
}

/// Its home is lost before the store has the cursor: the edge still knows, and tells the next home.
#[test]
fn what_was_acknowledged_before_the_end_does_not_come_again() {
    for linked in [true, false] {
        let mut site = Site::new(2);
        let mut alice = site.client(0, "alice", "phone");
        let bob = site.managed(1, "bob", "phone");
        site.chat(&mut alice, "bob", "once");
        assert_eq!(site.messages(&bob), ["once"]);
        site.store.hold();
        site.say(&bob, Up::Acknowledged { handled: 1 });
        site.say(&bob, Up::Gone(Leave::Closed));
        site.run();
        assert!(site.kept(1) > 0, "nobody else knows");
        if linked {
            // The cursor is on its way, and its answer comes.
            site.store.release();
            site.run();
            assert_eq!(site.kept(1), 0, "it is told as soon as the store does");
        } else {
            site.crash("bob");
            site.store.drop_held();
            site.store.release();
            let shard = site.shard("bob");
            site.begin(shard);
            site.run();
        }
        assert_eq!(comes_back(&mut site), [""; 0]);
        assert_eq!(site.kept(1), 0);
    }
}

/// Its home ends it, and its socket goes after that.
#[test]
fn what_a_session_had_acknowledged_that_was_replaced_is_remembered_too() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let bob = site.managed(1, "bob", "phone");
    site.chat(&mut alice, "bob", "once");
    site.store.hold();
    site.say(&bob, Up::Acknowledged { handled: 1 });
    site.run();
    let other = site.connect(0, "bob", "phone");
    site.run();
    site.say(&bob, Up::Gone(Leave::Lost));
    site.run();
    assert!(site.kept(1) > 0);
    site.store.release();
    site.run();
    assert_eq!(site.kept(1), 0);
    assert!(site.is_there(&other));
}

/// It has ended, and waits for a receipt of another shard.
#[test]
fn its_edge_forgets_it_as_soon_as_its_last_message_has_its_receipt() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let mut bob = site.managed(1, "bob", "phone");
    site.chat(&mut alice, "bob", "once");
    site.close_post("alice", true);
    site.chat(&mut bob, "alice", "answer");
    site.say(&bob, Up::Acknowledged { handled: 1 });
    site.say(&bob, Up::Gone(Leave::Closed));
    site.advance(Duration::from_secs(3));
    assert!(site.kept(1) > 0, "it has yet to be sent");
    site.close_post("alice", false);
    site.advance(Duration::from_secs(4));
    assert_eq!(site.kept(1), 0);
    assert_eq!(site.messages(&alice), ["answer"]);
}

/// One of bob's devices, and how many stanzas it has had.
struct Device {
    client: Client,
    had: u32,
}

impl Device {
    fn new(site: &mut Site, resource: &str) -> Self {
        Self { client: site.managed(1, "bob", resource), had: 0 }
    }

    /// One that takes nothing but what is for its own address.
    fn aside(site: &mut Site, resource: &str) -> Self {
        let mut device = Self::new(site, resource);
        let low = Element::new("jabber:client", "priority").text("-1");
        site.send(&mut device.client, Stanza::presence(PresenceType::Available).child(low));
        site.run();
        device
    }

    /// The messages that it was sent, without copies.
    fn reads(&mut self, site: &mut Site) -> Vec<String> {
        let mut messages = Vec::new();
        for down in site.told(&self.client) {
            let Down::Stanza { stanza, counts, .. } = down else { continue };
            self.had += u32::from(counts);
            messages.extend(stanza.payload.has("jabber:client", "body").then(|| body(&stanza)));
        }
        messages
    }

    fn acknowledges(&self, site: &mut Site) {
        site.say(&self.client, Up::Acknowledged { handled: self.had });
    }

    /// It gets something newer than all that waits, and the cursor says that it has that.
    fn has_something_newer(&mut self, site: &mut Site, alice: &mut Client) {
        let alone = Element::new("urn:xmpp:hints", "no-copy");
        site.send(alice, chat(self.client.full.as_str(), "newer").child(alone));
        site.run();
        assert_eq!(self.reads(site), ["newer"]);
        self.acknowledges(site);
        site.advance(Duration::from_secs(3));
    }

    /// It acknowledges what it was given late and leaves, and its home is lost before the cursor is written.
    fn is_forgotten(&mut self, site: &mut Site, late: &[&str]) {
        assert_eq!(self.reads(site), late);
        site.store.hold();
        self.acknowledges(site);
        site.say(&self.client, Up::Gone(Leave::Closed));
        site.run();
        site.crash("bob");
        site.store.drop_held();
        site.store.release();
        let shard = site.shard("bob");
        site.begin(shard);
        site.run();
        assert_eq!(comes_back(site), [""; 0]);
        assert_eq!(site.kept(1), 1, "of another device");
    }
}

#[test]
fn what_was_read_late_and_acknowledged_does_not_come_again() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let mut desk = Device::aside(&mut site, "desk");
    for body in ["one", "two"] {
        site.chat(&mut alice, "bob", body);
    }
    desk.reads(&mut site);
    // What waits is not read while its link is busy.
    site.press(true);
    let mut bob = Device::new(&mut site, "phone");
    desk.has_something_newer(&mut site, &mut alice);
    site.press(false);
    site.advance(Duration::from_secs(1));
    bob.is_forgotten(&mut site, &["one", "two"]);
}

#[test]
fn what_another_left_and_was_acknowledged_does_not_come_again() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let mut desk = Device::aside(&mut site, "desk");
    let first = site.client(0, "bob", "first");
    for body in ["one", "two"] {
        site.chat(&mut alice, "bob", body);
    }
    desk.reads(&mut site);
    let mut bob = Device::aside(&mut site, "phone");
    desk.has_something_newer(&mut site, &mut alice);
    site.say(&first, Up::Gone(Leave::Lost));
    site.run();
    site.send(&mut bob.client, Stanza::presence(PresenceType::Available));
    site.run();
    bob.is_forgotten(&mut site, &["one", "two"]);
}
