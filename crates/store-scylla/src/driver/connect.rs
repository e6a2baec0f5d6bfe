//! A session: nodes found, connections open, the local datacenter known.

use super::{
    tls::{self, TlsError},
    wary::Wary,
};
use crate::migrations::Refusal;
use crate::options::{Options, OptionsError};
use crate::schema::Dialect;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::client::{PoolSize, SelfIdentity};
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, MetadataError,
    MetadataFetchErrorKind, NewSessionError, RequestAttemptError,
};
use scylla::frame::types::{Consistency, SerialConsistency};
use scylla::policies::host_filter::DcHostFilter;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::FallthroughRetryPolicy;
use std::collections::BTreeMap;
use std::{num::NonZeroUsize, sync::Arc, time::Duration};

/// Why no session could be made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The options contradict themselves.
    #[error("store.{0}")]
    Options(#[from] OptionsError),
    /// Files for TLS are not what they should be.
    #[error("store.tls.{0}")]
    Tls(#[from] TlsError),
    /// No contact point answers.
    #[error("no CQL server answers at {at}: {reason}")]
    Unreachable {
        /// The contact points.
        at: String,
        /// What the last one failed with.
        reason: String,
    },
    /// A server answers and does not let us in.
    #[error("the CQL server refuses the login: {0}")]
    Login(String),
    /// There is no such datacenter, or several and none is named.
    #[error("{0}")]
    Datacenter(String),
    /// The schema is not the one that this server works with.
    #[error("{0}")]
    Schema(Refusal),
    /// The role lacks a permission.
    #[error("the role is not permitted: {0}")]
    Denied(String),
    /// Something else failed.
    #[error("the CQL server cannot be used: {0}")]
    Other(String),
}

/// A session, and what is known of the server.
#[derive(Debug)]
pub struct Connection {
    pub(crate) session: Session,
    pub(crate) dialect: Dialect,
    /// Whose LOCAL_QUORUM it is.
    pub(crate) datacenter: String,
    /// Nodes by datacenter.
    pub(crate) datacenters: BTreeMap<String, usize>,
}

impl Connection {
    /// Finds the nodes and connects to those of the local datacenter.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(options: &Options) -> Result<Self, ConnectError> {
        options.check()?;
        let named = options.local_datacenter.clone();
        let session = session(options, named.as_deref()).await?;
        let datacenters = datacenters(&session);
        let datacenter = match named {
            Some(name) if datacenters.contains_key(&name) => name,
            Some(name) => {
                let there: Vec<&str> = datacenters.keys().map(String::as_str).collect();
                let there = there.join(", ");
                return Err(ConnectError::Datacenter(format!(
                    "there is no datacenter {name}: store.local_datacenter must be one of {there}"
                )));
            }
            None => only(&datacenters)?,
        };
        let dialect = dialect(&session).await?;
        Ok(Self { session, dialect, datacenter, datacenters })
    }

    /// What answers.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whose LOCAL_QUORUM it is.
    pub fn datacenter(&self) -> &str {
        &self.datacenter
    }

    /// How many nodes the local datacenter has, and how many of them are connected.
    pub(crate) fn nodes(&self) -> (usize, usize) {
        let state = self.session.get_cluster_state();
        let local = |name: &Option<String>| name.as_deref() == Some(self.datacenter());
        let nodes = state.get_nodes_info().iter().filter(|node| local(&node.datacenter));
        nodes.fold((0, 0), |(all, up), node| (all + 1, up + usize::from(node.is_connected())))
    }
}

