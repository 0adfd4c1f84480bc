//! `exec --isolate`: a tool that knows nothing keeps its names and ports, and not one of its packets leaves.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::Command,
};

use certs_dev::Case;

use crate::support::{
    dir,
    exec::{Ended, Exec, go_client, is_root, output_without_proxy},
    gallery::Front,
};

const CURL: &[&str] = &["curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"];

/// Runs an isolated tool that may use this server under its name and its service's own port.
async fn run(front: &Front, flags: &[&str], tool: &[&str]) -> Ended {
    exec(front, flags).run(tool).await
}

fn exec(front: &Front, flags: &[&str]) -> Exec {
    let name = front.case.name();
    let to = format!("--connect-to={name}:9292={}", front.address);
    Exec::isolated().flags(&[format!("--allow={name}:9292"), to, "--log-level=error".into()]).flags(flags)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_capabilities_keeps_names_and_ports_and_is_verified() {
    let scratch = dir();
    let go = go_client(scratch.path());
    for tool in [CURL, &[&go]] {
        let (good, expired) = (Front::start(Case::Good).await, Front::start(Case::Expired).await);
        for (front, status, code) in [(&good, "200", 0), (&expired, "403", 120)] {
            let url = format!("http://{}:9292/", front.case.name());
            let ended = run(front, &["--fail-on-refusal"], &[tool, &[&url]].concat()).await;
            assert_eq!((ended.code, ended.out.trim()), (Some(code), status), "{ended:?}");
        }
        assert_eq!((good.counters.requests(), expired.counters.application_bytes()), (1, 0), "{tool:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_is_who_it_was_and_its_streams_status_and_death_are_its_own() {
    let front = Front::start(Case::Good).await;
    let script = "id -u; grep CapEff /proc/self/status; cat; exit 7";
    let ended = run(&front, &[], &["sh", "-c", script]).await;
    let user = if is_root() { "65534".to_owned() } else { rustix::process::getuid().as_raw().to_string() };
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert_eq!(ended.out, format!("{user}\nCapEff:\t0000000000000000\n"));
    let mut child = exec(&front, &[]).start(&["cat"]);
    child.stdin.take().unwrap().write_all(b"\x00bytes\xff").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"\x00bytes\xff");
    let ended = run(&front, &[], &["sh", "-c", "kill -TERM $$"]).await;
    assert_eq!((ended.code, ended.signal), (None, Some(15)), "{ended:?}");
    assert_eq!(run(&front, &[], &["/no/such/tool"]).await.code, Some(127));
    assert_eq!(run(&front, &[], &["/etc/passwd"]).await.code, Some(126));
    // Nothing of the channel, of the listeners and of the log is left open in the tool.
    let ended =
        run(&front, &[], &["sh", "-c", "for fd in /proc/self/fd/*; do readlink $fd; done | grep -c socket"]).await;
    assert_eq!(ended.out, "0\n", "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_verifies_what_is_allowed_by_name_and_port() {
    let (good, expired) = (Front::start(Case::Good).await, Front::start(Case::Expired).await);
    let ended = run(&good, &["--preflight"], &["echo", "ran"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "ran\n"), "{ended:?}");
    let ended = run(&expired, &["--preflight"], &["echo", "ran"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(125), ""), "{ended:?}");
    assert!(ended.err.contains("expired"), "{}", ended.err);
}

/// Loopback addresses are addresses like others: the server is found where it is, and has to prove the address.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_dialled_as_it_is() {
    let good = Front::start(Case::GoodIp).await;
    let allow = format!("--allow={}", good.address);
    let url = format!("http://{}/", good.address);
    let ended = Exec::isolated().flags(&[&allow]).run(&[CURL, &[&url]].concat()).await;
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "200", ""));
    let wrong = Front::start(Case::Good).await;
    let allow = format!("--allow={}", wrong.address);
    let url = format!("http://{}/", wrong.address);
    let ended = Exec::isolated().flags(&[&allow]).run(&[CURL, &[&url]].concat()).await;
    assert_eq!(ended.out, "403", "{ended:?}");
    assert!(ended.err.contains("ip_san_missing: 127.0.0.1:"), "{ended:?}");
    assert_eq!(wrong.counters.application_bytes(), 0);
}

