//! Images of 512 MiB, up and down, in every framing and for both versions of HTTP: they come whole, and the proxy
//! stays as small as it was, whoever is slow.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::digest::{Context, SHA256};
use certs_dev::Case;
use data_encoding::HEXLOWER;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::{
    relay_faults::proxy_to,
    support::{
        gallery::GALLERY,
        origin::acceptor,
        proxy::{PATIENCE, Proxy},
    },
};

const SMALL: u64 = 24 << 20;

/// The limit on the proxy's memory, whatever passes through it.
const MOST_KIB: u64 = 40 << 10;

/// VOUCHSAFE_TEST_BIG_MB makes the large images smaller.
fn large() -> u64 {
    std::env::var("VOUCHSAFE_TEST_BIG_MB").map_or(512, |it| it.parse().expect("a number")) << 20
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Chunked,
    Counted,
    ToTheEnd,
}
use Framing::{Chunked, Counted, ToTheEnd};

/// An image's bytes: blocks of noise, each with its number.
struct Image {
    block: Vec<u8>,
    number: u64,
    left: u64,
}

impl Image {
    fn new(length: u64) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        Self { block: (0..32 << 10).flat_map(|_| noise().to_ne_bytes()).collect(), number: 0, left: length }
    }

    fn next(&mut self) -> Option<&[u8]> {
        self.block[..8].copy_from_slice(&self.number.to_ne_bytes());
        self.number += 1;
        let count = self.left.min(self.block.len() as u64);
        self.left -= count;
        (count > 0).then(|| &self.block[..count as usize])
    }

    fn checksum(length: u64) -> String {
        let (mut image, mut sum) = (Self::new(length), Context::new(&SHA256));
        while let Some(block) = image.next() {
            sum.update(block);
        }
        HEXLOWER.encode(sum.finish().as_ref())
    }
}

/// The lines of a head, in lower case, and what came behind it.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Some((String::from_utf8(bytes).unwrap().to_ascii_lowercase(), rest));
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

fn framing_of(head: &str) -> (Framing, u64) {
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(|it| it.parse().unwrap());
    match length {
        Some(length) => (Counted, length),
        None if head.contains("\r\ntransfer-encoding: chunked\r\n") => (Chunked, 0),
        None => (ToTheEnd, 0),
    }
}

/// Reads a body as it is framed and hands on its pieces; panics where it ends short.
async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    rest: Vec<u8>,
    (framing, length): (Framing, u64),
    most: usize,
    mut piece: impl FnMut(&[u8]),
) {
    let mut space = rest;
    space.reserve(most);
    let (mut left, mut line) = (length, framing == Chunked);
    loop {
        // Chunks' own lines, and nothing else, are taken apart byte by byte.
        while line && let Some(end) = space.windows(2).skip(1).position(|window| window == b"\r\n") {
            let size = std::str::from_utf8(&space[..=end]).unwrap().trim();
            left = u64::from_str_radix(size, 16).unwrap_or_else(|_| panic!("no size of a chunk: {size:?}"));
            let behind = end + 3;
            if left == 0 {
                if space.len() < behind + 2 {
                    break;
                }
                return assert_eq!(&space[behind..], b"\r\n", "behind the last chunk");
            }
            space.drain(..behind);
            line = false;
        }
        if !line {
            let count = if framing == ToTheEnd { space.len() } else { space.len().min(left as usize) };
            piece(&space[..count]);
            space.drain(..count);
            if framing != ToTheEnd {
                left -= count as u64;
                match framing {
                    Chunked => line = left == 0,
                    _ if left == 0 => return assert!(space.is_empty(), "bytes behind the end"),
                    _ => {}
                }
            }
            if line {
                continue;
            }
        }
        let read = timeout(PATIENCE, stream.take(most as u64).read_buf(&mut space)).await.expect("it goes on");
        if read.expect("no reset") == 0 {
            return assert!(framing == ToTheEnd, "the body ends short: {framing:?}, {left} bytes");
        }
    }
}

