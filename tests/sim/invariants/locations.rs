//! Promise 6, in a cluster: when all has come to rest the locations have each session once, at the edge that has its socket,
//! and nothing else.

use super::Evidence;
use std::collections::BTreeMap;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let Some(located) = evidence.stage.located() else { return Vec::new() };
    let mut found = Vec::new();
    let mut rows: BTreeMap<_, _> =
        located.rows.iter().map(|(jid, token, edge)| (jid, (token, edge))).collect();
    for (jid, token, edge) in &located.sockets {
        match rows.remove(jid) {
            Some((own, at)) if own == token && at == edge => {}
            Some((own, at)) if own == token => {
                found.push((None, format!("{jid} is at edge {}, not at {}, as recorded", edge.0, at.0)));
            }
            Some(_) => found.push((None, format!("another session is recorded than that of {jid}"))),
            None => found.push((None, format!("{jid} at edge {} is not recorded, or there twice", edge.0))),
        }
    }
    for (jid, (_, edge)) in rows {
        found.push((None, format!("{jid} is recorded at edge {}, where nobody has it", edge.0)));
    }
    if located.kept != located.sockets.len() {
        let text =
            format!("edges keep {} sessions, and have sockets of {}", located.kept, located.sockets.len());
        found.push((None, text));
    }
    found
}
