//! `starling ctl drain`.

use std::time::Duration;

use starling_admin::{Client, ClientError, api::DrainBody};

use super::Server;
use crate::{failure::Failure, print};

pub(super) async fn run(server: &Server<'_>, watch: bool) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    let mut now =
        client.drain().await.map_err(|error| server.failure("the process cannot be drained", error))?;
    print::line(&line(&now));
    drop(client);
    if !watch {
        return Ok(());
    }
    loop {
        tokio::time::sleep(EVERY).await;
        match look(server).await {
            Ok(next) => {
                if next != now {
                    print::line(&line(&next));
                }
                now = next;
            }
            // It answers until it ends.
            Err(ClientError::NotRunning(_) | ClientError::Failed(_)) => {
                print::line("ended");
                return Ok(());
            }
            Err(error) => return Err(server.failure("the process does not tell how far it is", error)),
        }
    }
}

async fn look(server: &Server<'_>) -> Result<DrainBody, ClientError> {
    Client::connect(&server.config.data_dir).await?.draining().await
}

fn line(now: &DrainBody) -> String {
    format!("{} ({} left)", now.phase, now.left)
}

const EVERY: Duration = Duration::from_millis(500);
