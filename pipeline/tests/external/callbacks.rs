//! Web services that POST their answers: in time, twice, too late, to the wrong address, and in whole runs.

use std::sync::Arc;

use serde_json::{Value, json};
use wellspring::external::ExternalError;
use wellspring::external::callbacks::Callbacks;
use wellspring::external::http::{Http, Later};
use wellspring::external::services::Patience;

use crate::adapters::{request, runtime, serve, step};
use crate::common::{models, rows_of, run_json};
use crate::{example, external_screen, run};

/// Says 202 and then calls back, by the well it is asked about; what it was told is served at `/told`.
const SERVICE: &str = r#"
import json, socket, threading, time, urllib.error, urllib.parse, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
told, addresses = {}, {}
def post(well, url, body):
    if not isinstance(body, bytes): body = json.dumps(body).encode()
    try: code = urllib.request.urlopen(urllib.request.Request(url, body), timeout=30).status
    except urllib.error.HTTPError as error: code = error.code
    except OSError as error: code = type(error).__name__
    told.setdefault(well, []).append(code)
def work(r):
    well, url, id = r['well'], r['callback'], r['correlation_id']
    addresses.setdefault(well, []).append(url)
    good = {'correlation_id': id, 'features': {'n': 1}}
    say = lambda body, url=url: post(well, url, body)
    if well == 'A01': say({'correlation_id': id, 'heartbeat': True}); say(good)
    elif well == 'A02': say(good); say(good)
    elif well == 'A03': time.sleep(1.5); say(good)
    elif well == 'A04': say(dict(good, correlation_id='another#1')); say({'features': {'n': 4}})
    elif well == 'A05': say(good, url[:-1] + ('0' if url[-1] != '0' else '1')); say(good, url.rsplit('/', 1)[0]); say(good)
    elif well == 'A06': say(b'no JSON')
    elif well == 'A07': say({'correlation_id': id, 'error': 'no cells'})
    elif well == 'A08':
        for _ in range(4): time.sleep(0.2); say({'heartbeat': True})
        say(good)
    elif well == 'A09': say(b'"' + b'x' * (17 << 20) + b'"')
    elif well == 'A11':
        to = urllib.parse.urlparse(url)
        with socket.create_connection((to.hostname, to.port)) as broken:
            broken.sendall(f'POST {to.path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{"features"'.encode())
            time.sleep(0.3)
        time.sleep(0.3); say(good)
    elif well == 'A10' and r['attempt'] == 2: say(dict(good, correlation_id=id.replace('#2', '#1')))
