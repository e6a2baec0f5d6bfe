//! `starling ctl drain`.

use std::time::Duration;

use starling_admin::{
    Client, ClientError,
    api::{DrainBody, code},
    raft::Standing,
};

use super::Server;
use crate::{failure::Failure, print};

pub(super) async fn run(server: &Server<'_>, node: Option<&str>, watch: bool) -> Result<(), Failure> {
    let mut client = server.connect().await?;
    // Only a router has one.
    let standing = if watch && node.is_some() { client.raft().await.ok() } else { None };
    let begun = client.drain(node).await;
    let now = begun.map_err(|error| refused(server, node, error))?;
    print::line(&line(&now));
    drop(client);
    if !watch {
        return Ok(());
    }
    let mut watch = Watch { node: other(standing.as_ref(), node), now, missing: 0, replaced: false };
    loop {
        tokio::time::sleep(EVERY).await;
        match watch.hear(look(server, watch.node).await) {
            Ok(Some(news)) => print::line(&news),
            Ok(None) => {}
            Err(error) => return Err(server.failure("the process does not tell how far it is", error)),
        }
        if watch.is_over() {
            return Ok(());
        }
    }
}

/// The process that drains, if it is not the router that is asked, of which this is the standing.
fn other<'a>(standing: Option<&Standing>, node: Option<&'a str>) -> Option<&'a str> {
    let own = |called: &str| {
        standing.is_some_and(|standing| {
            let by_number =
                |id: &str| u64::from_str_radix(called, 16).ok() == u64::from_str_radix(id, 16).ok();
            let mut own = standing.routers.iter().filter(|router| router.name == standing.router);
            standing.router == called || own.any(|router| by_number(&router.id))
        })
    };
    node.filter(|node| !own(node))
}

/// What is known of a process that drains.
struct Watch<'a> {
    /// Who it is, if not the one that is asked.
    node: Option<&'a str>,
    now: DrainBody,
    /// How many answers in a row said that it is gone.
    missing: u32,
    /// It was leaving, and serves: another process of that name, started in its place.
    replaced: bool,
}

impl Watch<'_> {
    /// What is new.
    fn hear(&mut self, answer: Result<DrainBody, ClientError>) -> Result<Option<String>, ClientError> {
        match answer {
            Ok(next) if next.phase == SERVING && self.now.phase != SERVING => {
                self.replaced = true;
                Ok(Some("ended, and started again".to_owned()))
            }
            Ok(next) => {
                self.missing = 0;
                let news = (next != self.now).then(|| line(&next));
                self.now = next;
                Ok(news)
            }
            // It answers until it ends.
            Err(error) if is_gone(self.node, &error) => {
                self.missing += 1;
                Ok(self.is_over().then(|| "ended".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    fn is_over(&self) -> bool {
        self.replaced || self.missing >= if self.node.is_some() { MISSING } else { 1 }
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

/// The phase of a process that does not drain.
const SERVING: &str = "serving";

const EVERY: Duration = Duration::from_millis(500);

/// After so many answers that a router knows nothing of it a process has ended: for longer than links take to be made again.
const MISSING: u32 = 12;

#[cfg(test)]
mod tests {
    use super::*;
    use starling_admin::api::ErrorBody;

    fn left(left: u64) -> Result<DrainBody, ClientError> {
        Ok(DrainBody { phase: "moving".to_owned(), left })
    }

    fn refused(code: &str) -> Result<DrainBody, ClientError> {
        Err(ClientError::Refused(ErrorBody { code: code.to_owned(), message: "no".to_owned() }))
    }

    fn gone() -> Result<DrainBody, ClientError> {
        Err(ClientError::NotRunning("/nowhere".into()))
    }

    #[test]
    fn another_process_has_ended_when_nobody_knows_it_for_a_while() {
        let mut watch = Watch { node: Some("edge-1"), now: left(3).unwrap(), missing: 0, replaced: false };
        assert_eq!(watch.hear(left(3)).unwrap(), None);
        assert_eq!(watch.hear(left(2)).unwrap().as_deref(), Some("moving (2 left)"));
        // Its link breaks and is made again, or a router is late.
        for round in 0..3 {
            for missing in 1..MISSING {
                let why = if missing % 2 == 0 { code::NOT_FOUND } else { code::UNAVAILABLE };
                assert_eq!(watch.hear(refused(why)).unwrap(), None, "{round}: {missing}");
                assert!(!watch.is_over());
            }
            assert_eq!(watch.hear(left(2)).unwrap(), None);
        }
        for _ in 1..MISSING {
            assert_eq!(watch.hear(refused(code::NOT_FOUND)).unwrap(), None);
        }
        assert_eq!(watch.hear(refused(code::NOT_FOUND)).unwrap().as_deref(), Some("ended"));
        assert!(watch.is_over());
    }

    #[test]
    fn who_serves_again_is_another_process() {
        let mut watch = Watch { node: Some("edge-1"), now: left(3).unwrap(), missing: 0, replaced: false };
        watch.hear(left(1)).unwrap();
        let serving = DrainBody { phase: SERVING.to_owned(), left: 0 };
        let said = watch.hear(Ok(serving)).unwrap();
        assert!(watch.is_over() && said.is_some_and(|said| said.starts_with("ended")));
    }

    #[test]
    fn whoever_is_asked_for_itself_has_ended_when_it_does_not_answer() {
        let router = |name: &str, id: &str| starling_admin::raft::RouterRow {
            name: name.to_owned(),
            id: id.to_owned(),
            ..Default::default()
        };
        let standing = Standing {
            router: "router-1".to_owned(),
            routers: vec![router("router-1", "00000000000000aa"), router("router-2", "00000000000000bb")],
            ..Standing::default()
        };
        for called in ["router-1", "00000000000000aa", "aa"] {
            let node = other(Some(&standing), Some(called));
            let mut watch = Watch { node, now: left(1).unwrap(), missing: 0, replaced: false };
            assert_eq!(watch.hear(gone()).unwrap().as_deref(), Some("ended"), "{called}");
            assert!(watch.is_over());
        }
        for another in ["router-2", "bb", "edge-1"] {
            assert_eq!(other(Some(&standing), Some(another)), Some(another));
        }
        assert_eq!(other(None, Some("router-1")), Some("router-1"), "an edge has no standing");
    }

    #[test]
    fn who_is_asked_has_ended_when_it_does_not_answer() {
        let mut other = Watch { node: Some("edge-1"), now: left(1).unwrap(), missing: 0, replaced: false };
        assert!(other.hear(gone()).is_err() && other.hear(refused(code::INVALID)).is_err());
        assert!(!other.is_over(), "that says nothing of the one that drains");
        let mut own = Watch { node: None, now: left(1).unwrap(), missing: 0, replaced: false };
        assert!(own.hear(refused(code::NOT_FOUND)).is_err() && !own.is_over());
        assert_eq!(own.hear(gone()).unwrap().as_deref(), Some("ended"));
        assert!(own.is_over());
    }
}
