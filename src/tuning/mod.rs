//! Which settings serve the most logs a second on this machine within a latency target, by measuring.
//!
//! ```text
//! lines -> Bench::measure(Candidate, clients) -> Run -> search(Plan) -> Outcome: trials, a winner or none
//!            (an engine in this process)                 (pure)
//! ```
//!
//! It does not know HTTP, the terminal, or how a file is written.

mod bench;
mod candidate;
mod lines;
mod search;
mod sites;
mod trial;

pub use bench::Bench;
pub use candidate::{Candidate, Grid};
pub use lines::{built_in_lines, read_lines};
pub use search::{Effort, Outcome, Plan, Verdict, search};
pub use sites::Sites;
pub use trial::{Gain, Halt, Run, Trial};
