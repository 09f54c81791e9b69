//! `oddlog fetch` as a process: its output, its exit code, its environment.

use std::process::{Command, Output, Stdio};

use super::*;

/// `oddlog fetch` with the scene's hub and cache and nothing else of the environment.
fn command(scene: &Scene, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oddlog"));
    command.arg("fetch").args(args).env_clear();
    command.env("HF_ENDPOINT", scene.hub.endpoint()).env("HF_HUB_CACHE", scene.folder.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn run(scene: &Scene, args: &[&str]) -> Output {
    command(scene, args).output().unwrap()
}

#[test]
fn the_folder_is_printed_and_nothing_else() {
    let scene = Scene::new();
    let first = run(&scene, &[REPO]);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    scene.assert_complete(Path::new(text(&first.stdout).strip_suffix('\n').unwrap()));
    let lines: Vec<_> = text(&first.stderr).lines().collect();
    assert!((1..=10).contains(&lines.len()), "{lines:?}");
    assert_eq!(lines.last(), Some(&"oddlog: 100 % of 3.0 MB (onnx/model.onnx)"));

    let again = run(&scene, &[REPO, "--quiet", "--offline"]);
    assert_eq!((again.stdout, again.stderr), (first.stdout, vec![]));
}

#[test]
fn two_processes_at_once_download_once() {
    let scene = Scene::new();
    let children: Vec<_> = (0..2).map(|_| command(&scene, &[REPO]).spawn().unwrap()).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        scene.assert_complete(Path::new(text(&output.stdout).trim_end()));
    }
    assert_eq!(scene.hub.asked("GET", "/storage/").len(), 2, "the weights and their data, once each");
}

#[test]
fn the_cache_folder_and_the_revision_are_arguments_too() {
    let scene = Scene::new();
    let elsewhere = scene.folder.path().join("elsewhere");
    let output = run(&scene, &[REPO, "--revision", COMMIT, "--cache-dir", elsewhere.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(Path::new(text(&output.stdout).trim_end()).starts_with(&elsewhere));
}

#[test]
fn errors_are_told_in_one_line_with_exit_code_2() {
    let scene = Scene::new();
    for (args, expected) in [
        (&["owner/other", "-q"][..], "oddlog: there is no model `owner/other`"),
        (&["owner/name@v9", "-q"], "oddlog: owner/name has no revision `v9`"),
        (&["owner/name@v9", "--revision", "v8"], "name different revisions"),
        (&[REPO, "--revision", "../x"], "not a name that git allows"),
        (&[REPO, "--offline"], "oddlog: owner/name is not complete in "),
    ] {
        let output = run(&scene, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
        let told = text(&output.stderr);
        assert!(told.contains(expected) && told.lines().count() == 1, "{args:?}: {told}");
    }
    let no_name = run(&scene, &["bert"]);
    assert_eq!(no_name.status.code(), Some(2));
    assert!(text(&no_name.stderr).contains("expected owner/name or owner/name@revision, got `bert`"));

    let endpoint = command(&scene, &[REPO]).env("HF_ENDPOINT", "hub.example").output().unwrap();
    assert!(text(&endpoint.stderr).contains("must start with http:// or https://"));
    let certificates = command(&scene, &[REPO]).env("SSL_CERT_FILE", "/no/such/file").output().unwrap();
    assert!(text(&certificates.stderr).contains("cannot use the certificates in /no/such/file"));
}

#[test]
fn a_repetition_is_told_briefly() {
    let scene = Scene::new();
    let now = vec![("Retry-After", "0".to_owned())];
    scene.hub.trap("GET", "/api/", 1, Fault::Reply { status: 503, headers: now, body: "<html>busy</html>" });
    let output = run(&scene, &[REPO]);
    assert_eq!(output.status.code(), Some(0));
    let first = text(&output.stderr).lines().next();
    assert_eq!(first, Some("oddlog: owner/name: 127.0.0.1 answered 503; trying again in 0.0 s"));
}

#[test]
fn the_environment_gives_the_token_and_the_switch_to_stay_offline() {
    let scene = Scene::new();
    let output = command(&scene, &[REPO]).env("HF_TOKEN", "hf_env").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(scene.hub.asked("GET", "/api/")[0].authorization.as_deref(), Some("Bearer hf_env"));

    let before = scene.hub.seen().len();
    let output = command(&scene, &[REPO]).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(scene.hub.seen().len(), before);
}

#[test]
fn help_shows_examples_and_the_default_model() {
    let output = run(&Scene::new(), &["--help"]);
    let help = text(&output.stdout);
    for part in ["Examples:", "[default: MoritzLaurer/deberta-v3-base-zeroshot-v2.0]", "HF_ENDPOINT", "--offline"] {
        assert!(help.contains(part), "{help}");
    }
}
