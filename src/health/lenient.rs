//! The status of an answer that hyper refuses and that `curl` or Python's `requests` accepts.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Limit of what is kept of an answer, in bytes: as much as hyper takes for headers.
pub(super) const MOST_BYTES: usize = 408 * 1024;
/// Longest beginning of an answer without a status, in bytes.
const LONGEST_START: usize = 1024;

/// What the beginning of an answer says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Beginning {
    Status(u16),
    /// It can still become a status.
    Unfinished,
    NotHttp,
}

/// How much of the answer must have come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Needed {
    /// Its status.
    Status,
    /// Its headers, up to their end.
    Headers,
}

/// The status of an answer that begins with `seen` and goes on in `stream`, which is read no further
/// than needed.
pub(super) async fn status(
    mut seen: Vec<u8>,
    stream: &mut (impl AsyncRead + Unpin),
    needed: Needed,
) -> Option<u16> {
    while seen.len() < MOST_BYTES {
        match beginning(&seen, needed, false) {
            Beginning::Status(status) => return Some(status),
            Beginning::NotHttp => return None,
            Beginning::Unfinished => (),
        }
        match stream.read_buf(&mut seen).await {
            Ok(0) => return at_the_end(&seen),
            Ok(_) => (),
            Err(_) => return None,
        }
    }
    None
}

/// The status of an answer after which the connection was closed.
pub(super) fn at_the_end(seen: &[u8]) -> Option<u16> {
    match beginning(seen, Needed::Status, true) {
        Beginning::Status(status) => Some(status),
        Beginning::Unfinished | Beginning::NotHttp => None,
    }
}

/// The first status that is not an interim one (RFC 9110, section 15.2).
fn beginning(seen: &[u8], needed: Needed, is_all: bool) -> Beginning {
    let mut rest = seen;
    loop {
        rest = rest.trim_ascii_start();
        let status = match status_line(rest, is_all) {
            Beginning::Status(status) => status,
            other => return other,
        };
        let is_interim = (100..200).contains(&status) && status != 101;
        if !is_interim && needed == Needed::Status {
            return Beginning::Status(status);
        }
        match after_headers(rest) {
            None => return Beginning::Unfinished,
            Some(_) if !is_interim => return Beginning::Status(status),
            Some(after) => rest = after,
        }
    }
}

