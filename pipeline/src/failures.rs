//! Failures: what becomes of a record whose work failed. It is tried again later, becomes a dead letter, or stops the
//! worker.
//!
//! A [`StageError`] and the record's ticket enter; the ticket leaves settled. A failure that may pass goes to the
//! retries topic, with the time it is due; that topic has one partition for each delay, so that what waits long holds
//! up nothing else. When the delays are used up, or nothing can help, it is a dead letter and the plate goes on.
//! Stages back off by themselves before that, for seconds and not for minutes.

use std::time::Duration;

use wellspring_workloads::words::FieldId;

use crate::clock::now_ms;
use crate::dead_letters::{Place, letter, record};
use crate::error::{Domain, FailureClass, Retry, Stage, StageError};
use crate::events::FieldTask;
use crate::kafka::OutRecord;
use crate::kafka::lane::Inbound;
use crate::kafka::topics::{PARKED, Topic};
use crate::runs::Course;
use crate::track::{Outcome, Ticket};

/// Header: when a record is due, in milliseconds since 1970 UTC.
pub const DUE: &str = "wellspring-due-ms";
/// Header: how long it waits at most after it is read, in milliseconds, whatever the clocks of its writer and reader say.
pub const DELAY: &str = "wellspring-delay-ms";
/// Header: how often the record has been begun when it is read, this time included; 1 where absent.
pub const ATTEMPT: &str = "wellspring-attempt";
/// Header: the topic a waiting record goes back to, without the prefix.
pub const RETURN_TO: &str = "wellspring-return-to";
/// Header: the record was sent to the partition where its plate is at home.
pub const SENT_HOME: &str = "wellspring-sent-home";
/// Header: the class of the last failure.
pub const CLASS: &str = "wellspring-class";
/// Header: the stage of the last failure.
pub const STAGE: &str = "wellspring-stage";
/// Header: the process that failed.
pub const WORKER: &str = "wellspring-worker";
/// Header: the messages of the failure and its causes.
pub const ERROR: &str = "wellspring-error";

/// How long work of a paused run waits before it is looked at again.
pub const PARKED_FOR: Duration = Duration::from_secs(10);

/// Longest error text in a header, in bytes; the record itself has all of it.
const ERROR_BYTES: usize = 2_000;

/// When failed work is tried again: after the first failure by the first delay, and so on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The delays; their number is the number of further attempts.
    pub delays: Vec<Duration>,
}

impl RetryPolicy {
    /// Which delay follows the attempt `attempt`, counted from 1; `None` when there is no further one.
    fn after(&self, attempt: u32) -> Option<(usize, Duration)> {
        let level = attempt.saturating_sub(1) as usize;
        self.delays.get(level).map(|delay| (level, *delay))
    }
}

/// How often the record has been begun, this time included.
pub fn attempt(record: &Inbound) -> u32 {
    record
        .header(ATTEMPT)
        .and_then(|attempt| attempt.parse().ok())
        .unwrap_or(1)
}

/// Settles a field that failed.
pub fn settle_field(ticket: Ticket, task: &FieldTask, error: StageError) {
    settle(ticket, Place::field(&task.run, &task.field), error);
}

/// Settles a record that was begun by processes and ended them all.
pub fn settle_deadly(ticket: Ticket, place: Place) {
    let error = StageError::input(
        Stage::Source,
        FailureClass::Poison,
        "every process that worked on this ended without a word, two of them with nothing else in work; look at the \
         system's log for memory and signals, and at the images themselves; `wellspring dead-letters retry` tries again",
    );
    settle(ticket, place, error);
}

/// Whether a failure of the record would be tried again.
pub fn will_be_tried_again(ticket: &Ticket, error: &StageError) -> bool {
    error.retry == Retry::Backoff && ticket.facts().retries.after(attempt(ticket.record())).is_some()
}

/// Settles a record whose work failed.
pub fn settle(ticket: Ticket, place: Place, error: StageError) {
    if error.domain == Domain::Internal {
        ticket.settle(Outcome::Stop(error));
        return;
    }
    let message = error.chain();
    let attempt = attempt(ticket.record());
    let well = place.well.map(|well| well.to_string());
    let retry = match error.retry {
        Retry::Backoff => ticket.facts().retries.after(attempt),
        Retry::Never => None,
    };
    if let Some((level, delay)) = retry {
        tracing::warn!(
            stage = %error.stage, class = %error.class, plate = place.plate.as_ref().map(display), well, field = place.field, message,
            attempt, seconds = delay.as_secs(), "failed; it is tried again"
        );
        let record = waiting(&ticket, &error, &message, attempt, level, delay);
        ticket.settle(Outcome::Publish(vec![record]));
        return;
    }
    tracing::warn!(
        stage = %error.stage, class = %error.class, plate = place.plate.as_ref().map(display), well, field = place.field, message,
        attempt, "dead letter"
    );
    let letter = letter(place, error.stage, error.class, message, &ticket);
    match record(&letter) {
        Ok(record) => ticket.settle(Outcome::Publish(vec![record])),
        Err(error) => ticket.settle(Outcome::Stop(error)),
    }
}

