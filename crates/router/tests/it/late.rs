//! What waits for a session that its edge has yet to name.

use crate::site::Site;
use starling_wire::{Down, Token};
use starling_xmpp::{FullJid, Jid, Kind, PresenceType, Stanza};
use std::time::Duration;

/// Its sender has said something newer by the time at which it is clear that nobody will name the session.
#[test]
fn presence_that_waited_is_not_the_last_word() {
    use PresenceType::{Available, Unavailable};
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let desk = site.managed(0, "bob", "desk");
    // A session that has ended where it was, and is still recorded.
    let (phone, shard) = (FullJid::parse("bob@localhost/phone").unwrap(), site.shard("bob"));
    site.cut(1);
    site.books[usize::from(shard.0)].bind(phone, Token(99), site.edge(1));
    site.succeed("bob");
    site.advance(Duration::from_millis(400));
    let mut say = |site: &mut Site, kind| {
        let mut presence = Stanza::presence(kind);
        presence.to = Some(Jid::parse("bob@localhost").unwrap());
        site.send(&mut alice, presence);
        site.run();
    };
    site.told(&desk);
    say(&mut site, Available);
    site.link(1);
    site.run();
    say(&mut site, Unavailable);
    site.advance(Duration::from_secs(7));
    let kind = |down| match down {
        Down::Stanza { stanza, .. } if stanza.from.as_ref().and_then(Jid::local) == Some("alice") => {
            Some(stanza.kind)
        }
        _ => None,
    };
    let kinds: Vec<_> = site.told(&desk).into_iter().filter_map(kind).collect();
    assert_eq!(kinds, [Kind::Presence(Available), Kind::Presence(Unavailable)]);
}
