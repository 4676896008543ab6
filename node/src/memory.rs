//! How much memory may be taken by what waits for clients: the bound of the node, and how much each of its shards
//! lets go of past it. Which clients that costs is for the shard to say.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// The bound when nothing says how much memory there is.
const FIXED: usize = 256 << 20;
/// The least that it is however little there is: a single message may take half of it.
const LEAST: usize = 16 << 20;
/// Between two lines of the log.
const QUIET: Duration = Duration::from_secs(60);

/// So many, as gauges have it.
pub(crate) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The most that may wait for the clients of a node, in bytes of memory.
pub(crate) struct Bound {
    /// When nothing else is configured.
    own: usize,
    most: AtomicUsize,
    warned: Mutex<Option<Instant>>,
}

impl Bound {
    /// A quarter of what this process may have.
    pub(crate) fn new() -> Self {
        let part = |limit: u64| usize::try_from(limit / 4).unwrap_or(usize::MAX).max(LEAST);
        let own = limit().map_or(FIXED, part);
        Self { own, most: AtomicUsize::new(own), warned: Mutex::default() }
    }

    /// Puts a configured bound in force, or the node's own; gives it.
    pub(crate) fn set(&self, most: Option<u64>) -> usize {
        let most = most.map_or(self.own, |most| usize::try_from(most).unwrap_or(usize::MAX));
        self.most.store(most, Ordering::Relaxed);
        most
    }

    /// What a shard that holds `held` of `all` is to keep, if it is to let go of something: not while all is
    /// well, nor while it is for others to.
    pub(crate) fn keep(&self, held: usize, all: usize, shards: usize) -> Option<usize> {
        keep(held, all, self.most.load(Ordering::Relaxed), shards)
    }

    /// Whether the log is to have a line: not one more for each client.
    pub(crate) fn may_warn(&self, now: Instant) -> bool {
        let mut warned = self.warned.lock();
        let may = warned.is_none_or(|last| now.duration_since(last) >= QUIET);
        if may {
            *warned = Some(now);
        }
        may
    }
}

/// Shards ask nobody what else is held where: each that holds more than its part of three quarters
/// lets go of what is too much in all, down to its part. When all have, no more than that is left.
fn keep(held: usize, all: usize, most: usize, shards: usize) -> Option<usize> {
    let low = most / 4 * 3;
    let part = low / shards.max(1);
    (all > most && held > part).then(|| held.saturating_sub(all - low).max(part))
}

/// The memory that this process may have, by its control group. `None` without a limit.
fn limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    lowest(Path::new("/sys/fs/cgroup"), &groups)
}

/// The lowest limit of the groups, each a line `number:controllers:path`, and of those above them. In a
/// container the path may be one that can't be seen there: then the group is mounted as if it were the top.
fn lowest(root: &Path, groups: &str) -> Option<u64> {
    let limits = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = Path::new(path.trim_start_matches('/')).to_owned();
        let files = group.ancestors().map(|group| root.join(group).join(file));
        files.filter_map(read).min()
    });
    limits.min()
}

fn read(file: PathBuf) -> Option<u64> {
    // `max`, or, in version 1, a number that no memory has.
    let limit: u64 = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    (limit < 1 << 60).then_some(limit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lowest_limit_on_the_way_to_the_top_counts_in_both_versions() {
        let root =
            std::env::temp_dir().join(format!("sluice-memory-{:016x}", rand::random::<u64>()));
        let put = |path: &str, text: &str| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        assert_eq!(lowest(&root, "0::/pods/a\n"), None);
        put("pods/memory.max", "1000\n");
        put("pods/a/memory.max", "max\n");
        assert_eq!(lowest(&root, "0::/pods/a\n"), Some(1000));
        put("pods/a/memory.max", "500\n");
        assert_eq!(lowest(&root, "0::/pods/a\n"), Some(500));
        assert_eq!(lowest(&root, "0::/elsewhere\n"), None);
        put("memory.max", "2000\n");
        assert_eq!(lowest(&root, "0::/\n"), Some(2000));
        let first = "12:cpu,cpuacct:/x\n5:memory:/not/seen/here\n1:name=systemd:/x\n";
        assert_eq!(lowest(&root, first), None);
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(lowest(&root, first), None);
        put("memory/memory.limit_in_bytes", "4000\n");
        assert_eq!(lowest(&root, first), Some(4000));
        assert_eq!(lowest(&root, "no line\n:\n"), None);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_bound_that_is_configured_counts_until_it_is_not_any_more() {
        let bound = Bound::new();
        assert!(bound.set(None) >= LEAST);
        assert_eq!(bound.set(Some(400)), 400);
        assert_eq!((bound.keep(400, 400, 1), bound.keep(401, 401, 1)), (None, Some(300)));
        assert_eq!(bound.set(None), bound.own);
    }

    #[test]
    fn the_log_has_a_line_a_minute() {
        let (bound, now) = (Bound::new(), Instant::now());
        let told = (0..100).filter(|second| bound.may_warn(now + Duration::from_secs(*second)));
        assert_eq!(told.collect::<Vec<_>>(), [0, 60]);
    }

    proptest! {
        /// In whatever order they get to it.
        #[test]
        fn shards_let_go_of_no_more_than_down_to_three_quarters(
            held in proptest::collection::vec(0usize..1000, 1..9), most in 8usize..4000
        ) {
            let (mut now, before) = (held.clone(), held.iter().sum::<usize>());
            for shard in 0..held.len() {
                let all = now.iter().sum();
                if let Some(kept) = keep(now[shard], all, most, held.len()) {
                    prop_assert!(kept < now[shard]);
                    now[shard] = kept;
                }
            }
            let after: usize = now.iter().sum();
            if before <= most {
                prop_assert_eq!(now, held);
            } else {
                prop_assert!((most / 4 * 3..=most).contains(&after), "{} of {}", after, most);
            }
        }
    }
}
