//! `starling ctl raft`, `starling ctl session find`: who leads what, and who is where.

use starling_admin::{
    ClientError,
    api::code,
    raft::{Place, Reconciled, Record, RouterRow, ShardRow, Standing},
};

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use starling_xmpp::FullJid;

use super::{Server, user};
use crate::{cli::Output, cli::RaftCommand, failure::Failure, print};

pub(super) async fn run(server: &Server<'_>, command: RaftCommand) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    match command {
        RaftCommand::Status { output } => {
            let standing = client.raft().await;
            let standing = standing.map_err(|error| server.failure("the groups do not tell", error))?;
            match output {
                Output::Json => print::line(&serde_json::to_string_pretty(&standing).unwrap_or_default()),
                Output::Table => print::line(text(&standing).trim_end()),
            }
        }
        RaftCommand::Transfer { shard, router } => {
            let moved = client.raft_transfer(shard, &router).await;
            let what = format!("shard {shard} was not moved");
            moved.map_err(|error| {
                refused(
                    server,
                    &what,
                    error,
                    "`starling ctl raft status` shows who leads it and who is linked; ask again",
                )
            })?;
            print::line(&format!("shard {shard} is led by {router}"));
        }
        RaftCommand::Remove { router, yes } => {
            let question =
                format!("Take {router} out of the cluster? It can come back only with an empty data_dir.");
            if !yes && !user::confirmed(&question)? {
                return Err(Failure::new(format!("{router} was not removed")).because("it was not confirmed"));
            }
            let removed = client.raft_remove(&router).await;
            let what = format!("{router} was not removed");
            removed.map_err(|error| refused(server, &what, error, "`starling ctl raft status` shows whether every shard has a leader: without one nobody can be removed"))?;
            print::line(&format!("removed {router}"));
        }
        RaftCommand::Snapshot { shard, output } => {
            if let Some(file) = output.as_ref().filter(|file| file.exists()) {
                return Err(there(file));
            }
            let made = client.raft_snapshot(shard).await;
            made.map_err(|error| {
                refused(
                    server,
                    "no snapshot was made",
                    error,
                    "look at the router's log: it has to be ready for that",
                )
            })?;
            if let Some(file) = output {
                let record = client.raft_record().await;
                let record = record.map_err(|error| {
                    refused(server, "nothing was written", error, "ask again when the router is ready")
                })?;
                print::line(&write(&file, &record)?);
            }
            print::line("made");
        }
        RaftCommand::Reconcile { voters } => {
            let done = client.raft_reconcile(voters).await;
            let done = done.map_err(|error| {
                let advice = "`starling ctl raft status` shows who is there: start who is missing, or wait until it has been \
                              gone for half a minute, and ask again for 1, 3 or 5 voters";
                refused(server, "the voters are not as they should be", error, advice)
            })?;
            print::line(reconciled(&done).trim_end());
        }
        RaftCommand::Restore { file, routers } => {
            let record = read(&file)?;
            let founded = client.raft_restore(record, routers).await;
            founded.map_err(|error| {
                let advice = "end all routers, start as many as --routers says with an empty `data_dir` and \
                              `cluster.initial_routers = 0`, and ask again when they are linked and nothing has been heard \
                              of the old cluster for some seconds";
                refused(server, "no cluster was founded", error, advice)
            })?;
            print::line("founded");
        }
    }
    Ok(())
}

/// Writes a file that is not there yet; what to say of it.
fn write(file: &Path, record: &Record) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(record).unwrap_or_default() + "\n";
    let made = File::create_new(file).and_then(|mut made| {
        let written = made.write_all(text.as_bytes()).and_then(|()| made.sync_all());
        // What is there in part would only be in the way of the next try.
        written.inspect_err(|_| drop(std::fs::remove_file(file)))
    });
    match made {
        Ok(()) => Ok(format!(
            "wrote {}: era {}, no position is above {}",
            file.display(),
            record.era,
            record.ceiling
        )),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(there(file)),
        Err(error) => Err(Failure::new("nothing was written")
            .at(file.display())
            .because(error)
            .advise("name a file in a folder that is there and that you may write to")),
    }
}

