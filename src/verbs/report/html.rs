//! The report as a web page: one file without scripts, which refers to nothing outside of it.

use super::super::groups::Groups;
use super::super::status::{outcome, what};
use super::super::words::{number, seconds};
use super::map::Map;
use super::markup::{Attributes, Markup};
use super::{MOST, Report, Watched, helped, moment};
use crate::diagnosis::Kind;

const STYLE: &str = include_str!("style.css");
/// Nothing is loaded and nothing is run, whatever a text says (Content Security Policy Level 3).
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
/// Hours in the picture, with their classes in the style sheet.
const LEGEND: [(&str, &str); 7] = [
    ("up", "up"),
    ("a1", "away up to 1 min of the hour"),
    ("a2", "up to 10 min"),
    ("a3", "up to 30 min"),
    ("a4", "longer"),
    ("planned", "away during a pause"),
    ("unwatched", "not watched"),
];
const COLUMN: Attributes<'static> = &[("scope", "col")];
const ROW: Attributes<'static> = &[("scope", "row")];
const FIGURE: Attributes<'static> = &[("class", "figure")];
const FREE: Attributes<'static> = &[("class", "free")];

/// The whole page. `missing` says why there is nothing to report.
pub(super) fn page(report: &Report, missing: Option<&str>) -> String {
    let mut page = Markup::new("<!DOCTYPE html>");
    page.element("html", &[("lang", "en")], |html| {
        html.element("head", &[], |head| {
            head.void("meta", &[("charset", "utf-8")]);
            let policy = [
                ("http-equiv", "Content-Security-Policy"),
                ("content", POLICY),
            ];
            head.void("meta", &policy);
            let viewport = [
                ("name", "viewport"),
                ("content", "width=device-width, initial-scale=1"),
            ];
            head.void("meta", &viewport);
            head.void(
                "meta",
                &[("name", "color-scheme"), ("content", "light dark")],
            );
            head.leaf(
                "title",
                &[],
                &format!("MyVNC on {}: {}", report.host, report.span()),
            );
            head.style(STYLE);
        });
        html.element("body", &[], |body| {
            body.element("header", &[], |header| {
                header.leaf("h1", &[], &format!("MyVNC on {}", report.host));
                header.leaf("p", &[("class", "soft")], &report.period());
                let summary = missing.map_or_else(|| report.summary(), str::to_owned);
                header.leaf("p", &[("class", "lead")], &summary);
            });
            if missing.is_none() {
                body.element("main", &[], |main| contents(report, main));
            }
            body.leaf("footer", &[], &footer());
        });
    });
    page.finish()
}

fn footer() -> String {
    format!(
        "{} {}. Availability is 1 minus the time away divided by the time that was watched; outages during pauses \
         do not count. A restart helped if the server then answered for 10 minutes. Causes are described in \
         monitor_myvnc(1).",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION")
    )
}

fn contents(report: &Report, main: &mut Markup) {
    patterns(main);
    section(main, "Servers", |section| {
        let legend = [("class", "legend"), ("aria-label", "Colours of the hours")];
        section.element("ul", &legend, |list| {
            for (class, text) in LEGEND {
                list.element("li", &[], |item| {
                    let box_of = [
                        ("class", "key"),
                        ("viewBox", "0 0 12 10"),
                        ("aria-hidden", "true"),
                    ];
                    item.element("svg", &box_of, |svg| {
                        svg.element(
                            "path",
                            &[("class", class), ("d", "M0 0h12v10h-12z")],
                            |_| (),
                        );
                    });
                    item.text(text);
                });
            }
        });
        section.element("div", &[("class", "cards")], |cards| {
            for one in &report.servers {
                cards.element("article", &[], |card| server(report, one, card));
            }
        });
    });
    if report.total.incidents == 0 {
        return;
    }
    section(main, "Causes", |section| {
        groups(section, "Incidents by cause", "Cause", &report.causes);
        groups(section, "Incidents by culprit", "Culprit", &report.culprits);
    });
    section(main, "Longest outages", |section| longest(report, section));
    let advice = report.advice();
    if !advice.is_empty() {
        section(main, "What to do", |section| {
            for (kind, count) in advice {
                let of = number(report.total.incidents.into(), "incident");
                section.leaf("h3", &[], &format!("{}: {count} of {of}", kind.slug()));
                section.leaf("p", &[("class", "advice")], kind.entry().advice);
            }
        });
    }
}

fn section(page: &mut Markup, title: &str, content: impl FnOnce(&mut Markup)) {
    page.element("section", &[], |section| {
        section.leaf("h2", &[], title);
        content(section);
    });
}