/// The record of a ticket as it waits on the retries topic.
fn waiting(
    ticket: &Ticket,
    error: &StageError,
    message: &str,
    attempt: u32,
    level: usize,
    delay: Duration,
) -> OutRecord {
    let original = ticket.record();
    // Up to a tenth more, so that what failed together does not come back together.
    let jitter = delay.mul_f64(0.1 * f64::from(crate::clock::subsecond_nanos() % 1_000) / 1_000.0);
    let id = original.header("ce_id").unwrap_or(&original.key);
    let record = forwarded(
        ticket.facts().of,
        original,
        format!("{id}/attempt-{}", attempt + 1),
    );
    let mut record = OutRecord {
        partition: i32::try_from(level).ok(),
        ..later(record, attempt + 1, delay + jitter)
    };
    record.headers.extend(of_failure(
        error.class,
        error.stage,
        &ticket.facts().worker,
        message,
    ));
    record
}

/// A record on the retries topic that goes to its topic after `wait`.
fn later(record: OutRecord, attempt: u32, wait: Duration) -> OutRecord {
    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    OutRecord {
        headers: vec![
            (DUE, now_ms().saturating_add(wait).to_string()),
            (DELAY, wait.to_string()),
            (RETURN_TO, record.topic.suffix().to_owned()),
            (ATTEMPT, attempt.to_string()),
        ],
        topic: Topic::Retries,
        ..record
    }
}

/// A record of a paused run, for its topic, as it waits until it is asked again whether the run goes on.
pub fn parked(record: OutRecord, attempt: u32) -> OutRecord {
    OutRecord {
        partition: Some(PARKED),
        ..later(record, attempt, PARKED_FOR)
    }
}

/// Settles a field by the course of its run and plate, if it is not to be worked on now; the ticket, if it is.
pub fn stay_or_go(ticket: Ticket, course: Course) -> Option<Ticket> {
    match course {
        Course::Open => return Some(ticket),
        Course::Paused => {
            let original = ticket.record();
            let id = original.header("ce_id").unwrap_or(&original.key).to_owned();
            let record = forwarded(ticket.facts().of, original, id);
            let record = parked(record, attempt(original));
            ticket.settle(Outcome::Publish(vec![record]));
        }
        Course::Cancelled => ticket.settle(Outcome::Publish(Vec::new())),
    }
    None
}

/// Headers that describe a failure.
pub fn of_failure(
    class: FailureClass,
    stage: Stage,
    worker: &str,
    message: &str,
) -> Vec<(&'static str, String)> {
    let mut end = message.len().min(ERROR_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    vec![
        (CLASS, class.to_string()),
        (STAGE, stage.to_string()),
        (WORKER, worker.to_owned()),
        (ERROR, message[..end].to_owned()),
    ]
}

/// A record's own key, bytes and type, on another topic.
fn forwarded(topic: Topic, original: &Inbound, id: String) -> OutRecord {
    OutRecord {
        topic,
        key: original.key.clone(),
        value: original.value.clone(),
        id,
        kind: original
            .header("ce_type")
            .unwrap_or("wellspring.record")
            .to_owned()
            .into(),
        partition: None,
        headers: Vec::new(),
    }
}

/// A record under the key that it belongs under, for its own topic.
pub fn sent_home(topic: Topic, original: &Inbound, key: &str) -> OutRecord {
    let id = original.header("ce_id").unwrap_or(key).to_owned();
    let forwarded = forwarded(topic, original, id);
    OutRecord {
        key: key.to_owned(),
        headers: vec![
            (SENT_HOME, "1".to_owned()),
            (ATTEMPT, attempt(original).to_string()),
        ],
        ..forwarded
    }
}

/// A record that has waited long enough, on its way back; `None` where it does not say where to.
pub fn returned(record: &Inbound) -> Option<OutRecord> {
    let topic = Topic::from_suffix(record.header(RETURN_TO)?)?;
    let id = record.header("ce_id").unwrap_or(&record.key).to_owned();
    Some(OutRecord {
        headers: vec![(ATTEMPT, attempt(record).to_string())],
        ..forwarded(topic, record, id)
    })
}

/// Where a record of the tasks topic belongs, as far as its bytes tell.
pub fn place_of_task(ticket: &Ticket) -> Place {
    ticket.read::<FieldTask>(Stage::Source).map_or_else(
        |_| Place::default(),
        |task| {
            let field: FieldId = task.field;
            Place::field(&task.run, &field)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_delay_is_used_once_and_then_there_is_none() {
        let policy = RetryPolicy {
            delays: vec![Duration::from_secs(10), Duration::from_secs(60)],
        };
        assert_eq!(policy.after(1), Some((0, Duration::from_secs(10))));
        assert_eq!(policy.after(2), Some((1, Duration::from_secs(60))));
        assert_eq!(policy.after(3), None);
        assert_eq!(RetryPolicy::default().after(1), None);
    }

    #[test]
    fn a_record_that_waited_goes_back_where_it_came_from_with_its_attempt() {
        let header = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let record = Inbound {
            key: "P/A01".to_owned(),
            value: b"{}".to_vec(),
            headers: vec![
                header("ce_id", "r/P/A01/1/attempt-2"),
                header("ce_type", "wellspring.task.v1"),
                header(RETURN_TO, "tasks"),
                header(ATTEMPT, "2"),
            ],
            ..Inbound::default()
        };
        let back = returned(&record).unwrap();
        assert_eq!((back.topic, back.key.as_str()), (Topic::Tasks, "P/A01"));
        assert_eq!(back.headers, vec![(ATTEMPT, "2".to_owned())]);
        assert_eq!((&*back.kind, back.value), ("wellspring.task.v1", record.value));
        let lost = Inbound::default();
        assert!(returned(&lost).is_none());
    }
}
