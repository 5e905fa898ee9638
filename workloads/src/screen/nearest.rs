//! The known name nearest to what was written.

/// The nearest of `known` by edit distance, if it is near enough to be a slip: at most a third of the longer name,
/// at least 1. Case is ignored; ties go to the earlier name.
pub(crate) fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A name this long is no slip of a known one, and the table below would be large.
    if written.chars().count() > 64 {
        return None;
    }
    let lower: Vec<char> = written.to_lowercase().chars().collect();
    known
        .into_iter()
        .filter_map(|name| {
            let other: Vec<char> = name.to_lowercase().chars().collect();
            let allowed = (lower.len().max(other.len()) / 3).max(1);
            let distance = distance(&lower, &other);
            (distance <= allowed).then_some((distance, name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Slips that lead from one name to another: insertions, deletions, substitutions and swaps of neighbours; case is ignored.
pub fn edits(one: &str, other: &str) -> usize {
    // A name this long is no slip of another, and the table would be large.
    let letters = |name: &str| name.to_lowercase().chars().take(64).collect::<Vec<char>>();
    distance(&letters(one), &letters(other))
}

/// Edit distance: insertions, deletions, substitutions, and swaps of neighbours count 1 each (optimal string
/// alignment; Damerau 1964, Levenshtein 1966).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, to) in b.iter().enumerate() {
            row[j + 1] = (above[j] + usize::from(from != to))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_a_stranger_finds_none() {
        let known = ["store", "layout", "pattern", "channels"];
        assert_eq!(nearest("chanels", known), Some("channels"));
        assert_eq!(nearest("Layuot", known), Some("layout"));
        assert_eq!(nearest("temperature", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn distances_count_edits_and_swaps() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
        assert_eq!(distance(&chars(""), &chars("abc")), 3);
        assert_eq!(distance(&chars("dna"), &chars("dan")), 1);
        assert_eq!(distance(&chars("abcd"), &chars("badc")), 2);
        assert_eq!(distance(&chars("abc"), &chars("abc")), 0);
    }
}
