//! The handles of what is counted of templates. It does not know who counts.

use metrics::{Counter, Gauge};

/// What the memory of templates counts.
pub struct TrustMetrics {
    /// Logs answered with the scores of their template.
    pub answers: Counter,
    /// Templates that are learning, trusted and volatile.
    pub states: [Gauge; 3],
    /// Share of the checks that were made with another verdict.
    pub disagreement: Gauge,
    /// Checks with the same verdict.
    pub check_agreed: Counter,
    /// Checks with another verdict.
    pub check_disagreed: Counter,
    /// Checks for which there was no room.
    pub check_dropped: Counter,
    /// Checks that the engine did not answer.
    pub check_failed: Counter,
}

/// What the book of templates counts.
pub struct TemplateMetrics {
    /// Templates that are known.
    pub templates: Gauge,
    /// Bytes that they take, about.
    pub bytes: Gauge,
    /// Logs of a template that was not known.
    pub first_seen: Counter,
    /// Templates forgotten for others.
    pub forgotten: Counter,
    /// Snapshots that are on disk.
    pub written: Counter,
    /// Snapshots that could not be written.
    pub failed: Counter,
    /// Seconds since everything was on disk.
    pub snapshot_age: Gauge,
}
