//! What others try on HTTP/1.1 servers: the cases of Http11Probe, as in `tests/http11probe`, each on a connection,
//! a route and an origin of its own. Scored as its authors do, by status and by how the connection stands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Read,
    net::SocketAddr,
    time::Duration,
};

use certs_dev::Bundle;
use data_encoding::BASE64;
use flate2::read::GzDecoder;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    gallery,
    origin::{Origin, send},
    proxy::Proxy,
};

#[derive(Deserialize)]
struct Suite {
    cases: Vec<Case>,
}

#[derive(Clone, Deserialize)]
struct Case {
    id: String,
    category: String,
    /// Whether the authors count it.
    scored: bool,
    /// The request, in Base64.
    payload: String,
    no_response: NoResponse,
    with_response: WithResponse,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NoResponse {
    closed_by_server: Verdict,
    timed_out: Verdict,
}

#[derive(Clone, Deserialize)]
struct WithResponse {
    open: Vec<(u16, u16, Verdict)>,
    closed: Vec<(u16, u16, Verdict)>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Pass,
    Warn,
    Fail,
}

/// What one case came to.
struct Outcome {
    case: Case,
    verdict: Verdict,
    status: Option<u16>,
    closed: bool,
    /// Whole requests at its origin.
    reached: Vec<String>,
}

fn cases() -> Vec<Case> {
    let mut text = String::new();
    GzDecoder::new(&include_bytes!("../http11probe/cases.json.gz")[..]).read_to_string(&mut text).unwrap();
    serde_json::from_str::<Suite>(&text).unwrap().cases
}

/// The time that the authors give a server to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// And to close after it: longer than theirs, since this machine may have other things to do.
const CLOSE: Duration = Duration::from_secs(1);

/// A payload for a server at this port. The data was exported for one at 8080, which an absolute-form target names, too.
fn with_port(payload: &[u8], port: u16) -> Vec<u8> {
    const EXPORTED: &[u8] = b"localhost:8080";
    let mut rest = payload;
    let mut made = Vec::new();
    while let Some(at) = rest.windows(EXPORTED.len()).position(|window| window == EXPORTED) {
        made.extend_from_slice(&rest[..at]);
        made.extend_from_slice(format!("localhost:{port}").as_bytes());
        rest = &rest[at + EXPORTED.len()..];
    }
    made.extend_from_slice(rest);
    made
}

impl Case {
    /// Sends it, and says what came, as the authors look at it: the first status, and whether the connection is closed.
    async fn send(&self, address: SocketAddr) -> (Option<u16>, bool) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (mut from, mut to) = stream.split();
        let payload = with_port(&BASE64.decode(self.payload.as_bytes()).unwrap(), address.port());
        let mut seen = Vec::new();
        let read = async {
            let head = async {
                while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
                    if !matches!(from.read_buf(&mut seen).await, Ok(1..)) {
                        return false;
                    }
                }
                true
            };
            match timeout(ANSWER, head).await {
                Ok(true) => {}
                end => return end.is_ok(),
            }
            timeout(CLOSE, async { while matches!(from.read_buf(&mut seen).await, Ok(1..)) {} }).await.is_ok()
        };
        // A refusal may come before all is sent, and the rest meets a closed door.
        let write = async {
            let _ = to.write_all(&payload).await;
            std::future::pending::<()>().await;
        };
        let closed = tokio::select! {
            closed = read => closed,
            () = write => unreachable!(),
        };
        let line = String::from_utf8_lossy(&seen).into_owned();
        (line.split(' ').nth(1).and_then(|status| status.parse().ok()), closed)
    }

    fn verdict(&self, status: Option<u16>, closed: bool) -> Verdict {
        let Some(status) = status else {
            return if closed { self.no_response.closed_by_server } else { self.no_response.timed_out };
        };
        let ranges = if closed { &self.with_response.closed } else { &self.with_response.open };
        let range = ranges.iter().find(|(from, to, _)| (*from..=*to).contains(&status));
        range.map_or(Verdict::Fail, |(_, _, verdict)| *verdict)
    }
}

