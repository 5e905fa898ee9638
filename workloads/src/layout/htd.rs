//! ImageXpress: the `.HTD` file of a plate, which says what was to be imaged.
//!
//! Lines of `"key", value, ...` enter; selected wells, sites, wavelengths, time points leave. Which files there are is
//! said by their names; an HTD names the wavelengths and is compared with what was found.

use std::collections::{BTreeMap, BTreeSet};

use super::facts::ImageFacts;
use super::metadata::{
    Context, Described, FactsOf, Found, MetadataLayout, Recognition, Wanted, name_of, unusable,
};
use super::xml::text_of;
use super::{FileProblem, ListedFile};
use crate::screen::LayoutChoice;
use crate::words::{Barcode, WellPosition};

pub(super) struct Htd;

/// The first HTD of every plate; exports repeat it in every folder.
fn plates<'a>(context: Context<'a>) -> BTreeMap<Barcode, &'a ListedFile> {
    let mut plates = BTreeMap::new();
    for file in context.listing {
        let name = name_of(&file.path);
        let is_htd = name
            .rsplit_once('.')
            .is_some_and(|(_, extension)| extension.eq_ignore_ascii_case("htd"));
        if is_htd
            && !name.starts_with('.')
            && let Some(plate) = context.plate_of(&file.path)
            && context.includes(&plate)
        {
            plates.entry(plate).or_insert(file);
        }
    }
    plates
}

impl MetadataLayout for Htd {
    fn choice(&self) -> LayoutChoice {
        LayoutChoice::ImageXpress
    }

    fn recognise(&self, context: Context<'_>) -> Recognition {
        match plates(context).into_values().next() {
            Some(file) => Recognition::Yes(format!("{} is the file of an ImageXpress plate", file.path)),
            None => Recognition::No,
        }
    }

    fn wanted(&self, context: Context<'_>) -> Vec<Wanted> {
        plates(context)
            .values()
            .filter_map(|file| context.want(file))
            .collect()
    }

    fn describe(&self, context: Context<'_>) -> Described {
        let mut described = Described::default();
        for (plate, file) in plates(context) {
            match read(context, file) {
                Some(Ok(plan)) => {
                    described
                        .facts
                        .extend(plan.waves.iter().map(|(number, wave)| FactsOf {
                            plate: plate.clone(),
                            channel_text: format!("w{number}"),
                            facts: ImageFacts {
                                name: Some(wave.name.clone()).filter(|name| !name.is_empty()),
                                ..ImageFacts::default()
                            },
                        }));
                    let wells = u32::try_from(plan.wells.len()).unwrap_or(u32::MAX);
                    let fields = wells.saturating_mul(plan.sites);
                    described.to_be_imaged.insert(plate.clone(), fields);
                    described.fields_per_well.insert(plate, plan.sites);
                }
                Some(Err(reason)) => described.problems.push(unusable(context, &file.path, reason)),
                None => {}
            }
        }
        described
    }

    fn compare(&self, context: Context<'_>, named: &[Found]) -> Vec<FileProblem> {
        let mut problems = Vec::new();
        for (plate, file) in plates(context) {
            let Some(Ok(plan)) = read(context, file) else {
                continue;
            };
            let of_plate = named.iter().filter(|found| found.key.plate == plate);
            let (mut wells, mut channels) = (BTreeSet::new(), BTreeSet::new());
            for found in of_plate {
                wells.insert(found.key.well);
                channels.insert(found.key.channel_text.to_ascii_lowercase());
            }
            if wells.is_empty() {
                continue;
            }
            let metadata = || file.path.clone();
            let absent: Vec<WellPosition> = plan.wells.difference(&wells).copied().collect();
            if !absent.is_empty() {
                problems.push(FileProblem::WellsWithoutFiles {
                    plate: plate.clone(),
                    metadata: metadata(),
                    wells: absent,
                });
            }
            let unselected: Vec<WellPosition> = wells.difference(&plan.wells).copied().collect();
            if !unselected.is_empty() {
                problems.push(FileProblem::WellsNotSelected {
                    plate: plate.clone(),
                    metadata: metadata(),
                    wells: unselected,
                });
            }
            // The names of a plate with one wavelength hold none.
            let unnamed = channels.contains("") && plan.waves.len() == 1;
            let missing: Vec<String> = plan
                .waves
                .iter()
                .filter(|(number, wave)| {
                    wave.collected && !unnamed && !channels.contains(&format!("w{number}"))
                })
                .map(|(number, wave)| format!("w{number} ({})", wave.name))
                .collect();
            if !missing.is_empty() {
                problems.push(FileProblem::ChannelsWithoutFiles {
                    plate,
                    metadata: metadata(),
                    channels: missing,
                });
            }
        }
        problems
    }
}

