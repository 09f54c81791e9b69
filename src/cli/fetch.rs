//! `oddlog fetch`: downloads a model and prints the folder it is in.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use super::download::{Reporter, fetch_best};
use crate::{
    error::StartError,
    model::hub::{Hub, HubError, Progress, RepoId, RepoIdError, Weights},
};

/// What is fetched when no repository is named.
const DEFAULT_REPO: &str = "MoritzLaurer/deberta-v3-base-zeroshot-v2.0";

/// Download a model from the hub, verify it, and print its folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  oddlog fetch
  oddlog fetch MoritzLaurer/deberta-v3-large-zeroshot-v2.0
  oddlog fetch owner/name@v1.2 --cache-dir /srv/models
  HF_TOKEN=hf_... oddlog fetch owner/gated-model
  HF_ENDPOINT=https://hub.example.org oddlog fetch owner/name
  oddlog serve --model \"$(oddlog fetch --offline)\"

Only the files that a model needs are fetched, into the cache that Python's huggingface_hub uses too. A download that
broke off goes on where it stopped. Files are compared with the hub's checksums before they are used.

Environment: HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT,
SSL_CERT_FILE, HTTPS_PROXY, NO_PROXY.")]
pub struct FetchArgs {
    /// Model repository: owner/name or owner/name@revision
    #[arg(value_name = "REPO[@REVISION]", default_value = DEFAULT_REPO)]
    repo: RepoId,
    /// Branch, tag or commit, as after the @
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Form of the weights
    #[arg(long, value_enum, default_value_t = Form::Auto)]
    weights: Form,
    /// Cache folder; without it $HF_HUB_CACHE, $HF_HOME/hub or ~/.cache/huggingface/hub
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Use the cache alone; fails if the model is not complete there
    #[arg(long)]
    offline: bool,
    /// Compare files that are in the cache already with their checksums, too
    #[arg(long)]
    verify: bool,
    /// Print nothing but the folder and errors
    #[arg(long, short)]
    quiet: bool,
}

/// The forms that the weights of a model come in.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Form {
    /// What serves best: tensors of a model that oddlog compiles, else an exported graph
    Auto,
    /// An exported graph: onnx/model.onnx or model.onnx
    Onnx,
    /// Tensors alone: model.safetensors
    Safetensors,
}

/// Fetches the model.
///
/// # Errors
/// [`StartError::Download`] says why the model cannot be had and what to do.
pub fn run(args: FetchArgs) -> Result<ExitCode, StartError> {
    let failed = |e: HubError| StartError::Download(e.to_string());
    let repo = at_revision(args.repo, args.revision.as_deref())?;
    let mut hub = Hub::from_env(args.cache_dir).map_err(failed)?;
    hub.offline |= args.offline;
    hub.verify = args.verify;

    let mut reporter = Reporter::new(args.quiet);
    let report = &mut |progress: Progress<'_>| reporter.report(&progress);
    let outcome = match args.weights {
        Form::Auto => fetch_best(&hub, &repo, report),
        Form::Onnx => hub.fetch(&repo, Weights::Onnx, report),
        Form::Safetensors => hub.fetch(&repo, Weights::Safetensors, report),
    };
    reporter.finish();
    let folder = outcome.map_err(failed)?;
    writeln!(io::stdout(), "{}", folder.display())
        .map_err(|source| StartError::Io { what: "printing the folder".into(), source })?;
    Ok(ExitCode::SUCCESS)
}

fn at_revision(repo: RepoId, revision: Option<&str>) -> Result<RepoId, StartError> {
    let Some(revision) = revision else { return Ok(repo) };
    if repo.to_string().contains('@') && repo.revision() != revision {
        return Err(StartError::Download(format!("{repo} and --revision {revision} name different revisions")));
    }
    repo.with_revision(revision).map_err(|e: RepoIdError| StartError::Download(e.to_string()))
}
