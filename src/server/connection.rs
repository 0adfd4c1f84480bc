//! One client connection: hyper's HTTP/1 server with our limits, time-outs, and ways to end.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    message::authority::Authority,
    proxy::{
        Entry, FieldCase, Proxy, TLS_INSIDE,
        client::{After, ClientHandle, Phase},
        failure::Failure,
    },
};

use super::{Stop, client::ClientStream};

/// Limits on clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// For a request's head, from its first byte; and for the first request after connecting.
    pub head: Duration,
    /// Between requests.
    pub keep_alive: Duration,
    /// For a client to go on reading what waits for it.
    pub stall: Duration,
    /// Bytes of a head.
    pub head_bytes: usize,
    /// Field lines of a head.
    pub fields: usize,
}

/// How hyper's part of a connection ended.
enum End {
    Closed(hyper::Result<()>),
    /// The process ends.
    Cut,
    /// The client reset its connection.
    Gone,
    /// The client does not read what waits for it.
    Stalled,
    TimedOut(Phase),
}

/// Tells a client that there is no place for it.
pub async fn refuse(stream: ClientStream, entry: &Entry, proxy: &Proxy, limits: ClientLimits) {
    let bytes = proxy.answer_head(&Failure::Crowded, entry, &stream.handle());
    say_and_close(stream, bytes, limits).await;
}

/// Serves a connection to its end.
pub async fn serve(
    stream: ClientStream,
    entry: Entry,
    proxy: Rc<Proxy>,
    limits: ClientLimits,
    stop: watch::Receiver<Stop>,
) {
    let mut next = Some((stream, entry));
    while let Some((stream, entry)) = next.take() {
        next = serve_http(stream, entry, &proxy, limits, stop.clone()).await;
    }
}

/// One layer of HTTP; what comes back is the inside of a CONNECT tunnel.
async fn serve_http(
    stream: ClientStream,
    entry: Entry,
    proxy: &Rc<Proxy>,
    limits: ClientLimits,
    mut stop: watch::Receiver<Stop>,
) -> Option<(ClientStream, Entry)> {
    let client = stream.handle();
    let socket = stream.socket();
    let tunnel_to = Rc::new(std::cell::RefCell::new(None::<Authority>));
    let service = {
        let (proxy, entry, client, tunnel_to) = (proxy.clone(), entry.clone(), client.clone(), tunnel_to.clone());
        service_fn(move |request: http::Request<hyper::body::Incoming>| {
            if request.method() == http::Method::CONNECT {
                *tunnel_to.borrow_mut() = request.uri().authority().and_then(|to| to.as_str().parse().ok());
            }
            let (proxy, entry, client) = (proxy.clone(), entry.clone(), client.clone());
            async move { proxy.handle(&entry, &client, request).await }
        })
    };
    let mut connection = http1::Builder::new()
        // A client that has sent all and waits is not one that has gone (RFC 9112 section 9.6).
        .half_close(true)
        .preserve_header_case(true)
        .title_case_headers(proxy.field_case() != FieldCase::Lower)
        .max_headers(limits.fields)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes)
        .serve_connection(TokioIo::new(stream), service);
    let end = {
        let (mut draining, mut cutting) = (stop.clone(), stop.clone());
        let mut draining = pin!(draining.wait_for(|stop| *stop >= Stop::Drain));
        let mut cutting = pin!(cutting.wait_for(|stop| *stop >= Stop::Now));
        let mut reset = pin!(socket.ready(Interest::ERROR));
        let mut told = false;
        let mut armed = Instant::now() + limits.head;
        let mut timer = pin!(sleep_until(armed));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(End::Closed(end));
            }
            if !told && draining.as_mut().poll(cx).is_ready() {
                told = true;
                if client.phase().0 != Phase::Exchange && !client.owes_answer() {
                    // Nothing is owed, and the end need not wait for a client that keeps its side open.
                    client.linger(false);
                }
                Pin::new(&mut connection).graceful_shutdown();
                if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(End::Closed(end));
                }
            }
            if cutting.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Cut);
            }
            // hyper does not look at a client that waits; one that only closed its side is answered, one
            // that reset is gone, and its exchange with it.
            if reset.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Gone);
            }
            // One timer per connection, moved only when it would come too late.
            if let Some((deadline, _)) = deadline(&client, &limits)
                && deadline < armed
            {
                armed = deadline;
                timer.as_mut().reset(armed);
            }
            while timer.as_mut().poll(cx).is_ready() {
                let now = Instant::now();
                armed = match deadline(&client, &limits) {
                    Some((deadline, end)) if deadline <= now => return Poll::Ready(end),
                    Some((deadline, _)) => deadline,
                    None => now + limits.keep_alive,
                };
                timer.as_mut().reset(armed);
            }
            Poll::Pending
        })
        .await
    };
    match end {
        End::Closed(Ok(())) => {
            let parts = connection.into_parts();
            let stream = parts.io.into_inner().with_prefix(parts.read_buf.clone());
            if !stream.is_flushed() {
                client.reset();
                return None;
            }
            match client.take_after() {
                None => close(stream, limits).await,
                Some(After::Inside) => {
                    let entry = Entry { tunnel: tunnel_to.take(), ..entry };
                    return inside(stream, parts.read_buf, entry, proxy, limits, &mut stop).await;
                }
                Some(After::Tunnel(tunnel)) => {
                    // What the client sends after the upstream's end is the upstream's all the same.
                    client.linger(false);
                    tunnel.carry(stream.beyond_http(), stop.wait_for(|stop| *stop >= Stop::Now)).await;
                }
            }
            None
        }
        End::Closed(Err(error)) => {
            let stream = connection.into_parts().io.into_inner();
            if client.owes_answer() {
                // What the client has not read of it is lost: nothing may look like its end, nor stand behind it.
                client.reset();
                return None;
            }
            let failure = match stream.refused_head() {
                Some(refused) => Some(Failure::Head(refused.to_string())),
                None if error.is_parse_too_large() => Some(Failure::LargeHead(limits.head_bytes)),
                None => error.is_parse().then(|| Failure::Head(error.to_string())),
            };
            if let Some(failure) = failure.filter(|_| client.phase().0 != Phase::Exchange) {
                let bytes = proxy.answer_head(&failure, &entry, &client);
                say_and_close(stream, bytes, limits).await;
                return None;
            }
            // A broken body has been recorded by its exchange; the rest is the client's own affair.
            tracing::debug!(%error, client = %client.address(), listener = %entry.name, "a client connection ended");
            None
        }
        End::TimedOut(Phase::Head) => {
            let bytes = proxy.answer_head(&Failure::HeadTimeout, &entry, &client);
            say_and_close(connection.into_parts().io.into_inner(), bytes, limits).await;
            None
        }
        End::Cut | End::Stalled => {
            client.reset();
            None
        }
        End::Gone | End::TimedOut(_) => None,
    }
}

