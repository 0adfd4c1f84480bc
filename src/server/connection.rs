//! One client connection: hyper's HTTP/1 server with our limits, time-outs, and ways to end.

use std::{
    cell::Cell,
    future::poll_fn,
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

/// What the connections of a listener have in common.
#[derive(Debug)]
pub struct Door {
    /// The listener.
    pub entry: Rc<Entry>,
    /// Whoever answers.
    pub proxy: Rc<Proxy>,
    /// Limits on clients.
    pub limits: ClientLimits,
    /// How far the end has come.
    pub stop: watch::Receiver<Stop>,
}

/// Bytes of a body that are read at a time: the more there are, the more go to the upstream in one call.
const READ: usize = 256 << 10;

/// A client that says nothing for so long is waited for with nothing in memory but its socket.
const RESTS_AFTER: Duration = Duration::from_millis(10);

/// How hyper's part of a connection ended.
enum End {
    Closed(hyper::Result<()>),
    /// The process ends.
    Cut,
    /// The client reset its connection.
    Gone,
    /// Nothing is asked and nothing owed; the connection goes on.
    Resting,
    /// The client does not read what waits for it.
    Stalled,
    TimedOut(Phase),
}

/// Where a connection goes on.
type Next = Option<(Box<ClientStream>, Rc<Entry>)>;

/// Tells a client that there is no place for it.
pub async fn refuse(stream: Box<ClientStream>, door: &Door) {
    let bytes = door.proxy.answer_head(&Failure::Crowded, &door.entry, &stream.handle());
    say_and_close(stream, bytes, door.limits).await;
}

/// Serves a connection to its end.
pub async fn serve(stream: Box<ClientStream>, door: &Door) {
    let mut next = Some((stream, door.entry.clone()));
    while let Some((stream, entry)) = next.take() {
        let Some(stream) = rest(stream, door).await else { return };
        // In a box of its own, which is gone while the client rests.
        next = Box::pin(serve_http(stream, entry, door)).await;
    }
}

/// Waits for a client to speak; None once its time is over, or the process is to end.
async fn rest(stream: Box<ClientStream>, door: &Door) -> Option<Box<ClientStream>> {
    let until = match stream.handle().phase() {
        _ if stream.has_prefix() => return Some(stream),
        (Phase::New, since) => since + door.limits.head,
        (Phase::Idle, since) => since + door.limits.keep_alive,
        (Phase::Exchange | Phase::Head, _) => return Some(stream),
    };
    let (socket, mut stop) = (stream.socket(), door.stop.clone());
    tokio::select! {
        biased;
        // Not `readable()`, which takes more space.
        _ = poll_fn(|cx| socket.poll_read_ready(cx)) => Some(stream),
        () = sleep_until(until) => None,
        _ = stop.wait_for(|stop| *stop >= Stop::Drain) => {
            // Nothing is owed, and the end need not wait for a client that keeps its side open.
            stream.handle().linger(false);
            Box::pin(close(stream, door.limits)).await;
            None
        }
    }
}

/// One layer of HTTP; what comes back has begun to rest, or is the inside of a CONNECT tunnel.
async fn serve_http(stream: Box<ClientStream>, entry: Rc<Entry>, door: &Door) -> Next {
    let Door { proxy, limits, .. } = door;
    let limits = *limits;
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
        .max_buf_size(limits.head_bytes.max(READ))
        .serve_connection(TokioIo::new(stream), service);
    let end = {
        let reached = Cell::new(Stop::No);
        let mut stopping = pin!(follow(door.stop.clone(), &reached));
        let mut reset = pin!(socket.ready(Interest::ERROR));
        let mut told = false;
        let mut armed = Instant::now() + limits.head;
        let mut timer = pin!(sleep_until(armed));
        poll_fn(|cx| {
            if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(End::Closed(end));
            }
            if reached.get() != Stop::Now {
                let _ = stopping.as_mut().poll(cx);
            }
            if !told && reached.get() >= Stop::Drain {
                told = true;
                let waits = client.phase().0 != Phase::Exchange && !client.owes_answer();
                if waits {
                    // Nothing is owed, and the end need not wait for a client that keeps its side open.
                    client.linger(false);
                }
                Pin::new(&mut connection).graceful_shutdown();
                if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(End::Closed(end));
                }
                if waits && client.phase().0 != Phase::Exchange {
                    // Nor for the rest of a head.
                    return Poll::Ready(End::Gone);
                }
            }
            if reached.get() == Stop::Now {
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
                    Some((deadline, End::Resting)) if deadline <= now => {
                        // hyper gives a connection back only when it is told to end.
                        client.keep_open(true);
                        Pin::new(&mut connection).graceful_shutdown();
                        let end = Pin::new(&mut connection).poll(cx);
                        client.keep_open(false);
                        if let Poll::Ready(end) = end {
                            return Poll::Ready(end.map_or_else(|error| End::Closed(Err(error)), |()| End::Resting));
                        }
                        now + limits.keep_alive
                    }
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
            let mut stream = parts.io.into_inner();
            stream.prefix_with(parts.read_buf.clone());
            if !stream.is_flushed() {
                client.reset();
                return None;
            }
            match client.take_after() {
                None => close(stream, limits).await,
                Some(After::Inside) => {
                    let entry = Rc::new(Entry { tunnel: tunnel_to.take(), ..(*entry).clone() });
                    return inside(stream, parts.read_buf, entry, door).await;
                }
                Some(After::Tunnel(tunnel)) => {
                    // What the client sends after the upstream's end is the upstream's all the same.
                    client.linger(false);
                    stream.goes_beyond_http();
                    let mut stop = door.stop.clone();
                    tunnel.carry(stream, stop.wait_for(|stop| *stop >= Stop::Now)).await;
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
        End::Resting => {
            let parts = connection.into_parts();
            let mut stream = parts.io.into_inner();
            // hyper would pass over empty lines; there is nothing else, since no head has begun.
            let blank = parts.read_buf.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            stream.prefix_with(parts.read_buf.slice(blank..));
            Some((stream, entry))
        }
        End::Cut | End::Stalled => {
            client.reset();
            None
        }
        End::Gone | End::TimedOut(_) => None,
    }
}

/// Closes what hyper has left open.
async fn close(mut stream: Box<ClientStream>, limits: ClientLimits) {
    if !stream.is_shut() {
        // Whether the client still reads is its own affair.
        let _ = timeout(limits.stall, stream.shutdown()).await;
    }
}

/// Says how far the end has come.
async fn follow(mut stop: watch::Receiver<Stop>, reached: &Cell<Stop>) {
    for next in [Stop::Drain, Stop::Now] {
        // Nobody to say so is the end, too.
        let _ = stop.wait_for(|stop| *stop >= next).await;
        reached.set(next);
    }
}

/// When it is time for something, and what: a limit that ends, or a client that begins to rest, which it does before
/// its time is over. An exchange has limits of its own, unless the client does not read.
fn deadline(client: &ClientHandle, limits: &ClientLimits) -> Option<(Instant, End)> {
    if let Some(since) = client.blocked_since() {
        return Some((since + limits.stall, End::Stalled));
    }
    match client.phase() {
        _ if client.is_ending() => None,
        (Phase::Exchange, _) => None,
        (phase @ (Phase::Head | Phase::New), since) => Some((since + limits.head, End::TimedOut(phase))),
        (Phase::Idle, since) if client.owes_answer() => Some((since + limits.keep_alive, End::TimedOut(Phase::Idle))),
        (Phase::Idle, since) => Some((since + RESTS_AFTER.min(limits.keep_alive), End::Resting)),
    }
}

/// Answers a head that is not to be served, in our own words; none is a reset.
async fn say_and_close(mut stream: Box<ClientStream>, bytes: Option<Vec<u8>>, limits: ClientLimits) {
    let client = stream.handle();
    let Some(bytes) = bytes else {
        client.reset();
        return;
    };
    stream.unmute();
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
async fn inside(mut stream: Box<ClientStream>, mut read: Bytes, entry: Rc<Entry>, door: &Door) -> Next {
    let (limits, mut stop) = (door.limits, door.stop.clone());
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
        stream.prefix_with(read.clone());
    }
    if read.first() != Some(&TLS_HANDSHAKE) {
        return Some((stream, entry));
    }
    // In the middle of a TLS handshake an alert is what the client reads.
    let answer = door.proxy.answer_head(&Failure::ConnectRefused(TLS_INSIDE), &entry, &stream.handle());
    let alert = answer.map(|_| ACCESS_DENIED.to_vec());
    say_and_close(stream, alert, limits).await;
    None
}

/// The first byte of a ClientHello's record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// A fatal alert `access_denied` (RFC 8446 section 6.2), which ends the client's handshake at once.
const ACCESS_DENIED: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 49];
