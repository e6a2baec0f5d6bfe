//! Namespace names, each written once for the whole server.

/// Content namespace of client streams, and the context of every canonical payload (RFC 6120 section 4.8.2).
pub const CLIENT: &str = "jabber:client";
/// Content namespace of server-to-server streams (RFC 6120 section 4.8.2).
pub const SERVER: &str = "jabber:server";
/// Content namespace of component streams (XEP-0114).
pub const COMPONENT: &str = "jabber:component:accept";
/// The stream root, features and stream errors (RFC 6120 section 4.8.1).
pub const STREAMS: &str = "http://etherx.jabber.org/streams";
/// STARTTLS negotiation (RFC 6120 section 5).
pub const TLS: &str = "urn:ietf:params:xml:ns:xmpp-tls";
/// SASL negotiation (RFC 6120 section 6).
pub const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
/// Resource binding (RFC 6120 section 7).
pub const BIND: &str = "urn:ietf:params:xml:ns:xmpp-bind";
/// The session element of RFC 3921, offered as optional for old clients.
pub const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";
/// Stanza error conditions (RFC 6120 section 8.3).
pub const STANZAS: &str = "urn:ietf:params:xml:ns:xmpp-stanzas";
/// Stream error conditions (RFC 6120 section 4.9).
pub const XMPP_STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
/// WebSocket framing (RFC 7395).
pub const FRAMING: &str = "urn:ietf:params:xml:ns:xmpp-framing";
/// What the `xml` prefix is bound to.
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// What the `xmlns` prefix is bound to.
pub const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// Roster management (RFC 6121 section 2).
pub const ROSTER: &str = "jabber:iq:roster";
/// Stream feature: roster versioning (RFC 6121 section 2.6).
pub const ROSTERVER: &str = "urn:xmpp:features:rosterver";
/// Stream feature: subscription pre-approval (RFC 6121 section 3.4).
pub const SUB_PREAPPROVAL: &str = "urn:xmpp:features:pre-approval";

