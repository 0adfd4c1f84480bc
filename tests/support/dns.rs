//! A name server on loopback that answers as a test says, and a mount namespace for the proxy in which
//! `/etc/hosts` and `/etc/resolv.conf` are the test's.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

/// What the server says to a question. All that can be kept may be kept for a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There are these A records, and no record of another type.
    Addresses(Vec<Ipv4Addr>),
    /// There are these AAAA records, and no record of another type.
    Ipv6(Vec<Ipv6Addr>),
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// The server failed (SERVFAIL).
    Failure,
    /// The server does not answer this client (REFUSED).
    Refusal,
    /// There are these A records, too many for a datagram: by UDP the answer is truncated and empty.
    OverTcp(Vec<Ipv4Addr>),
    /// There is this A record, of another name.
    OfAnother(Ipv4Addr),
    /// This A record is at the end of two aliases.
    Alias(Ipv4Addr),
    /// Bytes that are no DNS message.
    Garbage,
    /// Nothing.
    Silence,
}

/// The type of record that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    A,
    Aaaa,
}

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

type Rule = Box<dyn Fn(&str, Kind) -> Answer + Send>;

/// A running name server.
pub struct NameServer {
    rule: Arc<Mutex<Rule>>,
    asked: Arc<Mutex<Vec<(String, Kind, Transport)>>>,
    ip: IpAddr,
    files: TempDir,
}

impl NameServer {
    /// A server that gives this answer to every question.
    pub async fn start(answer: Answer) -> Self {
        Self::start_with(move |_, _| answer.clone()).await
    }

    /// A server on the name port, which is all that `/etc/resolv.conf` can name, of a loopback address that
    /// nobody else uses. The rule is told the name, without a dot at its end.
    pub async fn start_with(rule: impl Fn(&str, Kind) -> Answer + Send + 'static) -> Self {
        let (socket, listener) = bound().await;
        let ip = socket.local_addr().unwrap().ip();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(rule)));
        let server = Self { rule, asked: Arc::default(), ip, files: super::dir() };
        server.hosts(b"127.0.0.1 localhost\n");
        server.resolv_conf(format!("nameserver {ip}\n").as_bytes());
        let (rule, asked) = (server.rule.clone(), server.asked.clone());
        let answer = move |query: &[u8], transport| {
            let (name, kind) = question(query)?;
            let answer = rule.lock().unwrap()(&name, kind);
            asked.lock().unwrap().push((name, kind, transport));
            reply(query, kind, &answer, transport)
        };
        let by_tcp = answer.clone();
        tokio::spawn(async move {
            let mut space = [0; 1500];
            while let Ok((count, from)) = socket.recv_from(&mut space).await {
                if let Some(reply) = answer(&space[..count], Transport::Udp) {
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = by_tcp.clone();
                tokio::spawn(async move {
                    // RFC 1035 section 4.2.2: the length goes before each message.
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; length.into()];
                        if stream.read_exact(&mut query).await.is_err() {
                            return;
                        }
                        if let Some(reply) = answer(&query, Transport::Tcp) {
                            let message = [&(reply.len() as u16).to_be_bytes(), reply.as_slice()].concat();
                            let _ = stream.write_all(&message).await;
                        }
                    }
                });
            }
        });
        server
    }

    /// What it says from now on.
    pub fn say(&self, answer: Answer) {
        *self.rule.lock().unwrap() = Box::new(move |_, _| answer.clone());
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The names that it was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(name, _, _)| name.clone()).collect()
    }

    /// Whether each question came by TCP.
    pub fn was_asked_by_tcp_alone(&self) -> bool {
        let asked = self.asked.lock().unwrap();
        !asked.is_empty() && asked.iter().all(|(_, _, transport)| *transport == Transport::Tcp)
    }

    /// What is in `/etc/hosts` from now on.
    pub fn hosts(&self, text: &[u8]) {
        std::fs::write(self.file("hosts"), text).unwrap();
    }

    /// What is in `/etc/resolv.conf` from now on; at first, that this server is the one to ask.
    pub fn resolv_conf(&self, text: &[u8]) {
        std::fs::write(self.file("resolv.conf"), text).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// What to put before a command so that it asks this server: a mount namespace of its own, in which other
    /// files lie over `/etc/hosts` and `/etc/resolv.conf`.
    pub fn wrapper(&self) -> Vec<String> {
        let script = format!(
            "mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf && exec \"$@\"",
            self.file("hosts").display(),
            self.file("resolv.conf").display()
        );
        ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }
}

