//! Steps of wells, plates and the screen in whole runs: by every adapter, with failures, retries and a crash in between.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use wellspring::kafka::KafkaSettings;
use wellspring::kafka::exchange::create_missing;

use crate::adapters::serve;
use crate::common::{
    Running, dead_letters, few_wells, models, rows_of, run_json, start_broker, wait_for, wellspring,
};
use crate::services::pass_on;
use crate::{example, run};

/// Answers at every level, refuses what the file `refuse` beside its log names, and logs requests. With `--http` it is a
/// web service.
const PROGRAM: &str = r#"
import json, os, sys
log = sys.argv[1]
def answer(r):
    with open(log, 'a') as file: file.write(json.dumps(r) + '\n')
    refuse = os.path.join(os.path.dirname(log), 'refuse')
    about = [r['step'], r['step'] + ' ' + r.get('well', '-')]
    a = {'correlation_id': r['correlation_id']}
    if os.path.exists(refuse) and any(line.strip() in about for line in open(refuse)):
        return dict(a, error='not today')
    i = r['inputs']
    if r['level'] == 'well':
        f = i['aggregate']['features']
        a['features'] = dict(fields=i['aggregate']['fields'], mean=f['statistics_DNA_mean'],
            same=i['statistics']['DNA_mean'], images=sum(len(image['uris']) for image in r['images']),
            dose=i['plate_map'].get('dose') or 0)
    elif r['level'] == 'plate' and r['columns']:
        a['wells'] = {well: {'column': int(well[1:])} for well in i['aggregate']['wells']}
    elif r['level'] == 'plate':
        a['acknowledged'] = True
    else:
        a['result'] = dict(tables=sorted(i['export']['files']), calls=len(i['compare']['compounds']))
    return a
if sys.argv[2:] == ['--http']:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.dumps(answer(json.loads(self.rfile.read(int(self.headers['Content-Length']))))).encode()
            self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers()
            self.wfile.write(body)
        def log_message(self, *values): pass
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    print('listening on', server.server_address[1], flush=True)
    server.serve_forever()
for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
"#;

/// A screen of 24 wells with a step of each level, in the order in which they are not asked.
struct Levels {
    folder: tempfile::TempDir,
}

impl Levels {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        few_wells(folder.path(), "\"DNA\"");
        std::fs::write(folder.path().join("levels.py"), PROGRAM).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> PathBuf {
        self.path("requests.jsonl")
    }

    fn command(&self) -> String {
        format!("command = [\"python3\", \"./levels.py\", {:?}]", self.log())
    }

    /// `well`, `plate` and `screen` say how the step of the level is reached.
    fn screen(&self, name: &str, [well, plate, screen]: [&str; 3]) -> PathBuf {
        let text = std::fs::read_to_string(self.path("plates/screen.toml")).unwrap();
        let step = |name: &str, keys: &str| {
            format!(
                "[[steps]]\nname = \"{name}\"\nkind = \"external\"\ndeadline = \"60s\"\nbackoff = \"10ms\"\n{keys}\n"
            )
        };
        let of_fields = format!(
            "columns = [\"DNA_mean\"]\ncommand = [\"python3\", \"{}\"]",
            example()
        );
        let steps = [
            step(
                "notebook",
                &format!("level = \"screen\"\ninputs = [\"export\", \"compare\", \"lims\"]\n{screen}"),
            ),
            step("lims", &format!("level = \"plate\"\ncolumns = []\n{plate}")),
            step(
                "place",
                &format!(
                    "level = \"plate\"\ninputs = [\"aggregate\", \"shape\", \"plate_map\"]\ncolumns = [\"column\"]\n{plate}"
                ),
            ),
            step(
                "shape",
                &format!(
                    "level = \"well\"\ninputs = [\"aggregate\", \"images\", \"plate_map\", \"statistics\"]\n\
                     columns = [\"fields\", \"mean\", \"same\", \"images\", \"dose\"]\n{well}"
                ),
            ),
            step("statistics", &of_fields),
        ];
        let named = text.replacen("name = \"small\"", &format!("name = \"{name}\""), 1);
        assert_ne!(named, text);
        let file = self.path("plates").join(format!("{name}.toml"));
        std::fs::write(&file, format!("{named}\n{}", steps.concat())).unwrap();
        std::fs::copy(self.path("levels.py"), self.path("plates/levels.py")).unwrap();
        file
    }

