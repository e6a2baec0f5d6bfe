//! All settings but the limits.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    section::{Key, Reader, Section, section},
    suggest,
    value::{Any, Value, choice},
};
use crate::listen::Listen;

section! {
    /// Addresses to listen on: `"ip:port"`, a list of them, or `"off"`. Port 0 takes any free port, which is
    /// printed at the start.
    pub struct Listeners {
        /// Clients, with STARTTLS.
        c2s: Listen = everywhere(5222);
        /// Clients, with TLS from the first byte (XEP-0368).
        c2s_tls: Listen = everywhere(5223);
        /// Probes and metrics. They need no password: keep it private.
        admin: Listen = Listen(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 5290))]);
        /// Edges and other routers, at a router. They need certificates of the cluster.
        cluster: Listen = Listen(vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5270))]);
    }
}

fn everywhere(port: u16) -> Listen {
    Listen(vec![
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    ])
}

section! {
    /// Certificates. Without any, one that nobody trusts is made in `data_dir` at the first start. All of this
    /// may be changed by a reload, which does not disturb open streams.
    pub struct Tls {
        /// Certificate chain in PEM form, for every domain that has none of its own.
        cert: Option<PathBuf> = None;
        /// The private key of `tls.cert` in PEM form.
        key: Option<PathBuf> = None;
    }
    with {
        /// Certificates of single domains.
        domains: DomainCertificates;
    }
}

/// A certificate and its key, as files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateFiles {
    /// Certificate chain in PEM form.
    pub cert: Option<PathBuf>,
    /// Private key in PEM form.
    pub key: Option<PathBuf>,
}

/// Certificates of single domains: `tls.domains."example.org" = { cert = "…", key = "…" }`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DomainCertificates(pub BTreeMap<String, CertificateFiles>);

impl Section for DomainCertificates {
    fn describe(prefix: &str, into: &mut Vec<Key>) {
        for (name, what) in [("cert", "Certificate chain in PEM form"), ("key", "Private key in PEM form")] {
            into.push(Key {
                path: format!("{prefix}.<domain>.{name}"),
                text: format!("{what} for this domain alone."),
                default: "\"\"".to_owned(),
                takes: Option::<PathBuf>::TAKES,
                bounds: String::new(),
            });
        }
    }

    fn read(&mut self, prefix: &str, from: &mut Reader) {
        let prefix: Vec<&str> = prefix.split('.').collect();
        for domain in from.names_below(&prefix) {
            let files = self.0.entry(domain.clone()).or_default();
            for (name, slot) in [("cert", &mut files.cert), ("key", &mut files.key)] {
                let mut segments: Vec<String> = prefix.iter().map(|segment| (*segment).to_owned()).collect();
                segments.extend([domain.clone(), name.to_owned()]);
                from.take_at(&segments, &suggest::shown(&segments), slot, &Any);
            }
        }
    }

    fn values(&self, prefix: &str, into: &mut Vec<(String, String)>) {
        for (domain, files) in &self.0 {
            let mut segments: Vec<String> = prefix.split('.').map(str::to_owned).collect();
            segments.push(domain.clone());
            let shown = suggest::shown(&segments);
            into.push((format!("{shown}.cert"), files.cert.show()));
            into.push((format!("{shown}.key"), files.key.show()));
        }
    }
}

section! {
    /// In-band registration (XEP-0077).
    pub struct Registration {
        /// Whether anybody may make an account. Password change and removal by the owner work either way.
        enabled: bool = false;
    }
}

section! {
    /// Authentication.
    pub struct Auth {
        /// Rounds of PBKDF2 for new passwords. Each login by PLAIN costs as much; SCRAM costs the client.
        iterations: u32 = 10_000, in 4_096..=10_000_000;
        /// SASL mechanisms on offer, best first.
        mechanisms: Vec<String> = MECHANISMS.iter().map(|name| (*name).to_owned()).collect(), in known_mechanisms();
    }
}

/// Every mechanism there is, best first.
const MECHANISMS: [&str; 7] = [
    "SCRAM-SHA-512-PLUS",
    "SCRAM-SHA-512",
    "SCRAM-SHA-256-PLUS",
    "SCRAM-SHA-256",
    "SCRAM-SHA-1-PLUS",
    "SCRAM-SHA-1",
    "PLAIN",
];

fn known_mechanisms() -> fn(&Vec<String>) -> Result<(), String> {
    |names| {
        if names.is_empty() {
            return Err("nobody could log in".to_owned());
        }
        match names.iter().find(|name| !MECHANISMS.contains(&name.as_str())) {
            Some(name) => Err(format!("{name:?} is not one of {}", MECHANISMS.join(", "))),
            None => Ok(()),
        }
    }
}

section! {
    /// Client sessions.
    pub struct Session {
        /// When a client binds a resource that is online: "replace" closes the older session, "refuse" the newer.
        conflict: Conflict = Conflict::Replace;
    }
}

