//! Plate-ready and acquisition-progress events as lab automation posts them: CloudEvents 1.0 in structured, batched and binary form, or the event's
//! bare JSON.
//!
//! Headers and body enter, [`PlateReady`] events leave, or the first thing that is wrong with them.

use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::problem::Problem;
use crate::events::PlateReady;
use crate::kafka::trace::TRACEPARENT;

/// Events of one request.
const MOST: usize = 1_000;

/// What a request holds.
#[derive(Debug, PartialEq)]
pub(super) struct Posted {
    pub(super) events: Vec<PlateReady>,
    form: Form,
    /// The caller's trace, as it wrote it.
    pub(super) traceparent: Option<String>,
}

/// How the events stand in the body.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// The body is the event's data.
    Bare,
    Structured,
    Batch,
}

impl Posted {
    /// Where a field of the data of an event stands.
    pub(super) fn place(&self, number: usize, field: &str) -> String {
        match self.form {
            Form::Bare => field.to_owned(),
            Form::Structured => format!("data.{field}"),
            Form::Batch => format!("{number}.data.{field}"),
        }
    }
}

/// Reads a request.
pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Posted, Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let full = text("content-type").unwrap_or_default();
    let kind = full
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let (form, events) = match kind.as_str() {
        "application/cloudevents+json" => (Form::Structured, vec![structured(json(body)?, "")?]),
        "application/cloudevents-batch+json" => (Form::Batch, batch(json(body)?)?),
        "application/json" if text("ce-specversion").is_some() => {
            let attribute = |name: &str| text(&format!("ce-{name}")).map(str::to_owned);
            let kind = checked(attribute, "ce-")?;
            (Form::Bare, vec![of_kind(event(json(body)?, "")?, &kind, "ce-")?])
        }
        "application/json" => (Form::Bare, vec![event(json(body)?, "")?]),
        _ => {
            let detail = format!(
                "content type '{kind}' is not read here; send application/cloudevents+json, \
                 application/cloudevents-batch+json or application/json"
            );
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, "content_type", detail).at("content-type"));
        }
    };
    Ok(Posted {
        events,
        form,
        traceparent: text(TRACEPARENT).map(str::to_owned),
    })
}

fn json(body: &[u8]) -> Result<Value, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the body is not JSON: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "not_json", detail)
    })
}

fn batch(value: Value) -> Result<Vec<PlateReady>, Problem> {
    let Value::Array(events) = value else {
        let detail = "a batch is an array of events";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "not_a_batch", detail));
    };
    if events.len() > MOST {
        let detail = format!(
            "a batch of {} events; at most {MOST} are taken at once",
            events.len()
        );
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many", detail));
    }
    let numbered = events.into_iter().enumerate();
    numbered
        .map(|(number, value)| structured(value, &format!("{number}.")))
        .collect()
}

/// An event with its attributes beside its data.
fn structured(value: Value, place: &str) -> Result<PlateReady, Problem> {
    let Value::Object(mut attributes) = value else {
        let detail = "an event is an object with specversion, id, source, type and data";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_an_event", detail).at(place));
    };
    let attribute = |name: &str| attributes.get(name).and_then(Value::as_str).map(str::to_owned);
    let kind = checked(attribute, place)?;
    match attributes.remove("data") {
        Some(data) => of_kind(event(data, &format!("{place}data"))?, &kind, place),
        None => {
            let detail = "the event has no data; data_base64 is not read here";
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no_data", detail);
            Err(problem.at(format!("{place}data")))
        }
    }
}

/// An event that is what its type says.
fn of_kind(event: PlateReady, kind: &str, place: &str) -> Result<PlateReady, Problem> {
    let passed = event.progress.as_ref().and_then(|progress| progress.passed_ms);
    if passed.is_some() {
        let detail = "passed_ms is said by the planner alone; give deadline_ms";
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_plate_ready", detail);
        return Err(problem.at(format!("{place}data.progress.passed_ms")));
    }
    if event.taken_over.is_some() {
        let detail = "taken_over is said by reruns alone";
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_plate_ready", detail);
        return Err(problem.at(format!("{place}data.taken_over")));
    }
    if event.kind() == kind {
        return Ok(event);
    }
    let detail = format!(
        "data with progress is of type {}, data without of type {}; this event says {kind}",
        PlateReady::PROGRESS_TYPE,
        PlateReady::TYPE
    );
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "type", detail).at(format!("{place}type")))
}

