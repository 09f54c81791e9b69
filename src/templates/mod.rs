//! Templates of messages: what stays when numbers, addresses, ids and the like are masked, mined line by line.
//!
//! ```text
//! message -> mask: "took <dur> for <ip>" -> miner: the template that it fits, made more general, or a new one
//! ```
//!
//! Pure and bounded. It does not know verdicts, requests or time: who needs them keeps them beside a template's id.

mod atom;
mod mask;
mod miner;

pub use mask::mask;
pub use miner::{Matched, Miner, Settings, Snapshot, Template, TemplateId, WILDCARD};
