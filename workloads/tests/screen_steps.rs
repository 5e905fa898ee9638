//! `[[steps]]` of a screen file, and the graph of its steps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use wellspring_workloads::screen::graph::{Level, StepGraph};
use wellspring_workloads::screen::{Reply, Screen, ScreenProblem, Service, json_schema};

const BASE: &str = r#"[screen]
name = "steps"
[images]
store = "images"
channels = ["DNA", "ER"]
[plate_map]
file = "map.csv"
[controls]
reference = { role = "healthy" }
phenotype = { role = "disease" }
"#;

const SPOTS: &str = r#"[[steps]]
name = "spots"
kind = "external"
columns = ["count", "area"]
deadline = "30s"
command = ["python3", "./spots.py"]
"#;

fn parse(steps: &str) -> Result<Screen, String> {
    Screen::parse(&(BASE.to_owned() + steps), "s.toml").map_err(|errors| errors.to_string())
}

#[test]
fn a_step_has_the_documented_defaults_and_its_paths_are_beside_the_file() {
    let mut screen = parse(SPOTS).unwrap();
    screen.resolve_paths("/lab");
    let step = &screen.steps[0];
    assert_eq!(step.inputs, ["images"]);
    assert_eq!(
        (step.deadline_ms, step.attempts, step.backoff_ms),
        (30_000, 3, 1_000)
    );
    assert_eq!((step.heartbeat_ms, step.in_flight), (None, 2));
    let command = ["python3", "/lab/./spots.py"].map(str::to_owned).to_vec();
    assert_eq!(step.service, Service::Command { command });
    assert_eq!(
        step.feature_names().collect::<Vec<_>>(),
        ["spots_count", "spots_area"]
    );
    assert!(
        screen
            .plan_text()
            .contains("count, area of images, by command python3")
    );
    let record = serde_json::to_string(&screen).unwrap();
    assert_eq!(serde_json::from_str::<Screen>(&record).unwrap(), screen);
    // A screen without steps keeps the hash it had before there were any.
    assert!(
        !serde_json::to_string(&parse("").unwrap())
            .unwrap()
            .contains("\"steps\":")
    );
    let http = parse(&SPOTS.replace(
        "command = [\"python3\", \"./spots.py\"]",
        "url = \"http://lab:8080/spots\"\npoll = \"2 s\"",
    ));
    let url = "http://lab:8080/spots".to_owned();
    assert_eq!(
        http.unwrap().steps[0].service,
        Service::Http {
            url,
            poll_ms: 2_000,
            reply: Reply::Poll
        }
    );
    let back = "url = \"http://lab:8080/spots\"\nreply = \"callback\"";
    let screen = parse(&SPOTS.replace("command = [\"python3\", \"./spots.py\"]", back)).unwrap();
    let text = screen.plan_text();
    assert!(
        text.contains("POST http://lab:8080/spots, which calls back"),
        "{text}"
    );
    let record = serde_json::to_string(&screen).unwrap();
    assert_eq!(serde_json::from_str::<Screen>(&record).unwrap(), screen);
}

/// Runs that were begun by an earlier version go on under their names.
#[test]
fn a_step_that_says_nothing_new_is_written_as_it_always_was() {
    let screen = parse(SPOTS).unwrap();
    let step = serde_json::to_value(&screen.steps[0]).unwrap();
    let mut keys: Vec<&str> = step.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let before = [
        "attempts",
        "backoff_ms",
        "columns",
        "deadline_ms",
        "heartbeat_ms",
        "in_flight",
        "inputs",
        "kind",
        "name",
        "service",
    ];
    assert_eq!(keys, before);
    let said = parse(&SPOTS.replace("kind", "level = \"field\"\nkind")).unwrap();
    assert_eq!(said.hash(), screen.hash());
}

