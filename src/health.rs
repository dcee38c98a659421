//! One HTTP check of the server, under one deadline, and what was seen.

mod connect;
mod cookies;
mod exchange;
mod lenient;
mod redirect;
mod resolve;
mod scheme;
#[cfg(test)]
mod tests;
mod trouble;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use self::cookies::Cookies;
use self::exchange::{Answer, Stream};
use self::redirect::MOST_REDIRECTS;
pub(crate) use self::trouble::{NOT_TLS, Stage, Trouble};
use crate::proc::net;
use crate::trust::{self, Trust};

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
    Unhealthy(Trouble),
}

/// What a running check tells while it goes on.
#[derive(Debug)]
struct Progress {
    began: Instant,
    limit: Duration,
    stage: Cell<Stage>,
    /// The peer of the first request.
    from: Cell<Option<SocketAddr>>,
}

impl Progress {
    fn begin(limit: Duration) -> Self {
        Self {
            began: Instant::now(),
            limit,
            stage: Cell::new(Stage::Connecting),
            from: Cell::new(None),
        }
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.began.elapsed())
    }

    /// Waits for the answer until the deadline.
    async fn judge(&self, answer: impl Future<Output = Result<u16, Trouble>>) -> Verdict {
        let answer = match tokio::time::timeout(self.limit, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Trouble::TimedOut {
                limit: self.limit,
                stage: self.stage.get(),
            }),
        };
        let from = self.from.get();
        match answer {
            Ok(status @ 200..=399) => Verdict::Healthy {
                status,
                took: self.began.elapsed(),
                from,
            },
            Ok(status) => Verdict::Unhealthy(Trouble::Status { status, from }),
            Err(trouble) => Verdict::Unhealthy(trouble),
        }
    }
}

