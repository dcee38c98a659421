//! `report`: as text, as a web page in a real browser, and the servers of many hosts in one stream of JSON.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::rig::devtools::DevTools;
use crate::rig::{Run, run, skip};
use crate::verbs::{States, assert_golden, said, three};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Width of a phone, in pixels.
const PHONE: u32 = 390;
/// Names of what chromium asks by itself, whatever page it shows.
const BROWSER_S_OWN: [&str; 2] = ["google.com", "googleapis.com"];

/// What writes the state, what the report then says, and its exit status.
type Case<'a> = (&'a dyn Fn(&States), &'a str, i32);

/// One server that an idle client and a child block, one that is held off, and one with a pause and a night without
/// runs.
fn week(states: &States) {
    for name in ["main", "dev", "test"] {
        states.healthy(name);
        states.line(name, ("", 40 * DAY, "planned", "", "", 1));
    }
    let client = "10.1.2.3:51234";
    for (id, ago) in [("1", 6 * DAY), ("2", 5 * DAY), ("3", 2 * DAY)] {
        states.line("main", (id, ago, "unwedged", "idle_client", client, 2));
        states.line("main", (id, ago - 10 * MINUTE, "lasted", "", "", 0));
    }
    states.line(
        "main",
        ("4", 4 * DAY, "restarted", "idle_client", client, 74),
    );
    states.line("main", ("4", 4 * DAY - 10 * MINUTE, "lasted", "", "", 0));
    for (id, ago) in [("5", 3 * DAY), ("6", 3 * DAY - 20 * MINUTE)] {
        states.line("main", (id, ago, "restarted", "child", "bjobs", 300));
        states.line("main", (id, ago - 5 * MINUTE, "fell_again", "", "", 0));
    }
    states.line("dev", ("", 2 * DAY, "unwatched", "", "", 10 * HOUR));
    states.line("dev", ("", DAY, "planned", "", "", 30 * MINUTE));
    states.state(
        "test",
        json!({
            "server": "test", "url": "https://test:1", "phase": "held", "since": states.time(21 * MINUTE),
            "down": {
                "id": "9", "cause": "disk_full", "culprit": "/data", "culprit_kind": "file",
                "text": "the disk of /data is full", "counted": 660,
            },
            "hold": {"until": states.time(-480), "why": "disk_full /data"},
        }),
    );
    states.last("test", "down 0 0.001 60 60", 7);
    states.line(
        "test",
        ("9", 10 * MINUTE, "failed", "disk_full", "/data", 660),
    );
}

#[test]
fn the_report_of_a_week_reads_like_one() {
    let ask = |states: &States| states.run("report", &[]);
    let (states, ran) = said(week, ask);
    assert_golden(&states, &ran, "report.txt");
    assert_eq!(ran.code(), Some(0));
    let (_, ran) = said(week, |states| run(states.verb("report").env("LC_ALL", "C")));
    assert!(ran.stdout.is_ascii(), "{}", ran.stdout);
    let (_, ran) = said(week, |states| {
        states.run("report", &["--since", "4h", "test"])
    });
    assert!(!ran.stdout.contains("idle_client"), "{}", ran.stdout);
    assert!(ran.stdout.contains("1 incident in 4 h;"), "{}", ran.stdout);
}

#[test]
fn a_quiet_week_is_one_line() {
    let quiet = |names: &'static [&str]| {
        let write = move |states: &States| {
            for name in names {
                states.healthy(name);
            }
        };
        let (_, ran) = said(write, |states| states.run("report", &[]));
        assert_eq!(
            (ran.code(), ran.stdout.lines().count()),
            (Some(0), 1),
            "{}",
            ran.stdout
        );
        ran.stdout
    };
    assert!(quiet(&["main"]).ends_with(": No incident in 7 days: main was up. Nothing to do.\n"));
    let said = quiet(&["dev", "main"]);
    assert!(said.contains("dev and main were up."), "{said}");
    let said = quiet(&["a", "b", "c", "d", "e", "f", "g"]);
    assert!(said.contains("all 7 servers were up."), "{said}");
}

