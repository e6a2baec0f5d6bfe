//! Reads whole archives (XEP-0313), page by page, in both directions, and once more by the other account.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::client::Received;
use crate::history::{Archive, Row};
use crate::{Client, Login, Node, Target};

const MAM: &str = "urn:xmpp:mam:2";
const RSM: &str = "http://jabber.org/protocol/rsm";
const FORWARD: &str = "urn:xmpp:forward:0";
const DELAY: &str = "urn:xmpp:delay";
const SID: &str = "urn:xmpp:sid:0";

/// The largest page to ask for; one that does not divide into the archive evenly.
const PAGE: usize = 47;

/// Reads the archive of the account that logs in. The client is never available, so nothing else comes to it.
pub(super) async fn read(target: &Target, login: &Login) -> Result<Archive> {
    let mut client = login.connect(target).await.context("the auditor cannot log in")?;
    let owner = client.bare().to_owned();
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let after = match rows.last() {
            Some(row) => format!("<after>{}</after>", row.id),
            None => String::new(),
        };
        let (mut page, complete) = read_page(&mut client, None, &after).await?;
        ensure!(complete || !page.is_empty(), "an empty page of {owner} that is not the last one");
        rows.append(&mut page);
        if complete {
            break;
        }
    }
    let mut backwards: Vec<String> = Vec::new();
    loop {
        let before = backwards.last().map(String::as_str).unwrap_or_default();
        let (page, complete) = read_page(&mut client, None, &format!("<before>{before}</before>")).await?;
        ensure!(complete || !page.is_empty(), "an empty page of {owner} that is not the first one");
        backwards.extend(page.into_iter().rev().map(|row| row.id));
        if complete {
            break;
        }
    }
    backwards.reverse();
    let mut archive = Archive { owner, rows, backwards, with: Vec::new() };
    let peers: Vec<String> = archive.peers().into_iter().map(str::to_owned).collect();
    for peer in peers {
        let ids = read_with(&mut client, &peer).await?;
        archive.with.push((peer, ids));
    }
    client.close().await?;
    Ok(archive)
}

/// The ids of all rows with this account.
async fn read_with(client: &mut Client, peer: &str) -> Result<Vec<String>> {
    let mut ids: Vec<String> = Vec::new();
    loop {
        let after = ids.last().map(|id| format!("<after>{id}</after>")).unwrap_or_default();
        let (page, complete) = read_page(client, Some(peer), &after).await?;
        ensure!(complete || !page.is_empty(), "an empty page with {peer} that is not the last one");
        ids.extend(page.into_iter().map(|row| row.id));
        if complete {
            return Ok(ids);
        }
    }
}

/// One page, in the archive's order, and whether it reaches the end of the archive on its side.
async fn read_page(client: &mut Client, with: Option<&str>, place: &str) -> Result<(Vec<Row>, bool)> {
    let form = with.map(|peer| {
        format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>{MAM}</value></field>\
             <field var='with'><value>{peer}</value></field></x>"
        )
    });
    let form = form.unwrap_or_default();
    let answer = client
        .iq(&format!(
            "<iq type='set' id='{{id}}'><query xmlns='{MAM}' queryid='q'>{form}\
             <set xmlns='{RSM}'><max>{PAGE}</max>{place}</set></query></iq>"
        ))
        .await?;
    let fin = answer.find(MAM, "fin").with_context(|| format!("no page but {answer}"))?;
    let complete = fin.attribute("complete") == Some("true");
    let mut rows = Vec::new();
    // What came before the answer is already here.
    while let Some(received) = client.receive(Duration::ZERO).await? {
        let Received::Element(node) = received else { continue };
        if let Some(result) = node.find(MAM, "result") {
            rows.push(read_row(result).with_context(|| format!("cannot read the row {node}"))?);
        }
    }
    ensure!(rows.len() <= PAGE, "{} rows in a page of {PAGE}", rows.len());
    let set = fin.find(RSM, "set").context("a page without a result set")?;
    for (name, row) in [("first", rows.first()), ("last", rows.last())] {
        let told = set.find(RSM, name).map(Node::text);
        let is = row.map(|r| r.id.clone());
        ensure!(told == is, "the {name} row of a page is {is:?}, but {told:?} by the answer");
    }
    Ok((rows, complete))
}

fn read_row(result: &Node) -> Result<Row> {
    let forwarded = result.find(FORWARD, "forwarded").context("nothing forwarded")?;
    let delay = forwarded.find(DELAY, "delay").context("no time")?;
    let message = forwarded.children().find(|c| c.name == "message").context("no message")?;
    let attribute = |name| message.attribute(name).unwrap_or_default().to_owned();
    Ok(Row {
        id: result.attribute("id").context("no id")?.to_owned(),
        stamp: comparable(delay.attribute("stamp").context("no stamp")?)?,
        origin: message.find(SID, "origin-id").and_then(|o| o.attribute("id")).map(str::to_owned),
        from: attribute("from"),
        to: attribute("to"),
        body: message.body().unwrap_or_default(),
    })
}

/// A time of XEP-0082 in UTC with nine digits after the point, so that text order is time order.
fn comparable(stamp: &str) -> Result<String> {
    let stamp = stamp.strip_suffix('Z').with_context(|| format!("{stamp} is not in UTC"))?;
    let (seconds, fraction) = stamp.split_once('.').unwrap_or((stamp, ""));
    Ok(format!("{seconds}.{fraction:0<9}Z"))
}
