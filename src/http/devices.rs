//! `GET /api/v1/devices`: what runs the model, and how each of it is.

use std::time::SystemTime;

use hyper::{Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answer::{Body, json_answer},
    app::App,
    templates::rfc3339,
};
use crate::engine::DeviceState;

/// All devices.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "devices": [{
        "name": "cpu:0", "about": "CPU, 1 thread(s)", "state": "up", "since": "2026-11-25T09:30:00.000Z",
        "last_fault": {
            "kind": "terminated", "at": "2026-11-25T09:41:07.250Z",
            "text": "A model run took too long and was ended. Its logs got 503; see devices.run_timeout_ms."
        },
        "seconds_since_run": 0.41, "runs": 1208, "tokens": 96640, "token_budget": 512,
        "cost": { "run_ms": 0.21, "kilotoken_ms": 20.4, "megapair_ms": 9.8 }
    }],
    "auto_takes": "the CPU, because the driver shows no GPU"
}))]
pub struct DeviceList<'a> {
    /// One for each worker, in the order of the configuration.
    devices: Vec<DeviceEntry>,
    /// Why `auto` took these; `null` if `devices.devices` does not say `auto`.
    #[schema(value_type = Option<String>)]
    auto_takes: Option<&'a str>,
}

/// One device.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceEntry {
    /// Its name in logs and metrics.
    name: String,
    /// What it runs on.
    about: String,
    /// `up` if it can answer, else `down`.
    #[schema(value_type = String)]
    state: &'static str,
    /// Since when it has been up or down, in UTC.
    since: String,
    /// The last thing that went wrong: while the device is down, what took it down. `null` if nothing has.
    last_fault: Option<DeviceFault>,
    /// Seconds since it last scored logs; `null` if it never has.
    seconds_since_run: Option<f64>,
    /// Model runs that scored logs.
    runs: u64,
    /// Tokens of these, padded ones where the graph pads.
    tokens: u64,
    /// Tokens that it takes at once at present; fewer for a while after it was out of memory.
    token_budget: usize,
    /// What a run costs as far as is known; `null` until some were seen.
    cost: Option<DeviceCost>,
}

/// What went wrong with a device.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceFault {
    /// `failed`, `out_of_memory`, `terminated`, `panicked`, `broken`, `hung`, `not_made` or `given_up`.
    #[schema(value_type = String)]
    kind: &'static str,
    /// When, in UTC.
    at: String,
    /// What happened and what follows.
    #[schema(value_type = String)]
    text: &'static str,
}

/// The learned cost of runs: the sum of the three.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceCost {
    /// Ms of any run.
    run_ms: f64,
    /// Ms of each thousand tokens.
    kilotoken_ms: f64,
    /// Ms of each million of tokens x length of their row.
    megapair_ms: f64,
}

impl DeviceEntry {
    fn of(state: DeviceState) -> Self {
        let cost = state.cost.map(|cost| DeviceCost {
            run_ms: round(1e3 * cost.fixed),
            kilotoken_ms: round(1e6 * cost.per_token),
            megapair_ms: round(1e9 * cost.per_pair),
        });
        Self {
            name: state.name,
            about: state.about,
            state: if state.is_up { "up" } else { "down" },
            since: utc(state.since),
            last_fault: state.last_fault.map(|(fault, at)| DeviceFault {
                kind: fault.name(),
                at: utc(at),
                text: fault.text(),
            }),
            seconds_since_run: state.last_run.map(|ago| round(ago.as_secs_f64())),
            runs: state.runs,
            tokens: state.tokens,
            token_budget: state.token_budget,
            cost,
        }
    }
}

/// To three digits behind the point.
fn round(value: f64) -> f64 {
    (1e3 * value).round() / 1e3
}

fn utc(at: SystemTime) -> String {
    let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339(u64::try_from(since_epoch.as_millis()).unwrap_or_default())
}

/// What runs the model
///
/// Each device with what it is, whether it can answer and since when, its last fault, what it did and what its runs cost. As
/// `/metrics` it asks for no key, and with a private listener it is only there.
#[utoipa::path(
    get, path = "/api/v1/devices", tag = "operations", operation_id = "devices",
    responses((status = 200, description = "All devices", body = DeviceList<'static>))
)]
pub fn devices(app: &App) -> Response<Body> {
    let entries = app.handle.devices().into_iter().map(DeviceEntry::of);
    let list = DeviceList { devices: entries.collect(), auto_takes: app.auto_takes.as_deref() };
    json_answer(StatusCode::OK, &list)
}
