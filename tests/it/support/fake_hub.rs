//! A model hub on a local port, with the endpoints that a download uses and the faults that it must survive.
//!
//! ```text
//! http://127.0.0.1:PORT  the hub:      listing, HEAD and GET of files
//! http://localhost:PORT  the storage:  where large files are redirected to, another origin than the hub
//! ```
//!
//! Every request is recorded. A fault is used up by the requests it hits. It does not know who downloads.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use sha2::Digest as _;

/// Longest wait for a client or a gate.
const PATIENCE: Duration = Duration::from_secs(20);

pub const REPO: &str = "owner/name";
pub const COMMIT: &str = "1111111111111111111111111111111111111111";

/// What is done to a request instead of answering it well.
#[derive(Clone)]
pub enum Fault {
    /// This reply, and no other.
    Reply { status: u16, headers: Vec<(&'static str, String)>, body: &'static str },
    /// The body, cut off after so many bytes.
    Drop(usize),
    /// The body, silent after so many bytes until the hub ends.
    Stall(usize),
    /// The body with its last byte changed.
    Corrupt,
    /// All of the body, whatever range was asked for.
    IgnoreRange,
    /// The body, once the gate is open.
    Gate(Arc<Gate>),
}

/// Closed until opened, for good.
#[derive(Default)]
pub struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let open = self.open.lock().unwrap();
        let waited = self.changed.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap();
        assert!(!waited.1.timed_out(), "nobody opened the gate");
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// Without the port.
    pub host: String,
    pub path: String,
    pub authorization: Option<String>,
    pub range: Option<String>,
}

struct Trap {
    method: &'static str,
    part_of_path: String,
    times: usize,
    fault: Fault,
}

struct State {
    port: u16,
    commit: Mutex<String>,
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    traps: Mutex<Vec<Trap>>,
    seen: Mutex<Vec<Seen>>,
    /// Opened when the hub ends: the end of every stall, and of the accept loop.
    end: Gate,
}

pub struct FakeHub {
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

impl FakeHub {
    /// A hub with the repository [`REPO`], whose branch `main` stands at [`COMMIT`].
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = Arc::new(State {
            port: listener.local_addr().unwrap().port(),
            commit: Mutex::new(COMMIT.to_owned()),
            files: Mutex::new(files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect()),
            traps: Mutex::default(),
            seen: Mutex::default(),
            end: Gate::default(),
        });
        let shared = state.clone();
        let acceptor = spawn(move || {
            let mut workers = Vec::new();
            for stream in listener.incoming() {
                if *shared.end.open.lock().unwrap() {
                    break;
                }
                let (stream, shared) = (stream.unwrap(), shared.clone());
                // A client that is gone is no fault of the hub's.
                workers.push(spawn(move || drop(shared.serve(stream))));
            }
            workers.into_iter().for_each(|worker| worker.join().unwrap());
        });
        Self { state, acceptor: Some(acceptor) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.state.port)
    }

    /// The next `times` requests of `method` whose path holds `part_of_path` meet `fault`.
    pub fn trap(&self, method: &'static str, part_of_path: &str, times: usize, fault: Fault) {
        let part_of_path = part_of_path.to_owned();
        self.state.traps.lock().unwrap().push(Trap { method, part_of_path, times, fault });
    }

