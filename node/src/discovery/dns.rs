//! Lookups by the system's configuration: `/etc/resolv.conf` with its search domains and `ndots`,
//! as a pod has them, and `/etc/hosts`.
//!
//! Nothing is cached here: when to ask again is the caller's part.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};
use parking_lot::Mutex;

use super::{Found, Lookup};

/// After so many failures in a row the configuration is read again: it may have changed.
const REREAD_AFTER: u32 = 5;

/// A [`Lookup`] by DNS.
#[derive(Default)]
pub struct Dns {
    state: Mutex<State>,
    /// Instead of the system's, in tests.
    config: Option<(ResolverConfig, usize)>,
}

#[derive(Default)]
struct State {
    resolver: Option<TokioResolver>,
    failures: u32,
}

impl Dns {
    fn resolver(&self) -> Result<TokioResolver, String> {
        let mut state = self.state.lock();
        if state.failures >= REREAD_AFTER {
            *state = State::default();
        }
        if let Some(resolver) = &state.resolver {
            return Ok(resolver.clone());
        }
        let mut builder = match &self.config {
            None => TokioResolver::builder_tokio().map_err(|e| e.to_string())?,
            Some((config, ndots)) => {
                let runtime = TokioRuntimeProvider::default();
                let mut builder = Resolver::builder_with_config(config.clone(), runtime);
                builder.options_mut().ndots = *ndots;
                builder
            }
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let resolver = builder.build().map_err(|e| e.to_string())?;
        state.resolver = Some(resolver.clone());
        Ok(resolver)
    }
}

impl Lookup for Dns {
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Found, String>> {
        Box::pin(async move {
            let answer = self.resolver()?.lookup_ip(name).await;
            let mut state = self.state.lock();
            match answer {
                Ok(found) => {
                    state.failures = 0;
                    let ttl = found.valid_until().saturating_duration_since(Instant::now());
                    Ok(Found { ips: found.iter().collect(), ttl })
                }
                Err(e) => {
                    state.failures += 1;
                    Err(e.to_string())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