/// Checks one URL, as often as asked.
#[derive(Debug)]
pub(crate) struct Checker {
    url: Url,
    trust: Trust,
    /// Set up when it is first needed.
    tls: OnceCell<Arc<ClientConfig>>,
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
            tls: OnceCell::new(),
            addresses: RefCell::new(resolve::literal(url).into_iter().collect()),
            bound: Cell::new(None),
        }
    }

    /// From now on asks only those of the URL's addresses that a socket bound to this one takes
    /// connections to; all of them, where it takes none to any or `bound` is `None`.
    pub(crate) fn only(&self, bound: Option<IpAddr>) {
        self.bound.set(bound);
    }

    /// The addresses that the URL's host was last seen to have; empty before it was resolved.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.borrow().clone()
    }

    /// Asks the URL, and the URLs on its host that it redirects to.
    pub(crate) async fn check(&self, limit: Duration) -> Verdict {
        let progress = Progress::begin(limit);
        progress.judge(self.follow(&progress)).await
    }

    /// Asks for the URL at this address, the server's own: over plain HTTP, and if it seems to speak
    /// TLS, over that, whatever its certificate. A redirect is an answer.
    pub(crate) async fn ask(&self, address: SocketAddr, limit: Duration) -> Verdict {
        let progress = Progress::begin(limit);
        progress.judge(self.ask_either(address, &progress)).await
    }

    /// The URL with the other scheme, without its password, if the server speaks that one: the URL that
    /// a check with this trouble should have asked.
    pub(crate) async fn right_scheme(&self, trouble: &Trouble, limit: Duration) -> Option<Url> {
        let is_tls = self.url.scheme() == "https";
        let is_suspect = if is_tls {
            scheme::seems_plain(trouble)
        } else {
            scheme::seems_tls(trouble)
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
                matches!(shaken, Ok(_) | Err(Trouble::Tls(_)))
            }
            .then_some(())
        };
        tokio::time::timeout(limit, speaks_other).await.ok()??;
        scheme::other(&self.url)
    }

    async fn follow(&self, progress: &Progress) -> Result<u16, Trouble> {
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
        Err(Trouble::Redirects)
    }

    async fn get(&self, url: &Url, cookies: &str, progress: &Progress) -> Result<Answer, Trouble> {
        let to = self.name(url);
        let stream = self.connect(url, progress).await?;
        if url.scheme() == "https" {
            let stream = handshake(self.tls(&to)?, url, stream, progress, &to).await?;
            exchange(url, cookies, Box::new(stream), progress, &to).await
        } else {
            exchange(url, cookies, Box::new(stream), progress, &to).await
        }
    }

    async fn ask_either(&self, address: SocketAddr, progress: &Progress) -> Result<u16, Trouble> {
        let (url, to) = (&self.url, address.to_string());
        let stream = connect(&[address], progress, &to).await?;
        let plain = exchange(url, "", Box::new(stream), progress, &to).await;
        match &plain {
            Ok(answer) if answer.status != scheme::BAD_REQUEST => return Ok(answer.status),
            Err(trouble) if !scheme::seems_tls(trouble) => {
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
            Ok(Err(_)) | Err(_) => plain,
        };
        answer.map(|answer| answer.status)
    }

    async fn connect(&self, url: &Url, progress: &Progress) -> Result<TcpStream, Trouble> {
        let addresses = self.addresses_of(url, progress).await?;
        connect(&addresses, progress, &self.name(url)).await
    }

    /// Where a URL on our host leads to: to the known server's addresses only, if it is our URL.
    async fn addresses_of(
        &self,
        url: &Url,
        progress: &Progress,
    ) -> Result<Vec<SocketAddr>, Trouble> {
        let known = progress.from.get();
        // Once in a check.
        if known.is_none() && resolve::literal(url).is_none() {
            progress.stage.set(Stage::Resolving);
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

    fn tls(&self, to: &str) -> Result<Arc<ClientConfig>, Trouble> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let tls = client_config(&self.trust, to)?;
        Ok(self.tls.get_or_init(|| tls).clone())
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
) -> Result<TcpStream, Trouble> {
    progress.stage.set(Stage::Connecting);
    let (stream, address) = connect::connect(addresses, progress.left())
        .await
        .map_err(|error| Trouble::of_io(&error, Stage::Connecting, to))?;
    if progress.from.get().is_none() {
        let peer = if address.ip().is_unspecified() {
            stream.peer_addr().ok()
        } else {
            Some(address)
        };
        progress.from.set(peer);
    }
    Ok(stream)
}

/// Speaks TLS with the host of this URL.
async fn handshake(
    config: Arc<ClientConfig>,
    url: &Url,
    stream: TcpStream,
    progress: &Progress,
    to: &str,
) -> Result<impl Stream + use<>, Trouble> {
    progress.stage.set(Stage::Handshaking);
    let name = match resolve::literal(url) {
        Some(address) => ServerName::from(address),
        None => ServerName::try_from(url.host_str().unwrap_or_default().to_owned())
            .map_err(|_| Trouble::Tls("the URL's host cannot be a name in a certificate".into()))?,
    };
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(|error| Trouble::of(&error, Stage::Handshaking, to))
}

/// Asks for this URL over a connection.
async fn exchange(
    url: &Url,
    cookies: &str,
    stream: Box<dyn Stream>,
    progress: &Progress,
    to: &str,
) -> Result<Answer, Trouble> {
    progress.stage.set(Stage::Waiting);
    let request = exchange::request(url, cookies)
        .map_err(|error| Trouble::Other(format!("the URL cannot be asked for: {error}")))?;
    exchange::get(stream, request)
        .await
        .map_err(|error| Trouble::of(&error, Stage::Waiting, to))
}

fn anybody(to: &str) -> Result<Arc<ClientConfig>, Trouble> {
    client_config(&Trust::Anybody, to)
}

fn client_config(trust: &Trust, to: &str) -> Result<Arc<ClientConfig>, Trouble> {
    trust::client_config(trust)
        .map(Arc::new)
        .map_err(|error| Trouble::NotAsked {
            to: to.to_owned(),
            reason: format!("cannot set up TLS: {error}"),
        })
}
