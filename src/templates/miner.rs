//! The online miner, after Drain (He et al., ICWS 2017): a tree of fixed depth leads to a few templates, of which the most
//! similar takes the message or a new one is made.
//!
//! The tree is kept flat: a leaf is the number of words and the first [`Settings::depth`] of them, those that vary taken
//! as one, with the status codes of HTTP and their places. A word at which members of a template differ becomes [`WILDCARD`].
//!
//! Keys of objects cut a message into *sections*: what stands before the first one, and the value of each. A leaf has all keys, with
//! their places, and the first words of each section, and each section must be similar: else keys, which are many and
//! always the same, would make objects alike that say different things.
//!
//! Bounded: in templates, in their bytes and in the templates of a leaf, all of which are compared. What is forgotten for
//! a new one is the least useful of a few ([`LOOKED_AT`]) that a hand passes, or of its leaf. Use is counted up by members
//! and halved by the hand, so that a template that was frequent long ago does not stay for ever.

mod snapshot;

use std::{cmp::Reverse, collections::HashMap};

pub use self::snapshot::Snapshot;
use super::{
    leaf,
    object::ends_key,
    template::{Settings, Template, TemplateId, WILDCARD},
};

/// Templates that the hand passes before one is forgotten: what a new one costs does not depend on how many there are.
const LOOKED_AT: usize = 16;

/// Bytes of a message that are looked at.
const MESSAGE_BYTES: usize = 4096;

/// Where a message went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// The template.
    pub id: TemplateId,
    /// Whether the message is its first member.
    pub is_new: bool,
    /// Its members so far, this one counted.
    pub count: u64,
    /// Whether the message made the template more general.
    pub generalised: bool,
    /// The templates that were forgotten to make room.
    pub forgotten: Vec<TemplateId>,
}

#[derive(Debug)]
struct Slot {
    template: Template,
    /// Members, halved whenever the hand passes.
    uses: u32,
}

impl Slot {
    /// What is least is forgotten first.
    fn usefulness(&self) -> (u32, u64) {
        (self.uses, self.template.last)
    }
}

/// How well a message fits a template: words that are equal; of equally similar ones the more general wins, as in Drain;
/// of these any, but always the same one.
type Fit = (usize, usize, Reverse<TemplateId>);

/// See the module.
#[derive(Debug)]
pub struct Miner {
    settings: Settings,
    seen: u64,
    slots: Vec<Slot>,
    bytes: usize,
    by_id: HashMap<TemplateId, usize>,
    /// By number of words and the first words, in one line.
    leaves: HashMap<Box<str>, Vec<usize>>,
    /// Where the search for the least useful goes on.
    hand: usize,
    masked: String,
    leaf: String,
    #[cfg(test)]
    looks: usize,
}

