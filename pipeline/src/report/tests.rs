//! The page is whole, escapes what it shows, and stands without data.

use wellspring_workloads::compare::{
    AicTable, AssayWindow, Censoring, CompoundSummary, CurveModel, CurveParameters, DoseCurve, DosePoint,
    WindowVerdict,
};
use wellspring_workloads::profile::Role;

use super::super::{DeadLetterLine, FlagCount, Montage, PlateFacts, RunFacts, Tile, WellFacts};
use super::*;
use crate::compare::{ShownEffect, ShownMatrix};
use crate::results::tables::Provenance;
use wellspring_workloads::words::{Barcode, WellPosition};

const HOSTILE: &str = "<img src=x onerror=alert(1)>\"'&";

fn facts() -> RunFacts {
    RunFacts {
        provenance: Provenance {
            screen: "a screen".to_owned(),
            run: "r1".to_owned(),
            screen_sha256: "5c".to_owned(),
            model: "net".to_owned(),
            model_sha256: "3d".to_owned(),
            seed: 42,
            transform_sha256: None,
        },
        description: String::new(),
        finished: "2026-01-02 03:04 UTC".to_owned(),
        seconds: 61.0,
        plates: 1,
        wells: 3,
        fields_expected: 10,
        fields_done: 9,
        fields_failed: 1,
        dead_letters: 1,
        device: "CPU".to_owned(),
        engine: "native".to_owned(),
        version: "0.1.0".to_owned(),
        more: Vec::new(),
    }
}

fn input(run: &RunFacts) -> ReportInput<'_> {
    ReportInput {
        run,
        comparison: None,
        comparison_failed: None,
        drift: None,
        replicates: None,
        matrix: None,
        question: Question::Response,
        dose_unit: "uM",
        plates: &[],
        dead_letters: &[],
        quality_flags: &[],
        montage: None,
    }
}

fn row(compound: Option<&str>, dose: Option<f64>, on_axis: f64, call: Call) -> Comparison {
    Comparison {
        disease: None,
        compound: compound.map(str::to_owned),
        dose,
        dose_unit: "uM".to_owned(),
        n_wells: 2,
        n_plates: 1,
        counter_screen: false,
        on_axis: Some(on_axis),
        off_axis: 0.5,
        aligned_on_axis: None,
        excess: None,
        off_z: None,
        off_z_support: None,
        effect_z: None,
        effect_z_support: None,
        rescue: Some(1.0 - on_axis),
        specificity: None,
        distance: 1.0,
        direction_cosine: None,
        cell_ratio: None,
        p_value: Some(0.01),
        q_value: Some(0.02),
        p_off: None,
        q_off: None,
        map_q_value: None,
        call,
    }
}

