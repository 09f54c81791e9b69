//! Texts that were scored or are being scored, bounded in bytes: two generations, of which the older one is forgotten.

use std::{cell::OnceCell, collections::HashMap, rc::Rc};

use super::scorer::{Scored, Unscored};

/// The answer for one text, once it is there.
pub(super) type Slot = Rc<OnceCell<Result<Scored, Unscored>>>;

/// What an entry costs beside its text, in bytes: the map's share and the slot.
const ENTRY_BYTES: usize = 160;

pub(super) struct Memo {
    young: HashMap<Box<str>, Slot>,
    old: HashMap<Box<str>, Slot>,
    young_bytes: usize,
    /// Bytes of one generation.
    most_bytes: usize,
}

impl Memo {
    /// Keeps texts in about `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), young_bytes: 0, most_bytes: bytes / 2 }
    }

    /// The slot of `text`, and whether it was made just now.
    pub fn slot(&mut self, text: &str) -> (Slot, bool) {
        if let Some(slot) = self.young.get(text) {
            return (slot.clone(), false);
        }
        let (slot, is_new) = match self.old.get(text) {
            Some(slot) => (slot.clone(), false),
            None => (Slot::default(), true),
        };
        self.young_bytes += text.len() + ENTRY_BYTES;
        if self.young_bytes > self.most_bytes {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = text.len() + ENTRY_BYTES;
        }
        self.young.insert(text.into(), slot.clone());
        (slot, is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_is_forgotten() {
        let mut memo = Memo::new(20 * ENTRY_BYTES);
        let answer = Scored { score: 0.5, label: 0, confidence: 0.5, is_odd: true, truncated: false };
        assert!(memo.slot("often").1);
        memo.slot("often").0.set(Ok(answer)).unwrap();
        for i in 0..1000 {
            assert!(memo.slot(&format!("once {i}")).1);
            let (slot, is_new) = memo.slot("often");
            assert_eq!((slot.get(), is_new), (Some(&Ok(answer)), false));
            assert!(memo.young.len() + memo.old.len() <= 20);
        }
        assert!(memo.slot("once 0").1);
    }
}
