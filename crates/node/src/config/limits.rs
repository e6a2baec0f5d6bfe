//! What one client, one address or one account may cost. All keys live under `limits.`.

use std::time::Duration;

use super::section::section;
use crate::limits::Rate;

section! {
    /// What one client may cost.
    pub struct Limits {}
    with {
        /// XML as it is read.
        xml: XmlLimits;
        /// Time a stream may take.
        stream: StreamLimits;
        /// Connections.
        conn: ConnectionLimits;
        /// Authentication.
        auth: AuthLimits;
        /// Sessions.
        session: SessionLimits;
        /// Stream management (XEP-0198).
        sm: SmLimits;
        /// How fast a client may send.
        rate: RateLimits;
        /// Messages kept for accounts that are away.
        offline: OfflineLimits;
        /// Contact lists.
        roster: RosterLimits;
        /// Archive queries (XEP-0313).
        mam: MamLimits;
        /// Block lists (XEP-0191).
        blocklist: BlocklistLimits;
        /// In-band registration (XEP-0077).
        registration: RegistrationLimits;
    }
}

section! {
    /// XML as it is read. What breaks one of these closes the stream with `policy-violation`.
    pub struct XmlLimits {
        /// Depth of elements within a stanza.
        max_depth: usize = 32, in 4..=512;
        /// Attributes of one element.
        max_attrs: usize = 64, in 8..=4_096;
        /// Namespace declarations of one element.
        max_ns_decls: usize = 32, in 4..=1_024;
        /// Bytes of one element or attribute name.
        max_name_len: usize = 256, in 32..=65_535;
        /// Bytes of one attribute value.
        max_attr_value_len: usize = 16_384, in 1_024..=16_777_216;
        /// Elements in one stanza after authentication.
        max_elements: usize = 4_096, in 64..=1_048_576;
    }
    with {
        /// Before authentication.
        pre_auth: PreAuthXmlLimits;
        /// From clients, after authentication.
        c2s: StreamXmlLimits;
    }
}

section! {
    /// Limits on what nobody has authenticated for.
    pub struct PreAuthXmlLimits {
        /// Bytes of one first-level element.
        max_stanza_bytes: usize = 8_192, in 1_024..=1_048_576;
        /// Elements in one first-level element.
        max_elements: usize = 32, in 8..=4_096;
    }
}

section! {
    /// Limits on stanzas.
    pub struct StreamXmlLimits {
        /// Bytes of one stanza. RFC 6120 §13.12 sets the floor.
        max_stanza_bytes: usize = 262_144, in 10_000..=67_108_864;
    }
}

section! {
    /// Time a stream may take. What breaks one of these closes the stream with `connection-timeout`.
    pub struct StreamLimits {
        /// From the TCP connection to a complete stream header.
        tcp_accept_to_header: Duration = Duration::from_secs(5), in MOMENT..=HOUR;
        /// From the stream header to the end of the TLS handshake.
        header_to_tls: Duration = Duration::from_secs(10), in MOMENT..=HOUR;
        /// From TLS to authentication.
        tls_to_auth: Duration = Duration::from_secs(20), in MOMENT..=HOUR;
        /// From the TCP connection to authentication, all in all.
        pre_auth_total: Duration = Duration::from_secs(30), in MOMENT..=HOUR;
        /// From the first byte of a stanza to its last.
        stanza: Duration = Duration::from_secs(60), in MOMENT..=HOUR;
        /// Silence of an authenticated client, whitespace included, until the server asks whether it is there.
        idle: Duration = Duration::from_secs(900), in Duration::from_secs(5)..=DAY;
        /// How long a write to a socket may make no progress.
        send_timeout: Duration = Duration::from_secs(15), in MOMENT..=HOUR;
        /// How long to wait for the other side's closing tag.
        close: Duration = Duration::from_secs(3), in MOMENT..=HOUR;
    }
}

section! {
    /// Connections, by address and in all.
    pub struct ConnectionLimits {
        /// Connections of one IP address.
        per_ip: usize = 512, in 1..=MANY;
        /// Connections of one IP address that have not authenticated yet.
        unauth_per_ip: usize = 32, in 1..=MANY;
        /// New connections of one IP address.
        rate_per_ip: Rate = Rate::per_second(20), in Rate::per_minute(1)..=Rate::per_second(1_000_000);
        /// Unauthenticated connections in all; "auto" is a tenth of the file descriptors the process may have.
        unauth_total: Option<usize> = None, in 1..=MANY;
        /// Connections in all; "auto" is nine tenths of the file descriptors the process may have.
        total: Option<usize> = None, in 1..=MANY;
    }
}

section! {
    /// Authentication.
    pub struct AuthLimits {
        /// Failed attempts after which a stream is closed (RFC 6120 §6.4.5 asks for 2 to 5).
        attempts_per_stream: u32 = 3, in 1..=100;
        /// Failures of one IP address after which it has to wait.
        failures_per_ip_window: Rate = Rate::per_hour(20), in Rate::per_hour(1)..=Rate::per_second(1_000_000);
        /// Failures against one account after which answers are delayed. The account is never locked.
        failures_per_account_window: Rate = Rate::per_hour(20), in Rate::per_hour(1)..=Rate::per_second(1_000_000);
        /// How long an answer is delayed for an account with too many failures.
        delay: Duration = Duration::from_secs(2), in Duration::ZERO..=Duration::from_secs(15);
        /// Password hashes (PLAIN) that may wait for the pool; more get `temporary-auth-failure`.
        queue: usize = 64, in 1..=65_536;
    }
}

