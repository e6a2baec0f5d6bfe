//! Requests of an account's sessions to accounts of other shards, until they have an answer.
//!
//! Nobody keeps a request on its way: with the home that it went to, or the link, it is lost, and so may its answer be. The client
//! would wait for ever. So when that home is another one, or can be reached again, it is waited for answers to what was asked
//! before, for some seconds; then the client is told that there is none, and one that comes later is not passed on. The same where
//! the asker's own home is another one: what it had asked is in its edge's notes.

use crate::home::Home;
use crate::shared::Shared;
use starling_wire::{Shard, Token};
use starling_xmpp::{BareJid, IqType, Jid, Kind, Stanza};
use std::collections::VecDeque;
use std::time::Duration;

/// How many are remembered of one account; of older ones an answer is passed on, and its absence not told.
const MOST: usize = 64;
/// How many of those that are over stand in the notes of a session.
const MOST_NOTED: usize = 32;
/// The same in bytes. All of them stand in the notes of a session, which go to its edge in one piece.
const MOST_BYTES: usize = 64 << 10;
/// How long it is waited for an answer that may be lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Of one account.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    open: VecDeque<Request>,
    /// Those that have their answer, or whose client was told that they have none.
    over: VecDeque<(Token, Digest)>,
}

/// What a request is known by when it is over.
pub(crate) type Digest = u64;

pub(crate) fn is_one(stanza: &Stanza) -> bool {
    matches!(stanza.kind, Kind::Iq(IqType::Get | IqType::Set))
}

/// Of the request that this answers, to that account where no address is named.
pub(crate) fn answered_by(answer: &Stanza, own: &BareJid) -> Digest {
    digest(answer.id.as_deref(), Some(answer.from.as_ref().unwrap_or(own.as_jid())))
}

/// Of a request, the same way.
pub(crate) fn asked(request: &Stanza, own: &BareJid) -> Digest {
    digest(request.id.as_deref(), Some(request.to.as_ref().unwrap_or(own.as_jid())))
}

/// Of the request with this id to that address.
fn digest(id: Option<&str>, to: Option<&Jid>) -> Digest {
    starling_wire::record::request(id, to)
}

/// One of them.
#[derive(Debug)]
struct Request {
    token: Token,
    shard: Shard,
    /// Its head.
    stanza: Stanza,
    /// Since when its answer may be lost (monotonic).
    doubt: Option<Duration>,
}

impl Request {
    fn bytes(&self) -> usize {
        let Stanza { id, to, from, .. } = &self.stanza;
        let jids = [to, from].into_iter().flatten().map(|jid| jid.as_str().len()).sum::<usize>();
        id.as_ref().map_or(0, |id| id.len()) + jids
    }

    fn is_answered_by(&self, token: Token, answer: &Stanza) -> bool {
        self.token == token && self.stanza.id == answer.id && self.stanza.to == answer.from
    }

    fn digest(&self) -> Digest {
        digest(self.stanza.id.as_deref(), self.stanza.to.as_ref())
    }
}

impl Requests {
    /// A request of this session leaves for that shard.
    pub(crate) fn leaves(&mut self, token: Token, shard: Shard, request: &Stanza) {
        let same = |other: &Request| {
            other.token == token && other.stanza.id == request.id && other.stanza.to == request.to
        };
        self.open.retain(|other| !same(other));
        let own = (token, digest(request.id.as_deref(), request.to.as_ref()));
        self.over.retain(|other| *other != own);
        push(&mut self.open, Request { token, shard, stanza: head(request), doubt: None });
    }

    /// An answer has come for this session; false where it has one, or was told that there is none. Homes and edges say once more
    /// what may not have been heard.
    pub(crate) fn answered(&mut self, token: Token, answer: &Stanza) -> bool {
        if self.over.contains(&(token, digest(answer.id.as_deref(), answer.from.as_ref()))) {
            return false;
        }
        let index = self.open.iter().position(|request| request.is_answered_by(token, answer));
        if let Some(request) = index.and_then(|index| self.open.remove(index)) {
            self.is_over(token, request.digest());
        }
        true
    }

    /// It is to have no other answer.
    fn is_over(&mut self, token: Token, digest: Digest) {
        if self.over.len() >= MOST {
            self.over.pop_front();
        }
        self.over.push_back((token, digest));
    }

