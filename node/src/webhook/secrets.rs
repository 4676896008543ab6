//! The secrets that sign calls, and how: HMAC-SHA256 by the Standard Webhooks specification. The file
//! is read again every second, since a mounted Secret changes while the node runs; one that is refused
//! then leaves the last good one in force. Every secret in it signs, so that old and new overlap.
//!
//! No secret is ever printed.

use std::sync::Arc;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::{Mutex, RwLock};
use ring::hmac;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::config::small_file;

/// What a secret begins with, by the specification.
const PREFIX: &str = "whsec_";
/// Fewest and most bytes of a secret, by the specification.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Most secrets at a time.
const MAX: usize = 4;
/// Largest file, in bytes.
const MAX_FILE: u64 = 4096;

/// The secrets in force. No `Debug`.
#[derive(Clone)]
pub struct Secrets(Arc<Shared>);

struct Shared {
    path: String,
    now: RwLock<Held>,
    /// Why the file was last refused, so that it is said once.
    refused: Mutex<Option<String>>,
}

struct Held {
    text: String,
    keys: Vec<hmac::Key>,
}

impl Secrets {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(path: &str) -> Result<Self, String> {
        let text = read(path)?;
        let keys = parse(&text).map_err(|reason| format!("{path}: {reason}"))?;
        let now = RwLock::new(Held { text, keys });
        Ok(Self(Arc::new(Shared { path: path.to_owned(), now, refused: Mutex::default() })))
    }

    /// Looks at the file once.
    pub fn look(&self) {
        let found = read(&self.0.path).and_then(|text| Ok((parse(&text)?, text)));
        let refused = match found {
            Ok((keys, text)) => {
                let mut now = self.0.now.write();
                if now.text != text {
                    info!(secrets = keys.len(), "the secrets of webhooks changed");
                    *now = Held { text, keys };
                }
                None
            }
            Err(reason) => Some(reason),
        };
        let mut said = self.0.refused.lock();
        if let Some(reason) = refused.as_ref().filter(|_| *said != refused) {
            error!(reason, "refused the changed secrets of webhooks: the last ones hold");
        }
        *said = refused;
    }

    /// Looks every `interval`, until `stop`.
    pub async fn watch(self, interval: Duration, stop: CancellationToken) {
        crate::config::every(interval, stop, move || self.look(), drop).await;
    }

    /// The value of `webhook-signature`: one signature a secret.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let now = self.0.now.read();
        let signed = now.keys.iter().map(|key| {
            let mut context = hmac::Context::with_key(key);
            context.update(format!("{id}.{timestamp}.").as_bytes());
            context.update(body);
            format!("v1,{}", STANDARD.encode(context.sign()))
        });
        signed.collect::<Vec<_>>().join(" ")
    }
}

fn read(path: &str) -> Result<String, String> {
    small_file::read_text(path, MAX_FILE)
        .map_err(|e| format!("cannot read the secrets in {path}: {e}"))
}

fn parse(text: &str) -> Result<Vec<hmac::Key>, String> {
    let secrets: Vec<_> = text.split_whitespace().collect();
    if !(1..=MAX).contains(&secrets.len()) {
        return Err(format!("must hold 1 to {MAX} secrets, one a line"));
    }
    let key = |secret: &&str| {
        let encoded = secret.strip_prefix(PREFIX).unwrap_or(secret);
        let bytes = STANDARD.decode(encoded).ok().filter(|bytes| BYTES.contains(&bytes.len()));
        let bytes = bytes.ok_or("a secret must be `whsec_` and 24 to 64 bytes in base64")?;
        Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
    };
    secrets.iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the specification's own libraries.
    #[test]
    fn a_call_is_signed_as_in_the_specification() {
        let dir = std::env::temp_dir().join(format!("sluice-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("secret");
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        let secrets = Secrets::open(path.to_str().unwrap()).unwrap();
        let sign = || {
            secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}")
        };
        let want = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(), want);
        // Rotation: both sign, in the file's order, until the old one is gone.
        let new = format!("whsec_{}", STANDARD.encode([7; 32]));
        std::fs::write(&path, format!("{new}\n{secret}\n")).unwrap();
        secrets.look();
        let both = sign();
        assert_eq!(both.split(' ').nth(1), Some(want));
        // What is wrong changes nothing.
        for bad in ["", "whsec_short", "whsec_!!", "a\nb\nc\nd\ne"] {
            std::fs::write(&path, bad).unwrap();
            secrets.look();
            assert_eq!(sign(), both, "{bad:?}");
        }
        std::fs::write(&path, &new).unwrap();
        secrets.look();
        assert_eq!(sign(), both.split(' ').next().unwrap());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
