//! Pages for people in a real browser: at two widths, light and dark, whole without anything from elsewhere, and with
//! text from hostile servers shown as text.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{
    browser::{Browser, Page, View},
    command::vouchsafe,
    dir,
};

/// What a hostile server could call itself.
const HOSTILE: &str = "CN=<script>window.owned=1</script><img src=x onerror=window.owned=1>\"'&\u{202e}moc.elpmaxe";

/// Looks at a page in all views: nothing is wrong in it, and it is as wide as the window. `look` may look further.
fn in_all_views(url: &str, name: &str, mut look: impl FnMut(&mut Browser, &Page)) {
    let mut browser = Browser::start();
    for view in View::ALL {
        let page = browser.open(url, view);
        let what = format!("{name} {view:?}");
        assert!(page.problems.is_empty(), "{what}: {:#?}", page.problems);
        let elsewhere: Vec<_> = page.requests.iter().skip(1).filter(|url| !url.starts_with("data:")).collect();
        assert!(elsewhere.is_empty(), "{what}: {elsewhere:?}");
        let widths = browser.evaluate(&page, "[document.scrollingElement.scrollWidth, innerWidth]");
        assert!(widths[0].as_u64() <= widths[1].as_u64(), "{what} is wider than the window: {widths}");
        assert_eq!(widths[1], view.width, "{what}");
        let dark = browser.evaluate(&page, "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] < 128");
        assert_eq!(dark, view.dark, "{what}: the background");
        look(&mut browser, &page);
        keep_picture(&mut browser, &page, &format!("{name}-{}", view.name()));
    }
}

/// Keeps a picture for people to look at; with `UPDATE_GOLDEN=1` also those that the documentation shows.
fn keep_picture(browser: &mut Browser, page: &Page, name: &str) {
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    std::fs::create_dir_all(&pictures).unwrap();
    let picture = pictures.join(format!("{name}.png"));
    browser.screenshot(page, 4000, &picture);
    assert!(std::fs::metadata(&picture).unwrap().len() > 5_000, "{name}: an empty picture");
    let shown = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/images/{name}.png"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() && shown.exists() {
        browser.screenshot(page, 900, &shown);
    }
}

/// The text that a reader sees.
fn text(browser: &mut Browser, page: &Page) -> String {
    // What is folded is seen after a click.
    let open = "document.querySelectorAll('details').forEach(details => details.open = true)";
    browser.evaluate(page, open);
    browser.evaluate(page, "document.body.innerText").as_str().unwrap().to_owned()
}

fn hash(n: u64) -> String {
    format!("{n:016x}").repeat(4)
}