class Handler(BaseHTTPRequestHandler):
    def reply(self, status, body=b''):
        self.send_response(status); self.send_header('Content-Length', str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        r = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        if r['well'] == 'H01': work(r); time.sleep(30)
        elif r['well'] == 'H02': return self.reply(200, json.dumps({'features': {'n': 2}}).encode())
        elif r['well'] == 'H03': return self.reply(503)
        if r['well'] == 'A02': work(r)
        else: threading.Thread(target=work, args=(r,), daemon=True).start()
        self.reply(202)
    def do_GET(self): self.reply(200, json.dumps([told, addresses]).encode())
    def log_message(self, *values): pass
server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print('listening on', server.server_address[1], flush=True)
server.serve_forever()
"#;

#[test]
fn a_service_that_calls_back_is_heard_and_told_what_became_of_its_answer() {
    let (_service, url) = serve(&["-c", SERVICE]);
    let runtime = runtime();
    let address = "127.0.0.1:0".parse().unwrap();
    let callbacks = runtime.block_on(Callbacks::open(address, None)).unwrap();
    let open = Http::open(&url, Later::Callback(Arc::clone(&callbacks))).unwrap();
    let try_again = |well: &str, ms: u64, heartbeat: Option<u64>, attempt: u32| {
        let step = step(&["n"], ms, heartbeat);
        let answer = runtime.block_on(open.ask(&request(&step, well, attempt), Patience::of(&step)));
        answer.and_then(|answer| Ok(answer.columns(&step)?))
    };
    let ask = |well: &str, ms: u64| try_again(well, ms, None, 1);
    assert_eq!(ask("A01", 60_000).unwrap(), [1.0]);
    assert_eq!(ask("A02", 60_000).unwrap(), [1.0], "before it has said 202");
    let late = ask("A03", 500).unwrap_err();
    assert!(
        matches!(
            late,
            ExternalError::Deadline {
                ms: 500,
                accepted: true
            }
        ),
        "{late}"
    );
    assert_eq!(ask("A04", 60_000).unwrap(), [4.0]);
    assert_eq!(ask("A05", 60_000).unwrap(), [1.0]);
    assert_eq!(
        ask("A11", 60_000).unwrap(),
        [1.0],
        "sent again after its connection broke"
    );
    for (well, part) in [
        ("A06", "cannot be read"),
        ("A07", "no cells"),
        ("A09", "more than 16 MiB"),
    ] {
        let error = ask(well, 60_000).unwrap_err();
        assert!(
            error.to_string().contains(part) && !error.may_pass(),
            "{well}: {error}"
        );
    }
    // 0.8 s of work with 0.6 s of patience between two signs of life.
    assert_eq!(try_again("A08", 60_000, Some(600), 1).unwrap(), [1.0]);
    let silent = try_again("A10", 60_000, Some(300), 1).unwrap_err();
    assert!(matches!(silent, ExternalError::Silent { ms: 300 }), "{silent}");
    let second = try_again("A10", 60_000, None, 2).unwrap();
    assert_eq!(
        second,
        [1.0],
        "an answer to the first attempt is one to the second"
    );
    // Answered at once, refused, and without an answer to the request itself.
    assert_eq!(ask("H02", 60_000).unwrap(), [2.0]);
    assert!(
        ask("H03", 60_000)
            .unwrap_err()
            .to_string()
            .contains("answered 503")
    );

    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let said = runtime.block_on(async { reqwest::get(&url).await.unwrap().text().await.unwrap() });
    let said: Value = serde_json::from_str(&said).unwrap();
    for (well, codes) in [
        ("A01", json!([200, 200])),
        ("A02", json!([200, 200])),
        ("A03", json!([410])),
        ("A04", json!([409, 200])),
        ("A05", json!([404, 404, 200])),
        ("A06", json!([400])),
        ("A07", json!([200])),
        ("A08", json!([200, 200, 200, 200, 200])),
        ("A10", json!([200])),
        ("A11", json!([200])),
    ] {
        assert_eq!(said[0][well], codes, "{well}: {said}");
    }
    // Both attempts at the same work have one address, which other work has not, nor another process.
    let address = |well: &str, at: usize| said[1][well][at].as_str().unwrap().to_owned();
    assert_eq!(address("A10", 0), address("A10", 1));
    assert_ne!(address("A01", 0), address("A02", 0));
    assert_eq!(address("A01", 0).rsplit('/').next().unwrap().len(), 40);
    let other = runtime
        .block_on(Callbacks::open(
            "127.0.0.1:0".parse().unwrap(),
            Some("https://lab/cb/"),
        ))
        .unwrap();
    assert_eq!(other.url(), "https://lab/cb");
    for (address, url, part) in [
        ("0.0.0.0:0", None, "--callback-url"),
        ("127.0.0.1:0", Some("ftp://x"), "no http://"),
    ] {
        let error = runtime
            .block_on(Callbacks::open(address.parse().unwrap(), url))
            .unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_run_finds_by_callbacks_what_it_finds_by_a_command_and_needs_a_listener() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let screen = external_screen(folder.path());
    let text = std::fs::read_to_string(&screen).unwrap();
    let command = format!("command = [\"python3\", \"{}\"]", example());
    let (_service, url) = serve(&[&example(), "--http", "0"]);
    let back = format!("url = \"{url}\"\nreply = \"callback\"\nin_flight = 8");
    let statistics = |out: &str| {
        let rows = rows_of(&folder.path().join(out).join("features.parquet"));
        let of = |row: &Value| format!("{} {}", row["Metadata_Well"], row["statistics_AGP_sd"]);
        rows.iter().map(of).collect::<Vec<_>>()
    };
    let (code, summary) = run_json(&mut run(&models, &screen, &folder.path().join("command")));
    assert_eq!(code, 0, "{summary}");
    std::fs::write(&screen, text.replace(&command, &back)).unwrap();
    let deaf = run(&models, &screen, &folder.path().join("deaf"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&deaf.stderr);
    assert!(
        deaf.status.code() == Some(2)
            && said.contains("step 'statistics'")
            && said.contains("--callback-listen"),
        "{said}"
    );
    let mut calls_back = run(&models, &screen, &folder.path().join("back"));
    let (code, summary) = run_json(calls_back.args(["--callback-listen", "127.0.0.1:0"]));
    assert_eq!(
        (code, summary["fields_done"].as_u64()),
        (0, Some(96)),
        "{summary}"
    );
    assert!(statistics("back") == statistics("command"));
}
