//! Settings: one typed value, from four layers.
//!
//! Order: defaults < file (TOML) < environment (`STARLING__A__B__C`) < `--set a.b.c=value`. An empty variable
//! counts as not set. Every key is declared once, in a `section!` of `config/sections.rs` or
//! `config/limits.rs`: its type, default, bounds and text. The reader, `starling config show` and the reference
//! in the documentation are derived from that.
//!
//! Durations are text with a unit (`"500ms"`, `"5s"`, `"15m"`, `"1h"`, `"2d"`); a bare number is seconds. Sizes and
//! counts are whole numbers, or text with `KiB`, `MiB` or `GiB`. Rates are `"20/s"`, `"200/min"`, `"20/h"`; a
//! bare number is in the unit of the default.
//!
//! A mistake never hides another: all are reported at once, each with what, where, why and what to do.

mod check;
mod cluster;
mod error;
mod layers;
mod limits;
mod reference;
mod role;
mod section;
mod sections;
mod show;
mod store;
mod suggest;
mod value;

use std::collections::BTreeMap;

pub use cluster::{Cluster, ClusterRaft, ClusterTls, Drain};
pub use error::{ConfigError, ConfigErrors};
pub use layers::{Origin, Sources};
pub use limits::{
    AuthLimits, BlocklistLimits, ConnectionLimits, Limits, MOST_CREDIT, MOST_GIVEN, MamLimits, OfflineLimits,
    PreAuthXmlLimits, RateLimits, RegistrationLimits, RosterLimits, SessionLimits, SmLimits, StreamLimits,
    StreamXmlLimits, XmlLimits,
};
pub use reference::reference;
pub use role::{LARGEST_STANZA, Role};
pub use section::Key;
pub use sections::{
    Archive, ArchiveDefault, Auth, CertificateFiles, Conflict, DomainCertificates, Listeners, Log, LogFormat,
    Registration, Router, Sample, Session, ShutdownSettings, TelemetrySettings, Tls,
};
pub use store::{Replication, Store, StoreKind, StoreTls};
pub use value::duration;

use layers::Layers;
use section::{Reader, Section, section};

section! {
    /// Everything that can be set.
    pub struct Config {
        /// The domains this server answers for. May be changed by a reload.
        domains: Vec<String> = vec!["localhost".to_owned()];
        /// The directory of all data: the store, the admin socket, certificates made at first start.
        data_dir: std::path::PathBuf = "./data".into();
    }
    with {
        /// Addresses to listen on.
        listen: Listeners;
        /// Certificates.
        tls: Tls;
        /// In-band registration (XEP-0077).
        registration: Registration;
        /// Authentication.
        auth: Auth;
        /// Client sessions.
        session: Session;
        /// Where data is kept.
        store: Store;
        /// Message archive (XEP-0313).
        archive: Archive;
        /// Homes of the accounts.
        router: Router;
        /// Being one process of many.
        cluster: Cluster;
        /// How an edge leaves.
        drain: Drain;
        /// Logs, traces and metrics.
        telemetry: TelemetrySettings;
        /// Leaving.
        shutdown: ShutdownSettings;
        /// What one client may cost.
        limits: Limits;
    }
    plus {
        /// Where each value that is not a default came from.
        origins: BTreeMap<String, Origin>;
    }
}

impl Config {
    /// Reads all layers.
    ///
    /// # Errors
    /// Every mistake found in any layer, and in how values fit together.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(Layers::read(sources, &Self::keys()));
        let mut config = Self::default();
        config.read("", &mut reader);
        let (origins, mut errors) = reader.finish();
        config.origins = origins;
        if errors.is_empty() {
            check::together(&config, &mut errors);
        }
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    /// Every key, in the order of the documentation.
    pub fn keys() -> Vec<Key> {
        let mut keys = Vec::new();
        Self::describe("", &mut keys);
        keys
    }

    /// All values in force as TOML, each with where it came from as a comment. Secrets are masked.
    pub fn show(&self) -> String {
        show::toml(self)
    }

    /// Where the value of `key` came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// Keys whose values differ between the two, for a reload: it takes the ones that
    /// [`Key::reloadable`] names and reports the rest as waiting for a restart.
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let (mut mine, mut theirs) = (Vec::new(), Vec::new());
        self.values("", &mut mine);
        other.values("", &mut theirs);
        let mine: BTreeMap<_, _> = mine.into_iter().collect();
        let theirs: BTreeMap<_, _> = theirs.into_iter().collect();
        let names = mine.keys().chain(theirs.keys().filter(|key| !mine.contains_key(*key)));
        names.filter(|key| mine.get(*key) != theirs.get(*key)).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