/// An event of an audit log.
fn event(time: &str, upstream: &str, code: &str, message: &str, more: Value) -> Value {
    let mut event = json!({
        "@timestamp": time,
        "event.action": "tls-verification-refused",
        "event.id": "3a770172437ae11f",
        "vouchsafe.schema": 3,
        "vouchsafe.count": 1,
        "error.code": code,
        "error.message": message,
        "vouchsafe.upstream": upstream,
        "client.ip": "127.0.0.1",
        "vouchsafe.listener": "forward 127.0.0.1:3128",
        "url.path": "/v2/images",
        "vouchsafe.request_bytes_sent": 0,
        "vouchsafe.chain_sha256": hash(7),
    });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

fn chain(subject: &str, not_after: &str) -> Value {
    json!({
        "vouchsafe.offending": { "in": "presented", "index": 0, "subject": subject, "sha256": hash(1) },
        "vouchsafe.chain": [
            { "index": 0, "subject": subject, "issuer": "CN=Example Issuing CA 3", "not_after": not_after, "sha256": hash(1) },
            { "index": 1, "subject": "CN=Example Issuing CA 3", "issuer": "CN=Example Root", "not_after": "2031-01-01T00:00:00Z", "sha256": hash(2) },
        ],
    })
}

/// Some days of an installation: an expired certificate, a wrong name, one server in report-only, one hostile.
fn log() -> String {
    let mut events = Vec::new();
    let hint = "have it renewed; on the server `openssl x509 -enddate -noout -in CERTIFICATE` shows its end";
    for hour in 0..40 {
        let time = format!("2026-11-{:02}T{:02}:10:00Z", 20 + hour / 24, hour % 24);
        let mut more = chain("CN=glance-a.example", "2026-11-19T23:59:59Z");
        more["vouchsafe.count"] = (1 + (hour * 7) % 19).into();
        more["vouchsafe.hint"] = hint.into();
        more["client.ip"] = format!("10.0.0.{}", 1 + hour % 3).into();
        let message = "the certificate `CN=glance-a.example` expired on 2026-11-19T23:59:59Z";
        events.push(event(&time, "glance-a.example:9292", "expired", message, more));
    }
    for hour in [3, 4, 5, 20] {
        let time = format!("2026-11-20T{hour:02}:30:00Z");
        let message = "the certificate is valid for `*.apps.example`, not for `glance-b.internal.example`";
        let mut more = chain("CN=*.apps.example", "2027-05-01T00:00:00Z");
        more["vouchsafe.hint"] =
            "have it reissued with `DNS:glance-b.internal.example`, or reach it by a name it has".into();
        more["vouchsafe.chain_sha256"] = hash(8).into();
        events.push(event(&time, "glance-b.internal.example:9292", "name_mismatch", message, more));
    }
    let bypassed = json!({ "event.action": "tls-verification-bypassed", "vouchsafe.request_bytes_sent": null });
    let message = "the issuer `CN=Old Root` is neither sent nor in the bundle";
    events.push(event("2026-11-21T08:00:00Z", "swift.example:8080", "unknown_issuer", message, bypassed));
    let sent = json!({
        "event.action": "tls-bypassed-requests", "vouchsafe.requests": 12, "vouchsafe.request_bytes_sent": 48_230,
        "vouchsafe.clients": [{ "ip": "10.0.0.2", "requests": 12 }], "client.ip": null,
    });
    events.push(event("2026-11-21T08:01:00Z", "swift.example:8080", "unknown_issuer", message, sent));
    let mut hostile = chain(HOSTILE, "2027-05-01T00:00:00Z");
    hostile["vouchsafe.hint"] = HOSTILE.into();
    hostile["url.path"] = HOSTILE.into();
    hostile["client.ip"] = HOSTILE.into();
    events.push(event("2026-11-21T09:00:00Z", "evil.example:443", "self_signed_not_in_bundle", HOSTILE, hostile));
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn report(directory: &Path, log: &str) -> PathBuf {
    let (events, page) = (directory.join("audit.jsonl"), directory.join("report.html"));
    std::fs::write(&events, log).unwrap();
    let said = vouchsafe(&["audit", "--format", "html", events.to_str().unwrap()]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    std::fs::write(&page, said.out).unwrap();
    page
}

#[test]
fn the_audit_report_can_be_read_anywhere() {
    let directory = dir();
    let page = report(directory.path(), &log());
    in_all_views(&format!("file://{}", page.display()), "audit-report", |browser, page| {
        let counted = "[document.querySelectorAll('script, img, link[rel=stylesheet], iframe').length, window.owned ?? 0, \
                       document.querySelectorAll('svg rect title').length]";
        let counted = browser.evaluate(page, counted);
        assert_eq!((&counted[0], &counted[1]), (&json!(0), &json!(0)), "{counted}");
        assert!(counted[2].as_u64() > Some(50), "the time line: {counted}");
        let text = text(browser, page);
        for expected in [
            "SENT WITHOUT VERIFICATION: 12 requests, 48230 bytes, on 1 bypassed handshake",
            "glance-a.example:9292",
            "have it renewed",
            "10.0.0.2",
            "CN=Example Issuing CA 3",
            "<script>window.owned=1</script><img src=x onerror=window.owned=1>\"'&\\u{202e}moc.elpmaxe",
            "What to do. ",
        ] {
            assert!(text.contains(expected), "no `{expected}` in:\n{text}");
        }
        assert!(!text.contains('\u{202e}'), "{text}");
    });
}

#[test]
fn an_empty_audit_report_says_that_there_is_nothing() {
    let directory = dir();
    let page = report(directory.path(), "");
    in_all_views(&format!("file://{}", page.display()), "audit-report-empty", |browser, page| {
        let text = text(browser, page);
        assert!(text.contains("0 events of 0 kinds in 1 file"), "{text}");
    });
}
