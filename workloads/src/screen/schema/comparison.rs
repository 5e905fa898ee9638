//! `[comparison]` and `[monitor]`, key by key.

use serde_json::{Value, json};

use super::form::{above, at_least, key, number, or_else, table, whole, word, yes_or_no};
use crate::compare::{ComparisonSettings, Thresholds};
use crate::monitor::{MonitorLimits, MonitorSettings};

pub(super) fn comparison() -> Value {
    let usual = ComparisonSettings::default();
    let aligned = usual.alignment;
    let alignment = table([
        key(
            "components",
            "Principal components at most.",
            or_else(whole(2..=4096), aligned.components),
        ),
        key(
            "ridge",
            "Added to variances before they are inverted.",
            or_else(above(0.0), aligned.ridge),
        ),
        key(
            "sphere",
            "Which sphering map.",
            or_else(word(&["pca", "zca", "pca-cor", "zca-cor", "eigen"]), "zca-cor"),
        ),
        key(
            "epsilon",
            "Added to singular values.",
            or_else(at_least(0.0), aligned.epsilon),
        ),
    ]);
    let correction = || or_else(word(&["bh", "hierarchical"]), "bh");
    let activity = table([
        key(
            "null",
            "What mean average precision is compared with.",
            or_else(word(&["independent", "copairs"]), "independent"),
        ),
        key("correction", "How p-values become q-values.", correction()),
    ]);
    table([
        key(
            "question",
            "What the screen asks.",
            or_else(word(&["rescue", "response", "activity"]), "rescue"),
        ),
        key(
            "normalise",
            "How each plate is scaled.",
            or_else(
                word(&["none", "standardise", "robust_mad", "percentile"]),
                "standardise",
            ),
        ),
        key(
            "fit_on",
            "The wells scaling is fitted on.",
            or_else(word(&["reference", "all"]), "reference"),
        ),
        key(
            "well_position",
            "Takes out what each position has in common over plates.",
            or_else(yes_or_no(), usual.well_position),
        ),
        key(
            "cell_count_residuals",
            "Also writes residuals.parquet: profiles without what follows the number of cells.",
            or_else(yes_or_no(), usual.cell_count_residuals),
        ),
        key(
            "select",
            "Which feature columns are compared.",
            or_else(word(&["none", "recommended"]), "none"),
        ),
        key(
            "align",
            "The space of off-axis lengths.",
            or_else(word(&["auto", "none", "pca", "tvn", "sphere", "harmony"]), "auto"),
        ),
        key("alignment", "Numbers of align.", alignment),
        key(
            "transform",
            "File of an alignment fitted before.",
            json!({ "type": "string" }),
        ),
        key(
            "null_from",
            "Which controls a treatment is compared with.",
            or_else(word(&["plates", "screen"]), "plates"),
        ),
        key("correction", "How p-values become q-values.", correction()),
        key("activity", "How replicate retrieval is judged.", activity),
        key(
            "aggregate",
            "From fields to a well.",
            or_else(word(&["mean", "median"]), "mean"),
        ),
        key(
            "consensus",
            "From wells to a treatment.",
            or_else(word(&["mean", "median", "modz"]), "mean"),
        ),
        key(
            "seed",
            "Of every drawn null.",
            or_else(json!({ "type": "integer", "minimum": 0 }), usual.seed),
        ),
        key(
            "curve_loss",
            "What a residual of a dose curve costs.",
            or_else(word(&["squares", "cauchy", "tukey"]), "squares"),
        ),
        key(
            "dose_unit",
            "Unit of the doses, as in plate_map.",
            or_else(json!({ "type": "string" }), usual.dose_unit),
        ),
        key(
            "thresholds",
            "Limits of the calls.",
            thresholds(&usual.thresholds),
        ),
    ])
}

