//! What plain rustls says to each case. It shows that a case is wrong in the way it claims to be,
//! and which cases rustls alone gets wrong: those are what a careful client adds.

use std::sync::Arc;

use certs_dev::{Case, Expected, Gallery};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateRevocationListDer, ServerName, UnixTime};

use crate::new_gallery;

#[test]
fn plain_rustls_refuses_each_case_for_the_cause_it_is_about() {
    let gallery = new_gallery();
    for case in Case::ALL {
        let said = match verify(&gallery, *case, case.needs_crl()) {
            Ok(()) => "accepted".to_owned(),
            Err(Error::InvalidCertificate(CertificateError::Other(inner))) => format!("{inner:?}"),
            Err(Error::InvalidCertificate(cause)) => format!("{cause:?}"),
            Err(error) => format!("{error:?}"),
        };
        let expected = plain_rustls(*case);
        assert!(said.contains(expected), "{}: `{expected}` expected, not {said}", case.id());
    }
}

#[test]
fn the_revoked_one_is_good_to_whoever_has_no_list() {
    assert_eq!(verify(&new_gallery(), Case::Revoked, false), Ok(()));
}

#[test]
fn the_lists_speak_for_the_good_chain() {
    assert_eq!(verify(&new_gallery(), Case::Good, true), Ok(()));
}

#[test]
fn it_is_all_relative_to_the_time_of_the_gallery() {
    let then = time::macros::datetime!(2031-05-06 07:08:09 UTC);
    let gallery = Gallery::new(then).unwrap();
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(then.unix_timestamp() as u64));
    assert_eq!(verify_at(&gallery, Case::Good, false, at), Ok(()));
    assert!(verify_at(&gallery, Case::Expired, false, at).is_err());
    assert!(verify_at(&gallery, Case::NotYetValid, false, at).is_err());
}

/// A piece of what rustls says.
fn plain_rustls(case: Case) -> &'static str {
    match case {
        // Wrongly refused, or accepted: here a careful client differs.
        Case::SelfSignedInBundleCa | Case::SelfSignedInBundleWrongName => "CaUsedAsEndEntity",
        Case::ExpiredRoot | Case::IssuerMayNotSign | Case::WeakRsa => "accepted",

        _ if case.expected() == Expected::Accept => "accepted",
        Case::BadSignature | Case::SameNameOtherKey => "BadSignature",
        Case::CaAsServer | Case::SelfSignedLookalike | Case::SelfSignedUnknownCa => "CaUsedAsEndEntity",
        Case::CriticalExtension => "UnsupportedCriticalExtension",
        Case::Expired | Case::ExpiredIntermediate | Case::SelfSignedInBundleExpired => "Expired",
        Case::IssuerNotCa => "EndEntityUsedAsCa",
        Case::Malformed => "BadEncoding",
        Case::MissingIntermediate | Case::SelfSignedUnknownLeaf | Case::UnknownRoot => "UnknownIssuer",
        Case::NameConstraint => "NameConstraintViolation",
        Case::NotYetValid => "NotValidYet",
        Case::PathLength => "PathLenConstraintViolated",
        Case::Revoked => "Revoked",
        Case::Sha1Signature => "UnsupportedSignatureAlgorithm",
        Case::Version1 => "UnsupportedCertVersion",
        Case::WrongPurpose => "InvalidPurpose",
        _ => "NotValidForName",
    }
}

fn verify(gallery: &Gallery, case: Case, with_crl: bool) -> Result<(), Error> {
    verify_at(gallery, case, with_crl, UnixTime::now())
}

fn verify_at(gallery: &Gallery, case: Case, with_crl: bool, now: UnixTime) -> Result<(), Error> {
    let mut roots = RootCertStore::empty();
    for certificate in gallery.bundle(case.bundle()) {
        roots.add(certificate).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    if with_crl {
        let lists = CertificateRevocationListDer::pem_slice_iter(gallery.crl_pem().as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .unwrap();
        assert_eq!(lists.len(), 2);
        builder = builder.with_crls(lists);
    }
    let chain = gallery.identity(case).unwrap().chain;
    let name = ServerName::try_from(case.name()).unwrap();
    let verifier = builder.build().unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now).map(|_| ())
}
