//! Pages for people in a real browser: at two widths, light and dark, whole without anything from elsewhere, and with
//! text from hostile servers shown as text.

use std::path::{Path, PathBuf};

use certs_dev::{
    Authority, Bundle, Case, Identity,
    pki::{CaSpec, LeafSpec, Validity, self_signed},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::{
    report_only::ahead,
    support::{
        browser::{Browser, Page, View},
        command::vouchsafe,
        dir,
        gallery::{self, Front},
        hostile::serve,
        origin::exchange,
        proxy::Proxy,
    },
};

/// What a hostile server could call itself.
const HOSTILE: &str = "CN=<script>window.owned=1</script><img src=x onerror=window.owned=1>\"'&\u{202e}moc.elpmaxe";

/// Looks at a page in all views: nothing is wrong in it, and it is as wide as the window. `look` may look further.
fn in_all_views(url: &str, name: &str, mut look: impl FnMut(&mut Browser, &Page)) {
    let mut browser = Browser::start();
    for view in View::ALL {
        let page = browser.open(url, view);
        let what = format!("{name} {view:?}");
        keep_picture(&mut browser, &page, &format!("{name}-{}", view.name()));
        assert!(page.problems.is_empty(), "{what}: {:#?}", page.problems);
        let elsewhere: Vec<_> = page.requests.iter().filter(|of| *of != url && !of.starts_with("data:")).collect();
        assert!(elsewhere.is_empty(), "{what}: {elsewhere:?}");
        let wide = format!(
            "Array.from(document.body.querySelectorAll('*')).filter(one => !one.closest('.scroll') && \
             one.getBoundingClientRect().right > {}).map(one => one.outerHTML.slice(0, 200))",
            view.width
        );
        assert_eq!(browser.evaluate(&page, &wide), json!([]), "{what} is wider than the window");
        assert_eq!(browser.evaluate(&page, "document.scrollingElement.scrollWidth"), view.width, "{what}");
        let dark = browser.evaluate(&page, "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)[0] < 128");
        assert_eq!(dark, view.dark, "{what}: the background");
        look(&mut browser, &page);
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
        browser.screenshot(page, 820, &shown);
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

/// An installation with each kind of upstream, and an hour of its traffic.
struct Installation {
    proxy: Proxy,
    _directory: TempDir,
}

/// Upstreams by the names that clients use, in the order of [`Installation::identities`].
const UPSTREAMS: [&str; 6] = [
    "glance-a.example:9292",
    "glance-b.example:9292",
    "keystone.example:5000",
    "swift.example:8080",
    "images.evil.example:443",
    "object-store-for-backups-of-the-second-region.internal.cloud.example:8080",
];

impl Installation {
    async fn start() -> Self {
        let now = OffsetDateTime::now_utc();
        let directory = dir();
        let of = |name: &str| directory.path().join(name);
        let root = Authority::root("Example Root", now).unwrap();
        let old = CaSpec { validity: Validity::days(now, -4000, -400), ..CaSpec::root("Example Root of 2015", now) };
        let old = Authority::self_signed(&old).unwrap();
        std::fs::write(of("ca.pem"), format!("{}{}", root.certificate_pem(), old.certificate_pem())).unwrap();
        let mut connect_to = Vec::new();
        for (upstream, identity) in UPSTREAMS.iter().zip(Self::identities(&root, now)) {
            let (address, _) = serve(&identity).await;
            connect_to.push(format!("\"{upstream}={address}\""));
        }
        let config = format!(
            "ca_bundle = \"ca.pem\"\nadmin = \"127.0.0.1:0\"\npool_size = 0\nforward = \"127.0.0.1:0\"\n\
             allow = [\"glance-a.example:9292\", \"glance-b.example:9292\", \"keystone.example:5000\", \"swift.example:8080\", \
             \"images.evil.example:443\", \"*.cloud.example\", \"heat.example:8004\"]\nconnect_to = [{}]\n\
             [[upstream]]\nof = \"swift.example:8080\"\nreport_only_until = {}\n",
            connect_to.join(", "),
            (now + Duration::days(20)).date()
        );
        std::fs::write(of("vouchsafe.toml"), config).unwrap();
        let clock = MovedClock(of("clock"));
        clock.set(-3600);
        // Names of files are shown as they are configured.
        let mut start = vec!["env".to_owned(), "-C".into(), directory.path().display().to_string()];
        start.extend(clock.variables());
        let proxy = Proxy::start_under(&start, &["--config", "vouchsafe.toml"]);
        for minute in 0..60 {
            clock.set(60 * (minute - 59));
            for (number, upstream) in UPSTREAMS.iter().enumerate() {
                for _ in 0..Self::requests(number, minute) {
                    let request =
                        format!("GET http://{upstream}/ HTTP/1.1\r\nHost: {upstream}\r\nConnection: close\r\n\r\n");
                    let status = exchange(proxy.addr(0), request.as_bytes()).await.status();
                    assert_eq!(status, if [1, 4].contains(&number) { 403 } else { 200 }, "{upstream}");
                }
            }
        }
        Self { proxy, _directory: directory }
    }

    /// One that is good, one that has expired, one that expires within days, one for another name, which is only
    /// reported, one that is hostile, and one with a long name.
    fn identities(root: &Authority, now: OffsetDateTime) -> [Identity; 6] {
        let issuer = root.intermediate("Example Issuing CA", now).unwrap();
        let issue = |common_name: &str, name: &str, from: i64, until: i64| {
            let validity = Validity::days(now, from, until);
            issuer.issue(&LeafSpec { validity, ..LeafSpec::new(common_name, now).dns(name) }).unwrap()
        };
        let subject = HOSTILE.strip_prefix("CN=").unwrap();
        [
            issue("glance-a.example", "glance-a.example", -10, 80),
            issue("glance-b.example", "glance-b.example", -100, -10),
            issue("keystone.example", "keystone.example", -85, 5),
            issue("apps.example", "*.apps.example", -20, 345),
            self_signed(&LeafSpec::new(subject, now).dns("images.evil.example")).unwrap(),
            issue("Object store", "*.internal.cloud.example", -5, 25),
        ]
    }

    /// How many requests clients make of an upstream within a minute.
    fn requests(upstream: usize, minute: i64) -> i64 {
        match upstream {
            0 => 1 + (minute * 7) % 4,
            1 => i64::from((20..50).contains(&minute)) * ((minute * 5) % 3),
            4 => i64::from(minute == 57) * 2,
            _ => i64::from(minute % 20 == 3),
        }
    }

    fn page(&self) -> String {
        format!("http://{}/", self.proxy.admin())
    }
}

/// A clock of the wall that a test moves in a running program.
struct MovedClock(PathBuf);

impl MovedClock {
    /// The assignments of variables under which a program goes by it.
    fn variables(&self) -> Vec<String> {
        let variables = ahead(0).into_iter().filter(|(name, _)| name != "FAKETIME");
        let file = ("FAKETIME_TIMESTAMP_FILE".to_owned(), self.0.display().to_string());
        let variables = variables.chain([file, ("FAKETIME_NO_CACHE".into(), "1".into())]);
        variables.map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Sets it so many seconds ahead.
    fn set(&self, seconds: i64) {
        // A rename is whole.
        let partial = self.0.with_extension("new");
        std::fs::write(&partial, format!("{seconds:+}s\n")).unwrap();
        std::fs::rename(&partial, &self.0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_page_can_be_read_anywhere() {
    let installation = Installation::start().await;
    let events = installation.proxy.audit();
    let last = |upstream: &str| events.iter().rfind(|event| event["vouchsafe.upstream"] == upstream).unwrap();
    in_all_views(&installation.page(), "admin-page", |browser, page| {
        let found = "[document.querySelectorAll('script').length, document.querySelectorAll('img, iframe, [onerror]').length, \
                     window.owned ?? 0, document.querySelectorAll('details[open]').length]";
        assert_eq!(
            browser.evaluate(page, found),
            json!([1, 0, 0, 0]),
            "one script, nothing of a certificate's, all folded"
        );
        let bars = "Array.from(document.querySelectorAll('figure'), figure => figure.querySelectorAll('rect').length)";
        let bars = browser.evaluate(page, bars);
        let at_least = [15, 50, 12];
        assert!(at_least.iter().enumerate().all(|(n, least)| bars[n].as_u64() >= Some(*least)), "{bars}");
        let wrapped = "Array.from(document.querySelectorAll('td.when:not(:has(*))')).filter(cell => { const range = document.createRange(); \
                       range.selectNodeContents(cell); return range.getClientRects().length != 1 }).length";
        assert_eq!(browser.evaluate(page, wrapped), 0, "times that are broken over lines");

        let chain = |browser: &mut Browser| browser.evaluate(page, "document.querySelector('details').innerText");
        assert_eq!(chain(browser).as_str().unwrap().lines().count(), 1);
        browser.evaluate(page, "document.querySelector('summary').click()");
        assert!(chain(browser).as_str().unwrap().contains("issued by CN=Example Issuing CA"));
        browser.evaluate(page, "document.querySelector('summary').click()");

        let text = text(browser, page);
        browser.evaluate(page, "document.querySelectorAll('details').forEach(details => details.open = false)");
        for expected in [
            "Refused: glance-b.example:9292, images.evil.example:443",
            "What to do: ",
            "heat.example:8004",
            UPSTREAMS[5],
            r"CN=\<script\>window.owned=1\</script\>\<img src=x onerror=window.owned=1\>",
            r"\E2\80\AEmoc.elpmaxe",
            "refused: expired",
            "bypassed: name_mismatch",
            "report-only for swift.example:8080",
            "the certificate `CN=keystone.example` of keystone.example:5000",
            "expires in 4 days",
            "Not listed: 1 thing expired before. The last was the certificate `CN=glance-b.example` of glance-b.example:9292",
            last("glance-b.example:9292")["event.id"].as_str().unwrap(),
            last("images.evil.example:443")["event.id"].as_str().unwrap(),
        ] {
            assert!(text.contains(expected), "no `{expected}` in:\n{text}");
        }
        assert!(!text.contains('\u{202e}'), "{text}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_page_without_anything_to_show_says_so() {
    let proxy =
        Proxy::start(&["--admin=127.0.0.1:0", "--forward=127.0.0.1:0", "--ca-bundle", &gallery::bundle(Bundle::Root)]);
    in_all_views(&format!("http://{}/", proxy.admin()), "admin-page-empty", |browser, page| {
        let text = text(browser, page);
        for expected in [
            "No upstream has been connected to yet",
            "No upstream is configured, and none was connected to yet.",
            "Nothing was refused in the last hour.",
            "There has been no refusal or other event since the start.",
        ] {
            assert!(text.contains(expected), "no `{expected}` in:\n{text}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_page_refreshes_itself_and_says_if_it_cannot() {
    let front = Front::start(Case::Expired).await;
    let flags =
        [vec!["--admin=127.0.0.1:0".into(), "--ca-bundle".into(), gallery::bundle(Bundle::Root)], front.route()];
    let proxy = Proxy::start(&flags.concat());
    let url = format!("http://{}/", proxy.admin());
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(proxy.addr(0), request).await.status(), 403);
    let (mut browser, mut plain) = (Browser::start(), Browser::start().without_scripts());
    let page = browser.open(&url, View::ALL[0]);
    let without_script = plain.open(&url, View::ALL[0]);
    let refusals = "document.querySelectorAll('.sums b')[1].innerText";
    assert_eq!(browser.evaluate(&page, refusals), "1");

    // What is open and focused stays so.
    browser.evaluate(&page, "document.querySelector('summary').click(), document.querySelector('summary').focus()");
    assert_eq!(exchange(proxy.addr(0), request).await.status(), 403);
    browser.evaluate(&page, "update()");
    assert_eq!(browser.evaluate(&page, refusals), "2");
    let kept = "[document.querySelector('details').open, document.activeElement.tagName, stale.hidden]";
    assert_eq!(browser.evaluate(&page, kept), json!([true, "SUMMARY", true]));
    browser.evaluate(&page, "getSelection().selectAllChildren(document.querySelector('h1'))");
    assert_eq!(exchange(proxy.addr(0), request).await.status(), 403);
    browser.evaluate(&page, "update()");
    assert_eq!(browser.evaluate(&page, refusals), "2", "a selection is not taken away");

    assert_eq!(proxy.stop().code(), Some(0));
    browser.evaluate(&page, "update()");
    let says = text(&mut browser, &page);
    assert!(
        says.contains("This page cannot be refreshed, and shows old figures: ") && says.contains("every 5 seconds")
    );

    // A page without script is the same but for that.
    let says = text(&mut plain, &without_script);
    assert!(says.contains("Reload the page for newer figures.") && says.contains("issued by "), "{says}");
    assert_eq!(plain.evaluate(&without_script, "typeof update"), "undefined");
}