async fn session(options: &Options, datacenter: Option<&str>) -> Result<Session, ConnectError> {
    let mut policy = DefaultPolicy::builder().token_aware(true);
    let mut builder = SessionBuilder::new();
    if let Some(name) = datacenter {
        policy = policy.prefer_datacenter(name.to_owned()).permit_dc_failover(false);
        builder = builder.host_filter(Arc::new(DcHostFilter::new(name.to_owned())));
    }
    // Trying again is decided above, where it is known what may be done twice and how often.
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(options.attempt_timeout))
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
        .load_balancing_policy(Arc::new(Wary::over(policy.build())))
        .build();
    let identity = SelfIdentity::new()
        .with_application_name("starling")
        .with_application_version(env!("CARGO_PKG_VERSION"));
    let connections = NonZeroUsize::new(options.connections).unwrap_or(NonZeroUsize::MIN);
    builder = builder
        .known_nodes(options.contact_points.iter().map(|point| with_port(point)))
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(options.connect_timeout)
        .pool_size(PoolSize::PerShard(connections))
        .keepalive_interval(options.keep_alive)
        .keepalive_timeout(options.keep_alive)
        .tcp_nodelay(true)
        .hostname_resolution_timeout(Some(options.connect_timeout))
        .metadata_request_serverside_timeout(options.attempt_timeout.max(METADATA))
        .metadata_request_clientside_timeout(options.attempt_timeout.max(METADATA).saturating_add(MARGIN))
        // Only what routing needs, of our own tables.
        .keyspaces_to_fetch([options.keyspace.as_str()])
        .fetch_full_schema_metadata(false)
        .schema_agreement_timeout(AGREEMENT)
        .custom_identity(identity)
        .driver_config_reporting(false);
    if let Some(name) = &options.username {
        builder = builder.user(name.as_str(), options.password.reveal());
    }
    if let Some(tls) = &options.tls {
        builder = builder.tls_context(Some(tls::config(tls)?));
    }
    // Each step has its own limit; this one is for all of them, over all contact points.
    let limit = options.connect_timeout.saturating_mul(4).saturating_add(METADATA + MARGIN);
    match tokio::time::timeout(limit, builder.build()).await {
        Ok(Ok(session)) => Ok(session),
        Ok(Err(error)) => Err(refused(options, &error)),
        Err(_) => Err(unreachable(options, format!("no session within {} s", limit.as_secs()))),
    }
}

/// A node that keeps metadata to itself for longer than this is not one to begin with.
const METADATA: Duration = Duration::from_secs(2);

/// ScyllaDB is told how long it may take. It is to say by itself that it has failed, and why, before it is given up.
const MARGIN: Duration = Duration::from_secs(1);

/// How long nodes may take to agree on a schema.
pub(crate) const AGREEMENT: Duration = Duration::from_secs(60);

fn unreachable(options: &Options, reason: String) -> ConnectError {
    if reason.contains("CertificateRequired") {
        let text = "it wants a certificate: set store.tls.cert and store.tls.key";
        return ConnectError::Login(text.to_owned());
    }
    if reason.contains("certificate") || reason.contains("fatal alert") {
        return ConnectError::Other(format!("TLS fails: {reason}"));
    }
    ConnectError::Unreachable { at: options.contact_points.join(", "), reason }
}

fn refused(options: &Options, error: &NewSessionError) -> ConnectError {
    match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
            last_connection_error,
        })) => match login(last_connection_error) {
            Some(reason) => ConnectError::Login(reason),
            None => unreachable(options, innermost(last_connection_error)),
        },
        NewSessionError::MetadataError(MetadataError::FetchError(fetch)) => match &fetch.error {
            MetadataFetchErrorKind::PrepareError(RequestAttemptError::DbError(DbError::Unauthorized, _)) => {
                ConnectError::Login(format!("this role may not read {}", fetch.table))
            }
            error => unreachable(options, innermost(error)),
        },
        NewSessionError::FailedToResolveAnyHostname(_) => {
            unreachable(options, "no contact point has an address".to_owned())
        }
        error => unreachable(options, innermost(error)),
    }
}

