//! rustls, set up: one base per [`Trust`], and one recorder per handshake.
//!
//! The only place that installs a verifier. No session is resumed, so every connection is looked at.

use std::sync::{Arc, OnceLock};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::clock::Clock;

use super::{
    failure::{Code, VerificationFailure},
    identity::ReferenceId,
    judge::{Accepted, Trust, judge},
    presented::Certificate,
};

/// rustls' settings for one [`Trust`], to be copied for each handshake.
#[derive(Clone, Debug)]
pub struct TlsClient {
    base: ClientConfig,
    provider: Arc<CryptoProvider>,
    trust: Arc<Trust>,
    clock: Clock,
}

impl TlsClient {
    /// Settings that believe `trust`.
    ///
    /// # Errors
    /// rustls' own, where the provider and the versions do not fit together.
    #[expect(clippy::disallowed_methods, reason = "this is the door: the recorder goes in here")]
    pub fn new(trust: Arc<Trust>, clock: Clock) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let nobody = Arc::new(Recorder {
            provider: provider.clone(),
            trust: trust.clone(),
            reference: None,
            clock,
            evidence: OnceLock::new(),
        });
        let mut base = ClientConfig::builder_with_details(provider.clone(), Arc::new(clock))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(nobody)
            .with_no_client_auth();
        base.resumption = Resumption::disabled();
        base.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { base, provider, trust, clock })
    }

    /// Settings for one handshake, and the recorder that will hold its evidence.
    #[expect(clippy::disallowed_methods, reason = "this is the door: the recorder goes in here")]
    pub fn for_handshake(&self, reference: &ReferenceId, send_name: bool) -> (Arc<ClientConfig>, Arc<Recorder>) {
        let recorder = Arc::new(Recorder {
            provider: self.provider.clone(),
            trust: self.trust.clone(),
            reference: Some(reference.clone()),
            clock: self.clock,
            evidence: OnceLock::new(),
        });
        let mut config = self.base.clone();
        config.enable_sni = send_name;
        config.dangerous().set_certificate_verifier(recorder.clone());
        (Arc::new(config), recorder)
    }

    /// Whom these settings believe.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }
}

/// What one handshake showed: the chain, and the judge's verdict on it.
#[derive(Debug)]
pub struct Evidence {
    /// The presented chain, the server's own certificate first.
    pub presented: Vec<Certificate>,
    /// The verdict.
    pub verdict: Result<Accepted, Box<VerificationFailure>>,
}

/// Calls the judge once, and keeps what it saw.
#[derive(Debug)]
pub struct Recorder {
    provider: Arc<CryptoProvider>,
    trust: Arc<Trust>,
    /// None in the base settings, which are for nobody.
    reference: Option<ReferenceId>,
    clock: Clock,
    evidence: OnceLock<Evidence>,
}

impl Recorder {
    /// The evidence, where the handshake came as far as the certificate.
    pub fn evidence(&self) -> Option<&Evidence> {
        self.evidence.get()
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
        let Some(reference) = &self.reference else {
            return Err(Error::General("no reference identifier".into()));
        };
        let presented: Vec<_> = std::iter::once(end_entity).chain(intermediates).map(Certificate::read).collect();
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verdict = judge(&self.trust, &presented, reference, self.clock.now(), algorithms);
        let answer = match &verdict {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(failure) => Err(Error::InvalidCertificate(alert_for(failure.code()))),
        };
        match self.evidence.set(Evidence { presented, verdict }) {
            Ok(()) => answer,
            // One recorder is for one handshake; a second verdict would hide the first.
            Err(_) => Err(Error::General("judged twice".into())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
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
