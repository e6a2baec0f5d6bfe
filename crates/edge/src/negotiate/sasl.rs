//! Authentication (RFC 6120 §6), one exchange after the other on a stream under TLS.

use super::starttls::Secured;
use super::wire::Wire;
use super::{End, PATIENCE, features, header, register};
use crate::source::Source;
use crate::throttle::Verdict;
use starling_node::ids;
use starling_node::telemetry::Step;
use starling_node::telemetry::metrics::{AuthResult, Limit, Mechanism as Label};
use starling_store::AccountRow;
use starling_xmpp::sasl::{self, Credentials, Hash, Mechanism, PlainMessage, SaslFailure, ScramServer};
use starling_xmpp::stream::Event;
use starling_xmpp::{BareJid, Element, Jid, StreamCondition, ns};
use tokio::time::timeout;

/// Who has authenticated.
pub(super) struct Authenticated {
    pub(super) account: BareJid,
}

/// An exchange on its way.
struct Exchange<'a> {
    wire: &'a mut Wire,
    secured: &'a Secured,
    source: Source,
    /// Mechanisms this stream offers.
    offered: &'a [Mechanism],
}

/// How an exchange stopped.
enum Stop {
    /// The client binds to something that is not there (`tls-unique` on TLS 1.3), or believes that nothing is. It is
    /// refused before any proof was looked at, so that this does not count as an attempt: clients that know one
    /// binding only go through all mechanisms in this way and still find the one that works.
    Misfit,
    /// Answered with a failure; the stream goes on.
    Failed(SaslFailure),
    /// The client began another exchange in the middle of this one.
    Again(Element),
    /// The stream is over.
    End(End),
}

