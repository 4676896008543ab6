//! Serves the webhook over TLS, with whatever certificate the Secret holds now. Connections are
//! bounded in number, and so is the time of each step on them.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, routing::post};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    review::{Reviewer, review},
    rotation::{Place, held},
};

/// Connections at the same time: the API server keeps one or a few.
const CONNECTIONS: usize = 64;
/// The longest review that is read.
const LONGEST: usize = 1 << 20;
const HANDSHAKE: Duration = Duration::from_secs(4);
/// How long a request's head may take, and how long a connection may be idle.
const IDLE: Duration = Duration::from_secs(90);
/// How soon the Secret is read again while it is empty.
const FIRST: Duration = Duration::from_secs(1);
/// And later.
const LATER: Duration = Duration::from_secs(30);

/// The certificate that is served now.
#[derive(Debug, Default)]
pub struct Served(RwLock<Option<Arc<CertifiedKey>>>);

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

impl Served {
    /// Takes over what the Secret holds. What can't be used changes nothing.
    fn take(&self, secret: &Secret) -> bool {
        match held(secret) {
            Ok(key) => *self.0.write() = Some(key),
            Err(error) => tracing::debug!(%error, "no certificate to serve"),
        }
        self.0.read().is_some()
    }
}

/// Follows the Secret until `stop`.
pub async fn follow(client: Client, place: Place, served: Arc<Served>, stop: CancellationToken) {
    let secrets: Api<Secret> = Api::namespaced(client, &place.namespace);
    let mut serves = false;
    loop {
        match secrets.get(&place.secret).await {
            Ok(secret) => serves = served.take(&secret),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "failed to read the webhook's Secret");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(if serves { LATER } else { FIRST }) => {}
        }
    }
}

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    served: Arc<Served>,
    reviewer: Arc<Reviewer>,
    stop: CancellationToken,
) {
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let router = Router::new()
        .route("/evictions", post(review))
        .layer(DefaultBodyLimit::max(LONGEST))
        .with_state(reviewer);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "failed to accept");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            connection(stream, acceptor, router, stop).await;
        });
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) {
    let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        tracing::debug!("no TLS");
        return;
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    tokio::select! {
        ended = &mut served => {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        }
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = timeout(HANDSHAKE, served).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use k8s_openapi::ByteString;
    use rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::{
        metrics::Metrics,
        webhook::{
            certificate::make,
            rotation::{CERTIFICATE, KEY},
        },
    };

    const HOST: &str = "sluice-webhook.sluice-system.svc";

    /// A Secret, and the authority of its certificate.
    fn secret() -> (Secret, String) {
        let made = make(HOST, Timestamp::now()).expect("it is made");
        let data = BTreeMap::from([
            (CERTIFICATE.into(), ByteString(made.certificate.into_bytes())),
            (KEY.into(), ByteString(made.key.into_bytes())),
        ]);
        (Secret { data: Some(data), ..Secret::default() }, made.authority)
    }

    /// Asks for an eviction in a namespace that nobody looks after.
    async fn ask(port: u16, trusted: &str) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
            roots.add(authority.expect("PEM")).expect("an authority");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let host = ServerName::try_from(HOST).expect("a name");
        let mut stream = TlsConnector::from(Arc::new(config)).connect(host, stream).await?;
        let body = r#"{"request": {"uid": "7", "name": "chat-0", "namespace": "elsewhere"}}"#;
        let head = format!(
            "POST /evictions HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_new_certificate_is_served_without_a_restart() {
        // Other tests may have installed it already.
        let _ = default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let nowhere = kube::Config::new("http://127.0.0.1:9".parse().expect("an address"));
        let client = Client::try_from(nowhere).expect("a client");
        let reviewer = Reviewer {
            recorder: crate::events::Recorder::new(client.clone(), "test"),
            client,
            namespaces: vec!["team".into()],
            metrics: Arc::new(Metrics::new()),
        };
        let (certificate, stop) = (Arc::new(Served::default()), CancellationToken::new());
        let server =
            tokio::spawn(serve(listener, certificate.clone(), Arc::new(reviewer), stop.clone()));
        let ((first, old), (second, new)) = (secret(), secret());
        let both = format!("{new}{old}");

        ask(port, &both).await.expect_err("there is no certificate yet");
        assert!(certificate.take(&first));
        let answer = ask(port, &old).await.expect("an answer");
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains(r#""allowed":true"#),
            "{answer}"
        );
        ask(port, &new).await.expect_err("another authority");
        assert!(certificate.take(&second));
        ask(port, &old).await.expect_err("the authority before");
        ask(port, &both).await.expect("an answer");
        // A Secret that is emptied changes nothing.
        assert!(certificate.take(&Secret::default()));
        ask(port, &new).await.expect("an answer");
        stop.cancel();
        server.await.expect("it ends");
    }
}