/// The attributes that every event has; its type.
fn checked(attribute: impl Fn(&str) -> Option<String>, place: &str) -> Result<String, Problem> {
    let wrong = |code, name: &str, detail: String| {
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail);
        Err::<String, _>(problem.at(format!("{place}{name}")))
    };
    for name in ["specversion", "id", "source", "type"] {
        if attribute(name).is_none_or(|value| value.is_empty()) {
            return wrong("missing_attribute", name, format!("the event has no {name}"));
        }
    }
    let is = |name: &str, expected: &str| attribute(name).is_some_and(|value| value == expected);
    if !is("specversion", "1.0") {
        return wrong(
            "specversion",
            "specversion",
            "CloudEvents 1.0 is read here".to_owned(),
        );
    }
    let kind = attribute("type").unwrap_or_default();
    if ![PlateReady::TYPE, PlateReady::PROGRESS_TYPE].contains(&kind.as_str()) {
        let detail = format!(
            "events of the types {} and {} are taken here",
            PlateReady::TYPE,
            PlateReady::PROGRESS_TYPE
        );
        return wrong("type", "type", detail);
    }
    if let Some(kind) = attribute("datacontenttype").filter(|kind| !kind.contains("json")) {
        let detail = format!("data of type '{kind}' is not read here; send application/json");
        return wrong("datacontenttype", "datacontenttype", detail);
    }
    Ok(kind)
}

