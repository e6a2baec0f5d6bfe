//! Stored forms of an account's documents: a line with the form's number, then a line per item.
//!
//! JIDs hold no control characters (RFC 7622 §3), so a line feed ends them. Nothing to say is an empty body, which
//! removes the document. What cannot be read is an error and never "nobody is blocked".

use crate::account::{ArchiveDefault, ArchivePreferences, BlockList};
use bytes::Bytes;
use starling_store::StoreError;
use starling_xmpp::Jid;
use std::collections::BTreeSet;

const FORM: &str = "1";

impl BlockList {
    /// The stored form ([`DocKind::BlockList`](starling_store::DocKind)).
    pub fn encode(&self) -> Bytes {
        if self.is_empty() {
            return Bytes::new();
        }
        let mut out = String::from(FORM);
        for item in self.iter() {
            out.push('\n');
            out.push_str(item.as_str());
        }
        Bytes::from(out)
    }

    /// Reads the stored form; an empty body blocks nobody.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for anything that [`encode`](Self::encode) does not write.
    pub fn decode(body: &[u8]) -> Result<Self, StoreError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        let lines = lines(body, "block list")?;
        Ok(Self::of(lines.map(|line| jid(line, "block list")).collect::<Result<Vec<_>, _>>()?))
    }
}

impl ArchivePreferences {
    /// The stored form ([`DocKind::ArchivePreferences`](starling_store::DocKind)).
    pub fn encode(&self) -> Bytes {
        let mut out = format!("{FORM}\n{}", self.default.as_str());
        for (sign, list) in [("\n+", &self.always), ("\n-", &self.never)] {
            for item in list {
                out.push_str(sign);
                out.push_str(item.as_str());
            }
        }
        Bytes::from(out)
    }

    /// Reads the stored form. An account without one has the server's default, which only the caller knows.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for anything that [`encode`](Self::encode) does not write.
    pub fn decode(body: &[u8]) -> Result<Self, StoreError> {
        const WHAT: &str = "archive preferences";
        let mut lines = lines(body, WHAT)?;
        let default = lines.next().and_then(ArchiveDefault::parse).ok_or_else(|| damaged(WHAT))?;
        let (mut always, mut never) = (BTreeSet::new(), BTreeSet::new());
        for line in lines {
            match line.split_at_checked(1) {
                Some(("+", item)) => always.insert(jid(item, WHAT)?),
                Some(("-", item)) => never.insert(jid(item, WHAT)?),
                _ => return Err(damaged(WHAT)),
            };
        }
        Ok(Self { default, always, never })
    }
}

impl ArchiveDefault {
    /// The attribute's value (XEP-0441 §2.1.1).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Never => "never",
            Self::Roster => "roster",
        }
    }

    /// Reads the attribute's value.
    pub fn parse(value: &str) -> Option<Self> {
        [Self::Always, Self::Never, Self::Roster].into_iter().find(|default| default.as_str() == value)
    }
}

fn lines<'a>(body: &'a [u8], what: &str) -> Result<impl Iterator<Item = &'a str>, StoreError> {
    let mut lines = std::str::from_utf8(body).map_err(|_| damaged(what))?.split('\n');
    if lines.next() != Some(FORM) {
        return Err(damaged(what));
    }
    Ok(lines)
}

fn jid(line: &str, what: &str) -> Result<Jid, StoreError> {
    Jid::parse(line).map_err(|_| damaged(what))
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jids<const N: usize>(names: [&str; N]) -> BTreeSet<Jid> {
        names.into_iter().map(|name| Jid::parse(name).unwrap()).collect()
    }

    #[test]
    fn block_lists_come_back_as_they_were() {
        let list = BlockList::of(jids(["a@x", "x", "x/res urce", "a@x/ü ñ"]));
        assert_eq!(BlockList::decode(&list.encode()).unwrap(), list);
        assert!(BlockList::default().encode().is_empty());
        assert!(BlockList::decode(b"").unwrap().is_empty());
    }

    #[test]
    fn a_damaged_block_list_never_blocks_nobody() {
        for damaged in [&b"2\na@x"[..], b"1\n", b"1\na@@x", b"1\na@x\n\xff", b"\x00"] {
            assert!(matches!(BlockList::decode(damaged), Err(StoreError::Damaged(_))), "{damaged:?}");
        }
    }

    #[test]
    fn archive_preferences_come_back_as_they_were() {
        for default in [ArchiveDefault::Always, ArchiveDefault::Never, ArchiveDefault::Roster] {
            let prefs =
                ArchivePreferences { default, always: jids(["a@x/+y", "b@x"]), never: jids(["-c@x"]) };
            assert_eq!(ArchivePreferences::decode(&prefs.encode()).unwrap(), prefs);
        }
        for damaged in [&b""[..], b"1", b"1\nsometimes", b"1\nalways\na@x", b"1\nalways\n+", b"1\nalways\n"] {
            assert!(
                matches!(ArchivePreferences::decode(damaged), Err(StoreError::Damaged(_))),
                "{damaged:?}"
            );
        }
    }
}
