//! A message with what varies masked: numbers, hex, addresses, ids, times, durations, sizes, paths, quoted texts. A list of
//! them counts as one, for its length varies, too.

use super::atom;
use super::lists::Lists;

/// Longest quoted text that is taken for one, in bytes.
const LONGEST_QUOTE: usize = 512;

/// What stands around atoms. `:` and `/` do not: they stand in addresses and paths.
fn is_between(b: u8) -> bool {
    b.is_ascii_whitespace() || b.is_ascii_control() || b"=,;()[]{}<>|\"'`".contains(&b)
}

/// Writes `message` into `masked`: blanks become single spaces, what varies becomes a mask in angle brackets, and masked
/// words that come again and again stand there once ([`Lists`]). No ASCII digit is left.
pub fn mask(message: &str, masked: &mut String) {
    masked.clear();
    let mut lists = Lists::default();
    let s = message.as_bytes();
    let mut at = 0;
    while at < s.len() {
        let b = s[at];
        if b.is_ascii_whitespace() || b.is_ascii_control() {
            if !masked.is_empty() && !masked.ends_with(' ') {
                lists.end_word(masked);
                masked.push(' ');
            }
            at += 1;
        } else if let Some(len) = quoted(s, at) {
            masked.push_str("<str>");
            at += len;
        } else if is_between(b) {
            masked.push(char::from(b));
            at += 1;
        } else {
            let end = atom_end(s, at);
            put_atom(&message[at..end], masked);
            at = end;
        }
    }
    masked.truncate(masked.trim_end().len());
    lists.end_word(masked);
}

/// Where the atom at `at` ends. Commas join the groups of a number.
fn atom_end(s: &[u8], at: usize) -> usize {
    let mut end = at;
    while end < s.len() {
        let digit = |i: usize| s.get(i).is_some_and(u8::is_ascii_digit);
        let joins = s[end] == b',' && end > at && digit(end - 1) && digit(end + 1) && digit(end + 2) && digit(end + 3);
        if is_between(s[end]) && !joins {
            break;
        }
        end += 1;
    }
    end
}

/// Length of the quoted text at `at`, both quotes counted. A quote inside a word is an apostrophe.
fn quoted(s: &[u8], at: usize) -> Option<usize> {
    let quote = s[at];
    if !matches!(quote, b'"' | b'\'' | b'`') || (at > 0 && s[at - 1].is_ascii_alphanumeric()) {
        return None;
    }
    let inside = &s[at + 1..s.len().min(at + LONGEST_QUOTE)];
    let ends = |i: &usize| inside.get(i + 1).is_none_or(|b| !b.is_ascii_alphanumeric());
    memchr::memchr_iter(quote, inside).find(|i| *i > 0 && ends(i)).map(|i| i + 2)
}

fn put_atom(whole: &str, masked: &mut String) {
    // Punctuation at the end is the sentence's.
    let atom = whole.trim_end_matches(['.', ':', '!', '?', '*']);
    let tail = &whole[atom.len()..];
    match atom::kind(atom) {
        Some(mask) => masked.push_str(mask),
        None if atom.bytes().any(|b| b.is_ascii_digit()) => put_mixed(atom, masked),
        None => masked.push_str(atom),
    }
    masked.push_str(tail);
}

/// A word with digits in it: `host:port` and `a:b` part by part, a tangle of letters and digits as an id, else digit run
/// by digit run.
fn put_mixed(atom: &str, masked: &mut String) {
    if let Some((head, tail)) = atom.split_once(':') {
        for (i, part) in [head, tail].into_iter().enumerate() {
            if i == 1 {
                masked.push(':');
            }
            if !part.is_empty() {
                put_atom(part, masked);
            }
        }
        return;
    }
    let s = atom.as_bytes();
    let turns = s.windows(2).filter(|w| w[0].is_ascii_digit() && w[1].is_ascii_alphabetic()).count();
    if turns >= 3 && s.iter().all(u8::is_ascii_alphanumeric) {
        masked.push_str("<id>");
        return;
    }
    let mut in_digits = false;
    for c in atom.chars() {
        let digit = c.is_ascii_digit();
        if !digit {
            masked.push(c);
        } else if !in_digits {
            // As in blk_-388: a sign, which varies like the digits.
            masked.truncate(masked.len() - usize::from(masked.ends_with("_-")));
            masked.push_str("<num>");
        }
        in_digits = digit;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(message: &str) -> String {
        let mut out = "old".to_owned();
        mask(message, &mut out);
        out
    }

    #[test]
    fn messages() {
        for (message, expected) in [
            (
                "PacketResponder 1 for block blk_-388 terminating",
                "PacketResponder <num> for block blk_<num> terminating",
            ),
            ("took=14ms  size: 4KiB, 98 %", "took=<dur> size: <size>, <num> %"),
            ("user 'bob smith' can't log in", "user <str> can't log in"),
            ("Got exception from /10.251.71.193:50010:", "Got exception from <ip>:"),
            ("GET \"/a/b?c=1\" [1,024 bytes]", "GET <str> [<num> bytes]"),
            ("proxy.cse.hk:5070 close", "proxy.cse.hk:<num> close"),
            ("container_e01_123 on eth0 (q1w2e3r4)", "container_e<num>_<num> on eth<num> (<id>)"),
            ("open /var/log/x.log: no such file.", "open <path>: no such file."),
            ("é 5 ü", "é <num> ü"),
            ("delete blk_1 blk_-2 blk_3", "delete blk_<num>"),
            ("sets node-1 0x1fc <ok> node-2 0x1fd <ok>\tnode-9 0x1fe <ok> done", "sets node-<num> <hex> <ok> done"),
            ("", ""),
        ] {
            assert_eq!(masked(message), expected, "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_digit_is_left_and_blanks_are_single(message in any::<String>()) {
            let out = masked(&message);
            prop_assert!(!out.bytes().any(|b| b.is_ascii_digit()), "{out}");
            prop_assert!(!out.contains("  ") && out.trim_start_matches(' ') == out);
        }

        #[test]
        fn other_values_give_the_same(a in 0u32..9_999_999, b in 0u32..9_999_999, hex in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}") {
            let text = |n: u32| format!("took {n} ms on blk_{n} at 10.0.0.{}:{} id {hex} in /tmp/{n}", n % 256, n % 60000);
            prop_assert_eq!(masked(&text(a)), masked(&text(b)));
            prop_assert!(masked(&text(a)).contains("id <uuid> in <path>"));
        }

        #[test]
        fn what_is_masked_stays_as_it_is(words in proptest::collection::vec("[a-z]{1,8}|[0-9]{1,9}|[0-9]{1,3}(ms|KB)|/[a-z]{1,5}|10\\.1\\.2\\.[0-9]{1,2}", 0..8)) {
            let once = masked(&words.join(" "));
            prop_assert_eq!(masked(&once), once);
        }

        #[test]
        fn a_list_of_any_length_is_masked_alike(list in proptest::collection::vec(0u32..9_999_999, 1..20), n in 0u32..9_999_999) {
            let text = |list: &[u32]| {
                let all: Vec<String> = list.iter().map(|n| format!("blk_{n}")).collect();
                format!("asked for {} today", all.join(" "))
            };
            prop_assert_eq!(masked(&text(&list)), masked(&text(&[n])));
        }
    }
}
