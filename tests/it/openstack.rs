//! The clients of today and of 2012 at a cloud whose catalog has `https` URLs: every call comes out as it does directly,
//! and nothing goes past the proxy.

use crate::support::{
    cloud::{Clients, Cloud, OLD, TODAY, ToolEnd, run, run_script, run_under},
    gallery,
    glance15::is_available,
    proxy::{Proxy, program},
    replicator::roomy_dir,
};

fn proxy(cloud: &Cloud, more: &[String]) -> Proxy {
    Proxy::start(&[cloud.flags(), vec!["--preset=openstack".into()], more.to_vec()].concat())
}

/// The flags of a mirror of the whole cloud.
fn mirror(cloud: &Cloud) -> Vec<String> {
    vec![format!("--mirror=127.0.0.2=127.0.0.1:{}", cloud.ports())]
}

/// The first command of docs/openstack.md, for this cloud: its host, its ports, and where its CA is.
fn as_the_page_has_it(cloud: &Cloud) -> Vec<String> {
    let commands = page_commands();
    let (program, flags) = commands[0].split_first().unwrap();
    assert_eq!((program.as_str(), flags[0].as_str()), ("vouchsafe", "run"));
    let adapted = flags[1..].iter().map(|flag| {
        let flag = flag.replace("devstack.example", &format!("127.0.0.1:{}", cloud.ports()));
        flag.replace("/opt/stack/data/ca-bundle.pem", &cloud.bundle().display().to_string())
    });
    adapted.chain(cloud.flags().into_iter().skip(1)).collect()
}

/// What it exports for the client, with the port of this cloud's Keystone.
fn auth_url_of_the_page(cloud: &Cloud) -> String {
    let line = PAGE.lines().find_map(|line| line.strip_prefix("export OS_AUTH_URL=")).unwrap();
    line.replace(":5000", &format!(":{}", cloud.keystone_port()))
}

const PAGE: &str = include_str!("../../docs/openstack.md");

/// The commands of the page, in words.
fn page_commands() -> Vec<Vec<String>> {
    let blocks = PAGE.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let joined = blocks.map(|block| block.replace("\\\n", " "));
    let lines: Vec<String> = joined.flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let lines = lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty());
    let words = |line: &str| line.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect();
    lines.map(words).collect()
}

/// Asserts that a call shows what it shows directly.
fn assert_same(direct: &ToolEnd, end: &ToolEnd) {
    assert!(end.success && end.out == direct.out, "directly: {direct:#?}\nthrough the proxy: {end}");
}

