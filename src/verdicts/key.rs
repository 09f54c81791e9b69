//! What two logs must share to have the same scores.

use std::{
    hash::{Hash, Hasher},
    mem::size_of,
    sync::Arc,
};

use quick_cache::Equivalent;

use crate::{classify::Task, memory, model::EncodedLog};

/// A log as its client sent it, or as the model reads it. Many texts give one input: a tokenizer may write numbers,
/// addresses and cases alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Log<T, I> {
    Text(T),
    /// Token ids of a log that the model reads whole.
    Whole(I),
    /// Token ids of the front that the model reads of a longer log.
    Front(I),
}

/// What is asked about which log: all that scores depend on besides the model, to which a memory belongs.
///
/// Labels and template count as the model reads them, as hypotheses in the order of the labels. The threshold and the
/// anomaly label are no part of it: they make a verdict of the scores.
#[derive(Debug, Clone)]
pub struct Key {
    log: Log<Box<str>, Box<[u32]>>,
    /// Token ids of each hypothesis.
    hypotheses: Arc<[Vec<u32>]>,
    multi_label: bool,
}

/// A [`Key`] that owns nothing, to look with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Probe<'a> {
    log: Log<&'a str, &'a [u32]>,
    hypotheses: &'a [Vec<u32>],
    multi_label: bool,
}

impl<'a> Probe<'a> {
    /// What `task` asks about the text `log`.
    pub fn text(log: &'a str, task: &'a Task) -> Self {
        Self { log: Log::Text(log), hypotheses: &task.hypotheses, multi_label: task.multi_label }
    }

    /// What `task` asks about every text that the model reads as `log`, which was encoded for it.
    pub fn input(log: &'a EncodedLog, task: &'a Task) -> Self {
        let log = if log.truncated { Log::Front(&log.ids[..]) } else { Log::Whole(&log.ids[..]) };
        Self { log, hypotheses: &task.hypotheses, multi_label: task.multi_label }
    }
}

impl Key {
    /// As [`Probe::text`].
    pub fn text(log: &str, task: &Task) -> Self {
        Self { log: Log::Text(log.into()), hypotheses: task.hypotheses.clone(), multi_label: task.multi_label }
    }

    /// As [`Probe::input`].
    pub fn input(log: &EncodedLog, task: &Task) -> Self {
        let ids = log.ids.as_slice().into();
        let log = if log.truncated { Log::Front(ids) } else { Log::Whole(ids) };
        Self { log, hypotheses: task.hypotheses.clone(), multi_label: task.multi_label }
    }

    /// To look for what is kept under it.
    pub fn probe(&self) -> Probe<'_> {
        let log = match &self.log {
            Log::Text(text) => Log::Text(&**text),
            Log::Whole(ids) => Log::Whole(&**ids),
            Log::Front(ids) => Log::Front(&**ids),
        };
        Probe { log, hypotheses: &self.hypotheses, multi_label: self.multi_label }
    }

    /// Bytes that its parts take in the allocator. Hypotheses count unless they are the very ones of `shared`: a batch
    /// call's logs share theirs, but one of them may be all that is left of the call.
    pub fn bytes(&self, shared: &Arc<[Vec<u32>]>) -> usize {
        let log = memory::allocated(match &self.log {
            Log::Text(text) => text.len(),
            Log::Whole(ids) | Log::Front(ids) => size_of_val(&**ids),
        });
        if Arc::ptr_eq(&self.hypotheses, shared) {
            return log;
        }
        let counters = 2 * size_of::<usize>();
        let rows = memory::allocated(counters + size_of::<Vec<u32>>() * self.hypotheses.len());
        let ids = self.hypotheses.iter().map(|ids| memory::allocated(size_of::<u32>() * ids.capacity()));
        log + rows + ids.sum::<usize>()
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
        let key = Key::text("disk full", &base);
        let same = Task { labels: vec!["x".into(), "y".into()], anomaly: 1, ..task(&[&[1, 2], &[3]], false) };
        assert!(Probe::text("disk full", &same).equivalent(&key));
        for other in [
            task(&[&[3], &[1, 2]], false),
            task(&[&[1], &[2, 3]], false),
            task(&[&[1, 2, 3]], false),
            task(&[&[1, 2], &[3]], true),
        ] {
            assert!(!Probe::text("disk full", &other).equivalent(&key));
            assert_ne!(Key::text("disk full", &other), key);
        }
        for text in ["disk full ", "Disk full", "disk  full", ""] {
            assert!(!Probe::text(text, &base).equivalent(&key), "{text:?}");
        }
        let state = std::hash::RandomState::new();
        use std::hash::BuildHasher;
        assert_eq!(state.hash_one(&key), state.hash_one(Probe::text("disk full", &same)), "or it is never found");
    }

    fn encoded(ids: &[u32], truncated: bool) -> EncodedLog {
        EncodedLog { ids: ids.to_vec(), truncated }
    }

    #[test]
    fn an_input_is_its_ids_and_whether_they_are_all() {
        let base = task(&[&[1, 2], &[3]], false);
        let key = Key::input(&encoded(&[5, 6], false), &base);
        let found = |log: EncodedLog, task: &Task| {
            let found = Probe::input(&log, task).equivalent(&key);
            assert_eq!(found, Key::input(&log, task) == key);
            found
        };
        assert!(found(encoded(&[5, 6], false), &task(&[&[1, 2], &[3]], false)));
        for other in [encoded(&[5, 6], true), encoded(&[6, 5], false), encoded(&[5, 6, 7], false), encoded(&[], false)]
        {
            assert!(!found(other, &base));
        }
        assert!(!found(encoded(&[5, 6], false), &task(&[&[1, 2], &[3]], true)));
        assert!(!found(encoded(&[5], false), &task(&[&[6, 1, 2], &[3]], false)));
        assert!(!Probe::text("", &base).equivalent(&Key::input(&encoded(&[], false), &base)), "a text is no input");
        let state = std::hash::RandomState::new();
        use std::hash::BuildHasher;
        assert_eq!(state.hash_one(&key), state.hash_one(Probe::input(&encoded(&[5, 6], false), &base)));
        assert_eq!(state.hash_one(&key), state.hash_one(key.probe()));
    }

    #[test]
    fn ids_weigh_four_bytes_each() {
        let base = task(&[&[1]], false);
        let bytes = |ids: usize| Key::input(&encoded(&vec![7; ids], false), &base).bytes(&base.hypotheses);
        assert!(bytes(500) >= 2000 && bytes(500) < 2600 && bytes(4) < 64);
    }

    #[test]
    fn hypotheses_of_its_own_weigh() {
        let (base, own) = (task(&[&[1; 100]], false), task(&[&[1; 100]], false));
        let bytes = |task: &Task| Key::text("disk full", task).bytes(&base.hypotheses);
        assert!(bytes(&base) < 64 && bytes(&own) >= bytes(&base) + 400);
    }
}
