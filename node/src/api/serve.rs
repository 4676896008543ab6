//! Serves a router with everything bounded: connections, the time for headers, the time for a
//! request. A stranger who opens connections and says nothing takes none for long.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use http::{Request, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::ApiError;
use crate::listen;
use crate::places::Places;

/// For the headers of a request, the first as well as a later one on a kept connection.
const HEADERS: Duration = Duration::from_secs(10);
/// How long shutdown waits for requests under way.
const GOODBYE: Duration = Duration::from_secs(3);

/// The bounds of one server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; more are closed at once.
    pub connections: usize,
    /// Of them, from one address.
    pub per_ip: usize,
    /// For one request, body included.
    pub request: Duration,
}

impl Limits {
    /// The same, with no more connections than `most`.
    pub fn within(self, most: usize) -> Self {
        let connections = self.connections.min(most);
        Self { connections, per_ip: self.per_ip.min(connections), ..self }
    }
}

/// Serves until `stop`, then lets requests under way end.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let places = Places::new(limits.connections, limits.per_ip);
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            a = listen::accept(&listener) => a,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, from)) => {
                let Some(place) = places.enter(from.ip()) else {
                    debug!(%from, "too many connections");
                    continue;
                };
                let work = connection(stream, router.clone(), limits.request, stop.clone());
                tasks.spawn(async move {
                    work.await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    let _ = timeout(GOODBYE, tasks.wait()).await;
}

async fn connection(stream: TcpStream, router: Router, bound: Duration, stop: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = router.clone().oneshot(request.map(Body::new));
        async move {
            Ok::<_, Infallible>(match timeout(bound, answer).await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => {
                    ApiError::new(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time")
                        .into_response()
                }
            })
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let end = tokio::select! {
        e = served.as_mut() => e,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            timeout(GOODBYE, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = end {
        debug!(%error, "a connection ended badly");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_request_that_does_not_arrive_in_time_is_told_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(async |body: String| body));
        let limits = Limits { connections: 1, per_ip: 1, request: Duration::from_millis(20) };
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, router, limits, stop.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        // Of ten bytes there is one, and no more comes.
        let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nx";
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(HEADERS * 3, client.read_to_end(&mut answer)).await.expect("an end").unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("the request did not arrive in time"), "{answer}");
        stop.cancel();
    }
}