async fn run(flags: &[&str]) -> Vec<Outcome> {
    let mut all = vec!["--ca-bundle".to_owned(), gallery::bundle(Bundle::Root)];
    all.extend(flags.iter().map(|flag| (*flag).to_owned()));
    let mut origins = Vec::new();
    for _ in cases() {
        let origin = Origin::start(|_, request| {
            let body = if request.starts_with("HEAD ") { "" } else { "OK" };
            vec![send(&format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{body}"))]
        });
        origins.push(origin.await);
        all.extend(origins.last().unwrap().route());
    }
    let proxy = Proxy::start(&all);
    let sent = cases().into_iter().zip(origins).enumerate().map(|(n, (case, origin))| {
        let address = proxy.addr(n);
        tokio::spawn(async move {
            let (status, closed) = case.send(address).await;
            let verdict = case.verdict(status, closed);
            Outcome { case, verdict, status, closed, reached: origin.requests() }
        })
    });
    let mut outcomes = Vec::new();
    for sent in sent.collect::<Vec<_>>() {
        outcomes.push(sent.await.unwrap());
    }
    outcomes
}

/// What is no Pass, and why it is left so.
struct Known {
    verdict: Verdict,
    why: &'static str,
    cases: &'static [&'static str],
}

const KNOWN: &[Known] = &[
    Known {
        verdict: Verdict::Fail,
        why: "it asks for a field or a body of the answer, which the data cannot tell: nobody passes",
        cases: &["COMP-DATE-HEADER", "COOK-ECHO", "COOK-PARSED-BASIC", "COOK-PARSED-MULTI"],
    },
    Known {
        verdict: Verdict::Fail,
        why: "it takes the interim response, which was asked for, for the answer",
        cases: &["SMUG-EXPECT-100-CL"],
    },
    Known {
        verdict: Verdict::Fail,
        why: "old tools write names in UTF-8 as they are, and the bytes of a path are the upstream's to judge",
        cases: &["MAL-NON-ASCII-URL", "MAL-URL-OVERLONG-UTF8"],
    },
    Known {
        verdict: Verdict::Warn,
        why: "RFC 9110 section 2.5: a later minor version is read as 1.1",
        cases: &["COMP-HTTP12-VERSION"],
    },
    Known {
        verdict: Verdict::Fail,
        why: "403 and not 400: a target of another host is refused on a fixed route, whatever Host says",
        cases: &["SMUG-ABSOLUTE-URI-HOST-MISMATCH"],
    },
    Known {
        verdict: Verdict::Warn,
        why: "RFC 9112 section 2.2 lets a recipient take it; what goes on has CRLF and no empty lines",
        cases: &["RFC9112-2.2-BARE-LF-REQUEST-LINE", "RFC9112-2.2-BARE-LF-HEADER", "COMP-LEADING-CRLF"],
    },
    Known {
        verdict: Verdict::Warn,
        why: "it is well-formed, and spaces around a value are none of it (RFC 9110 section 5.5)",
        cases: &["SMUG-CL-TRAILING-SPACE", "SMUG-CL-EXTRA-LEADING-SP", "MAL-CL-TAB-BEFORE-VALUE"],
    },
    Known {
        verdict: Verdict::Warn,
        why: "any method may have a body; it goes on with its length",
        cases: &["COMP-GET-WITH-CL-BODY", "SMUG-HEAD-CL-BODY", "SMUG-OPTIONS-CL-BODY"],
    },
    Known {
        verdict: Verdict::Warn,
        why: "trailers that nobody announced, or that are about framing, are not sent on",
        cases: &[
            "SMUG-TRAILER-CL",
            "SMUG-TRAILER-TE",
            "SMUG-TRAILER-HOST",
            "SMUG-TRAILER-AUTH",
            "SMUG-TRAILER-CONTENT-TYPE",
        ],
    },
    Known {
        verdict: Verdict::Warn,
        why: "the upstream is sent the name of the route, whatever target or Host say",
        cases: &["COMP-HTTP10-NO-HOST"],
    },
    Known {
        verdict: Verdict::Warn,
        why: "it is the upstream's to judge, and ours has answered 200",
        cases: &[
            "COMP-405-ALLOW",
            "COMP-ACCEPT-NONSENSE",
            "COMP-CONTENT-TYPE",
            "COMP-DATE-FORMAT",
            "COMP-DUPLICATE-CT",
            "COMP-EXPECT-UNKNOWN",
            "COMP-METHOD-CASE",
            "COMP-NO-CL-IN-204",
            "COMP-OPTIONS-ALLOW",
            "COMP-UNKNOWN-METHOD",
            "COMP-UPGRADE-INVALID-VER",
            "COOK-MULTI-HEADER",
            "MAL-RANGE-OVERLAPPING",
            "MAL-URL-BACKSLASH",
            "MAL-URL-PERCENT-CRLF",
            "MAL-URL-PERCENT-NULL",
        ],
    },
];

/// With the default answers alone: any wrong request is 400, and the authors want 405 for a method.
const KNOWN_OF_LEGACY: Known =
    Known { verdict: Verdict::Fail, why: "400 and not 405", cases: &["COMP-METHOD-TRACE", "COMP-TRACE-SENSITIVE"] };

/// With those of the standard alone.
const KNOWN_OF_STANDARD: Known =
    Known { verdict: Verdict::Fail, why: "431 and not 400, as for any large head", cases: &["MAL-LONG-METHOD"] };

async fn scores(flags: &[&str], known: &[&Known], score: [usize; 3]) {
    let outcomes = run(flags).await;
    let expected: BTreeMap<_, _> =
        known.iter().flat_map(|known| known.cases.iter().map(move |case| (*case, *known))).collect();
    let mut changed = String::new();
    let mut tally = [0; 3];
    for Outcome { case, verdict, status, closed, reached } in &outcomes {
        let id = case.id.as_str();
        let (expected, why) =
            expected.get(id).map_or((Verdict::Pass, "as it should be"), |known| (known.verdict, known.why));
        if *verdict != expected {
            let how = format!("{verdict:?}: status {status:?}, closed: {closed}");
            writeln!(changed, "{id}: {how}; known was {expected:?}: {why}").unwrap();
        }
        let is_accepted = status.is_some_and(|status| (200..300).contains(&status));
        assert!(!is_accepted || case.category != "Smuggling" || *verdict != Verdict::Fail, "{id} is accepted");
        // Each is one request; a refused one is none.
        let is_refused = status.is_some_and(|status| status >= 400);
        assert!(reached.len() <= usize::from(!is_refused), "{id}: its origin saw {reached:?}");
        if case.scored {
            tally[*verdict as usize] += 1;
        }
    }
    assert!(changed.is_empty(), "{changed}");
    assert_eq!(tally, score, "Pass, Warn, Fail");
    let ids: BTreeSet<_> = outcomes.iter().map(|outcome| outcome.case.id.as_str()).collect();
    assert!(ids.len() == 176 && expected.keys().all(|id| ids.contains(id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn http11probe_scores_as_known() {
    let known: Vec<_> = KNOWN.iter().chain([&KNOWN_OF_LEGACY]).collect();
    scores(&[], &known, [107, 16, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http11probe_scores_as_known_where_answers_are_of_the_standard() {
    let known: Vec<_> = KNOWN.iter().chain([&KNOWN_OF_STANDARD]).collect();
    scores(&["--answer", "standard"], &known, [106, 16, 4]).await;
}
