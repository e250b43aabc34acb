//! Did you mean: the names that are a few keystrokes away.

/// Most names that are suggested.
const SUGGESTIONS_MAX: usize = 3;

/// The candidates that are near `name`, the nearest first.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    // One slip in three characters still looks like a slip.
    let limit = (name.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .map(|candidate| (distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort_unstable();
    near.into_iter().take(SUGGESTIONS_MAX).map(|(_, candidate)| candidate).collect()
}

/// The sentence for `nearest`, with a leading separator; empty if there is none.
pub(crate) fn sentence<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let near: Vec<String> =
        nearest(name, candidates).into_iter().map(|candidate| format!("{candidate:?}")).collect();
    if near.is_empty() { String::new() } else { format!("; did you mean {}?", near.join(" or ")) }
}

/// How many characters must be inserted, deleted, replaced or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name() {
        let topics = ["orders", "payments", "order-events", "logs"];

        assert_eq!(nearest("oders", topics), ["orders"]);
        assert_eq!(nearest("odrers", topics), ["orders"]);
        assert_eq!(nearest("Orders", topics), ["orders"]);
        assert_eq!(nearest("clicks", topics), Vec::<&str>::new());
        assert_eq!(sentence("log", topics), "; did you mean \"logs\"?");
        assert_eq!(sentence("clicks", topics), "");
    }

    #[test]
    fn neighbours_swapped_are_one_slip() {
        assert_eq!(distance("abcd", "abdc"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
