//! The alerts and the dashboard of deploy/prometheus, held against `promtool`, a real `/metrics`, and a real Prometheus.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use certs_dev::{Bundle, Case};
use serde_json::Value;
use time::OffsetDateTime;

use crate::support::{
    self,
    gallery::{self, Front, GALLERY},
    local_ca::LocalCa,
    origin::exchange,
    proxy::{PATIENCE, Proxy},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus").join(name)
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    for (what, file) in [("check", "vouchsafe.rules.yml"), ("test", "vouchsafe.rules.test.yml")] {
        let output = Command::new("promtool").args([what, "rules"]).arg(deployed(file)).output().expect("promtool");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn every_alert_has_a_test_and_a_line_in_the_documentation() {
    let (rules, tests) = (text("vouchsafe.rules.yml"), text("vouchsafe.rules.test.yml"));
    let documentation = include_str!("../../docs/prometheus.md");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("alertname: {alert}")), "{alert} is not tested");
        assert!(documentation.contains(&format!("| `{alert}` |")), "{alert} is not documented");
    }
}

fn text(name: &str) -> String {
    fs::read_to_string(deployed(name)).unwrap()
}

/// The names of series in expressions.
fn names(expressions: &str) -> BTreeSet<String> {
    let words = expressions.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    words.filter(|word| word.starts_with("vouchsafe_") || word.starts_with("process_")).map(str::to_owned).collect()
}

/// The expressions of a dashboard: of its panels and of its variables.
fn expressions(dashboard: &Value, found: &mut String) {
    match dashboard {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| match (key.as_str(), value) {
            ("expr" | "query", Value::String(text)) => *found += &format!("{text}\n"),
            _ => expressions(value, found),
        }),
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// A proxy with everything that has metrics, the address of its admin listener, and a server that it refuses.
struct Scraped {
    proxy: Proxy,
    refused: Front,
    _ca: LocalCa,
    _directory: tempfile::TempDir,
}

impl Scraped {
    async fn start() -> Self {
        let refused = Front::start(Case::Expired).await;
        let (directory, ca) = (support::dir(), LocalCa::new(&["other.test"]));
        let client = directory.path().join("client.pem");
        let identity = GALLERY.identity(Case::WrongPurpose).unwrap();
        fs::write(&client, identity.chain_pem() + &identity.key_pem()).unwrap();
        let config = directory.path().join("vouchsafe.toml");
        let day = (OffsetDateTime::now_utc() + time::Duration::days(3)).date();
        let text = format!(
            "ca_bundle = \"{}\"\nroute = \"127.0.0.1:0=https://{of}\"\nconnect_to = \"{of}={}\"\nadmin = \"127.0.0.1:0\"\n\
             client_cert = \"{}\"\ncrl = \"{}\"\nlocal_ca = \"{}\"\nforward = \"127.0.0.1:0\"\nallow = \"other.test:443\"\n\
             [[upstream]]\nof = \"other.test\"\nreport_only_until = {day}\n",
            gallery::bundle(Bundle::Root),
            refused.address,
            client.display(),
            gallery::crl(),
            ca.path(),
            of = refused.authority(),
        );
        fs::write(&config, text).unwrap();
        let proxy = Proxy::start(&["--config", config.to_str().unwrap()]);
        Self { proxy, refused, _ca: ca, _directory: directory }
    }

    async fn refuse(&self) {
        assert_eq!(exchange(self.proxy.addr(0), GET).await.status(), 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_rules_and_dashboard_is_one_of_a_running_proxy() {
    let scraped = Scraped::start().await;
    scraped.refuse().await;
    let request = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let metrics = exchange(scraped.proxy.admin(), request).await.text();
    let exposed: BTreeSet<_> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect();
    let mut dashboard = String::new();
    expressions(&serde_json::from_str(&text("grafana-dashboard.json")).unwrap(), &mut dashboard);
    for (file, expressions) in [("rules", text("vouchsafe.rules.yml")), ("dashboard", dashboard)] {
        let names = names(&expressions);
        assert!(names.len() > 10, "{names:?}");
        let missing: Vec<_> = names.difference(&exposed).collect();
        assert!(missing.is_empty(), "{file}: {missing:?} in\n{metrics}");
    }
}

/// A Prometheus that scrapes every second; killed when it is dropped.
struct Prometheus {
    child: Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: &str) -> Self {
        let directory = support::dir();
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [\"{}\"]\nscrape_configs:\n  \
             - job_name: vouchsafe\n    static_configs: [{{targets: [\"{target}\"]}}]\n",
            deployed("vouchsafe.rules.yml").display()
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=logfmt"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus");
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut seen = Vec::new();
        let address = log.by_ref().find_map(|line| {
            let address = line.split_once("msg=\"Listening on\" address=").map(|(_, address)| address.to_owned());
            seen.push(line);
            address
        });
        let address = address.unwrap_or_else(|| panic!("it does not listen:\n{}", seen.join("\n")));
        // It must not block on a pipe that nobody reads.
        std::thread::spawn(move || log.for_each(drop));
        let url = format!("http://{}/api/v1/query", address.split_whitespace().next().unwrap());
        Self { child, url, _directory: directory }
    }

    /// The labels of the series of an expression, once there are any.
    async fn query(&self, expression: &str) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = Command::new("curl")
                .args(["-sS", "--max-time", "10", "--noproxy", "*", "-G", &self.url, "--data-urlencode"])
                .arg(format!("query={expression}"))
                .output()
                .expect("curl");
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let found = answer["data"]["result"].as_array().cloned().unwrap_or_default();
            if !found.is_empty() {
                return found.into_iter().map(|series| series["metric"].clone()).collect();
            }
            assert!(Instant::now() < deadline, "{expression} has no result: {answer} {output:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_scrapes_it_and_its_alerts_fire() {
    let scraped = Scraped::start().await;
    let prometheus = Prometheus::start(&scraped.proxy.admin().to_string());
    let info = prometheus.query("vouchsafe_build_info").await;
    assert_eq!(info[0]["version"], env!("CARGO_PKG_VERSION"));
    let upstream = scraped.refused.authority();
    // The series was there before the refusal, so that the first one counts.
    prometheus.query(&format!("vouchsafe_refusals_total{{upstream=\"{upstream}\", code=\"expired\"}} == 0")).await;
    scraped.refuse().await;
    for (alert, code) in [("VouchsafeRefusing", Some("expired")), ("VouchsafeUpstreamCertificateExpired", None)] {
        let firing = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\", upstream=\"{upstream}\"}}");
        let series = prometheus.query(&firing).await;
        assert_eq!((series.len(), series[0]["code"].as_str()), (1, code), "{series:?}");
    }
}