fn event(value: Value, place: &str) -> Result<PlateReady, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let within = error.path().to_string();
        let error = error.into_inner();
        let detail = format!(
            "no plate event: {error}; it needs a plate, the barcode, and may name a run and progress"
        );
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "not_plate_ready", detail);
        // The event as a whole is ".".
        let places = [place, &within]
            .into_iter()
            .filter(|part| !matches!(*part, "" | "."));
        match places.collect::<Vec<_>>().join(".") {
            place if place.is_empty() => problem,
            place => problem.at(place),
        }
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn posted(kind: &str, more: &[(&'static str, &'static str)], body: &str) -> Result<Posted, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_str(kind).unwrap());
        for &(name, value) in more {
            headers.insert(name, HeaderValue::from_static(value));
        }
        read(&headers, body.as_bytes())
    }

    fn said(result: Result<Posted, Problem>) -> String {
        serde_json::to_string(&result.unwrap_err()).unwrap()
    }

    const EVENT: &str = r#"{"specversion":"1.0","id":"7","source":"/scheduler","type":"wellspring.plate-ready.v1",
        "data":{"plate":"BR1","run":"pilot-1234"}}"#;

    #[test]
    fn all_four_forms_are_read() {
        let structured = posted("application/cloudevents+json; charset=utf-8", &[], EVENT).unwrap();
        assert_eq!(structured.events[0].plate.as_str(), "BR1");
        assert_eq!(structured.events[0].run.as_deref(), Some("pilot-1234"));
        let batch = format!("[{EVENT},{EVENT}]");
        assert_eq!(
            posted("application/cloudevents-batch+json", &[], &batch)
                .unwrap()
                .events
                .len(),
            2
        );
        let attributes = [
            ("ce-specversion", "1.0"),
            ("ce-id", "7"),
            ("ce-source", "/scheduler"),
            ("ce-type", "wellspring.plate-ready.v1"),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        ];
        let binary = posted("application/json", &attributes, r#"{"plate":"BR1"}"#).unwrap();
        assert!(binary.traceparent.unwrap().starts_with("00-0af7"));
        assert_eq!(
            posted("application/json", &[], r#"{"plate":"BR1"}"#)
                .unwrap()
                .events,
            binary.events
        );
    }

    #[test]
    fn progress_is_an_event_of_its_own_type() {
        const PROGRESS: &str = r#"{"specversion":"1.0","id":"8","source":"/scheduler",
            "type":"wellspring.acquisition-progress.v1",
            "data":{"plate":"BR1","progress":{"wells":["a1"],"fields_expected":96,"deadline_ms":5}}}"#;
        let read = |text: &str| posted("application/cloudevents+json", &[], text);
        let event = read(PROGRESS).unwrap().events.remove(0);
        let progress = event.progress.unwrap();
        assert_eq!(progress.wells.unwrap()[0].to_string(), "A01");
        assert_eq!(
            (progress.fields_expected, progress.deadline_ms),
            (Some(96), Some(5))
        );
        // Nobody is to take the one for the other.
        for (text, code) in [
            (PROGRESS.replace("acquisition-progress", "plate-ready"), "type"),
            (EVENT.replace("plate-ready", "acquisition-progress"), "type"),
            (PROGRESS.replace("[\"a1\"]", "[]"), "not_plate_ready"),
            (PROGRESS.replace("[\"a1\"]", "[\"Z99\"]"), "not_plate_ready"),
            (PROGRESS.replace(":96", ":0"), "not_plate_ready"),
            (
                PROGRESS.replace("\"plate\":", "\"lane\":\"batch\",\"plate\":"),
                "not_plate_ready",
            ),
        ] {
            let said = said(read(&text));
            assert!(said.contains(&format!(r#""code":"{code}""#)), "{said}");
        }
        let bare = posted("application/json", &[], r#"{"plate":"BR1","progress":{}}"#).unwrap();
        assert!(bare.events[0].progress.is_some());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (kind, body, code, field) in [
            ("text/plain", "{}", "content_type", "content-type"),
            ("application/json", "{", "not_json", ""),
            ("application/json", r#"{"run":"r"}"#, "not_plate_ready", ""),
            ("application/json", r#"{"plate":""}"#, "not_plate_ready", "plate"),
            (
                "application/json",
                r#"{"plate":"BR1","progres":{}}"#,
                "not_plate_ready",
                "",
            ),
            (
                "application/json",
                r#"{"plate":"BR1","progress":{"wels":["A01"]}}"#,
                "not_plate_ready",
                "progress.wels",
            ),
            (
                "application/json",
                r#"{"plate":"BR1","progress":{"wells":["A01","Z99"]}}"#,
                "not_plate_ready",
                "progress.wells[1]",
            ),
            ("application/cloudevents+json", "[]", "not_an_event", ""),
            (
                "application/cloudevents+json",
                &EVENT.replace("1.0", "0.3"),
                "specversion",
                "specversion",
            ),
            (
                "application/cloudevents+json",
                &EVENT.replace("-ready", "-seen"),
                "type",
                "type",
            ),
            (
                "application/cloudevents+json",
                &EVENT.replace("\"7\"", "\"\""),
                "missing_attribute",
                "id",
            ),
            (
                "application/cloudevents+json",
                &EVENT.replace("\"data\"", "\"data_base64\""),
                "no_data",
                "data",
            ),
            ("application/cloudevents-batch+json", "{}", "not_a_batch", ""),
            (
                "application/cloudevents-batch+json",
                &format!("[{EVENT},{}]", EVENT.replace("plate\":", "barcode\":")),
                "not_plate_ready",
                "1.data",
            ),
        ] {
            let said = said(posted(kind, &[], body));
            assert!(said.contains(&format!(r#""code":"{code}""#)), "{said}");
            assert!(
                field.is_empty() || said.contains(&format!(r#""field":"{field}""#)),
                "{said}"
            );
        }
        for (kind, body, place) in [
            ("application/json", r#"{"plate":"BR1"}"#, "run"),
            ("application/cloudevents+json", EVENT, "data.run"),
            (
                "application/cloudevents-batch+json",
                &format!("[{EVENT}]"),
                "0.data.run",
            ),
        ] {
            assert_eq!(posted(kind, &[], body).unwrap().place(0, "run"), place);
        }
        let half = posted(
            "application/json",
            &[("ce-specversion", "1.0")],
            r#"{"plate":"BR1"}"#,
        );
        assert!(said(half).contains(r#""field":"ce-id""#));
    }
}
