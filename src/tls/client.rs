//! rustls, set up: one base per [`TlsSettings`], and one recorder per handshake.
//!
//! The only place that installs a verifier. No session is resumed, so every connection is looked at.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;

use crate::clock::Clock;

use super::{
    case::{Case, Trust},
    client_identity::ClientIdentity,
    explain::explain,
    failure::{Code, VerificationFailure},
    identity::ReferenceId,
    presented::Certificate,
    report_only::ReportOnly,
    verify::{Accepted, Proof, verify},
};

/// How connections to an upstream are secured.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// What is trusted.
    pub trust: Trust,
    /// The lowest version to speak.
    pub min_version: TlsVersion,
    /// Who we are, for servers that ask.
    pub client: Option<Arc<ClientIdentity>>,
    /// Until when refusals are recorded and not obeyed.
    pub report_only: Option<ReportOnly>,
}

/// A version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[value(name = "1.2")]
    Tls12,
    /// RFC 8446.
    #[value(name = "1.3")]
    Tls13,
}

impl TryFrom<String> for TlsVersion {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            _ => Err(format!("`{text}` is not spoken here; write `\"1.2\"` or `\"1.3\"`")),
        }
    }
}

impl TlsVersion {
    /// As in `TLSv1.2`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }

    /// This one and those above it.
    fn upwards(self) -> &'static [&'static SupportedProtocolVersion] {
        static ALL: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self {
            Self::Tls12 => &ALL,
            Self::Tls13 => &ALL[..1],
        }
    }
}

/// [`TlsSettings`] and rustls' own made of them, to be copied for each handshake.
#[derive(Debug)]
pub struct TlsClient {
    base: ClientConfig,
    provider: Arc<CryptoProvider>,
    settings: TlsSettings,
    clock: Clock,
    made: OffsetDateTime,
}

/// Why a connection may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerTrust {
    /// Its peer was verified.
    Verified(Accepted),
    /// Its peer was refused, and an operator wants that recorded only until this moment.
    ReportOnly(OffsetDateTime),
}

impl PeerTrust {
    /// The first moment in which it does not hold any more.
    pub fn end(&self) -> OffsetDateTime {
        match self {
            // X.509 has no fractions: what is valid is so through the whole of its last second.
            Self::Verified(accepted) => accepted.until.saturating_add(time::Duration::SECOND),
            Self::ReportOnly(until) => *until,
        }
    }

    /// The word for logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Verified(Accepted { proof, .. }) => Proof::as_str(*proof),
            Self::ReportOnly(_) => "bypassed",
        }
    }
}

impl TlsClient {
    /// A client by these settings.
    ///
    /// # Errors
    /// rustls' own, where the provider and the versions do not fit together.
    #[expect(clippy::disallowed_methods, reason = "this is the door: the recorder goes in here")]
    pub fn new(settings: TlsSettings, clock: Clock) -> Result<Arc<Self>, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut base = ClientConfig::builder_with_details(provider.clone(), Arc::new(clock))
            .with_protocol_versions(settings.min_version.upwards())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Nobody))
            .with_no_client_auth();
        base.resumption = Resumption::disabled();
        base.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(Self { base, provider, settings, clock, made: clock.now() }))
    }

    /// Settings for one handshake, and the recorder that will hold its evidence.
    #[expect(clippy::disallowed_methods, reason = "this is the door: the recorder goes in here")]
    pub fn for_handshake(
        self: &Arc<Self>,
        reference: &ReferenceId,
        send_name: bool,
    ) -> (Arc<ClientConfig>, Arc<Recorder>) {
        let recorder = Arc::new(Recorder {
            client: self.clone(),
            reference: reference.clone(),
            evidence: OnceLock::new(),
            asked_for_certificate: AtomicBool::new(false),
        });
        let mut config = self.base.clone();
        config.enable_sni = send_name;
        config.client_auth_cert_resolver = recorder.clone();
        config.dangerous().set_certificate_verifier(recorder.clone());
        (Arc::new(config), recorder)
    }

    /// Verifies a chain now.
    ///
    /// # Errors
    /// The refusal, and [`PeerTrust::ReportOnly`] if the connection may be used all the same.
    pub fn verify(
        &self,
        presented: &[Certificate],
        reference: &ReferenceId,
    ) -> Result<Accepted, (Box<VerificationFailure>, Option<PeerTrust>)> {
        let trust = &self.settings.trust;
        let case = Case { trust, presented, reference, now: self.clock.now(), report_only_classes: &[] };
        verify(&case).map_err(|refusal| {
            let only = self.settings.report_only.as_ref();
            let Some(only) = only.filter(|only| only.covers(refusal.verdict.code, case.now)) else {
                return (explain(&case, *refusal), None);
            };
            match verify(&Case { report_only_classes: &only.codes, ..case }) {
                // Something other than what is only to be reported.
                Err(other) if !only.codes.is_empty() => (explain(&case, *other), None),
                _ => (explain(&case, *refusal), Some(PeerTrust::ReportOnly(only.until))),
            }
        })
    }

    /// Whether a connection that was made with other settings could have been made with these.
    pub fn verify_again(&self, before: &Made<'_>, reference: &ReferenceId) -> Option<PeerTrust> {
        let client = self.settings.client.as_ref().map(|client| client.sha256.as_str());
        if before.tls_version < self.settings.min_version || before.client != client {
            return None;
        }
        let presented: Vec<_> = before.chain.iter().map(Certificate::read).collect();
        // One that is only to be reported is made again, so that it is reported.
        self.verify(&presented, reference).ok().map(PeerTrust::Verified)
    }

    /// By which settings.
    pub fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// When it was made, with what it trusts.
    pub fn made(&self) -> OffsetDateTime {
        self.made
    }

    /// The time by which this client verifies.
    pub fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }
}

