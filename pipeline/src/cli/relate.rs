//! `wellspring relate`: are known relations found again in these profiles?
//!
//! Profile tables and a table of known pairs enter; `recall.parquet`, `recall_at_k.parquet` and, where clusters are
//! given, `clusters.parquet` leave. Fails where names do not match, and says which.

pub(crate) mod profiles;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;
use wellspring::results::{Cell, Column, ColumnKind, TableWriter};
use wellspring_workloads::relate::clusters::FEWEST_MEMBERS;
use wellspring_workloads::relate::recall::DEFAULT_THRESHOLDS;
use wellspring_workloads::relate::{
    ClusterRow, Clusters, Pairs, Recall, RecallAtK, Relations, clusters, recall, recall_at_k,
};

use super::calls::{Grid, Side};
use super::say;
use profiles::ProfileArgs;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wellspring relate --profiles aligned.parquet --annotations targets.csv --out relations\n  \
                  wellspring relate --profiles *.csv.gz --by Metadata_gene --annotations corum.csv --k 1,10 --out out\n\n\
                  Annotations: a CSV or TSV with the columns entity1, entity2 and, if wanted, source; clusters: with \
                  the columns cluster and entity. A pair is recalled where its cosine lies in the lowest or highest \
                  tail of the cosines of all pairs, over all pairs and over pairs on no common plate."
)]
pub(crate) struct Args {
    #[command(flatten)]
    profiles: ProfileArgs,
    /// Known pairs.
    #[arg(long, value_name = "FILE")]
    annotations: PathBuf,
    /// Known groups.
    #[arg(long, value_name = "FILE")]
    clusters: Option<PathBuf>,
    /// Folder of the results.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also the share of partners among this many nearest.
    #[arg(long, value_name = "K,..", value_delimiter = ',', default_value = "1,5,10,50")]
    k: Vec<usize>,
    /// Fewest members of a cluster.
    #[arg(long, value_name = "N", default_value_t = FEWEST_MEMBERS)]
    fewest: usize,
    /// End with one JSON line on standard output instead of the table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Summary<'a> {
    perturbations: usize,
    rows: u64,
    recall: Vec<RecallLine<'a>>,
    out: &'a Path,
}

#[derive(Debug, Serialize)]
struct RecallLine<'a> {
    source: &'a str,
    pairs: &'static str,
    low: f64,
    high: f64,
    annotated: usize,
    null: u64,
    recall: Option<f64>,
    chance: f64,
}

pub(crate) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let read = args.profiles.read()?;
    let relations = Relations::parse(&text(&args.annotations)?, &args.annotations.display().to_string())?;
    let groups = args
        .clusters
        .as_ref()
        .map(|path| -> anyhow::Result<Clusters> {
            Ok(Clusters::parse(&text(path)?, &path.display().to_string())?)
        })
        .transpose()?;
    let rows = recall(&read.perturbations, &relations, &DEFAULT_THRESHOLDS)?;
    let at_k = recall_at_k(&read.perturbations, &relations, &args.k)?;
    let out = &args.out;
    std::fs::create_dir_all(out).with_context(|| format!("the folder '{}' cannot be made", out.display()))?;
    let metadata = [
        (
            "wellspring.version".to_owned(),
            env!("CARGO_PKG_VERSION").to_owned(),
        ),
        (
            "wellspring.annotations".to_owned(),
            args.annotations.display().to_string(),
        ),
    ];
    write_recall(out, &rows, &metadata)?;
    write_recall_at_k(out, &at_k, &metadata)?;
    if let Some(groups) = &groups {
        write_clusters(
            out,
            &clusters(&read.perturbations, groups, args.fewest),
            &metadata,
        )?;
    }
    for note in &read.notes {
        say::note(format!("note: {note}"));
    }
    if args.json {
        say::line(serde_json::to_string(&Summary {
            perturbations: read.perturbations.len(),
            rows: read.rows,
            recall: rows.iter().map(line).collect(),
            out,
        })?);
    } else {
        say::line(table(&rows).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("'{}' cannot be read", path.display()))
}

fn pairs_name(pairs: Pairs) -> &'static str {
    match pairs {
        Pairs::All => "all",
        Pairs::CrossPlate => "cross_plate",
    }
}

fn source_name(source: Option<&String>) -> &str {
    source.map_or("all sources", String::as_str)
}

