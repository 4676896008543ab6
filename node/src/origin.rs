//! The origin policy of the socket, compiled from the configuration (`P-CON-5`).

use http::{HeaderMap, header};
use sluice_node_api::config::{CheckOrigin, Origin, Socket};

/// Which `Origin` headers are let through.
#[derive(Clone, Debug)]
pub(crate) enum Policy {
    Any,
    Among(Vec<Origin>),
    /// Scheme, host and port of the request itself, which is plain HTTP here.
    Connection,
}

impl Policy {
    /// An entry that is no origin, or a missing host, lets nothing through: a configuration that
    /// was not checked must not open the door.
    pub(crate) fn new(socket: &Socket) -> Self {
        match &socket.check_origin {
            CheckOrigin::Off => Self::Any,
            CheckOrigin::Host => {
                let host = socket.host.as_deref().unwrap_or_default();
                Self::Among(Origin::parse(&format!("//{host}")).into_iter().collect())
            }
            CheckOrigin::List(list) => {
                Self::Among(list.iter().filter_map(|text| Origin::parse(text)).collect())
            }
        }
    }

    /// Whether a request may go on. One without an `Origin` may: it comes from no page. One that
    /// cannot be read may not.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let here;
        let allowed = match self {
            Self::Any => return true,
            Self::Among(allowed) => allowed,
            Self::Connection => {
                let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
                let origin = host.and_then(|host| Origin::parse(&format!("http://{host}")));
                here = origin.into_iter().collect();
                &here
            }
        };
        headers.get_all(header::ORIGIN).iter().all(|value| {
            let origin = value.to_str().ok().and_then(Origin::parse);
            let origin = origin.filter(|origin| origin.scheme.is_some());
            origin.is_some_and(|origin| allowed.iter().any(|pattern| pattern.matches(&origin)))
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn policy(check_origin: CheckOrigin, host: Option<&str>) -> Policy {
        Policy::new(&Socket { check_origin, host: host.map(Into::into), ..Socket::default() })
    }

    fn admits(policy: &Policy, origins: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(header::ORIGIN, HeaderValue::from_static(origin));
        }
        policy.admits(&headers)
    }

    #[test]
    fn p_con_5_false_admits_all_and_no_header_passes() {
        let off = policy(CheckOrigin::Off, None);
        assert!(admits(&off, &["null"]) && admits(&off, &["https://x"]) && admits(&off, &[]));
        let list = policy(CheckOrigin::List(vec![]), None);
        assert!(admits(&list, &[]) && !admits(&list, &["https://x"]));
    }

    #[test]
    fn p_con_5_true_compares_the_host_only() {
        let host = policy(CheckOrigin::Host, Some("chat.example.com"));
        assert!(admits(&host, &["http://chat.example.com:8080"]));
        assert!(admits(&host, &["https://CHAT.example.com"]));
        for origin in ["https://x.chat.example.com", "https://example.com", "null", "//", "x"] {
            assert!(!admits(&host, &[origin]), "{origin}");
        }
        assert!(!admits(&policy(CheckOrigin::Host, None), &["https://x"]), "no host, no page");
    }

    #[test]
    fn p_con_5_conn_needs_scheme_host_and_port_of_the_request() {
        let admits = |host: &'static str, origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            Policy::Connection.admits(&headers)
        };
        assert!(admits("a.example:4000", "http://a.example:4000"));
        assert!(admits("a.example", "http://a.example"));
        for origin in ["https://a.example:4000", "http://a.example", "http://b.example:4000"] {
            assert!(!admits("a.example:4000", origin), "{origin}");
        }
    }

    #[test]
    fn p_con_5_a_list_and_what_is_unreadable() {
        let list = ["https://a.example", "//*.b.example", "nonsense"].map(String::from);
        let list = policy(CheckOrigin::List(list.into()), None);
        assert!(admits(&list, &["https://a.example"]));
        assert!(admits(&list, &["http://x.b.example:81"]));
        for origin in ["http://a.example", "nonsense", "//x.b.example"] {
            assert!(!admits(&list, &[origin]), "{origin}");
        }
        assert!(!admits(&list, &["https://a.example", "https://c.example"]), "each must pass");
    }
}
