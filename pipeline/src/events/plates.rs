//! Events about plates: what they say, and what they may not mean.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use wellspring_workloads::screen::edits;
use wellspring_workloads::words::{Barcode, WellPosition};

use super::{RunId, WellFields};
use crate::kafka::topics::Urgency;

/// A plate's images are complete, or come in. Topic `plates`, keyed by plate.
///
/// Who writes it as JSON may say which `version` it is of: 1. Another one is refused, since what it means is not known here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Announcement")]
pub struct PlateReady {
    /// The plate's barcode.
    pub plate: Barcode,
    /// The run that should take it; every open run whose screen includes the plate when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// How urgent it is; live when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Urgency>,
    /// What is known of a plate that is still being imaged. All of its images are there when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<AcquisitionProgress>,
    /// What the run has of the plate already, where it takes over what another run made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_over: Option<TakenOver>,
}

/// Fields whose features a run has from another one, and which need no task. Written by reruns, and by nobody else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakenOver {
    /// The other run.
    pub from: RunId,
    /// The fields.
    pub fields: Vec<WellFields>,
    /// Hash of the illumination functions and dark-fields that their features were made with, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shading: Option<String>,
}

impl PlateReady {
    /// The event's CloudEvents type.
    pub const TYPE: &str = "wellspring.plate-ready.v1";
    /// The type of one about a plate that is still being imaged.
    pub const PROGRESS_TYPE: &str = "wellspring.acquisition-progress.v1";

    /// The event's CloudEvents type.
    pub fn kind(&self) -> &'static str {
        match self.progress {
            None => Self::TYPE,
            Some(_) => Self::PROGRESS_TYPE,
        }
    }
}

/// How far the imaging of a plate is. Events of one plate may come repeatedly and in any order: wells add up, and of counts and
/// deadlines the largest holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcquisitionProgress {
    /// Wells whose images are all there. When absent, every field is taken that has all channels, no empty file and as many
    /// planes as the fullest field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wells: Option<Vec<WellPosition>>,
    /// Fields that the plate will have, 1 or more: it is complete when so many are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields_expected: Option<u32>,
    /// When to wait no longer, in milliseconds since 1970 UTC; when absent, as long as the screen says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The deadline that has passed. Written by the planner's clock, and by nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_ms: Option<u64>,
}

impl AcquisitionProgress {
    /// Why it cannot be meant so.
    fn problem(&self, lane: Option<Urgency>) -> Option<&'static str> {
        if lane == Some(Urgency::Batch) {
            return Some("a plate that is still being imaged goes through the live lane: leave lane out");
        }
        if self.wells.as_ref().is_some_and(Vec::is_empty) {
            return Some(
                "progress.wells names no well: leave it out where all fields may be taken that are there",
            );
        }
        (self.fields_expected == Some(0))
            .then_some("progress.fields_expected is 0; a plate has at least one field")
    }
}

/// A [`PlateReady`] as it may be written. It may hold more than is known here, but no misspelt `progress`: the plate would be
/// taken for complete.
#[derive(Deserialize)]
struct Announcement {
    plate: Barcode,
    #[serde(default)]
    run: Option<RunId>,
    #[serde(default)]
    lane: Option<Urgency>,
    #[serde(default)]
    progress: Option<AcquisitionProgress>,
    #[serde(default)]
    taken_over: Option<TakenOver>,
    #[serde(default)]
    version: Option<Version>,
    #[serde(flatten)]
    more: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Version {
    Number(f64),
    Text(String),
}

impl TryFrom<Announcement> for PlateReady {
    type Error = String;

    fn try_from(written: Announcement) -> Result<Self, String> {
        let Announcement {
            plate,
            run,
            lane,
            progress,
            taken_over,
            version,
            more,
        } = written;
        if let Some(key) = more.keys().find(|key| edits(key, "progress") <= 1) {
            return Err(format!(
                "'{key}' is no key of a plate event; did you mean 'progress'?"
            ));
        }
        if taken_over.is_some() && (progress.is_some() || run.is_none()) {
            return Err(
                "what is taken over is of one run, and of a plate that is imaged as a whole".to_owned(),
            );
        }
        if let Some(problem) = progress.as_ref().and_then(|progress| progress.problem(lane)) {
            return Err(problem.to_owned());
        }
        let unknown = match version {
            None => None,
            Some(Version::Number(number)) => (number != 1.0).then(|| number.to_string()),
            Some(Version::Text(text)) => (!matches!(&*text, "1" | "1.0" | "v1")).then_some(text),
        };
        match unknown {
            None => Ok(Self {
                plate,
                run,
                lane,
                progress,
                taken_over,
            }),
            Some(version) => Err(format!(
                "plate-ready events of version {version} are not known here, those of version 1 are"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plate_event_of_an_unknown_version_is_refused() {
        for version in ["1", "1.0", "\"1\"", "\"v1\"", "null"] {
            let event = format!(r#"{{"plate":"BR1","version":{version},"new":[1]}}"#);
            let read: PlateReady = serde_json::from_str(&event).unwrap();
            assert_eq!(read.plate.as_str(), "BR1");
        }
        for version in ["2", "99", "1.5", "\"v2\"", "true"] {
            let event = format!(r#"{{"plate":"BR1","version":{version}}}"#);
            assert!(serde_json::from_str::<PlateReady>(&event).is_err(), "{version}");
        }
        let refused = serde_json::from_str::<PlateReady>(r#"{"plate":"BR1","version":99}"#);
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("version 99"), "{said}");
    }
}
