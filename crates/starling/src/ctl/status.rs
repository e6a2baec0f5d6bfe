//! `starling ctl status`.

use serde::Serialize;
use starling_admin::{
    ClientError,
    api::{StatusBody, code},
    raft::Standing,
};

use super::{Server, raft};
use crate::{cli::Output, failure::Failure, print};

#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    status: StatusBody,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Standing>,
}

pub(super) async fn show(server: &Server<'_>, output: Output) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    let mut status =
        client.status().await.map_err(|error| server.failure("the server does not tell", error))?;
    let cluster = match client.raft().await {
        Ok(standing) => Some(standing),
        // Only a router of a cluster has something to say to this.
        Err(ClientError::Refused(body)) if body.code == code::INVALID => None,
        Err(error) => return Err(server.failure("the groups of the cluster do not tell", error)),
    };
    match output {
        Output::Json => {
            print::line(&serde_json::to_string_pretty(&Whole { status, cluster }).unwrap_or_default())
        }
        Output::Table => {
            if cluster.is_some() {
                // The same stands in the tables.
                status.details.retain(|detail| {
                    !["shard ", "router "].iter().any(|table| detail.name.starts_with(table))
                });
            }
            let cluster = cluster.map(|standing| format!("\n{}", raft::text(&standing)));
            print::line((text(&status) + &cluster.unwrap_or_default()).trim_end());
        }
    }
    Ok(())
}

fn text(status: &StatusBody) -> String {
    let mut text = format!(
        "version    {}\nprocess    {}\nup         {}\ndomains    {}\nsessions   {} ({} detached)\n",
        status.version,
        status.pid,
        span(status.uptime_seconds),
        status.domains.join(", "),
        status.sessions,
        status.detached,
    );
    for listener in &status.listeners {
        text.push_str(&format!("listening  {} {}\n", listener.name, listener.address));
    }
    for detail in &status.details {
        text.push_str(&format!("{:<10} {}\n", detail.name, detail.value));
    }
    text
}

fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", seconds % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        assert_eq!(span(61), "1 min 1 s");
        assert_eq!(span(3_700), "1 h 1 min");
        assert_eq!(span(90_000), "1 d 1 h");
    }
}