impl Miner {
    /// A miner that knows nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            seen: 0,
            slots: Vec::new(),
            bytes: 0,
            by_id: HashMap::new(),
            leaves: HashMap::new(),
            hand: 0,
            masked: String::new(),
            leaf: String::new(),
            #[cfg(test)]
            looks: 0,
        }
    }

    /// Learns from one message and says which template it belongs to.
    pub fn add(&mut self, message: &str) -> Matched {
        let mut masked = std::mem::take(&mut self.masked);
        mask_start(message, &mut masked);
        let matched = self.add_masked(&masked);
        self.masked = masked;
        matched
    }

    /// As [`Self::add`], for what [`mask_start`] made of a message.
    pub fn add_masked(&mut self, masked: &str) -> Matched {
        self.seen += 1;
        let words = self.words(masked);
        let mut leaf = std::mem::take(&mut self.leaf);
        leaf::write(&words, self.settings.depth, &mut leaf);
        let matched = self.place(masked, &words, &leaf);
        self.leaf = leaf;
        matched
    }

    /// The template with this id.
    pub fn get(&self, id: TemplateId) -> Option<&Template> {
        self.by_id.get(&id).map(|slot| &self.slots[*slot].template)
    }

    /// The template that `message` would join, without learning from it.
    pub fn find(&self, message: &str) -> Option<&Template> {
        let (mut masked, mut leaf) = (String::new(), String::new());
        mask_start(message, &mut masked);
        let words = self.words(&masked);
        leaf::write(&words, self.settings.depth, &mut leaf);
        self.best(&words, &leaf).map(|(slot, _)| &self.slots[slot].template)
    }

    /// Every template, in no order.
    pub fn templates(&self) -> impl ExactSizeIterator<Item = &Template> {
        self.slots.iter().map(|slot| &slot.template)
    }

    /// Messages so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Bytes that templates take, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn words<'a>(&self, masked: &'a str) -> Vec<&'a str> {
        let mut words: Vec<&str> = masked.split(' ').take(self.settings.max_words + 1).collect();
        if words.len() > self.settings.max_words {
            words[self.settings.max_words] = WILDCARD;
        }
        words
    }

    fn place(&mut self, masked: &str, words: &[&str], leaf: &str) -> Matched {
        if let Some((slot, whole)) = self.best(words, leaf) {
            return self.join(slot, words, whole);
        }
        let id = TemplateId::of(masked);
        // Two names are the same by chance, or because someone has looked for such messages: the older one goes.
        let twin = self.by_id.get(&id).copied().map(|slot| self.forget(slot));
        let text = words.join(" ").into();
        let template = Template { id, text, count: 1, last: self.seen };
        let mut forgotten = self.make_room(template.bytes(), leaf);
        forgotten.extend(twin);
        self.insert(template, leaf);
        Matched { id, is_new: true, count: 1, generalised: false, forgotten }
    }

    /// The most similar template of the leaf, and whether it covers every word already.
    fn best(&self, words: &[&str], leaf: &str) -> Option<(usize, bool)> {
        let slots = self.leaves.get(leaf)?;
        let keys: Vec<usize> = (0..words.len()).filter(|at| ends_key(words[*at])).collect();
        let mut best: Option<(usize, Fit)> = None;
        for slot in slots {
            let template = &self.slots[*slot].template;
            let Some((equal, wild)) = self.fit(&template.text, words, &keys) else { continue };
            let fit = (equal, wild, Reverse(template.id));
            if best.is_none_or(|(_, than)| fit > than) {
                best = Some((*slot, fit));
            }
        }
        best.map(|(slot, (equal, wild, _))| (slot, equal + wild >= words.len()))
    }

    /// How many words are equal and how many are wildcards, if a message with these words, of which those at `keys` are keys, may
    /// join the template `text` of its leaf.
    fn fit(&self, text: &str, words: &[&str], keys: &[usize]) -> Option<(usize, usize)> {
        let mut pairs = text.split(' ').zip(words);
        let (mut equal, mut wild, mut begin) = (0, 0, 0);
        for end in keys.iter().copied().chain([words.len()]) {
            let (mut same, mut any, mut varying) = (0, 0, 0);
            for (own, word) in pairs.by_ref().take(end - begin) {
                same += usize::from(own == *word);
                any += usize::from(own == WILDCARD);
                varying += usize::from(own != *word && own != WILDCARD && own.contains('<') && word.contains('<'));
            }
            // A value is often one word, and an id of which a part is masked, such as req-<num>f, is no kind of its own.
            let covered = same + any + if begin > 0 { varying } else { 0 };
            let least = (self.settings.similarity * (end - begin) as f32).ceil() as usize;
            if same < least && covered < end - begin {
                return None;
            }
            (equal, wild) = (equal + same, wild + any);
            if end < words.len() {
                // Keys are equal on a leaf.
                equal += 1;
                pairs.next();
            }
            begin = end + 1;
        }
        Some((equal, wild))
    }

    fn join(&mut self, slot: usize, words: &[&str], whole: bool) -> Matched {
        let Slot { template, uses } = &mut self.slots[slot];
        *uses = uses.saturating_add(1);
        template.count += 1;
        template.last = self.seen;
        if !whole {
            let both = template.text.split(' ').zip(words);
            let general: Vec<&str> = both.map(|(own, word)| if own == *word { own } else { WILDCARD }).collect();
            let before = template.bytes();
            template.text = general.join(" ").into();
            self.bytes = self.bytes + template.bytes() - before;
        }
        let (id, count) = (template.id, template.count);
        Matched { id, is_new: false, count, generalised: !whole, forgotten: Vec::new() }
    }

    fn has_room(&self, bytes: usize) -> bool {
        let Settings { max_templates, max_bytes, .. } = self.settings;
        self.slots.is_empty() || (self.slots.len() < max_templates && self.bytes + bytes <= max_bytes)
    }

    fn insert(&mut self, template: Template, leaf: &str) {
        let slot = self.slots.len();
        self.by_id.insert(template.id, slot);
        match self.leaves.get_mut(leaf) {
            Some(slots) => slots.push(slot),
            None => drop(self.leaves.insert(leaf.into(), vec![slot])),
        }
        self.bytes += template.bytes();
        let uses = template.count.try_into().unwrap_or(u32::MAX);
        self.slots.push(Slot { template, uses });
    }

    /// Forgets until there is room for a template of so many bytes on `leaf`.
    fn make_room(&mut self, bytes: usize, leaf: &str) -> Vec<TemplateId> {
        let mut forgotten = Vec::new();
        if let Some(crowd) = self.leaves.get(leaf).filter(|slots| slots.len() >= self.settings.max_on_leaf.max(1)) {
            let least = crowd.iter().copied().min_by_key(|slot| self.slots[*slot].usefulness());
            forgotten.extend(least.map(|slot| self.forget(slot)));
        }
        while !self.has_room(bytes) {
            let slot = self.least_of_a_few();
            forgotten.push(self.forget(slot));
        }
        forgotten
    }

    /// Passes the next few templates with the hand. There is one at least.
    fn least_of_a_few(&mut self) -> usize {
        let total = self.slots.len();
        let mut least = self.hand % total;
        for at in (self.hand..self.hand + LOOKED_AT.min(total)).map(|at| at % total) {
            if self.slots[at].usefulness() < self.slots[least].usefulness() {
                least = at;
            }
        }
        for at in (self.hand..self.hand + LOOKED_AT.min(total)).map(|at| at % total) {
            self.slots[at].uses /= 2;
        }
        self.hand = (self.hand + LOOKED_AT) % total;
        #[cfg(test)]
        {
            self.looks += LOOKED_AT.min(total);
        }
        least
    }

    /// Takes the template in `slot` away.
    fn forget(&mut self, slot: usize) -> TemplateId {
        self.leave(slot, None);
        let Slot { template: gone, .. } = self.slots.swap_remove(slot);
        self.by_id.remove(&gone.id);
        self.bytes -= gone.bytes();
        if slot < self.slots.len() {
            // The last one has moved into the gap.
            self.by_id.insert(self.slots[slot].template.id, slot);
            self.leave(slot, Some(self.slots.len()));
        }
        gone.id
    }

    /// Takes the template in `slot` off its leaf; or, if it stood in slot `was`, puts the new place there.
    fn leave(&mut self, slot: usize, was: Option<usize>) {
        let words: Vec<&str> = self.slots[slot].template.text.split(' ').collect();
        let mut leaf = String::new();
        leaf::write(&words, self.settings.depth, &mut leaf);
        let slots = self.leaves.get_mut(&*leaf).expect("every template is on its leaf");
        match was {
            Some(was) => slots.iter_mut().filter(|s| **s == was).for_each(|s| *s = slot),
            None => slots.retain(|s| *s != slot),
        }
        if slots.is_empty() {
            self.leaves.remove(&*leaf);
        }
    }
}

/// Writes the masked beginning of `message`, as much of it as is looked at, into `masked`.
pub fn mask_start(message: &str, masked: &mut String) {
    super::mask(&message[..message.floor_char_boundary(MESSAGE_BYTES)], masked);
}

#[cfg(test)]
mod tests;