    /// What was asked so far, and nothing of it from now on.
    fn asked(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let _none_yet = std::fs::remove_file(self.log());
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn refuse(&self, lines: &str) {
        std::fs::write(self.path("refuse"), lines).unwrap();
    }
}

fn ids(asked: &[Value], step: &str) -> BTreeSet<String> {
    let of_step = asked.iter().filter(|request| request["step"] == step);
    of_step
        .map(|request| request["idempotency_id"].as_str().unwrap().to_owned())
        .collect()
}

fn run_file(out: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(out.join("run.json")).unwrap()).unwrap()
}

/// Steps with what was answered, failed and not asked.
fn outcomes(out: &Path) -> Vec<(String, [u64; 3])> {
    let file = run_file(out);
    let of = |outcome: &Value| {
        let count = |key: &str| outcome[key].as_u64().unwrap();
        let step = outcome["step"].as_str().unwrap().to_owned();
        (step, ["answered", "failed", "not_asked"].map(count))
    };
    file["external"].as_array().unwrap().iter().map(of).collect()
}

fn outcome(step: &str, counts: [u64; 3]) -> (String, [u64; 3]) {
    (step.to_owned(), counts)
}

#[test]
fn wells_plates_and_the_screen_are_asked_by_every_adapter_and_again_under_the_same_ids_after_a_crash() {
    let Some(models) = models() else { return };
    let levels = Levels::new();
    let program = levels.path("levels.py").display().to_string();
    let log = levels.log().display().to_string();
    let (_service, url) = serve(&[&program, &log, "--http"]);
    let (_broker, bootstrap) = start_broker(&models, &levels.path("broker"));
    let kafka = KafkaSettings::new(bootstrap.clone(), "test", "t");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(create_missing(&kafka, ["lab.requests", "lab.responses"]))
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let service = {
        let (bootstrap, stop, program, log) = (bootstrap.clone(), stop.clone(), program.clone(), log.clone());
        std::thread::spawn(move || pass_on(&[&program, &log], &bootstrap, &stop))
    };
    let command = levels.command();
    let http = format!("url = \"{url}\"");
    let topics = "requests = \"lab.requests\"\nresponses = \"lab.responses\"".to_owned();
    let ways = [&command, &http, &topics];
    let mut first: Option<Vec<(String, Vec<u8>)>> = None;
    for turn in 0..3 {
        let way = |level: usize| ways[(level + turn) % 3].as_str();
        let screen = levels.screen(&format!("levels{turn}"), [way(0), way(1), way(2)]);
        let out = levels.path(&format!("out{turn}"));
        let mut command = run(&models, &screen, &out);
        // How a step is reached is part of the screen, so each turn is a run of its own.
        command.args(["--kafka", &bootstrap]);
        let (code, summary) = run_json(&mut command);
        assert_eq!(
            (code, summary["fields_done"].as_u64()),
            (0, Some(24)),
            "{summary}"
        );
        let asked = levels.asked();
        let counts = ["shape", "place", "lims", "notebook"].map(|step| ids(&asked, step).len());
        assert_eq!(counts, [24, 1, 1, 1]);
        assert_eq!(
            outcomes(&out),
            [
                outcome("notebook", [1, 0, 0]),
                outcome("lims", [1, 0, 0]),
                outcome("place", [1, 0, 0]),
                outcome("shape", [24, 0, 0]),
            ]
        );
        let tables = [
            "profiles.parquet",
            "comparisons.parquet",
            "external/notebook.json",
        ];
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        for table in tables {
            found.push((table.to_owned(), std::fs::read(out.join(table)).unwrap()));
        }
        if turn == 0 {
            check(&out, &asked);
            first = Some(found);
            continue;
        }
        // Tables name their run; what was found is the same.
        let first = first.as_ref().unwrap();
        assert_eq!(found[2], first[2]);
        let rows = |of: &Path| rows_of(&of.join("profiles.parquet"));
        assert_eq!(rows(&out), rows(&levels.path("out0")));
    }
    stop.store(true, Ordering::Relaxed);
    // One adapter of three served each level in turn.
    assert_eq!(service.join().unwrap(), 1 + 24 + 2);
}

