//! Everything that is stored, read as a client reads it: archives page by page in both directions, rosters, block lists;
//! and logs as homes read them, which takes a fraction of the time.

use crate::client::account;
use crate::line::{FromClient, Line, ToClient};
use crate::plan::Cast;
use crate::run;
use crate::speech::{DELAY, FORWARD};
use crate::stage::Stage;
use futures::StreamExt;
use futures::future::{Either, select};
use starling_store::{LogFilter, LogRow, Page, SharedStore, StoreError};
use starling_tests::history::{Archive, Row};
use starling_xmpp::{BareJid, Element, IqType, Kind, Stanza, ns};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// All that was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reading(pub(crate) BTreeMap<String, Kept>);

/// What is kept for an account.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    pub(crate) rows: Vec<Row>,
    pub(crate) backwards: Vec<String>,
    /// The ids of those with each account.
    pub(crate) with: Vec<(String, Vec<String>)>,
    /// Names of contacts.
    pub(crate) roster: BTreeMap<String, String>,
    pub(crate) version: String,
    pub(crate) blocked: Vec<String>,
    /// Its row's generation, and which keys it has.
    pub(crate) keys: (u64, Option<u8>),
}

impl Reading {
    pub(crate) fn archives(&self) -> Vec<Archive> {
        let archive = |(owner, kept): (&String, &Kept)| Archive {
            owner: owner.clone(),
            rows: kept.rows.clone(),
            backwards: kept.backwards.clone(),
            with: kept.with.clone(),
        };
        self.0.iter().map(archive).collect()
    }
}

/// How carefully to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Care {
    /// In both directions, in pages small enough for logs of so many rows, and what is with each account once more.
    Full(usize),
    /// In one go.
    Quick,
}

/// Reads all accounts. What cannot be read is noted as wrong.
pub(crate) async fn read_all(stage: &Arc<Stage>, casts: &[Cast], care: Care) -> Reading {
    let mut reading = Reading::default();
    for cast in casts {
        let owner = account(cast.name);
        match Reader::open(stage, &owner).await {
            Ok(mut reader) => match reader.all(care).await {
                Ok(mut kept) => {
                    if matches!(care, Care::Full(_))
                        && let Some(server) = stage.serving()
                        && let Some(row) = server.account(stage, &owner).await
                    {
                        let known = (0..=u8::MAX).find(|number| run::keys(*number) == row.credentials);
                        kept.keys = (row.generation, known);
                    }
                    reading.0.insert(owner.as_str().to_owned(), kept);
                    reader.line.up.send(FromClient::End);
                }
                Err(error) => stage.wrong("audit", None, format!("{owner}: {error}")),
            },
            // Its removal may have come to its end only now.
            Err(_) if cast.name == run::MAYFLY => {}
            Err(error) => stage.wrong("audit", None, format!("{owner}: {error}")),
        }
    }
    reading
}

/// Logs as they are stored.
pub(crate) type Rows = BTreeMap<String, Vec<LogRow>>;

/// Reads all logs; and what is in them with each account, if the index is to be looked at as well. What cannot be read, or differs, is noted as wrong.
pub(crate) async fn read_rows(stage: &Arc<Stage>, casts: &[Cast], index: bool) -> Rows {
    let mut all = Rows::new();
    let Some(store) = stage.host().and_then(|host| host.store()) else { return all };
    for cast in casts {
        let owner = account(cast.name);
        match rows_of(&store, &owner, index).await {
            Ok((rows, lost)) => {
                if let Some(peer) = lost {
                    let text = format!("{owner}: the index does not lead to all rows with {peer}");
                    stage.wrong("paging", None, text);
                }
                all.insert(owner.as_str().to_owned(), rows);
            }
            Err(error) => stage.wrong("audit", None, format!("{owner}: {error}")),
        }
    }
    all
}

/// The rows of a log, and whose are not found by the index.
async fn rows_of(
    store: &SharedStore,
    owner: &BareJid,
    index: bool,
) -> Result<(Vec<LogRow>, Option<BareJid>), StoreError> {
    let rows = pages(store, owner, None).await?;
    let peers: BTreeSet<BareJid> = rows.iter().filter(|_| index).map(|row| row.with.clone()).collect();
    for peer in peers {
        let found = pages(store, owner, Some(&peer)).await?;
        if !found.iter().eq(rows.iter().filter(|row| row.with == peer)) {
            return Ok((rows, Some(peer)));
        }
    }
    Ok((rows, None))
}

