//! Screen files: the ready ones parse, bad ones yield every problem with its place, and no text makes a panic.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use proptest::prelude::*;
use wellspring_workloads::compare::Question;
use wellspring_workloads::layout::{Layout, Parsed};
use wellspring_workloads::screen::{
    Background, LayoutChoice, MAX_SCREEN_BYTES, Scaling, Screen, ScreenProblem, SelectorValue, ZStack,
};
use wellspring_workloads::simulate::{Simulation, SimulationSettings};

#[path = "common/ready.rs"]
mod ready;

use ready::ready_files;

const MINIMAL: &str = r#"
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

#[test]
fn every_ready_file_parses_and_is_named_as_its_file() {
    let files = ready_files();
    assert!(files.len() >= 2);
    for (path, text) in files {
        let screen = Screen::parse(&text, &path).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(path.ends_with(&format!("/{}.toml", screen.name)));
        let plan = screen.plan_text();
        assert_eq!(plan.contains("Steps"), !screen.is_of_profiles(), "{plan}");
        for part in ["Reads", "Compares", "Writes", "Resources", &screen.images.store] {
            assert!(plan.contains(part), "{plan}");
        }
    }
}

#[test]
fn a_minimal_file_is_short_and_has_the_documented_defaults() {
    assert!(MINIMAL.trim().lines().count() < 20);
    let screen = Screen::parse(MINIMAL, "small.toml").unwrap();
    assert_eq!(screen.images.layout, LayoutChoice::Auto);
    assert_eq!(screen.images.channels[1].matches, "ER");
    assert_eq!(screen.preprocess.background, Background::None);
    assert_eq!(screen.preprocess.scaling, Scaling::Image { low: 0.1, high: 99.9 });
    assert_eq!(screen.model.name, "efficientnet-lite0");
    assert_eq!(screen.resources.in_flight_bytes, None);
    assert_eq!(
        screen.quality.nuclei_channel.as_ref().map(|c| c.as_str()),
        Some("DNA")
    );
    assert_eq!(screen.comparison.question, Question::Rescue);
    assert_eq!(screen.plate_map.dose_unit, "uM");
}

#[test]
fn the_demo_reads_what_the_simulator_writes() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/screens/demo.toml")).unwrap();
    let screen = Screen::parse(&text, "demo.toml").unwrap();
    let settings = SimulationSettings::demo();
    let names: Vec<&str> = screen.images.channels.iter().map(|c| c.name.as_str()).collect();
    let stains: Vec<&str> = settings.channels.iter().map(|stain| stain.name()).collect();
    assert_eq!(names, stains);

    let simulation = Simulation::new(settings).unwrap();
    let map = simulation.plate_map_csv();
    let map = wellspring_workloads::plate_map::PlateMap::parse(&map, "map.csv", &screen.plate_map).unwrap();
    let plate = map.plates().next().unwrap().clone();
    let treatments = screen.treatments(&map, &plate).unwrap();
    use wellspring_workloads::profile::Role;
    let of = |role| treatments.values().filter(|t| t.role == role).count();
    assert_eq!(of(Role::Reference), 20);
    assert_eq!(of(Role::Phenotype), 20);
    assert!(of(Role::Treated) > 0);
    assert!(
        treatments
            .values()
            .filter(|t| t.role == Role::Reference)
            .all(|t| t.disease.is_none())
    );
    assert!(
        treatments
            .values()
            .filter(|t| t.role != Role::Reference)
            .all(|t| t.disease.is_some())
    );
}

#[test]
fn the_hash_of_a_known_screen_stays_what_it_is() {
    // Users' runs are named after it. It changes only when what a screen means is written in another way, on purpose.
    let screen = Screen::parse(MINIMAL, "a.toml").unwrap();
    assert_eq!(
        screen.hash(),
        "183cc02f39354ca1a90098a7405856274a8d87a20266e53891c3546313a19894"
    );
}

#[test]
fn the_hash_ignores_spelling_and_notices_meaning() {
    let hash = |text: &str| Screen::parse(text, "a.toml").unwrap().hash();
    let base = hash(MINIMAL);
    assert_eq!(base.len(), 64);
    assert_eq!(
        base,
        hash(&format!(
            "# a comment\n{MINIMAL}\n[model]\nname = \"efficientnet-lite0\"\n"
        ))
    );
    // How it is worked on and told changes no result.
    assert_eq!(
        base,
        hash(&format!(
            "{}\n[resources]\nweight = 3\n[output]\nreport = false\n",
            MINIMAL.replace("[screen]", "[screen]\ndescription = \"words\"")
        ))
    );
    assert_ne!(base, hash(&MINIMAL.replace("\"ER\"", "\"RNA\"")));
    assert_ne!(base, hash(&format!("{MINIMAL}\n[comparison]\nseed = 7\n")));
}

