//! `schema.json` and the reader of screen files take and refuse the same.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use wellspring_workloads::screen::{Screen, ScreenProblem, json_schema, json_schema_text};

#[path = "common/ready.rs"]
mod ready;

use ready::ready_files;

const BASE: &str = r#"
[screen]
name = "small"
[images]
store = "images"
channels = ["DNA", "ER"]
[plate_map]
file = "map.csv"
[controls]
reference = { role = "healthy" }
phenotype = { role = "disease" }
"#;

fn base() -> Value {
    let table: toml::Table = toml::from_str(BASE).unwrap();
    serde_json::to_value(table).unwrap()
}

#[test]
fn the_published_schema_is_the_one_of_the_types() {
    let published = include_str!("../schema.json");
    let made = json_schema_text();
    assert!(
        published == made,
        "workloads/schema.json is behind: cargo run -p wellspring-workloads --example schema > workloads/schema.json"
    );
    assert!(jsonschema::draft7::meta::is_valid(&json_schema()));
}

#[test]
fn every_ready_file_is_valid_and_names_the_schema() {
    let validator = jsonschema::draft7::new(&json_schema()).unwrap();
    for (path, text) in ready_files() {
        let table: toml::Table = toml::from_str(&text).unwrap();
        let instance = serde_json::to_value(table).unwrap();
        let errors: Vec<String> = validator.iter_errors(&instance).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{path}: {errors:?}");
        assert!(text.starts_with("#:schema ../schema.json\n"), "{path}");
    }
}

/// Sets the value at a path of keys; tables on the way are made.
fn set(document: &mut Value, path: &[&str], value: Value) {
    let mut at = document;
    for key in path {
        if !at[*key].is_object() && *key != path[path.len() - 1] {
            at[*key] = json!({});
        }
        at = &mut at[*key];
    }
    *at = value;
}

/// Values around what a form takes: its bounds and beyond, its words and another, other types.
fn candidates(form: &Value) -> Vec<Value> {
    let mut found = vec![
        json!(true),
        json!("no such word"),
        json!(" "),
        json!(-1.5),
        json!(3),
        json!([]),
        json!([json!({ "no-such-key": 1 })]),
        json!({ "no-such-key": 1 }),
    ];
    for word in form["enum"].as_array().into_iter().flatten() {
        found.push(word.clone());
    }
    let whole = form["type"] == "integer";
    for bound in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"] {
        if let Some(bound) = form[bound].as_f64() {
            let steps = if whole {
                [-1.0, 0.0, 1.0]
            } else {
                [-1e-3, 0.0, 1e-3]
            };
            for step in steps {
                let value = bound + step;
                found.push(if whole { json!(value as i64) } else { json!(value) });
            }
        }
    }
    for other in form["anyOf"].as_array().into_iter().flatten() {
        found.extend(candidates(other));
    }
    found
}

/// What one key cannot tell: the reader compares it with others.
fn looks_at_others(path: &[&str], value: &Value) -> bool {
    let key = path.join(".");
    match key.as_str() {
        "images.layout" => value == "pattern",
        // A regular expression with certain groups; a place-holder for every channel.
        "images.pattern" | "preprocess.illumination" | "preprocess.dark_field" => true,
        // The channels of the screen, and one number for each.
        "quality.nuclei_channel" | "nuclei.channel" => true,
        "preprocess.background" | "preprocess.scaling.low" | "preprocess.scaling.high" => value.is_array(),
        // 60 must lie above the smallest.
        "nuclei.max_diameter" => value.as_f64().is_some_and(|number| (1.0..10.0).contains(&number)),
        "nuclei.min_diameter" => value
            .as_f64()
            .is_some_and(|number| (60.0..=10_000.0).contains(&number)),
        // One must lie above the other: they are 0 and -3.
        "quality.slope_empty" => value.as_f64().is_some_and(|number| number <= -3.0),
        "quality.slope_blur" => value.as_f64().is_some_and(|number| number >= 0.0),
        "plate_map.dose_unit" | "comparison.dose_unit" => true,
        _ => false,
    }
}

/// Visits every key of every table of the schema.
fn visit<'s>(form: &'s Value, path: &mut Vec<&'s str>, see: &mut impl FnMut(&[&str], &Value)) {
    for (key, inner) in form["properties"].as_object().into_iter().flatten() {
        path.push(key);
        see(path, inner);
        visit(inner, path, see);
        for other in inner["anyOf"].as_array().into_iter().flatten() {
            visit(other, path, see);
        }
        path.pop();
    }
}

