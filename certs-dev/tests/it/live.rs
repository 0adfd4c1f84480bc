//! The server, on real sockets, with plain rustls as its client.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use certs_dev::{Case, Counters, Gallery, Server};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::new_gallery;

#[tokio::test]
async fn a_good_server_answers_and_counts() {
    let gallery = new_gallery();
    let (answer, counters) = ask(&gallery, Case::Good, trusting(&gallery, Case::Good), GET).await;
    let answer = answer.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("Content-Type: text/plain"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nthis is good"), "{answer}");
    assert_eq!((counters.connections(), counters.handshakes(), counters.requests()), (1, 1, 1));
    assert_eq!(counters.application_bytes(), GET.len() as u64);
}

#[tokio::test]
async fn an_expired_one_is_refused_by_plain_rustls_and_nothing_is_sent() {
    let gallery = new_gallery();
    let (answer, counters) = ask(&gallery, Case::Expired, trusting(&gallery, Case::Expired), GET).await;
    assert!(answer.unwrap_err().to_string().contains("expired"));
    assert_eq!((counters.connections(), counters.application_bytes()), (1, 0));
    assert_eq!((counters.handshakes(), counters.requests()), (0, 0));
}

#[tokio::test]
async fn requests_are_read_to_their_end_one_after_the_other() {
    let gallery = new_gallery();
    let requests = "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /\
        POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        4;x=y\r\nGET \r\n10\r\n0123456789abcdef\r\n0\r\nTrailer: t\r\n\r\n\
        HEAD /c HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (answer, counters) = ask(&gallery, Case::Good, trusting(&gallery, Case::Good), requests).await;
    let answer = answer.unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
    assert_eq!(answer.matches("this is good").count(), 2, "{answer}");
    assert_eq!(counters.requests(), 3);
    assert_eq!(counters.application_bytes(), requests.len() as u64);
}

/// Every server completes its part: a client that trusts anything gets an answer from each case,
/// in both versions of TLS, so only the client's care stands between it and a bad certificate.
#[tokio::test]
async fn a_careless_client_is_answered_by_every_case() {
    let gallery = new_gallery();
    for case in Case::ALL {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let config = careless(version);
            let (answer, counters) = ask(&gallery, *case, config, GET).await;
            let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", case.id()));
            assert!(answer.contains(case.id()), "{answer}");
            assert_eq!(counters.handshakes(), 1, "{}", case.id());
        }
    }
}

#[tokio::test]
async fn a_sound_handshake_signature_is_made_with_every_key_that_rustls_can_check() {
    let gallery = new_gallery();
    for case in [Case::Good, Case::GoodEcdsaP384, Case::GoodRsa2048, Case::GoodIp, Case::RootSent] {
        let (answer, _) = ask(&gallery, case, trusting(&gallery, case), GET).await;
        answer.unwrap_or_else(|error| panic!("{}: {error}", case.id()));
    }
}

async fn ask(
    gallery: &Gallery,
    case: Case,
    config: ClientConfig,
    requests: &str,
) -> (io::Result<String>, Arc<Counters>) {
    let identity = gallery.identity(case).unwrap();
    let about = format!("this is {}", case.id());
    let server = Server::bind(([127, 0, 0, 1], 0).into(), &identity, &about).await.unwrap();
    let (address, counters) = (server.local_addr(), server.counters());
    let running = tokio::spawn(server.run());

    let exchange = async {
        let name = ServerName::try_from(case.name()).unwrap();
        let stream = TcpStream::connect(address).await?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(requests.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(20), exchange).await.unwrap();
    running.abort();
    (answer, counters)
}

fn trusting(gallery: &Gallery, case: Case) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in gallery.bundle(case.bundle()) {
        roots.add(certificate).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_webpki_verifier(verifier.build().unwrap())
        .with_no_client_auth()
}

fn careless(version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless))
        .with_no_client_auth()
}

/// Looks at nothing: what no client must do.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