/// `HTTP/x[.y] ddd`, with any number of spaces between; what follows the status does not matter, as
/// long as it is no digit.
fn status_line(text: &[u8], is_all: bool) -> Beginning {
    const NAME: &[u8] = b"HTTP/";
    let unfinished = if is_all || text.len() > LONGEST_START {
        Beginning::NotHttp
    } else {
        Beginning::Unfinished
    };
    let common = NAME.len().min(text.len());
    let (name, rest) = text.split_at(common);
    if !name.eq_ignore_ascii_case(&NAME[..common]) {
        return Beginning::NotHttp;
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(end) = rest.iter().position(|byte| !is_of_a_version(*byte)) else {
        return unfinished;
    };
    let (version, rest) = rest.split_at(end);
    let blanks = rest.iter().take_while(|byte| is_blank(byte)).count();
    if !is_known(version) || blanks == 0 {
        return Beginning::NotHttp;
    }
    let digits = rest[blanks..].iter().take(4);
    let digits: Vec<u8> = digits
        .take_while(|byte| byte.is_ascii_digit())
        .map(|digit| digit - b'0')
        .collect();
    match (digits.as_slice(), rest.len() - blanks) {
        ([first @ 1..=9, second, third], seen) if seen > 3 || is_all => {
            let [first, second, third] = [*first, *second, *third].map(u16::from);
            Beginning::Status(first * 100 + second * 10 + third)
        }
        (digits, seen) if digits.len() == seen && seen < 4 => unfinished,
        _ => Beginning::NotHttp,
    }
}

fn is_of_a_version(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'.'
}

/// The versions that `curl` or `requests` takes.
fn is_known(version: &[u8]) -> bool {
    matches!(version, b"0.9" | b"2" | b"2.0") || (version.starts_with(b"1.") && version.len() > 2)
}

/// What follows the empty line at the end of headers.
fn after_headers(text: &[u8]) -> Option<&[u8]> {
    let ends: [&[u8]; 2] = [b"\n\n", b"\n\r\n"];
    let after = |end: &[u8]| {
        let at = text.windows(end.len()).position(|part| part == end)?;
        Some(at + end.len())
    };
    let first = ends.into_iter().filter_map(after).min()?;
    Some(&text[first..])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hazard_36_what_curl_or_requests_accepts_has_a_status() {
        for (text, expected) in [
            ("HTTP/1.1  200 OK\r\n", Some(200)),
            ("HTTP/1.1\t200 OK\r\n", Some(200)),
            ("http/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.1 200OK\r\n", Some(200)),
            ("HTTP/1.1 200\n", Some(200)),
            (" HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.2 302 Found\r\n", Some(302)),
            ("HTTP/0.9 200 OK\r\n", Some(200)),
            ("HTTP/2 200 OK\r\n", Some(200)),
            ("HTTP/1.1 200 \u{1}\0\r\n", Some(200)),
            (
                "HTTP/1.1  103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 ",
                Some(200),
            ),
            ("HTTP/1.1  103 Early\nA: b\n\nHTTP/1.1  503 ", Some(503)),
            ("HTTP/1.1  101 Switching\r\n", Some(101)),
            ("HTTP/1.1 20 OK\r\n", None),
            ("HTTP/1.1 2000 OK\r\n", None),
            ("HTTP/1.1 020 OK\r\n", None),
            ("HTTP/1.1 abc OK\r\n", None),
            ("HTTP/1 200 OK\r\n", None),
            ("HTTP/1. 200 OK\r\n", None),
            ("HTTP/3.0 200 OK\r\n", None),
            ("HTTP/ 200 OK\r\n", None),
            ("HTTP/1.1200 OK\r\n", None),
            ("HTTP/1.1\r\n200 OK\r\n", None),
            ("HTTP 200 OK\r\n", None),
            ("ICY 200 OK\r\n", None),
            ("SSH-2.0-OpenSSH_9.2p1\r\n", None),
            ("<html>200</html>\n", None),
        ] {
            let expected = expected.map_or(Beginning::NotHttp, Beginning::Status);
            let seen = beginning(text.as_bytes(), Needed::Status, false);
            assert_eq!(seen, expected, "{text:?}");
        }
    }

    #[test]
    fn a_beginning_is_no_status_yet() {
        for text in [
            "",
            "\r\n",
            "HT",
            "HTTP/",
            "HTTP/1.1",
            "HTTP/1.1 ",
            "HTTP/1.1 20",
            "HTTP/1.1 200",
            "HTTP/1.1 100 Continue\r\nA: b\r\n",
        ] {
            let seen = beginning(text.as_bytes(), Needed::Status, false);
            assert_eq!(seen, Beginning::Unfinished, "{text:?}");
        }
        assert_eq!(at_the_end(b"HTTP/1.1 200"), Some(200));
        assert_eq!(at_the_end(b"HTTP/1.1 20"), None);
        assert_eq!(at_the_end(b"HTTP/1.1 100 Continue\r\n\r\n"), None);
        let endless = [b"HTTP/".to_vec(), vec![b'1'; LONGEST_START]].concat();
        let seen = beginning(&endless, Needed::Status, false);
        assert_eq!(seen, Beginning::NotHttp);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_rest_is_read_only_as_far_as_needed() {
        let read = async |seen: &[u8], mut rest: &[u8], needed| {
            let status = status(seen.to_vec(), &mut rest, needed).await;
            (status, rest.len())
        };
        let seen = b"HTTP/1.1  200 OK\r\n";
        assert_eq!(read(seen, b"x", Needed::Status).await, (Some(200), 1));
        assert_eq!(
            read(b"HTTP/1.1  20", b"0 ", Needed::Status).await.0,
            Some(200)
        );
        let whole = read(seen, b"A: b\r\n\r\n", Needed::Headers).await;
        assert_eq!(whole.0, Some(200));
        let flood = vec![b'x'; 2 * MOST_BYTES];
        assert_eq!(read(seen, &flood, Needed::Headers).await.0, None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_reading(start in "HTTP/1.1 |", rest: Vec<u8>, is_all: bool) {
            let text = [start.as_bytes(), &rest].concat();
            for needed in [Needed::Status, Needed::Headers] {
                beginning(&text, needed, is_all);
            }
        }

        #[test]
        fn no_answer_is_read_in_two_ways(text in "(HTTP/|http/|[HTP/ \r\n])?[0-9. \t\r\nA]{0,40}", cut in 0_usize..60) {
            let text = text.as_bytes();
            let whole = beginning(text, Needed::Status, false);
            let part = beginning(&text[..cut.min(text.len())], Needed::Status, false);
            prop_assert!(part == Beginning::Unfinished || part == whole, "{part:?} {whole:?}");
        }
    }
}
