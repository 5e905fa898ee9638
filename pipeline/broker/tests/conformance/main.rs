//! One suite, two brokers: each test runs through librdkafka against the embedded broker, and against real Apache
//! Kafka where there is one (`scripts/test` starts it). A difference is a bug of the embedded broker.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cleanup;
mod groups;
mod records;
#[path = "../support/mod.rs"]
mod support;
mod topics;
mod transactions;

use std::time::Duration;

use support::{Kafka, apache, runtime};
use wellspring_broker::{BrokerConfig, EmbeddedBroker};

fn on_embedded(test: fn(&Kafka)) {
    let (dir, runtime) = (tempfile::tempdir().unwrap(), runtime());
    let config = BrokerConfig {
        housekeeping: Duration::from_millis(300),
        ..BrokerConfig::default()
    };
    let start = EmbeddedBroker::start_with(dir.path(), "127.0.0.1:0", config);
    let broker = runtime.block_on(start).unwrap();
    let kafka = Kafka::at(broker.bootstrap(), runtime);
    test(&kafka);
    kafka.runtime.block_on(broker.shutdown()).unwrap();
}

fn on_apache(test: fn(&Kafka)) {
    if let Some(address) = apache::address() {
        test(&Kafka::at(address, runtime()));
    }
}

/// Makes each test function a test on both brokers.
macro_rules! suite {
    ($($module:ident: $($test:ident)+;)+) => {
        mod embedded {
            $(mod $module {$(
                #[test]
                fn $test() {
                    crate::on_embedded(crate::$module::$test);
                }
            )+})+
        }
        mod apache_kafka {
            $(mod $module {$(
                #[test]
                fn $test() {
                    crate::on_apache(crate::$module::$test);
                }
            )+})+
        }
    };
}

suite! {
    topics:
        topics_that_cannot_be_are_refused
        topics_grow
        all_topics_are_listed
        settings_are_shown_and_changed
        deleted_topics_begin_anew
        deleted_records_stay_deleted;
    records:
        keys_headers_and_tombstones_come_back
        all_codecs_come_back
        four_megabyte_messages_pass_and_too_large_ones_are_refused
        offsets_are_found_by_time_within_compressed_batches
        a_batch_sent_twice_is_stored_once
        records_from_the_future_are_refused;
    groups:
        range_members_share_and_inherit
        cooperative_members_share_and_inherit
        a_silent_member_is_expelled
        a_static_member_that_returns_keeps_its_partitions
        commits_outlive_the_consumer
        an_outsider_may_not_commit
        groups_are_deleted_only_when_empty;
    transactions:
        committed_is_seen_and_aborted_is_not
        an_open_transaction_holds_back_what_follows
        a_new_owner_fences_the_old_and_aborts_its_transaction
        a_transaction_past_its_timeout_is_aborted
        offsets_commit_and_abort_with_their_transaction
        offsets_of_a_member_that_was_replaced_are_refused
        copying_in_transactions_is_exactly_once;
    cleanup:
        records_past_their_time_are_removed
        records_beyond_the_size_are_removed
        settings_changed_later_act
        the_last_record_of_each_key_stays
        tombstones_go_in_the_end
        aborted_records_supersede_nothing
        compacted_topics_take_no_records_without_a_key;
}
