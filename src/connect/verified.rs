//! A connection whose peer was verified. The type has one constructor, at the end of the handshake, so
//! that forgetting to verify does not compile.

use std::{
    cell::Cell,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use rustls::{
    AlertDescription, CertificateError, Error as TlsError, InvalidMessage, PeerIncompatible, ProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    route::upstream::Upstream,
    tls::{
        client::{Made, PeerTrust, Recorder, TlsClient, TlsVersion},
        failure::{CertificateRef, Code, Finding, HandshakeFailure, Occasion, VerificationFailure},
        hint,
        presented::Certificate,
    },
};

use super::{error::ConnectError, socket::Socket};

/// Room for so much is worth reading ahead for: more than one record (RFC 8446 section 5.1).
const WORTH_AHEAD: usize = 32 * 1024;

/// Bytes of records that may wait for the socket: so many go in one call.
const SEALED: usize = 128 * 1024;

/// What happened on the wire of a connection.
#[derive(Default)]
pub struct Wire {
    /// Bytes read from the upstream since the connection stood.
    pub read: Cell<u64>,
    /// Bytes of records that the upstream's kernel, or ours, took.
    pub written: Cell<u64>,
    /// To be reset, not closed, when it is dropped: what was sent is not whole. What is still written goes nowhere.
    pub abort: Cell<bool>,
    /// HTTP on it is over, in an orderly way.
    pub shut: Cell<bool>,
    /// Nothing more is read in large pieces until whoever takes it has taken what there is.
    held: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Wire {
    /// Whether anything more is to be read in large pieces.
    pub fn hold(&self, held: bool) {
        self.held.set(held);
        if !held && let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("read", &self.read).field("written", &self.written).finish_non_exhaustive()
    }
}

/// What is known of a peer that may be spoken to.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Which version was agreed.
    pub tls_version: TlsVersion,
    /// Which cipher suite.
    pub cipher_suite: &'static str,
    /// Why it may be spoken to.
    pub standing: PeerTrust,
    /// What it sent, its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The client certificate, and whether it was asked for.
    pub client: ClientAuth,
}

/// The client's side of authentication.
#[derive(Clone, Debug, Default)]
pub struct ClientAuth {
    /// Whether the server asked.
    pub asked: bool,
    /// SHA-256 of the certificate that was at hand.
    pub certificate: Option<String>,
}

impl ClientAuth {
    fn of(recorder: &Recorder, client: &TlsClient) -> Self {
        let certificate = client.settings().client.as_ref().map(|client| client.sha256.clone());
        Self { asked: recorder.asked_for_certificate(), certificate }
    }
}

impl Peer {
    /// Whether whatever is true of one is true of the other, but for the address.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.tls_version, &self.chain, &self.client.certificate)
            == (other.tls_version, &other.chain, &other.client.certificate)
    }

    /// What it would be under the settings of this upstream; None where it could not be.
    pub fn judged_again(&self, upstream: &Upstream) -> Option<Self> {
        let certificate = self.client.certificate.as_deref();
        let made = Made { chain: &self.chain, client: certificate, tls_version: self.tls_version };
        let standing = upstream.tls.0.verify_again(&made, &upstream.reference)?;
        Some(Self { standing, ..self.clone() })
    }
}

/// A TLS stream to a verified peer.
#[derive(Debug)]
pub struct Verified {
    stream: TlsStream<Socket>,
    /// Why reading is over, to be said once what came before it was.
    broken: Option<io::Error>,
    peer: Rc<Peer>,
    wire: Rc<Wire>,
    bypassed: Option<Rc<HandshakeFailure>>,
    /// The upstream reads no more, but may have answered before that.
    deaf: bool,
}

impl Verified {
    fn new(mut stream: TlsStream<Socket>, peer: Rc<Peer>, bypassed: Option<Rc<HandshakeFailure>>) -> Self {
        stream.get_mut().1.set_buffer_limit(Some(SEALED));
        Self { stream, broken: None, peer, wire: Rc::default(), bypassed, deaf: false }
    }

