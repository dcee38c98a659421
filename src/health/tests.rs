//! Checks of peers in this process.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc;
use std::thread;

use nix::libc;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use tokio::net::TcpSocket;

use super::*;
use crate::refused::where_refused;
use crate::skip::skip;

const LONG: Duration = Duration::from_secs(60);
const OK: &str = "HTTP/1.0 200 OK\r\n\r\n";

/// Reads a request and answers it so.
fn answer(mut stream: impl Read + Write, answer: &str) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        request.push(byte[0]);
    }
    let _ = stream.write_all(answer.as_bytes());
    let _ = stream.flush();
    String::from_utf8_lossy(&request).into_owned()
}

/// A server at this host that answers each client so; what it was asked.
fn serve(host: &str, text: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, requests) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let _ = asked.send(answer(client, text));
        }
    });
    (address, requests)
}

/// A server that speaks TLS with a certificate that nobody knows, and closes the connection of who
/// does not, with those words.
fn serve_tls(refusal: &'static str) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["vm".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut first = [0];
            if client.peek(&mut first).is_ok() && first != [0x16] {
                answer(client, refusal);
                continue;
            }
            let session = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(session, client);
            answer(&mut stream, OK);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

fn checker(url: &str) -> Checker {
    Checker::new(&Url::parse(url).unwrap(), &Trust::System)
}

fn trouble(verdict: Verdict) -> CheckError {
    match verdict {
        Verdict::Unhealthy(trouble) => trouble,
        Verdict::Healthy { .. } => panic!("{verdict:?}"),
    }
}

fn peer_of(verdict: &Verdict) -> Option<SocketAddr> {
    match verdict {
        Verdict::Healthy { from, .. } => *from,
        Verdict::Unhealthy(_) => None,
    }
}

/// Waits for it in a thread in which these system calls fail so.
fn where_fails<T: Send>(
    calls: &[libc::c_long],
    errno: i32,
    work: impl AsyncFnOnce() -> T + Send,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    where_refused(calls, errno, move || runtime.block_on(work()))
}

#[test]
fn hazard_35_each_failure_on_our_own_side_is_not_asked() {
    let (address, _requests) = serve("127.0.0.1", OK);
    let errnos = [
        libc::EACCES,
        libc::EPERM,
        libc::EADDRNOTAVAIL,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::ENETUNREACH,
        libc::ENETDOWN,
        libc::EMFILE,
        libc::ENFILE,
        libc::EAFNOSUPPORT,
    ];
    let send = [libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_writev];
    let calls = [
        &[libc::SYS_socket][..],
        &[libc::SYS_connect],
        &[libc::SYS_epoll_ctl],
    ];
    let calls = calls
        .into_iter()
        .flat_map(|call| errnos.map(|errno| (call, errno)))
        .chain([(&send[..], libc::ENOBUFS)])
        .chain([(&[libc::SYS_recvfrom][..], libc::ENOMEM)]);
    for (call, errno) in calls {
        let verdict = where_fails(call, errno, async || {
            checker(&format!("http://{address}")).check(LONG).await
        });
        let trouble = trouble(verdict);
        assert!(trouble.is_not_asked(), "{call:?} {errno}: {trouble:?}");
        let reason = crate::text::errno_text(&std::io::Error::from_raw_os_error(errno));
        let expected = format!("Connection error: {address}: {reason}");
        assert_eq!(trouble.to_string(), expected);
    }
    for errno in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::ETIMEDOUT] {
        let verdict = where_fails(&[libc::SYS_connect], errno, async || {
            checker(&format!("http://{address}")).check(LONG).await
        });
        assert!(!trouble(verdict).is_not_asked());
    }
}

