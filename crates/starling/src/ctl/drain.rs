//! `starling ctl drain`.

use std::time::Duration;

use starling_admin::{
    Client, ClientError,
    api::{DrainBody, code},
};

use super::Server;
use crate::{failure::Failure, print};

pub(super) async fn run(server: &Server<'_>, node: Option<&str>, watch: bool) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    let begun = client.drain(node).await;
    let mut now = begun.map_err(|error| refused(server, node, error))?;
    print::line(&line(&now));
    drop(client);
    if !watch {
        return Ok(());
    }
    let mut missing = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        match look(server, node).await {
            Ok(next) => {
                missing = 0;
                if next != now {
                    print::line(&line(&next));
                }
                now = next;
            }
            // It answers until it ends.
            Err(error) if is_gone(node, &error) => {
                missing += 1;
                if node.is_none() || missing == MISSING {
                    print::line("ended");
                    return Ok(());
                }
            }
            Err(error) => return Err(server.failure("the process does not tell how far it is", error)),
        }
    }
}

/// Whether the process is gone, as it should be: the one that is asked, or the one of which the router that is asked knows
/// nothing more. A link may break and come again: that is no end yet.
fn is_gone(node: Option<&str>, error: &ClientError) -> bool {
    match (node, error) {
        (None, ClientError::NotRunning(_) | ClientError::Failed(_)) => true,
        (Some(_), ClientError::Refused(body)) => {
            body.code == code::NOT_FOUND || body.code == code::UNAVAILABLE
        }
        _ => false,
    }
}

fn refused(server: &Server<'_>, node: Option<&str>, error: ClientError) -> Failure {
    match (node, error) {
        (Some(node), ClientError::Refused(body)) if body.code == code::NOT_FOUND => {
            Failure::new(format!("{node} cannot be drained"))
                .because("no router of the cluster is called so, and no edge that is linked")
                .advise("`starling ctl status` at a router lists them")
        }
        (Some(node), error) => server.failure(&format!("{node} cannot be drained"), error),
        (None, error) => server.failure("the process cannot be drained", error),
    }
}

async fn look(server: &Server<'_>, node: Option<&str>) -> Result<DrainBody, ClientError> {
    Client::connect(&server.config.data_dir).await?.draining(node).await
}

fn line(now: &DrainBody) -> String {
    format!("{} ({} left)", now.phase, now.left)
}

const EVERY: Duration = Duration::from_millis(500);

/// After so many answers that a router knows nothing of it a process has ended: for longer than links take to be made again.
const MISSING: u32 = 12;
