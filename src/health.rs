//! One HTTP check of the server, under one deadline, and what was seen.

mod check_error;
mod connect;
mod cookies;
mod exchange;
mod lenient;
pub(crate) mod ping;
mod redirect;
mod resolve;
mod scheme;
mod sender;
#[cfg(test)]
mod tests;

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

pub(crate) use self::check_error::{CheckError, CheckStage, NOT_TLS};
use self::cookies::Cookies;
use self::exchange::{Answer, Stream};
use self::redirect::MOST_REDIRECTS;
use self::sender::{Sender, Sent};
use crate::proc::net;
use crate::tls::{self, Presented, Trust};

/// What one check saw.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Status 200 to 399.
    Healthy {
        /// The HTTP status.
        status: u16,
        /// From the start of the check to the end of the headers.
        took: Duration,
        /// The peer of the first request, which is the one at the URL itself; a redirect can lead to
        /// another port. `None` where the kernel does not tell it.
        from: Option<SocketAddr>,
    },
    /// Anything else.
    Unhealthy(CheckError),
}

impl Verdict {
    /// The status of a healthy answer.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Healthy { status, .. } => Some(*status),
            Self::Unhealthy(_) => None,
        }
    }

    /// The peer of a healthy answer.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Healthy { from, .. } => *from,
            Self::Unhealthy(_) => None,
        }
    }

    /// Why the server does not count as healthy.
    pub(crate) fn error(&self) -> Option<&CheckError> {
        match self {
            Self::Healthy { .. } => None,
            Self::Unhealthy(error) => Some(error),
        }
    }
}

/// What a running check tells while it goes on.
#[derive(Debug)]
struct Progress {
    began: Instant,
    limit: Duration,
    stage: Rc<Cell<CheckStage>>,
    /// The peer of the first request.
    from: Cell<Option<SocketAddr>>,
}

impl Progress {
    fn begin(limit: Duration) -> Self {
        Self {
            began: Instant::now(),
            limit,
            stage: Rc::new(Cell::new(CheckStage::Connecting)),
            from: Cell::new(None),
        }
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.began.elapsed())
    }

    fn came_from(&self, peer: Option<SocketAddr>) {
        if self.from.get().is_none() {
            self.from.set(peer);
        }
    }

    fn connected(&self, stream: &TcpStream, address: SocketAddr) {
        self.came_from(if address.ip().is_unspecified() {
            stream.peer_addr().ok()
        } else {
            Some(address)
        });
    }

    /// Waits for the answer until the deadline.
    async fn judge(&self, answer: impl Future<Output = Result<u16, CheckError>>) -> Verdict {
        let answer = match tokio::time::timeout(self.limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(CheckError::TimedOut {
                limit: self.limit,
                stage: self.stage.get(),
            }),
        };
        match answer {
            Ok(status @ 200..=399) => Verdict::Healthy {
                status,
                took: self.began.elapsed(),
                from: self.from.get(),
            },
            Ok(status) => Verdict::Unhealthy(CheckError::Status { status }),
            Err(error) => Verdict::Unhealthy(error),
        }
    }
}

/// A connection on which the request is sent, or can be.
enum Opened {
    ByReqwest(Sent),
    ByUs(TcpStream),
}

/// Checks one URL, as often as asked.
#[derive(Debug)]
pub(crate) struct Checker {
    url: Url,
    trust: Trust,
    /// What the server has presented in the last check.
    presented: Presented,
    /// Set up when it is first needed.
    sender: OnceCell<Sender>,
    /// Whether the server has given an answer that reqwest refuses and that counts.
    is_odd: Cell<bool>,
    addresses: RefCell<Vec<IpAddr>>,
    /// Where the known server listens.
    bound: Cell<Option<IpAddr>>,
}

impl Checker {
    /// A checker of this URL.
    pub(crate) fn new(url: &Url, trust: &Trust) -> Self {
        Self {
            url: url.clone(),
            trust: trust.clone(),
            presented: Presented::default(),
            sender: OnceCell::new(),
            is_odd: Cell::new(false),
            addresses: RefCell::new(resolve::literal(url).into_iter().collect()),
            bound: Cell::new(None),
        }
    }

