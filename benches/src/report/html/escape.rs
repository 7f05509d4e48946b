use std::borrow::Cow;

/// `text` for an element's contents or a quoted attribute.
///
/// Control characters become U+FFFD: HTML has no way to write them.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(needs_care) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for sign in text.chars() {
        match sign {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            sign if needs_care(sign) => safe.push('\u{fffd}'),
            sign => safe.push(sign),
        }
    }
    Cow::Owned(safe)
}

fn needs_care(sign: char) -> bool {
    matches!(sign, '&' | '<' | '>' | '"' | '\'') || sign.is_control() && !matches!(sign, '\n' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(escape("<a href=\"x\" id='y'>&"), "&lt;a href=&quot;x&quot; id=&#39;y&#39;&gt;&amp;");
        assert_eq!(escape("a\u{1b}[31m\u{0}\n"), "a\u{fffd}[31m\u{fffd}\n");
        assert!(matches!(escape("µs → LAN"), Cow::Borrowed(_)));
    }
}
