//! Which shard an entity belongs to: a fixed, published hash of its bare JID, the same in every process of a cluster.
//!
//! The number of shards and [`Shards::HASH`] are part of every hello: two processes that would sort one account into
//! different shards must never speak with each other. Neither can change in the life of a cluster's data.

use starling_xmpp::BareJid;

/// One of the parts into which the key space of bare JIDs is cut; counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

/// How many shards there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards {
    count: u16,
}

impl Shards {
    /// The name of the hash, for hellos: what is hashed and how. The key is fixed and public.
    pub const HASH: &'static str = "siphash-2-4/bare-jid";
    /// As many as there can be.
    pub const MAX: u16 = 1024;

    /// `count` shards; `None` unless it is 1 to [`Self::MAX`].
    pub fn new(count: u16) -> Option<Self> {
        (1..=Self::MAX).contains(&count).then_some(Self { count })
    }

    /// How many there are.
    pub fn count(self) -> u16 {
        self.count
    }

    /// All of them, in order.
    pub fn all(self) -> impl ExactSizeIterator<Item = Shard> {
        (0..self.count).map(Shard)
    }

    /// The shard of an account, a room, a service or a remote domain.
    pub fn of(self, entity: &BareJid) -> Shard {
        let hash = siphash24(KEY, entity.as_str().as_bytes());
        // The upper bits times the count: even for every count, without the bias of a remainder.
        let scaled = (u128::from(hash) * u128::from(self.count)) >> 64;
        Shard(u16::try_from(scaled).unwrap_or(0))
    }
}

impl Default for Shards {
    fn default() -> Self {
        Self { count: 16 }
    }
}

/// A number for something that processes tell each other of by what it looks like; the same in all of them. Whoever may choose
/// the bytes may find others with the same number.
pub fn digest(bytes: &[u8]) -> u64 {
    siphash24(DIGEST, bytes)
}

const DIGEST: (u64, u64) = (u64::from_le_bytes(*b"starling"), u64::from_le_bytes(*b"/digest1"));
const KEY: (u64, u64) = (u64::from_le_bytes(*b"starling"), u64::from_le_bytes(*b"/shard/1"));

/// `SipHash-2-4` of `bytes` under a key of two little-endian halves.
fn siphash24(key: (u64, u64), bytes: &[u8]) -> u64 {
    let mut v = [
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        compress(&mut v, u64::from_le_bytes(*word));
    }
    // The last word: what is left, and the length modulo 256 in the highest byte.
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len().to_le_bytes()[0];
    compress(&mut v, u64::from_le_bytes(last));
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn compress(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference vectors: key 00 01 .. 0f, input 00 01 .. of each length from 0 to 15.
    const VECTORS: [&str; 16] = [
        "310e0edd47db6f72",
        "fd67dc93c539f874",
        "5a4fa9d909806c0d",
        "2d7efbd796666785",
        "b7877127e09427cf",
        "8da699cd64557618",
        "cee3fe586e46c9cb",
        "37d1018bf50002ab",
        "6224939a79f5f593",
        "b0e4a90bdf82009e",
        "f3b9dd94c5bb5d7a",
        "a7ad6b22462fb3f4",
        "fbe50e86bc8f1e75",
        "903d84c02756ea14",
        "eef27a8e90ca23f7",
        "e545be4961ca29a1",
    ];

    #[test]
    fn the_hash_is_siphash_2_4() {
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        for (length, expected) in (0u8..).zip(VECTORS) {
            let input: Vec<u8> = (0..length).collect();
            let hash: String =
                siphash24(key, &input).to_le_bytes().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(hash, expected, "length {length}");
        }
    }

    #[test]
    fn shards_never_change() {
        let shards = Shards::default();
        let of = |jid: &str| shards.of(&BareJid::parse(jid).unwrap()).0;
        // Golden: another result would send accounts of a running cluster to other homes.
        assert_eq!(
            [of("alice@localhost"), of("bob@localhost"), of("localhost"), of("room@conference.example.org")],
            GOLDEN
        );
    }

    const GOLDEN: [u16; 4] = [1, 13, 10, 8];

    #[test]
    fn accounts_are_spread_evenly() {
        for count in [1, 7, 16, 1024] {
            let shards = Shards::new(count).unwrap();
            let mut seen = vec![0u32; usize::from(count)];
            for n in 0..u32::from(count) * 400 {
                seen[usize::from(shards.of(&BareJid::parse(&format!("user{n}@example.org")).unwrap()).0)] +=
                    1;
            }
            assert!(seen.iter().all(|n| (280..520).contains(n)), "{count}: {seen:?}");
        }
    }

    #[test]
    fn the_count_is_bounded() {
        assert!(Shards::new(0).is_none() && Shards::new(1025).is_none());
        assert_eq!(Shards::default().all().count(), 16);
    }
}
