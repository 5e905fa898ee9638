//! The JSON Schema of screen files, by which editors complete and check them as they are written.
//!
//! Made from the words, ranges and defaults of the settings types; `workloads/schema.json` is its text. A test holds it
//! to the reader, key by key: what the one takes the other takes. What needs more than one key (contradictions, a channel
//! that does not exist, a cycle of steps) only the reader sees. Nothing here fails.

mod comparison;
mod form;
mod tables;

use serde_json::{Value, json};

use crate::canonical::sorted;
use form::{Key, key, needed, table};

/// The schema, draft 7.
pub fn json_schema() -> Value {
    let mut schema = table(root());
    if let Value::Object(schema) = &mut schema {
        schema.insert(
            "$schema".to_owned(),
            "http://json-schema.org/draft-07/schema#".into(),
        );
        schema.insert("title".to_owned(), "Wellspring screen file".into());
        schema.insert(
            "description".to_owned(),
            "A screen: images, plate map, controls, steps, comparison and outputs.".into(),
        );
        // A screen of images needs them; one of profiles takes both from its tables.
        schema.insert(
            "anyOf".to_owned(),
            json!([{ "required": ["profiles"] }, { "required": ["images", "plate_map"] }]),
        );
        schema.insert(
            "if".to_owned(),
            json!({ "not": { "required": ["profiles"] }, "properties": { "plate_map": { "type": "object" } } }),
        );
        schema.insert(
            "then".to_owned(),
            json!({ "properties": { "plate_map": { "required": ["file"] } } }),
        );
    }
    schema
}

/// The schema as `workloads/schema.json` has it.
pub fn json_schema_text() -> String {
    // Indented, so that a change of one key is a change of a few lines.
    format!("{:#}\n", sorted(json_schema()))
}

fn root() -> Vec<Key> {
    vec![
        needed(
            "screen",
            "The screen's name and what it is about.",
            tables::screen(),
        ),
        key(
            "images",
            "Where the images are and how their names are read.",
            tables::images(),
        ),
        key(
            "profiles",
            "Profiles made elsewhere, for `wellspring compare`. Empty: everything is recognised.",
            tables::profiles(),
        ),
        key("plate_map", "What each well was given.", tables::plate_map()),
        needed(
            "controls",
            "Which wells define 0 and 1 of the axis.",
            tables::controls(),
        ),
        key(
            "preprocess",
            "Between decoding and the network.",
            tables::preprocess(),
        ),
        key("quality", "Gates per field, well and plate.", tables::quality()),
        key("nuclei", "Nuclei are counted in every field.", tables::nuclei()),
        key("model", "The network.", tables::model()),
        key(
            "steps",
            "Networks beside [model], and steps outside this program, each under [[steps]].",
            tables::steps(),
        ),
        key(
            "comparison",
            "What is asked, and how it is answered.",
            comparison::comparison(),
        ),
        key("monitor", "The watch over control wells.", comparison::monitor()),
        key("resources", "What a worker may use.", tables::resources()),
        key("output", "What is written besides the tables.", tables::output()),
    ]
}