/// What a tool may try that nobody allowed.
const TRIES: &str = r"
    for address in 203.0.113.9:22 203.0.113.9:22 10.0.0.1:8080 127.0.0.1:3306 '[2001:db8::1]:443'; do
        curl -sS --noproxy '*' --max-time 20 http://$address/ 2>/dev/null; echo status-$?
    done
    curl -sS --max-time 20 http://other.example/ 2>/dev/null; echo status-$?
    exec 3<>/dev/udp/192.0.2.7/8125 && echo metric >&3; echo metric >&3
";

#[tokio::test(flavor = "multi_thread")]
async fn everything_else_is_refused_at_once_and_named_at_the_end() {
    let front = Front::start(Case::Good).await;
    let ended = run(&front, &["--fail-on-refusal"], &["bash", "-c", &format!("{TRIES}\nexit 0")]).await;
    let refused = "status-7\n".repeat(5);
    assert_eq!((ended.code, ended.out), (Some(120), format!("{refused}status-6\n")), "{}", ended.err);
    for line in [
        "the tool also tried 203.0.113.9:22 2 times, and was refused; if it may go there, add --allow 203.0.113.9:22\n",
        "the tool also tried 10.0.0.1:8080, and was refused; if it may go there, add --allow 10.0.0.1:8080\n",
        "the tool also tried 127.0.0.1:3306, and was refused; if it may go there, add --allow 127.0.0.1:3306, or --pass 127.0.0.1:3306\n",
        "the tool also tried [2001:db8::1]:443, and was refused; if it may go there, add --allow [2001:db8::1]:443\n",
        "the tool asked for the address of `other.example`, which is not allowed; if it may go there, add --allow other.example:PORT\n",
    ] {
        assert!(ended.err.contains(&format!("vouchsafe: {line}")), "{line}{}", ended.err);
    }
    assert!(ended.err.contains("vouchsafe: the tool also sent UDP to 192.0.2.7:8125"), "{}", ended.err);
}

/// By its name, if the tool asked for it.
#[tokio::test(flavor = "multi_thread")]
async fn another_port_of_an_allowed_name_is_named_by_the_name() {
    let front = Front::start(Case::Good).await;
    let ended = run(&front, &[], &["curl", "-s", "http://good.gallery.test:8080/"]).await;
    let said = "vouchsafe: the tool also tried good.gallery.test:8080, and was refused; if it may go there, add --allow good.gallery.test:8080";
    assert!(ended.code == Some(7) && ended.err.contains(said), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_caught_is_answered_and_recorded_where_the_destination_is_not_allowed() {
    let front = Front::start(Case::Good).await;
    let url = "http://10.0.0.1:8080/";
    let ended = run(&front, &["--catch=8080"], &[CURL, &[url]].concat()).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "403"), "{ended:?}");
    assert!(ended.err.contains("1 request was refused (destination_denied: 10.0.0.1:8080)"), "{ended:?}");
    let ended = run(&front, &[], &[CURL, &[url]].concat()).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(7), "000"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_this_host_is_passed_as_it_is() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = service.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in service.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            stream.write_all(format!("echo {line}").as_bytes()).unwrap();
        }
    });
    let front = Front::start(Case::Good).await;
    let tool = format!("exec 3<>/dev/tcp/127.0.0.1/{}; echo hello >&3; cat <&3", address.port());
    let ended = run(&front, &[&format!("--pass={address}")], &["bash", "-c", &tool]).await;
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "echo hello\n", ""));
    let ended = run(&front, &[], &["bash", "-c", &tool]).await;
    assert!(ended.code != Some(0) && ended.out.is_empty(), "{ended:?}");
    let ended = run(&front, &["--pass=192.0.2.1:3306"], &["true"]).await;
    assert_eq!(ended.code, Some(125));
    assert!(ended.err.contains("only services of this host can be passed"), "{ended:?}");
}