#[test]
fn every_mistake_of_a_step_is_named_with_its_place() {
    for (from, to, place, part) in [
        ("deadline = \"30s\"\n", "", "11:1", "[steps[0]] needs 'deadline'"),
        ("\"30s\"", "30", "15:12", "a time with its unit"),
        (
            "\"30s\"",
            "\"30 years\"",
            "15:12",
            "is not a time from 1 ms to 86400 s",
        ),
        ("\"30s\"", "\"0s\"", "15:12", "is not a time"),
        ("deadline", "dedline", "15:1", "did you mean 'deadline'?"),
        ("\"external\"", "\"extrenal\"", "13:8", "did you mean 'external'?"),
        ("\"spots\"", "\"embed\"", "12:8", "the name of a built-in step"),
        ("\"spots\"", "\"my spots\"", "12:8", "at most 64 letters"),
        ("[\"count\", \"area\"]", "[]", "14:11", "0 names: give 1 to 10000"),
        ("\"area\"", "\"count\"", "14:21", "holds \"count\" twice"),
        (
            "kind",
            "inputs = [\"imges\"]\nkind",
            "13:11",
            "did you mean 'images'?",
        ),
        (
            "kind",
            "inputs = [\"nuclei\"]\nkind",
            "13:11",
            "the screen has no table [nuclei]",
        ),
        (
            "kind",
            "inputs = [\"aggregate\"]\nkind",
            "13:11",
            "made once per well",
        ),
        (
            "kind",
            "inputs = [\"normalise\"]\nkind",
            "13:11",
            "made once per plate",
        ),
        (
            "kind",
            "inputs = [\"compare\"]\nkind",
            "13:11",
            "made once per screen",
        ),
        (
            "kind",
            "inputs = [\"preprocess\"]\nkind",
            "13:11",
            "stays in the worker's memory",
        ),
        ("kind", "inputs = [\"features\"]\nkind", "13:11", "a cycle"),
        (
            "kind",
            "inputs = [\"spots\"]\nkind",
            "13:11",
            "a cycle: spots <- spots waits for itself",
        ),
        ("kind", "inputs = []\nkind", "13:10", "given nothing"),
        ("kind", "level = \"wel\"\nkind", "13:9", "did you mean 'well'?"),
        ("kind", "level = \"screen\"\nkind", "15:11", "it has no columns"),
        (
            "kind",
            "inputs = [\"plate_map\"]\nkind",
            "13:11",
            "a step that works on fields is given images, quality, nuclei, embed and other steps, not 'plate_map'",
        ),
        (
            "kind",
            "level = \"well\"\ninputs = [\"embed\"]\nkind",
            "14:11",
            "a step that works on wells is given aggregate, images, plate_map and other steps, not 'embed'",
        ),
        (
            "kind",
            "level = \"well\"\ninputs = [\"normalise\"]\nkind",
            "14:11",
            "made once per plate, after all its wells",
        ),
        (
            "kind",
            "level = \"well\"\ninputs = [\"agregate\"]\nkind",
            "14:11",
            "did you mean 'aggregate'?",
        ),
        (
            "kind",
            "level = \"plate\"\ninputs = [\"images\"]\nkind",
            "14:11",
            "a step that works on plates is given aggregate, plate_map",
        ),
        (
            "kind",
            "level = \"plate\"\ninputs = [\"export\"]\nkind",
            "14:11",
            "made once per screen, after all its plates",
        ),
        (
            "command",
            "reply = \"callback\"\ncommand",
            "16:9",
            "not used without 'url'",
        ),
        (
            "command",
            "url = \"http://x\"\nreply = \"calback\"\n#",
            "17:9",
            "did you mean 'callback'?",
        ),
        (
            "command",
            "url = \"http://x\"\nreply = \"callback\"\npoll = \"1s\"\n#",
            "18:8",
            "not used with reply",
        ),
        (
            "kind",
            "heartbeat = \"1m\"\nkind",
            "13:13",
            "not below the deadline",
        ),
        ("kind", "attempts = 0\nkind", "13:12", "from 1 to 100"),
        ("command", "url = \"ftp://x\"\n#", "16:7", "expected http://"),
        ("command", "url = \"http:// x\"\n#", "16:7", "expected http://"),
        (
            "command",
            "url = \"http://me:secret@x/y\"\n#",
            "16:7",
            "no user and no password",
        ),
        (
            "command",
            "url = \"http://x:99999/y\"\n#",
            "16:7",
            "from 1 to 65535",
        ),
        (
            "command",
            "url = \"http://[::1]:0\"\n#",
            "16:7",
            "from 1 to 65535",
        ),
        (
            "command",
            "url = \"http://x\"\ncommand",
            "16:7",
            "reached in one way",
        ),
        (
            "command",
            "poll = \"1s\"\ncommand",
            "16:8",
            "not used without 'url'",
        ),
        (
            "command",
            "responses = \"a\"\ncommand",
            "16:13",
            "not used without 'requests'",
        ),
        ("command", "requests = \"a\"\n#", "16:12", "needs 'responses'"),
        (
            "command",
            "requests = \"a\"\nresponses = \"a\"\n#",
            "16:12",
            "the same topic",
        ),
        (
            "command",
            "requests = \"a b\"\nresponses = \"c\"\n#",
            "16:12",
            "a topic has at most",
        ),
        (
            "command",
            "requests = \"wellspring.tasks\"\nresponses = \"c\"\n#",
            "16:12",
            "this program's own",
        ),
        ("command", "#", "11:1", "needs 'command': or 'url'"),
        (
            "[\"python3\", \"./spots.py\"]",
            "\"python3\"",
            "16:11",
            "a list: the program",
        ),
    ] {
        let errors = parse(&SPOTS.replacen(from, to, 1)).unwrap_err();
        let expected = format!("s.toml:{place}: ");
        assert!(
            errors
                .lines()
                .any(|line| line.starts_with(&expected) && line.contains(part)),
            "{to:?}: no {expected}...{part} in\n{errors}"
        );
        // A needed key that is misspelt is missing, too.
        let count = if to == "dedline" { 2 } else { 1 };
        assert_eq!(errors.lines().count(), count, "{to:?}: {errors}");
    }
    // One mistake hides no other.
    let both = SPOTS
        .replace("\"30s\"", "\"3 parsecs\"")
        .replace("kind", "inputs = [\"imges\"]\nkind");
    let errors = parse(&both).unwrap_err();
    assert!(
        errors.contains("is not a time")
            && errors.contains("did you mean 'images'?")
            && errors.lines().count() == 2,
        "{errors}"
    );
    let twice = SPOTS.to_owned() + SPOTS;
    assert!(parse(&twice).unwrap_err().contains("holds \"spots\" twice"));
    let profiles =
        "[screen]\nname = \"p\"\n[profiles]\n[controls]\nreference = { a = 1 }\nphenotype = { a = 2 }\n";
    let errors = Screen::parse(&(profiles.to_owned() + SPOTS), "p.toml")
        .unwrap_err()
        .to_string();
    assert!(errors.contains("no fields of view"), "{errors}");
}

