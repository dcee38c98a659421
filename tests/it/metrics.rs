//! `--metrics-dir`, `--cert-warn-days` and `examples/prometheus`, with the programs that an administrator uses:
//! promtool, the node exporter, Prometheus and Alertmanager.
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::{ServerConnection, StreamOwned};
use serde_json::Value;
use tempfile::TempDir;

use crate::rig::{
    self, MONITOR, Mounted, PATIENCE, Process, Run, Site, get, in_private_namespace, run, skip,
    wait_until,
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prometheus");
/// A day, in seconds.
const DAY: u64 = 86_400;
/// Name, type and help text. They are an interface: what is here must not change.
const FAMILIES: [(&str, &str, &str); 14] = [
    (
        "up",
        "gauge",
        "Whether the server answered the last health check (1) or not (0).",
    ),
    (
        "http_status_code",
        "gauge",
        "Status of the last answer; 0 where there was none.",
    ),
    (
        "check_duration_seconds",
        "gauge",
        "Time that the last health check took.",
    ),
    (
        "last_check_timestamp_seconds",
        "gauge",
        "When the last health check ended, in Unix time.",
    ),
    (
        "last_healthy_timestamp_seconds",
        "gauge",
        "When the server last answered, in Unix time.",
    ),
    (
        "incidents_total",
        "counter",
        "Times that the server stopped answering, by cause.",
    ),
    ("restarts_total", "counter", "Restarts, by outcome."),
    (
        "unwedged_total",
        "counter",
        "Times that the server was healed without a restart.",
    ),
    (
        "away_seconds_total",
        "counter",
        "Time that the server was away, in all.",
    ),
    (
        "hold_until_timestamp_seconds",
        "gauge",
        "Until when restarts are held off, in Unix time; 0 where they are not.",
    ),
    (
        "pause_until_timestamp_seconds",
        "gauge",
        "Until when the server is paused, in Unix time; 0 where it is not.",
    ),
    (
        "certificate_expiry_timestamp_seconds",
        "gauge",
        "When the server's certificate expires, in Unix time.",
    ),
    (
        "notifications_pending",
        "gauge",
        "Events that the notify command has not taken yet.",
    ),
    (
        "build_info",
        "gauge",
        "Version of monitor_myvnc that watches this server; always 1.",
    ),
];
/// The slugs of the causes, which are an interface too.
const CAUSES: &str = "not_running oom idle_client idle_tls_client slow_reader child peer file uninterruptible stopped \
                      traced spinning deadlock unremarkable descriptors threads memory swapped accept_queue port_taken \
                      misplaced elsewhere dns proxy http_status certificate not_myvnc disk_full overload scheme \
                      local_failure redirect_loop unknown";

/// The monitor on a site, with its metrics in `metrics`.
fn monitor(site: &Site) -> Command {
    let directory = site.path("metrics");
    fs::create_dir_all(&directory).unwrap();
    let mut monitor = site.monitor();
    monitor.arg("--metrics-dir").arg(directory);
    monitor
}

/// The metrics of the run before, without `monitor_myvnc_`.
fn metrics(site: &Site) -> String {
    let text = fs::read_to_string(site.path("metrics/monitor_myvnc_monitor.prom")).unwrap();
    text.replace("monitor_myvnc_", "")
}

/// The value of a series of that text; its labels are `labels` and the server.
fn value_with(text: &str, name: &str, labels: &str) -> Option<f64> {
    let start = format!("{name}{{server=\"monitor\"{labels}}} ");
    let mut lines = text.lines();
    lines.find_map(|line| Some(line.strip_prefix(&start)?.parse().unwrap()))
}

fn value(text: &str, name: &str) -> f64 {
    value_with(text, name, "").unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn verb(site: &Site, arguments: &[&str]) -> Run {
    let mut command = Command::new(MONITOR);
    command.args(arguments).arg("--state-dir");
    run(command.arg(site.path("state")))
}

/// Whether these programs are there; says so if one is not.
fn are_installed(programs: &[&str]) -> bool {
    let missing = programs
        .iter()
        .find(|program| !Path::new("/usr/bin").join(program).exists());
    if let Some(missing) = missing {
        skip(&format!("{missing} is not installed"));
    }
    missing.is_none()
}

#[test]
fn each_family_has_its_help_text_type_and_series() {
    let site = Site::new("");
    let _server = site.start();
    let checked = run(&mut monitor(&site));
    assert_eq!(checked.code(), Some(0), "{}", site.log());
    let text = metrics(&site);
    let mut lines = text.lines().peekable();
    for (name, kind, help) in FAMILIES {
        if name.starts_with("certificate") {
            continue;
        }
        assert_eq!(lines.next(), Some(&*format!("# HELP {name} {help}")));
        assert_eq!(lines.next(), Some(&*format!("# TYPE {name} {kind}")));
        let mut series = 0;
        while lines.next_if(|line| !line.starts_with('#')).is_some() {
            series += 1;
        }
        let expected = match name {
            "incidents_total" => 33,
            "restarts_total" => 2,
            _ => 1,
        };
        assert_eq!(series, expected, "{name}");
    }
    assert_eq!(lines.next(), None);
    for cause in CAUSES.split_ascii_whitespace() {
        let labels = format!(",cause=\"{cause}\"");
        assert_eq!(value_with(&text, "incidents_total", &labels), Some(0.0));
    }
    for (name, expected) in [
        ("up", 1.0),
        ("http_status_code", 200.0),
        ("unwedged_total", 0.0),
        ("away_seconds_total", 0.0),
        ("hold_until_timestamp_seconds", 0.0),
        ("pause_until_timestamp_seconds", 0.0),
        ("notifications_pending", 0.0),
    ] {
        assert!(value(&text, name).total_cmp(&expected).is_eq(), "{text}");
    }
    let version = format!(",version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert_eq!(value_with(&text, "build_info", &version), Some(1.0));
    #[allow(clippy::cast_precision_loss)]
    let now = now() as f64;
    for name in [
        "last_check_timestamp_seconds",
        "last_healthy_timestamp_seconds",
    ] {
        assert!((now - 60.0..=now).contains(&value(&text, name)), "{text}");
    }
    let took = value(&text, "check_duration_seconds");
    assert!(took > 0.0 && took < 2.0, "{took}");
}

#[test]
fn the_manual_names_each_family() {
    let manual = concat!(env!("CARGO_MANIFEST_DIR"), "/man/monitor_myvnc.1");
    let manual = fs::read_to_string(manual).unwrap().replace('\\', "");
    for (name, _, _) in FAMILIES {
        let name = format!("monitor_myvnc_{name}");
        assert!(manual.contains(&name), "{name}");
    }
}

#[test]
fn outages_restarts_holds_and_pauses_are_counted_and_shown() {
    let site = Site::new("");
    let healed = run(&mut monitor(&site));
    assert_eq!(healed.code(), Some(0), "{}", site.log());
    let text = metrics(&site);
    assert!(value(&text, "up") > 0.0, "{text}");
    let series = |name, labels| value_with(&metrics(&site), name, labels).unwrap();
    let is = |value: f64, expected: f64| value.total_cmp(&expected).is_eq();
    assert!(is(series("restarts_total", ",outcome=\"answered\""), 1.0));
    // Where this machine is overloaded by tests, that can be the cause that is named first.
    let incidents = || -> f64 {
        let text = metrics(&site);
        let series = text
            .lines()
            .filter(|line| line.starts_with("incidents_total{"));
        let counts = series.filter_map(|line| line.rsplit_once(' '));
        counts.map(|(_, count)| count.parse::<f64>().unwrap()).sum()
    };
    assert!(is(incidents(), 1.0), "{text}{}", site.log());

    let end_server = || {
        for pid in site.servers() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        wait_until("it is dead", || site.servers().is_empty());
    };
    // A pause: the check and the metrics go on.
    end_server();
    assert_eq!(verb(&site, &["pause", "--for", "1h"]).code(), Some(0));
    let paused = run(&mut monitor(&site));
    assert_eq!(paused.code(), Some(0), "{}", site.log());
    let until = series("pause_until_timestamp_seconds", "");
    #[allow(clippy::cast_precision_loss)]
    let expected = (now() + 3600) as f64;
    assert!((expected - 60.0..=expected).contains(&until), "{until}");
    assert!(is(series("up", ""), 0.0) && is(series("http_status_code", ""), 0.0));
    assert_eq!(verb(&site, &["resume"]).code(), Some(0));

    // A restart that fails, and one that is not tried.
    let mut failing = monitor(&site);
    failing.args(["--restart-cmd", "false"]);
    assert_eq!(run(&mut failing).code(), Some(1), "{}", site.log());
    assert!(is(series("restarts_total", ",outcome=\"failed\""), 1.0));
    assert!(is(series("up", ""), 0.0));
    assert!(is(series("pause_until_timestamp_seconds", ""), 0.0));
    assert!(is(incidents(), 2.0), "{}", site.log());
    let mut held = monitor(&site);
    held.args(["--restart-policy", "never"]);
    assert_eq!(run(&mut held).code(), Some(1), "{}", site.log());
    assert!(series("hold_until_timestamp_seconds", "").is_infinite());
    assert!(series("last_healthy_timestamp_seconds", "") > 0.0);

    // Runs that only look write none.
    let before = metrics(&site);
    for flag in ["--dry-run", "--collect-diagnostics"] {
        run(monitor(&site).arg(flag));
        assert_eq!(metrics(&site), before, "{flag}");
    }
    // Events that wait, one that is not whole yet, and the number of those that were dropped.
    let outbox = site.path(&format!("state/127.0.0.1_{}.outbox", site.port));
    fs::create_dir_all(&outbox).unwrap();
    for name in [
        "000000000001.json",
        "000000000002.json",
        "3.tmp",
        "000000000003-1.dropped",
    ] {
        fs::write(outbox.join(name), "").unwrap();
    }
    run(&mut monitor(&site));
    assert!(is(series("notifications_pending", ""), 2.0));
}

/// The lines of the log about the metrics.
fn complaints(site: &Site) -> Vec<String> {
    let log = site.log();
    let lines = log.lines().filter(|line| line.contains("metrics"));
    lines.map(str::to_owned).collect()
}

#[test]
fn metrics_that_cannot_be_written_change_nothing_else() {
    in_private_namespace(|| {
        let site = Site::new("");
        let _server = site.start();
        fs::write(site.path("file"), "").unwrap();
        let mut dead_disk = None;
        let mut full_disk = None;
        for (directory, reason) in [
            ("missing", "No such file or directory"),
            ("file", "Not a directory"),
            ("full", "No space left on device"),
            ("dead", "its disk does not respond"),
        ] {
            let path = site.path(directory);
            match directory {
                "full" => full_disk = Some(Mounted::full_tmpfs(&path)),
                "dead" => {
                    dead_disk = rig::dead_disk::DeadDisk::mount(&path);
                    if dead_disk.is_none() {
                        skip("no file system in user space can be mounted here");
                        continue;
                    }
                }
                _ => (),
            }
            let _ = fs::remove_file(site.path("monitor.log"));
            let mut monitor = site.monitor();
            let checked = run(monitor.arg("--metrics-dir").arg(&path));
            assert_eq!(checked.code(), Some(0), "{}", site.log());
            assert!(checked.took < Duration::from_secs(20), "{directory}");
            let complaints = complaints(&site);
            assert_eq!(complaints.len(), 1, "{complaints:?}");
            let file = path.join("monitor_myvnc_monitor.prom");
            let expected = format!(
                "[WARNING] Cannot write the metrics {}: {reason};",
                file.display()
            );
            assert!(complaints[0].contains(&expected), "{complaints:?}");
        }
        if full_disk.is_some() {
            assert_eq!(fs::read_dir(site.path("full")).unwrap().count(), 1);
        }
        // Nothing that was left behind holds the lock.
        let checked = run(&mut site.monitor());
        assert_eq!(checked.code(), Some(0), "{}", site.log());
        drop(dead_disk);
    });
}

#[test]
fn counters_are_left_out_where_the_state_cannot_be_used() {
    let site = Site::new("");
    let _server = site.start();
    fs::write(site.path("state"), "").unwrap();
    let checked = run(&mut monitor(&site));
    assert_eq!(checked.code(), Some(0), "{}", site.log());
    let text = metrics(&site);
    assert!(
        value(&text, "up") > 0.0 && !text.contains("_total"),
        "{text}"
    );
}

#[test]
fn a_reader_never_sees_half_a_file() {
    let site = Site::new("");
    let _server = site.start();
    assert_eq!(run(&mut monitor(&site)).code(), Some(0));
    let path = site.path("metrics/monitor_myvnc_monitor.prom");
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let is_over = is_over.clone();
        move || {
            let mut seen = std::collections::BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.starts_with("# HELP monitor_myvnc_up "), "{text}");
                assert!(text.ends_with("\"} 1\n"), "{text}");
                seen.insert(text);
            }
            seen.len()
        }
    });
    let is_well = (0..30).all(|_| run(&mut monitor(&site)).code() == Some(0));
    is_over.store(true, Ordering::Relaxed);
    assert!(is_well, "{}", site.log());
    assert!(reader.join().unwrap() > 10);
}

