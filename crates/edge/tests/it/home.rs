//! A home in memory: it knows accounts, binds what it is asked to, and says messages back to their sender.

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_edge::EdgeTable;
use starling_store::AccountRow;
use starling_wire::{ConnId, Down, EdgeLink, LinkError, Registration, RouterLink, ToEdge, ToHome, Token, Up};
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{BareJid, FullJid, IqType, Kind, StanzaCondition, StanzaError, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::mpsc;

pub(crate) struct Home {
    table: Arc<EdgeTable>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    accounts: HashMap<String, AccountRow>,
    conns: HashMap<ConnId, Session>,
    detached: HashMap<Token, Session>,
    log: Vec<String>,
    away: bool,
    holds: bool,
    /// Goes out at once to whom resumes next, as all that was given away for a session does.
    waiting: Vec<Down>,
    /// Answers go through another task, as they do when the home has threads of its own.
    late: Option<mpsc::UnboundedSender<Vec<ToEdge>>>,
}

#[derive(Clone)]
struct Session {
    token: Token,
    jid: FullJid,
    sequence: u64,
    base: u64,
}

impl Home {
    pub(crate) fn new(table: Arc<EdgeTable>) -> Arc<Self> {
        let home = Arc::new(Self { table, state: Mutex::default() });
        home.add("alice@localhost", "secret");
        home
    }

    pub(crate) fn add(&self, jid: &str, password: &str) {
        static SECRET: LazyLock<Credentials> =
            LazyLock::new(|| Credentials::derive("secret", [3; 16], 4_096).unwrap());
        assert_eq!(password, "secret", "derived once for all");
        let row = row(SECRET.clone());
        self.state.lock().accounts.insert(jid.to_owned(), row);
    }

    pub(crate) fn disable(&self, jid: &str) {
        self.state.lock().accounts.get_mut(jid).unwrap().disabled = true;
    }

    /// No home answers from now on.
    pub(crate) fn go_away(&self) {
        self.state.lock().away = true;
    }

    /// Stanzas are taken, but none is handled, until `release`.
    pub(crate) fn hold(&self) {
        self.state.lock().holds = true;
    }

    pub(crate) fn release(&self) {
        let words: Vec<ToEdge> = {
            let mut state = self.state.lock();
            state.holds = false;
            let handled = |(conn, session): (&ConnId, &Session)| ToEdge {
                conn: *conn,
                down: Down::Handled { sequence: session.sequence },
            };
            state.conns.iter().map(handled).collect()
        };
        self.table.deliver(&mut { words });
    }

    /// Answers from another task from now on.
    pub(crate) fn be_late(self: &Arc<Self>) {
        let (late, mut answers) = mpsc::unbounded_channel::<Vec<ToEdge>>();
        self.state.lock().late = Some(late);
        let home = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(mut words) = answers.recv().await {
                tokio::task::yield_now().await;
                home.table.deliver(&mut words);
            }
        });
    }

    /// This waits for whom resumes next.
    pub(crate) fn leave_waiting(&self, downs: impl IntoIterator<Item = Down>) {
        self.state.lock().waiting.extend(downs);
    }

    /// Says something to every connection.
    pub(crate) fn say(&self, down: impl Fn() -> Down) {
        let conns: Vec<ConnId> = self.state.lock().conns.keys().copied().collect();
        self.table.deliver(&mut conns.into_iter().map(|conn| ToEdge { conn, down: down() }).collect());
    }

    /// What edges said, one word each.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state.lock().log.clone()
    }

    pub(crate) fn count(&self, word: &str) -> usize {
        self.log().iter().filter(|line| line.split(' ').next() == Some(word)).count()
    }

    /// Waits until the log has a line that begins so.
    pub(crate) async fn heard(&self, beginning: &str) -> String {
        for _ in 0..3_000 {
            if let Some(line) = self.log().into_iter().find(|line| line.starts_with(beginning)) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never heard {beginning:?}: {:?}", self.log());
    }
}

