//! The gallery is whole, steady, and made of what it says.

use std::collections::HashSet;

use certs_dev::{Bundle, Case, Gallery};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::new_gallery;

#[test]
fn ids_are_unique_kebab_case_and_lead_back_to_their_case() {
    let ids: HashSet<_> = Case::ALL.iter().map(|case| case.id()).collect();
    assert_eq!(ids.len(), Case::ALL.len());
    for case in Case::ALL {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(case.id().chars().all(plain), "{}", case.id());
        assert_eq!(case.id().parse::<Case>().unwrap(), *case);
    }
    assert!("no-such-case".parse::<Case>().is_err());
}

#[test]
fn every_case_is_made_and_all_but_the_malformed_one_can_be_read() {
    let gallery = new_gallery();
    for case in Case::ALL {
        let identity = gallery.identity(*case).unwrap();
        for (position, certificate) in identity.chain.iter().enumerate() {
            let readable = matches!(X509Certificate::from_der(certificate), Ok(([], _)));
            assert_eq!(readable, (*case, position) != (Case::Malformed, 0), "{}", case.id());
        }
    }
}

#[test]
fn a_case_is_the_same_each_time_and_has_one_key_of_its_own() {
    let gallery = new_gallery();
    let mut keys = HashSet::new();
    for case in Case::ALL {
        let (first, second) = (gallery.identity(*case).unwrap(), gallery.identity(*case).unwrap());
        assert_eq!(first.chain, second.chain, "{}", case.id());
        assert_eq!(first.key, second.key, "{}", case.id());
        assert!(keys.insert(first.key.secret_der().to_vec()), "{}", case.id());
    }
}

#[test]
fn all_cases_of_a_gallery_share_its_root_and_no_other_gallery_does() {
    let (gallery, other) = (new_gallery(), new_gallery());
    let root = gallery.bundle(Bundle::Root).remove(0);
    assert_ne!(root, other.bundle(Bundle::Root)[0]);
    assert_eq!(gallery.identity(Case::RootSent).unwrap().chain.last(), Some(&root));
    for bundle in Bundle::ALL {
        assert_eq!(gallery.bundle(*bundle)[0], root);
    }
    let intermediate = &gallery.identity(Case::Good).unwrap().chain[1];
    assert_eq!(gallery.bundle(Bundle::DevStack)[1], *intermediate);
    for case in [Case::GoodIp, Case::Expired, Case::WrongName, Case::WeakRsa, Case::Revoked] {
        assert_eq!(gallery.identity(case).unwrap().chain[1], *intermediate, "{}", case.id());
    }
}

#[test]
fn the_lookalike_differs_from_the_one_in_the_bundle_by_its_key_alone() {
    let gallery = new_gallery();
    let original = gallery.identity(Case::SelfSignedInBundleCa).unwrap().chain;
    let lookalike = gallery.identity(Case::SelfSignedLookalike).unwrap().chain;
    assert!(gallery.bundle(Bundle::Plus).contains(&original[0]));
    assert!(!gallery.bundle(Bundle::Plus).contains(&lookalike[0]));

    let (_, original) = X509Certificate::from_der(&original[0]).unwrap();
    let (_, lookalike) = X509Certificate::from_der(&lookalike[0]).unwrap();
    assert_eq!(original.subject(), lookalike.subject());
    assert_eq!(
        original.subject_alternative_name().unwrap().unwrap().value,
        lookalike.subject_alternative_name().unwrap().unwrap().value,
    );
    assert_eq!(original.validity(), lookalike.validity());
    assert_ne!(original.public_key(), lookalike.public_key());
    assert_eq!(Case::SelfSignedInBundleCa.name(), Case::SelfSignedLookalike.name());
}

#[test]
fn the_odd_ones_are_what_they_claim_to_be() {
    let gallery = new_gallery();
    let first = |case| gallery.identity(case).unwrap().chain.remove(0);

    let der = first(Case::Version1);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.version(), X509Version::V1);
    assert!(certificate.extensions().is_empty());

    let der = first(Case::Sha1Signature);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.signature_algorithm.algorithm.to_string(), "1.2.840.113549.1.1.5");
    assert_eq!(certificate.signature_algorithm, certificate.tbs_certificate.signature);

    let der = first(Case::WeakRsa);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.public_key().parsed().unwrap().key_size(), 1024);

    let der = first(Case::CnOnly);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(certificate.subject_alternative_name().unwrap().is_none());
    let name = certificate.subject().iter_common_name().next().unwrap().as_str().unwrap();
    assert_eq!(name, Case::CnOnly.name());
}

#[test]
fn names_are_addresses_where_the_case_says_so() {
    let gallery = new_gallery();
    for case in Case::ALL {
        assert_eq!(gallery.name(*case).parse::<std::net::IpAddr>().is_ok(), Gallery::is_ip(*case));
    }
}
