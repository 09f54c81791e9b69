//! Templates of messages: what stays when numbers, addresses, ids and the like are masked, mined line by line, and what is
//! known of each: how often it came, when, and what the verdicts on it were.
//!
//! ```text
//! message -> mask: "took <dur> for <ip>" -> miner: the template that it fits, made more general, or a new one
//!                                           book:  the template's record -> Sighting
//!                                           trust: whether its scores may be reused
//! ```
//!
//! Pure and bounded; time is an argument. It does not know requests, models or files.

mod atom;
mod book;
mod leaf;
mod lists;
mod mask;
mod miner;
mod object;
mod status;
mod template;
mod trust;

pub use book::{Book, BookSnapshot, Entry, Listing, Order, Page, SharedBook, Sighting, SortBy, Tally};
pub use mask::mask;
pub use miner::{Matched, Miner, Snapshot, mask_start};
pub use template::{Settings, Template, TemplateId, WILDCARD};
pub use trust::{Policy, State, Trust};
