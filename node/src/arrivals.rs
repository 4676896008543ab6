//! Sockets on their way: let in under an id by the connect callback, and not on a shard yet. A
//! `disconnect` on the id that is made meanwhile closes them as it does those that are open
//! (`P-CON-10`).
//!
//! What is told here is told before the shards are: a socket is found either here or there.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

/// The event that closes the sockets of an id.
pub(crate) const DISCONNECT: &str = "disconnect";

/// The ids of sockets on their way. There are no more of them than connections.
#[derive(Clone, Default)]
pub(crate) struct Arrivals(Arc<Mutex<HashMap<Arc<str>, Awaited>>>);

#[derive(Default)]
struct Awaited {
    sockets: usize,
    disconnects: u64,
}

impl Arrivals {
    /// A socket has been let in as `id`.
    pub(crate) fn expect(&self, id: &Arc<str>) -> Arrival {
        let mut all = self.0.lock();
        let awaited = all.entry(id.clone()).or_default();
        awaited.sockets += 1;
        Arrival { all: self.clone(), id: id.clone(), before: awaited.disconnects }
    }

    /// The sockets of `id` are to be closed.
    pub(crate) fn disconnect(&self, id: &str) {
        if let Some(awaited) = self.0.lock().get_mut(id) {
            awaited.disconnects += 1;
        }
    }
}

/// One socket on its way; it has arrived, or never will, when this is dropped.
pub(crate) struct Arrival {
    all: Arrivals,
    id: Arc<str>,
    /// How many there had been when it was let in.
    before: u64,
}

impl Arrival {
    /// Whether it is to be closed. To be asked once its shard knows it by its id.
    pub(crate) fn is_disconnected(&self) -> bool {
        let all = self.all.0.lock();
        all.get(&self.id).is_some_and(|awaited| awaited.disconnects > self.before)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if let Entry::Occupied(mut awaited) = self.all.0.lock().entry(self.id.clone()) {
            awaited.get_mut().sockets -= 1;
            if awaited.get().sockets == 0 {
                awaited.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_con_10_only_those_on_their_way_when_it_is_made_are_disconnected() {
        let (arrivals, id) = (Arrivals::default(), Arc::from("users:anna"));
        arrivals.disconnect(&id);
        let first = arrivals.expect(&id);
        let other = arrivals.expect(&"users:bert".into());
        assert!(!first.is_disconnected());
        arrivals.disconnect(&id);
        let later = arrivals.expect(&id);
        let told = [&first, &other, &later].map(Arrival::is_disconnected);
        assert_eq!(told, [true, false, false]);
        drop((first, other, later));
        assert!(arrivals.0.lock().is_empty(), "nothing is kept");
    }
}