impl State {
    fn take(&mut self, word: ToHome) -> Vec<Down> {
        let ToHome { account, conn, up } = word;
        match up {
            Up::Bind { token, resource } => {
                self.log.push(format!("bind {}", resource.as_deref().unwrap_or("-")));
                if resource.as_deref() == Some("taken") {
                    return vec![Down::Refused(Box::new(StanzaError::new(StanzaCondition::Conflict)))];
                }
                if resource.as_deref() == Some("unanswered") {
                    return Vec::new();
                }
                let jid = account.with_resource(resource.as_deref().unwrap_or("made")).unwrap();
                self.conns.insert(conn, Session { token, jid: jid.clone(), sequence: 0, base: 0 });
                vec![Down::Bound { jid }]
            }
            Up::Resume { token, handled } => {
                self.log.push(format!("resume {handled}"));
                match self.detached.remove(&token).filter(|session| session.jid.bare() == account) {
                    None => vec![Down::NotResumed],
                    Some(session) => {
                        self.conns.insert(conn, session.clone());
                        let Session { jid, sequence, base, .. } = session;
                        let waiting = self.waiting.drain(..);
                        std::iter::once(Down::Resumed { jid, sequence, base }).chain(waiting).collect()
                    }
                }
            }
            Up::Stanza { sequence, stanza, fault, trace, .. } => {
                let session = self.conns.get_mut(&conn).expect("a stanza of a bound connection");
                assert_eq!(sequence, session.sequence + 1, "numbered without gaps");
                session.sequence = sequence;
                let fault = fault.map(|fault| *fault);
                let condition = fault.as_ref().map_or("", |fault| fault.condition.as_str());
                self.log.push(format!("stanza {} {condition}", String::from_utf8_lossy(&stanza.encode())));
                let mut down = Vec::new();
                if let Some(fault) = fault {
                    down.extend(stanza.error(&fault));
                } else if let Kind::Iq(IqType::Get | IqType::Set) = stanza.kind {
                    down.push(stanza.result());
                } else if stanza.is_message() {
                    down.push(stanza);
                }
                let mut down: Vec<Down> = down
                    .into_iter()
                    .map(|stanza| Down::Stanza {
                        number: 0,
                        position: None,
                        waits: false,
                        counts: false,
                        stanza,
                        answers: 0,
                        trace,
                    })
                    .collect();
                if !self.holds {
                    down.push(Down::Handled { sequence });
                }
                down
            }
            Up::EnableSm { resume, max } => {
                let session = self.conns.get_mut(&conn).expect("bound");
                session.base = session.sequence;
                self.log.push(format!("enable {resume} {max:?}"));
                vec![Down::SmEnabled { resume: resume.then_some(300), base: session.base }]
            }
            Up::Acknowledged { handled } => self.heard(format!("acknowledged {handled}")),
            Up::Written { count } => self.heard(format!("written {count}")),
            Up::ClientState { active } => self.heard(format!("active {active}")),
            Up::Idle => self.heard("idle".to_owned()),
            Up::Attach(_) => self.heard("attach".to_owned()),
            Up::Gone(leave) => {
                if let Some(session) = self.conns.remove(&conn) {
                    self.detached.insert(session.token, session);
                }
                self.heard(format!("gone {leave:?}"))
            }
        }
    }

    fn heard(&mut self, line: String) -> Vec<Down> {
        self.log.push(line);
        Vec::new()
    }
}

impl RouterLink for Home {
    fn send(&self, batch: &mut Vec<ToHome>) {
        let mut words = Vec::new();
        let mut state = self.state.lock();
        for word in batch.drain(..) {
            let conn = word.conn;
            if !state.away {
                words.extend(state.take(word).into_iter().map(|down| ToEdge { conn, down }));
            }
        }
        match &state.late {
            Some(late) => late.send(words).unwrap(),
            None => {
                drop(state);
                self.table.deliver(&mut words);
            }
        }
    }

    fn account(&self, account: &BareJid) -> BoxFuture<'static, Result<Option<AccountRow>, LinkError>> {
        let state = self.state.lock();
        let answer = if state.away {
            Err(LinkError::NoHome)
        } else {
            Ok(state.accounts.get(account.as_str()).cloned())
        };
        async move { answer }.boxed()
    }

    fn register(
        &self,
        account: &BareJid,
        credentials: Credentials,
    ) -> BoxFuture<'static, Result<Registration, LinkError>> {
        let mut state = self.state.lock();
        let answer = if state.away {
            Err(LinkError::Busy)
        } else if state.accounts.contains_key(account.as_str()) {
            Ok(Registration::Conflict)
        } else {
            state.accounts.insert(account.to_string(), row(credentials));
            Ok(Registration::Created)
        };
        async move { answer }.boxed()
    }

    fn ready(&self) -> bool {
        !self.state.lock().away
    }
}

fn row(credentials: Credentials) -> AccountRow {
    AccountRow { generation: 1, credentials, created: Timestamp(0), disabled: false }
}
