//! What is said to an external step, and what it answers: JSON, in the same form for commands, web services and topics.
//!
//! A field enters and a [`Request`] leaves; text enters and an [`Answer`] leaves, or why it is none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wellspring_workloads::screen::graph::{EMBED, IMAGES, NUCLEI, QUALITY};
use wellspring_workloads::screen::{ExternalStep, nearest_column};
use wellspring_workloads::words::{Barcode, Channel, WellPosition};

use crate::clock::now_ms;
use crate::events::RunId;
use crate::fields::Embedded;
use crate::ids;

/// Longest answer, in bytes.
pub const MOST_BYTES: usize = 16 << 20;

/// The images of one channel of the field.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestImages {
    /// The channel.
    pub channel: Channel,
    /// Its planes in z order, as URIs of the image store (`file:///...`, `s3://...`).
    pub uris: Vec<String>,
}

/// One field of view to be measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Request {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: String,
    /// The plate.
    pub plate: Barcode,
    /// The well.
    pub well: WellPosition,
    /// The field of view, as numbered in the file names.
    pub field: u32,
    /// The images, in the screen's channel order, where the step asks for `images`.
    pub images: Vec<RequestImages>,
    /// The other inputs by name: `quality` (per channel its measures), `nuclei` (a count), `embed` (a list of numbers, as
    /// those of other networks), or the columns of another step.
    pub inputs: Map<String, Value>,
    /// The numbers that are wanted.
    pub columns: Vec<String>,
    /// Counts from 1.
    pub attempt: u32,
    /// When the answer is not waited for any more, in milliseconds since 1970 UTC.
    pub deadline_ms: u64,
    /// Names this attempt; the answer repeats it.
    pub correlation_id: String,
    /// Names the work: the same images and the same step have the same id, at every attempt and after every crash.
    pub idempotency_id: String,
}

impl Request {
    /// The request of a step for a field; `answers` are those of other steps so far, by their place in the screen.
    pub fn new(field: &Embedded, step: &ExternalStep, answers: &[Option<Vec<f32>>]) -> Self {
        let task = &field.task;
        let store = field.run.store.uri();
        let mut images = Vec::new();
        let mut inputs = Map::new();
        for input in &step.inputs {
            let value = match input.as_str() {
                IMAGES => {
                    images = task
                        .images
                        .iter()
                        .map(|channel| RequestImages {
                            channel: channel.channel.clone(),
                            uris: channel
                                .planes
                                .iter()
                                .map(|plane| uri(store, &plane.path))
                                .collect(),
                        })
                        .collect();
                    continue;
                }
                QUALITY => quality(field),
                NUCLEI => json!(
                    field
                        .quality
                        .iter()
                        .flat_map(|channel| &channel.measures)
                        .find_map(|(name, count)| (name == crate::quality::NUCLEI).then_some(count))
                ),
                EMBED => network(field, 0),
                name => other_step(field, name, answers),
            };
            inputs.insert(input.clone(), value);
        }
        Self {
            run: task.run.clone(),
            step: step.name.clone(),
            plate: task.field.plate.clone(),
            well: task.field.well,
            field: task.field.field,
            images,
            inputs,
            columns: step.columns.clone(),
            attempt: 0,
            deadline_ms: 0,
            correlation_id: String::new(),
            idempotency_id: ids::of_field(&task.run, &task.field, &step.name, &ids::content_of_task(task)),
        }
    }

    /// Makes it the request of an attempt that begins now.
    pub fn begin(&mut self, attempt: u32, step: &ExternalStep) {
        self.attempt = attempt;
        self.deadline_ms = now_ms().saturating_add(step.deadline_ms);
        self.correlation_id = format!("{}#{attempt}", self.idempotency_id);
    }

    /// As JSON, on one line.
    pub fn to_line(&self) -> String {
        // Strings and finite numbers always serialise; NaN becomes null.
        json!(self).to_string()
    }
}

/// Measures per channel; those that are not finite are null.
fn quality(field: &Embedded) -> Value {
    let channels = field.quality.iter().map(|channel| {
        let measures = channel
            .measures
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)));
        let measures: Map<String, Value> = measures.collect();
        (channel.channel.to_string(), Value::Object(measures))
    });
    Value::Object(channels.collect())
}

