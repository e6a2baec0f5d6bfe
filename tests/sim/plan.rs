//! What a run is to do: everything that is decided before it begins, from its seed.

use crate::cluster::Break;
use crate::planted::Planted;
use starling_store_scylla::model::{Dice, Faults};
use std::time::Duration;

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) focus: Focus,
    /// What befalls it, each as often as it stands here.
    pub(crate) kinds: Vec<Blow>,
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
    /// How many of a thousand words of one home to another are lost, or come twice, or late.
    pub(crate) lossy: u16,
    /// How many of a thousand writes are still in their process for a while: one that is stopped meanwhile makes them when it goes
    /// on.
    pub(crate) lingering: u16,
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
    /// They write a few messages so often, at most.
    pub(crate) pace: Duration,
    /// How many they write at once, less than.
    pub(crate) burst: u64,
    /// How often of a thousand times that they write they change their roster or block list as well.
    pub(crate) duties: u16,
    /// Until when they do.
    pub(crate) duties_until: Duration,
    /// How many of a thousand changes of the locations take long.
    pub(crate) slow_entries: u16,
    /// How many of a thousand messages that were refused for now clients send again in the same session.
    pub(crate) stubborn: u16,
    /// How many of a thousand times that they wait for a session they soon try elsewhere.
    pub(crate) hasty: u16,
    pub(crate) planted: Option<Planted>,
    /// It is a cluster.
    pub(crate) shape: Option<Shape>,
    /// What befalls a cluster.
    pub(crate) strikes: Vec<Strike>,
    /// Nothing befalls it for which anybody should be refused anything.
    pub(crate) gentle: bool,
    pub(crate) breaks: Option<Break>,
    /// Whether all that happens is written down.
    pub(crate) told: bool,
}

/// What a run has more of than others. Some bugs need several things to go wrong one after the other: among runs in which
/// anything may, those would be too rare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Focus {
    /// Anything.
    All,
    /// Writes that come late, while one server follows the other.
    Late,
    /// Answers that do not come.
    Answers,
    /// Processes that sleep while others take over.
    Sleep,
    /// Processes that are killed, in a world that is well otherwise.
    Crash,
}

/// Something that befalls the server or the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// Killed, and started where it was.
    Restart,
    /// Killed, and started on another machine.
    Another,
    /// Stopped, and goes on while another one serves, or is about to.
    Zombie,
    /// Stopped, and goes on.
    Nap,
    /// Nobody reaches the store.
    Away,
    /// A replica, or two, are down.
    Replica,
    /// The server's clock is set.
    Clock,
    /// The server is told to end.
    Stop,
    /// Somebody gets a new password.
    Keys,
    /// Most of what is written comes late.
    Belate,
    /// An account is removed and made again.
    Remake,
}

/// Something that befalls a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strike {
    /// A router is killed.
    Router,
    /// An edge is killed.
    Edge,
    /// Shards are given to other routers.
    Move,
    /// Shards are, of sessions that have just been resumed; or their homes die.
    Chase,
    /// A router is stopped, and goes on.
    Sleep,
    /// An edge is.
    Doze,
    /// No other router hears one.
    Alone,
    /// Nothing goes between an edge and some routers.
    Apart,
    /// A router and some edges hear nothing of the others.
    Split,
    /// Links break.
    Links,
    /// Two routers are killed.
    Quorum,
    /// A router and an edge are killed.
    Both,
    /// An edge is killed, and soon after it the home of some whose sessions were there, wherever they are by then.
    Orphan,
    /// A router gives away what it leads, and ends.
    Leave,
}

/// What a run of a cluster has more of than others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accent {
    /// Nothing.
    None,
    /// Planned moves and broken links, and nothing else.
    Moves,
    /// Reigns that end without having been told.
    Reigns,
    /// Sessions that go from edge to edge.
    Sessions,
    /// Changes of the locations that take long, and reigns that end before they are done.
    Entries,
}

impl Accent {
    const ALL: [Self; 4] = [Self::Moves, Self::Reigns, Self::Sessions, Self::Entries];