#[test]
fn hazard_35_tls_without_random_numbers_is_not_asked() {
    let address = serve_tls("");
    let verdict = where_fails(&[libc::SYS_getrandom], libc::EPERM, async || {
        checker(&format!("https://{address}")).check(LONG).await
    });
    let trouble = trouble(verdict);
    assert!(trouble.is_not_asked(), "{trouble:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_name_without_an_address_is_not_asked() {
    let verdict = checker("http://nonexistent.invalid").check(LONG).await;
    let trouble = trouble(verdict);
    assert!(trouble.is_not_asked(), "{trouble:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_verdict_says_who_answered_at_the_url() {
    let (healthy, _requests) = serve("127.0.0.1", OK);
    let verdict = checker(&format!("http://{healthy}")).check(LONG).await;
    assert_eq!(peer_of(&verdict), Some(healthy));
    let any = format!("http://0.0.0.0:{}", healthy.port());
    let verdict = checker(&any).check(LONG).await;
    assert_eq!(peer_of(&verdict), Some(healthy));
    // The first answer is a redirect to the port of another.
    let (sick, _requests) = serve("127.0.0.1", "HTTP/1.0 503 Sick\r\n\r\n");
    for (leads_to, peer) in [(healthy, Some(true)), (sick, None)] {
        let redirect = format!("HTTP/1.0 302 Found\r\nLocation: http://{leads_to}/\r\n\r\n");
        let (first, _requests) = serve("127.0.0.1", redirect.leak());
        let verdict = checker(&format!("http://{first}")).check(LONG).await;
        assert_eq!(peer_of(&verdict).map(|peer| peer == first), peer);
    }
    let verdict = checker(&format!("http://{sick}")).check(LONG).await;
    let status = trouble(verdict).to_string();
    assert_eq!(status, "Server returned error status: 503");
}

#[tokio::test(flavor = "current_thread")]
async fn a_password_goes_to_its_own_server_only() {
    let (other, other_asked) = serve("127.0.0.1", OK);
    let redirect = format!("HTTP/1.0 302 Found\r\nLocation: http://{other}/b\r\n\r\n");
    let (first, asked) = serve("127.0.0.1", redirect.leak());
    let url = format!("http://ada:pw@{first}/a");
    checker(&url).check(LONG).await;
    let (first, second) = (asked.recv().unwrap(), other_asked.recv().unwrap());
    assert!(first.starts_with("GET /a HTTP/1.1\r\n"), "{first}");
    assert!(
        first.contains("\r\nAuthorization: Basic YWRhOnB3\r\n"),
        "{first}"
    );
    assert!(second.starts_with("GET /b HTTP/1.1\r\n"), "{second}");
    assert!(!second.contains("Authorization"), "{second}");
}

#[test]
fn hazard_27_only_the_known_servers_address_counts() {
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), "::1".parse().unwrap());
    let all: [IpAddr; 2] = [v6, v4];
    let checker = checker("http://localhost:9143");
    for (bound, expected) in [
        (None, &all[..]),
        (Some("127.0.0.1"), &[v4]),
        (Some("::1"), &[v6]),
        (Some("0.0.0.0"), &[v4]),
        (Some("::"), &all),
        (Some("::ffff:127.0.0.1"), &[v4]),
        (Some("10.0.0.1"), &all),
    ] {
        checker.restrict_to(bound.map(|bound| bound.parse().unwrap()));
        assert_eq!(checker.restricted(&all), expected, "{bound:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn hazard_27_the_other_address_of_localhost_is_not_asked() {
    let (address, _requests) = serve("127.0.0.1", OK);
    // A squatter on the address that is tried first.
    let Ok(squatter) = TcpListener::bind(("::1", address.port())) else {
        return skip("there is no ::1, or its port is taken");
    };
    let checker = checker(&format!("http://localhost:{}", address.port()));
    checker.restrict_to(Some(Ipv4Addr::UNSPECIFIED.into()));
    let verdict = checker.check(LONG).await;
    assert_eq!(peer_of(&verdict), Some(address));
    assert!(!checker.addresses().is_empty());
    drop(squatter);
}

/// A listener that says how each of its clients ended: whether the connection was closed.
fn watch(text: &'static str) -> (SocketAddr, mpsc::Receiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, ends) = mpsc::channel();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            client.set_read_timeout(Some(LONG)).unwrap();
            answer(&client, text);
            let _ = ended.send(matches!(client.read(&mut [0]), Ok(0)));
        }
    });
    (address, ends)
}

