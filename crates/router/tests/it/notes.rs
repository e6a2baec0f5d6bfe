//! What edges are to remember of sessions.

use crate::site::Site;
use starling_wire::Up;
use starling_xmpp::{Jid, Payload, PresenceType, Stanza};
use std::time::Duration;

#[test]
fn a_few_bytes_of_a_client_are_not_many_for_its_edge_again_and_again() {
    let mut site = Site::new(2);
    let mut alice = site.client(0, "alice", "phone");
    let status = format!("<status xmlns='jabber:client'>{}</status>", "x".repeat(30_000));
    let presence = Stanza::presence(PresenceType::Available).payload(Payload::parse(status.into()).unwrap());
    site.send(&mut alice, presence);
    site.run();
    let before = site.remembered();
    assert!(before > 30_000, "{before}");
    site.told(&alice);
    for turn in 0..500 {
        site.say(&alice, Up::ClientState { active: turn % 2 == 0 });
        let to = Jid::parse(&format!("stranger{turn}@localhost/x")).unwrap();
        site.send(&mut alice, Stanza::presence(PresenceType::Available).to(to));
        site.advance(Duration::from_millis(2));
    }
    let bytes = site.remembered() - before;
    assert!((30_000..600_000).contains(&bytes), "{bytes} in a second");
    // In the end all of it is there, and called handled.
    site.advance(Duration::from_secs(1));
    assert_eq!(site.handled(&alice), alice.sequence);
}