/// A route inside and its server outside may have the same address.
#[tokio::test(flavor = "multi_thread")]
async fn routes_are_inside_and_may_have_the_ports_of_their_servers() {
    let front = Front::start(Case::Good).await;
    let authority = front.authority();
    let flags = [
        format!("--route={}=https://{authority}", front.address),
        format!("--route=glance-a=https://{authority}"),
        format!("--connect-to={authority}={}", front.address),
    ];
    let urls = [format!("http://{}/", front.address), "{glance-a.url}/".into()];
    for url in urls {
        let ended = Exec::isolated().flags(&flags).run(&[CURL, &[&url]].concat()).await;
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(0), "200", ""), "{url}");
    }
}

/// What a resolver of any kind may ask, by either transport.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_answered_by_datagram_and_stream_and_by_any_server() {
    const ASK: &str = r"
import socket, struct, sys
def question(name, kind):
    labels = b''.join(bytes([len(l)]) + l.encode() for l in name.split('.'))
    return struct.pack('!HHHHHH', 7, 0x100, 1, 0, 0, 0) + labels + b'\0' + struct.pack('!HH', kind, 1)
def udp(server, message):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)
    s.connect((server, 53)); s.send(message); return s.recv(999)
def tcp(server, message):
    s = socket.create_connection((server, 53), 20); s.sendall(struct.pack('!H', len(message)) + message)
    return s.recv(999)[2:]
for ask in udp, tcp:
    for name, kind in (('good.gallery.test', 1), ('good.gallery.test', 28), ('other.test', 1)):
        reply = ask('8.8.8.8', question(name, kind))
        print(ask.__name__, name, kind, 'code', reply[3] & 15, 'answers', reply[7], reply[-4:] if reply[7] else '')
";
    let front = Front::start(Case::Good).await;
    let ended = run(&front, &[], &["/usr/bin/python3", "-c", ASK]).await;
    let lines = |transport: &str| {
        format!(
            "{transport} good.gallery.test 1 code 0 answers 1 b'\\x7f\\xc8\\x00\\x01'\n{transport} good.gallery.test 28 code 0 answers 0 \n{transport} other.test 1 code 3 answers 0 \n"
        )
    };
    assert_eq!(ended.out, lines("udp") + &lines("tcp"), "{ended:?}");
}

/// The answer then goes to a port that nobody has, which is not the tool's doing.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_whose_answer_is_not_awaited_is_no_datagram_of_the_tool() {
    const ASK: &str = r"
import socket
question = bytes.fromhex('000701000001000000000000') + b'\x09localhost\0\0\1\0\1'
for is_awaited in [False] * 50 + [True]:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)
    s.sendto(question, ('9.9.9.9', 53))
    if is_awaited: s.recv(999)
    s.close()
