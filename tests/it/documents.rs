//! What the documents for maintainers say is so: the lists of hazards and causes have their tests, and one
//! version stands everywhere.

#[path = "../../build/changelog.rs"]
mod changelog;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const TREE: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// How ARCHITECTURE.md marks a number that belongs to later work.
const NO_TEST_YET: &str = "(no test yet) ";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(TREE).join(path)).unwrap()
}

/// The numbers of the list under a heading, and those of them that are marked [`NO_TEST_YET`].
fn listed(heading: &str) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let document = read("ARCHITECTURE.md");
    let (_, below) = document.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = below.split("\n## ").next().unwrap();
    let items: Vec<(u32, &str)> = section
        .lines()
        .filter_map(|line| line.split_once(". "))
        .filter_map(|(number, text)| Some((number.parse().ok()?, text)))
        .collect();
    let numbers: Vec<u32> = items.iter().map(|(number, _)| *number).collect();
    let expected: Vec<u32> = (1..).take(numbers.len()).collect();
    assert_eq!(
        numbers, expected,
        "{heading}: numbered from 1, without gaps"
    );
    let later = items
        .iter()
        .filter(|(_, text)| text.starts_with(NO_TEST_YET))
        .map(|(number, _)| *number);
    (numbers.iter().copied().collect(), later.collect())
}

/// The text of every Rust file below a directory.
fn sources(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    text
}

/// The numbers in a function's name: 36 and 13 as hazards in `hazards_13_and_36_…`, and 6 as a cause in
/// `hazard_52_cause_6_…`.
fn numbers_in<'a>(name: &'a str, kind: &str) -> Vec<u32> {
    let words: Vec<&'a str> = name.split('_').collect();
    let mut numbers = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let first = words.get(at + 1).and_then(|word| word.parse().ok());
        at += 1;
        let (true, Some(first)) = (word.trim_end_matches('s') == kind, first) else {
            continue;
        };
        numbers.push(first);
        at += 1;
        while let (Some(&"and"), Some(Ok(more))) =
            (words.get(at), words.get(at + 1).map(|word| word.parse()))
        {
            numbers.push(more);
            at += 2;
        }
    }
    numbers
}

/// The numbers of a kind that tests are named after.
fn tested(kind: &str) -> BTreeSet<u32> {
    let text = ["src", "tests"].map(|directory| sources(&Path::new(TREE).join(directory)));
    let names = text
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| {
            let (before, name) = line.split_once("fn ")?;
            // Not in a string or comment, as here.
            let is_item = before.trim().is_empty() || before.trim() == "async";
            (is_item && name.starts_with(['h', 'c'])).then(|| name.split('(').next().unwrap())
        });
    names.flat_map(|name| numbers_in(name, kind)).collect()
}

fn check(heading: &str, kind: &str) {
    let (listed, later) = listed(heading);
    let tested = tested(kind);
    let without_test: Vec<_> = listed
        .difference(&tested)
        .filter(|n| !later.contains(n))
        .collect();
    let not_listed: Vec<_> = tested.difference(&listed).collect();
    let has_one_now: Vec<_> = later.intersection(&tested).collect();
    assert!(
        without_test.is_empty(),
        "no test is named {kind}_N of {without_test:?}"
    );
    assert!(
        not_listed.is_empty(),
        "not in ARCHITECTURE.md: {kind}_N of {not_listed:?}"
    );
    assert!(
        has_one_now.is_empty(),
        "marked {NO_TEST_YET:?}, but has a test: {has_one_now:?}"
    );
}

#[test]
fn every_hazard_of_the_architecture_has_a_test_and_the_reverse() {
    check("Hazards", "hazard");
}

#[test]
fn every_cause_of_the_architecture_has_a_test_and_the_reverse() {
    check("Causes", "cause");
}

#[test]
fn a_test_name_tells_its_numbers() {
    for (name, hazards, causes) in [
        ("hazard_5_a_stopped_server", vec![5], vec![]),
        ("hazards_13_and_36_only_a_redirect", vec![13, 36], vec![]),
        ("hazard_31_320000_arguments", vec![31], vec![]),
        ("hazard_52_cause_6_a_peer", vec![52], vec![6]),
        ("cause_10_out_of_threads", vec![], vec![10]),
        ("the_hazard_is_none", vec![], vec![]),
    ] {
        assert_eq!(numbers_in(name, "hazard"), hazards, "{name}");
        assert_eq!(numbers_in(name, "cause"), causes, "{name}");
    }
}

