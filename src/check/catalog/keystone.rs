//! One request to Keystone, over a connection that was verified: for a token, and with it the catalog.

use std::{fmt, future::poll_fn, net::SocketAddr, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::timeout;

use crate::{
    config::settings::UpstreamConfig,
    connect::{
        Connector, OwnSockets,
        error::ConnectError,
        upstream::{NoResponse, UpstreamConnection},
    },
    http1::{body::BodyDecoder, head::HeadLimits},
    proxy::failure::connect_words,
    route::upstream::Upstream,
};

use super::credentials::Credentials;

/// Limits on the answer.
const HEAD: HeadLimits = HeadLimits { bytes: 64 << 10, fields: 200 };
const BODY: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// An endpoint of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The type of its service.
    pub(super) service: String,
    pub(super) interface: String,
    pub(super) url: String,
}

/// Why Keystone gave no catalog.
#[derive(Debug)]
pub enum AskError {
    /// No connection.
    Connect(ConnectError),
    /// Its certificate is not trusted, and it is not told a password, whatever is only reported.
    ReportOnly,
    /// It broke, or what it sent cannot be read.
    Broken(String),
    /// Another status than success.
    Status(u16),
    /// There is no catalog in its answer.
    NoCatalog,
    /// It took too long.
    Timeout,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "{}: {error}", connect_words(error).class),
            Self::ReportOnly => f.write_str("its certificate is not trusted, so it was not told the password"),
            Self::Broken(why) => f.write_str(why),
            Self::Status(401) => {
                f.write_str("it answered 401\nhint: OS_USERNAME, OS_PASSWORD, the project or a domain is wrong")
            }
            Self::Status(status) => {
                write!(f, "it answered {status}\nhint: OS_AUTH_URL should end with `/v3` or `/v2.0`")
            }
            Self::NoCatalog => f.write_str("its token has no catalog\nhint: set OS_PROJECT_NAME"),
            Self::Timeout => write!(f, "it did not answer within {} s", PATIENCE.as_secs()),
        }
    }
}

/// The endpoints of the catalog.
///
/// # Errors
/// [`AskError`].
pub(super) async fn ask(
    config: &UpstreamConfig,
    upstream: &Upstream,
    credentials: &Credentials,
) -> Result<Vec<Endpoint>, AskError> {
    let none: Arc<[SocketAddr]> = Arc::new([]);
    let connector = Connector::new(config.connect, none, OwnSockets::default());
    let verified = connector.connect(upstream).await.map_err(AskError::Connect)?;
    if verified.bypassed().is_some() {
        return Err(AskError::ReportOnly);
    }
    let connection = UpstreamConnection::new(verified, connector.buffers().clone());
    let request = request(upstream, credentials);
    let answer = exchange(connection, &request);
    let (status, body) = timeout(PATIENCE, answer).await.map_err(|_| AskError::Timeout)??;
    if !(200..300).contains(&status) {
        return Err(AskError::Status(status));
    }
    let document = serde_json::from_slice(&body).map_err(|_| AskError::Broken("its answer is not JSON".into()))?;
    endpoints(&document).ok_or(AskError::NoCatalog)
}

fn request(upstream: &Upstream, credentials: &Credentials) -> Vec<u8> {
    let body = credentials.body().to_string();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        credentials.path,
        upstream.host_field(),
        body.len()
    );
    [head, body].concat().into_bytes()
}

/// Sends a request, and reads the response to its end.
async fn exchange(mut connection: Box<UpstreamConnection>, request: &[u8]) -> Result<(u16, Vec<u8>), AskError> {
    let broken = |error: std::io::Error| AskError::Broken(NoResponse::Broken(error).to_string());
    connection.seal(request).map_err(broken)?;
    poll_fn(|cx| connection.poll_flush(cx)).await.map_err(broken)?;
    let head = loop {
        let head = poll_fn(|cx| connection.poll_head(cx, HEAD, false)).await;
        let head = head.map_err(|error| AskError::Broken(error.to_string()))?;
        if !head.is_interim() {
            break head;
        }
    };
    let (mut decoder, mut body) = (BodyDecoder::new(head.length), Vec::new());
    while !decoder.is_done() {
        if connection.inbox().is_empty() && poll_fn(|cx| connection.poll_receive(cx)).await.map_err(broken)? == 0 {
            if !decoder.ends_with_connection() {
                return Err(AskError::Broken("its answer broke off".into()));
            }
            decoder.close();
        }
        let read = decoder.decode_content(connection.inbox().as_slice(), &mut body);
        let count = read.map_err(|bad| AskError::Broken(bad.to_string()))?;
        connection.inbox().consume(count);
        if body.len() > BODY {
            return Err(AskError::Broken("its answer has more than 4 MiB".into()));
        }
    }
    connection.close();
    Ok((head.status, body))
}

/// The endpoints of a token of either version.
fn endpoints(document: &Value) -> Option<Vec<Endpoint>> {
    let v3 = document["token"]["catalog"].as_array();
    let catalog = v3.or_else(|| document["access"]["serviceCatalog"].as_array())?;
    let mut found = Vec::new();
    for service in catalog {
        let name = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
        for endpoint in service["endpoints"].as_array().into_iter().flatten() {
            let mut add = |interface: String, url: &Value| {
                let url = url.as_str().map(str::to_owned);
                found.extend(url.map(|url| Endpoint { service: name(&service["type"]), interface, url }));
            };
            match v3 {
                Some(_) => add(name(&endpoint["interface"]), &endpoint["url"]),
                None => ["admin", "internal", "public"]
                    .iter()
                    .for_each(|interface| add((*interface).to_owned(), &endpoint[format!("{interface}URL")])),
            }
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn endpoints_of_both_versions() {
        let of = |service: &str, interface: &str, url: &str| Endpoint {
            service: service.into(),
            interface: interface.into(),
            url: url.into(),
        };
        let v3 = json!({"token": {"catalog": [
            {"type": "image", "endpoints": [{"interface": "public", "url": "https://g"}, {"interface": "admin", "url": null}]},
            {"type": "compute", "endpoints": []},
        ]}});
        assert_eq!(endpoints(&v3), Some(vec![of("image", "public", "https://g")]));
        let v2 = json!({"access": {"serviceCatalog": [
            {"type": "image", "endpoints": [{"publicURL": "https://g", "adminURL": "https://a"}]},
        ]}});
        assert_eq!(endpoints(&v2), Some(vec![of("image", "admin", "https://a"), of("image", "public", "https://g")]));
        assert_eq!(endpoints(&json!({"token": {"catalog": []}})), Some(Vec::new()));
        assert_eq!(endpoints(&json!({"token": {}})), None);
    }
}
