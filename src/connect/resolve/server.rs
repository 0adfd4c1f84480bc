//! One name server: a question, and what it says. Messages, retransmission and TCP are hickory's work.
//!
//! Nothing outlives a question: what is still being asked when a lookup ends is dropped with it.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use hickory_net::{
    DnsHandle as _, NetError,
    proto::{
        op::{DnsRequest, DnsRequestOptions, DnsResponse, Query},
        rr::{Name, RData, RecordType},
    },
    runtime::{DnsUdpSocket, RuntimeProvider, TokioRuntimeProvider, TokioTime},
    tcp::TcpClientStream,
    udp::UdpClientStream,
    xfer::{DnsRequestSender as _, FirstAnswer as _},
};
use resolv_conf::ScopedIp;
use tokio::{
    io::{Interest, ReadBuf},
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use super::failure::Reply;

/// Bytes of a message's header (RFC 1035 section 4.1.1).
const HEADER: usize = 12;

/// The name service's port; `/etc/resolv.conf` cannot name another one.
const PORT: u16 = 53;

/// A name server as `/etc/resolv.conf` names it.
#[derive(Clone, Debug)]
pub(super) struct NameServer {
    address: ScopedIp,
    tcp_only: bool,
}

impl NameServer {
    /// The server at an address. A link-local one has a zone: an interface, by name or number.
    pub(super) fn new(address: ScopedIp, tcp_only: bool) -> Self {
        Self { address, tcp_only }
    }

    /// Its address and port, unless it is link-local with a zone.
    pub(super) fn global_address(&self) -> Option<SocketAddr> {
        match &self.address {
            ScopedIp::V6(_, Some(_)) => None,
            address => Some(SocketAddr::new(IpAddr::from(address), PORT)),
        }
    }

    /// Its address, for people.
    pub(super) fn name(&self) -> String {
        self.address.to_string()
    }

    /// The addresses among its records of one type, or what it says instead, under its name.
    pub(super) async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        deadline: Instant,
    ) -> Result<Vec<IpAddr>, (String, Reply)> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let reply = match timeout_at(deadline, self.exchange(name, kind, limit)).await {
            Ok(Ok(response)) => addresses(&response, name),
            Ok(Err(error)) => Err(Reply::of(&error)),
            Err(_) => Err(Reply::Silence),
        };
        reply.map_err(|reply| (self.name(), reply))
    }

    /// By UDP, and again by TCP where the answer does not fit into a datagram (RFC 7766 section 5).
    async fn exchange(&self, name: &Name, kind: RecordType, limit: Duration) -> Result<DnsResponse, NetError> {
        let server = SocketAddr::new(IpAddr::from(&self.address), PORT);
        let sockets = Sockets { tokio: TokioRuntimeProvider::default(), zone: zone(&self.address) };
        let mut options = DnsRequestOptions::default();
        // As glibc asks: some old servers do not know EDNS.
        options.use_edns = false;
        let request = DnsRequest::from_query(Query::query(name.clone(), kind), options);
        if !self.tcp_only {
            let mut udp = UdpClientStream::builder(server, sockets.clone()).with_timeout(Some(limit)).build();
            let response = udp.send_message(request.clone()).first_answer().await?;
            if !response.truncation {
                return Ok(response);
            }
        }
        // A clone: with the last one the task that reads and writes is dropped.
        let tcp = TcpClientStream::exchange(server, None, limit, None, sockets.clone()).await?;
        tcp.send(request).first_answer().await
    }
}

/// The addresses of the name that was asked for, or of the one at the end of its aliases. Others are left out.
fn addresses(response: &DnsResponse, name: &Name) -> Result<Vec<IpAddr>, Reply> {
    let mut owner = name;
    // Each step uses up an alias, so that a circle ends.
    for _ in &response.answers {
        let alias = response.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *owner => Some(&target.0),
            _ => None,
        });
        let Some(target) = alias else { break };
        owner = target;
    }
    let own = response.answers.iter().filter(|record| record.name == *owner);
    let found: Vec<_> = own.filter_map(|record| record.data.ip_addr()).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    // A referral: it knows somebody who knows, and does not ask for us.
    let helps = response.recursion_available || response.authoritative || !response.answers.is_empty();
    Err(Reply::without_address(response.response_code, helps))
}