    /// Replaces a file, and moves the branch to `commit`.
    pub fn push(&self, commit: &str, name: &str, content: &[u8]) {
        commit.clone_into(&mut self.state.commit.lock().unwrap());
        self.state.files.lock().unwrap().insert(name.to_owned(), content.to_vec());
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// The requests of `method` whose path holds `part_of_path`.
    pub fn asked(&self, method: &str, part_of_path: &str) -> Vec<Seen> {
        let hits = |seen: &Seen| seen.method == method && seen.path.contains(part_of_path);
        self.seen().into_iter().filter(hits).collect()
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.state.end.open();
        let _ = TcpStream::connect(("127.0.0.1", self.state.port));
        let ended = self.acceptor.take().unwrap().join();
        if !thread::panicking() {
            ended.unwrap();
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().name("fake-hub".into()).spawn(work).unwrap()
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, headers: Vec<(&'static str, String)>, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers, body: body.into() }
    }

    fn refusal(code: &'static str) -> Self {
        Self::new(404, vec![("X-Error-Code", code.to_owned())], "<html>not found</html>")
    }
}

impl State {
    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Some(seen) = read_request(&stream)? else { return Ok(()) };
        self.seen.lock().unwrap().push(seen.clone());
        let fault = self.spring(&seen);

        let mut answer = match &fault {
            Some(Fault::Reply { status, headers, body }) => Answer::new(*status, headers.clone(), *body),
            _ => self.answer(&seen),
        };
        let from = seen.range.as_ref().map(|range| range["bytes=".len()..range.len() - 1].parse::<usize>().unwrap());
        if let (Some(from), 200, false) = (from, answer.status, matches!(fault, Some(Fault::IgnoreRange))) {
            let size = answer.body.len();
            answer.status = 206;
            answer.headers.push(("Content-Range", format!("bytes {from}-{}/{size}", size - 1)));
            answer.body.drain(..from);
        }
        let full = answer.body.len();
        match &fault {
            Some(Fault::Corrupt) => *answer.body.last_mut().unwrap() ^= 1,
            Some(Fault::Drop(kept) | Fault::Stall(kept)) => answer.body.truncate(*kept),
            Some(Fault::Gate(gate)) => gate.wait(),
            _ => {}
        }
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let chunked = answer.headers.iter().any(|(name, _)| *name == "Transfer-Encoding");
        if !chunked {
            head += &format!("Content-Length: {full}\r\n");
        }
        stream.write_all((head + "\r\n").as_bytes())?;
        if seen.method != "HEAD" {
            if chunked {
                write!(stream, "{:x}\r\n", answer.body.len())?;
            }
            stream.write_all(&answer.body)?;
            if chunked {
                stream.write_all(b"\r\n0\r\n\r\n")?;
            }
        }
        if let Some(Fault::Stall(_)) = fault {
            self.end.wait();
        }
        Ok(())
    }

    /// The fault that `seen` runs into.
    fn spring(&self, seen: &Seen) -> Option<Fault> {
        let mut traps = self.traps.lock().unwrap();
        let hits =
            |trap: &&mut Trap| trap.times > 0 && trap.method == seen.method && seen.path.contains(&trap.part_of_path);
        let trap = traps.iter_mut().find(hits)?;
        trap.times -= 1;
        Some(trap.fault.clone())
    }

    fn answer(&self, seen: &Seen) -> Answer {
        let commit = self.commit.lock().unwrap().clone();
        let files = self.files.lock().unwrap();
        let path = seen.path.split('?').next().unwrap();
        if let Some(sha256) = path.strip_prefix("/storage/") {
            assert_eq!(seen.host, "localhost");
            return match files.values().find(|content| sha256_of(content) == sha256) {
                // What the storage calls its ETag is not the checksum, as with the real one.
                Some(content) => {
                    Answer::new(200, vec![("ETag", "\"5d41402abc4b2a76b9719d911017c592\"".into())], content.clone())
                }
                None => Answer::new(404, vec![], "<Error>NoSuchKey</Error>"),
            };
        }
        if let Some(rest) = path.strip_prefix("/api/models/") {
            return match rest.rsplit_once("/revision/") {
                Some((REPO, revision)) if revision == "main" || revision == commit => {
                    let siblings: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
                    let info = serde_json::json!({ "id": REPO, "sha": commit, "gated": false, "siblings": siblings });
                    Answer::new(200, vec![("Content-Type", "application/json".into())], info.to_string())
                }
                Some((REPO, _)) => Answer::refusal("RevisionNotFound"),
                _ => Answer::refusal("RepoNotFound"),
            };
        }
        let moved = path.strip_prefix("/cache/").map(|rest| format!("/{rest}"));
        let place = moved.as_deref().unwrap_or(path);
        let name = place.strip_prefix(&format!("/{REPO}/resolve/{commit}/"));
        match name.and_then(|name| files.get_key_value(name)) {
            None => Answer::refusal("EntryNotFound"),
            Some((name, content)) => self.answer_file(name, content, place, moved.is_some(), commit),
        }
    }

    /// Large files lie in the storage, `tokenizer.json` behind a redirect within the hub, the rest right here.
    fn answer_file(&self, name: &str, content: &[u8], place: &str, moved: bool, commit: String) -> Answer {
        let mut headers = vec![("X-Repo-Commit", commit)];
        if is_large(name) {
            let sha256 = sha256_of(content);
            headers.push(("X-Linked-Etag", format!("\"{sha256}\"")));
            headers.push(("X-Linked-Size", content.len().to_string()));
            headers.push(("Location", format!("http://localhost:{}/storage/{sha256}?signature=x", self.port)));
            return Answer::new(302, headers, "Found. Redirecting");
        }
        if name == "tokenizer.json" && !moved {
            headers.push(("Location", format!("/cache{place}")));
            return Answer::new(307, headers, "Temporary Redirect");
        }
        headers.push(("ETag", format!("\"{}\"", git_sha1_of(content))));
        Answer::new(200, headers, content)
    }
}

fn is_large(name: &str) -> bool {
    name.contains(".onnx") || name.ends_with(".safetensors")
}

pub fn sha256_of(content: &[u8]) -> String {
    hex(&sha2::Sha256::digest(content))
}

pub fn git_sha1_of(content: &[u8]) -> String {
    hex(&sha1::Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` when the client left without a word.
fn read_request(stream: &TcpStream) -> std::io::Result<Option<Seen>> {
    let mut lines = BufReader::new(stream.take(64 * 1024)).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let mut seen = Seen { method, path, host: String::new(), authorization: None, range: None };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "host" => value.split(':').next().unwrap().clone_into(&mut seen.host),
            "authorization" => seen.authorization = Some(value.to_owned()),
            "range" => seen.range = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(Some(seen))
}