#[test]
fn names_of_a_file_have_places() {
    let text = MINIMAL.trim_start();
    for (name, place) in [
        ("controls.reference", Some((12, 13))),
        ("controls.reference.role", Some((12, 22))),
        ("controls.exclude", Some((11, 1))),
        ("nuclei.channel", None),
    ] {
        assert_eq!(
            wellspring_workloads::screen::place_of(text, name),
            place,
            "{name}"
        );
    }
}

#[test]
fn settings_that_contradict_each_other_are_told() {
    let with = |more: &str| {
        Screen::parse(&format!("{MINIMAL}\n{more}"), "a.toml").map_err(|errors| errors.to_string())
    };
    for (more, part) in [
        (
            "[preprocess]\nbackground_percentile = 5\n",
            "not used without background = \"percentile\"",
        ),
        (
            "[preprocess]\nbackground = 100\nbackground_percentile = 5\n",
            "not used without background = \"percentile\"",
        ),
        (
            "[preprocess]\npercentiles = [1, 99]\nscaling = \"none\"\n",
            "takes no percentiles",
        ),
        (
            "[quality]\ncontrast_warn = 1\ncontrast_fail = 6\n",
            "(1) lies below contrast_fail (6)",
        ),
        (
            "[quality]\nsaturated_percent_warn = 5\nsaturated_percent_fail = 1\n",
            "(5) lies above saturated_percent_fail (1)",
        ),
        (
            "[quality]\nslope_empty = -5\n",
            "(-5) must lie above slope_blur (-3)",
        ),
        ("[nuclei]\nmin_diameter = 100\n", "say max_diameter too"),
        (
            "[nuclei]\nmin_diameter = 70\nmax_diameter = 65\n",
            "below min_diameter, which is 70",
        ),
        (
            "[preprocess]\nbackground = \"rolling_ball\"\n",
            "{ rolling_ball = RADIUS }",
        ),
        (
            "[preprocess]\nscaling = \"robust\"\n",
            "{ low = LEVEL, high = LEVEL }",
        ),
        ("[preprocess]\nbackground = { top_hat = 0 }\n", "from 1 to 512"),
        (
            "[preprocess]\nbackground = { tophat = 9 }\n",
            "did you mean 'top_hat'?",
        ),
        (
            "[preprocess]\nbackground = { top_hat = 9, gaussian = 5 }\n",
            "give one of top_hat",
        ),
        (
            "[preprocess]\nillumination = \"{chanel}.npy\"\n",
            "did you mean '{channel}'?",
        ),
    ] {
        let errors = with(more).unwrap_err();
        assert!(errors.contains(part), "{more}: {errors}");
    }
    for more in [
        "[quality]\ncontrast_fail = 9\n",
        "[preprocess]\nbackground = \"percentile\"\nbackground_percentile = 5\n",
        "[preprocess]\npercentiles = [1, 99]\nscaling = \"controls\"\n",
        "[preprocess]\nbackground = { top_hat = 15 }\n",
        "[preprocess]\nbackground = { gaussian = 50 }\n",
        "[preprocess]\nbackground = { rolling_ball = 50 }\n",
        "[resources]\ndevice = \"software\"\n",
    ] {
        with(more).unwrap();
    }
    for name in ["-x", "_x"] {
        let errors =
            Screen::parse(&MINIMAL.replace("\"small\"", &format!("\"{name}\"")), "a.toml").unwrap_err();
        assert!(errors.to_string().contains("a letter or digit first"), "{errors}");
    }
}

#[test]
fn stacks_are_projected_unless_the_sharpest_slice_is_asked_for() {
    let with = |line: &str| {
        Screen::parse(
            &MINIMAL.replace("[images]", &format!("[images]\n{line}")),
            "a.toml",
        )
    };
    let plain = with("").unwrap();
    assert_eq!(plain.images.z, ZStack::Max);
    assert!(plain.plan_text().contains("maximum projection"));
    let sharpest = with("z = \"best_focus\"").unwrap();
    assert_eq!(sharpest.images.z, ZStack::BestFocus);
    assert!(sharpest.plan_text().contains("the sharpest slice"));
    assert_ne!(plain.hash(), sharpest.hash());
    let errors = with("z = \"best_fokus\"").unwrap_err().to_string();
    assert!(errors.contains("did you mean 'best_focus'?"), "{errors}");
    // Screens submitted before there was a choice.
    let mut record = serde_json::to_value(&plain).unwrap();
    record["images"].as_object_mut().unwrap().remove("z");
    assert_eq!(serde_json::from_value::<Screen>(record).unwrap(), plain);
}

