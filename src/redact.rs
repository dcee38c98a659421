//! Text without passwords, tokens and session IDs: what is logged is read by others. Each byte is looked
//! at a bounded number of times, for the text can be as long as its author likes.

/// Words in the name of an option, a variable or a field whose value is a secret.
const SECRET: [&str; 13] = [
    "passw",
    "passphrase",
    "token",
    "secret",
    "apikey",
    "api-key",
    "api_key",
    "authorization",
    "cookie",
    "session_id",
    "session-id",
    "sessionid",
    "sessid",
];
/// How such a name can end, too. `PWD` is a directory.
const ENDINGS: [&str; 13] = [
    "pass",
    "_pwd",
    "-pwd",
    "_pw",
    "-pw",
    "access_key",
    "access-key",
    "auth_key",
    "auth-key",
    "credentials",
    "-jwt",
    "-otp",
    "-pin",
];
/// Whole names of such fields; elsewhere these are common words.
const FIELDS: [&str; 2] = ["sid", "session"];
/// Parameters of an address that are secrets: those of MyVNC, OpenID Connect, SAML and CAS, and signatures.
const PARAMETERS: [&str; 11] = [
    "sig",
    "signature",
    "code",
    "code_verifier",
    "state",
    "session_state",
    "nonce",
    "assertion",
    "samlresponse",
    "relaystate",
    "ticket",
];
/// Headers whose whole value is a secret.
const HEADERS: [&str; 2] = ["authorization", "cookie"];
/// What comes before credentials.
const SCHEMES: [&str; 3] = ["basic", "bearer", "negotiate"];
/// Programs that take a password after a short option.
const SHORT: [(&str, &str); 3] = [("ldap", "-w"), ("sshpass", "-p"), ("smbclient", "-U")];
/// Options whose value is `USER:PASSWORD`.
const CREDENTIALS: [&str; 2] = ["-u", "--user"];
const HIDDEN: &str = "***";
/// Words between a mention of a secret and the colon before it, at most.
const FEW_WORDS: u8 = 5;
/// Characters of a session ID, and of its beginning, which MyVNC logs with dots behind it, at least.
const SHORTEST_ID: usize = 16;
const SHORTEST_BEGINNING: usize = 4;
/// The first signs of a JSON Web Token (RFC 7519): `{"` in base64.
const JSON_WEB_TOKEN: &str = "eyJ";

/// What the next word is.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Next {
    Harmless,
    Secret,
    Credentials,
    /// The rest of a secret in quotes.
    Quoted(char),
    /// Nothing more is shown.
    Nothing,
}

/// What the words so far say of those to come.
#[derive(Default)]
struct Context {
    /// Which of the programs `SHORT` were named.
    programs: [bool; SHORT.len()],
    /// A session or a cookie was named.
    is_of_session: bool,
    /// Words in which a colon is that of a cookie.
    cookie: u8,
    /// Words in which a colon is that of a session ID.
    id: u8,
    /// The word before, bare: `session` or `vnc`, where it was one of these.
    was_session: bool,
    was_vnc: bool,
    /// Whether the word before names a secret, as in `password = x`.
    was_name: bool,
}

impl Context {
    fn note(&mut self, word: &str) {
        let bare = word.trim_matches(['"', '\'']);
        let program = bare.rsplit('/').next().unwrap_or_default();
        for (seen, (name, _)) in self.programs.iter_mut().zip(SHORT) {
            *seen |= program.starts_with(name);
        }
        self.was_name = !bare.contains([':', '=', '/']) && is_secret(&bare.to_ascii_lowercase());
    }

