//! `starling migrate`: the tables of the store on CQL servers.

use std::{process::ExitCode, time::Duration};

use serde::Serialize;
use starling_node::{Config, Sources, config::StoreKind};
use starling_store_scylla::{
    migrations::{self, Applied, Fitness, MigrateError, Migration, Plan, Progress, Status},
    options::{Options, Replication},
};
use starling_xmpp::Timestamp;

use crate::{
    cli::{MigrateCommand, Output},
    failure::Failure,
    print, sources,
};

/// How long `apply` waits for somebody else who applies.
const PATIENCE: Duration = Duration::from_secs(120);

/// Does one command.
pub(crate) fn run(sources: &Sources, command: &MigrateCommand) -> Result<ExitCode, Failure> {
    let config = sources::load(sources)?;
    if config.store.kind == StoreKind::Embedded {
        nothing_to_migrate(&config, command);
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("no threads to run on").because(error))?;
    let options = starling_setup::cql_options(&config)?;
    let done = match command {
        MigrateCommand::Plan { output } => runtime.block_on(plan(&options, *output)),
        MigrateCommand::Apply { output } => runtime.block_on(apply(&options, *output)),
        MigrateCommand::Status { output } => runtime.block_on(status(&options, *output)),
        MigrateCommand::Move { yes: false } => return Err(not_agreed(&config)),
        MigrateCommand::Move { yes: true } => runtime.block_on(move_here(&options)),
    };
    done.map_err(|error| failure(&config, sources, error))
}

fn nothing_to_migrate(config: &Config, command: &MigrateCommand) {
    let remark = format!(
        "nothing to migrate: store.kind is \"embedded\" (from: {}), whose files the server keeps in order by itself",
        config.origin("store.kind")
    );
    match command {
        MigrateCommand::Plan { output: Output::Json } => {
            json(&PlanBody { statements: &[], remarks: &[remark], refused: None });
        }
        MigrateCommand::Apply { output: Output::Json } => json::<[AppliedBody; 0]>(&[]),
        MigrateCommand::Status { output: Output::Json } => json(&StatusBody {
            keyspace: None,
            datacenter: None,
            replication: None,
            needs: 0,
            fits: true,
            text: remark,
            advice: None,
            applied: Vec::new(),
            pending: Vec::new(),
            held_by: None,
        }),
        _ => print::line(&remark),
    }
}

/// A move is not taken back by moving again: what the new place lacks is closed over there.
fn not_agreed(config: &Config) -> Failure {
    let here = config.store.local_datacenter.as_deref().unwrap_or("the only datacentre there is");
    Failure::new(format!("the store would belong to {here} from now on"))
        .because("what has not arrived there is lost, and no server may run meanwhile")
        .advise("stop the server, `nodetool repair` the keyspace there, then say --yes")
        .usage()
}

async fn move_here(options: &Options) -> Result<ExitCode, MigrateError> {
    let by = starling_setup::process_name();
    let mut tell = |progress: Progress| {
        if let Progress::Waiting { holder } = progress {
            wait_for(&holder);
        }
    };
    let there = migrations::move_here(options, &by, PATIENCE, &mut tell).await?;
    print::line(&format!("the store of {} belonged to {there} and belongs here now", options.keyspace));
    Ok(ExitCode::SUCCESS)
}

fn wait_for(holder: &str) {
    eprintln!("waiting: {holder} is applying migrations; at most {} s", PATIENCE.as_secs());
}

async fn plan(options: &Options, output: Output) -> Result<ExitCode, MigrateError> {
    let Plan { statements, remarks, refusal, .. } = migrations::plan(options).await?;
    let refused = refusal.as_ref().map(|refusal| refusal.why.as_str());
    match output {
        Output::Json => json(&PlanBody { statements: &statements, remarks: &remarks, refused }),
        Output::Table => {
            for remark in &remarks {
                eprintln!("note: {remark}");
            }
            if statements.is_empty() && refusal.is_none() {
                print::line(&format!(
                    "nothing to do: {} is at version {}",
                    options.keyspace,
                    migrations::newest()
                ));
            }
            for statement in &statements {
                print::line(&format!("{statement};\n"));
            }
        }
    }
    refusal.map_or(Ok(ExitCode::SUCCESS), |refusal| Err(MigrateError::Refused(refusal)))
}

