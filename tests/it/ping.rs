//! The dead man's switch: the last act of a run is a request, through a proxy if the environment names one, and
//! whatever comes of it changes nothing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::rig::{self, Run, Site, run, wait_for, wait_until};

/// The part of a ping URL that nobody else may know.
const SECRET: &str = "0f3c-5b1d";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";

/// Takes pings: each request line, and its body. As a proxy it also connects to others.
struct Sink {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    fn new(answer: &'static str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sink = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
        };
        let requests = sink.requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, requests, tls) = (stream.unwrap(), requests.clone(), tls.clone());
                std::thread::spawn(move || {
                    let _ = match tls {
                        None => take(&mut &stream, answer, &requests, Some(&stream)),
                        Some(tls) => {
                            let session = ServerConnection::new(tls).unwrap();
                            let mut stream = StreamOwned::new(session, stream);
                            take(&mut stream, answer, &requests, None)
                        }
                    };
                });
            }
        });
        sink
    }

    /// The requests since the last call.
    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

/// Takes one request.
fn take(
    stream: &mut (impl Read + Write),
    answer: &str,
    requests: &Mutex<Vec<String>>,
    tunnel: Option<&TcpStream>,
) -> io::Result<()> {
    let mut text = String::new();
    let head = loop {
        if let Some(end) = text.find("\r\n\r\n") {
            break end + 4;
        }
        read_some(stream, &mut text)?;
    };
    let length = text.to_lowercase().lines().find_map(|line| {
        let length = line.strip_prefix("content-length: ")?;
        length.parse::<usize>().ok()
    });
    while text.len() < head + length.unwrap_or_default() {
        read_some(stream, &mut text)?;
    }
    let line = text.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
    let request = format!("{line} {}", &text[head..]).trim_end().to_owned();
    requests.lock().unwrap().push(request);
    match (line.strip_prefix("CONNECT "), tunnel) {
        (Some(to), Some(client)) => {
            let there = TcpStream::connect(to)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            let (mut from, mut into) = (there.try_clone()?, client.try_clone()?);
            std::thread::spawn(move || io::copy(&mut from, &mut into));
            let _ = io::copy(&mut &*client, &mut &there);
            there.shutdown(std::net::Shutdown::Write)
        }
        _ => stream.write_all(answer.as_bytes()),
    }
}

fn read_some(stream: &mut impl Read, text: &mut String) -> io::Result<()> {
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
            Ok(())
        }
    }
}

/// A site whose server runs.
fn healthy() -> (Site, crate::rig::Process) {
    let site = Site::new("");
    let server = site.start();
    (site, server)
}

/// A run that pings there, without the proxies of whoever runs the tests.
fn pinging(site: &Site, url: &str) -> Command {
    let mut monitor = site.monitor();
    monitor.args(["--ping-url", url]);
    for name in ["all_proxy", "http_proxy", "https_proxy", "no_proxy"] {
        monitor.env_remove(name).env_remove(name.to_uppercase());
    }
    monitor
}

fn url(scheme: &str, to: SocketAddr) -> String {
    format!("{scheme}://{to}/{SECRET}")
}

fn state_file(site: &Site, extension: &str) -> PathBuf {
    site.path(&format!("state/127.0.0.1_{}.{extension}", site.port))
}

/// Makes the last ping that old, in seconds.
fn age(site: &Site, seconds: u64) {
    let file = File::options().write(true).open(state_file(site, "ping"));
    let at = SystemTime::now().checked_sub(Duration::from_secs(seconds));
    file.unwrap().set_modified(at.unwrap()).unwrap();
}

/// The warnings of the log about pings.
fn warnings(site: &Site) -> Vec<String> {
    let log = site.log();
    assert!(!log.contains(SECRET), "{log}");
    let lines = log.lines().filter(|line| line.contains("Cannot ping"));
    lines
        .inspect(|line| assert!(line.contains("[WARNING]"), "{line}"))
        .filter_map(|line| Some(line.split_once("Cannot ping ")?.1.to_owned()))
        .collect()
}

fn assert_success(site: &Site, run: &Run) {
    assert_eq!(run.code(), Some(0), "{}", site.log());
}

