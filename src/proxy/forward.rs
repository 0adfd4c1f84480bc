//! One exchange with an upstream: send, wait within limits, repeat where that is provably harmless.

use std::{rc::Rc, time::Duration};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, EXPECT},
    request::Parts,
};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use crate::{
    connect::{
        Wire,
        error::ConnectError,
        interim::Flood,
        pool::{Link, Slot, Unanswered},
        refused_late,
    },
    message::{fields, target::Target},
};

use super::{
    Generation, HostPolicy, Proxy, ProxySettings, Way,
    access::Access,
    body::{Broken, Download, Own, Progress, ResponseBody, Upload},
    client::After,
    dress,
    failure::Failure,
    interim,
    redirects::Trail,
    tunnel::Tunnel,
};

impl Proxy {
    /// Passes a request to an upstream and its answer back.
    pub(super) async fn exchange(
        &self,
        chosen: &mut Rc<Slot<Upload>>,
        target: Target,
        way: &Way<'_>,
        request: Request<Incoming>,
        access: &mut Access,
    ) -> Result<Response<ResponseBody>, Failure> {
        let (mut head, body) = request.into_parts();
        let settings = &way.generation.settings;
        let held = way.takes_interims() && fields::expects_continue(&head.headers);
        let websocket =
            way.takes_interims() && !way.has_body && head.method == Method::GET && fields::is_websocket(&head.headers);
        undress(settings, &mut head, chosen, &target, websocket)?;
        let upload = Upload::new(body, held, settings.request_body, way.exchange.clone());
        let progress = upload.progress();
        let asked = target.authority.as_ref();
        let mut trail = Trail::begin(way, &head, &chosen.upstream);
        let choose = |generation: &Generation| self.slot(way.entry, &target, generation);
        let mut sent = self.send(chosen, head, upload, &progress, (way, &choose)).await?;
        if let Some(trail) = &mut trail {
            sent = Box::pin(self.follow(trail, sent, chosen, &progress, (way, asked), access)).await?;
        }
        let Sent { answer, link, reused, bypassed } = sent;
        let (mut head, body) = answer.into_parts();
        dress(settings, &mut head, websocket)?;
        self.keep_here(&mut head.headers, trail.as_deref(), way, asked);
        access.answered(head.status, &head.headers, link.peer(), reused);
        access.recorded_as(bypassed);
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let body = switch(way, link, access).await?;
            return Ok(Response::from_parts(head, body));
        }
        if !progress.done.get() {
            // An early answer ends the connection, since the rest of the upload is read by nobody; a client that sends
            // its next request all the same must know (RFC 9112 section 9.6).
            head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let access = std::mem::replace(access, Access::none());
        let lease = (link, chosen.clone());
        let limit = settings.response_body;
        let (client, exchange) = (way.client.clone(), way.exchange.clone());
        let download = Download::new(body, limit, client, lease, progress, access, exchange);
        Ok(Response::from_parts(head, ResponseBody::Download(Box::new(download))))
    }

