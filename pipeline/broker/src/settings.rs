//! Topic settings: which there are, what a value must look like, and what the broker makes of them.
//!
//! Enters: names and values as clients send them. Leaves: [`TopicSettings`], the values in force. Fails with a message
//! that names the setting and what it must be.

use std::collections::BTreeMap;

use crate::config::BrokerConfig;

/// What a value must look like.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// An integer of at least this.
    AtLeast(i64),
    /// A number from 0 to 1.
    Ratio,
    /// One of these, or several separated by commas.
    OneOf(&'static [&'static str]),
}

/// Known topic settings: name, default (empty where the broker's configuration has it), kind.
pub(crate) const KNOWN: &[(&str, &str, Kind)] = &[
    ("cleanup.policy", "delete", Kind::OneOf(&["delete", "compact"])),
    ("compression.type", "producer", Kind::OneOf(&["producer"])),
    ("delete.retention.ms", "86400000", Kind::AtLeast(0)),
    ("max.compaction.lag.ms", "9223372036854775807", Kind::AtLeast(1)),
    ("max.message.bytes", "", Kind::AtLeast(0)),
    ("message.timestamp.after.max.ms", "3600000", Kind::AtLeast(0)),
    (
        "message.timestamp.type",
        "CreateTime",
        Kind::OneOf(&["CreateTime"]),
    ),
    ("min.cleanable.dirty.ratio", "0.5", Kind::Ratio),
    ("min.compaction.lag.ms", "0", Kind::AtLeast(0)),
    ("min.insync.replicas", "1", Kind::AtLeast(1)),
    ("retention.bytes", "-1", Kind::AtLeast(-1)),
    ("retention.ms", "-1", Kind::AtLeast(-1)),
    ("segment.bytes", "", Kind::AtLeast(14)),
    ("segment.ms", "604800000", Kind::AtLeast(1)),
];

/// Checks one topic setting; the message says what is wrong with it.
pub(crate) fn check(name: &str, value: &str) -> Result<(), String> {
    let Some((_, _, kind)) = KNOWN.iter().find(|k| k.0 == name) else {
        let known: Vec<_> = KNOWN.iter().map(|k| k.0).collect();
        return Err(format!(
            "unknown topic setting `{name}`; known are {}",
            known.join(", ")
        ));
    };
    let (fits, wanted) = match kind {
        Kind::AtLeast(least) => (
            value.parse::<i64>().is_ok_and(|v| v >= *least),
            format!("an integer of at least {least}"),
        ),
        Kind::Ratio => (
            value.parse::<f64>().is_ok_and(|v| (0.0..=1.0).contains(&v)),
            "a number from 0 to 1".to_owned(),
        ),
        Kind::OneOf(words) => (
            value.split(',').all(|v| words.contains(&v.trim())),
            words.join(" or "),
        ),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("`{name}` is `{value}`; it must be {wanted}"))
    }
}

/// The default of a setting, as shown.
pub(crate) fn default_of(config: &BrokerConfig, name: &str) -> String {
    match name {
        "max.message.bytes" => config.message_max_bytes.to_string(),
        "segment.bytes" => config.segment_bytes.to_string(),
        _ => KNOWN
            .iter()
            .find(|k| k.0 == name)
            .map(|k| k.1.to_owned())
            .unwrap_or_default(),
    }
}

/// When a partition closes a segment and begins a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roll {
    /// Before it grows beyond this many bytes.
    pub(crate) bytes: u64,
    /// Before it holds records further apart in time than this, ms.
    pub(crate) ms: i64,
}

/// How a topic is compacted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Compaction {
    /// Share of bytes not yet compacted from which on it is worth the work.
    pub(crate) min_dirty_ratio: f64,
    /// Records younger than this are left alone, ms.
    pub(crate) min_lag_ms: i64,
    /// Records older than this are compacted whatever their share, ms.
    pub(crate) max_lag_ms: i64,
    /// How long tombstones and transaction markers stay once what they end is gone, ms.
    pub(crate) delete_retention_ms: i64,
}

/// The settings of a topic in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TopicSettings {
    pub(crate) max_message_bytes: u64,
    /// How far ahead of the clock a record's timestamp may be, ms.
    pub(crate) timestamp_after_max_ms: i64,
    pub(crate) roll: Roll,
    /// Age at which whole segments are removed, ms.
    pub(crate) retention_ms: Option<i64>,
    /// Size down to which whole segments are removed, bytes.
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) compaction: Option<Compaction>,
}

impl TopicSettings {
    /// What checked values, and defaults for those that are not there, amount to.
    pub(crate) fn new(own: &BTreeMap<String, String>, config: &BrokerConfig) -> Self {
        let value = |name: &str| own.get(name).cloned().unwrap_or_else(|| default_of(config, name));
        let number = |name: &str| value(name).parse::<i64>().unwrap_or(i64::MAX);
        let size = |name: &str| u64::try_from(number(name)).unwrap_or(0);
        let policy = value("cleanup.policy");
        let has = |word: &str| policy.split(',').any(|p| p.trim() == word);
        let compaction = Compaction {
            min_dirty_ratio: value("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            min_lag_ms: number("min.compaction.lag.ms"),
            max_lag_ms: number("max.compaction.lag.ms"),
            delete_retention_ms: number("delete.retention.ms"),
        };
        let kept = |name: &str| Some(number(name)).filter(|v| has("delete") && *v >= 0);
        Self {
            max_message_bytes: size("max.message.bytes"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            roll: Roll {
                // Positions within a segment are 32 bits wide.
                bytes: size("segment.bytes").min(1 << 30),
                ms: number("segment.ms"),
            },
            retention_ms: kept("retention.ms"),
            retention_bytes: kept("retention.bytes").and_then(|v| u64::try_from(v).ok()),
            compaction: has("compact").then_some(compaction),
        }
    }
}
