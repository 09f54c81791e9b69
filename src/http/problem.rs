//! What is wrong with a request's fields, in the words and shape of FastAPI (pydantic), which existing clients read.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Value, json, value::RawValue};
use utoipa::ToSchema;

/// One thing that is wrong with a request.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(example = json!({
    "type": "missing", "loc": ["body", "log_message"], "msg": "Field required", "input": {}
}))]
pub struct Problem<'a> {
    /// Which rule was broken, for programs.
    #[schema(value_type = String)]
    pub r#type: &'static str,
    /// Where: `body`, then the field, then the position in a list; or `header` and its name.
    pub loc: Vec<Step>,
    /// What to change, for people.
    #[schema(value_type = String)]
    pub msg: Cow<'static, str>,
    /// The value as it was sent, but for halves of surrogate pairs, which strict readers of JSON would choke on.
    #[schema(value_type = Value)]
    #[serde(serialize_with = "without_lone_surrogates")]
    pub input: Cow<'a, RawValue>,
    /// The limits that `msg` speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

fn without_lone_surrogates<S: Serializer>(raw: &RawValue, serializer: S) -> Result<S::Ok, S::Error> {
    let text = raw.get();
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return raw.serialize(serializer);
    }
    let whole = RawValue::from_string(paired(text));
    whole.map_err(serde::ser::Error::custom)?.serialize(serializer)
}

/// JSON text with every escape of a lone surrogate changed to that of the replacement character.
fn paired(json: &str) -> String {
    let unit = |at: usize| {
        let digits = json.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let (mut fixed, mut at) = (String::with_capacity(json.len()), 0);
    while let Some(step) = json[at..].find('\\') {
        let escape = at + step;
        fixed.push_str(&json[at..escape]);
        let (written, kept) = match unit(escape) {
            Some(0xd800..=0xdbff) if matches!(unit(escape + 6), Some(0xdc00..=0xdfff)) => (12, true),
            Some(0xd800..=0xdfff) => (6, false),
            _ => (2, true),
        };
        at = (escape + written).min(json.len());
        fixed.push_str(if kept { &json[escape..at] } else { "\\ufffd" });
    }
    fixed + &json[at..]
}

/// One step of the way to a wrong value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Step {
    /// A field's name.
    Name(&'static str),
    /// A position: of a list's entry, or in characters of the body.
    Index(usize),
}

/// A rule, with what its text needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// The field is not there.
    Missing,
    /// Not a string.
    StringType,
    /// A string that is no Unicode text.
    StringUnicode,
    /// Empty, or white space alone.
    Blank,
    /// Neither a number nor a string with one.
    NumberType,
    /// A string without a number.
    NumberParsing,
    /// NaN, infinite, or too large for a float.
    Finite,
    /// Below 0.
    AtLeastZero,
    /// Above 1.
    AtMostOne,
    /// A string without a whole number.
    IntParsing,
    /// Below a whole number.
    AtLeast {
        /// That number.
        min: u64,
    },
    /// Above a whole number.
    AtMost {
        /// That number.
        max: u64,
    },
    /// Not true or false.
    FlagType,
    /// Not a list.
    ListType,
    /// More entries than allowed.
    TooLong {
        /// Most entries allowed.
        max: usize,
        /// Entries sent.
        actual: usize,
    },
    /// The body is no JSON object.
    ObjectType,
    /// The body is no JSON.
    Json {
        /// What the parser expected.
        reason: String,
    },
    /// A value of the right type that cannot be used.
    Value {
        /// What to change.
        reason: String,
    },
}

impl Rule {
    /// The rule's name for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::StringType => "string_type",
            Self::StringUnicode => "string_unicode",
            Self::Blank => "string_too_short",
            Self::NumberType => "float_type",
            Self::NumberParsing => "float_parsing",
            Self::Finite => "finite_number",
            Self::IntParsing => "int_parsing",
            Self::AtLeastZero | Self::AtLeast { .. } => "greater_than_equal",
            Self::AtMostOne | Self::AtMost { .. } => "less_than_equal",
            Self::FlagType => "bool_type",
            Self::ListType => "list_type",
            Self::TooLong { .. } => "too_long",
            Self::ObjectType => "model_attributes_type",
            Self::Json { .. } => "json_invalid",
            Self::Value { .. } => "value_error",
        }
    }

    /// What to change, for people.
    pub fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Missing => "Field required",
            Self::StringType => "Input should be a valid string",
            Self::StringUnicode => "Input should be a valid string, unable to parse raw data as a unicode string",
            Self::Blank => "String should have at least 1 character that is not white space",
            Self::NumberType => "Input should be a valid number",
            Self::NumberParsing => "Input should be a valid number, unable to parse string as a number",
            Self::Finite => "Input should be a finite number",
            Self::AtLeastZero => "Input should be greater than or equal to 0",
            Self::AtMostOne => "Input should be less than or equal to 1",
            Self::IntParsing => "Input should be a valid integer, unable to parse string as an integer",
            Self::AtLeast { min } => return format!("Input should be greater than or equal to {min}").into(),
            Self::AtMost { max } => return format!("Input should be less than or equal to {max}").into(),
            Self::FlagType => "Input should be a valid boolean",
            Self::ListType => "Input should be a valid list",
            Self::TooLong { max, actual } => {
                return format!("List should have at most {max} items after validation, not {actual}").into();
            }
            Self::ObjectType => "Input should be a valid dictionary or object to extract fields from",
            Self::Json { .. } => "JSON decode error",
            Self::Value { reason } => return format!("Value error, {reason}").into(),
        })
    }

    fn context(&self) -> Option<Value> {
        match self {
            Self::AtLeastZero => Some(json!({ "ge": 0.0 })),
            Self::AtMostOne => Some(json!({ "le": 1.0 })),
            Self::AtLeast { min } => Some(json!({ "ge": min })),
            Self::AtMost { max } => Some(json!({ "le": max })),
            Self::Blank => Some(json!({ "min_length": 1 })),
            Self::TooLong { max, actual } => {
                Some(json!({ "field_type": "List", "max_length": max, "actual_length": actual }))
            }
            Self::Json { reason } | Self::Value { reason } => Some(json!({ "error": reason })),
            _ => None,
        }
    }

    /// This rule broken by `input` at `loc`, a way that starts with `body` or `header`.
    pub fn at<'a>(self, loc: Vec<Step>, input: &'a RawValue) -> Problem<'a> {
        // JSON has no name for such a number, and many parsers refuse its digits.
        let input = if self == Self::Finite { RawValue::NULL } else { input };
        Problem { r#type: self.name(), msg: self.message(), ctx: self.context(), loc, input: Cow::Borrowed(input) }
    }
}

/// The way to the body as a whole.
pub const BODY: Step = Step::Name("body");

/// What is wrong with a body as a whole.
pub fn whole(rule: Rule, input: Cow<'_, RawValue>) -> Problem<'_> {
    Problem { r#type: rule.name(), msg: rule.message(), ctx: rule.context(), loc: vec![BODY], input }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_replaced_and_nothing_else() {
        for (json, expected) in [
            (r#""\ud800""#, r#""\ufffd""#),
            (r#"["\uDC00\ud83d\ude00", "\\ud800", "\ud83dx\""]"#, r#"["\ufffd\ud83d\ude00", "\\ud800", "\ufffdx\""]"#),
            (r#"{"a\ud83d\ud83d\ude00": "é\u00e9"}"#, r#"{"a\ufffd\ud83d\ude00": "é\u00e9"}"#),
        ] {
            assert_eq!(paired(json), expected);
            serde_json::from_str::<Value>(&paired(json)).unwrap();
        }
    }
}
