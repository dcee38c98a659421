//! The cookies of one check: a gate that sets one and redirects wants to see it.

use cookie_store::{CookieStore, RawCookie};
use hyper::http::{HeaderMap, header};
use url::Url;

/// What redirects have set; nothing is set up before the first one does.
#[derive(Debug, Default)]
pub(super) struct Cookies(Option<CookieStore>);

impl Cookies {
    /// Keeps what this answer of `url` sets.
    pub(super) fn keep(&mut self, headers: &HeaderMap, url: &Url) {
        let set = headers.get_all(header::SET_COOKIE).iter();
        for set in set.filter_map(|set| set.to_str().ok()) {
            if let Ok(cookie) = RawCookie::parse(set) {
                // One that the server may not set is not kept.
                let _ = self.0.get_or_insert_default().insert_raw(&cookie, url);
            }
        }
    }

    /// The `Cookie` header for this URL; empty where there is none for it.
    pub(super) fn header(&self, url: &Url) -> String {
        let Some(kept) = &self.0 else {
            return String::new();
        };
        let pairs = kept.get_request_values(url);
        let pairs: Vec<String> = pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        pairs.join("; ")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use hyper::http::HeaderValue;

    use super::*;

    #[test]
    fn hazard_36_cookies_go_where_they_belong() {
        let url = |url: &str| Url::parse(url).unwrap();
        let mut cookies = Cookies::default();
        assert_eq!(cookies.header(&url("http://vm:9143/")), "");
        let mut headers = HeaderMap::new();
        for set in [
            "seen=1; Path=/",
            "deep=2; Path=/deep; HttpOnly",
            "closed=3; Secure; Path=/",
            "gone=4; Max-Age=0",
            "foreign=5; Domain=example.com",
            "nonsense",
        ] {
            headers.append(header::SET_COOKIE, HeaderValue::from_static(set));
        }
        cookies.keep(&headers, &url("http://vm:9143/"));
        for (asked, expected) in [
            ("http://vm:9143/?step=2", "seen=1"),
            ("http://vm:80/", "seen=1"),
            ("http://vm:9143/deep/er", "deep=2; seen=1"),
            ("https://vm:9143/", "closed=3; seen=1"),
        ] {
            let header = cookies.header(&url(asked));
            let mut pairs: Vec<_> = header.split("; ").collect();
            pairs.sort_unstable();
            assert_eq!(pairs.join("; "), expected, "{asked}");
        }
    }
}
