//! A connection whose peer was verified. The type has one constructor, at the end of the handshake, so
//! that forgetting to verify does not compile.

use std::{cell::OnceCell, future::poll_fn, io, net::SocketAddr, rc::Rc, time::Duration};

use rustls::{
    AlertDescription, CertificateError, Error as TlsError, InvalidMessage, PeerIncompatible, ProtocolVersion,
};
use rustls_pki_types::ServerName;
use tokio::time::{Instant, timeout_at};

use crate::{
    buffer::BufferPool,
    route::upstream::Upstream,
    tls::{
        client::{PeerTrust, Recorder, TlsVersion},
        failure::{CertificateRef, Code, Finding, HandshakeFailure, Occasion, VerificationFailure},
        hint,
        presented::PresentedChain,
    },
};

use super::{
    carrier::Carrier,
    peer::{ClientAuth, Peer, Via},
    stream::TlsStream,
};

/// A TLS connection to a verified peer. It has one constructor, at the end of the handshake.
#[derive(Debug)]
pub struct Verified {
    stream: TlsStream,
    peer: Rc<Peer>,
    bypassed: Option<Rc<HandshakeFailure>>,
    /// What the peer sent before it was asked for anything.
    early: Vec<u8>,
    took: Duration,
}

impl Verified {
    /// What is known of the peer.
    pub fn peer(&self) -> &Rc<Peer> {
        &self.peer
    }

    /// How long the handshake took.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The refusal that is only to be reported, if any.
    pub fn bypassed(&self) -> Option<Rc<HandshakeFailure>> {
        self.bypassed.clone()
    }

    /// What the peer would be under the settings of another upstream; `None` where it would not be trusted.
    pub(super) fn verify_again(&mut self, upstream: &Upstream) -> Option<()> {
        self.peer = Rc::new(self.peer.judged_again(upstream)?);
        Some(())
    }

    /// The same peer as one that was verified again already.
    pub(super) fn is_now(&mut self, peer: &Peer) {
        self.peer = Rc::new(Peer { address: self.peer.address, address_text: OnceCell::new(), ..peer.clone() });
    }

    /// The refusal behind an end without a response, if it is one: a server that was verified may object to our
    /// client certificate, or to having none, only after the handshake. `error`: how the connection broke, if it did.
    /// `reused`: it has answered an earlier request.
    pub fn refusal(&self, error: Option<&io::Error>, reused: bool) -> Option<Rc<HandshakeFailure>> {
        let tls = error.and_then(|error| error.get_ref()).and_then(|inner| inner.downcast_ref::<TlsError>());
        let failure = match tls {
            Some(TlsError::AlertReceived(alert)) if !reused && self.objects_late(*alert) => {
                failure(refused(*alert, &self.peer.client))
            }
            None | Some(TlsError::AlertReceived(_)) if self.stream.declined_renegotiation() => VerificationFailure {
                verdict: finding(Code::ClientCertRequired, RENEGOTIATION.into()),
                also: Vec::new(),
                hint: hint::FOR_RENEGOTIATION.into(),
            },
            _ => return None,
        };
        let (address, occasion) = (self.peer.address, Occasion::After);
        Some(Rc::new(HandshakeFailure { failure, presented: Vec::new().into(), address, occasion }))
    }

    /// A TLS 1.3 server says only after the handshake what it thinks of our client certificate: its alert comes with
    /// the first read (RFC 8446 section 4.4.2.4). Any other alert is the end of a verified connection.
    fn objects_late(&self, alert: AlertDescription) -> bool {
        self.peer.tls_version == TlsVersion::Tls13 && is_about_client_certificate(alert, &self.peer.client)
    }

    pub(super) fn stream(&mut self) -> &mut TlsStream {
        &mut self.stream
    }

