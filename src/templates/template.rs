//! A template, its name, and how templates are made.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::leaf;

/// Stands for a word at which members differ.
pub const WILDCARD: &str = "<*>";

/// Bytes that a template takes beside its text, about: its slot, its entries in the maps, and what is kept beside its id.
const TEMPLATE_BYTES: usize = 512;

/// Names a template for good: the first eight bytes of the SHA-256 of its first member, masked. A template keeps its id
/// while it becomes more general, in every process and after it was forgotten and came back with the same first member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TemplateId(pub u64);

impl TemplateId {
    /// The name of the template whose first member this is, masked.
    pub(super) fn of(masked: &str) -> Self {
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
    /// Words at the beginning that members must share, unless these vary; at the beginning of each value of an object, too.
    pub depth: usize,
    /// 0 to 1: least share of equal words with which a message joins a template; in each value of an object, too.
    pub similarity: f32,
    /// Most templates that are kept.
    pub max_templates: usize,
    /// Most bytes that they take, about, with what is kept beside them.
    pub max_bytes: usize,
    /// Most templates of a leaf.
    pub max_on_leaf: usize,
    /// Most words of a message that are looked at; the rest is one wildcard.
    pub max_words: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let (max_templates, max_bytes) = (20_000, 32 << 20);
        Self { depth: 2, similarity: 0.5, max_templates, max_bytes, max_on_leaf: 128, max_words: 128 }
    }
}

/// What messages of one kind have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Its name.
    pub id: TemplateId,
    /// Its words with blanks between them, [`WILDCARD`] where members differ.
    pub text: Arc<str>,
    /// How many messages it has taken.
    pub count: u64,
    /// The miner's count of messages when it took the last one.
    pub last: u64,
}

impl Template {
    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        // The leaf has all words that it keeps.
        let leaf = if self.text.split(' ').any(leaf::keeps) { self.text.len() } else { 0 };
        TEMPLATE_BYTES + self.text.len() + leaf
    }
}