#[test]
fn what_needs_attention_makes_no_quiet_week() {
    let paused = |states: &States| {
        states.healthy("main");
        let pause = json!({"until": states.time(-HOUR), "by": "alice", "reason": "upgrade", "at": states.time(60)});
        states.pause("main", &json!({"format": 1, "pause": pause}));
    };
    let expires = |states: &States| {
        states.healthy("main");
        let state = json!({
            "server": "main", "phase": "up", "since": states.time(40 * DAY),
            "certificate_expires": states.time(-9 * DAY - HOUR),
        });
        states.state("main", state);
    };
    let damaged = |states: &States| {
        states.healthy("main");
        fs::create_dir(states.path("main.history.jsonl")).unwrap();
    };
    let new = |states: &States| {
        states.state(
            "main",
            json!({"server": "main", "phase": "up", "since": states.time(DAY)}),
        );
        states.last("main", "ok 200 0.012 60 60", 7);
    };
    let cases: [Case; 4] = [
        (&paused, "now paused: HTTP 200", 0),
        (&expires, "the certificate expires in 9 days", 0),
        (&damaged, "not a regular file", 1),
        (&new, "watched since ", 0),
    ];
    for (write, expected, status) in cases {
        let (_, ran) = said(write, |states| states.run("report", &[]));
        assert!(
            ran.stdout.contains("\nNo incident in 7 days.\n"),
            "{}",
            ran.stdout
        );
        let text = ran.stdout.replace("\n        ", " ");
        assert!(text.contains(expected), "{expected}: {}", ran.stdout);
        assert_eq!(ran.code(), Some(status), "{}", ran.stdout);
    }
    let nothing = States::new().run("report", &[]);
    assert!(
        nothing.stdout.starts_with("no server was checked yet"),
        "{}",
        nothing.stdout
    );
    assert_eq!(nothing.code(), Some(1));
    let page = States::new().run("report", &["--html"]);
    assert!(
        page.stdout.contains(">no server was checked yet"),
        "{}",
        page.stdout
    );
    assert_eq!(page.code(), Some(1));
}

/// A month with all that the page can show, and with texts that try to get out of it.
fn hostile(states: &States) {
    week(states);
    for (number, ago) in (0..).zip((0..28).map(|day| day * DAY + 7 * HOUR)) {
        let id = format!("h{number}");
        let away = 30 << (number % 8);
        states.line(
            "main",
            (
                &id,
                ago,
                "restarted",
                "child",
                "<script>alert(1)</script>",
                away,
            ),
        );
        let name = "/data/\"><img src=http://127.0.0.1:9/x.png onerror=alert(1)>&amp;'".repeat(4);
        states.line(
            "main",
            (&format!("{id}b"), ago, "failed", "</table><h1>x", &name, 3),
        );
    }
    let name = "</title><script src=http://127.0.0.1:9/x.js></script><b>\u{202e}\u{1b}[31m";
    states.state(
        "evil",
        json!({
            "server": name, "url": "https://evil:1", "phase": "failed", "since": states.time(500),
            "down": {"id": "3", "cause": "<i>", "culprit": "' onload='alert(1)", "text": "<b>"},
        }),
    );
    states.last("evil", "down 503 0.001 60 60", 5);
    states.healthy("a-name-of-forty-characters-without-a-blank");
    let pause = json!({"until": states.time(-HOUR), "by": "<b>", "reason": "]]>-->", "at": states.time(60)});
    states.pause("dev", &json!({"format": 1, "pause": pause}));
}

fn html(write: impl Fn(&States)) -> (States, String) {
    let (states, ran) = said(write, |states| states.run("report", &["--html"]));
    assert_eq!(ran.stderr, "");
    (states, ran.stdout)
}

