//! OME-TIFF: files whose description, or a companion beside them, says which directory is which plane.
//!
//! `*.companion.ome` and the descriptions of `*.ome.tif` enter; planes of wells, fields and channels leave, each with its
//! file and directory. A plate's wells stand in the document; images without a plate are placed by the well that their
//! file or image is named after. Channels are called `C0`, `C1`, ..., or by their names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use regex::Regex;

use super::metadata::{
    Absent, Context, Described, FactsOf, Found, MetadataLayout, Part, Recognition, Wanted, folder_of,
    name_of, resolve, unusable,
};
use super::ome_xml::{Ome, Sample};
use super::xml::text_of;
use super::{FileProblem, ImageKey, ListedFile};
use crate::screen::LayoutChoice;
use crate::words::{Barcode, WellPosition};

pub(super) struct OmeTiff;

fn visible(file: &ListedFile) -> bool {
    !file.path.split('/').any(|part| part.starts_with('.'))
}

fn companions<'a>(context: Context<'a>) -> impl Iterator<Item = &'a ListedFile> {
    let named =
        |file: &&ListedFile| file.path.to_ascii_lowercase().ends_with(".companion.ome") && visible(file);
    context.listing.iter().filter(named)
}

fn images<'a>(context: Context<'a>) -> impl Iterator<Item = &'a ListedFile> {
    const ENDS: [&str; 5] = [".ome.tif", ".ome.tiff", ".ome.tf2", ".ome.tf8", ".ome.btf"];
    let named = |file: &&ListedFile| {
        let lower = file.path.to_ascii_lowercase();
        ENDS.iter().any(|end| lower.ends_with(end)) && visible(file)
    };
    context.listing.iter().filter(named)
}

/// A document, and where it was.
struct Document {
    /// The file it was in.
    path: String,
    /// Whether that file is an image itself.
    embedded: bool,
    ome: Ome,
}

/// What was read so far.
#[derive(Default)]
struct Documents {
    read: Vec<Document>,
    /// Paths of images that some document speaks of.
    covered: BTreeSet<String>,
    /// By identity, for planes that name no file.
    by_uuid: HashMap<String, String>,
    asked: usize,
    problems: Vec<FileProblem>,
}

fn documents(context: Context<'_>) -> Documents {
    let mut documents = Documents::default();
    for (file, embedded) in companions(context)
        .map(|file| (file, false))
        .chain(images(context).map(|file| (file, true)))
    {
        let answer = if embedded {
            context.description(&file.path)
        } else {
            context.whole(&file.path)
        };
        let bytes = match answer {
            Some(Ok(bytes)) => bytes,
            Some(Err(reason)) => {
                documents.problems.push(unusable(context, &file.path, reason));
                continue;
            }
            None => continue,
        };
        documents.asked += usize::from(embedded);
        let text = text_of(bytes);
        if embedded && !Ome::is(&text) {
            continue;
        }
        match Ome::parse(&text) {
            Ok(ome) => {
                let document = Document {
                    path: file.path.clone(),
                    embedded,
                    ome,
                };
                documents.add(context, document);
            }
            Err(reason) => documents.problems.push(unusable(context, &file.path, reason)),
        }
    }
    documents
}

impl Documents {
    fn add(&mut self, context: Context<'_>, document: Document) {
        if document.embedded {
            self.covered.insert(document.path.clone());
            if let Some(uuid) = &document.ome.uuid {
                self.by_uuid.insert(uuid.clone(), document.path.clone());
            }
        }
        let folder = folder_of(&document.path);
        if let Some(companion) = &document.ome.companion {
            if resolve(context, folder, companion).is_err() {
                let reason = format!("it points at {companion} for its metadata, which is not there");
                self.problems.push(unusable(context, &document.path, reason));
            }
            return;
        }
        let files = document.ome.images.iter().flat_map(|image| image.planes());
        let named: BTreeSet<&str> = files.filter_map(|plane| plane.file).collect();
        self.covered.extend(
            named
                .into_iter()
                .filter_map(|name| Some(resolve(context, folder, name).ok()?.path.clone())),
        );
        self.read.push(document);
    }
}

