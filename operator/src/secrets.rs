//! The Secrets of a cluster: tokens, and the password of a managed Redis. Made once, by chance;
//! what exists is kept, what is missing is filled in. What was made of the password follows it.
//!
//! It must never change a token that exists, and no token may reach a log, an event or an error.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use rand::RngExt;
use serde_json::{Map, Value};
use sluice_crds::names;

use crate::{
    apply::{Applier, Error},
    build::{AUTH_CONF, Cluster, Kind, PASSWORD, URL, auth_conf, made_here, sha256_hex, url},
    diff::first_difference,
};

/// The token by which the operator calls the nodes' admin API.
#[derive(Clone, Default)]
pub struct AdminToken {
    token: String,
    version: String,
}

impl AdminToken {
    /// The one in a Secret's data; `version`: the Secret's resourceVersion.
    pub fn of(data: &Data, version: &str) -> Self {
        let token = data.get(names::ADMIN_TOKEN).map(|token| token.0.clone()).unwrap_or_default();
        let token = String::from_utf8_lossy(&token).trim().to_owned();
        Self { token, version: version.into() }
    }

    /// The version of the Secret that it was read from; says nothing of the token.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The token itself, for a request's header only.
    pub fn expose(&self) -> &str {
        &self.token
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

type Data = BTreeMap<String, ByteString>;

impl Applier<'_> {
    /// Makes sure of the Secret with the cluster's tokens, and answers the admin token.
    pub async fn ensure_tokens(&self) -> Result<AdminToken, Error> {
        let name = names::tokens_secret(self.cluster.name);
        let (data, version) = self.ensure_secret(&name, names::COMPONENT_NODE, fill_tokens).await?;
        Ok(AdminToken::of(&data, &version))
    }

    /// Makes sure of the Secret of the managed Redis.
    ///
    /// Answers a digest of what Redis reads of it: when that changes, Redis starts anew.
    pub async fn ensure_redis_secret(&self) -> Result<String, Error> {
        let name = names::redis(self.cluster.name);
        let fill = |data: &mut Data| fill_redis(data, &self.cluster);
        let (data, _) = self.ensure_secret(&name, names::COMPONENT_REDIS, fill).await?;
        Ok(sha256_hex(data.get(AUTH_CONF).map(|file| file.0.as_slice()).unwrap_or_default()))
    }

    /// What the Secret then holds, and its resourceVersion.
    async fn ensure_secret(
        &self,
        name: &str,
        component: &str,
        fill: impl Fn(&mut Data),
    ) -> Result<(Data, String), Error> {
        let failed = |source| Error::api("create", Kind::Secret, name, source);
        // The spec says nothing of it: what stands there can't be changed.
        let refused = |source| match source {
            kube::Error::Api(answer) if answer.code == 422 => {
                Error::InTheWay { kind: Kind::Secret, name: name.into(), answer }
            }
            source => Error::api("apply", Kind::Secret, name, source),
        };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.cluster.namespace);
        let live = self.live(Kind::Secret, name).await?;
        let mut data = match &live {
            Some(live) => serde_json::from_value(live.data["data"].clone()).unwrap_or_default(),
            None => Data::new(),
        };
        fill(&mut data);
        let mut value = self.cluster.secret(name, component, encode(&data));
        let meta = match live {
            Some(live) => {
                if first_difference(&value, &serde_json::to_value(&live)?).is_none() {
                    return Ok((data, live.metadata.resource_version.unwrap_or_default()));
                }
                // Filled in for what was read: if somebody else filled it meanwhile, theirs counts.
                value["metadata"]["resourceVersion"] =
                    live.metadata.resource_version.unwrap_or_default().into();
                self.may_write()?;
                let params = PatchParams::apply(names::FIELD_MANAGER).force();
                let patch = Patch::Apply(&value);
                let there = api.patch(name, &params, &patch).await.map_err(refused)?;
                tracing::info!(name, "completed the Secret");
                there.metadata
            }
            None => {
                self.may_write()?;
                let params = PostParams {
                    field_manager: Some(names::FIELD_MANAGER.into()),
                    ..PostParams::default()
                };
                let secret: Secret = serde_json::from_value(value)?;
                let there = api.create(&params, &secret).await.map_err(failed)?;
                tracing::info!(name, "made the Secret");
                there.metadata
            }
        };
        Ok((data, meta.resource_version.unwrap_or_default()))
    }
}

fn fill_tokens(data: &mut Data) {
    for key in [names::MESH_TOKEN, names::ADMIN_TOKEN, names::PUBLISH_TOKEN] {
        fill(data, key, random_token);
    }
}

/// What nodes and Redis read follows the password, unless somebody has brought it.
fn fill_redis(data: &mut Data, cluster: &Cluster<'_>) {
    let password = fill(data, PASSWORD, random_token);
    let follows = made_here(cluster, &text(data, URL), &text(data, AUTH_CONF));
    for (key, value) in [(URL, url(cluster, &password)), (AUTH_CONF, auth_conf(&password))] {
        if follows {
            data.insert(key.into(), ByteString(value.into_bytes()));
        } else {
            fill_with(data, key, value);
        }
    }
}

