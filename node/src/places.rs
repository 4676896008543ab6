//! A bounded number of places for connections, of which one address may take a part only: a
//! stranger cannot keep everyone else out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// The places of one listener.
pub struct Places {
    total: usize,
    per_ip: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// A place taken; free again when dropped.
pub struct Place {
    of: Arc<Places>,
    ip: IpAddr,
}

impl Places {
    /// `total` places, at most `per_ip` for one address.
    pub fn new(total: usize, per_ip: usize) -> Arc<Self> {
        Arc::new(Self { total, per_ip, taken: Mutex::default() })
    }

    /// Takes a place for a connection from `ip`; `None` when there is none.
    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let ip = ip.to_canonical();
        let mut taken = self.taken.lock();
        let here = taken.by_ip.get(&ip).copied().unwrap_or(0);
        if taken.all >= self.total || here >= self.per_ip {
            return None;
        }
        taken.all += 1;
        taken.by_ip.insert(ip, here + 1);
        Some(Place { of: self.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        taken.all -= 1;
        if let Some(n) = taken.by_ip.get_mut(&self.ip) {
            *n -= 1;
            if *n == 0 {
                taken.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_takes_its_part_and_all_take_all() {
        let places = Places::new(3, 2);
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut held = vec![places.enter(ip(1)).unwrap(), places.enter(ip(1)).unwrap()];
        assert!(places.enter("::ffff:10.0.0.1".parse().unwrap()).is_none());
        held.push(places.enter(ip(2)).unwrap());
        assert!(places.enter(ip(3)).is_none());
        held.clear();
        assert!(places.enter(ip(3)).is_some());
        assert!(places.taken.lock().by_ip.is_empty());
    }
}
