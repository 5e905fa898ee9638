//! The producer: a batch of records, and the offsets they answer, all or nothing.
//!
//! With [`Delivery::ExactlyOnce`] a batch is one transaction. With [`Delivery::AtLeastOnce`], for brokers that have no
//! transactions, records are acknowledged before their offsets are committed, so that a crash between the two repeats
//! them under the same ids.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientContext, TopicPartitionList};

use super::home::PARTITIONER;
use super::tail::{Start, read_to_end};
use super::topics::Topic;
use super::trace::{TRACEPARENT, traceparent};
use super::{BROKER_TIMEOUT, Delivery, KafkaFailure, KafkaSettings, OutRecord};
use crate::failpoint;
use crate::schemas::Framed;

/// After this time the broker aborts what a dead process left open, and whoever took over its partitions can read its
/// offsets. Kafka looks for such transactions every 10 s (`transaction.abort.timed.out.transaction.cleanup.interval.ms`),
/// so this plus 10 s is the longest that a death in mid-transaction can hold up its partitions.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts at a batch.
const PAUSE: Duration = Duration::from_millis(200);
/// One call of a transaction; less than what a broker that is away for a moment needs, since calls are repeated.
const CALL: Duration = Duration::from_secs(5);

/// Between two looks at what the broker has not answered yet.
const DRAIN_LOOK: Duration = Duration::from_millis(1);

/// Bytes of records that are worth a transaction of their own where there are many: ending one costs Kafka tens of
/// milliseconds, whatever is in it.
pub const TRANSACTION_BYTES: usize = 16 << 20;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// All of it is visible to read-committed consumers.
    Yes,
    /// None of it is; the same batch may be tried again.
    Aborted,
    /// The connection was lost, or the transaction outlived its timeout, in mid-commit. [`BatchProducer::reopen`]
    /// settles it either way; the group's committed offsets tell which.
    Unknown,
}

/// A record as it goes to Kafka.
struct Ready<'a> {
    record: &'a OutRecord,
    name: String,
    framed: Framed<'a>,
}

/// A producer with a transactional id; creating it fences the last process with the same id and aborts what it
/// left open. Blocking: it lives on a thread of its own.
pub struct BatchProducer {
    client: Arc<ThreadedProducer<Deliveries>>,
    settings: KafkaSettings,
    role: String,
    /// Where topics ended before this producer wrote to them.
    ends: BTreeMap<Topic, BTreeMap<i32, i64>>,
}

/// Remembers the first record of a batch that the broker refused.
#[derive(Default)]
struct Deliveries {
    refused: Mutex<Option<KafkaError>>,
}

impl Deliveries {
    fn refused(&self) -> std::sync::MutexGuard<'_, Option<KafkaError>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.refused().get_or_insert_with(|| error.clone());
        }
    }
}

impl BatchProducer {
    /// Opens the producer `<prefix>-<instance>-<role>` and takes over its transactional id.
    pub fn open(settings: &KafkaSettings, role: &str) -> Result<Self, KafkaFailure> {
        let producer = Self {
            client: Arc::new(client(settings, role)?),
            settings: settings.clone(),
            role: role.to_owned(),
            ends: BTreeMap::new(),
        };
        producer
            .begin(BROKER_TIMEOUT)
            .map_err(|error| producer.call("starting transactions", error))?;
        Ok(producer)
    }

    /// Makes the client anew after [`Committed::Unknown`]. `false`: not possible now.
    pub fn reopen(&mut self) -> Result<bool, KafkaFailure> {
        self.client = Arc::new(client(&self.settings, &self.role)?);
        match self.begin(CALL) {
            Ok(()) => Ok(true),
            Err(error) if is_permanent(&error) => Err(self.call("starting transactions", error)),
            Err(error) => {
                tracing::warn!(%error, "the producer cannot be made anew; trying again");
                Ok(false)
            }
        }
    }

    fn begin(&self, timeout: Duration) -> Result<(), KafkaError> {
        match self.settings.delivery {
            Delivery::ExactlyOnce => self.client.init_transactions(timeout),
            Delivery::AtLeastOnce => Ok(()),
        }
    }