choice! {
    /// Who stays when two sessions want one resource (RFC 6120 §7.7.2.2).
    pub enum Conflict {
        /// The newer one; the older gets the stream error `conflict`.
        #[default]
        Replace = "replace",
        /// The older one; the newer gets the stanza error `conflict`.
        Refuse = "refuse",
    }
    takes "\"replace\" or \"refuse\""
}

section! {
    /// Message archive (XEP-0313).
    pub struct Archive {
        /// What is archived for accounts that have not chosen: "always", "roster" (contacts only) or "never".
        default: ArchiveDefault = ArchiveDefault::Always;
        /// Days after which a message is forgotten.
        max_age_days: Option<u64> = None, in 1..=36_500;
        /// Messages of one account; the oldest are forgotten first.
        max_rows_per_account: Option<u64> = Some(1_000_000), in 100..=10_000_000_000;
    }
}

choice! {
    /// The default archiving preference (XEP-0313, later XEP-0441).
    pub enum ArchiveDefault {
        /// Every message.
        #[default]
        Always = "always",
        /// None.
        Never = "never",
        /// Messages with contacts.
        Roster = "roster",
    }
    takes "\"always\", \"roster\" or \"never\""
}

section! {
    /// Homes of the accounts.
    pub struct Router {
        /// Threads that decide; "auto" is one per core, at most 4.
        workers: Option<usize> = None, in 1..=256;
    }
}

impl Router {
    /// How many threads decide.
    pub fn worker_count(&self) -> usize {
        self.workers
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4)))
    }
}

section! {
    /// Logs, traces and metrics.
    pub struct TelemetrySettings {
        /// Where to send spans by OTLP/gRPC, e.g. "http://127.0.0.1:4317". Empty sends none, unless the standard
        /// `OTEL_*` variables name an endpoint.
        otlp_endpoint: Endpoint = Endpoint::default();
        /// New traces of the whole process, however many stanzas there are.
        traces_per_second: u32 = 20, in 0..=1_000_000;
        /// Spans that wait for the exporter; more are dropped and counted.
        queue: usize = 8_192, in 512..=1_048_576;
    }
    with {
        /// How many stanzas are traced.
        sample: Sample;
        /// Logs.
        log: Log;
    }
}

/// An address that may hold a password, which is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Endpoint(pub Option<String>);

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.show())
    }
}

impl Value for Endpoint {
    const TAKES: &'static str = "an address such as \"http://127.0.0.1:4317\"";

    fn parse(input: &super::value::Input<'_>, _: &Self) -> Result<Self, String> {
        match input.text() {
            Some("") => Ok(Self(None)),
            Some(text) if text.starts_with("http://") || text.starts_with("https://") => {
                Ok(Self(Some(text.to_owned())))
            }
            _ => Err("it does not begin with http:// or https://".to_owned()),
        }
    }

    fn show(&self) -> String {
        let text = self.0.as_deref().unwrap_or_default();
        let masked = match (text.find("://"), text.rfind('@')) {
            (Some(scheme), Some(at)) if scheme < at => format!("{}://***{}", &text[..scheme], &text[at..]),
            _ => text.to_owned(),
        };
        masked.show()
    }
}

section! {
    /// How many stanzas are traced: 0.01 is one in a hundred.
    pub struct Sample {
        /// Part of messages that is traced. The standard variable `OTEL_TRACES_SAMPLER` wins over all four.
        message: f64 = 0.001, in 0.0..=1.0;
        /// Part of IQ stanzas that is traced.
        iq: f64 = 0.001, in 0.0..=1.0;
        /// Part of presence that is traced.
        presence: f64 = 0.000_01, in 0.0..=1.0;
        /// Part of logins that is traced.
        login: f64 = 0.01, in 0.0..=1.0;
    }
}

section! {
    /// Logs.
    pub struct Log {
        /// What is logged: a level (error, warn, info, debug, trace), or directives such as
        /// "info,starling_edge=debug". May be changed by a reload.
        level: String = "info".to_owned(), in log_level();
        /// "human", "json", or "auto": human on a terminal, JSON elsewhere.
        format: LogFormat = LogFormat::Auto;
    }
}

fn log_level() -> fn(&String) -> Result<(), String> {
    |level| match tracing_subscriber::EnvFilter::try_new(level) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

choice! {
    /// The form of log lines.
    pub enum LogFormat {
        /// Human on a terminal, JSON elsewhere.
        #[default]
        Auto = "auto",
        /// For people.
        Human = "human",
        /// One JSON object per line.
        Json = "json",
    }
    takes "\"auto\", \"human\" or \"json\""
}

section! {
    /// Leaving.
    pub struct ShutdownSettings {
        /// How long clients and writes have to end after SIGTERM.
        grace: Duration = Duration::from_secs(10), in Duration::from_millis(100)..=Duration::from_secs(3_600);
    }
}