#[test]
fn one_version_stands_everywhere() {
    let changelog = read("CHANGELOG.md");
    let newest = changelog
        .lines()
        .filter_map(|line| line.strip_prefix("## ["))
        .find(|heading| !heading.starts_with("Unreleased]"))
        .unwrap();
    assert!(newest.starts_with(&format!("{VERSION}] - ")), "{newest}");
    let lock = read("Cargo.lock");
    let ours = format!("name = \"monitor_myvnc\"\nversion = \"{VERSION}\"\n");
    assert!(lock.contains(&ours), "Cargo.lock: cargo update --workspace");
    let debian = read("debian/changelog");
    assert!(
        debian.starts_with(&format!("monitor-myvnc ({VERSION}-1) ")),
        "{debian}"
    );
    for page in ["man/monitor_myvnc.1", "man/monitor_myvnc.toml.5"] {
        assert!(
            read(page).contains(&format!("\"monitor_myvnc {VERSION}\"")),
            "{page}"
        );
    }
    // The packages' names, as in `monitor-myvnc_0.1.0-1_amd64.deb`.
    let readme = read("README.md");
    let named: Vec<&str> = readme
        .match_indices("monitor-myvnc")
        .map(|(at, name)| &readme[at + name.len()..])
        .filter_map(|rest| rest.strip_prefix(['_', '-']))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    assert!(!named.is_empty(), "README.md names no package");
    for name in named {
        assert!(
            name.starts_with(&format!("{VERSION}-1")),
            "README.md: {name:.20}"
        );
    }
}

#[test]
fn one_maintainer_stands_everywhere() {
    let maintainer = env!("CARGO_PKG_AUTHORS").split(':').next().unwrap();
    let (name, address) = maintainer.split_once(" <").unwrap();
    let address = address.strip_suffix('>').unwrap();
    // cargo-deb takes the first author where the manifest names no maintainer.
    let manifest = read("Cargo.toml");
    assert!(!manifest.contains("\nmaintainer ="), "Cargo.toml");
    for (path, line) in [
        ("debian/changelog", format!(" -- {maintainer}  ")),
        ("rpm/changelog", format!(" {maintainer} - {VERSION}-1\n")),
        ("debian/copyright", format!("Copyright: 2026 {name}\n")),
        ("SECURITY.md", format!(", <{address}>, ")),
    ] {
        assert!(read(path).contains(&line), "{path}: not {line:?}");
    }
}

#[test]
fn the_packages_changelogs_have_the_released_versions() {
    let releases = changelog::releases;
    let text = "# Changelog\n\n## [Unreleased]\n\n- Not yet.\n\n## [1.1.0] - 2024-02-29\n\n### Added\n\n\
        - `--a` is new, and the line that says so is longer than one of Debian's may be,\n  in two lines.\n\n\
        ### Fixed\n\n- B of 1 %.\n\n## [1.0.0] - 2023-01-01\n\n- First.\n";
    let expected = "p (1.1.0-1) unstable; urgency=medium\n\n  \
        * --a is new, and the line that says so is longer than one of Debian's may be,\n    in two lines.\n  \
        * B of 1 %.\n\n -- A <a@b>  Thu, 29 Feb 2024 12:00:00 +0000\n\n\
        p (1.0.0-1) unstable; urgency=medium\n\n  \
        * First.\n\n -- A <a@b>  Sun, 01 Jan 2023 12:00:00 +0000\n";
    let read = releases(text).unwrap();
    assert_eq!(changelog::debian(&read, "p", "A <a@b>"), expected);
    let expected = "* Thu Feb 29 2024 A <a@b> - 1.1.0-1\n\
        - --a is new, and the line that says so is longer than one of Debian's may be,\n  in two lines.\n\
        - B of 1 %%.\n\n\
        * Sun Jan 01 2023 A <a@b> - 1.0.0-1\n- First.\n";
    assert_eq!(changelog::rpm(&read, "A <a@b>"), expected);
    for invalid in [
        "\n## [1.0.0]\n\n- First.\n",
        "\n## [1.0.0] - 2023-13-01\n\n- First.\n",
        "\n## [1.0.0] - 2023-01\n\n- First.\n",
        "\n## [1.0.0] - 2023-01-01\n\nFirst.\n",
        "\n## [Unreleased]\n\n- First.\n",
    ] {
        assert!(releases(invalid).is_none(), "{invalid}");
    }
}

#[test]
fn the_debian_changelog_is_not_wider_than_lintian_accepts() {
    let changelog = read("debian/changelog");
    let changes: Vec<&str> = changelog
        .lines()
        .filter(|line| line.starts_with("  "))
        .collect();
    assert!(!changes.is_empty());
    for line in changes {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