    /// Publishes `records` together.
    pub fn publish<'a>(
        &self,
        records: impl IntoIterator<Item = &'a OutRecord>,
    ) -> Result<Committed, KafkaFailure> {
        self.publish_with(records, None::<(&TopicPartitionList, &BaseConsumer)>)
    }

    /// Publishes `records` together, once, whatever becomes of the connection: up to `tries` times where they are not in.
    /// Where it is not known, the topic of the last record is asked whether that record is. Blocking.
    pub fn publish_once(&mut self, tries: u32, records: &[OutRecord]) -> Result<(), KafkaFailure> {
        let Some(last) = records.last() else {
            return Ok(());
        };
        self.remember_end(last.topic)?;
        for attempt in 0..tries {
            if attempt > 0 {
                std::thread::sleep(PAUSE);
            }
            match self.publish(records)? {
                Committed::Yes => return Ok(()),
                Committed::Aborted => {}
                Committed::Unknown if self.settle(last)? => return Ok(()),
                Committed::Unknown => {}
            }
        }
        Err(KafkaFailure::Aborted {
            bootstrap: self.settings.bootstrap.clone(),
        })
    }

    /// Remembers where a topic ends, so that [`BatchProducer::settle`] knows from where on to look.
    pub fn remember_end(&mut self, topic: Topic) -> Result<(), KafkaFailure> {
        if self.ends.contains_key(&topic) {
            return Ok(());
        }
        let name = topic.name(&self.settings.prefix);
        let ends = super::ends(self.client.client(), &name, &self.settings)?;
        self.ends.insert(topic, ends);
        Ok(())
    }

    /// After [`Committed::Unknown`]: makes the client anew, which ends the batch either way, and says whether a record of
    /// it, of a topic whose end was remembered, is in.
    pub fn settle(&mut self, record: &OutRecord) -> Result<bool, KafkaFailure> {
        let give_up = Instant::now() + BROKER_TIMEOUT;
        while !self.reopen()? {
            if Instant::now() >= give_up {
                let bootstrap = self.settings.bootstrap.clone();
                return Err(KafkaFailure::Silent { bootstrap });
            }
            std::thread::sleep(PAUSE);
        }
        let ends = self.ends.get(&record.topic).cloned();
        let mut is_in = false;
        read_to_end(
            &self.settings,
            record.topic,
            &ends.map_or(Start::Beginning, Start::Offsets),
            |read| {
                is_in = read.id == record.id;
                Ok::<_, KafkaFailure>(match is_in {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                })
            },
        )?;
        Ok(is_in)
    }

    /// Publishes `records`, and commits `offsets` for the group of `consumer` with them.
    pub fn publish_answering<'a, C: ConsumerContext>(
        &self,
        records: impl IntoIterator<Item = &'a OutRecord>,
        offsets: &TopicPartitionList,
        consumer: &BaseConsumer<C>,
    ) -> Result<Committed, KafkaFailure> {
        self.publish_with(records, Some((offsets, consumer)))
    }

    fn publish_with<'a, C: ConsumerContext>(
        &self,
        records: impl IntoIterator<Item = &'a OutRecord>,
        offsets: Option<(&TopicPartitionList, &BaseConsumer<C>)>,
    ) -> Result<Committed, KafkaFailure> {
        // Before anything is begun: a record that cannot be written leaves no transaction open.
        let records = records
            .into_iter()
            .map(|record| self.framed(record))
            .collect::<Result<Vec<_>, _>>()?;
        let records = records.as_slice();
        let begun = Instant::now();
        self.client.context().refused().take();
        match self.settings.delivery {
            Delivery::ExactlyOnce => match self.transaction(records, offsets) {
                Ok(committed) => Ok(committed),
                Err((doing, error)) => self.after_failure(doing, error, begun),
            },
            Delivery::AtLeastOnce => match self.acknowledged(records, offsets) {
                Ok(()) => Ok(Committed::Yes),
                Err((doing, error)) if is_permanent(&error) => Err(self.call(doing, error)),
                Err((doing, error)) => {
                    tracing::warn!(%error, ?doing, "the batch is sent again");
                    Ok(Committed::Aborted)
                }
            },
        }
    }

    fn framed<'a>(&self, record: &'a OutRecord) -> Result<Ready<'a>, KafkaFailure> {
        let name = record.topic.name(&self.settings.prefix);
        let schemas = &self.settings.schemas;
        let framed = schemas.frame(record.topic, &name, &record.value)?;
        Ok(Ready { record, name, framed })
    }

    fn transaction<C: ConsumerContext>(
        &self,
        records: &[Ready<'_>],
        offsets: Option<(&TopicPartitionList, &BaseConsumer<C>)>,
    ) -> Result<Committed, (Doing, KafkaError)> {
        self.client.begin_transaction().map_err(|e| (Doing::Sending, e))?;
        for record in records {
            self.enqueue(record).map_err(|e| (Doing::Sending, e))?;
        }
        if let Some((offsets, consumer)) = offsets {
            let group = consumer
                .group_metadata()
                .ok_or((Doing::Sending, KafkaError::ClientCreation("no group".to_owned())))?;
            match self.send_offsets(offsets, group) {
                Some(sent) => sent.map_err(|error| (Doing::Sending, error))?,
                None => {
                    tracing::warn!(
                        "the client waits for a coordinator that is gone; the producer is made anew"
                    );
                    return Ok(Committed::Unknown);
                }
            }
        }
        if failpoint::is_set(self.place(), "sent") {
            // The records are at the broker when the process ends, not in the client's queue.
            self.client.flush(CALL).map_err(|e| (Doing::Sending, e))?;
        }
        failpoint::pass(self.place(), "sent");
        if failpoint::loses(self.place(), "request") {
            return Ok(Committed::Unknown);
        }
        self.drain(CALL);
        retriable(|| self.client.commit_transaction(CALL)).map_err(|e| (Doing::Committing, e))?;
        Ok(match failpoint::loses(self.place(), "answer") {
            true => Committed::Unknown,
            false => Committed::Yes,
        })
    }

    /// Sends offsets with the transaction; `None` where the client does not come back.
    ///
    /// librdkafka waits without end for a group coordinator that has left the cluster, whatever time it was given (its
    /// issues 5456 and 5511), and a call that waits cannot be taken back. It is made on a thread of its own, which is
    /// left to itself with the client: whatever the two still do is fenced by the client that takes their place.
    fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: ConsumerGroupMetadata,
    ) -> Option<Result<(), KafkaError>> {
        let (answer, answered) = sync_channel(1);
        let (client, offsets, place) = (Arc::clone(&self.client), offsets.clone(), self.place().to_owned());
        let call = move || {
            failpoint::pass(&place, "offsets");
            let sent = retriable(|| client.send_offsets_to_transaction(&offsets, &group, CALL));
            // Not waited for any more: nobody needs the answer.
            let _unheard = answer.send(sent);
        };
        let started = std::thread::Builder::new()
            .name(format!("{}-offsets", self.place()))
            .spawn(call);
        if let Err(error) = started {
            tracing::warn!(%error, "a thread cannot be started");
            return None;
        }
        // The repeated call and one more.
        answered.recv_timeout(TRANSACTION_TIMEOUT + 2 * CALL).ok()
    }

    /// Waits until the broker has answered every record, or for `timeout`: a flush after it has nothing to wait for. One
    /// that has looks again every 100 ms only, which is longer than most batches take.
    fn drain(&self, timeout: Duration) {
        let give_up = Instant::now() + timeout;
        while self.client.in_flight_count() > 0 && Instant::now() < give_up {
            std::thread::sleep(DRAIN_LOOK);
        }
    }

    fn acknowledged<C: ConsumerContext>(
        &self,
        records: &[Ready<'_>],
        offsets: Option<(&TopicPartitionList, &BaseConsumer<C>)>,
    ) -> Result<(), (Doing, KafkaError)> {
        for record in records {
            self.enqueue(record).map_err(|e| (Doing::Sending, e))?;
        }
        self.drain(BROKER_TIMEOUT);
        self.client
            .flush(BROKER_TIMEOUT)
            .map_err(|e| (Doing::Sending, e))?;
        if let Some(error) = self.client.context().refused().take() {
            return Err((Doing::Sending, error));
        }
        failpoint::pass(self.place(), "sent");
        match offsets {
            Some((offsets, consumer)) => consumer
                .commit(offsets, CommitMode::Sync)
                .map_err(|e| (Doing::Committing, e)),
            None => Ok(()),
        }
    }

    /// The role without what names one of several of its producers.
    fn place(&self) -> &str {
        self.role.split('-').next().unwrap_or_default()
    }

    fn enqueue(&self, ready: &Ready<'_>) -> Result<(), KafkaError> {
        let Ready { record, name, framed } = ready;
        let time = crate::clock::rfc3339_now();
        let begins_trace = record.headers.iter().all(|(key, _)| *key != TRACEPARENT);
        let trace = begins_trace.then(|| traceparent(None, &record.id));
        let fixed = [
            ("ce_specversion", "1.0"),
            ("ce_id", record.id.as_str()),
            ("ce_type", &*record.kind),
            ("ce_source", "wellspring"),
            ("ce_time", time.as_str()),
            ("content-type", framed.content_type),
        ];
        let more = record.headers.iter().map(|(key, value)| (*key, value.as_str()));
        let schema = framed.schema.as_deref().map(|schema| ("ce_dataschema", schema));
        let trace = trace.as_deref().map(|trace| (TRACEPARENT, trace));
        let mut headers = OwnedHeaders::new_with_capacity(fixed.len() + record.headers.len() + 2);
        for (key, value) in fixed.into_iter().chain(schema).chain(trace).chain(more) {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        let mut message = BaseRecord::to(name)
            .key(&record.key)
            .payload(framed.value.as_ref())
            .headers(headers);
        if let Some(partition) = record.partition {
            message = message.partition(partition);
        }
        let give_up = Instant::now() + BROKER_TIMEOUT;
        loop {
            match self.client.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < give_up =>
                {
                    // The client's own thread empties its queue; waiting here is the backpressure.
                    message = back;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn after_failure(
        &self,
        doing: Doing,
        error: KafkaError,
        begun: Instant,
    ) -> Result<Committed, KafkaFailure> {
        let first_refused = self.client.context().refused().take();
        if let Some(refused) = first_refused.filter(is_permanent) {
            return Err(self.call(Doing::Sending, refused));
        }
        if is_permanent(&error) {
            return Err(self.call(doing, error));
        }
        if is_fenced(&error) {
            // The broker itself fences a producer whose transaction took too long. In less time only another process
            // can have taken the name.
            if begun.elapsed() < TRANSACTION_TIMEOUT {
                return Err(KafkaFailure::Fenced {
                    instance: self.settings.instance.clone(),
                });
            }
            tracing::warn!("a transaction outlived its timeout; the producer is made anew");
            return Ok(Committed::Unknown);
        }
        let fatal = match &error {
            KafkaError::Transaction(error) => error.is_fatal(),
            KafkaError::MessageProduction(code) => *code == RDKafkaErrorCode::Fatal,
            _ => false,
        };
        let timed_out = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
        if fatal || (timed_out && doing == Doing::Committing) {
            tracing::warn!(%error, "the transaction's end is not known; the producer is made anew");
            return Ok(Committed::Unknown);
        }
        tracing::warn!(%error, "transaction aborted; it will be tried again");
        match retriable(|| self.client.abort_transaction(CALL)) {
            Ok(()) => Ok(Committed::Aborted),
            Err(error) => {
                tracing::warn!(%error, "the transaction cannot be aborted; the producer is made anew");
                Ok(Committed::Unknown)
            }
        }
    }

    fn call(&self, doing: impl Into<&'static str>, source: KafkaError) -> KafkaFailure {
        self.settings.failed(doing.into())(source)
    }
}

/// Repeats a call that librdkafka says may be repeated, for as long as a transaction may stay open.
fn retriable(call: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let give_up = Instant::now() + TRANSACTION_TIMEOUT;
    loop {
        match call() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < give_up => {
                tracing::debug!(%error, "transaction call repeated");
                std::thread::sleep(Duration::from_millis(100));
            }
            result => return result,
        }
    }
}

/// What a batch failed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Sending,
    Committing,
}

impl From<Doing> for &'static str {
    fn from(doing: Doing) -> Self {
        match doing {
            Doing::Sending => "publishing records",
            Doing::Committing => "committing records with their offsets",
        }
    }
}

fn client(settings: &KafkaSettings, role: &str) -> Result<ThreadedProducer<Deliveries>, KafkaFailure> {
    let mut config = settings.config();
    config
        .set("partitioner", PARTITIONER)
        .set("compression.type", "lz4")
        .set("linger.ms", "5")
        .set("queue.buffering.max.kbytes", "32768")
        .set("message.max.bytes", "20000000");
    match settings.delivery {
        Delivery::ExactlyOnce => {
            let ms = TRANSACTION_TIMEOUT.as_millis();
            config
                .set(
                    "transactional.id",
                    format!("{}-{}-{role}", settings.prefix, settings.instance),
                )
                .set("transaction.timeout.ms", ms.to_string())
                // While the broker ends one transaction it refuses the next one's first requests, for milliseconds; the
                // client would wait for 100.
                .set("retry.backoff.ms", "10")
                .set("message.timeout.ms", (ms - 500).to_string());
        }
        Delivery::AtLeastOnce => {
            config.set("acks", "all").set("message.timeout.ms", "25000");
        }
    }
    config
        .create_with_context(Deliveries::default())
        .map_err(settings.failed("creating a producer"))
}

fn is_fenced(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
                | RDKafkaErrorCode::FencedInstanceId
        )
    )
}

/// What no further try can help: rights, sizes, topics that are not there, brokers without transactions.
fn is_permanent(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::UnsupportedFeature
                | RDKafkaErrorCode::UnsupportedVersion
                | RDKafkaErrorCode::InvalidTransactionTimeout
        )
    )
}