impl From<SaslFailure> for Stop {
    fn from(failure: SaslFailure) -> Self {
        Self::Failed(failure)
    }
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// Opens the stream, lets the client try, and restarts the stream after success.
pub(super) async fn authenticate(
    wire: &mut Wire,
    secured: &Secured,
    source: Source,
) -> Result<Authenticated, End> {
    header::open(wire, None).await?;
    let bound = !secured.bindings.is_empty();
    let offered: Vec<Mechanism> =
        wire.settings.mechanisms.iter().copied().filter(|mechanism| bound || !mechanism.is_plus()).collect();
    features::before_auth(wire, &offered, &secured.bindings);
    let mut failures = 0;
    let mut misfits = 0;
    let mut registered = register::Progress::default();
    let mut next: Option<Element> = None;
    loop {
        let auth = match next.take() {
            Some(auth) => auth,
            None => match wire.event().await? {
                Event::Nonza(element) if element.is(ns::SASL, "auth") => element,
                Event::Nonza(element) => {
                    other(wire, &element)?;
                    failures += 1;
                    continue;
                }
                Event::Stanza(incoming) if register::concerns(&incoming) => {
                    register::answer(wire, incoming, source, &mut registered).await?;
                    continue;
                }
                Event::Stanza(_) => return Err(StreamCondition::NotAuthorized.into()),
                _ => return Err(StreamCondition::BadFormat.into()),
            },
        };
        if failures >= wire.settings.limits.auth.attempts_per_stream || misfits > Mechanism::ALL.len() {
            wire.shared.telemetry.metrics.limits.at(Limit::AuthAttempts).inc();
            return Err(StreamCondition::PolicyViolation.into());
        }
        let mut span = wire.span(Step::Authenticate);
        let mechanism = auth.attribute("mechanism").and_then(Mechanism::parse);
        let mut exchange = Exchange { wire, secured, source, offered: &offered };
        let result = exchange.run(mechanism, &auth).await;
        count(wire, mechanism, &result);
        match result {
            Ok((account, data)) => {
                wire.say(&match data {
                    None => Element::new(ns::SASL, "success"),
                    Some(data) => Element::new(ns::SASL, "success").text(sasl::encode(&data)),
                });
                wire.flush().await?;
                wire.reader.restart();
                wire.reader.set_limits(wire.settings.after_auth);
                return Ok(Authenticated { account });
            }
            Err(Stop::Failed(failure)) => {
                span.fail(failure.as_str());
                failures += 1;
                say_failure(wire, failure);
            }
            Err(Stop::Misfit) => {
                span.fail(SaslFailure::NotAuthorized.as_str());
                misfits += 1;
                say_failure(wire, SaslFailure::NotAuthorized);
            }
            Err(Stop::Again(auth)) => {
                failures += 1;
                next = Some(auth);
            }
            Err(Stop::End(end)) => return Err(end),
        }
    }
}

/// A first-level element that is neither a stanza nor begins an exchange.
fn other(wire: &mut Wire, element: &Element) -> Result<(), End> {
    match (element.ns(), element.name()) {
        (ns::SASL, "abort") => say_failure(wire, SaslFailure::Aborted),
        (ns::SASL, "response") => say_failure(wire, SaslFailure::NotAuthorized),
        (ns::TLS, "starttls") => {
            // RFC 6120 §5.4.2.2; TLS is there already.
            wire.say_raw(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            return Err(End::Closed);
        }
        (ns::SM, _) => super::bind::say_sm_failed(wire, "unexpected-request"),
        _ => return Err(StreamCondition::UnsupportedStanzaType.into()),
    }
    Ok(())
}

fn say_failure(wire: &mut Wire, failure: SaslFailure) {
    wire.say(&Element::new(ns::SASL, "failure").child(Element::new(ns::SASL, failure.as_str())));
}

impl Exchange<'_> {
    /// From `<auth/>` to the account and the data of `<success/>`.
    async fn run(
        &mut self,
        mechanism: Option<Mechanism>,
        auth: &Element,
    ) -> Result<(BareJid, Option<Vec<u8>>), Stop> {
        let mechanism =
            mechanism.filter(|one| self.offered.contains(one)).ok_or(SaslFailure::InvalidMechanism)?;
        let text = auth.content();
        let first = if text.is_empty() {
            // No initial response, which is not an empty one: ask for it.
            self.wire.say(&Element::new(ns::SASL, "challenge"));
            self.response().await?
        } else {
            sasl::decode(&text)?
        };
        match mechanism {
            Mechanism::Plain => self.plain(&first).await.map(|account| (account, None)),
            Mechanism::Scram { hash, plus } => {
                self.scram(hash, plus, &first).await.map(|(account, data)| (account, Some(data)))
            }
        }
    }

    async fn plain(&mut self, message: &[u8]) -> Result<BareJid, Stop> {
        let message = PlainMessage::parse(message)?;
        let who = self.identify(&message.authcid, message.authzid.as_deref()).await?;
        let (credentials, password) = (who.credentials.clone(), message.password);
        let right = self.wire.shared.pool.run(move || credentials.verify_plain(&password)).await;
        match right {
            Ok(right) => self.judge(who, right),
            Err(_) => {
                self.wire.shared.telemetry.metrics.limits.at(Limit::AuthQueue).inc();
                Err(SaslFailure::TemporaryAuthFailure.into())
            }
        }
    }

    async fn scram(&mut self, hash: Hash, plus: bool, first: &[u8]) -> Result<(BareJid, Vec<u8>), Stop> {
        let plus_offered = self.offered.iter().any(|mechanism| mechanism.is_plus());
        let server = match ScramServer::start(hash, plus, &self.secured.bindings, plus_offered, first) {
            Ok(server) => server,
            Err(SaslFailure::NotAuthorized) => return Err(Stop::Misfit),
            Err(failure) => return Err(failure.into()),
        };
        let who = self.identify(server.username(), server.authzid()).await?;
        let (challenge, data) = server.challenge(&who.credentials, &ids::secret());
        self.wire.say(&Element::new(ns::SASL, "challenge").text(sasl::encode(&data)));
        let response = self.response().await?;
        match challenge.finish(&response) {
            Ok(data) => self.judge(who, true).map(|account| (account, data)),
            Err(SaslFailure::NotAuthorized) => self.judge(who, false).map(|account| (account, Vec::new())),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Finds the account that a user name means, and whether it may be tried now.
    async fn identify(&mut self, name: &str, authzid: Option<&str>) -> Result<Who, Stop> {
        let domain = self.wire.domain.clone().unwrap_or_default();
        let account = Jid::new(Some(name), &domain, None).ok().map(|jid| jid.to_bare());
        if let Some(authzid) = authzid {
            let own = account.as_ref().is_some_and(|account| {
                Jid::parse(authzid).is_ok_and(|asked| asked.is_bare() && asked.as_str() == account.as_str())
            });
            if !own {
                return Err(SaslFailure::InvalidAuthzid.into());
            }
        }
        let shared = self.wire.shared.clone();
        let limits = &shared.telemetry.metrics.limits;
        let key = account.as_ref().map_or(name, |account| account.as_str()).to_owned();
        match shared.throttle.judge(self.source, &key) {
            Verdict::Go => {}
            Verdict::Wait(delay, ticket) => {
                limits.at(Limit::AuthFailuresAccount).inc();
                tokio::time::sleep(delay).await;
                drop(ticket);
            }
            Verdict::Refuse => {
                limits.at(Limit::AuthFailuresIp).inc();
                return Err(SaslFailure::TemporaryAuthFailure.into());
            }
        }
        let row = match &account {
            Some(account) => timeout(PATIENCE, shared.router.account(account))
                .await
                .ok()
                .and_then(Result::ok)
                .ok_or(SaslFailure::TemporaryAuthFailure)?,
            None => None,
        };
        // Made for those who exist too: how long this takes must not tell who does not.
        let fake = Credentials::fake(&shared.secret, &key, self.wire.settings.iterations);
        let credentials = row.as_ref().map_or(fake, |row| row.credentials.clone());
        Ok(Who { account, key, row, credentials })
    }

    /// The end of an exchange whose proof was right or wrong.
    fn judge(&self, who: Who, right: bool) -> Result<BareJid, Stop> {
        let throttle = &self.wire.shared.throttle;
        match (who.account, who.row, right) {
            (Some(account), Some(row), true) => {
                throttle.succeeded(self.source, &who.key);
                if row.disabled { Err(SaslFailure::AccountDisabled.into()) } else { Ok(account) }
            }
            _ => {
                throttle.failed(self.source, &who.key);
                Err(SaslFailure::NotAuthorized.into())
            }
        }
    }

    /// Waits for the client's next message.
    async fn response(&mut self) -> Result<Vec<u8>, Stop> {
        match self.wire.event().await? {
            Event::Nonza(element) if element.ns() == ns::SASL => match element.name() {
                "response" => Ok(sasl::decode(&element.content()).or_else(|failure| {
                    if element.content().is_empty() { Ok(Vec::new()) } else { Err(failure) }
                })?),
                "abort" => Err(SaslFailure::Aborted.into()),
                "auth" => Err(Stop::Again(element)),
                _ => Err(SaslFailure::MalformedRequest.into()),
            },
            Event::Stanza(_) => Err(End::from(StreamCondition::NotAuthorized).into()),
            Event::Nonza(_) => Err(End::from(StreamCondition::UnsupportedStanzaType).into()),
            _ => Err(End::from(StreamCondition::BadFormat).into()),
        }
    }
}

/// Whom an exchange is about: an account, or what looks like one from outside.
struct Who {
    /// `None` for a name that cannot be one.
    account: Option<BareJid>,
    /// What failures are counted by.
    key: String,
    /// `None` where there is no such account.
    row: Option<AccountRow>,
    credentials: Credentials,
}

fn count(wire: &Wire, mechanism: Option<Mechanism>, result: &Result<(BareJid, Option<Vec<u8>>), Stop>) {
    let label = match mechanism {
        None => Label::Other,
        Some(Mechanism::Plain) => Label::Plain,
        Some(Mechanism::Scram { hash: Hash::Sha1, plus: false }) => Label::ScramSha1,
        Some(Mechanism::Scram { hash: Hash::Sha1, plus: true }) => Label::ScramSha1Plus,
        Some(Mechanism::Scram { hash: Hash::Sha256, plus: false }) => Label::ScramSha256,
        Some(Mechanism::Scram { hash: Hash::Sha256, plus: true }) => Label::ScramSha256Plus,
        Some(Mechanism::Scram { hash: Hash::Sha512, plus: false }) => Label::ScramSha512,
        Some(Mechanism::Scram { hash: Hash::Sha512, plus: true }) => Label::ScramSha512Plus,
    };
    let result = match result {
        Ok(_) => AuthResult::Ok,
        Err(Stop::Failed(SaslFailure::NotAuthorized | SaslFailure::AccountDisabled)) => {
            AuthResult::NotAuthorized
        }
        Err(Stop::Failed(SaslFailure::TemporaryAuthFailure)) => AuthResult::Temporary,
        Err(Stop::Failed(_) | Stop::Misfit | Stop::Again(_)) => AuthResult::Malformed,
        Err(Stop::End(_)) => return,
    };
    wire.shared.telemetry.metrics.auth.at(label, result).inc();
}
