//! What the rows of runs are padded to. Pure; it does not know devices or jobs.

use super::{InputTensors, Shapes, tensors::MIN_ROWS};

/// Tokens that any job counts as at least where padding is free: fewer are never seen, and it bounds the number of jobs.
const LEAST: usize = 8;

/// What the rows of runs are padded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Padding {
    /// Lengths that are multiples of this many tokens, at least 1; any number of rows.
    Multiple(usize),
    /// A few lengths and numbers of rows.
    Shapes(Shapes),
    /// Nothing: the graph puts the tokens of all rows one behind the other, so that what fills up its inputs costs nothing.
    Free,
}

impl Padding {
    /// Whether rows are packed: each costs its own tokens, whatever stands beside it.
    pub fn is_free(&self) -> bool {
        *self == Self::Free
    }

    /// Length that a pair of `longest` tokens is padded to. A length that is padded stays as it is.
    pub fn padded_len(&self, longest: usize) -> usize {
        match self {
            Self::Free => longest,
            Self::Multiple(tokens) => longest.next_multiple_of(*tokens),
            Self::Shapes(shapes) => shapes.padded_len(longest),
        }
    }

    /// Rows and length of a run of `rows` rows whose longest pair has `longest` tokens: neither is less.
    pub fn fit(&self, rows: usize, longest: usize) -> (usize, usize) {
        match self {
            Self::Multiple(_) | Self::Free => (rows.max(MIN_ROWS), self.padded_len(longest)),
            Self::Shapes(shapes) => shapes.fit(rows, longest),
        }
    }

    /// What one job's pairs of these lengths cost: their tokens, and the length of the rows that these are in. Padded rows are
    /// all as long as the longest; else it is the mean over all tokens, rounded up, which makes tokens x length the sum of
    /// the squares.
    pub fn cost(&self, pairs: impl Iterator<Item = usize>) -> (usize, usize) {
        let (mut rows, mut longest, mut tokens, mut squares) = (0, 0, 0, 0);
        for len in pairs {
            (rows, longest) = (rows + 1, len.max(longest));
            (tokens, squares) = (tokens + len, squares + len * len);
        }
        if self.is_free() {
            return (tokens, squares.div_ceil(tokens.max(1)));
        }
        let len = self.padded_len(longest);
        (rows * len, len)
    }

    /// Tokens that a run of `inputs` costs, rows that carry no pair not counted.
    pub fn tokens(&self, inputs: &InputTensors) -> usize {
        if self.is_free() { inputs.tokens() } else { inputs.rows * inputs.len }
    }

    /// Fewest tokens that a job counts as.
    pub fn least(&self) -> usize {
        if self.is_free() { LEAST } else { self.padded_len(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multiple_pads_lengths_and_takes_any_rows_but_one() {
        let padding = Padding::Multiple(8);
        let padded = [1, 8, 9, 16].map(|len| padding.padded_len(len));
        assert_eq!((padded, padding.fit(1, 17), padding.fit(7, 24)), ([8, 8, 16, 16], (2, 24), (7, 24)));
    }

    #[test]
    fn a_job_costs_its_padded_rows_or_its_own_tokens() {
        let pairs = || [20, 20, 12].into_iter();
        assert_eq!(Padding::Multiple(8).cost(pairs()), (3 * 24, 24));
        assert_eq!(Padding::Shapes(Shapes::new(1024, 64, 512)).cost(pairs()), (3 * 32, 32));
        // 944 / 52 is 18.2.
        assert_eq!(Padding::Free.cost(pairs()), (52, 19));
        assert_eq!((Padding::Free.cost([30; 2].into_iter()), Padding::Free.cost([].into_iter())), ((60, 30), (0, 0)));
        assert_eq!((Padding::Free.fit(1, 17), Padding::Free.fit(7, 23)), ((2, 17), (7, 23)));
        assert_eq!([Padding::Free, Padding::Multiple(16)].map(|padding| padding.least()), [8, 16]);
    }

    #[test]
    fn shapes_pad_both() {
        let padding = Padding::Shapes(Shapes::new(1024, 64, 512));
        assert_eq!((padding.padded_len(40), padding.fit(3, 40), padding.fit(3, 48)), (48, (4, 48), (4, 48)));
    }
}
