//! One shard, as an edge sees it.

use super::kept::{Kept, Pending, Taken};
use super::{LinkId, Load, Output, Patience};
use crate::frame::{EdgeItem, Home};
use crate::record::Queued;
use crate::{ConnId, Down, EdgeId, Epoch, Leave, RouterId, Shard, ToEdge, ToHome, Token, Up};
use starling_xmpp::{BareJid, ErrorType, StanzaCondition, StanzaError};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// How often what nobody speaks of any more is looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How long a home that is followed by one of another router may still say what only it has. One that moves on purpose says that
/// it has done so; of one that is gone the link ends, mostly.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(100);

/// The home of one shard, and this edge's sessions of that shard. Every call names the present time (monotonic).
#[derive(Debug)]
pub struct Seat {
    edge: EdgeId,
    shard: Shard,
    patience: Patience,
    /// Where the home is; absent while none is linked.
    home: Option<(LinkId, Epoch)>,
    /// The one that follows it, while it may still say something, and since when.
    next: Option<(LinkId, Epoch, Duration)>,
    /// The highest reign that anybody spoke of.
    highest: Epoch,
    /// Since when there is no home.
    homeless: Option<Duration>,
    /// The sockets have been closed for it.
    closed: bool,
    /// When what is over was last looked for.
    swept: Duration,
    kept: BTreeMap<u64, Kept>,
    /// The connection that a session had last.
    by_token: HashMap<Token, u64>,
}

impl Seat {
    /// Nobody is home yet.
    pub fn new(edge: EdgeId, shard: Shard, patience: Patience, now: Duration) -> Self {
        Self {
            edge,
            shard,
            patience,
            home: None,
            next: None,
            highest: Epoch(0),
            homeless: Some(now),
            closed: false,
            swept: now,
            kept: BTreeMap::new(),
            by_token: HashMap::new(),
        }
    }

    /// Which one.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// Its home and the reign, which is where all that is said goes; none while the next one waits for its last words.
    pub fn home(&self) -> Option<(LinkId, Epoch)> {
        self.home.filter(|_| self.next.is_none())
    }

    /// Whether sockets of its sessions may be read.
    pub fn reading(&self) -> bool {
        self.home().is_some()
    }

    /// What is kept now; it counts, so for metrics, not for every stanza.
    pub fn load(&self) -> Load {
        let mut load = Load { sessions: self.kept.len(), ..Load::default() };
        for kept in self.kept.values() {
            load.detached += usize::from(kept.gone.is_some());
            load.ups += kept.ups.len();
            load.downs += kept.queued();
        }
        load
    }

    /// A router says that it is the home, in its hello or since.
    pub fn announced(&mut self, link: LinkId, epoch: Epoch, now: Duration, out: &mut Vec<Output>) {
        let present = self.next.map(|(link, epoch, _)| (link, epoch)).or(self.home);
        let news = match present {
            Some((old, _)) => {
                epoch > self.highest || epoch == self.highest && old.router == link.router && old < link
            }
            // The highest may be one of which only a `NotHome` has spoken.
            None => epoch >= self.highest,
        };
        if !news {
            return;
        }
        self.highest = epoch;
        if self.home.is_some_and(|(old, _)| old.router != link.router) {
            // What a home gives away before it moves comes over a link of its own, and may come later than this.
            let since = self.next.map_or(now, |(.., since)| since);
            if self.next.replace((link, epoch, since)).is_none() {
                out.push(Output::Reading(false));
            }
            return;
        }
        self.follow(link, epoch, now, out);
    }

    fn follow(&mut self, link: LinkId, epoch: Epoch, now: Duration, out: &mut Vec<Output>) {
        if !self.reading() {
            out.push(Output::Reading(true));
        }
        self.home = Some((link, epoch));
        self.next = None;
        self.homeless = None;
        self.closed = false;
        self.attach(link, epoch, now, out);
    }

