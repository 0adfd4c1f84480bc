//! A small v1 image server behind TLS. It answers as Glance 15 was seen to answer, down to the
//! spelling of its field names, and it can break off in the middle of an image.
//!
//! What it promises to the tests: every byte that arrives inside TLS is counted before it is looked
//! at, and an upload is recorded only when all of its body has come.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use certs_dev::{Counters, Identity};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// One image: its metadata as `/v1/images/detail` shows it, and its data.
#[derive(Clone, Debug)]
pub struct Image {
    pub meta: Map<String, Value>,
    pub data: Vec<u8>,
}

impl Image {
    /// An active image as Glance 15 describes it when nobody owns it: some of its fields are null.
    pub fn new(number: u32, name: &str, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        let meta = json!({
            "status": "active", "deleted_at": null, "name": name, "deleted": false,
            "container_format": "bare", "created_at": "2017-08-30T10:00:00.000000",
            "disk_format": "raw", "updated_at": "2017-08-30T10:00:01.000000", "min_disk": 0,
            "protected": false, "id": id(number), "min_ram": 0, "checksum": checksum(&data),
            "owner": null, "is_public": true, "virtual_size": null,
            "properties": { "os_distro": "lab" }, "size": data.len(),
        });
        let Value::Object(meta) = meta else { unreachable!("it is written as an object") };
        Self { meta, data }
    }

    /// The same image with an owner and a virtual size, as a cloud with Keystone has it.
    pub fn owned(mut self) -> Self {
        self.meta.insert("owner".into(), json!("c0ffee"));
        self.meta.insert("virtual_size".into(), json!(1 << 20));
        self
    }

    /// The same image with another value in one field.
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.meta.insert(field.into(), value.into());
        self
    }

    pub fn id(&self) -> &str {
        self.meta["id"].as_str().unwrap_or_default()
    }
}

/// The image id for a number.
pub fn id(number: u32) -> String {
    format!("{number:08}-1111-4111-8111-111111111111")
}

/// How an image's body ends, in the middle of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// TLS is closed properly, but the Content-Length is not reached.
    CloseNotify,
    /// The connection is closed without TLS being closed.
    Fin,
    /// The connection is reset.
    Reset,
    /// Nothing more comes, until the other side closes.
    Stall,
}

impl Cut {
    pub const ALL: &[Self] = &[Self::CloseNotify, Self::Fin, Self::Reset, Self::Stall];
}

/// A running server. It ends when it is dropped.
pub struct ImageServer {
    address: SocketAddr,
    state: Arc<State>,
    task: AbortHandle,
}

impl ImageServer {
    /// Serves these images on a free port of 127.0.0.1.
    pub fn start(identity: &Identity, images: impl IntoIterator<Item = Image>) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), identity, images)
    }

    /// The same at an address.
    pub fn start_at(at: SocketAddr, identity: &Identity, images: impl IntoIterator<Item = Image>) -> Self {
        let images = images.into_iter().map(|image| (image.id().to_owned(), image));
        let state = Arc::new(State { images: Mutex::new(images.collect()), ..State::default() });
        let acceptor = TlsAcceptor::from(Arc::new(tls_config(identity)));
        let (address, listener) = listen(at);
        let serving = serve(listener, acceptor, Arc::clone(&state));
        Self { address, state, task: runtime().spawn(serving).abort_handle() }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Bytes of requests that arrived inside TLS.
    pub fn request_bytes(&self) -> u64 {
        self.state.request_bytes.load(Ordering::SeqCst)
    }

    /// The images that it has now, by id.
    pub fn images(&self) -> BTreeMap<String, Image> {
        lock(&self.state.images).clone()
    }

    /// The ids of images whose upload was complete, in the order in which they came.
    pub fn uploads(&self) -> Vec<String> {
        lock(&self.state.uploads).clone()
    }

    /// From now on, images end like this; with none, they come whole.
    pub fn cut(&self, cut: Option<Cut>) {
        *lock(&self.state.cut) = cut;
    }
}

impl Drop for ImageServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server for a certificate of the gallery, good or bad. Whoever gets as far as a request is told
/// that there are no images, which the replicator takes for a success: a refusal that was
/// overlooked cannot pass for one.
pub struct GalleryServer {
    address: SocketAddr,
    counters: Arc<Counters>,
    task: AbortHandle,
}

