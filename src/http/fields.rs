//! Raw fields to checked values, collecting every problem in the order in which fields are read.
//!
//! `null` and an absent optional field are the same. It does not know which routes use which fields.

use std::{borrow::Cow, fmt};

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    json::{NotAnObject, Object, string},
    problem::{BODY, Problem, Rule, Step, whole},
};

/// The fields of a body, and what was wrong with those read so far.
pub struct Fields<'a, const N: usize> {
    names: [&'static str; N],
    object: Object<'a, N>,
    problems: Vec<Problem<'a>>,
}

/// A list's entries as they were sent, at most so many, and how many there were in all.
#[derive(Debug, Default)]
pub struct Entries<'a> {
    /// The first entries.
    pub first: Vec<&'a RawValue>,
    /// Entries sent.
    pub sent: usize,
}

impl<'a, const N: usize> Fields<'a, N> {
    /// Reads a body that was sent as `text/plain` if `plain`.
    ///
    /// # Errors
    /// What is wrong with the body as a whole.
    pub fn read(
        text: &'a str,
        plain: bool,
        names: [&'static str; N],
        spare: &'a mut Option<String>,
    ) -> Result<Self, Problem<'a>> {
        if plain && !text.is_empty() {
            return Err(whole(Rule::ObjectType, quoted(text)));
        }
        match Object::read(text, &names, spare) {
            Ok(object) => Ok(Self { names, object, problems: Vec::new() }),
            Err(NotAnObject::Missing) => Err(whole(Rule::Missing, Cow::Borrowed(RawValue::NULL))),
            Err(NotAnObject::Other) => {
                let input = serde_json::from_str(text).map_or_else(|_| quoted(text), Cow::Borrowed);
                Err(whole(Rule::ObjectType, input))
            }
            Err(NotAnObject::Malformed { offset, reason }) => {
                let mut problem = whole(Rule::Json { reason }, Cow::Owned(empty_object()));
                problem.loc.push(Step::Index(offset));
                Err(problem)
            }
        }
    }

    /// Notes that the field `index` breaks `rule`.
    pub fn note(&mut self, index: usize, rule: Rule) {
        let input = self.object.values[index].unwrap_or(RawValue::NULL);
        self.problems.push(rule.at(vec![BODY, Step::Name(self.names[index])], input));
    }

    /// The field's raw value, `None` for an absent one and for `null`.
    fn optional(&self, index: usize) -> Option<&'a RawValue> {
        self.object.values[index].filter(|raw| raw.get() != "null")
    }

    /// The field's raw value; an absent one is a problem, `null` is a value.
    fn required(&mut self, index: usize) -> Option<&'a RawValue> {
        let value = self.object.values[index];
        if value.is_none() {
            let body = serde_json::from_str(self.object.text).unwrap_or(RawValue::NULL);
            self.problems.push(Rule::Missing.at(vec![BODY, Step::Name(self.names[index])], body));
        }
        value
    }

    /// A field that must be a string with something in it.
    pub fn text(&mut self, index: usize) -> Option<Cow<'a, str>> {
        let raw = self.required(index)?;
        text(raw).map_err(|rule| self.note(index, rule)).ok()
    }

    /// A field that may be a string.
    pub fn optional_text(&mut self, index: usize) -> Option<String> {
        let raw = self.optional(index)?;
        text(raw).map(Cow::into_owned).map_err(|rule| self.note(index, rule)).ok()
    }

    /// A field that counts if it is a string, and is ignored otherwise: clients may have sent one of that name before it
    /// meant anything.
    pub fn text_if_any(&mut self, index: usize) -> Option<String> {
        text(self.optional(index)?).map(Cow::into_owned).ok()
    }

    /// A field that may be a number from 0 to 1, or a string with one.
    pub fn optional_share(&mut self, index: usize) -> Option<f32> {
        let raw = self.optional(index)?;
        share(raw).map_err(|rule| self.note(index, rule)).ok()
    }

    /// A field that may be true or false.
    pub fn optional_flag(&mut self, index: usize) -> Option<bool> {
        let raw = self.optional(index)?;
        serde_json::from_str(raw.get()).map_err(|_| self.note(index, Rule::FlagType)).ok()
    }

    /// A field that may be a list of at most `max` strings with something in them.
    pub fn optional_texts(&mut self, index: usize, max: usize) -> Option<Vec<String>> {
        let raw = self.optional(index)?;
        let entries = self.entries(index, raw, max)?;
        let mut texts = Vec::with_capacity(entries.len());
        for (at, entry) in entries.into_iter().enumerate() {
            match text(entry) {
                Ok(text) => texts.push(text.into_owned()),
                Err(rule) => {
                    let loc = vec![BODY, Step::Name(self.names[index]), Step::Index(at)];
                    self.problems.push(rule.at(loc, entry));
                }
            }
        }
        Some(texts)
    }

    /// A field that must be a list of at most `max` entries, of whatever type.
    pub fn list(&mut self, index: usize, max: usize) -> Option<Vec<&'a RawValue>> {
        let raw = self.required(index)?;
        self.entries(index, raw, max)
    }

    fn entries(&mut self, index: usize, raw: &'a RawValue, max: usize) -> Option<Vec<&'a RawValue>> {
        let mut parser = serde_json::Deserializer::from_str(raw.get());
        match parser.deserialize_seq(AtMost(max)) {
            Ok(Entries { first, sent }) if sent <= max => Some(first),
            Ok(Entries { sent, .. }) => {
                self.note(index, Rule::TooLong { max, actual: sent });
                None
            }
            Err(_) => {
                self.note(index, Rule::ListType);
                None
            }
        }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Every problem that was found.
    pub fn finish(self) -> Result<(), Vec<Problem<'a>>> {
        if self.problems.is_empty() { Ok(()) } else { Err(self.problems) }
    }
}

