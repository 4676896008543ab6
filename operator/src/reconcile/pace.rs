//! When a cluster is looked at again after a pass that got to its end. Pure.

use std::time::Duration;

use crate::model::Plan;

/// How often a cluster is looked at when nothing happens: counts of connections are told by no
/// watch.
const STEADY: Duration = Duration::from_secs(15);
/// While a node does not take the token or has not loaded the live settings: it reads them soon.
const SOON: Duration = Duration::from_secs(3);

/// How long to wait. `soon`: a node is about to take what it was given. `failed`: the wait after
/// something could not be written. It grows from pass to pass, for what is tried again then was
/// refused before; but what moves, such as a drain, keeps its own pace.
pub(super) fn next(plan: &Plan, soon: bool, failed: Option<Duration>) -> Duration {
    let idle = failed.unwrap_or(if soon { SOON } else { STEADY });
    let asked = plan.requeue_after.and_then(|after| Duration::try_from(after).ok());
    asked.unwrap_or(idle).min(idle)
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn plan(seconds: Option<i64>) -> Plan {
        Plan { requeue_after: seconds.map(SignedDuration::from_secs), ..Plan::default() }
    }

    #[test]
    fn what_is_refused_is_tried_ever_less_often_unless_something_moves() {
        let longest = crate::backoff::LONGEST;
        assert_eq!(next(&plan(None), false, Some(longest)), longest);
        assert_eq!(next(&plan(None), true, Some(longest)), longest);
        assert_eq!(next(&plan(Some(1)), false, Some(longest)), Duration::from_secs(1));
        let first = Duration::from_millis(700);
        assert_eq!(next(&plan(Some(1)), false, Some(first)), first, "it may be over at once");
    }

    #[test]
    fn what_the_plan_waits_for_is_looked_at_no_later_than_ever() {
        assert_eq!(next(&plan(None), false, None), STEADY);
        assert_eq!(next(&plan(Some(1)), false, None), Duration::from_secs(1));
        assert_eq!(next(&plan(Some(300)), false, None), STEADY);
        assert_eq!(next(&plan(Some(10)), true, None), SOON);
    }
}
