//! One exchange with an upstream: send, wait within limits, repeat where that is provably harmless.

use std::{rc::Rc, time::Duration};

use http::{HeaderValue, Method, Request, Response, request::Parts};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use crate::{
    connect::{
        error::ConnectError,
        pool::{Link, Slot, Unanswered},
        refused_late,
    },
    message::{fields, target::Target},
};

use super::{
    HostPolicy, Proxy, Way,
    access::Access,
    body::{Broken, Download, Progress, ResponseBody, Upload},
    dress,
    failure::Failure,
};

impl Proxy {
    /// Passes a request to an upstream and its answer back.
    pub(super) async fn exchange(
        &self,
        slot: &Rc<Slot<Upload>>,
        target: Target,
        way: &Way<'_>,
        request: Request<Incoming>,
        access: &mut Access,
    ) -> Result<Response<ResponseBody>, Failure> {
        let (mut head, body) = request.into_parts();
        self.undress(&mut head, slot, &target)?;
        let upload = Upload::new(body, self.settings.request_body, way.exchange.clone());
        let progress = upload.progress();
        let (answer, link, reused) = self.send(slot, head, upload, &progress).await?;
        let (mut head, body) = answer.into_parts();
        dress(self, &mut head)?;
        access.answered(head.status, &head.headers, link.peer(), reused);
        let access = std::mem::replace(access, Access::none());
        let lease = (link, slot.clone());
        let limit = self.settings.response_body;
        let (client, exchange) = (way.client.clone(), way.exchange.clone());
        let download = Download::new(body, limit, client, lease, progress, access, exchange);
        Ok(Response::from_parts(head, ResponseBody::Download(Box::new(download))))
    }

    /// Makes the client's request head one for the upstream.
    fn undress(&self, head: &mut Parts, slot: &Slot<Upload>, target: &Target) -> Result<(), Failure> {
        let received = head.version;
        fields::strip_request(&mut head.headers);
        let host = match (self.settings.host, &target.authority) {
            (HostPolicy::Client, Some(authority)) => authority.to_string(),
            _ => slot.upstream.host_field(),
        };
        let host = HeaderValue::try_from(host).map_err(|_| Failure::NoDestination)?;
        fields::set_host(&mut head.headers, host);
        fields::append_via(&mut head.headers, received, &self.settings.pseudonym);
        head.uri = target.origin_uri();
        head.version = http::Version::HTTP_11;
        Ok(())
    }

    /// Sends on a kept connection if there is one, and on a new one if there is none, or if the kept one
    /// turned out dead before it said a word (RFC 9112 section 9.3.1: idempotent, or none of it sent).
    async fn send(
        &self,
        slot: &Rc<Slot<Upload>>,
        head: Parts,
        upload: Upload,
        progress: &Rc<Progress>,
    ) -> Result<(Response<Incoming>, Link<Upload>, bool), Failure> {
        let repeatable = upload.is_empty() && idempotent(&head.method);
        let mut request = Request::from_parts(head, upload);
        let mut kept = slot.take().await;
        loop {
            let reused = kept.is_some();
            let mut link = match kept.take() {
                Some(link) => link,
                None => self.open(slot).await?,
            };
            let spare = (reused && repeatable).then(|| copy_head(&request));
            request.body_mut().carried_by(link.wire().clone());
            let read_before = link.wire().read.get();
            let failed = match self.wait(&mut link, request, progress).await {
                Ok(answer) => return Ok((answer, link, reused)),
                Err(Ended::Timeout) => {
                    if !progress.done.get() {
                        link.wire().abort.set(true);
                    }
                    return Err(Failure::ResponseTimeout(self.settings.response));
                }
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
                && let Some(refused) = refused_late(&failed.error, link.peer().address)
            {
                return Err(Failure::Connect(ConnectError::Handshake(refused)));
            }
            request = match (reused, failed.unsent, spare) {
                (true, Some(unsent), _) => {
                    kept = slot.take().await;
                    unsent
                }
                (true, None, Some(spare)) if silent && !failed.error.is_parse() => {
                    Request::from_parts(spare, Upload::again(progress.clone(), self.settings.request_body))
                }
                _ if failed.error.is_parse() => {
                    return Err(Failure::BadResponse(failed.error.to_string()));
                }
                _ => return Err(Failure::UpstreamClosed(failed.error.to_string())),
            };
        }
    }

    /// Waits for the head of the response, for as long as the upload moves and then for the limit.
    async fn wait(
        &self,
        link: &mut Link<Upload>,
        request: Request<Upload>,
        progress: &Progress,
    ) -> Result<Response<Incoming>, Ended> {
        let limit = self.settings.response;
        progress.moved.set(Instant::now());
        let answer = link.send(request);
        tokio::pin!(answer);
        loop {
            tokio::select! {
                biased;
                end = &mut answer => return end.map_err(|failed| Ended::Unanswered(Box::new(failed))),
                () = sleep_until(progress.moved.get() + patience(limit, progress, self.settings.request_body)) => {
                    let patience = patience(limit, progress, self.settings.request_body);
                    if progress.moved.get().elapsed() >= patience {
                        return Err(Ended::Timeout);
                    }
                }
            }
        }
    }

    async fn open(&self, slot: &Slot<Upload>) -> Result<Link<Upload>, Failure> {
        let stream = self.connector.connect(&slot.upstream).await.map_err(Failure::Connect)?;
        Link::open(stream, self.settings.response_limits)
            .await
            .map_err(|error| Failure::UpstreamClosed(error.to_string()))
    }
}

enum Ended {
    Timeout,
    Unanswered(Box<Unanswered<Upload>>),
}

/// While the client still sends, its own silence is watched by the upload; an upstream that reads nothing
/// is given the longer of the two limits.
fn patience(response: Duration, progress: &Progress, request_body: Duration) -> Duration {
    match progress.done.get() {
        true => response,
        false => response.max(request_body + Duration::from_secs(1)),
    }
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
