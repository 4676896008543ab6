//! What the JSON Schemas of the files say of texts. A pattern never refuses what a node takes.
//!
//! What only the files say of a type that stands in the ChannelCluster API too is in its `x-file`: there
//! CEL rules say it, with a sentence.

/// A port, 0 among them.
macro_rules! port {
    () => {
        "0*([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
    };
}

/// A port of 1 to 65535.
macro_rules! open_port {
    () => {
        "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
    };
}

/// An IPv6 address in brackets.
macro_rules! v6 {
    () => {
        r"\[[0-9A-Fa-f:.]+(%[0-9]+)?\]"
    };
}

/// `ip:port`, to listen on.
pub(crate) const ADDRESS: &str = concat!("^([0-9.]+|", v6!(), "):", port!(), "$");
/// `host:port`, to connect to.
pub(crate) const PEER: &str = concat!("^([A-Za-z0-9._-]{1,253}|", v6!(), "):", open_port!(), "$");
/// `http` or `https`, with a host.
pub(crate) const URL: &str =
    concat!("^https?://([^/?#]*@)?([^/?#@:]+|", v6!(), ")(:", open_port!(), ")?([/?#].*)?$");
/// A DNS name.
pub(crate) const DNS_NAME: &str = "^[A-Za-z0-9._-]+$";
/// A host without a port.
pub(crate) const HOST: &str = concat!("^([A-Za-z0-9_-][A-Za-z0-9._-]*|", v6!(), ")$");
/// The path of a mount: no part of it is empty, `.` or `..`.
pub(crate) const PATH: &str = r"^(/(\.*[A-Za-z0-9_~-][A-Za-z0-9._~-]*|\.{3,}))+$";
/// The name of a header.
pub(crate) const HEADER: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
/// The name of a parameter.
pub(crate) const PARAM: &str = "^[A-Za-z0-9_.-]+$";
/// A text with at least one claim in it, `users:{sub}`.
pub(crate) const SOCKET_ID: &str = r"^[^{}]*(\{[^{}]+\}[^{}]*)+$";
/// Where a page may be from.
pub(crate) const ORIGIN: &str = concat!(
    "^([A-Za-z][A-Za-z0-9+.-]*:)?//((",
    r"\*\.)?[A-Za-z0-9_-][A-Za-z0-9._-]*|",
    v6!(),
    ")(:",
    port!(),
    ")?$"
);
