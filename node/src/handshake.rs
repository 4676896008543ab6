//! The client-facing HTTP: routing and the WebSocket handshake. After it the shard takes over the
//! raw TCP stream; no HTTP state is kept for an open socket.

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{ConnectInfo, Query, RawPathParams, Request, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::any,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version as Http, header};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};

use crate::{
    accept::Refusal,
    arrivals::{Arrival, Arrivals},
    channel::{Accept, Connect, Mount, Refused, Transport, params},
    longpoll::longpoll,
    plane::Plane,
    serializer::Version,
    subprotocol::Offer,
};

/// How long the connect callback may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A socket that has been let in.
pub(crate) struct Opening {
    pub(crate) version: Version,
    pub(crate) accept: Accept,
    /// What is known of it; nothing when no callback is asked and no rule needs to know.
    pub(crate) connect: Option<Arc<Connect>>,
    pub(crate) mount: Arc<Mount>,
    /// It has an id, and no shard yet.
    pub(crate) arrival: Option<Arrival>,
}

/// Where a handshake leaves the connection that it upgrades.
#[derive(Clone, Default)]
pub(crate) struct Ticket(Arc<Mutex<Option<(OnUpgrade, Opening)>>>);

impl Ticket {
    /// The upgrade, if the connection has become a channel socket.
    pub(crate) fn take(&self) -> Option<(OnUpgrade, Opening)> {
        self.0.lock().take()
    }
}

/// A mount of a node.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) plane: Arc<Plane>,
    pub(crate) mount: Arc<Mount>,
}

/// The routes of a node: the sockets of its mounts, and what a library user adds.
pub(crate) fn routes(mounts: &[Arc<Mount>], plane: &Arc<Plane>, more: Router) -> Router {
    let mut all = more;
    for mount in mounts {
        let path = &mount.path;
        // P-CON-1: a trailing slash also matches.
        let routes = Router::new()
            .route(&format!("{path}/websocket"), any(websocket))
            .route(&format!("{path}/websocket/"), any(websocket))
            .route(&format!("{path}/longpoll"), any(longpoll))
            .route(&format!("{path}/longpoll/"), any(longpoll))
            .with_state(Place { plane: plane.clone(), mount: mount.clone() });
        all = all.merge(routes);
    }
    all
}

