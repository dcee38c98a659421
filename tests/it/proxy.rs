//! `examples/proxy`: nginx and haproxy, with the files that an administrator copies, keep away from the server the
//! clients that block it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::rig::{
    MONITOR, PATIENCE, Process, Site, get, in_private_namespace, reserve_port, run, skip,
    wait_until,
};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/proxy");
/// Where the example files expect MyVNC.
const SERVER: &str = "127.0.0.1:9143";
/// Bytes of MyVNC's longest answer, js/app.js.
const LONGEST_ANSWER: usize = 142_000;
/// Bytes that the kernel holds for a client that does not read: on loopback it would hold a whole answer.
const SEND_BUFFER: usize = 16 << 10;
/// How long a blocked server is waited for.
const BLOCKED: Duration = Duration::from_secs(1);
/// The example files' time limit for a client.
const LIMIT: &str = "10s";

/// What a client does to block the server, and then waits.
#[derive(Clone, Copy, Debug)]
enum Attack {
    /// Connects and sends nothing.
    Idle,
    HalfHello,
    /// Sends nothing after the TLS handshake.
    IdleAfterHandshake,
    HalfRequest,
    /// Announces a body and does not send it. Of half a body, MyVNC takes the first part for the whole.
    NoBody,
    /// Sends a request and does not read the answer.
    SlowReader,
}

use Attack::{HalfHello, HalfRequest, Idle, IdleAfterHandshake, NoBody, SlowReader};

const ATTACKS: [Attack; 6] = [
    Idle,
    HalfHello,
    IdleAfterHandshake,
    HalfRequest,
    NoBody,
    SlowReader,
];

/// A client that sends this and then neither sends nor reads.
struct Attacker(TcpStream);

impl Attacker {
    /// Through TLS, where a configuration is given and the attack comes after the handshake.
    fn new(attack: Attack, address: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1 << 12).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut socket = TcpStream::from(socket);
        let request: &[u8] = match attack {
            Idle => return Self(socket),
            HalfHello => {
                // A record of 512 bytes, type handshake, message ClientHello, of which these are the first.
                let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 7, 7, 7, 7];
                socket.write_all(&hello).unwrap();
                return Self(socket);
            }
            IdleAfterHandshake => b"",
            HalfRequest => b"GET / HTTP/1.1\r\nHost: localhost\r\n",
            NoBody => {
                b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                  Content-Length: 400\r\n\r\n"
            }
            SlowReader => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        };
        let Some(tls) = tls else {
            socket.write_all(request).unwrap();
            return Self(socket);
        };
        let mut stream = StreamOwned::new(session(tls), socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream.write_all(request).unwrap();
        stream.flush().unwrap();
        Self(stream.sock)
    }

    /// Whether the other side has not closed the connection.
    fn is_connected(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        match self.0.peek(&mut [0]) {
            Ok(read) => read > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }

    /// Reads until the other side closes the connection.
    fn drain(&self) {
        self.0.set_nonblocking(false).unwrap();
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let ended = (&self.0).read_to_end(&mut Vec::new());
        if let Err(error) = ended {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
    }
}

fn session(tls: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(tls.clone(), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// The text with that part replaced, wherever it is.
fn substituted(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "no {old:?} in {text}");
    text.replace(old, new)
}

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(EXAMPLES).join(name)).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Program {
    Nginx,
    Haproxy,
}

impl Program {
    fn path(self) -> &'static str {
        match self {
            Self::Nginx => "/usr/sbin/nginx",
            Self::Haproxy => "/usr/sbin/haproxy",
        }
    }

    /// Whether it is there; says so if it is not.
    fn is_installed(self) -> bool {
        let path = Path::new(self.path());
        let is_there = path.exists();
        if !is_there {
            skip(&format!(
                "{} is not installed",
                path.file_name().unwrap().to_str().unwrap()
            ));
        }
        is_there
    }

    /// A site with answers as long as this proxy takes off the server.
    fn site(self) -> Site {
        let bytes = match self {
            // What its memory does not hold goes to a file.
            Self::Nginx => 4 * LONGEST_ANSWER,
            Self::Haproxy => LONGEST_ANSWER,
        };
        Site::new(&format!("body = {bytes}"))
    }

    /// The example file with a test's ports and paths.
    fn configuration(self, site: &Site, https: u16, http: u16) -> String {
        let server = format!("127.0.0.1:{}", site.port);
        let path = |name: &str| site.path(name).display().to_string();
        match self {
            Self::Nginx => {
                let text = substituted(&example("nginx.conf"), SERVER, &server);
                let text = substituted(&text, "/etc/ssl/certs/myvnc.pem", &path("proxy.pem"));
                let text = substituted(&text, "/etc/ssl/private/myvnc.key", &path("proxy.pem"));
                let text = substituted(&text, "listen [::]:443 ssl;", "");
                let text = substituted(&text, "listen [::]:80;", "");
                // The port is reserved, and shared with the socket that reserves it.
                let here = |port, more| {
                    format!("listen 127.0.0.1:{port}{more} reuseport sndbuf={SEND_BUFFER};")
                };
                let text = substituted(&text, "listen 443 ssl;", &here(https, " ssl"));
                let text = substituted(&text, "listen 80;", &here(http, ""));
                let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let places = kinds.map(|kind| format!("{kind}_temp_path {};\n", path(kind)));
                format!(
                    "daemon off;\nmaster_process off;\npid {};\nevents {{}}\nhttp {{\naccess_log off;\n{}{text}}}\n",
                    path("nginx.pid"),
                    places.concat()
                )
            }
            Self::Haproxy => {
                let text = substituted(&example("haproxy.cfg"), SERVER, &server);
                let text = substituted(&text, "/etc/haproxy/myvnc.pem", &path("proxy.pem"));
                let here = |port| format!("bind 127.0.0.1:{port}");
                let text = substituted(&text, "bind :::443 v4v6", &here(https));
                let text = substituted(&text, "bind :::80 v4v6", &here(http));
                format!(
                    "global\ntune.sndbuf.client {SEND_BUFFER}\ntune.rcvbuf.server {SEND_BUFFER}\n{text}"
                )
            }
        }
    }
}

