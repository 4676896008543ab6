//! Keeps the webhook's certificate: the leader makes it and replaces it in time, in the Secret
//! that every replica serves from, and tells the API server whom to trust.
//!
//! A new authority is trusted before anything is served by it, and the one before stays trusted
//! until the next rotation: at no moment does the API server meet a certificate that it doubts. The
//! chart makes both objects, empty; no right to create any is needed.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret,
};
use kube::{Api, Client, api::Patch};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::certificate::{self, first, make, served};
use crate::{apply::managed, leader::Leadership, metrics::Metrics};

/// Key of the certificate in the Secret.
pub const CERTIFICATE: &str = "tls.crt";
/// Key of its key.
pub const KEY: &str = "tls.key";
/// Key of the authorities that are trusted: that of the certificate first, then the one before.
pub const AUTHORITIES: &str = "ca.crt";
/// Annotation on the Secret: when to make the next certificate, RFC 3339.
const RENEW_AT: &str = "sluice.dev/renew-at";
/// Annotation on the Secret: the DNS name that the certificate is for.
const HOST: &str = "sluice.dev/host";

const EVERY: Duration = Duration::from_secs(30);
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Where the webhook's parts are.
#[derive(Clone, Debug)]
pub struct Place {
    /// The operator's own namespace.
    pub namespace: String,
    /// The Secret with the certificate.
    pub secret: String,
    /// The Service by which the API server reaches the webhook.
    pub service: String,
    /// The ValidatingWebhookConfiguration.
    pub configuration: String,
}