/// The number of the interface that an address is bound to; 0 where it has no zone, or one that is not there.
fn zone(address: &ScopedIp) -> u32 {
    let ScopedIp::V6(_, Some(zone)) = address else { return 0 };
    let index = || fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok()?.trim().parse().ok();
    zone.parse().ok().or_else(index).unwrap_or(0)
}

/// Sockets to one name server. Those for UDP are connected, unlike tokio's: only so does the system tell that nobody
/// listens there (ICMP port unreachable), which would be taken for silence.
#[derive(Clone)]
struct Sockets {
    tokio: TokioRuntimeProvider,
    zone: u32,
}

impl Sockets {
    fn in_zone(&self, server: SocketAddr) -> SocketAddr {
        match server {
            SocketAddr::V6(mut server) => {
                server.set_scope_id(self.zone);
                SocketAddr::V6(server)
            }
            server => server,
        }
    }
}

impl RuntimeProvider for Sockets {
    type Handle = <TokioRuntimeProvider as RuntimeProvider>::Handle;
    type Timer = TokioTime;
    type Udp = ConnectedUdp;
    type Tcp = <TokioRuntimeProvider as RuntimeProvider>::Tcp;

    fn create_handle(&self) -> Self::Handle {
        self.tokio.create_handle()
    }

    fn connect_tcp(
        &self,
        server: SocketAddr,
        bind: Option<SocketAddr>,
        limit: Option<Duration>,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Tcp>>>> {
        self.tokio.connect_tcp(self.in_zone(server), bind, limit)
    }

    fn bind_udp(
        &self,
        local: SocketAddr,
        server: SocketAddr,
    ) -> Pin<Box<dyn Send + Future<Output = io::Result<Self::Udp>>>> {
        let to = self.in_zone(server);
        Box::pin(async move {
            let socket = UdpSocket::bind(local).await?;
            socket.connect(to).await?;
            Ok(ConnectedUdp { socket, server })
        })
    }
}

/// A UDP socket that takes datagrams from its name server alone.
struct ConnectedUdp {
    socket: UdpSocket,
    server: SocketAddr,
}

/// In the form in which `async_trait` has it.
type Received<'a> = Pin<Box<dyn Future<Output = io::Result<(usize, SocketAddr)>> + Send + 'a>>;

impl ConnectedUdp {
    /// What the system tells about datagrams that did not arrive.
    async fn error(&self) -> io::Error {
        let pending = || match self.socket.take_error() {
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            error => error,
        };
        match self.socket.async_io(Interest::ERROR, pending).await {
            Ok(Some(error)) | Err(error) => error,
            Ok(None) => io::ErrorKind::Other.into(),
        }
    }
}

impl DnsUdpSocket for ConnectedUdp {
    type Time = TokioTime;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.socket.poll_recv(cx, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().len(), self.server)))
    }

    /// As [`Self::poll_recv_from`], which is not woken by an error.
    fn recv_from<'a, 'b, 'c>(&'a self, buffer: &'b mut [u8]) -> Received<'c>
    where
        'a: 'c,
        'b: 'c,
    {
        Box::pin(async move {
            let count = tokio::select! {
                received = self.socket.recv(buffer) => received?,
                error = self.error() => return Err(error),
            };
            // hickory would wait for another answer until the end. The sender is the name server: the socket is connected.
            if count < HEADER { Err(io::ErrorKind::InvalidData.into()) } else { Ok((count, self.server)) }
        })
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, datagram: &[u8], _: SocketAddr) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, datagram)
    }
}