    /// Sends on a kept connection if there is one, and on a new one if there is none, or if the kept one
    /// turned out dead before it said a word (RFC 9112 section 9.3.1: idempotent, or none of it sent).
    pub(super) async fn send(
        &self,
        slot: &mut Rc<Slot<Upload>>,
        head: Parts,
        upload: Upload,
        progress: &Rc<Progress>,
        (way, choose): (&Way<'_>, &Choose<'_>),
    ) -> Result<Sent, Failure> {
        let settings = &way.generation.settings;
        let idempotent = idempotent(&head.method);
        let mut request = Request::from_parts(head, upload);
        let mut bypassed = None;
        let mut kept = slot.take().await;
        loop {
            let reused = kept.is_some();
            let link = match kept.take() {
                Some(link) => link,
                None => self.open(slot, way, &mut bypassed).await?,
            };
            // The settings may have changed meanwhile; what they would refuse is not sent on.
            let Some((now, mut link)) = slot.in_force(link) else {
                *slot = match slot.now() {
                    Some(now) => now,
                    None => choose(&self.generation())?,
                };
                continue;
            };
            *slot = now;
            let spare = (reused && idempotent).then(|| copy_head(&request));
            request.body_mut().carried_by(link.wire().clone());
            let read_before = link.wire().read.get();
            let failed = match wait(&mut link, request, progress, way).await {
                Ok(answer) => return Ok(Sent { answer, link, reused, bypassed }),
                Err(Ended::Timeout) => return Err(Failure::ResponseTimeout(settings.response)),
                Err(Ended::Flood(flood)) => return Err(Failure::BadResponse(flood.to_string())),
                Err(Ended::Unanswered(failed)) => failed,
            };
            if let Some(broken) = progress.broken.get() {
                return Err(match broken {
                    Broken::Framing => Failure::ClientBody,
                    Broken::Stalled => Failure::ClientStalled,
                });
            }
            let silent = link.wire().read.get() == read_before;
            if !reused
                && silent
                && let Some(refused) = refused_late(&failed.error, link.peer())
            {
                return Err(Failure::Connect(ConnectError::Handshake(refused)));
            }
            request = match (reused, failed.unsent, spare) {
                (true, Some(unsent), _) => {
                    kept = slot.take().await;
                    unsent
                }
                (true, None, Some(spare)) if silent && progress.is_unspent() && !failed.error.is_parse() => {
                    Request::from_parts(spare, Upload::again(progress.clone(), settings.request_body))
                }
                _ if failed.error.is_parse() => {
                    return Err(Failure::BadResponse(failed.error.to_string()));
                }
                _ => return Err(Failure::UpstreamClosed(with_causes(&failed.error))),
            };
        }
    }

    /// A new connection; where its peer was refused and that is only to be reported, with the event's id.
    async fn open(
        &self,
        slot: &Slot<Upload>,
        way: &Way<'_>,
        bypassed: &mut Option<String>,
    ) -> Result<Link<Upload>, Failure> {
        let stream = self.connector.connect(&slot.upstream).await.map_err(Failure::Connect)?;
        if let Some(refused) = stream.bypassed() {
            let id = bypassed.insert(self.ids.next());
            self.record_handshake(&refused, slot, way, id);
        }
        let settings = &way.generation.settings;
        Link::open(stream, settings.response_limits, longest_patience(settings))
            .await
            .map_err(|error| Failure::UpstreamClosed(error.to_string()))
    }
}

/// Chooses the upstream again, where the settings changed meanwhile and the one chosen is not there any more.
type Choose<'a> = dyn Fn(&Generation) -> Result<Rc<Slot<Upload>>, Failure> + 'a;

/// An answer, and the connection that it came by.
pub(super) struct Sent {
    pub(super) answer: Response<Incoming>,
    pub(super) link: Link<Upload>,
    reused: bool,
    /// The event's id, where the peer was refused and that was only reported.
    pub(super) bypassed: Option<String>,
}

/// Makes the client's request head one for the upstream.
fn undress(
    settings: &ProxySettings,
    head: &mut Parts,
    slot: &Slot<Upload>,
    target: &Target,
    websocket: bool,
) -> Result<(), Failure> {
    let received = head.version;
    if received == Version::HTTP_10 {
        // RFC 9110 section 10.1.1: it has no meaning there, and would have one to the upstream.
        fields::remove(&mut head.headers, |name| *name == EXPECT);
    }
    fields::strip_request(&mut head.headers, websocket);
    let host = match (settings.host, &target.authority) {
        (HostPolicy::Client, Some(authority)) => HeaderValue::try_from(authority.to_string()).ok(),
        _ => slot.host.clone(),
    };
    let host = host.ok_or(Failure::NoDestination)?;
    fields::set_host(&mut head.headers, host);
    settings.pseudonym.append_via(&mut head.headers, received);
    head.uri = target.origin_uri();
    head.version = http::Version::HTTP_11;
    Ok(())
}

