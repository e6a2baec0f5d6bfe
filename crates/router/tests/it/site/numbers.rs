//! What clients count. Edges and homes have numbers of their own, of which a home may leave some out: nobody else sees that.

use starling_wire::{ConnId, Down, Token};
use std::collections::{BTreeMap, HashMap};

/// How many numbers were left out.
#[derive(Default)]
pub(super) struct Numbers {
    tokens: BTreeMap<ConnId, Token>,
    /// Where counting began.
    bases: HashMap<Token, u64>,
    left_out: BTreeMap<ConnId, u64>,
}

impl Numbers {
    /// The session of a connection.
    pub(super) fn is_of(&mut self, conn: ConnId, token: Token) {
        self.tokens.insert(conn, token);
    }

    /// The number of what a client says as so-and-so-many-th.
    pub(super) fn said(&self, conn: ConnId, count: u64) -> u64 {
        count + self.left_out.get(&conn).unwrap_or(&0)
    }

    /// What it is told, in its own count.
    pub(super) fn told(&mut self, conn: ConnId, down: Down) -> Down {
        let Some(token) = self.tokens.get(&conn) else { return down };
        match down {
            Down::SmEnabled { resume, base } => {
                self.bases.entry(*token).or_insert(base);
                Down::SmEnabled { resume, base }
            }
            Down::Resumed { jid, sequence, base } => {
                let own = self.bases.get(token).copied().unwrap_or(base);
                self.left_out.insert(conn, base - own);
                Down::Resumed { jid, sequence: sequence - (base - own), base: own }
            }
            Down::Handled { sequence } => {
                Down::Handled { sequence: sequence - self.left_out.get(&conn).unwrap_or(&0) }
            }
            down => down,
        }
    }
}
