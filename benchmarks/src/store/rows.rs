//! Rows as the router writes them: a chat message of about 300 bytes.

use bytes::Bytes;
use starling_store::{Direction, LogRow, Origin, Position};
use starling_xmpp::BareJid;

/// A message from a peer, archived and to be kept for a device.
pub(super) fn row(owner: &BareJid, with: &BareJid, position: Position) -> LogRow {
    let stanza = format!(
        "<message xmlns='jabber:client' type='chat' id='{0}' from='{with}/phone' to='{owner}'><body>{BODY}</body>\
         <origin-id xmlns='urn:xmpp:sid:0' id='{0}'/><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
        position.0
    );
    LogRow {
        owner: owner.clone(),
        position,
        origin: Origin { session: 0x1234_5678_9abc_def0_1234_5678_9abc_def0, sequence: position.0 },
        origin_id: Some(position.0.to_string().into()),
        direction: Direction::In,
        with: with.clone(),
        archived: true,
        offline: true,
        expires: None,
        stanza: Bytes::from(stanza),
    }
}

const BODY: &str = "Shall we meet at the station at six, or is that too early???";
