//! The `traceparent` header of W3C Trace Context: which trace a record belongs to, and which span published it.
//!
//! An event that carries one hands its trace on to everything that is made of it. One that does not begins the trace of
//! its run and plate, so that a plate is one trace from announcement to profile. Ids are made of record ids, so that the
//! same work has the same span. <https://www.w3.org/TR/trace-context/>

use sha2::{Digest, Sha256};

/// The header's name.
pub const TRACEPARENT: &str = "traceparent";

/// The header of the record with this id, made of an event with `parent` as its header.
pub fn traceparent(parent: Option<&str>, id: &str) -> String {
    let span = digest(id, 16);
    match parent.and_then(trace_and_flags) {
        Some((trace, flags)) => format!("00-{trace}-{span}-{flags}"),
        None => {
            // Ids begin with run and plate.
            let plate = id.match_indices('/').nth(1).map_or(id, |(at, _)| &id[..at]);
            format!("00-{}-{span}-01", digest(plate, 32))
        }
    }
}

fn digest(text: &str, digits: usize) -> String {
    let bytes = Sha256::digest(text.as_bytes());
    let mut hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(digits);
    hex
}

/// Trace id and flags of a header; `None` for one that is not valid, which is then no parent.
fn trace_and_flags(header: &str) -> Option<(&str, &str)> {
    let mut parts = header.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, digits: usize| {
        part.len() == digits
            && part
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    let valid = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace, 32)
        && some(trace)
        && is_hex(span, 16)
        && some(span)
        && is_hex(flags, 2)
        && (version != "00" || parts.next().is_none());
    valid.then_some((trace, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plate_is_one_trace() {
        let ready = traceparent(None, "run-1/P1/ready");
        let field = traceparent(None, "run-1/P1/A01/3");
        let other = traceparent(None, "run-1/P2/A01/3");
        assert_eq!(ready[..35], field[..35]);
        assert_ne!(ready, field);
        assert_ne!(field[..35], other[..35]);
        assert!(trace_and_flags(&field).is_some(), "{field}");
    }

    #[test]
    fn an_event_hands_its_trace_on() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let child = traceparent(Some(parent), "run-1/P1/A01/3");
        assert!(child.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(child.ends_with("-00") && !child.contains("00f067aa0ba902b7"));
    }

    #[test]
    fn what_is_no_header_is_no_parent() {
        let none = traceparent(None, "a/b/c");
        for parent in [
            "",
            "00-x",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        ] {
            assert_eq!(traceparent(Some(parent), "a/b/c"), none, "{parent}");
        }
        // A later version may add parts.
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more";
        assert_ne!(traceparent(Some(later), "a/b/c"), none);
    }
}
