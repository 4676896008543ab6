//! Who leaves, who is replaced, and how many pods there are to be: the one place that knows the
//! conveyor, the roll in place, scaling and the canary. It looks at positions and revisions only,
//! never at drains under way, so that a drain can't change its own reason.

use sluice_crds::{ChannelClusterSpec, DrainReason};

use super::{Slot, Slots};
use crate::model::StuckReason;

/// How a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    /// The lowest ordinals leave: `ordinals.start` moves up.
    Bottom,
    /// The highest ordinals leave: `replicas` shrinks.
    Top,
    /// The ordinal stays and comes back at the wanted revision: the partition moves down.
    InPlace,
    /// Who asked to evict it removes it: no cursor does. It comes back elsewhere.
    Evicted,
}

/// A pod that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Victim {
    /// Its index.
    pub index: usize,
    /// How it goes.
    pub way: Way,
    /// Why.
    pub reason: DrainReason,
}

/// Where the cluster is to get to from here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Pods that are to go, in the order in which they do.
    pub victims: Vec<Victim>,
    /// Pods that there are to be now, a surge included.
    pub total: i32,
    /// New pods that are still needed above those there are, once every old one has left.
    pub needed: i32,
    /// Pods that stay at the revision before: the canary stands.
    pub kept: i32,
}

impl Shape {
    /// How the pod at `index` goes, if it does.
    pub(crate) fn victim(&self, index: usize) -> Option<&Victim> {
        self.victims.iter().find(|v| v.index == index)
    }
}

/// The shape for these pods. While the cluster is paused nobody goes.
pub(crate) fn shape(spec: &ChannelClusterSpec, slots: &Slots<'_>) -> Shape {
    of(spec, &slots.list)
}

/// As [`shape`], for some of the slots.
pub(crate) fn of(spec: &ChannelClusterSpec, list: &[Slot<'_>]) -> Shape {
    let n = spec.replicas.max(0);
    let r = list.len() as i32;
    let mut old: Vec<usize> = (0..list.len()).filter(|&i| !list[i].updated).collect();
    if spec.paused {
        return Shape { total: r.max(n), kept: old.len() as i32, ..Shape::default() };
    }
    let rolling = &spec.update_strategy.rolling_update;
    let (surge, unavailable) = (rolling.max_surge.max(0), rolling.max_unavailable.max(0));
    // What another spec has ended goes, wherever it is; but a canary that lacks pods at the revision
    // before keeps the lowest of those.
    let keep = rolling.partition.max(0).min(n);
    let mut lacks = keep - old.iter().filter(|&&i| !list[i].superseded).count() as i32;
    let ends = |s: &Slot<'_>| {
        let spared = s.spare && lacks > 0;
        lacks -= i32::from(spared);
        s.superseded && !spared
    };
    let ended: Vec<bool> = list.iter().map(ends).collect();
    let superseded = old.iter().filter(|&&i| ended[i]).count() as i32;
    let kept = keep.min(old.len() as i32 - superseded);
    // The only pod is replaced before it is evicted, as if it were old: no client is without one.
    let alone = n == 1 && surge > 0 && kept == 0 && list.first().is_some_and(|s| s.evicting);
    if alone && !old.contains(&0) {
        old.insert(0, 0);
    }
    // Of these any may be kept.
    let before = old.len() as i32 - superseded;
    let todo = superseded + before - kept;
    let is_old = |&(i, s): &(usize, &Slot<'_>)| !s.updated || (i == 0 && alone);
    let prefix = list.iter().enumerate().take_while(is_old).count() as i32;

    // A canary keeps pods that serve: of those that can't start, the ones that no healthy one stands
    // above are replaced where they are, and first.
    let useless = |&(s, ended): &(&Slot<'_>, &bool)| s.updated || *ended || s.stuck().is_some();
    let from_top = list.iter().zip(&ended).rev().take_while(useless);
    let dead = from_top.filter(|(s, ended)| !s.updated && !**ended);
    let dead = if kept > 0 { (dead.count() as i32).min(before - kept) } else { 0 };

    let mut may_leave = before - kept - dead;
    let leaves = ended.iter().take(prefix as usize).take_while(|ended| {
        may_leave -= i32::from(!**ended);
        may_leave >= 0
    });
    let mut bottom = leaves.count() as i32;
    let (needed, total);
    if surge > 0 {
        needed = (n - (r - bottom)).max(0);
        total = if needed > 0 && bottom > 0 {
            n + surge.min(bottom)
        } else if unavailable == 0 {
            // None may be missing while one in the middle is replaced.
            n + surge.min(todo - bottom)
        } else {
            n
        };
    } else {
        // In place: only a surplus leaves, at the top those for which there was never room.
        total = n;
        let surplus = (r - n).max(0);
        let no_room =
            |s: &&Slot<'_>| s.pod.is_none() || s.stuck() == Some(StuckReason::Unschedulable);
        let unplaced = list.iter().rev().take(surplus as usize).take_while(no_room).count() as i32;
        bottom = bottom.min(surplus - unplaced);
        needed = 0;
    }
    let top = ((r - total).max(0) - bottom).max(0);

    let reason = |i: usize| {
        let scaling = list[i].updated || n == 0 || r > n + surge;
        match scaling {
            _ if list[i].evicting => DrainReason::Eviction,
            true => DrainReason::ScaleDown,
            false => DrainReason::Rollout,
        }
    };
    let victim = |index: usize, way: Way| Victim { index, way, reason: reason(index) };
    let mut victims: Vec<Victim> = Vec::new();
    victims.extend((0..bottom as usize).map(|i| victim(i, Way::Bottom)));
    let upper = list.len() - top as usize;
    victims.extend((upper..list.len()).rev().map(|i| victim(i, Way::Top)));
    // From the top: the lowest are the canary's that stay. The partition comes down past all that
    // stand above one that goes.
    let above: Vec<usize> = old.iter().copied().filter(|&i| i >= bottom as usize).collect();
    let lowest_ended = above.iter().copied().find(|&i| ended[i]).unwrap_or(list.len());
    let ended_above = above.iter().filter(|&&i| ended[i]).count() as i32;
    let mut rest = todo - bottom - ended_above;
    let in_place = above.iter().rev().take_while(|&&i| {
        let goes = rest > 0 || i >= lowest_ended;
        rest -= i32::from(!ended[i]);
        goes
    });
    victims.extend(in_place.filter(|&&i| i < upper).map(|&i| Victim {
        index: i,
        way: Way::InPlace,
        reason: if list[i].evicting { DrainReason::Eviction } else { DrainReason::Rollout },
    }));
    let others = (0..list.len())
        .filter(|&i| list[i].evicting && !victims.iter().any(|v| v.index == i))
        .map(|i| victim(i, Way::Evicted))
        .collect::<Vec<_>>();
    victims.extend(others);
    // Somebody waits for these.
    victims.sort_by_key(|v| v.reason != DrainReason::Eviction);
    Shape { victims, total, needed, kept }
}
