//! Questions about accounts, asked of their homes: in this process, or over the link to the router that has them.

use super::desk::Unanswered;
use super::questions::{Answer, MOST_SESSIONS, Question};
use super::raft;
use super::switchboard::Switchboard;
use crate::leaving;
use futures::future::join_all;
use starling_admin::Phase;
use starling_router::Door;
use starling_store::{AccountRow, StoreError};
use starling_wire::chart::Way;
use starling_wire::frame::Leaving;
use starling_wire::{LinkError, Registration, RouterId, SessionInfo};
use starling_xmpp::BareJid;
use starling_xmpp::sasl::Credentials;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a home is looked for: as long as a failover may take, or a move on a busy machine.
const LOOK: Duration = Duration::from_secs(2);
/// How soon again.
const AGAIN: Duration = Duration::from_millis(20);
/// How long an answer may take.
pub(super) const WITHIN: Duration = Duration::from_secs(5);
/// How long that of a home may take, which is to be there before.
const HOME_WITHIN: Duration = Duration::from_secs(4);

/// For SASL: the account's row.
pub(super) async fn account(board: &Switchboard, account: BareJid) -> Result<Option<AccountRow>, LinkError> {
    match ask(board, Question::Account(account)).await {
        Answer::Account(row) => Ok(row),
        Answer::NotHome => Err(LinkError::NoHome),
        _ => Err(LinkError::Busy),
    }
}

/// In-band registration.
pub(super) async fn register(
    board: &Switchboard,
    account: BareJid,
    credentials: Credentials,
) -> Result<Registration, LinkError> {
    match ask(board, Question::Create(account, credentials)).await {
        Answer::Done(true) => Ok(Registration::Created),
        Answer::Done(false) => Ok(Registration::Conflict),
        Answer::NotHome => Err(LinkError::NoHome),
        _ => Err(LinkError::Busy),
    }
}

/// Asks the home of the account that the question is about, wherever that is, and looks for it for a while.
#[allow(clippy::disallowed_methods)] // only how long it takes
pub(super) async fn ask(board: &Switchboard, question: Question) -> Answer {
    let Some(account) = question.account() else { return Answer::NotHome };
    let shard = board.own.shards.of(account);
    let until = Instant::now() + LOOK;
    loop {
        let answer = match board.chart.way(shard) {
            Way::Here(_, gate) => at(&gate.door, question.clone()).await,
            Way::There(_, router) => match board.peer(router) {
                Some(outlet) => match board.desk.ask(router, &outlet, &question, WITHIN).await {
                    Ok(answer) => answer,
                    // What only reads may be asked again.
                    Err(Unanswered::NotLinked) => Answer::NotHome,
                    Err(Unanswered::Lost) if matches!(question, Question::Account(_)) => Answer::NotHome,
                    Err(error) => Answer::Unavailable(error.to_string()),
                },
                None => Answer::NotHome,
            },
            Way::Nowhere => Answer::NotHome,
        };
        if !matches!(answer, Answer::NotHome) || Instant::now() >= until {
            return answer;
        }
        sleep(AGAIN).await;
    }
}

/// Answers another router, from what is here.
pub(super) async fn answer(board: &Switchboard, question: Question) -> Answer {
    match (&question, question.account()) {
        (_, Some(account)) => match board.chart.here(board.own.shards.of(account)) {
            Some(gate) => at(&gate.door, question).await,
            None => Answer::NotHome,
        },
        (Question::Sessions(_, limit), None) => {
            let limit = usize::try_from(*limit).unwrap_or(MOST_SESSIONS);
            match sessions(board).await {
                Ok(mut sessions) => {
                    sessions.truncate(limit);
                    Answer::Sessions(sessions)
                }
                Err(why) => Answer::Unavailable(why),
            }
        }
        (Question::Give(shard, to), None) => raft::give(board, *shard, *to).await,
        (Question::Traces(rules), None) => {
            board.traces_heard(rules);
            Answer::Done(true)
        }
        // Whoever has answered leaves, and not before: one that leads nothing is gone at once.
        (Question::Leave, None) => {
            let now = going(board);
            Answer::Going(Leaving { phase: now.phase.max(leaving::step(Phase::Settling)), ..now })
        }
        (Question::Going, None) => Answer::Going(going(board)),
        (_, None) => match sessions(board).await {
            Ok(sessions) => {
                let detached = sessions.iter().filter(|session| session.detached).count();
                Answer::Count(sessions.len() as u64, detached as u64)
            }
            Err(why) => Answer::Unavailable(why),
        },
    }
}

