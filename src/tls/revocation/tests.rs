//! The rules at the head of the room, with keys and lists made for them: a root `Root`, below it an issuer
//! `Issuer`, and what it issued for `store.test`. Lists are given in either order, and it must not matter.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, RevokedCertParams, SigningKey,
};
use rustls_pki_types::{CertificateDer, DnsName};
use time::{Duration, macros::datetime};

use x509_parser::revocation_list::CertificateRevocationList;

use super::*;
use crate::tls::{
    case::{Case, Terms, Trust},
    crl::CrlError,
    identity::ReferenceId,
    trust::TrustAnchors,
    verify::{Accepted, verify},
};

const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);
/// The serial number of every server certificate here.
const SERIAL: u64 = 7;
const HERE: &str = "http://lists.test/here";
const THERE: &str = "http://lists.test/there";

const STRICT: CrlPolicy = CrlPolicy { unknown: Leniency::Refuse, expired: Leniency::Refuse };
const LENIENT: CrlPolicy = CrlPolicy { unknown: Leniency::Tolerate, expired: Leniency::Tolerate };

#[test]
fn the_newest_list_of_an_issuer_decides() {
    let root = Ca::root("Root");
    let older = |naming: &[u64]| root.list(&Draft { from: -9, naming, ..Draft::default() });
    let newer = |naming: &[u64]| root.list(&Draft { from: -2, naming, ..Draft::default() });
    let future = |naming: &[u64]| root.list(&Draft { from: 1, naming, ..Draft::default() });
    let lone = |list: &List| vec![list.clone()];
    let (named, empty): (&[u64], &[u64]) = (&[3, SERIAL], &[]);
    for (what, lists, said) in [
        ("on it", lone(&newer(named)), "revoked"),
        ("not on it", lone(&newer(&[3])), "accepted"),
        ("an older list does not hide a revocation", vec![older(empty), newer(named)], "revoked"),
        ("nor does it keep one that was lifted", vec![older(named), newer(empty)], "accepted"),
        ("a list from the future does not count", lone(&future(empty)), "revocation_unknown"),
        ("nor lift a revocation", vec![newer(named), future(empty)], "revoked"),
        ("nor revoke before its time", vec![newer(empty), future(named)], "accepted"),
    ] {
        assert_eq!(Question::of(&root).lists(&lists).answer(), said, "{what}");
    }
}

#[test]
fn the_policy_is_about_what_lists_do_not_say() {
    let root = Ca::root("Root");
    let other = Ca::root("Other").list(&Draft::default());
    let past = |naming: &[u64]| root.list(&Draft { from: -40, until: -1, naming, ..Draft::default() });
    for (what, list, strict, lenient) in [
        ("past its nextUpdate", past(&[]), "crl_expired", "accepted"),
        ("what is on it stays revoked", past(&[SERIAL]), "revoked", "revoked"),
        ("of another issuer", other, "revocation_unknown", "accepted"),
    ] {
        assert_eq!(Question::of(&root).lists(std::slice::from_ref(&list)).answer(), strict, "{what}");
        assert_eq!(Question::of(&root).lists(&[list]).policy(LENIENT).answer(), lenient, "{what}");
    }
    // Each rule is for its own case.
    let expired_only = CrlPolicy { unknown: Leniency::Refuse, expired: Leniency::Tolerate };
    assert_eq!(Question::of(&root).lists(&[past(&[])]).policy(expired_only).answer(), "accepted");
    assert_eq!(Question::of(&root).lists(&[past(&[])]).policy(CrlPolicy::default()).answer(), "crl_expired");
}

#[test]
fn a_list_that_was_believed_ends_the_verdict() {
    let root = Ca::root("Root");
    let list = |until| [root.list(&Draft { until, ..Draft::default() })];
    let until = |lists: &[List]| Question::of(&root).lists(lists).verified().map(|accepted| accepted.until);
    assert_eq!(until(&list(30)).ok(), Some(NOW + Duration::days(30)));
    // The certificate ends before.
    assert_eq!(until(&list(900)).ok(), Some(NOW + Duration::days(365)));
}

#[test]
fn an_issuer_without_crl_sign_is_not_believed() {
    let able = Ca::root("Root");
    let unable = able.renewed(&[KeyUsagePurpose::KeyCertSign]);
    let unstated = able.renewed(&[]);
    let list = [able.list(&Draft::default())];
    for policy in [STRICT, LENIENT] {
        assert_eq!(Question::of(&unable).lists(&list).policy(policy).answer(), "crl_invalid");
        assert_eq!(Question::of(&unstated).lists(&list).policy(policy).answer(), "accepted");
    }
}