/// The embedding of one of the run's networks.
fn network(field: &Embedded, index: usize) -> Value {
    let networks = &field.run.networks;
    let start: usize = networks.iter().take(index).map(|network| network.width).sum();
    let width = networks.get(index).map_or(0, |network| network.width);
    json!(field.embedding.get(start..start + width))
}

fn other_step(field: &Embedded, name: &str, answers: &[Option<Vec<f32>>]) -> Value {
    // The first one is called `embed` as an input.
    let others = field.run.networks.iter().skip(1);
    if let Some(index) = others.into_iter().position(|network| network.name == name) {
        return network(field, index + 1);
    }
    let steps = field.run.screen.steps.iter().zip(answers);
    let found = steps.into_iter().find(|(step, _)| step.name == name);
    let Some((step, Some(values))) = found else {
        return Value::Null;
    };
    let columns = step
        .columns
        .iter()
        .cloned()
        .zip(values.iter().map(|value| json!(value)));
    Value::Object(columns.collect())
}

/// A path below a store as a URI; what may not stand in one is percent-encoded, as in RFC 3986.
fn uri(store: &str, path: &str) -> String {
    let joined = format!("{}/{path}", store.trim_end_matches('/'));
    let local = match joined.strip_prefix("file://") {
        Some(local) => local,
        None if joined.contains("://") => return joined,
        None => &joined,
    };
    let mut uri = "file://".to_owned();
    for byte in local.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

/// What an external step says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Answer {
    /// That of the request.
    #[serde(default)]
    pub correlation_id: Option<String>,
    /// The numbers, by column.
    #[serde(default)]
    features: Option<BTreeMap<String, Value>>,
    /// Why there are none.
    #[serde(default)]
    error: Option<String>,
    /// Whether asking again may help.
    #[serde(default)]
    retry: bool,
    /// No answer yet: it is being worked on.
    #[serde(default)]
    heartbeat: bool,
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It is not JSON, or not of this form.
    #[error("the answer cannot be read ({source}): {text}; messages for people belong on standard error")]
    Unreadable {
        /// Its beginning.
        text: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The step says that it cannot.
    #[error("the step refused: {message}")]
    Refused {
        /// What it said.
        message: String,
        /// Whether asking again may help.
        retry: bool,
    },
    /// It has neither features nor an error.
    #[error("the answer has neither 'features' nor 'error'")]
    Empty,
    /// A column is missing.
    #[error("the answer has no column '{column}'")]
    Missing {
        /// The column.
        column: String,
    },
    /// A column was not asked for.
    #[error("the answer has a column '{column}' that the screen does not name{}", match nearest { Some(name) => format!("; did it mean '{name}'?"), None => String::new() })]
    Unknown {
        /// The column.
        column: String,
        /// The nearest of those that were.
        nearest: Option<String>,
    },
    /// A column is not a number.
    #[error("column '{column}' of the answer is {value}: expected a finite number")]
    NotANumber {
        /// The column.
        column: String,
        /// What it is.
        value: String,
    },
    /// It is too long.
    #[error("the answer has more than {} MiB", MOST_BYTES >> 20)]
    TooLong,
}

impl Answer {
    /// Reads one.
    ///
    /// # Errors
    /// [`AnswerError::Unreadable`].
    pub fn read(text: &str) -> Result<Self, AnswerError> {
        serde_json::from_str(text).map_err(|source| AnswerError::Unreadable {
            text: text.chars().take(200).collect(),
            source,
        })
    }

    /// Whether it only says that the request is being worked on.
    pub fn is_heartbeat(&self) -> bool {
        self.heartbeat && self.features.is_none() && self.error.is_none()
    }

    /// The work it answers: its correlation id without the attempt.
    pub fn idempotency_id(&self) -> Option<&str> {
        let id = self.correlation_id.as_deref()?;
        Some(id.rsplit_once('#').map_or(id, |(work, _)| work))
    }

    /// Whether it belongs to a request: to any attempt at the same work.
    pub fn is_of(&self, request: &Request) -> bool {
        self.idempotency_id() == Some(request.idempotency_id.as_str())
    }

    /// The numbers in the order of the step's columns.
    ///
    /// # Errors
    /// A refusal, or columns that are not those of the step.
    pub fn columns(self, step: &ExternalStep) -> Result<Vec<f32>, AnswerError> {
        if let Some(message) = self.error {
            let retry = self.retry;
            let message = message.chars().take(1_000).collect();
            return Err(AnswerError::Refused { message, retry });
        }
        let features = self.features.ok_or(AnswerError::Empty)?;
        if let Some(column) = features.keys().find(|column| !step.columns.contains(column)) {
            let nearest = nearest_column(step, column).map(str::to_owned);
            let column = column.chars().take(80).collect();
            return Err(AnswerError::Unknown { column, nearest });
        }
        step.columns
            .iter()
            .map(|column| {
                let value = features.get(column);
                let value = value.ok_or_else(|| AnswerError::Missing {
                    column: column.clone(),
                })?;
                let number = value.as_f64().map(|number| number as f32);
                number
                    .filter(|number| number.is_finite())
                    .ok_or_else(|| AnswerError::NotANumber {
                        column: column.clone(),
                        value: value.to_string().chars().take(80).collect(),
                    })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> ExternalStep {
        let text = r#"{"name": "spots", "kind": "external", "inputs": ["images"], "columns": ["count", "area"],
            "deadline_ms": 1000, "attempts": 1, "backoff_ms": 1, "heartbeat_ms": null, "in_flight": 1,
            "service": {"command": {"command": ["x"]}}}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn answers_are_numbers_in_the_order_of_the_screen_or_say_what_is_wrong() {
        let columns = |text: &str| Answer::read(text).and_then(|answer| answer.columns(&step()));
        let good = columns(r#"{"correlation_id": "a#1", "features": {"area": 2.5, "count": 3}}"#);
        assert_eq!(good.unwrap(), [3.0, 2.5]);
        for (text, part) in [
            ("Loading the model", "belong on standard error"),
            (r#"{"features": {"area": NaN, "count": 3}}"#, "cannot be read"),
            (r#"{"features": {"area": 2.5}}"#, "no column 'count'"),
            (
                r#"{"features": {"area": 2.5, "cuont": 1}}"#,
                "did it mean 'count'?",
            ),
            (
                r#"{"features": {"area": null, "count": 3}}"#,
                "'area' of the answer is null",
            ),
            (
                r#"{"features": {"area": "2", "count": 3}}"#,
                "'area' of the answer is \"2\"",
            ),
            (
                r#"{"features": {"area": 1e300, "count": 3}}"#,
                "expected a finite number",
            ),
            (r#"{"error": "no cells"}"#, "refused: no cells"),
            ("{}", "neither 'features' nor 'error'"),
        ] {
            let error = columns(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn any_attempt_at_the_work_is_its_answer_and_no_other() {
        let answer = |id: &str| Answer::read(&format!("{{\"correlation_id\": \"{id}\"}}")).unwrap();
        assert_eq!(
            answer("r/P/A01/1/spots/c#2").idempotency_id(),
            Some("r/P/A01/1/spots/c")
        );
        assert_eq!(answer("r/P#1/A01#3").idempotency_id(), Some("r/P#1/A01"));
        assert!(Answer::read("{\"heartbeat\": true}").unwrap().is_heartbeat());
        assert!(
            !Answer::read("{\"heartbeat\": true, \"error\": \"x\"}")
                .unwrap()
                .is_heartbeat()
        );
    }

    #[test]
    fn paths_become_uris_that_any_client_reads_back() {
        assert_eq!(
            uri("/lab/images", "P 1/a#1.tif"),
            "file:///lab/images/P%201/a%231.tif"
        );
        assert_eq!(uri("file:///lab/", "é.tif"), "file:///lab/%C3%A9.tif");
        assert_eq!(uri("s3://bucket/x", "P1/a b.tif"), "s3://bucket/x/P1/a b.tif");
    }
}
