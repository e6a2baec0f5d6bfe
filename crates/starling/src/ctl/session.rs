//! `starling ctl session`.

use starling_admin::api::{SessionRow, Sessions};

use super::{Server, user};
use crate::{cli::Output, failure::Failure, print};

pub(super) async fn list(
    server: &Server<'_>,
    jid: Option<&str>,
    limit: usize,
    output: Output,
) -> Result<(), Failure> {
    let jid = jid.map(user::account).transpose()?;
    let mut client = server.connect().await?;
    let found = client.sessions(jid.as_deref(), limit).await;
    let Sessions { mut sessions, more } =
        found.map_err(|error| server.failure("sessions cannot be listed", error))?;
    sessions.sort_by(|left, right| left.jid.cmp(&right.jid));
    match output {
        Output::Json => print::line(&serde_json::to_string_pretty(&sessions).unwrap_or_default()),
        Output::Table => {
            let rows: Vec<_> = sessions.iter().map(row).collect();
            print::line(print::table(["JID", "STATE", "PRIORITY", "SM", "SINCE"], &rows).trim_end());
        }
    }
    if more {
        eprintln!("warning: there are more than these {}; name an account with --jid", sessions.len());
    }
    Ok(())
}

fn row(session: &SessionRow) -> [String; 5] {
    [
        session.jid.clone(),
        session.state.clone(),
        session.priority.to_string(),
        if session.stream_management { "yes" } else { "no" }.to_owned(),
        user::moment(Some(session.since)),
    ]
}