/// A proxy in front of a site's server.
struct Proxy {
    process: Process,
    https: SocketAddr,
    http: SocketAddr,
    tls: Arc<ClientConfig>,
    _reserved: [Socket; 2],
}

impl Proxy {
    /// A proxy with that time limit for clients, once it answers. Its certificate is `proxy.crt`.
    fn start(program: Program, site: &Site, limit: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let parameters = rcgen::CertificateParams::new(names).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        fs::write(site.path("proxy.crt"), certificate.pem()).unwrap();
        let both = certificate.pem() + &key.serialize_pem();
        fs::write(site.path("proxy.pem"), both).unwrap();
        let ((https, https_port), (http, http_port)) = (reserve_port(), reserve_port());
        let text = program.configuration(site, https_port, http_port);
        let file = site.path("proxy.conf");
        fs::write(&file, substituted(&text, LIMIT, limit)).unwrap();
        let mut command = Command::new(program.path());
        match program {
            Program::Nginx => command.arg("-e").arg(site.path("proxy.log")).arg("-c"),
            Program::Haproxy => command.args(["-db", "-f"]),
        };
        let log = fs::File::create(site.path("proxy.said")).unwrap();
        let child = command
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut this = Self {
            process: Process::from(child),
            https: SocketAddr::from(([127, 0, 0, 1], https_port)),
            http: SocketAddr::from(([127, 0, 0, 1], http_port)),
            tls: Arc::new(tls),
            _reserved: [https, http],
        };
        wait_until("the proxy listens", || {
            let said = fs::read_to_string(site.path("proxy.said")).unwrap();
            let ended = this.process.child.try_wait().unwrap();
            assert!(ended.is_none(), "{program:?}: {ended:?}: {said}");
            TcpStream::connect(this.https).is_ok()
        });
        this
    }

    /// What a client that does as it should is answered through the proxy.
    fn answer(&self) -> std::io::Result<String> {
        let socket = TcpStream::connect(self.https)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(session(&self.tls), socket);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            // haproxy ends some connections without TLS's close_notify. The answer's length is looked at.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => (),
            read => drop(read?),
        }
        Ok(String::from_utf8(answer).unwrap())
    }

    /// Asserts that such a client gets the whole answer.
    fn assert_answers(&self, when: &str) {
        let answer = self.answer().unwrap_or_else(|error| error.to_string());
        let head = answer.lines().next().unwrap_or_default();
        assert!(head.ends_with(" 200 OK"), "{when}: {head}");
        assert!(answer.len() > LONGEST_ANSWER, "{when}: {}", answer.len());
    }
}

#[test]
fn directly_each_of_these_clients_blocks_the_server() {
    let site = Site::new(&format!("body = {LONGEST_ANSWER}"));
    let _server = site.start();
    let address = SocketAddr::from(([127, 0, 0, 1], site.port));
    for attack in ATTACKS {
        wait_until("the server answers", || site.answers());
        let attacker = Attacker::new(attack, address, None);
        assert_eq!(get(address, BLOCKED), None, "{attack:?}");
        assert!(attacker.is_connected(), "{attack:?}");
    }
    wait_until("the server answers again", || site.answers());
}