    /// The last ones of this session that are over.
    pub(crate) fn over(&self, token: Token) -> Vec<Digest> {
        let own = || self.over.iter().filter(|(other, _)| *other == token).map(|(_, digest)| *digest);
        own().skip(own().count().saturating_sub(MOST_NOTED)).collect()
    }

    /// What this session has asked and has no answer to.
    pub(crate) fn of(&self, token: Token) -> impl Iterator<Item = &Stanza> {
        self.open.iter().filter(move |request| request.token == token).map(|request| &request.stanza)
    }

    /// This was asked by way of a home before this one.
    pub(crate) fn inherits(&mut self, token: Token, shard: Shard, request: Stanza, now: Duration) {
        push(&mut self.open, Request { token, shard, stanza: head(&request), doubt: Some(now) });
    }

    /// The session is told that this request, which it may have sent by way of a home before this one, has no answer.
    pub(crate) fn ends(&mut self, token: Token, request: &Stanza) {
        let same = |other: &Request| {
            other.token == token && other.stanza.id == request.id && other.stanza.to == request.to
        };
        self.open.retain(|other| !same(other));
        self.is_over(token, digest(request.id.as_deref(), request.to.as_ref()));
    }

    /// The home of that shard is another one, or can be reached again: whether anything was asked before.
    pub(crate) fn moved(&mut self, shard: Shard, now: Duration) -> bool {
        let mut any = false;
        for request in self.open.iter_mut().filter(|request| request.shard == shard) {
            request.doubt.get_or_insert(now);
            any = true;
        }
        any
    }

    /// Takes one for whose answer it was waited long enough.
    pub(crate) fn lost(&mut self, now: Duration) -> Option<(Token, Stanza)> {
        let is_lost = |request: &Request| request.doubt.is_some_and(|since| since + PATIENCE <= now);
        let request = self.open.remove(self.open.iter().position(is_lost)?)?;
        self.is_over(request.token, request.digest());
        Some((request.token, request.stanza))
    }

    /// The session has ended.
    pub(crate) fn forget(&mut self, token: Token) {
        self.open.retain(|request| request.token != token);
        self.over.retain(|(other, _)| *other != token);
    }

    /// How many have no answer.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }
}

fn push(all: &mut VecDeque<Request>, request: Request) {
    all.push_back(request);
    while all.len() > MOST || all.iter().map(Request::bytes).sum::<usize>() > MOST_BYTES {
        all.pop_front();
    }
}

/// All of a request that an error needs: its client chooses how long the rest is.
fn head(request: &Stanza) -> Stanza {
    Stanza {
        id: request.id.clone(),
        to: request.to.clone(),
        from: request.from.clone(),
        ..Stanza::new(request.kind)
    }
}

/// A stanza leaves: if it is a request of one of the account's sessions to an account of another shard, that is remembered.
pub(crate) fn leaves(shared: &Shared, home: &mut Home, stanza: &Stanza) {
    let (Kind::Iq(IqType::Get | IqType::Set), Some(from), Some(to)) = (stanza.kind, &stanza.from, &stanza.to)
    else {
        return;
    };
    if shared.tier.is_none() || to.local().is_none() || !shared.server.is_local(to) {
        return;
    }
    if let Some(token) = home.account.resource(from).map(|session| session.token) {
        home.requests.leaves(token, shard(shared, to), stanza);
        note(home, token);
    }
}

fn shard(shared: &Shared, to: &Jid) -> Shard {
    let own = || shared.tier.as_ref().map_or(Shard(0), |tier| tier.shard);
    shared.elsewhere(&to.to_bare()).unwrap_or_else(own)
}

/// The edge remembers what its session waits for, and what it waits for no more: should this home be lost, nobody else would tell
/// its client that there is no answer, or that there was one.
pub(crate) fn note(home: &mut Home, token: Token) {
    let Some(at) = home.find(token) else { return };
    let asked: Vec<_> = home.requests.of(token).cloned().collect();
    let over = home.requests.over(token);
    if let Some(far) = &mut home.links[at].far
        && (far.asked != asked || far.over != over)
    {
        (far.asked, far.over, far.news) = (asked, over, true);
        home.touched = true;
    }
}

