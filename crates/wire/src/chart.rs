//! Where the homes of all shards are, as far as this router knows. No link, no clock: a table and its rules.
//!
//! The highest reign that was announced is the home. A router that says that it is not is believed, whatever it said before.

use crate::frame::{Home, NotHome};
use crate::{Epoch, RouterId, Shard, Shards};
use parking_lot::RwLock;

/// All shards; `D` is how a home in this process is reached.
#[derive(Debug)]
pub struct Chart<D> {
    own: RouterId,
    places: Box<[RwLock<Place<D>>]>,
}

/// One shard.
#[derive(Debug)]
struct Place<D> {
    here: Option<Here<D>>,
    /// The home that was announced last.
    known: Option<(Epoch, RouterId)>,
    /// The highest reign that anybody spoke of.
    highest: Epoch,
}

/// A reign of this router.
#[derive(Debug)]
struct Here<D> {
    epoch: Epoch,
    door: D,
    /// It takes what comes.
    open: bool,
    /// How often it has ceased to.
    closings: u64,
    /// It is being moved elsewhere, and opens no more.
    leaving: bool,
}

impl<D: Clone> Here<D> {
    fn close(&mut self) -> bool {
        self.closings += u64::from(self.open);
        std::mem::take(&mut self.open)
    }
}

/// Where what is for a shard goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Way<D> {
    /// To a home in this process.
    Here(Epoch, D),
    /// To another router.
    There(Epoch, RouterId),
    /// Nobody knows.
    Nowhere,
}

impl<D: Clone> Chart<D> {
    /// Nothing is known.
    pub fn new(own: RouterId, shards: Shards) -> Self {
        let place = |_| RwLock::new(Place { here: None, known: None, highest: Epoch(0) });
        Self { own, places: shards.all().map(place).collect() }
    }

    fn place(&self, shard: Shard) -> Option<&RwLock<Place<D>>> {
        self.places.get(usize::from(shard.0))
    }

    fn each(&self) -> impl Iterator<Item = (Shard, &RwLock<Place<D>>)> {
        (0..).map(Shard).zip(&self.places)
    }

    /// A reign of this router begins.
    pub fn begin(&self, home: Home, door: D) {
        let Some(place) = self.place(home.shard) else { return };
        let mut place = place.write();
        place.here = Some(Here { epoch: home.epoch, door, open: true, closings: 0, leaving: false });
        if home.epoch >= place.highest {
            (place.highest, place.known) = (home.epoch, Some((home.epoch, self.own)));
        }
    }

    /// It is over, or was before.
    pub fn end(&self, home: Home) {
        let Some(place) = self.place(home.shard) else { return };
        let mut place = place.write();
        place.here.take_if(|here| here.epoch == home.epoch);
        place.known.take_if(|(epoch, router)| *router == self.own && *epoch == home.epoch);
    }

    /// It takes nothing for a while; returns how often that was so, if it is news.
    pub fn close(&self, home: Home) -> Option<(D, u64)> {
        self.change(home, |here| here.close().then(|| (here.door.clone(), here.closings)))
    }

    /// It takes again what comes; returns whether that is news.
    pub fn reopen(&self, home: Home) -> bool {
        let news = self.change(home, |here| {
            let news = !here.open && !here.leaving;
            here.open |= news;
            news.then_some(())
        });
        news.is_some()
    }

    /// It is about to be moved: it takes nothing more. The same as when it closes.
    pub fn leave(&self, home: Home) -> Option<(D, u64)> {
        self.change(home, |here| {
            here.leaving = true;
            here.close();
            Some((here.door.clone(), here.closings))
        })
    }

    /// Whether this very reign is about to be moved.
    pub fn is_leaving(&self, home: Home) -> bool {
        self.place(home.shard).is_some_and(|place| {
            place.read().here.as_ref().is_some_and(|here| here.epoch == home.epoch && here.leaving)
        })
    }

    /// It was not moved after all; returns whether it takes again what comes. Before it does, `first` is done.
    pub fn stay(&self, home: Home, first: impl FnOnce(&D)) -> bool {
        let left = self.change(home, |here| {
            let left = std::mem::take(&mut here.leaving);
            left.then(|| first(&here.door))
        });
        left.is_some() && self.reopen(home)
    }

    fn change<T>(&self, home: Home, change: impl FnOnce(&mut Here<D>) -> Option<T>) -> Option<T> {
        let mut place = self.place(home.shard)?.write();
        place.here.as_mut().filter(|here| here.epoch == home.epoch).and_then(change)
    }

    /// The home in this process that this very reign is, and how often it was closed before.
    ///
    /// # Errors
    /// What whoever meant it is to be told.
    pub fn take(&self, home: Home) -> Result<(D, u64), NotHome> {
        let found = self.place(home.shard).and_then(|place| {
            let place = place.read();
            let here = place.here.as_ref().filter(|here| here.open && here.epoch == home.epoch)?;
            Some((here.door.clone(), here.closings))
        });
        found.ok_or_else(|| self.not_home(home.shard))
    }

