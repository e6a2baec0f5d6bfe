//! Pages of an archive (XEP-0313) as a client sees them, from archives of growing size. Filling them with messages would
//! take hours: the stores are filled before their servers start.

use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use starling_xmpp::Timestamp;
use tokio::time::timeout;

use super::peer::{Kind, Peer, Site};
use super::{SiteArguments, pin, start_cql};
use crate::framer;
use crate::histogram::Histogram;
use crate::sasl::Mechanism;
use crate::session::{Session, Wish};
use crate::store::pages::{self, Archive, Middles, PagesArguments, Part, heading, line};
use crate::store::subject::{Place, Subject};
use crate::target::Target;

/// Which servers, and which archives.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ArchiveArguments {
    /// Forms of Starling
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Starling, Kind::Cql])]
    servers: Vec<Kind>,
    #[command(flatten)]
    site: SiteArguments,
    #[command(flatten)]
    load: PagesArguments,
}

/// Fills, starts, reads, prints a table for each server.
pub(crate) async fn run(arguments: &ArchiveArguments) -> Result<()> {
    let ArchiveArguments { servers, site, load } = arguments;
    pin(std::process::id(), site.generator_core)?;
    let cql = match servers.contains(&Kind::Cql) {
        true => start_cql(site).await?,
        false => None,
    };
    let mut site = Site::new(ACCOUNTS, site, cql)?;
    site.archives = Some(load.clone());
    for &kind in servers {
        let fits = kind == Kind::Starling || (kind == Kind::Cql && site.cql.is_some());
        if !fits {
            eprintln!("{} is left out", kind.name());
            continue;
        }
        eprintln!("starting {}", kind.name());
        let peer = Peer::start(kind, &site).await?;
        let target = peer.target(Mechanism::ScramSha1)?;
        print!("{}", measure(&target, load, kind).await.with_context(|| kind.name())?);
        peer.stop().await;
    }
    Ok(())
}

/// Fills the store of a server that has not been started yet.
pub(super) async fn fill(place: Place<'_>, load: &PagesArguments) -> Result<()> {
    let subject = Subject::open(place, load.earliest()).await?;
    pages::fill(&subject, load).await?;
    subject.close().await
}

async fn measure(target: &Rc<Target>, load: &PagesArguments, kind: Kind) -> Result<String> {
    let archives = load.archives()?;
    let mut table = heading(&archives, load, kind.name())?;
    let mut sessions = Vec::new();
    for archive in &archives {
        let user = archive.owner.local().context("an account has a name")?;
        sessions.push(Session::open(target, user, "reader", Wish::default()).await?);
    }
    for page in pages::Kind::all() {
        let mut latencies = Vec::new();
        for (archive, session) in archives.iter().zip(&mut sessions) {
            latencies.push(read(session, archive, page, load).await?);
        }
        let line = line(&page.name(), &latencies);
        eprint!("{}: {line}", kind.name());
        write!(table, "{line}")?;
    }
    for session in sessions {
        session.close().await;
    }
    Ok(table)
}

async fn read(
    session: &mut Session,
    archive: &Archive,
    kind: pages::Kind,
    load: &PagesArguments,
) -> Result<Histogram> {
    let mut latency = Histogram::new();
    let mut middles = Middles::new();
    let field = |name: &str, value: &str| format!("<field var='{name}'><value>{value}</value></field>");
    for _ in 0..load.reads {
        let mut fields = kind.peer().map_or_else(String::new, |peer| field("with", peer));
        let before = match kind.part {
            Part::Newest => "<before/>",
            Part::Oldest => "",
            Part::Middle => {
                fields += &field("start", &Timestamp(middles.next(archive).0).to_string());
                ""
            }
        };
        let query = format!(
            "<iq type='set' id='page'><query xmlns='urn:xmpp:mam:2'><x xmlns='jabber:x:data' type='submit'>\
             <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:mam:2</value></field>{fields}</x>\
             <set xmlns='http://jabber.org/protocol/rsm'><max>{}</max>{before}</set></query></iq>",
            load.page
        );
        let begin = Instant::now();
        session.write(query.as_bytes()).await?;
        let found = timeout(PATIENCE, page(session)).await.context("the archive does not answer")??;
        latency.record(begin.elapsed());
        ensure!(found == load.page, "a page has {found} messages");
    }
    Ok(latency)
}

/// Reads until the answer, and counts the messages before it.
async fn page(session: &mut Session) -> Result<usize> {
    let mut answers = Vec::new();
    let mut found = 0;
    loop {
        while let Some(stanza) = session.next(&mut answers)? {
            match framer::name(stanza) {
                b"message" => found += 1,
                b"iq" if framer::attribute(stanza, "id") == Some(b"page") => {
                    let kind = framer::attribute(stanza, "type");
                    ensure!(kind == Some(b"result"), "refused: {}", String::from_utf8_lossy(stanza));
                    return Ok(found);
                }
                _ => {}
            }
        }
        session.read().await?;
    }
}

const ACCOUNTS: usize = 1;
const PATIENCE: Duration = Duration::from_secs(60);