/// Writes an image as it is to be framed, and counts; at a pace, a block when the one before has arrived.
async fn write_body<W: AsyncWrite + Unpin>(
    stream: &mut W,
    length: u64,
    framing: Framing,
    sent: &AtomicU64,
    mut pace: Option<watch::Receiver<u64>>,
) {
    let mut image = Image::new(length);
    sent.store(0, Ordering::SeqCst);
    while let Some(block) = image.next() {
        if framing == Chunked {
            stream.write_all(format!("{:x}\r\n", block.len()).as_bytes()).await.unwrap();
        }
        stream.write_all(block).await.unwrap();
        if framing == Chunked {
            stream.write_all(b"\r\n").await.unwrap();
        }
        stream.flush().await.unwrap();
        let so_far = sent.fetch_add(block.len() as u64, Ordering::SeqCst) + block.len() as u64;
        if let Some(received) = &mut pace {
            let arrived = timeout(PATIENCE, received.wait_for(|received| *received == so_far)).await;
            arrived.expect("what was sent arrives before more is sent").unwrap();
        }
    }
    if framing == Chunked {
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    }
    stream.flush().await.unwrap();
}

/// Serves images as their paths say, and answers an upload with its checksum.
struct Store {
    address: SocketAddr,
    /// Bytes of the upload under way.
    received: watch::Receiver<u64>,
    /// Bytes of the download under way.
    sent: Arc<AtomicU64>,
}

impl Store {
    async fn start() -> Self {
        let acceptor = acceptor(&GALLERY.identity(Case::Good).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (receiving, received) = watch::channel(0);
        let sent = Arc::new(AtomicU64::new(0));
        let sending = sent.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let (acceptor, receiving, sending) = (acceptor.clone(), receiving.clone(), sending.clone());
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(tcp).await.unwrap();
                    while let Some((head, rest)) = read_head(&mut stream).await {
                        match head.starts_with("put ") {
                            true => take(&mut stream, &head, rest, &receiving).await,
                            false => give(&mut stream, &head, &sending).await,
                        }
                        if head.contains(" /totheend/") {
                            return stream.shutdown().await.unwrap();
                        }
                    }
                });
            }
        });
        Self { address, received, sent }
    }
}

async fn take(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    head: &str,
    rest: Vec<u8>,
    receiving: &watch::Sender<u64>,
) {
    receiving.send_replace(0);
    let mut sum = Context::new(&SHA256);
    read_body(stream, rest, framing_of(head), 64 << 10, |piece| {
        sum.update(piece);
        receiving.send_modify(|received| *received += piece.len() as u64);
    })
    .await;
    let sum = HEXLOWER.encode(sum.finish().as_ref());
    let answer = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{sum}", sum.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
}

async fn give(stream: &mut (impl AsyncWrite + Unpin), head: &str, sending: &AtomicU64) {
    let path = head.split(' ').nth(1).unwrap();
    let (framing, length) = path[1..].split_once('/').unwrap();
    let length: u64 = length.parse().unwrap();
    let (framing, field) = match framing {
        "chunked" => (Chunked, "Transfer-Encoding: chunked".to_owned()),
        "counted" => (Counted, format!("Content-Length: {length}")),
        _ => (ToTheEnd, "Connection: close".to_owned()),
    };
    stream.write_all(format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n").as_bytes()).await.unwrap();
    write_body(stream, length, framing, sending, None).await;
}

async fn connect(proxy: &Proxy, buffer: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes).unwrap();
    }
    socket.set_nodelay(true).unwrap();
    socket.connect(proxy.addr(0)).await.unwrap()
}

/// Bytes that the kernel may hold of one TCP connection, in both its sockets (tcp(7)).
fn kernel_buffers() -> u64 {
    let most = |name: &str| -> u64 {
        let sizes = fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap();
        sizes.split_whitespace().next_back().unwrap().parse().unwrap()
    };
    most("tcp_rmem") + most("tcp_wmem")
}