/// Closes what hyper has left open.
async fn close(mut stream: ClientStream, limits: ClientLimits) {
    if !stream.is_shut() {
        // Whether the client still reads is its own affair.
        let _ = timeout(limits.stall, stream.shutdown()).await;
    }
}

/// When the next limit ends, and how. An exchange has limits of its own, unless the client does not read.
fn deadline(client: &ClientHandle, limits: &ClientLimits) -> Option<(Instant, End)> {
    if let Some(since) = client.blocked_since() {
        return Some((since + limits.stall, End::Stalled));
    }
    match client.phase() {
        _ if client.is_ending() => None,
        (Phase::Exchange, _) => None,
        (phase @ (Phase::Head | Phase::New), since) => Some((since + limits.head, End::TimedOut(phase))),
        (Phase::Idle, since) => Some((since + limits.keep_alive, End::TimedOut(Phase::Idle))),
    }
}

/// Answers a head that is not to be served, in our own words; none is a reset.
async fn say_and_close(stream: ClientStream, bytes: Option<Vec<u8>>, limits: ClientLimits) {
    let client = stream.handle();
    let Some(bytes) = bytes else {
        client.reset();
        return;
    };
    let mut stream = stream.unmute();
    client.answer_owed();
    client.linger(true);
    // Whether the client still reads is its own affair.
    if let Ok(Ok(())) = timeout(limits.head, stream.write_all(&bytes)).await {
        client.answer_given();
        client.flushed();
    }
    let _ = timeout(limits.head, stream.shutdown()).await;
}

/// What a CONNECT tunnel carries: plain HTTP is served on; TLS is told, in its own words, that it is not.
async fn inside(
    mut stream: ClientStream,
    mut read: Bytes,
    entry: Entry,
    proxy: &Proxy,
    limits: ClientLimits,
    stop: &mut watch::Receiver<Stop>,
) -> Option<(ClientStream, Entry)> {
    if read.is_empty() {
        let mut first = [0; 1];
        let begun = tokio::select! {
            begun = timeout(limits.keep_alive, stream.read(&mut first)) => begun,
            _ = stop.wait_for(|stop| *stop >= Stop::Drain) => return None,
        };
        match begun {
            Ok(Ok(1)) => read = Bytes::copy_from_slice(&first),
            _ => return None,
        }
        stream = stream.with_prefix(read.clone());
    }
    if read.first() != Some(&TLS_HANDSHAKE) {
        return Some((stream, entry));
    }
    // In the middle of a TLS handshake an alert is what the client reads.
    let answer = proxy.answer_head(&Failure::ConnectRefused(TLS_INSIDE), &entry, &stream.handle());
    let alert = answer.map(|_| ACCESS_DENIED.to_vec());
    say_and_close(stream, alert, limits).await;
    None
}

/// The first byte of a ClientHello's record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// A fatal alert `access_denied` (RFC 8446 section 6.2), which ends the client's handshake at once.
const ACCESS_DENIED: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 49];
