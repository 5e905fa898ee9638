//! Places where a test makes the process end at once, as `kill -9` would: the edges between two steps of the flow.
//!
//! Only test builds have them (`cargo test` turns the feature on). `FAILPOINTS="worker.committed=60*off->return"` lets
//! 60 records pass the place and ends the process at the next one.

/// Keeps the places that `FAILPOINTS` names set until it is dropped; `None` in builds without them.
pub fn setup() -> Option<fail::FailScenario<'static>> {
    fail::has_failpoints().then(fail::FailScenario::setup)
}

/// Ends the process if the place `role.edge` is set to. Nothing is flushed, closed or told.
pub fn pass(role: &str, edge: &str) {
    if fail::has_failpoints() {
        fail::fail_point!(&format!("{role}.{edge}"), |_| std::process::abort());
    }
}
