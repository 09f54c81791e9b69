//! The input tensors of one model run, reused from batch to batch. They do not know jobs or devices.

use super::PairTokenizer;

/// The longest vector of a CPU in numbers of single precision: with lengths of a multiple of it no kernel has a rest.
pub const VECTOR: usize = 16;

/// Rows are padded to a multiple of this many tokens on GPUs: 16-bit products want sides that are multiples of it. No bits
/// are promised there.
pub const GPU_LENGTH_MULTIPLE: usize = 8;

/// Rows are padded to a multiple of this many tokens on CPUs: with it, a row's arithmetic does not depend on its company.
///
/// [`VECTOR`] by its nature; 8 with AVX2, whose vectors are 8 numbers long. With AVX-512 8 is half a vector: there ONNX Runtime's
/// kernels were seen to keep a row's bits all the same, because they compute a rest as they do a whole vector
/// (`benches/invariance.rs`, tests of the graphs).
pub fn length_multiple() -> usize {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        return 8;
    }
    VECTOR
}

/// Fewest rows in a run: a single row takes other matrix kernels, and would get other bits.
pub const MIN_ROWS: usize = 2;

/// `input_ids`, `attention_mask` and `token_type_ids` of shape `[rows, len]`, row-major.
#[derive(Debug, Clone, Default)]
pub struct InputTensors {
    /// Token ids.
    pub input_ids: Vec<i64>,
    /// 1 for a token, 0 for padding.
    pub attention_mask: Vec<i64>,
    /// Token types; devices feed them only to graphs that ask.
    pub token_type_ids: Vec<i64>,
    /// Rows that carry a pair.
    pub rows: usize,
    /// Rows in the tensors, at least [`MIN_ROWS`]; those beyond `rows` repeat the first.
    pub padded_rows: usize,
    /// Padded length of every row.
    pub len: usize,
}

impl InputTensors {
    /// Padded length of a row of `len` tokens on CPUs.
    pub fn padded_len(len: usize) -> usize {
        len.next_multiple_of(length_multiple())
    }

    /// Empties the tensors for `rows` rows whose longest has `longest` tokens, padded as for CPUs; `pad_id` fills what is
    /// not written.
    pub fn reset(&mut self, rows: usize, longest: usize, pad_id: u32) {
        self.reset_to((rows.max(MIN_ROWS), Self::padded_len(longest)), pad_id);
    }

    /// Empties the tensors for this shape: at least [`MIN_ROWS`] rows, and as many tokens as the longest has or more.
    pub fn reset_to(&mut self, (padded_rows, len): (usize, usize), pad_id: u32) {
        self.rows = 0;
        self.padded_rows = padded_rows;
        self.len = len;
        let cells = self.padded_rows * self.len;
        for (tensor, fill) in
            [(&mut self.input_ids, i64::from(pad_id)), (&mut self.attention_mask, 0), (&mut self.token_type_ids, 0)]
        {
            tensor.clear();
            tensor.resize(cells, fill);
        }
    }

    /// Appends the pair (log, hypothesis).
    ///
    /// # Panics
    /// If there are more rows, or a longer one, than [`reset`](Self::reset) was told.
    pub fn push(&mut self, tokenizer: &PairTokenizer, log: &[u32], hypothesis: &[u32]) {
        let row = self.rows * self.len..(self.rows + 1) * self.len;
        let types = Some(&mut self.token_type_ids[row.clone()]);
        let used = tokenizer.join(log, hypothesis, &mut self.input_ids[row.clone()], types);
        self.attention_mask[row][..used].fill(1);
        self.rows += 1;
    }

    /// Fills the rows that carry no pair with copies of the first.
    pub fn finish(&mut self) {
        for row in self.rows..self.padded_rows {
            for tensor in [&mut self.input_ids, &mut self.attention_mask, &mut self.token_type_ids] {
                tensor.copy_within(..self.len, row * self.len);
            }
        }
    }

    /// Full tensors of this shape, of the first row's tokens again and again: for a device to get to know the shape.
    pub fn stretched(&self, (rows, len): (usize, usize)) -> Self {
        let tokens = self.attention_mask[..self.len].iter().filter(|m| **m == 1).count().max(1);
        let row = self.input_ids[..tokens].iter().cycle().take(len).copied();
        Self {
            input_ids: row.collect::<Vec<_>>().repeat(rows),
            attention_mask: vec![1; rows * len],
            token_type_ids: vec![0; rows * len],
            rows,
            padded_rows: rows,
            len,
        }
    }

    /// Tokens that carry text, padding not counted.
    pub fn tokens(&self) -> usize {
        self.attention_mask[..self.rows * self.len].iter().filter(|m| **m == 1).count()
    }
}
