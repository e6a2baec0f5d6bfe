//! A client as XEP-0198 has it, and one without.

use crate::bench::{body, chat};
use crate::chaos::Dice;
use crate::site::{Client, Site};
use starling_wire::{Down, EdgeId, Leave, Token, Up};
use starling_xmpp::{Element, Kind, MessageType, PresenceType, Stanza, ns};
use std::collections::VecDeque;

/// A message that somebody sent.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) number: u32,
    /// Its sender was told that it was not.
    refused: bool,
    /// It was sent again in another session.
    pub(super) anew: bool,
    /// Its sender lost its stream and does not send it again.
    forgotten: bool,
}

impl Post {
    /// It has to be in the log.
    pub(super) fn is_sure(&self) -> bool {
        !self.refused && !self.forgotten
    }
}

enum State {
    /// Waits for its resource.
    Binding,
    /// Waits for the answer to `<enable/>`.
    Enabling,
    On,
    /// Waits for its resumption, over another connection too.
    Coming(Option<Client>),
}

/// One client.
pub(super) struct Phone {
    pub(super) account: &'static str,
    pub(super) managed: bool,
    client: Client,
    state: State,
    /// Stanzas that count, of this session.
    counted: u32,
    /// What it has said instead.
    claimed: Option<u32>,
    written: u64,
    /// What came: in which session, from whom, which.
    pub(super) got: Vec<(Token, String, u32)>,
    /// Without an answer: under which sequence, to whom, which.
    pub(super) said: VecDeque<(u64, &'static str, u32)>,
    /// Its session may be over, and that is right.
    pub(super) excused: bool,
    /// It has said wrong counts: what comes twice is its own fault.
    pub(super) lied: bool,
    /// The edge where it was last.
    last: Option<EdgeId>,
    /// Those where it has asked for its session since: with one of them it may be lost, for nobody knows whether it went on there.
    tried: Vec<EdgeId>,
    edge_killed: bool,
    home_moved: bool,
    /// Connections that are gone and whose edges do not know it.
    ghosts: Vec<Client>,
}

impl Phone {
    pub(super) fn new(site: &mut Site, edge: usize, account: &'static str, managed: bool) -> Self {
        let client = site.connect(edge, account, "phone");
        let mut phone = Self {
            account,
            managed,
            client,
            state: State::Binding,
            counted: 0,
            claimed: None,
            written: 0,
            got: Vec::new(),
            said: VecDeque::new(),
            excused: false,
            lied: false,
            last: None,
            tried: Vec::new(),
            edge_killed: false,
            home_moved: false,
            ghosts: Vec::new(),
        };
        site.run();
        let mut dice = Dice(1);
        phone.look(site, &mut dice, &mut Vec::new());
        site.run();
        phone.look(site, &mut dice, &mut Vec::new());
        assert!(phone.is_on());
        phone
    }

    pub(super) fn is_on(&self) -> bool {
        matches!(self.state, State::On)
    }

    /// An edge is dead.
    pub(super) fn killed(&mut self, edge: EdgeId) {
        let was_there = self.client.conn.edge == edge || self.last == Some(edge);
        self.edge_killed |= was_there || self.tried.contains(&edge);
    }

    /// Its home is another one.
    pub(super) fn home_moved(&mut self) {
        self.home_moved = true;
    }

    /// Sends a message, if it can.
    pub(super) fn post(&mut self, site: &mut Site, posts: &mut Vec<Post>, to: &'static str) {
        if !self.is_on() || !site.is_there(&self.client) || self.said.len() >= 60 {
            return;
        }
        let number = u32::try_from(posts.len()).unwrap();
        posts.push(Post { from: self.account, to, number, refused: false, anew: false, forgotten: false });
        self.say(site, to, number);
    }

    fn say(&mut self, site: &mut Site, to: &'static str, number: u32) {
        let text = number.to_string();
        let id = Element::new(ns::SID, "origin-id").attr("id", text.as_str());
        let mut stanza = chat(&format!("{to}@localhost"), &text).child(id);
        stanza.id = Some(text.as_str().into());
        site.send(&mut self.client, stanza);
        self.said.push_back((self.client.sequence, to, number));
    }

    pub(super) fn acknowledge(&mut self, site: &mut Site) {
        if self.is_on() && self.managed {
            site.say(&self.client, Up::Acknowledged { handled: self.counted });
        }
    }

    /// Says that it has more than it can.
    pub(super) fn lie(&mut self, site: &mut Site, dice: &mut Dice) {
        if self.is_on() {
            (self.excused, self.lied) = (true, true);
            let handled = self.counted.wrapping_add(10).wrapping_sub(dice.roll(20) as u32);
            site.say(&self.client, Up::Gone(Leave::Lost));
            let edge = dice.roll(super::EDGES as u64) as usize;
            self.client = site.resume(&self.client, edge, handled);
            self.claimed = Some(handled);
            self.state = State::Coming(None);
        }
    }

    /// Its transport breaks, as it sees it or as its edge does.
    pub(super) fn drop_socket(&mut self, site: &mut Site, dice: &mut Dice) {
        if self.is_on() {
            if dice.roll(3) > 0 {
                site.say(&self.client, Up::Gone(Leave::Lost));
            } else {
                self.ghosts.push(self.client.clone());
            }
            self.come_back(site, dice);
        }
    }

