//! What routers ask one another about accounts and sessions, and how that is written.
//!
//! A message is protobuf, read and written by hand-made types: it goes within an item of a link whose version both ends
//! have agreed on, and nobody else reads it.

use bytes::Bytes;
use prost::Message;
use starling_store::AccountRow;
use starling_wire::frame::Leaving;
use starling_wire::{RouterId, SessionInfo, Shard, TraceRule};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, FullJid, Timestamp};
use std::time::Duration;

/// What is asked of the home of an account, or of a router.
#[derive(Debug, Clone)]
pub(super) enum Question {
    /// The account's row with its keys.
    Account(BareJid),
    /// A new account.
    Create(BareJid, Credentials),
    /// New keys.
    SetKeys(BareJid, Credentials),
    /// Its removal.
    Delete(BareJid),
    /// Its sessions; all of the router's homes for `None`. At most so many.
    Sessions(Option<BareJid>, u32),
    /// How many sessions the router's homes have.
    Count,
    /// That a shard which the router leads be led by another.
    Give(Shard, RouterId),
    /// That it tells its edges of accounts which are traced, or no longer.
    Traces(Vec<TraceRule>),
    /// That the router leave.
    Leave,
    /// How far it is with that.
    Going,
}

/// What is answered.
#[allow(clippy::large_enum_variant)] // nearly all are of the large one
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// The row, if there is one.
    Account(Option<AccountRow>),
    /// Whether it was done: there is no such account, or there was one already.
    Done(bool),
    /// Sessions.
    Sessions(Vec<SessionInfo>),
    /// All sessions, and those of them that wait to be resumed.
    Count(u64, u64),
    /// How far the router is with leaving.
    Going(Leaving),
    /// The account's home is not there.
    NotHome,
    /// It cannot be done now; why, for operators.
    Unavailable(String),
}

/// Rules that one question holds at the most; a router knows fewer.
const MOST_RULES: usize = 1_024;

/// Sessions that one answer holds at the most.
pub(super) const MOST_SESSIONS: usize = 4_096;
/// And bytes: with addresses of the usual length that many sessions fit.
const MOST_BYTES: usize = 768 << 10;

/// What came cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a question or an answer of another router cannot be read")]
pub(super) struct Unreadable;