#[test]
fn a_screen_survives_the_journey_through_a_record() {
    for (path, text) in ready_files() {
        let screen = Screen::parse(&text, &path).unwrap();
        let record = serde_json::to_string(&screen).unwrap();
        let back: Screen = serde_json::from_str(&record).unwrap();
        assert_eq!(back, screen);
        assert_eq!(back.hash(), screen.hash());
    }
}

#[test]
fn relative_paths_become_absolute_and_others_stay() {
    let mut screen = Screen::parse(MINIMAL, "a.toml").unwrap();
    screen.plate_map.file = "s3://lab/map.csv".to_owned();
    screen.output.folder = Some("/out".to_owned());
    screen.resolve_paths("/lab/screens/");
    assert_eq!(screen.images.store, "/lab/screens/images");
    assert_eq!(screen.plate_map.file, "s3://lab/map.csv");
    assert_eq!(screen.output.folder.as_deref(), Some("/out"));
}

/// Thirty mistakes, each on its own line; the number is the order of the message.
const MISTAKES: &str = r#"
colour = "red"                                       # 1 unknown key of the file
[screen]
name = "My Screen"                                   # 2 name
descripton = "typo"                                  # 3 unknown key
[images]
layout = "imagexpres"                                # 5 unknown word (4: store missing, at the table)
channels = [
    "DNA",
    "DNA",                                           # 6 duplicate
    { name = "a/b" },                                # 7 unusable channel
    { match = "w4" },                                # 8 name missing
    { name = "Mito", math = "w5" },                  # 9 unknown key
]
fields_per_well = 0                                  # 10 range
bit_depth = 13                                       # 11 unusable
plates = ["P1", "P1", 3]                             # 12 duplicate, 13 type
[plate_map]
file = 7                                             # 14 type
columns = { wel = "Well" }                           # 15 unknown key
[controls]
reference = {}                                       # 16 selects every well
phenotype = { role = [] }                            # 17 empty list
[preprocess]
background = "percentil"                             # 18 unknown word
scaling = { low = 10 }                               # 19 high missing
percentiles = [99, 1]                                # 20 order
resize = { factor = 2, width = 3 }                   # 21 either or
tiling = true                                        # 22 type
[quality]
enabled = "yes"                                      # 23 type
contrast_fail = nan                                  # 24 range
[model]
engine = "natve"                                     # 25 unknown word
[comparison]
question = "resque"                                  # 26 unknown word
normalize = "none"                                   # 27 unknown key
[comparison.thresholds]
q = 2.0                                              # 28 range
[resources]
in_flight_bytes = "lots"                             # 29 unusable
devise = "cpu"                                       # 30 unknown key
"#;

#[test]
fn thirty_mistakes_yield_thirty_messages() {
    let errors = Screen::parse(MISTAKES, "bad.toml").unwrap_err();
    let text = errors.to_string();
    assert_eq!(errors.0.len(), 30, "{text}");
    for (line, column, part) in [
        (2, 1, "unknown key 'colour' in the file"),
        (5, 1, "did you mean 'description'?"),
        (7, 10, "did you mean 'imagexpress'?"),
        (13, 22, "did you mean 'match'?"),
        (16, 13, "8, 12, 14 or 16"),
        (32, 17, "a number from 0 to 1000000"),
        (34, 10, "did you mean 'native'?"),
        (36, 12, "did you mean 'rescue'?"),
        (37, 1, "did you mean 'normalise'?"),
        (39, 5, "comparison.thresholds.q is 2"),
        (42, 1, "did you mean 'device'?"),
    ] {
        let expected = format!("bad.toml:{line}:{column}: ");
        assert!(
            text.lines().any(|l| l.starts_with(&expected) && l.contains(part)),
            "no {expected}...{part} in\n{text}"
        );
    }
}

#[test]
fn a_model_nobody_knows_is_one_more_problem_of_the_file() {
    let text = MINIMAL.replace("store = ", "stroe = 1\nstore = ") + "[model]\nname = \"openfenom\"\n";
    let known = ["efficientnet-lite0", "openphenom"];
    let errors = Screen::parse_with_models(&text, "m.toml", &known)
        .unwrap_err()
        .to_string();
    assert!(errors.contains("m.toml:6:1: unknown key 'stroe'"), "{errors}");
    assert!(
        errors.contains("m.toml:17:8: model.name is \"openfenom\": did you mean 'openphenom'?"),
        "{errors}"
    );
    assert!(Screen::parse(&text.replace("stroe = 1", ""), "m.toml").is_ok());
}

