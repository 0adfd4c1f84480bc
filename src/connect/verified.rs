//! A connection whose peer was verified. The type has one constructor, at the end of the handshake, so
//! that forgetting to verify does not compile.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{AlertDescription, CertificateError, Error as TlsError, PeerIncompatible, ProtocolVersion};
use rustls_pki_types::ServerName;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    route::upstream::Upstream,
    tls::{
        client::Recorder,
        failure::{Code, Finding, HandshakeFailure, Subject, VerificationFailure},
        hint,
        judge::Accepted,
        presented::Certificate,
    },
};

use super::error::ConnectError;

/// What happened on the wire of a connection.
#[derive(Debug, Default)]
pub struct Wire {
    /// Bytes read from the upstream since the connection stood.
    pub read: Cell<u64>,
    /// To be reset, not closed, when it is dropped: what was sent is not whole.
    pub abort: Cell<bool>,
}

/// What is known of a verified peer.
#[derive(Debug)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// `TLSv1.2` or `TLSv1.3`.
    pub tls_version: &'static str,
    /// How it proved itself.
    pub accepted: Accepted,
}

/// A TLS stream to a verified peer.
#[derive(Debug)]
pub struct Verified {
    stream: TlsStream<TcpStream>,
    peer: Rc<Peer>,
    wire: Rc<Wire>,
    /// The upstream reads no more, but may have answered before that.
    deaf: bool,
}

impl Verified {
    /// What is known of the peer.
    pub fn peer(&self) -> Rc<Peer> {
        self.peer.clone()
    }

    /// What happens on the wire, to watch from outside.
    pub fn wire(&self) -> Rc<Wire> {
        self.wire.clone()
    }
}

/// Shakes hands; the one way to a [`Verified`].
pub(super) async fn handshake(
    tcp: TcpStream,
    address: SocketAddr,
    upstream: &Upstream,
    deadline: Instant,
    limit: Duration,
) -> Result<Verified, ConnectError> {
    let send = upstream.sni.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
    let (config, recorder) = upstream.trust.0.for_handshake(&upstream.reference, send.is_some());
    let name = send.unwrap_or_else(|| upstream.reference.server_name());
    let end = timeout_at(deadline, TlsConnector::from(config).connect(name, tcp)).await;
    let finding = match end {
        Ok(Ok(stream)) => match recorder.evidence().map(|evidence| &evidence.verdict) {
            Some(Ok(accepted)) => {
                let tls_version = match stream.get_ref().1.protocol_version() {
                    Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                    _ => "TLSv1.3",
                };
                let peer = Rc::new(Peer { address, tls_version, accepted: *accepted });
                return Ok(Verified { stream, peer, wire: Rc::default(), deaf: false });
            }
            // rustls does not finish without asking; should it ever, nobody was verified.
            _ => finding(Code::Other, "the handshake ended without a verdict".into()),
        },
        Ok(Err(error)) => explain(&error),
        Err(_) => {
            let sentence = format!("the TLS handshake did not end within {} s", limit.as_secs_f32());
            finding(Code::HandshakeTimeout, sentence)
        }
    };
    Err(ConnectError::Handshake(Box::new(HandshakeFailure {
        failure: failure(&recorder, finding),
        presented: presented(&recorder),
        address,
        late: false,
    })))
}

/// The judge's own words where it refused; else what ended the handshake.
fn failure(recorder: &Recorder, finding: Finding) -> VerificationFailure {
    match recorder.evidence().map(|evidence| &evidence.verdict) {
        Some(Err(failure)) => (**failure).clone(),
        _ => {
            let hint = hint::for_handshake(finding.code).to_owned();
            VerificationFailure { verdict: finding, also: Vec::new(), hint }
        }
    }
}

fn presented(recorder: &Recorder) -> Vec<Certificate> {
    recorder.evidence().map(|evidence| evidence.presented.clone()).unwrap_or_default()
}

fn finding(code: Code, sentence: String) -> Finding {
    Finding { code, subject: Subject::Handshake, sentence }
}

/// What ended a handshake in which the judge did not refuse.
fn explain(error: &io::Error) -> Finding {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                finding(Code::ClosedInHandshake, "the server closed the connection during the handshake".into())
            }
            _ => finding(Code::ClosedInHandshake, format!("the connection broke during the handshake: {error}")),
        };
    };
    match tls {
        TlsError::InvalidMessage(_) => finding(Code::NotTls, "what answers there does not speak TLS".into()),
        TlsError::AlertReceived(AlertDescription::ProtocolVersion)
        | TlsError::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => finding(Code::TlsVersion, "the server speaks neither TLS 1.2 nor TLS 1.3".into()),
        TlsError::AlertReceived(AlertDescription::CertificateRequired) => {
            finding(Code::ClientCertRequired, "the server demands a client certificate".into())
        }
        TlsError::AlertReceived(alert) => {
            finding(Code::HandshakeRefused, format!("the server refused the handshake (alert {alert:?})"))
        }
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

impl Drop for Verified {
    fn drop(&mut self) {
        if self.wire.abort.get() {
            // RST instead of FIN: the upstream must not take what it has for the whole.
            let _ = SockRef::from(self.stream.get_ref().0).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Verified {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let end = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.wire.read.set(this.wire.read.get() + (buf.filled().len() - before) as u64);
        end
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
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl AsyncWrite for Verified {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let end = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.outlive(end, buf.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if this.deaf {
            return Poll::Ready(Ok(length));
        }
        let end = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.outlive(end, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.deaf {
            return Poll::Ready(Ok(()));
        }
        let end = Pin::new(&mut this.stream).poll_flush(cx).map_ok(|()| 0);
        this.outlive(end, 0).map_ok(|_| ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.wire.abort.get() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// A TLS 1.3 server says only after the handshake that it wanted a client certificate: its alert comes
/// with the first read (RFC 8446 section 4.4.2.4).
pub fn refused_late(error: &hyper::Error, address: SocketAddr) -> Option<Box<HandshakeFailure>> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>()
            && let Some(TlsError::AlertReceived(_)) = io.get_ref().and_then(|inner| inner.downcast_ref())
        {
            let verdict = explain(io);
            let hint = hint::for_handshake(verdict.code).to_owned();
            let failure = VerificationFailure { verdict, also: Vec::new(), hint };
            return Some(Box::new(HandshakeFailure { failure, presented: Vec::new(), address, late: true }));
        }
        source = inner.source();
    }
    None
}