#[test]
fn a_list_of_another_key_speaks_for_nobody_here() {
    let (root, impostor) = (Ca::root("Root"), Ca::root("Root"));
    let foreign = impostor.list(&Draft { naming: &[SERIAL], ..Draft::default() });
    let (foreign_unsaid, own) = (impostor.unsaid(&foreign), root.list(&Draft::default()));
    let own_unsaid = root.unsaid(&own);
    let forged = List([&own.0[..own.0.len() - 1], &[own.0[own.0.len() - 1] ^ 1]].concat());
    for (what, lists, strict, lenient) in [
        ("it says so itself", vec![foreign.clone()], "revocation_unknown", "accepted"),
        ("it does not say", vec![foreign_unsaid.clone()], "crl_invalid", "crl_invalid"),
        ("it claims this key", vec![forged.clone()], "crl_invalid", "crl_invalid"),
        ("alongside the issuer's own", vec![own.clone(), foreign], "accepted", "accepted"),
        ("alongside the issuer's own, unsaid", vec![own_unsaid, foreign_unsaid], "accepted", "accepted"),
        ("alongside what it was made of", vec![own, forged], "accepted", "accepted"),
    ] {
        assert_eq!(Question::of(&root).lists(&lists).answer(), strict, "{what}");
        assert_eq!(Question::of(&root).lists(&lists).policy(LENIENT).answer(), lenient, "{what}");
    }
}

#[test]
fn two_keys_under_one_name_each_have_their_list() {
    let (one, two) = (Ca::root("Root"), Ca::root("Root"));
    // The newer list is of the other key, and names nobody.
    let lists = [
        one.list(&Draft { from: -9, naming: &[SERIAL], ..Draft::default() }),
        two.list(&Draft { from: -2, ..Draft::default() }),
    ];
    let unsaid = [one.unsaid(&lists[0]), two.unsaid(&lists[1])];
    for lists in [lists, unsaid] {
        assert_eq!(Question::of(&one).anchor(&two).lists(&lists).answer(), "revoked");
        assert_eq!(Question::of(&two).anchor(&one).lists(&lists).answer(), "accepted");
    }
}

#[test]
fn another_key_may_sign_where_its_certificate_was_issued_from_the_path() {
    let root = Ca::root("Root");
    let issuer = root.below("Issuer", None);
    let signer = root.below("Issuer", None);
    let of_root = root.list(&Draft::default());
    let of_signer = signer.list(&Draft { naming: &[SERIAL], ..Draft::default() });
    let without = signer.list(&Draft::default());
    let asked = || Question::of(&issuer).anchor(&root).sent(&issuer);
    let lists = |list: &List| [of_root.clone(), list.clone()];
    assert_eq!(asked().sent(&signer).lists(&lists(&without)).answer(), "accepted");
    assert_eq!(asked().sent(&signer).lists(&lists(&of_signer)).answer(), "revoked");
    assert_eq!(asked().lists(&lists(&without)).answer(), "revocation_unknown", "nobody showed the signer");
    let of_issuer = issuer.list(&Draft { from: -9, naming: &[SERIAL], ..Draft::default() });
    let both = [of_root.clone(), of_issuer, without.clone()];
    assert_eq!(asked().sent(&signer).lists(&both).answer(), "revoked", "one key's list does not replace another's");

    let stranger = Ca::root("Issuer");
    let of_stranger = stranger.list(&Draft::default());
    assert_eq!(asked().sent(&stranger).lists(&lists(&of_stranger)).answer(), "revocation_unknown");
    let retired = root.list(&Draft { naming: &[signer.serial()], ..Draft::default() });
    assert_eq!(asked().sent(&signer).lists(&[retired, without]).answer(), "revocation_unknown", "it was revoked");
    let unable = signer.reissued(&root, &[KeyUsagePurpose::KeyCertSign]);
    let list = signer.list(&Draft::default());
    assert_eq!(asked().sent(&unable).lists(&lists(&list)).answer(), "revocation_unknown", "it may not sign lists");
}

