//! What must outlive a process, how one ends, and what `starling ctl` does to a running one; on every store, and of a cluster.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use starling_tests::client::Received;
use starling_tests::report::{Outcome, Report, case, wanted};
use starling_tests::server::{Form, PASSWORD};
use starling_tests::{Client, Login, Node, Server};

const LIMIT: Duration = Duration::from_secs(120);

type Case = for<'a> fn(&'a Form) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        [$((stringify!($name), (|form| Box::pin($name(form))) as Case)),*]
    };
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let cases = cases![
        a_stop_is_told_and_a_start_knows_everything,
        a_kill_loses_nothing_that_was_acknowledged,
        a_changed_password_counts_at_once_and_later,
        a_deleted_user_is_out_and_leaves_nothing_behind,
    ];
    let mut report = Report::default();
    for (place, form) in Form::all() {
        for (name, run) in &cases {
            let name = format!("{place}::{name}");
            if !wanted(&name) {
                continue;
            }
            let (outcome, took) = match &form {
                Ok(form) => case(LIMIT, run(form)).await,
                Err(why) => (Outcome::Skipped(why.clone()), Duration::ZERO),
            };
            report.note(&name, outcome, took);
        }
    }
    Ok(report.finish())
}

async fn roster_item(client: &mut Client) -> Result<Option<Node>> {
    let roster = client.iq("<iq type='get' id='{id}'><query xmlns='jabber:iq:roster'/></iq>").await?;
    Ok(roster.find_deep("jabber:iq:roster", "item").cloned())
}

async fn archive(client: &mut Client) -> Result<Vec<String>> {
    client.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>").await?;
    let mut ids = Vec::new();
    loop {
        let node = client.next().await?;
        match node.find("urn:xmpp:mam:2", "result") {
            Some(result) => ids.push(result.attribute("id").unwrap_or_default().to_owned()),
            None if node.attribute("id") == Some("q") => return Ok(ids),
            None => {}
        }
    }
}

async fn a_stop_is_told_and_a_start_knows_everything(form: &Form) -> Result<()> {
    let mut server = Server::start_as(form, &[]).await?;
    for user in ["alice", "bob"] {
        server.add_user(user).await?;
    }
    let mut alice = server.login("alice").resource("phone").connect(server.target()).await?;
    alice.iq("<iq type='set' id='{id}'><query xmlns='jabber:iq:roster'><item jid='bob@localhost' name='Bob'/></query></iq>")
        .await?;
    alice.send("<presence type='subscribe' to='bob@localhost'><status>please</status></presence>").await?;
    alice.iq("<iq type='set' id='{id}'><block xmlns='urn:xmpp:blocking'><item jid='eve@localhost'/></block></iq>")
        .await?;
    for n in 0..3 {
        alice
            .send(&format!("<message to='bob@localhost' type='chat' id='m{n}'><body>{n}</body></message>"))
            .await?;
    }
    alice.ping().await?;
    let before = archive(&mut alice).await?;
    ensure!(before.len() == 3);

    let (told, status) = tokio::join!(alice.stream_error(), server.stop());
    ensure!(told? == "system-shutdown");
    ensure!(status?.success());
    server.restart().await?;

    let mut alice = server.login("alice").resource("phone").connect(server.target()).await?;
    let item = roster_item(&mut alice).await?.context("no roster item")?;
    ensure!(item.attribute("name") == Some("Bob"));
    ensure!(item.attribute("ask") == Some("subscribe"));
    ensure!(archive(&mut alice).await? == before);
    let blocked = alice.iq("<iq type='get' id='{id}'><blocklist xmlns='urn:xmpp:blocking'/></iq>").await?;
    ensure!(blocked.to_string().contains("eve@localhost"), "{blocked}");

    let mut bob = server.login("bob").resource("desk").connect(server.target()).await?;
    bob.send("<presence/>").await?;
    let mut bodies = Vec::new();
    let mut request = None;
    while bodies.len() < 3 || request.is_none() {
        let node = bob.next().await?;
        bodies.extend(node.body());
        if node.attribute("type") == Some("subscribe") {
            request = Some(node);
        }
    }
    ensure!(bodies == ["0", "1", "2"]);
    ensure!(request.context("no request")?.to_string().contains("please"));
    Ok(())
}