impl MetadataLayout for OmeTiff {
    fn choice(&self) -> LayoutChoice {
        LayoutChoice::OmeTiff
    }

    fn recognise(&self, context: Context<'_>) -> Recognition {
        if let Some(file) = companions(context).next() {
            return Recognition::Yes(format!("{} is a companion of OME-TIFF files", file.path));
        }
        let Some(file) = images(context).next() else {
            return Recognition::No;
        };
        match context.description(&file.path) {
            None => Recognition::Ask(context.want_part(file, Part::Description).into_iter().collect()),
            Some(Ok(bytes)) if Ome::is(&text_of(bytes)) => {
                Recognition::Yes(format!("the description of {} is OME-XML", file.path))
            }
            Some(_) => Recognition::No,
        }
    }

    fn wanted(&self, context: Context<'_>) -> Vec<Wanted> {
        let companions: Vec<Wanted> = companions(context)
            .filter_map(|file| context.want(file))
            .collect();
        if !companions.is_empty() {
            return companions;
        }
        // One file may describe the whole plate, or only itself: as many again as were read are asked for.
        let documents = documents(context);
        images(context)
            .filter(|file| !documents.covered.contains(&file.path))
            .filter_map(|file| context.want_part(file, Part::Description))
            .take(documents.asked.max(1))
            .collect()
    }

    fn describe(&self, context: Context<'_>) -> Described {
        let Documents {
            read,
            by_uuid,
            problems,
            ..
        } = documents(context);
        let mut described = Described {
            problems,
            ..Described::default()
        };
        let mut unplaced: BTreeMap<String, (u64, String)> = BTreeMap::new();
        // Fields of wells whose images do not say which they are.
        let mut counted: BTreeMap<(Barcode, WellPosition), u32> = BTreeMap::new();
        for document in &read {
            add(
                context,
                &mut described,
                document,
                &by_uuid,
                &mut counted,
                &mut unplaced,
            );
        }
        let unplaced = unplaced.into_iter();
        described
            .problems
            .extend(unplaced.map(|(metadata, (images, example))| FileProblem::NoWell {
                metadata,
                images,
                example,
            }));
        described
    }
}

fn add(
    context: Context<'_>,
    described: &mut Described,
    document: &Document,
    by_uuid: &HashMap<String, String>,
    counted: &mut BTreeMap<(Barcode, WellPosition), u32>,
    unplaced: &mut BTreeMap<String, (u64, String)>,
) {
    let folder = folder_of(&document.path);
    let names: BTreeSet<&str> = document
        .ome
        .images
        .iter()
        .flat_map(|image| image.planes())
        .filter_map(|plane| plane.file)
        .collect();
    // A file that was renamed still has its old name inside.
    let renamed = document.embedded
        && names.len() == 1
        && names.iter().all(|name| resolve(context, folder, name).is_err());
    for image in &document.ome.images {
        let planes = image.planes();
        let file_of = |plane: &super::ome_xml::Plane<'_>| match (plane.file, plane.uuid) {
            (Some(_), _) if renamed => context.file(&document.path).ok_or_else(|| document.path.clone()),
            (Some(name), _) => resolve(context, folder, name),
            (None, Some(uuid)) => {
                let path = by_uuid.get(uuid).unwrap_or(&document.path);
                context.file(path).ok_or_else(|| path.clone())
            }
            (None, None) => context.file(&document.path).ok_or_else(|| document.path.clone()),
        };
        let first = planes
            .first()
            .map(|plane| file_of(plane).map_or_else(|path| path, |file| file.path.clone()));
        let first = first.unwrap_or_else(|| document.path.clone());
        let Some((plate, well, field)) = place(
            context,
            document.ome.wells.get(&image.id),
            &first,
            &image.name,
            counted,
        ) else {
            let example = if image.name.is_empty() {
                first
            } else {
                image.name.clone()
            };
            unplaced
                .entry(document.path.clone())
                .and_modify(|(images, _)| *images += 1)
                .or_insert((1, example));
            continue;
        };
        for plane in &planes {
            let key = ImageKey {
                plate: plate.clone(),
                well,
                field,
                channel_text: format!("C{}", plane.channel),
                plane: Some(plane.z),
                time: Some(plane.time),
            };
            match file_of(plane) {
                Ok(file) => described.found.push(Found {
                    key,
                    file: file.clone(),
                    page: Some(plane.ifd),
                }),
                Err(path) => described.absent.push(Absent {
                    key,
                    path,
                    metadata: document.path.clone(),
                }),
            }
        }
        for (index, facts) in image.channels.iter().enumerate() {
            let channel_text = format!("C{index}");
            let known = |of: &FactsOf| of.plate == plate && of.channel_text == channel_text;
            // The images of a plate are taken alike; the first that says something speaks for all.
            match described.facts.iter_mut().find(|of| known(of)) {
                Some(of) => of.facts.fill(facts),
                None => described.facts.push(FactsOf {
                    plate: plate.clone(),
                    channel_text,
                    facts: facts.clone(),
                }),
            }
        }
    }
}