#[test]
fn errors_of_syntax_do_not_hide_other_mistakes() {
    let text = MINIMAL
        .replace("name = \"small\"", "name = = 3")
        .replace("[images]", "[images]\nlayuot = \"auto\"");
    let errors = Screen::parse(&text, "bad.toml").unwrap_err();
    assert!(
        errors
            .0
            .iter()
            .any(|e| matches!(e.problem, ScreenProblem::Syntax { .. }) && e.line == 3),
        "{errors}"
    );
    assert!(errors.to_string().contains("did you mean 'layout'?"), "{errors}");
}

#[test]
fn what_a_screen_file_cannot_be_is_refused() {
    let long = format!("# {}", "x".repeat(MAX_SCREEN_BYTES));
    let deep = format!("a = {}", "[".repeat(100_000));
    for (text, part) in [
        (long.as_str(), "holds at most 1048576"),
        (deep.as_str(), "not TOML"),
        ("", "the file needs 'screen'"),
        ("\u{feff}[screen]\nname = \"a\"", "the file needs 'images'"),
        ("[screen]\nname = \"a\"", "or [profiles]"),
        ("screen = 3", "screen is a whole number: expected a table"),
    ] {
        let errors = Screen::parse(text, "a.toml").unwrap_err();
        assert!(errors.to_string().contains(part), "{errors}");
    }
    let long_name = "a".repeat(65);
    for name in ["", "with space", "Ünï", "A", long_name.as_str()] {
        let text = MINIMAL.replace("\"small\"", &format!("\"{name}\""));
        assert_eq!(Screen::parse(&text, "a.toml").unwrap_err().0.len(), 1, "{name}");
    }
}

#[test]
fn the_unit_of_doses_is_a_known_one() {
    let with = |unit: &str| {
        let text = MINIMAL.replace("[controls]", &format!("dose_unit = \"{unit}\"\n[controls]"));
        assert_ne!(text, MINIMAL);
        Screen::parse(&text, "a.toml")
    };
    for unit in [
        "nM",
        "µM",
        "um",
        "mM",
        "M",
        "pM",
        "ug/mL",
        "mg/ml",
        "ng/mL",
        "nmol/L",
        "micromolar",
        "%",
        "Gy",
    ] {
        assert_eq!(with(unit).unwrap().plate_map.dose_unit, unit);
    }
    for (unit, part) in [
        (
            "bananas",
            "plate_map.dose_unit is \"bananas\": known are nM, uM, mM",
        ),
        ("ug/mLL", "did you mean 'ug/mL'?"),
        ("xM", "did you mean 'nM'?"),
    ] {
        let errors = with(unit).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert!(errors.to_string().contains(part), "{errors}");
        assert!(errors.0[0].line > 1, "{errors}");
    }
    let own = format!("{MINIMAL}\n[comparison]\ndose_unit = \"bananas\"\n");
    let errors = Screen::parse(&own, "a.toml").unwrap_err().to_string();
    assert!(errors.contains("comparison.dose_unit is \"bananas\""), "{errors}");
}

#[test]
fn contradictions_are_named() {
    for (from, to, part) in [
        (
            "store = \"images\"",
            "store = \"i\"\nlayout = \"pattern\"",
            "needs images.pattern",
        ),
        (
            "store = \"images\"",
            "store = \"i\"\npattern = '(?<field>x)'",
            "no group that names the well",
        ),
        (
            "store = \"images\"",
            "store = \"i\"\npattern = '('",
            "not a regular expression",
        ),
        (
            "store = \"images\"",
            "store = \"i\"\nlayout = \"rxrx\"\npattern = '(?<well>x)'",
            "leave one of the two",
        ),
        (
            "role = \"disease\"",
            "role = \"healthy\"",
            "select the same wells",
        ),
        (
            "[controls]",
            "[preprocess]\nbackground = [1, 2, 3]\n[controls]",
            "3 entries for 2 channels",
        ),
        (
            "[controls]",
            "[preprocess]\nillumination = \"{chanel}.npy\"\n[controls]",
            "did you mean '{channel}'?",
        ),
        (
            "[controls]",
            "[preprocess]\ndark_field = \"{plate}_dark.npy\"\n[controls]",
            "put {channel} into the path",
        ),
        (
            "[controls]",
            "dose_unit = \"nM\"\n[comparison]\ndose_unit = \"uM\"\n[controls]",
            "contradicts",
        ),
        (
            "[controls]",
            "[quality]\nnuclei_channel = \"DAN\"\n[controls]",
            "did you mean 'DNA'?",
        ),
    ] {
        let errors = Screen::parse(&MINIMAL.replace(from, to), "a.toml").unwrap_err();
        assert!(errors.to_string().contains(part), "{errors}");
    }
}