/// As many stanzas of one session may be on their way to its home, whatever is configured: homes remember as much of what they
/// have refused, and of what the home before may have taken.
pub const MOST_CREDIT: usize = 256;

/// As many times `sm.max_unacked_bytes` goes to the edge of a session whose home moves: more no record of it has room for.
/// Edges make room for it where it is resumed.
pub const MOST_GIVEN: usize = 3;

section! {
    /// Sessions.
    pub struct SessionLimits {
        /// Resources of one account online at a time.
        max_resources: usize = 10, in 1..=10_000;
        /// Stanzas of one session that its home has not taken yet, before its socket is no longer read.
        credit_stanzas: usize = 64, in 1..=MOST_CREDIT;
        /// Bytes of one session that its home has not taken yet, before its socket is no longer read.
        credit_bytes: usize = 262_144, in 10_000..=1_073_741_824;
        /// Addresses outside the roster that a session may send directed presence to.
        directed_presence: usize = 1_000, in 1..=MANY;
        /// Bytes of these addresses: edges remember them for their session.
        directed_presence_bytes: usize = 65_536, in 4_096..=262_144;
        /// Bytes of one presence stanza: it is remembered, and one becomes hundreds for those who may see it.
        presence_bytes: usize = 32_768, in 10_000..=262_144;
    }
}

section! {
    /// Stream management (XEP-0198). On overflow the queue goes to the log; nothing is dropped.
    pub struct SmLimits {
        /// Unacknowledged stanzas of one session.
        max_unacked: usize = 1_000, in 10..=MANY;
        /// Bytes of unacknowledged stanzas of one session.
        max_unacked_bytes: usize = 4_194_304, in 65_536..=1_073_741_824;
        /// Unacknowledged stored stanzas in flight while the log is sent.
        pull_window: usize = 250, in 1..=MANY;
        /// How long a detached session can be resumed.
        resume_timeout: Duration = Duration::from_secs(300), in Duration::ZERO..=DAY;
        /// How long a client may leave a request for acknowledgement unanswered.
        ack_timeout: Duration = Duration::from_secs(60), in MOMENT..=HOUR;
        /// Detached sessions of one account.
        detached_per_account: usize = 3, in 0..=10_000;
    }
}

section! {
    /// How fast a client may send. Who is faster is read slower.
    pub struct RateLimits {
        /// Bytes that one client may send, in the long run.
        c2s_bytes: Rate = Rate::per_second(32_768), in Rate::per_second(1_024)..=FASTEST;
        /// Bytes that one client may send at once.
        c2s_bytes_burst: u64 = 262_144, in 10_000..=1_099_511_627_776;
        /// Stanzas that one client may send, in the long run.
        c2s_stanzas: Rate = Rate::per_second(50), in Rate::per_second(1)..=FASTEST;
        /// Stanzas that one client may send at once.
        c2s_stanzas_burst: u64 = 200, in 1..=1_099_511_627_776;
        /// Different addresses outside the roster that one account may write to.
        distinct_recipients: Rate = Rate::per_minute(200), in Rate::per_hour(1)..=FASTEST;
    }
}

section! {
    /// Messages kept for accounts that are away.
    pub struct OfflineLimits {
        /// Messages kept for one account.
        max_messages: usize = 10_000, in 0..=100_000_000;
        /// Bytes of messages kept for one account.
        bytes: u64 = 67_108_864, in 0..=1_099_511_627_776;
    }
}

section! {
    /// Contact lists.
    pub struct RosterLimits {
        /// Contacts of one account.
        max_items: usize = 2_000, in 10..=1_000_000;
        /// Groups of one contact.
        max_groups: usize = 32, in 1..=4_096;
        /// Bytes of a contact's or a group's name.
        name_len: usize = 1_023, in 16..=65_535;
    }
}

section! {
    /// Archive queries (XEP-0313).
    pub struct MamLimits {
        /// Messages on one page.
        page_max: usize = 250, in 1..=10_000;
        /// Queries of one session that run at a time.
        queries_inflight: usize = 2, in 1..=1_000;
    }
}

section! {
    /// Block lists (XEP-0191).
    pub struct BlocklistLimits {
        /// Entries in the block list of one account.
        max_items: usize = 1_000, in 1..=1_000_000;
    }
}

section! {
    /// In-band registration (XEP-0077).
    pub struct RegistrationLimits {
        /// Accounts that one IP address may make in an hour.
        per_ip_per_hour: u32 = 5, in 1..=1_000_000_000;
    }
}

const MOMENT: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const MANY: usize = 100_000_000;
const FASTEST: Rate = Rate::per_second(1_099_511_627_776);
