//! Stack traces: which lines belong to the record before them. Java, Python, Go, Rust, Node and whatever is indented.

/// What the lines of a record have been so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing that speaks of lines to come.
    #[default]
    Plain,
    /// In a Python traceback: frames are indented, the first line that is not is the exception and ends it.
    Python,
    /// Behind a traceback's exception; a chained one may follow.
    PythonEnd,
    /// A chained traceback was announced.
    PythonChain,
    /// In a Go panic: goroutines, calls and files until a line that has a prefix.
    Go,
    /// A Rust panic was announced: one line of message follows.
    RustMessage,
    /// Behind a Rust panic's message.
    Rust,
    /// After an opening brace or bracket: a closing one ends it.
    Open,
}

const PYTHON: &str = "Traceback (most recent call last):";

/// The state after the line that begins a record; `message` is the line without its prefix.
pub(super) fn begin(message: &str) -> State {
    let end = message.trim_end();
    if end.ends_with(PYTHON) {
        State::Python
    } else if is_go_panic(message) {
        State::Go
    } else if message.starts_with("thread '") && message.contains(" panicked at ") {
        // Older ones have the message on the same line, in quotes.
        if message.contains("panicked at '") { State::Rust } else { State::RustMessage }
    } else if end.ends_with(['{', '[', '(']) {
        State::Open
    } else {
        State::Plain
    }
}

/// Whether `line`, which has no prefix, continues a record in `state`, and the state behind it. `prefixed`: whether the
/// record began with a prefix.
pub(super) fn goes_on(state: State, line: &str, prefixed: bool) -> Option<State> {
    let trimmed = line.trim();
    if trimmed.is_empty() {
        // Only Go puts blank lines between what belongs together; Python does between chained tracebacks.
        return (state == State::Go).then_some(state);
    }
    if line.starts_with([' ', '\t']) {
        return Some(if state == State::RustMessage { State::Rust } else { state });
    }
    if line.starts_with(PYTHON) && (state == State::PythonChain || (prefixed && state == State::Plain)) {
        return Some(State::Python);
    }
    match state {
        State::Python => Some(State::PythonEnd),
        State::Go => is_go(trimmed).then_some(State::Go),
        State::RustMessage => Some(State::Rust),
        State::Rust if trimmed.starts_with("stack backtrace:") || trimmed.starts_with("note: ") => Some(State::Rust),
        State::Open if trimmed.starts_with(['}', ']', ')']) && trimmed.len() <= 3 => Some(State::Plain),
        _ if trimmed.starts_with("Caused by: ") || trimmed.starts_with("Suppressed: ") => Some(state),
        State::PythonEnd if is_chain(trimmed) => Some(State::PythonChain),
        _ if prefixed && is_go_panic(trimmed) => Some(State::Go),
        _ if prefixed && is_exception(trimmed) => Some(state),
        _ => None,
    }
}

/// Whether the blank lines behind a record may lie inside it: a chained traceback comes after one.
pub(super) fn resumes(line: &str) -> bool {
    is_chain(line) || line.starts_with(PYTHON) || line.starts_with("goroutine ")
}

fn is_chain(line: &str) -> bool {
    line.starts_with("During handling of the above exception")
        || line.starts_with("The above exception was the direct cause")
}

/// A frame: where, not what. The model need not read it.
pub(super) fn is_frame(line: &str) -> bool {
    let line = line.trim_start();
    let numbered =
        || line.split_once(": ").is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    line.starts_with("at ")
        || line.starts_with("File \"")
        || line.starts_with("... ")
        || line.starts_with("goroutine ")
        || line.starts_with("created by ")
        || line.starts_with("exit status ")
        || line.starts_with("note: run with ")
        || line.starts_with("stack backtrace:")
        || line.starts_with(['^', '~'])
        || (line.contains(".go:") && line.starts_with('/'))
        || numbered()
}

fn is_go_panic(line: &str) -> bool {
    line.starts_with("panic: ") || line.starts_with("fatal error: ") || line.starts_with("goroutine ")
}

fn is_go(line: &str) -> bool {
    let call = line.ends_with(')') && line.contains('(') && !line.split('(').next().unwrap_or("").contains(' ');
    call || line.starts_with("goroutine ")
        || line.starts_with("created by ")
        || line.starts_with("[signal ")
        || line.starts_with("panic: ")
        || line.starts_with("exit status ")
        || line == "runtime stack:"
}

/// `java.lang.IllegalStateException: no`, `ValueError`: one dotted name, then nothing or a colon.
fn is_exception(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or("");
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._$".contains(&b));
    plain && (name.ends_with("Exception") || name.ends_with("Error") || name.ends_with("Throwable"))
}