    /// The home in this process, whichever reign it is.
    pub fn here(&self, shard: Shard) -> Option<D> {
        let place = self.place(shard)?.read();
        place.here.as_ref().filter(|here| here.open).map(|here| here.door.clone())
    }

    /// The same, though it takes nothing new for a while.
    pub fn door(&self, shard: Shard) -> Option<D> {
        self.place(shard)?.read().here.as_ref().map(|here| here.door.clone())
    }

    /// Where what is for a shard goes.
    pub fn way(&self, shard: Shard) -> Way<D> {
        self.place(shard).map_or(Way::Nowhere, |place| self.way_of(&place.read()))
    }

    fn way_of(&self, place: &Place<D>) -> Way<D> {
        match (&place.here, place.known) {
            (Some(here), known) if here.open && known.is_none_or(|(epoch, _)| epoch <= here.epoch) => {
                Way::Here(here.epoch, here.door.clone())
            }
            (_, Some((epoch, router))) if router != self.own => Way::There(epoch, router),
            _ => Way::Nowhere,
        }
    }

    /// What whoever takes this router for the home is told. It names nobody whose reign is not the highest that was heard of:
    /// that one would be believed to be of the highest, and the true home no news.
    pub fn not_home(&self, shard: Shard) -> NotHome {
        let Some(place) = self.place(shard) else { return NotHome { shard, epoch: Epoch(0), hint: None } };
        let place = place.read();
        let epoch = place.highest;
        let hint = match self.way_of(&place) {
            Way::Here(own, _) => (own >= epoch).then_some(self.own),
            Way::There(theirs, router) => (theirs >= epoch).then_some(router),
            Way::Nowhere => None,
        };
        NotHome { shard, epoch, hint }
    }

    /// Another router says that it is the home; whether that is news.
    pub fn announced(&self, by: RouterId, home: Home) -> bool {
        let Some(place) = self.place(home.shard) else { return false };
        let mut place = place.write();
        // The highest may be one of which only a denial has spoken, and the one that is known an older one.
        let news = home.epoch >= place.highest && place.known.is_none_or(|(known, _)| known < home.epoch);
        if news {
            (place.highest, place.known) = (home.epoch, Some((home.epoch, by)));
        }
        news
    }

    /// Another router says that it is not the home; whether another one is known now.
    pub fn denied(&self, by: RouterId, not: NotHome) -> bool {
        let Some(place) = self.place(not.shard) else { return false };
        let mut place = place.write();
        if not.hint != Some(by) {
            place.known.take_if(|(_, router)| *router == by);
        }
        let better = match place.known {
            Some((epoch, _)) => not.epoch > epoch,
            None => not.epoch >= place.highest,
        };
        place.highest = place.highest.max(not.epoch);
        let Some(hint) = not.hint.filter(|hint| better && *hint != self.own) else { return false };
        place.known = Some((not.epoch, hint));
        true
    }

    /// The shards that this router is the home of, and takes what comes for.
    pub fn homes(&self) -> Vec<Home> {
        let home = |(shard, place): (Shard, &RwLock<Place<D>>)| {
            let place = place.read();
            let here = place.here.as_ref().filter(|here| here.open)?;
            Some(Home { shard, epoch: here.epoch })
        };
        self.each().filter_map(home).collect()
    }

    /// The reign of this router that takes what comes.
    pub fn reign(&self, shard: Shard) -> Option<Home> {
        let place = self.place(shard)?.read();
        place.here.as_ref().filter(|here| here.open).map(|here| Home { shard, epoch: here.epoch })
    }

    /// All homes in this process.
    pub fn doors(&self) -> Vec<D> {
        let door =
            |(_, place): (Shard, &RwLock<Place<D>>)| place.read().here.as_ref().map(|here| here.door.clone());
        self.each().filter_map(door).collect()
    }

    /// The shards that another router is taken for the home of.
    pub fn of(&self, router: RouterId) -> Vec<Shard> {
        let theirs = |place: &RwLock<Place<D>>| place.read().known.is_some_and(|(_, known)| known == router);
        self.each().filter(|(_, place)| theirs(place)).map(|(shard, _)| shard).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: RouterId = RouterId(1);
    const TWO: RouterId = RouterId(2);
    const THREE: RouterId = RouterId(3);

    fn home(epoch: u64) -> Home {
        Home { shard: Shard(0), epoch: Epoch(epoch) }
    }

    fn chart() -> Chart<&'static str> {
        Chart::new(OWN, Shards::new(2).unwrap())
    }