impl Question {
    /// The account that it is about, where its home answers.
    pub(super) fn account(&self) -> Option<&BareJid> {
        match self {
            Self::Account(account)
            | Self::Create(account, _)
            | Self::SetKeys(account, _)
            | Self::Delete(account) => Some(account),
            Self::Sessions(account, _) => account.as_ref(),
            Self::Count | Self::Give(..) | Self::Traces(_) | Self::Leave | Self::Going => None,
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let with = |kind, account: &BareJid, keys: Option<&Credentials>| QuestionPb {
            kind,
            account: account.as_str().to_owned(),
            keys: keys.map(Credentials::encode).unwrap_or_default(),
            ..QuestionPb::default()
        };
        let written = match self {
            Self::Account(account) => with(1, account, None),
            Self::Create(account, keys) => with(2, account, Some(keys)),
            Self::SetKeys(account, keys) => with(3, account, Some(keys)),
            Self::Delete(account) => with(4, account, None),
            Self::Sessions(account, limit) => QuestionPb {
                kind: 5,
                account: account.as_ref().map(|account| account.as_str().to_owned()).unwrap_or_default(),
                limit: *limit,
                ..QuestionPb::default()
            },
            Self::Count => QuestionPb { kind: 6, ..QuestionPb::default() },
            Self::Give(shard, to) => {
                QuestionPb { kind: 7, limit: shard.0.into(), router: to.0, ..QuestionPb::default() }
            }
            Self::Traces(rules) => {
                let rules = rules.iter().map(RulePb::from).collect();
                QuestionPb { kind: 20, rules, ..QuestionPb::default() }
            }
            Self::Leave => QuestionPb { kind: 8, ..QuestionPb::default() },
            Self::Going => QuestionPb { kind: 9, ..QuestionPb::default() },
        };
        written.encode_to_vec().into()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, Unreadable> {
        let QuestionPb { kind, account, keys, limit, router, rules } =
            QuestionPb::decode(bytes).map_err(|_| Unreadable)?;
        let bare = || BareJid::parse(&account).map_err(|_| Unreadable);
        let keys = || Credentials::decode(&keys).map_err(|_| Unreadable);
        Ok(match kind {
            1 => Self::Account(bare()?),
            2 => Self::Create(bare()?, keys()?),
            3 => Self::SetKeys(bare()?, keys()?),
            4 => Self::Delete(bare()?),
            5 if account.is_empty() => Self::Sessions(None, limit),
            5 => Self::Sessions(Some(bare()?), limit),
            6 => Self::Count,
            7 => Self::Give(Shard(u16::try_from(limit).map_err(|_| Unreadable)?), RouterId(router)),
            20 if rules.len() <= MOST_RULES => {
                Self::Traces(rules.into_iter().map(RulePb::read).collect::<Result<_, _>>()?)
            }
            8 => Self::Leave,
            9 => Self::Going,
            _ => return Err(Unreadable),
        })
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Bytes {
        let written = match self {
            Self::Account(row) => {
                AnswerPb { kind: 1, row: row.as_ref().map(RowPb::from), ..AnswerPb::default() }
            }
            Self::Done(done) => AnswerPb { kind: 2, number: (*done).into(), ..AnswerPb::default() },
            Self::Sessions(sessions) => {
                let sessions: Vec<_> = sessions.iter().take(MOST_SESSIONS).map(SessionPb::from).collect();
                let size: usize = sessions.iter().map(|session| session.encoded_len() + 4).sum();
                if size > MOST_BYTES {
                    // A list with holes would be taken for the whole.
                    let why = format!(
                        "the list of {} sessions is larger than what one router may send another: \
                         ask for fewer, or for those of one account",
                        sessions.len()
                    );
                    return Self::Unavailable(why).encode();
                }
                AnswerPb { kind: 3, sessions, ..AnswerPb::default() }
            }
            Self::Count(all, detached) => {
                AnswerPb { kind: 4, number: *all, other: *detached, ..AnswerPb::default() }
            }
            Self::NotHome => AnswerPb { kind: 5, ..AnswerPb::default() },
            Self::Going(Leaving { phase, left }) => {
                AnswerPb { kind: 7, number: (*phase).into(), other: *left, ..AnswerPb::default() }
            }
            Self::Unavailable(why) => AnswerPb { kind: 6, why: why.clone(), ..AnswerPb::default() },
        };
        written.encode_to_vec().into()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, Unreadable> {
        let AnswerPb { kind, row, number, sessions, other, why } =
            AnswerPb::decode(bytes).map_err(|_| Unreadable)?;
        Ok(match kind {
            1 => Self::Account(row.map(RowPb::read).transpose()?),
            2 => Self::Done(number != 0),
            3 => Self::Sessions(sessions.into_iter().map(SessionPb::read).collect::<Result<_, _>>()?),
            4 => Self::Count(number, other),
            5 => Self::NotHome,
            6 => Self::Unavailable(why),
            7 => Self::Going(Leaving { phase: u32::try_from(number).map_err(|_| Unreadable)?, left: other }),
            _ => return Err(Unreadable),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct QuestionPb {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    account: String,
    #[prost(bytes = "bytes", tag = "3")]
    keys: Bytes,
    /// The number of a shard, too.
    #[prost(uint32, tag = "4")]
    limit: u32,
    #[prost(fixed64, tag = "5")]
    router: u64,
    #[prost(message, repeated, tag = "20")]
    rules: Vec<RulePb>,
}

#[derive(Clone, PartialEq, Message)]
struct RulePb {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    account: String,
    #[prost(uint64, tag = "3")]
    left: u64,
    #[prost(uint32, tag = "4")]
    most: u32,
    #[prost(bool, tag = "5")]
    stopped: bool,
}

impl From<&TraceRule> for RulePb {
    fn from(rule: &TraceRule) -> Self {
        let TraceRule { id, account, left, most, stopped } = rule.clone();
        Self { id, account, left: u64::try_from(left.as_millis()).unwrap_or(u64::MAX), most, stopped }
    }
}

impl RulePb {
    fn read(self) -> Result<TraceRule, Unreadable> {
        let Self { id, account, left, most, stopped } = self;
        let account = BareJid::parse(&account).map_err(|_| Unreadable)?.as_str().to_owned();
        Ok(TraceRule { id, account, left: Duration::from_millis(left), most, stopped })
    }
}

#[derive(Clone, PartialEq, Message)]
struct AnswerPb {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(message, optional, tag = "2")]
    row: Option<RowPb>,
    #[prost(uint64, tag = "3")]
    number: u64,
    #[prost(message, repeated, tag = "4")]
    sessions: Vec<SessionPb>,
    #[prost(uint64, tag = "5")]
    other: u64,
    #[prost(string, tag = "6")]
    why: String,
}

#[derive(Clone, PartialEq, Message)]
struct RowPb {
    #[prost(fixed64, tag = "1")]
    generation: u64,
    #[prost(bytes = "bytes", tag = "2")]
    credentials: Bytes,
    #[prost(uint64, tag = "3")]
    created: u64,
    #[prost(bool, tag = "4")]
    disabled: bool,
}

impl From<&AccountRow> for RowPb {
    fn from(row: &AccountRow) -> Self {
        Self {
            generation: row.generation,
            credentials: row.credentials.encode(),
            created: row.created.0,
            disabled: row.disabled,
        }
    }
}

impl RowPb {
    fn read(self) -> Result<AccountRow, Unreadable> {
        let Self { generation, credentials, created, disabled } = self;
        let credentials = Credentials::decode(&credentials).map_err(|_| Unreadable)?;
        Ok(AccountRow { generation, credentials, created: Timestamp(created), disabled })
    }
}

#[derive(Clone, PartialEq, Message)]
struct SessionPb {
    #[prost(string, tag = "1")]
    jid: String,
    #[prost(bool, tag = "2")]
    available: bool,
    #[prost(sint32, tag = "3")]
    priority: i32,
    #[prost(bool, tag = "4")]
    detached: bool,
    #[prost(bool, tag = "5")]
    stream_management: bool,
    #[prost(uint64, tag = "6")]
    since: u64,
}

impl From<&SessionInfo> for SessionPb {
    fn from(session: &SessionInfo) -> Self {
        let SessionInfo { jid, available, priority, detached, stream_management, since } = session;
        Self {
            jid: jid.as_str().to_owned(),
            available: *available,
            priority: (*priority).into(),
            detached: *detached,
            stream_management: *stream_management,
            since: *since,
        }
    }
}

impl SessionPb {
    fn read(self) -> Result<SessionInfo, Unreadable> {
        let Self { jid, available, priority, detached, stream_management, since } = self;
        let jid = FullJid::parse(&jid).map_err(|_| Unreadable)?;
        let priority = i8::try_from(priority).map_err(|_| Unreadable)?;
        Ok(SessionInfo { jid, available, priority, detached, stream_management, since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_sessions_that_no_message_holds_is_none() {
        let sessions = |resource: usize| {
            let jid = format!("{}@example.org/{}", "a".repeat(20), "b".repeat(resource));
            let session = SessionInfo {
                jid: FullJid::parse(&jid).unwrap(),
                available: true,
                priority: -128,
                detached: true,
                stream_management: true,
                since: u64::MAX,
            };
            Answer::decode(Answer::Sessions(vec![session; 5_000]).encode()).unwrap()
        };
        assert!(matches!(sessions(100), Answer::Sessions(all) if all.len() == MOST_SESSIONS));
        assert!(matches!(sessions(1_000), Answer::Unavailable(why) if why.contains("ask for fewer")));
    }

    #[test]
    fn questions_and_answers_arrive_as_they_were_sent() {
        let account = BareJid::parse("alice@example.org").unwrap();
        let keys = Credentials::derive("secret", [7; 16], 4_096).unwrap();
        let questions = [
            Question::Account(account.clone()),
            Question::Create(account.clone(), keys.clone()),
            Question::SetKeys(account.clone(), keys.clone()),
            Question::Delete(account.clone()),
            Question::Sessions(None, 7),
            Question::Sessions(Some(account), 0),
            Question::Count,
            Question::Give(Shard(1_023), RouterId(u64::MAX)),
            Question::Traces(vec![TraceRule {
                id: 1,
                account: "alice@example.org".to_owned(),
                left: Duration::from_millis(1_500),
                most: 3,
                stopped: true,
            }]),
            Question::Leave,
            Question::Going,
        ];
        for question in questions {
            assert_eq!(
                format!("{:?}", Question::decode(question.encode()).unwrap()),
                format!("{question:?}")
            );
        }
        let row = AccountRow { generation: 1, credentials: keys, created: Timestamp(9), disabled: true };
        let session = SessionInfo {
            jid: FullJid::parse("alice@example.org/phone").unwrap(),
            available: true,
            priority: -5,
            detached: true,
            stream_management: false,
            since: 3,
        };
        let answers = [
            Answer::Account(None),
            Answer::Account(Some(row)),
            Answer::Done(true),
            Answer::Done(false),
            Answer::Sessions(vec![session]),
            Answer::Count(1, 2),
            Answer::NotHome,
            Answer::Going(Leaving { phase: 2, left: 7 }),
            Answer::Unavailable("why".to_owned()),
        ];
        for answer in answers {
            assert_eq!(format!("{:?}", Answer::decode(answer.encode()).unwrap()), format!("{answer:?}"));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let unknown = QuestionPb { kind: 99, ..QuestionPb::default() }.encode_to_vec();
        let nobody = QuestionPb { kind: 1, account: "@".to_owned(), ..QuestionPb::default() }.encode_to_vec();
        let rule = RulePb { account: "@".to_owned(), ..RulePb::default() };
        let rules = QuestionPb { kind: 20, rules: vec![rule], ..QuestionPb::default() }.encode_to_vec();
        for bytes in [unknown, nobody, rules, b"\xff".to_vec()] {
            assert!(Question::decode(bytes.clone().into()).is_err() && Answer::decode(bytes.into()).is_err());
        }
    }
}
