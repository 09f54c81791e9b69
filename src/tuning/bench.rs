//! One measurement: an engine in this process with a candidate's settings, and clients that each send their next line
//! when the last one is answered.

use std::{future::Future, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use super::{Candidate, Halt, Run, Sites};
use crate::{
    config::Config,
    engine::{Class, Engine, Fleet, Handle},
    error::{RequestError, StartError},
    metrics::Metrics,
    model::Model,
};

/// Share of a step that runs before it, not counted.
const WARM_UP: f64 = 0.2;

/// How long the devices may take to finish their last batch.
const ENDING: Duration = Duration::from_secs(60);

/// How the devices that a configuration names are made.
pub type MakeDevices<'a> = dyn Fn(&Config, &Model) -> Result<Fleet, StartError> + 'a;

/// What measures candidates.
pub struct Bench<'a> {
    /// The model that is run.
    pub model: &'a Model,
    /// Everything that is not tuned.
    pub config: &'a Config,
    /// The devices.
    pub sites: &'a Sites,
    /// What clients send, in turns; not empty.
    pub lines: &'a [String],
    /// How long one measurement counts.
    pub step: Duration,
    /// Makes devices.
    pub devices: &'a MakeDevices<'a>,
}

impl Bench<'_> {
    /// Time that one measurement takes, without starting the engine.
    pub fn step_time(&self) -> Duration {
        self.step.mul_f64(1.0 + WARM_UP)
    }

    /// Starts the candidate's engine and ends it; returns how long that took.
    ///
    /// # Errors
    /// [`StartError`] if it does not start.
    pub fn start_and_end(&self, candidate: &Candidate) -> Result<Duration, StartError> {
        let started = Instant::now();
        end(self.start(candidate)?)?;
        Ok(started.elapsed())
    }

    /// Measures `candidate` with `clients` clients. What does not answer in time gives [`Run::NONE`].
    ///
    /// # Errors
    /// [`Halt::Interrupted`] if `stop` was ready first; [`Halt::Failed`] if the engine does not start or end, or the
    /// model fails on a line.
    pub async fn measure(
        &self,
        candidate: &Candidate,
        clients: usize,
        stop: impl Future<Output = ()>,
    ) -> Result<Run, Halt> {
        let engine = self.start(candidate)?;
        let handle = engine.handle();
        let result = tokio::select! {
            () = stop => return Err(Halt::Interrupted),
            result = closed_loop(&handle, self.lines, clients, self.step) => result,
        };
        end(engine)?;
        match result {
            Ok(latencies) => Ok(summary(latencies, self.step)),
            Err(RequestError::DeadlineExceeded | RequestError::Overloaded { .. } | RequestError::TooLate { .. }) => {
                Ok(Run::NONE)
            }
            Err(error) => Err(Halt::Failed(StartError::Config(format!("measuring {candidate:?}: {error}")))),
        }
    }

    fn start(&self, candidate: &Candidate) -> Result<Engine, StartError> {
        let mut config = candidate.apply(self.config, self.sites.entries(candidate.instances));
        // The p99 target says what is too long; a refusal would hide it.
        config.batching.max_queue_wait_ms = config.batching.request_timeout_ms;
        let devices = (self.devices)(&config, self.model)?;
        let metrics = Metrics::new().map_err(|e| StartError::Config(e.to_string()))?;
        Engine::start(self.model, devices, &config.scoring, &config.batching, metrics)
    }
}

/// Waits for the devices, so that they do not run beside the next candidate's.
fn end(engine: Engine) -> Result<(), StartError> {
    match engine.shutdown(ENDING) {
        true => Ok(()),
        false => Err(StartError::Device { name: "of the last step".into(), reason: "it hangs in a model run".into() }),
    }
}

/// Latencies in ms of the calls that ended within `step`, after a warm-up.
async fn closed_loop(
    handle: &Handle,
    lines: &[String],
    clients: usize,
    step: Duration,
) -> Result<Vec<f64>, RequestError> {
    let task = handle.default_task();
    let from = Instant::now() + step.mul_f64(WARM_UP);
    let until = from + step;
    let call = async |line: &String| {
        let sent = Instant::now();
        handle.classify(line, task, Class::Interactive).await.map(|_| sent.elapsed())
    };
    let mut answers = std::pin::pin!(stream::iter(lines.iter().cycle()).map(call).buffer_unordered(clients));
    let mut latencies = Vec::new();
    while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
        let latency = answer?;
        let now = Instant::now();
        if now >= until {
            break;
        }
        if now >= from {
            latencies.push(latency.as_secs_f64() * 1e3);
        }
    }
    Ok(latencies)
}

fn summary(mut latencies: Vec<f64>, step: Duration) -> Run {
    latencies.sort_by(f64::total_cmp);
    let answers = latencies.len();
    // Nearest rank.
    let quantile = |q: f64| latencies.get(((answers as f64 * q).ceil() as usize).max(1) - 1).copied();
    match (quantile(0.5), quantile(0.99)) {
        (Some(p50_ms), Some(p99_ms)) => {
            Run { logs_per_s: answers as f64 / step.as_secs_f64(), p50_ms, p99_ms, answers }
        }
        _ => Run::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let run = summary((1..=200).rev().map(f64::from).collect(), Duration::from_secs(2));
        assert_eq!(run, Run { logs_per_s: 100.0, p50_ms: 100.0, p99_ms: 198.0, answers: 200 });
        assert_eq!(summary(vec![7.0], Duration::from_secs(1)).p99_ms, 7.0);
        assert_eq!(summary(Vec::new(), Duration::from_secs(1)), Run::NONE);
    }
}
