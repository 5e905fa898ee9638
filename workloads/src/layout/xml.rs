//! XML as instruments write it: bytes enter, elements leave one by one, by their names without namespace.
//!
//! Text that is not UTF-8 is read with replacement characters, UTF-16 with a byte order mark as UTF-16. Fails where the
//! document is not well formed or cut short. Entities that the document defines itself are not expanded.

use std::borrow::Cow;

use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;

/// Deeper nesting than any format of the field has.
const MAX_DEPTH: usize = 64;

/// Why a document could not be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(super) struct XmlError {
    /// From 1.
    line: usize,
    reason: String,
}

/// What [`walk`] meets.
pub(super) enum Node<'a> {
    /// An element begins; its name ends the path.
    Open(&'a [String], Attributes<'a>),
    /// An element ends, with the text that stood directly in it.
    Close(&'a [String], &'a str),
}

/// The attributes of an element.
pub(super) struct Attributes<'a>(&'a BytesStart<'a>);

impl Attributes<'_> {
    /// The value of an attribute by its name without namespace.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        let mut attributes = self.0.attributes();
        attributes.with_checks(false);
        let found = attributes
            .filter_map(Result::ok)
            .find(|attribute| attribute.key.local_name().as_ref() == name.as_bytes())?;
        let raw = String::from_utf8_lossy(&found.value);
        Some(unescaped(&raw).into_owned())
    }

    /// The value of an attribute as a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.trim().parse().ok()
    }
}

/// With predefined entities in place; text with others stays as it is.
fn unescaped(raw: &str) -> Cow<'_, str> {
    quick_xml::escape::unescape(raw).unwrap_or(Cow::Borrowed(raw))
}

/// The text of a document in the encodings instruments use.
pub(crate) fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
        char::decode_utf16(units)
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect::<String>()
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => Cow::Owned(utf16(rest, u16::from_le_bytes)),
        [0xfe, 0xff, rest @ ..] => Cow::Owned(utf16(rest, u16::from_be_bytes)),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest),
        _ => String::from_utf8_lossy(bytes),
    }
}

/// Visits every element of a document in order. What was visited before an error is kept by the visitor.
pub(super) fn walk(text: &str, mut visit: impl FnMut(Node<'_>)) -> Result<(), XmlError> {
    let text = text.trim_end_matches(['\0', '\n', '\r', ' ']);
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.expand_empty_elements = true;
    config.allow_dangling_amp = true;
    let mut path: Vec<String> = Vec::new();
    let mut content = String::new();
    loop {
        let event = reader.read_event();
        let error = |reader: &Reader<&[u8]>, reason: String| {
            let at = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
            let read = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
            XmlError {
                line: 1 + read.iter().filter(|byte| **byte == b'\n').count(),
                reason,
            }
        };
        match event {
            Ok(Event::Start(start)) => {
                if path.len() == MAX_DEPTH {
                    return Err(error(
                        &reader,
                        format!("elements are nested deeper than {MAX_DEPTH}"),
                    ));
                }
                let name = start.local_name();
                path.push(String::from_utf8_lossy(name.as_ref()).into_owned());
                content.clear();
                visit(Node::Open(&path, Attributes(&start)));
            }
            Ok(Event::End(_)) => {
                visit(Node::Close(&path, content.trim()));
                content.clear();
                path.pop();
            }
            Ok(Event::Text(part)) => content.push_str(&String::from_utf8_lossy(&part)),
            Ok(Event::CData(part)) => content.push_str(&String::from_utf8_lossy(&part)),
            Ok(Event::GeneralRef(reference)) => {
                let name = String::from_utf8_lossy(&reference);
                content.push_str(&unescaped(&format!("&{name};")));
            }
            Ok(Event::Eof) => {
                return match path.last() {
                    Some(name) => Err(error(
                        &reader,
                        format!("the file ends inside <{name}>; it may be truncated"),
                    )),
                    None => Ok(()),
                };
            }
            Ok(_) => {}
            Err(source) => return Err(error(&reader, source.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(text: &str) -> (Vec<String>, Result<(), XmlError>) {
        let mut seen = Vec::new();
        let result = walk(text, |node| {
            if let Node::Close(path, text) = node {
                seen.push(format!("{}={text}", path.join("/")));
            }
        });
        (seen, result)
    }

    #[test]
    fn elements_come_without_namespace_and_with_entities_in_place() {
        let (seen, result) = closed("<a xmlns:b='u'><b:c> x &amp; &#181; &mine; </b:c><d/></a>\0");
        assert_eq!(seen, ["a/c=x & µ &mine;", "a/d=", "a="]);
        assert!(result.is_ok());
    }

    #[test]
    fn what_is_cut_short_or_broken_says_where() {
        let (seen, result) = closed("<a>\n<b>1</b>\n<c");
        assert_eq!(seen, ["a/b=1"]);
        assert!(result.unwrap_err().to_string().starts_with("line 3: "));
        let (_, result) = closed("<a><b>1</b>");
        assert!(result.unwrap_err().to_string().contains("truncated"));
        assert!(closed(&"<a>".repeat(100)).1.is_err());
        assert!(closed("<a></b>").1.is_err());
    }

    #[test]
    fn encodings_of_instruments_are_text() {
        assert_eq!(text_of(b"\xef\xbb\xbfa"), "a");
        assert_eq!(text_of(b"a\xb5m"), "a\u{fffd}m");
        let utf16: Vec<u8> = [0xff, 0xfe]
            .into_iter()
            .chain("aµ".encode_utf16().flat_map(u16::to_le_bytes))
            .collect();
        assert_eq!(text_of(&utf16), "aµ");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[<>/a-c&;'\" =!\\[\\]?-]{0,60}") {
            let _ = walk(&text, |node| {
                if let Node::Open(_, attributes) = node {
                    attributes.get("a");
                }
            });
        }
    }
}