#[test]
fn the_page_is_sound_and_refers_to_nothing() {
    let (states, page) = html(hostile);
    for word in [
        "<script", "<img", "<b>", "<i>", "\u{202e}", "\u{1b}", "href", " src=\"", " on",
    ] {
        let tags = page
            .split('<')
            .skip(1)
            .map(|tag| tag.split('>').next().unwrap());
        let mut tags = tags.map(|tag| format!("<{tag}>"));
        assert!(!tags.any(|tag| tag.contains(word)), "{word}: {page}");
    }
    assert!(
        page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{page}"
    );
    let urls = page.matches("url(").count();
    assert_eq!(
        urls,
        page.matches("url(#").count(),
        "only into the page itself"
    );
    assert!(!page.contains("@import"));
    let levels: Vec<&str> = page
        .split("<h")
        .skip(1)
        .filter_map(|tag| tag.get(..1))
        .collect();
    let levels: Vec<u8> = levels
        .iter()
        .filter_map(|level| level.parse().ok())
        .collect();
    assert_eq!(page.matches("<h1").count(), 1);
    assert!(
        levels.windows(2).all(|pair| pair[1] <= pair[0] + 1),
        "{levels:?}"
    );
    assert_eq!(
        page.matches("<table").count(),
        page.matches("<caption").count()
    );
    assert_eq!(
        page.matches("<th").count(),
        page.matches("<th scope=").count() + page.matches("<thead").count()
    );
    let file = states.path("report.html");
    for page in [
        &page,
        &html(week).1,
        &html(|states| states.healthy("main")).1,
        &html(|_| ()).1,
    ] {
        fs::write(&file, page).unwrap();
        let checked = Command::new("tidy").args(["-e", "-q"]).arg(&file).output();
        let Ok(checked) = checked else {
            return skip("tidy(1) is not installed");
        };
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(
            checked.status.success() && said.is_empty(),
            "{said}\n{page}"
        );
    }
}

#[test]
fn the_page_shows_each_hour() {
    let write = |states: &States| {
        states.healthy("main");
        states.line("main", ("", 40 * DAY, "planned", "", "", 1));
        states.line(
            "main",
            ("1", 5 * DAY, "restarted", "child", "bjobs", 2 * HOUR),
        );
    };
    let (_, page) = html(write);
    let map = page
        .split("class=\"map\"")
        .nth(1)
        .unwrap()
        .split("</svg>")
        .next()
        .unwrap();
    let squares = map.matches("h12v10h-12z").count();
    // 30 days by the hour, and the hour that has begun.
    assert!((720..=721).contains(&squares), "{squares}");
    let away: Vec<&str> = map
        .split("<title>")
        .skip(2)
        .map(|text| text.split('<').next().unwrap())
        .collect();
    assert!((2..=3).contains(&away.len()), "{away:?}");
    assert!(
        away.iter().all(|text| text.contains(":00: away for ")),
        "{away:?}"
    );
    let table = page
        .split("<details>")
        .nth(1)
        .unwrap()
        .split("</details>")
        .next()
        .unwrap();
    assert!(table.contains("<td>away for 2 h, at "), "{table}");
    assert!(map.contains("The server was away in "), "{map}");
}

/// A headless browser; none where it is not installed.
struct Browser {
    directory: PathBuf,
}

impl Browser {
    fn on(states: &States) -> Option<Self> {
        let version = Command::new("chromium")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        match version {
            Ok(status) if status.success() => Some(Self {
                directory: states.path(""),
            }),
            _ => {
                skip("chromium is not installed");
                None
            }
        }
    }

    /// Shows a file of the directory.
    fn show(&self, page: &str, arguments: &[String]) -> Run {
        let page = format!("file://{}", self.directory.join(page).display());
        let ran = run(Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--enable-logging=stderr",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .arg("--allow-file-access-from-files")
            .arg(format!(
                "--user-data-dir={}",
                self.directory.join("profile").display()
            ))
            .args(arguments)
            .arg(page)
            .stdin(Stdio::null()));
        assert_eq!(ran.code(), Some(0), "{}", ran.stderr);
        ran
    }

