//! A pair of topics by which an external step is asked: requests on the one, answers on the other, both JSON.
//!
//! Requests enter and answers leave. Whoever asks holds the record it asks for, so nothing is committed here: an answer is
//! awaited by its idempotency id, the first one counts, and others (of an earlier attempt, a second time, of a request of
//! another worker) are passed over. Every worker reads all answers from where the topic ended when it began to ask. What
//! fails: Kafka, and a service that does not answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::admin::{AdminClient, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::topics::Topic;
use super::{KafkaFailure, KafkaSettings};
use crate::external::ExternalError;
use crate::external::answer::Answer;
use crate::external::protocol::Request;
use crate::external::services::Patience;

/// Partitions of a topic that is made here: the most services that can share it.
const PARTITIONS: i32 = 8;
/// Answers and heartbeats to one request that wait to be looked at.
const WAITING: usize = 16;

/// Who waits for what.
#[derive(Default)]
struct Waiting {
    by_work: Mutex<HashMap<String, Waits>>,
    stop: AtomicBool,
    /// How many have begun to wait.
    count: AtomicU64,
}

struct Waits {
    to: mpsc::Sender<Answer>,
    /// Of those that wait for the same answer, the last one gets it.
    number: u64,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waits>> {
        self.by_work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an answer to whoever waits for it.
    fn take(&self, value: &[u8]) {
        let text = String::from_utf8_lossy(value);
        let answer = match Answer::read(&text) {
            Ok(answer) => answer,
            Err(error) => {
                let message = crate::error::chain(&error);
                tracing::warn!(message, "a record on a topic of answers is passed over");
                return;
            }
        };
        let waits = answer
            .idempotency_id()
            .and_then(|id| Some(self.lock().get(id)?.to.clone()));
        match waits {
            // Enough of them wait: one place is the answer's, which is not sent again.
            Some(waits) if answer.is_heartbeat() && waits.capacity() < 2 => {}
            Some(waits) => drop(waits.try_send(answer)),
            None => tracing::debug!(
                id = answer.correlation_id,
                "an answer nobody waits for is passed over"
            ),
        }
    }
}

/// A pair of topics.
pub struct Exchange {
    producer: FutureProducer,
    requests: String,
    waiting: Arc<Waiting>,
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    /// Begins to follow the answers. Blocking.
    ///
    /// # Errors
    /// Kafka cannot be reached, or refuses.
    pub fn open(kafka: &KafkaSettings, requests: &str, responses: &str) -> Result<Self, KafkaFailure> {
        for name in [requests, responses] {
            if Topic::from_name(&kafka.prefix, name).is_some() {
                let topic = name.to_owned();
                return Err(KafkaFailure::OwnTopic { topic });
            }
        }
        let mut config = kafka.config();
        config.set("enable.idempotence", "true");
        let producer = config
            .create()
            .map_err(kafka.failed("creating a producer of requests"))?;
        let consumer = at_end(kafka, responses)?;
        let waiting = Arc::new(Waiting::default());
        let (follows, topic) = (waiting.clone(), responses.to_owned());
        let thread = std::thread::Builder::new()
            .name("answers".to_owned())
            .spawn(move || {
                while !follows.stop.load(Ordering::Relaxed) {
                    match consumer.poll(Duration::from_millis(200)) {
                        Some(Ok(message)) => follows.take(message.payload().unwrap_or_default()),
                        None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                        Some(Err(error)) => {
                            tracing::warn!(%error, topic, "reading answers; the client tries again")
                        }
                    }
                }
            })?;
        Ok(Self {
            producer,
            requests: requests.to_owned(),
            waiting,
            thread: Some(thread),
        })
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// The request cannot be published, or no answer comes in time.
    pub async fn ask(&self, request: &Request, patience: Patience) -> Result<Answer, ExternalError> {
        let (to, mut answers) = mpsc::channel(WAITING);
        let work = request.idempotency_id.clone();
        let number = self.waiting.count.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().insert(work.clone(), Waits { to, number });
        // Also where the one who asks is gone: nothing stays behind.
        let _until_answered = Forget {
            waiting: &self.waiting,
            work: &work,
            number,
        };
        let value = request.to_line();
        let key = request.key();
        let header = |key, value| Header {
            key,
            value: Some(value),
        };
        let headers = OwnedHeaders::new()
            .insert(header("ce_id", request.idempotency_id.as_str()))
            .insert(header("ce_type", "wellspring.external-request.v1"))
            .insert(header(
                "wellspring-correlation-id",
                request.correlation_id.as_str(),
            ));
        let record = FutureRecord::to(&self.requests)
            .key(&key)
            .payload(&value)
            .headers(headers);
        let (left, _) = patience.next();
        if let Err((source, _)) = self.producer.send(record, left).await {
            let (doing, bootstrap) = ("publishing a request", self.requests.clone());
            return Err(KafkaFailure::Call {
                doing,
                bootstrap,
                source,
            }
            .into());
        }
        loop {
            let (wait, late) = patience.next();
            match tokio::time::timeout(wait, answers.recv()).await {
                Ok(Some(answer)) if answer.is_heartbeat() => {}
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => return Err(ExternalError::Gone),
                Err(_) => return Err(late),
            }
        }
    }
}

/// Takes a request off the list of those that are waited for.
struct Forget<'a> {
    waiting: &'a Waiting,
    work: &'a str,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock();
        if waiting
            .get(self.work)
            .is_some_and(|waits| waits.number == self.number)
        {
            waiting.remove(self.work);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.waiting.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that follows answers panicked");
        }
    }
}

/// A reader of a topic from where it ends now. The offsets are asked for before anything is requested, so that no answer
/// can come before the reader.
fn at_end(kafka: &KafkaSettings, topic: &str) -> Result<BaseConsumer, KafkaFailure> {
    let mut config = kafka.consumer_config();
    // librdkafka wants a group name even where none is joined.
    config.set("group.id", format!("{}-answers-unused", kafka.prefix));
    let consumer: BaseConsumer = config
        .create()
        .map_err(kafka.failed("creating a reader of answers"))?;
    let mut assignment = TopicPartitionList::new();
    for (partition, end) in super::ends(consumer.client(), topic, kafka)? {
        assignment
            .add_partition_offset(topic, partition, Offset::Offset(end))
            .map_err(kafka.failed("choosing where to read from"))?;
    }
    consumer
        .assign(&assignment)
        .map_err(kafka.failed("assigning partitions"))?;
    Ok(consumer)
}

/// Makes the topics of a pair that are not there.
///
/// # Errors
/// Kafka cannot be reached, or refuses.
pub async fn create_missing(kafka: &KafkaSettings, names: [&str; 2]) -> Result<(), KafkaFailure> {
    let admin: AdminClient<DefaultClientContext> = kafka
        .config()
        .create()
        .map_err(kafka.failed("creating an admin client"))?;
    let topics = names.map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(-1)));
    let created = admin.create_topics(&topics, &super::topics::options()).await;
    super::topics::there_now(created.map_err(kafka.failed("creating topics"))?)
}
