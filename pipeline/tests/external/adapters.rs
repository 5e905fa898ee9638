//! Command, web service and topics by themselves: answers that are late, wrong, repeated, or announced.

use std::io::{BufRead, BufReader};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message};
use serde_json::{Value, json};
use wellspring::external::ExternalError;
use wellspring::external::command::Command;
use wellspring::external::http::{Http, Later};
use wellspring::external::protocol::{Request, RequestImages};
use wellspring::external::services::Patience;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::exchange::{Exchange, create_missing};
use wellspring_broker::EmbeddedBroker;
use wellspring_workloads::screen::ExternalStep;
use wellspring_workloads::screen::graph::Level;

use crate::common::{Running, wait_for};
use crate::example;

pub(crate) fn step(columns: &[&str], deadline_ms: u64, heartbeat_ms: Option<u64>) -> ExternalStep {
    serde_json::from_value(json!({
        "name": "s", "kind": "external", "inputs": ["images"], "columns": columns, "deadline_ms": deadline_ms,
        "attempts": 1, "backoff_ms": 1, "heartbeat_ms": heartbeat_ms, "in_flight": 1,
        "service": { "http": { "url": "http://x", "poll_ms": 1 } },
    }))
    .unwrap()
}

pub(crate) fn request(step: &ExternalStep, well: &str, attempt: u32) -> Request {
    let mut request = Request {
        run: "r".to_owned(),
        step: step.name.clone(),
        level: Level::Field,
        plate: Some("P".parse().unwrap()),
        well: Some(well.parse().unwrap()),
        field: Some(1),
        images: Vec::new(),
        inputs: serde_json::Map::new(),
        columns: step.columns.clone(),
        attempt: 0,
        deadline_ms: 0,
        correlation_id: String::new(),
        idempotency_id: format!("r/P/{well}/1/s/c"),
        callback: None,
    };
    request.begin(attempt, step);
    request
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

fn python(body: &str) -> Vec<String> {
    let program = format!(
        "import json, sys, time, os\n\
         def say(r, **more):\n    print(json.dumps(dict(correlation_id=r['correlation_id'], **more)), flush=True)\n\
         for line in sys.stdin:\n    r = json.loads(line); well = r['well']\n{body}\n"
    );
    ["python3", "-c", &program].map(str::to_owned).to_vec()
}

#[test]
fn a_command_is_ended_and_started_anew_where_it_is_late_silent_or_out_of_form() {
    let command = python(
        "    if well == 'A01': time.sleep(60)\n    \
         elif well == 'A02': print('loading', flush=True)\n    \
         elif well == 'A03': print('out of memory', file=sys.stderr, flush=True); os._exit(7)\n    \
         elif well == 'A04': say(dict(correlation_id='r/P/Z/1#1'), features=dict(n=1)); say(r, features=dict(n=4))\n    \
         elif well == 'A05': [(time.sleep(0.15), say(r, heartbeat=True)) for _ in range(4)]; say(r, features=dict(n=5))\n    \
         else: say(r, features=dict(n=os.getpid()))",
    );
    let short = step(&["n"], 2_000, None);
    let watched = step(&["n"], 60_000, Some(500));
    let open = Command::open(&command, 1).unwrap();
    let runtime = runtime();
    let ask = |step: &ExternalStep, well: &str| {
        let answer = runtime.block_on(open.ask(&request(step, well, 1), Patience::of(step)));
        answer.and_then(|answer| Ok(answer.columns(step)?))
    };
    let first = ask(&watched, "H01").or_else(|_| ask(&short, "H01")).unwrap();
    assert_eq!(ask(&short, "H02").unwrap(), first, "the process stays");
    let late = ask(&short, "A01").unwrap_err();
    assert!(
        matches!(
            late,
            ExternalError::Deadline {
                ms: 2_000,
                accepted: false
            }
        ) && late.may_pass(),
        "{late}"
    );
    assert_ne!(ask(&short, "H03").unwrap(), first, "another process");
    let wrong = ask(&short, "A02").unwrap_err();
    assert!(
        wrong
            .to_string()
            .contains("loading; standard output is for answers")
            && !wrong.may_pass(),
        "{wrong}"
    );
    let ended = ask(&short, "A03").unwrap_err();
    assert!(
        ended.to_string().contains("exit status: 7") && ended.to_string().contains("out of memory"),
        "{ended}"
    );
    assert!(ended.may_pass());
    assert_eq!(
        ask(&short, "A04").unwrap(),
        [4.0],
        "an answer to another request is passed over"
    );
    // Signs of life count: 0.6 s of work with 0.5 s of patience between two of them.
    ask(&short, "H04").unwrap();
    assert_eq!(ask(&watched, "A05").unwrap(), [5.0]);
    let silent = ask(&watched, "A01").unwrap_err();
    assert!(matches!(silent, ExternalError::Silent { ms: 500 }), "{silent}");
    drop(open);

    let absent = Command::open(&["no-such-program".to_owned()], 1).unwrap();
    let error = runtime
        .block_on(absent.ask(&request(&short, "A01", 1), Patience::of(&short)))
        .unwrap_err();
    assert!(
        error.to_string().contains("'no-such-program' cannot be started") && !error.may_pass(),
        "{error}"
    );
}

#[test]
fn a_command_and_what_it_started_are_gone_when_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids");
    let command = [
        "sh".to_owned(),
        "-c".to_owned(),
        format!(
            "sleep 1000 & echo $! > {0}; echo $$ >> {0}; sleep 1000",
            pids.display()
        ),
    ];
    let short = step(&["n"], 500, None);
    let open = Command::open(&command, 1).unwrap();
    let late = runtime().block_on(open.ask(&request(&short, "A01", 1), Patience::of(&short)));
    assert!(matches!(late, Err(ExternalError::Deadline { .. })));
    drop(open);
    let text = std::fs::read_to_string(&pids).unwrap();
    assert_eq!(text.lines().count(), 2);
    for pid in text.lines() {
        // A zombie that another process is to collect has ended as well.
        wait_for("the end of what the command started", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.is_empty() || status.contains("State:\tZ")
        });
    }
}

