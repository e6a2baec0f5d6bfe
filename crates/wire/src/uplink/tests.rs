use super::*;
use crate::frame::{EdgeItem, Home};
use crate::{Down, EdgeId, Epoch, Leave, Record, Shard, ToHome, Token, Up};
use proptest::prelude::*;
use starling_store::Position;
use starling_xmpp::{BareJid, FullJid, MessageType, Stanza};
use std::collections::{BTreeMap, VecDeque};

const EDGE: EdgeId = EdgeId(1);
const ROUTER: RouterId = RouterId(7);
const OTHER: RouterId = RouterId(8);

fn link(router: RouterId, number: u64) -> LinkId {
    LinkId { router, number }
}

fn conn(number: u64) -> ConnId {
    ConnId { edge: EDGE, number }
}

fn account() -> BareJid {
    BareJid::parse("alice@example.org").unwrap()
}

fn jid(number: u64) -> FullJid {
    FullJid::parse(&format!("alice@example.org/{number}")).unwrap()
}

fn says(number: u64, up: Up) -> ToHome {
    ToHome { account: account(), conn: conn(number), up }
}

fn bind(number: u64) -> ToHome {
    says(number, Up::Bind { token: Token(u128::from(number)), resource: None })
}

fn stanza(sequence: u64) -> Up {
    let stanza = Stanza::message(MessageType::Chat);
    Up::Stanza { sequence, stanza, fault: None, trace: None, again: false }
}

fn tells(number: u64, down: Down) -> ToEdge {
    ToEdge { conn: conn(number), down }
}

