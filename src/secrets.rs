//! Text without passwords and tokens: what is logged is read by others.

/// Words in the name of an option, a variable or a field whose value is nobody's business.
const SECRET: [&str; 9] = [
    "passw",
    "passphrase",
    "token",
    "secret",
    "apikey",
    "api-key",
    "api_key",
    "authorization",
    "cookie",
];
/// What comes before credentials in an HTTP header.
const SCHEMES: [&str; 3] = ["basic", "bearer", "negotiate"];
/// Programs that take a password after a short option.
const SHORT: [(&str, &str); 3] = [("ldap", "-w"), ("sshpass", "-p"), ("smbclient", "-U")];
/// Options whose value is `USER:PASSWORD`.
const CREDENTIALS: [&str; 2] = ["-u", "--user"];

/// What the next word is.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Next {
    Harmless,
    Secret,
    Credentials,
}

/// A command line or a line of a log with each secret as `***`: `--password=x`, `--token x`,
/// `NAME_TOKEN=x`, `password: x`, `Bearer x`, `user:x@host`, `?token=x`.
pub(crate) fn without(text: &str) -> String {
    let program = text.split(' ').next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    let mut next = Next::Harmless;
    let shown: Vec<String> = text
        .split(' ')
        .map(|word| {
            let (shown, after) = without_in(word, next, program);
            next = after;
            shown
        })
        .collect();
    shown.join(" ")
}

fn without_in(word: &str, expected: Next, program: &str) -> (String, Next) {
    let bare = word.trim_matches(['"', '\'', ',', ';']);
    let lower = bare.to_ascii_lowercase();
    if SCHEMES.contains(&lower.as_str()) {
        return (word.to_owned(), Next::Secret);
    }
    match expected {
        Next::Secret if bare.is_empty() => return (word.to_owned(), Next::Secret),
        Next::Secret if !word.starts_with('-') => return ("***".to_owned(), Next::Harmless),
        Next::Credentials => {
            if let Some((user, _)) = word.split_once(':').filter(|_| !word.contains('@')) {
                return (format!("{user}:***"), Next::Harmless);
            }
        }
        Next::Secret | Next::Harmless => (),
    }
    let short = SHORT
        .iter()
        .find(|(name, flag)| program.starts_with(name) && word.starts_with(flag));
    if let Some((_, flag)) = short {
        return match word.strip_prefix(flag) {
            Some("") => (word.to_owned(), Next::Secret),
            _ => (format!("{flag}***"), Next::Harmless),
        };
    }
    if CREDENTIALS.contains(&word) {
        return (word.to_owned(), Next::Credentials);
    }
    // `--password x` and `password: x`, but not `passwords were checked`.
    let names = is_secret(&lower) && !bare.contains(['=', '/']);
    if names && (bare.starts_with('-') || bare.ends_with(':') || bare.ends_with("\":")) {
        return (word.to_owned(), Next::Secret);
    }
    (without_values(&without_userinfo(word)), Next::Harmless)
}

fn is_secret(lower: &str) -> bool {
    SECRET.iter().any(|secret| lower.contains(secret))
}

/// `NAME=VALUE` and `NAME:VALUE`, where the name says that the value is a secret; of an address,
/// each of its parameters.
fn without_values(word: &str) -> String {
    let is_address = word.contains("://") || word.contains('?');
    let ends: &[char] = if is_address {
        &['?', '&', ';', '#']
    } else {
        &[]
    };
    let parts = word.split_inclusive(ends);
    let shown = parts.map(|part| {
        let (part, end) = match part.char_indices().next_back() {
            Some((at, last)) if ends.contains(&last) => part.split_at(at),
            _ => (part, ""),
        };
        let by = |mark| {
            part.split_once(mark)
                .filter(|(_, value): &(&str, &str)| !value.is_empty())
        };
        let named = by('=').map(|(name, _)| (name, '='));
        let named = named.or_else(|| by(':').filter(|_| !is_address).map(|(name, _)| (name, ':')));
        match named {
            Some((name, mark)) if is_secret(&name.to_ascii_lowercase()) => {
                format!("{name}{mark}***{end}")
            }
            _ => format!("{part}{end}"),
        }
    });
    shown.collect()
}

/// `user:x@host`, after a scheme or without one.
fn without_userinfo(word: &str) -> String {
    let start = word.find("://").map_or(0, |at| at + 3);
    let (before, address) = word.split_at(start);
    // What comes after the host can hold an `@` of its own.
    let end = if start == 0 {
        address.len()
    } else {
        address.find(['/', '?', '#']).unwrap_or(address.len())
    };
    let (authority, after) = address.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else {
        return word.to_owned();
    };
    match user.split_once(':') {
        Some((name, _)) => format!("{before}{name}:***@{host}{after}"),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without;

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        for (command, shown) in [
            ("bjobs -u all", "bjobs -u all"),
            ("bjobs -u ada:x", "bjobs -u ada:***"),
            (
                "ldapsearch --password=x -b y",
                "ldapsearch --password=*** -b y",
            ),
            (
                "ldapsearch --password x -b y",
                "ldapsearch --password *** -b y",
            ),
            (
                "/usr/bin/ldapsearch -x -w pw -b y",
                "/usr/bin/ldapsearch -x -w *** -b y",
            ),
            ("sshpass -ppw ssh ada@vm", "sshpass -p*** ssh ada@vm"),
            ("ssh -p 22 ada@vm", "ssh -p 22 ada@vm"),
            ("a --token -b", "a --token -b"),
            ("env API_TOKEN=x a", "env API_TOKEN=*** a"),
            ("env A=x a", "env A=x a"),
            ("--password=a&b c", "--password=*** c"),
            ("curl https://ada:pw@vm/x", "curl https://ada:***@vm/x"),
            (
                "curl https://ada:p@w@vm/x@y:z",
                "curl https://ada:***@vm/x@y:z",
            ),
            ("curl https://vm/a@b:c", "curl https://vm/a@b:c"),
            ("curl -u ada:p@ss@vm", "curl -u ada:***@vm"),
            ("curl -u ada:pw https://vm", "curl -u ada:*** https://vm"),
            (
                "curl https://vm/x?a=1&token=y&b=2#c",
                "curl https://vm/x?a=1&token=***&b=2#c",
            ),
            (
                "GET /login?password=x HTTP/1.1",
                "GET /login?password=*** HTTP/1.1",
            ),
            (
                "curl -H 'Authorization: Bearer xyz'",
                "curl -H 'Authorization: Bearer ***",
            ),
            ("sent Bearer xyz to vm", "sent Bearer *** to vm"),
            (
                "{\"password\": \"x\", \"a\": 1}",
                "{\"password\": *** \"a\": 1}",
            ),
            (
                "password:x and password: x",
                "password:*** and password: ***",
            ),
            ("ssh ada@vm", "ssh ada@vm"),
            ("a --Secret=ß", "a --Secret=***"),
            ("the password was wrong", "the password was wrong"),
            (
                "2026-11-17 12:28:45,123 - myvnc - INFO - server.py:294 - text",
                "2026-11-17 12:28:45,123 - myvnc - INFO - server.py:294 - text",
            ),
            ("", ""),
        ] {
            assert_eq!(without(command), shown);
        }
    }
}