/// A string with something in it.
///
/// # Errors
/// The rule that it breaks.
pub fn text(raw: &RawValue) -> Result<Cow<'_, str>, Rule> {
    if !raw.get().starts_with('"') {
        return Err(Rule::StringType);
    }
    let text = string(raw).ok_or(Rule::StringUnicode)?;
    if text.trim().is_empty() { Err(Rule::Blank) } else { Ok(text) }
}

/// A number from 0 to 1; a string with one counts, a boolean does not.
fn share(raw: &RawValue) -> Result<f32, Rule> {
    let number = match raw.get().as_bytes()[0] {
        b'"' => {
            return share_in(&string(raw).ok_or(Rule::NumberParsing)?);
        }
        // Rust reads what JSON allows, and what no float can hold as infinite.
        b'-' | b'0'..=b'9' => raw.get().parse::<f64>().map_err(|_| Rule::NumberType)?,
        _ => return Err(Rule::NumberType),
    };
    within(number)
}

/// A text with a number from 0 to 1.
///
/// # Errors
/// The rule that it breaks.
pub fn share_in(text: &str) -> Result<f32, Rule> {
    within(text.trim().parse().map_err(|_| Rule::NumberParsing)?)
}

fn within(number: f64) -> Result<f32, Rule> {
    match number {
        n if !n.is_finite() => Err(Rule::Finite),
        n if n < 0.0 => Err(Rule::AtLeastZero),
        n if n > 1.0 => Err(Rule::AtMostOne),
        n => Ok(n as f32),
    }
}

fn quoted(text: &str) -> Cow<'static, RawValue> {
    serde_json::value::to_raw_value(text).map_or(Cow::Borrowed(RawValue::NULL), Cow::Owned)
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".into()).expect("it is JSON")
}

/// Collects at most so many entries of a list and counts the rest.
struct AtMost(usize);

impl<'de> Visitor<'de> for AtMost {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries = Entries::default();
        while entries.sent < self.0 {
            let Some(entry) = list.next_element()? else { return Ok(entries) };
            entries.first.push(entry);
            entries.sent += 1;
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            entries.sent += 1;
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).unwrap()
    }

    #[test]
    fn shares() {
        for (text, value) in [
            ("0.7", 0.7),
            ("\"0.7\"", 0.7),
            ("0", 0.0),
            ("1e0", 1.0),
            ("\" .5 \"", 0.5),
            ("1e-400", 0.0),
            ("-0.0", 0.0),
        ] {
            assert_eq!(share(&raw(text)), Ok(value), "{text}");
        }
        for (text, rule) in [
            ("1.5", Rule::AtMostOne),
            ("1.00000001", Rule::AtMostOne),
            ("-0.1", Rule::AtLeastZero),
            ("\"-1\"", Rule::AtLeastZero),
            ("1e400", Rule::Finite),
            ("\"NaN\"", Rule::Finite),
            ("\"x\"", Rule::NumberParsing),
            ("\"\"", Rule::NumberParsing),
            ("true", Rule::NumberType),
            ("[0.5]", Rule::NumberType),
            ("{}", Rule::NumberType),
        ] {
            assert_eq!(share(&raw(text)), Err(rule), "{text}");
        }
    }

    #[test]
    fn texts() {
        for (text_, rule) in [
            ("\"\"", Rule::Blank),
            ("\" \\n\\u00a0\"", Rule::Blank),
            ("3", Rule::StringType),
            ("null", Rule::StringType),
            ("\"\\ud800\"", Rule::StringUnicode),
        ] {
            assert_eq!(text(&raw(text_)), Err(rule), "{text_}");
        }
        assert_eq!(text(&raw("\" x \"")).unwrap(), " x ");
    }

    #[test]
    fn a_list_is_kept_up_to_its_limit_and_counted() {
        let (body, mut spare) = (r#"{"logs": [1, "a", [2], null], "labels": {}}"#, None);
        let mut fields = Fields::read(body, false, ["logs", "labels"], &mut spare).unwrap();
        assert_eq!(fields.list(0, 4).unwrap().len(), 4);
        assert!(fields.list(0, 3).is_none() && fields.optional_texts(1, 9).is_none());
        let problems = fields.finish().unwrap_err();
        assert_eq!(problems[0].msg, "List should have at most 3 items after validation, not 4");
        assert_eq!((problems[1].r#type, problems[1].input.get()), ("list_type", "{}"));
    }
}