impl GalleryServer {
    pub fn start(identity: &Identity) -> Self {
        let (send, receive) = std::sync::mpsc::channel();
        let identity = identity.clone();
        let task = runtime().spawn(async move {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let server = certs_dev::Server::bind(any, &identity, r#"{"images": []}"#).await.expect("a gallery server");
            let _ = send.send((server.local_addr(), server.counters()));
            server.run().await;
        });
        let (address, counters) = receive.recv().expect("the server is bound");
        Self { address, counters, task: task.abort_handle() }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

impl Drop for GalleryServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct State {
    images: Mutex<BTreeMap<String, Image>>,
    uploads: Mutex<Vec<String>>,
    cut: Mutex<Option<Cut>>,
    request_bytes: AtomicU64,
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        // Its connections end by themselves, with their clients.
        tokio::spawn(async move {
            // A peer that leaves early is a part of many tests.
            let _ = connection(stream, &acceptor, &state).await;
        });
    }
}

async fn connection(stream: TcpStream, acceptor: &TlsAcceptor, state: &State) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer, state).await? {
        let reply = answer(&request, state);
        let cut = *lock(&state.cut);
        if let (Some(cut), true) = (cut, reply.is_image) {
            return break_off(stream, &reply, cut).await;
        }
        stream.write_all(reply.head().as_bytes()).await?;
        if request.method != "HEAD" {
            stream.write_all(&reply.body).await?;
        }
        stream.flush().await?;
    }
    stream.shutdown().await
}

async fn break_off(mut stream: TlsStream<TcpStream>, reply: &Reply, cut: Cut) -> io::Result<()> {
    stream.write_all(reply.head().as_bytes()).await?;
    stream.write_all(&reply.body[..reply.body.len() / 2]).await?;
    stream.flush().await?;
    match cut {
        Cut::CloseNotify => stream.shutdown().await,
        Cut::Fin => stream.into_inner().0.shutdown().await,
        Cut::Reset => {
            let socket = stream.into_inner().0;
            socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO))
        }
        Cut::Stall => {
            let read = stream.read(&mut [0]).await?;
            assert_eq!(read, 0, "nobody asks again before the answer is complete");
            Ok(())
        }
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    /// Field names in lower case.
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields.find_map(|(n, value)| (n == name).then_some(value.as_str()))
    }
}

/// The next request; none if the client closes in between.
async fn read_request(
    stream: &mut TlsStream<TcpStream>,
    buffer: &mut Vec<u8>,
    state: &State,
) -> io::Result<Option<Request>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if !fill(stream, buffer, state).await? {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let fields = lines.filter_map(|line| line.split_once(':'));
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        fields: fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
        body: Vec::new(),
    };
    // The replicator says how long its uploads are, and never sends chunks.
    assert_eq!(request.field("transfer-encoding"), None);
    let length = request.field("content-length").unwrap_or("0");
    let length: usize = length.parse().map_err(|_| io::ErrorKind::InvalidData)?;
    buffer.drain(..end);
    while buffer.len() < length {
        if !fill(stream, buffer, state).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    request.body = buffer.drain(..length).collect();
    Ok(Some(request))
}

async fn fill(stream: &mut TlsStream<TcpStream>, buffer: &mut Vec<u8>, state: &State) -> io::Result<bool> {
    let read = stream.read_buf(buffer).await?;
    state.request_bytes.fetch_add(read as u64, Ordering::SeqCst);
    Ok(read > 0)
}

struct Reply {
    status: &'static str,
    fields: Vec<(String, String)>,
    /// Of a HEAD, what a GET would have; it is not sent then.
    body: Vec<u8>,
    is_image: bool,
}

impl Reply {
    fn new(status: &'static str, content_type: &str, body: Vec<u8>) -> Self {
        Self {
            status,
            fields: vec![
                ("Content-Type".into(), content_type.into()),
                ("Content-Length".into(), body.len().to_string()),
            ],
            body,
            is_image: false,
        }
    }

    fn json(status: &'static str, value: &Value) -> Self {
        Self::new(status, "application/json", value.to_string().into_bytes())
    }

    fn html(status: &'static str, text: &str) -> Self {
        let page = format!("<html>\n <body>\n  <h1>{text}</h1>\n </body>\n</html>");
        Self::new(status, "text/html; charset=UTF-8", page.into_bytes())
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {}\r\n", self.status);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "X-Openstack-Request-Id: req-0\r\nDate: Wed, 30 Aug 2017 10:00:02 GMT\r\n\r\n"
    }
}

