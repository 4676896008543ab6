//! A public key out of its DER (RFC 5280 `SubjectPublicKeyInfo`): of the three kinds that a token
//! may be signed by, and of no other. Pure; any bytes are taken, none panic.

use sluice_node_api::auth::Algorithm;

const SEQUENCE: u8 = 0x30;
const OID: u8 = 0x06;
const BIT_STRING: u8 = 0x03;
const INTEGER: u8 = 0x02;

/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.3.101.112
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// What the DER says, unchecked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Public<'a> {
    /// Modulus and exponent.
    Rsa(&'a [u8], &'a [u8]),
    /// A point of P-256, uncompressed.
    P256(&'a [u8]),
    /// A point of Ed25519.
    Ed25519(&'a [u8]),
}

impl Public<'_> {
    /// The one algorithm that the key is for.
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa(..) => Algorithm::RS256,
            Self::P256(_) => Algorithm::ES256,
            Self::Ed25519(_) => Algorithm::EdDSA,
        }
    }
}

/// Reads a `SubjectPublicKeyInfo`.
pub(super) fn read(der: &[u8]) -> Option<Public<'_>> {
    let (info, rest) = element(der, SEQUENCE)?;
    let (algorithm, info) = element(info, SEQUENCE)?;
    let (key, after) = element(info, BIT_STRING)?;
    let (unused, key) = key.split_first()?;
    if !rest.is_empty() || !after.is_empty() || *unused != 0 {
        return None;
    }
    let (oid, parameters) = element(algorithm, OID)?;
    match oid {
        RSA => {
            let (pair, _) = element(key, SEQUENCE)?;
            let (modulus, pair) = element(pair, INTEGER)?;
            let (exponent, _) = element(pair, INTEGER)?;
            Some(Public::Rsa(modulus, exponent))
        }
        EC if element(parameters, OID)?.0 == P256 => Some(Public::P256(key)),
        ED25519 => Some(Public::Ed25519(key)),
        _ => None,
    }
}

/// The content of the element of this tag at the start, and what follows.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, der) = der.split_first()?;
    let (first, mut der) = der.split_first()?;
    let mut length = usize::from(*first);
    if *first & 0x80 != 0 {
        let (bytes, after) = der.split_at_checked(usize::from(first & 0x7f))?;
        if !(1..=3).contains(&bytes.len()) {
            return None;
        }
        length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        der = after;
    }
    (*found == tag).then(|| der.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_or_changed_key_is_none_and_never_panics() {
        let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        der.extend([7; 32]);
        assert_eq!(read(&der), Some(Public::Ed25519(&[7; 32])));
        for cut in 0..der.len() {
            assert_eq!(read(&der[..cut]), None, "{cut}");
        }
        for at in 0..12 {
            for value in 0..=255 {
                let mut changed = der.clone();
                changed[at] = value;
                assert!(value == der[at] || read(&changed).is_none(), "{at} {value}");
            }
        }
    }
}
