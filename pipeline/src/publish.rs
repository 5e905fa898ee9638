//! Publish: a field with all its features becomes a record on the features topic and settles its task.
//!
//! [`Embedded`] fields enter; their tickets carry the records to the lane's publisher, which writes them in one
//! transaction with the task offsets they answer ([`crate::kafka::lane`]).

use crate::error::{Stage, StageError};
use crate::events::FieldFeatures;
use crate::fields::Embedded;
use crate::ids;
use crate::kafka::OutRecord;
use crate::kafka::topics::Topic;
use crate::track::{Outcome, Tracked};

/// The stage: settles one field.
pub fn publish(field: Tracked<Embedded>) {
    let Embedded {
        task,
        run: _,
        model,
        tiles,
        quality,
        passed,
        embedding,
    } = field.value;
    let id = ids::of_field(&task.run, &task.field, "features", &ids::content_of_task(&task));
    let key = task.field.plate.to_string();
    let features = FieldFeatures {
        run: task.run.clone(),
        field: task.field.clone(),
        model,
        tiles,
        passed,
        quality,
        embedding,
    };
    let outcome = match OutRecord::new(Topic::Features, key, id, "wellspring.features.v1", &features) {
        Ok(record) => Outcome::Publish(vec![record]),
        Err(error) => Outcome::Stop(StageError::internal(Stage::Publish, error)),
    };
    field.ticket.settle(outcome);
}
