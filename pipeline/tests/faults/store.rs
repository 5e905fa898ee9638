//! An object store that is away for a while: a small server of the S3 protocol that refuses a number of requests.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::topics::Topic;

use crate::common::{models, run_json, start_broker};
use crate::{FIELDS, assert_each_once, few_wells, records, run};

/// Reads refused before the store is back: more than all fields try within the worker.
const REFUSED: usize = 110;

#[test]
fn an_object_store_that_refuses_for_a_while_costs_no_field() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    few_wells(folder.path());
    let screen = folder.path().join("plates/screen.toml");
    let text = std::fs::read_to_string(&screen).unwrap();
    assert!(text.contains("store = \"images\""));
    std::fs::write(
        &screen,
        text.replace("store = \"images\"", "store = \"s3://lab\""),
    )
    .unwrap();
    let refuse = Arc::new(AtomicUsize::new(REFUSED));
    let endpoint = serve(folder.path().join("plates/images"), refuse.clone());
    let (_broker, bootstrap) = start_broker(&models, &folder.path().join("broker"));
    let mut command = run(&models, folder.path(), &bootstrap, "refused");
    command
        .args(["--retry-delays", "0,0,0,0,0,0,0"])
        .env("AWS_ENDPOINT", endpoint)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "x")
        .env("AWS_REGION", "x");
    let (code, summary) = run_json(&mut command);
    assert_eq!(
        (code, &summary["fields_done"]),
        (0, &Value::from(FIELDS)),
        "{summary}"
    );
    assert_eq!(
        refuse.load(Ordering::Relaxed),
        0,
        "the store refused less than it should"
    );
    let kafka = KafkaSettings::new(&bootstrap, "refused", "test");
    assert!(!records(&kafka, Topic::Retries).is_empty());
    assert_each_once(&kafka, Topic::Features, FIELDS);
}

/// Serves the files below `root` as the bucket `lab`; the first `refuse` reads of whole files are answered with `SlowDown`:
/// those of the planner, which looks at a file's beginning only, are not counted. Ends with the test's process.
fn serve(root: PathBuf, refuse: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (root, refuse) = (root.clone(), refuse.clone());
            std::thread::spawn(move || answer(connection.unwrap(), &root, &refuse));
        }
    });
    endpoint
}

/// One request, one answer. A client that goes away in between is none of the test's business.
fn answer(mut connection: TcpStream, root: &Path, refuse: &AtomicUsize) -> Option<()> {
    let mut lines = BufReader::new(connection.try_clone().ok()?).lines();
    let request = lines.next()?.ok()?;
    let mut range = None;
    loop {
        let line = lines.next()?.ok()?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            let (from, to) = bytes.split_once('-')?;
            range = Some((from.parse::<usize>().ok()?, to.parse::<usize>().ok()?));
        }
    }
    let target = request.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let key = path
        .trim_start_matches('/')
        .trim_start_matches("lab")
        .trim_start_matches('/');
    let mut of = String::new();
    let (status, body) = if query.contains("list-type=2") {
        let prefix = query
            .split('&')
            .find_map(|part| part.strip_prefix("prefix="))
            .unwrap_or_default()
            .replace("%2F", "/");
        ("200 OK", listing(root, &prefix).into_bytes())
    } else if let Some((from, to)) = range {
        let bytes = std::fs::read(root.join(key)).ok()?;
        let to = (to + 1).min(bytes.len());
        of = format!("Content-Range: bytes {from}-{}/{}\r\n", to - 1, bytes.len());
        ("206 Partial Content", bytes.get(from..to)?.to_vec())
    } else if refuse
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
        .is_ok()
    {
        let error = "<Error><Code>SlowDown</Code><Message>later</Message></Error>";
        ("503 Service Unavailable", error.as_bytes().to_vec())
    } else {
        match std::fs::read(root.join(key)) {
            Ok(bytes) => ("200 OK", bytes),
            Err(_) => ("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>".to_vec()),
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\n{of}Content-Length: {}\r\nETag: \"1\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).ok()?;
    connection.write_all(&body).ok()
}

fn listing(root: &Path, prefix: &str) -> String {
    let mut contents = String::new();
    for plate in std::fs::read_dir(root).unwrap() {
        let plate = plate.unwrap();
        for image in std::fs::read_dir(plate.path()).unwrap() {
            let image = image.unwrap();
            let key = format!(
                "{}/{}",
                plate.file_name().to_str().unwrap(),
                image.file_name().to_str().unwrap()
            );
            if key.starts_with(prefix) {
                contents.push_str(&format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>1</ETag>\
                     <Size>{}</Size></Contents>",
                    image.metadata().unwrap().len()
                ));
            }
        }
    }
    format!(
        "<?xml version=\"1.0\"?><ListBucketResult><Name>lab</Name><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
    )
}
