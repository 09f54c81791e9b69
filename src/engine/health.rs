//! Whether anything can answer: devices that are up, and the last run that succeeded.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::Mutex, time::timeout_at};

use super::{
    Class, Handle,
    vitals::{DeviceState, Vitals},
};
use crate::{config::Devices, device::DeviceMaker};

/// What is scored to prove that scoring works.
const PROBE: &str = "INFO oddlog proves that it can score a log";

/// What all handles and devices share about their health.
pub(super) struct Health {
    up: AtomicUsize,
    /// Of each device, by its seat.
    pub vitals: Vec<Arc<Vitals>>,
    started: Instant,
    /// Microseconds from the start to the last success.
    last_success: AtomicU64,
    max_age: Duration,
    patience: Duration,
    /// The last probe's end and result. Whoever holds it probes.
    probe: Mutex<Option<(Instant, bool)>>,
}

impl Health {
    pub fn new(rules: &Devices, makers: &[DeviceMaker], now: Instant) -> Self {
        let vitals = makers.iter().map(|maker| Arc::new(Vitals::new(&maker.name, &maker.about, SystemTime::now())));
        Self {
            up: AtomicUsize::new(0),
            vitals: vitals.collect(),
            started: now,
            last_success: AtomicU64::new(0),
            max_age: Duration::from_millis(rules.ready_max_age_ms),
            patience: Duration::from_millis(rules.ready_timeout_ms),
            probe: Mutex::new(None),
        }
    }

    /// A device can answer from now on.
    pub fn came_up(&self) {
        self.up.fetch_add(1, Ordering::Relaxed);
    }

    /// A device cannot answer any more.
    pub fn went_down(&self) {
        self.up.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether any device can answer.
    pub fn any_up(&self) -> bool {
        self.up.load(Ordering::Relaxed) > 0
    }

    /// A run succeeded.
    pub fn succeeded(&self, now: Instant) {
        let micros = now.saturating_duration_since(self.started).as_micros();
        self.last_success.store(u64::try_from(micros).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn is_proved(&self, now: Instant) -> bool {
        let last = self.started + Duration::from_micros(self.last_success.load(Ordering::Relaxed));
        now.saturating_duration_since(last) <= self.max_age
    }
}

impl Handle {
    /// How each device is now, in the order of the configuration.
    pub fn devices(&self) -> Vec<DeviceState> {
        let now = Instant::now();
        self.shared.health.vitals.iter().map(|vitals| vitals.state(now)).collect()
    }

    /// Whether new requests would be taken: the engine is open and a device can answer.
    pub fn can_answer(&self) -> bool {
        self.is_open() && self.shared.health.any_up()
    }

    /// Whether logs are scored now: [`can_answer`](Self::can_answer), and a run succeeded not long ago. If none did, it
    /// scores a log and waits for it, with a bound. Callers at the same time share that one.
    pub async fn is_ready(&self) -> bool {
        let (health, asked) = (&self.shared.health, Instant::now());
        if !self.can_answer() {
            return false;
        }
        if health.is_proved(asked) {
            return true;
        }
        let until = asked + health.patience;
        let Ok(mut last) = timeout_at(until.into(), health.probe.lock()).await else { return false };
        if let Some((ended, result)) = *last
            && ended >= asked
        {
            return result;
        }
        let score = self.score(PROBE, self.default_task(), Class::Interactive, until);
        let result = matches!(timeout_at(until.into(), score).await, Ok(Ok(_))) && self.can_answer();
        *last = Some((Instant::now(), result));
        result
    }
}