    /// A router is not the home: its answer to what we sent it, or its own news.
    pub fn not_home(
        &mut self,
        link: LinkId,
        epoch: Epoch,
        hint: Option<RouterId>,
        now: Duration,
        out: &mut Vec<Output>,
    ) {
        self.highest = self.highest.max(epoch);
        let Some((home, own)) = self.home else { return };
        // An answer to what was sent to its last reign comes after word of the next one.
        let stale = |own| hint == Some(link.router) && epoch <= own;
        match self.next {
            Some((next, own, _)) if epoch > own || link == next && !stale(own) => self.lose(now, out),
            Some((next, own, _)) if link == home => self.follow(next, own, now, out),
            None if epoch > own || link == home && !stale(own) => self.lose(now, out),
            _ => {}
        }
    }

    /// The link has ended.
    pub fn unlinked(&mut self, link: LinkId, now: Duration, out: &mut Vec<Output>) {
        match self.next {
            Some((next, ..)) if next == link => self.lose(now, out),
            Some((next, epoch, _)) if self.home.is_some_and(|(home, _)| home == link) => {
                self.follow(next, epoch, now, out);
            }
            None if self.home.is_some_and(|(home, _)| home == link) => self.lose(now, out),
            _ => {}
        }
    }

    fn lose(&mut self, now: Duration, out: &mut Vec<Output>) {
        if self.reading() {
            out.push(Output::Reading(false));
        }
        (self.home, self.next) = (None, None);
        self.homeless = Some(now);
    }

