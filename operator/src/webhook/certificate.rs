//! The webhook's certificate: made anew for each rotation, together with an authority that signs
//! nothing else. The authority's key is thrown away at once, so nobody can sign with it.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, Zoned, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

/// How long a certificate is good for.
const GOOD_FOR: SignedDuration = SignedDuration::from_hours(365 * 24);
/// When it is replaced: early enough for an operator that was away for months.
const RENEWED_AFTER: SignedDuration = SignedDuration::from_hours(240 * 24);
/// Clocks differ.
const GOOD_BEFORE: SignedDuration = SignedDuration::from_hours(24);

/// Why a certificate can't be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be made.
    #[error("failed to make a certificate")]
    Make(#[source] rcgen::Error),
    /// It is not what it should be: a fixed sentence, never the key.
    #[error("the certificate can't be used: {0}")]
    Unusable(&'static str),
}

/// A certificate with its key, as PEM.
pub struct Made {
    /// The authority that signed it.
    pub authority: String,
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// When to make the next one.
    pub renew_at: Timestamp,
}

/// Makes a certificate for the DNS name `host`.
pub fn make(host: &str, now: Timestamp) -> Result<Made, Error> {
    let begin = now - GOOD_BEFORE;
    let authority_key = KeyPair::generate().map_err(Error::Make)?;
    let mut authority = params(vec![], "sluice-webhook-ca", begin, now + GOOD_FOR)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_pem = authority.self_signed(&authority_key).map_err(Error::Make)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let key = KeyPair::generate().map_err(Error::Make)?;
    let mut subject = params(vec![host.into()], "sluice-webhook", begin, now + GOOD_FOR)?;
    subject.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    subject.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = subject.signed_by(&key, &issuer).map_err(Error::Make)?;
    Ok(Made {
        authority: authority_pem,
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        renew_at: now + RENEWED_AFTER,
    })
}

/// From the day of `begin` to that of `end`.
fn params(
    hosts: Vec<String>,
    name: &str,
    begin: Timestamp,
    end: Timestamp,
) -> Result<CertificateParams, Error> {
    let day = |at: Timestamp| {
        let at: Zoned = at.to_zoned(TimeZone::UTC);
        date_time_ymd(at.year().into(), at.month().unsigned_abs(), at.day().unsigned_abs())
    };
    let mut params = CertificateParams::new(hosts).map_err(Error::Make)?;
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (day(begin), day(end));
    Ok(params)
}

/// A certificate and its key, from PEM, as TLS serves them.
pub fn served(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, Error> {
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::Unusable("it is not PEM"))?;
    if chain.is_empty() {
        return Err(Error::Unusable("there is none"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| Error::Unusable("no key"))?;
    CertifiedKey::from_der(chain, key, &default_provider())
        .map(Arc::new)
        .map_err(|_| Error::Unusable("the key is not the certificate's"))
}

/// The first certificate of a bundle, as it stands there.
pub fn first(bundle: &str) -> Option<&str> {
    const END: &str = "-----END CERTIFICATE-----\n";
    bundle.find(END).map(|at| &bundle[..at + END.len()])
}
