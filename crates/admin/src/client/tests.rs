use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use starling_wire::SessionInfo;
use starling_xmpp::{BareJid, FullJid};

use super::*;
use crate::{
    AdminSocket, Control, ControlError, ListenerStatus, NewUser, Password, Status, User, UserPage, UserQuery,
    api::{IMPORT_MAX, PAGE_MAX, code},
};

/// Accounts in memory, of the domain `example.org`. Those whose names begin with `moving` are away for the first call.
#[derive(Default)]
struct Accounts(Mutex<BTreeMap<String, String>>, Mutex<BTreeSet<String>>);

fn now<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Control for Accounts {
    fn user_add(&self, user: NewUser) -> BoxFuture<'_, Result<(), ControlError>> {
        if user.jid.domain() != "example.org" {
            return now(Err(ControlError::UnknownDomain));
        }
        let moving = user.jid.as_str().starts_with("moving");
        if moving && self.1.lock().insert(user.jid.as_str().to_owned()) {
            return now(Err(ControlError::Unavailable("it has no home".to_owned())));
        }
        let mut accounts = self.0.lock();
        if accounts.contains_key(user.jid.as_str()) {
            return now(Err(ControlError::Exists));
        }
        accounts.insert(user.jid.as_str().to_owned(), user.password.expose().to_owned());
        now(Ok(()))
    }

    fn user_delete(&self, jid: BareJid) -> BoxFuture<'_, Result<(), ControlError>> {
        now(self.0.lock().remove(jid.as_str()).map(drop).ok_or(ControlError::NotFound))
    }

    fn user_passwd(&self, jid: BareJid, password: Password) -> BoxFuture<'_, Result<(), ControlError>> {
        let mut accounts = self.0.lock();
        let slot = accounts.get_mut(jid.as_str()).ok_or(ControlError::NotFound);
        now(slot.map(|slot| *slot = password.expose().to_owned()))
    }

    fn users(&self, query: UserQuery) -> BoxFuture<'_, Result<UserPage, ControlError>> {
        let accounts = self.0.lock();
        let after = |jid: &&String| query.after.as_ref().is_none_or(|after| jid.as_str() > after.as_str());
        let rest: Vec<_> = accounts.keys().filter(after).collect();
        let row = |jid: &&String| User { jid: BareJid::parse(jid).unwrap(), created: Some(1) };
        let users = rest.iter().take(query.limit).map(row).collect();
        now(Ok(UserPage { users, more: rest.len() > query.limit }))
    }

    fn sessions(
        &self,
        of: Option<BareJid>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<SessionInfo>, ControlError>> {
        let jid = FullJid::parse("alice@example.org/phone").unwrap();
        let count = of.map_or(PAGE_MAX + 1, |of| usize::from(of == jid.bare()));
        let session = SessionInfo {
            jid,
            available: true,
            priority: -1,
            detached: false,
            stream_management: true,
            since: 1_000_000,
        };
        now(Ok(vec![session; count.min(limit)]))
    }

    fn status(&self) -> BoxFuture<'_, Result<Status, ControlError>> {
        let listener = ListenerStatus { name: "c2s".to_owned(), address: "127.0.0.1:5222".parse().unwrap() };
        now(Ok(Status { version: "1".to_owned(), listeners: vec![listener], ..Status::default() }))
    }
}

