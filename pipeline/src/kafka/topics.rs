//! The topics: their names, partitions and retention, and creating them.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use serde::{Deserialize, Serialize};

use super::{BROKER_TIMEOUT, KafkaFailure, KafkaSettings};

/// Delays that failed work can wait for, one after the other: each has a partition of the retries topic.
pub const MAX_RETRIES: u8 = 7;
/// The partition of the retries topic for work of paused runs.
pub const PARKED: i32 = MAX_RETRIES as i32;

/// A topic of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Plate-ready events.
    Plates,
    /// Those of them that the batch lane is to take, written by the planner, which has seen that they are new.
    BatchPlates,
    /// One record per field of view to embed.
    Tasks,
    /// The same of the batch lane.
    BatchTasks,
    /// One record per embedded field of view.
    Features,
    /// One record per well.
    Profiles,
    /// One record per compound, dose and disease model, and one per compound and disease model.
    Comparisons,
    /// What failed and waits to be tried again; one partition for each delay.
    Retries,
    /// What failed for good.
    DeadLetters,
    /// What became of runs and plates.
    Status,
}

impl Topic {
    /// All topics.
    pub const ALL: [Topic; 10] = [
        Topic::Plates,
        Topic::BatchPlates,
        Topic::Tasks,
        Topic::BatchTasks,
        Topic::Features,
        Topic::Profiles,
        Topic::Comparisons,
        Topic::Retries,
        Topic::DeadLetters,
        Topic::Status,
    ];

    /// The name without the installation's prefix.
    pub fn suffix(self) -> &'static str {
        match self {
            Topic::Plates => "plates",
            Topic::BatchPlates => "plates-batch",
            Topic::Tasks => "tasks",
            Topic::BatchTasks => "tasks-batch",
            Topic::Features => "features",
            Topic::Profiles => "profiles",
            Topic::Comparisons => "comparisons",
            Topic::Retries => "retries",
            Topic::DeadLetters => "dead-letters",
            Topic::Status => "status",
        }
    }

    /// The full name under `prefix`.
    pub fn name(self, prefix: &str) -> String {
        format!("{prefix}.{}", self.suffix())
    }

    /// The topic with this full name.
    pub fn from_name(prefix: &str, name: &str) -> Option<Topic> {
        Topic::from_suffix(name.strip_prefix(prefix)?.strip_prefix('.')?)
    }

    /// The topic with this name without prefix.
    pub fn from_suffix(suffix: &str) -> Option<Topic> {
        Topic::ALL.into_iter().find(|topic| topic.suffix() == suffix)
    }

    /// The topic whose records, and so whose schema, this one has.
    pub fn records(self) -> Topic {
        match self {
            Topic::BatchPlates => Topic::Plates,
            Topic::BatchTasks => Topic::Tasks,
            other => other,
        }
    }

    /// Partitions made when the topic is created: the most workers that can share it.
    pub(super) fn partitions(self) -> i32 {
        match self {
            // Of the batch lane's plates, each run has one.
            Topic::Tasks | Topic::BatchTasks | Topic::BatchPlates => 32,
            Topic::Plates => 4,
            Topic::Features | Topic::Profiles | Topic::Comparisons => 8,
            Topic::Retries => PARKED + 1,
            // One partition: runs are submitted, planned and finished in one order for every reader.
            Topic::DeadLetters | Topic::Status => 1,
        }
    }
}

/// How urgent a plate's work is. Each urgency has topics of its own, so that what is urgent waits behind nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Plates as they come from the microscope.
    #[default]
    Live,
    /// Plates that are worked on when no live plate waits, and a little beside them: reruns.
    Batch,
}

impl Urgency {
    /// Both, the more urgent first.
    pub const ALL: [Urgency; 2] = [Urgency::Live, Urgency::Batch];

    /// Where its plates are read from to be planned.
    pub fn plates(self) -> Topic {
        match self {
            Urgency::Live => Topic::Plates,
            Urgency::Batch => Topic::BatchPlates,
        }
    }

    /// The role that plans its plates.
    pub fn planner(self) -> &'static str {
        match self {
            Urgency::Live => "planner",
            Urgency::Batch => "planner-batch",
        }
    }

    /// The role that works on its tasks.
    pub fn worker(self) -> &'static str {
        match self {
            Urgency::Live => "worker",
            Urgency::Batch => "worker-batch",
        }
    }

    /// Where the tasks of its plates are.
    pub fn tasks(self) -> Topic {
        match self {
            Urgency::Live => Topic::Tasks,
            Urgency::Batch => Topic::BatchTasks,
        }
    }
}

/// Creates the topics that do not exist yet; existing ones are left as they are. Learns the ids of their schemas where a
/// registry is configured, so that one that is away or refuses is an error now and not in mid-work.
pub async fn create_missing(settings: &KafkaSettings) -> Result<(), KafkaFailure> {
    let admin: AdminClient<DefaultClientContext> = settings
        .config()
        .create()
        .map_err(settings.failed("creating an admin client"))?;
    let names: Vec<String> = Topic::ALL
        .iter()
        .map(|topic| topic.name(&settings.prefix))
        .collect();
    let topics: Vec<NewTopic<'_>> = Topic::ALL
        .iter()
        .zip(&names)
        .map(|(topic, name)| {
            // The broker's default replication factor: one on a laptop, three on a proper cluster.
            NewTopic::new(name, topic.partitions(), TopicReplication::Fixed(-1))
                // A rerun replays the log, so nothing expires unless an operator decides so.
                .set("retention.ms", "-1")
        })
        .collect();
    let results = admin
        .create_topics(&topics, &options())
        .await
        .map_err(settings.failed("creating topics"))?;
    there_now(results)?;
    settings.schemas.register(&settings.prefix)?;
    Ok(())
}

/// The same for what goes on with something: where nothing was ever submitted, nothing is created.
///
/// # Errors
/// As [`create_missing`]; [`KafkaFailure::NoTopic`] where there is no installation of this prefix.
pub async fn complete(settings: &KafkaSettings) -> Result<(), KafkaFailure> {
    let client: BaseConsumer = settings
        .config()
        .create()
        .map_err(settings.failed("creating a client"))?;
    super::partitions(client.client(), &Topic::Status.name(&settings.prefix), settings)?;
    create_missing(settings).await
}

/// How long a broker may take over what an admin client asks.
pub(super) fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(BROKER_TIMEOUT))
        .operation_timeout(Some(Duration::from_secs(20)))
}

/// Whether every topic that was to be created is there, made now or before.
pub(super) fn there_now(created: Vec<TopicResult>) -> Result<(), KafkaFailure> {
    for answer in created {
        match answer {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(KafkaFailure::CreateTopic {
                    topic,
                    reason: code.to_string(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_found_by_its_name_and_by_no_other_prefix() {
        for topic in Topic::ALL {
            assert_eq!(Topic::from_name("lab", &topic.name("lab")), Some(topic));
            assert_eq!(Topic::from_name("la", &topic.name("lab")), None);
        }
    }
}
