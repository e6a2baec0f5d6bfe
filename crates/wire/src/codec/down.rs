//! From a home to an edge.

use super::{
    HEAD, Malformed, Result, full, position, read_optional, read_stanza, read_stanza_error,
    read_stream_error, read_trace, stanza_bytes, stanza_error, stream_error, trace,
};
use crate::proto::down_envelope::Down as Said;
use crate::{ConnId, Down, EdgeId, ToEdge, proto};
use bytes::Bytes;
use prost::Message;
use starling_store::Position;
use starling_xmpp::FullJid;

/// The envelope for one message, and its size.
pub(super) fn envelope(message: ToEdge) -> (proto::DownEnvelope, usize) {
    let name = |jid: FullJid| jid.as_jid().as_str().to_owned();
    let said = match message.down {
        Down::Bound { jid } => Said::Bound(name(jid)),
        Down::Refused(error) => Said::Refused(stanza_error(&error)),
        Down::Resumed { jid, sequence, base } => {
            Said::Resumed(proto::Resumed { jid: name(jid), sequence, base })
        }
        Down::NotResumed => Said::NotResumed(proto::Empty {}),
        Down::SmEnabled { resume, base } => Said::Managed(proto::Managed { resume, base }),
        Down::SmFailed => Said::Unmanaged(proto::Empty {}),
        Down::Stanza { number, position: row, waits, counts, stanza, answers, trace: span } => {
            let (stanza, _) = stanza_bytes(&stanza);
            let trace = span.map(trace);
            let position = position(row);
            Said::Stanza(proto::ServerStanza { number, position, waits, counts, stanza, answers, trace })
        }
        Down::Handled { sequence } => Said::Handled(sequence),
        Down::Remember(notes) => Said::Remember(notes),
        Down::Saved { through } => Said::Saved(through.0),
        Down::Decided { through, open } => Said::Decided(proto::Decided { through, open }),
        Down::Released => Said::Released(proto::Empty {}),
        Down::RequestAck => Said::RequestAck(proto::Empty {}),
        Down::Close(None) => Said::Close(Bytes::new()),
        Down::Close(Some(error)) => Said::Close(stream_error(&error)),
    };
    let envelope = proto::DownEnvelope { conn: message.conn.number, down: Some(said) };
    let size = envelope.encoded_len() + HEAD;
    (envelope, size)
}

/// Reads one, for the edge that we are.
pub(super) fn read(edge: EdgeId, envelope: proto::DownEnvelope) -> Result<ToEdge> {
    let down = match envelope.down.ok_or(Malformed("message of a home"))? {
        Said::Bound(jid) => Down::Bound { jid: full(&jid)? },
        Said::Refused(error) => Down::Refused(read_stanza_error(error)?),
        Said::Resumed(proto::Resumed { jid, sequence, base }) => {
            Down::Resumed { jid: full(&jid)?, sequence, base }
        }
        Said::NotResumed(_) => Down::NotResumed,
        Said::Managed(proto::Managed { resume, base }) => Down::SmEnabled { resume, base },
        Said::Unmanaged(_) => Down::SmFailed,
        Said::Stanza(said) => Down::Stanza {
            number: said.number,
            position: said.position.map(Position),
            waits: said.waits,
            counts: said.counts,
            stanza: read_stanza(said.stanza)?,
            answers: said.answers,
            trace: read_trace(said.trace)?,
        },
        Said::Handled(sequence) => Down::Handled { sequence },
        Said::Remember(notes) => Down::Remember(notes),
        Said::Saved(through) => Down::Saved { through: Position(through) },
        Said::Decided(proto::Decided { through, open }) => Down::Decided { through, open },
        Said::Released(_) => Down::Released,
        Said::RequestAck(_) => Down::RequestAck,
        Said::Close(error) => Down::Close(read_optional(error, read_stream_error)?),
    };
    Ok(ToEdge { conn: ConnId { edge, number: envelope.conn }, down })
}