#[test]
fn selectors_compare_numbers_as_numbers_and_words_as_words() {
    let number = SelectorValue::Number(30.0);
    for cell in ["30", "30.0", " 3e1 "] {
        assert!(number.matches(cell), "{cell}");
        assert!(SelectorValue::Text("30".to_owned()).matches(cell), "{cell}");
    }
    assert!(!number.matches("300") && !number.matches("") && !number.matches("x"));
    assert!(SelectorValue::Bool(true).matches("TRUE") && !SelectorValue::Bool(true).matches("no"));
    assert!(!SelectorValue::Text("dmso".to_owned()).matches("DMSO"));
}

/// The nearest character boundary at or before a byte offset.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(text in any::<String>()) {
        let _ = Screen::parse(&text, "a.toml");
    }

    #[test]
    fn no_damage_to_a_good_file_makes_the_reader_panic(
        from in 0usize..2000, length in 0usize..40, insert in "[\\[\\]{}=\"'.,#\\n0-9a-zéx-]{0,8}", file in 0usize..3,
    ) {
        let base = [MINIMAL, MISTAKES, &ready_files()[0].1][file].to_owned();
        let start = boundary(&base, from % base.len());
        let end = boundary(&base, (start + length).min(base.len())).max(start);
        let text = format!("{}{insert}{}", &base[..start], &base[end..]);
        if let Err(errors) = Screen::parse(&text, "a.toml") {
            prop_assert!(!errors.0.is_empty());
            prop_assert!(errors.0.iter().all(|e| e.line >= 1 && e.column >= 1));
        }
    }

    #[test]
    fn no_path_makes_a_layout_panic(path in any::<String>(), tail in "[A-Z]{0,3}[0-9]{0,12}_s[0-9]{0,12}_w[0-9]{0,3}\\.tif") {
        let screen = Screen::parse(MINIMAL, "a.toml").unwrap();
        for choice in [LayoutChoice::ImageXpress, LayoutChoice::Phenix, LayoutChoice::RxRx] {
            let mut images = screen.images.clone();
            images.layout = choice;
            let layout = Layout::from_settings(&images, []).unwrap();
            let _ = layout.parse(&path);
            if let Parsed::Image(key) = layout.parse(&format!("p/x_{tail}")) {
                prop_assert!(key.well.column() >= 1);
            }
        }
    }
}

#[test]
fn nuclei_are_counted_where_the_file_says_so_and_mistakes_are_named() {
    let with = |nuclei: &str, channels: &str| {
        let text = MINIMAL.to_owned() + "\n" + nuclei;
        Screen::parse(&text.replace("channels = [\"DNA\", \"ER\"]", channels), "n.toml")
    };
    let dna = "channels = [\"DNA\", \"ER\"]";
    assert_eq!(Screen::parse(MINIMAL, "n.toml").unwrap().nuclei, None);
    // The channel of the quality gates, and the usual sizes.
    let nuclei = with("[nuclei]", dna).unwrap().nuclei.unwrap();
    assert_eq!(
        (nuclei.channel.as_str(), nuclei.min_diameter, nuclei.max_diameter),
        ("DNA", 10.0, 60.0)
    );
    let other = "channels = [\"Hoechst\", \"ER\"]";
    let nuclei = with(
        "[nuclei]\nchannel = \"Hoechst\"\nmin_diameter = 80\nmax_diameter = 90",
        other,
    );
    let nuclei = nuclei.unwrap().nuclei.unwrap();
    assert_eq!((nuclei.channel.as_str(), nuclei.max_diameter), ("Hoechst", 90.0));
    for (table, channels, part) in [
        ("[nuclei]", other, "the channel that shows nuclei"),
        (
            "[nuclei]\nchannel = \"Hoechts\"",
            other,
            "did you mean 'Hoechst'?",
        ),
        ("[nuclei]\nmin_diameter = 0", dna, "nuclei.min_diameter"),
        (
            "[nuclei]\nmin_diameter = 20\nmax_diameter = 10",
            dna,
            "below min_diameter, which is 20",
        ),
        ("[nuclei]\nthreshold = \"ostu\"", dna, "did you mean 'otsu'?"),
        ("[nuclei]\ndeclumb = \"shape\"", dna, "did you mean 'declump'?"),
    ] {
        let text = with(table, channels).unwrap_err().to_string();
        assert!(text.contains(part), "{table}: {text}");
    }
}
