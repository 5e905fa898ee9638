//! OME-XML: what a document says of its images, their planes, channels and wells.
//!
//! A document of any schema version enters, [`Ome`] leaves: images with the file and directory of every plane, and the
//! wells of its plates. Fails where the XML is broken or claims more planes than a plate can have.

use std::collections::BTreeMap;

use super::facts::{ImageFacts, micrometres, milliseconds, positive};
use super::xml::{Attributes, Node, walk};

/// More planes than any image of a plate has.
const MAX_PLANES: u64 = 1 << 20;

/// What a document says.
#[derive(Debug, Default)]
pub(super) struct Ome {
    /// The document's own identity.
    pub(super) uuid: Option<String>,
    /// The companion that has the metadata, where this document only points at it.
    pub(super) companion: Option<String>,
    /// In document order.
    pub(super) images: Vec<Image>,
    /// Image id -> plate's name, row and column from 0, field from 1.
    pub(super) wells: BTreeMap<String, Sample>,
}

/// Where an image of a plate was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    /// The plate's name or identifier, where it has one.
    pub(super) plate: Option<String>,
    /// From 0.
    pub(super) row: u32,
    /// From 0.
    pub(super) column: u32,
    /// From 1, in the order of the document.
    pub(super) field: u32,
}

/// One image: a stack of planes.
#[derive(Debug, Default)]
pub(super) struct Image {
    pub(super) id: String,
    pub(super) name: String,
    /// Facts per channel, by index.
    pub(super) channels: Vec<ImageFacts>,
    objective: Option<String>,
    order: String,
    size: [u64; 3],
    samples: u64,
    blocks: Vec<Block>,
    exposures: BTreeMap<usize, f64>,
    pixel: ImageFacts,
}

/// `TiffData`: some directories of a file.
#[derive(Debug, Default)]
struct Block {
    ifd: Option<u64>,
    /// z, channel, time.
    first: [u64; 3],
    count: Option<u64>,
    file: Option<String>,
    uuid: Option<String>,
}

/// One plane of an image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plane<'a> {
    pub(super) z: u32,
    pub(super) channel: usize,
    pub(super) time: u32,
    pub(super) ifd: u32,
    /// The file's name and identity where the document gives them; without both it is the document's own file.
    pub(super) file: Option<&'a str>,
    pub(super) uuid: Option<&'a str>,
}

#[derive(Default)]
struct Objective {
    facts: ImageFacts,
}

impl Ome {
    /// Whether a description is OME-XML at all.
    pub(super) fn is(text: &str) -> bool {
        let start = text.get(..4096).unwrap_or(text);
        start.contains("<OME") || start.contains(":OME ")
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut ome = Self::default();
        let mut objectives: BTreeMap<String, Objective> = BTreeMap::new();
        let (mut plate, mut well, mut fields) = (None, (0, 0), 0);
        let result = walk(text, |node| match node {
            Node::Open(path, at) => {
                let (parent, name) = ends(path);
                match (parent, name) {
                    ("", "OME") => ome.uuid = at.get("UUID"),
                    ("OME", "BinaryOnly") => ome.companion = at.get("MetadataFile"),
                    (_, "Objective") => {
                        let facts = ImageFacts {
                            objective: at.get("Model").filter(|model| !model.is_empty()),
                            magnification: at.get("NominalMagnification").and_then(|text| positive(&text)),
                            numerical_aperture: at.get("LensNA").and_then(|text| positive(&text)),
                            ..ImageFacts::default()
                        };
                        objectives.insert(at.get("ID").unwrap_or_default(), Objective { facts });
                    }
                    ("OME", "Image") => ome.images.push(Image {
                        id: at.get("ID").unwrap_or_default(),
                        name: at.get("Name").unwrap_or_default(),
                        ..Image::default()
                    }),
                    (_, "Plate") => {
                        let name = at.get("Name").or_else(|| at.get("ExternalIdentifier"));
                        plate = name.filter(|name| !name.trim().is_empty());
                    }
                    ("Plate", "Well") => {
                        well = (at.number("Row").unwrap_or(0), at.number("Column").unwrap_or(0));
                        fields = 0;
                    }
                    ("Well", "WellSample") => fields += 1,
                    ("WellSample", "ImageRef") => {
                        let sample = Sample {
                            plate: plate.clone(),
                            row: well.0,
                            column: well.1,
                            field: fields,
                        };
                        ome.wells.insert(at.get("ID").unwrap_or_default(), sample);
                    }
                    _ => {
                        if let Some(image) = ome.images.last_mut() {
                            image.open(parent, name, &at);
                        }
                    }
                }
            }
            Node::Close(path, content) => {
                if let ("TiffData", "UUID") = ends(path)
                    && let Some(block) = ome.images.last_mut().and_then(|image| image.blocks.last_mut())
                    && !content.is_empty()
                {
                    block.uuid = Some(content.to_owned());
                }
            }
        });
        result.map_err(|error| error.to_string())?;
        for image in &mut ome.images {
            let objective = image.objective.as_ref().and_then(|id| objectives.get(id));
            image.finish(objective.map(|objective| &objective.facts))?;
        }
        Ok(ome)
    }
}