    /// What follows a word of a log's text, such as `Validating session ID: x`.
    fn after(&mut self, word: &str) -> Next {
        let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is = |name: &str| core.eq_ignore_ascii_case(name);
        let starts = |name: &str| {
            let start = core.get(..name.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        self.cookie = self.cookie.saturating_sub(1);
        self.id = self.id.saturating_sub(1);
        if starts("cookie") || is("set-cookie") {
            self.cookie = FEW_WORDS;
        }
        if is("session_id") || is("sessionid") || self.was_session && is("id") {
            self.id = FEW_WORDS;
        }
        let is_session = is("session");
        self.is_of_session |= starts("session") || starts("cookie");
        let ends = word.ends_with(':');
        let next = match ends {
            true if self.cookie > 0 => Next::Nothing,
            true if self.id > 0 || is_session && !self.was_vnc => Next::Secret,
            _ => Next::Harmless,
        };
        if ends {
            // The next colon is that of something else.
            (self.cookie, self.id) = (0, 0);
        }
        self.was_session = is_session;
        self.was_vnc = is("vnc");
        next
    }
}

/// A command line or a line of a log with each secret as `***`: `--password=x`, `--token x`,
/// `NAME_TOKEN=x`, `password: x`, `password = x`, `Bearer x`, `Cookie: x`, `user:x@host`, `?token=x`, `{"password":"x"}`,
/// `'session_id': 'x'`, `Validating session ID: x`.
pub(crate) fn redacted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let (mut next, mut context) = (Next::Harmless, Context::default());
    for (index, word) in text.split(' ').enumerate() {
        if let Next::Quoted(quote) = next {
            if closes(word, quote) {
                next = Next::Harmless;
            }
            continue;
        }
        if index > 0 {
            shown.push(' ');
        }
        let (word_shown, after) = without_in(word, next, &mut context);
        shown += &word_shown;
        next = after;
        if next == Next::Nothing {
            // Directly behind `Cookie=`, and behind a blank after `Cookie:`.
            if !word_shown.ends_with(HIDDEN) {
                shown += " ***";
            }
            break;
        }
        context.note(word);
    }
    shown
}

/// A command that hands something over, with each secret as `***`. Of an address, scheme and host are shown, because
/// the rest of a webhook's address is its secret; of a scheme other than HTTP nothing, because its host can be a token.
pub(crate) fn without_addresses(command: &str) -> String {
    let is_quote = |c: char| matches!(c, '"' | '\'');
    let ends = |c: char| c.is_whitespace() || is_quote(c);
    let mut shown = String::with_capacity(command.len());
    // What follows a quote belongs to the same word.
    let mut is_secret = false;
    for piece in command.split_inclusive(ends) {
        let text = piece.strip_suffix(ends).unwrap_or(piece);
        let is_key = |name: &str| name.to_ascii_lowercase().ends_with("key");
        let named = text.split_once('=').filter(|(name, _)| is_key(name));
        let was_secret = is_secret;
        is_secret = was_secret || named.is_some();
        match named {
            _ if text.is_empty() => (),
            _ if was_secret => shown.push_str(HIDDEN),
            Some((name, "")) => shown.extend([name, "="]),
            Some((name, _)) => shown.extend([name, "=", HIDDEN]),
            None => match without_path(text) {
                Some(address) => {
                    shown.push_str(&address);
                    is_secret = true;
                }
                None => shown.push_str(text),
            },
        }
        shown.push_str(&piece[text.len()..]);
        is_secret &= piece.ends_with(is_quote);
    }
    redacted(&shown)
}

/// A word in which of an address only scheme and host are left; none if it has no address.
fn without_path(word: &str) -> Option<String> {
    let scheme = word.find("://").map(|at| at + 3);
    // An option or a variable can stand before it.
    let name = word.find(['=', '/', '?', '.', ':']);
    let name = name.filter(|at| word[*at..].starts_with('='));
    let (before, address) = word.split_at(scheme.or(name.map(|at| at + 1)).unwrap_or(0));
    let end = address.find(['/', '?', '#']).unwrap_or(address.len());
    let (authority, path) = address.split_at(end);
    let rest = match path.get(..1) {
        None => "",
        Some(_) if path == "/" => "/",
        Some("/") => "/***",
        Some("?") => "?***",
        Some(_) => "#***",
    };
    if scheme.is_none() {
        // curl(1) and others take an address without a scheme.
        let port = authority.rsplit_once(':').map(|(_, port)| port);
        let has_port = port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let is_host =
            authority.starts_with(char::is_alphanumeric) && (authority.contains('.') || has_port);
        return (is_host && !rest.is_empty()).then(|| format!("{before}{authority}{rest}"));
    }
    let lower = before.to_ascii_lowercase();
    // A password with a slash in it ends after what looks like the host.
    let is_http = lower.ends_with("http://") || lower.ends_with("https://");
    if !is_http || path.contains('@') {
        return Some(format!("{before}{HIDDEN}"));
    }
    let (user, host) = match authority.rsplit_once('@') {
        Some((_, host)) => ("***@", host),
        None => ("", authority),
    };
    Some(format!("{before}{user}{host}{rest}"))
}

/// One word, behind that context.
fn without_in(word: &str, expected: Next, context: &mut Context) -> (String, Next) {
    let bare = word.trim_matches(['"', '\'', ',', ';']);
    let lower = word.to_ascii_lowercase();
    let lower_bare = lower.trim_matches(['"', '\'', ',', ';']);
    if let Some(end) = header(&lower) {
        let shown = without_values(&without_userinfo(&word[..end])).0;
        let is_all = end == word.len() || shown.ends_with(HIDDEN);
        let hidden = if is_all { "" } else { HIDDEN };
        return (shown + hidden, Next::Nothing);
    }
    if SCHEMES.contains(&lower_bare) {
        return (word.to_owned(), Next::Secret);
    }
    let of_text = context.after(word);
    let value = word.trim_start_matches([':', '=', '>']);
    if context.was_name && value.len() < word.len() {
        let mark = &word[..word.len() - value.len()];
        return match value {
            "" => (word.to_owned(), Next::Secret),
            _ => (format!("{mark}{HIDDEN}"), rest_of(value)),
        };
    }
    match expected {
        Next::Secret if bare.is_empty() => return (word.to_owned(), Next::Secret),
        Next::Secret if !word.starts_with('-') => return (HIDDEN.to_owned(), rest_of(word)),
        Next::Credentials if !word.contains('@') && !word.starts_with('-') => {
            return (without_password(word), Next::Harmless);
        }
        _ => (),
    }
    let mut short = SHORT.iter().zip(context.programs);
    if let Some(((_, flag), _)) = short.find(|((_, flag), seen)| *seen && word.starts_with(flag)) {
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
    let name = lower_bare.trim_end_matches([':', '"', '\'']);
    let name = name.trim_start_matches(['{', '[', '(', '"', '\'']);
    let is_field = bare.ends_with(':') && FIELDS.contains(&name) && bare.contains(['"', '\'']);
    let names = (is_secret(name) || is_field) && !bare.contains(['=', '/']);
    if names && (bare.starts_with('-') || bare.ends_with(':')) {
        return (word.to_owned(), Next::Secret);
    }
    if of_text != Next::Harmless {
        return (word.to_owned(), of_text);
    }
    if is_token(word, context.is_of_session) {
        return (HIDDEN.to_owned(), Next::Harmless);
    }
    let (shown, next) = without_values(&without_userinfo(word));
    (shown, next)
}

/// Where the name of a header whose whole value is a secret ends, mark included: in `Cookie:`, and in
/// the middle of `{"Cookie":"x"}`, `--cookie=x`. Of names in lower case.
fn header(lower: &str) -> Option<usize> {
    let ends = HEADERS.iter().filter_map(|name| {
        lower.match_indices(name).find_map(|(at, _)| {
            let after = &lower[at + name.len()..];
            let marks = after.trim_start_matches(['"', '\'', '\\']);
            let is_mark = marks.starts_with([':', '=']);
            is_mark.then_some(lower.len() - marks.len() + 1)
        })
    });
    ends.min()
}

/// What follows a secret: the rest of it, where it is in quotes that are still open.
fn rest_of(value: &str) -> Next {
    let value = value.trim_start_matches(['{', '[', '(', 'b', 'u']);
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) if !closes(&value[1..], quote) => Next::Quoted(quote),
        _ => Next::Harmless,
    }
}

