//! The online miner, after Drain (He et al., ICWS 2017): a tree of fixed depth leads to a few templates, of which the most
//! similar takes the message or a new one is made.
//!
//! The tree is kept flat: a leaf is the number of words and the first [`Settings::depth`] of them, those that vary taken
//! as one. A word at which members of a template differ becomes [`WILDCARD`].
//!
//! Bounded: when there are too many templates, the least useful of a few looked at is forgotten (fewest members; of those
//! the one that was seen longest ago).

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Stands for a word at which members differ.
pub const WILDCARD: &str = "<*>";

/// Which version of masks and leaves a snapshot was made with. Change it when either changes.
const VERSION: u32 = 1;

/// Templates that are looked at before one is forgotten.
const LOOKED_AT: usize = 16;

/// Names a template for good: the first eight bytes of the SHA-256 of its first member, masked. A template keeps its id
/// while it becomes more general, in every process and after it was forgotten and came back with the same first member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TemplateId(pub u64);

impl TemplateId {
    fn of(masked: &str) -> Self {
        let hash = Sha256::digest(masked.as_bytes());
        Self(u64::from_be_bytes(hash[..8].try_into().expect("a SHA-256 has 32 bytes")))
    }
}

impl std::fmt::Display for TemplateId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// How templates are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Words at the beginning that members must share, unless these vary.
    pub depth: usize,
    /// 0 to 1: least share of equal words with which a message joins a template.
    pub similarity: f32,
    /// Most templates that are kept.
    pub max_templates: usize,
    /// Most words of a message that are looked at; the rest is one wildcard.
    pub max_words: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { depth: 2, similarity: 0.5, max_templates: 20_000, max_words: 128 }
    }
}

/// What messages of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name.
    pub id: TemplateId,
    /// Its words, [`WILDCARD`] where members differ.
    pub words: Vec<Box<str>>,
    /// How many messages it has taken.
    pub count: u64,
    /// The miner's count of messages when it took the last one.
    pub last: u64,
}

impl Template {
    /// The words in one line.
    pub fn text(&self) -> String {
        self.words.join(" ")
    }
}

/// Where a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matched {
    /// The template.
    pub id: TemplateId,
    /// Whether the message is its first member.
    pub is_new: bool,
    /// Its members so far, this one counted.
    pub count: u64,
    /// Whether the message made the template more general.
    pub generalised: bool,
    /// The template that was forgotten to make room.
    pub forgotten: Option<TemplateId>,
}

/// All that a miner knows, to be kept and restored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    seen: u64,
    templates: Vec<Template>,
}

/// See the module.
#[derive(Debug)]
pub struct Miner {
    settings: Settings,
    seen: u64,
    slots: Vec<Template>,
    by_id: HashMap<TemplateId, usize>,
    leaves: HashMap<Vec<Box<str>>, Vec<usize>>,
    /// Where the search for the least useful goes on.
    hand: usize,
    masked: String,
}

impl Miner {
    /// A miner that knows nothing.
    pub fn new(settings: Settings) -> Self {
        let (slots, by_id, leaves) = (Vec::new(), HashMap::new(), HashMap::new());
        Self { settings, seen: 0, slots, by_id, leaves, hand: 0, masked: String::new() }
    }

    /// Learns from one message and says which template it belongs to.
    pub fn add(&mut self, message: &str) -> Matched {
        let mut masked = std::mem::take(&mut self.masked);
        super::mask(message, &mut masked);
        let matched = self.add_masked(&masked);
        self.masked = masked;
        matched
    }

    /// The template with this id.
    pub fn get(&self, id: TemplateId) -> Option<&Template> {
        self.by_id.get(&id).map(|slot| &self.slots[*slot])
    }

    /// The template that `message` would join, without learning from it.
    pub fn find(&self, message: &str) -> Option<&Template> {
        let mut masked = String::new();
        super::mask(message, &mut masked);
        let words = self.words(&masked);
        self.best(&words).map(|(slot, _)| &self.slots[slot])
    }

    /// Every template, in no order.
    pub fn templates(&self) -> impl ExactSizeIterator<Item = &Template> {
        self.slots.iter()
    }

    /// Messages so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// All that is known, by id.
    pub fn snapshot(&self) -> Snapshot {
        let mut templates = self.slots.clone();
        templates.sort_by_key(|t| t.id);
        Snapshot { version: VERSION, seen: self.seen, templates }
    }

    /// A miner that goes on where `snapshot` was taken; of too many templates those with most members are kept.
    ///
    /// # Errors
    /// If it was made by another version, or holds what no miner writes.
    pub fn restore(settings: Settings, snapshot: Snapshot) -> Result<Self, String> {
        if snapshot.version != VERSION {
            return Err(format!("templates of version {} cannot be used by version {VERSION}", snapshot.version));
        }
        let mut miner = Self { seen: snapshot.seen, ..Self::new(settings) };
        let mut templates = snapshot.templates;
        templates.sort_by_key(|t| (std::cmp::Reverse(t.count), t.id));
        templates.truncate(settings.max_templates.max(1));
        for template in templates {
            if template.words.len() > settings.max_words + 1 || template.words.iter().any(|w| w.contains(' ')) {
                return Err(format!("template {} is broken", template.id));
            }
            if miner.by_id.contains_key(&template.id) {
                return Err(format!("template {} is there twice", template.id));
            }
            miner.insert(template);
        }
        Ok(miner)
    }

