//! A headless chromium that is asked over the `DevTools` protocol.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::wait_for;

/// A browser that shows one page. It ends when its input is closed.
pub struct DevTools {
    browser: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    session: Option<String>,
    asked: u64,
    events: Vec<String>,
}

impl DevTools {
    /// Shows that file to somebody who prefers dark pages.
    pub fn show(file: &Path, profile: &Path) -> Self {
        // The protocol is spoken on the descriptors 3 and 4.
        let mut browser = Command::new("sh")
            .args([
                "-c",
                "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
                "sh",
            ])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-background-networking",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(browser.stdout.take().unwrap());
        let mut tools = Self {
            input: browser.stdin.take(),
            browser,
            output,
            session: None,
            asked: 0,
            events: Vec::new(),
        };
        let targets = tools.ask("Target.getTargets", &json!({}));
        let mut targets = targets["targetInfos"].as_array().unwrap().iter();
        let page = targets.find(|target| target["type"] == "page").unwrap();
        let which = json!({"targetId": page["targetId"], "flatten": true});
        let session = tools.ask("Target.attachToTarget", &which);
        tools.session = session["sessionId"].as_str().map(str::to_owned);
        let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
        tools.ask("Emulation.setEmulatedMedia", &dark);
        tools.ask("Page.enable", &json!({}));
        let url = format!("file://{}", file.display());
        tools.ask("Page.navigate", &json!({"url": url}));
        while !tools
            .events
            .iter()
            .any(|event| event == "Page.loadEventFired")
        {
            tools.read();
        }
        tools
    }

    /// The answer to a command.
    pub fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.asked += 1;
        let mut command = json!({"id": self.asked, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let input = self.input.as_mut().unwrap();
        write!(input, "{command}\0").unwrap();
        loop {
            let mut said = self.read();
            if said["id"] == self.asked {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].take();
            }
        }
    }

    fn read(&mut self) -> Value {
        let mut message = Vec::new();
        self.output.read_until(0, &mut message).unwrap();
        assert_eq!(message.pop(), Some(0), "the browser has ended");
        let message: Value = serde_json::from_slice(&message).unwrap();
        let event = message["method"].as_str();
        self.events.extend(event.map(str::to_owned));
        message
    }
}

impl Drop for DevTools {
    fn drop(&mut self) {
        drop(self.input.take());
        wait_for(&mut self.browser);
    }
}