    /// From now on asks only those of the URL's addresses that a socket bound to `bound` accepts
    /// connections at. If it accepts none of them, or `bound` is `None`, asks all.
    pub(crate) fn restrict_to(&self, bound: Option<IpAddr>) {
        self.bound.set(bound);
    }

    /// The addresses that the URL's host was last seen to have; empty before it was resolved.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.borrow().clone()
    }

    /// Asks the URL, and the URLs on its host that it redirects to.
    pub(crate) async fn check(&self, limit: Duration) -> Verdict {
        self.presented.forget();
        let progress = Progress::begin(limit);
        let verdict = progress.judge(self.follow(&progress)).await;
        // The task of reqwest's connection has yet to see that nobody waits any more, and to close it.
        tokio::task::yield_now().await;
        verdict
    }

    /// When the certificate expires, in Unix time, that the server presented in the last check, accepted or not.
    pub(crate) fn certificate_expires(&self) -> Option<u64> {
        self.presented.expires()
    }

    /// Asks for the URL at this address, the server's own: over plain HTTP, and if it seems to speak
    /// TLS, over that, whatever its certificate. A redirect is an answer.
    pub(crate) async fn ask(&self, address: SocketAddr, limit: Duration) -> Verdict {
        let progress = Progress::begin(limit);
        progress.judge(self.ask_either(address, &progress)).await
    }

    /// The URL with the other scheme, without its password, if the server speaks that one: the URL that
    /// a check with this error should have asked.
    pub(crate) async fn right_scheme(&self, error: &CheckError, limit: Duration) -> Option<Url> {
        let is_tls = self.url.scheme() == "https";
        let is_suspect = if is_tls {
            scheme::seems_plain(error)
        } else {
            scheme::seems_tls(error)
        };
        if !is_suspect {
            return None;
        }
        let progress = Progress::begin(limit);
        let speaks_other = async {
            let stream = self.connect(&self.url, &progress).await.ok()?;
            if is_tls {
                let answer = exchange(&self.url, "", Box::new(stream), &progress, "").await;
                // A server that speaks TLS can say in plain HTTP that it does.
                answer.is_ok_and(|answer| answer.status != scheme::BAD_REQUEST)
            } else {
                let config = anybody("").ok()?;
                let shaken = handshake(config, &self.url, stream, &progress, "").await;
                // A refusal in TLS is TLS.
                matches!(
                    shaken,
                    Ok(_) | Err(CheckError::Tls(_) | CheckError::Incompatible(_))
                )
            }
            .then_some(())
        };
        tokio::time::timeout(limit, speaks_other).await.ok()??;
        scheme::other(&self.url)
    }

    async fn follow(&self, progress: &Progress) -> Result<u16, CheckError> {
        let mut url = self.url.clone();
        let mut cookies = Cookies::default();
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.get(&url, &cookies.header(&url), progress).await?;
            let Some(next) = redirect::next(&url, answer.status, &answer.headers) else {
                return Ok(answer.status);
            };
            cookies.keep(&answer.headers, &url);
            url = next;
        }
        Err(CheckError::Redirects)
    }

    async fn get(
        &self,
        url: &Url,
        cookies: &str,
        progress: &Progress,
    ) -> Result<Answer, CheckError> {
        let to = self.name(url);
        let addresses = self.addresses_of(url, progress).await?;
        if self.is_odd.get() {
            return self.get_leniently(url, cookies, &addresses, progress).await;
        }
        let (opened, address) = self.open(url, cookies, &addresses, progress).await?;
        let sent = match opened {
            Opened::ByReqwest(sent) => sent,
            Opened::ByUs(stream) => return self.get_over(stream, url, cookies, progress).await,
        };
        let error = match sent.await {
            Ok(mut response) => {
                progress.came_from(response.remote_addr());
                return Ok(Answer {
                    status: response.status().as_u16(),
                    headers: std::mem::take(response.headers_mut()),
                });
            }
            Err(error) => CheckError::of(&error, progress.stage.get(), &to),
        };
        // It can be an answer nevertheless, and its text is not to be had from reqwest.
        let is_refused = matches!(
            error,
            CheckError::NotHttp(_) | CheckError::Closed(CheckStage::Waiting) | CheckError::Other(_)
        );
        if !is_refused {
            return Err(error);
        }
        let answer = self
            .get_leniently(url, cookies, &[address], progress)
            .await?;
        self.is_odd.set(true);
        Ok(answer)
    }

    /// Sends the request to the first of these addresses that accepts a connection.
    async fn open(
        &self,
        url: &Url,
        cookies: &str,
        addresses: &[SocketAddr],
        progress: &Progress,
    ) -> Result<(Opened, SocketAddr), CheckError> {
        let to = &self.name(url);
        let sender = self.sender(to)?;
        let open = async |address| {
            let request = sender::request(url, cookies).map_err(|error| {
                io::Error::other(format!("the URL cannot be asked for: {error}"))
            })?;
            match sender.send(request, address, &progress.stage).await {
                // Only a connection of our own can choose its local port.
                Err(error) if check_error::errno(&error) == Some(libc::EADDRNOTAVAIL) => {
                    let stream = connect::open(address).await?;
                    progress.connected(&stream, address);
                    Ok(Opened::ByUs(stream))
                }
                sent => sent.map(Opened::ByReqwest),
            }
        };
        progress.stage.set(CheckStage::Connecting);
        connect::first(addresses, progress.left(), open)
            .await
            .map_err(|error| CheckError::of(&error, CheckStage::Connecting, to))
    }

    /// Asks over a connection of our own, which shows each byte of the answer.
    async fn get_leniently(
        &self,
        url: &Url,
        cookies: &str,
        addresses: &[SocketAddr],
        progress: &Progress,
    ) -> Result<Answer, CheckError> {
        let stream = connect(addresses, progress, &self.name(url)).await?;
        self.get_over(stream, url, cookies, progress).await
    }

    async fn get_over(
        &self,
        stream: TcpStream,
        url: &Url,
        cookies: &str,
        progress: &Progress,
    ) -> Result<Answer, CheckError> {
        let to = self.name(url);
        if url.scheme() == "https" {
            let tls = self.sender(&to)?.tls.clone();
            let stream = handshake(tls, url, stream, progress, &to).await?;
            exchange(url, cookies, Box::new(stream), progress, &to).await
        } else {
            exchange(url, cookies, Box::new(stream), progress, &to).await
        }
    }

    async fn ask_either(
        &self,
        address: SocketAddr,
        progress: &Progress,
    ) -> Result<u16, CheckError> {
        let (url, to) = (&self.url, address.to_string());
        let stream = connect(&[address], progress, &to).await?;
        let plain = exchange(url, "", Box::new(stream), progress, &to).await;
        match &plain {
            Ok(answer) if answer.status != scheme::BAD_REQUEST => return Ok(answer.status),
            Err(error) if !scheme::seems_tls(error) => {
                return plain.map(|answer| answer.status);
            }
            Ok(_) | Err(_) => (),
        }
        let over_tls = async {
            let stream = connect(&[address], progress, &to).await?;
            let stream = handshake(anybody(&to)?, url, stream, progress, &to).await?;
            exchange(url, "", Box::new(stream), progress, &to).await
        };
        // One that waits for the end of a line must not cost us the answer that it has given.
        let over_tls = tokio::time::timeout(progress.left() / 2, over_tls).await;
        let answer = match over_tls {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_not_asked() => Err(error),
            Ok(Err(_)) | Err(_) => plain,
        };
        answer.map(|answer| answer.status)
    }

    /// The certificate that the server serves, whether it is trusted or not: `sha256:` and hexadecimal digits.
    pub(crate) async fn fingerprint(&self, limit: Duration) -> Option<String> {
        let progress = Progress::begin(limit);
        let to = self.name(&self.url);
        let serving = async {
            let stream = self.connect(&self.url, &progress).await?;
            handshake(anybody(&to)?, &self.url, stream, &progress, &to).await
        };
        let stream = tokio::time::timeout(limit, serving).await.ok()?.ok()?;
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates()?.first()?;
        Some(tls::fingerprint(certificate))
    }

    async fn connect(&self, url: &Url, progress: &Progress) -> Result<TcpStream, CheckError> {
        let addresses = self.addresses_of(url, progress).await?;
        connect(&addresses, progress, &self.name(url)).await
    }

    /// Where a URL on our host leads to: to the known server's addresses only, if it is our URL.
    async fn addresses_of(
        &self,
        url: &Url,
        progress: &Progress,
    ) -> Result<Vec<SocketAddr>, CheckError> {
        let known = progress.from.get();
        // Once in a check.
        if known.is_none() && resolve::literal(url).is_none() {
            progress.stage.set(CheckStage::Resolving);
            let host = url.host_str().unwrap_or_default();
            self.addresses.replace(resolve::resolve(host).await?);
        }
        let port = url.port_or_known_default().unwrap_or_default();
        let all = self.addresses.borrow();
        let is_ours = url.port_or_known_default() == self.url.port_or_known_default();
        let chosen = match (is_ours, known) {
            (true, Some(known)) => vec![known.ip()],
            (true, None) => self.restricted(&all),
            (false, _) => all.clone(),
        };
        let chosen = chosen.into_iter();
        Ok(chosen
            .map(|address| SocketAddr::new(address, port))
            .collect())
    }

    fn restricted(&self, all: &[IpAddr]) -> Vec<IpAddr> {
        let takes = |address: &&IpAddr| {
            self.bound
                .get()
                .is_none_or(|bound| net::takes(bound, &[**address]))
        };
        let taken: Vec<IpAddr> = all.iter().filter(takes).copied().collect();
        if taken.is_empty() {
            all.to_vec()
        } else {
            taken
        }
    }

    fn sender(&self, to: &str) -> Result<&Sender, CheckError> {
        if let Some(sender) = self.sender.get() {
            return Ok(sender);
        }
        let tls = tls::watching_config(&self.trust, &self.presented)
            .map_err(|error| no_tls(&error, to))?;
        let sender = Sender::new(tls).map_err(|error| no_tls(&error, to))?;
        Ok(self.sender.get_or_init(|| sender))
    }

    /// A URL on our host, as an administrator reads it; a redirect can change the port.
    fn name(&self, url: &Url) -> String {
        let host = self.url.host_str().unwrap_or_default();
        let own = self.url.port_or_known_default().unwrap_or_default();
        match url.port_or_known_default() {
            Some(port) if port != own => format!("{host}:{port}, where {own} redirects to"),
            _ => format!("{host}:{own}"),
        }
    }
}