/// Behind a response that switches protocols the connection is handed on as it is.
async fn switch(way: &Way<'_>, link: Link<Upload>, access: &mut Access) -> Result<ResponseBody, Failure> {
    let (upstream, read) =
        link.switched().await.ok_or_else(|| Failure::UpstreamClosed("it broke while it switched protocols".into()))?;
    let access = std::mem::replace(access, Access::none());
    let (limit, client) = (way.generation.settings.tunnel, way.client.clone());
    way.client.goes_on(After::Tunnel(Box::new(Tunnel { upstream, read, limit, client, access })));
    Ok(ResponseBody::Own(Own::new(String::new(), Access::none(), way.exchange.clone())))
}

/// Waits for the head of the response, for as long as the upload moves and then for the limit. What comes before it
/// is passed on as it comes.
async fn wait(
    link: &mut Link<Upload>,
    request: Request<Upload>,
    progress: &Progress,
    way: &Way<'_>,
) -> Result<Response<Incoming>, Ended> {
    let settings = &way.generation.settings;
    progress.moved.set(Instant::now());
    let mut written = link.wire().written.get();
    let mut agreed_by = progress.is_held().then(|| Instant::now() + AGREEMENT);
    let mut abandoned = Abandoned(Some((link.wire().clone(), progress)));
    let answer = link.send(request);
    tokio::pin!(answer);
    loop {
        let limit = progress.moved.get() + patience(settings, progress);
        tokio::select! {
            biased;
            came = link.interim() => {
                let came = came.map_err(Ended::Flood)?;
                if came.status == StatusCode::CONTINUE {
                    progress.release();
                    agreed_by = None;
                }
                progress.moved.set(Instant::now());
                // The word that was said in its place is not said again when it comes late.
                let said = came.status == StatusCode::CONTINUE && progress.said_for_it.take();
                if way.takes_interims() && !said {
                    say_first(way, &interim::written(came, settings)).await;
                }
            }
            end = &mut answer => {
                abandoned.0 = None;
                return end.map_err(|failed| Ended::Unanswered(Box::new(failed)));
            }
            () = sleep_until(agreed_by.map_or(limit, |by| by.min(limit))) => {
                if agreed_by.take_if(|by| by.elapsed() > Duration::ZERO).is_some() {
                    progress.release();
                    progress.moved.set(Instant::now());
                    progress.said_for_it.set(true);
                    say_first(way, interim::GO_ON).await;
                } else if std::mem::replace(&mut written, link.wire().written.get()) != link.wire().written.get() {
                    // A piece of it takes long, and moves.
                    progress.moved.set(Instant::now());
                } else if progress.moved.get().elapsed() >= patience(settings, progress) {
                    return Err(Ended::Timeout);
                }
            }
        }
    }
}

/// An upload that nobody waits for any more does not come to its end, whether or not the upstream reads it.
struct Abandoned<'a>(Option<(Rc<Wire>, &'a Progress)>);

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if let Some((wire, progress)) = &self.0
            && !progress.done.get()
        {
            wire.abort.set(true);
        }
    }
}

/// How long an upstream may take to say whether it wants a body that a client holds back. Many never say so, and
/// many clients do not wait for longer themselves.
const AGREEMENT: Duration = Duration::from_secs(1);

/// A client that is gone is found by its connection.
async fn say_first(way: &Way<'_>, bytes: &[u8]) {
    if let Err(error) = way.client.say_first(bytes).await {
        tracing::debug!(%error, client = %way.client.address(), "an interim response did not reach its client");
    }
}

/// What hyper says, and what lies under it: a broken TLS rule, or the system's word.
fn with_causes(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

enum Ended {
    Flood(Flood),
    Timeout,
    Unanswered(Box<Unanswered<Upload>>),
}

/// While the client still sends, its own silence is watched by the upload; an upstream that reads nothing
/// is given the longer of the two limits.
fn patience(settings: &ProxySettings, progress: &Progress) -> Duration {
    match progress.done.get() {
        true => settings.response,
        false => longest_patience(settings),
    }
}

fn longest_patience(settings: &ProxySettings) -> Duration {
    settings.response.max(settings.request_body + Duration::from_secs(1))
}

fn idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(method)
}

fn copy_head(request: &Request<Upload>) -> Parts {
    let mut copy = Request::new(());
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    request.headers().clone_into(copy.headers_mut());
    request.extensions().clone_into(copy.extensions_mut());
    copy.into_parts().0
}