async fn a_kill_loses_nothing_that_was_acknowledged(form: &Form) -> Result<()> {
    let mut server = Server::start_as(form, &[]).await?;
    for user in ["alice", "bob"] {
        server.add_user(user).await?;
    }
    let login = server.login("alice").resource("phone").managed();
    let mut alice = login.connect(server.target()).await?;
    for n in 0..20 {
        alice
            .send(&format!("<message to='bob@localhost' type='chat' id='m{n}'><body>{n}</body></message>"))
            .await?;
    }
    alice.settle().await?;
    server.kill()?;
    server.restart().await?;
    // The session died with the process: a resumption fails, and says what was handled if it still can. A cluster waits for
    // the edge that may have it, and has clients come back until then.
    let detached = alice.cut();
    let end = Instant::now() + Duration::from_secs(30);
    let refused = loop {
        match detached.clone().resume(server.target(), &login).await {
            Ok(answer) => break answer.resumed().err().context("a session of nobody was resumed")?,
            Err(error) => {
                let again =
                    matches!(form, Form::Cluster(_)) && format!("{error:#}").contains("system-shutdown");
                ensure!(again && Instant::now() < end, "neither resumed nor refused: {error:#}");
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
    };
    ensure!(refused.to_string().contains("item-not-found"), "{refused:#}");

    let mut bob = server.login("bob").connect(server.target()).await?;
    bob.send("<presence/>").await?;
    for n in 0..20 {
        let message = bob.next_that(|node| node.name == "message").await?;
        ensure!(message.body() == Some(n.to_string()));
    }
    Ok(())
}

async fn a_changed_password_counts_at_once_and_later(form: &Form) -> Result<()> {
    let mut server = Server::start_as(form, &[]).await?;
    server.add_user("alice").await?;
    let mut alice = server.login("alice").connect(server.target()).await?;
    let change = "<iq type='set' id='{id}' to='localhost'><query xmlns='jabber:iq:register'><username>alice</username>\
                  <password>another-43</password></query></iq>";
    ensure!(alice.iq(change).await?.attribute("type") == Some("result"));
    alice.ping().await?;
    ensure!(server.login("alice").connect(server.target()).await.is_err());
    Login::new("alice", "another-43").connect(server.target()).await?;

    server.ctl(&["user", "passwd", "alice@localhost"], PASSWORD).await?;
    ensure!(Login::new("alice", "another-43").connect(server.target()).await.is_err());
    server.kill()?;
    server.restart().await?;
    server.login("alice").connect(server.target()).await?;
    Ok(())
}

async fn a_deleted_user_is_out_and_leaves_nothing_behind(form: &Form) -> Result<()> {
    let server = Server::start_as(form, &[]).await?;
    for user in ["alice", "bob"] {
        server.add_user(user).await?;
    }
    let mut alice = server.login("alice").connect(server.target()).await?;
    alice.iq("<iq type='set' id='{id}'><query xmlns='jabber:iq:roster'><item jid='bob@localhost'/></query></iq>").await?;
    alice.send("<message to='bob@localhost' type='chat' id='m'><body>x</body></message>").await?;
    alice.ping().await?;
    ensure!(server.ctl(&["user", "list"], "").await?.contains("alice@localhost"));
    ensure!(server.add_user("alice").await.is_err(), "an account can be made twice");

    server.ctl(&["user", "del", "--yes", "alice@localhost"], "").await?;
    ensure!(alice.stream_error().await? == "not-authorized");
    ensure!(!server.ctl(&["user", "list"], "").await?.contains("alice@localhost"));
    ensure!(server.login("alice").connect(server.target()).await.is_err());

    // The next of that name inherits nothing (CVE-2024-25420 and its kin).
    server.add_user("alice").await?;
    let mut alice = server.login("alice").connect(server.target()).await?;
    ensure!(roster_item(&mut alice).await? == None);
    ensure!(archive(&mut alice).await?.is_empty());
    alice.come_online().await?;
    ensure!(alice.receive(starling_tests::SILENCE).await? == None::<Received>);
    Ok(())
}
