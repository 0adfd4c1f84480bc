//! What the targets share: what is trusted, how to ask the verifier, and what must hold of every answer.
//!
//! All is fixed, so that an input that was found today fails tomorrow too: the gallery in `fuzz/gallery/`
//! was made once (its keys are gone), and [`now`] is a moment at which it was good. What the targets need
//! of vouchsafe's own types is built in [`believing`] and [`ask`] alone.

pub mod der;
pub mod http1;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, LazyLock},
};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, pem::PemObject,
};
use time::OffsetDateTime;

use vouchsafe::{
    audit::{event::Refused, text::text},
    clock::Clock,
    message::authority::Host,
    route::{
        policy::AddressRule,
        upstream::{TlsHandle, Upstream},
    },
    tls::{
        case::{Case, Terms, Trust},
        checks,
        client::{TlsClient, TlsSettings, TlsVersion},
        crl::Crls,
        explain::explain,
        failure::{CertificateRef, Code, Finding, HandshakeFailure, Occasion, VerificationFailure},
        identity::ReferenceId,
        presented::{Certificate, Facts},
        trust::TrustAnchors,
        verify::verify_with,
    },
    transport::ClientAddress,
};

/// The root, an expired root, and the self-signed certificates that are trusted as they are.
pub const BUNDLE: &str = include_str!("../gallery/bundle-plus.pem");

/// The lists of the gallery's root and intermediate.
pub const LISTS: &[u8] = include_bytes!("../gallery/gallery.crl");

/// A day after the gallery was made.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(MADE).expect("in range") + time::Duration::DAY
}

const MADE: i64 = 1_795_239_134;

/// Certificates of a PEM text, as a server would present them.
pub fn chain(pem: &str) -> Vec<Certificate> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|der| Certificate::read(&der.expect("PEM"))).collect()
}

/// The reference identifier for a host.
pub fn reference(host: &str) -> ReferenceId {
    ReferenceId::of(&host.parse().expect("a host")).expect("a reference")
}

/// Settings that believe the gallery's bundle and these lists.
pub fn believing(crls: Crls) -> Arc<TlsClient> {
    let files = [("bundle.pem".to_owned(), BUNDLE.into())];
    let anchors = TrustAnchors::from_pem("--ca-bundle bundle.pem", &files, Vec::new()).expect("a bundle");
    let trust = Trust { anchors: Arc::new(anchors), crls: Arc::new(crls), terms: Terms::default() };
    let settings = TlsSettings { trust, min_version: TlsVersion::Tls12, client: None, report_only: None };
    TlsClient::new(settings, Clock::Fixed(now())).expect("settings")
}

/// Asks the verifier, and holds the answer against what must be true of every answer: an acceptance against
/// our own reading, a refusal against the audit log.
///
/// # Panics
/// Where something does not hold.
pub fn ask(
    client: &Arc<TlsClient>,
    presented: &[Certificate],
    reference: &ReferenceId,
    signatures: Signatures,
) -> Result<(), Box<VerificationFailure>> {
    let trust = &client.settings().trust;
    let case = Case { trust, presented, reference, now: now(), report_only_classes: &[] };
    let verdict = verify_with(&case, signatures.algorithms()).map(drop).map_err(|refusal| explain(&case, *refusal));
    match &verdict {
        Ok(()) => is_sound(presented, reference),
        Err(failure) => {
            is_plausible(failure, presented, trust.anchors.certificates().len());
            let upstream = Upstream {
                host: host("upstream.example"),
                port: 443,
                dial_host: host("upstream.example"),
                dial_port: 443,
                reference: reference.clone(),
                sni: None,
                tls: TlsHandle(client.clone()),
                addresses: AddressRule::any(),
                parent: None,
            };
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 443));
            let occasion = Occasion::Handshake;
            let refused =
                HandshakeFailure { failure: (**failure).clone(), presented: presented.to_vec().into(), address, occasion };
            is_recorded(&Refused {
                id: "7f3a",
                time: now(),
                upstream: &upstream,
                parent: None,
                refused: &refused,
                client: ClientAddress::Tcp(address),
                listener: "forward",
                request: Some(("GET", "/")),
                generation: 1,
            });
        }
    }
    verdict
}

/// Who verifies signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// Nobody: every signature holds, so that changed certificates come as far as the last check.
    Blind,
    /// aws-lc, as in the program.
    Real,
}

impl Signatures {
    fn algorithms(self) -> &'static [&'static dyn SignatureVerificationAlgorithm] {
        match self {
            Self::Blind => &BLIND,
            Self::Real => *REAL,
        }
    }
}

