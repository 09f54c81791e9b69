//! One line to the log that it brings. It does not know where lines come from.

use std::str;

use serde_json::value::RawValue;

use super::super::{
    batch::ItemError,
    fields,
    json::{NotAnObject, Object},
    problem::Rule,
};

/// The names under which the log is looked for, the first one first: oddlog's own, Vector's, Fluent Bit's.
const NAMES: [&str; 3] = ["log_message", "message", "log"];

/// What the lines of a stream are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// The log itself.
    Plain,
    /// A JSON object with the log under one of the usual names, or a JSON string.
    Json,
    /// The same with the log under this name.
    JsonNamed(String),
}

impl Format {
    /// The log in a line; `None` if there is nothing but white space.
    ///
    /// # Errors
    /// What is wrong with the line.
    pub fn log(&self, line: Vec<u8>) -> Result<Option<String>, ItemError> {
        let Ok(text) = str::from_utf8(&line) else { return Err(ItemError::from(&Rule::StringUnicode)) };
        if text.trim().is_empty() {
            return Ok(None);
        }
        let names = match self {
            Self::Plain => return Ok(String::from_utf8(line).ok()),
            Self::Json => NAMES,
            Self::JsonNamed(name) => [name.as_str(); 3],
        };
        from_json(text, &names).map(Some).map_err(|rule| match &rule {
            Rule::Missing => {
                let names = if self == &Self::Json { &NAMES[..] } else { &names[..1] };
                ItemError { msg: format!("Field required: {}", names.join(" or ")).into(), ..ItemError::from(&rule) }
            }
            Rule::Json { reason } => {
                ItemError { msg: format!("JSON decode error: {reason}").into(), ..ItemError::from(&rule) }
            }
            rule => ItemError::from(rule),
        })
    }
}

fn from_json(text: &str, names: &[&str; 3]) -> Result<String, Rule> {
    if text.trim_start().starts_with('"') {
        let raw: &RawValue = serde_json::from_str(text).map_err(|e| {
            // The line of which it speaks is the first one, always.
            let reason = e.to_string();
            Rule::Json { reason: reason.split(" at line ").next().unwrap_or_default().to_owned() }
        })?;
        return fields::text(raw).map(Into::into);
    }
    let mut spare = None;
    let object = Object::read(text, names, &mut spare).map_err(|error| match error {
        NotAnObject::Missing | NotAnObject::Other => Rule::ObjectType,
        NotAnObject::Malformed { offset, reason } => Rule::Json { reason: format!("{reason} at character {offset}") },
    })?;
    let mut given = object.values.into_iter().flatten();
    let first = given.next().ok_or(Rule::Missing)?;
    // A record may have a field of a usual name that is not the log; a string is what is looked for.
    let string = [first].into_iter().chain(given).find(|raw| raw.get().starts_with('"'));
    fields::text(string.unwrap_or(first)).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(format: &Format, line: &str) -> Result<Option<String>, String> {
        format.log(line.as_bytes().to_vec()).map_err(|e| format!("{}: {}", e.r#type, e.msg))
    }

    #[test]
    fn logs() {
        let named = Format::JsonNamed("event".into());
        for (format, line, expected) in [
            (&Format::Plain, "{\"log\": 1}", Some("{\"log\": 1}")),
            (&Format::Plain, " x\0 ", Some(" x\0 ")),
            (&Format::Plain, " \t", None),
            (&Format::Json, "", None),
            (&Format::Json, r#""a \"b\"""#, Some("a \"b\"")),
            (&Format::Json, r#"{"log_message": "a", "message": "b"}"#, Some("a")),
            (&Format::Json, r#"{"log": "c", "message": "b", "x": [{}]}"#, Some("b")),
            (&Format::Json, r#"{"date": 1.5, "log": "c", "message": {"text": "b"}}"#, Some("c")),
            (&Format::Json, r#"{"log": "c", "log_message": null}"#, Some("c")),
            (&named, r#"{"log": "c", "event": "e"}"#, Some("e")),
        ] {
            assert_eq!(log(format, line), Ok(expected.map(str::to_owned)), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, expected) in [
            ("{}", "missing: Field required: log_message or message or log"),
            (r#"{"log": 3}"#, "string_type: Input should be a valid string"),
            (r#"{"log": null}"#, "string_type: Input should be a valid string"),
            ("[1]", "model_attributes_type: Input should be a valid dictionary or object to extract fields from"),
            ("{\"log\": ", "json_invalid: JSON decode error: EOF while parsing a value at character 8"),
        ] {
            assert_eq!(log(&Format::Json, line), Err(expected.to_owned()), "{line}");
        }
        let starts =
            |line: &str, with: &str| assert!(log(&Format::Json, line).unwrap_err().starts_with(with), "{line}");
        starts("\"a\" \"b\"", "json_invalid");
        starts("{\"log\": \"a\"}{\"log\": \"b\"}", "json_invalid");
        starts("{\"log\": \"a\0\"}", "json_invalid");
        starts("{\"log\": \"\\ud800\"}", "string_unicode");
        starts("{\"log\": \" \"}", "string_too_short");
        starts("plain", "json_invalid");
        assert_eq!(
            log(&Format::JsonNamed("event".into()), "{\"log\": \"a\"}").unwrap_err(),
            "missing: Field required: event"
        );
        assert_eq!(Format::Plain.log(b"\xff".to_vec()).unwrap_err().r#type, "string_unicode");
    }
}
