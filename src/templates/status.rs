//! Status codes of HTTP, which are no numbers that vary: a template of `404` and `200` would hide what is odd. A code is masked
//! as its class, and messages with another class are of another kind.

/// By the first digit, as RFC 9110 names them.
const CLASSES: [&str; 5] = ["<informational>", "<success>", "<redirection>", "<client-error>", "<server-error>"];

/// Bytes that may stand between a code and the word that tells of it: `status": 404`.
const BETWEEN: &[u8] = b" =:\"'\\";
const MOST_BETWEEN: usize = 8;

/// Ends of words before a code, without `_` and `-`.
const BEFORE: [&str; 5] = ["status", "statuscode", "responsecode", "httpcode", "httpresponse"];

/// The mask of the number at `at..end`, if it is a status code by what stands before it: `HTTP/1.1" 404`, `status=404`,
/// `"status_code": 404`, `status code 404`.
pub(super) fn class(s: &[u8], at: usize, end: usize) -> Option<&'static str> {
    let [first @ b'1'..=b'5', second, third] = s[at..end] else { return None };
    let is_code = second.is_ascii_digit() && third.is_ascii_digit();
    let (word, start) = word_before(s, at)?;
    let told = word.starts_with("http/")
        || BEFORE.iter().any(|end| word.ends_with(end))
        || (word == "code" && word_before(s, start).is_some_and(|(word, _)| ["status", "response"].contains(&&*word)));
    (is_code && told).then(|| CLASSES[usize::from(first - b'1')])
}

/// Whether there is a class in a masked word.
pub(super) fn tells(word: &str) -> bool {
    word.contains('<') && CLASSES.iter().any(|class| word.contains(class))
}

/// The word before `at`, in small letters and without `_` and `-`, and where it begins.
fn word_before(s: &[u8], at: usize) -> Option<(String, usize)> {
    let between = s[..at].iter().rev().take_while(|b| BETWEEN.contains(b)).count();
    let end = at - between;
    let is_word = |b: &&u8| b.is_ascii_alphanumeric() || b"_-./".contains(b);
    let len = s[..end].iter().rev().take(LONGEST).take_while(is_word).count();
    let word = s[end - len..end].iter().filter(|b| !b"_-".contains(b)).map(|b| char::from(b.to_ascii_lowercase()));
    ((1..=MOST_BETWEEN).contains(&between) && len > 0).then(|| (word.collect(), end - len))
}

/// Longest word that is looked at, in bytes.
const LONGEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_known_by_the_word_before_them() {
        for (message, expected) in [
            (r#"10.0.0.1 - - "GET /x HTTP/1.1" 404 176"#, Some("<client-error>")),
            ("HTTP/2 200 OK", Some("<success>")),
            (r#""GET /v2 HTTP/1.1" status: 503 len: 1893"#, Some("<server-error>")),
            (r#"{"http_status":304,"n":7}"#, Some("<redirection>")),
            (r#"{\"status_code\": 101}"#, Some("<informational>")),
            ("upstream answered with Status Code 502", Some("<server-error>")),
            ("response_code=429 took=12", Some("<client-error>")),
            ("exit code 137", None),
            ("status 4040", None),
            ("status: 700", None),
            ("statuses 404", None),
            ("404", None),
            ("status404", None),
            ("status=         404", None),
        ] {
            let s = message.as_bytes();
            let mut numbers = (0..s.len()).filter(|at| *at == 0 || !s[at - 1].is_ascii_digit());
            let found = numbers.find_map(|at| {
                let digits = s[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                class(s, at, at + digits)
            });
            assert_eq!(found, expected, "{message}");
        }
    }
}
