//! The few shapes that runs have on devices that choose kernels, memory or whole graphs by shape. Pure; it does not know
//! devices or jobs.
//!
//! ```text
//! lengths  16 32 48 64 96 128 192 256 384 512 ... the longest pair
//! rows     2 4 8 16 ... as many as fit the tokens of a run
//! ```
//!
//! A run is padded up to the next of them: a length grows by less than a half, rows by less than their double, and never
//! beyond the tokens of a run if the run itself is within them at the grid's length.

use super::tensors::{MIN_ROWS, VECTOR};

/// A grid of rows and lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shapes {
    /// Rising.
    lengths: Vec<usize>,
    max_tokens: usize,
    max_rows: usize,
}

impl Shapes {
    /// For runs of at most `max_tokens` padded tokens and `max_rows` rows, whose longest pair has `longest` tokens. All
    /// are at least 1.
    pub fn new(max_tokens: usize, max_rows: usize, longest: usize) -> Self {
        let last = longest.next_multiple_of(VECTOR);
        let powers = std::iter::successors(Some(VECTOR), |n| n.checked_mul(2)).take_while(|n| *n < last);
        let lengths = powers.flat_map(|n| [n, n + n / 2]).filter(|n| n % VECTOR == 0 && *n < last);
        Self { lengths: lengths.chain([last]).collect(), max_tokens, max_rows }
    }

    /// Rows and length of the shape for a run of `rows` rows whose longest pair has `longest` tokens: neither is less.
    pub fn fit(&self, rows: usize, longest: usize) -> (usize, usize) {
        let len = self.padded_len(longest);
        let most = self.most_rows(len);
        // Devices run what exceeds their tokens in slices of so many rows.
        let rows = if rows > most { rows.next_multiple_of(most) } else { up(rows).min(most) };
        (rows, len)
    }

    /// Length that a pair of `longest` tokens is padded to: what it costs.
    pub fn padded_len(&self, longest: usize) -> usize {
        let found = self.lengths.iter().find(|len| **len >= longest);
        found.copied().unwrap_or_else(|| longest.next_multiple_of(VECTOR))
    }

    /// Every shape that a run within the limits can have, rows and length; the smallest first.
    pub fn all(&self) -> Vec<(usize, usize)> {
        let of_length = |len: usize| {
            let most = self.most_rows(len);
            let last = up(self.max_rows).min(most);
            let powers = std::iter::successors(Some(MIN_ROWS), |rows| rows.checked_mul(2));
            powers.take_while(move |rows| *rows < last).chain([last]).map(move |rows| (rows, len))
        };
        self.lengths.iter().flat_map(|len| of_length(*len)).collect()
    }

    /// Rows of this length that fit the tokens of a run: as many as a device's slice has, an even number.
    fn most_rows(&self, len: usize) -> usize {
        (self.max_tokens / len).max(MIN_ROWS) & !1
    }
}

fn up(rows: usize) -> usize {
    rows.max(MIN_ROWS).checked_next_power_of_two().unwrap_or(rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_grid() {
        let shapes = Shapes::new(1024, 64, 100);
        assert_eq!(shapes.lengths, [16, 32, 48, 64, 96, 112]);
        for ((rows, longest), shape) in [
            ((1, 1), (2, 16)),
            ((2, 16), (2, 16)),
            ((3, 17), (4, 32)),
            ((33, 16), (64, 16)),
            ((17, 33), (20, 48)), // 1024 tokens hold 21 rows of 48, and rows are even
            ((9, 100), (8 + 8, 112)),
            ((8, 97), (8, 112)),
            ((1, 200), (2, 208)),
        ] {
            assert_eq!(shapes.fit(rows, longest), shape, "{rows} x {longest}");
        }
        assert!(
            shapes.all().contains(&(2, 16)) && shapes.all().contains(&(64, 16)) && shapes.all().contains(&(8, 112))
        );
        assert_eq!(Shapes::new(16_384, 64, 512).all().len(), 59);
        assert_eq!(Shapes::new(1, 1, 1).all(), [(2, 16)]);
    }

    proptest! {
        #[test]
        fn a_shape_holds_its_run_and_there_are_few(
            tokens in 1usize..40_000, max_rows in 1usize..600, longest in 1usize..2_000,
            runs in proptest::collection::vec((1usize..600, 1usize..2_000), 1..50),
        ) {
            let shapes = Shapes::new(tokens, max_rows, longest);
            let all: BTreeSet<_> = shapes.all().into_iter().collect();
            prop_assert_eq!(all.len(), shapes.all().len());
            prop_assert!(all.len() <= 12 * 17 && all.iter().all(|shape| shapes.fit(shape.0, shape.1) == *shape));
            for (rows, len) in runs {
                let (rows, len) = (rows.min(max_rows), len.min(longest));
                let (padded_rows, padded_len) = shapes.fit(rows, len);
                prop_assert!(padded_rows >= rows.max(2) && padded_len >= len);
                prop_assert!(padded_len % 16 == 0 && padded_len <= len.next_multiple_of(16) * 3 / 2 + 16);
                if rows * padded_len <= tokens && padded_len * 2 <= tokens {
                    let odd = usize::from(rows % 2 == 1 && rows + 1 > shapes.most_rows(padded_len));
                    prop_assert!(padded_rows * padded_len <= tokens || odd == 1);
                    prop_assert!(all.contains(&(padded_rows, padded_len)) || odd == 1);
                }
                // What exceeds a run's tokens is cut into slices, each of a shape that is there.
                let most = shapes.most_rows(padded_len);
                prop_assert!(padded_rows <= most || padded_rows % most == 0);
            }
        }
    }
}
