//! hyper as an oracle: whatever the program accepts, hyper's server or client takes for the same.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, request};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client,
    rt::{Read, ReadBufCursor, Write},
    server,
    service::service_fn,
};

use super::{End, Message, Side, StartLine};

/// What hyper understood of one message.
#[derive(Debug, Default)]
struct Heard {
    method: String,
    path: Option<String>,
    status: u16,
    fields: Vec<(String, Vec<u8>)>,
    content: Vec<u8>,
    trailers: usize,
    /// `None` while the body lasts; the error that ended it, if any.
    end: Option<Result<(), String>>,
}

type Log = Rc<RefCell<Vec<Heard>>>;

/// # Panics
/// Where hyper does not.
pub(super) fn agrees(side: Side, messages: &[Message], input: &[u8], cut: u8) {
    if messages.is_empty() {
        return;
    }
    let log = Log::default();
    let pieces = Pieces {
        lines: input.iter().filter(|byte| **byte == b'\n').count() + 1,
        is_silent: side != Side::Requests,
        input: with_plain_targets(messages, input),
        at: 0,
        size: usize::from(cut).max(input.len() / 64 + 1),
    };
    let ended = match side {
        Side::Requests => serve(pieces, &log),
        Side::Responses { to_head } => ask(pieces, &log, to_head),
    };
    let heard = log.borrow();
    // hyper's client keeps interim responses to itself.
    let expected: Vec<_> = match side {
        Side::Requests => messages.iter().collect(),
        Side::Responses { .. } => messages.iter().filter(|message| !message.keeps_alive).collect(),
    };
    for (index, message) in expected.into_iter().enumerate() {
        let Some(heard) = heard.get(index) else {
            panic!("hyper did not take {message:?}; it ended with {ended:?}");
        };
        is_same(message, heard);
    }
}

fn is_same(message: &Message, heard: &Heard) {
    match &message.line {
        StartLine::Request { method, target, .. } => {
            assert_eq!(method, &heard.method);
            let said = target.split('#').next().unwrap_or_default();
            assert!(
                !said.starts_with('/') || is_odd(target) || heard.path.as_deref() == Some(said),
                "{target} {heard:?}"
            );
        }
        StartLine::Status { status, .. } => assert_eq!(*status, heard.status),
    }
    let own = message.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), spaced(value))).collect();
    assert_eq!(sorted(own), sorted(heard.fields.clone()));
    match (message.end, &heard.end) {
        (End::Refused, _) => {}
        (End::Unfinished, Some(Err(_)) | None) => assert_eq!(message.content, heard.content),
        (End::Whole, Some(Ok(()))) => {
            assert_eq!(message.content, heard.content);
            // It may know some that do not pass.
            let passing = message.trailers.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1);
            assert!(heard.trailers >= passing, "{message:?} {heard:?}");
        }
        _ => panic!("{message:?} became {heard:?}"),
    }
}

/// By name; several values of one name stay in order. Equal lengths of a response may be one for the program.
fn sorted(mut fields: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    fields.retain(|(name, _)| name != "content-length");
    fields.sort_by(|(name, _), (other, _)| name.cmp(other));
    fields
}

/// With one space for each run of white space: folds differ in theirs.
fn spaced(value: &[u8]) -> Vec<u8> {
    let words = value.split(|byte| b" \t\r\n".contains(byte)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b' ')
}

/// Targets pass byte for byte, also those that `http::Uri` does not take.
fn is_odd(target: &str) -> bool {
    target.parse::<Uri>().is_err()
}

/// The same, with targets of the same length where hyper would stumble over them.
fn with_plain_targets(messages: &[Message], input: &[u8]) -> Vec<u8> {
    let mut input = input.to_vec();
    for message in messages {
        let StartLine::Request { method, target, .. } = &message.line else { continue };
        if is_odd(target) {
            let empty = input[message.start..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
            let start = message.start + empty + method.len() + 1;
            input[start..start + target.len()].fill(b'a');
            if method != "CONNECT" {
                input[start] = b'/';
            }
        }
    }
    input
}

/// Gives the error that the connection ended with.
fn serve(pieces: Pieces, log: &Log) -> Option<String> {
    let service = service_fn(|request: Request<Incoming>| async {
        let (request::Parts { method, uri, headers, .. }, body) = request.into_parts();
        let path = uri.path_and_query().map(|path| path.as_str().to_owned());
        log.borrow_mut().push(Heard { method: method.to_string(), path, fields: lines(&headers), ..Heard::default() });
        listen(body, log).await;
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut builder = server::conn::http1::Builder::new();
    builder.half_close(true).max_headers(pieces.lines).auto_date_header(false);
    let connection = builder.serve_connection(pieces, service);
    run(connection)?.err().map(|error| format!("{error:?}"))
}

fn ask(pieces: Pieces, log: &Log, to_head: bool) -> Option<String> {
    let exchange = async {
        let mut builder = client::conn::http1::Builder::new();
        builder.max_headers(pieces.lines).allow_obsolete_multiline_headers_in_responses(true);
        let (mut sender, connection) = builder.handshake(pieces).await?;
        let mut connection = pin!(connection);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = if to_head { Method::HEAD } else { Method::GET };
        let mut listening = pin!(async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let (status, fields) = (head.status.as_u16(), lines(&head.headers));
            log.borrow_mut().push(Heard { status, fields, ..Heard::default() });
            listen(body, log).await;
            Ok(())
        });
        poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx).is_ready();
            match listening.as_mut().poll(cx) {
                Poll::Pending if ended => listening.as_mut().poll(cx),
                end => end,
            }
        })
        .await
    };
    run(exchange)?.err().map(|error: hyper::Error| format!("{error:?}"))
}

async fn listen(mut body: Incoming, log: &Log) {
    let note = |with: &mut dyn FnMut(&mut Heard)| log.borrow_mut().last_mut().map(with).unwrap_or_default();
    loop {
        match body.frame().await {
            None => return note(&mut |heard| heard.end = Some(Ok(()))),
            Some(Err(error)) => return note(&mut |heard| heard.end = Some(Err(format!("{error:?}")))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => note(&mut |heard| heard.content.extend_from_slice(&data)),
                Err(frame) => {
                    let trailers = frame.into_trailers().map_or(0, |trailers| trailers.len());
                    note(&mut |heard| heard.trailers = trailers);
                }
            },
        }
    }
}

fn lines(fields: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|(name, value)| (name.as_str().to_owned(), spaced(value.as_bytes()))).collect()
}

/// Nothing here waits for anything but its own turn; `None` where it waits for ever.
fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    (0..10_000).find_map(|_| match future.as_mut().poll(&mut cx) {
        Poll::Ready(end) => Some(end),
        Poll::Pending => None,
    })
}

/// A connection that brings the input in pieces of one size and then ends, and takes all that is written.
struct Pieces {
    /// Lines of the input: so many fields hyper is to read. The program limits trailer fields in bytes alone.
    lines: usize,
    /// Nothing comes before something is written: a response before its request would not be taken.
    is_silent: bool,
    input: Vec<u8>,
    at: usize,
    size: usize,
}

impl Read for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.is_silent {
            return Poll::Pending;
        }
        let count = self.size.min(self.input.len() - self.at).min(into.remaining());
        into.put_slice(&self.input[self.at..self.at + count]);
        self.at += count;
        Poll::Ready(Ok(()))
    }
}

impl Write for Pieces {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_silent = false;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
