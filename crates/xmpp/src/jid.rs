//! XMPP addresses (RFC 7622), always in their canonical form.
//!
//! There is no way to hold an address that was not enforced: every constructor runs the whole of the rules, so two
//! addresses are the same entity exactly when their bytes are equal. An address is one shared string and two offsets:
//! cloning is a reference count, and plain ASCII costs one allocation and no Unicode table.

mod domain;
mod fast;
mod parts;
mod precis;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

pub use domain::domain;
pub use precis::{prepare_local, prepare_resource};

/// The most octets that one part of an address may have, in canonical form (RFC 7622 §3.2–3.4).
pub const MAX_PART: usize = 1023;

/// The most octets that a whole address may have, separators included.
pub const MAX_JID: usize = 3 * MAX_PART + 2;

/// The most octets of one part as it is written by a peer: width mapping and composition shrink a part to a third at
/// most, and nothing longer is looked at.
pub(crate) const MAX_RAW_PART: usize = 3 * MAX_PART;

/// Why a string is not an address. It never holds the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JidError {
    /// There is an `@` with nothing in front of it.
    #[error("the localpart is empty")]
    EmptyLocal,
    /// There is no domain.
    #[error("the domainpart is empty")]
    EmptyDomain,
    /// There is a `/` with nothing after it.
    #[error("the resourcepart is empty")]
    EmptyResource,
    /// A part has more than [`MAX_PART`] octets.
    #[error("a part of the address is too long")]
    TooLong,
    /// The localpart breaks the `UsernameCaseMapped` profile or has an excluded character.
    #[error("the localpart is not allowed")]
    Local,
    /// The domainpart is no name by IDNA and no IP address.
    #[error("the domainpart is not allowed")]
    Domain,
    /// The resourcepart breaks the `OpaqueString` profile, or there is one where a bare address is wanted, or none
    /// where a full one is.
    #[error("the resourcepart is not allowed")]
    Resource,
}

/// An address: `domain`, `local@domain`, either with `/resource`. Equality, order and hash are those of the string.
#[derive(Clone)]
pub struct Jid {
    text: Arc<str>,
    /// Octets of the localpart; 0 when there is none.
    local: u16,
    /// Octets of the bare address.
    bare: u16,
}

/// An address without resource: an account, a room, or a server.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BareJid(Jid);

/// An address with a resource: one session, one occupant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FullJid(Jid);

impl Jid {
    /// Parses and enforces an address (RFC 7622 §3.1: the first `/` ends the bare part, the first `@` before it ends
    /// the localpart).
    ///
    /// # Errors
    /// The part that breaks the rules.
    pub fn parse(s: &str) -> Result<Self, JidError> {
        if let Some(jid) = fast::parse(s) {
            return Ok(jid);
        }
        let (local, domain, resource) = parts::split(s);
        Self::new(local, domain, resource)
    }

    /// Makes an address of its parts, each of which is enforced.
    ///
    /// # Errors
    /// The part that breaks the rules.
    pub fn new(local: Option<&str>, domain: &str, resource: Option<&str>) -> Result<Self, JidError> {
        let local = local.map(precis::local).transpose()?;
        let domain = domain::enforce(domain)?;
        let resource = resource.map(precis::resource).transpose()?;
        Ok(Self::assemble(local.as_deref(), &domain, resource.as_deref()))
    }

    /// Puts canonical parts together. The parts are within [`MAX_PART`], so the offsets fit.
    fn assemble(local: Option<&str>, domain: &str, resource: Option<&str>) -> Self {
        let bare = local.map_or(0, |local| local.len() + 1) + domain.len();
        let mut text = String::with_capacity(bare + resource.map_or(0, |resource| resource.len() + 1));
        if let Some(local) = local {
            text.push_str(local);
            text.push('@');
        }
        text.push_str(domain);
        if let Some(resource) = resource {
            text.push('/');
            text.push_str(resource);
        }
        Self { text: Arc::from(text), local: local.map_or(0, str::len) as u16, bare: bare as u16 }
    }

    /// The localpart.
    pub fn local(&self) -> Option<&str> {
        match self.local {
            0 => None,
            end => Some(&self.text[..usize::from(end)]),
        }
    }

    /// The domainpart.
    pub fn domain(&self) -> &str {
        let start = match self.local {
            0 => 0,
            end => usize::from(end) + 1,
        };
        &self.text[start..usize::from(self.bare)]
    }

