//! Faults of the hub, the storage, the network, the disk and the neighbours.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    sync::Arc,
    thread,
};

use super::{fake_hub::Gate, *};

/// An error page, as proxies and overloaded servers send it.
fn page(status: u16, headers: Vec<(&'static str, String)>) -> Fault {
    Fault::Reply { status, headers, body: "<html><body>Sorry</body></html>" }
}

/// Where the storage has the weights.
fn stored() -> String {
    format!("/storage/{}", sha256_of(&weights()))
}

/// The ranges of the weights that the storage was asked for.
fn ranges(scene: &Scene) -> Vec<Option<String>> {
    scene.hub.asked("GET", &stored()).into_iter().map(|seen| seen.range).collect()
}

#[test]
fn a_broken_connection_resumes_where_it_broke() {
    let scene = Scene::new();
    scene.hub.trap("GET", &stored(), 1, Fault::Drop(1_500_000));
    let (result, told) = fetch_telling(&scene.client());
    scene.assert_complete(&result.unwrap());
    assert_eq!(ranges(&scene), [None, Some("bytes=1500000-".to_owned())]);
    assert!(told.len() == 1 && told[0].contains("BrokenOff"), "{told:?}");
}

#[test]
fn a_second_run_resumes_what_the_first_left() {
    let scene = Scene::new();
    let mut client = scene.client();
    client.limits.attempts = 1;
    scene.hub.trap("GET", &stored(), 1, Fault::Drop(700_000));
    let error = fetch(&client).unwrap_err().to_string();
    assert!(error.contains("broke off in onnx/model.onnx at 700.0 kB of 3.0 MB"), "{error}");
    assert_eq!(fs::metadata(scene.partial()).unwrap().len(), 700_000);
    scene.assert_nothing_usable();

    scene.assert_complete(&fetch(&client).unwrap());
    assert_eq!(ranges(&scene), [None, Some("bytes=700000-".to_owned())]);
}

#[test]
fn a_server_that_ignores_ranges_starts_afresh() {
    let scene = Scene::new();
    scene.hub.trap("GET", &stored(), 1, Fault::Drop(1_500_000));
    scene.hub.trap("GET", &stored(), 1, Fault::IgnoreRange);
    scene.assert_complete(&fetch(&scene.client()).unwrap());
    assert_eq!(ranges(&scene).len(), 2);
}

#[test]
fn a_range_that_cannot_be_had_starts_afresh() {
    let scene = Scene::new();
    fs::create_dir_all(scene.repo_dir().join("blobs")).unwrap();
    fs::write(scene.partial(), "leftovers").unwrap();
    scene.hub.trap("GET", &stored(), 1, page(416, vec![]));
    scene.assert_complete(&fetch(&scene.client()).unwrap());
    assert_eq!(ranges(&scene), [Some("bytes=9-".to_owned()), None]);
}

#[test]
fn leftovers_of_something_else_are_found_out_and_replaced() {
    let scene = Scene::new();
    fs::create_dir_all(scene.repo_dir().join("blobs")).unwrap();
    fs::write(scene.partial(), "leftovers").unwrap();
    scene.assert_complete(&fetch(&scene.client()).unwrap());
    assert_eq!(ranges(&scene), [Some("bytes=9-".to_owned()), None]);
}

#[test]
fn a_silent_server_is_left_and_asked_again() {
    let scene = Scene::new();
    let mut client = scene.client();
    client.limits.stall_timeout = Duration::from_millis(100);
    scene.hub.trap("GET", &stored(), 1, Fault::Stall(1_000_000));
    scene.assert_complete(&fetch(&client).unwrap());
    assert_eq!(ranges(&scene), [None, Some("bytes=1000000-".to_owned())]);
}

#[test]
fn an_expired_storage_address_is_replaced_by_a_new_one() {
    let scene = Scene::new();
    let mut client = scene.client();
    client.token = Token::new("hf_secret");
    scene.hub.trap("GET", &stored(), 1, Fault::Drop(1_500_000));
    scene.hub.trap("GET", &stored(), 1, page(403, vec![]));
    scene.assert_complete(&fetch(&client).unwrap());
    let resumed = Some("bytes=1500000-".to_owned());
    assert_eq!(ranges(&scene), [None, resumed.clone(), resumed]);
    assert_eq!(scene.hub.asked("GET", "/onnx/model.onnx").len(), 1 + 3, "each attempt asks the hub anew");
}

#[test]
fn error_pages_are_never_taken_for_content() {
    for (status, part, expected) in [
        (503, "/storage/", "localhost answered 503"),
        (429, "/storage/", "localhost answered 429"),
        (403, "/storage/", "localhost refused the download with status 403"),
        (404, "/storage/", "localhost refused the download with status 404"),
        (503, "/resolve/", "127.0.0.1 answered 503"),
        (500, "/api/", "127.0.0.1 answered 500"),
    ] {
        let scene = Scene::new();
        scene.hub.trap("GET", part, usize::MAX, page(status, vec![]));
        let error = fetch(&scene.client()).unwrap_err().to_string();
        assert!(error.contains(expected), "{status} {part}: {error}");
        scene.assert_nothing_usable();
        let small = scene.blobs().iter().filter(|name| name.contains("incomplete")).count();
        assert_eq!(small, 0, "{status} {part}: {:?}", scene.blobs());
        let attempts = scene.hub.asked("GET", part).len();
        assert_eq!(attempts, if status == 404 { 1 } else { 3 }, "{status} {part}");
    }
}

#[test]
fn a_page_that_pretends_to_be_the_file_is_found_out() {
    let chunked = vec![("Transfer-Encoding", "chunked".to_owned())];
    for headers in [vec![], chunked] {
        let scene = Scene::new();
        scene.hub.trap("GET", "/storage/", 2, page(200, headers));
        let error = fetch(&scene.client()).unwrap_err();
        assert!(matches!(error, HubError::WrongSize { .. }), "{error}");
        scene.assert_nothing_usable();
        assert_eq!(scene.blobs().len(), 1, "added_tokens.json alone: {:?}", scene.blobs());
        scene.assert_complete(&fetch(&scene.client()).unwrap());
    }
}

#[test]
fn the_pause_that_the_server_asks_for_is_kept_within_bounds() {
    let scene = Scene::new();
    scene.hub.trap("HEAD", "config.json", 1, page(429, vec![("Retry-After", "0".to_owned())]));
    scene.hub.trap("HEAD", "config.json", 1, page(503, vec![("Retry-After", "3600".to_owned())]));
    let (result, told) = fetch_telling(&scene.client());
    scene.assert_complete(&result.unwrap());
    assert!(told[0].contains("status: 429 }, wait: 0ns"), "{told:?}");
    assert!(told[1].contains("status: 503 }, wait: 30ms"), "{told:?}");
}

#[test]
fn damaged_content_is_removed_and_tried_once_more() {
    let scene = Scene::new();
    scene.hub.trap("GET", "/storage/", 1, Fault::Corrupt);
    scene.assert_complete(&fetch(&scene.client()).unwrap());

    for file in ["config.json", "onnx/model.onnx_data"] {
        let scene = Scene::new();
        let part = if file == "config.json" { "config.json" } else { "/storage/" };
        scene.hub.trap("GET", part, 2, Fault::Corrupt);
        let error = fetch(&scene.client()).unwrap_err();
        assert!(matches!(&error, HubError::Corrupt { file: f, .. } if f == file), "{error}");
        assert_eq!(scene.hub.asked("GET", part).len(), 2);
        scene.assert_nothing_usable();
        assert!(scene.blobs().iter().all(|name| !name.contains("incomplete")), "{:?}", scene.blobs());
    }
}

#[test]
fn refusals_say_what_to_do() {
    let code = |code: &str| vec![("X-Error-Code", code.to_owned())];
    let words = |text: &str| vec![("X-Error-Message", text.to_owned())];
    let page_of_model = "/owner/name";
    for (method, part, fault, token, expected) in [
        ("HEAD", "/onnx/", page(401, code("GatedRepo")), None, ["accept its licence on", "then set HF_TOKEN"]),
        ("HEAD", "/onnx/", page(403, code("GatedRepo")), Some("t"), [page_of_model, "the account that HF_TOKEN"]),
        ("GET", "/api/", page(401, code("GatedRepo")), None, ["is gated", page_of_model]),
        ("GET", "/api/", page(404, code("RepoNotFound")), None, ["no model `owner/name`", "set HF_TOKEN"]),
        ("GET", "/api/", page(401, vec![]), None, ["no model `owner/name`", "set HF_TOKEN"]),
        ("GET", "/api/", page(404, code("RepoNotFound")), Some("t"), ["no model `owner/name`", "may not read it"]),
        ("GET", "/api/", page(404, vec![]), None, ["no model `owner/name`", "http://127.0.0.1"]),
        ("GET", "/api/", page(404, code("RevisionNotFound")), None, ["no revision `main`", "owner/name"]),
        ("HEAD", "/config", page(404, code("EntryNotFound")), None, ["has no file config.json", "owner/name"]),
        ("HEAD", "/config", page(404, vec![]), None, ["has no file config.json", "owner/name"]),
        (
            "GET",
            "/api/",
            page(401, words("Invalid credentials in Authorization header")),
            Some("t"),
            ["does not accept the access token", "HF_TOKEN"],
        ),
        ("HEAD", "/config", page(403, words("Blocked")), Some("t"), ["403 (Blocked)", "owner/name"]),
    ] {
        let scene = Scene::new();
        let mut client = scene.client();
        client.token = token.and_then(Token::new);
        scene.hub.trap(method, part, usize::MAX, fault);
        let error = fetch(&client).unwrap_err().to_string();
        assert!(expected.iter().all(|words| error.contains(words)), "{error}");
        assert_eq!(scene.hub.asked(method, part).len(), 1, "asking again cannot help: {error}");
        scene.assert_nothing_usable();
    }
}

#[test]
fn an_unknown_revision_is_told_from_an_unknown_model() {
    let scene = Scene::new();
    let error = |name: &str| {
        let repo: RepoId = name.parse().unwrap();
        scene.client().fetch(&repo, Weights::Onnx, &mut |_| {}).unwrap_err().to_string()
    };
    assert_eq!(error("owner/name@v9"), "owner/name has no revision `v9`");
    assert!(error("owner/other").starts_with("there is no model `owner/other` on http://127.0.0.1:"));
}

#[test]
fn what_the_hub_says_is_not_trusted_as_a_path() {
    let listing = |body| Fault::Reply { status: 200, headers: vec![], body };
    for (body, expected) in [
        (
            r#"{"sha":"1111111111111111111111111111111111111111","siblings":[{"rfilename":"model.onnx_data/../../../../x"}]}"#,
            "unsafe name",
        ),
        (r#"{"sha":"../../../../../../../../../../../../../x","siblings":[]}"#, "names no commit"),
        ("<html>Please log in</html>", "not readable"),
    ] {
        let scene = Scene::new();
        scene.hub.trap("GET", "/api/", 1, listing(body));
        let error = fetch(&scene.client()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(fs::read_dir(scene.folder.path()).unwrap().next().is_none(), "nothing was written");
    }

    for etag in ["\"../../../x\"", "\"5d41402abc4b2a76b9719d911017c592\""] {
        let scene = Scene::new();
        scene.hub.trap("HEAD", "/config", 1, page(200, vec![("ETag", etag.to_owned())]));
        let error = fetch(&scene.client()).unwrap_err().to_string();
        assert!(error.contains("ETag is no checksum"), "{error}");
    }
}

#[test]
fn redirects_that_lead_nowhere_are_not_followed_for_ever() {
    for (location, expected) in [
        ("/owner/name/resolve/x", "too many redirects"),
        ("ftp://elsewhere/x", "neither http nor https"),
        ("file:///etc/passwd", "it is not readable"),
    ] {
        let scene = Scene::new();
        scene.hub.trap("HEAD", "/resolve/", usize::MAX, page(302, vec![("Location", location.to_owned())]));
        let error = fetch(&scene.client()).unwrap_err().to_string();
        assert!(error.contains(expected), "{location}: {error}");
    }
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_fetched() {
    let scene = Scene::new();
    let facts = vec![("ETag", format!("\"{}\"", sha256_of(b""))), ("X-Linked-Size", "9000000000000000000".to_owned())];
    scene.hub.trap("HEAD", "/onnx/model.onnx_data", 1, page(200, facts));
    let error = fetch(&scene.client()).unwrap_err().to_string();
    assert!(error.starts_with("the disk is full: 9000000.0 TB more are needed in "), "{error}");
    assert!(error.contains(" are free ("), "{error}");
    assert!(scene.hub.asked("GET", "/resolve/").is_empty());
}

#[test]
fn a_disk_that_fills_up_on_the_way_is_told_with_what_is_missing() {
    let scene = Scene::new();
    fs::create_dir_all(scene.repo_dir().join("blobs")).unwrap();
    // The device answers every write with "no space left".
    symlink("/dev/full", scene.partial()).unwrap();
    let error = fetch(&scene.client()).unwrap_err();
    let HubError::DiskFull { needed, free: Some(_), .. } = &error else { panic!("{error}") };
    assert_eq!(*needed, 3_000_000);
    assert!(error.to_string().contains("3.0 MB more are needed"), "{error}");
    scene.assert_nothing_usable();
}

#[test]
fn two_at_once_download_once() {
    let scene = Scene::new();
    let gate = Arc::new(Gate::default());
    scene.hub.trap("GET", &stored(), 1, Fault::Gate(gate.clone()));
    let run = || {
        scene.client().fetch(&repo(), Weights::Onnx, &mut |progress| {
            // The weights flow only once the other one waits for them.
            if matches!(progress, Progress::LockHeld { file: "onnx/model.onnx", .. }) {
                gate.open();
            }
        })
    };
    let (one, two) = thread::scope(|scope| {
        let (one, two) = (scope.spawn(run), scope.spawn(run));
        (one.join().unwrap().unwrap(), two.join().unwrap().unwrap())
    });
    assert_eq!(one, two);
    scene.assert_complete(&one);
    assert_eq!(ranges(&scene), [None]);
}

#[test]
fn a_neighbour_that_does_not_end_is_waited_for_within_bounds() {
    let scene = Scene::new();
    let locks = scene.folder.path().join(".locks/models--owner--name");
    fs::create_dir_all(&locks).unwrap();
    let lock = File::create(locks.join(format!("{}.lock", sha256_of(&weights())))).unwrap();
    lock.lock().unwrap();
    let mut client = scene.client();
    client.limits.lock_timeout = Duration::from_millis(10);
    let (result, told) = fetch_telling(&client);
    let error = result.unwrap_err();
    assert!(matches!(error, HubError::Locked { .. }), "{error}");
    assert!(told.len() == 1 && told[0].starts_with("LockHeld"), "{told:?}");

    lock.unlock().unwrap();
    scene.assert_complete(&fetch(&client).unwrap());
}