fn keeps_away(program: Program) {
    if !program.is_installed() {
        return;
    }
    let site = program.site();
    let server = site.start();
    // The clients shall be connected as long as the test looks, however slow this machine is.
    let proxy = Proxy::start(program, &site, "300s");
    proxy.assert_answers("no attack");
    for attack in ATTACKS {
        let attackers: Vec<Attacker> = (0..3)
            .map(|_| Attacker::new(attack, proxy.https, Some(&proxy.tls)))
            .collect();
        for _ in 0..2 {
            proxy.assert_answers(&format!("{attack:?}"));
        }
        let connected = attackers.iter().filter(|one| one.is_connected()).count();
        assert_eq!(connected, 3, "{attack:?}");
    }
    // At the port for HTTP too.
    let attackers =
        [Idle, HalfRequest, NoBody].map(|attack| Attacker::new(attack, proxy.http, None));
    let moved = get(proxy.http, PATIENCE).unwrap();
    assert!(moved.starts_with("HTTP/1.1 301 "), "{moved}");
    assert!(site.answers());
    drop(attackers);
    assert!(server.is_alive());
}

#[test]
fn nginx_keeps_away_the_clients_that_block_the_server() {
    keeps_away(Program::Nginx);
}

#[test]
fn haproxy_keeps_away_the_clients_that_block_the_server() {
    keeps_away(Program::Haproxy);
}

fn disconnects(program: Program) {
    if !program.is_installed() {
        return;
    }
    let site = program.site();
    let _server = site.start();
    let proxy = Proxy::start(program, &site, "1s");
    for attack in [Idle, HalfHello, IdleAfterHandshake, HalfRequest, NoBody] {
        Attacker::new(attack, proxy.https, Some(&proxy.tls)).drain();
    }
    proxy.assert_answers("no attack");
}

#[test]
fn nginx_disconnects_such_clients_after_a_time() {
    disconnects(Program::Nginx);
}

#[test]
fn haproxy_disconnects_such_clients_after_a_time() {
    disconnects(Program::Haproxy);
}

/// The monitor with the example's settings, on that site behind that proxy.
fn monitor(site: &Site, proxy: &Proxy) -> Command {
    let text = example("monitor_myvnc.toml");
    let url = format!("https://localhost:{}", proxy.https.port());
    let text = substituted(&text, "https://myvnc.example.com", &url);
    let text = substituted(&text, SERVER, &format!("127.0.0.1:{}", site.port));
    // In the private namespace, every process is root's.
    let text = substituted(&text, "user = \"myvnc\"", "user = \"root\"");
    let command = "restart-cmd = \"systemctl restart myvnc\"";
    let start = format!("restart-cmd = '{}'", site.manage("start"));
    let path = |name| site.path(name).display().to_string();
    let (log, state, authority) = (path("monitor.log"), path("state"), path("proxy.crt"));
    let more =
        format!("logfile = '{log}'\nstate-dir = '{state}'\nca-cert = '{authority}'\ntimeout = 2\n");
    let file = site.path("monitor.toml");
    fs::write(&file, substituted(&text, command, &start) + &more).unwrap();
    let mut monitor = Command::new(MONITOR);
    monitor.arg("--config").arg(file).stdin(Stdio::null());
    monitor
}

fn is_watched_behind(program: Program) {
    if !program.is_installed() {
        return;
    }
    in_private_namespace(|| {
        let site = program.site();
        let server = site.start();
        let mut proxy = Proxy::start(program, &site, LIMIT);
        let mut monitor = monitor(&site, &proxy);
        let checked = run(&mut monitor);
        assert_eq!(checked.code(), Some(0), "{}", site.log());
        assert!(site.log().contains("Server is healthy"), "{}", site.log());

        kill(Pid::from_raw(server.pid), Signal::SIGSTOP).unwrap();
        let restarted = run(&mut monitor);
        assert_eq!(restarted.code(), Some(0), "{}", site.log());
        assert!(!server.is_alive());
        proxy.assert_answers(&site.log());
        assert_eq!(site.servers().len(), 1, "{}", site.log());

        for pid in site.servers() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        wait_until("it is dead", || site.servers().is_empty());
        let started = run(&mut monitor);
        assert_eq!(started.code(), Some(0), "{}", site.log());
        proxy.assert_answers(&site.log());

        let before = site.servers();
        proxy.process.child.kill().unwrap();
        proxy.process.child.wait().unwrap();
        let spared = run(&mut monitor);
        assert_eq!(spared.code(), Some(1), "{}", site.log());
        let log = site.log();
        assert!(log.contains("The server itself answers"), "{log}");
        assert_eq!(site.servers(), before, "{log}");
    });
}

#[test]
fn the_monitor_watches_a_server_behind_nginx() {
    is_watched_behind(Program::Nginx);
}

#[test]
fn the_monitor_watches_a_server_behind_haproxy() {
    is_watched_behind(Program::Haproxy);
}