fn thresholds(usual: &Thresholds) -> Value {
    let q = json!({ "type": "number", "exclusiveMinimum": 0.0, "exclusiveMaximum": 1.0 });
    let share = || number(0.0..=1.0);
    let count = || whole(1..=10_000_000);
    table([
        key("q", "Largest q-value that is significant.", or_else(q, usual.q)),
        key(
            "active_top",
            "Smallest |top| of an active compound.",
            or_else(above(0.0), usual.active_top),
        ),
        key(
            "hit_top",
            "Smallest top of a hit.",
            or_else(above(0.0), usual.hit_top),
        ),
        key(
            "off_z",
            "Off-axis z from which a treatment is toxic.",
            or_else(above(0.0), usual.off_z),
        ),
        key(
            "toxic_cell_ratio",
            "Below this share of the controls' cells a treatment is toxic.",
            or_else(at_least(0.0), usual.toxic_cell_ratio),
        ),
        key(
            "hit_cell_ratio",
            "A hit keeps this share of the controls' cells.",
            or_else(at_least(0.0), usual.hit_cell_ratio),
        ),
        key(
            "replicate_z",
            "z that half of a hit's wells reach.",
            or_else(at_least(0.0), usual.replicate_z),
        ),
        key(
            "replicate_map_q",
            "Corrected p of replicate retrieval that supports a hit.",
            or_else(share(), usual.replicate_map_q),
        ),
        key(
            "mimic_cosine",
            "Cosine from which a compound mimics the phenotype.",
            or_else(share(), usual.mimic_cosine),
        ),
        key(
            "aic_margin",
            "By which a dose curve must win.",
            or_else(at_least(0.0), usual.aic_margin),
        ),
        key(
            "exact_combinations",
            "Enumerated at most.",
            or_else(count(), usual.exact_combinations),
        ),
        key(
            "draws",
            "Of a null that is not enumerated.",
            or_else(count(), usual.draws),
        ),
    ])
}

pub(super) fn monitor() -> Value {
    let usual = MonitorSettings::default();
    let any = || json!({ "type": "string" });
    table([
        key(
            "enabled",
            "Whether controls are watched.",
            or_else(yes_or_no(), usual.enabled),
        ),
        key(
            "action",
            "What an alert does.",
            or_else(word(&["note", "quarantine"]), "note"),
        ),
        key(
            "assay",
            "What reference and plates share. Default: the screen's name.",
            any(),
        ),
        key("microscope", "What reference and plates share.", any()),
        key(
            "reference",
            "File of the reference. Default: the first plates.",
            any(),
        ),
        key(
            "reference_plates",
            "Accepted plates of a reference.",
            or_else(whole(10..=1000), usual.reference_plates),
        ),
        key(
            "components",
            "Principal components of the reference.",
            or_else(whole(2..=64), usual.components),
        ),
        key(
            "permutations",
            "Of the tests.",
            or_else(whole(199..=1_000_000), usual.permutations),
        ),
        key("limits", "Of warnings and alerts.", limits(&usual.limits)),
    ])
}

fn limits(usual: &MonitorLimits) -> Value {
    let share = || number(0.0..=1.0);
    let cosine = || number(-1.0..=1.0);
    table([
        key(
            "outliers_warn",
            "Share of outlying control wells.",
            or_else(share(), usual.outliers_warn),
        ),
        key(
            "outliers_alert",
            "Share of outlying control wells.",
            or_else(share(), usual.outliers_alert),
        ),
        key(
            "cosine_warn",
            "With the reference's disease vector.",
            or_else(cosine(), usual.cosine_warn),
        ),
        key(
            "cosine_alert",
            "With the reference's disease vector.",
            or_else(cosine(), usual.cosine_alert),
        ),
        key(
            "z_prime_alert",
            "Robust leave-one-out Z'.",
            or_else(json!({ "type": "number", "maximum": 1.0 }), usual.z_prime_alert),
        ),
        key("q_alert", "q-value of the mean.", or_else(share(), usual.q_alert)),
    ])
}
