//! The HTTP door against the embedded broker: who comes in, what is announced, what is told of plates.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::wait_for;
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use wellspring::events::{PlateReady, Status};
use wellspring::http::{Door, DoorError, DoorSettings, TlsFiles};
use wellspring::kafka::producer::BatchProducer;
use wellspring::kafka::tail::read_events;
use wellspring::kafka::topics::{Topic, create_missing};
use wellspring::kafka::{KafkaSettings, OutRecord};
use wellspring::plates::Followed;
use wellspring::submit::Announcer;
use wellspring_broker::EmbeddedBroker;

const TOKEN: &str = "a-token-of-this-installation";
const EVENTS: &str = "application/cloudevents+json";

/// A broker in this process, what is known of plates on it, and a runtime.
struct Lab {
    runtime: tokio::runtime::Runtime,
    kafka: KafkaSettings,
    plates: Arc<Followed>,
    broker: Option<EmbeddedBroker>,
    folder: tempfile::TempDir,
}

impl Lab {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let broker = runtime
            .block_on(EmbeddedBroker::start(&folder.path().join("log"), "127.0.0.1:0"))
            .unwrap();
        let kafka = KafkaSettings::new(broker.bootstrap(), "test", "door");
        runtime.block_on(create_missing(&kafka)).unwrap();
        Self {
            plates: Followed::follow(&kafka).unwrap(),
            runtime,
            kafka,
            broker: Some(broker),
            folder,
        }
    }

    fn open(&self, settings: DoorSettings) -> Result<Door, DoorError> {
        let announcer = Announcer::start(&self.kafka).unwrap();
        let plates = Arc::clone(&self.plates);
        self.runtime.block_on(Door::open(settings, plates, announcer))
    }

    fn tell(&self, status: &Value) {
        let status: Status = serde_json::from_value(status.clone()).unwrap();
        let record = OutRecord::status("id", &status).unwrap();
        BatchProducer::open(&self.kafka, "told")
            .unwrap()
            .publish_once(3, &[record])
            .unwrap();
    }

    fn announced(&self) -> Vec<PlateReady> {
        let events = read_events(&self.kafka, Topic::Plates).unwrap();
        events.into_iter().map(|(_, event)| event).collect()
    }

    fn end(mut self, door: Door) {
        self.runtime.block_on(door.close());
        self.plates.stop();
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.shutdown()).unwrap();
        }
    }
}

fn settings(token: Option<&str>, tls: Option<TlsFiles>) -> DoorSettings {
    DoorSettings {
        address: "127.0.0.1:0".parse().unwrap(),
        token: token.map(str::to_owned),
        tls,
    }
}

fn event(data: &Value) -> String {
    json!({
        "specversion": "1.0", "id": "1", "source": "/scheduler", "type": "wellspring.plate-ready.v1", "data": data
    })
    .to_string()
}

