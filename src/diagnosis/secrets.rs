//! Command lines without passwords and tokens: what is logged is read by others.

/// Words in the name of an option whose value is nobody's business.
const SECRET: [&str; 6] = [
    "passw",
    "passphrase",
    "token",
    "secret",
    "apikey",
    "api-key",
];

/// A command line with each secret as `***`: `--password=x`, `--token x`, `NAME_TOKEN=x`, `user:x@host`.
pub(crate) fn without(command: &str) -> String {
    let mut shown = Vec::new();
    let mut is_value = false;
    for word in command.split(' ') {
        let lower = word.to_ascii_lowercase();
        let (name, value) = lower.split_once('=').unwrap_or((&lower, ""));
        let is_secret = SECRET.iter().any(|secret| name.contains(secret));
        shown.push(if is_value && !word.starts_with('-') {
            "***".to_owned()
        } else if is_secret && !value.is_empty() {
            format!("{}=***", &word[..name.len()])
        } else {
            without_userinfo(word)
        });
        is_value = is_secret && value.is_empty() && word.starts_with('-');
    }
    shown.join(" ")
}

fn without_userinfo(word: &str) -> String {
    let start = word.find("://").map_or(0, |at| at + 3);
    let Some((user, rest)) = word[start..].rsplit_once('@') else {
        return word.to_owned();
    };
    match user.split_once(':') {
        Some((name, _)) => format!("{}{name}:***@{rest}", &word[..start]),
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
            (
                "ldapsearch --password=x -b y",
                "ldapsearch --password=*** -b y",
            ),
            (
                "ldapsearch --password x -b y",
                "ldapsearch --password *** -b y",
            ),
            ("a --token -b", "a --token -b"),
            ("env API_TOKEN=x a", "env API_TOKEN=*** a"),
            ("curl https://ada:pw@vm/x", "curl https://ada:***@vm/x"),
            ("curl -u ada:p@ss@vm", "curl -u ada:***@vm"),
            ("ssh ada@vm", "ssh ada@vm"),
            ("a --Secret=ß", "a --Secret=***"),
            ("", ""),
        ] {
            assert_eq!(without(command), shown);
        }
    }
}