/// A compound whose effect rises and falls again.
fn comparison(compound: &str) -> ScreenComparison {
    let doses = [0.1, 1.0, 10.0, 100.0];
    let effects = [0.0, 0.2, 1.0, 0.6];
    let well = |i: u8| WellPosition::new(1, i).unwrap();
    let plate: Barcode = "P1".parse().unwrap();
    let mut rows = vec![
        row(None, Some(0.0), 0.0, Call::Reference),
        row(Some(compound), Some(30.0), 1.0, Call::Phenotype),
    ];
    rows.extend(
        doses
            .iter()
            .zip(effects)
            .map(|(d, e)| row(Some(compound), Some(*d), e, Call::Active)),
    );
    let points = (1u8..)
        .zip(doses.iter().zip(effects))
        .map(|(i, (dose, value))| DosePoint {
            plate: plate.clone(),
            well: well(i),
            dose: *dose,
            value,
            masked: false,
        })
        .collect();
    let curve = DoseCurve {
        measure: Measure::OnAxis,
        model: CurveModel::GainLoss,
        parameters: CurveParameters {
            bottom: 0.0,
            top: 1.2,
            log10_ec50: Some(0.5),
            hill: Some(1.5),
            log10_loss_ec50: Some(2.0),
            loss_hill: Some(1.0),
        },
        ec50: Some(3.16),
        censoring: Censoring::None,
        ac50: Some(3.0),
        log10_ec50_se: None,
        ec50_low: None,
        ec50_high: None,
        cutoff_dose: None,
        hit_call: None,
        spearman: None,
        trend_p: None,
        top: 1.0,
        monotone: false,
        aic: AicTable {
            zero: None,
            constant: None,
            hill: None,
            gain_loss: None,
        },
        sse: 0.1,
        tested: (0.1, 100.0),
        points,
    };
    let summary = CompoundSummary {
        disease: None,
        compound: Some(compound.to_owned()),
        call: Call::Active,
        rank: 1,
        score: 0.9,
        n_doses: 4,
        best_dose: Some(10.0),
        best_rescue: Some(0.0),
        best_specificity: None,
        best_model_specificity: None,
        best_off_z: Some(1.0),
        best_cell_ratio: None,
        top: 1.0,
        min_q: Some(0.02),
        max_off_z: Some(1.0),
        min_cell_ratio: None,
        toxic_dose: None,
        therapeutic_window: None,
        best_effect_z_support: None,
        best_map_q_value: None,
        curve: Some(curve),
        off_curve: None,
        cell_curve: None,
    };
    let score = |i: u8, on_axis| WellScore {
        plate: plate.clone(),
        well: well(i),
        disease: None,
        on_axis: Some(on_axis),
        off_axis: 0.4,
        aligned_on_axis: None,
        unaligned_off_axis: None,
        off_z: None,
        rescue: Some(1.0 - on_axis),
        cell_ratio: None,
        leave_one_out: true,
        cell_count_b_score: None,
        rescue_b_score: None,
    };
    let window = AssayWindow {
        plate: plate.clone(),
        disease: None,
        n_reference: 3,
        n_phenotype: 3,
        z_prime: Some(0.6),
        robust_z_prime: Some(0.7),
        ssmd: Some(9.0),
        robust_ssmd: None,
        multivariate_z_prime: Some(0.5),
        multivariate_robust_z_prime: None,
        multivariate_ssmd: Some(7.0),
        auc: Some(1.0),
        signal_to_noise: Some(12.0),
        phenotype_cv: Some(8.0),
        verdict: WindowVerdict::Warn,
        axis_length: 3.0,
        reference_outliers: Some(1),
        phenotype_outliers: Some(0),
        reference_trimmed: true,
        phenotype_trimmed: false,
        reference_edge: None,
        phenotype_edge: None,
    };
    ScreenComparison {
        activities: Vec::new(),
        rows,
        compounds: vec![summary],
        windows: vec![window],
        wells: vec![score(1, 0.0), score(2, 1.0)],
        notes: Vec::new(),
    }
}

fn plate(compound: &str) -> PlateFacts {
    let facts = |i: u8, role| WellFacts {
        well: WellPosition::new(1, i).unwrap(),
        role,
        disease: None,
        compound: Some(compound.to_owned()),
        dose: Some(1.0),
        fields_passed: 3,
        fields_expected: 3,
    };
    PlateFacts {
        barcode: "P1".parse().unwrap(),
        shape: (8, 12),
        wells: vec![
            facts(1, Role::Reference),
            facts(2, Role::Phenotype),
            facts(3, Role::Treated),
        ],
    }
}

