//! What the arithmetic needs of a vector of single-precision numbers.

use super::super::PARTS;

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
    /// The sum of [`PARTS`] numbers: the upper half is added to the lower one, until one is left.
    unsafe fn sum(parts: [Self; 2]) -> f32;
    /// The block of N x N numbers at `from` transposed to `to`; its `rows` first rows are there, the others are 0.
    ///
    /// # Safety
    /// N numbers can be read in each of `rows` rows, `pitch` apart, and written in each of N rows, `to_pitch` apart.
    unsafe fn transpose(from: *const f32, pitch: usize, rows: usize, to: *mut f32, to_pitch: usize);
}