fn there(file: &Path) -> Failure {
    Failure::new(format!("{} is there already", file.display()))
        .because("nothing is overwritten")
        .advise("name a file that is not there, such as one with today's date")
}

fn read(file: &Path) -> Result<Record, Failure> {
    let unusable = |why: &dyn std::fmt::Display| {
        Failure::new("no cluster can be founded from this file")
            .at(file.display())
            .because(why)
            .advise("name a file that `starling ctl raft snapshot --output` has written")
    };
    let text = std::fs::read_to_string(file).map_err(|error| unusable(&error))?;
    serde_json::from_str(&text).map_err(|error| unusable(&error))
}

/// Who votes, for people.
fn reconciled(done: &Reconciled) -> String {
    let mut text = String::new();
    for (what, names) in
        [("vote", &done.voters), ("take part without a vote", &done.spare), ("removed", &done.removed)]
    {
        if !names.is_empty() {
            text += &format!("{what}: {}\n", names.join(" "));
        }
    }
    text
}

/// What the router that was asked does not do, with what can be done about it.
fn refused(server: &Server<'_>, what: &str, error: ClientError, advice: &str) -> Failure {
    let place = format!("asked at the router of {}", server.config.data_dir.display());
    match error {
        ClientError::Refused(body) if body.code == code::NOT_FOUND => Failure::new(what)
            .at(place)
            .because("there is no such shard, or no such router")
            .advise("`starling ctl raft status` lists them"),
        ClientError::Refused(body) => Failure::new(what).at(place).because(body.message).advise(advice),
        error => server.failure(what, error),
    }
}

/// Where the sessions of an account are, or that of one of its devices.
pub(super) async fn find(server: &Server<'_>, jid: &str, output: Output) -> Result<(), Failure> {
    let (account, device) = whose(jid)?;
    let mut client = server.connect().await?;
    let found = client.find(&account).await;
    let mut places = found.map_err(|error| server.failure("sessions cannot be looked up", error))?.places;
    places.retain(|place| device.as_ref().is_none_or(|device| place.jid == *device));
    let jid = device.as_ref().unwrap_or(&account);
    match output {
        Output::Json => print::line(&serde_json::to_string_pretty(&places).unwrap_or_default()),
        Output::Table if places.is_empty() => print::line(&format!("{jid} has no session")),
        Output::Table => {
            let rows: Vec<_> = places.iter().map(place).collect();
            let names = ["JID", "SHARD", "HOME", "EDGE", "MOVES"];
            print::line(print::table(names, &rows).trim_end());
        }
    }
    Ok(())
}

/// The account, and its device if the address names one, both as the server writes them.
fn whose(jid: &str) -> Result<(String, Option<String>), Failure> {
    match FullJid::parse(jid) {
        Ok(full) => Ok((user::account(full.bare().as_str())?, Some(full.as_jid().as_str().to_owned()))),
        Err(_) => Ok((user::account(jid)?, None)),
    }
}

fn place(place: &Place) -> [String; 5] {
    let away = if place.linked { "" } else { " (not linked)" };
    [
        place.jid.clone(),
        place.shard.to_string(),
        place.home.clone().unwrap_or_else(|| "none".to_owned()),
        format!("{}{away}", place.edge),
        place.moves.to_string(),
    ]
}

