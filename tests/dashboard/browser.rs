//! A real Chromium without a window, driven over its DevTools protocol: JSON with a zero byte at the end of each
//! message, through two pipes, so that no WebSocket is needed.
//!
//! Knows the few calls that these tests make. Every wait ends by itself.
//! Must not know: what page is shown.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a browser may take for anything: it starts a dozen processes, on a machine that may be busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A browser of its own, ended when dropped.
pub struct Browser {
    child: Child,
    to: RefCell<File>,
    from: Receiver<Value>,
    last: Cell<u64>,
    /// What it has told unasked.
    events: RefCell<Vec<Value>>,
    _directory: TempDir,
}

/// A tab.
pub struct Page<'b> {
    browser: &'b Browser,
    session: String,
}

impl Browser {
    /// Starts one; panics with a sentence where there is none.
    pub fn start() -> Self {
        let there =
            Command::new("chromium").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(
            there.is_ok_and(|status| status.success()),
            "this test needs Chromium: install Debian's package chromium (tests/run.sh does, as root)"
        );
        let directory = tempfile::tempdir().unwrap();
        let pipe = |name: &str| {
            let path = directory.path().join(name);
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            path
        };
        let (commands, answers) = (pipe("commands"), pipe("answers"));
        // The shell opens the pipes where Chromium looks for them: it reads from 3 and writes to 4.
        let child = Command::new("sh")
            .args(["-c", "exec chromium \"$@\" 3<\"$0\" 4>\"$ANSWERS\""])
            .arg(&commands)
            .args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-extensions", "--mute-audio", "--lang=en-US"])
            .arg(format!("--user-data-dir={}", directory.path().join("profile").display()))
            .arg("about:blank")
            .env("ANSWERS", &answers)
            .env("HOME", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Each waits for the shell to open the other end.
        let to = OpenOptions::new().write(true).open(&commands).unwrap();
        let answers = BufReader::new(File::open(&answers).unwrap());
        let (told, from) = channel();
        std::thread::spawn(move || {
            for message in answers.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { continue };
                if told.send(message).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            to: RefCell::new(to),
            from,
            last: Cell::new(0),
            events: RefCell::default(),
            _directory: directory,
        }
    }

    /// Opens a tab of this size, in dark or in light.
    pub fn page(&self, width: u32, height: u32, dark: bool) -> Page<'_> {
        let target = self.call(None, "Target.createTarget", json!({ "url": "about:blank" }));
        let about = json!({ "targetId": target["targetId"], "flatten": true });
        let session =
            self.call(None, "Target.attachToTarget", about)["sessionId"].as_str().unwrap().to_owned();
        let page = Page { browser: self, session };
        for domain in ["Page", "Runtime", "Network", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.resize(width, height);
        page.prefers(dark);
        page
    }

    fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let id = self.last.get() + 1;
        self.last.set(id);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let bytes = [message.to_string().as_bytes(), b"\0"].concat();
        self.to.borrow_mut().write_all(&bytes).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let told = self.from.recv_timeout(left).unwrap_or_else(|why| panic!("{method}: {why}"));
            if told["id"] == id {
                assert!(told["error"].is_null(), "{method}: {told}");
                return told["result"].clone();
            }
            if told["method"].is_string() {
                self.events.borrow_mut().push(told);
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Page<'_> {
    fn call(&self, method: &str, params: Value) -> Value {
        self.browser.call(Some(&self.session), method, params)
    }

    /// Goes to an address.
    pub fn open(&self, url: &str) {
        let went = self.call("Page.navigate", json!({ "url": url }));
        assert!(went["errorText"].is_null(), "{url}: {went}");
    }

    /// Another size; narrow ones are those of telephones.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// What the system prefers.
    pub fn prefers(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.call("Emulation.setEmulatedMedia", feature);
    }

    /// The value of an expression.
    pub fn value(&self, expression: &str) -> Value {
        let about = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let result = self.call("Runtime.evaluate", about);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result:#}");
        result["result"]["value"].clone()
    }

    /// The same, as text.
    pub fn text(&self, expression: &str) -> String {
        self.value(expression).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true; shows the page's text where it never is.
    pub fn wait_for(&self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(expression) != true {
            assert!(
                Instant::now() < deadline,
                "{expression} did not come true; the page says\n{}",
                self.text("document.body?.innerText")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses a key by its name, such as `Tab`, `Enter` or ` `.
    pub fn press(&self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            " " => (32, " "),
            "ArrowDown" => (40, ""),
            other => panic!("{other} is not known here"),
        };
        let kind = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        let mut about = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
        if !text.is_empty() {
            about["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", about.clone());
        about["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", about);
    }

    /// Types a text where the cursor is.
    pub fn write(&self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// A picture of the whole page, into a file (PNG); its bytes in Base64 are given.
    pub fn picture(&self, file: Option<&Path>) -> String {
        let size = self.call("Page.getLayoutMetrics", json!({}))["cssContentSize"].clone();
        let clip = json!({ "x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1 });
        let about = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.call("Page.captureScreenshot", about)["data"].as_str().unwrap().to_owned();
        if let Some(file) = file {
            let mut decoder = Command::new("base64")
                .arg("-d")
                .stdin(Stdio::piped())
                .stdout(File::create(file).unwrap())
                .spawn()
                .unwrap();
            decoder.stdin.take().unwrap().write_all(picture.as_bytes()).unwrap();
            assert!(decoder.wait().unwrap().success());
        }
        picture
    }

    /// Everything that it has told so far of one kind, such as `Network.requestWillBeSent`.
    pub fn told(&self, method: &str) -> Vec<Value> {
        // What has been said before the answer to this is heard with it.
        self.value("1");
        let events = self.browser.events.borrow();
        let mine = |event: &&Value| event["method"] == method && event["sessionId"] == *self.session;
        events.iter().filter(mine).map(|event| event["params"].clone()).collect()
    }

    /// What its console shows in red.
    pub fn errors(&self) -> Vec<Value> {
        let logged = self.told("Log.entryAdded").into_iter().filter(|told| told["entry"]["level"] == "error");
        let said = self.told("Runtime.consoleAPICalled").into_iter().filter(|told| told["type"] == "error");
        logged.chain(self.told("Runtime.exceptionThrown")).chain(said).collect()
    }
}