#[test]
fn a_list_covers_the_kind_it_says() {
    let root = Ca::root("Root");
    let issuer = root.below("Issuer", Some(HERE));
    let of_root = |only| root.list(&Draft { at: Some(HERE), only, ..Draft::default() });
    let of_issuer = |only| issuer.list(&Draft { at: Some(HERE), only, ..Draft::default() });
    let (all, authorities, servers) = (None, Some(CrlScope::CaCertsOnly), Some(CrlScope::UserCertsOnly));
    for (for_authority, for_server, said) in [
        (all, all, "accepted"),
        (authorities, servers, "accepted"),
        (authorities, authorities, "revocation_unknown"),
        (servers, servers, "revocation_unknown"),
    ] {
        let lists = [of_root(for_authority), of_issuer(for_server)];
        let question = || Question::of(&issuer).pointing(HERE).anchor(&root).sent(&issuer).lists(&lists);
        assert_eq!(question().answer(), said, "{for_authority:?} {for_server:?}");
        assert_eq!(question().policy(LENIENT).answer(), "accepted");
    }
    // Whatever it is for: what is on it was revoked.
    let odd = issuer.list(&Draft { at: Some(HERE), only: authorities, naming: &[SERIAL], ..Draft::default() });
    let question = Question::of(&issuer).pointing(HERE).anchor(&root).sent(&issuer).lists(&[odd, of_root(all)]);
    assert_eq!(question.policy(LENIENT).answer(), "revoked");
}

#[test]
fn a_list_for_a_distribution_point_covers_what_points_there() {
    let root = Ca::root("Root");
    let here = |naming: &[u64]| root.list(&Draft { from: -9, at: Some(HERE), naming, ..Draft::default() });
    let there = |naming: &[u64]| root.list(&Draft { from: -2, at: Some(THERE), naming, ..Draft::default() });
    let everywhere = root.list(&Draft { from: -2, ..Draft::default() });
    for (what, lists, pointing, said) in [
        ("the same", vec![here(&[])], Some(HERE), "accepted"),
        ("another", vec![there(&[])], Some(HERE), "revocation_unknown"),
        ("none", vec![here(&[])], None, "revocation_unknown"),
        ("a list for all", vec![everywhere.clone()], Some(HERE), "accepted"),
        ("one of two", vec![here(&[]), there(&[])], Some(HERE), "accepted"),
        ("a newer list of another scope replaces nothing", vec![here(&[SERIAL]), there(&[])], Some(HERE), "revoked"),
        ("nor does one for all", vec![here(&[SERIAL]), everywhere], Some(HERE), "revoked"),
        ("on the wrong list", vec![here(&[]), there(&[SERIAL])], Some(HERE), "revoked"),
    ] {
        let mut question = Question::of(&root).lists(&lists);
        question.pointing = pointing;
        assert_eq!(question.answer(), said, "{what}");
    }
}

#[test]
fn a_scope_that_cannot_be_read_is_not_taken_for_all() {
    let root = Ca::root("Root");
    let list = root.list(&Draft { at: Some(HERE), only: Some(CrlScope::CaCertsOnly), ..Draft::default() });
    assert!(Crls::load(&[("good".into(), list.0.clone())], NOW).is_ok());
    // The name [6] is longer than what holds it: webpki does not look so deep.
    let length = u8::try_from(HERE.len()).unwrap();
    let odd = root.altered(&list, &[0x86, length, b'h'], &[0x86, length + 1, b'h']);
    let refused = Crls::load(&[("odd".into(), odd.0)], NOW);
    assert!(matches!(&refused, Err(CrlError::Unusable(why)) if why.starts_with("`odd`: ")), "{refused:?}");
}

#[test]
fn another_keys_newer_list_hides_no_revocation() {
    let root = Ca::root("Root");
    let (issuer, sibling) = (root.below("Issuer", None), root.below("Issuer", None));
    let named = issuer.unsaid(&issuer.list(&Draft { from: -9, naming: &[SERIAL], ..Draft::default() }));
    let newer = sibling.unsaid(&sibling.list(&Draft { from: -2, ..Draft::default() }));
    let lists = [root.list(&Draft::default()), named, newer];
    for policy in [STRICT, CrlPolicy::default()] {
        let asked = || Question::of(&issuer).anchor(&root).sent(&issuer).lists(&lists).policy(policy);
        assert_eq!(asked().answer(), "revoked");
        assert_eq!(asked().sent(&sibling).answer(), "revoked", "the sibling is sent");
        assert_eq!(asked().anchor(&sibling).answer(), "revoked", "the sibling is in the bundle");
    }
}

