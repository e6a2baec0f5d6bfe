//! Against a naive model: any order of sending, losing links, losing homes and resuming.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

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
                    return self.tell(number, Down::NotResumed);
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
