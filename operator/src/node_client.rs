//! Calls the admin API of nodes. Every call has a short timeout; a node that does not answer is a
//! fact to report, never a reason to wait.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use reqwest::{Client, Method, Response};
use serde::{Serialize, de::DeserializeOwned};
use sluice_crds::names::ADMIN_PORT;
use sluice_node_api::admin::{
    CordonRequest, DrainRequest, DrainStatus, NodeStatus, ShedRequest, ShedResponse,
};

use crate::secrets::AdminToken;

const CONNECT: Duration = Duration::from_millis(1000);
const ANSWER: Duration = Duration::from_millis(2000);

/// Why a node did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not reached, or did not answer in time, or not sensibly.
    #[error("failed to call {path} of the node at {address}")]
    Unreachable {
        /// The node's address.
        address: IpAddr,
        /// The call.
        path: &'static str,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It said no.
    #[error("the node at {address} answered {path} with {status}")]
    Refused {
        /// The node's address.
        address: IpAddr,
        /// The call.
        path: &'static str,
        /// Its answer.
        status: u16,
    },
}

impl Error {
    /// Whether the node was reached, and does not take the token.
    pub fn denied(&self) -> bool {
        matches!(self, Self::Refused { status: 401, .. })
    }

    /// A short fixed word for metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "node_unreachable",
            Self::Refused { .. } => "node_refused",
        }
    }
}

/// Calls nodes; one for the whole process.
#[derive(Clone, Debug)]
pub struct NodeClient {
    http: Client,
}

impl NodeClient {
    /// A client with this operator's timeouts. Nodes are called by their address, never through a
    /// proxy and never redirected.
    pub fn new() -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(1)
            .build()?;
        Ok(Self { http })
    }

    /// `GET /status`.
    pub async fn status(&self, node: IpAddr, token: &AdminToken) -> Result<NodeStatus, Error> {
        self.call(Method::GET, node, "/status", token, None::<&()>).await
    }

    /// `GET /drain`.
    pub async fn drain(&self, node: IpAddr, token: &AdminToken) -> Result<DrainStatus, Error> {
        self.call(Method::GET, node, "/drain", token, None::<&()>).await
    }

    /// `POST /drain`.
    pub async fn start_drain(
        &self,
        node: IpAddr,
        token: &AdminToken,
        request: &DrainRequest,
    ) -> Result<DrainStatus, Error> {
        self.call(Method::POST, node, "/drain", token, Some(request)).await
    }

    /// `DELETE /drain`.
    pub async fn cancel_drain(
        &self,
        node: IpAddr,
        token: &AdminToken,
    ) -> Result<DrainStatus, Error> {
        self.call(Method::DELETE, node, "/drain", token, None::<&()>).await
    }

    /// `POST /cordon`.
    pub async fn cordon(
        &self,
        node: IpAddr,
        token: &AdminToken,
        request: &CordonRequest,
    ) -> Result<NodeStatus, Error> {
        self.call(Method::POST, node, "/cordon", token, Some(request)).await
    }

    /// `DELETE /cordon`.
    pub async fn uncordon(&self, node: IpAddr, token: &AdminToken) -> Result<NodeStatus, Error> {
        self.call(Method::DELETE, node, "/cordon", token, None::<&()>).await
    }

    /// `POST /shed`.
    pub async fn shed(
        &self,
        node: IpAddr,
        token: &AdminToken,
        request: &ShedRequest,
    ) -> Result<ShedResponse, Error> {
        self.call(Method::POST, node, "/shed", token, Some(request)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        address: IpAddr,
        path: &'static str,
        token: &AdminToken,
        body: Option<&impl Serialize>,
    ) -> Result<T, Error> {
        let unreachable = |source| Error::Unreachable { address, path, source };
        let mut request = self.http.request(method, url(address, path)).bearer_auth(token.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer: Response = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(Error::Refused { address, path, status: status.as_u16() });
        }
        answer.json().await.map_err(unreachable)
    }
}

/// Of the admin API of the node at `address`.
fn url(address: IpAddr, path: &str) -> String {
    format!("http://{}{path}", SocketAddr::new(address, ADMIN_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_by_its_address_of_either_kind() {
        let url = |address: &str| url(address.parse().unwrap(), "/drain");
        assert_eq!(url("10.0.0.1"), "http://10.0.0.1:4002/drain");
        assert_eq!(url("fd00::1"), "http://[fd00::1]:4002/drain");
        assert!(reqwest::Url::parse(&url("fd00::1")).is_ok());
    }
}
