//! Downloads from a fake hub: the cache they leave, and every fault they must survive or explain.

#[path = "support/fake_hub.rs"]
mod fake_hub;
#[path = "support/hub_commands.rs"]
mod hub_commands;
#[path = "support/hub_faults.rs"]
mod hub_faults;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use oddlog::model::hub::{Hub, HubError, Limits, Progress, RepoId, Token, Weights};
use tempfile::TempDir;

use fake_hub::{COMMIT, FakeHub, Fault, REPO, git_sha1_of, sha256_of};

const CONFIG: &[u8] = b"{\"model_type\": \"deberta-v2\"}\n";
const TOKENIZER: &[u8] = b"{\"version\": \"1.0\"}\n";
const NEXT_COMMIT: &str = "2222222222222222222222222222222222222222";

/// Three million bytes that do not repeat.
fn weights() -> Vec<u8> {
    (0..750_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// A fake hub with a small model, and an empty cache.
struct Scene {
    hub: FakeHub,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self::with(&[
            ("README.md", b"# a model".as_slice()),
            ("config.json", CONFIG),
            ("tokenizer.json", TOKENIZER),
            ("added_tokens.json", b"{}"),
            ("onnx/model.onnx", &weights()),
            ("onnx/model.onnx_data", b"external"),
        ])
    }

    fn with(files: &[(&str, &[u8])]) -> Self {
        Self { hub: FakeHub::start(files), folder: tempfile::tempdir().unwrap() }
    }

    /// A client that waits next to nothing between attempts.
    fn client(&self) -> Hub {
        let mut client = Hub::new(&self.hub.endpoint(), self.folder.path().to_owned()).unwrap();
        client.limits = Limits {
            attempts: 3,
            first_backoff: Duration::from_millis(1),
            max_retry_after: Duration::from_millis(30),
            ..Limits::default()
        };
        client
    }

    fn repo_dir(&self) -> PathBuf {
        self.folder.path().join("models--owner--name")
    }

    fn partial(&self) -> PathBuf {
        self.repo_dir().join(format!("blobs/{}.incomplete", sha256_of(&weights())))
    }

    /// The names in `blobs`.
    fn blobs(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.repo_dir().join("blobs")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The model is in the cache as the hub has it, and nothing is left over.
    fn assert_complete(&self, dir: &Path) {
        assert_eq!(dir, self.repo_dir().join("snapshots").join(COMMIT));
        assert_eq!(fs::read(dir.join("config.json")).unwrap(), CONFIG);
        assert_eq!(fs::read(dir.join("tokenizer.json")).unwrap(), TOKENIZER);
        assert_eq!(fs::read(dir.join("onnx/model.onnx_data")).unwrap(), b"external");
        assert!(fs::read(dir.join("onnx/model.onnx")).unwrap() == weights());
        assert_eq!(fs::read_to_string(self.repo_dir().join("refs/main")).unwrap(), COMMIT);
        assert!(self.blobs().iter().all(|name| !name.contains('.')), "{:?}", self.blobs());
    }

    /// There is no model to be found in the cache.
    fn assert_nothing_usable(&self) {
        assert!(!self.repo_dir().join("snapshots").exists());
        assert!(!self.repo_dir().join("refs").exists());
        assert_eq!(self.client().cached(&repo(), Weights::Onnx), None);
    }
}

fn repo() -> RepoId {
    REPO.parse().unwrap()
}

fn fetch(client: &Hub) -> Result<PathBuf, HubError> {
    client.fetch(&repo(), Weights::Onnx, &mut |_| {})
}

/// Fetches, and writes down the reports that are not about bytes.
fn fetch_telling(client: &Hub) -> (Result<PathBuf, HubError>, Vec<String>) {
    let mut told = Vec::new();
    let result = client.fetch(&repo(), Weights::Onnx, &mut |progress| match progress {
        Progress::Bytes { .. } | Progress::Verifying { .. } => {}
        other => told.push(format!("{other:?}")),
    });
    (result, told)
}

#[test]
fn the_cache_is_laid_out_as_the_python_library_reads_it() {
    let scene = Scene::new();
    let dir = fetch(&scene.client()).unwrap();
    scene.assert_complete(&dir);

    let link = |name: &str| fs::read_link(dir.join(name)).unwrap().to_str().unwrap().to_owned();
    assert_eq!(link("config.json"), format!("../../blobs/{}", git_sha1_of(CONFIG)));
    assert_eq!(link("onnx/model.onnx"), format!("../../../blobs/{}", sha256_of(&weights())));
    assert!(!dir.join("README.md").exists(), "not needed, so not fetched");
    let lock = format!(".locks/models--owner--name/{}.lock", sha256_of(&weights()));
    assert!(scene.folder.path().join(lock).exists());
}

#[test]
fn progress_ends_at_the_total() {
    let scene = Scene::new();
    let mut reports = Vec::new();
    scene
        .client()
        .fetch(&repo(), Weights::Onnx, &mut |progress| {
            if let Progress::Bytes { done, total, .. } = progress {
                reports.push((done, total));
            }
        })
        .unwrap();
    let total = (CONFIG.len() + TOKENIZER.len() + 2 + weights().len() + 8) as u64;
    assert!(reports.iter().all(|&(done, of)| of == total && done <= total));
    assert!(reports.is_sorted());
    assert_eq!(reports.last(), Some(&(total, total)));
}

#[test]
fn what_is_in_place_is_not_fetched_again() {
    let scene = Scene::new();
    let client = scene.client();
    fetch(&client).unwrap();
    let bodies = || scene.hub.asked("GET", "/resolve/").len();
    let before = bodies();
    scene.assert_complete(&fetch(&client).unwrap());
    assert_eq!(bodies(), before);
    assert_eq!(client.cached(&repo(), Weights::Onnx), Some(scene.repo_dir().join("snapshots").join(COMMIT)));
    assert_eq!(client.cached(&repo(), Weights::Safetensors), None);
}

#[test]
fn a_new_commit_brings_what_changed_and_keeps_the_old_snapshot() {
    let scene = Scene::new();
    let old = fetch(&scene.client()).unwrap();
    scene.hub.push(NEXT_COMMIT, "config.json", b"{}");
    let new = fetch(&scene.client()).unwrap();
    assert!(new.ends_with(NEXT_COMMIT));
    assert_eq!(fs::read(new.join("config.json")).unwrap(), b"{}");
    assert_eq!(fs::read(old.join("config.json")).unwrap(), CONFIG);
    assert_eq!(fs::read_to_string(scene.repo_dir().join("refs/main")).unwrap(), NEXT_COMMIT);
    assert_eq!(scene.hub.asked("GET", "/storage/").len(), 2, "the weights and their data, once each");
}

#[test]
fn a_commit_hash_is_asked_for_once_and_needs_no_ref() {
    let scene = Scene::new();
    let pinned = repo().with_revision(COMMIT).unwrap();
    let fetch = || scene.client().fetch(&pinned, Weights::Onnx, &mut |_| {}).unwrap();
    let dir = fetch();
    assert!(dir.join("onnx/model.onnx").is_file());
    assert!(!scene.repo_dir().join("refs").exists());
    let before = scene.hub.seen().len();
    assert_eq!(fetch(), dir);
    assert_eq!(scene.hub.seen().len(), before);
}

#[test]
fn safetensors_are_taken_when_asked_for() {
    let files = [("config.json", CONFIG), ("tokenizer.json", TOKENIZER), ("model.safetensors", b"tensors")];
    let scene = Scene::with(&files);
    let dir = scene.client().fetch(&repo(), Weights::Safetensors, &mut |_| {}).unwrap();
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), b"tensors");
    let error = fetch(&scene.client()).unwrap_err().to_string();
    assert!(error.contains("has no onnx/model.onnx or model.onnx; it has: config.json, model.safetensors"), "{error}");
}

