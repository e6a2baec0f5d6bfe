mod any_order;

use super::seat::LAST_WORDS;
use super::*;
use crate::frame::{EdgeItem, Home};
use crate::{Down, EdgeId, Epoch, Leave, Record, Shard, ToHome, Token, Up};
use starling_store::Position;
use starling_xmpp::{BareJid, FullJid, MessageType, Stanza, StanzaCondition, StanzaError};

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
    Down::Stanza { number, position, waits: true, counts, stanza, answers: 0, trace: None }
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
            Output::Send(link, EdgeItem::Leaving(_)) => format!("{} leaving", link.number),
            Output::Send(link, EdgeItem::Heard(ask)) => format!("{} heard {ask}", link.number),
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
        Up::Gone(Leave::Never) => "never".to_owned(),
        Up::ClientState { active } => format!("active {active}"),
        Up::Idle => "idle".to_owned(),
        Up::Acknowledged { .. } | Up::Written { .. } => "count".to_owned(),
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
    bench.0.unlinked(link(ROUTER, 1), at(2), &mut bench.1);
    let expected = [
        "reading false",
        "reading true",
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

/// A client that is asked nothing has nothing to answer, and is closed for it.
#[test]
fn a_silent_client_is_asked_by_the_next_home_unless_it_has_spoken() {
    let mut bench = Bench::bound();
    bench.up(says(1, Up::Idle));
    // What else the home says is no question, and what has been written no answer.
    bench.down(5, tells(1, down(1, false)));
    bench.up(says(1, Up::Written { count: 1 }));
    bench.out();
    bench.0.announced(link(ROUTER, 1), Epoch(6), at(2), &mut bench.1);
    assert_eq!(bench.out(), ["1 begin@6", "1 record 0/1@6", "1 end@6", "1 idle@6"]);
    bench.up(says(1, Up::ClientState { active: true }));
    bench.out();
    bench.0.announced(link(ROUTER, 1), Epoch(7), at(3), &mut bench.1);
    assert_eq!(bench.out()[3..], ["1 active true@7"]);
    bench.up(says(1, Up::Idle));
    bench.up(says(1, Up::Gone(Leave::Lost)));
    bench.out();
    bench.0.announced(link(ROUTER, 1), Epoch(8), at(4), &mut bench.1);
    assert_eq!(bench.out()[3..], ["1 lost@8"]);
}

/// It comes over another link than the next one's word, and may come later.
#[test]
fn what_a_home_says_before_it_moves_counts() {
    for how in ["it has moved", "its link ends", "it says nothing more"] {
        let mut bench = Bench::bound();
        for sequence in 1..=2 {
            bench.up(says(1, stanza(sequence)));
        }
        bench.out();
        bench.0.announced(link(OTHER, 2), Epoch(6), at(2), &mut bench.1);
        assert_eq!(bench.out(), ["reading false"]);
        // It is for the next one.
        bench.up(says(1, stanza(3)));
        bench.down(5, tells(1, down(1, false)));
        bench.down(5, tells(1, Down::Decided { through: 1, open: vec![1] }));
        assert_eq!(bench.out()[0], "deliver stanza 1");
        match how {
            "it has moved" => {
                bench.0.not_home(link(ROUTER, 1), Epoch(6), Some(OTHER), at(2), &mut bench.1);
            }
            "its link ends" => bench.0.unlinked(link(ROUTER, 1), at(2), &mut bench.1),
            _ => {
                bench.0.tick(at(2) + LAST_WORDS - Duration::from_millis(1), &mut bench.1);
                assert_eq!(bench.out(), [""; 0]);
                bench.0.tick(at(2) + LAST_WORDS, &mut bench.1);
            }
        }
        let expected = [
            "reading true",
            "2 begin@6",
            "2 record 0/1@6",
            "2 end@6",
            "2 stanza 1 again@6",
            "2 stanza 2@6",
            "2 stanza 3@6",
        ];
        assert_eq!(bench.out(), expected, "{how}");
        bench.down(5, tells(1, down(2, false)));
        assert_eq!(bench.out(), [""; 0], "{how}");
    }
}

#[test]
fn who_follows_may_be_gone_before_it_is_told_anything() {
    for gone in ["another follows", "its link ends", "its reign is over", "there is a later one"] {
        let mut bench = Bench::bound();
        bench.0.announced(link(OTHER, 2), Epoch(6), at(2), &mut bench.1);
        bench.out();
        match gone {
            "another follows" => {
                bench.0.announced(link(RouterId(9), 3), Epoch(7), at(2), &mut bench.1);
                bench.0.announced(link(OTHER, 2), Epoch(6), at(2), &mut bench.1);
                bench.0.tick(at(3), &mut bench.1);
                assert_eq!(bench.out()[..2], ["reading true", "3 begin@7"]);
                continue;
            }
            "its link ends" => bench.0.unlinked(link(OTHER, 2), at(2), &mut bench.1),
            "its reign is over" => bench.0.not_home(link(OTHER, 2), Epoch(6), None, at(2), &mut bench.1),
            _ => bench.0.not_home(link(RouterId(9), 3), Epoch(7), None, at(2), &mut bench.1),
        }
        bench.0.unlinked(link(ROUTER, 1), at(2), &mut bench.1);
        bench.0.tick(at(3), &mut bench.1);
        assert_eq!((bench.0.home(), bench.out()), (None, vec![]), "{gone}");
        bench.0.announced(link(RouterId(9), 3), Epoch(7), at(3), &mut bench.1);
        assert_eq!(bench.out()[..2], ["reading true", "3 begin@7"]);
    }
}

#[test]
fn the_highest_reign_counts_whoever_is_heard_last() {
    let mut bench = Bench::bound();
    let mut say = |router, number, epoch| {
        bench.0.announced(link(router, number), Epoch(epoch), at(1), &mut bench.1);
        bench.0.tick(at(2), &mut bench.1);
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
        [
            "reading false",
            "reading true",
            "2 begin@9",
            "2 record 0/0@9",
            "2 end@9",
            "3 begin@9",
            "3 record 0/0@9",
            "3 end@9"
        ]
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
    let expected = ["reading true", "2 begin@6", "2 record 0/0@6", "2 end@6", "2 stanza 1@6", "2 lost@6"];
    assert_eq!(bench.out(), expected, "no home had it before");
    bench.0.announced(link(OTHER, 2), Epoch(7), at(17), &mut bench.1);
    assert_eq!(bench.out()[3], "2 stanza 1 again@7", "one had");
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

/// Who can resume has read the answer to `<enable/>`, and so all that came before it, whether or not that was told as written.
#[test]
fn what_no_h_counts_does_not_come_again() {
    let mut bench = Bench::bound();
    bench.down(5, tells(1, down(1, false)));
    bench.up(says(1, Up::EnableSm { resume: true, max: None }));
    bench.down(5, tells(1, Down::SmEnabled { resume: Some(300), base: 0 }));
    bench.down(5, tells(1, down(2, true)));
    bench.up(says(1, Up::Gone(Leave::Lost)));
    bench.out();
    bench.up(says(2, Up::Resume { token: Token(1), handled: 0 }));
    bench.down(5, tells(2, Down::Resumed { jid: jid(1), sequence: 0, base: 0 }));
    assert_eq!(bench.out(), ["1 resume@5", "deliver resumed", "deliver stanza 2"]);
}

/// A question that came twice may be refused the first time.
#[test]
fn a_session_that_nobody_waits_for_is_given_back() {
    let mut bench = Bench::bound();
    bench.up(bind(2));
    bench.down(5, tells(2, Down::Refused(Box::new(StanzaError::new(StanzaCondition::Conflict)))));
    bench.down(5, tells(2, Down::Bound { jid: jid(2) }));
    assert_eq!(bench.out(), ["1 bind@5", "deliver refused", "1 never@5"]);
}

#[test]
fn who_does_not_wait_for_the_answer_never_had_the_session() {
    let mut bench = Bench::bound();
    bench.up(says(2, Up::Resume { token: Token(7), handled: 0 }));
    bench.up(says(2, Up::Gone(Leave::Lost)));
    bench.down(5, tells(2, Down::Resumed { jid: jid(2), sequence: 0, base: 0 }));
    assert_eq!(bench.out(), ["1 resume@5", "1 never@5", "1 never@5"]);
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

/// What a home of this reign is told of the session.
fn record(bench: &mut Bench, epoch: u64) -> Record {
    bench.1.clear();
    bench.0.announced(link(ROUTER, 1), Epoch(epoch), at(9), &mut bench.1);
    let found = bench.1.iter().find_map(|output| match output {
        Output::Send(_, EdgeItem::Up(_, ToHome { up: Up::Attach(record), .. })) => Some((**record).clone()),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn the_record_tells_what_has_an_answer() {
    let mut bench = Bench::bound();
    for sequence in 1..=6 {
        bench.up(says(1, stanza(sequence)));
    }
    let answer = |number, by| match down(number, true) {
        Down::Stanza { number, position, waits, counts, stanza, trace, .. } => {
            tells(1, Down::Stanza { number, position, waits, counts, stanza, answers: by, trace })
        }
        down => tells(1, down),
    };
    for (number, by) in [(1, 6), (2, 3), (2, 4), (3, 99), (4, 0)] {
        bench.down(5, answer(number, by));
    }
    // The home is not the last one any more.
    bench.down(4, answer(5, 2));
    assert_eq!(record(&mut bench, 6).answered, [3, 4, 6]);
    bench.down(6, tells(1, Down::Handled { sequence: 4 }));
    // One before it has not come.
    bench.down(6, answer(9, 5));
    let second = record(&mut bench, 7);
    assert_eq!((second.handled, second.answered), (4, vec![6]));
    let again = bench.out();
    assert_eq!(again[again.len() - 2..], ["1 stanza 5 again@7", "1 stanza 6 again@7"]);
}

/// So the next home knows that it was said before its client knew, though it has the error.
#[test]
fn the_record_tells_what_was_said_before_an_error_was_acknowledged() {
    let mut bench = Bench::bound();
    bench.up(says(1, Up::EnableSm { resume: true, max: None }));
    bench.down(5, tells(1, Down::SmEnabled { resume: Some(300), base: 0 }));
    let mut message = Stanza::message(MessageType::Chat);
    message.to = Some(BareJid::parse("bob@example.org").unwrap().into());
    for (number, condition) in [
        (1, StanzaCondition::ResourceConstraint),
        (2, StanzaCondition::Forbidden),
        (3, StanzaCondition::ResourceConstraint),
    ] {
        let stanza = message.error(&StanzaError::new(condition)).unwrap();
        let (position, waits, counts, answers, trace) = (None, false, true, number, None);
        let error = Down::Stanza { number, position, waits, counts, stanza, answers, trace };
        bench.up(says(1, self::stanza(number)));
        bench.down(5, tells(1, error));
        bench.down(5, tells(1, Down::Handled { sequence: number }));
    }
    bench.up(says(1, Up::Acknowledged { handled: 1 }));
    assert_eq!(record(&mut bench, 6).spoken, [], "all is handled");
    for sequence in 4..=6 {
        bench.up(says(1, stanza(sequence)));
    }
    bench.up(says(1, Up::Acknowledged { handled: 2 }));
    assert_eq!(record(&mut bench, 7).spoken, [], "it was another error");
    bench.up(says(1, Up::Acknowledged { handled: 3 }));
    bench.up(says(1, stanza(7)));
    bench.down(7, tells(1, Down::Handled { sequence: 5 }));
    assert_eq!(record(&mut bench, 8).spoken, [(BareJid::parse("bob@example.org").unwrap(), 6)]);
    bench.down(8, tells(1, Down::Handled { sequence: 6 }));
    assert_eq!(record(&mut bench, 9).spoken, []);
}

#[test]
fn what_a_home_that_leaves_has_not_taken_is_new_to_the_next() {
    let mut bench = Bench::bound();
    for sequence in 1..=3 {
        bench.up(says(1, stanza(sequence)));
    }
    // The home before this one may have taken the first three.
    bench.0.announced(link(OTHER, 2), Epoch(6), at(2), &mut bench.1);
    bench.0.unlinked(link(ROUTER, 1), at(2), &mut bench.1);
    for sequence in 4..=7 {
        bench.up(says(1, stanza(sequence)));
    }
    let decided = |through, open| tells(1, Down::Decided { through, open });
    bench.down(5, decided(7, vec![]));
    bench.out();
    bench.0.down(link(OTHER, 2), Epoch(6), decided(5, vec![1, 2, 5]), &mut bench.1);
    // It takes nothing more, and there may be no other for a while.
    bench.up(says(1, stanza(8)));
    bench.0.not_home(link(OTHER, 2), Epoch(6), None, at(2), &mut bench.1);
    bench.up(says(1, stanza(9)));
    assert_eq!(bench.out(), ["2 stanza 8@6", "reading false"]);
    assert_eq!(record(&mut bench, 7).answered, [3, 4]);
    let said = bench.out();
    let again = [1, 2, 3, 4, 5].map(|n| format!("1 stanza {n} again@7"));
    let new = [6, 7, 8, 9].map(|n| format!("1 stanza {n}@7"));
    assert_eq!(said[said.len() - 9..], [&again[..], &new[..]].concat());
    // That one may have taken them.
    bench.up(says(1, stanza(10)));
    bench.down(7, decided(2, vec![1, 2]));
    bench.0.not_home(link(ROUTER, 1), Epoch(7), None, at(3), &mut bench.1);
    bench.0.announced(link(OTHER, 2), Epoch(8), at(3), &mut bench.1);
    let said = bench.out();
    let again = (1..=5).map(|n| format!("2 stanza {n} again@8"));
    let new = (6..=10).map(|n| format!("2 stanza {n}@8"));
    assert_eq!(said[said.len() - 10..], again.chain(new).collect::<Vec<_>>());
}

#[test]
fn the_record_tells_what_has_arrived() {
    let mut bench = Bench::bound();
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
