//! Peers that do to the monitor what they should not: each is bounded in time and memory, and
//! the verdict says what was seen.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::rig;
use crate::rig::{MONITOR, Process, Run, run};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

const HEALTHY: &str = "✓ Server is healthy (status: 200)";
const SILENT: &str = "Server request timed out after 1 seconds (waiting for headers)";
const CLOSED: &str = "Connection error: connection closed without an answer (waiting for headers)";
const RESET: &str = "Connection error: connection reset by the server (waiting for headers)";

const NOT_HTTP_LONG: &str =
    "Connection error: the answer is not HTTP: it has more than 408 KiB of headers";
const NOT_HTTP_STATUS: &str = "Connection error: the answer is not HTTP: it has no valid status";
const NOT_HTTP_VERSION: &str = "Connection error: the answer is not HTTP: \
    it does not begin with HTTP/1.0 or HTTP/1.1 (are the URL's scheme and port right?)";

const GREETING: &str = "Connection error: the answer is not HTTP: \
    it does not begin with HTTP/1.0 or HTTP/1.1 (are the URL's scheme and port right?)|\
    Connection error: the answer is not HTTP: it comes before the request";

/// What a peer does with a client; the port is its own.
type Conduct = Box<dyn Fn(TcpStream, u16) + Send + Sync>;

/// Runs the monitor once on a URL, with that limit for a check in seconds. It can neither stop nor start
/// anything, and has 512 MiB of address space: what takes memory without bound ends as an abort.
fn check(
    url: &str,
    timeout: u32,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Run, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut monitor = Command::new("sh");
    monitor.args([
        "-c",
        "ulimit -v 524288; exec \"$@\"",
        "sh",
        MONITOR,
        "--url",
        url,
        "--timeout",
        &timeout.to_string(),
    ]);
    monitor.args([
        "--restart-cmd",
        "/nonexistent/start",
        "--process-pattern",
        "^no process is called so$",
    ]);
    monitor
        .arg("--logfile")
        .arg(directory.path().join("log"))
        .arg("--state-dir")
        .arg(directory.path().join("state"));
    for proxy in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        monitor.env(proxy, "http://127.0.0.1:1");
    }
    let run = run(monitor.args(arguments).envs(environment.iter().copied()));
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    // The search and the diagnosis have limits of their own, which a busy machine uses up.
    let longest = Duration::from_secs(30 + u64::from(timeout));
    assert!(run.took < longest, "{url}: {:?}", run.took);
    (run, log)
}

/// The verdict in a log: what follows the mark of the unhealthy line, or the healthy line.
fn verdict(log: &str, port: u16) -> String {
    let line = log
        .lines()
        .find(|line| line.contains("✗ ") || line.contains("✓ "))
        .unwrap_or(log);
    let text = line
        .split_once("] ✗ Server is unresponsive: ")
        .or_else(|| line.split_once("[INFO] "))
        .map_or(line, |(_, text)| text);
    text.replace(&port.to_string(), "PORT")
}

/// Serves every client so, each in a thread, for as long as the process lives.
fn serve(address: &str, conduct: Conduct) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let conduct = Arc::new(conduct);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let conduct = conduct.clone();
            client
                .set_write_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            thread::spawn(move || conduct(client, port));
        }
    });
    port
}

/// Reads up to the end of the request's headers.
fn read_request(client: &mut impl Read) -> Vec<u8> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|read| read == 1) {
        request.push(byte[0]);
    }
    request
}

/// Waits until the client goes away.
fn stay(mut client: TcpStream) {
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
}

fn says(answer: impl Into<Vec<u8>>) -> Conduct {
    let answer = answer.into();
    Box::new(move |mut client, port| {
        read_request(&mut client);
        let answer = String::from_utf8_lossy(&answer).replace("PORT", &port.to_string());
        let _ = client.write_all(answer.as_bytes());
    })
}

fn says_bytes(answer: &'static [u8]) -> Conduct {
    Box::new(move |mut client, _| {
        read_request(&mut client);
        let _ = client.write_all(answer);
    })
}

fn says_and_stays(answer: &'static str) -> Conduct {
    Box::new(move |mut client, _| {
        read_request(&mut client);
        let _ = client.write_all(answer.as_bytes());
        stay(client);
    })
}

/// Says the beginning, then that again and again for as long as it is heard.
fn floods(beginning: &'static str, again: &'static [u8]) -> Conduct {
    Box::new(move |mut client, _| {
        read_request(&mut client);
        let _ = client.write_all(beginning.as_bytes());
        while client.write_all(again).is_ok() {}
    })
}

/// Says the text byte for byte, slowly enough that it never comes to an end.
fn drips(beginning: &'static str, text: &'static str) -> Conduct {
    Box::new(move |mut client, _| {
        read_request(&mut client);
        let _ = client.write_all(beginning.as_bytes());
        for byte in text.bytes().cycle() {
            thread::sleep(Duration::from_millis(50));
            if client.write_all(&[byte]).is_err() {
                return;
            }
        }
    })
}

