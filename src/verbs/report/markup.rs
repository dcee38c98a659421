//! Writes HTML: every element is closed, and every text and attribute is escaped.

use crate::text::one_line;

/// A document.
#[derive(Debug, Default)]
pub(super) struct Markup(String);

/// Names and values.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Markup {
    /// A document whose first line is this.
    pub(super) fn new(first: &str) -> Self {
        Self(format!("{first}\n"))
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    /// An element with others in it.
    pub(super) fn element(
        &mut self,
        tag: &str,
        attributes: Attributes,
        content: impl FnOnce(&mut Self),
    ) {
        self.start(tag, attributes);
        content(self);
        self.end(tag);
    }

    /// An element with a text in it.
    pub(super) fn leaf(&mut self, tag: &str, attributes: Attributes, text: &str) {
        self.start(tag, attributes);
        self.text(text);
        self.end(tag);
    }

    /// An element that has no end.
    pub(super) fn void(&mut self, tag: &str, attributes: Attributes) {
        self.start(tag, attributes);
        self.0.push('\n');
    }

    /// A text, which may come from anyone.
    pub(super) fn text(&mut self, text: &str) {
        for c in one_line(text).chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
    }

    /// The style sheet of this program, as it is.
    pub(super) fn style(&mut self, sheet: &'static str) {
        self.0.push_str("<style>\n");
        self.0.push_str(sheet);
        self.0.push_str("</style>\n");
    }

    fn start(&mut self, tag: &str, attributes: Attributes) {
        self.0.push('<');
        self.0.push_str(tag);
        for (name, value) in attributes {
            self.0.push(' ');
            self.0.push_str(name);
            self.0.push_str("=\"");
            self.text(value);
            self.0.push('"');
        }
        self.0.push('>');
    }

    fn end(&mut self, tag: &str) {
        self.0.push_str("</");
        self.0.push_str(tag);
        self.0.push('>');
        // Elsewhere, the end of a line would show as a space.
        if !matches!(tag, "span" | "code" | "small" | "strong") {
            self.0.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_attributes_are_escaped() {
        let mut page = Markup::new("<!DOCTYPE html>");
        let hostile = "</p><script>\"'&\u{1b}\n";
        page.element("p", &[("title", hostile)], |p| p.leaf("code", &[], hostile));
        let escaped = "&lt;/p&gt;&lt;script&gt;&quot;&#39;&amp;??";
        let expected =
            format!("<!DOCTYPE html>\n<p title=\"{escaped}\"><code>{escaped}</code></p>\n");
        assert_eq!(page.finish(), expected);
    }
}
