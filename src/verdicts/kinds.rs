//! What is known by template: which one a log is of, and whether its scores may be reused.
//!
//! A text that is answered by its template again and again may be answered wrongly each time. So each text is owed the doubts
//! with which it was answered so far: the wrong answers to expect of it. Beyond twice the largest doubt it is scored, which settles
//! it for as long as the exact memory holds.
//!
//! Bounded: the book bounds the templates, and texts share a table of fixed size in which later ones take the places of
//! earlier ones. It does not know engines, tokens or waiting.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use crate::{
    novelty::{masked, unix_ms},
    templates::{Book, Policy, Settings, SharedBook, State, TemplateId, Trust},
};

/// Places for texts that were answered by a template.
const PLACES: usize = 1 << 16;

/// Wrong answers to expect of a text before it is scored, in largest doubts.
const MOST_OWED: f32 = 2.0;

/// All templates, and what is known of their verdicts.
pub struct Kinds {
    policy: Policy,
    /// Share of reused scores that are checked.
    check_share: f64,
    book: SharedBook,
    texts: Mutex<Texts>,
    /// Keyed at random: whoever writes logs cannot choose who shares a place.
    hasher: RandomState,
}

struct Texts {
    owed: Box<[Owed]>,
    random: fastrand::Rng,
}

/// What a text is owed.
#[derive(Clone, Copy, Default)]
struct Owed {
    text: u32,
    doubts: f32,
}

/// How a log is to be answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Use {
    /// With the scores of its template.
    Reuse {
        /// One a label.
        scores: Vec<f32>,
        /// The anomaly label's among them.
        score: f32,
        /// Whether the log is to be scored all the same, later.
        check: bool,
    },
    /// By the model.
    Ask {
        /// Whether others of its template should wait for what is found.
        wait: bool,
    },
}

impl Kinds {
    /// Nothing known yet. `seed` decides which answers are checked.
    pub fn new(policy: Policy, check_share: f64, max_templates: usize, seed: u64, now: SystemTime) -> Self {
        let settings = Settings { max_templates, ..Settings::default() };
        Self::with_book(policy, check_share, SharedBook::new(Book::new(settings, unix_ms(now))), seed)
    }

    /// With the templates of a book that others write in, too.
    pub fn with_book(policy: Policy, check_share: f64, book: SharedBook, seed: u64) -> Self {
        let texts = Texts { owed: vec![Owed::default(); PLACES].into(), random: fastrand::Rng::with_seed(seed) };
        Self { policy, check_share, book, texts: Mutex::new(texts), hasher: RandomState::new() }
    }

    /// When scores are reused.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The template of a log, which learns from it.
    pub fn sight(&self, log: &str, now: SystemTime) -> TemplateId {
        // Not as an argument: the lock would be held meanwhile.
        let masked = masked(log);
        self.book.lock().observe(&masked, unix_ms(now)).id
    }

    /// How a log of the template `id` is to be answered, of which the model would read `input`.
    pub fn decide(&self, id: TemplateId, input: &impl Hash, now: SystemTime) -> Use {
        let now_s = unix_ms(now) / 1000;
        let (doubt, scores, score) = {
            let book = self.book.lock();
            let Some(trust) = book.trust(id) else { return Use::Ask { wait: true } };
            let doubt = trust.doubt(&self.policy, now_s);
            match trust.state_at(doubt, &self.policy) {
                State::Learning => return Use::Ask { wait: true },
                State::Volatile => return Use::Ask { wait: false },
                State::Trusted => (doubt, trust.scores().clone(), trust.score()),
            }
        };
        let hash = self.hasher.hash_one(input);
        let (place, text) = (hash as usize % PLACES, (hash >> 32) as u32);
        // A poisoned lock guards parts that are each whole.
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let Texts { owed, random } = &mut *texts;
        let before = if owed[place].text == text { owed[place].doubts } else { 0.0 };
        let doubts = before + doubt;
        if doubts > MOST_OWED * self.policy.max_doubt {
            // What it is owed stays: whoever comes before its scores are there joins those who wait for them.
            return Use::Ask { wait: false };
        }
        owed[place] = Owed { text, doubts };
        let check = random.f64() < self.check_share;
        Use::Reuse { scores: scores.to_vec(), score, check }
    }

    /// Takes in the scores of a member of the template `id`, unless that was forgotten meanwhile.
    pub fn learn(&self, id: TemplateId, scores: &[f32], anomaly: usize, now: SystemTime) {
        self.book.lock().learn(id, scores, scores[anomaly], unix_ms(now));
    }

