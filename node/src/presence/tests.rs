use std::{collections::HashSet, time::Duration};

use proptest::prelude::*;

use super::{super::follow::ASK_AGAIN, *};
use crate::mesh::codec::MAX_FRAME;

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

/// Everything at once.
fn everything(state: &State) -> Word {
    state.portion(None, usize::MAX)
}

/// `b` hears a word of `a`, and whatever `a` answers in portions of `most` bytes; what changed, and
/// how many words that took.
fn converse(
    b: &mut State,
    a: &State,
    word: Word,
    most: usize,
    now: Instant,
) -> (Vec<Change>, usize) {
    let (mut changes, mut answer) = b.hear(A, word, now);
    let mut words = 1;
    while let Some(asked) = answer {
        let portion =
            a.portion(if let Word::More(after) = asked { Some(after) } else { None }, most);
        let (more, next) = b.hear(A, portion, now);
        changes.extend(more);
        (answer, words) = (next, words + 1);
    }
    (changes, words)
}

/// What `replica` tracks, as `state` knows it.
fn sorted(state: &State, replica: Replica) -> Vec<String> {
    let mut all: Vec<_> = state.of(replica).iter().map(|change| format!("{change:?}")).collect();
    all.sort();
    all
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
    let text = serde_json::to_vec(&everything(&state)).unwrap();
    assert_eq!(serde_json::from_slice::<Word>(&text).unwrap(), everything(&state));
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
    assert_eq!(b.hear(A, Word::Beat(1), now), (vec![], Some(Word::Ask)));
    assert_eq!(b.hear(A, Word::Beat(1), now), (vec![], None), "it is asked already");
    b.hear(A, everything(&a), now);
    assert_eq!(b.list("t"), a.list("t"));
    let later = now + Duration::from_secs(1);
    b.hear(A, Word::Beat(1), later);
    assert!(b.forget(A, now).is_empty(), "it came back");
    assert_eq!(b.forget(A, later).len(), 1);
    assert_eq!(b.list("t"), json!({}));
}

/// A node on which `count` clients are present.
fn crowd(count: u64) -> State {
    let mut state = State::new(A);
    for n in 0..count {
        let meta = Meta::from_iter([("name".to_owned(), format!("client {n:>80}").into())]);
        let key = format!("users:{n}");
        let one = state.track((&topic(), (0, n, 1)), &key, meta, &n.to_string(), false);
        one.expect("not tracked");
    }
    state
}

#[test]
fn a_hundred_thousand_presences_are_told_in_pieces_that_a_link_carries() {
    let now = Instant::now();
    let (a, mut b) = (crowd(100_000), State::new(B));
    assert!(json_len(&everything(&a)) > MAX_FRAME, "not in one piece");
    let (_, mut answer) = b.hear(A, Word::Beat(a.number()), now);
    let mut portions = 0;
    while let Some(asked) = answer {
        let after = if let Word::More(after) = asked { Some(after) } else { None };
        let portion = a.portion(after, PORTION);
        let length = json_len(&portion);
        assert!(length < (PORTION * 2).min(MAX_FRAME), "{length}");
        assert_eq!(b.list("t"), json!({}), "nothing shows before all is there");
        answer = b.hear(A, portion, now).1;
        portions += 1;
    }
    assert!(portions > 10, "{portions}");
    assert_eq!(b.topics["t"].len(), 100_000);
    assert_eq!(b.hear(A, Word::Beat(a.number()), now), (vec![], None), "nothing is missing");
}

#[test]
fn a_node_that_is_lost_between_two_portions_leaves_nothing() {
    let now = Instant::now();
    let (a, mut b) = (crowd(10), State::new(B));
    b.hear(A, Word::Beat(a.number()), now);
    let first = a.portion(None, 100);
    let (changes, answer) = b.hear(A, first, now);
    assert!(changes.is_empty() && matches!(answer, Some(Word::More(_))), "{answer:?}");
    assert_eq!(b.forget(A, now), []);
    let Some(Word::More(cursor)) = answer else { panic!("there is more") };
    let late = b.hear(A, a.portion(Some(cursor), 100), now);
    assert_eq!((late, b.list("t")), ((vec![], None), json!({})), "what is late begins nothing");
    let (changes, words) = converse(&mut b, &a, Word::Beat(a.number()), 100, now + ASK_AGAIN);
    assert_eq!((changes.len(), words > 4), (10, true), "it came back");
}

#[test]
fn what_changes_between_two_portions_is_not_lost() {
    let now = Instant::now();
    let (mut a, mut b) = (crowd(10), State::new(B));
    let (_, answer) = b.hear(A, a.portion(None, 900), now);
    let Some(Word::More(cursor)) = answer else { panic!("there is more") };
    // The first is told already, the last is not; the new one comes before the place.
    let first = a.untrack((0, 0, 1), None);
    let last = a.untrack((0, 9, 1), None);
    let new = track(&mut a, (0, 0, 2), "new", "r");
    for (number, changes) in (11..).zip([first, last, new]) {
        assert_eq!(changes.len(), 1);
        let told = b.hear(A, Word::Delta(number, changes), now);
        assert_eq!(told, (vec![], None), "nothing shows yet");
    }
    let rest = a.portion(Some(cursor.clone()), usize::MAX);
    let (changes, answer) = b.hear(A, rest.clone(), now);
    assert_eq!((changes.len(), answer), (9, None));
    assert_eq!(sorted(&b, A), sorted(&a, A));
    assert_eq!(b.hear(A, rest, now), (vec![], None), "an answer that comes twice changes nothing");
}

proptest! {
    /// Words get lost in any way; a beat after them brings the other node to the same state, and
    /// the diffs that it gave add up to that state.
    #[test]
    fn a_follower_ends_with_what_the_node_has(
        steps in proptest::collection::vec((0u64..3, 0u8..3, 0u8..3, any::<bool>()), 0..60),
        most in 1usize..400,
    ) {
        let mut now = Instant::now();
        let mut a = State::new(A);
        let mut b = State::new(B);
        let mut refs = HashSet::new();
        let mut hear = |b: &mut State, a: &State, word, now| {
            for change in converse(b, a, word, most, now).0 {
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
        prop_assert_eq!(sorted(&a, A), sorted(&b, A));
        prop_assert_eq!(refs.len(), sorted(&b, A).len());
    }
}
