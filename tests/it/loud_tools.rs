//! A body that was cut is an error to real tools: Python's `http.client`, `requests`, curl and wget, each in the
//! ways that people use it. Where the body is whole, the same tools end well.

use std::process::Command;

use serde_json::Value;

use crate::support::{
    origin::{Origin, Step, send},
    replicator::real,
};

/// Prints how each way to read each URL ended: the number of bytes, or the name of the exception.
const PYTHON: &str = r#"
import functools, http.client, json, sys, urllib.parse
import requests

def connection(url, version):
    parts = urllib.parse.urlsplit(url)
    client = http.client.HTTPConnection(parts.netloc, timeout=30)
    client._http_vsn, client._http_vsn_str = version, f'HTTP/{version // 10}.{version % 10}'
    client.request('GET', parts.path)
    return checked(client.getresponse())

def checked(response):
    # A reset may overtake the head; then the proxy's own answer comes.
    assert (response.status if hasattr(response, 'status') else response.status_code) == 200
    return response

def read(url, version):
    return len(connection(url, version).read())

def read_in_pieces(url, version, size):
    response, length = connection(url, version), 0
    while piece := response.read(size):
        length += len(piece)
    return length

def content(url):
    return len(checked(requests.get(url, timeout=30)).content)

def iterated(url):
    return sum(map(len, checked(requests.get(url, stream=True, timeout=30)).iter_content(4096)))

ways = {'requests content': content, 'requests iter_content': iterated}
for version in 10, 11:
    ways[f'http.client {version} read()'] = functools.partial(read, version=version)
    ways[f'http.client {version} read(n)'] = functools.partial(read_in_pieces, version=version, size=4096)
    ways[f'http.client {version} read(1 MB)'] = functools.partial(read_in_pieces, version=version, size=1000000)

requests.sessions.Session.trust_env = False
for url in sys.argv[1:]:
    for way, get in ways.items():
        try:
            end = get(url)
        except Exception as exception:
            end = type(exception).__name__
        print(json.dumps([url, way, end]))
"#;

const PART: usize = 50_000;

/// A path names a framing and an end.
fn answer(request: &str) -> Vec<Step> {
    let path = request.split(' ').nth(1).unwrap();
    let (framing, end) = path[1..].split_once('/').unwrap();
    let part = "x".repeat(PART);
    let (field, body, rest, last) = match framing {
        "counted" => ("Content-Length: 100000", part.clone(), part, None),
        "chunked" => {
            let chunk = format!("c350\r\n{part}\r\n");
            ("Transfer-Encoding: chunked", chunk.clone(), format!("{chunk}0\r\n\r\n"), None)
        }
        // In the midst of a chunk, which says that more is to come.
        "midchunk" => ("Transfer-Encoding: chunked", format!("186a0\r\n{part}"), format!("{part}\r\n0\r\n\r\n"), None),
        _ => ("Connection: close", part.clone(), part, Some(Step::Close)),
    };
    let mut steps = vec![send(&format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n")), send(&body)];
    match end {
        "close" => steps.push(Step::Close),
        "fin" => steps.push(Step::Fin),
        "reset" => steps.push(Step::Reset),
        "stall" => steps.push(Step::Stall),
        _ => {
            steps.push(send(&rest));
            steps.extend(last);
        }
    }
    steps
}

const CUTS: &[&str] = &[
    "counted/close",
    "counted/fin",
    "counted/reset",
    "counted/stall",
    "chunked/close",
    "chunked/fin",
    "chunked/reset",
    "chunked/stall",
    "midchunk/close",
    "midchunk/fin",
    "midchunk/reset",
    "midchunk/stall",
    // A clean end of TLS is the end of such a body.
    "totheend/fin",
    "totheend/reset",
    "totheend/stall",
];

const WHOLE: &[&str] = &["counted/whole", "chunked/whole", "midchunk/whole", "totheend/whole"];

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_body_is_an_error_to_real_tools() {
    let origin = Origin::start(|_, request| answer(request)).await;
    let proxy = crate::forwarding::start(&origin, &["--response-body-timeout=200ms"]);
    let url = |path: &&str| format!("http://{}/{path}", proxy.addr(0));
    let (cuts, whole): (Vec<_>, Vec<_>) = (CUTS.iter().map(url).collect(), WHOLE.iter().map(url).collect());
    let urls = || cuts.iter().chain(&whole);
    let ends: Vec<(String, String, Result<u64, String>)> = tokio::task::block_in_place(|| {
        let mut ends = python(urls());
        for url in urls() {
            ends.extend(commands().into_iter().map(|(name, command)| (url.clone(), name, run(command, url))));
        }
        ends
    });
    assert_eq!(ends.len(), (CUTS.len() + WHOLE.len()) * 12);
    let quiet: Vec<_> = ends
        .iter()
        .filter(|(url, _, end)| match url.ends_with("/whole") {
            true => *end != Ok(2 * PART as u64),
            false => end.is_ok(),
        })
        .collect();
    assert!(quiet.is_empty(), "{quiet:#?}");
}

fn python<'a>(urls: impl Iterator<Item = &'a String>) -> Vec<(String, String, Result<u64, String>)> {
    let python = real().join("glance33/bin/python");
    assert!(python.exists(), "`{}` is missing\n  hint: run `tests/setup` first", python.display());
    let said = Command::new("timeout").arg("120").arg(python).args(["-c", PYTHON]).args(urls).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let lines = String::from_utf8(said.stdout).unwrap();
    let ends = lines.lines().map(|line| {
        let (url, way, end): (String, String, Value) = serde_json::from_str(line).unwrap();
        (url, way, end.as_u64().ok_or_else(|| end.to_string()))
    });
    ends.collect()
}

fn commands() -> Vec<(String, Command)> {
    let all: [&[&str]; 4] = [
        &["curl", "--silent", "--fail", "--noproxy", "*"],
        &["curl", "--silent", "--fail", "--noproxy", "*", "--http1.0"],
        &["wget", "--quiet", "--no-proxy", "--tries=1", "--output-document=-"],
        &["wget", "--quiet", "--no-proxy", "--tries=1", "--output-document=-", "--no-http-keep-alive"],
    ];
    let command = |words: &[&str]| {
        let mut command = Command::new("timeout");
        command.arg("60").args(words);
        (words.join(" "), command)
    };
    all.map(command).into()
}

/// What a command wrote, where it ended well.
fn run(mut command: Command, url: &str) -> Result<u64, String> {
    let said = command.arg(url).output().unwrap();
    assert_ne!(said.status.code(), Some(127), "curl or wget is missing\n  hint: run `tests/setup` first");
    match said.status.success() {
        true => Ok(said.stdout.len() as u64),
        false => Err(said.status.to_string()),
    }
}