    /// The resourcepart.
    pub fn resource(&self) -> Option<&str> {
        self.text.get(usize::from(self.bare) + 1..)
    }

    /// The whole canonical string.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The canonical string up to the resource.
    pub fn bare_str(&self) -> &str {
        &self.text[..usize::from(self.bare)]
    }

    /// Whether there is no resource.
    pub fn is_bare(&self) -> bool {
        self.text.len() == usize::from(self.bare)
    }

    /// Whether this is a domain and nothing else.
    pub fn is_domain_only(&self) -> bool {
        self.local == 0 && self.is_bare()
    }

    /// The address without its resource.
    pub fn to_bare(&self) -> BareJid {
        if self.is_bare() {
            return BareJid(self.clone());
        }
        BareJid(Self { text: Arc::from(self.bare_str()), local: self.local, bare: self.bare })
    }

    /// The address as a full one, if it has a resource.
    pub fn to_full(&self) -> Option<FullJid> {
        (!self.is_bare()).then(|| FullJid(self.clone()))
    }

    /// The domain alone, as an address.
    pub fn to_domain(&self) -> BareJid {
        if self.is_domain_only() {
            return BareJid(self.clone());
        }
        let domain = self.domain();
        BareJid(Self { text: Arc::from(domain), local: 0, bare: domain.len() as u16 })
    }

    /// Whether both are the same without their resources.
    pub fn same_bare(&self, other: &Self) -> bool {
        self.bare_str() == other.bare_str()
    }
}

impl BareJid {
    /// Parses an address that must not have a resource.
    ///
    /// # Errors
    /// The part that breaks the rules; [`JidError::Resource`] if there is one.
    pub fn parse(s: &str) -> Result<Self, JidError> {
        Self::try_from(Jid::parse(s)?)
    }

    /// Makes the full address of one of its resources.
    ///
    /// # Errors
    /// The resource is empty, too long, or breaks the `OpaqueString` profile.
    pub fn with_resource(&self, resource: &str) -> Result<FullJid, JidError> {
        let resource = precis::resource(resource)?;
        Ok(FullJid(Jid::assemble(self.local(), self.domain(), Some(&resource))))
    }

    /// The address in its general type.
    pub fn as_jid(&self) -> &Jid {
        &self.0
    }
}

impl FullJid {
    /// Parses an address that must have a resource.
    ///
    /// # Errors
    /// The part that breaks the rules; [`JidError::Resource`] if there is none.
    pub fn parse(s: &str) -> Result<Self, JidError> {
        Self::try_from(Jid::parse(s)?)
    }

    /// The address without the resource.
    pub fn bare(&self) -> BareJid {
        self.0.to_bare()
    }

    /// The resource.
    pub fn resource_str(&self) -> &str {
        self.0.resource().unwrap_or_default()
    }

    /// The address in its general type.
    pub fn as_jid(&self) -> &Jid {
        &self.0
    }
}

impl PartialEq for Jid {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Jid {}

impl PartialOrd for Jid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Jid {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

// By hand and the same for all three: `Borrow<str>` asks for the hash of the string and nothing beside it.
impl Hash for Jid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Hash for BareJid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Hash for FullJid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Deref for BareJid {
    type Target = Jid;

    fn deref(&self) -> &Jid {
        &self.0
    }
}

impl Deref for FullJid {
    type Target = Jid;

    fn deref(&self) -> &Jid {
        &self.0
    }
}

impl From<BareJid> for Jid {
    fn from(jid: BareJid) -> Self {
        jid.0
    }
}

impl From<FullJid> for Jid {
    fn from(jid: FullJid) -> Self {
        jid.0
    }
}

impl TryFrom<Jid> for BareJid {
    type Error = JidError;

    fn try_from(jid: Jid) -> Result<Self, JidError> {
        if jid.is_bare() { Ok(Self(jid)) } else { Err(JidError::Resource) }
    }
}

impl TryFrom<Jid> for FullJid {
    type Error = JidError;

    fn try_from(jid: Jid) -> Result<Self, JidError> {
        if jid.is_bare() { Err(JidError::Resource) } else { Ok(Self(jid)) }
    }
}

/// What all three kinds share: text in, text out, look-up by text.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl FromStr for $name {
            type Err = JidError;

            fn from_str(s: &str) -> Result<Self, JidError> {
                Self::parse(s)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    )*};
}

as_text!(Jid, BareJid, FullJid);

#[cfg(test)]
mod tests;
