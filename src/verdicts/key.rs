//! What two logs must share to have the same scores.

use std::{
    hash::{Hash, Hasher},
    mem::size_of,
    sync::Arc,
};

use quick_cache::Equivalent;

use crate::{classify::Task, memory};

/// What is asked about which log: all that scores depend on besides the model, to which a memory belongs.
///
/// Labels and template count as the model reads them, as hypotheses in the order of the labels. The threshold and the
/// anomaly label are no part of it: they make a verdict of the scores.
#[derive(Debug, Clone)]
pub struct Key {
    text: Box<str>,
    /// Token ids of each hypothesis.
    hypotheses: Arc<[Vec<u32>]>,
    multi_label: bool,
}

/// A [`Key`] that owns nothing, to look with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Probe<'a> {
    text: &'a str,
    hypotheses: &'a [Vec<u32>],
    multi_label: bool,
}

impl<'a> Probe<'a> {
    /// What `task` asks about `log`.
    pub fn new(log: &'a str, task: &'a Task) -> Self {
        Self { text: log, hypotheses: &task.hypotheses, multi_label: task.multi_label }
    }
}

impl Key {
    /// What `task` asks about `log`.
    pub fn new(log: &str, task: &Task) -> Self {
        Self { text: log.into(), hypotheses: task.hypotheses.clone(), multi_label: task.multi_label }
    }

    fn probe(&self) -> Probe<'_> {
        Probe { text: &self.text, hypotheses: &self.hypotheses, multi_label: self.multi_label }
    }

    /// Bytes that its parts take in the allocator. Hypotheses count unless they are the very ones of `shared`: a batch
    /// call's logs share theirs, but one of them may be all that is left of the call.
    pub fn bytes(&self, shared: &Arc<[Vec<u32>]>) -> usize {
        let text = memory::allocated(self.text.len());
        if Arc::ptr_eq(&self.hypotheses, shared) {
            return text;
        }
        let counters = 2 * size_of::<usize>();
        let rows = memory::allocated(counters + size_of::<Vec<u32>>() * self.hypotheses.len());
        let ids = self.hypotheses.iter().map(|ids| memory::allocated(size_of::<u32>() * ids.capacity()));
        text + rows + ids.sum::<usize>()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.probe() == other.probe()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.probe().hash(state);
    }
}

impl Equivalent<Key> for Probe<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.probe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(hypotheses: &[&[u32]], multi_label: bool) -> Task {
        let hypotheses: Arc<[Vec<u32>]> = hypotheses.iter().map(|ids| ids.to_vec()).collect();
        let labels = (0..hypotheses.len()).map(|i| format!("l{i}")).collect();
        Task { labels, anomaly: 0, multi_label, hypotheses, lengths: 0..=0 }
    }

    #[test]
    fn everything_counts_and_nothing_else() {
        let base = task(&[&[1, 2], &[3]], false);
        let key = Key::new("disk full", &base);
        let same = Task { labels: vec!["x".into(), "y".into()], anomaly: 1, ..task(&[&[1, 2], &[3]], false) };
        assert!(Probe::new("disk full", &same).equivalent(&key));
        for other in [
            task(&[&[3], &[1, 2]], false),
            task(&[&[1], &[2, 3]], false),
            task(&[&[1, 2, 3]], false),
            task(&[&[1, 2], &[3]], true),
        ] {
            assert!(!Probe::new("disk full", &other).equivalent(&key));
            assert_ne!(Key::new("disk full", &other), key);
        }
        for text in ["disk full ", "Disk full", "disk  full", ""] {
            assert!(!Probe::new(text, &base).equivalent(&key), "{text:?}");
        }
        let state = std::hash::RandomState::new();
        use std::hash::BuildHasher;
        assert_eq!(state.hash_one(&key), state.hash_one(Probe::new("disk full", &same)), "or it is never found");
    }

    #[test]
    fn hypotheses_of_its_own_weigh() {
        let (base, own) = (task(&[&[1; 100]], false), task(&[&[1; 100]], false));
        let bytes = |task: &Task| Key::new("disk full", task).bytes(&base.hypotheses);
        assert!(bytes(&base) < 64 && bytes(&own) >= bytes(&base) + 400);
    }
}
