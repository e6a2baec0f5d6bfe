//! Whether routers know where sessions are: what each of them says, against what clients have.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

/// What one router says of sessions and shards.
#[derive(Clone, Debug, Default)]
pub struct Told {
    router: String,
    /// Full JIDs and edges, as often as they are told.
    rows: Vec<(String, String)>,
    /// Leader and epoch of each shard.
    shards: BTreeMap<usize, (String, u64)>,
}

impl Told {
    /// One that has said nothing yet.
    pub fn new(router: &str) -> Self {
        Self { router: router.to_owned(), ..Self::default() }
    }

    /// Takes what `ctl session find` prints.
    pub fn find(&mut self, printed: &str) -> Result<()> {
        if printed.trim().ends_with(" has no session") {
            return Ok(());
        }
        let mut lines = printed.lines();
        let head = lines.next().unwrap_or_default();
        ensure!(words(head) == ["JID", "SHARD", "HOME", "EDGE", "MOVES"], "no table of sessions: {printed}");
        for line in lines {
            let words = words(line);
            // An edge may be `not linked`, which is more than one word.
            let [jid, _shard, _home, edge @ .., _moves] = words.as_slice() else {
                anyhow::bail!("no row of a session: {line}")
            };
            self.rows.push(((*jid).to_owned(), edge.join(" ")));
        }
        Ok(())
    }

    /// Takes what `ctl raft status` prints.
    pub fn status(&mut self, printed: &str) -> Result<()> {
        let mut lines = printed.lines().skip_while(|line| !line.starts_with("SHARD "));
        lines.next().with_context(|| format!("no table of shards: {printed}"))?;
        for line in lines {
            let words = words(line);
            let [shard, leader, epoch, ..] = words.as_slice() else { continue };
            self.shards.insert(shard.parse()?, ((*leader).to_owned(), epoch.parse()?));
        }
        Ok(())
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// What is not as it should be, when `live` has the full JID of each session and the edge that its client is connected
/// to: each has one row, there; nobody else has one; and all routers tell the same leader and epoch of every shard.
pub fn astray(live: &BTreeMap<String, String>, told: &[Told], shards: usize) -> Vec<String> {
    let mut wrong = Vec::new();
    for Told { router, rows, .. } in told {
        for (jid, edge) in live {
            let edges: Vec<&str> =
                rows.iter().filter(|(whose, _)| whose == jid).map(|(_, edge)| edge.as_str()).collect();
            if edges != [edge] {
                wrong
                    .push(format!("{jid} is connected to {edge}, and {router} says that it is at {edges:?}"));
            }
        }
        for (jid, edge) in rows.iter().filter(|(jid, _)| !live.contains_key(jid)) {
            wrong.push(format!("nobody has {jid}, and {router} says that it is at {edge}"));
        }
    }
    let Some(first) = told.first() else { return vec!["no router says anything".to_owned()] };
    for shard in 0..shards {
        for one in told {
            match (first.shards.get(&shard), one.shards.get(&shard)) {
                (Some(as_first), Some(as_one)) if as_first == as_one && as_one.0 != "none" => {}
                (as_first, as_one) => wrong.push(format!(
                    "shard {shard}: {} says {as_first:?}, {} says {as_one:?}",
                    first.router, one.router
                )),
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUND: &str = "JID          SHARD  HOME      EDGE    MOVES\na@x/desk     1      router-0  edge-1  0\n\
                         a@x/phone    1      router-0  edge-0  3\n";
    const STATUS: &str = "cluster 2a, as router-0 sees it\n\nROUTER    ADDRESS  VOTES  LINK  LEADS  ID\n\
                          router-0  1.2:3    yes    yes   2      ab\n\n\
                          SHARD  LEADER    EPOCH  SESSIONS  LAG  CONFIRMED  LEARNERS\n\
                          0      router-1  7      0         0    12 ms ago\n\
                          1      router-0  9      2         0    3 ms ago   router-3\n";

    fn told(router: &str, found: &str, status: &str) -> Told {
        let mut told = Told::new(router);
        told.find(found).unwrap();
        told.find("b@x has no session\n").unwrap();
        told.status(status).unwrap();
        told
    }

    /// What is wrong if one of two routers says this.
    fn wrong(found: &str, status: &str) -> Vec<String> {
        let live = [("a@x/desk", "edge-1"), ("a@x/phone", "edge-0")];
        let live = live.map(|(jid, edge)| (jid.to_owned(), edge.to_owned())).into();
        astray(&live, &[told("router-0", FOUND, STATUS), told("router-1", found, status)], 2)
    }

    #[test]
    fn whatever_differs_is_told() {
        assert_eq!(wrong(FOUND, STATUS), [""; 0]);
        let one = |found: &str, status: &str, part: &str| {
            let wrong = wrong(found, status);
            assert!(wrong.len() == 1 && wrong[0].contains(part), "{wrong:?}");
        };
        one(&FOUND.replace("edge-1", "edge-2"), STATUS, r#"router-1 says that it is at ["edge-2"]"#);
        one(&FOUND.replace("edge-1", "edge-1 (not linked)"), STATUS, "(not linked)");
        let twice = format!("{FOUND}a@x/desk 1 router-0 edge-1 0\n");
        one(&twice, STATUS, r#"["edge-1", "edge-1"]"#);
        let less: Vec<&str> = FOUND.lines().filter(|line| !line.contains("desk")).collect();
        one(&less.join("\n"), STATUS, "a@x/desk is connected to edge-1, and router-1 says that it is at []");
        let left = format!("{FOUND}a@x/ghost 1 router-0 edge-1 0\n");
        one(&left, STATUS, "nobody has a@x/ghost, and router-1 says that it is at edge-1");
        one(FOUND, &STATUS.replace("router-0  9", "router-0  8"), "shard 1: ");
        one(FOUND, &STATUS.replace("router-0  9", "router-1  9"), "shard 1: ");
        let fewer: Vec<&str> = STATUS.lines().filter(|line| !line.starts_with("0 ")).collect();
        one(FOUND, &fewer.join("\n"), "shard 0: ");
        assert_eq!(astray(&BTreeMap::new(), &[], 2).len(), 1, "silence says nothing");
        let nobody = STATUS.replace("router-1  7", "none      7");
        let both = [told("router-0", FOUND, &nobody)];
        assert!(astray(&BTreeMap::new(), &both, 2).iter().any(|wrong| wrong.starts_with("shard 0: ")));
    }

    #[test]
    fn what_is_no_table_is_an_error() {
        assert!(Told::new("router-0").find("no server is running").is_err());
        assert!(Told::new("router-0").find(&FOUND.replace("edge-0  3", "")).is_err());
        assert!(Told::new("router-0").status("no server is running").is_err());
    }
}
