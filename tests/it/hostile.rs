//! Hostile upstreams, as far as certificates and bare sockets go: whatever they send, the client is answered,
//! one event says why, nothing of the request is sent, and the program goes on within its time and memory.
//! Those that break the rules of TLS itself are in `tls_attacks`.

use std::time::Duration;

use certs_dev::{
    Authority, Case, Identity, KeyKind, LeafSpec,
    pki::{CaSpec, Validity},
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::support::{
    der::{Spec, extension, tlv},
    gallery::GALLERY,
    hostile::{
        Bend, Bent,
        End::{self, Accepted, Failure, Refused},
        FORGED, Last, Peer, ROOT, Script, Stage, at_once, evil_name, serve,
    },
};

const NAME: &str = "good.gallery.test";

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Serves these chains, each with the key of a good certificate, and meets them in turn.
async fn meet_chains(rows: Vec<(&str, Vec<CertificateDer<'static>>, End)>) {
    let good = GALLERY.identity(Case::Good).unwrap();
    meet_identities("json", rows.into_iter().map(|(name, chain, end)| (name, Identity { chain, ..good.clone() }, end)))
        .await;
}

async fn meet_identities(form: &str, rows: impl Iterator<Item = (&str, Identity, End)>) {
    let (mut upstreams, mut ends) = (Vec::new(), Vec::new());
    for (name, identity, end) in rows {
        let (address, counters) = serve(&identity).await;
        upstreams.push((name.to_owned(), address));
        ends.push((end, counters));
    }
    let stage = Stage::set_in(form, &upstreams, &[]).await;
    for (n, (end, counters)) in ends.iter().enumerate() {
        stage.meet(n, *end).await;
        let requests = u64::from(matches!(end, Accepted));
        assert_eq!(counters.requests(), requests, "{}", upstreams[n].0);
        assert!(requests == 1 || counters.application_bytes() == 0, "{}: the origin saw a request", upstreams[n].0);
    }
    stage.clear();
}

fn ca(subject: &str, issuer: &str, key: usize) -> CertificateDer<'static> {
    Spec::ca(subject, issuer, key as u32).der()
}

/// So many authorities of each of these names, issued by those of the next.
fn layers(names: &[&str], each: usize) -> Vec<CertificateDer<'static>> {
    let pairs = names.windows(2).enumerate();
    pairs.flat_map(|(layer, pair)| (0..each).map(move |n| ca(pair[0], pair[1], layer * 1000 + n))).collect()
}