/// The last two names of a path.
fn ends(path: &[String]) -> (&str, &str) {
    let from_end = |back: usize| path.len().checked_sub(back).map_or("", |at| path[at].as_str());
    (from_end(2), from_end(1))
}

impl Image {
    fn open(&mut self, parent: &str, name: &str, at: &Attributes<'_>) {
        match (parent, name) {
            // Older schemas call it ObjectiveRef.
            ("Image", "ObjectiveSettings" | "ObjectiveRef") => self.objective = at.get("ID"),
            ("Image", "Pixels") => {
                let size = |axis: &str| at.number::<u64>(axis).unwrap_or(1).max(1);
                self.size = [size("SizeZ"), size("SizeC"), size("SizeT")];
                self.order = at.get("DimensionOrder").unwrap_or_default();
                let length = |axis: &str| {
                    let unit = at.get(&format!("{axis}Unit"));
                    micrometres(&at.get(axis)?, unit.as_deref())
                };
                self.pixel = ImageFacts {
                    pixel_size_um: length("PhysicalSizeX").zip(length("PhysicalSizeY")),
                    bit_depth: at
                        .number("SignificantBits")
                        .or_else(|| match at.get("Type")?.as_str() {
                            "uint8" => Some(8),
                            "uint16" => Some(16),
                            _ => None,
                        }),
                    ..ImageFacts::default()
                };
            }
            ("Pixels", "Channel") => {
                self.samples += at.number("SamplesPerPixel").unwrap_or(1u64).clamp(1, 64);
                let wavelength = |name: &str| {
                    let unit = at.get(&format!("{name}Unit"));
                    let nm = positive(&at.get(name)?)?;
                    unit.is_none_or(|unit| unit == "nm").then_some(nm)
                };
                let named = at.get("Name").or_else(|| at.get("Fluor"));
                self.channels.push(ImageFacts {
                    name: named.filter(|name| !name.trim().is_empty()),
                    excitation_nm: wavelength("ExcitationWavelength"),
                    emission_nm: wavelength("EmissionWavelength"),
                    ..ImageFacts::default()
                });
            }
            ("Pixels", "Plane") => {
                let exposure = at.get("ExposureTime");
                let unit = at.get("ExposureTimeUnit");
                let exposure = exposure.and_then(|text| milliseconds(&text, unit.as_deref()));
                if let (Some(channel), Some(exposure)) = (at.number("TheC"), exposure) {
                    self.exposures.entry(channel).or_insert(exposure);
                }
            }
            ("Pixels", "TiffData") => {
                let first = |axis: &str| at.number(axis).unwrap_or(0);
                self.blocks.push(Block {
                    ifd: at.number("IFD"),
                    first: [first("FirstZ"), first("FirstC"), first("FirstT")],
                    // Both spellings occur.
                    count: at.number("PlaneCount").or_else(|| at.number("NumPlanes")),
                    ..Block::default()
                });
            }
            ("TiffData", "UUID") => {
                if let Some(block) = self.blocks.last_mut() {
                    block.file = at.get("FileName");
                }
            }
            _ => {}
        }
    }

    fn finish(&mut self, objective: Option<&ImageFacts>) -> Result<(), String> {
        let planes = self
            .size
            .iter()
            .try_fold(1u64, |product, size| product.checked_mul(*size));
        if planes.is_none_or(|planes| planes > MAX_PLANES) {
            let [z, c, t] = self.size;
            return Err(format!("image {} claims {z} x {c} x {t} planes", self.id));
        }
        // A channel of several samples is one plane of colour.
        let count = self.channels.len() as u64;
        if self.samples == self.size[1] && count > 0 {
            self.size[1] = count;
        }
        let count = usize::try_from(self.size[1]).unwrap_or(0);
        self.channels.resize(count, ImageFacts::default());
        for (index, facts) in self.channels.iter_mut().enumerate() {
            facts.exposure_ms = self.exposures.get(&index).copied();
            facts.fill(&self.pixel);
            if let Some(objective) = objective {
                facts.fill(objective);
            }
        }
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        Ok(())
    }

