//! `starling ctl trace`: accounts whose stanzas are all traced for a while.

use starling_admin::{
    ClientError,
    api::code,
    traces::{TraceRow, TraceRules},
};
use starling_node::config::duration;

use super::{Server, user};
use crate::{
    cli::{Output, TraceCommand},
    failure::Failure,
    print,
};

pub(super) async fn run(server: &Server<'_>, command: TraceCommand) -> Result<(), Failure> {
    match command {
        TraceCommand::Start { jid, ttl, max, output } => {
            let jid = user::account(&jid)?;
            let seconds = seconds(&ttl)?;
            let mut client = server.connect().await?;
            let started = client.trace_start(&jid, seconds, max).await;
            let started = started.map_err(|error| refused(server, &jid, error))?;
            show(&started, output);
            warn(&started);
        }
        TraceCommand::List { output } => {
            let mut client = server.connect().await?;
            let rules = client.traces().await;
            let rules = rules.map_err(|error| server.failure("traces cannot be listed", error))?;
            show(&rules, output);
            warn(&rules);
        }
        TraceCommand::Stop { which } => {
            let mut client = server.connect().await?;
            let stopped =
                client.trace_stop(&which).await.map_err(|error| not_stopped(server, &which, error))?;
            for rule in &stopped.rules {
                print::line(&format!("{} is traced no longer, after {} traces", rule.jid, rule.traces));
            }
            warn(&stopped);
        }
    }
    Ok(())
}

fn seconds(ttl: &str) -> Result<u64, Failure> {
    let time = duration(ttl).filter(|time| time.as_secs() > 0);
    time.map(|time| time.as_secs()).ok_or_else(|| {
        Failure::new("nothing is traced")
            .because(format!("{ttl:?} is no time"))
            .advise("give --ttl as 90s, 15m or 2h")
    })
}

fn refused(server: &Server<'_>, jid: &str, error: ClientError) -> Failure {
    let what = format!("{jid} is not traced");
    match error {
        ClientError::Refused(body) if body.code == code::UNKNOWN_DOMAIN => Failure::new(what)
            .because(body.message)
            .advise("name an account of one of its domains: `starling ctl status` lists them"),
        ClientError::Refused(body) if body.code == code::UNAVAILABLE => Failure::new(what)
            .because(body.message)
            .advise("`starling ctl trace list` shows what is traced, `starling ctl trace stop JID` ends it"),
        error => server.failure(&what, error),
    }
}

fn not_stopped(server: &Server<'_>, which: &str, error: ClientError) -> Failure {
    let what = format!("nothing was stopped for {which}");
    match error {
        ClientError::Refused(body) if body.code == code::NOT_FOUND => Failure::new(what)
            .because("no account or rule of that name is traced")
            .advise("`starling ctl trace list` shows what is"),
        error => server.failure(&what, error),
    }
}

fn show(rules: &TraceRules, output: Output) {
    match output {
        Output::Json => print::line(&serde_json::to_string_pretty(rules).unwrap_or_default()),
        Output::Table => {
            let rows: Vec<_> = rules.rules.iter().map(row).collect();
            let names = ["ID", "JID", "STATE", "LEFT", "TRACES", "MAX"];
            print::line(print::table(names, &rows).trim_end());
        }
    }
}

/// Beside the answer, for programs read that.
fn warn(rules: &TraceRules) {
    for warning in &rules.warnings {
        eprintln!("warning: {warning}");
    }
}

fn row(rule: &TraceRow) -> [String; 6] {
    let TraceRow { id, jid, state, seconds_left, max, traces } = rule;
    let left = format!("{}m{:02}s", seconds_left / 60, seconds_left % 60);
    [id.clone(), jid.clone(), state.clone(), left, traces.to_string(), max.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_in_the_configuration() {
        assert_eq!(seconds("15m").ok(), Some(900));
        assert_eq!(seconds("90").ok(), Some(90));
        for bad in ["", "0s", "10ms", "soon", "-1m"] {
            let error = seconds(bad).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("--ttl"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_rule_is_one_line() {
        let rule = TraceRow { seconds_left: 899, traces: 3, max: 500, ..TraceRow::default() };
        assert_eq!(row(&rule)[3..], ["14m59s", "3", "500"]);
    }
}
