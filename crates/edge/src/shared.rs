//! What all connections of an edge share.

use crate::gate::Gate;
use crate::hash_pool::HashPool;
use crate::table::EdgeTable;
use crate::throttle::Throttle;
use crate::tls::Certificates;
use arc_swap::ArcSwap;
use starling_node::config::Limits;
use starling_node::{Config, SharedClock, Shutdown, Telemetry};
use starling_wire::RouterLink;
use starling_xmpp::Element;
use starling_xmpp::sasl::Mechanism;
use starling_xmpp::stream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub(crate) struct Shared {
    /// Replaced by a reload; a stream that is being negotiated keeps what it began with until its session begins.
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) tls: Arc<rustls::ServerConfig>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) registrations: crate::registrations::Registrations,
    pub(crate) pool: HashPool,
    pub(crate) table: Arc<EdgeTable>,
    pub(crate) router: Arc<dyn RouterLink>,
    pub(crate) telemetry: Telemetry,
    pub(crate) clock: SharedClock,
    pub(crate) shutdown: Shutdown,
    /// Triggered when no new connection is to be accepted.
    pub(crate) doors: Shutdown,
    /// The edge is about to leave: nobody should be sent here any more.
    pub(crate) leaving: AtomicBool,
    /// From which unknown accounts get their salt: the same on every edge.
    pub(crate) secret: [u8; 32],
    /// Stream features after authentication that others bring.
    pub(crate) features: ArcSwap<Vec<Element>>,
}

/// The part of the configuration that connections read.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Canonical names; the first is the default.
    pub(crate) domains: Vec<String>,
    pub(crate) mechanisms: Vec<Mechanism>,
    pub(crate) iterations: u32,
    pub(crate) registration: bool,
    /// Where clients are sent that cannot resume when the edge leaves.
    pub(crate) see_other_host: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) before_auth: stream::Limits,
    pub(crate) after_auth: stream::Limits,
}

impl Settings {
    /// From the configuration, or the domain that is none.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let domains = config
            .domains
            .iter()
            .map(|name| starling_xmpp::jid::domain(name).map_err(|error| format!("domain {name:?}: {error}")))
            .collect::<Result<Vec<_>, _>>()?;
        let xml = &config.limits.xml;
        let mut after_auth = stream::Limits::c2s();
        after_auth.stanza_bytes = xml.c2s.max_stanza_bytes;
        after_auth.depth = narrow(xml.max_depth);
        after_auth.attributes = narrow(xml.max_attrs);
        after_auth.namespaces = narrow(xml.max_ns_decls);
        after_auth.name_bytes = narrow(xml.max_name_len);
        after_auth.attribute_bytes = xml.max_attr_value_len;
        after_auth.elements = u32::try_from(xml.max_elements).unwrap_or(u32::MAX);
        let mut before_auth = after_auth;
        before_auth.answer_oversize = false;
        before_auth.stanza_bytes = xml.pre_auth.max_stanza_bytes;
        before_auth.elements = u32::try_from(xml.pre_auth.max_elements).unwrap_or(u32::MAX);
        before_auth.attribute_bytes = before_auth.attribute_bytes.min(xml.pre_auth.max_stanza_bytes);
        Ok(Self {
            domains,
            mechanisms: config.auth.mechanisms.iter().filter_map(|name| Mechanism::parse(name)).collect(),
            iterations: config.auth.iterations,
            registration: config.registration.enabled,
            see_other_host: config.drain.see_other_host.clone(),
            limits: config.limits.clone(),
            before_auth,
            after_auth,
        })
    }

    /// Whether a canonical domain is served here.
    pub(crate) fn serves(&self, domain: &str) -> bool {
        self.domains.iter().any(|served| served == domain)
    }
}

fn narrow(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