/// What a run with steps of all levels leaves behind.
fn check(out: &Path, asked: &[Value]) {
    let profiles = rows_of(&out.join("profiles.parquet"));
    assert_eq!(profiles.len(), 24);
    for profile in &profiles {
        let well = profile["Metadata_Well"].as_str().unwrap();
        let number = |key: &str| profile[key].as_f64().unwrap();
        assert_eq!(number("shape_mean"), number("statistics_DNA_mean"));
        assert_eq!(number("shape_same"), number("shape_mean"));
        assert_eq!((number("shape_fields"), number("shape_images")), (1.0, 1.0));
        assert_eq!(
            number("place_column"),
            well[1..].parse::<f64>().unwrap(),
            "{well}"
        );
    }
    let fields = rows_of(&out.join("features.parquet"));
    assert!(fields[0].get("statistics_DNA_mean").is_some() && fields[0].get("shape_mean").is_none());
    let of = |step: &str| asked.iter().find(|request| request["step"] == step).unwrap();
    let well = of("shape");
    assert_eq!(
        (&well["level"], well.get("field")),
        (&Value::from("well"), None),
        "{well}"
    );
    assert_eq!(well["images"][0]["field"], 1, "{well}");
    let plate = of("place");
    assert!(
        plate.get("well").is_none() && plate["plate"] == "SMALL0001",
        "{plate}"
    );
    let table = plate["inputs"]["aggregate"]["uri"].as_str().unwrap();
    let rows = rows_of(Path::new(table.strip_prefix("file://").unwrap()));
    assert!(rows.len() == 24 && rows[0].get("shape_mean").is_some() && rows[0].get("place_column").is_none());
    assert_eq!(plate["inputs"]["shape"]["columns"][1], "shape_mean");
    assert_eq!(plate["inputs"]["plate_map"].as_object().unwrap().len(), 24);
    let screen = of("notebook");
    assert!(screen.get("plate").is_none(), "{screen}");
    assert_eq!(
        screen["inputs"]["lims"],
        serde_json::json!({ "answered": 1, "failed": 0, "not_asked": 0 })
    );
    let kept = std::fs::read_to_string(out.join("external/notebook.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(
        kept["calls"].as_u64(),
        Some(rows_of(&out.join("compounds.parquet")).len() as u64)
    );
    let file = run_file(out);
    assert_eq!(file["external"][0]["file"], "external/notebook.json");
    let report = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains("step notebook") && report.contains("asked about wells: 24 answered"));
}

#[test]
fn a_crash_between_answers_asks_again_under_the_same_ids_and_finds_the_same() {
    let Some(models) = models() else { return };
    let levels = Levels::new();
    let command = levels.command();
    let screen = levels.screen("crash", [&command, &command, &command]);
    let whole = levels.path("whole");
    let (code, summary) = run_json(&mut run(&models, &screen, &whole));
    assert_eq!(code, 0, "{summary}");
    let asked = levels.asked();
    let out = levels.path("out");
    // In the middle of the wells, after the plate's last answer, after the screen's, and before the results are finished.
    for place in [
        "collector.asked=12*off->return",
        "collector.asked=25*off->return",
        "collector.asked=26*off->return",
        "collector.finish=return",
    ] {
        let killed = run(&models, &screen, &out)
            .env("FAILPOINTS", place)
            .output()
            .unwrap();
        assert!(killed.status.code().is_none(), "{place}: {:?}", killed.status);
    }
    let (code, summary) = run_json(&mut run(&models, &screen, &out));
    assert_eq!(code, 0, "{summary}");
    let again = levels.asked();
    for step in ["shape", "place", "lims", "notebook"] {
        assert_eq!(ids(&again, step), ids(&asked, step), "{step}");
    }
    for file in [
        "profiles.parquet",
        "comparisons.parquet",
        "external/notebook.json",
    ] {
        let read = |of: &Path| std::fs::read(of.join(file)).unwrap();
        assert!(read(&whole) == read(&out), "{file} differs");
    }
}