/// A Python web service that prints its port.
pub(crate) fn serve(arguments: &[&str]) -> (Running, String) {
    let child = Process::new("python3")
        .args(arguments)
        .stdout(Stdio::piped())
        // What it says of a client that hung up.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = line
        .trim()
        .strip_prefix("listening on ")
        .unwrap_or_else(|| panic!("{line}"));
    (child, format!("http://127.0.0.1:{port}/"))
}

const SERVICE: &str = r#"
import json, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
asked = {}
class Handler(BaseHTTPRequestHandler):
    def reply(self, status, body, **headers):
        body = body.encode()
        self.send_response(status)
        for name, value in headers.items(): self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        r = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Idempotency-Key"] == r["idempotency_id"]
        good = json.dumps({"correlation_id": r["correlation_id"], "features": {"n": 1}})
        well = r["well"]
        if well == "A01": self.reply(200, good)
        elif well == "A02": self.reply(202, "", Location="/jobs/1"); asked["/jobs/1"] = good
        elif well == "A03": self.reply(503, "warming up")
        elif well == "A04": self.reply(400, "no such channel")
        elif well == "A05": time.sleep(30)
        elif well == "A06": self.reply(202, "", Location="/jobs/never")
        elif well == "A07": self.reply(202, "")
        elif well == "A08": self.reply(200, json.dumps({"correlation_id": "another#1", "features": {"n": 1}}))
        elif well == "A09": self.reply(200, "x" * (17 << 20))
        elif well == "A10": self.reply(302, "", Location="/elsewhere")
    def do_GET(self):
        count = asked.get("n" + self.path, 0); asked["n" + self.path] = count + 1
        if self.path in asked and count >= 2: self.reply(200, asked[self.path])
        else: self.reply(202, "", **({"Location": self.path} if count else {}))
    def log_message(self, *values): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print("listening on", server.server_address[1], flush=True)
server.serve_forever()
"#;