";
    let front = Front::start(Case::Good).await;
    let ended = run(&front, &["--fail-on-refusal"], &["/usr/bin/python3", "-c", ASK]).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_not_answered_does_not_pass_for_a_success() {
    let front = Front::start(Case::Good).await;
    let flags = ["--fail-on-refusal", "--allow=glance.invalid:9292"];
    for (name, said) in [
        ("other.test", "asked for the address of `other.test`"),
        ("glance.invalid", "`glance.invalid` is allowed, but was not found"),
    ] {
        let tool = format!("curl -s http://{name}:9292/; exit 0");
        let ended = run(&front, &flags, &["sh", "-c", &tool]).await;
        assert!(ended.code == Some(120) && ended.err.contains(said), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_listed_at_the_end_is_counted() {
    let front = Front::start(Case::Good).await;
    let tool = "for port in $(seq 1001 1070); do (exec 3<>/dev/tcp/10.0.0.1/$port) 2>/dev/null; done; exit 0";
    let ended = run(&front, &[], &["bash", "-c", tool]).await;
    assert_eq!(ended.err.matches("the tool also tried").count(), 64, "{}", ended.err);
    assert!(ended.err.ends_with("vouchsafe: and 6 more, which are not listed\n"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_name_that_is_not_found_is_told() {
    let ended = Exec::isolated()
        .flags(&["--allow=glance.invalid:9292"])
        .run(&["curl", "-s", "http://glance.invalid:9292"])
        .await;
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert!(ended.err.contains("vouchsafe: `glance.invalid` is allowed, but was not found: "), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_killed_leaves_the_tool_without_a_way_out() {
    let front = Front::start(Case::Good).await;
    let tool =
        "echo $PPID; read line; curl -sS -w '%{http_code}' http://good.gallery.test:9292/ http://127.200.0.1:9292/";
    let child = exec(&front, &[]).start(&["sh", "-c", tool]);
    assert_eq!(output_without_proxy(child).await, "000000");
    assert_eq!(front.counters.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_namespaces_are_not_permitted_the_error_says_what_to_do() {
    // A user namespace in which nobody may make another one.
    let shell = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    let ended = Exec::isolated()
        .inside(&["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", shell, "sh"])
        .flags(&["--allow=a.example:9292"])
        .run(&["echo", "ran"])
        .await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(125), ""), "{ended:?}");
    let said = "error: --isolate: the system does not permit a namespace to this user: No space left on device (os error 28)\n  hint: raise `sysctl user.max_user_namespaces`, or use `vouchsafe exec` without --isolate\n";
    assert!(ended.err.ends_with(said), "{ended:?}");
}

#[tokio::test]
async fn settings_that_cannot_apply_are_errors() {
    for (flags, said) in [
        (&["--isolate"][..], "--isolate: no port leads to the proxy\n  hint: set --allow HOST:PORT"),
        (&["--isolate", "--allow=a.example:1", "--tool-no-proxy=b"], "--tool-no-proxy"),
        (&["--catch=80"], "--isolate"),
        (&["--pass=127.0.0.1:1"], "--isolate"),
    ] {
        let ended = Exec::new().flags(flags).run(&["echo", "ran"]).await;
        assert_eq!((ended.code, ended.out.as_str()), (Some(125), ""), "{ended:?}");
        assert!(ended.err.contains(said), "{ended:?}");
    }
    let flags = ["--isolate", "--allow=a.example:9292", "--forward=127.0.0.1:0"];
    let ended = Exec::new().flags(&flags).run(&["sh", "-c", "echo http_proxy=$http_proxy"]).await;
    assert_eq!(ended.out, "http_proxy=\n");
    assert!(
        ended.err.contains("--forward has no effect: with --isolate every address leads to the proxy"),
        "{ended:?}"
    );
}

/// A namespace with one interface to others, which takes every packet and counts it. Without IPv6 it sends none by
/// itself.
const COUNTED: &str = r#"
    ip link set lo up && ip link add out type veth peer name far &&
    sysctl -qw net.ipv6.conf.out.disable_ipv6=1 net.ipv6.conf.far.disable_ipv6=1 && ip link set far up &&
    ip address add 192.0.2.1/24 dev out && ip link set out up && ip route add default dev out || exit 99
    sent() { awk '$1 ~ /out:/ { print $11 }' /proc/net/dev; }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_packet_of_the_tool_leaves_its_namespace() {
    let bundle = crate::support::gallery::bundle(certs_dev::Bundle::Root);
    let program = crate::support::proxy::program();
    let count = |tool: &str| {
        let script = format!(
            "{COUNTED} before=$(sent); {tool} >/dev/null 2>&1; after=$(sent); echo counted $((after - before))"
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "bash", "-c", &script]);
        crate::support::proxy::without_ambient(&mut command);
        command.env("TRIES", TRIES);
        let output = command.output().expect("unshare");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let counted = text.trim().strip_prefix("counted ").and_then(|count| count.parse::<u64>().ok());
        counted.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    };
    let exec = format!("{} exec --ca-bundle {bundle} --log-level error", program.display());
    // The same tool in the same place does send packets, so they are counted.
    let open = count("timeout 3 bash -c \"$TRIES\"");
    assert!(open > 0, "the interface counts nothing");
    let isolated = count(&format!("{exec} --isolate --allow 192.0.2.99:9292 -- bash -c \"$TRIES\""));
    assert_eq!(isolated, 0, "packets left, of {open} without isolation");
    // What is allowed leaves, and by the proxy.
    let allowed =
        format!("{exec} --connect-timeout 1s --isolate --allow 192.0.2.99:9292 -- curl -s http://192.0.2.99:9292/");
    assert!(count(&allowed) > 0);
}
