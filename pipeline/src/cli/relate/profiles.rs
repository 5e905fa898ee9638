//! From profile tables to one direction per perturbation: for `relate` and `neighbours`.
//!
//! Tables enter row by row, means leave with what was left out; memory grows with perturbations. Fails where the
//! columns that name a perturbation are missing, features differ between tables, or no row is left.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use wellspring::results::{ColumnRole, FeatureColumns, ProfileFile};
use wellspring_workloads::columns::is_missing;
use wellspring_workloads::relate::{PerturbationMeans, Perturbations};

/// Names by which tables call a control; they take part in no relation.
const CONTROLS: [(&str, &[&str]); 3] = [
    ("Metadata_role", &["reference", "phenotype"]),
    ("Metadata_pert_type", &["control"]),
    ("Metadata_Treatment_Control_Class", &["Control", "NegCon"]),
];

#[derive(Debug, clap::Args)]
pub(crate) struct ProfileArgs {
    /// Profile tables of one model, aligned as they should be compared: Parquet, CSV or TSV, gzipped or not.
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    profiles: Vec<PathBuf>,
    /// Columns that name a perturbation; their texts are joined with `_`. Rows of one name are averaged.
    #[arg(
        long,
        value_name = "COLUMN,..",
        value_delimiter = ',',
        default_value = "Metadata_compound"
    )]
    by: Vec<String>,
    /// Keep control wells as perturbations.
    #[arg(long)]
    controls: bool,
    /// Which columns are features: names or patterns such as `Cells_*`. Default: recognised.
    #[arg(long, value_name = "PATTERNS", default_value = "")]
    columns: String,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) perturbations: Perturbations,
    /// Rows that were averaged.
    pub(crate) rows: u64,
    /// For people: what was left out and why.
    pub(crate) notes: Vec<String>,
}

impl ProfileArgs {
    pub(crate) fn read(&self) -> anyhow::Result<Read> {
        let columns = FeatureColumns::from_text(&self.columns);
        let mut means = PerturbationMeans::new();
        let mut features: Vec<String> = Vec::new();
        let (mut rows, mut controls, mut unnamed, mut broken) = (0u64, 0u64, 0u64, 0u64);
        for path in &self.profiles {
            let file = ProfileFile::open(path, &columns, &self.by)?;
            if features.is_empty() {
                features = file.features().to_vec();
            } else if features != file.features() {
                bail!(
                    "'{}' has other features than '{}'; relate tables of one kind at a time, or choose common columns \
                     with --columns",
                    path.display(),
                    self.profiles[0].display()
                );
            }
            let layout = self.layout(path, file.metadata())?;
            for block in file.blocks(&layout.columns) {
                let block = block?;
                for (row, values) in block.values.chunks_exact(features.len().max(1)).enumerate() {
                    let cell = |column: usize| {
                        block.metadata[column][row]
                            .as_deref()
                            .filter(|text| !is_missing(text))
                    };
                    let named: Option<Vec<&str>> = (0..layout.names).map(cell).collect();
                    if !self.controls && layout.is_control(cell) {
                        controls += 1;
                    } else if !values.iter().all(|value| value.is_finite()) {
                        broken += 1;
                    } else if let Some(named) = named {
                        let plate = layout.plate.and_then(cell).unwrap_or_default();
                        means.push(&named.join("_"), plate, values).with_context(|| {
                            format!("'{}' row {}", path.display(), block.first_row + row as u64)
                        })?;
                        rows += 1;
                    } else {
                        unnamed += 1;
                    }
                }
            }
        }
        let by = self.by.join(", ");
        if rows == 0 {
            bail!(
                "no row of the profiles names a perturbation in {by} ({controls} control rows, {unnamed} rows without \
                 a name, {broken} with a missing or infinite feature); name the columns with --by"
            );
        }
        let perturbations = means.finish();
        let mut notes = Vec::new();
        for (count, what) in [
            (
                controls,
                "control rows are left out; --controls keeps them".to_owned(),
            ),
            (unnamed, format!("rows have no text in {by} and are left out")),
            (
                broken,
                "rows have a missing or infinite feature and are left out".to_owned(),
            ),
        ] {
            if count > 0 {
                notes.push(format!("{count} {what}"));
            }
        }
        if !perturbations.without_direction().is_empty() {
            notes.push(format!(
                "perturbations whose mean profile is zero are left out: {}",
                perturbations.without_direction().join(", ")
            ));
        }
        Ok(Read {
            perturbations,
            rows,
            notes,
        })
    }

    /// The columns of a table that are needed.
    fn layout(&self, path: &Path, metadata: &[String]) -> anyhow::Result<Layout> {
        let find = |name: &str| metadata.iter().position(|column| column == name);
        let mut columns = Vec::new();
        for name in &self.by {
            columns.push(find(name).with_context(|| {
                let shown = metadata.iter().take(30).cloned().collect::<Vec<_>>().join(", ");
                format!(
                    "'{}' has no column '{name}'; name the columns with --by, out of {shown}",
                    path.display()
                )
            })?);
        }
        let names = columns.len();
        let mut add = |at: usize| {
            columns.push(at);
            columns.len() - 1
        };
        let plate = ColumnRole::Plate.find(metadata).map(&mut add);
        let controls = CONTROLS
            .iter()
            .filter_map(|(name, texts)| Some((add(find(name)?), *texts)))
            .collect();
        Ok(Layout {
            columns,
            names,
            plate,
            controls,
        })
    }
}

/// Columns that are read, and what the places among them are.
struct Layout {
    columns: Vec<usize>,
    /// The first ones name the perturbation.
    names: usize,
    plate: Option<usize>,
    controls: Vec<(usize, &'static [&'static str])>,
}

impl Layout {
    fn is_control<'c>(&self, cell: impl Fn(usize) -> Option<&'c str>) -> bool {
        self.controls.iter().any(|(column, texts)| {
            cell(*column).is_some_and(|text| texts.iter().any(|other| text.eq_ignore_ascii_case(other)))
        })
    }
}
