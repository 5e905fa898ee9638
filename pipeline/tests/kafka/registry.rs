//! A schema registry: the real one that `scripts/registry` starts, and answers it gives when something is wrong.

use serde_json::{Value, json};
use wellspring::error::chain;
use wellspring::events::FieldFeatures;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::topics::Topic;
use wellspring::schemas::registry::{Credentials, RegistrySettings};
use wellspring::schemas::{Format, Schemas, Unreadable};

use crate::{Broker, all, answering, command, features, features_record, publish, raw, text};

/// The registry of `scripts/registry`; `None`, with a plain word, where there is none.
fn registry() -> Option<String> {
    let url = std::env::var("WELLSPRING_TEST_REGISTRY")
        .ok()
        .filter(|url| !url.is_empty());
    if url.is_none() {
        println!(
            "skipped: no schema registry; set WELLSPRING_TEST_REGISTRY to what `scripts/registry start` prints"
        );
    }
    url
}

fn schemas(url: &str) -> Schemas {
    let settings = RegistrySettings {
        url: url.to_owned(),
        ..RegistrySettings::default()
    };
    Schemas::new(Format::Avro, Some(settings)).unwrap()
}

fn with(kafka: KafkaSettings, schemas: Schemas) -> KafkaSettings {
    KafkaSettings { schemas, ..kafka }
}

async fn ask(method: reqwest::Method, url: String, body: Option<Value>) -> (u16, Value) {
    let mut request = reqwest::Client::new()
        .request(method, url)
        .header("content-type", "application/vnd.schemaregistry.v1+json");
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (
        status,
        serde_json::from_str(&response.text().await.unwrap()).unwrap(),
    )
}

#[test]
fn with_a_registry_records_carry_its_ids_and_are_read_by_them() {
    let Some(url) = registry() else { return };
    let broker = Broker::embedded();
    let kafka = with(broker.settings(), schemas(&url));
    broker.create_topics(&kafka).unwrap();
    let sent = features("r", "P", 7);
    publish(&kafka, &[features_record(&sent)]);

    let (value, headers) = raw(&kafka, Topic::Features);
    assert_eq!(value[0], 0);
    let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
    let schema = format!("{url}/schemas/ids/{id}");
    assert!(headers.contains(&("ce_dataschema".to_owned(), schema.clone())));
    let (_, registered) = broker.runtime.block_on(ask(reqwest::Method::GET, schema, None));
    assert!(registered["schema"].as_str().unwrap().contains("FieldFeatures"));
    let versions = format!(
        "{url}/subjects/{}-value/versions",
        Topic::Features.name(&kafka.prefix)
    );
    let (status, versions) = broker.runtime.block_on(ask(reqwest::Method::GET, versions, None));
    assert_eq!((status, versions), (200, json!([1])));

    // Another process: it asks for the schema of the id, and registers nothing again.
    let other = with(kafka.clone(), schemas(&url));
    broker.create_topics(&other).unwrap();
    assert_eq!(
        all::<FieldFeatures>(&other, Topic::Features),
        std::slice::from_ref(&sent)
    );
    publish(&other, &[features_record(&sent)]);
    assert_eq!(all::<FieldFeatures>(&kafka, Topic::Features).len(), 2);

    let none = Schemas::default().read::<FieldFeatures>(Topic::Features, &value);
    assert!(matches!(none, Err(Unreadable::NoRegistry { id: of }) if of == id));
    let mut unknown = value.clone();
    unknown[1..5].copy_from_slice(&900_000_000u32.to_be_bytes());
    let error = other
        .schemas
        .read::<FieldFeatures>(Topic::Features, &unknown)
        .unwrap_err();
    let message = chain(&error);
    assert!(
        message.contains("900000000") && message.contains(&url),
        "{message}"
    );
    let cut = other
        .schemas
        .read::<FieldFeatures>(Topic::Features, &value[..value.len() - 1]);
    assert!(matches!(cut, Err(Unreadable::Avro { .. })), "{cut:?}");
    // Without the registry's words the commands of an operator still say what is there.
    let read = command(
        &other,
        &[
            "topics",
            "read",
            "features",
            "--schema-registry",
            &url,
            "--limit",
            "1",
        ],
    );
    let line: Value = serde_json::from_slice(&read.stdout).unwrap();
    assert_eq!(line["value"]["field"], 7);
    let read = command(&other, &["topics", "read", "features", "--limit", "1"]);
    assert_eq!(read.status.code(), Some(1));
    assert!(text(&read.stderr).contains("--schema-registry"));
}

