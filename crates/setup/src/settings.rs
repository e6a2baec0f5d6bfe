//! The configuration, as each part wants it.

use anyhow::{Result, anyhow};
use starling_hooks::{ArchiveDefault, Limits};
use starling_node::{Config, config};
use starling_router::RouterConfig;
use starling_router::config::Conflict;
use starling_store::Retention;

/// Where the store is, for people.
pub fn place(config: &Config) -> String {
    let store = &config.store;
    match store.kind {
        config::StoreKind::Embedded => config.data_dir.join("store").display().to_string(),
        config::StoreKind::Scylla => {
            format!("keyspace {} at {}", store.keyspace, store.contact_points.join(", "))
        }
    }
}

/// The domains, as addresses have them.
///
/// # Errors
/// The one that is none.
pub fn domains(config: &Config) -> Result<Vec<String>> {
    let enforce = |domain: &String| {
        starling_xmpp::jid::domain(domain)
            .map_err(|error| anyhow!("domains: {domain:?} is not a domain ({error})"))
    };
    config.domains.iter().map(enforce).collect()
}

/// How long and how much is kept.
pub fn retention(config: &Config) -> Retention {
    Retention {
        max_age_secs: config.archive.max_age_days.map(|days| days * 86_400),
        max_rows: config.archive.max_rows_per_account,
    }
}

/// What is archived for accounts that have not chosen.
pub fn archive_default(config: &Config) -> ArchiveDefault {
    match config.archive.default {
        config::ArchiveDefault::Always => ArchiveDefault::Always,
        config::ArchiveDefault::Never => ArchiveDefault::Never,
        config::ArchiveDefault::Roster => ArchiveDefault::Roster,
    }
}

/// What modules allow.
pub fn hook_limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        roster_items: limits.roster.max_items,
        roster_groups: limits.roster.max_groups,
        roster_name: limits.roster.name_len,
        blocked_items: limits.blocklist.max_items,
        directed: limits.session.directed_presence,
        directed_bytes: limits.session.directed_presence_bytes,
        presence_bytes: limits.session.presence_bytes,
        mam_page: limits.mam.page_max,
        ..Limits::default()
    }
}

/// How homes are to be. `alone`: nobody else can write to the store while this process lives.
pub fn router_config(config: &Config, alone: bool) -> RouterConfig {
    let limits = &config.limits;
    RouterConfig {
        workers: config.router.worker_count(),
        alone,
        conflict: match config.session.conflict {
            config::Conflict::Replace => Conflict::Replace,
            config::Conflict::Refuse => Conflict::Refuse,
        },
        max_resources: limits.session.max_resources,
        max_unacked: limits.sm.max_unacked,
        max_unacked_bytes: limits.sm.max_unacked_bytes,
        window: limits.sm.pull_window,
        resume_timeout: limits.sm.resume_timeout,
        ack_timeout: limits.sm.ack_timeout,
        detached_per_account: limits.sm.detached_per_account,
        offline_messages: limits.offline.max_messages,
        offline_bytes: limits.offline.bytes,
        strangers: (
            usize::try_from(limits.rate.distinct_recipients.count).unwrap_or(usize::MAX),
            limits.rate.distinct_recipients.per,
        ),
        queries: limits.mam.queries_inflight,
    }
}