    fn add_masked(&mut self, masked: &str) -> Matched {
        self.seen += 1;
        let words = self.words(masked);
        if let Some((slot, whole)) = self.best(&words) {
            return self.join(slot, &words, whole);
        }
        let id = TemplateId::of(masked);
        if let Some(slot) = self.by_id.get(&id).copied() {
            return self.join(slot, &words, false);
        }
        let forgotten = (self.slots.len() >= self.settings.max_templates.max(1)).then(|| self.forget());
        let words = words.into_iter().map(Box::from).collect();
        self.insert(Template { id, words, count: 1, last: self.seen });
        Matched { id, is_new: true, count: 1, generalised: false, forgotten }
    }

    fn words<'a>(&self, masked: &'a str) -> Vec<&'a str> {
        let mut words: Vec<&str> = masked.split(' ').take(self.settings.max_words + 1).collect();
        if words.len() > self.settings.max_words {
            words[self.settings.max_words] = WILDCARD;
        }
        words
    }

    /// Where messages with these words are looked for. Words that vary lead the same way.
    fn leaf(&self, words: &[impl AsRef<str>]) -> Vec<Box<str>> {
        let way = words.iter().take(self.settings.depth).map(|word| match word.as_ref() {
            varies if varies.contains('<') => WILDCARD.into(),
            word => word.into(),
        });
        way.chain([words.len().to_string().into()]).collect()
    }

    /// The most similar template of the leaf, and whether it covers every word already.
    fn best(&self, words: &[&str]) -> Option<(usize, bool)> {
        let slots = self.leaves.get(&self.leaf(words))?;
        let mut best: Option<(usize, usize, usize)> = None;
        for slot in slots {
            let (mut equal, mut wild) = (0, 0);
            for (own, word) in self.slots[*slot].words.iter().zip(words) {
                equal += usize::from(**own == **word);
                wild += usize::from(**own == *WILDCARD);
            }
            let least = (self.settings.similarity * words.len() as f32).ceil() as usize;
            let covers = equal + wild >= words.len();
            // Of equally similar ones the more general wins, as in Drain.
            if (equal >= least || covers) && best.is_none_or(|(_, e, w)| (equal, wild) > (e, w)) {
                best = Some((*slot, equal, wild));
            }
        }
        best.map(|(slot, equal, wild)| (slot, equal + wild >= words.len()))
    }

    fn join(&mut self, slot: usize, words: &[&str], whole: bool) -> Matched {
        let template = &mut self.slots[slot];
        template.count += 1;
        template.last = self.seen;
        if !whole {
            for (own, word) in template.words.iter_mut().zip(words) {
                if **own != **word {
                    *own = WILDCARD.into();
                }
            }
        }
        Matched { id: template.id, is_new: false, count: template.count, generalised: !whole, forgotten: None }
    }

    fn insert(&mut self, template: Template) {
        let slot = self.slots.len();
        self.by_id.insert(template.id, slot);
        self.leaves.entry(self.leaf(&template.words)).or_default().push(slot);
        self.slots.push(template);
    }

    /// Takes the least useful of the next few templates away.
    fn forget(&mut self) -> TemplateId {
        let total = self.slots.len();
        let looked_at = (0..LOOKED_AT.min(total)).map(|i| (self.hand + i) % total);
        let slot = looked_at
            .min_by_key(|slot| (self.slots[*slot].count, self.slots[*slot].last))
            .expect("it is called with a template at least");
        self.hand = (self.hand + LOOKED_AT) % total;
        self.leave(slot, None);
        let gone = self.slots.swap_remove(slot);
        self.by_id.remove(&gone.id);
        if slot < self.slots.len() {
            // The last one has moved into the gap.
            self.by_id.insert(self.slots[slot].id, slot);
            self.leave(slot, Some(total - 1));
        }
        gone.id
    }

    /// Takes the template in `slot` off its leaf; or, if it stood in slot `was`, puts the new place there.
    fn leave(&mut self, slot: usize, was: Option<usize>) {
        let leaf = self.leaf(&self.slots[slot].words);
        let slots = self.leaves.get_mut(&leaf).expect("every template is on its leaf");
        match was {
            Some(was) => slots.iter_mut().filter(|s| **s == was).for_each(|s| *s = slot),
            None => slots.retain(|s| *s != slot),
        }
        if slots.is_empty() {
            self.leaves.remove(&leaf);
        }
    }
}

#[cfg(test)]
mod tests;
