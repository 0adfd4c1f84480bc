//! What the tool finds besides the proxy, served by a thread of its own: names, and services of this host that are passed
//! on. And what it did not find, counted.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use hickory_net::proto::op::Message;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime,
    sync::{Semaphore, oneshot},
    task::LocalSet,
    time::{Instant, timeout},
};

use crate::{
    connect::{dial::dial, resolve::search_domains},
    message::authority::Host,
    route::table::Routes,
};

use super::{
    ServiceSockets,
    dns::{Asked, Known, NameService, answer, question},
    observe::{Attempt, LENGTH, refused},
};

/// What an isolated tool tried in vain.
#[derive(Debug, Default)]
pub struct Report {
    /// Connections and datagrams to ports that nobody has, and how many.
    pub refused: BTreeMap<Attempt, u64>,
    /// Names that were asked for and that no setting allows.
    pub denied: BTreeSet<String>,
    /// Names that are allowed and could not be resolved, and why.
    pub unresolved: BTreeMap<String, String>,
    /// The name that an address was the answer for.
    pub names: HashMap<IpAddr, String>,
    /// Attempts and questions that are neither in `refused` nor in `denied` nor in `unresolved`, which are full.
    pub unlisted: u64,
    /// Names that were found.
    found: BTreeSet<String>,
}

/// More different ones are not told apart: the tool chooses them.
const MOST: usize = 64;

impl Report {
    /// The name that the tool knows an attempt's address by, with the port; the address where it has none.
    pub fn name_of(&self, address: SocketAddr) -> String {
        match self.names.get(&address.ip()) {
            Some(name) => format!("{name}:{}", address.port()),
            None => address.to_string(),
        }
    }

    fn note_attempt(&mut self, attempt: Attempt) {
        if self.refused.len() < MOST || self.refused.contains_key(&attempt) {
            *self.refused.entry(attempt).or_default() += 1;
        } else {
            self.unlisted += 1;
        }
    }

    fn note_name(&mut self, host: &Host, known: &Known) {
        let name = host.to_string();
        match known {
            Known::Addresses(addresses) => {
                if self.found.len() < 16 * MOST {
                    self.found.insert(name.clone());
                }
                for address in addresses.iter().filter(|address| !address.is_loopback() || name != "localhost") {
                    if self.names.len() < 16 * MOST {
                        self.names.insert(*address, name.clone());
                    }
                }
            }
            Known::NotAllowed if self.denied.len() < MOST || self.denied.contains(&name) => {
                self.denied.insert(name);
            }
            Known::Unresolved { why, .. } if self.unresolved.len() < MOST || self.unresolved.contains_key(&name) => {
                self.unresolved.insert(name, why.clone());
            }
            Known::NotAllowed | Known::Unresolved { .. } => self.unlisted += 1,
        }
    }

    /// Leaves out names that a resolver made by these search domains (resolv.conf(5)), if it found the name that it was
    /// given otherwise.
    fn without_searched(mut self, domains: &[String]) -> Self {
        let found = std::mem::take(&mut self.found);
        let is_found = |given: &str| {
            found.contains(given) || domains.iter().any(|domain| found.contains(&format!("{given}.{domain}")))
        };
        let given = |name: &str, domain: &str| Some(name.strip_suffix(domain)?.strip_suffix('.')?.to_owned());
        let is_searched =
            |name: &str| domains.iter().filter_map(|domain| given(name, domain)).any(|given| is_found(&given));
        self.denied.retain(|name| !is_searched(name));
        self.unresolved.retain(|name, _| !is_searched(name));
        self
    }
}

/// The running thread.
#[derive(Debug)]
pub struct Watch {
    report: Arc<Mutex<Report>>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Serves from now on. `routes`: by which settings names are allowed at the time.
    ///
    /// # Errors
    /// The system's.
    pub fn start(sockets: ServiceSockets, routes: impl Fn() -> Arc<Routes> + Send + 'static) -> io::Result<Self> {
        let report = Arc::<Mutex<Report>>::default();
        let (stop, stopped) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = report.clone();
        let serve = move || {
            let local = LocalSet::new();
            let serve = serve(sockets, Rc::new(routes), shared, stopped);
            if let Err(error) = runtime.block_on(local.run_until(serve)) {
                tracing::error!(%error, "names are not answered inside the namespace");
            }
        };
        let thread = thread::Builder::new().name("isolate".into()).spawn(serve)?;
        Ok(Self { report, stop, thread })
    }

    /// Stops, once all refusals so far are counted.
    pub fn finish(self) -> Report {
        // It may have failed, which it has logged.
        let _ = self.stop.send(());
        let _ = self.thread.join();
        std::mem::take(&mut *lock(&self.report)).without_searched(&search_domains())
    }
}

fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What every task needs.
struct Shared<R> {
    names: RefCell<NameService>,
    routes: Rc<R>,
    report: Arc<Mutex<Report>>,
    /// Questions under way.
    permits: Semaphore,
}

/// A tool that asks more at a time waits.
const MOST_QUESTIONS: usize = 64;