#[test]
fn what_the_reader_takes_of_every_key_the_schema_takes_and_nothing_else() {
    let schema = json_schema();
    let validator = jsonschema::draft7::new(&schema).unwrap();
    let mut seen = 0;
    let mut differ = Vec::new();
    visit(&schema, &mut Vec::new(), &mut |path, form| {
        for value in candidates(form) {
            if looks_at_others(path, &value) {
                continue;
            }
            let mut document = base();
            // What a table of alternatives needs besides.
            let beside: &[(&str, Value)] = match path {
                ["preprocess", "scaling", "low"] => &[("high", json!(65_535))],
                ["preprocess", "scaling", "high"] => &[("low", json!(0))],
                ["preprocess", "background_percentile"] => &[("background", json!("percentile"))],
                ["preprocess", "resize", "width"] => &[("height", json!(8))],
                ["preprocess", "resize", "height"] => &[("width", json!(8))],
                ["preprocess", "resize", "method"] => &[("factor", json!(1))],
                _ => &[],
            };
            for (key, value) in beside {
                let path: Vec<&str> = path[..path.len() - 1].iter().copied().chain([*key]).collect();
                set(&mut document, &path, value.clone());
            }
            set(&mut document, path, value.clone());
            // Tables of which one key is given miss the others they need: only this key's verdict counts, or that of the
            // alternatives it belongs to.
            let pointer = format!("/{}", path.join("/"));
            let refused = validator.iter_errors(&document).any(|error| {
                let at = error.instance_path().as_str().to_owned();
                at.starts_with(&pointer) || (at.matches('/').count() > 1 && pointer.starts_with(&(at + "/")))
            });
            let text = toml::to_string(&document).unwrap();
            let key = path.join(".");
            let problems = Screen::parse(&text, "a.toml")
                .err()
                .map_or(Vec::new(), |errors| errors.0);
            let unread = problems.iter().any(|error| about(&error.problem, &key));
            if unread != refused {
                differ.push(format!(
                    "{key} = {value}: the schema refuses it: {refused}, the reader: {problems:?}"
                ));
            }
            seen += 1;
        }
    });
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert!(seen > 1_500, "only {seen} values were tried");
}

/// Whether a problem is one of the key's own value.
fn about(problem: &ScreenProblem, key: &str) -> bool {
    let of = |found: &str| {
        found == key
            || found
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with(['[', '.', ' ']))
    };
    match problem {
        ScreenProblem::UnknownKey { table, .. } => of(table.trim_matches(['[', ']'])),
        ScreenProblem::Type { key: found, .. }
        | ScreenProblem::UnknownWord { key: found, .. }
        | ScreenProblem::Range { key: found, .. }
        | ScreenProblem::Unusable { key: found, .. } => of(found),
        ScreenProblem::Missing { table, .. } => of(table.trim_matches(['[', ']'])),
        _ => false,
    }
}

#[test]
fn the_schema_knows_every_key_of_the_reader() {
    let schema = json_schema();
    let mut tables = 0;
    let mut compare = |path: &[&str], form: &Value| {
        let Some(keys) = form["properties"].as_object() else {
            return;
        };
        let mut document = base();
        let unknown: Vec<&str> = path.iter().copied().chain(["no-such-key"]).collect();
        set(&mut document, &unknown, json!(1));
        let text = toml::to_string(&document).unwrap();
        let errors = Screen::parse(&text, "a.toml").unwrap_err();
        let known = errors.0.iter().find_map(|error| match &error.problem {
            ScreenProblem::UnknownKey { key, known, .. } if key == "no-such-key" => Some(known.clone()),
            _ => None,
        });
        let mut known = known.unwrap_or_else(|| panic!("{path:?}: {errors}"));
        known.sort();
        known.dedup();
        let mut listed: Vec<&str> = keys.keys().map(String::as_str).collect();
        listed.sort_unstable();
        // A table of alternatives has the keys of all of them.
        assert!(
            listed.iter().all(|key| known.iter().any(|k| k == key)),
            "{path:?}: {listed:?} {known:?}"
        );
        if ![["preprocess", "resize"], ["preprocess", "background"]]
            .iter()
            .any(|of| path == of)
        {
            assert_eq!(known, listed, "{path:?}");
        }
        tables += 1;
    };
    compare(&[], &schema);
    visit(&schema, &mut Vec::new(), &mut |path, form| {
        compare(path, form);
        for other in form["anyOf"].as_array().into_iter().flatten() {
            compare(path, other);
        }
    });
    assert!(tables >= 18, "{tables}");
}

#[test]
fn a_screen_of_images_needs_them_and_one_of_profiles_does_not() {
    let validator = jsonschema::draft7::new(&json_schema()).unwrap();
    let with = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
        let mut document = base();
        change(document.as_object_mut().unwrap());
        let text = toml::to_string(&document).unwrap();
        (
            validator.is_valid(&document),
            Screen::parse(&text, "a.toml").is_ok(),
        )
    };
    let drop =
        |key: &'static str| move |document: &mut serde_json::Map<String, Value>| drop(document.remove(key));
    for key in ["screen", "images", "plate_map", "controls"] {
        assert_eq!(with(&drop(key)), (false, false), "{key}");
    }
    assert_eq!(
        with(&|document| document["plate_map"] = json!({})),
        (false, false)
    );
    let profiles = |document: &mut serde_json::Map<String, Value>| {
        document.remove("images");
        document["plate_map"] = json!({});
        document.insert("profiles".to_owned(), json!({}));
    };
    assert_eq!(with(&profiles), (true, true));
}
