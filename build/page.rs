//! A manual page, from a plain markup to the macros of man(7).

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// Renders one page. Empty lines separate the blocks of its text. A block that begins with `# ` is a
/// section's heading, with `## ` a subsection's, with `- ` a term (or several, one a line) and its
/// explanation on the lines below, with four spaces a literal example; any other is a paragraph.
/// In all but examples, `text` is bold and <TEXT> is italic: a placeholder.
pub(crate) fn page(title: &str, section: &str, date: &str, text: &str) -> String {
    let source = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let manual = if section == "1" {
        "User Commands"
    } else {
        "File Formats"
    };
    let mut roff = Roff::new();
    roff.control("TH", [title, section, date, source, manual]);
    let mut after_heading = false;
    for block in text.split("\n\n").map(|block| block.trim_matches('\n')) {
        let is_heading = block.starts_with('#');
        if let Some(heading) = block.strip_prefix("# ") {
            roff.control("SH", [heading]);
        } else if let Some(heading) = block.strip_prefix("## ") {
            roff.control("SS", [heading]);
        } else if let Some(item) = block.strip_prefix("- ") {
            let mut request = "TP";
            let mut rest = item;
            loop {
                let (term, below) = rest.split_once('\n').unwrap_or((rest, ""));
                roff.control(request, None::<&str>);
                roff.text(inlines(term));
                request = "TQ";
                rest = below.strip_prefix("- ").unwrap_or_default();
                if rest.is_empty() {
                    roff.text(inlines(below));
                    break;
                }
            }
        } else if block.starts_with("    ") {
            if !after_heading {
                roff.control("sp", None::<&str>);
            }
            roff.control("RS", ["4"]);
            roff.control("EX", None::<&str>);
            for line in block.lines() {
                roff.text([roman(line.strip_prefix("    ").unwrap_or(line))]);
            }
            roff.control("EE", None::<&str>);
            roff.control("RE", None::<&str>);
        } else if !block.is_empty() {
            if !after_heading {
                roff.control("PP", None::<&str>);
            }
            roff.text(inlines(block));
        }
        after_heading = is_heading;
    }
    tidy(&roff.render())
}

/// The longest line of the source, in bytes (mandoc(1), -T lint).
const WIDTH: usize = 80;

/// Breaks the text lines of a page at spaces, at most `WIDTH` bytes wide.
pub(crate) fn tidy(page: &str) -> String {
    let (mut text, mut is_literal, mut is_term) = (String::new(), false, false);
    for line in page.lines() {
        is_literal = line == ".EX" || is_literal && line != ".EE";
        if is_literal || is_term || line.starts_with(['.', '\'']) {
            text.extend([line, "\n"]);
        } else {
            wrap(line, &mut text);
        }
        is_term = matches!(line, ".TP" | ".TQ");
    }
    text
}

fn wrap(line: &str, text: &mut String) {
    let mut width = 0;
    for word in line.split(' ') {
        // A line that begins with a dot or an apostrophe is a request.
        let guard = if word.starts_with(['.', '\'']) || word.starts_with(r"\*(Aq") {
            r"\&"
        } else {
            ""
        };
        if width > 0 && width + 1 + word.len() > WIDTH {
            text.extend(["\n", guard, word]);
            width = guard.len() + word.len();
        } else {
            if width > 0 {
                text.push(' ');
            }
            text.push_str(word);
            width += 1 + word.len();
        }
    }
    text.push('\n');
}

fn inlines(text: &str) -> Vec<Inline> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    let mut parts = Vec::new();
    for (number, part) in text.split('`').enumerate() {
        if number % 2 == 1 {
            parts.push(bold(part));
            continue;
        }
        let mut rest = part;
        while let Some((before, after)) = rest.split_once('<') {
            let Some((placeholder, after)) = after.split_once('>') else {
                break;
            };
            parts.extend([roman(before), italic(placeholder)]);
            rest = after;
        }
        parts.push(roman(rest));
    }
    parts
}

/// The date of a changelog's first entry, as `2026-11-24` (deb-changelog(5)).
pub(crate) fn date(changelog: &str) -> Option<String> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let trailer = changelog.lines().find(|line| line.starts_with(" -- "))?;
    let mut words = trailer.rsplit_once(", ")?.1.split(' ');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    Some(format!("{year}-{month:02}-{day:0>2}"))
}
