//! Finding ids that nobody has.

use super::subordinate::Range;

/// The first of the lowest `size` ids in a row, in one of `pool`, that are none of `taken` (first, count).
pub(super) fn lowest(pool: &[Range], mut taken: Vec<(u32, u32)>, size: u32) -> Option<u32> {
    taken.sort_unstable();
    let mut pool = pool.to_vec();
    pool.sort_unstable_by_key(|range| range.first);
    pool.iter().find_map(|range| {
        let end = u64::from(range.first) + u64::from(range.count);
        let mut first = u64::from(range.first);
        for (from, count) in &taken {
            let (from, until) = (u64::from(*from), u64::from(*from) + u64::from(*count));
            if from < first + u64::from(size) && first < until {
                first = until;
            }
        }
        (first + u64::from(size) <= end).then(|| u32::try_from(first).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, count: u32) -> Range {
        Range { first, count }
    }

    #[test]
    fn the_lowest_gap_that_is_large_enough_is_taken() {
        let pool = [range(5000, 100), range(1000, 100)];
        assert_eq!(lowest(&pool, vec![], 100), Some(1000));
        assert_eq!(lowest(&pool, vec![(1010, 10), (1000, 5)], 5), Some(1005));
        assert_eq!(lowest(&pool, vec![(1010, 10), (1000, 5)], 6), Some(1020));
        assert_eq!(lowest(&pool, vec![(900, 150), (1050, 50)], 10), Some(5000));
        assert_eq!(lowest(&pool, vec![(0, u32::MAX)], 1), None);
        assert_eq!(lowest(&pool, vec![], 101), None);
    }

    #[test]
    fn the_highest_ids_are_reached_and_not_gone_beyond() {
        let pool = [range(u32::MAX - 10, 10)];
        assert_eq!(lowest(&pool, vec![(u32::MAX - 10, 5)], 5), Some(u32::MAX - 5));
        assert_eq!(lowest(&pool, vec![(u32::MAX - 10, 5)], 6), None);
    }
}
