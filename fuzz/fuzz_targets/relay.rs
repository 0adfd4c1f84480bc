//! Two clients of one worker, whose connections share buffers: each gets back what it sent itself, all of it and in
//! order, however its bytes are cut, whatever the other one does meanwhile, and however slowly it reads.
//!
//! Every byte of a client is a canary: one client sends lower case and digits only, the other one upper case and digits.
//! The input is a list of moves, of two bytes each: which client, what it does, and how much.

#![no_main]

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream as Socket,
};

use libfuzzer_sys::fuzz_target;
use tokio::{
    net::UnixStream,
    runtime::{Builder, Runtime},
    task::{LocalSet, yield_now},
};
use vouchsafe::{
    buffer::BufferPool,
    http1::{
        body::BodyDecoder,
        conn::{Connection, NoHead},
        head::HeadLimits,
    },
    transport::Transport,
};

const LIMITS: HeadLimits = HeadLimits { bytes: 8 * 1024, fields: 100 };

/// More than a piece, so that a body takes several.
const LARGEST_BODY: usize = 200 * 1024;

/// As many bytes are read or written at a time, at most.
const MOST: usize = 48 * 1024;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
}

fuzz_target!(|input: &[u8]| {
    RUNTIME.with(|runtime| LocalSet::new().block_on(runtime, play(input)));
});

/// What a client does.
struct Client {
    socket: Socket,
    /// The letter that its bodies begin with.
    first: u8,
    requests: usize,
    /// What it has not written yet.
    unsent: VecDeque<u8>,
    /// What it has to get.
    expected: VecDeque<u8>,
}

async fn play(moves: &[u8]) {
    let buffers = BufferPool::default();
    let mut served = Vec::new();
    let mut clients = [b'a', b'A'].map(|first| {
        let (socket, other) = Socket::pair().expect("two sockets");
        for socket in [&socket, &other] {
            socket.set_nonblocking(true).expect("a socket");
        }
        let transport = Transport::unix(UnixStream::from_std(other).expect("a socket"));
        served.push(tokio::task::spawn_local(serve(Connection::new(transport, buffers.clone()))));
        Client { socket, first, requests: 0, unsent: VecDeque::new(), expected: VecDeque::new() }
    });
    for pair in moves.chunks_exact(2) {
        let client = &mut clients[usize::from(pair[0] & 1)];
        let size = usize::from(pair[1]);
        match pair[0] >> 1 & 3 {
            0 => client.ask(size * size * LARGEST_BODY / (255 * 255), pair[0] >> 3),
            1 => client.write(size * MOST / 255 + 1),
            2 => client.read(size * MOST / 255 + 1),
            _ => {}
        }
        yield_now().await;
    }
    // Both to their end.
    while clients.iter().any(|client| !client.expected.is_empty()) {
        for client in &mut clients {
            client.write(usize::MAX);
            client.read(usize::MAX);
        }
        yield_now().await;
    }
    drop(clients);
    for served in served {
        served.await.expect("served");
    }
}

impl Client {
    /// Adds a request, with a body of this size. `kind` says how it is sent.
    fn ask(&mut self, size: usize, kind: u8) {
        self.requests += 1;
        let target = format!("/{}{}", char::from(self.first), self.requests);
        let content: Vec<u8> = (0..size).map(|at| self.canary(at)).collect();
        let head = format!("PUT {target} HTTP/1.1\r\nHost: {}\r\n", char::from(self.first));
        let (framing, body) = match kind % 3 {
            0 => (format!("Content-Length: {size}\r\n\r\n"), content),
            1 => ("Transfer-Encoding: chunked\r\n\r\n".to_owned(), chunks(&content, usize::from(kind) * 997 + 1)),
            // Heads alone, several of them in one read.
            _ => ("\r\n".to_owned(), Vec::new()),
        };
        self.unsent.extend(head.bytes().chain(framing.bytes()).chain(body.iter().copied()));
        self.expected.extend(target.bytes().chain(body));
    }

    fn canary(&self, at: usize) -> u8 {
        match (at + self.requests) % 36 {
            letter @ ..26 => self.first + letter as u8,
            digit => b'0' + (digit - 26) as u8,
        }
    }

    fn write(&mut self, most: usize) {
        let bytes = self.unsent.make_contiguous();
        let most = most.min(bytes.len());
        match self.socket.write(&bytes[..most]) {
            Ok(count) => drop(self.unsent.drain(..count)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }

    fn read(&mut self, most: usize) {
        let mut bytes = vec![0; most.min(MOST)];
        match self.socket.read(&mut bytes) {
            Ok(count) => {
                let expected: Vec<u8> = self.expected.drain(..count.min(self.expected.len())).collect();
                assert!(count > 0 && bytes[..count] == expected, "not what this client has sent");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
    }
}

fn chunks(content: &[u8], size: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in content.chunks(size) {
        body.extend(format!("{:x}\r\n", chunk.len()).bytes().chain(chunk.iter().copied()).chain(*b"\r\n"));
    }
    body.extend(b"0\r\n\r\n");
    body
}

/// Answers each request with its target and its body, as an exchange passes them on.
async fn serve(mut client: Connection) {
    loop {
        let head = match poll_fn(|cx| client.poll_head(cx, LIMITS)).await {
            Ok(head) => head,
            Err(NoHead::Closed | NoHead::Broken(_)) => return,
            Err(error @ NoHead::Bad(_)) => panic!("{error}"),
        };
        client.outbox().extend_from_slice(head.target());
        let mut decoder = BodyDecoder::new(head.length);
        while !decoder.is_done() {
            let mut piece = client.buffers().take();
            let read = poll_fn(|cx| client.poll_body(cx, &mut piece)).await;
            if !matches!(read, Ok(1..)) {
                return;
            }
            let decoded = decoder.decode(&piece).expect("a body");
            let mut sent = 0;
            while sent < decoded.pass || client.unsent() > 0 {
                match poll_fn(|cx| client.poll_send(cx, &piece[sent..decoded.pass])).await {
                    Ok(count) => sent += count,
                    Err(_) => return,
                }
            }
            client.outbox().extend_from_slice(&decoded.instead);
            client.unread(&piece[decoded.pass + decoded.consumed..]);
            client.buffers().give(piece);
        }
        while client.unsent() > 0 {
            if poll_fn(|cx| client.poll_send(cx, &[])).await.is_err() {
                return;
            }
        }
    }
}