async fn apply(options: &Options, output: Output) -> Result<ExitCode, MigrateError> {
    let bar = print::Progress::new();
    let mut tell = |progress: Progress| match progress {
        Progress::Waiting { holder } => wait_for(&holder),
        Progress::Created(copies) => {
            eprintln!("made the keyspace {} with {}", options.keyspace, copies_text(&copies))
        }
        Progress::Differs { wanted, there } => eprintln!(
            "note: the keyspace has {} and store.replication says {}: left as it is; change it with ALTER KEYSPACE, then repair",
            copies_text(&there),
            copies_text(&wanted)
        ),
        Progress::Statement { version, number, of } => {
            let (done, of) = (u64::try_from(number - 1).unwrap_or(0), u64::try_from(of).ok());
            bar.show(done, of, &format!("version {version}, statement {number}"));
        }
        Progress::Applied { .. } => {}
    };
    let by = starling_setup::process_name();
    let applied = migrations::apply(options, &by, PATIENCE, &mut tell).await;
    drop(bar);
    let applied = applied?;
    match output {
        Output::Json => json(&applied.iter().map(AppliedBody::now).collect::<Vec<_>>()),
        Output::Table if applied.is_empty() => {
            print::line(&format!(
                "nothing to do: {} is at version {}",
                options.keyspace,
                migrations::newest()
            ));
        }
        Output::Table => {
            for migration in &applied {
                print::line(&format!("applied version {}: {}", migration.version, migration.name));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(options: &Options, output: Output) -> Result<ExitCode, MigrateError> {
    let status = migrations::status(options).await?;
    let fits = status.fitness == Fitness::Fits;
    match output {
        Output::Json => json(&StatusBody::of(options, &status)),
        Output::Table => print::line(table(options, &status).trim_end()),
    }
    Ok(if fits { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(options: &Options, status: &Status) -> String {
    let copies = status.replication.as_ref().map_or_else(|| "none".to_owned(), copies_text);
    let mut text = format!("keyspace  {}, {copies}\n", options.keyspace);
    if let Some(datacentre) = &status.datacenter {
        text.push_str(&format!("belongs   to datacentre {datacentre}\n"));
    }
    text.push_str(&format!("server    {}\n", status.fitness.text(&options.keyspace, migrations::newest())));
    if let Some(advice) = status.fitness.advice() {
        text.push_str(&format!("do        {advice}\n"));
    }
    if let Some(holder) = &status.held_by {
        text.push_str(&format!("applying  {holder}\n"));
    }
    if status.replication.is_some() && status.fitness.advice().is_none() && !status.unwritten.is_empty() {
        let missing = status.unwritten.join(", ");
        text.push_str(&format!("missing   {missing}: `starling migrate apply` makes them\n"));
    }
    let done = status.applied.iter().map(|applied| {
        let (number, kind) = (applied.version.to_string(), applied.kind.as_str().to_owned());
        [number, applied.name.clone(), kind, moment(applied.at_millis), applied.by.clone()]
    });
    let missing = status.pending.iter().map(|migration| {
        let kind = migration.kind.as_str().to_owned();
        [migration.version.to_string(), migration.name.to_owned(), kind, "not yet".to_owned(), String::new()]
    });
    let rows: Vec<[String; 5]> = done.chain(missing).collect();
    text.push('\n');
    text.push_str(&print::table(["VERSION", "NAME", "KIND", "APPLIED", "BY"], &rows));
    text
}

fn copies_text(copies: &Replication) -> String {
    let pairs: Vec<String> =
        copies.0.iter().map(|(datacentre, copies)| format!("{copies} in {datacentre}")).collect();
    if pairs.is_empty() { "no copies".to_owned() } else { format!("copies: {}", pairs.join(", ")) }
}

fn moment(millis: i64) -> String {
    Timestamp(u64::try_from(millis).unwrap_or(0).saturating_mul(1_000)).to_string()
}

fn failure(config: &Config, sources: &Sources, error: MigrateError) -> Failure {
    let place = format!("keyspace {} at {}", config.store.keyspace, config.store.contact_points.join(", "));
    let (program, options) = (sources::program(), sources::options(sources));
    let advice = match &error {
        MigrateError::Connect(error) => return starling_setup::cql_obstacle(config, error).into(),
        MigrateError::Unanswered { .. } => {
            "see that a quorum of the nodes is up, then try again; `starling check` looks closer".to_owned()
        }
        MigrateError::Held { .. } => "let it end, then try again".to_owned(),
        MigrateError::Lost => format!("look at `{program} migrate{options} status`, then try again"),
        MigrateError::Refused(refusal) => refusal.advice.clone(),
        MigrateError::Statement { .. } => {
            "see that the role may CREATE, ALTER, SELECT and MODIFY in the keyspace, and that all servers are up; then try again: \
             what is done is not done twice"
                .to_owned()
        }
    };
    Failure::new("the tables of the store are not brought up to date").at(place).because(error).advise(advice)
}

fn json<T: Serialize + ?Sized>(body: &T) {
    print::line(&serde_json::to_string_pretty(body).unwrap_or_default());
}

#[derive(Serialize)]
struct PlanBody<'a> {
    statements: &'a [String],
    remarks: &'a [String],
    /// Why `apply` would do nothing; the statements are then what would mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'a str>,
}

#[derive(Serialize)]
struct StatusBody {
    keyspace: Option<String>,
    /// To which the store belongs.
    datacenter: Option<String>,
    /// Copies by datacentre; none without a keyspace.
    replication: Option<std::collections::BTreeMap<String, u32>>,
    /// The newest version that this program knows.
    needs: u32,
    /// Whether a server of this version starts.
    fits: bool,
    text: String,
    /// What to do where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'static str>,
    applied: Vec<AppliedBody>,
    pending: Vec<AppliedBody>,
    held_by: Option<String>,
}

impl StatusBody {
    fn of(options: &Options, status: &Status) -> Self {
        Self {
            keyspace: Some(options.keyspace.clone()),
            datacenter: status.datacenter.clone(),
            replication: status.replication.as_ref().map(|copies| copies.0.clone()),
            needs: migrations::newest(),
            fits: status.fitness == Fitness::Fits,
            text: status.fitness.text(&options.keyspace, migrations::newest()),
            advice: status.fitness.advice(),
            applied: status.applied.iter().map(AppliedBody::of).collect(),
            pending: status.pending.iter().map(AppliedBody::now).collect(),
            held_by: status.held_by.clone(),
        }
    }
}

#[derive(Serialize)]
struct AppliedBody {
    version: u32,
    name: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

impl AppliedBody {
    fn of(applied: &Applied) -> Self {
        Self {
            version: applied.version,
            name: applied.name.clone(),
            kind: applied.kind.as_str(),
            applied: Some(moment(applied.at_millis)),
            by: Some(applied.by.clone()),
        }
    }

    fn now(migration: &Migration) -> Self {
        let (version, name, kind) = (migration.version, migration.name.to_owned(), migration.kind.as_str());
        Self { version, name, kind, applied: None, by: None }
    }
}