fn answer(request: &Request, state: &State) -> Reply {
    let mut images = lock(&state.images);
    let id = request.path.strip_prefix("/v1/images/").unwrap_or_default();
    match (request.method.as_str(), id) {
        ("GET", "detail") => {
            let marker = request.query.split('&').find_map(|pair| pair.strip_prefix("marker="));
            let after = images.values().filter(|image| Some(image.id()) > marker);
            // Glance shows 25 at a time, and the replicator asks until a page is empty.
            let page: Vec<_> = after.take(25).map(|image| image.meta.clone()).collect();
            Reply::json("200 OK", &json!({ "images": page }))
        }
        ("GET" | "HEAD", id) => match images.get(id) {
            Some(image) => show(image, &request.method),
            None => missing(&request.method),
        },
        ("POST", _) if request.path == "/v1/images" => {
            let image = uploaded(request);
            let id = image.id().to_owned();
            if images.contains_key(&id) {
                return Reply::html("409 Conflict", "409 Conflict");
            }
            let mut reply = Reply::json("201 Created", &json!({ "image": image.meta }));
            let host = request.field("host").unwrap_or_default();
            let location = format!("http://{host}/v1/images/{id}");
            reply.fields.push(("Location".into(), location));
            lock(&state.uploads).push(id.clone());
            images.insert(id, image);
            reply
        }
        ("PUT", id) => match images.get_mut(id) {
            Some(image) => {
                image.meta.extend(uploaded(request).meta);
                Reply::json("200 OK", &json!({ "image": image.meta }))
            }
            None => missing("PUT"),
        },
        _ => Reply::html("404 Not Found", "404 Not Found"),
    }
}

fn missing(method: &str) -> Reply {
    if method == "HEAD" {
        return Reply::new("404 Not Found", "text/plain; charset=UTF-8", Vec::new());
    }
    Reply::html("404 Not Found", "404 Not Found")
}

/// An image's data, or for HEAD its fields alone. Glance leaves out those that are null, writes
/// values as Python does, and begins each word between hyphens with a capital letter.
fn show(image: &Image, method: &str) -> Reply {
    let mut reply = match method {
        "HEAD" => Reply::new("200 OK", "text/html; charset=UTF-8", Vec::new()),
        _ => Reply::new("200 OK", "application/octet-stream", image.data.clone()),
    };
    reply.is_image = method == "GET";
    let mut say = |name: &str, value: &Value| {
        let value = match value {
            Value::Null => return,
            Value::Bool(true) => "True".to_owned(),
            Value::Bool(false) => "False".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        reply.fields.push((format!("X-Image-Meta-{}", capital(name)), value));
    };
    for (name, value) in &image.meta {
        match value {
            Value::Object(properties) => {
                for (name, value) in properties {
                    say(&format!("Property-{}", capital(name)), value);
                }
            }
            value => say(name, value),
        }
    }
    let etag = image.meta["checksum"].as_str().unwrap_or_default();
    reply.fields.push(("Etag".into(), etag.into()));
    reply
}

fn uploaded(request: &Request) -> Image {
    let mut meta = Map::new();
    let mut properties = Map::new();
    for (name, value) in &request.fields {
        if let Some(name) = name.strip_prefix("x-image-meta-property-") {
            properties.insert(name.to_owned(), json!(value));
        } else if let Some(name) = name.strip_prefix("x-image-meta-") {
            meta.insert(name.to_owned(), json!(value));
        }
    }
    meta.insert("properties".into(), Value::Object(properties));
    Image { meta, data: request.body.clone() }
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Something like a checksum: the replicator carries it about, and never computes one itself.
fn checksum(data: &[u8]) -> String {
    let sum = data
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{sum:016x}{sum:016x}")
}

fn tls_config(identity: &Identity) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider's own versions")
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .expect("an identity that is sound");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn listen(at: SocketAddr) -> (SocketAddr, TcpListener) {
    let listener = std::net::TcpListener::bind(at).expect("a free port");
    listener.set_nonblocking(true).expect("a listener for tokio");
    let address = listener.local_addr().expect("it is bound");
    let _inside = runtime().enter();
    (address, TcpListener::from_std(listener).expect("a listener"))
}

/// One thread drives all servers of this process, whichever test has started them.
fn runtime() -> &'static Handle {
    static HANDLE: OnceLock<Handle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(pending::<()>()));
        handle
    })
}

/// A test that has failed with the lock in its hands has said so already.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
