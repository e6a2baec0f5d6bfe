//! The operations, and how a batch of them is written into an entry.

use bytes::Bytes;
use prost::Message;
use starling_wire::{EdgeId, Epoch, Incarnation, RouterId, Token};
use starling_xmpp::FullJid;

/// One change of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A reign begins.
    Open {
        /// The era of the cluster.
        era: u64,
        /// The life of the process whose reign it is.
        incarnation: Incarnation,
        /// The router whose reign it is.
        router: RouterId,
        /// Its positions are above this one, and above all that was granted before.
        floor: u64,
        /// Positions below this one are granted.
        ceiling: u64,
    },
    /// More positions are granted.
    Grant {
        /// The reign that asks.
        epoch: Epoch,
        /// Positions below this one.
        ceiling: u64,
    },
    /// A session is bound, in place of whichever had its address.
    Bind {
        /// The reign that asks.
        epoch: Epoch,
        /// Its address.
        jid: FullJid,
        /// Its secret name.
        token: Token,
        /// The edge that has its socket.
        edge: EdgeId,
    },
    /// A session was resumed at another edge, or again at its own.
    Move {
        /// The reign that asks.
        epoch: Epoch,
        /// Its address.
        jid: FullJid,
        /// Its secret name.
        token: Token,
        /// The edge that has its socket now.
        edge: EdgeId,
        /// Names the attempt, so that it may be asked for again. Not 0.
        attempt: u64,
    },
    /// A session has ended.
    Unbind {
        /// The reign that asks.
        epoch: Epoch,
        /// Its address.
        jid: FullJid,
        /// Its secret name.
        token: Token,
    },
    /// One of a later version.
    Unknown,
}

impl Op {
    /// The reign that asks for it; none for the one that opens a reign.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Grant { epoch, .. }
            | Self::Bind { epoch, .. }
            | Self::Move { epoch, .. }
            | Self::Unbind { epoch, .. } => Some(*epoch),
            Self::Open { .. } | Self::Unknown => None,
        }
    }

    /// About how many bytes it takes in an entry.
    pub fn weight(&self) -> usize {
        match self {
            Self::Bind { jid, .. } | Self::Move { jid, .. } | Self::Unbind { jid, .. } => {
                64 + jid.as_str().len()
            }
            Self::Open { .. } | Self::Grant { .. } | Self::Unknown => 64,
        }
    }
}

/// The operations of one entry.
#[derive(Debug)]
pub struct Batch;

impl Batch {
    /// The batch as an entry holds it.
    pub fn encode(ops: &[Op]) -> Bytes {
        BatchPb { ops: ops.iter().map(OpPb::from).collect() }.encode_to_vec().into()
    }

    /// The operations of an entry, in order. One that is not known is [`Op::Unknown`], so that there is one outcome for each.
    ///
    /// # Errors
    /// When it is not a batch at all.
    pub fn decode(bytes: &[u8]) -> Result<Vec<Op>, prost::DecodeError> {
        Ok(BatchPb::decode(bytes)?.ops.into_iter().map(Op::from).collect())
    }
}

#[derive(Clone, PartialEq, Message)]
struct BatchPb {
    #[prost(message, repeated, tag = "1")]
    ops: Vec<OpPb>,
}

#[derive(Clone, PartialEq, Message)]
struct OpPb {
    #[prost(oneof = "KindPb", tags = "1, 2, 3, 4, 5")]
    kind: Option<KindPb>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum KindPb {
    #[prost(message, tag = "1")]
    Open(OpenPb),
    #[prost(message, tag = "2")]
    Grant(GrantPb),
    #[prost(message, tag = "3")]
    Bind(SessionPb),
    #[prost(message, tag = "4")]
    Move(SessionPb),
    #[prost(message, tag = "5")]
    Unbind(SessionPb),
}

#[derive(Clone, PartialEq, Message)]
struct OpenPb {
    #[prost(uint64, tag = "1")]
    era: u64,
    #[prost(fixed64, tag = "2")]
    incarnation: u64,
    #[prost(fixed64, tag = "3")]
    router: u64,
    #[prost(uint64, tag = "4")]
    floor: u64,
    #[prost(uint64, tag = "5")]
    ceiling: u64,
}

#[derive(Clone, PartialEq, Message)]
struct GrantPb {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(uint64, tag = "2")]
    ceiling: u64,
}

#[derive(Clone, PartialEq, Message)]
struct SessionPb {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(string, tag = "2")]
    jid: String,
    #[prost(fixed64, tag = "3")]
    token_high: u64,
    #[prost(fixed64, tag = "4")]
    token_low: u64,
    #[prost(fixed64, tag = "5")]
    edge: u64,
    #[prost(fixed64, tag = "6")]
    attempt: u64,
}

impl SessionPb {
    fn new(epoch: Epoch, jid: &FullJid, token: Token, edge: EdgeId, attempt: u64) -> Self {
        let [low, high] = halves(token);
        let jid = jid.as_str().to_owned();
        Self { epoch: epoch.0, jid, token_high: high, token_low: low, edge: edge.0, attempt }
    }

