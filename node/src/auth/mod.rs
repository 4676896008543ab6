//! Who may connect to a stock node, by JSON Web Token. [`Bearer`] is the connect callback; start
//! there. `token` and `keys` verify, `jwks` keeps the keys of an issuer, `template` puts claims into
//! names.
//!
//! No token, claim or key is ever in a log, an error or a metric.

mod identity;
mod join;
mod jwks;
mod keys;
mod spki;
pub(crate) mod template;
mod token;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;
use serde_json::{Map, Value};
use sluice_node_api::auth::Jwt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use identity::Identity;
pub use join::Join;
pub use keys::{Key, Keys};
pub use template::Template;
pub use token::Denied;

use crate::channel::{Accept, Connect, Refused, UserSocket};
use crate::hub::Reason;
use jwks::Jwks;
use token::Token;

/// Lets in whoever bears a good token.
#[derive(Clone)]
pub struct Bearer(Arc<Shared>);

struct Shared {
    jwt: Jwt,
    keys: Keys,
    jwks: Option<(Arc<Jwks>, jwks::Source)>,
    socket_id: Option<Template>,
    denied: Family<Reason, Counter>,
}

impl Bearer {
    /// By a checked configuration and its keys.
    ///
    /// # Errors
    /// (field of `auth.jwt`, what is wrong).
    pub fn new(jwt: Jwt, keys: Keys) -> Result<Self, (&'static str, String)> {
        let socket_id = jwt.socket_id.as_deref().map(Template::parse).transpose();
        let socket_id = socket_id.map_err(|reason| ("socketId", reason.to_owned()))?;
        let jwks = match &jwt.jwks {
            None => None,
            Some(settings) => {
                let source = jwks::http(settings).map_err(|reason| ("jwks", reason))?;
                Some((Arc::new(Jwks::new(settings.clone())), source))
            }
        };
        Ok(Self(Arc::new(Shared { jwt, keys, jwks, socket_id, denied: Family::default() })))
    }

    /// The connect parameter that bears the token.
    pub(crate) fn param(&self) -> &str {
        &self.0.jwt.param
    }

    /// Keeps the issuer's keys up to date, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        if let Some((jwks, source)) = &self.0.jwks {
            jwks.clone().run(source.clone(), stop).await;
        }
    }

    /// Registers the counts.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Connects refused for their token, by reason";
        registry.register("auth_denied", help, self.0.denied.clone());
        if let Some((jwks, _)) = &self.0.jwks {
            let help = "Fetches of the issuer's keys, by result";
            registry.register("jwks_fetches", help, jwks.fetches.clone());
        }
    }

    async fn identify(&self, connect: &Connect) -> Result<Accept, Denied> {
        let Shared { jwt, socket_id, .. } = &*self.0;
        let token = connect.auth_token.as_deref().or_else(|| connect.param(&jwt.param));
        let Some(token) = token else {
            let anonymous = (!jwt.required).then(Accept::new);
            return anonymous.ok_or(Denied::Missing);
        };
        let claims = self.verify(token).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let over = token::check(&claims, jwt, now)?;
        let mut accept = Accept::new();
        if let Some(template) = socket_id {
            accept = accept.id(template.render(&claims).ok_or(Denied::Claim)?);
        }
        // A time that the clock can't hold is never.
        let left = over.and_then(|over| Duration::try_from_secs_f64(over - now).ok());
        if let Some(at) = left.and_then(|left| Instant::now().checked_add(left)) {
            accept = accept.until(at);
        }
        Ok(accept.assign(Arc::new(Identity::new(&claims))))
    }

    /// The claims of a token that one of the keys has signed.
    async fn verify(&self, text: &str) -> Result<Map<String, Value>, Denied> {
        let token = Token::parse(text)?;
        let mut verified = self.0.keys.verify(&token);
        if let (None | Some(false), Some((jwks, _))) = (verified, &self.0.jwks) {
            let keys = jwks.keys();
            let mut published = keys.verify(&token);
            // A key that bears the token's name is the one: who did not sign with it has forged the
            // token. Without names, the issuer may have another key by now.
            let known = published == Some(true) || keys.names(&token);
            if !known && jwks.refetched().await {
                published = jwks.keys().verify(&token);
            }
            verified = published.or(verified);
        }
        match verified {
            Some(true) => token.claims(),
            Some(false) => Err(Denied::Signature),
            None => Err(Denied::Key),
        }
    }
}

impl UserSocket for Bearer {
    async fn connect(&self, connect: &Connect) -> Result<Accept, Refused> {
        self.identify(connect).await.map_err(|denied| {
            self.0.denied.get_or_create(&Reason { reason: denied.word() }).inc();
            Refused::because(denied.word())
        })
    }
}

/// Whether one of `keys` has signed a token; if so its claims go through all that reads them.
#[cfg(any(test, fuzzing))]
pub(crate) fn judge(text: &str, keys: &Keys) -> bool {
    let Ok(token) = Token::parse(text) else { return false };
    if keys.verify(&token) != Some(true) {
        return false;
    }
    let Ok(claims) = token.claims() else { return true };
    assert_eq!(Identity::new(&claims).claims(), Some(claims.clone()));
    let jwt = Jwt { audiences: vec!["a".into()], ..Jwt::default() };
    let at = |now| token::check(&claims, &jwt, now);
    assert!(at(0.0).is_err() || at(f64::MAX).is_err(), "a token without an end");
    true
}
