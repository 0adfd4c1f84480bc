//! `vouchsafe exec`: the tool notices nothing, and nothing that was refused passes for a success.

use std::{
    io::Write,
    net::TcpListener,
    process::{Command, Stdio},
};

use certs_dev::Case;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    dir,
    exec::{Ended, Exec, go_client, output_without_proxy},
    gallery::Front,
    origin::{Origin, Step, send},
    pty::Terminal,
};

#[tokio::test]
async fn status_streams_and_death_are_the_tools_own() {
    let ended = Exec::new().run(&["sh", "-c", "cat; printf out; printf err >&2; exit 7"]).await;
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (Some(7), "out", "err"));

    let ended = Exec::new().run(&["sh", "-c", "kill -TERM $$"]).await;
    assert_eq!((ended.code, ended.signal), (None, Some(15)), "{ended:?}");
    let ended = Exec::new().run(&["sh", "-c", "kill -KILL $$"]).await;
    assert_eq!((ended.code, ended.signal), (None, Some(9)), "{ended:?}");

    let mut child = Exec::new().start(&["cat"]);
    child.stdin.take().unwrap().write_all(b"\x00bytes\xff").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"\x00bytes\xff");
}

#[tokio::test]
async fn own_failures_are_none_that_a_tool_has() {
    let config = Exec::new().flags(&["--route=nonsense"]).run(&["echo", "ran"]).await;
    let inherited = Exec::new().flags(&["--route=fd:a=https://a.example"]).run(&["echo", "ran"]).await;
    let usage = Exec::new().flags(&["--no-such-flag"]).run(&["echo", "ran"]).await;
    let without_tool = Exec::new().end().await;
    let placeholder = Exec::new().flags(&["--route=glance-a=https://a.example"]).run(&["echo", "{glance-b}"]).await;
    let log = Exec::new().flags(&["--log-file=/no/such/directory/log"]).run(&["echo", "ran"]).await;
    for (ended, said) in [
        (config, "--route `nonsense`: an address and a URL are expected"),
        (inherited, "--route `fd:a=https://a.example`: `exec` takes no sockets of systemd; only `run` does\n  hint: "),
        (usage, "--no-such-flag"),
        (without_tool, "<TOOL>"),
        (placeholder, "`{glance-b}` is no placeholder\n  hint: did you mean `{glance-a}`?"),
        (log, "--log-file `/no/such/directory/log`: No such file"),
    ] {
        assert_eq!((ended.code, ended.out.as_str()), (Some(125), ""), "{ended:?}");
        assert!(ended.err.contains(said), "{ended:?}");
    }
    let missing = Exec::new().run(&["no-such-tool"]).await;
    assert_eq!((missing.code, missing.err.as_str()), (Some(127), "error: cannot find the tool `no-such-tool`\n"));
    let data = Exec::new().run(&["/etc/passwd"]).await;
    assert_eq!(data.code, Some(126), "{data:?}");
    assert!(data.err.contains("cannot execute `/etc/passwd`: Permission denied"), "{data:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_with_a_name_is_bound_before_the_tool_starts() {
    let front = Front::start(Case::Good).await;
    let authority = front.authority();
    let flags =
        [format!("--route=glance-a=https://{authority}"), format!("--connect-to={authority}={}", front.address)];
    let tool = r#"
        [ "$1" = "$VOUCHSAFE_ROUTE_GLANCE_A" ] && [ "http://127.0.0.1:$2" = "$3" ] && [ "localhost:$2" = "$4" ] &&
        [ "$OS_IMAGE_URL" = "$3/v2" ] && curl -sS --fail "$3/" && curl -sS --fail "http://$4/"
    "#;
    let words = ["sh", "-ec", tool, "sh", "{glance-a}", "{glance-a.port}", "{glance-a.url}", "{glance-a.localhost}"];
    let exec = Exec::new().flags(&flags).variable("OS_IMAGE_URL", "{glance-a.url}/v2");
    // Past a route, all that is inherited would lead the token to somebody else.
    let ended = exec.variable("http_proxy", "http://127.0.0.1:1").variable("NO_PROXY", "").run(&words).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    assert_eq!(front.counters.requests(), 2);
}

/// Python with `requests`, whose release and sources the foreign suites pin.
fn suites() -> [String; 2] {
    let suites = crate::support::replicator::real().join("suites");
    [suites.join("bin/python"), suites.join("requests")].map(|path| path.display().to_string())
}

/// What each library obeys, and each obeys another spelling.
const HOSTILE: [(&str, &str); 6] = [
    ("http_proxy", "http://127.0.0.1:1"),
    ("HTTP_PROXY", "http://127.0.0.1:1"),
    ("all_proxy", "socks5://127.0.0.1:1"),
    ("ALL_PROXY", "http://127.0.0.1:1"),
    ("no_proxy", "gallery.test"),
    ("NO_PROXY", "*"),
];

#[tokio::test(flavor = "multi_thread")]
async fn curl_python_and_go_pass_the_proxy_whatever_they_inherit() {
    let scratch = dir();
    let go = go_client(scratch.path());
    let requests = "import sys, requests; r = requests.get(sys.argv[1]); print(r.status_code)";
    let urllib = "import sys, urllib.request as u\ntry: print(u.urlopen(sys.argv[1]).status)\nexcept Exception as e: print(e.code)";
    let curl: &[&str] = &["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}"];
    let [python, sources] = suites();
    for tool in [curl, &[&python, "-c", requests], &[&python, "-c", urllib], &[&go]] {
        let (good, expired) = (Front::start(Case::Good).await, Front::start(Case::Expired).await);
        for (front, status, code) in [(&good, "200", 0), (&expired, "403", 120)] {
            let mut exec = Exec::new().flags(&["--fail-on-refusal", "--log-level=error"]).allow(front);
            exec = exec.variable("PYTHONPATH", &sources);
            for (name, value) in HOSTILE {
                exec = exec.variable(name, value);
            }
            let url = format!("http://{}/", front.authority());
            let ended = exec.run(&[tool, &[&url]].concat()).await;
            assert_eq!((ended.code, ended.out.trim()), (Some(code), status), "{tool:?} {ended:?}");
        }
        assert_eq!((good.counters.requests(), expired.counters.application_bytes()), (1, 0), "{tool:?}");
    }
}

/// `http_proxy` cannot name a UNIX socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_forward_listener_on_a_unix_socket_is_not_the_only_one() {
    let scratch = dir();
    let socket = scratch.path().join("socket").display().to_string();
    let good = Front::start(Case::Good).await;
    let forward = format!("--forward=unix:{socket}");
    let url = format!("http://{}/", good.authority());
    let other = TcpListener::bind("127.0.0.9:0").unwrap();
    let plain = format!("http://{}/", other.local_addr().unwrap());
    let tool = "curl -sS -m 20 -o /dev/null -w '%{http_code} ' $0; curl -sS -o /dev/null -w '%{http_code}' $1";
    let ended = Exec::new().flags(&[forward]).allow(&good).run(&["sh", "-c", tool, &plain, &url]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "403 200"), "{ended:?}");
    other.set_nonblocking(true).unwrap();
    assert!(other.accept().is_err(), "plain text went past the proxy");
}

