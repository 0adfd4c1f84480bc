//! A name server on loopback that answers as a test says, and a place of its own for the proxy in which
//! `/etc/resolv.conf` leads to it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tokio::net::UdpSocket;

/// What the server says of every name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has these addresses, which may be kept for no time.
    Addresses(Vec<Ipv4Addr>),
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// The server failed (SERVFAIL).
    Failure,
    /// Nothing.
    Silence,
}

/// A running name server.
pub struct NameServer {
    says: Arc<Mutex<Answer>>,
    files: TempDir,
}

impl NameServer {
    /// A server on the name port, which is all that `/etc/resolv.conf` can name, of a loopback address that
    /// nobody else uses.
    pub async fn start(answer: Answer) -> Self {
        let socket = bound().await;
        let ip = socket.local_addr().unwrap().ip();
        let files = super::dir();
        std::fs::write(files.path().join("hosts"), "127.0.0.1 localhost\n").unwrap();
        std::fs::write(files.path().join("resolv.conf"), format!("nameserver {ip}\n")).unwrap();
        let says = Arc::new(Mutex::new(answer));
        let saying = says.clone();
        tokio::spawn(async move {
            let mut space = [0; 1500];
            while let Ok((count, from)) = socket.recv_from(&mut space).await {
                let answer = saying.lock().unwrap().clone();
                if let Some(reply) = reply(&space[..count], &answer) {
                    let _ = socket.send_to(&reply, from).await;
                }
            }
        });
        Self { says, files }
    }

    /// What it says from now on.
    pub fn say(&self, answer: Answer) {
        *self.says.lock().unwrap() = answer;
    }

    /// What to put before a command so that it asks this server: a mount namespace of its own, in which other
    /// files lie over `/etc/hosts` and `/etc/resolv.conf`.
    pub fn wrapper(&self) -> Vec<String> {
        let file = |name: &str| -> PathBuf { self.files.path().join(name) };
        let script = format!(
            "mount --bind {} /etc/hosts && mount --bind {} /etc/resolv.conf && exec \"$@\"",
            file("hosts").display(),
            file("resolv.conf").display()
        );
        ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }
}

async fn bound() -> UdpSocket {
    let seed = std::process::id();
    for n in 0..100_u32 {
        let number = seed.wrapping_mul(31).wrapping_add(n.wrapping_mul(7919));
        let ip = Ipv4Addr::new(127, 53, (number >> 8) as u8, number as u8 | 1);
        match UdpSocket::bind(SocketAddr::from((ip, 53))).await {
            Ok(socket) => return socket,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                panic!("{error}\n  hint: a name server on port 53, and files over those in /etc, take root")
            }
            Err(_) => {}
        }
    }
    panic!("no free address for a name server");
}

/// RFC 1035 section 4: the head, the question as it came, and an address record for each address.
fn reply(query: &[u8], answer: &Answer) -> Option<Vec<u8>> {
    let name = query.get(12..)?;
    let question = name.iter().position(|byte| *byte == 0)? + 5;
    let question = name.get(..question)?;
    let for_ipv4 = question.ends_with(&[0, 1, 0, 1]);
    let (code, addresses) = match answer {
        Answer::Addresses(addresses) if for_ipv4 => (0, addresses.as_slice()),
        Answer::Addresses(_) => (0, &[][..]),
        Answer::NoSuchName => (3, &[][..]),
        Answer::Failure => (2, &[][..]),
        Answer::Silence => return None,
    };
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    reply.extend(question);
    for address in addresses {
        // The name of the question; an address of the internet; to be kept for no time.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        reply.extend(address.octets());
    }
    Some(reply)
}
