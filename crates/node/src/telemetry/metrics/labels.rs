//! The values of every label. A new value is a new line here and a line in the documentation of metrics.

use super::table::Label;

macro_rules! labels {
    ($( $(#[doc = $about:literal])+ $Name:ident { $( $(#[doc = $text:literal])+ $Variant:ident = $word:literal, )+ } )+) => { $(
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $Name { $( $(#[doc = $text])+ $Variant, )+ }

        impl Label for $Name {
            const ALL: &'static [Self] = &[$( Self::$Variant, )+];

            fn index(self) -> usize {
                self as usize
            }

            fn as_str(self) -> &'static str {
                match self { $( Self::$Variant => $word, )+ }
            }
        }
    )+ };
}

labels! {
    /// How a client is connected.
    Transport {
        /// TCP, then STARTTLS.
        Starttls = "starttls",
        /// TLS from the first byte.
        Tls = "tls",
    }
    /// State of a bound session.
    SessionState {
        /// Connected.
        Active = "active",
        /// Connected, and its user does not look (XEP-0352).
        CsiInactive = "csi_inactive",
        /// Its connection is gone; it can be resumed.
        Detached = "detached",
    }
    /// Kind of stanza.
    Kind {
        /// `<message/>`.
        Message = "message",
        /// `<presence/>`.
        Presence = "presence",
        /// `<iq/>`.
        Iq = "iq",
    }
    /// Which way.
    Direction {
        /// From a client.
        In = "in",
        /// To a client.
        Out = "out",
    }
    /// What became of a stanza.
    StanzaResult {
        /// Taken, or written.
        Ok = "ok",
        /// Answered with an error, or is one.
        Error = "error",
        /// Neither delivered nor answered, by a rule.
        Dropped = "dropped",
    }
    /// Which way a message took.
    Path {
        /// To a session of this server.
        Local = "local",
        /// To the log only.
        Offline = "offline",
    }
    /// How a delivery ended.
    Delivery {
        /// It did.
        Ok = "ok",
        /// With an error to the sender.
        Error = "error",
    }
    /// SASL mechanism.
    Mechanism {
        /// PLAIN.
        Plain = "plain",
        /// SCRAM-SHA-1.
        ScramSha1 = "scram_sha_1",
        /// SCRAM-SHA-1-PLUS.
        ScramSha1Plus = "scram_sha_1_plus",
        /// SCRAM-SHA-256.
        ScramSha256 = "scram_sha_256",
        /// SCRAM-SHA-256-PLUS.
        ScramSha256Plus = "scram_sha_256_plus",
        /// SCRAM-SHA-512.
        ScramSha512 = "scram_sha_512",
        /// SCRAM-SHA-512-PLUS.
        ScramSha512Plus = "scram_sha_512_plus",
        /// None of these.
        Other = "other",
    }
    /// How an authentication ended.
    AuthResult {
        /// Authenticated.
        Ok = "ok",
        /// Wrong credentials.
        NotAuthorized = "not_authorized",
        /// A mistake in the exchange.
        Malformed = "malformed",
        /// Too many failures before it.
        Throttled = "throttled",
        /// The server could not tell.
        Temporary = "temporary",
    }
    /// TLS version.
    TlsVersion {
        /// 1.2.
        V12 = "1.2",
        /// 1.3.
        V13 = "1.3",
        /// The handshake did not get so far.
        None = "none",
    }
    /// Good or bad.
    Outcome {
        /// Good.
        Ok = "ok",
        /// Bad.
        Error = "error",
    }
    /// How an attempt to resume ended.
    ResumeResult {
        /// Resumed.
        Ok = "ok",
        /// There is no such session.
        NotFound = "not_found",
        /// Another reason.
        Failed = "failed",
    }
    /// What is written.
    StoreTable {
        /// The logs of accounts.
        Log = "log",
        /// Rosters and subscriptions.
        Roster = "roster",
        /// Accounts and credentials.
        Account = "account",
        /// All else.
        Other = "other",
    }
    /// When a write counts as done.
    Consistency {
        /// When it is synced to the local disk.
        Disk = "disk",
        /// When a quorum of the local datacenter has it.
        LocalQuorum = "local_quorum",
    }
    /// What a statement does in the database (`db.operation.name`).
    DbOperation {
        /// Reads.
        Select = "SELECT",
        /// Writes a row, with or without a condition.
        Insert = "INSERT",
        /// Changes a row that exists.
        Update = "UPDATE",
        /// Removes rows.
        Delete = "DELETE",
        /// Several changes of one partition.
        Batch = "BATCH",
    }
    /// A table of the database (`db.collection.name`).
    DbCollection {
        /// Accounts.
        Accounts = "accounts",
        /// Their names, for listing.
        AccountNames = "account_names",
        /// Rosters, documents, cursors.
        AccountData = "account_data",
        /// Which buckets logs have.
        LogBuckets = "log_buckets",
        /// Logs.
        Log = "log",
        /// Index of logs by peer.
        LogByPeer = "log_by_peer",
        /// Owners whose rows are to be removed.
        Purges = "purges",
        /// Values of the cluster.
        Cluster = "cluster",
        /// Who reigns.
        Reigns = "reigns",
    }
    /// How an attempt of a statement ended.
    DbResult {
        /// Well.
        Ok = "ok",
        /// Without an answer: it may have been done.
        Timeout = "timeout",
        /// Not done: nobody there, or too few replicas.
        Unavailable = "unavailable",
        /// Not done: too much to do.
        Overloaded = "overloaded",
        /// Rejected, or an answer that cannot be read.
        Invalid = "invalid",
    }
    /// Which limit something ran into.
    Limit {
        /// Bytes of a stanza.
        StanzaSize = "stanza_size",
        /// Depth, attributes, names, elements of XML.
        XmlShape = "xml_shape",
        /// Time before authentication.
        PreAuthTimeout = "pre_auth_timeout",
        /// Connections of one address.
        ConnPerIp = "conn_per_ip",
        /// Unauthenticated connections of one address.
        UnauthPerIp = "unauth_per_ip",
        /// New connections of one address per second.
        ConnRate = "conn_rate",
        /// Unauthenticated connections in all.
        UnauthTotal = "unauth_total",
        /// Connections in all.
        ConnTotal = "conn_total",
        /// Attempts on one stream.
        AuthAttempts = "auth_attempts",
        /// Failures of one address.
        AuthFailuresIp = "auth_failures_ip",
        /// Failures against one account.
        AuthFailuresAccount = "auth_failures_account",
        /// Password hashes that wait.
        AuthQueue = "auth_queue",
        /// Resources of one account.
        Resources = "resources",
        /// Stanzas of one session that its home has not taken.
        Credit = "credit",
        /// Addresses with directed presence.
        DirectedPresence = "directed_presence",
        /// Unacknowledged stanzas.
        SmUnacked = "sm_unacked",
        /// A client that does not acknowledge.
        SmAckTimeout = "sm_ack_timeout",
        /// Detached sessions of one account.
        Detached = "detached",
        /// Bytes per second.
        RateBytes = "rate_bytes",
        /// Stanzas per second.
        RateStanzas = "rate_stanzas",
        /// Different recipients.
        Recipients = "recipients",
        /// Messages kept for an account.
        Offline = "offline",
        /// Contacts, groups, names.
        Roster = "roster",
        /// Archive queries at a time.
        MamQueries = "mam_queries",
        /// Block list entries.
        Blocklist = "blocklist",
        /// New accounts.
        Registration = "registration",
        /// Writes to a socket that do not go on.
        SendTimeout = "send_timeout",
        /// Silence.
        Idle = "idle",
        /// A full mailbox.
        Busy = "busy",
    }
}
