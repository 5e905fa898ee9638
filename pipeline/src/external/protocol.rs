//! What is said to an external step: JSON, in the same form for commands, web services and topics.
//!
//! A field, or what the collector asks about, enters and a [`Request`] leaves.

use serde::Serialize;
use serde_json::{Map, Value, json};
use wellspring_workloads::screen::ExternalStep;
use wellspring_workloads::screen::graph::{EMBED, IMAGES, Level, NUCLEI, QUALITY};
use wellspring_workloads::words::{Barcode, Channel, WellPosition};

use crate::clock::now_ms;
use crate::events::{ChannelImages, RunId};
use crate::fields::Embedded;
use crate::ids;

/// The images of one channel of a field.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestImages {
    /// The field, where the request is about a well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<u32>,
    /// The channel.
    pub channel: Channel,
    /// Its planes in z order, as URIs of the image store (`file:///...`, `s3://...`).
    pub uris: Vec<String>,
}

/// What a request is about: of a field all of it, of a well no field, of a plate no well, of the screen nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subject {
    /// The plate.
    pub plate: Option<Barcode>,
    /// The well.
    pub well: Option<WellPosition>,
}

/// A question to a step: one field of view to be measured, a well, a plate, or the screen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Request {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: String,
    /// What it is about one of.
    #[serde(skip_serializing_if = "Level::is_field")]
    pub level: Level,
    /// The plate, unless it is about the screen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plate: Option<Barcode>,
    /// The well, where it is about one or a field of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub well: Option<WellPosition>,
    /// The field of view, as numbered in the file names, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<u32>,
    /// The images, in the screen's channel order, where the step asks for `images`.
    pub images: Vec<RequestImages>,
    /// The other inputs by name. Of a field `quality` (per channel its measures), `nuclei` (a count), `embed` (a list of
    /// numbers, as those of other networks), or the columns of another step; else as [`super::beyond`] makes them.
    pub inputs: Map<String, Value>,
    /// The numbers that are wanted: none where the step only takes note.
    pub columns: Vec<String>,
    /// Counts from 1.
    pub attempt: u32,
    /// When the answer is not waited for any more, in milliseconds since 1970 UTC.
    pub deadline_ms: u64,
    /// Names this attempt; the answer repeats it.
    pub correlation_id: String,
    /// Names the work: the same inputs and the same step have the same id, at every attempt and after every crash.
    pub idempotency_id: String,
    /// Where the answer may be POSTed, where the step says that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
}

impl Request {
    /// The request of a step for a field; `answers` are those of other steps so far, by their place in the screen.
    pub fn of_field(field: &Embedded, step: &ExternalStep, answers: &[Option<Vec<f32>>]) -> Self {
        let task = &field.task;
        let store = field.run.store.uri();
        let mut images = Vec::new();
        let mut inputs = Map::new();
        for input in &step.inputs {
            let value = match input.as_str() {
                IMAGES => {
                    images = images_of(store, &task.images, None);
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
        let about = Subject {
            plate: Some(task.field.plate.clone()),
            well: Some(task.field.well),
        };
        let id = ids::of_field(&task.run, &task.field, &step.name, &ids::content_of_task(task));
        Self {
            field: Some(task.field.field),
            ..Self::of(&task.run, step, about, (images, inputs), id)
        }
    }

    /// The request of a step about a well, a plate or the screen; `content` is a hash of what it is given.
    pub fn beyond_fields(
        run: &RunId,
        step: &ExternalStep,
        Subject { plate, well }: Subject,
        images: Vec<RequestImages>,
        inputs: Map<String, Value>,
        content: &str,
    ) -> Self {
        let idempotency_id = match (&plate, well) {
            (Some(plate), Some(well)) => ids::of_well(run, plate, well, &step.name, content),
            (Some(plate), None) => ids::of_plate(run, plate, &step.name, content),
            (None, _) => ids::of_run(run, &step.name, content),
        };
        Self::of(
            run,
            step,
            Subject { plate, well },
            (images, inputs),
            idempotency_id,
        )
    }

    /// A request of which no attempt has begun.
    fn of(
        run: &RunId,
        step: &ExternalStep,
        Subject { plate, well }: Subject,
        (images, inputs): (Vec<RequestImages>, Map<String, Value>),
        idempotency_id: String,
    ) -> Self {
        Self {
            run: run.clone(),
            step: step.name.clone(),
            level: step.level,
            plate,
            well,
            field: None,
            images,
            inputs,
            columns: step.columns.clone(),
            attempt: 0,
            deadline_ms: 0,
            correlation_id: String::new(),
            idempotency_id,
            callback: None,
        }
    }

    /// What a topic's records about the same are keyed by.
    pub fn key(&self) -> String {
        match (&self.plate, self.well) {
            (Some(plate), Some(well)) => format!("{plate}/{well}"),
            (Some(plate), None) => plate.to_string(),
            (None, _) => self.run.clone(),
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

/// Images of a field of the store `store` as a request has them; `field`: where that is not said elsewhere.
pub(super) fn images_of(store: &str, channels: &[ChannelImages], field: Option<u32>) -> Vec<RequestImages> {
    let images = channels.iter().map(|channel| RequestImages {
        field,
        channel: channel.channel.clone(),
        uris: channel
            .planes
            .iter()
            .map(|plane| uri(store, &plane.path))
            .collect(),
    });
    images.collect()
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
    local_uri(local)
}

/// An absolute path of this machine as a URI.
pub(super) fn local_uri(path: &str) -> String {
    let mut uri = "file://".to_owned();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

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
