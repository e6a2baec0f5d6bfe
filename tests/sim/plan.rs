//! What a run is to do: everything that is decided before it begins, from its seed.

use crate::planted::Planted;
use starling_store_scylla::model::{Dice, Faults};
use std::time::Duration;

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) accounts: Vec<Cast>,
    /// How many messages may be written in all.
    pub(crate) messages: u32,
    /// How often something befalls the server or the store.
    pub(crate) blows: u32,
    /// How long it is left alone in between, at most.
    pub(crate) calm: Duration,
    pub(crate) faults: Faults,
    /// Faults come and go with the blows, or are there all the time.
    pub(crate) steady: bool,
    /// How many of a thousand words on a connection take long.
    pub(crate) slow_lines: u16,
    /// How wrong the clocks of the processes are, in microseconds, at most.
    pub(crate) clocks: i64,
    pub(crate) bucket_rows: u32,
    pub(crate) volume_buckets: usize,
    /// Unconfirmed rows of one account.
    pub(crate) window: usize,
    /// Accounts of which the store remembers something.
    pub(crate) owners: usize,
    pub(crate) resume_timeout: Duration,
    /// How long clients keep a connection, at most.
    pub(crate) sessions: Duration,
    /// How long they bear it when it is silent.
    pub(crate) patience: Duration,
    /// How often of a thousand times that they write they change their roster or block list as well.
    pub(crate) duties: u16,
    pub(crate) planted: Option<Planted>,
    /// Whether all that happens is written down.
    pub(crate) told: bool,
}

/// An account and its devices.
#[derive(Debug, Clone)]
pub(crate) struct Cast {
    pub(crate) name: &'static str,
    pub(crate) devices: Vec<Device>,
    /// Its devices count no stanzas (XEP-0198): what is lost with a connection is lost.
    pub(crate) plain: bool,
}

/// A device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    /// Messages come to it.
    Phone,
    /// It has a negative priority and gets copies.
    Desk,
    /// The same.
    Den,
}

impl Device {
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Phone => "phone",
            Self::Desk => "desk",
            Self::Den => "den",
        }
    }
}

impl Plan {
    pub(crate) fn of(seed: u64, planted: Option<Planted>) -> Self {
        let mut dice = Dice::new(seed);
        let names = ["ann", "bob", "cat", "dan"];
        let accounts = names.iter().take(2 + dice.place(3)).map(|name| {
            let mut devices = vec![Device::Phone];
            if dice.permille(500) {
                devices.push(Device::Desk);
                if dice.permille(200) {
                    devices.push(Device::Den);
                }
            }
            Cast { name, devices, plain: *name != "ann" && dice.permille(120) }
        });
        let accounts = accounts.collect();
        let faults = Faults::of(&mut dice);
        // Most bugs need few messages, and short runs are many.
        let most = [30, 30, 60, 140][dice.place(4)];
        Self {
            seed,
            accounts,
            messages: u32::try_from(dice.within(10..most)).unwrap_or(10),
            blows: u32::try_from(dice.within(0..6)).unwrap_or(0),
            calm: Duration::from_millis([300, 2_000, 8_000][dice.place(3)]),
            faults,
            steady: dice.permille(300),
            slow_lines: [0, 10, 200][dice.place(3)],
            clocks: [0, 500_000, 20_000_000, 3_600_000_000][dice.place(4)],
            bucket_rows: [2, 3, 5, 8, 1_000][dice.place(5)],
            volume_buckets: [1, 2, 3][dice.place(3)],
            window: [1, 3, 256][dice.place(3)],
            owners: [1, 3, 1_000][dice.place(3)],
            resume_timeout: Duration::from_secs([2, 20, 300][dice.place(3)]),
            sessions: Duration::from_secs([6, 6, 40][dice.place(3)]),
            patience: Duration::from_secs([12, 12, 30][dice.place(3)]),
            duties: [80, 80, 400][dice.place(3)],
            planted,
            told: false,
        }
    }
}
