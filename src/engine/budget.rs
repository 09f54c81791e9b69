//! How many tokens a device may take at once, after what it had memory for. Pure.

use crate::model::tensors::{MIN_ROWS, VECTOR};

/// About the smallest job there is; a single job runs whatever the budget.
const SMALLEST: usize = VECTOR * MIN_ROWS;
/// Successful runs after which the budget grows by a step: at first, and after many failures.
const FIRST_PATIENCE: u32 = 16;
const LONGEST_PATIENCE: u32 = 1024;
/// Steps from nothing to the full budget.
const STEPS: usize = 8;

/// One device's token budget.
#[derive(Debug, Clone)]
pub struct Budget {
    full: usize,
    tokens: usize,
    successes: u32,
    patience: u32,
}

impl Budget {
    /// The configured budget.
    pub fn new(full: usize) -> Self {
        Self { full, tokens: full, successes: 0, patience: FIRST_PATIENCE }
    }

    /// Most tokens of a run with more than one job.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// There was no memory for a run of `tokens`: half of it is tried next.
    pub fn shrink(&mut self, tokens: usize) {
        self.tokens = (self.tokens.min(tokens) / 2).max(SMALLEST).min(self.full);
        self.successes = 0;
        self.patience = (self.patience * 2).min(LONGEST_PATIENCE);
    }

    /// A run succeeded. Returns whether the budget has grown for it.
    pub fn succeeded(&mut self) -> bool {
        if self.tokens == self.full {
            return false;
        }
        self.successes += 1;
        if self.successes < self.patience {
            return false;
        }
        self.successes = 0;
        self.tokens = (self.tokens + (self.full / STEPS).max(1)).min(self.full);
        if self.tokens == self.full {
            self.patience = FIRST_PATIENCE;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_and_grows_back_slower_the_more_often_it_fails() {
        let mut budget = Budget::new(512);
        assert!(!budget.succeeded());
        budget.shrink(400);
        assert_eq!(budget.tokens(), 200);
        let grown = |budget: &mut Budget| (1..).find(|_| budget.succeeded());
        assert_eq!((grown(&mut budget), budget.tokens()), (Some(32), 264));
        budget.shrink(264);
        assert_eq!((budget.tokens(), grown(&mut budget)), (132, Some(64)));
        for _ in 0..20 {
            budget.shrink(512);
        }
        assert_eq!((budget.tokens(), grown(&mut budget)), (SMALLEST, Some(LONGEST_PATIENCE)));
        while budget.tokens() < 512 {
            grown(&mut budget);
        }
        assert!(!budget.succeeded());
        budget.shrink(512);
        assert_eq!((budget.tokens(), grown(&mut budget)), (256, Some(32)));
    }

    #[test]
    fn a_budget_below_the_smallest_job_stays() {
        let mut budget = Budget::new(8);
        budget.shrink(8);
        assert_eq!(budget.tokens(), 8);
    }
}
