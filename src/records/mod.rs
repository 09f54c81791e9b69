//! Log files as records: bytes to lines, lines to records (a stack trace is one), a record to what the model reads.
//!
//! ```text
//! bytes -> decode (gzip, zstd) -> lines (bounded) -> group (stack traces) -> prefix (time, host, pid | message)
//! ```
//!
//! Pure but for the readers it is handed. It does not know files, models or verdicts.

mod decode;
mod group;
mod lines;
mod prefix;
mod text;
mod time;
mod trace;

pub use decode::{Encoding, decode};
pub use group::{Grouper, Limits, Record};
pub use lines::{Line, Lines};
pub use prefix::{Prefix, recognise};
pub use text::{log_text, model_text};