impl Place {
    /// The DNS name by which the API server knows the webhook.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to {0}")]
    Api(&'static str, #[source] Box<kube::Error>),
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
}

/// Keeps Secret and configuration right until `stop`, while this process leads.
pub async fn keep(
    client: Client,
    place: Place,
    leadership: Leadership,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    loop {
        let done = pass(&client, &place, &leadership, Timestamp::now()).await;
        metrics.kept_certificate(done.is_ok());
        let wait = match done {
            Ok(()) => EVERY,
            Err(error) => {
                let error = crate::telemetry::told(&error);
                tracing::warn!(
                    error,
                    "the webhook's certificate can't be kept: evictions go through"
                );
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn pass(
    client: &Client,
    place: &Place,
    leadership: &Leadership,
    now: Timestamp,
) -> Result<(), Error> {
    let failed = |what| move |error| Error::Api(what, Box::new(error));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &place.namespace);
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let secret = secrets.get(&place.secret).await.map_err(failed("read the webhook's Secret"))?;
    let configuration = configurations
        .get(&place.configuration)
        .await
        .map_err(failed("read the webhook's configuration"))?;
    let mut kept = Held::of(&secret);
    let renewal = if kept.is_good(&place.host(), now) {
        None
    } else {
        let made = make(&place.host(), now)?;
        let before = first(&kept.authorities).unwrap_or_default();
        kept.authorities = format!("{}{before}", made.authority);
        Some(made)
    };
    if let Some(patch) = trust(&configuration, &kept.authorities)
        && leadership.still_valid()
    {
        configurations
            .patch(&place.configuration, &managed(), &Patch::Strategic(patch))
            .await
            .map_err(failed("tell the API server whom to trust"))?;
    }
    if let Some(made) = renewal
        && leadership.still_valid()
    {
        let patch = json!({
            "metadata": {
                "resourceVersion": secret.metadata.resource_version,
                "annotations": { RENEW_AT: made.renew_at.to_string(), HOST: place.host() },
            },
            "data": {
                CERTIFICATE: STANDARD.encode(&made.certificate),
                KEY: STANDARD.encode(&made.key),
                AUTHORITIES: STANDARD.encode(&kept.authorities),
            },
        });
        secrets
            .patch(&place.secret, &managed(), &Patch::Merge(patch))
            .await
            .map_err(failed("write the webhook's Secret"))?;
        tracing::info!(renewed = %made.renew_at, "the webhook has a new certificate");
    }
    Ok(())
}

/// The certificate that a Secret holds.
pub fn held(secret: &Secret) -> Result<Arc<CertifiedKey>, certificate::Error> {
    served(bytes(secret, CERTIFICATE), bytes(secret, KEY))
}

fn bytes<'a>(secret: &'a Secret, key: &str) -> &'a [u8] {
    let found = secret.data.as_ref().and_then(|data| data.get(key));
    found.map(|bytes| bytes.0.as_slice()).unwrap_or_default()
}

/// What a Secret holds.
struct Held {
    usable: bool,
    authorities: String,
    host: String,
    renew_at: Option<Timestamp>,
}

impl Held {
    fn of(secret: &Secret) -> Self {
        let annotations = secret.metadata.annotations.as_ref();
        let annotation = |key| annotations.and_then(|all| all.get(key));
        let authorities = String::from_utf8_lossy(bytes(secret, AUTHORITIES)).into_owned();
        Self {
            usable: held(secret).is_ok() && first(&authorities).is_some(),
            authorities,
            host: annotation(HOST).cloned().unwrap_or_default(),
            renew_at: annotation(RENEW_AT).and_then(|at| at.parse().ok()),
        }
    }

    fn is_good(&self, host: &str, now: Timestamp) -> bool {
        self.usable && self.host == host && self.renew_at.is_some_and(|at| now < at)
    }
}

/// The patch by which the API server trusts `authorities`, unless it does.
fn trust(configuration: &ValidatingWebhookConfiguration, authorities: &str) -> Option<Value> {
    let webhooks = configuration.webhooks.as_deref().unwrap_or_default();
    let doubts = webhooks.iter().any(|webhook| {
        let bundle = webhook.client_config.ca_bundle.as_ref();
        bundle.is_none_or(|bundle| bundle.0 != authorities.as_bytes())
    });
    let bundle = STANDARD.encode(authorities);
    let webhooks = webhooks
        .iter()
        .map(|webhook| json!({ "name": webhook.name, "clientConfig": { "caBundle": bundle } }))
        .collect::<Vec<_>>();
    doubts.then(|| {
        json!({
            "metadata": { "resourceVersion": configuration.metadata.resource_version },
            "webhooks": webhooks,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::SignedDuration;
    use k8s_openapi::ByteString;

    use super::*;

    const NAME: &str = "sluice-webhook.sluice-system.svc";

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("in range")
    }

    fn secret(at: Timestamp) -> Secret {
        let made = make(NAME, at).expect("it is made");
        let mut secret = Secret::default();
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        secret.data = Some(BTreeMap::from([
            (CERTIFICATE.into(), bytes(&made.certificate)),
            (KEY.into(), bytes(&made.key)),
            (AUTHORITIES.into(), bytes(&made.authority)),
        ]));
        secret.metadata.annotations = Some(BTreeMap::from([
            (RENEW_AT.into(), made.renew_at.to_string()),
            (HOST.into(), NAME.into()),
        ]));
        secret
    }

    #[test]
    fn a_certificate_is_kept_until_it_is_time_for_the_next() {
        let held = Held::of(&secret(now()));
        let days = |n: i64| now() + SignedDuration::from_hours(24 * n);
        assert!(held.is_good(NAME, days(239)));
        assert!(!held.is_good(NAME, days(240)));
        assert!(!held.is_good("another.sluice-system.svc", now()));
    }

    #[test]
    fn what_is_empty_or_spoilt_is_made_anew() {
        assert!(!Held::of(&Secret::default()).is_good(NAME, now()));
        for key in [CERTIFICATE, KEY, AUTHORITIES] {
            let mut spoilt = secret(now());
            let data = spoilt.data.as_mut().expect("there is data");
            data.insert(key.into(), ByteString(b"?".to_vec()));
            assert!(!Held::of(&spoilt).is_good(NAME, now()), "{key}");
        }
        // A key of another certificate.
        let (mut spoilt, other) = (secret(now()), secret(now()));
        let key = other.data.expect("data")[KEY].clone();
        spoilt.data.as_mut().expect("data").insert(KEY.into(), key);
        assert!(!Held::of(&spoilt).is_good(NAME, now()));
    }

    #[test]
    fn the_api_server_is_told_only_what_it_does_not_know() {
        let with = |bundle: Option<&str>| -> ValidatingWebhookConfiguration {
            let bundle = bundle.map(|bundle| STANDARD.encode(bundle));
            serde_json::from_value(json!({ "webhooks": [{
                "name": "evictions.sluice.dev", "admissionReviewVersions": ["v1"],
                "sideEffects": "NoneOnDryRun", "clientConfig": { "caBundle": bundle },
            }] }))
            .expect("a configuration")
        };
        assert_eq!(trust(&with(Some("new")), "new"), None);
        for bundle in [None, Some("old")] {
            let patch = trust(&with(bundle), "new").expect("a patch");
            let told = &patch["webhooks"][0];
            assert_eq!(told["name"], "evictions.sluice.dev");
            assert_eq!(told["clientConfig"]["caBundle"], STANDARD.encode("new"));
        }
    }
}
