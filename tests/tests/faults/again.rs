//! Many messages without an answer when something stops, and clients that send them all again in new sessions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use nix::sys::signal::Signal;
use starling_tests::cassandra::Cassandra;
use starling_tests::client::Received;
use starling_tests::server::Store;
use starling_tests::{Client, Login, Server, Target};
use tokio::time::{Instant, sleep, timeout};

/// Clients, and how many messages each has under way.
const CLIENTS: usize = 4;
const MESSAGES: usize = 60;
/// How long the server stands still: its lease is over then, and whatever it had begun has failed.
const STILL: Duration = Duration::from_secs(9);
/// When all of it has an answer, at the latest: what a message gets in any case, and a moment for coming back.
const ANSWERED: Duration = Duration::from_secs(12);

/// C20: the server stands still, then its store dies, each with hundreds of messages under way.
pub(crate) async fn c20_what_was_under_way_is_sent_again(nodes: &mut Cassandra, _seed: u64) -> Result<()> {
    let server = Server::start_on(&Store::Cql(nodes.contact_points()), &[]).await?;
    for number in 0..CLIENTS {
        server.add_user(&name(number)).await?;
    }
    for number in 0..CLIENTS {
        server.add_user(&friend(number)).await?;
    }
    // They are there, or nobody would have to be told anything.
    let friends = (0..CLIENTS).map(|number| online(&server, friend(number)));
    let _friends = try_join_all(friends).await?;

    let clients = begin(&server, "still").await?;
    server.signal(Signal::SIGSTOP)?;
    leave(clients);
    sleep(STILL).await;
    server.signal(Signal::SIGCONT)?;
    ensure_answered(&server, "still").await.context("after the server stood still")?;

    let clients = begin(&server, "dead").await?;
    nodes.kill(0)?;
    nodes.proxy(0).cut();
    sleep(Duration::from_secs(2)).await;
    leave(clients);
    nodes.restart(0).await?;
    ensure_answered(&server, "dead").await.context("after the store was dead")
}

fn name(number: usize) -> String {
    format!("sender{number}")
}

fn friend(number: usize) -> String {
    format!("friend{number}")
}

async fn online(server: &Server, user: String) -> Result<Client> {
    let mut client = server.login(&user).connect(server.target()).await?;
    client.come_online().await?;
    Ok(client)
}

fn message(number: usize, what: &str, index: usize) -> String {
    let (to, id) = (friend((number + index) % CLIENTS), format!("{what}-{number}-{index}"));
    format!(
        "<message to='{to}@localhost' type='chat' id='{id}'><body>{id}</body>\
         <origin-id xmlns='urn:xmpp:sid:0' id='{id}'/></message>"
    )
}

fn login(server: &Server, number: usize, resource: &str) -> Login {
    server.login(&name(number)).resource(resource).managed()
}

/// All have written all that they have to say, and have no answer yet.
async fn begin(server: &Server, what: &str) -> Result<Vec<Client>> {
    let logins = (0..CLIENTS).map(|number| async move {
        let mut client = login(server, number, what).connect(server.target()).await?;
        client.come_online().await?;
        anyhow::Ok(client)
    });
    let mut clients = try_join_all(logins).await?;
    for (number, client) in clients.iter_mut().enumerate() {
        for index in 0..MESSAGES {
            client.send_stanza(message(number, what, index)).await?;
        }
    }
    Ok(clients)
}

/// Their connections end, and the sessions are forgotten.
fn leave(clients: Vec<Client>) {
    clients.into_iter().for_each(|client| drop(client.cut()));
}

/// New sessions send all of it again, and every message is taken or refused in time.
async fn ensure_answered(server: &Server, what: &str) -> Result<()> {
    let begin = Instant::now();
    let all = (0..CLIENTS).map(|number| {
        let again = again(login(server, number, "again"), server.target(), number, what);
        async move {
            let limit = begin + ANSWERED - Instant::now();
            timeout(limit, again)
                .await
                .with_context(|| format!("{} has no answer after {limit:?}", name(number)))?
        }
    });
    let refused: usize = try_join_all(all).await?.into_iter().sum();
    let (sent, took) = (CLIENTS * MESSAGES, begin.elapsed());
    println!("  {what}: {sent} messages sent again were answered after {took:?}, {refused} of them refused");
    // What was refused may be sent once more: nothing is in the way of it now.
    let once_more =
        (0..CLIENTS).map(|number| again(login(server, number, "more"), server.target(), number, what));
    let refused: usize = try_join_all(once_more).await?.into_iter().sum();
    ensure!(refused == 0, "{refused} messages are refused for ever");
    Ok(())
}

/// Sends all in a new session; how many were refused.
async fn again(login: Login, target: &Target, number: usize, what: &str) -> Result<usize> {
    let mut client = loop {
        // Where the store is not there yet, nobody gets in.
        match login.connect(target).await {
            Ok(client) => break client,
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    };
    for index in 0..MESSAGES {
        client.send_stanza(message(number, what, index)).await?;
    }
    let mut refused = 0;
    let mut ask = Instant::now();
    while client.management().is_none_or(|management| !management.unacknowledged().is_empty()) {
        if ask <= Instant::now() {
            client.request_acknowledgement().await?;
            ask = Instant::now() + Duration::from_millis(100);
        }
        match client.receive(Duration::from_millis(20)).await? {
            Some(Received::Element(node)) if node.name == "message" => {
                let condition = node.condition().unwrap_or_default();
                ensure!(condition == "wait resource-constraint", "{node}");
                refused += 1;
            }
            None | Some(Received::Element(_) | Received::Acknowledged(_)) => {}
            Some(end) => anyhow::bail!("{}: {end:?}", client.jid()),
        }
    }
    client.close().await?;
    Ok(refused)
}