    /// Templates that are learning, trusted and volatile.
    pub fn count(&self, now: SystemTime) -> [usize; 3] {
        let now_s = unix_ms(now) / 1000;
        let (templates, trusts): (usize, Vec<Trust>) = {
            let book = self.book.lock();
            (book.len(), book.trusts().cloned().collect())
        };
        let mut counts = [templates, 0, 0];
        for trust in trusts {
            let state = match trust.state(&self.policy, now_s) {
                State::Learning => continue,
                State::Trusted => 1,
                State::Volatile => 2,
            };
            counts[state] += 1;
            counts[0] -= 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(max_doubt: f32, check_share: f64, max_templates: usize) -> Kinds {
        let policy = Policy { boundaries: vec![0.5], max_doubt, ttl_s: 60 };
        Kinds::new(policy, check_share, max_templates, 7, SystemTime::now())
    }

    fn decide(kinds: &Kinds, id: TemplateId, input: u32) -> Use {
        kinds.decide(id, &input, SystemTime::now())
    }

    #[test]
    fn of_the_prefix_only_the_level_and_the_source_count() {
        let kinds = kinds(0.2, 0.0, 100);
        let id = kinds.sight("took 14 ms for 10.0.0.1", SystemTime::now());
        assert_eq!(kinds.sight("took 900 ms for 10.0.0.77", SystemTime::now()), id);
        assert_eq!(kinds.sight("2026-11-25T10:00:00Z took 9 ms for 10.0.0.7", SystemTime::now()), id);
        assert_ne!(kinds.sight("2026-11-25T10:00:00Z ERROR took 9 ms for 10.0.0.7", SystemTime::now()), id);
        assert_ne!(kinds.sight("disk sda1 is full", SystemTime::now()), id);
        assert_eq!(kinds.count(SystemTime::now()), [3, 0, 0]);
        let long = format!("took {}", "é".repeat(1 << 20));
        assert_eq!(kinds.sight(&long, SystemTime::now()), kinds.sight(&format!("{long} and more"), SystemTime::now()));
    }

    #[test]
    fn scores_are_reused_once_they_are_known() {
        let kinds = kinds(0.2, 0.0, 100);
        let id = kinds.sight("took 14 ms", SystemTime::now());
        assert_eq!(decide(&kinds, id, 1), Use::Ask { wait: true });
        kinds.learn(id, &[0.9, 0.1], 0, SystemTime::now());
        let expected = Use::Reuse { scores: vec![0.9, 0.1], score: 0.9, check: false };
        assert_eq!(decide(&kinds, id, 2), expected);
        for score in [0.1, 0.9, 0.1] {
            kinds.learn(id, &[score, 1.0 - score], 0, SystemTime::now());
        }
        assert_eq!(decide(&kinds, id, 3), Use::Ask { wait: false }, "its members disagree");
        assert_eq!(kinds.count(SystemTime::now()), [0, 0, 1]);
    }

    #[test]
    fn a_text_that_comes_again_is_scored_in_the_end() {
        let kinds = kinds(0.2, 0.0, 100);
        let id = kinds.sight("took 14 ms", SystemTime::now());
        // Near enough to the threshold for some doubt.
        kinds.learn(id, &[0.55, 0.45], 0, SystemTime::now());
        let reused = (0..1000).take_while(|_| matches!(decide(&kinds, id, 1), Use::Reuse { .. })).count();
        assert!((1..20).contains(&reused), "{reused}");
        assert_eq!(decide(&kinds, id, 1), Use::Ask { wait: false }, "until its scores are known");
        assert!(matches!(decide(&kinds, id, 2), Use::Reuse { .. }), "another text owes nothing to it");
        // Far from it later, but nothing is certain.
        let sure = kinds.sight("disk sda1 is full", SystemTime::now());
        kinds.learn(sure, &[0.99, 0.01], 0, SystemTime::now());
        let reused = (0..1000).take_while(|_| matches!(decide(&kinds, sure, 3), Use::Reuse { .. })).count();
        assert!((79..=80).contains(&reused), "{reused}");
    }

    #[test]
    fn a_share_is_checked() {
        let kinds = kinds(0.2, 0.1, 100);
        let id = kinds.sight("took 14 ms", SystemTime::now());
        kinds.learn(id, &[0.99, 0.01], 0, SystemTime::now());
        let checks = (0..10_000).filter(|i| matches!(decide(&kinds, id, *i), Use::Reuse { check: true, .. })).count();
        assert!((800..1200).contains(&checks), "{checks}");
    }

    #[test]
    fn what_is_forgotten_is_forgotten_whole() {
        let kinds = kinds(0.2, 0.0, 8);
        for i in 0..200u32 {
            // Words without digits, all different.
            let word: String = i.to_string().bytes().map(|b| char::from(b'a' + b - b'0')).collect();
            let id = kinds.sight(&format!("{word} {word}x {word}y"), SystemTime::now());
            kinds.learn(id, &[0.9, 0.1], 0, SystemTime::now());
        }
        assert_eq!(kinds.book.lock().trusts().count(), 8);
        assert_eq!(kinds.count(SystemTime::now()), [0, 8, 0]);
        let gone = TemplateId(1);
        kinds.learn(gone, &[0.9, 0.1], 0, SystemTime::now());
        assert_eq!(decide(&kinds, gone, 1), Use::Ask { wait: true });
    }
}
