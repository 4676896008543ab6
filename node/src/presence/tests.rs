use proptest::prelude::*;

use super::*;

const A: Replica = [1; 16];
const B: Replica = [2; 16];
const ONE: Owner = (0, 0, 1);
const TWO: Owner = (0, 0, 2);

fn topic() -> Arc<str> {
    "t".into()
}

fn track(state: &mut State, owner: Owner, key: &str, reference: &str) -> Vec<Change> {
    let change = state.track((&topic(), owner), key, Meta::new(), reference, false);
    vec![change.expect("not tracked")]
}

#[test]
fn p_pres_3_p_pres_4_an_update_leaves_and_joins_and_names_the_one_before() {
    let mut state = State::new(A);
    track(&mut state, ONE, "k", "r1");
    let change = state.track((&topic(), ONE), "k", Meta::new(), "r2", true).expect("tracked");
    let want = json!({
        "joins": {"k": {"metas": [{"phx_ref": "r2", "phx_ref_prev": "r1"}]}},
        "leaves": {"k": {"metas": [{"phx_ref": "r1"}]}},
    });
    assert_eq!(diffs(&[change])["t"], want);
}

#[test]
fn p_pres_5_p_pres_8_each_channel_has_a_meta_of_its_own_and_one_only() {
    let mut state = State::new(A);
    track(&mut state, ONE, "__proto__", "r1");
    track(&mut state, TWO, "__proto__", "r2");
    assert!(state.track((&topic(), ONE), "__proto__", Meta::new(), "r", false).is_err());
    assert!(state.track((&topic(), ONE), "other", Meta::new(), "r", true).is_err());
    let metas = json!({"__proto__": {"metas": [{"phx_ref": "r1"}, {"phx_ref": "r2"}]}});
    assert_eq!(state.list("t"), metas);
    let left = diffs(&state.untrack(ONE, None));
    assert_eq!(left["t"]["leaves"], json!({"__proto__": {"metas": [{"phx_ref": "r1"}]}}));
    assert_eq!(state.list("t"), json!({"__proto__": {"metas": [{"phx_ref": "r2"}]}}));
    assert!(state.untrack(ONE, Some("__proto__")).is_empty());
}

#[test]
fn a_page_has_so_many_keys_and_ends_early_when_they_have_very_many_metas() {
    let mut state = State::new(A);
    let owner = |n: usize| (0, 0, n as u64);
    for n in 0..MAX_PAGE_METAS {
        track(&mut state, owner(n), "a", "r");
    }
    for key in ["b", "c"] {
        track(&mut state, owner(MAX_PAGE_METAS), key, "r");
    }
    let page = |after: Option<&str>, limit| {
        let page = state.page("t", after, limit);
        let keys: Vec<_> = page.presences.iter().map(|one| one.key.to_string()).collect();
        (keys.concat(), page.more)
    };
    assert_eq!(page(None, 9), ("a".to_owned(), true));
    assert_eq!(page(Some("a"), 1), ("b".to_owned(), true));
    assert_eq!(page(Some("a"), 2), ("bc".to_owned(), false));
    assert_eq!(page(Some("bb"), 9), ("c".to_owned(), false));
    assert_eq!(page(Some("c"), 9), (String::new(), false));
}

#[test]
fn a_meta_is_refused_that_other_nodes_could_not_read() {
    let meta = |levels: usize| {
        // One level is the meta itself.
        let inner = (1..levels).fold(json!(1), |inner, _| json!([inner]));
        Meta::from_iter([("status".to_owned(), inner)])
    };
    let mut state = State::new([1; 16]);
    let topic = topic();
    let deepest = state.track((&topic, ONE), "anna", meta(MAX_META_DEPTH), "r1", false);
    assert!(deepest.is_ok());
    let everything = serde_json::to_vec(&state.everything()).unwrap();
    assert_eq!(serde_json::from_slice::<Word>(&everything).unwrap(), state.everything());
    let deeper = meta(MAX_META_DEPTH + 1);
    assert!(state.track((&topic, ONE), "bert", deeper.clone(), "r2", false).is_err());
    assert!(state.track((&topic, ONE), "anna", deeper, "r2", true).is_err());
    assert_eq!(state.number(), 1);
}

#[test]
fn a_node_that_is_not_heard_of_again_leaves() {
    let now = Instant::now();
    let mut a = State::new(A);
    let mut b = State::new(B);
    track(&mut a, ONE, "k", "r1");
    assert_eq!(b.hear(A, Word::Beat(1), now), (vec![], true));
    assert_eq!(b.hear(A, Word::Beat(1), now), (vec![], false), "it is asked already");
    b.hear(A, a.everything(), now);
    assert_eq!(b.list("t"), a.list("t"));
    let later = now + Duration::from_secs(1);
    b.hear(A, Word::Beat(1), later);
    assert!(b.forget(A, now).is_empty(), "it came back");
    assert_eq!(b.forget(A, later).len(), 1);
    assert_eq!(b.list("t"), json!({}));
}

proptest! {
    /// Words get lost in any way; a beat after them brings the other node to the same state, and
    /// the diffs that it gave add up to that state.
    #[test]
    fn a_follower_ends_with_what_the_node_has(
        steps in proptest::collection::vec((0u64..3, 0u8..3, 0u8..3, any::<bool>()), 0..60)
    ) {
        let mut now = Instant::now();
        let mut a = State::new(A);
        let mut b = State::new(B);
        let mut refs = HashSet::new();
        let mut hear = |b: &mut State, a: &State, word, now| {
            let (mut changes, ask) = b.hear(A, word, now);
            if ask {
                changes = b.hear(A, a.everything(), now).0;
            }
            for change in changes {
                if let Some(meta) = change.left {
                    assert!(refs.remove(&meta["phx_ref"].to_string()));
                }
                if let Some(meta) = change.joined {
                    assert!(refs.insert(meta["phx_ref"].to_string()));
                }
            }
        };
        for (n, (owner, key, what, lost)) in steps.into_iter().enumerate() {
            now += ASK_AGAIN;
            let (owner, key) = ((0, 0, owner), format!("k{key}"));
            let changes = match what {
                0 => a.untrack(owner, Some(&key)),
                1 => a.untrack(owner, None),
                _ => {
                    let update = a.find("t", &key, (A, owner)).is_some();
                    let reference = n.to_string();
                    a.track((&topic(), owner), &key, Meta::new(), &reference, update).into_iter().collect()
                }
            };
            if !changes.is_empty() && !lost {
                hear(&mut b, &a, Word::Delta(a.number(), changes), now);
            }
        }
        hear(&mut b, &a, Word::Beat(a.number()), now + ASK_AGAIN);
        let sorted = |state: &State| {
            let mut all: Vec<_> = state.of(A).iter().map(|change| format!("{change:?}")).collect();
            all.sort();
            all
        };
        prop_assert_eq!(sorted(&a), sorted(&b));
        prop_assert_eq!(refs.len(), sorted(&b).len());
    }
}