/// Ends the connection by a reset (`SO_LINGER` 0).
fn reset(client: TcpStream) {
    let socket = socket2::Socket::from(client);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Resets the connection after the request and after saying that.
fn resets(answer: &'static str) -> Conduct {
    Box::new(move |mut client, _| {
        read_request(&mut client);
        let _ = client.write_all(answer.as_bytes());
        reset(client);
    })
}

fn status(line: &str) -> Conduct {
    says(format!("HTTP/1.0 {line}\r\n\r\n"))
}

fn redirects(location: &str) -> Conduct {
    says(format!(
        "HTTP/1.0 302 Found\r\nLocation: {location}\r\n\r\n"
    ))
}

/// So many redirects to itself, then 200.
fn hops(count: usize) -> Conduct {
    let seen = AtomicUsize::new(0);
    Box::new(move |client, port| {
        let conduct = if seen.fetch_add(1, Ordering::SeqCst) < count {
            redirects("/again")
        } else {
            status("200 OK")
        };
        conduct(client, port);
    })
}

/// Every peer with its name and the verdict on it.
fn peers() -> Vec<(&'static str, &'static str, Conduct)> {
    let found = "✓ Server is healthy (status: 302)";
    let long_header: &'static str = Box::leak(
        format!("HTTP/1.0 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20)).into_boxed_str(),
    );
    vec![
        ("healthy", HEALTHY, status("200 OK")),
        (
            "silent after the connection",
            SILENT,
            Box::new(|client, _| stay(client)),
        ),
        ("silent after the request", SILENT, says_and_stays("")),
        ("half a status line", SILENT, says_and_stays("HTTP/1.0 20")),
        (
            "a status line and nothing more",
            SILENT,
            says_and_stays("HTTP/1.0 200 OK\r\n"),
        ),
        (
            "headers without an end",
            SILENT,
            says_and_stays("HTTP/1.0 200 OK\r\nServer: x\r\n"),
        ),
        (
            "a header cut in two",
            SILENT,
            says_and_stays("HTTP/1.0 200 OK\r\nServ"),
        ),
        (
            "headers, then a silent body",
            HEALTHY,
            says_and_stays("HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\n"),
        ),
        (
            "a dripping status line",
            SILENT,
            drips("HTTP/1.0 200 ", "slow "),
        ),
        (
            "dripping headers",
            SILENT,
            drips("HTTP/1.0 200 OK\r\n", "X-A: b\r\n"),
        ),
        (
            "a dripping body",
            HEALTHY,
            drips("HTTP/1.0 200 OK\r\n\r\n", "x"),
        ),
        (
            "a flood of status line",
            NOT_HTTP_LONG,
            floods("HTTP/1.0 200 ", &[b'x'; 65536]),
        ),
        (
            "a flood of one header",
            NOT_HTTP_LONG,
            floods("HTTP/1.0 200 OK\r\nX: ", &[b'x'; 65536]),
        ),
        (
            "a flood of headers",
            NOT_HTTP_LONG,
            floods("HTTP/1.0 200 OK\r\n", b"X-A: b\r\n"),
        ),
        ("a header of 1 MiB", NOT_HTTP_LONG, says(long_header)),
        (
            "a flood of body",
            HEALTHY,
            floods("HTTP/1.0 200 OK\r\n\r\n", &[b'x'; 65536]),
        ),
        (
            "a body of 8 EiB",
            HEALTHY,
            floods(
                "HTTP/1.0 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n",
                &[b'x'; 65536],
            ),
        ),
        (
            "endless chunks",
            HEALTHY,
            floods(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                b"1\r\nx\r\n",
            ),
        ),
        (
            "a gzip that is none",
            HEALTHY,
            floods(
                "HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
                &[0; 65536],
            ),
        ),
        (
            "100 Continue without end",
            SILENT,
            floods("", b"HTTP/1.1 100 Continue\r\n\r\n"),
        ),
        (
            "103 Early Hints without end",
            SILENT,
            floods("", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
        ),
        (
            "one 100 Continue, then 200",
            HEALTHY,
            says("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ),
        (
            "101",
            "Server returned error status: 101",
            status("101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade"),
        ),
        (
            "204",
            "✓ Server is healthy (status: 204)",
            status("204 No Content"),
        ),
        (
            "304",
            "✓ Server is healthy (status: 304)",
            status("304 Not Modified"),
        ),
        (
            "399",
            "✓ Server is healthy (status: 399)",
            status("399 Odd"),
        ),
        (
            "400",
            "Server returned error status: 400",
            status("400 Bad Request"),
        ),
        (
            "401",
            "Server returned error status: 401",
            status("401 Unauthorized"),
        ),
        (
            "404",
            "Server returned error status: 404",
            status("404 Not Found"),
        ),
        (
            "500",
            "Server returned error status: 500",
            status("500 Internal Server Error"),
        ),
        (
            "503",
            "Server returned error status: 503",
            status("503 Service Unavailable"),
        ),
        (
            "999",
            "Server returned error status: 999",
            status("999 Odd"),
        ),
        ("000", NOT_HTTP_STATUS, status("000 Odd")),
        ("a status of letters", NOT_HTTP_STATUS, status("abc Odd")),
        ("a status of one digit", NOT_HTTP_STATUS, status("2 OK")),
        ("no reason phrase", HEALTHY, status("200")),
        ("HTTP/0.9", NOT_HTTP_VERSION, says("<html>hello</html>\n")),
        (
            "HTTP/3.0",
            NOT_HTTP_VERSION,
            says("HTTP/3.0 200 OK\r\n\r\n"),
        ),
        (
            "an HTTP/2 preface",
            NOT_HTTP_VERSION,
            says_bytes(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"),
        ),
        (
            "garbage",
            NOT_HTTP_VERSION,
            says_bytes(b"\xff\xfe\xfd\r\n\r\n"),
        ),
        ("NULs", NOT_HTTP_VERSION, says_bytes(&[0; 4096])),
        (
            "a greeting before the request",
            GREETING,
            Box::new(|mut client, _| {
                let _ = client.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n");
                stay(client);
            }),
        ),
        (
            "closed at once",
            CLOSED,
            Box::new(|mut client, _| {
                read_request(&mut client);
            }),
        ),
        ("closed in the status line", CLOSED, says("HTTP/1.0 20")),
        // Where curl and Python's requests see an answer, too.
        (
            "closed in the headers",
            HEALTHY,
            says("HTTP/1.0 200 OK\r\nServer: x\r\n"),
        ),
        (
            "half-closed, then silent",
            CLOSED,
            Box::new(|mut client, _| {
                read_request(&mut client);
                client.shutdown(Shutdown::Write).unwrap();
                stay(client);
            }),
        ),
        ("reset after the request", RESET, resets("")),
        (
            "reset in the headers",
            RESET,
            resets("HTTP/1.0 200 OK\r\nServer"),
        ),
        (
            "a redirect to itself for ever",
            "Request error: more than 10 redirects",
            hops(usize::MAX),
        ),
        ("10 redirects", HEALTHY, hops(10)),
        (
            "11 redirects",
            "Request error: more than 10 redirects",
            hops(11),
        ),
        (
            "a redirect to a login page here",
            found,
            Box::new(|mut client, _| {
                // The page itself redirects to another host: that is an answer.
                let request = read_request(&mut client);
                let to = if request.starts_with(b"GET / ") {
                    "/login?error=x"
                } else {
                    "http://127.0.0.2:1/sso"
                };
                let _ = client
                    .write_all(format!("HTTP/1.0 302 Found\r\nLocation: {to}\r\n\r\n").as_bytes());
            }),
        ),
        (
            "hazard 13: a redirect to a dead foreign host",
            found,
            redirects("http://127.0.0.2:1/login"),
        ),
        (
            "a redirect to a foreign name",
            found,
            redirects("https://sso.invalid/login"),
        ),
        (
            "a redirect to a dead port here",
            "Connection error: 127.0.0.1:1, where PORT redirects to: Connection refused",
            redirects("http://127.0.0.1:1/"),
        ),
        (
            "a redirect to another scheme",
            found,
            redirects("ftp://127.0.0.1/"),
        ),
        ("a redirect without a location", found, status("302 Found")),
        ("a redirect to nonsense", found, redirects("http://[/")),
    ]
}

/// Runs all at once: most of their time is waiting.
fn judge_all<T: Send>(cases: Vec<T>, judge: impl Fn(T) -> Result<(), String> + Sync) {
    let queue = std::sync::Mutex::new(cases);
    let failures = std::sync::Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().pop() else {
                        return;
                    };
                    if let Err(failure) = judge(case) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// One case: the URL's form, further flags and environment, and the verdict (or two, with `|`
/// between them, where it is chance which step sees the fault).
struct Case<'a> {
    name: &'a str,
    url: String,
    port: u16,
    arguments: Vec<&'a str>,
    environment: Vec<(&'a str, &'a str)>,
    expected: String,
}

fn judge(case: &Case) -> Result<(), String> {
    // What is not to time out has time enough on a busy machine too.
    let is_slow = case.expected.contains("timed out");
    let timeout = if is_slow { 1 } else { 60 };
    let (run, log) = check(&case.url, timeout, &case.arguments, &case.environment);
    let seen = verdict(&log, case.port).replace("127.0.0.1:1:", "127.0.0.1:PORT:");
    let code = i32::from(!seen.starts_with('✓'));
    if case.expected.split('|').any(|expected| seen == expected) && run.code() == Some(code) {
        return Ok(());
    }
    Err(format!(
        "{}: expected {:?}, seen {seen:?}, exit {:?} {}",
        case.name,
        case.expected,
        run.code(),
        run.stderr
    ))
}

#[test]
fn hazards_10_and_11_each_hostile_peer_is_bounded_and_named() {
    judge_all(peers(), |(name, expected, conduct)| {
        let port = serve("127.0.0.1", conduct);
        let url = format!("http://127.0.0.1:{port}");
        judge(&Case {
            name,
            url,
            port,
            arguments: vec![],
            environment: vec![],
            expected: expected.into(),
        })
    });
}

/// Answers that hyper refuses, or could refuse, and that curl 7.88 or Python's requests 2.34 reads.
const ODD: [(&str, &str); 35] = [
    ("1.0 200 OK\r\nTransfer-Encoding: chunked", "200"),
    ("1.1 200 OK\r\nContent-Length: ", "200"),
    ("1.1 200 OK\r\nContent-Length: +2", "200"),
    ("1.1 200 OK\r\nContent-Length: -2", "200"),
    ("1.1 200 OK\r\nContent-Length: 2 bytes", "200"),
    ("1.1 200 OK\r\nContent-Length: none", "200"),
    (
        "1.1 200 OK\r\nContent-Length: 99999999999999999999999",
        "200",
    ),
    ("1.1 200 OK\r\nContent-Length: 2, 2", "200"),
    (
        "1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        "200",
    ),
    (
        "1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
        "200",
    ),
    ("1.1 200 OK\r\nTransfer-Encoding: foo", "200"),
    ("1.1 200 OK\r\nTransfer-Encoding: chunked, chunked", "200"),
    ("1.1  200 OK", "200"),
    ("1.1\t200 OK", "200"),
    ("1.1 200OK", "200"),
    ("1.1 200 ", "200"),
    ("1.1 200 \u{e9}\u{1}", "200"),
    ("1.1 200 a\0b", "200"),
    ("1.2 200 OK", "200"),
    ("2 200 OK", "200"),
    ("0.9 200 OK", "200"),
    ("1.1 200 OK\nServer: x", "200"),
    ("1.1 200 OK\rServer: x", "200"),
    ("1.1 200 OK\r\nnonsense", "200"),
    ("1.1 200 OK\r\n: x", "200"),
    ("1.1 200 OK\r\nX y: x", "200"),
    ("1.1 200 OK\r\n  X: a", "200"),
    ("1.1 200 OK\r\nX: a\r\n  b", "200"),
    ("1.1 200 OK\r\nX: a\0b", "200"),
    ("1.1 200 OK\r\nX: a\rb", "200"),
    ("1.1 103 Early\r\nX: a\r\n\r\nHTTP/1.1  204 OK", "204"),
    ("1.1 302 Found\r\nLocation: ", "302"),
    ("1.1 302 Found\r\nLocation:  \t ", "302"),
    ("1.1 302 Found\r\nLocation: http://\u{e9}\u{1}/", "302"),
    ("1.1  302 Found\r\nLocation: /x", "302"),
];

#[test]
fn hazard_36_what_curl_or_requests_takes_for_an_answer_is_one() {
    let many = format!("1.1 200 OK{}", "\r\nX: a".repeat(3000));
    let odd = ODD.iter().copied().chain([(many.as_str(), "200")]);
    judge_all(odd.collect(), |(answer, status)| {
        let port = serve("127.0.0.1", says(format!("HTTP/{answer}\r\n\r\n")));
        judge(&Case {
            name: answer,
            url: format!("http://127.0.0.1:{port}"),
            port,
            arguments: vec![],
            environment: vec![],
            expected: format!("✓ Server is healthy (status: {status})"),
        })
    });
}

#[test]
fn hazard_36_an_odd_answer_over_tls_is_one() {
    let (config, _) = rig::certified(|_| ());
    judge_all(ODD.to_vec(), |(answer, status)| {
        let config = config.clone();
        let conduct: Conduct = Box::new(move |client, _| {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(session, client);
            read_request(&mut stream);
            let _ = write!(stream, "HTTP/{answer}\r\n\r\n");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        });
        let port = serve("127.0.0.1", conduct);
        judge(&Case {
            name: answer,
            url: format!("https://127.0.0.1:{port}"),
            port,
            arguments: vec!["--no-verify-ssl"],
            environment: vec![],
            expected: format!("✓ Server is healthy (status: {status})"),
        })
    });
}

#[test]
fn hazard_36_an_odd_answer_that_comes_in_pieces_is_one() {
    let pieces: Vec<(&str, Vec<&'static str>)> = vec![
        ("in the status", vec!["HTTP/1.1  2", "0", "0 OK\r\n"]),
        ("in the spaces", vec!["HTTP/1.1 ", " ", "200 OK\r\n"]),
        ("after the status", vec!["HTTP/1.1  200"]),
    ];
    judge_all(pieces, |(name, pieces)| {
        let conduct: Conduct = Box::new(move |mut client, _| {
            read_request(&mut client);
            for piece in &pieces {
                let _ = client.write_all(piece.as_bytes());
                // So that each is a segment of its own.
                thread::sleep(Duration::from_millis(50));
            }
        });
        let port = serve("127.0.0.1", conduct);
        judge(&Case {
            name,
            url: format!("http://127.0.0.1:{port}"),
            port,
            arguments: vec![],
            environment: vec![],
            expected: HEALTHY.into(),
        })
    });
}

/// A gate as a proxy can be: 302 to itself with a cookie, and 200 to who brings it.
fn cookie_gate() -> Conduct {
    Box::new(|mut client, _| {
        let request = read_request(&mut client);
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let answer = if text.contains("\r\ncookie: seen=1\r\n") {
            "HTTP/1.0 200 OK\r\n\r\n"
        } else {
            "HTTP/1.0 302 Found\r\nSet-Cookie: seen=1; Path=/\r\nLocation: /?step=2\r\n\r\n"
        };
        let _ = client.write_all(answer.as_bytes());
    })
}

#[test]
fn hazard_36_a_gate_sees_the_cookie_that_it_has_set() {
    let port = serve("127.0.0.1", cookie_gate());
    judge(&Case {
        name: "a cookie gate",
        url: format!("http://127.0.0.1:{port}"),
        port,
        arguments: vec![],
        environment: vec![],
        expected: HEALTHY.into(),
    })
    .unwrap();
}

#[test]
fn a_cookie_of_one_check_is_not_sent_in_the_next_one() {
    let brought = Arc::new(Mutex::new(Vec::new()));
    let seen = brought.clone();
    let port = serve(
        "127.0.0.1",
        Box::new(move |mut client, _| {
            let request = read_request(&mut client);
            let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
            let has_cookie = text.contains("\r\ncookie: ");
            seen.lock().unwrap().push(has_cookie);
            let is_first = seen.lock().unwrap().len() <= 2;
            let answer = match (has_cookie, is_first) {
                (false, _) => "302 Found\r\nSet-Cookie: seen=1; Path=/\r\nLocation: /?step=2",
                (true, true) => "503 Service Unavailable",
                (true, false) => "200 OK",
            };
            let _ = write!(client, "HTTP/1.0 {answer}\r\n\r\n");
        }),
    );
    judge(&Case {
        name: "two checks",
        url: format!("http://127.0.0.1:{port}"),
        port,
        arguments: vec!["--retries", "1", "--retry-delay", "0.01"],
        environment: vec![],
        expected: HEALTHY.into(),
    })
    .unwrap();
    assert_eq!(*brought.lock().unwrap(), [false, true, false, true]);
}

/// A socket whose accept queue is full, so that it drops SYNs, and the clients that fill it.
fn deaf(address: std::net::SocketAddr) -> (socket2::Socket, Vec<TcpStream>) {
    // A backlog of 0 holds one connection.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(client) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(client);
    }
    (socket, queued)
}

/// In a network namespace of its own, with its loopback interface up.
fn in_private_network(body: impl FnOnce()) {
    rig::in_private_namespace(|| {
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            return rig::skip("no private network namespace can be made here");
        }
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        if !up.is_ok_and(|up| up.success()) {
            return rig::skip("ip(8) is not installed");
        }
        body();
    });
}

#[test]
fn hazard_36_the_first_of_two_addresses_drops_syns() {
    in_private_network(|| {
        let directory = tempfile::tempdir().unwrap();
        let hosts = directory.path().join("hosts");
        std::fs::write(&hosts, "127.0.0.2 myvnc.test\n127.0.0.1 myvnc.test\n").unwrap();
        let none = None::<&str>;
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(&hosts), "/etc/hosts", none, flags, none).unwrap();
        let port = serve("127.0.0.1", status("200 OK"));
        let _deaf = deaf(std::net::SocketAddr::from(([127, 0, 0, 2], port)));
        judge(&Case {
            name: "the first address drops SYNs",
            url: format!("http://myvnc.test:{port}"),
            port,
            arguments: vec![],
            environment: vec![("RESOLV_MULTI", "on")],
            expected: HEALTHY.into(),
        })
        .unwrap();
    });
}

#[test]
fn hazard_35_root_asks_from_a_reserved_port_when_the_others_are_used_up() {
    in_private_network(|| {
        let port = serve("127.0.0.1", status("200 OK"));
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001").unwrap();
        let mut clients = Vec::new();
        let full = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(client) => clients.push(client),
                Err(reason) => break reason,
            }
        };
        assert_eq!(full.raw_os_error(), Some(nix::libc::EADDRNOTAVAIL));
        // The highest one is taken.
        let _taken = TcpListener::bind(("0.0.0.0", 1023)).unwrap();
        judge(&Case {
            name: "no local port is left",
            url: format!("http://127.0.0.1:{port}"),
            port,
            arguments: vec![],
            environment: vec![],
            expected: HEALTHY.into(),
        })
        .unwrap();
    });
}