/// Every element that is opened is closed, in order.
fn assert_well_formed(page: &str) {
    const VOID: [&str; 4] = ["meta", "img", "br", "!DOCTYPE"];
    let mut open: Vec<&str> = Vec::new();
    let body = page
        .replace("<style>", "<style><!--")
        .replace("</style>", "--></style>");
    let mut rest = body.as_str();
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.split_once("-->").unwrap().1;
            continue;
        }
        let (tag, after) = rest.split_once('>').unwrap();
        rest = after;
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(
                open.pop(),
                Some(closed),
                "after {}",
                &after[..after.len().min(80)]
            );
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_full_page_is_well_formed_self_contained_and_small() {
    let run = facts();
    let comparison = comparison("drug");
    let plates = [plate("drug")];
    let montage = Montage {
        channels: vec!["GFP".parse().unwrap()],
        tiles: vec![Tile {
            label: "reference".to_owned(),
            place: "P1 A01".to_owned(),
            height: 40,
            width: 40,
            planes: vec![(0..1600).collect()],
        }],
    };
    let flags = [FlagCount {
        flag: "blur:GFP".to_owned(),
        fields: 2,
        failed: 1,
    }];
    let letters = [DeadLetterLine {
        stage: "decode".to_owned(),
        subject: "plate P1 well A01 field 2".to_owned(),
        reason: "truncated".to_owned(),
    }];
    let page = render(&ReportInput {
        comparison: Some(&comparison),
        plates: &plates,
        montage: Some(&montage),
        quality_flags: &flags,
        dead_letters: &letters,
        ..input(&run)
    })
    .unwrap();
    assert_well_formed(&page);
    for words in [
        "falls back at higher doses",
        "excellent",
        "data:image/png;base64,",
        "truncated",
        "blur:GFP",
        "9 of 10",
        "EC50 3.16 µM",
        "no score",
    ] {
        assert!(page.contains(words), "{words}");
    }
    for foreign in ["http", "<script", "<link", "@import", "url(/", "NaN"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    assert!(page.len() < 2_000_000);
}

#[test]
fn screens_of_many_diseases_have_a_matrix_and_curves_their_interval() {
    let run = facts();
    let mut both = comparison("drug");
    let page_of = |comparison: &ScreenComparison| {
        let input = ReportInput {
            comparison: Some(comparison),
            ..input(&run)
        };
        render(&input).unwrap()
    };
    assert!(!page_of(&both).contains("on each disease model"));
    let mut second = both.compounds[0].clone();
    second.disease = Some("NF1".to_owned());
    second.call = Call::Toxic;
    second.top = 0.25;
    if let Some(curve) = &mut second.curve {
        (curve.ec50_low, curve.ec50_high) = (Some(1.5), Some(9.0));
    }
    both.compounds.push(second);
    let page = page_of(&both);
    assert_well_formed(&page);
    for words in [
        "on each disease model",
        "<th scope=\"col\" class=\"n\">NF1</th>",
        "<span class=\"call bad\" title=\"toxic\">0.25</span>",
        "3.16 (1.5 to 9)",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn compounds_are_shown_against_every_disease_model_however_many() {
    let run = facts();
    let comparison = comparison("drug");
    for models in [2usize, 30, 500] {
        let effect = |compound: usize| ShownEffect {
            compound: Some(format!("<{HOSTILE}> {compound}")),
            dose: (compound > 0).then_some(0.25),
            tested_on: (compound > 1).then_some(models - 1),
            reversal: (0..models)
                .map(|model| {
                    if (model, compound) == (0, 0) {
                        f32::NAN
                    } else {
                        (model as f32 * 0.37 + compound as f32).sin()
                    }
                })
                .collect(),
        };
        let matrix = ShownMatrix {
            diseases: (0..models)
                .map(|model| Some(format!("model-{model:03}")))
                .collect(),
            rows: (0..40).map(effect).collect(),
            compounds: 10_000,
        };
        let input = ReportInput {
            comparison: Some(&comparison),
            matrix: Some(&matrix),
            ..input(&run)
        };
        let page = render(&input).unwrap();
        assert_well_formed(&page);
        assert!(page.len() < 1_000_000, "{}", page.len());
        let cells: usize = page
            .split("<path fill=")
            .skip(1)
            .map(|path| path.split("/>").next().unwrap().matches('z').count())
            .sum();
        assert_eq!(cells, 40 * models - 1);
        for words in [
            format!("all {models} disease models"),
            "40 of 10\u{202f}000 compounds".to_owned(),
            "model-000</text>".to_owned(),
        ] {
            assert!(page.contains(&words), "{words}");
        }
        assert_eq!(page.contains("is named"), models == 500);
    }
}

/// A toxic compound ranks low: of what was called nothing is cut.
#[test]
fn a_long_list_of_compounds_keeps_what_was_called() {
    let mut many = comparison("c");
    let one = many.compounds[0].clone();
    many.compounds = (1..=450)
        .map(|rank| CompoundSummary {
            rank,
            compound: Some(format!("c{rank}")),
            call: Call::Inactive,
            ..one.clone()
        })
        .collect();
    many.compounds[429].call = Call::Toxic;
    let run = facts();
    let page = render(&ReportInput {
        comparison: Some(&many),
        ..input(&run)
    })
    .unwrap();
    assert!(page.contains("401 of 450 compounds; <code>compounds.parquet</code>"));
    for (name, shown) in [("c400", true), ("c401", false), ("c430", true)] {
        assert_eq!(
            page.contains(&format!("<th scope=\"row\">{name}</th>")),
            shown,
            "{name}"
        );
    }
}

#[test]
fn text_from_outside_is_escaped_everywhere() {
    let mut run = facts();
    for field in [
        &mut run.provenance.screen,
        &mut run.provenance.run,
        &mut run.provenance.model,
        &mut run.description,
        &mut run.finished,
        &mut run.device,
        &mut run.engine,
        &mut run.version,
    ] {
        *field = HOSTILE.to_owned();
    }
    run.more = vec![(HOSTILE.to_owned(), HOSTILE.to_owned())];
    let mut comparison = comparison(HOSTILE);
    for row in &mut comparison.rows {
        row.disease = Some(HOSTILE.to_owned());
    }
    comparison.compounds[0].disease = Some(HOSTILE.to_owned());
    let mut plates = [plate(HOSTILE)];
    plates[0].barcode = HOSTILE.replace('/', "").parse().unwrap();
    plates[0].wells[0].disease = Some(HOSTILE.to_owned());
    let flags = [FlagCount {
        flag: HOSTILE.to_owned(),
        fields: 1,
        failed: 0,
    }];
    let letters = [DeadLetterLine {
        stage: HOSTILE.to_owned(),
        subject: HOSTILE.to_owned(),
        reason: HOSTILE.to_owned(),
    }];
    let page = render(&ReportInput {
        comparison: Some(&comparison),
        plates: &plates,
        quality_flags: &flags,
        dead_letters: &letters,
        dose_unit: HOSTILE,
        ..input(&run)
    })
    .unwrap();
    assert_well_formed(&page);
    assert!(!page.contains("<img") && !page.contains("\"'&"), "unescaped text");
    assert!(page.matches("&lt;img src=x").count() > 20);
}

#[test]
fn a_screen_without_anything_still_has_a_page() {
    let run = facts();
    let page = render(&ReportInput {
        comparison_failed: Some("no well profiles"),
        ..input(&run)
    })
    .unwrap();
    assert_well_formed(&page);
    assert!(page.contains("no well profiles"));
    let empty = ScreenComparison {
        activities: Vec::new(),
        rows: Vec::new(),
        compounds: Vec::new(),
        windows: Vec::new(),
        wells: Vec::new(),
        notes: Vec::new(),
    };
    let page = render(&ReportInput {
        comparison: Some(&empty),
        ..input(&run)
    })
    .unwrap();
    assert_well_formed(&page);
    assert!(page.contains("No treated wells"));
}

#[test]
fn the_same_input_gives_the_same_page() {
    let run = facts();
    let comparison = comparison("drug");
    let plates = [plate("drug")];
    let input = ReportInput {
        comparison: Some(&comparison),
        plates: &plates,
        ..input(&run)
    };
    assert_eq!(render(&input).unwrap(), render(&input).unwrap());
}

#[test]
fn the_page_says_how_many_treatments_replicate() {
    let run = facts();
    let comparison = ScreenComparison::default();
    let counts = crate::compare::ReplicateCounts {
        treatments: 700,
        retrieved: 640,
        active: 80,
        correlated: 640,
        replicating: 96,
    };
    let page = render(&ReportInput {
        comparison: Some(&comparison),
        replicates: Some(counts),
        ..input(&run)
    })
    .unwrap();
    assert!(
        page.contains("Of 640 treatments with replicates, those of 80 (12.5 %) find each other"),
        "{page}"
    );
    assert!(page.contains("Percent replicating: 15 %"), "{page}");
    let none = render(&ReportInput {
        comparison: Some(&comparison),
        replicates: Some(crate::compare::ReplicateCounts {
            treatments: 3,
            ..Default::default()
        }),
        ..input(&run)
    })
    .unwrap();
    assert!(none.contains("No treatment has replicates"), "{none}");
}