#[tokio::test(flavor = "current_thread")]
async fn a_check_is_one_request_and_leaves_no_connection_behind() {
    for (text, limit) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", LONG),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", LONG),
        ("HTTP/1.1 ", Duration::from_secs(1)),
    ] {
        let (address, ends) = watch(text);
        checker(&format!("http://{address}")).check(limit).await;
        // Meanwhile nothing else runs in this thread.
        assert_eq!(ends.recv_timeout(LONG), Ok(true), "{text:?}");
        assert!(ends.try_recv().is_err(), "{text:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn hazard_36_an_answer_that_reqwest_refuses_costs_a_second_request_once() {
    let (address, requests) = serve("127.0.0.1", "HTTP/1.1  200 OK\r\n\r\n");
    let checker = checker(&format!("http://{address}"));
    for expected in [2, 1, 1] {
        let verdict = checker.check(LONG).await;
        assert!(matches!(verdict, Verdict::Healthy { status: 200, .. }));
        assert_eq!(peer_of(&verdict), Some(address));
        for _ in 0..expected {
            requests.recv_timeout(LONG).unwrap();
        }
    }
    assert!(requests.try_recv().is_err(), "there were more");
}

/// Listeners on one port of two addresses.
fn pair() -> [TcpListener; 2] {
    loop {
        let first = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = first.local_addr().unwrap().port();
        if let Ok(second) = TcpListener::bind(("127.0.0.1", port)) {
            return [first, second];
        }
    }
}

#[tokio::test(flavor = "current_thread")]
async fn one_address_that_accepts_a_connection_is_asked_and_no_other() {
    let listeners = pair();
    let addresses = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap());
    for scheme in ["http", "https"] {
        let checker = checker(&format!("{scheme}://vm:{}", addresses[0].port()));
        let progress = Progress::begin(Duration::from_secs(1));
        let answer = async {
            let opened = checker.open(&checker.url, "", &addresses, &progress);
            let (Opened::ByReqwest(sent), address) = opened.await? else {
                panic!("not by reqwest");
            };
            assert_eq!(address, addresses[0]);
            Ok(sent.await.unwrap().status().as_u16())
        };
        let stage = match trouble(progress.judge(answer).await) {
            CheckError::TimedOut { stage, .. } => stage,
            other => panic!("{other:?}"),
        };
        let expected = match scheme {
            "http" => CheckStage::Waiting,
            _ => CheckStage::Handshaking,
        };
        assert_eq!(stage, expected);
    }
    listeners[1].set_nonblocking(true).unwrap();
    assert!(listeners[1].accept().is_err(), "it was asked too");
}

/// What nginx says to plain HTTP on a TLS port.
const REFUSAL: &str = "HTTP/1.1 400 Bad Request\r\n\r\nplain HTTP request was sent to HTTPS port";

#[tokio::test(flavor = "current_thread")]
async fn hazard_47_the_right_scheme_is_found() {
    for refusal in ["", "\x15\x03\x03\0\x02\x02\x46", REFUSAL] {
        let address = serve_tls(refusal);
        let checker = checker(&format!("http://ada:pw@{address}/a"));
        let trouble = trouble(checker.check(LONG).await);
        let right = checker.right_scheme(&trouble, LONG).await.unwrap();
        assert_eq!(right.as_str(), format!("https://ada@{address}/a"));
    }
    for text in [OK, "HTTP/1.1 503 Sick\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n"] {
        let (address, _requests) = serve_lines(text);
        let checker = checker(&format!("https://ada:pw@{address}/a"));
        let trouble = trouble(checker.check(Duration::from_secs(2)).await);
        let right = checker.right_scheme(&trouble, LONG).await.unwrap();
        assert_eq!(right.as_str(), format!("http://ada@{address}/a"));
    }
}

/// A server of plain HTTP that answers what is no request, too, once it has read something.
fn serve_lines(text: &'static str) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(text.as_bytes());
        }
    });
    (address, serving)
}

