//! The subprotocols that a client offers, and the auth token that phoenix.js hides among them
//! (`P-CON-6`, `P-CON-7`). Reads headers only.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderValue, header};

const TOKEN: &str = "base64url.bearer.phx.";
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// What a client offers.
pub(crate) struct Offer<'a> {
    /// The header is there, and does not say a token alone.
    made: bool,
    names: Vec<&'a str>,
    token: Option<&'a str>,
}

/// An offer that is refused, with 403.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unacceptable;

impl<'a> Offer<'a> {
    /// Reads the offer; with `auth_token` one token is taken out of it, of two none is used.
    pub(crate) fn read(headers: &'a HeaderMap, auth_token: bool) -> Self {
        let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let mut made = values.iter().next().is_some();
        let values = values.iter().filter_map(|value| value.to_str().ok());
        let mut names: Vec<_> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        let tokens: Vec<_> = names.iter().filter_map(|name| name.strip_prefix(TOKEN)).collect();
        let token = match tokens[..] {
            [token] if auth_token => {
                names.retain(|name| !name.starts_with(TOKEN));
                made = !names.is_empty();
                Some(token)
            }
            _ => None,
        };
        Self { made, names, token }
    }

    /// The auth token, in either alphabet of base64, with or without padding.
    pub(crate) fn token(&self) -> Result<Option<String>, Unacceptable> {
        let Some(token) = self.token else { return Ok(None) };
        let decoded = [STANDARD, URL_SAFE]
            .iter()
            .find_map(|alphabet| GeneralPurpose::new(alphabet, LENIENT).decode(token).ok());
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        text.map(Some).ok_or(Unacceptable)
    }

    /// The subprotocol to answer with: the first offered that is `known` (`P-CON-9`).
    pub(crate) fn agree(&self, known: &[String]) -> Result<Option<HeaderValue>, Unacceptable> {
        if known.is_empty() || !self.made {
            return Ok(None);
        }
        let name = self.names.iter().find(|name| known.iter().any(|known| known == *name));
        let value = name.and_then(|name| HeaderValue::from_str(name).ok());
        value.map(Some).ok_or(Unacceptable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(offer: &str) -> HeaderMap {
        let value = HeaderValue::from_str(offer).expect("a header");
        [(header::SEC_WEBSOCKET_PROTOCOL, value)].into_iter().collect()
    }

    fn phoenix() -> Vec<String> {
        vec!["phoenix".to_owned()]
    }

    #[test]
    fn p_con_6_p_con_7_a_token_in_either_alphabet() {
        // "a?b>" has a character that the alphabets write differently.
        for (text, token) in [("YT9iPg", "a?b>"), ("Pz8_", "???"), ("Pz8/", "???"), ("YQ==", "a")] {
            let headers = headers(&format!("phoenix, {TOKEN}{text}"));
            let offer = Offer::read(&headers, true);
            assert_eq!(offer.token(), Ok(Some(token.to_owned())));
            assert_eq!(offer.agree(&phoenix()), Ok(Some(HeaderValue::from_static("phoenix"))));
        }
        for garbage in ["%%", "Y", "/w"] {
            let headers = headers(&format!("phoenix, {TOKEN}{garbage}"));
            assert_eq!(Offer::read(&headers, true).token(), Err(Unacceptable), "{garbage}");
        }
    }

    #[test]
    fn p_con_6_of_two_tokens_none_is_used() {
        let headers = headers(&format!("phoenix, {TOKEN}YQ, {TOKEN}Yg"));
        let offer = Offer::read(&headers, true);
        assert_eq!(offer.token(), Ok(None));
        assert_eq!(offer.agree(&phoenix()), Ok(Some(HeaderValue::from_static("phoenix"))));
    }

    #[test]
    fn p_con_9_a_token_alone_offers_no_subprotocol() {
        let headers = headers(&format!("{TOKEN}YQ"));
        let offer = Offer::read(&headers, true);
        assert_eq!((offer.token(), offer.agree(&phoenix())), (Ok(Some("a".into())), Ok(None)));
        let offer = Offer::read(&headers, false);
        assert_eq!(offer.agree(&phoenix()), Err(Unacceptable), "here it is a name like others");
    }

    #[test]
    fn p_con_8_without_the_option_no_protocol_is_answered() {
        let headers = headers(&format!("phoenix, {TOKEN}YQ"));
        let offer = Offer::read(&headers, false);
        assert_eq!((offer.token(), offer.agree(&[])), (Ok(None), Ok(None)));
    }

    #[test]
    fn p_con_9_a_match_is_echoed_and_a_mismatch_refused() {
        let known = ["one".to_owned(), "two".to_owned()];
        let two = headers("three, two,one");
        let agreed = Offer::read(&two, false).agree(&known);
        assert_eq!(agreed, Ok(Some(HeaderValue::from_static("two"))));
        assert_eq!(Offer::read(&headers("three"), false).agree(&known), Err(Unacceptable));
        assert_eq!(Offer::read(&HeaderMap::new(), false).agree(&known), Ok(None));
    }
}
