//! The HTTP front end: connections, routes, JSON. The only place that knows them.
//!
//! ```text
//! serve (accept loop, limits, graceful end) -> router (method, path) -> one file a route family -> Handle
//! ```
//!
//! It does not know devices or batches.

mod answer;
mod router;
mod serve;
mod v1;

pub use router::App;
pub use serve::serve;
