//! The clients of today and of 2012 at a cloud whose catalog has `https` URLs: every call comes out as it does directly,
//! and nothing goes past the proxy.

use crate::support::{
    cloud::{Clients, Cloud, OLD, TODAY, ToolEnd, run, run_script},
    glance15::is_available,
    proxy::Proxy,
    replicator::roomy_dir,
};

fn proxy(cloud: &Cloud, more: &[String]) -> Proxy {
    Proxy::start(&[cloud.flags(), vec!["--preset=openstack".into()], more.to_vec()].concat())
}

/// The flags of a mirror of the whole cloud.
fn mirror(cloud: &Cloud) -> Vec<String> {
    vec![format!("--mirror=127.0.0.2=127.0.0.1:{}", cloud.ports())]
}

/// Asserts that a call shows what it shows directly.
fn assert_same(direct: &ToolEnd, end: &ToolEnd) {
    assert!(end.success && end.out == direct.out, "directly: {direct:#?}\nthrough the proxy: {end:#?}");
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
        assert!(end.success && !end.out.trim().is_empty(), "{end:#?}");
    }
    // What counts is counted.
    assert!(cloud.connections_past() >= TODAY.len());

    let mirrored = proxy(&cloud, &mirror(&cloud));
    for (direct, call) in direct.iter().zip(TODAY) {
        assert_same(direct, &run(Clients::Today, call, &[("OS_AUTH_URL", keystone("http://127.0.0.2", "v3"))]));
        assert_nothing_past(&cloud, call);
    }
    for (call, shown) in OLD {
        let end = run(Clients::Old, call, &[("OS_AUTH_URL", keystone("http://127.0.0.2", "v2.0"))]);
        assert!(end.success && end.out.contains(shown), "{end:#?}");
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
        assert!(end.success && end.out.contains(shown), "{end:#?}");
        assert_nothing_past(&cloud, call);
    }
    assert!(forward.audit().is_empty());
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
    assert!(!end.success && cloud.connections_past() > 0, "{end:#?}");
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

    let before = cloud.endpoints();
    let _proxy = proxy(&cloud, &mirror(&cloud));
    let end = run_script("edit_endpoints.py", &variables);
    assert!(end.success && end.out.lines().count() == before.as_array().unwrap().len(), "{end:#?}");
    assert_eq!(cloud.endpoints(), before);
    assert_nothing_past(&cloud, "edit_endpoints.py");
}
