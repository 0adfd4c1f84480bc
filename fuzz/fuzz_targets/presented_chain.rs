//! A chain as a server presents it, to be judged: no acceptance but of what the gallery's authorities
//! issued, byte for byte, and a plain sentence for every refusal.
//!
//! An input is a byte that chooses the question, then certificates, each behind its length (two bytes,
//! big-endian); the last one takes what is left.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rustls_pki_types::CertificateDer;

use vouchsafe::tls::{client::TlsClient, crl::Crls, identity::ReferenceId, presented::Certificate};
use vouchsafe_fuzz::{
    LISTS, Signatures, ask, believing, chain,
    der::{self, Dice},
    now, reference,
};

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let question = &*QUESTION;
    let reference = &question.references[usize::from(choice & 0x0f)];
    let with_lists = choice & 0x10 != 0;
    let client = if with_lists { &question.with_lists } else { &question.without };
    let signatures = if choice & 0x20 != 0 { Signatures::Blind } else { Signatures::Real };

    let presented: Vec<_> = split(rest).into_iter().map(|der| Certificate::read(&CertificateDer::from(der))).collect();
    let verdict = ask(client, &presented, reference, signatures);
    if verdict.is_ok() && signatures == Signatures::Real {
        let own = &presented[0].der;
        let known = question.good.contains(own) || !with_lists && question.revoked == *own;
        assert!(known, "accepted, and not of the gallery: {:?}", presented[0]);
    }
});

// Half of the changes keep what surrounds the change readable.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut dice = Dice::new(seed);
    match rearranged(&data[..size], &mut dice, max_size) {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

/// Changes one certificate of a chain, or their order; None where libFuzzer shall do it, or it is too long.
fn rearranged(input: &[u8], dice: &mut Dice, most: usize) -> Option<Vec<u8>> {
    let (choice, rest) = input.split_first()?;
    let mut ders: Vec<_> = split(rest).into_iter().map(<[u8]>::to_vec).collect();
    if ders.is_empty() || dice.below(2) == 0 {
        return None;
    }
    let (one, other) = (dice.below(ders.len()), dice.below(ders.len()));
    match dice.below(16) {
        0 => ders.swap(one, other),
        1 => drop(ders.remove(one)),
        2 => ders.insert(one, ders[other].clone()),
        _ => ders[one] = der::change(&ders[one], dice, usize::from(u16::MAX))?,
    }
    let mut changed = vec![*choice];
    for der in ders {
        changed.extend(u16::try_from(der.len()).ok()?.to_be_bytes());
        changed.extend(der);
    }
    (changed.len() <= most).then_some(changed)
}

fn split(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut ders = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (der, behind) = behind.split_at(length);
        ders.push(der);
        rest = behind;
    }
    ders
}

struct Question {
    references: [ReferenceId; 16],
    with_lists: Arc<TlsClient>,
    without: Arc<TlsClient>,
    /// The server certificates that some reference may accept.
    good: Vec<CertificateDer<'static>>,
    /// Good without the lists.
    revoked: CertificateDer<'static>,
}

static QUESTION: LazyLock<Question> = LazyLock::new(|| {
    let lists = Crls::load(&[("gallery.crl".into(), LISTS.into())], now()).expect("lists");
    let own = |pem| chain(pem).swap_remove(0).der;
    Question {
        references: [
            "good.gallery.test",
            "127.0.0.1",
            "::1",
            "good-ecdsa-p384.gallery.test",
            "good-rsa2048.gallery.test",
            "good-wildcard.gallery.test",
            "revoked.gallery.test",
            "root-sent.gallery.test",
            "self-signed-in-bundle-ca.gallery.test",
            "self-signed-in-bundle-leaf.gallery.test",
            // What no certificate of the gallery may be taken for, but the wildcard.
            "expired.gallery.test",
            "wild.gallery.test",
            "two.labels.gallery.test",
            "my_svc",
            "test",
            "192.0.2.2",
        ]
        .map(reference),
        with_lists: believing(lists),
        without: believing(Crls::default()),
        good: [
            include_str!("../gallery/good.pem"),
            include_str!("../gallery/good-ecdsa-p384.pem"),
            include_str!("../gallery/good-ip.pem"),
            include_str!("../gallery/good-rsa2048.pem"),
            include_str!("../gallery/good-wildcard.pem"),
            include_str!("../gallery/root-sent.pem"),
            include_str!("../gallery/self-signed-in-bundle-ca.pem"),
            include_str!("../gallery/self-signed-in-bundle-leaf.pem"),
        ]
        .map(own)
        .into(),
        revoked: own(include_str!("../gallery/revoked.pem")),
    }
});
