//! The HTTP client for what a node asks of others: an issuer's keys, a backend's decisions. TLS is
//! rustls with ring; redirects are not followed, and no proxy is used.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// How long a connection that nobody uses is kept: shorter than servers do, two seconds and more, so that
/// a request seldom meets one that the server is just closing.
const KEPT: Duration = Duration::from_secs(1);

/// A client that may call `https:` and `http:` addresses.
pub(crate) type Https<B> = Client<HttpsConnector<HttpConnector>, B>;

/// Why there is no usable body.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It is larger than may be.
    Large,
    /// The connection failed.
    Failed(String),
}

/// A client for `url` that trusts the authorities in `ca_file`, or those of the system, and keeps up
/// to `idle` connections that nobody uses.
///
/// # Errors
/// No authorities to trust, or bad ones.
pub(crate) fn client<B>(url: &str, ca_file: Option<&str>, idle: usize) -> Result<Https<B>, String>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
{
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls(url, ca_file)?)
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEPT)
        .pool_max_idle_per_host(idle)
        .build(connector);
    Ok(client)
}

/// A whole body of at most `limit` bytes.
///
/// # Errors
/// One that is larger, or does not come.
pub(crate) async fn read<B>(body: B, limit: usize) -> Result<Vec<u8>, Unread>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Unread::Large),
        Err(error) => Err(Unread::Failed(chain(&*error))),
    }
}

/// An error and its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn tls(url: &str, ca_file: Option<&str>) -> Result<rustls::ClientConfig, String> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    if let Some(file) = ca_file {
        let wrong = |error: &dyn std::fmt::Display| format!("cannot read {file}: {error}");
        let certificates = CertificateDer::pem_file_iter(file).map_err(|e| wrong(&e))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| wrong(&e))?;
            roots.add(certificate).map_err(|e| wrong(&e))?;
        }
        if roots.is_empty() {
            return Err(format!("{file} holds no certificate"));
        }
    } else if url.starts_with("https:") {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err("this system has no authorities to trust: name them by `caFile`".into());
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
