//! Parts of a slice that lie a fixed distance apart, and which several threads may write, each its own.

use std::marker::PhantomData;

/// Bytes in a line.
pub(super) const LINE: usize = 64;

/// A cache line of quantised activations.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(pub [u8; LINE]);

/// A slice whose parts are handed to several threads.
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out parts, and `strided` demands that no two of them overlap.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), borrowed: PhantomData }
    }

    /// `count` rows of `width` elements, the first one at `start`, each `pitch` after the one before.
    ///
    /// # Safety
    /// No other part that overlaps with these rows may be in use.
    ///
    /// # Panics
    /// If they do not lie within the slice or overlap with each other.
    pub unsafe fn strided(&self, start: usize, pitch: usize, width: usize, count: usize) -> Strided<'a, T> {
        assert!(width <= pitch && count > 0 && start + (count - 1) * pitch + width <= self.len, "rows of the slice");
        // SAFETY: start lies within the slice.
        Strided { start: unsafe { self.start.add(start) }, pitch, width, count, borrowed: PhantomData }
    }
}

/// Rows of a slice that no one else uses.
pub(super) struct Strided<'a, T> {
    start: *mut T,
    pitch: usize,
    width: usize,
    count: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

impl<T> Strided<'_, T> {
    /// Row `i`.
    ///
    /// # Panics
    /// If there are no more than `i` rows.
    #[inline(always)]
    pub fn row(&mut self, i: usize) -> &mut [T] {
        assert!(i < self.count, "row {i} of {}", self.count);
        // SAFETY: `Shared::strided` found the rows to lie within the slice, and its caller warrants that nothing else uses
        // them; `self` is borrowed as long as the row.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.pitch), self.width) }
    }

    pub fn width(&self) -> usize {
        self.width
    }
}
