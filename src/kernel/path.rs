//! Which instructions are used: one table of functions for each set of processor features.

use std::sync::OnceLock;

use super::{
    Norm,
    attention::run::{Head, Sequence},
    scalar,
    strided::{Line, Strided},
};
#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};

/// Outputs of a tile: two blocks.
pub(super) const TILE_COLUMNS: usize = 32;
/// Most rows of a tile, on any path.
pub(super) const TILE_ROWS: usize = 14;

/// The sums of a tile.
#[repr(align(64))]
pub(super) struct Sums(pub [[i32; TILE_COLUMNS]; TILE_ROWS]);

/// A tile's parameters, filled up with zeros to its full width.
#[repr(align(64))]
pub(super) struct Columns {
    /// What a sum starts with: -128 times the column sum, as activations are stored plus 128.
    pub start: [i32; TILE_COLUMNS],
    pub scale: [f32; TILE_COLUMNS],
    pub bias: [f32; TILE_COLUMNS],
    pub gelu: bool,
}

/// What a tile reads.
pub(super) struct Tile<'a> {
    /// Its rows, at most the path's `rows`.
    pub rows: usize,
    /// Its first row's first line; the other rows' lines follow it.
    pub q: &'a [Line],
    /// Lines from one line of a row to its next.
    pub pitch: usize,
    /// Steps of 4 inputs; a line has 16.
    pub steps: usize,
    /// One or two blocks of weights, one after the other.
    pub weight: &'a [i8],
    pub start: &'a [i32; TILE_COLUMNS],
    /// Weights that are wanted soon: brought into the cache on the way.
    pub next: &'a [i8],
}

/// The functions of a path. All are unsafe for one reason: the processor must have the features that they are compiled
/// for. Their arguments are checked.
pub(super) struct Table {
    pub name: &'static str,
    /// Most rows of a tile.
    pub rows: usize,
    /// Quantises a row to `q` = `x / s` + 128 in the lines of `q`, the last one filled up with zeros, and returns its scale
    /// s; NaN (and then no `q`) if the row holds a value that is not finite.
    pub quantise: unsafe fn(x: &[f32], q: Strided<Line>) -> f32,
    /// The sums of a tile.
    pub tile: unsafe fn(tile: &Tile, sums: &mut Sums),
    /// The outputs of a tile, one row for each scale: scale, bias, activation.
    pub finish: unsafe fn(sums: &Sums, row_scales: &[f32], columns: &Columns, y: Strided<f32>),
    /// One head of one sequence: its rows of `y`.
    pub attend: unsafe fn(head: &Head, scratch: &mut Sequence, y: Strided<f32>),
    /// One row: Gelu of `x` + `bias`. All three have the same length.
    pub gelu: unsafe fn(x: &[f32], bias: &[f32], y: &mut [f32]),
    /// One row of `y` after residual and LayerNorm.
    pub norm: unsafe fn(norm: &Norm, residual: &[f32], y: &mut [f32]),
}

/// A set of instructions that this machine has. All paths give the same bits.
#[derive(Clone, Copy)]
pub struct Path(pub(super) &'static Table);

impl Path {
    /// All paths of this machine, the fastest first; the last is plain Rust.
    pub fn available() -> Vec<Self> {
        let mut paths = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vnni")
            {
                paths.push(Self(&avx512::VNNI));
            }
            if avx2 && is_x86_feature_detected!("avxvnni") {
                paths.push(Self(&avx2::AVX_VNNI));
            }
            if avx2 {
                paths.push(Self(&avx2::AVX2));
            }
        }
        paths.push(Self(&scalar::SCALAR));
        paths
    }

    /// The fastest path of this machine.
    pub fn best() -> Self {
        static BEST: OnceLock<Path> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// Whether it uses more of the processor than plain Rust does.
    pub fn has_vectors(self) -> bool {
        !std::ptr::eq(self.0, &scalar::SCALAR)
    }

    /// Its name, for example `avx512-vnni`.
    pub fn name(self) -> &'static str {
        self.0.name
    }
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The scale of a row whose largest absolute value has the bits `largest`, or NaN if the row is not finite. The bits of
/// absolute values are ordered as the values are, with infinity and NaN on top.
pub(super) fn row_scale(largest: u32) -> f32 {
    if largest >= f32::INFINITY.to_bits() {
        return f32::NAN;
    }
    (f32::from_bits(largest) / 127.0).max(1e-12)
}
