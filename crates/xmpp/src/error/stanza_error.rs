//! The error of one stanza: the sender is told, the stream lives on.

use std::borrow::Cow;

use crate::{Element, Jid, ns};

/// Defines a condition enum from its wire names.
macro_rules! conditions {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $wire:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every value, in the order of the specification.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $wire,)* }
            }

            /// The value of a wire name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($wire => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(super) use conditions;

conditions! {
    /// A defined condition of a stanza error (RFC 6120 section 8.3.3).
    StanzaCondition {
        /// Syntax or schema of the stanza is wrong.
        BadRequest = "bad-request",
        /// The name or resource is taken.
        Conflict = "conflict",
        /// A known service lacks this part.
        FeatureNotImplemented = "feature-not-implemented",
        /// The sender has not the permission.
        Forbidden = "forbidden",
        /// The recipient has moved for good.
        Gone = "gone",
        /// Our own fault.
        InternalServerError = "internal-server-error",
        /// No such item.
        ItemNotFound = "item-not-found",
        /// An address breaks RFC 7622.
        JidMalformed = "jid-malformed",
        /// Breaks criteria of ours, such as a length.
        NotAcceptable = "not-acceptable",
        /// Nobody may do this here.
        NotAllowed = "not-allowed",
        /// Credentials are needed first.
        NotAuthorized = "not-authorized",
        /// A local policy such as a size or a rate.
        PolicyViolation = "policy-violation",
        /// The recipient is away for now.
        RecipientUnavailable = "recipient-unavailable",
        /// The recipient has moved for now.
        Redirect = "redirect",
        /// The sender must register first.
        RegistrationRequired = "registration-required",
        /// The remote domain does not resolve or has no XMPP service.
        RemoteServerNotFound = "remote-server-not-found",
        /// The remote domain did not answer in time.
        RemoteServerTimeout = "remote-server-timeout",
        /// Quota or load.
        ResourceConstraint = "resource-constraint",
        /// The service is not offered; also what hides whether an account exists.
        ServiceUnavailable = "service-unavailable",
        /// A presence subscription is needed first.
        SubscriptionRequired = "subscription-required",
        /// None of the others; goes with an application condition.
        UndefinedCondition = "undefined-condition",
        /// Understood, but out of order.
        UnexpectedRequest = "unexpected-request",
    }
}

impl StanzaCondition {
    /// The error type that goes with the condition unless a rule says otherwise (RFC 6120 section 8.3.3).
    pub const fn default_type(self) -> ErrorType {
        match self {
            Self::BadRequest
            | Self::JidMalformed
            | Self::NotAcceptable
            | Self::PolicyViolation
            | Self::Redirect => ErrorType::Modify,
            Self::Forbidden
            | Self::NotAuthorized
            | Self::RegistrationRequired
            | Self::SubscriptionRequired => ErrorType::Auth,
            Self::RecipientUnavailable
            | Self::RemoteServerTimeout
            | Self::ResourceConstraint
            | Self::UnexpectedRequest => ErrorType::Wait,
            Self::Conflict
            | Self::FeatureNotImplemented
            | Self::Gone
            | Self::InternalServerError
            | Self::ItemNotFound
            | Self::NotAllowed
            | Self::RemoteServerNotFound
            | Self::ServiceUnavailable
            | Self::UndefinedCondition => ErrorType::Cancel,
        }
    }
}

conditions! {
    /// What the sender of a refused stanza may do about it (RFC 6120 section 8.3.2).
    ErrorType {
        /// Retry with credentials.
        Auth = "auth",
        /// Do not retry.
        Cancel = "cancel",
        /// A warning only.
        Continue = "continue",
        /// Retry with changed data.
        Modify = "modify",
        /// Retry later.
        Wait = "wait",
    }
}