/// `GET <path>/websocket`, in the order of `P-CON-4`: door, method, origin (`P-CON-5`), auth token
/// and subprotocol (`P-CON-6` to `P-CON-9`), `vsn`, the connect callback, then the headers
/// (`P-CON-1`). Every refusal of a client is 403 with an empty body, unless the mount answers
/// refusals with a reason itself.
async fn websocket(
    State(Place { plane, mount }): State<Place>,
    Extension(ticket): Extension<Ticket>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    segments: RawPathParams,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    mut request: Request,
) -> Response {
    if is_nowhere(&segments) {
        return StatusCode::NOT_FOUND.into_response();
    }
    if let Err(refusal) = plane.admit() {
        plane.metrics.refuse(refusal.reason());
        return busy(refusal);
    }
    if request.method() != Method::GET {
        plane.metrics.refuse("method");
        return StatusCode::BAD_REQUEST.into_response();
    }
    let refuse = |reason| {
        plane.metrics.refuse(reason);
        StatusCode::FORBIDDEN.into_response()
    };
    if !mount.origins.as_ref().is_none_or(|origins| origins.admits(request.headers())) {
        return refuse("origin");
    }
    let offer = Offer::read(request.headers(), mount.auth_token);
    let Ok(auth_token) = offer.token() else { return refuse("token") };
    let Ok(subprotocol) = offer.agree(&mount.subprotocols) else { return refuse("subprotocol") };
    let query = query.map(|Query(params)| params).ok();
    if !query.as_deref().is_none_or(params::are_few) {
        plane.metrics.refuse("params");
        return StatusCode::BAD_REQUEST.into_response();
    }
    let Some(version) = query.as_deref().and_then(vsn) else { return refuse("vsn") };
    let query = query.unwrap_or_default();
    let pairs = query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    // A stock mount asks nobody, and its rules may need to know nothing.
    let known = mount.connect.is_some() || plane.rules.read().need_channels();
    let connect = known.then(|| {
        Arc::new(Connect {
            params: params::nested(pairs.chain(&segments)),
            headers: request.headers().clone(),
            peer,
            uri: request.uri().clone(),
            auth_token,
            transport: Transport::Websocket,
        })
    });
    // Nothing is kept twice while somebody is asked.
    drop(query);
    let (accept, arrival) = match mount.let_in(connect.as_ref(), &plane.arrivals).await {
        Ok(accepted) => accepted,
        Err(unlet) => {
            plane.metrics.refuse("connect");
            return unlet.answer(&mount);
        }
    };
    let key = match accept_key(request.version(), request.headers()) {
        Ok(key) => key,
        Err(reason) => {
            plane.metrics.refuse("headers");
            return (StatusCode::BAD_REQUEST, reason).into_response();
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    *ticket.0.lock() = Some((upgrade, Opening { version, accept, connect, mount, arrival }));
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    if let Some(subprotocol) = subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}

/// Whether a parameter of the path is empty: `/space//websocket` has one segment less than
/// `/space/{space}/websocket`.
pub(crate) fn is_nowhere(segments: &RawPathParams) -> bool {
    segments.iter().any(|(_, segment)| segment.is_empty())
}

/// Why the connect callback let nobody in.
pub(crate) enum Unlet {
    Refused(Refused),
    Failed(StatusCode),
}

impl Unlet {
    fn answer(self, mount: &Mount) -> Response {
        match self {
            Self::Failed(status) => status.into_response(),
            Self::Refused(refused) => match (&mount.refusal, refused.reason) {
                (Some(handler), Some(reason)) => {
                    let answer = catch_unwind(AssertUnwindSafe(|| handler(&reason)));
                    // A panic in it costs that client alone, as one in the callback.
                    let fault = (StatusCode::INTERNAL_SERVER_ERROR, String::new());
                    answer.unwrap_or(fault).into_response()
                }
                _ => StatusCode::FORBIDDEN.into_response(),
            },
        }
    }
}

impl Mount {
    /// What the connect callback says, if there is one. One that panics or never ends holds nothing
    /// up. Whom it lets in under an id is among `arrivals` from then on.
    pub(crate) async fn let_in(
        &self,
        connect: Option<&Arc<Connect>>,
        arrivals: &Arrivals,
    ) -> Result<(Accept, Option<Arrival>), Unlet> {
        let Some((connector, connect)) = self.connect.as_ref().zip(connect) else {
            return Ok((Accept::default(), None));
        };
        let callback = AssertUnwindSafe(connector(connect.clone())).catch_unwind();
        match tokio::time::timeout(CONNECT_TIMEOUT, callback).await {
            Ok(Ok(Ok(accept))) => {
                let arrival = accept.id.as_ref().map(|id| arrivals.expect(id));
                Ok((accept, arrival))
            }
            Ok(Ok(Err(refused))) => Err(Unlet::Refused(refused)),
            Ok(Err(_)) => Err(Unlet::Failed(StatusCode::INTERNAL_SERVER_ERROR)),
            Err(_) => Err(Unlet::Failed(StatusCode::SERVICE_UNAVAILABLE)),
        }
    }
}

pub(crate) fn busy(refusal: Refusal) -> Response {
    let seconds = match refusal {
        Refusal::Closed(_) => "2",
        Refusal::Rate | Refusal::Full => "1",
    };
    // Whoever is refused shall not keep the connection that others wait for.
    let headers = [(header::RETRY_AFTER, seconds), (header::CONNECTION, "close")];
    (StatusCode::SERVICE_UNAVAILABLE, headers).into_response()
}

/// `P-CON-2`; the last `vsn` counts, and one that is not a plain string is refused.
pub(crate) fn vsn(params: &[(String, String)]) -> Option<Version> {
    let named = |key: &str| key == "vsn" || key.starts_with("vsn[");
    match params.iter().rev().find(|(key, _)| named(key)) {
        Some((key, vsn)) if key == "vsn" => Version::from_vsn(Some(vsn)),
        Some(_) => None,
        None => Version::from_vsn(None),
    }
}

/// The answer to the client's key (RFC 6455 4.2), or what is wrong with the headers.
fn accept_key(http: Http, headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
    let has = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if http < Http::HTTP_11 {
        return Err("a WebSocket needs HTTP/1.1");
    }
    if !has(header::CONNECTION, "upgrade") {
        return Err("header Connection does not say Upgrade");
    }
    if !has(header::UPGRADE, "websocket") {
        return Err("header Upgrade does not say websocket");
    }
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err("header Sec-WebSocket-Version is not 13");
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16));
    let key = key.ok_or("header Sec-WebSocket-Key is not 16 bytes in base64")?;
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    HeaderValue::from_str(&STANDARD.encode(hash.finalize())).map_err(|_| "unusable key")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v)))
            .collect()
    }

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_key_is_answered_as_in_rfc_6455() {
        let accept = accept_key(Http::HTTP_11, &headers(&GOOD)).expect("valid");
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn p_con_1_each_header_is_needed() {
        for missing in 0..GOOD.len() {
            let mut some = GOOD.to_vec();
            some.remove(missing);
            assert!(accept_key(Http::HTTP_11, &headers(&some)).is_err());
        }
        assert!(accept_key(Http::HTTP_10, &headers(&GOOD)).is_err());
    }

    #[test]
    fn p_con_2_the_last_vsn_counts_and_must_be_a_string() {
        let vsn = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            vsn(&pairs)
        };
        assert_eq!(vsn(&[("a", "b")]), Some(Version::V1));
        assert_eq!(vsn(&[("vsn", "1.0.0"), ("vsn", "2.0.0")]), Some(Version::V2));
        assert_eq!(vsn(&[("vsn[]", "2.0.0")]), None);
    }
}