async fn body(answer: reqwest::Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

#[test]
fn a_plate_is_announced_and_followed_to_its_profiles() {
    let lab = Lab::start();
    let door = lab.open(settings(Some(TOKEN), None)).unwrap();
    let url = format!("http://{}", door.address());
    let client = Client::new();
    let post = |kind: &'static str, text: String| {
        let request = client.post(format!("{url}/v1/plates")).bearer_auth(TOKEN);
        let request = request.header("content-type", kind).body(text);
        lab.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let location = answer.headers().get("location").cloned();
            (answer.status(), location, body(answer).await)
        })
    };
    let get = |path: &str| {
        let request = client.get(format!("{url}{path}")).bearer_auth(TOKEN);
        lab.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            (answer.status(), body(answer).await)
        })
    };

    let (status, _) = get("/v1/plates/P1");
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, location, told) = post(EVENTS, event(&json!({ "plate": "P1" })));
    assert_eq!(status, StatusCode::ACCEPTED, "{told}");
    assert_eq!(location.unwrap(), "/v1/plates/P1");
    assert_eq!(lab.announced().len(), 1, "it is on Kafka when the answer comes");

    // A run that nobody submitted is a caller's mistake; none of the batch is announced.
    let batch = format!(
        "[{},{}]",
        event(&json!({ "plate": "P2" })),
        event(&json!({ "plate": "P3", "run": "pilot-1" }))
    );
    let batches = "application/cloudevents-batch+json";
    let (status, _, told) = post(batches, batch.clone());
    assert_eq!(
        (status, &told["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("unknown_run"))
    );
    assert_eq!(told["field"], "1.data.run");
    assert_eq!(lab.announced().len(), 1);

    let screen: Value = serde_json::to_value(screen()).unwrap();
    lab.tell(&json!({
        "status": "run_submitted", "run": "pilot-1", "screen": screen, "plates": [], "time_ms": 1
    }));
    wait_for("the run is known", || {
        post(batches, batch.clone()).0 == StatusCode::ACCEPTED
    });
    assert_eq!(lab.announced().len(), 3);

    lab.tell(&json!({
        "status": "plate_planned", "run": "pilot-1", "plate": "P3",
        "fields_expected": 9, "fields_planned": 8, "dead_letters": 1
    }));
    let run = |state: &str| {
        let told = get("/v1/plates/P3").1;
        (told["runs"]["pilot-1"]["state"] == state).then(|| told["runs"]["pilot-1"].clone())
    };
    wait_for("the plate is planned", || run("planned").is_some());
    assert_eq!(run("planned").unwrap()["fields_planned"], 8);
    lab.tell(&json!({ "status": "plate_profiled", "run": "pilot-1", "plate": "P3" }));
    wait_for("the plate is profiled", || run("profiled").is_some());

    let (status, _, told) = post(EVENTS, "x".repeat((1 << 20) + 1));
    assert_eq!(
        (status, &told["code"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large"))
    );
    let (status, _, told) = post("text/plain", String::new());
    assert_eq!(
        (status, &told["code"]),
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!("content_type"))
    );
    assert_eq!(get("/v1/nothing").1["code"], "no_such_path");
    assert_eq!(get("/v1/plates").1["code"], "method");
    let (status, described) = get("/v1/openapi.json");
    assert!(status.is_success() && described["paths"]["/v1/plates"]["post"].is_object());
    lab.end(door);
}

#[test]
fn without_the_token_nobody_comes_in() {
    let lab = Lab::start();
    let door = lab.open(settings(Some(TOKEN), None)).unwrap();
    let url = format!("http://{}", door.address());
    let client = Client::new();
    for shown in [None, Some("a-token-of-another-install-"), Some("")] {
        let request = client.post(format!("{url}/v1/plates"));
        let request = match shown {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let request = request
            .header("content-type", EVENTS)
            .body(event(&json!({ "plate": "P1" })));
        let answer = lab.runtime.block_on(request.send()).unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    let health = lab
        .runtime
        .block_on(client.get(format!("{url}/healthz")).send())
        .unwrap();
    assert!(health.status().is_success());
    assert!(lab.announced().is_empty());
    lab.end(door);
}

#[test]
fn a_door_that_everybody_could_use_is_not_opened() {
    let lab = Lab::start();
    let public = |token, tls| DoorSettings {
        address: "0.0.0.0:0".parse().unwrap(),
        ..settings(token, tls)
    };
    let open = lab.open(public(None, None)).unwrap_err();
    assert!(matches!(open, DoorError::Open { .. }), "{open}");
    let clear = lab.open(public(Some(TOKEN), None)).unwrap_err();
    assert!(matches!(clear, DoorError::Clear { .. }), "{clear}");
    let missing = TlsFiles {
        certificate: lab.folder.path().join("none.pem"),
        key: lab.folder.path().join("none.key"),
        client_ca: None,
    };
    let tls = lab.open(public(Some(TOKEN), Some(missing))).unwrap_err();
    assert!(tls.to_string().contains("none.pem"), "{tls}");
}

#[test]
fn with_mutual_tls_only_callers_with_a_certificate_come_in() {
    let lab = Lab::start();
    let folder = lab.folder.path();
    let ca = Authority::new("the lab's authority");
    let stranger = Authority::new("another authority");
    let door_files = ca.sign(folder, "localhost");
    let client_ca = folder.join("ca.pem");
    std::fs::write(&client_ca, ca.certificate.to_pem().unwrap()).unwrap();
    let files = TlsFiles {
        certificate: door_files.certificate.clone(),
        key: door_files.key.clone(),
        client_ca: Some(client_ca),
    };
    let door = lab.open(settings(None, Some(files))).unwrap();
    let url = format!("https://localhost:{}/v1/plates", door.address().port());
    let root = reqwest::Certificate::from_pem(&ca.certificate.to_pem().unwrap()).unwrap();
    let call = |signed: Option<Signed>| {
        let mut client = Client::builder().add_root_certificate(root.clone());
        if let Some(Signed { certificate, key }) = signed {
            let (certificate, key) = (std::fs::read(certificate).unwrap(), std::fs::read(key).unwrap());
            client = client.identity(reqwest::Identity::from_pkcs8_pem(&certificate, &key).unwrap());
        }
        let request = client.build().unwrap().post(&url);
        let request = request
            .header("content-type", EVENTS)
            .body(event(&json!({ "plate": "P1" })));
        lab.runtime.block_on(request.send())
    };
    assert!(call(None).is_err());
    assert!(call(Some(stranger.sign(folder, "stranger"))).is_err());
    let answer = call(Some(ca.sign(folder, "scheduler"))).unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(lab.announced().len(), 1);
    lab.end(door);
}

/// A checked screen, for a run to be submitted with.
fn screen() -> wellspring_workloads::screen::Screen {
    let text = r#"
        [screen]
        name = "pilot"
        [images]
        store = "/plates"
        layout = "imagexpress"
        channels = [{ name = "DNA", match = "w1" }]
        [plate_map]
        file = "/map.csv"
        [controls]
        reference = { role = "healthy" }
        phenotype = { role = "disease" }
    "#;
    wellspring_workloads::screen::Screen::parse(text, "pilot.toml").unwrap()
}

struct Authority {
    key: PKey<Private>,
    certificate: X509,
}

struct Signed {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let certificate = certificate(name, &key, None);
        Self { key, certificate }
    }

    fn sign(&self, folder: &Path, name: &str) -> Signed {
        let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
        let signed = Signed {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        let certificate = certificate(name, &key, Some(self));
        std::fs::write(&signed.certificate, certificate.to_pem().unwrap()).unwrap();
        std::fs::write(&signed.key, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        signed
    }
}

fn certificate(name: &str, key: &PKey<Private>, by: Option<&Authority>) -> X509 {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(120, MsbOption::MAYBE_ZERO, false).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::days_from_now(1).unwrap())
        .unwrap();
    builder.set_pubkey(key).unwrap();
    match by {
        Some(authority) => {
            builder
                .set_issuer_name(authority.certificate.subject_name())
                .unwrap();
            let context = builder.x509v3_context(Some(&authority.certificate), None);
            let names = SubjectAlternativeName::new().dns(name).build(&context).unwrap();
            builder.append_extension(names).unwrap();
            builder.sign(&authority.key, MessageDigest::sha256()).unwrap();
        }
        None => {
            builder.set_issuer_name(&subject).unwrap();
            let ca = BasicConstraints::new().critical().ca().build().unwrap();
            builder.append_extension(ca).unwrap();
            builder.sign(key, MessageDigest::sha256()).unwrap();
        }
    }
    builder.build()
}