/// The `<error/>` of a stanza (RFC 6120 section 8.3).
#[derive(Clone, Debug, PartialEq)]
pub struct StanzaError {
    /// The defined condition.
    pub condition: StanzaCondition,
    /// What the sender may do about it.
    pub error_type: ErrorType,
    /// Text for people, in English; never holds data of a user.
    pub text: Option<Cow<'static, str>>,
    /// Application condition; boxed because errors travel in results.
    pub app: Option<Box<Element>>,
    /// The entity that made the error, where it is not the sender of the reply.
    pub by: Option<Jid>,
}

impl StanzaError {
    /// An error with the default type of its condition.
    pub const fn new(condition: StanzaCondition) -> Self {
        Self { condition, error_type: condition.default_type(), text: None, app: None, by: None }
    }

    /// Overrides the error type.
    #[must_use]
    pub const fn with_type(mut self, error_type: ErrorType) -> Self {
        self.error_type = error_type;
        self
    }

    /// Adds a text for people.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Adds an application condition.
    #[must_use]
    pub fn with_app(mut self, app: Element) -> Self {
        self.app = Some(Box::new(app));
        self
    }

    /// The `<error/>` element, in the content namespace.
    pub fn to_element(&self) -> Element {
        let mut error = Element::new(ns::CLIENT, "error")
            .opt_attr("by", self.by.as_ref().map(Jid::as_str))
            .attr("type", self.error_type.as_str())
            .child(Element::new(ns::STANZAS, self.condition.as_str()));
        if let Some(text) = &self.text {
            error.push(Element::new(ns::STANZAS, "text").attr("xml:lang", "en").text(text));
        }
        if let Some(app) = &self.app {
            error.push(app.as_ref().clone());
        }
        error
    }

    /// Reads an `<error/>` element leniently: what is unknown becomes `undefined-condition` of type `cancel`, since
    /// an error must never be answered by an error. `None` only if the element is no `error`.
    pub fn from_element(element: &Element) -> Option<Self> {
        if element.name() != "error" {
            return None;
        }
        let condition = element
            .children()
            .filter(|child| child.ns() == ns::STANZAS)
            .find_map(|child| StanzaCondition::from_name(child.name()))
            .unwrap_or(StanzaCondition::UndefinedCondition);
        let error_type = element
            .attribute("type")
            .and_then(ErrorType::from_name)
            .unwrap_or_else(|| condition.default_type());
        Some(Self {
            condition,
            error_type,
            text: element.find(ns::STANZAS, "text").map(|text| Cow::Owned(text.content())),
            app: element.children().find(|child| child.ns() != ns::STANZAS).cloned().map(Box::new),
            by: element.attribute("by").and_then(|by| Jid::parse(by).ok()),
        })
    }
}

impl From<StanzaCondition> for StanzaError {
    fn from(condition: StanzaCondition) -> Self {
        Self::new(condition)
    }
}

impl std::fmt::Display for StanzaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.condition, self.error_type)
    }
}

impl std::error::Error for StanzaError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_survives_the_wire() {
        for condition in StanzaCondition::ALL {
            let error = StanzaError::new(*condition).with_text("no <way>");
            let element = error.to_element();
            assert_eq!(StanzaError::from_element(&element), Some(error));
        }
        assert_eq!(StanzaCondition::ALL.len(), 22);
    }

    #[test]
    fn the_element_has_the_shape_of_rfc_6120() {
        let error = StanzaError::new(StanzaCondition::PolicyViolation)
            .with_type(ErrorType::Wait)
            .with_app(Element::new(ns::ERRORS, "stanza-too-big"));
        assert_eq!(
            error.to_element().to_string(),
            "<error type='wait'><policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <stanza-too-big xmlns='urn:xmpp:errors'/></error>"
        );
        assert_eq!(StanzaError::from_element(&error.to_element()), Some(error));
    }

    #[test]
    fn an_unknown_error_is_read_as_undefined() {
        let element = "<error type='odd'><what xmlns='x'/></error>".parse().unwrap();
        let error = StanzaError::from_element(&element).unwrap();
        assert_eq!(error.condition, StanzaCondition::UndefinedCondition);
        assert_eq!(error.error_type, ErrorType::Cancel);
    }
}