/// An HTTPS server with a certificate for 127.0.0.1 that expires at that time; its port, and the certificate.
fn expiring(expires: u64) -> (u16, String) {
    let (config, certificate) = rig::certified(|one| {
        one.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(expires);
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(session, client);
            if stream.read(&mut [0; 1024]).is_ok() {
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (port, certificate)
}

/// A run on that HTTPS server.
fn secure(site: &Site, port: u16, more: &[&str]) -> Run {
    let url = format!("https://127.0.0.1:{port}");
    let mut monitor = monitor(site);
    run(monitor.args(["--url", &url]).args(more))
}

fn warnings(site: &Site) -> Vec<String> {
    let log = site.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("certificate expires"));
    lines.map(|line| line[22..].to_owned()).collect()
}

#[test]
fn a_certificate_that_expires_is_announced_once_and_shown_everywhere() {
    let site = Site::new("");
    let expires = now() + 10 * DAY - 60;
    let (port, pem) = expiring(expires);
    let authority = site.path("own.pem");
    fs::write(&authority, pem).unwrap();
    let trusted = ["--ca-cert", authority.to_str().unwrap()];
    let shown = |what: &[&str]| verb(&site, &[&["status"], what].concat());

    // Off with bare flags, but read.
    let checked = secure(&site, port, &trusted);
    assert_eq!(checked.code(), Some(0), "{}", site.log());
    assert_eq!(warnings(&site), [""; 0]);
    #[allow(clippy::cast_precision_loss)]
    let at = expires as f64;
    let name = "certificate_expiry_timestamp_seconds";
    assert!(value(&metrics(&site), name).total_cmp(&at).is_eq());
    let status = shown(&[]);
    assert!(
        status.stdout.contains("certificate: 9 days left"),
        "{status:?}"
    );
    let json: Value = serde_json::from_str(&shown(&["--json"]).stdout).unwrap();
    let time = json["servers"][0]["certificate_expires"].as_str().unwrap();
    let date = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ", "-d", &format!("@{expires}")])
        .output();
    let date = String::from_utf8(date.unwrap().stdout).unwrap();
    assert_eq!(time, date.trim());
    let nagios = shown(&["--nagios"]);
    assert_eq!(nagios.code(), Some(1), "{nagios:?}");
    assert!(nagios.stdout.starts_with("MYVNC WARNING - "), "{nagios:?}");

    // The state is written once.
    let state = site.path(&format!("state/127.0.0.1_{port}.json"));
    let written = fs::metadata(&state).unwrap().modified().unwrap();
    assert_eq!(secure(&site, port, &trusted).code(), Some(0));
    assert_eq!(fs::metadata(&state).unwrap().modified().unwrap(), written);

    // Each threshold once; here only that of 14 days is left.
    let warn = [&trusted[..], &["--cert-warn-days", "21"]].concat();
    assert_eq!(verb(&site, &["pause"]).code(), Some(0));
    assert_eq!(secure(&site, port, &warn).code(), Some(0));
    assert_eq!(warnings(&site), [""; 0], "it is paused");
    assert_eq!(verb(&site, &["resume"]).code(), Some(0));
    for _ in 0..3 {
        assert_eq!(secure(&site, port, &warn).code(), Some(0));
    }
    let date = Command::new("date")
        .args(["+%Y-%m-%d", "-d", &format!("@{expires}")])
        .output();
    let date = String::from_utf8(date.unwrap().stdout).unwrap();
    let expected = format!(
        "[WARNING] The server's certificate expires in 10 days, on {}",
        date.trim()
    );
    assert_eq!(warnings(&site), [expected]);
}

#[test]
fn a_certificate_that_is_not_verified_or_not_accepted_is_read_all_the_same() {
    let site = Site::new("");
    let expires = now() + 2 * DAY;
    let (port, _) = expiring(expires);
    let warn = ["--cert-warn-days", "2", "--no-verify-ssl"];
    let checked = secure(&site, port, &warn);
    assert_eq!(checked.code(), Some(0), "{}", site.log());
    assert_eq!(warnings(&site), [""; 0], "3 days are more than 2");
    let warn = ["--cert-warn-days", "3", "--no-verify-ssl"];
    assert_eq!(secure(&site, port, &warn).code(), Some(0));
    assert_eq!(warnings(&site).len(), 1, "{}", site.log());

    let other = Site::new("");
    let (port, _) = expiring(expires);
    let refused = secure(&other, port, &["--restart-policy", "never"]);
    assert_eq!(refused.code(), Some(1), "{}", other.log());
    assert!(other.log().contains("SSL certificate error"));
    let text = metrics(&other);
    #[allow(clippy::cast_precision_loss)]
    let expires = expires as f64;
    let shown = value(&text, "certificate_expiry_timestamp_seconds");
    assert!(shown.total_cmp(&expires).is_eq(), "{text}");
}

/// A program that says on stderr at which port of 127.0.0.1 it listens.
struct Service {
    _process: Process,
    address: SocketAddr,
    log: PathBuf,
}

impl Service {
    /// Starts it, with that option for its address, and waits until it is ready.
    fn start(directory: &Path, program: &str, arguments: &[String]) -> Self {
        let log = directory.join(format!("{program}.log"));
        let child = Command::new(Path::new("/usr/bin").join(program))
            .args(arguments)
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut process = Process::from(child);
        let mut address = None;
        wait_until("it listens", || {
            let said = fs::read_to_string(&log).unwrap();
            let ended = process.child.try_wait().unwrap();
            assert!(ended.is_none(), "{program}: {said}");
            let listening = said.split_once("msg=\"Listening on\" address=");
            let line = listening.and_then(|(_, rest)| rest.split_once('\n'));
            address = line.map(|(address, _)| address.parse().unwrap());
            address.is_some()
        });
        Self {
            _process: process,
            address: address.unwrap(),
            log,
        }
    }

    /// A node exporter that reads this directory and nothing else.
    fn node_exporter(directory: &Path, metrics: &Path) -> Self {
        let metrics = format!("--collector.textfile.directory={}", metrics.display());
        let only = ["--collector.disable-defaults", "--collector.textfile"];
        let arguments = [only.map(str::to_owned).to_vec(), vec![metrics]].concat();
        Self::start(directory, "prometheus-node-exporter", &arguments)
    }

    /// The body of the answer at that path; empty where there was none.
    fn get(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.address);
        let output = Command::new("curl")
            .args(["-s", "-m", "10", &url])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path)).unwrap_or_default()
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

/// Two servers of a configuration file, each with a run; the temp dir that holds the metrics, and the names.
fn two_servers(site: &Site) -> PathBuf {
    let directory = site.path("metrics");
    fs::create_dir_all(&directory).unwrap();
    let (state, log) = (site.path("state"), site.path("logs"));
    let server = |name: &str, url: &str, policy: &str| {
        format!(
            "[server.{name}]\nurl = '{url}'\nlogfile = '{}'\nrestart-cmd = 'false'\nprocess-pattern = '{}'\n\
             restart-policy = '{policy}'\n",
            log.join(format!("{name}.log")).display(),
            site.pattern(),
        )
    };
    let text = format!(
        "metrics-dir = '{}'\nstate-dir = '{}'\ntimeout = 2\n{}{}",
        directory.display(),
        state.display(),
        server("main", &site.url(), "always"),
        // Nobody listens there.
        server("te_st-2", "http://127.0.0.1:1", "never"),
    );
    let file = site.path("two.toml");
    fs::write(&file, text).unwrap();
    let watched = run(Command::new(MONITOR).arg("--config").arg(file));
    assert_eq!(watched.code(), Some(1), "{watched:?}");
    directory
}

#[test]
fn promtool_finds_nothing_wrong_with_a_runs_file() {
    if !are_installed(&["promtool"]) {
        return;
    }
    let site = Site::new("");
    let (port, _) = expiring(now() + DAY);
    let checked = secure(&site, port, &["--no-verify-ssl"]);
    assert_eq!(checked.code(), Some(0), "{}", site.log());
    assert_eq!(metrics(&site).matches("# HELP ").count(), FAMILIES.len());
    let file = fs::File::open(site.path("metrics/monitor_myvnc_monitor.prom")).unwrap();
    let mut promtool = Command::new("promtool");
    let said = run(promtool.args(["check", "metrics"]).stdin(file));
    assert_eq!(
        (said.code(), said.stdout.as_str()),
        (Some(0), ""),
        "{said:?}"
    );
    assert_eq!(said.stderr, "");
}

#[test]
fn prometheus_reads_two_servers_through_the_node_exporter() {
    if !are_installed(&["prometheus-node-exporter", "prometheus"]) {
        return;
    }
    let site = Site::new("");
    let _server = site.start();
    let directory = two_servers(&site);
    // A run that is cut off leaves this, which no collector reads.
    fs::write(directory.join(".monitor_myvnc_main.prom.tmp"), "half").unwrap();
    let exporter = Service::node_exporter(&site.path(""), &directory);
    let scraped = get(exporter.address, PATIENCE).is_some();
    assert!(scraped, "{}", exporter.said());
    let scraped = exporter.get("/metrics");
    for (line, count) in [
        ("monitor_myvnc_up{server=\"main\"} 1\n", 1),
        ("monitor_myvnc_up{server=\"te_st-2\"} 0\n", 1),
        ("# HELP monitor_myvnc_up ", 1),
        ("monitor_myvnc_incidents_total{", 66),
        ("node_textfile_scrape_error 0\n", 1),
    ] {
        assert_eq!(scraped.matches(line).count(), count, "{line}\n{scraped}");
    }
    assert!(
        !exporter.said().contains("level=error"),
        "{}",
        exporter.said()
    );

    let prometheus = prometheus(&site, &exporter, None, "");
    let mut answer = Value::Null;
    wait_until("Prometheus has scraped it", || {
        answer = prometheus.json("/api/v1/query?query=count(monitor_myvnc_build_info)");
        answer["data"]["result"][0]["value"][1] == "2"
    });
    let query = "/api/v1/query?query=monitor_myvnc_incidents_total%7Bserver%3D%22main%22%7D";
    let answer = prometheus.json(query);
    let series = answer["data"]["result"].as_array().unwrap();
    assert_eq!(series.len(), 33, "{answer}");
}

/// Prometheus with the example's configuration: it scrapes that exporter each second.
fn prometheus(
    site: &Site,
    exporter: &Service,
    alertmanager: Option<&Service>,
    rules: &str,
) -> Service {
    let text = fs::read_to_string(Path::new(EXAMPLES).join("prometheus.yml")).unwrap();
    let rules_file = site.path("rules.yml");
    fs::write(&rules_file, rules).unwrap();
    let alerts = alertmanager.map_or("localhost:9".to_owned(), |one| one.address.to_string());
    let text = [
        ("interval: 30s", "interval: 1s"),
        (
            "/etc/prometheus/monitor_myvnc.rules.yml",
            rules_file.to_str().unwrap(),
        ),
        ("hpc-login1.example.com:9100", &exporter.address.to_string()),
        ("          - hpc-login2.example.com:9100\n", ""),
        ("localhost:9093", &alerts),
    ]
    .iter()
    .fold(text, |text, (old, new)| {
        assert!(text.contains(old), "no {old:?} in {text}");
        text.replace(old, new)
    });
    let file = site.path("prometheus.yml");
    fs::write(&file, text).unwrap();
    let arguments = [
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", site.path("tsdb").display()),
    ];
    Service::start(&site.path(""), "prometheus", &arguments)
}

/// An Alertmanager with the example's configuration, which reaches nobody.
fn alertmanager(site: &Site) -> Service {
    let arguments = [
        format!("--config.file={EXAMPLES}/alertmanager.yml"),
        format!("--storage.path={}", site.path("alerts").display()),
        "--cluster.listen-address=".to_owned(),
    ];
    Service::start(&site.path(""), "prometheus-alertmanager", &arguments)
}

#[test]
fn a_server_that_stays_down_raises_an_alert() {
    let programs = [
        "prometheus-node-exporter",
        "prometheus",
        "prometheus-alertmanager",
    ];
    if !are_installed(&programs) {
        return;
    }
    let site = Site::new("");
    let directory = two_servers(&site);
    let exporter = Service::node_exporter(&site.path(""), &directory);
    let alertmanager = alertmanager(&site);
    let rules = fs::read_to_string(Path::new(EXAMPLES).join("rules.yml")).unwrap();
    let rules = rules
        .replace("for: 3m", "for: 2s")
        .replace("for: 1m", "for: 2s");
    let _prometheus = prometheus(&site, &exporter, Some(&alertmanager), &rules);
    let mut alerts = Value::Null;
    // Of "main" a restart has failed; that of the other is held off, which says more than that it is down.
    for (name, server, state) in [
        ("MyvncDown", "main", "active"),
        ("MyvncRestartHeld", "te_st-2", "active"),
        ("MyvncDown", "te_st-2", "suppressed"),
    ] {
        wait_until(name, || {
            alerts = alertmanager.json("/api/v2/alerts");
            let mut all = alerts.as_array().into_iter().flatten();
            all.any(|alert| {
                let labels = &alert["labels"];
                let is_this = labels["alertname"] == name && labels["server"] == server;
                is_this && alert["status"]["state"] == state
            })
        });
    }
    let all = alerts.as_array().unwrap();
    let down = all.iter().find(|alert| {
        let labels = &alert["labels"];
        labels["alertname"] == "MyvncDown" && labels["server"] == "main"
    });
    let down = down.unwrap();
    let summary = down["annotations"]["summary"].as_str().unwrap();
    let address = exporter.address;
    let expected = format!("MyVNC server main on {address} does not answer");
    assert_eq!(summary, expected, "{down}");
    assert_eq!(down["receivers"][0]["name"], "on-call", "{down}");
    if let Some(path) = std::env::var_os("MONITOR_TEST_ALERTS") {
        fs::write(path, serde_json::to_string_pretty(&alerts).unwrap()).unwrap();
    }
}

#[test]
fn the_examples_are_what_their_programs_take() {
    if !are_installed(&["promtool", "amtool"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let configuration = directory.path().join("prometheus.yml");
    let text = fs::read_to_string(Path::new(EXAMPLES).join("prometheus.yml")).unwrap();
    let rules = format!("{EXAMPLES}/rules.yml");
    let own = text.replace("/etc/prometheus/monitor_myvnc.rules.yml", &rules);
    assert_ne!(own, text);
    fs::write(&configuration, own).unwrap();
    let configuration = configuration.display().to_string();
    for (program, arguments) in [
        ("promtool", "check rules rules.yml".to_owned()),
        ("promtool", "test rules rules_test.yml".to_owned()),
        ("promtool", format!("check config {configuration}")),
        ("amtool", "check-config alertmanager.yml".to_owned()),
    ] {
        let mut command = Command::new(program);
        command.args(arguments.split(' ')).current_dir(EXAMPLES);
        let checked = run(&mut command);
        assert_eq!(checked.code(), Some(0), "{arguments:?}: {checked:?}");
    }
    // Each rule has a test in which it fires.
    let rules = fs::read_to_string(rules).unwrap();
    let tests = fs::read_to_string(Path::new(EXAMPLES).join("rules_test.yml")).unwrap();
    let names = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: Vec<&str> = names.collect();
    assert_eq!(names.len(), 7);
    for name in names {
        let case = format!("alertname: {name}\n");
        let mut tested = tests.split(&case).skip(1);
        let fires = tested.any(|rest| rest.trim_start().starts_with("exp_alerts:"));
        assert!(fires, "{name}");
    }
}