#[test]
fn a_crowd_of_namesakes_hides_no_signer_in_the_bundle() {
    let root = Ca::root("Root");
    let (issuer, signer) = (root.below("Issuer", None), root.below("Issuer", None));
    let lists = [root.list(&Draft::default()), signer.list(&Draft { naming: &[SERIAL], ..Draft::default() })];
    for policy in [STRICT, CrlPolicy::default()] {
        let mut asked = Question::of(&issuer).anchor(&root).anchor(&signer).sent(&issuer).lists(&lists).policy(policy);
        let crowd: Vec<_> = (0..9).map(|_| Ca::root("Issuer")).collect();
        for one in &crowd {
            asked = asked.sent(one);
        }
        assert_eq!(asked.answer(), "revoked");
    }
}

#[test]
fn who_was_revoked_cannot_make_a_signer_of_lists() {
    let root = Ca::root("Root");
    let issuer = root.below("Issuer", None);
    // An intermediate that makes a namesake of the root, and a list by it that has nobody.
    let minted = issuer.below("Root", None);
    let serial = issuer.serial();
    let true_list = root.list(&Draft { naming: &[serial], ..Draft::default() });
    let forged = minted.unsaid(&minted.list(&Draft { from: -1, ..Draft::default() }));
    let of_issuer = issuer.list(&Draft::default());
    for (lists, expected) in
        [(vec![forged.clone(), of_issuer.clone()], "crl_invalid"), (vec![true_list, forged, of_issuer], "revoked")]
    {
        let answer =
            Question::of(&issuer).anchor(&root).sent(&issuer).sent(&minted).lists(&lists).policy(STRICT).answer();
        assert_eq!(answer, expected);
    }
}

#[test]
fn a_list_that_is_not_for_its_issuer_to_sign_still_revokes() {
    let root = Ca::root("Root");
    let able = root.below("Issuer", None);
    let unable = able.reissued(&root, &[KeyUsagePurpose::KeyCertSign]);
    for (naming, expected) in [(&[][..], "crl_invalid"), (&[SERIAL][..], "revoked")] {
        let lists = [root.list(&Draft::default()), able.list(&Draft { naming, ..Draft::default() })];
        assert_eq!(Question::of(&unable).anchor(&root).sent(&unable).lists(&lists).answer(), expected);
    }
}

/// An authority of these tests.
struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A revocation list, DER.
#[derive(Clone)]
struct List(Vec<u8>);

/// What a list shall say.
struct Draft<'a> {
    /// thisUpdate and nextUpdate, in days from now.
    from: i64,
    until: i64,
    naming: &'a [u64],
    at: Option<&'a str>,
    only: Option<CrlScope>,
}

impl Default for Draft<'_> {
    fn default() -> Self {
        Self { from: -1, until: 30, naming: &[], at: None, only: None }
    }
}

impl Ca {
    fn root(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(ca(name, &SIGNS_ALL, None), key()).unwrap())
    }

    fn below(&self, name: &str, pointing: Option<&str>) -> Self {
        Self(CertifiedIssuer::signed_by(ca(name, &SIGNS_ALL, pointing), key(), &self.0).unwrap())
    }

    /// The same root, by name and key, with another keyUsage; none where it is empty.
    fn renewed(&self, usages: &[KeyUsagePurpose]) -> Self {
        Self(CertifiedIssuer::self_signed(ca("Root", usages, None), self.key()).unwrap())
    }

    /// The same for an issuer below a root.
    fn reissued(&self, root: &Self, usages: &[KeyUsagePurpose]) -> Self {
        Self(CertifiedIssuer::signed_by(ca("Issuer", usages, None), self.key(), &root.0).unwrap())
    }

    fn key(&self) -> KeyPair {
        KeyPair::try_from(self.0.key().serialize_der()).unwrap()
    }

    fn serial(&self) -> u64 {
        let (_, parsed) = X509Certificate::from_der(self.0.der()).unwrap();
        u64::from_be_bytes(parsed.raw_serial().try_into().unwrap())
    }

    fn server(&self, pointing: Option<&str>) -> CertificateDer<'static> {
        let mut params = params("Server", pointing);
        params.subject_alt_names = vec![rcgen::SanType::DnsName("store.test".try_into().unwrap())];
        params.serial_number = Some(SERIAL.into());
        params.signed_by(&key(), &self.0).unwrap().into()
    }

    fn list(&self, draft: &Draft<'_>) -> List {
        let this_update = NOW + Duration::days(draft.from);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update,
            next_update: NOW + Duration::days(draft.until),
            crl_number: 1.into(),
            issuing_distribution_point: draft
                .at
                .map(|uri| CrlIssuingDistributionPoint { distribution_point: point(uri), scope: draft.only }),
            revoked_certs: draft.naming.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        List(list.signed_by(&self.0).unwrap().der().to_vec())
    }

    /// The list without its authorityKeyIdentifier, which becomes an extension that nobody knows.
    fn unsaid(&self, list: &List) -> List {
        self.altered(list, &[6, 3, 0x55, 0x1d, 35], &[6, 3, 0x55, 0x1d, 120])
    }

    /// The list with some bytes changed for as many others, and signed again.
    fn altered(&self, list: &List, from: &[u8], to: &[u8]) -> List {
        let mut der = list.0.clone();
        let place = der.windows(from.len()).position(|window| window == from).unwrap();
        der[place..place + from.len()].copy_from_slice(to);
        let (_, parsed) = CertificateRevocationList::from_der(&der).unwrap();
        let signature = self.0.key().sign(parsed.tbs_cert_list.as_ref()).unwrap();
        // An Ed25519 signature has a fixed length, and is at the end.
        let end = der.len() - signature.len();
        der[end..].copy_from_slice(&signature);
        List(der)
    }
}

