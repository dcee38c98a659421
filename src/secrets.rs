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
/// How such a name can end, too.
const ENDINGS: [&str; 2] = ["_pwd", "pass"];
/// Headers whose whole value is a secret.
const HEADERS: [&str; 2] = ["authorization:", "cookie:"];
/// What comes before credentials.
const SCHEMES: [&str; 3] = ["basic", "bearer", "negotiate"];
/// Programs that take a password after a short option.
const SHORT: [(&str, &str); 3] = [("ldap", "-w"), ("sshpass", "-p"), ("smbclient", "-U")];
/// Options whose value is `USER:PASSWORD`.
const CREDENTIALS: [&str; 2] = ["-u", "--user"];
const HIDDEN: &str = "***";

/// What the next word is.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Next {
    Harmless,
    Secret,
    Credentials,
    /// Nothing more is shown.
    Nothing,
}

/// A command line or a line of a log with each secret as `***`: `--password=x`, `--token x`,
/// `NAME_TOKEN=x`, `password: x`, `Bearer x`, `Cookie: x`, `user:x@host`, `?token=x`, `{"password":"x"}`.
pub(crate) fn without(text: &str) -> String {
    let mut next = Next::Harmless;
    let (mut shown, mut programs): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    for word in text.split(' ') {
        let (word_shown, after) = without_in(word, next, &programs);
        shown.push(word_shown);
        next = after;
        if next == Next::Nothing {
            shown.push(HIDDEN.to_owned());
            break;
        }
        let bare = word.trim_matches(['"', '\'']);
        programs.extend(bare.rsplit('/').next());
    }
    shown.join(" ")
}

/// One word, after the programs that it can be an option of.
fn without_in(word: &str, expected: Next, programs: &[&str]) -> (String, Next) {
    let bare = word.trim_matches(['"', '\'', ',', ';']);
    let lower = bare.to_ascii_lowercase();
    if HEADERS.contains(&lower.as_str()) {
        return (word.to_owned(), Next::Nothing);
    }
    if SCHEMES.contains(&lower.as_str()) {
        return (word.to_owned(), Next::Secret);
    }
    match expected {
        Next::Secret if bare.is_empty() => return (word.to_owned(), Next::Secret),
        Next::Secret if !word.starts_with('-') => return (HIDDEN.to_owned(), Next::Harmless),
        Next::Credentials if !word.contains('@') => {
            return (without_password(word), Next::Harmless);
        }
        _ => (),
    }
    let is_of = |name: &str| programs.iter().any(|program| program.starts_with(name));
    let mut short = SHORT.iter();
    if let Some((_, flag)) = short.find(|(name, flag)| word.starts_with(flag) && is_of(name)) {
        return match word.strip_prefix(flag) {
            Some("") => (word.to_owned(), Next::Secret),
            _ => (format!("{flag}{HIDDEN}"), Next::Harmless),
        };
    }
    if CREDENTIALS.contains(&word) {
        return (word.to_owned(), Next::Credentials);
    }
    if let Some(value) = word
        .strip_prefix("--user=")
        .filter(|value| !value.contains('@'))
    {
        return (
            format!("--user={}", without_password(value)),
            Next::Harmless,
        );
    }
    // `--password x` and `password: x`, but not `passwords were checked`.
    let name = lower.trim_end_matches([':', '"']);
    let names = is_secret(name) && !bare.contains(['=', '/']);
    if names && (bare.starts_with('-') || bare.ends_with(':')) {
        return (word.to_owned(), Next::Secret);
    }
    (without_values(&without_userinfo(word)), Next::Harmless)
}

fn without_password(credentials: &str) -> String {
    match credentials.split_once(':') {
        Some((user, _)) => format!("{user}:{HIDDEN}"),
        None => credentials.to_owned(),
    }
}

fn is_secret(lower: &str) -> bool {
    SECRET.iter().any(|secret| lower.contains(secret))
        || ENDINGS.iter().any(|ending| lower.ends_with(ending))
}

/// `NAME=VALUE` and `NAME:VALUE`, where the name says that the value is a secret. Of an address only
/// that parameter is hidden; of anything else all that follows, for a secret can hold any sign.
fn without_values(word: &str) -> String {
    let is_address = word.contains("://") || word.contains('?');
    let ends = ['?', '&', ';', '#', ',', '{'];
    let mut shown = String::new();
    for part in word.split_inclusive(ends) {
        let text = part.trim_end_matches(ends);
        let by = |mark| {
            text.split_once(mark)
                .filter(|(_, value): &(&str, &str)| !value.is_empty())
        };
        let named = by('=').map(|(name, _)| (name, '='));
        let named = named.or_else(|| by(':').map(|(name, _)| (name, ':')));
        let is_name = |name: &str| {
            let name = name.trim_matches(['"', '\'']);
            is_secret(&name.to_ascii_lowercase())
        };
        match named.filter(|(name, _)| is_name(name)) {
            Some((name, mark)) if is_address => {
                let named = &text[..name.len() + mark.len_utf8()];
                shown.extend([named, HIDDEN, &part[text.len()..]]);
            }
            Some((name, mark)) => return format!("{shown}{name}{mark}{HIDDEN}"),
            None => shown += part,
        }
    }
    shown
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
        Some((name, _)) => format!("{before}{name}:{HIDDEN}@{host}{after}"),
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
                "curl -H 'Authorization: Bearer xyz' vm",
                "curl -H 'Authorization: ***",
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
            ("sent Cookie: a=1; session=x", "sent Cookie: ***"),
            (
                "{\"username\":\"ada\",\"password\":\"x\"}",
                "{\"username\":\"ada\",\"password\":***",
            ),
            ("username=ada&password=x&y", "username=ada&password=***"),
            ("curl --user=ada:pw vm", "curl --user=ada:*** vm"),
            (
                "MYSQL_PWD=x DB_PASS=y PWD=/z a",
                "MYSQL_PWD=*** DB_PASS=*** PWD=/z a",
            ),
            ("a --pass x", "a --pass ***"),
            ("sudo sshpass -p pw ssh vm", "sudo sshpass -p *** ssh vm"),
            ("sh -c 'ldapsearch -w pw'", "sh -c 'ldapsearch -w ***"),
            ("https://vm:9143/x?a=b", "https://vm:9143/x?a=b"),
            (
                "listens on 0.0.0.0:9143, 1 waiting",
                "listens on 0.0.0.0:9143, 1 waiting",
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
