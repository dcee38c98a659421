//! Small pieces of the texts that /proc and /sys show.

use std::str::FromStr;

/// The number that follows a name in a file of /proc.
pub(crate) fn number_after<T: FromStr>(text: &str, name: &str) -> Option<T> {
    let (_, rest) = text.split_once(name)?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_proc_are_read() {
        let limits = "Max open files            1024                 524288               files\n";
        assert_eq!(number_after(limits, "Max open files"), Some(1024));
        assert_eq!(
            number_after::<u64>("Max processes unlimited", "Max processes"),
            None
        );
        assert_eq!(
            number_after("some avg10=12.34 avg60=0", "some avg10="),
            Some(12.34_f32)
        );
        assert_eq!(number_after("0.15 0.10 0.05 1/345 9", "/"), Some(345));
        assert_eq!(number_after::<u64>("", "x"), None);
    }
}
