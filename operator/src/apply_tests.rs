use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::*;
use crate::build::tests::{cluster, defaults};

fn meta(controller: Option<&str>, label: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        owner_references: controller.map(|uid| {
            vec![OwnerReference { uid: uid.into(), controller: Some(true), ..Default::default() }]
        }),
        labels: label.map(|name| BTreeMap::from([(names::CLUSTER_LABEL.into(), name.into())])),
        ..ObjectMeta::default()
    }
}

#[test]
fn only_what_is_the_clusters_own_is_touched() {
    let (object, defaults) = (cluster("{}"), defaults());
    let cluster = Cluster { uid: "1", ..Cluster::new(&object, &defaults).unwrap() };
    let service = |metadata| {
        let object = DynamicObject { types: None, metadata, data: Value::Null };
        is_ours(Kind::Service, &object, &cluster)
    };
    assert!(service(meta(Some("1"), None)));
    assert!(!service(meta(Some("2"), Some("chat"))));
    assert!(service(meta(None, Some("chat"))));
    assert!(!service(meta(None, None)));
    assert!(!service(meta(None, Some("other"))));
}

#[test]
fn a_secret_is_taken_over_only_if_it_is_meant_for_the_cluster() {
    let (object, defaults) = (cluster("{}"), defaults());
    let cluster = Cluster { uid: "1", ..Cluster::new(&object, &defaults).unwrap() };
    let secret = |name: &str, keys: &[&str], metadata: ObjectMeta| {
        let data: Map<_, _> = keys.iter().map(|key| ((*key).into(), "YQ==".into())).collect();
        let metadata = ObjectMeta { name: Some(name.into()), ..metadata };
        let object = DynamicObject { types: None, metadata, data: json!({ "data": data }) };
        is_ours(Kind::Secret, &object, &cluster)
    };
    assert!(secret("chat-cluster", &["mesh-token", "more"], meta(None, None)));
    assert!(!secret("chat-cluster", &["mesh-token"], meta(Some("2"), None)));
    assert!(secret("chat-redis", &[PASSWORD], meta(None, None)));
    assert!(secret("chat-redis", &[PASSWORD, URL, AUTH_CONF], meta(None, None)));
    for keys in [&[URL][..], &[PASSWORD, "api-key"], &[]] {
        assert!(!secret("chat-redis", keys, meta(None, None)), "{keys:?}");
        assert!(secret("chat-redis", keys, meta(None, Some("chat"))), "restored");
        assert!(secret("chat-redis", keys, meta(Some("1"), None)));
    }
    assert!(!secret("chat-other", &[PASSWORD], meta(None, None)));
}

#[test]
fn a_kept_template_counts_only_with_its_hash() {
    let template = json!({ "spec": { "containers": [] } });
    let annotated = |hash: &str| ObjectMeta {
        annotations: Some(BTreeMap::from([
            (TEMPLATE.to_owned(), template.to_string()),
            (names::TEMPLATE_HASH.to_owned(), hash.to_owned()),
            (names::SPEC_HASH.to_owned(), "s".to_owned()),
        ])),
        ..ObjectMeta::default()
    };
    let kept = Kept::of(&annotated(&short_hash(&template))).unwrap();
    assert_eq!((kept.template, kept.spec_hash.as_str()), (template.clone(), "s"));
    assert!(Kept::of(&annotated("other")).is_none());
    assert!(Kept::of(&ObjectMeta::default()).is_none());
}

#[test]
fn a_record_that_is_gone_is_todays_rendering_if_both_hashes_say_so() {
    let (object, defaults) = (cluster("{}"), defaults());
    let cluster = Cluster::new(&object, &defaults).unwrap();
    let today = crate::build::build(&cluster).unwrap().workload;
    let annotated = |template_hash: &str, spec_hash: &str| ObjectMeta {
        annotations: Some(BTreeMap::from([
            (names::TEMPLATE_HASH.to_owned(), template_hash.to_owned()),
            (names::SPEC_HASH.to_owned(), spec_hash.to_owned()),
            (names::ROLLOUT_STARTED_AT.to_owned(), "then".to_owned()),
        ])),
        ..ObjectMeta::default()
    };
    let lost = annotated(&today.template_hash, &today.spec_hash);
    assert!(Kept::of(&lost).is_none());
    let kept = Kept::today(&lost, &today).unwrap();
    assert_eq!((&kept.template, kept.rollout.as_deref()), (&today.template, Some("then")));
    assert!(Kept::today(&annotated("other", &today.spec_hash), &today).is_none());
    assert!(Kept::today(&annotated(&today.template_hash, "other"), &today).is_none());
    assert!(Kept::today(&ObjectMeta::default(), &today).is_none());
}
