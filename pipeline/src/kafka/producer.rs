//! The transactional producer: a batch of records, and the offsets they answer, all or nothing.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::{BROKER_TIMEOUT, KafkaFailure, KafkaSettings, OutRecord};

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// All of it is visible to read-committed consumers.
    Yes,
    /// None of it is; the same batch may be tried again.
    Aborted,
}

/// A producer with a transactional id; creating it fences the last process with the same id and aborts what it
/// left open. Blocking: it lives on a thread of its own.
pub struct TransactionalProducer {
    producer: ThreadedProducer<DefaultProducerContext>,
    settings: KafkaSettings,
}

impl TransactionalProducer {
    /// Opens the producer `<prefix>-<instance>-<role>` and takes over its transactional id.
    pub fn open(settings: &KafkaSettings, role: &str) -> Result<Self, KafkaFailure> {
        let call = |doing| {
            let bootstrap = settings.bootstrap.clone();
            move |source| KafkaFailure::Call {
                doing,
                bootstrap,
                source,
            }
        };
        let producer: ThreadedProducer<DefaultProducerContext> = settings
            .config()
            .set(
                "transactional.id",
                format!("{}-{}-{role}", settings.prefix, settings.instance),
            )
            .set("transaction.timeout.ms", "30000")
            .set("message.timeout.ms", "25000")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .set("queue.buffering.max.kbytes", "32768")
            .set("message.max.bytes", "20000000")
            .create()
            .map_err(call("creating a producer"))?;
        producer
            .init_transactions(BROKER_TIMEOUT)
            .map_err(call("starting transactions"))?;
        Ok(Self {
            producer,
            settings: settings.clone(),
        })
    }

    /// Publishes `records`, and commits `offsets` for the group of `metadata` with them, in one transaction.
    pub fn publish<'a>(
        &self,
        records: impl IntoIterator<Item = &'a OutRecord>,
        offsets: Option<(&TopicPartitionList, &ConsumerGroupMetadata)>,
    ) -> Result<Committed, KafkaFailure> {
        match self.attempt(records, offsets) {
            Ok(()) => Ok(Committed::Yes),
            Err(error) => self.after_failure(error),
        }
    }

    fn attempt<'a>(
        &self,
        records: impl IntoIterator<Item = &'a OutRecord>,
        offsets: Option<(&TopicPartitionList, &ConsumerGroupMetadata)>,
    ) -> Result<(), KafkaError> {
        self.producer.begin_transaction()?;
        for record in records {
            self.enqueue(record)?;
        }
        if let Some((offsets, metadata)) = offsets {
            self.retriable(|| {
                self.producer
                    .send_offsets_to_transaction(offsets, metadata, BROKER_TIMEOUT)
            })?;
        }
        self.retriable(|| self.producer.commit_transaction(BROKER_TIMEOUT))
    }

    fn enqueue(&self, record: &OutRecord) -> Result<(), KafkaError> {
        let name = record.topic.name(&self.settings.prefix);
        let time = crate::clock::rfc3339_now();
        let header = |key, value| Header {
            key,
            value: Some(value),
        };
        let headers = OwnedHeaders::new_with_capacity(6)
            .insert(header("ce_specversion", "1.0"))
            .insert(header("ce_id", record.id.as_str()))
            .insert(header("ce_type", record.kind))
            .insert(header("ce_source", "wellspring"))
            .insert(header("ce_time", time.as_str()))
            .insert(header("content-type", "application/json"));
        let mut message = BaseRecord::to(&name)
            .key(&record.key)
            .payload(&record.value)
            .headers(headers);
        let give_up = Instant::now() + BROKER_TIMEOUT;
        loop {
            match self.producer.send(message) {
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

    /// Repeats a call that librdkafka says may be repeated, for as long as a transaction may stay open.
    fn retriable(&self, call: impl Fn() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
        let give_up = Instant::now() + BROKER_TIMEOUT;
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

    fn after_failure(&self, error: KafkaError) -> Result<Committed, KafkaFailure> {
        let fatal = match &error {
            KafkaError::Transaction(error) => error.is_fatal(),
            KafkaError::MessageProduction(code) => *code == RDKafkaErrorCode::Fatal,
            _ => false,
        };
        if fatal || matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Fenced)) {
            tracing::debug!(%error, "producer fenced");
            let code = error.rdkafka_error_code();
            return Err(match code {
                Some(
                    RDKafkaErrorCode::Fenced
                    | RDKafkaErrorCode::ProducerFenced
                    | RDKafkaErrorCode::InvalidProducerEpoch,
                ) => KafkaFailure::Fenced {
                    instance: self.settings.instance.clone(),
                },
                _ => self.call("publishing in a transaction", error),
            });
        }
        tracing::warn!(%error, "transaction aborted; it will be tried again");
        self.retriable(|| self.producer.abort_transaction(BROKER_TIMEOUT))
            .map_err(|error| self.call("aborting a transaction", error))?;
        Ok(Committed::Aborted)
    }

    fn call(&self, doing: &'static str, source: KafkaError) -> KafkaFailure {
        KafkaFailure::Call {
            doing,
            bootstrap: self.settings.bootstrap.clone(),
            source,
        }
    }
}
