//! What stands behind the `?` of a path to values, collecting every problem. It does not know which routes use what.

use std::borrow::Cow;

use serde_json::value::{RawValue, to_raw_value};

use super::problem::{Problem, Rule, Step};

/// Gives every parameter to `set`, which says under which name it is known and whether it can be used; those that it does
/// not know do not count.
///
/// # Errors
/// Every problem, in the order of the query.
pub fn read(
    text: &str,
    mut set: impl FnMut(&str, &str) -> Option<(&'static str, Result<(), Rule>)>,
) -> Result<(), Vec<Problem<'static>>> {
    let mut problems = Vec::new();
    for (name, value) in form_urlencoded::parse(text.as_bytes()) {
        if let Some((name, Err(rule))) = set(&name, &value) {
            problems.push(problem(name, &value, rule));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// That the parameter `name` breaks `rule` with `value`.
pub fn problem(name: &'static str, value: &str, rule: Rule) -> Problem<'static> {
    let input = to_raw_value(value).map_or(Cow::Borrowed(RawValue::NULL), Cow::Owned);
    let mut problem = rule.at(vec![Step::Name("query"), Step::Name(name)], RawValue::NULL);
    problem.input = input;
    problem
}