#[test]
fn a_registry_that_finds_our_schema_incompatible_stops_the_start() {
    let Some(url) = registry() else { return };
    let broker = Broker::embedded();
    let kafka = with(broker.settings(), schemas(&url));
    let subject = format!("{}-value", Topic::Plates.name(&kafka.prefix));
    let other = r#"{"type":"record","name":"PlateReady","namespace":"wellspring","fields":[{"name":"plate","type":"long"}]}"#;
    let registered = ask(
        reqwest::Method::POST,
        format!("{url}/subjects/{subject}/versions"),
        Some(json!({ "schema": other })),
    );
    assert_eq!(broker.runtime.block_on(registered).0, 200);
    let strict = ask(
        reqwest::Method::PUT,
        format!("{url}/config/{subject}"),
        Some(json!({"compatibility": "FULL"})),
    );
    assert_eq!(broker.runtime.block_on(strict).0, 200);
    let message = chain(&broker.create_topics(&kafka).unwrap_err());
    assert!(
        message.contains("refuses our schema") && message.contains(&subject),
        "{message}"
    );
}

#[test]
fn schemas_that_may_only_be_looked_up_are_not_registered() {
    let Some(url) = registry() else { return };
    let broker = Broker::embedded();
    let settings = RegistrySettings {
        url: url.clone(),
        look_up_only: true,
        ..RegistrySettings::default()
    };
    let kafka = with(
        broker.settings(),
        Schemas::new(Format::Avro, Some(settings)).unwrap(),
    );
    let message = chain(&broker.create_topics(&kafka).unwrap_err());
    assert!(message.contains("pipeline/schemas/plates.v4.avsc"), "{message}");
    broker.create_topics(&with(kafka.clone(), schemas(&url))).unwrap();
    broker.create_topics(&kafka).unwrap();
}

#[test]
fn a_registry_that_refuses_access_or_is_away_says_what_to_do() {
    let broker = Broker::embedded();
    let (url, heads) = answering(
        "401 Unauthorized",
        r#"{"error_code":40101,"message":"who are you?"}"#,
    );
    let settings = RegistrySettings {
        url,
        credentials: Credentials::Basic {
            user: "lab".to_owned(),
            password: "secret".to_owned(),
        },
        look_up_only: false,
    };
    assert!(!format!("{settings:?}").contains("secret"));
    let refusing = Schemas::new(Format::Avro, Some(settings)).unwrap();
    let message = chain(
        &broker
            .create_topics(&with(broker.settings(), refusing))
            .unwrap_err(),
    );
    assert!(
        message.contains("401") && message.contains("who are you?"),
        "{message}"
    );
    assert!(
        message.contains("WELLSPRING_SCHEMA_REGISTRY_USER") && !message.contains("secret"),
        "{message}"
    );
    // base64 of lab:secret, in lower case as the head is kept.
    assert!(
        heads
            .recv()
            .unwrap()
            .contains("authorization: basic bgfionnly3jlda==")
    );

    // Bound and let go: nothing listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let away = schemas(&address);
    let message = chain(&broker.create_topics(&with(broker.settings(), away)).unwrap_err());
    assert!(
        message.contains("does not answer") && message.contains(&address),
        "{message}"
    );

    let (url, _heads) = answering("503 Service Unavailable", "");
    let value = [&[0, 0, 0, 0, 1][..], b"x"].concat();
    let error = schemas(&url)
        .read::<FieldFeatures>(Topic::Features, &value)
        .unwrap_err();
    assert!(matches!(error, Unreadable::Registry { id: 1, .. }), "{error:?}");
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    let open = |url: &str| {
        let settings = RegistrySettings {
            url: url.to_owned(),
            ..RegistrySettings::default()
        };
        Schemas::new(Format::Avro, Some(settings))
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert!(
        open("http://lab:secret@registry:8081")
            .unwrap_err()
            .contains("process lists")
    );
    assert!(open("registry:8081").unwrap_err().contains("http://"));
    assert!(open("ftp://registry").is_err());
    open("https://registry:8081/").unwrap();
    let output = command(
        &KafkaSettings::new("127.0.0.1:1", "p", "i"),
        &[
            "topics",
            "diff",
            "--schema-registry",
            "http://r",
            "--format",
            "json",
        ],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("leave out --format json"));
}
