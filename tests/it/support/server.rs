//! An engine with fake devices, and the HTTP server before it, on a port of the system's choice.

use std::{net::SocketAddr, path::Path, sync::Arc, time::SystemTime};

use crossbeam_channel::{Sender, bounded};
use oddlog::{
    config::{CacheMode, Config},
    device::{DeviceMaker, FakeDevice},
    engine::{Engine, Fleet, Handle},
    http::{self, App, Doors},
    metrics::Metrics,
    model::{Model, ModelFiles, ModelSpec, PairTokenizer},
    novelty::Novelty,
    telemetry::Traces,
    verdicts::Verdicts,
};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, task::JoinHandle};

use super::{Answer, Connection, PATIENCE};

/// Token ids of the words "poison" and "panic", for devices that fail on them.
pub const POISON: u32 = 129;
/// See [`POISON`].
pub const PANIC: u32 = 130;

/// The tiny model: a word-piece tokenizer of some letters and words, without a graph.
pub fn tiny_model(max_length: usize) -> Model {
    // The fuzz targets, in a folder of the crate, use this file, too.
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let dir = crates.map(|dir| dir.join("tests/data/tiny")).find(|dir| dir.is_dir()).unwrap();
    let file = |name: &str| dir.join(name);
    let files = ModelFiles {
        onnx: file("model.onnx"),
        tokenizer: file("tokenizer.json"),
        config: file("config.json"),
        dir: dir.clone(),
    };
    let spec = ModelSpec::read(&files.config).unwrap();
    let tokenizer = Arc::new(PairTokenizer::read(&files.tokenizer, max_length).unwrap());
    Model { files, spec, tokenizer }
}

/// What a server is started with.
pub struct Setup {
    /// The configuration; `server.listen` does not count. Nothing is remembered, so that each log reaches a device.
    pub config: Config,
    /// The devices: by default one fake device that answers at once.
    pub devices: Vec<DeviceMaker>,
}

impl Default for Setup {
    fn default() -> Self {
        let mut config = Config::default();
        config.cache.mode = CacheMode::Off;
        Self { config, devices: vec![FakeDevice::new("fake:0", 2).maker()] }
    }
}

impl Setup {
    /// With one fake device that runs a batch for each token sent, and freely once the sender is gone. One token is
    /// there for the engine's warm-up. To be held at the gate is no hang.
    pub fn gated() -> (Self, Sender<()>) {
        let (gate, tokens) = bounded(64);
        gate.send(()).unwrap();
        let setup = Self::device(FakeDevice::new("fake:0", 2).gated(tokens));
        (setup.with(|c| c.devices.run_timeout_ms = 600_000), gate)
    }

    /// With this device alone.
    pub fn device(device: FakeDevice) -> Self {
        Self { devices: vec![device.maker()], ..Self::default() }
    }

    /// Changes the configuration.
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// An engine alone.
    pub fn engine(self) -> Engine {
        let model = tiny_model(self.config.model.max_length);
        let metrics = Metrics::new().unwrap();
        let fleet = Fleet { makers: self.devices, rules: self.config.devices };
        Engine::start(&model, fleet, &self.config.scoring, &self.config.batching, metrics).unwrap()
    }

    /// An engine and its server.
    pub fn serve(self) -> Running {
        let config = self.config.clone();
        let engine = self.engine();
        let handle = engine.handle();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let bind = |address: std::net::SocketAddr| runtime.block_on(TcpListener::bind(address)).unwrap();
        let private = config.server.private_address().unwrap().map(bind);
        let private_address = private.as_ref().map(|listener| listener.local_addr().unwrap());
        let traces = Traces::start(&config.telemetry, handle.metrics().clone()).unwrap().map(Arc::new);
        let novelty = || Novelty::open(&config.templates, handle.metrics().templates(), SystemTime::now()).unwrap();
        let novelty = config.learns_templates().then(|| Arc::new(novelty()));
        let verdicts = match &novelty {
            Some(novelty) => Verdicts::sharing(handle.clone(), &config.cache, novelty.book().clone(), "tiny"),
            None => Verdicts::new(handle.clone(), &config.cache),
        };
        let app = Arc::new(
            App::new(verdicts, config.server, "tiny".into())
                .unwrap()
                .with_log(config.log)
                .with_traces(traces.clone())
                .with_novelty(novelty),
        );
        let (stop, stopped) = oneshot::channel();
        let doors = Doors { public: listener, private, lent: false };
        let served = runtime.spawn(http::serve(doors, app.clone(), async {
            let _ = stopped.await;
        }));
        Running {
            address,
            private_address,
            app,
            handle,
            traces,
            engine: Some(engine),
            stop: Some(stop),
            served,
            runtime,
        }
    }
}

/// A running server. It ends when it is dropped.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where its second listener is, if there is one.
    pub private_address: Option<SocketAddr>,
    /// What its routes use.
    pub app: Arc<App>,
    /// Its engine's handle.
    pub handle: Handle,
    /// Where its traces begin, if a collector is configured.
    pub traces: Option<Arc<Traces>>,
    engine: Option<Engine>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<bool>,
    runtime: Runtime,
}

impl Running {
    /// A new connection.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// `GET path` on a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[], b"")
    }

    /// `POST path` with a JSON body on a connection of its own.
    pub fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.call("POST", path, &[("content-type", "application/json")], body.as_ref())
    }

    /// Any request on a connection of its own.
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut connection = self.connect();
        connection.send(method, path, headers, body);
        connection.answer()
    }

    /// The value of one sample of the metrics, by name and a label that it must have; 0 if there is none.
    pub fn sample(&self, name: &str, label: Option<(&str, &str)>) -> f64 {
        let text = self.handle.metrics().render();
        let scrape = prometheus_parse::Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        let found = scrape.samples.iter().filter(|sample| {
            sample.metric == name && label.is_none_or(|(key, value)| sample.labels.get(key) == Some(value))
        });
        found
            .map(|sample| match sample.value {
                prometheus_parse::Value::Counter(v) | prometheus_parse::Value::Gauge(v) => v,
                ref other => panic!("{name} is {other:?}"),
            })
            .fold(0.0, |sum, value| sum + value)
    }

    /// Ends the engine and leaves the HTTP server running.
    pub fn end_engine(&mut self) {
        assert!(self.engine.take().unwrap().shutdown(PATIENCE));
    }

    /// Begins the graceful end.
    pub fn begin_end(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits for the graceful end; whether no request had to be cut off.
    pub fn wait_end(&mut self) -> bool {
        self.runtime.block_on(&mut self.served).unwrap()
    }
}