async fn bound() -> (UdpSocket, TcpListener) {
    let seed = std::process::id();
    for n in 0..100_u32 {
        let number = seed.wrapping_mul(31).wrapping_add(n.wrapping_mul(7919));
        let ip = Ipv4Addr::new(127, 53, (number >> 8) as u8, number as u8 | 1);
        match UdpSocket::bind(SocketAddr::from((ip, 53))).await {
            Ok(socket) => match TcpListener::bind(SocketAddr::from((ip, 53))).await {
                Ok(listener) => return (socket, listener),
                Err(_) => continue,
            },
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                panic!("{error}\n  hint: a name server on port 53, and files over those in /etc, take root")
            }
            Err(_) => {}
        }
    }
    panic!("no free address for a name server");
}

/// RFC 1035 section 4.1.2.
fn question(query: &[u8]) -> Option<(String, Kind)> {
    let mut labels = Vec::new();
    let mut rest = query.get(12..)?;
    loop {
        let (length, more) = rest.split_first()?;
        if *length == 0 {
            let kind = if more.get(..2)? == [0, 28] { Kind::Aaaa } else { Kind::A };
            return Some((labels.join("."), kind));
        }
        labels.push(String::from_utf8(more.get(..usize::from(*length))?.to_vec()).ok()?);
        rest = &more[usize::from(*length)..];
    }
}

/// RFC 1035 section 4: the head, the question as it came, and an address record for each address. Where there is none,
/// the start of authority that says how long that may be remembered (RFC 2308 section 3).
fn reply(query: &[u8], kind: Kind, answer: &Answer, transport: Transport) -> Option<Vec<u8>> {
    const DAY: [u8; 4] = 86_400_u32.to_be_bytes();
    let name = query.get(12..)?;
    let question = name.get(..name.iter().position(|byte| *byte == 0)? + 5)?;
    let of_letter = |owner: u8, record: &[u8], kind: u8| {
        // A name of one letter; its type; the internet; a day.
        let head = [1, owner, 0, 0, kind, 0, 1, 0, 1, 0x51, 0x80, 0, record.len() as u8];
        [&head[..], record].concat()
    };
    let others = match answer {
        Answer::OfAnother(ip) if kind == Kind::A => vec![of_letter(b'x', &ip.octets(), 1)],
        // In an order that no resolver may rely on.
        Answer::Alias(ip) if kind == Kind::A => {
            let first = vec![0xc0, 12, 0, 5, 0, 1, 0, 1, 0x51, 0x80, 0, 3, 1, b'y', 0];
            vec![of_letter(b'z', &ip.octets(), 1), of_letter(b'y', &[1, b'Z', 0], 5), first]
        }
        _ => Vec::new(),
    };
    let (code, records): (u8, Vec<Vec<u8>>) = match (answer, kind) {
        (Answer::Addresses(all), Kind::A) => (0, all.iter().map(|ip| ip.octets().to_vec()).collect()),
        (Answer::Ipv6(all), Kind::Aaaa) => (0, all.iter().map(|ip| ip.octets().to_vec()).collect()),
        (Answer::OverTcp(all), Kind::A) if transport == Transport::Tcp => {
            (0, all.iter().map(|ip| ip.octets().to_vec()).collect())
        }
        (Answer::Addresses(_) | Answer::Ipv6(_) | Answer::OverTcp(_) | Answer::OfAnother(_) | Answer::Alias(_), _) => {
            (0, Vec::new())
        }
        (Answer::Failure, _) => (2, Vec::new()),
        (Answer::NoSuchName, _) => (3, Vec::new()),
        (Answer::Refusal, _) => (5, Vec::new()),
        (Answer::Garbage, _) => return Some(query[..3].to_vec()),
        (Answer::Silence, _) => return None,
    };
    let authorities = u8::from(records.is_empty() && others.is_empty() && matches!(code, 0 | 3));
    let mut reply = query[..2].to_vec();
    let truncated = matches!(answer, Answer::OverTcp(_)) && transport == Transport::Udp;
    reply.extend([
        0x81 | if truncated { 2 } else { 0 },
        0x80 | code,
        0,
        1,
        0,
        (records.len() + others.len()) as u8,
        0,
        authorities,
        0,
        0,
    ]);
    reply.extend(question);
    for record in records {
        // The name of the question; its type; the internet.
        reply.extend([0xc0, 12, 0, question[question.len() - 3], 0, 1]);
        reply.extend(DAY);
        reply.extend([0, record.len() as u8]);
        reply.extend(record);
    }
    reply.extend(others.concat());
    if authorities == 1 {
        // Of the root: its servers' and its keeper's names are the root as well; serial, refresh, retry, expire, minimum.
        reply.extend([0, 0, 6, 0, 1]);
        reply.extend(DAY);
        reply.extend([0, 22, 0, 0]);
        reply.extend(DAY.repeat(5));
    }
    Some(reply)
}
