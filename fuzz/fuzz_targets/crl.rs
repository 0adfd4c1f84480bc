//! A file of revocation lists: lists that can be searched, or a sentence; and no list makes the verifier
//! accept a certificate that is revoked, or say more than that it cannot use the list.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

use vouchsafe::tls::{crl::Crls, failure::Code, presented::Certificate};
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
        lists.names(certificate.facts.as_ref().expect("readable"));
    }
    let client = believing(lists);
    for signatures in [Signatures::Real, Signatures::Blind] {
        if let Err(failure) = ask(&client, &GOOD, &reference("good.gallery.test"), signatures) {
            assert!(ABOUT_LISTS.contains(&failure.code()), "{failure:?}");
            assert!(signatures == Signatures::Blind || failure.code() != Code::Revoked, "{failure:?}");
        }
    }
});

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
