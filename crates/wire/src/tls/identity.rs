//! Whom a certificate names.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a process of a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It has homes.
    Router,
    /// It has sockets.
    Edge,
}

impl Role {
    /// As it stands in certificates.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Edge => "edge",
        }
    }
}

/// A place in a cluster. Its text form is the URI in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Name of the cluster.
    pub cluster: String,
    /// What it is there.
    pub role: Role,
    /// Its name, or `*` for any.
    pub name: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "starling://{}/{}/{}", self.cluster, self.role.as_str(), self.name)
    }
}

impl Identity {
    /// One whose parts can stand in a URI: letters, digits, `-`, `_` and `.`, up to 255 of them, and `*` alone as name.
    pub fn new(cluster: &str, role: Role, name: &str) -> Option<Self> {
        let fine = |part: &str| {
            (1..=255).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        (fine(cluster) && (fine(name) || name == "*")).then(|| Self {
            cluster: cluster.to_owned(),
            role,
            name: name.to_owned(),
        })
    }

    /// Reads its text form.
    pub fn parse(uri: &str) -> Option<Self> {
        let mut parts = uri.strip_prefix("starling://")?.split('/');
        let (cluster, role, name) = (parts.next()?, parts.next()?, parts.next()?);
        let role = match role {
            "router" => Role::Router,
            "edge" => Role::Edge,
            _ => return None,
        };
        if parts.next().is_some() {
            return None;
        }
        Self::new(cluster, role, name)
    }

    /// Whether it may call itself so.
    pub fn allows(&self, name: &str) -> bool {
        self.name == "*" || self.name == name
    }

    /// The one that a certificate names. The error is a reason to show to the operator.
    pub(crate) fn of(der: &[u8]) -> Result<Self, String> {
        let (_, cert) =
            X509Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
        let names = cert.subject_alternative_name().map_err(|error| format!("bad names: {error}"))?;
        let mut found =
            names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
                GeneralName::URI(uri) if uri.starts_with("starling:") => Some(*uri),
                _ => None,
            });
        match (found.next(), found.next()) {
            (Some(uri), None) => {
                Self::parse(uri).ok_or_else(|| format!("the name {uri:?} cannot be understood"))
            }
            (None, _) => {
                Err("the certificate has no name of the form starling://CLUSTER/ROLE/NAME".to_owned())
            }
            (Some(_), Some(_)) => Err("the certificate has more than one starling:// name".to_owned()),
        }
    }
}

/// End of a certificate, seconds since the Unix epoch; 0 if it is none.
pub(super) fn not_after(der: &[u8]) -> u64 {
    let cert = X509Certificate::from_der(der).ok();
    cert.and_then(|(_, cert)| u64::try_from(cert.validity().not_after.timestamp()).ok()).unwrap_or_default()
}