/// Connects to one of these addresses, called `to`.
async fn connect(
    addresses: &[SocketAddr],
    progress: &Progress,
    to: &str,
) -> Result<TcpStream, CheckError> {
    progress.stage.set(CheckStage::Connecting);
    let (stream, address) = connect::first(addresses, progress.left(), connect::open)
        .await
        .map_err(|error| CheckError::of(&error, CheckStage::Connecting, to))?;
    progress.connected(&stream, address);
    Ok(stream)
}

/// Speaks TLS with the host of this URL.
async fn handshake(
    config: Arc<ClientConfig>,
    url: &Url,
    stream: TcpStream,
    progress: &Progress,
    to: &str,
) -> Result<TlsStream<TcpStream>, CheckError> {
    progress.stage.set(CheckStage::Handshaking);
    let name =
        match resolve::literal(url) {
            Some(address) => ServerName::from(address),
            None => ServerName::try_from(url.host_str().unwrap_or_default().to_owned()).map_err(
                |_| CheckError::Tls("the URL's host cannot be a name in a certificate".into()),
            )?,
        };
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| CheckError::of(&error, CheckStage::Handshaking, to))
}

/// Asks for this URL over a connection.
async fn exchange(
    url: &Url,
    cookies: &str,
    stream: Box<dyn Stream>,
    progress: &Progress,
    to: &str,
) -> Result<Answer, CheckError> {
    progress.stage.set(CheckStage::Waiting);
    let request = exchange::request(url, cookies)
        .map_err(|error| CheckError::Other(format!("the URL cannot be asked for: {error}")))?;
    exchange::get(stream, request)
        .await
        .map_err(|error| CheckError::of(&error, CheckStage::Waiting, to))
}

fn anybody(to: &str) -> Result<Arc<ClientConfig>, CheckError> {
    tls::client_config(&Trust::Anybody)
        .map(Arc::new)
        .map_err(|error| no_tls(&error, to))
}

fn no_tls(error: &dyn std::error::Error, to: &str) -> CheckError {
    CheckError::NotAsked {
        to: to.to_owned(),
        reason: format!("cannot set up TLS: {error}"),
    }
}
