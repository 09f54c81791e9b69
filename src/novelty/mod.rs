//! What is new among logs: the book of templates, shared by all requests, and its snapshots on disk.
//!
//! ```text
//! log -> prefix off -> mask -> [ SharedBook ] -> Sighting
//!                                   `--- copied in a moment -> Keeper (every interval, at the end) -> file
//! ```
//!
//! The log's prefix is left out as in a scan, so ids are the same as those of `oddlog scan --by-template`. Masking is done
//! before the lock. A snapshot shares the texts of the book, so that the lock is held for the copy of some numbers only;
//! coding and writing are done without it, on a thread for work that blocks.
//!
//! It does not know HTTP, models or labels.

mod file;
mod keeper;

use std::{future::pending, sync::Arc, time::SystemTime};

use self::keeper::Keeper;
use crate::{
    config::Templates,
    error::StartError,
    metrics::TemplateMetrics,
    records::log_text,
    templates::{Book, Listing, Page, Settings, SharedBook, Sighting, TemplateId, mask_start},
};

/// Bytes that are there for a text from the start.
const ROOM: usize = 1 << 10;

/// See the module.
pub struct Novelty {
    book: SharedBook,
    /// `None` if nothing is to outlive the process.
    keeper: Option<Keeper>,
    metrics: TemplateMetrics,
}

impl Novelty {
    /// What an earlier process left in the configured folder, or an empty book. A snapshot that cannot be used is set aside
    /// with a warning.
    ///
    /// # Errors
    /// [`StartError::Io`] if the folder cannot be written, or its snapshot not read.
    pub fn open(config: &Templates, metrics: TemplateMetrics, now: SystemTime) -> Result<Self, StartError> {
        let settings =
            Settings { max_templates: config.max_templates, max_bytes: config.max_bytes, ..Settings::default() };
        let (mut book, mut keeper) = (None, None);
        if !config.snapshot_dir.is_empty() {
            let kept = Keeper::open(config, now)?;
            book = kept.load(settings, now)?;
            keeper = Some(kept);
        }
        let book = SharedBook::new(book.unwrap_or_else(|| Book::new(settings, unix_ms(now))));
        Ok(Self { book, keeper, metrics })
    }

    /// The book, for whoever knows more of its templates.
    pub fn book(&self) -> &SharedBook {
        &self.book
    }

    /// Learns from a log.
    pub fn observe(&self, log: &str, now: SystemTime) -> Sighting {
        // Not as an argument: the lock would be held meanwhile.
        let masked = masked(log);
        let sighting = self.book.lock().observe(&masked, unix_ms(now));
        if sighting.first_seen {
            self.metrics.first_seen.increment(1);
        }
        sighting
    }

    /// Notes the verdict on a log of the template. `score` is that of the anomaly label.
    pub fn note_verdict(&self, id: TemplateId, is_anomaly: bool, score: f32) {
        self.book.lock().note_verdict(id, is_anomaly, score);
    }

    /// Some of the templates.
    pub fn page(&self, listing: Listing, now: SystemTime) -> Page {
        listing.page(|| self.book.lock(), unix_ms(now))
    }

    /// Brings the gauges up to date, to be called before they are read.
    pub fn gauge(&self, now: SystemTime) {
        let (templates, bytes, forgotten) = {
            let book = self.book.lock();
            (book.len(), book.bytes(), book.forgotten())
        };
        self.metrics.templates.set(templates as f64);
        self.metrics.bytes.set(bytes as f64);
        self.metrics.forgotten.absolute(forgotten);
        if let Some(keeper) = &self.keeper {
            self.metrics.snapshot_age.set(keeper.age(now).as_secs_f64());
        }
    }

    /// Keeps a snapshot now, unless nothing has changed since the last one. What fails is counted and said in the log.
    pub fn save(&self, now: SystemTime) {
        let Some(keeper) = &self.keeper else { return };
        let copy = |changes| {
            let book = self.book.lock();
            (book.changes() != changes).then(|| (book.changes(), book.snapshot()))
        };
        match keeper.save(copy, now) {
            Ok(true) => self.metrics.written.increment(1),
            Ok(false) => {}
            Err(error) => {
                self.metrics.failed.increment(1);
                tracing::warn!(%error, file = %keeper.file().display(), "a snapshot of templates cannot be written");
            }
        }
    }

    /// Keeps snapshots for as long as it is polled.
    pub async fn keep(self: Arc<Self>) {
        let Some(keeper) = &self.keeper else { return pending().await };
        loop {
            tokio::time::sleep(keeper.interval()).await;
            let this = self.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || this.save(SystemTime::now())).await {
                tracing::error!(%error, "a snapshot of templates broke off");
            }
        }
    }
}

/// What counts of a log, masked: the way to its template.
pub fn masked(log: &str) -> String {
    // Most logs fit, and masks are shorter than what they stand for.
    let [mut text, mut masked] = [(); 2].map(|()| String::with_capacity(log.len().min(ROOM)));
    log_text(log, &mut text);
    mask_start(&text, &mut masked);
    masked
}

/// Milliseconds since the Unix epoch; 0 for a clock before 1970.
pub fn unix_ms(now: SystemTime) -> u64 {
    now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests;