/// Gets an image, a little at a time where the client is slow; gives its checksum.
async fn download(proxy: &Proxy, store: &Store, framing: Framing, length: u64, version: &str, slow: bool) -> String {
    let path = format!("/{}/{length}", format!("{framing:?}").to_ascii_lowercase());
    store.sent.store(0, Ordering::SeqCst);
    let mut client = connect(proxy, slow.then_some(4096)).await;
    let request = format!("GET {path} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let (head, rest) = read_head(&mut client).await.expect("a head");
    let expected = match (framing, version) {
        (Counted, _) => Counted,
        (_, "1.1") => Chunked,
        _ => ToTheEnd,
    };
    assert_eq!(framing_of(&head).0, expected, "{head}");
    let (mut sum, mut read) = (Context::new(&SHA256), 0);
    let most_ahead = 2 * kernel_buffers() + (4 << 20);
    read_body(&mut client, rest, framing_of(&head), if slow { 1000 } else { 256 << 10 }, |piece| {
        sum.update(piece);
        read += piece.len() as u64;
        // What is between the two is in the kernel's buffers, and hardly anything in the proxy.
        let ahead = store.sent.load(Ordering::SeqCst).saturating_sub(read);
        assert!(ahead < most_ahead, "{ahead} bytes are on their way to a client that is slow");
    })
    .await;
    assert_eq!(read, length);
    HEXLOWER.encode(sum.finish().as_ref())
}

/// Sends an image; a slow client sends a block when the one before has arrived. Gives the checksum at the store.
async fn upload(proxy: &Proxy, store: &Store, framing: Framing, length: u64, version: &str, slow: bool) -> String {
    let mut client = connect(proxy, None).await;
    let field = match framing {
        Counted => format!("Content-Length: {length}"),
        _ => "Transfer-Encoding: chunked".to_owned(),
    };
    let head = format!("PUT /image HTTP/{version}\r\nHost: a\r\nConnection: close\r\n{field}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let pace = slow.then(|| store.received.clone());
    write_body(&mut client, length, framing, &AtomicU64::new(0), pace).await;
    let (head, mut rest) = read_head(&mut client).await.expect("a head");
    assert!(head.contains(" 201 created"), "{head}");
    timeout(PATIENCE, client.read_to_end(&mut rest)).await.expect("an end").unwrap();
    String::from_utf8(rest).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_images_come_whole_and_the_proxy_stays_small() {
    let store = Store::start().await;
    let proxy = proxy_to(store.address, &[]);
    let (large, small) = (large(), SMALL);
    let sums = [large, small].map(|length| (length, Image::checksum(length)));
    let sum_of = |length: u64| &sums.iter().find(|(of, _)| *of == length).unwrap().1;
    for (framing, length, version, slow) in [
        (Counted, large, "1.0", false),
        (Chunked, large, "1.1", false),
        (ToTheEnd, large, "1.0", false),
        (Counted, small, "1.1", false),
        (Chunked, small, "1.0", false),
        (ToTheEnd, small, "1.1", false),
        (Counted, small, "1.0", true),
        (Chunked, small, "1.1", true),
        (ToTheEnd, small, "1.0", true),
    ] {
        let sum = download(&proxy, &store, framing, length, version, slow).await;
        assert_eq!(&sum, sum_of(length), "down: {framing:?}, {version}, slow: {slow}");
    }
    for (framing, length, version, slow) in [
        (Counted, large, "1.0", false),
        (Chunked, large, "1.1", false),
        (Counted, small, "1.1", false),
        (Counted, small, "1.0", true),
        (Counted, small, "1.1", true),
        (Chunked, small, "1.1", true),
    ] {
        let sum = upload(&proxy, &store, framing, length, version, slow).await;
        assert_eq!(&sum, sum_of(length), "up: {framing:?}, {version}, slow: {slow}");
    }
    let peak = proxy.peak_memory_kib();
    eprintln!("the peak after {} MiB down and {} MiB up: {peak} KiB", (3 * large) >> 20, (2 * large) >> 20);
    assert!(peak < MOST_KIB, "the proxy has grown to {peak} KiB");
}