/// Where an image belongs: as the document's plate says, else as the names of its file or itself say.
fn place(
    context: Context<'_>,
    sample: Option<&Sample>,
    path: &str,
    name: &str,
    counted: &mut BTreeMap<(Barcode, WellPosition), u32>,
) -> Option<(Barcode, WellPosition, u32)> {
    if let Some(sample) = sample {
        let from_zero = |index: u32| u8::try_from(index.checked_add(1)?).ok();
        let well = WellPosition::new(from_zero(sample.row)?, from_zero(sample.column)?)?;
        let named = sample.plate.as_ref().and_then(|name| name.parse().ok());
        let plate = context
            .images
            .plate
            .clone()
            .or(named)
            .or_else(|| context.plate_of(path))?;
        return Some((plate, well, sample.field));
    }
    let plate = context.plate_of(path)?;
    let file = name_of(path);
    let well = well_in(file).or_else(|| well_in(name))?;
    let field = field_in(file).or_else(|| field_in(name));
    let next = counted.entry((plate.clone(), well)).or_insert(0);
    *next += 1;
    Some((plate, well, field.unwrap_or(*next)))
}

/// A well in a name: letters as they are written on plates and a number, apart from what stands around them, such as
/// `_B03_`, `--B9--`, `Well B-3`.
fn well_in(name: &str) -> Option<WellPosition> {
    static WELL: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(?:^|[^A-Za-z0-9])(?:[Ww]ell[ :_=-]*)?(?<row>[A-P]|A[A-F])[-_ ]?(?<column>0?[1-9]|[1-4][0-9])(?:[^0-9]|$)").ok()
    });
    let found = WELL.as_ref()?.captures(name)?;
    format!("{}{}", &found["row"], &found["column"]).parse().ok()
}

/// A field's number in a name: `_s2`, `_f02`, `--P001`, `Field 2`, `site=2`.
fn field_in(name: &str) -> Option<u32> {
    static FIELD: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"(?i)(?:^|[^a-z0-9])(?:s|f|p|fov|site|field|pos|position)[ :_=#-]*(?<field>\d{1,5})(?:[^0-9]|$)",
        )
        .ok()
    });
    FIELD.as_ref()?.captures(name)?["field"].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wells_and_fields_are_found_in_names() {
        for (name, well, field) in [
            (
                "20180807_Dapi--B9--empty--W0021--P001--T0000.ome.tif",
                Some("B09"),
                Some(1),
            ),
            ("plate_A01_s2.ome.tiff", Some("A01"), Some(2)),
            ("Well B-3, Field 4", Some("B03"), Some(4)),
            ("AF48.ome.tif", Some("AF48"), None),
            ("c3_z33.ome.tif", None, None),
            ("20241003_experiment_488_7_640_3_1.ome.tif", None, None),
        ] {
            assert_eq!(
                well_in(name).map(|well| well.to_string()).as_deref(),
                well,
                "{name}"
            );
            assert_eq!(field_in(name), field, "{name}");
        }
    }
}