/// The chain of a certificate below this many intermediates.
fn ladder(rungs: usize) -> Identity {
    let spec = |n: usize| CaSpec { path_length: None, ..CaSpec::intermediate(&format!("rung {n}"), now()) };
    let mut lowest = ROOT.subordinate(&spec(0)).unwrap();
    for n in 1..rungs {
        lowest = lowest.subordinate(&spec(n)).unwrap();
    }
    lowest.issue(&LeafSpec::new("ladder", now()).dns(NAME)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn chains_of_any_length_and_shape_are_verified_in_bounded_time() {
    let good = GALLERY.identity(Case::Good).unwrap();
    let (own, intermediate) = good.chain.split_at(1);
    let leaf = &[Spec::leaf("leaf", "L").der()][..];
    let junk = |count| (0..count).map(|n| CertificateDer::from(vec![n as u8; 100])).collect::<Vec<_>>();
    let chain = |parts: &[&[CertificateDer<'static>]]| parts.concat();
    let strangers = layers(&["S", "T"], 250);
    meet_chains(vec![
        ("a certificate of megabytes", vec![vec![0x30; 3 << 20].into()], Refused("tls_protocol")),
        (
            "500 that fill more than a message",
            chain(&[&good.chain, &layers(&["S", "T"], 500)]),
            Refused("tls_protocol"),
        ),
        ("100 strangers behind a good chain", chain(&[&good.chain, &strangers[..100]]), Accepted),
        ("250 strangers before the one that fits", chain(&[own, &strangers, intermediate]), Accepted),
        ("250 strangers and none that fits", chain(&[own, &strangers]), Refused("incomplete_chain")),
        ("100 times the one that fits", chain(&[own, &vec![intermediate[0].clone(); 100]]), Accepted),
        ("100 times the server's own", vec![own[0].clone(); 100], Refused("incomplete_chain")),
        ("junk before the one that fits", chain(&[own, &junk(200), intermediate]), Accepted),
        ("junk alone behind its own", chain(&[own, &junk(200)]), Refused("malformed_certificate")),
        ("junk alone", junk(200), Refused("malformed_certificate")),
        ("six rungs, and a key of another", ladder(6).chain, Refused("bad_signature")),
        ("thirty rungs", ladder(30).chain, Refused("chain_too_long")),
        ("one name, 200 keys", chain(&[leaf, &layers(&["L", "L"], 200)]), Refused("chain_too_complex")),
        (
            "one name, 200 keys, and a way out",
            chain(&[leaf, &layers(&["L", "L"], 200), &[ca("L", "Hostile Root", 9)]]),
            Refused("chain_too_complex"),
        ),
        (
            "200 that claim to be of the root",
            chain(&[leaf, &layers(&["L", "Hostile Root"], 200)]),
            Refused("issuer_key_mismatch"),
        ),
        ("three layers of 90", chain(&[leaf, &layers(&["L", "M", "N", "O"], 90)]), Refused("chain_too_complex")),
        (
            "six layers of 40 up to the root",
            chain(&[leaf, &layers(&["L", "M", "N", "O", "P", "Q", "Hostile Root"], 40)]),
            Refused("chain_too_complex"),
        ),
        (
            "two that issue each other",
            chain(&[leaf, &[ca("L", "M", 1), ca("M", "L", 2), ca("L", "M", 3), ca("M", "L", 4)]]),
            Refused("unknown_issuer|bad_signature"),
        ),
    ])
    .await;
}

/// The neighbours of those above that are to be believed: here the key is the certificate's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_ladder_of_six_intermediates_is_climbed() {
    meet_identities(
        "json",
        [("six", ladder(6), Accepted), ("seven", ladder(7), Refused("chain_too_long"))].into_iter(),
    )
    .await;
}

/// Certificates whose every text wants to be more than a text.
fn evil_identities() -> Vec<(&'static str, Identity, End)> {
    let good = GALLERY.identity(Case::Good).unwrap();
    let own_key = |chain| Identity { chain, key: good.key.clone_key() };
    let evil = evil_name();
    let ascii: String = evil.chars().filter(char::is_ascii).collect();
    let stranger = Authority::root(&format!("{evil} root"), now()).unwrap();
    let by_hand = |change: fn(&mut Spec)| {
        let mut spec = Spec::leaf(&evil_name(), "nobody");
        change(&mut spec);
        own_key(vec![spec.der()])
    };
    let many = |name: &str| {
        let names = (0..3000).map(|n| format!("n{n}.hostile.test"));
        let spec = LeafSpec { dns: names.collect(), ..LeafSpec::new("many", now()) };
        ROOT.issue(&spec.dns(name)).unwrap()
    };
    let lapsed = LeafSpec { validity: Validity::days(now(), -9, -1), ..LeafSpec::new(&evil, now()).dns(NAME) };
    vec![
        (
            "an evil issuer",
            stranger.issue(&LeafSpec::new(&evil, now()).dns(NAME)).unwrap(),
            Refused("incomplete_chain"),
        ),
        (
            "an evil root is sent along",
            own_key(vec![Spec::leaf("x", &evil).der(), ca(&evil, &evil, 1)]),
            Refused("unknown_issuer|bad_signature"),
        ),
        ("an evil common name", ROOT.issue(&LeafSpec::new(&evil, now())).unwrap(), Refused("no_san")),
        ("an evil name, lapsed", ROOT.issue(&lapsed).unwrap(), Refused("expired")),
        ("an evil DNS name", ROOT.issue(&LeafSpec::new("x", now()).dns(&ascii)).unwrap(), Refused("name_mismatch")),
        ("3000 names", many("other.gallery.test"), Refused("name_mismatch")),
        ("3000 names and the right one", many(NAME), Accepted),
        ("a name of 60 KB", own_key(vec![Spec::leaf(&evil.repeat(600), "nobody").der()]), Refused("incomplete_chain")),
        ("an issuer of 60 KB", own_key(vec![Spec::leaf("x", &evil.repeat(600)).der()]), Refused("incomplete_chain")),
        ("a serial number of 60 KB", by_hand(|spec| spec.serial = vec![7; 60_000]), Refused("incomplete_chain")),
        (
            "an algorithm of 30 KB, twice",
            by_hand(|spec| spec.algorithm = tlv(0x30, &tlv(6, &[0x2b; 30_000]))),
            Refused("malformed_certificate|incomplete_chain|unsupported_signature"),
        ),
        (
            "6000 purposes",
            by_hand(|spec| {
                let purposes = (0..6000u16).flat_map(|n| tlv(6, &[0x2b, 0x80 | (n >> 7) as u8, n as u8 & 0x7f]));
                spec.extensions.push(extension(37, &tlv(0x30, &purposes.collect::<Vec<_>>())));
            }),
            Refused("wrong_purpose|incomplete_chain"),
        ),
        (
            "names of all kinds",
            by_hand(|spec| {
                let text = evil_name();
                let ascii: Vec<u8> = text.bytes().filter(u8::is_ascii).collect();
                let other = [&tlv(6, &[0x2b, 1]), &tlv(0xa0, &tlv(0x0c, text.as_bytes()))].map(Vec::as_slice).concat();
                let directory = crate::support::der::name(&text);
                let names = [
                    tlv(0x81, &ascii),
                    tlv(0x82, &ascii),
                    tlv(0x86, &ascii),
                    tlv(0x87, &ascii),
                    tlv(0xa0, &other),
                    tlv(0xa4, &directory),
                ];
                spec.extensions = vec![extension(17, &tlv(0x30, &names.concat()))];
            }),
            Refused("incomplete_chain|malformed_certificate"),
        ),
    ]
}

/// A parser that calls itself for each level would overflow its stack, which is the end of the process.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_nested_thousands_deep_is_read_no_deeper_than_needed() {
    let nest = |tag| (0..14_000).fold(Vec::new(), |inner: Vec<u8>, _| tlv(tag, &inner));
    let (sequences, contexts) = (nest(0x30), nest(0xa4));
    let numbers = [14, 15, 17, 18, 19, 30, 31, 32, 33, 35, 36, 37];
    let values = numbers.iter().flat_map(|number| {
        [sequences.clone(), contexts.clone(), tlv(0x30, &contexts)].map(|value| extension(*number, &value))
    });
    let chains = values.map(|extension| {
        let mut spec = Spec::leaf("nested", "nobody");
        spec.extensions = vec![extension];
        vec![spec.der()]
    });
    let end = Refused("incomplete_chain|malformed_certificate|critical_extension");
    let mut rows: Vec<_> = chains.map(|chain| ("nested extensions", chain, end)).collect();
    rows.push(("nested, nothing else", vec![sequences.into()], Refused("malformed_certificate")));
    meet_chains(rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_a_certificate_forges_a_line_or_floods_the_logs() {
    meet_identities("json", evil_identities().into_iter()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_of_a_certificate_forges_a_line_of_the_log_for_people() {
    meet_identities("text", evil_identities().into_iter()).await;
}

#[test]
fn the_evil_name_is_evil() {
    assert!(evil_name().lines().any(|line| line.starts_with(FORGED)) && evil_name().contains('\x1b'));
}

/// A record of the handshake.
fn record(content: &[u8]) -> Vec<u8> {
    [&[22, 3, 3][..], &(content.len() as u16).to_be_bytes(), content].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

/// A ServerHello of this version, random and extensions.
fn server_hello(version: u16, random: [u8; 32], extensions: &[u8]) -> Vec<u8> {
    let length = (extensions.len() as u16).to_be_bytes();
    let suite: &[u8] = if extensions.is_empty() { b"\xc0\x2b\0" } else { b"\x13\x01\0" };
    record(&message(2, &[&version.to_be_bytes()[..], &random, &[0], suite, &length, extensions].concat()))
}

/// A HelloRetryRequest for a group (RFC 8446 section 4.1.3: the random tells).
fn hello_retry(group: u16) -> Vec<u8> {
    let random = b"\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91\
        \xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c";
    let key_share = [&[0, 0x33, 0, 2][..], &group.to_be_bytes()].concat();
    server_hello(0x0303, *random, &[&[0, 0x2b, 0, 2, 3, 4][..], &key_share].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_talk_nonsense_are_named_and_cut_off() {
    let script = |first: &[u8], again: &[u8], last| Script { first: first.to_vec(), again: again.to_vec(), last };
    let say = |first: &[u8]| script(first, b"", Last::Hold);
    let flood = |first: &[u8], again: &[u8]| script(first, again, Last::Hold);
    let old = |version| say(&server_hello(version, [7; 32], b""));
    let noise: Vec<u8> = (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect();
    // The first fragments of a message of 65000 bytes, and of one that is never to end.
    let (long, endless) = (record(&[2, 0, 0xfd, 0xe8]), record(&[2, 0xff, 0xff, 0xff]));
    let rows = [
        ("nothing, FIN", script(b"", b"", Last::Fin), "closed_in_handshake"),
        ("nothing, RST", script(b"", b"", Last::Reset), "closed_in_handshake"),
        ("part of a record", script(b"\x16\x03\x03\x01\x00abc", b"", Last::Fin), "closed_in_handshake"),
        ("plain HTTP", say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "not_tls"),
        ("an SSH banner", say(b"SSH-2.0-OpenSSH_9.6\r\n"), "not_tls"),
        ("an SMTP banner", say(b"220 mail.example ESMTP\r\n"), "not_tls"),
        ("noise", say(&noise), "not_tls"),
        ("endless noise", flood(b"", &noise), "not_tls"),
        ("endless zeros", flood(b"", &[0; 4096]), "not_tls"),
        ("a record too long", say(b"\x16\x03\x03\xff\xffabc"), "tls_protocol"),
        ("a message too long", say(&endless), "tls_protocol"),
        ("endless fragments of a message too long", flood(&endless, &record(&[0; 16000])), "tls_protocol"),
        ("endless fragments", flood(&long, &record(&[0; 1000])), "tls_protocol"),
        ("endless small fragments", flood(&long, &record(&[0])), "tls_protocol"),
        ("endless empty records", flood(b"", &record(b"")), "tls_protocol"),
        ("endless empty data", flood(b"", b"\x17\x03\x03\x00\x00"), "tls_protocol"),
        ("data first", flood(b"", b"\x17\x03\x03\x00\x05hello"), "tls_protocol"),
        ("endless ChangeCipherSpec", flood(b"", b"\x14\x03\x03\x00\x01\x01"), "tls_protocol"),
        ("endless warnings", flood(b"", b"\x15\x03\x03\x00\x02\x01\x70"), "tls_protocol|handshake_refused"),
        ("endless alerts of no meaning", flood(b"", b"\x15\x03\x03\x00\x02\x01\xee"), "tls_protocol|handshake_refused"),
        ("an alert of no meaning", say(b"\x15\x03\x03\x00\x02\x02\xee"), "handshake_refused"),
        ("an empty alert", say(b"\x15\x03\x03\x00\x00"), "tls_protocol"),
        (
            "close_notify",
            script(b"\x15\x03\x03\x00\x02\x01\x00", b"", Last::Fin),
            "closed_in_handshake|handshake_refused",
        ),
        ("an alert of the version", say(b"\x15\x03\x01\x00\x02\x02\x46"), "tls_version"),
        ("SSL 3", old(0x0300), "tls_version"),
        ("TLS 1.0", old(0x0301), "tls_version"),
        ("TLS 1.1", old(0x0302), "tls_version"),
        ("endless HelloRequests", flood(b"", &record(&message(0, b""))), "tls_protocol"),
        ("endless ServerHellos", flood(b"", &server_hello(0x0303, [7; 32], b"")), "tls_protocol"),
        ("a retry for a group not known", say(&hello_retry(0x0a0a)), "tls_protocol"),
        ("a retry for a group already there", say(&hello_retry(0x001d)), "tls_protocol"),
        ("retries in a circle", flood(b"", &hello_retry(0x0018)), "tls_protocol"),
        (
            "a ServerHello, then plain text",
            say(&[&server_hello(0x0303, [7; 32], b"")[..], b"HTTP/1.1 400\r\n\r\n"].concat()),
            "not_tls",
        ),
        ("a certificate request first", say(&record(&message(13, &[0; 40]))), "tls_protocol"),
    ];
    let mut peers = Vec::new();
    for (_, script, _) in &rows {
        peers.push(Peer::start(script.clone()).await);
    }
    let upstreams: Vec<_> = rows.iter().zip(&peers).map(|((name, ..), peer)| ((*name).into(), peer.address)).collect();
    let stage = Stage::set(&upstreams, &["--tls-timeout", "5s"]).await;
    for (n, (name, _, code)) in rows.iter().enumerate() {
        stage.meet(n, Refused(code)).await;
        let ended = peers[n].ended(1).await;
        assert!(!ended.request && ended.count == 1, "{name}: {ended:?}");
        assert!(ended.sent < 16 << 20, "{name}: {} bytes were taken", ended.sent);
    }
    stage.clear();
}

/// Wherever a handshake is cut, it is one event that says so, and no request is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_may_be_cut_anywhere() {
    // RSA, since its signatures are all of one length, and so are the flights.
    let identity = ROOT.issue(&LeafSpec { key: KeyKind::Rsa2048, ..LeafSpec::new("rsa", now()).dns(NAME) }).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let whole = Bend::Cut(usize::MAX, false);
        let bent = Bent::start(&identity, version, whole).await;
        let stage = Stage::set(&[(format!("{version:?}"), bent.address)], &["--response-timeout", "300ms"]).await;
        stage.meet(0, Failure("response_timeout")).await;
        let seen = bent.has("the whole handshake", |seen| seen.over == 1).await;
        let (flight, plain) = (seen.sent, seen.plain);
        assert!(flight > 500 && plain > 100, "{seen:?}");
        let step = flight / 24;
        let places = (0..8).chain((8..flight - 4).step_by(step)).chain(flight - 4..flight);
        for (n, place) in places.enumerate() {
            for reset in [false, true] {
                bent.bend(Bend::Cut(place, reset));
                let event = stage.meet(0, Refused("closed_in_handshake")).await;
                assert_eq!(
                    event["vouchsafe.findings"],
                    serde_json::json!([]),
                    "cut after {place} of {flight}: {event}"
                );
                let over = 2 + 2 * n + usize::from(reset);
                let seen = bent.has("its end", |seen| seen.over == over).await;
                assert_eq!(seen.plain, plain, "cut after {place} of {flight}: a request");
            }
        }
        // The neighbour: all of it passed, so the server was verified.
        bent.bend(Bend::Cut(flight, false));
        stage.meet(0, Failure("upstream_closed")).await;
        stage.clear();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dozens_of_slow_handshakes_end_and_hinder_nobody() {
    const MANY: usize = 48;
    let identity = GALLERY.identity(Case::Good).unwrap();
    let bent = Bent::start(&identity, &rustls::version::TLS13, Bend::Drip(Duration::from_millis(50))).await;
    let stage = Stage::set(&[("slow".into(), bent.address)], &["--tls-timeout", "2s"]).await;
    let slow = at_once(MANY, || stage.ask(0));
    let meanwhile = async {
        bent.has("all handshakes", |seen| seen.begun == MANY).await;
        assert!(stage.good_is_served().await);
        assert_eq!(stage.proxy().audit().len(), 0, "the good one had to wait");
    };
    let (answers, ()) = tokio::join!(slow, meanwhile);
    assert!(answers.iter().all(|seen| seen.status() == 500 && seen.text().contains(": handshake_timeout (event ")));
    let codes: Vec<_> = stage.proxy().audit().iter().map(|event| event["error.code"].clone()).collect();
    assert_eq!(codes, vec!["handshake_timeout"; MANY]);
    assert_eq!(bent.has("their ends", |seen| seen.over == MANY).await.plain, 0);
    stage.clear();
}

/// Odd, but within the rules: it is believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_in_tiny_records_is_followed() {
    let identity = GALLERY.identity(Case::Good).unwrap();
    for most in [1, 7, 100] {
        let bent = Bent::start(&identity, &rustls::version::TLS12, Bend::Split(most)).await;
        let stage = Stage::set(&[(format!("records of {most}"), bent.address)], &[]).await;
        stage.meet(0, Accepted).await;
        stage.clear();
    }
}