fn line(row: &Recall) -> RecallLine<'_> {
    RecallLine {
        source: source_name(row.source.as_ref()),
        pairs: pairs_name(row.pairs),
        low: row.low,
        high: row.high,
        annotated: row.annotated,
        null: row.null,
        recall: row.recall,
        chance: row.chance,
    }
}

fn table(rows: &[Recall]) -> String {
    let mut grid = Grid::new(&[
        ("source", Side::Left),
        ("pairs", Side::Left),
        ("tails", Side::Left),
        ("annotated", Side::Right),
        ("recall", Side::Right),
        ("chance", Side::Right),
    ]);
    for row in rows {
        grid.push(vec![
            source_name(row.source.as_ref()).to_owned(),
            pairs_name(row.pairs).to_owned(),
            format!("{} {}", row.low, row.high),
            row.annotated.to_string(),
            row.recall.map_or("-".to_owned(), |recall| format!("{recall:.3}")),
            format!("{:.3}", row.chance),
        ]);
    }
    grid.text()
}

fn count(n: usize) -> Cell<'static> {
    Cell::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn write_recall(out: &Path, rows: &[Recall], metadata: &[(String, String)]) -> anyhow::Result<()> {
    use ColumnKind::{Float64, Int64, Text};
    let columns = vec![
        Column::required("source", Text),
        Column::required("pairs", Text),
        Column::required("left_threshold", Float64),
        Column::required("right_threshold", Float64),
        Column::required("query_distribution_size", Int64),
        Column::required("null_distribution_size", Int64),
        Column::optional("recall", Float64),
        Column::optional("recall_left", Float64),
        Column::optional("recall_right", Float64),
        Column::required("chance", Float64),
    ];
    let mut table = TableWriter::create(&out.join("recall.parquet"), columns, &[], metadata)?;
    for row in rows {
        let cells = [
            Cell::Text(source_name(row.source.as_ref())),
            Cell::Text(pairs_name(row.pairs)),
            Cell::Number(row.low),
            Cell::Number(row.high),
            count(row.annotated),
            Cell::Int(i64::try_from(row.null).unwrap_or(i64::MAX)),
            Cell::number(row.recall),
            Cell::number(row.recall_low),
            Cell::number(row.recall_high),
            Cell::Number(row.chance),
        ];
        table.push(&cells, &[])?;
    }
    table.finish()?;
    Ok(())
}

fn write_recall_at_k(out: &Path, rows: &[RecallAtK], metadata: &[(String, String)]) -> anyhow::Result<()> {
    use ColumnKind::{Float64, Int64, Text};
    let columns = vec![
        Column::required("source", Text),
        Column::required("pairs", Text),
        Column::required("k", Int64),
        Column::required("queries", Int64),
        Column::optional("recall", Float64),
        Column::optional("chance", Float64),
    ];
    let mut table = TableWriter::create(&out.join("recall_at_k.parquet"), columns, &[], metadata)?;
    for row in rows {
        let cells = [
            Cell::Text(source_name(row.source.as_ref())),
            Cell::Text(pairs_name(row.pairs)),
            count(row.k),
            count(row.queries),
            Cell::number(row.recall),
            Cell::number(row.chance),
        ];
        table.push(&cells, &[])?;
    }
    table.finish()?;
    Ok(())
}

fn write_clusters(out: &Path, rows: &[ClusterRow], metadata: &[(String, String)]) -> anyhow::Result<()> {
    use ColumnKind::{Float64, Int64, Text};
    let columns = vec![
        Column::required("cluster", Text),
        Column::required("members", Int64),
        Column::required("others", Int64),
        Column::required("within_cosine", Float64),
        Column::required("between_cosine", Float64),
        Column::required("ks_statistic", Float64),
        Column::required("ks_p_value", Float64),
    ];
    let mut table = TableWriter::create(&out.join("clusters.parquet"), columns, &[], metadata)?;
    for row in rows {
        let cells = [
            Cell::Text(&row.cluster),
            count(row.members),
            count(row.others),
            Cell::Number(row.within),
            Cell::Number(row.between),
            Cell::Number(row.statistic),
            Cell::Number(row.p_value),
        ];
        table.push(&cells, &[])?;
    }
    table.finish()?;
    Ok(())
}
