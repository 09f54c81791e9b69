//! What the arithmetic in single precision needs of a vector, so that it is written once for all widths.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// Partial sums of a row: number j goes to sum j mod 16, whatever the width of a vector, and then the upper half of the
/// sums is added to the lower one until one is left.
pub const PARTS: usize = 16;

/// The sum of partial sums.
pub fn total(mut parts: [f32; PARTS]) -> f32 {
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|i| parts[i] += parts[i + half]);
    }
    parts[0]
}

/// A vector.
///
/// # Safety
/// Every function demands that the processor has the features of the implementation; `load` and `store` besides, that
/// `N` numbers can be read or written there.
pub trait Lanes: Copy {
    /// Numbers in a vector; a divisor of [`PARTS`].
    const N: usize;
    /// Vectors that hold [`PARTS`] numbers.
    const OF_PARTS: usize = PARTS / Self::N;

    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn splat(x: f32) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * factor + summand`, rounded once.
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// `self` where it is larger, else `other`: the latter if either is NaN.
    unsafe fn larger(self, other: Self) -> Self;
    /// The first `n` numbers (all, if there are fewer), and `rest` behind them.
    unsafe fn keep(self, n: usize, rest: Self) -> Self;
    /// 2 to the power of the integer in the lowest bits.
    unsafe fn power_of_two(self) -> Self;
    /// The largest number. None is NaN.
    unsafe fn largest(self) -> f32;
    /// As [`total`], of the numbers of as many vectors as hold them.
    unsafe fn total(parts: [Self; 2]) -> f32;
    /// The block of N x N numbers at `from` transposed to `to`; its `rows` first rows are there, the others are 0.
    ///
    /// # Safety
    /// N numbers can be read in each of `rows` rows, `pitch` apart, and written in each of N rows, `to_pitch` apart.
    unsafe fn transpose(from: *const f32, pitch: usize, rows: usize, to: *mut f32, to_pitch: usize);
}