/// What distinguishes hours without colours: stripes and dots.
fn patterns(page: &mut Markup) {
    let hidden = [
        ("class", "patterns"),
        ("width", "0"),
        ("height", "0"),
        ("aria-hidden", "true"),
    ];
    page.element("svg", &hidden, |svg| {
        svg.element("defs", &[], |defs| {
            for (id, mark) in [
                ("stripes", "M-1 5L5 -1M3 9L9 3"),
                ("dots", "M1 4h5M3.5 1.5v5"),
            ] {
                let pattern = [
                    ("id", id),
                    ("width", "8"),
                    ("height", "8"),
                    ("patternUnits", "userSpaceOnUse"),
                ];
                defs.element("pattern", &pattern, |pattern| {
                    let ground = [
                        ("class", if id == "dots" { "up" } else { "ground" }),
                        ("width", "8"),
                        ("height", "8"),
                    ];
                    pattern.element("rect", &ground, |_| ());
                    pattern.element("path", &[("class", id), ("d", mark)], |_| ());
                });
            }
        });
    });
}

fn server(report: &Report, one: &Watched, card: &mut Markup) {
    let how = one.server.how(report.now);
    card.element("h3", &[], |heading| {
        heading.text(&one.server.name);
        heading.text(" ");
        let class = if how.is_well() { "state" } else { "state sick" };
        heading.leaf("span", &[("class", class)], how.words());
    });
    card.element("p", &[], |line| {
        line.leaf("strong", &[], &one.availability(report));
        line.text(" available");
    });
    let count = &one.count;
    card.element("dl", &[], |list| {
        for (term, value) in [
            ("incidents", count.incidents.to_string()),
            ("away", seconds(one.away)),
            (
                "restarts",
                format!("{}, {} helped", count.restarts, count.lasted),
            ),
            ("unwedged", count.unwedged.to_string()),
        ] {
            list.leaf("dt", &[], term);
            list.leaf("dd", &[], &value);
        }
    });
    let map = Map::of(&one.server.past.timeline, report.from, report.now);
    map.draw(&one.server.name, card);
    if !map.is_quiet() {
        card.element("details", &[], |details| {
            let title = format!("{} as a table", one.server.name);
            details.leaf("summary", FREE, &title);
            map.table(&one.server.name, details);
        });
    }
    if !one.notes.is_empty() {
        card.element("ul", &[("class", "notes")], |list| {
            for note in &one.notes {
                list.leaf("li", &[("class", "free")], note);
            }
        });
    }
}

/// A table of causes or culprits.
fn groups(page: &mut Markup, caption: &str, title: &str, groups: &Groups) {
    let groups = groups.sorted().into_iter().filter(|(name, _)| *name != "-");
    let groups: Vec<_> = groups.take(2 * MOST).collect();
    if groups.is_empty() {
        return;
    }
    table(
        page,
        caption,
        &[title, "Incidents", "Away", "Did restarting help?"],
        |body| {
            for (name, group) in groups {
                body.element("tr", &[], |row| {
                    row.element("th", ROW, |cell| {
                        cell.leaf("code", FREE, name);
                        let kind = Kind::from_slug(name).filter(|_| title == "Cause");
                        if let Some(term) = kind.and_then(|kind| kind.entry().terms.first()) {
                            cell.leaf("small", &[], term);
                        }
                    });
                    row.leaf("td", FIGURE, &group.incidents.to_string());
                    row.leaf("td", FIGURE, &seconds(group.away));
                    row.leaf("td", &[], &helped(group).unwrap_or_else(|| "-".to_owned()));
                });
            }
        },
    );
}

fn longest(report: &Report, page: &mut Markup) {
    let columns = ["Began", "Server", "Away", "Outcome", "Cause"];
    table(
        page,
        "How they ended, and what caused them",
        &columns,
        |body| {
            for incident in &report.longest {
                body.element("tr", &[], |row| {
                    row.leaf("th", ROW, &moment(incident.began));
                    row.leaf("td", FREE, &incident.server);
                    row.leaf("td", FIGURE, &seconds(incident.away));
                    row.leaf("td", &[], outcome(incident.event));
                    row.leaf("td", FREE, &what(incident));
                });
            }
        },
    );
}

fn table(page: &mut Markup, caption: &str, columns: &[&str], content: impl FnOnce(&mut Markup)) {
    page.element("table", &[], |table| {
        table.leaf("caption", &[], caption);
        table.element("thead", &[], |head| {
            head.element("tr", &[], |row| {
                for column in columns {
                    row.leaf("th", COLUMN, column);
                }
            });
        });
        table.element("tbody", &[], content);
    });
}