    fn jid(&self) -> Option<FullJid> {
        FullJid::parse(&self.jid).ok()
    }

    fn token(&self) -> Token {
        Token(u128::from(self.token_high) << 64 | u128::from(self.token_low))
    }
}

fn halves(token: Token) -> [u64; 2] {
    let low = u64::try_from(token.0 & u128::from(u64::MAX)).unwrap_or_default();
    let high = u64::try_from(token.0 >> 64).unwrap_or_default();
    [low, high]
}

impl From<&Op> for OpPb {
    fn from(op: &Op) -> Self {
        let kind = match op {
            Op::Open { era, incarnation, router, floor, ceiling } => KindPb::Open(OpenPb {
                era: *era,
                incarnation: incarnation.0,
                router: router.0,
                floor: *floor,
                ceiling: *ceiling,
            }),
            Op::Grant { epoch, ceiling } => KindPb::Grant(GrantPb { epoch: epoch.0, ceiling: *ceiling }),
            Op::Bind { epoch, jid, token, edge } => {
                KindPb::Bind(SessionPb::new(*epoch, jid, *token, *edge, 0))
            }
            Op::Move { epoch, jid, token, edge, attempt } => {
                KindPb::Move(SessionPb::new(*epoch, jid, *token, *edge, *attempt))
            }
            Op::Unbind { epoch, jid, token } => {
                KindPb::Unbind(SessionPb::new(*epoch, jid, *token, EdgeId(0), 0))
            }
            Op::Unknown => return Self { kind: None },
        };
        Self { kind: Some(kind) }
    }
}

impl From<OpPb> for Op {
    fn from(op: OpPb) -> Self {
        let read = match op.kind {
            Some(KindPb::Open(open)) => Some(Self::Open {
                era: open.era,
                incarnation: Incarnation(open.incarnation),
                router: RouterId(open.router),
                floor: open.floor,
                ceiling: open.ceiling,
            }),
            Some(KindPb::Grant(grant)) => {
                Some(Self::Grant { epoch: Epoch(grant.epoch), ceiling: grant.ceiling })
            }
            Some(KindPb::Bind(one)) => one.jid().map(|jid| Self::Bind {
                epoch: Epoch(one.epoch),
                jid,
                token: one.token(),
                edge: EdgeId(one.edge),
            }),
            Some(KindPb::Move(one)) => one.jid().map(|jid| Self::Move {
                epoch: Epoch(one.epoch),
                jid,
                token: one.token(),
                edge: EdgeId(one.edge),
                attempt: one.attempt,
            }),
            Some(KindPb::Unbind(one)) => {
                one.jid().map(|jid| Self::Unbind { epoch: Epoch(one.epoch), jid, token: one.token() })
            }
            None => None,
        };
        // An address that this version does not take is one that it cannot have a row for.
        read.unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid() -> FullJid {
        FullJid::parse("alice@example.org/phone").unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let (epoch, token, edge) = (Epoch(3 << 40 | 7), Token(u128::MAX - 5), EdgeId(u64::MAX));
        let ops = vec![
            Op::Open {
                era: 3,
                incarnation: Incarnation(1),
                router: RouterId(u64::MAX),
                floor: 4,
                ceiling: u64::MAX,
            },
            Op::Grant { epoch, ceiling: 9 },
            Op::Bind { epoch, jid: jid(), token, edge },
            Op::Move { epoch, jid: jid(), token, edge, attempt: 77 },
            Op::Unbind { epoch, jid: jid(), token },
            Op::Unknown,
        ];
        assert_eq!(Batch::decode(&Batch::encode(&ops)).unwrap(), ops);
        assert_eq!(Batch::decode(&[]).unwrap(), []);
        assert!(ops.iter().map(Op::weight).sum::<usize>() >= Batch::encode(&ops).len());
    }

    #[test]
    fn operations_and_fields_of_later_versions_are_passed_over() {
        // Field 15 of a batch, an operation of kind 6, and a grant with a field 9.
        let mut bytes = vec![0x78, 5];
        bytes.extend([0x0a, 2, 0x32, 0]);
        bytes.extend([0x0a, 6, 0x12, 4, 0x08, 1, 0x48, 1]);
        assert_eq!(
            Batch::decode(&bytes).unwrap(),
            [Op::Unknown, Op::Grant { epoch: Epoch(1), ceiling: 0 }],
            "one outcome for each"
        );
    }

    #[test]
    fn an_address_that_is_none_is_an_operation_that_cannot_be_done() {
        let mut one = SessionPb::new(Epoch(1), &jid(), Token(1), EdgeId(1), 0);
        one.jid = "no address".to_owned();
        let batch = BatchPb { ops: vec![OpPb { kind: Some(KindPb::Bind(one)) }] };
        assert_eq!(Batch::decode(&batch.encode_to_vec()).unwrap(), [Op::Unknown]);
        assert!(Batch::decode(b"\xff").is_err());
    }
}
