//! Promise 1: what `h` covers is in every log it belongs to and comes to its recipient; what came was stored before; and
//! a contact or a block that was confirmed is there for good.

use super::Evidence;
use crate::promises::Demand;
use starling_tests::history::Kind;
use std::collections::BTreeMap;

pub(super) fn find(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut found = evidence.of(&[Kind::MissingRow, Kind::NeverSeen, Kind::SeenNotStored, Kind::RefusedLate]);
    found.extend(promises(evidence));
    found
}

/// The last word on each thing that was confirmed, or a later one, holds.
fn promises(evidence: &Evidence<'_>) -> Vec<(Option<String>, String)> {
    let mut allowed: BTreeMap<(String, Option<String>), Vec<Demand>> = BTreeMap::new();
    for promise in evidence.stage.promises().all() {
        let contact = match &promise.what {
            Demand::Contact(contact, _) => Some(contact.clone()),
            Demand::Block(..) => None,
            Demand::Keys(_) => Some("keys".to_owned()),
        };
        let demands = allowed.entry((promise.account.clone(), contact)).or_default();
        if promise.confirmed.is_some() {
            demands.clear();
            demands.push(promise.what.clone());
        } else {
            demands.push(promise.what.clone());
        }
    }
    let confirmed: Vec<_> = evidence
        .stage
        .promises()
        .all()
        .iter()
        .filter(|promise| promise.confirmed.is_some())
        .map(|promise| (promise.account.clone(), promise.what.clone()))
        .collect();
    let mut found = Vec::new();
    for ((account, contact), demands) in &allowed {
        let Some(kept) = evidence.before.0.get(account) else { continue };
        let sure = demands.first().is_some_and(|first| confirmed.contains(&(account.clone(), first.clone())));
        if !sure {
            continue;
        }
        let holds = demands.iter().any(|demand| match demand {
            Demand::Contact(contact, name) => kept.roster.get(contact) == Some(name),
            Demand::Keys(number) => kept.keys.1 == Some(*number),
            Demand::Block(on, _) => kept.blocked.iter().any(|jid| jid == crate::client::PEST) == *on,
        });
        if !holds {
            let text = format!(
                "{account}: confirmed {demands:?} for {contact:?}, but there is {:?}, {:?}, {:?}",
                kept.roster, kept.blocked, kept.keys
            );
            found.push((None, text));
        }
    }
    found
}