    /// What is known of the peer.
    pub fn peer(&self) -> Rc<Peer> {
        self.peer.clone()
    }

    /// The refusal that is only to be reported, if any.
    pub fn bypassed(&self) -> Option<Rc<HandshakeFailure>> {
        self.bypassed.clone()
    }

    /// What happens on the wire, to watch from outside.
    pub fn wire(&self) -> Rc<Wire> {
        self.wire.clone()
    }
}

/// Shakes hands; the one way to a [`Verified`].
pub(super) async fn handshake(
    socket: Socket,
    address: SocketAddr,
    upstream: &Upstream,
    deadline: Instant,
    limit: Duration,
) -> Result<Verified, ConnectError> {
    let send = upstream.sni.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let client = &upstream.tls.0;
    let (config, recorder) = client.for_handshake(&upstream.reference, send.is_some());
    let name = send.unwrap_or_else(|| upstream.reference.server_name());
    let end = timeout_at(deadline, TlsConnector::from(config).connect(name, socket)).await;
    let auth = ClientAuth::of(&recorder, client);
    let failed =
        |failure, occasion| Rc::new(HandshakeFailure { failure, presented: presented(&recorder), address, occasion });
    let finding = match (end, recorder.evidence().map(|evidence| &evidence.verdict)) {
        (Ok(Ok(stream)), Some(Ok(accepted))) => {
            let peer = peer(&stream, address, PeerTrust::Verified(accepted.clone()), &recorder, auth);
            return Ok(Verified::new(stream, peer, None));
        }
        (Ok(Ok(stream)), Some(Err((failure, Some(standing))))) => {
            let bypassed = Some(failed((**failure).clone(), Occasion::Bypassed));
            let peer = peer(&stream, address, standing.clone(), &recorder, auth);
            return Ok(Verified::new(stream, peer, bypassed));
        }
        (_, Some(Err((failure, None)))) => {
            return Err(ConnectError::Handshake(failed((**failure).clone(), Occasion::Handshake)));
        }
        // rustls does not finish without asking; should it ever, nobody was verified.
        (Ok(Ok(_)), None) => finding(Code::Other, "the handshake ended without a verdict".into()),
        (Ok(Err(error)), _) => explain(&error, &auth, client.settings().min_version),
        (Err(_), _) => {
            let sentence = format!("the TLS handshake did not end within {} s", limit.as_secs_f32());
            finding(Code::HandshakeTimeout, sentence)
        }
    };
    Err(ConnectError::Handshake(failed(failure(finding), Occasion::Handshake)))
}

fn peer(
    stream: &TlsStream<Socket>,
    address: SocketAddr,
    standing: PeerTrust,
    recorder: &Recorder,
    client: ClientAuth,
) -> Rc<Peer> {
    let session = stream.get_ref().1;
    let tls_version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
        _ => TlsVersion::Tls13,
    };
    let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let chain = recorder.evidence().into_iter().flat_map(|evidence| &evidence.presented);
    Rc::new(Peer {
        address,
        tls_version,
        cipher_suite: suite.unwrap_or("unknown"),
        standing,
        chain: chain.map(|certificate| certificate.der.clone()).collect(),
        client,
    })
}

/// A failure beside the judge's verdict.
fn failure(verdict: Finding) -> VerificationFailure {
    let hint = hint::for_handshake(verdict.code).to_owned();
    VerificationFailure { verdict, also: Vec::new(), hint }
}

fn presented(recorder: &Recorder) -> Vec<Certificate> {
    recorder.evidence().map(|evidence| evidence.presented.clone()).unwrap_or_default()
}

fn finding(code: Code, sentence: String) -> Finding {
    Finding { code, subject: CertificateRef::Handshake, sentence }
}

/// What ended a handshake in which the judge did not refuse.
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