/// As [`SPOTS`], by another name and with other inputs.
fn step(name: &str, inputs: &str) -> String {
    SPOTS
        .replace("spots", name)
        .replace("kind", &format!("inputs = [{inputs}]\nkind"))
}

#[test]
fn steps_that_wait_for_one_another_are_a_cycle_told_once() {
    let steps =
        step("a", "\"images\", \"c\"") + &step("b", "\"a\"") + &step("c", "\"b\"") + &step("d", "\"c\"");
    let errors = parse(&steps).unwrap_err();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        errors.contains("13:21: ") && errors.contains("a cycle: a <- c <- b <- a"),
        "{errors}"
    );
}

#[test]
fn the_graph_puts_every_step_after_what_it_takes_and_waits_for_all_of_a_finer_level() {
    let nuclei = "[nuclei]\n[preprocess]\nillumination = \"{channel}.npy\"\n";
    let steps = nuclei.to_owned()
        + &step("second", "\"first\", \"nuclei\"")
        + &step("first", "\"images\", \"embed\"");
    let screen = parse(&steps).unwrap();
    let graph = StepGraph::of(&screen).unwrap();
    let names: Vec<&str> = graph.steps().iter().map(|step| step.name.as_str()).collect();
    let place = |name: &str| names.iter().position(|other| *other == name).unwrap();
    for step in graph.steps() {
        for input in &step.inputs {
            assert!(place(input) < place(&step.name), "{} before {input}", step.name);
        }
    }
    // As they are asked, not as they stand.
    assert_eq!(graph.externals(Level::Field).collect::<Vec<_>>(), [1, 0]);
    let level = |name: &str| graph.steps()[place(name)].level;
    assert_eq!(
        (level("features"), level("aggregate")),
        (Level::Field, Level::Well)
    );
    assert_eq!(
        (level("normalise"), level("compare")),
        (Level::Plate, Level::Screen)
    );
    let text = graph.text();
    for part in [
        "features (all fields of a well)",
        "aggregate (all wells of a plate)",
        "normalise (all plates of the screen)",
        "<- quality, embed, nuclei, second, first",
        "topic features, by plate",
        "topic tasks, by plate and well",
        "illumination",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    let mermaid = graph.mermaid();
    assert!(mermaid.starts_with("flowchart TD\n"), "{mermaid}");
    let (first, second) = (place("first"), place("second"));
    assert!(
        mermaid.contains(&format!("s{first} --> s{second}\n")),
        "{mermaid}"
    );
    assert!(mermaid.contains("-->|all fields of a well|"), "{mermaid}");
    assert!(
        mermaid.contains(&format!("s{first}[[\"first<br/>field\"]]")),
        "{mermaid}"
    );
}

/// As [`step`], of another level.
fn level(level: &str, step: &str) -> String {
    step.replace("kind", &format!("level = \"{level}\"\nkind"))
}

#[test]
fn steps_of_wells_plates_and_the_screen_stand_where_their_inputs_are_whole() {
    let none = |step: String| step.replace("[\"count\", \"area\"]", "[]");
    let last = level("screen", &step("notebook", "\"export\", \"compare\", \"lims\""));
    let steps = last.replace("columns = [\"count\", \"area\"]\n", "")
        + &none(level("plate", &step("lims", "\"aggregate\", \"trend\"")))
        + &level("plate", &step("trend", "\"plate_map\", \"late\""))
        + &level("well", &step("late", "\"early\", \"images\""))
        + &level("well", SPOTS).replace("spots", "early")
        + &step("spots", "\"images\"");
    let screen = parse(&steps).unwrap();
    assert_eq!(screen.steps[4].inputs, ["aggregate"], "the usual input of a well");
    let graph = StepGraph::of(&screen).unwrap();
    let asked = |level| graph.externals(level).collect::<Vec<_>>();
    assert_eq!(asked(Level::Field), [5]);
    assert_eq!(asked(Level::Well), [4, 3]);
    assert_eq!(asked(Level::Plate), [2, 1]);
    assert_eq!(asked(Level::Screen), [0]);
    let inputs = |name: &str| {
        let step = graph.steps().iter().find(|step| step.name == name).unwrap();
        step.inputs.join(" ")
    };
    assert_eq!(inputs("features"), "quality embed spots");
    // Whatever follows waits for whole profiles; who only takes note holds up nobody.
    assert_eq!(inputs("normalise"), "aggregate trend late early");
    assert_eq!(inputs("monitor"), "aggregate trend late early");
    assert_eq!(inputs("export"), "compare aggregate trend late early");
    let text = graph.text();
    for part in [
        "late (all wells of a plate)",
        "images (all fields of a well)",
        "lims (all plates of the screen)",
        "which acknowledges",
    ] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    assert!(graph.mermaid().contains("[[\"lims<br/>plate\"]]"));
    let plan = screen.plan_text();
    for part in [
        "takes note of aggregate, trend, once per plate, by",
        "once for the screen",
    ] {
        assert!(plan.contains(part), "no {part} in\n{plan}");
    }

    // A step cannot wait for one of a coarser level, which is told once even where both wait for each other.
    let mixed = step("spots", "\"images\", \"early\"") + &level("well", &step("early", "\"spots\""));
    let errors = parse(&mixed).unwrap_err();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        errors.contains("13:21: ")
            && errors
                .contains("'early' is made once per well, after all its fields: a step that works on fields"),
        "{errors}"
    );
}

