//! Places where a test makes the process end at once, as `kill -9` would, or a step fail: the edges between two steps
//! of the flow.
//!
//! Only test builds have them (`cargo test` turns the feature on). `FAILPOINTS="worker.committed=60*off->return"` lets
//! 60 records pass the place and ends the process at the next one. Places named by a field, such as
//! `worker.decode@P1/B03/2`, concern that field only; `return(network)` there gives a failure of that class that may
//! pass, `return(model)` one that may not.

use wellspring_workloads::words::FieldId;

use crate::error::{FailureClass, Stage, StageError};

/// Keeps the places that `FAILPOINTS` names set until it is dropped; `None` in builds without them.
pub fn setup() -> Option<fail::FailScenario<'static>> {
    fail::has_failpoints().then(fail::FailScenario::setup)
}

/// Ends the process if the place `role.edge` is set to. Nothing is flushed, closed or told.
pub fn pass(role: &str, edge: &str) {
    if fail::has_failpoints() && reached(&format!("{role}.{edge}")).is_some() {
        std::process::abort();
    }
}

/// Whether a message to the broker or its answer is to be lost at the place `role.edge`.
pub fn loses(role: &str, edge: &str) -> bool {
    fail::has_failpoints() && reached(&format!("{role}.{edge}")).is_some()
}

/// Whether the place `role.edge` was named.
pub fn is_set(role: &str, edge: &str) -> bool {
    fail::has_failpoints() && {
        let name = format!("{role}.{edge}");
        fail::list().iter().any(|(set, _)| *set == name)
    }
}

/// After a worker's stage has done a field: ends the process, or fails, if the place is set to.
pub fn after(stage: Stage, field: &FieldId) -> Result<(), StageError> {
    if fail::has_failpoints() {
        pass("worker", &stage.to_string());
        let FieldId { plate, well, field } = field;
        if let Some(word) = reached(&format!("worker.{stage}@{plate}/{well}/{field}")) {
            return Err(failure(stage, word));
        }
    }
    Ok(())
}

/// What the place was set to return.
fn reached(name: &str) -> Option<Option<String>> {
    fail::eval(name, |word| word)
}

fn failure(stage: Stage, word: Option<String>) -> StageError {
    let Some(word) = word else { std::process::abort() };
    let class = FailureClass::from_word(&word).unwrap_or(FailureClass::Internal);
    match class {
        FailureClass::Network | FailureClass::Throttled | FailureClass::OutOfMemory => {
            StageError::external(stage, class, "a test asked for this failure")
        }
        FailureClass::Internal => StageError::internal(stage, "a test asked for this failure"),
        _ => StageError::input(stage, class, "a test asked for this failure"),
    }
}