type Algorithm = &'static dyn SignatureVerificationAlgorithm;

static REAL: LazyLock<&[Algorithm]> = LazyLock::new(|| default_provider().signature_verification_algorithms.all);

static BLIND: LazyLock<Vec<Algorithm>> =
    LazyLock::new(|| REAL.iter().map(|real| &*Box::leak(Box::new(Blind(*real))) as Algorithm).collect());

/// Knows an algorithm by its name alone.
#[derive(Debug)]
struct Blind(Algorithm);

impl SignatureVerificationAlgorithm for Blind {
    fn verify_signature(&self, _key: &[u8], _message: &[u8], _signature: &[u8]) -> Result<(), InvalidSignature> {
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }
}

/// What was accepted is good by our own checks too, which read with another parser.
fn is_sound(presented: &[Certificate], reference: &ReferenceId) {
    let own = presented.first().expect("nothing was presented, and accepted");
    let subject = CertificateRef::Presented(0);
    let facts = own.facts.as_ref().expect("an accepted certificate can be read");
    assert_eq!(facts.version, 3);
    assert_eq!(checks::validity(own, subject, now()), None);
    assert_eq!(checks::purpose(facts, subject), None);
    assert_eq!(checks::strength(own, subject), None);
    assert_eq!(checks::critical(own, subject), None);
    assert!(bears(facts, reference), "{reference} is not in {:?}", facts.presented_names());
}

fn bears(facts: &Facts, reference: &ReferenceId) -> bool {
    let ReferenceId::Dns(wanted) = reference else {
        let ip: IpAddr = reference.value().parse().expect("an address");
        return facts.ip_addresses.contains(&ip);
    };
    let wanted = wanted.as_ref();
    let parent = wanted.split_once('.').map(|(_, parent)| parent);
    facts.dns_names.iter().any(|name| {
        name.eq_ignore_ascii_case(wanted)
            || name.strip_prefix("*.").zip(parent).is_some_and(|(name, parent)| name.eq_ignore_ascii_case(parent))
    })
}

/// A refusal is a verdict, about something that is there, with no finding told twice, in plain words.
fn is_plausible(failure: &VerificationFailure, presented: &[Certificate], anchors: usize) {
    let verdict = &failure.verdict;
    assert_eq!(verdict.code == Code::NoCertificate, presented.is_empty());
    assert_ne!(verdict.code, Code::Other, "{}", verdict.sentence);
    is_plain(&failure.hint);
    let mut told: Vec<(Code, CertificateRef)> = Vec::new();
    for Finding { code, subject, sentence } in std::iter::once(verdict).chain(&failure.also) {
        assert!(code.is_verdict(), "{code}");
        assert!(!told.contains(&(*code, *subject)), "{code} twice");
        told.push((*code, *subject));
        match subject {
            CertificateRef::Anchor(place) => assert!(*place < anchors),
            CertificateRef::Handshake => assert_eq!(*code, Code::NoCertificate),
            CertificateRef::Presented(place) => assert!(*place < presented.len()),
        }
        is_plain(sentence);
    }
    // Where all of them can be read.
    if let (Code::Expired | Code::NotYetValid, CertificateRef::Presented(place)) = (verdict.code, verdict.subject)
        && presented.len() <= 16
        && presented.iter().all(|certificate| certificate.facts.is_ok())
    {
        let outside = checks::validity(&presented[place], verdict.subject, now());
        assert_eq!(outside.map(|finding| finding.code), Some(verdict.code));
    }
}

/// A line of JSON is a line, and so is the text for people.
fn is_recorded(refused: &Refused<'_>) {
    let event = refused.json();
    assert_eq!(event["error.code"], refused.refused.failure.code().as_str());
    let text = String::from_utf8(text(&event)).expect("text is UTF-8");
    let json = serde_json::Value::Object(event).to_string();
    assert!(!json.contains(char::is_control));
    assert_eq!(text.matches('\n').count(), 1);
    assert!(!text.contains(|c: char| c != '\n' && c.is_control()));
}

/// Nothing in a text can move a terminal or reorder a line (Unicode's `Bidi_Control`), and it ends.
///
/// # Panics
/// Where that does not hold.
pub fn is_plain(text: &str) {
    let moves = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(moves), "{text:?}");
    assert!(text.len() <= 4096, "{} bytes: {text}", text.len());
}

fn host(name: &str) -> Host {
    name.parse().expect("a host")
}
