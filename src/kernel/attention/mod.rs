//! Attention over sequences that stand one behind the other, without padding between them: BERT's, or disentangled
//! (DeBERTa's), where scores depend on relative positions too.
//!
//! For a sequence of T tokens and one head, with the tables `pk` and `pq` of the relative positions' keys and queries:
//!
//! ```text
//! s[i,j] = sum over d of q[i,d] k[j,d]                                       one chain of fused multiply-adds
//!   or     sum over d of (q[i,d] + pq[i-j,d]) k[j,d] + q[i,d] pk[i-j,d]      as well
//! e[i,j] = exp(s[i,j] - max over j of s[i,j])
//! y[i,d] = (sum over j of e[i,j] v[j,d]) / (sum over j of e[i,j])
//! ```
//!
//! Every number is made by one fixed sequence of operations, which depends on its own sequence alone: the same on every
//! [`Path`], in any company. The factor on the scores is in the queries already. It does not know where the tables come
//! from.

mod exp;
pub(super) mod run;
pub(super) mod scalar;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
pub(super) mod vector;

use super::{Path, gemm::once_each, lanes::PARTS, strided::Shared};

/// The relative positions of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Positions<'a> {
    /// Keys, [heads, head size, width].
    pub keys: &'a [f32],
    /// Queries, scaled as the tokens' are; [heads, head size, width].
    pub queries: &'a [f32],
    /// Which column of the tables belongs to the distances `P - 1` down to `-P` of a query from its key, where P is the
    /// longest sequence; [2 P].
    pub columns: &'a [i64],
}

/// Some columns of a matrix, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    /// The whole matrix.
    pub values: &'a [f32],
    /// Its width.
    pub width: usize,
    /// The first of the columns.
    pub first: usize,
}

/// Queries, keys and values of some sequences, heads side by side: each [rows, heads * head size].
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    /// One row for each token, or else for each sequence: its first token.
    pub q: Columns<'a>,
    /// One row for each token.
    pub k: Columns<'a>,
    /// One row for each token.
    pub v: Columns<'a>,
    /// Tokens of each sequence, at least 1.
    pub lengths: &'a [usize],
}

/// What does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttentionError {
    /// A table of another size.
    #[error("`{name}` has {len} values; that is no table of {heads} heads of {size}")]
    Table {
        /// Which one.
        name: &'static str,
        /// Its length.
        len: usize,
        /// Heads.
        heads: usize,
        /// Size of a head.
        size: usize,
    },
    /// A distance without a column.
    #[error("`columns` holds {0}, and the tables have {1} columns")]
    Column(i64, usize),
    /// A sequence of no tokens, or of more than positions are known for.
    #[error("a sequence has {0} tokens; there must be 1 to {1}")]
    Length(usize, usize),
    /// Rows missing or too many, or rows too narrow.
    #[error(
        "`{name}` is [{rows}, {width}]; {tokens} tokens in {sequences} sequences with heads of {hidden} in all do not fit it"
    )]
    Rows {
        /// Which matrix.
        name: &'static str,
        /// Its rows.
        rows: usize,
        /// Its width.
        width: usize,
        /// Tokens of all sequences.
        tokens: usize,
        /// Sequences.
        sequences: usize,
        /// Width of all heads.
        hidden: usize,
    },
}

/// Attention of one layer.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    heads: usize,
    size: usize,
    positions: Option<Positions<'a>>,
}

impl<'a> Attention<'a> {
    /// Attention of `heads` heads of `size`, each at least 1.
    pub fn new(heads: usize, size: usize) -> Self {
        Self { heads, size, positions: None }
    }

    /// Attention that sees relative positions.
    ///
    /// # Errors
    /// [`AttentionError`] if the tables do not fit the heads.
    pub fn disentangled(heads: usize, size: usize, positions: Positions<'a>) -> Result<Self, AttentionError> {
        let rows = heads * size;
        let width = positions.keys.len().checked_div(rows).unwrap_or(0);
        for (name, table) in [("keys", positions.keys), ("queries", positions.queries)] {
            if width == 0 || table.len() != rows * width {
                return Err(AttentionError::Table { name, len: table.len(), heads, size });
            }
        }
        let known = |column: &&i64| usize::try_from(**column).is_ok_and(|column| column < width);
        match positions.columns.iter().find(|column| !known(column)) {
            Some(column) => Err(AttentionError::Column(*column, width)),
            None => Ok(Self { heads, size, positions: Some(positions) }),
        }
    }

    /// Rows of the result: as many as `sequences` has queries.
    ///
    /// # Errors
    /// [`AttentionError`] if the sequences do not fit the layer or each other.
    pub fn rows(&self, sequences: &Sequences) -> Result<usize, AttentionError> {
        let longest = self.positions.map_or(usize::MAX, |positions| positions.columns.len() / 2);
        if let Some(length) = sequences.lengths.iter().find(|length| !(1..=longest).contains(*length)) {
            return Err(AttentionError::Length(*length, longest));
        }
        let (tokens, count) = (sequences.lengths.iter().sum(), sequences.lengths.len());
        let hidden = self.heads * self.size;
        for (name, part) in [("q", &sequences.q), ("k", &sequences.k), ("v", &sequences.v)] {
            let rows = part.values.len().checked_div(part.width).unwrap_or(0);
            let fits = rows == tokens || (name == "q" && rows == count);
            if !fits || part.first + hidden > part.width || part.values.len() != rows * part.width {
                let (width, sequences) = (part.width, count);
                return Err(AttentionError::Rows { name, rows, width, tokens, sequences, hidden });
            }
        }
        Ok(sequences.q.values.len().checked_div(sequences.q.width).unwrap_or(0))
    }

    /// Runs it in tasks: `y` [rows, heads * head size]. `parallel(tasks, task)` must call `task` once for each number below
    /// `tasks`, on any threads and in any order, and return when all are done.
    ///
    /// A sequence that holds a NaN gives NaN, and touches no other sequence.
    ///
    /// # Errors
    /// What `parallel` returns; `y` is then unfinished.
    ///
    /// # Panics
    /// If the sequences do not fit (see [`rows`](Self::rows)), or `y` has another size.
    pub fn run_parallel<E>(
        &self,
        path: Path,
        sequences: &Sequences,
        y: &mut [f32],
        parallel: impl Fn(usize, &(dyn Fn(usize) + Sync)) -> Result<(), E>,
    ) -> Result<(), E> {
        let rows = self.rows(sequences).expect("the sequences fit");
        assert_eq!(y.len(), rows * self.heads * self.size, "y is [{rows}, {} x {}]", self.heads, self.size);
        if y.is_empty() {
            return Ok(());
        }
        let y = Shared::new(y);
        once_each(&parallel, self.heads, |head| run::head(self, path, sequences, head, &y))
    }
}
