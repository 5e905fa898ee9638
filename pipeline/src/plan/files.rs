//! What is wrong with the files of a plate, as failures of its plan, and what was passed over.
//!
//! The files of a listing enter, with what their layout says of them; failures and remarks leave. Cannot fail.

use wellspring_workloads::layout::{FileProblem, PlateFiles};
use wellspring_workloads::screen::Screen;
use wellspring_workloads::words::Barcode;

use super::plate::{Failure, MOST_NAMED};
use crate::error::{FailureClass, Stage, StageError};

/// A plate without any image, and what was found instead.
pub(super) fn no_image(found: &PlateFiles, screen: &Screen, plate: &Barcode) -> Failure {
    let mut message = format!("no image of plate {plate} was found in {}", screen.images.store);
    // What was found instead is the reason: another channel's text, another layout, another name.
    let of_plate = |problem: &&FileProblem| problem.plate().is_none_or(|of| of == plate);
    for problem in found.problems.iter().filter(of_plate) {
        message.push_str(&format!("; {problem}"));
    }
    let others: Vec<&str> = found
        .plates
        .keys()
        .take(MOST_NAMED)
        .map(Barcode::as_str)
        .collect();
    if !others.is_empty() {
        message.push_str(&format!("; there are images of {}", others.join(", ")));
    }
    let error = StageError::input(Stage::Plan, FailureClass::MissingImage, message);
    Failure::plate(error)
}

/// What is wrong with the files of a plate, and costs fields or a metadata file.
pub(super) fn file_failures(found: &PlateFiles, plate: &Barcode, store: &str) -> Vec<Failure> {
    let mut failures = Vec::new();
    for problem in &found.problems {
        let message = problem.to_string();
        match problem {
            FileProblem::MissingChannel { field, .. }
            | FileProblem::AbsentFile { field, .. }
            | FileProblem::UnusableImage { field, .. }
            | FileProblem::DuplicateFile { field, .. }
                if field.plate == *plate =>
            {
                let class = match problem {
                    FileProblem::DuplicateFile { .. } => FailureClass::BadImage,
                    FileProblem::UnusableImage { .. } => FailureClass::BadMetadata,
                    _ => FailureClass::MissingImage,
                };
                failures.push(Failure {
                    field: Some(field.field),
                    ..Failure::well(class, field.well, 1, format!("{message} (in {store})"))
                });
            }
            // Names were used instead, so that no field is lost by it alone.
            FileProblem::Metadata { plate: of, .. } if of.as_ref().is_none_or(|of| of == plate) => {
                failures.push(Failure {
                    stage: Stage::Plan,
                    class: FailureClass::BadMetadata,
                    well: None,
                    field: None,
                    fields_lost: 0,
                    message,
                });
            }
            FileProblem::FewerFields {
                plate: of,
                well,
                found,
                expected,
            } if of == plate => {
                let lost = expected.saturating_sub(*found);
                failures.push(Failure::well(FailureClass::MissingImage, *well, lost, message));
            }
            _ => {}
        }
    }
    failures
}

/// What costs no field of this plate, but a person should know: files that belong to nothing, most of all. What is not of one
/// plate, such as a file beside the plates' folders, is told in the log alone.
pub(super) fn remarks(found: &PlateFiles, plate: &Barcode, store: &str) -> Vec<String> {
    let of_plate =
        |problem: &&FileProblem| problem.is_remark() && problem.plate().is_none_or(|of| of == plate);
    let mut remarks = Vec::new();
    for problem in found.problems.iter().filter(of_plate) {
        let message = format!("{problem} (in {store})");
        tracing::warn!(%plate, message, "files passed over");
        remarks.extend(problem.plate().map(|_| message));
    }
    remarks
}