    /// What came behind the handshake; up to a piece at a time; 0 is the end.
    ///
    /// # Errors
    /// A broken connection, or an alert: a TLS 1.3 server says only now what it thinks of our certificate.
    pub async fn receive(&mut self) -> io::Result<usize> {
        let mut received = std::mem::take(&mut self.early);
        if !received.is_empty() {
            return Ok(received.len());
        }
        poll_fn(|cx| self.stream.poll_receive(cx, &mut received)).await
    }

    pub(super) fn unsent(&self) -> usize {
        self.stream.unsent()
    }

    pub(super) fn is_in_record(&self) -> bool {
        self.stream.is_in_record()
    }

    pub(super) fn reset_on_drop(&self) {
        self.stream.reset_on_drop();
    }

    /// What came before the peer was asked for anything, once.
    pub(super) fn take_early(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.early)
    }
}

/// Shakes hands; the one way to a [`Verified`].
///
/// # Errors
/// The failed handshake, with the evidence where the peer was refused.
pub(super) async fn handshake(
    carrier: Carrier,
    address: SocketAddr,
    upstream: &Upstream,
    limit: Duration,
    buffers: BufferPool,
) -> Result<Verified, Rc<HandshakeFailure>> {
    let deadline = Instant::now() + limit;
    let send = upstream.sni.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let client = &upstream.tls.0;
    let (config, recorder) = client.for_handshake(&upstream.reference, send.is_some());
    let name = send.unwrap_or_else(|| upstream.reference.server_name());
    let mut early = Vec::new();
    let began = Instant::now();
    let end = timeout_at(deadline, TlsStream::handshake(carrier, config, name, buffers, &mut early)).await;
    let took = began.elapsed();
    let auth = ClientAuth::of(&recorder, client);
    let failed =
        |failure, occasion| Rc::new(HandshakeFailure { failure, presented: presented(&recorder), address, occasion });
    let finding = match (end, recorder.evidence().map(|evidence| &evidence.verdict)) {
        (Ok(Ok(stream)), Some(Ok(accepted))) => {
            let trust = PeerTrust::Verified(accepted.clone());
            let peer = peer(&stream, address, upstream, trust, &recorder, auth);
            return Ok(Verified { stream, peer, bypassed: None, early, took });
        }
        (Ok(Ok(stream)), Some(Err((failure, Some(standing))))) => {
            let bypassed = Some(failed((**failure).clone(), Occasion::Bypassed));
            let peer = peer(&stream, address, upstream, standing.clone(), &recorder, auth);
            return Ok(Verified { stream, peer, bypassed, early, took });
        }
        (_, Some(Err((failure, None)))) => {
            return Err(failed((**failure).clone(), Occasion::Handshake));
        }
        // rustls does not finish without asking; should it ever, nobody was verified.
        (Ok(Ok(_)), None) => finding(Code::Other, "the handshake ended without a verdict".into()),
        (Ok(Err(error)), _) => explain(&error, &auth, client.settings().min_version),
        (Err(_), _) => {
            let sentence = format!("the TLS handshake did not end within {} s", limit.as_secs_f32());
            finding(Code::HandshakeTimeout, sentence)
        }
    };
    Err(failed(failure(finding), Occasion::Handshake))
}

fn peer(
    stream: &TlsStream,
    address: SocketAddr,
    upstream: &Upstream,
    standing: PeerTrust,
    recorder: &Recorder,
    client: ClientAuth,
) -> Rc<Peer> {
    let session = stream.session();
    let tls_version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
        _ => TlsVersion::Tls13,
    };
    let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let chain = recorder.evidence().into_iter().flat_map(|evidence| &evidence.presented);
    let parent_peer = stream.carrier().parent().map(|parent| parent.peer().clone());
    let via = upstream.parent.clone().map(|parent| Via { parent, peer: parent_peer });
    Rc::new(Peer {
        address,
        via,
        tls_version,
        cipher_suite: suite.unwrap_or("unknown"),
        standing,
        chain: chain.map(|certificate| certificate.der.clone()).collect(),
        client,
        address_text: OnceCell::new(),
    })
}

