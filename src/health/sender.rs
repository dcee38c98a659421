//! The request of a check, sent by reqwest to one address.

use std::cell::Cell;
use std::future::{poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use hyper::http;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Request, Response};
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls12Resumption,
    Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup};
use tower::util::MapResponseLayer;
use url::Url;

use super::check_error::CheckStage;
use super::exchange;

/// A request whose connection stands.
pub(super) type Sent = Pin<Box<dyn Future<Output = reqwest::Result<Response>>>>;

tokio::task_local! {
    static CONTEXT: RequestContext;
}

/// What reqwest's parts must know of the request that they serve, and tell of it.
struct RequestContext {
    address: SocketAddr,
    stage: Rc<Cell<CheckStage>>,
}

fn reach(stage: CheckStage) {
    // Connections of our own have none, and set their stage themselves.
    let _ = CONTEXT.try_with(|context| context.stage.set(stage));
}

/// Sends requests, each to an address that is chosen for it.
#[derive(Debug)]
pub(super) struct Sender {
    client: Client,
    /// For connections of our own.
    pub(super) tls: Arc<ClientConfig>,
}

impl Sender {
    /// A sender that speaks TLS so.
    pub(super) fn new(mut tls: ClientConfig) -> reqwest::Result<Self> {
        tls.resumption =
            Resumption::store(Arc::new(NoSessions)).tls12_resumption(Tls12Resumption::Disabled);
        let client = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .dns_resolver(Chosen)
            .connector_layer(MapResponseLayer::new(|connection| {
                reach(CheckStage::Waiting);
                connection
            }))
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .http1_only()
            .http1_title_case_headers()
            // A server that answers with an odd header answers.
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            // One request, under a deadline: there is nothing to keep alive.
            .pool_max_idle_per_host(0)
            .tcp_keepalive(None)
            .tcp_keepalive_interval(None)
            .tcp_keepalive_retries(None)
            .tcp_user_timeout(None)
            .build()?;
        Ok(Self {
            client,
            tls: Arc::new(tls),
        })
    }

    /// Sends the request to this address, and returns when the TCP connection stands; what is left to wait
    /// for is the answer, after the TLS handshake if there is one. `stage` is told of each; it is
    /// [`CheckStage::Connecting`] at first, here and in any other request at the time.
    pub(super) async fn send(
        &self,
        request: Request,
        address: SocketAddr,
        stage: &Rc<Cell<CheckStage>>,
    ) -> io::Result<Sent> {
        let context = RequestContext {
            address,
            stage: stage.clone(),
        };
        let mut sent: Sent = Box::pin(CONTEXT.scope(context, self.client.execute(request)));
        let answered = poll_fn(|context| {
            let answered = sent.as_mut().poll(context);
            match (answered, stage.get()) {
                (Poll::Pending, CheckStage::Connecting) => Poll::Pending,
                (Poll::Pending, _) => Poll::Ready(Ok(None)),
                (Poll::Ready(Err(error)), CheckStage::Connecting) => Poll::Ready(Err(error)),
                (Poll::Ready(answered), _) => Poll::Ready(Ok(Some(answered))),
            }
        });
        let answered = answered.await.map_err(io::Error::other)?;
        Ok(answered.map_or(sent, |answered| Box::pin(ready(answered))))
    }
}

/// A GET of this URL with these cookies; fails where the URL has no form in HTTP.
pub(super) fn request(url: &Url, cookies: &str) -> Result<Request, http::Error> {
    let headers = exchange::request(url, cookies)?.into_parts().0.headers;
    let mut request = Request::new(Method::GET, url.clone());
    // They are in the headers.
    let _ = request.url_mut().set_username("");
    let _ = request.url_mut().set_password(None);
    *request.headers_mut() = headers;
    Ok(request)
}

/// The address of the request, for any name.
struct Chosen;

impl Resolve for Chosen {
    fn resolve(&self, _: Name) -> Resolving {
        let chosen = CONTEXT.try_with(|context| context.address);
        Box::pin(ready(match chosen {
            Ok(address) => Ok(Box::new(std::iter::once(address)) as Addrs),
            Err(error) => Err(error.into()),
        }))
    }
}

/// A store without sessions: rustls asks it for one as its first step of a handshake, which is when the
/// TCP connection stands.
#[derive(Debug)]
struct NoSessions;

impl ClientSessionStore for NoSessions {
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        reach(CheckStage::Handshaking);
        None
    }
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {}
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}
