//! What administration asks about accounts whose stanzas are all traced for a while.
//!
//! Who starts or ends that is seen in the log, with a keyed hash of the address: the address itself is in no log.

use std::time::Duration;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use starling_node::{
    Telemetry,
    telemetry::{
        TraceRule,
        targets::{Standing, TargetError},
    },
};
use starling_xmpp::BareJid;

use crate::control::ControlError;

/// The calls of `starling ctl trace`. Answered by every process that has homes.
pub trait Traces: Send + Sync {
    /// Traces all stanzas from and for an account, at all edges, for a time and up to a number of them.
    ///
    /// # Errors
    /// [`ControlError::UnknownDomain`], [`ControlError::Invalid`] for a time or a number that cannot be,
    /// [`ControlError::Unavailable`] when there are too many rules.
    fn start(
        &self,
        account: BareJid,
        ttl: Duration,
        most: u32,
    ) -> BoxFuture<'_, Result<TraceRules, ControlError>>;

    /// All rules whose time is not over.
    fn list(&self) -> TraceRules;

    /// Ends a rule, by its id, or all of an account, by its bare JID. Returns them.
    ///
    /// # Errors
    /// [`ControlError::NotFound`] if none holds.
    fn stop(&self, which: String) -> BoxFuture<'_, Result<TraceRules, ControlError>>;
}

/// `POST /v1/traces`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartTrace {
    /// Bare JID of the account.
    pub jid: String,
    /// For how many seconds.
    pub seconds: u64,
    /// So many traces at the most.
    pub max: u32,
}

/// What all calls about traces answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TraceRules {
    /// The rules that were asked for.
    pub rules: Vec<TraceRow>,
    /// What keeps spans from being seen, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TraceRow {
    /// 16 hexadecimal digits; its spans have them as `starling.trace.rule`.
    pub id: String,
    /// Bare JID of the account.
    pub jid: String,
    /// `on`, `stopped` or `used up`.
    pub state: String,
    /// Seconds that are left of its time.
    pub seconds_left: u64,
    /// So many traces at the most.
    pub max: u32,
    /// So many were begun, as far as is known.
    pub traces: u64,
}

/// The rules of one process, as administration sees them.
#[derive(Debug, Clone)]
pub struct Rules(pub Telemetry);

impl Rules {
    /// A new rule.
    ///
    /// # Errors
    /// As [`Traces::start`].
    pub fn start(&self, account: &BareJid, ttl: Duration, most: u32) -> Result<TraceRule, ControlError> {
        let rule = self.0.targets.start(account.as_str(), ttl, most).map_err(|error| match error {
            TargetError::Full => ControlError::Unavailable(error.to_string()),
            TargetError::Time | TargetError::Number => ControlError::Invalid(error.to_string()),
        })?;
        tracing::info!(
            event = "trace_started",
            rule = digits(rule.id),
            user_hash = self.0.users.of(&rule.account),
            seconds = ttl.as_secs(),
            max = most,
            "an account is traced by hand"
        );
        Ok(rule)
    }

    /// Ends rules.
    ///
    /// # Errors
    /// As [`Traces::stop`].
    pub fn stop(&self, which: &str) -> Result<Vec<TraceRule>, ControlError> {
        let account = BareJid::parse(which).ok().filter(|jid| jid.local().is_some());
        let meant = |rule: &TraceRule| match &account {
            Some(account) => rule.account == account.as_str(),
            None => digits(rule.id).eq_ignore_ascii_case(which),
        };
        let targets = &self.0.targets;
        let ids = targets.all().into_iter().filter(meant).map(|rule| rule.id);
        let ended: Vec<_> = ids.filter_map(|id| targets.stop(id)).collect();
        for rule in &ended {
            tracing::info!(
                event = "trace_stopped",
                rule = digits(rule.id),
                user_hash = self.0.users.of(&rule.account),
                "an account is traced no longer"
            );
        }
        if ended.is_empty() { Err(ControlError::NotFound) } else { Ok(ended) }
    }

    /// These rules, as they stand.
    pub fn rows(&self, meant: impl Fn(&TraceRule) -> bool) -> Vec<TraceRow> {
        let standing = self.0.targets.standing();
        standing.iter().filter(|standing| meant(&standing.rule)).map(row).collect()
    }

    /// What keeps this process from recording spans.
    pub fn warnings(&self) -> Vec<String> {
        let off = (!self.0.tracer.is_on()).then(|| SILENT.to_owned());
        off.into_iter().collect()
    }
}

/// Said where no spans are recorded.
const SILENT: &str = "this process records no spans: set telemetry.otlp_endpoint to where a collector listens, and start it again";

/// An id as it is written.
pub fn digits(id: u64) -> String {
    format!("{id:016x}")
}

fn row(standing: &Standing) -> TraceRow {
    let Standing { rule, taken } = standing;
    let state = match (rule.stopped, *taken >= u64::from(rule.most)) {
        (_, true) => "used up",
        (true, false) => "stopped",
        (false, false) => "on",
    };
    TraceRow {
        id: digits(rule.id),
        jid: rule.account.clone(),
        state: state.to_owned(),
        seconds_left: rule.left.as_secs(),
        max: rule.most,
        traces: *taken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> BareJid {
        BareJid::parse(name).unwrap()
    }

    #[test]
    fn a_rule_is_found_by_its_id_and_by_its_account() {
        let rules = Rules(Telemetry::off());
        let minute = Duration::from_secs(60);
        let one = rules.start(&account("a@b"), minute, 5).unwrap();
        let two = rules.start(&account("a@b"), minute, 5).unwrap();
        let three = rules.start(&account("c@b"), minute, 5).unwrap();
        assert_eq!(rules.stop("d@b"), Err(ControlError::NotFound));
        assert_eq!(rules.stop("00"), Err(ControlError::NotFound));
        assert_eq!(rules.stop(&digits(three.id).to_uppercase()).unwrap()[0].id, three.id);
        let ended: Vec<_> = rules.stop("A@b").unwrap().into_iter().map(|rule| rule.id).collect();
        assert_eq!(ended, [one.id, two.id]);
        assert_eq!(rules.stop("a@b"), Err(ControlError::NotFound));
        let states: Vec<_> = rules.rows(|_| true).into_iter().map(|row| row.state).collect();
        assert_eq!(states, ["stopped"; 3]);
        assert!(rules.warnings()[0].contains("telemetry.otlp_endpoint"));
    }

    #[test]
    fn errors_say_what_is_possible() {
        let rules = Rules(Telemetry::off());
        let hour = Duration::from_secs(3_600);
        let error = rules.start(&account("a@b"), hour * 25, 5).unwrap_err().to_string();
        assert!(error.contains("24 hours"), "{error}");
        let error = rules.start(&account("a@b"), hour, 0).unwrap_err().to_string();
        assert!(error.contains("1 to 100000"), "{error}");
    }
}
