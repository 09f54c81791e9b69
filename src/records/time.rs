//! Timestamps at the beginning of a text, in the forms that loggers write.

const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
const DAYS: [&[u8]; 7] = [b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun"];

/// Length of the timestamp that `s` begins with.
pub(super) fn timestamp(s: &[u8]) -> Option<usize> {
    let first = *s.first()?;
    if first.is_ascii_digit() {
        return iso(s)
            .or_else(|| compact(s))
            .or_else(|| day_first(s))
            .or_else(|| short_date(s))
            .or_else(|| epoch(s))
            .or_else(|| clock(s).filter(|len| *len >= 8));
    }
    match first {
        b'A'..=b'Z' => named(s),
        _ => None,
    }
}

/// Digits at the beginning of `s`, counted.
pub(super) fn digits(s: &[u8]) -> usize {
    s.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// `12:34:56`, `1:2:3`, with `.789`, `,789` or `:789`, and a zone.
fn clock(s: &[u8]) -> Option<usize> {
    clock_with(s, b':')
}

fn clock_with(s: &[u8], between: u8) -> Option<usize> {
    let mut at = 0;
    for part in 0..3 {
        let n = digits(&s[at..]);
        if !(1..=2).contains(&n) {
            return None;
        }
        at += n;
        if part < 2 {
            (s.get(at) == Some(&between)).then_some(())?;
            at += 1;
        }
    }
    if matches!(s.get(at), Some(b'.' | b',' | b':')) {
        let n = digits(&s[at + 1..]);
        at += if (1..=9).contains(&n) { n + 1 } else { 0 };
    }
    Some(at + zone(&s[at..]))
}

/// `Z`, `+02:00`, `-0500`, ` +0000`, ` UTC`; 0 if there is none.
fn zone(s: &[u8]) -> usize {
    let (space, rest) = match s {
        [b' ', rest @ ..] => (1, rest),
        _ => (0, s),
    };
    let len = match rest {
        [b'Z', ..] if space == 0 => 1,
        [b'U', b'T', b'C', ..] | [b'G', b'M', b'T', ..] => 3,
        [b'+' | b'-', rest @ ..] => match digits(rest) {
            4 => 5,
            2 if rest.get(2) == Some(&b':') && digits(&rest[3..]) == 2 => 6,
            2 if space == 0 => 3,
            _ => 0,
        },
        _ => 0,
    };
    let ends = rest.get(len).is_none_or(|b| !b.is_ascii_alphanumeric());
    if len > 0 && ends { space + len } else { 0 }
}

/// `2024-05-02`, `2024/05/02` or `2024.05.02`, and mostly a time of day behind `T`, a blank, ` - ` or `-`.
fn iso(s: &[u8]) -> Option<usize> {
    if digits(s) != 4 {
        return None;
    }
    let sep = *s.get(4)?;
    if !matches!(sep, b'-' | b'/' | b'.') || digits(&s[5..]) != 2 || s.get(7) != Some(&sep) || digits(&s[8..]) != 2 {
        return None;
    }
    for between in [&b"T"[..], b" ", b"-", b" - ", b"_"] {
        if let Some(rest) = s[10..].strip_prefix(between)
            && let Some(len) = clock(rest)
        {
            return Some(10 + between.len() + len);
        }
    }
    // BGL writes 2005-06-03-15.42.50.675872.
    let dotted = s[10..].strip_prefix(b"-").and_then(|rest| clock_with(rest, b'.'));
    Some(10 + dotted.map_or(0, |len| 1 + len))
}

/// `20171223-22:15:29:606`, `20240502T061140Z`, `081109 203615`.
fn compact(s: &[u8]) -> Option<usize> {
    match (digits(s), s) {
        (8, [.., _]) if matches!(s.get(8), Some(b'-' | b' ' | b'T')) => {
            let rest = &s[9..];
            let len = clock(rest).or_else(|| (digits(rest) == 6).then(|| 6 + zone(&rest[6..])))?;
            Some(9 + len)
        }
        (6, _) if s.get(6) == Some(&b' ') && digits(&s[7..]) == 6 && s.get(13) == Some(&b' ') => Some(13),
        _ => None,
    }
}

/// `12 Mar 2024 11:02:33.120`, `02-May-2024 06:11:40.118`, `10/Oct/2000:13:55:36 -0700`.
fn day_first(s: &[u8]) -> Option<usize> {
    let n = digits(s);
    let sep = *s.get(n)?;
    if !(1..=2).contains(&n) || !matches!(sep, b' ' | b'-' | b'/') || !MONTHS.contains(&s.get(n + 1..n + 4)?) {
        return None;
    }
    let at = n + 4;
    if s.get(at) != Some(&sep) || digits(&s[at + 1..]) != 4 || !matches!(s.get(at + 5), Some(b' ' | b':')) {
        return None;
    }
    Some(at + 6 + clock(&s[at + 6..])?)
}

/// `17/06/09 20:10:40`, `03-17 16:13:38.811`, `10.30 16:49:06`.
fn short_date(s: &[u8]) -> Option<usize> {
    let sep = *s.get(2)?;
    if digits(s) != 2 || !matches!(sep, b'/' | b'-' | b'.') || digits(&s[3..]) != 2 {
        return None;
    }
    let at = match s.get(5) {
        Some(b) if *b == sep && digits(&s[6..]) == 2 => 8,
        Some(b) if *b == sep && digits(&s[6..]) == 4 => 10,
        _ => 5,
    };
    matches!(s.get(at), Some(b' ')).then_some(())?;
    Some(at + 1 + clock(&s[at + 1..])?)
}

/// Seconds or milliseconds since 1970, of this century: `1714633312`, `1714633312.441`, `1714633312441`.
fn epoch(s: &[u8]) -> Option<usize> {
    let n = digits(s);
    if !matches!(n, 10 | 13) || !matches!(s[0], b'1' | b'2') {
        return None;
    }
    let fraction = match s.get(n) {
        Some(b'.') if n == 10 && (1..=9).contains(&digits(&s[n + 1..])) => 1 + digits(&s[n + 1..]),
        _ => 0,
    };
    matches!(s.get(n + fraction), Some(b' ' | b'\t' | b']' | b':' | b',' | b'|')).then_some(n + fraction)
}

/// `Jun 14 15:16:01`, `Jun 14 2024 15:16:01`, `Sun Dec 04 04:47:44 2005`.
fn named(s: &[u8]) -> Option<usize> {
    if DAYS.contains(&s.get(..3)?) && matches!(s.get(3), Some(b' ' | b',')) {
        let skip = if s[3] == b',' { 5 } else { 4 };
        let rest = s.get(skip..)?;
        return named_month(rest).or_else(|| day_first(rest)).map(|len| skip + len);
    }
    named_month(s)
}

fn named_month(s: &[u8]) -> Option<usize> {
    if !MONTHS.contains(&s.get(..3)?) || s.get(3) != Some(&b' ') {
        return None;
    }
    let mut at = 4 + s[4..].iter().take_while(|b| **b == b' ').count().min(1);
    let n = digits(&s[at..]);
    if !(1..=2).contains(&n) || s.get(at + n) != Some(&b' ') {
        return None;
    }
    at += n + 1;
    if digits(&s[at..]) == 4 && s.get(at + 4) == Some(&b' ') {
        at += 5;
    }
    at += clock(&s[at..])?;
    let year = s.get(at) == Some(&b' ') && digits(&s[at + 1..]) == 4;
    let year = year && s.get(at + 5).is_none_or(|b| matches!(b, b']' | b' ' | b':'));
    Some(if year && matches!(s.get(at + 1), Some(b'1' | b'2')) { at + 5 } else { at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_that_loggers_write() {
        for time in [
            "2024-05-02T06:11:40.118Z",
            "2024-05-02T06:11:40.118+02:00",
            "2015-10-18 18:01:47,978",
            "2016-09-28 04:30:30",
            "2005-06-03-15.42.50.675872",
            "2005.06.03",
            "2024/03/11 08:14:52",
            "2024/09/12 - 03:01:17",
            "20171223-22:15:29:606",
            "20171223-23:21:0:125",
            "20240502T061140Z",
            "081109 203615",
            "17/06/09 20:10:40",
            "03-17 16:13:38.811",
            "10.30 16:49:06",
            "12 Mar 2024 11:02:33.120",
            "02-May-2024 06:11:40.118",
            "10/Oct/2000:13:55:36 -0700",
            "1714633312",
            "1714633312.44",
            "1714633312441",
            "Jun 14 15:16:01",
            "Jul  1 09:00:55",
            "Mar  3 2024 10:00:00",
            "Sun Dec 04 04:47:44 2005",
            "Mon, 02 May 2024 10:00:00 GMT",
            "06:11:40.118",
            "2024-05-02 06:00:00 +0000",
            "2024-05-02 06:00:00 UTC",
        ] {
            let text = format!("{time} host");
            assert_eq!(timestamp(text.as_bytes()), Some(time.len()), "{time}");
        }
    }

    #[test]
    fn numbers_and_words_are_no_times() {
        for text in
            ["", "1", "12 files", "500 Internal", "10.0.0.7 said", "1234567890", "123-456", "May the", "Mon", "99"]
        {
            assert_eq!(timestamp(text.as_bytes()), None, "{text}");
        }
    }
}