/// How a connection was made.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// What the server sent.
    pub chain: &'a [CertificateDer<'static>],
    /// SHA-256 of the client certificate that was at hand.
    pub client: Option<&'a str>,
    /// Which version was agreed.
    pub tls_version: TlsVersion,
}

/// What one handshake showed: the chain, and the verdict on it.
#[derive(Debug)]
pub struct Evidence {
    /// The presented chain, the server's own certificate first.
    pub presented: Vec<Certificate>,
    /// The verdict; with a refusal, why the connection may be used all the same.
    pub verdict: Result<Accepted, (Box<VerificationFailure>, Option<PeerTrust>)>,
}

/// Calls the verifier once, and keeps the evidence.
#[derive(Debug)]
pub struct Recorder {
    client: Arc<TlsClient>,
    reference: ReferenceId,
    evidence: OnceLock<Evidence>,
    asked_for_certificate: AtomicBool,
}

impl Recorder {
    /// The evidence, where the handshake came as far as the certificate.
    pub fn evidence(&self) -> Option<&Evidence> {
        self.evidence.get()
    }

    /// Whether the server asked for a client certificate.
    pub fn asked_for_certificate(&self) -> bool {
        self.asked_for_certificate.load(Ordering::Relaxed)
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _sent_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented: Vec<_> = std::iter::once(end_entity).chain(intermediates).map(Certificate::read).collect();
        let verdict = self.client.verify(&presented, &self.reference);
        let answer = match &verdict {
            Ok(_) | Err((_, Some(_))) => Ok(ServerCertVerified::assertion()),
            Err((failure, None)) => Err(Error::InvalidCertificate(alert_for(failure.code()))),
        };
        match self.evidence.set(Evidence { presented, verdict }) {
            Ok(()) => answer,
            // One recorder is for one handshake; a second verdict would hide the first.
            Err(_) => Err(Error::General("verified twice".into())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.client.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.client.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.client.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ResolvesClientCert for Recorder {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked_for_certificate.store(true, Ordering::Relaxed);
        self.client.settings.client.as_ref().map(|client| client.key.clone())
    }

    fn has_certs(&self) -> bool {
        self.client.settings.client.is_some()
    }
}

/// Accepts nobody: what the base settings hold, which are for no handshake.
#[derive(Debug)]
struct Nobody;

impl ServerCertVerifier for Nobody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _sent_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Err(nobody())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(nobody())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(nobody())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Vec::new()
    }
}

fn nobody() -> Error {
    Error::General("no reference identifier".into())
}

/// rustls' value for a code, which decides the alert that the peer sees (RFC 8446 section 6.2).
fn alert_for(code: Code) -> CertificateError {
    match code {
        Code::Expired => CertificateError::Expired,
        Code::NotYetValid => CertificateError::NotValidYet,
        Code::Revoked => CertificateError::Revoked,
        Code::IncompleteChain
        | Code::RootExpired
        | Code::RootUnfit
        | Code::SelfSignedNotInBundle
        | Code::UnknownIssuer => CertificateError::UnknownIssuer,
        Code::IpSanMissing | Code::NameMismatch | Code::NoSan => CertificateError::NotValidForName,
        Code::BadSignature | Code::IssuerKeyMismatch => CertificateError::BadSignature,
        Code::MalformedCertificate | Code::CertVersion => CertificateError::BadEncoding,
        Code::WrongPurpose => CertificateError::InvalidPurpose,
        _ => CertificateError::ApplicationVerificationFailure,
    }
}