/// A handshake that failed for another reason than the verifier's verdict.
fn failure(verdict: Finding) -> VerificationFailure {
    let hint = hint::for_handshake(verdict.code).to_owned();
    VerificationFailure { verdict, also: Vec::new(), hint }
}

fn presented(recorder: &Recorder) -> PresentedChain {
    recorder.evidence().map(|evidence| evidence.presented.clone()).unwrap_or_default().into()
}

fn finding(code: Code, sentence: String) -> Finding {
    Finding { code, subject: CertificateRef::Handshake, sentence }
}

/// What ended a handshake in which the verifier did not refuse.
fn explain(error: &io::Error, client: &ClientAuth, least: TlsVersion) -> Finding {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                finding(Code::ClosedInHandshake, "the server closed the connection during the handshake".into())
            }
            // rustls' own limit, which it reports as the reader's failure.
            io::ErrorKind::InvalidData => finding(Code::TlsProtocol, format!("the TLS handshake failed: {error}")),
            _ => finding(Code::ClosedInHandshake, format!("the connection broke during the handshake: {error}")),
        };
    };
    match tls {
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            finding(Code::NotTls, "what answers there does not speak TLS".into())
        }
        TlsError::InvalidMessage(
            InvalidMessage::CertificatePayloadTooLarge | InvalidMessage::HandshakePayloadTooLarge,
        ) => finding(Code::TlsProtocol, "the server sent a handshake message of more than 64 KiB".into()),
        TlsError::AlertReceived(AlertDescription::ProtocolVersion)
        | TlsError::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => {
            let sentence = match least {
                TlsVersion::Tls12 => "the server speaks neither TLS 1.2 nor TLS 1.3",
                TlsVersion::Tls13 => "the server does not speak TLS 1.3, which is the least that is set for it",
            };
            finding(Code::TlsVersion, sentence.into())
        }
        TlsError::AlertReceived(alert) => refused(*alert, client),
        TlsError::InvalidCertificate(CertificateError::BadSignature) => {
            finding(Code::BadSignature, "the server's handshake signature does not fit its certificate".into())
        }
        TlsError::NoCertificatesPresented => finding(Code::NoCertificate, "the server sent no certificate".into()),
        TlsError::InvalidCertificate(CertificateError::BadEncoding) => {
            finding(Code::MalformedCertificate, "the certificate the server sent cannot be read".into())
        }
        other => finding(Code::TlsProtocol, format!("the TLS handshake failed: {other}")),
    }
}

/// What a server's alert means.
fn refused(alert: AlertDescription, client: &ClientAuth) -> Finding {
    match (&client.certificate, is_about_client_certificate(alert, client)) {
        (Some(sha256), true) => {
            let sentence = format!("the server refused our client certificate, sha256 {sha256} (alert {alert:?})");
            finding(Code::ClientCertRefused, sentence)
        }
        (None, true) => finding(Code::ClientCertRequired, "the server demands a client certificate".into()),
        (_, false) => finding(Code::HandshakeRefused, format!("the server refused the handshake (alert {alert:?})")),
    }
}

/// Apache with `SSLVerifyClient` in a `<Location>` asks like this (RFC 5246 section 7.4.1.1).
const RENEGOTIATION: &str = "the server asked for a second handshake (TLS 1.2 renegotiation), which vouchsafe does not do; \
     servers ask so for a client certificate that only some paths require";

/// RFC 8446 section 6.2, and what servers say in practice: hardly ever that it is about a certificate of ours.
fn is_about_client_certificate(alert: AlertDescription, client: &ClientAuth) -> bool {
    use AlertDescription as A;
    let may_be = matches!(
        alert,
        A::AccessDenied
            | A::BadCertificate
            | A::CertificateExpired
            | A::CertificateRevoked
            | A::CertificateUnknown
            | A::DecryptError
            | A::HandshakeFailure
            | A::UnknownCA
            | A::UnsupportedCertificate
    );
    may_be && client.asked || alert == A::CertificateRequired
}
