//! One session, or one name, in two places at once: whoever comes last in the log has it, and the other one is told to go.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use starling_tests::client::{Incoming, Resumption, Stream};
use starling_tests::sandbox::Links;
use starling_tests::server::PASSWORD;
use starling_tests::{Client, Detached, Login, SILENCE, Target};
use tokio::time::{Instant, sleep};

use crate::drill::{Drill, OWNER};
use crate::site::{EDGES, Which};

/// Homes wait this long at most for an edge that is silent; then as long again, on a busy machine.
const SOON: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(100);
/// After this long homes have cleared away what a dead edge had, and some time more.
const CLEARED: Duration = Duration::from_secs(7);

/// A client leaves an edge that homes do not hear, and resumes at another one. When the first is heard again, it has a
/// session that is not there any more.
pub(super) async fn a_session_is_left_behind(drill: &mut Drill) -> Result<String> {
    let [left, next, _] = edges(drill);
    let (detached, old) = arrive(&drill.site.at(left)).await?.walk_away();
    let time = hide(drill, left).await?;
    let client = resume(&drill.site.at(next), detached).await?.context("neither refused nor resumed")?;
    let felt = heard_again(drill, client, old).await?;
    Ok(format!("of edge-{left}, cut off for {time:.1?}, to edge-{next}, {felt}"))
}

/// The same full JID is bound at two edges, of which homes hear one.
pub(super) async fn a_name_is_taken_at_two_edges(drill: &mut Drill) -> Result<String> {
    let [left, next, _] = edges(drill);
    let (_, old) = arrive(&drill.site.at(left)).await?.walk_away();
    let time = hide(drill, left).await?;
    let client = arrive(&drill.site.at(next)).await?;
    let felt = heard_again(drill, client, old).await?;
    Ok(format!("edge-{left}, cut off for {time:.1?}, and edge-{next}, {felt}"))
}

/// The edge of a session is killed, and it is resumed over two others at once: one of them gets it, and keeps it when
/// what the dead edge had is cleared away.
pub(super) async fn two_resume_what_a_dead_edge_had(drill: &mut Drill) -> Result<String> {
    let [left, one, other] = edges(drill);
    let detached = arrive(&drill.site.at(left)).await?.cut();
    drill.site.kill(Which::Edge(left))?;
    let (one, other) = (drill.site.at(one), drill.site.at(other));
    let (one, other) = tokio::join!(resume(&one, detached.clone()), resume(&other, detached));
    let mut there = Vec::new();
    // Who has come second has what the first one had, and that one is told so.
    for mut client in [one?, other?].into_iter().flatten() {
        if client.ping().await.is_ok() {
            there.push(client);
        } else {
            ends(client.walk_away().1).await?;
        }
    }
    ensure!(there.len() == 1, "{} of two who resume have the session", there.len());
    let client = there.swap_remove(0);
    keeps(client).await?;
    Ok(format!("of edge-{left}"))
}

/// All edges, in an order of the seed's choice.
fn edges(drill: &mut Drill) -> [usize; EDGES] {
    let first = drill.any_edge();
    let second = (first + 1 + drill.any(EDGES - 1)) % EDGES;
    let third = EDGES * (EDGES - 1) / 2 - first - second;
    [first, second, third]
}

/// Cuts an edge off from all routers, for less time than its clients are kept.
async fn hide(drill: &mut Drill, edge: usize) -> Result<Duration> {
    let (place, routers) = (drill.site.place(Which::Edge(edge)), drill.site.router_places());
    drill.site.link(|links| {
        links.part(&[place], &routers);
    })?;
    Ok(drill.hold(0.2..2.0).await)
}

/// Lets all hear the edge again that had the session first: it ends that connection, and the client has it at the other one.
async fn heard_again(drill: &mut Drill, mut client: Client, old: Stream) -> Result<String> {
    let felt = drill.was_felt()?;
    drill.site.link(|links| *links = Links::default())?;
    is_there(&mut client, "over the other edge").await?;
    ends(old).await?;
    is_there(&mut client, "when the first edge has been told").await?;
    client.close().await?;
    Ok(felt)
}

fn login() -> Login {
    Login::new(OWNER, PASSWORD).resource("phone").managed()
}

/// A session at this edge.
async fn arrive(edge: &Target) -> Result<Client> {
    let end = Instant::now() + SOON;
    loop {
        let come = async {
            let mut client = login().connect(edge).await?;
            client.come_online().await?;
            client.settle().await?;
            anyhow::Ok(client)
        };
        match come.await {
            Ok(client) => return Ok(client),
            Err(error) => ensure!(Instant::now() < end, "{error:#}"),
        }
        sleep(AGAIN).await;
    }
}

/// The session over this edge, or nothing if somebody else has it. That it were lost is an error.
async fn resume(edge: &Target, left: Detached) -> Result<Option<Client>> {
    let end = Instant::now() + SOON;
    loop {
        match left.clone().resume(edge, &login()).await {
            Ok(Resumption::Resumed(client)) => return Ok(Some(*client)),
            Ok(Resumption::Failed { condition, .. }) => bail!("the session is lost: {condition}"),
            Err(error) if format!("{error:#}").contains("conflict") => return Ok(None),
            Err(error) => ensure!(Instant::now() < end, "{error:#}"),
        }
        sleep(AGAIN).await;
    }
}

/// What is said to the session comes over this connection, once.
async fn is_there(client: &mut Client, when: &str) -> Result<()> {
    let to = client.jid().to_owned();
    let said = async {
        client.send_stanza(format!("<message to='{to}' type='chat'><body>{when}</body></message>")).await?;
        client.next_that(|node| node.body().as_deref() == Some(when)).await?;
        client.silence(SILENCE).await?;
        client.settle().await
    };
    said.await.with_context(|| format!("the session {when}"))
}

/// The connection ends, and nothing of what is said to the session comes over it.
async fn ends(mut old: Stream) -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        match old.receive(end.saturating_duration_since(Instant::now())).await? {
            Some(Incoming::Node(node)) if node.name == "message" => {
                bail!("two connections have the session: {node}")
            }
            Some(Incoming::Closed) => return Ok(()),
            Some(_) => {}
            None => bail!("a connection that has lost its session stays open"),
        }
    }
}

/// It is still there when all was cleared away.
async fn keeps(mut client: Client) -> Result<()> {
    client.silence(CLEARED).await.context("the session while a dead edge's are cleared away")?;
    is_there(&mut client, "after a dead edge's were cleared away").await?;
    client.close().await?;
    Ok(())
}