fn assert_nothing_past(cloud: &Cloud, call: &str) {
    assert_eq!(cloud.connections_past(), 0, "{call}: past the proxy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_of_the_clients_works_and_none_goes_past_the_proxy() {
    if !is_available("every_call_of_the_clients_works_and_none_goes_past_the_proxy") {
        return;
    }
    let dir = roomy_dir();
    let cloud = Cloud::start(dir.path(), "https").await;
    let keystone = |host: &str, version: &str| format!("{host}:{}/{version}", cloud.keystone_port());
    let directly =
        [("OS_AUTH_URL", keystone("https://127.0.0.1", "v3")), ("OS_CACERT", cloud.bundle().display().to_string())];
    let direct: Vec<ToolEnd> = TODAY.iter().map(|call| run(Clients::Today, call, &directly)).collect();
    for end in &direct {
        assert!(end.success && !end.out.trim().is_empty(), "{end}");
    }
    // What counts is counted.
    assert!(cloud.connections_past() >= TODAY.len());

    let mirrored = Proxy::start(&as_the_page_has_it(&cloud));
    for (direct, call) in direct.iter().zip(TODAY) {
        assert_same(direct, &run(Clients::Today, call, &[("OS_AUTH_URL", auth_url_of_the_page(&cloud))]));
        assert_nothing_past(&cloud, call);
    }
    for (call, shown) in OLD {
        let end = run(Clients::Old, call, &[("OS_AUTH_URL", keystone("http://127.0.0.2", "v2.0"))]);
        assert!(end.success && end.out.contains(shown), "{end}");
        assert_nothing_past(&cloud, call);
    }
    let log = mirrored.raw_log();
    assert!(!log.contains("catalog_endpoint"), "{log}");
    assert!(mirrored.audit().is_empty());

    let forward = proxy(&cloud, &["--forward=127.0.0.1:0".into(), "--allow=127.0.0.0/8".into()]);
    let http_proxy = ("http_proxy", format!("http://{}", forward.addr(0)));
    for (direct, call) in direct.iter().zip(TODAY) {
        let variables = [("OS_AUTH_URL", keystone("http://127.0.0.1", "v3")), http_proxy.clone()];
        assert_same(direct, &run(Clients::Today, call, &variables));
        assert_nothing_past(&cloud, call);
    }
    // Those of the old clients that obey `http_proxy`: with CONNECT, and plain HTTP inside.
    for (call, shown) in OLD.iter().filter(|(call, _)| call.starts_with("keystone") || call.starts_with("cinder")) {
        let variables = [("OS_AUTH_URL", keystone("http://127.0.0.1", "v2.0")), http_proxy.clone()];
        let end = run(Clients::Old, call, &variables);
        assert!(end.success && end.out.contains(shown), "{end}");
        assert_nothing_past(&cloud, call);
    }
    assert!(forward.audit().is_empty());

    // By a tool that knows nothing of a proxy: the catalog's own addresses and ports lead to it.
    let isolated = isolated(&cloud);
    for (direct, call) in direct.iter().zip(TODAY) {
        let variables = [("OS_AUTH_URL", keystone("http://127.0.0.1", "v3"))];
        assert_same(direct, &run_under(&isolated, Clients::Today, call, &variables));
        assert_nothing_past(&cloud, call);
    }
    for (call, shown) in OLD {
        let variables = [("OS_AUTH_URL", keystone("http://127.0.0.1", "v2.0"))];
        let end = run_under(&isolated, Clients::Old, call, &variables);
        assert!(end.success && end.out.contains(shown), "{end}");
        assert_nothing_past(&cloud, call);
    }
}

/// The words that run a tool isolated, with all of the cloud allowed.
fn isolated(cloud: &Cloud) -> Vec<String> {
    let allowed = cloud.ports().split(',').map(|port| format!("--allow=127.0.0.1:{port}")).collect();
    let words = [program().display().to_string(), "exec".into(), "--isolate".into(), "--preset=openstack".into()];
    [words.to_vec(), cloud.flags(), allowed, vec!["--".into()]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn without_rewriting_clients_go_past_and_with_it_an_administrator_leaves_the_catalog_as_it_was() {
    if !is_available("without_rewriting_clients_go_past_and_with_it_an_administrator_leaves_the_catalog_as_it_was") {
        return;
    }
    let dir = roomy_dir();
    let cloud = Cloud::start(dir.path(), "https").await;
    let variables = [("OS_AUTH_URL", format!("http://127.0.0.2:{}/v3", cloud.keystone_port()))];
    let list = TODAY.iter().find(|call| call.contains("server list")).unwrap();

    let plain = Proxy::start(&[cloud.flags(), mirror(&cloud)].concat());
    let end = run(Clients::Today, list, &variables);
    assert!(!end.success && cloud.connections_past() > 0, "{end}");
    drop(plain);

    // A service without a route is named in the log, and what it is called there is where the client goes.
    let ports = cloud.ports();
    let some: Vec<&str> = ports.split(',').collect();
    let partly = proxy(&cloud, &[format!("--mirror=127.0.0.2=127.0.0.1:{}", some[..2].join(","))]);
    assert!(!run(Clients::Today, list, &variables).success);
    assert!(cloud.connections_past() > 0);
    let endpoint = format!("https://127.0.0.1:{}", some[3]);
    partly.wait_for_log("the endpoint", |event| {
        event["class"] == "catalog_endpoint_not_served" && event["endpoint"] == endpoint.as_str()
    });
    drop(partly);

    check_names_what_is_missing(&cloud);

    let before = cloud.endpoints();
    let _proxy = proxy(&cloud, &mirror(&cloud));
    let end = run_script("edit_endpoints.py", &variables);
    assert!(end.success && end.out.lines().count() == before.as_array().unwrap().len(), "{end}");
    assert_eq!(cloud.endpoints(), before);
    assert_nothing_past(&cloud, "edit_endpoints.py");
}

/// `check --catalog` at this cloud: with settings that serve a part of it, and with those that it asks for.
fn check_names_what_is_missing(cloud: &Cloud) {
    let ports = cloud.ports();
    let ports: Vec<&str> = ports.split(',').collect();
    let all = |more: Vec<String>| [vec!["check".into(), "--catalog".into()], cloud.flags(), more].concat();
    let (code, text) = cloud.check(&all([mirror(cloud), vec!["--preset=openstack".into()]].concat()), &[]);
    assert_eq!(code, Some(0), "{text}");
    for port in &ports {
        let served = format!("https://127.0.0.1:{port}\n");
        assert!(text.contains(&served) && text.contains(&format!("✔ served by http://127.0.0.2:{port}\n")), "{text}");
    }
    assert!(text.contains("  image (") && !text.contains('✘'), "{text}");

    // Keystone and Glance alone; what is missing is told as flags, and they are all that is missing.
    let part = vec![format!("--mirror=127.0.0.2=127.0.0.1:{}", ports[..3].join(","))];
    let (code, text) = cloud.check(&all(part.clone()), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(text.matches("✘ not served: clients go past vouchsafe to it").count(), ports.len() - 3, "{text}");
    let flags = text.split_once("missing flags:\n").unwrap_or_else(|| panic!("{text}")).1;
    let flags: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
    assert_eq!(flags.len(), 2 * (ports.len() - 3 + 1), "{text}");
    let (code, text) = cloud.check(&all([part.clone(), flags].concat()), &[]);
    assert_eq!(code, Some(0), "{text}");
    let (code, json) = cloud.check(&all([part, vec!["--json".into()]].concat()), &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|_| panic!("{json}"));
    assert_eq!((code, json["servers"].as_array().unwrap().len()), (Some(1), ports.len()), "{json}");

    let v2 = format!("https://127.0.0.1:{}/v2.0", cloud.keystone_port());
    let (code, text) =
        cloud.check(&all([mirror(cloud), vec!["--preset=openstack".into()]].concat()), &[("OS_AUTH_URL", &v2)]);
    assert_eq!(code, Some(0), "{text}");
    let forward = ["--forward=127.0.0.1:0", "--allow=127.0.0.0/8", "--preset=openstack"].map(str::to_owned).to_vec();
    let (code, text) = cloud.check(&all(forward), &[("OS_AUTH_URL", &v2)]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("✔ served by the forward listener"), "{text}");

    // A wrong password, and a Keystone that is not trusted: it is not told the password.
    let (code, text) = cloud.check(&all(mirror(cloud)), &[("OS_PASSWORD", "wrong-secret")]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("it answered 401") && !text.contains("wrong-secret"), "{text}");
    let other = format!("--ca-bundle={}", gallery::bundle(certs_dev::Bundle::Root));
    let untrusted =
        [vec!["check".into(), "--catalog".into(), other], cloud.flags().split_off(1), mirror(cloud)].concat();
    let (code, text) = cloud.check(&untrusted, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("unknown_issuer"), "{text}");
    let (code, text) = cloud.check(&all(mirror(cloud)), &[("OS_USERNAME", "")]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("OS_USERNAME is not set"), "{text}");
}
