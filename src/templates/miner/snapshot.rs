//! What is kept of a miner, and how one goes on from it, also from what earlier versions kept.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::Miner;
use crate::templates::{
    leaf, lists,
    template::{Settings, Template},
};

/// Which version of masks and leaves a snapshot was made with. Change it when either changes.
pub(super) const VERSION: u32 = 5;
/// Addresses of objects were masked digit run by digit run, their letters kept. Such words differ from today's and become
/// wildcards when the next message joins, for both lead to the same leaf.
const WITH_ADDRESSES: u32 = 4;
/// Status codes were numbers like others.
const WITHOUT_STATUS: u32 = 3;
/// All quoted texts were masked, also the keys of objects.
const WITHOUT_KEYS: u32 = 2;
/// Lists were not masked yet.
const WITH_LISTS: u32 = 1;

/// All that a miner knows, to be kept and restored. Making one copies no text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub(super) version: u32,
    pub(super) seen: u64,
    pub(super) templates: Vec<Template>,
}

impl Miner {
    /// All that is known, in no order.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { version: VERSION, seen: self.seen, templates: self.templates().cloned().collect() }
    }

    /// A miner that goes on where `snapshot` was taken; of too many templates those with most members are kept. Templates
    /// of an earlier version are renewed, and those are left out that no message could join any more.
    ///
    /// # Errors
    /// If it was made by a version that is not known, or holds what no miner writes.
    pub fn restore(settings: Settings, snapshot: Snapshot) -> Result<Self, String> {
        let mut templates = snapshot.templates;
        match snapshot.version {
            VERSION | WITH_ADDRESSES | WITHOUT_STATUS => {}
            WITHOUT_KEYS | WITH_LISTS => {
                templates.retain(|template| !lists::has_masked_keys(&template.text));
                if snapshot.version == WITH_LISTS {
                    templates.iter_mut().for_each(|template| template.text = lists::renewed(&template.text).into());
                }
            }
            other => return Err(format!("templates of version {other} cannot be used by version {VERSION}")),
        }
        let mut miner = Self { seen: snapshot.seen, ..Self::new(settings) };
        templates.sort_by_key(|t| (Reverse(t.count), t.id));
        let mut leaf = String::new();
        for template in templates {
            let words: Vec<&str> = template.text.split(' ').collect();
            if words.len() > settings.max_words + 1 || template.count == 0 || template.last > snapshot.seen {
                return Err(format!("template {} is broken", template.id));
            }
            if miner.by_id.contains_key(&template.id) {
                return Err(format!("template {} is there twice", template.id));
            }
            leaf::write(&words, settings.depth, &mut leaf);
            let crowded = miner.leaves.get(&*leaf).is_some_and(|slots| slots.len() >= settings.max_on_leaf);
            if miner.has_room(template.bytes()) && !crowded {
                miner.insert(template, &leaf);
            }
        }
        Ok(miner)
    }
}