    fn not(epoch: u64, hint: Option<RouterId>) -> NotHome {
        NotHome { shard: Shard(0), epoch: Epoch(epoch), hint }
    }

    #[test]
    fn the_highest_reign_is_the_home() {
        let chart = chart();
        assert_eq!(chart.way(Shard(0)), Way::Nowhere);
        assert!(chart.announced(TWO, home(5)) && !chart.announced(TWO, home(5)));
        assert!(!chart.announced(THREE, home(4)));
        assert_eq!(chart.way(Shard(0)), Way::There(Epoch(5), TWO));
        chart.begin(home(6), "six");
        assert_eq!(chart.way(Shard(0)), Way::Here(Epoch(6), "six"));
        assert_eq!((chart.take(home(6)), chart.take(home(5))), (Ok(("six", 0)), Err(not(6, Some(OWN)))));
        assert_eq!((chart.homes(), chart.doors()), (vec![home(6)], vec!["six"]));
        assert!(chart.announced(THREE, home(7)));
        assert_eq!(chart.way(Shard(0)), Way::There(Epoch(7), THREE), "though the own one is not over yet");
        assert_eq!(chart.of(THREE), [Shard(0)]);
        chart.end(home(6));
        assert_eq!(chart.take(home(6)), Err(not(7, Some(THREE))));
        assert_eq!(chart.way(Shard(9)), Way::Nowhere);
    }

    #[test]
    fn who_denies_is_believed() {
        let chart = chart();
        assert!(chart.announced(TWO, home(5)));
        assert!(!chart.denied(THREE, not(4, None)), "nobody had asked it");
        assert_eq!(chart.way(Shard(0)), Way::There(Epoch(5), TWO));
        assert!(!chart.denied(TWO, not(0, None)), "restarted, it knows nothing");
        assert_eq!(chart.way(Shard(0)), Way::Nowhere);
        assert!(chart.announced(TWO, home(5)), "it was only closed for a while");
        assert!(chart.denied(TWO, not(6, Some(THREE))));
        assert_eq!(chart.way(Shard(0)), Way::There(Epoch(6), THREE));
        assert!(chart.denied(THREE, not(8, Some(THREE))), "it is, in a later reign");
        assert_eq!(chart.way(Shard(0)), Way::There(Epoch(8), THREE));
        assert!(!chart.denied(THREE, not(9, Some(OWN))), "this router knows better");
        assert_eq!((chart.way(Shard(0)), chart.not_home(Shard(0))), (Way::Nowhere, not(9, None)));
    }

    #[test]
    fn a_home_is_news_though_its_reign_was_spoken_of_before() {
        let chart = chart();
        assert!(chart.announced(TWO, home(5)));
        assert!(!chart.denied(THREE, not(7, None)), "it has heard of one, and does not know where that is");
        assert_eq!(chart.not_home(Shard(0)), not(7, None), "who reigned before is not taken for that one");
        let four = RouterId(4);
        assert!(chart.announced(four, home(7)));
        assert_eq!(chart.way(Shard(0)), Way::There(Epoch(7), four));
        assert!(!chart.announced(four, home(7)) && !chart.announced(TWO, home(5)));
        assert_eq!(chart.not_home(Shard(0)), not(7, Some(four)));
        chart.begin(home(8), "eight");
        assert!(!chart.denied(TWO, not(9, None)));
        assert_eq!((chart.reign(Shard(0)), chart.not_home(Shard(0))), (Some(home(8)), not(9, None)));
    }

    #[test]
    fn a_home_that_leaves_takes_nothing() {
        let chart = chart();
        chart.begin(home(3), "three");
        assert_eq!((chart.close(home(3)), chart.close(home(3))), (Some(("three", 1)), None));
        assert_eq!((chart.way(Shard(0)), chart.here(Shard(0))), (Way::Nowhere, None));
        assert_eq!(chart.door(Shard(0)), Some("three"), "who knows it finds it");
        assert!(chart.reopen(home(3)) && !chart.reopen(home(3)));
        assert_eq!(chart.take(home(3)), Ok(("three", 1)));
        assert_eq!(chart.leave(home(3)), Some(("three", 2)));
        assert_eq!((chart.leave(home(3)), chart.close(home(3))), (Some(("three", 2)), None));
        assert!(!chart.reopen(home(3)), "it is leaving");
        assert_eq!((chart.homes(), chart.doors()), (vec![], vec!["three"]));
        assert!(chart.stay(home(3), |_| ()) && !chart.stay(home(3), |_| ()));
        assert_eq!(chart.here(Shard(0)), Some("three"));
        assert!(chart.leave(home(2)).is_none() && chart.close(home(2)).is_none(), "of another reign");
        chart.end(home(2));
        assert_eq!(chart.here(Shard(0)), Some("three"));
        chart.end(home(3));
        assert_eq!(chart.door(Shard(0)), None);
    }
}
