//! Named checks behind `/livez`, `/readyz` and `/startupz`.
//!
//! A part of the server holds a [`Check`] and says how it is; a probe is well when all its checks are. What a
//! check says is shown to whoever may reach the admin address: reasons, never addresses of users.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// Which question a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// `/startupz`: has it come up?
    Startup,
    /// `/readyz`: may new clients be sent here?
    Ready,
    /// `/livez`: is it worth keeping, or must it be restarted?
    Live,
}

/// All checks of a process. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<(Probe, &'static str), Verdict>>>,
}

type Verdict = Result<(), Cow<'static, str>>;

/// One part of the server, as it answers for itself.
#[derive(Debug)]
pub struct Check {
    health: Health,
    name: &'static str,
    probes: &'static [Probe],
}

/// What a probe answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Each check of the probe with its verdict, by name.
    pub checks: Vec<(&'static str, Verdict)>,
}

impl Health {
    /// Adds a check that fails with `starting` until it says otherwise. A second check of the same name
    /// replaces the first.
    pub fn check(&self, name: &'static str, probes: &'static [Probe]) -> Check {
        let check = Check { health: self.clone(), name, probes };
        check.fail("starting");
        check
    }

    /// How things are.
    pub fn report(&self, probe: Probe) -> Report {
        let checks = self.checks.lock();
        let mine = checks.iter().filter(|((of, _), _)| *of == probe);
        Report { checks: mine.map(|((_, name), verdict)| (*name, verdict.clone())).collect() }
    }
}

impl Check {
    /// All is well.
    pub fn pass(&self) {
        self.set(&Ok(()));
    }

    /// Something is wrong: a short reason in lower case, e.g. `draining`.
    pub fn fail(&self, reason: impl Into<Cow<'static, str>>) {
        self.set(&Err(reason.into()));
    }

    fn set(&self, verdict: &Verdict) {
        let mut checks = self.health.checks.lock();
        for probe in self.probes {
            checks.insert((*probe, self.name), verdict.clone());
        }
    }
}

impl Report {
    /// True when no check fails.
    pub fn is_ok(&self) -> bool {
        self.checks.iter().all(|(_, verdict)| verdict.is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_well_when_all_its_checks_are() {
        let health = Health::default();
        assert!(health.report(Probe::Live).is_ok());
        let store = health.check("store", &[Probe::Startup, Probe::Ready]);
        let edge = health.check("edge", &[Probe::Ready]);
        assert!(!health.report(Probe::Startup).is_ok());
        store.pass();
        assert!(health.report(Probe::Startup).is_ok());
        assert!(!health.report(Probe::Ready).is_ok());
        edge.pass();
        assert!(health.report(Probe::Ready).is_ok());
        edge.fail("draining");
        let report = health.report(Probe::Ready);
        assert_eq!(report.checks, [("edge", Err("draining".into())), ("store", Ok(()))]);
        assert!(health.report(Probe::Startup).is_ok() && health.report(Probe::Live).is_ok());
    }
}
