//! How lines begin: with a time, or with what is known to stand before one.

use super::{
    super::time::{digits, timestamp},
    LONGEST_BRACKET, Prefix, Reader, bracket, is_level, name,
};

impl<'a> Reader<'a> {
    /// `I0502 07:18:44.120000   12 server.go:512] `, with or without the process.
    pub(super) fn glog(&mut self) -> bool {
        let [b'I' | b'W' | b'E' | b'F', rest @ ..] = self.s else { return false };
        if digits(rest) != 4 || rest.get(4) != Some(&b' ') {
            return false;
        }
        let Some(end) = memchr::memchr(b']', &self.s[..self.s.len().min(LONGEST_BRACKET)]) else { return false };
        let head = &self.s[5..end];
        if !head.contains(&b':') || self.s.get(end + 1) != Some(&b' ') {
            return false;
        }
        self.found = Prefix { len: end + 1, level: Some(0..1), source: None };
        true
    }

    /// `10.0.0.1 - alice [10/Oct/2000:13:55:36 -0700] `.
    pub(super) fn access_log(&mut self) -> bool {
        let mut at = 0;
        for _ in 0..3 {
            let Some(n) = memchr::memchr(b' ', &self.s[at..self.s.len().min(at + 256)]) else { return false };
            at += n + 1;
        }
        let Some([b'[', rest @ ..]) = self.s.get(at..) else { return false };
        match timestamp(rest) {
            Some(len) if rest.get(len) == Some(&b']') && rest[..len].contains(&b'/') => {
                self.at = at + len + 2;
                self.commit();
                true
            }
            _ => false,
        }
    }

    /// All before the last of the first times; whether there is a time.
    pub(super) fn opening(&mut self) -> bool {
        self.blanks();
        if let [b'<', rest @ ..] = self.rest()
            && (1..=3).contains(&digits(rest))
            && rest.get(digits(rest)) == Some(&b'>')
        {
            self.at += digits(rest) + 2;
            if let [b'1', b' ', ..] = self.rest() {
                return self.syslog_5424();
            }
        }
        if self.time() {
            return true;
        }
        // One token before the time: a level, a program, an alert tag (BGL), a file name (OpenStack), `123:M` (Redis).
        let (start, len) = (self.at, self.token().len());
        if len > 80 || self.rest().get(len) != Some(&b' ') || matches!(self.s[start], b'"' | b'{') {
            return false;
        }
        self.at += len + 1;
        let is_epoch = digits(self.rest()) == 10;
        if !self.time() {
            return false;
        }
        if is_epoch && timestamp(self.after_blanks()).is_some() {
            self.supercomputer();
            return false;
        }
        let token = &self.s[start..start + len];
        let open = usize::from(token[0] == b'[');
        let word = open + name(&token[open..]);
        let closes =
            matches!(&token[word..], [b']'] if open == 1) || matches!(&token[word..], [] | [b':'] if open == 0);
        if is_level(&token[open..word]) && closes {
            self.found.level = Some(start + open..start + word);
        } else if word > open && closes && word < len {
            // A bare word may be a host or a file's name.
            self.found.source = Some(start + open..start + word);
        }
        true
    }

    fn after_blanks(&self) -> &'a [u8] {
        let rest = self.rest();
        &rest[rest.iter().take_while(|b| **b == b' ').count()..]
    }

    /// RFC 5424 behind the priority: `1 TIME HOST APP PROCID MSGID [DATA] `.
    fn syslog_5424(&mut self) -> bool {
        self.at += 2;
        let mut source = None;
        for field in 0..5 {
            let (start, len) = (self.at, self.token().len());
            if len == 0 || self.rest().get(len) != Some(&b' ') {
                return false;
            }
            if field == 2 && &self.s[start..start + len] != b"-" {
                source = Some(start..start + len);
            }
            self.at += len + 1;
        }
        self.at += match self.rest() {
            [b'-', ..] => 1,
            [b'[', ..] => bracket(self.rest(), usize::MAX).unwrap_or(0),
            _ => 0,
        };
        self.found.source = source;
        self.commit();
        false
    }

    /// BGL and its like: `TAG EPOCH DATE NODE TIME NODE `; the words behind it say who speaks, and stay.
    fn supercomputer(&mut self) {
        for _ in 0..2 {
            self.blanks();
            self.time();
            self.blanks();
            if memchr::memchr(b':', self.token()).is_none_or(|at| at + 1 < self.token().len()) {
                self.at += self.token().len();
                self.commit();
            }
        }
        self.blanks();
        self.host_and_program();
    }
}
