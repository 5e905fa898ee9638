//! The tables of a simulation as CSV: plate map, truth per compound, truth per well.
//!
//! A [`Simulation`] enters, text leaves, nothing fails.

use std::fmt::Write as _;

use super::design::{Content, WellPlan};
use super::field::Scene;
use super::settings::CompoundClass;
use super::{Barcode, Simulation};

pub(super) fn plate_map(simulation: &Simulation) -> String {
    let mut text = String::from("plate,well,state,role,compound,dose\n");
    for (plate, plans) in simulation.plates.iter().zip(&simulation.wells) {
        for plan in plans {
            text.push_str(&well_columns(simulation, plate, plan));
            text.push('\n');
        }
    }
    text
}

pub(super) fn truth_compounds(simulation: &Simulation) -> String {
    let mut text = String::from("compound,disease,class,emax,ec50,hill,off_axis\n");
    for compound in &simulation.compounds {
        for (disease, emax) in simulation.settings.diseases.iter().zip(&compound.emax) {
            let curve = match compound.class {
                CompoundClass::Inactive => ",".to_owned(),
                CompoundClass::Rescue | CompoundClass::Toxic => {
                    format!("{:.6},{:.6}", compound.ec50, compound.hill)
                }
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{},{},{},{emax:.6},{curve},{:.6}",
                quoted(&compound.name),
                quoted(&disease.name),
                compound.class.name(),
                compound.off_axis
            );
        }
    }
    text
}

pub(super) fn truth_wells(simulation: &Simulation) -> String {
    let mut text = String::from(
        "plate,well,state,role,compound,dose,on_axis,off_axis,well_on_axis,cell_count,empty_fields,\
         blurred_fields,debris_fields\n",
    );
    for (index, (plate, plans)) in simulation.plates.iter().zip(&simulation.wells).enumerate() {
        for plan in plans {
            let (mut cells, mut empty, mut blurred, mut debris) = (0, vec![], vec![], vec![]);
            for field in 1..=simulation.settings.fields {
                let scene = Scene::new(&simulation.settings, index, plan, field);
                cells += scene.cell_count(&simulation.settings);
                for (is, list) in [
                    (scene.empty, &mut empty),
                    (scene.blur_radius > 0, &mut blurred),
                    (!scene.debris.is_empty(), &mut debris),
                ] {
                    if is {
                        list.push(field.to_string());
                    }
                }
            }
            let _ = writeln!(
                text,
                "{},{:.6},{:.6},{:.6},{cells},{},{},{}",
                well_columns(simulation, plate, plan),
                plan.on_axis,
                plan.off_axis,
                plan.on_axis + plan.deviation,
                empty.join(" "),
                blurred.join(" "),
                debris.join(" ")
            );
        }
    }
    text
}

fn well_columns(simulation: &Simulation, plate: &Barcode, plan: &WellPlan) -> String {
    let state = plan.disease().map_or_else(
        || "healthy".to_owned(),
        |disease| quoted(&simulation.settings.diseases[disease].name),
    );
    let given = match plan.content {
        Content::Healthy => "healthy,DMSO,0".to_owned(),
        Content::Disease(_) => "disease,DMSO,0".to_owned(),
        Content::Treated { compound, dose, .. } => {
            format!("treated,{},{dose}", quoted(&simulation.compounds[compound].name))
        }
    };
    format!("{},{},{state},{given}", quoted(plate.as_str()), plan.well)
}

/// A CSV cell after RFC 4180.
fn quoted(text: &str) -> String {
    if text.contains([',', '"']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}