fn read(context: Context<'_>, file: &ListedFile) -> Option<Result<Plan, String>> {
    Some(match context.whole(&file.path)? {
        Ok(bytes) => Plan::parse(bytes),
        Err(reason) => Err(reason.clone()),
    })
}

/// What was to be imaged.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    wells: BTreeSet<WellPosition>,
    /// Sites of a well.
    sites: u32,
    /// By number, from 1.
    waves: BTreeMap<u32, Wave>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Wave {
    name: String,
    /// Whether it was taken at all.
    collected: bool,
}

impl Plan {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = text_of(bytes);
        let mut lines = text.lines().map(cells).filter(|cells| !cells.is_empty());
        let first = lines.next().unwrap_or_default();
        if first.first().map(String::as_str) != Some("HTSInfoFile") {
            return Err("it does not begin with \"HTSInfoFile\"".to_owned());
        }
        let mut plan = Self {
            wells: BTreeSet::new(),
            sites: 0,
            waves: BTreeMap::new(),
        };
        let (mut has_sites, mut ended) = (true, false);
        for line in lines {
            let Some((key, values)) = line.split_first() else {
                continue;
            };
            let flag = |value: &String| value.eq_ignore_ascii_case("true");
            let value = values.first().map(String::as_str).unwrap_or_default();
            let numbered = |prefix: &str| key.strip_prefix(prefix)?.parse::<u32>().ok();
            if let Some(row) = numbered("WellsSelection") {
                let selected = values.iter().zip(1u8..).filter(|(value, _)| flag(value));
                let row = u8::try_from(row).ok();
                plan.wells
                    .extend(selected.filter_map(|(_, column)| WellPosition::new(row?, column)));
            } else if numbered("SiteSelection").is_some() {
                plan.sites += u32::try_from(values.iter().filter(|value| flag(value)).count()).unwrap_or(0);
            } else if let Some(wave) = numbered("WaveName") {
                value.clone_into(&mut plan.waves.entry(wave).or_default().name);
            } else if let Some(wave) = numbered("WaveCollect") {
                plan.waves.entry(wave).or_default().collected = value != "0";
            } else if key == "Sites" {
                has_sites = value.eq_ignore_ascii_case("true");
            } else if key == "EndFile" {
                ended = true;
            }
        }
        if !ended {
            return Err("it does not end with \"EndFile\"; it may be truncated".to_owned());
        }
        if plan.wells.is_empty() {
            return Err("it selects no well".to_owned());
        }
        if !has_sites || plan.sites == 0 {
            plan.sites = 1;
        }
        Ok(plan)
    }
}

/// The cells of a line: separated by commas, in quotes or not.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell).trim().to_owned()),
            c => cell.push(c),
        }
    }
    if !cell.trim().is_empty() || !cells.is_empty() {
        cells.push(cell.trim().to_owned());
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\"HTSInfoFile\", Version 1.0\r\n\"Description\", \"a \xac, b\"\r\n\"XWells\", 3\r\n\
        \"WellsSelection1\", FALSE, TRUE, FALSE\r\n\"WellsSelection32\", TRUE, FALSE, FALSE\r\n\"Sites\", TRUE\r\n\
        \"SiteSelection1\", TRUE, FALSE\r\n\"SiteSelection2\", TRUE, TRUE\r\n\"NWavelengths\", 2\r\n\
        \"WaveName1\", \"DAPI, dim\"\r\n\"WaveName2\", \"Cy5\"\r\n\"WaveCollect1\", 1\r\n\"WaveCollect2\", 0\r\n\"EndFile\"\r\n";

    #[test]
    fn wells_sites_and_wavelengths_are_read() {
        let plan = Plan::parse(TEXT).unwrap();
        let wells: Vec<String> = plan.wells.iter().map(ToString::to_string).collect();
        assert_eq!(wells, ["A02", "AF01"]);
        assert_eq!(plan.sites, 3);
        assert_eq!(plan.waves[&1].name, "DAPI, dim");
        assert_eq!(
            (plan.waves[&1].collected, plan.waves[&2].collected),
            (true, false)
        );
    }

    #[test]
    fn what_is_no_whole_htd_says_so() {
        assert!(Plan::parse(b"").unwrap_err().contains("HTSInfoFile"));
        assert!(Plan::parse(&TEXT[..200]).unwrap_err().contains("truncated"));
        let none = b"\"HTSInfoFile\", Version 1.0\n\"EndFile\"\n";
        assert!(Plan::parse(none).unwrap_err().contains("no well"));
    }
}