#[test]
fn a_run_pings_how_it_ended() {
    let (site, server) = healthy();
    let sink = Sink::new(OK, None);
    let url = format!("{}?create=1#top", url("http", sink.address));
    assert_success(&site, &run(&mut pinging(&site, &url)));
    assert_eq!(sink.taken(), [format!("GET /{SECRET}?create=1")]);
    drop(server);
    let fails = || {
        let mut monitor = pinging(&site, &url);
        monitor.args(["--restart-cmd", &site.manage("fail")]);
        let ran = run(&mut monitor);
        assert_eq!(ran.code(), Some(1), "{}", site.log());
    };
    // A success that becomes a failure is told at once, and once.
    fails();
    let taken = sink.taken();
    let [request] = &taken[..] else {
        panic!("{taken:?}");
    };
    let expected = format!("POST /{SECRET}/fail?create=1 monitor is down, ");
    assert!(request.starts_with(&expected), "{request}");
    let names_the_cause = |request: &str| {
        // A machine that is busy may have had no time to find it.
        let cause = site.causes().pop().unwrap();
        let is_late = cause.starts_with("not known: /proc did not respond");
        request.contains("the server is not running") || is_late && request.contains(&cause)
    };
    assert!(names_the_cause(request), "{request}");
    fails();
    assert_eq!(sink.taken(), [""; 0]);
    // Nothing is announced any more: the ping still says what is wrong.
    age(&site, 20);
    fails();
    let taken = sink.taken();
    let expected = format!("POST /{SECRET}/fail?create=1 monitor: Connection error: ");
    assert!(taken[0].starts_with(&expected), "{taken:?}");
    assert!(names_the_cause(&taken[0]), "{taken:?}");
    age(&site, 20);
    assert_success(&site, &run(&mut pinging(&site, &url)));
    assert_eq!(sink.taken(), [format!("GET /{SECRET}?create=1")]);
    assert_eq!(warnings(&site), [""; 0]);
}

#[test]
fn a_timer_of_5_seconds_pings_every_20() {
    let (site, _server) = healthy();
    let sink = Sink::new(OK, None);
    let url = url("http", sink.address);
    for (seconds, expected) in [
        (None, 1),
        (Some(5), 0),
        (Some(10), 0),
        (Some(15), 0),
        (Some(20), 1),
    ] {
        if let Some(seconds) = seconds {
            age(&site, seconds);
        }
        assert_success(&site, &run(&mut pinging(&site, &url)));
        assert_eq!(sink.taken().len(), expected, "{seconds:?}");
    }
}

#[test]
fn a_paused_run_pings_success() {
    let site = Site::new("");
    let sink = Sink::new(OK, None);
    let mut pause = Command::new(crate::rig::MONITOR);
    assert_success(&site, &run(&mut pinging(&site, &url("http", sink.address))));
    sink.taken();
    age(&site, 20);
    pause
        .arg("pause")
        .arg("--state-dir")
        .arg(site.path("state"));
    assert_success(&site, &run(&mut pause));
    for pid in site.servers() {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
    }
    wait_until("the server is gone", || !site.answers());
    assert_success(&site, &run(&mut pinging(&site, &url("http", sink.address))));
    assert!(site.log().contains("the monitor is paused"));
    assert_eq!(sink.taken(), [format!("GET /{SECRET}")]);
}

/// A TLS server's configuration, and its certificate in a file of the site.
fn tls(site: &Site) -> (Arc<ServerConfig>, PathBuf) {
    let (config, certificate) = rig::certified(|_| ());
    let file = site.path("ca.pem");
    fs::write(&file, certificate).unwrap();
    (config, file)
}

#[test]
fn https_trusts_the_systems_certificates() {
    let (site, _server) = healthy();
    let (config, ca) = tls(&site);
    let sink = Sink::new(OK, Some(config));
    let url = url("https", sink.address);
    let mut monitor = pinging(&site, &url);
    assert_success(&site, &run(monitor.env("SSL_CERT_FILE", &ca)));
    assert_eq!(sink.taken(), [format!("GET /{SECRET}")]);
    age(&site, 20);
    // What the server's own check trusts is of no use here.
    let mut monitor = pinging(&site, &url);
    assert_success(&site, &run(monitor.arg("--no-verify-ssl")));
    assert_eq!(sink.taken(), [""; 0]);
    let expected = format!(
        "https://{}/***: SSL certificate error: unknown issuer; the check",
        sink.address
    );
    assert!(warnings(&site)[0].starts_with(&expected), "{}", site.log());
}