/// How far this router is with leaving: what is left are the shards that it serves.
pub(super) fn going(board: &Switchboard) -> Leaving {
    Leaving { phase: leaving::step(board.leaving.phase()), left: board.chart.homes().len() as u64 }
}

/// Asks a home of this process.
async fn at(door: &Door, question: Question) -> Answer {
    let answer = async {
        match question {
            Question::Account(account) => match door.account(&account).await {
                Ok(row) => Answer::Account(row),
                Err(LinkError::NoHome) => Answer::NotHome,
                Err(error) => Answer::Unavailable(error.to_string()),
            },
            _ if !door.holds() => Answer::NotHome,
            Question::Create(account, keys) => done(door.create_account(&account, keys).await),
            Question::SetKeys(account, keys) => done(door.set_credentials(&account, keys).await),
            Question::Delete(account) => done(door.delete_account(&account).await),
            Question::Sessions(of, limit) => {
                let mut sessions = door.sessions().await;
                sessions.retain(|session| of.as_ref().is_none_or(|of| session.jid.same_bare(of)));
                sessions.truncate(usize::try_from(limit).unwrap_or(MOST_SESSIONS));
                Answer::Sessions(sessions)
            }
            Question::Count
            | Question::Give(..)
            | Question::Traces(_)
            | Question::Leave
            | Question::Going => Answer::NotHome,
        }
    };
    // A home that has ended answers nothing.
    let late = |_| Answer::Unavailable("the home does not answer in time".to_owned());
    timeout(HOME_WITHIN, answer).await.unwrap_or_else(late)
}

fn done(result: Result<bool, StoreError>) -> Answer {
    match result {
        Ok(done) => Answer::Done(done),
        Err(error) => Answer::Unavailable(error.to_string()),
    }
}

/// Sessions of the homes of this process, in the order of their addresses.
///
/// # Errors
/// Homes that do not answer: their sessions must not be taken for none.
async fn sessions(board: &Switchboard) -> Result<Vec<SessionInfo>, String> {
    let gates = board.chart.doors();
    let asked = gates.iter().map(|gate| timeout(HOME_WITHIN, gate.door.sessions()));
    let answers = join_all(asked).await;
    let silent = answers.iter().filter(|answer| answer.is_err()).count();
    if silent > 0 {
        return Err(format!("the homes of {silent} of its {} shards do not answer", answers.len()));
    }
    let mut all: Vec<SessionInfo> = answers.into_iter().flatten().flatten().collect();
    all.sort_unstable_by(|one, other| one.jid.as_str().cmp(other.jid.as_str()));
    Ok(all)
}

/// What all routers said, as far as they did.
pub(super) struct Gathered {
    /// Answers that came.
    pub(super) answers: Vec<Answer>,
    /// Names of routers from which none came, each with why.
    pub(super) silent: Vec<(String, String)>,
}

/// Asks all routers there are, this one too: those that are linked, and those that lead a shard, which is any member where it is
/// not known who leads one.
pub(super) async fn ask_all(board: &Switchboard, question: Question) -> Gathered {
    let mut routers: BTreeMap<RouterId, String> = board.peers().into_iter().collect();
    if let Some(locations) = board.locations() {
        let leaders: BTreeSet<_> = locations.groups().iter().map(|group| group.leader()).collect();
        let leads = |router| leaders.contains(&Some(router)) || leaders.contains(&None);
        for (router, (member, _)) in locations.members() {
            if leads(router) && router != board.own.router {
                routers.entry(router).or_insert(member.name);
            }
        }
    }
    let asked = routers.iter().map(|(router, name)| {
        let question = &question;
        async move {
            let Some(outlet) = board.peer(*router) else {
                return (name.clone(), Err(Unanswered::NotLinked.to_string()));
            };
            let answer = board.desk.ask(*router, &outlet, question, WITHIN).await;
            (name.clone(), answer.map_err(|error| error.to_string()))
        }
    });
    let own = async { (board.own.name.clone(), Ok(answer(board, question.clone()).await)) };
    let (mut all, own) = futures::join!(join_all(asked), own);
    all.push(own);
    let mut gathered = Gathered { answers: Vec::new(), silent: Vec::new() };
    for (name, answer) in all {
        match answer {
            Ok(Answer::Unavailable(why)) | Err(why) => gathered.silent.push((name, why)),
            Ok(answer) => gathered.answers.push(answer),
        }
    }
    gathered
}