    /// The document as it has become, the messages of its console, and the URLs that it has asked for.
    fn load(&self, page: &str) -> (String, Vec<String>, Vec<String>) {
        let log = self.directory.join("net.json");
        let arguments = [
            "--dump-dom".to_owned(),
            format!("--log-net-log={}", log.display()),
        ];
        let ran = self.show(page, &arguments);
        let messages = ran.stderr.lines().filter(|line| line.contains("CONSOLE"));
        let text = fs::read_to_string(log).unwrap();
        let asked = text
            .split("\"url\":\"")
            .skip(1)
            .map(|url| url.split('"').next().unwrap());
        let is_own = |url: &&str| BROWSER_S_OWN.iter().any(|name| url.contains(name));
        let asked = asked.filter(|url| !is_own(url) && !url.starts_with("file:"));
        (
            ran.stdout.clone(),
            messages.map(str::to_owned).collect(),
            asked.map(str::to_owned).collect(),
        )
    }

    /// A picture of a page, in a window of that size.
    fn picture(&self, page: &str, name: &str, width: u32, height: u32) {
        let path = self.directory.join(name);
        let _ = self.show(
            page,
            &[
                "--hide-scrollbars".to_owned(),
                format!("--screenshot={}", path.display()),
                format!("--window-size={width},{height}"),
            ],
        );
        let picture = fs::read(path).unwrap();
        // The size is in the first part of the file (PNG specification, 11.2.1); one colour packs to a few KiB.
        let size = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap());
        assert_eq!((size(16), size(20)), (width, height));
        assert!(picture.len() > 20_000, "{}", picture.len());
    }
}

/// A page that shows another one as on a phone, and says how wide that is. A window cannot be that narrow.
fn on_phone(page: &str) -> String {
    format!(
        "<!DOCTYPE html><title>x</title><style>*{{margin:0;border:0}}</style>\
         <iframe id=f src=\"{page}\" width={PHONE} height=3000></iframe><p id=out></p>\
         <script>f.onload=()=>{{const d=f.contentDocument.documentElement;\
         out.textContent=d.scrollWidth>d.clientWidth?'too wide':'fits'}}</script>"
    )
}

#[test]
fn a_browser_shows_the_page_and_asks_for_nothing() {
    let (states, page) = html(hostile);
    let Some(browser) = Browser::on(&states) else {
        return;
    };
    fs::write(states.path("report.html"), &page).unwrap();
    fs::write(states.path("phone.html"), on_phone("report.html")).unwrap();
    let (document, messages, asked) = browser.load("report.html");
    assert_eq!((messages, asked), (vec![], vec![]));
    assert!(
        document.contains("&lt;script&gt;alert(1)&lt;/script&gt;"),
        "{document}"
    );
    assert!(
        !document.contains("<script") && !document.contains("<img"),
        "{document}"
    );
    let (document, ..) = browser.load("phone.html");
    assert!(document.contains("<p id=\"out\">fits</p>"), "{document}");
    browser.picture("report.html", "1280.png", 1280, 1800);
    browser.picture("phone.html", "phone.png", 500, 3000);
    // What would be seen of a page that is not as it should be.
    let image = "<img src='http://127.0.0.1:9/x.png'>";
    let wide = "<p style='width:400px'>x</p>";
    fs::write(
        states.path("report.html"),
        format!("<!DOCTYPE html><title>x</title>{wide}{image}"),
    )
    .unwrap();
    let (_, _, asked) = browser.load("report.html");
    assert_eq!(
        asked.first().map(String::as_str),
        Some("http://127.0.0.1:9/x.png")
    );
    let (document, ..) = browser.load("phone.html");
    assert!(
        document.contains("<p id=\"out\">too wide</p>"),
        "{document}"
    );
    let stopped = page.replace("</footer>", &format!("{image}</footer>"));
    fs::write(states.path("report.html"), stopped).unwrap();
    let (_, messages, asked) = browser.load("report.html");
    assert_eq!(
        (messages.len(), asked),
        (1, vec![]),
        "the policy of the page stops it"
    );
}

