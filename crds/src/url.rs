//! What a URL that nodes call must be, as a rule of the CRD. A node refuses others, and would not start.

/// Of an object with a field `url`: `http` or `https`, a host, and a port of 1 to 65535 if there is
/// one; no user, and only the characters that RFC 3986 has in a URL.
pub(crate) const HTTP_URL: &str = "self.url.matches('^https?://([0-9A-Za-z._~-]+|\\\\[[0-9A-Fa-f:.]+\\\\])(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?([/?#][!#-;=?-Z_a-z~]*)?$')";
