//! One piece of a message, without blanks and punctuation around it: is it a word, or something that varies?

use std::net::{Ipv4Addr, Ipv6Addr};

/// What an atom is masked as; `None` for a word that stays. A word with digits in it is masked digit run by digit run
/// elsewhere ([`super::mask`]).
pub(super) fn kind(atom: &str) -> Option<&'static str> {
    let s = atom.as_bytes();
    let first = *s.first()?;
    let has_digit = s.iter().any(u8::is_ascii_digit);
    if first.is_ascii_digit() && is_time(s) {
        return Some("<time>");
    }
    if let Some(path) = path(s) {
        // Hadoop writes addresses as /10.0.0.1:50010.
        return Some(if is_ipv4(atom.trim_start_matches('/')) { "<ip>" } else { path });
    }
    if memchr::memmem::find(s, b"://").is_some_and(|at| at > 0 && s[..at].iter().all(u8::is_ascii_alphanumeric)) {
        return Some("<url>");
    }
    if memchr::memchr(b'@', s).is_some_and(|at| at > 0 && s[at..].contains(&b'.') && first.is_ascii_alphanumeric()) {
        return Some("<email>");
    }
    if s.contains(&b':') && is_colon_address(atom) {
        return Some(if is_mac(s) { "<mac>" } else { "<ip>" });
    }
    if !has_digit {
        return None;
    }
    if is_ipv4(atom) {
        return Some("<ip>");
    }
    if is_uuid(s) {
        return Some("<uuid>");
    }
    if is_mac(s) {
        return Some("<mac>");
    }
    if is_hex(s) {
        return Some("<hex>");
    }
    number(s)
}

/// `/var/log`, `~/x`, `./x`, `../x`, `C:\x`, `a/b/c`.
fn path(s: &[u8]) -> Option<&'static str> {
    let rooted = match s {
        [b'/', next, ..] => next.is_ascii_alphanumeric() || b"._-".contains(next),
        [b'~', b'/', _, ..] | [b'.', b'/', _, ..] | [b'.', b'.', b'/', _, ..] => true,
        [drive, b':', b'\\' | b'/', ..] => drive.is_ascii_alphabetic(),
        [b'\\', b'\\', _, ..] => true,
        _ => false,
    };
    let slashes = || s.iter().filter(|b| **b == b'/').count();
    let relative = || s[0].is_ascii_alphanumeric() && slashes() >= 2 && memchr::memmem::find(s, b"//").is_none();
    (rooted || relative()).then_some("<path>")
}

/// With a port or a prefix length, too.
fn is_ipv4(atom: &str) -> bool {
    let (host, tail) = atom.split_at(atom.find([':', '/']).unwrap_or(atom.len()));
    host.parse::<Ipv4Addr>().is_ok() && tail.bytes().skip(1).all(|b| b.is_ascii_digit())
}

fn is_colon_address(atom: &str) -> bool {
    let host = atom.split(['%', '/']).next().unwrap_or(atom);
    is_mac(atom.as_bytes()) || (host.len() > 2 && host.parse::<Ipv6Addr>().is_ok())
}

fn is_mac(s: &[u8]) -> bool {
    s.len() == 17
        && s.iter()
            .enumerate()
            .all(|(i, b)| if i % 3 == 2 { b":-".contains(b) && *b == s[2] } else { b.is_ascii_hexdigit() })
}

fn is_uuid(s: &[u8]) -> bool {
    s.len() == 36
        && s.iter()
            .enumerate()
            .all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { *b == b'-' } else { b.is_ascii_hexdigit() })
}

/// `0x1f`, and seven digits or more of which some are letters: git's short hashes, Java's identity hashes.
fn is_hex(s: &[u8]) -> bool {
    match s {
        [b'0', b'x' | b'X', rest @ ..] => !rest.is_empty() && rest.iter().all(u8::is_ascii_hexdigit),
        _ => is_hex_word(s, 7),
    }
}

/// Hex digits, at least `least`, some of them letters and some not. Short ones are no size or duration, such as `123456b`.
pub(super) fn is_hex_word(s: &[u8], least: usize) -> bool {
    let letters = || s.iter().filter(|b| b.is_ascii_alphabetic()).count();
    s.len() >= least
        && s.iter().all(u8::is_ascii_hexdigit)
        && (1..s.len()).contains(&letters())
        && (s.len() >= 8 || letters() > 1 || !matches!(s[s.len() - 1], b'b' | b'B' | b'd' | b'D'))
}

/// Length of the address that begins at `at` of a word: `0x1f` between what is no letter or digit, and Java's identity hash
/// at the end, as in `Event@1b2c3d4`, also if all its digits happen to be decimal ones.
pub(super) fn address(s: &[u8], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).map(|before| s[before]);
    if before.is_some_and(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let digits = |from: usize| s[from..].iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if let [b'0', b'x' | b'X', first, ..] = &s[at..]
        && first.is_ascii_hexdigit()
    {
        let len = 2 + digits(at + 2);
        return s.get(at + len).is_none_or(|b| !b.is_ascii_alphanumeric()).then_some(len);
    }
    let hash = &s[at..];
    let is_hash = before == Some(b'@')
        && (4..=16).contains(&hash.len())
        && digits(at) == hash.len()
        && hash.iter().any(u8::is_ascii_digit);
    is_hash.then_some(hash.len())
}