/// What a refused login was refused for, if that is what it was.
fn login(error: &ConnectionError) -> Option<String> {
    let ConnectionError::ConnectionSetupRequestError(setup) = error else { return None };
    match setup.get_error() {
        ConnectionSetupRequestErrorKind::MissingAuthentication => {
            Some("it asks for a name and a password: set store.username and store.password_file".to_owned())
        }
        ConnectionSetupRequestErrorKind::DbError(
            DbError::AuthenticationError | DbError::Unauthorized | DbError::ServerError,
            _,
        ) => Some("name or password is wrong".to_owned()),
        ConnectionSetupRequestErrorKind::StartAuthSessionError(_)
        | ConnectionSetupRequestErrorKind::AuthChallengeEvaluationError(_)
        | ConnectionSetupRequestErrorKind::AuthFinishError(_) => {
            Some("it wants a way of logging in that is not known here".to_owned())
        }
        _ => None,
    }
}

/// The error at the bottom, which says what happened; those above it say where in the driver.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    // Some keep what is below them in their text only.
    let text = deepest.to_string();
    let text = text.rsplit("reason: ").next().unwrap_or_default();
    text.rsplit("Failed to read the frame header: ").next().unwrap_or_default().to_owned()
}

fn datacenters(session: &Session) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for node in session.get_cluster_state().get_nodes_info() {
        if let Some(name) = &node.datacenter {
            *found.entry(name.clone()).or_default() += 1;
        }
    }
    found
}

/// The only one there is. Of several, none is taken by guess: what a quorum is worth ends at its datacenter.
fn only(datacenters: &BTreeMap<String, usize>) -> Result<String, ConnectError> {
    let mut names = datacenters.keys();
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.clone()),
        (None, _) => Err(ConnectError::Datacenter("no node says which datacenter it is in".to_owned())),
        _ => {
            let there: Vec<&str> = datacenters.keys().map(String::as_str).collect();
            let there = there.join(", ");
            Err(ConnectError::Datacenter(format!(
                "there are several datacenters: set store.local_datacenter to one of {there}, the same for all servers"
            )))
        }
    }
}

fn with_port(point: &str) -> String {
    let bare_v6 = point.matches(':').count() > 1 && !point.starts_with('[');
    match point.rsplit_once(':') {
        _ if bare_v6 => format!("[{point}]:9042"),
        Some((host, port)) if !host.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            point.to_owned()
        }
        _ => format!("{point}:9042"),
    }
}

/// ScyllaDB says so in a table that Cassandra does not have.
async fn dialect(session: &Session) -> Result<Dialect, ConnectError> {
    let state = session.get_cluster_state();
    if state.get_nodes_info().iter().any(|node| node.sharder().is_some()) {
        return Ok(Dialect::Scylla);
    }
    let text = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'system' AND table_name = 'scylla_local'";
    let answer = session.query_unpaged(text, ()).await;
    let rows = answer.map_err(|error| ConnectError::Other(innermost(&error)))?.into_rows_result();
    let found = rows.map_err(|error| ConnectError::Other(innermost(&error)))?.rows_num();
    Ok(if found > 0 { Dialect::Scylla } else { Dialect::Cassandra })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_datacenters_none_is_guessed() {
        let of = |names: &[&str]| only(&names.iter().map(|name| ((*name).to_owned(), 3)).collect());
        assert_eq!(of(&["dc1"]).unwrap(), "dc1");
        let error = of(&["dc1", "dc2"]).unwrap_err().to_string();
        assert!(error.contains("store.local_datacenter to one of dc1, dc2"), "{error}");
        assert!(matches!(of(&[]), Err(ConnectError::Datacenter(_))));
    }

    #[test]
    fn a_port_is_added_where_there_is_none() {
        for (point, whole) in [
            ("10.0.0.1", "10.0.0.1:9042"),
            ("10.0.0.1:9142", "10.0.0.1:9142"),
            ("cql.example.net", "cql.example.net:9042"),
            ("[::1]:9142", "[::1]:9142"),
            ("[::1]", "[::1]:9042"),
            ("::1", "[::1]:9042"),
        ] {
            assert_eq!(with_port(point), whole);
        }
    }
}
