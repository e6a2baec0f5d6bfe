//! What keeps a server from starting or running, told so that it can be mended.

use crate::settings;
use starling_node::Config;
use starling_store::StoreError;
use std::fmt;

/// What, where, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// What cannot be done.
    pub what: String,
    /// Where: a file, a server, a key.
    pub place: Option<String>,
    /// Why not.
    pub why: Option<String>,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Obstacle {
    /// Something cannot be done.
    pub fn new(what: impl fmt::Display) -> Self {
        Self { what: what.to_string(), place: None, why: None, advice: None }
    }

    /// Where it is.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self { place: Some(place.to_string()), ..self }
    }

    /// Why it is so.
    #[must_use]
    pub fn because(self, why: impl fmt::Display) -> Self {
        Self { why: Some(why.to_string()), ..self }
    }

    /// What to do.
    #[must_use]
    pub fn advise(self, advice: impl fmt::Display) -> Self {
        Self { advice: Some(advice.to_string()), ..self }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(place) = &self.place {
            write!(f, " at {place}")?;
        }
        for text in [&self.why, &self.advice].into_iter().flatten() {
            write!(f, "; {text}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Obstacle {}

/// Why the store cannot be used.
pub fn store_obstacle(config: &Config, error: StoreError) -> Obstacle {
    match error {
        StoreError::Held(name) => Obstacle::new("another server uses this store")
            .at(settings::place(config))
            .because(format!("{name} holds it and is alive"))
            .advise("stop that server, or give this one another `store.keyspace`"),
        other => Obstacle::new("the store cannot be used")
            .at(settings::place(config))
            .because(other)
            .advise("run `starling check`"),
    }
}