/// `12:34`, `12:34:56.789`, `2024-05-02`, `2024/05/02`, and both with `T` between.
fn is_time(s: &[u8]) -> bool {
    let shape: Vec<u8> = s.iter().map(|b| if b.is_ascii_digit() { b'0' } else { *b }).fold(
        Vec::with_capacity(s.len()),
        |mut runs, b| {
            if b != b'0' || runs.last() != Some(&b'0') {
                runs.push(b);
            }
            runs
        },
    );
    let shape = match shape.as_slice() {
        [inner @ .., b'Z'] => inner,
        [inner @ .., b'+', b'0'] | [inner @ .., b'+', b'0', b':', b'0'] => inner,
        whole => whole,
    };
    let (date, clock) = match shape.iter().position(|b| *b == b'T') {
        Some(at) => (&shape[..at], Some(&shape[at + 1..])),
        None => (shape, None),
    };
    let is_clock = |s: &[u8]| matches!(s, b"0:0" | b"0:0:0" | b"0:0:0.0" | b"0:0:0,0" | b"0:0:0:0");
    let digits = s.iter().take_while(|b| b.is_ascii_digit()).count();
    let is_date = matches!(date, b"0-0-0" | b"0/0/0") && matches!(digits, 2 | 4) && s.len() >= 8;
    match clock {
        Some(clock) => is_date && is_clock(clock),
        None => is_date || (is_clock(date) && digits <= 2),
    }
}

const TIMES: [&str; 19] = [
    "ns", "us", "µs", "ms", "s", "sec", "secs", "second", "seconds", "m", "min", "mins", "minutes", "h", "hr", "hrs",
    "hours", "d", "days",
];
const SIZES: [&str; 19] = [
    "b", "kb", "mb", "gb", "tb", "pb", "kib", "mib", "gib", "tib", "pib", "k", "g", "t", "bytes", "kbps", "mbps",
    "mb/s", "kb/s",
];

/// A number with a sign, groups and a unit: `-3`, `1,024`, `12.5%`, `30s`, `1h2m3s`, `4KiB`, `1e-5`.
fn number(s: &[u8]) -> Option<&'static str> {
    let sign = usize::from(matches!(s[0], b'+' | b'-'));
    let mut at = sign;
    let run = |at: usize| s[at..].iter().take_while(|b| b.is_ascii_digit() || b"._,".contains(b)).count();
    let digits = run(at);
    if digits == 0 || !s[at].is_ascii_digit() {
        return None;
    }
    at += digits;
    let unit = &s[at..];
    if unit.is_empty() || unit == b"%" {
        return Some("<num>");
    }
    if let [b'e' | b'E', rest @ ..] = unit {
        let power = rest.strip_prefix(b"-").or_else(|| rest.strip_prefix(b"+")).unwrap_or(rest);
        if !power.is_empty() && power.iter().all(u8::is_ascii_digit) {
            return Some("<num>");
        }
    }
    // 1h2m3s: units and digits in turn.
    let letters = unit.iter().take_while(|b| !b.is_ascii_digit()).count();
    let word = std::str::from_utf8(&unit[..letters]).ok()?;
    let is = |units: &[&str]| units.iter().any(|u| u.eq_ignore_ascii_case(word));
    match unit.len() == letters {
        true if is(&TIMES) => Some("<dur>"),
        true if is(&SIZES) => Some("<size>"),
        true => None,
        false if is(&TIMES) => number(&unit[letters..]).filter(|rest| *rest == "<dur>"),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_has_a_kind() {
        for (mask, atoms) in [
            ("<ip>", &["10.0.0.1", "10.0.0.1:80", "/10.0.0.1:5", "10.0.0.0/8", "fe80::1%eth0", "2001:db8::1"][..]),
            ("<mac>", &["00:1b:44:11:3a:b7", "00-1B-44-11-3A-B7"]),
            ("<url>", &["http://a.b/c?d=1", "s3://bucket/x"]),
            ("<email>", &["root@example.com"]),
            ("<path>", &["/var/log/x.log", "~/x", "./run.sh", "C:\\Windows\\x.dll", "a/b/c.txt", "/etc"]),
            ("<uuid>", &["01234567-89ab-cdef-0123-456789abcdef"]),
            ("<hex>", &["0x1F", "deadbeef12", "9e107d9d372bb6826bd81d3542a419d6", "2bd79ce", "6eaaf00"]),
            ("<time>", &["12:34", "12:34:56,789", "2024-05-02", "2024-05-02T10:00:00.1Z", "2024/05/02"]),
            ("<dur>", &["30s", "123456d", "1.5ms", "1h2m3s", "250µs"]),
            ("<size>", &["4KiB", "123456b", "12GB", "100bytes"]),
            ("<num>", &["1", "-3", "1,024", "12.5%", "1e-5", "1.2.3", "0"]),
        ] {
            for atom in atoms {
                assert_eq!(kind(atom), Some(mask), "{atom}");
            }
        }
    }

    #[test]
    fn words_stay() {
        for word in [
            "",
            "error",
            "a/b",
            "and/or",
            "defaced",
            "java.lang.Error",
            "sda1",
            "blk_12",
            "x86_64",
            "::",
            "a:b",
            "cafe",
            "e1000e",
            "fed10",
            "deadbee",
            "ca98d5",
        ] {
            assert_eq!(kind(word), None, "{word}");
        }
    }
}
