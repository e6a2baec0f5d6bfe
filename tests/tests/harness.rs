//! The harness itself: a session against each server that is installed, so that a fault of the test client shows
//! here first. References run with `STARLING_REFERENCE=prosody,ejabberd` (see `make reference`).
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use anyhow::Result;
use starling_tests::client::Hash;
use starling_tests::server::Kind;
use starling_tests::{Login, Mechanism, Server, Transport};

#[tokio::test]
async fn starling_takes_a_session() -> Result<()> {
    session(Kind::Starling).await
}

#[tokio::test]
async fn references_take_a_session() -> Result<()> {
    let wanted = std::env::var("STARLING_REFERENCE").unwrap_or_default();
    for kind in [Kind::Prosody, Kind::Ejabberd] {
        if wanted.split(',').any(|name| name == kind.name()) {
            session(kind).await?;
        }
    }
    Ok(())
}

async fn session(kind: Kind) -> Result<()> {
    let server = Server::start_kind(kind, &[]).await?;
    server.add_user("alice").await?;
    server.add_user("bob").await?;
    let target = server.target();

    let mut alice = server.login("alice").resource("phone").managed().connect(target).await?;
    let mut bob = server
        .login("bob")
        .transport(Transport::DirectTls)
        .mechanism(Mechanism::Plain)
        .resource("desk")
        .managed()
        .connect(target)
        .await?;
    assert_eq!(alice.jid(), "alice@localhost/phone");
    alice.come_online().await?;
    bob.come_online().await?;
    alice.send("<message to='bob@localhost/desk' type='chat' id='m1'><body>one</body></message>").await?;
    let message = bob.next_that(|n| n.name == "message").await?;
    assert_eq!(message.body().as_deref(), Some("one"));
    alice.settle().await?;
    bob.acknowledge().await?;
    bob.ping().await?;

    // What was sent into a cut connection comes after resumption, once.
    let detached = bob.cut();
    alice.send("<message to='bob@localhost/desk' type='chat' id='m2'><body>two</body></message>").await?;
    alice.settle().await?;
    let mut bob = detached.resume(target, &server.login("bob")).await?.resumed()?;
    let message = bob.next_that(|n| n.name == "message").await?;
    assert_eq!(message.body().as_deref(), Some("two"));
    bob.ping().await?;
    bob.close().await?;
    alice.close().await?;

    let wrong = Login::new("alice", "wrong").mechanism(Mechanism::Scram(Hash::Sha1)).connect(target).await;
    assert!(format!("{:#}", wrong.err().unwrap()).contains("not-authorized"));
    Ok(())
}
