//! What can be set when the broker starts: limits, flushing and group timing.
//!
//! Enters: plain values; `BrokerConfig::default()` suits a laptop. Leaves: nothing; it is only read.
//! Cannot fail here: the broker checks nothing but that sizes are usable, and says so in `BrokerError`.

use std::net::SocketAddr;
use std::time::Duration;

/// Settings of an embedded broker. All sizes are in bytes.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Where clients are told to connect: a proxy or tunnel in between. Default: where the broker listens.
    pub advertise: Option<SocketAddr>,
    /// Largest request accepted, in bytes. A larger one closes its connection. Default 64 MiB.
    pub max_request_bytes: usize,
    /// Bytes of requests held in memory at once over all connections; others wait. Default 128 MiB.
    pub max_inflight_bytes: usize,
    /// Connections served at once; more are closed at once with a log line. Default 1000.
    pub max_connections: usize,
    /// Largest record batch accepted where the topic sets no `max.message.bytes`. Default 16 MiB.
    pub message_max_bytes: usize,
    /// Cap on the records in one fetch answer whatever the client asks for; the first batch is
    /// always sent whole. Default 1 MiB.
    pub fetch_max_bytes: usize,
    /// A segment file is closed and a new one begun at this size, where the topic sets no
    /// `segment.bytes`. Default 128 MiB; at most 1 GiB.
    pub segment_bytes: u64,
    /// How often retention, compaction and expiry are looked after. Default 15 s.
    pub housekeeping: Duration,
    /// Keys that one pass of compaction holds in memory, 48 bytes each; a partition with more takes
    /// several passes. Default 1,000,000.
    pub compaction_keys: usize,
    /// Committed offsets of a group without members are forgotten after this time, in which the
    /// broker must have been running. Default 365 days; Kafka's is 7.
    pub offsets_retention: Duration,
    /// A transactional id not used for this time is forgotten. Default 7 days.
    pub transactional_id_expiration: Duration,
    /// When records reach the disk itself; see [`FlushPolicy`].
    pub flush: FlushPolicy,
    /// Partitions of a topic created with a partition count of -1. Default 1.
    pub default_partitions: i32,
    /// How long the first rebalance of an empty group waits for more members. Default 200 ms.
    pub initial_rebalance_delay: Duration,
    /// Shortest and longest session timeout a group member may ask for. Default 1 s to 30 min.
    pub session_timeout_range: (Duration, Duration),
    /// Longest transaction timeout a producer may ask for. Default 15 min.
    pub max_transaction_timeout: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            advertise: None,
            max_request_bytes: 64 << 20,
            max_inflight_bytes: 128 << 20,
            max_connections: 1000,
            message_max_bytes: 16 << 20,
            fetch_max_bytes: 1 << 20,
            segment_bytes: 128 << 20,
            housekeeping: Duration::from_secs(15),
            compaction_keys: 1_000_000,
            offsets_retention: Duration::from_secs(365 * 86_400),
            transactional_id_expiration: Duration::from_secs(7 * 86_400),
            flush: FlushPolicy::Interval(Duration::from_secs(1)),
            default_partitions: 1,
            initial_rebalance_delay: Duration::from_millis(200),
            session_timeout_range: (Duration::from_secs(1), Duration::from_secs(1800)),
            max_transaction_timeout: Duration::from_secs(900),
        }
    }
}

/// When appended records are forced from the operating system's page cache to the disk.
///
/// The end of the broker process, `kill -9` included, loses nothing acknowledged under any policy,
/// for the page cache belongs to the system. The policy decides what a power cut or a crash of the
/// system itself may lose. A committed transaction is on disk before the commit is acknowledged
/// under every policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushPolicy {
    /// Flush what was written every so often: a power cut may lose about this much
    /// non-transactional data, and group offsets committed within it.
    Interval(Duration),
    /// Flush before each produce acknowledgement and each offset commit: a power cut loses nothing
    /// acknowledged. Slow.
    EachAppend,
}