async fn pages(
    store: &SharedStore,
    owner: &BareJid,
    with: Option<&BareJid>,
) -> Result<Vec<LogRow>, StoreError> {
    let mut rows: Vec<LogRow> = Vec::new();
    let mut above = None;
    loop {
        let filter = LogFilter { with: with.cloned(), above, ..LogFilter::default() };
        let page = store.log_page(owner, filter, Page::First(250)).await?;
        above = page.reached.or_else(|| page.rows.last().map(|row| row.position));
        rows.extend(page.rows);
        if page.complete || above.is_none() {
            return Ok(rows);
        }
    }
}

/// A page of an archive.
struct PageRead {
    rows: Vec<Row>,
    complete: bool,
    first: Option<String>,
    last: Option<String>,
}

/// A session that only asks.
pub(crate) struct Reader<'a> {
    stage: &'a Arc<Stage>,
    line: Line,
    owner: String,
    number: u32,
}

impl<'a> Reader<'a> {
    /// Logs in.
    pub(crate) async fn open(stage: &'a Arc<Stage>, owner: &BareJid) -> Result<Self, String> {
        let host = stage.host().ok_or("nobody serves")?;
        let line = host.line(stage, owner);
        let mut reader = Self { stage, line, owner: owner.as_str().to_owned(), number: 0 };
        reader.line.up.send(FromClient::Bind("audit"));
        match reader.hear().await? {
            ToClient::Bound(..) => Ok(reader),
            other => Err(format!("not bound: {other:?}")),
        }
    }

    async fn all(&mut self, care: Care) -> Result<Kept, String> {
        let mut dice = self.stage.dice();
        let mut size = || match care {
            Care::Full(most) => dice.place(12) + 1 + dice.place(most / 4),
            Care::Quick => 250,
        };
        let rows = self.forward(None, size()).await?;
        let mut with = Vec::new();
        let mut backwards = rows.iter().map(|row| row.id.clone()).collect();
        if matches!(care, Care::Full(_)) {
            backwards = self.backward(size()).await?;
            let archive = Archive { owner: self.owner.clone(), rows: rows.clone(), ..Archive::default() };
            for peer in archive.peers() {
                let rows = self.forward(Some(peer), size()).await?;
                with.push((peer.to_owned(), rows.into_iter().map(|row| row.id).collect()));
            }
        }
        let (roster, version) = self.roster().await?;
        let blocked = self.blocked().await?;
        Ok(Kept { rows, backwards, with, roster, version, blocked, keys: (0, None) })
    }

    async fn hear(&mut self) -> Result<ToClient, String> {
        let timer = self.stage.crowd.sleep(Duration::from_secs(12));
        match select(self.line.heard.next(), timer).await {
            Either::Left((Some(heard), _)) => Ok(heard),
            Either::Left((None, _)) => Err("the connection is gone".to_owned()),
            Either::Right(_) => Err("no answer".to_owned()),
        }
    }

    /// Asks; gives the messages that came before the answer, and the answer.
    async fn ask(&mut self, kind: IqType, payload: Element) -> Result<(Vec<Stanza>, Stanza), String> {
        self.number += 1;
        let id = format!("audit{}", self.number);
        let request = Stanza::iq(kind).id(&id).child(payload);
        self.line.up.send(FromClient::Stanza(request));
        let mut messages = Vec::new();
        loop {
            match self.hear().await? {
                ToClient::Stanza(stanza) if stanza.is_message() => messages.push(stanza),
                ToClient::Stanza(stanza) if stanza.is_iq() && stanza.id.as_deref() == Some(&id) => {
                    return match stanza.kind {
                        Kind::Iq(IqType::Result) => Ok((messages, stanza)),
                        _ => Err(crate::speech::condition(&stanza)),
                    };
                }
                ToClient::Stanza(_) | ToClient::Asked => {}
                other => return Err(format!("instead of an answer: {other:?}")),
            }
        }
    }

    async fn page(&mut self, with: Option<&str>, set: Element) -> Result<PageRead, String> {
        let query = Element::new(ns::MAM, "query").children_of(with.map(form)).child(set);
        let (messages, answer) = self.ask(IqType::Set, query).await?;
        let rows = messages.iter().filter_map(row).collect();
        let fin = answer.payload.get(ns::MAM, "fin").ok_or("no fin")?.element();
        let set = fin.find(ns::RSM, "set");
        let text = |name| set.and_then(|set| set.find(ns::RSM, name)).map(Element::content);
        let complete = fin.attribute("complete") == Some("true");
        Ok(PageRead { rows, complete, first: text("first"), last: text("last") })
    }

