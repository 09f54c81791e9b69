//! What the rows of runs are padded to. Pure; it does not know devices or jobs.

use super::{Shapes, tensors::MIN_ROWS};

/// What the rows of runs are padded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Padding {
    /// Lengths that are multiples of this many tokens, at least 1; any number of rows.
    Multiple(usize),
    /// A few lengths and numbers of rows.
    Shapes(Shapes),
}

impl Padding {
    /// Length that a pair of `longest` tokens is padded to: what it costs. A length that is padded stays as it is.
    pub fn padded_len(&self, longest: usize) -> usize {
        match self {
            Self::Multiple(tokens) => longest.next_multiple_of(*tokens),
            Self::Shapes(shapes) => shapes.padded_len(longest),
        }
    }

    /// Rows and length of a run of `rows` rows whose longest pair has `longest` tokens: neither is less.
    pub fn fit(&self, rows: usize, longest: usize) -> (usize, usize) {
        match self {
            Self::Multiple(_) => (rows.max(MIN_ROWS), self.padded_len(longest)),
            Self::Shapes(shapes) => shapes.fit(rows, longest),
        }
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
    fn shapes_pad_both() {
        let padding = Padding::Shapes(Shapes::new(1024, 64, 512));
        assert_eq!((padding.padded_len(40), padding.fit(3, 40), padding.fit(3, 48)), (48, (4, 48), (4, 48)));
    }
}