    fn strikes(self) -> Vec<Strike> {
        use Strike::{
            Alone, Apart, Both, Chase, Doze, Edge, Leave, Links, Move, Orphan, Quorum, Router, Sleep, Split,
        };
        match self {
            Self::None => {
                vec![
                    Router, Router, Edge, Edge, Move, Chase, Sleep, Sleep, Doze, Alone, Apart, Split, Links,
                    Quorum, Both, Orphan, Leave,
                ]
            }
            Self::Moves => vec![Move, Chase, Links],
            Self::Reigns => vec![Router, Router, Sleep, Alone, Split, Split, Move],
            Self::Sessions => vec![Edge, Edge, Links, Move, Chase, Chase, Doze, Apart],
            Self::Entries => vec![Chase, Chase, Chase, Router, Alone, Alone, Split],
        }
    }
}

/// How many of what a cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) routers: usize,
    pub(crate) edges: usize,
    pub(crate) shards: u16,
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

impl Focus {
    const ALL: [Self; 5] = [Self::All, Self::Late, Self::Answers, Self::Sleep, Self::Crash];

    fn kinds(self) -> Vec<Blow> {
        use Blow::{Another, Away, Belate, Clock, Keys, Nap, Remake, Replica, Restart, Stop, Zombie};
        match self {
            Self::All => vec![
                Restart, Restart, Restart, Restart, Another, Zombie, Nap, Away, Replica, Replica, Clock,
                Stop, Keys, Belate, Remake, Remake,
            ],
            Self::Late => vec![Belate],
            Self::Answers => vec![Keys, Keys, Remake],
            Self::Sleep => vec![Zombie, Zombie, Nap],
            Self::Crash => vec![Restart, Restart, Restart, Another, Stop],
        }
    }
}

impl Plan {
    /// What a seed gives; what it has more of is chosen for the bug that is planted, if there is one.
    pub(crate) fn of(seed: u64, planted: Option<Planted>) -> Self {
        let focus = planted.map_or_else(
            || match Dice::new(!seed).place(10) {
                some @ 0..5 => Focus::ALL[some],
                _ => Focus::All,
            },
            Planted::focus,
        );
        let plan = Self { planted, ..Self::wide(seed) };
        match focus {
            Focus::All => plan,
            focus => plan.narrow(focus),
        }
    }

    /// The same world without the bug.
    pub(crate) fn sound(self) -> Self {
        Self { planted: None, breaks: None, ..self }
    }

    fn wide(seed: u64) -> Self {
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
        // Some write more at once than may be under way.
        let floods = Dice::new(seed ^ 0xf100d).permille(60);
        let least = if floods { 139 } else { 10 };
        Self {
            seed,
            focus: Focus::All,
            kinds: Focus::All.kinds(),
            accounts,
            messages: u32::try_from(dice.within(10..most)).unwrap_or(10).max(least),
            blows: u32::try_from(dice.within(0..6)).unwrap_or(0),
            calm: Duration::from_millis([300, 2_000, 8_000][dice.place(3)]),
            faults,
            steady: dice.permille(300),
            slow_lines: [0, 10, 200][dice.place(3)],
            lossy: 0,
            lingering: 0,
            clocks: [0, 500_000, 20_000_000, 3_600_000_000][dice.place(4)],
            bucket_rows: [2, 3, 5, 8, 1_000][dice.place(5)],
            volume_buckets: [1, 2, 3][dice.place(3)],
            window: [1, 3, 256][dice.place(3)],
            owners: [1, 3, 1_000][dice.place(3)],
            resume_timeout: Duration::from_secs([2, 20, 300][dice.place(3)]),
            sessions: Duration::from_secs([6, 6, 40][dice.place(3)]),
            patience: Duration::from_secs([12, 12, 30][dice.place(3)]),
            pace: Duration::from_millis([400, 400, 3_000][dice.place(3)]),
            burst: if floods { 85 } else { 8 },
            duties: [80, 80, 400][dice.place(3)],
            duties_until: Duration::from_secs([5, 3_600][dice.place(2)]),
            slow_entries: 50,
            stubborn: 0,
            hasty: 0,
            planted: None,
            shape: None,
            strikes: Vec::new(),
            gentle: false,
            breaks: None,
            told: false,
        }
    }

