//! Where a redirect leads, as curl and browsers read it.

use hyper::http::{HeaderMap, StatusCode, header};
use url::Url;

/// As many redirects on one host are followed.
pub(super) const MOST_REDIRECTS: usize = 10;

/// The URL that the answer of `here` redirects to; `None`, where the answer itself counts: a
/// redirect to another host or scheme, an empty or unreadable Location, no redirect at all.
pub(super) fn next(here: &Url, status: u16, headers: &HeaderMap) -> Option<Url> {
    let followed = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !followed.iter().any(|followed| *followed == status) {
        return None;
    }
    let location = headers.get(header::LOCATION)?;
    let location = std::str::from_utf8(location.as_bytes()).ok()?.trim();
    if location.is_empty() {
        return None;
    }
    let mut next = here.join(location).ok()?;
    if next.host_str() != here.host_str() || !matches!(next.scheme(), "http" | "https") {
        return None;
    }
    // A password is for the server that it was given for.
    let is_same_server = next.scheme() == here.scheme()
        && next.port_or_known_default() == here.port_or_known_default();
    if is_same_server && next.username().is_empty() && next.password().is_none() {
        next.set_username(here.username()).ok()?;
        next.set_password(here.password()).ok()?;
    }
    Some(next)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use hyper::http::HeaderValue;

    use super::*;

    #[test]
    fn hazards_13_and_36_only_a_redirect_on_the_host_is_followed() {
        let here = Url::parse("http://ada:pw@vm:9143/a/b?c#d").unwrap();
        for (location, expected) in [
            (
                "/login?error=x",
                Some("http://ada:pw@vm:9143/login?error=x"),
            ),
            ("e", Some("http://ada:pw@vm:9143/a/e")),
            ("?f", Some("http://ada:pw@vm:9143/a/b?f")),
            (" /e ", Some("http://ada:pw@vm:9143/e")),
            ("http://vm:9143/e", Some("http://ada:pw@vm:9143/e")),
            ("http://bob@vm:9143/e", Some("http://bob@vm:9143/e")),
            ("//VM:9143/e", Some("http://ada:pw@vm:9143/e")),
            ("http://vm:80/e", Some("http://vm/e")),
            ("https://vm:9143/e", Some("https://vm:9143/e")),
            ("http://other:9143/e", None),
            ("ftp://vm/e", None),
            ("mailto:ada@vm", None),
            ("http://[/", None),
            ("", None),
            (" \t", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_str(location).unwrap());
            let seen = next(&here, 302, &headers);
            assert_eq!(seen.as_ref().map(Url::as_str), expected, "{location:?}");
            for status in [200, 300, 304, 404] {
                assert_eq!(next(&here, status, &headers), None);
            }
        }
        assert_eq!(next(&here, 302, &HeaderMap::new()), None);
        let mut headers = HeaderMap::new();
        let odd = HeaderValue::from_bytes(b"/\xff\xfe").unwrap();
        headers.insert(header::LOCATION, odd);
        assert_eq!(next(&here, 302, &headers), None);
    }
}
