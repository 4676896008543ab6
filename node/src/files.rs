//! How many of the files that this process may have open are for clients. The rest is kept for other
//! nodes, Redis, backends and whoever asks by the admin API: a node that is full must not be deaf.

use rustix::process::{Resource, getrlimit};

/// Open files where there is no limit to them: as many as Linux lets a process have by default.
const UNLIMITED: u64 = 1 << 20;
/// What a thread that serves sockets has open by itself.
const OF_SHARD: u64 = 4;

/// What clients may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// Connections that are held.
    pub(crate) held: u64,
    /// TCP connections that are taken: some more, so that those past it can be told that it is full.
    pub(crate) taken: u64,
}

impl Files {
    /// Of this process, with so many shards.
    pub(crate) fn of_process(shards: usize) -> Self {
        Self::of(limit(), shards)
    }

    fn of(limit: u64, shards: usize) -> Self {
        let own = u64::try_from(shards).unwrap_or(u64::MAX).saturating_mul(OF_SHARD);
        let reserve = own.saturating_add(4 * part(limit)).min(limit / 2);
        let held = limit - reserve;
        Self { held, taken: held + part(limit).min(reserve / 2) }
    }
}

/// What each of the other servers of this process may have of what is kept.
pub(crate) fn of_server() -> usize {
    usize::try_from(part(limit())).unwrap_or(usize::MAX).max(1)
}

fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED)
}

/// A quarter of what is kept: for newcomers who are told, for the admin API, for the publish API, and
/// for all else.
fn part(limit: u64) -> u64 {
    (limit / 16).clamp(16, 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_have_it_all_and_some_are_told_so() {
        let of = |limit, shards| {
            let files = Files::of(limit, shards);
            (files.held, files.taken)
        };
        assert_eq!(of(1024, 2), (1024 - 256 - 8, 1024 - 192 - 8));
        assert_eq!(of(1 << 20, 64), ((1 << 20) - 4096 - 256, (1 << 20) - 3072 - 256));
        for limit in 0..200 {
            let (held, taken) = of(limit, 8);
            assert!(held >= limit / 2 && held <= taken && taken <= limit - limit / 4, "{limit}");
        }
        assert_eq!(of(u64::MAX, usize::MAX).0, u64::MAX / 2 + 1);
    }
}