    /// Edges find out which connections are gone.
    pub(super) fn exorcise(&mut self, site: &mut Site) {
        for ghost in self.ghosts.drain(..) {
            site.say(&ghost, Up::Gone(Leave::Lost));
        }
    }

    fn come_back(&mut self, site: &mut Site, dice: &mut Dice) {
        let edge = dice.roll(super::EDGES as u64) as usize;
        if !self.managed {
            return self.begin(site, edge);
        }
        self.claimed = None;
        let before = self.client.clone();
        self.client = site.resume(&before, edge, self.counted);
        let other =
            (dice.roll(6) == 0).then(|| site.resume(&before, (edge + 1) % super::EDGES, self.counted));
        let both = [Some(&self.client), other.as_ref()];
        self.tried.extend(both.into_iter().flatten().map(|client| client.conn.edge));
        self.state = State::Coming(other);
    }

    /// A new session.
    fn begin(&mut self, site: &mut Site, edge: usize) {
        self.client = site.connect(edge, self.account, "phone");
        self.state = State::Binding;
        (self.counted, self.written) = (0, 0);
        (self.excused, self.edge_killed, self.home_moved) = (false, false, false);
    }

    /// Reads what there is, and does what follows from it.
    pub(super) fn look(&mut self, site: &mut Site, dice: &mut Dice, posts: &mut [Post]) {
        if let State::Coming(Some(other)) = &self.state {
            let other = other.clone();
            let downs = site.told(&other);
            if downs.iter().any(|down| matches!(down, Down::Resumed { .. })) {
                // This one was faster, or the only one.
                site.say(&self.client, Up::Gone(Leave::Lost));
                self.client = other;
                self.state = State::Coming(None);
                return self.read(site, dice, posts, downs);
            }
            if downs.iter().any(|down| matches!(down, Down::Close(_) | Down::NotResumed | Down::Released)) {
                self.state = State::Coming(None);
            }
        }
        let downs = site.told(&self.client);
        self.read(site, dice, posts, downs);
    }

    /// It goes on where it is now.
    fn arrived(&mut self, site: &Site) {
        self.state = State::On;
        self.last = Some(self.client.conn.edge);
        self.tried.clear();
        // A home that was followed while it goes on has had the last word, perhaps: the next one knows nothing of that.
        (self.edge_killed, self.home_moved) = (false, site.has_zombies());
    }

    fn read(&mut self, site: &mut Site, dice: &mut Dice, posts: &mut [Post], downs: Vec<Down>) {
        let mut closed = !site.is_there(&self.client);
        let mut written = 0;
        for down in downs {
            match down {
                Down::Stanza { stanza, counts, .. } => {
                    written += 1;
                    self.counted += u32::from(counts);
                    self.message(posts, &stanza);
                }
                Down::Bound { .. } => {
                    site.send(&mut self.client, Stanza::presence(PresenceType::Available));
                    if self.managed {
                        site.say(&self.client, Up::EnableSm { resume: true, max: None });
                        self.state = State::Enabling;
                    } else {
                        for (_, _, number) in self.said.drain(..) {
                            posts[number as usize].forgotten = true;
                        }
                        self.state = State::On;
                    }
                }
                Down::SmEnabled { .. } => {
                    self.arrived(site);
                    for (_, to, number) in std::mem::take(&mut self.said) {
                        posts[number as usize].anew = true;
                        self.say(site, to, number);
                    }
                }
                Down::Resumed { sequence, .. } => {
                    if let State::Coming(Some(other)) = &self.state {
                        site.say(&other.clone(), Up::Gone(Leave::Lost));
                    }
                    self.arrived(site);
                    self.counted = self.claimed.take().unwrap_or(self.counted);
                    self.written = 0;
                    written = 0;
                    self.client.sequence = sequence;
                    for (own, to, number) in std::mem::take(&mut self.said) {
                        if own > sequence {
                            self.say(site, to, number);
                        }
                    }
                }
                Down::Handled { sequence } => self.said.retain(|(own, ..)| *own > sequence),
                Down::RequestAck if dice.roll(2) == 0 => self.acknowledge(site),
                Down::Refused(_) => closed = true,
                Down::NotResumed => {
                    let excused = self.excused || (self.edge_killed && self.home_moved);
                    assert!(excused, "the session of {} is lost", self.account);
                    return self.begin(site, dice.roll(super::EDGES as u64) as usize);
                }
                Down::Close(_) | Down::Released => closed = true,
                _ => {}
            }
        }
        if written > 0 {
            self.written += written;
            site.say(&self.client, Up::Written { count: self.written });
        }
        if !closed {
            return;
        }
        match self.state {
            State::Binding | State::Enabling => self.begin(site, dice.roll(super::EDGES as u64) as usize),
            _ => self.come_back(site, dice),
        }
    }

    fn message(&mut self, posts: &mut [Post], stanza: &Stanza) {
        match stanza.kind {
            Kind::Message(MessageType::Error) => {
                let number: u32 = stanza.id.as_ref().unwrap().parse().unwrap();
                posts[number as usize].refused = true;
            }
            Kind::Message(_) => {
                let from = stanza.from.as_ref().unwrap().local().unwrap().to_owned();
                self.got.push((self.client.token, from, body(stanza).parse().unwrap()));
            }
            _ => {}
        }
    }
}
