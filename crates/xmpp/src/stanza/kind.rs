//! The three stanzas and their types.

/// Which stanza, with its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `<message/>` (RFC 6121 section 5).
    Message(MessageType),
    /// `<presence/>` (RFC 6121 sections 3 and 4).
    Presence(PresenceType),
    /// `<iq/>` (RFC 6120 section 8.2.3).
    Iq(IqType),
}

/// The type of a message (RFC 6121 section 5.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// A single message; also what has no type or an unknown one.
    #[default]
    Normal,
    /// Part of a one-to-one conversation.
    Chat,
    /// From or to a room.
    Groupchat,
    /// No answer expected, not kept.
    Headline,
    /// An error.
    Error,
}

/// The type of a presence (RFC 6121 section 4.7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PresenceType {
    /// No type: available.
    #[default]
    Available,
    /// No longer available.
    Unavailable,
    /// A subscription is asked for.
    Subscribe,
    /// A subscription is granted.
    Subscribed,
    /// A subscription is given up.
    Unsubscribe,
    /// A subscription is refused or withdrawn.
    Unsubscribed,
    /// A server asks for presence.
    Probe,
    /// An error.
    Error,
}

/// The type of an IQ (RFC 6120 section 8.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IqType {
    /// Asks.
    Get,
    /// Changes.
    Set,
    /// Answers.
    Result,
    /// Refuses.
    Error,
}

impl Kind {
    /// `message`, `presence` or `iq`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message(_) => "message",
            Self::Presence(_) => "presence",
            Self::Iq(_) => "iq",
        }
    }

    /// The `type` attribute; `None` for the defaults `normal` and available.
    pub const fn type_str(self) -> Option<&'static str> {
        match self {
            Self::Message(MessageType::Normal) | Self::Presence(PresenceType::Available) => None,
            Self::Message(message) => Some(message.as_str()),
            Self::Presence(presence) => presence.as_str(),
            Self::Iq(iq) => Some(iq.as_str()),
        }
    }

    /// Whether the type is `error`.
    pub const fn is_error(self) -> bool {
        matches!(
            self,
            Self::Message(MessageType::Error) | Self::Presence(PresenceType::Error) | Self::Iq(IqType::Error)
        )
    }
}

impl MessageType {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Chat => "chat",
            Self::Groupchat => "groupchat",
            Self::Headline => "headline",
            Self::Error => "error",
        }
    }

    /// The type of a wire name; what is unknown is `normal` (RFC 6121 section 5.2.2).
    pub fn from_name(name: &str) -> Self {
        match name {
            "chat" => Self::Chat,
            "groupchat" => Self::Groupchat,
            "headline" => Self::Headline,
            "error" => Self::Error,
            _ => Self::Normal,
        }
    }
}

impl PresenceType {
    /// The name on the wire; availability has none.
    pub const fn as_str(self) -> Option<&'static str> {
        Some(match self {
            Self::Available => return None,
            Self::Unavailable => "unavailable",
            Self::Subscribe => "subscribe",
            Self::Subscribed => "subscribed",
            Self::Unsubscribe => "unsubscribe",
            Self::Unsubscribed => "unsubscribed",
            Self::Probe => "probe",
            Self::Error => "error",
        })
    }

    /// The type of a wire name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "unavailable" => Self::Unavailable,
            "subscribe" => Self::Subscribe,
            "subscribed" => Self::Subscribed,
            "unsubscribe" => Self::Unsubscribe,
            "unsubscribed" => Self::Unsubscribed,
            "probe" => Self::Probe,
            "error" => Self::Error,
            _ => return None,
        })
    }

    /// Whether it is one of the four subscription types (RFC 6121 section 3).
    pub const fn is_subscription(self) -> bool {
        matches!(self, Self::Subscribe | Self::Subscribed | Self::Unsubscribe | Self::Unsubscribed)
    }
}

impl IqType {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Result => "result",
            Self::Error => "error",
        }
    }

    /// The type of a wire name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "get" => Self::Get,
            "set" => Self::Set,
            "result" => Self::Result,
            "error" => Self::Error,
            _ => return None,
        })
    }
}
