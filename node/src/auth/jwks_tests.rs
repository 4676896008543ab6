//! When the key set is fetched, in tokio's paused time.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use sluice_node_api::auth::Algorithm;

use super::*;
use crate::auth::Denied;

const GOOD: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}, {"kty": "oct", "k": "AAAA"}, 7]}"#;

fn settings() -> Settings {
    Settings {
        url: "http://issuer".into(),
        algorithms: vec![Algorithm::EdDSA],
        refresh_seconds: 300,
        unknown_kid_seconds: 10,
        timeout_seconds: 5,
        ca_file: None,
    }
}

/// A set whose source gives what `answer` holds, and says when it was asked.
struct Issuer {
    jwks: Arc<Jwks>,
    answer: Arc<Mutex<Result<&'static str, &'static str>>>,
    asked: Arc<Mutex<Vec<u64>>>,
    _stop: tokio_util::sync::DropGuard,
}

fn issuer(answer: Result<&'static str, &'static str>) -> Issuer {
    let (jwks, answer) = (Arc::new(Jwks::new(settings())), Arc::new(Mutex::new(answer)));
    let (asked, stop, start) = (Arc::default(), CancellationToken::new(), Instant::now());
    let (asks, says): (Arc<Mutex<Vec<u64>>>, _) = (Arc::clone(&asked), answer.clone());
    let source: Source = Arc::new(move || {
        asks.lock().push(start.elapsed().as_secs());
        let answer = *says.lock();
        Box::pin(async move { answer.map(|text| text.into()).map_err(Into::into) })
    });
    tokio::spawn(jwks.clone().run(source, stop.clone()));
    Issuer { jwks, answer, asked, _stop: stop.drop_guard() }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_set_is_fetched_at_the_start_and_every_so_often() {
    let issuer = issuer(Ok(GOOD));
    pass(601).await;
    assert_eq!(*issuer.asked.lock(), [0, 300, 600]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_has_it_fetched_at_once_but_not_too_often_and_once_for_all() {
    let issuer = issuer(Ok(GOOD));
    pass(1).await;
    assert!(!issuer.jwks.refetched().await, "it has just been fetched");
    pass(20).await;
    let many = (0..100).map(|_| issuer.jwks.refetched());
    assert!(futures::future::join_all(many).await.into_iter().all(|fetched| fetched));
    assert!(!issuer.jwks.refetched().await);
    pass(11).await;
    assert!(issuer.jwks.refetched().await);
    assert_eq!(*issuer.asked.lock(), [0, 21, 32]);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_fails_keeps_the_last_good_set_and_is_counted_and_tried_again_soon() {
    let issuer = issuer(Ok(GOOD));
    pass(1).await;
    let keys = issuer.jwks.keys();
    let too_many = Err("the answer has more than 262144 bytes");
    for bad in
        [Err("refused"), Ok("{}"), Ok("nonsense"), Ok("{\"keys\": [{\"kty\": \"oct\"}]}"), too_many]
    {
        *issuer.answer.lock() = bad;
        pass(300).await;
        assert!(Arc::ptr_eq(&keys, &issuer.jwks.keys()));
    }
    let count = |reason| issuer.jwks.fetches.get_or_create(&Reason { reason }).get();
    assert_eq!(count("ok"), 1);
    assert!(count("failed") >= 5, "{}", count("failed"));
    let tries = issuer.asked.lock().clone();
    assert_eq!(tries[1..4], [300, 310, 320]);
    *issuer.answer.lock() = Ok(GOOD);
    pass(20).await;
    assert!(!Arc::ptr_eq(&keys, &issuer.jwks.keys()));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_never_answers_holds_nobody_for_long() {
    let (jwks, stop) = (Arc::new(Jwks::new(settings())), CancellationToken::new());
    let source: Source = Arc::new(|| Box::pin(std::future::pending()));
    let task = tokio::spawn(jwks.clone().run(source, stop.clone()));
    let start = Instant::now();
    jwks.refetched().await;
    assert!(start.elapsed() <= Duration::from_secs(5));
    stop.cancel();
    task.await.expect("ends");
}

#[tokio::test(start_paused = true)]
async fn a_signature_that_is_wrong_has_it_fetched_unless_the_token_names_a_key_that_is_there() {
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let coded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let token = |kid: &str| {
        let signed = format!("{}.e30", coded(format!(r#"{{"alg":"EdDSA"{kid}}}"#).as_bytes()));
        let signature = coded(pair.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    };
    let issuer = issuer(Ok(GOOD));
    let (jwt, source) = (sluice_node_api::auth::Jwt::default(), http(&settings()).expect("a URL"));
    let bearer = crate::auth::Bearer(Arc::new(crate::auth::Shared {
        jwt,
        keys: Keys::default(),
        jwks: Some((issuer.jwks.clone(), source)),
        socket_id: None,
        denied: Family::default(),
    }));
    pass(20).await;
    let forged = token(r#","kid":"a""#);
    assert_eq!(bearer.verify(&forged).await, Err(Denied::Signature));
    assert_eq!(*issuer.asked.lock(), [0], "the key that it names is there");
    assert_eq!(bearer.verify(&token("")).await, Err(Denied::Signature));
    assert_eq!(*issuer.asked.lock(), [0, 20]);
    let x = coded(ring::signature::KeyPair::public_key(&pair).as_ref());
    let set = format!(r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "x": "{x}"}}]}}"#);
    *issuer.answer.lock() = Ok(set.leak());
    assert_eq!(bearer.verify(&token("")).await, Err(Denied::Signature), "asked just now");
    pass(11).await;
    assert!(bearer.verify(&token("")).await.is_ok());
    assert!(bearer.verify(&forged).await.is_ok(), "a key without a name may have any");
    assert_eq!(*issuer.asked.lock(), [0, 20, 31]);
}
