//! A client that begins TLS where that is served: its ClientHello is read, its upstream is verified, and only then the
//! handshake goes on (RFC 8446 section 4, RFC 5246 section 7.4).

use std::{future::poll_fn, io, time::Duration};

use rustls::{
    CipherSuite, Error as TlsError, InvalidMessage, SignatureScheme,
    server::{Accepted, AcceptedAlert, Acceptor, ClientHello},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    mint::KeyKind,
    proxy::{HelloFacts, TlsTerms, client_tls::ClientTlsError, failure::Failure},
};

use super::{
    hello::Offer,
    session::{ACCESS_DENIED, DECODE_ERROR, Session, alert, fatal_alert},
};

/// A handshake that is refused, and what ends it.
pub(super) struct TlsRefusal {
    /// `None` where the client is gone.
    failure: Option<Failure>,
    /// What the client is sent, where that was not done yet.
    alert: Vec<u8>,
}

impl From<Failure> for TlsRefusal {
    fn from(failure: Failure) -> Self {
        let alert = fatal_alert(alert(&failure).unwrap_or(ACCESS_DENIED)).to_vec();
        Self { failure: Some(failure), alert }
    }
}

impl TlsRefusal {
    /// What rustls objects to, with its alert.
    fn of(error: &TlsError, mut with: AcceptedAlert, offer: Option<&Offer>) -> Self {
        let mut alert = Vec::new();
        // To memory.
        let _ = with.write_all(&mut alert);
        if alert.is_empty() {
            alert.extend(fatal_alert(DECODE_ERROR));
        }
        Self { failure: Some(Failure::ClientTls(explain(error, offer))), alert }
    }

    fn broken(why: &str) -> Self {
        Self { failure: Some(Failure::ClientTls(ClientTlsError::Handshake(why.into()))), alert: Vec::new() }
    }
}

impl Session<'_> {
    /// Serves a client's TLS from now on, as far as the first bytes of its ClientHello were received.
    pub(super) async fn terminate(&mut self) -> Result<(), TlsRefusal> {
        let until = Instant::now() + self.context.limits.head;
        let (accepted, offer) = match timeout_at(until, self.read_hello()).await {
            Ok(read) => read?,
            Err(_) => return Err(too_late(self.context.limits.head)),
        };
        // What our own handshake sends would be answered by our own handshake, again and again.
        if let Some(from) = self.own_socket() {
            return Err(Failure::OwnConnection { from }.into());
        }
        let hello = accepted.client_hello();
        let facts = HelloFacts {
            server_name: hello.server_name().map(str::to_owned),
            kind: key_kind(&hello),
            local: self.client.local_ip(),
        };
        let proxy = &self.context.proxy;
        let terms = proxy.tls_terms(&self.listener, &mut self.client, facts).await?;
        let Some(TlsTerms { config, inside, rejected }) = terms else {
            return Err(TlsRefusal { failure: None, alert: Vec::new() });
        };
        self.rejected = rejected;
        let tls =
            accepted.into_connection(config).map_err(|(error, alert)| TlsRefusal::of(&error, alert, Some(&offer)))?;
        // The client waits for us until here.
        let until = Instant::now() + self.context.limits.head;
        match timeout_at(until, self.client.start_tls(tls)).await {
            Ok(Ok(())) => {
                self.listener.tls = Some(inside);
                Ok(())
            }
            Ok(Err(error)) => Err(ended(&error, &offer)),
            Err(_) => Err(too_late(self.context.limits.head)),
        }
    }

    async fn read_hello(&mut self) -> Result<(Accepted, Offer), TlsRefusal> {
        let (mut acceptor, mut all) = (Acceptor::default(), Vec::new());
        loop {
            let input = self.client.take_input();
            all.extend_from_slice(&input);
            let mut rest = &input[..];
            while !rest.is_empty() {
                acceptor.read_tls(&mut rest).map_err(|_| TlsRefusal::broken(UNREADABLE))?;
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok((accepted, Offer::read(&all).unwrap_or_default())),
                Ok(None) => {}
                Err((error, alert)) => return Err(TlsRefusal::of(&error, alert, Offer::read(&all).as_ref())),
            }
            match poll_fn(|cx| self.client.poll_more(cx)).await {
                Ok(count) if count > 0 => {}
                _ => return Err(TlsRefusal::broken(CLOSED)),
            }
        }
    }

    /// Records a handshake that is refused, and ends the connection.
    pub(super) async fn refuse_tls(mut self, refusal: TlsRefusal) {
        self.record_rejected();
        if let Some(failure) = &refusal.failure {
            // Whatever the answer would be, the client understands alerts only.
            let _ = self.context.proxy.refuse_connection(failure, &self.listener, self.client.peer());
        }
        self.client.outbox().extend_from_slice(&refusal.alert);
        if self.client.flush(self.context.limits.head).await.is_ok() {
            self.client.close(false).await;
        }
    }
}

const UNREADABLE: &str = "its ClientHello cannot be read";
const CLOSED: &str = "the client closed the connection";

/// What a client can verify. One with TLS 1.2 has to offer a suite for the key, too.
fn key_kind(hello: &ClientHello<'_>) -> KeyKind {
    let signs = hello.signature_schemes().contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
    let has_suite = hello.cipher_suites().iter().any(|suite| FOR_ECDSA.contains(suite));
    if signs && has_suite { KeyKind::Ecdsa } else { KeyKind::Rsa }
}

/// The suites of rustls that go with a P-256 key: all of TLS 1.3, and these of TLS 1.2.
const FOR_ECDSA: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

fn too_late(limit: Duration) -> TlsRefusal {
    TlsRefusal::broken(&format!("it did not end within {} s", limit.as_secs_f32()))
}

/// Why a handshake ended behind the ClientHello. The client was sent the alert.
fn ended(error: &io::Error, offer: &Offer) -> TlsRefusal {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    let failure = match (tls, error.kind()) {
        (Some(tls), _) => explain(tls, Some(offer)),
        (None, io::ErrorKind::UnexpectedEof) => ClientTlsError::Handshake(CLOSED.into()),
        (None, _) => ClientTlsError::Handshake(format!("the connection broke: {error}")),
    };
    TlsRefusal { failure: Some(Failure::ClientTls(failure)), alert: Vec::new() }
}

fn explain(error: &TlsError, offer: Option<&Offer>) -> ClientTlsError {
    let why = match error {
        TlsError::PeerIncompatible(_) => {
            let offer = offer.map_or_else(|| "nothing that can be read".into(), ToString::to_string);
            return ClientTlsError::TooOld { offer };
        }
        TlsError::AlertReceived(alert) => format!("the client refused it (alert {alert:?})"),
        TlsError::NoApplicationProtocol => "the client wants another protocol than HTTP/1.1 or 1.0 (ALPN)".into(),
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => UNREADABLE.into(),
        other => other.to_string(),
    };
    ClientTlsError::Handshake(why)
}