/// What the key holds, without blanks around it; empty without the key.
fn text(data: &Data, key: &str) -> String {
    let value = data.get(key).map(|value| value.0.as_slice()).unwrap_or_default();
    String::from_utf8_lossy(value).trim().to_owned()
}

fn fill(data: &mut Data, key: &str, make: impl Fn() -> String) -> String {
    let mut value = text(data, key);
    if value.is_empty() {
        value = make();
        fill_with(data, key, value.clone());
    }
    value
}

fn fill_with(data: &mut Data, key: &str, value: String) {
    if data.get(key).is_none_or(|value| value.0.trim_ascii().is_empty()) {
        data.insert(key.into(), ByteString(value.into_bytes()));
    }
}

fn encode(data: &Data) -> Value {
    let entry = |(key, value): (&String, &ByteString)| {
        (key.clone(), Value::from(STANDARD.encode(&value.0)))
    };
    Value::Object(data.iter().map(entry).collect::<Map<_, _>>())
}

/// 192 random bits, safe in a URL and in a configuration file.
fn random_token() -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut rng = rand::rng();
    (0..32).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::tests::{cluster, defaults};

    #[test]
    fn tokens_are_made_once_and_what_is_missing_is_filled() {
        let mut data = Data::new();
        fill_tokens(&mut data);
        assert_eq!(data.len(), 3);
        let before = data.clone();
        fill_tokens(&mut data);
        assert_eq!(data, before);
        data.remove(names::MESH_TOKEN);
        data.insert("other".into(), ByteString(b"kept".to_vec()));
        fill_tokens(&mut data);
        assert_eq!(data[names::ADMIN_TOKEN], before[names::ADMIN_TOKEN]);
        assert_ne!(data[names::MESH_TOKEN], before[names::MESH_TOKEN]);
        assert_eq!(data["other"].0, b"kept");
    }

    #[test]
    fn a_token_of_blanks_is_no_token() {
        let mut data = Data::from([(names::ADMIN_TOKEN.into(), ByteString(b" \n".to_vec()))]);
        fill_tokens(&mut data);
        assert_eq!(data[names::ADMIN_TOKEN].0.len(), 32);
        assert_eq!(AdminToken::of(&data, "1").expose().len(), 32);
    }

    #[test]
    fn what_redis_and_its_clients_read_follows_the_password() {
        let (object, defaults) = (cluster("{}"), defaults());
        let cluster = Cluster::new(&object, &defaults).unwrap();
        let filled = |entries: &[(&str, &str)]| {
            let mut data = Data::new();
            for (key, value) in entries {
                data.insert((*key).into(), ByteString(value.as_bytes().to_vec()));
            }
            fill_redis(&mut data, &cluster);
            let once = data.clone();
            fill_redis(&mut data, &cluster);
            assert_eq!(data, once, "nothing is written when nothing changed");
            [URL, AUTH_CONF].map(|key| String::from_utf8(data[key].0.clone()).unwrap())
        };
        let host = "chat-redis.team.svc.cluster.local.:6379";
        let new = [format!("redis://:new-1@{host}"), "requirepass new-1\n".to_owned()];
        assert_eq!(filled(&[(PASSWORD, "new-1\n")]), new);
        let old = format!("redis://:old@{host}");
        assert_eq!(
            filled(&[(PASSWORD, "new-1"), (URL, &old), (AUTH_CONF, "requirepass old\n")]),
            new
        );
        let relative = "redis://:new-1@chat-redis.team.svc.cluster.local:6379";
        assert_eq!(filled(&[(PASSWORD, "new-1"), (URL, relative)]), new, "of an operator before");

        // Whatever letters it has; those of a time before are not left as they were.
        let bad = format!("redis://:p@ss w/rd@{host}");
        let entries = [(PASSWORD, "p@ss w/rd"), (URL, &*bad), (AUTH_CONF, "requirepass p@ss w/rd")];
        assert_eq!(
            filled(&entries),
            [
                format!("redis://:p%40ss%20w%2Frd@{host}"),
                "requirepass \"p\\x40ss\\x20w\\x2Frd\"\n".to_owned()
            ]
        );

        // One's own stays, and what it may fit.
        let file = "requirepass old\nmaxclients 50\n";
        let own = filled(&[(PASSWORD, "new-1"), (URL, &old), (AUTH_CONF, file)]);
        assert_eq!(own, [old, file.to_owned()]);
        let with_user = format!("redis://me:mine@{host}");
        let own = filled(&[(PASSWORD, "new-1"), (URL, &with_user), (AUTH_CONF, &new[1])]);
        assert_eq!(own[0], with_user);
    }

    #[test]
    fn a_token_is_long_and_never_shown() {
        let token = random_token();
        assert_eq!(token.len(), 32);
        assert_ne!(token, random_token());
        let shown = format!("{:?}", AdminToken { token: token.clone(), version: "1".into() });
        assert!(!shown.contains(&token));
    }
}
