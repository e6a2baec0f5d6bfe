//! Archive ids: what clients see of a position.
//!
//! One AES-128 block over (position, owner's mark) with a key of the cluster, in hex: unpredictable, the same on every
//! node, and an id that was made up, or belongs to another archive, decodes to a wrong mark and is detected
//! (XEP-0313 §4.3.2: unknown `after` is `item-not-found`; XEP-0359 §3: ids must not be guessable).

use aes::Aes128;
use aes::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use compact_str::CompactString;
use sha2::{Digest, Sha256};
use starling_store::Position;
use starling_xmpp::BareJid;

/// Makes and reads archive ids.
#[derive(Clone)]
pub struct ArchiveIds {
    cipher: Aes128,
    mark_key: [u8; 16],
}

impl ArchiveIds {
    /// With the cluster's secret for archive ids.
    pub fn new(secret: &[u8; 32]) -> Self {
        let (key, mark) = secret.split_at(16);
        let mut cipher_key = [0; 16];
        cipher_key.copy_from_slice(key);
        let mut mark_key = [0; 16];
        mark_key.copy_from_slice(mark);
        Self { cipher: Aes128::new(&Array::from(cipher_key)), mark_key }
    }

    /// The id of a row.
    pub fn encode(&self, owner: &BareJid, position: Position) -> CompactString {
        let mut block = [0; 16];
        block[..8].copy_from_slice(&position.0.to_be_bytes());
        block[8..].copy_from_slice(&self.mark(owner));
        let mut block = Array::from(block);
        self.cipher.encrypt_block(&mut block);
        let mut id = CompactString::with_capacity(32);
        for byte in block {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            id.push(char::from(HEX[usize::from(byte >> 4)]));
            id.push(char::from(HEX[usize::from(byte & 15)]));
        }
        id
    }

    /// The row an id stands for in this owner's archive; `None` for anything else.
    pub fn decode(&self, owner: &BareJid, id: &str) -> Option<Position> {
        let id = id.as_bytes();
        if id.len() != 32 {
            return None;
        }
        let mut block = [0; 16];
        for (byte, pair) in block.iter_mut().zip(id.chunks_exact(2)) {
            *byte = hex(pair[0])? << 4 | hex(pair[1])?;
        }
        let mut block = Array::from(block);
        self.cipher.decrypt_block(&mut block);
        let (position, mark) = block.split_at(8);
        if mark != self.mark(owner) {
            return None;
        }
        Some(Position(u64::from_be_bytes(position.try_into().ok()?)))
    }

    fn mark(&self, owner: &BareJid) -> [u8; 8] {
        let digest = Sha256::new().chain_update(self.mark_key).chain_update(owner.as_str()).finalize();
        let mut mark = [0; 8];
        mark.copy_from_slice(&digest[..8]);
        mark
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_ids_and_no_others() {
        let ids = ArchiveIds::new(&[7; 32]);
        let alice = BareJid::parse("alice@localhost").unwrap();
        let bob = BareJid::parse("bob@localhost").unwrap();
        let id = ids.encode(&alice, Position(1_700_000_000_000_000));
        assert_eq!(ids.decode(&alice, &id), Some(Position(1_700_000_000_000_000)));
        assert_eq!(ids.decode(&bob, &id), None);
        assert_eq!(ArchiveIds::new(&[8; 32]).decode(&alice, &id), None);
        let mut forged = id.as_bytes().to_vec();
        forged[3] = if forged[3] == b'0' { b'1' } else { b'0' };
        assert_eq!(ids.decode(&alice, std::str::from_utf8(&forged).unwrap()), None);
        assert_eq!(ids.decode(&alice, "nonsense"), None);
    }
}
