//! Debian's Chromium without a window, driven by its own protocol (the Chrome DevTools Protocol) over two pipes.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::proxy::PATIENCE;

/// A running browser.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    sent: u64,
    runs_scripts: bool,
    _profile: TempDir,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// In CSS pixels.
    pub width: u32,
    /// Whether the system of the reader is dark.
    pub dark: bool,
}

impl View {
    /// A telephone and a desk, by day and by night.
    pub const ALL: [Self; 4] = [
        Self { width: 400, dark: false },
        Self { width: 400, dark: true },
        Self { width: 1280, dark: false },
        Self { width: 1280, dark: true },
    ];

    /// For the name of a file.
    pub fn name(self) -> String {
        format!("{}-{}", self.width, if self.dark { "dark" } else { "light" })
    }
}

/// A page that was loaded.
pub struct Page {
    session: String,
    /// What its console and its loader complain of.
    pub problems: Vec<Value>,
    /// The URLs of everything that was loaded for it, its own first.
    pub requests: Vec<String>,
}

impl Browser {
    /// Starts it.
    pub fn start() -> Self {
        let profile = super::dir();
        // It reads commands from its descriptor 3, and writes to 4. Its sandbox is not for root.
        let script = "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                      --hide-scrollbars --remote-debugging-pipe --user-data-dir=\"$0\" about:blank \
                      3<&0 4>&1 </dev/null >/dev/null 2>\"$0/stderr\"";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(profile.path()).env("HOME", profile.path());
        // Killed, it leaves what it had there.
        command.env("TMPDIR", profile.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh");
        let commands = child.stdin.take().expect("piped");
        let mut answers = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        Self { child, commands, messages, sent: 0, runs_scripts: true, _profile: profile }
    }

    /// Has the pages that are loaded from now on run no script.
    pub fn without_scripts(mut self) -> Self {
        self.runs_scripts = false;
        self
    }

    /// Loads a page.
    pub fn open(&mut self, url: &str, view: View) -> Page {
        let target = self.call("", "Target.createTarget", json!({ "url": "about:blank" }), &mut Vec::new());
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.call("", "Target.attachToTarget", attach, &mut Vec::new());
        let session = session["sessionId"].as_str().expect("a session").to_owned();
        let scheme = if view.dark { "dark" } else { "light" };
        let mut events = Vec::new();
        for (method, parameters) in [
            ("Page.enable", json!({})),
            ("Runtime.enable", json!({})),
            ("Log.enable", json!({})),
            ("Network.enable", json!({})),
            (
                "Emulation.setDeviceMetricsOverride",
                json!({ "width": view.width, "height": 900, "deviceScaleFactor": 1, "mobile": view.width < 600 }),
            ),
            (
                "Emulation.setEmulatedMedia",
                json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
            ),
            ("Emulation.setScriptExecutionDisabled", json!({ "value": !self.runs_scripts })),
            ("Page.navigate", json!({ "url": url })),
        ] {
            let answer = self.call(&session, method, parameters, &mut events);
            assert!(answer["errorText"].is_null(), "{url}: {answer}");
        }
        // Pages that were opened before go on with what they do.
        let is_of = |event: &Value, method: &str| event["sessionId"] == *session && event["method"] == method;
        while !events.iter().any(|event| is_of(event, "Page.loadEventFired")) {
            events.push(self.next());
        }
        let of = |method: &'static str| {
            events.iter().filter(move |event| is_of(event, method)).map(|event| &event["params"])
        };
        let requests =
            of("Network.requestWillBeSent").map(|event| event["request"]["url"].as_str().expect("a URL").into());
        let errors = of("Runtime.consoleAPICalled").filter(|event| event["type"] != "log");
        let problems = of("Runtime.exceptionThrown").chain(of("Log.entryAdded")).chain(errors).cloned().collect();
        Page { problems, requests: requests.collect(), session }
    }

    /// The value of an expression in a page, or of what it promises.
    pub fn evaluate(&mut self, page: &Page, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call(&page.session, "Runtime.evaluate", parameters, &mut Vec::new());
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Writes a picture of the upper part of a page, as high as it is but no higher than that.
    pub fn screenshot(&mut self, page: &Page, highest: u32, path: &Path) {
        let size =
            self.call(&page.session, "Page.getLayoutMetrics", json!({}), &mut Vec::new())["cssContentSize"].clone();
        let height = size["height"].as_f64().expect("a height").min(highest.into());
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1 });
        let parameters = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let answer = self.call(&page.session, "Page.captureScreenshot", parameters, &mut Vec::new());
        let png = data_encoding::BASE64.decode(answer["data"].as_str().expect("a picture").as_bytes()).expect("base64");
        std::fs::write(path, png).expect("a file for the picture");
    }

    /// Sends a command and waits for its answer; what comes in between are events.
    fn call(&mut self, session: &str, method: &str, parameters: Value, events: &mut Vec<Value>) -> Value {
        self.sent += 1;
        let id = self.sent;
        let mut command = json!({ "id": id, "method": method, "params": parameters });
        if !session.is_empty() {
            command["sessionId"] = session.into();
        }
        write!(self.commands, "{command}\0").and_then(|()| self.commands.flush()).expect("the browser runs");
        loop {
            let mut message = self.next();
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].take();
            }
            events.push(message);
        }
    }

    fn next(&mut self) -> Value {
        self.messages
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("the browser is silent ({error}); tests/setup installs it"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
