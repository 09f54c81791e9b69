//! `x-request-timeout-ms`: how long a client waits for its answer. After that there is no use in scoring its log.

use std::time::{Duration, Instant};

use hyper::{HeaderMap, Response};

use super::{
    answer::{Body, unprocessable},
    problem::{Rule, Step},
};

const HEADER: &str = "x-request-timeout-ms";

/// The moment until which the client waits, counted from `now`; `None` if it does not say.
///
/// # Errors
/// The answer for a value that is no whole number of milliseconds from 1 to `max`.
pub fn deadline(headers: &HeaderMap, max: Duration, now: Instant) -> Result<Option<Instant>, Response<Body>> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    match milliseconds(text, max.as_millis() as u64) {
        Ok(ms) => Ok(Some(now + Duration::from_millis(ms))),
        Err(rule) => {
            let sent = serde_json::value::to_raw_value(text).expect("a string is JSON");
            Err(unprocessable(&[rule.at(vec![Step::Name("header"), Step::Name(HEADER)], &sent)]))
        }
    }
}

fn milliseconds(text: &str, max: u64) -> Result<u64, Rule> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Rule::IntParsing);
    }
    if digits.len() < text.len() || digits.bytes().all(|b| b == b'0') {
        return Err(Rule::AtLeast { min: 1 });
    }
    // Too many digits for the type are too large a number.
    digits.parse().ok().filter(|ms| *ms <= max).ok_or(Rule::AtMost { max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_milliseconds_within_the_limits() {
        let too_large = || Err(Rule::AtMost { max: 5000 });
        for (text, expected) in [
            ("1", Ok(1)),
            ("5000", Ok(5000)),
            ("0007", Ok(7)),
            ("5001", too_large()),
            ("99999999999999999999999", too_large()),
            ("0", Err(Rule::AtLeast { min: 1 })),
            ("-3", Err(Rule::AtLeast { min: 1 })),
            ("", Err(Rule::IntParsing)),
            ("-", Err(Rule::IntParsing)),
            ("+5", Err(Rule::IntParsing)),
            ("1.5", Err(Rule::IntParsing)),
            ("1s", Err(Rule::IntParsing)),
            ("١", Err(Rule::IntParsing)),
        ] {
            assert_eq!(milliseconds(text, 5000), expected, "{text:?}");
        }
    }
}
