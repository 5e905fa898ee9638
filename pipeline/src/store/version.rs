//! Versions: what tells one state of an object from the next.
//!
//! What a store says of an object, in a listing or with an answer, enters; a short text leaves that is another one when the object
//! is written again, or whether two of them speak of one state. Cannot fail.

use object_store::ObjectMeta;

/// What an answer says of the state of the object that it is of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// Its entity tag.
    pub(crate) e_tag: Option<String>,
    /// When it was last written, in milliseconds since 1970 UTC; 0 where the store does not say.
    pub(crate) modified_ms: i64,
}

impl State {
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        Self {
            e_tag: meta.e_tag.clone(),
            modified_ms: meta.last_modified.timestamp_millis(),
        }
    }

    /// The state as a listing would name it: the entity tag without what servers write differently at different places (quotation
    /// marks, the mark of a weak tag), or `@` and when the object was last written, where there is no tag, or `by_time` alone:
    /// the tags of a file system have numbers of its files, which are others on another machine.
    pub(super) fn version(&self, by_time: bool) -> Option<Box<str>> {
        match self.tag().filter(|_| !by_time) {
            Some(tag) => Some(tag.into()),
            None if self.modified_ms > 0 => Some(format!("@{}", self.modified_ms).into()),
            None => None,
        }
    }

    fn tag(&self) -> Option<&str> {
        let tag = self.e_tag.as_deref()?;
        Some(opaque(tag)).filter(|tag| !tag.is_empty())
    }

    /// Whether it is another state than the one that was listed as `version`. What cannot be told is no difference.
    pub(crate) fn differs(&self, version: &str) -> bool {
        match version.strip_prefix('@').and_then(|ms| ms.parse().ok()) {
            Some(listed) => self.modified_ms > 0 && !same_time(listed, self.modified_ms),
            None => self.tag().is_some_and(|tag| tag != version),
        }
    }
}

/// Whether the tag is a weak one: then it may be the same for objects that differ, and no read can be made on condition of it.
pub(super) fn is_weak(tag: &str) -> bool {
    tag.trim_start().starts_with("W/")
}

fn opaque(tag: &str) -> &str {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

/// Whether two times are one: headers have whole seconds, listings of some stores more.
pub(super) fn same_time(a: i64, b: i64) -> bool {
    let whole = a % 1_000 == 0 || b % 1_000 == 0;
    a == b || whole && a.abs_diff(b) < 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(tag: Option<&str>, modified_ms: i64) -> State {
        State {
            e_tag: tag.map(str::to_owned),
            modified_ms,
        }
    }

    #[test]
    fn a_state_is_known_by_its_tag_however_that_is_written() {
        for tag in ["\"ab-2\"", "ab-2", "W/\"ab-2\"", " W/\"ab-2\""] {
            assert_eq!(
                state(Some(tag), 5).version(false).as_deref(),
                Some("ab-2"),
                "{tag}"
            );
            assert!(!state(Some(tag), 5).differs("ab-2"), "{tag}");
            assert!(state(Some(tag), 5).differs("ab-3"), "{tag}");
        }
        assert!(is_weak("W/\"1\"") && !is_weak("\"W/1\""));
        // A listing with tags, and an answer without: nothing can be told.
        assert!(!state(None, 5).differs("ab-2"));
        assert!(!state(Some("\"\""), 5).differs("ab-2"));
    }

    #[test]
    fn without_a_tag_it_is_known_by_its_time() {
        for (state, by_time) in [
            (state(None, 1_764_000_000_123), false),
            (state(Some("\"\""), 1_764_000_000_123), false),
            (state(Some("\"1f-2-3\""), 1_764_000_000_123), true),
        ] {
            assert_eq!(state.version(by_time).as_deref(), Some("@1764000000123"));
        }
        assert_eq!(state(None, 0).version(false), None);
        let listed = "@1764000000123";
        // Headers have no fractions of a second.
        assert!(!state(Some("\"9\""), 1_764_000_000_000).differs(listed));
        assert!(!state(None, 1_764_000_000_123).differs(listed));
        assert!(state(None, 1_764_000_000_124).differs(listed));
        assert!(state(None, 1_764_000_002_000).differs(listed));
        assert!(!state(None, 0).differs(listed));
    }
}
