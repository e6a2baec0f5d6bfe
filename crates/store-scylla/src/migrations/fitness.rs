//! Whether a server of this version works on a schema, and what to do where it does not.

use super::shape::Gap;
use super::{Applied, Kind, Migration};

/// What a server of this version does on a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fitness {
    /// It works.
    Fits,
    /// There is no keyspace.
    NoKeyspace,
    /// The first version that is missing.
    TooOld(u32),
    /// Versions and names of what was removed without this server knowing.
    TooNew(Vec<(u32, String)>),
    /// Versions that were applied with another text than is known here.
    Changed(Vec<u32>),
    /// All versions were applied, and tables or columns of theirs are not there, or are others.
    Damaged(Vec<Gap>),
}

/// Why something is not done, and what would help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}: {advice}")]
pub struct Refusal {
    /// What is not as it must be.
    pub why: String,
    /// What to do about it.
    pub advice: String,
}

impl Fitness {
    /// Of the versions only: what is really there is looked at beside them.
    pub(super) fn of(applied: &[Applied], list: &[Migration]) -> Self {
        let known = list.last().map_or(0, |last| last.version);
        let removed =
            applied.iter().filter(|applied| applied.version > known && applied.kind == Kind::Contract);
        let removed: Vec<_> = removed.map(|applied| (applied.version, applied.name.clone())).collect();
        if !removed.is_empty() {
            return Self::TooNew(removed);
        }
        let is_other = |applied: &&Applied| {
            let ours = list.iter().find(|migration| migration.version == applied.version);
            ours.is_some_and(|migration| migration.checksum() != applied.checksum)
        };
        let changed: Vec<u32> = applied.iter().filter(is_other).map(|applied| applied.version).collect();
        if !changed.is_empty() {
            return Self::Changed(changed);
        }
        let has = |version| applied.iter().any(|applied| applied.version == version);
        match list.iter().find(|migration| !has(migration.version)) {
            Some(missing) => Self::TooOld(missing.version),
            None => Self::Fits,
        }
    }

    /// For people; `known` is the newest version that is known here.
    pub fn text(&self, keyspace: &str, known: u32) -> String {
        match self {
            Self::Fits => format!("the schema of {keyspace} fits version {known}"),
            Self::NoKeyspace => format!("there is no keyspace {keyspace}"),
            Self::TooOld(missing) => format!(
                "the schema of {keyspace} is too old: it lacks version {missing} and this server needs {known}"
            ),
            Self::TooNew(removed) => {
                let names: Vec<_> =
                    removed.iter().map(|(version, name)| format!("{version} ({name})")).collect();
                format!(
                    "the schema of {keyspace} is newer than this server, which knows versions up to {known}: version {} \
                     removed what it needs",
                    names.join(", ")
                )
            }
            Self::Changed(versions) => {
                let versions: Vec<_> = versions.iter().map(u32::to_string).collect();
                format!(
                    "version {} of the schema of {keyspace} was applied with another text than this server knows \
                     under that number",
                    versions.join(", ")
                )
            }
            Self::Damaged(gaps) => {
                let gaps: Vec<_> = gaps.iter().map(Gap::to_string).collect();
                format!("the schema of {keyspace} is not what was applied: {}", gaps.join(", "))
            }
        }
    }

    /// What to do; `None` where it fits.
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::Fits => return None,
            Self::NoKeyspace => "run `starling migrate apply`, unless store.keyspace should name another",
            Self::TooOld(_) => "run `starling migrate apply`, with a role that may CREATE and ALTER",
            Self::TooNew(_) => {
                "run the newer starling (`starling migrate status` shows who applied what), or restore a backup of the \
                 keyspace from before"
            }
            Self::Changed(_) => {
                "run the starling that applied it (`starling migrate status` shows who and when), or use another keyspace"
            }
            Self::Damaged(gaps) if gaps.iter().all(Gap::can_be_made) => {
                "restore it from a backup; to go on without what was in it, run the statements that `starling migrate \
                 plan` prints"
            }
            Self::Damaged(_) => "restore the keyspace from a backup, or use another one",
        })
    }

    /// Why a server does not start; `None` where it fits.
    pub fn refusal(&self, keyspace: &str, known: u32) -> Option<Refusal> {
        let advice = self.advice()?.to_owned();
        Some(Refusal { why: self.text(keyspace, known), advice })
    }

    /// Whether applying is what makes it fit, or nothing is to be done.
    pub(super) fn can_be_applied(&self) -> bool {
        matches!(self, Self::Fits | Self::NoKeyspace | Self::TooOld(_))
    }
}