struct Server {
    dir: tempfile::TempDir,
    task: JoinHandle<()>,
    accounts: Arc<Accounts>,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let accounts = Arc::new(Accounts::default());
        let socket = AdminSocket::open(dir.path()).unwrap();
        let task = tokio::spawn(socket.serve(accounts.clone()));
        Self { dir, task, accounts }
    }

    async fn client(&self) -> Client {
        Client::connect(self.dir.path()).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn code_of<T: std::fmt::Debug>(result: Result<T, ClientError>) -> String {
    match result {
        Err(ClientError::Refused(body)) => body.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_account_lives_and_dies() {
    let server = Server::start();
    let mut client = server.client().await;
    client.user_add("Alice@example.org", "secret").await.unwrap();
    assert_eq!(code_of(client.user_add("alice@example.org", "other").await), code::EXISTS);
    client.user_passwd("alice@example.org", "pass wörd \"x\"").await.unwrap();
    assert_eq!(server.accounts.0.lock()["alice@example.org"], "pass wörd \"x\"");
    let users = client.users(None, None, 10).await.unwrap();
    assert_eq!((users.users.len(), users.next), (1, None));
    client.user_delete("alice@example.org").await.unwrap();
    assert_eq!(code_of(client.user_delete("alice@example.org").await), code::NOT_FOUND);
    assert_eq!(code_of(client.user_passwd("alice@example.org", "x").await), code::NOT_FOUND);
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_a_reason() {
    let server = Server::start();
    let mut client = server.client().await;
    assert_eq!(code_of(client.user_add("a b@example.org", "x").await), code::INVALID);
    assert_eq!(code_of(client.user_add("example.org", "x").await), code::INVALID);
    assert_eq!(code_of(client.user_add("alice@example.org/phone", "x").await), code::INVALID);
    assert_eq!(code_of(client.user_add("alice@example.org", "").await), code::INVALID);
    assert_eq!(code_of(client.user_add("alice@example.org", &"x".repeat(2_000)).await), code::INVALID);
    assert_eq!(code_of(client.user_add("alice@elsewhere.org", "x").await), code::UNKNOWN_DOMAIN);
    assert_eq!(code_of(client.users(None, None, 0).await), code::INVALID);
    let body = serde_json::json!({ "jid": "a@example.org", "password": "x", "admin": true });
    assert_eq!(code_of(client.call(Method::POST, "/v1/users", Some(&body)).await), code::INVALID);
}

#[tokio::test]
async fn pages_follow_one_another() {
    let server = Server::start();
    let mut client = server.client().await;
    for name in ["a", "b", "c", "d", "e"] {
        client.user_add(&format!("{name}@example.org"), "x").await.unwrap();
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = client.users(Some("example.org"), after.as_deref(), 2).await.unwrap();
        seen.extend(page.users.into_iter().map(|user| user.jid));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.is_sorted());
}

#[tokio::test]
async fn an_import_does_what_it_can_and_waits_for_what_moves() {
    let server = Server::start();
    let mut client = server.client().await;
    let user = |jid: &str, password: &str| AddUser { jid: jid.to_owned(), password: password.to_owned() };
    client.user_add("a@example.org", "old").await.unwrap();
    let users = vec![
        user("a@example.org", "new"),
        user("moving@example.org", "x"),
        user("@", "x"),
        user("c@example.org", ""),
    ];
    let imported = client.user_import(users).await.unwrap();
    assert_eq!((imported.added, imported.changed), (1, 1));
    assert_eq!(imported.failed.iter().map(|failure| failure.index).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(server.accounts.0.lock()["a@example.org"], "new");
    let many = (0..=IMPORT_MAX).map(|number| user(&format!("u{number}@example.org"), "x")).collect();
    assert_eq!(code_of(client.user_import(many).await), code::INVALID);
}

#[tokio::test]
async fn sessions_and_status_are_shown() {
    let server = Server::start();
    let mut client = server.client().await;
    let sessions = client.sessions(None, 10).await.unwrap().sessions;
    assert_eq!(
        (sessions[0].jid.as_str(), sessions[0].state.as_str()),
        ("alice@example.org/phone", "available")
    );
    assert_eq!(sessions[0].priority, -1);
    assert!(client.sessions(Some("bob@example.org"), 10).await.unwrap().sessions.is_empty());
    let status = client.status().await.unwrap();
    assert_eq!(status.listeners[0].address, "127.0.0.1:5222");
    assert_eq!(status.pid, std::process::id());
}

#[tokio::test]
async fn a_list_of_sessions_that_is_not_whole_says_so() {
    let server = Server::start();
    let mut client = server.client().await;
    for limit in [1, PAGE_MAX] {
        let listed = client.sessions(None, limit).await.unwrap();
        assert_eq!((listed.sessions.len(), listed.more), (limit, true));
    }
    let whole = client.sessions(Some("alice@example.org"), 1).await.unwrap();
    assert_eq!((whole.sessions.len(), whole.more), (1, false));
    for limit in [0, PAGE_MAX + 1] {
        assert_eq!(code_of(client.sessions(None, limit).await), code::INVALID, "{limit}");
    }
}

#[tokio::test]
async fn says_when_no_server_runs() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Client::connect(dir.path()).await, Err(ClientError::NotRunning(_))));
    drop(AdminSocket::open(dir.path()).unwrap());
    // The file is still there, and nobody behind it.
    assert!(matches!(Client::connect(dir.path()).await, Err(ClientError::NotRunning(_))));
}

#[test]
fn odd_letters_are_escaped() {
    assert_eq!(escaped("a@b.c/d é"), "a%40b.c%2Fd%20%C3%A9");
}

#[tokio::test]
async fn a_server_alone_cannot_be_drained() {
    let server = Server::start();
    let mut client = server.client().await;
    assert_eq!(code_of(client.drain(None).await), code::INVALID);
    assert_eq!(code_of(client.draining(None).await), code::INVALID);
}