/// Whether a text in such quotes ends with this word.
fn closes(word: &str, quote: char) -> bool {
    let end = word.trim_end_matches([',', ';', ':', '.', '}', ']', ')']);
    end.strip_suffix(quote)
        .is_some_and(|text| !text.ends_with('\\'))
}

/// Whether a word looks like a secret by itself: a JSON Web Token, and in a text about sessions a
/// session ID, or the beginning of one: `0f8fad5b...`.
fn is_token(word: &str, is_of_session: bool) -> bool {
    let body = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if body.starts_with(JSON_WEB_TOKEN) {
        return body.contains('.') && body.chars().all(|c| is_of_token(c) || c == '.');
    }
    if !is_of_session {
        return false;
    }
    if let Some(beginning) = body.strip_suffix("...") {
        return beginning.len() >= SHORTEST_BEGINNING && beginning.chars().all(is_of_token);
    }
    body.len() >= SHORTEST_ID
        && body.chars().all(is_of_token)
        && body.contains(|c: char| c.is_ascii_digit())
        && body.contains(|c: char| c.is_ascii_alphabetic())
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
fn without_values(word: &str) -> (String, Next) {
    let is_address = word.contains("://") || word.contains('?');
    let has_parameters = is_address || word.contains('&');
    let ends = ['?', '&', ';', '#', ',', '{'];
    let mut shown = String::with_capacity(word.len());
    for part in word.split_inclusive(ends) {
        let text = part.trim_end_matches(ends);
        let by = |mark| {
            text.split_once(mark)
                .filter(|(_, value): &(&str, &str)| !value.is_empty())
        };
        let named = by('=').map(|(name, value)| (name, '=', value));
        let named = named.or_else(|| by(':').map(|(name, value)| (name, ':', value)));
        let is_name = |name: &str, mark| {
            let name = name
                .trim_matches(['"', '\'', '[', '('])
                .to_ascii_lowercase();
            is_secret(&name)
                || FIELDS.contains(&name.as_str()) && (mark == '=' || text.contains(['"', '\'']))
                || has_parameters && PARAMETERS.contains(&name.as_str())
        };
        match named.filter(|(name, mark, _)| is_name(name, *mark)) {
            Some((name, mark, _)) if is_address => {
                let named = &text[..name.len() + mark.len_utf8()];
                shown.extend([named, HIDDEN, &part[text.len()..]]);
            }
            Some((name, mark, value)) => {
                let next = rest_of(value);
                return (format!("{shown}{name}{mark}{HIDDEN}"), next);
            }
            None => shown += part,
        }
    }
    (shown, Next::Harmless)
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
        None if start > 0 && is_token(user, true) => format!("{before}{HIDDEN}@{host}{after}"),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_token, redacted, without_addresses};
    use crate::fuzz::{fuzz, linear};

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
            ("a --pw=x --bind-pw x b", "a --pw=*** --bind-pw *** b"),
            ("a --pwd x --access-key x", "a --pwd *** --access-key ***"),
            (
                "a --auth-key=x --jwt=x --otp x",
                "a --auth-key=*** --jwt=*** --otp ***",
            ),
            (
                "a --pin=x --credentials x b",
                "a --pin=*** --credentials *** b",
            ),
            (
                "env PWD=/x OLDPWD=/y a --option x",
                "env PWD=/x OLDPWD=/y a --option x",
            ),
            (
                "curl https://vm/x?sig=x&b=c",
                "curl https://vm/x?sig=***&b=c",
            ),
            (
                "git clone https://ghp0123456789abcdef0123456789@vm/x",
                "git clone https://***@vm/x",
            ),
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
            (
                "bind_password = x, token : 'y z' and passwd =w",
                "bind_password = *** token : *** and passwd =***",
            ),
            (
                "--password = x and secret => y",
                "--password = *** and secret => ***",
            ),
            (
                "passwords were checked = all",
                "passwords were checked = all",
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
            assert_eq!(redacted(command), shown);
        }
    }

    /// Lines of MyVNC's server.py, auth_manager.py, ldap_manager.py, and of http.server.
    #[test]
    fn hazard_41_no_cookie_and_no_session_of_myvncs_log_is_shown() {
        let uuid = "0f8fad5b-d9cd-469f-a165-70867728950e";
        for (line, shown) in [
            (
                "Cookie header: session_id=SID; username=ada; _shib=x",
                "Cookie header: ***",
            ),
            (
                "Found Cookie header: session_id=SID; username=ada",
                "Found Cookie header: ***",
            ),
            ("Cookie: session_id=SID; username=ada", "Cookie: ***"),
            (
                "Extracted session_id directly: 0f8fad5b",
                "Extracted session_id directly: ***",
            ),
            (
                "Parsed session_id cookie: 0f8fad5b",
                "Parsed session_id cookie: ***",
            ),
            ("Malformed cookie: SID", "Malformed cookie: ***"),
            (
                "Session ID from cookie: 0f8fad5b...",
                "Session ID from cookie: ***",
            ),
            (
                "Validating session ID: 0f8fad5b...",
                "Validating session ID: ***",
            ),
            ("Validating session ID: abc", "Validating session ID: ***"),
            ("Validating session: 0f8fad5b", "Validating session: ***"),
            (
                "Converted session ID to string: 0f8fad5b",
                "Converted session ID to string: ***",
            ),
            (
                "Created fallback session ID: SID",
                "Created fallback session ID: ***",
            ),
            (
                "All cookies in request: ['session_id=0f8fad5b', 'username=ada']",
                "All cookies in request: ***",
            ),
            (
                "Setting session cookie: session_id=0f8fad5b..., Max-Age=86400",
                "Setting session cookie: ***",
            ),
            (
                "Cookie being set: session_id=SID; Path=/; Max-Age=86400",
                "Cookie being set: ***",
            ),
            ("Set-Cookie: session_id=SID; Path=/", "Set-Cookie: ***"),
            (
                "Login response sent for user ada with session 0f8fad5b...",
                "Login response sent for user ada with session ***",
            ),
            ("Session 0f8fad5b... has expired", "Session *** has expired"),
            ("Session not found: 0f8fad5b...", "Session not found: ***"),
            (
                "Created new session for user ada: 0f8fad5b...",
                "Created new session for user ada: ***",
            ),
            (
                "Created session for user ada: SID",
                "Created session for user ada: ***",
            ),
            (
                "Copied LDAP session to auth_manager sessions: 0f8fad5b...",
                "Copied LDAP session to auth_manager sessions: ***",
            ),
            (
                "Could not find session 0f8fad5b... in LDAP manager sessions",
                "Could not find session *** in LDAP manager sessions",
            ),
            (
                "{'username': 'ada', 'session_id': 'SID', 'x': 1}",
                "{'username': 'ada', 'session_id': *** 'x': 1}",
            ),
            (
                "{\"success\": true, \"session_id\": \"SID\"}",
                "{\"success\": true, \"session_id\": ***",
            ),
            ("{\"session_id\":\"SID\",\"a\":1}", "{\"session_id\":***"),
            ("{'sid': 'SID'}", "{'sid': ***"),
            (
                "headers: {'Cookie': 'a=b; c=d', 'Host': 'vm'}",
                "headers: {'Cookie': ***",
            ),
            (
                "{\"a\":1,\"Cookie\":\"a=b; c=d\"}",
                "{\"a\":1,\"Cookie\":***",
            ),
            ("{\"password\":\"x\",\"Cookie\":\"y\"}", "{\"password\":***"),
            (
                "{'Authorization': 'Bearer x', 'Host': 'vm'}",
                "{'Authorization': ***",
            ),
            ("sent authorization:Basic x", "sent authorization:***"),
            ("Proxy-Authorization: Basic x", "Proxy-Authorization: ***"),
            ("curl --cookie=a=b; c=d", "curl --cookie=***"),
            (
                "\"GET /?sid=SID HTTP/1.1\" 200 -",
                "\"GET /?sid=*** HTTP/1.1\" 200 -",
            ),
            (
                "Processing Entra ID callback URL: /auth/callback?code=0.AX&state=y&session_state=z",
                "Processing Entra ID callback URL: /auth/callback?code=***&state=***&session_state=***",
            ),
            (
                "Generated auth URL: https://vm/authorize?client_id=a&response_type=code&state=y&prompt=b",
                "Generated auth URL: https://vm/authorize?client_id=a&response_type=code&state=***&prompt=b",
            ),
            (
                "grant_type=authorization_code&code=x&a=b",
                "grant_type=authorization_code&code=***",
            ),
            (
                "got eyJhbGciOi.eyJzdWIi.SflKx_w-5c from vm",
                "got *** from vm",
            ),
            ("'password': 'a b c', 'x': 1", "'password': *** 'x': 1"),
            ("curl -u --password=x", "curl -u --password=***"),
            ("--password='a b' --host vm", "--password=*** --host vm"),
            ("password: \"a \\\" b\" c", "password: *** c"),
            // What is no secret stays.
            ("No session_id cookie found", "No session_id cookie found"),
            (
                "No session cookie found in request",
                "No session cookie found in request",
            ),
            ("Session valid for user: ada", "Session valid for user: ada"),
            (
                "Session validation failed: Session has expired",
                "Session validation failed: Session has expired",
            ),
            (
                "Session expires at: Thu Nov 26 12:00:00 2026",
                "Session expires at: Thu Nov 26 12:00:00 2026",
            ),
            (
                "Session check from 10.1.2.3, headers: Mozilla/5.0",
                "Session check from 10.1.2.3, headers: Mozilla/5.0",
            ),
            ("Copying VNC session: 12345", "Copying VNC session: 12345"),
            ("Retrieved 3 VNC sessions", "Retrieved 3 VNC sessions"),
            ("exit code=1 state=S", "exit code=1 state=S"),
            (
                "status_code=200, state: running",
                "status_code=200, state: running",
            ),
            (
                "/usr/bin/python3.11 /opt/myvnc/main.py --host vm-0123456789abcdef",
                "/usr/bin/python3.11 /opt/myvnc/main.py --host vm-0123456789abcdef",
            ),
        ] {
            let line = line.replace("SID", uuid);
            let found = redacted(&line);
            assert_eq!(found, shown, "{line}");
            for prefix in [
                "2026-11-17 12:28:45,123 - myvnc - DEBUG - server.py:294 - ",
                "[x] ",
            ] {
                assert_eq!(
                    redacted(&format!("{prefix}{line}")),
                    format!("{prefix}{shown}")
                );
            }
        }
    }

    #[test]
    fn of_an_address_only_the_host_is_shown() {
        for (command, shown) in [
            ("/usr/libexec/x/notify-mail", "/usr/libexec/x/notify-mail"),
            (
                "MAILTO=a@vm /opt/n.d/notify --to b@vm",
                "MAILTO=a@vm /opt/n.d/notify --to b@vm",
            ),
            (
                "WEBHOOK_URL_FILE=/etc/hook ./notify.sh",
                "WEBHOOK_URL_FILE=/etc/hook ./notify.sh",
            ),
            (
                "WEBHOOK_URL='https://hooks.vm/a/b' x",
                "WEBHOOK_URL='https://hooks.vm/***' x",
            ),
            ("curl -d @- HTTPS://vm:1?a=b", "curl -d @- HTTPS://vm:1?***"),
            ("curl hooks.vm/api/S?wait=true", "curl hooks.vm/***"),
            (
                "curl hooks.vm?k=S relay:80/S",
                "curl hooks.vm?*** relay:80/***",
            ),
            (
                "curl https://hooks.vm/a/'S/T' 'https://vm'\"/S\" x",
                "curl https://hooks.vm/***'***' 'https://vm'\"***\" x",
            ),
            ("A_KEY='S'T\"U\" notify", "A_KEY='***'***\"***\" notify"),
            ("curl https://vm", "curl https://vm"),
            ("curl http://vm/", "curl http://vm/"),
            ("curl https://tok@vm/", "curl https://***@vm/"),
            ("curl https://ada:p/w@vm", "curl https://***"),
            (
                "curl --url=hooks.vm/a\n\thooks.vm/b",
                "curl --url=hooks.vm/***\n\thooks.vm/***",
            ),
            (
                "apprise tgram://TOKEN/CHAT -b x",
                "apprise tgram://*** -b x",
            ),
            ("PAGERDUTY_KEY=abc notify", "PAGERDUTY_KEY=*** notify"),
            (
                "PAGERDUTY_KEY=\"abc\" notify",
                "PAGERDUTY_KEY=\"***\" notify",
            ),
            ("notify --token abc", "notify --token ***"),
        ] {
            assert_eq!(without_addresses(command), shown, "{command}");
        }
    }

    #[test]
    fn hazard_31_redaction_takes_linear_time() {
        let pieces: [&str; 12] = [
            "a ",
            "ldapsearch -w ",
            "password: 'x ",
            "cookie",
            "authorization'\"",
            "session_id ",
            "a=b&",
            "a:b@",
            "?token=x",
            "{\"",
            "eyJ.",
            "x",
        ];
        for piece in pieces {
            linear(
                |size| piece.repeat(size / piece.len() + 1).into_bytes(),
                |bytes| {
                    redacted(&String::from_utf8_lossy(bytes));
                },
            );
        }
    }

    #[test]
    fn fuzz_redaction() {
        let seeds: [&[u8]; 6] = [
            b"ldapsearch -w pw --password 'a b' -u ada:pw https://ada:pw@vm/x?token=y&code=z#c",
            b"Cookie header: session_id=abc; username=x",
            b"{'Authorization': 'Bearer x', \"session_id\":\"abc\"}",
            b"Validating session ID: 0f8fad5b... eyJh.b.c \xc3\xa9\xff",
            b"password: \"a \\\" b\", Cookie: x",
            b"MYSQL_PWD=x --user=a:b --cookie=c",
        ];
        fuzz(&seeds, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let shown = redacted(&text);
            assert!(shown.len() <= text.len() * 4 + 4, "{text}");
            // A secret that is named so does not get through, whatever stands before it.
            let secret = redacted(&format!("{text} --password=tr0ub4dor"));
            assert!(!secret.contains("tr0ub4dor"), "{text}");
        });
    }

    #[test]
    fn a_token_is_as_long_and_plain_as_tokens_are() {
        for (word, is_of_session, expected) in [
            ("eyJhbGciOi.eyJzdWIi.c2ln", false, true),
            ("eyJhbGciOi", false, false),
            ("eyJhbGciOi.a+b", false, false),
            ("0f8fad5b...", true, true),
            ("0f8fad5b...", false, false),
            ("ab...", true, false),
            ("0f8fa+5b...", true, false),
        ] {
            assert_eq!(is_token(word, is_of_session), expected, "{word}");
        }
    }

    #[test]
    fn a_mark_between_a_name_and_its_secret_is_not_the_secret() {
        for text in ["--password \"\" hunter2", "password: \" hunter2"] {
            let shown = redacted(text);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