#[test]
fn a_web_service_answers_at_once_or_later_or_says_why_not() {
    let (_service, url) = serve(&["-c", SERVICE]);
    let runtime = runtime();
    let open = Http::open(&url, Later::Poll(Duration::from_millis(20))).unwrap();
    let ask = |well: &str, ms: u64| {
        let step = step(&["n"], ms, None);
        let answer = runtime.block_on(open.ask(&request(&step, well, 1), Patience::of(&step)));
        answer.and_then(|answer| Ok(answer.columns(&step)?))
    };
    assert_eq!(ask("A01", 60_000).unwrap(), [1.0]);
    assert_eq!(ask("A02", 60_000).unwrap(), [1.0], "asked for until it is there");
    for (well, ms, part, again) in [
        ("A03", 60_000, "503: warming up", true),
        ("A04", 60_000, "400: no such channel", false),
        ("A05", 500, "no answer within 500 ms", true),
        (
            "A06",
            500,
            "no answer within 500 ms, though the service said 202",
            true,
        ),
        ("A07", 60_000, "202 without a Location", false),
        ("A08", 60_000, "that of another request", false),
        ("A09", 60_000, "more than 16 MiB", false),
        ("A10", 60_000, "answered 302", false),
    ] {
        let error = ask(well, ms).unwrap_err();
        assert!(error.to_string().contains(part), "{well}: {error}");
        assert_eq!(error.may_pass(), again, "{well}: {error}");
    }
    let nowhere = Http::open("http://127.0.0.1:1/", Later::Poll(Duration::from_millis(20))).unwrap();
    let step = step(&["n"], 60_000, None);
    let error = runtime
        .block_on(nowhere.ask(&request(&step, "A01", 1), Patience::of(&step)))
        .unwrap_err();
    assert!(
        error.may_pass() && error.to_string().contains("cannot be reached"),
        "{error}"
    );
}

#[test]
fn the_example_reads_tiff_and_png_alike() {
    let folder = tempfile::tempdir().unwrap();
    // Grey levels that use both bytes, in a size no strip divides.
    let (width, height) = (37, 23);
    let pixels: Vec<u16> = (0..width * height)
        .map(|i| ((i * 7_919) % 65_521) as u16)
        .collect();
    let mean = pixels.iter().map(|level| f64::from(*level)).sum::<f64>() / pixels.len() as f64;
    let mut images = Vec::new();
    let name = |name: &str| folder.path().join(name);
    {
        use tiff::encoder::{Compression, DeflateLevel, Predictor, TiffEncoder, colortype::Gray16};
        for (file, compression, predictor) in [
            ("plain.tif", Compression::Uncompressed, Predictor::None),
            (
                "packed ü#.tif",
                Compression::Deflate(DeflateLevel::Fast),
                Predictor::None,
            ),
            (
                "predicted.tif",
                Compression::Deflate(DeflateLevel::Fast),
                Predictor::Horizontal,
            ),
        ] {
            let out = std::fs::File::create(name(file)).unwrap();
            let mut encoder = TiffEncoder::new(out)
                .unwrap()
                .with_compression(compression)
                .with_predictor(predictor);
            encoder
                .write_image::<Gray16>(width as u32, height as u32, &pixels)
                .unwrap();
            images.push(file);
        }
    }
    let grey =
        image::ImageBuffer::<image::Luma<u16>, _>::from_raw(width as u32, height as u32, pixels.clone())
            .unwrap();
    grey.save(name("grey.png")).unwrap();
    images.push("grey.png");

    let step = step(&["DNA_mean", "DNA_max"], 60_000, None);
    let (_service, url) = serve(&[&example(), "--http", "0"]);
    let open = Http::open(&url, Later::Poll(Duration::from_millis(20))).unwrap();
    for file in images {
        let mut request = request(&step, "A01", 1);
        let path = format!(
            "{}/{}",
            folder.path().display(),
            file.replace('#', "%23")
                .replace(' ', "%20")
                .replace('ü', "%C3%BC")
        );
        let channel = "DNA".parse().unwrap();
        request.images = vec![RequestImages {
            field: None,
            channel,
            uris: vec![format!("file://{path}")],
        }];
        let answer = runtime()
            .block_on(open.ask(&request, Patience::of(&step)))
            .unwrap()
            .columns(&step)
            .unwrap();
        assert!(
            (f64::from(answer[0]) - mean).abs() < 0.01,
            "{file}: {answer:?} {mean}"
        );
        assert_eq!(answer[1], f32::from(*pixels.iter().max().unwrap()), "{file}");
    }
    let mut absent = request(&step, "A01", 1);
    let channel = "DNA".parse().unwrap();
    absent.images = vec![RequestImages {
        field: None,
        channel,
        uris: vec!["file:///no/such.tif".to_owned()],
    }];
    let error = runtime()
        .block_on(open.ask(&absent, Patience::of(&step)))
        .unwrap()
        .columns(&step)
        .unwrap_err();
    assert!(error.to_string().contains("No such file"), "{error}");
}