/// Runs the monitor where a system call fails so.
fn check_where(call: nix::libc::c_long, errno: i32, url: &str) -> (Run, String) {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let filter = SeccompFilter::new(
        [(call, vec![])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.try_into().unwrap()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    // A filter holds for the thread that sets it and for what this thread starts.
    thread::scope(|scope| {
        let checking = scope.spawn(|| {
            seccompiler::apply_filter(&filter).unwrap();
            check(url, 1, &[], &[])
        });
        checking.join().unwrap()
    })
}

#[test]
fn hazard_35_a_failure_on_our_own_side_is_told_as_such() {
    let port = serve("127.0.0.1", status("200 OK"));
    let url = format!("http://127.0.0.1:{port}");
    let (connect, socket) = (nix::libc::SYS_connect, nix::libc::SYS_socket);
    for (call, errno, reason) in [
        (connect, nix::libc::EACCES, "Permission denied"),
        (
            connect,
            nix::libc::EADDRNOTAVAIL,
            "Cannot assign requested address",
        ),
        (connect, nix::libc::ENETUNREACH, "Network is unreachable"),
        (socket, nix::libc::EMFILE, "Too many open files"),
        (socket, nix::libc::ENOBUFS, "No buffer space available"),
        (
            socket,
            nix::libc::EAFNOSUPPORT,
            "Address family not supported by protocol",
        ),
    ] {
        let (run, log) = check_where(call, errno, &url);
        let expected = format!("Connection error: 127.0.0.1:{port}: {reason}");
        assert!(log.contains(&expected), "{log}");
        assert_eq!(run.code(), Some(1), "{log}");
    }
}

#[test]
fn a_full_accept_queue_is_told_as_connecting() {
    let (socket, _clients) = deaf(std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let (run, log) = check(&format!("http://{address}"), 1, &[], &[]);
    assert_eq!(
        verdict(&log, 0),
        "Server request timed out after 1 seconds (connecting)"
    );
    assert_eq!(run.code(), Some(1));
}

#[test]
fn names_and_families() {
    let v6 = serve("::1", status("200 OK"));
    let v4 = serve("127.0.0.1", status("200 OK"));
    let cases = [
        ("an IPv6 literal", format!("http://[::1]:{v6}"), v6, HEALTHY),
        (
            "localhost on IPv4 only",
            format!("http://localhost:{v4}"),
            v4,
            HEALTHY,
        ),
        ("upper case", format!("HTTP://LOCALHOST:{v4}/"), v4, HEALTHY),
    ];
    for (name, url, port, expected) in cases {
        judge(&Case {
            name,
            url,
            port,
            arguments: vec![],
            environment: vec![],
            expected: expected.into(),
        })
        .unwrap();
    }
    let (run, log) = check("http://nonexistent.invalid/", 1, &[], &[]);
    let seen = verdict(&log, 0);
    assert!(
        seen.starts_with("Connection error: cannot resolve nonexistent.invalid: "),
        "{seen}"
    );
    assert!(!seen.contains("os error"), "{seen}");
    assert_eq!(run.code(), Some(1));
}

/// A TLS peer with that certificate chain that answers 200.
fn serve_tls(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    versions: &[&'static SupportedProtocolVersion],
) -> u16 {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    serve(
        "127.0.0.1",
        Box::new(move |client, _| {
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(session, client);
            read_request(&mut stream);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }),
    )
}

/// A certificate for these names, valid in these years.
fn parameters(names: &[&str], from: i32, to: i32) -> CertificateParams {
    let mut parameters = CertificateParams::new(
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>(),
    )
    .unwrap();
    parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(to, 6, 15);
    parameters
}

/// As `openssl req -x509 -subj /CN=NAME` makes it: CA:TRUE, and the name is the common name.
fn openssl_like(common_name: &str, alternatives: &[&str], to: i32) -> CertificateParams {
    let mut parameters = parameters(alternatives, 2020, to);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, common_name);
    parameters
}

/// The name of the case, the peer's port, flags, a store in the environment, the verdict.
type Row<'a> = (
    &'a str,
    u16,
    Vec<&'a str>,
    Option<(&'a str, &'a str)>,
    String,
);

#[test]
fn each_certificate_is_judged_as_an_administrator_expects() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let empty = write("empty.pem", "");
    let no_directory = directory.path().join("none").to_str().unwrap().to_owned();
    let nothing = [
        ("SSL_CERT_FILE", empty.as_str()),
        ("SSL_CERT_DIR", no_directory.as_str()),
    ];

    let ca_key = KeyPair::generate().unwrap();
    let mut ca_parameters = openssl_like("Test CA", &[], 2090);
    ca_parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let ca = ca_parameters.self_signed(&ca_key).unwrap();
    let ca_file = write("ca.pem", &ca.pem());
    let issuer = Issuer::new(ca_parameters, &ca_key);
    let ca_directory = directory.path().join("certs");
    std::fs::create_dir(&ca_directory).unwrap();
    std::fs::write(ca_directory.join("0a1b2c3d.0"), ca.pem()).unwrap();
    let ca_directory = ca_directory.to_str().unwrap().to_owned();

    let key = KeyPair::generate().unwrap();
    let issued = |names: &[&str], from, to| {
        parameters(names, from, to)
            .signed_by(&key, &issuer)
            .unwrap()
    };
    let tls = |certificate: &Certificate| {
        serve_tls(vec![certificate.der().clone()], &key, rustls::ALL_VERSIONS)
    };

    let good = tls(&issued(&["127.0.0.1", "localhost"], 2020, 2090));
    let expired = tls(&issued(&["127.0.0.1"], 2020, 2024));
    let early = tls(&issued(&["127.0.0.1"], 2080, 2090));
    let other = tls(&issued(&["myvnc.example.com", "10.0.0.1"], 2020, 2090));
    let old = serve_tls(
        vec![issued(&["127.0.0.1"], 2020, 2090).der().clone()],
        &key,
        &[&rustls::version::TLS12],
    );

    let own = |name: &str, parameters: CertificateParams| {
        let certificate = parameters.self_signed(&key).unwrap();
        (tls(&certificate), write(name, &certificate.pem()))
    };
    let (own_port, own_file) = own("own.pem", openssl_like("myvnc", &["127.0.0.1"], 2090));
    let (expired_own_port, expired_own_file) =
        own("expired.pem", openssl_like("myvnc", &["127.0.0.1"], 2024));
    let (named_port, named_file) = own("named.pem", openssl_like("127.0.0.1", &[], 2090));
    let (misnamed_port, misnamed_file) = own("misnamed.pem", openssl_like("myvnc", &[], 2090));
    let (mismatched_port, mismatched_file) = own(
        "mismatched.pem",
        openssl_like("127.0.0.1", &["myvnc.example.com"], 2090),
    );
    let (leaf_port, leaf_file) = own("leaf.pem", parameters(&["127.0.0.1"], 2020, 2090));

    let unknown = "SSL certificate error: unknown issuer (give --ca-cert FILE, or --no-verify-ssl to trust anybody)";
    let too_old = "SSL certificate error: expired on 2024-06-15";
    let for_others = "SSL certificate error: name mismatch with 127.0.0.1: the certificate is for ";
    let nobody: &[&str] = &["--no-verify-ssl"];
    let cases: Vec<Row> = vec![
        (
            "a CA by --ca-cert",
            good,
            vec!["--ca-cert", &ca_file],
            None,
            HEALTHY.into(),
        ),
        (
            "a CA by SSL_CERT_FILE",
            good,
            vec![],
            Some(("SSL_CERT_FILE", &ca_file)),
            HEALTHY.into(),
        ),
        (
            "a CA by SSL_CERT_DIR",
            good,
            vec![],
            Some(("SSL_CERT_DIR", &ca_directory)),
            HEALTHY.into(),
        ),
        ("no store at all", good, vec![], None, unknown.into()),
        (
            "an unknown issuer",
            good,
            vec!["--ca-cert", &own_file],
            None,
            unknown.into(),
        ),
        (
            "TLS 1.2 only",
            old,
            vec!["--ca-cert", &ca_file],
            None,
            HEALTHY.into(),
        ),
        (
            "expired",
            expired,
            vec!["--ca-cert", &ca_file],
            None,
            too_old.into(),
        ),
        (
            "not valid yet",
            early,
            vec!["--ca-cert", &ca_file],
            None,
            "SSL certificate error: not valid before 2080-01-01".into(),
        ),
        (
            "for another name",
            other,
            vec!["--ca-cert", &ca_file],
            None,
            format!("{for_others}myvnc.example.com, 10.0.0.1"),
        ),
        (
            "its own, as openssl makes it",
            own_port,
            vec!["--ca-cert", &own_file],
            None,
            HEALTHY.into(),
        ),
        (
            "its own, in the system's store",
            own_port,
            vec![],
            Some(("SSL_CERT_FILE", &own_file)),
            HEALTHY.into(),
        ),
        (
            "its own, not trusted",
            own_port,
            vec![],
            None,
            unknown.into(),
        ),
        (
            "its own, expired",
            expired_own_port,
            vec!["--ca-cert", &expired_own_file],
            None,
            too_old.into(),
        ),
        (
            "its own, named by its common name",
            named_port,
            vec!["--ca-cert", &named_file],
            None,
            HEALTHY.into(),
        ),
        (
            "its own, with another common name",
            misnamed_port,
            vec!["--ca-cert", &misnamed_file],
            None,
            format!("{for_others}myvnc"),
        ),
        (
            "its own, with an alternative name that counts",
            mismatched_port,
            vec!["--ca-cert", &mismatched_file],
            None,
            format!("{for_others}myvnc.example.com"),
        ),
        (
            "its own, CA:FALSE",
            leaf_port,
            vec!["--ca-cert", &leaf_file],
            None,
            HEALTHY.into(),
        ),
        (
            "expired, nobody asks",
            expired,
            nobody.into(),
            None,
            HEALTHY.into(),
        ),
        (
            "for another name, nobody asks",
            other,
            nobody.into(),
            None,
            HEALTHY.into(),
        ),
        (
            "unknown, nobody asks",
            own_port,
            nobody.into(),
            None,
            HEALTHY.into(),
        ),
    ];
    judge_all(cases, |(name, port, arguments, store, expected)| {
        let environment = nothing.iter().copied().chain(store).collect();
        judge(&Case {
            name,
            url: format!("https://127.0.0.1:{port}"),
            port,
            arguments,
            environment,
            expected,
        })
    });
}

#[test]
fn each_fault_of_a_tls_peer_is_bounded_and_named() {
    let handshake = "Server request timed out after 1 seconds (in the TLS handshake)";
    let plain = "SSL error: the server does not speak TLS (is the URL's scheme right?)";
    let closed = "Connection error: connection closed without an answer (in the TLS handshake)";
    let peers: Vec<(&str, &str, Conduct)> = vec![
        ("silent", handshake, Box::new(|client, _| stay(client))),
        (
            "half a record",
            handshake,
            Box::new(|mut client, _| {
                let _ = client.write_all(b"\x16\x03\x03\x00\x7a\x02\x00");
                stay(client);
            }),
        ),
        (
            "plain HTTP without a request",
            plain,
            Box::new(|mut client, _| {
                let _ = client.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
                stay(client);
            }),
        ),
        (
            "an alert",
            "SSL error: the server refused the handshake: no cipher or kind of key in common \
                (a P-521, Ed448 or RSA-PSS key needs --no-verify-ssl and TLS 1.3), \
                or it asks for a client certificate",
            Box::new(|mut client, _| {
                let _ = client.write_all(b"\x15\x03\x03\x00\x02\x02\x28");
                stay(client);
            }),
        ),
        (
            "closed at once",
            closed,
            Box::new(|mut client, _| {
                let mut hello = [0; 1024];
                let _ = client.read(&mut hello);
            }),
        ),
        (
            "reset at once",
            "Connection error: connection reset by the server (in the TLS handshake)",
            Box::new(|mut client, _| {
                let _ = client.read(&mut [0]);
                reset(client);
            }),
        ),
        (
            "a flood",
            plain,
            Box::new(|mut client, _| while client.write_all(&[0xff; 65536]).is_ok() {}),
        ),
    ];
    judge_all(peers, |(name, expected, conduct)| {
        let port = serve("127.0.0.1", conduct);
        let url = format!("https://127.0.0.1:{port}");
        judge(&Case {
            name,
            url,
            port,
            arguments: vec!["--no-verify-ssl"],
            environment: vec![],
            expected: expected.into(),
        })
    });
}

#[test]
fn tls_on_a_port_that_is_asked_for_http() {
    let key = KeyPair::generate().unwrap();
    let certificate = parameters(&["127.0.0.1"], 2020, 2090)
        .self_signed(&key)
        .unwrap();
    let port = serve_tls(vec![certificate.der().clone()], &key, rustls::ALL_VERSIONS);
    let expected = NOT_HTTP_VERSION.to_owned();
    let url = format!("http://127.0.0.1:{port}");
    judge(&Case {
        name: "TLS",
        url,
        port,
        arguments: vec![],
        environment: vec![],
        expected,
    })
    .unwrap();
}

/// `openssl s_server` with a new key of this kind; asks no client for a certificate.
struct OpensslServer {
    _process: Process,
    port: u16,
}

impl OpensslServer {
    fn start(directory: &std::path::Path, kind: &[&str]) -> Option<Self> {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-subj", "/CN=myvnc"])
            .args(["-keyout", "key.pem", "-out", "certificate.pem", "-newkey"])
            .args(kind)
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .ok()?;
        assert!(made.success());
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-www"])
            .args(["-key", "key.pem", "-cert", "certificate.pem"])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = said
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:")?.parse().ok())
            .unwrap();
        thread::spawn(move || said.for_each(drop));
        Some(Self {
            _process: process.into(),
            port,
        })
    }
}

#[test]
fn a_key_that_cannot_be_verified_is_no_fault_where_anybody_is_trusted() {
    for kind in [
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-521"][..],
        &["ed448"],
        &["rsa-pss"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let Some(server) = OpensslServer::start(directory.path(), kind) else {
            return rig::skip("openssl is not installed");
        };
        judge(&Case {
            name: kind[0],
            url: format!("https://127.0.0.1:{}", server.port),
            port: server.port,
            arguments: vec!["--no-verify-ssl"],
            environment: vec![],
            expected: HEALTHY.into(),
        })
        .unwrap();
    }
}