#[tokio::test(flavor = "current_thread")]
async fn hazard_36_a_refusal_of_our_tls_is_tls_and_no_sign_of_a_sick_server() {
    // Fatal alerts: handshake_failure and insufficient_security (RFC 8446, section 6).
    for alert in ["\x15\x03\x03\0\x02\x02\x28", "\x15\x03\x03\0\x02\x02\x47"] {
        let (address, _serving) = serve_lines(alert);
        let checker = checker(&format!("http://{address}/"));
        let wrong = trouble(checker.check(LONG).await);
        let right = checker.right_scheme(&wrong, LONG).await;
        assert_eq!(right.unwrap().as_str(), format!("https://{address}/"));
        let itself = trouble(checker.ask(address, LONG).await);
        assert!(itself.is_not_asked(), "{itself:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn hazard_47_a_right_scheme_is_not_doubted() {
    let limit = Duration::from_secs(1);
    let (garbage, _serving) = serve_lines("SSH-2.0-OpenSSH_9.2p1\r\n");
    let (sick, _serving) = serve_lines("HTTP/1.1 400 Bad Request\r\n\r\n");
    for url in [
        format!("http://{garbage}"),
        format!("https://{garbage}"),
        format!("http://{sick}"),
    ] {
        let checker = checker(&url);
        let trouble = trouble(checker.check(LONG).await);
        let right = checker.right_scheme(&trouble, limit).await;
        assert_eq!(right, None, "{url}: {trouble}");
    }
    let tls = serve_tls("");
    let checker = checker(&format!("https://{tls}"));
    let trouble = trouble(checker.check(LONG).await);
    assert!(matches!(trouble, CheckError::Certificate(_)), "{trouble:?}");
    assert_eq!(checker.right_scheme(&trouble, limit).await, None);
}

#[tokio::test(flavor = "current_thread")]
async fn hazard_46_the_servers_own_address_is_asked_as_the_url_would_be() {
    let (own, requests) = serve("127.0.0.1", OK);
    let checker = checker("https://myvnc.example.com/desk?a=b");
    let verdict = checker.ask(own, LONG).await;
    assert!(matches!(verdict, Verdict::Healthy { status: 200, .. }));
    assert_eq!(peer_of(&verdict), Some(own));
    let request = requests.recv().unwrap();
    assert!(
        request.starts_with("GET /desk?a=b HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("\r\nHost: myvnc.example.com\r\n"),
        "{request}"
    );

    let (found, _requests) = serve("127.0.0.1", "HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\n");
    let verdict = checker.ask(found, LONG).await;
    assert!(matches!(verdict, Verdict::Healthy { status: 302, .. }));

    for refusal in ["", "\x15\x03\x03\0\x02\x02\x46", REFUSAL] {
        let verdict = checker.ask(serve_tls(refusal), LONG).await;
        assert!(
            matches!(verdict, Verdict::Healthy { status: 200, .. }),
            "{verdict:?}"
        );
    }
}

#[tokio::test(flavor = "current_thread")]
async fn hazard_46_a_server_that_does_not_answer_itself_is_seen() {
    let checker = checker("http://myvnc.example.com/");
    let (sick, _requests) = serve("127.0.0.1", "HTTP/1.0 503 Sick\r\n\r\n");
    assert_eq!(
        trouble(checker.ask(sick, LONG).await).to_string(),
        "Server returned error status: 503"
    );
    let (bad, _requests) = serve("127.0.0.1", "HTTP/1.0 400 Bad Request\r\n\r\n");
    assert_eq!(
        trouble(checker.ask(bad, Duration::from_secs(2)).await).to_string(),
        "Server returned error status: 400"
    );
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let limit = Duration::from_secs(1);
    let verdict = checker.ask(silent.local_addr().unwrap(), limit).await;
    assert_eq!(
        trouble(verdict).to_string(),
        "Server request timed out after 1 seconds (waiting for headers)"
    );
    // Bound and not listening: nobody else is given the port.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let own = closed.local_addr().unwrap();
    assert_eq!(
        trouble(checker.ask(own, LONG).await).to_string(),
        format!("Connection error: {own}: Connection refused")
    );
}