/// A service on a pair of topics: answers by well, and repeats itself.
fn answer_requests(bootstrap: &str, stop: &std::sync::atomic::AtomicBool) -> Vec<Value> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "lab")
        .set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().unwrap();
    consumer.subscribe(&["lab.requests"]).unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let say = |text: String| {
        producer
            .send(BaseRecord::to("lab.responses").key("k").payload(&text))
            .unwrap()
    };
    let mut seen = Vec::new();
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let request: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let id = request["correlation_id"].clone();
        let answer = json!({ "correlation_id": id, "features": { "n": 7 } }).to_string();
        match (request["well"].as_str().unwrap(), request["attempt"].as_u64()) {
            ("A01", _) => (0..3).for_each(|_| say(answer.clone())),
            ("A02", Some(1)) => {}
            // The answer to the attempt that was given up comes when the second one is waited for.
            ("A02", _) => say(answer.replace("#2", "#1")),
            ("A03", _) => {
                say("not json".to_owned());
                say(json!({ "correlation_id": id, "heartbeat": true }).to_string());
                say(json!({ "correlation_id": id, "error": "no cells" }).to_string());
            }
            _ => {}
        }
        producer.flush(Duration::from_secs(10)).unwrap();
        seen.push(request);
    }
    seen
}

#[test]
fn the_first_answer_on_the_topic_counts_and_others_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime();
    let broker = runtime
        .block_on(EmbeddedBroker::start(folder.path(), "127.0.0.1:0"))
        .unwrap();
    let bootstrap = broker.bootstrap().to_string();
    let kafka = KafkaSettings::new(bootstrap.clone(), "test", "t");
    runtime
        .block_on(create_missing(&kafka, ["lab.requests", "lab.responses"]))
        .unwrap();
    let exchange = Exchange::open(&kafka, "lab.requests", "lab.responses").unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let service = {
        let stop = stop.clone();
        std::thread::spawn(move || answer_requests(&bootstrap, &stop))
    };
    let ask = |well: &str, attempt, ms| {
        let step = step(&["n"], ms, None);
        let answer = runtime.block_on(exchange.ask(&request(&step, well, attempt), Patience::of(&step)));
        answer.and_then(|answer| Ok(answer.columns(&step)?))
    };
    assert_eq!(ask("A01", 1, 60_000).unwrap(), [7.0]);
    let began = Instant::now();
    let late = ask("A02", 1, 1_500).unwrap_err();
    assert!(
        matches!(late, ExternalError::Deadline { .. }) && began.elapsed() >= Duration::from_millis(1_500),
        "{late}"
    );
    assert_eq!(
        ask("A02", 2, 60_000).unwrap(),
        [7.0],
        "an answer to the first attempt is one to the second"
    );
    let refused = ask("A03", 1, 60_000).unwrap_err();
    assert!(refused.to_string().contains("no cells"), "{refused}");
    // What came two times more belongs to nobody, also not to the same work asked again.
    assert_eq!(ask("A01", 1, 60_000).unwrap(), [7.0]);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let seen = service.join().unwrap();
    let asked: Vec<_> = seen
        .iter()
        .map(|request| request["correlation_id"].as_str().unwrap())
        .collect();
    let expected = [
        "r/P/A01/1/s/c#1",
        "r/P/A02/1/s/c#1",
        "r/P/A02/1/s/c#2",
        "r/P/A03/1/s/c#1",
        "r/P/A01/1/s/c#1",
    ];
    assert_eq!(asked, expected);
    drop(exchange);
    runtime.block_on(broker.shutdown()).unwrap();
}