#[test]
fn the_environments_proxies_are_for_pings_alone() {
    let (site, _server) = healthy();
    let (config, ca) = tls(&site);
    let (plain, secure) = (Sink::new(OK, None), Sink::new(OK, Some(config)));
    let proxy = Sink::new(OK, None);
    let through = |url: &str| {
        let mut monitor = pinging(&site, url);
        let address = format!("http://{}", proxy.address);
        monitor.envs([("http_proxy", &address), ("https_proxy", &address)]);
        monitor.env("SSL_CERT_FILE", &ca);
        monitor
    };
    let http = url("http", plain.address);
    assert_success(&site, &run(&mut through(&http)));
    assert_eq!(proxy.taken(), [format!("GET {http}")]);
    assert_eq!(plain.taken(), [""; 0]);
    age(&site, 20);
    assert_success(&site, &run(&mut through(&url("https", secure.address))));
    assert_eq!(proxy.taken(), [format!("CONNECT {}", secure.address)]);
    assert_eq!(secure.taken(), [format!("GET /{SECRET}")]);
    age(&site, 20);
    assert_success(&site, &run(through(&http).env("no_proxy", "127.0.0.1")));
    assert_eq!(proxy.taken(), [""; 0]);
    assert_eq!(plain.taken(), [format!("GET /{SECRET}")]);
    assert_eq!(warnings(&site), [""; 0]);
}

#[test]
fn a_dead_ping_host_costs_5_seconds_at_most_and_holds_no_other_run() {
    let (site, _server) = healthy();
    let usual = run(&mut site.monitor()).took;
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = url("http", dead.local_addr().unwrap());
    let began = std::time::Instant::now();
    let mut monitor = pinging(&site, &url);
    monitor.stdout(Stdio::null()).stderr(Stdio::null());
    crate::rig::assert_harmless(&monitor);
    let mut monitor = monitor.spawn().unwrap();
    let (stream, _) = dead.accept().unwrap();
    // It waits for the answer now.
    assert_success(&site, &run(&mut site.monitor()));
    assert!(!site.log().contains("holds the lock"), "{}", site.log());
    assert_eq!(monitor.try_wait().unwrap(), None);
    assert_eq!(wait_for(&mut monitor).code(), Some(0));
    let took = began.elapsed();
    assert!(took < usual + Duration::from_secs(5), "{took:?}, {usual:?}");
    drop(stream);
    let expected = "it did not answer in time; the check is not affected";
    assert!(warnings(&site)[0].ends_with(expected), "{}", site.log());
}

#[test]
fn a_ping_that_does_not_get_through_is_warned_of_once_a_day() {
    let (site, _server) = healthy();
    let refused = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (good, bad) = (
        Sink::new(OK, None),
        Sink::new("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", None),
    );
    let ping = |to, expected| {
        let ran = run(&mut pinging(&site, &url("http", to)));
        assert_success(&site, &ran);
        assert_eq!(warnings(&site).len(), expected, "{}", site.log());
        age(&site, 20);
    };
    ping(refused, 1);
    let expected = format!(
        "http://{refused}/***: Connection error: {refused}: Connection refused; the check is not affected"
    );
    assert_eq!(warnings(&site), [expected]);
    ping(refused, 1);
    ping(bad.address, 1);
    let yesterday = SystemTime::now() - Duration::from_secs(25 * 3600);
    let yesterday = yesterday.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let text = format!("ok {}\n", yesterday.as_secs());
    fs::write(state_file(&site, "ping"), text).unwrap();
    age(&site, 20);
    ping(bad.address, 2);
    assert!(warnings(&site)[1].contains(": the answer has status 404; "));
    // Once one got through, the next failure is news.
    ping(good.address, 2);
    ping(refused, 3);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_no_reason_for_silence() {
    let (site, _server) = healthy();
    let sink = Sink::new(OK, None);
    fs::write(site.path("state"), "").unwrap();
    for _ in 0..2 {
        assert_success(&site, &run(&mut pinging(&site, &url("http", sink.address))));
    }
    assert_eq!(sink.taken().len(), 2);
}

#[test]
fn what_is_no_run_pings_nothing() {
    let (site, _server) = healthy();
    let sink = Sink::new(OK, None);
    let url = url("http", sink.address);
    for flag in ["--dry-run", "--collect-diagnostics"] {
        assert_success(&site, &run(pinging(&site, &url).arg(flag)));
    }
    let mut holder = Command::new("flock");
    holder.arg(site.path(".monitor.lock"));
    holder.args(["sh", "-c", "echo held; read line"]);
    let mut holder = holder
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]);
    said.unwrap();
    assert_success(&site, &run(&mut pinging(&site, &url)));
    assert!(site.log().contains("Another run holds the lock"));
    drop(holder.stdin.take());
    wait_for(&mut holder);
    let address = sink.address;
    let secret = format!("http://ada:{SECRET}@{address}/{SECRET}?{SECRET}");
    let shown = run(pinging(&site, &secret).arg("--check-config"));
    assert_success(&site, &shown);
    assert!(!shown.stdout.contains(SECRET), "{}", shown.stdout);
    let expected = format!("ping-url = \"http://{address}/***\"\n");
    assert!(shown.stdout.contains(&expected), "{}", shown.stdout);
    assert_eq!(sink.taken(), [""; 0]);
}
