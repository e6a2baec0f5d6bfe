//! Key derivation for password changes and administration, off the homes.

use futures::future::BoxFuture;
use starling_hooks::Passwords;
use starling_xmpp::sasl::Credentials;
use starling_xmpp::{ErrorType, StanzaCondition, StanzaError};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Derivations at a time; each is a core's work for tens of milliseconds.
const AT_ONCE: usize = 1;
/// Derivations that may wait.
const WAITING: usize = 32;

/// A bounded pool for key derivation.
pub struct Derivations {
    iterations: u32,
    running: Arc<Semaphore>,
    queued: Arc<Semaphore>,
}

impl Derivations {
    /// With so many rounds of PBKDF2.
    pub fn new(iterations: u32) -> Self {
        Self {
            iterations,
            running: Arc::new(Semaphore::new(AT_ONCE)),
            queued: Arc::new(Semaphore::new(WAITING)),
        }
    }
}

impl Passwords for Derivations {
    fn derive(&self, password: String) -> BoxFuture<'static, Result<Credentials, StanzaError>> {
        let busy = || StanzaError::new(StanzaCondition::ResourceConstraint).with_type(ErrorType::Wait);
        let (iterations, running, queued) =
            (self.iterations, Arc::clone(&self.running), Arc::clone(&self.queued));
        Box::pin(async move {
            let _place = queued.try_acquire_owned().map_err(|_| busy())?;
            let _turn = running.acquire_owned().await.map_err(|_| busy())?;
            let salt: [u8; 16] = starling_node::ids::bytes();
            let work = tokio::task::spawn_blocking(move || Credentials::derive(&password, salt, iterations));
            match work.await {
                Ok(derived) => derived.map_err(|_| {
                    StanzaError::new(StanzaCondition::NotAcceptable)
                        .with_text("the password is empty, too long or has characters that may not be in it")
                }),
                Err(_) => Err(busy()),
            }
        })
    }
}
