//! Which pages may open a socket, by the `Origin` header that browsers send (`P-CON-5`).

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

/// `false`, `true`, or a list of origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CheckOrigin {
    /// `false`: any page may.
    #[default]
    Off,
    /// `true`: pages of the configured host, by any scheme and port.
    Host,
    /// Pages of these origins: `//host`, `scheme://host:port`, `//*.host` for a host and those
    /// under it.
    List(Vec<String>),
}

impl CheckOrigin {
    /// Whether any page may.
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// An origin, or a pattern of origins: what is left out stands for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The scheme, in lower case.
    pub scheme: Option<String>,
    /// The host, in lower case.
    pub host: String,
    /// The port; that of the scheme where the scheme has one.
    pub port: Option<u16>,
}

impl Origin {
    /// Reads `[scheme:]//host[:port]`; `None` for anything else, and for more than that.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("//")?;
        let scheme = match scheme {
            "" => None,
            scheme => Some(scheme.strip_suffix(':').filter(|scheme| is_scheme(scheme))?),
        };
        // Colons within brackets belong to an IPv6 address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok(),
            Some(_) => return None,
            None => match scheme {
                Some("http" | "ws") => Some(80),
                Some("https" | "wss") => Some(443),
                _ => None,
            },
        };
        if port.is_none() && authority.len() != host.len() {
            return None;
        }
        let host = is_host(host).then(|| host.to_owned())?;
        Some(Self { scheme: scheme.map(str::to_owned), host, port })
    }

    /// Whether this pattern stands for `origin`. `*.host` stands for `host` too.
    pub fn matches(&self, origin: &Self) -> bool {
        let host = match self.host.strip_prefix("*.") {
            None => self.host == origin.host,
            Some(apex) => {
                let under = origin.host.strip_suffix(apex);
                under.is_some_and(|under| under.is_empty() || under.ends_with('.'))
            }
        };
        host && (self.scheme.is_none() || self.scheme == origin.scheme)
            && (self.port.is_none() || self.port == origin.port)
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// A name or an address, perhaps under `*.`.
fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let name = text.strip_prefix("*.").unwrap_or(text);
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for CheckOrigin {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CheckOrigin".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "`false`: any page may. `true`: pages of `host`, by any scheme and port. \
                Or a list: `//host`, `scheme://host:port`, `//*.host` for a host and those under it.",
            "anyOf": [
                { "type": "boolean" },
                {
                    "type": "array",
                    "items": { "type": "string", "pattern": crate::schema::ORIGIN },
                    "maxItems": 256,
                },
            ],
        })
    }
}

impl Serialize for CheckOrigin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::Host => serializer.serialize_bool(true),
            Self::List(origins) => origins.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for CheckOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = CheckOrigin;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a list of origins")
            }

            fn visit_bool<E>(self, on: bool) -> Result<CheckOrigin, E> {
                Ok(if on { CheckOrigin::Host } else { CheckOrigin::Off })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<CheckOrigin, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(CheckOrigin::List)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::parse(text).unwrap_or_else(|| panic!("{text} is an origin"))
    }

    #[test]
    fn p_con_5_what_an_origin_is() {
        let of = |scheme: Option<&str>, host: &str, port| Origin {
            scheme: scheme.map(Into::into),
            host: host.into(),
            port,
        };
        for (text, want) in [
            ("//a.b", of(None, "a.b", None)),
            ("//a.b:81", of(None, "a.b", Some(81))),
            ("HTTPS://A.b", of(Some("https"), "a.b", Some(443))),
            ("http://a:8080", of(Some("http"), "a", Some(8080))),
            ("app://a", of(Some("app"), "a", None)),
            ("http://[::1]:4000", of(Some("http"), "[::1]", Some(4000))),
            ("http://[::1]", of(Some("http"), "[::1]", Some(80))),
            ("//*.a.b", of(None, "*.a.b", None)),
        ] {
            assert_eq!(Origin::parse(text), Some(want), "{text}");
        }
        for text in [
            "",
            "null",
            "a.b",
            "http:",
            "http://",
            "//",
            "//:80",
            "//a/",
            "//a?b",
            "//u@a",
            "//*",
            "//*.",
            "//a.*.b",
            "//*a",
            "//a:",
            "//a:x",
            "//a:99999",
            "//[::1",
            "//[x]",
            "1p://a",
            "http//a",
            "//a b",
            "//*.*.a",
            "//a//b",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }

    #[test]
    fn p_con_5_what_a_pattern_stands_for() {
        for (pattern, text, want) in [
            ("//a.b", "https://a.b", true),
            ("//a.b", "http://a.b:8080", true),
            ("//a.b", "http://x.a.b", false),
            ("//a.b:81", "http://a.b:81", true),
            ("//a.b:81", "http://a.b", false),
            ("https://a.b", "https://a.b:443", true),
            ("https://a.b", "https://a.b:444", false),
            ("https://a.b", "http://a.b", false),
            ("//*.a.b", "http://a.b", true),
            ("//*.a.b", "http://x.y.a.b", true),
            ("//*.a.b", "http://xa.b", false),
            ("//*.a.b", "http://a.b.c", false),
        ] {
            assert_eq!(origin(pattern).matches(&origin(text)), want, "{pattern} {text}");
        }
    }
}
