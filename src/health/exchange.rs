//! One GET over a connection; the answer's body is not read.

use std::cell::RefCell;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::Request;
use hyper::client::conn::http1;
use hyper::http::{self, HeaderMap, HeaderValue, header};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::InspectReader;
use url::{Position, Url};

use super::check_error::{TOO_LARGE, is_unasked};
use super::lenient::{self, Needed};

/// What the program calls itself.
pub(super) const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// A connection with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// Empty where only the status could be read.
    pub(super) headers: HeaderMap,
}

/// A GET of this URL with these cookies; fails where the URL has no form in HTTP.
pub(super) fn request(url: &Url, cookies: &str) -> Result<Request<String>, http::Error> {
    let mut request = Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(
            header::HOST,
            &url[Position::BeforeHost..Position::AfterPort],
        )
        .header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT))
        .header(header::ACCEPT, HeaderValue::from_static("*/*"))
        .header(header::CONNECTION, HeaderValue::from_static("close"));
    if !url.username().is_empty() || url.password().is_some() {
        let mut credentials: Vec<u8> = percent_decode_str(url.username()).collect();
        credentials.push(b':');
        credentials.extend(percent_decode_str(url.password().unwrap_or_default()));
        let credentials = BASE64_STANDARD.encode(credentials);
        request = request.header(header::AUTHORIZATION, format!("Basic {credentials}"));
    }
    if !cookies.is_empty() {
        request = request.header(header::COOKIE, cookies);
    }
    request.body(String::new())
}

/// Sends the request and reads the answer up to the end of its headers. An answer that hyper refuses
/// counts as far as `curl` or `requests` would read it. The connection is closed.
pub(super) async fn get(
    stream: Box<dyn Stream>,
    request: Request<String>,
) -> Result<Answer, hyper::Error> {
    let seen = RefCell::new(Vec::new());
    let watched = InspectReader::new(stream, |bytes: &[u8]| {
        let mut seen = seen.borrow_mut();
        let room = lenient::MOST_BYTES.saturating_sub(seen.len());
        seen.extend_from_slice(&bytes[..bytes.len().min(room)]);
    });
    let (mut sender, mut connection) = http1::Builder::new()
        .ignore_invalid_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .title_case_headers(true)
        .handshake(TokioIo::new(watched))
        .await?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answered = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // It hands its error to the request.
        _ = &mut connection => answer.await,
    };
    let error = match answered {
        Ok(response) => {
            return Ok(Answer {
                status: response.status().as_u16(),
                headers: response.into_parts().0.headers,
            });
        }
        Err(error) => error,
    };
    let mut stream = connection.into_parts().io.into_inner().into_inner();
    let seen = seen.take();
    let status = match error.to_string().as_str() {
        _ if error.is_incomplete_message() => lenient::at_the_end(&seen),
        TOO_LARGE => lenient::status(seen, &mut stream, Needed::Headers).await,
        _ if is_unasked(&error) || error.is_parse() => {
            lenient::status(seen, &mut stream, Needed::Status).await
        }
        _ => None,
    };
    match status {
        Some(status) => Ok(Answer {
            status,
            headers: HeaderMap::new(),
        }),
        None => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::super::check_error::{CheckError, CheckStage};
    use super::*;

    #[test]
    fn a_request_says_what_its_url_does() {
        let url = Url::parse("http://ada%40x:p%20w@vm:9143/a?b=c#d").unwrap();
        let request = request(&url, "e=f").unwrap();
        assert_eq!(request.uri(), "/a?b=c");
        for (name, value) in [
            (header::HOST, "vm:9143"),
            (header::AUTHORIZATION, "Basic YWRhQHg6cCB3"),
            (header::COOKIE, "e=f"),
        ] {
            assert_eq!(request.headers()[name], value);
        }
        let url = Url::parse("https://[::1]").unwrap();
        let request = super::request(&url, "").unwrap();
        assert_eq!(request.uri(), "/");
        assert_eq!(request.headers()[header::HOST], "[::1]");
        assert!(!request.headers().contains_key(header::AUTHORIZATION));
        assert!(!request.headers().contains_key(header::COOKIE));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_greeting_that_is_there_before_the_request_has_its_name() {
        let (stream, mut peer) = tokio::io::duplex(1 << 10);
        peer.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await.unwrap();
        let url = Url::parse("http://vm:9143").unwrap();
        let answer = get(Box::new(stream), request(&url, "").unwrap()).await;
        let error = answer.err().unwrap();
        let error = CheckError::of(&error, CheckStage::Waiting, "vm:9143");
        let expected = "Connection error: the answer is not HTTP: it comes before the request";
        assert_eq!(error.to_string(), expected);
    }
}
