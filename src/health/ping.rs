//! The request to a dead man's switch. Unlike a check, it uses the proxies that the environment names
//! (`https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`).

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use url::{Position, Url};

use super::check_error::{CheckError, CheckStage};
use super::exchange::USER_AGENT;
use super::resolve;
use crate::tls::{self, Trust};

/// Limit of redirects.
const MOST_REDIRECTS: usize = 5;
/// The least status that is a refusal.
const REFUSED: u16 = 400;

/// Requests the URL; for a failure, posts that text to the URL's path and `/fail`.
///
/// # Errors
/// Why it did not get through within the limit. The URL's path is not in it.
pub(crate) async fn ping(
    url: &Url,
    failure: Option<String>,
    limit: Duration,
) -> Result<(), String> {
    let asking = tokio::time::timeout(limit, ask(url, failure));
    let status = asking
        .await
        .map_err(|_| "it did not answer in time".to_owned())??;
    if status < REFUSED {
        Ok(())
    } else {
        Err(format!("the answer has status {status}"))
    }
}

async fn ask(url: &Url, failure: Option<String>) -> Result<u16, String> {
    let to = &url[Position::BeforeHost..Position::AfterPort];
    let why =
        |error: reqwest::Error| match CheckError::of(&error.without_url(), CheckStage::Waiting, to)
        {
            CheckError::Other(what) => what,
            // The advice in brackets is about options of the check.
            CheckError::Certificate(what) => {
                let what = what.split(" (").next().unwrap_or_default();
                CheckError::Certificate(what.to_owned()).to_string()
            }
            known => known.to_string(),
        };
    let tls = tls::client_config(&Trust::System).map_err(|error| error.to_string())?;
    let client = Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Names)
        .redirect(Policy::limited(MOST_REDIRECTS))
        // A redirect to another host does not tell it the path.
        .referer(false)
        .retry(reqwest::retry::never())
        .user_agent(USER_AGENT)
        .http1_only()
        .pool_max_idle_per_host(0)
        .build()
        .map_err(why)?;
    let request = match failure {
        None => client.get(url.clone()),
        Some(text) => client.post(fail_url(url)).body(text),
    };
    let answer = request.send().await.map_err(why)?;
    Ok(answer.status().as_u16())
}

/// Where a failure is posted to.
fn fail_url(url: &Url) -> Url {
    let mut url = url.clone();
    let path = format!("{}/fail", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// The system's name services. reqwest's own way panics where no thread can be created.
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            match resolve::resolve(name.as_str()).await {
                Ok(found) => {
                    let found: Vec<_> = found.into_iter().collect();
                    Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
                }
                Err(CheckError::Resolution { host, reason }) => {
                    Err(format!("cannot resolve {host}: {reason}").into())
                }
                Err(error) => Err(error.to_string().into()),
            }
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_goes_to_a_path_of_its_own() {
        for (url, expected) in [
            ("https://hc-ping.com/1-2", "https://hc-ping.com/1-2/fail"),
            ("http://hc/1/", "http://hc/1/fail"),
            ("http://hc", "http://hc/fail"),
            ("http://a:b@hc:80/1?x=/y", "http://a:b@hc/1/fail?x=/y"),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(fail_url(&url).as_str(), expected);
        }
    }
}