#[test]
fn what_fails_for_good_is_named_and_left_out_and_asked_again_when_it_is_retried() {
    let Some(models) = models() else { return };
    let levels = Levels::new();
    let command = levels.command();
    let screen = levels.screen("refused", [&command, &command, &command]);
    levels.refuse("shape B02\nlims\n");
    let out = levels.path("out");
    let (code, summary) = run_json(&mut run(&models, &screen, &out));
    assert_eq!(
        (code, summary["fields_failed"].as_u64(), summary["lost"].as_u64()),
        (1, Some(0), Some(0)),
        "{summary}"
    );
    let about = |letter: &Value| {
        let text = |key: &str| letter[key].as_str().unwrap_or("-").to_owned();
        [text("step"), text("plate"), text("well")]
    };
    let letters = dead_letters(&out);
    let mut named: Vec<_> = letters.iter().map(about).collect();
    named.sort();
    let expected = [["lims", "SMALL0001", "-"], ["shape", "SMALL0001", "B02"]];
    assert_eq!(named, expected.map(|words| words.map(str::to_owned)));
    assert!(letters.iter().all(|letter| {
        letter["stage"] == "external" && letter["message"].as_str().unwrap().contains("not today")
    }));
    let wells = |out: &Path| rows_of(&out.join("profiles.parquet")).len();
    assert_eq!(wells(&out), 23);
    // The plate is compared although no note of it was taken, and who is told of all plates is told so.
    assert!(!rows_of(&out.join("comparisons.parquet")).is_empty());
    let asked = levels.asked();
    let told = asked
        .iter()
        .find(|request| request["step"] == "notebook")
        .unwrap();
    assert_eq!(told["inputs"]["lims"]["failed"], 1, "{told}");
    let expected = [
        outcome("notebook", [1, 0, 0]),
        outcome("lims", [0, 1, 0]),
        outcome("place", [1, 0, 0]),
        outcome("shape", [23, 1, 0]),
    ];
    assert_eq!(outcomes(&out), expected);
    let notes = run_file(&out)["notes"].to_string();
    for part in [
        "step 'shape' gave no answer about 1 of 24 wells (B02)",
        "step 'lims' gave no answer",
        "the plate is compared nevertheless",
    ] {
        assert!(notes.contains(part), "no {part} in {notes}");
    }

    // A failure stands until it is tried again, also where the service is well by now.
    levels.refuse("");
    let (code, _) = run_json(&mut run(&models, &screen, &out));
    let asked = levels.asked();
    assert_eq!((code, wells(&out)), (1, 23));
    let counts = ["shape", "place", "lims", "notebook"].map(|step| ids(&asked, step).len());
    assert_eq!(counts, [23, 1, 0, 1]);
    {
        let (_broker, bootstrap) = start_broker(&models, &out.join("broker"));
        let retried = wellspring(&models)
            .args([
                "dead-letters",
                "retry",
                "--class",
                "external",
                "--kafka",
                &bootstrap,
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&retried.stderr);
        assert!(retried.status.success(), "{said}");
    }
    let (code, summary) = run_json(&mut run(&models, &screen, &out));
    assert_eq!((code, wells(&out)), (0, 24), "{summary}");
    assert!(dead_letters(&out).is_empty());
    assert_eq!(outcomes(&out)[0], outcome("notebook", [1, 0, 0]));

    // A plate without columns is left out; one whose service cannot be started is told once, and not for each well.
    levels.refuse("place\n");
    let screen = levels.screen("plateless", [&command, &command, &command]);
    let out = levels.path("plateless");
    let (code, summary) = run_json(&mut run(&models, &screen, &out));
    assert_eq!(
        (code, summary["compared"].as_bool()),
        (1, Some(false)),
        "{summary}"
    );
    assert!(
        run_file(&out)["notes"]
            .to_string()
            .contains("is left out of the comparison: step 'place'")
    );
    // Whoever only takes note is asked all the same, in whichever order the steps stand; who takes from what failed is not.
    assert!(outcomes(&out).contains(&outcome("lims", [1, 0, 0])));
    let mut text = std::fs::read_to_string(&screen).unwrap();
    let lims = text.find("[[steps]]\nname = \"lims\"").unwrap();
    let place = text.find("[[steps]]\nname = \"place\"").unwrap();
    let lims = text.drain(lims..place).collect::<String>();
    let after = lims.replace("\"lims\"", "\"after\"").replace(
        "level = \"plate\"\ncolumns = []",
        "level = \"screen\"\ninputs = [\"export\", \"notebook\"]",
    );
    let text = text.replace("\"plateless\"", "\"reordered\"") + &lims + &after;
    let screen = levels.path("plates/reordered.toml");
    std::fs::write(&screen, text).unwrap();
    levels.refuse("place\nnotebook\n");
    let out = levels.path("reordered");
    let (code, _) = run_json(&mut run(&models, &screen, &out));
    let expected = [
        outcome("notebook", [0, 1, 0]),
        outcome("place", [0, 1, 0]),
        outcome("shape", [24, 0, 0]),
        outcome("lims", [1, 0, 0]),
        outcome("after", [0, 0, 1]),
    ];
    assert_eq!((code, outcomes(&out)), (1, expected.to_vec()));
    let notes = run_file(&out)["notes"].to_string();
    assert!(notes.contains("'after' of the screen was not asked"), "{notes}");
    levels.refuse("place\n");
    let absent = "command = [\"no-such-program\"]";
    let screen = levels.screen("absent", [absent, &command, &command]);
    let out = levels.path("absent");
    let (code, _) = run_json(&mut run(&models, &screen, &out));
    let letters = dead_letters(&out);
    let of_shape: Vec<&Value> = letters
        .iter()
        .filter(|letter| letter["step"] == "shape")
        .collect();
    assert_eq!((code, of_shape.len()), (1, 1), "{letters:?}");
    assert!(of_shape[0]["well"].is_null() && of_shape[0]["class"] == "configuration");
    // One that nothing is heard of is not asked about each of them either.
    let (absent, url) = (TcpListener::bind("127.0.0.1:0").unwrap(), "http://127.0.0.1");
    let silent = format!(
        "url = \"{url}:{}\"\nattempts = 1",
        absent.local_addr().unwrap().port()
    );
    drop(absent);
    let screen = levels.screen("silent", [&silent, &command, &command]);
    let out = levels.path("silent");
    let (code, _) = run_json(&mut run(&models, &screen, &out));
    let letters = dead_letters(&out);
    let mut of_shape = letters.iter().filter(|letter| letter["step"] == "shape");
    let letter = of_shape.next().unwrap();
    assert!(
        code == 1 && letter["well"].is_null() && of_shape.next().is_none(),
        "{letters:?}"
    );
    assert!(
        letter["message"].as_str().unwrap().contains("cannot be reached"),
        "{letter}"
    );
    let outcomes = outcomes(&out);
    let (_, [answered, failed, not_asked]) = outcomes.iter().find(|(step, _)| step == "shape").unwrap();
    assert!((8..24).contains(failed), "{outcomes:?}");
    assert_eq!((*answered, failed + not_asked), (0, 24));
}

#[test]
fn the_collector_of_a_service_asks_and_asks_again_after_a_retry_and_runs_commands_only_where_it_may() {
    let Some(models) = models() else { return };
    let levels = Levels::new();
    let program = levels.path("levels.py").display().to_string();
    let log = levels.log().display().to_string();
    let (_service, url) = serve(&[&program, &log, "--http"]);
    let http = format!("url = \"{url}\"");
    let command = levels.command();
    let screen = levels.screen("served", [&http, &http, &command]);
    // A field's command may run where the worker says so.
    let (_broker, bootstrap) = start_broker(&models, &levels.path("broker"));
    let role = |arguments: &[&str]| {
        let mut command = wellspring(&models);
        command.args(arguments).args(["--kafka", &bootstrap]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let results = levels.path("results");
    // One run whose results cannot be made keeps nobody else from theirs.
    let blocked = levels.screen("blocked", [&http, &http, &command]);
    let submitted = role(&["submit"])
        .arg(&blocked)
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8(submitted.stdout).unwrap();
    let blocked = said.split_once(": ").unwrap().0.to_owned();
    std::fs::create_dir_all(&results).unwrap();
    std::fs::write(results.join(&blocked), "no folder").unwrap();
    let submitted = role(&["submit"]).arg(&screen).status().unwrap();
    assert!(submitted.success());
    let start = |command: &mut Command| Running(command.spawn().unwrap());
    let _worker = start(&mut role(&["worker", "--allow-commands"]));
    let said = levels.path("serve.log");
    let serving = start(
        role(&["serve", "--no-worker"])
            .arg("--out")
            .arg(&results)
            .stderr(File::create(&said).unwrap()),
    );
    wait_for("a word on the run that has no results", || {
        let said = std::fs::read_to_string(&said).unwrap();
        said.contains(&format!("{blocked} has no results"))
    });
    let out = || {
        let mut runs = std::fs::read_dir(&results)
            .ok()?
            .filter_map(|run| Some(run.ok()?.path()));
        runs.find(|run| run.join("run.json").exists())
    };
    wait_for("the results", || out().is_some());
    let out = out().unwrap();
    let expected = [
        outcome("notebook", [0, 1, 0]),
        outcome("lims", [1, 0, 0]),
        outcome("place", [1, 0, 0]),
        outcome("shape", [24, 0, 0]),
    ];
    assert_eq!(outcomes(&out), expected);
    let letters = dead_letters(&out);
    assert_eq!(letters.len(), 1);
    assert!(
        letters[0]["message"]
            .as_str()
            .unwrap()
            .contains("--allow-commands")
    );
    drop(serving);
    std::fs::remove_file(results.join(&blocked)).unwrap();
    let _serving = start(
        role(&["serve", "--no-worker", "--allow-commands"])
            .arg("--out")
            .arg(&results),
    );
    let retried = role(&["dead-letters", "retry", "--all"]).status().unwrap();
    assert!(retried.success());
    wait_for("the screen's answer", || {
        outcomes(&out)[0] == outcome("notebook", [1, 0, 0])
    });
    assert!(out.join("external/notebook.json").exists());
    assert!(dead_letters(&out).is_empty());
    wait_for("the results that could not be made", || {
        results.join(&blocked).join("run.json").exists()
    });
}
