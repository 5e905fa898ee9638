//! A second table that says what the rows of the feature tables are: `--metadata FILE`.
//!
//! The file enters; for each row of a feature table, found by a shared identifier or by plate and well, its cells
//! leave. Fails where the tables share no identifier, or two rows of the file answer for one.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail};
use wellspring::results::{ColumnRole, FeatureColumns, ProfileFile, RoleNames, Roles};
use wellspring_workloads::columns::is_missing;

/// The rows of the metadata file by key.
#[derive(Debug)]
pub(super) struct Join {
    /// The file, for messages.
    pub(super) file: String,
    /// All its columns.
    pub(super) columns: Vec<String>,
    cells: HashMap<Key, Box<[Option<Box<str>>]>>,
    by: By,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Text(Box<str>),
    Place(Box<str>, wellspring_workloads::words::WellPosition),
}

/// What the tables share.
#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    /// A column of this name in both.
    Column(String),
    /// Sites here, wells there: the identifier without its last part.
    WellOfSite(String),
    Place,
}

/// How one feature table finds its rows of the file.
#[derive(Debug)]
pub(super) enum Finder {
    Column(usize),
    WellOfSite(usize),
    Place(Box<Roles>),
}

impl Join {
    /// Reads the file. `own` are the metadata columns of the first feature table; `key` is what the screen names.
    pub(super) fn read(
        path: &Path,
        own: &[String],
        key: Option<&str>,
        names: &RoleNames,
    ) -> anyhow::Result<Self> {
        let table = ProfileFile::open(path, &FeatureColumns::None, &[])?;
        let file = path.display().to_string();
        let columns = table.metadata().to_vec();
        let by = shared(own, &columns, key, names).with_context(|| {
            format!(
                "the rows of '{file}' cannot be matched: its columns are {}",
                columns.join(", ")
            )
        })?;
        let roles = match by {
            By::Place => Some(Roles::find(&columns, names)?),
            _ => None,
        };
        let key_at = match &by {
            By::Column(name) | By::WellOfSite(name) => columns.iter().position(|column| column == name),
            By::Place => None,
        };
        let all: Vec<usize> = (0..columns.len()).collect();
        let mut cells: HashMap<Key, Box<[Option<Box<str>>]>> = HashMap::new();
        for block in table.blocks(&all) {
            let block = block?;
            for row in 0..block.rows {
                let cell = |at: usize| block.metadata[at][row].as_deref();
                let key = match (&roles, key_at) {
                    (Some(roles), _) => match roles.place(cell) {
                        Ok(place) => place_key(&place),
                        // A row without a place answers for no well.
                        Err(_) => continue,
                    },
                    (None, Some(at)) => match cell(at).filter(|text| !is_missing(text)) {
                        Some(text) => Key::Text(text.into()),
                        None => continue,
                    },
                    (None, None) => continue,
                };
                let number = block.first_row + row as u64;
                let row: Box<[_]> = (0..columns.len()).map(|at| cell(at).map(Box::from)).collect();
                if let Some(first) = cells.get(&key)
                    && *first != row
                {
                    bail!(
                        "'{file}' row {number} contradicts an earlier row about {}",
                        describe(&key)
                    );
                }
                cells.insert(key, row);
            }
        }
        Ok(Self {
            file,
            columns,
            cells,
            by,
        })
    }

    /// How rows of a feature table with the metadata columns `own` find theirs.
    pub(super) fn finder(&self, own: &[String], names: &RoleNames) -> anyhow::Result<Finder> {
        let position = |name: &String| {
            own.iter()
                .position(|other| other == name)
                .with_context(|| format!("there is no column '{name}' to match with '{}'", self.file))
        };
        Ok(match &self.by {
            By::Column(name) => Finder::Column(position(name)?),
            By::WellOfSite(_) => {
                let at = ColumnRole::SiteId.find(own);
                Finder::WellOfSite(at.context("there is no site identifier")?)
            }
            By::Place => Finder::Place(Box::new(Roles::find(own, names)?)),
        })
    }

    /// The cells of a row; `None` where the file has none for it. `own` gives the cells of the feature table.
    pub(super) fn row<'r>(
        &self,
        finder: &Finder,
        own: impl Fn(usize) -> Option<&'r str>,
    ) -> Option<&[Option<Box<str>>]> {
        let known = |at: usize| own(at).filter(|text| !is_missing(text));
        let key = match finder {
            Finder::Column(at) => Key::Text(known(*at)?.into()),
            Finder::WellOfSite(at) => Key::Text(known(*at)?.rsplit_once('_')?.0.into()),
            Finder::Place(roles) => place_key(&roles.place(known).ok()?),
        };
        self.cells.get(&key).map(AsRef::as_ref)
    }
}

impl Finder {
    /// Columns of the feature table that are looked at.
    pub(super) fn columns(&self, own: &[String]) -> Vec<usize> {
        match self {
            Self::Column(at) | Self::WellOfSite(at) => vec![*at],
            // Whatever the place is made of: all of it is decoded.
            Self::Place(_) => (0..own.len()).collect(),
        }
    }
}

fn place_key(place: &wellspring::results::RowPlace) -> Key {
    let plate = place.plate.as_ref().map_or("", |plate| plate.as_str());
    Key::Place(plate.into(), place.well)
}

fn describe(key: &Key) -> String {
    match key {
        Key::Text(text) => format!("'{text}'"),
        Key::Place(plate, well) => format!("plate {plate} well {well}"),
    }
}

/// What two tables share: the screen's key, a site or well identifier, else plate and well.
fn shared(own: &[String], other: &[String], key: Option<&str>, names: &RoleNames) -> anyhow::Result<By> {
    if let Some(key) = key {
        let has = |columns: &[String]| columns.iter().any(|name| name == key);
        if !has(own) || !has(other) {
            bail!("the screen's profiles.key is '{key}', which is not a column of both tables");
        }
        return Ok(By::Column(key.to_owned()));
    }
    let of = |role: ColumnRole, columns: &[String]| role.find(columns).map(|at| columns[at].clone());
    for role in [ColumnRole::SiteId, ColumnRole::WellId] {
        if let (Some(one), Some(two)) = (of(role, own), of(role, other))
            && one == two
        {
            return Ok(By::Column(one));
        }
    }
    if of(ColumnRole::SiteId, own).is_some()
        && let Some(well) = of(ColumnRole::WellId, other)
    {
        return Ok(By::WellOfSite(well));
    }
    let places = Roles::find(own, names).and_then(|_| Roles::find(other, names));
    places.map(|_| By::Place).context(
        "the tables share no site_id, no well_id, and not plate and well; name a column with [profiles] key",
    )
}