/// What a screen reader gets of a part of a page, as role and name of each node, the ancestors first.
fn read_aloud<'a>(nodes: &'a [Value], id: &Value, said: &mut Vec<(&'a str, &'a str)>) {
    let node = nodes.iter().find(|node| node["nodeId"] == *id).unwrap();
    let text = |key: &str| node[key]["value"].as_str().unwrap_or_default();
    if node["ignored"] != true {
        said.push((text("role"), text("name")));
    }
    for child in node["childIds"].as_array().into_iter().flatten() {
        read_aloud(nodes, child, said);
    }
}

#[test]
fn a_screen_reader_gets_the_hours_as_a_sentence_and_a_table() {
    let (states, page) = html(hostile);
    if Browser::on(&states).is_none() {
        return;
    }
    assert!(page.contains("<html lang=\"en\">"), "{page}");
    let file = states.path("report.html");
    fs::write(&file, page.replace("<details>", "<details open>")).unwrap();
    let mut tools = DevTools::show(&file, &states.path("profile"));
    let tree = tools.ask("Accessibility.getFullAXTree", &json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let mut said = Vec::new();
    read_aloud(nodes, &nodes[0]["nodeId"], &mut said);
    let names = |role: &str| -> Vec<&str> {
        let nodes = said.iter().filter(|(of, _)| *of == role);
        nodes.map(|(_, name)| *name).collect()
    };
    for landmark in ["banner", "main", "contentinfo"] {
        assert_eq!(names(landmark).len(), 1, "{landmark}: {said:?}");
    }
    let images: Vec<&Value> = nodes
        .iter()
        .filter(|node| node["ignored"] != true && node["role"]["value"] == "image")
        .collect();
    assert_eq!(images.len(), names("article").len());
    for image in images {
        let mut inside = Vec::new();
        read_aloud(nodes, &image["nodeId"], &mut inside);
        assert_eq!(inside.len(), 1, "only the picture: {inside:?}");
        assert!(inside[0].1.ends_with(" by the hour"), "{inside:?}");
        let text = image["description"]["value"].as_str().unwrap();
        let start = "A row for each day, a column for each hour. ";
        let what = text.strip_prefix(start).unwrap();
        // Where a table is named, one follows.
        let name = inside[0].1.trim_end_matches(" by the hour");
        let table = format!("{name} by day; on other days nothing happened");
        assert_eq!(
            what.ends_with(" The table below says when."),
            names("table").contains(&table.as_str()),
            "{what}"
        );
    }
    let mut switches = names("DisclosureTriangle");
    assert!(switches.contains(&"main as a table"), "{switches:?}");
    let count = switches.len();
    switches.sort_unstable();
    switches.dedup();
    assert_eq!(switches.len(), count, "each has a name of its own");
    let away = |name: &&str| name.starts_with("away for ") && name.contains(":00 (");
    assert!(names("cell").into_iter().any(|name| away(&name)));
    assert!(names("rowheader").len() > 28 && names("columnheader").len() > 8);
}

/// Paused servers with a long card each: its heading has the name, its end the reason.
fn paused(states: &States) {
    for number in 0..9 {
        let name = format!("server{number}");
        states.healthy(&name);
        // Elsewhere on the page, the name is that of the history's lines.
        let state = json!({"server": format!("heading{number}"), "phase": "up", "since": states.time(40 * DAY)});
        states.state(&name, state);
        states.line(&name, ("", 40 * DAY, "planned", "", "", 1));
        states.line(
            &name,
            ("1", 3 * DAY, "restarted", "child", "bjobs", 2 * HOUR),
        );
        let reason = format!("the end of {}", "a long text ".repeat(number));
        let reason = format!("{reason}reason{number}");
        let pause = json!({"until": states.time(-HOUR), "by": "alice", "reason": reason, "at": states.time(60)});
        states.pause(&name, &json!({"format": 1, "pause": pause}));
    }
}

#[test]
fn the_page_prints_light_and_breaks_no_card() {
    let (states, page) = html(paused);
    if Browser::on(&states).is_none() {
        return;
    }
    let (file, printed) = (states.path("report.html"), states.path("report.pdf"));
    fs::write(&file, &page).unwrap();
    let mut tools = DevTools::show(&file, &states.path("profile"));
    // As browsers print where nothing else is chosen: without backgrounds.
    let paper = json!({"printBackground": false, "paperWidth": 8.27, "paperHeight": 11.69});
    let data = tools.ask("Page.printToPDF", &paper);
    let data = BASE64_STANDARD.decode(data["data"].as_str().unwrap());
    fs::write(&printed, data.unwrap()).unwrap();
    let Ok(text) = Command::new("pdftotext").arg(&printed).arg("-").output() else {
        return skip("pdftotext is not installed");
    };
    let text = String::from_utf8(text.stdout).unwrap();
    let pages: Vec<&str> = text.split('\u{c}').collect();
    assert!(pages.len() > 3, "{text}");
    let on = |word: &str| pages.iter().position(|page| page.contains(word));
    for number in 0..9 {
        let first = on(&format!("heading{number}"));
        assert!(first.is_some(), "{text}");
        assert_eq!(first, on(&format!("reason{number}")), "{number}: {text}");
    }
    // What needs a click is not there.
    assert!(!text.contains("as a table"), "{text}");
    let shown = Command::new("pdftoppm")
        .args(["-gray", "-r", "30", "-f", "1", "-l", "1"])
        .arg(&printed)
        .output()
        .unwrap();
    // PGM: three lines of text, then a byte for each pixel.
    let mut parts = shown.stdout.splitn(4, |byte| *byte == b'\n');
    let pixels = parts.nth(3).unwrap();
    let dark = pixels.iter().filter(|pixel| **pixel < 128).count();
    assert!(
        pixels.len() > 50_000 && dark * 10 < pixels.len(),
        "{dark} of {}",
        pixels.len()
    );
}

/// The line of jq(1) in the manual.
fn jq_program() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/manual/commands.in");
    let text = fs::read_to_string(path).unwrap();
    let (_, program) = text.split_once("status --json | jq -r '").unwrap();
    program.split('\'').next().unwrap().to_owned()
}