/// A session was built that had asked these, and some before that are over. Its edge may have answers to them.
pub(crate) fn inherit(
    shared: &Shared,
    home: &mut Home,
    token: Token,
    (asked, over): (Vec<Stanza>, Vec<Digest>),
) {
    let now = shared.clock.monotonic();
    let Some(at) = home.find(token) else { return };
    let is_answer = |stanza: &&Stanza| matches!(stanza.kind, Kind::Iq(IqType::Result | IqType::Error));
    let queued = home.links[at].queue.iter().filter_map(|entry| entry.stanza.as_ref()).filter(is_answer);
    let answers: Vec<_> = queued.map(|answer| digest(answer.id.as_deref(), answer.from.as_ref())).collect();
    over.into_iter().chain(answers).for_each(|digest| home.requests.is_over(token, digest));
    for request in asked {
        let is_over =
            home.requests.over.contains(&(token, digest(request.id.as_deref(), request.to.as_ref())));
        if let Some(to) = request.to.as_ref().filter(|_| !is_over) {
            let shard = shard(shared, to);
            home.requests.inherits(token, shard, request, now);
        }
    }
    let asked = home.requests.of(token).cloned().collect();
    let over = home.requests.over(token);
    if let Some(far) = &mut home.links[at].far {
        (far.asked, far.over) = (asked, over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Token = Token(1);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn jid() -> Jid {
        Jid::parse("bob@localhost/phone").unwrap()
    }

    fn request(id: &str) -> Stanza {
        Stanza::iq(IqType::Get).id(id).to(jid())
    }

    fn answer(id: &str) -> Stanza {
        Stanza::iq(IqType::Result).id(id).from(jid())
    }

    #[test]
    fn what_may_be_lost_is_waited_for_and_then_told() {
        let mut requests = Requests::default();
        requests.leaves(A, Shard(3), &request("one"));
        assert!(!requests.moved(Shard(2), secs(1)));
        assert!(requests.moved(Shard(3), secs(1)) && requests.moved(Shard(3), secs(4)));
        requests.leaves(A, Shard(3), &request("two"));
        assert!(requests.lost(secs(5)).is_none());
        assert_eq!(requests.lost(secs(6)).and_then(|(_, stanza)| stanza.id).as_deref(), Some("one"));
        assert!(requests.lost(secs(60)).is_none(), "the other one went to the next home");
        assert!(!requests.answered(A, &answer("one")), "its client has been told");
        assert!(!requests.answered(A, &answer("one")), "nobody has asked again");
        requests.leaves(A, Shard(3), &request("one"));
        assert!(requests.answered(A, &answer("one")), "who asks again gets an answer");
        assert!(requests.answered(A, &answer("two")));
        assert!(!requests.answered(A, &answer("two")), "and one");
        assert_eq!(requests.open(), 0);
    }

    #[test]
    fn it_is_bounded() {
        let mut requests = Requests::default();
        for n in 0..1_000 {
            requests.leaves(A, Shard(3), &request(&n.to_string()));
            requests.moved(Shard(3), secs(1));
            if n % 2 == 0 {
                requests.lost(secs(9));
            }
        }
        assert!(requests.open.len() <= MOST && requests.over.len() <= MOST);
        assert!(requests.answered(A, &answer("1")), "forgotten");
        requests.forget(A);
        assert_eq!((requests.open(), requests.over.len()), (0, 0));
    }

    #[test]
    fn what_a_client_makes_long_is_not_remembered() {
        let mut requests = Requests::default();
        for n in 0..MOST {
            let mut long = request(&format!("{n}{}", "x".repeat(16_000)));
            long.extra = Some(format!(" a='{}'", "x".repeat(100_000)).into());
            requests.leaves(A, Shard(3), &long);
            requests.ends(A, &long);
            long.id = Some(format!("other{n}").into());
            requests.leaves(A, Shard(3), &long);
            long.id = Some(format!("{n}{}", "y".repeat(16_000)).into());
            requests.inherits(A, Shard(3), long, secs(1));
        }
        let bytes: usize = requests.open.iter().map(|request| request.stanza.encode().len()).sum();
        assert!((16_000..=MOST_BYTES + 4_096).contains(&bytes), "{bytes}");
    }
}