    /// A cluster.
    pub(crate) fn cluster(seed: u64, breaks: Option<Break>) -> Self {
        let mut dice = Dice::new(seed ^ 0xc105_7e12);
        let plan = Self::wide(seed);
        let shape = Shape { routers: 3, edges: 3, shards: [2, 3, 4][dice.place(3)] };
        let plan = Self {
            shape: Some(shape),
            strikes: Accent::None.strikes(),
            breaks,
            faults: if dice.permille(500) { Faults::NONE } else { plan.faults },
            pace: Duration::from_millis([400, 1_500][dice.place(2)]),
            blows: plan.blows + 2,
            calm: Duration::from_millis([300, 1_500, 4_000][dice.place(3)]),
            clocks: 0,
            lossy: [0, 0, 5, 50][dice.place(4)],
            stubborn: [0, 400][dice.place(2)],
            hasty: [0, 300][dice.place(2)],
            ..plan
        };
        let chosen = if dice.permille(300) { Accent::ALL[dice.place(4)] } else { Accent::None };
        plan.accented(breaks.map_or(chosen, Break::accent), &mut dice)
    }

    fn accented(self, accent: Accent, dice: &mut Dice) -> Self {
        if accent == Accent::None {
            return self;
        }
        // Answers that come when their home is one no more.
        let mut others = Dice::new(self.seed ^ 0x510_3000);
        let slow = Faults { slow: 200, ..Faults::NONE };
        Self {
            strikes: accent.strikes(),
            gentle: accent == Accent::Moves,
            slow_entries: if accent == Accent::Entries { 500 } else { self.slow_entries },
            lossy: if accent == Accent::Moves { 0 } else { self.lossy },
            lingering: if accent == Accent::Reigns { [0, 300][others.place(2)] } else { 0 },
            faults: if accent == Accent::Reigns && others.permille(500) { slow } else { Faults::NONE },
            steady: true,
            messages: self.messages.max(90),
            blows: 6,
            slow_lines: [100, 300][dice.place(2)],
            calm: Duration::from_millis([300, 1_500][dice.place(2)]),
            pace: Duration::from_millis(300),
            sessions: Duration::from_secs([2, 6][dice.place(2)]),
            patience: Duration::from_secs(30),
            resume_timeout: Duration::from_secs([2, 20][dice.place(2)]),
            ..self
        }
    }

    /// Leaves out what does not belong to it, and has more of what does.
    fn narrow(self, focus: Focus) -> Self {
        let mut dice = Dice::new(self.seed ^ 0x5eed);
        let blows = 1 + u32::try_from(dice.place(3)).unwrap_or(0);
        let plan = Self { focus, kinds: focus.kinds(), blows, faults: Faults::NONE, ..self };
        let calm = Duration::from_millis([300, 1_500][dice.place(2)]);
        match focus {
            Focus::All => plan,
            Focus::Late => Self {
                calm,
                steady: false,
                bucket_rows: [2, 3, 5][dice.place(3)],
                messages: plan.messages.max(60),
                pace: Duration::from_millis([400, 1_500][dice.place(2)]),
                duties: 400,
                duties_until: Duration::from_secs([2, 4, 8][dice.place(3)]),
                ..plan
            },
            Focus::Answers => {
                // Of everything, or for the most part of what is written, which is done all the same.
                let (lost_answers, late, share) =
                    [(250, 50, 1_000), (20, 500, 500), (0, 700, 300)][dice.place(3)];
                let (late_by, salt) = (Duration::from_secs(dice.within(5..40)), dice.next());
                let faults = Faults { lost_answers, late, late_by, share, salt, ..Faults::NONE };
                Self {
                    faults,
                    steady: lost_answers > 100,
                    messages: plan.messages.min(40),
                    calm: Duration::from_secs(3),
                    pace: Duration::from_millis(800),
                    duties: 400,
                    duties_until: Duration::from_secs([4, 8, 16][dice.place(3)]),
                    ..plan
                }
            }
            Focus::Sleep => Self {
                calm,
                pace: Duration::from_secs(6),
                patience: Duration::from_secs(30),
                sessions: Duration::from_secs([6, 40][dice.place(2)]),
                lingering: [0, 300][dice.place(2)],
                ..plan
            },
            Focus::Crash => Self {
                calm,
                blows: blows + 2,
                faults: Faults { slow: [0, 300][dice.place(2)], slow_by: calm, ..Faults::NONE },
                steady: true,
                pace: Duration::from_millis(1_000),
                slow_lines: [0, 200][dice.place(2)],
                ..plan
            },
        }
    }
}
