//! How good verdicts are on lines whose truth is known: a labelled data set in, figures and a page out. Pure but for
//! reading the file.
//!
//! ```text
//! file -> tables: named columns -> dataset: (text, anomalous?, group) -> [scores, from whoever scores]
//!      -> metrics: figures at a threshold -> page: one HTML page with its pictures inside
//! ```
//!
//! It does not know models, and takes scores as numbers from 0 to 1, so that a regular expression can stand beside a model.

mod baselines;
mod comparison;
mod curve;
mod dataset;
mod effect;
mod metrics;
mod page;
mod svg;
mod tables;

pub use baselines::{level_score, pattern_score};
pub use curve::Curve;
pub use dataset::{Dataset, Example, Names};
pub use effect::{Changed, Comparison, Effect, MOST_CHANGED, Remembered};
pub use metrics::{Confusion, Summary, summarise};
pub use page::{Page, Subject, html};