impl Drop for Verified {
    fn drop(&mut self) {
        if self.wire.abort.get() {
            // RST instead of FIN: the upstream must not take what it has for the whole.
            let _ = SockRef::from(self.stream.get_ref().0.tcp()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Verified {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        let end = if buf.remaining() < WORTH_AHEAD {
            Pin::new(&mut this.stream).poll_read(cx, buf)
        } else {
            this.poll_read_ahead(cx, buf)
        };
        this.wire.read.set(this.wire.read.get() + (buf.filled().len() - before) as u64);
        end
    }
}

impl Verified {
    /// Takes what the socket has in one piece, and of that one record after the other.
    fn poll_read_ahead(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            // First what rustls has and what is left of the last time.
            self.stream.get_mut().0.hold();
            let end = loop {
                let filled = buf.filled().len();
                match Pin::new(&mut self.stream).poll_read(cx, buf) {
                    Poll::Ready(Ok(())) if buf.filled().len() > filled => {}
                    end => break end,
                }
            };
            self.stream.get_mut().0.release();
            match end {
                Poll::Ready(Err(error)) if buf.filled().len() > before => {
                    self.broken = Some(error);
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending if buf.filled().len() == before => {}
                Poll::Pending => return Poll::Ready(Ok(())),
                Poll::Ready(end) => return Poll::Ready(end),
            }
            if self.wire.held.get() {
                self.wire.waiting.set(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            ready!(self.stream.get_mut().0.poll_fill(cx, buf.remaining()))?;
        }
    }
}

impl Verified {
    /// An upstream that answers early and closes makes our writes fail before its answer was read. What
    /// is written then goes nowhere; the answer, or the end, is found by reading.
    fn outlive(&mut self, end: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
        match end {
            Poll::Ready(Err(error)) if is_gone(&error) => {
                self.deaf = true;
                self.wire.abort.set(true);
                Poll::Ready(Ok(length))
            }
            end => end,
        }
    }

    /// Takes note of how far the upstream's kernel, or ours, took what was written.
    fn note_written(&self) {
        self.wire.written.set(self.stream.get_ref().0.written());
    }

    /// Whether what is written matters to nobody: an upstream that reads nothing must not hold up the end.
    fn is_deaf(&self) -> bool {
        self.deaf || self.wire.abort.get()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncWrite for Verified {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_deaf() {
            return Poll::Ready(Ok(buf.len()));
        }
        let end = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.note_written();
        this.outlive(end, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if this.is_deaf() {
            return Poll::Ready(Ok(length));
        }
        let end = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.note_written();
        this.outlive(end, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_deaf() {
            return Poll::Ready(Ok(()));
        }
        let end = Pin::new(&mut this.stream).poll_flush(cx).map_ok(|()| 0);
        this.note_written();
        this.outlive(end, 0).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.wire.shut.set(true);
        if this.wire.abort.get() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// A TLS 1.3 server says only after the handshake what it holds of our client certificate: its alert comes
/// with the first read (RFC 8446 section 4.4.2.4). Any other alert is the end of a verified connection.
pub fn refused_late(error: &hyper::Error, peer: &Peer) -> Option<Rc<HandshakeFailure>> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(failure) = inner.downcast_ref().and_then(|error| refused_in(error, peer)) {
            return Some(failure);
        }
        source = inner.source();
    }
    None
}

/// The same, of a read.
pub fn refused_in(error: &io::Error, peer: &Peer) -> Option<Rc<HandshakeFailure>> {
    let Some(TlsError::AlertReceived(alert)) = error.get_ref().and_then(|inner| inner.downcast_ref()) else {
        return None;
    };
    if peer.tls_version != TlsVersion::Tls13 || !is_about_client_certificate(*alert, &peer.client) {
        return None;
    }
    let failure = failure(refused(*alert, &peer.client));
    let (address, occasion) = (peer.address, Occasion::After);
    Some(Rc::new(HandshakeFailure { failure, presented: Vec::new(), address, occasion }))
}

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