#[test]
fn what_a_screen_leaves_out_is_not_in_its_graph() {
    let screen =
        parse("[comparison]\nnormalise = \"none\"\nalign = \"none\"\n[monitor]\nenabled = false\n").unwrap();
    let graph = StepGraph::of(&screen).unwrap();
    for absent in ["illumination", "nuclei", "normalise", "align", "monitor"] {
        assert!(graph.steps().iter().all(|step| step.name != absent), "{absent}");
    }
    // A record may hold what no file may.
    let mut screen = parse(SPOTS).unwrap();
    screen.steps[0].inputs = vec!["spots".to_owned()];
    assert!(
        StepGraph::of(&screen)
            .unwrap_err()
            .to_string()
            .contains("a cycle")
    );
}

/// A network beside the first one.
const SMALL: &str = "[[steps]]\nname = \"small\"\nkind = \"embed\"\nmodel = \"tiny\"\n";

#[test]
fn a_network_beside_the_first_is_a_step_and_other_steps_may_take_it() {
    let screen = parse(&(SMALL.to_owned() + &step("spots", "\"small\""))).unwrap();
    let network = &screen.networks[0];
    assert_eq!((network.name.as_str(), network.model.as_str()), ("small", "tiny"));
    let graph = StepGraph::of(&screen).unwrap();
    let joined = graph.steps().iter().find(|step| step.name == "features").unwrap();
    assert_eq!(joined.inputs, ["quality", "embed", "small", "spots"]);
    assert!(screen.plan_text().contains("embed with tiny"));
    for (from, to, place, part) in [
        (
            "\"small\"",
            "\"efficientnet-lite0\"",
            "12:8",
            "the network of [model]",
        ),
        ("\"small\"", "\"quality\"", "12:8", "a built-in step"),
        (
            "model",
            "deadline = \"1s\"\nmodel",
            "14:1",
            "unknown key 'deadline'",
        ),
        ("model = \"tiny\"\n", "", "11:1", "needs 'model'"),
        ("\"tiny\"", "\"tin y\"", "14:9", "a model's name has"),
        (
            "model",
            "engine = \"onxn\"\nmodel",
            "14:10",
            "did you mean 'onnx'?",
        ),
    ] {
        let errors = parse(&SMALL.replacen(from, to, 1)).unwrap_err();
        let expected = format!("s.toml:{place}: ");
        assert!(
            errors.lines().count() == 1 && errors.starts_with(&expected) && errors.contains(part),
            "{to:?}: no {expected}...{part} in\n{errors}"
        );
    }
    assert!(
        parse(&(SMALL.to_owned() + SMALL))
            .unwrap_err()
            .contains("holds \"small\" twice")
    );
    let text = BASE.to_owned() + SMALL;
    let errors = Screen::parse_with_models(&text, "s.toml", &["tony"])
        .unwrap_err()
        .to_string();
    assert!(
        errors.contains("s.toml:14:9: steps[0].model is \"tiny\""),
        "{errors}"
    );
}