const SIGNS_ALL: [KeyUsagePurpose; 2] = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

fn point(uri: &str) -> CrlDistributionPoint {
    CrlDistributionPoint { uris: vec![uri.to_owned()] }
}

fn params(name: &str, pointing: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (NOW - Duration::days(365), NOW + Duration::days(365));
    params.crl_distribution_points = pointing.map(point).into_iter().collect();
    params
}

fn ca(name: &str, usages: &[KeyUsagePurpose], pointing: Option<&str>) -> CertificateParams {
    let mut params = params(name, pointing);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = usages.to_vec();
    params.serial_number = Some(next_serial().into());
    params
}

/// Serial numbers of authorities: eight bytes, none twice.
fn next_serial() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1 << 56);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A chain and lists, to be verified.
struct Question<'a> {
    issuer: &'a Ca,
    anchors: Vec<&'a Ca>,
    sent: Vec<&'a Ca>,
    pointing: Option<&'a str>,
    lists: Vec<List>,
    policy: CrlPolicy,
}

impl<'a> Question<'a> {
    /// About a certificate of this issuer. Where it is the root itself, that is the bundle.
    fn of(issuer: &'a Ca) -> Self {
        Self { issuer, anchors: Vec::new(), sent: Vec::new(), pointing: None, lists: Vec::new(), policy: STRICT }
    }

    fn anchor(mut self, anchor: &'a Ca) -> Self {
        self.anchors.push(anchor);
        self
    }

    fn sent(mut self, intermediate: &'a Ca) -> Self {
        self.sent.push(intermediate);
        self
    }

    fn pointing(mut self, uri: &'a str) -> Self {
        self.pointing = Some(uri);
        self
    }

    fn lists(mut self, lists: &[List]) -> Self {
        self.lists = lists.to_vec();
        self
    }

    fn policy(mut self, policy: CrlPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// `accepted`, or the code: the same in either order of the lists.
    fn answer(mut self) -> &'static str {
        let said = |verified: Result<Accepted, Code>| verified.map_or_else(Code::as_str, |_| "accepted");
        let forwards = said(self.verified());
        self.lists.reverse();
        assert_eq!(said(self.verified()), forwards, "the other way round");
        forwards
    }

    fn verified(&self) -> Result<Accepted, Code> {
        let mut anchors: Vec<_> = self.anchors.iter().map(|anchor| anchor.0.der().clone()).collect();
        if self.sent.is_empty() {
            anchors.push(self.issuer.0.der().clone());
        }
        let lists: Vec<_> = self.lists.iter().map(|list| ("list".to_owned(), list.0.clone())).collect();
        let trust = Trust {
            anchors: TrustAnchors::from_pem("bundle", &[], anchors).unwrap().into(),
            crls: Crls::load(&lists, NOW).unwrap().into(),
            terms: Terms { crl_policy: self.policy, ..Terms::default() },
        };
        let chain =
            [self.issuer.server(self.pointing)].into_iter().chain(self.sent.iter().map(|ca| ca.0.der().clone()));
        let presented: Vec<_> = chain.map(|der| Certificate::read(&der)).collect();
        let reference = ReferenceId::Dns(DnsName::try_from("store.test").unwrap());
        let case =
            Case { trust: &trust, presented: &presented, reference: &reference, now: NOW, report_only_classes: &[] };
        verify(&case).map_err(|refusal| refusal.verdict.code)
    }
}
