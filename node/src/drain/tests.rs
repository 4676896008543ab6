use proptest::prelude::*;

use super::*;

fn request(mode: DrainMode) -> DrainRequest {
    DrainRequest {
        mode,
        initial_delay_seconds: 10.0,
        wait_seconds: 5.0,
        batch_size: 4,
        batch_interval_seconds: 2.0,
        ttl_seconds: 60.0,
    }
}

fn drain(mode: DrainMode, open: u64) -> (Drain, Instant) {
    let now = Instant::now();
    (Drain::new(request(mode), now, Timestamp::UNIX_EPOCH, open), now)
}

/// Runs to the end, or 120 s; gives the times in ms and sizes of the batches.
fn run(drain: &mut Drain, start: Instant, mut open: u64) -> Vec<(u64, u64)> {
    let mut batches = Vec::new();
    let mut now = start;
    while open > 0 && now < start + Duration::from_secs(120) {
        let step = drain.step(now, open);
        assert!(!step.again.is_zero() && step.again <= STEP, "asked again soon, never at once");
        if step.close > 0 {
            batches.push((u64::try_from((now - start).as_millis()).expect("small"), step.close));
        }
        open -= step.close;
        now += step.again;
    }
    batches
}

#[test]
fn p_drain_1_batches_by_interval_after_delay_and_wait() {
    let (mut drain, start) = drain(DrainMode::Batched, 10);
    assert_eq!(run(&mut drain, start, 10), [(15_000, 4), (17_000, 4), (19_000, 2)]);
}

#[test]
fn immediate_closes_all_after_the_delay_and_wait_closes_none() {
    let (mut now, start) = drain(DrainMode::Immediate, 10);
    assert_eq!(run(&mut now, start, 10), [(10_000, 10)]);
    let (mut wait, start) = drain(DrainMode::Wait, 10);
    assert_eq!(run(&mut wait, start, 10), []);
}

#[test]
fn phases_follow_time_and_what_is_open() {
    let (drain, start) = drain(DrainMode::Batched, 9);
    let phase = |seconds, open| drain.phase(start + Duration::from_secs(seconds), open);
    assert_eq!(phase(0, 9), DrainPhase::Delay);
    assert_eq!(phase(9, 0), DrainPhase::Delay, "a balancer may still send someone");
    assert_eq!(phase(10, 9), DrainPhase::Waiting);
    assert_eq!(phase(15, 9), DrainPhase::Closing);
    assert_eq!(phase(15, 0), DrainPhase::Drained);
    assert_eq!(drain.status(start, 7).remaining, 7);
    assert_eq!(drain.status(start, 7).initial, 9);
}

#[test]
fn a_later_request_changes_what_is_left_and_renews_the_ttl() {
    let (mut drain, start) = drain(DrainMode::Wait, 10);
    let later = start + Duration::from_secs(59);
    assert!(!drain.is_expired(later));
    drain.renew(request(DrainMode::Immediate), later);
    assert!(!drain.is_expired(later + Duration::from_secs(59)));
    assert!(drain.is_expired(later + Duration::from_secs(60)));
    assert_eq!(drain.step(later, 10).close, 10);
}

#[test]
fn a_delay_or_a_wait_that_is_over_does_not_come_again() {
    let (mut drain, start) = drain(DrainMode::Batched, 10);
    let after = |seconds| start + Duration::from_secs(seconds);
    let slow = |mode| DrainRequest { initial_delay_seconds: 60.0, ..request(mode) };
    drain.renew(slow(DrainMode::Batched), after(11));
    assert_eq!(drain.phase(after(12), 10), DrainPhase::Waiting, "balancers have heard of it");
    drain.renew(request(DrainMode::Batched), after(13));
    assert_eq!(drain.step(after(15), 10).close, 4);
    for _ in 0..2 {
        drain.renew(slow(DrainMode::Batched), after(16));
        assert_eq!(drain.phase(after(17), 6), DrainPhase::Closing);
    }
    assert_eq!(drain.step(after(17), 6).close, 4);
    drain.renew(slow(DrainMode::Wait), after(18));
    assert_eq!(drain.step(after(30), 2).close, 0, "another mode is another matter");
    drain.renew(slow(DrainMode::Batched), after(31));
    assert_eq!(drain.step(after(31), 2).close, 2);
}

#[test]
fn odd_numbers_do_no_harm() {
    let odd = DrainRequest {
        initial_delay_seconds: f64::NAN,
        wait_seconds: -1.0,
        batch_size: 0,
        batch_interval_seconds: f64::INFINITY,
        ..request(DrainMode::Batched)
    };
    let now = Instant::now();
    let mut drain = Drain::new(odd, now, Timestamp::UNIX_EPOCH, 2);
    assert_eq!(drain.step(now, 2).close, 1);
    assert_eq!(drain.step(now + Duration::from_secs(3600), 1).close, 0);
}

#[test]
fn a_shed_closes_its_count_at_its_rate() {
    let now = Instant::now();
    let request = ShedRequest { count: 50, rate_per_second: 10, delay_seconds: 0.0 };
    let mut shed = Shed::new(&request, now, 15);
    assert_eq!(shed.left(), 15);
    assert_eq!(shed.step(now).close, 1);
    assert_eq!(shed.step(now + Duration::from_millis(500)).close, 5);
    assert_eq!(shed.step(now + Duration::from_secs(9)).close, 9);
    assert_eq!(shed.left(), 0);
}

#[test]
fn a_shed_waits_first_and_is_told_until_its_clients_are_back_elsewhere() {
    let now = Instant::now();
    let after = |seconds| now + Duration::from_secs(seconds);
    let request = ShedRequest { count: 3, rate_per_second: 100, delay_seconds: 10.0 };
    let mut shed = Shed::new(&request, now, 15);
    assert_eq!(shed.step(after(9)).close, 0);
    assert_eq!(shed.step(after(11)).close, 3);
    assert_eq!((shed.left(), shed.shedding()), (0, 3));
    assert!(!shed.is_over(after(15)));
    assert!(shed.is_over(after(16)));
    let nothing = ShedRequest { count: 0, ..request };
    assert!(Shed::new(&nothing, now, 15).is_over(now), "a count of 0 ends a shed");
}

proptest! {
    #[test]
    fn split_gives_all_away_and_no_shard_more_than_it_has(
        close in 0u64..2000,
        open in proptest::collection::vec(0u64..500, 0..9),
    ) {
        let total: u64 = open.iter().sum();
        let shares = split(close, &open);
        prop_assert_eq!(shares.iter().sum::<u64>(), close.min(total));
        for (share, open) in shares.iter().zip(&open) {
            prop_assert!(share <= open);
            let fair = close.min(total) as f64 * *open as f64 / total.max(1) as f64;
            prop_assert!((*share as f64 - fair).abs() <= 1.0);
        }
    }
}