/// Routers and shards, for people.
pub(super) fn text(standing: &Standing) -> String {
    let routers: Vec<_> = standing.routers.iter().map(router).collect();
    let shards: Vec<_> = standing.shards.iter().map(shard).collect();
    let routers = print::table(["ROUTER", "ADDRESS", "VOTES", "LINK", "LEADS", "ID"], &routers);
    let shards =
        print::table(["SHARD", "LEADER", "EPOCH", "SESSIONS", "LAG", "CONFIRMED", "LEARNERS"], &shards);
    let cluster = if standing.cluster.is_empty() { "none yet" } else { &standing.cluster };
    format!("cluster {cluster}, as {} sees it\n\n{routers}\n{shards}", standing.router)
}

fn router(router: &RouterRow) -> [String; 6] {
    let link = match (router.linked, router.round_trip) {
        (false, _) => "none".to_owned(),
        (true, Some(micros)) => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        (true, None) => "yes".to_owned(),
    };
    let votes = if router.votes { "yes" } else { "no" };
    [
        router.name.clone(),
        router.address.clone(),
        votes.to_owned(),
        link,
        router.leads.to_string(),
        router.id.clone(),
    ]
}

fn shard(shard: &ShardRow) -> [String; 7] {
    [
        shard.shard.to_string(),
        shard.leader.clone().unwrap_or_else(|| "none".to_owned()),
        shard.epoch.to_string(),
        shard.sessions.to_string(),
        shard.last.saturating_sub(shard.applied).to_string(),
        format!("{} ms ago", shard.confirmed),
        shard.learners.join(" "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cluster.json");
        let record = Record { cluster: "2a".to_owned(), shards: 16, era: 3, ceiling: 1 << 60 };
        let said = write(&file, &record).unwrap();
        assert!(
            said.contains("cluster.json: era 3") && said.ends_with("above 1152921504606846976"),
            "{said}"
        );
        assert_eq!(read(&file).unwrap(), record);
        let again = write(&file, &Record { era: 4, ..record.clone() }).unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
        assert_eq!(read(&file).unwrap(), record, "nothing is overwritten");
        assert!(read(&dir.path().join("none")).is_err());
        std::fs::write(&file, "{\"cluster\": \"2a\"}").unwrap();
        assert!(read(&file).is_err());
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let done =
            Reconciled { voters: names(&["a", "b", "c"]), spare: names(&["d"]), ..Reconciled::default() };
        assert_eq!(reconciled(&done), "vote: a b c\ntake part without a vote: d\n");
    }

    #[test]
    fn a_session_is_named_by_its_account_or_by_its_own_address() {
        let found = |jid| whose(jid).map_err(|error| error.to_string());
        assert_eq!(found("Alice@localhost").unwrap(), ("alice@localhost".to_owned(), None));
        let full = Some("alice@localhost/Phone".to_owned());
        assert_eq!(found("Alice@localhost/Phone").unwrap(), ("alice@localhost".to_owned(), full));
        assert!(found("localhost/phone").unwrap_err().contains("no part before an @"));
        assert!(found("alice@/phone").is_err());
    }

    #[test]
    fn a_shard_without_a_leader_is_seen() {
        let one = RouterRow {
            name: "one".to_owned(),
            linked: true,
            round_trip: Some(1_250),
            ..RouterRow::default()
        };
        let standing = Standing {
            cluster: "2a".to_owned(),
            router: "one".to_owned(),
            routers: vec![one, RouterRow { name: "two".to_owned(), ..RouterRow::default() }],
            shards: vec![
                ShardRow {
                    leader: Some("one".to_owned()),
                    last: 9,
                    applied: 7,
                    confirmed: 12,
                    ..ShardRow::default()
                },
                ShardRow { shard: 1, confirmed: 5_012, ..ShardRow::default() },
            ],
        };
        let text = text(&standing);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[3][..4], ["one", "no", "1.2", "ms"]);
        assert_eq!(lines[4][..3], ["two", "no", "none"]);
        assert_eq!(lines[7], ["0", "one", "0", "0", "2", "12", "ms", "ago"]);
        assert_eq!(lines[8], ["1", "none", "0", "0", "0", "5012", "ms", "ago"]);
    }
}