fn down(number: u64, counts: bool) -> Down {
    let stanza = Stanza::message(MessageType::Chat);
    let position = Some(Position(1000 + number));
    Down::Stanza { number, position, waits: true, counts, stanza, lazy: false, trace: None }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct Bench(Seat, Vec<Output>);

impl Bench {
    fn new() -> Self {
        Self(Seat::new(EDGE, Shard(3), Patience::default(), at(0)), Vec::new())
    }

    /// With a home, and one bound session.
    fn bound() -> Self {
        let mut bench = Self::new();
        bench.0.announced(link(ROUTER, 1), Epoch(5), at(0), &mut bench.1);
        bench.0.up(bind(1), at(0), &mut bench.1);
        bench.down(5, tells(1, Down::Bound { jid: jid(1) }));
        bench.1.clear();
        bench
    }

    fn up(&mut self, message: ToHome) {
        self.0.up(message, at(1), &mut self.1);
    }

    fn down(&mut self, epoch: u64, message: ToEdge) {
        self.0.down(link(ROUTER, 1), Epoch(epoch), message, &mut self.1);
    }

    fn tick(&mut self, seconds: u64) {
        self.0.tick(at(seconds), &mut self.1);
    }

    /// What was put out since, in short.
    fn out(&mut self) -> Vec<String> {
        let short = |output: Output| match output {
            Output::Send(link, EdgeItem::AttachBegin(home)) => {
                format!("{} begin@{}", link.number, home.epoch.0)
            }
            Output::Send(link, EdgeItem::AttachEnd(home)) => format!("{} end@{}", link.number, home.epoch.0),
            Output::Send(link, EdgeItem::Up(home, message)) => {
                format!("{} {}@{}", link.number, up(&message.up), home.epoch.0)
            }
            Output::Deliver(message) => format!("deliver {}", told(&message.down)),
            Output::Reading(on) => format!("reading {on}"),
            Output::Cut(conn) => format!("cut {}", conn.number),
            Output::Break(link) => format!("break {}", link.number),
        };
        self.1.drain(..).map(short).collect()
    }
}

fn up(up: &Up) -> String {
    match up {
        Up::Bind { .. } => "bind".to_owned(),
        Up::Resume { .. } => "resume".to_owned(),
        Up::Stanza { sequence, again, .. } => {
            format!("stanza {sequence}{}", if *again { " again" } else { "" })
        }
        Up::EnableSm { .. } => "enable".to_owned(),
        Up::Attach(record) => format!("record {}/{}", record.handled, record.received),
        Up::Gone(Leave::Closed) => "closed".to_owned(),
        Up::Gone(Leave::Lost) => "lost".to_owned(),
        Up::ClientState { active } => format!("active {active}"),
        Up::Idle | Up::Acknowledged { .. } | Up::Written { .. } => "count".to_owned(),
    }
}

fn told(down: &Down) -> String {
    match down {
        Down::Stanza { number, .. } => format!("stanza {number}"),
        Down::Handled { sequence } => format!("handled {sequence}"),
        Down::Bound { .. } => "bound".to_owned(),
        Down::Resumed { .. } => "resumed".to_owned(),
        Down::Refused(_) => "refused".to_owned(),
        Down::Released => "released".to_owned(),
        Down::Close(_) => "close".to_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_new_home_gets_all_sessions_and_then_what_is_not_handled() {
    let mut bench = Bench::bound();
    for sequence in 1..=3 {
        bench.up(says(1, stanza(sequence)));
    }
    bench.up(says(1, Up::ClientState { active: false }));
    bench.down(5, tells(1, Down::Handled { sequence: 1 }));
    bench.down(5, tells(1, down(1, false)));
    bench.up(bind(2));
    bench.out();
    bench.0.announced(link(OTHER, 2), Epoch(6), at(2), &mut bench.1);
    let expected = [
        "2 begin@6",
        "2 record 1/1@6",
        "2 end@6",
        "2 stanza 2 again@6",
        "2 stanza 3 again@6",
        "2 active false@6",
        "2 bind@6",
    ];
    assert_eq!(bench.out(), expected);
    // The old home has nothing to say any more.
    bench.down(5, tells(1, Down::Handled { sequence: 3 }));
    bench.down(5, tells(1, down(2, false)));
    assert!(bench.out().is_empty());
    assert_eq!(bench.0.load(), Load { sessions: 2, detached: 0, ups: 3, downs: 1 });
    bench.0.down(link(OTHER, 2), Epoch(6), tells(1, Down::Handled { sequence: 3 }), &mut bench.1);
    bench.0.down(link(OTHER, 2), Epoch(6), tells(1, down(2, false)), &mut bench.1);
    assert_eq!(bench.out(), ["deliver handled 3", "deliver stanza 2"]);
}

#[test]
fn the_highest_reign_counts_whoever_is_heard_last() {
    let mut bench = Bench::bound();
    let mut say = |router, number, epoch| {
        bench.0.announced(link(router, number), Epoch(epoch), at(1), &mut bench.1);
        bench.0.home().map(|(link, epoch)| (link.number, epoch.0))
    };
    assert_eq!(say(OTHER, 2, 4), Some((1, 5)), "an older reign");
    assert_eq!(say(OTHER, 2, 5), Some((1, 5)), "a reign is one router's");
    assert_eq!(say(ROUTER, 1, 5), Some((1, 5)));
    assert_eq!(say(OTHER, 2, 9), Some((2, 9)));
    assert_eq!(say(ROUTER, 1, 8), Some((2, 9)));
    assert_eq!(say(OTHER, 3, 9), Some((3, 9)), "the same home over a new link");
    assert_eq!(
        bench.out(),
        ["2 begin@9", "2 record 0/0@9", "2 end@9", "3 begin@9", "3 record 0/0@9", "3 end@9"]
    );
}

#[test]
fn an_answer_to_the_last_reign_does_not_end_the_next() {
    let mut bench = Bench::bound();
    let not = |bench: &mut Bench, router, number, epoch, hint| {
        bench.0.not_home(link(router, number), Epoch(epoch), hint, at(1), &mut bench.1);
        bench.0.home().is_some()
    };
    assert!(not(&mut bench, ROUTER, 1, 5, Some(ROUTER)), "it is the home: what it answers is older");
    assert!(not(&mut bench, OTHER, 2, 4, None), "another has not heard of it yet");
    assert!(!not(&mut bench, ROUTER, 1, 5, None), "its reign is over");
    bench.0.announced(link(ROUTER, 1), Epoch(6), at(1), &mut bench.1);
    assert!(!not(&mut bench, OTHER, 2, 7, Some(OTHER)), "there is a later one");
    bench.out();
    bench.0.announced(link(ROUTER, 1), Epoch(6), at(1), &mut bench.1);
    assert!(bench.out().is_empty(), "which must be waited for");
}

#[test]
fn without_a_home_sockets_are_not_read_and_then_closed() {
    let mut bench = Bench::bound();
    bench.0.unlinked(link(ROUTER, 9), at(10), &mut bench.1);
    assert!(bench.out().is_empty(), "another link");
    bench.0.unlinked(link(ROUTER, 1), at(10), &mut bench.1);
    bench.up(says(1, stanza(1)));
    bench.0.up(bind(2), at(11), &mut bench.1);
    bench.0.up(says(3, Up::Resume { token: Token(99), handled: 0 }), at(11), &mut bench.1);
    bench.tick(14);
    assert_eq!(bench.out(), ["reading false"]);
    bench.tick(15);
    assert_eq!(bench.out(), ["cut 1", "deliver refused", "cut 3"]);
    bench.tick(16);
    bench.0.up(says(1, Up::Gone(Leave::Lost)), at(16), &mut bench.1);
    bench.0.up(bind(4), at(16), &mut bench.1);
    assert_eq!(bench.out(), ["deliver refused"], "said once; who comes later hears it at once");
    bench.0.announced(link(OTHER, 2), Epoch(6), at(17), &mut bench.1);
    let expected =
        ["reading true", "2 begin@6", "2 record 0/0@6", "2 end@6", "2 stanza 1 again@6", "2 lost@6"];
    assert_eq!(bench.out(), expected);
}

#[test]
fn a_session_without_socket_stays_until_it_is_released() {
    let mut bench = Bench::bound();
    bench.up(says(1, Up::EnableSm { resume: true, max: None }));
    bench.down(5, tells(1, Down::SmEnabled { resume: Some(300), base: 0 }));
    bench.up(says(1, Up::Gone(Leave::Lost)));
    bench.out();
    bench.down(5, tells(1, down(1, true)));
    assert!(bench.out().is_empty(), "nobody is there to read it");
    assert_eq!(bench.0.load(), Load { sessions: 1, detached: 1, ups: 0, downs: 1 });
    // Resumed over another connection of this edge.
    bench.up(says(2, Up::Resume { token: Token(1), handled: 0 }));
    bench.down(5, tells(2, Down::Resumed { jid: jid(1), sequence: 0, base: 0 }));
    bench.down(5, tells(2, down(1, true)));
    assert_eq!(bench.out(), ["1 resume@5", "deliver resumed", "deliver stanza 1"]);
    assert_eq!(bench.0.load().sessions, 1);
    bench.down(5, tells(1, Down::Released));
    bench.out();
    // Resumed elsewhere: the socket that is still open is closed.
    bench.down(5, tells(2, Down::Released));
    assert_eq!(bench.out(), ["deliver released"]);
    bench.up(says(2, stanza(1)));
    bench.up(says(2, Up::Gone(Leave::Closed)));
    assert!(bench.out().is_empty(), "it has no session to speak for");
    assert_eq!(bench.0.load(), Load::default());
}

#[test]
fn what_nobody_speaks_of_is_forgotten() {
    let mut bench = Bench::bound();
    bench.up(bind(2));
    bench.down(5, tells(2, Down::Bound { jid: jid(2) }));
    bench.up(says(1, Up::Gone(Leave::Lost)));
    bench.up(says(2, Up::Gone(Leave::Closed)));
    bench.tick(50);
    assert_eq!(bench.0.load().sessions, 2);
    bench.tick(70);
    assert_eq!(bench.0.load().sessions, 1);
    bench.tick(2 * 3600 + 10);
    assert_eq!(bench.0.load(), Load::default());
}

#[test]
fn the_record_tells_what_has_arrived() {
    let mut bench = Bench::bound();
    let record = |bench: &mut Bench, epoch| -> Record {
        bench.1.clear();
        bench.0.announced(link(ROUTER, 1), Epoch(epoch), at(9), &mut bench.1);
        let found = bench.1.iter().find_map(|output| match output {
            Output::Send(_, EdgeItem::Up(_, ToHome { up: Up::Attach(record), .. })) => {
                Some((**record).clone())
            }
            _ => None,
        });
        found.unwrap()
    };
    for number in 1..=2 {
        bench.down(5, tells(1, down(number, false)));
    }
    bench.up(says(1, Up::EnableSm { resume: true, max: None }));
    bench.down(5, tells(1, Down::SmEnabled { resume: Some(300), base: 0 }));
    for number in 3..=6 {
        bench.down(5, tells(1, down(number, true)));
    }
    bench.down(5, tells(1, Down::Remember(bytes::Bytes::from_static(b"notes"))));
    bench.up(says(1, Up::Written { count: 1 }));
    let first = record(&mut bench, 6);
    let numbers = |record: &Record| record.queue.iter().map(|queued| queued.number).collect::<Vec<_>>();
    assert_eq!((numbers(&first), first.received, first.first), (vec![2, 3, 4, 5, 6], 6, 1));
    assert_eq!((first.epoch, first.highest, &*first.notes), (Epoch(5), Some(Position(1006)), &b"notes"[..]));
    assert_eq!(first.acknowledged, [Position(1001)]);
    // `h` counts from `<enabled/>`; what came before that has arrived, too.
    bench.up(says(1, Up::Acknowledged { handled: 2 }));
    bench.up(says(1, Up::Acknowledged { handled: 9 }));
    let second = record(&mut bench, 7);
    assert_eq!(numbers(&second), [5, 6]);
    assert_eq!(second.management.unwrap().acknowledged, 2, "more than were sent is for the home to judge");
    assert_eq!(second.acknowledged, [1001, 1002, 1003, 1004].map(Position));
    bench.down(7, tells(1, Down::Saved { through: Position(1003) }));
    assert_eq!(record(&mut bench, 8).acknowledged, [Position(1004)]);
}

#[test]
fn a_number_that_is_left_out_ends_the_link() {
    let mut bench = Bench::bound();
    bench.down(5, tells(1, down(1, false)));
    bench.down(5, tells(1, down(1, false)));
    bench.down(5, tells(1, down(3, false)));
    assert_eq!(bench.out(), ["deliver stanza 1", "break 1"]);
}

// ---- Against a naive model: any order of sending, losing links, losing homes and resuming.

/// A session as a home of the model has it.
#[derive(Default)]
struct Session {
    conn: u64,
    received: u64,
    handled: u64,
    numbered: u64,
    queue: VecDeque<(u64, bool)>,
    managed: bool,
    acked: u32,
    /// Its edge has told of it over this link.
    attached: bool,
    /// The connection before this one still keeps it.
    before: Option<u64>,
}

#[derive(Default)]
struct Client {
    conn: u64,
    bound: bool,
    managed: bool,
    /// Sent, and told as handled.
    sent: u64,
    handled: u64,
    /// Numbers that arrived, by the connection's session: the last.
    got: u64,
    counted: u32,
    acked: u32,
    gone: bool,
}

struct World {
    seat: Seat,
    now: Duration,
    link: Option<LinkId>,
    links: u64,
    epoch: u64,
    up: VecDeque<EdgeItem>,
    down: VecDeque<(LinkId, Epoch, ToEdge)>,
    sessions: BTreeMap<u128, Session>,
    /// What the store has: highest sequence by token. Only in order, only once.
    stored: BTreeMap<u128, u64>,
    clients: BTreeMap<u128, Client>,
    conns: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            seat: Seat::new(EDGE, Shard(0), Patience::default(), at(0)),
            now: at(0),
            link: None,
            links: 0,
            epoch: 1,
            up: VecDeque::new(),
            down: VecDeque::new(),
            sessions: BTreeMap::new(),
            stored: BTreeMap::new(),
            clients: BTreeMap::new(),
            conns: 0,
        };
        world.connect();
        for token in 1..=3 {
            world.begin(token);
        }
        world
    }

    fn feed(&mut self, call: impl FnOnce(&mut Seat, Duration, &mut Vec<Output>)) {
        let mut out = Vec::new();
        call(&mut self.seat, self.now, &mut out);
        for output in out {
            match output {
                Output::Send(link, item) if Some(link) == self.link => self.up.push_back(item),
                Output::Send(..) | Output::Reading(_) => {}
                Output::Deliver(message) => self.arrive(message),
                Output::Cut(conn) => panic!("cut {conn:?}"),
                Output::Break(_) => panic!("a number was left out"),
            }
        }
    }

    fn arrive(&mut self, message: ToEdge) {
        let number = message.conn.number;
        let Some(client) = self.clients.values_mut().find(|client| client.conn == number && !client.gone)
        else {
            return;
        };
        match message.down {
            Down::Bound { .. } => client.bound = true,
            Down::Resumed { sequence, .. } => {
                client.bound = true;
                client.handled = sequence;
                // What the home had not taken the client sends again, under the same numbers.
                client.sent = sequence;
                client.got -= u64::from(client.counted.wrapping_sub(client.acked));
                client.counted = client.acked;
            }
            Down::SmEnabled { .. } => {
                client.managed = true;
            }
            Down::Handled { sequence } => {
                assert!(sequence <= client.sent);
                client.handled = client.handled.max(sequence);
            }
            Down::Stanza { number, counts, .. } => {
                assert_eq!(number, client.got + 1, "lost, doubled or out of order");
                client.got = number;
                client.counted += u32::from(counts);
            }
            _ => {}
        }
    }

    fn begin(&mut self, token: u128) {
        self.conns += 1;
        let client = Client { conn: self.conns, ..Client::default() };
        let message = says(client.conn, Up::Bind { token: Token(token), resource: None });
        self.clients.insert(token, client);
        self.feed(|seat, now, out| seat.up(message, now, out));
    }

    fn connect(&mut self) {
        self.links += 1;
        let link = link(RouterId(self.epoch), self.links);
        self.link = Some(link);
        let epoch = Epoch(self.epoch);
        self.sessions.values_mut().for_each(|session| session.attached = false);
        self.feed(|seat, now, out| seat.announced(link, epoch, now, out));
    }

    fn disconnect(&mut self) {
        if let Some(link) = self.link.take() {
            self.up.clear();
            self.down.clear();
            self.feed(|seat, now, out| seat.unlinked(link, now, out));
        }
    }

    fn tell(&mut self, number: u64, down: Down) {
        if let Some(link) = self.link {
            self.down.push_back((link, Epoch(self.epoch), tells(number, down)));
        }
    }

    /// The home takes the next of the link.
    fn home(&mut self) {
        let Some(EdgeItem::Up(Home { epoch, .. }, ToHome { conn, up, .. })) = self.up.pop_front() else {
            return;
        };
        if epoch.0 != self.epoch {
            return;
        }
        let number = conn.number;
        match up {
            Up::Bind { token, .. } => {
                let session = self.sessions.entry(token.0).or_default();
                (session.conn, session.attached) = (number, true);
                self.tell(number, Down::Bound { jid: jid(number) });
            }
            Up::Resume { token, handled } => {
                let Some(session) = self.sessions.get_mut(&token.0) else {
                    return self.tell(number, Down::NotResumed { handled: None });
                };
                let old = std::mem::replace(&mut session.conn, number);
                session.attached = true;
                // A home waits with its answer until all that it has taken is handled.
                session.handled = session.received;
                session.acknowledge(handled);
                if old != number {
                    session.before = Some(old);
                }
                let (sequence, queue) = (session.received, session.queue.clone());
                self.tell(number, Down::Resumed { jid: jid(number), sequence, base: 0 });
                for (own, counts) in queue {
                    self.tell(number, down(own, counts));
                }
                self.tell(number, Down::Remember(bytes::Bytes::new()));
            }
            Up::Attach(record) => match self.sessions.get_mut(&record.token.0) {
                // The connection before: the present one tells of itself.
                Some(session) if session.conn != number => {}
                Some(session) => {
                    session.attached = true;
                    let before = session.before.take();
                    assert!(record.handled <= session.handled && record.received <= session.numbered);
                    let missing: Vec<_> =
                        session.queue.iter().filter(|(own, _)| *own > record.received).copied().collect();
                    let handled = session.handled;
                    if let Some(before) = before {
                        self.tell(before, Down::Released);
                    }
                    self.tell(number, Down::Handled { sequence: handled });
                    for (own, counts) in missing {
                        self.tell(number, down(own, counts));
                    }
                }
                None => {
                    let session = Session {
                        conn: number,
                        received: record.handled,
                        handled: record.handled,
                        numbered: record.received,
                        queue: record.queue.iter().map(|queued| (queued.number, queued.counts)).collect(),
                        managed: record.management.is_some(),
                        attached: true,
                        before: None,
                        acked: record.management.map_or(0, |management| management.acknowledged),
                    };
                    self.sessions.insert(record.token.0, session);
                }
            },
            up => {
                let Some((token, session)) =
                    self.sessions.iter_mut().find(|(_, session)| session.conn == number)
                else {
                    return;
                };
                match up {
                    Up::Stanza { sequence, again, .. } => {
                        if sequence <= session.received {
                            assert!(again, "doubled without a word");
                            return;
                        }
                        assert_eq!(sequence, session.received + 1, "lost or out of order");
                        session.received = sequence;
                        let stored = self.stored.entry(*token).or_default();
                        if sequence <= *stored {
                            assert!(again, "doubled without a word");
                        } else {
                            assert_eq!(sequence, *stored + 1);
                            *stored = sequence;
                        }
                    }
                    Up::EnableSm { .. } => {
                        session.managed = true;
                        self.tell(number, Down::SmEnabled { resume: Some(300), base: 0 });
                    }
                    Up::Acknowledged { handled } => session.acknowledge(handled),
                    _ => {}
                }
            }
        }
    }

    fn step(&mut self, what: u8, which: u8) {
        let token = u128::from(which % 3) + 1;
        match what % 14 {
            0..=2 => self.home(),
            3..=5 => {
                if let Some((link, epoch, message)) = self.down.pop_front() {
                    self.feed(|seat, _, out| seat.down(link, epoch, message, out));
                }
            }
            6 | 7 => {
                let client = self.clients.get_mut(&token).unwrap();
                if client.bound && !client.gone && client.sent - client.handled < 8 && self.link.is_some() {
                    client.sent += 1;
                    let message = says(client.conn, stanza(client.sent));
                    self.feed(|seat, now, out| seat.up(message, now, out));
                }
            }
            8 => {
                if let Some(session) = self.sessions.get_mut(&token) {
                    session.handled = session.received;
                    let (number, sequence) = (session.conn, session.handled);
                    self.tell(number, Down::Handled { sequence });
                }
            }
            9 => {
                if let Some(session) = self.sessions.get_mut(&token)
                    && session.queue.len() < 16
                    && session.managed
                {
                    session.numbered += 1;
                    session.queue.push_back((session.numbered, true));
                    let (number, own) = (session.conn, session.numbered);
                    if session.attached {
                        self.tell(number, down(own, true));
                    }
                }
            }
            10 => {
                let client = self.clients.get_mut(&token).unwrap();
                if client.bound && !client.gone {
                    let message = if client.managed {
                        client.acked = client.counted;
                        says(client.conn, Up::Acknowledged { handled: client.acked })
                    } else {
                        says(client.conn, Up::EnableSm { resume: true, max: None })
                    };
                    self.feed(|seat, now, out| seat.up(message, now, out));
                }
            }
            11 => {
                self.disconnect();
                if which.is_multiple_of(2) {
                    self.connect();
                }
            }
            12 => {
                // The home is lost with all it had in memory; the next one may be there at once.
                self.disconnect();
                self.epoch += 1;
                self.sessions.clear();
                self.connect();
            }
            _ => {
                // The socket is lost; the client comes back over another one of this edge.
                let client = self.clients.get_mut(&token).unwrap();
                if client.bound && client.managed && !client.gone {
                    let old = client.conn;
                    self.conns += 1;
                    client.conn = self.conns;
                    client.bound = false;
                    let (new, handled) = (client.conn, client.acked);
                    let resume = says(new, Up::Resume { token: Token(token), handled });
                    self.feed(|seat, now, out| seat.up(says(old, Up::Gone(Leave::Lost)), now, out));
                    self.feed(|seat, now, out| seat.up(resume, now, out));
                }
            }
        }
        let load = self.seat.load();
        assert!(load.ups <= 3 * (8 + 2) * 2 && load.downs <= 3 * 16 * 2, "{load:?}");
    }

    fn heal(&mut self) {
        if self.link.is_none() {
            self.connect();
        }
        loop {
            while !self.up.is_empty() {
                self.home();
            }
            for token in 0..3 {
                self.step(8, token);
            }
            while !self.down.is_empty() {
                self.step(3, 0);
            }
            if self.up.is_empty() {
                break;
            }
        }
        for (token, client) in &self.clients {
            assert!(client.bound, "no answer to the first question");
            assert_eq!(client.handled, client.sent);
            let stored = self.stored.get(token).copied().unwrap_or_default();
            assert!(stored >= client.sent);
            let session = &self.sessions[token];
            assert_eq!(session.numbered, client.got);
            assert_eq!(session.conn, client.conn);
        }
        let load = self.seat.load();
        assert_eq!(load.ups, 0, "{load:?}");
        let unacked: u32 = self.clients.values().map(|client| client.counted - client.acked).sum();
        assert_eq!(load.downs, unacked as usize);
    }
}

impl Session {
    fn acknowledge(&mut self, handled: u32) {
        let mut newly = handled.saturating_sub(self.acked);
        self.acked = self.acked.max(handled);
        while newly > 0 {
            let Some((_, counts)) = self.queue.pop_front() else { break };
            newly -= u32::from(counts);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(steps in proptest::collection::vec((any::<u8>(), any::<u8>()), 1..250)) {
        let mut world = World::new();
        for (what, which) in steps {
            world.step(what, which);
        }
        world.heal();
    }
}