    /// Every plane, in the order of the document.
    pub(super) fn planes(&self) -> Vec<Plane<'_>> {
        let all: u64 = self.size.iter().product();
        let axes = self.axes();
        let mut planes = Vec::new();
        for block in &self.blocks {
            let count = block.count.unwrap_or(if block.ifd.is_some() { 1 } else { all });
            let start = axes
                .iter()
                .rev()
                .fold(0, |at, axis| at * self.size[*axis] + block.first[*axis]);
            // Writers count planes that the image does not have; these are nowhere.
            for (at, step) in (start..all).zip(0..count) {
                let mut rest = at;
                let mut place = [0u64; 3];
                for axis in axes {
                    place[axis] = rest % self.size[axis];
                    rest /= self.size[axis];
                }
                let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                planes.push(Plane {
                    z: number(place[0]),
                    channel: usize::try_from(place[1]).unwrap_or(usize::MAX),
                    time: number(place[2]),
                    ifd: number(block.ifd.unwrap_or(0).saturating_add(step)),
                    file: block.file.as_deref(),
                    uuid: block.uuid.as_deref(),
                });
            }
        }
        planes
    }

    /// The axes z (0), channel (1) and time (2) in the order in which planes follow, the fastest first.
    fn axes(&self) -> [usize; 3] {
        let mut axes = [0, 1, 2];
        let place = |axis: &usize| {
            let letter = ['Z', 'C', 'T'][*axis];
            self.order.find(letter).unwrap_or(usize::MAX)
        };
        axes.sort_by_key(place);
        axes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(pixels: &str, inside: &str) -> Result<Ome, String> {
        Ome::parse(&format!(
            "<OME UUID='u'><Image ID='Image:0'><Pixels {pixels}>{inside}</Pixels></Image></OME>"
        ))
    }

    fn places(ome: &Ome) -> Vec<(u32, usize, u32, u32)> {
        let planes = ome.images[0].planes();
        planes
            .iter()
            .map(|plane| (plane.z, plane.channel, plane.time, plane.ifd))
            .collect()
    }

    #[test]
    fn planes_follow_the_order_of_the_dimensions() {
        let ome = image("DimensionOrder='XYCZT' SizeZ='2' SizeC='2' SizeT='1'", "").unwrap();
        assert_eq!(
            places(&ome),
            [(0, 0, 0, 0), (0, 1, 0, 1), (1, 0, 0, 2), (1, 1, 0, 3)]
        );
        let ome = image(
            "DimensionOrder='XYZCT' SizeZ='2' SizeC='2' SizeT='1'",
            "<TiffData/>",
        )
        .unwrap();
        assert_eq!(
            places(&ome),
            [(0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 0, 2), (1, 1, 0, 3)]
        );
        let blocks = "<TiffData IFD='5' FirstC='1'><UUID FileName='b.tif'>urn:b</UUID></TiffData><TiffData FirstZ='1' PlaneCount='9'/>";
        let ome = image("DimensionOrder='XYZCT' SizeZ='2' SizeC='2' SizeT='1'", blocks).unwrap();
        assert_eq!(
            places(&ome),
            [(0, 1, 0, 5), (1, 0, 0, 0), (0, 1, 0, 1), (1, 1, 0, 2)]
        );
        assert_eq!(
            (ome.images[0].planes()[0].file, ome.images[0].planes()[0].uuid),
            (Some("b.tif"), Some("urn:b"))
        );
    }

    #[test]
    fn colour_is_one_plane_and_forged_sizes_are_refused() {
        let ome = image("SizeZ='1' SizeC='3' SizeT='1'", "<Channel SamplesPerPixel='3'/>").unwrap();
        assert_eq!(places(&ome), [(0, 0, 0, 0)]);
        assert!(image("SizeZ='4000000000' SizeC='4000000000' SizeT='9'", "").is_err());
        assert!(Ome::parse("<OME><Image>").is_err());
    }
}
