//! What an external step answers: JSON, in the same form for commands, web services and topics.
//!
//! Text enters and an [`Answer`] leaves, then what a step of its level was asked for; or why it is none.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use wellspring_workloads::screen::{ExternalStep, nearest_column};
use wellspring_workloads::words::WellPosition;

use super::protocol::Request;

/// Longest answer, in bytes.
pub const MOST_BYTES: usize = 16 << 20;

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
    /// Of a plate: the numbers by well and column.
    #[serde(default)]
    wells: Option<BTreeMap<String, BTreeMap<String, Value>>>,
    /// That a step which only takes note has done so.
    #[serde(default)]
    acknowledged: bool,
    /// Of the screen: an object that is kept beside the results.
    #[serde(default)]
    result: Option<Map<String, Value>>,
    /// No answer yet: it is being worked on.
    #[serde(default)]
    heartbeat: bool,
}

/// Why an answer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It is not JSON, or not of this form.
    #[error("the answer cannot be read ({source}): {text}")]
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
    /// It says nothing that was asked for.
    #[error("the answer has neither {expected} nor 'error'")]
    Empty {
        /// What it should have.
        expected: &'static str,
    },
    /// It has something about a well that is not there.
    #[error("the answer has a well '{well}' that was not asked about")]
    UnknownWell {
        /// The well.
        well: String,
    },
    /// It has nothing about a well.
    #[error("the answer has nothing for well {well}")]
    NoWell {
        /// The well.
        well: WellPosition,
    },
    /// What is wrong is about one well.
    #[error("of well {well}")]
    OfWell {
        /// The well.
        well: WellPosition,
        /// What is wrong.
        source: Box<AnswerError>,
    },
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
        self.heartbeat
            && self.features.is_none()
            && self.error.is_none()
            && self.wells.is_none()
            && self.result.is_none()
            && !self.acknowledged
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

    /// Its refusal, where it is one.
    fn unless_refused(self) -> Result<Self, AnswerError> {
        let Some(message) = self.error else {
            return Ok(self);
        };
        let retry = self.retry;
        let message = message.chars().take(1_000).collect();
        Err(AnswerError::Refused { message, retry })
    }

    /// The numbers in the order of the step's columns.
    ///
    /// # Errors
    /// A refusal, or columns that are not those of the step.
    pub fn columns(self, step: &ExternalStep) -> Result<Vec<f32>, AnswerError> {
        let features = self.unless_refused()?.features;
        let expected = "'features'";
        in_order(&features.ok_or(AnswerError::Empty { expected })?, step)
    }

    /// Of each of `wells` the numbers in the order of the step's columns.
    ///
    /// # Errors
    /// A refusal; a well that is missing or was not asked about; columns that are not those of the step.
    pub fn of_wells(self, step: &ExternalStep, wells: &[WellPosition]) -> Result<Vec<Vec<f32>>, AnswerError> {
        let expected = "'wells'";
        let answered = self
            .unless_refused()?
            .wells
            .ok_or(AnswerError::Empty { expected })?;
        let mut by_well: BTreeMap<WellPosition, Vec<f32>> = BTreeMap::new();
        for (name, columns) in answered {
            let asked = name.parse().ok().filter(|well| wells.contains(well));
            let Some(well) = asked else {
                let well = name.chars().take(80).collect();
                return Err(AnswerError::UnknownWell { well });
            };
            let values = in_order(&columns, step).map_err(|source| AnswerError::OfWell {
                well,
                source: Box::new(source),
            })?;
            by_well.insert(well, values);
        }
        let taken = wells
            .iter()
            .map(|well| by_well.remove(well).ok_or(AnswerError::NoWell { well: *well }));
        taken.collect()
    }

    /// That note was taken.
    ///
    /// # Errors
    /// A refusal, or an answer that does not say so.
    pub fn note(self) -> Result<(), AnswerError> {
        let expected = "'acknowledged': true";
        match self.unless_refused()?.acknowledged {
            true => Ok(()),
            false => Err(AnswerError::Empty { expected }),
        }
    }

    /// The object that is to be kept, or that note was taken.
    ///
    /// # Errors
    /// A refusal, or neither.
    pub fn note_or_result(self) -> Result<Option<Map<String, Value>>, AnswerError> {
        let answer = self.unless_refused()?;
        let expected = "'result', an object, nor 'acknowledged': true";
        match answer.result {
            None if !answer.acknowledged => Err(AnswerError::Empty { expected }),
            result => Ok(result),
        }
    }
}

/// Numbers by column in the order of the step.
fn in_order(features: &BTreeMap<String, Value>, step: &ExternalStep) -> Result<Vec<f32>, AnswerError> {
    if let Some(column) = features.keys().find(|column| !step.columns.contains(column)) {
        let nearest = nearest_column(step, column).map(str::to_owned);
        let column = column.chars().take(80).collect();
        return Err(AnswerError::Unknown { column, nearest });
    }
    let number = |column: &String| {
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
    };
    step.columns.iter().map(number).collect()
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
            ("Loading the model", "cannot be read"),
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
            (r#"{"acknowledged": true}"#, "neither 'features' nor 'error'"),
            ("{}", "neither 'features' nor 'error'"),
        ] {
            let error = columns(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_plate_is_answered_well_by_well_and_notes_are_taken_in_so_many_words() {
        let wells: Vec<WellPosition> = ["A01", "P24"].map(|well| well.parse().unwrap()).to_vec();
        let of_wells = |text: &str| Answer::read(text).and_then(|answer| answer.of_wells(&step(), &wells));
        let good = r#"{"wells": {"P24": {"count": 3, "area": 4}, "A1": {"area": 2, "count": 1}}}"#;
        assert_eq!(of_wells(good).unwrap(), [[1.0, 2.0], [3.0, 4.0]]);
        for (text, part) in [
            (
                r#"{"wells": {"A01": {"area": 2, "count": 1}}}"#,
                "nothing for well P24",
            ),
            (r#"{"wells": {"B02": {}}}"#, "a well 'B02' that was not asked"),
            (r#"{"wells": {"lot 7": {}}}"#, "a well 'lot 7'"),
            (r#"{"wells": {"A01": {"area": 2}}}"#, "of well A01"),
            (r#"{"features": {"area": 2}}"#, "neither 'wells' nor 'error'"),
            (r#"{"error": "no plate"}"#, "refused: no plate"),
        ] {
            let error = of_wells(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let note = |text: &str| Answer::read(text).and_then(Answer::note);
        assert!(note(r#"{"acknowledged": true}"#).is_ok());
        for text in [
            "{}",
            r#"{"acknowledged": false}"#,
            r#"{"acknowledged": true, "error": "x"}"#,
        ] {
            assert!(note(text).is_err(), "{text}");
        }
        let kept = |text: &str| Answer::read(text).and_then(Answer::note_or_result);
        assert_eq!(kept(r#"{"acknowledged": true}"#).unwrap(), None);
        assert_eq!(kept(r#"{"result": {"page": 7}}"#).unwrap().unwrap()["page"], 7);
        assert!(kept(r#"{"result": [1]}"#).is_err() && kept("{}").is_err());
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
}