#[test]
fn the_status_of_200_hosts_is_one_table() {
    let (_, ran) = said(three, |states| states.run("status", &["--json"]));
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    let object: Value = serde_json::from_str(&ran.stdout).unwrap();
    let mut all = String::new();
    let mut expected = String::new();
    for number in 0..200 {
        let mut object = object.clone();
        object["host"] = format!("node{number:03}").into();
        // The first of every ten hosts has a server that is down, and one that is paused.
        if number % 10 > 0 {
            object["servers"]
                .as_array_mut()
                .unwrap()
                .retain(|one| one["state"] == "up");
        } else {
            let since = object["servers"]
                .as_array()
                .unwrap()
                .iter()
                .find_map(|one| one["down"]["since"].as_str());
            let since = since.unwrap();
            let _ = writeln!(expected, "node{number:03}\tdev\tpaused\t\t");
            let _ = writeln!(expected, "node{number:03}\ttest\theld\t{since}\tdisk_full");
        }
        let _ = writeln!(all, "{object}");
    }
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("all");
    fs::write(&input, all).unwrap();
    let jq = Command::new("jq")
        .args(["-r", &jq_program()])
        .stdin(fs::File::open(input).unwrap())
        .output();
    let Ok(jq) = jq else {
        return skip("jq(1) is not installed");
    };
    assert!(
        jq.status.success(),
        "{}",
        String::from_utf8_lossy(&jq.stderr)
    );
    let said = String::from_utf8(jq.stdout).unwrap();
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, expected.lines().collect::<Vec<_>>());
}
