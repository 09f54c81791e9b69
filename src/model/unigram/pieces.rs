//! The pieces of a Unigram vocabulary, and the best way to put a word together from them. It does not know texts.
//!
//! The best way is the one with the highest sum of scores (Viterbi). Sums are taken in the order and precision of the
//! library, and of two ways with the same sum the one found first is kept, as there.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokenizers::json::Json;

use super::trie::Trie;

/// What a character outside the vocabulary costs more than the rarest piece.
const UNKNOWN_PENALTY: f64 = 10.0;

/// Pieces with their ids and scores.
pub struct Pieces {
    trie: Trie,
    /// By id.
    scores: Vec<f64>,
    unknown: u32,
    unknown_score: f64,
}

/// Room for a word's ways; it can be used again for the next word.
#[derive(Default)]
pub struct Word {
    /// The best way to each byte of the word.
    ways: Vec<Way>,
}

/// The best way to put the word's front together, seen from its last piece.
#[derive(Clone, Copy)]
struct Way {
    score: f64,
    id: u32,
    /// Where the last piece starts; [`Way::NONE`] if there is no way.
    from: u32,
}

impl Way {
    const NONE: Self = Self { score: 0.0, id: 0, from: u32::MAX };

    fn improve(&mut self, score: f64, id: u32, from: usize) {
        if self.from == u32::MAX || score > self.score {
            *self = Self { score, id, from: u32::try_from(from).expect("a word is much shorter than 4 GiB") };
        }
    }
}

impl Pieces {
    /// For the `vocab` of a model, a list of [piece, score]. `None` if it holds what is not known here.
    pub fn read(vocab: &RawValue, unknown: u32) -> Option<Self> {
        #[derive(Deserialize)]
        struct Entry<'a>(#[serde(borrow)] Cow<'a, str>, f64);
        u32::try_from(vocab.get().len()).ok()?;
        let entries: Vec<Entry> = serde_json::from_str(vocab.get()).ok()?;
        let scores: Vec<f64> = entries.iter().map(|entry| library_score(entry.1)).collect::<Option<_>>()?;
        let mut ids: Vec<(&[u8], u32)> = entries.iter().map(|entry| entry.0.as_bytes()).zip(0..).collect();
        // Of pieces that stand there twice the last counts.
        ids.sort_unstable_by(|a, b| a.0.cmp(b.0).then(b.1.cmp(&a.1)));
        ids.dedup_by_key(|entry| entry.0);
        if scores.get(unknown as usize).is_none() || ids.first().is_none_or(|(piece, _)| piece.is_empty()) {
            return None;
        }
        let unknown_score = scores.iter().copied().fold(f64::INFINITY, f64::min) - UNKNOWN_PENALTY;
        Some(Self { trie: Trie::new(&ids), scores, unknown, unknown_score })
    }

    /// Appends the ids of `word`.
    pub fn encode_into(&self, word: &str, room: &mut Word, ids: &mut Vec<u32>) {
        let (bytes, ways) = (word.as_bytes(), &mut room.ways);
        ways.clear();
        ways.resize(bytes.len() + 1, Way::NONE);
        for (at, char) in word.char_indices() {
            let (until_here, width) = (ways[at].score, char.len_utf8());
            let mut is_piece = false;
            self.trie.prefixes(&bytes[at..], |id, len| {
                ways[at + len].improve(self.scores[id as usize] + until_here, id, at);
                is_piece |= len == width;
            });
            if !is_piece {
                ways[at + width].improve(self.unknown_score + until_here, self.unknown, at);
            }
        }
        self.walk_back(bytes, ways, ids);
    }

    /// Appends the ids of the best way to the whole word. Unknown pieces beside each other are one.
    fn walk_back(&self, bytes: &[u8], ways: &[Way], ids: &mut Vec<u32>) {
        let first = ids.len();
        let mut end = bytes.len();
        while end > 0 {
            let Way { id, from, .. } = ways[end];
            let mut from = from as usize;
            if id == self.unknown {
                while from > 0 && ways[from].id == self.unknown {
                    from = ways[from].from as usize;
                }
                ids.push(self.trie.find(&bytes[from..end]).unwrap_or(self.unknown));
            } else {
                ids.push(id);
            }
            end = from;
        }
        ids[first..].reverse();
    }
}

/// The score as the library gets it: printed, then read by its own parser, which does not always round to the nearest.
/// One bit more or less decides between ways of nearly the same score.
fn library_score(score: f64) -> Option<f64> {
    Json::parse(&serde_json::to_string(&score).ok()?).ok()?.as_f64()
}
