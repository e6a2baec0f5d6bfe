//! The stream of an XMPP connection: an incremental reader, the header, and what goes wrong.
