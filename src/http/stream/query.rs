//! The query parameters of a stream: what a batch call has in its body, and how to answer.

use utoipa::{IntoParams, ToSchema};

use super::{
    super::{
        detail::Detail,
        fields::share_in,
        problem::{Problem, Rule},
        query,
    },
    entry::Format,
};

/// Labels in a query that are looked at; how many are allowed is for the engine to say.
const MAX_LABELS: usize = 1024;

/// What a stream is asked for. Unknown parameters do not count; of equal ones the last does, except for `labels`.
#[derive(Debug, Default, PartialEq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Query {
    /// Score from which a log is an anomaly, 0 to 1; absent takes the configured one.
    #[param(minimum = 0, maximum = 1)]
    pub threshold: Option<f32>,
    /// Where the logs come from, for the threshold that `scoring.thresholds` has for it.
    pub source: Option<String>,
    /// A candidate label instead of the configured ones; once for each label.
    pub labels: Option<Vec<String>>,
    /// Which label counts as the anomaly: by default the configured one, or the first if it is not among `labels`.
    pub anomaly_label: Option<String>,
    /// The hypothesis, with `{}` for the label.
    pub hypothesis_template: Option<String>,
    /// Score each label on its own instead of against the others.
    pub multi_label: Option<bool>,
    /// The name of the log's field in each JSON line, instead of `log_message`, `message` or `log`.
    pub field: Option<String>,
    /// `none` (default), or `template`: entries also have `template_id`, `template`, `first_seen`, `count` and `novelty`. The
    /// operator must have set `templates.enabled`.
    #[param(inline, value_type = Option<Detail>)]
    pub detail: Detail,
    /// `all` (default): an entry for each line. `anomalies`: only anomalies and errors, then a summary. `summary`: one
    /// object at the end, for clients that do not read before they have written everything.
    #[param(inline, value_type = Option<Respond>)]
    pub respond: Respond,
}

/// What a stream answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum Respond {
    /// An entry for each line.
    #[default]
    All,
    /// Anomalies and errors, then a summary.
    Anomalies,
    /// One object at the end.
    Summary,
}

impl Query {
    /// Reads what stands behind the `?` of a path.
    ///
    /// # Errors
    /// Every problem, in the order of the query.
    pub fn read(text: &str) -> Result<Self, Vec<Problem<'static>>> {
        let mut read = Self::default();
        query::read(text, |name, value| read.set(name, value))?;
        Ok(read)
    }

    fn set(&mut self, name: &str, value: &str) -> Option<(&'static str, Result<(), Rule>)> {
        let said = |value: &str| match value.trim().is_empty() {
            true => Err(Rule::Blank),
            false => Ok(value.to_owned()),
        };
        Some(match name {
            "threshold" => ("threshold", share_in(value).map(|value| self.threshold = Some(value))),
            "source" => ("source", said(value).map(|source| self.source = Some(source))),
            "labels" => ("labels", said(value).map(|label| self.add_label(label))),
            "anomaly_label" => ("anomaly_label", said(value).map(|label| self.anomaly_label = Some(label))),
            "hypothesis_template" => {
                ("hypothesis_template", said(value).map(|template| self.hypothesis_template = Some(template)))
            }
            "multi_label" => ("multi_label", flag(value).map(|flag| self.multi_label = Some(flag))),
            "field" => ("field", said(value).map(|field| self.field = Some(field))),
            "detail" => ("detail", Detail::read(value).map(|detail| self.detail = detail)),
            "respond" => ("respond", respond(value).map(|respond| self.respond = respond)),
            _ => return None,
        })
    }

    fn add_label(&mut self, label: String) {
        let labels = self.labels.get_or_insert_default();
        if labels.len() < MAX_LABELS {
            labels.push(label);
        }
    }

    /// What the lines are; `plain` if they were sent as `text/plain`.
    pub fn format(&mut self, plain: bool) -> Format {
        match self.field.take() {
            _ if plain => Format::Plain,
            None => Format::Json,
            Some(name) => Format::JsonNamed(name),
        }
    }
}

fn flag(value: &str) -> Result<bool, Rule> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Rule::FlagType),
    }
}

fn respond(value: &str) -> Result<Respond, Rule> {
    match value {
        "all" => Ok(Respond::All),
        "anomalies" => Ok(Respond::Anomalies),
        "summary" => Ok(Respond::Summary),
        _ => Err(Rule::Value { reason: "respond must be all, anomalies or summary".into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::super::problem::Step, *};

    #[test]
    fn parameters() {
        assert_eq!(Query::read("").unwrap(), Query::default());
        let text = "threshold=.7&source=web&labels=a%20b&labels=c,d&anomaly_label=c,d&hypothesis_template=It+is+%7B%7D.\
                    &multi_label=true&field=event&detail=template&respond=all&respond=summary&other=1";
        let expected = Query {
            threshold: Some(0.7),
            source: Some("web".into()),
            labels: Some(vec!["a b".into(), "c,d".into()]),
            anomaly_label: Some("c,d".into()),
            hypothesis_template: Some("It is {}.".into()),
            multi_label: Some(true),
            field: Some("event".into()),
            detail: Detail::Template,
            respond: Respond::Summary,
        };
        assert_eq!(Query::read(text).unwrap(), expected);
    }

    #[test]
    fn problems_name_the_parameter() {
        let problems = Query::read("respond=x&threshold=2&labels=&multi_label=yes&field=+&detail=all").unwrap_err();
        let found: Vec<_> = problems.iter().map(|p| (p.r#type, p.loc[1], p.input.get())).collect();
        let expected = [
            ("value_error", "respond", "\"x\""),
            ("less_than_equal", "threshold", "\"2\""),
            ("string_too_short", "labels", "\"\""),
            ("bool_type", "multi_label", "\"yes\""),
            ("string_too_short", "field", "\" \""),
            ("value_error", "detail", "\"all\""),
        ];
        assert_eq!(found, expected.map(|(kind, name, input)| (kind, Step::Name(name), input)));
    }
}
