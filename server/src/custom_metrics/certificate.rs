//! The certificate of the listener: an authority whose key is thrown away, and one certificate of it. Both are replaced long
//! before their end, and the authority before is believed meanwhile, since not every server changes at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{Timestamp, ToSpan, civil, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Days for which a certificate is good.
const DAYS: i32 = 365;
/// Days before its end at which it is replaced.
const RENEW_DAYS: i32 = 120;
/// Days by which clocks may differ.
const SLACK_DAYS: i32 = 1;

/// Entries of the Secret.
const AUTHORITIES: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// A certificate with its key, and who vouches for it.
#[derive(Debug)]
pub(super) struct Identity {
    /// Authorities as PEM: the one of the certificate first, then the one before.
    pub authorities: String,
    /// Certificate and key.
    pub certified: Arc<CertifiedKey>,
    certificate: String,
}

/// A certificate cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate")]
pub(super) struct CannotMake(#[from] rcgen::Error);

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (&self.certificate, &self.authorities) == (&other.certificate, &other.authorities)
    }
}

impl Identity {
    /// Reads what a Secret holds; `None` where that is no certificate for this host that has begun and is far from its end.
    pub fn read(data: &BTreeMap<String, String>, host: &str, now: Timestamp) -> Option<Self> {
        let (authorities, certificate) = (data.get(AUTHORITIES)?, data.get(CERTIFICATE)?);
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().ok()?;
        let (_, read) = X509Certificate::from_der(chain.first()?).ok()?;
        let names = read.subject_alternative_name().ok()??;
        let is_for_host = names
            .value
            .general_names
            .iter()
            .any(|name| matches!(name, GeneralName::DNSName(name) if *name == host));
        let days = |count: i32| i64::from(count) * 24 * 60 * 60;
        let validity = read.validity();
        let has_begun = validity.not_before.timestamp() <= now.as_second();
        let is_far_from_end = validity.not_after.timestamp() - days(RENEW_DAYS) > now.as_second();
        let is_fit = is_for_host && has_begun && is_far_from_end && !first_of(authorities)?.is_empty();
        let key = PrivateKeyDer::from_pem_slice(data.get(KEY)?.as_bytes()).ok()?;
        let certified = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).ok()?;
        let (authorities, certificate) = (authorities.clone(), certificate.clone());
        is_fit.then(|| Self { authorities, certified: Arc::new(certified), certificate })
    }

    /// Makes the entries of a Secret for this host, in the place of others.
    pub fn make(
        host: &str,
        now: Timestamp,
        before: Option<&BTreeMap<String, String>>,
    ) -> Result<BTreeMap<String, String>, CannotMake> {
        let authority_key = KeyPair::generate()?;
        let mut authority = valid(now);
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.distinguished_name.push(DnType::CommonName, "authority of tms-server");
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority_certificate = authority.self_signed(&authority_key)?;

        let key = KeyPair::generate()?;
        let mut server = valid(now);
        server.subject_alt_names = vec![SanType::DnsName(host.try_into()?)];
        server.distinguished_name.push(DnType::CommonName, "tms-server");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = server.signed_by(&key, &Issuer::from_params(&authority, &authority_key))?;

        let older = before.and_then(|data| first_of(data.get(AUTHORITIES)?)).unwrap_or_default();
        Ok([
            (AUTHORITIES, authority_certificate.pem() + &older),
            (CERTIFICATE, certificate.pem()),
            (KEY, key.serialize_pem()),
        ]
        .map(|(name, text)| (name.to_owned(), text))
        .into())
    }
}

fn valid(now: Timestamp) -> CertificateParams {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |date: civil::Date| {
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    let mut params = CertificateParams::default();
    params.not_before = day(today.saturating_sub(SLACK_DAYS.days()));
    params.not_after = day(today.saturating_add(DAYS.days()));
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    params
}

/// Returns the first certificate of a bundle, as PEM; `None` where there is none.
fn first_of(bundle: &str) -> Option<String> {
    const END: &str = "-----END CERTIFICATE-----";
    CertificateDer::from_pem_slice(bundle.as_bytes()).ok()?;
    let end = bundle.find(END)? + END.len();
    Some(format!("{}\n", bundle[..end].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "tms-custom-metrics.tms.svc";

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 24 * 60 * 60).unwrap()
    }

    fn count(bundle: &str) -> usize {
        CertificateDer::pem_slice_iter(bundle.as_bytes()).count()
    }

    #[test]
    fn what_is_made_is_read_until_a_third_of_its_time_is_left() {
        let made = Identity::make(HOST, at(0), None).unwrap();
        assert_eq!(count(&Identity::read(&made, HOST, at(0)).unwrap().authorities), 1);
        assert!(Identity::read(&made, HOST, at(244)).is_some());
        assert!(Identity::read(&made, HOST, at(246)).is_none(), "it is replaced before its end");
        assert!(Identity::read(&made, HOST, at(-3)).is_none(), "it has not begun");
        assert!(Identity::read(&made, "other.tms.svc", at(0)).is_none(), "it is for another host");
    }

    #[test]
    fn what_is_torn_is_not_read() {
        let made = Identity::make(HOST, at(0), None).unwrap();
        let other = Identity::make(HOST, at(0), None).unwrap();
        for entry in [AUTHORITIES, CERTIFICATE, KEY] {
            let mut torn = made.clone();
            torn.remove(entry);
            assert!(Identity::read(&torn, HOST, at(0)).is_none(), "without {entry}");
            torn.insert(entry.to_owned(), "-----BEGIN".to_owned());
            assert!(Identity::read(&torn, HOST, at(0)).is_none(), "with a torn {entry}");
        }
        let mut mixed = made.clone();
        mixed.insert(KEY.to_owned(), other[KEY].clone());
        assert!(Identity::read(&mixed, HOST, at(0)).is_none(), "with the key of another");
    }

    #[test]
    fn the_authority_before_is_believed_and_those_before_it_are_forgotten() {
        let first = Identity::make(HOST, at(0), None).unwrap();
        let second = Identity::make(HOST, at(250), Some(&first)).unwrap();
        let third = Identity::make(HOST, at(500), Some(&second)).unwrap();
        let authorities = &third[AUTHORITIES];
        assert_eq!(count(authorities), 2);
        assert!(authorities.contains(&first_of(&second[AUTHORITIES]).unwrap()));
        assert!(!authorities.contains(&first_of(&first[AUTHORITIES]).unwrap()));
    }
}
