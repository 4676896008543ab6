use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;

/// A lease in memory, shared by several candidates; each can be cut off from it.
#[derive(Clone, Default)]
struct Fake {
    lease: Arc<Mutex<Option<Versioned>>>,
    writes: Arc<AtomicU32>,
    cut: Arc<AtomicBool>,
    hangs: Arc<AtomicBool>,
    denies: Arc<AtomicBool>,
}

impl Fake {
    /// The same lease over another connection.
    fn other_path(&self) -> Self {
        Self { cut: Arc::default(), hangs: Arc::default(), ..self.clone() }
    }
    async fn reach(&self) -> Result<(), StoreError> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.cut.load(Ordering::SeqCst) {
            return Err(StoreError::Api("cut off".into()));
        }
        if self.denies.load(Ordering::SeqCst) {
            let message = "leases \"op\" is forbidden".into();
            let status = kube::core::Status { message, code: 403, ..Default::default() };
            return Err(kube::Error::Api(Box::new(status)).into());
        }
        Ok(())
    }
    fn write(&self, record: &LeaseRecord) -> Versioned {
        let version = self.writes.fetch_add(1, Ordering::SeqCst).to_string();
        let made = Versioned { record: record.clone(), version };
        *self.lease.lock() = Some(made.clone());
        made
    }
    fn holder(&self) -> Option<String> {
        self.lease.lock().as_ref().and_then(|lease| lease.record.holder.clone())
    }
}

impl LeaseStore for Fake {
    async fn get(&self) -> Result<Option<Versioned>, StoreError> {
        self.reach().await?;
        Ok(self.lease.lock().clone())
    }
    async fn create(&self, record: &LeaseRecord) -> Result<Versioned, StoreError> {
        self.reach().await?;
        if self.lease.lock().is_some() {
            return Err(StoreError::Conflict);
        }
        Ok(self.write(record))
    }
    async fn replace(&self, record: &LeaseRecord, version: &str) -> Result<Versioned, StoreError> {
        self.reach().await?;
        if self.lease.lock().as_ref().is_none_or(|lease| lease.version != version) {
            return Err(StoreError::Conflict);
        }
        Ok(self.write(record))
    }
}

