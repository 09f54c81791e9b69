//! What is told of devices.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::Metrics;

/// What one device records.
pub struct DeviceMetrics {
    /// Time of each run; the rate of its sum is the device's utilisation.
    pub run_time: Histogram,
    /// 1 while it can answer.
    pub up: Gauge,
    /// Padded tokens that it takes at once at present.
    pub token_budget: Gauge,
    /// Padded tokens that it ran.
    pub tokens: Counter,
    /// What it has learned a run costs in seconds: fixed, a thousand tokens, a million tokens x length.
    pub cost: [Gauge; 3],
    /// Times that it left what waits to a faster device.
    pub left: Counter,
    /// Times that it was out of memory.
    pub budget_shrinks: Counter,
    /// Batches that failed and were halved.
    pub halved: Counter,
    /// Runs that took too long and were told to end.
    pub terminated: Counter,
    /// Threads that did not even then come back.
    pub abandoned: Counter,
}

impl Metrics {
    /// The metrics of one device.
    pub fn device(&self, device: &str) -> DeviceMetrics {
        let name = || device.to_owned();
        metrics::with_local_recorder(&self.recorder, || DeviceMetrics {
            run_time: histogram!("oddlog_device_run_duration_seconds", "device" => name()),
            up: gauge!("oddlog_device_up", "device" => name()),
            token_budget: gauge!("oddlog_device_token_budget", "device" => name()),
            tokens: counter!("oddlog_device_tokens_total", "device" => name()),
            cost: ["run", "kilotoken", "megapair"]
                .map(|of| gauge!("oddlog_device_cost_seconds", "device" => name(), "of" => of)),
            left: counter!("oddlog_device_left_to_faster_total", "device" => name()),
            budget_shrinks: counter!("oddlog_device_budget_shrinks_total", "device" => name()),
            halved: counter!("oddlog_device_halved_batches_total", "device" => name()),
            terminated: counter!("oddlog_device_terminated_runs_total", "device" => name()),
            abandoned: counter!("oddlog_device_abandoned_threads_total", "device" => name()),
        })
    }

    /// Tells what a device runs on.
    pub fn device_runs_on(&self, device: &str, about: &str) {
        let (device, about) = (device.to_owned(), about.to_owned());
        metrics::with_local_recorder(&self.recorder, || {
            gauge!("oddlog_device_info", "device" => device, "about" => about).set(1.0);
        });
    }

    /// Counts a device that was made anew after a `panic` or a `hang`, or because it was `broken`, or could not be.
    pub fn rebuilt(&self, device: &str, reason: &'static str, made: bool) {
        let result = if made { "made" } else { "failed" };
        metrics::with_local_recorder(&self.recorder, || {
            let device = device.to_owned();
            counter!("oddlog_device_rebuilds_total", "device" => device, "reason" => reason, "result" => result)
                .increment(1);
        });
    }
}