/// Data forms (XEP-0004).
pub const DATA: &str = "jabber:x:data";
/// Last activity (XEP-0012).
pub const LAST: &str = "jabber:iq:last";
/// Flexible offline message retrieval; also the feature of offline storage (XEP-0013).
pub const OFFLINE: &str = "http://jabber.org/protocol/offline";
/// Disco feature of offline message storage (XEP-0160).
pub const MSGOFFLINE: &str = "msgoffline";
/// Service discovery, information (XEP-0030).
pub const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";
/// Service discovery, items (XEP-0030).
pub const DISCO_ITEMS: &str = "http://jabber.org/protocol/disco#items";
/// Multi-user chat (XEP-0045).
pub const MUC: &str = "http://jabber.org/protocol/muc";
/// Multi-user chat, occupants (XEP-0045).
pub const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
/// Multi-user chat, moderators (XEP-0045).
pub const MUC_ADMIN: &str = "http://jabber.org/protocol/muc#admin";
/// Multi-user chat, owners (XEP-0045).
pub const MUC_OWNER: &str = "http://jabber.org/protocol/muc#owner";
/// Private XML storage (XEP-0049).
pub const PRIVATE: &str = "jabber:iq:private";
/// Ad-hoc commands (XEP-0050).
pub const COMMANDS: &str = "http://jabber.org/protocol/commands";
/// vCards in XML (XEP-0054).
pub const VCARD: &str = "vcard-temp";
/// Result set management (XEP-0059).
pub const RSM: &str = "http://jabber.org/protocol/rsm";
/// Publish-subscribe (XEP-0060).
pub const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
/// Publish-subscribe, notifications (XEP-0060).
pub const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";
/// Publish-subscribe, node owners (XEP-0060).
pub const PUBSUB_OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
/// Publish-subscribe, error conditions (XEP-0060).
pub const PUBSUB_ERRORS: &str = "http://jabber.org/protocol/pubsub#errors";
/// In-band registration (XEP-0077).
pub const REGISTER: &str = "jabber:iq:register";
/// Stream feature of in-band registration (XEP-0077).
pub const REGISTER_FEATURE: &str = "http://jabber.org/features/iq-register";
/// Chat state notifications (XEP-0085).
pub const CHATSTATES: &str = "http://jabber.org/protocol/chatstates";
/// Software version (XEP-0092).
pub const VERSION: &str = "jabber:iq:version";
/// Entity capabilities (XEP-0115).
pub const CAPS: &str = "http://jabber.org/protocol/caps";
/// Message delivery receipts (XEP-0184).
pub const RECEIPTS: &str = "urn:xmpp:receipts";
/// Blocking command (XEP-0191).
pub const BLOCKING: &str = "urn:xmpp:blocking";
/// Application condition of blocked stanzas (XEP-0191).
pub const BLOCKING_ERRORS: &str = "urn:xmpp:blocking:errors";
/// Stream management (XEP-0198).
pub const SM: &str = "urn:xmpp:sm:3";
/// Ping (XEP-0199).
pub const PING: &str = "urn:xmpp:ping";
/// Entity time (XEP-0202).
pub const TIME: &str = "urn:xmpp:time";
/// Delayed delivery (XEP-0203).
pub const DELAY: &str = "urn:xmpp:delay";
/// Application conditions against denial of service (XEP-0205).
pub const ERRORS: &str = "urn:xmpp:errors";
/// Roster versioning is core now; the server dialback namespace (XEP-0220).
pub const DIALBACK: &str = "jabber:server:dialback";
/// Attention (XEP-0224).
pub const ATTENTION: &str = "urn:xmpp:attention:0";
/// Message carbons (XEP-0280).
pub const CARBONS: &str = "urn:xmpp:carbons:2";
/// Feature: which messages are carbon-copied (XEP-0280).
pub const CARBONS_RULES: &str = "urn:xmpp:carbons:rules:0";
/// Stanza forwarding (XEP-0297).
pub const FORWARD: &str = "urn:xmpp:forward:0";
/// Message correction (XEP-0308).
pub const CORRECT: &str = "urn:xmpp:message-correct:0";
/// Message archive management (XEP-0313).
pub const MAM: &str = "urn:xmpp:mam:2";
/// Feature: the extended fields of the archive query (XEP-0313).
pub const MAM_EXTENDED: &str = "urn:xmpp:mam:2#extended";
/// Chat markers (XEP-0333).
pub const MARKERS: &str = "urn:xmpp:chat-markers:0";
/// Message processing hints (XEP-0334).
pub const HINTS: &str = "urn:xmpp:hints";
/// Client state indication (XEP-0352).
pub const CSI: &str = "urn:xmpp:csi:0";
/// Push notifications (XEP-0357).
pub const PUSH: &str = "urn:xmpp:push:0";
/// Unique and stable stanza ids (XEP-0359).
pub const SID: &str = "urn:xmpp:sid:0";
/// HTTP file upload (XEP-0363).
pub const UPLOAD: &str = "urn:xmpp:http:upload:0";
/// Direct TLS, as an ALPN of client streams is named (XEP-0368).
pub const ALPN_CLIENT: &str = "xmpp-client";
/// Bind 2 (XEP-0386).
pub const BIND2: &str = "urn:xmpp:bind:0";
/// Extensible SASL profile (XEP-0388).
pub const SASL2: &str = "urn:xmpp:sasl:2";
/// Channel-binding types offered (XEP-0440).
pub const SASL_CB: &str = "urn:xmpp:sasl-cb:0";
/// Stream limits advertisement (XEP-0478).
pub const STREAM_LIMITS: &str = "urn:xmpp:stream-limits:0";
/// Fast authentication by token (XEP-0484).
pub const FAST: &str = "urn:xmpp:fast:0";
