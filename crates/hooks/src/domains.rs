//! The domains that are served, which a reload may change.

use parking_lot::RwLock;
use std::sync::Arc;

/// Shared by all parts of a process that must know which domains are local. Read for every stanza, written on reload.
#[derive(Debug, Clone)]
pub struct Domains(Arc<RwLock<Arc<[String]>>>);

impl Domains {
    /// These, the default one first; each enforced by [`starling_xmpp::jid::domain`].
    pub fn new(domains: Vec<String>) -> Self {
        Self(Arc::new(RwLock::new(domains.into())))
    }

    /// Replaces them.
    pub fn set(&self, domains: Vec<String>) {
        *self.0.write() = domains.into();
    }

    /// Whether this one is served.
    pub fn contains(&self, domain: &str) -> bool {
        self.0.read().iter().any(|served| served == domain)
    }

    /// All of them.
    pub fn all(&self) -> Arc<[String]> {
        Arc::clone(&self.0.read())
    }
}
