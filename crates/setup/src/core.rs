//! What homes know and can do, wherever they are.

use crate::{Derivations, settings, store_obstacle};
use anyhow::Result;
use starling_hooks::{ArchiveIds, Domains, Hooks, Server};
use starling_node::Config;
use starling_store::SharedStore;
use starling_xmpp::Element;
use std::sync::Arc;

/// The modules, and what they are told of the server.
pub struct Core {
    /// What modules do, in order.
    pub hooks: Hooks,
    /// What they are told.
    pub server: Arc<Server>,
    /// A secret of the store: accounts that do not exist get their salt from it, the same on every edge.
    pub unknown_accounts: [u8; 32],
}

impl Core {
    /// Puts them together. Secrets that the store does not have yet are made.
    ///
    /// # Errors
    /// The store does not answer, or a domain is none.
    pub async fn new(config: &Config, store: &SharedStore) -> Result<Self> {
        let kept = |error| store_obstacle(config, error);
        let archive_ids = ArchiveIds::new(&store.secret("archive-ids").await.map_err(kept)?);
        let unknown_accounts = store.secret("unknown-accounts").await.map_err(kept)?;
        let hooks = Hooks::of(starling_xeps::all());
        let server = Arc::new(Server {
            domains: Domains::new(settings::domains(config)?),
            software: ("Starling", env!("CARGO_PKG_VERSION")),
            store: Arc::clone(store),
            archive_ids,
            features: hooks.features(),
            limits: settings::hook_limits(config),
            registration: config.registration.enabled,
            iterations: config.auth.iterations,
            archive_default: settings::archive_default(config),
            passwords: Arc::new(Derivations::new(config.auth.iterations)),
        });
        Ok(Self { hooks, server, unknown_accounts })
    }

    /// Stream features after authentication beyond those of an edge itself.
    pub fn features(&self) -> Vec<Element> {
        vec![starling_xeps::disco::caps(&self.server)]
    }
}
