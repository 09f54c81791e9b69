//! ONNX Runtime's library: where it is, and loading it, once in a process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use ort::{environment::Environment, logging::LogLevel};

use crate::error::StartError;

/// The variable that keeps ONNX Runtime's official builds from sending telemetry. They read it while they load.
pub const TELEMETRY_VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

static RUNTIME: OnceLock<(Environment, PathBuf)> = OnceLock::new();
/// Of two environments that are made at once the library keeps the logger of one, which may be the one that is dropped.
static LOADING: Mutex<()> = Mutex::new(());

/// ONNX Runtime, loaded. There is one in a process.
#[derive(Clone, Copy)]
pub struct Runtime {
    pub(super) environment: &'static Environment,
    library: &'static Path,
}

impl Runtime {
    /// Loads the shared library `path`; a second call returns the first one's runtime.
    ///
    /// # Errors
    /// [`StartError::Runtime`] if the library is missing, no ONNX Runtime, or too old; or if telemetry is not
    /// disabled by [`TELEMETRY_VARIABLE`] (it starts while the library loads, so it is too late afterwards).
    pub fn load(path: &Path) -> Result<Self, StartError> {
        let _alone = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((environment, library)) = RUNTIME.get() {
            return Ok(Self { environment, library });
        }
        let fail = |reason: String| StartError::Runtime(reason);
        if std::env::var_os(TELEMETRY_VARIABLE).is_none_or(|v| v != "1") {
            return Err(fail(format!("{TELEMETRY_VARIABLE}=1 must be set before the library loads")));
        }
        if !path.is_file() {
            return Err(fail(format!(
                "there is no library {}. Run `make onnxruntime` (for GPUs `make cuda`), or set ORT_DYLIB_PATH to libonnxruntime.so",
                path.display()
            )));
        }
        let builder = ort::init_from(path).map_err(|e| {
            fail(format!(
                "{} cannot be loaded ({e}: {e:?}). It must be ONNX Runtime 1.{} or newer for this machine; run \
                 `make onnxruntime` to get the right one",
                path.display(),
                ort::MINOR_VERSION
            ))
        })?;
        let builder = builder.with_name("oddlog").with_telemetry(false).with_logger(Arc::new(log));
        let environment = builder.build().map_err(|e| fail(e.to_string()))?;
        environment.set_log_level(LogLevel::Warning);
        let (environment, library) = RUNTIME.get_or_init(|| (environment, path.to_owned()));
        Ok(Self { environment, library })
    }

    /// Which build of the library it is, as the library tells.
    pub fn build(self) -> &'static str {
        ort::info()
    }

    /// The library's file.
    pub fn library(self) -> &'static Path {
        self.library
    }

    /// Where the library is: `configured` if not empty, else `ORT_DYLIB_PATH`, else `.ort/` beside the working
    /// directory, the executable, or the source tree.
    pub fn find(configured: &str) -> PathBuf {
        const NAME: &str = "libonnxruntime.so";
        if !configured.is_empty() {
            return configured.into();
        }
        if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
            return path.into();
        }
        let beside_program = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
        let candidates =
            [Some(PathBuf::from(".ort")), beside_program.clone(), beside_program.map(|dir| dir.join("../../.ort"))];
        let mut paths = candidates.into_iter().flatten().map(|dir| dir.join(NAME));
        paths.find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(".ort").join(NAME))
    }
}

/// What the library says goes where oddlog's own log goes. Its errors come back from the call that made them, too, and
/// whoever called tells them in context.
fn log(level: LogLevel, _: &str, _: &str, place: &str, message: &str) {
    let message = message.trim_end();
    match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", place, "{message}"),
        _ => tracing::debug!(target: "onnxruntime", place, "{message}"),
    }
}
