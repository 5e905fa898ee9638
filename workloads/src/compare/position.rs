//! What the place of wells on their plate does to their scores (SCIENCE 5.1). A plate scored on one disease enters; it
//! leaves with the B-scores of its wells and the edge effects of its control wells.
//!
//! Nothing fails: what a plate is too sparse for, or what has no spread, is `None`.

use super::Question;
use super::plates::{ScoredPlate, ScoredWell};
use crate::position::{EdgeEffect, b_scores, edge_effect};
use crate::words::WellPosition;

/// Fewest wells of a row and of a column whose medians are taken out. With fewer, the median is one of the wells or
/// lies between two of them, and what a compound did goes with it.
const FEWEST_IN_LINE: usize = 4;

/// Edge effects of the control wells of a plate, on their positions along the axis (on distances in activity screens).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EdgeEffects {
    pub(super) reference: Option<EdgeEffect>,
    pub(super) phenotype: Option<EdgeEffect>,
}

/// The edge effect of each kind of control well, and the B-scores of cell count and rescue.
///
/// B-scores are of the treated wells and those of their null: of wells that are alike where compounds do nothing, as a
/// median polish assumes. The other control wells differ for a reason, and often fill whole columns.
pub(super) fn measure(plate: &mut ScoredPlate<'_>, shape: (u8, u8), question: Question) {
    plate.edge = EdgeEffects {
        reference: edge(&plate.reference, shape, question),
        phenotype: edge(&plate.phenotype, shape, question),
    };
    let null = match question {
        Question::Rescue => &mut plate.phenotype,
        Question::Response | Question::Activity => &mut plate.reference,
    };
    let mut wells: Vec<&mut ScoredWell<'_>> = null.iter_mut().chain(&mut plate.treated).collect();
    let of = |wells: &[&mut ScoredWell<'_>], value: &dyn Fn(&ScoredWell<'_>) -> Option<f64>| {
        let values: Vec<(WellPosition, Option<f64>)> = wells
            .iter()
            .map(|well| (well.profile.well, value(well).filter(|value| value.is_finite())))
            .collect();
        polished(&values)
    };
    let cells = of(&wells, &|well| well.profile.cell_count);
    let rescue = of(&wells, &|well| {
        (question != Question::Activity && well.leave_one_out).then(|| well.position.rescue())
    });
    for ((well, cells), rescue) in wells.iter_mut().zip(cells).zip(rescue) {
        well.cell_count_b_score = cells;
        well.rescue_b_score = rescue;
    }
}

fn edge(controls: &[ScoredWell<'_>], shape: (u8, u8), question: Question) -> Option<EdgeEffect> {
    let usable = controls.iter().filter(|well| well.leave_one_out);
    let placed: Vec<(WellPosition, f64)> = usable
        .map(|well| (well.profile.well, well.position_of(question)))
        .collect();
    edge_effect(&placed, shape).ok()
}

/// B-scores of the values, `None` where there is no value or where too few wells share the row or the column.
fn polished(values: &[(WellPosition, Option<f64>)]) -> Vec<Option<f64>> {
    let mut dense: Vec<usize> = (0..values.len()).filter(|&i| values[i].1.is_some()).collect();
    // A well that goes leaves its row and its column sparser.
    loop {
        let mut rows = [0usize; 256];
        let mut columns = [0usize; 256];
        for &i in &dense {
            rows[usize::from(values[i].0.row())] += 1;
            columns[usize::from(values[i].0.column())] += 1;
        }
        let before = dense.len();
        dense.retain(|&i| {
            let well = values[i].0;
            rows[usize::from(well.row())].min(columns[usize::from(well.column())]) >= FEWEST_IN_LINE
        });
        if dense.len() == before {
            break;
        }
    }
    let wells: Vec<(WellPosition, f64)> = dense
        .iter()
        .filter_map(|&i| Some((values[i].0, values[i].1?)))
        .collect();
    let mut scores = vec![None; values.len()];
    if let Ok(found) = b_scores(&wells) {
        for (i, score) in dense.into_iter().zip(found.scores) {
            scores[i] = Some(score);
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well(row: u8, column: u8) -> WellPosition {
        WellPosition::new(row, column).unwrap()
    }

    #[test]
    fn a_lonely_well_has_no_b_score_and_changes_no_other() {
        let block: Vec<(WellPosition, Option<f64>)> = (0u8..20)
            .map(|i| {
                (
                    well(2 + i / 5, 2 + i % 5),
                    Some(f64::from(u16::from(i) * u16::from(i) % 7)),
                )
            })
            .collect();
        let alone = polished(&block);
        assert!(alone.iter().all(Option::is_some));
        let mut more = block.clone();
        // A row of three: each column they lie in stays dense, the row is not.
        more.extend((2..5).map(|column| (well(10, column), Some(100.0))));
        more.push((well(3, 20), Some(7.0)));
        more.push((well(2, 7), None));
        let scores = polished(&more);
        assert_eq!(scores[..20], alone[..]);
        assert_eq!(scores[20..], [None; 5]);
    }

    #[test]
    fn too_few_wells_and_wells_without_spread_have_none() {
        let nine: Vec<_> = (0u8..9)
            .map(|i| (well(1 + i / 3, 1 + i % 3), Some(f64::from(i * i))))
            .collect();
        assert_eq!(polished(&nine), [None; 9]);
        let flat: Vec<_> = (0u8..16)
            .map(|i| (well(1 + i / 4, 1 + i % 4), Some(3.0)))
            .collect();
        assert_eq!(polished(&flat), [None; 16]);
    }
}
