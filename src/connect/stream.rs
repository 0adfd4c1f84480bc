//! TLS to an upstream over buffers of our own. rustls is the only reader of records, by its unbuffered interface:
//! ciphertext is received in large pieces into shared space, and what is sent goes out in one call.

use std::{
    future::poll_fn,
    io,
    pin::pin,
    task::{Context, Poll, Waker, ready},
};

use rustls::{
    ClientConfig, Error as TlsError, ProtocolVersion,
    client::UnbufferedClientConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus},
};
use rustls_pki_types::ServerName;
use std::sync::Arc;
use tokio::task::coop::unconstrained;

use crate::buffer::{Buffer, BufferPool, PIECE};

use super::carrier::Carrier;

/// Bytes of plaintext in a record (RFC 8446 section 5.1).
const RECORD: usize = 16 * 1024;

/// Header, content type and tag of a record in TLS 1.3; TLS 1.2's explicit nonce and tag need no more.
const RECORD_OVERHEAD: usize = 64;

/// The flight of a server is at most its largest message, which rustls limits to 64 KiB, and a record.
const MOST_HANDSHAKE: usize = 128 * 1024;

/// A TLS connection.
pub(super) struct TlsStream {
    carrier: Carrier,
    tls: Box<UnbufferedClientConnection>,
    /// The beginning of a record.
    partial: Vec<u8>,
    /// Records that the system has not taken.
    outbox: Buffer,
    buffers: BufferPool,
    /// Bytes of data that were received.
    received: u64,
    /// The peer asked for a new handshake, which was declined.
    declined_renegotiation: bool,
    input: Input,
}

/// What receiving can still bring.
#[derive(Debug)]
enum Input {
    Open,
    /// The peer has said that nothing follows (`close_notify`).
    Closed,
    /// To be reported once what came before it was taken.
    Failed(io::Error),
    /// It was reported; nothing more is read or written.
    Dead,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("carrier", &self.carrier).field("input", &self.input).finish_non_exhaustive()
    }
}

impl TlsStream {
    /// Shakes hands. What came behind the handshake is appended to `early`.
    ///
    /// # Errors
    /// What ended the handshake; rustls' own error inside where it is one.
    pub(super) async fn handshake(
        mut carrier: Carrier,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        buffers: BufferPool,
        early: &mut Vec<u8>,
    ) -> io::Result<Self> {
        let mut tls = Box::new(UnbufferedClientConnection::new(config, name).map_err(tls_error)?);
        let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
        loop {
            let UnbufferedStatus { discard, state } = tls.process_tls_records(&mut incoming);
            let step = match state {
                Ok(ConnectionState::EncodeTlsData(message)) => {
                    encode(message, &mut outgoing)?;
                    Step::Again
                }
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    transmit.done();
                    Step::Send
                }
                Ok(ConnectionState::BlockedHandshake) => Step::Receive,
                Ok(ConnectionState::WriteTraffic(_)) => Step::Done,
                Ok(ConnectionState::ReadTraffic(_)) => {
                    let why = "the server sent data before it was asked for anything";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                // The peer closes before it has finished.
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => Step::Fail(error),
            };
            incoming.drain(..discard);
            match step {
                Step::Again => {}
                Step::Send => {
                    carrier.write_all(&outgoing).await?;
                    outgoing.clear();
                }
                Step::Receive if incoming.len() > MOST_HANDSHAKE => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the server's handshake is too long"));
                }
                Step::Receive => {
                    incoming.reserve(RECORD);
                    if poll_fn(|cx| carrier.poll_read(cx, &mut incoming, RECORD)).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Step::Done => break,
                Step::Fail(error) => {
                    send_alert(&mut tls, &mut incoming, &mut carrier);
                    return Err(tls_error(error));
                }
            }
        }
        let outbox = Buffer::new(buffers.clone());
        let mut stream = Self {
            carrier,
            tls,
            partial: Vec::new(),
            outbox,
            buffers,
            received: 0,
            declined_renegotiation: false,
            input: Input::Open,
        };
        stream.open(&mut Context::from_waker(Waker::noop()), incoming, early);
        Ok(stream)
    }

    /// What rustls knows of the connection.
    pub(super) fn session(&self) -> &UnbufferedClientConnection {
        &self.tls
    }