    /// Time passes: to be called some times a second.
    pub fn tick(&mut self, now: Duration, out: &mut Vec<Output>) {
        if let Some((next, epoch, _)) = self.next.filter(|(.., since)| now >= *since + LAST_WORDS) {
            self.follow(next, epoch, now, out);
        }
        let Patience { homeless, detached, ended } = self.patience;
        if now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.drop_where(|kept| match kept.gone {
                Some((Leave::Lost | Leave::Never, since)) => now.saturating_sub(since) >= detached,
                Some((Leave::Closed, since)) => now.saturating_sub(since) >= ended,
                None => false,
            });
        }
        let late = self.homeless.is_some_and(|since| now.saturating_sub(since) >= homeless);
        if !late || self.closed {
            return;
        }
        self.closed = true;
        let numbers: Vec<u64> = self.kept.keys().copied().collect();
        for number in numbers {
            self.give_up(number, out);
        }
    }

    /// No home will answer this connection in time.
    fn give_up(&mut self, number: u64, out: &mut Vec<Output>) {
        let conn = self.conn(number);
        let Some(kept) = self.kept.get(&number).filter(|kept| kept.gone.is_none()) else { return };
        if kept.jid.is_none() && matches!(kept.ups.front(), Some(Pending::Bind { .. })) {
            let error = StanzaError::new(StanzaCondition::ResourceConstraint).with_type(ErrorType::Wait);
            out.push(Output::Deliver(ToEdge { conn, down: Down::Refused(Box::new(error)) }));
            return self.forget(number);
        }
        if kept.jid.is_none() {
            self.forget(number);
        }
        out.push(Output::Cut(conn));
    }

    /// A connection says something to its home.
    pub fn up(&mut self, message: ToHome, now: Duration, out: &mut Vec<Output>) {
        let ToHome { account, conn, mut up } = message;
        let number = conn.number;
        if let Up::Gone(leave) = &mut up
            && self.kept.get(&number).is_some_and(|kept| kept.closed)
        {
            *leave = Leave::Lost;
        }
        if let Up::Gone(leave) = &mut up
            && self.kept.get(&number).is_some_and(|kept| kept.jid.is_none())
        {
            *leave = Leave::Never;
        }
        let begins = match &up {
            Up::Bind { token, resource } => Some((*token, Pending::Bind { resource: resource.clone() })),
            Up::Resume { token, handled } => Some((*token, Pending::Resume { handled: *handled })),
            _ => None,
        };
        if let Some((token, question)) = begins {
            if self.kept.get(&number).is_some_and(|kept| kept.jid.is_some()) {
                return; // a session is bound once
            }
            self.kept.insert(number, Kept::new(account.clone(), token, question));
        }
        let home = self.home();
        // A session that is over or elsewhere says nothing more.
        let Some(kept) = self.kept.get_mut(&number).filter(|kept| kept.gone.is_none()) else { return };
        match &up {
            Up::Idle => kept.idle = true,
            Up::Written { .. } | Up::Attach(_) => {}
            _ => kept.idle = false,
        }
        match &up {
            Up::Stanza { sequence, stanza, fault, trace, .. } => kept.ups.push_back(Pending::Stanza {
                sequence: *sequence,
                stanza: stanza.clone(),
                fault: fault.clone(),
                trace: *trace,
                said: home.is_some() && !kept.left,
                before: false,
                answered: false,
            }),
            Up::EnableSm { resume, max } => {
                kept.ups.push_back(Pending::Enable { resume: *resume, max: *max });
            }
            Up::Acknowledged { handled } => kept.acknowledge(*handled),
            Up::Written { count } => kept.written(*count),
            Up::ClientState { active } => kept.active = Some(*active),
            Up::Gone(leave) => kept.gone = Some((*leave, now)),
            Up::Bind { .. } | Up::Resume { .. } | Up::Idle => {}
            Up::Attach(_) => return,
        }
        if matches!(up, Up::Gone(_)) && kept.jid.is_none() {
            // The home learns what it has bound when it is told that the connection is gone, or that no record of it
            // is there.
            self.forget(number);
        }
        match home {
            Some((link, epoch)) => {
                let home = Home { shard: self.shard, epoch };
                out.push(Output::Send(link, EdgeItem::Up(home, ToHome { account, conn, up })));
            }
            None if self.closed => self.give_up(number, out),
            None => {}
        }
    }

    /// A home says something to a connection, over this link and in this reign.
    pub fn down(&mut self, link: LinkId, epoch: Epoch, message: ToEdge, out: &mut Vec<Output>) {
        if self.home != Some((link, epoch)) {
            return;
        }
        let ToEdge { conn, down } = message;
        let number = conn.number;
        let Some(kept) = self.kept.get_mut(&number) else {
            match &down {
                // Another connection of this edge has its session by now: its socket still has to be closed.
                Down::Close(_) | Down::Released => out.push(Output::Deliver(ToEdge { conn, down })),
                // It was refused before, or is gone: its home would take it for one that lives.
                Down::Bound { jid } | Down::Resumed { jid, .. } => {
                    let (home, account) = (Home { shard: self.shard, epoch }, jid.as_jid().to_bare());
                    let up = Up::Gone(Leave::Never);
                    out.push(Output::Send(link, EdgeItem::Up(home, ToHome { account, conn, up })));
                }
                _ => {}
            }
            return;
        };
        kept.epoch = epoch;
        match &down {
            Down::Bound { jid } => {
                if kept.jid.is_some() {
                    return kept.bound(jid.clone()); // the answer to a question that came twice
                }
                kept.bound(jid.clone());
                let token = kept.token;
                self.by_token.insert(token, number);
            }
            Down::Resumed { jid, sequence, base } => {
                if kept.jid.is_some() {
                    return;
                }
                kept.resumed(jid.clone(), *sequence, *base);
                let token = kept.token;
                if kept.gone.is_none() {
                    out.push(Output::Deliver(ToEdge { conn, down }));
                }
                if let Some(before) = self.by_token.insert(token, number).filter(|before| *before != number) {
                    self.inherit(before, number, out);
                }
                return;
            }
            Down::Refused(_) | Down::NotResumed => {
                if kept.jid.is_some() {
                    return;
                }
                self.forget(number);
            }
            Down::SmEnabled { base, .. } => kept.enabled(Some(*base)),
            Down::SmFailed => kept.enabled(None),
            Down::Handled { sequence } => kept.settle(*sequence),
            Down::Close(_) => kept.closed = true,
            Down::Stanza { number: 0, .. } | Down::RequestAck => {}
            Down::Stanza { number: own, position, waits, counts, stanza, answers, .. } => {
                let answers = *answers;
                let queued = Queued {
                    number: *own,
                    position: *position,
                    waits: *waits,
                    counts: *counts,
                    stanza: stanza.clone(),
                };
                let taken = kept.take(queued);
                if answers > 0 && taken != Taken::Gap {
                    kept.is_answered(answers);
                }
                match taken {
                    Taken::New => {}
                    Taken::Known => return,
                    Taken::Gap => {
                        tracing::error!(
                            event = "number_left_out",
                            shard = self.shard.0,
                            "a home left a number out"
                        );
                        return out.push(Output::Break(link));
                    }
                }
            }
            Down::Remember(notes) => {
                if kept.remember(notes)
                    && let Some(record) = kept.record(Duration::ZERO)
                {
                    // From now on the connection before it may forget the session.
                    let (home, account) = (Home { shard: self.shard, epoch }, kept.account.clone());
                    let up = Up::Attach(Box::new(record));
                    out.push(Output::Send(link, EdgeItem::Up(home, ToHome { account, conn, up })));
                }
                return;
            }
            Down::Saved { through } => return kept.saved(*through),
            Down::Decided { through, open } => return kept.decided(*through, open),
            Down::Released => {
                let connected = kept.gone.is_none();
                self.forget(number);
                if !connected {
                    return;
                }
            }
        }
        if self.kept.get(&number).is_none_or(|kept| kept.gone.is_none()) {
            out.push(Output::Deliver(ToEdge { conn, down }));
        }
    }

    /// The session goes on over another connection of this edge, which has all of it at once.
    fn inherit(&mut self, before: u64, number: u64, out: &mut Vec<Output>) {
        let Some(old) = self.kept.remove(&before) else { return };
        if old.gone.is_none() {
            let conn = self.conn(before);
            out.push(Output::Deliver(ToEdge { conn, down: Down::Released }));
        }
        let conn = self.conn(number);
        let Some(kept) = self.kept.get_mut(&number) else { return };
        kept.inherit(old);
        if kept.gone.is_some() {
            return;
        }
        for Queued { number, position, waits, counts, stanza } in kept.queue() {
            let (stanza, answers, trace) = (stanza.clone(), 0, None);
            let (number, position, waits, counts) = (*number, *position, *waits, *counts);
            let down = Down::Stanza { number, position, waits, counts, stanza, answers, trace };
            out.push(Output::Deliver(ToEdge { conn, down }));
        }
    }

    /// Tells a home of all sessions, then of all that it has not handled.
    fn attach(&mut self, link: LinkId, epoch: Epoch, now: Duration, out: &mut Vec<Output>) {
        let home = Home { shard: self.shard, epoch };
        let edge = self.edge;
        let say = |number: &u64, account: &BareJid, up: Up| {
            let conn = ConnId { edge, number: *number };
            Output::Send(link, EdgeItem::Up(home, ToHome { account: account.clone(), conn, up }))
        };
        out.push(Output::Send(link, EdgeItem::AttachBegin(home)));
        for (number, kept) in &mut self.kept {
            if let Some(record) = kept.record(now) {
                out.push(say(number, &kept.account, Up::Attach(Box::new(record))));
                kept.epoch = epoch;
            }
        }
        out.push(Output::Send(link, EdgeItem::AttachEnd(home)));
        for (number, kept) in &mut self.kept {
            kept.left = false;
            for pending in &mut kept.ups {
                out.push(say(number, &kept.account, pending.say(kept.token)));
            }
            if let Some(active) = kept.active.filter(|_| kept.gone.is_none()) {
                out.push(say(number, &kept.account, Up::ClientState { active }));
            }
            if kept.idle {
                out.push(say(number, &kept.account, Up::Idle));
            }
            if let Some((leave, _)) = kept.gone {
                out.push(say(number, &kept.account, Up::Gone(leave)));
            }
        }
    }

    fn conn(&self, number: u64) -> ConnId {
        ConnId { edge: self.edge, number }
    }

    fn forget(&mut self, number: u64) {
        if let Some(kept) = self.kept.remove(&number)
            && self.by_token.get(&kept.token) == Some(&number)
        {
            self.by_token.remove(&kept.token);
        }
    }

    fn drop_where(&mut self, is_it: impl Fn(&Kept) -> bool) {
        let numbers: Vec<u64> =
            self.kept.iter().filter(|(_, kept)| is_it(kept)).map(|(number, _)| *number).collect();
        for number in numbers {
            self.forget(number);
        }
    }
}
