//! Servers on loopback that the measured programs talk to, each a thread of the bench.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

/// As the real one answers.
const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11.2\r\n\
    Content-Type: text/html\r\nContent-Length: 7\r\n\r\nMyVNC\r\n";

/// Serves each client of a new port of 127.0.0.1 in a thread of its own.
pub(crate) fn serve(conduct: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let conduct = Arc::new(conduct);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let conduct = conduct.clone();
            std::thread::spawn(move || conduct(client));
        }
    });
    port
}

/// A server that answers 200 and closes.
pub(crate) fn healthy() -> u16 {
    serve(|mut client| answer(&mut client))
}

fn answer(client: &mut (impl Read + Write)) {
    if read_request(client) {
        let _ = client.write_all(ANSWER);
        let _ = client.flush();
    }
}

fn read_request(client: &mut impl Read) -> bool {
    let mut lines = BufReader::new(client);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
        if line == "\r\n" {
            return true;
        }
        line.clear();
    }
    false
}

/// A healthy server over TLS, and the CA that signed its certificate, in PEM.
pub(crate) fn healthy_tls() -> (u16, String) {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name
        .push(rcgen::DnType::CommonName, "CA of a measurement");
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let port = serve(move |client| {
        let connection = ServerConnection::new(config.clone()).unwrap();
        let mut stream = StreamOwned::new(connection, client);
        answer(&mut stream);
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    (port, ca_certificate.pem())
}

/// Peers that keep a client waiting, each by the URL to ask it at.
pub(crate) fn stallers() -> Vec<(&'static str, String)> {
    let silent = serve(|mut client| {
        let _ = client.read_to_end(&mut Vec::new());
    });
    let dripping = serve(|client| drip(client, "", "HTTP/1.0 200 OK\r\nServer: drip\r\n"));
    let headers = serve(|client| drip(client, "HTTP/1.0 200 OK\r\n", "X: y\r\n"));
    let interim = serve(|mut client| {
        if read_request(&mut client) {
            while client.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_ok() {}
        }
    });
    let redirecting = serve(|mut client| {
        if read_request(&mut client) {
            std::thread::sleep(Duration::from_millis(700));
            let _ = client.write_all(b"HTTP/1.0 302 Found\r\nLocation: /again\r\n\r\n");
        }
    });
    // A record header that announces 16 KiB of handshake.
    let dripping_tls = serve(|client| drip(client, "\x16\x03\x03\x3f\x7f\x02", "\0"));
    vec![
        ("silent after accept", http(silent)),
        ("a byte of the answer every 0.1 s", http(dripping)),
        ("headers without end, dripping", http(headers)),
        ("1xx answers without end", http(interim)),
        ("redirects without end, 0.7 s each", http(redirecting)),
        ("accept queue full", http(full_queue())),
        ("TLS: silent after accept", https(silent)),
        (
            "TLS: a byte of the handshake every 0.1 s",
            https(dripping_tls),
        ),
    ]
}

pub(crate) fn http(port: u16) -> String {
    format!("http://127.0.0.1:{port}/")
}

pub(crate) fn https(port: u16) -> String {
    format!("https://127.0.0.1:{port}/")
}

fn drip(mut client: TcpStream, beginning: &str, again: &str) {
    let _ = client.set_nodelay(true);
    let mut going = client.write_all(beginning.as_bytes());
    for byte in again.bytes().cycle() {
        if going.is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
        going = client.write_all(&[byte]);
    }
}

/// A port whose accept queue is full, so that further connections are never made.
fn full_queue() -> u16 {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(client) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queued.push(client);
    }
    // For as long as the bench runs.
    std::mem::forget((socket, queued));
    address.port()
}
