//! What a proxy knows of the statements that pass through it.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;
use parking_lot::Mutex;

use super::frame::{Cursor, Frame, opcode};

/// Retries come within seconds; the set of what was seen is emptied when it gets this large.
const REMEMBERED: usize = 1_000_000;

/// What a statement does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Changes rows of the store's tables.
    Write,
    /// Reads them.
    Read,
    /// Everything else: the driver's own queries, the schema.
    Other,
}

impl Kind {
    fn of(text: &str) -> Self {
        let text = text.trim_start().to_ascii_lowercase();
        let word = text.split_whitespace().next().unwrap_or_default();
        match word {
            _ if ["system.", "system_", "\"system"].iter().any(|name| text.contains(name)) => Self::Other,
            "insert" | "update" | "delete" | "begin" => Self::Write,
            "select" => Self::Read,
            _ => Self::Other,
        }
    }
}

/// Prepared statements by id, over all connections, and which writes were seen.
#[derive(Default)]
pub(super) struct Statements {
    prepared: Mutex<HashMap<Vec<u8>, Kind>>,
    seen: Mutex<HashSet<u64>>,
}

impl Statements {
    /// The kind of a request, and for PREPARE the kind that its answer will give an id to.
    pub(super) fn kind(&self, request: &Frame) -> Result<Kind> {
        let mut body = Cursor(&request.body);
        Ok(match request.opcode {
            opcode::QUERY | opcode::PREPARE => Kind::of(&body.long_string()?),
            opcode::EXECUTE => {
                let prepared = self.prepared.lock();
                prepared.get(body.short_bytes()?).copied().unwrap_or(Kind::Other)
            }
            opcode::BATCH => Kind::Write,
            _ => Kind::Other,
        })
    }

    /// Learns the id of a prepared statement from the answer to its PREPARE.
    pub(super) fn learn(&self, answer: &Frame, kind: Kind) -> Result<()> {
        const PREPARED: i32 = 4;
        let mut body = Cursor(&answer.body);
        if answer.opcode == opcode::RESULT && body.int()? == PREPARED {
            let id = body.short_bytes()?.to_vec();
            self.prepared.lock().insert(id, kind);
        }
        Ok(())
    }

    /// Whether the very bytes of this request have come before.
    pub(super) fn repeats(&self, request: &Frame) -> bool {
        let mut hasher = DefaultHasher::new();
        request.body.hash(&mut hasher);
        let mut seen = self.seen.lock();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        !seen.insert(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::long_string;
    use super::*;

    #[test]
    fn kinds_are_told_by_text_and_by_id() {
        for (text, kind) in [
            ("INSERT INTO k.log (a) VALUES (?)", Kind::Write),
            ("  select * from log", Kind::Read),
            ("SELECT * FROM system.local", Kind::Other),
            ("SELECT * FROM system_schema.tables", Kind::Other),
            ("CREATE TABLE log (a int)", Kind::Other),
            ("BEGIN UNLOGGED BATCH", Kind::Write),
        ] {
            assert_eq!(Kind::of(text), kind, "{text}");
        }
        let statements = Statements::default();
        let prepare = Frame::request(1, opcode::PREPARE, long_string("DELETE FROM log"));
        let kind = statements.kind(&prepare).unwrap();
        let answer = prepare.answer(opcode::RESULT, vec![0, 0, 0, 4, 0, 2, 7, 8, 0, 0]);
        let execute = Frame::request(1, opcode::EXECUTE, vec![0, 2, 7, 8, 0, 1]);
        assert_eq!(statements.kind(&execute).unwrap(), Kind::Other);
        statements.learn(&answer, kind).unwrap();
        assert_eq!(statements.kind(&execute).unwrap(), Kind::Write);
        assert!(!statements.repeats(&execute));
        assert!(statements.repeats(&execute));
    }
}