fn curl(front: &Front) -> String {
    format!("curl -sS http://{}/ >/dev/null", front.authority())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_swallows_refusals_does_not_pass_for_a_success() {
    let (good, expired) = (Front::start(Case::Good).await, Front::start(Case::Expired).await);
    let scratch = dir();
    let audit = format!("--audit-log={}", scratch.path().join("audit").display());
    let quiet = || Exec::new().flags(&["--log-level=error", &audit]).allow(&good).allow(&expired);
    let good_one = quiet().flags(&["--fail-on-refusal"]).run(&["sh", "-c", &curl(&good)]).await;
    assert_eq!((good_one.code, good_one.err.as_str()), (Some(0), ""));

    let tool = format!("{0}; {0}; {0}; {1}; exit 0", curl(&expired), curl(&good));
    let said = format!("vouchsafe: 3 requests were refused (expired: {}); the tool ended with", expired.authority());
    let ended = quiet().run(&["sh", "-c", &tool]).await;
    assert_eq!((ended.code, ended.err), (Some(0), format!("{said} 0\n")));
    let ended = quiet().flags(&["--fail-on-refusal"]).run(&["sh", "-c", &tool]).await;
    assert_eq!((ended.code, ended.err), (Some(120), format!("{said} 0\n")));
    // The tool's own status comes first.
    let ended = quiet().flags(&["--fail-on-refusal"]).run(&["sh", "-c", &tool.replace("exit 0", "exit 3")]).await;
    assert_eq!((ended.code, ended.err), (Some(3), format!("{said} 3\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_body_and_a_failure_count_as_well() {
    let cut = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Step::Fin]).await;
    let authority = format!("good.gallery.test:{}", cut.address.port());
    let flags = [
        "--fail-on-refusal".to_owned(),
        "--log-level=error".into(),
        format!("--allow={authority}"),
        format!("--connect-to={authority}={}", cut.address),
        "--allow=gone.gallery.test:9292".into(),
        "--connect-to=gone.gallery.test:9292=127.0.0.1:1".into(),
    ];
    let tool =
        format!("curl -s http://{authority}/ >/dev/null; curl -s http://gone.gallery.test:9292/ >/dev/null; exit 0");
    let ended = Exec::new().flags(&flags).run(&["sh", "-c", &tool]).await;
    assert_eq!(ended.code, Some(120), "{ended:?}");
    let failed = "1 request failed (connection_refused: gone.gallery.test:9292)";
    let cut = format!("1 response was cut (response_incomplete: {authority})");
    assert_eq!(ended.err, format!("vouchsafe: {failed}, {cut}; the tool ended with 0\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_refuses_before_the_tool_starts() {
    let (good, expired) = (Front::start(Case::Good).await, Front::start(Case::Expired).await);
    let good_one = Exec::new().flags(&good.route()).flags(&["--preflight"]).run(&["echo", "ran"]).await;
    assert_eq!((good_one.code, good_one.out.as_str()), (Some(0), "ran\n"), "{good_one:?}");
    let scratch = dir();
    let ready = scratch.path().join("ready");
    let more = vec!["--preflight".into(), format!("--ready-file={}", ready.display())];
    let flags = [good.route(), expired.route(), more].concat();
    let ended = Exec::new().flags(&flags).run(&["echo", "ran"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(125), ""), "{ended:?}");
    assert!(ended.err.contains("expired"), "{}", ended.err);
    assert!(
        ended.err.ends_with("error: --preflight: 1 server is not trusted; the tool was not started\n"),
        "{}",
        ended.err
    );
    assert!(!ready.exists());
    assert_eq!(expired.counters.application_bytes(), 0);
    let alike = ["--route=a-b=https://a.example", "--route=a_b=https://b.example"];
    let ended = Exec::new().flags(&alike).run(&["echo", "ran"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(125), ""), "{ended:?}");
    assert!(ended.err.contains("the routes `a-b` and `a_b` would have the same variables"), "{}", ended.err);
    // Any port of a name is no server to connect to.
    let nobody = ["--forward=127.0.0.1:0", "--allow=*.example", "--preflight"];
    let ended = Exec::new().flags(&nobody).run(&["echo", "ran"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(125), ""), "{ended:?}");
    assert!(ended.err.contains("--preflight: there is no server to verify\n  hint: set --route"), "{}", ended.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_during_preflight_ends_it_and_the_tool_is_not_started() {
    for signal in [Signal::TERM, Signal::INT] {
        // It accepts and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let flags = [
            "--preflight".to_owned(),
            format!("--route=glance-a=https://good.gallery.test:{}", address.port()),
            format!("--connect-to=good.gallery.test:{}={address}", address.port()),
        ];
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec {}", Exec::new().flags(&flags).in_shell(&["echo", "ran"]))]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _connection = silent.accept().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!((ended.signal, ended.out.as_str()), (Some(signal.as_raw()), ""), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_goes_to_a_file_and_never_to_stdout() {
    let scratch = dir();
    let log = scratch.path().join("log").display().to_string();
    let expired = Front::start(Case::Expired).await;
    let url = format!("http://{}/", expired.authority());
    let exec = || Exec::new().allow(&expired);
    let ended = exec().flags(&[format!("--log-file={log}")]).run(&["curl", "-sS", "-o", "/dev/null", &url]).await;
    let said = format!("vouchsafe: 1 request was refused (expired: {}); the tool ended with 0\n", expired.authority());
    assert_eq!((ended.code, ended.out.as_str(), ended.err), (Some(0), "", said.clone()));
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
    for expected in ["\"message\":\"ready\"", "\"error.code\":\"expired\"", "\"message\":\"request\""] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let ended = exec().run(&["curl", "-sS", "-o", "/dev/null", &url]).await;
    assert!(ended.out.is_empty() && ended.err.contains(" WARN refused code=expired"), "{ended:?}");
    assert!(ended.err.ends_with(&said) && !ended.err.contains("INFO"), "{ended:?}");
}

/// A tool that counts the signals it gets, until a line is typed.
const COUNTS: &str = r#"
import os, signal, sys
seen = {}
def count(number, frame):
    seen[number] = seen.get(number, 0) + 1
    print('signal', number, seen[number], flush=True)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
    signal.signal(number, count)
print('parent', os.getppid(), 'ready', flush=True)
sys.stdin.readline()
print('total', sum(seen.values()), flush=True)
"#;

#[test]
fn a_signal_comes_once_from_the_terminal_and_once_from_a_process() {
    let scratch = dir();
    let log = scratch.path().join("log");
    let exec = Exec::new().flags(&["--log-level=debug".into(), format!("--log-file={}", log.display())]);
    let mut terminal = Terminal::start(&format!("exec {}", exec.in_shell(&["python3", "-c", COUNTS])));
    let pid = terminal.wait_for("the tool", |text| text.split_once("parent ")?.1.split_once(" ready")?.0.parse().ok());
    let noticed = |number: i32, forwarded: bool| {
        let line = format!("\"signal\":{number},\"forwarded\":{forwarded}");
        let has = |_: &str| std::fs::read_to_string(&log).ok().filter(|text| text.contains(&line)).map(drop);
        has("")
    };
    terminal.type_in("\x03");
    terminal.wait_for_text("signal 2 1");
    // Once the proxy has seen it too, it would have been forwarded.
    while noticed(2, false).is_none() {
        std::thread::yield_now();
    }
    let send = |signal| kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    for (signal, said) in [(Signal::INT, "signal 2 2"), (Signal::TERM, "signal 15 1"), (Signal::USR1, "signal 10 1")] {
        send(signal);
        terminal.wait_for_text(said);
    }
    send(Signal::HUP);
    terminal.wait_for_text("signal 1 1");
    terminal.type_in("\n");
    let (text, code) = terminal.end();
    assert!(text.contains("total 5"), "{text}");
    assert_eq!(code, Some(0), "{text}");
}

/// In a session of its own the tool gets nothing from the terminal. What came would have been forwarded.
#[test]
fn what_the_terminal_sends_is_not_forwarded() {
    let scratch = dir();
    let log = scratch.path().join("log");
    let exec = Exec::new().flags(&["--log-level=debug".into(), format!("--log-file={}", log.display())]);
    let mut terminal = Terminal::start(&format!("exec {}", exec.in_shell(&["setsid", "python3", "-c", COUNTS])));
    let ready = |text: &str| text.split_once("parent ")?.1.split_once(" ready")?.0.parse().ok();
    let pid = Pid::from_raw(terminal.wait_for("the tool", ready));
    terminal.type_in("\x03");
    let noticed = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"signal\":2,"));
    while !noticed() {
        std::thread::yield_now();
    }
    // It is forwarded behind whatever came before.
    kill_process(pid.unwrap(), Signal::TERM).unwrap();
    terminal.wait_for_text("signal 15 1");
    terminal.type_in("\n");
    let (text, code) = terminal.end();
    assert!(text.contains("total 1") && code == Some(0), "{text}");
}

#[test]
fn a_shell_stops_continues_and_backgrounds_the_tool_as_without_us() {
    let mut terminal = Terminal::start("exec bash --norc --noprofile -i");
    terminal.type_in("echo shell-'up'\n");
    terminal.wait_for_text("shell-up");
    terminal
        .type_in(&format!("{}\n", Exec::new().in_shell(&["sh", "-c", "echo is-u\"p\"; read line; echo got-$line"])));
    terminal.wait_for_text("is-up");
    terminal.type_in("\x1a");
    terminal.wait_for_text("Stopped");
    terminal.type_in("jobs -l; fg\n");
    terminal.type_in("first\n");
    terminal.wait_for_text("got-first");
    // In the background, who reads the terminal is stopped by SIGTTIN, and goes on in the foreground.
    let tool = ["sh", "-c", "read line; echo got-$line"];
    terminal.type_in(&format!("{} &\n", Exec::new().in_shell(&tool)));
    terminal.type_in("until jobs | grep -q Stopped; do sleep 0.05; done; echo is-'stopped'\n");
    terminal.wait_for_text("is-stopped");
    terminal.type_in("fg\n");
    terminal.type_in("second\n");
    terminal.wait_for_text("got-second");
    // Ctrl-C ends a tool that has no handler, and the shell sees a death by SIGINT.
    terminal.type_in(&format!(
        "{}; echo status-$?\n",
        Exec::new().in_shell(&["sh", "-c", "echo is-dow\"n\"; exec sleep 60"])
    ));
    terminal.wait_for_text("is-down");
    terminal.type_in("\x03");
    terminal.type_in("echo status-$?\n");
    terminal.wait_for_text("status-130");
    terminal.type_in("exit\n");
    terminal.end();
}

#[tokio::test]
async fn an_ignored_hangup_stays_ignored() {
    let tool = ["grep", "SigIgn", "/proc/self/status"];
    let ignored = |ended: Ended| {
        let digits = ended.out.strip_prefix("SigIgn:").expect("a line").trim().to_owned();
        u64::from_str_radix(&digits, 16).expect("hexadecimal") & 1
    };
    assert_eq!(ignored(Exec::under(&["nohup"]).run(&tool).await), 1);
    assert_eq!(ignored(Exec::new().run(&tool).await), 0);
}

/// Where nobody wants to know of children, none could be waited for.
#[tokio::test]
async fn an_ignored_sigchld_is_neither_kept_nor_passed_on() {
    let tool = ["sh", "-c", "grep SigIgn /proc/self/status; exit 7"];
    let ended = Exec::under(&["env", "--ignore-signal=CHLD"]).run(&tool).await;
    assert_eq!((ended.code, ended.err.as_str()), (Some(7), ""), "{ended:?}");
    let digits = ended.out.trim().strip_prefix("SigIgn:\t").expect("a line");
    assert_eq!(u64::from_str_radix(digits, 16).expect("hexadecimal") & 1 << 16, 0, "{digits}");
}

#[tokio::test]
async fn as_the_first_process_of_a_container_it_reaps_and_tells_a_death_by_its_number() {
    let init = || Exec::under(&["unshare", "--user", "--map-current-user", "--pid", "--fork", "--mount-proc"]);
    let ended = init().run(&["sh", "-c", "kill -TERM $$"]).await;
    assert_eq!((ended.code, ended.signal), (Some(143), None), "{ended:?}");
    // An orphan becomes a child of PID 1, and is no zombie once it has ended.
    let tool = r#"
        (sh -c 'echo $$ >&3; exec 3>&-' & ) 3>pid; until [ -s pid ]; do sleep 0.01; done
        while [ -e /proc/$(cat pid) ]; do sleep 0.01; done; echo reaped; exit 4
    "#;
    let scratch = dir();
    let tool = format!("cd {}; {tool}", scratch.path().display());
    let ended = init().run(&["sh", "-c", &tool]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(4), "reaped\n"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_killed_leaves_the_tool_without_a_way_out() {
    let front = Front::start(Case::Good).await;
    let tool = format!("echo $PPID; read line; curl -sS -w '%{{http_code}}' http://{}/", front.authority());
    let child = Exec::new().allow(&front).start(&["sh", "-c", &tool]);
    assert_eq!(output_without_proxy(child).await, "000");
    assert_eq!(front.counters.connections(), 0);
}

/// `kill -TERM 0` reaches the tool and vouchsafe, and what vouchsafe passes on may come after the tool's end.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_at_once_after_the_end_of_the_tool_cuts_nothing() {
    let stuck =
        Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Step::Stall]).await;
    let authority = format!("good.gallery.test:{}", stuck.address.port());
    let scratch = dir();
    let log = scratch.path().join("log");
    let flags = [
        // Less than the second within which signals are one.
        "--drain-timeout=900ms".to_owned(),
        format!("--log-file={}", log.display()),
        format!("--allow={authority}"),
        format!("--connect-to={authority}={}", stuck.address),
    ];
    let tool = format!(
        "cd {}; mkfifo seen; curl -sN http://{authority}/ | {{ head -c 4; : >seen; cat; }} & read line <seen; exit 5",
        scratch.path().display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {}", Exec::new().flags(&flags).in_shell(&["sh", "-c", &tool]))]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("\"draining\"")) {
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let ended = Ended::from(child.wait_with_output().unwrap());
    assert!(ended.code == Some(5) && ended.err.contains("the drain timeout has passed"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_still_runs_at_the_end_is_finished_or_reset_within_the_drain_timeout() {
    let stuck =
        Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Step::Stall]).await;
    let authority = format!("good.gallery.test:{}", stuck.address.port());
    let flags = [
        "--drain-timeout=200ms".to_owned(),
        "--log-level=error".into(),
        format!("--allow={authority}"),
        format!("--connect-to={authority}={}", stuck.address),
    ];
    // A grandchild goes on when the tool has ended.
    let scratch = dir();
    let tool = format!(
        "cd {}; mkfifo seen; curl -sN http://{authority}/ | {{ head -c 4; : >seen; cat; }} & read line <seen; exit 5",
        scratch.path().display()
    );
    let ended = Exec::new().flags(&flags).run(&["sh", "-c", &tool]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(5), "half"), "{ended:?}");
    assert!(
        ended.err.contains("the drain timeout has passed; requests that were still running were reset"),
        "{ended:?}"
    );
}