/// The keys of each kind of step, as an error about an unknown one lists them.
fn keys_of(step: &str) -> Vec<String> {
    let text = BASE.to_owned() + &step.replace("kind", "no_such_key = 1\nkind");
    let errors = Screen::parse(&text, "s.toml").unwrap_err();
    let mut known = errors.0.iter().find_map(|error| match &error.problem {
        ScreenProblem::UnknownKey { known, .. } => Some(known.clone()),
        _ => None,
    });
    let known = known.as_mut().unwrap();
    known.sort();
    known.clone()
}

#[test]
fn the_schema_knows_every_key_of_a_step() {
    let schema = json_schema();
    let keys = |kind: &serde_json::Value| -> Vec<String> {
        kind["properties"].as_object().unwrap().keys().cloned().collect()
    };
    for (index, step) in [SPOTS, SMALL].into_iter().enumerate() {
        let mut listed = keys(&schema["properties"]["steps"]["items"]["anyOf"][index]);
        listed.sort();
        assert_eq!(keys_of(step), listed);
    }
    let validator = jsonschema::draft7::new(&schema).unwrap();
    let of_screen = level("screen", SPOTS).replace("columns = [\"count\", \"area\"]\n", "");
    for (index, step) in [(2, level("plate", SPOTS)), (3, of_screen.clone())] {
        let mut listed = keys(&schema["properties"]["steps"]["items"]["anyOf"][index]);
        if index == 3 {
            // Read, to say what to do instead.
            listed.push("columns".to_owned());
        }
        listed.sort();
        assert_eq!(keys_of(&step), listed);
    }
    let none = |level_word: &str| level(level_word, SPOTS).replace("[\"count\", \"area\"]", "[]");
    for (steps, valid) in [
        (SPOTS.to_owned(), true),
        (level("well", SPOTS), true),
        (level("plate", SPOTS), true),
        (none("plate"), true),
        (of_screen, true),
        (none("field"), false),
        (none("well"), false),
        (level("screen", SPOTS), false),
        (level("wells", SPOTS), false),
        (SMALL.to_owned(), true),
        (SPOTS.replace("kind", "no_such_key = 1\nkind"), false),
        (SPOTS.replace("deadline = \"30s\"\n", ""), false),
        (SPOTS.replace("30s", "30 years"), false),
        (SMALL.replace("model", "columns = [\"a\"]\nmodel"), false),
        (SMALL.replace("embed", "embde"), false),
    ] {
        let text = BASE.to_owned() + &steps;
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(
            validator.is_valid(&serde_json::to_value(table).unwrap()),
            valid,
            "{text}"
        );
        assert_eq!(Screen::parse(&text, "s.toml").is_ok(), valid, "{text}");
    }
}
