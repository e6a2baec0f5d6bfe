//! The suite of all back ends, and what only a store on disk can do.

use super::*;
use starling_store::SharedStore;
use starling_store::testing::BackEnd;
use tempfile::TempDir;

struct Embedded(TempDir);

impl Embedded {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl BackEnd for Embedded {
    fn open(&mut self, now: Now) -> SharedStore {
        Arc::new(EmbeddedStore::open(&Options::at(self.0.path()), now).unwrap())
    }
}

mod conformance {
    use super::Embedded;
    starling_store::conformance!(Embedded::new());
}