fn elector(store: &Fake, name: &str) -> Elector<Fake> {
    Elector::new(store.clone(), name.into(), Timing::default()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_one_leads_and_renews() {
    let store = Fake::default();
    let mut a = elector(&store, "a");
    let stop = CancellationToken::new();
    assert!(!a.leadership().still_valid());
    assert!(a.acquire(&stop).await);
    let leadership = a.leadership();
    assert!(leadership.still_valid());
    let stopper = stop.clone();
    let keeping = tokio::spawn(async move {
        let kept = a.keep(&stopper).await;
        a.release().await;
        kept
    });
    sleep(Duration::from_secs(60)).await;
    assert!(leadership.still_valid());
    assert!(store.writes.load(Ordering::SeqCst) > 25, "renewed every two seconds");
    stop.cancel();
    assert!(keeping.await.unwrap().is_ok());
    assert!(!leadership.still_valid());
    assert_eq!(store.holder(), None, "released");
}

#[tokio::test(start_paused = true)]
async fn a_held_lease_is_taken_only_after_it_stood_still_for_its_whole_duration() {
    let store = Fake::default();
    let stop = CancellationToken::new();
    let mut a = elector(&store, "a");
    assert!(a.acquire(&stop).await);
    // Whatever the clock in the record says, only changes seen here count.
    let mut b = elector(&store.other_path(), "b");
    let begun = Instant::now();
    assert!(b.acquire(&stop).await);
    assert!(begun.elapsed() >= Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(19), "{:?}", begun.elapsed());
    assert!(!a.leadership().still_valid(), "the old leader's deadline is long over");
    assert_eq!(store.lease.lock().as_ref().unwrap().record.transitions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_once() {
    let store = Fake::default();
    let stop = CancellationToken::new();
    let mut a = elector(&store, "a");
    assert!(a.acquire(&stop).await);
    a.release().await;
    let mut b = elector(&store, "b");
    let begun = Instant::now();
    assert!(b.acquire(&stop).await);
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_leader_cut_off_stops_before_anyone_else_may_start() {
    for hangs in [false, true] {
        let store = Fake::default();
        let stop = CancellationToken::new();
        let mut a = elector(&store, "a");
        assert!(a.acquire(&stop).await);
        let leadership = a.leadership();
        let mut b = elector(&store.other_path(), "b");
        let path = store.clone();
        let taking = tokio::spawn(async move {
            assert!(b.acquire(&CancellationToken::new()).await);
            // At the moment of the take-over nobody else believes to lead.
            !leadership.still_valid()
        });
        sleep(Duration::from_millis(100)).await;
        if hangs { &path.hangs } else { &path.cut }.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        assert!(matches!(a.keep(&stop).await, Err(Error::Lost(_))));
        assert!(begun.elapsed() <= Duration::from_secs(12), "{:?}", begun.elapsed());
        assert!(taking.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_stopped_notices_before_it_acts() {
    let store = Fake::default();
    let stop = CancellationToken::new();
    let mut a = elector(&store, "a");
    assert!(a.acquire(&stop).await);
    let leadership = a.leadership();
    // As after SIGSTOP and SIGCONT: the clock went on, no task ran.
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(!leadership.still_valid());
    assert!(matches!(a.keep(&stop).await, Err(Error::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn a_lease_taken_by_another_is_lost_at_the_next_renewal() {
    let store = Fake::default();
    let stop = CancellationToken::new();
    let mut a = elector(&store, "a");
    assert!(a.acquire(&stop).await);
    store.write(&LeaseRecord::first("b", Duration::from_secs(15)));
    let begun = Instant::now();
    assert!(matches!(a.keep(&stop).await, Err(Error::Lost(_))));
    assert!(begun.elapsed() <= Duration::from_secs(3));
    a.release().await;
    assert_eq!(store.holder().as_deref(), Some("b"), "what is another's is not released");
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_survived() {
    let store = Fake::default();
    let stop = CancellationToken::new();
    let mut a = elector(&store, "a");
    assert!(a.acquire(&stop).await);
    let leadership = a.leadership();
    let stopper = stop.clone();
    let keeping = tokio::spawn(async move { a.keep(&stopper).await });
    store.cut.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(7)).await;
    store.cut.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(20)).await;
    assert!(leadership.still_valid());
    stop.cancel();
    assert!(keeping.await.unwrap().is_ok());
}

#[test]
fn a_candidate_that_may_not_have_the_lease_says_so_and_why() {
    let store = Fake::default();
    let mut a = elector(&store, "a");
    let leadership = a.leadership();
    let acquire = async |a: &mut Elector<Fake>, seconds| {
        let stop = CancellationToken::new();
        timeout(Duration::from_secs(seconds), a.acquire(&stop)).await
    };
    let lines = telemetry::tests::json_lines(|| {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap().block_on(async {
            store.denies.store(true, Ordering::SeqCst);
            assert!(acquire(&mut a, 50).await.is_err());
            assert!(leadership.is_denied());
            store.denies.store(false, Ordering::SeqCst);
            assert_eq!(acquire(&mut a, 50).await, Ok(true));
            assert!(!leadership.is_denied());
        });
    });
    let of = |line: &[(String, serde_json::Value)], key: &str| {
        line.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str().unwrap().to_owned())
    };
    let told = |line: &Vec<_>| of(line, "level").is_some_and(|level| level == "ERROR");
    let errors: Vec<_> = lines.iter().filter(|line| told(line)).collect();
    let [line] = errors[..] else { panic!("{errors:?}") };
    assert!(of(line, "error").unwrap().ends_with("leases \"op\" is forbidden (403)"), "{line:?}");
    assert!(of(line, "message").unwrap().contains("grant get, create and update"), "{line:?}");
}

#[test]
fn times_that_do_not_fit_are_refused() {
    let timing = |lease, renew, retry| Timing {
        lease: Duration::from_secs(lease),
        renew_deadline: Duration::from_secs(renew),
        retry: Duration::from_secs(retry),
    };
    assert!(Timing::default().check().is_ok());
    assert!(timing(10, 10, 2).check().is_err());
    assert!(timing(15, 2, 2).check().is_err());
}