    /// The whole archive, or what is in it with one account, from the oldest on.
    pub(crate) async fn forward(&mut self, with: Option<&str>, size: usize) -> Result<Vec<Row>, String> {
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..2_000 {
            let set = max(size).children_of(after.iter().map(|id| Element::new(ns::RSM, "after").text(id)));
            let page = self.page(with, set).await?;
            all.extend(page.rows);
            if page.complete {
                return Ok(all);
            }
            after = Some(page.last.ok_or("a page without an end, and not the last one")?);
        }
        Err("pages without end".to_owned())
    }

    /// The ids of the whole archive, read from the newest back.
    async fn backward(&mut self, size: usize) -> Result<Vec<String>, String> {
        let mut all: Vec<String> = Vec::new();
        let mut before = String::new();
        for _ in 0..2_000 {
            let page =
                self.page(None, max(size).child(Element::new(ns::RSM, "before").text(&before))).await?;
            let mut ids: Vec<String> = page.rows.into_iter().map(|row| row.id).collect();
            ids.append(&mut all);
            all = ids;
            if page.complete {
                return Ok(all);
            }
            before = page.first.ok_or("a page without a beginning, and not the last one")?;
        }
        Err("pages without end".to_owned())
    }

    async fn roster(&mut self) -> Result<(BTreeMap<String, String>, String), String> {
        let query = Element::new(ns::ROSTER, "query").attr("ver", "");
        let (_, answer) = self.ask(IqType::Get, query).await?;
        let Some(query) = answer.payload.get(ns::ROSTER, "query").map(|query| query.element()) else {
            return Ok((BTreeMap::new(), String::new()));
        };
        let text = |item: &Element, name| item.attribute(name).unwrap_or_default().to_owned();
        let items = query.children().map(|item| (text(item, "jid"), text(item, "name"))).collect();
        Ok((items, text(&query, "ver")))
    }

    async fn blocked(&mut self) -> Result<Vec<String>, String> {
        let (_, answer) = self.ask(IqType::Get, Element::new(ns::BLOCKING, "blocklist")).await?;
        let list = answer.payload.get(ns::BLOCKING, "blocklist").ok_or("no block list")?.element();
        let mut jids: Vec<String> =
            list.children().filter_map(|item| item.attribute("jid")).map(str::to_owned).collect();
        jids.sort();
        Ok(jids)
    }
}

/// The form that asks for what is with one account (XEP-0313 section 4.1.1).
fn form(with: &str) -> Element {
    let field = |name, value: &str| {
        let value = Element::new(ns::DATA, "value").text(value);
        Element::new(ns::DATA, "field").attr("var", name).child(value)
    };
    let kind = field("FORM_TYPE", ns::MAM).attr("type", "hidden");
    Element::new(ns::DATA, "x").attr("type", "submit").child(kind).child(field("with", with))
}

fn max(size: usize) -> Element {
    Element::new(ns::RSM, "set").child(Element::new(ns::RSM, "max").text(size.to_string()))
}

/// A result of an archive query.
fn row(stanza: &Stanza) -> Option<Row> {
    let result = stanza.payload.get(ns::MAM, "result")?.element();
    let forwarded = result.find(FORWARD, "forwarded")?;
    let message = forwarded.find(ns::CLIENT, "message")?;
    let text = |element: &Element, name| element.attribute(name).unwrap_or_default().to_owned();
    Some(Row {
        id: text(&result, "id"),
        stamp: forwarded.find(DELAY, "delay").map(|delay| stamp(&text(delay, "stamp"))).unwrap_or_default(),
        origin: message.find(ns::SID, "origin-id").map(|id| text(id, "id")),
        from: text(message, "from"),
        to: text(message, "to"),
        body: message.find(ns::CLIENT, "body").map(Element::content).unwrap_or_default(),
    })
}

/// With all six digits of the microseconds, so that the order of the texts is that of the times.
fn stamp(text: &str) -> String {
    let text = text.trim_end_matches('Z');
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{seconds}.{fraction:0<6}Z")
}
