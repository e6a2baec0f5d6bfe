//! How many connections a server has, and of whom: nobody takes the room of all others.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// What there is of it, whether a certificate was shown yet or not.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

impl Room {
    /// For so many connections, and for so many of one address.
    pub(super) fn new(most: usize, of_one: usize) -> Arc<Self> {
        Arc::new(Self { most, of_one, taken: Mutex::default() })
    }

    /// One more, while the place lives.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Result<Place, &'static str> {
        let from = whole(from);
        let mut taken = self.taken.lock();
        if taken.all >= self.most {
            return Err("too many links");
        }
        if taken.by.get(&from).is_some_and(|own| *own >= self.of_one) {
            return Err("too many links of one address");
        }
        taken.all += 1;
        *taken.by.entry(from).or_default() += 1;
        Ok(Place { room: Arc::clone(self), from })
    }
}

/// What one host has: of IPv6 that is a network.
fn whole(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into(),
        four => four,
    }
}

/// Of one connection.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    from: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock();
        taken.all -= 1;
        if let Some(own) = taken.by.get_mut(&self.from) {
            *own -= 1;
            if *own == 0 {
                taken.by.remove(&self.from);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_take_all_places() {
        let room = Room::new(5, 2);
        let from = |address: &str| room.enter(address.parse().unwrap());
        let one = [from("192.0.2.1").unwrap(), from("::ffff:192.0.2.1").unwrap()];
        assert_eq!(from("192.0.2.1").unwrap_err(), "too many links of one address");
        let six = [from("2001:db8::1").unwrap(), from("2001:db8::2").unwrap()];
        assert!(from("2001:db8::3").is_err(), "of the same network");
        let other = from("2001:db8:0:1::1").unwrap();
        assert_eq!(from("192.0.2.2").unwrap_err(), "too many links");
        drop((one, six, other));
        assert!(from("192.0.2.1").is_ok());
        let taken = room.taken.lock();
        assert!((taken.all, taken.by.len()) == (0, 0), "nothing is left of those who have gone");
    }
}
