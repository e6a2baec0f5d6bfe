//! One trace per message, as the OpenTelemetry Collector that others run understands it: real processes on every store and as a
//! cluster export to it by OTLP over gRPC, and it posts what it took as JSON. `make collector` builds it.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use starling_tests::collector::{self, Collector, Span, Tree, trees};
use starling_tests::report::{Outcome, Report, case, wanted};
use starling_tests::server::{Form, PASSWORD, Store};
use starling_tests::{Client, PATIENCE, Server};

const LIMIT: Duration = Duration::from_secs(120);
const BODY: &str = "marker-body";
/// Everything of messages is traced, and nothing else.
const SETTINGS: [(&str, &str); 5] = [
    ("telemetry.sample.message", "1.0"),
    ("telemetry.sample.iq", "0.0"),
    ("telemetry.sample.presence", "0.0"),
    ("telemetry.sample.login", "0.0"),
    ("telemetry.traces_per_second", "1000"),
];
/// Recipients of a round. In a cluster the home of one of them has to be at another router than that of the sender.
const AT_ONCE: usize = 8;
const ROUNDS: usize = 4;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut report = Report::default();
    for (place, form) in Form::all() {
        let name = format!("{place}::a_message_is_one_tree_at_a_collector");
        if !wanted(&name) {
            continue;
        }
        let (outcome, took) = match (form, collector::missing()) {
            (_, Some(why)) | (Err(why), None) => (Outcome::Skipped(why), Duration::ZERO),
            (Ok(form), None) => case(LIMIT, Box::pin(a_message_is_one_tree(&form))).await,
        };
        report.note(&name, outcome, took);
    }
    Ok(report.finish())
}

async fn a_message_is_one_tree(form: &Form) -> Result<()> {
    let collector = Collector::start().await?;
    let endpoint = collector.endpoint();
    let settings = [SETTINGS.as_slice(), &[("telemetry.otlp_endpoint", endpoint.as_str())]].concat();
    let mut server = Server::start_as(form, &settings).await?;
    let mut sender = client(&server, "marker-sender", 0).await?;
    let mut recipients = Vec::new();
    loop {
        for _ in 0..AT_ONCE {
            let name = format!("marker-{}", recipients.len());
            let mut recipient = client(&server, &name, server.targets().len() - 1).await?;
            say(&mut sender, &mut recipient).await?;
            recipients.push(recipient);
        }
        let sent = recipients.len();
        // Each process sends what it has every few seconds, so the head of a trace may come after its end.
        let complete = |spans: &[Span]| {
            let ends = spans.iter().filter(|span| span.name == "edge deliver").count();
            ends >= sent && trees(spans).iter().all(|tree| tree.span.parent.is_empty())
        };
        collector.until(PATIENCE, complete).await?;
        if trees(&collector.spans()?).iter().any(|tree| is_whole(tree, form)) {
            break;
        }
        ensure!(
            sent < AT_ONCE * ROUNDS,
            "no message is the tree it should be: {:#?}",
            trees(&collector.spans()?)
        );
    }
    let mut messages = recipients.len();
    // What a process has not sent yet when it is told to end, it sends then. That of a cluster takes its time to end.
    if let Form::Alone(_) = form {
        let last = recipients.last_mut().context("no recipient")?;
        say(&mut sender, last).await?;
        messages += 1;
        ensure!(server.stop().await?.success(), "{}", server.log());
    }

    let spans = collector.spans()?;
    let trees = trees(&spans);
    let all = || format!("{:#?}", trees.iter().map(tell).collect::<Vec<_>>());
    ensure!(trees.iter().all(|tree| tree.span.parent.is_empty()), "a parent is not there: {}", all());
    ensure!(trees.iter().all(|tree| tree.span.name == "edge receive"), "{}", all());
    ensure!(trees.len() == messages, "one trace for each of {messages} messages: {}", all());
    ensure!(trees.iter().map(|tree| tree.all().len()).sum::<usize>() == spans.len(), "a span is in no tree");
    let ends = trees.iter().filter(|tree| tree.all().iter().any(|span| span.name == "edge deliver"));
    ensure!(ends.count() == trees.len(), "a trace has lost its end: {}", all());
    is_discreet(&collector.documents())
}

/// A new account, with a client at this edge.
async fn client(server: &Server, name: &str, edge: usize) -> Result<Client> {
    server.add_user(name).await?;
    let login = server.login(name).resource("marker-resource").managed();
    let mut client = login.connect(&server.targets()[edge]).await?;
    client.come_online().await?;
    Ok(client)
}

async fn say(from: &mut Client, to: &mut Client) -> Result<()> {
    let message = format!("<message to='{}' type='chat'><body>{BODY}</body></message>", to.bare());
    from.send(&message).await?;
    to.next_that(|node| node.body().as_deref() == Some(BODY)).await?;
    from.settle().await
}

/// Whether this is the trace of a message that has gone all the way, in a cluster over two edges and two routers.
fn is_whole(tree: &Tree, form: &Form) -> bool {
    let (edge, home) = match form {
        Form::Alone(_) => ("starling", "starling"),
        Form::Cluster(_) => ("starling-edge", "starling-router"),
    };
    let wanted = format!(
        "{edge} edge receive ({home} home sent ({home} store write ({home} home received ({home} store write ({edge} edge \
         deliver)))))"
    );
    let node =
        |name: &str| tree.all().into_iter().find(|span| span.name == name).map(|span| span.node.as_str());
    let apart = |one: &str, other: &str, role: &str| match (node(one), node(other)) {
        (Some(one), Some(other)) => one != other && one.starts_with(role) && other.starts_with(role),
        _ => false,
    };
    let far = match form {
        Form::Alone(_) => true,
        Form::Cluster(_) => {
            apart("edge receive", "edge deliver", "edge-") && apart("home sent", "home received", "router-")
        }
    };
    tell(tree) == wanted && far && stores_as(tree, form)
}

/// Whether what a CQL server was asked for is below each write, and nothing is where there is none.
fn stores_as(tree: &Tree, form: &Form) -> bool {
    let statements = tree.below.iter().filter(|below| is_statement(below)).count();
    let on_cql = !matches!(form, Form::Alone(Store::Embedded));
    let right = if tree.span.name == "store write" { (statements > 0) == on_cql } else { statements == 0 };
    right && tree.below.iter().filter(|below| !is_statement(below)).all(|below| stores_as(below, form))
}

fn is_statement(tree: &Tree) -> bool {
    tree.span.attributes.contains_key("db.system.name")
}

/// Services and steps, what is below a step in parentheses; without statements.
fn tell(tree: &Tree) -> String {
    let below: Vec<String> = tree.below.iter().filter(|below| !is_statement(below)).map(tell).collect();
    let below = if below.is_empty() { String::new() } else { format!(" ({})", below.join(", ")) };
    format!("{} {}{below}", tree.span.service, tree.span.name)
}

/// No address, body or password has left the processes.
fn is_discreet(documents: &[String]) -> Result<()> {
    ensure!(documents.iter().any(|document| document.contains("edge receive")), "nothing to look at");
    for document in documents {
        for word in ["marker", "localhost", BODY, PASSWORD] {
            ensure!(!document.contains(word), "{word} is in {document}");
        }
    }
    Ok(())
}