#[test]
fn the_token_reaches_the_hub_and_never_the_storage() {
    let scene = Scene::new();
    let mut client = scene.client();
    client.token = Token::new("hf_secret");
    fetch(&client).unwrap();
    let (hub, storage): (Vec<_>, Vec<_>) = scene.hub.seen().into_iter().partition(|seen| seen.host == "127.0.0.1");
    assert!(hub.len() > 5 && hub.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer hf_secret")));
    assert!(storage.len() == 2 && storage.iter().all(|seen| seen.host == "localhost" && seen.authorization.is_none()));
}

#[test]
fn offline_uses_the_cache_or_says_that_it_is_not_there() {
    let scene = Scene::new();
    let mut offline = scene.client();
    offline.offline = true;
    let error = fetch(&offline).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert!(scene.hub.seen().is_empty());

    let dir = fetch(&scene.client()).unwrap();
    let before = scene.hub.seen().len();
    assert_eq!(fetch(&offline).unwrap(), dir);
    assert_eq!(scene.hub.seen().len(), before);
}

#[test]
fn a_hub_out_of_reach_leaves_the_cache_to_use() {
    let Scene { hub, folder } = Scene::new();
    let mut client = Hub::new(&hub.endpoint(), folder.path().to_owned()).unwrap();
    client.limits = Limits { attempts: 2, first_backoff: Duration::from_millis(1), ..Limits::default() };
    let dir = fetch(&client).unwrap();
    drop(hub);

    let (result, told) = fetch_telling(&client);
    assert_eq!(result.unwrap(), dir);
    assert!(told.len() == 1 && told[0].starts_with("CacheUsed"), "{told:?}");

    client.cache_dir = folder.path().join("empty");
    let (result, told) = fetch_telling(&client);
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("cannot reach 127.0.0.1: "), "{error}");
    assert!(told.len() == 1 && told[0].starts_with("Retry"), "{told:?}");
}

#[test]
fn a_damaged_copy_is_found_on_request_and_replaced() {
    let scene = Scene::new();
    let mut client = scene.client();
    let dir = fetch(&client).unwrap();
    let mut damaged = weights();
    damaged[1_000_000] ^= 1;
    fs::write(dir.join("onnx/model.onnx"), damaged).unwrap();

    client.verify = true;
    let (result, told) = fetch_telling(&client);
    scene.assert_complete(&result.unwrap());
    assert_eq!(told, ["Damaged { file: \"onnx/model.onnx\" }"]);
}

#[test]
fn a_copy_of_another_size_is_replaced_without_being_asked() {
    let scene = Scene::new();
    let dir = fetch(&scene.client()).unwrap();
    fs::write(dir.join("onnx/model.onnx"), "<html>503</html>").unwrap();
    scene.assert_complete(&fetch(&scene.client()).unwrap());
}
