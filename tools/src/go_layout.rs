//! Go's way to write a time layout, translated to strftime, for formats that were made for rpk.

/// Go's reference elements and what strftime calls them; the longer of two that begin alike comes first.
const ELEMENTS: &[(&str, &str)] = &[
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "UTC"),
    ("2006", "%Y"),
    ("Z07:00", "Z"),
    ("Z0700", "Z"),
    ("-07:00", "+00:00"),
    ("-0700", "+0000"),
    (".000000000", ".%9f"),
    (".000000", ".%6f"),
    (".000", ".%3f"),
    (".999999999", "%.f"),
    (".999999", "%.f"),
    (".999", "%.f"),
    ("PM", "%p"),
    ("pm", "%P"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("15", "%H"),
    ("_2", "%e"),
];

/// The layout for strftime. Times are in UTC, so that zones are constants.
pub(crate) fn to_strftime(layout: &str) -> String {
    let mut rest = layout;
    let mut strftime = String::new();
    while let Some(first) = rest.chars().next() {
        if let Some((element, replacement)) = ELEMENTS.iter().find(|(element, _)| rest.starts_with(element)) {
            strftime.push_str(replacement);
            rest = &rest[element.len()..];
            continue;
        }
        if first == '%' {
            strftime.push('%');
        }
        strftime.push(first);
        rest = &rest[first.len_utf8()..];
    }
    strftime
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_layouts_are_translated() {
        assert_eq!(to_strftime("2006-01-02T15:04:05Z07:00"), "%Y-%m-%dT%H:%M:%SZ");
        assert_eq!(to_strftime("2006-01-02 15:04:05.000"), "%Y-%m-%d %H:%M:%S.%3f");
        assert_eq!(to_strftime("Mon, 02 Jan 2006 03:04PM MST"), "%a, %d %b %Y %I:%M%p UTC");
        assert_eq!(to_strftime("100%"), "100%%");
    }
}
