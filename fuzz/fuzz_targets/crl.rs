//! A file of revocation lists: lists that can be searched, or a sentence; two other readers agree about who is revoked;
//! and no list makes the verifier accept a certificate that is revoked, or say more than that the list is invalid.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use vouchsafe::tls::{crl::Crls, failure::Code, pem, presented::Certificate};
use vouchsafe_fuzz::{
    Signatures, ask, believing, chain,
    der::{self, Dice},
    is_plain, now, reference,
};

fuzz_target!(|input: &[u8]| {
    let files = [("lists.pem".to_owned(), input.to_vec())];
    let lists = match Crls::load(&files, now()) {
        Ok(lists) => lists,
        Err(error) => return error.to_string().split('\n').for_each(is_plain),
    };
    lists.warnings.iter().for_each(|warning| is_plain(warning));
    for certificate in GOOD.iter().chain(&*REVOKED) {
        others_agree(input, &lists, certificate);
    }
    let client = believing(lists);
    for signatures in [Signatures::Real, Signatures::Blind] {
        if let Err(failure) = ask(&client, &GOOD, &reference("good.gallery.test"), signatures) {
            assert!(ABOUT_LISTS.contains(&failure.code()), "{failure:?}");
            assert!(signatures == Signatures::Blind || failure.code() != Code::Revoked, "{failure:?}");
        }
    }
});

/// What x509-parser and webpki find on one of the lists is found.
fn others_agree(input: &[u8], lists: &Crls, certificate: &Certificate) {
    let facts = certificate.facts.as_ref().expect("readable");
    let revoked = lists.names(facts);
    let blocks = pem::read(input).unwrap_or_default();
    let ders: Vec<&[u8]> = match blocks.as_slice() {
        [] => vec![input],
        blocks => blocks.iter().filter(|block| block.label == pem::X509_CRL).map(|block| &*block.der).collect(),
    };
    for der in ders {
        if let Ok((_, list)) = CertificateRevocationList::from_der(der)
            && list.issuer().as_raw() == facts.issuer_der
        {
            let listed = list.iter_revoked_certificates().any(|entry| entry.raw_serial() == facts.serial_der);
            assert!(revoked || !listed, "x509-parser");
        }
        if let Ok(list) = OwnedCertRevocationList::from_der(der).map(CertRevocationList::from)
            // webpki has the name without tag and length, which are two octets here.
            && facts.issuer_der.get(2..) == Some(list.issuer())
        {
            let listed = list.find_serial(&facts.serial_der).is_ok_and(|entry| entry.is_some());
            assert!(revoked || !listed, "webpki");
        }
    }
}

// Half of the changes to a list in DER keep what surrounds the change readable.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut dice = Dice::new(seed);
    let changed = if dice.below(2) == 0 { None } else { der::change(&data[..size], &mut dice, max_size) };
    match changed {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

static GOOD: LazyLock<Vec<Certificate>> = LazyLock::new(|| chain(include_str!("../gallery/good.pem")));
static REVOKED: LazyLock<Vec<Certificate>> = LazyLock::new(|| chain(include_str!("../gallery/revoked.pem")));

const ABOUT_LISTS: [Code; 4] = [Code::CrlExpired, Code::CrlInvalid, Code::MalformedCertificate, Code::Revoked];
