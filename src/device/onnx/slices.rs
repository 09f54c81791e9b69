//! How a run with more tokens than a session takes at once is cut into slices of rows. Pure.
//!
//! No slice is a single row (see `model::tensors`), so what would be left alone goes with others.

use crate::model::{InputTensors, tensors::MIN_ROWS};

/// Rows of each slice of a run whose rows are padded: of as many as hold `most` padded tokens.
pub fn of_padded(inputs: &InputTensors, most: usize) -> Vec<usize> {
    // Slices have an even number of rows, and an odd last row goes with those before it.
    let slice = (most / inputs.len.max(1)).max(MIN_ROWS) & !1;
    let (mut slices, mut left) = (Vec::new(), inputs.padded_rows);
    while left > 0 {
        let rows = if left <= slice + 1 { left } else { slice };
        slices.push(rows);
        left -= rows;
    }
    slices
}

/// The same where rows are packed: each takes its own tokens.
pub fn of_packed(inputs: &InputTensors, most: usize) -> Vec<usize> {
    let masks = inputs.attention_mask.chunks_exact(inputs.len.max(1)).take(inputs.padded_rows);
    let lens = masks.map(|mask| mask.iter().filter(|m| **m == 1).count());
    by_tokens(&lens.collect::<Vec<_>>(), most)
}

fn by_tokens(lens: &[usize], most: usize) -> Vec<usize> {
    let (mut slices, mut left) = (Vec::new(), lens);
    while !left.is_empty() {
        let sums = left.iter().scan(0, |sum: &mut usize, len| {
            *sum += len;
            Some(*sum)
        });
        let rows = sums.take_while(|sum| *sum <= most).count().max(MIN_ROWS).min(left.len());
        let rows = match (left.len() - rows, rows > MIN_ROWS) {
            // One row alone would be left: it gets company, or comes along.
            (1, true) => rows - 1,
            (1, false) => rows + 1,
            _ => rows,
        };
        slices.push(rows);
        left = &left[rows..];
    }
    slices
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packed_rows_are_cut_by_their_own_tokens() {
        for (lens, slices) in [
            (&[50; 6][..], &[2, 2, 2][..]),
            (&[90, 90, 5, 5, 80, 10], &[2, 4]),
            (&[200, 200, 200, 200], &[2, 2]),
            // What would be alone comes along, or gets company.
            (&[200, 200, 200], &[3]),
            (&[30, 30, 30, 30], &[2, 2]),
            (&[10; 11], &[9, 2]),
            (&[1], &[1]),
            (&[], &[]),
        ] {
            assert_eq!(by_tokens(lens, 100), slices, "{lens:?}");
        }
    }

    proptest! {
        #[test]
        fn slices_hold_every_row_once_none_alone_and_little_above_the_limit(
            lens in prop::collection::vec(1usize..200, 2..80), most in 1usize..1000,
        ) {
            let len = *lens.iter().max().unwrap();
            let row = |tokens: &usize| (0..len).map(|at| i64::from(at < *tokens)).collect::<Vec<_>>();
            let attention_mask = lens.iter().flat_map(row).collect();
            let rows = lens.len();
            let inputs = InputTensors { attention_mask, rows, padded_rows: rows, len, ..Default::default() };
            for (slices, packed) in [(of_packed(&inputs, most), true), (of_padded(&inputs, most), false)] {
                prop_assert_eq!(slices.iter().sum::<usize>(), rows);
                let mut first = 0;
                for rows in slices {
                    let own = &lens[first..first + rows];
                    let tokens = |rows: &[usize]| if packed { rows.iter().sum::<usize>() } else { rows.len() * len };
                    // Three rows where there are no two others for the last.
                    prop_assert!(rows >= 2 && (tokens(own) <= most || rows <= 3 || tokens(&own[..rows - 1]) <= most));
                    first += rows;
                }
            }
        }

        #[test]
        fn rows_of_one_length_are_cut_alike_but_for_the_last(len in 1usize..100, rows in 2usize..100, most in 1usize..2000) {
            let inputs =
                InputTensors { attention_mask: vec![1; rows * len], rows, padded_rows: rows, len, ..Default::default() };
            let packed = of_packed(&inputs, most);
            let slice = (most / len).max(2);
            prop_assert!(packed.iter().rev().skip(2).all(|rows| *rows == slice), "{:?} of {}", packed, slice);
        }
    }
}