async fn serve<R: Fn() -> Arc<Routes> + 'static>(
    sockets: ServiceSockets,
    routes: Rc<R>,
    report: Arc<Mutex<Report>>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let names = RefCell::default();
    let shared = Rc::new(Shared { names, routes, report, permits: Semaphore::new(MOST_QUESTIONS) });
    let ServiceSockets { passed, names, questions, observers } = sockets;
    for socket in questions {
        socket.set_nonblocking(true)?;
        tokio::task::spawn_local(answer_datagrams(Rc::new(UdpSocket::from_std(socket)?), shared.clone()));
    }
    names.set_nonblocking(true)?;
    tokio::task::spawn_local(answer_streams(TcpListener::from_std(names)?, shared.clone()));
    for (listener, to) in passed {
        listener.set_nonblocking(true)?;
        tokio::task::spawn_local(pass(TcpListener::from_std(listener)?, to));
    }
    let register = |socket| io::Result::Ok(Rc::new(UdpSocket::from_std(socket)?));
    let observers = observers.into_iter().map(register).collect::<io::Result<Vec<_>>>()?;
    for observer in &observers {
        tokio::task::spawn_local(observe(observer.clone(), shared.report.clone()));
    }
    let _ = stopped.await;
    for observer in &observers {
        count(observer, &shared.report);
    }
    Ok(())
}

async fn observe(socket: Rc<UdpSocket>, report: Arc<Mutex<Report>>) {
    while socket.readable().await.is_ok() {
        count(&socket, &report);
    }
}

/// Counts the refusals that were seen so far.
fn count(socket: &UdpSocket, report: &Mutex<Report>) {
    let protocol = SockRef::from(socket).protocol().ok().flatten();
    let mut packet = [0; LENGTH];
    while let Ok((length, from)) = socket.try_recv_from(&mut packet) {
        if let Some(attempt) = refused(protocol, from.ip(), &packet[..length]) {
            lock(report).note_attempt(attempt);
        }
    }
}

impl<R: Fn() -> Arc<Routes>> Shared<R> {
    /// The reply to a message, if it deserves one.
    async fn reply(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let (message, query, host) = match question(bytes) {
            Asked::For(message, query, host) => (message, query, host),
            Asked::Other(reply) => return encoded(&reply),
            Asked::Nothing => return None,
        };
        let _permit = self.permits.acquire().await.ok()?;
        let routes = (self.routes)();
        let known = NameService::look_up(&self.names, &host, &routes).await;
        lock(&self.report).note_name(&host, &known);
        encoded(&answer(&message, &query, &known))
    }
}

fn encoded(message: &Message) -> Option<Vec<u8>> {
    message.to_vec().ok()
}

async fn answer_datagrams<R: Fn() -> Arc<Routes> + 'static>(socket: Rc<UdpSocket>, shared: Rc<Shared<R>>) {
    let mut bytes = [0; 4096];
    loop {
        // An error is about a client that is gone.
        let Ok((length, client)) = socket.recv_from(&mut bytes).await else { continue };
        let (question, socket, shared) = (bytes[..length].to_vec(), socket.clone(), shared.clone());
        tokio::task::spawn_local(async move {
            if let Some(reply) = shared.reply(&question).await {
                let _ = socket.send_to(&reply, client).await;
            }
        });
    }
}

/// For how long a client of TCP may be silent (RFC 7766 section 6.2.3 recommends a few seconds).
const SILENCE: Duration = Duration::from_secs(10);

async fn answer_streams<R: Fn() -> Arc<Routes> + 'static>(listener: TcpListener, shared: Rc<Shared<R>>) {
    while let Some(client) = accept(&listener).await {
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            // It ends when its client is gone.
            let _ = answer_stream(client, &shared).await;
        });
    }
}

/// Messages have their length in front (RFC 1035 section 4.2.2).
async fn answer_stream<R: Fn() -> Arc<Routes>>(mut client: TcpStream, shared: &Shared<R>) -> io::Result<()> {
    loop {
        let length = timeout(SILENCE, client.read_u16()).await??;
        let mut question = vec![0; length.into()];
        timeout(SILENCE, client.read_exact(&mut question)).await??;
        let Some(reply) = shared.reply(&question).await else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        client.write_all(&[&length.to_be_bytes(), reply.as_slice()].concat()).await?;
    }
}

/// Out of descriptors or memory, accepting waits this long before it tries again.
const BACK_OFF: Duration = Duration::from_millis(50);

async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    loop {
        match listener.accept().await {
            Ok((client, _)) => return Some(client),
            Err(_) => tokio::time::sleep(BACK_OFF).await,
        }
    }
}

/// Carries connections to a service of this host, as they are.
async fn pass(listener: TcpListener, to: SocketAddr) {
    const LIMIT: Duration = Duration::from_secs(10);
    while let Some(mut client) = accept(&listener).await {
        tokio::task::spawn_local(async move {
            // What is cut ends by RST.
            let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
            match dial(&[to], Instant::now() + LIMIT, LIMIT).await {
                Ok((mut service, _)) => {
                    if copy_bidirectional(&mut client, &mut service).await.is_ok() {
                        let _ = SockRef::from(&client).set_linger(None);
                    }
                }
                Err(error) => tracing::warn!(%error, %to, "a service that is passed to the tool cannot be reached"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_search_list_made_of_a_name_that_was_found_is_no_refusal() {
        let mut report = Report::default();
        let found = Known::Addresses(vec![[192, 0, 2, 1].into()]);
        for (name, known) in [
            ("glance-a.example.ns.svc", &Known::NotAllowed),
            ("glance-a.example.svc", &Known::NotAllowed),
            ("glance-a.example", &found),
            ("keystone.ns.svc", &Known::NotAllowed),
            ("keystone.svc", &found),
            ("db.svc", &Known::NotAllowed),
            ("other.glance-a.example", &Known::NotAllowed),
        ] {
            report.note_name(&name.parse().unwrap(), known);
        }
        let report = report.without_searched(&["ns.svc", "svc"].map(str::to_owned));
        assert_eq!(report.denied.into_iter().collect::<Vec<_>>(), ["db.svc", "other.glance-a.example"]);
    }
}