    /// Bytes of data that were received so far; alerts, tickets, and parts of a record are none.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the peer asked for a new handshake (TLS 1.2 renegotiation), which is always declined.
    pub(super) fn declined_renegotiation(&self) -> bool {
        self.declined_renegotiation
    }

    /// Whether nothing is known to have come: neither data nor the end, nor the beginning of a record, whose rest
    /// would be taken for the answer to the next request. Asks no more of the system than its readiness.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut early = Vec::new();
        let is_open = matches!(self.input, Input::Open);
        // Unconstrained: a task that has used up its turn would be told that nothing is there.
        let receive = unconstrained(poll_fn(|cx| self.poll_receive(cx, &mut early)));
        is_open && pin!(receive).poll(&mut cx).is_pending() && !self.is_in_record()
    }

    /// Whether the beginning of a record waits for the rest.
    pub(super) fn is_in_record(&self) -> bool {
        !self.partial.is_empty() || self.carrier.is_in_record()
    }

    /// Appends what came to `into`, up to a piece at a time; 0 is the end that the peer announced.
    ///
    /// # Errors
    /// A broken record or connection, an alert, or an end that was not announced (RFC 8446 section 6.1), each once
    /// what came before it was given.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        let before = into.len();
        loop {
            match std::mem::replace(&mut self.input, Input::Open) {
                Input::Open => {}
                Input::Closed => {
                    self.input = Input::Closed;
                    return Poll::Ready(Ok(0));
                }
                Input::Failed(error) => {
                    self.input = Input::Dead;
                    return Poll::Ready(Err(error));
                }
                Input::Dead => {
                    self.input = Input::Dead;
                    return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
                }
            }
            ready!(self.carrier.poll_readable(cx))?;
            let mut space = self.buffers.take();
            space.append(&mut self.partial);
            let started = space.len();
            let most = PIECE.saturating_sub(started).max(RECORD);
            match self.carrier.poll_read(cx, &mut space, most) {
                Poll::Pending => {
                    self.keep_partial(space, 0);
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => {
                    self.buffers.give(space);
                    return Poll::Ready(Err(error));
                }
                Poll::Ready(Ok(0)) => {
                    self.buffers.give(space);
                    self.input = Input::Failed(io::ErrorKind::UnexpectedEof.into());
                }
                Poll::Ready(Ok(_)) => self.open(cx, space, into),
            }
            if into.len() > before {
                return Poll::Ready(Ok(into.len() - before));
            }
        }
    }

    /// Decrypts the whole records in `records`, whose space goes back to the pool.
    fn open(&mut self, cx: &mut Context<'_>, mut records: Vec<u8>, into: &mut Vec<u8>) {
        let mut taken = 0;
        loop {
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut records[taken..]);
            let more = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                self.received += record.payload.len() as u64;
                                into.extend_from_slice(record.payload);
                            }
                            Err(error) => self.input = Input::Failed(tls_error(error)),
                        }
                    }
                    true
                }
                // An answer to a key update, or to a request for renegotiation.
                Ok(ConnectionState::EncodeTlsData(message)) => match encode(message, self.outbox.space()) {
                    Ok(()) => {
                        self.send_answer(cx);
                        true
                    }
                    Err(error) => {
                        self.input = Input::Failed(error);
                        false
                    }
                },
                Ok(ConnectionState::TransmitTlsData(transmit)) => {
                    transmit.done();
                    true
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.input = Input::Closed;
                    false
                }
                Ok(_) => false,
                Err(error) => {
                    self.input = Input::Failed(tls_error(error));
                    false
                }
            };
            taken += discard;
            if !more {
                break;
            }
        }
        self.keep_partial(records, taken);
    }

    /// Sends rustls' own answer as far as that takes no waiting: the peer may wait for it before it goes on, and
    /// nothing else may be left to send. In TLS 1.2 there is one such answer, the alert `no_renegotiation`.
    fn send_answer(&mut self, cx: &mut Context<'_>) {
        self.declined_renegotiation |= self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_2);
        // A connection that takes nothing more says so to whoever sends next.
        let _ = self.poll_flush(cx);
    }

    /// Keeps what is not a whole record yet.
    fn keep_partial(&mut self, records: Vec<u8>, taken: usize) {
        if taken < records.len() && matches!(self.input, Input::Open) {
            self.partial = records[taken..].to_vec();
        }
        self.buffers.give(records);
    }

    /// Seals bytes behind what is to be sent.
    ///
    /// # Errors
    /// The connection can send nothing more.
    pub(super) fn seal(&mut self, plaintext: &[u8]) -> io::Result<()> {
        for piece in plaintext.chunks(RECORD) {
            self.write(piece.len(), |traffic, space| traffic.encrypt(piece, space))?;
        }
        Ok(())
    }

    /// Announces that nothing follows.
    pub(super) fn seal_end(&mut self) -> io::Result<()> {
        self.write(0, |traffic, space| traffic.queue_close_notify(space))
    }

    /// Appends a record of `length` bytes to what is to be sent.
    fn write(
        &mut self,
        length: usize,
        mut with: impl FnMut(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::client::ClientConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        if matches!(self.input, Input::Failed(_) | Input::Dead) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        loop {
            // rustls wants to see the beginning of a message that it has seen before.
            let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut self.partial);
            match state.map_err(tls_error)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let space = self.outbox.space();
                    let start = space.len();
                    let mut room = length + RECORD_OVERHEAD;
                    loop {
                        space.resize(start + room, 0);
                        match with(&mut traffic, &mut space[start..]) {
                            Ok(count) => {
                                space.truncate(start + count);
                                return Ok(());
                            }
                            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                                room = required_size;
                            }
                            Err(error) => {
                                space.truncate(start);
                                return Err(io::Error::other(error));
                            }
                        }
                    }
                }
                ConnectionState::EncodeTlsData(message) => encode(message, self.outbox.space())?,
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => self.input = Input::Closed,
                _ => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    /// Bytes of records that the system has not taken.
    pub(super) fn unsent(&self) -> usize {
        self.outbox.len() + self.carrier.unsent()
    }

    /// Forgets what was not sent: the peer takes nothing more.
    pub(super) fn discard_unsent(&mut self) {
        self.outbox.consume(usize::MAX);
        self.carrier.discard_unsent();
    }

    /// Sends what was sealed; ready once the system has all of it.
    ///
    /// # Errors
    /// The system's; with how much it took before, see [`Self::unsent`].
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            match ready!(self.carrier.poll_write(cx, self.outbox.as_slice()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.outbox.consume(count),
            }
        }
        self.carrier.poll_flush(cx)
    }

    /// Closes the sending side of the socket.
    pub(super) fn shut_down(&mut self) {
        self.carrier.shut_down();
    }

    /// Ends by RST instead of FIN when it is dropped: the peer must not take what it has for the whole.
    pub(super) fn reset_on_drop(&self) {
        self.carrier.reset_on_drop();
    }

    /// Says goodbye as far as that takes no waiting.
    pub(super) fn say_goodbye(&mut self) {
        if self.outbox.is_empty() && self.seal_end().is_ok() {
            self.carrier.try_write(self.outbox.as_slice());
        }
        self.carrier.say_goodbye();
    }

    /// What the connection is carried by.
    pub(super) fn carrier(&self) -> &Carrier {
        &self.carrier
    }
}

enum Step {
    Again,
    Send,
    Receive,
    Done,
    Fail(TlsError),
}

/// Appends a message of rustls' own.
fn encode(mut message: EncodeTlsData<'_, rustls::client::ClientConnectionData>, out: &mut Vec<u8>) -> io::Result<()> {
    let start = out.len();
    let mut room = 1024;
    loop {
        out.resize(start + room, 0);
        match message.encode(&mut out[start..]) {
            Ok(count) => {
                out.truncate(start + count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => room = required_size,
            Err(error @ EncodeError::AlreadyEncoded) => return Err(io::Error::other(error)),
        }
    }
}

/// Tells the peer why the handshake ends, as far as that takes no waiting.
fn send_alert(tls: &mut UnbufferedClientConnection, incoming: &mut [u8], carrier: &mut Carrier) {
    let mut alert = Vec::new();
    // Once only: behind its alert rustls would read on in what has failed.
    if let Ok(ConnectionState::EncodeTlsData(message)) = tls.process_tls_records(incoming).state
        && encode(message, &mut alert).is_ok()
    {
        carrier.try_write(&alert);
    }
}

fn tls_error(error: TlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
